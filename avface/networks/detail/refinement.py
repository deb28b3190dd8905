"""The detail of a whole clip: what isn't seen in a frame is as it usually is in the clip.

AVFace has none of this and names the lack as its limit (section 5): there, hands and hair become geometry.
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
from avface.networks.detail.losses import fit_appearance, shaded, valley_light
from avface.networks.detail.network import DetailNetwork, predict_detail, pretrained_detail
from avface.networks.running_pca import RunningPca
from avface.speech.stream import SoundStream

MOST = 32
"""Frames that are remembered, evenly over those that were shown: 6 MB."""
COMPONENTS = 8
"""Ways in which the detail of a clip changes, at most. Folds come and go with few movements of the face: more ways hold
noise rather than skin."""
SMOOTHING = 0.05
"""Seconds, standard deviation, over which these ways are averaged in time."""
EVIDENCE_FRAMES = 8
"""Frames of those remembered whose pictures must bear the detail out."""
EVIDENCE_AROUND = 5.0
"""Texels of 256, standard deviation, over which they do so together."""
DOUBT = 0.3
"""What counts as little that the pictures say: this part of the average."""
DEEPEST = 3.0
"""Factor by which what the network says is deepened at most where the pictures want it: it is right on average about
made people, so that it says less than there is about most folds."""
_BLOCK = 16


class MedianDetail:
    """The median displacement of a clip, from frames that are shown one by one, in memory that doesn't grow."""

    def __init__(self, atlas: DetailAtlas) -> None:
        self.atlas = atlas
        self._every, self._count = 1, 0
        self._kept: list[tuple[Tensor, Tensor]] = []

    def show(self, displacement: Tensor, visibility: Tensor) -> None:
        """Take in a frame: displacement (R, R) metres, visibility (R, R) from 0 to 1, 0 where something is before it.

        Raises:
            ValueError: if the maps haven't the window's size.
        """
        if not displacement.shape == visibility.shape == self.atlas.mask.shape:
            raise ValueError(
                f"maps {tuple(displacement.shape)} and {tuple(visibility.shape)} must be {tuple(self.atlas.mask.shape)}"
            )
        if self._count % self._every == 0:
            if len(self._kept) == MOST:
                self._kept = self._kept[::2]
                self._every *= 2
            if self._count % self._every == 0:
                self._kept.append(((1e6 * displacement).to(torch.int16), (255 * visibility).byte()))
        self._count += 1

    def median(self) -> Tensor:
        """The usual displacement (R, R) in metres: each texel's median over the frames by how well they show it.

        What is never seen is as on the other side of the face, and 0 if that isn't seen either.

        Raises:
            AvfaceError: if no frame was shown.
        """
        if not self._kept:
            raise AvfaceError("no frame was shown whose detail could be usual")
        values, weights = (torch.stack(parts).float() for parts in zip(*self._kept, strict=True))
        order = values.argsort(0)
        values, weights = values.gather(0, order), weights.gather(0, order)
        share = weights.cumsum(0)
        middle = (share < share[-1] / 2).sum(0, keepdim=True).clamp_max(len(values) - 1)
        usual = 1e-6 * values.gather(0, middle)[0]
        known = (share[-1] > 0).float()
        other, there = self.atlas.flipped(torch.stack([usual * known, known]))
        guess = torch.where(there > 0.5, other / there.clamp_min(0.5), 0.0)
        return torch.where(known > 0, usual, guess) * (self.atlas.mask > 0)

    @staticmethod
    def completed(displacement: Tensor, visibility: Tensor, median: Tensor) -> Tensor:
        """A frame's displacement (..., R, R) as far as it is seen, the median (R, R) where it isn't."""
        return median + visibility * (displacement - median)


class ShadingEvidence:
    """Where the pictures of a clip bear out what the network says of it.

    At each place of the face the factor of the displacement, between 0 and `DEEPEST`, with which its shading comes
    closest to the pictures, by least squares over the neighbourhood and the frames; where they say little, near 1.
    Shading counts twice, by the slopes alone and with the shadow in valleys: how deep that is, nobody knows.
    """

    def __init__(self, atlas: DetailAtlas) -> None:
        self.atlas = atlas
        self._agreed = torch.zeros_like(atlas.mask)
        self._claimed = torch.zeros_like(atlas.mask)

    def show(self, maps: DetailMaps, points: Tensor, displacement: Tensor) -> None:
        """Take in a frame: its maps, the coarse vertices (V, 3) in camera axes, displacement (R, R) metres."""
        seen = ((maps.visibility > 0.5) & (self.atlas.mask > 0.5)).float()[None]
        if not bool(seen.any()):
            return
        image, coarse = maps.image[None], maps.normals[None]
        albedo, light = fit_appearance(coarse, image, seen)
        detailed = flip_axes(self.atlas.normals(points, displacement)).movedim(-1, 0)[None]
        plain = shaded(coarse, albedo, light)
        lit = shaded(detailed, albedo, light)
        valleys = valley_light(displacement, self.atlas.side)
        for change in (lit - plain, lit * valleys - plain):
            self._agreed += ((image - plain) * change).sum(1)[0] * seen[0]
            self._claimed += change.square().sum(1)[0] * seen[0]

    def trust(self) -> Tensor:
        """The factor (R, R)."""
        claims = self._claimed > 0
        doubt = DOUBT * float(self._claimed.sum() / claims.sum().clamp_min(1)) + 1e-12
        around = EVIDENCE_AROUND * self.atlas.resolution / 256
        agreed, claimed = (
            torch.as_tensor(gaussian_filter(part.numpy(), around)) for part in (self._agreed, self._claimed)
        )
        return ((agreed + doubt) / (claimed + doubt)).clamp(0, DEEPEST)


@dataclass(frozen=True, eq=False)
class ClipDetail:
    """Displacement over T frames, static + weights @ basis: static (R, R) and basis (K, R, R) metres along the coarse
    normals, weights (T, K). K is 0 where the skin doesn't change."""

    static: F32
    basis: F32
    weights: F32


@dataclass(frozen=True, eq=False)
class ClipView:
    """A clip as the fine stage looks at it, T frames.

    frames gives all pictures (H, W, 3) RGB from the first on, each time it is called; vertices the coarse surface
    (B, V, 3) in camera axes of some rows; sound the blocks of samples at 16 kHz, sample 0 at time 0, or None. times
    (T,) seconds; shots (T,) the number of the shot each frame is in; chosen (T,) the frames with the person;
    visibility gives for a frame the probability that each landmark is seen, (478,); None where it was not estimated.
    """

    frames: Callable[[], Iterable[U8]]
    vertices: Callable[[Int], F32]
    camera: Camera
    times: F64
    shots: Int
    chosen: Bool
    sound: Callable[[], Iterable[F32]] | None = None
    visibility: Callable[[int], F32] | None = None


@dataclass(frozen=True, eq=False)
class DetailRefinement:
    """A detail network with the head that it is about."""

    network: DetailNetwork
    atlas: DetailAtlas

    @classmethod
    def of(cls, network: DetailNetwork, head: HeadModel) -> DetailRefinement:
        """Bring a network and a head together.

        Raises:
            AvfaceError: if the network is about another head.
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

        The clip is gone through twice. `MOST` of its frames say how the skin usually is, texel by texel, from those
        that show it, and how far the pictures bear it out (`ShadingEvidence`). Then every frame says how it differs from
        that, where it is seen; the differences are kept as principal components, whose weights are averaged over
        a few frames. What no frame shows, or something hides, is as usual. Memory depends on `MOST` and
        `COMPONENTS`, apart from a few weights a frame.
        on_frames is told how many more frames are done.
        """
        rows = np.flatnonzero(view.chosen)
        if not len(rows):
            return None
        usual, evidence = MedianDetail(self.atlas), ShadingEvidence(self.atlas)
        some = np.unique(rows[np.linspace(0, len(rows) - 1, MOST).round().astype(int)])
        judged = set(some[:: max(1, len(some) // EVIDENCE_FRAMES)].tolist())
        for numbers, displacement, maps in self._seen(view, some):
            for row, number in enumerate(numbers.tolist()):
                usual.show(displacement[row], maps.visibility[row])
                if number in judged:
                    points = torch.as_tensor(view.vertices(numbers[row : row + 1])[0])
                    evidence.show(maps.of(row), points, displacement[row])
        trust = evidence.trust()
        median = trust * usual.median()
        inside = self.atlas.mask > 0
        found = RunningPca(int(inside.sum()), COMPONENTS)
        done = 0
        for numbers, displacement, maps in self._seen(view, rows):
            change = maps.visibility * (trust * displacement - median)
            block = np.zeros((int(numbers[-1]) + 1 - done, int(inside.sum())))
            block[numbers - done] = change[:, inside].double().numpy()
            found.add(block)
            done += len(block)
            on_frames(len(block))
        if done < len(view.times):
            found.add(np.zeros((len(view.times) - done, int(inside.sum()))))
            on_frames(len(view.times) - done)
        ways, weights = found.finish()
        basis = np.zeros((len(ways), *inside.shape), np.float32)
        basis[:, inside.numpy()] = ways
        weights = smoothed(weights, view.times, view.shots, view.chosen)
        return ClipDetail(median.numpy().astype(np.float32), basis, weights.astype(np.float32))

    def _seen(self, view: ClipView, rows: Int) -> Iterator[tuple[Int, Tensor, DetailMaps]]:
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
            seen = self.atlas.maps(picture, vertices, view.camera)
            if view.visibility is not None:
                covered = torch.as_tensor(view.visibility(number))[self.atlas.nearest_landmark] < 0.5
                seen = seen.without(covered)
            maps.append(seen)
        joined = DetailMaps.stack(maps)
        speech = None
        if stream is not None:
            _, heard = stream.features(view.times[numbers], "deepspeech", "cpu")
            speech = None if heard is None else torch.from_numpy(heard.values)
        return numbers, predict_detail(self.network, joined, speech), joined


def smoothed(
    weights: F64,
    times: F64,
    shots: Int,
    chosen: Bool,
) -> F64:
    """Weights (T, K) averaged over `SMOOTHING` seconds (a Gaussian) within a shot, among the chosen frames (T,).

    Others keep theirs. times (T,) ascending seconds, shots (T,).
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
    """The refinement with the weights that come with avface; None where none do, or they are about another head.

    Raises:
        AvfaceError: if the weights are damaged.
    """
    if not pretrained_detail.path.exists():
        return None
    network = pretrained_detail(device)
    return DetailRefinement.of(network, head) if network.config.head == head.name else None
