"""How far a tracker's landmarks are off what they should lie on, by the picture.

A tracker's points follow its idea of a face and make people alike. Here a face is sampled through the tracked points
into a layout in which every texel is the same skin, a little beyond the outline: what was drawn off its nominal place
shows as a shift. A small network, which has learned on made people whose landmarks are known
(`avface.training.landmarks.train`), says by how much, in principal components of the tracker's errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from avface.arrays import F32, F64, U8, Bool, Floats, Int
from avface.errors import AvfaceError
from avface.files.weight_file import Pretrained, WeightFile, WeightFormat
from avface.tracking.aligned_crops import FACE, in_view, view_matrix

LANDMARKS = 468
"""Landmarks of the skin, the first ones of the scheme: irises slide over it."""


_GLANCING = (0.1, 0.35)
"""Size of a texel in the picture, over that of the larger ones, up to which it is not seen (turned away, or folded
over), and from which it is fully seen."""
_DARK = 8.0
"""Added to brightness before the logarithm."""
_FLAT = 0.02
"""Contrast (of logarithms) below which there is nothing but noise."""
SECOND = 0.5
"""By how much a second look counts, from where the first one ends: on made people the best between none and 1."""
_NEAR, _AROUND = 5.0, 8.0
"""Texels over which the local level and the local contrast are taken."""


@dataclass(frozen=True)
class LandmarkConfig:
    """Sizes of the network. Saved with the weights."""

    side: int = 96
    """Texels across and down the layout."""
    channels: tuple[int, int, int] = (20, 36, 64)
    """Of the three stages of convolutions, each of half the last one's resolution."""
    reduced: int = 24
    """Channels that the last stage is reduced to."""
    hidden: int = 192
    """Width of the fully connected layers."""
    described: int = 32
    """Principal components of the tracked points that it is told."""
    components: int = 80
    """Principal components of the errors that it says."""
    dropout: float = 0.15
    """Of the fully connected layers' inputs, while it learns."""

    def __post_init__(self) -> None:
        if self.side < 8 or self.side % 8:
            raise AvfaceError(f"side={self.side} must be a multiple of 8, at least 8")
        for name in ("reduced", "hidden", "described", "components"):
            if getattr(self, name) < 1:
                raise AvfaceError(f"{name}={getattr(self, name)} must be above 0")
        if len(self.channels) != 3 or min(self.channels) < 1:
            raise AvfaceError(f"channels={self.channels} must be three numbers above 0")
        if not 0 <= self.dropout < 1:
            raise AvfaceError(f"dropout={self.dropout} must be at least 0 and below 1")


@dataclass(frozen=True, eq=False)
class Layout:
    """Where texels lie between the landmarks.

    inside (side, side) texels that there are; corners (N, 3) numbers of the points they lie between and weights (N, 3)
    of these; ring (P, 2) numbers of landmarks: behind the 468 come P points beyond the outline, each as far from the
    first of the two, away from the second, as `reach` of their distance.
    """

    inside: Bool
    corners: Int
    weights: F32
    ring: Int
    reach: float

    @classmethod
    def of(cls, points: F64, side: int, reach: float = 0.2, axis: float = 0.25) -> Layout:
        """For points (478, 3) of a face at rest, metres, unrolled about an axis that far behind them."""
        from scipy.spatial import ConvexHull, Delaunay

        x, y, z = points[:LANDMARKS].T
        depth = z - z.min() + axis
        plane = np.stack([np.arctan2(x, depth) * depth.max(), -y], 1)
        outline = ConvexHull(plane).vertices
        middle = int(np.linalg.norm(plane - plane.mean(0), axis=1).argmin())
        ring = np.stack([outline, np.full(len(outline), middle)], 1)
        plane = np.concatenate([plane, plane[outline] + reach * (plane[outline] - plane[middle])])
        low, high = plane.min(0), plane.max(0)
        place = (plane - (low + high) / 2) / (high - low).max() * (side - 1) + (side - 1) / 2
        triangles = Delaunay(place)
        texels = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2).astype(float)
        found = triangles.find_simplex(texels)
        change = triangles.transform[found[found >= 0]]
        two = np.einsum("nij,nj->ni", change[:, :2], texels[found >= 0] - change[:, 2])
        weights = np.concatenate([two, 1 - two.sum(1, keepdims=True)], 1)
        inside = (found >= 0).reshape(side, side)
        corners = triangles.simplices[found[found >= 0]].astype(np.int64)
        return cls(inside, corners, weights.astype(np.float32), ring.astype(np.int64), reach)

    def on_texels(self, values: F32) -> F32:
        """Values (478, C) of landmarks at the texels, (side, side, C); 0 beyond them."""
        values = np.asarray(values[:LANDMARKS], np.float32)
        beyond = (1 + self.reach) * values[self.ring[:, 0]] - self.reach * values[self.ring[:, 1]]
        spread = np.zeros((*self.inside.shape, values.shape[1]), np.float32)
        spread[self.inside] = np.einsum(
            "nkc,nk->nc", np.concatenate([values, beyond])[self.corners], self.weights
        )
        return spread

    def look(self, view: U8, points: F32, seen: F32 | None = None) -> F32:
        """What the network sees of a face, (3, side, side): local contrast, brightness, and how well texels are seen.

        view (S, S) uint8 grey, points (478, 2) in it, seen (478,) how surely each landmark is seen; surely if None.
        """
        inside = self.inside.astype(np.float32)
        place = self.on_texels(points)
        value = cv2.remap(
            view, place[..., 0], place[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        across, down = np.gradient(place, axis=1), np.gradient(place, axis=0)
        size = across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0]
        usual = max(float(np.percentile(size[self.inside], 75)), 1e-6)
        shown = ((size / usual - _GLANCING[0]) / (_GLANCING[1] - _GLANCING[0])).clip(0, 1) * inside
        if seen is not None:
            shown = shown * self.on_texels(np.asarray(seen, np.float32)[:, None])[..., 0].clip(0, 1)
        brightness = np.log(value.astype(np.float32) + _DARK)
        weight = np.maximum(shown, 0.05) * inside
        away = brightness - _mean_around(brightness, weight, _NEAR)
        contrast = np.sqrt(_mean_around(away * away, weight, _AROUND) + _FLAT**2)
        away_from_all = brightness - (brightness * weight).sum() / weight.sum()
        contrast_of_all = np.sqrt((away_from_all**2 * weight).sum() / weight.sum() + _FLAT**2)
        return np.stack(
            [
                (away / contrast).clip(-3, 3) * inside,
                0.5 * (away_from_all / contrast_of_all).clip(-3, 3) * inside,
                shown,
            ]
        ).astype(np.float32)


def _mean_around(values: F32, weight: F32, reach: float) -> F32:
    """Weighted mean under a Gaussian of a reach in texels."""

    def blurred(image: F32) -> F32:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), reach, borderType=cv2.BORDER_CONSTANT))

    return np.asarray(blurred(values * weight) / (blurred(weight) + 1e-3))


class LandmarkNetwork(nn.Module):
    """From what `Layout.look` gives, and a description of the points, to how far these are off.

    Lengths are shares of the face's size, in a view's axes.
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
        self.fine = _convolution(3, one, 5, 2)
        self.middle = _convolution(one, two, 3, 2)
        self.middle_again = nn.Sequential(_convolution(two, two), _convolution(two, two))
        self.coarse = _convolution(two, three, 3, 2)
        self.coarse_again = nn.Sequential(_convolution(three, three), _convolution(three, three))
        self.reduce = _convolution(three, config.reduced, 1)
        width = config.reduced * (config.side // 8) ** 2 + config.described
        self.first = nn.Linear(width, config.hidden)
        self.second = nn.Linear(config.hidden, config.hidden)
        self.last = nn.Linear(config.hidden, config.components)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        for name, value in (
            ("error_mean", torch.zeros(flat)),
            ("error_basis", torch.zeros(config.components, flat)),
            ("points_mean", torch.zeros(flat)),
            ("points_basis", torch.zeros(config.described, flat)),
            ("inside", torch.from_numpy(layout.inside)),
            ("corners", torch.from_numpy(layout.corners).to(torch.int16)),
            ("weights", torch.from_numpy(layout.weights)),
            ("ring", torch.from_numpy(layout.ring).to(torch.int16)),
        ):
            self.register_buffer(name, value)

    def forward(self, looks: Tensor, description: Tensor) -> Tensor:
        """Offsets (B, 468, 2) from the points to where they should be.

        Shapes: looks (B, 3, side, side), description (B, D), see `describe`.
        """
        x = self.middle(self.fine(looks))
        x = self.coarse(x + self.middle_again(x))
        x = self.reduce(x + self.coarse_again(x)).flatten(1)
        hidden = nn.functional.silu(self.first(torch.cat([self.dropout(x), description], 1)))
        hidden = hidden + nn.functional.silu(self.second(self.dropout(hidden)))
        said = self.last(hidden).float() @ self.error_basis + self.error_mean
        return said.unflatten(1, (LANDMARKS, 2))

    def describe(self, points: Tensor) -> Tensor:
        """Points (B, 478, 2) in a view by their principal components, in standard deviations, (B, D)."""
        points = points[:, :LANDMARKS]
        placed = (points - points.mean(1, keepdim=True)).flatten(1) / FACE
        return ((placed - self.points_mean) @ self.points_basis.T).clamp(-4, 4)

    @torch.inference_mode()
    def refine(self, pictures: U8, landmarks: Floats, seen: F32 | None = None) -> F32:
        """How far landmarks are off, (K, 478, 2) in the pixels of their pictures; 0 for the irises.

        Shapes: pictures (K, S, S) uint8, views (`avface.tracking.aligned_crops`) of landmarks (K, 478, 2) in pixels;
        seen (K, 478) how surely each of them is seen, all are if None.
        """
        offsets = np.zeros((len(pictures), landmarks.shape[1], 2), np.float32)
        if not len(pictures):
            return offsets
        matrices = [view_matrix(each) for each in landmarks]
        points = np.stack([in_view(*each) for each in zip(matrices, landmarks, strict=True)])
        said = self._say(pictures, points, seen)
        moved = points.copy()
        moved[:, :LANDMARKS] += said
        said = said + SECOND * self._say(pictures, moved, seen)
        for offset, away, matrix in zip(offsets, said, matrices, strict=True):
            offset[:LANDMARKS] = away @ np.linalg.inv(matrix[:, :2]).T
        return offsets

    def _say(self, pictures: U8, points: F32, seen: F32 | None) -> F32:
        """How far points (K, 478, 2) are off in their views, (K, 468, 2) pixels of these."""
        looks = np.stack(
            [
                self.layout.look(picture, each, None if seen is None else seen[number])
                for number, (picture, each) in enumerate(zip(pictures, points, strict=True))
            ]
        )
        said = self(torch.from_numpy(looks), self.describe(torch.from_numpy(points)))
        return np.asarray(FACE * said.numpy(), np.float32)


def _convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.SiLU())


FORMAT = WeightFormat(
    network="landmark network",
    config=LandmarkConfig,
    tag="avface landmark network 1",
    training="python -m avface.training.landmarks.train",
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
        raise ValueError("its layout doesn't fit its size")
    if not 0 <= layout.corners.min() <= layout.corners.max() < LANDMARKS + len(layout.ring):
        raise ValueError("its layout has points that there aren't")
    if not 0 <= layout.ring.min() <= layout.ring.max() < LANDMARKS:
        raise ValueError("its layout has landmarks that there aren't")
    return layout


pretrained_landmark_network = Pretrained("networks", "landmarks.safetensors", load_landmark_network)
"""The weights that come with avface, for MediaPipe's landmarks."""
