"""Exact solution of block-banded systems, many at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def solve_block_pentadiagonal(diagonal: Tensor, first: Tensor, second: Tensor, right: Tensor) -> Tensor:
    """Solve A x = b for symmetric positive definite A whose off-diagonal blocks are diagonal matrices.

    Args:
        diagonal: (B, N, D, D) blocks A[t, t].
        first: (B, N - 1, D) diagonals of A[t + 1, t].
        second: (B, N - 2, D) diagonals of A[t + 2, t].
        right: (B, N, D) right-hand sides.

    Returns:
        x (B, N, D). Block Cholesky: work and memory grow linearly with N; the B systems run side by side.
    """
    blocks = diagonal.shape[1]
    lower: list[Tensor] = []  # L[t, t]
    below: list[Tensor] = []  # L[t + 1, t]
    farther: list[Tensor] = []  # L[t + 2, t]
    forward: list[Tensor] = []
    for t in range(blocks):
        block, value = diagonal[:, t], right[:, t, :, None]
        if t >= 1:
            block = block - below[t - 1] @ below[t - 1].mT
            value = value - below[t - 1] @ forward[t - 1]
        if t >= 2:
            block = block - farther[t - 2] @ farther[t - 2].mT
            value = value - farther[t - 2] @ forward[t - 2]
        factor = torch.linalg.cholesky(block)
        lower.append(factor)
        forward.append(torch.linalg.solve_triangular(factor, value, upper=False))
        if t + 1 < blocks:
            coupling = torch.diag_embed(first[:, t])
            if t >= 1:
                coupling = coupling - farther[t - 1] @ below[t - 1].mT
            below.append(torch.linalg.solve_triangular(factor, coupling.mT, upper=False).mT)
        if t + 2 < blocks:
            inverse = torch.linalg.solve_triangular(factor, torch.diag_embed(second[:, t]), upper=False)
            farther.append(inverse.mT)
    solution: list[Tensor] = []
    for t in reversed(range(blocks)):
        value = forward[t]
        if t + 1 < blocks:
            value = value - below[t].mT @ solution[-1]
        if t + 2 < blocks:
            value = value - farther[t].mT @ solution[-2]
        solution.append(torch.linalg.solve_triangular(lower[t].mT, value, upper=True))
    return torch.stack(solution[::-1], 1)[..., 0]
