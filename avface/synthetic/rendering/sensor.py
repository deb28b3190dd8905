"""From light to a video's pixels: exposure, white balance, tone, blur and noise of a camera."""

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
    """One camera's settings for a clip."""

    exposure: float
    """Factor of the light."""
    white_balance: tuple[float, float, float]
    """Factors of red, green and blue."""
    contrast: float
    """Strength of an S-shaped tone curve, 0 for plain sRGB."""
    blur: float
    """Standard deviation of the optics and focus, in pixels."""
    shot_noise: float
    """Variance of the noise a unit of light."""
    read_noise: float
    """Standard deviation of the noise in the dark."""
    vignette: float
    """Share of the light that is lost in the corners."""
    quality: int
    """Constant rate factor of the H.264 file: 18 is nearly lossless, 35 poor."""

    def develop(self, light: Tensor, generator: torch.Generator) -> Tensor:
        """Pictures (B, H, W, 3) uint8 of linear RGB light (B, H, W, 3); `generator` gives noise frame by frame."""
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
    """From a good camera to a cheap one in the dark."""
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
    """Gaussian blur of (B, H, W, 3) with edges repeated."""
    reach = max(1, int(3 * sigma + 0.5))
    steps = torch.arange(-reach, reach + 1, dtype=light.dtype, device=light.device)
    kernel = torch.exp(-0.5 * (steps / max(sigma, 1e-3)) ** 2)
    kernel = kernel / kernel.sum()
    # Shifted sums: for kernels this small they are several times faster on a CPU than a convolution of one channel.
    for axis in (1, 2):
        size = light.shape[axis]
        padded = torch.cat(
            [light.narrow(axis, 0, 1)] * reach + [light] + [light.narrow(axis, size - 1, 1)] * reach, axis
        )
        light = kernel[0] * padded.narrow(axis, 0, size)
        for step in range(1, 2 * reach + 1):
            light.add_(padded.narrow(axis, step, size), alpha=float(kernel[step]))
    return light
