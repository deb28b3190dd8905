"""Speech with exact phoneme times, by espeak-ng (from the pip package `espeakng-loader`)."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from avface.errors import AvfaceError

# espeak-ng's speak_lib.h
_SYNCHRONOUS_RETRIEVAL = 2
_PHONEME_EVENTS, _PHONEME_IPA, _DONT_EXIT = 1, 1 << 1, 0x8000
_LIST_TERMINATED, _PHONEME = 0, 7
_CHARS_UTF8 = 1
_RATE = 1


@dataclass(frozen=True)
class Phoneme:
    """A phoneme in IPA without stress marks, and when it starts, in seconds; a pause has an empty symbol."""

    symbol: str
    start: float


@dataclass(frozen=True)
class Speech:
    """samples (N,) float32 in [-1, 1], sample_rate in Hz, phonemes in order of time."""

    samples: npt.NDArray[np.float32]
    sample_rate: int
    phonemes: tuple[Phoneme, ...]

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / self.sample_rate


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


def speak(text: str, voice: str = "en-us", words_per_minute: int = 165) -> Speech:
    """Say a text.

    Raises:
        AvfaceError: if espeak-ng is not installed or doesn't know the voice.
    """
    try:
        import espeakng_loader
    except ImportError:
        raise AvfaceError(
            "speech is made by espeakng-loader; install it with: pip install 'avface[build]'"
        ) from None
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    options = _PHONEME_EVENTS | _PHONEME_IPA | _DONT_EXIT
    sample_rate = library.espeak_Initialize(
        _SYNCHRONOUS_RETRIEVAL, 0, espeakng_loader.get_data_path().encode(), options
    )
    if sample_rate <= 0:
        raise AvfaceError("espeak-ng doesn't start; reinstall espeakng-loader")
    blocks: list[npt.NDArray[np.int16]] = []
    phonemes: list[Phoneme] = []

    def on_sound(wave: ctypes._Pointer[ctypes.c_short], count: int, events: ctypes._Pointer[_Event]) -> int:
        if wave and count:
            blocks.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while events[index].type != _LIST_TERMINATED:
            event = events[index]
            if event.type == _PHONEME:
                symbol = event.id.string.decode("utf-8", "ignore").strip("ˈˌ")
                phonemes.append(Phoneme(symbol, event.audio_position / 1000))
            index += 1
        return 0

    signature = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
    )
    callback = signature(on_sound)
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise AvfaceError(f"espeak-ng knows no voice {voice!r}; try 'en-us'")
    library.espeak_SetParameter(_RATE, words_per_minute, 0)
    said = text.encode()
    library.espeak_Synth(said, len(said) + 1, 0, 0, 0, _CHARS_UTF8, None, None)
    library.espeak_Synchronize()
    samples = np.concatenate(blocks).astype(np.float32) / 32768
    return Speech(samples, sample_rate, tuple(phonemes))
