"""Opening media files: what can be wrong with a file is found out, and said, here."""

from __future__ import annotations

from collections.abc import Iterator
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
"""Files of a folder taken for videos, by the end of their names in small letters."""

NOT_VIDEO = frozenset({"tty", "hls", "concat", "dash", "imf", "sdp", "rtsp"})
"""Formats refused although the library reads them: `tty` draws text files as pictures, the others are lists
of further files or addresses, which a video from a stranger has no business to open."""

MOST_ERRORS_IN_A_ROW = 64
"""Reading stops after so many failures without a packet between them: the rest is taken as lost."""


LONGEST_GAP = 600
"""Seconds. A time stamp further ahead of the one before is taken to be damaged, not to be a pause."""


@dataclass
class ReadErrors:
    """What went wrong while packets were read and decoded."""

    count: int = 0
    """Packets that could not be read, arrived incomplete, or could not be decoded."""
    reasons: dict[str, None] = field(default_factory=dict)
    """The library's words for it, each once, in order."""

    def add(self, reason: str) -> None:
        """Count one bad packet."""
        self.count += 1
        if len(self.reasons) < 3:
            self.reasons[reason] = None


def open_container(path: Path) -> InputContainer:
    """Open a media file for reading.

    Raises AvfaceError when the file is missing, a folder, not readable, empty, or not a media file.
    """
    try:
        if path.is_dir():
            raise AvfaceError(f"{path}: is a folder; give a video file")
        if path.exists() and not path.is_file():
            raise AvfaceError(f"{path}: is not a regular file; give a video file")
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        raise AvfaceError(f"{path}: no such file") from None
    except PermissionError:
        raise AvfaceError(f"{path}: no permission to read this file") from None
    except OSError as error:
        raise AvfaceError(f"{path}: cannot be read ({error.strerror})") from None
    if empty:
        raise AvfaceError(f"{path}: the file is empty")

    try:
        # "file:" keeps names such as "concat:a|b" from being taken for an address, and the white list keeps
        # a file from making us open addresses it names.
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


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """Return the main video stream; cover pictures of sound files do not count.

    Raises AvfaceError when there is none or no decoder for it.
    """
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise AvfaceError(f"{path}: has no video stream, only {_kinds(container)}")
    best = container.streams.best("video")
    stream = best if isinstance(best, VideoStream) and best in streams else streams[0]
    if stream.codec_context is None:
        raise AvfaceError(f"{path}: its video codec is not known here; convert it to H.264 first")
    return stream


def audio_streams(container: InputContainer) -> list[AudioStream]:
    """Return the sound tracks that can be decoded, in the file's order."""
    return [s for s in container.streams.audio if s.codec_context is not None]


def audio_stream(container: InputContainer, path: Path, track: int) -> AudioStream | None:
    """Return sound track number `track` (from 0), or None for track 0 of a file without sound.

    Raises AvfaceError when there is no such track.
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
    """Yield a stream's packets to the end, past damaged places; the last one flushes the decoder."""
    failures = 0
    while failures < MOST_ERRORS_IN_A_ROW:
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
    """Decode a stream to the end, past damaged places."""
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

    Raises AvfaceError when the file cannot be opened.
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
