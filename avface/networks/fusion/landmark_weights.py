"""Weights of tracked landmarks from their visibility and the variance that the networks predict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from avface.arrays import F32
from avface.networks.regions import LANDMARK_REGIONS, REGIONS
from avface.tracking import FaceTrack
from avface.tracking.visibility import VISIBLE

MAX_BASELINE_SIGMA = 0.03
"""Largest baseline of a region's standard deviation, in crop units."""
SIGMA_RATIO = 1.5
"""Ratio of the standard deviation to the baseline above which a region's landmarks lose weight."""
FULLY_VISIBLE = 0.85
"""Visibility from which on a landmark has full weight; at `visibility.VISIBLE` it has none."""
OCCLUSION_SCALE = 0.1
"""Occluded share of the face beyond `FALSE_OCCLUSION` at which visible landmarks have half their weight. Under
occlusion all landmarks of the tracker move together, so that their number overstates the evidence. On real clips with
occluders 0.05 to 0.1 was best."""
FALSE_OCCLUSION = 0.1
"""Occluded share of the face that is detected in clips without occluders."""
CONFIRMED_OCCLUSION = 0.2
"""Occluded share of the face from which on the predicted variance has its full effect; up to `FALSE_OCCLUSION` it has
none. The networks also predict large variances for small, blurred and turned faces, whose landmarks are the best there
are."""
_BLOCK = 1024


class LandmarkWeights:
    """Weights (T, 478) in [0, 1], computed on access: `weights[frame]`, `weights[start:end]`.

    Occluded landmarks have weight 0; the larger the occluded share of the face, the less the others have.
    """

    def __init__(
        self,
        track: FaceTrack,
        sigma: F32 | None = None,
        without: tuple[str, ...] = (),
        *,
        flow: bool = True,
    ) -> None:
        """Weights of the landmarks of a track.

        sigma: (T, 6) predicted standard deviations of the regions' tracked landmarks, crop units (`region_weights`).
        They have an effect in frames with detected occlusion only.
        without: regions whose landmarks have weight 0.
        flow: weights of `FaceTrack.best_landmarks`; False: of the detector's landmarks.
        """
        self._track = track
        self._flow_tracked = track.flow_tracked if flow else None
        self._confidence = track.best_confidence if flow else track.confidence
        self._region_weights = np.ones((len(track), len(REGIONS)), np.float32)
        visibility = track.visibility
        if sigma is not None and visibility is not None:
            occluded = 1 - self._by_blocks(lambda block: np.asarray(visibility[block], np.float32).mean(1))
            confirmed = ((occluded - FALSE_OCCLUSION) / (CONFIRMED_OCCLUSION - FALSE_OCCLUSION)).clip(0, 1)
            self._region_weights -= confirmed[:, None] * (1 - region_weights(sigma))
        self._counted = np.array([name not in without for name in REGIONS], np.float32)
        self._region_weights *= self._counted

    def __getitem__(self, key: Any) -> F32:
        """Weights (478,) of a frame or (T, 478) of some."""
        seen = self._visible(key)
        occluded = (1 - seen.mean(-1, keepdims=True) - FALSE_OCCLUSION).clip(0)
        weights = self._of_landmarks(key) * seen / (1 + (occluded / OCCLUSION_SCALE) ** 2)
        if self._flow_tracked is None:
            return weights
        # landmarks of optical flow are visible, and independent of the detector
        flow_tracked = np.asarray(self._flow_tracked[key])
        return np.where(
            flow_tracked.any(-1, keepdims=True),
            flow_tracked * self._counted[LANDMARK_REGIONS.numpy()],
            weights,
        )

    def _of_landmarks(self, key: Any) -> F32:
        return self._region_weights[key][..., LANDMARK_REGIONS.numpy()]

    def _visible(self, key: Any) -> F32:
        """Weights by visibility alone, 0 for occluded landmarks."""
        if self._track.visibility is None:
            return np.ones_like(self._of_landmarks(key))
        # exactly 0: errors of occluded landmarks are correlated, and hundreds of small weights would add up
        visibility = np.asarray(self._track.visibility[key], np.float32)
        return np.asarray(((visibility - VISIBLE) / (FULLY_VISIBLE - VISIBLE)).clip(0, 1))

    def by_region(self) -> F32:
        """Mean weight of each region's landmarks, (T, 6) in [0, 1], without the factor for the occluded share of the
        face; 0 in frames without the person.
        """
        member = LANDMARK_REGIONS.numpy()[:, None] == np.arange(len(REGIONS))
        mean = (member / member.sum(0)).astype(np.float32)
        shown = self._by_blocks(lambda block: (self._of_landmarks(block) * self._visible(block)) @ mean)
        return shown.clip(0, 1) * np.asarray(self._confidence > 0)[:, None]

    def _by_blocks(self, of: Callable[[slice], F32]) -> F32:
        """A function of the frames, evaluated block by block, because tracks of long clips are stored on disk."""
        return np.concatenate(
            [of(slice(start, start + _BLOCK)) for start in range(0, len(self._track), _BLOCK)]
        )


def region_weights(sigma: F32) -> F32:
    """Weights (T, 6) in [0, 1] of the regions' landmarks from their predicted standard deviations (T, 6).

    1 up to `SIGMA_RATIO` times the clip's baseline (the 20th percentile, at most `MAX_BASELINE_SIGMA`), then inversely
    proportional to the variance. Only the ratio counts; the solver has its own estimate of the tracker's accuracy.
    """
    known = np.isfinite(sigma).all(1)
    if not known.any():
        return np.ones_like(sigma)
    baseline = np.quantile(sigma[known], 0.2, axis=0).clip(max=MAX_BASELINE_SIGMA)
    weights = np.minimum(1, (SIGMA_RATIO * baseline / sigma) ** 2)
    return np.where(known[:, None], weights, 1).astype(np.float32)
