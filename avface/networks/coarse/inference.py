"""Predictions of the coarse networks for a person over a whole clip, from the face track and the sound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from avface.arrays import F32, Bool
from avface.errors import AvfaceError
from avface.head.schemes import MIN_VISIBLE_SHARE
from avface.networks.coarse.codes import CoarseCode, ExpressionCode
from avface.networks.coarse.model import CoarseNetworks
from avface.networks.coarse.video import LandmarksConfig
from avface.networks.coarse.windows import embed, read_expression, read_windows
from avface.networks.frames import CHUNK_FRAMES, FaceCrop, Frames, face_boxes
from avface.networks.regions import REGIONS, unit_log_variance, unit_regions
from avface.speech.stream import SoundStream
from avface.tracking import FaceTrack

SIGMA_STEP = 8
"""Frames between the windows that predict the landmarks' variance: half a window, so that every frame is in two."""


@dataclass(frozen=True, eq=False)
class ClipPrediction:
    """Means and standard deviations for T frames of one person; deviations are infinite in shots without the person."""

    expression: F32
    """(T, E) expression and jaw, as `ExpressionCode.vector`."""
    expression_sigma: F32
    """(T, E)."""
    rotation: F32
    """(T, 3, 3) head to camera."""
    rotation_sigma: F32
    """(T,) about each axis, radians."""
    shape: F32
    """(S,) of the clip: the mean over its frames, weighted by the predicted precision."""
    shape_sigma: F32
    """(S,). Errors of the frames of one clip are correlated, so it doesn't shrink with their number."""
    window: int
    """Frames of a window, whose errors are correlated."""
    source: str
    """Description of the networks and their inputs, for provenance."""
    audio_opening: F32
    """(T,) opening of the lips predicted from sound, 0 to 1 (`SpeechFeatures.mouth_openness`); 0 without sound."""
    audio_closure: F32
    """(T,) probability of closed lips, predicted from sound (`SpeechFeatures.lip_closure`); 0 without sound."""
    landmark_sigma: F32
    """(T, 6) a region, of its tracked landmarks from their true place, per coordinate, in crop units (a unit is about
    1.25 sizes of the face's box)."""


def predict_clip(
    networks: CoarseNetworks,
    unit_names: tuple[str, ...],
    track: FaceTrack,
    sound: Iterable[F32] | None,
    focal_length: float,
    *,
    use_video: bool = True,
    visibility_limit: F32 | None = None,
) -> ClipPrediction:
    """Predict expression, rotation and shape of the tracked person, on the networks' device.

    Args:
        networks: in evaluation mode.
        unit_names: the head's expression units, jaw included.
        track: the face, with the visibility of its landmarks if that was estimated.
        sound: blocks of samples at 16 kHz, sample 0 at time 0 (`Clip.audio_blocks`); None for no sound.
        focal_length: pixels, known or estimated.
        use_video: False: the expression branch gets the sound alone.
        visibility_limit: (478,) upper limit of the visibility of each landmark, in [0, 1]; None for no limit.

    Memory depends on `CHUNK_FRAMES`, apart from the result's 0.5 kB a frame.

    Raises:
        AvfaceError: if the networks need pictures, or the speech features that they need aren't available.
        ValueError: if the number of units isn't theirs, or they are in training mode.
    """
    config = networks.config
    for video in (config.coarse.video, config.expression.video):
        if not isinstance(video, LandmarksConfig):
            raise AvfaceError(
                f"networks with a {video.kind} encoder need pictures, which aren't kept for this step of the "
                "reconstruction; give networks with a landmarks encoder"
            )
    units = config.code.expression_width
    if len(unit_names) != units:
        raise ValueError(f"the networks predict {units} expression units, the head has {len(unit_names)}")
    if networks.training:
        raise ValueError("prediction needs networks in evaluation mode: call eval() on them")
    frames = len(track)
    shares = unit_regions(unit_names)
    inputs = ["video"] * use_video + ["audio"] * (sound is not None)
    result = ClipPrediction(
        np.zeros((frames, units), np.float32),
        np.full((frames, units), np.inf, np.float32),
        np.broadcast_to(np.eye(3, dtype=np.float32), (frames, 3, 3)).copy(),
        np.full(frames, np.inf, np.float32),
        np.zeros(config.code.shape, np.float32),
        np.full(config.code.shape, np.inf, np.float32),
        config.window,
        f"networks with {' and '.join(inputs)} as input",
        np.zeros(frames, np.float32),
        np.zeros(frames, np.float32),
        np.full((frames, len(REGIONS)), np.inf, np.float32),
    )
    stream = None if sound is None else SoundStream(sound)
    shapes, shape_precision = np.zeros(config.code.shape), 0.0
    visible_frames = 0
    for outer, inner in _chunks(track, config.window - 1):
        visible = _visible_faces(track, outer)
        frames_in, lips = _frames(networks, track, outer, visible, stream, focal_length, visibility_limit)
        coarse, expression = _predict(networks, frames_in, use_video)
        here = slice(inner.start - outer.start, inner.stop - outer.start)
        result.expression[inner] = expression.vector()[0, here].cpu()
        result.audio_opening[inner], result.audio_closure[inner] = lips[:, here]
        result.expression_sigma[inner] = _sigma(
            unit_log_variance(expression.log_variance[0, here].cpu(), shares)
        )
        result.landmark_sigma[inner] = _sigma(expression.landmark_log_variance[0, here])
        result.rotation[inner] = coarse.rotation[0, here].cpu()
        result.rotation_sigma[inner] = _sigma(coarse.log_variance[0, here, 0])
        counted = torch.from_numpy(visible[here]).to(coarse.shape.device)
        precision = torch.exp(-coarse.log_variance[0, here, 2])[counted]
        shapes += (precision @ coarse.shape[0, here][counted]).double().cpu().numpy()
        shape_precision += float(precision.sum())
        visible_frames += int(counted.sum())
    if visible_frames:
        result.shape[:] = shapes / shape_precision
        result.shape_sigma[:] = (visible_frames / shape_precision) ** 0.5
    return result


def _predict(networks: CoarseNetworks, frames: Frames, use_video: bool) -> tuple[CoarseCode, ExpressionCode]:
    embeddings = embed(networks, frames)
    if not use_video:
        without_video = embed(networks, replace(frames, seen=torch.zeros_like(frames.seen)))
        embeddings = replace(embeddings, expression=without_video.expression)
    coarse, expression = read_windows(networks, embeddings)
    if use_video and frames.speech is not None:
        # The tracker's error depends on the picture alone; with sound, the variance of occluded lips is too small.
        silent = replace(embeddings, expression=networks.expression.without_audio(embeddings.expression))
        of_picture = read_expression(networks, silent, step=SIGMA_STEP)
        expression = replace(expression, landmark_log_variance=of_picture.landmark_log_variance)
    return coarse, expression


def _chunks(track: FaceTrack, around: int) -> Iterator[tuple[slice, slice]]:
    """Chunks of the person's shots: the frames to process, with `around` more on each side, and those of the chunk."""
    for shot in track.segments:
        if not shot.same_person:
            continue
        for start in range(shot.start, shot.end, CHUNK_FRAMES):
            end = min(start + CHUNK_FRAMES, shot.end)
            yield slice(max(start - around, shot.start), min(end + around, shot.end)), slice(start, end)


def _visible_faces(track: FaceTrack, rows: slice) -> Bool:
    """Which frames show the face, (T,)."""
    visible = np.asarray(track.confidence[rows] > 0)
    if track.visibility is not None:
        visible &= np.asarray(track.visibility[rows]).mean(1) >= MIN_VISIBLE_SHARE
    return visible


def _frames(
    networks: CoarseNetworks,
    track: FaceTrack,
    rows: slice,
    visible: Bool,
    stream: SoundStream | None,
    focal_length: float,
    visibility_limit: F32 | None,
) -> tuple[Frames, F32]:
    """The networks' input of some frames, and opening and closure of the lips predicted from sound (2, T)."""
    times, (width, height) = track.times[rows], track.image_size
    landmarks = np.asarray(track.landmarks[rows], np.float32)
    if visible.any():
        span = float(times[-1] - times[0])
        box = face_boxes(landmarks, visible, (len(times) - 1) / span if span > 0 else 30.0)
    else:  # of no effect
        middle = ((width - 1) / 2, (height - 1) / 2, min(width, height) / 2)
        box = np.tile(np.array(middle, np.float32), (len(times), 1))
    crop = FaceCrop.of(torch.from_numpy(box)[None], focal_length, ((width - 1) / 2, (height - 1) / 2))
    visibility = np.ones(landmarks.shape[:2], np.float32)
    if track.visibility is not None:
        visibility = np.asarray(track.visibility[rows], np.float32)
    if visibility_limit is not None:
        visibility = np.minimum(visibility, visibility_limit)
    heard, speech, lips = np.zeros(len(times), bool), None, np.zeros((2, len(times)), np.float32)
    if stream is not None:
        kind = networks.config.expression.audio.speech
        heard, features = stream.features(times, kind, networks.coarse.unseen.device)
        if features is not None:
            speech = torch.from_numpy(features.values)[None]
            lips = np.stack([features.mouth_openness, features.lip_closure])

    def clip(values: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(values)[None]

    frames = Frames(
        crop=crop,
        seen=clip(visible),
        heard=clip(heard),
        landmarks=crop.normalise(clip(landmarks)),
        confidence=clip(np.asarray(track.confidence[rows], np.float32)),
        visibility=clip(visibility),
        depth=clip(np.asarray(track.depth[rows], np.float32)) * (2 / crop.box[..., 2:]),
        speech=speech,
    )
    return frames, lips


def _sigma(log_variance: Tensor) -> F32:
    return torch.exp(log_variance / 2).cpu().numpy()
