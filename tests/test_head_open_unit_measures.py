import numpy as np
import pytest

from avface.head.anatomy.units import reference_figures
from avface.head.open.units.measures import SkinCheck, nearest_on_triangles
from avface.head.open.units.named_points import REFERENCE_POINTS, NamedPoints, head_scale, point_positions


def test_the_reference_has_all_units_but_the_tongue_and_is_mirrored():
    reference = reference_figures()

    assert len(reference.names) == 51

    def moves(name):
        return 1000 * reference.moves[reference.names.index(name)]

    assert moves("jawOpen")[REFERENCE_POINTS.index("chin"), 1] < -20
    swap = [
        REFERENCE_POINTS.index(name.replace("left", "?").replace("right", "left").replace("?", "right"))
        for name in REFERENCE_POINTS
    ]
    left, right = moves("mouthSmileLeft"), moves("mouthSmileRight")
    np.testing.assert_allclose(right, left[swap] * [-1, 1, 1], atol=0.35)


def test_the_scale_of_a_head_is_that_of_its_eyes_distance():
    names = tuple(point_positions())  # every named point is a vertex of its own
    vertices = np.repeat(np.arange(len(names))[:, None], 3, 1)
    points = NamedPoints(names, vertices, np.tile([1.0, 0.0, 0.0], (len(names), 1)))
    template = 0.8 * np.array(list(point_positions().values()))

    assert head_scale(template, points) == pytest.approx(0.8 * 2 * 0.0438 / 0.089)


def _box(low, high):
    """Vertices and triangles of a box with its sides divided in 8, seen counter-clockwise from outside."""
    n = 9
    vertices, triangles = [], []
    for axis in range(3):
        for end in (0, 1):
            u, v = np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, n), indexing="ij")
            side = np.empty((n * n, 3))
            side[:, axis] = end
            side[:, (axis + 1) % 3], side[:, (axis + 2) % 3] = u.ravel(), v.ravel()
            first = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
            quads = np.stack([first, first + n, first + n + 1, first + 1], 1)
            quads = quads if end else quads[:, ::-1]
            triangles.append(quads[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3) + sum(map(len, vertices)))
            vertices.append(low + side * (np.array(high) - low))
    points, number = np.unique(np.round(np.concatenate(vertices), 9), axis=0, return_inverse=True)
    return points, number.ravel()[np.concatenate(triangles)]


@pytest.fixture
def lips():
    """Two boxes of 20 x 10 x 10 mm, one over the other and 1 mm apart: vertices, triangles, the upper one's rows."""
    upper, faces = _box([0, 0.0005, 0], [0.02, 0.0105, 0.01])
    lower = upper - [0, 0.011, 0]
    upper_rows = np.arange(len(upper))
    return np.concatenate([upper, lower]), np.concatenate([faces, faces + len(upper)]), upper_rows


def test_nothing_is_inside_of_lips_that_do_not_meet(lips):
    vertices, triangles, upper = lips
    check = SkinCheck(vertices, triangles, np.ones(len(vertices), bool))
    moved = vertices.copy()
    moved[upper, 1] -= 0.0009

    assert not check.ways_out(moved).any()


def test_the_depth_of_one_lip_in_the_other_is_told_with_the_way_out(lips):
    vertices, triangles, upper = lips
    check = SkinCheck(vertices, triangles, np.ones(len(vertices), bool))
    moved = vertices.copy()
    moved[upper, 1] -= 0.0017

    ways = check.ways_out(moved)
    assert np.linalg.norm(ways, axis=1).max() == pytest.approx(0.0007, abs=1e-6)
    inner = (np.abs(vertices[:, 0] - 0.01) < 0.006) & (np.abs(vertices[:, 2] - 0.005) < 0.003)
    below = inner & np.isin(np.arange(len(vertices)), upper) & (vertices[:, 1] < 0.001)
    np.testing.assert_allclose(ways[below], np.tile([0, 0.0007, 0], (below.sum(), 1)), atol=1e-6)


def test_nearest_points_of_a_triangle():
    corners = np.array([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]])
    for point, nearest in (
        ([0.2, 0.2, 0.5], [0.2, 0.2, 0]),
        ([0.5, -1, 0.3], [0.5, 0, 0]),
        ([2, -1, 0], [1, 0, 0]),
        ([1, 1, 1], [0.5, 0.5, 0]),
    ):
        np.testing.assert_allclose(nearest_on_triangles(np.array(point, float), corners)[0], nearest)
