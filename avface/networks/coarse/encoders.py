"""The two branches of the coarse stage: E_c for shape, pose and light, and E_a with E_v for the expression."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from avface.errors import AvfaceError
from avface.networks.audio import AudioConfig, AudioNet
from avface.networks.coarse.codes import (
    CoarseCode,
    CodeConfig,
    ExpressionCode,
    coarse_sizes,
    decode_coarse,
    decode_expression,
    expression_sizes,
)
from avface.networks.coarse.temporal import TemporalConfig, TemporalEncoder
from avface.networks.coarse.video import ResNetConfig, VideoConfig, make_video_encoder
from avface.networks.frames import FaceCrop, Frames


@dataclass(frozen=True)
class CoarseConfig:
    """Config of E_c; the defaults are AVFace's with a ResNet and FLAME."""

    video: VideoConfig = field(default_factory=lambda: ResNetConfig(hidden=(1024,)))
    """The video encoder."""
    embedding: int = 183
    """Size of its embedding, that of c (AVFace 3.5)."""
    temporal: TemporalConfig = field(default_factory=TemporalConfig)
    """The transformer."""

    def __post_init__(self) -> None:
        if self.embedding < 1:
            raise AvfaceError(f"embedding={self.embedding} must be above 0")


@dataclass(frozen=True)
class ExpressionConfig:
    """Config of the expression and jaw branch; the defaults are AVFace's."""

    video: VideoConfig = field(default_factory=ResNetConfig)
    """The video encoder E_v."""
    audio: AudioConfig = field(default_factory=AudioConfig)
    """Input of the audio encoder E_a."""
    feature: int = 64
    """Size of the embedding of each encoder."""
    temporal: TemporalConfig = field(default_factory=lambda: TemporalConfig(width=128))
    """The transformer."""
    audio_dropout: float = 0.4
    """Share of training windows without sound."""
    video_dropout: float = 0.5
    """Share of training windows without picture; never both, so the rest, 0.1, has both."""

    def __post_init__(self) -> None:
        if self.feature < 1:
            raise AvfaceError(f"feature={self.feature} must be above 0")
        drops = (self.audio_dropout, self.video_dropout)
        if not (min(drops) >= 0 and sum(drops) <= 1):
            raise AvfaceError(
                f"audio_dropout={drops[0]} and video_dropout={drops[1]} must be shares that add up to 1 at most: a "
                "window loses its sound or its picture, not both"
            )


class CoarseEncoder(nn.Module):
    """E_c: video -> embedding of each frame -> transformer over the window -> shape, pose, camera, albedo, light.

    A frame without a face has a learned embedding, initially zeros; it is inferred from the frames around it.
    """

    def __init__(self, config: CoarseConfig, code: CodeConfig) -> None:
        super().__init__()
        self.config, self.code = config, code
        self.video = make_video_encoder(config.video, config.embedding)
        self.unseen = nn.Parameter(torch.zeros(config.embedding))
        self.temporal = TemporalEncoder(config.temporal, config.embedding, sum(coarse_sizes(code)))

    def embed(self, frames: Frames) -> Tensor:
        """Embeddings (B, T, embedding), frame by frame."""
        return torch.where(frames.seen[..., None], self.video(frames), self.unseen)

    def read(self, embeddings: Tensor, crop: FaceCrop) -> CoarseCode:
        """Codes of windows, from their frames' embeddings and squares."""
        return decode_coarse(self.temporal(embeddings), self.code, crop)

    def forward(self, frames: Frames) -> CoarseCode:
        """Codes of windows of at most `temporal.window` frames."""
        return self.read(self.embed(frames), frames.crop)


class ExpressionBranch(nn.Module):
    """E_a and E_v: sound and video -> features of each frame, side by side -> transformer -> expression and jaw.

    Where sound or picture is missing, for one frame or all, its feature is a learned one, initially zeros as in the
    paper, so that either suffices at inference.
    """

    def __init__(self, config: ExpressionConfig, code: CodeConfig) -> None:
        super().__init__()
        self.config, self.code = config, code
        self.video = make_video_encoder(config.video, config.feature)
        self.audio = AudioNet(config.audio, config.feature)
        self.unseen = nn.Parameter(torch.zeros(config.feature))
        self.unheard = nn.Parameter(torch.zeros(config.feature))
        self.temporal = TemporalEncoder(config.temporal, 2 * config.feature, sum(expression_sizes(code)))

    def embed(self, frames: Frames) -> Tensor:
        """Features (B, T, 2 * feature), sound then picture, frame by frame.

        An encoder is skipped if none of the frames has an input for it.
        """
        lead = frames.seen.shape
        sound, picture = self.unheard.expand(*lead, -1), self.unseen.expand(*lead, -1)
        if frames.speech is not None and bool(frames.heard.any()):
            heard = frames.heard[..., None]
            speech = torch.where(heard[..., None], frames.speech, 0.0)
            sound = torch.where(heard, self.audio(speech), self.unheard)
        if bool(frames.seen.any()):
            picture = torch.where(frames.seen[..., None], self.video(frames), self.unseen)
        return torch.cat([sound, picture], -1)

    def without_audio(self, embeddings: Tensor) -> Tensor:
        """The features (B, T, 2 * feature) that `embed` gives of the same frames without their sound."""
        silent = self.unheard.expand(*embeddings.shape[:-1], -1)
        return torch.cat([silent, embeddings[..., self.config.feature :]], -1)

    def read(self, embeddings: Tensor) -> ExpressionCode:
        """Codes of windows, from their frames' features."""
        return decode_expression(self.temporal(embeddings), self.code)

    def forward(self, frames: Frames) -> ExpressionCode:
        """Codes of windows of at most `temporal.window` frames."""
        return self.read(self.embed(frames))


def drop_modalities(
    frames: Frames, config: ExpressionConfig, generator: torch.Generator | None = None
) -> Frames:
    """Modality dropout for the expression branch: the windows, some without sound and some without picture.

    Each window is of one of three kinds, with the shares of the config: picture only, sound only, both. The paper
    zeroes sound with probability 0.4 and picture with 0.5. Drawn independently, a fifth of the windows would be empty
    and train the network's average; here the two shares are the paper's and none is empty. The work that the paper
    cites, Abdelaziz et al. 2020, mixes the three kinds too. A window without sound keeps its picture, and one without a
    face its sound.
    """
    drawn = torch.rand(len(frames.seen), generator=generator).to(frames.seen.device)[:, None]
    silent = drawn < config.audio_dropout
    masked = (drawn >= config.audio_dropout) & (drawn < config.audio_dropout + config.video_dropout)
    silent = silent & frames.seen.any(1, keepdim=True)
    masked = masked & frames.heard.any(1, keepdim=True)
    return replace(frames, seen=frames.seen & ~masked, heard=frames.heard & ~silent)
