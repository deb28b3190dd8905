"""The landmark correction network: its samples, its offsets, its file and its accuracy."""

import numpy as np
import pytest
from networks_frames import SMALL_LANDMARKS, mean_points, small_landmark_network
from safetensors.torch import load_file, save_file

from avface.errors import AvfaceError
from avface.networks.landmark_correction import (
    LANDMARKS,
    Layout,
    load_landmark_network,
    pretrained_landmark_network,
    save_landmark_network,
)
from avface.tracking.aligned_crops import SIDE, crop_matrix, to_crop
from avface.tracking.facemesh import FaceMesh
from avface.training.landmarks.views import LandmarkViewsConfig, ViewRenderer, track_image


@pytest.fixture(scope="module")
def points():
    """The mean face in a picture, (478, 2) pixels of a picture."""
    return mean_points()[:, :2] * [1000, -1000] + [200, 150]


@pytest.fixture(scope="module")
def layout():
    return Layout.of(mean_points(), SMALL_LANDMARKS.side)


@pytest.fixture
def network():
    return small_landmark_network()


def test_texels_lie_between_their_landmarks_and_beyond_the_outline(layout, points):
    assert layout.inside.mean() > 0.4
    place = layout.on_texels(points.astype(np.float32))[layout.inside]
    face = points[:LANDMARKS]
    assert (place.min(0) < face.min(0)).all() and (place.max(0) > face.max(0)).all()
    moved = layout.on_texels(points.astype(np.float32) + np.float32(5))[layout.inside]
    np.testing.assert_allclose(moved, place + 5, atol=1e-3)


def test_a_feature_beside_its_landmark_is_shifted_in_the_sample(layout, points):
    at = to_crop(crop_matrix(points), points)
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))

    def sample(place):
        spot = 255 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / 50)
        return layout.sample(spot.astype(np.uint8), at)[1]

    def centroid(values):
        rows, columns = np.mgrid[: SMALL_LANDMARKS.side, : SMALL_LANDMARKS.side]
        values = np.maximum(values, 0)
        return np.array([(columns * values).sum(), (rows * values).sum()]) / values.sum()

    nose = at[4]
    away = centroid(sample((nose[0] + 12, nose[1]))) - centroid(sample(nose))
    assert away[0] > 0.8 and abs(away[1]) < 0.3


def test_samples_are_normalised_and_have_the_visibility_of_the_landmarks(layout, points):
    at = to_crop(crop_matrix(points), points)
    view = np.random.default_rng(0).integers(60, 120, (SIDE, SIDE)).astype(np.uint8)
    one, brighter = layout.sample(view, at), layout.sample(2 * view, at)
    assert np.abs(one - brighter)[:, layout.inside].mean() < 0.1
    visible = np.ones(478)
    assert layout.sample(view, at, visible)[2].max() > 0.9
    assert layout.sample(view, at, 0 * visible)[2].max() == 0
    assert (one[:, ~layout.inside] == 0).all()


def test_offsets_rotate_and_scale_with_the_face(network, points):
    view = np.random.default_rng(0).integers(0, 255, (2, SIDE, SIDE)).astype(np.uint8)
    turn = 2 * np.array([[0.8, -0.6], [0.6, 0.8]])
    offsets = network.predict_offsets(view[:1].repeat(2, 0), np.stack([points, points @ turn.T]))
    assert np.abs(offsets[0]).max() > 0.1
    np.testing.assert_allclose(offsets[1], offsets[0] @ turn.T, atol=1e-2)
    assert (offsets[:, LANDMARKS:] == 0).all()


def test_no_pictures_give_no_offsets(network):
    assert network.predict_offsets(np.zeros((0, SIDE, SIDE), np.uint8), np.zeros((0, 478, 2))).shape == (
        0,
        478,
        2,
    )


def test_weights_survive_the_file(network, points, tmp_path):
    path = tmp_path / "landmarks.safetensors"
    save_landmark_network(network, path)
    again = load_landmark_network(path)
    view = np.random.default_rng(1).integers(0, 255, (1, SIDE, SIDE)).astype(np.uint8)
    first, second = (one.predict_offsets(view, points[None]) for one in (network, again))
    np.testing.assert_allclose(first, second, atol=0.05 * np.abs(first).max())


@pytest.mark.parametrize(
    "harm",
    [
        lambda weights: weights.pop("last.weight"),
        lambda weights: weights["corners"].fill_(30_000),
        lambda weights: weights["ring"].fill_(-1),
        lambda weights: weights["inside"].fill_(True),
        lambda weights: weights["first.weight"].fill_(float("nan")),
    ],
)
def test_bad_weights_are_refused(network, tmp_path, harm):
    path = tmp_path / "landmarks.safetensors"
    save_landmark_network(network, path)
    weights = load_file(path)
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    harm(weights)
    save_file(weights, path, metadata)
    with pytest.raises(AvfaceError, match=r"landmarks\.safetensors"):
        load_landmark_network(path)


def test_no_weights_are_refused(tmp_path):
    with pytest.raises(AvfaceError, match="no such file"):
        load_landmark_network(tmp_path / "none.safetensors")


@pytest.fixture(scope="module")
def held_out_views():
    """Rendered people who are not among the 1500 of the training, tracked by MediaPipe."""
    config = LandmarkViewsConfig(scenes=1, frames=2, warps=1)
    with FaceMesh() as mesh:
        return ViewRenderer(config, lambda image: track_image(mesh, image)).views(range(1500, 1502))


def test_the_pretrained_network_halves_the_trackers_error_for_people_it_was_not_trained_on(held_out_views):
    views = held_out_views
    assert len(views) >= 6
    offsets = pretrained_landmark_network().predict_offsets(views.pictures, views.tracked)

    def error(points):
        return np.linalg.norm(points - views.true, axis=2)[:, :LANDMARKS].mean(1)

    before, after = error(views.tracked), error(views.tracked + offsets)
    assert before.min() > 1, "pixels of the crops: there is an error to correct"
    assert (after < 0.8 * before).all()
    assert after.mean() < 0.5 * before.mean()
