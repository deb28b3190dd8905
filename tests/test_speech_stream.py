import numpy as np
import pytest

from avface.errors import AvfaceError
from avface.speech import speech_features
from avface.speech.moonshine import BLOCK_ROWS, HOP, MARGIN_ROWS
from avface.speech.stream import SoundStream

RATE = 16_000


@pytest.fixture(scope="module")
def sound():
    """Forty seconds of noise with a varying level, more than two blocks."""
    rng = np.random.default_rng(0)
    times = np.arange(40 * RATE) / RATE
    return (0.1 * np.sin(2 * np.pi * 2 * times) ** 2 * rng.normal(size=len(times))).astype(np.float32)


def streamed(sound, times, kind, pieces=97, chunk=120):
    """Features of all frames by a stream, and the largest number of samples that it held."""
    stream = SoundStream(np.array_split(sound, pieces))
    parts, held = [], 0
    for first in range(0, len(times), chunk):
        heard, features = stream.features(times[first : first + chunk], kind, "cpu")
        parts.append((heard, features))
        held = max(held, len(stream._held))
    return parts, held


def test_a_stream_hears_what_the_whole_sound_holds(sound):
    times = np.arange(1000) / 25
    whole = speech_features(sound, times)
    parts, held = streamed(sound, times, "moonshine")

    assert all(heard.all() for heard, _ in parts)
    for name in ("values", "speech_activity", "mouth_openness", "lip_closure", "loudness"):
        joined = np.concatenate([getattr(features, name) for _, features in parts])
        np.testing.assert_allclose(joined, getattr(whole, name), atol=1e-5)
    assert held < HOP * (BLOCK_ROWS + 2 * MARGIN_ROWS) + 7 * RATE < len(sound)


@pytest.mark.parametrize("kind", ["own", "mel"])
def test_other_kinds_hold_the_same_hearing(sound, kind):
    times = np.arange(500) / 25
    whole = speech_features(sound, times, kind)
    parts, _ = streamed(sound, times, kind)

    opening = np.concatenate([features.mouth_openness for _, features in parts])
    np.testing.assert_allclose(opening, whole.mouth_openness, atol=1e-5)
    values = np.concatenate([features.values for _, features in parts])
    assert values.shape == whole.values.shape
    if kind == "mel":
        np.testing.assert_allclose(values[1:-1], whole.values[1:-1], atol=1e-3)


def test_frames_after_the_sound_are_not_heard(sound):
    stream = SoundStream([sound[: 2 * RATE]])
    heard, features = stream.features(np.arange(75) / 25, "moonshine", "cpu")

    assert heard[:50].all() and not heard[50:].any()
    assert features is not None and not features.values[60:].any()
    heard, features = stream.features(3 + np.arange(75) / 25, "moonshine", "cpu")
    assert not heard.any() and features is None


@pytest.mark.parametrize("blocks", [[], [np.zeros(0, np.float32)]])
def test_a_stream_without_sound_is_not_heard(blocks):
    heard, features = SoundStream(blocks).features(np.arange(10) / 25, "moonshine", "cpu")
    assert not heard.any() and features is None


def test_later_frames_may_come_after_a_gap(sound):
    """As frames of a shot after one that doesn't show the person."""
    times = 30 + np.arange(50) / 25
    stream = SoundStream(np.array_split(sound, 50))
    stream.features(np.arange(25) / 25, "moonshine", "cpu")
    _, features = stream.features(times, "moonshine", "cpu")
    np.testing.assert_allclose(features.values, speech_features(sound, times).values, atol=1e-5)


def test_samples_that_are_no_numbers_are_refused(sound):
    broken = sound[:RATE].copy()
    broken[500] = np.nan
    with pytest.raises(AvfaceError, match="finite numbers"):
        SoundStream([broken]).features(np.arange(10) / 25, "moonshine", "cpu")
