"""Accuracy of the detail stage: folds of the skin, on held-out synthetic people.

python -m avface.evaluation.studies.detail detail.safetensors --cache detail-frames
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor
from torch.nn.functional import avg_pool2d

from avface.arrays import F64, U8
from avface.errors import AvfaceError
from avface.evaluation.tables import aligned
from avface.geometry.axes import flip_axes
from avface.geometry.camera import Camera
from avface.geometry.mesh import vertex_normals
from avface.geometry.rasteriser import rasterise
from avface.geometry.shading import sample_texture
from avface.head.asset import load_head
from avface.head.skin.atlas import DetailAtlas, DetailMaps, detail_atlas, unit
from avface.networks.detail.losses import detail_texture, from_tangent_space, photometric_loss
from avface.networks.detail.network import DetailNetwork, load_detail, predict_detail
from avface.networks.detail.refinement import MedianDetail
from avface.training.detail.frames import DetailFrames
from avface.training.detail.train import DetailRecipe, DetailTraining, held_out, read_frames

FOLDED = 5.0
"""Tilt in degrees of the true normal from which skin counts as folded."""
FINEST = 5
"""Width in texels of 256 of the low-pass filter, for figures of the larger folds only."""
_LIGHTS = np.array([[0.75, 0.55, 0.15], [0.35, 0.25, 0.75], [-0.6, 0.4, 0.45]], np.float32)


@dataclass(frozen=True)
class DetailFigures:
    """Means over frames; `rows` has the figures of `COLUMNS` in order by the network's input."""

    COLUMNS = (
        "normals",
        "folds",
        "where folded",
        "correlation",
        "of folds",
        "occluded",
        "false relief",
    )

    frames: int
    people: int
    occluded: int
    rows: dict[str, tuple[float, ...]]
    light: tuple[float, float]
    """Photometric error with coarse and with detailed normals."""

    def table(self) -> str:
        """The figures as text."""
        lines = [["detail", *self.COLUMNS]]
        for name, values in self.rows.items():
            lines.append([name, *("-" if value != value else f"{value:.3f}" for value in values)])
        return (
            f"{aligned(lines)}\n"
            "normals: error in degrees over visible skin; folds: the same after a low-pass filter of "
            f"{FINEST} texels; where folded: the same on skin tilted over {FOLDED:g} degrees; correlation of "
            "displacement with the truth, of folds: after the filter; occluded: degrees of folds under occluders; "
            "false relief: mm of displacement there\n"
            f"{self.frames} frames of {self.people} people, {self.occluded} with an occluder\n"
            f"photometric error: {self.light[0]:.5f} coarse, {self.light[1]:.5f} detailed"
        )


@torch.no_grad()
def detail_figures(network: DetailNetwork, frames: DetailFrames) -> DetailFigures:
    """Figures of a network on frames.

    "coarse": no displacement. "detailed": the network's prediction. "without audio", "other audio": with zeroed
    features, or those of another person. "occlusion mask unknown": without the occlusion mask as input. "completed":
    occluded or barely visible skin has the median detail of the person's other frames.

    Raises:
        AvfaceError: if there are no frames.
    """
    if not len(frames):
        raise AvfaceError(
            "no frames to evaluate on: of every ten people one is held out; synthesise more people"
        )
    atlas = detail_atlas(load_head(network.config.head), network.config.resolution)
    mask = atlas.mask > 0.5
    found: dict[str, list[list[float]]] = {}
    light: list[tuple[float, float]] = []
    occluded = 0
    numbers = frames.person.tolist()
    medians = _medians(network, frames, atlas)
    for row in range(len(frames)):
        maps, hidden, true, speech = frame_maps(frames, row)
        other = next((k for k in range(len(frames)) if numbers[k] != numbers[row]), row)
        masked = maps.without(hidden)
        seen = mask & (masked.visibility > 0.5)
        covered = mask & hidden
        is_occluded = int(covered.sum()) > 0.01 * int(mask.sum())
        occluded += is_occluded
        detailed = predict_detail(network, masked, speech)
        predictions = {
            "coarse": torch.zeros_like(true),
            "detailed": detailed,
            "completed": MedianDetail.completed(detailed, masked.visibility, medians[numbers[row]]),
            "without audio": predict_detail(network, masked, torch.zeros_like(speech)),
            "other audio": predict_detail(network, masked, frames.speech[other].float()),
            "occlusion mask unknown": predict_detail(network, maps, speech),
        }
        for name, displacement in predictions.items():
            values = _compared(atlas, displacement, true, seen, covered if is_occluded else None)
            found.setdefault(name, []).append(values)
        light.append(_light(atlas, masked, predictions["detailed"], seen))
    return DetailFigures(
        len(frames),
        len(set(numbers)),
        occluded,
        {name: _known_means(np.array(values)) for name, values in found.items()},
        (float(np.mean([one for one, _ in light])), float(np.mean([other for _, other in light]))),
    )


def _medians(network: DetailNetwork, frames: DetailFrames, atlas: DetailAtlas) -> dict[int, Tensor]:
    """Median detail (R, R) of each person, by number."""
    found: dict[int, MedianDetail] = {}
    for row, person in enumerate(frames.person.tolist()):
        maps, hidden, _, speech = frame_maps(frames, row)
        masked = maps.without(hidden)
        detailed = predict_detail(network, masked, speech)
        found.setdefault(person, MedianDetail(atlas)).add(detailed, masked.visibility)
    return {person: median.median() for person, median in found.items()}


def _known_means(values: F64) -> tuple[float, ...]:
    """Means of the columns of values (N, C) without nan; nan for columns without values."""
    known = np.isfinite(values)
    sums = np.where(known, values, 0).sum(0)
    return tuple(np.where(known.any(0), sums / np.maximum(known.sum(0), 1), np.nan).tolist())


def frame_maps(frames: DetailFrames, row: int) -> tuple[DetailMaps, Tensor, Tensor, Tensor]:
    """Maps of a frame without its occlusions, occlusion mask (R, R), displacement (R, R) and speech (16, D)."""
    maps = DetailMaps(
        frames.image[row].float() / 255,
        unit(frames.normals[row].float(), 0),
        frames.visibility[row].float() / 255,
    )
    return maps, frames.occluded[row], frames.displacement[row].float() * 1e-6, frames.speech[row].float()


def smooth(displacement: Tensor) -> Tensor:
    """A low-pass filtered map (R, R): two box filters of `FINEST` texels of 256."""
    size = 2 * round(FINEST * displacement.shape[-1] / 512) + 1
    maps = displacement[None, None]
    for _ in range(2):
        maps = avg_pool2d(maps, size, 1, size // 2, count_include_pad=False)
    return maps[0, 0]


def _compared(
    atlas: DetailAtlas, found: Tensor, true: Tensor, seen: Tensor, covered: Tensor | None
) -> list[float]:
    """Figures of a frame in the order of `DetailFigures.COLUMNS`; nan where undefined."""
    blurred, wanted = smooth(found), smooth(true)
    fine = _angle(atlas.tangent_normals(found), atlas.tangent_normals(true))
    folds = atlas.tangent_normals(wanted)
    coarse = _angle(atlas.tangent_normals(blurred), folds)
    tilt = torch.rad2deg(torch.acos(folds[2].clamp(-1, 1)))
    folded = seen & (tilt > FOLDED)
    nan = float("nan")
    return [
        _mean(fine, seen),
        _mean(coarse, seen),
        _mean(coarse, folded),
        _correlation(found[seen], true[seen]),
        _correlation(blurred[seen], wanted[seen]),
        nan if covered is None else _mean(coarse, covered),
        nan if covered is None else 1000 * _mean(found.abs(), covered),
    ]


def _angle(one: Tensor, other: Tensor) -> Tensor:
    """Degrees between unit normals (3, R, R)."""
    return torch.rad2deg(torch.acos((one * other).sum(0).clamp(-1, 1)))


def _mean(values: Tensor, where: Tensor) -> float:
    return float(values[where].mean()) if bool(where.any()) else float("nan")


def _correlation(one: Tensor, other: Tensor) -> float:
    one, other = one - one.mean(), other - other.mean()
    length = float(one.norm() * other.norm())
    return float((one * other).sum()) / length if length > 1e-12 else float("nan")


def _light(atlas: DetailAtlas, maps: DetailMaps, displacement: Tensor, seen: Tensor) -> tuple[float, float]:
    """Photometric error of the visible skin with coarse and with detailed normals."""
    coarse, image, weight = maps.normals[None], maps.image[None], seen.float()[None]
    detailed = from_tangent_space(coarse, atlas.tangent_normals(displacement)[None])
    texture = detail_texture(coarse, detailed, image, weight)
    plain = detail_texture(coarse, coarse, image, weight)
    return float(photometric_loss(plain, image, weight)), float(photometric_loss(texture, image, weight))


def render_detail(atlas: DetailAtlas, points: Tensor, camera: Camera, displacement: Tensor) -> U8:
    """Rendering (H, W, 3) of a head with its detail in a uniform material, before black.

    points (V, 3) coarse vertices in camera axes, displacement (R, R) metres.
    """
    faces = atlas.faces
    pixels = camera.project(points)
    found = rasterise(pixels, points[:, 2], faces, camera.height, camera.width)
    plain = unit(found.interpolate(vertex_normals(points, faces), faces), -1)
    detailed = atlas.normals(points, displacement)
    share = atlas.mask[..., None].clamp(0, 1)
    texture = torch.cat([detailed, share], -1)
    uv = found.interpolate(atlas.uv, atlas.uv_faces)
    inside = ((uv > 0) & (uv < 1)).all(-1) & (found.triangle >= 0)
    sampled = sample_texture(texture, uv)
    normals = torch.where((inside & (sampled[..., 3] > 0.01))[..., None], unit(sampled[..., :3], -1), plain)
    normals = flip_axes(normals)
    lights = unit(torch.from_numpy(_LIGHTS), 1)
    shade = 0.12 + (normals @ lights.T).clamp_min(0) @ torch.tensor([0.55, 0.35, 0.25])
    shade = shade.clamp(0, 1) * (found.triangle >= 0)
    return (255 * shade).byte().numpy()[..., None].repeat(3, -1)


@dataclass(frozen=True)
class DetailEvaluation:
    """Print figures of a detail network."""

    weights: tyro.conf.Positional[Path]
    """The network."""
    cache: Path | None = None
    """Folder that caches the frames, such as the training's; by default beside the weights."""
    recipe: DetailRecipe = field(default_factory=DetailRecipe)
    """Recipe of the frames. Of every ten people one is held out."""


def main() -> None:
    """Print the figures that the command asks for."""
    asked = tyro.cli(DetailEvaluation, description=__doc__)
    try:
        network = load_detail(asked.weights)
        frames = read_frames(DetailTraining(asked.weights, asked.cache, asked.recipe))
        print(detail_figures(network, frames.select(held_out(frames))).table())
    except AvfaceError as error:
        raise SystemExit(f"avface: error: {error}") from None


if __name__ == "__main__":
    main()
