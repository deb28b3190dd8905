"""Speech features around every video frame, at any frame rate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from avface.arrays import F32, F64
from avface.errors import AvfaceError
from avface.speech import acoustic, mel, moonshine, wav2vec2
from avface.speech.acoustic import pretrained_acoustic_model
from avface.speech.readout import HearingRows, pretrained_hearing

SpeechKind = Literal["moonshine", "own", "wav2vec2", "mel"]
"""Kind of features, see `speech_features`."""
KINDS: tuple[SpeechKind, ...] = get_args(SpeechKind)
"""All kinds."""
WINDOW = 16
"""Rows around each frame."""
WINDOW_STEP = 0.02
"""Seconds between the rows of a window, but for mel."""
WIDTHS: dict[SpeechKind, int] = {"moonshine": 29, "own": 29, "wav2vec2": 768, "mel": mel.BANDS}
"""Feature sizes; that of wav2vec2 is its base model's, other models may differ."""


@dataclass(frozen=True, eq=False)
class SpeechFeatures:
    """Speech features of T video frames."""

    values: F32
    """(T, 16, D): 16 rows around each frame; zero without sound."""
    kind: SpeechKind
    """Their kind."""
    heard: bool
    """Whether there is sound; silence is."""
    speech_activity: F32
    """(T,) probability of speech, 0 to 1; 0 without sound, near 0 in silence, noise and music."""
    mouth_openness: F32
    """(T,) openness of the mouth predicted from sound, from 0 (closed) to 1 (wide open); 0 without sound. It accounts
    for the lead of the lips over the voice."""
    lip_closure: F32
    """(T,) probability that the lips are closed in speech, as in p, b and m; 0 without sound. With the lead, too."""
    loudness: F32
    """(T,) loudness of the voice, from 0 to 1 for its loud parts; 0 without sound."""

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def without_sound(cls, frames: int, kind: SpeechKind) -> SpeechFeatures:
        """The features of so many frames of a video without sound."""
        values = np.zeros((frames, WINDOW, WIDTHS[kind]), np.float32)
        nothing = np.zeros((4, frames), np.float32)
        return cls(values, kind, False, *nothing)


def speech_features(
    sound: F32 | None,
    times: F64,
    kind: SpeechKind = "moonshine",
    device: str | torch.device = "cpu",
    weights: str | Path | None = None,
) -> SpeechFeatures:
    """Speech features around each frame of a video.

    `moonshine`: standardised logits of 29 phone classes (`avface.speech.SYMBOLS`) that the speech readout makes of the
    states of Moonshine's encoder; D = 29. `own`: the same of avface's acoustic model, which was trained on synthetic
    speech alone. `wav2vec2`: hidden states of wav2vec 2.0, D = 768 for the base model. For the frame at time t the 16
    rows lie at t + (k - 8) * 20 ms, k = 0 to 15, between the model's rows by linear interpolation and zero outside the
    sound (AVFace, section 3.1; at 25 frames a second these are AD-NeRF's windows).
    `mel`: Wav2Lip's spectra, 80 a second; the window starts at spectrum round(80 t) - 8, D = 80, -4 outside the sound.

    Speech activity, mouth openness, closure and loudness come from the speech readout whatever the kind.

    Args:
        sound: (N,) float32 samples in [-1, 1] at 16 kHz, mono, as `avface.media.Clip.audio` gives them: sample 0
            belongs to time 0. None without a sound track.
        times: (T,) seconds of the frames; any steps between them. Frames may lie before or after the sound.
        kind: "moonshine", "own", "wav2vec2" or "mel".
        device: Torch device.
        weights: Folder or name in the user's Hugging Face cache, of wav2vec2 only.

    Raises:
        AvfaceError: if transformers or its weights are missing for wav2vec2, or samples aren't finite numbers.
        ValueError: if the kind is unknown, or arrays have the wrong shape.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} must be one of {', '.join(map(repr, KINDS))}")
    times = np.asarray(times, np.float64)
    if times.ndim != 1 or not np.isfinite(times).all():
        raise ValueError(f"times of shape {times.shape} must be (T,) and finite, in seconds")
    if sound is None:
        return SpeechFeatures.without_sound(len(times), kind)
    if np.ndim(sound) != 1:
        raise ValueError(f"sound of shape {np.shape(sound)} must be (N,): one channel")
    samples = torch.from_numpy(np.ascontiguousarray(sound, np.float32)).to(device)
    check_samples(samples)
    if len(samples) == 0:
        samples = samples.new_zeros(1)
    rows = pretrained_hearing(str(device)).hear(samples)
    return framed(rows, moonshine.FIRST_ROW, samples, times, kind, weights)


def check_samples(samples: Tensor) -> None:
    """Refuse samples that aren't finite numbers: AvfaceError."""
    if not bool(torch.isfinite(samples).all()):
        raise AvfaceError(
            "the sound has samples that aren't finite numbers; convert the file's sound track anew"
        )


def framed(
    rows: HearingRows,
    first_row: float,
    samples: Tensor,
    times: F64,
    kind: SpeechKind,
    weights: str | Path | None = None,
) -> SpeechFeatures:
    """The features of frames at times (T,), from what is heard around them and, for other kinds, from the samples.

    first_row: seconds of the first row. The times count from the first sample.
    """
    moments = torch.from_numpy(times).to(samples.device)
    if kind == "mel":
        values = _mel_windows(mel.mel_spectra(samples), moments)
    elif kind == "wav2vec2":
        states = wav2vec2.wav2vec2_rows(samples, weights or wav2vec2.DEFAULT_WEIGHTS)
        values = _windows(states, moments - wav2vec2.FIRST_ROW, wav2vec2.ROW_SECONDS)
    elif kind == "own":
        logits = pretrained_acoustic_model(str(samples.device)).predict(samples).standardised
        values = _windows(logits, moments, acoustic.ROW_SECONDS)
    else:
        values = _windows(rows.features, moments - first_row, moonshine.ROW_SECONDS)
    outputs = _at(rows.outputs(), moments - first_row, moonshine.ROW_SECONDS).T.cpu().numpy()
    return SpeechFeatures(values.cpu().numpy(), kind, True, *(output.copy() for output in outputs))


def _at(rows: Tensor, times: Tensor, step: float) -> Tensor:
    """Rows (R, D), `step` seconds apart, at times (...) in seconds from the first, (..., D): linear between rows,
    falling to zero within one row outside."""
    padded = torch.nn.functional.pad(rows, (0, 0, 1, 1))
    place = (times / step + 1).clamp(0, len(padded) - 1)
    below = place.floor().long().clamp_max(len(padded) - 2)
    share = (place - below).to(rows.dtype)[..., None]
    return padded[below] * (1 - share) + padded[below + 1] * share


def _windows(rows: Tensor, times: Tensor, step: float) -> Tensor:
    """(T, 16, D): the row 0 to 15 of a window lies (row - 8) * 20 ms after the frame."""
    offsets = WINDOW_STEP * (torch.arange(WINDOW, device=times.device) - WINDOW // 2)
    return _at(rows, times[:, None] + offsets, step)


def _mel_windows(spectra: Tensor, times: Tensor) -> Tensor:
    """(T, 16, 80) spectra from round(80 t) - 8 on; -4 outside."""
    first = (times * mel.RATE).round().long() - WINDOW // 2
    place = first[:, None] + torch.arange(WINDOW, device=times.device)
    inside = (place >= 0) & (place < len(spectra))
    return torch.where(inside[..., None], spectra[place.clamp(0, len(spectra) - 1)], -4.0)
