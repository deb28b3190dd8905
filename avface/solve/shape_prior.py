"""Prior of a person's shape given tracked landmarks, with the measured error statistics of the tracker.

A landmark tracker is biased towards its own mean face: it makes faces more alike than they are, and its errors change
with the view more than from frame to frame. So many frames carry little more information than one, and errors of
neighbouring points are correlated. Mean and covariance of the errors, and the covariance of people's shapes, are
measured on rendered people outside the head model's shape space (`avface.training.shape_prior`). Given both, the most
likely person is a linear function of the observation.

Model, for L landmarks in the plane of the picture, in millimetres at the face, after the head's pose is taken out:

    d = P V (m + B s) + M q + e,   s ~ N(0, 1),   e ~ N(0, D^T diag(v) D + r I)

V turns the head to the view and drops the depth, P projects out small rigid and scaling motions of the head, B (K, L,
3) moves the mean's difference m (L, 3) by a person's K coordinates, M q is the mean error in a view of yaw a and pitch
b, q = (1, a, b, a^2, b^2), with sines for angles.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path

import numpy as np

from avface.arrays import F64, Int
from avface.files import replacing
from avface.geometry.axes import flip_rotation
from avface.head.model import HeadModel

SHAPE_PRIOR = Path(__file__).parent / "assets" / "shape_prior.npz"
"""For landmarks as tracked."""
CORRECTED_SHAPE_PRIOR = Path(__file__).parent / "assets" / "shape_prior_corrected.npz"
"""For landmarks corrected by the landmark correction network."""


@dataclass(frozen=True, eq=False)
class NeutralObservation:
    """Observed landmarks of the neutral face, averaged over the frames of a clip.

    displacement (L, 2) millimetres in the picture's plane (x to its right, y up) against those of the mean head,
    view (3, 3) the head's mean rotation; both with the roll taken out.
    """

    displacement: F64
    view: F64

    @classmethod
    def of(cls, displacement: F64, rotation: F64) -> NeutralObservation:
        """From displacements (T, L, 2) metres in the picture's plane (y down) and rotations (T, 3, 3) to the camera."""
        facing = flip_rotation(rotation)
        roll = np.arctan2(facing[:, 1, 0], facing[:, 0, 0])
        level = np.zeros_like(facing)
        level[:, 0, 0] = level[:, 1, 1] = np.cos(roll)
        level[:, 0, 1], level[:, 1, 0] = np.sin(roll), -np.sin(roll)
        level[:, 2, 2] = 1
        moved = np.einsum("tij,tlj->li", level[:, :2, :2], displacement * (1.0, -1.0)) / len(facing)
        return cls(1000 * moved, (level @ facing).mean(0))

    @property
    def angles(self) -> F64:
        """(5,) q of the module's equation."""
        yaw, pitch = self.view[0, 2], self.view[1, 2]
        return np.array([1, yaw, pitch, yaw**2, pitch**2])


@dataclass(frozen=True, eq=False)
class ShapePrior:
    """Distributions of people's shapes and of the tracker's errors; symbols as in the module's equation. Millimetres.

    head: `HeadModel.digest` of the head whose shape weights it gives. landmarks (N,) numbers of the landmarks used,
    points (N, 3) their places on the mean head.
    """

    head: str
    landmarks: Int
    points: F64
    mean: F64
    """(N, 3) m."""
    basis: F64
    """(K, N, 3) B."""
    error_mean: F64
    """(5, N, 2) M."""
    error_directions: F64
    """(R, N, 2) D, orthonormal."""
    error_variances: F64
    """(R,) v."""
    error_rest: F64
    """() r."""
    shape_mean: F64
    """(S,) the head's shape weights of the person with s = 0."""
    shape_basis: F64
    """(K, S) their derivative by s."""

    def coordinates(self, observed: NeutralObservation) -> F64:
        """The most likely coordinates (K,) of a person."""
        project, by_person, by_mean = self._in_view(observed.view)
        error = np.tensordot(observed.angles, self.error_mean, 1).ravel()
        residual = project(observed.displacement[self.landmarks].ravel()) - by_mean - error
        directions = self.error_directions.reshape(len(self.error_variances), -1)
        share = self.error_variances / (self.error_variances + self.error_rest)
        weighted = (by_person - ((by_person @ directions.T) * share) @ directions) / self.error_rest
        return np.asarray(
            np.linalg.solve(weighted @ by_person.T + np.eye(len(by_person)), weighted @ residual), np.float64
        )

    def shape(self, observed: NeutralObservation) -> F64:
        """The head's shape weights (S,) of the most likely person."""
        return np.asarray(self.shape_mean + self.coordinates(observed) @ self.shape_basis)

    def errors(self, observed: NeutralObservation, coordinates: F64) -> F64:
        """The tracker's errors (2 N,) on a person of known coordinates (K,); for training."""
        project, by_person, by_mean = self._in_view(observed.view)
        return np.asarray(
            project(observed.displacement[self.landmarks].ravel()) - by_mean - coordinates @ by_person
        )

    @property
    def error_components(self) -> F64:
        """(R, N, 3) metres in the head's axes: principal components of the tracker's errors, each scaled to one
        standard deviation. 0 along the line of sight, where nothing was measured."""
        across = self.error_directions * np.sqrt(self.error_variances)[:, None, None] / 1000
        return np.concatenate([across, np.zeros_like(across[..., :1])], -1)

    def _in_view(self, view: F64) -> tuple[_MotionProjector, F64, F64]:
        """P, P V B (K, 2 N), and P V m (2 N,)."""
        project = _MotionProjector(view, self.points)
        by_person = project((self.basis @ view[:2].T).reshape(len(self.basis), -1))
        return project, by_person, project((self.mean @ view[:2].T).ravel())

    def with_error_variance(self, factor: float) -> ShapePrior:
        """The same with the variance of the errors multiplied by a factor."""
        return replace(
            self, error_variances=factor * self.error_variances, error_rest=factor * self.error_rest
        )

    def save(self, path: Path) -> None:
        """Write it to a file (npz)."""
        exact = {"landmarks": np.int16, "error_rest": np.float32, "shape_mean": np.float32}
        arrays = {key: getattr(self, key).astype(exact.get(key, np.float16)) for key in _ARRAYS}
        with replacing(path) as temporary:
            np.savez_compressed(temporary, head=np.array(self.head), **arrays)

    @classmethod
    def load(cls, path: Path) -> ShapePrior:
        """Read it from a file that `save` wrote."""
        with np.load(path, allow_pickle=False) as data:
            arrays = {key: data[key].astype(np.float64) for key in _ARRAYS}
            head = str(data["head"])
        return cls(head, **{**arrays, "landmarks": arrays["landmarks"].astype(np.int64)})


_ARRAYS = tuple(field.name for field in fields(ShapePrior) if field.name != "head")


class _MotionProjector:
    """Projects out of displacements (..., 2 N) what shifting, turning and scaling the head does to the landmarks."""

    def __init__(self, view: F64, points: F64) -> None:
        x, y, z = ((points - points.mean(0)) @ view.T).T
        one, zero = np.ones_like(x), np.zeros_like(x)
        motions = [(one, zero), (zero, one), (x, y), (-y, x), (z, zero), (zero, z)]
        self._motions = np.linalg.qr(np.stack([np.stack(m, 1).ravel() for m in motions], 1))[0]

    def __call__(self, displacements: F64) -> F64:
        return np.asarray(displacements - (displacements @ self._motions) @ self._motions.T)


def load_shape_prior(head: HeadModel, corrected: bool = False) -> ShapePrior | None:
    """The shipped shape prior of a head, known by its content (`HeadModel.digest`); None for heads without one.

    corrected: that for landmarks corrected by the landmark correction network.
    """
    prior = _shipped(CORRECTED_SHAPE_PRIOR if corrected else SHAPE_PRIOR)
    return prior if prior.head == head.digest() else None


def tracker_errors(head: HeadModel) -> F64:
    """(K, L, 3) metres: components of the tracker's errors, each scaled to one standard deviation: those of the head's
    landmark embedding, then those of its shape prior if it has one."""
    own = head.embedding("mediapipe478").error_basis
    prior = load_shape_prior(head)
    if prior is None:
        return own
    measured = np.zeros((len(prior.error_variances), *own.shape[1:]))
    measured[:, prior.landmarks] = prior.error_components
    return np.concatenate([own, measured])


@cache
def _shipped(path: Path) -> ShapePrior:
    return ShapePrior.load(path)
