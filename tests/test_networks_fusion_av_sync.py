from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from avface.head.schemes import LIPS
from avface.networks.fusion import av_sync
from avface.networks.fusion.av_sync import align_audio, audio_lag, estimate_audio_lag
from avface.speech.moonshine import FIRST_ROW, ROW_SECONDS
from avface.speech.spectrum import SAMPLE_RATE


def curve(rng, seconds, shift):
    """A random opening of the mouth in the readout's rows, and at the times of frames `shift` seconds earlier."""
    from scipy.ndimage import gaussian_filter1d

    times = np.arange(-1, seconds + 1, 0.005)
    opening = gaussian_filter1d(rng.normal(size=len(times)), 12)
    rows = np.interp(FIRST_ROW + ROW_SECONDS * np.arange(round(seconds / ROW_SECONDS)), times, opening)
    frames = np.arange(0, seconds, 0.04)
    return rows, frames, np.interp(frames + shift, times, opening)


@pytest.mark.parametrize("lag", [-0.25, -0.1, -0.04, 0.06, 0.1, 0.25])
def test_a_lag_is_estimated(lag):
    rng = np.random.default_rng(0)
    predicted, times, tracked = curve(rng, 6, lag)
    noisy = predicted + rng.normal(0, predicted.std(), predicted.shape)

    assert audio_lag(predicted, times, tracked) == pytest.approx(lag, abs=0.021)
    assert audio_lag(noisy, times, 300 * tracked + 7) == pytest.approx(lag, abs=0.041)


def test_frames_without_visible_lips_do_not_count():
    rng = np.random.default_rng(1)
    predicted, times, tracked = curve(rng, 6, 0.1)
    tracked[20:100] = np.nan

    assert audio_lag(predicted, times, tracked) == pytest.approx(0.1, abs=0.021)
    tracked[20:] = np.nan
    assert audio_lag(predicted, times, tracked) == 0


def test_without_evidence_there_is_no_lag():
    rng = np.random.default_rng(2)
    predicted, times, tracked = curve(rng, 6, 0.0)
    other = curve(rng, 6, 0.1)[2]

    assert audio_lag(predicted, times, tracked) == pytest.approx(0, abs=0.01)
    assert abs(audio_lag(predicted, times, other)) < 0.05
    assert audio_lag(0.01 * predicted / predicted.std(), times, other) == 0, "nearly silent"
    assert audio_lag(np.zeros_like(predicted), times, tracked) == 0
    assert audio_lag(predicted, times, np.ones_like(tracked)) == 0
    assert audio_lag(predicted[:0], times, tracked) == 0


def test_a_lag_is_trusted_as_far_as_the_evidence_goes():
    """The same noise costs a short clip more of its lag than a long one."""
    found = []
    for seconds in (2, 20):
        lags = []
        for seed in range(8):
            rng = np.random.default_rng(seed)
            predicted, times, tracked = curve(rng, seconds, 0.16)
            lags.append(
                audio_lag(predicted + rng.normal(0, predicted.std(), predicted.shape), times, tracked)
            )
        found.append(np.mean(lags))

    assert 0 < found[0] < found[1] - 0.01
    assert found[1] == pytest.approx(0.16, abs=0.02)


@pytest.mark.parametrize("lag", [-0.05, 0.0, 0.05])
def test_aligned_audio_is_shifted_by_the_lag(lag):
    sound = np.random.default_rng(3).normal(size=SAMPLE_RATE).astype(np.float32)
    blocks = np.array_split(sound, [100, 300, 5000, 5001])
    shifted = np.concatenate(list(align_audio(blocks, lag)))

    missing = round(abs(lag) * SAMPLE_RATE)
    expected = sound[missing:] if lag > 0 else np.concatenate([np.zeros(missing, np.float32), sound])
    np.testing.assert_array_equal(shifted, expected)


@dataclass
class Track:
    """The part of a `FaceTrack` that is used."""

    times: np.ndarray
    landmarks: np.ndarray
    seen: np.ndarray
    visibility: np.ndarray | None = field(default=None)


class FakeHearing:
    """A hearing of a given opening."""

    def __init__(self, rows):
        self.rows = rows

    def hear(self, sound):
        return type("Rows", (), {"opening": torch.from_numpy(self.rows[: len(sound) // 384])})()


def test_a_clip_is_compared_where_its_lips_are_visible(monkeypatch):
    rng = np.random.default_rng(4)
    predicted, times, tracked = curve(rng, 8, 0.08)
    landmarks = rng.uniform(0, 100, (1, 478, 2)).repeat(len(times), 0)
    landmarks[:, 14] = landmarks[:, 13] + np.stack([np.zeros_like(tracked), 5 + tracked - tracked.min()], 1)
    visibility = np.ones((len(times), 478), np.float32)
    visibility[50:80, LIPS] = 0
    landmarks[50:80, 14] += rng.normal(0, 50, (30, 2))  # as of a tracker under occlusion
    track = Track(times, landmarks.astype(np.float32), np.ones(len(times), bool), visibility)
    monkeypatch.setattr(av_sync, "pretrained_hearing", lambda device: FakeHearing(predicted))

    assert estimate_audio_lag(track, [np.zeros(384 * len(predicted), np.float32)]) == pytest.approx(
        0.08, abs=0.021
    )
    assert estimate_audio_lag(track, []) == 0
