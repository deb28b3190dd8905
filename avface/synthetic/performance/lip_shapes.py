"""What lips do in speech that no ARKit unit does: press, tuck, thicken and thin. Exact truth for the lip refinement.

Four effects, each a field of movement over the lips of a head:

press   Lips that close for /p b m/ aim beyond contact, so that they are squeezed against each other: they roll inward,
        the red gets narrow and flat (Löfqvist & Gracco 1997, "Lip and jaw kinematics in bilabial stop consonant
        production", describe the virtual target and the squeezed tissue).
tuck    The edge of the lower lip goes up and back under the upper teeth for /f v/, and its red rolls over it.
round   Lips of /u o w ʃ/ don't only come forward, which units do, but turn outward and get thick (Abry & Boë 1986,
        "Laws for lips", describe rounding by protrusion and the lips' area).
spread  Lips of /i/ are drawn thin and flat against the teeth.

They grow and decay around the phonemes by dominance, as gestures do (`avface.synthetic.performance.coarticulation`).
How far they go, in millimetres, is our choice: it makes lips look right and isn't taken from any measurement.
"""
# ruff: noqa: RUF001 - IPA

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avface.arrays import F64, Floats
from avface.geometry.interpolation import smoothstep
from avface.head.lip_contact import LipContact
from avface.head.lips import LipRegion, lip_region
from avface.head.model import HeadModel
from avface.networks.lips.network import EFFECTS, closure
from avface.synthetic.performance.coarticulation import VOWELS, letters
from avface.synthetic.performance.espeak import Phoneme
from avface.synthetic.performance.performance import Performance

LEAD = 0.1
"""Seconds by which lips are ahead of the sound: the mean of what performances draw."""
LARGEST = 0.004
"""Metres that no vertex goes beyond."""
HOLD = 0.3
"""Seconds before and after speech in which effects fade; nothing moves beyond."""

_ONSET = np.array([42.0, 34.0, 14.0, 14.0])
_DECAY = np.array([42.0, 34.0, 18.0, 16.0])
_SMOOTHING = np.array([0.014, 0.014, 0.022, 0.020])
"""By effect: rates in 1/s at which dominance grows before and decays after a phoneme, and the standard deviation in
seconds of the low-pass, as of the gestures seal, bite, funnel and spread."""
_STEP = 0.005
_EDGE = 0.03

_TARGETS: dict[str, tuple[float, float, float, float]] = {
    **dict.fromkeys("pb", (1.0, 0, 0, 0)),
    "m": (0.8, 0, 0, 0),
    **dict.fromkeys("βɸ", (0.25, 0, 0, 0)),
    **dict.fromkeys("fvɱ", (0, 1.0, 0, 0)),
    "ʋ": (0, 0.5, 0, 0),
    **dict.fromkeys("uʉyʏ", (0, 0, 1.0, 0)),
    **dict.fromkeys("wʍɥ", (0, 0, 1.0, 0)),
    **dict.fromkeys("oʊøɵ", (0, 0, 0.75, 0)),
    **dict.fromkeys("ɔœ", (0, 0, 0.55, 0)),
    "ɒ": (0, 0, 0.4, 0),
    **dict.fromkeys("ʃʒʂ", (0, 0, 0.75, 0)),
    **dict.fromkeys("ɕʑ", (0, 0, 0.3, 0)),
    **dict.fromkeys("ɹɚ", (0, 0, 0.35, 0)),
    "i": (0, 0, 0, 1.0),
    **dict.fromkeys("ɪᵻɨe", (0, 0, 0, 0.6)),
    **dict.fromkeys("ɛæ", (0, 0, 0, 0.35)),
    **dict.fromkeys("ɯj", (0, 0, 0, 0.5)),
    **dict.fromkeys("sz", (0, 0, 0, 0.4)),
}
_PLAIN = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class LipHabit:
    """How one speaker's lips do it; the defaults are an average speaker's."""

    strength: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    """Of each effect."""
    asymmetry: float = 0.0
    """How much more the left half moves than the right one, -0.35 to 0.35."""
    lower: float = 0.0
    """How much more the lower lip moves than the upper one, -0.3 to 0.3."""


def sample_lip_habit(rng: np.random.Generator) -> LipHabit:
    """A random speaker's."""
    strength = np.clip(rng.lognormal(0, 0.25, len(EFFECTS)), 0.5, 1.6)
    return LipHabit(
        strength=tuple(strength.tolist()),
        asymmetry=float(np.clip(rng.normal(0, 0.12), -0.35, 0.35)),
        lower=float(np.clip(rng.normal(0, 0.1), -0.3, 0.3)),
    )


def effect_curves(phonemes: Sequence[Phoneme], end: float, times: F64) -> F64:
    """How strong each effect is, (T, 4) from 0 to 1, at times (T,) in seconds; 0 where nothing is said.

    end: seconds at which the last phoneme ends.
    """
    ends = [*(phoneme.start for phoneme in phonemes[1:]), end][: len(phonemes)]
    said: list[tuple[str, float, float]] = []
    for phoneme, until in zip(phonemes, ends, strict=True):
        start, parts = phoneme.start, letters(phoneme.symbol)
        for letter, share in parts if phoneme.symbol else [("", 1.0)]:
            length = share * (until - phoneme.start)
            said.append((letter, start, start + length))
            start += length
    curves = np.zeros((len(times), len(EFFECTS)))
    spoken = [(start, stop) for letter, start, stop in said if letter and stop > start]
    if not spoken:
        return curves
    grid = np.arange(times[0] - 0.1, times[-1] + 0.1 + _STEP, _STEP) + LEAD
    near = [part for part in said if part[2] > grid[0] - 1 and part[1] < grid[-1] + 1 and part[2] > part[1]]
    starts, stops = (np.array([part[k] for part in near], float) for k in (1, 2))
    offset = grid[:, None] - (starts + stops) / 2
    distance = np.sign(offset) * np.maximum(np.abs(offset) - np.maximum((stops - starts) / 2 - _EDGE, 0), 0)
    targets = np.array([_TARGETS.get(letter, _PLAIN) for letter, *_ in near]).reshape(-1, len(EFFECTS))
    dominance = np.array([_dominance(letter) for letter, *_ in near]).reshape(-1, len(EFFECTS))
    begun, ended = np.array(spoken).T
    outside = np.maximum(begun - grid[:, None], grid[:, None] - ended).min(1)
    voiced = smoothstep(0, 1, 1 - np.maximum(outside, 0) / HOLD)
    for effect in range(len(EFFECTS)):
        rate = np.where(distance < 0, _ONSET[effect] * distance, -_DECAY[effect] * distance)
        weight = dominance[:, effect] * np.exp(rate)
        blend = (
            voiced * (weight @ targets[:, effect]) / (weight.sum(1) + 1e-3)
        )  # which decides where none is near
        curves[:, effect] = np.interp(times + LEAD, grid, _smoothed(blend, _SMOOTHING[effect] / _STEP))
    return smoothstep(0.02, 1, curves)


def _dominance(letter: str) -> tuple[float, ...]:
    """How much a letter decides about each effect: consonants without one of their own leave it to the vowels."""
    targets = _TARGETS.get(letter, _PLAIN)
    vowel = letter in VOWELS
    plain = (1.0, 1.0, 1.0 if vowel else 0.1, 1.0 if vowel else 0.1) if letter else (0.5, 0.5, 0.5, 0.5)
    strong = (4.0, 5.0, 1.5, 1.2)
    return tuple(s if target else p for target, s, p in zip(targets, strong, plain, strict=True))


def _smoothed(curve: F64, sigma: float) -> F64:
    """A Gaussian low-pass; sigma in samples."""
    from scipy.ndimage import gaussian_filter1d

    return np.asarray(gaussian_filter1d(curve, sigma, mode="nearest"))


@dataclass(frozen=True, eq=False)
class LipShapes:
    """The effects on the lips of a head of N vertices.

    fields (4, N, 3) metres at full strength; across, from -1 to 1, and lower (N,) as in `LipRegion`.
    """

    region: LipRegion
    fields: Tensor
    across: Tensor
    lower: Tensor
    contact: LipContact

    @classmethod
    def of(cls, head: HeadModel) -> LipShapes:
        """Those of a head.

        Raises:
            AvfaceError: if it has no lips as `lip_region` wants them.
        """
        region = lip_region(head)
        return cls(
            region,
            torch.from_numpy(_fields(region)).float(),
            torch.from_numpy(np.clip(region.across, -1, 1)).float(),
            torch.from_numpy(region.lower).float(),
            LipContact.of(head, region),
        )

    def to(self, device: str | torch.device) -> LipShapes:
        """The same on a device."""
        fields, across, lower = (part.to(device) for part in (self.fields, self.across, self.lower))
        return LipShapes(self.region, fields, across, lower, self.contact.to(fields))

    def effects(self, curves: Tensor, habits: Tensor) -> Tensor:
        """Movement (..., N, 3) in metres that the effects alone make; exactly 0 where all of them are.

        curves (..., 4) as `effect_curves`; habits (..., 6) as `habit_numbers`.
        """
        strength, asymmetry, lower = habits[..., :4], habits[..., 4:5], habits[..., 5:6]
        moved = ((curves * strength) @ self.fields.flatten(1)).unflatten(-1, (-1, 3))
        share = (1 + asymmetry * self.across) * (1 + lower * (2 * self.lower - 1))
        moved = moved * share[..., None]
        length = torch.linalg.vector_norm(moved, dim=-1, keepdim=True)
        return moved * (LARGEST / length.clamp_min(LARGEST))

    def offsets(self, base: Tensor, curves: Tensor, habits: Tensor) -> Tensor:
        """Offsets (..., N, 3) in metres from lips that only units move to those that speak.

        base (..., N, 3): the lips before, in the head's frame before any joint turns. Where lips are pressed they
        touch, and nowhere do they pass through each other. Exactly 0 where all effects are 0 and the lips before don't
        either.
        """
        moved = base + self.effects(curves, habits)
        return self.contact.parted(self.contact.closed(moved, closure(curves[..., 0]))) - base


def habit_numbers(habit: LipHabit) -> Tensor:
    """A habit as `LipShapes.offsets` takes it, (6,)."""
    return torch.tensor([*habit.strength, habit.asymmetry, habit.lower])


def lips(performance: Performance, head: HeadModel, shape: Floats, seed: int) -> Tensor:
    """Lip offsets (T, N, 3) in metres of a performance by a head of shape (S,).

    They are added to the vertices `lip_region(head).vertices` before any joint turns. The same seed is the same
    speaker.

    Raises:
        AvfaceError: if the head has no lips as `lip_region` wants them.
    """
    shapes = LipShapes.of(head)
    numbers = torch.from_numpy(shapes.region.vertices)
    weights = torch.as_tensor(np.asarray(shape, np.float32))
    base = head.neutral(weights)[numbers] + torch.einsum(
        "te,enc->tnc", torch.from_numpy(performance.expression), head.expression_basis[:, numbers]
    )
    end = len(performance) / performance.frame_rate
    curves = torch.from_numpy(effect_curves(performance.phonemes, end, performance.times)).float()
    habit = sample_lip_habit(np.random.default_rng([seed, len(EFFECTS)]))
    return shapes.offsets(base, curves, habit_numbers(habit))


def _fields(region: LipRegion) -> F64:
    """Movement (4, N, 3) in metres of the vertices in each effect, at full strength."""
    q, across, lower = region.outward, np.abs(region.across), region.lower
    side = 1 - 2 * lower  # +1 on the upper lip
    wide = smoothstep(0, 1, 1.15 - across) * region.falloff
    middle = smoothstep(0, 1, 1.2 - 1.1 * across) * region.falloff
    edge = np.where(q < 0, 1.0, smoothstep(0, 1, 1 - q))
    border = np.exp(-(((q - 1) / 0.6) ** 2))
    red = np.where(q < 0, np.exp(-((q / 0.5) ** 2)), 1.0) * np.exp(-(((q - 0.5) / 0.4) ** 2))

    def field(wide_share: F64, up: F64, forward: F64) -> F64:
        return np.stack([np.zeros(len(q)), wide_share * up, wide_share * forward], 1)

    press = field(wide, -side * 1.7 * border, -2.1 * edge - 1.2 * red)
    tuck = field(
        wide,
        lower * (1.3 * edge + 1.4 * border) + (1 - lower) * 0.5 * edge,
        lower * -(2.7 * edge + 0.6 * red),
    )
    rounded = field(middle, side * (1.3 * border - 0.3 * edge), 1.8 * red + 0.9 * edge + 0.3 * border)
    spread = field(wide, -side * 1.0 * border, -1.4 * red - 0.5 * edge)
    return np.stack([press, tuck, rounded, spread]) * 1e-3
