"""Correction of the motion of tracked landmarks in every frame, and expression weights read off the picture.

A landmark tracker follows an expression in part only: brows, lids, corners of the mouth and cheeks move less, or
otherwise, than in the picture. On rendered people its errors vary within a clip by half as much as the landmarks move
by expression; given the true landmarks, the fit finds nearly all expression weights, given the tracked ones few.
Pictures of a clip, warped by the landmarks (`avface.tracking.face_picture`), are registered but for these errors. A
small network compares each with the mean of the clip, and predicts by how much the landmarks' errors differ from their
mean over the clip; what is constant in a clip is left to `landmark_correction` and to the fit of the shape. With it, it
predicts weights of expression units, with variances: teeth, folds and cheeks have no landmarks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avface.arrays import F32, U8, Floats, Int
from avface.errors import AvfaceError
from avface.files.weight_file import Pretrained, WeightFormat
from avface.head.schemes import LIPS, MIN_VISIBLE_SHARE
from avface.networks.landmark_correction import (
    BRIGHTNESS_OFFSET,
    NOISE_CONTRAST,
    convolution,
    point_components,
)
from avface.tracking import FaceTrack
from avface.tracking.aligned_crops import FACE_SIZE, crop_matrix
from avface.tracking.face_picture import LANDMARKS, PICTURE_SIDE, picture_layout, shown_texels
from avface.tracking.face_track import StoredArray

CONTEXT_FRAMES = 64
"""Frames, evenly over the clip, whose mean the pictures are compared with, at most."""
_BLOCK = 64
_LEVEL_SIGMA, _CONTRAST_SIGMA = 5 / 96 * PICTURE_SIDE, 8 / 96 * PICTURE_SIDE
"""Standard deviations in texels of the Gaussians of the local level and the local contrast."""
LEAST_WEIGHT = 0.03
"""Weight of a unit that is subtracted from what is read, so that noise of still units doesn't count."""
LARGEST_AMPLITUDE = 2.5
"""Largest factor by which the weights of a unit are amplified."""
SHOWN_SHARE = (0.6, 0.75)
"""Share of the texels that face the camera up to which landmarks stay as tracked, and from which on their motion is
corrected in full: on real faces that are turned far away the corrections are worse than the tracker."""
_LOG_SIGMA = (-2.5, -7.5, 0.5)
"""Start, least and largest value of the logarithm of a weight's standard deviation."""


@dataclass(frozen=True)
class MotionConfig:
    """Config of the network, saved with its weights."""

    units: tuple[str, ...] = ()
    """Names of the expression units that it reads."""
    channels: tuple[int, int, int, int] = (20, 32, 48, 64)
    """Channels of the convolutions; the first, third and fourth halve the resolution."""
    reduced: int = 32
    """Channels that the last convolution is reduced to."""
    hidden: int = 320
    """Width of the fully connected layers."""
    point_components: int = 32
    """Number of principal components of the tracked points in the input."""
    error_components: int = 80
    """Number of principal components of the errors in the output."""
    dropout: float = 0.2
    """Dropout of the inputs of the fully connected layers in training."""

    def __post_init__(self) -> None:
        for name in ("reduced", "hidden", "point_components", "error_components"):
            if getattr(self, name) < 1:
                raise AvfaceError(f"{name}={getattr(self, name)} must be above 0")
        if len(self.channels) != 4 or min(self.channels) < 1:
            raise AvfaceError(f"channels={self.channels} must be four numbers above 0")
        if not self.units or len(set(self.units)) != len(self.units):
            raise AvfaceError(f"units={self.units} must be different names, at least one")
        if not 0 <= self.dropout < 1:
            raise AvfaceError(f"dropout={self.dropout} must be at least 0 and below 1")


@dataclass(frozen=True, eq=False)
class Pictures:
    """Normalised pictures (..., side, side): local contrast, brightness, and how well the texels are seen."""

    contrast: Tensor
    brightness: Tensor
    shown: Tensor

    @classmethod
    def of(cls, pictures: Tensor, shown: Tensor) -> Pictures:
        """Those of grey pictures (N, side, side) uint8, whose texels are seen by (N, side, side) from 0 to 1."""
        inside = torch.from_numpy(picture_layout().inside).to(shown)
        weight = shown.clamp_min(0.05) * inside
        bright = torch.log(pictures.to(shown) + BRIGHTNESS_OFFSET)
        away = bright - _local_mean(bright, weight, _LEVEL_SIGMA)
        contrast = torch.sqrt(_local_mean(away.square(), weight, _CONTRAST_SIGMA) + NOISE_CONTRAST**2)
        total = weight.sum((1, 2), keepdim=True)
        from_all = bright - (bright * weight).sum((1, 2), keepdim=True) / total
        contrast_of_all = torch.sqrt(
            (from_all.square() * weight).sum((1, 2), keepdim=True) / total + NOISE_CONTRAST**2
        )
        return cls(
            (away / contrast).clamp(-3, 3) * inside,
            0.5 * (from_all / contrast_of_all).clamp(-3, 3) * inside,
            shown,
        )

    def mean(self, weight: Tensor | None = None) -> Pictures:
        """Their mean over the last but two axis, weighted by how well texels are seen, and by (..., N) if given."""
        share = self.shown if weight is None else self.shown * weight[..., None, None]
        total = share.sum(-3, keepdim=True).clamp_min(0.05)
        means = [(part * share).sum(-3, keepdim=True) / total for part in (self.contrast, self.brightness)]
        return Pictures(means[0], means[1], total)


def _local_mean(values: Tensor, weight: Tensor, sigma: float) -> Tensor:
    return _blurred(values * weight, sigma) / (_blurred(weight, sigma) + 1e-3)


def _blurred(images: Tensor, sigma: float) -> Tensor:
    """Images (N, H, W) under a Gaussian; 0 beyond their edges."""
    radius = int(2.5 * sigma + 0.5)
    kernel = torch.exp(-torch.arange(-radius, radius + 1, device=images.device).square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).to(images)
    across = nn.functional.conv2d(images[:, None], kernel.view(1, 1, 1, -1), padding=(0, radius))
    return nn.functional.conv2d(across, kernel.view(1, 1, -1, 1), padding=(radius, 0))[:, 0]


@dataclass(frozen=True, eq=False)
class MotionCode:
    """What the network says of N frames: coefficients (N, C) of the landmarks' offsets against their mean over the
    clip, in standard deviations of the tracker's errors; weights (N, U) of the units and their standard deviations."""

    coefficients: Tensor
    weights: Tensor
    sigma: Tensor


class MotionNetwork(nn.Module):
    """A picture, the clip's mean picture and principal components of the points -> `MotionCode`."""

    points_mean: Tensor
    points_basis: Tensor
    error_basis: Tensor
    amplitude: Tensor

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.config = config
        one, two, three, four = config.channels
        self.fine = nn.Sequential(convolution(5, one, 5, 2), convolution(one, two))
        self.middle = convolution(two, three, 3, 2)
        self.middle_again = nn.Sequential(convolution(three, three), convolution(three, three))
        self.coarse = convolution(three, four, 3, 2)
        self.coarse_again = nn.Sequential(convolution(four, four), convolution(four, four))
        self.reduce = convolution(four, config.reduced, 1)
        width = config.reduced * (PICTURE_SIDE // 8) ** 2 + 2 * config.point_components
        self.first = nn.Linear(width, config.hidden)
        self.second = nn.Linear(config.hidden, config.hidden)
        self.offsets = nn.Linear(config.hidden, config.error_components)
        self.third = nn.Linear(config.hidden, config.hidden)
        self.units = nn.Linear(config.hidden, 2 * len(config.units))
        self.dropout = nn.Dropout(config.dropout)
        for layer in (self.offsets, self.units):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        flat = 2 * LANDMARKS
        self.register_buffer("points_mean", torch.zeros(flat))
        self.register_buffer("points_basis", torch.zeros(config.point_components, flat))
        self.register_buffer("error_basis", torch.zeros(config.error_components, flat))
        self.register_buffer("amplitude", torch.ones(len(config.units)))

    def forward(self, pictures: Pictures, mean: Pictures, points: Tensor, mean_points: Tensor) -> MotionCode:
        """What is seen in N frames.

        Shapes: pictures (N, side, side), mean (side, side) or (N, side, side) of their clips, points (N, P) and
        mean_points (P,) or (N, P), see `point_coefficients`.
        """
        stack = [pictures.contrast, pictures.brightness, mean.contrast, mean.brightness, pictures.shown]
        x = torch.stack([part.expand_as(pictures.shown) for part in stack], 1)
        x = self.middle(self.fine(x.contiguous(memory_format=torch.channels_last)))
        x = self.coarse(x + self.middle_again(x))
        x = self.reduce(x + self.coarse_again(x)).flatten(1)
        described = torch.cat([points - mean_points, mean_points.expand_as(points)], 1)
        hidden = nn.functional.silu(self.first(torch.cat([self.dropout(x), described], 1)))
        hidden = hidden + nn.functional.silu(self.second(self.dropout(hidden)))
        coefficients = self.offsets(hidden)
        hidden = hidden + nn.functional.silu(self.third(self.dropout(hidden)))
        weights, log_sigma = self.units(hidden).chunk(2, 1)
        start, least, largest = _LOG_SIGMA
        return MotionCode(coefficients, weights, torch.exp((start + log_sigma).clamp(least, largest)))

    def point_coefficients(self, points: Tensor) -> Tensor:
        """Principal components (..., P) of points (..., 478, 2) in aligned crops, in standard deviations."""
        return point_components(points, self.points_mean, self.points_basis)

    def amplified(self, weights: Tensor) -> Tensor:
        """Weights (N, U) with the amplitude that true ones have, within [0, 1].

        A network that minimises its error answers with the mean of what is likely, so that its curves vary less than
        the true ones, the less the worse a unit is seen. `amplitude` is the ratio of the standard deviations on people
        that were held out from training.
        """
        return (self.amplitude * (weights - LEAST_WEIGHT)).clamp(0, 1)

    def offsets_in_crop(self, coefficients: Tensor) -> Tensor:
        """Offsets (N, 468, 2) relative to the face's size, in the axes of aligned crops."""
        return (coefficients @ self.error_basis).unflatten(-1, (LANDMARKS, 2))


class CorrectedLandmarks:
    """Landmarks (T, 478, 2) of a track in pixels, `FaceTrack.best_landmarks` with their motion corrected, computed on
    access: `landmarks[frame]`, `landmarks[start:end]`.

    Lips are as tracked: on real faces the tracker's are right to the eye, and correcting them as on rendered ones takes
    the gain of their gap on four clips from 0.83 to 0.72, while curves of rendered people are no better for it. Frames
    that optical flow refined are as it found them.
    """

    def __init__(self, network: MotionNetwork, track: FaceTrack, coefficients: Floats) -> None:
        """coefficients (T, C) of `MotionCode`; 0 in frames without the person."""
        self._basis = FACE_SIZE * network.error_basis.numpy()
        self._track, self._coefficients = track, coefficients
        self._refined = np.zeros(len(track), bool)
        if track.flow_tracked is not None:
            for start in range(0, len(track), _BLOCK):
                rows = slice(start, start + _BLOCK)
                self._refined[rows] = np.asarray(track.flow_tracked[rows]).any(1)

    def __getitem__(self, key: Any) -> F32:
        """Landmarks (478, 2) of a frame or (T, 478, 2) of some."""
        tracked = np.asarray(self._track.landmarks[key])
        best = tracked if self._track.flow_landmarks is None else self._track.flow_landmarks[key]
        return np.asarray(best + self._offsets(key, tracked), np.float32)

    def offsets(self, key: Any) -> F32:
        """Offsets (478, 2) or (T, 478, 2) in pixels from `FaceTrack.best_landmarks`; 0 for lips and irises."""
        return self._offsets(key, np.asarray(self._track.landmarks[key]))

    def _offsets(self, key: Any, tracked_landmarks: F32) -> F32:
        frames = np.arange(len(self._track))[key]
        many = np.atleast_1d(frames)
        landmarks = tracked_landmarks.reshape(len(many), -1, 2)
        result = np.zeros_like(landmarks)
        for frame, tracked, offset in zip(many, landmarks, result, strict=True):
            code = self._coefficients[frame]
            if code.any() and not self._refined[frame] and np.isfinite(tracked).all():
                in_crop = (code.astype(np.float32) @ self._basis).reshape(LANDMARKS, 2)
                offset[:LANDMARKS] = in_crop @ np.linalg.inv(crop_matrix(tracked)[:, :2]).T
                offset[LIPS] = 0
        return result[0] if frames.ndim == 0 else result


@dataclass(frozen=True, eq=False)
class LandmarkMotion:
    """The motion of a person in a clip of T frames: landmarks (T, 478, 2) in pixels, weights (T, E) of the head's
    expression units and their standard deviations (T, E), infinite where nothing is read."""

    landmarks: CorrectedLandmarks
    weights: F32
    sigma: F32


@torch.inference_mode()
def read_motion(
    network: MotionNetwork, track: FaceTrack, unit_names: tuple[str, ...], visibility: Any
) -> LandmarkMotion | None:
    """The corrected motion of a track with pictures; None without pictures.

    unit_names: the head's E expression units. visibility: (T, 478) of the landmarks in [0, 1], read in slices.
    """
    if track.pictures is None:
        return None
    seen = np.flatnonzero(track.seen)
    coefficients = np.zeros((len(track), network.config.error_components), np.float16)
    weights = np.zeros((len(track), len(unit_names)), np.float32)
    sigma = np.full(weights.shape, np.inf, np.float32)
    reader = _Reader(network, track, track.pictures, visibility)
    context = reader.context(seen)
    columns = np.array([unit_names.index(name) for name in network.config.units])
    for start in range(0, len(seen), _BLOCK):
        rows = seen[start : start + _BLOCK]
        code, trust = reader.code(rows, context)
        coefficients[rows] = (code.coefficients * trust[:, None]).numpy()
        weights[np.ix_(rows, columns)] = network.amplified(code.weights).numpy()
        sigma[np.ix_(rows, columns)] = code.sigma.numpy()
    return LandmarkMotion(CorrectedLandmarks(network, track, coefficients), weights, sigma)


class _Reader:
    """Reads pictures and points of frames of a track."""

    def __init__(
        self, network: MotionNetwork, track: FaceTrack, pictures: U8 | StoredArray, visibility: Any
    ) -> None:
        self._network, self._track = network, track
        self._pictures, self._visibility = pictures, visibility

    def read(self, rows: Int) -> tuple[Pictures, Tensor, Tensor]:
        """Pictures and components (N, P) of the points of frames (N,), and the share (N,) of the texels that face the
        camera."""
        layout = picture_layout()
        shown, points, facing = [], [], []
        for frame in rows.tolist():
            texels, at, _ = shown_texels(np.asarray(self._track.landmarks[frame]))
            facing.append(float(texels[layout.inside].mean()))
            seen = np.asarray(self._visibility[frame], np.float32)
            if seen.min() < 1:
                texels = texels * layout.on_texels(seen[:, None])[..., 0].clip(0, 1)
            shown.append(texels)
            points.append(at)
        grey = np.stack([np.asarray(self._pictures[frame]) for frame in rows.tolist()])
        pictures = Pictures.of(torch.from_numpy(grey), torch.from_numpy(np.stack(shown)))
        coefficients = self._network.point_coefficients(torch.from_numpy(np.stack(points)))
        return pictures, coefficients, torch.tensor(facing)

    def context(self, seen: Int) -> tuple[Pictures, Tensor]:
        """Mean pictures and points of some of these frames (N,), of those that show the face if any do."""
        among = seen
        if self._track.visibility is not None:
            showing = seen[self._track.mean_visibility()[seen] >= MIN_VISIBLE_SHARE]
            among = showing if len(showing) else seen
        chosen = np.linspace(0, len(among) - 1, min(len(among), CONTEXT_FRAMES)).round().astype(int)
        pictures, points, _ = self.read(among[np.unique(chosen)])
        return pictures.mean(), points.mean(0)

    def code(self, rows: Int, context: tuple[Pictures, Tensor]) -> tuple[MotionCode, Tensor]:
        """What the network says of frames (N,), and the share (N,) of the corrections of their landmarks that counts,
        by how far the face is turned away."""
        pictures, points, facing = self.read(rows)
        code = self._network(pictures, context[0], points, context[1])
        assert isinstance(code, MotionCode)
        least, full = SHOWN_SHARE
        return code, ((facing - least) / (full - least)).clamp(0, 1)


FORMAT = WeightFormat(
    network="landmark motion network",
    config=MotionConfig,
    tag="avface landmark motion network 1",
    training="avface train motion",
    half_precision=True,
)
"""The weight file of this network."""


def save_motion_network(
    network: MotionNetwork, path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write the weights in half precision with the config and any further metadata; the file appears whole.

    Raises:
        AvfaceError: if it can't be written.
    """
    FORMAT.save(path, network, network.config, metadata)


def load_motion_network(path: str | Path) -> MotionNetwork:
    """Read a network that `save_motion_network` wrote, in evaluation mode and without gradients.

    Raises:
        AvfaceError: if the file is missing, damaged or of another network.
    """
    return FORMAT.read(path).network(MotionNetwork).requires_grad_(False)


pretrained_motion_network = Pretrained("networks", "motion.safetensors", load_motion_network)
"""The weights that come with avface, for MediaPipe's landmarks and the open head's units."""
