"""Correction of tracked landmarks: offsets from where the picture shows them.

Tracked landmarks are biased towards the tracker's mean face. The picture is warped by the tracked points into a layout
in which each texel is a fixed place of the skin, a little beyond the outline; errors of the points appear as shifts. A
small network, trained on synthetic people with known landmarks (`avface.training.landmarks.train`), predicts the
offsets, in principal components of the tracker's errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from avface.arrays import F32, U8, Floats
from avface.errors import AvfaceError
from avface.files.weight_file import Pretrained, WeightFile, WeightFormat
from avface.tracking.aligned_crops import FACE_SIZE, crop_matrix, to_crop
from avface.tracking.face_picture import LANDMARKS, FaceLayout

SECOND_STEP = 0.5
"""Step size of the second iteration, from the points that the first one corrected; the best of 0 to 1 on synthetic
people."""

BRIGHTNESS_OFFSET = 8.0
"""Added to the brightness before the logarithm."""
NOISE_CONTRAST = 0.02
"""Contrast of the log brightness that is added as noise in the normalisation."""
_LEVEL_SIGMA, _CONTRAST_SIGMA = 5.0, 8.0
"""Standard deviations in texels of the Gaussians of the local level and the local contrast."""


@dataclass(frozen=True)
class LandmarkConfig:
    """Config of the network, saved with its weights."""

    side: int = 96
    """Size of the layout in texels."""
    channels: tuple[int, int, int] = (20, 36, 64)
    """Channels of the three stages of convolutions, each of which halves the resolution."""
    reduced: int = 24
    """Channels that the last stage is reduced to."""
    hidden: int = 192
    """Width of the fully connected layers."""
    point_components: int = 32
    """Number of principal components of the tracked points in the input."""
    error_components: int = 80
    """Number of principal components of the errors in the output."""
    dropout: float = 0.15
    """Dropout of the inputs of the fully connected layers in training."""

    def __post_init__(self) -> None:
        if self.side < 8 or self.side % 8:
            raise AvfaceError(f"side={self.side} must be a multiple of 8, at least 8")
        for name in ("reduced", "hidden", "point_components", "error_components"):
            if getattr(self, name) < 1:
                raise AvfaceError(f"{name}={getattr(self, name)} must be above 0")
        if len(self.channels) != 3 or min(self.channels) < 1:
            raise AvfaceError(f"channels={self.channels} must be three numbers above 0")
        if not 0 <= self.dropout < 1:
            raise AvfaceError(f"dropout={self.dropout} must be at least 0 and below 1")


@dataclass(frozen=True, eq=False)
class Layout(FaceLayout):
    """The layout of the network's input."""

    def sample(self, view: U8, points: F32, visibility: F32 | None = None) -> F32:
        """The network's input of a face, (3, side, side): local contrast, brightness, and visibility of the texels.

        view (S, S) uint8 grey, points (478, 2) in it, visibility (478,) of the landmarks from 0 to 1; 1 if None.
        """
        inside = self.inside.astype(np.float32)
        place = self.on_texels(points)
        value, shown = self.warped(view, place), self.shown(place)
        if visibility is not None:
            shown = shown * self.on_texels(np.asarray(visibility, np.float32)[:, None])[..., 0].clip(0, 1)
        brightness = np.log(value.astype(np.float32) + BRIGHTNESS_OFFSET)
        weight = np.maximum(shown, 0.05) * inside
        away = brightness - _local_mean(brightness, weight, _LEVEL_SIGMA)
        contrast = np.sqrt(_local_mean(away * away, weight, _CONTRAST_SIGMA) + NOISE_CONTRAST**2)
        away_from_all = brightness - (brightness * weight).sum() / weight.sum()
        contrast_of_all = np.sqrt((away_from_all**2 * weight).sum() / weight.sum() + NOISE_CONTRAST**2)
        return np.stack(
            [
                (away / contrast).clip(-3, 3) * inside,
                0.5 * (away_from_all / contrast_of_all).clip(-3, 3) * inside,
                shown,
            ]
        ).astype(np.float32)


def _local_mean(values: F32, weight: F32, sigma: float) -> F32:
    """Weighted mean under a Gaussian of a standard deviation in texels."""

    def blurred(image: F32) -> F32:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT))

    return np.asarray(blurred(values * weight) / (blurred(weight) + 1e-3))


class LandmarkNetwork(nn.Module):
    """Samples of a face (`Layout.sample`) and principal components of its points -> offsets of the points.

    Lengths are relative to the face's size, in the axes of a view.
    """

    corners: Tensor
    weights: Tensor
    inside: Tensor
    ring: Tensor
    error_mean: Tensor
    error_basis: Tensor
    points_mean: Tensor
    points_basis: Tensor

    def __init__(self, config: LandmarkConfig, layout: Layout) -> None:
        super().__init__()
        self.config = config
        self.layout = layout
        one, two, three = config.channels
        flat = 2 * LANDMARKS
        self.fine = convolution(3, one, 5, 2)
        self.middle = convolution(one, two, 3, 2)
        self.middle_again = nn.Sequential(convolution(two, two), convolution(two, two))
        self.coarse = convolution(two, three, 3, 2)
        self.coarse_again = nn.Sequential(convolution(three, three), convolution(three, three))
        self.reduce = convolution(three, config.reduced, 1)
        width = config.reduced * (config.side // 8) ** 2 + config.point_components
        self.first = nn.Linear(width, config.hidden)
        self.second = nn.Linear(config.hidden, config.hidden)
        self.last = nn.Linear(config.hidden, config.error_components)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        for name, value in (
            ("error_mean", torch.zeros(flat)),
            ("error_basis", torch.zeros(config.error_components, flat)),
            ("points_mean", torch.zeros(flat)),
            ("points_basis", torch.zeros(config.point_components, flat)),
            ("inside", torch.from_numpy(layout.inside)),
            ("corners", torch.from_numpy(layout.corners).to(torch.int16)),
            ("weights", torch.from_numpy(layout.weights)),
            ("ring", torch.from_numpy(layout.ring).to(torch.int16)),
        ):
            self.register_buffer(name, value)

    def forward(self, samples: Tensor, coefficients: Tensor) -> Tensor:
        """Offsets (B, 468, 2) from the points to their true place.

        Shapes: samples (B, 3, side, side), coefficients (B, D), see `point_coefficients`.
        """
        x = self.middle(self.fine(samples))
        x = self.coarse(x + self.middle_again(x))
        x = self.reduce(x + self.coarse_again(x)).flatten(1)
        hidden = nn.functional.silu(self.first(torch.cat([self.dropout(x), coefficients], 1)))
        hidden = hidden + nn.functional.silu(self.second(self.dropout(hidden)))
        offsets = self.last(hidden).float() @ self.error_basis + self.error_mean
        return offsets.unflatten(1, (LANDMARKS, 2))

    def point_coefficients(self, points: Tensor) -> Tensor:
        """Coefficients (B, D) of points (B, 478, 2) in a view in their principal components, in standard deviations."""
        return point_components(points, self.points_mean, self.points_basis)

    @torch.inference_mode()
    def predict_offsets(self, pictures: U8, landmarks: Floats, visibility: F32 | None = None) -> F32:
        """Offsets (K, 478, 2) from tracked landmarks to their true place, in pixels of the video; 0 for the irises.

        Shapes: pictures (K, S, S) uint8, aligned crops (`avface.tracking.aligned_crops`) around landmarks (K, 478, 2)
        in pixels of the video; visibility (K, 478) of these from 0 to 1, 1 if None.
        """
        offsets = np.zeros((len(pictures), landmarks.shape[1], 2), np.float32)
        if not len(pictures):
            return offsets
        matrices = [crop_matrix(each) for each in landmarks]
        points = np.stack([to_crop(*each) for each in zip(matrices, landmarks, strict=True)])
        in_crop = self._offsets_in_crop(pictures, points, visibility)
        corrected = points.copy()
        corrected[:, :LANDMARKS] += in_crop
        in_crop = in_crop + SECOND_STEP * self._offsets_in_crop(pictures, corrected, visibility)
        for offset, cropped, matrix in zip(offsets, in_crop, matrices, strict=True):
            offset[:LANDMARKS] = cropped @ np.linalg.inv(matrix[:, :2]).T
        return offsets

    def _offsets_in_crop(self, pictures: U8, points: F32, visibility: F32 | None) -> F32:
        """Offsets (K, 468, 2) of points (K, 478, 2) in pixels of their crops."""
        samples = np.stack(
            [
                self.layout.sample(picture, each, None if visibility is None else visibility[number])
                for number, (picture, each) in enumerate(zip(pictures, points, strict=True))
            ]
        )
        offsets = self(torch.from_numpy(samples), self.point_coefficients(torch.from_numpy(points)))
        return np.asarray(FACE_SIZE * offsets.numpy(), np.float32)


def point_components(points: Tensor, mean: Tensor, basis: Tensor) -> Tensor:
    """Coefficients (..., D) of points (..., 478, 2) in aligned crops in principal components (D, 936) around a mean
    (936,), both over the face's size; within four standard deviations."""
    points = points[..., :LANDMARKS, :]
    placed = (points - points.mean(-2, keepdim=True)).flatten(-2) / FACE_SIZE
    return ((placed - mean) @ basis.T).clamp(-4, 4)


def convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    """A convolution with batch normalisation and SiLU."""
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.SiLU())


FORMAT = WeightFormat(
    network="landmark network",
    config=LandmarkConfig,
    tag="avface landmark network 1",
    training="avface train landmarks",
    half_precision=True,
)
"""The weight file of this network."""


def save_landmark_network(
    network: LandmarkNetwork, path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write the weights in half precision with the config and any further metadata; the file appears whole.

    Raises:
        AvfaceError: if it can't be written.
    """
    FORMAT.save(path, network, network.config, {**(metadata or {}), "reach": repr(network.layout.reach)})


def load_landmark_network(path: str | Path) -> LandmarkNetwork:
    """Read a network that `save_landmark_network` wrote, in evaluation mode and without gradients.

    Raises:
        AvfaceError: if the file is missing, damaged or of another network.
    """
    file = FORMAT.read(path)
    network = file.network(lambda config: LandmarkNetwork(config, _stored_layout(file)))
    return network.requires_grad_(False)


def _stored_layout(file: WeightFile[LandmarkConfig]) -> Layout:
    """The layout that is stored with the weights.

    Raises:
        KeyError, ValueError: if it is missing or can't be one.
    """
    tensors, side = file.tensors, file.config.side
    layout = Layout(
        tensors["inside"].numpy(),
        tensors["corners"].long().numpy(),
        tensors["weights"].float().numpy(),
        tensors["ring"].long().numpy(),
        float(file.metadata["reach"]),
    )
    if layout.inside.shape != (side, side) or layout.inside.sum() != len(layout.corners):
        raise ValueError("its layout isn't of its size")
    if not 0 <= layout.corners.min() <= layout.corners.max() < LANDMARKS + len(layout.ring):
        raise ValueError("its layout has unknown points")
    if not 0 <= layout.ring.min() <= layout.ring.max() < LANDMARKS:
        raise ValueError("its layout has unknown landmarks")
    return layout


pretrained_landmark_network = Pretrained("networks", "landmarks.safetensors", load_landmark_network)
"""The weights that come with avface, for MediaPipe's landmarks."""
