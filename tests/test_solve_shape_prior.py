from dataclasses import replace

import numpy as np
import pytest
import torch
from solve_clips import QUICK, SIZE, truth

from avface.evaluation.out_of_model import OutOfModelConfig, out_of_model_head
from avface.geometry.rotations import euler_to_rotmat
from avface.head import load_head
from avface.solve import Solver, SolverConfig
from avface.solve.landmark_model import LandmarkModel
from avface.solve.shape_prior import IdentityModel, NeutralObservation, identity_model, tracker_errors
from avface.training.shape_prior import IdentityConfig, learn


@pytest.fixture(scope="module")
def head():
    return load_head()


@pytest.fixture(scope="module")
def model(head):
    return identity_model(head)


def rotation(yaw, pitch=0.0):
    turn = euler_to_rotmat("YXZ", torch.tensor([yaw, pitch, 0.0], dtype=torch.float64)).numpy()
    return np.diag([1.0, -1.0, -1.0]) @ turn


def seen(model, moved, turn):
    """Displacements (N, 3) millimetres of the face at rest, as a camera sees them without any error."""
    points = np.zeros((478, 3))
    points[model.landmarks] = moved / 1000
    return NeutralObservation.of((points @ turn.T)[None, :, :2], turn[None])


def person(model, coordinates):
    return model.mean + np.tensordot(coordinates, model.basis, 1)


def test_the_open_head_has_one_and_others_have_none(head, model):
    assert model.shape_basis.shape[1] == head.num_shape
    other = load_head()
    other.name = "other"
    assert identity_model(other) is None


def test_a_person_seen_without_error_is_read_better_the_less_the_tracker_errs(model):
    truth = np.random.default_rng(0).normal(size=len(model.basis))
    turn = rotation(0.1)
    angles = seen(model, person(model, truth), turn).angles
    blank = replace(model, error_mean=0 * model.error_mean)
    away = []
    for share in (1.0, 0.1, 1e-4):
        sure = replace(
            blank, error_variances=share * model.error_variances, error_rest=share * model.error_rest
        )
        found = sure.coordinates(seen(model, person(model, truth), turn))
        away.append(np.linalg.norm(np.tensordot(found - truth, model.basis, 1)[:, :2]))
    assert away[0] > away[1] > away[2]
    assert np.linalg.norm(angles[1] - np.sin(0.1)) < 1e-6


def test_roll_makes_no_difference(model):
    moved = person(model, np.ones(len(model.basis)))
    straight = model.coordinates(seen(model, moved, rotation(0.2, 0.1)))
    tilt = np.array([[np.cos(0.4), -np.sin(0.4), 0], [np.sin(0.4), np.cos(0.4), 0], [0, 0, 1]])
    turned = model.coordinates(seen(model, moved, tilt @ rotation(0.2, 0.1)))
    np.testing.assert_allclose(turned, straight, atol=1e-8)


def test_motions_of_the_head_say_nothing(model):
    moved = person(model, np.zeros(len(model.basis)))
    turn = rotation(0.0)
    before = model.coordinates(seen(model, moved, turn))
    shifted = moved + [3.0, -2.0, 5.0] + 0.01 * (model.points - model.points.mean(0))
    np.testing.assert_allclose(model.coordinates(seen(model, shifted, turn)), before, atol=1e-6)


def test_what_is_learnt_from_people_finds_them_again(head):
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
    config = IdentityConfig(components=8, error_components=4, least_error=0.01)
    learnt = learn(head, np.stack(people), clips, np.stack(people), config)
    face = head.regions["face"]
    basis = head.shape_basis.double().numpy()[:, face]
    found = np.stack([learnt.shape(clip) for clip in clips])
    best = learnt.shape_mean + np.stack([learnt.coordinates(clip) for clip in clips]) @ learnt.shape_basis
    np.testing.assert_allclose(found, best)
    apart = np.linalg.norm(np.tensordot(found - found[:1], basis, 1), axis=-1).mean(-1)
    assert (apart[1:] > 1e-4).all()
    assert learnt.error_mean.shape == (5, len(learnt.landmarks), 2)


def test_it_is_the_same_after_saving(model, tmp_path):
    path = tmp_path / "identity.npz"
    model.save(path)
    again = IdentityModel.load(path)
    clip = seen(model, person(model, np.ones(len(model.basis))), rotation(0.1))
    np.testing.assert_allclose(again.shape(clip), model.shape(clip), atol=1e-6)


def test_who_is_trusted_less_says_less(model):
    clip = seen(model, person(model, np.ones(len(model.basis))), rotation(0.1))
    sizes = [np.linalg.norm(model.trusted_less(factor).coordinates(clip)) for factor in (1.0, 2.0, 100.0)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_there_is_one_for_a_closer_look_too(head):
    tracked, closer = identity_model(head), identity_model(head, closer=True)
    assert closer.shape_basis.shape == tracked.shape_basis.shape
    np.testing.assert_allclose(closer.basis, tracked.basis, atol=0.02)  # people are the same
    assert np.abs(closer.error_mean - tracked.error_mean).max() > 0.5


def test_other_heads_know_the_errors_of_their_embedding_alone(head, model):
    own = head.embedding("mediapipe478").error_basis
    errors = tracker_errors(head)
    np.testing.assert_array_equal(errors[: len(own)], own)
    lengths = np.linalg.norm(errors[len(own) :].reshape(len(model.error_variances), -1), axis=1)
    np.testing.assert_allclose(lengths, np.sqrt(model.error_variances) / 1000, rtol=1e-3)
    other = load_head()
    other.name = "other"
    np.testing.assert_array_equal(tracker_errors(other), own)


def test_how_the_tracker_errs_about_a_stranger_is_not_taken_for_his_face(head, model):
    errors = tracker_errors(head)
    plain = truth(head, 8, turn=0.2)
    put = 2.0 * errors[-len(model.error_variances) :][:6:2].sum(0)
    centre = ((SIZE[0] - 1) / 2, (SIZE[1] - 1) / 2)
    erring = LandmarkModel(head, centre, errors=put[None])
    weights = torch.zeros(head.num_shape + 1, dtype=torch.float64)
    weights[-1] = 1
    landmarks = erring.project(replace(plain.parameters, shape=weights)).numpy()

    def fit(config, landmarks):
        return Solver(head, SIZE, config, focal_length=900.0).fit(plain.observations(landmarks))

    moved = []
    for config in (QUICK, SolverConfig(key_frames=8)):
        spoilt, clean = fit(config, landmarks), fit(config, plain.landmarks)
        moved.append(np.linalg.norm(spoilt.shape - clean.shape))
        bias = spoilt.landmark_bias - clean.landmark_bias
        found = (bias * put)[..., :2].sum() / np.square(put).sum()
    assert moved[1] < 0.7 * moved[0]
    assert found > 0.5
