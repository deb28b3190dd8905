"""The detail network of the fine stage: displacement of the skin from a frame's maps (AVFace, section 3.3).

A UNet with a ResNet encoder over maps in texture space (`avface.head.skin.atlas`). Its architecture is that of the
normal estimation network that AVFace begins with (Abrevaya et al. 2020), thinner: skips are merged with the decoder's
last channels by the maximum. Sound is one more channel of the encoder's third layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from avface.errors import AvfaceError
from avface.files.weight_file import Pretrained, WeightFormat
from avface.head.model import HeadModel
from avface.head.skin.atlas import DetailMaps, detail_atlas

INPUTS = 7
"""Channels of `DetailMaps.stacked`: image, normals, visibility."""
STRIDE = 32
"""Stride of the encoder's last layer in texels; sizes of maps and crops are multiples of it."""
_AUDIO_STRIDE = 16
_AUDIO_PLANE = 16


@dataclass(frozen=True)
class DetailConfig:
    """Config of the detail network, saved with its weights."""

    head: str = "open"
    """Name of the head model."""
    resolution: int = 256
    """Size R of the maps in texels."""
    encoder: tuple[int, int, int, int, int] = (24, 24, 48, 96, 192)
    """Channels of the encoder's layers, at R / 2, / 4, / 8, / 16 and / 32; a ResNet-18 has 64, 64, 128, 256, 512."""
    decoder: tuple[int, int, int, int, int] = (96, 48, 32, 24, 8)
    """Channels of the decoder from R / 16 on, in addition to those that are merged with a skip."""
    image: int = 8
    """Channels of the skip from the input, at R."""
    out: int = 8
    """Channels before the last convolution."""
    bound: float = 0.003
    """Bound of the displacement in metres. Folds of skin are within 2 mm; the bound limits the error on pictures unlike
    the training data. DECA's is 10 mm."""
    audio: bool = True
    """Whether sound is an input."""
    speech: int = 29
    """Size of the speech features."""

    def __post_init__(self) -> None:
        if self.resolution < STRIDE or self.resolution % STRIDE:
            raise AvfaceError(f"resolution={self.resolution} must be a multiple of {STRIDE}")
        for name in ("encoder", "decoder"):
            widths = getattr(self, name)
            if len(widths) != 5 or min(widths) < 1:
                raise AvfaceError(f"{name}={widths} must be five numbers of channels")
        for name in ("image", "out", "bound", "speech"):
            if not getattr(self, name) > 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be above 0")


class BasicBlock(nn.Module):
    """Residual block of two 3 x 3 convolutions: maps (N, C, H, W) -> (N, P, H / stride, W / stride).

    Source: He et al., Deep residual learning, 2016; names as in torchvision.
    """

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels != planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
            )

    def forward(self, maps: Tensor) -> Tensor:
        """Apply the block."""
        short = maps if self.downsample is None else self.downsample(maps)
        return relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(maps))))) + short)


class DetailNetwork(nn.Module):
    """Maps of a frame and the sound around it -> displacement of the skin in metres along the coarse normals.

    A new network predicts a displacement of 0. It is always 0 where the face's `mask` (R, R) is.
    """

    mask: Tensor

    def __init__(self, config: DetailConfig) -> None:
        """Initialise from a config; the mask of the head is set by `of` or by loading weights."""
        super().__init__()
        self.config = config
        self.register_buffer("mask", torch.zeros(config.resolution, config.resolution))
        widths, kept = config.encoder, config.decoder
        self.conv1 = nn.Conv2d(INPUTS, widths[0], 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _blocks(widths[0], widths[1], 1)
        self.layer2 = _blocks(widths[1], widths[2], 2)
        self.layer3 = _blocks(widths[2], widths[3], 2)
        self.layer4 = _blocks(widths[3] + config.audio, widths[4], 2)
        self.speech = nn.Linear(config.speech, _AUDIO_PLANE, bias=False) if config.audio else None
        self.image = nn.Sequential(
            _convolution(INPUTS, config.image), _convolution(config.image, config.image)
        )
        skips = (widths[3], widths[2], widths[1], widths[0], config.image)
        self.skips = nn.ModuleList(nn.Conv2d(width, width, 1) for width in skips[:4])
        self.bottom = nn.Conv2d(widths[4], kept[0] + skips[0], 1)
        after = [kept[k] + skips[k] for k in range(1, 5)] + [config.out]
        self.up = nn.ModuleList(_convolution(kept[k] + skips[k], after[k]) for k in range(5))
        self.last = nn.Conv2d(config.out, 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.zeros_(self.last.weight)
        if config.audio:
            first = self.layer4[0]
            assert isinstance(first, BasicBlock) and first.downsample is not None
            short = first.downsample[0]
            assert isinstance(short, nn.Conv2d)
            with torch.no_grad():  # initially, sound has no effect
                first.conv1.weight[:, -1] = 0
                short.weight[:, -1] = 0

    @classmethod
    def of(cls, head: HeadModel, config: DetailConfig | None = None) -> DetailNetwork:
        """A new network for a head's skin.

        Raises:
            AvfaceError: if the head has no face region, or its texture space isn't symmetric.
        """
        config = config or DetailConfig(head=head.name)
        network = cls(config)
        network.mask.copy_(detail_atlas(head, config.resolution).mask)
        return network

    def forward(
        self, maps: Tensor, speech: Tensor | None = None, corner: tuple[int, int] | None = None
    ) -> Tensor:
        """Displacement (B, R, R) in metres.

        Args:
            maps: (B, 7, R, R) as of `DetailMaps.stacked`.
            speech: (B, 16, D) features around each frame; None is no sound.
            corner: row and column of a crop of the maps, multiples of `STRIDE`; maps and result are (.., C, C) then,
                C a multiple of `STRIDE`. None for whole maps.
        """
        half = relu(self.bn1(self.conv1(maps)))
        first = self.layer1(self.pool(half))
        second = self.layer2(first)
        third = self.layer3(second)
        deep = (
            third if self.speech is None else torch.cat([third, self._audio_plane(third, speech, corner)], 1)
        )
        x = relu(self.bottom(self.layer4(deep)))
        for number, skip in enumerate((third, second, first, half)):
            x = _merge_skip(_upsample(x), relu(self.skips[number](skip)))
            x = self.up[number](x)
        x = self.up[4](_merge_skip(_upsample(x), self.image(maps)))
        displacement = self.config.bound * torch.tanh(self.last(x)[:, 0])
        top, left = corner or (0, 0)
        size = maps.shape[-2:]
        return displacement * self.mask[top : top + size[0], left : left + size[1]]

    def _audio_plane(self, third: Tensor, speech: Tensor | None, corner: tuple[int, int] | None) -> Tensor:
        """The sound as a channel (B, 1, h, w) of the third layer: one axis is time, the other the projected features.

        Source: AVFace, section 3.3; the linear projection of the 16 x 29 features to a plane is our choice.
        """
        if speech is None:
            return third.new_zeros(len(third), 1, *third.shape[-2:])
        assert self.speech is not None
        plane = self.speech(speech)[:, None]
        side = self.config.resolution // _AUDIO_STRIDE
        if side != _AUDIO_PLANE:
            plane = interpolate(plane, (side, side), mode="bilinear", align_corners=False)
        if corner is None:
            return plane
        row, column = corner[0] // _AUDIO_STRIDE, corner[1] // _AUDIO_STRIDE
        return plane[..., row : row + third.shape[-2], column : column + third.shape[-1]]


def _blocks(channels: int, planes: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(channels, planes, stride), BasicBlock(planes, planes, 1))


def _convolution(channels: int, planes: int) -> nn.Sequential:
    """3 x 3 with batch norm, without which the maxima of `_merge_skip` grow from layer to layer."""
    return nn.Sequential(nn.Conv2d(channels, planes, 3, 1, 1, bias=False), nn.BatchNorm2d(planes), nn.ReLU())


def _upsample(maps: Tensor) -> Tensor:
    return interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)


def _merge_skip(maps: Tensor, skip: Tensor) -> Tensor:
    """Maps whose last channels are the maximum with the skip's ("deactivable skip")."""
    kept = maps.shape[1] - skip.shape[1]
    return torch.cat([maps[:, :kept], torch.maximum(maps[:, kept:], skip)], 1)


@torch.no_grad()
def predict_detail(network: DetailNetwork, maps: DetailMaps, speech: Tensor | None = None) -> Tensor:
    """Displacement (R, R) in metres of one frame, or (B, R, R) of several; speech (16, D) or (B, 16, D)."""
    stacked = maps.stacked()
    single = stacked.ndim == 3
    if single:
        stacked, speech = stacked[None], None if speech is None else speech[None]
    device = network.mask.device
    predicted = network(stacked.to(device), None if speech is None else speech.float().to(device)).cpu()
    return predicted[0] if single else predicted


FORMAT = WeightFormat(
    network="detail network",
    config=DetailConfig,
    tag="avface detail network 1",
    training="avface train detail",
    half_precision=True,
)
"""The weight file of this network."""


def save_detail(network: DetailNetwork, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write the weights in half precision with the config and any further metadata; the file appears whole.

    Raises:
        AvfaceError: if it can't be written.
    """
    FORMAT.save(path, network, network.config, metadata)


def load_detail(path: str | Path) -> DetailNetwork:
    """Read a network that `save_detail` wrote, in evaluation mode.

    Raises:
        AvfaceError: if the file is missing, damaged or of another network.
    """
    return FORMAT.read(path).network(DetailNetwork)


pretrained_detail = Pretrained("networks", "detail.safetensors", load_detail)
"""The weights that come with avface, for the open head."""
