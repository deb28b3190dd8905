"""Sound: on the frames' clock, mono, at the requested rate."""

import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from videos import Track, beep, beep_onset, constant_rate, flashes, gradients, label_channels, write_video

from avface.errors import AvfaceError, AvfaceWarning
from avface.media import Clip, VideoWriter, sound

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

    assert len(Clip.open(path).info.audio_tracks) == 2
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


UNMIXABLE = {
    "labels of 7.1 in another order": [1, 2, 3, 4, 10, 11, 5, 6],
    "repeated labels": [1, 2, 1, 2],
    "labels without a place": [(1 << 16) | k for k in range(4)],
}
"""Core Audio's channel labels that make a custom layout in FFmpeg."""

READ = """
import sys
import numpy as np
from avface.media import Clip, VideoWriter
source, target = sys.argv[1:]
for _ in range(5):
    clip = Clip.open(source)
    samples = clip.audio()
    with VideoWriter(target, sound_from=source) as writer:
        for frame in clip.frames():
            writer.write(frame.image, frame.time)
copied = Clip.open(target).audio()
for each in (samples, copied):
    print(clip.info.audio_tracks[0].channels, np.abs(each).max(), np.argmax(np.abs(each) > 0.05) / 16_000)
"""


@pytest.mark.parametrize("labels", UNMIXABLE.values(), ids=UNMIXABLE)
def test_custom_channel_layouts_are_read_and_copied(tmp_path, labels):
    """They made PyAV free memory twice, which ended the process: so in another process, several times."""
    samples = np.zeros((len(labels), 48_000), np.float32)
    samples[-1] = beep(1.0, 0.3)[0]
    plain = write_video(
        tmp_path / "plain.mov",
        gradients(25),
        constant_rate(25, 25),
        tracks=[Track(samples, codec="pcm_s16le")],
    )
    path = label_channels(plain, tmp_path / "labelled.mov", labels)

    arguments = [sys.executable, "-c", READ, str(path), str(tmp_path / "copy.mp4")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        channels, level, onset = map(float, line.split())
        assert channels == len(labels)
        assert level == pytest.approx(0.8 / len(labels), rel=0.1)  # the mean of all channels
        assert onset == pytest.approx(0.3, abs=SYNC)


@pytest.mark.parametrize(
    ("layout", "level"),
    [
        ("24C", 0.8 / 24),
        ("FL+FR+TFC", 0.8 / 3),
        ("ambisonic 1", 0.8),
        ("hexadecagonal", None),
    ],
)
def test_any_layout_of_any_number_of_channels_becomes_mono(layout, level):
    channels = av.AudioLayout(layout).nb_channels
    packed = np.zeros((4800, channels), np.float32)
    packed[:, 0] = 0.8 * np.sin(2 * np.pi * 440 * np.arange(4800) / 48_000)
    frame = av.AudioFrame.from_ndarray(packed.reshape(1, -1), format="flt", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)

    converter = sound._Converter(frame, 16_000, "mono")
    mixed = np.concatenate([block for each in (frame, None) for _, block in converter.convert(each)], axis=1)

    assert mixed.shape[0] == 1
    assert mixed.shape[1] == pytest.approx(1600, abs=2)
    if level is None:
        assert 0.01 < np.abs(mixed).max() < 0.8
    else:
        assert np.abs(mixed[:, 200:1400]).max() == pytest.approx(level, rel=0.05)


def test_by_default_the_loudest_track_is_used_where_the_first_is_silent(tmp_path):
    silent, quiet, loud = (Track(beep(1.5, 0.4, level=level)) for level in (0.0005, 0.1, 0.6))
    title = {"title": "Interview", "language": "eng"}
    tracks = [silent, quiet, Track(loud.samples, tags=title), Track(beep(1.5, 0.9, level=0.3))]
    times = constant_rate(40, 25)
    path = write_video(tmp_path / "clip.mkv", gradients(40), times, tracks=tracks)

    clip = Clip.open(path)

    assert clip.info.audio_track == 2
    assert np.abs(clip.audio()).max() == pytest.approx(0.6, abs=0.06)
    assert clip.sound_remark == (
        f"{path}: sound track 0 is silent, so that the loudest one, 2, is used; choose with --audio-track"
    )
    listed = clip.info.audio_tracks
    assert [track.number for track in listed] == [0, 1, 2, 3]
    assert (listed[2].title, listed[2].language, listed[2].channels) == ("Interview", "eng", 1)
    chosen = Clip.open(path, audio_track=0)
    assert (chosen.info.audio_track, chosen.sound_remark) == (0, None)
    with VideoWriter(tmp_path / "copy.mp4", sound_from=path) as writer:
        for frame in clip.frames():
            writer.write(frame.image, frame.time)
    assert np.abs(Clip.open(tmp_path / "copy.mp4").audio()).max() == pytest.approx(0.6, abs=0.1)


def test_the_first_track_is_used_if_it_has_any_sound_or_all_are_silent(tmp_path):
    quiet, loud, silent = (Track(beep(1.5, 0.4, level=level)) for level in (0.1, 0.6, 0.0))
    for name, tracks in {"quiet": [quiet, loud], "silent": [silent, silent]}.items():
        path = write_video(tmp_path / f"{name}.mp4", gradients(40), constant_rate(40, 25), tracks=tracks)
        clip = Clip.open(path)
        assert (clip.info.audio_track, clip.sound_remark) == (0, None)


def test_sound_that_cannot_be_decoded_is_left_out(tmp_path):
    path = write_video(
        tmp_path / "clip.mkv", gradients(40), constant_rate(40, 25), tracks=[Track(beep(1.5, 0.3))]
    )
    data = path.read_bytes()
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(data.replace(b"A_AAC", b"A_XYZ"))

    clip = Clip.open(broken)

    assert not clip.info.has_audio
    assert clip.audio() is None
    assert [track.codec for track in clip.info.audio_tracks] == [None]
    assert clip.sound_remark == f"{broken}: its sound can't be decoded; it is taken for a video without sound"
    assert Clip.open(broken, audio_track=0).sound_remark == (
        f"{broken}: sound track 0 can't be decoded; it is left out"
    )
    with VideoWriter(tmp_path / "copy.mp4", sound_from=broken) as writer:
        for frame in clip.frames():
            writer.write(frame.image, frame.time)
    assert Clip.open(tmp_path / "copy.mp4").info.audio_tracks == ()


def test_sound_that_cannot_be_converted_any_more_ends_with_a_warning(tmp_path, monkeypatch):
    path = write_video(
        tmp_path / "clip.mp4", gradients(60), constant_rate(60, 25), tracks=[Track(beep(2.2, 0.3))]
    )
    clip = Clip.open(path)
    convert = sound._Converter.convert

    def fail_later(self, frame):
        if frame is not None and frame.time > 1:
            raise ValueError("no such format")
        return convert(self, frame)

    monkeypatch.setattr(sound._Converter, "convert", fail_later)
    with pytest.warns(AvfaceWarning, match=r"clip\.mp4: sound track 0 can't be converted \(no such format\)"):
        samples = clip.audio()

    assert beep_onset(samples) == pytest.approx(0.3, abs=SYNC)
    assert 0.9 < len(samples) / 16_000 < 1.1
