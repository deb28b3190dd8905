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
from avface.tracking.aligned_crops import SIDE, in_view, view_matrix


@pytest.fixture(scope="module")
def points():
    """The mean face before a camera, (478, 2) pixels of a picture."""
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


def test_what_is_drawn_off_its_place_is_seen_off_its_place(layout, points):
    at = in_view(view_matrix(points), points)
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))

    def look(place):
        spot = 255 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / 50)
        return layout.look(spot.astype(np.uint8), at)[1]

    def middle(values):
        rows, columns = np.mgrid[: SMALL_LANDMARKS.side, : SMALL_LANDMARKS.side]
        values = np.maximum(values, 0)
        return np.array([(columns * values).sum(), (rows * values).sum()]) / values.sum()

    nose = at[4]
    away = middle(look((nose[0] + 12, nose[1]))) - middle(look(nose))
    assert away[0] > 0.8 and abs(away[1]) < 0.3


def test_light_and_hidden_texels_change_little_and_are_told(layout, points):
    at = in_view(view_matrix(points), points)
    view = np.random.default_rng(0).integers(60, 120, (SIDE, SIDE)).astype(np.uint8)
    one, brighter = layout.look(view, at), layout.look(2 * view, at)
    assert np.abs(one - brighter)[:, layout.inside].mean() < 0.1
    seen = np.ones(478)
    assert layout.look(view, at, seen)[2].max() > 0.9
    assert layout.look(view, at, 0 * seen)[2].max() == 0
    assert (one[:, ~layout.inside] == 0).all()


def test_offsets_turn_and_grow_with_the_face(network, points):
    view = np.random.default_rng(0).integers(0, 255, (2, SIDE, SIDE)).astype(np.uint8)
    turn = 2 * np.array([[0.8, -0.6], [0.6, 0.8]])
    offsets = network.refine(view[:1].repeat(2, 0), np.stack([points, points @ turn.T]))
    assert np.abs(offsets[0]).max() > 0.1
    np.testing.assert_allclose(offsets[1], offsets[0] @ turn.T, atol=1e-2)
    assert (offsets[:, LANDMARKS:] == 0).all()


def test_nobody_seen_nothing_said(network):
    assert network.refine(np.zeros((0, SIDE, SIDE), np.uint8), np.zeros((0, 478, 2))).shape == (0, 478, 2)


def test_weights_survive_the_file(network, points, tmp_path):
    path = tmp_path / "landmarks.safetensors"
    save_landmark_network(network, path)
    again = load_landmark_network(path)
    view = np.random.default_rng(1).integers(0, 255, (1, SIDE, SIDE)).astype(np.uint8)
    first, second = (one.refine(view, points[None]) for one in (network, again))
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


def test_the_shipped_network_is_for_all_landmarks_of_the_skin():
    network = pretrained_landmark_network()
    assert network.error_basis.shape == (network.config.components, 2 * LANDMARKS)
