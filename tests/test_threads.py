"""Thread counts of numerical libraries."""

import pytest
import torch
from threadpoolctl import threadpool_info

from avface.solve.linear.banded import solve_block_pentadiagonal
from avface.threads import one_thread


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_torch_and_blas_use_one_thread_and_are_restored():
    torch_before, blas_before = torch.get_num_threads(), blas_threads()
    assert blas_before, "NumPy has one, and SciPy, by which windows are solved"
    blocks, none, right = 2 * torch.eye(3).expand(1, 4, 3, 3), torch.zeros(1, 3, 3), torch.ones(1, 4, 3)

    with pytest.raises(ZeroDivisionError), one_thread():
        torch.testing.assert_close(solve_block_pentadiagonal(blocks, none, none[:, 1:], right), right / 2)
        assert torch.get_num_threads() == 1 and blas_threads() == {1}
        raise ZeroDivisionError

    assert torch.get_num_threads() == torch_before and blas_threads() == blas_before
