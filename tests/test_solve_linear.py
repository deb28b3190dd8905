"""The linear algebra under the solver, against dense solutions and scipy."""

import numpy as np
import pytest
import torch

from avface.solve.linear.banded import solve_block_pentadiagonal
from avface.solve.linear.bounded import bounded_newton_step


def banded_system(batch, blocks, size, seed=0):
    """Random positive definite systems: their bands, right-hand sides and dense matrices."""
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(batch, max(blocks - 1, 0), size))
    second = rng.normal(size=(batch, max(blocks - 2, 0), size))
    half = rng.normal(size=(batch, blocks, size, size))
    diagonal = half @ half.swapaxes(-1, -2) + 6 * np.eye(size)
    dense = np.zeros((batch, blocks * size, blocks * size))
    for b in range(batch):
        for t in range(blocks):
            here = slice(t * size, (t + 1) * size)
            dense[b, here, here] = diagonal[b, t]
            for step, band in ((1, first), (2, second)):
                if t + step < blocks:
                    there = slice((t + step) * size, (t + step + 1) * size)
                    dense[b, there, here] = dense[b, here, there] = np.diag(band[b, t])
    right = rng.normal(size=(batch, blocks, size))
    assert (np.linalg.eigvalsh(dense) > 0).all()
    return tuple(torch.as_tensor(a) for a in (diagonal, first, second, right)), dense


@pytest.mark.parametrize(("batch", "blocks", "size"), [(1, 1, 4), (2, 2, 3), (1, 3, 1), (3, 9, 5)])
def test_banded_systems_are_solved_as_dense_ones(batch, blocks, size):
    system, dense = banded_system(batch, blocks, size)

    found = solve_block_pentadiagonal(*system)

    expected = np.linalg.solve(dense, system[3].numpy().reshape(batch, -1, 1)).reshape(batch, blocks, size)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-10)


def test_single_precision_stays_single():
    system, _ = banded_system(2, 7, 4)

    found = solve_block_pentadiagonal(*(part.float() for part in system))

    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), solve_block_pentadiagonal(*system), rtol=1e-4, atol=1e-5)


def test_systems_of_a_batch_are_independent():
    (diagonal, first, second, right), _ = banded_system(2, 6, 3)
    together = solve_block_pentadiagonal(diagonal, first, second, right)

    for b in range(2):
        alone = solve_block_pentadiagonal(
            diagonal[b : b + 1], first[b : b + 1], second[b : b + 1], right[b : b + 1]
        )
        torch.testing.assert_close(together[b : b + 1], alone)


def test_a_system_that_is_not_positive_definite_is_refused():
    (diagonal, first, second, right), _ = banded_system(1, 3, 2)

    with pytest.raises(torch.linalg.LinAlgError):
        solve_block_pentadiagonal(-diagonal, first, second, right)


def bounded_problem(size, seed):
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(size, size))
    hessian = half @ half.T + 0.5 * np.eye(size)
    gradient = 3 * rng.normal(size=size)
    low, high = -rng.uniform(0, 1, size), rng.uniform(0, 1, size)
    low[rng.random(size) < 0.2], high[rng.random(size) < 0.2] = -np.inf, np.inf
    return hessian, gradient, low, high


def newton_step(hessian, gradient, low, high, side=None, rounds=60):
    hessian, gradient, low, high = (torch.as_tensor(a) for a in (hessian, gradient, low, high))

    def solve(right, held):
        free = (~held).double()
        matrix = hessian * free[:, None] * free + torch.diag(1 - free)
        return torch.linalg.solve(matrix, right * free)

    if side is None:
        side = torch.zeros(len(gradient), dtype=torch.int8)
    return bounded_newton_step(solve, lambda d: hessian @ d, gradient, low, high, side, rounds)


def best_step(hessian, gradient, low, high):
    """scipy's exact active-set solution of the same problem, as bounded least squares."""
    from scipy.optimize import lsq_linear

    root = np.linalg.cholesky(hessian).T
    target = -np.linalg.solve(root.T, gradient)
    return lsq_linear(root, target, (low, high), method="bvls", tol=1e-12).x


@pytest.mark.parametrize("seed", range(12))
def test_bounded_steps_are_optimal(seed):
    problem = bounded_problem(8, seed)

    step, _ = newton_step(*problem)

    np.testing.assert_allclose(step.numpy(), best_step(*problem), atol=1e-6)


def test_bounds_are_active_in_the_test_problems():
    free = [np.abs(newton_step(*bounded_problem(8, s))[0].numpy()) for s in range(12)]
    unbounded = [np.abs(np.linalg.solve(*bounded_problem(8, s)[:2])) for s in range(12)]

    assert sum(np.abs(a - b).max() > 0.1 for a, b in zip(free, unbounded, strict=True)) >= 10


def test_without_bounds_the_step_is_newtons():
    hessian, gradient, _, _ = bounded_problem(8, 1)
    wide = np.full(8, np.inf)

    step, side = newton_step(hessian, gradient, -wide, wide)

    np.testing.assert_allclose(step.numpy(), -np.linalg.solve(hessian, gradient), atol=1e-9)
    assert (side == 0).all()


@pytest.mark.parametrize("rounds", [1, 2, 60])
def test_the_step_never_leaves_the_bounds(rounds):
    for seed in range(20):
        hessian, gradient, low, high = bounded_problem(8, seed)
        step, _ = newton_step(hessian, gradient, low, high, rounds=rounds)
        assert (step.numpy() >= low).all() and (step.numpy() <= high).all()


def test_a_wrong_initial_active_set_is_corrected():
    problem = bounded_problem(8, 3)
    expected, active = newton_step(*problem)
    wrong = torch.where(active == 0, torch.tensor(-1, dtype=torch.int8), -active)
    wrong[~torch.isfinite(torch.as_tensor(problem[2]))] = 0
    wrong[~torch.isfinite(torch.as_tensor(problem[3])) & (wrong > 0)] = 0

    step, _ = newton_step(*problem, side=wrong)

    torch.testing.assert_close(step, expected)


def test_a_right_initial_active_set_takes_one_round():
    problem = bounded_problem(8, 3)
    expected, active = newton_step(*problem)

    step, _ = newton_step(*problem, side=active, rounds=1)

    torch.testing.assert_close(step, expected)
