"""Occluders that move with the head: scarves, sunglasses and strands of hair."""

from __future__ import annotations

import numpy as np

from avface.arrays import F64, Floats, Int
from avface.synthetic.occlusion.occluders.average_face import FaceShape, average_face
from avface.synthetic.occlusion.occluders.drawing import Surface
from avface.synthetic.occlusion.occluders.occluder import Occluder
from avface.synthetic.occlusion.occluders.shapes import cloth, grid, plain, random_colour, tube
from avface.synthetic.rendering.sensor import linear_light

_HAIR_COLOURS = (
    (0.10, 0.08, 0.07),
    (0.20, 0.13, 0.09),
    (0.33, 0.22, 0.14),
    (0.55, 0.40, 0.25),
    (0.62, 0.60, 0.58),
)


def sample_scarf(rng: np.random.Generator, over_mouth: bool) -> Occluder:
    """A random scarf around neck and chin, up to the nose if over_mouth."""
    from scipy.ndimage import gaussian_filter

    face = average_face()
    top = (
        face.nose_tip[1] + rng.uniform(-0.004, 0.016)
        if over_mouth
        else face.mouth[1] - rng.uniform(0.005, 0.03)
    )
    heights = np.linspace(top, top - rng.uniform(0.16, 0.24), 26)
    angles = np.linspace(-np.pi, np.pi, 65)
    radius = _head_radius(face, angles, heights)
    for i in range(1, len(radius)):  # hanging cloth recedes only a little below a protrusion
        radius[i] = np.maximum(radius[i], radius[i - 1] - 0.002)
    radius = gaussian_filter(radius, (1.2, 1.6), mode=("nearest", "wrap"))
    folds = np.zeros_like(radius)
    for _ in range(5):
        lean, phase, width = rng.normal(0, 0.02), rng.uniform(0, 6.3), rng.uniform(120, 300)
        folds += rng.uniform(0.3, 1) * np.sin(
            width * (heights[:, None] - lean * np.sin(angles + phase)) + phase
        )
    swell = np.clip(np.linspace(0, 3, len(heights)), 0, 1)[:, None]
    radius = radius + 0.009 + 0.0018 * folds * swell
    radius[0] -= 0.005
    radius[:, -1] = radius[:, 0]
    sag = 0.012 * rng.uniform(0.3, 1) * np.cos(angles) ** 2 * -1
    x, z = radius * np.sin(angles), radius * np.cos(angles) - 0.07
    y = np.broadcast_to(heights[:, None], radius.shape) + sag
    faces, uv = grid(len(heights), len(angles))
    uv = uv * [3.0, 1.0] % 1.0001
    mesh = np.stack([x, y, z], -1).reshape(-1, 3)
    scarf = Surface.of(mesh, faces, uv.astype(np.float32), cloth(rng), gloss=0.02)
    return Occluder("scarf", True, over_mouth, np.zeros(3), 0.0, np.array([0.0, -1.0, 0.0]), (scarf,))


def sample_sunglasses(rng: np.random.Generator, over_mouth: bool) -> Occluder:
    """Random sunglasses: superelliptic lenses, opaque or tinted; over_mouth changes nothing."""
    face = average_face()
    wide, high = rng.uniform(0.024, 0.031), rng.uniform(0.017, 0.026)
    square = rng.uniform(2.0, 3.6)
    drop = rng.uniform(-0.3, 0.25)  # from aviator to cat-eye frames
    depth = face.nose_tip[2] - rng.uniform(0.006, 0.010)
    rim = rng.uniform(0.0008, 0.0028)
    colour = random_colour(rng) * 0.35 if rng.random() < 0.7 else np.array([0.75, 0.62, 0.35])
    frame = plain(rng, colour, 16)
    tint = np.clip(np.full(3, rng.uniform(0.02, 0.07)) * rng.uniform(0.6, 1.4, 3), 0, 1)
    fade = np.linspace(0, 1, 32)[:, None, None] * rng.uniform(0, 0.10)
    lens_texture = linear_light(np.broadcast_to(tint + fade, (32, 32, 3)))
    opacity = 1.0 if rng.random() < 0.5 else float(rng.uniform(0.75, 0.95))
    parts: list[Surface] = []
    t = np.linspace(0, 2 * np.pi, 41)
    c, s = np.cos(t), np.sin(t)
    oval = np.stack(
        [wide * np.sign(c) * np.abs(c) ** (2 / square), high * np.sign(s) * np.abs(s) ** (2 / square)], 1
    )
    ends = []
    for eye in (face.right_eye, face.left_eye):
        outwards = np.sign(eye[0])
        outline = oval.copy()
        outline[:, 1] -= (
            drop * outline[:, 1].clip(None, 0) * 0.5 * (1 - 0.5 * outwards * outline[:, 0] / wide)
        )
        centre = np.array([outwards * max(abs(eye[0]) + 0.002, wide + 0.009), eye[1] - 0.003])

        def bent(points: F64, middle: F64 = centre) -> F64:
            flat = points + middle
            return np.stack(
                [flat[:, 0], flat[:, 1], depth - 4.5 * flat[:, 0] ** 2 - 1.5 * (flat[:, 1] - middle[1]) ** 2],
                1,
            )

        shares = np.linspace(0, 1, 6)
        mesh = np.concatenate([bent(outline * share) for share in shares])
        faces, _ = grid(len(shares), len(t))
        uv = np.concatenate([outline * share / [2 * wide, 2 * high] + 0.5 for share in shares])
        parts.append(Surface.of(mesh, faces, uv.astype(np.float32), lens_texture, gloss=0.9, opacity=opacity))
        mesh, faces, uv = tube(bent(outline), rim, 8)
        parts.append(Surface.of(mesh, faces, uv, frame, gloss=0.6))
        tip = bent(np.array([[outwards * wide, high * 0.45], [-outwards * wide * 0.98, high * 0.25]]))
        ends.append(tip[1])
        ear = np.array([outwards * 0.080, tip[0, 1] + 0.002, -0.085])
        hinge = np.array([outwards * max(abs(tip[0, 0]) + 0.004, 0.071), tip[0, 1], tip[0, 2] - 0.008])
        temple = np.stack([tip[0], 0.4 * tip[0] + 0.6 * hinge, hinge, 0.5 * (hinge + ear), ear])
        mesh, faces, uv = tube(temple, max(rim, 0.0014), 8)
        parts.append(Surface.of(mesh, faces, uv, frame, gloss=0.5))
    bridge = np.linspace(ends[0], ends[1], 9) + np.sin(np.linspace(0, np.pi, 9))[:, None] * [0, 0.003, 0.002]
    mesh, faces, uv = tube(bridge, max(rim, 0.0014), 8)
    parts.append(Surface.of(mesh, faces, uv, frame, gloss=0.6))
    return Occluder(
        "sunglasses", True, False, np.zeros(3), 0.0, np.array([0.0, 1.0, 0.0]), tuple(parts), fine=True
    )


def sample_hair(rng: np.random.Generator, over_mouth: bool) -> Occluder:
    """Random locks of hair that hang into the face, below the mouth's corners if over_mouth."""
    face = average_face()
    colour = np.array(_HAIR_COLOURS[int(rng.integers(len(_HAIR_COLOURS)))]) * rng.uniform(0.8, 1.2)
    strips: list[tuple[Floats, Int, Floats]] = []
    side = rng.choice([-1.0, 1.0])
    faces, uv = grid(18, 2)
    for _ in range(int(rng.integers(2, 7))):  # locks
        root = np.array([rng.uniform(-0.02, 0.045) * side, face.landmarks[10, 1] + 0.03, 0.0])
        tip = np.array(
            [root[0] + rng.normal(0.012 * side, 0.025), rng.uniform(-0.085, 0.0 if over_mouth else 0.02), 0.0]
        )
        sway, phase = rng.normal(0, 0.012), rng.uniform(0, 3)
        lock = rng.uniform(0.003, 0.011)
        for _ in range(int(rng.integers(16, 50))):
            t = np.linspace(0, rng.uniform(0.7, 1.05), 18)
            own = rng.normal(0, 1, 2)
            x = (
                root[0]
                + (tip[0] - root[0]) * t
                + sway * np.sin(2.5 * t + phase)
                + lock * own[0] * (0.5 + 0.5 * t)
            )
            y = root[1] + (tip[1] - root[1]) * t + 0.002 * own[1]
            bulge = (
                face.nose_tip[2]
                - 0.012
                - 6.5 * x**2
                - 3.0 * np.clip(y - 0.03, 0, None) ** 2
                + 0.008 * np.sin(3 * t)
            )
            z = bulge + 0.003 * own[1] + 0.35 * np.clip(0.02 - np.abs(x), 0, None)
            middle = np.stack([x, y, z], 1)
            half = rng.uniform(0.0005, 0.0010) * np.sqrt(np.clip(1.02 - t / t[-1], 0.05, 1))
            mesh = np.stack([middle - half[:, None] * [1, 0, 0], middle + half[:, None] * [1, 0, 0]], 1)
            mesh[:, :, 2] += rng.uniform(-0.3, 0.3) * (mesh[:, :, 0] - x[:, None])
            shade = np.clip(0.5 + 0.25 * rng.normal(), 0.02, 0.98)
            strips.append((mesh.reshape(-1, 3), faces, np.stack([np.full(36, shade), uv[:, 1]], 1)))
    size = 36
    number = np.concatenate([strip[1] + size * k for k, strip in enumerate(strips)])
    tones = np.linspace(0.55, 1.6, 32)[None, :, None] * np.linspace(0.9, 1.1, 32)[:, None, None]
    texture = linear_light(np.clip(colour * tones, 0, 1))
    hair = Surface.of(
        np.concatenate([strip[0] for strip in strips]),
        number.astype(np.int64),
        np.concatenate([strip[2] for strip in strips]),
        texture,
        gloss=0.3,
        opacity=0.9,
        two_sided=True,
    )
    return Occluder("hair", True, False, np.zeros(3), 0.0, np.array([0.0, 1.0, 0.0]), (hair,), fine=True)


def _head_radius(face: FaceShape, angles: F64, heights: F64) -> F64:
    """Distance (H, A) of the head's surface from its vertical axis in metres, by angle from the front and by height."""
    axis = np.array([0.0, -0.07])  # x and z, about the middle of the skull
    skin = np.unique(face.faces)
    points = face.vertices[skin]
    flat = points[:, [0, 2]] - axis
    angle, radius = np.arctan2(*np.ascontiguousarray(flat[:, :2].T)), np.linalg.norm(flat, axis=1)
    out = np.zeros((len(heights), len(angles)))
    for i, height in enumerate(heights):
        for j, direction in enumerate(angles):
            apart = np.abs((angle - direction + np.pi) % (2 * np.pi) - np.pi)
            near = (apart < 0.22) & (np.abs(points[:, 1] - height) < 0.014)
            out[i, j] = radius[near].max() if near.any() else 0.0
    return out
