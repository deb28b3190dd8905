"""Samples of one item: tracking, division into takes, crops, speech features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from avface.arrays import F32, F64, U8, Bool, Floats, Int
from avface.data.config import PrepareConfig
from avface.data.crops import Take, face_sizes, find_takes, make_take
from avface.data.items import Item
from avface.data.recordings import Recording, Truth
from avface.data.samples import TRUTH, ChunkInfo, Sample, samples_until, take_samples
from avface.errors import AvfaceError
from avface.media import Frame, resampled
from avface.media.clip import SAME_TIME
from avface.speech.spectrum import SAMPLE_RATE
from avface.tracking import FaceTrack

Tracker = Callable[[Iterable[Frame]], FaceTrack]
"""Tracks one person through frames; see `avface.tracking.track`."""
SpeechReader = Callable[[F32 | None, F64], Floats]
"""Computes features (T, ...) from sound (N,) at 16 kHz, or None, and frame times (T,) in seconds."""


TRUE_LANDMARKS = "landmarks"
"""Ground truth (T, 478, 2): MediaPipe's points in pixels of the video."""


def item_samples(
    item: Item, config: PrepareConfig, track: Tracker | None = None, speech: SpeechReader | None = None
) -> Iterator[Sample]:
    """Make an item's samples in two passes over its video, for tracking and for cropping.

    Takes and crops follow the true landmarks if they are known: frames without a detection, behind a hand for instance,
    are included with a confidence of 0.

    track, speech: in place of `avface.tracking.track` and of the config's speech features.

    Raises AvfaceError when the item can't be used.
    """
    recording = Recording(item)
    source_times: list[float] = []
    face = (track or _track)(resampled(_timed(recording.frames(), source_times), config.frame_rate))
    if len(face) < config.shortest:
        raise AvfaceError(
            f"{item.video}: too short, {len(face)} frames at {config.frame_rate:g} a second, "
            f"{config.shortest} are needed"
        )
    # The source frame that `resampled` shows at each time.
    shown = np.searchsorted(np.array(source_times), face.times + SAME_TIME, side="right") - 1
    stale = face.times - np.array(source_times)[shown]
    interval = np.median(np.diff(source_times)) if len(source_times) > 1 else 0
    seen = face.seen & (stale < interval + (config.longest_gap + 0.5) / config.frame_rate)
    truth = recording.truth(len(source_times))
    known = truth.frames.get(TRUE_LANDMARKS)
    outline, shots = face.landmarks, [(shot.start, shot.end) for shot in face.segments]
    if known is not None:
        outline, shots = known[shown], [(0, len(face))]
    sizes = np.full(len(face), np.nan)
    for start in range(0, len(face), 512):  # the tracker's landmarks are on disk
        sizes[start : start + 512] = face_sizes(outline[start : start + 512])
    usable = np.nan_to_num(sizes) >= config.smallest_face
    if known is None:
        usable &= seen
    seen &= usable
    takes = find_takes(shots, usable, sizes, config.shortest, config.longest_gap, config.frame_rate)
    takes = [(start, end) for start, end in takes if seen[start:end].any()]
    if not takes:
        raise AvfaceError(f"{item.video}: {_no_take_reason(face.seen, sizes, config)}")
    sound = recording.sound()
    padded = np.zeros(samples_until(len(face), config.frame_rate) + SAMPLE_RATE, np.float32)
    if sound is not None:
        padded[: len(sound)] = sound[: len(padded)]
    features = None
    if config.speech is not None:
        features = np.asarray((speech or SpeechFeatures(config.speech))(sound, face.times))
        if len(features) != len(face):
            raise ValueError(f"speech features of shape {features.shape} should have {len(face)} rows")
    frames = resampled(recording.frames(), config.frame_rate)
    for number, (start, end) in enumerate(takes):
        take = make_take(
            face, seen, outline, usable, start, end, config.size, config.margin, config.frame_rate
        )
        arrays = {
            "landmarks": take.landmarks,
            "depth": take.depth,
            "confidence": take.confidence,
            "crop": take.crop.boxes,
            "source_frame": shown[start:end].astype(np.int32),
            **{f"{TRUTH}{name}": values[shown[start:end]] for name, values in truth.frames.items()},
        }
        if features is not None:
            arrays["speech"] = features[start:end].astype(np.float16)
        info = ChunkInfo(
            id=item.id,
            identity=item.identity,
            take=number,
            start=start,
            total=len(take),
            first=0,
            frames=0,
            frame_rate=config.frame_rate,
            has_sound=sound is not None,
            texts=truth.texts,
        )
        own_sound = padded[round(float(face.times[start]) * SAMPLE_RATE) :]
        yield from take_samples(
            info,
            _pictures(frames, take, truth, shown),
            arrays,
            np.round(own_sound.clip(-1, 1) * 32767).astype(np.int16),
            {f"{TRUTH}{name}": values for name, values in truth.clip.items()},
            config.quality,
        )


def _timed(frames: Iterable[Frame], times: list[float]) -> Iterator[Frame]:
    """Yield frames and append their times to a list."""
    for frame in frames:
        times.append(frame.time)
        yield frame


def _no_take_reason(seen: Bool, sizes: F64, config: PrepareConfig) -> str:
    if not seen.any():
        return "no face is seen"
    typical = float(np.median(sizes[seen]))
    if typical < config.smallest_face:
        return f"the face is too small, {typical:.0f} pixels where {config.smallest_face:g} are needed"
    return (
        f"the face is seen in {int(seen.sum())} of {len(seen)} frames, but nowhere in {config.shortest} of one shot "
        f"without gaps of more than {config.longest_gap}"
    )


def _pictures(frames: Iterator[Frame], take: Take, truth: Truth, shown: Int) -> Iterator[tuple[U8, U8]]:
    """Crop and mask of each of a take's frames; `frames` is advanced past its last one."""
    for frame in frames:
        row = frame.index - take.start
        if row < 0:
            continue
        height, width = frame.image.shape[:2]
        occluded = truth.occluded(int(shown[frame.index]), width)
        mask = take.crop.mask(row, take.outline[row], (width, height), occluded)
        yield take.crop.image(row, frame.image), mask
        if row == len(take) - 1:
            return


def _track(frames: Iterable[Frame]) -> FaceTrack:
    from avface.tracking import track

    return track(frames)


@dataclass(frozen=True)
class SpeechFeatures:
    """The features of `avface.speech`, as a SpeechReader."""

    kind: Literal["moonshine", "own", "wav2vec2", "mel"]

    def __call__(self, sound: F32 | None, times: F64) -> Floats:
        """SpeechFeatures (T, 16, D); see `avface.speech.speech_features`."""
        from avface.speech import speech_features

        return np.asarray(speech_features(sound, times, kind=self.kind).values)
