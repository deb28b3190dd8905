"""Truncated and damaged files: decodable frames are used, losses are reported."""

from fractions import Fraction

import av
import numpy as np
import pytest
from videos import TICK, Track, beep, constant_rate, corrupt, noises, truncate, write_video

from avface.media import Clip
from avface.media.container import MAX_CONSECUTIVE_ERRORS, ReadErrors, packets

FRONT_INDEX = {"movflags": "+faststart"}
SHORT_GROUPS = {"crf": "10", "g": "10", "preset": "ultrafast"}


def damaged_run(path):
    clip = Clip.open(path)
    frames = list(clip.frames())
    assert clip.damage is not None
    assert clip.damage.frames_decoded == len(frames)
    times = [frame.time for frame in frames]
    assert (np.diff(times) > 0).all()
    return frames, clip.damage


@pytest.mark.parametrize(("suffix", "container"), [(".mp4", FRONT_INDEX), (".mkv", None)])
def test_a_truncated_file_gives_its_frames_and_the_number_of_lost_ones(tmp_path, suffix, container):
    pictures = noises(60)
    whole = write_video(
        tmp_path / f"whole{suffix}",
        pictures,
        constant_rate(60),
        options=SHORT_GROUPS,
        container_options=container,
    )
    frames, damage = damaged_run(truncate(whole, tmp_path / f"cut{suffix}", 0.55))

    assert 25 <= len(frames) <= 35  # every picture compresses equally badly, so bytes are frames
    assert damage.frames_expected == 60
    assert damage.packets_bad >= (suffix == ".mp4")  # the picture that the cut went through
    assert damage.message is not None
    assert f"cut{suffix}: " in damage.message
    assert f"{len(frames)} of 60 frames" in damage.message
    assert "\n" not in damage.message
    whole_frames = list(Clip.open(whole).frames())
    for frame, same in zip(frames[:20], whole_frames, strict=False):
        np.testing.assert_array_equal(frame.image, same.image)
        assert frame.time == pytest.approx(same.time, abs=1e-9)


def test_a_gap_in_a_constant_rate_counts_as_loss_without_an_index(tmp_path):
    times = [*constant_rate(20), *constant_rate(28, start=32 / 30)]  # 12 frames are missing
    _, damage = damaged_run(write_video(tmp_path / "hole.mkv", noises(48), times))

    assert damage.frames_expected == 60
    assert damage.message is not None
    assert "48 of 60 frames" in damage.message


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_damage_in_the_middle_loses_only_the_damaged_frames(tmp_path, suffix):
    whole = write_video(
        tmp_path / f"whole{suffix}",
        noises(60),
        constant_rate(60),
        options=SHORT_GROUPS,
        container_options=FRONT_INDEX if suffix == ".mp4" else None,
    )
    frames, damage = damaged_run(corrupt(whole, tmp_path / f"spoilt{suffix}", 0.50, 0.53))

    assert 45 <= len(frames) <= 60
    assert damage.message is not None
    assert damage.frames_concealed + damage.packets_bad + (60 - len(frames)) > 0
    if damage.frames_expected is not None:
        assert damage.frames_expected == 60
    whole_frames = {round(frame.time, 3): frame for frame in Clip.open(whole).frames()}
    for frame in [*frames[:20], *frames[-10:]]:  # before, and from a later group of pictures
        np.testing.assert_array_equal(frame.image, whole_frames[round(frame.time, 3)].image)


def test_a_whole_file_reports_no_damage(tmp_path):
    uneven = list(np.cumsum(np.random.default_rng(5).uniform(0.01, 0.4, 30)))
    for suffix in (".mp4", ".mkv", ".avi", ".ts"):
        times = constant_rate(30) if suffix != ".mkv" else uneven
        tick = Fraction(1, 30) if suffix == ".avi" else TICK
        clip = Clip.open(write_video(tmp_path / f"whole{suffix}", noises(30), times, tick=tick))
        assert clip.damage is None
        assert len(list(clip.frames())) == 30
        assert clip.damage is not None
        assert (clip.damage.frames_decoded, clip.damage.frames_concealed, clip.damage.packets_bad) == (
            30,
            0,
            0,
        )
        assert clip.damage.message is None


def test_sound_longer_than_the_frames_is_not_damage(tmp_path):
    track = Track(beep(4.0, 1.0))
    clip = Clip.open(write_video(tmp_path / "clip.mkv", noises(30), constant_rate(30), tracks=[track]))

    assert len(list(clip.frames())) == 30
    assert clip.damage is not None
    assert clip.damage.message is None


class FailingContainer:
    """A container with occasional read errors, as on a bad disk."""

    def __init__(self, packets, failures_between):
        self._packets = iter(packets)
        self._failures = failures_between
        self._left = failures_between

    def demux(self, stream):
        while True:
            if self._left:
                self._left -= 1
                raise av.error.InvalidDataError(1, "bad block")
            packet = next(self._packets, None)
            if packet is None:
                return
            self._left = self._failures
            yield packet


def test_reading_continues_after_errors_and_stops_at_endless_ones(tmp_path):
    path = write_video(tmp_path / "clip.mp4", noises(10), constant_rate(10))
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        all_packets = list(file.demux(stream))

        errors = ReadErrors()
        read = list(packets(FailingContainer(all_packets, 3), stream, errors))
        assert read == all_packets
        assert errors.count == 3 * (len(all_packets) + 1)
        assert list(errors.reasons) == ["bad block"]

        endless = FailingContainer(all_packets, 10**9)
        errors = ReadErrors()
        (flush,) = packets(endless, stream, errors)
        assert flush.size == 0
        assert errors.count == MAX_CONSECUTIVE_ERRORS


def test_damaged_sound_keeps_its_time(tmp_path):
    track = Track(beep(2.0, 1.5) + 0.1 * np.random.default_rng(0).standard_normal(96_000).astype(np.float32))
    pictures = [np.zeros((48, 64, 3), np.uint8)] * 60  # nearly all bytes are sound
    whole = write_video(
        tmp_path / "whole.mp4", pictures, constant_rate(60), tracks=[track], container_options=FRONT_INDEX
    )
    clip = Clip.open(corrupt(whole, tmp_path / "spoilt.mp4", 0.4, 0.5))

    sound, expected = clip.audio(), Clip.open(whole).audio()

    tone = slice(int(1.5 * 16_000), int(1.7 * 16_000))
    assert np.abs(sound[tone]).max() > 0.5
    assert np.corrcoef(sound[tone], expected[tone])[0, 1] > 0.95
