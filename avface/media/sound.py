"""The sound of a file as one continuous stream from a given start time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.filter import Graph

from avface.arrays import F32
from avface.errors import AvfaceWarning
from avface.media.container import (
    MAX_GAP,
    ReadErrors,
    audio_stream,
    has_no_standard_layout,
    open_container,
    packets,
    time_base,
)

CONTIGUOUS = 0.02
"""Seconds. Smaller deviations of a time stamp from the end of the sound so far are jitter and rounding, not gaps."""


CHANNELS = {"mono": 1, "stereo": 2}
"""Layouts that sound is converted to, and their numbers of channels."""


def aligned_sound(path: Path, track: int, start: Fraction, sample_rate: int, layout: str) -> Iterator[F32]:
    """Stream a sound track as (C, n) float32 blocks, whose first sample belongs to `start`.

    start: seconds on the container's clock. Earlier sound is cut off; a late start, gaps and undecodable
    places become silence. layout: "mono" or "stereo". Blocks last about a second at most. Yields nothing if the
    file has no sound or it cannot be decoded.

    Raises:
        AvfaceError: if the file cannot be opened or has no such track.
        ValueError: if the sample rate isn't above 0.

    Warns:
        AvfaceWarning: if the sound cannot be converted; it ends there.
    """
    if not sample_rate > 0:
        raise ValueError(f"sample_rate={sample_rate} must be above 0 samples per second")
    channels = CHANNELS[layout]
    position: int | None = None  # number of the next sample; sample 0 belongs to `start`
    for stamp, block in resampled_sound(path, track, sample_rate, layout):
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


def resampled_sound(
    path: Path, track: int, sample_rate: int, layout: str
) -> Iterator[tuple[Fraction | None, F32]]:
    """Stream a sound track as (seconds on the container's clock, (C, n) samples) with gaps; see `aligned_sound`."""
    converter: _Converter | None = None
    with open_container(path) as container:
        stream = audio_stream(container, path, track)
        if stream is None or stream.codec_context is None:
            return
        try:
            for frame in _decoded(container, stream):
                kind = (frame.format.name, frame.layout.name, frame.sample_rate)
                if converter is None or kind != converter.kind:  # rate and channels of a stream may change
                    if converter is not None:
                        yield from converter.convert(None)
                    converter = _Converter(frame, sample_rate, layout)
                yield from converter.convert(frame)
            if converter is not None:
                yield from converter.convert(None)
        except (FFmpegError, ValueError) as error:
            reason = error.strerror if isinstance(error, FFmpegError) else str(error)
            warnings.warn(
                f"{path}: sound track {track} can't be converted ({reason}); silence takes its place",
                AvfaceWarning,
                stacklevel=2,
            )


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


class _Converter:
    """Resamples the frames of one kind to float samples of a rate and layout."""

    def __init__(self, frame: AudioFrame, sample_rate: int, layout: str):
        """Prepare for frames like this one."""
        self.kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        mix = _own_mix(frame.layout, layout)
        try:
            self._graph = _resampling_graph(frame, sample_rate, layout, mix)
        except FFmpegError:  # a standard layout, but one that FFmpeg can't mix
            if mix is not None:
                raise
            self._graph = _resampling_graph(
                frame, sample_rate, layout, _mean(frame.layout.nb_channels, layout)
            )

    def convert(self, frame: AudioFrame | None) -> Iterator[tuple[Fraction | None, F32]]:
        """Push one frame, or the end with None, and pull all ready frames."""
        self._graph.push(frame)
        while True:
            try:
                out = self._graph.pull()
            except (BlockingIOError, EOFError):  # needs more input, or is at the end
                return
            assert isinstance(out, AudioFrame)
            stamp = None if out.pts is None or out.time_base is None else out.pts * out.time_base
            yield stamp, out.to_ndarray().astype(np.float32, copy=False)


def _own_mix(layout: AudioLayout, target: str) -> str | None:
    """Arguments of FFmpeg's `pan` to mix a layout to mono or stereo; None for those that FFmpeg mixes by itself.

    It has no weights for eight microphones, for instance: their mean is taken. Of ambisonics, the first channel is the
    sound from all directions.
    """
    if layout.name.startswith("ambisonic"):
        return _same_mix("c0", target)
    return _mean(layout.nb_channels, target) if has_no_standard_layout(layout.name) else None


def _mean(channels: int, target: str) -> str:
    return _same_mix("+".join(f"{1 / channels:.9f}*c{channel}" for channel in range(channels)), target)


def _same_mix(mix: str, target: str) -> str:
    return "|".join([target, *(f"c{channel}={mix}" for channel in range(CHANNELS[target]))])


def _resampling_graph(frame: AudioFrame, sample_rate: int, layout: str, mix: str | None) -> Graph:
    graph = Graph()
    listed = "(" in frame.layout.name or not has_no_standard_layout(frame.layout.name)
    source = graph.add_abuffer(
        sample_rate=frame.sample_rate,
        format=frame.format,
        layout=frame.layout if listed else None,
        channels=None if listed else frame.layout.nb_channels,
        time_base=frame.time_base,
    )
    mixer = [] if mix is None else [graph.add("pan", mix)]
    # Without this limit the mix of a voice on both channels is 1.4 times as loud.
    resample = graph.add("aresample", rematrix_maxval="1")
    wanted = graph.add("aformat", f"sample_fmts=fltp:sample_rates={sample_rate}:channel_layouts={layout}")
    graph.link_nodes(source, *mixer, resample, wanted, graph.add("abuffersink"))
    graph.configure()
    return graph
