"""A small draft with two eyes for tests: two masks of rings like those of MakeHuman's mesh around its eyes."""

import numpy as np

from avface.head.open.draft import Draft

UNITS = ("Blink", "Wide", "Squint", "LookUp", "LookDown", "LookIn", "LookOut")
NAMES = (
    *(f"eye{unit}{side}" for unit in UNITS for side in ("Left", "Right")),
    "cheekSquintLeft",
    "cheekSquintRight",
)
COLUMNS = 28
SOCK = 4
SKIN = 13
CENTRE = np.array([0.031, 0.0, 0.079])


def eye_draft(seed: int = 0) -> Draft:
    """Two masks with a cavity behind each opening, component 0 the size, two random components and units."""
    rng = np.random.default_rng(seed)
    left, quads = _mask()
    template = np.concatenate([left, left * [-1, 1, 1]])
    count = len(left)
    quads = np.concatenate([quads, quads[:, ::-1] + count])
    smooth = rng.normal(0, 0.02, (2, 3, 3))
    moved = np.einsum("kij,vj->kvi", smooth, template - template.mean(0))
    shape = np.concatenate([0.06 * template[None], moved])
    centres = np.stack([CENTRE, CENTRE * [-1, 1, 1]])
    eye_centres = np.concatenate([centres[None], 0.06 * centres[None], np.zeros((2, 2, 3))])
    eye_centres[2:] = np.einsum("kij,sj->ksi", smooth, centres - template.mean(0))
    expression = np.zeros((len(NAMES), *template.shape))
    expression[NAMES.index("cheekSquintLeft"), :count] = [0, 0.001, 0.001]
    return Draft(
        template=template,
        shape=shape,
        expression=expression,
        expression_names=NAMES,
        quads=quads,
        parts=np.full(len(quads), "skin"),
        uv=template[:, :2].copy(),
        uv_quads=quads,
        skin_weights=np.tile([0, 1.0, 0, 0], (len(template), 1)),
        regions={"eyelids": np.linalg.norm(template - CENTRE, axis=1) < 0.03},
        eye_centres=eye_centres,
    )


def _mask():
    """Vertices and quads of the left half: rings from the pole of the cavity outwards."""
    turn = 2 * np.pi * (np.arange(COLUMNS) + 0.1) / COLUMNS
    across, up = np.cos(turn), np.sin(turn)
    rings = []
    for k in range(SOCK):  # a bowl behind the opening
        angle = np.radians((140, 115, 90, 70)[k])
        rings.append(
            0.0165 * np.stack([np.sin(angle) * across, np.sin(angle) * up, 0 * up + np.cos(angle)], 1)
        )
    for k in range(SKIN):
        width, height = 0.0125 + 0.0012 * k, 0.0044 + 0.0013 * k
        x, y = width * across, height * up - 0.0015
        front = 0.0155 + 0.0008 * min(k, 2) - 0.025 * (x / 0.03) ** 2 - 0.0002 * max(k - 3, 0)
        rings.append(np.stack([x, y, front], 1))
    points = np.concatenate([[[0, 0, -0.0165]], *rings]) + CENTRE
    k, after = np.arange(COLUMNS), (np.arange(COLUMNS) + 1) % COLUMNS
    quads = [np.stack([0 * k, 1 + after, 1 + k, 1 + k], 1)]
    for r in range(len(rings) - 1):
        a, b = 1 + r * COLUMNS, 1 + (r + 1) * COLUMNS
        quads.append(np.stack([a + k, a + after, b + after, b + k], 1))
    return points, np.concatenate(quads)


def off_the_ball(draft: Draft, vertices, rows, shape, side=0, radius=0.012):
    """Metres of vertices outside a person's sclera."""
    centre = draft.eye_centres[0, side] + np.tensordot(shape, draft.eye_centres[1:, side], 1)
    return np.linalg.norm(vertices[rows] - centre, axis=1) - radius * (1 + 0.06 * shape[0])


def lids_apart(vertices, neutral, rings):
    """(columns,) metres from the lower to the upper lid's inner edge, negative where they overlap."""
    edge = rings.margin[0]
    half = len(edge) // 2
    upper, lower = edge[1:half], edge[:half:-1]
    way = neutral[upper] - neutral[lower]
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    return ((vertices[upper] - vertices[lower]) * way).sum(1)
