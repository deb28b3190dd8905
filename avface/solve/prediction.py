"""What is expected of a clip before its landmarks are looked at, and how that enters the fit."""

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
    """Normal distributions of what somebody predicts for T frames, such as networks that see and hear them.

    Each number stands for itself: standard deviations without correlations. An infinite one says nothing.
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
    """(S,) mean weights of the head's shape components. They take the place of the population's, of mean 0 and
    standard deviation 1, where they are surer."""
    shape_sigma: Floats | None = None
    """(S,) their standard deviations."""

    def check(self, frames: int, units: int, components: int) -> None:
        """See that it is about so many frames, expression units and shape components.

        Raises:
            ValueError: if it isn't, or a standard deviation isn't above 0.
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
    """The prediction of somebody who knows nothing."""
    nothing = np.broadcast_to(np.float32(0), (frames, units))
    return Prediction(nothing, np.broadcast_to(np.float32(np.inf), (frames, units)))


@dataclass(frozen=True)
class FramePrior:
    """Normal distributions of the unknowns of T frames. Shapes: expression (T, E), its precision (T, E), rotation
    (T, 3, 3) and its precision (T,) in radians^-2, or None. A precision of 0 says nothing."""

    expression: Tensor
    precision: Tensor
    rotation: Tensor | None = None
    rotation_precision: Tensor | None = None

    @classmethod
    def of(cls, prediction: Prediction, rows: Int, least: Tensor) -> FramePrior:
        """Those of some frames; least (E,) is added to the standard deviations of the expression in quadrature."""

        def load(values: Floats) -> Tensor:
            return torch.as_tensor(np.asarray(values[rows], np.float64), device=least.device)

        rotation = rotation_precision = None
        if prediction.rotation is not None and prediction.rotation_sigma is not None:
            rotation, rotation_precision = load(prediction.rotation), load(prediction.rotation_sigma) ** -2
        precision = 1 / (load(prediction.expression_sigma) ** 2 + least**2)
        return cls(load(prediction.expression), precision, rotation, rotation_precision)

    def select(self, rows: slice) -> FramePrior:
        """Those of some of the frames."""
        return FramePrior(
            self.expression[rows],
            self.precision[rows],
            None if self.rotation is None else self.rotation[rows],
            None if self.rotation_precision is None else self.rotation_precision[rows],
        )

    def weakened(self, units: Tensor, pose: Tensor) -> FramePrior:
        """The same with precisions multiplied by shares in [0, 1]: of expression units (T, E), and of the pose (T,)."""
        turns = self.rotation_precision
        return FramePrior(
            self.expression, units * self.precision, self.rotation, None if turns is None else pose * turns
        )

    def product(self, other: FramePrior, share: Tensor) -> FramePrior:
        """The product of these distributions of expressions with others, whose precision counts by a share (T, E)."""
        added = share * other.precision
        precision = self.precision + added
        sum_ = self.precision * self.expression + added * other.expression
        return FramePrior(
            sum_ / precision.clamp_min(1e-12), precision, self.rotation, self.rotation_precision
        )

    def cost(self, parameters: Parameters) -> Tensor:
        """Cost (T,): half the squared distance in standard deviations."""
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
            # exact for the gradient: the left Jacobian of SO(3) leaves the vector it belongs to as it is
            turn = rotmat_to_rotvec(parameters.rotation @ self.rotation.mT)
            gradient[:, ROTATION] += self.rotation_precision[:, None] * turn
            diagonal[:, ROTATION] += self.rotation_precision[:, None]
