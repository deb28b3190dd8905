"""Performances for simulated landmarks: windows without rendering, each of a new person."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from avface.arrays import F32
from avface.data.shards import file_hash
from avface.head.asset import load_head
from avface.head.model import HeadModel
from avface.speech.readout import HEARING_FILES
from avface.speech.spectrum import SAMPLE_RATE
from avface.training.coarse.recipes import Simulation
from avface.training.coarse.tracked_takes import Performances

VERSION = 2
"""Version of what a performance is made of."""
FRAME_RATE = 25.0
"""Frames per second of the networks' input, as of datasets."""
SILENCE, SOUNDS = 0.08, 0.05
"""Shares of the performances without speech, as in rendered clips."""
_PERFORMANCES = 40  # which random numbers


def prepare_performances(
    path: Path,
    head: str,
    simulation: Simulation,
    seed: int,
    *,
    workers: int = 1,
    on_progress: Callable[[float], None] = lambda share: None,
) -> Performances:
    """The performances of a recipe, from a file or made now and stored there, some 50 times faster than real time.

    They are made again when the networks of the speech features have changed.

    Raises:
        AvfaceError: if espeakng-loader is missing, or the file is damaged or can't be written.
    """
    kept = {name: asdict(simulation)[name] for name in ("hours", "seconds")}
    described = {
        "version": VERSION,
        "head": head,
        "seed": seed,
        "hearing": [file_hash(path) for path in HEARING_FILES],
        **kept,
    }
    metadata = {"performances": json.dumps(described)}
    found = Performances.load(path, metadata)
    if found is not None:
        return found
    count = max(1, round(simulation.hours * 3600 / simulation.seconds))
    made: list[dict[str, npt.NDArray[Any]]] = []
    jobs = [_Job(head, seed, simulation.seconds, number) for number in range(count)]
    if workers <= 1:
        for job in jobs:
            made.append(job())
            on_progress(len(made) / count)
    else:
        context = get_context("spawn")  # forked copies of torch's threads would hang
        with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
            for arrays in pool.map(_Job.__call__, jobs, chunksize=8):
                made.append(arrays)
                on_progress(len(made) / count)
    lengths = torch.tensor([len(arrays["expression"]) for arrays in made])
    performances = Performances(
        first=lengths.cumsum(0) - lengths,
        count=lengths,
        frame_rate=FRAME_RATE,
        **{name: torch.from_numpy(np.concatenate([arrays[name] for arrays in made])) for name in made[0]},
    )
    performances.save(path, metadata)
    return performances


_heads: dict[str, HeadModel] = {}


@dataclass(frozen=True)
class _Job:
    """Makes one performance, in any process."""

    head: str
    seed: int
    seconds: float
    number: int

    def __call__(self) -> dict[str, npt.NDArray[Any]]:
        from avface.speech import speech_features
        from avface.synthetic.performance.performance import Kind, perform

        if self.head not in _heads:
            _heads[self.head] = load_head(self.head)
        rng = np.random.default_rng([self.seed, _PERFORMANCES, self.number])
        kinds: tuple[Kind, ...] = ("speech", "silence", "sounds")
        kind = kinds[rng.choice(3, p=[1 - SILENCE - SOUNDS, SILENCE, SOUNDS])]
        performance = perform(rng, _heads[self.head], self.seconds, FRAME_RATE, kind)
        speech = speech_features(recorded(rng, performance.sound), performance.times).values
        return {
            "expression": performance.expression,
            "joints": performance.joints,
            "turn": performance.turn,
            "shift": performance.shift,
            "speech": speech.astype(np.float16),
        }


def recorded(rng: np.random.Generator, sound: F32) -> F32:
    """The sound with room noise at a signal-to-noise ratio of 5 to 40 dB, in two of three."""
    from avface.synthetic.performance.nonspeech import room_noise

    if rng.random() < 1 / 3:
        return sound
    noise = room_noise(rng, len(sound) / SAMPLE_RATE, SAMPLE_RATE)[: len(sound)]
    level = float(np.sqrt(np.mean(sound**2)) / max(1e-8, np.sqrt(np.mean(noise**2))))
    below = 10 ** (-rng.uniform(5, 40) / 20)
    return (sound + noise * level * below).clip(-1, 1).astype(np.float32)
