"""The base-colour texture of a head: brows, lips, irises and other colours as the page shows them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from avface.arrays import U8
from avface.export.materials import png
from avface.head.appearance import vertex_colours

if TYPE_CHECKING:
    from avface.head.model import HeadModel

TEXELS = 1024
"""Width and height; the irises of the open head are 30 texels wide. The .png has about 70 kB."""


@dataclass(frozen=True)
class _Content:
    """A head, equal to all with the same content: each capture has loaded its own."""

    digest: str
    head: HeadModel = field(compare=False)


def base_colour_map(head: HeadModel) -> U8 | None:
    """sRGB colours (S, S, 3) of the UV square, row 0 is v = 1; None for a head without texture coordinates.

    Texels off the mesh have the colour of the nearest on it, so that filtering doesn't blend in a background.
    """
    return _map_of(_Content(head.digest(), head)) if len(head.uv) else None


def base_colour_png(head: HeadModel) -> U8 | None:
    """The bytes (N,) of `base_colour_map` as a .png file."""
    return _png_of(_Content(head.digest(), head)) if len(head.uv) else None


@lru_cache(maxsize=1)
def _png_of(content: _Content) -> U8:
    return png(_map_of(content))


@lru_cache(maxsize=1)  # the same for all formats and captures of a head; it takes a third of a second
def _map_of(content: _Content) -> U8:
    import torch

    from avface.geometry.uv import UVAtlas

    head = content.head
    atlas = UVAtlas.of(head.faces.cpu(), torch.as_tensor(head.uv), torch.as_tensor(head.uv_faces), TEXELS)
    colours = atlas.extend(atlas.bake(torch.as_tensor(vertex_colours(head))))
    return np.round(255 * colours.numpy()).astype(np.uint8)
