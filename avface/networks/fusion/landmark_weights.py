"""How much each tracked landmark counts: as far as it can be seen, and as far as the networks believe it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from avface.arrays import F32
from avface.networks.regions import LANDMARK_REGIONS, REGIONS
from avface.tracking import FaceTrack
from avface.tracking.visibility import VISIBLE

USUAL_DOUBT = 0.03
"""Largest standard deviation of tracked landmarks, in crop units, that can be usual for a region of a clip."""
DOUBT_LIMIT = 1.5
"""Standard deviations over the usual one from which a region's landmarks lose weight."""
FULLY_VISIBLE = 0.85
"""Visibility from which on a landmark counts in full; at `visibility.VISIBLE` it doesn't at all."""
UNSETTLING = 0.1
"""Share of the face from which on what hides it unsettles the tracker: all its landmarks, seen ones too, then move
together, so that their number doesn't make them sure. On real clips with occluders 0.05 to 0.1 was best."""
SPURIOUS = 0.1
"""Share of the face that is found hidden in clean clips now and then."""
CONFIRMED = 0.2
"""Share of the face found hidden from which on the networks' doubt counts in full; up to SPURIOUS it doesn't at all.
Networks also doubt faces that are small, blurred or seen from the side, where the tracker does what can be done."""
_BLOCK = 1024


class LandmarkWeights:
    """Weights (T, 478) in [0, 1], worked out for the frames asked for: `weights[frame]`, `weights[start:end]`.

    A landmark that is rather hidden than seen has none, and where much of the face is hidden the others have less.
    """

    def __init__(
        self,
        track: FaceTrack,
        doubt: F32 | None = None,
        without: tuple[str, ...] = (),
        *,
        flow: bool = True,
    ) -> None:
        """Of a track.

        doubt: (T, 6) standard deviations of the regions' tracked landmarks as networks predict them, crop units;
        see `region_trust`. It counts in frames of which the picture, too, says that something is before the face.
        without: regions whose landmarks don't count at all.
        flow: weights of `FaceTrack.best_landmarks`; False: of the detector's landmarks.
        """
        self._track = track
        self._flow_tracked = track.flow_tracked if flow else None
        self._confidence = track.best_confidence if flow else track.confidence
        self._trust = np.ones((len(track), len(REGIONS)), np.float32)
        visibility = track.visibility
        if doubt is not None and visibility is not None:
            occluded = 1 - self._by_blocks(lambda block: np.asarray(visibility[block], np.float32).mean(1))
            confirmed = ((occluded - SPURIOUS) / (CONFIRMED - SPURIOUS)).clip(0, 1)
            self._trust -= confirmed[:, None] * (1 - region_trust(doubt))
        self._counted = np.array([name not in without for name in REGIONS], np.float32)
        self._trust *= self._counted

    def __getitem__(self, key: Any) -> F32:
        """Weights (478,) of a frame or (T, 478) of some."""
        seen = self._seen(key)
        occluded = (1 - seen.mean(-1, keepdims=True) - SPURIOUS).clip(0)
        weights = self._trusted(key) * seen / (1 + (occluded / UNSETTLING) ** 2)
        if self._flow_tracked is None:
            return weights
        # What is flow_tracked is seen, and nothing unsettles it.
        flow_tracked = np.asarray(self._flow_tracked[key])
        return np.where(
            flow_tracked.any(-1, keepdims=True),
            flow_tracked * self._counted[LANDMARK_REGIONS.numpy()],
            weights,
        )

    def _trusted(self, key: Any) -> F32:
        return self._trust[key][..., LANDMARK_REGIONS.numpy()]

    def _seen(self, key: Any) -> F32:
        """How surely landmarks are seen, 0 for those that are rather hidden."""
        if self._track.visibility is None:
            return np.ones_like(self._trusted(key))
        # What is hidden agrees with itself, hundreds of points strong: the least weight would move the face.
        visibility = np.asarray(self._track.visibility[key], np.float32)
        return np.asarray(((visibility - VISIBLE) / (FULLY_VISIBLE - VISIBLE)).clip(0, 1))

    def by_region(self) -> F32:
        """How much of each region can be seen and believed, (T, 6) in [0, 1]; 0 in frames without the person."""
        member = LANDMARK_REGIONS.numpy()[:, None] == np.arange(len(REGIONS))
        mean = (member / member.sum(0)).astype(np.float32)
        shown = self._by_blocks(lambda block: (self._trusted(block) * self._seen(block)) @ mean)
        return shown.clip(0, 1) * np.asarray(self._confidence > 0)[:, None]

    def _by_blocks(self, of: Callable[[slice], F32]) -> F32:
        """Something of each frame, worked out for some at a time: tracks of long clips lie on disk."""
        return np.concatenate(
            [of(slice(start, start + _BLOCK)) for start in range(0, len(self._track), _BLOCK)]
        )


def region_trust(doubt: F32) -> F32:
    """How far regions' landmarks can be believed, (T, 6) in [0, 1], from the networks' standard deviations (T, 6).

    1 up to DOUBT_LIMIT times what is usual in the clip (the 20th percentile, USUAL_DOUBT at most), from there on as the
    variance grows. Only the rise counts: how well the tracker does on the whole the solver knows better itself.
    """
    known = np.isfinite(doubt).all(1)
    if not known.any():
        return np.ones_like(doubt)
    usual = np.quantile(doubt[known], 0.2, axis=0).clip(max=USUAL_DOUBT)
    trust = np.minimum(1, (DOUBT_LIMIT * usual / doubt) ** 2)
    return np.where(known[:, None], trust, 1).astype(np.float32)
