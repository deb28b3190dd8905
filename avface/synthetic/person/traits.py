"""Traits of a synthetic person's skin: age, pigments, hair, make-up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avface.synthetic.person.colour import hair_reflectance

Colour = tuple[float, float, float]
"""Linear sRGB, 0 to 1."""

IRIS_COLOURS: dict[str, Colour] = {
    "black": (0.020, 0.011, 0.007),
    "brown": (0.052, 0.024, 0.011),
    "hazel": (0.095, 0.058, 0.024),
    "green": (0.085, 0.098, 0.050),
    "blue": (0.080, 0.130, 0.180),
    "grey": (0.120, 0.138, 0.145),
}
LIPSTICKS: tuple[Colour, ...] = (
    (0.42, 0.02, 0.04), (0.25, 0.01, 0.03), (0.52, 0.10, 0.14), (0.45, 0.16, 0.13), (0.30, 0.05, 0.09),
    (0.55, 0.20, 0.20), (0.14, 0.015, 0.03),
)  # fmt: skip
EYE_SHADOWS: tuple[Colour, ...] = (
    (0.10, 0.055, 0.04), (0.05, 0.045, 0.05), (0.22, 0.12, 0.09), (0.12, 0.06, 0.09), (0.07, 0.09, 0.14),
    (0.28, 0.19, 0.12),
)  # fmt: skip


_SHARES = (
    *(
        "melanin",
        "pheomelanin",
        "blood",
        "flush",
        "mottling",
        "under_eyes",
        "lip_blood",
        "grey",
        "hair_density",
    ),
    *(
        "brow_density",
        "brow_darkness",
        "lashes",
        "shadow",
        "beard",
        "goatee",
        "moustache",
        "foundation",
        "blush",
    ),
    *("lipstick", "eye_shadow", "sclera", "teeth", "pores"),
)
"""Fields of `SkinTraits` from 0 to 1."""


@dataclass(frozen=True)
class SkinTraits:
    """One person's skin. Lengths in metres, shares and strengths from 0 to 1, colours linear sRGB."""

    age: float = 35.0
    """Years."""
    melanin: float = 0.03
    """Volume share of melanin in the epidermis: 0.012 very fair to 0.45 very dark."""
    pheomelanin: float = 0.1
    """Share of pheomelanin, the red-yellow kind, in the melanin."""
    blood: float = 0.02
    """Volume share of blood in the dermis."""
    flush: float = 0.5
    """Additional redness of cheeks, nose and ears."""
    mottling: float = 0.5
    """Unevenness of the colour."""
    under_eyes: float = 0.4
    """Darkness of the skin under the eyes."""
    freckles: int = 0
    """Number of freckles."""
    moles: int = 3
    """Number of moles."""
    blemishes: int = 4
    """Number of red spots."""
    lip_blood: float = 0.075
    """Share of blood in the lips."""
    hair: Colour = (0.04, 0.022, 0.012)
    """Colour of hair and brows before any grey."""
    grey: float = 0.0
    """Share of grey hairs."""
    hair_density: float = 0.9
    """0 for a bald head."""
    hairline: float = 0.0
    """Height of the hairline above the average."""
    recession: float = 0.0
    """Recession of the hairline's corners beyond the average."""
    brow_density: float = 0.75
    """Share of the skin that the brows cover."""
    brow_thickness: float = 0.0045
    """Half the height of a brow at its inner third."""
    brow_lift: float = 0.0
    """Displacement of the brows upwards."""
    brow_darkness: float = 0.7
    """Darkness of the brows relative to the hair."""
    lashes: float = 0.5
    """Strength of the lash line."""
    shadow: float = 0.0
    """Beard shadow of a shaven face."""
    beard: float = 0.0
    """Coverage of stubble or beard on the jaw."""
    goatee: float = 0.0
    """Coverage around mouth and chin."""
    moustache: float = 0.0
    """Coverage between nose and lip."""
    foundation: float = 0.0
    """Make-up that evens the skin."""
    blush: float = 0.0
    """Make-up on the cheeks."""
    lipstick: float = 0.0
    """Share of the lips' own colour that is covered."""
    lipstick_colour: Colour = LIPSTICKS[0]
    eye_shadow: float = 0.0
    """Make-up on the upper lids."""
    eye_shadow_colour: Colour = EYE_SHADOWS[0]
    iris: Colour = IRIS_COLOURS["brown"]
    sclera: float = 0.6
    """Whiteness of the white of the eyes."""
    teeth: float = 0.7
    """Whiteness of the teeth."""
    pores: float = 0.5
    """Strength of pores and fine lines: 1 is 0.05 mm deep."""
    wrinkling: float = 1.0
    """Depth of the wrinkles relative to the mean of the age; about 1."""

    def __post_init__(self) -> None:
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must be from 0 to 1")
        for name in ("age", "freckles", "moles", "blemishes", "brow_thickness", "wrinkling"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")


def sample_traits(rng: np.random.Generator) -> SkinTraits:
    """The traits of a random person; their distribution is chosen for variety, not after any population."""
    age = float(rng.uniform(18, 78))
    melanin = float(np.exp(rng.uniform(np.log(0.012), np.log(0.42))))
    fair = melanin < 0.05
    masculine = bool(rng.uniform() < 0.5)
    grey = float(np.clip((age - 45) / 35 + rng.normal(0, 0.2), 0, 1)) if age > 35 else 0.0
    hair, iris = _hair_and_eyes(rng, melanin)
    bald = masculine and rng.uniform() < 0.06 + 0.25 * max(age - 30, 0) / 50
    beard, goatee, moustache, shadow = _beard(rng) if masculine else (0.0, 0.0, 0.0, 0.0)
    made_up = not masculine and rng.uniform() < 0.65

    def make_up(share: float, low: float, high: float) -> float:
        strength = float(rng.uniform(low, high))
        return strength if rng.uniform() < share and made_up else 0.0

    return SkinTraits(
        age=age,
        melanin=melanin,
        pheomelanin=float(rng.uniform(0.0, 0.2)),
        blood=float(np.clip(np.exp(rng.normal(np.log(0.02), 0.3)), 0.009, 0.045)),
        flush=float(rng.beta(2, 2)),
        mottling=float(rng.uniform(0.2, 1)),
        under_eyes=float(rng.beta(1.5, 2.5)),
        freckles=int(rng.integers(60, 700)) if fair and rng.uniform() < 0.35 else 0,
        moles=int(min(rng.geometric(0.2), 14)),
        blemishes=int(rng.integers(0, 16)),
        lip_blood=float(np.exp(rng.uniform(np.log(0.055), np.log(0.12)))),
        hair=hair,
        grey=grey,
        hair_density=0.0 if bald else float(rng.uniform(0.84, 1.0)),
        hairline=float(rng.normal(0, 0.006)),
        recession=float(rng.uniform(0, 0.028) * (age / 60)) if masculine else float(rng.uniform(0, 0.004)),
        brow_density=float(rng.uniform(0.5, 0.92)),
        brow_thickness=float(rng.uniform(0.0034, 0.0056) if masculine else rng.uniform(0.002, 0.0042)),
        brow_lift=float(rng.normal(0, 0.0009)),
        brow_darkness=float(rng.uniform(0.3, 0.9)),
        lashes=float(rng.uniform(0.3, 0.7)) if masculine else float(rng.uniform(0.5, 1)),
        shadow=shadow,
        beard=beard,
        goatee=goatee,
        moustache=moustache,
        foundation=make_up(0.6, 0.3, 0.8),
        blush=make_up(0.6, 0.15, 0.6),
        lipstick=make_up(0.75, 0.35, 0.9),
        lipstick_colour=LIPSTICKS[rng.integers(len(LIPSTICKS))],
        eye_shadow=make_up(0.6, 0.2, 0.7),
        eye_shadow_colour=EYE_SHADOWS[rng.integers(len(EYE_SHADOWS))],
        iris=iris,
        sclera=float(rng.uniform(0.45, 0.72)),
        teeth=float(rng.uniform(0.4, 0.9)),
        pores=float(np.clip(rng.normal(0.5, 0.15) + 0.15 * masculine, 0.15, 1)),
        wrinkling=float(np.exp(rng.normal(0, 0.25))),
    )


def _hair_and_eyes(rng: np.random.Generator, melanin: float) -> tuple[Colour, Colour]:
    """Colours of hair and irises; dark skin has dark ones."""
    hair_types = ["black", "brown", "fair", "red"]
    shares = [0.9, 0.1, 0, 0] if melanin > 0.07 else [0.3, 0.4, 0.2, 0.1]
    eumelanin, pheomelanin = {
        "black": (rng.uniform(3, 7), rng.uniform(0, 0.5)),
        "brown": (rng.uniform(0.9, 2.6), rng.uniform(0.1, 0.7)),
        "fair": (rng.uniform(0.12, 0.5), rng.uniform(0.05, 0.3)),
        "red": (rng.uniform(0.2, 0.6), rng.uniform(0.8, 1.8)),
    }[hair_types[rng.choice(4, p=shares)]]
    names = list(IRIS_COLOURS)
    weights = [0.5, 0.47, 0.03, 0, 0, 0] if melanin > 0.07 else [0.08, 0.3, 0.17, 0.12, 0.23, 0.1]
    base = np.array(IRIS_COLOURS[names[rng.choice(len(names), p=weights)]]) * np.exp(
        rng.normal(0, 0.2) + rng.normal(0, 0.06, 3)
    )
    red, green, blue = (float(c) for c in hair_reflectance(eumelanin, pheomelanin))
    return (red, green, blue), (float(base[0]), float(base[1]), float(base[2]))


def _beard(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Coverage of beard, goatee and moustache, and the shadow of a shaven beard."""
    shadow = float(rng.uniform(0.05, 0.6))
    style = rng.choice(["shaven", "stubble", "beard", "goatee", "moustache"], p=[0.4, 0.27, 0.18, 0.09, 0.06])
    stubble, full = float(rng.uniform(0.12, 0.4)), float(rng.uniform(0.65, 0.96))
    return {
        "shaven": (0.0, 0.0, 0.0, shadow),
        "stubble": (stubble, stubble, stubble, shadow),
        "beard": (full, full, full, shadow),
        "goatee": (0.1, full, full, shadow),
        "moustache": (0.0, 0.0, full, shadow),
    }[str(style)]
