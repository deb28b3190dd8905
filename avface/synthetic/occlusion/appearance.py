"""Skin colours and light of a face, estimated from a picture, for occluders that must match it."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from avface.arrays import F64, U8
from avface.head.schemes import (
    FACE_OVAL,
    LEFT_BROW_LOWER,
    LEFT_BROW_UPPER,
    LEFT_EYE,
    LIPS_OUTER,
    RIGHT_BROW_LOWER,
    RIGHT_BROW_UPPER,
    RIGHT_EYE,
)
from avface.synthetic.occlusion.occluders.average_face import average_face
from avface.synthetic.occlusion.occluders.drawing import Light, srgb
from avface.synthetic.rendering.sensor import linear_light

_MEAN_SKIN_LUMINANCE = 0.33
"""Approximate mean linear luminance of skin in full light over all people, the reference for a picture's brightness."""


def face_skin(image: U8, points: F64, max_colours: int = 6000) -> F64 | None:
    """Colours (M, 3) sRGB in [0, 1] of a face's skin without its shading; at most `max_colours` of them.

    None if there are fewer than 60 pixels: a face that is far away or outside the picture.

    From the forehead to the upper lip, without eyes and brows, and without outliers: hair, glasses, highlights.
    points: landmarks (478, 2) in pixels.
    """
    mask = np.zeros(image.shape[:2], np.uint8)

    def paint(ring: F64, value: int) -> None:
        cv2.fillPoly(mask, [np.round(ring).astype(np.int32)], (value,))

    paint(0.9 * points[FACE_OVAL] + 0.1 * points[FACE_OVAL].mean(0), 1)
    for ring in (LEFT_EYE, RIGHT_EYE, LIPS_OUTER):
        middle = points[ring].mean(0)
        paint(middle + 1.5 * (points[ring] - middle), 0)
    for upper, lower in ((LEFT_BROW_UPPER, LEFT_BROW_LOWER), (RIGHT_BROW_UPPER, RIGHT_BROW_LOWER)):
        ring = points[np.concatenate([upper, lower[::-1]])]
        paint(ring.mean(0) + 1.6 * (ring - ring.mean(0)), 0)
    up = points[10] - points[152]
    rows, columns = np.nonzero(mask)
    # above the base of the nose: neither beard nor mouth
    above = (np.stack([columns, rows], 1) - points[164]) @ up > 0
    rows, columns = rows[above], columns[above]
    if len(rows) < 60:
        return None
    chosen = np.linspace(0, len(rows) - 1, min(max_colours, len(rows))).astype(int)
    rows, columns = rows[chosen], columns[chosen]
    colours = linear_light(image[rows, columns] / np.float32(255)).astype(np.float64)
    luminance = colours @ [0.2126, 0.7152, 0.0722]
    kept = (luminance >= np.quantile(luminance, 0.15)) & (luminance <= np.quantile(luminance, 0.97))
    rows, columns, colours, luminance = rows[kept], columns[kept], colours[kept], luminance[kept]
    x, y = (columns - columns.mean()) / max(np.ptp(columns), 1), (rows - rows.mean()) / max(np.ptp(rows), 1)
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 1)
    shading = np.clip(terms @ np.linalg.lstsq(terms, luminance, rcond=None)[0], 0.02, None)
    colours = colours * np.clip(np.median(shading) / shading, 0.5, 2)[:, None]
    deviation = np.abs(colours - np.median(colours, 0))
    sigma = 1.4826 * np.median(deviation, 0) + 0.01
    colours = colours[(deviation < 2 * sigma).all(1)]
    return srgb(colours.astype(np.float32)).astype(np.float64)


def estimate_light(image: U8, points: F64, turn: F64) -> tuple[Light, float]:
    """The light on a face, and the brightness of the picture as a factor of linear light for objects of known albedo.

    The luminance of the landmarks on the skin is fitted by a linear function of the average face's normal, by
    iteratively reweighted least squares. points (478, 2) in pixels, turn: the head's axis-angle.
    """
    height, width = image.shape[:2]
    normals = _landmark_normals() @ Rotation.from_rotvec(turn).as_matrix().T
    rings = (LEFT_EYE, RIGHT_EYE, LIPS_OUTER, LEFT_BROW_UPPER, RIGHT_BROW_UPPER)
    skin = np.setdiff1d(np.arange(468), np.concatenate(rings))
    where = np.round(points[skin]).astype(int)
    good = (where >= 0).all(1) & (where < [width, height]).all(1) & (normals[skin, 2] > 0.3)
    if good.sum() < 30:
        return Light((0.0, 0.5, 0.866), 0.5), 1.0
    where, facing = where[good], normals[skin][good]
    luminance = linear_light(image[where[:, 1], where[:, 0]] / np.float32(255)) @ [0.2126, 0.7152, 0.0722]
    terms = np.concatenate([np.ones((len(facing), 1)), facing[:, :2]], 1)
    weights = np.ones(len(luminance))
    for _ in range(4):  # brows, beard and highlights are outliers
        fit = np.linalg.lstsq(terms * weights[:, None], luminance * weights, rcond=None)[0]
        residual = np.abs(terms @ fit - luminance)
        weights = 1 / np.sqrt(1 + (residual / (np.median(residual) + 1e-3)) ** 2)
    level = max(float(np.median(luminance)), 1e-3)
    slope = np.clip(fit[1:] / level, -1.2, 1.2)
    direction = np.array([slope[0], slope[1] + 0.15, 0.9])
    direction /= np.linalg.norm(direction)
    diffuse = float(np.clip(0.4 + 0.6 * np.linalg.norm(slope), 0.4, 0.9))
    bright = float(np.quantile(linear_light(image[::4, ::4] / np.float32(255)).max(-1), 0.97))
    brightness = float(np.clip(0.6 * level / _MEAN_SKIN_LUMINANCE + 0.4 * bright, 0.12, 1.2))
    return Light((float(direction[0]), float(direction[1]), float(direction[2])), diffuse), brightness


def _landmark_normals() -> F64:
    """Normals (478, 3) of the average face at its landmarks, approximated by those of an ellipsoid."""
    points = average_face().landmarks - [0, 0, -0.085]
    normals = points * [1, 0.7, 1]
    return np.asarray(normals / np.linalg.norm(normals, axis=1, keepdims=True))
