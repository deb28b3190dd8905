"""Measures of surfaces: boundaries, bodies, insides, distances."""

import numpy as np
import pytest
from anatomy_heads import ball, box

from avface.geometry.mesh import triangulate
from avface.head.anatomy.intersections import LIPS, TEETH, ZONES, Solid, depths
from avface.head.anatomy.surface import (
    bend,
    bodies,
    boundary_edges,
    boundary_loops,
    distance_to_triangles,
    fit_sphere,
    inner_edges,
    nearest_on_triangles,
    neck_and_holes,
    off_plane,
    radii,
    winding_numbers,
)


@pytest.fixture
def tube():
    """Points and triangles of an upright tube of 12 columns, open below, closed above."""
    around = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    circle = np.stack([np.cos(around), 0 * around, np.sin(around)], 1)
    points = np.concatenate([circle + np.array([0, height, 0]) for height in range(5)] + [[[0, 5, 0]]])
    number = np.arange(60).reshape(5, 12)
    following = np.roll(number, -1, 1)
    sides = np.stack([number[:-1], number[1:], following[1:], following[:-1]], -1).reshape(-1, 4)
    top = np.stack([number[4], np.full(12, 60), following[4], following[4]], 1)
    return points, triangulate(np.concatenate([sides, top]))


def test_a_tube_has_a_neck_and_no_holes(tube):
    points, faces = tube
    neck, holes = neck_and_holes(faces, points)
    assert len(neck) == 1 and len(neck[0]) == 12 and not len(holes)
    assert off_plane(points[np.unique(neck[0])]) < 1e-12


def test_a_missing_face_is_a_hole_and_not_the_neck(tube):
    points, faces = tube
    neck, holes = neck_and_holes(np.delete(faces, 50, 0), points)
    assert len(neck) == 1 and len(neck[0]) == 12 and len(holes) == 3


def test_a_hole_that_touches_the_neck_makes_it_no_clean_loop(tube):
    points, faces = tube
    touching = next(k for k, face in enumerate(faces) if (face < 12).sum() == 1 and (face < 24).all())
    neck, _ = neck_and_holes(np.delete(faces, touching, 0), points)
    assert len(neck) == 2


def test_the_longest_boundary_comes_first_and_closed_surfaces_have_none(tube):
    _, faces = tube
    assert [len(loop) for loop in boundary_loops(np.delete(faces, 50, 0))] == [12, 3]
    assert not len(boundary_edges(box((0, 0, 0), (1, 1, 1))[1]))
    assert neck_and_holes(box((0, 0, 0), (1, 1, 1))[1], np.zeros((8, 3)))[0] == []


def test_folds_are_angles_between_neighbours():
    points, faces = box((0, 0, 0), (1, 1, 1))
    edges, pairs = inner_edges(faces)
    angles = np.degrees(bend(points, faces, pairs))
    assert len(edges) == 18 and all(
        set(edge) <= set(faces[k]) for edge, two in zip(edges, pairs, strict=True) for k in two
    )
    assert sorted(angles.round(6).tolist()) == [0] * 6 + [90] * 12
    wings = np.array([[0.0, 0, 0], [0, 1, 0], [-1, 0, 0], [np.cos(0.5), 0, np.sin(0.5)]])
    assert bend(wings, np.array([[0, 1, 2], [1, 0, 3]]), np.array([[0, 1]])) == pytest.approx(0.5)


def test_bodies_are_counted_whatever_their_numbers():
    faces = box((0, 0, 0), (1, 1, 1))[1]
    label = bodies(np.concatenate([faces + 20, faces, faces + 8]))
    assert label.max() == 2
    assert [len(set(label[12 * k : 12 * k + 12])) for k in range(3)] == [1, 1, 1]
    assert len(bodies(np.zeros((0, 3), int))) == 0


def test_a_sphere_is_found_under_a_bulge():
    around = np.random.default_rng(0).standard_normal((500, 3))
    points = 0.012 * around / np.linalg.norm(around, axis=1)[:, None]
    bulged = np.where(points[:, 2:] > 0.009, 1.05 * points, points) + np.array([0.1, 0.2, 0.3])
    centre, radius = fit_sphere(bulged)
    np.testing.assert_allclose(centre, [0.1, 0.2, 0.3], atol=1e-6)
    assert radius == pytest.approx(0.012, abs=1e-6)


def test_winding_numbers_count_the_boxes_around_a_point():
    points, faces = box((0, 0, 0), (0.01, 0.01, 0.01))
    more, others = box((0.004, 0.004, 0.004), (0.02, 0.02, 0.02))
    points, faces = np.concatenate([points, more]), np.concatenate([faces, others + 8])
    queries = np.array([[0.005] * 3, [0.002] * 3, [0.015] * 3, [0.03] * 3, [0.005, 0.005, -0.01]])
    assert winding_numbers(queries, points, faces).tolist() == [2, 1, 1, 0, 0]
    assert winding_numbers(queries, points, faces[:, ::-1]).tolist() == [-2, -1, -1, 0, 0]
    assert winding_numbers(queries[:0], points, faces).shape == (0,)


def test_winding_numbers_agree_with_libigl():
    igl = pytest.importorskip("igl")
    rng = np.random.default_rng(0)
    points, quads, _ = ball()
    faces = triangulate(quads)
    points = np.concatenate([points, points + np.array([0.01, 0.002, 0.004])])
    faces = np.concatenate([faces, faces + len(points) // 2])
    queries = rng.uniform(-0.03, 0.03, (3000, 3))
    theirs = igl.winding_number(points, faces, queries)
    assert (np.abs(winding_numbers(queries, points, faces) - theirs) < 0.02).all()


def test_nearest_points_of_a_triangle_and_their_distances():
    corners = np.array([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]])
    queries = np.array([[0.2, 0.2, 0.5], [0.5, -2, 0], [0.5, -1, 0.3], [2, -1, 0], [1, 1, 1]])
    nearest = np.array([[0.2, 0.2, 0], [0.5, 0, 0], [0.5, 0, 0], [1, 0, 0], [0.5, 0.5, 0]])
    each = np.repeat(corners, len(queries), 0)
    np.testing.assert_allclose(nearest_on_triangles(queries, each), nearest, atol=1e-12)
    distances = [0.5, 2, np.sqrt(1.09), np.sqrt(2), np.sqrt(1.5)]
    np.testing.assert_allclose(distance_to_triangles(queries, each), distances, atol=1e-12)
    np.testing.assert_allclose(nearest_on_triangles(queries[3], corners), nearest[[3]], atol=1e-12)


def test_radii_of_a_bulged_ball_in_any_direction():
    points, quads, _ = ball()
    directions = np.random.default_rng(1).standard_normal((500, 3))
    found = radii(directions, points, triangulate(quads))
    assert (found <= 0.012 + 1e-9).all() and (found > 0.0118).all()
    shell = np.concatenate([triangulate(quads), triangulate(quads) + len(points)])
    twice = radii(directions, np.concatenate([points, 1.1 * points]), shell)
    np.testing.assert_allclose(twice, 1.1 * found, rtol=1e-9)


# What goes through itself


def solid(flesh, teeth=None):
    """All vertices and faces of flesh as probes on the lips; teeth's vertices follow those of the flesh."""
    rows = np.unique(flesh)
    probes = np.concatenate([np.repeat(rows[:, None], 3, 1), flesh])
    teeth = np.zeros((0, 3), np.int64) if teeth is None else teeth
    return Solid(flesh, teeth, probes, np.full(len(probes), ZONES.index(LIPS)), np.unique(teeth))


def test_boxes_that_touch_nothing_have_no_depth():
    points, faces = box((0, 0, 0), (0.01, 0.01, 0.01))
    more, others = box((0.011, 0.002, 0.002), (0.02, 0.008, 0.008))
    found = depths(solid(np.concatenate([faces, others + 8])), np.concatenate([points, more]))
    assert all(depth == 0 for depth, _ in found.values())


def test_the_depth_of_a_box_in_another_is_measured():
    points, faces = box((0, 0, 0), (0.01, 0.01, 0.01))
    more, others = box((0.009, 0.002, 0.002), (0.02, 0.008, 0.008))
    found = depths(solid(np.concatenate([faces, others + 8])), np.concatenate([points, more]))
    depth, place = found[LIPS]
    assert depth == pytest.approx(0.001, abs=1e-9) and place[0] == pytest.approx(0.009)


def test_boxes_that_touch_are_sound():
    points, faces = box((0, 0, 0), (0.01, 0.01, 0.01))
    for x, sound in ((0.01, True), (0.00998, True), (0.0098, False)):
        more, others = box((x, 0.002, 0.002), (0.02, 0.008, 0.008))
        found = depths(solid(np.concatenate([faces, others + 8])), np.concatenate([points, more]))
        assert (found[LIPS][0] == 0) == sound, x


def test_a_tooth_in_flesh_is_found_from_both_sides():
    points, faces = box((0, 0, 0), (0.01, 0.01, 0.01))
    tooth, tooth_faces = box((0.0095, 0.004, 0.004), (0.02, 0.006, 0.006))
    body = solid(faces, tooth_faces + 8)
    assert depths(body, np.concatenate([points, tooth]))[TEETH][0] == pytest.approx(0.0005, abs=1e-9)
    wide, wide_faces = box((0.0095, -0.02, -0.02), (0.02, 0.03, 0.03))  # none of its vertices is inside
    body = solid(faces, wide_faces + 8)
    assert depths(body, np.concatenate([points, wide]))[TEETH][0] == pytest.approx(0.0005, abs=1e-9)
    assert depths(body, np.concatenate([points, wide + np.array([0.001, 0, 0])]))[TEETH][0] == 0


def test_only_what_moved_is_tested_again():
    points, faces = box((0, 0, 0), (0.01, 0.01, 0.01))
    more, others = box((0.009, 0.002, 0.002), (0.02, 0.008, 0.008))
    body, posed = solid(np.concatenate([faces, others + 8])), np.concatenate([points, more])
    assert depths(body, posed, posed)[LIPS][0] == 0
    assert depths(body, posed, posed + np.repeat([[0], [0.003]], 8, 0))[LIPS][0] == pytest.approx(0.001)
