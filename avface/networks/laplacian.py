"""The Laplacian of images for losses: it removes low frequencies and keeps edges and creases."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import conv2d


def laplacian(pictures: Tensor) -> Tensor:
    """Mean of the eight neighbours less the pixel itself, of pictures (B, C, H, W): (B, C, H - 2, W - 2)."""
    channels = pictures.shape[1]
    kernel = pictures.new_full((3, 3), 1 / 8)
    kernel[1, 1] = -1
    return conv2d(pictures, kernel.expand(channels, 1, 3, 3), groups=channels)
