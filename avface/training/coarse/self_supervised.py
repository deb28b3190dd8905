"""The paper's losses without ground truth: projection and rendering of the head are compared with the frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from avface.errors import AvfaceError
from avface.head.model import HeadModel
from avface.head.schemes import IBUG68_FROM_MEDIAPIPE
from avface.networks.coarse.codes import CoarseCode, perspective_translation, project_weakly
from avface.networks.coarse.encoders import drop_modalities
from avface.networks.coarse.losses.coefficients import coefficient_loss, swap_within_windows, white_light_loss
from avface.networks.coarse.losses.landmarks import (
    IBUG_EYES,
    IBUG_LIP_CORNERS,
    IBUG_MOUTH,
    IBUG_WEIGHTS,
    gap_loss,
    landmark_loss,
)
from avface.networks.coarse.losses.photometric import Surface, photometric_loss, render
from avface.networks.coarse.model import CoarseNetworks
from avface.training.coarse.batches import Batch
from avface.training.coarse.recipes import SelfSupervision

SKIN = (0.62, 0.46, 0.38)
"""RGB of skin without an albedo space."""
TEXTURE = 256
"""Texels across the rendered albedo."""
FAR = 10.0
"""Metres added to depths under weak perspective, which has none (DECA)."""


class AlbedoSpace(nn.Module):
    """Skin colours as a mean and components: weights (..., A) -> textures (..., R, R, 3), row 0 at v = 1."""

    mean: Tensor
    basis: Tensor

    def __init__(self, mean: Tensor, basis: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("basis", basis, persistent=False)

    def forward(self, weights: Tensor) -> Tensor:
        """Textures; components without a weight, and weights without a component, count as 0."""
        used = min(len(self.basis), weights.shape[-1])
        return self.mean + torch.einsum("...a,arsc->...rsc", weights[..., :used], self.basis[:used])

    @classmethod
    def of_one_colour(cls) -> AlbedoSpace:
        """One constant colour."""
        return cls(torch.tensor(SKIN).expand(4, 4, 3).clone(), torch.zeros(0, 4, 4, 3))

    @classmethod
    def load(cls, path: Path, components: int) -> AlbedoSpace:
        """Read FLAME's texture space (`mean`, `tex_dir`, 0 to 255) or the one converted from BFM (`MU`, `PC`, 0 to 1).

        Both are .npz files of BGR textures with 512 x 512 texels.

        Raises:
            AvfaceError: if the file is missing, damaged, or neither.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                bfm = "MU" in archive.files
                mean_name, basis_name = ("MU", "PC") if bfm else ("mean", "tex_dir")
                scale = 1.0 if bfm else 1 / 255
                mean = torch.from_numpy(archive[mean_name].astype(np.float32) * scale)
                basis = archive[basis_name]
                basis = basis.reshape(-1, basis.shape[-1])[:, :components].astype(np.float32) * scale
        except FileNotFoundError:
            raise AvfaceError(
                f"{path}: no such file; give FLAME's texture space, or leave --albedo-space out"
            ) from None
        except Exception as error:  # zipfile and zlib raise a family of errors on damaged archives
            raise AvfaceError(f"{path}: not a readable texture space ({error})") from None
        side = round((mean.numel() / 3) ** 0.5)
        if side * side * 3 != mean.numel() or len(basis) != mean.numel():
            raise AvfaceError(f"{path}: its textures aren't square; give the file as it was published")

        def small(values: Tensor) -> Tensor:
            pictures = values.reshape(-1, side, side, 3).movedim(-1, 1)
            return interpolate(pictures, (TEXTURE, TEXTURE)).movedim(1, -1).flip(-1)

        return cls(small(mean)[0], small(torch.from_numpy(basis.T.copy())))


class SelfSupervisedObjective(nn.Module):
    """L_coarse of AVFace (3.1): DECA's losses with mouth closure and lip corners added.

    Shapes are exchanged within windows, and all losses on images and landmarks apply to both halves (DECA). The
    identity loss, which needs a recognition network of the user's, is left to `losses.photometric.identity_loss`.
    """

    def __init__(
        self,
        networks: CoarseNetworks,
        head: HeadModel,
        weights: SelfSupervision,
        albedo: AlbedoSpace | None = None,
    ) -> None:
        super().__init__()
        code = networks.config.code
        if (head.num_shape < code.shape) or head.num_expression != code.expression_width:
            raise AvfaceError(
                f"{head.name}: this head has {head.num_shape} shape and {head.num_expression} expression "
                f"components, the recipe needs {code.shape} or more and {code.expression_width}; import FLAME with "
                "'avface head import', or name another --head"
            )
        if weights.photometric and not len(head.uv):
            raise AvfaceError(
                f"{head.name}: this head has no texture coordinates, which its rendering needs; import FLAME with "
                "--template head_template.obj, or train with --photometric 0"
            )
        self.networks, self.head, self.weights = networks, head, weights
        self.albedo = albedo or AlbedoSpace.of_one_colour()
        self._embedding = head.embedding("ibug68")
        self._surface = Surface(
            head.faces,
            torch.from_numpy(head.uv),
            torch.from_numpy(head.uv_faces),
            torch.from_numpy(head.regions["face"]).float(),
        )

    def forward(self, batch: Batch, seed: int) -> dict[str, Tensor]:
        """Weighted losses by name. seed: of modality dropout and exchanged shapes.

        Raises:
            ValueError: if the batch has no landmarks.
        """
        frames, weights = batch.frames, self.weights
        if frames.landmarks is None:
            raise ValueError("self-supervised losses need batches with landmarks")
        random = torch.Generator().manual_seed(seed)
        code = self.networks.coarse(frames)
        face = self.networks.expression(drop_modalities(frames, self.networks.config.expression, random))
        with torch.autocast(frames.seen.device.type, enabled=False):
            target = _ibug(frames.landmarks)
            seen = torch.cat([frames.seen, frames.seen])
            shapes = torch.cat([code.shape, swap_within_windows(code.shape, random)])
            expression = face.vector().repeat(2, 1, 1)
            vertices = self._vertices(shapes, expression)
            points = self._landmarks(vertices, code.rotation.repeat(2, 1, 1, 1))
            placed = self._in_crop(points, code, batch)
            wanted = target.repeat(2, 1, 1, 1)
            shown, aimed = placed[seen], wanted[seen]
            losses = {
                "landmarks": weights.landmarks
                * landmark_loss(placed, wanted, IBUG_WEIGHTS.to(placed) * seen[..., None]),
                "coefficients": weights.coefficients
                * (coefficient_loss(code.shape) + coefficient_loss(face.expression)),
                "light": weights.light * white_light_loss(code.light),
            }
            if len(shown):
                losses |= {
                    "eye_closure": weights.eye_closure * gap_loss(shown, aimed, IBUG_EYES),
                    "mouth_closure": weights.mouth_closure * gap_loss(shown, aimed, IBUG_MOUTH),
                    "lip_corners": weights.lip_corners * gap_loss(shown, aimed, IBUG_LIP_CORNERS),
                }
            if code.albedo.shape[-1]:
                losses["albedo"] = weights.albedo * coefficient_loss(code.albedo)
            if weights.photometric:
                losses["photometric"] = weights.photometric * self._photometric(vertices, code, batch)
        return losses

    def _vertices(self, shape: Tensor, expression: Tensor) -> Tensor:
        """(B, T, V, 3) in the head's frame."""
        more = self.head.num_shape - shape.shape[-1]
        shape = torch.nn.functional.pad(shape, (0, more)).flatten(0, 1)
        vertices: Tensor = self.head(shape, expression.flatten(0, 1))
        return vertices.unflatten(0, expression.shape[:2])

    def _landmarks(self, vertices: Tensor, rotation: Tensor) -> Tensor:
        """iBUG's points (B, T, 68, 3), with a view-dependent jaw line where the head has one."""
        triangles = torch.from_numpy(self._embedding.triangles).to(vertices.device)
        shares = torch.from_numpy(self._embedding.barycentric).to(vertices)
        points = torch.einsum("...lkc,lk->...lc", vertices[..., triangles, :], shares)
        if self.head.contour is None:
            return points
        line = self.head.contour.points(vertices.flatten(0, 1), rotation.detach().flatten(0, 1))
        return torch.cat([line.unflatten(0, vertices.shape[:2]), points[..., 17:, :]], -2)

    def _in_crop(self, points: Tensor, code: CoarseCode, batch: Batch) -> Tensor:
        """Crop units (2 B, T, N, 2) of head points (2 B, T, N, 3) under the codes' pose and camera (B, T)."""
        rotation = code.rotation.repeat(2, 1, 1, 1)
        if self.networks.config.code.camera == "weak_perspective":
            return project_weakly(points, rotation, code.camera.repeat(2, 1, 1))
        crop = batch.frames.crop
        place = perspective_translation(code.camera, crop).repeat(2, 1, 1)
        turned = points @ rotation.transpose(-1, -2) + place[..., None, :]
        focal = crop.focal_length.repeat(2, 1)[..., None, None]
        pixels = (
            focal * turned[..., :2] / turned[..., 2:] + crop.principal_point.repeat(2, 1, 1)[..., None, :]
        )
        box = crop.box.repeat(2, 1, 1)
        return (pixels - box[..., None, :2]) * (2 / box[..., None, 2:])

    def _photometric(self, vertices: Tensor, code: CoarseCode, batch: Batch) -> Tensor:
        frames, size = batch.frames, self.weights.render_size
        if frames.images is None or batch.face is None:
            raise ValueError("the photometric loss needs batches with images")
        turned = vertices @ code.rotation.repeat(2, 1, 1, 1).transpose(-1, -2)
        pixels = (self._in_crop(vertices, code, batch) + 1) * (size / 2) - 0.5
        shown = frames.images.flatten(0, 1)
        shown = shown.float() / 255 if shown.dtype == torch.uint8 else shown
        image = interpolate(shown, (size, size), mode="area").movedim(1, -1).repeat(2, 1, 1, 1)
        mask = interpolate(batch.face.flatten(0, 1)[:, None].float(), (size, size), mode="area")[:, 0]
        mask = mask * frames.seen.flatten()[:, None, None]
        albedo = self.albedo(code.albedo.flatten(0, 1)).expand(frames.seen.numel(), -1, -1, -1)
        surface = Surface(*(value.to(vertices.device) for value in vars(self._surface).values()))
        rendering = render(
            surface,
            turned.flatten(0, 1),
            pixels.flatten(0, 1),
            turned.flatten(0, 1)[..., 2] + FAR,
            albedo.repeat(2, 1, 1, 1),
            code.light.flatten(0, 1).repeat(2, 1, 1),
            size,
            size,
        )
        return photometric_loss(rendering, image, mask.repeat(2, 1, 1))


def _ibug(landmarks: Tensor) -> Any:
    """iBUG's 68 (..., 68, 2) of MediaPipe's 478 (..., 478, 2)."""
    pairs = torch.from_numpy(IBUG68_FROM_MEDIAPIPE).to(landmarks.device)
    return landmarks[..., pairs, :].mean(-2)
