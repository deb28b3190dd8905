"""Peak memory by length of the video: 10 s, 1 min and 10 min of a looped clip."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro
from processes import mediapipe_process, reconstruct_process
from samples import check_positive
from video_files import find_clip, loop_clip

from avface.evaluation.machine import describe_machine


@dataclass(frozen=True)
class Memory:
    """Measure the peak memory of `avface reconstruct`, each length in a separate process."""

    video: Path | None = None
    """The video to loop; skarsgard.mp4 in the folder AVFACE_CLIPS if none is given."""
    seconds: tuple[float, ...] = (10, 60, 600)
    """Lengths to measure."""
    json: bool = False
    """Print JSON instead of a table."""

    def __post_init__(self) -> None:
        check_positive(self, "seconds")


def main(options: Memory) -> None:
    """Measure and print."""
    video = find_clip(options.video)
    machine = describe_machine()
    if not options.json:
        print(f"{video.name} looped; peak resident memory of the process in MB (10^6 bytes)")
        print(f"{'seconds':>8}{'frames':>8}{'avface':>9}{'MediaPipe':>11}{'ratio':>7}{'processing, s':>15}")
    rows = []
    for seconds in options.seconds:
        row = measure(video, seconds)
        rows.append(row)
        if not options.json:
            print(
                f"{seconds:8.0f}{row['frames']:8.0f}{row['avface_mb']:9.0f}{row['mediapipe_mb']:11.0f}"
                f"{row['avface_mb'] / row['mediapipe_mb']:7.2f}{row['avface_seconds']:15.0f}",
                flush=True,
            )
    print(
        json.dumps({"video": video.name, "lengths": rows, "machine": machine}, indent=2)
        if options.json
        else machine
    )


def measure(video: Path, seconds: float) -> dict[str, float]:
    """One length: frames, peaks in 10^6 bytes and the processing time of avface."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        looped = folder / f"looped{video.suffix}"
        frames = loop_clip(video, looped, seconds)
        mediapipe = mediapipe_process(looped)
        avface = reconstruct_process(looped, folder / "out")
    return {
        "seconds": seconds,
        "frames": frames,
        "avface_mb": avface.peak_mb,
        "mediapipe_mb": mediapipe.peak_mb,
        "avface_seconds": avface.seconds,
    }


if __name__ == "__main__":
    main(tyro.cli(Memory))
