"""Reading a person's shape from tracked landmarks with experience of how the tracker errs.

A tracker's points follow its own idea of a face: it makes faces more alike than they are, and what it gets wrong
changes with the view more than from frame to frame. So many frames say little more than one, and errors of neighbouring
points are one error. Here the errors' mean and covariance are measured, and how people differ as well: on rendered
people who aren't of the head model's own space (`avface.training.shape_prior`). With both, the likeliest person is a
linear function of what was seen.

Model, for L landmarks in the plane of the picture, in millimetres at the face, after the head's pose is taken out:

    d = P V (m + B s) + M q + e,   s ~ N(0, 1),   e ~ N(0, D^T diag(v) D + r I)

V turns the head to the view and drops the depth, P takes out what a small motion of the head would do, B (K, L, 3)
moves the mean's difference m (L, 3) by a person's K coordinates, M q is the mean error in a view of yaw a and pitch b,
q = (1, a, b, a^2, b^2), with sines for angles.
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

OPEN_IDENTITY = Path(__file__).parent / "assets" / "identity.npz"
CLOSER_IDENTITY = Path(__file__).parent / "assets" / "identity_closer.npz"
"""The same for landmarks that a network has moved to where the picture shows them."""


@dataclass(frozen=True, eq=False)
class NeutralObservation:
    """Where a clip shows the landmarks of the face at rest.

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
        """(5,) q of the module's text."""
        yaw, pitch = self.view[0, 2], self.view[1, 2]
        return np.array([1, yaw, pitch, yaw**2, pitch**2])


@dataclass(frozen=True, eq=False)
class IdentityModel:
    """How people differ and how the tracker errs; letters as in the module's text. Millimetres.

    landmarks (N,) numbers of those that are looked at, points (N, 3) where the mean head has them.
    """

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
    """(K, S) how they change with s."""

    def coordinates(self, seen: NeutralObservation) -> F64:
        """The likeliest coordinates (K,) of a person."""
        still, by_person, by_mean = self._in_view(seen.view)
        error = np.tensordot(seen.angles, self.error_mean, 1).ravel()
        away = still(seen.displacement[self.landmarks].ravel()) - by_mean - error
        directions = self.error_directions.reshape(len(self.error_variances), -1)
        share = self.error_variances / (self.error_variances + self.error_rest)
        weighted = (by_person - ((by_person @ directions.T) * share) @ directions) / self.error_rest
        return np.asarray(
            np.linalg.solve(weighted @ by_person.T + np.eye(len(by_person)), weighted @ away), np.float64
        )

    def shape(self, seen: NeutralObservation) -> F64:
        """The head's shape weights (S,) of the likeliest person."""
        return np.asarray(self.shape_mean + self.coordinates(seen) @ self.shape_basis)

    def errors(self, seen: NeutralObservation, coordinates: F64) -> F64:
        """Where (2 N,) the tracker erred about a person (K,) who is known; for learning."""
        still, by_person, by_mean = self._in_view(seen.view)
        return np.asarray(
            still(seen.displacement[self.landmarks].ravel()) - by_mean - coordinates @ by_person
        )

    @property
    def error_components(self) -> F64:
        """(R, N, 3) metres in the head's axes: the directions of the tracker's errors, each one standard deviation
        long. Along the line of sight nothing was measured."""
        across = self.error_directions * np.sqrt(self.error_variances)[:, None, None] / 1000
        return np.concatenate([across, np.zeros_like(across[..., :1])], -1)

    def _in_view(self, view: F64) -> tuple[_Still, F64, F64]:
        """P, P V B (K, 2 N), and P V m (2 N,)."""
        still = _Still(view, self.points)
        by_person = still((self.basis @ view[:2].T).reshape(len(self.basis), -1))
        return still, by_person, still((self.mean @ view[:2].T).ravel())

    def trusted_less(self, factor: float) -> IdentityModel:
        """The same with errors of so many times the variance."""
        return replace(
            self, error_variances=factor * self.error_variances, error_rest=factor * self.error_rest
        )

    def save(self, path: Path) -> None:
        """Write it to a file (npz)."""
        exact = {"landmarks": np.int16, "error_rest": np.float32, "shape_mean": np.float32}
        arrays = {f.name: getattr(self, f.name).astype(exact.get(f.name, np.float16)) for f in fields(self)}
        with replacing(path) as temporary:
            np.savez_compressed(temporary, **arrays)

    @classmethod
    def load(cls, path: Path) -> IdentityModel:
        """Read it from a file that `save` wrote."""
        with np.load(path, allow_pickle=False) as data:
            arrays = {f.name: data[f.name].astype(np.float64) for f in fields(cls)}
        return cls(**{**arrays, "landmarks": arrays["landmarks"].astype(np.int64)})


class _Still:
    """Takes out of displacements (..., 2 N) what shifting, turning and scaling the head would do to the landmarks."""

    def __init__(self, view: F64, points: F64) -> None:
        x, y, z = ((points - points.mean(0)) @ view.T).T
        one, zero = np.ones_like(x), np.zeros_like(x)
        motions = [(one, zero), (zero, one), (x, y), (-y, x), (z, zero), (zero, z)]
        self._motions = np.linalg.qr(np.stack([np.stack(m, 1).ravel() for m in motions], 1))[0]

    def __call__(self, displacements: F64) -> F64:
        return np.asarray(displacements - (displacements @ self._motions) @ self._motions.T)


def identity_model(head: HeadModel, closer: bool = False) -> IdentityModel | None:
    """What is known about people and tracker for a head: it was measured with the open head; None for others.

    closer: whether a network looked where the landmarks should be.
    """
    if head.name != "open":
        return None
    model = _shipped(CLOSER_IDENTITY if closer else OPEN_IDENTITY)
    return model if model.shape_basis.shape[1] == head.num_shape else None


def tracker_errors(head: HeadModel) -> F64:
    """(K, L, 3) metres: how the tracker errs about people, each one standard deviation long: the components of the
    head's landmark embedding, and those that were measured on people who aren't of the head's space."""
    known = head.embedding("mediapipe478").error_basis
    model = identity_model(head)
    if model is None:
        return known
    measured = np.zeros((len(model.error_variances), *known.shape[1:]))
    measured[:, model.landmarks] = model.error_components
    return np.concatenate([known, measured])


@cache
def _shipped(path: Path) -> IdentityModel:
    return IdentityModel.load(path)
