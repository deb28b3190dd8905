"""Small videos for tests, with known pictures, times and sound."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from av.stream import Disposition

TICK = Fraction(1, 90_000)
UNIT = 1 << 16
"""One in the 16.16 fixed point of display matrices."""


@dataclass(frozen=True)
class Track:
    """A sound track: samples (C, N) float32 in [-1, 1] that start at `start` seconds."""

    samples: np.ndarray
    rate: int = 48_000
    start: float = 0.0
    codec: str = "aac"
    tags: dict[str, str] = field(default_factory=dict)


def write_video(
    path: Path,
    pictures: Iterable[np.ndarray],
    times: Sequence[float],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    container_format: str | None = None,
    display_matrix: Sequence[int] | None = None,
    pixel_aspect: Fraction | None = None,
    full_range: bool = False,
    colour: tuple[int, int, int] | None = None,
    tick: Fraction = TICK,
    tracks: Sequence[Track] = (),
) -> Path:
    """Write (H, W, 3) uint8 pictures at the given times (seconds), with sound tracks.

    colour: primaries, transfer and matrix that the file states (the matrix is applied), numbered as in ISO 23091-2.
    """
    if options is None:
        options = {"crf": "10", "preset": "ultrafast"} if codec == "libx264" else {}
    pictures = iter(pictures)
    first = next(pictures)
    with av.open(str(path), "w", format=container_format, container_options=container_options) as container:
        interval = np.median(np.diff(times)) if len(times) > 1 else 1 / 25
        video = container.add_stream(
            codec,
            rate=Fraction(1 / interval).limit_denominator(1001),
            options=options,
            width=first.shape[1],
            height=first.shape[0],
            time_base=tick,
        )
        video.codec_context.flags |= Flags.frame_duration
        video.pix_fmt = pix_fmt
        if full_range:
            video.color_range = 2
        if colour is not None:
            video.color_primaries, video.color_trc, video.colorspace = colour
        if pixel_aspect is not None:
            video.codec_context.sample_aspect_ratio = pixel_aspect
        if display_matrix is not None:
            video.set_display_matrix(list(display_matrix))
        sounds = []
        for track in tracks:
            layout = {1: "mono", 2: "stereo", 4: "4.0", 6: "5.1", 8: "7.1"}[track.samples.shape[0]]
            sounds.append(container.add_stream(track.codec, rate=track.rate, layout=layout))
            sounds[-1].metadata.update(track.tags)
        packets = []
        durations = [*np.diff(times), times[-1] - times[-2] if len(times) > 1 else 0.04]
        for picture, time, duration in zip([first, *pictures], times, durations, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = frame.reformat(
                format=pix_fmt,
                dst_color_range="JPEG" if full_range else None,
                dst_colorspace=None if colour is None else colour[2],
            )
            frame.pts, frame.time_base, frame.duration = round(time / tick), tick, round(duration / tick)
            packets += video.encode(frame)
        packets += video.encode(None)
        for track, sound in zip(tracks, sounds, strict=True):
            samples, kind = np.ascontiguousarray(track.samples, dtype=np.float32), "fltp"
            if track.codec == "pcm_s16le":
                samples, kind = (32767 * samples.T).astype(np.int16).reshape(1, -1), "s16"
            frame = av.AudioFrame.from_ndarray(samples, format=kind, layout=sound.layout)
            frame.sample_rate = track.rate
            frame.pts, frame.time_base = round(track.start * track.rate), Fraction(1, track.rate)
            packets += sound.encode(frame) + sound.encode(None)
        packets.sort(key=lambda packet: packet.dts * packet.time_base)
        container.mux(packets)
    return path


def constant_rate(count: int, frame_rate: float = 30.0, start: float = 0.0) -> list[float]:
    """Times of `count` frames at a constant rate."""
    return [start + k / frame_rate for k in range(count)]


def gradients(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """Pictures with smooth gradients, whose brightness rises from picture to picture."""
    x, y = np.meshgrid(np.linspace(0, 60, width), np.linspace(0, 60, height))
    rise = np.linspace(20, 120, count)
    return [np.stack([x + r, y + r, 0 * x + r], axis=-1).astype(np.uint8) for r in rise]


def noises(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """Pictures of noise, which fill the file, so that truncating or corrupting it damages frames."""
    rng = np.random.default_rng(7)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


CORNERS = {
    "top left": (255, 0, 0),
    "top right": (0, 255, 0),
    "bottom left": (0, 0, 255),
    "bottom right": (255,) * 3,
}


def corner_card(width: int, height: int) -> np.ndarray:
    """A picture of a red, a green, a blue and a white quarter, which shows its orientation."""
    card = np.zeros((height, width, 3), np.uint8)
    half_height, half_width = height // 2, width // 2
    card[:half_height, :half_width] = CORNERS["top left"]
    card[:half_height, half_width:] = CORNERS["top right"]
    card[half_height:, :half_width] = CORNERS["bottom left"]
    card[half_height:, half_width:] = CORNERS["bottom right"]
    return card


def corners(image: np.ndarray) -> dict[str, tuple[int, ...]]:
    """Read a corner card: the colour of each corner, rounded to 0 or 255 in each channel."""
    height, width = image.shape[:2]
    places = {
        "top left": (height // 8, width // 8),
        "top right": (height // 8, -1 - width // 8),
        "bottom left": (-1 - height // 8, width // 8),
        "bottom right": (-1 - height // 8, -1 - width // 8),
    }
    return {name: tuple(int(v) for v in (image[at] > 127) * 255) for name, at in places.items()}


def flashes(times: Sequence[float], flash_at: float, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """Black pictures, white for 0.2 s from `flash_at`."""
    return [
        np.full((height, width, 3), 255 if flash_at - 1e-6 <= time < flash_at + 0.2 else 0, np.uint8)
        for time in times
    ]


def beep(
    seconds: float, beep_at: float, rate: int = 48_000, channels: int = 1, level: float = 0.8
) -> np.ndarray:
    """Silence with a 1 kHz tone of 0.2 s from `beep_at`: (channels, N) float32."""
    time = np.arange(round(seconds * rate)) / rate
    on = (time >= beep_at - 1e-9) & (time < beep_at + 0.2)
    return np.tile(
        (level * on * np.sin(2 * np.pi * 1000 * (time - beep_at))).astype(np.float32), (channels, 1)
    )


def beep_onset(samples: np.ndarray, rate: int = 16_000) -> float:
    """Start of the tone in (N,) samples, seconds."""
    return float(np.argmax(np.abs(samples) > 0.25)) / rate


def truncate(source: Path, target: Path, share: float) -> Path:
    """Copy the first `share` of a file's bytes."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def corrupt(source: Path, target: Path, first: float, last: float) -> Path:
    """Copy a file with random bytes between two shares of its length."""
    data = bytearray(source.read_bytes())
    begin, end = int(len(data) * first), int(len(data) * last)
    data[begin:end] = np.random.default_rng(3).integers(0, 256, end - begin, dtype=np.uint8).tobytes()
    target.write_bytes(data)
    return target


def trim_with_edit_list(source: Path, target: Path, seconds: float) -> Path:
    """Copy an .mp4 whose edit list hides its first seconds, as phones do when they trim a video."""
    data = bytearray(source.read_bytes())
    at = data.index(b"elst") + 12  # type, version and flags, number of entries
    mdhd = data.index(b"mdhd") + 16  # type, version and flags, two dates
    mvhd = data.index(b"mvhd") + 16
    media_scale = int.from_bytes(data[mdhd : mdhd + 4], "big")
    movie_scale = int.from_bytes(data[mvhd : mvhd + 4], "big")
    duration = int.from_bytes(data[at : at + 4], "big") - round(seconds * movie_scale)
    begin = int.from_bytes(data[at + 4 : at + 8], "big") + round(seconds * media_scale)
    data[at : at + 8] = duration.to_bytes(4, "big") + begin.to_bytes(4, "big")
    target.write_bytes(data)
    return target


def label_channels(source: Path, target: Path, labels: Sequence[int]) -> Path:
    """Copy a .mov, whose sound must have a channel atom, with these labels (Core Audio's) on its channels."""
    data = bytearray(source.read_bytes())
    at = data.index(b"chan") - 4
    size = int.from_bytes(data[at : at + 4], "big")
    described = b"".join(label.to_bytes(4, "big") + bytes(16) for label in labels)
    content = bytes(4) + bytes(8) + len(labels).to_bytes(4, "big") + described  # version; tag and bitmap 0
    atom = (len(content) + 8).to_bytes(4, "big") + b"chan" + content
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"sowt"):
        parent = data.find(name, 0, at)
        while parent >= 0:
            length = int.from_bytes(data[parent - 4 : parent], "big")
            if parent - 4 + length > at:
                data[parent - 4 : parent] = (length + len(atom) - size).to_bytes(4, "big")
            parent = data.find(name, parent + 4, at)
    data[at : at + size] = atom
    target.write_bytes(data)
    return target


def write_sound(path: Path, track: Track, cover: bool = False) -> Path:
    """Write a sound file, optionally with a cover picture."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream(track.codec, rate=track.rate, layout="mono")
        packets = []
        if cover:
            picture = container.add_stream("png", width=16, height=16)
            picture.pix_fmt = "rgb24"
            picture.disposition = Disposition.attached_pic
            packets += picture.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8)))
        format_name = "s16" if track.codec.startswith("pcm") else "fltp"
        samples = track.samples
        if format_name == "s16":
            samples = (samples * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format=format_name, layout="mono")
        frame.sample_rate = track.rate
        container.mux(packets + sound.encode(frame) + sound.encode(None))
    return path
