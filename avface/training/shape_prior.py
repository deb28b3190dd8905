"""Measurement of the shape prior (`avface.solve.shape_prior`): covariance of people, and errors of the tracker.

    avface train shape-prior --out DIR        # shape_prior.npz and shape_prior_corrected.npz

Clips of out-of-model heads (others than those of the shape protocol) are rendered and tracked. One prior is for tracked
landmarks, the other for landmarks corrected by the landmark network. It takes about 20 minutes of one core.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from avface.arrays import F64, Bool
from avface.errors import AvfaceError
from avface.files.temporary import temporary_folder
from avface.head import HeadModel, load_head
from avface.head.schemes import IRISES
from avface.solve import LandmarkCorrections, Observations, Solver, SolverConfig
from avface.solve.shape_prior import CORRECTED_SHAPE_PRIOR, SHAPE_PRIOR, NeutralObservation, ShapePrior
from avface.synthetic.out_of_model import (
    FILMED_SEED,
    POPULATION_SEED,
    OutOfModelConfig,
    out_of_model_head,
    out_of_model_scene,
)
from avface.training.loop.config import check_not_negative, check_positive
from avface.training.loop.trainer import make_folder_of

CLIPS_EACH = 2
"""Clips of each person."""


@dataclass(frozen=True)
class ShapePriorConfig:
    """Extent and resolution of the measurement."""

    people: int = 113
    """Number of people that are rendered and tracked."""
    population: int = 400
    """Number of people for the covariance of shapes, which aren't rendered."""
    step: int = 6
    """One of so many frames of a clip is rendered: neighbouring ones have about the same error."""
    components: int = 60
    """Principal components of people: 30 have 98 % of the variance of the face, 60 have 99 %."""
    error_components: int = 80
    """Principal components of the tracker's errors."""
    least_error: float = 1.0
    """Least variance of a landmark's error in all other directions, square millimetres."""
    tolerance: float = 3.0
    """Standard deviation in millimetres of the residual of a vertex in the head's shape space, beside shape weights of
    standard deviation 1: the larger, the smaller the weights."""
    caution: float = 2.0
    """Factor on the error variance of corrected landmarks, which is larger on real images than on rendered ones. The
    larger, the nearer shapes are to the mean; with 2, the demo clip is fitted as well as with tracked landmarks."""
    view_doubt: float = 0.02
    """Ridge penalty of the view-dependent mean error, relative to the number of clips."""

    def __post_init__(self) -> None:
        check_positive(
            self, "people", "population", "step", "components", "error_components", "tolerance", "caution"
        )
        check_not_negative(self, "least_error", "view_doubt")


@dataclass(frozen=True)
class ShapePriorTraining:
    """Measure the shape prior on rendered people. The defaults are the recipe of the shipped files."""

    out: Path
    """Folder to write to."""
    config: Annotated[ShapePriorConfig, tyro.conf.arg(name="")] = field(default_factory=ShapePriorConfig)
    """Extent and resolution."""
    workers: int | None = None
    """Processes that render; by default one per core."""

    def __post_init__(self) -> None:
        if self.workers is not None:
            check_positive(self, "workers")


Command = ShapePriorTraining
"""What `avface train shape-prior` parses."""


def observe_clip(
    person: int, clip: int, config: ShapePriorConfig, rendered: OutOfModelConfig
) -> tuple[NeutralObservation, NeutralObservation] | None:
    """Neutral landmarks of an out-of-model head in one clip, as tracked and as corrected; None without a track."""
    from avface.media import Clip, EncodingConfig, VideoWriter
    from avface.networks.fusion.landmark_weights import LandmarkWeights
    from avface.networks.landmark_correction import pretrained_landmark_network
    from avface.synthetic.rendering.renderer import SceneRenderer
    from avface.tracking import track

    head = out_of_model_head(person, rendered)
    scene = out_of_model_scene(person, clip, rendered, head)
    renderer = SceneRenderer(scene, head)
    generator = torch.Generator().manual_seed(scene.noise_seed)
    with temporary_folder() as folder:
        path = Path(folder) / "clip.mp4"
        encoding = EncodingConfig(crf=scene.sensor.quality, preset="veryfast")
        with VideoWriter(path, encoding=encoding) as writer:
            for number, frame in enumerate(range(0, len(scene), config.step)):
                light = renderer.light(range(frame, frame + 1))
                writer.write(scene.sensor.develop(light, generator)[0].cpu().numpy(), number / 12.5)
        try:
            observed = track(Clip.open(path).frames(), occlusions=True, pictures=True)
        except AvfaceError:
            return None
        weights = LandmarkWeights(observed, None, without=())
        segments = np.zeros(len(observed), np.int64)
        observations = Observations(
            observed.landmarks, observed.confidence, observed.times, segments, weights
        )
        solver = Solver(
            load_head(), observed.image_size, SolverConfig(key_frames=8, tracker_error_prior=False)
        )
        views = observed.aligned_crops
        assert views is not None
        seen = np.stack([weights[frame] for frame in views.frames.tolist()])
        offsets = pretrained_landmark_network().predict_offsets(views.pictures, views.landmarks, seen)
        corrected = replace(observations, corrections=LandmarkCorrections(views.frames, offsets, seen))
        return solver.observe_neutral(observations), solver.observe_neutral(corrected)


def learn(
    head: HeadModel,
    population: F64,
    observed: Sequence[NeutralObservation],
    people: F64,
    config: ShapePriorConfig | None = None,
) -> ShapePrior:
    """The prior of neutral heads and clips.

    Args:
        head: the head model whose shape weights the prior predicts.
        population: (P, V, 3) vertices of neutral heads, metres.
        observed: C clips.
        people: (C, V, 3) neutral head of the person in each of them.
        config: resolution of the prior.
    """
    config = config or ShapePriorConfig()
    face = head.regions["face"]
    embedding = head.embedding("mediapipe478")
    landmarks = np.setdiff1d(np.arange(len(embedding.triangles)), IRISES)

    def on_landmarks(vertices: F64) -> F64:
        return np.asarray(embedding.on(vertices)[..., landmarks, :])

    template = head.template.double().numpy()
    displacements = 1000 * (np.stack([_aligned(each, template, face) for each in population]) - template)
    faces = displacements[:, face].reshape(len(displacements), -1)
    mean = faces.mean(0)
    left, sizes, right = np.linalg.svd(faces - mean, full_matrices=False)
    count = min(config.components, len(displacements) - 1)
    scores, scale = left[:, :count] * np.sqrt(len(displacements)), sizes[:count] / np.sqrt(len(displacements))
    with_one = np.concatenate([scores, np.ones((len(displacements), 1))], 1)
    on_points = np.linalg.lstsq(
        with_one, on_landmarks(displacements).reshape(len(displacements), -1), rcond=None
    )[0]
    on_points = on_points.reshape(count + 1, -1, 3)
    shapes = _shape_weights(
        head, np.concatenate([mean[None], right[:count] * scale[:, None]]), config.tolerance
    )
    points = len(landmarks)
    blank = ShapePrior(
        head=head.digest(),
        landmarks=landmarks,
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
    aligned = [1000 * (_aligned(each, template, face) - template)[face].ravel() for each in people]
    coordinates = (np.stack(aligned) - mean) @ right[:count].T / scale
    errors = np.stack([blank.errors(*each) for each in zip(observed, coordinates, strict=True)])
    angles = np.stack([each.angles for each in observed])
    penalty = len(angles) * config.view_doubt * (np.r_[0.05, angles[:, 1:].var(0)] + 1e-6)
    error_mean = np.linalg.solve(angles.T @ angles + np.diag(penalty), angles.T @ errors)
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


def _aligned(vertices: F64, template: F64, face: Bool) -> F64:
    """Vertices (V, 3) after similarity alignment of the face with the template's."""
    from avface.geometry.alignment import similarity_align

    return np.asarray(similarity_align(vertices, template, face))


def _shape_weights(head: HeadModel, faces: F64, tolerance: float) -> F64:
    """Shape weights (N, S) of the head for displacements of the face (N, 3 V') in millimetres, by ridge regression.

    Rigid motion and scaling of the face are projected out.
    """
    face = head.regions["face"]
    used = np.array([n for n in range(head.num_shape) if n != head.size_component])
    basis = 1000 * head.shape_basis.double().numpy()[used][:, face].reshape(len(used), -1)
    points = head.template.double().numpy()[face]
    points = points - points.mean(0)
    x, y, z = np.eye(3)
    motions = [np.broadcast_to(axis, points.shape) for axis in (x, y, z)]
    motions += [np.cross(axis, points) for axis in (x, y, z)] + [points]
    placement = np.linalg.qr(np.stack([motion.ravel() for motion in motions], 1))[0]
    basis = basis - (basis @ placement) @ placement.T
    weights = np.zeros((len(faces), head.num_shape))
    system = basis @ basis.T + tolerance**2 * np.eye(len(used))
    weights[:, used] = np.linalg.solve(system, basis @ faces.T).T
    return weights


def measure(
    config: ShapePriorConfig,
    workers: int | None = None,
    on_clip: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[ShapePrior, ShapePrior]:
    """The priors for tracked and for corrected landmarks. `on_clip` is called with the number of clips done and the
    total.

    Raises:
        AvfaceError: if no clip could be tracked, or a package of the extra `build` is missing.
    """
    rendered, counted = (OutOfModelConfig(seed=seed) for seed in (FILMED_SEED, POPULATION_SEED))
    jobs = [(person, clip) for person in range(config.people) for clip in range(CLIPS_EACH)]
    observed, people = [], []
    context = multiprocessing.get_context("spawn")  # forked copies of torch's threads would hang
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = [pool.submit(observe_clip, *job, config, rendered) for job in jobs]
        for number, ((person, _), future) in enumerate(zip(jobs, futures, strict=True)):
            result = future.result()
            if result is not None:
                observed.append(result)
                people.append(out_of_model_head(person, rendered).template.double().numpy())
            on_clip(number + 1, len(jobs))
    if not observed:
        raise AvfaceError(f"none of {len(jobs)} clips could be tracked; use more --people")
    population = [out_of_model_head(n, counted).template.double().numpy() for n in range(config.population)]
    tracked, corrected = (
        learn(load_head(), np.stack(population), each, np.stack(people), config)
        for each in zip(*observed, strict=True)
    )
    return tracked, corrected.with_error_variance(config.caution)


def train(
    training: ShapePriorTraining, on_clip: Callable[[int, int], None] = lambda done, total: None
) -> list[Path]:
    """Measure and write the files of both priors, which are returned; `on_clip` as of `measure`.

    Raises:
        AvfaceError: as `measure`, and if the folder can't be written.
    """
    files = [training.out / path.name for path in (SHAPE_PRIOR, CORRECTED_SHAPE_PRIOR)]
    make_folder_of(files[0])
    for prior, file in zip(measure(training.config, training.workers, on_clip), files, strict=True):
        prior.save(file)
    return files
