"""Spoken performances with their phonemes: the training data of the lips network."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from avface.data.shards import file_hash
from avface.errors import AvfaceError
from avface.files import write_tensors
from avface.head.asset import load_head
from avface.speech.readout import HEARING_FILES
from avface.synthetic.performance.espeak import Phoneme
from avface.training.coarse.landmark_simulation import FRAME_RATE, SILENCE, SOUNDS, recorded
from avface.training.loop.config import check_not_negative, check_positive

VERSION = 2
"""Version of the file of performances."""
HELD_LANGUAGES = frozenset({"it", "sv"})
"""Languages that aren't in the training split."""
HELD_TIMBRES = frozenset({"m7", "f4", "belinda", "quincy", "gustave"})
"""Voice variants of espeak-ng that aren't in the training split."""
_PERFORMANCES = 41  # which random numbers

Split = Literal["train", "test"]


@dataclass(frozen=True)
class LipPerformancesConfig:
    """Selection of the performances."""

    hours: float = 2.0
    """Total length."""
    seconds: float = 10.0
    """Length of one performance."""
    seed: int = 0
    """Seed of everything random."""
    split: Split = "train"
    """"train" has none of the held-out languages and voices; all speech of "test" has one of them."""

    def __post_init__(self) -> None:
        check_positive(self, "hours", "seconds")
        check_not_negative(self, "seed")

    @property
    def count(self) -> int:
        """Number of performances."""
        return max(1, round(self.hours * 3600 / self.seconds))


@dataclass(frozen=True, eq=False)
class LipPerformances:
    """C performances of N frames in all, with P phonemes.

    Shapes: first and count (C,) frames; expression (N, E) float16, speech (N, 16, 29) float16 and activity (N,) as
            `avface.speech.speech_features` gives them; phoneme_first and phoneme_count (C,), symbol (P,) index into
            vocabulary, start (P,) seconds from the performance's first frame; kind (C,): 0 speech, 1 others.
    """

    first: Tensor
    count: Tensor
    expression: Tensor
    speech: Tensor
    activity: Tensor
    phoneme_first: Tensor
    phoneme_count: Tensor
    symbol: Tensor
    start: Tensor
    kind: Tensor
    vocabulary: tuple[str, ...]
    frame_rate: float

    def __len__(self) -> int:
        """Number of performances."""
        return len(self.first)

    def phonemes(self, number: int) -> tuple[Phoneme, ...]:
        """The phonemes of one performance, in order of time."""
        first = int(self.phoneme_first[number])
        rows = slice(first, first + int(self.phoneme_count[number]))
        return tuple(
            Phoneme(self.vocabulary[symbol], start)
            for symbol, start in zip(self.symbol[rows].tolist(), self.start[rows].tolist(), strict=True)
        )


def prepare_lip_performances(
    path: Path,
    head: str,
    config: LipPerformancesConfig,
    *,
    workers: int = 1,
    on_progress: Callable[[float], None] = lambda share: None,
) -> LipPerformances:
    """The performances of a config, from a file or made now and stored there.

    They are made again when the networks of the speech features have changed.

    Raises:
        AvfaceError: if espeakng-loader is missing, or the file is damaged or can't be written.
    """
    described = {
        "version": VERSION,
        "head": head,
        "hearing": [file_hash(path) for path in HEARING_FILES],
        **asdict(config),
    }
    metadata = {"lip_performances": json.dumps(described)}
    found = _load(path, metadata)
    if found is not None:
        return found
    jobs = [_Job(head, config, number) for number in range(config.count)]
    made: list[dict[str, Any]] = []
    if workers <= 1:
        for job in jobs:
            made.append(job())
            on_progress(len(made) / len(jobs))
    else:
        context = get_context("spawn")  # forked copies of torch's threads would hang
        with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
            for arrays in pool.map(_Job.__call__, jobs, chunksize=8):
                made.append(arrays)
                on_progress(len(made) / len(jobs))
    symbols = [symbol for arrays in made for symbol in arrays["symbol"]]
    vocabulary = tuple(sorted(set(symbols)))
    number = {symbol: index for index, symbol in enumerate(vocabulary)}
    count = torch.tensor([len(arrays["expression"]) for arrays in made])
    phoneme_count = torch.tensor([len(arrays["symbol"]) for arrays in made])
    performances = LipPerformances(
        first=count.cumsum(0) - count,
        count=count,
        phoneme_first=phoneme_count.cumsum(0) - phoneme_count,
        phoneme_count=phoneme_count,
        symbol=torch.tensor([number[symbol] for symbol in symbols], dtype=torch.int64),
        kind=torch.tensor([arrays["kind"] for arrays in made]),
        vocabulary=vocabulary,
        frame_rate=FRAME_RATE,
        **{
            name: torch.from_numpy(np.concatenate([arrays[name] for arrays in made]))
            for name in ("expression", "speech", "activity", "start")
        },
    )
    tensors = {name: value for name, value in vars(performances).items() if isinstance(value, Tensor)}
    kept = {"vocabulary": json.dumps(vocabulary), "frame_rate": repr(FRAME_RATE)}
    write_tensors(path, tensors, {**metadata, **kept})
    return performances


def _load(path: Path, metadata: dict[str, str]) -> LipPerformances | None:
    """Read a stored file; None if there is none, or its metadata differ.

    Raises:
        AvfaceError: if the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            found = file.metadata() or {}
            if any(found.get(name) != value for name, value in metadata.items()):
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        vocabulary = tuple(json.loads(found["vocabulary"]))
        return LipPerformances(vocabulary=vocabulary, frame_rate=float(found["frame_rate"]), **tensors)
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise AvfaceError(f"{path}: damaged ({error}); delete it to make it again") from None


_head = functools.cache(load_head)


@dataclass(frozen=True)
class _Job:
    """Makes one performance, in any process."""

    head: str
    config: LipPerformancesConfig
    number: int

    def __call__(self) -> dict[str, Any]:
        from avface.speech import speech_features
        from avface.synthetic.performance.performance import Kind, perform

        head = _head(self.head)
        seed = (self.config.seed, _PERFORMANCES, ("train", "test").index(self.config.split), self.number)
        rng = np.random.default_rng(seed)
        kinds: tuple[Kind, ...] = ("speech", "silence", "sounds")
        kind = kinds[rng.choice(3, p=[1 - SILENCE - SOUNDS, SILENCE, SOUNDS])]
        while True:
            performance = perform(rng, head, self.config.seconds, FRAME_RATE, kind)
            if kind != "speech" or held_out(performance.language, performance.voice) == (
                self.config.split == "test"
            ):
                break
        heard = speech_features(recorded(rng, performance.sound), performance.times)
        return {
            "expression": performance.expression.astype(np.float16),
            "speech": heard.values.astype(np.float16),
            "activity": heard.speech_activity.astype(np.float32),
            "symbol": [phoneme.symbol for phoneme in performance.phonemes],
            "start": np.array([phoneme.start for phoneme in performance.phonemes], np.float32),
            "kind": int(kind != "speech"),
        }


def held_out(language: str, voice: str) -> bool:
    """Whether speech is held out of the training, by its language or the variant of its voice ("fr+f4")."""
    return language in HELD_LANGUAGES or voice.partition("+")[2] in HELD_TIMBRES
