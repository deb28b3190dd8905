"""The Hessian of the fit's second problem (block-pentadiagonal matrix), solved without assembling it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from avface.solve.linear.banded import solve_block_pentadiagonal


@dataclass(frozen=True)
class MotionNormal:
    """Block diagonals: diagonal (B, N, D), first (B, N - 1, D), second (B, N - 2, D); gradient (B, N, D), cost (B,)."""

    diagonal: Tensor
    first: Tensor
    second: Tensor
    gradient: Tensor
    cost: Tensor


class ChainMatrix:
    """The Hessian of `batch` windows of frames: blocks (T, D, D) of the frames plus the motion prior's couplings.

    Scaled to a unit diagonal and solved in the precision of the blocks. The gradient is exact, so rounding affects the
    number of steps to the minimum and not the minimum.
    """

    def __init__(self, blocks: Tensor, motion: MotionNormal, batch: int, damping: Tensor) -> None:
        self.batch = batch
        diagonal = blocks.diagonal(dim1=1, dim2=2) + motion.diagonal.flatten(0, 1).to(blocks)
        diagonal = diagonal * (1 + damping.to(blocks).repeat_interleave(len(blocks) // batch)[:, None]) + 1e-9
        self.scale = diagonal.rsqrt()
        self.blocks = blocks * self.scale[:, :, None] * self.scale[:, None, :]
        self.blocks.diagonal(dim1=1, dim2=2).fill_(1)
        scale = self._windows(self.scale)
        self.first = motion.first.to(blocks) * scale[:, 1:] * scale[:, :-1]
        self.second = motion.second.to(blocks) * scale[:, 2:] * scale[:, :-2]

    def _windows(self, values: Tensor) -> Tensor:
        return values.unflatten(0, (self.batch, -1))

    def multiply(self, vector: Tensor) -> Tensor:
        """The product with a vector (T, D)."""
        x = vector.to(self.blocks) / self.scale
        y = self._windows((self.blocks @ x[..., None])[..., 0])
        x = self._windows(x)
        for step, coupling in ((1, self.first), (2, self.second)):
            if x.shape[1] > step:
                y[:, step:] += coupling * x[:, :-step]
                y[:, :-step] += coupling * x[:, step:]
        return (y.flatten(0, 1) / self.scale).to(vector)

    def solve(self, right: Tensor, held: Tensor) -> Tensor:
        """Solve for the free unknowns (T, D); the held ones are 0."""
        free = (~held).to(self.blocks)
        blocks = self.blocks * free[:, :, None] * free[:, None, :]
        blocks.diagonal(dim1=1, dim2=2).fill_(1)
        free = self._windows(free)
        system = (
            self._windows(blocks),
            self.first * free[:, 1:] * free[:, :-1],
            self.second * free[:, 2:] * free[:, :-2],
            self._windows(right.to(blocks) * self.scale),
        )
        try:
            solution = solve_block_pentadiagonal(*system)
        except torch.linalg.LinAlgError:
            # ill-conditioned in single precision, as with frames at nearly the same time
            solution = solve_block_pentadiagonal(*(part.double() for part in system)).to(blocks)
        return (solution.flatten(0, 1) * self.scale).to(right)
