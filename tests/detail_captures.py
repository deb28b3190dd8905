"""Captures with a detail layer and small detail networks for tests."""

from __future__ import annotations

import numpy as np
import torch
from captures import moving_capture

from avface.capture import Capture, DetailLayer
from avface.head import load_head
from avface.head.skin.atlas import detail_atlas
from avface.networks.detail.network import DetailConfig, DetailNetwork

SMALL = DetailConfig(resolution=64, encoder=(8, 8, 8, 8, 8), decoder=(8, 8, 8, 8, 4), image=4, out=4)


def detail_capture(frames: int = 12, resolution: int = 64, depth: float = 1e-3) -> Capture:
    """`moving_capture` with static horizontal waves of amplitude `depth` metres and growing vertical ones."""
    mask = detail_atlas(load_head("open"), resolution).mask.numpy()
    steps = np.arange(resolution) / resolution
    horizontal = np.sin(60 * steps)[:, None] * mask
    vertical = np.sin(50 * steps)[None] * mask
    layer = DetailLayer(
        static=(depth * horizontal).astype(np.float16),
        basis=(depth * vertical)[None].astype(np.float16),
        weights=np.linspace(0, 1, frames, dtype=np.float32)[:, None],
    )
    return moving_capture(frames).with_layer(layer)


def small_detail(seed: int = 0) -> DetailNetwork:
    """A small random network of the open head with non-zero displacement, in evaluation mode."""
    torch.manual_seed(seed)
    network = DetailNetwork.of(load_head("open"), SMALL)
    torch.nn.init.normal_(network.last.weight, std=0.3)
    return network.eval()
