"""Captures with a lip layer and small lip networks for tests."""

from __future__ import annotations

import numpy as np
import torch
from captures import moving_capture

from avface.capture import Capture, LipLayer
from avface.head import load_head
from avface.head.lips import lip_region
from avface.networks.lips.network import LipsConfig, LipsNetwork

SMALL = LipsConfig(points=24, embedding=16, feature=8, hidden=16, layers=2, mapping=16)


def lip_capture(frames: int = 12, components: int = 3) -> Capture:
    """`moving_capture` with random lip components, whose weights are 0 in the first frame."""
    rng = np.random.default_rng(5)
    region = lip_region(load_head("open"))
    basis = rng.normal(0, 0.002, (components, len(region), 3)) * region.falloff[:, None]
    weights = rng.uniform(-1, 1, (frames, components))
    weights[0] = 0
    layer = LipLayer(region.vertices, basis.astype(np.float32), weights.astype(np.float32))
    return moving_capture(frames).with_layer(layer)


def small_lips(seed: int = 0) -> LipsNetwork:
    """A small random network of the open head, whose output depends on the sound, in evaluation mode."""
    torch.manual_seed(seed)
    network = LipsNetwork.of(load_head("open"), SMALL)
    torch.nn.init.normal_(network.out.weight, std=0.3)
    return network.eval()
