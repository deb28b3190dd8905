"""Import of FLAME's files as a complete `HeadModel`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from avface.arrays import F64, Bool
from avface.errors import AvfaceError
from avface.head.embedding import Detector, EmbeddingConfig, build_embeddings
from avface.head.flame.landmarks import place_landmarks, read_landmarks
from avface.head.flame.model import FlameImportConfig, flame_head, read_flame, read_uv
from avface.head.model import HeadModel
from avface.head.regions import regions_from_landmarks
from avface.head.schemes import FACE_OVAL


def import_flame(
    path: Path,
    name: str,
    detect: Detector,
    config: FlameImportConfig | None = None,
    *,
    template: Path | None = None,
    embeddings: Sequence[Path] = (),
    portraits: EmbeddingConfig | None = None,
    on_portrait: Callable[[], None] = lambda: None,
) -> HeadModel:
    """The head of a FLAME file with texture coordinates, landmarks and regions.

    Args:
        path: generic_model.pkl, flame2023.pkl, ... or an .npz of the same fields.
        name: the head's name.
        detect: detects the 478 points in pictures of the head, all of which are needed; the published embeddings have
            at most 105.
        config: how many components are kept.
        template: FLAME's head_template.obj, for texture coordinates; none without.
        embeddings: published landmark files, which override detected places; see `read_landmarks`.
        portraits: the pictures for `detect`.
        on_portrait: called after every picture.

    Raises:
        AvfaceError: if a file can't be used, or too few faces are found on the rendered head.
    """
    flame = read_flame(path)
    published = read_landmarks(embeddings, flame.faces)
    head = flame_head(flame, name, config, None if template is None else read_uv(template, flame))
    try:
        head.embeddings = build_embeddings(head, detect, portraits, on_portrait)
    except ValueError as error:
        raise AvfaceError(f"{path}: {error}; is it a face, upright, in metres?") from None
    place_landmarks(head, published)
    head.regions = regions_from_landmarks(_with_first_regions(head))
    return head


def _with_first_regions(head: HeadModel) -> HeadModel:
    """A head with the rough regions that `regions_from_landmarks` refines; FLAME's own file has none."""
    embedding = head.embedding("mediapipe478")
    template = head.template.double().numpy()
    oval = embedding.on(template)[FACE_OVAL]
    skin = np.zeros(head.num_vertices, bool)
    skin[head.faces.numpy()[head.face_parts == head.part_names.index("skin")]] = True
    face = skin & (template[:, 2] > oval[:, 2].min()) & _inside(template[:, :2], oval[:, :2])
    half_width, middle = np.abs(oval[:, 0]).max(), oval[:, 1].mean()
    beside = (np.abs(template[:, 0]) > half_width) & (np.abs(template[:, 1] - middle) < half_width)
    ears = skin & ~face & beside
    if not ears.any():  # a head without ears: a placeholder at the outermost point
        outermost = embedding.triangles[FACE_OVAL[np.abs(oval[:, 0]).argmax()]]
        ears[outermost] = True
    none = np.zeros(head.num_vertices, bool)
    head.regions = {
        "face": face & ~ears,
        "lips": none,
        "eyelids": none,
        "nose": none,
        "ears": ears,
        "scalp": skin & ~face & ~ears,
        "neck": none,
    }
    return head


def _inside(points: F64, ring: F64) -> Bool:
    """Which points (N, 2) lie within the convex outline (L, 2)."""
    centre = ring.mean(0)
    angle = np.arctan2(*(ring - centre).T)
    order = angle.argsort()
    reach = np.linalg.norm(ring - centre, axis=1)
    arm = points - centre
    limit = np.interp(np.arctan2(*arm.T), angle[order], reach[order], period=2 * np.pi)
    return np.linalg.norm(arm, axis=1) < limit
