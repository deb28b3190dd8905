"""Residual blocks of dilated convolutions over rows of sound."""

from __future__ import annotations

from torch import Tensor, nn


class DilatedBlock(nn.Module):
    """Residual block: a dilated convolution with three taps, then a pointwise one."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.taps = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.mix = nn.Conv1d(channels, channels, 1)

    def forward(self, rows: Tensor) -> Tensor:
        """rows (B, channels, R) -> the same shape."""
        normed = self.norm(rows.transpose(1, 2)).transpose(1, 2)
        out: Tensor = rows + self.mix(nn.functional.gelu(self.taps(normed)))
        return out
