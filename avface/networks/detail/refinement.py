"""Detail refinement of a whole clip: occluded skin of a frame has the clip's median displacement.

AVFace has no such handling of occlusion and names it as a limitation (section 5): hands and hair become geometry there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from avface.arrays import F32, F64, U8, Bool, Int
from avface.errors import AvfaceError
from avface.geometry.axes import flip_axes
from avface.geometry.camera import Camera
from avface.head.model import HeadModel
from avface.head.skin.atlas import DetailAtlas, DetailMaps, detail_atlas
from avface.networks.detail.losses import fit_appearance, shaded, valley_occlusion
from avface.networks.detail.network import DetailNetwork, predict_detail, pretrained_detail
from avface.networks.running_pca import RunningPca
from avface.speech.stream import SoundStream

MEDIAN_FRAMES = 32
"""Most frames that the median is taken over, evenly spaced: 6 MB."""
COMPONENTS = 8
"""Most principal components of a clip's detail. Folds depend on few movements of the face; further components are
mostly noise."""
SMOOTHING = 0.05
"""Standard deviation in seconds of the Gaussian that smooths the components' weights."""
EVIDENCE_FRAMES = 8
"""Frames, of those of the median, whose pictures are compared with the shading of the detail."""
EVIDENCE_SIGMA = 5.0
"""Standard deviation of the Gaussian neighbourhood of the gain, in texels of a map of 256."""
PRIOR_SHARE = 0.3
"""Weight of the gain's prior value 1, as a share of the mean evidence."""
MAX_GAIN = 3.0
"""Largest gain. Gains above 1 are needed, because the network regresses towards the mean of its training data and
underestimates most folds."""
_BLOCK = 16


class MedianDetail:
    """The median displacement of a clip, accumulated frame by frame in bounded memory (`MEDIAN_FRAMES`)."""

    def __init__(self, atlas: DetailAtlas) -> None:
        self.atlas = atlas
        self._stride, self._count = 1, 0
        self._kept: list[tuple[Tensor, Tensor]] = []

    def add(self, displacement: Tensor, visibility: Tensor) -> None:
        """Add a frame: displacement (R, R) metres, visibility (R, R) from 0 (turned away or occluded) to 1.

        Raises:
            ValueError: if the size of the maps isn't the atlas's.
        """
        if not displacement.shape == visibility.shape == self.atlas.mask.shape:
            raise ValueError(
                f"maps {tuple(displacement.shape)} and {tuple(visibility.shape)} must be {tuple(self.atlas.mask.shape)}"
            )
        if self._count % self._stride == 0:
            if len(self._kept) == MEDIAN_FRAMES:
                self._kept = self._kept[::2]
                self._stride *= 2
            if self._count % self._stride == 0:
                self._kept.append(((1e6 * displacement).to(torch.int16), (255 * visibility).byte()))
        self._count += 1

    def median(self) -> Tensor:
        """Displacement (R, R) in metres: each texel's median over the frames, weighted by visibility.

        Texels that are never visible have the value of the other side of the face, or 0 if that isn't visible either.

        Raises:
            AvfaceError: if no frame was added.
        """
        if not self._kept:
            raise AvfaceError("no frame was added to take the median displacement of")
        values, weights = (torch.stack(parts).float() for parts in zip(*self._kept, strict=True))
        order = values.argsort(0)
        values, weights = values.gather(0, order), weights.gather(0, order)
        cumulative = weights.cumsum(0)
        middle = (cumulative < cumulative[-1] / 2).sum(0, keepdim=True).clamp_max(len(values) - 1)
        median = 1e-6 * values.gather(0, middle)[0]
        known = (cumulative[-1] > 0).float()
        mirrored, mirrored_known = self.atlas.flipped(torch.stack([median * known, known]))
        guess = torch.where(mirrored_known > 0.5, mirrored / mirrored_known.clamp_min(0.5), 0.0)
        return torch.where(known > 0, median, guess) * (self.atlas.mask > 0)

    @staticmethod
    def completed(displacement: Tensor, visibility: Tensor, median: Tensor) -> Tensor:
        """The displacement (..., R, R) of a frame blended with the median (R, R) by visibility (..., R, R)."""
        return median + visibility * (displacement - median)


class ShadingEvidence:
    """Local gain of the predicted displacement by the evidence of shading.

    At each texel it is the gain, within [0, `MAX_GAIN`], whose change of shading fits the pictures best, by least
    squares over a neighbourhood and the frames with a prior value of 1. The change of shading is taken with and without
    the shadow in valleys, whose depth is unknown; both count.
    """

    def __init__(self, atlas: DetailAtlas) -> None:
        self.atlas = atlas
        self._covariance = torch.zeros_like(atlas.mask)
        self._variance = torch.zeros_like(atlas.mask)

    def add(self, maps: DetailMaps, points: Tensor, displacement: Tensor) -> None:
        """Add a frame: its maps, the coarse vertices (V, 3) in camera axes, displacement (R, R) metres."""
        visible = ((maps.visibility > 0.5) & (self.atlas.mask > 0.5)).float()[None]
        if not bool(visible.any()):
            return
        image, coarse = maps.image[None], maps.normals[None]
        albedo, light = fit_appearance(coarse, image, visible)
        detailed = flip_axes(self.atlas.normals(points, displacement)).movedim(-1, 0)[None]
        plain = shaded(coarse, albedo, light)
        lit = shaded(detailed, albedo, light)
        valleys = valley_occlusion(displacement, self.atlas.side)
        for change in (lit - plain, lit * valleys - plain):
            self._covariance += ((image - plain) * change).sum(1)[0] * visible[0]
            self._variance += change.square().sum(1)[0] * visible[0]

    def gain(self) -> Tensor:
        """The gain (R, R)."""
        count = (self._variance > 0).sum().clamp_min(1)
        prior = PRIOR_SHARE * float(self._variance.sum() / count) + 1e-12
        sigma = EVIDENCE_SIGMA * self.atlas.resolution / 256
        covariance, variance = (
            torch.as_tensor(gaussian_filter(part.numpy(), sigma))
            for part in (self._covariance, self._variance)
        )
        return ((covariance + prior) / (variance + prior)).clamp(0, MAX_GAIN)


@dataclass(frozen=True, eq=False)
class ClipDetail:
    """Displacement over T frames, static + weights @ basis: static (R, R) and basis (K, R, R) metres along the coarse
    normals, weights (T, K). K is 0 if the displacement is constant."""

    static: F32
    basis: F32
    weights: F32


@dataclass(frozen=True, eq=False)
class ClipView:
    """The input of detail refinement: a clip of T frames."""

    frames: Callable[[], Iterable[U8]]
    """Gives all pictures (H, W, 3) RGB, from the first on at each call."""
    vertices: Callable[[Int], F32]
    """Gives the coarse surface (B, V, 3) of some frames, in camera axes."""
    camera: Camera
    times: F64
    """(T,) seconds."""
    shots: Int
    """(T,) number of each frame's shot."""
    chosen: Bool
    """(T,) frames with the person."""
    sound: Callable[[], Iterable[F32]] | None = None
    """Gives blocks of samples at 16 kHz, sample 0 at time 0; None for no sound."""
    visibility: Callable[[int], F32] | None = None
    """Gives for a frame the probability (478,) that each landmark is visible; None if it wasn't estimated."""


@dataclass(frozen=True, eq=False)
class DetailRefinement:
    """A detail network and the atlas of the head that it was trained for."""

    network: DetailNetwork
    atlas: DetailAtlas

    @classmethod
    def of(cls, network: DetailNetwork, head: HeadModel) -> DetailRefinement:
        """Combine a network with its head.

        Raises:
            AvfaceError: if the network was trained for another head.
        """
        if network.config.head != head.name:
            raise AvfaceError(
                f"detail network for the head {network.config.head}, not {head.name}; use that head"
            )
        return cls(network, detail_atlas(head, network.config.resolution))

    def refine(
        self, view: ClipView, on_frames: Callable[[int], None] = lambda more: None
    ) -> ClipDetail | None:
        """The detail of a clip; None if no frame shows the person.

        There are two passes over the clip. The first takes the median displacement and the gain (`ShadingEvidence`)
        from `MEDIAN_FRAMES` frames. The second takes the deviation of each frame from the median where the skin is
        visible, as principal components, whose weights are smoothed in time. Occluded skin has the median. Memory
        depends on `MEDIAN_FRAMES` and `COMPONENTS`, apart from a few weights a frame.
        on_frames is called with the number of further frames done.
        """
        rows = np.flatnonzero(view.chosen)
        if not len(rows):
            return None
        medians, evidence = MedianDetail(self.atlas), ShadingEvidence(self.atlas)
        some = np.unique(rows[np.linspace(0, len(rows) - 1, MEDIAN_FRAMES).round().astype(int)])
        compared = set(some[:: max(1, len(some) // EVIDENCE_FRAMES)].tolist())
        for numbers, displacement, maps in self._predictions(view, some):
            for row, number in enumerate(numbers.tolist()):
                medians.add(displacement[row], maps.visibility[row])
                if number in compared:
                    points = torch.as_tensor(view.vertices(numbers[row : row + 1])[0])
                    evidence.add(maps.of(row), points, displacement[row])
        gain = evidence.gain()
        median = gain * medians.median()
        inside = self.atlas.mask > 0
        pca = RunningPca(int(inside.sum()), COMPONENTS)
        done = 0
        for numbers, displacement, maps in self._predictions(view, rows):
            change = maps.visibility * (gain * displacement - median)
            block = np.zeros((int(numbers[-1]) + 1 - done, int(inside.sum())))
            block[numbers - done] = change[:, inside].double().numpy()
            pca.add(block)
            done += len(block)
            on_frames(len(block))
        if done < len(view.times):
            pca.add(np.zeros((len(view.times) - done, int(inside.sum()))))
            on_frames(len(view.times) - done)
        components, weights = pca.finish()
        basis = np.zeros((len(components), *inside.shape), np.float32)
        basis[:, inside.numpy()] = components
        weights = smooth_weights(weights, view.times, view.shots, view.chosen)
        return ClipDetail(median.numpy().astype(np.float32), basis, weights.astype(np.float32))

    def _predictions(self, view: ClipView, rows: Int) -> Iterator[tuple[Int, Tensor, DetailMaps]]:
        """Numbers (B,), displacement (B, R, R) and maps of the frames in `rows`, block by block."""
        stream = None if view.sound is None or not self.network.config.audio else SoundStream(view.sound())
        wanted = set(rows.tolist())
        pictures: list[U8] = []
        numbers: list[int] = []
        last = int(rows[-1])
        for number, picture in enumerate(view.frames()):
            if number in wanted:
                pictures.append(picture)
                numbers.append(number)
            if pictures and (len(pictures) == _BLOCK or number >= last):
                yield self._block(view, np.array(numbers), pictures, stream)
                pictures, numbers = [], []
            if number >= last:
                return
        if pictures:
            yield self._block(view, np.array(numbers), pictures, stream)

    def _block(
        self,
        view: ClipView,
        numbers: Int,
        pictures: list[U8],
        stream: SoundStream | None,
    ) -> tuple[Int, Tensor, DetailMaps]:
        maps = []
        points = torch.as_tensor(view.vertices(numbers))
        for number, picture, vertices in zip(numbers.tolist(), pictures, points, strict=True):
            frame_maps = self.atlas.maps(picture, vertices, view.camera)
            if view.visibility is not None:
                occluded = torch.as_tensor(view.visibility(number))[self.atlas.nearest_landmark] < 0.5
                frame_maps = frame_maps.without(occluded)
            maps.append(frame_maps)
        joined = DetailMaps.stack(maps)
        speech = None
        if stream is not None:
            _, features = stream.features(view.times[numbers], "moonshine", "cpu")
            speech = None if features is None else torch.from_numpy(features.values)
        return numbers, predict_detail(self.network, joined, speech), joined


def smooth_weights(
    weights: F64,
    times: F64,
    shots: Int,
    chosen: Bool,
) -> F64:
    """Weights (T, K) smoothed by a Gaussian of `SMOOTHING` seconds within each shot, among the chosen frames (T,).

    Other frames are unchanged. times (T,) ascending seconds, shots (T,).
    """
    total, share = weights * chosen[:, None], chosen.astype(np.float64)
    for step in range(1, len(times)):
        away = times[step:] - times[:-step]
        near = (away < 3 * SMOOTHING) & (shots[step:] == shots[:-step]) & chosen[step:] & chosen[:-step]
        if not (away < 3 * SMOOTHING).any():
            break
        part = np.exp(-0.5 * (away / SMOOTHING) ** 2) * near
        total[step:] += part[:, None] * weights[:-step]
        total[:-step] += part[:, None] * weights[step:]
        share[step:] += part
        share[:-step] += part
    return np.where(chosen[:, None], total / np.maximum(share, 1e-9)[:, None], weights)


def pretrained_detail_refinement(head: HeadModel, device: str) -> DetailRefinement | None:
    """The refinement with the pretrained network; None if there is none for this head.

    Raises:
        AvfaceError: if the weights are damaged.
    """
    network = pretrained_detail.of_head(head.name, device)
    return None if network is None else DetailRefinement.of(network, head)
