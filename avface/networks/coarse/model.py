"""The networks of the coarse stage, and their weight file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from avface.errors import AvfaceError
from avface.files.weight_file import Pretrained, WeightFormat, first_difference
from avface.networks.coarse.codes import FLAME_CODE, CoarseCode, CodeConfig, ExpressionCode
from avface.networks.coarse.encoders import CoarseConfig, CoarseEncoder, ExpressionBranch, ExpressionConfig
from avface.networks.frames import Frames


@dataclass(frozen=True)
class NetworkConfig:
    """Config of the coarse networks, saved with their weights; the defaults are the paper's."""

    head: str = "flame2020"
    """Name of the head model."""
    code: CodeConfig = FLAME_CODE
    """Parameters of the codes."""
    coarse: CoarseConfig = field(default_factory=CoarseConfig)
    """Shape, pose, camera, albedo and light."""
    expression: ExpressionConfig = field(default_factory=ExpressionConfig)
    """Expression and jaw."""

    def __post_init__(self) -> None:
        windows = self.coarse.temporal.window, self.expression.temporal.window
        if windows[0] != windows[1]:
            raise AvfaceError(
                f"window={windows[0]} of one branch and {windows[1]} of the other must be equal"
            )

    @property
    def window(self) -> int:
        """Frames of a window."""
        return self.coarse.temporal.window


class CoarseNetworks(nn.Module):
    """E_c and the expression branch. For clips longer than a window, see `windows.predict`."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.coarse = CoarseEncoder(config.coarse, config.code)
        self.expression = ExpressionBranch(config.expression, config.code)

    def forward(self, frames: Frames) -> tuple[CoarseCode, ExpressionCode]:
        """Codes of windows of at most `config.window` frames."""
        return self.coarse(frames), self.expression(frames)


FORMAT = WeightFormat(
    network="coarse networks",
    config=NetworkConfig,
    tag="avface coarse networks 1",
    training="avface train coarse",
)
"""The weight file of these networks."""


def save_networks(networks: CoarseNetworks, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write the weights with the config and any further metadata; the file appears whole.

    Raises:
        AvfaceError: if it can't be written.
    """
    FORMAT.save(path, networks, networks.config, metadata)


def load_networks(path: str | Path, expected: NetworkConfig | None = None) -> CoarseNetworks:
    """Read networks that `save_networks` wrote, in evaluation mode.

    Args:
        path: the file.
        expected: the config that they must have, if it matters.

    Raises:
        AvfaceError: if the file is missing, damaged, of another network, or of another config than expected.
    """
    file = FORMAT.read(path)
    if expected is not None and file.config != expected:
        difference = first_difference(asdict(file.config), asdict(expected))
        raise AvfaceError(
            f"{path}: weights of another network ({difference}); give weights of this recipe, or train them"
        )
    with torch.device("meta"):  # without initialisation: the values are in the file
        return file.network(CoarseNetworks)


pretrained_coarse_networks = Pretrained("networks", "coarse.safetensors", load_networks)
"""The weights that come with avface, for the open head."""
