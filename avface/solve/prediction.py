"""Predictions of expression, rotation and shape as normal priors of the fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avface.arrays import Floats, Int
from avface.geometry.rotations import rotmat_to_rotvec
from avface.solve.landmark_model import ROTATION, Parameters


@dataclass(frozen=True, eq=False)
class Prediction:
    """Independent normal distributions of the unknowns of T frames, as networks predict them.

    An infinite standard deviation carries no information.
    """

    expression: Floats
    """(T, E) mean weights of the expression units."""
    expression_sigma: Floats
    """(T, E) their standard deviations."""
    rotation: Floats | None = None
    """(T, 3, 3) head to camera."""
    rotation_sigma: Floats | None = None
    """(T,) standard deviation about each axis in radians."""
    shape: Floats | None = None
    """(S,) mean weights of the head's shape components. They replace those of the population, mean 0 and standard
    deviation 1, where `shape_sigma` is below 1."""
    shape_sigma: Floats | None = None
    """(S,) their standard deviations."""

    def check(self, frames: int, units: int, components: int) -> None:
        """Check it against the numbers of frames, expression units and shape components.

        Raises:
            ValueError: if shapes differ, a mean isn't finite, or a standard deviation isn't above 0.
        """
        sizes = {
            "expression": (frames, units),
            "rotation": (frames, 3, 3),
            "shape": (components,),
        }
        for name, size in sizes.items():
            mean, sigma = getattr(self, name), getattr(self, f"{name}_sigma")
            if (mean is None) != (sigma is None):
                raise ValueError(f"a prediction of {name} needs both mean and standard deviation")
            if mean is None:
                continue
            if mean.shape != size:
                raise ValueError(f"predicted {name} has shape {mean.shape}, expected {size}")
            wanted = size[:1] if name == "rotation" else size
            if sigma.shape != wanted:
                raise ValueError(f"{name}_sigma has shape {sigma.shape}, expected {wanted}")
            if not ((sigma > 0).all() and np.isfinite(mean).all()):
                raise ValueError(f"predicted {name}: means must be finite, standard deviations above 0")


def no_prediction(frames: int, units: int) -> Prediction:
    """A prediction without information."""
    nothing = np.broadcast_to(np.float32(0), (frames, units))
    return Prediction(nothing, np.broadcast_to(np.float32(np.inf), (frames, units)))


@dataclass(frozen=True)
class FramePrior:
    """Normal distributions of the unknowns of T frames. Shapes: expression (T, E), its precision (T, E), rotation
    (T, 3, 3) and its precision (T,) in radians^-2, or None. A precision of 0 carries no information."""

    expression: Tensor
    precision: Tensor
    rotation: Tensor | None = None
    rotation_precision: Tensor | None = None

    @classmethod
    def of(cls, prediction: Prediction, rows: Int, sigma: Tensor) -> FramePrior:
        """Those of some frames; sigma (E,) is added to the standard deviations of the expression in quadrature."""

        def load(values: Floats) -> Tensor:
            return torch.as_tensor(np.asarray(values[rows], np.float64), device=sigma.device)

        rotation = rotation_precision = None
        if prediction.rotation is not None and prediction.rotation_sigma is not None:
            rotation, rotation_precision = load(prediction.rotation), load(prediction.rotation_sigma) ** -2
        precision = 1 / (load(prediction.expression_sigma) ** 2 + sigma**2)
        return cls(load(prediction.expression), precision, rotation, rotation_precision)

    def select(self, rows: slice) -> FramePrior:
        """Those of some of the frames."""
        return FramePrior(
            self.expression[rows],
            self.precision[rows],
            None if self.rotation is None else self.rotation[rows],
            None if self.rotation_precision is None else self.rotation_precision[rows],
        )

    def scaled(self, units: Tensor, pose: Tensor) -> FramePrior:
        """The same with precisions multiplied by factors of the expression units (T, E) and of the rotation (T,)."""
        turns = self.rotation_precision
        scaled = None if turns is None else pose * turns
        return FramePrior(self.expression, units * self.precision, self.rotation, scaled)

    def product(self, other: FramePrior, share: Tensor) -> FramePrior:
        """The product of the expressions' distributions with others, whose precision is multiplied by share (T, E)."""
        added = share * other.precision
        precision = self.precision + added
        sum_ = self.precision * self.expression + added * other.expression
        return FramePrior(
            sum_ / precision.clamp_min(1e-12), precision, self.rotation, self.rotation_precision
        )

    def cost(self, parameters: Parameters) -> Tensor:
        """Cost (T,): half the squared Mahalanobis distance."""
        cost = 0.5 * (self.precision * (parameters.expression - self.expression) ** 2).sum(-1)
        if self.rotation is not None and self.rotation_precision is not None:
            turn = rotmat_to_rotvec(parameters.rotation @ self.rotation.mT)
            cost = cost + 0.5 * self.rotation_precision * (turn**2).sum(-1)
        return cost

    def add_equations(self, parameters: Parameters, hessian: Tensor, gradient: Tensor) -> None:
        """Add the cost's Hessian to (T, D, D) and its gradient to (T, D), D unknowns in `LandmarkModel`'s order."""
        units = slice(6, 6 + self.expression.shape[-1])
        gradient[:, units] += self.precision * (parameters.expression - self.expression)
        diagonal = hessian.diagonal(dim1=1, dim2=2)
        diagonal[:, units] += self.precision
        if self.rotation is not None and self.rotation_precision is not None:
            # exact gradient: the left Jacobian of SO(3) maps its own vector to itself
            turn = rotmat_to_rotvec(parameters.rotation @ self.rotation.mT)
            gradient[:, ROTATION] += self.rotation_precision[:, None] * turn
            diagonal[:, ROTATION] += self.rotation_precision[:, None]
