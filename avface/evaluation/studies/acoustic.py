"""Accuracy of the acoustic model: on held-out voices, on audio without speech, and on the mouths of real clips.

AVFACE_CLIPS=path/to/clips python -m avface.evaluation.studies.acoustic
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from avface.arrays import F32, Ints
from avface.errors import AvfaceError
from avface.evaluation.clips import real_videos
from avface.head.measures import box_size, mouth_opening
from avface.speech.acoustic import (
    ROW_SECONDS,
    AcousticModel,
    load_acoustic_model,
    normalised,
    pretrained_acoustic_model,
)
from avface.speech.phones import SILENCE
from avface.speech.spectrum import SAMPLE_RATE
from avface.training.acoustic.corpus import (
    HELD_OUT_VARIANTS,
    Corpus,
    build_corpus,
    clean,
    mixture,
    noise,
    plucked_strings,
)
from avface.training.acoustic.recorded_voices import HELD_OUT_VOICES

LAGS = np.arange(-0.3, 0.301, 0.02)
"""Candidate leads in seconds of the tracked over the predicted mouth opening."""
SOUND_SUFFIXES = (".ogg", ".opus", ".flac", ".wav", ".mp3", ".m4a")
_TESTING = 1


@dataclass(frozen=True)
class VoiceScores:
    """Figures on held-out synthetic voices, in per cent, and the correlation of the lips' opening."""

    phone_error_rate: float
    """Phone error rate: insertions, deletions and substitutions per phone, without silence."""
    frame_accuracy: float
    """Accuracy of the symbols of all rows, with silence."""
    speech_accuracy: float
    """Accuracy of the symbols of rows with speech."""
    openness_correlation: float
    """Correlation of the predicted with the true opening of the lips."""


@dataclass(frozen=True)
class ClipScore:
    """Predicted against tracked opening of the mouth on a real clip."""

    name: str
    """File name."""
    frames: int
    """Frames with a face."""
    correlation: float
    """Correlation at the best lag."""
    lag: float
    """Lead in seconds of the tracked mouth over the prediction at the best correlation. The model predicts the opening
    at the time of the frame, so this should be near 0."""
    correlation_without_lag: float
    """Correlation at lag 0."""


def held_out_corpus(seed: int = 0, hours: float = 0.1) -> Corpus:
    """Test corpus of the held-out voices, with its own noises and music."""
    return build_corpus(seed, _TESTING, hours, HELD_OUT_VARIANTS)


def held_out_recorded_corpus(seed: int = 0, hours: float = 0.1) -> Corpus:
    """Test corpus of the held-out voices that are built from recordings of people.

    Raises:
        AvfaceError: if Festival or these voices aren't installed.
    """
    return build_corpus(seed, _TESTING, 0.0, (), recorded=HELD_OUT_VOICES, recorded_hours=hours)


def score_voices(
    model: AcousticModel, corpus: Corpus, examples: int = 40, noisy: bool = False
) -> VoiceScores:
    """Figures of the model on 8 s examples: clean, or mixed with noise as in training."""
    errors = phones = right = spoken_right = rows = spoken_rows = 0
    predicted, true = [], []
    for index in range(examples):
        rng = np.random.default_rng([_TESTING, index])
        example = mixture(rng, corpus, 800) if noisy else clean(rng, corpus, 800)
        with torch.no_grad():
            logits, opened = model(normalised(torch.from_numpy(example.spectra))[None])
        found, truth = logits[0].argmax(-1).numpy(), example.phones[::2]
        reference, decoded = collapsed(truth), collapsed(found)
        errors += edit_distance(reference, decoded)
        phones += len(reference)
        right += int((found == truth).sum())
        rows += len(truth)
        spoken = truth != SILENCE
        spoken_right += int((found == truth)[spoken].sum())
        spoken_rows += int(spoken.sum())
        predicted.append(opened[0].clamp(0, 1).numpy())
        true.append(example.openness[::2])
    return VoiceScores(
        100 * errors / phones,
        100 * right / rows,
        100 * spoken_right / spoken_rows,
        float(np.corrcoef(np.concatenate(predicted), np.concatenate(true))[0, 1]),
    )


def collapsed(rows: Ints) -> list[int]:
    """The phone sequence of rows: repetitions are merged, silence is left out."""
    changes = np.flatnonzero(np.diff(rows, prepend=-1))
    return [int(phone) for phone in rows[changes] if phone != SILENCE]


def edit_distance(first: list[int], second: list[int]) -> int:
    """Levenshtein distance: minimum number of insertions, deletions and substitutions between two lists."""
    costs = list(range(len(second) + 1))
    for row, one in enumerate(first, 1):
        diagonal, costs[0] = costs[0], row
        for column, other in enumerate(second, 1):
            cost = min(costs[column] + 1, costs[column - 1] + 1, diagonal + (one != other))
            diagonal, costs[column] = costs[column], cost
    return costs[-1]


def score_without_speech(
    model: AcousticModel, seconds: float = 10.0, pieces: int = 10, music: Path | None = None
) -> dict[str, float]:
    """Mean speech activity, 0 to 1, by kind of audio without speech.

    Training has no bells. music: a folder of audio files without voices, of which the first 30 s are used.
    """
    size = round(seconds * SAMPLE_RATE)
    rng = np.random.default_rng([_TESTING, 0])
    white = [0.1 * rng.normal(size=size) for _ in range(pieces)]
    sounds = {
        "digital silence": [np.zeros(size)],
        "white noise": white,
        "noises": [noise(rng, seconds) for _ in range(pieces)],
        "plucked strings": [plucked_strings(rng, seconds) for _ in range(pieces)],
        "bells": [bells(rng, seconds) for _ in range(pieces)],
    }
    if music is not None:
        sounds[f"music in {music.name}"] = _music_files(music)
    return {
        name: float(
            np.mean(
                [
                    float(model.predict(torch.from_numpy(one.astype(np.float32))).activity.mean())
                    for one in some
                ]
            )
        )
        for name, some in sounds.items()
    }


def _music_files(folder: Path, seconds: float = 30.0) -> list[F32]:
    from fractions import Fraction

    from avface.media.sound import aligned_sound

    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SOUND_SUFFIXES)
    if not files:
        raise AvfaceError(f"{folder}: no audio files in it ({', '.join(SOUND_SUFFIXES)})")
    sounds = (
        np.concatenate([block[0] for block in aligned_sound(file, 0, Fraction(0), SAMPLE_RATE, "mono")])
        for file in files
    )
    return [sound[: round(seconds * SAMPLE_RATE)] for sound in sounds]


def bells(rng: np.random.Generator, seconds: float) -> F32:
    """Bells, gongs and electric pianos, (N,) at 16 kHz, by FM synthesis (Chowning, 1973)."""
    size = round(seconds * SAMPLE_RATE)
    sound = np.zeros(size)
    ratio, index, decay = rng.choice([1.0, 1.4, 2.0, 3.5, 14.0]), rng.uniform(0.5, 6), rng.uniform(0.1, 1.5)
    for start in np.arange(0, seconds - 0.1, rng.uniform(0.15, 0.6)):
        first = round(start * SAMPLE_RATE)
        times = np.arange(min(size - first, 2 * SAMPLE_RATE)) / SAMPLE_RATE
        pitch = 110 * 2 ** (rng.integers(0, 36) / 12)
        envelope = np.exp(-times / decay)
        modulation = index * envelope * np.sin(2 * np.pi * min(pitch * ratio, 6000) * times)
        sound[first : first + len(times)] += envelope * np.sin(2 * np.pi * pitch * times + modulation)
    return np.asarray(0.3 * sound / np.abs(sound).max(), np.float32)


def score_clips(model: AcousticModel, folder: Path | None = None) -> list[ClipScore]:
    """Figures of the model on every video of a folder, by default that of the environment's AVFACE_CLIPS.

    The tracked opening is the distance between the centres of the inner lips over the size of the face, sqrt(w h) of
    the bounding box of all landmarks.

    Raises:
        AvfaceError: if the folder has no videos, or one has no audio or no face.
    """
    return [score_clip(model, video) for video in real_videos(folder)]


def score_clip(model: AcousticModel, video: Path) -> ClipScore:
    """Figures of the model on one video; AvfaceError if it has no audio or no face."""
    from avface.media import Clip
    from avface.tracking import track

    clip = Clip.open(video)
    sound = clip.audio()
    if sound is None:
        raise AvfaceError(f"{video}: has no audio")
    face = track(clip.frames())
    landmarks = np.asarray(face.landmarks[:])
    opening = mouth_opening(landmarks, box_size(landmarks))
    rows = model.predict(torch.from_numpy(sound)).openness.numpy()
    row_times = ROW_SECONDS * np.arange(len(rows))
    seen = np.isfinite(opening)
    correlations = [
        float(np.corrcoef(np.interp(face.times[seen] + lag, row_times, rows), opening[seen])[0, 1])
        for lag in LAGS
    ]
    best = int(np.argmax(correlations))
    return ClipScore(
        video.name,
        int(seen.sum()),
        correlations[best],
        float(LAGS[best]),
        correlations[int(np.argmin(np.abs(LAGS)))],
    )


def report(model: AcousticModel, clips: Path | None = None, music: Path | None = None) -> str:
    """All figures as a table; music: see `score_without_speech`."""
    lines = [
        f"{'held-out voices':34}{'phone errors %':>16}{'accuracy %':>14}{'in speech %':>13}{'lips r':>8}"
    ]
    for voices, build in (
        (f"{len(HELD_OUT_VARIANTS)} by formant synthesis", held_out_corpus),
        (f"{len(HELD_OUT_VOICES)} from recordings", held_out_recorded_corpus),
    ):
        try:
            corpus = build()
        except AvfaceError as error:
            lines.append(f"{voices:34}{error}")
            continue
        for name, noisy in ((f"{voices}, clean", False), (f"{voices}, in noise", True)):
            score = score_voices(model, corpus, noisy=noisy)
            lines.append(
                f"{name:34}{score.phone_error_rate:16.1f}{score.frame_accuracy:14.1f}{score.speech_accuracy:13.1f}"
                f"{score.openness_correlation:8.2f}"
            )
    lines += ["", "mean speech activity without speech"]
    lines += [
        f"{name:34}{activity:8.4f}" for name, activity in score_without_speech(model, music=music).items()
    ]
    scores = score_clips(model, clips)
    lines += ["", f"{'real clips: opening, audio vs video':34}{'frames':>8}{'r':>8}{'lag s':>8}{'r at 0':>8}"]
    lines += [
        f"{score.name[:33]:34}{score.frames:8d}{score.correlation:8.2f}{score.lag:8.2f}{score.correlation_without_lag:8.2f}"
        for score in scores
    ]
    means = [
        np.mean([getattr(s, name) for s in scores])
        for name in ("correlation", "lag", "correlation_without_lag")
    ]
    lines.append(f"{'mean':34}{'':8}{means[0]:8.2f}{means[1]:8.2f}{means[2]:8.2f}")
    return "\n".join(lines)


@dataclass(frozen=True)
class AcousticEvaluation:
    """Print figures of the acoustic model: on held-out voices, without speech, and on real clips.

    Raises:
        AvfaceError: if `threads` is below 1.
    """

    weights: Path = pretrained_acoustic_model.path
    """Weight file."""
    clips: Path | None = None
    """Folder of real videos; by default that of the environment's AVFACE_CLIPS."""
    music: Path | None = None
    """Folder of music without voices, evaluated in addition."""
    threads: int = 1
    """CPU threads."""

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise AvfaceError(f"threads={self.threads}: must be 1 or more")


def main() -> None:
    """Print the figures that the command asks for."""
    try:
        asked = tyro.cli(AcousticEvaluation, description=__doc__)
        torch.set_num_threads(asked.threads)
        print(report(load_acoustic_model(asked.weights), asked.clips, asked.music))
    except AvfaceError as error:
        raise SystemExit(f"avface: error: {error}") from None


if __name__ == "__main__":
    main()
