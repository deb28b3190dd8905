"""Predictions for whole clips, and the weights of landmarks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from networks_frames import small_config, small_networks

import avface.speech.stream
from avface.errors import AvfaceError
from avface.head import load_head
from avface.networks.coarse import inference as clips
from avface.networks.coarse.codes import OPEN_CODE
from avface.networks.coarse.inference import predict_clip
from avface.networks.coarse.video import LandmarksConfig, ResNetConfig
from avface.networks.coarse.windows import predict
from avface.networks.frames import FaceCrop, Frames, face_boxes
from avface.networks.fusion.landmark_weights import LandmarkWeights, region_weights
from avface.networks.regions import LANDMARK_REGIONS, REGIONS, unit_log_variance, unit_regions
from avface.speech import speech_features
from avface.tracking import FaceTrack, Segment

SIZE, FOCAL = (640, 480), 900.0
NAMES = load_head("open").expression_names


def some_track(frames=40, unseen=(), segments=None, seed=0, visibility=None):
    """A face that moves across the picture, with noise of its landmarks."""
    rng = np.random.default_rng(seed)
    rest = rng.uniform(-60, 60, (478, 2))
    path = np.column_stack([300 + 2.0 * np.arange(frames), 220 + np.arange(frames)])
    landmarks = (rest + path[:, None] + rng.normal(0, 1, (frames, 478, 2))).astype(np.float32)
    depth = rng.normal(0, 20, (frames, 478)).astype(np.float32)
    confidence = np.ones(frames, np.float32)
    unseen = list(unseen)
    landmarks[unseen] = depth[unseen] = np.nan
    confidence[unseen] = 0
    crop = np.concatenate([landmarks.min(1), landmarks.max(1)], 1)
    segments = segments or (Segment(0, frames, True, 1.0),)
    times = np.arange(frames) / 25
    return FaceTrack(landmarks, depth, confidence, crop, times, segments, SIZE, visibility=visibility)


def some_sound(seconds, seed=0):
    """Noise with a varying level."""
    samples = int(16_000 * seconds)
    swell = 0.2 * (1 + np.sin(np.arange(samples) / 3000))
    return (swell * np.random.default_rng(seed).normal(size=samples)).clip(-1, 1).astype(np.float32)


def blocks(sound, size=1000):
    return [sound[start : start + size] for start in range(0, len(sound), size)]


def arrays(prediction):
    return {name: value for name, value in vars(prediction).items() if isinstance(value, np.ndarray)}


def assert_same(one, other, rows=slice(None), tolerance=1e-5):
    for name, value in arrays(one).items():
        if name.startswith("shape"):
            continue
        np.testing.assert_allclose(
            value[rows], getattr(other, name)[rows], rtol=tolerance, atol=tolerance, err_msg=name
        )


def test_a_clip_is_predicted_as_its_frames_are():
    networks, track, sound = small_networks(), some_track(), some_sound(2)
    features = speech_features(sound, track.times)
    box = torch.from_numpy(face_boxes(track.landmarks, np.ones(40, bool), 25.0))[None]
    crop = FaceCrop.of(box, FOCAL, (319.5, 239.5))
    frames = Frames(
        crop,
        torch.ones(1, 40, dtype=torch.bool),
        torch.ones(1, 40, dtype=torch.bool),
        crop.normalise(torch.from_numpy(track.landmarks)[None]),
        torch.ones(1, 40),
        speech=torch.from_numpy(features.values)[None],
    )
    coarse, expression = predict(networks, frames)

    found = predict_clip(networks, NAMES, track, blocks(sound), FOCAL)

    for name, expected in {
        "expression": expression.expression,
        "expression_sigma": unit_log_variance(expression.log_variance, unit_regions(NAMES)).div(2).exp(),
        "rotation": coarse.rotation,
        "rotation_sigma": coarse.log_variance[..., 0].div(2).exp(),
    }.items():
        np.testing.assert_allclose(getattr(found, name), expected[0], rtol=1e-4, atol=1e-4, err_msg=name)
    sure = torch.exp(-coarse.log_variance[0, :, 2:])
    np.testing.assert_allclose(
        found.shape, (sure * coarse.shape[0]).sum(0) / sure.sum(), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(found.shape_sigma, float(sure.mean() ** -0.5), rtol=1e-4)
    assert found.window == 16 and found.source == "networks with video and audio as input"


def test_landmark_variances_do_not_depend_on_the_sound():
    networks, track = small_networks(), some_track()
    silent = predict_clip(networks, NAMES, track, None, FOCAL)
    one, other = (
        predict_clip(networks, NAMES, track, blocks(loudness * some_sound(2)), FOCAL)
        for loudness in (1, -0.1)
    )

    assert np.abs(one.expression - other.expression).max() > 1e-4
    np.testing.assert_array_equal(one.landmark_sigma, other.landmark_sigma)
    np.testing.assert_allclose(one.landmark_sigma[0], silent.landmark_sigma[0], rtol=1e-5)


def test_long_clips_are_predicted_in_chunks_without_seams(monkeypatch):
    networks = small_networks()
    # all of one size, on one spot: the square doesn't depend on where stretches end
    track = some_track(70)
    track.landmarks[:] = track.landmarks[:1] + np.random.default_rng(1).normal(0, 0.01, (70, 478, 2))
    whole = predict_clip(networks, NAMES, track, None, FOCAL)

    monkeypatch.setattr(clips, "CHUNK_FRAMES", 20)
    parts = predict_clip(networks, NAMES, track, None, FOCAL)

    assert_same(parts, whole, tolerance=2e-3)


def test_streamed_sound_gives_the_same_as_whole_sound(monkeypatch):
    networks, track = small_networks(), some_track(70)
    sound = some_sound(2.0)  # ends before the frames do
    monkeypatch.setattr(
        avface.speech.stream, "CONTEXT_SECONDS", 10.0
    )  # so that every stretch hears all of it
    monkeypatch.setattr(clips, "CHUNK_FRAMES", 20)

    one = predict_clip(networks, NAMES, track, [sound], FOCAL)
    other = predict_clip(networks, NAMES, track, blocks(sound, 777), FOCAL)
    silent = predict_clip(networks, NAMES, track, [], FOCAL)
    deaf = predict_clip(networks, NAMES, track, None, FOCAL)

    assert_same(one, other, tolerance=1e-6)
    assert_same(silent, deaf, tolerance=1e-6)
    assert np.abs(one.expression_sigma - deaf.expression_sigma)[:40].max() > 1e-3
    # from a window after the sound's end on, nothing is heard
    assert_same(one, replace(deaf, landmark_sigma=one.landmark_sigma), slice(66, None), tolerance=1e-6)


def test_expressions_from_sound_do_not_depend_on_the_picture():
    networks, sound = small_networks(), some_sound(2)
    one, other = (
        predict_clip(networks, NAMES, some_track(seed=seed), [sound], FOCAL, use_video=False)
        for seed in (0, 5)
    )

    np.testing.assert_array_equal(one.expression, other.expression)
    assert np.abs(one.rotation - other.rotation).max() > 1e-3, "the head is still looked at"
    assert one.source == "networks with audio as input"


def test_shots_without_the_person_and_clips_without_a_face():
    networks = small_networks()
    segments = (Segment(0, 10, False, 0.1), Segment(10, 25, True, 1.0), Segment(25, 40, True, 1.0))
    track = some_track(unseen=[*range(10), *range(25, 40)], segments=segments)

    found = predict_clip(networks, NAMES, track, [some_sound(2)], FOCAL)

    assert np.isinf(found.expression_sigma[:10]).all() and np.isfinite(found.expression_sigma[10:]).all()
    assert np.isinf(found.landmark_sigma[:10]).all() and np.isinf(found.rotation_sigma[:10]).all()
    for name, value in arrays(found).items():
        assert not np.isnan(value).any(), name
    alone = some_track(unseen=range(10), segments=(segments[0], segments[1], Segment(25, 40, False, 0.1)))
    np.testing.assert_allclose(
        predict_clip(networks, NAMES, alone, [some_sound(2)], FOCAL).shape, found.shape, rtol=1e-5
    )


def test_visibility_is_an_input_of_the_networks():
    networks = small_networks(video=LandmarksConfig("landmarks", "contours", visibility=True, hidden=(24,)))
    visibility = np.ones((40, 478), np.float32)
    visibility[20:, LANDMARK_REGIONS.numpy() == 0] = 0
    track = some_track()
    elsewhere = replace(track, landmarks=track.landmarks.copy(), visibility=visibility)
    elsewhere.landmarks[20:, LANDMARK_REGIONS.numpy() == 0] += 5  # not so far that the square moves

    plain = predict_clip(networks, NAMES, track, None, FOCAL)
    found = predict_clip(networks, NAMES, replace(track, visibility=visibility), None, FOCAL)

    assert np.abs(found.expression_sigma - plain.expression_sigma)[-3:].max() > 1e-4
    nothing = predict_clip(networks, NAMES, replace(track, visibility=np.zeros_like(visibility)), None, FOCAL)
    unseen = replace(track, confidence=np.zeros(40, np.float32))
    assert_same(nothing, predict_clip(networks, NAMES, unseen, None, FOCAL))


def test_networks_that_cannot_be_used_are_refused():
    track = some_track(16)
    with pytest.raises(AvfaceError, match="need pictures"):
        predict_clip(small_networks(video=ResNetConfig()), NAMES, track, None, FOCAL)
    with pytest.raises(ValueError, match="expression units"):
        predict_clip(small_networks(code=replace(OPEN_CODE, expression=50)), NAMES, track, None, FOCAL)
    with pytest.raises(ValueError, match="evaluation mode"):
        predict_clip(small_networks().train(), NAMES, track, None, FOCAL)
    assert small_config().head == "open"


# Weights of landmarks


def test_occluded_landmarks_and_regions_of_large_variance_lose_weight():
    visibility = np.ones((40, 478), np.float32)
    visibility[5:9, :100] = 0.5875
    visibility[9, :100] = 0.4
    visibility[20:26, -100:] = 0
    sigma = np.full((40, 6), 0.01, np.float32)
    sigma[20:30, 0] = 0.2
    lips = LANDMARK_REGIONS.numpy() == 0
    weights = LandmarkWeights(some_track(unseen=[39], visibility=visibility), sigma)

    assert weights[3].shape == (478,) and weights[3:9].shape == (6, 478)
    np.testing.assert_array_equal(weights[3], 1)
    np.testing.assert_allclose(weights[7][:100] / weights[7][100:].mean(), 0.25, rtol=1e-4)
    assert (weights[9][:100] == 0).all()
    assert 0.3 < weights[9][100:].max() < 0.7, "what hides a fifth of the face moves the rest, too"
    shown = np.arange(478) < 378
    assert weights[25][lips].max() < 0.05 and weights[25][~lips & shown].min() > 0.4
    np.testing.assert_array_equal(weights[28], 1, "a large variance without occlusion")
    regions = weights.by_region()
    assert regions.shape == (40, 6) and (regions[39] == 0).all() and regions[3].min() > 0.999
    assert regions[9].max() > 0.85, "a seen region counts as seen"
    assert regions[25, 0] < 0.05 < regions[28, 0]


def test_excluded_regions_have_no_weight():
    weights = LandmarkWeights(some_track(), without=("lips", "jaw"))

    gone = np.isin(LANDMARK_REGIONS.numpy(), [REGIONS.index("lips"), REGIONS.index("jaw")])
    np.testing.assert_array_equal(weights[0:40], np.where(gone, 0, 1)[None].repeat(40, 0))


def test_only_variances_above_the_baseline_count():
    steady = np.full((50, 6), 0.02, np.float32)
    np.testing.assert_array_equal(region_weights(steady), 1)

    always = np.full((50, 6), 0.3, np.float32)
    assert region_weights(always).max() < 0.1, "what nothing in the clip shows isn't believed"
    unknown = np.full((50, 6), np.inf, np.float32)
    np.testing.assert_array_equal(region_weights(unknown), 1)
