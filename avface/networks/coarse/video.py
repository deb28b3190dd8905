"""Video encoders: an embedding of each frame's landmarks or picture."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from avface.errors import AvfaceError
from avface.head.regions import NOSE_RING
from avface.head.schemes import (
    FACE_OVAL,
    IRISES,
    LEFT_BROW_LOWER,
    LEFT_BROW_UPPER,
    LEFT_EYE,
    LIPS,
    NUM_MEDIAPIPE,
    RIGHT_BROW_LOWER,
    RIGHT_BROW_UPPER,
    RIGHT_EYE,
)
from avface.networks.frames import Frames
from avface.networks.resnet import FEATURES, ResNet50

CONTOURS = np.unique(
    np.concatenate(
        [
            *(LIPS, LEFT_EYE, RIGHT_EYE, IRISES, FACE_OVAL, NOSE_RING),
            *(LEFT_BROW_UPPER, LEFT_BROW_LOWER, RIGHT_BROW_UPPER, RIGHT_BROW_LOWER),
        ]
    )
)
"""The landmarks of lips, lids, irises, brows and the outlines of nose and face (154), in order."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Statistics of RGB from 0 to 1 that torchvision's weights need."""


@dataclass(frozen=True)
class ResNetConfig:
    """A ResNet-50 over pictures of the face."""

    kind: Literal["resnet50"] = "resnet50"
    """Tag of this encoder."""
    hidden: tuple[int, ...] = ()
    """Widths of hidden layers with ReLU after the 2048 features; (1024,) as in DECA."""
    imagenet_normalised: bool = False
    """Whether pictures are standardised by ImageNet's statistics, as torchvision's weights need. DECA's don't."""

    def __post_init__(self) -> None:
        if any(width < 1 for width in self.hidden):
            raise AvfaceError(f"hidden={self.hidden}: every layer needs a width above 0")


@dataclass(frozen=True)
class LandmarksConfig:
    """A multilayer perceptron over tracked points."""

    kind: Literal["landmarks"] = "landmarks"
    """Tag of this encoder."""
    points: Literal["all", "contours"] = "all"
    """All 478 points, or the 154 of `CONTOURS`."""
    visibility: bool = False
    """Whether the visibility of each point is an input."""
    depth: bool = False
    """Whether MediaPipe's z of each point is an input."""
    hidden: tuple[int, ...] = (512, 256)
    """Widths of the hidden layers."""

    def __post_init__(self) -> None:
        if self.points not in ("all", "contours"):
            raise AvfaceError(f"points={self.points!r} must be all or contours")
        if not self.hidden or min(self.hidden) < 1:
            raise AvfaceError(
                f"hidden={self.hidden}: the landmarks encoder needs one hidden layer or more, with a width above 0"
            )


VideoConfig = ResNetConfig | LandmarksConfig
"""The choice of a video encoder."""


class VideoEncoder(nn.Module):
    """Base of the video encoders: frames (B, T) -> embeddings (B, T, size).

    Embeddings of frames without a face are finite and otherwise arbitrary; callers replace them.
    """

    size: int

    def forward(self, frames: Frames) -> Tensor:
        """Embed frames independently."""
        raise NotImplementedError


def make_video_encoder(config: VideoConfig, size: int) -> VideoEncoder:
    """The encoder of a config, with embeddings of `size`."""
    if isinstance(config, ResNetConfig):
        return ResNetEncoder(config, size)
    return LandmarksEncoder(config, size)


class ResNetEncoder(VideoEncoder):
    """`Frames.images` through ResNet-50 and linear layers with ReLU between them.

    Names in `head` are those of DECA's `layers`: 0, 2, ... are the linear layers.
    """

    def __init__(self, config: ResNetConfig, size: int) -> None:
        super().__init__()
        self.config, self.size = config, size
        self.backbone = ResNet50()
        self.head = perceptron((FEATURES, *config.hidden, size))

    def forward(self, frames: Frames) -> Tensor:
        """Embed frames independently.

        Raises:
            ValueError: if there are no pictures.
        """
        if frames.images is None:
            raise ValueError("a ResNet encoder needs frames with images")
        pictures = frames.images.flatten(0, 1)
        weight = self.backbone.conv1.weight
        pictures = pictures.to(weight.dtype) / 255 if pictures.dtype == torch.uint8 else pictures
        if self.config.imagenet_normalised:
            mean, std = (pictures.new_tensor(value)[:, None, None] for value in (IMAGENET_MEAN, IMAGENET_STD))
            pictures = (pictures - mean) / std
        embedded: Tensor = self.head(self.backbone(pictures))
        return embedded.unflatten(0, frames.seen.shape)


class LandmarksEncoder(VideoEncoder):
    """`Frames.landmarks` in crop units, the tracker's confidence and the geometry of the crop through a perceptron.

    The inputs are standardised with `mean` and `scale`, which `standardise` sets once from training data, because the
    motion of the landmarks is small against their positions.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, config: LandmarksConfig, size: int) -> None:
        super().__init__()
        self.config, self.size = config, size
        chosen = np.arange(NUM_MEDIAPIPE) if config.points == "all" else CONTOURS
        self._chosen = torch.from_numpy(chosen)
        width = len(chosen) * (2 + config.visibility + config.depth) + 4
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.layers = perceptron((width, *config.hidden, size))

    def forward(self, frames: Frames) -> Tensor:
        """Embed frames independently.

        Raises:
            ValueError: if an input of the config is missing.
        """
        # clamped against inputs far outside the range of the training data
        features = ((self._features(frames) - self.mean) * self.scale).clamp(-10, 10)
        if self.config.visibility:
            features = features * self._weights(frames)
        features = torch.where(frames.seen[..., None], features, 0.0)
        embedded: Tensor = self.layers(features)
        return embedded

    @torch.no_grad()
    def standardise(self, frames: Frames) -> None:
        """Set mean and scale from the frames with a face; constant inputs keep a scale of 1."""
        features = self._features(frames)[frames.seen]
        deviation = features.std(0, correction=0)
        self.mean.copy_(features.mean(0))
        self.scale.copy_(torch.where(deviation > 1e-5, 1 / deviation.clamp_min(1e-5), 1.0))

    def _features(self, frames: Frames) -> Tensor:
        """(B, T, F): points, their visibility, their depth, confidence, geometry of the crop."""
        landmarks, confidence = _needed(frames, "landmarks"), _needed(frames, "confidence")
        chosen = self._chosen.to(landmarks.device)
        parts = [landmarks.index_select(-2, chosen).flatten(-2)]
        if self.config.visibility:
            parts.append(_needed(frames, "visibility").index_select(-1, chosen))
        if self.config.depth:
            parts.append(_needed(frames, "depth").index_select(-1, chosen))
        parts += [confidence[..., None], frames.crop.geometry]
        return torch.cat(parts, -1)

    def _weights(self, frames: Frames) -> Tensor:
        """Weights (B, T, F) of the standardised inputs; those of invisible points become their mean."""
        seen = _needed(frames, "visibility").index_select(-1, self._chosen.to(frames.seen.device))
        ones = torch.ones_like(seen)
        parts = [seen.repeat_interleave(2, -1), ones]
        if self.config.depth:
            parts.append(seen)
        return torch.cat([*parts, ones[..., :4]], -1)


def perceptron(widths: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with ReLU between them, none after the last."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _needed(frames: Frames, name: str) -> Tensor:
    value: Tensor | None = getattr(frames, name)
    if value is None:
        raise ValueError(f"this landmarks encoder needs frames with {name}")
    return value
