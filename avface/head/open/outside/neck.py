"""The neck's continuation to a clean loop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avface.arrays import F64, Int
from avface.errors import AvfaceError
from avface.geometry.mesh import open_loops


@dataclass(frozen=True)
class NeckConfig:
    """Numbers of the neck; metres."""

    rings: int = 5
    """Rings of quads below MakeHuman's half neck."""
    length: float = 0.046
    """How far the mean of the last loop lies below that of MakeHuman's edge."""
    slope: float = 0.15
    """Rise of the last loop's plane per depth, from the throat to the nape."""
    widening: float = 1.03
    """Size of the last loop as a share of MakeHuman's edge."""

    def __post_init__(self) -> None:
        if self.rings < 2:
            raise AvfaceError(f"rings={self.rings} must be 2 or more")
        for name in ("length", "widening"):
            if not getattr(self, name) > 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be above 0")


def lower_loop(quads: Int, vertices: F64) -> Int:
    """The border (N,) of the mesh at the bottom, in its quads' direction, from the foremost vertex.

    Raises:
        AvfaceError: if the lowest border isn't one loop.
    """
    try:
        loops = open_loops(quads)
    except ValueError:
        raise AvfaceError("the lower border isn't one loop") from None
    if not loops:
        raise AvfaceError("the mesh has no border")
    loop = min(loops, key=lambda each: vertices[each, 1].min())
    foremost = int(np.argmax(vertices[loop, 2]))
    return np.roll(loop, -foremost)


def last_loop(edge: F64, config: NeckConfig) -> F64:
    """Frames (1 + K, N, 3) of the neck's last loop from those of MakeHuman's edge in order.

    The loop is the first two harmonics of the edge around the neck, evenly spaced on the mean head, in one plane, which
    has the same slope for any shape. Linear in the frames but for the length, which the mean head alone gets.
    """
    mean = edge[0][:, [0, 2]]
    steps = np.linalg.norm(np.roll(mean, -1, 0) - mean, axis=1)
    turn = 2 * np.pi * np.concatenate([[0], np.cumsum(steps)[:-1]]) / steps.sum()
    fit = np.linalg.pinv(_harmonics(turn))
    even = turn
    for _ in range(4):
        line = _harmonics(even) @ fit @ mean
        length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.roll(line, -1, 0) - line, axis=1))])
        goal = np.linspace(0, length[-1], len(even), endpoint=False)
        even = np.interp(goal, length, np.append(even, even[0] + 2 * np.pi))
    loop = np.einsum("ij,kjc->kic", _harmonics(even) @ fit, edge)
    centre = loop.mean(1, keepdims=True)
    loop = centre + config.widening * (loop - centre)
    height = edge[:, :, 1].mean(1)
    height[0] -= config.length
    loop[..., 1] = height[:, None] - config.slope * (loop[..., 2] - centre[..., 2])
    return loop


def _harmonics(turn: F64) -> F64:
    """(N, 5) constant and the first two harmonics of angles (N,)."""
    return np.column_stack([np.ones(len(turn)), *(f(k * turn) for k in (1, 2) for f in (np.cos, np.sin))])


def ring_quads(loop: Int, first: int, rings: int) -> Int:
    """Quads (rings * N, 4) from a loop of N vertices down to further ones, numbered on from `first`."""
    count = len(loop)
    rows = np.concatenate([loop[None], first + np.arange(rings * count).reshape(rings, count)])
    after = np.roll(rows, -1, 1)
    quads: Int = np.stack([rows[:-1], rows[1:], after[1:], after[:-1]], -1).reshape(-1, 4)
    return quads
