"""What the networks say about a person through a whole clip, from the face's track and the sound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from avface.arrays import F32, Bool
from avface.errors import AvfaceError
from avface.networks.coarse.codes import CoarseCode, ExpressionCode
from avface.networks.coarse.model import CoarseNetworks
from avface.networks.coarse.video import LandmarksConfig
from avface.networks.coarse.windows import embed, read_expression, read_windows
from avface.networks.frames import CHUNK_FRAMES, FaceCrop, Frames, lay_crops
from avface.networks.regions import REGIONS, unit_log_variance, unit_regions
from avface.speech.stream import SoundStream
from avface.tracking import FaceTrack

DOUBT_STEP = 8
"""Frames between windows that are asked how well the tracker does: with half a window every frame is in two."""
HARDLY_SHOWN = 0.1
"""Share of a face's landmarks below which it doesn't count as seen."""


@dataclass(frozen=True, eq=False)
class ClipPrediction:
    """Means and standard deviations for T frames of one person; deviations are infinite in shots of somebody else."""

    expression: F32
    """(T, E) expression and jaw, as `ExpressionCode.vector`."""
    expression_sigma: F32
    """(T, E)."""
    rotation: F32
    """(T, 3, 3) head to camera."""
    rotation_sigma: F32
    """(T,) about each axis, radians."""
    shape: F32
    """(S,) of the clip: the mean over its frames, the surer ones counting more."""
    shape_sigma: F32
    """(S,). Frames of one clip err alike, so many of them make it no smaller."""
    window: int
    """Frames that the networks look at at once, and that err together."""
    source: str
    """What it goes by, for people."""
    heard_opening: F32
    """(T,) how far the lips would be apart judged by ear, 0 to 1 (`SpeechFeatures.mouth_openness`); 0 where nobody
    listens."""
    landmark_sigma: F32
    """(T, 6) of a region's tracked landmarks against where they should be, crop units (1.25 sizes of the face's box or
    so), one coordinate."""


def predict_clip(
    networks: CoarseNetworks,
    unit_names: tuple[str, ...],
    track: FaceTrack,
    sound: Iterable[F32] | None,
    focal_length: float,
    *,
    see_expression: bool = True,
    visibility_limit: F32 | None = None,
) -> ClipPrediction:
    """Predict expression, rotation and shape of the person that a track follows, on the networks' device.

    Args:
        networks: in evaluation mode.
        unit_names: the head's expression units, jaw included.
        track: the face, with the visibility of its landmarks if that was estimated.
        sound: blocks of samples at 16 kHz, sample 0 at time 0 (`Clip.audio_blocks`); None: nobody listens.
        focal_length: pixels, as good as it is known.
        see_expression: False: expressions from the sound alone.
        visibility_limit: (478,) upper limit of the visibility of each landmark, in [0, 1]; None for no limit.

    Memory depends on `CHUNK_FRAMES`, apart from the result's 0.5 kB a frame.

    Raises:
        AvfaceError: if the networks look at pictures, or there is no speech model of the kind that they listen to.
        ValueError: if they are about other units.
    """
    config = networks.config
    for video in (config.coarse.video, config.expression.video):
        if not isinstance(video, LandmarksConfig):
            raise AvfaceError(
                f"networks with a {video.kind} look at pictures, which reconstruction has no longer when it asks them; "
                "give networks with a landmarks encoder"
            )
    units = config.code.expression_width
    if len(unit_names) != units:
        raise ValueError(f"the networks are about {units} expression units, the head has {len(unit_names)}")
    if networks.training:
        raise ValueError("prediction needs networks in evaluation mode: call eval() on them")
    frames = len(track)
    shares = unit_regions(unit_names)
    senses = ["see"] * see_expression + ["hear"] * (sound is not None)
    result = ClipPrediction(
        np.zeros((frames, units), np.float32),
        np.full((frames, units), np.inf, np.float32),
        np.broadcast_to(np.eye(3, dtype=np.float32), (frames, 3, 3)).copy(),
        np.full(frames, np.inf, np.float32),
        np.zeros(config.code.shape, np.float32),
        np.full(config.code.shape, np.inf, np.float32),
        config.window,
        f"networks that {' and '.join(senses)}",
        np.zeros(frames, np.float32),
        np.full((frames, len(REGIONS)), np.inf, np.float32),
    )
    listening = None if sound is None else SoundStream(sound)
    shapes, shape_precision = np.zeros(config.code.shape), 0.0
    seen_frames = 0
    for outer, inner in _stretches(track, config.window - 1):
        seen = _seen(track, outer)
        looked_at, opening = _frames(networks, track, outer, seen, listening, focal_length, visibility_limit)
        coarse, expression = _predict(networks, looked_at, see_expression)
        here = slice(inner.start - outer.start, inner.stop - outer.start)
        result.expression[inner] = expression.vector()[0, here].cpu()
        result.heard_opening[inner] = opening[here]
        result.expression_sigma[inner] = _sigma(
            unit_log_variance(expression.log_variance[0, here].cpu(), shares)
        )
        result.landmark_sigma[inner] = _sigma(expression.landmark_log_variance[0, here])
        result.rotation[inner] = coarse.rotation[0, here].cpu()
        result.rotation_sigma[inner] = _sigma(coarse.log_variance[0, here, 0])
        counted = torch.from_numpy(seen[here]).to(coarse.shape.device)
        precision = torch.exp(-coarse.log_variance[0, here, 2])[counted]
        shapes += (precision @ coarse.shape[0, here][counted]).double().cpu().numpy()
        shape_precision += float(precision.sum())
        seen_frames += int(counted.sum())
    if seen_frames:
        result.shape[:] = shapes / shape_precision
        result.shape_sigma[:] = (seen_frames / shape_precision) ** 0.5
    return result


def _predict(
    networks: CoarseNetworks, frames: Frames, see_expression: bool
) -> tuple[CoarseCode, ExpressionCode]:
    embeddings = embed(networks, frames)
    if not see_expression:
        blind = embed(networks, replace(frames, seen=torch.zeros_like(frames.seen)))
        embeddings = replace(embeddings, expression=blind.expression)
    coarse, expression = read_windows(networks, embeddings)
    if see_expression and frames.speech is not None:
        # How well the tracker does is for the eyes to say. Networks that hear, too, doubt hidden lips less.
        quiet = replace(embeddings, expression=networks.expression.unhearing(embeddings.expression))
        doubt = read_expression(networks, quiet, step=DOUBT_STEP)
        expression = replace(expression, landmark_log_variance=doubt.landmark_log_variance)
    return coarse, expression


def _stretches(track: FaceTrack, around: int) -> Iterator[tuple[slice, slice]]:
    """Stretches of the person's shots: the frames to look at, and those among them to keep."""
    for shot in track.segments:
        if not shot.same_person:
            continue
        for start in range(shot.start, shot.end, CHUNK_FRAMES):
            end = min(start + CHUNK_FRAMES, shot.end)
            yield slice(max(start - around, shot.start), min(end + around, shot.end)), slice(start, end)


def _seen(track: FaceTrack, rows: slice) -> Bool:
    seen = np.asarray(track.confidence[rows] > 0)
    if track.visibility is not None:
        seen &= np.asarray(track.visibility[rows]).mean(1) >= HARDLY_SHOWN
    return seen


def _frames(
    networks: CoarseNetworks,
    track: FaceTrack,
    rows: slice,
    seen: Bool,
    sound: SoundStream | None,
    focal_length: float,
    visibility_limit: F32 | None,
) -> tuple[Frames, F32]:
    """What there is to see and hear in some frames, and how far the lips would be apart by ear (T,)."""
    times, (width, height) = track.times[rows], track.image_size
    landmarks = np.asarray(track.landmarks[rows], np.float32)
    if seen.any():
        span = float(times[-1] - times[0])
        box = lay_crops(landmarks, seen, (len(times) - 1) / span if span > 0 else 30.0)
    else:  # nobody looks at it
        middle = ((width - 1) / 2, (height - 1) / 2, min(width, height) / 2)
        box = np.tile(np.array(middle, np.float32), (len(times), 1))
    crop = FaceCrop.of(torch.from_numpy(box)[None], focal_length, ((width - 1) / 2, (height - 1) / 2))
    visibility = np.ones(landmarks.shape[:2], np.float32)
    if track.visibility is not None:
        visibility = np.asarray(track.visibility[rows], np.float32)
    if visibility_limit is not None:
        visibility = np.minimum(visibility, visibility_limit)
    heard, speech, opening = np.zeros(len(times), bool), None, np.zeros(len(times), np.float32)
    if sound is not None:
        kind = networks.config.expression.audio.speech
        heard, features = sound.features(times, kind, networks.coarse.unseen.device)
        if features is not None:
            speech, opening = torch.from_numpy(features.values)[None], features.mouth_openness

    def clip(values: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(values)[None]

    looked_at = Frames(
        crop=crop,
        seen=clip(seen),
        heard=clip(heard),
        landmarks=crop.normalise(clip(landmarks)),
        confidence=clip(np.asarray(track.confidence[rows], np.float32)),
        visibility=clip(visibility),
        depth=clip(np.asarray(track.depth[rows], np.float32)) * (2 / crop.box[..., 2:]),
        speech=speech,
    )
    return looked_at, opening


def _sigma(log_variance: Tensor) -> F32:
    return torch.exp(log_variance / 2).cpu().numpy()
