"""Small heads of known anatomy: two eyeballs, each with a lid of one sphere around it, and a closed box as a face."""

import numpy as np

from avface.geometry.mesh import triangulate
from avface.head.model import HeadModel, LandmarkEmbedding

RADIUS = 0.012
EYES = np.array([[0.032, 0.0, 0.08], [-0.032, 0.0, 0.08]])
SEGMENTS = 32
"""Vertices of a ring around an eyeball's axis."""
CORNER = np.radians(55)
"""Azimuth of both corners of an eye."""


def grid(first, rows, columns, flipped):
    """Quads of a grid of vertices from number `first` on."""
    number = first + np.arange(rows * columns).reshape(rows, columns)
    quads = np.stack([number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1]], -1).reshape(-1, 4)
    return quads[:, ::-1] if flipped else quads


def on_sphere(azimuth, elevation, radius):
    cos = np.cos(elevation)
    return radius * np.stack([np.sin(azimuth) * cos, np.sin(elevation), np.cos(azimuth) * cos], -1)


def opening(azimuth):
    """Elevation of the upper lid's edge, and minus that of the lower one's, of the open eye: 4.2 mm in the middle."""
    return 0.35 * np.clip(1 - (azimuth / CORNER) ** 2, 0, None)


def lids(rings=8, columns=41, gap=0.0003, thickness=0.0015, shut=0.0):
    """Vertices (2, rings + 1, columns, 3) of an upper and a lower lid around the origin: an inner edge, an outer one,
    and rings of skin. shut: share of the opening, which the upper lid covers alone."""
    azimuth = np.linspace(-1.3 * CORNER, 1.3 * CORNER, columns)
    edge = opening(azimuth)
    both = []
    for side in (1, -1):
        elevations = np.linspace(0, 1, rings)[:, None] * (0.9 - edge) + edge
        if side > 0:
            elevations = elevations - 2 * shut * edge * np.linspace(1, 0, rings)[:, None]
        outer = on_sphere(azimuth, side * elevations, RADIUS + gap + thickness)
        inner = on_sphere(azimuth, side * elevations[:1], RADIUS + gap)
        both.append(np.concatenate([inner, outer]))
    return np.stack(both)


def ball(segments=SEGMENTS, rings=24, iris=0.00585):
    """Points (N, 3), quads and names of the parts of an eyeball around the origin, the pole in front."""
    edge = np.arcsin(iris / RADIUS)
    polar = np.concatenate(
        [[1e-3], np.linspace(0.15, edge, 5), np.linspace(edge, np.pi - 1e-3, rings - 5)[1:]]
    )
    around = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    p, a = np.meshgrid(polar, around, indexing="ij")
    points = RADIUS * np.stack([np.sin(p) * np.cos(a), np.sin(p) * np.sin(a), np.cos(p)], -1).reshape(-1, 3)
    number = np.arange(len(polar) * segments).reshape(-1, segments)
    following = np.roll(number, -1, 1)
    quads = np.stack([number[:-1], number[1:], following[1:], following[:-1]], -1)
    parts = np.repeat(np.array(["pupil", *["iris"] * 4, *["eye"] * (len(polar) - 6)]), segments)
    return points, quads.reshape(-1, 4), parts


def small_head(blink_to=1.0, lid_gap=0.0003, extra_units=()):
    """A head with the units eyeBlinkLeft, eyeBlinkRight and `extra_units` of no effect; blink_to: share of the opening
    that the upper lid covers at weight 1."""
    points, quads, parts, moved = [], [], [], []
    total = 0
    open_lids, shut_lids = lids(gap=lid_gap), lids(gap=lid_gap, shut=blink_to)
    for eye, (name, centre) in enumerate(zip(("left", "right"), EYES, strict=True)):
        for side in range(2):
            rows, columns = open_lids[side].shape[:2]
            points.append(open_lids[side].reshape(-1, 3) + centre)
            quads.append(grid(total, rows, columns, flipped=side == 1))
            parts += ["skin"] * len(quads[-1])
            move = np.zeros((2, rows * columns, 3))
            move[eye] = (shut_lids[side] - open_lids[side]).reshape(-1, 3)
            moved.append(move)
            total += rows * columns
        own, own_quads, own_parts = ball()
        points.append(own + centre)
        quads.append(own_quads + total)
        parts += [f"{name}_{part}" for part in own_parts]
        moved.append(np.zeros((2, len(own), 3)))
        total += len(own)
    template, quads, parts = np.concatenate(points), np.concatenate(quads), np.array(parts)
    names = tuple(dict.fromkeys(parts.tolist()))
    basis = np.concatenate([np.concatenate(moved, 1), np.zeros((len(extra_units), total, 3))])
    weights = np.zeros((3, total))
    skin_weights = np.zeros((total, 4))
    skin_weights[:, 0] = 1
    for eye, name in enumerate(("left", "right")):
        rows = np.unique(quads[np.char.startswith(parts, name)])
        poles = np.concatenate([rows[:SEGMENTS], rows[-SEGMENTS:]])  # whose mean is the centre
        weights[1 + eye, poles] = 1 / len(poles)
        skin_weights[rows] = np.eye(4)[2 + eye]
    shape = 0.05 * template[None]
    triangles = triangulate(quads)
    landmarks = np.zeros((478, 3), np.int64)
    for number, eye, azimuth in ((33, 1, -CORNER), (133, 1, CORNER), (362, 0, -CORNER), (263, 0, CORNER)):
        place = EYES[eye] + on_sphere(np.array(azimuth), np.array(0.0), RADIUS)
        landmarks[number] = np.linalg.norm(template - place, axis=1).argmin()
    corner = np.tile([1.0, 0.0, 0.0], (478, 1))
    embedding = LandmarkEmbedding(landmarks, corner, np.ones(478), np.zeros((0, 478, 3)))
    return HeadModel(
        "small",
        template=template,
        shape_basis=shape,
        expression_basis=basis,
        expression_names=("eyeBlinkLeft", "eyeBlinkRight", *extra_units),
        joint_names=("neck", "left_eye", "right_eye"),
        joint_parents=(-1, 0, 0),
        joint_regressor=weights,
        skin_weights=skin_weights,
        faces=triangles,
        uv=np.zeros((1, 2)),
        uv_faces=np.zeros_like(triangles),
        part_names=names,
        face_parts=np.repeat([names.index(part) for part in parts], 2),
        regions={"face": np.zeros(total, bool)},
        embeddings={"mediapipe478": embedding},
        gaze_range=np.full(4, 0.2),
        size_component=0,
    )


def box(low, high):
    """Points (8, 3) and faces (12, 3) of a box, seen counter-clockwise from outside."""
    points = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
    points = np.asarray(low) + points * (np.asarray(high) - np.asarray(low))
    quads = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    return points, triangulate(quads)
