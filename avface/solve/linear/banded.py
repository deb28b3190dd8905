"""Exact solution of block-banded systems."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import get_lapack_funcs
from torch import Tensor

from avface.arrays import Floats


def solve_block_pentadiagonal(diagonal: Tensor, first: Tensor, second: Tensor, right: Tensor) -> Tensor:
    """Solve A x = b for symmetric positive definite A whose off-diagonal blocks are diagonal matrices.

    Args:
        diagonal: (B, N, D, D) blocks A[t, t].
        first: (B, N - 1, D) diagonals of A[t + 1, t].
        second: (B, N - 2, D) diagonals of A[t + 2, t].
        right: (B, N, D) right-hand sides.

    Returns:
        x (B, N, D), in the precision and on the device of the blocks. LAPACK's banded Cholesky on the CPU, one system
        after the other: work and memory grow linearly with N.

    Raises:
        torch.linalg.LinAlgError: if a system isn't positive definite in this precision.
    """
    parts = [part.detach().cpu().numpy() for part in (diagonal, first, second, right)]
    factorise, solve = get_lapack_funcs(("pbtrf", "pbtrs"), parts[:1])
    solutions = []
    for blocks, near, far, value in zip(*parts, strict=True):
        factor, failed = factorise(_lower_band(blocks, near, far), lower=1, overwrite_ab=1)
        if failed:
            raise torch.linalg.LinAlgError(f"banded system: leading minor {failed} is not positive definite")
        solution, _ = solve(factor, value.reshape(-1, 1), lower=1)
        solutions.append(solution.reshape(value.shape))
    return torch.from_numpy(np.stack(solutions)).to(diagonal)


def _lower_band(blocks: Floats, near: Floats, far: Floats) -> Floats:
    """Matrix A of blocks (N, D, D) with diagonals (N - 1, D) and (N - 2, D) below them, as LAPACK stores it: entry
    [k, j] of the result (2 D + 1, N D) is A[j + k, j]."""
    count, size = blocks.shape[:2]
    band = np.zeros((2 * size + 1, count * size), blocks.dtype, order="F")
    for below in range(size):
        # Within a block there are `below` fewer of these entries than columns; the rest stays 0.
        row = np.zeros((count, size), blocks.dtype)
        row[:, : size - below] = np.diagonal(blocks, -below, 1, 2)
        band[below] = row.ravel()
    band[size, : near.size] = near.ravel()
    band[2 * size, : far.size] = far.ravel()
    return band
