"""Frames: pictures, times, rotation, formats, the decoding thread."""

import gc
import threading
import time as clock
import weakref
from fractions import Fraction

import av
import numpy as np
import pytest
from videos import (
    CORNERS,
    TICK,
    UNIT,
    constant_rate,
    corner_card,
    corners,
    gradients,
    trim_with_edit_list,
    write_video,
)

from avface.errors import AvfaceError
from avface.media import Clip, Frame, resampled
from avface.media import clip as clip_module
from avface.media.clip import FRAMES_AHEAD
from avface.media.display import Orientation, UprightRGB
from avface.media.tone_mapping import tone_mapped


def test_frames_come_in_order_with_their_pictures_and_times(tmp_path):
    pictures = gradients(40)
    clip = Clip.open(write_video(tmp_path / "clip.mp4", pictures, constant_rate(40, 25)))

    frames = list(clip.frames())

    assert [frame.index for frame in frames] == list(range(40))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(40) / 25, atol=1e-9)
    for frame, picture in zip(frames, pictures, strict=True):
        assert frame.image.dtype == np.uint8
        assert frame.image.flags.c_contiguous
        # neighbouring pictures differ by 2.5: an error below 2 on average tells them apart
        assert np.abs(frame.image.astype(int) - picture)[:, :, 1].mean() < 2, f"frame {frame.index}"


def test_info_has_the_properties_of_the_file(tmp_path):
    clip = Clip.open(write_video(tmp_path / "clip.mp4", gradients(30, 64, 48), constant_rate(30, 15)))

    info = clip.info
    assert (info.width, info.height, info.rotation, info.mirrored) == (64, 48, 0, False)
    assert info.frame_rate == pytest.approx(15, rel=1e-3)
    assert info.frame_count == 30
    assert info.duration == pytest.approx(2.0, abs=0.07)
    assert (info.codec, info.has_audio, info.audio_tracks) == ("h264", False, ())


def test_frames_can_be_read_again_and_side_by_side(tmp_path):
    clip = Clip.open(write_video(tmp_path / "clip.mp4", gradients(12), constant_rate(12)))

    for one, other in zip(clip.frames(), clip.frames(), strict=True):
        assert (one.index, one.time) == (other.index, other.time)
        np.testing.assert_array_equal(one.image, other.image)
    assert len(list(clip.frames())) == 12


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".ts"])
def test_variable_frame_rate_keeps_true_times(tmp_path, suffix):
    times = [0.0, 0.04, 0.05, 0.1, 0.4, 0.41, 0.9, 1.5]
    out_of_order = {"crf": "10", "bf": "2", "b-adapt": "0"}  # stored order differs from shown order
    clip = Clip.open(write_video(tmp_path / f"clip{suffix}", gradients(8), times, options=out_of_order))

    exact = 0.5e-3 if suffix == ".mkv" else 1e-9  # Matroska rounds to milliseconds
    np.testing.assert_allclose([frame.time for frame in clip.frames()], times, atol=exact * 1.001)


def test_time_zero_is_the_first_frame_even_if_the_container_starts_earlier(tmp_path):
    path = write_video(tmp_path / "clip.mkv", gradients(10), constant_rate(10, 25, start=2.0))

    clip = Clip.open(path)
    times = [frame.time for frame in clip.frames()]

    assert times[0] == 0.0
    np.testing.assert_allclose(times, np.arange(10) / 25, atol=1.01e-3)
    assert clip.info.start_time == pytest.approx(2.0, abs=1e-3)


def turned(display_rotation: int, mirrored: bool) -> list[int]:
    """The display matrix that mirrors stored pixels (p -> -p) and then turns them clockwise, q downwards."""
    cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[display_rotation]
    flip = -1 if mirrored else 1
    return [flip * cos * UNIT, flip * sin * UNIT, 0, -sin * UNIT, cos * UNIT, 0, 0, 0, 1 << 30]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize(
    ("size", "pix_fmt"),
    [((48, 64), "yuv420p"), ((33, 47), "yuv444p"), ((48, 64), "yuv422p10le")],
)
def test_display_matrix_makes_pictures_upright(tmp_path, rotation, mirrored, size, pix_fmt):
    upright = corner_card(*size)
    stored = np.rot90(upright, rotation // 90)  # against the clock: display turns it back
    if mirrored:
        stored = stored[:, ::-1]
    path = write_video(
        tmp_path / "clip.mp4",
        [stored] * 3,
        constant_rate(3),
        pix_fmt=pix_fmt,
        display_matrix=turned(rotation, mirrored),
    )

    clip = Clip.open(path)
    frames = list(clip.frames())

    assert (clip.info.rotation, clip.info.mirrored) == (rotation, mirrored)
    assert (clip.info.width, clip.info.height) == size
    assert len(frames) == 3
    for frame in frames:
        assert frame.image.shape == upright.shape
        assert frame.image.flags.c_contiguous
        assert corners(frame.image) == CORNERS


def test_portrait_video_of_phones_is_rotated_clockwise(tmp_path):
    """The matrix that iPhones write for portrait videos, byte for byte as in their files."""
    iphone_portrait = [0, UNIT, 0, -UNIT, 0, 0, 48 * UNIT, 0, 1 << 30]
    stored = np.rot90(corner_card(48, 64))
    path = write_video(tmp_path / "clip.mov", [stored], [0.0], display_matrix=iphone_portrait)

    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).rotation == -90  # FFmpeg counts against the clock
    clip = Clip.open(path)
    assert clip.info.rotation == 90
    assert corners(next(clip.frames()).image) == CORNERS


@pytest.mark.parametrize(
    ("matrix", "flip"),
    [([-UNIT, 0, 0, 0, UNIT, 0, 0, 0, 1 << 30], 1), ([UNIT, 0, 0, 0, -UNIT, 0, 0, 0, 1 << 30], 0)],
    ids=["left-right", "upside down"],
)
def test_mirror_matrices_flip(tmp_path, matrix, flip):
    stored = np.flip(corner_card(64, 48), axis=flip)
    path = write_video(tmp_path / "clip.mp4", [stored], [0.0], display_matrix=matrix)

    assert corners(next(Clip.open(path).frames()).image) == CORNERS


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [
        (".mp4", "libx264", "yuv420p10le"),
        (".mp4", "libx264", "yuv422p"),
        (".mkv", "ffv1", "yuv420p10le"),
        (".mkv", "ffv1", "gray"),
        (".mkv", "ffv1", "bgr0"),
        (".webm", "libvpx-vp9", "yuv420p"),
        (".avi", "mjpeg", "yuvj420p"),
    ],
)
def test_formats_and_bit_depths_all_become_rgb(tmp_path, suffix, codec, pix_fmt):
    picture = np.full((48, 64, 3), 150, np.uint8)
    picture[:, 32:] = 60
    path = write_video(
        tmp_path / f"clip{suffix}",
        [picture] * 4,
        constant_rate(4),
        codec=codec,
        pix_fmt=pix_fmt,
        full_range=codec == "mjpeg",
        tick=Fraction(1, 30),
    )

    frames = list(Clip.open(path).frames())

    assert len(frames) == 4
    for frame in frames:
        assert frame.image.shape == (48, 64, 3)
        assert np.abs(frame.image.astype(int) - picture)[:, 4:-4].mean() < 4


def test_full_range_video_keeps_black_and_white(tmp_path):
    """Phones write full range: read as limited range, greys would be stretched and the ends clipped."""
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 48, axis=0).repeat(3, axis=2)
    path = write_video(tmp_path / "clip.mp4", [ramp] * 2, constant_rate(2), full_range=True)

    image = next(Clip.open(path).frames()).image

    assert np.abs(image.astype(int) - ramp).max() <= 6


@pytest.mark.parametrize("size", [(47, 33), (33, 48), (2, 2), (3, 9)])
def test_odd_sizes_keep_every_row_and_column(tmp_path, size):
    picture = corner_card(*size) // 2 + 40
    path = write_video(
        tmp_path / "clip.mkv", [picture] * 2, constant_rate(2), codec="ffv1", pix_fmt="yuv444p"
    )

    clip = Clip.open(path)

    assert (clip.info.width, clip.info.height) == size
    for frame in clip.frames():
        assert np.abs(frame.image.astype(int) - picture).max() <= 4


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize(
    ("stored", "aspect", "square"),
    [
        ((48, 64), Fraction(4, 3), (64, 64)),  # HDV, anamorphic lenses
        ((72, 48), Fraction(8, 9), (72, 54)),  # NTSC DV
        ((64, 48), Fraction(2), (128, 48)),
        ((64, 48), Fraction(1, 2), (64, 96)),
    ],
)
def test_pixels_that_are_not_square_are_made_square(tmp_path, stored, aspect, square, rotation, mirrored):
    """A white disc on the screen, squeezed as it is stored, is a disc again."""
    path = _squeezed_disc(
        tmp_path / "clip.mp4", stored, aspect, square, display_matrix=turned(rotation, mirrored)
    )

    clip = Clip.open(path)
    image = next(iter(clip.frames())).image[..., 1] > 127

    shown = square[::-1] if rotation % 180 else square
    assert (clip.info.width, clip.info.height) == shown
    assert image.shape == shown[::-1]
    assert clip.info.pixel_aspect == pytest.approx(float(aspect))
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    across, down = (1 + span[-1] - span[0] for span in (columns, rows))
    assert across == pytest.approx(40, abs=2) and down == pytest.approx(40, abs=2)
    assert columns.mean() == pytest.approx((shown[0] - 1) / 2, abs=1)
    assert rows.mean() == pytest.approx((shown[1] - 1) / 2, abs=1)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi", ".ts", ".h264"])
def test_the_pixel_aspect_is_found_in_the_container_or_the_codec(tmp_path, suffix):
    path = _squeezed_disc(tmp_path / f"clip{suffix}", (48, 64), Fraction(4, 3), (64, 64))

    info = Clip.open(path).info

    assert (info.width, info.height, info.pixel_aspect) == (64, 64, pytest.approx(4 / 3))


@pytest.mark.parametrize("aspect", [None, Fraction(1280, 1281), Fraction(50), Fraction(1, 50)])
def test_pixels_that_are_nearly_square_or_impossible_are_left_as_they_are(tmp_path, aspect):
    times = constant_rate(3)
    path = write_video(tmp_path / "clip.mp4", gradients(3, 854, 480), times, pixel_aspect=aspect)

    info = Clip.open(path).info

    assert (info.width, info.height, info.pixel_aspect) == (854, 480, 1)


def _squeezed_disc(path, stored, aspect, square, **options):
    """Three pictures of a white disc with a diameter of 40 square pixels, with pixels of the given aspect."""
    x, y = np.meshgrid(np.arange(stored[0]), np.arange(stored[1]))
    x, y = (x + 0.5) * square[0] / stored[0], (y + 0.5) * square[1] / stored[1]
    disc = np.hypot(x - square[0] / 2, y - square[1] / 2) < 20
    picture = np.repeat(255 * disc[..., None].astype(np.uint8), 3, axis=2)
    return write_video(
        path, [picture] * 3, constant_rate(3), pix_fmt="yuv444p", pixel_aspect=aspect, **options
    )


def test_pictures_of_another_size_keep_their_shape(tmp_path):
    """A disc stays a disc, in the middle of the first size, with black beside it."""
    big = _squeezed_disc(tmp_path / "big.ts", (96, 64), Fraction(1), (96, 64))
    small = _squeezed_disc(tmp_path / "small.ts", (64, 64), Fraction(1), (64, 64))
    squeezed = _squeezed_disc(tmp_path / "squeezed.ts", (48, 64), Fraction(4, 3), (64, 64))
    raw = tmp_path / "raw.ts"
    raw.write_bytes(big.read_bytes() + small.read_bytes() + squeezed.read_bytes())

    clip = Clip.open(raw)
    assert clip.remarks == ()
    images = [frame.image for frame in clip.frames()]

    assert {image.shape for image in images} == {(64, 96, 3)}
    for image in images:
        disc = image[..., 1] > 127
        rows, columns = np.flatnonzero(disc.any(1)), np.flatnonzero(disc.any(0))
        assert 1 + rows[-1] - rows[0] == pytest.approx(40, abs=2)
        assert 1 + columns[-1] - columns[0] == pytest.approx(40, abs=2)
        assert (columns.mean(), rows.mean()) == pytest.approx((47.5, 31.5), abs=1)
    assert len(clip.remarks) == 1
    assert clip.remarks[0].startswith(
        f"{raw}: the size of the pictures changes from 96 x 64 to 64 x 64 pixels at 0."
    )


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_pictures_of_another_size_are_turned_like_the_first(rotation):
    upright = UprightRGB(Orientation(rotation), 96, 64)
    card = np.rot90(corner_card(*((64, 32) if rotation % 180 == 0 else (32, 64))), rotation // 90)

    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(card), format="rgb24")
    picture.time_base = TICK
    image = upright(picture)

    assert image.shape == ((64, 96, 3) if rotation % 180 == 0 else (96, 64, 3))
    inside = image[8:56] if rotation % 180 == 0 else image[:, 8:56]
    assert corners(inside) == CORNERS
    assert image.sum() == inside.sum()


def test_pauses_and_lost_frames_do_not_lower_the_frame_rate(tmp_path):
    """The mean would be 4.7 and 24.1 frames a second."""
    pause = [*constant_rate(30, 25), *constant_rate(30, 25, start=11.2)]
    lost = [time for k, time in enumerate(constant_rate(60, 25)) if k not in (10, 44)]
    for suffix in (".mp4", ".mkv", ".ts"):
        for times in (pause, lost):
            path = write_video(tmp_path / f"clip{suffix}", gradients(len(times)), times)
            assert Clip.open(path).info.frame_rate == pytest.approx(25, rel=2e-3)


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60)])
def test_constant_rates_are_exact(tmp_path, rate):
    times = constant_rate(100, float(rate))
    for suffix in (".mp4", ".mkv"):
        path = write_video(tmp_path / f"clip{suffix}", gradients(100), times)
        assert Clip.open(path).info.frame_rate == pytest.approx(float(rate), rel=1e-5)


PATCHES = np.array(
    [
        *([light] * 3 for light in (0, 0.01, 0.05, 0.18, 0.45)),
        *([0.4, 0.05, 0.02], [0.05, 0.4, 0.05], [0.02, 0.05, 0.4], [0.4, 0.22, 0.15]),
    ]
)
"""Linear RGB of BT.709, as shares of diffuse white; a face is the last one."""


def _pq(nits):
    power = (nits / 10_000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def _hlg(nits):
    luminance = nits @ [0.2627, 0.6780, 0.0593] / 1000
    scene = nits / 1000 * np.maximum(luminance, 1e-12)[:, None] ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-12)) + c)


@pytest.mark.parametrize("rotation", [0, 90])
@pytest.mark.parametrize(("transfer", "name", "encode"), [(16, "PQ", _pq), (18, "HLG", _hlg)])
def test_hdr_is_tone_mapped(tmp_path, transfer, name, encode, rotation):
    """Without it the picture is pale: grey of 18 % would be 105 instead of 125, the red (98, 76, 58) or so."""
    to_2020 = np.linalg.inv(
        [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]]
    )
    codes = encode(203 * np.maximum(PATCHES @ to_2020.T, 0))
    strip = np.round(255 * np.repeat(codes, 32, axis=0)).astype(np.uint8)
    picture = np.ascontiguousarray(np.rot90(np.tile(strip, (32, 1, 1)), rotation // 90))
    path = write_video(
        tmp_path / "clip.mp4",
        [picture] * 3,
        constant_rate(3),
        pix_fmt="yuv444p10le",
        colour=(9, transfer, 9),
        display_matrix=turned(rotation, False),
    )

    clip = Clip.open(path)
    images = [frame.image for frame in clip.frames()]

    assert clip.info.hdr == name and clip.remarks == ()
    expected = 255 * PATCHES ** (1 / 2.4)
    for image in images:
        assert image.shape == (32, 32 * len(PATCHES), 3)
        found = image[16, 16::32].astype(float)
        errors = np.abs(found - expected)
        assert errors[:5].max() < 3  # grey
        assert errors[-1].max() < 6  # skin
        assert errors.max() < 25 and errors.mean() < 5  # PyAV 17.1 has another matrix than BT.2020's


def test_highlights_of_hdr_are_compressed_in_order():
    light = np.array([0.5, 0.7, 1.0, 2.0, 4.0, 1000 / 203, 20.0])
    mapped = tone_mapped(np.repeat(_pq(203 * light)[:, None], 3, axis=1), "PQ")[:, 0]

    assert mapped[0] == pytest.approx(0.5 ** (1 / 2.4), abs=1e-3)
    assert 0.85 < mapped[2] < 0.95  # diffuse white leaves room for highlights
    assert (np.diff(mapped[:-1]) > 0).all()
    assert mapped[-2:] == pytest.approx([1, 1], abs=1e-3)


def test_sdr_is_not_tone_mapped(tmp_path):
    path = write_video(
        tmp_path / "clip.mp4", gradients(3), constant_rate(3), pix_fmt="yuv420p10le", colour=(9, 1, 9)
    )
    plain = Clip.open(write_video(tmp_path / "plain.mp4", gradients(3), constant_rate(3)))

    clip = Clip.open(path)

    assert clip.info.hdr is None
    pairs = zip(clip.frames(), plain.frames(), strict=True)
    assert max(np.abs(a.image.astype(int) - b.image).mean() for a, b in pairs) < 3


def test_streams_without_time_stamps_get_a_constant_rate_and_size_changes_are_scaled(tmp_path):
    raw = tmp_path / "raw.h264"
    big = write_video(tmp_path / "big.h264", gradients(10, 64, 48), constant_rate(10, 25))
    small = write_video(tmp_path / "small.h264", gradients(10, 32, 24), constant_rate(10, 25))
    raw.write_bytes(big.read_bytes() + small.read_bytes())

    frames = list(Clip.open(raw).frames())

    assert len(frames) == 20
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
    steps = np.diff([frame.time for frame in frames])
    np.testing.assert_allclose(steps, steps[0])
    assert steps[0] > 0


def test_times_strictly_increase_when_stamps_repeat(tmp_path):
    times = [k / 3000 for k in range(30)]  # Matroska's milliseconds give three frames one stamp
    options = {"bf": "0", "preset": "ultrafast"}
    clip = Clip.open(write_video(tmp_path / "clip.mkv", gradients(30), times, options=options))

    out = [frame.time for frame in clip.frames()]

    assert len(out) == 30
    assert np.diff(out).min() > 0
    np.testing.assert_allclose(out, times, atol=1e-3)


def test_frames_hidden_by_an_edit_list_are_not_expected(tmp_path):
    options = {"crf": "10", "g": "10"}
    whole = write_video(tmp_path / "whole.mp4", gradients(60), constant_rate(60), options=options)

    clip = Clip.open(trim_with_edit_list(whole, tmp_path / "trimmed.mp4", seconds=0.5))
    frames = list(clip.frames())

    assert len(frames) == 45 == clip.info.frame_count
    assert frames[0].time == 0.0
    assert clip.damage is not None
    assert clip.damage.message is None
    first = gradients(60)[15]
    assert np.abs(frames[0].image.astype(int) - first)[:, :, 1].mean() < 1.5


def test_memory_holds_only_a_few_frames(tmp_path, monkeypatch):
    clip = Clip.open(write_video(tmp_path / "clip.mp4", gradients(60), constant_rate(60)))
    made: list[weakref.ref] = []
    decoded = Clip._decoded

    def watched(self, convert):
        for index, time, image in decoded(self, convert):
            made.append(weakref.ref(image))
            yield index, time, image

    monkeypatch.setattr(Clip, "_decoded", watched)
    most = 0
    for _ in clip.frames():
        clock.sleep(0.002)  # a slow consumer lets the decoder run as far ahead as it may
        most = max(most, sum(image() is not None for image in made))

    assert len(made) == 60
    assert FRAMES_AHEAD <= most <= FRAMES_AHEAD + 3


def decoding_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decode ")]


def test_opening_leaves_nothing_for_the_garbage_collector(tmp_path):
    path = write_video(
        tmp_path / "a.mp4",
        [np.zeros((64, 64, 3), np.uint8)] * 3,
        [0, 0.04, 0.08],
        display_matrix=(0, UNIT, 0, -UNIT, 0, 0, 0, 0, 1 << 30),
    )
    gc.collect()
    gc.disable()
    try:
        assert Clip.open(path).info.rotation == 90
        assert gc.collect() == 0, "a decoder in a circle of references keeps its memory for a long time"
    finally:
        gc.enable()


def test_stopping_early_ends_the_decoding_thread(tmp_path):
    clip = Clip.open(write_video(tmp_path / "clip.mp4", gradients(60), constant_rate(60)))

    frames = clip.frames()
    next(frames)
    assert decoding_threads()
    frames.close()
    assert not decoding_threads()

    for _ in clip.frames():
        break
    gc.collect()
    assert not decoding_threads()
    assert clip.damage is None  # nothing was read to the end, so nothing is known


def test_failures_while_decoding_reach_the_caller(tmp_path, monkeypatch):
    clip = Clip.open(write_video(tmp_path / "clip.mp4", gradients(10), constant_rate(10)))

    def fail(self, frame, aspect):
        raise RuntimeError("no memory for this")

    monkeypatch.setattr("avface.media.clip.UprightRGB.__call__", fail)
    with pytest.raises(RuntimeError, match="no memory for this"):
        list(clip.frames())
    assert not decoding_threads()


def test_a_file_that_vanished_after_opening_is_named(tmp_path):
    clip = Clip.open(write_video(tmp_path / "clip.mp4", gradients(3), constant_rate(3)))
    clip.info.path.unlink()

    with pytest.raises(AvfaceError, match=r"clip\.mp4: no such file"):
        list(clip.frames())


def still(index: int, time: float) -> Frame:
    return Frame(index, time, np.full((1, 1, 3), index, np.uint8))


def shown(frames) -> list[int]:
    return [int(frame.image[0, 0, 0]) for frame in frames]


def test_resampling_repeats_and_drops_whole_frames():
    source = [still(k, k / 30) for k in range(6)]

    doubled = list(resampled(source, 60))
    assert shown(doubled) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert [frame.index for frame in doubled] == list(range(12))
    np.testing.assert_allclose([frame.time for frame in doubled], np.arange(12) / 60)

    assert shown(resampled(source, 15)) == [0, 2, 4]
    assert shown(resampled(source, 30)) == [0, 1, 2, 3, 4, 5]


def test_resampling_fills_pauses_and_never_shows_a_frame_early():
    source = [still(0, 0.0), still(1, 0.1), still(2, 0.5), still(3, 0.55)]

    out = list(resampled(source, 20))

    assert shown(out) == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3]


def test_resampling_tolerates_rounded_time_stamps():
    source = [still(k, round(k / 30, 3)) for k in range(90)]  # as Matroska stores them

    assert shown(resampled(source, 30)) == list(range(90))


def test_resampling_is_lazy_and_handles_none_and_one():
    assert list(resampled([], 25)) == []
    assert shown(resampled([still(7, 3.0)], 25)) == [7]

    def endless():
        index = 0
        while True:
            yield still(index % 250, float(Fraction(index) * 3003 * TICK))
            index += 1

    out = resampled(endless(), 29.97)
    assert [next(out).index for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="frame_rate=0"):
        next(resampled([], 0))


def test_damaged_time_stamps_do_not_shift_the_clock(tmp_path, monkeypatch):
    clip = Clip.open(write_video(tmp_path / "clip.mp4", gradients(30), constant_rate(30)))
    stamp = clip_module.time_stamp

    def sometimes_wrong(picture, stream):
        wrong = {10: Fraction(10**6), 20: Fraction(-500)}
        return wrong.get(picture.pts // 3000, stamp(picture, stream))

    monkeypatch.setattr(clip_module, "time_stamp", sometimes_wrong)

    np.testing.assert_allclose([frame.time for frame in clip.frames()], np.arange(30) / 30, atol=1e-9)


def test_a_restarted_clock_continues(tmp_path, monkeypatch):
    clip = Clip.open(write_video(tmp_path / "clip.mp4", gradients(90), constant_rate(90)))
    stamp = clip_module.time_stamp
    monkeypatch.setattr(
        clip_module, "time_stamp", lambda picture, stream: stamp(picture, stream) % 2
    )  # as in streams glued together

    np.testing.assert_allclose([frame.time for frame in clip.frames()], np.arange(90) / 30, atol=1e-9)


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
def test_pictures_are_turned_clockwise_as_asked(rotate):
    from avface.synthetic.demo_clip import DEMO_CLIP

    plain = next(iter(Clip.open(DEMO_CLIP).frames())).image
    clip = Clip.open(DEMO_CLIP, rotate=rotate)
    turned = next(iter(clip.frames())).image
    assert (clip.info.rotation, turned.shape[:2]) == (rotate, (clip.info.height, clip.info.width))
    difference = turned.astype(int) - np.rot90(plain, -rotate // 90)
    assert np.abs(difference).mean() < 3, "chroma is sampled at half the resolution"


def test_only_quarter_turns_are_possible():
    from avface.synthetic.demo_clip import DEMO_CLIP

    with pytest.raises(ValueError, match="rotate=45 must be one of 0, 90, 180, 270"):
        Clip.open(DEMO_CLIP, rotate=45)
