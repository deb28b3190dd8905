"""Landmarks of many heads at once, without the other vertices, for windows that are simulated during training."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avface.geometry.rotations import rotvec_to_rotmat
from avface.head.blend import BlendTerms
from avface.head.model import HeadModel

NEAREST = 0.05
"""Smallest depth in metres that is projected: no face is nearer to the camera."""


@dataclass(frozen=True, eq=False)
class FacePoints:
    """The `mediapipe478` landmarks of a head as a function of its parameters.

    Shapes: rest (L, 3), shape (S, L, 3), expression (E + P + R, L, 3), error (K, L, 3), pivots (J, 3),
            pivot_shape (S, J, 3), weights (L, J + 1).
    Units:  metres in the head's frame; error as `LandmarkEmbedding.error_basis`.
    """

    rest: Tensor
    shape: Tensor
    expression: Tensor
    """By the rows of `HeadModel.blend_basis`."""
    terms: BlendTerms
    error: Tensor
    pivots: Tensor
    pivot_shape: Tensor
    weights: Tensor
    parents: tuple[int, ...]

    @classmethod
    def of(cls, head: HeadModel) -> FacePoints:
        """Of a head.

        Raises:
            AvfaceError: if it has no embedding of MediaPipe's landmarks.
        """
        embedding = head.embedding("mediapipe478")
        triangles = torch.from_numpy(embedding.triangles)
        shares = torch.from_numpy(embedding.barycentric).float()

        def at(values: Tensor) -> Tensor:
            return torch.einsum("...lkc,lk->...lc", values[..., triangles, :], shares)

        return cls(
            rest=at(head.template),
            shape=at(head.shape_basis),
            expression=at(head.blend_basis),
            terms=head.blend_terms,
            error=torch.from_numpy(embedding.error_basis).float(),
            pivots=head.joint_regressor @ head.template,
            pivot_shape=torch.einsum("jv,svc->sjc", head.joint_regressor, head.shape_basis),
            weights=at(head.skin_weights),
            parents=head.joint_parents,
        )

    def to(self, device: torch.device | str) -> FacePoints:
        """The same on another device."""
        if self.rest.device == torch.device(device):
            return self
        moved: dict[str, Any] = {
            name: value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, (Tensor, BlendTerms))
        }
        return replace(self, **moved)

    def __call__(self, shape: Tensor, expression: Tensor, joints: Tensor | None = None) -> Tensor:
        """Points (..., T, L, 3) of people (..., S), expression (..., T, E), joints (..., T, J, 3) axis-angle."""
        neutral = self.rest + (shape @ self.shape.flatten(1)).unflatten(-1, (-1, 3))
        points = neutral[..., None, :, :] + self.displacements(expression, shape[..., None, :])
        if joints is None:
            return points
        pivots = self.pivots + torch.einsum("...s,sjc->...jc", shape, self.pivot_shape)
        local = rotvec_to_rotmat(joints)
        rotations: list[Tensor] = []
        shifts: list[Tensor] = []
        skinned = points.clone()
        for joint, parent in enumerate(self.parents):
            turn, pivot = local[..., joint, :, :], pivots[..., None, joint, :]
            shift = pivot - (turn @ pivot[..., None])[..., 0]
            if parent >= 0:
                shift = (rotations[parent] @ shift[..., None])[..., 0] + shifts[parent]
                turn = rotations[parent] @ turn
            rotations.append(turn)
            shifts.append(shift)
            moved_with = self.weights[:, joint + 1].nonzero()[:, 0]  # an eye moves ten of the 478
            held = points[..., moved_with, :]
            moved = held @ turn.transpose(-1, -2) + shift[..., None, :]
            skinned[..., moved_with, :] += self.weights[moved_with, joint + 1, None] * (moved - held)
        return skinned

    def displacements(self, expression: Tensor, shape: Tensor) -> Tensor:
        """Displacements (..., T, L, 3) of neutral points due to units (..., T, E) of people of shape (..., S)."""
        return (self.terms.weights(expression, shape) @ self.expression.flatten(1)).unflatten(-1, (-1, 3))

    def mirrored_points(self) -> Tensor:
        """(L,) the landmark on the other side of the face."""
        from scipy.optimize import linear_sum_assignment

        points = self.rest.numpy()
        distance = np.linalg.norm(points[:, None] * [-1, 1, 1] - points[None], axis=-1) ** 2
        order = linear_sum_assignment(distance + distance.T)[1]
        return torch.from_numpy(order)


_OTHER_SIDE = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}


def mirrored_units(names: tuple[str, ...]) -> Tensor:
    """(E,) the expression unit or joint of the other side, by name: `mouthLeft` and `mouthRight` are exchanged."""
    other = []
    for name in names:
        turned = re.sub("left|right|Left|Right", lambda found: _OTHER_SIDE[found[0]], name)
        other.append(names.index(turned))
    return torch.tensor(other)


def mirrored_shape(head: HeadModel) -> Tensor:
    """(S, S) matrix M: M s is the shape of the mirror image of shape s, by least squares over the vertices."""
    from scipy.spatial import cKDTree

    flip = torch.tensor([-1.0, 1.0, 1.0])
    template = head.template.numpy()
    partner = torch.from_numpy(cKDTree(template).query(template * flip.numpy())[1])
    basis = head.shape_basis.flatten(1).double()
    mirrored = (head.shape_basis[:, partner] * flip).flatten(1).double()
    return torch.linalg.solve(basis @ basis.T, basis @ mirrored.T).float()


def project(points: Tensor, rotation: Tensor, translation: Tensor, focal: Tensor, centre: Tensor) -> Tensor:
    """Pixels (..., T, L, 2) of head points (..., T, L, 3) under rotation (..., T, 3, 3), translation (..., T, 3).

    focal (..., T), centre (..., T, 2) in pixels. Depths are clamped to NEAREST, for bad predictions.
    """
    placed = points @ rotation.transpose(-1, -2) + translation[..., None, :]
    return (
        focal[..., None, None] * placed[..., :2] / placed[..., 2:].clamp_min(NEAREST) + centre[..., None, :]
    )
