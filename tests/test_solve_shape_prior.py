from dataclasses import replace

import numpy as np
import pytest
import torch
from solve_clips import QUICK, SIZE, truth

from avface.evaluation.out_of_model import OutOfModelConfig, out_of_model_head
from avface.geometry.rotations import euler_to_rotmat
from avface.head import load_head
from avface.head.asset import save_head_asset
from avface.solve import Solver, SolverConfig
from avface.solve.landmark_model import LandmarkModel
from avface.solve.shape_prior import NeutralObservation, ShapePrior, load_shape_prior, tracker_errors
from avface.training.shape_prior import ShapePriorConfig, learn


@pytest.fixture(scope="module")
def head():
    return load_head()


@pytest.fixture(scope="module")
def prior(head):
    return load_shape_prior(head)


def rotation(yaw, pitch=0.0):
    turn = euler_to_rotmat("YXZ", torch.tensor([yaw, pitch, 0.0], dtype=torch.float64)).numpy()
    return np.diag([1.0, -1.0, -1.0]) @ turn


def observe(prior, displacements, turn):
    """The observation of displacements (N, 3) in millimetres of the neutral face without tracker errors."""
    points = np.zeros((478, 3))
    points[prior.landmarks] = displacements / 1000
    return NeutralObservation.of((points @ turn.T)[None, :, :2], turn[None])


def person(prior, coordinates):
    return prior.mean + np.tensordot(coordinates, prior.basis, 1)


def test_a_prior_belongs_to_the_content_of_a_head_and_not_to_its_name_or_file(head, tmp_path):
    renamed = load_head()
    renamed.name = "other"
    save_head_asset(renamed, tmp_path / "copy.npz")
    copied = load_head(tmp_path / "copy.npz")

    other = load_head()
    other.shape_basis[3, :100] *= 1.001

    for corrected in (False, True):
        wanted = load_shape_prior(head, corrected)
        assert wanted is not None and wanted.shape_basis.shape[1] == head.num_shape
        assert load_shape_prior(renamed, corrected) is wanted
        assert load_shape_prior(copied, corrected) is wanted
        assert load_shape_prior(other, corrected) is None


def test_an_exact_observation_is_estimated_better_with_less_assumed_error(prior):
    truth = np.random.default_rng(0).normal(size=len(prior.basis))
    turn = rotation(0.1)
    angles = observe(prior, person(prior, truth), turn).angles
    blank = replace(prior, error_mean=0 * prior.error_mean)
    errors = []
    for share in (1.0, 0.1, 1e-4):
        certain = replace(
            blank, error_variances=share * prior.error_variances, error_rest=share * prior.error_rest
        )
        found = certain.coordinates(observe(prior, person(prior, truth), turn))
        errors.append(np.linalg.norm(np.tensordot(found - truth, prior.basis, 1)[:, :2]))
    assert errors[0] > errors[1] > errors[2]
    assert np.linalg.norm(angles[1] - np.sin(0.1)) < 1e-6


def test_roll_has_no_effect(prior):
    moved = person(prior, np.ones(len(prior.basis)))
    straight = prior.coordinates(observe(prior, moved, rotation(0.2, 0.1)))
    tilt = np.array([[np.cos(0.4), -np.sin(0.4), 0], [np.sin(0.4), np.cos(0.4), 0], [0, 0, 1]])
    turned = prior.coordinates(observe(prior, moved, tilt @ rotation(0.2, 0.1)))
    np.testing.assert_allclose(turned, straight, atol=1e-8)


def test_motions_of_the_head_have_no_effect(prior):
    moved = person(prior, np.zeros(len(prior.basis)))
    turn = rotation(0.0)
    before = prior.coordinates(observe(prior, moved, turn))
    shifted = moved + [3.0, -2.0, 5.0] + 0.01 * (prior.points - prior.points.mean(0))
    np.testing.assert_allclose(prior.coordinates(observe(prior, shifted, turn)), before, atol=1e-6)


def test_a_fitted_prior_reproduces_its_training_people(head):
    people = [out_of_model_head(n, OutOfModelConfig(seed=5)).template.double().numpy() for n in range(9)]
    embedding = head.embedding("mediapipe478")

    def on_landmarks(vertices):
        return np.einsum("lkc,lk->lc", vertices[embedding.triangles], embedding.barycentric)

    mean = on_landmarks(head.template.double().numpy())
    rng = np.random.default_rng(1)
    clips = []
    for each in people:
        turn = rotation(rng.normal(0, 0.2))
        clips.append(NeutralObservation.of(((on_landmarks(each) - mean) @ turn.T)[None, :, :2], turn[None]))
    config = ShapePriorConfig(components=8, error_components=4, least_error=0.01)
    learnt = learn(head, np.stack(people), clips, np.stack(people), config)
    face = head.regions["face"]
    basis = head.shape_basis.double().numpy()[:, face]
    found = np.stack([learnt.shape(clip) for clip in clips])
    best = learnt.shape_mean + np.stack([learnt.coordinates(clip) for clip in clips]) @ learnt.shape_basis
    np.testing.assert_allclose(found, best)
    apart = np.linalg.norm(np.tensordot(found - found[:1], basis, 1), axis=-1).mean(-1)
    assert (apart[1:] > 1e-4).all()
    assert learnt.error_mean.shape == (5, len(learnt.landmarks), 2)


def test_a_saved_prior_gives_the_same_shape(prior, tmp_path):
    path = tmp_path / "shape_prior.npz"
    prior.save(path)
    again = ShapePrior.load(path)
    clip = observe(prior, person(prior, np.ones(len(prior.basis))), rotation(0.1))
    assert again.head == prior.head
    np.testing.assert_allclose(again.shape(clip), prior.shape(clip), atol=1e-6)


def test_larger_error_variance_shrinks_the_estimate(prior):
    clip = observe(prior, person(prior, np.ones(len(prior.basis))), rotation(0.1))
    sizes = [
        np.linalg.norm(prior.with_error_variance(factor).coordinates(clip)) for factor in (1.0, 2.0, 100.0)
    ]
    assert sizes[0] > sizes[1] > sizes[2]


def test_priors_of_tracked_and_of_corrected_landmarks_differ_in_the_errors_only(head):
    tracked, corrected = load_shape_prior(head), load_shape_prior(head, corrected=True)
    assert corrected.shape_basis.shape == tracked.shape_basis.shape
    np.testing.assert_allclose(corrected.basis, tracked.basis, atol=0.02)  # people are the same
    assert np.abs(corrected.error_mean - tracked.error_mean).max() > 0.5


def test_heads_without_a_prior_have_the_error_components_of_their_embedding_alone(head, prior):
    own = head.embedding("mediapipe478").error_basis
    errors = tracker_errors(head)
    np.testing.assert_array_equal(errors[: len(own)], own)
    lengths = np.linalg.norm(errors[len(own) :].reshape(len(prior.error_variances), -1), axis=1)
    np.testing.assert_allclose(lengths, np.sqrt(prior.error_variances) / 1000, rtol=1e-3)
    other = load_head()
    other.shape_basis[3, :100] *= 1.001
    np.testing.assert_array_equal(tracker_errors(other), own)


def test_measured_tracker_errors_are_estimated_as_bias_and_not_as_shape(head, prior):
    errors = tracker_errors(head)
    plain = truth(head, 8, turn=0.2)
    added = 2.0 * errors[-len(prior.error_variances) :][:6:2].sum(0)
    centre = ((SIZE[0] - 1) / 2, (SIZE[1] - 1) / 2)
    erring = LandmarkModel(head, centre, errors=added[None])
    weights = torch.zeros(head.num_shape + 1, dtype=torch.float64)
    weights[-1] = 1
    landmarks = erring.project(replace(plain.parameters, shape=weights)).numpy()

    def fit(config, landmarks):
        return Solver(head, SIZE, config, focal_length=900.0).fit(plain.observations(landmarks))

    moved = []
    for config in (QUICK, SolverConfig(key_frames=8)):
        biased, clean = fit(config, landmarks), fit(config, plain.landmarks)
        moved.append(np.linalg.norm(biased.shape - clean.shape))
        bias = biased.landmark_bias - clean.landmark_bias
        found = (bias * added)[..., :2].sum() / np.square(added).sum()
    assert moved[1] < 0.75 * moved[0]
    assert found > 0.45
