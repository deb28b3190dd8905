"""What a hidden mouth does, learned from the same clip while the mouth is seen.

The networks know how mouths move by and large. How far this person opens the mouth, how it rests, and how closely it
follows the voice, the clip itself says. So the networks are asked about the whole clip as though the mouth were hidden
all the time (`predict_clip` with a visibility limit), and what the solver saw where it wasn't is regressed on their answers
and on the opening that is heard, as far as that pays on parts of the clip that were left out. Where the mouth is
hidden, the regression takes the place of the answers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from avface.arrays import F32, F64, Bool, Floats, Int
from avface.head.schemes import LIPS
from avface.networks.coarse.inference import ClipPrediction
from avface.networks.regions import REGIONS, unit_regions
from avface.tracking import FaceTrack

ADAPTED_REGIONS = ("lips", "jaw", "cheeks")
"""Regions whose units are learned: those that a hidden mouth takes along."""
VISIBLE, OCCLUDED = 0.85, 0.5
"""Mean visibility from which on lips are seen, and down to which they are not seen at all."""
LEAST_FRAMES = 5
"""Frames with seen lips, with fewer of which there is nothing to learn."""
PRIOR_FRAMES = 10
"""Frames as how many the networks' word counts for the mean."""
ANSWERS = 3
"""Principal components of the networks' answers that are looked at."""
RIDGE_PENALTIES = (1e6, 300.0, 60.0, 15.0)
"""Frames as how many the assumption may count that nothing follows from what is said or heard. Which does, and whether
the mouth keeps to the networks' answers or to its mean, is decided by leaving out parts of the clip in turn."""
PARTS = 5
"""Such parts, each of frames that follow each other: neighbouring ones say the same."""
HEARD_SECONDS = 0.04
"""Standard deviation of a Gaussian by which the heard opening is smoothed."""
UNHEARD_OF = 3.0
"""Standard deviations from the mean of what is said in seen frames, beyond which it is taken for as much."""
_BLOCK = 1024


def lip_visibility(track: FaceTrack) -> F32:
    """Mean visibility of the landmarks of the lips in each frame (T,), in [0, 1]; 0 where the person isn't seen."""
    lips = np.zeros(len(track), np.float32)
    for start in range(0, len(track), _BLOCK):
        rows = slice(start, start + _BLOCK)
        mean = 1.0
        if track.visibility is not None:
            mean = np.asarray(track.visibility[rows], np.float32)[:, LIPS].mean(1)
        lips[rows] = np.where(track.seen[rows], mean, 0)
    return lips


def occluded_visibility(track: FaceTrack, lips: F32) -> F32 | None:
    """Mean visibility of each landmark (478,) while the lips are occluded; None if they never are, or hardly ever seen.

    lips: (T,) of `lip_visibility`.
    """
    seen = track.seen
    covered = np.flatnonzero(seen & (lips < OCCLUDED))
    if track.visibility is None or not len(covered) or (seen & (lips >= VISIBLE)).sum() < LEAST_FRAMES:
        return None
    total = np.zeros(478)
    for frame in covered.tolist():
        total += track.visibility[frame]
    return (total / len(covered)).astype(np.float32)


def adapt_to_clip(
    expected: ClipPrediction,
    answers: ClipPrediction,
    solved: Floats,
    lips: F32,
    times: F64,
    unit_names: tuple[str, ...],
    motion: F64,
) -> ClipPrediction:
    """The prediction with the units of the lower face as the clip itself suggests where the lips are hidden.

    Args:
        expected: what is expected of the T frames.
        answers: the same, had the mouth been hidden all the time.
        solved: (T, E) expression as the picture says where it shows the lips.
        lips: (T,) their visibility (`lip_visibility`).
        times: (T,) seconds.
        unit_names: the E expression units.
        motion: (E, 478, 3) how units move the landmarks; by the lips' the regressions are judged.
    """
    shares = unit_regions(unit_names).numpy()
    units = np.flatnonzero(shares[:, [REGIONS.index(name) for name in ADAPTED_REGIONS]].sum(1) > 0.99)
    known = np.isfinite(expected.expression_sigma).all(1)
    seen = np.flatnonzero(known & (lips >= VISIBLE))
    if len(seen) < LEAST_FRAMES or not len(units):
        return expected
    said, shown = answers.expression[:, units].astype(np.float64), np.asarray(solved[:, units], np.float64)
    causes, heard = _regressors(said, answers.heard_opening, seen, times)
    usual = np.broadcast_to(said[known].mean(0), said.shape)
    parts = np.array_split(np.arange(len(seen)), PARTS)
    moved = motion[units][:, LIPS].reshape(len(units), -1)

    def error(basis: F64, counts: F64) -> float:
        """Squared motion of the lips that regressions miss in the parts that they haven't seen."""
        missed = 0.0
        for part in parts:
            rows = seen[part]
            learned = _Regression.on(causes, shown - basis, np.delete(seen, part), counts)
            missed += float((((basis[rows] + learned(causes[rows]) - shown[rows]) @ moved) ** 2).sum())
        return missed

    counts = [
        np.where(heard, by_ear, by_answers)
        for by_answers, by_ear in product(
            RIDGE_PENALTIES, RIDGE_PENALTIES if heard.any() else RIDGE_PENALTIES[:1]
        )
    ]
    basis, count = min(product((said, usual), counts), key=lambda choice: error(*choice))
    learned = basis + _Regression.on(causes, shown - basis, seen, count)(causes)
    share = ((VISIBLE - lips) / (VISIBLE - OCCLUDED)).clip(0, 1)[:, None] * known[:, None]
    expression = expected.expression.copy()
    expression[:, units] += share * (learned - expression[:, units])
    return replace(expected, expression=expression)


@dataclass(frozen=True)
class _Regression:
    """Values (U,) where all causes are 0, and what each cause adds, (C, U)."""

    rest: F64
    slopes: F64

    @classmethod
    def on(cls, causes: F64, values: F64, rows: Int, counts: F64) -> _Regression:
        """Of values (T, U) on causes (T, C) by some rows; counts (C,): `RIDGE_PENALTIES`."""
        rest = values[rows].sum(0) / (len(rows) + PRIOR_FRAMES)
        held = causes[rows]
        return cls(rest, np.linalg.solve(held.T @ held + np.diag(counts), held.T @ (values[rows] - rest)))

    def __call__(self, causes: F64) -> F64:
        return np.asarray(self.rest + causes @ self.slopes)


def _regressors(said: F64, heard: F32, seen: Int, times: F64) -> tuple[F64, Bool]:
    """What the expression is regressed on (T, C): mean 0 and standard deviation 1 over the seen frames; and which of it
    (C,) is heard."""
    from scipy.ndimage import gaussian_filter1d

    middle = said - said[seen].mean(0)
    _, sizes, directions = np.linalg.svd(middle[seen], full_matrices=False)
    columns = list((middle @ directions[: min(ANSWERS, len(sizes))].T).T)
    listening = bool(heard.any())
    if listening:
        step = (times[-1] - times[0]) / (len(times) - 1)
        columns.append(gaussian_filter1d(heard.astype(np.float64), HEARD_SECONDS / step))
    causes = np.stack(columns, 1)
    causes -= causes[seen].mean(0)
    causes = (causes / (causes[seen].std(0) + 1e-6)).clip(-UNHEARD_OF, UNHEARD_OF)
    return causes, np.arange(causes.shape[1]) >= len(columns) - listening
