"""The landmark motion network: what it says of frames, its offsets in pixels, its file, and its use on a track."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from networks_frames import mean_points

from avface.errors import AvfaceError
from avface.head import load_head
from avface.head.schemes import LIPS
from avface.networks.landmark_motion import (
    LEAST_WEIGHT,
    CorrectedLandmarks,
    MotionConfig,
    MotionNetwork,
    Pictures,
    load_motion_network,
    pretrained_motion_network,
    read_motion,
    save_motion_network,
)
from avface.tracking import FaceTrack, Segment
from avface.tracking.aligned_crops import FACE_SIZE, crop_matrix
from avface.tracking.face_picture import LANDMARKS, PICTURE_SIDE, picture_layout

SMALL = MotionConfig(
    units=("jawOpen", "mouthSmileLeft"),
    channels=(4, 4, 4, 4),
    reduced=2,
    hidden=8,
    point_components=3,
    error_components=5,
)


def small_network(seed=0):
    """A network whose answers differ from frame to frame."""
    torch.manual_seed(seed)
    network = MotionNetwork(SMALL)
    for layer in (network.offsets, network.units):
        torch.nn.init.normal_(layer.weight, std=0.5)
    network.error_basis.normal_(std=0.01)
    network.points_basis.normal_()
    return network.eval().requires_grad_(False)


def points(scale=1100.0, at=(200.0, 200.0), turn=0.0):
    x, y = mean_points()[:, :2].T * scale
    turned = np.stack([np.cos(turn) * x + np.sin(turn) * y, np.sin(turn) * x - np.cos(turn) * y], 1)
    return (turned - turned.mean(0) + at).astype(np.float32)


def track(frames=6, **changes):
    rng = np.random.default_rng(0)
    landmarks = np.stack([points(at=(200.0 + 2 * n, 200.0)) for n in range(frames)])
    values = {
        "landmarks": landmarks,
        "depth": np.zeros(landmarks.shape[:2], np.float32),
        "confidence": np.ones(frames, np.float32),
        "box": np.zeros((frames, 4), np.float32),
        "times": np.arange(frames) / 25,
        "segments": (Segment(0, frames, True, 1.0),),
        "image_size": (400, 400),
        "pictures": rng.integers(0, 256, (frames, PICTURE_SIDE, PICTURE_SIDE)).astype(np.uint8),
    }
    return FaceTrack(**{**values, **changes})


def visible(frames=6):
    return np.ones((frames, 478), np.float32)


NAMES = ("browInnerUp", "jawOpen", "mouthSmileLeft")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("units", (), "different names"),
        ("units", ("jawOpen", "jawOpen"), "different names"),
        ("channels", (4, 4, 4), "four numbers"),
        ("hidden", 0, "above 0"),
        ("dropout", 1.0, "below 1"),
    ],
)
def test_a_config_that_cannot_work_is_refused(field, value, message):
    with pytest.raises(AvfaceError, match=message):
        replace(SMALL, **{field: value})


def test_pictures_are_normalised_whatever_light_and_exposure():
    grey = torch.randint(20, 120, (3, PICTURE_SIDE, PICTURE_SIDE), dtype=torch.uint8)
    shown = torch.from_numpy(picture_layout().inside).float().expand(3, -1, -1)
    one, brighter = (
        Pictures.of(grey, shown),
        Pictures.of((2.0 * grey.float() + 8).clamp(0, 255).byte(), shown),
    )
    inside = torch.from_numpy(picture_layout().inside)
    for name in ("contrast", "brightness"):
        first, other = (getattr(each, name)[:, inside] for each in (one, brighter))
        assert (first - other).abs().max() < 0.02 and first.std() > 0.2
        assert not getattr(one, name)[:, ~inside].any()


def test_a_mean_leaves_out_what_is_not_seen():
    contrast = torch.tensor([1.0, 3.0])[:, None, None].expand(2, 4, 4)
    shown = torch.ones(2, 4, 4)
    shown[1, :, 2:] = 0
    mean = Pictures(contrast, contrast, shown).mean()
    torch.testing.assert_close(mean.contrast[0, :, :2], torch.full((4, 2), 2.0))
    torch.testing.assert_close(mean.contrast[0, :, 2:], torch.full((4, 2), 1.0))
    first = Pictures(contrast, contrast, torch.ones(2, 4, 4)).mean(torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(first.contrast[0], torch.ones(4, 4))


def test_offsets_turn_and_grow_with_the_face():
    network = small_network()
    small, large = (
        track(2, landmarks=np.stack([points(scale, turn=turn)] * 2))
        for scale, turn in ((900.0, 0.0), (1800.0, 0.4))
    )
    codes = np.random.default_rng(1).normal(size=(2, 5)).astype(np.float32)
    here, there = (CorrectedLandmarks(network, each, codes).offsets(0)[:LANDMARKS] for each in (small, large))
    cos, sin = np.cos(0.4), np.sin(0.4)
    np.testing.assert_allclose(there, 2 * here @ np.array([[cos, sin], [-sin, cos]]), atol=0.02)
    in_crop = here @ crop_matrix(small.landmarks[0])[:, :2].T
    moved = np.setdiff1d(np.arange(LANDMARKS), LIPS)
    expected = FACE_SIZE * (codes[0] @ network.error_basis.numpy()).reshape(-1, 2)
    np.testing.assert_allclose(in_crop[moved], expected[moved], atol=1e-3)
    assert not here[LIPS].any(), "lips are as tracked"
    assert not CorrectedLandmarks(network, small, codes).offsets(0)[LANDMARKS:].any(), "irises"


def test_corrected_landmarks_are_read_by_frame_and_by_slice():
    followed = track(4)
    corrected = CorrectedLandmarks(small_network(), followed, np.ones((4, 5), np.float32))
    rows = corrected[1:3]
    assert rows.shape == (2, 478, 2)
    np.testing.assert_array_equal(rows[1], corrected[2])
    np.testing.assert_allclose(rows[0], followed.landmarks[1] + corrected.offsets(1), atol=1e-4)


def test_frames_that_optical_flow_refined_and_frames_without_a_face_are_left_alone():
    base = track(3)
    landmarks = np.array(base.landmarks)
    landmarks[2] = np.nan
    refined = np.zeros((3, 478), bool)
    refined[1, :50] = True
    followed = replace(
        base,
        landmarks=landmarks,
        flow_landmarks=landmarks + 1,
        flow_tracked=refined,
        flow_confidence=np.ones(3, np.float32),
        confidence=np.array([1, 1, 0], np.float32),
    )
    motion = read_motion(small_network(), followed, NAMES, visible(3))
    assert np.abs(motion.landmarks.offsets(0)).max() > 0
    assert not motion.landmarks.offsets(1).any()
    assert np.isnan(motion.landmarks[2]).all()
    np.testing.assert_array_equal(motion.landmarks[1], landmarks[1] + 1)


def test_units_are_read_with_deviations_and_others_are_not():
    motion = read_motion(small_network(), track(), NAMES, visible())
    assert motion.weights.shape == motion.sigma.shape == (6, 3)
    assert np.isinf(motion.sigma[:, 0]).all() and not motion.weights[:, 0].any()
    assert np.isfinite(motion.sigma[:, 1:]).all() and (motion.sigma[:, 1:] > 0).all()
    assert (motion.weights >= 0).all() and (motion.weights <= 1).all()


def test_weights_are_amplified_beyond_the_least_and_stay_within_limits():
    network = small_network()
    network.amplitude.copy_(torch.tensor([1.0, 2.0]))
    weights = network.amplified(torch.tensor([[0.5, 0.2], [LEAST_WEIGHT, 0.0], [1.2, 0.9]]))
    expected = [[0.5 - LEAST_WEIGHT, 2 * (0.2 - LEAST_WEIGHT)], [0.0, 0.0], [1.0, 1.0]]
    torch.testing.assert_close(weights, torch.tensor(expected))


def test_landmarks_of_faces_that_are_turned_away_stay_as_tracked():
    facing, turned = points(), points()
    half = turned[:, 0] > 200
    turned[half, 0] = 200 + 0.03 * (turned[half, 0] - 200)
    followed = track(2, landmarks=np.stack([facing, turned]))
    offsets = read_motion(small_network(), followed, NAMES, visible(2)).landmarks.offsets(slice(0, 2))
    assert np.abs(offsets[0]).max() > 0 and not offsets[1].any()


def test_nothing_is_read_where_nobody_is_seen():
    followed = track(confidence=np.array([1, 1, 0, 1, 1, 1], np.float32))
    landmarks = np.array(followed.landmarks)
    landmarks[2] = np.nan
    motion = read_motion(small_network(), replace(followed, landmarks=landmarks), NAMES, visible())
    assert np.isinf(motion.sigma[2]).all() and np.isfinite(motion.sigma[[0, 1, 3], 1]).all()


def test_a_track_without_pictures_has_no_motion():
    assert read_motion(small_network(), track(pictures=None), NAMES, visible()) is None


def test_a_file_gives_the_same_answers(tmp_path):
    network = small_network()
    path = tmp_path / "motion.safetensors"
    save_motion_network(network, path, {"note": "x"})
    again = load_motion_network(path)
    assert again.config == SMALL and not again.training
    one, two = (read_motion(each, track(), NAMES, visible()).weights for each in (network, again))
    np.testing.assert_allclose(one, two, atol=5e-3)


def test_a_file_of_another_network_is_refused(tmp_path):
    path = tmp_path / "motion.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(AvfaceError, match="not a readable weights file"):
        load_motion_network(path)
    with pytest.raises(AvfaceError, match="avface train motion"):
        load_motion_network(tmp_path / "missing.safetensors")


def test_the_shipped_network_reads_units_of_the_open_head():
    network = pretrained_motion_network()
    names = load_head("open").expression_names
    assert set(network.config.units) == {name for name in names if not name.startswith("eyeLook")}
