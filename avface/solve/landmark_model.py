"""Landmarks as a function of a head's parameters, with exact derivatives.

One frame has the local unknowns x = [rotation 3, translation 3, expression E, gaze 2 for each eye]; the clip shares
y = [shape S, log focal length]. A landmark's pixel is

    u = f Y_xy / Y_z + c,   Y = R X + t,   X = m + S y + E x_e + B w(x_e, y)   (and, on an eyeball, turned about
    its centre)

with the weights w of a head's correctives B: of pairs of units, and of people (`avface.head.blend.BlendTerms`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from avface.arrays import Floats
from avface.geometry.rotations import nearest_rotation, rotvec_to_rotmat
from avface.head.model import HeadModel
from avface.solve.expression_motion import ExpressionMotion
from avface.solve.linear.arrow_matrix import ArrowMatrix

ROTATION = slice(0, 3)
TRANSLATION = slice(3, 6)


@dataclass
class Parameters:
    """Unknowns of a batch of frames. Shapes: rotation (..., 3, 3) matrices, translation (..., 3), expression (..., E),
    gaze (..., G, 2) pitch and yaw of each eye in radians, shape (S,), log_focal ()."""

    rotation: Tensor
    translation: Tensor
    expression: Tensor
    gaze: Tensor
    shape: Tensor
    log_focal: Tensor
    limits: tuple[Tensor, Tensor] | None = None
    """Least and largest weights (E,) of the expression units; None for 0 and 1."""

    def retract(self, local: Tensor, shared: Tensor | None = None) -> Parameters:
        """The parameters after a step (..., D) of each frame's unknowns and (S + 1,) of the shared ones.

        Expression weights are clamped to their limits. A change of the focal length multiplies the translation by the
        same factor, so that heads keep their size in the picture: alone, focal length and distance are nearly
        degenerate.
        """
        units = self.expression.shape[-1]
        rotation = rotvec_to_rotmat(local[..., ROTATION]) @ self.rotation
        expression = self.expression + local[..., 6 : 6 + units]
        expression = expression.clamp(0, 1) if self.limits is None else expression.clamp(*self.limits)
        gaze = self.gaze + local[..., 6 + units :].reshape(self.gaze.shape)
        translation = self.translation + local[..., TRANSLATION]
        shape, log_focal = self.shape, self.log_focal
        if shared is not None:
            shape, log_focal = shape + shared[:-1], log_focal + shared[-1]
            translation = translation * torch.exp(shared[-1])
        return Parameters(rotation, translation, expression, gaze, shape, log_focal, self.limits)

    def in_windows(self, count: int) -> Parameters:
        """The frames (T, ...) as `count` windows of equal length (B, N, ...)."""
        return Parameters(
            self.rotation.unflatten(0, (count, -1)),
            self.translation.unflatten(0, (count, -1)),
            self.expression.unflatten(0, (count, -1)),
            self.gaze.unflatten(0, (count, -1)),
            self.shape,
            self.log_focal,
            self.limits,
        )

    def select(self, index: Tensor | slice) -> Parameters:
        """The parameters of some frames (an index into the first axis)."""
        return Parameters(
            self.rotation[index],
            self.translation[index],
            self.expression[index],
            self.gaze[index],
            self.shape,
            self.log_focal,
            self.limits,
        )

    def where(self, mask: Tensor, others: Parameters) -> Parameters:
        """These frames where mask (T,), the others elsewhere; the shared unknowns are those of the others."""

        def mix(a: Tensor, b: Tensor) -> Tensor:
            return torch.where(mask.view(-1, *[1] * (a.ndim - 1)), a, b)

        return Parameters(
            mix(self.rotation, others.rotation),
            mix(self.translation, others.translation),
            mix(self.expression, others.expression),
            mix(self.gaze, others.gaze),
            others.shape,
            others.log_focal,
            others.limits,
        )


class LandmarkModel:
    """The landmarks of a head under a camera.

    L landmarks, S shape components, E expression units, G eyes (0 for a head without eye joints). The last K of the
    shape components are the tracker's bias on this person, relative to its mean places of the landmarks on the skin;
    they move landmarks only.
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
        """errors: (K, L, 3) metres, components of the tracker's errors, each scaled to one standard deviation; the
        embedding's `error_basis` if None."""
        embedding = head.embedding(scheme)
        barycentric = torch.as_tensor(embedding.barycentric)
        triangles = torch.as_tensor(embedding.triangles)

        def on_landmarks(values: Tensor) -> Tensor:  # (..., V, C) -> (..., L, C)
            return torch.einsum("...lkc,lk->...lc", values.double().cpu()[..., triangles, :], barycentric)

        self.head = head
        self.limits = (
            torch.as_tensor(head.unit_range.low).to(device, dtype),
            torch.as_tensor(head.unit_range.high).to(device, dtype),
        )
        self.mean = on_landmarks(head.template).to(device, dtype)
        biases = torch.as_tensor(embedding.error_basis if errors is None else errors).to(device, dtype)
        shapes = on_landmarks(head.shape_basis).to(device, dtype)
        self.shape_basis = torch.cat([shapes, biases])  # (S, L, 3), S = head's components + K
        self.expression_basis = on_landmarks(head.expression_basis).to(device, dtype)  # (E, L, 3)
        terms = head.blend_terms.to(device)
        correctives = on_landmarks(torch.cat([head.pair_basis, head.person_basis])).to(device, dtype)
        self.spread = torch.as_tensor(embedding.spread).to(device, dtype)
        self.centre = torch.as_tensor(principal_point, dtype=dtype, device=device)
        weights = on_landmarks(head.skin_weights)  # (L, J + 1)
        self.eye_joints = [j for j, name in enumerate(head.joint_names) if name in ("left_eye", "right_eye")]
        self.eye_points = [(weights[:, j + 1] > 0.5).nonzero()[:, 0].to(device) for j in self.eye_joints]
        regressor = head.joint_regressor.double().cpu()[self.eye_joints]
        self.eye_mean = (regressor @ head.template.double().cpu()).to(device, dtype)  # (G, 3)
        eye_basis = torch.einsum("gv,svc->gsc", regressor, head.shape_basis.double().cpu()).to(device, dtype)
        self.eye_basis = torch.cat([eye_basis, eye_basis.new_zeros(len(eye_basis), len(biases), 3)], 1)
        for rows in self.eye_points:  # eyeballs turn by their joints; expression doesn't move them
            self.expression_basis[:, rows] = 0
            correctives[:, rows] = 0
        # As (3 L, S), one matrix product serves all frames.
        self.shape_rows = self.shape_basis.flatten(1).T.contiguous()
        self._expression = ExpressionMotion(self.expression_basis, correctives, terms)

    @property
    def num_local(self) -> int:
        """Unknowns of one frame."""
        return 6 + self.num_units + 2 * len(self.eye_joints)

    @property
    def num_units(self) -> int:
        """Expression units."""
        return self.expression_basis.shape[0]

    @property
    def num_landmarks(self) -> int:
        """Landmarks of the scheme."""
        return self.mean.shape[0]

    @property
    def reach(self) -> Tensor:
        """The largest weight (E,) of the expression units to either side."""
        least, most = self.limits
        return torch.maximum(-least, most)

    def tensor(self, values: npt.ArrayLike) -> Tensor:
        """Values in the model's precision and on its device."""
        return torch.as_tensor(np.ascontiguousarray(values), dtype=self.mean.dtype, device=self.mean.device)

    def bounds(self, parameters: Parameters) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds (T, D) of a step of the local unknowns: expression weights stay inside their
        limits."""
        weights = parameters.expression
        low = weights.new_full((len(weights), self.num_local), -torch.inf)
        high = -low
        units = slice(6, 6 + self.num_units)
        least, most = self.limits
        low[:, units], high[:, units] = least - weights, most - weights
        return low, high

    def neutral(self, shape: Tensor) -> Tensor:
        """Landmarks (L, 3) of the neutral face, in the head's frame."""
        return self.mean + torch.einsum("s,slc->lc", shape, self.shape_basis)

    def points(self, parameters: Parameters) -> Tensor:
        """Landmarks (T, L, 3) in the head's frame, metres."""
        shape = parameters.shape
        points = self._expression.offsets(parameters.expression, shape) + self.neutral(shape)
        for eye, rows in enumerate(self.eye_points):
            centre = self.eye_mean[eye] + parameters.shape @ self.eye_basis[eye]
            turn = gaze_rotation(parameters.gaze[..., eye, :])
            points[..., rows, :] = (points[..., rows, :] - centre) @ turn.transpose(-1, -2) + centre
        return points

    def project(self, parameters: Parameters) -> Tensor:
        """Landmarks (T, L, 2) in pixels."""
        points = self.points(parameters) @ parameters.rotation.transpose(-1, -2)
        points = points + parameters.translation[..., None, :]
        return torch.exp(parameters.log_focal) * points[..., :2] / points[..., 2:] + self.centre

    def normal_equations(
        self, parameters: Parameters, weights: Tensor, residual: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Hessian (T, D, D) in single and gradient (T, D) in double precision of 1/2 sum of weights * residual^2.

        weights (T, L), residual (T, L, 2) pixels. The same numbers as from `jacobian`, many times faster: landmarks
        are taken in groups with the unknowns that move them.
        """
        return self._normal_equations(parameters, self._linearise(parameters), weights, residual)

    def _normal_equations(
        self, parameters: Parameters, frame: _Linearised, weights: Tensor, residual: Tensor
    ) -> tuple[Tensor, Tensor]:
        root = weights.sqrt()
        first_gaze = 6 + self.num_units
        gradient = residual.new_zeros(len(residual), self.num_local)
        pulled = weights[..., None] * residual
        by_head = frame.by_camera @ parameters.rotation[:, None]
        basis = self._expression.basis(parameters.shape)
        forces = (by_head * pulled[..., None]).sum(2)
        gradient[:, 6:first_gaze] = self._expression.pull(forces, parameters.expression, basis)
        gradient[:, ROTATION] = (frame.by_rotation * pulled[..., None]).sum((1, 2))
        gradient[:, TRANSLATION] = (frame.by_camera * pulled[..., None]).sum((1, 2))

        single = torch.float32
        hessian = residual.new_zeros(len(residual), self.num_local, self.num_local, dtype=single)
        by_local = hessian.new_empty(len(residual), 9, 2, self.num_landmarks)
        for place, part in enumerate((frame.by_rotation, frame.by_camera, by_head)):
            by_local[:, 3 * place : 3 * place + 3] = part.permute(0, 3, 2, 1)
        by_local *= root.to(single)[:, None, None]
        self._expression.add_products(hessian, by_local, parameters.expression, basis)
        for eye, points in enumerate(self.eye_points):
            gaze = slice(first_gaze + 2 * eye, first_gaze + 2 * eye + 2)
            by_gaze = self._by_gaze(parameters, frame, by_head, eye)
            gradient[:, gaze] = torch.einsum("tlij,tli->tj", by_gaze, pulled[:, points])
            rows = (root[:, points, None, None] * by_gaze).to(single).flatten(1, 2)
            hessian[:, gaze, gaze] = rows.mT @ rows
            hessian[:, :6, gaze] = by_local[:, :6, :, points].mT.flatten(2) @ rows
        hessian[:, 6:, :6] = hessian[:, :6, 6:].mT
        return hessian, gradient

    def equations_with_shared(
        self, parameters: Parameters, weights: Tensor, residual: Tensor
    ) -> tuple[ArrowMatrix, Tensor, Tensor]:
        """Hessian in single precision, and gradients (T, D) and (S + 1,) by the local and the shared unknowns of
        1/2 sum of weights * residual^2.

        weights (T, L), residual (T, L, 2) pixels. The same numbers as from `jacobian`, many times faster: a shape
        component moves a point equally in all frames, up to the head's rotation. With M_l = A_l^T A_l for the
        derivative A_l (2, 3) of a landmark's pixel by its place in the head's frame, the shared blocks of all frames
        add up to sum_l S_l^T (sum_t M_l) S_l.
        """
        frame = self._linearise(parameters)
        hessian, gradient = self._normal_equations(parameters, frame, weights, residual)
        by_head = frame.by_camera @ parameters.rotation[:, None]
        by_focal = self._by_focal(parameters, frame)
        pulled = weights[..., None] * residual
        forces = torch.einsum("tlij,tli->tlj", by_head, pulled)
        single = torch.float32
        root = weights.sqrt()
        weighted = (root[..., None, None] * by_head).to(single)
        focal = (root[..., None] * by_focal).to(single).mT  # (T, 2, L)
        local = root.to(single)[:, None, None] * self._by_local(parameters, frame, by_head, single)
        # P landmarks whose motion by the shape changes from frame to frame, with weighted derivatives (T, 2 P, S).
        varying = []
        by_shape = self._expression.pull_shape(forces, parameters.expression)
        by_shape = torch.nn.functional.pad(by_shape, (0, len(self.shape_basis) - len(by_shape)))
        if len(personal := self._expression.personal):
            varying.append((personal, self._by_shape_of_person(parameters, weighted).flatten(1, 2)))
        for eye, rows in enumerate(self.eye_points):
            by_own = self._by_shape_of_eye(parameters, by_head, eye)
            by_shape = by_shape + torch.einsum("tpis,tpi->s", by_own, pulled[:, rows])
            forces[:, rows] = 0
            turned = (root[:, rows, None, None] * by_own).to(single)
            varying.append((rows, turned.flatten(1, 2)))
        by_shape = by_shape + forces.sum(0).flatten() @ self.shape_rows
        shared_gradient = torch.cat([by_shape, (by_focal * pulled).sum()[None]])

        head = weighted.permute(0, 3, 2, 1).contiguous()  # (T, 3, 2, L)
        for rows, _ in varying:
            head[..., rows] = 0
        shape_rows = self.shape_basis.to(single).permute(2, 1, 0)  # (3, L, S)
        squares = torch.einsum("tail,tbil->lab", head, head)
        through = local[:, :, None, 0] * head[:, None, :, 0]  # (T, D, 3, L)
        through.addcmul_(local[:, :, None, 1], head[:, None, :, 1])
        coupling = through.flatten(2) @ shape_rows.flatten(0, 1)
        shared = torch.einsum("als,lab,blr->sr", shape_rows, squares, shape_rows)
        by_both = torch.einsum("tail,til->al", head, focal).flatten() @ shape_rows.flatten(0, 1)
        for rows, turned in varying:
            coupling += local[..., rows].mT.flatten(2) @ turned
            shared += turned.flatten(0, 1).T @ turned.flatten(0, 1)
            by_both = by_both + focal[..., rows].mT.flatten() @ turned.flatten(0, 1)
        coupling = torch.cat([coupling, local.flatten(2) @ focal.flatten(1)[..., None]], -1)
        corner = focal.square().sum()[None]
        shared = torch.cat([torch.cat([shared, by_both[:, None]], 1), torch.cat([by_both, corner])[None]])
        arrow = ArrowMatrix(*(part.to(residual) for part in (hessian, coupling, shared)))
        return arrow, gradient, shared_gradient

    def jacobian(self, parameters: Parameters) -> Tensor:
        """Derivative (T, L, 2, D + S + 1) of the pixels by the local and then the shared unknowns of
        `Parameters.retract`."""
        frame = self._linearise(parameters)
        by_head = frame.by_camera @ parameters.rotation[:, None]
        by_shape = (by_head @ self.shape_rows.unflatten(0, (-1, 3))).contiguous()
        for eye, points in enumerate(self.eye_points):
            by_shape[:, points] = self._by_shape_of_eye(parameters, by_head, eye)
        if len(personal := self._expression.personal):
            by_shape[:, personal] = self._by_shape_of_person(parameters, by_head)
        local = self._by_local(parameters, frame, by_head, by_head.dtype)
        return torch.cat(
            [local.permute(0, 3, 2, 1), by_shape, self._by_focal(parameters, frame)[..., None]], -1
        )

    def _by_local(
        self, parameters: Parameters, frame: _Linearised, by_head: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """Derivative (T, D, 2, L) of the pixels by the local unknowns."""
        local = by_head.new_zeros(len(by_head), self.num_local, 2, by_head.shape[1], dtype=dtype)
        local[:, ROTATION] = frame.by_rotation.permute(0, 3, 2, 1)
        local[:, TRANSLATION] = frame.by_camera.permute(0, 3, 2, 1)
        first_gaze = 6 + self.num_units
        basis = self._expression.basis(parameters.shape).to(dtype)
        self._expression.jacobian(
            by_head.to(dtype), parameters.expression.to(dtype), basis, local[:, 6:first_gaze]
        )
        for eye, points in enumerate(self.eye_points):
            column = first_gaze + 2 * eye
            by_gaze = self._by_gaze(parameters, frame, by_head, eye)
            local[:, column : column + 2, :, points] = by_gaze.permute(0, 3, 2, 1).to(dtype)
        return local

    def _by_shape_of_person(self, parameters: Parameters, by_head: Tensor) -> Tensor:
        """Derivative (T, D, 2, S) of the pixels of landmarks that terms of the person move, by the shape."""
        rows = self._expression.personal
        constant = self.shape_rows.unflatten(0, (-1, 3))[rows].to(by_head)
        changing = self._expression.by_shape(parameters.expression.to(by_head))
        basis = torch.nn.functional.pad(changing, (0, constant.shape[-1] - changing.shape[-1])) + constant
        return by_head[:, rows] @ basis

    def _by_shape_of_eye(self, parameters: Parameters, by_head: Tensor, eye: int) -> Tensor:
        """Derivative (T, P, 2, S) of an eye's P landmarks by the shape, which also moves its centre."""
        points, centre = self.eye_points[eye], self.eye_basis[eye]
        turn = gaze_rotation(parameters.gaze[:, eye])
        basis = torch.einsum("tjk,slk->tslj", turn, self.shape_basis[:, points] - centre[:, None])
        return torch.einsum("tlij,tslj->tlis", by_head[:, points], basis + centre[None, :, None])

    def _by_focal(self, parameters: Parameters, frame: _Linearised) -> Tensor:
        """Derivative (T, L, 2) of the pixels by the logarithm of the focal length, which scales the translation,
        too."""
        return frame.offset + (frame.by_camera @ parameters.translation[:, None, :, None])[..., 0]

    def _linearise(self, parameters: Parameters) -> _Linearised:
        points = self.points(parameters)
        turned = points @ parameters.rotation.mT
        camera_points = turned + parameters.translation[:, None]
        z = camera_points[..., 2:]
        focal = torch.exp(parameters.log_focal)
        offset = focal * camera_points[..., :2] / z
        by_camera = torch.zeros(*z.shape[:2], 2, 3, dtype=z.dtype, device=z.device)
        by_camera[..., 0, 0] = by_camera[..., 1, 1] = focal / z[..., 0]
        by_camera[..., :, 2] = -offset / z
        by_rotation = torch.linalg.cross(turned[..., None, :].expand_as(by_camera), by_camera, dim=-1)
        return _Linearised(points, offset, by_camera, by_rotation)

    def _by_gaze(self, parameters: Parameters, frame: _Linearised, by_head: Tensor, eye: int) -> Tensor:
        """Derivative (T, P, 2, 2) of an eye's P landmarks by its pitch and yaw."""
        points = self.eye_points[eye]
        centre = self.eye_mean[eye] + parameters.shape @ self.eye_basis[eye]
        arm = (frame.points[:, points] - centre)[..., None, :]
        at = by_head[:, points]
        # d (turn x) / d gaze = -[turn x]_x J(gaze), J the left Jacobian of SO(3)
        by_turn = torch.linalg.cross(arm.expand_as(at), at, dim=-1)
        gaze = parameters.gaze[:, eye]
        vector = torch.cat([gaze, torch.zeros_like(gaze[..., :1])], -1)
        return (by_turn @ left_jacobian(vector)[:, None])[..., :2]


@dataclass(frozen=True)
class _Linearised:
    """points (T, L, 3) in the head's frame, offset (T, L, 2) of the pixels from the principal point, and the
    derivatives (T, L, 2, 3) of the pixels by the camera point and by a small rotation of the head."""

    points: Tensor
    offset: Tensor
    by_camera: Tensor
    by_rotation: Tensor


def gaze_rotation(gaze: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of pitch (about +x, down) and yaw (about +y, to the subject's left) in radians.

    The two are an axis-angle vector without a part along z: Listing's law, eyes do not roll.
    """
    return rotvec_to_rotmat(torch.cat([gaze, torch.zeros_like(gaze[..., :1])], -1))


def left_jacobian(vector: Tensor) -> Tensor:
    """Left Jacobian (..., 3, 3) of SO(3) at axis-angle vectors (..., 3)."""
    identity = torch.eye(3, dtype=vector.dtype, device=vector.device)
    angle = vector.norm(dim=-1)[..., None, None].clamp_min(1e-9)
    columns = vector[..., None, :].expand(*vector.shape[:-1], 3, 3)
    cross = torch.linalg.cross(columns, identity.expand_as(columns), dim=-1).mT
    first = (1 - torch.cos(angle)) / angle**2
    second = (angle - torch.sin(angle)) / angle**3
    small = angle < 1e-3
    first = torch.where(small, torch.full_like(first, 0.5), first)
    second = torch.where(small, torch.full_like(second, 1 / 6), second)
    return identity + first * cross + second * cross @ cross


def initial_pose(
    model: LandmarkModel, landmarks: Tensor, focal: float, shape: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Rotation (T, 3, 3) and translation (T, 3) from landmarks (T, L, 2) in pixels by scaled orthography.

    The weighted least-squares affine camera from the neutral face to the landmarks, projected to a rotation; weights
    (T, L), equal by default. Frames whose landmarks are nan get the pose of the nearest frame with landmarks.
    """
    neutral = model.neutral(shape)
    source = torch.cat([neutral, torch.ones_like(neutral[:, :1])], -1)
    # A small weight of all landmarks regularises frames in which too few are visible.
    weights = landmarks.new_ones(landmarks.shape[:2]) if weights is None else weights
    weighted = (weights + 1e-4)[..., None] * source
    normal = weighted.mT @ source
    right = weighted.mT @ (landmarks - model.centre)
    affine = torch.linalg.solve(normal, right).mT  # (T, 2, 4)
    solved = torch.isfinite(affine).all(-1).all(-1).nonzero()[:, 0]
    nearest = np.abs(np.arange(len(affine))[:, None] - solved.cpu().numpy()).argmin(1)
    affine = affine[solved[torch.as_tensor(nearest, device=affine.device)]]
    # Two axes of the picture and their cross product, orthonormalised by Procrustes.
    rows = affine[..., :3]
    scale = rows.norm(dim=-1).mean(-1)
    third = torch.linalg.cross(rows[:, 0], rows[:, 1], dim=-1) / scale[:, None]
    rotation = nearest_rotation(torch.stack([rows[:, 0], rows[:, 1], third], 1))
    depth = focal / scale
    translation = torch.cat([affine[..., 3] * (depth / focal)[:, None], depth[:, None]], -1)
    return rotation, translation


def initial_parameters(
    model: LandmarkModel, landmarks: Tensor, weights: Tensor, shape: Tensor, log_focal: Tensor
) -> Parameters:
    """The neutral face in the pose of `initial_pose`, T frames."""
    rotation, translation = initial_pose(model, landmarks, float(torch.exp(log_focal)), shape, weights)
    return Parameters(
        rotation,
        translation,
        landmarks.new_zeros(len(landmarks), model.num_units),
        landmarks.new_zeros(len(landmarks), len(model.eye_joints), 2),
        shape,
        log_focal,
        model.limits,
    )
