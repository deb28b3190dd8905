"""Measures of eyeballs and lids, on eyes of known sizes."""

import numpy as np
import pytest
from anatomy_heads import CORNER, EYES, small_head

from avface.head.anatomy.eyes import (
    COLUMNS,
    TEAR_LAKE,
    ball_diameter,
    find_eye,
    iris_diameters,
    lid_line,
    open_columns,
)
from avface.head.anatomy.poses import (
    GAZES,
    NEUTRAL,
    Pose,
    gaze_turn,
    joint_centres,
    pose_vertices,
    possible,
    together,
)

OPEN = 2 * 0.35 * 12
"""Millimetres along the eyeball between the lids of the open eye, in the middle."""


@pytest.fixture(scope="module")
def head():
    return small_head()


def lines(head, poses, side="left", shape=0.0):
    eye, shape = find_eye(head, side), np.array([shape])
    vertices, centres = pose_vertices(head, shape, [NEUTRAL, *poses]), joint_centres(head, shape)
    columns = open_columns(head, eye, vertices[0], centres[eye.joint])
    return [
        lid_line(eye, vertices[0], posed, centres[eye.joint], gaze_turn(head, pose), columns)
        for pose, posed in zip(poses, vertices[1:], strict=True)
    ]


def blink(weight, **gaze):
    return Pose("", {"eyeBlink": weight}, **gaze)


def test_the_eyeballs_centres_are_the_joints(head):
    np.testing.assert_allclose(joint_centres(head, np.zeros(1))[1:], EYES, atol=1e-7)


@pytest.mark.parametrize("side", ["left", "right"])
def test_sizes_of_ball_and_iris_are_found(head, side):
    eye, neutral = find_eye(head, side), pose_vertices(head, np.zeros(1), [NEUTRAL])[0]
    assert ball_diameter(eye, neutral) == pytest.approx(0.024, abs=1e-5)
    assert iris_diameters(eye, neutral) == pytest.approx((0.0117, 0.0117), rel=0.005)
    stretched = neutral * [1.1, 1, 1]
    smallest, largest = iris_diameters(eye, stretched)
    assert largest / smallest == pytest.approx(1.1, abs=0.005)


def test_the_open_eye_is_measured_from_corner_to_corner(head):
    eye, neutral = find_eye(head, "left"), pose_vertices(head, np.zeros(1), [NEUTRAL])[0]
    columns = open_columns(head, eye, neutral, EYES[0])
    assert columns[0] == pytest.approx(-0.94 * CORNER, abs=0.06)
    assert columns[-1] == pytest.approx(0.94 * CORNER, abs=0.06)
    right = open_columns(head, find_eye(head, "right"), neutral, EYES[1])
    assert right[0] > 0 > right[-1], "from the nose outwards"
    (line,) = lines(head, [blink(0.0)])
    assert 1000 * line.gap.max() == pytest.approx(OPEN, abs=0.15)
    assert line.gap.min() > 0.0005


def test_the_opening_falls_with_the_blink_and_ends_at_nothing(head):
    at = [1000 * line.gap for line in lines(head, [blink(w) for w in (0, 0.25, 0.5, 0.75, 1)])]
    middle = len(at[0]) // 2
    np.testing.assert_allclose(
        [gap[middle] for gap in at], OPEN * np.array([1, 0.75, 0.5, 0.25, 0]), atol=0.2
    )
    assert np.abs(at[-1]).max() < 0.06


@pytest.mark.parametrize(("covered", "gap"), [(0.9, 0.1 * OPEN), (1.1, -0.1 * OPEN)])
def test_lids_that_stop_short_or_overlap_are_measured_with_their_sign(covered, gap):
    (line,) = lines(small_head(blink_to=covered), [blink(1.0)])
    assert 1000 * line.gap[len(line.gap) // 2] == pytest.approx(gap, abs=0.1)


def test_a_person_of_another_size_has_the_same_angles(head):
    one, other = (lines(head, [blink(0.0)], shape=weight)[0].gap for weight in (0.0, 2.0))
    np.testing.assert_allclose(other, 1.1 * one, rtol=0.02, atol=5e-5)


@pytest.mark.parametrize("gap", [0.0003, 0.0008])
def test_the_gap_to_the_eyeball_is_found(gap):
    (line,) = lines(small_head(lid_gap=gap), [blink(0.0)])
    assert np.nanmedian(line.off[:, 12:]) == pytest.approx(gap, abs=0.0001)  # beside the tear lake
    assert line.inside == 0


def test_beside_the_tear_lake_lids_may_leave_the_eyeball():
    (line,) = lines(small_head(lid_gap=0.0008), [blink(0.0)])
    lake = COLUMNS < TEAR_LAKE
    assert (line.off[:, lake] == 0).all() and (line.off[:, ~lake] > 0.0006).all()


def test_a_cornea_turns_with_the_eye():
    head = small_head()
    iris = np.unique(find_eye(head, "left").iris)
    centre = torch_row(*EYES[0])
    head.template[iris] += 0.02 * (head.template[iris] - centre)
    up, down = lines(head, [blink(0.0, gaze=GAZES["up"]), blink(0.0, gaze=GAZES["down"])])
    middle = len(COLUMNS) // 2
    assert down.off[0, middle] - up.off[0, middle] > 0.00005


def test_lids_inside_the_eyeball_are_found(head):
    (line,) = lines(head, [blink(0.5)])
    chord = 0.0123 - 0.0123 * np.cos(0.35)  # a lid that turns by 40 degrees on a straight path
    assert line.inside == pytest.approx(chord - 0.0003, abs=0.0002)
    (sunk,) = lines(small_head(lid_gap=-0.0005), [blink(0.0)])
    assert sunk.inside == pytest.approx(0.0005, abs=0.0001) and (sunk.off == 0).all()


def test_a_turned_eyeball_is_met_where_it_is(head):
    poses = [blink(0.0, gaze=gaze) for gaze in GAZES.values()]
    for line in lines(head, poses):
        assert np.nanmax(line.off) < 0.0006 and line.inside == 0


def test_gaze_units_follow_the_gaze():
    head = small_head(extra_units=("eyeLookUpLeft", "eyeLookDownLeft", "eyeLookInRight", "eyeLookOutLeft"))
    head.expression_basis[2:, 0, 0] = torch_row(1, 10, 100, 1000)
    moved = pose_vertices(head, np.zeros(1), [Pose("", gaze=GAZES[name]) for name in ("up", "down", "left")])
    np.testing.assert_allclose(moved[:, 0, 0] - head.template[0, 0].item(), [1, 10, 1100], rtol=1e-5)


def torch_row(*values):
    import torch

    return torch.tensor(values, dtype=torch.float32)


def test_poses_name_both_sides_and_only_what_a_head_has():
    assert together("eyeBlink", ("jawOpen", 0.5)).units() == {
        "eyeBlinkLeft": 1,
        "eyeBlinkRight": 1,
        "jawOpen": 0.5,
    }
    assert together("eyeBlinkLeft").units() == {"eyeBlinkLeft": 1}
    assert together("eyeBlink", ("jawOpen", 0.5)).label == "eyeBlink + jawOpen 0.5"
    head = small_head()
    assert possible(head, [together("eyeBlink"), together("jawOpen")])[0].label == "eyeBlink"
    assert len(possible(head, [together("eyeBlink"), together("jawOpen")])) == 1


def test_heads_without_eyes_or_openings_say_so(head):
    bare = small_head()
    bare.part_names = tuple(name.replace("left_eye", "left_thing") for name in bare.part_names)
    assert find_eye(bare, "left") == "no eyeballs"
    bare.embeddings = {}
    assert find_eye(bare, "right") == "no landmarks mediapipe478"
    shut = small_head()
    shut.template += shut.expression_basis[:2].sum(0)
    assert find_eye(shut, "left") == "no opening between the lids"
