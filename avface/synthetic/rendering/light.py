"""Random lighting: ambient light and lamps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from avface.arrays import F32, F64
from avface.geometry.shading import sh_basis


@dataclass(frozen=True)
class Light:
    """Ambient light as spherical harmonics, and directional lamps.

    harmonics (9, 3) are coefficients of `geometry.shading.sh_basis` of the normal per RGB channel; directions (K, 3)
    point to the lamps, colours (K, 3) are their linear RGB. Axes: +x right in the picture, +y up, +z to the camera.
    """

    harmonics: F32
    directions: F32
    colours: F32


def sample_light(rng: np.random.Generator) -> Light:
    """Random light, from an overcast sky to a lamp at the side; a white surface facing the camera reflects about 1."""
    ambient = _ambient(rng)
    lamps = int(rng.choice([0, 1, 2, 3], p=[0.15, 0.4, 0.3, 0.15]))
    azimuth = rng.normal(0, 0.9, lamps).clip(-2.2, 2.2)
    height = rng.normal(0.5, 0.35, lamps).clip(-0.3, 1.3)
    directions = np.stack(
        [np.sin(azimuth) * np.cos(height), np.sin(height), np.cos(azimuth) * np.cos(height)], -1
    )
    colours = (
        np.exp(rng.normal(0, 0.5, (lamps, 1))) * np.stack([temperature(rng) for _ in range(lamps)])
        if lamps
        else (np.zeros((0, 3)))
    )
    front = (sh_basis(torch.tensor([[0.0, 0.2, 0.98]])).numpy() @ ambient).mean()
    lit = (colours.mean(1) * directions[:, 2].clip(0)).sum()
    share = rng.beta(2, 2) if lamps and lit > 0.05 else 1.0  # of ambient light
    ambient = ambient * share / front
    colours = colours * (1 - share) / max(lit, 0.05)
    return Light(ambient.astype(np.float32), directions.astype(np.float32), colours.astype(np.float32))


def _ambient(rng: np.random.Generator) -> F64:
    """Harmonics (9, 3) fitted to the sum of a few broad area lights."""
    areas = rng.integers(2, 6)
    directions = rng.normal(size=(areas, 3)) + np.array([0, 0.8, 0.5])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    strength = np.exp(rng.normal(0, 0.6, (areas, 1))) * np.stack([temperature(rng) for _ in range(areas)])
    sphere = rng.normal(size=(400, 3))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    light = (np.clip(0.35 + 0.65 * sphere @ directions.T, 0, None) ** 1.5) @ strength
    light += rng.uniform(0.1, 0.5) * light.mean()
    basis = sh_basis(torch.as_tensor(sphere)).numpy()
    harmonics: F64 = np.linalg.lstsq(basis, light, rcond=None)[0]
    return harmonics


def temperature(rng: np.random.Generator) -> F64:
    """Linear RGB (3,) of white light with a random colour temperature, 2700 to 9000 K; its mean is 1."""
    kelvin = [2700.0, 4000.0, 5000.0, 6500.0, 9000.0]
    colours = np.array([[1, 0.67, 0.36], [1, 0.82, 0.64], [1, 0.91, 0.82], [1, 1, 1], [0.84, 0.91, 1.06]])
    at = rng.normal(5600, 1100)
    colour = np.array([np.interp(at, kelvin, column) for column in colours.T])
    return colour / colour.mean()
