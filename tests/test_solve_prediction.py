"""The solver with occluded landmarks and with predictions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from solve_clips import QUICK, SIZE, head_without_tracker_errors, truth

from avface.geometry.rotations import rotmat_to_rotvec, rotvec_to_rotmat
from avface.networks.regions import LANDMARK_REGIONS, REGIONS
from avface.solve import Prediction, Solver
from avface.solve.landmark_model import Parameters
from avface.solve.prediction import FramePrior, no_prediction

LOWER = np.isin(LANDMARK_REGIONS.numpy(), [REGIONS.index(name) for name in ("lips", "jaw", "cheeks")])
FRAMES, HIDDEN = 36, slice(12, 26)


@pytest.fixture(scope="module")
def head():
    return head_without_tracker_errors()


@pytest.fixture(scope="module")
def clip(head):
    """A clip of talking with half a smile."""
    jaw = 0.3 - 0.25 * np.cos(np.arange(FRAMES) * 0.7)
    smile = np.full(FRAMES, 0.5)
    return truth(
        head, FRAMES, expression={"jawOpen": jaw, "mouthSmileLeft": smile, "mouthSmileRight": smile}, turn=0.2
    )


@pytest.fixture(scope="module")
def covered(clip):
    """The same with the lower half of the face occluded: random landmarks of visibility 0."""
    landmarks, visibility = clip.landmarks.copy(), np.ones(clip.landmarks.shape[:2])
    rng = np.random.default_rng(0)
    landmarks[HIDDEN, LOWER] += rng.normal(30, 20, landmarks[HIDDEN, LOWER].shape)
    visibility[HIDDEN, LOWER] = 0
    return clip.observations(landmarks, visibility=visibility)


@pytest.fixture(scope="module")
def alone(head, covered):
    """The fit without a prediction."""
    return solver(head).fit(covered)


def solver(head, **changes):
    return Solver(head, SIZE, replace(QUICK, **changes), focal_length=900.0)


def unit(head, expression, name):
    return np.asarray(expression)[:, head.expression_names.index(name)]


def turned(one, other):
    """Angles (T,) in radians between rotations."""
    return rotmat_to_rotvec(torch.as_tensor(one) @ torch.as_tensor(other).mT).norm(dim=-1).numpy()


def predicted(clip, sigma, shape=None, shape_sigma=None):
    expression = clip.parameters.expression.numpy()
    return Prediction(expression, np.full_like(expression, sigma), shape=shape, shape_sigma=shape_sigma)


# Occluded landmarks


def test_landmarks_of_visibility_0_have_no_effect(head, clip, covered, alone):
    elsewhere = covered.landmarks.copy()
    elsewhere[HIDDEN, LOWER] -= 70

    moved = solver(head).fit(replace(covered, landmarks=elsewhere))

    for name, value in vars(alone).items():
        # they change only the face's size in the picture, which scales the noise
        np.testing.assert_allclose(getattr(moved, name), value, rtol=0.02, atol=0.03, err_msg=name)
    assert turned(alone.rotation, clip.parameters.rotation).max() < 0.03, "what shows tells where the head is"


def test_an_occluded_mouth_converges_to_its_mean_in_the_clip(head, clip, alone):
    middle = slice(HIDDEN.start + 5, HIDDEN.stop - 5)
    seen = np.r_[0 : HIDDEN.start, HIDDEN.stop : FRAMES]
    smile, jaw = (unit(head, alone.expression, name) for name in ("mouthSmileLeft", "jawOpen"))

    assert smile[middle].min() > 0.6 * smile[seen].mean(), "the smile stays"
    assert 0.5 < jaw[middle].mean() / jaw[seen].mean() < 1.5, "neither shut nor as it last was"
    assert np.abs(np.diff(jaw)).max() < 0.2, "no jump"


def test_fully_occluded_frames_are_like_frames_without_a_face(head, clip):
    nothing, visibility = clip.landmarks.copy(), np.ones(clip.landmarks.shape[:2])
    nothing[HIDDEN] = np.nan
    visibility[HIDDEN] = 0

    gap = solver(head).fit(clip.observations(nothing))
    hidden = solver(head).fit(clip.observations(visibility=visibility))

    for name, value in vars(gap).items():
        np.testing.assert_allclose(getattr(hidden, name), value, atol=1e-6, rtol=1e-6, err_msg=name)


def test_visibility_1_everywhere_equals_no_visibility(head, clip):
    few = slice(0, 12)
    plain = clip.observations()
    plain = replace(
        plain,
        **{name: getattr(plain, name)[few] for name in ("landmarks", "confidence", "times", "segments")},
    )

    one = solver(head).fit(plain)
    other = solver(head).fit(replace(plain, visibility=np.ones(plain.landmarks.shape[:2])))

    for name, value in vars(one).items():
        np.testing.assert_array_equal(getattr(other, name), value, err_msg=name)


# Predictions


def test_a_good_prediction_fills_in_occluded_units(head, clip, covered, alone):
    fit = solver(head).fit(covered, prediction=predicted(clip, 0.03))

    true = unit(head, clip.parameters.expression, "jawOpen")[HIDDEN]
    error, without = (np.abs(unit(head, f.expression, "jawOpen")[HIDDEN] - true).mean() for f in (fit, alone))
    assert error < 0.08 and error < 0.5 * without
    assert fit.expression.min() >= 0 and fit.expression.max() <= 1


def test_visible_landmarks_override_a_wrong_prediction(head, clip):
    observations = clip.observations()
    wrong = Prediction(
        np.full((FRAMES, head.num_expression), 0.5), np.full((FRAMES, head.num_expression), 0.3)
    )

    plain, fit = (solver(head).fit(observations, prediction=p) for p in (None, wrong))

    difference = unit(head, fit.expression, "jawOpen") - unit(head, plain.expression, "jawOpen")
    assert np.abs(difference).max() < 0.1
    assert np.abs(fit.expression - 0.5).mean() > np.abs(fit.expression - plain.expression).mean()


def test_an_infinite_standard_deviation_has_no_effect(head, clip, covered, alone):
    shape = np.full(head.num_shape, 2.0)
    unsure = predicted(clip, 1e9, shape, np.full(head.num_shape, 1e9))
    unsure = replace(
        unsure, rotation=np.tile(np.eye(3), (FRAMES, 1, 1)), rotation_sigma=np.full(FRAMES, np.inf)
    )

    fit = solver(head).fit(covered, prediction=unsure)

    for name, value in vars(alone).items():
        np.testing.assert_allclose(getattr(fit, name), value, atol=1e-6, rtol=1e-6, err_msg=name)


def test_predictions_beyond_the_bounds_are_clamped(head, clip, covered):
    beyond = predicted(clip, 0.01)
    fit = solver(head).fit(covered, prediction=replace(beyond, expression=beyond.expression + 1.5))

    assert fit.expression.min() >= 0 and fit.expression.max() <= 1


def test_a_predicted_shape_is_the_mean_of_the_prior(head, clip):
    shape = np.zeros(head.num_shape)
    shape[3:6] = 1.5, -1.0, 0.8
    sigma = np.full(head.num_shape, 0.05)
    sigma[5] = 7.0  # says less than the population does

    fit = solver(head, iterations=4).fit(clip.observations(), prediction=predicted(clip, 1e9, shape, sigma))

    np.testing.assert_allclose(fit.shape[3:5], shape[3:5], atol=0.2)
    assert abs(fit.shape[5]) < 0.6


def test_a_predicted_rotation_determines_an_occluded_head(head, clip):
    observations = clip.observations()
    confidence = np.zeros(FRAMES)
    confidence[:6] = 1
    rotation = rotvec_to_rotmat(torch.tensor([0.0, 0.4, 0.0]).double()) @ clip.parameters.rotation[:1]
    rotation = np.repeat(rotation.numpy(), FRAMES, 0)
    prediction = replace(
        predicted(clip, 1.0), rotation=rotation, rotation_sigma=np.where(confidence > 0, np.inf, 0.2)
    )

    fit = solver(head).fit(replace(observations, confidence=confidence), prediction=prediction)

    away = turned(fit.rotation, rotation)
    assert away[-1] < 0.6 * away[5]
    assert turned(fit.rotation[1:], fit.rotation[:-1]).max() < 0.05, "it goes there smoothly"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expression": np.zeros((3, 52))}, "expression has shape"),
        ({"expression_sigma": np.zeros((FRAMES, 52))}, "above 0"),
        ({"shape": np.zeros(100)}, "both mean and standard deviation"),
        ({"shape": np.zeros(7), "shape_sigma": np.ones(7)}, "shape has shape"),
        ({"rotation": np.zeros((FRAMES, 3, 3)), "rotation_sigma": np.ones((FRAMES, 3))}, "rotation_sigma"),
        ({"expression": np.full((FRAMES, 52), np.nan)}, "finite"),
    ],
)
def test_predictions_of_wrong_shapes_are_refused(head, clip, changes, message):
    with pytest.raises(ValueError, match=message):
        solver(head).fit(clip.observations(), prediction=replace(predicted(clip, 1.0), **changes))


def test_the_priors_equations_are_the_derivatives_of_its_cost(head):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def cost(step):
        return prior.cost(at.retract(step)).sum()

    frames, units = 3, head.num_expression
    local = 6 + units + 4
    at = Parameters(
        rotvec_to_rotmat(normal(frames, 3)),
        normal(frames, 3),
        0.4 + 0.1 * torch.rand(frames, units, generator=generator, dtype=torch.float64),
        normal(frames, 2, 2),
        normal(4),
        normal(()),
    )
    prior = FramePrior(
        normal(frames, units),
        normal(frames, units) ** 2,
        rotvec_to_rotmat(normal(frames, 3)),
        normal(frames) ** 2,
    )
    hessian = torch.zeros(frames, local, local, dtype=torch.float64)
    gradient = torch.zeros(frames, local, dtype=torch.float64)

    prior.add_equations(at, hessian, gradient)

    zero = torch.zeros(frames, local, dtype=torch.float64)
    torch.testing.assert_close(gradient, torch.autograd.functional.jacobian(cost, zero))
    assert (torch.linalg.eigvalsh(hessian) >= 0).all()


def test_products_of_priors_are_those_of_normal_distributions():
    one = FramePrior(torch.tensor([[0.2, 0.5]]), torch.tensor([[4.0, 0.0]]))
    other = FramePrior(torch.tensor([[0.8, 0.1]]), torch.tensor([[8.0, 8.0]]))

    both = one.product(other, torch.tensor([[0.5, 1.0]]))

    torch.testing.assert_close(both.expression, torch.tensor([[0.5, 0.1]]))
    torch.testing.assert_close(both.precision, torch.tensor([[8.0, 8.0]]))
    nothing = no_prediction(1, 2)
    assert np.isinf(nothing.expression_sigma).all()
