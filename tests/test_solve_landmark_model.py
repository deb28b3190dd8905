"""Landmarks as a function of the unknowns, and its derivatives."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import roma
import torch
from paired_heads import PAIRS, paired
from solve_clips import SIZE, check_equations_with_shared, truth

from avface.head import load_head
from avface.solve.expression_motion import FRAMES_AT_ONCE
from avface.solve.landmark_model import LandmarkModel, Parameters, gaze_rotation, initial_pose

STEP = 1e-6


@pytest.fixture(scope="module")
def head():
    return load_head("open")


@pytest.fixture(scope="module")
def model(head):
    return LandmarkModel(head, ((SIZE[0] - 1) / 2, (SIZE[1] - 1) / 2))


@pytest.fixture(scope="module")
def parameters(head):
    """Two frames with all unknowns non-zero and inside their bounds."""
    rng = np.random.default_rng(0)
    return truth(
        head,
        2,
        shape=rng.normal(0, 1, len(LandmarkModel(head, (0, 0)).shape_basis)),
        expression=rng.uniform(0.1, 0.9, (2, head.num_expression)),
        gaze=rng.normal(0, 0.3, (2, 2, 2)),
    ).parameters


@pytest.fixture(scope="module")
def corrected(head):
    """A model of a head with correctives of pairs of units."""
    return LandmarkModel(paired(head), ((SIZE[0] - 1) / 2, (SIZE[1] - 1) / 2))


@pytest.mark.parametrize("kind", ["model", "corrected"])
def test_landmarks_are_those_of_the_whole_head_under_a_camera(kind, request, parameters):
    from avface.geometry.camera import Camera, transform

    model = request.getfixturevalue(kind)
    head = model.head
    exact = copy.deepcopy(head).double()
    own = parameters.shape[: head.num_shape]
    unbiased = replace(parameters, shape=torch.cat([own, 0 * parameters.shape[head.num_shape :]]))
    joints = torch.zeros(2, 3, 3, dtype=torch.float64)
    joints[:, 1:, :2] = parameters.gaze
    vertices = exact(own[None], parameters.expression, joints)
    embedding = head.embedding("mediapipe478")
    corners = vertices[:, torch.as_tensor(embedding.triangles)]
    points = torch.einsum("tlkc,lk->tlc", corners, torch.as_tensor(embedding.barycentric))
    camera = Camera.centred(float(torch.exp(parameters.log_focal)), *SIZE)

    pixels = camera.project(transform(points, parameters.rotation, parameters.translation))

    torch.testing.assert_close(model.points(unbiased), points, rtol=0, atol=1e-8)
    torch.testing.assert_close(model.project(unbiased), pixels, rtol=0, atol=1e-4)


def differences(model, parameters, size, move):
    """Central differences (T, L, 2, size) of the pixels along every unknown."""
    columns = []
    for k in range(size):
        nudge = torch.zeros(size, dtype=torch.float64)
        nudge[k] = STEP
        columns.append((model.project(move(nudge)) - model.project(move(-nudge))) / (2 * STEP))
    return torch.stack(columns, -1)


def test_derivatives_by_the_local_unknowns_agree_with_finite_differences(model, parameters):
    local = model.num_local
    numeric = differences(model, parameters, local, lambda d: parameters.retract(d.expand(2, -1)))

    jacobian = model.jacobian(parameters)[..., :local]
    torch.testing.assert_close(jacobian, numeric, rtol=1e-6, atol=1e-4)
    strongest = numeric.abs().amax((0, 1, 2))
    assert (strongest[[*range(6), *range(local - 4, local)]] > 10).all(), "pose and gaze move pixels"


def test_derivatives_by_units_with_correctives_agree_with_finite_differences(corrected, parameters):
    names = corrected.head.expression_names
    units = sorted({6 + names.index(name) for pair in PAIRS for name in pair})
    columns = torch.eye(corrected.num_local, dtype=torch.float64)[units]
    numeric = differences(
        corrected, parameters, len(units), lambda d: parameters.retract((d @ columns).expand(2, -1))
    )

    jacobian = corrected.jacobian(parameters)[..., units]
    torch.testing.assert_close(jacobian, numeric, rtol=1e-6, atol=1e-4)
    linear = LandmarkModel(load_head(), (0, 0)).jacobian(parameters)[..., units]
    assert (numeric - linear).abs().amax((0, 1, 2)).min() > 0.1, "correctives matter to each"


def test_derivatives_by_the_shape_of_terms_of_the_person_agree_with_finite_differences(corrected, parameters):
    none = torch.zeros(2, corrected.num_local, dtype=torch.float64)
    count = len(parameters.shape) + 1
    columns = torch.eye(count, dtype=torch.float64)[[0, 7, 60]]
    numeric = differences(corrected, parameters, 3, lambda d: parameters.retract(none, d @ columns))

    jacobian = corrected.jacobian(parameters)[..., corrected.num_local :][..., [0, 7, 60]]
    torch.testing.assert_close(jacobian, numeric, rtol=1e-6, atol=1e-4)
    linear = LandmarkModel(load_head(), (0, 0)).jacobian(parameters)[..., corrected.num_local :][
        ..., [0, 7, 60]
    ]
    assert (numeric - linear).abs().amax((0, 1, 2)).min() > 0.01


def test_derivatives_by_shape_and_focal_length_agree_with_finite_differences(model, parameters):
    none = torch.zeros(2, model.num_local, dtype=torch.float64)
    shared = len(parameters.shape) + 1
    numeric = differences(model, parameters, shared, lambda d: parameters.retract(none, d))

    jacobian = model.jacobian(parameters)[..., model.num_local :]
    torch.testing.assert_close(jacobian, numeric, rtol=1e-6, atol=1e-4)
    assert numeric[..., -1].abs().max() > 1, "perspective"


def test_derivatives_hold_at_rest_where_gaze_and_turn_are_zero(model, head):
    at_rest = truth(head, 1, turn=0.0).parameters
    at_rest.expression += 0.5  # away from the bounds
    numeric = differences(model, at_rest, model.num_local, lambda d: at_rest.retract(d[None]))

    torch.testing.assert_close(model.jacobian(at_rest)[..., : model.num_local], numeric, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("kind", ["model", "corrected"])
def test_equations_with_shared_unknowns_are_those_of_the_jacobian(kind, request, parameters):
    check_equations_with_shared(request.getfixturevalue(kind), parameters)


@pytest.mark.parametrize("kind", ["model", "corrected"])
def test_normal_equations_are_those_of_the_jacobian(kind, request, parameters):
    model = request.getfixturevalue(kind)
    generator = torch.Generator().manual_seed(0)
    residual = torch.randn(2, model.num_landmarks, 2, generator=generator, dtype=torch.float64)
    weights = torch.rand(2, model.num_landmarks, generator=generator, dtype=torch.float64)
    weights[0, :50] = 0

    hessian, gradient = model.normal_equations(parameters, weights, residual)

    rows = model.jacobian(parameters)[..., : model.num_local]
    dense = torch.einsum("tlid,tl,tlie->tde", rows, weights, rows)
    torch.testing.assert_close(
        gradient, torch.einsum("tlid,tl,tli->td", rows, weights, residual), rtol=1e-9, atol=1e-9
    )
    scale = dense.diagonal(dim1=1, dim2=2).clamp_min(1e-9).rsqrt()
    scaled = scale[:, :, None] * scale[:, None, :]
    torch.testing.assert_close(hessian.double() * scaled, dense * scaled, rtol=0, atol=1e-5)
    torch.testing.assert_close(hessian * scaled, hessian.mT * scaled, rtol=0, atol=1e-6, check_dtype=False)


def test_normal_equations_of_many_frames_are_those_of_each(corrected, parameters):
    frames = torch.tensor([0, 1] * FRAMES_AT_ONCE)  # more than are taken at once
    generator = torch.Generator().manual_seed(0)
    residual = torch.randn(2, corrected.num_landmarks, 2, generator=generator, dtype=torch.float64)
    weights = torch.rand(2, corrected.num_landmarks, generator=generator, dtype=torch.float64)

    hessian, gradient = corrected.normal_equations(
        parameters.select(frames), weights[frames], residual[frames]
    )

    each = corrected.normal_equations(parameters, weights, residual)
    torch.testing.assert_close(hessian, each[0][frames], rtol=1e-5, atol=1e-5 * float(each[0].max()))
    torch.testing.assert_close(gradient, each[1][frames])


def test_groups_divide_the_landmarks_and_leave_most_products_out(corrected):
    motion = corrected._expression
    landmarks = torch.cat([group.landmarks for group in motion.groups])
    assert landmarks.sort().values.tolist() == list(range(corrected.num_landmarks))
    basis = motion.basis(torch.ones(corrected.head.num_shape, dtype=torch.float64))
    for group in motion.groups:
        moving = (basis[:, group.landmarks] != 0).any(2).any(1).nonzero()[:, 0].tolist()
        held = {*group.units.tolist(), *(motion.units + group.pairs).tolist()}
        assert held >= set(moving)
        assert set(group.units.tolist()) >= set(motion.pairs[group.pairs].flatten().tolist())
    products = sum(len(group.landmarks) * len(group.units) ** 2 for group in motion.groups)
    assert products < 0.6 * corrected.num_landmarks * corrected.num_units**2


def test_a_step_keeps_expression_weights_between_0_and_1(model, parameters):
    step = torch.zeros(2, model.num_local, dtype=torch.float64)
    step[0, 6:58], step[1, 6:58] = 5, -5

    moved = parameters.retract(step)

    assert (moved.expression[0] == 1).all() and (moved.expression[1] == 0).all()


def test_a_longer_focal_length_scales_the_translation(model, parameters):
    shared = torch.zeros(len(parameters.shape) + 1, dtype=torch.float64)
    shared[-1] = np.log(1.5)

    moved = parameters.retract(torch.zeros(2, model.num_local, dtype=torch.float64), shared)

    torch.testing.assert_close(moved.translation, 1.5 * parameters.translation)
    assert float(torch.exp(moved.log_focal - parameters.log_focal)) == pytest.approx(1.5)
    assert (model.project(moved) - model.project(parameters)).abs().max() < 15  # pixels of a face of 250


def test_gaze_to_the_left_moves_the_irises_to_the_subjects_left(model, head):
    straight = truth(head, 1, turn=0.0)
    left = truth(head, 1, turn=0.0, gaze=np.array([[[0.0, 0.3], [0.0, 0.3]]]))
    down = truth(head, 1, turn=0.0, gaze=np.array([[[0.3, 0.0], [0.3, 0.0]]]))

    for iris in (468, 473):
        assert left.landmarks[0, iris, 0] - straight.landmarks[0, iris, 0] > 3
        assert down.landmarks[0, iris, 1] - straight.landmarks[0, iris, 1] > 3
    skin = np.arange(468)
    np.testing.assert_allclose(left.landmarks[0, skin], straight.landmarks[0, skin], atol=1e-9)


def test_eyes_turn_without_rolling():
    gaze = torch.tensor([[0.2, -0.3]], dtype=torch.float64)

    vector = roma.rotmat_to_rotvec(gaze_rotation(gaze))

    torch.testing.assert_close(vector, torch.tensor([[0.2, -0.3, 0.0]], dtype=torch.float64))


def test_the_initial_pose_is_near_the_true_one(model, head):
    rng = np.random.default_rng(1)
    weights = rng.uniform(0, 0.2, (8, head.num_expression))
    clip = truth(head, 8, turn=0.5, expression=weights, frame_rate=2.5)
    landmarks = torch.as_tensor(clip.landmarks)

    rotation, translation = initial_pose(
        model, landmarks, 900.0, torch.zeros(len(model.shape_basis)).double()
    )

    identity = torch.eye(3, dtype=torch.float64).expand(8, 3, 3)
    torch.testing.assert_close(rotation @ rotation.mT, identity)
    angle = roma.rotmat_geodesic_distance(rotation, clip.parameters.rotation)
    assert angle.max() < 0.25
    assert (translation - clip.parameters.translation).norm(dim=1).max() < 0.12


def test_frames_without_landmarks_start_from_the_nearest_frame_with_landmarks(model, head):
    landmarks = torch.as_tensor(truth(head, 5).landmarks)
    landmarks[[0, 2, 3]] = torch.nan

    rotation, translation = initial_pose(
        model, landmarks, 900.0, torch.zeros(len(model.shape_basis)).double()
    )

    for blank, seen in ((0, 1), (2, 1), (3, 4)):
        torch.testing.assert_close(rotation[blank], rotation[seen])
        torch.testing.assert_close(translation[blank], translation[seen])


def test_a_head_without_eye_joints_has_no_gaze(tmp_path):
    from export_heads import jawed_capture

    from avface.head.model import LandmarkEmbedding

    head = jawed_capture(tmp_path).head_model
    count = 20
    head.embeddings["mediapipe478"] = LandmarkEmbedding(
        head.faces.numpy()[:count],
        np.full((count, 3), 1 / 3),
        np.full(count, 0.002),
        np.zeros((0, count, 3)),
    )
    model = LandmarkModel(head, (0.0, 0.0))

    assert model.num_local == 6 + head.num_expression
    still = Parameters(
        torch.eye(3, dtype=torch.float64)[None],
        torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64),
        torch.zeros(1, 4, dtype=torch.float64),
        torch.zeros(1, 0, 2, dtype=torch.float64),
        torch.zeros(3, dtype=torch.float64),
        torch.tensor(0.0, dtype=torch.float64),
    )
    assert model.jacobian(still).shape == (1, count, 2, model.num_local + 4)
