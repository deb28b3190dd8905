"""Speed of the generation of synthetic clips, and accuracy of the tracker on them."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from samples import check_positive

from avface.evaluation.machine import describe_machine
from avface.synthetic.clips import TRUTH, SceneConfig, SynthesisConfig, SyntheticClip, synthesize
from avface.synthetic.truth import ClipTruth


@dataclass(frozen=True)
class Generator:
    """Measure the generation of clips of 256 x 256 pixels: images, audio, encoding, tracking, ground truth."""

    clips: int = 16
    """Number of clips."""
    seconds: float = 4.0
    """Duration of each."""
    size: int = 256
    """Width and height in pixels."""
    seed: int = 1
    """Seed of the series."""
    device: str = "cpu"
    """Torch device of the renderer."""
    json: bool = False
    """Print JSON instead of a table."""

    def __post_init__(self) -> None:
        check_positive(self, "clips", "seconds", "size")


def measure(options: Generator) -> dict[str, float]:
    """Frames per second of the whole command, detection rate and error of the tracker."""
    scene = SceneConfig(size=options.size, seconds=options.seconds)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        clips = synthesize(
            Path(folder) / "clips", options.clips, SynthesisConfig(options.seed, scene), device=options.device
        )
        seconds = time.perf_counter() - begin
        return (
            {"frames": sum(clip.frames for clip in clips), "seconds": seconds}
            | tracker_figures(clips)
            | {"frames_per_second": sum(clip.frames for clip in clips) / seconds}
        )


def tracker_figures(clips: Sequence[SyntheticClip]) -> dict[str, float]:
    """Detection rate and landmark error of the tracker on synthetic clips, against the head's own landmarks.

    Errors are in per cent of sqrt(w h) of the true landmarks' box: the mean distance; its constant part over a clip
    (the bias of the tracker for a person, or of the embedding); the varying rest; and the jitter, the ratio of the mean
    second difference of the tracked landmarks to that of the true ones.
    """
    found, error, steady, moving, jitter = [], [], [], [], []
    for clip in clips:
        truth = ClipTruth.load(clip.folder / TRUTH)
        seen = truth.tracked_confidence > 0
        found.append(seen)
        size = np.sqrt(np.ptp(truth.landmarks, axis=1).prod(-1))[:, None, None]
        offset = ((truth.tracked - truth.landmarks) / size)[seen]
        if not len(offset):
            continue
        error.append(np.linalg.norm(offset, axis=-1).mean())
        steady.append(np.linalg.norm(offset.mean(0), axis=-1).mean())
        moving.append(np.linalg.norm(offset - offset.mean(0), axis=-1).mean())
        second = [
            np.linalg.norm(np.diff(part, 2, axis=0), axis=-1) for part in (truth.tracked, truth.landmarks)
        ]
        jitter.append(np.nanmean(second[0]) / np.nanmean(second[1]))
    return {
        "detection_rate": float(np.concatenate(found).mean()),
        "error_percent": 100 * float(np.mean(error)),
        "steady_error_percent": 100 * float(np.mean(steady)),
        "moving_error_percent": 100 * float(np.mean(moving)),
        "jitter_ratio": float(np.mean(jitter)),
    }


def main(options: Generator) -> None:
    """Measure and print."""
    machine = describe_machine()
    figures = measure(options)
    if options.json:
        print(json.dumps({"machine": machine, **figures}))
        return
    print(f"{figures['frames']} frames of {options.size} x {options.size} in {figures['seconds']:.1f} s")
    print(f"{figures['frames_per_second']:.1f} frames per second, start of the processes included")
    print(f"the tracker finds the face in {figures['detection_rate']:.2%} of the frames")
    print(
        f"error of its landmarks: {figures['error_percent']:.2f} % of the face's size, "
        f"{figures['steady_error_percent']:.2f} % constant and {figures['moving_error_percent']:.2f} % varying; "
        f"jitter {figures['jitter_ratio']:.1f} times that of the truth"
    )
    print(machine)


if __name__ == "__main__":
    main(tyro.cli(Generator))
