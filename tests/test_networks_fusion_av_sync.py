from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from avface.head.schemes import LIPS
from avface.networks.fusion import av_sync as synchrony
from avface.networks.fusion.av_sync import clip_sound_lag, in_step, sound_lag
from avface.speech.acoustic import ROW_SECONDS
from avface.speech.spectrum import SAMPLE_RATE


def curve(rng, seconds, shift):
    """A mouth that opens and shuts, at 50 rows a second, and at frames that see it `shift` seconds earlier."""
    from scipy.ndimage import gaussian_filter1d

    times = np.arange(-1, seconds + 1, 0.005)
    opening = gaussian_filter1d(rng.normal(size=len(times)), 12)
    rows = np.interp(ROW_SECONDS * np.arange(round(seconds / ROW_SECONDS)), times, opening)
    frames = np.arange(0, seconds, 0.04)
    return rows, frames, np.interp(frames + shift, times, opening)


@pytest.mark.parametrize("lag", [-0.1, -0.04, 0.06, 0.1])
def test_a_lag_is_found(lag):
    rng = np.random.default_rng(0)
    heard, times, seen = curve(rng, 6, lag)
    noisy = heard + rng.normal(0, heard.std(), heard.shape)

    assert sound_lag(heard, times, seen) == pytest.approx(lag, abs=0.021)
    assert sound_lag(noisy, times, 300 * seen + 7) == pytest.approx(lag, abs=0.041)


def test_frames_in_which_lips_are_not_seen_do_not_count():
    rng = np.random.default_rng(1)
    heard, times, seen = curve(rng, 6, 0.1)
    seen[20:100] = np.nan

    assert sound_lag(heard, times, seen) == pytest.approx(0.1, abs=0.021)
    seen[20:] = np.nan
    assert sound_lag(heard, times, seen) == 0


def test_without_evidence_there_is_no_lag():
    rng = np.random.default_rng(2)
    heard, times, seen = curve(rng, 6, 0.0)
    other = curve(rng, 6, 0.1)[2]

    assert sound_lag(heard, times, seen) == 0
    assert sound_lag(heard, times, other) == 0
    assert sound_lag(np.zeros_like(heard), times, seen) == 0
    assert sound_lag(heard, times, np.ones_like(seen)) == 0
    assert sound_lag(heard[:0], times, seen) == 0


@pytest.mark.parametrize("lag", [-0.05, 0.0, 0.05])
def test_sound_in_step_is_what_is_heard_that_much_later(lag):
    sound = np.random.default_rng(3).normal(size=SAMPLE_RATE).astype(np.float32)
    blocks = np.array_split(sound, [100, 300, 5000, 5001])
    shifted = np.concatenate(list(in_step(blocks, lag)))

    missing = round(abs(lag) * SAMPLE_RATE)
    expected = sound[missing:] if lag > 0 else np.concatenate([np.zeros(missing, np.float32), sound])
    np.testing.assert_array_equal(shifted, expected)


@dataclass
class Track:
    """As much of a `FaceTrack` as is asked for."""

    times: np.ndarray
    landmarks: np.ndarray
    seen: np.ndarray
    visibility: np.ndarray | None = field(default=None)


class Listener:
    """An acoustic model that hears a given opening."""

    def __init__(self, rows):
        self.rows = rows

    def listen(self, sound):
        return type("Rows", (), {"openness": torch.from_numpy(self.rows[: len(sound) // 320])})()


def test_a_clip_is_compared_where_its_lips_are_seen(monkeypatch):
    rng = np.random.default_rng(4)
    heard, times, seen = curve(rng, 8, 0.08)
    landmarks = rng.uniform(0, 100, (1, 478, 2)).repeat(len(times), 0)
    landmarks[:, 14] = landmarks[:, 13] + np.stack([np.zeros_like(seen), 5 + seen - seen.min()], 1)
    visibility = np.ones((len(times), 478), np.float32)
    visibility[50:80, LIPS] = 0
    landmarks[50:80, 14] += rng.normal(0, 50, (30, 2))  # what a tracker makes up
    track = Track(times, landmarks.astype(np.float32), np.ones(len(times), bool), visibility)
    monkeypatch.setattr(synchrony, "pretrained_acoustic_model", lambda device: Listener(heard))

    assert clip_sound_lag(track, [np.zeros(320 * len(heard), np.float32)]) == pytest.approx(0.08, abs=0.021)
    assert clip_sound_lag(track, []) == 0
