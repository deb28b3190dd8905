"""Camera sensor model: exposure, white balance, blur, noise, vignetting and tone curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from avface.arrays import F32
from avface.geometry.interpolation import smoothstep


@dataclass(frozen=True)
class Sensor:
    """One camera's parameters for a clip."""

    exposure: float
    """Factor of the light."""
    white_balance: tuple[float, float, float]
    """Factors of red, green and blue."""
    contrast: float
    """Strength of an S-shaped tone curve, 0 for plain sRGB."""
    blur: float
    """Standard deviation of the optics and focus, in pixels."""
    shot_noise: float
    """Variance of the noise per unit of light."""
    read_noise: float
    """Standard deviation of the noise without light."""
    vignette: float
    """Share of the light lost in the corners."""
    quality: int
    """Constant rate factor of the H.264 file: 18 is visually lossless, 35 poor."""

    def __post_init__(self) -> None:
        for name in ("exposure", "blur", "shot_noise", "read_noise", "contrast"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        if not 0 <= self.vignette <= 1:
            raise ValueError(f"vignette={self.vignette} must be from 0 to 1")
        if not 0 <= self.quality <= 51:
            raise ValueError(f"quality={self.quality} must be from 0 to 51")

    def develop(self, light: Tensor, generator: torch.Generator) -> Tensor:
        """Pictures (B, H, W, 3) uint8 of linear RGB light (B, H, W, 3); noise is drawn from `generator` per frame."""
        height, width = light.shape[1:3]
        y = torch.linspace(-1, 1, height, device=light.device)[:, None]
        x = torch.linspace(-1, 1, width, device=light.device)[None]
        fall = 1 - self.vignette * (x * x + y * y) / 2
        gain = self.exposure * torch.tensor(self.white_balance, device=light.device)
        light = _blurred(light, self.blur) * fall[..., None] * gain
        noise = torch.stack(
            [
                torch.randn(light.shape[1:], generator=generator, device=light.device)
                for _ in range(len(light))
            ]
        )
        light = light + noise * (self.shot_noise * light.clamp_min(0) + self.read_noise**2).sqrt()
        value = srgb(light.clamp(0, 1))
        value = value + self.contrast * (smoothstep(0, 1, value) - value)
        return (value * 255).round().byte()


def sample_sensor(rng: np.random.Generator) -> Sensor:
    """A random camera, from a good one to a cheap one in low light."""
    grade = rng.beta(1.2, 2.5)  # 0 good, 1 poor
    warm = rng.normal(0, 0.06)
    return Sensor(
        exposure=float(np.exp(rng.normal(0, 0.25))),
        white_balance=(float(np.exp(warm)), float(np.exp(rng.normal(0, 0.02))), float(np.exp(-warm))),
        contrast=float(rng.uniform(0, 0.6)),
        blur=float(0.3 + 1.0 * grade * rng.uniform()),
        shot_noise=float(2e-4 * 20 ** (grade * rng.uniform(0.3, 1))),
        read_noise=float(0.001 * 12 ** (grade * rng.uniform(0.3, 1))),
        vignette=float(rng.uniform(0, 0.3)),
        quality=int(18 + 14 * grade * rng.uniform(0.4, 1)),
    )


def srgb(light: Tensor) -> Tensor:
    """sRGB values of linear ones, both in [0, 1] (IEC 61966-2-1)."""
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clamp_min(1e-6) ** (1 / 2.4) - 0.055)


def linear_light(value: npt.ArrayLike) -> F32:
    """Linear light of sRGB values, both in [0, 1] (IEC 61966-2-1)."""
    v = np.asarray(value, np.float32)
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _blurred(light: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (B, H, W, 3) with replicated edges."""
    reach = max(1, int(3 * sigma + 0.5))
    steps = torch.arange(-reach, reach + 1, dtype=light.dtype, device=light.device)
    kernel = torch.exp(-0.5 * (steps / max(sigma, 1e-3)) ** 2)
    kernel = kernel / kernel.sum()
    # shifted sums: for small kernels several times faster on a CPU than a depthwise convolution
    for axis in (1, 2):
        size = light.shape[axis]
        padded = torch.cat(
            [light.narrow(axis, 0, 1)] * reach + [light] + [light.narrow(axis, size - 1, 1)] * reach, axis
        )
        light = kernel[0] * padded.narrow(axis, 0, size)
        for step in range(1, 2 * reach + 1):
            light.add_(padded.narrow(axis, step, size), alpha=float(kernel[step]))
    return light
