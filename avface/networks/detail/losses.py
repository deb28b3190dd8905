"""Losses of the fine stage: equations 3 and 4 of AVFace, and supervised losses for known displacements.

All are over maps in texture space (`avface.head.skin.atlas`), as DECA's are, not over pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, normalize

from avface.errors import AvfaceError
from avface.geometry.shading import sh_basis
from avface.networks.laplacian import laplacian
from avface.networks.resnet import load_state

CHARBONNIER = 0.1
"""Scale of the Charbonnier loss, below which it is quadratic: millimetres of displacement, parts of unit normals."""


@dataclass(frozen=True)
class DetailWeights:
    """Weights of equation 4, and of the supervised terms, which the paper lacks. Displacements are in millimetres."""

    photometric: float = 1.0
    """L_i; 0 in supervised training."""
    normals: float = 10.0
    """lambda_n."""
    mrf: float = 5e-2
    """lambda_m."""
    symmetry: float = 5e-3
    """lambda_s, of a mean over texels. DECA's is a sum, which depends on the size of the maps."""
    regulariser: float = 5e-3
    """lambda_d."""
    displacement: float = 4.0
    """Distance from the true displacement."""
    slope: float = 8.0
    """Distance from the true normals."""

    def __post_init__(self) -> None:
        for entry in fields(self):
            if not getattr(self, entry.name) >= 0:
                raise AvfaceError(f"{entry.name}={getattr(self, entry.name)} must be at least 0")


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of values (B, C, H, W) by weight (B, H, W); 0 if nothing has weight."""
    total = (values * weight[:, None]).sum()
    return total / (values.shape[1] * weight.sum()).clamp_min(1e-6)


def _charbonnier(difference: Tensor, scale: float) -> Tensor:
    """Charbonnier loss. Unlike |difference|, its minimum isn't attracted to 0, the median of mostly smooth skin."""
    return (difference.square() + scale**2).sqrt() - scale


def normals_loss(predicted: Tensor, reference: Tensor, weight: Tensor) -> Tensor:
    """Mean of |lap(predicted) - lap(reference)| over texels and channels.

    predicted and reference (B, 3, H, W) unit normals in the same axes, of V_d and of the truth or of an estimate from
    the picture; no gradient goes into the reference. weight (B, H, W) from 0 to 1; a texel has the minimum of its own
    and its eight neighbours'.
    Source: AVFace, eq. 3, with a mean for its sum; 8 neighbours by our choice.
    """
    kept = -max_pool2d(-weight[:, None], 3, 1)[:, 0]
    return weighted_mean((laplacian(predicted) - laplacian(reference.detach())).abs(), kept)


def slope_loss(predicted: Tensor, reference: Tensor, weight: Tensor) -> Tensor:
    """Charbonnier loss of normals (B, 3, H, W), by weight (B, H, W)."""
    return weighted_mean(_charbonnier(predicted - reference.detach(), CHARBONNIER), weight)


def displacement_loss(predicted: Tensor, reference: Tensor, weight: Tensor) -> Tensor:
    """Charbonnier loss, in millimetres, of displacements (B, H, W) in metres, by weight (B, H, W)."""
    return weighted_mean(_charbonnier(1000 * (predicted - reference.detach()), CHARBONNIER)[:, None], weight)


def regulariser(displacement: Tensor, mask: Tensor) -> Tensor:
    """L_reg: mean of |D| in millimetres of displacement (B, H, W) in metres, by mask (B, H, W)."""
    return weighted_mean(1000 * displacement.abs()[:, None], mask)


def symmetry_loss(displacement: Tensor, mirrored: Tensor, visibility: Tensor, mask: Tensor) -> Tensor:
    """L_sym: difference of invisible texels from the other side of the face, in millimetres.

    displacement (B, H, W) metres and its mirror image (`DetailAtlas.flipped`), visibility (B, H, W) from 0 to 1, mask
    (B, H, W). No gradient goes into the mirror image, so that only the invisible side changes.
    Source: DECA, whose visibility is eroded by a 5 x 5 square.
    """
    unseen = (1 + max_pool2d(-visibility[:, None], 5, 1, 2)[:, 0]) * mask
    return weighted_mean(1000 * (displacement - mirrored.detach()).abs()[:, None], unseen)


def fit_light(normals: Tensor, albedo: Tensor, image: Tensor, weight: Tensor, ridge: float = 1e-3) -> Tensor:
    """Spherical harmonic light (B, 9, 3) with which albedo * shading fits pictures best, by ridge regression.

    normals (B, 3, H, W) unit in the light's axes, albedo and image (B, 3, H, W) from 0 to 1, weight (B, H, W).
    """
    basis = sh_basis(normals.movedim(1, -1)).flatten(1, 2)  # (B, N, 9)
    chosen = weight.flatten(1)
    lights = []
    for channel in range(3):
        rows = basis * albedo[:, channel].flatten(1)[..., None]
        left = (rows * chosen[..., None]).mT @ rows
        right = (rows * chosen[..., None]).mT @ image[:, channel].flatten(1)[..., None]
        scale = left.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(1e-9)
        damping = ridge * scale[:, None, None] * torch.eye(9, dtype=left.dtype, device=left.device)
        lights.append(torch.linalg.solve(left + damping, right)[..., 0])
    return torch.stack(lights, -1)


def fit_albedo(shading: Tensor, image: Tensor, weight: Tensor, scale: int = 8) -> Tensor:
    """Smooth albedo (B, 3, H, W) that fits pictures under a shading, both (B, 3, H, W), by weight (B, H, W).

    Least squares over squares of `scale` texels, so that finer structure is left to shading, that is, to folds.
    """
    counted = weight[:, None]
    above = avg_pool2d(image * shading * counted, scale)
    below = avg_pool2d(shading.square() * counted, scale)
    coarse = above / below.clamp_min(1e-6)
    return interpolate(coarse, image.shape[-2:], mode="bilinear", align_corners=False)


def shaded(normals: Tensor, albedo: Tensor, light: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) of albedo (B, 3, H, W) with normals (B, 3, H, W) under light (B, 9, 3)."""
    basis = sh_basis(normals.movedim(1, -1)).flatten(1, 2)
    return albedo * (basis @ light).mT.unflatten(-1, normals.shape[-2:])


VALLEY_SHADE = 0.8
"""Loss of light per millimetre of a valley's depth."""
VALLEY_SIGMA = 3.5 / 512
"""Standard deviation of the Gaussian whose mean is the reference for depth, as a share of the uv square (2 mm)."""
_MAX_SHADE = 0.4
"""Largest loss of light."""


def valley_occlusion(heights: Tensor, side: float, shade: float = VALLEY_SHADE) -> Tensor:
    """Ambient occlusion of a relief (R, R) in metres: the factor of light, from 0.6 to 1.

    The map covers `side` of the uv square across. The depth of a texel is its distance below the local mean, a Gaussian
    of `VALLEY_SIGMA`. Lambertian shading lacks this shadow, which is most of the contrast of a narrow fold.
    """
    mean = cv2.GaussianBlur(heights.cpu().numpy(), (0, 0), VALLEY_SIGMA * len(heights) / side)
    depth = 1e3 * (torch.from_numpy(mean).to(heights) - heights).clamp_min(0)
    return 1 - (shade * depth).clamp_max(_MAX_SHADE)


def from_tangent_space(coarse: Tensor, tangent: Tensor) -> Tensor:
    """Detailed normals (B, 3, H, W) from normals in tangent space (B, 3, H, W), in the axes of the coarse ones.

    For heads that are upright in the picture, where u points to the right.
    """
    across = torch.zeros_like(coarse)
    across[:, 0] = 1
    along_u = normalize(across - coarse[:, :1] * coarse, dim=1)
    along_v = torch.linalg.cross(coarse, along_u, dim=1)
    x, y, z = tangent.unbind(1)
    return x[:, None] * along_u + y[:, None] * along_v + z[:, None] * coarse


def detail_texture(coarse: Tensor, detailed: Tensor, image: Tensor, weight: Tensor) -> Tensor:
    """Texture (B, 3, H, W) rendered with the detailed normals.

    coarse and detailed normals and image (B, 3, H, W), weight (B, H, W) of visible skin. Light and albedo are fitted to
    the coarse normals without gradient, so that the residual is left to detail.
    """
    albedo, light = fit_appearance(coarse.detach(), image, weight)
    return shaded(detailed, albedo, light)


@torch.no_grad()
def fit_appearance(normals: Tensor, image: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Smooth albedo (B, 3, H, W) and light (B, 9, 3) that fit pictures of a surface, by three alternations.

    normals and image (B, 3, H, W), weight (B, H, W) of visible skin.
    """
    albedo = (
        (image * weight[:, None]).sum((-2, -1), keepdim=True)
        / weight[:, None].sum((-2, -1), keepdim=True).clamp_min(1e-6)
    ).expand_as(image)
    light = fit_light(normals, albedo, image, weight)
    for _ in range(3):
        shading = shaded(normals, torch.ones_like(image), light).clamp_min(0.02)
        albedo = fit_albedo(shading, image, weight)
        light = fit_light(normals, albedo, image, weight)
    return albedo, light


def photometric_loss(texture: Tensor, image: Tensor, weight: Tensor) -> Tensor:
    """L_i: mean of |texture - image| over texels and channels, both (B, 3, H, W), by weight (B, H, W) of visible skin.

    Source: DECA, whose detailed texture is compared with the unwrapped picture.
    """
    return weighted_mean((texture - image.detach()).abs(), weight)


def image_gradient_loss(texture: Tensor, image: Tensor, weight: Tensor, levels: int = 3) -> Tensor:
    """Image gradient loss over several scales, in place of the ID-MRF loss where VGG's weights aren't available.

    texture and image (B, 3, H, W), weight (B, H, W). It is independent of the level of light. It isn't a perceptual
    loss: folds must be in their place.
    """
    total = texture.new_zeros(())
    image = image.detach()
    for level in range(levels):
        if level:
            texture, image = avg_pool2d(texture, 2), avg_pool2d(image, 2)
            weight = -max_pool2d(-weight[:, None], 2)[:, 0]
        for axis in (-1, -2):
            both = torch.minimum(
                weight.narrow(axis, 1, weight.shape[axis] - 1), weight.narrow(axis, 0, weight.shape[axis] - 1)
            )
            total = total + weighted_mean((texture.diff(dim=axis) - image.diff(dim=axis)).abs(), both)
    return total / (2 * levels)


class Vgg19(nn.Module):
    """The first layers of VGG-19, up to relu4_1: pictures (B, 3, H, W) RGB from 0 to 1 -> features.

    Names of the weights are torchvision's (`features.N`). Source: Simonyan and Zisserman 2015, configuration E.
    """

    LAYERS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512)
    MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in self.LAYERS:
            if not width:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(channels, width, 3, 1, 1), nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*layers)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Features relu3_1 (B, 256, H / 4, W / 4) and relu4_1 (B, 512, H / 8, W / 8)."""
        x = (pictures - pictures.new_tensor(self.MEAN)[:, None, None]) / pictures.new_tensor(self.SPREAD)[
            :, None, None
        ]
        third = x
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number == 11:
                third = x
        return third, x

    @classmethod
    def load(cls, path: str | Path) -> Vgg19:
        """The network, frozen, with the weights in a file of torchvision's `vgg19` (.pth or .safetensors).

        Raises:
            AvfaceError: if the file is missing, damaged, would have to be executed, or holds another network.
        """
        weights = load_state(Path(path))
        network = cls()
        wanted = network.state_dict()
        wrong = [n for n in wanted if n not in weights or weights[n].shape != wanted[n].shape]
        if wrong:
            raise AvfaceError(
                f"{path}: not the weights of a VGG-19 ({len(wrong)} entries missing or of another size, the first is "
                f"{wrong[0]}); give torchvision's"
            )
        network.load_state_dict({name: weights[name].float() for name in wanted})
        return network.eval().requires_grad_(False)


class IdMrfLoss(nn.Module):
    """L_mrf: each patch of the picture's features needs a similar one among the texture's.

    Layers and their weights are DECA's: relu3_1 and relu4_1 for style, relu4_1 again for content, as its code counts.
    Source: Wang et al., Image inpainting via generative multi-column convolutional neural networks, 2018; DECA,
    `lossfunc.IDMRFLoss`.
    """

    BANDWIDTH = 0.5

    def __init__(self, vgg: Vgg19) -> None:
        super().__init__()
        self.vgg = vgg

    def forward(self, texture: Tensor, image: Tensor) -> Tensor:
        """The loss of textures (B, 3, H, W) against pictures (B, 3, H, W), a mean over the batch."""
        with torch.no_grad():
            wanted = self.vgg(image)
        third, fourth = self.vgg(texture)
        return self._layer(third, wanted[0]) + 2 * self._layer(fourth, wanted[1])

    def _layer(self, found: Tensor, wanted: Tensor) -> Tensor:
        mean = wanted.mean(1, keepdim=True)
        found, wanted = (normalize(part - mean, dim=1, eps=1e-6).flatten(2) for part in (found, wanted))
        distance = (1 - wanted.mT @ found) / 2  # (B, wanted, found)
        relative = distance / (distance.amin(1, keepdim=True) + 1e-5)
        similar = torch.exp((1 - relative) / self.BANDWIDTH)
        similar = similar / similar.sum(1, keepdim=True)
        return -similar.amax(2).mean(1).clamp_min(1e-12).log().mean()
