"""Eyeballs of the open head, and lids that lie on them at rest."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from avface.arrays import F64, Int
from avface.errors import AvfaceError
from avface.head.open.draft import JOINT_NAMES, Draft
from avface.head.open.eyes.lid_fit import GAP, RADIUS, LidFitConfig, fit_lids
from avface.head.open.eyes.region import cut_and_refine, lid_rings

SIDES = ("left", "right")


@dataclass(frozen=True)
class EyesConfig:
    """Parameters of the eyeballs; lengths in metres on the mean head, which has human scale."""

    radius: float = RADIUS
    """Radius of the sclera; human eyeballs are 24 mm across, with 1 mm of deviation between adults."""
    iris_radius: float = 0.00585
    """Radius of the iris; human ones are 11.7 mm across."""
    pupil_radius: float = 0.0019
    """Radius of the pupil in a lit room."""
    cornea: float = 0.00025
    """Height of the cornea's bulge over the sphere at its apex. Human ones are 1.1 mm high; more than the gap between
    lid and sclera would push through the lids when the eye turns below them."""
    segments: int = 32
    """Segments around the eyeball's axis."""
    height: float = 0.0005
    """Height of the middle of the open lids above the eyeball's centre: the upper lid hides the top of the iris, the
    lower one touches its bottom."""
    aside: float = 0.0004
    """How far the eyeball lies to the outer side of MakeHuman's, so that the outer corner of the lids lies on it."""
    gap: float = GAP
    """Distance of the lids' inner edge to the sclera at rest."""

    def __post_init__(self) -> None:
        if not 0 < self.pupil_radius < self.iris_radius < self.radius:
            raise AvfaceError(
                f"pupil_radius={self.pupil_radius} must be above 0, below iris_radius={self.iris_radius}, which must "
                f"be below radius={self.radius}"
            )
        if self.segments < 8 or self.segments % 2:
            raise AvfaceError(f"segments={self.segments} must be even and 8 or more")
        if not (self.cornea >= 0 and self.gap > 0):
            raise AvfaceError(f"cornea={self.cornea} must be 0 or more, gap={self.gap} above 0")


def step(draft: Draft, config: EyesConfig | None = None) -> Draft:
    """The draft with eyeballs, whose cavities end behind the lids, and lids on the eyeballs, of the mean and of every
    shape component.

    `Draft.eye_centres` become the new eyeballs'. Parts "left_eye", "left_iris" and "left_pupil", and the right ones;
    each eyeball's vertices follow its joint alone.

    Raises:
        AvfaceError: if the mesh around the eyes isn't MakeHuman's.
    """
    config = config or EyesConfig()
    draft = cut_and_refine(draft)
    centres = _centres(draft, config)
    draft = replace(draft, eye_centres=centres)
    draft = fit_lids(draft, LidFitConfig(radius=config.radius, gap=config.gap))
    sigma = draft.size_sigma
    ball = Eyeball(config)
    for side, name in enumerate(SIDES):
        template = ball.points + centres[0, side]
        shape = np.repeat(centres[1:, side][:, None], len(template), 1)
        shape[0] = sigma * template
        skin_weights = np.zeros((len(template), 1 + len(JOINT_NAMES)))
        skin_weights[:, 1 + JOINT_NAMES.index(f"{name}_eye")] = 1
        draft = draft.with_parts(
            template,
            ball.quads,
            np.char.add(f"{name}_", ball.parts),
            ball.uv,
            ball.quads,
            shape=shape,
            skin_weights=skin_weights,
        )
    return draft


class Eyeball:
    """A sphere with a bulging cornea that looks along +z about the origin: quads between rings around its axis.

    Attributes: points (N, 3) metres; quads (Q, 4), a triangle repeats its last vertex; parts (Q,) "pupil", "iris" or
    "eye"; uv (N, 2), the front in the middle of the unit disc.
    """

    def __init__(self, config: EyesConfig) -> None:
        pupil, iris = (np.arcsin(r / config.radius) for r in (config.pupil_radius, config.iris_radius))
        front = [0.5 * pupil, pupil, pupil + (iris - pupil) / 3, pupil + 2 * (iris - pupil) / 3, iris]
        # Narrow as far as lids reach when the eye turns: they would be off the middle of wide flats.
        back = np.radians([38, 50, 63, 76, 90, 104, 135])
        angles = np.array([*front, *back[back > iris + 0.05]])
        turn = np.linspace(0, 2 * np.pi, config.segments, endpoint=False)
        bulge = config.cornea * np.clip(1 - (angles / iris) ** 2, 0, None) ** 2
        radius = config.radius + bulge
        ring = np.stack([np.cos(turn), np.sin(turn), np.zeros_like(turn)], 1)
        axis = np.array([0, 0, 1.0])
        self.points: F64 = np.concatenate(
            [
                [(config.radius + config.cornea) * axis],
                *(r * (np.sin(a) * ring + np.cos(a) * axis) for r, a in zip(radius, angles, strict=True)),
                [-config.radius * axis],
            ]
        )
        self.quads, band = self._polygons(len(angles), config.segments)
        edge = np.array([*angles, np.pi])[band]
        names: npt.NDArray[np.str_] = np.array(["pupil", "iris", "eye"])
        self.parts = names[(edge[:, None] > np.array([pupil, iris]) + 1e-9).sum(1)]
        around = np.arctan2(self.points[:, 1], self.points[:, 0])
        flat = np.arctan2(np.hypot(self.points[:, 0], self.points[:, 1]), self.points[:, 2]) / np.pi
        self.uv: F64 = np.stack([flat * np.cos(around), flat * np.sin(around)], 1)

    @staticmethod
    def _polygons(rings: int, segments: int) -> tuple[Int, Int]:
        """Polygons, and the number of the ring on the outer side of each (`rings` for the back pole)."""
        k, after = np.arange(segments), (np.arange(segments) + 1) % segments
        pole = np.zeros(segments, int)
        quads = [np.stack([pole, 1 + k, 1 + after, 1 + after], 1)]
        for r in range(rings - 1):
            a, b = 1 + r * segments, 1 + (r + 1) * segments
            quads.append(np.stack([a + k, b + k, b + after, a + after], 1))
        last = 1 + (rings - 1) * segments
        quads.append(np.stack([last + k, pole + last + segments, last + after, last + after], 1))
        return np.concatenate(quads), np.repeat(np.arange(rings + 1), segments)


def _centres(draft: Draft, config: EyesConfig) -> F64:
    """(1 + S, 2, 3) the eyeballs' centres: where a ball of the radius fits the lids' inner edges, and how that place
    moves with the lids by each shape component."""
    result = draft.eye_centres.copy()
    sigma = draft.size_sigma
    reach = config.radius + config.gap
    for side, rings in enumerate(lid_rings(draft)):
        edge = rings.margin[0]
        count = len(edge)
        quarter = count // 4
        middle = np.array([quarter, count - quarter])
        near = np.abs(np.arange(count)[:, None] - middle).min(1) <= count / 8
        points = draft.template[edge[near]]
        centre = draft.eye_centres[0, side].copy()
        centre[0] += rings.sign * config.aside
        centre[1] = draft.template[edge[middle], 1].mean() + config.height
        for _ in range(20):  # along z only: x and y follow the opening
            offset = points - centre
            distance = np.linalg.norm(offset, axis=1)
            centre[2] += (distance - reach).mean() / (offset[:, 2] / distance).mean()
        result[0, side] = centre
        outwards = (points - centre) / np.linalg.norm(points - centre, axis=1, keepdims=True)
        for row, component in enumerate(draft.shape):
            lids = component[edge[near]]
            old = draft.eye_centres[1 + row, side]
            moved = np.array([old[0], component[edge[middle], 1].mean(), 0])
            moved[2] = (outwards * (lids - moved)).sum() / outwards[:, 2].sum()
            result[1 + row, side] = moved
        result[1, side] = sigma * centre
    return result
