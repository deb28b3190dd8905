"""Losses of the coarse networks by name, each multiplied by its weight."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avface.geometry.rotations import rotmat_to_rotvec
from avface.head.model import HeadModel
from avface.networks.coarse.codes import (
    CoarseCode,
    ExpressionCode,
    perspective_camera,
    perspective_translation,
)
from avface.networks.coarse.encoders import drop_modalities
from avface.networks.coarse.losses.likelihood import (
    landmark_likelihood_loss,
    negative_log_likelihood,
    unit_likelihood_loss,
)
from avface.networks.coarse.losses.supervised import (
    rotation_loss,
    velocity_loss,
    vertex_weights,
)
from avface.networks.coarse.model import CoarseNetworks
from avface.networks.frames import Frames
from avface.networks.regions import LANDMARK_REGIONS, unit_regions
from avface.training.coarse.batches import FRAME_RATE, Batch
from avface.training.coarse.face_points import FacePoints, project
from avface.training.coarse.recipes import Supervision

VERTICES = 1200
"""Number of vertices that the losses use: all of the lips, and an even selection of the others."""


class SupervisedObjective(nn.Module):
    """Losses of the networks against the ground truth of synthetic clips.

    Each branch has losses of its own, with the true values of the other, so that neither compensates for the other's
    errors. Only the expression branch has modality dropout (`drop_modalities`).
    """

    _units: Tensor
    _shape: Tensor
    _importance: Tensor
    _regions: Tensor

    def __init__(self, networks: CoarseNetworks, head: HeadModel, weights: Supervision) -> None:
        super().__init__()
        self.networks, self.weights = networks, weights
        chosen = _chosen_vertices(head)
        importance = vertex_weights(head)[chosen]
        units = unit_regions(head.expression_names)
        for name, value in (
            ("_units", head.blend_basis[:, chosen].flatten(1)),
            ("_shape", head.shape_basis[:, chosen].flatten(1)),
            ("_importance", importance / importance.mean()),
            ("_regions", units),
        ):
            self.register_buffer(name, value.clone(), persistent=False)
        self._points = FacePoints.of(head)
        self._terms = head.blend_terms

    def forward(self, batch: Batch, seed: int) -> dict[str, Tensor]:
        """Weighted losses by name. seed: of the modality dropout.

        Raises:
            ValueError: if the batch has no truth.
        """
        if batch.expression is None or batch.shape is None or batch.points is None:
            raise ValueError("supervised losses need batches with truth")
        assert batch.rotation is not None and batch.translation is not None
        random = torch.Generator().manual_seed(seed)
        code = self.networks.coarse(batch.frames)
        dropped = drop_modalities(batch.frames, self.networks.config.expression, random)
        face = self.networks.expression(dropped)
        with torch.autocast(batch.shape.device.type, enabled=False):
            losses = self._expression_losses(face, dropped, batch)
            losses |= self._coarse_losses(code, batch)
        return losses

    def _expression_losses(self, face: ExpressionCode, frames: Frames, batch: Batch) -> dict[str, Tensor]:
        weights, true = self.weights, batch.expression
        assert true is not None and batch.points is not None
        assert batch.shape is not None
        error = face.expression - true
        terms, person = self._terms.to(true.device), batch.shape[:, None]
        change = terms.weights(face.expression, person) - terms.weights(true, person)
        moved = (change @ self._units).unflatten(-1, (-1, 3))
        distance = (moved.square().sum(-1) + 1e-10).sqrt()
        losses = {
            "vertices": weights.vertices * (distance * self._importance).mean(),
            "units": weights.units * error.square().mean(),
        }
        if true.shape[1] > 1:  # windows of one frame (the paper's rows without time) have no velocity
            losses["velocity"] = weights.velocity * velocity_loss(face.expression, true, FRAME_RATE)
        likelihood = unit_likelihood_loss(error.detach(), face.log_variance, self._regions)
        if frames.landmarks is not None:
            known = frames.seen[..., None].expand(frames.landmarks.shape[:-1])
            likelihood = likelihood + landmark_likelihood_loss(
                frames.landmarks - batch.points, face.landmark_log_variance, LANDMARK_REGIONS, known
            )
        losses["expression_likelihood"] = weights.likelihood * likelihood
        return losses

    def _coarse_losses(self, code: CoarseCode, batch: Batch) -> dict[str, Tensor]:
        weights, crop = self.weights, batch.frames.crop
        assert batch.shape is not None and batch.expression is not None and batch.points is not None
        assert batch.rotation is not None and batch.translation is not None
        shape = code.shape - batch.shape[:, None]
        moved = (shape @ self._shape).unflatten(-1, (-1, 3))
        distance = (moved.square().sum(-1) + 1e-10).sqrt()
        camera = code.camera - perspective_camera(batch.translation, crop)
        points = projected_points(self._points, code, batch)
        inner = slice(0, 468)  # irises follow the gaze, which is not part of the code
        losses = {
            "shape": weights.shape * distance.mean(),
            "coefficients": weights.coefficients * shape.square().mean(),
            "rotation": weights.rotation * rotation_loss(code.rotation, batch.rotation),
            "camera": weights.camera * camera.abs().mean(),
            "points": weights.points * (points - batch.points)[..., inner, :].abs().mean(),
        }
        turn = rotmat_to_rotvec(code.rotation.detach().transpose(-1, -2) @ batch.rotation)
        variances = code.log_variance
        likelihood = sum(
            negative_log_likelihood(error.detach(), variances[..., group, None]).mean()
            for group, error in enumerate((turn, camera, shape))
        )
        losses["coarse_likelihood"] = weights.likelihood * torch.as_tensor(likelihood)
        return losses


def projected_points(points: FacePoints, code: CoarseCode, batch: Batch) -> Tensor:
    """Landmarks (B, T, L, 2) in crop units of the predicted head with the true expression."""
    assert batch.expression is not None and batch.shape is not None
    points = points.to(code.shape.device)
    crop = batch.frames.crop
    head = (
        points.rest
        + (code.shape @ points.shape.flatten(1)).unflatten(-1, (-1, 3))
        + points.displacements(batch.expression, batch.shape[:, None])
    )
    translation = perspective_translation(code.camera, crop)
    pixels = project(head, code.rotation, translation, crop.focal_length, crop.principal_point)
    return crop.normalise(pixels)


def _chosen_vertices(head: HeadModel) -> Tensor:
    """Numbers of the vertices that the losses use."""
    lips = torch.from_numpy(head.regions["lips"]).nonzero()[:, 0]
    rest = (~torch.from_numpy(head.regions["lips"])).nonzero()[:, 0]
    step = max(1, -(-len(rest) // max(1, VERTICES - len(lips))))
    return torch.cat([lips, rest[::step]])
