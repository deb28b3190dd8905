"""The videos of the benchmarks: the default clip, and long videos looped from short ones."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
from av.packet import Packet

from avface.errors import AvfaceError
from avface.evaluation.clips import CLIPS_VARIABLE, clips_folder

DEFAULT_CLIP = "skarsgard.mp4"
"""1920 x 1080, ten seconds, from the samples of SMIRK; not part of avface."""


def find_clip(path: Path | None) -> Path:
    """The video to measure on: `path`, or the default one in the folder that AVFACE_CLIPS names.

    Without AVFACE_CLIPS the folder is ../shared/clips, seen from the root of the repository.

    Raises:
        AvfaceError: if it isn't there.
    """
    if path is None:
        beside = Path(__file__).resolve().parents[2] / "shared" / "clips"
        path = clips_folder(None, default=beside) / DEFAULT_CLIP
    if not path.is_file():
        raise AvfaceError(
            f"{path}: no such video; name one with --video, or its folder with {CLIPS_VARIABLE}"
        )
    return path


def loop_clip(source: Path, target: Path, seconds: float) -> int:
    """Write a video that repeats another with its audio for about `seconds`; returns its number of frames.

    Packets are copied without encoding, so that ten minutes take seconds. Audio before the first and after the last
    frame of a repetition is left out.
    """
    with av.open(str(source)) as container:
        packets = [packet for packet in container.demux() if packet.dts is not None]
        images = [packet for packet in packets if packet.stream.type == "video"]
        start, end = (choose(map(_time, images)) for choose in (min, max))
        period = end - start + (end - start) / (len(images) - 1)
        rounds = max(1, round(seconds / period))
        with av.open(str(target), "w") as out:
            copies = {
                stream.index: out.add_stream_from_template(stream)
                for stream in (*container.streams.video[:1], *container.streams.audio[:1])
            }
            kept = [
                (packet, copies[packet.stream.index], packet.pts, packet.dts, packet.time_base)
                for packet in packets
                if packet.stream.index in copies
                and (packet.stream.type == "video" or _within(packet, start, start + period))
            ]
            for number in range(rounds):
                for packet, copy, pts, dts, time_base in kept:
                    shift = round(number * period / time_base)
                    packet.stream, packet.time_base = copy, time_base  # muxing changes both
                    packet.pts, packet.dts = pts + shift, dts + shift
                    out.mux(packet)
    return len(images) * rounds


def _time(packet: Packet) -> Fraction:
    return packet.pts * packet.time_base


def _within(packet: Packet, start: Fraction, end: Fraction) -> bool:
    return start <= _time(packet) and _time(packet) + (packet.duration or 0) * packet.time_base <= end
