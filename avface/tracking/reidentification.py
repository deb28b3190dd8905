"""Re-identification within a clip: an appearance descriptor of a face and the similarity of two.

The descriptor is invariant to head pose and to most of expression.

Two measurements from the image and the landmarks, without a further network:

* shape: MediaPipe's 3-D landmarks of parts that hardly move in speech (nose, eye corners, temples, forehead,
  cheekbones), normalised for position, size and head pose by Procrustes alignment, averaged over frames;
* colour: mean colours of small patches on the skin, hair and clothes.

Descriptors are means over many frames: single frames are noisy. Shape separates people across shot cuts, colour is the
stronger cue within a shot, where the light is the same. This is no face recognition: it distinguishes the handful of
people of one clip, not one person in a crowd.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avface.arrays import F32, U8

_STABLE_RIGHT = np.array([151, 9, 8, 168, 6, 197, 195, 5, 4, 1, 2, 98, 129, 33, 133, 117, 118, 193])
_STABLE_LEFT = np.array([151, 9, 8, 168, 6, 197, 195, 5, 4, 1, 2, 327, 358, 263, 362, 346, 347, 417])
_PAIRED = np.flatnonzero(_STABLE_RIGHT != _STABLE_LEFT)
_MIDDLE = len(_STABLE_RIGHT)
STABLE_LANDMARKS = np.concatenate([_STABLE_RIGHT, _STABLE_LEFT[_PAIRED]])
"""Landmarks that move little with expression: no lips, jaw, brows, lids or irises; and no outline, which
moves over the skin as the head turns."""
_MIRROR = np.arange(len(STABLE_LANDMARKS))
_MIRROR[_PAIRED] = np.arange(_MIDDLE, len(STABLE_LANDMARKS))
_MIRROR[_MIDDLE:] = _PAIRED

# Patches come in pairs, subject's right and left, or lie on the middle line and are paired with themselves.
_SKIN_RIGHT = np.array([151, 9, 5, 199, 164, 67, 50, 117, 205, 172, 105, 118, 69, 207])
_SKIN_LEFT = np.array([151, 9, 5, 199, 164, 297, 280, 346, 425, 397, 334, 347, 299, 427])
_OUTSIDE_RIGHT = np.array([10, 10, 152, 54, 54, 172, 234])
_OUTSIDE_LEFT = np.array([10, 10, 152, 284, 284, 397, 454])
_OUTSIDE_STRETCH = np.array([1.25, 1.5, 2.0, 1.3, 1.6, 2.0, 1.35], np.float32)
"""Patches on hair, ears, neck and clothes: these landmarks, pushed away from the nose bridge by these
factors."""
_RIGHT = np.concatenate([_SKIN_RIGHT, _OUTSIDE_RIGHT])
_LEFT = np.concatenate([_SKIN_LEFT, _OUTSIDE_LEFT])
_STRETCH = np.concatenate([np.ones(len(_SKIN_RIGHT), np.float32), _OUTSIDE_STRETCH])[:, None]
_CENTRE_LANDMARK = 168
_PATCH = 0.02
"""Half width of a patch over the face's height."""
_TURNED_AWAY = 0.35
"""Sine of the yaw from which the far side of the face is left out: about 20 degrees."""
NUM_PATCHES = len(_RIGHT)

_OFFSET, _SHAPE_WEIGHT, _COLOUR_WEIGHT = 9.0, 20.0, 90.0
_UNDECIDED_COLOUR = 0.085
"""Colour distance where no patch is in the picture: between the distances of the same and of different people."""


@dataclass(frozen=True)
class AppearanceDescriptor:
    """Shape and colours of a face, of one frame or averaged over several."""

    shape: F32
    """(25, 3) float32: stable landmarks, centred, unit root mean square; any rotation."""
    colour: F32
    """(21, 3) float32: luma, blue and red difference of the patches, 0..1; nan where out of the picture."""
    count: int = 1
    """Frames averaged."""


def align(shape: F32, target: F32) -> F32:
    """Rotate centred shapes onto a centred target (orthogonal Procrustes, no reflection).

    Shapes: shape (..., K, 3), target (K, 3) -> (..., K, 3).
    Source: Kabsch, Acta Cryst. A32 (1976).
    """
    u, _, vt = np.linalg.svd(np.swapaxes(shape, -1, -2) @ target)
    flip = np.ones((*shape.shape[:-2], 3), shape.dtype)
    flip[..., 2] = np.sign(np.linalg.det(u @ vt))
    return np.asarray(shape @ (u * flip[..., None, :] @ vt), dtype=np.float32)


def describe(image: U8, landmarks: F32) -> AppearanceDescriptor:
    """The appearance descriptor of one face in one frame.

    Shapes: image (H, W, 3) uint8 RGB; landmarks (478, 3) pixels, z on the same scale.
    """
    points = landmarks[STABLE_LANDMARKS]
    points = points - points.mean(axis=0)
    points /= np.sqrt(np.mean(np.sum(points * points, axis=1)))

    centre = landmarks[_CENTRE_LANDMARK, :2]
    right = centre + (landmarks[_RIGHT, :2] - centre) * _STRETCH
    left = centre + (landmarks[_LEFT, :2] - centre) * _STRETCH
    middle = np.concatenate([right, left])
    reach = _PATCH * float(np.ptp(landmarks[:, 1]))
    step = np.array([-reach, 0.0, reach], np.float32)
    offsets = np.stack(np.meshgrid(step, step), axis=-1).reshape(1, 9, 2)
    at = np.rint(middle[:, None] + offsets).astype(np.int64)
    height, width = image.shape[:2]
    inside = (at >= 0).all(axis=(1, 2)) & (at < (width, height)).all(axis=(1, 2))
    at = np.clip(at, 0, (width - 1, height - 1))
    rgb = image[at[..., 1], at[..., 0]].mean(axis=1, dtype=np.float32) / 255
    luma = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    colour = np.stack([luma, 0.564 * (rgb[:, 2] - luma), 0.713 * (rgb[:, 0] - luma)], axis=1)
    # The side turned away from the camera shows background, or skin at a grazing angle.
    across = landmarks[454] - landmarks[234]
    turn = across[2] / (np.linalg.norm(across) + 1e-9)
    weight = inside.astype(np.float32).reshape(2, NUM_PATCHES, 1)
    if abs(turn) > _TURNED_AWAY:
        weight[1 if turn > 0 else 0, _RIGHT != _LEFT] = 0.0
    total = weight.sum(axis=0)
    sides = (weight * colour.reshape(2, NUM_PATCHES, 3)).sum(axis=0)
    with np.errstate(invalid="ignore"):
        colour = sides / total  # nan where neither side is visible
    return AppearanceDescriptor(points.astype(np.float32), colour.astype(np.float32))


def merge(
    known: AppearanceDescriptor, new: AppearanceDescriptor, max_count: int = 1 << 30
) -> AppearanceDescriptor:
    """Mean of two descriptors, weighted by their frames; the known one counts for at most max_count."""
    old = min(known.count, max_count)
    weight = np.float32(new.count / (old + new.count))
    shape = known.shape + weight * (align(new.shape, known.shape) - known.shape)
    mixed = known.colour + weight * (new.colour - known.colour)
    colour = np.where(np.isnan(known.colour), new.colour, np.where(np.isnan(new.colour), known.colour, mixed))
    return AppearanceDescriptor(shape, colour.astype(np.float32), old + new.count)


def _symmetric(shape: F32) -> F32:
    """Mean of a shape and its mirror image: cancels most of the error of MediaPipe's depth with head pose."""
    return (shape + align(shape[_MIRROR] * np.array([-1, 1, 1], np.float32), shape)) / 2


def distances(one: AppearanceDescriptor, other: AppearanceDescriptor) -> tuple[float, float]:
    """Distances of two faces in shape and in colour.

    Shape: root mean square distance of the symmetric shapes, which have unit size. Colour: root mean square
    difference of the patches (0..1), less the difference of mean luma, which is exposure; nan where no patch
    is visible in both.
    """
    target = _symmetric(other.shape)
    shape = align(_symmetric(one.shape), target) - target
    colour = one.colour - other.colour
    colour[:, 0] -= _mean(colour[: len(_SKIN_RIGHT), 0])
    return (
        float(np.sqrt(np.mean(np.sum(shape * shape, axis=1)))),
        float(np.sqrt(_mean(np.sum(colour * colour, axis=1)))),
    )


def similarity(one: AppearanceDescriptor, other: AppearanceDescriptor) -> float:
    """Probability in [0, 1] that two descriptors are of one person; 0.5 is undecided.

    A logistic function of the two distances. Its weights were set on six clips of six people so that means over ten
    frames are all below 0.5 for different people, and above 0.5 in 98 % for one person.
    """
    shape, colour = distances(one, other)
    if np.isnan(colour):
        colour = _UNDECIDED_COLOUR
    return float(1 / (1 + np.exp(_SHAPE_WEIGHT * shape + _COLOUR_WEIGHT * colour - _OFFSET)))


def _mean(values: F32) -> float:
    seen = values[~np.isnan(values)]
    return float(seen.mean()) if len(seen) else float("nan")
