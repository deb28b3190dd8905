"""Measures of eyes and lids: sizes, the gap between lids, and their distance to the eyeball."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avface.arrays import F64, Int
from avface.head.open.eye_region import LidRings


@dataclass(frozen=True, eq=False)
class Ball:
    """One eyeball's vertices (N, 3) as they are at rest, looking along +z, its iris's and pupil's rows among them, and
    its centre (3,)."""

    points: F64
    iris: Int
    pupil: Int
    centre: F64

    @property
    def diameter(self) -> float:
        """Largest extent across its axis, in metres."""
        return float(np.ptp(self.points[:, :2], axis=0).max())

    @property
    def iris_diameter(self) -> tuple[float, float]:
        """Extents of the iris across and up, in metres."""
        across, up = np.ptp(self.points[self.iris, :2], axis=0)
        return float(across), float(up)

    def outside(self, points: F64, gaze: tuple[float, float] = (0.0, 0.0)) -> F64:
        """(M,) distance in metres of points (M, 3) to the eyeball's surface along its radius, negative inside, with
        the eyeball turned by gaze: radians to the subject's left and up."""
        offset = (points - self.centre) @ turned(gaze)
        own = self.points - self.centre
        angle, radius = _from_axis(own), np.linalg.norm(own, axis=1)
        order = np.argsort(angle)
        surface = np.interp(_from_axis(offset), angle[order], radius[order])
        result: F64 = np.linalg.norm(offset, axis=1) - surface
        return result


def turned(gaze: tuple[float, float]) -> F64:
    """Rotation (3, 3) of an eyeball that looks so many radians to the subject's left and up."""
    left, up = gaze
    about_y = np.array([[np.cos(left), 0, np.sin(left)], [0, 1, 0], [-np.sin(left), 0, np.cos(left)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(up), np.sin(up)], [0, -np.sin(up), np.cos(up)]])
    result: F64 = about_y @ about_x
    return result


def lid_gap(vertices: F64, neutral: F64, rings: LidRings) -> tuple[float, float]:
    """Largest gap and largest overlap, in metres, between the lids along the whole line where they meet.

    At each column and half-way between columns, along the way that is open on the neutral face. The gap is that of the
    nearer of the margin's inner edge and middle (one sees through where neither meets), the overlap the larger.
    """
    apart = []
    for ring in rings.margin[:2]:
        half = len(ring) // 2
        upper, lower = ring[1:half], ring[:half:-1]
        way = neutral[upper] - neutral[lower]
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        between = vertices[upper] - vertices[lower]
        between = np.concatenate([between, (between[1:] + between[:-1]) / 2])
        way = np.concatenate([way, (way[1:] + way[:-1]) / 2])
        apart.append((between * way).sum(1))
    nearer = np.minimum(*apart)
    return float(max(nearer.max(), 0)), float(max(-nearer.min(), 0))


def lid_opening(vertices: F64, rings: LidRings) -> float:
    """Height of the opening between the lids in its middle, in metres."""
    edge = rings.margin[0]
    quarter = len(edge) // 4
    return float(np.linalg.norm(vertices[edge[quarter]] - vertices[edge[-quarter]]))


def lid_points(vertices: F64, rings: LidRings, caruncle: float = 0.75) -> F64:
    """(M, 3) the lids' inner edge and the surface behind it, with the middles of its edges, but for the caruncle: the
    last columns, of which only a share is on the eyeball."""
    found = []
    for ring in rings.rings[1:3]:
        half = len(ring) // 2
        kept = int(caruncle * half)
        line = vertices[np.concatenate([ring[-kept:], ring[: kept + 1]])]
        found += [line, (line[1:] + line[:-1]) / 2]
    return np.concatenate(found)


def _from_axis(offset: F64) -> F64:
    return np.arctan2(np.hypot(offset[:, 0], offset[:, 1]), offset[:, 2])
