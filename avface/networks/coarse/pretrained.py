"""The networks that come with avface."""

from __future__ import annotations

import functools
from pathlib import Path

from avface.networks.coarse.model import CoarseNetworks, load_networks

WEIGHTS = Path(__file__).parents[1] / "assets" / "coarse.safetensors"
"""The shipped weights, for the open head."""


@functools.cache
def pretrained_coarse_networks(device: str) -> CoarseNetworks:
    """The shipped networks on a device, loaded once.

    Raises:
        AvfaceError: if their file is missing or damaged.
    """
    return load_networks(WEIGHTS).requires_grad_(False).to(device)
