"""The transformer over a window of frames, of both branches of the coarse stage."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avface.errors import AvfaceError
from avface.networks.coarse.video import perceptron


@dataclass(frozen=True)
class TemporalConfig:
    """Config of the transformer; the defaults are AVFace's (section 3.5)."""

    window: int = 16
    """Frames of a window, at most."""
    width: int = 192
    """Width of the model, a multiple of `heads`. The paper's 183 for c isn't; 128 for e is."""
    layers: int = 3
    """Number of layers."""
    heads: int = 4
    """Number of attention heads."""
    feed_forward: int = 256
    """Width of the feed-forward layers."""
    projection: tuple[int, ...] = (256, 256)
    """Widths of hidden layers with ReLU after the transformer. With the last, linear one they are the paper's three."""

    def __post_init__(self) -> None:
        if self.window < 1:
            raise AvfaceError(f"window={self.window} must be at least 1 frame")
        if self.heads < 1 or self.width < 1 or self.width % self.heads:
            raise AvfaceError(f"width={self.width} must be a multiple of heads={self.heads}, both above 0")
        for name in ("layers", "feed_forward"):
            if getattr(self, name) < 1:
                raise AvfaceError(f"{name}={getattr(self, name)} must be above 0")
        if any(width < 1 for width in self.projection):
            raise AvfaceError(f"projection={self.projection}: every layer needs a width above 0")


class TemporalEncoder(nn.Module):
    """Embeddings of a window (B, T, size) -> (B, T, out), with attention over the whole window.

    A linear layer to the transformer's width (none where it is the same), learned positions, a transformer encoder
    with layer norm after each part and no dropout (Vaswani et al. 2017), then linear layers with ReLU.
    """

    def __init__(self, config: TemporalConfig, size: int, out: int) -> None:
        super().__init__()
        self.config = config
        self.entry = nn.Identity() if size == config.width else nn.Linear(size, config.width)
        self.positions = nn.Parameter(torch.empty(config.window, config.width))
        # truncated: on the meta device the plain normal distribution would import PyTorch's compiler
        nn.init.trunc_normal_(self.positions, std=0.02)
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, config.feed_forward, dropout=0.0, batch_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.projection = perceptron((config.width, *config.projection, out))
        last = self.projection[-1]
        assert isinstance(last, nn.Linear)
        # initially close to the average head for any input
        nn.init.trunc_normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Encode a window.

        Raises:
            ValueError: if it is longer than `config.window`.
        """
        count = embeddings.shape[1]
        if count > self.config.window:
            raise ValueError(f"a window of {count} frames is longer than the network's {self.config.window}")
        encoded: Tensor = self.transformer(self.entry(embeddings) + self.positions[:count])
        return self.projection(encoded)
