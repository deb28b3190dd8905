import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from avface.evaluation.scan_to_mesh import Surface, crop_radius, scan_to_mesh_mm


def face_like(rows=40):
    """A bulging sheet 20 cm wide with a nose, its triangles, and seven landmarks on it."""
    u, v = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, rows), indexing="ij")
    x, y = 0.1 * u.ravel(), 0.1 * v.ravel()
    points = np.stack([x, y, height(x, y)], 1)
    corner = np.arange(rows * rows).reshape(rows, rows)
    a, b, c, d = (
        part.ravel() for part in (corner[:-1, :-1], corner[1:, :-1], corner[:-1, 1:], corner[1:, 1:])
    )
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])
    return points, triangles, on_face(LANDMARKS)


def height(x, y):
    return 0.05 - 3 * x**2 - 2 * y**2 + 0.025 * np.exp(-(x**2 + (y + 0.01) ** 2) / 3e-4) + 0.2 * x * y


def on_face(places):
    return np.column_stack([places, height(*places.T)])


LANDMARKS = np.array(
    [
        [-0.045, 0.03],
        [-0.015, 0.03],
        [0.015, 0.03],
        [0.045, 0.03],
        [0, -0.02],
        [-0.025, -0.05],
        [0.025, -0.05],
    ]
)


def scanned(count=2000, seed=0):
    return on_face(np.random.default_rng(seed).uniform(-0.095, 0.095, (count, 2)))


def test_the_nearest_place_is_inside_on_an_edge_or_at_a_corner():
    triangle = Surface(np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), np.array([[0, 1, 2]]))
    points = np.array([[0.2, 0.3, 5], [0.5, -2, 1], [3, 0, 0], [1, 1, 0], [-1, -1, 2]])
    place, normal = triangle.nearest(points)
    np.testing.assert_allclose(
        place, [[0.2, 0.3, 0], [0.5, 0, 0], [1, 0, 0], [0.5, 0.5, 0], [0, 0, 0]], atol=1e-12
    )
    np.testing.assert_allclose(normal, np.tile([0, 0, 1.0], (5, 1)))


def test_a_shape_moved_by_a_similarity_has_no_error():
    vertices, triangles, marks = face_like(80)
    turn = Rotation.from_euler("xyz", [40, -20, 70], degrees=True)
    off = np.random.default_rng(1).normal(0, 0.002, marks.shape)  # landmarks are found only roughly
    distances = scan_to_mesh_mm(
        scanned(), marks, 1.7 * turn.apply(vertices) + 3, triangles, 1.7 * turn.apply(marks + off) + 3
    )
    assert np.median(distances) < 0.03, "what is left is the flatness of triangles"


def test_a_wrong_size_counts_only_without_scale():
    vertices, triangles, marks = face_like()
    with_scale = scan_to_mesh_mm(scanned(), marks, 1.1 * vertices, triangles, 1.1 * marks)
    without = scan_to_mesh_mm(scanned(), marks, 1.1 * vertices, triangles, 1.1 * marks, scale=False)
    assert np.median(with_scale) < 0.1 < 0.3 < np.median(without)


def test_a_known_distance_is_found():
    vertices, triangles, marks = face_like()
    scan = scanned()
    scan[::2, 2] += (
        0.001  # half of the scan is a millimetre before the other half: the mesh settles in the middle
    )
    distances = scan_to_mesh_mm(scan, marks, vertices, triangles, marks, scale=False)
    assert np.median(distances) == pytest.approx(0.5, abs=0.1)


def test_what_lies_far_from_the_face_is_cut_off():
    vertices, triangles, marks = face_like()
    scan = np.concatenate([scanned(), scanned() + np.array([0, 0.5, 0])])
    distances = scan_to_mesh_mm(scan, marks, vertices, triangles, marks)
    centre, radius = crop_radius(marks)
    assert len(distances) == (np.linalg.norm(scan - centre, axis=1) <= radius).sum() < 2001
    assert distances.max() < 1


def test_a_scan_somewhere_else_and_wrong_landmarks_are_refused():
    vertices, triangles, marks = face_like(10)
    with pytest.raises(ValueError, match="no vertex"):
        scan_to_mesh_mm(scanned() + 9, marks, vertices, triangles, marks)
    with pytest.raises(ValueError, match="7, 3"):
        scan_to_mesh_mm(scanned(), marks[:5], vertices, triangles, marks[:5])
