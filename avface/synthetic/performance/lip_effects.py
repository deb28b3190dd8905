"""Deformations of the lips in speech that no ARKit unit makes: exact ground truth for the lip refinement.

Four effects, each a displacement field over the lips of a head:

press   Lip closures of /p b m/ have a virtual target beyond contact, so that the tissue is compressed: the lips roll
        inward, the vermilion gets narrow and flat (Löfqvist & Gracco 1997, "Lip and jaw kinematics in bilabial stop
        consonant production", describe virtual target and tissue compression).
tuck    The edge of the lower lip moves up and back under the upper teeth for /f v/, and the vermilion rolls over it.
round   Lips of /u o w ʃ/ not only protrude, as the units do, but evert and thicken (Abry & Boë 1986, "Laws for lips",
        describe rounding by protrusion and lip area).
spread  Lips of /i/ are thin and flat against the teeth.

They grow and decay around phonemes by dominance functions, as gestures do
(`avface.synthetic.performance.coarticulation`). Their amplitudes in millimetres are chosen by eye, not measured.
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
from avface.synthetic.performance.coarticulation import VOWELS, ipa_letters
from avface.synthetic.performance.espeak import Phoneme
from avface.synthetic.performance.performance import Performance

LEAD = 0.1
"""Lead of the lips over the sound in seconds: the mean over performances."""
MAX_OFFSET = 0.004
"""Maximum displacement of a vertex in metres."""
FADE_SECONDS = 0.3
"""Seconds before and after speech in which effects fade to 0."""

_ONSET = np.array([42.0, 34.0, 14.0, 14.0])
_DECAY = np.array([42.0, 34.0, 18.0, 16.0])
_SMOOTHING = np.array([0.014, 0.014, 0.022, 0.020])
"""By effect: rates in 1/s at which dominance grows before and decays after a phoneme, and the standard deviation in
seconds of the low-pass filter, as of the gestures seal, bite, funnel and spread."""
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
class LipStyle:
    """Strength of one speaker's lip effects; the defaults are an average speaker's."""

    strength: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    """Factor of each effect."""
    asymmetry: float = 0.0
    """Relative surplus of the left half over the mean of both, -0.35 to 0.35."""
    lower: float = 0.0
    """Relative surplus of the lower lip over the mean of both, -0.3 to 0.3."""

    def __post_init__(self) -> None:
        if len(self.strength) != len(EFFECTS) or not min(self.strength) >= 0:
            raise ValueError(f"strength={self.strength} must be {len(EFFECTS)} numbers that aren't negative")
        for name in ("asymmetry", "lower"):
            if not -1 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must be from -1 to 1")


def sample_lip_style(rng: np.random.Generator) -> LipStyle:
    """The lip style of a random speaker."""
    strength = np.clip(rng.lognormal(0, 0.25, len(EFFECTS)), 0.5, 1.6)
    return LipStyle(
        strength=tuple(strength.tolist()),
        asymmetry=float(np.clip(rng.normal(0, 0.12), -0.35, 0.35)),
        lower=float(np.clip(rng.normal(0, 0.1), -0.3, 0.3)),
    )


def effect_curves(phonemes: Sequence[Phoneme], end: float, times: F64) -> F64:
    """Strength (T, 4) of each effect from 0 to 1, at times (T,) in seconds; 0 without speech.

    end: seconds at which the last phoneme ends.
    """
    ends = [*(phoneme.start for phoneme in phonemes[1:]), end][: len(phonemes)]
    spans: list[tuple[str, float, float]] = []
    for phoneme, until in zip(phonemes, ends, strict=True):
        start, parts = phoneme.start, ipa_letters(phoneme.symbol)
        for letter, share in parts if phoneme.symbol else [("", 1.0)]:
            length = share * (until - phoneme.start)
            spans.append((letter, start, start + length))
            start += length
    curves = np.zeros((len(times), len(EFFECTS)))
    spoken = [(start, stop) for letter, start, stop in spans if letter and stop > start]
    if not spoken:
        return curves
    grid = np.arange(times[0] - 0.1, times[-1] + 0.1 + _STEP, _STEP) + LEAD
    near = [part for part in spans if part[2] > grid[0] - 1 and part[1] < grid[-1] + 1 and part[2] > part[1]]
    starts, stops = (np.array([part[k] for part in near], float) for k in (1, 2))
    offset = grid[:, None] - (starts + stops) / 2
    distance = np.sign(offset) * np.maximum(np.abs(offset) - np.maximum((stops - starts) / 2 - _EDGE, 0), 0)
    targets = np.array([_TARGETS.get(letter, _PLAIN) for letter, *_ in near]).reshape(-1, len(EFFECTS))
    dominance = np.array([_dominance(letter) for letter, *_ in near]).reshape(-1, len(EFFECTS))
    begun, ended = np.array(spoken).T
    outside = np.maximum(begun - grid[:, None], grid[:, None] - ended).min(1)
    voiced = smoothstep(0, 1, 1 - np.maximum(outside, 0) / FADE_SECONDS)
    for effect in range(len(EFFECTS)):
        rate = np.where(distance < 0, _ONSET[effect] * distance, -_DECAY[effect] * distance)
        weight = dominance[:, effect] * np.exp(rate)
        # the 1e-3 makes it 0 far from any phoneme
        blend = voiced * (weight @ targets[:, effect]) / (weight.sum(1) + 1e-3)
        curves[:, effect] = np.interp(times + LEAD, grid, _smoothed(blend, _SMOOTHING[effect] / _STEP))
    return smoothstep(0.02, 1, curves)


def _dominance(letter: str) -> tuple[float, ...]:
    """Dominance of a letter for each effect; low for consonants without a target, so that vowels determine it."""
    targets = _TARGETS.get(letter, _PLAIN)
    vowel = letter in VOWELS
    plain = (1.0, 1.0, 1.0 if vowel else 0.1, 1.0 if vowel else 0.1) if letter else (0.5, 0.5, 0.5, 0.5)
    strong = (4.0, 5.0, 1.5, 1.2)
    return tuple(s if target else p for target, s, p in zip(targets, strong, plain, strict=True))


def _smoothed(curve: F64, sigma: float) -> F64:
    """A Gaussian low-pass filter; sigma in samples."""
    from scipy.ndimage import gaussian_filter1d

    return np.asarray(gaussian_filter1d(curve, sigma, mode="nearest"))


@dataclass(frozen=True, eq=False)
class LipEffects:
    """The effects on the N lip vertices of a head.

    fields (4, N, 3) metres at full strength; across, from -1 to 1, and lower (N,) as in `LipRegion`.
    """

    region: LipRegion
    fields: Tensor
    across: Tensor
    lower: Tensor
    contact: LipContact

    @classmethod
    def of(cls, head: HeadModel) -> LipEffects:
        """The effects of a head.

        Raises:
            AvfaceError: if it has no lips that `lip_region` accepts.
        """
        region = lip_region(head)
        return cls(
            region,
            torch.from_numpy(_fields(region)).float(),
            torch.from_numpy(np.clip(region.across, -1, 1)).float(),
            torch.from_numpy(region.lower).float(),
            LipContact.of(head, region),
        )

    def to(self, device: str | torch.device) -> LipEffects:
        """The effects on a device."""
        fields, across, lower = (part.to(device) for part in (self.fields, self.across, self.lower))
        return LipEffects(self.region, fields, across, lower, self.contact.to(fields))

    def effects(self, curves: Tensor, styles: Tensor) -> Tensor:
        """Displacement (..., N, 3) in metres by the effects alone; exactly 0 where all of them are.

        curves (..., 4) as of `effect_curves`; styles (..., 6) as of `lip_style_vector`.
        """
        strength, asymmetry, lower = styles[..., :4], styles[..., 4:5], styles[..., 5:6]
        moved = ((curves * strength) @ self.fields.flatten(1)).unflatten(-1, (-1, 3))
        share = (1 + asymmetry * self.across) * (1 + lower * (2 * self.lower - 1))
        moved = moved * share[..., None]
        length = torch.linalg.vector_norm(moved, dim=-1, keepdim=True)
        return moved * (MAX_OFFSET / length.clamp_min(MAX_OFFSET))

    def offsets(self, base: Tensor, curves: Tensor, styles: Tensor) -> Tensor:
        """Offsets (..., N, 3) in metres from lips moved by units alone to those with effects, contact resolved.

        base (..., N, 3): the lips moved by units, in the head's frame before any joint rotation. Pressed lips touch,
        and lips never penetrate each other. Exactly 0 where all effects are 0 and `base` doesn't penetrate.
        """
        moved = base + self.effects(curves, styles)
        return self.contact.resolve_penetration(self.contact.close_gap(moved, closure(curves[..., 0]))) - base


def lip_style_vector(style: LipStyle) -> Tensor:
    """A style as a vector (6,) for `LipEffects.offsets`."""
    return torch.tensor([*style.strength, style.asymmetry, style.lower])


def sample_lip_offsets(performance: Performance, head: HeadModel, shape: Floats, seed: int) -> Tensor:
    """Lip offsets (T, N, 3) in metres of a performance by a head of shape (S,).

    They are added to the vertices `lip_region(head).vertices` before any joint rotation. A seed determines the
    speaker's style.

    Raises:
        AvfaceError: if the head has no lips that `lip_region` accepts.
    """
    shapes = LipEffects.of(head)
    numbers = torch.from_numpy(shapes.region.vertices)
    weights = torch.as_tensor(np.asarray(shape, np.float32))
    moved = head.blend_terms.weights(torch.from_numpy(performance.expression), weights)
    base = head.neutral(weights)[numbers] + torch.einsum("te,enc->tnc", moved, head.blend_basis[:, numbers])
    end = len(performance) / performance.frame_rate
    curves = torch.from_numpy(effect_curves(performance.phonemes, end, performance.times)).float()
    style = sample_lip_style(np.random.default_rng([seed, len(EFFECTS)]))
    return shapes.offsets(base, curves, lip_style_vector(style))


def _fields(region: LipRegion) -> F64:
    """Displacement fields (4, N, 3) in metres of the effects at full strength."""
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
