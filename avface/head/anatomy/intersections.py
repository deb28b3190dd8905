"""Where the surface of a head goes through itself: skin through skin, lips through teeth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from avface.arrays import F64, Bool, Int
from avface.head.anatomy import parts
from avface.head.anatomy.poses import joint_centres
from avface.head.anatomy.surface import distance_to_triangles, face_normals, vertex_normals, winding_numbers
from avface.head.model import HeadModel

INSET = 1e-4
"""Metres behind the skin at which it must be inside the head once, not twice: surfaces that only touch are sound."""
SEEN_DEPTH = 0.004
"""Metres up to which a depth is measured; deeper ones count as that."""
ALONG = 0.5
"""Cosine to the normal of a place from which a face belongs to the same side of a fold."""
MOVED = 2e-5
"""Metres by which a vertex must move to be tested again."""
NEAR = 0.004
"""Metres around moved vertices in which others are tested again."""
BEHIND_EYES = 0.05
"""Metres behind the eyes' centres up to which skin and mouth are tested."""
BEHIND_INCISORS = 0.02
"""Metres behind the foremost tooth up to which teeth and lips are tested: further back they can't be seen."""

LIPS, LIDS, SKIN, TEETH = ZONES = ("lips and mouth", "lids", "other skin", "teeth")


@dataclass(frozen=True, eq=False)
class Solid:
    """The parts of a head that must not go through each other.

    flesh (F, 3): faces of skin and mouth's cavity, closed in front; teeth (G, 3): faces; probes (N, 3): rows of the
    vertices whose mean is a place where the flesh is tested, thrice the same one or the corners of a face; zone (N,):
    number of `ZONES`; tooth_rows (M,): vertices of the front teeth.
    """

    flesh: Int
    teeth: Int
    probes: Int
    zone: npt.NDArray[np.int64]
    tooth_rows: Int


def find_solid(head: HeadModel) -> Solid:
    """The flesh and the teeth of a head."""
    template = head.template.cpu().double().numpy()
    flesh, teeth = parts.flesh(head), parts.teeth(head)
    front = template[:, 2] > _eye_depth(head, template) - BEHIND_EYES
    for name in ("ears", "scalp", "neck"):
        front &= ~head.regions.get(name, np.zeros(len(front), bool))
    lips = head.regions.get("lips", np.zeros(len(front), bool)).copy()
    lips[head.faces.cpu().numpy()[parts.inside(head)[head.face_parts]]] = True
    lids = head.regions.get("eyelids", np.zeros(len(front), bool))
    rows = np.unique(flesh)
    close = flesh[front[flesh].all(1) & (lips | lids)[flesh].any(1)]  # elsewhere the vertices suffice
    probes = np.concatenate([np.repeat(rows[front[rows], None], 3, 1), close])
    zone = np.where(lips[probes].any(1), ZONES.index(LIPS), ZONES.index(SKIN))
    zone[lids[probes].any(1)] = ZONES.index(LIDS)
    return Solid(flesh, teeth, probes, zone, front_teeth(template, teeth))


def front_teeth(points: F64, teeth: Int) -> Int:
    """Vertices of teeth (G, 3) at most `BEHIND_INCISORS` behind the foremost one, of points (V, 3)."""
    rows = np.unique(teeth)
    front: Int = rows[points[rows, 2] > points[rows, 2].max(initial=-np.inf) - BEHIND_INCISORS]
    return front


def _eye_depth(head: HeadModel, template: F64) -> float:
    """z of the eyes' centres, of the foremost fifth of the head without eyes."""
    eyes = [head.joint_names.index(name) for name in ("left_eye", "right_eye") if name in head.joint_names]
    if not eyes:
        return float(np.quantile(template[:, 2], 0.8))
    return float(joint_centres(head, np.zeros(head.num_shape))[eyes, 2].mean())


def depths(solid: Solid, posed: F64, before: F64 | None = None) -> dict[str, tuple[float, F64]]:
    """How deep the head goes through itself, by `ZONES`: metres, and the place (3,) of the deepest point.

    posed (V, 3) vertices; before: vertices of the same person in a pose that was tested already, so that only what
    moved since is tested.
    """
    probes, zone, teeth = solid.probes, solid.zone, solid.tooth_rows
    if before is not None:
        probes_near, teeth_near = _near_moved(solid, posed, before)
        probes, zone, teeth = probes[probes_near], zone[probes_near], teeth[teeth_near]
    places = posed[probes].mean(1)
    single = probes[:, 0] == probes[:, 1]
    normals = vertex_normals(posed, solid.flesh)[probes[:, 0]]
    normals[~single] = face_normals(posed, probes[~single])
    result = {name: (0.0, np.full(3, np.nan)) for name in ZONES}

    around = winding_numbers(places - INSET * normals, posed, solid.flesh)
    inside = (around < 0) | (around > 1)
    depth = _depths(places[inside], normals[inside], probes[inside], posed, solid.flesh)
    for k, name in enumerate(ZONES):
        _deepest(result, name, depth[zone[inside] == k], places[inside][zone[inside] == k])
    if len(solid.teeth):
        bitten = places[:, 2] > posed[solid.tooth_rows, 2].min()
        bitten[bitten] = winding_numbers(places[bitten], posed, solid.teeth) != 0
        depth = _depths(places[bitten], None, None, posed, solid.teeth)
        _deepest(result, TEETH, depth, places[bitten])
        hidden = winding_numbers(posed[teeth], posed, solid.flesh) != 0
        depth = _depths(posed[teeth][hidden], None, None, posed, solid.flesh)
        _deepest(result, TEETH, depth, posed[teeth][hidden])
    return result


def _deepest(result: dict[str, tuple[float, F64]], name: str, depth: F64, places: F64) -> None:
    if len(depth) and depth.max() > result[name][0]:
        result[name] = float(depth.max()), places[depth.argmax()]


def _near_moved(solid: Solid, posed: F64, before: F64) -> tuple[Bool, Bool]:
    """Which probes (N,) and vertices of teeth (M,) moved, or have something near that moved."""
    from scipy.spatial import cKDTree

    moved = np.abs(posed - before).max(1) > MOVED
    used = np.unique(np.concatenate([solid.flesh.ravel(), solid.tooth_rows]))
    there = posed[used[moved[used]]]
    near = moved.copy()
    if len(there):
        others = used[~moved[used]]
        near[others] = cKDTree(there).query(posed[others], distance_upper_bound=NEAR)[0] < np.inf
    return near[solid.probes].any(1), near[solid.tooth_rows]


def _depths(places: F64, normals: F64 | None, corners: Int | None, posed: F64, faces: Int) -> F64:
    """Distances (N,) of places (N, 3) inside a surface from it, at most SEEN_DEPTH.

    With normals (N, 3) and corners (N, 3), vertices: the places are of the same surface. Faces at these vertices don't
    count, and those that look along the normals only if there are no others, as in a fold.
    """
    from scipy.spatial import cKDTree

    result = np.full(len(places), SEEN_DEPTH)
    if not len(places):
        return result
    triangles = posed[faces]
    centres = triangles.mean(1)
    reach = np.sqrt(((triangles - centres[:, None]) ** 2).sum(2)).max(1)
    low, high = places.min(0) - SEEN_DEPTH, places.max(0) + SEEN_DEPTH
    kept = np.flatnonzero(((centres + reach[:, None] > low) & (centres - reach[:, None] < high)).all(1))
    if not len(kept):
        return result
    tree = cKDTree(centres[kept])
    lists: Sequence[Sequence[int]] = tree.query_ball_point(
        places, SEEN_DEPTH + float(np.quantile(reach[kept], 0.9))
    )
    count = np.array([len(each) for each in lists])
    place = np.repeat(np.arange(len(places)), count)
    face = kept[np.concatenate([np.asarray(each, np.int64) for each in lists])]
    distance = distance_to_triangles(places[place], triangles[face])
    if normals is not None and corners is not None:
        across = face_normals(posed, faces[kept])[np.searchsorted(kept, face)]
        along = np.einsum("nk,nk->n", across, normals[place]) > ALONG
        own = (faces[face][:, :, None] == corners[place][:, None, :]).any((1, 2))
        folded = result.copy()
        np.minimum.at(folded, place[~own], distance[~own])
        place, distance = place[~own & ~along], distance[~own & ~along]
        np.minimum.at(result, place, distance)
        return np.where(result < SEEN_DEPTH, result, folded)
    np.minimum.at(result, place, distance)
    return result
