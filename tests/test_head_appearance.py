import numpy as np
import pytest

from avface.head import load_head
from avface.head.appearance import vertex_colours


@pytest.fixture(scope="module")
def head():
    return load_head("open")


def brightness(colours):
    return colours @ [0.2126, 0.7152, 0.0722]


def test_every_vertex_has_a_colour_between_black_and_white(head):
    colours = vertex_colours(head)

    assert colours.shape == (head.num_vertices, 3) and colours.dtype == np.float32
    assert colours.min() >= 0 and colours.max() <= 1


def test_parts_have_their_typical_colours(head):
    colours, parts = vertex_colours(head), head.vertex_parts()
    mean = {name: colours[parts == number].mean(0) for number, name in enumerate(head.part_names)}

    assert brightness(mean["left_eye"]) > brightness(mean["skin"]) > brightness(mean["left_iris"])
    assert brightness(mean["left_iris"]) > brightness(mean["left_pupil"])
    assert brightness(mean["upper_teeth"]) > 0.8
    assert mean["tongue"][0] > 1.5 * mean["tongue"][2]
    np.testing.assert_allclose(mean["left_iris"], mean["right_iris"])


def test_lips_are_redder_than_the_face_around_them(head):
    colours = vertex_colours(head)
    redness = colours[:, 0] - colours[:, 1]

    assert redness[head.regions["lips"]].mean() > redness[head.regions["face"]].mean() + 0.08


def test_there_is_a_dark_brow_over_each_eye_and_none_between_or_behind(head):
    dark = brightness(vertex_colours(head)) < 0.45
    skin = head.vertex_parts() == head.part_names.index("skin")
    points = head.template.numpy()
    brows = points[dark & skin]
    eyes = (head.joint_regressor.numpy() @ points)[
        [head.joint_names.index(f"{s}_eye") for s in ("left", "right")]
    ]

    for x, y, z in eyes:
        own = brows[np.sign(brows[:, 0]) == np.sign(x)]
        assert len(own) >= 4
        assert ((own[:, 1] - y > 0.01) & (own[:, 1] - y < 0.035)).all(), (
            "a brow lies 1 to 3.5 cm over the eye"
        )
        assert (own[:, 2] > z - 0.02).all(), "a brow is in front"
    assert (np.abs(brows[:, 0]) > 0.008).all()
