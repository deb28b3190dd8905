"""A normal map of what the skin's folds are as a rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from avface.arrays import U8

if TYPE_CHECKING:
    from avface.capture import Capture

TEXELS = 512
"""Across the map of the whole uv square; as fine as the capture's own."""


def static_normal_map(capture: Capture) -> U8:
    """Normals (S, S, 3) in tangent space of a capture's static detail, as glTF has them: x along u, y along v (up), z
    out of the skin, from -1 to 1 as 0 to 255; row 0 is v = 1."""
    import torch

    from avface.head.skin.atlas import detail_atlas

    atlas = detail_atlas(capture.head_model, len(capture.detail_static))
    static = torch.as_tensor(capture.detail_static.astype(np.float32))
    normals = atlas.to_uv_square(atlas.tangent_normals(static), TEXELS).numpy()
    normals[2] = np.maximum(normals[2], 1e-3)  # off the face, where it is as the mesh
    normals /= np.linalg.norm(normals, axis=0)
    return np.round(127.5 * (normals + 1)).astype(np.uint8).transpose(1, 2, 0)
