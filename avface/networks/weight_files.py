"""Weights of networks as safetensors: written in half precision; read, and checked before anything is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from avface.errors import AvfaceError
from avface.files import write_tensors


def write_half(network: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a network's weights as safetensors, real numbers in half precision, which halves what people download.

    Raises:
        AvfaceError: if the file can't be written.
    """
    state = network.state_dict()
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    write_tensors(path, half, metadata)


def read_weights(path: str | Path, kind: str, what: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a file of weights.

    Args:
        path: the file.
        kind: what its metadata must have as "format".
        what: whose weights they should be, for people: "the coarse stage".

    Raises:
        AvfaceError: if the file is missing, damaged, of another kind, or has numbers that aren't finite.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError:
        raise AvfaceError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise AvfaceError(f"{path}: not a readable weights file ({error}); fetch or train it again") from None
    if metadata.get("format") != kind:
        raise AvfaceError(f"{path}: not weights of this version's {what}; train them again")
    if not all(bool(torch.isfinite(value).all()) for value in weights.values()):
        raise AvfaceError(f"{path}: has weights that aren't finite; go back to an earlier file")
    return metadata, weights
