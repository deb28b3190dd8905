"""A video as a stream of upright RGB frames with true times, and its sound on the same clock."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from queue import SimpleQueue

import av
import numpy as np
from av.codec.context import ThreadType
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from avface.arrays import F32, U8
from avface.errors import AvfaceError
from avface.media.container import (
    MAX_GAP,
    ReadErrors,
    audio_stream,
    audio_streams,
    open_container,
    pictures,
    time_base,
    time_stamp,
    video_stream,
)
from avface.media.damage import Damage, DamageTally
from avface.media.display import Orientation, UprightRGB
from avface.media.sound import aligned_sound

FRAMES_AHEAD = 4
"""Frames decoded ahead. They bound the memory: 6 MB each at 1080p, 25 MB at 4K."""

SAME_TIME = 2e-3
"""Seconds within which times count as equal; Matroska rounds its time stamps to milliseconds."""

SMALLEST_STEP = Fraction(1, 10_000)
"""Step in seconds between two frames with the same time stamp in the file."""

CLOCK_RESTART = Fraction(1)
"""Seconds backwards from which a time stamp is taken as a restart of the file's clock."""


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video, known before its frames are decoded."""

    path: Path
    """The file."""
    width: int
    """Pixels across, as displayed (after rotation)."""
    height: int
    """Pixels down, as displayed (after rotation)."""
    rotation: int
    """Degrees clockwise (0, 90, 180, 270) by which stored pictures are rotated for display."""
    mirrored: bool
    """Whether stored pictures are mirrored left to right, before the rotation."""
    frame_rate: float
    """Average frames per second; single frames may lie closer together or further apart."""
    frame_count: int | None
    """Expected number of frames: exact where the file has an index, otherwise from its duration; None if unknown."""
    duration: float | None
    """Seconds, or None if unknown."""
    start_time: float
    """Seconds on the container's own clock at the first frame, which is time 0.0 here."""
    codec: str
    """Name of the video codec, as FFmpeg has it."""
    has_audio: bool
    """Whether there is any sound that can be decoded."""
    audio_tracks: int
    """Number of sound tracks that can be decoded."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video."""

    index: int
    """Number of the decoded frame, from 0."""
    time: float
    """Seconds since the first frame, on the clock shared with the sound."""
    image: U8
    """(H, W, 3) RGB, upright; row 0 is at the top."""


class Clip:
    """A video file opened for reading. Frames and sound can be read any number of times, also at once.

    Frames are upright (display matrix applied: rotation and mirroring), of one size, in 8 bit RGB for any pixel
    format (10 bit and HDR are reduced without tone mapping). Non-square pixels are kept as stored, without
    stretching. Times are the file's own: a variable frame rate stays variable.
    """

    def __init__(self, info: VideoInfo, audio_track: int, start: Fraction, step: Fraction):
        """Use `Clip.open`. `start`: the first frame's time, `step`: the usual interval, in seconds."""
        self._info = info
        self._audio_track = audio_track
        self._start = start
        self._step = step
        self._damage: Damage | None = None

    @classmethod
    def open(cls, path: str | Path, audio_track: int = 0) -> Clip:
        """Open a video and decode its first frame.

        audio_track: number of the sound track, from 0, in the file's order.

        Raises:
            AvfaceError: naming the file, if it is missing, a folder, empty, unreadable, not a video, without a video
                stream, without any decodable frame, or without that sound track.
        """
        path = Path(path)
        with open_container(path) as container:
            stream = video_stream(container, path)
            audio_stream(container, path, audio_track)
            first = next(pictures(container, stream, ReadErrors()), None)
            if first is None:
                raise AvfaceError(f"{path}: no frame of this video could be decoded; the file is damaged")
            orientation = Orientation.of(first)
            width, height = first.width, first.height
            if orientation.swaps_sides:
                width, height = height, width
            rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            duration = _duration(container, stream)
            count = _indexed_frames(container, stream)
            if count is None and duration is not None:
                count = max(1, round(duration * rate))
            start = time_stamp(first, stream) or Fraction(0)
            tracks = len(audio_streams(container))
            info = VideoInfo(
                path=path,
                width=width,
                height=height,
                rotation=orientation.rotation,
                mirrored=orientation.mirrored,
                frame_rate=float(rate),
                frame_count=count,
                duration=None if duration is None else float(duration),
                start_time=float(start),
                codec=stream.codec_context.name,
                has_audio=tracks > 0,
                audio_tracks=tracks,
            )
        return cls(info, audio_track, start, 1 / rate)

    @property
    def info(self) -> VideoInfo:
        """Size, rate, length and sound tracks."""
        return self._info

    @property
    def damage(self) -> Damage | None:
        """Damage found by the last complete run of `frames`; None before one has reached the end."""
        return self._damage

    def frames(self) -> Iterator[Frame]:
        """Decode the video from its beginning, in order, in fixed memory.

        A second thread decodes a few frames ahead; closing or dropping the iterator ends it. Times begin near
        0.0 and strictly increase. Damaged places are skipped, and a truncated file ends the stream; `damage`
        then reports the losses.

        Raises:
            AvfaceError: if the file has been removed or changed since `open`, or its pixel format has no conversion to
                RGB.
        """
        ready: SimpleQueue[Frame | BaseException | None] = SimpleQueue()
        room = threading.Semaphore(FRAMES_AHEAD)
        stop = threading.Event()

        def decode_ahead() -> None:
            try:
                with closing(self._decoded()) as frames:
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
        """
        sound = aligned_sound(self._info.path, self._audio_track, self._start, sample_rate, "mono")
        for block in sound:
            yield block[0]

    def audio(self, sample_rate: int = 16_000) -> F32 | None:
        """Return the whole sound track, (N,) float32 mono, or None without one; see `audio_blocks`.

        Memory grows with the clip: 4 MB a minute at 16 kHz. It ends with the sound track, not with the frames.
        """
        if not self._info.has_audio:
            return None
        blocks = list(self.audio_blocks(sample_rate))
        return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)

    def _decoded(self) -> Generator[Frame, None, None]:
        """Decode in the calling thread; set `damage` at the end."""
        info = self._info
        tally = DamageTally(self._step)
        orientation = Orientation(info.rotation, info.mirrored)
        stored = (info.height, info.width) if orientation.swaps_sides else (info.width, info.height)
        upright = UprightRGB(orientation, *stored)
        time = -self._step
        with open_container(info.path) as container:
            stream = video_stream(container, info.path)
            stream.thread_type = ThreadType.AUTO
            for index, picture in enumerate(pictures(container, stream, tally.errors)):
                time = self._next_time(time, time_stamp(picture, stream))
                tally.add(time, picture.is_corrupt)
                try:
                    image = upright(picture)
                except FFmpegError as error:
                    kind = picture.format.name
                    raise AvfaceError(
                        f"{info.path}: pictures of kind {kind} cannot be turned into RGB ({error.strerror}); "
                        "convert the video to H.264 first"
                    ) from error
                yield Frame(index, float(time), image)
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
