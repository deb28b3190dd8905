"""Predictions of the coarse networks on clips, without the solver: data and inference of the ablation study."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avface.arrays import F64, Bool, Floats
from avface.capture import Capture
from avface.errors import AvfaceError
from avface.geometry.rotations import facing_rotvec
from avface.head import HeadModel, load_head
from avface.head.schemes import LIPS
from avface.networks.coarse.codes import perspective_translation
from avface.networks.coarse.model import CoarseNetworks
from avface.networks.coarse.video import ResNetConfig
from avface.networks.coarse.windows import Embeddings, embed, read_windows
from avface.networks.frames import FaceCrop, Frames, face_boxes
from avface.solve.config import SolverConfig
from avface.training.coarse.recipes import Recipe

OCCLUDED_LIPS = 0.5
"""A frame of a synthetic clip counts as occluded when more than this share of the lips' landmarks is covered."""


@dataclass(eq=False)
class NetworkClip:
    """One shot of one person as input of the networks, with its reference.

    Shapes: tracked (T, 478, 2) pixels, nan or anything finite where confidence (T,) is 0; visibility (T, 478)
            probability that a point is visible, an input of the networks; box (T, 3) squares around the face;
            principal_point (2,); times (T,) seconds; reference (T, 478, 2) pixels, nan where unknown; lips_occluded
            (T,) the frames whose lips are occluded.
    """

    name: str
    tracked: Floats
    confidence: Floats
    visibility: Floats
    box: Floats
    focal_length: float
    principal_point: tuple[float, float]
    times: F64
    reference: Floats
    lips_occluded: Bool
    truth: Capture | None = None
    """Ground truth of a synthetic clip."""
    sound: Floats | None = None
    """Audio samples at 16 kHz, for speech features of any kind."""
    speech: dict[str, Floats] = field(default_factory=dict)
    """Known speech features (T, 16, D) by kind."""

    @property
    def image_size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return round(2 * self.principal_point[0] + 1), round(2 * self.principal_point[1] + 1)

    def speech_of(self, kind: str) -> Floats | None:
        """Speech features of a kind, computed once if there is audio; None without either.

        Raises:
            AvfaceError: if the kind needs weights that aren't there.
        """
        if kind not in self.speech and self.sound is not None:
            from avface.speech import speech_features

            self.speech[kind] = speech_features(self.sound, self.times, kind=kind).values  # type: ignore[arg-type]
        return self.speech.get(kind)


def synthetic_clips(shards: Path) -> tuple[list[NetworkClip], str]:
    """The test split of a prepared dataset of synthetic clips, and the kind of its speech features.

    The visibility of points is the ground truth's: shards don't contain the frames that it could be estimated from.

    Raises:
        AvfaceError: as `avface.training.coarse.tracked_takes.read_tracked_takes`.
    """
    from avface.data.shards import read_index
    from avface.training.coarse.tracked_takes import read_tracked_takes

    kind = str(read_index(shards)["config"]["speech"])
    takes = read_tracked_takes(shards, "test")
    head = load_head()
    clips = []
    for number, name in enumerate(takes.names):
        rows = slice(int(takes.first[number]), int(takes.first[number] + takes.count[number]))
        centre = takes.centre[number].tolist()
        times = np.arange(rows.stop - rows.start) / takes.frame_rate
        truth = _capture(
            head,
            takes.shape[number],
            takes.expression[rows],
            takes.rotation[rows],
            takes.translation[rows],
            float(takes.focal[number]),
            (centre[0], centre[1]),
            times,
            takes.joints[rows],
        )
        clips.append(
            NetworkClip(
                name,
                takes.tracked[rows].numpy(),
                takes.confidence[rows].numpy(),
                takes.visible[rows].numpy().astype(np.float64),
                takes.box[rows].numpy(),
                float(takes.focal[number]),
                (centre[0], centre[1]),
                times,
                truth.landmarks(),
                (~takes.visible[rows][:, LIPS]).float().mean(1).numpy() > OCCLUDED_LIPS,
                truth,
                speech={kind: takes.speech[rows].float().numpy()},
            )
        )
    return clips, kind


def video_clip(
    video: Path, reference: Floats | None = None, lips_occluded: Bool | None = None
) -> NetworkClip:
    """A real video, tracked; by default its own landmarks are the reference and nothing is occluded.

    Raises:
        AvfaceError: if it can't be read or has no face.
    """
    from avface.media import Clip
    from avface.tracking import track

    clip = Clip.open(video)
    found = track(clip.frames())
    tracked = np.asarray(found.landmarks, np.float64)
    seen = np.isfinite(tracked).all((1, 2))
    rate = (len(seen) - 1) / max(float(found.times[-1] - found.times[0]), 1e-6)
    width, height = found.image_size
    return NetworkClip(
        video.name,
        tracked,
        np.asarray(found.confidence, np.float64),
        np.ones(tracked.shape[:2]) if found.visibility is None else np.asarray(found.visibility, np.float64),
        face_boxes(tracked, seen, rate),
        SolverConfig.focal_prior * max(found.image_size),
        ((width - 1) / 2, (height - 1) / 2),
        np.asarray(found.times),
        tracked if reference is None else reference,
        np.zeros(len(seen), bool) if lips_occluded is None else lips_occluded,
        sound=clip.audio(),
    )


def check_measurable(path: Path, recipe: Recipe) -> None:
    """Refuse networks that need more than tracked landmarks.

    Raises:
        AvfaceError: if their input is images or depth, or they aren't for the open head under perspective projection.
    """
    network = recipe.network
    for branch in (network.coarse, network.expression):
        if isinstance(branch.video, ResNetConfig) or branch.video.depth:
            raise AvfaceError(
                f"{path}: networks with images or depth as input; the ablation study needs landmarks as input"
            )
    if network.code.camera != "perspective" or network.head != "open":
        raise AvfaceError(
            f"{path}: not for the open head under perspective projection; train with the default recipe"
        )


def read_clip(
    networks: CoarseNetworks, clip: NetworkClip, *, use_audio: bool = True, use_video: bool = True
) -> Capture:
    """Prediction of networks for a clip: one shape, and pose and expression of every frame.

    use_audio, use_video: inputs of the expression branch.

    Raises:
        AvfaceError: if the clip has no speech features of the networks' kind and they can't be computed.
    """
    config = networks.config
    seen = torch.as_tensor(np.asarray(clip.confidence) > 0)[None]
    speech: torch.Tensor | None = None
    if use_audio:
        kind = config.expression.audio.speech
        values = clip.speech_of(kind)
        if values is None:
            raise AvfaceError(f"{clip.name}: no {kind} features; prepare shards with --speech {kind}")
        speech = torch.as_tensor(np.asarray(values, np.float32))[None]
    crop = FaceCrop.of(
        torch.as_tensor(np.asarray(clip.box, np.float32))[None], clip.focal_length, clip.principal_point
    )
    frames = Frames(
        crop,
        seen,
        torch.full_like(seen, speech is not None),
        landmarks=crop.normalise(torch.as_tensor(np.asarray(clip.tracked, np.float32))[None]),
        confidence=torch.as_tensor(np.asarray(clip.confidence, np.float32))[None],
        visibility=torch.as_tensor(np.asarray(clip.visibility, np.float32))[None],
        speech=speech,
    )
    embeddings = embed(networks, frames)
    if not use_video:
        blind = embed(networks, replace(frames, seen=torch.zeros_like(seen)))
        embeddings = Embeddings(embeddings.coarse, blind.expression, embeddings.crop)
    coarse, expression = read_windows(networks, embeddings)
    head = load_head(config.head)
    return _capture(
        head,
        coarse.shape[0].mean(0),
        expression.expression[0],
        coarse.rotation[0],
        perspective_translation(coarse.camera, crop)[0],
        clip.focal_length,
        clip.principal_point,
        clip.times,
    )


def _capture(
    head: HeadModel,
    shape: torch.Tensor,
    expression: torch.Tensor,
    rotation: torch.Tensor,
    translation: torch.Tensor,
    focal_length: float,
    principal_point: tuple[float, float],
    times: F64,
    joints: torch.Tensor | None = None,
) -> Capture:
    """Capture of predicted or true parameters; rotation as matrices (T, 3, 3)."""
    count = len(times)
    arrays: dict[str, Any] = {
        "shape": shape,
        "expression": expression,
        "rotation": facing_rotvec(rotation),
        "translation": translation,
        "joints": torch.zeros(count, head.num_joints, 3) if joints is None else joints,
    }
    return Capture(
        head=head.name,
        expression_names=head.expression_names,
        joint_names=head.joint_names,
        focal_length=focal_length,
        principal_point=principal_point,
        image_size=(round(2 * principal_point[0] + 1), round(2 * principal_point[1] + 1)),
        times=times,
        confidence=np.ones(count, np.float32),
        **{name: value.detach().numpy().astype(np.float32) for name, value in arrays.items()},
    )
