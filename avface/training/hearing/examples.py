"""Training examples of the speech readout: states of the encoder for voices in noise, with what was said.

Sounds are mixed as waveforms, since the encoder takes them: a voice at any level, in a room, with noise, music or
other voices, through a microphone, and at times no voice at all. `mixture` makes one example; `encoded_examples`
encodes many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from scipy.signal import fftconvolve, firwin2, resample_poly

from avface.arrays import F32, F64, Int
from avface.errors import AvfaceError
from avface.files import write_tensors
from avface.speech.moonshine import FIRST_ROW, ROW_SECONDS, MoonshineEncoder, encoded_blocks, num_rows
from avface.speech.phones import SILENCE, SYMBOLS
from avface.speech.readout import states_read
from avface.speech.spectrum import SAMPLE_RATE
from avface.training.acoustic.corpus import (
    BACKGROUND_SECONDS,
    OPENINGS,
    STEP,
    SpokenSound,
    lip_opening,
    music,
    noise,
)
from avface.training.acoustic.instrument_music import instrument_music
from avface.training.loop.config import check_positive, check_shares

CLOSED = 0.07
"""Opening (`lip_opening`) below which lips count as closed while somebody speaks."""
LOUDNESS_FLOOR = 40.0
"""Decibels below a voice's loud parts at which its loudness is 0."""


@dataclass(frozen=True)
class SoundCorpus:
    """What examples are mixed from, all at 16 kHz."""

    spoken: tuple[SpokenSound, ...]
    noises: tuple[F32, ...]
    """(N,) each."""
    musics: tuple[F32, ...]
    """(N,) each."""


@dataclass(frozen=True)
class MixtureConfig:
    """How examples are mixed."""

    seconds: float = 8.0
    """Length of an example."""
    without_voice: float = 0.2
    """Share of the examples in which nobody speaks."""
    clean: float = 0.3
    """Share of the examples with a voice that have neither noise nor music nor room."""

    def __post_init__(self) -> None:
        check_positive(self, "seconds")
        check_shares(self, "without_voice", "clean")


@dataclass(frozen=True)
class Mixture:
    """A sound and, every 10 ms, what is said in it."""

    sound: F32
    """(N,) at 16 kHz."""
    spoken: bool
    """Whether there is a voice."""
    phones: Int
    """(F,) index of the phone."""
    opening: F64
    """(F,) of the lips, 0 to 1."""
    loudness: F64
    """(F,) of the voice, from 0 to 1 for its loud parts."""


@dataclass(frozen=True)
class Examples:
    """E examples of R rows each, for training."""

    states: torch.Tensor
    """(E, R, L, D) float16: of the encoder's layers `LAYERS`."""
    phones: torch.Tensor
    """(E, R) int64."""
    opening: torch.Tensor
    """(E, R) of the lips, 0 to 1."""
    closed: torch.Tensor
    """(E, R) bool: whether lips are closed in speech."""
    loudness: torch.Tensor
    """(E, R) of the voice, 0 to 1."""
    spoken: torch.Tensor
    """(E,) bool: whether somebody speaks in it."""

    def save(self, path: Path) -> None:
        """Write one .safetensors file, which appears whole; AvfaceError if it can't be written."""
        write_tensors(path, {one.name: getattr(self, one.name) for one in fields(self)}, {})

    @classmethod
    def load(cls, path: Path) -> Examples:
        """Read what `save` wrote.

        Raises:
            AvfaceError: if the file is damaged.
        """
        try:
            with safe_open(path, "pt") as file:
                return cls(**{one.name: file.get_tensor(one.name) for one in fields(cls)})
        except (OSError, SafetensorError):
            raise AvfaceError(f"{path}: damaged; delete it to make it again") from None


def backgrounds(rng: np.random.Generator, count: int, instruments: bool) -> tuple[list[F32], list[F32]]:
    """`count` pieces of noise, and of music by tones, and as many by sampled instruments if there are any."""
    noises = [noise(rng, BACKGROUND_SECONDS) for _ in range(count)]
    musics = [music(rng, BACKGROUND_SECONDS) for _ in range(count)]
    if instruments:
        musics += [instrument_music(rng, BACKGROUND_SECONDS) for _ in range(count)]
    return noises, musics


def mixture(rng: np.random.Generator, corpus: SoundCorpus, config: MixtureConfig) -> Mixture:
    """One example: a voice, a room, noise, music, others who talk, and a microphone, or some of them."""
    frames = round(config.seconds / STEP)
    spoken = rng.random() >= config.without_voice
    voice, phones = np.zeros(frames * SAMPLE_RATE // 100), np.full(frames, SILENCE)
    if spoken:
        voice, phones = _piece(rng, corpus, frames)
        voice = _resampled_band(rng, voice) if rng.random() < 0.15 else voice
    opening = lip_opening(phones) if spoken else np.full(frames, OPENINGS[SYMBOLS[SILENCE]][0])
    loudness = _loudness(voice, frames)
    sound = voice
    level = float(np.quantile(np.abs(voice), 0.95)) if spoken else 0.1
    if not spoken or rng.random() >= config.clean:
        if spoken and rng.random() < 0.5:
            sound = _in_a_room(rng, sound)
        for pieces, chance, ratios in (
            (corpus.noises, 0.75, (5, 45)),
            (corpus.musics, 0.25 if spoken else 0.75, (5, 35)),
        ):
            if len(pieces) and rng.random() < chance:
                sound = sound + _background(
                    rng, pieces, len(sound), level * 10 ** (-rng.uniform(*ratios) / 20)
                )
        if spoken and rng.random() < 0.15:  # others talk in the background
            others = sum(_piece(rng, corpus, frames)[0] for _ in range(int(rng.integers(3, 7))))
            scale = level / max(float(np.quantile(np.abs(others), 0.95)), 1e-6)
            sound = sound + others * scale * 10 ** (-rng.uniform(6, 25) / 20)
        sound = _microphone(rng, sound)
    peak = max(float(np.abs(sound).max()), 1e-6)
    sound = sound / peak * 10 ** (-rng.uniform(0, 30) / 20)
    if rng.random() < 0.05:  # clipped
        sound = np.clip(2.5 * sound, -0.7, 0.7)
    return Mixture(sound.astype(np.float32), bool(spoken), phones, opening, loudness)


def encoded_examples(
    encoder: MoonshineEncoder,
    mixtures: Iterator[Mixture],
    count: int,
    on_examples: Callable[[int], None] = lambda done: None,
) -> Examples:
    """`count` mixtures, encoded; on_examples is called with the number of those that are done."""
    rows: list[tuple[torch.Tensor, ...]] = []
    for _, one in zip(range(count), mixtures, strict=False):
        blocks = list(encoded_blocks(encoder, torch.from_numpy(one.sound)))
        states = torch.cat([states_read(block) for block in blocks])
        at = (FIRST_ROW + ROW_SECONDS * np.arange(num_rows(len(one.sound)))) / STEP
        nearest = np.minimum(np.round(at).astype(int), len(one.phones) - 1)
        opening = np.interp(at, np.arange(len(one.opening)), one.opening)
        loudness = np.interp(at, np.arange(len(one.loudness)), one.loudness)
        closed = (opening < CLOSED) & _in_speech(one.phones)[nearest]
        rows.append(
            (
                states.half(),
                torch.from_numpy(one.phones[nearest].astype(np.int64)),
                torch.from_numpy(opening.astype(np.float32)),
                torch.from_numpy(closed),
                torch.from_numpy(loudness.astype(np.float32)),
                torch.tensor(one.spoken),
            )
        )
        on_examples(len(rows))
    return Examples(*(torch.stack(column) for column in zip(*rows, strict=True)))


def _in_speech(phones: Int) -> npt.NDArray[np.bool_]:
    """Which frames (F,) lie within 0.2 s of speech."""
    from scipy.ndimage import maximum_filter1d

    return np.asarray(maximum_filter1d((phones != SILENCE).astype(np.uint8), 41) > 0)


def _piece(rng: np.random.Generator, corpus: SoundCorpus, frames: int) -> tuple[F64, Int]:
    """Samples and phones (F,) of a piece of one utterance, at times with a pause; around a shorter one is silence."""
    chosen = corpus.spoken[rng.integers(len(corpus.spoken))]
    step = SAMPLE_RATE // 100
    length = min(frames, len(chosen.samples) // step)
    first = int(rng.integers(len(chosen.samples) // step - length + 1))
    begin = int(rng.integers(frames - length + 1))
    sound, phones = np.zeros(frames * step), np.full(frames, SILENCE)
    sound[begin * step : (begin + length) * step] = chosen.samples[first * step : (first + length) * step]
    phones[begin : begin + length] = chosen.phones[first : first + length]
    if rng.random() < 0.15:
        gap = slice(*sorted(rng.integers(0, frames, 2)))
        sound[gap.start * step : gap.stop * step], phones[gap] = 0.0, SILENCE
    return sound / max(float(np.abs(sound).max()), 1e-6), phones


def _loudness(voice: F64, frames: int) -> F64:
    """Loudness (F,) of a voice from 0 to 1, every 10 ms, relative to its loud parts."""
    power = (voice.reshape(frames, -1) ** 2).mean(1)
    power = np.convolve(power, np.hanning(7) / np.hanning(7).sum(), "same")
    loud = float(np.quantile(power, 0.95))
    if loud <= 0:
        return np.zeros(frames)
    decibels = 10 * np.log10(np.maximum(power, 1e-12) / loud)
    return np.clip(1 + decibels / LOUDNESS_FLOOR, 0, 1)


def _resampled_band(rng: np.random.Generator, sound: F64) -> F64:
    """Sound (N,) that was once sampled at 8 to 12 kHz: telephone, old recordings."""
    rate = int(rng.choice([80, 110, 120]))
    return np.asarray(resample_poly(resample_poly(sound, rate, 160), 160, rate)[: len(sound)])


def _in_a_room(rng: np.random.Generator, sound: F64) -> F64:
    """Reverberation by decaying noise (Polack), that follows the direct sound."""
    seconds = rng.uniform(0.15, 0.9)
    times = np.arange(round(0.8 * seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.normal(size=len(times)) * np.exp(-6.9 * times / seconds)
    tail /= np.sqrt((tail**2).sum())
    late = np.concatenate([np.zeros(round(rng.uniform(0.002, 0.02) * SAMPLE_RATE)), tail])
    wet = fftconvolve(sound, late)[: len(sound)]
    return np.asarray(sound + wet * 10 ** (-rng.uniform(0, 14) / 20))


def _background(rng: np.random.Generator, choices: tuple[F32, ...], samples: int, level: float) -> F64:
    """A random piece (N,) at a level, repeated if it is short."""
    chosen = choices[rng.integers(len(choices))]
    piece = chosen[(int(rng.integers(len(chosen))) + np.arange(samples)) % len(chosen)].astype(np.float64)
    return np.asarray(piece * (level / max(float(np.quantile(np.abs(piece), 0.95)), 1e-6)))


def _microphone(rng: np.random.Generator, sound: F64) -> F64:
    """Sound (N,) through a random filter: tilt, bumps, limits of the band."""
    place = np.linspace(0, 1, 33)
    gain = rng.normal(0, 5) * (place - 0.5) * 2  # decibels
    for waves in range(1, 4):
        gain = gain + rng.normal(0, 3 / waves) * np.cos(np.pi * waves * place + rng.uniform(0, 2 * np.pi))
    if rng.random() < 0.2:
        gain = gain - 50 * np.clip((place - rng.uniform(0.45, 0.9)) / 0.05, 0, 1)
    if rng.random() < 0.2:
        gain = gain - 30 * np.clip((rng.uniform(0.0, 0.05) - place) / 0.03, 0, 1)
    taps = firwin2(129, place, 10 ** (gain / 20))
    return np.asarray(fftconvolve(sound, taps, "same"))
