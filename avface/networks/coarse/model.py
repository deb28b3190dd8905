"""The networks of the coarse stage together, and their file."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch
from torch import nn

from avface.errors import AvfaceError
from avface.files import write_tensors
from avface.networks.coarse.codes import FLAME_CODE, CoarseCode, CodeConfig, ExpressionCode
from avface.networks.coarse.encoders import CoarseConfig, CoarseEncoder, ExpressionBranch, ExpressionConfig
from avface.networks.coarse.temporal import TemporalConfig
from avface.networks.coarse.video import LandmarksConfig
from avface.networks.frames import Frames
from avface.networks.weight_file import read_weights

FORMAT = "avface coarse networks 1"


@dataclass(frozen=True)
class NetworkConfig:
    """All choices of the coarse stage's networks; the defaults are the paper's. Saved with the weights."""

    head: str = "flame2020"
    """The head model that the codes are about."""
    code: CodeConfig = FLAME_CODE
    """What the codes hold."""
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
        """Frames that the networks see at once."""
        return self.coarse.temporal.window


def landmark_networks() -> NetworkConfig:
    """The choice for the open head and tracked points, of which the shipped weights are."""
    return NetworkConfig(
        "open",
        CodeConfig(),
        CoarseConfig(LandmarksConfig(), 192, TemporalConfig()),
        ExpressionConfig(LandmarksConfig(), temporal=TemporalConfig(width=128)),
    )


class CoarseNetworks(nn.Module):
    """E_c and the expression branch. See `prediction.predict` for clips longer than a window."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.coarse = CoarseEncoder(config.coarse, config.code)
        self.expression = ExpressionBranch(config.expression, config.code)

    def forward(self, frames: Frames) -> tuple[CoarseCode, ExpressionCode]:
        """Codes of windows of at most `config.window` frames."""
        return self.coarse(frames), self.expression(frames)


def save_networks(networks: CoarseNetworks, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write weights as safetensors, with the config and any further metadata inside. The file appears whole.

    Raises:
        AvfaceError: if it can't be written.
    """
    own = {"format": FORMAT, "config": json.dumps(asdict(networks.config))}
    write_tensors(path, networks.state_dict(), {**(metadata or {}), **own})


def load_networks(path: str | Path, expected: NetworkConfig | None = None) -> CoarseNetworks:
    """Read networks that `save_networks` wrote, in evaluation mode.

    Args:
        path: the file.
        expected: the config that they must have, if it matters.

    Raises:
        AvfaceError: if the file is missing, damaged, of another kind, or of another config than expected.
    """
    metadata, weights = read_weights(path, FORMAT, "coarse stage")
    try:
        config = config_from_plain(json.loads(metadata["config"]))
        with torch.device("meta"):  # sizes alone: the numbers are in the file
            networks = CoarseNetworks(config)
    except (KeyError, TypeError, ValueError, RuntimeError, AvfaceError) as error:
        raise AvfaceError(f"{path}: its config can't be read ({error}); train it again") from None
    if expected is not None and config != expected:
        raise AvfaceError(
            f"{path}: weights of another network ({_difference(asdict(config), asdict(expected))}); give weights "
            "of this recipe, or train them"
        )
    wanted = networks.state_dict()
    wrong = sorted(wanted.keys() ^ weights.keys()) + [
        name for name in wanted.keys() & weights.keys() if wanted[name].shape != weights[name].shape
    ]
    if wrong:
        raise AvfaceError(
            f"{path}: damaged: its weights don't fit its config ({len(wrong)} of them, the first is {wrong[0]}); "
            "fetch or train it again"
        )
    networks.load_state_dict(weights, assign=True)
    return networks.eval()


def config_from_plain(values: dict[str, Any]) -> NetworkConfig:
    """The config from what JSON keeps of `asdict`.

    Raises:
        KeyError, TypeError, ValueError, AvfaceError: if it doesn't fit.
    """
    config: NetworkConfig = _from_plain(NetworkConfig, values)
    return config


def _difference(found: dict[str, Any], wanted: dict[str, Any], where: str = "") -> str:
    """The first setting that differs, for people."""
    for name in [*wanted, *(name for name in found if name not in wanted)]:
        one, other = found.get(name), wanted.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            if one != other:
                return _difference(one, other, f"{where}{name}.")
        elif one != other:
            return f"{where}{name} is {one}, not {other}"
    raise ValueError("there is no difference")


def _from_plain(kind: Any, value: Any) -> Any:
    """A tree of config dataclasses from what JSON keeps of `asdict`; a choice among several is told by `kind`.

    Raises:
        KeyError, TypeError, ValueError, AvfaceError: if it doesn't fit.
    """
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        chosen = [c for c in get_args(kind) if get_args(get_type_hints(c)["kind"]) == (value["kind"],)]
        if not chosen:
            raise ValueError(f"unknown kind {value['kind']!r}")
        return _from_plain(chosen[0], value)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        if set(value) != {entry.name for entry in fields(kind)}:
            raise ValueError(f"settings {sorted(set(value) ^ {entry.name for entry in fields(kind)})}")
        return kind(**{name: _from_plain(hints[name], inner) for name, inner in value.items()})  # type: ignore[operator]
    return tuple(value) if origin is tuple else value
