"""Sounds other than speech: negative examples for audio-driven networks."""

from __future__ import annotations

import numpy as np

from avface.arrays import F64
from avface.synthetic.performance.random_curves import smooth_noise

KINDS = ("hum", "laugh", "music", "noise", "clatter")


def sample_nonspeech(rng: np.random.Generator, seconds: float, sample_rate: int, kind: str) -> F64:
    """Sound (N,) of a kind, one of `KINDS`, with a peak of at most 0.9."""
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    makers = {"hum": _hum, "laugh": _laugh, "music": _music, "noise": _noise, "clatter": _clatter}
    sound = makers[kind](rng, times)
    return rng.uniform(0.1, 0.9) * sound / max(float(np.abs(sound).max()), 1e-9)


def room_noise(rng: np.random.Generator, seconds: float, sample_rate: int) -> F64:
    """Background noise (N,) of a quiet room."""
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    sound = _noise(rng, times)
    return 10 ** rng.uniform(-3.5, -1.8) * sound / max(float(sound.std()), 1e-9)


def _hum(rng: np.random.Generator, times: F64) -> F64:
    """A hum of varying pitch."""
    pitch = rng.uniform(90, 260) * np.exp(0.12 * smooth_noise(rng, times, 1.0))
    return _harmonics(pitch, times, 1 / np.arange(1, 12) ** 2.2) * _envelope(rng, times, 0.6)


def _laugh(rng: np.random.Generator, times: F64) -> F64:
    """Bursts of breathy voice, four to six a second."""
    rate, pitch = rng.uniform(4, 6), rng.uniform(160, 380)
    bursts = np.clip(np.sin(2 * np.pi * rate * times + rng.uniform(0, 6)), 0, 1) ** 0.7
    voice = _harmonics(pitch * (1 + 0.15 * bursts), times, 1 / np.arange(1, 14) ** 1.2)
    return (voice + 0.4 * rng.normal(size=len(times))) * bursts * _envelope(rng, times, 0.5)


def _music(rng: np.random.Generator, times: F64) -> F64:
    """Plucked notes of one scale, two or three at a time."""
    scale = rng.uniform(110, 220) * 2 ** (np.array([0, 2, 4, 7, 9, 12, 14, 16, 19]) / 12)
    sound, beat = np.zeros(len(times)), rng.uniform(0.18, 0.5)
    for start in np.arange(0, times[-1], beat) if len(times) else []:
        for note in rng.choice(scale, rng.integers(1, 4), replace=False):
            after = np.maximum(times - start, 0)
            tone = sum(np.sin(2 * np.pi * k * note * after) / k**1.5 for k in range(1, 5))
            sound += rng.uniform(0.4, 1) * tone * np.exp(-after / rng.uniform(0.15, 0.6)) * (times >= start)
    return sound


def _noise(rng: np.random.Generator, times: F64) -> F64:
    """Coloured noise, between white and 1/f^2 in power, with a varying level."""
    spectrum = np.fft.rfft(rng.normal(size=len(times)))
    frequency = np.maximum(np.fft.rfftfreq(len(times), times[1] - times[0] if len(times) > 1 else 1.0), 20)
    coloured = np.fft.irfft(spectrum * frequency ** -rng.uniform(0, 1), len(times))
    return coloured * (1 + 0.3 * np.tanh(smooth_noise(rng, times, 1.0)))


def _clatter(rng: np.random.Generator, times: F64) -> F64:
    """Random impacts: decaying tones with noise."""
    sound = 0.01 * rng.normal(size=len(times))
    for start in rng.uniform(0, times[-1], rng.poisson(2 * times[-1]) + 1):
        after = np.maximum(times - start, 0)
        ring = np.sin(2 * np.pi * rng.uniform(150, 3000) * after) + rng.normal(size=len(times))
        sound += rng.uniform(0.2, 1) * ring * np.exp(-after / rng.uniform(0.005, 0.06)) * (times >= start)
    return sound


def _harmonics(pitch: F64, times: F64, amplitudes: F64) -> F64:
    """A tone of pitch (N,) in Hz, with harmonics of given amplitudes (H,) below 7 kHz."""
    step = times[1] - times[0] if len(times) > 1 else 0.0
    phase = 2 * np.pi * np.cumsum(pitch) * step
    waves = [a * np.sin((k + 1) * phase) * ((k + 1) * pitch < 7000) for k, a in enumerate(amplitudes)]
    return np.asarray(np.sum(waves, 0))


def _envelope(rng: np.random.Generator, times: F64, bandwidth: float) -> F64:
    """A random amplitude envelope (N,) in [0, 1]."""
    return np.clip(0.6 + 0.6 * smooth_noise(rng, times, bandwidth), 0, 1)
