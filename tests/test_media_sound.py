"""Sound: on the frames' clock, mono, at the requested rate."""

import numpy as np
import pytest
from videos import Track, beep, beep_onset, constant_rate, flashes, gradients, write_video

from avface.errors import AvfaceError
from avface.media import Clip

SYNC = 0.005
"""Seconds; forgetting the encoder's delay shifts AAC by 0.021 s, people notice from 0.02 s on."""


def flash_time(clip: Clip) -> float:
    return next(frame.time for frame in clip.frames() if frame.image.mean() > 127)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mp4", "aac"), (".mkv", "aac"), (".mov", "aac"), (".ts", "aac"), (".mkv", "libopus")],
)
@pytest.mark.parametrize(
    ("video_start", "audio_start"),
    [(0.0, 0.0), (0.0, 0.3), (0.4, 0.0), (1.0, 0.6)],
    ids=["together", "sound later", "picture later", "both late"],
)
def test_flash_and_beep_stay_together(tmp_path, suffix, codec, video_start, audio_start):
    moment = 1.2  # on the container's clock
    times = constant_rate(45, 25, start=video_start)
    track = Track(beep(2.0, moment - audio_start), start=audio_start, codec=codec)
    path = write_video(tmp_path / f"clip{suffix}", flashes(times, moment), times, tracks=[track])

    clip = Clip.open(path)

    assert flash_time(clip) == pytest.approx(moment - video_start, abs=1.1e-3)
    assert beep_onset(clip.audio()) == pytest.approx(moment - video_start, abs=SYNC)


def test_sound_is_mono_float_at_the_rate_asked_for(tmp_path):
    track = Track(beep(2.0, 0.5, rate=44_100, channels=2), rate=44_100)
    clip = Clip.open(write_video(tmp_path / "clip.mp4", gradients(50), constant_rate(50, 25), tracks=[track]))

    for rate in (16_000, 22_050):
        blocks = list(clip.audio_blocks(rate))
        assert {(block.dtype, block.ndim) for block in blocks} == {(np.dtype(np.float32), 1)}
        assert max(len(block) for block in blocks) <= rate
        samples = np.concatenate(blocks)
        assert len(samples) / rate == pytest.approx(2.0, abs=0.03)
        spectrum = np.abs(np.fft.rfft(samples))
        assert np.argmax(spectrum) * rate / len(samples) == pytest.approx(1000, abs=5)
    np.testing.assert_array_equal(clip.audio(22_050), samples)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_mixing_to_mono_keeps_the_level_of_a_voice_on_all_channels(tmp_path, channels):
    track = Track(beep(1.0, 0.2, channels=channels, level=0.8))
    clip = Clip.open(write_video(tmp_path / "clip.mp4", gradients(25), constant_rate(25, 25), tracks=[track]))

    tone = clip.audio()[int(0.25 * 16_000) : int(0.35 * 16_000)]

    assert np.abs(tone).max() == pytest.approx(0.8, abs=0.06)


def test_the_chosen_track_is_read(tmp_path):
    tracks = [Track(beep(1.5, 0.3)), Track(beep(1.5, 0.9))]
    path = write_video(tmp_path / "clip.mp4", gradients(40), constant_rate(40, 25), tracks=tracks)

    assert Clip.open(path).info.audio_tracks == 2
    assert beep_onset(Clip.open(path).audio()) == pytest.approx(0.3, abs=SYNC)
    assert beep_onset(Clip.open(path, audio_track=1).audio()) == pytest.approx(0.9, abs=SYNC)
    for missing in (2, -1):
        with pytest.raises(AvfaceError, match=rf"clip\.mp4: .* number {missing}; .* numbers 0 to 1"):
            Clip.open(path, audio_track=missing)


def test_a_video_without_sound_has_none(tmp_path):
    path = write_video(tmp_path / "clip.mp4", gradients(5), constant_rate(5))

    clip = Clip.open(path)

    assert not clip.info.has_audio
    assert clip.audio() is None
    assert list(clip.audio_blocks()) == []
    with pytest.raises(AvfaceError, match=r"clip\.mp4: there is no sound track number 1; this file has none"):
        Clip.open(path, audio_track=1)


def test_a_pause_in_the_sound_is_silence_of_the_same_length(tmp_path, monkeypatch):
    """A recorder that drops sound leaves a jump in the time stamps; what follows must not move forward."""
    from avface.media import sound

    path = write_video(
        tmp_path / "clip.mp4", gradients(60), constant_rate(60, 25), tracks=[Track(beep(2.2, 1.8))]
    )
    decoded = sound._decoded

    def with_a_hole(container, stream):
        return (frame for frame in decoded(container, stream) if not 0.5 < frame.time < 1.5)

    monkeypatch.setattr(sound, "_decoded", with_a_hole)
    clip = Clip.open(path)

    assert beep_onset(clip.audio()) == pytest.approx(1.8, abs=SYNC)
    assert max(len(block) for block in clip.audio_blocks()) <= 16_000


@pytest.mark.parametrize("jump", [-0.4, 1e6], ids=["overlap", "damaged stamp"])
def test_wrong_sound_time_stamps_neither_stretch_nor_inflate_the_sound(tmp_path, monkeypatch, jump):
    from avface.media import sound

    path = write_video(
        tmp_path / "clip.mp4", gradients(60), constant_rate(60, 25), tracks=[Track(beep(2.2, 1.8))]
    )
    decoded = sound._decoded

    def with_a_wrong_stamp(container, stream):
        for frame in decoded(container, stream):
            if 1.0 < frame.time < 1.02:
                frame.pts += round(jump / frame.time_base)
            yield frame

    monkeypatch.setattr(sound, "_decoded", with_a_wrong_stamp)
    samples = Clip.open(path).audio()

    assert beep_onset(samples) == pytest.approx(1.8, abs=SYNC)
    assert len(samples) / 16_000 == pytest.approx(2.2, abs=0.05)


@pytest.mark.parametrize("sample_rate", [0, -16_000])
def test_a_sample_rate_that_is_not_positive_is_refused(tmp_path, sample_rate):
    times = constant_rate(2)
    path = write_video(tmp_path / "clip.mp4", gradients(2), times, tracks=[Track(beep(0.1, 0.0))])

    with pytest.raises(ValueError, match=f"^sample_rate={sample_rate} must be above 0 samples per second$"):
        Clip.open(path).audio(sample_rate)
