"""The mouth of the open head: lips that meet, jaw, teeth, gums, tongue and a closed cavity.

`mouth` comes before the units are corrected, `mouth_follows` after all units and correctives are there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.linalg import splu

from avface.arrays import F64, Bool, Int
from avface.errors import AvfaceError
from avface.geometry.interpolation import smoothstep
from avface.head.open.draft import Draft
from avface.head.open.teeth import ARCH, LOWER_TILT, OVERBITE, UPPER_TILT, Solid, arches

INNER, OUTER = 10, 10
"""Rings of vertices that follow the mouth's rim, into the cavity and outwards on the skin."""
CONTACT = 1
"""Ring on which the lips touch."""
LIP_GAP = 0.00012
"""What is left between the lips at rest, so that rounding doesn't let them through each other; metres."""
SHAPE_SHARES = (1.0, 0.9, 0.7)
"""How alike both lips move, under a shape component, on the ring of their contact and the next ones outwards."""
FOLLOWING = (0.95, 0.9, 0.8, 0.65, 0.45, 0.25, 0.1)
"""Share of the skin's displacement that the cavity's rings behind it take, from the rim inwards."""
LEAST_SPACING = 0.75
"""Least distance in height of the cavity's rings under a unit, as a share of that at rest."""
INWARDS = (0.2, 0.5, 0.8)
"""Share of the displacement of the cavity's rings towards the teeth, from the rim inwards, that flesh takes up by
getting thinner; the last one's for all further ones."""
SHAPE_FOLLOWING = (np.nan, 0.2, 0.4, 0.4, 0.2)
"""The same under a shape component; the first ring lies between the rim and the next one."""
CHIN_BULGE = 0.008
"""How far the skin between lower lip and chin comes forward with `mouthClose`; metres."""
FLESH = 0.006
"""Distance at which skin stops to displace the cavity behind it; metres."""
LIP_DEPTH = 0.004
"""Distance along z up to which lips that cross touch, rather than pass before each other; metres."""
TEETH_GAP = 0.0005
"""Least distance of lips and cheeks from the teeth under a unit; metres."""
TONGUE_SCALE = (0.68, 0.72, 0.75)
"""Size of the tongue, by axis, as a share of MakeHuman's."""
TONGUE_TIP = (0.0055, 0.0125)
"""Depth of the tip's underside below, and of the tip behind, the upper incisors' edge; metres."""
TONGUE_PATH = (
    # share of the length from the root; share of the way to the tip's place; height of the tongue's middle over the
    # lower incisors' edge and half its thickness there, metres
    (0.0, 0.0, 0.0, 0.0060),
    (0.3, 0.22, 0.0030, 0.0060),
    (0.5, 0.42, 0.0045, 0.0050),
    (0.65, 0.60, 0.0042, 0.0035),
    (0.8, 0.78, 0.0032, 0.0030),
    (0.9, 0.90, -0.0005, 0.0028),
    (1.0, 1.0, -0.0065, 0.0022),
)
JAW_UNITS = ("jawOpen", "jawForward", "jawLeft", "jawRight")
SHUT_UNITS = (
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthDimpleLeft",
    "mouthDimpleRight",
    "mouthPressLeft",
    "mouthPressRight",
    "mouthStretchLeft",
    "mouthStretchRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthPucker",
    "mouthLeft",
    "mouthRight",
    "cheekPuff",
)
"""Units that leave shut lips shut."""


@dataclass(frozen=True)
class MouthConfig:
    """Numbers of the mouth; metres and radians."""

    hinge: tuple[float, float] = (-0.035, 0.008)
    """Height and depth of the jaw's axis, before the ears' canals."""
    open_angle: float = np.deg2rad(22.5)
    """Rotation of the jaw about that axis at `jawOpen` 1."""
    open_slide: tuple[float, float] = (-0.0015, 0.008)
    """Displacement of the axis downwards and forwards at `jawOpen` 1: the jaw's heads slide on the skull."""
    corner_share: float = 0.38
    """Share of the jaw's displacement at the corners of the mouth."""
    lower_lip_share: float = 1.0
    """The same in the middle of the lower lip."""
    upper_lip_share: float = 0.05
    """The same in the middle of the upper lip."""
    corner_inwards: float = 0.0026
    """Displacement of the corners towards the middle at `jawOpen` 1."""
    shut_drop: float = 0.003
    """How much lower the lips meet at `jawOpen` 1 and `mouthClose` 1 than at rest."""
    teeth_behind: float = 0.0058
    """Depth of the upper incisors' edges behind the lips' contact, in the middle."""
    teeth_below: float = 0.0030
    """Height of the upper incisors' edges below the lips' contact."""
    wall_gap: float = 0.0012
    """Distance from the teeth to the inner side of lips and cheeks."""
    tongue_out: float = 0.020
    """How far the tip of the tongue stands before the lower lip at `tongueOut` 1."""

    def __post_init__(self) -> None:
        if not 0 < self.upper_lip_share < self.corner_share < self.lower_lip_share <= 1:
            raise AvfaceError(
                "shares of the jaw's displacement must rise from the upper lip over the corners to the lower lip"
            )


@dataclass(frozen=True, eq=False)
class Rings:
    """Loops of vertices around the mouth.

    loops (INNER + 1 + OUTER, N): row INNER + k is ring k: 0 where cavity and skin meet, positive on the skin, negative
    in the cavity. Column 0 is the right corner; columns then run over the upper lip to the left corner `left` and back
    over the lower lip.
    """

    loops: Int
    left: int

    def __getitem__(self, ring: int) -> Int:
        """(N,) vertices of a ring."""
        vertices: Int = self.loops[INNER + ring]
        return vertices

    @property
    def upper(self) -> Bool:
        """(N,) columns of the upper lip, without the corners."""
        column = np.arange(self.loops.shape[1])
        return (column > 0) & (column < self.left)

    @property
    def lower(self) -> Bool:
        """(N,) columns of the lower lip, without the corners."""
        return np.asarray(np.arange(self.loops.shape[1]) > self.left)


def mouth_rings(draft: Draft) -> Rings:
    """The rings of a draft's mouth.

    Raises:
        AvfaceError: if the mesh around the mouth isn't made of loops of the same number of vertices.
    """
    neighbours: list[set[int]] = [set() for _ in draft.template]
    for k in range(4):
        for a, b in draft.quads[:, [k, (k + 1) % 4]]:
            if a != b:
                neighbours[a].add(int(b))
                neighbours[b].add(int(a))
    cavity = {int(v) for v in draft.rows("mouth_cavity")}
    skin = {int(v) for v in draft.rows("skin")}
    rim = cavity & skin
    x, y = draft.template[:, 0], draft.template[:, 1]
    loop = [min(rim, key=lambda v: x[v])]
    following = max(neighbours[loop[0]] & rim, key=lambda v: y[v])
    while following != loop[0]:
        loop.append(following)
        (following,) = (neighbours[following] & rim) - {loop[-2]}
    if len(loop) != len(rim):
        raise AvfaceError("the mouth's rim isn't one loop")
    result = {0: loop}
    for side, sign, count in ((cavity, -1, INNER), (skin, 1, OUTER)):
        seen = set(loop)
        for k in range(1, count + 1):
            steps = [(neighbours[v] & side) - seen for v in result[sign * (k - 1)]]
            if any(len(step) != 1 for step in steps):
                raise AvfaceError(f"ring {sign * k} around the mouth isn't a loop")
            result[sign * k] = [next(iter(step)) for step in steps]
            seen |= set(result[sign * k])
    loops = np.array([result[k] for k in range(-INNER, OUTER + 1)])
    return Rings(loops, int(np.argmax(x[loops[INNER]])))


def mouth(draft: Draft, config: MouthConfig | None = None) -> Draft:
    """The draft with lips that meet, `jawOpen` and `mouthClose` anew, teeth, gums, and cavity and tongue fitted to
    them.

    Raises:
        AvfaceError: if the mesh has no rings around the mouth.
    """
    config = config or MouthConfig()
    rings = mouth_rings(draft)
    draft = _with_cavity(seal(draft, rings), rings, config)
    draft = _with_jaw(draft, rings, config)
    draft = _with_teeth(draft, rings, config)
    return mouth_follows(_with_tongue(draft, rings, config), config)


def seal(draft: Draft, rings: Rings, units: Iterable[str] = ()) -> Draft:
    """The draft with lips that meet at rest for any shape weights, and under the given units."""
    closing, firm = _Closing(draft, rings), _Closing(draft, rings, SHAPE_SHARES)
    expression = draft.expression.copy()
    for name in units:
        expression[draft.unit(name)] += closing.correction(expression[draft.unit(name)])
    template = draft.template + closing.correction(draft.template)
    for ring in (CONTACT, CONTACT + 1):
        template[rings[ring], 1] += LIP_GAP / 2 * (1.0 * rings.upper - rings.lower)
    return replace(
        draft,
        template=template,
        shape=draft.shape + firm.correction(draft.shape),
        expression=expression,
    )


class _Closing:
    """The linear map from positions or offsets of the lips to the corrections that bring both lips onto one curve.

    shares: how much of the difference is taken, on the ring of the contact and on those before it; at the corners all
    of it is taken on the first two.
    """

    CORNER = (0.72, 0.9)
    """Shares of the mouth's half width between which the ring before the contact begins to touch as well."""
    REACH = (-3, 8)
    """Rings at which the corrections are 0."""

    def __init__(self, draft: Draft, rings: Rings, shares: tuple[float, ...] = (1.0, 0.0)) -> None:
        fixed: dict[int, F64] = {}  # vertex: row over all vertices of the rings
        columns = np.arange(rings.loops.shape[1])
        numbers = range(CONTACT, CONTACT + len(shares))
        self._sources = np.concatenate([rings[ring] for ring in numbers])
        count = len(columns)
        for number, ring in enumerate(numbers):
            x = draft.template[rings[ring], 0]
            half = np.abs(x[[0, rings.left]]).mean()
            for column in columns:
                row = np.zeros(len(shares) * count)
                for order in _lip_orders(rings):
                    row[number * count + order] += _interpolation(x[column], x[order]) / 2
                row[number * count + column] -= 1
                corner = float(smoothstep(*self.CORNER, abs(x[column]) / half)) if number == 1 else 0.0
                share = max(shares[number], corner)
                if share > 0:
                    fixed[int(rings[ring][column])] = share * row
        low, high = self.REACH
        inside = [rings[k] for k in range(low + 1, high)]
        zero = np.concatenate([rings[low], rings[high]])
        self._moved, self._matrix = _harmonic(draft, np.concatenate(inside), fixed, zero)

    def correction(self, points: F64) -> F64:
        """Corrections (..., V, 3) of points or offsets (..., V, 3)."""
        result = np.zeros_like(points)
        result[..., self._moved, :] = self._matrix @ points[..., self._sources, :]
        return result


def _lip_orders(rings: Rings) -> tuple[Int, Int]:
    """Columns of the upper and of the lower lip from the right corner to the left."""
    columns = np.arange(rings.loops.shape[1])
    return columns[: rings.left + 1], np.concatenate([[0], columns[: rings.left : -1], [rings.left]])


def _interpolation(at: float, knots: F64) -> F64:
    """Weights of the knots (rising) for a linear interpolation at a place."""
    return np.array([np.interp(at, knots, unit) for unit in np.eye(len(knots))])


def _laplacian(draft: Draft, vertices: Int) -> csr_matrix:
    """Graph Laplacian (V, V) of the quads' edges within some vertices."""
    edges = np.concatenate([draft.quads[:, [k, (k + 1) % 4]] for k in range(4)])
    chosen = np.zeros(len(draft.template), bool)
    chosen[vertices] = True
    edges = np.unique(np.sort(edges[chosen[edges].all(1) & (edges[:, 0] != edges[:, 1])], 1), axis=0)
    size = (len(draft.template),) * 2
    links = coo_matrix((np.ones(len(edges)), edges.T), size)
    links = (links + links.T).tocsr()
    return csr_matrix(coo_matrix((np.asarray(links.sum(1)).ravel(), [np.arange(size[0])] * 2), size) - links)


def _harmonic(
    draft: Draft, vertices: Int, fixed: dict[int, F64], zero: Int, power: int = 1
) -> tuple[Int, F64]:
    """Vertices that move and a matrix from sources to them: fixed rows, 0 at `zero`, smooth in between.

    power: 1 harmonic, 2 biharmonic.
    """
    laplacian = _laplacian(draft, np.concatenate([vertices, zero, np.array(sorted(fixed))]))
    operator = laplacian
    for _ in range(power - 1):
        operator = operator @ laplacian
    given = np.array(sorted(fixed))
    free = np.setdiff1d(vertices, np.concatenate([given, zero]))
    rows = np.array([fixed[int(v)] for v in given])
    solved = splu(operator[free][:, free].tocsc()).solve(-(operator[free][:, given] @ rows))
    return np.concatenate([given, free]), np.concatenate([rows, solved])


# ---------------------------------------------------------------- jaw


@dataclass(frozen=True, eq=False)
class JawMotion:
    """The linear displacement of a rigid jaw: offset (3,) + matrix (3, 3) @ point."""

    matrix: F64
    offset: F64

    def __call__(self, points: F64) -> F64:
        """Displacements (..., 3) at points (..., 3)."""
        result: F64 = points @ self.matrix.T + self.offset
        return result


def open_motion(config: MouthConfig | None = None) -> JawMotion:
    """The jaw's displacement at `jawOpen` 1: rigid at that weight, along the chord below it."""
    config = config or MouthConfig()
    cos, sin = np.cos(config.open_angle), np.sin(config.open_angle)
    matrix = np.array([[0.0, 0, 0], [0, cos - 1, -sin], [0, sin, cos - 1]])
    hinge = np.array([0.0, *config.hinge])
    return JawMotion(matrix, np.array([0.0, *config.open_slide]) - matrix @ hinge)


def jaw_motions(draft: Draft, rings: Rings, config: MouthConfig) -> dict[str, JawMotion]:
    """The jaw's displacement under each of its units: of `jawOpen` by its axis, of the others as the chin moves."""
    motions = {"jawOpen": open_motion(config)}
    chin = _chin(draft, rings)
    for name in JAW_UNITS[1:]:
        motions[name] = JawMotion(np.zeros((3, 3)), draft.expression[draft.unit(name), chin].mean(0))
    return motions


def _chin(draft: Draft, rings: Rings) -> Int:
    """Skin over the front of the jaw."""
    low = draft.template[rings[OUTER][rings.lower]]
    middle = low[np.argmin(np.abs(low[:, 0]))]
    away = np.linalg.norm(draft.template - (middle - [0, 0.016, 0]), axis=1)
    skin = np.zeros(len(draft.template), bool)
    skin[draft.rows("skin")] = True
    return np.flatnonzero(skin & (away < 0.012))


def _lip_shares(draft: Draft, rings: Rings, config: MouthConfig) -> tuple[F64, F64]:
    """Share (N,) of the jaw's displacement of each column of the lips, and how much of a corner it is, (N,).

    Elliptic on either lip, so that the opening is an ellipse.
    """
    x = draft.template[rings[CONTACT], 0]
    middle = (x[0] + x[rings.left]) / 2
    across = np.clip(np.abs(x - middle) / ((x[rings.left] - x[0]) / 2), 0, 1)
    inner = np.where(rings.upper, config.upper_lip_share, config.lower_lip_share)
    round_off = np.sqrt(1 - across**2)
    shares = config.corner_share + (inner - config.corner_share) * round_off
    return shares, np.sign(x - middle) * across**3


def _with_jaw(draft: Draft, rings: Rings, config: MouthConfig) -> Draft:
    """The draft with `jawOpen` by the jaw's rotation and `mouthClose` against it."""
    motion = open_motion(config)
    moved = motion(draft.template)
    unit, close = draft.unit("jawOpen"), draft.unit("mouthClose")
    old = draft.expression[unit]
    chin = _chin(draft, rings)
    # MakeHuman's distribution of the movement over cheeks and neck, by its share of the chin's.
    length = np.linalg.norm(moved, axis=1).clip(1e-3)
    share = (old * moved).sum(1) / length**2
    share = share / share[chin].mean()
    share = np.clip(share, 0.0, 1.0)
    lips, corner = _lip_shares(draft, rings, config)
    fixed = {}
    for ring in range(0, 5):
        for column, vertex in enumerate(rings[ring]):
            fixed[int(vertex)] = np.array([lips[column], corner[column]])
    outer = np.concatenate([rings[k] for k in range(0, OUTER + 1)])
    rows = draft.rows("skin")
    ring = np.full(len(draft.template), OUTER + 1)
    for k in range(OUTER, -1, -1):
        ring[rings[k]] = k
    band = np.flatnonzero(_hops(draft, rings[OUTER], rows) <= 4)
    inside = np.unique(np.concatenate([outer, band]))
    edge = np.flatnonzero(_hops(draft, inside, rows) == 1)
    second = np.flatnonzero(_hops(draft, inside, rows) == 2)
    kept = np.concatenate([edge, second])
    for vertex in kept:
        fixed[int(vertex)] = np.array([share[vertex], 0.0])
    vertices, values = _harmonic(draft, np.concatenate([inside, kept]), fixed, np.zeros(0, int), 2)
    inwards = np.zeros(len(share))
    share[vertices], inwards[vertices] = values.T
    skin = np.zeros((len(share), 1))
    skin[rows] = 1
    opening = share[:, None] * moved
    opening += _throat(draft, share, moved)
    opening[:, 0] -= config.corner_inwards * inwards
    opening *= skin
    expression = draft.expression.copy()
    expression[unit] = opening
    expression[close] = _closing_unit(draft, rings, config, opening, inside, kept)
    return replace(draft, expression=expression)


def _throat(draft: Draft, share: F64, moved: F64) -> F64:
    """Displacements (V, 3) of the skin under the chin in addition to share (V,) of the jaw's (V, 3): it gives way
    downwards, so that it doesn't fold."""
    height, depth = draft.template[:, 1], draft.template[:, 2]
    chin = draft.template[_chin(draft, mouth_rings(draft))].mean(0)
    under = smoothstep(0.0, 0.02, chin[2] - 0.008 - depth) * smoothstep(-0.007, 0.004, chin[1] - height)
    part = np.clip(share, 1e-6, 1)
    result = (under * (part**0.75 - part))[:, None] * moved
    result[:, 1] -= under * 0.005 * 4 * part * (1 - part)
    return result


def _closing_unit(
    draft: Draft, rings: Rings, config: MouthConfig, opening: F64, inside: Int, kept: Int
) -> F64:
    """`mouthClose` (V, 3): takes `jawOpen` back on the lips, but for a drop of their line."""
    fixed = {}
    for ring in range(0, 8):
        for vertex in rings[ring]:
            fixed[int(vertex)] = np.array([1.0])
    vertices, values = _harmonic(draft, inside, fixed, kept, 2)
    share = np.zeros((len(opening), 1))
    share[vertices] = values
    drop = config.shut_drop * np.array([0.0, -1.0, -0.6])
    # Without a bulge the skin between lip and chin would be stretched over the lower teeth.
    below = np.clip(opening[:, 1:2] / opening[:, 1].min(), 0, 1) ** 2
    bulge = np.maximum(4 * share * (1 - share), 0) * below * np.array([0.0, 0.0, CHIN_BULGE])
    return share * (drop - opening) + bulge


def _hops(draft: Draft, start: Int, within: Int) -> Int:
    """Number of edges (V,) from the nearest start vertex over some vertices; a large number elsewhere."""
    edges = np.concatenate([draft.quads[:, [k, (k + 1) % 4]] for k in range(4)])
    allowed = np.zeros(len(draft.template), bool)
    allowed[within] = True
    edges = edges[allowed[edges].all(1)]
    edges = np.concatenate([edges, edges[:, ::-1]])
    result = np.full(len(draft.template), len(draft.template))
    result[start] = 0
    for hop in range(1, 12):
        near = edges[result[edges[:, 0]] == hop - 1, 1]
        result[near] = np.minimum(result[near], hop)
    return result


# ---------------------------------------------------------------- teeth, cavity, tongue


def _bite(draft: Draft, rings: Rings, config: MouthConfig) -> F64:
    """(3,) the upper central incisors' edge."""
    contact = draft.template[rings[CONTACT]]
    middle = contact[np.argmin(np.abs(contact[:, 0]) + rings.lower)]
    return np.array([0.0, middle[1] - config.teeth_below, middle[2] - config.teeth_behind])


HANDLES = (0, 1, 5, 9)
"""Rings whose displacement under a shape component teeth and cavity take part in."""


def _lip_fit(draft: Draft, rings: Rings, offsets: F64) -> tuple[F64, F64]:
    """Similarity that moves teeth and cavity as offsets (..., V, 3) move the lips: matrix (..., 3, 3), offset
    (..., 3)."""
    handles = np.concatenate([rings[k] for k in HANDLES])
    points = draft.template[handles]
    centre = points.mean(0)
    local = points - centre
    moves = np.concatenate([np.eye(3)[None], _TURNS])  # scale, then turns about the axes
    design = np.stack([(local @ move.T).ravel() for move in moves], 1)
    moved = offsets[..., handles, :]
    shift = moved.mean(-2)
    flat = (moved - shift[..., None, :]).reshape(*moved.shape[:-2], -1)
    matrix = np.tensordot(flat @ np.linalg.pinv(design).T, moves, 1)
    return matrix, shift - matrix @ centre


_TURNS = np.array(
    [
        [[0, 0, 0], [0, 0, -1], [0, 1, 0]],
        [[0, 0, 1], [0, 0, 0], [-1, 0, 0]],
        [[0, -1, 0], [1, 0, 0], [0, 0, 0]],
    ]
)
"""Displacements by small turns about the three axes."""


def _with_teeth(draft: Draft, rings: Rings, config: MouthConfig) -> Draft:
    """The draft with teeth and gums."""
    bite = _bite(draft, rings, config)
    matrix, offset = _lip_fit(draft, rings, draft.shape)
    for arch, name in zip(arches(), ("upper", "lower"), strict=True):
        for solid, part in ((arch.teeth, f"{name}_teeth"), (arch.gums, f"{name}_gums")):
            draft = _with_solid(draft, solid, part, bite, matrix, offset)
    return draft


def _with_solid(draft: Draft, solid: Solid, part: str, origin: F64, matrix: F64, offset: F64) -> Draft:
    points = solid.points * 1e-3 + origin
    shape = np.einsum("sij,vj->svi", matrix, points) + offset[:, None]
    weights = np.zeros((len(points), draft.skin_weights.shape[1]))
    weights[:, 1] = 1.0
    return draft.with_parts(
        points,
        solid.quads,
        np.full(len(solid.quads), part),
        solid.flat,
        solid.quads,
        shape=shape,
        skin_weights=weights,
    )


def _with_cavity(draft: Draft, rings: Rings, config: MouthConfig) -> Draft:
    """The draft with a cavity that lies close around teeth, gums and tongue."""
    bite = _bite(draft, rings, config)
    rim = draft.template[rings[0]]
    x = rim[:, 0]
    across = np.clip(x / np.where(x > 0, x[rings.left], -x[0]), -1, 1)
    up = np.where(rings.upper, 1.0, -1.0) * np.sqrt(1 - across**2)
    up[[0, rings.left]] = 0.0
    template = draft.template.copy()
    # half width, height above and depth below the bite, distance behind the wall in the middle above and below, and at
    # the corners behind those of the lips; metres
    rows = (
        (0.0258, 0.0075, 0.0045, 0.0, 0.0, 0.006),
        (0.0275, 0.0130, 0.0078, 0.0, 0.0, 0.013),
        (0.0290, 0.0170, 0.0106, 0.001, 0.0005, 0.020),
        (0.0302, 0.0205, 0.0132, 0.006, 0.006, 0.027),
        (0.0310, 0.0235, 0.0180, 0.015, 0.017, 0.034),
        (0.0315, 0.0240, 0.0215, 0.026, 0.026, 0.041),
        (0.0315, 0.0240, 0.0235, 0.038, 0.038, 0.048),
        (0.0310, 0.0235, 0.0235, 0.052, 0.052, 0.057),
        (0.0270, 0.0200, 0.0200, 0.068, 0.068, 0.068),
        (0.0160, 0.0120, 0.0130, 0.076, 0.076, 0.076),
    )
    arch_x = ARCH[:, 0] * 1e-3 + np.interp(ARCH[:, 0], [0, 15, 21], [0.0, 0.0035, 0.0055]) + config.wall_gap
    arch_z = ARCH[:, 1] * 1e-3
    wall = bite[2] + config.wall_gap + 0.0012
    corner = wall - rim[[0, rings.left], 2].mean()
    for ring, (half, high, low, above, below, beside) in enumerate(rows, start=1):
        back = np.where(up > 0, above, below)
        place = np.stack([half * across, bite[1] + np.where(up > 0, high, low) * up, np.zeros(len(up))], 1)
        front = np.interp(np.abs(place[:, 0]), arch_x, arch_z, right=arch_z[-1])
        height = place[:, 1] - bite[1]
        lean = np.where(up < 0, 0.0012 + LOWER_TILT * (0.002 - height), UPPER_TILT * height)
        behind = np.minimum(front * (1 - back / 0.08) + back, corner + beside)
        place[:, 2] = wall - np.minimum(lean, 0.008) * (1 - np.abs(across) ** 3) - behind
        template[rings[-ring]] = place
    deep = np.concatenate([rings[-k] for k in range(1, INNER + 1)])
    others = np.setdiff1d(draft.rows("mouth_cavity"), np.concatenate([deep, rings[0]]))
    if len(others):
        raise AvfaceError("the mouth's cavity has vertices beyond its rings")
    return replace(draft, template=template)


def _with_tongue(draft: Draft, rings: Rings, config: MouthConfig) -> Draft:
    """The draft with MakeHuman's tongue narrowed and placed between the arches, and `tongueOut` over the lower lip."""
    rows = draft.rows("tongue")
    bite = _bite(draft, rings, config)
    old = draft.template[rows]
    tip, root = old[:, 2].max(), old[:, 2].min()
    along = (old[:, 2] - root) / (tip - root)
    front_low = old[along > 0.95, 1].min()
    rest = np.stack(
        [
            old[:, 0] * TONGUE_SCALE[0],
            bite[1] - TONGUE_TIP[0] + TONGUE_SCALE[1] * (old[:, 1] - front_low),
            bite[2] - TONGUE_TIP[1] + TONGUE_SCALE[2] * (old[:, 2] - tip),
        ],
        1,
    )
    knots = np.linspace(0.05, 1.0, 12)
    near = [np.abs(along - knot) < 0.09 for knot in knots]
    top = np.interp(along, knots, [rest[rows_, 1].max() for rows_ in near])
    bottom = np.interp(along, knots, [rest[rows_, 1].min() for rows_ in near])
    middle, half = (top + bottom) / 2, np.maximum((top - bottom) / 2, 0.002)
    lip = draft.template[rings[4]][rings.lower]
    out = lip[:, 2].max() + config.tongue_out
    edge = bite[1] + OVERBITE * 1e-3
    share, depth, height, thick = np.array(TONGUE_PATH).T
    start = rest[:, 2].min()
    goal = np.empty_like(rest)
    goal[:, 0] = rest[:, 0]
    goal[:, 2] = start + (out - start) * np.interp(along, share, depth)
    centre = edge + np.interp(along, share, height)
    blend = smoothstep(0.15, 0.5, along)
    goal[:, 1] = (1 - blend) * rest[:, 1] + blend * (
        centre + (rest[:, 1] - middle) / half * np.interp(along, share, thick)
    )
    template, expression, shape = draft.template.copy(), draft.expression.copy(), draft.shape.copy()
    template[rows] = rest
    expression[:, rows] = 0.0
    expression[draft.unit("tongueOut")] = 0.0
    expression[draft.unit("tongueOut"), rows] = goal - rest
    matrix, offset = _lip_fit(draft, rings, draft.shape)
    shape[:, rows] = np.einsum("sij,vj->svi", matrix, rest) + offset[:, None]
    return replace(draft, template=template, expression=expression, shape=shape)


def mouth_follows(draft: Draft, config: MouthConfig | None = None) -> Draft:
    """The draft with teeth, gums, tongue and cavity moved as jaw and lips move, under every component, unit and
    corrective."""
    config = config or MouthConfig()
    rings = mouth_rings(draft)
    names = draft.expression_names
    draft = seal(draft, rings, SHUT_UNITS)
    with_jaw, with_rim = _Following(draft, rings, (np.nan,) * 3), _Following(draft, rings, (0.6,))
    with_skin, with_shape = _Following(draft, rings, FOLLOWING), _Following(draft, rings, SHAPE_FOLLOWING)
    motions = jaw_motions(draft, rings, config)
    inwards = _inwards(draft, rings, config)
    lower = draft.rows("lower_teeth", "lower_gums")
    tongue = draft.rows("tongue")
    upper = draft.rows("upper_teeth", "upper_gums")
    expression = draft.expression.copy()
    for number, name in enumerate(names):
        jaw = motions.get(name)
        expression[number, upper] = 0.0
        expression[number, lower] = jaw(draft.template[lower]) if jaw else 0.0
        if name != "tongueOut":
            expression[number, tongue] = jaw(draft.template[tongue]) if jaw else 0.0
        deep = jaw(draft.template) if jaw else np.zeros_like(draft.template)
        way = {"jawOpen": with_jaw, "mouthClose": with_rim}.get(name, with_skin)
        way.apply(expression[number], np.zeros_like(deep), deep, None if jaw else inwards)
    for number, name in enumerate(names):
        if name in ("mouthClose", "tongueOut") or (
            name.endswith("Right") and name not in ("jawRight", "mouthRight")
        ):
            continue
        if not expression[number, rings[0]].any():
            continue
        paired = name.endswith("Left") and name not in ("jawLeft", "mouthLeft")
        sides = [number, names.index(name.replace("Left", "Right"))] if paired else [number]
        size = np.linalg.norm(expression[sides], axis=2, keepdims=True) ** 2 + 1e-12
        for _ in range(3):
            moved = expression[sides].sum(0)
            push = _apart(draft, rings, moved)
            push += _spread(draft, rings, moved + push)
            push += _out_of_teeth(draft, rings, config, moved + push, motions.get(name))
            expression[sides] += size / size.sum(0) * push
    shape = draft.shape.copy()
    matrix, offset = _lip_fit(draft, rings, shape)
    deep = np.einsum("sij,vj->svi", matrix, draft.template) + offset[:, None]
    for number in range(len(shape)):
        with_shape.apply(shape[number], deep[number], deep[number])
    pairs = draft.pair_offsets.copy()
    for each in pairs:
        with_skin.apply(each, np.zeros_like(each), np.zeros_like(each), inwards)
    return replace(draft, expression=expression, shape=shape, pair_offsets=pairs)


def _out_of_teeth(
    draft: Draft, rings: Rings, config: MouthConfig, offsets: F64, jaw: JawMotion | None
) -> F64:
    """Corrections (V, 3) that bring lips and cavity, displaced by offsets (V, 3), before the teeth."""
    bite = _bite(draft, rings, config)
    result = np.zeros_like(offsets)
    rows = np.concatenate([rings[k] for k in range(-3, 4)])
    rest = draft.template[rows]
    places = 1e3 * (rest + offsets[rows] - bite)
    back = 1e3 * jaw(rest + offsets[rows]) if jaw else np.zeros_like(places)
    for arch, moved, side in zip(arches(), (np.zeros_like(places), back), (1.0, -1.0), strict=True):
        distance, front = arch.surface.outside(places - moved)
        level = side * ((places - moved)[:, 1] - (0.0 if side > 0 else OVERBITE))
        near = smoothstep(-3.0, -1.0, level) * smoothstep(-10.0, -7.0, -level)
        depth = np.maximum(1e3 * TEETH_GAP - distance, 0) * near
        result[rows] += 1e-3 * depth[:, None] * front
    return result


def _apart(draft: Draft, rings: Rings, offsets: F64) -> F64:
    """Corrections (V, 3) that part lips which, displaced by offsets (V, 3), go through each other."""
    result = np.zeros_like(offsets)
    upper, lower = _lip_orders(rings)
    for ring in range(CONTACT, CONTACT + 4):
        rows = rings[ring]
        place = draft.template[rows] + offsets[rows]
        for own, other, side in ((upper, lower, 1.0), (lower, upper, -1.0)):
            opposite = [np.interp(place[own, 0], place[other, 0], place[other, k]) for k in (1, 2)]
            into = side * (opposite[0] - place[own, 1])
            facing = np.abs(opposite[1] - place[own, 2]) < LIP_DEPTH
            result[rows[own], 1] += side * 0.5 * np.maximum(into, 0) * facing
    return result


def _spread(draft: Draft, rings: Rings, offsets: F64) -> F64:
    """Corrections (V, 3) that keep the cavity's rings apart in height, where offsets (V, 3) would fold its walls."""
    result = np.zeros_like(offsets)
    rest = draft.template[:, 1]
    side = np.where(rings.upper, 1.0, -1.0)
    for ring in range(0, 7):
        near, far = rings[-ring], rings[-ring - 1]
        spacing = side * (rest[far] - rest[near])
        moved = spacing + side * (offsets[far, 1] + result[far, 1] - offsets[near, 1] - result[near, 1])
        wide = spacing > 0.0015
        result[far, 1] += side * wide * np.maximum(LEAST_SPACING * spacing - moved, 0)
    return result


class _Following:
    """Moves the cavity with the lips, the upper arch and the jaw.

    shares: how much of the displacement of the skin before them the rings take from the rim inwards, the rest is that
    of the arches; nan: as harmonic as between their neighbours.
    """

    def __init__(self, draft: Draft, rings: Rings, shares: tuple[float, ...]) -> None:
        count = rings.loops.shape[1]
        up = _upness(draft, rings)
        self._rim = rings[0]
        self._sources = np.concatenate([rings[k] for k in range(OUTER + 1)])
        size = len(self._sources)
        fixed = {int(v): np.eye(size + 2)[column] for column, v in enumerate(rings[0])}
        for ring, share in enumerate(shares + (0.0,) * (INNER - len(shares)), start=1):
            if np.isnan(share):
                continue
            for column, vertex in enumerate(rings[-ring]):
                row = np.zeros(size + 2)
                before = column + count * np.arange(OUTER + 1)
                away = draft.template[self._sources[before]] - draft.template[vertex]
                near = np.exp(-0.5 * ((away**2).sum(1) - (away**2).sum(1).min()) / FLESH**2)
                row[before] = share * near / near.sum()
                row[size], row[size + 1] = (1 - share) * up[column], (1 - share) * (1 - up[column])
                fixed[int(vertex)] = row
        inside = np.concatenate([rings[-k] for k in range(1, INNER + 1)])
        self._moved, matrix = _harmonic(draft, inside, fixed, np.zeros(0, int))
        self._from_skin, self._from_arches = matrix[:, :size], matrix[:, size:]

    def apply(self, offsets: F64, upper: F64, lower: F64, inwards: F64 | None = None) -> None:
        """Sets the cavity's offsets within (V, 3) from the skin's, and from those of arch and jaw (V, 3).

        inwards (V, 3): directions in which the cavity doesn't follow, since teeth are there.
        """
        moved = self._from_skin @ offsets[self._sources]
        moved += self._from_arches[:, :1] * upper[self._moved]
        moved += self._from_arches[:, 1:] * lower[self._moved]
        if inwards is not None:
            towards = inwards[self._moved]
            moved -= np.maximum((moved * towards).sum(1, keepdims=True), 0) * towards
        rim = np.isin(self._moved, self._rim)
        offsets[self._moved[~rim]] = moved[~rim]


def _inwards(draft: Draft, rings: Rings, config: MouthConfig) -> F64:
    """Horizontal directions (V, 3) to the arch of teeth, of the cavity's vertices, of length sqrt(`INWARDS`); 0
    elsewhere."""
    result = np.zeros_like(draft.template)
    bite = _bite(draft, rings, config)
    surface = arches()[0].surface
    for ring in range(1, INNER + 1):
        rows = rings[-ring]
        front = surface.outside(1e3 * (draft.template[rows] - bite))[1]
        result[rows] = -front * INWARDS[min(ring, len(INWARDS)) - 1] ** 0.5
    return result


def _upness(draft: Draft, rings: Rings) -> F64:
    """Share (N,) of the upper arch in the movement of the cavity's columns; the rest is the jaw's."""
    ring = draft.template[rings[-6]]
    middle = (ring[:, 1].max() + ring[:, 1].min()) / 2
    half = np.ptp(ring[:, 1]) / 2
    return smoothstep(-0.6, 0.6, (ring[:, 1] - middle) / half)
