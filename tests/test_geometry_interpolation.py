"""Smoothstep against numbers computed by hand and its defining properties."""

import numpy as np
import pytest
import torch

from avface.geometry.interpolation import smoothstep


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_values_at_the_quarters_are_those_computed_by_hand(kind):
    # s = 1/4: 3/16 - 2/64 = 5/32; s = 1/2: 3/4 - 2/8 = 1/2; s = 3/4: 27/16 - 54/64 = 27/32
    values = kind(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 9.0]))

    np.testing.assert_allclose(smoothstep(2, 6, values), [0, 0, 5 / 32, 1 / 2, 27 / 32, 1, 1], atol=1e-15)


def test_it_falls_where_low_is_above_high():
    values = np.linspace(-1, 3, 41)

    np.testing.assert_allclose(smoothstep(2, 0, values), 1 - smoothstep(0, 2, values), atol=1e-15)
    assert smoothstep(2, 0, values)[0] == 1 and smoothstep(2, 0, values)[-1] == 0


def test_slope_is_0_at_both_ends_and_largest_in_the_middle():
    values = torch.tensor([0.0, 0.5, 1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)

    smoothstep(0.0, 2.0, values).sum().backward()

    # d/dx s^2 (3 - 2 s) = 6 s (1 - s) / 2
    np.testing.assert_allclose(values.grad, [0, 0.5625, 0.75, 0, 0], atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_is_that_of_the_values(dtype):
    assert smoothstep(0.0, 1.0, np.array([0.3], dtype)).dtype == dtype
    assert smoothstep(0.0, 1.0, torch.from_numpy(np.array([0.3], dtype))).numpy().dtype == dtype


def test_an_interval_without_length_is_refused():
    with pytest.raises(ValueError, match=r"^low=0.5 and high=0.5 must differ$"):
        smoothstep(0.5, 0.5, np.array([0.5]))
