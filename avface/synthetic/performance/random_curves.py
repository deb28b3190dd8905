"""Smooth random curves: band-limited noise and minimum-jerk movements."""

from __future__ import annotations

import numpy as np

from avface.arrays import F64


def smooth_noise(rng: np.random.Generator, times: F64, bandwidth: float) -> F64:
    """A Gaussian process (T,) of mean 0 and variance 1 at evenly spaced times, with a Gaussian spectrum.

    bandwidth: Hz, at which the power spectrum has fallen to exp(-2).
    """
    from scipy.ndimage import gaussian_filter1d

    step = min(0.02, 0.1 / bandwidth)
    sigma = 1 / (2 * np.pi * bandwidth) * np.sqrt(2)  # seconds; spectrum exp(-(2 pi f sigma)^2)
    margin = 4 * sigma
    grid = np.arange(times[0] - margin, times[-1] + margin + step, step)
    filtered = gaussian_filter1d(rng.normal(size=len(grid)), sigma / step)
    power = step / (2 * np.sqrt(np.pi) * sigma)  # variance of white noise after a Gaussian kernel
    return np.asarray(np.interp(times, grid, filtered / np.sqrt(power)))


def minimum_jerk(progress: F64) -> F64:
    """A minimum-jerk trajectory from 0 to 1 (Flash & Hogan 1985); constant outside of 0 to 1."""
    x = np.clip(progress, 0, 1)
    return x**3 * (10 - 15 * x + 6 * x**2)


def pulse(times: F64, start: float, rise: float, hold: float, fall: float) -> F64:
    """A movement (T,) from 0 to 1 and back; its start and the lengths of its three parts in seconds."""
    up = minimum_jerk((times - start) / rise)
    return up - minimum_jerk((times - start - rise - hold) / fall)
