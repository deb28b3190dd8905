"""Accuracy of hearing: the mouths of real clips, audio without speech, held-out voices, and captures by ear alone.

AVFACE_CLIPS=path/to/clips python -m avface.evaluation.studies.hearing
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from avface.arrays import F32, F64, Bool, Floats
from avface.errors import AvfaceError
from avface.evaluation.clips import real_videos
from avface.evaluation.studies.acoustic import bells
from avface.evaluation.tables import aligned
from avface.head.measures import box_size, mouth_opening
from avface.media import Clip
from avface.networks.fusion.av_sync import audio_lag, correlation_by_lag
from avface.speech.moonshine import FIRST_ROW, ROW_SECONDS, pretrained_moonshine
from avface.speech.phones import SILENCE
from avface.speech.readout import Hearing, HearingRows, load_readout, pretrained_readout
from avface.speech.spectrum import SAMPLE_RATE
from avface.training.acoustic.corpus import STEP, SpokenSound, music, noise, plucked_strings, timed_speech
from avface.training.acoustic.recorded_voices import HELD_OUT_VOICES, RecordedVoice

LAGS = 0.02 * np.arange(-10, 11)
"""Candidate lags of the sound in seconds."""
CLOSED_GAP = 0.015
"""Opening of the tracked lips below which they count as closed."""
_TESTING = 1


@dataclass(frozen=True)
class HeardMouth:
    """How well the mouth of a clip is heard: correlations with the tracked opening."""

    name: str
    """File name."""
    frames: int
    """Frames with a face."""
    at_zero: float
    """Correlation at lag 0."""
    best: float
    """The highest one over `LAGS`."""
    lag: float
    """Lag in seconds that was estimated from the visible lips (`avface.networks.fusion.av_sync`)."""
    at_lag: float
    """Correlation there."""
    closures: float
    """Area under the ROC curve of the closed lips at lag 0; nan if they are always, or never, closed."""
    closures_at_lag: float
    """The same at the estimated lag."""


def tracked_opening(video: Path) -> tuple[F64, F64]:
    """Times (T,) and opening of the lips (T,), over the face's size; nan without a face."""
    from avface.tracking import track

    face = track(Clip.open(video).frames())
    landmarks = np.asarray(face.landmarks[:])
    return face.times, mouth_opening(landmarks, box_size(landmarks))


def heard_mouth(name: str, rows: HearingRows, times: F64, opening: F64) -> HeardMouth:
    """Compare what is heard in R rows with the tracked opening (T,) at times (T,), nan without a face."""
    seen = np.isfinite(opening)
    at, heard = FIRST_ROW + ROW_SECONDS * np.arange(len(rows)), rows.opening.cpu().numpy()
    curve = correlation_by_lag(at, heard, times[seen], opening[seen], LAGS)
    lag = audio_lag(heard, times, opening)
    if curve is None:
        curve = np.zeros(len(LAGS))
    closed, closure = opening[seen] < CLOSED_GAP, rows.closure.cpu().numpy() - heard
    return HeardMouth(
        name,
        int(seen.sum()),
        float(curve[len(LAGS) // 2]),
        float(curve.max()),
        lag,
        float(np.interp(lag, LAGS, curve)),
        area_under_curve(np.interp(times[seen], at, closure), closed),
        area_under_curve(np.interp(times[seen] + lag, at, closure), closed),
    )


def area_under_curve(scores: Floats, positive: Bool) -> float:
    """Area under the ROC curve of scores (N,); nan unless there are positive and negative ones."""
    from scipy.stats import rankdata

    count, ranks = int(positive.sum()), rankdata(scores)
    if count in (0, len(positive)):
        return float("nan")
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(positive) - count)))


def captured_mouth(video: Path, times: F64, opening: F64) -> tuple[float, float]:
    """Correlation of a capture's mouth by ear alone with the tracked opening, at lag 0 and at the best lag."""
    from avface.pipeline import reconstruct

    capture = reconstruct(video, video=False)
    points = capture.landmarks().astype(np.float64)
    own = mouth_opening(points, np.full(len(points), np.median(box_size(points))))
    seen = np.isfinite(opening)
    curve = correlation_by_lag(capture.times, own, times[seen], opening[seen], LAGS)
    return (0.0, 0.0) if curve is None else (float(curve[len(LAGS) // 2]), float(curve.max()))


def score_without_speech(hearing: Hearing, seconds: float = 10.0, pieces: int = 6) -> dict[str, float]:
    """Mean speech activity in silence, noise and music, by name."""
    rng = np.random.default_rng([_TESTING, 2])
    size = round(seconds * SAMPLE_RATE)
    sounds = {
        "digital silence": [np.zeros(size)],
        "white noise": [10.0 ** rng.uniform(-4, -1) * rng.normal(size=size) for _ in range(pieces)],
        "noises": [noise(rng, seconds) for _ in range(pieces)],
        "music by tones": [music(rng, seconds) for _ in range(pieces)],
        "plucked strings": [plucked_strings(rng, seconds) for _ in range(pieces)],
        "bells": [bells(rng, seconds) for _ in range(pieces)],
    }
    return {
        name: float(np.mean([hearing.hear(_sound(one)).activity.mean().item() for one in some]))
        for name, some in sounds.items()
    }


def score_voice(hearing: Hearing, voice: RecordedVoice, hours: float = 0.05) -> float:
    """Share in per cent of the rows of a held-out voice's speech whose phone is right.

    Raises:
        AvfaceError: if its program or the voice is missing.
    """
    spoken = timed_speech(0, _TESTING, 0.0, (), (voice,), hours)
    right, rows = np.array([_right_rows(hearing, one) for one in spoken]).sum(0)
    return 100 * float(right) / float(rows)


def _right_rows(hearing: Hearing, spoken: SpokenSound) -> tuple[int, int]:
    found = hearing.hear(_sound(spoken.samples)).phones.argmax(1).cpu().numpy()
    at = np.round((FIRST_ROW + ROW_SECONDS * np.arange(len(found))) / STEP).astype(int)
    truth = spoken.phones[np.minimum(at, len(spoken.phones) - 1)]
    return int((found == truth)[truth != SILENCE].sum()), int((truth != SILENCE).sum())


def _sound(samples: F32 | F64) -> torch.Tensor:
    return torch.from_numpy(np.asarray(samples, np.float32))


def report(hearing: Hearing, clips: Path | None = None, captures: bool = True) -> str:
    """All figures as a table; captures: those by ear alone, too.

    Raises:
        AvfaceError: if the folder has no videos, or one has no audio or no face.
    """
    lines = ["rows of held-out voices' speech with the right phone, %"]
    for voice in HELD_OUT_VOICES:
        try:
            lines.append(f"{voice.name + ', ' + voice.language:34}{score_voice(hearing, voice):8.1f}")
        except AvfaceError as error:
            lines.append(f"{voice.name:34}{error}")
    lines += ["", "mean speech activity without speech"]
    lines += [f"{name:34}{value:8.4f}" for name, value in score_without_speech(hearing).items()]
    head = ["real clips", "frames", "r at 0", "best r", "lag, s", "r there", "closures", "at the lag"]
    if captures:
        head += ["by ear, r at 0", "best r"]
    figures, rows = [], [head]
    for video in real_videos(clips):
        sound = Clip.open(video).audio()
        if sound is None:
            raise AvfaceError(f"{video}: has no audio")
        times, opening = tracked_opening(video)
        score = heard_mouth(video.name, hearing.hear(_sound(sound)), times, opening)
        by_ear = captured_mouth(video, times, opening) if captures else ()
        figures.append([*astuple(score)[2:], *by_ear])
        rows.append([score.name[:30], str(score.frames), *_cells(figures[-1])])
    rows.append(["mean", "", *_cells(np.nanmean(np.array(figures), axis=0).tolist())])
    return "\n".join([*lines, "", aligned(rows, [1, len(rows) - 1])])


def _cells(values: Sequence[float]) -> list[str]:
    return [f"{value:.3f}" for value in values]


@dataclass(frozen=True)
class HearingEvaluation:
    """Print figures of hearing: on held-out voices, without speech, on real clips, and of captures by ear alone.

    Raises:
        AvfaceError: if `threads` is below 1.
    """

    weights: Path = pretrained_readout.path
    """Weight file of the readout."""
    clips: Path | None = None
    """Folder of real videos; by default that of the environment's AVFACE_CLIPS."""
    captures: bool = True
    """Whether the clips are reconstructed by ear alone, with the weights that come with avface."""
    threads: int = 1
    """CPU threads."""

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise AvfaceError(f"threads={self.threads}: must be 1 or more")


def main() -> None:
    """Print the figures that the command asks for."""
    try:
        asked = tyro.cli(HearingEvaluation, description=__doc__)
        torch.set_num_threads(asked.threads)
        hearing = Hearing(pretrained_moonshine(), load_readout(asked.weights))
        print(report(hearing, asked.clips, asked.captures))
    except AvfaceError as error:
        raise SystemExit(f"avface: error: {error}") from None


if __name__ == "__main__":
    main()
