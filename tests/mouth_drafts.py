"""A small head of rings around a mouth, for tests of the open head's mouth that don't need anny."""

import numpy as np

from avface.head.open.draft import Draft
from avface.head.open.mouth.jaw import JAW_UNITS
from avface.head.open.mouth.rings import INNER
from avface.head.open.mouth.sealing import SHUT_UNITS

COLUMNS = 32
SKIN_RINGS = 26
NAMES = (*JAW_UNITS, "mouthClose", "tongueOut", "mouthFunnel", *SHUT_UNITS)


def ring_draft() -> Draft:
    """Lips 48 mm wide that part by up to 1.5 mm, a sloping face around them, a bag behind, and a tongue."""
    angle = np.pi - 2 * np.pi * np.arange(COLUMNS) / COLUMNS  # from the right corner over the upper lip
    rows = []
    for ring in range(-INNER, SKIN_RINGS + 1):
        out = max(ring, 0)
        x = (0.024 + 0.0009 * out - 0.0012 * min(ring, 0)) * np.cos(angle)
        half = 0.0004 + 0.0014 * (out - 1) if out else 0.0015 - 0.002 * ring
        y = -0.073 + half * np.sin(angle)
        forward = 0.104 + 0.0022 * min(out, 4) - 0.0005 * max(out - 4, 0)
        rows.append(np.stack([x, y, forward - 9 * x**2 + 0.006 * min(ring, 0)], 1))
    points = np.concatenate(rows)
    k, after = np.arange(COLUMNS), (np.arange(COLUMNS) + 1) % COLUMNS
    quads, parts = [], []
    for number in range(len(rows) - 1):
        a, b = number * COLUMNS, (number + 1) * COLUMNS
        quads.append(np.stack([a + k, a + after, b + after, b + k], 1))
        parts += ["mouth_cavity" if number < INNER else "skin"] * COLUMNS
    across = np.arange(1, COLUMNS // 2)
    cap = np.stack([across - 1, (COLUMNS - across + 1) % COLUMNS, COLUMNS - across, across], 1)
    cap[0] = [0, COLUMNS - 1, 1, 1]
    quads.append(cap)
    parts += ["mouth_cavity"] * len(cap)
    tube, tube_quads = _tongue()
    quads.append(tube_quads + len(points))
    parts += ["tongue"] * len(tube_quads)
    points = np.concatenate([points, tube])
    rng = np.random.default_rng(0)
    shape = np.stack([0.05 * points, 0.002 * np.sin(points * 60 + 1), rng.normal(0, 0.0005, points.shape)])
    expression = np.zeros((len(NAMES), *points.shape))
    low = np.clip((-0.07 - points[:, 1]) / 0.01, 0, 1)[:, None]
    expression[0] = low * [0.0, -0.028, -0.029]
    expression[1] = low * [0.0, 0.0, 0.008]
    expression[2] = low * [0.007, 0.0, 0.0]
    expression[3] = -expression[2]
    pull = np.exp(-(((points - points[INNER * COLUMNS + COLUMNS // 2]) / 0.02) ** 2).sum(1))[:, None]
    expression[NAMES.index("mouthSmileLeft")] = pull * [0.005, 0.004, -0.012]
    expression[NAMES.index("mouthDimpleLeft")] = (points[:, 1:2] > -0.073) * pull * [0.0, 0.004, 0.0]
    expression[NAMES.index("mouthRollUpper")] = (1 - low) * [0.0, -0.004, -0.006]
    all_quads = np.concatenate(quads)
    flat = np.stack([np.linspace(0, 1, len(points))] * 2, 1)
    weights = np.zeros((len(points), 4))
    weights[:, 1] = 1.0
    skin = np.zeros(len(points), bool)
    skin[all_quads[np.array(parts) == "skin"]] = True
    return Draft(
        template=points,
        shape=shape,
        expression=expression,
        expression_names=NAMES,
        quads=all_quads,
        parts=np.array(parts),
        uv=flat,
        uv_quads=all_quads,
        skin_weights=weights,
        regions={"lips": skin},
        eye_centres=np.zeros((4, 2, 3)),
    )


def _tongue() -> tuple[np.ndarray, np.ndarray]:
    angle = 2 * np.pi * np.arange(8) / 8
    rings = [
        np.stack([0.02 * np.cos(angle), -0.077 + 0.008 * np.sin(angle), np.full(8, z)], 1)
        for z in np.linspace(0.02, 0.09, 12)
    ]
    k, after = np.arange(8), (np.arange(8) + 1) % 8
    quads = [np.stack([8 * n + k, 8 * n + after, 8 * n + 8 + after, 8 * n + 8 + k], 1) for n in range(11)]
    return np.concatenate(rings), np.concatenate(quads)
