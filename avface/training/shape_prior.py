"""Measure how people differ and how the tracker errs about them, for the solver's reading of shapes.

    python -m avface.training.shape_prior --out DIR        # shape_prior.npz and shape_prior_corrected.npz

films people whom the head model can't make (`strangers`, others than those of the shape protocol), tracks them, and
writes what `avface.solve.shape_prior` reads: once for the tracker's landmarks and once for what the landmark network
makes of them. It takes about 20 minutes of one core.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from avface.arrays import F64, Bool
from avface.errors import AvfaceError
from avface.head import HeadModel, load_head
from avface.head.schemes import IRISES
from avface.solve import LandmarkCorrections, Observations, Solver, SolverConfig
from avface.solve.shape_prior import CORRECTED_SHAPE_PRIOR, SHAPE_PRIOR, ShapePrior, NeutralObservation
from avface.synthetic.out_of_model import (
    FILMED_SEED,
    POPULATION_SEED,
    OutOfModelConfig,
    out_of_model_head,
    out_of_model_scene,
)

CLIPS_EACH = 2


@dataclass(frozen=True)
class IdentityConfig:
    """How much is looked at, and how finely."""

    people: int = 113
    """Filmed, in two clips each."""
    population: int = 400
    """Of whom it is counted how they differ, without filming them."""
    step: int = 6
    """Every so many frames of a clip are rendered: neighbouring ones say the same."""
    components: int = 60
    """Coordinates of a person: 98 % of the variance of the face is in 30, 99 % in 60."""
    error_components: int = 80
    """Directions in which the tracker errs."""
    least_error: float = 1.0
    """Variance in square millimetres of a landmark's error in all other directions, at least."""
    tolerance: float = 3.0
    """Millimetres that a vertex of the head's own space may be off the person's, against weights of one standard
    deviation: the larger, the smaller the weights."""
    caution: float = 2.0
    """Factor of the variance of what the landmark network gets wrong: on real pictures that is more than on rendered
    ones. The larger, the more alike people are; with 2 the demo's clip comes out as well as without the network."""
    view_doubt: float = 0.02
    """Share of the clips as how many a mean error that doesn't change with the view counts."""


def film_and_read(
    person: int, clip: int, config: IdentityConfig, filmed: OutOfModelConfig
) -> tuple[NeutralObservation, NeutralObservation] | None:
    """Where a stranger's landmarks at rest are seen in one clip, by the tracker and by a closer look; None where it
    doesn't see them."""
    from avface.media import Clip, EncodingConfig, VideoWriter
    from avface.networks.fusion.landmark_weights import LandmarkWeights
    from avface.networks.landmark_correction import pretrained_landmark_network
    from avface.synthetic.rendering.renderer import SceneRenderer
    from avface.tracking import track

    head = out_of_model_head(person, filmed)
    scene = out_of_model_scene(person, clip, filmed, head)
    renderer = SceneRenderer(scene, head)
    generator = torch.Generator().manual_seed(scene.noise_seed)
    with tempfile.TemporaryDirectory(prefix="avface-") as folder:
        path = Path(folder) / "clip.mp4"
        encoding = EncodingConfig(crf=scene.sensor.quality, preset="veryfast")
        with VideoWriter(path, encoding=encoding) as writer:
            for number, frame in enumerate(range(0, len(scene), config.step)):
                light = renderer.light(range(frame, frame + 1))
                writer.write(scene.sensor.develop(light, generator)[0].cpu().numpy(), number / 12.5)
        try:
            observed = track(Clip.open(path).frames(), occlusions=True, aligned_crops=True)
        except AvfaceError:
            return None
        weights = LandmarkWeights(observed, None, without=())
        segments = np.zeros(len(observed), np.int64)
        observations = Observations(
            observed.landmarks, observed.confidence, observed.times, segments, weights
        )
        solver = Solver(load_head(), observed.image_size, SolverConfig(key_frames=8, tracker_error_prior=False))
        views = observed.aligned_crops
        assert views is not None
        seen = np.stack([weights[frame] for frame in views.frames.tolist()])
        offsets = pretrained_landmark_network().refine(views.pictures, views.landmarks, seen)
        closer = replace(observations, corrections=LandmarkCorrections(views.frames, offsets, seen))
        return solver.observe_neutral(observations), solver.observe_neutral(closer)


def learn(
    head: HeadModel,
    population: F64,
    seen: Sequence[NeutralObservation],
    people: F64,
    config: IdentityConfig | None = None,
) -> ShapePrior:
    """The model from heads at rest and clips.

    Args:
        head: whose space the shapes are to be told in.
        population: (P, V, 3) vertices of people at rest, metres.
        seen: C clips.
        people: (C, V, 3) who is in each of them.
        config: how finely.
    """
    config = config or IdentityConfig()
    face = head.regions["face"]
    embedding = head.embedding("mediapipe478")
    looked_at = np.setdiff1d(np.arange(len(embedding.triangles)), IRISES)

    def on_landmarks(vertices: F64) -> F64:
        return np.asarray(embedding.on(vertices)[..., looked_at, :])

    template = head.template.double().numpy()
    away = 1000 * (np.stack([_laid_on(each, template, face) for each in population]) - template)
    faces = away[:, face].reshape(len(away), -1)
    mean = faces.mean(0)
    left, sizes, right = np.linalg.svd(faces - mean, full_matrices=False)
    count = min(config.components, len(away) - 1)
    scores, scale = left[:, :count] * np.sqrt(len(away)), sizes[:count] / np.sqrt(len(away))
    with_one = np.concatenate([scores, np.ones((len(away), 1))], 1)
    on_points = np.linalg.lstsq(with_one, on_landmarks(away).reshape(len(away), -1), rcond=None)[0]
    on_points = on_points.reshape(count + 1, -1, 3)
    shapes = _shape_weights(
        head, np.concatenate([mean[None], right[:count] * scale[:, None]]), config.tolerance
    )
    points = len(looked_at)
    blank = ShapePrior(
        head=head.digest(),
        landmarks=looked_at,
        points=1000 * on_landmarks(template),
        mean=on_points[-1],
        basis=on_points[:-1],
        error_mean=np.zeros((5, points, 2)),
        error_directions=np.zeros((0, points, 2)),
        error_variances=np.zeros(0),
        error_rest=np.array(1.0),
        shape_mean=shapes[0],
        shape_basis=shapes[1:],
    )
    laid = [1000 * (_laid_on(each, template, face) - template)[face].ravel() for each in people]
    coordinates = (np.stack(laid) - mean) @ right[:count].T / scale
    errors = np.stack([blank.errors(*each) for each in zip(seen, coordinates, strict=True)])
    angles = np.stack([each.angles for each in seen])
    doubt = len(angles) * config.view_doubt * (np.r_[0.05, angles[:, 1:].var(0)] + 1e-6)
    error_mean = np.linalg.solve(angles.T @ angles + np.diag(doubt), angles.T @ errors)
    rest = errors - angles @ error_mean
    _, sizes, directions = np.linalg.svd(rest, full_matrices=False)
    kept = min(config.error_components, len(rest))
    variances = sizes**2 / len(rest)
    return replace(
        blank,
        error_mean=error_mean.reshape(5, points, 2),
        error_directions=directions[:kept].reshape(kept, points, 2),
        error_variances=variances[:kept],
        error_rest=np.array(max(config.least_error, variances[kept:].sum() / rest.shape[1])),
    )


def _laid_on(vertices: F64, template: F64, face: Bool) -> F64:
    """Vertices (V, 3) moved, turned and scaled so that the face lies on the template's."""
    from avface.geometry.alignment import similarity_align

    return np.asarray(similarity_align(vertices, template, face))


def _shape_weights(head: HeadModel, faces: F64, tolerance: float) -> F64:
    """The head's shape weights (N, S) for displacements of the face (N, 3 V') in millimetres, however it is placed."""
    face = head.regions["face"]
    used = np.array([n for n in range(head.num_shape) if n != head.size_component])
    basis = 1000 * head.shape_basis.double().numpy()[used][:, face].reshape(len(used), -1)
    points = head.template.double().numpy()[face]
    points = points - points.mean(0)
    x, y, z = np.eye(3)
    motions = [np.broadcast_to(axis, points.shape) for axis in (x, y, z)]
    motions += [np.cross(axis, points) for axis in (x, y, z)] + [points]
    still = np.linalg.qr(np.stack([motion.ravel() for motion in motions], 1))[0]
    basis = basis - (basis @ still) @ still.T
    weights = np.zeros((len(faces), head.num_shape))
    system = basis @ basis.T + tolerance**2 * np.eye(len(used))
    weights[:, used] = np.linalg.solve(system, basis @ faces.T).T
    return weights


def measure(
    config: IdentityConfig,
    workers: int | None = None,
    on_clip: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[ShapePrior, ShapePrior]:
    """Film, track and learn, for tracked landmarks and for those of a closer look. `on_clip` is told of the clips done
    and to do."""
    filmed, counted = (OutOfModelConfig(seed=seed) for seed in (FILMED_SEED, POPULATION_SEED))
    jobs = [(person, clip) for person in range(config.people) for clip in range(CLIPS_EACH)]
    seen, people = [], []
    context = multiprocessing.get_context("spawn")  # forked copies of torch's threads would hang
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = [pool.submit(film_and_read, *job, config, filmed) for job in jobs]
        for number, ((person, _), future) in enumerate(zip(jobs, futures, strict=True)):
            result = future.result()
            if result is not None:
                seen.append(result)
                people.append(out_of_model_head(person, filmed).template.double().numpy())
            on_clip(number + 1, len(jobs))
    population = [out_of_model_head(n, counted).template.double().numpy() for n in range(config.population)]
    head, everybody, filmed_people = load_head(), np.stack(population), np.stack(people)
    tracked, closer = (
        learn(head, everybody, each, filmed_people, config) for each in zip(*seen, strict=True)
    )
    return tracked, closer.with_error_variance(config.caution)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--people", type=int, default=IdentityConfig.people, help="people filmed")
    parser.add_argument("--workers", type=int, help="processes that render; by default one a core")
    options = parser.parse_args(arguments)
    config = IdentityConfig(people=options.people)
    models = measure(config, options.workers, lambda done, total: print(f"clip {done} of {total}"))
    for model, path in zip(models, (SHAPE_PRIOR, CORRECTED_SHAPE_PRIOR), strict=True):
        model.save(options.out / path.name)


if __name__ == "__main__":
    main()
