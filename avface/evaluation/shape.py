"""The shape protocol on rendered out-of-model heads: scan-to-mesh distance of reconstructed neutral heads compared with
the mean head's, and identification: do two clips of one person give the most similar shapes?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avface.arrays import F64
from avface.errors import AvfaceError
from avface.evaluation.clips import Progress
from avface.evaluation.out_of_model import (
    OutOfModelConfig,
    Scan,
    film,
    in_processes,
    out_of_model_head,
    scan,
    seven_landmarks,
    skin_triangles,
)
from avface.evaluation.scan_to_mesh import scan_to_mesh_mm
from avface.evaluation.tables import aligned
from avface.files.temporary import temporary_folder
from avface.geometry.alignment import similarity_align
from avface.head import HeadModel, load_head
from avface.synthetic.out_of_model import TRAINING_SEEDS

CLIPS_EACH = 2
SCAN_POINTS = 6000
FIT_NOISE = 0.0005
"""Standard deviation in metres of the vertices in the fit to the truth, against a unit prior of shape weights."""


@dataclass(frozen=True, eq=False)
class ShapeReport:
    """Scan-to-mesh distances in millimetres and identification, as text (`table`) and JSON (`to_json`).

    Shapes: P people, C clips each: mean_head and fitted, P arrays of distances of one scan's vertices; reconstructed,
            P times C of them. pairwise (P C, P C): millimetres between the reconstructed heads of two clips.
    """

    mean_head: tuple[F64, ...]
    """Of the mean head."""
    fitted: tuple[F64, ...]
    """Of the head model fitted to the true vertices: the lower bound of its shape space."""
    reconstructed: tuple[tuple[F64, ...], ...]
    """Of the neutral heads from the clips."""
    pairwise: F64

    @property
    def ratio(self) -> float:
        """Median distance of the reconstructed heads over the mean head's, over all vertices of all scans."""
        return _median(self._flat) / _median(self.mean_head)

    @property
    def recognised(self) -> tuple[int, int]:
        """Number of clips whose nearest other clip shows the same person, and of all clips."""
        clips = len(self._flat)
        distances = self.pairwise + np.where(np.eye(clips, dtype=bool), np.inf, 0)
        person = np.repeat(np.arange(len(self.reconstructed)), [len(each) for each in self.reconstructed])
        return int((person[distances.argmin(1)] == person).sum()), clips

    @property
    def _flat(self) -> list[F64]:
        return [distances for clips in self.reconstructed for distances in clips]

    def table(self) -> str:
        """Plain text: distances of the mean head, the reconstructed heads and the best fit; and identification."""
        base = _median(self.mean_head)
        rows = [["scan to mesh, mm", "median", "mean", "std", "of mean head"]]
        for name, distances in (
            ("mean head", self.mean_head),
            ("reconstructed", self._flat),
            ("model fitted to the truth", self.fitted),
        ):
            pooled = np.concatenate(list(distances))
            numbers = (np.median(pooled), pooled.mean(), pooled.std(), np.median(pooled) / base)
            rows.append([name, *(f"{number:.3f}" for number in numbers)])
        people = [
            ["person", "mean head", *(f"clip {n}" for n in range(len(self.reconstructed[0]))), "fitted"]
        ]
        for number, clips in enumerate(self.reconstructed):
            medians = [
                np.median(self.mean_head[number]),
                *map(np.median, clips),
                np.median(self.fitted[number]),
            ]
            people.append([str(number), *(f"{median:.3f}" for median in medians)])
        own, other = self._within_and_between()
        correct, clips_in_all = self.recognised
        identification = (
            f"{correct} of {clips_in_all} clips have another clip of the same person as their nearest; mean distance "
            f"between heads of one person {own:.3f} mm,\nto the nearest of other people {other:.3f} mm"
        )
        return "\n\n".join([aligned(rows), aligned(people), identification])

    def _within_and_between(self) -> tuple[float, float]:
        """Mean distance in millimetres between clips of one person, and from a clip to the nearest of another."""
        person = np.repeat(np.arange(len(self.reconstructed)), [len(each) for each in self.reconstructed])
        same = person[:, None] == person
        others = np.where(same, np.inf, self.pairwise).min(1)
        own = self.pairwise[same & ~np.eye(len(person), dtype=bool)]
        return (float(own.mean()) if len(own) else float("nan")), float(others[np.isfinite(others)].mean())

    def to_json(self) -> str:
        """The figures of the table as a JSON object."""
        own, other = self._within_and_between()
        correct, clips = self.recognised

        def figures(distances: Sequence[F64]) -> dict[str, Any]:
            pooled = np.concatenate(list(distances))
            return {
                "median_mm": _median(distances),
                "mean_mm": float(pooled.mean()),
                "std_mm": float(pooled.std()),
                "each_median_mm": [float(np.median(each)) for each in distances],
            }

        content = {
            "mean_head": figures(self.mean_head),
            "reconstructed": figures(self._flat),
            "fitted": figures(self.fitted),
            "ratio": self.ratio,
            "recognised": correct,
            "clips": clips,
            "own_apart_mm": own,
            "nearest_other_apart_mm": other,
        }
        return json.dumps(content, indent=2, allow_nan=False)


def _median(distances: Sequence[F64]) -> float:
    return float(np.median(np.concatenate(list(distances))))


def evaluate_shape(
    *,
    people: int = 12,
    networks: Path | None = None,
    work: Path | None = None,
    workers: int | None = None,
    config: OutOfModelConfig | None = None,
    progress: Progress = lambda clip, stage, done, total: None,
) -> ShapeReport:
    """Render clips of out-of-model heads, two each, reconstruct them and compare the shapes.

    Args:
        people: Number of heads, two or more.
        networks: Weights for `avface.reconstruct`; its own by default.
        work: Folder that keeps the clips for the next run; by default a temporary one.
        workers: Number of rendering processes; by default one per core.
        config: Heads and rendering.
        progress: Called as the work advances.

    Raises:
        AvfaceError: if `people` is below 2, the seed is one of the training heads, espeakng-loader is missing, or the
            folder can't be written.
    """
    from avface.pipeline import reconstruct

    if people < 2:
        raise AvfaceError(f"people={people}: must be 2 or more; compare at least two")
    config = config or OutOfModelConfig()
    if config.seed in TRAINING_SEEDS:
        raise AvfaceError(
            f"seed {config.seed}: the shape prior was trained on these heads; choose another seed"
        )
    options: dict[str, Any] = {} if networks is None else {"networks": networks}
    model = load_head()
    shapes: list[list[F64]] = []
    with temporary_folder() if work is None else nullcontext(work) as folder:
        videos = _render_clips(people, Path(folder), config, workers, progress)
        for number, clips in enumerate(videos):
            shapes.append([])
            for clip in clips:

                def on_frames(stage: str, done: int, total: int | None, name: str = clip.name) -> None:
                    progress(name, stage, done, total)

                capture = reconstruct(clip, progress=on_frames, **options)
                shapes[number].append(np.asarray(capture.shape, np.float64))
    progress("shapes", "compare", 0, people)
    mean_head, fitted, reconstructed = [], [], []
    for number, weights in enumerate(shapes):
        head = out_of_model_head(number, config)
        true = scan(head, SCAN_POINTS, config.seed)
        mean_head.append(distances_mm(true, model, np.zeros(model.num_shape)))
        fitted.append(distances_mm(true, model, fit_to_vertices(model, head.template.double().numpy())))
        reconstructed.append(tuple(distances_mm(true, model, each) for each in weights))
        progress("shapes", "compare", number + 1, people)
    flat = [each for weights in shapes for each in weights]
    return ShapeReport(tuple(mean_head), tuple(fitted), tuple(reconstructed), pairwise_mm(model, flat))


def distances_mm(true: Scan, head: HeadModel, shape: F64) -> F64:
    """Scan-to-mesh distances (M,) in millimetres of a neutral head of shape (S,), after similarity alignment."""
    vertices = _neutral(head, shape)
    return scan_to_mesh_mm(
        true.points, true.landmarks, vertices, skin_triangles(head), seven_landmarks(head, vertices)
    )


def fit_to_vertices(head: HeadModel, vertices: F64) -> F64:
    """Shape weights (S,) of the best fit to given vertices (V, 3) over the face: the lower bound of the shape space.

    Regularised least squares, alternating with a similarity alignment.
    """
    face = head.regions["face"]
    basis = head.shape_basis.double().numpy()[:, face].reshape(head.num_shape, -1).T
    template = head.template.double().numpy()[face]
    system = basis.T @ basis + FIT_NOISE**2 * np.eye(head.num_shape)
    shape = np.zeros(head.num_shape)
    for _ in range(8):
        target = similarity_align(vertices[face], _neutral(head, shape)[face])
        shape = np.linalg.solve(system, basis.T @ (target - template).ravel())
    return shape


def pairwise_mm(head: HeadModel, shapes: Sequence[F64]) -> F64:
    """Mean distances (N, N) in millimetres between N neutral faces of shapes (S,), pairwise aligned with scale."""
    face = head.regions["face"]
    points = np.stack([_neutral(head, shape)[face] for shape in shapes])
    distances = np.zeros((len(shapes), len(shapes)))
    for row, one in enumerate(points):
        aligned_points = similarity_align(points, np.broadcast_to(one, points.shape))
        distances[row] = 1000 * np.linalg.norm(aligned_points - one, axis=-1).mean(1)
    return (distances + distances.T) / 2


def _neutral(head: HeadModel, shape: F64) -> F64:
    return np.asarray(head.neutral(torch.as_tensor(shape, dtype=torch.float32)).double().numpy())


def _render_clips(
    people: int, work: Path, config: OutOfModelConfig, workers: int | None, progress: Progress
) -> list[list[Path]]:
    """Clips of all heads; existing ones are kept. Each config has its own folder."""
    folder = work / f"out-of-model-{sha256(json.dumps(asdict(config)).encode()).hexdigest()[:12]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AvfaceError(f"{folder}: can't be created ({error.strerror}); choose another folder") from None
    videos = [[folder / f"person_{p:03d}_{c}.mp4" for c in range(CLIPS_EACH)] for p in range(people)]
    missing = [(p, c) for p in range(people) for c in range(CLIPS_EACH) if not videos[p][c].is_file()]
    done = people * CLIPS_EACH - len(missing)
    jobs = [(p, c, videos[p][c], config) for p, c in missing]
    for _ in in_processes(film, jobs, folder, workers):
        done += 1
        progress("out-of-model heads", "render", done, people * CLIPS_EACH)
    return videos
