import numpy as np
import pytest

from avface.head.open.units.measures import Reference, SkinCheck, compare_units, nearest_on_triangles
from avface.head.open.units.named_points import REFERENCE_POINTS, NamedPoints, point_positions


@pytest.fixture
def points():
    """Every named point is a vertex of its own."""
    names = tuple(point_positions())
    count = len(names)
    weights = np.tile([1.0, 0.0, 0.0], (count, 1))
    return NamedPoints(names, np.repeat(np.arange(count)[:, None], 3, 1), weights)


def _expression(points, moves):
    result = np.zeros((len(moves), len(points.names), 3))
    rows = [points.names.index(name) for name in REFERENCE_POINTS]
    result[:, rows] = moves
    return result


def test_the_reference_has_all_units_but_the_tongue_and_is_mirrored():
    reference = Reference.load()

    assert len(reference.names) == 51
    assert reference.of("jawOpen")[REFERENCE_POINTS.index("chin"), 1] < -20
    swap = [
        REFERENCE_POINTS.index(name.replace("left", "?").replace("right", "left").replace("?", "right"))
        for name in REFERENCE_POINTS
    ]
    left, right = reference.of("mouthSmileLeft"), reference.of("mouthSmileRight")
    np.testing.assert_allclose(right, left[swap] * [-1, 1, 1], atol=0.35)


def test_a_units_own_figures_have_cosine_and_amplitude_1_at_any_size_of_head(points):
    reference = Reference.load()
    template = 0.8 * np.array(list(point_positions().values()))
    left, right = (points.at(template, [f"lid_outer_corner_{side}"]) for side in ("left", "right"))
    scale = float(np.linalg.norm(left - right)) / 0.089
    expression = _expression(points, reference.displacements * scale / 1000)

    for figures in compare_units(reference.names, template, expression, points, reference):
        assert figures.cosine == pytest.approx(1)
        assert figures.amplitude == pytest.approx(1)
        assert figures.nearest == figures.name


def test_a_unit_that_does_what_another_does_is_found(points):
    reference = Reference.load()
    template = np.array(list(point_positions().values()))
    moves = reference.displacements.copy() / 1000
    moves[reference.names.index("mouthPressLeft")] = moves[reference.names.index("mouthSmileLeft")]

    found = compare_units(reference.names, template, _expression(points, moves), points, reference)

    press = next(figures for figures in found if figures.name == "mouthPressLeft")
    assert press.nearest == "mouthSmileLeft"
    assert press.main_point == "mouth_corner_left"


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

    found = check.measure(moved)

    assert found.penetration == 0
    assert found.stretch == pytest.approx(1) and found.compression == pytest.approx(1)
    assert found.crease == pytest.approx(0, abs=1e-6)


def test_the_depth_of_one_lip_in_the_other_is_told_with_the_way_out(lips):
    vertices, triangles, upper = lips
    check = SkinCheck(vertices, triangles, np.ones(len(vertices), bool))
    moved = vertices.copy()
    moved[upper, 1] -= 0.0017

    assert check.measure(moved).penetration == pytest.approx(0.0007, abs=1e-6)
    ways = check.ways_out(moved)
    inner = (np.abs(vertices[:, 0] - 0.01) < 0.006) & (np.abs(vertices[:, 2] - 0.005) < 0.003)
    below = inner & np.isin(np.arange(len(vertices)), upper) & (vertices[:, 1] < 0.001)
    np.testing.assert_allclose(ways[below], np.tile([0, 0.0007, 0], (below.sum(), 1)), atol=1e-6)


def test_stretch_and_crease_are_those_of_the_worst_edge(lips):
    vertices, triangles, upper = lips
    check = SkinCheck(vertices, triangles, np.zeros(len(vertices), bool))
    moved = vertices.copy()
    moved[upper, 0] *= 1.5
    assert check.measure(moved).stretch == pytest.approx(1.5)

    bent = vertices.copy()
    beyond = np.maximum(vertices[:, 0] - 0.01, 0)
    bent[:, 1] += beyond  # by 45 degrees in the middle
    assert check.measure(bent).crease == pytest.approx(45, abs=1)


def test_nearest_points_of_a_triangle():
    corners = np.array([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]])
    for point, nearest in (
        ([0.2, 0.2, 0.5], [0.2, 0.2, 0]),
        ([0.5, -1, 0.3], [0.5, 0, 0]),
        ([2, -1, 0], [1, 0, 0]),
        ([1, 1, 1], [0.5, 0.5, 0]),
    ):
        np.testing.assert_allclose(nearest_on_triangles(np.array(point, float), corners)[0], nearest)
