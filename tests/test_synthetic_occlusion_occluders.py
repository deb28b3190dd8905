"""The hand model, drawing, occluders of all kinds, and face poses."""

import numpy as np
import pytest

from avface.errors import AvfaceError
from avface.synthetic.occlusion.face_pose import face_poses
from avface.synthetic.occlusion.occluders import hand_model
from avface.synthetic.occlusion.occluders.average_face import average_face
from avface.synthetic.occlusion.occluders.drawing import Light, Surface, View, draw, merged, srgb
from avface.synthetic.occlusion.occluders.hand_builder import HandBuildConfig
from avface.synthetic.occlusion.occluders.hand_model import (
    FINGERS,
    HAND_FILE,
    HAND_POSES,
    JOINT_NAMES,
    load_hand,
    perturbed,
)
from avface.synthetic.occlusion.occluders.sampling import OCCLUDER_KINDS, WORN_KINDS, sample_occluder
from avface.synthetic.occlusion.occluders.shapes import slab, surface_of_revolution, tube
from avface.synthetic.rendering.sensor import linear_light

LIGHT = Light((0.0, 0.6, 0.8), 0.6)


def volume(vertices, faces):
    """Signed volume that a closed surface contains: positive when triangles show their outer side anticlockwise."""
    a, b, c = vertices[faces].transpose(1, 0, 2)
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def posed(hand, name="relaxed", shape=None):
    shape = np.zeros(hand.num_shape) if shape is None else shape
    return hand.vertices(shape, hand.rotations(HAND_POSES[name]))


def test_the_hands_file_is_small_finite_and_closed():
    hand = load_hand()

    assert HAND_FILE.stat().st_size < 1_500_000
    for array in (hand.template, hand.shape_basis, hand.joints, hand.skin_weights, hand.uv):
        assert np.isfinite(array).all()
    edges = np.concatenate([hand.faces[:, [0, 1]], hand.faces[:, [1, 2]], hand.faces[:, [2, 0]]])
    unique = {tuple(edge) for edge in edges.tolist()}
    assert len(unique) == len(edges), "no edge is used twice in one direction"
    assert all((b, a) in unique for a, b in unique), "every edge has a neighbour: the mesh is closed"
    np.testing.assert_allclose(hand.skin_weights.sum(1), 1, atol=1e-5)
    assert (hand.uv >= 0).all() and (hand.uv <= 1).all()
    assert 2e-4 < volume(hand.template, hand.faces) < 2.5e-3, "a hand with its forearm has about a litre"


def test_the_hand_has_a_persons_size():
    hand = load_hand()
    tip = hand.template[hand.skin_weights[:, JOINT_NAMES.index("middle_3")] > 0.9, 1].max()

    assert 0.15 < tip < 0.21, f"wrist to middle finger's tip {tip:.3f} m"
    spread = np.linalg.norm(hand.shape_basis, axis=2).max(1)
    assert (np.diff(spread) < spread[0]).all() and 0.002 < spread[0] < 0.05


def test_a_hand_at_rest_is_its_template():
    hand = load_hand()

    np.testing.assert_allclose(posed(hand), hand.template, atol=1e-6)


def test_the_left_hand_is_the_right_one_mirrored_in_every_pose():
    right, left = load_hand(), load_hand().mirrored()
    shape = np.random.default_rng(0).normal(size=right.num_shape)

    for name in HAND_POSES:
        flipped = posed(right, name, shape) * [-1, 1, 1]
        np.testing.assert_allclose(posed(left, name, shape), flipped, atol=1e-6)
    assert volume(left.template, left.faces) == pytest.approx(volume(right.template, right.faces), rel=1e-4)


@pytest.mark.parametrize("finger", FINGERS[1:])
def test_a_fist_brings_fingertips_to_the_palm(finger):
    hand = load_hand()
    tip = hand.skin_weights[:, JOINT_NAMES.index(f"{finger}_3")] > 0.9

    rest, fist = posed(hand)[tip].mean(0), posed(hand, "fist")[tip].mean(0)

    assert fist[1] < rest[1] - 0.04, "fingertips come back towards the wrist"
    assert fist[2] > 0.01, "on the palm's side"


def test_only_the_hand_moves_with_its_joints():
    hand = load_hand()
    forearm = hand.skin_weights[:, 0] > 0.999

    np.testing.assert_allclose(posed(hand, "fist")[forearm], hand.template[forearm], atol=1e-6)


def test_perturbed_poses_stay_within_the_limits():
    rng = np.random.default_rng(0)
    low, high = hand_model.FLEXION_LIMITS
    for name in HAND_POSES:
        pose = perturbed(HAND_POSES[name], rng, amount=10)
        assert (pose.flexion >= low).all() and (pose.flexion <= high).all()
        assert (pose.spread >= hand_model.SPREAD_LIMITS[0]).all() and (
            pose.spread <= hand_model.SPREAD_LIMITS[1]
        ).all()


def test_a_missing_damaged_or_other_hand_file_is_named(tmp_path):
    with pytest.raises(AvfaceError, match="no such hand"):
        load_hand(tmp_path / "none.npz")
    broken = tmp_path / "broken.npz"
    broken.write_bytes(HAND_FILE.read_bytes()[:5000])
    with pytest.raises(AvfaceError, match=r"broken\.npz: damaged"):
        load_hand(broken)
    old = tmp_path / "old.npz"
    np.savez(old, version=np.array(0))
    with pytest.raises(AvfaceError, match=r"old\.npz: not a hand of version"):
        load_hand(old)


def test_saving_and_loading_keeps_the_hand(tmp_path):
    hand = load_hand()
    hand_model.save_hand(hand, tmp_path / "hand.npz")

    again = load_hand(tmp_path / "hand.npz")

    np.testing.assert_allclose(again.shape_basis, hand.shape_basis, atol=1e-6)
    np.testing.assert_allclose(again.skin_weights, hand.skin_weights, atol=5e-3)
    np.testing.assert_array_equal(again.texture, hand.texture)


@pytest.mark.parametrize(
    "mesh",
    [
        surface_of_revolution([[1e-9, 1.0], [1.0, 0.5], [1.0, -0.5], [1e-9, -1.0]]),
        tube(np.linspace(0, 1, 9)[:, None] * [0.2, 1, 0.1], [1e-9, *[0.1] * 7, 1e-9]),
        slab(0.07, 0.15, 0.01, 0.01),
    ],
)
def test_shapes_show_their_outer_side(mesh):
    vertices, faces, uv = mesh

    assert volume(vertices, faces) > 0
    assert len(uv) == len(vertices) and (uv >= 0).all() and (uv <= 1).all()


def test_light_shows_a_surface_in_its_own_colour_on_average():
    rng = np.random.default_rng(0)
    place = rng.uniform(-0.95, 0.95, (3, 4000))
    place = place[:, place[0] ** 2 + place[1] ** 2 < 0.9]
    place[2] = np.sqrt(1 - place[0] ** 2 - place[1] ** 2)

    shade = LIGHT.shade(place.astype(np.float32))

    assert 0.93 < shade.mean() < 1.07
    assert shade[place[1] > 0.6].mean() > 1.2 * shade[place[1] < -0.6].mean(), "light from above"


def test_srgb_and_linear_light_are_each_others_inverse():
    values = np.linspace(0.05, 1, 50)

    np.testing.assert_allclose(srgb(linear_light(values)), values, atol=3e-3)


def square(side=0.1, colour=(0.5, 0.25, 0.1), z=0.0):
    corners = np.array([[-1.0, 1, 0], [-1, -1, 0], [1, -1, 0], [1, 1, 0]]) * side / 2 + [0, 0, z]
    texture = np.broadcast_to(np.array(colour, np.float32), (8, 8, 3))
    uv = np.array([[0, 1], [0, 0], [1, 0], [1, 1]])
    return Surface.of(corners, np.array([[0, 1, 2], [0, 2, 3]]), uv, texture, gloss=0.0)


def test_a_drawn_square_has_its_size_place_and_colour():
    layer = draw(square(), View((40.0, 30.0), 300.0, 0.5), Light((0, 0, 1), 0.5), (80, 60), edge=0.0)

    rows, columns = np.nonzero(layer.alpha)
    assert columns.min() + layer.left == 25 and columns.max() + layer.left == 55
    assert rows.min() + layer.top == 15 and rows.max() + layer.top == 45
    middle = linear_light(layer.colour[layer.alpha.shape[0] // 2, layer.alpha.shape[1] // 2])
    np.testing.assert_allclose(middle / middle[0], [1, 0.5, 0.2], atol=0.02)


def test_nothing_is_drawn_outside_of_the_picture():
    assert draw(square(), View((400.0, 30.0), 300.0, 0.5), LIGHT, (80, 60)) is None


def test_what_is_hidden_isnt_drawn():
    before = square(side=0.3, z=0.1)
    view = View((40.0, 30.0), 300.0, 0.5)

    assert draw(square(), view, LIGHT, (80, 60), hidden_by=(before.vertices, before.faces)) is None


def test_merged_surfaces_keep_their_own_textures():
    left = square(0.08, (1, 0, 0)).transformed(np.eye(3), [-0.05, 0, 0])
    right = square(0.08, (0, 0, 1)).transformed(np.eye(3), [0.05, 0, 0])
    view = View((40.0, 30.0), 300.0, 0.5)

    layer = draw(merged([left, right]), view, LIGHT, (80, 60), edge=0)

    row = layer.colour[layer.alpha.shape[0] // 2]
    red, blue = row[25 - layer.left], row[55 - layer.left]
    assert red[0] > 0.8 and red[2] < 0.02 and blue[2] > 0.8 and blue[0] < 0.02


@pytest.mark.parametrize("kind", OCCLUDER_KINDS)
def test_every_kind_can_be_drawn_in_front_of_the_face(kind):
    face = average_face()
    size = (240, 240)
    view = View((120.0, 110.0), 900.0, 0.7)
    mouth = np.round(view.project(face.mouth[None])[0][0]).astype(int)
    covered = 0
    for seed in range(4):
        occluder = sample_occluder(np.random.default_rng(seed), (kind,), over_mouth=True)
        occluder = occluder.colour_matched(None, 1.0, np.random.default_rng(0))
        assert occluder.kind == kind and occluder.worn == (kind in WORN_KINDS)
        layer = occluder.draw(
            view, LIGHT, size, rotation=np.eye(3), shift=np.zeros(3), head_rotation=np.eye(3)
        )
        assert np.isfinite(layer.colour).all() and layer.colour.min() >= 0 and layer.colour.max() <= 1
        assert layer.alpha.min() >= 0 and layer.alpha.max() <= 1 + 1e-6
        assert (layer.alpha > 0.5).sum() > 100
        row, column = mouth[1] - layer.top, mouth[0] - layer.left
        inside = 0 <= row < layer.alpha.shape[0] and 0 <= column < layer.alpha.shape[1]
        covered += bool(inside and layer.alpha[row, column] > 0.5)
    if kind not in ("sunglasses", "hair"):
        assert covered >= 3, f"{kind} covered the mouth in {covered} of 4"


def test_sunglasses_sit_on_the_eyes_of_a_turned_head():
    from scipy.spatial.transform import Rotation

    face = average_face()
    view = View((150.0, 150.0), 1000.0, 0.8)
    for yaw in (-25, 0, 25):
        turn = Rotation.from_euler("y", yaw, degrees=True).as_matrix()
        occluder = sample_occluder(np.random.default_rng(3), ("sunglasses",))
        layer = occluder.draw(
            view, LIGHT, (300, 300), rotation=np.eye(3), shift=np.zeros(3), head_rotation=turn
        )
        for eye in (face.left_eye, face.right_eye):
            x, y = np.round(view.project((turn @ eye)[None])[0][0]).astype(int)
            assert layer.alpha[y - layer.top, x - layer.left] > 0.7, f"yaw {yaw}"


def test_a_hand_takes_on_the_skin_of_a_face():
    dark = np.clip(np.random.default_rng(0).normal([0.36, 0.24, 0.18], 0.03, (2000, 3)), 0, 1)
    occluder = sample_occluder(np.random.default_rng(1), ("hand",))

    colour_matched = occluder.colour_matched(dark, 1.0, np.random.default_rng(0))

    np.testing.assert_allclose(srgb(colour_matched.arm.texture).mean((0, 1)), dark.mean(0), atol=0.03)
    assert srgb(occluder.arm.texture).mean() > 0.5, "the first one stays as it was"


def test_the_same_seed_gives_the_same_occluder():
    first, again = (sample_occluder(np.random.default_rng(7)) for _ in range(2))

    assert first.kind == again.kind
    np.testing.assert_array_equal(first.target, again.target)


@pytest.mark.parametrize("kinds", [(), ("elephant",), ("hand", "Cup"), "hand"])
def test_unknown_kinds_are_refused_by_name(kinds):
    with pytest.raises(AvfaceError, match="there are hand, microphone"):
        sample_occluder(np.random.default_rng(0), kinds)


def landmarks_of(turn, scale=800.0, centre=(100.0, 90.0)):
    points = average_face().landmarks @ turn.T
    return np.stack([centre[0] + scale * points[:, 0], centre[1] - scale * points[:, 1]], 1)


def test_the_pose_of_a_known_head_comes_back():
    from scipy.spatial.transform import Rotation

    turns = Rotation.from_euler("yxz", [[0, 0, 0], [30, 0, 0], [-20, 15, 10]], degrees=True)

    poses = face_poses([landmarks_of(turn) for turn in turns.as_matrix()])

    np.testing.assert_allclose(poses.turn, turns.as_rotvec(), atol=1e-6)
    np.testing.assert_allclose(poses.scale, 800, rtol=1e-6)
    np.testing.assert_allclose(poses.centre, [[100, 90]] * 3, atol=1e-6)


def test_poses_of_frames_without_a_face_are_interpolated():
    frames = [landmarks_of(np.eye(3), centre=(x, 90.0)) for x in (100.0, 110.0, 120.0)]
    frames[1] = np.full((478, 2), np.nan)

    poses = face_poses(frames)

    assert poses.seen.tolist() == [True, False, True]
    assert poses.centre[1, 0] == pytest.approx(110)


def test_smoothing_doesnt_mix_shots():
    frames = [landmarks_of(np.eye(3), centre=(100.0 if t < 5 else 400.0, 90.0)) for t in range(10)]

    smooth = face_poses(frames).smoothed(2.0)

    np.testing.assert_allclose(smooth.centre[:, 0], [100.0] * 5 + [400.0] * 5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"components": 0}, "components=0 must be at least 1 and below samples=2000"),
        ({"components": 12, "samples": 12}, "components=12 must be at least 1 and below samples=12"),
        ({"local_sigma": -0.1}, "local_sigma=-0.1 must not be negative"),
        ({"texture_size": 8}, "texture_size=8 must be at least 16"),
    ],
)
def test_impossible_builds_of_the_hand_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        HandBuildConfig(**settings)


def test_a_clip_without_any_face_is_refused():
    with pytest.raises(AvfaceError, match="no face"):
        face_poses(np.full((3, 478, 2), np.nan))
    with pytest.raises(ValueError, match="478"):
        face_poses(np.zeros((3, 68, 2)))
