"""FLAME's published landmark embeddings: iBUG's 68 points, the contour by yaw, 105 points of MediaPipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from avface.arrays import F64, Int
from avface.errors import AvfaceError
from avface.head.contour import BINS, YawContour
from avface.head.flame.pickle_reader import is_archive, read_npz, read_pickle, read_pickled_npy
from avface.head.model import HeadModel, LandmarkEmbedding
from avface.head.schemes import IBUG_CONTOUR, NUM_IBUG, NUM_MEDIAPIPE

NUM_CONTOUR = len(IBUG_CONTOUR)
NUM_INNER = NUM_IBUG - NUM_CONTOUR


@dataclass(frozen=True)
class PublishedLandmarks:
    """Places of landmarks on FLAME's surface, as (vertex numbers (..., 3), barycentric (..., 3)); None if not given.

    fixed: all 68 points of iBUG on a head in front view. inner: the 51 without the contour. contour:
    (79, 17) by yaw. mediapipe: N points, with their numbers (N,) in MediaPipe's scheme.
    """

    fixed: tuple[Int, F64] | None = None
    inner: tuple[Int, F64] | None = None
    contour: YawContour | None = None
    mediapipe: tuple[Int, F64] | None = None
    mediapipe_numbers: Int | None = None

    @property
    def ibug68(self) -> tuple[Int, F64] | None:
        """The 68 points in iBUG's order: the fixed ones, or the contour in front view and the inner ones."""
        if self.fixed is not None:
            return self.fixed
        if self.inner is None or self.contour is None:
            return None
        front = (self.contour.triangles[0], self.contour.barycentric[0])
        triangles, barycentric = (np.concatenate(pair) for pair in zip(front, self.inner, strict=True))
        return triangles, barycentric


def read_landmarks(paths: Sequence[Path], faces: Int) -> PublishedLandmarks:
    """Read embedding files for a head with triangles (F, 3); their kind is recognised by content:

    DECA's landmark_embedding.npy, smplx's flame_static_embedding.pkl and flame_dynamic_embedding.npy, and
    mediapipe_landmark_embedding.npz.

    Raises:
        AvfaceError: if a file is missing, damaged, holds code, or isn't an embedding on these triangles.
    """
    found = PublishedLandmarks()
    for path in paths:
        found = replace(found, **_read(path, faces))
    return found


def place_landmarks(head: HeadModel, published: PublishedLandmarks) -> None:
    """Override places of a head's embeddings by published ones.

    spread and error_basis are kept, as they describe the detector.
    """
    if published.ibug68 is not None:
        head.embeddings["ibug68"] = _with_places(
            head.embedding("ibug68"), *published.ibug68, np.arange(NUM_IBUG)
        )
    if published.mediapipe is not None and published.mediapipe_numbers is not None:
        head.embeddings["mediapipe478"] = _with_places(
            head.embedding("mediapipe478"), *published.mediapipe, published.mediapipe_numbers
        )
    if published.contour is not None:
        head.contour = published.contour


def _with_places(
    embedding: LandmarkEmbedding, triangles: Int, barycentric: F64, rows: Int
) -> LandmarkEmbedding:
    corners, weights = embedding.triangles.copy(), embedding.barycentric.copy()
    corners[rows], weights[rows] = triangles, barycentric
    return replace(embedding, triangles=corners, barycentric=weights)


def _read(path: Path, faces: Int) -> dict[str, Any]:
    """The fields of `PublishedLandmarks` in a file."""

    def place(face_key: str, weight_key: str, shape: tuple[int, ...]) -> tuple[Int, F64]:
        return _place(path, fields, face_key, weight_key, shape, faces)

    if is_archive(path):
        fields: dict[str, Any] = dict(read_npz(path))
        numbers = fields.get("landmark_indices")
        if not isinstance(numbers, np.ndarray) or numbers.dtype.kind not in "iu" or numbers.ndim != 1:
            raise AvfaceError(f"{path}: has no landmark_indices; use mediapipe_landmark_embedding.npz")
        if len(numbers) and not (numbers.min() >= 0 and numbers.max() < NUM_MEDIAPIPE):
            raise AvfaceError(f"{path}: its landmark_indices aren't MediaPipe's; download it again")
        points = place("lmk_face_idx", "lmk_b_coords", (len(numbers),))
        return {"mediapipe": points, "mediapipe_numbers": numbers.astype(np.int64)}
    fields = read_pickled_npy(path) if path.suffix.lower() == ".npy" else read_pickle(path)
    if "full_lmk_faces_idx" in fields:
        fixed, weights = place("full_lmk_faces_idx", "full_lmk_bary_coords", (1, NUM_IBUG))
        given: dict[str, Any] = {"fixed": (fixed[0], weights[0])}
        if "dynamic_lmk_faces_idx" in fields:
            contour = place("dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords", (BINS, NUM_CONTOUR))
            given["contour"] = YawContour(*contour)
        return given
    if np.ndim(fields.get("lmk_face_idx", 0)) == 2:
        return {"contour": YawContour(*place("lmk_face_idx", "lmk_b_coords", (BINS, NUM_CONTOUR)))}
    return {"inner": place("lmk_face_idx", "lmk_b_coords", (NUM_INNER,))}


def _place(
    path: Path,
    fields: dict[str, Any],
    face_key: str,
    weight_key: str,
    shape: tuple[int, ...],
    faces: Int,
) -> tuple[Int, F64]:
    """Vertex numbers (*shape, 3) and barycentric (*shape, 3) of the points named by triangle."""
    if not {face_key, weight_key} <= fields.keys():
        raise AvfaceError(
            f"{path}: no landmark embedding of FLAME (it has no {face_key}); see docs/flame.md for those that are known"
        )
    rows, weights = fields[face_key], fields[weight_key]
    arrays = isinstance(rows, np.ndarray) and isinstance(weights, np.ndarray)
    if not arrays or rows.dtype.kind not in "iu" or rows.shape != shape or weights.shape != (*shape, 3):
        wanted = " x ".join(map(str, shape))
        raise AvfaceError(
            f"{path}: its {face_key} and {weight_key} aren't {wanted} points; download it again"
        )
    rows = rows.astype(np.int64)
    weights = weights.astype(np.float64)
    if rows.size and not (rows.min() >= 0 and rows.max() < len(faces)):
        raise AvfaceError(
            f"{path}: has triangles that the head doesn't have; use the embedding of this model"
        )
    if not np.isfinite(weights).all() or np.abs(weights.sum(-1) - 1).max(initial=0) > 1e-2:
        raise AvfaceError(f"{path}: its {weight_key} aren't barycentric; download it again")
    return faces[rows], weights
