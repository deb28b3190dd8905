"""The detail of a whole clip: what isn't seen in a frame is as it usually is in the clip.

AVFace has none of this and names the lack as its limit (section 5): there, hands and hair become geometry.
"""

from __future__ import annotations

import torch
from torch import Tensor

from avface.errors import AvfaceError
from avface.networks.detail_maps import DetailAtlas

MOST = 32
"""Frames that are remembered, evenly over those that were shown: 6 MB."""


class UsualDetail:
    """The median displacement of a clip, from frames that are shown one by one, in memory that doesn't grow."""

    def __init__(self, atlas: DetailAtlas) -> None:
        self.atlas = atlas
        self._every, self._count = 1, 0
        self._kept: list[tuple[Tensor, Tensor]] = []

    def show(self, displacement: Tensor, visibility: Tensor) -> None:
        """Take in a frame: displacement (R, R) metres, visibility (R, R) from 0 to 1, 0 where something is before it.

        Raises:
            ValueError: if the maps haven't the window's size.
        """
        if not displacement.shape == visibility.shape == self.atlas.mask.shape:
            raise ValueError(
                f"maps {tuple(displacement.shape)} and {tuple(visibility.shape)} must be {tuple(self.atlas.mask.shape)}"
            )
        if self._count % self._every == 0:
            if len(self._kept) == MOST:
                self._kept = self._kept[::2]
                self._every *= 2
            if self._count % self._every == 0:
                self._kept.append(((1e6 * displacement).to(torch.int16), (255 * visibility).byte()))
        self._count += 1

    def median(self) -> Tensor:
        """The usual displacement (R, R) in metres: each texel's median over the frames by how well they show it.

        What is never seen is as on the other side of the face, and 0 if that isn't seen either.

        Raises:
            AvfaceError: if no frame was shown.
        """
        if not self._kept:
            raise AvfaceError("no frame was shown whose detail could be usual")
        values, weights = (torch.stack(parts).float() for parts in zip(*self._kept, strict=True))
        order = values.argsort(0)
        values, weights = values.gather(0, order), weights.gather(0, order)
        share = weights.cumsum(0)
        middle = (share < share[-1] / 2).sum(0, keepdim=True).clamp_max(len(values) - 1)
        usual = 1e-6 * values.gather(0, middle)[0]
        known = (share[-1] > 0).float()
        other, there = self.atlas.flipped(torch.stack([usual * known, known]))
        guess = torch.where(there > 0.5, other / there.clamp_min(0.5), 0.0)
        return torch.where(known > 0, usual, guess) * (self.atlas.mask > 0)

    @staticmethod
    def completed(displacement: Tensor, visibility: Tensor, median: Tensor) -> Tensor:
        """A frame's displacement (..., R, R) as far as it is seen, the median (R, R) where it isn't."""
        return median + visibility * (displacement - median)
