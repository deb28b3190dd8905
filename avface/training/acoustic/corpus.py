"""Training data of the acoustic model: utterances by many voices with phones and lip opening, noise and music.

Everything is stored as log-mel spectra, 10 ms apart, which are also mixed: powers add, reverberation smooths them over
time, microphones and filters multiply them. `mixture` makes one training example.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.signal import lfilter, resample_poly

from avface.arrays import F32, F64, Int, Ints
from avface.errors import AvfaceError
from avface.files import replacing
from avface.speech.acoustic import (
    BANDS,
    HIGH_FREQUENCY,
    LOW_FREQUENCY,
    POWER_FLOOR,
    ROW_SECONDS,
    AcousticModel,
    log_mel,
    num_rows,
)
from avface.speech.phones import SILENCE, SYMBOLS, phone_indices
from avface.speech.spectrum import SAMPLE_RATE
from avface.synthetic.performance.espeak import Phoneme, Speech, speak, voice_variants
from avface.training.acoustic.instrument_music import instrument_music
from avface.training.acoustic.phone_alignment import align_phones
from avface.training.acoustic.printed_text import text_to_read
from avface.training.acoustic.recorded_voices import RecordedVoice, speak_recorded
from avface.training.acoustic.spoken_text import PSEUDO_LANGUAGES, WORDS, sentences
from avface.training.acoustic.untimed_voices import UntimedVoice, speak_untimed

Half = npt.NDArray[np.float16]

LANGUAGES = ("en-us", "en-us", "en", "en-gb-x-rp", "en-gb-scotland", *list(WORDS)[1:], *PSEUDO_LANGUAGES)
"""Languages of the utterances; English twice as often as any other."""
HELD_OUT_VARIANTS = (
    "Annie", "Diogo", "Lee", "Mario", "david", "klatt3", "linda", "m4", "quincy", "steph",
)  # fmt: skip
"""Voice variants that are held out for testing."""
UNNATURAL_VARIANTS = ("UniRobot", "anikaRobot", "fast", "robosoft", "robosoft8")
"""Voice variants that are left out."""
STEP = 0.01
"""Seconds between spectra."""
NOTHING = -27.0
"""Logarithm of the power in a band of digital silence."""
BACKGROUNDS, BACKGROUND_SECONDS = 120, 10.0
"""Number of pieces of noise, of music by tones and of music by instruments, each, and their length."""
VOICE_BATCH = 12
"""Texts that a recorded voice speaks per process: loading it takes longer than speaking."""
SPEEDS = (-0.16, 0.2)
"""Range of the logarithm of the playback speed of recorded voices."""
LEAST_AGREEMENT = 0.25
"""Least share of the rows in which the aligned phone is the most likely one; below, the voice read another text."""

OPENINGS: dict[str, tuple[float, float]] = {
    "silence": (0.06, 0.6), "p": (0.0, 12.0), "m": (0.0, 12.0), "f": (0.12, 6.0), "th": (0.3, 1.2),
    "t": (0.3, 0.7), "n": (0.3, 0.6), "l": (0.38, 0.6), "r": (0.34, 0.6), "rh": (0.26, 0.9), "s": (0.25, 1.5),
    "sh": (0.27, 1.7), "ch": (0.25, 1.5), "k": (0.36, 0.4), "ng": (0.34, 0.4), "kh": (0.36, 0.4), "h": (0.45, 0.15),
    "j": (0.3, 0.6), "w": (0.1, 3.0), "i": (0.36, 1.0), "e": (0.44, 0.9), "eh": (0.64, 1.0), "a": (0.95, 1.2),
    "ah": (0.85, 1.1), "oh": (0.6, 1.1), "o": (0.4, 1.1), "u": (0.18, 1.2), "y": (0.22, 1.2), "er": (0.42, 0.5),
}  # fmt: skip
"""Lip opening of each phone, 1 for a wide "a", and its dominance over its neighbours. Lips must close in "p" and nearly
so in "w"; the jaw is high in "s"; "k" and "h" have about the opening of their vowels."""
BREATH = (0.28, 0.4)
"""The same for pauses within speech: people inhale through the mouth, and lips part before speech. In longer silence
they are closed."""
BREATH_SECONDS = 0.3
"""Length of such a pause before and after speech; longer silence in between has closed lips."""
LEAD = 0.1
"""Seconds by which the lips lead the sound (60 to 120 ms are usual)."""
REACH = 0.04
"""Seconds in which the dominance of a phone falls to 1/e, divided by the root of its firmness where that is above 1:
closures are fast and short."""
SMOOTHING = 0.02
"""Standard deviation in seconds of the final smoothing: lips have inertia."""


@dataclass(frozen=True)
class SpokenSound:
    """Some seconds of speech by one voice, as sound."""

    samples: F32
    """(N,) at 16 kHz, in [-1, 1]."""
    phones: npt.NDArray[np.int8]
    """(F,) index of the phone every 10 ms, as many as `log_mel` has spectra."""
    recorded: bool
    """Whether the voice is made from recordings of a person, rather than from formants."""


@dataclass(frozen=True)
class Utterance:
    """Some seconds of speech by one voice."""

    spectra: Half
    """(F, 40) log-mel power, 10 ms apart."""
    phones: npt.NDArray[np.int8]
    """(F,) index of the phone at each."""
    recorded: bool = False
    """Whether the voice is made from recordings of a person, rather than from formants."""

    @classmethod
    def of(cls, spoken: SpokenSound) -> Utterance:
        """The spectra of a sound."""
        spectra = log_mel(torch.from_numpy(spoken.samples)).numpy().astype(np.float16)
        return cls(spectra, spoken.phones, spoken.recorded)


def training_variants() -> tuple[str, ...]:
    """Voice variants for training; "" is the default voice of espeak-ng."""
    left_out = {*HELD_OUT_VARIANTS, *UNNATURAL_VARIANTS}
    return ("", *(name for name in voice_variants() if name not in left_out))


def espeak_speech(rng: np.random.Generator, variants: tuple[str, ...]) -> SpokenSound:
    """Some sentences by a random voice of espeak-ng, at a random rate and pitch."""
    variant = str(rng.choice(variants))
    language = str(rng.choice(LANGUAGES))
    speech = speak(
        sentences(rng, language, int(rng.integers(3, 6))),
        f"{language}+{variant}" if variant else language,
        int(rng.integers(110, 230)),
        pitch=int(rng.integers(0, 101)),
        pitch_range=int(rng.integers(20, 101)),
    )
    return _spoken_sound(speech, recorded=False)


def recorded_speech(rng: np.random.Generator, voice: RecordedVoice) -> list[SpokenSound]:
    """Some sentences by a recorded voice, at a random rate and playback speed, which changes the vocal tract length."""
    texts = [sentences(rng, voice.language, int(rng.integers(2, 5))) for _ in range(VOICE_BATCH)]
    spoken = []
    for speech in speak_recorded(voice, texts, float(rng.uniform(0.75, 1.25))):
        speed = round(float(np.exp(rng.uniform(*SPEEDS))), 1 if speech.sample_rate % 100 else 2)
        phonemes = tuple(replace(phoneme, start=phoneme.start / speed) for phoneme in speech.phonemes)
        spoken.append(
            _spoken_sound(
                replace(speech, sample_rate=round(speed * speech.sample_rate), phonemes=phonemes),
                recorded=True,
            )
        )
    return spoken


def untimed_speech(
    rng: np.random.Generator, voice: UntimedVoice, aligner: AcousticModel
) -> SpokenSound | None:
    """Some sentences by a voice without phone times, at a random rate, pitch and playback speed.

    aligner: finds the phone times. None if the voice can't speak the text, or speaks another.
    """
    text = text_to_read(rng, voice.language, int(rng.integers(2, 5)))
    speech = speak_untimed(voice, text, int(rng.integers(75, 135)), int(rng.integers(85, 120)))
    percent = round(100 * float(np.exp(rng.uniform(*SPEEDS))))
    if speech is None:
        return None
    logits = aligner.predict(torch.from_numpy(speech.samples)).logits.numpy()
    rows = align_phones(logits, speech.phones)
    if rows is None or (rows == logits.argmax(1))[rows != SILENCE].mean() < LEAST_AGREEMENT:
        return None
    played = resample_poly(speech.samples, 100, percent).astype(np.float32)
    at = STEP * np.arange(2 * num_rows(len(played))) * percent / 100 / ROW_SECONDS
    phones = rows[np.minimum(np.round(at).astype(int), len(rows) - 1)]
    return SpokenSound(played, phones.astype(np.int8), recorded=True)


def _spoken_sound(speech: Speech, recorded: bool) -> SpokenSound:
    speech = speech.resampled(SAMPLE_RATE)
    segments = phone_segments(speech.phonemes, speech.duration)
    phones = phones_at(segments, STEP * np.arange(2 * num_rows(len(speech.samples))))
    return SpokenSound(speech.samples, phones.astype(np.int8), recorded)


def phone_segments(phonemes: tuple[Phoneme, ...], duration: float) -> list[tuple[int, float, float]]:
    """(phone, start, end) in seconds, in order and without gaps; diphthongs are cut in half."""
    starts = [phoneme.start for phoneme in phonemes]
    segments = [(SILENCE, -1.0, starts[0])] if starts and starts[0] > 0 else []
    for phoneme, start, end in zip(phonemes, starts, [*starts[1:], duration + 1], strict=True):
        parts = phone_indices(phoneme.symbol)
        edges = np.linspace(start, end, len(parts) + 1)
        segments += [(part, float(a), float(b)) for part, a, b in zip(parts, edges, edges[1:]) if b > a]  # noqa: B905
    return segments


def phones_at(segments: list[tuple[int, float, float]], times: F64) -> Int:
    """The phone (T,) at each time."""
    starts = np.array([start for _, start, _ in segments])
    return np.array([phone for phone, _, _ in segments])[np.searchsorted(starts, times, "right").clip(1) - 1]


def lip_opening(phones: Ints) -> F64:
    """Lip opening, 0 to 1, for phones 10 ms apart; both (F,).

    The weighted mean of the openings of all phones. The weight of a phone is its dominance, which decays before its
    start and after its end (Cohen & Massaro, Modeling coarticulation in synthetic visual speech, 1993).
    """
    total, weights = np.zeros(len(phones)), np.zeros(len(phones))
    lead = round(LEAD / STEP)
    for start, end, (target, firmness) in _targets(phones):
        reach = REACH / STEP / max(1.0, firmness) ** 0.5
        begin, stop = start - lead, end - lead if end < len(phones) else end
        first, last = np.clip([begin - 6 * reach, stop + 6 * reach], 0, len(phones)).astype(int)
        at = np.arange(first, last)
        outside = np.maximum(begin - at, at - stop + 1).clip(0)
        dominance = firmness * np.exp(-outside / reach)
        weights[first:last] += dominance
        total[first:last] += dominance * target
    return np.asarray(gaussian_filter1d(total / weights, SMOOTHING / STEP))


def _targets(phones: Ints) -> Iterator[tuple[int, int, tuple[float, float]]]:
    """(first spectrum, one past the last, opening and firmness) of each phone; long pauses are breath, rest, breath."""
    edges = (np.flatnonzero(np.diff(phones)) + 1).tolist()
    breath = round(BREATH_SECONDS / STEP)
    for start, end in zip([0, *edges], [*edges, len(phones)], strict=True):
        symbol = SYMBOLS[phones[start]]
        if phones[start] != SILENCE:
            yield start, end, OPENINGS[symbol]
            continue
        rest_from = start + breath if start > 0 else start
        rest_to = end - breath if end < len(phones) else end
        if rest_from >= rest_to:
            yield start, end, BREATH
            continue
        if start < rest_from:
            yield start, rest_from, BREATH
        yield rest_from, rest_to, OPENINGS[symbol]
        if rest_to < end:
            yield rest_to, end, BREATH


def noise(rng: np.random.Generator, seconds: float) -> F32:
    """Random noise (N,) at 16 kHz: coloured or band-limited noise, hum, clatter, gusts."""
    size = int(seconds * SAMPLE_RATE)
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    slope = rng.uniform(-1.2, 0.3)
    shape = np.maximum(frequencies, 30) ** slope
    if rng.random() < 0.3:
        centre, width = np.exp(rng.uniform(np.log(150), np.log(6000))), rng.uniform(0.1, 1)
        shape *= 0.03 + np.exp(-0.5 * (np.log(np.maximum(frequencies, 20) / centre) / width) ** 2)
    phases = rng.normal(size=(2, len(frequencies)))
    sound = np.fft.irfft(shape * (phases[0] + 1j * phases[1]), size)
    sound /= sound.std()
    times = np.arange(size) / SAMPLE_RATE
    kind = rng.random()
    if kind < 0.2:  # hum
        base = rng.uniform(45, 130)
        for overtone in range(1, 12):
            sound += rng.exponential(1.5 / overtone) * np.sin(2 * np.pi * base * overtone * times)
    elif kind < 0.4:  # clatter, steps, keys
        clicks = (rng.random(size) < rng.uniform(0.5, 8) / SAMPLE_RATE) * rng.exponential(1, size)
        ring = np.exp(-times[: SAMPLE_RATE // 4] / rng.uniform(0.004, 0.05))
        ring = ring * rng.normal(size=len(ring))
        sound = 0.05 * sound + 5 * np.convolve(clicks, ring)[:size]
    elif kind < 0.6:  # gusts
        sound *= np.exp(_random_curve(rng, times, rng.uniform(0.3, 3)))
    return (0.1 * sound / np.abs(sound).max()).astype(np.float32)


def music(rng: np.random.Generator, seconds: float) -> F32:
    """Random music (N,) at 16 kHz: harmonic tones as chords and melodies, drums; or plucked strings."""
    if rng.random() < 0.25:
        return plucked_strings(rng, seconds)
    size = int(seconds * SAMPLE_RATE)
    sound = np.zeros(size)
    beat = rng.uniform(0.12, 0.5)
    root = rng.uniform(55, 220)
    scale = np.array([0, 2, 3, 5, 7, 8, 10] if rng.random() < 0.5 else [0, 2, 4, 5, 7, 9, 11])
    decay, brightness = np.exp(rng.uniform(np.log(0.05), np.log(2))), rng.uniform(0.0, 2.2)
    damping = rng.choice([0.0, 0.1, 0.4])  # how much faster overtones die away, as in plucked strings
    attack = np.exp(rng.uniform(np.log(0.001), np.log(0.1)))
    vibrato, depth = rng.uniform(4, 7), rng.choice([0.0, 0.004, 0.01])
    drums, voices = rng.random() < 0.35, int(rng.integers(1, 5))
    for index, start in enumerate(np.arange(0, seconds - 0.05, beat)):
        first = int(start * SAMPLE_RATE)
        times = np.arange(min(size - first, int(min(4 * decay, 2) * SAMPLE_RATE))) / SAMPLE_RATE
        onset = 1 - np.exp(-times / attack)
        for _ in range(voices):
            if rng.random() < 0.3:
                continue
            pitch = root * 2 ** ((scale[rng.integers(7)] + 12 * rng.integers(0, 4)) / 12)
            phase = 2 * np.pi * pitch * (times + depth / vibrato * np.sin(2 * np.pi * vibrato * times))
            for overtone in range(1, min(16, int(7500 / pitch)) + 1):
                envelope = onset * np.exp(-times * (1 + damping * overtone) / decay) / overtone**brightness
                sound[first : first + len(times)] += envelope * np.sin(overtone * phase)
        if drums and index % 2 == 0:
            hit = np.arange(min(size - first, SAMPLE_RATE // 5)) / SAMPLE_RATE
            kick = np.sin(2 * np.pi * (50 * hit + 3 * (1 - np.exp(-30 * hit)))) * np.exp(-hit / 0.06)
            snare = rng.normal(size=len(hit)) * np.exp(-hit / 0.04)
            sound[first : first + len(hit)] += 2 * kick if index % 4 == 0 else snare
    return (0.3 * sound / max(np.abs(sound).max(), 1e-9)).astype(np.float32)


def plucked_strings(rng: np.random.Generator, seconds: float) -> F32:
    """Plucked strings (N,) at 16 kHz (Karplus & Strong, 1983)."""
    size = round(seconds * SAMPLE_RATE)
    sound = np.zeros(size)
    for start in np.arange(0, seconds - 0.1, rng.uniform(0.12, 0.5)):
        first = round(start * SAMPLE_RATE)
        period = round(SAMPLE_RATE / (82.4 * 2 ** (rng.integers(0, 32) / 12)))
        pluck = np.zeros(min(size - first, 2 * SAMPLE_RATE))
        pluck[:period] = rng.uniform(-1, 1, min(period, len(pluck)))
        feedback = np.zeros(period + 2)
        feedback[0], feedback[period], feedback[period + 1] = 1, -0.498, -0.498
        sound[first : first + len(pluck)] += lfilter([1.0], feedback, pluck)
    return np.asarray(0.3 * sound / np.abs(sound).max(), np.float32)


def _random_curve(rng: np.random.Generator, times: F64, rate: float) -> F64:
    """A smooth random curve (T,) of unit variance with about `rate` changes per second."""
    knots = np.arange(times[0], times[-1] + 1 / rate, 0.25 / rate)
    curve = gaussian_filter1d(rng.normal(size=len(knots)), 2)
    return np.interp(times, knots, curve * (4 * np.pi) ** 0.25 * 2**0.5)  # unit variance


@dataclass(frozen=True)
class Corpus:
    """Utterances, noise and music for training examples."""

    utterances: tuple[Utterance, ...]
    noises: tuple[Half, ...]
    """(F, 40) log-mel each."""
    musics: tuple[Half, ...]
    """(F, 40) log-mel each."""

    def save(self, path: Path) -> None:
        """Write one .npz file, which appears whole."""
        spoken, labels = zip(*[(one.spectra, one.phones) for one in self.utterances], strict=True)
        with replacing(path) as temporary:
            np.savez(
                temporary,
                spoken=np.concatenate(spoken),
                phones=np.concatenate(labels),
                lengths=np.array([len(one) for one in labels]),
                recorded=np.array([one.recorded for one in self.utterances]),
                noises=_stacked(self.noises),
                musics=_stacked(self.musics),
            )

    def joined(self, other: Corpus) -> Corpus:
        """This corpus and another."""
        return Corpus(
            self.utterances + other.utterances, self.noises + other.noises, self.musics + other.musics
        )

    @classmethod
    def load(cls, path: Path) -> Corpus:
        """Read what `save` wrote.

        Raises:
            AvfaceError: if the file is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                ends = np.cumsum(file["lengths"])[:-1]
                pieces = (np.split(file[name], ends) for name in ("spoken", "phones"))
                recorded = file["recorded"].tolist()
                utterances = tuple(Utterance(*one) for one in zip(*pieces, recorded, strict=True))
                return cls(utterances, tuple(file["noises"]), tuple(file["musics"]))
        except (OSError, KeyError, ValueError, zipfile.BadZipFile):
            raise AvfaceError(f"{path}: damaged; delete it to make it again") from None


def _stacked(pieces: tuple[Half, ...]) -> Half:
    return np.stack(pieces) if pieces else np.zeros((0, 0, BANDS), np.float16)


@dataclass(frozen=True)
class Example:
    """Input and target of the network."""

    spectra: F32
    """(F, 40) log-mel power."""
    phones: Int
    """(F,)"""
    openness: F32
    """(F,)"""


def mixture(rng: np.random.Generator, corpus: Corpus, frames: int) -> Example:
    """One training example of F = `frames` spectra: a voice, noise, music, a room and a microphone, or some of them."""
    spoken = rng.random() > 0.22
    if not spoken:
        spectra, phones = np.full((frames, BANDS), NOTHING), np.full(frames, SILENCE)
        openness = np.full(frames, OPENINGS[SYMBOLS[SILENCE]][0])
    else:
        spectra, phones = _spoken(rng, corpus, frames)
        openness = lip_opening(phones)
    power = np.exp(spectra)
    level = np.quantile(power.sum(1), 0.95) if spoken else 1e-3
    if rng.random() < 0.4:
        power = _in_a_room(rng, power)
    for pieces, chance, ratios in (
        (corpus.noises, 0.75, (5, 45)),
        (corpus.musics, 0.25 if spoken else 0.75, (5, 35)),
    ):
        if rng.random() < chance:
            power = power + _background(rng, pieces, frames, level * 10 ** (-rng.uniform(*ratios) / 10))
    if spoken and rng.random() < 0.15:  # others talk in the background
        voices = [np.exp(_spoken(rng, corpus, frames)[0]) for _ in range(int(rng.integers(3, 7)))]
        babble = np.sum(voices, 0)
        power = power + babble * level / np.quantile(babble.sum(1), 0.95) * 10 ** (-rng.uniform(6, 25) / 10)
    spectra = np.log(power + POWER_FLOOR) + _microphone(rng)
    spectra += rng.normal(0, 0.25, spectra.shape)  # a spectrum of noise is noisy
    return Example(spectra.astype(np.float32), phones, openness.astype(np.float32))


def clean(rng: np.random.Generator, corpus: Corpus, frames: int) -> Example:
    """Speech of F = `frames` spectra without augmentation."""
    spectra, phones, _ = _piece(rng, corpus, frames)
    return Example(spectra.astype(np.float32), phones, lip_opening(phones).astype(np.float32))


def _spoken(rng: np.random.Generator, corpus: Corpus, frames: int) -> tuple[F64, Int]:
    """A piece of one utterance with another vocal tract and manner, at times with a long pause."""
    spectra, phones, recorded = _piece(rng, corpus, frames)
    if rng.random() < 0.15:
        gap = slice(*sorted(rng.integers(0, frames, 2)))
        spectra[gap], phones[gap] = NOTHING, SILENCE
    return _another_voice(rng, spectra, (-0.1, 0.1) if recorded else (-0.1, 0.3)), phones


def _piece(rng: np.random.Generator, corpus: Corpus, frames: int) -> tuple[F64, Int, bool]:
    """Spectra (F, 40) and phones (F,) of a piece of one utterance, and whether it is by a recorded voice; before and
    after a shorter one is silence."""
    chosen = corpus.utterances[rng.integers(len(corpus.utterances))]
    length = min(frames, len(chosen.phones))
    first = int(rng.integers(len(chosen.phones) - length + 1))
    begin = int(rng.integers(frames - length + 1))
    spectra, phones = np.full((frames, BANDS), NOTHING), np.full(frames, SILENCE)
    spectra[begin : begin + length] = chosen.spectra[first : first + length]
    phones[begin : begin + length] = chosen.phones[first : first + length]
    return spectra, phones, chosen.recorded


def _another_voice(rng: np.random.Generator, spectra: F64, shifts: tuple[float, float]) -> F64:
    """Log-mel spectra (F, 40) with shifted formants and smoothly varying loudness and spectral tilt.

    shifts: range of the formants' shift, in natural logarithm of the frequency; espeak-ng's vocal tracts are long.
    """
    times = STEP * np.arange(len(spectra))
    loudness = _random_curve(rng, times, rng.uniform(0.5, 3)) * rng.uniform(0, 1)
    tilt = _random_curve(rng, times, rng.uniform(0.5, 3)) * rng.uniform(0, 0.5)
    shifted = _shifted(spectra, rng.uniform(*shifts))
    return np.asarray(shifted + loudness[:, None] + tilt[:, None] * np.linspace(-1, 1, BANDS))


def _shifted(spectra: F64, shift: float) -> F64:
    """Log-mel spectra (F, 40) with frequencies scaled by exp(shift)."""

    def mel(hertz: F64) -> F64:
        above = 15 + 27 / np.log(6.4) * np.log(np.maximum(hertz, 1000) / 1000)
        return np.where(hertz < 1000, 3 * hertz / 200, above)

    grid = np.exp(np.linspace(np.log(20), np.log(12_000), 4000))
    low, high = mel(np.array([LOW_FREQUENCY, HIGH_FREQUENCY]))
    place = np.interp(grid, grid, (mel(grid) - low) / (high - low) * (BANDS + 1) - 1)
    source = np.interp(np.arange(BANDS), place, np.interp(grid * np.exp(-shift), grid, place)).clip(
        0, BANDS - 1
    )
    lower = np.minimum(source.astype(int), BANDS - 2)
    share = source - lower
    return np.asarray(spectra[:, lower] * (1 - share) + spectra[:, lower + 1] * share)


def _in_a_room(rng: np.random.Generator, power: F64) -> F64:
    """Reverberation: power (F, 40) that decays exponentially and adds to the direct sound."""
    decay = np.exp(-13.8 * STEP / rng.uniform(0.15, 0.9))
    wet = lfilter([0, 1 - decay], [1, -decay], power, axis=0)
    return np.asarray(power + wet * 10 ** (-rng.uniform(-2, 14) / 10))


def _background(rng: np.random.Generator, choices: tuple[Half, ...], frames: int, level: float) -> F64:
    """Power (F, 40) of a random piece, repeated if it is short, at a level."""
    chosen = choices[rng.integers(len(choices))]
    first = int(rng.integers(len(chosen)))
    piece = np.exp(
        _shifted(chosen[(first + np.arange(frames)) % len(chosen)].astype(float), rng.uniform(-0.3, 0.3))
    )
    return np.asarray(piece * (level / max(np.quantile(piece.sum(1), 0.9), 1e-12)))


def _microphone(rng: np.random.Generator) -> F64:
    """A gain in every band (40,), natural logarithm of power: tilt, bumps, volume and limits of the band."""
    place = np.linspace(0, 1, BANDS)
    gain = rng.normal(0, 1.2) * (place - 0.5) * 2
    for waves in range(1, 5):
        gain = gain + rng.normal(0, 0.9 / waves) * np.cos(np.pi * waves * place + rng.uniform(0, 2 * np.pi))
    if rng.random() < 0.25:  # telephone, codec
        gain = gain - 14 * np.clip((place - rng.uniform(0.7, 1.0)) / 0.04, 0, 1)
    if rng.random() < 0.2:
        gain = gain - 8 * np.clip((rng.uniform(0.0, 0.13) - place) / 0.04, 0, 1)
    return gain + rng.uniform(-5, 2)


def build_corpus(
    seed: int,
    purpose: int,
    hours: float,
    variants: tuple[str, ...],
    on_seconds: Callable[[float], None] = lambda seconds: None,
    recorded: tuple[RecordedVoice, ...] = (),
    recorded_hours: float = 0.0,
) -> Corpus:
    """Synthesise hours of speech, noise and music.

    Args:
        seed: with `purpose`, seed of everything.
        purpose: training or testing.
        hours: hours of speech by espeak-ng.
        variants: its voice variants.
        on_seconds: called with the number of seconds that are done.
        recorded: voices made from recordings, used in turn.
        recorded_hours: hours of speech by them; if any, there is also music by sampled instruments.

    Raises:
        AvfaceError: if espeak-ng, or a program or voice that is asked for, is not installed.
    """
    sounds = timed_speech(seed, purpose, hours, variants, recorded, recorded_hours, on_seconds)
    spoken = tuple(map(Utterance.of, sounds))
    rng = np.random.default_rng([seed, purpose])
    noises, tones, instruments = (
        tuple(
            log_mel(torch.from_numpy(make(rng, BACKGROUND_SECONDS))).numpy().astype(np.float16)
            for _ in range(BACKGROUNDS if make is not instrument_music or recorded_hours else 0)
        )
        for make in (noise, music, instrument_music)
    )
    return Corpus(spoken, noises, tones + instruments)


def timed_speech(
    seed: int,
    purpose: int,
    hours: float,
    variants: tuple[str, ...],
    recorded: tuple[RecordedVoice, ...] = (),
    recorded_hours: float = 0.0,
    on_seconds: Callable[[float], None] = lambda seconds: None,
) -> Iterator[SpokenSound]:
    """The speech of `build_corpus` as sound, whose arguments these are."""
    seconds, turn = 0.0, 0
    while seconds < 3600 * hours:
        one = espeak_speech(np.random.default_rng([seed, purpose, turn]), variants)
        turn += 1
        seconds += STEP * len(one.phones)
        yield one
        on_seconds(seconds)
    turn = 0
    while seconds < 3600 * (hours + recorded_hours):
        rng = np.random.default_rng([seed, purpose, turn, 0])
        more = recorded_speech(rng, recorded[turn % len(recorded)])
        turn += 1
        seconds += STEP * sum(len(one.phones) for one in more)
        yield from more
        on_seconds(seconds)


def build_untimed_corpus(
    seed: int,
    purpose: int,
    hours: float,
    voices: tuple[UntimedVoice, ...],
    aligner: AcousticModel,
    on_seconds: Callable[[float], None] = lambda seconds: None,
) -> Corpus:
    """Synthesise hours of speech by voices without phone times, used in turn.

    aligner: acoustic model that finds the phone times. Other arguments: see `build_corpus`.

    Raises:
        AvfaceError: if a program or all its voices are missing, or the collections of text.
    """
    sounds = aligned_speech(seed, purpose, hours, voices, aligner, on_seconds)
    return Corpus(tuple(map(Utterance.of, sounds)), (), ())


def aligned_speech(
    seed: int,
    purpose: int,
    hours: float,
    voices: tuple[UntimedVoice, ...],
    aligner: AcousticModel,
    on_seconds: Callable[[float], None] = lambda seconds: None,
) -> Iterator[SpokenSound]:
    """The speech of `build_untimed_corpus` as sound, whose arguments these are."""
    seconds, turn, failures = 0.0, 0, 0
    while seconds < 3600 * hours:
        voice = voices[turn % len(voices)]
        one = untimed_speech(np.random.default_rng([seed, purpose, turn, 1]), voice, aligner)
        turn += 1
        failures = 0 if one is not None else failures + 1
        if failures > len(voices):
            raise AvfaceError(
                f"{voice.program}: no speech that can be aligned; check that its voices are installed"
            )
        if one is not None:
            seconds += STEP * len(one.phones)
            yield one
            on_seconds(seconds)
