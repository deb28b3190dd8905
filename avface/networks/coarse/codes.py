"""The networks' output: the coarse code c and the expression code e, and how they are decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize

from avface.errors import AvfaceError
from avface.geometry.axes import flip_rotation
from avface.geometry.rotations import rotmat_to_rotvec
from avface.geometry.shading import SH_NORMS
from avface.networks.clamping import clamp_inwards
from avface.networks.frames import FaceCrop
from avface.networks.regions import REGIONS

Camera = Literal["perspective", "weak_perspective"]

HALF_SIDE = 0.12
"""Typical half side of a crop (margin 1.6) in metres at the head's distance."""
WEAK_SCALE = 8.0
"""Typical scale under weak perspective, crop units a metre: about 1 / HALF_SIDE."""
LOG_VARIANCE = (-12.0, 4.0)
"""Range of predicted log-variances: standard deviations from 0.0025 to 7.4 of their units, between more precision than
any ground truth has and no information."""
POSE_GROUPS = ("rotation", "camera", "shape")
"""Groups of parameters with a log-variance each in the coarse code."""


@dataclass(frozen=True)
class CodeConfig:
    """Sizes and kinds of the parameters of a head; the defaults are those of the open head."""

    shape: int = 100
    """Shape components."""
    albedo: int = 0
    """Albedo components; the open head has none."""
    expression: int = 52
    """Expression units."""
    bounded: bool = True
    """Whether the expression units lie in [0, 1], as ARKit's do."""
    jaw: bool = False
    """Whether the jaw is a joint, with three parameters besides the expression."""
    camera: Camera = "perspective"
    """perspective: position of the head's origin in the crop, and size of the crop in metres at its distance.
    weak_perspective: DECA's scale and shift."""

    def __post_init__(self) -> None:
        if self.shape < 1 or self.albedo < 0 or self.expression < 1:
            raise AvfaceError(
                f"shape={self.shape}, albedo={self.albedo}, expression={self.expression}: there must be at least "
                "one shape component and one expression unit, and no fewer than 0 of albedo"
            )
        if self.camera not in get_args(Camera):
            raise AvfaceError(f"camera={self.camera!r} must be one of {', '.join(get_args(Camera))}")

    @property
    def coarse_width(self) -> int:
        """Size of c: shape, albedo, rotation 3, camera 3, light 27."""
        return self.shape + self.albedo + 33

    @property
    def expression_width(self) -> int:
        """Size of e: expression, jaw."""
        return self.expression + 3 * self.jaw


OPEN_CODE = CodeConfig()
"""The open head under perspective."""
FLAME_CODE = CodeConfig(albedo=50, expression=50, bounded=False, jaw=True, camera="weak_perspective")
"""FLAME as in the paper: c has size 183 and e 53 (AVFace 3.1; DECA's code in two parts)."""


@dataclass(frozen=True, eq=False)
class CoarseCode:
    """Output of the coarse encoder for frames; `...` is (B, T).

    Light: weights of `geometry.shading.sh_basis` per RGB; axes x right in the picture, y up, z towards the camera.
    """

    shape: Tensor
    """(..., S) in standard deviations."""
    albedo: Tensor
    """(..., A) in standard deviations."""
    rotation: Tensor
    """(..., 3, 3) head to camera (x right, y down, z forward)."""
    camera: Tensor
    """(..., 3). perspective: crop units of the head's origin, right and down, and the log of half the crop's side
    in metres at the head's distance, over HALF_SIDE: see `perspective_translation`. weak_perspective: scale and
    shift, see `project_weakly`."""
    light: Tensor
    """(..., 9, 3)."""
    log_variance: Tensor
    """(..., 3) of rotation (radians squared), camera (its own units squared) and shape (standard deviations squared),
    each of one parameter of the group."""

    def vector(self) -> Tensor:
        """The code as one vector (..., 183 for FLAME) in DECA's order: shape, albedo, pose, camera, light.

        The pose is DECA's: axis-angle of the upright head, 0 for one that looks into the camera.
        """
        upright = flip_rotation(self.rotation)
        pose = rotmat_to_rotvec(upright)
        return torch.cat([self.shape, self.albedo, pose, self.camera, self.light.flatten(-2)], -1)


@dataclass(frozen=True, eq=False)
class ExpressionCode:
    """Output of the expression branch for frames; `...` is (B, T)."""

    expression: Tensor
    """(..., E); in [0, 1] if the code is bounded."""
    jaw: Tensor
    """(..., 3) axis-angle in radians, or (..., 0) for heads without a jaw joint."""
    log_variance: Tensor
    """(..., 6) of the expression units of each of `regions.REGIONS`, for their weight as a prior."""
    landmark_log_variance: Tensor
    """(..., 6) of the tracked landmarks of each region around their true place, per coordinate, in crop units squared.
    It is large where the face is occluded, and gives the weight of the landmarks."""

    def vector(self) -> Tensor:
        """The code as one vector (..., 53 for FLAME): expression, jaw."""
        return torch.cat([self.expression, self.jaw], -1)


def coarse_sizes(config: CodeConfig) -> tuple[int, ...]:
    """Sizes of shape, albedo, rotation, camera, light and log-variance in the raw output."""
    return (config.shape, config.albedo, 6, 3, 27, len(POSE_GROUPS))


def expression_sizes(config: CodeConfig) -> tuple[int, ...]:
    """Sizes of expression, jaw and the two log-variances in the raw output."""
    return (config.expression, 3 * config.jaw, len(REGIONS), len(REGIONS))


def decode_coarse(raw: Tensor, config: CodeConfig, crop: FaceCrop) -> CoarseCode:
    """Decode raw output (..., sum(coarse_sizes)), of which 0 is an average head that faces the camera in the middle of
    its crop, in ambient light.

    Rotations have the continuous 6D representation (Zhou et al. 2019), under perspective relative to the viewing ray of
    the crop. Parameters of pose, place and light are scaled such that a change by a tenth changes the picture by about
    a tenth, so that one learning rate suits all: under weak perspective the raw scale is relative to WEAK_SCALE and the
    raw shift in crop units, and raw light is relative to ambient light. It is computed in single precision also under
    mixed precision.
    """
    raw = _at_least_single(raw)
    shape, albedo, turn, camera, light, log_variance = raw.split(coarse_sizes(config), -1)
    upright = rotation_from_6d(turn + turn.new_tensor([1.0, 0, 0, 0, 1, 0]))
    rotation = flip_rotation(upright)
    if config.camera == "perspective":
        with torch.autocast(raw.device.type, enabled=False):
            rotation = crop.axis_rotation @ rotation
    else:
        size = camera.new_tensor([WEAK_SCALE, 1 / WEAK_SCALE, 1 / WEAK_SCALE])
        camera = size * (camera + camera.new_tensor([1.0, 0, 0]))
    ambient = light.new_zeros(9, 3)
    ambient[0] = 1
    return CoarseCode(
        shape,
        albedo,
        rotation,
        camera,
        (light.unflatten(-1, (9, 3)) + ambient) / SH_NORMS[0],
        clamp_inwards(log_variance, *LOG_VARIANCE),
    )


def decode_expression(raw: Tensor, config: CodeConfig) -> ExpressionCode:
    """Decode raw output (..., sum(expression_sizes)); 0 is a neutral face."""
    expression, jaw, own, landmarks = _at_least_single(raw).split(expression_sizes(config), -1)
    if config.bounded:
        expression = clamp_inwards(expression, 0, 1)
    return ExpressionCode(
        expression, jaw, clamp_inwards(own, *LOG_VARIANCE), clamp_inwards(landmarks, *LOG_VARIANCE)
    )


def _at_least_single(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def rotation_from_6d(numbers: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) from the 6D representation (..., 6), by Gram-Schmidt.

    Source: Zhou et al., On the continuity of rotation representations in neural networks, 2019.
    """
    first = normalize(numbers[..., :3], dim=-1)
    second = numbers[..., 3:]
    second = normalize(second - (first * second).sum(-1, keepdim=True) * first, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second, dim=-1)], -1)


def perspective_translation(camera: Tensor, crop: FaceCrop) -> Tensor:
    """Translation (..., 3) in metres of the head's origin in camera axes, from `CoarseCode.camera` (..., 3).

    With half a side of h pixels and k metres, the distance is z = focal_length * k / h.
    """
    half = crop.box[..., 2] / 2
    distance = crop.focal_length * HALF_SIDE * camera[..., 2].exp() / half
    pixels = camera[..., :2] * half[..., None] + crop.box[..., :2]
    across = (pixels - crop.principal_point) * (distance / crop.focal_length)[..., None]
    return torch.cat([across, distance[..., None]], -1)


def perspective_camera(translation: Tensor, crop: FaceCrop) -> Tensor:
    """The inverse of `perspective_translation`: `CoarseCode.camera` (..., 3) of translations (..., 3) in metres."""
    half = crop.box[..., 2] / 2
    distance = translation[..., 2]
    pixels = translation[..., :2] * (crop.focal_length / distance)[..., None] + crop.principal_point
    place = (pixels - crop.box[..., :2]) / half[..., None]
    return torch.cat([place, (distance * half / (crop.focal_length * HALF_SIDE)).log()[..., None]], -1)


def project_weakly(points: Tensor, rotation: Tensor, camera: Tensor) -> Tensor:
    """Head points (..., N, 3) in metres -> crop units (..., N, 2) under weak perspective.

    rotation (..., 3, 3) head to camera; camera (..., 3) scale s and shift t: (s (x + tx), s (y - ty)) with y down.
    Source: DECA's `batch_orth_proj`, which flips y last.
    """
    turned = (points @ rotation.transpose(-1, -2))[..., :2]
    scale, right, up = camera[..., None, :].unbind(-1)
    return scale[..., None] * (turned + torch.stack([right, -up], -1))
