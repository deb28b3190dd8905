"""Wrinkle sites of the face, and the expressions that fold the skin there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.spatial import cKDTree

from avface.arrays import F64, Bool
from avface.geometry.interpolation import smoothstep
from avface.head.model import HeadModel
from avface.synthetic.person.feature_masks import head_landmarks
from avface.synthetic.person.wrinkles import WrinkleSite


@dataclass(frozen=True)
class _SiteTemplate:
    """A site on any head: landmarks of MediaPipe's scheme and ARKit expressions ("mouthSmile" means both sides)."""

    name: str
    actions: dict[str, float]
    marks: tuple[int, ...]
    radius: float
    """Metres around the landmarks."""
    wavelength: float
    depth: float
    """Metres from ridge to valley at strong compression, at 45 years."""
    growth: float = 1.0
    """Exponent of the growth of the depth with age: 0 none, 1 from a third at 20 to twice at 75."""
    static: float = 1.0
    """Factor of the share of the depth that older people have at rest."""
    lines: tuple[tuple[int, ...], ...] = field(default=())
    """Landmarks along single folds."""


_SITES = (
    _SiteTemplate(
        "forehead",
        {"browInnerUp": 1, "browOuterUp": 1},
        (151, 108, 337, 69, 299, 104, 333, 10, 109, 338, 67, 297, 66, 296, 105, 334, 9),
        0.016,
        0.0078,
        6.0e-4,
    ),
    _SiteTemplate("glabella", {"browDown": 1}, (9, 8, 107, 336, 55, 285), 0.009, 0.0075, 6.5e-4),
    _SiteTemplate(
        "nose_root",
        {"noseSneer": 1, "browDown": 0.5},
        (168, 6, 193, 417, 122, 351, 196, 419),
        0.008,
        0.0042,
        3e-4,
        1.0,
        0.3,
    ),
    _SiteTemplate(
        "crows_feet",
        {"eyeSquint": 0.7, "cheekSquint": 1},
        (359, 446, 265, 130, 226, 35, 340, 111, 372, 143),
        0.010,
        0.0050,
        4.5e-4,
    ),
    _SiteTemplate(
        "under_eyes",
        {"eyeSquint": 0.7, "cheekSquint": 1},
        (449, 450, 451, 448, 229, 230, 231, 228),
        0.007,
        0.0034,
        1.6e-4,
    ),
    _SiteTemplate(
        "cheeks", {"mouthSmile": 1, "cheekSquint": 0.5}, (427, 411, 207, 187), 0.011, 0.0085, 1.7e-4, 1.2, 0.2
    ),
    _SiteTemplate(
        "nasolabial",
        {"mouthSmile": 1, "cheekSquint": 0.5, "mouthUpperUp": 0.3},
        (358, 423, 426, 436, 432, 129, 203, 206, 216, 212),
        0.015,
        0.0075,
        8.5e-4,
        0.6,
        1.0,
        ((358, 423, 426, 436, 432), (129, 203, 206, 216, 212)),
    ),
    _SiteTemplate(
        "marionette",
        {"mouthFrown": 1, "mouthStretch": 0.4},
        (287, 273, 335, 422, 57, 43, 106, 202),
        0.012,
        0.006,
        5.0e-4,
        1.5,
        1.0,
        ((287, 273, 422), (57, 43, 202)),
    ),
    _SiteTemplate(
        "upper_lip", {"mouthPucker": 1}, (37, 267, 39, 269, 164, 393, 167), 0.006, 0.0036, 2.2e-4, 1.6, 0.6
    ),
    _SiteTemplate("lower_lip", {"mouthPucker": 1}, (18, 83, 313, 17), 0.006, 0.0038, 2.2e-4, 1.2, 0.2),
    _SiteTemplate(
        "chin",
        {"mouthShrugLower": 1, "mouthPucker": 0.3},
        (199, 200, 175, 208, 428),
        0.010,
        0.0048,
        3.0e-4,
        0.6,
        0.1,
    ),
)

_FOREHEAD = np.array(
    [
        (105, 66, 107, 9, 336, 296, 334),
        (104, 69, 108, 151, 337, 299, 333),
        (103, 67, 109, 10, 338, 297, 332),
    ]
)
"""Landmarks across the forehead from the subject's right to the left: along the brows, above them, below the hair."""
_RIDGE_FACTORS = 0.1, 1.1
"""Range of the random factor of the depth of a forehead's regular ridges; some foreheads have single lines only."""
_MAX_CREASES = 4
"""Maximum number of single lines across a forehead."""


def wrinkle_sites(
    rng: np.random.Generator, head: HeadModel, neutral: F64, age: float, strength: float
) -> tuple[WrinkleSite, ...]:
    """The sites of a person: neutral (V, 3) at rest in metres, age in years, strength about 1.

    Sites whose expressions the head lacks are left out.
    """
    basis = head.expression_basis.cpu().double().numpy()
    points = head_landmarks(head, neutral)
    skin = head.vertex_parts() == head.part_names.index("skin")
    lips = _lip_vertices(head)
    sites = []
    for place in _SITES:
        own = np.exp(rng.normal(0, 0.25))
        pitch = np.exp(rng.normal(0, 0.1))
        weights = _expression_weights(head, place.actions)
        if not weights.any():
            continue
        distance, _ = cKDTree(points[list(place.marks)]).query(neutral)
        reach = smoothstep(1.6 * place.radius, 0.8 * place.radius, distance) * skin * ~lips
        grown = float(np.interp(age, [18, 30, 45, 60, 78], [0.3, 0.55, 1.0, 1.5, 2.0])) ** place.growth
        sites.append(
            WrinkleSite(
                name=place.name,
                reach=reach.astype(np.float64),
                expressed=neutral + np.tensordot(weights, basis, 1),
                wavelength=place.wavelength * pitch,
                depth=min(place.depth * grown * own * strength, 0.16 * place.wavelength),
                static=place.static * float(np.interp(age, [25, 40, 60, 78], [0.0, 0.07, 0.2, 0.32])),
                curves=tuple(points[list(line)] for line in place.lines),
            )
        )
    forehead = next((number for number, one in enumerate(sites) if one.name == "forehead"), None)
    if forehead is not None:
        ridges = sites[forehead]
        sites[forehead] = replace(ridges, depth=rng.uniform(*_RIDGE_FACTORS) * ridges.depth)
        sites += _forehead_creases(rng, points, neutral, skin, ridges, age, strength)
    return tuple(sites)


def _forehead_creases(
    rng: np.random.Generator,
    points: F64,
    neutral: F64,
    skin: Bool,
    ridges: WrinkleSite,
    age: float,
    strength: float,
) -> list[WrinkleSite]:
    """Single lines across the forehead of random height, length and side, as raised brows make on younger foreheads.

    The head's units compress the skin just above the brows, real brows that of the whole forehead: a line higher up is
    driven by the compression below it.
    """
    folding = points[_FOREHEAD[:2]].mean(0)
    below = np.stack([np.interp(neutral[:, 0], folding[:, 0], axis) for axis in folding.T], 1)
    on_skin = np.flatnonzero(skin)
    driver = on_skin[cKDTree(neutral[on_skin]).query(below)[1]]
    sites = []
    for number in range(int(rng.integers(0, _MAX_CREASES + 1))):
        height, place, length = rng.uniform(0.4, 1.8), rng.uniform(0.1, 0.9), rng.uniform(0.25, 0.9)
        lower = min(int(height), len(_FOREHEAD) - 2)
        rows = points[_FOREHEAD[lower]], points[_FOREHEAD[lower + 1]]
        across = rows[0] + (height - lower) * (rows[1] - rows[0])
        first, last = max(place - length / 2, 0.0), min(place + length / 2, 1.0)
        line = _part_of(across, np.linspace(first, last, 7))
        width, own = rng.uniform(0.0028, 0.0050), np.exp(rng.normal(0, 0.35))
        distance, _ = cKDTree(_part_of(line, np.linspace(0, 1, 10 * len(line)))).query(neutral)
        grown = float(np.interp(age, [18, 30, 45, 60, 78], [0.5, 0.75, 1.0, 1.3, 1.6]))
        sites.append(
            WrinkleSite(
                name=f"forehead_crease_{number + 1}",
                reach=smoothstep(0.010, 0.005, distance) * skin,
                expressed=ridges.expressed,
                wavelength=width,
                depth=min(3.2e-4 * grown * own * strength, 0.12 * width),
                static=float(np.interp(age, [20, 35, 55, 78], [0.0, 0.15, 0.35, 0.5])),
                curves=(line,),
                driver=driver,
            )
        )
    return sites


def _part_of(line: F64, share: F64) -> F64:
    """Points (N, 3) of a line (K, 3) at shares (N,) of its number of points."""
    at = share * (len(line) - 1)
    return np.stack([np.interp(at, np.arange(len(line)), axis) for axis in line.T], 1)


def _expression_weights(head: HeadModel, actions: dict[str, float]) -> F64:
    weights = np.zeros(head.num_expression)
    for action, weight in actions.items():
        for name in (action, f"{action}Left", f"{action}Right"):
            if name in head.expression_names:
                weights[head.expression_names.index(name)] = weight
    return weights


def _lip_vertices(head: HeadModel) -> Bool:
    """Vertices (V,) of the lips, whose folds are part of the relief."""
    return head.regions.get("lips", np.zeros(head.num_vertices, bool))
