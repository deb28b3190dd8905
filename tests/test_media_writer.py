"""Writing videos: times, sizes, colours and sound are preserved; no partial files remain."""

from pathlib import Path

import av
import numpy as np
import pytest
from videos import (
    Track,
    beep,
    beep_onset,
    constant_rate,
    corner_card,
    flashes,
    gradients,
    noises,
    write_sound,
    write_video,
)

from avface.media import Clip, EncodingConfig, VideoWriter, writer
from avface.media.yuv_image import YUVImage, planes

SYNC = 0.005


def written(path, pictures, times, **options):
    with VideoWriter(path, **options) as out:
        for picture, time in zip(pictures, times, strict=True):
            out.write(picture, time)
    return Clip.open(path)


@pytest.mark.parametrize(
    "times",
    [constant_rate(40, 30000 / 1001), constant_rate(40, 25), [0.0, 0.04, 0.05, 0.4, 1.5, 1.51]],
    ids=["29.97", "25", "variable"],
)
def test_times_are_preserved(tmp_path, times):
    clip = written(tmp_path / "out.mp4", gradients(len(times)), times)

    np.testing.assert_allclose([frame.time for frame in clip.frames()], times, atol=1 / 180_000)
    last = times[-1] - times[-2]
    assert clip.info.duration == pytest.approx(times[-1] + last, abs=2e-3)


@pytest.mark.parametrize(("size", "even"), [((64, 48), (64, 48)), ((33, 47), (34, 48)), ((35, 20), (36, 20))])
def test_sizes_are_preserved_and_odd_sides_padded(tmp_path, size, even):
    picture = corner_card(*size) // 2 + 50
    clip = written(tmp_path / "out.mp4", [picture] * 3, constant_rate(3), encoding=EncodingConfig(crf=5))

    assert (clip.info.width, clip.info.height) == even
    image = next(clip.frames()).image[: size[1], : size[0]].astype(int)
    assert np.abs(image - picture)[: size[1] // 2 - 2, : size[0] // 2 - 2].max() <= 6


@pytest.mark.parametrize("colour", [(200, 30, 40), (20, 180, 60), (30, 60, 220), (255, 255, 255), (0, 0, 0)])
def test_colours_are_preserved(tmp_path, colour):
    clip = written(tmp_path / "out.mp4", [np.full((32, 32, 3), colour, np.uint8)] * 2, constant_rate(2))

    image = next(clip.frames()).image
    assert np.abs(image.astype(int) - colour).max() <= 5


@pytest.mark.parametrize("size", [(96, 64), (95, 64), (96, 63)])
@pytest.mark.parametrize(
    "place", [(20, 21, 30, 41), (0, 0, 9, 9), (39, 60, 24, 35), (5, 5, 0, 0), (0, 0, 63, 95)]
)
def test_an_image_twice_with_a_patch_is_written_as_both_together(tmp_path, size, place):
    top, left, rows, columns = place
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (size[1], size[0], 3), np.uint8) for _ in range(3)]
    patch = rng.integers(0, 256, (rows, columns, 3), np.uint8)
    lossless = EncodingConfig(crf=0)
    pairs = []
    with VideoWriter(tmp_path / "twice.mp4", encoding=lossless) as out:
        for number, image in enumerate(images):
            out.write_patched(image, patch, (top, left), number / 25, beside=True)
            right = image.copy()
            right[top : top + rows, left : left + columns] = patch
            pairs.append(np.concatenate([image, right], 1))
    expected = written(tmp_path / "pairs.mp4", pairs, constant_rate(3), encoding=lossless)

    for one, other in zip(Clip.open(tmp_path / "twice.mp4").frames(), expected.frames(), strict=True):
        assert np.abs(one.image.astype(int) - other.image).max() <= 2


def test_a_patch_that_reaches_out_of_the_image_is_refused(tmp_path):
    image, patch = np.zeros((32, 48, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)
    for corner in ((25, 0), (0, 41), (-1, 0)):
        with pytest.raises(ValueError, match="within the image"), VideoWriter(tmp_path / "o.mp4") as out:
            out.write_patched(image, patch, corner, 0.0, beside=True)
    assert list(tmp_path.iterdir()) == []


def test_arrays_that_are_views_are_written_as_seen(tmp_path):
    card = corner_card(64, 48) // 2 + 50
    clip = written(tmp_path / "out.mp4", [card[:, ::-1]] * 2, constant_rate(2))

    image = next(clip.frames()).image.astype(int)
    assert np.abs(image[4:20, 4:28] - card[4, 60]).max() <= 8


@pytest.mark.parametrize(("video_start", "audio_start"), [(0.0, 0.0), (0.0, 0.3), (0.4, 0.0)])
def test_copied_sound_stays_with_the_frames_and_ends_with_them(tmp_path, video_start, audio_start):
    moment = 1.0
    times = constant_rate(40, 25, start=video_start)
    track = Track(beep(4.0, moment - audio_start, rate=44_100, channels=2), rate=44_100, start=audio_start)
    source = Clip.open(write_video(tmp_path / "in.mkv", flashes(times, moment), times, tracks=[track]))

    with VideoWriter(tmp_path / "out.mp4", sound_from=source.info.path) as out:
        for frame in source.frames():
            out.write(frame.image, frame.time)
    clip = Clip.open(tmp_path / "out.mp4")

    flash = next(frame.time for frame in clip.frames() if frame.image.mean() > 127)
    assert flash == pytest.approx(moment - video_start, abs=1.1e-3)
    assert beep_onset(clip.audio()) == pytest.approx(flash, abs=SYNC)
    assert len(clip.audio()) / 16_000 == pytest.approx(1.6, abs=0.03)  # one AAC frame is 0.023 s
    assert clip.info.duration == pytest.approx(1.6, abs=2e-3)


def test_the_chosen_track_is_copied(tmp_path):
    tracks = [Track(beep(1.5, 0.3)), Track(beep(1.5, 0.9))]
    source = write_video(tmp_path / "in.mp4", gradients(40), constant_rate(40, 25), tracks=tracks)

    clip = written(
        tmp_path / "out.mp4", gradients(40), constant_rate(40, 25), sound_from=source, audio_track=1
    )

    assert len(clip.info.audio_tracks) == 1
    assert beep_onset(clip.audio()) == pytest.approx(0.9, abs=SYNC)


def test_sound_of_a_sound_file_and_of_an_array(tmp_path):
    wav = write_sound(tmp_path / "voice.wav", Track(beep(2.0, 0.7, rate=16_000), 16_000, codec="pcm_s16le"))
    from_file = written(tmp_path / "a.mp4", gradients(50), constant_rate(50, 25), sound_from=wav)
    made = (beep(2.0, 0.7, rate=16_000)[0], 16_000)
    from_samples = written(tmp_path / "b.mp4", gradients(50), constant_rate(50, 25), sound=made)

    for clip in (from_file, from_samples):
        assert beep_onset(clip.audio()) == pytest.approx(0.7, abs=SYNC)


def test_sound_of_an_array_longer_than_the_video_is_cut(tmp_path):
    made = (beep(5.0, 0.2, rate=16_000)[0], 16_000)
    clip = written(tmp_path / "out.mp4", gradients(30), constant_rate(30, 25), sound=made)

    assert clip.info.duration == pytest.approx(1.2, abs=2e-3)
    assert len(clip.audio()) / 16_000 == pytest.approx(1.2, abs=0.065)  # one AAC frame is 0.064 s here


def test_sound_shorter_than_the_video_just_ends(tmp_path):
    made = (beep(0.5, 0.2, rate=16_000)[0], 16_000)
    clip = written(tmp_path / "out.mp4", gradients(50), constant_rate(50, 25), sound=made)

    assert clip.info.duration == pytest.approx(2.0, abs=0.01)
    assert len(clip.audio()) / 16_000 == pytest.approx(0.5, abs=0.07)


def test_a_source_without_sound_gives_a_video_without_sound(tmp_path):
    source = write_video(tmp_path / "in.mp4", gradients(5), constant_rate(5))
    clip = written(tmp_path / "out.mp4", gradients(5), constant_rate(5), sound_from=source)

    assert not clip.info.has_audio
    assert len(list(clip.frames())) == 5


def test_sound_is_read_only_as_far_as_the_frames_have_come(tmp_path, monkeypatch):
    source = write_video(tmp_path / "in.mp4", gradients(2), constant_rate(2), tracks=[Track(beep(1.0, 0.2))])
    read = [0]

    def endless(path, track, start, sample_rate, layout):
        while True:
            read[0] += 1024
            yield np.zeros((1, 1024), np.float32)

    monkeypatch.setattr(writer, "aligned_sound", endless)
    with VideoWriter(tmp_path / "out.mp4", sound_from=source) as out:
        for picture, time in zip(gradients(50), constant_rate(50, 25), strict=True):
            out.write(picture, time)
            assert read[0] <= time * 48_000 + 1024


def test_the_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "out.mp4"
    with VideoWriter(path) as out:
        for picture, time in zip(gradients(30), constant_rate(30), strict=True):
            out.write(picture, time)
            assert not path.exists()
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]


def test_a_failed_write_leaves_nothing_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"what was there before")

    for frames_before in (0, 1, 30):
        with pytest.raises(ZeroDivisionError), VideoWriter(path) as out:
            for picture, time in zip(gradients(30)[:frames_before], constant_rate(30), strict=False):
                out.write(picture, time)
            raise ZeroDivisionError
        assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]
        assert path.read_bytes() == b"what was there before"


def test_times_that_do_not_increase_and_other_sizes_are_refused(tmp_path):
    with VideoWriter(tmp_path / "out.mp4") as out:
        out.write(gradients(1)[0], 0.5)
        with pytest.raises(ValueError, match=r"time=0\.5 must not be negative and must be later"):
            out.write(gradients(1)[0], 0.5)
        with pytest.raises(ValueError, match=r"32 x 24 pixels, but this video began with 64 x 48"):
            out.write(gradients(1, 32, 24)[0], 0.6)
        out.write(gradients(1)[0], 0.7)

    assert len(list(Clip.open(tmp_path / "out.mp4").frames())) == 2


def test_players_can_start_before_the_whole_file_is_there(tmp_path):
    written(tmp_path / "out.mp4", gradients(5), constant_rate(5))

    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_params_of_x264_change_the_presets(tmp_path):
    pictures, times = noises(20), constant_rate(20)
    sizes = []
    for number, params in enumerate(("", "qpmin=45:qpmax=51")):
        path = tmp_path / f"{number}.mp4"
        written(path, pictures, times, encoding=EncodingConfig(x264_params=params))
        sizes.append(path.stat().st_size)
    assert sizes[1] < 0.7 * sizes[0]


def test_a_finer_crf_gives_a_better_picture(tmp_path):
    rng = np.random.default_rng(1)
    picture = rng.integers(60, 190, (64, 64, 3), dtype=np.uint8).repeat(2, 0).repeat(2, 1)
    error = {}
    for crf in (10, 40):
        clip = written(
            tmp_path / f"{crf}.mp4", [picture] * 3, constant_rate(3), encoding=EncodingConfig(crf=crf)
        )
        error[crf] = np.abs(next(clip.frames()).image.astype(int) - picture).mean()
    assert error[10] < error[40] / 1.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crf": 60}, r"crf=60 must be between 0 \(lossless\) and 51"),
        ({"crf": -1}, r"crf=-1 must be between 0 \(lossless\) and 51"),
        ({"keyframe_interval": 0}, "keyframe_interval=0 must be at least 1 frame"),
        ({"preset": "swift"}, "preset='swift' must be one of ultrafast, superfast, .*, placebo"),
        ({"audio_bit_rate": 0}, "audio_bit_rate=0 must be 1 bit per second or more"),
    ],
)
def test_settings_that_the_encoder_cannot_use_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        EncodingConfig(**settings)


MATRICES = {"bt709": 1, "smpte170m": 6, "unknown": 2}
"""Names of matrices for x264, and their numbers in ISO 23091-2."""


def decoded(path):
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize(("matrix", "kept"), [("bt709", 1), ("smpte170m", 6), ("unknown", 6)])
def test_an_image_as_decoded_is_written_without_loss_in_its_own_matrix(tmp_path, matrix, kept, beside):
    """Planes outside the patch are the source's, bit by bit; the patch has the colours that it was given."""
    source = tagged_video(tmp_path / "in.mp4", matrix)
    patch = np.full((20, 30, 3), (200, 90, 40), np.uint8)
    with VideoWriter(tmp_path / "out.mp4", encoding=EncodingConfig(crf=0)) as out:
        for picture in Clip.open(source).pictures():
            assert isinstance(picture.image, YUVImage)
            out.write_patched(picture.image, patch, (14, 20), picture.time, beside=beside)

    shift = 96 if beside else 0
    for one, other in zip(decoded(source), decoded(tmp_path / "out.mp4"), strict=True):
        assert int(other.colorspace) == kept
        for source_plane, plane, scale in zip(planes(one), planes(other), (1, 2, 2), strict=True):
            differs = np.zeros(plane.shape, bool)
            differs[:, shift // scale :] = source_plane != plane[:, shift // scale :]
            if beside:
                np.testing.assert_array_equal(plane[:, : 96 // scale], source_plane)
            rows, columns = differs.nonzero()
            assert rows.min() * scale >= 14 - 8
            assert (rows.max() + 1) * scale <= 14 + 20 + 8
            assert columns.min() * scale >= shift + 20 - 8
            assert (columns.max() + 1) * scale <= shift + 20 + 30 + 8
    seen = next(Clip.open(tmp_path / "out.mp4").frames()).image[16:32, shift + 24 : shift + 46]
    assert np.abs(seen.astype(int) - (200, 90, 40)).max() <= 4


def test_parts_of_an_image_as_decoded_are_those_of_the_frame(tmp_path):
    clip = Clip.open(tagged_video(tmp_path / "in.mp4", "unknown"))

    for picture, frame in zip(clip.pictures(), clip.frames(), strict=True):
        assert picture.image.shape == frame.image.shape
        assert (picture.index, picture.time) == (frame.index, frame.time)
        for part in (np.s_[:, :], np.s_[3:17, 5:40], np.s_[63:64, 95:96], np.s_[:0, :0]):
            np.testing.assert_array_equal(picture.image[part], frame.image[part])


def test_images_that_an_encoder_cannot_take_are_written_through_rgb(tmp_path):
    """Of full range; and of a matrix that changes in mid-file, here by joining two streams."""
    full = tagged_video(tmp_path / "full.mp4", "bt709", params="fullrange=on")
    assert all(isinstance(picture.image, np.ndarray) for picture in Clip.open(full).pictures())

    first, second = (Clip.open(tagged_video(tmp_path / f"{m}.mp4", m)) for m in ("bt709", "smpte170m"))
    with VideoWriter(tmp_path / "out.mp4", encoding=EncodingConfig(crf=0)) as out:
        for number, clip in enumerate((first, second)):
            for picture in clip.pictures():
                out.write_patched(picture.image, np.zeros((0, 0, 3), np.uint8), (0, 0), number + picture.time)
    written = [frame.image.astype(int) for frame in Clip.open(tmp_path / "out.mp4").frames()]
    expected = [frame.image for clip in (first, second) for frame in clip.frames()]
    assert max(np.abs(a - b).mean() for a, b in zip(written, expected, strict=True)) < 2


def tagged_video(path, matrix, params="", size=(96, 64)):
    """A video of smooth colours, encoded without a change of its planes, whose matrix is stated."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    with av.open(str(path), "w") as container:
        options = {"crf": "0", "x264-params": f"colormatrix={matrix}:{params}".rstrip(":")}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(4):
            frame = av.VideoFrame(*size, "yuv420p")
            values = (40 + 150 * x + 5 * number, 90 + 60 * y, 160 - 60 * x)
            for plane, value, step in zip(planes(frame), values, (1, 2, 2), strict=True):
                plane[:] = value[::step, ::step]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_a_signal_while_the_file_is_created_leaves_nothing(tmp_path, monkeypatch):
    touch = Path.touch

    def interrupted(path, **options):
        touch(path, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "touch", interrupted)
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "a.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []
