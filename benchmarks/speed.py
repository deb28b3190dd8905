"""Speed of the reconstruction: each stage, and the whole process from a cold start."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import tyro
from processes import reconstruct_process
from samples import as_json, check_positive, spread
from video_files import find_clip

import avface
from avface.evaluation.machine import describe_machine
from avface.evaluation.mediapipe_alone import run_mediapipe
from avface.media import Clip

MEDIAPIPE = "MediaPipe alone"
STAGES = ("decode", "track", "solve", ".npz", ".glb", ".csv", "all stages", "overlay")
WHOLE = "whole process"


@dataclass(frozen=True)
class Speed:
    """Measure the speed of avface on one video."""

    video: Path | None = None
    """The video; skarsgard.mp4 in the folder AVFACE_CLIPS if none is given."""
    repeats: int = 5
    """Repetitions of the whole measurement."""
    json: bool = False
    """Print JSON instead of a table."""

    def __post_init__(self) -> None:
        check_positive(self, "repeats")


def measure_once(video: Path, folder: Path) -> tuple[int, dict[str, float]]:
    """Number of frames, and seconds of each stage, of MediaPipe alone and of the whole process."""
    seconds = {}
    begin = time.perf_counter()
    frames = sum(1 for _ in Clip.open(video).frames())
    seconds["decode"] = time.perf_counter() - begin
    _, seconds[MEDIAPIPE] = run_mediapipe(video)

    tracked = begin = time.perf_counter()

    def on_progress(stage: str, done: int, total: int | None) -> None:
        nonlocal tracked
        if stage == "track":
            tracked = time.perf_counter()

    capture = avface.reconstruct(video, progress=on_progress)
    seconds["track"], seconds["solve"] = tracked - begin, time.perf_counter() - tracked
    for suffix, write in ((".npz", capture.save), (".glb", capture.export), (".csv", capture.export)):
        before = time.perf_counter()
        write(folder / f"head{suffix}")
        seconds[suffix] = time.perf_counter() - before
    seconds["all stages"] = time.perf_counter() - begin
    before = time.perf_counter()
    capture.export(folder / "overlay.mp4")
    seconds["overlay"] = time.perf_counter() - before
    seconds[WHOLE] = reconstruct_process(video, folder / "cold").seconds
    return frames, seconds


def main(options: Speed) -> None:
    """Measure and print."""
    video = find_clip(options.video)
    machine = describe_machine()
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        measure_once(video, Path(folder))  # modules, networks and file caches are warm from here on
        for _ in range(options.repeats):
            frames, seconds = measure_once(video, Path(folder))
            runs.append(seconds)
    info = Clip.open(video).info
    rows = {
        stage: {
            "ms_per_frame": [1000 * run[stage] / frames for run in runs],
            "fps": [frames / run[stage] for run in runs],
            "speed_over_mediapipe": [run[MEDIAPIPE] / run[stage] for run in runs],
        }
        for stage in (MEDIAPIPE, *STAGES, WHOLE)
    }
    if options.json:
        content = {
            "video": video.name,
            "size": [info.width, info.height],
            "frames": frames,
            "repeats": options.repeats,
            "stages": {
                stage: {name: as_json(values) for name, values in row.items()} for stage, row in rows.items()
            },
            "machine": machine,
        }
        print(json.dumps(content, indent=2))
        return
    size = f"{info.width} x {info.height}"
    print(f"{video.name}: {size}, {frames} frames; median of {options.repeats} (min-max)")
    print(f"{'':16}{'ms per frame':>20}{'frames per second':>26}{'speed / MediaPipe':>19}")
    for stage, row in rows.items():
        ratio = median(row["speed_over_mediapipe"])
        print(f"{stage:16}{spread(row['ms_per_frame'], '.2f'):>20}{spread(row['fps']):>26}{ratio:>19.2f}")
    print(machine)


if __name__ == "__main__":
    main(tyro.cli(Speed))
