"""Opening media files, with checks and error messages for unusable ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from avface.errors import AvfaceError

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"),
    *(".ts", ".mts", ".m2ts", ".flv", ".wmv", ".3gp"),
)
"""Lower-case file name suffixes of videos in a folder."""

NOT_VIDEO = frozenset({"tty", "hls", "concat", "dash", "imf", "sdp", "rtsp"})
"""Formats that are refused although FFmpeg reads them: `tty` renders text files as pictures, the others refer to
further files or addresses, which an untrusted video must not open."""

MAX_CONSECUTIVE_ERRORS = 64
"""Read errors without a packet in between after which reading stops."""

MAX_GAP = 600
"""Seconds. A time stamp further ahead of the one before is taken as damaged instead of a pause."""


@dataclass
class ReadErrors:
    """Errors while packets were read and decoded."""

    count: int = 0
    """Packets that could not be read, were incomplete, or could not be decoded."""
    reasons: dict[str, None] = field(default_factory=dict)
    """FFmpeg's error messages, each once, in order."""

    def add(self, reason: str) -> None:
        """Count one bad packet."""
        self.count += 1
        if len(self.reasons) < 3:
            self.reasons[reason] = None


def open_container(path: Path) -> InputContainer:
    """Open a media file for reading.

    Raises:
        AvfaceError: if the file is missing, a folder, not readable, empty, or not a media file.
    """
    try:
        if path.is_dir():
            raise AvfaceError(f"{path}: is a folder; give a video file")
        if path.exists() and not path.is_file():
            raise AvfaceError(f"{path}: is not a regular file; give a video file")
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        raise AvfaceError(f"{path}: no such file{_instead(str(path))}") from None
    except ValueError:  # a NUL character
        raise AvfaceError(f"{str(path)!r}: no file can have this name") from None
    except PermissionError:
        raise AvfaceError(f"{path}: no permission to read this file") from None
    except OSError as error:
        raise AvfaceError(f"{path}: cannot be read ({error.strerror})") from None
    if empty:
        raise AvfaceError(f"{path}: the file is empty")

    try:
        # "file:" prevents names such as "concat:a|b" from being parsed as URLs, and the whitelist prevents
        # files from opening URLs that they contain.
        container = av.open(
            f"file:{path}",
            "r",
            container_options={"protocol_whitelist": "file"},
            metadata_errors="replace",
        )
    except (FFmpegError, ValueError) as error:
        reason = error.strerror if isinstance(error, FFmpegError) else str(error)
        raise AvfaceError(
            f"{path}: not a video that can be read ({reason}); the file is of another kind, or its header is "
            "missing because the recording was never finished"
        ) from None
    if NOT_VIDEO & set(container.format.name.split(",")):
        name = container.format.long_name
        container.close()
        raise AvfaceError(f"{path}: not a video but a {name} file")
    return container


def _instead(name: str) -> str:
    """What to do where a name that isn't a file's is something else that other programs read."""
    if name == "-":
        return "; standard input can't be read, since a video is read more than once: save it to a file first"
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", name):  # two letters at least: C:/ is a drive
        return "; it looks like an address: download the video and give its file"
    if re.search(r"%0?\d*d", name):
        return (
            "; it looks like a pattern for numbered pictures: make a video of them first, such as by "
            f"ffmpeg -framerate 25 -i {name} video.mp4"
        )
    return ""


def undecodable(path: Path, container: InputContainer, stream: VideoStream) -> AvfaceError:
    """The error of a video without a decodable frame."""
    if container.format.name == "webp_pipe":  # of which FFmpeg reads still pictures only
        reason = "FFmpeg can't read animated WebP; convert it to GIF or MP4 with another program first"
    else:
        codec = stream.codec_context.codec.long_name
        reason = f"the file is damaged, or holds a variant of {codec} that FFmpeg can't read; convert it to H.264 first"
    return AvfaceError(f"{path}: no frame of this video could be decoded; {reason}")


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The main video stream; cover pictures of sound files do not count.

    Raises:
        AvfaceError: if there is none or no decoder for it.
    """
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise AvfaceError(f"{path}: has no video stream, only {_kinds(container)}")
    best = container.streams.best("video")
    stream = best if isinstance(best, VideoStream) and best in streams else streams[0]
    if stream.codec_context is None:
        raise AvfaceError(f"{path}: its video codec is not supported; convert it to H.264 first")
    return stream


def audio_streams(container: InputContainer) -> list[AudioStream]:
    """All sound tracks, in the file's order; `codec_context` is None where there is no decoder.

    PyAV 17.1 to 18.1 frees the map of a custom channel layout, such as labels of MOV files that aren't a standard
    layout, each time that `layout` of a codec context or of a decoded frame is released: the second time aborts the
    process. Here a custom layout is replaced before the decoder opens, so that frames don't get it, by a mere number of
    channels, which has no map. Only streams from here may be decoded or asked for their layout.
    """
    streams = list(container.streams.audio)
    for stream in streams:
        context = stream.codec_context
        if context is not None and not context.is_open:
            layout = context.layout  # the only time: it is replaced before anything else can read it
            name = f"{layout.nb_channels}C" if has_no_standard_layout(layout.name) else layout.name
            with suppress(ValueError):  # no channels: the decoder says how many
                context.layout = name
            del layout
    return streams


def has_no_standard_layout(name: str) -> bool:
    """Whether FFmpeg names only the number of channels, or lists them: "4 channels (FL+FR+FL+FR)"."""
    return "channel" in name


def audio_stream(container: InputContainer, path: Path, track: int) -> AudioStream | None:
    """Sound track number `track` (from 0), or None for track 0 of a file without sound.

    Raises:
        AvfaceError: if there is no such track.
    """
    streams = audio_streams(container)
    if 0 <= track < len(streams):
        return streams[track]
    if track == 0:
        return None
    allowed = {0: "none", 1: "one, number 0"}.get(len(streams), f"numbers 0 to {len(streams) - 1}")
    raise AvfaceError(f"{path}: there is no sound track number {track}; this file has {allowed}")


def time_base(stream: Stream) -> Fraction:
    """Seconds per tick of a stream's time stamps."""
    return stream.time_base or Fraction(1, av.time_base)


def packets(container: InputContainer, stream: Stream, errors: ReadErrors) -> Iterator[Packet[Stream]]:
    """All packets of a stream, skipping damaged places; the last one flushes the decoder."""
    failures = 0
    while failures < MAX_CONSECUTIVE_ERRORS:
        try:
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    errors.add("incomplete packet")
                if packet.size:
                    failures = 0
                yield packet
            return
        except FFmpegError as error:
            failures += 1
            errors.add(error.strerror or "unreadable")
    flush: Packet[Stream] = Packet()
    flush.stream = stream
    yield flush


def pictures(container: InputContainer, stream: VideoStream, errors: ReadErrors) -> Iterator[VideoFrame]:
    """All pictures of a stream, skipping damaged places."""
    for packet in packets(container, stream, errors):
        try:
            yield from stream.codec_context.decode(packet)
        except FFmpegError as error:
            errors.add(error.strerror or "cannot be decoded")


def time_stamp(picture: VideoFrame, stream: VideoStream) -> Fraction | None:
    """Presentation time of a picture in seconds on the container's clock, or None if the file has none."""
    ticks = picture.pts if picture.pts is not None else picture.dts
    return None if ticks is None else ticks * time_base(stream)


def first_frame_time(path: Path) -> Fraction:
    """Seconds on the container's clock at a file's first video frame; at its beginning if it has no video.

    Raises:
        AvfaceError: if the file cannot be opened.
    """
    with open_container(path) as container:
        if any(not s.disposition & Disposition.attached_pic for s in container.streams.video):
            stream = video_stream(container, path)
            first = next(pictures(container, stream, ReadErrors()), None)
            if first is not None:
                return time_stamp(first, stream) or Fraction(0)
        return Fraction(container.start_time or 0, av.time_base)


def _kinds(container: InputContainer) -> str:
    kinds = sorted({"a cover picture" if s.type == "video" else s.type for s in container.streams})
    return " and ".join(kinds) if kinds else "an empty container"
