"""The audio encoder E_a: an embedding of the speech features around a frame."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from avface.errors import AvfaceError
from avface.speech.features import KINDS, WINDOW, SpeechKind


@dataclass(frozen=True)
class AudioConfig:
    """The input of the audio encoder."""

    speech: SpeechKind = "moonshine"
    """Kind of speech features, see `avface.speech.speech_features`."""
    width: int = 29
    """Feature size: 29 of moonshine and own, 80 of mel, 768 of wav2vec2's base model."""

    def __post_init__(self) -> None:
        if self.speech not in KINDS:
            raise AvfaceError(f"speech={self.speech!r} must be one of {', '.join(KINDS)}")
        if self.width < 1:
            raise AvfaceError(f"width={self.width}: speech features have a size above 0")


class AudioNet(nn.Module):
    """Speech features (..., 16, D) -> (..., size).

    Four convolutions over time, 32, 32, 64 and 64 channels, each with three taps and stride 2 (16 rows -> 8 -> 4 -> 2
    -> 1), then two linear layers; leaky ReLU with slope 0.02 in between.
    Source: AD-NeRF (Guo et al. 2021), AudioNet, which has the sizes that AVFace states (16 x 29 -> 64).
    """

    def __init__(self, config: AudioConfig, size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = config.width
        for after in (32, 32, 64, 64):
            layers += [nn.Conv1d(channels, after, 3, 2, 1), nn.LeakyReLU(0.02)]
            channels = after
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(channels, 64), nn.LeakyReLU(0.02), nn.Linear(64, size))

    def forward(self, speech: Tensor) -> Tensor:
        """Embed frames independently.

        Raises:
            ValueError: if the number of rows isn't 16.
        """
        if speech.shape[-2] != WINDOW:
            raise ValueError(f"speech features {tuple(speech.shape)} must be (..., {WINDOW}, D)")
        rows = speech.flatten(0, -3).transpose(1, 2)
        embedded: Tensor = self.head(self.convolutions(rows)[..., 0])
        return embedded.unflatten(0, speech.shape[:-2])
