"""The lip region of a head: its vertices, their falloff weights, and which lip they belong to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avface.arrays import F64, Int
from avface.errors import AvfaceError
from avface.geometry.interpolation import smoothstep
from avface.head.model import HeadModel
from avface.head.regions import distance_to_line
from avface.head.schemes import (
    LIP_CORNERS_OUTER,
    LIPS_INNER_LOWER,
    LIPS_INNER_UPPER,
    LIPS_OUTER,
    LIPS_OUTER_LOWER,
    LIPS_OUTER_UPPER,
)

REACH = 0.008
"""Geodesic width in metres of the band of skin around the lips over which the falloff goes to 0."""
CORNER = (0.33, 0.43)
"""Shares of jawOpen's largest displacement between which a vertex belongs to both lips: the corners of the mouth."""


@dataclass(frozen=True, eq=False)
class LipRegion:
    """The N vertices that lip offsets move; all measures are taken on the head's mean face.

    vertices (N,) numbers of vertices, ascending; falloff (N,) 1 on the lips, smoothly to 0 at the region's edge; lower
    (N,) 0 on the upper lip and the skin above it, 1 on the lower one; across (N,) from -1 at the right corner of the
    mouth to 1 at the left one, beyond it outside; outward (N,) 0 where the lips meet, 1 at the vermilion border, above
    1 on the skin, below 0 on the inner side; faces (F, 3) the skin of the region, numbered within it.
    """

    vertices: Int
    falloff: F64
    lower: F64
    across: F64
    outward: F64
    faces: Int

    def __len__(self) -> int:
        """Number of vertices N."""
        return len(self.vertices)


def lip_region(head: HeadModel) -> LipRegion:
    """The lips of a head and a band of skin around them.

    Raises:
        AvfaceError: if the head has no region `lips`, no landmarks `mediapipe478` or no unit `jawOpen`.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import dijkstra

    if "lips" not in head.regions or "jawOpen" not in head.expression_names:
        raise AvfaceError(
            f"{head.name}: this head has no region 'lips' or no unit 'jawOpen'; lips are refined on the open head"
        )
    embedding = head.embedding("mediapipe478")
    template = head.template.cpu().double().numpy()
    points = embedding.on(template)
    faces = head.faces.cpu().numpy()[head.face_parts == head.part_names.index("skin")]
    edges = np.unique(
        np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1), axis=0
    )
    length = np.linalg.norm(template[edges[:, 0]] - template[edges[:, 1]], axis=1)
    graph = coo_matrix((length, (edges[:, 0], edges[:, 1])), (head.num_vertices,) * 2).tocsr()
    lips = np.flatnonzero(head.regions["lips"])
    away = dijkstra(graph, directed=False, indices=lips, min_only=True, limit=REACH)
    vertices = np.flatnonzero(away < REACH)
    place = template[vertices]

    jaw = head.expression_basis[head.expression_names.index("jawOpen")].cpu().double().numpy()[:, 1]
    share = -jaw[vertices] / max(float(-jaw[lips].min()), 1e-9)
    half = float(np.ptp(points[LIP_CORNERS_OUTER, 0]) / 2)
    middle = float(points[LIP_CORNERS_OUTER, 0].mean())
    numbers = np.full(head.num_vertices, -1)
    numbers[vertices] = np.arange(len(vertices))
    inside = numbers[faces]
    return LipRegion(
        vertices=vertices,
        falloff=smoothstep(0, 1, 1 - away[vertices] / REACH),
        lower=smoothstep(CORNER[0], CORNER[1], share),
        across=(place[:, 0] - middle) / half,
        outward=_outward(place, points),
        faces=inside[(inside >= 0).all(1)],
    )


def landmark_rows(head: HeadModel, region: LipRegion, landmarks: Int) -> F64:
    """Barycentric weights (L, N) that map the region's N vertices to L landmarks of `mediapipe478`.

    Raises:
        AvfaceError: if a landmark lies outside the region.
    """
    embedding = head.embedding("mediapipe478")
    triangles = embedding.triangles[landmarks]
    numbers = np.searchsorted(region.vertices, triangles).clip(max=len(region) - 1)
    if (region.vertices[numbers] != triangles).any():
        raise AvfaceError(f"{head.name}: landmarks of the lips lie off its region 'lips'; rebuild this head")
    rows = np.zeros((len(landmarks), len(region)))
    np.add.at(rows, (np.arange(len(landmarks))[:, None], numbers), embedding.barycentric[landmarks])
    return rows


def _outward(place: F64, points: F64) -> F64:
    """See `LipRegion`; place (N, 3) of the vertices, points (478, 3) of the landmarks."""
    meeting = (points[LIPS_INNER_UPPER] + points[LIPS_INNER_LOWER]) / 2
    corners = points[LIP_CORNERS_OUTER]
    meeting = np.concatenate([corners[:1], meeting, corners[1:]])
    to_meeting = distance_to_line(place, np.concatenate([meeting, meeting[::-1]]))
    to_border = distance_to_line(place, points[LIPS_OUTER])
    result = to_meeting / np.maximum(to_meeting + to_border, 1e-9)
    upper = np.concatenate([corners[:1], points[LIPS_OUTER_UPPER], corners[1:]])
    lower = np.concatenate([corners[:1], points[LIPS_OUTER_LOWER], corners[1:]])
    x, y = place[:, 0], place[:, 1]
    outside = (y > np.interp(x, upper[:, 0], upper[:, 1])) | (y < np.interp(x, lower[:, 0], lower[:, 1]))
    outside |= (x < corners[0, 0]) | (x > corners[1, 0])
    behind = place[:, 2] < np.interp(x, meeting[:, 0], meeting[:, 2]) - 0.001
    result[outside] = 1 + to_border[outside] / REACH
    inner = behind & ~outside
    result[inner] = -to_meeting[inner] / REACH
    return np.asarray(result)
