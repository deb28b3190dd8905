"""How many threads compute."""

import pytest
import scipy.linalg  # noqa: F401 - brings its BLAS
import torch
from threadpoolctl import threadpool_info

from avface.threads import one_thread


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_torch_and_blas_compute_with_one_thread_and_then_as_before():
    torch_before, blas_before = torch.get_num_threads(), blas_threads()
    assert blas_before, "NumPy and SciPy have one"

    with pytest.raises(ZeroDivisionError), one_thread():
        assert torch.get_num_threads() == 1 and blas_threads() == {1}
        raise ZeroDivisionError

    assert torch.get_num_threads() == torch_before and blas_threads() == blas_before
