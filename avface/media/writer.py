"""Writer of H.264 videos with sound and variable frame times."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec.context import Flags, ThreadType
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter
from av.video.stream import VideoStream

from avface.arrays import F32, U8
from avface.errors import AvfaceError
from avface.media.container import audio_stream, first_frame_time, open_container
from avface.media.sound import aligned_sound
from avface.media.sound_tracks import choose_track
from avface.media.yuv_image import YUVImage, planes

TICK = Fraction(1, 90_000)
"""Seconds. Frame times are rounded to this; 24, 25, 29.97, 30, 50, 59.94 and 60 frames a second are exact."""

AAC_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)
"""Sample rates that AAC supports."""

PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)
"""Presets of x264, from the fastest to the slowest."""

MIN_MBTREE_SIDE = 176
"""Pixels. Below this side x264's macroblock tree reads uninitialised memory (its AVX-512 code; seen at 80, 96, 112 and
144), so that its output isn't reproducible; smaller pictures are encoded without it."""


@dataclass(frozen=True)
class EncodingConfig:
    """Settings of the encoder."""

    crf: int = 20
    """Constant rate factor of x264: 18 looks like the original, 28 is visibly coarse; -6 doubles the size."""
    preset: str = "veryfast"
    """Speed of x264, one of PRESETS; slower is smaller at the same quality."""
    keyframe_interval: int = 30
    """Frames between key frames, to which players can seek."""
    audio_bit_rate: int = 96_000
    """Bits per second for each channel of the sound."""
    x264_params: str = ""
    """Further settings of x264 that change the preset's, as "name=value:name=value"."""
    whole_pictures: bool = False
    """Encode several pictures at once, in other threads than the caller's, rather than the parts of one picture."""

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf={self.crf} must be between 0 (lossless) and 51")
        if self.keyframe_interval < 1:
            raise ValueError(f"keyframe_interval={self.keyframe_interval} must be at least 1 frame")
        if self.preset not in PRESETS:
            raise ValueError(f"preset={self.preset!r} must be one of {', '.join(PRESETS)}")
        if self.audio_bit_rate < 1:
            raise ValueError(f"audio_bit_rate={self.audio_bit_rate} must be 1 bit per second or more")


class VideoWriter:
    """Write an .mp4 (H.264, yuv420p, BT.709, with AAC sound), frame by frame; use it in a `with` block.

    Where the first image isn't RGB (`write_patched`), the matrix is that of the image.

        with VideoWriter("out.mp4", sound_from="talk.mp4") as writer:
            for frame in clip.frames():
                writer.write(draw(frame.image), frame.time)

    The file gets its name only if the block succeeds; after an exception it is removed. Sound is read and encoded
    along with the frames, and cut where the last frame ends (the last frame lasts as long as the one before it).
    """

    def __init__(
        self,
        path: str | Path,
        *,
        sound_from: str | Path | None = None,
        audio_track: int | None = None,
        sound: tuple[F32, int] | None = None,
        encoding: EncodingConfig | None = None,
    ):
        """Prepare to write `path`.

        sound_from: a file whose sound track number `audio_track` is copied, with its first video frame (or, in a
        file without video, its beginning) at time 0.0. A file without sound that can be decoded gives a video without
        sound. Default of audio_track: as in `Clip.open`.
        sound: an array instead, as (samples (N,) within [-1, 1], samples per second), sample 0 at time 0.0.

        Raises:
            AvfaceError: if `sound_from` cannot be read or has no such track.
            ValueError: if both kinds of sound are given or `sound` has a rate or shape that cannot be written.
        """
        if sound is not None and sound_from is not None:
            raise ValueError("give sound_from or sound, not both")
        self._path = Path(path)
        self._encoding = encoding or EncodingConfig()
        self._sound: _Sound | None = None
        if sound_from is not None:
            self._sound = _Sound.of_file(Path(sound_from), audio_track)
        elif sound is not None:
            self._sound = _Sound.of_samples(*sound)
        self._container: OutputContainer | None = None
        self._video: VideoStream | None = None
        self._matrix = Colorspace.ITU709
        self._reformatter = VideoReformatter()
        self._waiting: VideoFrame | None = None  # its duration is known from the next frame
        self._duration = round(1 / 25 / TICK)  # of the last picture encoded, in ticks
        self._partial = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}.partial")

    def __enter__(self) -> VideoWriter:
        """Create a temporary file beside the final one.

        Raises:
            AvfaceError: if the folder is missing or not writable, or the path is a folder.
        """
        try:
            if self._path.is_dir():
                raise AvfaceError(f"{self._path}: is a folder; give the name of a file to write")
            self._partial.touch(exist_ok=False)
        except FileNotFoundError:
            raise AvfaceError(
                f"{self._path}: there is no folder {self._path.parent}; create it first"
            ) from None
        except OSError as error:
            reason = error.strerror or "not possible"
            raise AvfaceError(f"{self._path}: cannot write into {self._path.parent} ({reason})") from None
        except BaseException:
            self._abandon()  # after a signal: without a block nothing else removes the file
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the file, or remove it if the block failed."""
        if kind is not None:
            self._abandon()
            return
        try:
            self._finish()
        except BaseException as failure:
            self._abandon()
            if isinstance(failure, (FFmpegError, OSError)):
                raise AvfaceError(f"{self._path}: could not be written ({failure.strerror})") from None
            raise

    def write(self, image: U8, time: float) -> None:
        """Append a frame.

        image: (H, W, 3) uint8 RGB, the same size each time; at an odd side the last row or column is repeated, as
        H.264 needs even ones. time: seconds, later than the frame before by at least 1/90000.

        Raises:
            ValueError: for a wrong shape, type or time.
            AvfaceError: if the file cannot be written.
        """
        _check_image(image)
        height, width = image.shape[:2]
        if height % 2 or width % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        self._append(lambda: self._converted(image), (image.shape[1], image.shape[0]), (width, height), time)

    def write_patched(
        self, image: U8 | YUVImage, patch: U8, corner: tuple[int, int], time: float, *, beside: bool = False
    ) -> None:
        """Append a frame that shows an image with a patch over it; `beside`: on the right of the image itself.

        As `write` of the whole picture, in less than half the time: an image that isn't RGB isn't converted, and any
        other one only once.

        image: (H, W, 3) uint8 RGB, or as of `Clip.pictures`. patch: (h, w, 3) uint8 RGB, within the image. corner: row
        and column of the patch's top left pixel. time: as in `write`.

        Raises:
            ValueError: for a wrong shape, type or time, or a patch that reaches out of the image.
            AvfaceError: if the file cannot be written.
        """
        if not isinstance(image, YUVImage):
            _check_image(image)
        _check_image(patch)
        (height, width), (rows, columns), (top, left) = image.shape[:2], patch.shape[:2], corner
        if min(corner) < 0 or top + rows > height or left + columns > width:
            raise ValueError(f"a patch of {patch.shape} at {corner} isn't within the image {image.shape}")
        if height % 2 or width % 2:  # the right image would begin in the middle of a chroma sample
            assert not isinstance(image, YUVImage)
            patched = image.copy()
            patched[top : top + rows, left : left + columns] = patch
            self.write(np.concatenate([image, patched], 1) if beside else patched, time)
            return
        shift = width if beside else 0

        def picture() -> VideoFrame:
            if isinstance(image, YUVImage) and image.matrix == self._matrix:
                whole = image.frame
            else:
                whole = self._converted(image[:height, :width])
            made = VideoFrame(width + shift, height, "yuv420p")
            for plane, source in zip(planes(made), planes(whole), strict=True):
                plane[:, : source.shape[1]] = source
                if beside:
                    plane[:, source.shape[1] :] = source
            if rows and columns:
                # chroma samples near the patch change as well; those at the rim of what is converted are wrong
                (a, b), (inner_a, inner_b) = (_around(top, rows, height, rim) for rim in (16, 4))
                (c, d), (inner_c, inner_d) = (_around(left, columns, width, rim) for rim in (16, 4))
                block = image[a:b, c:d].copy()
                block[top - a : top - a + rows, left - c : left - c + columns] = patch
                changed = planes(self._converted(block))
                for plane, source, scale in zip(planes(made), changed, (1, 2, 2), strict=True):
                    plane[
                        inner_a // scale : inner_b // scale,
                        (shift + inner_c) // scale : (shift + inner_d) // scale,
                    ] = source[
                        (inner_a - a) // scale : (inner_b - a) // scale,
                        (inner_c - c) // scale : (inner_d - c) // scale,
                    ]
            return made

        if self._container is None and isinstance(image, YUVImage):
            self._matrix = image.matrix
        size = (width + shift, height)
        self._append(picture, size, size, time)

    def _append(
        self, convert: Callable[[], VideoFrame], size: tuple[int, int], given: tuple[int, int], time: float
    ) -> None:
        """Append a picture of even size (width, height), made from an image of the size given."""
        ticks = round(time / TICK)
        if ticks <= (-1 if self._waiting is None else self._waiting.pts or 0):
            raise ValueError(f"time={time} must not be negative and must be later than the frame before")
        try:
            if self._container is None or self._video is None:
                self._container, self._video = self._start(*size)
            elif (self._video.width, self._video.height) != size:
                begun = f"{self._video.width} x {self._video.height}"
                raise ValueError(
                    f"image is {given[0]} x {given[1]} pixels, but this video began with {begun}"
                )
            picture = convert()
            picture.pts, picture.time_base = ticks, TICK
            if self._waiting is not None:
                self._encode(self._container, self._video, self._waiting, ticks)
        except FFmpegError as error:
            raise AvfaceError(f"{self._path}: could not be written ({error.strerror})") from None
        self._waiting = picture

    def _converted(self, image: U8) -> VideoFrame:
        """An image of even size in the encoder's pixel format."""
        return self._reformatter.reformat(
            VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), format="rgb24"),
            format="yuv420p",
            dst_colorspace=self._matrix,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
        )

    def _encode(self, container: OutputContainer, video: VideoStream, picture: VideoFrame, end: int) -> None:
        """Write a picture that ends at `end` (in ticks), and the sound up to there."""
        self._duration = picture.duration = end - (picture.pts or 0)
        if self._sound is not None:
            container.mux(self._sound.packets(until=float(end * TICK)))
        container.mux(video.encode(picture))

    def _start(self, width: int, height: int) -> tuple[OutputContainer, VideoStream]:
        container = av.open(
            f"file:{self._partial}", "w", format="mp4", container_options={"movflags": "+faststart"}
        )
        settings = self._encoding
        params = [settings.x264_params] if settings.x264_params else []
        if min(width, height) < MIN_MBTREE_SIDE:
            params.append("mbtree=0")
        video = container.add_stream(
            "libx264",
            options={
                "crf": str(settings.crf),
                "preset": settings.preset,
                "g": str(settings.keyframe_interval),
                # With B-frames, the container derives wrong durations at variable rates.
                "bf": "0",
                **({"x264-params": ":".join(params)} if params else {}),
            },
            width=width,
            height=height,
            time_base=TICK,
        )
        video.codec_context.flags |= Flags.frame_duration
        if settings.whole_pictures:
            video.codec_context.thread_type = ThreadType.FRAME
        video.pix_fmt = "yuv420p"
        video.color_range = ColorRange.MPEG
        # as numbered in ISO 23091-2
        video.colorspace = 1 if self._matrix == Colorspace.ITU709 else 6
        video.color_primaries = ColorPrimaries.BT709
        video.color_trc = ColorTrc.BT709
        if self._sound is not None:
            self._sound.add_stream(container, settings.audio_bit_rate)
        return container, video

    def _finish(self) -> None:
        if self._container is None or self._video is None or self._waiting is None:
            raise AvfaceError(f"{self._path}: not written, because there was no frame to write")
        end = (self._waiting.pts or 0) + self._duration
        self._encode(self._container, self._video, self._waiting, end)
        if self._sound is not None:
            self._container.mux(self._sound.flush())
        self._container.mux(self._video.encode(None))
        self._container.close()
        os.replace(self._partial, self._path)

    def _abandon(self) -> None:
        if self._container is not None:
            with suppress(FFmpegError):  # the file is removed anyway
                self._container.close()
        self._partial.unlink(missing_ok=True)


def _check_image(image: U8) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image is {image.dtype} {image.shape}, but must be uint8 (H, W, 3)")


def _around(start: int, count: int, size: int, rim: int) -> tuple[int, int]:
    """Begin and end, both even, of a range with a rim at both sides, within 0 to `size`, which is even."""
    return max(0, (start - rim) & ~1), min(size, (start + count + rim + 1) & ~1)


class _Sound:
    """Encodes blocks of sound into a container, up to the time of the frames."""

    def __init__(self, blocks: Iterator[F32], rate: int, layout: str):
        self._blocks = blocks
        self._rate = rate
        self._layout = layout
        self._pending: F32 | None = None
        self._written = 0
        self._stream: AudioStream | None = None

    @classmethod
    def of_file(cls, path: Path, track: int | None) -> _Sound | None:
        """A file's sound from its first frame on; None if it has none, or none that can be decoded."""
        choice = choose_track(path, track)
        if choice.number is None:
            return None
        with open_container(path) as container:
            stream = audio_stream(container, path, choice.number)
            assert stream is not None  # it was chosen
            rate = stream.sample_rate if stream.sample_rate in AAC_RATES else 48_000
            layout = "mono" if stream.channels == 1 else "stereo"
        start = first_frame_time(path)
        return cls(aligned_sound(path, choice.number, start, rate, layout), rate, layout)

    @classmethod
    def of_samples(cls, samples: F32, rate: int) -> _Sound:
        """Sound of an array, (N,) samples."""
        if samples.ndim != 1:
            raise ValueError(f"sound has shape {samples.shape}, but must be mono, (N,)")
        if rate not in AAC_RATES:
            raise ValueError(f"sound has {rate} samples a second, but AAC supports only {AAC_RATES}")
        blocks = (samples[None, i : i + rate].astype(np.float32) for i in range(0, len(samples), rate))
        return cls(blocks, rate, "mono")

    def add_stream(self, container: OutputContainer, bit_rate: int) -> None:
        """Add the sound track to a container before its first packet; bit_rate is for one channel."""
        stream = container.add_stream("aac", rate=self._rate, layout=self._layout)
        stream.bit_rate = bit_rate * stream.channels
        self._stream = stream

    def packets(self, until: float) -> list[Packet[AudioStream]]:
        """Encode the sound from its current position to the time `until`, in seconds."""
        assert self._stream is not None
        packets: list[Packet[AudioStream]] = []
        while (wanted := round(until * self._rate) - self._written) > 0:
            if self._pending is None or not self._pending.shape[1]:
                self._pending = next(self._blocks, None)
                if self._pending is None:
                    break
            block, self._pending = self._pending[:, :wanted], self._pending[:, wanted:]
            frame = AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=self._layout)
            frame.sample_rate = self._rate
            frame.pts, frame.time_base = self._written, Fraction(1, self._rate)
            self._written += block.shape[1]
            packets += self._stream.encode(frame)
        return packets

    def flush(self) -> list[Packet[AudioStream]]:
        """The packets that remain in the encoder."""
        assert self._stream is not None
        return self._stream.encode(None)
