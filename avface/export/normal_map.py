"""The normal map of the skin's static displacement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from avface.arrays import U8

if TYPE_CHECKING:
    from avface.capture import DetailLayer
    from avface.head.model import HeadModel

TEXELS = 512
"""Width and height of the map of the whole UV square, with about the resolution of the layer's window."""


def static_normal_map(head: HeadModel, detail: DetailLayer) -> U8:
    """Normals (S, S, 3) in glTF's tangent space: x along u, y along v (up), z outwards; -1 to 1 is stored as 0 to 255.
    Row 0 is v = 1."""
    import torch

    atlas = detail.atlas(head)
    static = torch.as_tensor(detail.static.astype(np.float32))
    normals = atlas.to_uv_square(atlas.tangent_normals(static), TEXELS).numpy()
    normals[2] = np.maximum(normals[2], 1e-3)  # outside the window the map is 0
    normals /= np.linalg.norm(normals, axis=0)
    return np.round(127.5 * (normals + 1)).astype(np.uint8).transpose(1, 2, 0)
