"""One table of all figures of the training data: rasteriser, speech features, acoustic model, generator, tracker.

    AVFACE_CLIPS=path/to/clips python benchmarks/material.py

runs the benchmarks of this folder and the study of the acoustic model, and prints the table of docs/material.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from avface.evaluation.machine import describe_machine
from avface.evaluation.studies.acoustic import (
    held_out_corpus,
    score_clips,
    score_voices,
    score_without_speech,
)
from avface.speech.acoustic import pretrained_acoustic_model

HERE = Path(__file__).parent


def main() -> None:
    """Measure and print."""
    machine = describe_machine()
    console = Console(stderr=True)
    print("| what | figure | measured |\n| --- | --- | --- |")
    for part in (_rasteriser, _speed_of_speech, _acoustic_model, _generator):
        with console.status(part.__doc__ or ""):
            for figure, measured in part():
                print(f"| {part.__doc__} | {figure} | {measured} |", flush=True)
    print(f"\n{machine}")


def _benchmark(name: str, *options: str) -> dict[str, Any]:
    """The JSON output of a benchmark of this folder."""
    command = [sys.executable, str(HERE / name), *options, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def _rasteriser() -> Iterator[tuple[str, str]]:
    """rasteriser"""
    figures = _benchmark("rasteriser.py", "--repeats", "10")
    for device, found in figures["exactness"].items():
        yield (
            f"pixels of random meshes with another triangle than a double precision reference, {device}",
            f"{found['wrong']} of {found['pixels']}",
        )
        yield f"largest error of a barycentric coordinate, {device}", f"{found['barycentric_error']:.1e}"
    for row in figures["times"]:
        draw, both = row["draw_ms"]["median"], row["draw_and_gradient_ms"]["median"]
        where = f"{row['size']} x {row['size']}, batch {row['batch']}, {row['device']}"
        yield f"open head, ms per image (with gradient), {where}", f"{draw:.1f} ({both:.1f})"


def _speed_of_speech() -> Iterator[tuple[str, str]]:
    """speech features"""
    for name, factors in _benchmark("speech.py")["times_real_time"].items():
        yield f"times real time, one core, {name}", f"{factors['median']:.0f}"


def _acoustic_model() -> Iterator[tuple[str, str]]:
    """acoustic model"""
    torch.set_num_threads(1)
    model, corpus = pretrained_acoustic_model(), held_out_corpus()
    for name, noisy in (("clean", False), ("in noise", True)):
        voices = score_voices(model, corpus, noisy=noisy)
        yield f"phone error rate on held-out voices, {name}", f"{voices.phone_error_rate:.1f} %"
        yield f"accuracy of rows, {name}", f"{voices.frame_accuracy:.1f} %"
    for name, activity in score_without_speech(model).items():
        yield f"mean speech activity, {name}", f"{activity:.3f}"
    clips = score_clips(model)
    for clip in clips:
        yield (
            f"mouth opening from audio against video, {clip.name} ({clip.frames} frames)",
            f"r {clip.correlation:.2f} at {1000 * clip.lag:+.0f} ms",
        )
    yield "the same, mean of the clips", f"r {np.mean([clip.correlation for clip in clips]):.2f}"


def _generator() -> Iterator[tuple[str, str]]:
    """generator and tracker"""
    figures = _benchmark("generator.py")
    yield "frames per second, 256 x 256, whole command", f"{figures['frames_per_second']:.1f}"
    yield f"detection rate of the tracker, of {figures['frames']} frames", f"{figures['detection_rate']:.2%}"
    yield "error of the tracker, % of the face", f"{figures['error_percent']:.2f}"
    yield (
        "constant over a clip, varying",
        f"{figures['steady_error_percent']:.2f}, {figures['moving_error_percent']:.2f}",
    )
    yield "jitter of the tracker over that of the truth", f"{figures['jitter_ratio']:.1f}"


if __name__ == "__main__":
    main()
