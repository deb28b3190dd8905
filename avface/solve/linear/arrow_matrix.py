"""The Hessian of the fit's first problem (arrowhead matrix), solved without assembling it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ArrowMatrix:
    """A matrix of T diagonal blocks (T, D, D) that are coupled only through shared unknowns, (T, D, S) and (S, S)."""

    blocks: Tensor
    coupling: Tensor
    shared: Tensor

    def damped(self, damping: float) -> ArrowMatrix:
        """With the diagonal multiplied by 1 + damping (Levenberg-Marquardt)."""
        blocks, shared = self.blocks.clone(), self.shared.clone()
        blocks.diagonal(dim1=1, dim2=2).mul_(1 + damping).add_(1e-9)
        shared.diagonal().mul_(1 + damping)
        return ArrowMatrix(blocks, self.coupling, shared)

    def multiply(self, vector: Tensor) -> Tensor:
        """The product with a vector (T D + S,)."""
        local, shared = self._split(vector)
        above = self.blocks @ local + self.coupling @ shared
        below = (self.coupling.mT @ local).sum(0) + self.shared @ shared
        return torch.cat([above.flatten(), below.flatten()])

    def solve(self, right: Tensor, held: Tensor) -> Tensor:
        """Solve for the free unknowns (T D + S,) by the Schur complement; the held ones are 0."""
        local, shared = self._split(right)
        free, free_shared = (~part for part in self._split(held))
        free, free_shared = free.to(local), free_shared.to(local)
        blocks = self.blocks * free * free.mT + torch.diag_embed(1 - free[..., 0])
        coupling = self.coupling * free * free_shared.mT
        solved = torch.cholesky_solve(torch.cat([coupling, local], -1), torch.linalg.cholesky(blocks))
        rest = self.shared * free_shared * free_shared.mT + torch.diag(1 - free_shared[:, 0])
        schur = rest - (coupling.mT @ solved[..., :-1]).sum(0)
        reduced = shared - (coupling.mT @ solved[..., -1:]).sum(0)
        y = torch.linalg.solve(schur, reduced)
        return torch.cat([(solved[..., -1:] - solved[..., :-1] @ y).flatten(), y.flatten()])

    def _split(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        frames, size = self.blocks.shape[:2]
        return vector[: frames * size].view(frames, size, 1), vector[frames * size :, None]
