"""What the picture says about lips: whether they are shut, and how far they do what is heard."""

import numpy as np
import pytest
import torch

from avface.geometry.camera import Camera
from avface.head import load_head
from avface.head.lips import landmark_rows, lip_region
from avface.head.schemes import LIPS, LIPS_INNER_LOWER, LIPS_INNER_UPPER
from avface.networks.lips.visual_evidence import LipGain, LipView

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


def view_of(points, shown=1.0):
    """Lips (T, 40, 3) of a head that nods a little, 70 cm before the camera."""
    rotation = np.zeros((len(points), 3), np.float32)
    rotation[:, 0] = np.pi + 0.1 * np.sin(np.arange(len(points)))
    translation = np.tile(np.array([0, 0, 0.7], np.float32), (len(points), 1))
    landmarks = np.zeros((len(points), 478, 2), np.float32)
    view = LipView(landmarks, np.full(len(points), shown, np.float32), rotation, translation, CAMERA)
    landmarks[:, LIPS] = CAMERA.project(view.in_camera(slice(0, len(points)), points)).numpy()
    return view


def parted(outline, lips, gap):
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


def test_small_gaps_are_shut_and_hearing_it_helps(outline, lips):
    gap = torch.linspace(0, 0.006, FRAMES)
    view = view_of(parted(outline, lips, gap))

    shut, say = view.shut(ALL, outline @ lips, torch.zeros(FRAMES))
    heard, _ = view.shut(ALL, outline @ lips, torch.ones(FRAMES))

    assert (say == 1).all()
    assert (shut[gap < 0.0007] == 1).all() and (shut[gap > 0.003] == 0).all()
    assert (shut.diff() <= 0).all() and shut.diff().min() > -0.2
    assert (heard >= shut).all() and (heard > shut + 0.3).any() and (heard[gap > 0.0045] == 0).all()


def test_hidden_and_lost_lips_have_no_say(outline, lips):
    for shown, expected in ((0.2, 0.0), (0.6, 0.5), (0.9, 1.0)):
        assert view_of(outline @ lips, shown).say(ALL).numpy() == pytest.approx(expected)
    view = view_of(outline @ lips)
    view.landmarks[7] = np.nan

    shut, say = view.shut(ALL, outline @ lips, torch.zeros(FRAMES))

    assert say[7] == 0 and say.sum() == FRAMES - 1 and torch.isfinite(shut).all()


def moving(region):
    """Ways (2, N, 3) and weights (T, 2) of offsets, 3 mm at most."""
    rng = np.random.default_rng(1)
    ways = 0.003 * np.stack([np.sin(3 * region.across), np.cos(3 * region.across)])[..., None] * [0.2, 1, 0.5]
    weights = np.stack([np.sin(TIMES * 9), np.sin(TIMES * 13 + rng.uniform())], 1)
    return torch.from_numpy(ways).float(), torch.from_numpy(weights).float()


@pytest.mark.parametrize(("true", "expected"), [(0.35, 0.35), (0.0, 0.0), (-0.5, 0.0), (1.6, 1.0)])
def test_the_factor_is_how_far_the_lips_go(region, outline, lips, true, expected):
    ways, weights = moving(region)
    offsets = (weights @ ways.flatten(1)).unflatten(1, (-1, 3))
    habit = torch.from_numpy(np.random.default_rng(0).normal(0, 0.002, (len(LIPS), 3))).float()
    view = view_of(outline @ (lips + true * offsets) + habit)  # who always marks them elsewhere
    found = LipGain(ways, outline)

    for rows in (slice(0, 30), slice(30, FRAMES)):
        found.add(view, rows, lips[rows], weights[rows])

    assert found.factor(TIMES) == pytest.approx(expected, abs=0.15)


def test_a_clip_that_says_nothing_leaves_the_sound_its_way(region, outline, lips):
    ways, weights = moving(region)
    assert LipGain(ways, outline).factor(TIMES) == 1
    for view, said in ((view_of(outline @ lips, 0.1), weights), (view_of(outline @ lips), 0 * weights)):
        found = LipGain(ways, outline)
        found.add(view, ALL, lips, said)
        assert found.factor(TIMES) == 1
    noise = torch.from_numpy(np.random.default_rng(2).normal(0, 0.004, (FRAMES, len(LIPS), 3))).float()
    found = LipGain(ways, outline)
    found.add(view_of(outline @ lips + noise), ALL, lips, 0.1 * weights)
    assert found.factor(TIMES) > 0.9, "noise as large as this hides what the lips do"
