"""Random backgrounds: walls, out-of-focus rooms and lights, noise patterns."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from avface.arrays import F32, F64
from avface.geometry.interpolation import smoothstep


def sample_backdrop(rng: np.random.Generator, height: int, width: int) -> F32:
    """A background (height, width, 3) in linear RGB, about as bright as lit skin or darker."""
    make = [_wall, _room, _lights, _clutter][rng.choice(4, p=[0.35, 0.3, 0.15, 0.2])]
    picture = make(rng, height, width)
    return np.clip(picture, 0.0, 1.5).astype(np.float32)


def _colour(rng: np.random.Generator, saturation: float = 0.35) -> F64:
    """A random linear colour (3,), mostly of low saturation, log-uniform in brightness."""
    grey = np.exp(rng.uniform(np.log(0.02), np.log(0.7)))
    hue = rng.dirichlet([1.0, 1.0, 1.0]) * 3
    amount = saturation * rng.beta(1.2, 2.0)
    return grey * ((1 - amount) + amount * hue)


def _wall(rng: np.random.Generator, height: int, width: int) -> F64:
    """One colour with soft light and grain."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    centre, reach = rng.uniform(-0.2, 1.2, 2), rng.uniform(0.3, 1.2)
    glow = 1 + rng.uniform(0, 1.2) * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / reach**2)
    grain = gaussian_filter(rng.normal(size=(height, width)), rng.uniform(0.5, 6.0))
    grain = 1 + rng.uniform(0, 0.06) * grain / max(float(grain.std()), 1e-9)
    return (glow * grain)[..., None] * _colour(rng)


def _room(rng: np.random.Generator, height: int, width: int) -> F64:
    """Defocused axis-aligned rectangles, as of shelves, doors and windows."""
    picture = np.ones((height, width, 1)) * _colour(rng)
    for _ in range(rng.integers(8, 40)):
        x, y = rng.uniform(-0.1, 1.0, 2)
        wide, high = np.exp(rng.uniform(np.log(0.03), np.log(0.5), 2))
        rows = slice(int(max(y, 0) * height), int(np.clip(y + high, 0, 1) * height))
        columns = slice(int(max(x, 0) * width), int(np.clip(x + wide, 0, 1) * width))
        picture[rows, columns] = _colour(rng, 0.6)
    return _defocused(picture, rng.uniform(0.004, 0.035) * height)


def _lights(rng: np.random.Generator, height: int, width: int) -> F64:
    """Bright discs on a dark background, as the bokeh of distant lamps."""
    picture = np.ones((height, width, 1)) * _colour(rng) * 0.3
    y, x = np.mgrid[0:height, 0:width]
    for _ in range(rng.integers(6, 30)):
        centre = rng.uniform(0, 1, 2) * (height, width)
        radius = rng.uniform(0.01, 0.06) * height
        disc = np.clip(radius - np.hypot(y - centre[0], x - centre[1]) + 0.5, 0, 1)
        picture = picture + disc[..., None] * _colour(rng, 0.8) * rng.uniform(0.5, 3.0)
    return _defocused(picture, 0.004 * height)


def _clutter(rng: np.random.Generator, height: int, width: int) -> F64:
    """Fractal value noise between two colours, as of leaves, crowds, curtains."""
    total = np.zeros((height, width))
    for octave in range(6):
        cells = 2 ** (octave + 1)
        coarse = rng.normal(size=(cells + 2, cells + 2))
        rows, columns = np.linspace(0, cells, height), np.linspace(0, cells, width)
        i, j = rows.astype(int)[:, None], columns.astype(int)[None]
        a, b = rows[:, None] - i, columns[None] - j
        a, b = smoothstep(0, 1, a), smoothstep(0, 1, b)
        upper = coarse[i, j] * (1 - b) + coarse[i, j + 1] * b
        lower = coarse[i + 1, j] * (1 - b) + coarse[i + 1, j + 1] * b
        total += (upper * (1 - a) + lower * a) * 0.6**octave
    share = 1 / (1 + np.exp(-rng.uniform(1, 5) * total / total.std()))[..., None]
    return _defocused(
        share * _colour(rng, 0.6) + (1 - share) * _colour(rng, 0.6), rng.uniform(0.002, 0.02) * height
    )


def _defocused(picture: F64, sigma: float) -> F64:
    blurred: F64 = gaussian_filter(picture, (sigma, sigma, 0), mode="nearest")
    return blurred
