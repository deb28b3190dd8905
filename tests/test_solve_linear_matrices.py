"""The structured matrices of the solver's two problems against dense ones."""

import numpy as np
import pytest
import torch

from avface.solve.linear.arrow_matrix import ArrowMatrix
from avface.solve.linear.chain_matrix import ChainMatrix, MotionNormal


def positive(*shape, seed=0):
    """Random positive definite matrices (..., D, D)."""
    half = np.random.default_rng(seed).normal(size=shape)
    return half @ half.swapaxes(-1, -2) + shape[-1] * np.eye(shape[-1])


def solution(dense, right, held):
    """Dense solution of the free unknowns; 0 for the held ones."""
    found = np.zeros_like(right)
    free = ~held
    found[free] = np.linalg.solve(dense[np.ix_(free, free)], right[free])
    return found


@pytest.fixture
def arrow():
    frames, size, shared = 3, 4, 2
    dense = positive(frames * size + shared, frames * size + shared)
    here = [slice(t * size, (t + 1) * size) for t in range(frames)]
    for t, one in enumerate(here):
        for other in here[:t]:
            dense[one, other] = dense[other, one] = 0
    tip = slice(frames * size, None)
    parts = np.stack([dense[h, h] for h in here]), np.stack([dense[h, tip] for h in here]), dense[tip, tip]
    return ArrowMatrix(*(torch.as_tensor(part.copy()) for part in parts)), dense


def test_an_arrow_matrix_multiplies_and_solves_like_its_dense_matrix(arrow):
    matrix, dense = arrow
    rng = np.random.default_rng(1)
    vector, held = rng.normal(size=len(dense)), rng.random(len(dense)) < 0.3

    product = matrix.multiply(torch.as_tensor(vector)).numpy()
    found = matrix.solve(torch.as_tensor(np.where(held, 0, vector)), torch.as_tensor(held)).numpy()

    np.testing.assert_allclose(product, dense @ vector, rtol=1e-9)
    np.testing.assert_allclose(found, solution(dense, vector, held), rtol=1e-8, atol=1e-10)


def test_damping_scales_the_diagonal_only(arrow):
    matrix, dense = arrow
    vector = torch.as_tensor(np.random.default_rng(2).normal(size=len(dense)))

    added = matrix.damped(0.5).multiply(vector) - matrix.multiply(vector)

    np.testing.assert_allclose(added.numpy(), 0.5 * np.diag(dense) * vector.numpy(), rtol=1e-6)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_a_chain_matrix_multiplies_and_solves_like_its_dense_matrix(frames):
    batch, size = 2, 3
    rng = np.random.default_rng(3)
    blocks = positive(batch * frames, size, size) + 8 * np.eye(size)
    diagonal = rng.uniform(1, 2, (batch, frames, size))
    first = rng.normal(size=(batch, max(frames - 1, 0), size))
    second = rng.normal(size=(batch, max(frames - 2, 0), size))
    damping = np.array([0.0, 0.1])
    dense = np.zeros((batch, frames * size, frames * size))
    for b in range(batch):
        for t in range(frames):
            here = slice(t * size, (t + 1) * size)
            dense[b, here, here] = blocks[b * frames + t] + np.diag(diagonal[b, t])
            for step, band in ((1, first), (2, second)):
                if t + step < frames:
                    there = slice((t + step) * size, (t + step + 1) * size)
                    dense[b, there, here] = dense[b, here, there] = np.diag(band[b, t])
        dense[b] += damping[b] * np.diag(np.diag(dense[b]))
    nothing = torch.zeros(batch, frames, size), torch.zeros(batch)
    motion = MotionNormal(*(torch.as_tensor(part) for part in (diagonal, first, second)), *nothing)
    chain = ChainMatrix(torch.as_tensor(blocks), motion, batch, torch.as_tensor(damping))
    vector = rng.normal(size=(batch * frames, size))
    held = rng.random(vector.shape) < 0.3

    product = chain.multiply(torch.as_tensor(vector)).numpy().reshape(batch, -1)
    right = torch.as_tensor(np.where(held, 0, vector))
    found = chain.solve(right, torch.as_tensor(held)).numpy().reshape(batch, -1)

    flat, kept = vector.reshape(batch, -1), held.reshape(batch, -1)
    for b in range(batch):
        np.testing.assert_allclose(product[b], dense[b] @ flat[b], rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(found[b], solution(dense[b], flat[b], kept[b]), rtol=1e-7, atol=1e-9)
