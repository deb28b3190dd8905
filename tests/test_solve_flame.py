"""Heads whose jaw is a joint: landmarks, derivatives, and recovery of parameters."""

from dataclasses import replace

import numpy as np
import pytest
import roma
import torch
from flame_files import open_head_fields
from paired_heads import changed
from solve_clips import NO_PRIOR, SIZE, check_equations_with_shared

from avface.errors import AvfaceError
from avface.geometry.camera import Camera, transform
from avface.head.flame.model import JAW_UNITS, FlameFile, FlameImportConfig, flame_head
from avface.head.model import HeadModel
from avface.solve import Observations, Solver, SolverConfig
from avface.solve.jointed_landmarks import JointedLandmarkModel, landmark_model
from avface.solve.landmark_model import LandmarkModel, Parameters

STEP = 1e-6
CENTRE = ((SIZE[0] - 1) / 2, (SIZE[1] - 1) / 2)
SHAPES, COMPONENTS, FIRST = 6, 8, 17
"""Components kept; the expressions are ARKit's from the jaw on, which all move the mouth."""


def made_head(correctives: float) -> HeadModel:
    """The open head in FLAME's form with a jaw and correctives of some size in metres."""
    fields, original = open_head_fields()
    rng = np.random.default_rng(0)
    directions = fields["shapedirs"].transpose(2, 0, 1)
    smooth = rng.normal(0, correctives, (36, 3, 3)) @ fields["v_template"].T[None] / 0.1
    flame = FlameFile(
        fields["v_template"],
        fields["f"].astype(np.int64),
        directions[:300],
        directions[300 + FIRST :],
        smooth.transpose(0, 2, 1),
        fields["J_regressor"].toarray(),
        fields["weights"],
    )
    head = flame_head(flame, "made", FlameImportConfig(SHAPES, COMPONENTS))
    head.embeddings = {
        scheme: replace(embedding, error_basis=embedding.error_basis[:2])
        for scheme, embedding in original.embeddings.items()
    }
    return head


@pytest.fixture(scope="module")
def head():
    return made_head(0.002)


@pytest.fixture(scope="module")
def model(head):
    return landmark_model(head, CENTRE)


@pytest.fixture(scope="module")
def parameters(head, model):
    """Two frames with all unknowns non-zero and inside their bounds."""
    rng = np.random.default_rng(1)
    expression = rng.normal(0, 0.8, (2, head.num_expression))
    expression[:, -3:] = [[0.3, 0.05, -0.03], [0.1, -0.08, 0.02]]
    facing = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    return Parameters(
        facing @ roma.rotvec_to_rotmat(torch.as_tensor(rng.normal(0, 0.2, (2, 3)))),
        torch.as_tensor(rng.normal((0, 0, 0.6), 0.02, (2, 3))),
        torch.as_tensor(expression),
        torch.as_tensor(rng.normal(0, 0.2, (2, 2, 2))),
        torch.as_tensor(rng.normal(0, 1, len(model.shape_basis))),
        torch.tensor(np.log(900.0)),
        model.limits,
    )


@pytest.fixture(scope="module")
def corrected(head):
    """A model of the head with correctives of its units, too."""
    rng = np.random.default_rng(2)
    offsets = rng.normal(0, 0.001, (3, head.num_vertices, 3))
    return landmark_model(changed(head, pairs=((0, 0), (1, 2), (3, 1)), pair_basis=offsets), CENTRE)


def joints_of(head, gaze):
    joints = torch.zeros(len(gaze), head.num_joints, 3, dtype=torch.float64)
    joints[:, 2:, :2] = gaze
    return joints


def test_jointed_landmark_models_are_used_for_jointed_heads_only(head):
    from avface.head import load_head

    assert type(landmark_model(head, CENTRE)) is JointedLandmarkModel
    assert type(landmark_model(load_head("open"), CENTRE)) is LandmarkModel


@pytest.mark.parametrize("kind", ["model", "corrected"])
def test_landmarks_are_those_of_the_whole_head_under_a_camera(kind, request, parameters):
    import copy

    model = request.getfixturevalue(kind)
    head = model.head
    exact = copy.deepcopy(head).double()
    own = parameters.shape[:SHAPES]
    vertices = exact(own[None], parameters.expression, joints_of(head, parameters.gaze))
    embedding = head.embedding("mediapipe478")
    corners = vertices[:, torch.as_tensor(embedding.triangles)]
    points = torch.einsum("tlkc,lk->tlc", corners, torch.as_tensor(embedding.barycentric))
    points = points + torch.einsum(
        "k,klc->lc", parameters.shape[SHAPES:], torch.as_tensor(embedding.error_basis)
    )
    camera = Camera.centred(900.0, *SIZE)

    pixels = camera.project(transform(points, parameters.rotation, parameters.translation))

    torch.testing.assert_close(model.points(parameters), points, rtol=0, atol=1e-7)
    torch.testing.assert_close(model.project(parameters), pixels, rtol=0, atol=1e-3)


def differences(model, parameters, size, move):
    """Central differences (T, L, 2, size) of the pixels along every unknown."""
    columns = []
    for k in range(size):
        nudge = torch.zeros(size, dtype=torch.float64)
        nudge[k] = STEP
        columns.append((model.project(move(nudge)) - model.project(move(-nudge))) / (2 * STEP))
    return torch.stack(columns, -1)


@pytest.mark.parametrize("kind", ["model", "corrected"])
def test_derivatives_agree_with_finite_differences(kind, request, parameters):
    model = request.getfixturevalue(kind)
    local, shared = model.num_local, len(parameters.shape) + 1
    none = torch.zeros(2, local, dtype=torch.float64)

    by_local = differences(model, parameters, local, lambda d: parameters.retract(d.expand(2, -1)))
    by_shared = differences(model, parameters, shared, lambda d: parameters.retract(none, d))

    jacobian = model.jacobian(parameters)
    torch.testing.assert_close(jacobian[..., :local], by_local, rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(jacobian[..., local:], by_shared, rtol=1e-6, atol=1e-4)
    assert (by_local.abs().amax((0, 1, 2)) > 0.1).all(), "everything moves pixels"


def test_derivatives_hold_at_zero_rotation_of_the_joints(model, parameters):
    at_rest = replace(parameters, expression=0 * parameters.expression, gaze=0 * parameters.gaze)
    local = model.num_local
    numeric = differences(model, at_rest, local, lambda d: at_rest.retract(d.expand(2, -1)))

    torch.testing.assert_close(model.jacobian(at_rest)[..., :local], numeric, rtol=1e-6, atol=1e-4)
    mean = replace(at_rest, shape=0 * at_rest.shape)
    start = model.points(mean)[0]
    opened = mean.expression.clone()
    opened[:, -3] += STEP
    moved = model.points(replace(mean, expression=opened))[0] - start
    torch.testing.assert_close(model.expression_basis[-3], moved / STEP, rtol=0, atol=1e-6)


def test_equations_with_shared_unknowns_are_those_of_the_jacobian(model, parameters):
    check_equations_with_shared(model, parameters)


def test_normal_equations_are_those_of_the_jacobian(model, parameters):
    generator = torch.Generator().manual_seed(0)
    residual = torch.randn(2, model.num_landmarks, 2, generator=generator, dtype=torch.float64)
    weights = torch.rand(2, model.num_landmarks, generator=generator, dtype=torch.float64)

    hessian, gradient = model.normal_equations(parameters, weights, residual)

    rows = model.jacobian(parameters)[..., : model.num_local]
    dense = torch.einsum("tlid,tl,tlie->tde", rows, weights, rows)
    torch.testing.assert_close(
        gradient, torch.einsum("tlid,tl,tli->td", rows, weights, residual), rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(hessian.double(), dense, rtol=1e-4, atol=1e-4 * dense.abs().max().item())


def test_a_step_keeps_weights_within_the_units_limits(head, model, parameters):
    step = torch.full((2, model.num_local), 9.0, dtype=torch.float64)
    step[1] = -9

    moved = parameters.retract(step).expression.numpy()

    np.testing.assert_allclose(moved[0], head.unit_range.high)
    np.testing.assert_allclose(moved[1], head.unit_range.low)


def test_a_face_joint_under_another_that_turns_is_refused(head):
    import copy

    other = copy.copy(head)
    other.joint_parents = (-1, 0, 1, 0)
    with pytest.raises(AvfaceError, match="left_eye is the child of a joint that turns"):
        landmark_model(other, CENTRE)


def talking(head, model, frames=40):
    """A head that turns while it talks: parameters and landmarks (T, L, 2)."""
    times = np.arange(frames) / 30
    phase = torch.as_tensor(2 * np.pi * times / 3)
    facing = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    turns = [0.3 * torch.sin(phase), 0.2 * torch.cos(phase), 0.1 * torch.sin(2 * phase)]
    expression = np.zeros((frames, head.num_expression))
    rng = np.random.default_rng(2)
    for unit in range(COMPONENTS):
        expression[:, unit] = rng.normal(0, 0.5) + 0.6 * np.sin(5 * times + rng.uniform(0, 6))
    opening = 0.15 - 0.12 * np.cos(9 * times)
    expression[:, -3:] = np.stack([opening, 0.04 * np.sin(4 * times), 0.02 * np.cos(3 * times)], 1)
    translation = torch.stack([0.02 * torch.sin(phase), 0.01 * torch.cos(phase), 0.6 + 0 * phase], 1)
    shape = torch.zeros(len(model.shape_basis), dtype=torch.float64)
    shape[:SHAPES] = torch.as_tensor(rng.normal(0, 0.8, SHAPES))
    gaze = 0.1 * torch.stack([torch.sin(phase), torch.cos(phase)], -1)[:, None].expand(-1, 2, -1)
    parameters = Parameters(
        facing @ roma.euler_to_rotmat("YXZ", turns),
        translation,
        torch.as_tensor(expression),
        gaze,
        shape,
        torch.tensor(np.log(900.0)),
    )
    return parameters, model.project(parameters).numpy(), times


def without_tracker_errors(head):
    import copy

    other = copy.copy(head)
    other.embeddings = {
        scheme: replace(embedding, error_basis=embedding.error_basis[:0])
        for scheme, embedding in head.embeddings.items()
    }
    return other


def test_parameters_of_a_talking_head_are_recovered_from_exact_landmarks(head):
    exact = without_tracker_errors(head)
    truth, landmarks, times = talking(exact, landmark_model(exact, CENTRE), 8)
    seen = Observations(landmarks, np.ones(len(times)), times, np.zeros(len(times), int))

    fit = Solver(exact, SIZE, NO_PRIOR, focal_length=900.0).fit(seen)

    np.testing.assert_allclose(fit.shape, truth.shape.numpy(), atol=2e-3)
    np.testing.assert_allclose(fit.expression[:, :-3], truth.expression[:, :-3].numpy(), atol=5e-3)
    np.testing.assert_allclose(fit.expression[:, -3:], truth.expression[:, -3:].numpy(), atol=5e-4)
    np.testing.assert_allclose(fit.rotation, truth.rotation.numpy(), atol=5e-4)
    np.testing.assert_allclose(fit.gaze, truth.gaze.numpy(), atol=5e-3)


def test_a_talking_head_is_fitted_under_tracker_noise(head):
    truth, landmarks, times = talking(head, landmark_model(head, CENTRE))
    noisy = landmarks + np.random.default_rng(3).normal(0, 0.3, landmarks.shape)
    seen = Observations(noisy, np.ones(len(times)), times, np.zeros(len(times), int))

    fit = Solver(head, SIZE, SolverConfig(key_frames=8), focal_length=900.0).fit(seen)

    jaw = head.expression_names.index(JAW_UNITS[0])
    assert np.corrcoef(fit.expression[:, jaw], truth.expression[:, jaw].numpy())[0, 1] > 0.95
    assert (fit.expression >= head.unit_range.low).all() and (fit.expression <= head.unit_range.high).all()
    model = landmark_model(head, CENTRE, errors=fit.landmark_bias[None])
    found = Parameters(
        torch.as_tensor(fit.rotation),
        torch.as_tensor(fit.translation),
        torch.as_tensor(fit.expression),
        torch.as_tensor(fit.gaze),
        torch.as_tensor(np.append(fit.shape, 1.0)),
        torch.tensor(np.log(fit.focal_length)),
    )
    error = np.linalg.norm(model.project(found).numpy() - landmarks, axis=-1)
    size = np.sqrt(np.ptp(landmarks, axis=1).prod(-1))
    assert (error.mean(1) / size).max() < 0.01
