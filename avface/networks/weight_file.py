"""Weights of networks as safetensors from outside: read, and checked before anything is made of them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from avface.errors import AvfaceError


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
