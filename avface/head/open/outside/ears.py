"""Size and place of the ears."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from avface.arrays import F64, Bool, Int
from avface.errors import AvfaceError
from avface.geometry.interpolation import smoothstep


@dataclass(frozen=True)
class EarsConfig:
    """Measures of the mean head's ears; metres. Averages of adults (Farkas: height 59 to 63 mm, width 34 to 36 mm,
    protrusion from the mastoid 17 to 21 mm)."""

    height: float = 0.063
    width: float = 0.036
    protrusion: float = 0.0185
    """Distance of the upper third's outermost point from the plane in which the ear is attached to the skull."""
    lowest: float = -0.049
    """Height of the lobe over the eyes' centres: the nose's base."""
    inwards: float = 0.0015
    """How much nearer to the middle the ears, and the skull behind them, lie than MakeHuman's."""
    tip_share: float = 0.95
    """Protrusion of the ear's upper end, as a share of what the upper third's would make it."""
    lobe_share: float = 0.8
    """The same of the lobe: MakeHuman's stands off."""
    variation: float = 0.75
    """Share of MakeHuman's variation of the ears' own form between people."""
    reach: float = 0.022
    """Distance on the scalp over which the change fades out."""
    face_reach: float = 0.016
    """Distance from the face, which stays, over which the change fades in."""

    def __post_init__(self) -> None:
        for name in ("height", "width", "protrusion", "tip_share", "lobe_share", "reach", "face_reach"):
            if not getattr(self, name) > 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be above 0")
        if not 0 <= self.variation <= 1:
            raise AvfaceError(f"variation={self.variation} must be between 0 and 1")


def place_ears(frames: F64, quads: Int, ears: Bool, scalp: Bool, face: Bool, config: EarsConfig) -> F64:
    """Frames (1 + K, V, 3), the mean head and the offsets of components, with ears of the given size and place.

    Linear in the frames but for the shift, which the mean head alone gets. Ears (V,) and the scalp around them move,
    less the nearer they are to the face; all else stays.
    """
    result = frames.copy()
    for sign in (1, -1):
        side = sign * frames[0, :, 0] > 0
        result = _place_ear(result, quads, ears & side, scalp & side, face & side, config)
    return result


def attachment(quads: Int, ear: Bool) -> Int:
    """Vertices of an ear (V,) on its border with the rest of the skin."""
    inside = ear[quads]
    border = quads[inside.any(1) & ~inside.all(1)]
    result: Int = np.unique(border[ear[border]])
    return result


def off_skull(frames: F64, ring: Int) -> F64:
    """(K, V) the height of frames (K, V, 3), along x, over the plane through an ear's attachment; linear in them."""
    flat = np.column_stack([np.ones(len(ring)), frames[0, ring][:, 1:]])
    plane = np.linalg.pinv(flat) @ frames[:, ring, 0].T
    base = np.column_stack([np.ones(frames.shape[1]), frames[0, :, 1:]]) @ plane
    result: F64 = frames[..., 0] - base.T
    return result


def _place_ear(frames: F64, quads: Int, ear: Bool, scalp: Bool, face: Bool, config: EarsConfig) -> F64:
    mean = frames[0]
    moving = np.flatnonzero(ear | scalp)
    weight = np.zeros(len(mean))
    from_face = cKDTree(mean[face]).query(mean[moving])[0]
    from_ear = cKDTree(mean[ear]).query(mean[moving])[0]
    weight[moving] = smoothstep(0.0, config.face_reach, from_face) * smoothstep(config.reach, 0.0, from_ear)
    ring = attachment(quads, ear)

    low, high = mean[ear].min(0), mean[ear].max(0)
    scale_up, scale_back = config.height / (high - low)[1], config.width / (high - low)[2]
    above = (mean[:, 1] - low[1]) / (high - low)[1]
    off = off_skull(frames, ring)
    sign = np.sign(mean[ring, 0].mean())
    outermost = (sign * off[0])[ear & (above > 0.5)].max()
    shares = np.interp(above, [0, 0.25, 0.55, 0.75, 1], [config.lobe_share, 0.9, 1, 1, config.tip_share])
    scale_out = config.protrusion / outermost * shares

    centre = frames[:, ring].mean(1, keepdims=True)
    own = frames[:, moving] - centre
    own[1:] *= 1 - (1 - config.variation) * weight[moving][:, None]
    scale = np.stack([np.ones(len(mean)), np.full(len(mean), scale_up), np.full(len(mean), scale_back)], 1)
    grown = own * (1 + weight[:, None] * (scale - 1))[moving]
    off_own = off[:, moving].copy()
    off_own[1:] *= 1 - (1 - config.variation) * weight[moving]
    grown[..., 0] += off_own * (weight * (scale_out - 1))[moving]
    result = frames.copy()
    result[:, moving] = grown + centre
    shift = config.lowest - (centre[0, 0, 1] + scale_up * (low[1] - centre[0, 0, 1]))
    result[0, moving, 1] += weight[moving] * shift
    result[0, moving, 0] -= weight[moving] * sign * config.inwards
    return result
