import numpy as np
import pytest

from avface.head.anatomy.units import REFERENCE_POINTS, reference_figures
from avface.head.open.units.named_points import NamedPoints, head_scale, point_positions


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
