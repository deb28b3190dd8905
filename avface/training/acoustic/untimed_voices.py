"""Speech by voices without phone times: RHVoice's and SVOX Pico's.

They use statistics of recordings of people. The phones are those of espeak-ng for the same text; their times are found
by `phone_alignment`. All are packages of Debian (its section non-free, since trained voices
have no source), and all voices named here are under free licences: RHVoice's under LGPL 2.1 or CC BY-SA 4.0 (its voices
under other terms are left out), Pico's under Apache 2.0. They are needed to train the acoustic model, not to use it.
"""

from __future__ import annotations

import shutil
import subprocess
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

from avface.arrays import F32
from avface.errors import AvfaceError
from avface.files.temporary import temporary_folder
from avface.speech.phones import phone_indices
from avface.speech.spectrum import SAMPLE_RATE
from avface.synthetic.performance.espeak import speak

PACKAGES = (
    "rhvoice", "rhvoice-english", "rhvoice-russian", "rhvoice-ukrainian", "rhvoice-kyrgyz", "rhvoice-esperanto",
    "rhvoice-brazilian-portuguese", "libttspico-utils",
)  # fmt: skip
"""Debian packages of the programs and voices."""


@dataclass(frozen=True)
class UntimedVoice:
    """A voice and its language."""

    name: str
    """Name in the program."""
    program: str
    """"RHVoice-test" or "pico2wave"."""
    language: str
    """Name in espeak-ng."""


UNTIMED_VOICES = (
    *(
        UntimedVoice(name, "RHVoice-test", language)
        for name, language in (
            ("alan", "en-gb-scotland"), ("bdl", "en-us"), ("clb", "en-us"), ("aleksandr-hq", "ru"), ("anna", "ru"),
            ("elena", "ru"), ("irina", "ru"), ("anatol", "uk"), ("natalia", "uk"), ("azamat", "ky"), ("nazgul", "ky"),
            ("spomenka", "eo"), ("Leticia-F123", "pt-br"),
        )
    ),
    *(
        UntimedVoice(name, "pico2wave", language)
        for name, language in (
            ("en-US", "en-us"), ("en-GB", "en"), ("de-DE", "de"), ("es-ES", "es"), ("fr-FR", "fr"), ("it-IT", "it"),
        )
    ),
)  # fmt: skip
"""Voices for training."""


@dataclass(frozen=True)
class UntimedSpeech:
    """samples (N,) float32 in [-1, 1] at 16 kHz; phones (P,) indices of symbols, in the order of speech."""

    samples: F32
    phones: npt.NDArray[np.int8]


def speak_untimed(voice: UntimedVoice, text: str, rate: int, pitch: int) -> UntimedSpeech | None:
    """A text spoken by a voice; None if it can't speak it.

    Args:
        voice: One of `UNTIMED_VOICES`.
        text: In the voice's language and script, without markup.
        rate: Speech rate in per cent of the default.
        pitch: Pitch in per cent of the default.

    Raises:
        AvfaceError: if the program is missing.
    """
    if shutil.which(voice.program) is None:
        packages = " ".join(PACKAGES)
        raise AvfaceError(
            f"{voice.program}: not found; install it (Debian, non-free: apt install {packages})"
        )
    with temporary_folder() as folder:
        sound = Path(folder) / "said.wav"
        if voice.program == "RHVoice-test":
            written = Path(folder) / "text.txt"
            written.write_text(text, "utf-8")
            manner = ["-p", voice.name, "-r", str(rate), "-t", str(pitch)]
            order = ["RHVoice-test", *manner, "-i", str(written), "-o", str(sound)]
        else:
            marked = f'<speed level="{rate}"><pitch level="{pitch}">{text}</pitch></speed>'
            order = ["pico2wave", "-l", voice.name, "-w", str(sound), marked]
        subprocess.run(order, capture_output=True, check=False, timeout=120)
        if not sound.exists() or sound.stat().st_size < 8000:
            return None
        with wave.open(str(sound)) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16) / np.float32(32768)
            recorded_rate = file.getframerate()
    shared = np.gcd(SAMPLE_RATE, recorded_rate)
    samples = resample_poly(samples, SAMPLE_RATE // shared, recorded_rate // shared)
    phones = [
        index for phoneme in speak(text, voice.language).phonemes for index in phone_indices(phoneme.symbol)
    ]
    return UntimedSpeech(samples.astype(np.float32), np.array(phones, np.int8))
