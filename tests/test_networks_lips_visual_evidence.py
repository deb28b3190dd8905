"""Evidence of the picture for the lips: closure, and the gain of the predicted offsets."""

import numpy as np
import pytest
import torch

from avface.geometry.camera import Camera
from avface.head import load_head
from avface.head.lips import landmark_rows, lip_region
from avface.head.schemes import LIPS, LIPS_INNER_LOWER, LIPS_INNER_UPPER
from avface.networks.lips.visual_evidence import LipGain, LipObservation

FRAMES = 80
TIMES = np.arange(FRAMES) / 25
CAMERA = Camera.centred(1200.0, 640, 480)
ALL = slice(0, FRAMES)


@pytest.fixture(scope="module")
def head():
    return load_head("open")


@pytest.fixture(scope="module")
def region(head):
    return lip_region(head)


@pytest.fixture(scope="module")
def outline(head, region):
    return torch.from_numpy(landmark_rows(head, region, LIPS)).float()


@pytest.fixture(scope="module")
def lips(head, region):
    return head.template[region.vertices].expand(FRAMES, -1, -1)


def observe(points, visibility=1.0):
    """The observation of lips (T, 40, 3) of a nodding head, 70 cm from the camera."""
    rotation = np.zeros((len(points), 3), np.float32)
    rotation[:, 0] = np.pi + 0.1 * np.sin(np.arange(len(points)))
    translation = np.tile(np.array([0, 0, 0.7], np.float32), (len(points), 1))
    landmarks = np.zeros((len(points), 478, 2), np.float32)
    observation = LipObservation(
        landmarks, np.full(len(points), visibility, np.float32), rotation, translation, CAMERA
    )
    landmarks[:, LIPS] = CAMERA.project(observation.to_camera(slice(0, len(points)), points)).numpy()
    return observation


def with_gap(outline, lips, gap):
    """Lips (T, 40, 3) with the middle of the inner edges (T,) metres apart."""
    points = outline @ lips
    order = LIPS.tolist()
    for upper, lower in zip(LIPS_INNER_UPPER[2:7], LIPS_INNER_LOWER[2:7], strict=True):
        points[:, order.index(lower)] = points[:, order.index(upper)]
        points[:, order.index(lower), 1] -= gap
    return points


def test_landmarks_are_those_of_the_head(head, region, outline):
    embedding = head.embedding("mediapipe478")
    expected = np.einsum("lkc,lk->lc", head.template.numpy()[embedding.triangles], embedding.barycentric)[
        LIPS
    ]

    np.testing.assert_allclose(outline @ head.template[region.vertices], expected, atol=1e-6)


def test_small_gaps_are_closed_and_larger_ones_with_a_closure_in_the_sound(outline, lips):
    gap = torch.linspace(0, 0.006, FRAMES)
    observation = observe(with_gap(outline, lips, gap))

    closure = observation.closure(ALL, outline @ lips, torch.zeros(FRAMES))
    with_audio = observation.closure(ALL, outline @ lips, torch.ones(FRAMES))

    assert (observation.picture_weight(ALL) == 1).all()
    assert (closure[gap < 0.0007] == 1).all() and (closure[gap > 0.003] == 0).all()
    assert (closure.diff() <= 0).all() and closure.diff().min() > -0.2
    assert (with_audio >= closure).all() and (with_audio > closure + 0.3).any()
    assert (with_audio[gap > 0.0045] == 0).all()


def test_the_picture_has_no_weight_for_occluded_and_lost_lips(outline, lips):
    for visibility, expected in ((0.2, 0.0), (0.6, 0.5), (0.9, 1.0)):
        weight = observe(outline @ lips, visibility).picture_weight(ALL)
        assert weight.numpy() == pytest.approx(expected)
    observation = observe(outline @ lips)
    observation.landmarks[7] = np.nan

    weight = observation.picture_weight(ALL)

    assert weight[7] == 0 and weight.sum() == FRAMES - 1
    assert torch.isfinite(observation.closure(ALL, outline @ lips, torch.zeros(FRAMES))).all()


def moving(region):
    """Components (2, N, 3) and weights (T, 2) of offsets, 3 mm at most."""
    rng = np.random.default_rng(1)
    components = (
        0.003 * np.stack([np.sin(3 * region.across), np.cos(3 * region.across)])[..., None] * [0.2, 1, 0.5]
    )
    weights = np.stack([np.sin(TIMES * 9), np.sin(TIMES * 13 + rng.uniform())], 1)
    return torch.from_numpy(components).float(), torch.from_numpy(weights).float()


@pytest.mark.parametrize(("true", "expected"), [(0.35, 0.35), (0.0, 0.0), (-0.5, 0.0), (1.6, 1.0)])
def test_the_gain_is_that_of_the_tracked_lips(region, outline, lips, true, expected):
    components, weights = moving(region)
    offsets = (weights @ components.flatten(1)).unflatten(1, (-1, 3))
    offset = torch.from_numpy(np.random.default_rng(0).normal(0, 0.002, (len(LIPS), 3))).float()
    observation = observe(outline @ (lips + true * offsets) + offset)  # a constant offset of the tracker
    gain = LipGain(components, outline)

    for rows in (slice(0, 30), slice(30, FRAMES)):
        gain.add(observation, rows, lips[rows], weights[rows])

    assert gain.gain(TIMES) == pytest.approx(expected, abs=0.15)


def test_without_evidence_the_gain_is_its_prior_mean(region, outline, lips):
    components, weights = moving(region)
    assert LipGain(components, outline).gain(TIMES) == 1
    for observation, predicted in (
        (observe(outline @ lips, 0.1), weights),
        (observe(outline @ lips), 0 * weights),
    ):
        gain = LipGain(components, outline)
        gain.add(observation, ALL, lips, predicted)
        assert gain.gain(TIMES) == 1
    noise = torch.from_numpy(np.random.default_rng(2).normal(0, 0.004, (FRAMES, len(LIPS), 3))).float()
    gain = LipGain(components, outline)
    gain.add(observe(outline @ lips + noise), ALL, lips, 0.1 * weights)
    assert gain.gain(TIMES) > 0.9, "noise larger than the motion is no evidence"
