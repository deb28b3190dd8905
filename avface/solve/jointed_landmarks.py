"""Landmarks of heads whose expression turns joints, such as FLAME with its jaw, with exact derivatives.

The rotation of a joint isn't linear in its angles, and the points it rotates depend on shape and expression. With the
skinning weights w of the landmarks and the centres p of the joints, a landmark in the head's frame is

    X = A + sum_j R_j C_j,   A = sum_k b_k (1 - sum_j w_kj) v_k + sum_j w_j p_j,   C_j = sum_k b_k w_kj v_k - w_j p_j

over its triangle's corners k (barycentric b). A and C_j are linear in shape, expression weights, products of pairs of
them and the entries of R - I (the correctives), so that a few constant matrices define the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from avface.arrays import Floats
from avface.errors import AvfaceError
from avface.geometry.rotations import rotvec_to_rotmat
from avface.head.blend import pair_slopes, pair_weights
from avface.head.model import HeadModel
from avface.solve.landmark_model import ROTATION, TRANSLATION, LandmarkModel, Parameters, left_jacobian
from avface.solve.linear.arrow_matrix import ArrowMatrix

Slices = slice | Tensor


def landmark_model(
    head: HeadModel,
    principal_point: tuple[float, float],
    device: str | torch.device = "cpu",
    errors: Floats | None = None,
) -> LandmarkModel:
    """The landmark model of a head: the faster linear one unless expression units turn joints.

    errors: as for `LandmarkModel`.

    Raises:
        AvfaceError: if a joint of the face is the child of another one that turns, or such a head has terms of people.
    """
    jointed = head.joint_units or len(head.corrective_basis) or head.joints_follow_expression
    kind = JointedLandmarkModel if jointed else LandmarkModel
    return kind(head, principal_point, device=device, errors=errors)


@dataclass(frozen=True)
class _Linear:
    """Points (P, 3) as a linear function: mean (P, 3), by shape (S, P, 3), by weights (W, P, 3)."""

    mean: Tensor
    by_shape: Tensor
    by_weight: Tensor

    def at(self, shape: Tensor, weights: Tensor) -> Tensor:
        """(..., P, 3) for shape (S,) and weights (..., W)."""
        fixed = self.mean + torch.einsum("s,spc->pc", shape, self.by_shape)
        return (weights @ self.by_weight.flatten(1)).unflatten(-1, (-1, 3)) + fixed


@dataclass(frozen=True)
class _Joint:
    """A joint that turns: columns of its angles among the expression units and gazes with the axis of each, the
    first of its nine correctives among the weights (-1: none), the landmarks (P,) it moves, and their C_j."""

    columns: tuple[tuple[int, int], ...]
    corrective: int
    rows: Tensor
    carried: _Linear


class JointedLandmarkModel(LandmarkModel):
    """The landmarks of a head whose jaw is a joint; see `LandmarkModel` for the unknowns.

    `expression_basis` is the derivative of the mean face's landmarks by the units at the neutral expression.
    """

    def __init__(
        self,
        head: HeadModel,
        principal_point: tuple[float, float],
        scheme: str = "mediapipe478",
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float64,
        errors: Floats | None = None,
    ) -> None:
        super().__init__(head, principal_point, scheme, device, dtype, errors)
        if len(head.person_terms):
            raise AvfaceError(
                f"{head.name}: a head whose joints are expression units can't have terms of people"
            )
        self.pairs = head.pair_units.to(device)
        turning: dict[int, list[tuple[int, int]]] = {}
        for unit, (joint, axis) in head.joint_units.items():
            turning.setdefault(joint, []).append((unit, axis))
        for eye, joint in enumerate(self.eye_joints):
            turning.setdefault(joint, []).extend((head.num_expression + 2 * eye + a, a) for a in range(2))
        for joint in turning:
            if any(above in turning for above in _ancestors(head, joint)):
                raise AvfaceError(
                    f"{head.name}: {head.joint_names[joint]} is the child of a joint that turns, too"
                )
        embedding = head.embedding(scheme)
        triangles = torch.as_tensor(embedding.triangles)
        corners = torch.as_tensor(embedding.barycentric)  # (L, 3)
        weights = head.skin_weights.double().cpu()
        regressor = head.joint_regressor.double().cpu()
        corrected = [j for j in turning if len(head.corrective_basis)]
        correctives = head.corrective_basis.double().cpu()
        correctives = torch.cat([correctives[:0], *(correctives[9 * j : 9 * j + 9] for j in corrected)])
        self.units = torch.tensor([u for u in range(head.num_expression) if u not in head.joint_units])
        shape_basis, expression = head.shape_basis.double().cpu(), head.expression_basis.double().cpu()
        template = head.template.double().cpu()
        pair_basis = head.pair_basis.double().cpu()

        def linear(share: Tensor, pivot: int | None, amount: Tensor, rows: Tensor) -> _Linear:
            """Weighted corners, share (L, 3), plus amount (L,) times a joint's centre, of some landmarks (rows)."""

            def on(values: Tensor, follows: bool) -> Tensor:  # (..., V, 3) -> (..., P, 3)
                points = torch.einsum("...lkc,lk->...lc", values[..., triangles[rows], :], share[rows])
                if pivot is not None and follows:
                    points = points + amount[rows, None] * (regressor[pivot] @ values)[..., None, :]
                return points.to(device, dtype)

            follows = head.joints_follow_expression
            by_weight = [on(expression[self.units], follows), on(pair_basis, follows), on(correctives, False)]
            return _Linear(on(template, True), on(shape_basis, True), torch.cat(by_weight))

        rows = torch.arange(len(corners))
        fixed = linear(corners, None, corners[:, 0], rows)
        self._joints: list[_Joint] = []
        for joint, columns in turning.items():
            share = corners * weights[triangles, joint + 1]
            amount = share.sum(1)
            rows = share.abs().sum(1).nonzero()[:, 0]
            carried = linear(share, joint, -amount, rows)
            for whole, part in zip(
                (fixed.mean, fixed.by_shape, fixed.by_weight),
                (carried.mean, carried.by_shape, carried.by_weight),
                strict=True,
            ):
                whole[..., rows, :] -= part
            start = (
                len(self.units) + len(head.pairs) + 9 * corrected.index(joint) if joint in corrected else -1
            )
            self._joints.append(_Joint(tuple(columns), start, rows.to(device), carried))
        own = head.num_shape
        # joints don't move the tracker's errors
        by_shape = torch.cat([fixed.by_shape, self.shape_basis[own:]])
        self._fixed = _Linear(fixed.mean, by_shape, fixed.by_weight)
        none = self.shape_basis.new_zeros
        for number, joint_ in enumerate(self._joints):
            carried = joint_.carried
            padded = torch.cat([carried.by_shape, none(len(self.shape_basis) - own, len(joint_.rows), 3)])
            self._joints[number] = _Joint(
                joint_.columns,
                joint_.corrective,
                joint_.rows,
                _Linear(carried.mean, padded, carried.by_weight),
            )
        self.expression_basis = self._by_unknowns(self._neutral_parameters())[0].permute(2, 0, 1)[
            : head.num_expression
        ]

    def points(self, parameters: Parameters) -> Tensor:
        """Landmarks (..., L, 3) in the head's frame, metres."""
        turns, weights = self._turns(parameters)
        points = self._fixed.at(parameters.shape, weights)
        for joint, turn in zip(self._joints, turns, strict=True):
            carried = joint.carried.at(parameters.shape, weights)
            points[..., joint.rows, :] += carried @ turn.mT
        return points

    def normal_equations(
        self, parameters: Parameters, weights: Tensor, residual: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Hessian (T, D, D) in single and gradient (T, D) in double precision of 1/2 sum of weights * residual^2."""
        rows = self._local_jacobian(parameters)
        pulled = weights[..., None] * residual
        gradient = torch.einsum("tlij,tli->tj", rows, pulled)
        single = (weights.sqrt()[..., None, None] * rows).to(torch.float32).flatten(1, 2)
        return single.mT @ single, gradient

    def equations_with_shared(
        self, parameters: Parameters, weights: Tensor, residual: Tensor
    ) -> tuple[ArrowMatrix, Tensor, Tensor]:
        """As for `LandmarkModel`, from the Jacobian: the shape's motion of points on joints turns with them."""
        rows = self.jacobian(parameters)
        gradient = torch.einsum("tlij,tli->tj", rows, weights[..., None] * residual)
        single = (weights.sqrt()[..., None, None] * rows).to(torch.float32).flatten(1, 2)
        local, shared = single[..., : self.num_local], single[..., self.num_local :]
        parts = local.mT @ local, local.mT @ shared, shared.flatten(0, 1).T @ shared.flatten(0, 1)
        arrow = ArrowMatrix(*(part.to(residual) for part in parts))
        return arrow, gradient[:, : self.num_local], gradient[:, self.num_local :].sum(0)

    def jacobian(self, parameters: Parameters) -> Tensor:
        """Derivative (T, L, 2, D + S + 1) of the pixels by the local and then the shared unknowns of
        `Parameters.retract`."""
        frame = self._linearise(parameters)
        by_head = frame.by_camera @ parameters.rotation[:, None]
        turns, _ = self._turns(parameters)
        by_shape = torch.einsum("tlij,slj->tlis", by_head, self._fixed.by_shape)
        for joint, turn in zip(self._joints, turns, strict=True):
            turned = by_head[:, joint.rows] @ turn[:, None]
            by_shape[:, joint.rows] += torch.einsum("tlij,slj->tlis", turned, joint.carried.by_shape)
        by_depth = (frame.by_camera @ parameters.translation[:, None, :, None])[..., 0]
        by_focal = frame.offset + by_depth
        return torch.cat([self._local_jacobian(parameters), by_shape, by_focal[..., None]], -1)

    def _local_jacobian(self, parameters: Parameters) -> Tensor:
        """Derivative (T, L, 2, D) of the pixels by the local unknowns."""
        frame = self._linearise(parameters)
        by_head = frame.by_camera @ parameters.rotation[:, None]
        jacobian = by_head.new_empty(*by_head.shape[:3], self.num_local)
        jacobian[..., ROTATION] = frame.by_rotation
        jacobian[..., TRANSLATION] = frame.by_camera
        jacobian[..., 6:] = by_head @ self._by_unknowns(parameters)
        return jacobian

    def _by_unknowns(self, parameters: Parameters) -> Tensor:
        """Derivative (T, L, 3, E + 2 G) of the points by the expression weights and gazes."""
        turns, weights = self._turns(parameters)
        frames = len(weights)
        by_weight = self._fixed.by_weight.permute(1, 2, 0).repeat(frames, 1, 1, 1)  # (T, L, 3, W)
        for joint, turn in zip(self._joints, turns, strict=True):
            carried = joint.carried.by_weight.permute(1, 2, 0)
            by_weight[:, joint.rows] += turn[:, None] @ carried
        head = self.head
        count = head.num_expression + 2 * len(self.eye_joints)
        result = by_weight.new_zeros(*by_weight.shape[:3], count)
        linear, paired = len(self.units), len(self.units) + len(self.pairs)
        result[..., self.units] = by_weight[..., :linear]
        for unit, slopes in zip(self.pairs.T, pair_slopes(parameters.expression, self.pairs), strict=True):
            result.index_add_(-1, unit, by_weight[..., linear:paired] * slopes[:, None, None])
        for joint, turn, angles in zip(self._joints, turns, self._angles(parameters), strict=True):
            arm = joint.carried.at(parameters.shape, weights) @ turn.mT  # (T, P, 3)
            axes = left_jacobian(angles)  # (T, 3, 3): column a is the rotation vector of d R / d angle a
            for column, axis in joint.columns:
                about = axes[..., axis]
                result[:, joint.rows, :, column] += torch.linalg.cross(about[:, None].expand_as(arm), arm)
                if joint.corrective >= 0:
                    # d R = [about]_x R: its columns are the cross products of R's
                    change = torch.linalg.cross(about[:, :, None].expand_as(turn), turn, dim=1).flatten(1)
                    block = by_weight[..., joint.corrective : joint.corrective + 9]
                    result[..., column] += torch.einsum("tlcf,tf->tlc", block, change)
        return result

    def _turns(self, parameters: Parameters) -> tuple[list[Tensor], Tensor]:
        """Rotations (..., 3, 3) of the joints, and weights (..., W) of the linear units, of their pairs and of the
        correctives of joints."""
        turns = [rotvec_to_rotmat(angles) for angles in self._angles(parameters)]
        identity = torch.eye(3, dtype=self.mean.dtype, device=self.mean.device)
        features = [
            (turn - identity).flatten(-2)
            for joint, turn in zip(self._joints, turns, strict=True)
            if joint.corrective >= 0
        ]
        units, pairs = (
            parameters.expression[..., self.units],
            pair_weights(parameters.expression, self.pairs),
        )
        return turns, torch.cat([units, pairs, *features], -1)

    def _angles(self, parameters: Parameters) -> Iterator[Tensor]:
        """Axis-angle vectors (..., 3) of the joints."""
        unknowns = torch.cat([parameters.expression, parameters.gaze.flatten(-2)], -1)
        for joint in self._joints:
            angles = unknowns.new_zeros(*unknowns.shape[:-1], 3)
            for column, axis in joint.columns:
                angles[..., axis] = unknowns[..., column]
            yield angles

    def _neutral_parameters(self) -> Parameters:
        """One frame of the neutral mean face."""
        zeros = self.mean.new_zeros
        return Parameters(
            torch.eye(3).to(self.mean)[None],
            zeros(1, 3),
            zeros(1, self.head.num_expression),
            zeros(1, len(self.eye_joints), 2),
            zeros(len(self.shape_basis)),
            zeros(()),
        )


def _ancestors(head: HeadModel, joint: int) -> Iterator[int]:
    """The ancestors of a joint, up to the root."""
    while (joint := head.joint_parents[joint]) >= 0:
        yield joint
