"""The open head as a function: effects of units and joints, and derivatives."""

import numpy as np
import pytest
import roma
import torch

from avface.head import load_head
from avface.head.schemes import LEFT_EYE_LOWER, LEFT_EYE_UPPER, RIGHT_EYE_LOWER, RIGHT_EYE_UPPER

CHIN_IBUG = 8


@pytest.fixture(scope="module")
def head():
    return load_head("open")


@pytest.fixture(scope="module")
def exact():
    return load_head("open").double()


def inputs(head, batch=1, seed=0, dtype=torch.float32):
    rng = np.random.default_rng(seed)
    arrays = (
        rng.normal(0, 1, (batch, head.num_shape)),
        rng.uniform(0, 1, (batch, head.num_expression)),
        rng.normal(0, 0.3, (batch, head.num_joints, 3)),
    )
    return tuple(torch.as_tensor(array, dtype=dtype) for array in arrays)


def rest(head):
    return head(torch.zeros(1, head.num_shape))[0]


def with_unit(head, **weights):
    expression = torch.zeros(1, head.num_expression)
    for name, weight in weights.items():
        expression[0, head.expression_names.index(name)] = weight
    return head(torch.zeros(1, head.num_shape), expression)[0]


def with_joint(head, name, rotation, shape=None):
    joints = torch.zeros(1, head.num_joints, 3)
    joints[0, head.joint_names.index(name)] = torch.as_tensor(rotation)
    return head(torch.zeros(1, head.num_shape) if shape is None else shape, None, joints)[0]


def part(head, name):
    return torch.as_tensor(head.vertex_parts() == head.part_names.index(name))


def eyeball(head, side):
    return torch.stack([part(head, f"{side}_{kind}") for kind in ("eye", "iris", "pupil")]).any(0)


def landmarks(head, vertices, scheme="mediapipe478"):
    embedding = head.embedding(scheme)
    corners = vertices.double()[torch.as_tensor(embedding.triangles)]
    return torch.einsum("lkc,lk->lc", corners, torch.as_tensor(embedding.barycentric))


def lid_gap(head, vertices, side):
    upper, lower = {
        "left": (LEFT_EYE_UPPER, LEFT_EYE_LOWER),
        "right": (RIGHT_EYE_UPPER, RIGHT_EYE_LOWER),
    }[side]
    points = landmarks(head, vertices)
    return float((points[upper, 1] - points[lower, 1]).mean())


def boundary(head):
    """Vertices of the mesh boundary at the bottom of the neck."""
    faces = head.faces.numpy()
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    rim = np.unique(unique[count == 1])
    rim = rim[
        np.isin(
            head.vertex_parts()[rim], [head.part_names.index("skin"), head.part_names.index("mouth_cavity")]
        )
    ]
    return rim[head.template.numpy()[rim, 1] < -0.09]


# Function


def test_zero_weights_give_the_template_exactly(head):
    zeros = (torch.zeros(1, n) for n in (head.num_shape, head.num_expression))

    torch.testing.assert_close(head(*zeros)[0], head.template, rtol=0, atol=0)
    still = head(torch.zeros(1, head.num_shape), None, torch.zeros(1, head.num_joints, 3))[0]
    torch.testing.assert_close(still, head.template, rtol=0, atol=1e-7)


def test_a_batch_equals_its_heads_one_at_a_time(exact):
    shape, expression, joints = inputs(exact, 4, dtype=torch.float64)

    together = exact(shape, expression, joints)

    for k in range(4):
        alone = exact(shape[k : k + 1], expression[k : k + 1], joints[k : k + 1])[0]
        torch.testing.assert_close(together[k], alone, rtol=0, atol=1e-12)


def test_one_shape_serves_a_whole_clip(head):
    shape, expression, joints = inputs(head, 3)

    shared = head(shape[:1], expression, joints)

    torch.testing.assert_close(shared, head(shape[:1].expand(3, -1), expression, joints), rtol=0, atol=1e-6)
    assert head(shape[:1], None, joints).shape == (3, head.num_vertices, 3)
    assert head(shape, expression, joints[:1]).shape == (3, head.num_vertices, 3)


def test_vertices_are_single_precision_unless_the_head_is_made_double(head, exact):
    assert head(*inputs(head)).dtype == torch.float32
    assert exact(*inputs(exact, dtype=torch.float64)).dtype == torch.float64
    torch.testing.assert_close(
        head(*inputs(head)).double(), exact(*inputs(exact, dtype=torch.float64)), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    ("argument", "size"),
    [
        ("shape", (1, 99)),
        ("shape", (100,)),
        ("expression", (1, 51)),
        ("expression", (2, 1, 52)),
        ("joints", (1, 2, 3)),
        ("joints", (3, 3)),
    ],
)
def test_arguments_of_the_wrong_size_are_refused_by_name(head, argument, size):
    arguments = {"shape": torch.zeros(1, head.num_shape), argument: torch.zeros(size)}

    with pytest.raises(ValueError, match=f"{argument} has shape .*open head needs"):
        head(**arguments)


def test_gradients_agree_with_finite_differences(exact):
    values = inputs(exact, seed=3, dtype=torch.float64)
    weights = torch.as_tensor(np.random.default_rng(4).normal(size=(exact.num_vertices, 3)))
    flat = torch.cat([value.flatten() for value in values]).requires_grad_()

    def objective(rows):
        shape, expression, joints = rows.split([value.numel() for value in values], dim=1)
        vertices = exact(shape, expression, joints.unflatten(1, (-1, 3)))
        return (weights * vertices).sum((1, 2))

    (gradient,) = torch.autograd.grad(objective(flat[None]).sum(), flat)
    step = 1e-6
    with torch.no_grad():
        nudges = step * torch.eye(len(flat), dtype=torch.float64)
        numeric = torch.cat(
            [(objective(flat + n) - objective(flat - n)) / (2 * step) for n in nudges.split(40)]
        )
    torch.testing.assert_close(gradient, numeric, rtol=1e-6, atol=1e-6)
    assert (numeric.abs() > 1e-4).float().mean() > 0.9  # nearly every input does something


# Expression


def test_opening_the_jaw_lowers_the_chin_and_leaves_the_skull_still(head):
    shut, wide = rest(head), with_unit(head, jawOpen=1.0)

    drop = landmarks(head, shut, "ibug68")[CHIN_IBUG, 1] - landmarks(head, wide, "ibug68")[CHIN_IBUG, 1]
    assert 0.015 < drop < 0.06, f"chin moved {float(drop):.4f} m"
    moved = (wide - shut).norm(dim=1)
    assert moved[head.template[:, 1] > 0.03].max() < 1e-4  # from the brows up
    assert moved[part(head, "upper_teeth")].max() < 1e-4
    lowered = (shut - wide)[part(head, "lower_teeth"), 1]
    assert lowered.min() > 0.005


@pytest.mark.parametrize(("side", "other"), [("left", "right"), ("right", "left")])
def test_a_blink_closes_its_own_eye_only(head, side, other):
    shut = with_unit(head, **{f"eyeBlink{side.title()}": 1.0})

    assert lid_gap(head, rest(head), side) > 0.006
    assert lid_gap(head, shut, side) < 0.25 * lid_gap(head, rest(head), side)
    assert lid_gap(head, shut, other) == pytest.approx(lid_gap(head, rest(head), other), abs=1e-5)


def test_a_smile_raises_the_corner_of_its_own_side(head):
    corners = [291, 61]  # left, right
    moved = landmarks(head, with_unit(head, mouthSmileLeft=1.0)) - landmarks(head, rest(head))

    left, right = moved[corners]
    assert left[1] > 0.004 and left[0] > 0.002
    assert right.norm() < 0.25 * left.norm()


def test_raised_brows_go_up_and_lowered_ones_down(head):
    brows = [105, 334]
    neutral = landmarks(head, rest(head))[brows, 1]

    assert (landmarks(head, with_unit(head, browInnerUp=1.0))[[107, 336], 1] > 0.002).all()
    for side, row in (("Right", 0), ("Left", 1)):
        raised = landmarks(head, with_unit(head, **{f"browOuterUp{side}": 1.0}))[brows, 1] - neutral
        lowered = landmarks(head, with_unit(head, **{f"browDown{side}": 1.0}))[brows, 1] - neutral
        assert raised[row] > 0.002 and lowered[row] < -0.002


def test_expressions_never_move_the_eyeballs(head):
    _, expression, _ = inputs(head)
    moved = head(torch.zeros(1, head.num_shape), expression)[0]

    for side in ("left", "right"):
        torch.testing.assert_close(
            moved[eyeball(head, side)], rest(head)[eyeball(head, side)], rtol=0, atol=1e-7
        )


# Joints


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("rotation", [[0.3, 0.0, 0.0], [0.0, -0.4, 0.0], [0.2, 0.25, -0.1]])
def test_an_eye_turns_rigidly_about_its_joint_by_exactly_the_angle(exact, side, rotation):
    shape = torch.as_tensor(np.random.default_rng(1).normal(0, 1, (1, exact.num_shape)))
    joints = torch.zeros(1, exact.num_joints, 3, dtype=torch.float64)
    number = exact.joint_names.index(f"{side}_eye")
    joints[0, number] = torch.tensor(rotation, dtype=torch.float64)

    before, after = exact.neutral(shape)[0], exact(shape, None, joints)[0]

    ball = eyeball(exact, side)
    centre = exact.joint_positions(shape)[0, number]
    turn = roma.rotvec_to_rotmat(joints[0, number])
    torch.testing.assert_close(after[ball], (before[ball] - centre) @ turn.T + centre, rtol=0, atol=1e-7)
    torch.testing.assert_close(after[~ball], before[~ball], rtol=0, atol=1e-7)


def test_the_eye_joint_is_the_middle_of_a_round_eyeball(head):
    joints = head.joint_positions(torch.zeros(1, head.num_shape))[0]

    for side in ("left", "right"):
        ball = rest(head)[eyeball(head, side)]
        radius = (ball - joints[head.joint_names.index(f"{side}_eye")]).norm(dim=1)
        assert 0.010 < radius.mean() < 0.018  # larger than a person's 12 mm: MakeHuman's eyes fill their lids
        assert radius.max() - radius.min() < 0.15 * radius.mean()


@pytest.mark.parametrize("side", ["left", "right"])
def test_pupils_follow_yaw_to_the_subjects_left_and_pitch_down(head, side):
    pupil = part(head, f"{side}_pupil")
    before = rest(head)[pupil].mean(0)

    yawed = with_joint(head, f"{side}_eye", [0.0, 0.2, 0.0])[pupil].mean(0) - before
    pitched = with_joint(head, f"{side}_eye", [0.2, 0.0, 0.0])[pupil].mean(0) - before

    assert 0.0015 < yawed[0] < 0.004 and abs(yawed[1]) < 1e-4
    assert -0.004 < pitched[1] < -0.0015 and abs(pitched[0]) < 1e-4


def test_pupil_and_iris_look_out_of_the_face(head):
    joints = head.joint_positions(torch.zeros(1, head.num_shape))[0]

    for side in ("left", "right"):
        gaze = rest(head)[part(head, f"{side}_pupil")].mean(0) - joints[head.joint_names.index(f"{side}_eye")]
        assert gaze[2] / gaze.norm() > 0.99


def test_turning_the_neck_moves_the_skull_and_not_the_rim_at_the_bottom(head):
    turned = with_joint(head, "neck", [0.0, 0.5, 0.0])
    moved = (turned - rest(head)).norm(dim=1)

    rim = boundary(head)
    assert len(rim) > 20
    assert moved[rim].max() < 1e-4
    assert moved[head.template[:, 1] > 0.05].median() > 0.02
    skull = torch.as_tensor(head.regions["eyelids"] | head.regions["nose"]) | eyeball(head, "left")
    pivot = head.joint_positions(torch.zeros(1, head.num_shape))[0, 0]
    turn = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.5, 0.0]))
    torch.testing.assert_close(turned[skull], (rest(head)[skull] - pivot) @ turn.T + pivot, rtol=0, atol=1e-4)
    assert turned[part(head, "left_pupil"), 0].mean() > rest(head)[part(head, "left_pupil"), 0].mean()


def test_an_eye_adds_its_turn_to_the_necks(exact):
    joints = torch.zeros(1, exact.num_joints, 3, dtype=torch.float64)
    neck, eye = exact.joint_names.index("neck"), exact.joint_names.index("left_eye")
    joints[0, neck, 1], joints[0, eye, 1] = 0.3, 0.2

    rotation, _ = exact.joint_transforms(torch.zeros(1, exact.num_shape, dtype=torch.float64), joints)

    expected = torch.tensor([0.0, 0.5, 0.0], dtype=torch.float64)
    torch.testing.assert_close(roma.rotmat_to_rotvec(rotation[0, eye]), expected)
    ball = eyeball(exact, "left")
    shape = torch.zeros(1, exact.num_shape, dtype=torch.float64)
    before, after = exact.neutral(shape)[0][ball], exact(shape, None, joints)[0][ball]
    distances = (torch.pdist(before) - torch.pdist(after)).abs()
    assert distances.max() < 1e-9


# Anatomy


def test_the_head_is_as_large_as_a_head_and_stands_upright(head):
    size = head.template.amax(0) - head.template.amin(0)
    joints = head.joint_positions(torch.zeros(1, head.num_shape))[0]
    left, right = (joints[head.joint_names.index(f"{side}_eye")] for side in ("left", "right"))

    assert 0.13 < size[0] < 0.20 and 0.20 < size[1] < 0.30 and 0.18 < size[2] < 0.26
    assert 0.055 < left[0] - right[0] < 0.072, "eyes as far apart as people's"
    assert (left + right)[1].abs() / 2 < 1e-3, "the origin is as high as the eyes"
    nose_tip = head.template[torch.as_tensor(head.regions["nose"]), 2].max()
    assert nose_tip == head.template[torch.as_tensor(head.regions["face"]), 2].max()


def mirror_pairs(vertices):
    """For every vertex (V, 3) the one nearest to its mirror image in x = 0, and how far that is in metres."""
    from scipy.spatial import cKDTree

    return cKDTree(vertices).query(vertices * [-1, 1, 1])


def test_the_template_is_its_own_mirror_image(head):
    distance, _ = mirror_pairs(head.template.numpy())

    assert np.median(distance) < 0.0005 and distance.max() < 0.002


def test_mirrored_units_are_mirror_images(head):
    basis = head.expression_basis.numpy()
    ajar = (
        head.template.numpy() + 0.3 * basis[head.expression_names.index("jawOpen")]
    )  # lips that don't touch
    _, pair = mirror_pairs(ajar)
    skin = (part(head, "skin")).numpy()

    for name in head.expression_names:
        if name.endswith("Left"):
            left = basis[head.expression_names.index(name)]
            right = basis[head.expression_names.index(name.removesuffix("Left") + "Right")]
            error = np.linalg.norm(left[pair] * [-1, 1, 1] - right, axis=1)[skin]
            assert np.percentile(error, 99) < 0.001, f"{name}: {error.max():.4f} m"
            assert error.max() < 0.003, f"{name}: {error.max():.4f} m"


def test_the_expression_units_are_arkits_in_name_and_number(head):
    assert len(set(head.expression_names)) == head.num_expression == 52
    for stem in ("eyeBlink", "eyeSquint", "eyeWide", "browDown", "mouthSmile", "mouthFrown", "noseSneer"):
        assert {f"{stem}Left", f"{stem}Right"} <= set(head.expression_names)
    assert {"jawOpen", "mouthClose", "mouthPucker", "mouthFunnel", "cheekPuff", "tongueOut"} <= set(
        head.expression_names
    )
    moved = head.expression_basis.norm(dim=2).amax(1)
    quiet = [name for name, size in zip(head.expression_names, moved, strict=True) if size < 5e-4]
    assert not quiet, f"units that move nothing: {quiet}"


def test_random_people_have_faces_of_human_sizes(head):
    shape = torch.as_tensor(np.random.default_rng(5).normal(size=(300, head.num_shape)), dtype=torch.float32)
    joints = head.joint_positions(shape)
    apart = (
        joints[:, head.joint_names.index("left_eye")] - joints[:, head.joint_names.index("right_eye")]
    ).norm(dim=1)

    assert 0.002 < apart.std() < 0.008  # people of one sex and origin: 3.6 mm
    assert apart.min() > 0.035 and apart.max() < 0.09
