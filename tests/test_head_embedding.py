"""Landmark embeddings of the open head, and their estimation."""

import numpy as np
import pytest
import torch

from avface.head import load_head
from avface.head.embedding import EmbeddingConfig, _locate, build_embeddings
from avface.head.schemes import (
    FACE_OVAL,
    IBUG_LEFT_BROW,
    IBUG_RIGHT_BROW,
    IRISES,
    LEFT_EYE,
    LEFT_IRIS,
    LIP_CORNERS_OUTER,
    LIPS_INNER_LOWER,
    LIPS_INNER_UPPER,
    LIPS_OUTER,
    RIGHT_EYE,
    RIGHT_IRIS,
)

SCHEMES = {"mediapipe478": 478, "ibug68": 68}


@pytest.fixture(scope="module")
def head():
    return load_head("open")


def points(head, scheme):
    embedding = head.embedding(scheme)
    corners = head.template.double().numpy()[embedding.triangles]
    return np.einsum("lkc,lk->lc", corners, embedding.barycentric)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_landmarks_lie_on_triangles_of_the_head(head, scheme):
    embedding = head.embedding(scheme)

    count = SCHEMES[scheme]
    assert embedding.triangles.shape == embedding.barycentric.shape == (count, 3)
    np.testing.assert_allclose(embedding.barycentric.sum(1), 1, atol=1e-6)
    assert embedding.barycentric.min() >= 0
    known = {tuple(sorted(face)) for face in head.faces.numpy()}
    assert all(tuple(sorted(triangle)) in known for triangle in embedding.triangles)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_spreads_are_millimetres(head, scheme):
    spread = head.embedding(scheme).spread

    assert spread.shape == (SCHEMES[scheme],)
    assert spread.min() > 1e-4 and spread.max() < 0.01 and np.median(spread) < 0.004


def test_iris_points_lie_on_their_own_iris_and_all_others_on_skin(head):
    kinds = np.array(head.part_names)[head.vertex_parts()][head.embedding("mediapipe478").triangles]

    for rows, side in ((LEFT_IRIS, "left"), (RIGHT_IRIS, "right")):
        assert np.isin(kinds[rows], [f"{side}_iris", f"{side}_pupil", f"{side}_eye"]).all()
        centre, *ring = points(head, "mediapipe478")[rows]
        pupil = head.template.numpy()[head.vertex_parts() == head.part_names.index(f"{side}_pupil")].mean(0)
        assert np.linalg.norm(centre - pupil) < 0.002
        left, up, right, down = np.array(ring) - centre
        assert left[0] > 0.002 and right[0] < -0.002 and up[1] > 0.002 and down[1] < -0.002
    others = np.setdiff1d(np.arange(478), IRISES)
    assert np.isin(kinds[others], ["skin", "mouth_cavity"]).all()


@pytest.mark.parametrize(
    ("scheme", "left", "right"),
    [
        ("mediapipe478", [263, 362, 291, 334, 454, 308], [33, 133, 61, 105, 234, 78]),
        ("mediapipe478", LEFT_EYE, RIGHT_EYE[[8, 7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9]]),
        ("ibug68", [45, 42, 54, 35, 16, 12], [36, 39, 48, 31, 0, 4]),
        ("ibug68", IBUG_LEFT_BROW, IBUG_RIGHT_BROW[::-1]),
    ],
)
def test_left_and_right_landmarks_mirror_each_other(head, scheme, left, right):
    found = points(head, scheme)

    distance = np.linalg.norm(found[left] * [-1, 1, 1] - found[right], axis=1)
    assert distance.max() < 0.008 and np.median(distance) < 0.003


def test_the_lip_ring_runs_around_the_lips(head):
    found = points(head, "mediapipe478")
    lips = head.template.numpy()[head.regions["lips"]]
    ring = found[LIPS_OUTER]

    around = np.unwrap(np.arctan2(*(ring - ring.mean(0))[:, 1::-1].T))
    assert abs(around[-1] - around[0]) > 1.8 * np.pi and (np.diff(around) < 0).all(), "in order, once around"
    assert np.linalg.norm(lips[:, None] - ring, axis=2).min(0).max() < 0.012
    right, left = found[LIP_CORNERS_OUTER]
    assert 0.035 < left[0] - right[0] < 0.065
    gap = found[LIPS_INNER_UPPER, 1] - found[LIPS_INNER_LOWER, 1]
    assert (gap > -0.001).all() and gap.max() < 0.006, "the mouth at rest is shut"


def test_the_outline_runs_around_the_face(head):
    outline = points(head, "mediapipe478")[FACE_OVAL]
    inner = points(head, "mediapipe478")[:468]

    around = np.unwrap(np.arctan2(*(outline - inner.mean(0))[:, 1::-1].T))
    assert abs(around[-1] - around[0]) > 1.8 * np.pi
    assert outline[:, 1].max() == pytest.approx(inner[:, 1].max(), abs=0.005)
    assert outline[:, 1].min() == pytest.approx(inner[:, 1].min(), abs=0.005)


def test_the_two_schemes_agree_where_they_mean_the_same(head):
    mediapipe, ibug = points(head, "mediapipe478"), points(head, "ibug68")

    pairs = {33: 36, 133: 39, 362: 42, 263: 45, 61: 48, 291: 54, 4: 30, 152: 8}
    distance = np.linalg.norm(mediapipe[list(pairs)] - ibug[list(pairs.values())], axis=1)
    assert distance.max() < 0.004


# Estimation


@pytest.fixture(scope="module")
def portraits(head):
    """Vertices in pixels (N, V, 2) of people seen from all sides, and metres a pixel (N,)."""
    import roma

    rng = np.random.default_rng(2)
    count = 14
    shape = torch.as_tensor(rng.normal(0, 1, (count, head.num_shape)), dtype=torch.float32)
    expression = torch.as_tensor(rng.uniform(0, 0.4, (count, head.num_expression)), dtype=torch.float32)
    turn = roma.rotvec_to_rotmat(torch.as_tensor(rng.normal(0, 0.3, (count, 3)), dtype=torch.float32))
    turned = (head(shape, expression) @ turn.mT).double().numpy()
    scale = rng.uniform(0.0003, 0.0006, count)
    return turned[..., :2] / scale[:, None, None], scale


def planted(head, pixels, count=12):
    """Points on the skin, on the grid of eighths that the search uses, and their pixels."""
    rng = np.random.default_rng(3)
    skin = head.faces.numpy()[(head.face_parts == 0)]
    front = skin[head.regions["face"][skin].all(1)]
    triangles = front[rng.choice(len(front), count, replace=False)]
    barycentric = rng.dirichlet([2, 2, 2], count)
    barycentric = np.round(barycentric * 8)
    barycentric[:, 2] = 8 - barycentric[:, :2].sum(1)
    barycentric /= 8
    return front, triangles, barycentric, np.einsum("nlkc,lk->nlc", pixels[:, triangles], barycentric)


def places(head, triangles, barycentric):
    return np.einsum("lkc,lk->lc", head.template.double().numpy()[triangles], barycentric)


def test_known_points_are_recovered_exactly(head, portraits):
    pixels, scale = portraits
    surface, triangles, barycentric, landmarks = planted(head, pixels)

    found, weights, spread = _locate(pixels, scale, landmarks, surface)

    np.testing.assert_allclose(places(head, found, weights), places(head, triangles, barycentric), atol=1e-6)
    assert spread.max() < 1e-9


def test_failed_detections_in_some_portraits_do_not_move_the_points(head, portraits):
    pixels, scale = portraits
    surface, triangles, barycentric, landmarks = planted(head, pixels)
    rng = np.random.default_rng(4)
    noisy = landmarks + rng.normal(0, 0.001, landmarks.shape) / scale[:, None, None]
    noisy[:3] += 0.05 / scale[:3, None, None]

    found, weights, spread = _locate(pixels, scale, noisy, surface)

    error = np.linalg.norm(places(head, found, weights) - places(head, triangles, barycentric), axis=1)
    assert np.median(error) < 0.001 and error.max() < 0.003
    assert 0.0006 < np.median(spread) < 0.003, "the median distance that was put in"


def test_too_few_found_faces_are_an_error(head):
    config = EmbeddingConfig(portraits=4, size=32)
    shown = []

    def detect(picture):
        shown.append(picture)
        return None if len(shown) > 1 else np.zeros((478, 2))

    with pytest.raises(ValueError, match="found 1 faces in 4 portraits of open"):
        build_embeddings(head, detect, config)
    assert len(shown) == 4 and shown[0].shape == (32, 32, 3) and shown[0].dtype == np.uint8


def test_portraits_are_the_same_every_time_and_differ_among_themselves(head):
    config = EmbeddingConfig(portraits=2, size=32)

    def portraits():
        shown = []
        with pytest.raises(ValueError):
            build_embeddings(head, lambda picture: shown.append(picture), config)
        return shown

    first, second = portraits(), portraits()
    np.testing.assert_array_equal(first, second)
    assert (first[0] != first[1]).mean() > 0.5
