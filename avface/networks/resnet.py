"""ResNet-50, with the parameter names of torchvision's and DECA's weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from avface.errors import AvfaceError

FEATURES = 2048
"""Size of the features."""


class Bottleneck(nn.Module):
    """Residual block of 1 x 1, 3 x 3 (strided) and 1 x 1 convolutions: maps (N, C, H, W) -> (N, 4 P, ...)."""

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels != 4 * planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, 4 * planes, 1, stride, bias=False), nn.BatchNorm2d(4 * planes)
            )

    def forward(self, maps: Tensor) -> Tensor:
        """Apply the block."""
        short = maps if self.downsample is None else self.downsample(maps)
        maps = relu(self.bn1(self.conv1(maps)))
        maps = relu(self.bn2(self.conv2(maps)))
        return relu(self.bn3(self.conv3(maps)) + short)


class ResNet50(nn.Module):
    """Pictures (N, 3, H, W) -> features (N, 2048), averaged over the picture.

    State-dict names are those of torchvision's `resnet50` without its classifier `fc`.
    Source: He et al., Deep residual learning, 2016, table 1; the 3 x 3 convolution has the stride.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _blocks(64, 64, 3, 1)
        self.layer2 = _blocks(256, 128, 4, 2)
        self.layer3 = _blocks(512, 256, 6, 2)
        self.layer4 = _blocks(1024, 512, 3, 2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pictures: Tensor) -> Tensor:
        """Compute features."""
        maps = self.maxpool(relu(self.bn1(self.conv1(pictures))))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps = layer(maps)
        return maps.mean((-2, -1))


def _blocks(channels: int, planes: int, count: int, stride: int) -> nn.Sequential:
    first = Bottleneck(channels, planes, stride)
    return nn.Sequential(first, *(Bottleneck(4 * planes, planes, 1) for _ in range(count - 1)))


def load_imagenet(path: str | Path, network: ResNet50) -> None:
    """Load the weights of torchvision's `resnet50` (.pth or .safetensors) into a network, without the classifier.

    Raises:
        AvfaceError: if the file is missing, damaged, would have to be executed, or holds another network.
    """
    path = Path(path)
    weights = {name: value for name, value in load_state(path).items() if not name.startswith("fc.")}
    copy_backbone(path, weights, network)


def load_state(path: Path) -> dict[str, Tensor]:
    """Read a state dictionary in safetensors or, with any other suffix, of torch.save; nothing in it is executed.

    Raises:
        AvfaceError: if the file is missing, damaged, not a dictionary, or would have to be executed.
    """
    if path.suffix != ".safetensors":
        return load_torch_file(path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise AvfaceError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise AvfaceError(f"{path}: not a readable safetensors file ({error}); fetch it again") from None


def load_torch_file(path: Path) -> dict:
    """Read a file of torch.save that holds tensors and plain values only; nothing in it is executed.

    Raises:
        AvfaceError: if it is missing, damaged, not a dictionary, or would have to be executed.
    """
    from pickle import UnpicklingError

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise AvfaceError(f"{path}: no such file") from None
    except UnpicklingError:
        raise AvfaceError(
            f"{path}: holds more than tensors, or is damaged, and is not read, because reading it could run "
            "foreign code; fetch the original file, or save its state dictionaries alone"
        ) from None
    except Exception as error:  # zipfile, struct and torch raise a family of errors on damaged files
        raise AvfaceError(
            f"{path}: not a readable torch file ({type(error).__name__}); fetch it again"
        ) from None
    if not isinstance(content, dict):
        raise AvfaceError(f"{path}: holds a {type(content).__name__}, not a dictionary of weights")
    return content


def copy_backbone(path: Path, weights: dict[str, Tensor], network: ResNet50) -> None:
    """Copy weights by name into a network. Batch counters, which old files lack, may be missing.

    Raises:
        AvfaceError: naming `path`, if names or shapes don't match.
    """
    wanted = network.state_dict()
    missing = [n for n in wanted if n not in weights and not n.endswith("num_batches_tracked")]
    wrong = [n for n, value in weights.items() if n not in wanted or value.shape != wanted[n].shape]
    if missing or wrong:
        first = (missing + wrong)[0]
        raise AvfaceError(
            f"{path}: not the weights of a ResNet-50 ({len(missing)} entries missing, {len(wrong)} unknown or of "
            f"another size, the first is {first})"
        )
    network.load_state_dict(weights, strict=False)
