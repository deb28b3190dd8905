"""Speed of speech features, as multiples of real time."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from samples import as_json, check_positive, spread

from avface.evaluation.machine import describe_machine
from avface.speech import SpeechKind, speech_features
from avface.synthetic.performance.espeak import speak

TEXT = "Hello! I am not a real person. My face was made to test how well a video becomes a head."


@dataclass(frozen=True)
class Speech:
    """Measure the speed of speech features."""

    kinds: tuple[SpeechKind, ...] = ("moonshine", "own", "mel")
    """Kinds of features; wav2vec2 needs weights in the user's cache."""
    seconds: tuple[float, ...] = (10.0, 600.0)
    """Durations of the audio."""
    frame_rate: float = 25.0
    """Video frames per second."""
    repeats: int = 5
    """Repetitions."""
    device: str = "cpu"
    """Torch device."""
    threads: int = 1
    """CPU threads of torch."""
    json: bool = False
    """Print JSON instead of a table."""

    def __post_init__(self) -> None:
        check_positive(self, "seconds", "frame_rate", "repeats", "threads")


def main(options: Speech) -> None:
    """Measure and print."""
    torch.set_num_threads(options.threads)
    machine = describe_machine()
    spoken = speak(TEXT).resampled(16_000).samples
    results = {}
    for kind in options.kinds:
        for seconds in options.seconds:
            sound = np.resize(spoken, round(16_000 * seconds))
            times = np.arange(round(seconds * options.frame_rate)) / options.frame_rate
            results[f"{kind}, {seconds:g} s"] = [
                seconds / taken for taken in measure(sound, times, kind, options.device, options.repeats)
            ]
    if options.json:
        content = {name: as_json(factors) for name, factors in results.items()}
        print(
            json.dumps({"times_real_time": content, "repeats": options.repeats, "machine": machine}, indent=2)
        )
        return
    print(f"seconds of audio per second; median of {options.repeats} (min-max)")
    for name, factors in results.items():
        print(f"{name:20}{spread(factors, '.0f'):>20}")
    print(f"{machine}; {options.device}, {options.threads} threads")


def measure(sound: np.ndarray, times: np.ndarray, kind: SpeechKind, device: str, repeats: int) -> list[float]:
    """Seconds of each of `repeats` runs after a warm-up run."""
    taken = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        speech_features(sound, times, kind, device)
        taken.append(time.perf_counter() - begin)
    return taken[1:]


if __name__ == "__main__":
    main(tyro.cli(Speech))
