"""Open boundaries of meshes."""

import numpy as np
import pytest

from avface.geometry.mesh import open_loops, triangulate

GRID = np.array(
    [[y * 4 + x, y * 4 + x + 1, y * 4 + x + 5, y * 4 + x + 4] for y in range(3) for x in range(3)]
)
"""Nine quads of 16 vertices, counterclockwise."""


def test_a_sheet_has_one_loop_in_the_direction_of_its_polygons():
    around = [0, 1, 2, 3, 7, 11, 15, 14, 13, 12, 8, 4]

    for polygons in (GRID, triangulate(GRID)):
        (loop,) = open_loops(polygons)
        assert loop.tolist() == around


def test_a_hole_is_a_loop_of_its_own_that_runs_the_other_way():
    outer, hole = open_loops(np.delete(GRID, 4, 0))

    assert outer[0] == 0 and len(outer) == 12
    assert hole.tolist() == [5, 9, 10, 6]


def test_triangles_among_quads_are_written_with_a_repeated_vertex():
    (loop,) = open_loops(np.array([[0, 1, 2, 2], [0, 2, 3, 4]]))

    assert loop.tolist() == [0, 1, 2, 3, 4]


def test_a_closed_mesh_has_no_loop():
    cube = np.array([[0, 1, 2, 3], [4, 7, 6, 5], [0, 4, 5, 1], [1, 5, 6, 2], [2, 6, 7, 3], [3, 7, 4, 0]])

    assert open_loops(cube) == []


def test_boundaries_that_meet_are_refused():
    with pytest.raises(ValueError, match="meet near vertex"):
        open_loops(np.delete(GRID, [3, 7], 0))
