"""Meshes and textures of occluders."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from avface.arrays import F32, F64, Int
from avface.synthetic.rendering.sensor import linear_light

Mesh = tuple[F64, Int, F32]
"""Vertices (V, 3), faces (F, 3), uv (V, 2)."""


def grid(rows: int, columns: int) -> tuple[Int, F32]:
    """Faces (F, 3) and uv (V, 2) of a grid of vertices in reading order; v is 1 in the first row.

    The outer side is the one from which the first row is above and the first column on the left.
    """
    number = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]
    faces = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], 2).reshape(-1, 3)
    v, u = np.meshgrid(np.linspace(1, 0, rows), np.linspace(0, 1, columns), indexing="ij")
    return faces, np.stack([u.ravel(), v.ravel()], 1).astype(np.float32)


def surface_of_revolution(profile: npt.ArrayLike, segments: int = 32) -> Mesh:
    """A surface of revolution about y: profile (P, 2) of radius and height in metres, from the top downwards."""
    outline = np.asarray(profile, np.float64)
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    around = np.stack([np.sin(angle), np.zeros_like(angle), np.cos(angle)], 1)
    vertices = outline[:, None, :1] * around + outline[:, None, 1:] * [0.0, 1.0, 0.0]
    faces, uv = grid(len(outline), segments + 1)
    return vertices.reshape(-1, 3), faces, uv


def tube(path: npt.ArrayLike, radius: npt.ArrayLike, segments: int = 12) -> Mesh:
    """A tube about path (P, 3) with radius () or (P,), in metres; its ends are closed when their radius is 0."""
    points = np.asarray(path, np.float64)
    radii = np.broadcast_to(np.asarray(radius, np.float64), len(points))
    along = np.gradient(points, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    side = np.cross(along[0], [0.0, 0.0, 1.0] if abs(along[0, 2]) < 0.9 else [1.0, 0.0, 0.0])
    frames = np.empty((len(points), 2, 3))
    for k, direction in enumerate(along):  # a rotation-minimising frame
        side = side - (side @ direction) * direction
        side /= np.linalg.norm(side)
        frames[k] = side, np.cross(direction, side)
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1)
    vertices = points[:, None] + radii[:, None, None] * np.einsum("ak,pkc->pac", ring, frames)
    faces, uv = grid(len(points), segments + 1)
    return vertices.reshape(-1, 3), faces[:, ::-1], uv


def slab(width: float, height: float, thickness: float, corner: float) -> Mesh:
    """A plate with rounded corners and edges, centred at 0, in metres.

    Its front (+z) has the left half of the texture, its back the right half, as seen from behind.
    """
    turn = np.linspace(0, np.pi / 2, 7)
    quarter = np.stack([np.cos(turn), np.sin(turn)], 1)
    outline = np.concatenate(
        [
            quarter @ [[np.cos(k), np.sin(k)], [-np.sin(k), np.cos(k)]] * corner
            + np.array([width / 2 - corner, height / 2 - corner]) * [[1, 1], [-1, 1], [-1, -1], [1, -1]][i]
            for i, k in enumerate(np.arange(4) * np.pi / 2)
        ]
    )
    outline = np.concatenate([outline, outline[:1]])
    bevel = min(thickness / 2, 0.003)
    rings = [(0.0, 0.5), (1 - 2 * bevel / width, 0.5), (1.0, 0.5 - bevel / thickness)]
    rings += [(share, -z) for share, z in rings[::-1]]
    vertices = np.concatenate(
        [
            np.concatenate([outline * share, np.full((len(outline), 1), z * thickness)], 1)
            for share, z in rings
        ]
    )
    faces, _ = grid(len(rings), len(outline))
    flat = vertices[:, :2] / [width, height] + 0.5
    front = np.repeat(np.arange(len(rings)) < len(rings) // 2, len(outline))
    u = np.where(front, 0.5 * flat[:, 0], 0.5 + 0.5 * (1 - flat[:, 0]))
    u = np.clip(u, np.where(front, 0.004, 0.504), np.where(front, 0.496, 0.996))
    return vertices, faces, np.stack([u, flat[:, 1]], 1).astype(np.float32)


def noise(rng: np.random.Generator, rows: int, columns: int, cells: int) -> F32:
    """Value noise (rows, columns) in [0, 1] with about `cells` periods a side."""
    coarse = rng.random((cells + 3, cells + 3)).astype(np.float32)
    fine = cv2.resize(coarse, (columns + columns // 2, rows + rows // 2), interpolation=cv2.INTER_CUBIC)
    out: F32 = np.clip(fine[rows // 4 : rows // 4 + rows, columns // 4 : columns // 4 + columns], 0, 1)
    return out


def random_colour(rng: np.random.Generator) -> F64:
    """A random sRGB colour (3,): greys, muted and some saturated ones."""
    if rng.random() < 0.35:
        return np.full(3, rng.choice([0.06, 0.1, 0.2, 0.45, 0.75, 0.9])) + rng.normal(0, 0.015, 3)
    import colorsys

    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.25, 0.9), rng.uniform(0.2, 0.9)))


def plain(rng: np.random.Generator, colour: npt.ArrayLike, size: int = 32, grain: float = 0.02) -> F32:
    """A texture (size, size, 3) of one sRGB colour with grain of a standard deviation, as linear light."""
    picture = np.asarray(colour) + rng.normal(0, grain, (size, size, 1))
    return linear_light(np.clip(picture, 0, 1))


def cloth(rng: np.random.Generator, size: int = 256) -> F32:
    """A linear texture (size, size, 3) of woven cloth: plain, stripes, checks or mottled."""
    first, second = random_colour(rng), random_colour(rng)
    y, x = np.mgrid[:size, :size] / size
    bands = rng.integers(3, 16)
    kind = rng.choice(["plain", "stripes", "checks", "mottled"])
    if kind == "stripes":
        share = (np.sin(2 * np.pi * bands * (y if rng.random() < 0.5 else x)) > rng.uniform(-0.6, 0.6)) * 1.0
    elif kind == "checks":
        share = 0.5 * (np.sin(2 * np.pi * bands * x) > 0) + 0.5 * (np.sin(2 * np.pi * bands * y) > 0)
    elif kind == "mottled":
        share = noise(rng, size, size, int(rng.integers(4, 30)))
    else:
        share = np.zeros_like(x)
    picture = first + (second - first) * share[..., None]
    threads = int(rng.integers(30, 64))
    weave = np.sin(2 * np.pi * threads * x) * np.sin(2 * np.pi * threads * y)
    picture = picture * (1 + 0.10 * weave[..., None] + rng.normal(0, 0.05, (size, size, 1)))
    return linear_light(np.clip(picture, 0.01, 0.97))


def printed_page(rng: np.random.Generator, rows: int = 320, columns: int = 240) -> F32:
    """A linear texture (rows, columns, 3) of paper: blank, with text, or with a picture and text."""
    page = np.ones((rows, columns, 3)) * (rng.uniform(0.86, 0.97) + rng.normal(0, 0.012, 3))
    kind = rng.choice(["blank", "text", "text", "picture"])
    if kind == "picture":
        for k in range(3):
            page[30 : rows // 2, 24 : columns - 24, k] = 0.15 + 0.6 * noise(
                rng, rows // 2 - 30, columns - 48, 6
            )
    if kind != "blank":
        start, gap = (rows // 2 + 10 if kind == "picture" else 24), int(rng.integers(8, 14))
        ink = rng.uniform(0.1, 0.4)
        for y in range(start, rows - 24, gap):
            x = 22
            end = columns - 22 if rng.random() < 0.8 else int(rng.integers(60, columns - 22))
            while x < end:
                width = int(rng.integers(4, 22))
                page[y : y + gap // 3, x : min(x + width, end)] = ink
                x += width + 4
    return linear_light(np.clip(page + rng.normal(0, 0.01, (rows, columns, 1)), 0, 1))
