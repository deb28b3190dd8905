"""A grey picture of the face of each frame, warped by its landmarks into a layout: a square in which each texel is a
fixed place of the skin, between three landmarks.

Registered in this way, pictures of one clip differ by what the landmarks don't follow: their errors are shifts between
the pictures, and folds are changes of brightness.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from avface.arrays import F32, F64, U8, Bool, Floats, Int
from avface.files import replacing
from avface.tracking.aligned_crops import SIDE, aligned_crop, crop_matrix, to_crop

LANDMARKS = 468
"""Number of landmarks of the skin, the first ones of the scheme; the others are of the irises."""
_VISIBLE_AREA = (0.1, 0.35)
"""Area of a texel in the picture, relative to the 75th percentile, up to which its visibility is 0 (turned away, or
folded over), and from which it is 1."""
PICTURE_LAYOUT = Path(__file__).parent / "assets" / "picture_layout.npz"
PICTURE_SIDE = 64
"""Width and height of a picture in texels, of about 2.5 mm."""
_MARGIN, _REDUCED = 21, 128
"""Pixels at each side of an aligned crop that pictures don't need, and the size that the rest is reduced to."""

_Layout = TypeVar("_Layout", bound="FaceLayout")


@dataclass(frozen=True, eq=False)
class FaceLayout:
    """Barycentric map from the landmarks to the texels of a square."""

    inside: Bool
    """(side, side) texels that are covered."""
    corners: Int
    """(N, 3) indices of the three points around each of them: the 468 landmarks, and behind them the P of `ring`."""
    weights: F32
    """(N, 3) barycentric weights."""
    ring: Int
    """(P, 2) landmarks of which P points beyond the outline are extrapolated: outwards from the first, away from the
    second, by `reach` times their distance."""
    reach: float

    @classmethod
    def of(cls: type[_Layout], points: F64, side: int, reach: float = 0.2, axis: float = 0.25) -> _Layout:
        """The layout of points (478, 3) of a neutral face, metres, by a cylindrical projection about a
        vertical axis, `axis` metres behind them."""
        from scipy.spatial import ConvexHull, Delaunay

        x, y, z = points[:LANDMARKS].T
        depth = z - z.min() + axis
        plane = np.stack([np.arctan2(x, depth) * depth.max(), -y], 1)
        outline = ConvexHull(plane).vertices
        middle = int(np.linalg.norm(plane - plane.mean(0), axis=1).argmin())
        ring = np.stack([outline, np.full(len(outline), middle)], 1)
        plane = np.concatenate([plane, plane[outline] + reach * (plane[outline] - plane[middle])])
        low, high = plane.min(0), plane.max(0)
        place = (plane - (low + high) / 2) / (high - low).max() * (side - 1) + (side - 1) / 2
        triangles = Delaunay(place)
        texels = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2).astype(float)
        found = triangles.find_simplex(texels)
        change = triangles.transform[found[found >= 0]]
        two = np.einsum("nij,nj->ni", change[:, :2], texels[found >= 0] - change[:, 2])
        weights = np.concatenate([two, 1 - two.sum(1, keepdims=True)], 1)
        inside = (found >= 0).reshape(side, side)
        corners = triangles.simplices[found[found >= 0]].astype(np.int64)
        return cls(inside, corners, weights.astype(np.float32), ring.astype(np.int64), reach)

    def on_texels(self, values: F32) -> F32:
        """Values (478, C) of landmarks, interpolated at the texels, (side, side, C); 0 outside."""
        values = np.asarray(values[:LANDMARKS], np.float32)
        beyond = (1 + self.reach) * values[self.ring[:, 0]] - self.reach * values[self.ring[:, 1]]
        spread = np.zeros((*self.inside.shape, values.shape[1]), np.float32)
        spread[self.inside] = np.einsum(
            "nkc,nk->nc", np.concatenate([values, beyond])[self.corners], self.weights
        )
        return spread

    def warped(self, view: U8, place: F32) -> U8:
        """A picture (H, W) uint8 grey at places (side, side, 2) in pixels; its border is replicated beyond its edge."""
        grey = cv2.remap(
            view, place[..., 0], place[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(grey, np.uint8)

    def shown(self, place: F32) -> F32:
        """How well the texels at places (side, side, 2) in a picture face the camera, 0 to 1, by their area; 0
        outside."""
        across, down = np.gradient(place, axis=1), np.gradient(place, axis=0)
        area = across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0]
        reference = max(float(np.percentile(area[self.inside], 75)), 1e-6)
        share = (area / reference - _VISIBLE_AREA[0]) / (_VISIBLE_AREA[1] - _VISIBLE_AREA[0])
        return np.asarray(share.clip(0, 1) * self.inside, np.float32)


def face_picture(image: U8, landmarks: Floats) -> U8:
    """The picture (PICTURE_SIDE, PICTURE_SIDE) uint8 grey of a face.

    Shapes: image (H, W, 3) uint8 RGB, landmarks (478, 2 or more) in its pixels.
    """
    matrix = crop_matrix(landmarks)
    crop = aligned_crop(image, matrix)[_MARGIN : SIDE - _MARGIN, _MARGIN : SIDE - _MARGIN]
    crop = np.asarray(cv2.resize(crop, (_REDUCED, _REDUCED), interpolation=cv2.INTER_AREA), np.uint8)
    layout = picture_layout()
    return layout.warped(crop, layout.on_texels(_reduced(to_crop(matrix, landmarks))))


def shown_texels(landmarks: Floats) -> tuple[F32, F32, F64]:
    """Of a face with landmarks (478, 2) in pixels: how well the texels of its picture face the camera, (side, side)
    from 0 to 1; the landmarks in the pixels of its aligned crop; the matrix (2, 3) of that crop."""
    matrix = crop_matrix(landmarks)
    at = to_crop(matrix, landmarks)
    layout = picture_layout()
    return layout.shown(layout.on_texels(_reduced(at))), at, matrix


def _reduced(points: F32) -> F32:
    """Points of an aligned crop in the pixels of its reduced middle."""
    return ((points - _MARGIN + 0.5) * (_REDUCED / (SIDE - 2 * _MARGIN)) - 0.5).astype(np.float32)


@cache
def picture_layout() -> FaceLayout:
    """The layout of the pictures, that of the built-in head's landmarks at rest."""
    with np.load(PICTURE_LAYOUT, allow_pickle=False) as data:
        return FaceLayout(
            data["inside"],
            data["corners"].astype(np.int64),
            data["weights"].astype(np.float32),
            data["ring"].astype(np.int64),
            float(data["reach"]),
        )


def save_picture_layout(points: F64, path: Path = PICTURE_LAYOUT) -> None:
    """Write the layout of points (478, 3) of a neutral face, metres: when the built-in head changes."""
    layout = FaceLayout.of(points, PICTURE_SIDE)
    with replacing(path) as temporary:
        np.savez_compressed(
            temporary,
            inside=layout.inside,
            corners=layout.corners.astype(np.int16),
            weights=layout.weights,
            ring=layout.ring.astype(np.int16),
            reach=np.float64(layout.reach),
        )
