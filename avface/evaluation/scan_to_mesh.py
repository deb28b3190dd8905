"""Scan-to-mesh distance between a scanned and a reconstructed face: the protocol of the NoW challenge in numpy.

N scan vertices, V vertices and F triangles of the prediction. Inputs in metres, distances in millimetres.
Source: Sanyal et al., "Learning to Regress 3D Face Shape and Expression from an Image without 3D Supervision" (CVPR
        2019), and its `now_evaluation`: crop, similarity from seven landmarks, refinement, scan-to-mesh distances.
        Unlike there, the alignment is never a reflection.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avface.arrays import F64, Floats, Int
from avface.geometry.alignment import rigid_align

NOW_LANDMARKS = np.array([36, 39, 42, 45, 33, 48, 54])
"""Of iBUG's 68: right eye outer and inner, left eye inner and outer, nose bottom, mouth right and left."""

_CANDIDATES = 10
"""Number of triangles with the nearest centroids that are searched for a point's nearest surface point."""
_ITERATIONS = 60
_TOLERANCE = 1e-7
"""Convergence: minimum decrease of the root mean square distance in metres."""


@dataclass(frozen=True, eq=False)
class Surface:
    """A triangle mesh with nearest point queries. vertices (V, 3), triangles (F, 3)."""

    vertices: F64
    triangles: Int

    def nearest(self, points: Floats) -> tuple[F64, F64]:
        """Nearest surface point (N, 3) to each point (N, 3), and the unit normal (N, 3) of its triangle.

        Only the triangles with the nearest centroids are searched, which is exact for triangles of similar size.
        """
        from scipy.spatial import cKDTree

        corners = self.vertices[self.triangles]
        count = min(_CANDIDATES, len(corners))
        _, near = cKDTree(corners.mean(1)).query(points, k=count)
        near = near.reshape(len(points), count)
        target = np.asarray(points, np.float64)
        best = np.full(len(target), np.inf)
        place, which = np.zeros_like(target), np.zeros(len(target), np.int64)
        for column in near.T:
            found = _nearest_in_triangle(target, corners[column])
            distance = ((found - target) ** 2).sum(1)
            closer = distance < best
            best[closer], place[closer], which[closer] = distance[closer], found[closer], column[closer]
        a, b, c = corners[which].transpose(1, 0, 2)
        normal = np.cross(b - a, c - a)
        return place, normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-18)


def crop_radius(landmarks: Floats) -> tuple[F64, float]:
    """Centre (3,) and radius of the sphere to which a scan is cropped, from its seven landmarks (7, 3)."""
    points = np.asarray(landmarks, np.float64)
    bridge = (points[1] + points[2]) / 2
    centre = points[4] + 0.3 * (bridge - points[4])
    radius = 1.4 * (np.linalg.norm(points[0] - points[3]) + np.linalg.norm(bridge - points[4])) / 2
    return centre, float(radius)


def scan_to_mesh_mm(
    scan: Floats,
    scan_landmarks: Floats,
    vertices: Floats,
    triangles: Int,
    landmarks: Floats,
    *,
    scale: bool = True,
) -> F64:
    """Distance (M,) in millimetres of each cropped scan vertex to the aligned prediction.

    Shapes: scan (N, 3), scan_landmarks (7, 3), vertices (V, 3) of the neutral face, triangles (F, 3), landmarks (7, 3)
            of the prediction, in the order of `NOW_LANDMARKS`. All in metres; scan and prediction may have any pose.
    scale: whether the alignment scales the prediction; without scale this is NoW's metrical variant.

    The alignment from the landmarks is refined by Gauss-Newton steps on the distances of all cropped scan vertices.

    Raises:
        ValueError: if shapes are wrong or no scan vertex lies within the crop.
    """
    if landmarks.shape != (7, 3) or scan_landmarks.shape != (7, 3):
        raise ValueError(f"landmarks {landmarks.shape} and {scan_landmarks.shape} must both be (7, 3)")
    centre, radius = crop_radius(scan_landmarks)
    scan = np.asarray(scan, np.float64)
    cropped = scan[np.linalg.norm(scan - centre, axis=1) <= radius]
    if not len(cropped):
        raise ValueError("no vertex of the scan lies near its landmarks")
    marks = np.zeros(len(vertices) + 7, bool)
    marks[-7:] = True
    stacked = np.concatenate([np.asarray(vertices, np.float64), landmarks])
    onto = np.concatenate([np.zeros((len(vertices), 3)), scan_landmarks])
    aligned = rigid_align(stacked, onto, marks, scale=scale)[:-7]
    aligned = _refine_alignment(cropped, aligned, triangles, scale)
    place, _ = Surface(aligned, triangles).nearest(cropped)
    return np.asarray(1000 * np.linalg.norm(cropped - place, axis=1))


def _refine_alignment(scan: F64, vertices: F64, triangles: Int, scale: bool) -> F64:
    """Vertices after Levenberg-Marquardt minimisation of the scan's squared distances."""
    place, normal = Surface(vertices, triangles).nearest(scan)
    error = _mean_square(scan, place)
    damping = 1e-6
    for _ in range(_ITERATIONS):
        away = scan - place
        length = np.linalg.norm(away, axis=1, keepdims=True)
        direction = np.where(length > 1e-9, away / np.maximum(length, 1e-12), normal)
        arm = place - place.mean(0)
        columns = [np.cross(arm, direction), direction]
        if scale:
            columns.append((arm * direction).sum(1, keepdims=True))
        jacobian = np.concatenate(columns, 1)
        residual = (away * direction).sum(1)
        system = jacobian.T @ jacobian
        step = np.linalg.solve(system + damping * np.diag(np.diag(system)), jacobian.T @ residual)
        trial = _transformed(vertices, place.mean(0), step)
        new_place, new_normal = Surface(trial, triangles).nearest(scan)
        new_error = _mean_square(scan, new_place)
        if new_error < error:
            done = np.sqrt(error) - np.sqrt(new_error) < _TOLERANCE
            vertices, place, normal, error = trial, new_place, new_normal, new_error
            damping = max(damping / 4, 1e-9)
            if done:
                break
        else:
            damping *= 16
            if damping > 1e6:
                break
    return vertices


def _mean_square(points: F64, places: F64) -> float:
    return float(((points - places) ** 2).sum(1).mean())


def _transformed(vertices: F64, pivot: F64, step: F64) -> F64:
    """Rotated by step[:3] radians about the pivot, translated by step[3:6], and scaled by exp(step[6]) if present."""
    from scipy.spatial.transform import Rotation

    size = np.exp(step[6]) if len(step) > 6 else 1.0
    turned = Rotation.from_rotvec(step[:3]).apply(vertices - pivot)
    return np.asarray(size * turned + pivot + step[3:6])


def _nearest_in_triangle(points: F64, corners: F64) -> F64:
    """Nearest points (N, 3) to points (N, 3) on triangles (N, 3, 3).

    The orthogonal projection if it is inside, else the nearest point of the nearest edge (Ericson, "Real-Time Collision
    Detection", 2005, 5.1.5).
    """
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    ab, ac, ap = b - a, c - a, points - a
    d00, d01, d11 = (ab * ab).sum(1), (ab * ac).sum(1), (ac * ac).sum(1)
    d20, d21 = (ap * ab).sum(1), (ap * ac).sum(1)
    area = d00 * d11 - d01 * d01
    safe = np.maximum(area, 1e-30)
    v, w = (d11 * d20 - d01 * d21) / safe, (d00 * d21 - d01 * d20) / safe
    inside = (v >= 0) & (w >= 0) & (v + w <= 1) & (area > 1e-30)
    result = a + v[:, None] * ab + w[:, None] * ac
    best = np.where(inside, 0.0, np.inf)
    for start, end in ((a, b), (b, c), (c, a)):
        along = end - start
        share = ((points - start) * along).sum(1) / np.maximum((along * along).sum(1), 1e-30)
        place = start + np.clip(share, 0, 1)[:, None] * along
        distance = ((points - place) ** 2).sum(1)
        closer = ~inside & (distance < best)
        result[closer], best[closer] = place[closer], distance[closer]
    return result
