"""The sound tracks of a file, and which of them is used."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.audio.stream import AudioStream

from avface.errors import AvfaceWarning
from avface.media.container import audio_stream, audio_streams, open_container
from avface.media.sound import resampled_sound

LISTEN_SECONDS = 120
"""Seconds from its beginning in which a track is searched for sound."""

SILENCE = 1e-3
"""Root mean square of a second below which it counts as silent: 60 dB below full scale."""

PROBE_RATE = 16_000
"""Samples per second while tracks are compared."""


@dataclass(frozen=True)
class AudioTrack:
    """One sound track, as the file describes it."""

    number: int
    """From 0, in the file's order."""
    codec: str | None
    """Name of its codec, as FFmpeg has it; None if FFmpeg cannot decode it."""
    channels: int
    """Number of channels; 0 if it isn't known."""
    sample_rate: int
    """Samples per second; 0 if it isn't known."""
    language: str | None
    """Language code of the file, such as "eng"."""
    title: str | None
    """Name of the track in the file."""

    @classmethod
    def of(cls, number: int, stream: AudioStream) -> AudioTrack:
        """Describe a stream of `audio_streams`."""
        tags = stream.metadata
        language, title = tags.get("language"), tags.get("title") or tags.get("name")
        language = None if language == "und" else language
        if stream.codec_context is None:
            return cls(number, None, 0, 0, language, title)
        context = stream.codec_context
        return cls(number, context.name, context.channels, context.sample_rate or 0, language, title)


@dataclass(frozen=True)
class SoundChoice:
    """Which track is used, and why not the first one or none."""

    number: int | None
    """Number of the track, or None if no sound can be used."""
    remark: str | None = None
    """One line for the user if that isn't what would be expected."""


def choose_track(path: Path, track: int | None) -> SoundChoice:
    """Number of the sound track to use: `track`, or by default the first one that isn't silent.

    By default, where the first track is silent for `LISTEN_SECONDS` (60 dB below full scale) or cannot be decoded, the
    loudest one is taken; the first one if all are silent. A track of which nothing can be decoded isn't used.

    Raises:
        AvfaceError: if the file cannot be opened or has no such track.
    """
    with open_container(path) as container:
        audio_stream(container, path, track or 0)
        count = len(audio_streams(container))
    if not count:
        return SoundChoice(None)
    if track is not None:
        if _loudness(path, track, 0.0) is None:
            return SoundChoice(None, f"{path}: sound track {track} can't be decoded; it is left out")
        return SoundChoice(track)
    first = _loudness(path, 0, SILENCE if count > 1 else 0.0)
    if first is not None and (count == 1 or first >= SILENCE):
        return SoundChoice(0)
    levels = {0: first, **{number: _loudness(path, number) for number in range(1, count)}}
    usable = {number: level for number, level in levels.items() if level is not None}
    if not usable:
        fault = (
            "its sound can't be decoded" if count == 1 else f"none of its {count} sound tracks can be decoded"
        )
        return SoundChoice(None, f"{path}: {fault}; it is taken for a video without sound")
    loudest = max(usable, key=lambda number: (usable[number], -number))
    if first is not None and usable[loudest] < SILENCE:
        return SoundChoice(0)
    fault = "can't be decoded" if first is None else "is silent"
    return SoundChoice(
        loudest,
        f"{path}: sound track 0 {fault}, so that the loudest one, {loudest}, is used; choose with --audio-track",
    )


def _loudness(path: Path, track: int, enough: float = np.inf) -> float | None:
    """Root mean square of a track's loudest second, up to the first one that reaches `enough`; None without samples."""
    loudest = None
    samples = 0
    power, length = 0.0, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AvfaceWarning)  # the caller reports that nothing is left
        for _, block in resampled_sound(path, track, PROBE_RATE, "mono"):
            power, length = power + float(np.square(block, dtype=np.float64).sum()), length + block.shape[1]
            samples += block.shape[1]
            # A file may have less than one second.
            loudest = max(loudest or 0.0, float(np.sqrt(power / max(length, PROBE_RATE))))
            if length >= PROBE_RATE:
                power, length = 0.0, 0
            if loudest >= enough or samples >= LISTEN_SECONDS * PROBE_RATE:
                break
    return loudest
