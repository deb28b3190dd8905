"""Initialisation of the coarse networks with DECA's weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avface.errors import AvfaceError
from avface.networks.coarse.model import CoarseNetworks
from avface.networks.coarse.video import ResNetEncoder
from avface.networks.resnet import copy_backbone, load_torch_file

COARSE_ROWS = (*range(150), *range(200, 203), *range(206, 236))
"""Rows of DECA's last layer for c: shape, albedo, global pose, camera, light (183)."""
EXPRESSION_ROWS = (*range(150, 200), *range(203, 206))
"""Rows of DECA's last layer for e: expression and jaw (53)."""
DECA_CODE = 236
"""Size of DECA's code."""


@dataclass(frozen=True)
class DecaReport:
    """Which entries of a DECA file were used for which of our weights."""

    used: dict[str, tuple[str, ...]]
    """Entry of the file -> our weights it was copied to, in whole or in part (the rows are given)."""
    unused: tuple[str, ...]
    """Entries of the file that weren't used."""
    untouched: tuple[str, ...]
    """Our weights without a counterpart in DECA, which are unchanged."""

    def __str__(self) -> str:
        """Summarise."""
        return (
            f"{len(self.used)} of DECA's entries used, {len(self.unused)} not; {len(self.untouched)} of our weights "
            "have no counterpart and keep their initial values"
        )


def load_deca(path: str | Path, networks: CoarseNetworks) -> DecaReport:
    """Initialise networks with ResNet encoders from DECA's `deca_model.tar`; nothing in that file is executed.

    DECA's encoder `E_flame` is a ResNet-50 and two linear layers, 2048 -> 1024 -> 236. The ResNet is copied to the
    video encoders of both branches. The two layers become E_c's embedding, the last one with the 183 rows of c, if
    that has those sizes; E_v's single layer 2048 -> 64 has no counterpart. The detail networks aren't used.

    Raises:
        AvfaceError: if the file is missing, damaged, would have to be executed or isn't DECA's, or if the networks have
            no ResNet.
    """
    path = Path(path)
    encoders = {
        "coarse.video": networks.coarse.video,
        "expression.video": networks.expression.video,
    }
    residual = {name: encoder for name, encoder in encoders.items() if isinstance(encoder, ResNetEncoder)}
    if not residual:
        raise AvfaceError(
            f"{path}: DECA's weights are for networks with a resnet50 video encoder; choose that"
        )
    content = load_torch_file(path)
    weights = content.get("E_flame")
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise AvfaceError(f"{path}: not DECA's deca_model.tar: it has no network E_flame")
    backbone = {
        name.removeprefix("encoder."): value for name, value in weights.items() if name.startswith("encoder.")
    }
    _check_layers(path, weights)
    used: dict[str, tuple[str, ...]] = {}
    for name, encoder in residual.items():
        copy_backbone(path, backbone, encoder.backbone)
        for entry in backbone:
            key = f"E_flame.encoder.{entry}"
            used[key] = (*used.get(key, ()), f"{name}.backbone.{entry}")
    coarse = residual.get("coarse.video")
    if coarse is not None:
        used |= _copy_layers(weights, coarse.head)
    filled = {target.split(" ")[0] for targets in used.values() for target in targets}
    names = dict(_entries(content))
    return DecaReport(
        used,
        tuple(name for name in names if name not in used),
        tuple(name for name in networks.state_dict() if name not in filled),
    )


def _check_layers(path: Path, weights: dict[str, Tensor]) -> None:
    """Check the shapes of DECA's linear layers."""
    for name, shape in (
        ("layers.0.weight", (1024, 2048)),
        ("layers.0.bias", (1024,)),
        ("layers.2.weight", (DECA_CODE, 1024)),
        ("layers.2.bias", (DECA_CODE,)),
    ):
        found = tuple(weights[name].shape) if name in weights else None
        if found != shape:
            raise AvfaceError(
                f"{path}: not DECA's deca_model.tar: E_flame.{name} is "
                f"{'missing' if found is None else f'of shape {found}'}, not {shape}"
            )


def _copy_layers(weights: dict[str, Tensor], head: nn.Sequential) -> dict[str, tuple[str, ...]]:
    """Copy the linear layers to those of the embedding if their sizes agree; returns what was copied where."""
    linear = [module for module in head if isinstance(module, nn.Linear)]
    sizes = [(layer.in_features, layer.out_features) for layer in linear]
    used: dict[str, tuple[str, ...]] = {}
    if sizes != [(2048, 1024), (1024, len(COARSE_ROWS))]:
        return used
    rows = torch.tensor(COARSE_ROWS)
    with torch.no_grad():
        for part in ("weight", "bias"):
            getattr(linear[0], part).copy_(weights[f"layers.0.{part}"])
            getattr(linear[1], part).copy_(weights[f"layers.2.{part}"][rows])
            used[f"E_flame.layers.0.{part}"] = (f"coarse.video.head.0.{part}",)
            used[f"E_flame.layers.2.{part}"] = (f"coarse.video.head.2.{part} (rows of c, 183 of 236)",)
    return used


def _entries(content: Any, where: str = "") -> list[tuple[str, Any]]:
    """All entries of a dictionary of networks, with names `network.weight`."""
    found: list[tuple[str, Any]] = []
    for name, value in content.items():
        if not where and isinstance(value, dict) and all(isinstance(v, Tensor) for v in value.values()):
            found += _entries(value, f"{name}.")
        else:
            found.append((f"{where}{name}", value))
    return found
