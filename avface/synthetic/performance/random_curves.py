"""Smooth random curves and movements: what faces and heads do that has no other cause."""

from __future__ import annotations

import numpy as np

from avface.arrays import F64


def smooth_noise(rng: np.random.Generator, times: F64, bandwidth: float) -> F64:
    """A Gaussian process (T,) of mean 0 and variance 1 at evenly spaced times, without power beyond the bandwidth.

    bandwidth: Hz, at which its spectrum has fallen to exp(-2) of its power.
    """
    from scipy.ndimage import gaussian_filter1d

    step = min(0.02, 0.1 / bandwidth)
    sigma = 1 / (2 * np.pi * bandwidth) * np.sqrt(2)  # seconds; spectrum exp(-(2 pi f sigma)^2)
    margin = 4 * sigma
    grid = np.arange(times[0] - margin, times[-1] + margin + step, step)
    filtered = gaussian_filter1d(rng.normal(size=len(grid)), sigma / step)
    power = step / (2 * np.sqrt(np.pi) * sigma)  # of a Gaussian kernel on white noise
    return np.asarray(np.interp(times, grid, filtered / np.sqrt(power)))


def minimum_jerk(progress: F64) -> F64:
    """From 0 to 1 as limbs and heads move: smooth at both ends (Flash & Hogan 1985). Constant outside of 0 to 1."""
    x = np.clip(progress, 0, 1)
    return x**3 * (10 - 15 * x + 6 * x**2)


def pulse(times: F64, start: float, rise: float, hold: float, fall: float) -> F64:
    """A movement (T,) from 0 to 1 and back: it begins at `start`, in seconds, as do the lengths of its three parts."""
    up = minimum_jerk((times - start) / rise)
    return up - minimum_jerk((times - start - rise - hold) / fall)
