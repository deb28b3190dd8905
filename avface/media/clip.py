"""A video as a stream of upright RGB frames with true times, and its sound on the same clock."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

import av
import numpy as np
from av.codec.context import ThreadType
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from avface.arrays import F32, F64, U8
from avface.errors import AvfaceError
from avface.frame_times import nominal_frame_rate
from avface.media.container import (
    MAX_GAP,
    ReadErrors,
    audio_streams,
    open_container,
    packets,
    pictures,
    time_base,
    time_stamp,
    undecodable,
    video_stream,
)
from avface.media.damage import Damage, DamageTally
from avface.media.display import HDR, Orientation, UprightRGB, square_size
from avface.media.sound import aligned_sound
from avface.media.sound_tracks import AudioTrack, choose_track
from avface.media.yuv_image import YUVImage

ImageT = TypeVar("ImageT")

FRAMES_AHEAD = 4
"""Frames decoded ahead. They bound the memory: 6 MB each at 1080p, 25 MB at 4K."""

ROTATIONS = (0, 90, 180, 270)
"""Degrees clockwise by which pictures can be turned."""

SAME_TIME = 2e-3
"""Seconds within which times count as equal; Matroska rounds its time stamps to milliseconds."""

SMALLEST_STEP = Fraction(1, 10_000)
"""Step in seconds between two frames with the same time stamp in the file."""

RATE_PACKETS = 120
"""Packets from whose time stamps the nominal rate is measured in files without an index."""

STATES_ASPECT = frozenset({"mp4", "matroska", "avi", "asf", "mxf"})
"""Containers that can state the aspect of pixels, which precedes that of the codec."""

MIN_RATE, MAX_RATE = 1.0, 1000.0
"""Frames per second. Rates outside come from damaged time stamps."""

CLOCK_RESTART = Fraction(1)
"""Seconds backwards from which a time stamp is taken as a restart of the file's clock."""


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video, known before its frames are decoded."""

    path: Path
    """The file."""
    width: int
    """Pixels across, as displayed: square, after rotation."""
    height: int
    """Pixels down, as displayed: square, after rotation."""
    rotation: int
    """Degrees clockwise (0, 90, 180, 270) by which stored pictures are rotated for display."""
    mirrored: bool
    """Whether stored pictures are mirrored left to right, before the rotation."""
    pixel_aspect: float
    """Width over height of a stored pixel; pictures are stretched to square ones where it isn't 1."""
    hdr: str | None
    """"PQ" or "HLG" for pictures of high dynamic range, which are tone-mapped to SDR; otherwise None."""
    frame_rate: float
    """Nominal frames per second, of the most frequent interval; single frames may lie closer together or further
    apart."""
    frame_count: int | None
    """Expected number of frames: exact where the file has an index, otherwise from its duration; None if unknown."""
    duration: float | None
    """Seconds, or None if unknown."""
    start_time: float
    """Seconds on the container's own clock at the first frame, which is time 0.0 here."""
    codec: str
    """Name of the video codec, as FFmpeg has it."""
    has_audio: bool
    """Whether there is sound that can be used."""
    audio_tracks: tuple[AudioTrack, ...]
    """All sound tracks, in the file's order."""
    audio_track: int | None
    """Number of the sound track that is used, or None if there is no sound that can be."""

    def existing_track(self, number: int | None) -> int | None:
        """`number` if the file has such a sound track, as the video of a capture has; else None, for the default."""
        return number if number is not None and number < len(self.audio_tracks) else None


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video."""

    index: int
    """Number of the decoded frame, from 0."""
    time: float
    """Seconds since the first frame, on the clock shared with the sound."""
    image: U8
    """(H, W, 3) RGB, upright; row 0 is at the top."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture of a video, to be written to another: `Frame` without conversion to RGB, where it isn't needed."""

    index: int
    """As of `Frame`."""
    time: float
    """As of `Frame`."""
    image: U8 | YUVImage
    """As of `Frame`, or the same image as it was decoded."""


class Clip:
    """A video file opened for reading. Frames and sound can be read any number of times, also at once.

    Frames are upright (display matrix applied: rotation and mirroring), of one size with square pixels, in 8 bit RGB
    of BT.709 for any pixel format (HDR is tone-mapped). Where the size changes in mid-file, later pictures are scaled
    into the first size, with black borders where their shape is another. Times are the file's own: a variable frame
    rate stays variable.
    """

    def __init__(
        self,
        info: VideoInfo,
        start: Fraction,
        step: Fraction,
        aspect: Fraction,
        sound_remark: str | None = None,
    ):
        """Use `Clip.open`. `start`: the first frame's time, `step`: the usual interval, in seconds."""
        self._info = info
        self._start = start
        self._step = step
        self._aspect = aspect
        self._damage: Damage | None = None
        self._remarks: dict[str, str] = {}
        self._sound_remark = sound_remark

    @classmethod
    def open(cls, path: str | Path, audio_track: int | None = None, rotate: int = 0) -> Clip:
        """Open a video and decode its first frame and the beginning of its sound.

        audio_track: number of the sound track, from 0, in the file's order; by default the first one, or the loudest
            where that is silent for two minutes from its beginning.
        rotate: degrees clockwise (0, 90, 180, 270) by which pictures are turned further than the file says.

        Raises:
            ValueError: if `rotate` is none of these.
            AvfaceError: naming the file, if it is missing, a folder, empty, unreadable, not a video, without a video
                stream, without any decodable frame, or without that sound track.
        """
        if rotate not in ROTATIONS:
            raise ValueError(f"rotate={rotate!r} must be one of {', '.join(map(str, ROTATIONS))}")
        path = Path(path)
        sound = choose_track(path, audio_track)
        with open_container(path) as container:
            stream = video_stream(container, path)
            tracks = tuple(AudioTrack.of(*numbered) for numbered in enumerate(audio_streams(container)))
            first, stamps = _opening(container, stream)
            if first is None:
                raise undecodable(path, container, stream)
            stored = Orientation.of(first)
            orientation = Orientation((stored.rotation + rotate) % 360, stored.mirrored)
            aspect = _pixel_aspect(container, stream)
            width, height = square_size(first.width, first.height, aspect)
            if (width, height) == (first.width, first.height):
                aspect = Fraction(1)
            if orientation.swaps_sides:
                width, height = height, width
            rate = _nominal_rate(stream, stamps)
            duration = _duration(container, stream)
            count = _indexed_frames(container, stream)
            if count is None and duration is not None:
                count = max(1, round(duration * (stream.average_rate or rate)))
            start = time_stamp(first, stream) or Fraction(0)
            info = VideoInfo(
                path=path,
                width=width,
                height=height,
                rotation=orientation.rotation,
                mirrored=orientation.mirrored,
                pixel_aspect=float(aspect),
                hdr=HDR.get(int(first.color_trc)),
                frame_rate=float(rate),
                frame_count=count,
                duration=None if duration is None else float(duration),
                start_time=float(start),
                codec=stream.codec_context.name,
                has_audio=sound.number is not None,
                audio_tracks=tracks,
                audio_track=sound.number,
            )
        return cls(info, start, 1 / rate, aspect, sound.remark)

    @property
    def info(self) -> VideoInfo:
        """Size, rate, length and sound tracks."""
        return self._info

    @property
    def damage(self) -> Damage | None:
        """Damage found by the last complete run of `frames`; None before one has reached the end."""
        return self._damage

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the user should know about the pictures read so far, one line each: that their size changes."""
        return tuple(self._remarks.values())

    @property
    def sound_remark(self) -> str | None:
        """One line if the sound can't be used, or another track than the first one is, by default."""
        return self._sound_remark

    def frames(self) -> Iterator[Frame]:
        """Decode the video from its beginning, in order, in fixed memory.

        A second thread decodes a few frames ahead; closing or dropping the iterator ends it. Times begin near
        0.0 and strictly increase. Damaged places are skipped, and a truncated file ends the stream; `damage`
        then reports the losses.

        Raises:
            AvfaceError: if the file has been removed or changed since `open`, or its pixel format has no conversion to
                RGB.
        """
        with closing(self._decoded_ahead(UprightRGB.__call__)) as decoded:
            for index, time, image in decoded:
                yield Frame(index, time, image)

    def pictures(self) -> Iterator[Picture]:
        """As `frames`, with images that are left as decoded where `VideoWriter` takes them so: the usual ones.

        Raises:
            AvfaceError: as `frames`.
        """
        with closing(self._decoded_ahead(UprightRGB.unconverted)) as decoded:
            for index, time, image in decoded:
                yield Picture(index, time, image)

    def _decoded_ahead(
        self, convert: Callable[[UprightRGB, VideoFrame, Fraction], ImageT]
    ) -> Generator[tuple[int, float, ImageT]]:
        """Index, time and converted image of all frames, from a second thread."""
        ready: SimpleQueue[tuple[int, float, ImageT] | BaseException | None] = SimpleQueue()
        room = threading.Semaphore(FRAMES_AHEAD)
        stop = threading.Event()

        def decode_ahead() -> None:
            try:
                with closing(self._decoded(convert)) as frames:
                    while room.acquire() and not stop.is_set():
                        frame = next(frames, None)
                        ready.put(frame)
                        if frame is None:
                            return
            except BaseException as error:
                ready.put(error)

        thread = threading.Thread(target=decode_ahead, name=f"decode {self._info.path.name}", daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                room.release()
                yield item
        finally:
            stop.set()
            room.release()
            thread.join()

    def audio_blocks(self, sample_rate: int = 16_000) -> Iterator[F32]:
        """Stream the sound as mono blocks, (n,) float32 within [-1, 1], of varying length.

        The first sample of the first block belongs to frame time 0.0: earlier sound is cut off; a late start, gaps and
        undecodable places are silence. Channels are mixed down so that the mix cannot exceed the loudest channel. No
        blocks without sound.

        Raises:
            AvfaceError: if the file has been removed since `open`.
            ValueError: if the sample rate isn't above 0.

        Warns:
            AvfaceWarning: if the sound cannot be converted; it ends there.
        """
        if self._info.audio_track is None:
            return
        for block in aligned_sound(self._info.path, self._info.audio_track, self._start, sample_rate, "mono"):
            yield block[0]

    def audio(self, sample_rate: int = 16_000) -> F32 | None:
        """Return the whole sound track, (N,) float32 mono, or None without one; see `audio_blocks`.

        Memory grows with the clip: 4 MB a minute at 16 kHz. It ends with the sound track, not with the frames.
        """
        if not self._info.has_audio:
            return None
        blocks = list(self.audio_blocks(sample_rate))
        return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)

    def _decoded(
        self, convert: Callable[[UprightRGB, VideoFrame, Fraction], ImageT]
    ) -> Generator[tuple[int, float, ImageT]]:
        """Decode in the calling thread; set `damage` at the end."""
        info = self._info
        tally = DamageTally(self._step)
        orientation = Orientation(info.rotation, info.mirrored)
        size = (info.height, info.width) if orientation.swaps_sides else (info.width, info.height)
        upright = UprightRGB(orientation, *size)
        time = -self._step
        stored: tuple[int, int] | None = None
        coded: Fraction | None = None
        with open_container(info.path) as container:
            stream = video_stream(container, info.path)
            stream.thread_type = ThreadType.AUTO
            for index, picture in enumerate(pictures(container, stream, tally.errors)):
                time = self._next_time(time, time_stamp(picture, stream))
                tally.add(time, picture.is_corrupt)
                # The container states one aspect, that of the first pictures; the codec's may change later.
                now = stream.codec_context.sample_aspect_ratio or Fraction(1)
                coded = now if coded is None else coded
                aspect = self._aspect if now == coded else now
                if stored is None:
                    stored = (picture.width, picture.height)
                elif upright.fitted(picture, aspect) != size or (picture.width, picture.height) != stored:
                    self._remarks.setdefault(
                        "size",
                        f"{info.path}: the size of the pictures changes from {stored[0]} x {stored[1]} to "
                        f"{picture.width} x {picture.height} pixels at {float(time):.2f} s; later ones are scaled into "
                        "the first size, with black borders if needed",
                    )
                try:
                    image = convert(upright, picture, aspect)
                except FFmpegError as error:
                    kind = picture.format.name
                    raise AvfaceError(
                        f"{info.path}: pictures of kind {kind} cannot be turned into RGB ({error.strerror}); "
                        "convert the video to H.264 first"
                    ) from error
                yield index, float(time), image
            indexed = _indexed_frames(container, stream)
        duration = None if info.duration is None else Fraction(info.duration)
        self._damage = tally.damage(str(info.path), indexed, duration)

    def _next_time(self, last: Fraction, stamp: Fraction | None) -> Fraction:
        """A frame's time, repaired where the file has none or one not after the last."""
        time = None if stamp is None else stamp - self._start
        if time is None or not last - CLOCK_RESTART <= time <= last + MAX_GAP:
            return last + self._step
        return max(
            time, last + SMALLEST_STEP
        )  # small steps, so that times are exact again after repeated stamps


def resampled(frames: Iterable[Frame], frame_rate: float) -> Iterator[Frame]:
    """Resample frames to a constant rate (zero-order hold): each output is the latest frame not after its time.

    Frames are repeated or dropped, never blended; repeated ones share one image array. Output k has index k
    and time t0 + k / frame_rate, where t0 is the first frame's time; the last frame lasts as long as the one before.

    Raises:
        ValueError: if frame_rate is not positive.
    """
    if not frame_rate > 0:
        raise ValueError(f"frame_rate={frame_rate} must be positive, in frames per second")
    shown: Frame | None = None
    start = last_interval = 0.0
    index = 0
    for frame in frames:
        if shown is None:
            start = frame.time
        else:
            last_interval = frame.time - shown.time
            while start + index / frame_rate < frame.time - SAME_TIME:
                yield Frame(index, start + index / frame_rate, shown.image)
                index += 1
        shown = frame
    if shown is None:
        return
    end = shown.time + (last_interval or 1 / frame_rate)
    while start + index / frame_rate < end - SAME_TIME:
        yield Frame(index, start + index / frame_rate, shown.image)
        index += 1


def _opening(container: InputContainer, stream: VideoStream) -> tuple[VideoFrame | None, F64]:
    """The first picture that can be decoded, and the times of packets in seconds, to measure intervals."""
    first: VideoFrame | None = None
    ticks: list[int] = []
    indexed = _indexed_frames(container, stream) is not None
    if indexed:
        ticks = [entry.timestamp for entry in stream.index_entries if not entry.is_discard]
    for count, packet in enumerate(packets(container, stream, ReadErrors()), 1):
        if first is None:
            with suppress(FFmpegError):
                first = next(iter(stream.codec_context.decode(packet)), None)
        if first is not None and indexed:
            break
        if not indexed and (stamp := packet.pts if packet.pts is not None else packet.dts) is not None:
            ticks.append(stamp)
        if first is not None and count >= RATE_PACKETS:
            break
    return first, np.array(ticks, np.float64) * float(time_base(stream))


def _nominal_rate(stream: VideoStream, stamps: F64) -> Fraction:
    """Frames per second of the most frequent interval; the container's average where both agree, which is exact."""
    average = stream.average_rate or stream.guessed_rate or Fraction(25)
    rate = nominal_frame_rate(stamps) if len(stamps) > 2 else 0.0
    if not MIN_RATE <= rate <= MAX_RATE or abs(rate / average - 1) < 1e-3:
        return average
    return Fraction(rate).limit_denominator(1001)


def _pixel_aspect(container: InputContainer, stream: VideoStream) -> Fraction:
    """Width over height of a pixel, after the first picture has been decoded: the container's, or the codec's.

    In containers that state none, FFmpeg gives the codec's of some later picture as that of the stream.
    """
    stated, coded = stream.sample_aspect_ratio, stream.codec_context.sample_aspect_ratio
    if not STATES_ASPECT & set(container.format.name.split(",")):
        stated, coded = coded, stated
    return stated or coded or Fraction(1)


def _indexed_frames(container: InputContainer, stream: VideoStream) -> int | None:
    """Number of frames in the index, without those hidden by an edit list; None unless the index lists all frames.

    That is the case in the MP4 family, except in fragmented files, which have no frame count either.
    """
    if not stream.frames or "mp4" not in container.format.name:
        return None
    return sum(not entry.is_discard for entry in stream.index_entries)


def _duration(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """Duration of the video stream in seconds, from the stream, its tags or the container."""
    if stream.duration is not None:
        return stream.duration * time_base(stream)
    tag = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))  # Matroska
    if tag is not None:
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + Fraction(tag[3])
    return None if container.duration is None else Fraction(container.duration, av.time_base)
