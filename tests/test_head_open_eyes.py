"""Eyeballs and lids of the open head, on a small mesh with the loops of MakeHuman's around its eyes."""

from dataclasses import replace

import numpy as np
import pytest
from eye_drafts import eye_draft, lids_apart, off_the_ball

from avface.errors import AvfaceError
from avface.head.open.eyes import eyeballs, lids
from avface.head.open.eyes.lid_fit import LidFitConfig, angles_of, fit_lids, on_the_ball
from avface.head.open.eyes.region import lid_rings


@pytest.fixture(scope="module")
def base():
    return eye_draft()


@pytest.fixture(scope="module")
def fitted(base):
    return eyeballs.step(base)


@pytest.fixture(scope="module")
def moving(fitted):
    return lids.step(fitted)


@pytest.fixture(scope="module")
def people(base):
    return np.random.default_rng(1).normal(size=(5, len(base.shape)))


def shared_columns(rings):
    return on_the_ball(rings.columns, LidFitConfig()) == 1


def test_eyeball_and_iris_have_human_sizes_and_the_iris_is_round(fitted):
    for side in ("left", "right"):
        ball = fitted.template[fitted.rows(*(f"{side}_{part}" for part in ("eye", "iris", "pupil")))]
        iris = fitted.template[fitted.rows(f"{side}_iris")]
        assert np.ptp(ball, axis=0)[:2] == pytest.approx([0.024, 0.024], abs=1e-5)
        assert np.ptp(ball, axis=0)[2] == pytest.approx(0.02425, abs=1e-5)  # with the cornea's bulge
        assert np.ptp(iris, axis=0)[:2] == pytest.approx([0.0117, 0.0117], abs=1e-5)


def test_eyeballs_are_closed_and_face_outwards(fitted):
    faces = fitted.triangles[
        np.isin(fitted.triangles, fitted.rows("left_eye", "left_iris", "left_pupil")).all(1)
    ]
    corners = fitted.template[faces] - fitted.eye_centres[0, 0]

    volume = np.linalg.det(corners).sum() / 6

    assert volume == pytest.approx(4 / 3 * np.pi * 0.012**3, rel=0.06)


def test_eyeballs_move_rigidly_with_their_centres_and_follow_their_joints(fitted):
    for side, name in enumerate(("left", "right")):
        rows = fitted.rows(*(f"{name}_{part}" for part in ("eye", "iris", "pupil")))
        moves = fitted.eye_centres[2:, side][:, None]
        np.testing.assert_allclose(fitted.shape[1:, rows], np.repeat(moves, len(rows), 1), atol=1e-12)
        assert (fitted.skin_weights[rows, 2 + side] == 1).all()


def test_component_0_scales_everything(fitted):
    np.testing.assert_allclose(fitted.shape[0], 0.06 * fitted.template, atol=1e-12)


def test_lids_lie_on_the_eyeball_for_every_shape(fitted, people):
    for side, rings in enumerate(lid_rings(fitted)):
        for shape in (np.zeros(len(fitted.shape)), *people):
            edge = rings.margin[0][shared_columns(rings)]
            off = off_the_ball(fitted, fitted.vertices(None, shape), edge, shape, side)
            assert off.min() > 0.0001
            assert off.max() < 0.0005


def test_a_margin_that_hangs_over_in_a_shape_stands_up(fitted):
    rings = lid_rings(fitted)[0]
    outer = rings.margin[2]
    shape = fitted.shape.copy()
    shape[1, outer, 1] -= 0.002
    hanging = fit_lids(replace(fitted, shape=shape), LidFitConfig())
    change = (hanging.shape - fit_lids(fitted, LidFitConfig()).shape)[1, outer]
    assert 0 < np.linalg.norm(change, axis=1)[shared_columns(rings)].max() < 0.0008


def test_skin_near_the_eyeball_sinks_less_than_a_shape_says(fitted):
    rings = lid_rings(fitted)[0]
    skin = rings.skin[4][len(rings.skin[4]) * 3 // 4]
    shape = fitted.shape.copy()
    shape[1, skin, 2] -= 0.002
    sunk = fit_lids(replace(fitted, shape=shape), LidFitConfig())
    change = (sunk.shape - fit_lids(fitted, LidFitConfig()).shape)[1, skin, 2]
    assert -0.0019 < change < -0.001


def test_shut_lids_meet_in_a_line_that_is_level_at_the_inner_corner(moving):
    rings = lid_rings(moving)[0]
    corner = rings.margin[0][rings.columns // 2 - 8 : rings.columns // 2 + 1]
    for gaze in ({}, {"eyeLookDownLeft": 1.0}):
        shut = moving.vertices({"eyeBlinkLeft": 1.0, **gaze})
        azimuth, height = angles_of(shut[corner] - moving.eye_centres[0, 0])
        assert np.abs(np.diff(height) / np.diff(azimuth)).max() < 1


def test_the_cavity_ends_behind_the_lids(base, fitted):
    def deep(points):
        near = np.hypot(*(points - base.eye_centres[0, 0])[:, :2].T) < 0.012
        return (near & (points[:, 2] < base.eye_centres[0, 0, 2])).any()

    assert deep(base.template)
    assert not deep(fitted.template[fitted.rows("skin")])


def test_rings_go_from_the_outer_corner_over_the_upper_lid(fitted):
    left, right = lid_rings(fitted)
    for rings in (left, right):
        for ring in (*rings.rings[:3], rings.margin[2]):
            points = fitted.template[ring]
            quarter = len(ring) // 4
            assert abs(points[0, 0]) > abs(points[2 * quarter, 0])
            assert points[quarter, 1] > points[3 * quarter, 1]
    for one, other in zip(left.rings, right.rings, strict=True):
        np.testing.assert_allclose(fitted.template[one], fitted.template[other] * [-1, 1, 1], atol=1e-9)


def test_a_blink_shuts_exactly_for_everybody(moving, people):
    for rings, name in zip(lid_rings(moving), ("Left", "Right"), strict=True):
        for shape in (np.zeros(len(moving.shape)), *people):
            neutral = moving.vertices(None, shape)
            apart = lids_apart(moving.vertices({f"eyeBlink{name}": 1.0}, shape), neutral, rings)
            assert np.abs(apart).max() < 0.0001


@pytest.mark.parametrize("unit", ["eyeBlink", "eyeLookDown"])
def test_the_upper_lid_is_drawn_out_of_its_fold_which_hardly_moves(moving, unit):
    for side, rings in zip(lids.SIDES, lid_rings(moving), strict=True):
        down = -moving.expression[moving.unit(f"{unit}{side}"), :, 1]
        middle = rings.columns // 4
        lid = down[rings.margin[2][middle]]
        fold = rings.skin[lids.LidsConfig().fold_ring]

        assert lid > 0.003
        assert 0 < down[fold[len(fold) // 4]] < 0.3 * lid


def test_a_blink_opens_evenly_and_slides_on_the_eyeball(moving):
    rings = lid_rings(moving)[0]
    none = np.zeros(len(moving.shape))
    opening = lids_apart(moving.template, moving.template, rings)
    edge = rings.margin[0][shared_columns(rings)]
    for weight in np.linspace(0, 1, 11):
        vertices = moving.vertices({"eyeBlinkLeft": weight}, none)
        apart = lids_apart(vertices, moving.template, rings)
        off = off_the_ball(moving, vertices, edge, none)
        assert apart.mean() / opening.mean() == pytest.approx(1 - weight, abs=0.04)
        assert off.min() > 0.00005
        assert off.max() < 0.0005


@pytest.mark.parametrize("gaze", ["Down", "Up", "In"])
def test_lids_stay_on_the_eyeball_in_a_blink_under_gaze(moving, people, gaze):
    rings = lid_rings(moving)[0]
    edge = rings.margin[0][shared_columns(rings)]
    for shape in (np.zeros(len(moving.shape)), *people):
        for weight in (0.0, 0.3, 0.6, 1.0):
            posed = moving.vertices({"eyeBlinkLeft": weight, f"eyeLook{gaze}Left": 1.0}, shape)
            off = off_the_ball(moving, posed, edge, shape)
            assert off.min() > -0.00005
            assert off.max() < 0.0005


def test_the_upper_lid_does_most_of_a_blink(moving):
    rings = lid_rings(moving)[0]
    moved = moving.expression[moving.unit("eyeBlinkLeft")]
    quarter = rings.columns // 4
    upper, lower = (moved[rings.margin[0][k], 1] for k in (quarter, -quarter))

    assert upper < 0 < lower
    assert lower < -0.3 * upper


@pytest.mark.parametrize(
    "unit", ["eyeWide", "eyeSquint", "eyeLookUp", "eyeLookDown", "eyeLookIn", "cheekSquint"]
)
def test_a_blink_shuts_whatever_other_units_do(moving, unit):
    rings = lid_rings(moving)[0]
    both = moving.vertices({"eyeBlinkLeft": 1.0, f"{unit}Left": 1.0})
    alone = moving.vertices({f"{unit}Left": 1.0})
    edge = rings.margin[0]

    assert np.linalg.norm((alone - moving.template)[edge], axis=1).max() > 0.0005
    apart = lids_apart(both, moving.template, rings)
    assert apart.min() > -0.00005 and apart.max() < 1e-7


def test_units_move_the_lids_as_their_names_say(moving):
    rings = lid_rings(moving)[0]
    quarter = rings.columns // 4
    upper, lower = (rings.margin[0][k] for k in (quarter, -quarter))

    def moved(unit, vertex):
        return moving.expression[moving.unit(f"eye{unit}Left"), vertex] * 1000

    assert moved("Wide", upper)[1] > 1.5
    assert moved("Squint", lower)[1] > 1.3
    assert moved("LookUp", upper)[1] > 2 and moved("LookUp", lower)[1] > 0.8
    assert moved("LookDown", upper)[1] < -3 and moved("LookDown", lower)[1] < -1
    assert moved("LookIn", upper)[0] < -1 < 1 < moved("LookOut", upper)[0]


def test_other_units_move_lids_along_the_eyeball_only(fitted, moving):
    rings = lid_rings(moving)[0]
    edge = rings.margin[0][shared_columns(rings)]
    outwards = moving.template[edge] - moving.eye_centres[0, 0]
    before, after = (
        (draft.expression[draft.unit("cheekSquintLeft"), edge] * outwards).sum(1)
        for draft in (fitted, moving)
    )

    assert np.abs(before).max() > 1e-6
    np.testing.assert_allclose(after, 0, atol=1e-12)


def test_sides_mirror_each_other(moving):
    left, right = (np.concatenate(rings.rings) for rings in lid_rings(moving))
    for unit in ("Blink", "Wide", "Squint", "LookUp", "LookDown", "LookIn", "LookOut"):
        one, other = (moving.expression[moving.unit(f"eye{unit}{side}")] for side in ("Left", "Right"))
        np.testing.assert_allclose(one[left], other[right] * [-1, 1, 1], atol=1e-9)
        assert not one[right].any()


def test_tears_lie_between_lower_lid_and_eyeball_and_follow_the_lid(moving):
    rings = lid_rings(moving)[0]
    rows = moving.rows("left_tear_line")
    edge = rings.margin[0][rings.columns // 2 :]
    none = np.zeros(len(moving.shape))
    off = off_the_ball(moving, moving.template, rows, none)
    squint = moving.expression[moving.unit("eyeSquintLeft")]

    assert off.min() > -1e-9
    assert np.median(off) < 0.0004
    assert np.linalg.norm(squint[rows], axis=1).max() == pytest.approx(
        np.linalg.norm(squint[edge], axis=1).max()
    )


def test_another_mesh_is_refused(base):
    holed = replace(base, quads=base.quads[200:], parts=base.parts[200:], uv_quads=base.uv_quads[200:])
    with pytest.raises(AvfaceError, match="MakeHuman"):
        eyeballs.step(holed)
    with pytest.raises(AvfaceError, match="cut_and_refine"):
        lids.step(base)


@pytest.mark.parametrize(
    "values",
    [{"iris_radius": 0.001}, {"segments": 7}, {"cornea": -0.001}, {"gap": 0.0}, {"pupil_radius": 0.0}],
)
def test_impossible_eyes_are_refused(values):
    with pytest.raises(AvfaceError):
        eyeballs.EyesConfig(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"gap": 0.0},
        {"soft_rings": 0},
        {"skin_variety": 1.1},
        {"upright": -0.1},
        {"skin_heights": (0.014, 0.006)},
        {"caruncle": (-0.1, 0.5)},
    ],
)
def test_impossible_lids_at_rest_are_refused(values):
    with pytest.raises(AvfaceError, match=next(iter(values))):
        LidFitConfig(**values)


@pytest.mark.parametrize(
    "values", [{"meeting": 0.5}, {"fold_share": 1.2}, {"joint_up": -0.1}, {"people": 0}, {"fold_ring": 0}]
)
def test_impossible_movements_of_lids_are_refused(values):
    with pytest.raises(AvfaceError, match=next(iter(values))):
        lids.LidsConfig(**values)
