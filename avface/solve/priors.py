"""The prior of one frame's expression and gaze."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avface.errors import AvfaceError
from avface.head.model import HeadModel

MIRRORED = {
    "eyeBlink": 3.0,
    "eyeSquint": 3.0,
    "eyeWide": 3.0,
    "browDown": 2.0,
    "browOuterUp": 1.0,
    "cheekSquint": 2.0,
    "noseSneer": 2.0,
    "mouthSmile": 0.5,
    "mouthFrown": 1.0,
    "mouthDimple": 1.0,
    "mouthStretch": 1.0,
    "mouthLowerDown": 2.0,
    "mouthUpperUp": 1.0,
    "mouthPress": 1.0,
}
"""Units with a left and a right half, with the factor on the cost of their difference: most facial muscles are
innervated symmetrically, those of lids and upper face above all, while the corners of the mouth are often asymmetric
(Ekman & Friesen's FACS manual treats unilateral actions as exceptions to be noted)."""

OPPOSED = (
    ("jawLeft", "jawRight"),
    ("mouthLeft", "mouthRight"),
    ("mouthSmileLeft", "mouthFrownLeft"),
    ("mouthSmileRight", "mouthFrownRight"),
    ("mouthPucker", "mouthStretchLeft"),
    ("mouthPucker", "mouthStretchRight"),
    ("mouthPucker", "mouthSmileLeft"),
    ("mouthPucker", "mouthSmileRight"),
    ("mouthFunnel", "mouthPressLeft"),
    ("mouthFunnel", "mouthPressRight"),
    ("eyeBlinkLeft", "eyeWideLeft"),
    ("eyeBlinkRight", "eyeWideRight"),
    ("eyeSquintLeft", "eyeWideLeft"),
    ("eyeSquintRight", "eyeWideRight"),
    ("eyeLookUpLeft", "eyeLookDownLeft"),
    ("eyeLookUpRight", "eyeLookDownRight"),
    ("eyeLookInLeft", "eyeLookOutLeft"),
    ("eyeLookInRight", "eyeLookOutRight"),
    ("browDownLeft", "browOuterUpLeft"),
    ("browDownRight", "browOuterUpRight"),
    ("mouthRollLower", "mouthLowerDownLeft"),
    ("mouthRollLower", "mouthLowerDownRight"),
    ("mouthRollUpper", "mouthUpperUpLeft"),
    ("mouthRollUpper", "mouthUpperUpRight"),
)
"""Antagonists: units that pull the same skin in opposite directions and are not active together."""

CONTAINED = (("mouthClose", "jawOpen"),)
"""(a, b): the weight of a stays below that of b. ARKit defines mouthClose as the closing of the lips *relative to* an
open jaw."""

RARE = {
    "tongueOut": 30.0,
    "cheekPuff": 4.0,
    "jawForward": 4.0,
    "jawLeft": 4.0,
    "jawRight": 4.0,
    "mouthClose": 2.0,
    "mouthLeft": 2.0,
    "mouthRight": 2.0,
}
"""Factors on the cost of units that are rare in talking, or that landmarks don't show (the tongue)."""


@dataclass(frozen=True)
class ExpressionPriorConfig:
    """Strengths of the expression prior; a cost of 1/2 is one standard deviation."""

    sparsity: float = 0.6
    """Linear cost of a unit at weight 1 (L1 penalty), for sparse expressions."""
    precision: float = 1.5
    """Quadratic cost: half of this times the square of a unit's weight."""
    mirror: float = 2.0
    """Quadratic cost of the difference between the halves of a mirrored unit, times the unit's factor in MIRRORED."""
    contain: float = 60.0
    """Quadratic cost of the excess of a contained unit over its container (CONTAINED)."""
    gaze_sigma: float = 0.35
    """Standard deviation of the direction of gaze in radians."""
    vergence_sigma: float = 0.03
    """Standard deviation in radians of the difference between the two eyes."""
    lid_sigma: float = 0.05
    """Standard deviation in radians of the gaze against the direction of the eyeLook units."""

    def __post_init__(self) -> None:
        for name in ("sparsity", "precision", "mirror", "contain"):
            if not getattr(self, name) >= 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be 0 or more")
        for name in ("gaze_sigma", "vergence_sigma", "lid_sigma"):
            if not getattr(self, name) > 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be above 0")


class ExpressionPrior:
    """A quadratic cost on one frame's local unknowns: linear . x + 1/2 x . precision . x, plus containment.

    Unknowns are ordered as in `LandmarkModel`; pose has no cost. linear (D,), precision (D, D), positive semidefinite.
    Units are matched by ARKit's names; heads with other units get only the variances of `HeadModel.unit_range`.
    """

    def __init__(self, head: HeadModel, num_local: int, config: ExpressionPriorConfig) -> None:
        names = head.expression_names
        units = len(names)
        index = {name: 6 + k for k, name in enumerate(names)}
        linear, precision = np.zeros(num_local), np.zeros((num_local, num_local))
        arkit = "jawOpen" in index
        rare = np.array([RARE.get(name, 1.0) for name in names])
        if arkit:
            linear[6 : 6 + units] = config.sparsity * rare
        precision[6 : 6 + units, 6 : 6 + units] = np.diag(
            config.precision * rare if arkit else head.unit_range.sigma**-2
        )

        def add(coefficients: dict[int, float], weight: float) -> None:
            row = np.zeros(num_local)
            row[list(coefficients)] = list(coefficients.values())
            precision[:] += weight * np.outer(row, row)

        for a, b in OPPOSED:
            if a in index and b in index:
                i, j = index[a], index[b]
                # The largest coupling that keeps the 2 x 2 block positive definite, with a margin.
                coupling = 0.9 * np.sqrt(precision[i, i] * precision[j, j])
                precision[i, j] += coupling / 2
                precision[j, i] += coupling / 2
        for stem, factor in MIRRORED.items():
            if f"{stem}Left" in index:
                add({index[f"{stem}Left"]: 1, index[f"{stem}Right"]: -1}, config.mirror * factor)
        first = 6 + units
        eyes = (num_local - first) // 2
        for column in range(first, num_local):
            add({column: 1}, config.gaze_sigma**-2)
        if eyes == 2:
            for axis in range(2):
                add({first + axis: 1, first + 2 + axis: -1}, config.vergence_sigma**-2)
        if arkit and eyes == 2:
            up, down, inward, outward = head.gaze_range
            for eye, (side, to_left) in enumerate((("Left", 1), ("Right", -1))):
                pitch, yaw = first + 2 * eye, first + 2 * eye + 1
                weight = config.lid_sigma**-2
                add({index[f"eyeLookUp{side}"]: up, index[f"eyeLookDown{side}"]: -down, pitch: 1}, weight)
                outer, inner = index[f"eyeLookOut{side}"], index[f"eyeLookIn{side}"]
                add({outer: outward, inner: -inward, yaw: -to_left}, weight)
        self.linear = torch.as_tensor(linear)
        self.precision = torch.as_tensor(precision)
        self.contained = [(index[a], index[b]) for a, b in CONTAINED if a in index and b in index]
        self.contain = config.contain

    def cost(self, x: Tensor) -> Tensor:
        """Cost (...) of local unknowns x (..., D)."""
        cost = x @ self.linear.to(x) + 0.5 * (x @ self.precision.to(x) * x).sum(-1)
        for inner, outer in self.contained:
            cost = cost + 0.5 * self.contain * (x[..., inner] - x[..., outer]).clamp_min(0) ** 2
        return cost

    def normal_equations(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Hessian (..., D, D) and gradient (..., D) of the cost at x (..., D)."""
        precision = self.precision.to(x)
        gradient = self.linear.to(x) + x @ precision
        hessian = precision.expand(*x.shape, -1).clone()
        for inner, outer in self.contained:
            excess = (x[..., inner] - x[..., outer]).clamp_min(0)
            active = self.contain * (excess > 0).to(x)
            for i, j, sign in ((inner, inner, 1), (outer, outer, 1), (inner, outer, -1), (outer, inner, -1)):
                hessian[..., i, j] += sign * active
            gradient[..., inner] += self.contain * excess
            gradient[..., outer] -= self.contain * excess
        return hessian, gradient
