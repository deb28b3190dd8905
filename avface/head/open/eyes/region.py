"""The loops of vertices around the open head's eyes: found, cut free from the cavity behind the eyeball, refined."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from avface.arrays import F64, Bool, Int
from avface.errors import AvfaceError
from avface.geometry.mesh import open_loops
from avface.head.open.draft import Draft

INNER_RINGS = 2
"""Rings of the lids' inner surface that are kept behind the margin."""
REFINED_RINGS = 5
"""Rings from the margin outwards whose columns are halved."""
SKIN_RINGS = 11
"""Rings from the margin outwards that are closed loops in MakeHuman's mesh: to the brow and on to the cheek."""
COLUMNS = 28
"""Vertices of each loop of MakeHuman's mesh."""
SIDES = (1.0, -1.0)
"""Sign of x of the left and the right eye."""


@dataclass(frozen=True, eq=False)
class LidRings:
    """The rings around one eye's opening: `INNER_RINGS` of the lids' inner surface, inwards to outwards, then the
    margin's inner edge, its middle and its outer edge, then the skin to the brow and cheek.

    Each ring (K,) starts at the outer corner and goes over the upper lid to the inner corner, and back over the lower
    one: column k of the upper lid faces column K - k of the lower one. Rings as far as the skin's `REFINED_RINGS` have
    twice as many columns as those beyond, which start at or half a column before the corner.
    """

    rings: tuple[Int, ...]
    sign: float
    """1 for the left eye, -1 for the right one."""

    @property
    def margin(self) -> tuple[Int, Int, Int]:
        """Inner edge, middle and outer edge of the lids' margin, each (K,)."""
        inner, middle, outer = self.rings[INNER_RINGS : INNER_RINGS + 3]
        return inner, middle, outer

    @property
    def skin(self) -> tuple[Int, ...]:
        """The rings outside the margin."""
        return self.rings[INNER_RINGS + 3 :]

    @property
    def columns(self) -> int:
        """Number of columns K of the margin."""
        return len(self.rings[0])


def cut_and_refine(draft: Draft) -> Draft:
    """The draft without the cavities behind the eyeballs, and with twice the columns around the lids' openings.

    Raises:
        AvfaceError: if the loops around an eye aren't those of MakeHuman's mesh.
    """
    loops = [_loops_of_base(draft, side) for side in range(2)]
    kept_quads = np.ones(len(draft.quads), bool)
    for rings in loops:
        allowed = np.concatenate(rings)
        kept_quads &= ~_inside(draft, rings[0], allowed)
    used = np.unique(draft.quads[kept_quads])
    edges = np.concatenate(
        [
            np.stack([ring, np.roll(ring, -1), np.roll(ring, 1), np.roll(ring, -2)], 1)
            for rings in loops
            for ring in rings[: INNER_RINGS + REFINED_RINGS]
        ]
    )
    straight = np.zeros(len(edges), bool)
    for start in range(0, len(edges), COLUMNS):  # no curve is drawn round a corner
        for corner in (0, COLUMNS // 2):
            straight[start + np.array([corner - 1, corner]) % COLUMNS] = True
    return _with_midpoints(draft, kept_quads, used, edges, straight)


def lid_rings(draft: Draft) -> tuple[LidRings, LidRings]:
    """The rings of the left and right eye of a draft that `cut_and_refine` made.

    Raises:
        AvfaceError: if there is no open boundary behind an eye's lids.
    """
    skin = draft.quads[draft.parts == "skin"]
    neighbours = _neighbours(skin)
    together = _sharing_quads(skin)
    boundary = [loop for loop in open_loops(skin) if len(loop) == 2 * COLUMNS]
    result = []
    for side, sign in enumerate(SIDES):
        centre = draft.eye_centres[0, side]
        distances = [np.linalg.norm(draft.template[loop].mean(0) - centre) for loop in boundary]
        if not distances or min(distances) > 0.02:
            raise AvfaceError("no open boundary behind the lids: cut_and_refine makes it")
        ring = boundary[int(np.argmin(distances))]
        rings = [ring]
        seen = set(ring.tolist())
        for _ in range(INNER_RINGS + SKIN_RINGS - 1):
            outside = {v for u in rings[-1] for v in together[u]} - seen
            following: list[int] = []
            for vertex in rings[-1]:
                after = [v for v in neighbours[vertex] if v in outside]
                if len(after) == 1:
                    following.append(after[0])
            rings.append(np.array(following))
            seen |= set(following)
        fine = INNER_RINGS + REFINED_RINGS
        first = neighbours[int(rings[fine][0])] & set(rings[fine - 1].tolist())
        odd = int(np.flatnonzero(np.isin(rings[fine - 1], list(first)))[0]) % 2
        rings[:fine] = [np.roll(ring, -odd) for ring in rings[:fine]]
        result.append(_ordered(rings, draft.template[rings[INNER_RINGS]], sign))
    return result[0], result[1]


def _ordered(rings: list[Int], margin: F64, sign: float) -> LidRings:
    """Rings that start at the outer corner and go over the upper lid."""
    count = len(margin)
    across = sign * margin[:, 0]
    high, low = np.argmax(margin[:, 1]), np.argmin(margin[:, 1])
    outer = int(np.argmax(across))
    if (high - outer) % count > (low - outer) % count:
        flipped = [np.roll(ring[::-1], 1) for ring in rings]
        return _ordered(flipped, np.roll(margin[::-1], 1, 0), sign)
    k = np.arange(1, count // 2)
    starts = [(outer + o) % count for o in range(-count // 6, count // 6 + 1)]
    costs = [np.abs(across[(s + k) % count] - across[(s - k) % count]).sum() for s in starts]
    start = starts[int(np.argmin(costs))]
    shifted = []
    for ring in rings:
        step = count // len(ring)
        shifted.append(np.roll(ring, -(start // step)))
    return LidRings(tuple(shifted), sign)


def _loops_of_base(draft: Draft, side: int) -> list[Int]:
    """Closed loops (28,) of MakeHuman's mesh, ordered as `LidRings`'s."""
    skin = draft.quads[draft.parts == "skin"]
    centre = draft.eye_centres[0, side]
    near = set(np.flatnonzero(np.linalg.norm(draft.template - centre, axis=1) < 0.034).tolist())
    neighbours, together = _neighbours(skin), defaultdict(set)
    for number, quad in enumerate(skin.tolist()):
        for a, b in zip(quad, quad[1:] + quad[:1], strict=True):
            together[a, b].add(number)
            together[b, a].add(number)

    def walk(start: int, following: int) -> list[int] | None:
        loop = [start, following]
        while len(loop) <= COLUMNS:
            before, vertex = loop[-2:]
            ahead = [
                u
                for u in neighbours[vertex]
                if u != before and not together[before, vertex] & together[vertex, u]
            ]
            if len(neighbours[vertex]) != 4 or len(ahead) != 1:
                return None
            if ahead[0] == start:
                return loop
            loop.append(ahead[0])
        return None

    found: dict[frozenset[int], Int] = {}
    for vertex in sorted(near & set(skin.ravel().tolist())):
        for other in sorted(neighbours[vertex]):
            walked = walk(vertex, other)
            if walked is not None and len(walked) == COLUMNS:
                found.setdefault(frozenset(walked), np.array(walked))
    loops = [loop for loop in found.values() if _encircles(draft.template[loop], centre)]
    areas = [abs(_area(draft.template[loop])) for loop in loops]
    if not loops:
        raise AvfaceError("no loops of vertices around an eye: not MakeHuman's mesh")
    order = [loops[int(np.argmin(areas))]]  # the margin's inner edge has the smallest opening
    around = _sharing_quads(skin)

    def next_to(loop: Int, taken: list[Int]) -> list[Int]:
        reached = {v for u in loop.tolist() for v in around[u]}
        return [c for c in loops if set(c.tolist()) <= reached and not any(c is t for t in taken)]

    ends = next_to(order[0], order)
    if len(ends) != 2:
        raise AvfaceError("the loops of vertices around an eye aren't those of MakeHuman's mesh")
    outwards = max(ends, key=lambda c: np.linalg.norm(draft.template[c] - centre, axis=1).mean())
    inwards = ends[0] if outwards is ends[1] else ends[1]
    chain = [order[0], outwards]
    while len(chain) < SKIN_RINGS:
        following = next_to(chain[-1], [*chain, inwards])
        if len(following) != 1:
            raise AvfaceError("the loops of vertices around an eye aren't those of MakeHuman's mesh")
        chain.append(following[0])
    chain.insert(0, inwards)
    while len(chain) < SKIN_RINGS + INNER_RINGS:
        following = next_to(chain[0], chain)
        chain.insert(0, following[0])
    aligned = [chain[0]]
    for loop in chain[1:]:
        members = set(loop.tolist())
        aligned.append(np.array([next(iter(neighbours[v] & members)) for v in aligned[-1].tolist()]))
    rings = _ordered(aligned, draft.template[aligned[INNER_RINGS]], SIDES[side])
    return list(rings.rings)


def _with_midpoints(draft: Draft, kept_quads: Bool, used: Int, edges: Int, straight: Bool) -> Draft:
    """The kept quads with a vertex in the middle of each edge (start, end, before start, after end)."""
    before = len(draft.template)
    number = np.full(before, -1)
    number[used] = np.arange(len(used))
    count = len(used) + len(edges)
    weights = np.where(straight[:, None], [0.5, 0.5, 0, 0], np.array([9, 9, -1, -1]) / 16)
    rows = np.concatenate([np.arange(len(used)), np.repeat(len(used) + np.arange(len(edges)), 4)])
    columns = np.concatenate([used, edges.ravel()])
    matrix = sp.csr_matrix(
        (np.concatenate([np.ones(len(used)), weights.ravel()]), (rows, columns)), shape=(count, before)
    )
    halves = sp.csr_matrix(
        (
            np.concatenate([np.ones(len(used)), np.full(2 * len(edges), 0.5)]),
            (
                np.concatenate([np.arange(len(used)), np.repeat(len(used) + np.arange(len(edges)), 2)]),
                np.concatenate([used, edges[:, :2].ravel()]),
            ),
        ),
        shape=(count, before),
    )

    def moved(values: F64) -> F64:
        """(..., V, 3) to the new vertices."""
        flat = np.moveaxis(values, -2, 0)
        result = matrix @ flat.reshape(before, -1)
        return np.moveaxis(result.reshape(count, *flat.shape[1:]), 0, -2)

    middle = {}
    for index, (start, end) in enumerate(edges[:, :2].tolist()):
        middle[start, end] = middle[end, start] = len(used) + index
    uv, uv_middle = [*draft.uv], dict[tuple[int, int], int]()
    quads: list[list[int]] = []
    uv_quads: list[list[int]] = []
    parts = []
    for index in np.flatnonzero(kept_quads):
        quad, uv_quad = draft.quads[index].tolist(), draft.uv_quads[index].tolist()
        split = [i for i in range(4) if (quad[i], quad[(i + 1) % 4]) in middle]
        renumbered = [int(number[v]) for v in quad]
        if not split:
            quads.append(renumbered)
            uv_quads.append(uv_quad)
            parts.append(draft.parts[index])
            continue
        points, uv_points = [], []
        for i in split:
            a, b = uv_quad[i], uv_quad[(i + 1) % 4]
            key = (min(a, b), max(a, b))
            if key not in uv_middle:
                uv_middle[key] = len(uv)
                uv.append((draft.uv[a] + draft.uv[b]) / 2)
            points.append(middle[quad[i], quad[(i + 1) % 4]])
            uv_points.append(uv_middle[key])
        i = split[0]
        for target, corners, (first, *rest) in (
            (quads, renumbered, points),
            (uv_quads, uv_quad, uv_points),
        ):
            q = [corners[(i + j) % 4] for j in range(4)]
            if rest:
                target += [[q[0], first, rest[0], q[3]], [first, q[1], q[2], rest[0]]]
            else:
                target += [[first, q[1], q[2], q[2]], [first, q[2], q[3], q[3]], [first, q[3], q[0], q[0]]]
        parts += [draft.parts[index]] * (2 if len(split) == 2 else 3)
    used_uv, renumbered_uv = np.unique(np.array(uv_quads), return_inverse=True)
    return replace(
        draft,
        template=moved(draft.template),
        shape=moved(draft.shape),
        expression=moved(draft.expression),
        quads=np.array(quads),
        parts=np.array(parts),
        uv=np.array(uv)[used_uv],
        uv_quads=renumbered_uv.reshape(-1, 4),
        skin_weights=halves @ draft.skin_weights,
        regions={
            name: np.asarray(halves @ mask.astype(float) > 0.75) for name, mask in draft.regions.items()
        },
        pair_offsets=moved(draft.pair_offsets) if len(draft.pairs) else draft.pair_offsets,
    )


def _inside(draft: Draft, ring: Int, allowed: Int) -> Bool:
    """Quads of the cavity behind a ring (28,): all that are reached from it without crossing the allowed vertices."""
    skin = np.flatnonzero(draft.parts == "skin")
    around = _sharing_quads(draft.quads[skin])
    rim = set(ring.tolist())
    reached = {v for u in rim for v in around[u]} - set(allowed.tolist())
    front = set(reached)
    while front:
        front = {v for u in front for v in around[u]} - reached - rim
        reached |= front
    if len(reached) > len(draft.template) // 4:
        raise AvfaceError("the cavity behind an eyeball isn't closed: not MakeHuman's mesh")
    inside: Bool = np.isin(draft.quads, list(reached)).any(1)
    return inside


def _neighbours(quads: Int) -> dict[int, set[int]]:
    result: dict[int, set[int]] = defaultdict(set)
    for quad in quads.tolist():
        for a, b in zip(quad, quad[1:] + quad[:1], strict=True):
            if a != b:
                result[a].add(b)
                result[b].add(a)
    return result


def _sharing_quads(quads: Int) -> dict[int, set[int]]:
    result: dict[int, set[int]] = defaultdict(set)
    for quad in quads.tolist():
        for vertex in quad:
            result[vertex].update(quad)
    return result


def _encircles(points: F64, centre: F64) -> bool:
    """Whether a loop (N, 3), seen from the front, goes once around a place a little below the eye's centre."""
    flat = points[:, :2] - centre[:2] - [0, -0.0017]
    after = np.roll(flat, -1, 0)
    turns = np.arctan2(flat[:, 0] * after[:, 1] - flat[:, 1] * after[:, 0], (flat * after).sum(1))
    return bool(abs(turns.sum()) > np.pi)


def _area(points: F64) -> float:
    """Signed area of a loop seen from the front, in square metres."""
    after = np.roll(points, -1, 0)
    return float((points[:, 0] * after[:, 1] - points[:, 1] * after[:, 0]).sum() / 2)
