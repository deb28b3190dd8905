"""The sound of a file as one continuous stream from a given start time."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.filter import Graph

from avface.arrays import F32
from avface.errors import AvfaceError
from avface.media.container import MAX_GAP, ReadErrors, audio_stream, open_container, packets, time_base

CONTIGUOUS = 0.02
"""Seconds. Smaller deviations of a time stamp from the end of the sound so far are jitter and rounding, not gaps."""


def aligned_sound(path: Path, track: int, start: Fraction, sample_rate: int, layout: str) -> Iterator[F32]:
    """Stream a sound track as (C, n) float32 blocks, whose first sample belongs to `start`.

    start: seconds on the container's clock. Earlier sound is cut off; a late start, gaps and undecodable
    places become silence. layout: "mono" or "stereo". Blocks last about a second at most. Yields nothing if the
    file has no sound.

    Raises:
        AvfaceError: if the file cannot be opened or has no such track.
        ValueError: if the sample rate isn't above 0.
    """
    if not sample_rate > 0:
        raise ValueError(f"sample_rate={sample_rate} must be above 0 samples per second")
    channels = {"mono": 1, "stereo": 2}[layout]
    position: int | None = None  # number of the next sample; sample 0 belongs to `start`
    for stamp, block in _resampled(path, track, sample_rate, layout):
        begin = position or 0 if stamp is None else round((stamp - start) * sample_rate)
        if position is None:
            position, gap = min(begin, 0), max(begin, 0)
        else:
            gap = begin - position
            if abs(gap) <= CONTIGUOUS * sample_rate:
                gap = 0
        if gap > MAX_GAP * sample_rate:
            continue
        if gap > 0:
            for first in range(max(position, 0), begin, sample_rate):
                yield np.zeros((channels, min(sample_rate, begin - first)), dtype=np.float32)
            position = begin
        block = block[:, max(0, -gap) :]
        kept = block[:, max(0, -position) :]
        position += block.shape[1]
        if kept.size:
            yield kept


def _resampled(
    path: Path, track: int, sample_rate: int, layout: str
) -> Iterator[tuple[Fraction | None, F32]]:
    """(Seconds on the container's clock, (C, n) samples) from decoder and resampler."""
    graph: Graph | None = None
    source: tuple[str, str, int] | None = None
    with open_container(path) as container:
        stream = audio_stream(container, path, track)
        if stream is None:
            return
        try:
            for frame in _decoded(container, stream):
                kind = (frame.format.name, frame.layout.name, frame.sample_rate)
                if graph is None or kind != source:  # rate and channels of a stream may change
                    yield from _pulled(graph, None)
                    graph, source = _resampling_graph(frame, sample_rate, layout), kind
                yield from _pulled(graph, frame)
            yield from _pulled(graph, None)
        except (FFmpegError, ValueError) as error:
            raise AvfaceError(
                f"{path}: sound track {track} cannot be converted ({error}); choose another track"
            ) from error


def _decoded(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    for packet in packets(container, stream, ReadErrors()):
        try:
            frames = stream.codec_context.decode(packet)
        except FFmpegError:
            continue  # leaves a gap in the time stamps, which becomes silence
        for frame in frames:
            frame.time_base = time_base(stream)
            if frame.samples:
                yield frame


def _resampling_graph(frame: AudioFrame, sample_rate: int, layout: str) -> Graph:
    graph = Graph()
    source = graph.add_abuffer(
        sample_rate=frame.sample_rate,
        format=frame.format,
        layout=frame.layout,
        time_base=frame.time_base,
    )
    # Without this limit the mix of a voice on both channels is 1.4 times as loud.
    resample = graph.add("aresample", rematrix_maxval="1")
    wanted = graph.add("aformat", f"sample_fmts=fltp:sample_rates={sample_rate}:channel_layouts={layout}")
    graph.link_nodes(source, resample, wanted, graph.add("abuffersink"))
    graph.configure()
    return graph


def _pulled(graph: Graph | None, frame: AudioFrame | None) -> Iterator[tuple[Fraction | None, F32]]:
    """Push one frame, or the end with None, and pull all ready frames."""
    if graph is None:
        return
    graph.push(frame)
    while True:
        try:
            out = graph.pull()
        except (BlockingIOError, EOFError):  # needs more input, or is at the end
            return
        assert isinstance(out, AudioFrame)
        stamp = None if out.pts is None or out.time_base is None else out.pts * out.time_base
        yield stamp, out.to_ndarray().astype(np.float32, copy=False)
