"""Speech synthesis with phoneme times by espeak-ng (from the pip package `espeakng-loader`)."""

from __future__ import annotations

import _ctypes
import ctypes
import functools
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from avface.arrays import F32
from avface.errors import AvfaceError

# espeak-ng's speak_lib.h
_SYNCHRONOUS_RETRIEVAL = 2
_PHONEME_EVENTS, _PHONEME_IPA, _DONT_EXIT = 1, 1 << 1, 0x8000
_LIST_TERMINATED, _PHONEME = 0, 7
_CHARS_UTF8 = 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4

RATES = (80, 450)
"""Minimum and maximum words per minute of espeak-ng."""
MAX_CLOSURE = 0.12
"""Maximum silence in seconds before a stop that is attributed to its closure."""
EXCLUDED_VARIANTS = (
    *("Alicia", "Reed", "caleb", "f2", "f3", "f5", "sandro", "victor", "whisper", "whisperf"),
    *("Demonic", "rob"),
)
"""Excluded variants: those of the first line differ from process to process (uninitialised memory in the library); the
others crash the library in tonal languages."""
_LOCK = threading.RLock()
_unload = getattr(
    _ctypes, "dlclose" if hasattr(_ctypes, "dlclose") else "FreeLibrary"
)  # the latter on Windows
_STOPS = tuple("ptkcqʈ")


@dataclass(frozen=True)
class Phoneme:
    """A phoneme in IPA without stress marks, and its start in seconds; a pause has an empty symbol."""

    symbol: str
    start: float


@dataclass(frozen=True)
class Speech:
    """samples (N,) float32 in [-1, 1], sample_rate in Hz, phonemes in order of time."""

    samples: F32
    sample_rate: int
    phonemes: tuple[Phoneme, ...]

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / self.sample_rate

    def resampled(self, sample_rate: int) -> Speech:
        """The speech at another rate in Hz, by a zero-delay polyphase filter."""
        from scipy.signal import resample_poly

        shared = math.gcd(sample_rate, self.sample_rate)
        samples = resample_poly(self.samples, sample_rate // shared, self.sample_rate // shared)
        return replace(self, samples=samples.astype(np.float32), sample_rate=sample_rate)


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


class _Voice(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        (
            "languages",
            ctypes.c_char_p,
        ),  # for each: a byte of priority and the code; the first is the voice's own
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("reserved", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


@contextmanager
def _engine() -> Iterator[tuple[ctypes.CDLL, int]]:
    """The library, freshly loaded, and its sample rate in Hz.

    Its oscillators and noise generator keep their state between utterances, even after another initialisation.
    Reloading it (10 ms) makes every call deterministic.
    """
    try:
        import espeakng_loader
    except ImportError:
        raise AvfaceError(
            "speech is made by espeakng-loader; install it with: pip install 'avface[build]'"
        ) from None
    with _LOCK:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
        try:
            library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
            data = espeakng_loader.get_data_path().encode()
            options = _PHONEME_EVENTS | _PHONEME_IPA | _DONT_EXIT
            sample_rate = library.espeak_Initialize(_SYNCHRONOUS_RETRIEVAL, 0, data, options)
            if sample_rate <= 0:
                raise AvfaceError("espeak-ng doesn't start; reinstall espeakng-loader")
            yield library, sample_rate
            library.espeak_Terminate()
        finally:
            _unload(library._handle)


def _voice_names(kind: object, name: Callable[[_Voice], bytes]) -> tuple[str, ...]:
    """Names of the voices of a kind, sorted."""
    names, index = set(), 0
    with _engine() as (library, _):
        voices = library.espeak_ListVoices(kind)
        while voices[index]:
            names.add(name(voices[index].contents).decode())
            index += 1
    return tuple(sorted(names))


@functools.cache
def languages() -> tuple[str, ...]:
    """Codes of the languages of `speak`, such as "en-us", "de", "cmn"; each is the name of a voice.

    Raises:
        AvfaceError: if espeak-ng is not installed.
    """
    return _voice_names(None, lambda voice: voice.identifier.rsplit(b"/", 1)[-1].lower())


@functools.cache
def voice_variants() -> tuple[str, ...]:
    """Names of the voice variants of any language, such as "f4" or "max": "de+f4" is German in the voice f4.

    Raises:
        AvfaceError: if espeak-ng is not installed.
    """
    kind = ctypes.byref(_Voice(languages=b"variant"))
    names = _voice_names(kind, lambda voice: voice.identifier.removeprefix(b"!v/"))
    return tuple(name for name in names if name not in EXCLUDED_VARIANTS)


def speak(
    text: str,
    voice: str = "en-us",
    words_per_minute: int = 165,
    *,
    pitch: int = 50,
    pitch_range: int = 50,
    volume: int = 100,
) -> Speech:
    """Synthesise a text. The same call gives the same sound.

    Args:
        text: In the voice's language and script.
        voice: A language, or a language and a variant: "en-us", "en-us+m3".
        words_per_minute: Speaking rate.
        pitch: From 0 to 100; 50 is the voice's own.
        pitch_range: Variation of pitch from 0 (monotonous) to 100; 50 is the voice's own.
        volume: Amplitude in per cent of the default, up to 200; much above 100 it clips.

    Raises:
        AvfaceError: if espeak-ng is not installed, doesn't know the voice or can't speak like that.
    """
    language, _, variant = voice.partition("+")
    if variant and variant not in voice_variants():
        raise AvfaceError(f"voice {voice!r}: espeak-ng has no variant {variant!r}; try '{language}+m3'")
    bounds = {"words_per_minute": RATES, "pitch": (0, 100), "pitch_range": (0, 100), "volume": (0, 200)}
    settings = {
        "words_per_minute": words_per_minute,
        "pitch": pitch,
        "pitch_range": pitch_range,
        "volume": volume,
    }
    for name, (minimum, maximum) in bounds.items():
        if not minimum <= settings[name] <= maximum:
            raise AvfaceError(f"{name}={settings[name]} must be from {minimum} to {maximum}")
    blocks: list[npt.NDArray[np.int16]] = []
    events: list[Phoneme] = []

    def on_sound(wave: ctypes._Pointer[ctypes.c_short], count: int, first: ctypes._Pointer[_Event]) -> int:
        if wave and count:
            blocks.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while first[index].type != _LIST_TERMINATED:
            event = first[index]
            if event.type == _PHONEME:
                symbol = event.id.string.decode("utf-8", "ignore").strip("ˈˌ")
                if not symbol.startswith("("):  # "(en)": a word of another language begins
                    events.append(Phoneme(symbol, event.audio_position / 1000))
            index += 1
        return 0

    signature = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
    )
    callback = signature(on_sound)
    parameters = (
        (_RATE, words_per_minute),
        (_VOLUME, volume),
        (_PITCH, pitch),
        (_RANGE, pitch_range),
    )
    encoded = text.encode()
    with _engine() as (library, sample_rate):
        library.espeak_SetSynthCallback(callback)
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise AvfaceError(f"espeak-ng has no voice {voice!r}; try 'en-us'")
        for parameter, value in parameters:
            library.espeak_SetParameter(parameter, value, 0)
        library.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, _CHARS_UTF8, None, None)
        library.espeak_Synchronize()
    if not blocks:
        raise AvfaceError(f"espeak-ng made no sound for {text!r}; give a text with words")
    samples = np.concatenate(blocks).astype(np.float32) / 32768
    return Speech(samples, sample_rate, _with_closures(events, samples, sample_rate))


def _with_closures(events: list[Phoneme], samples: F32, sample_rate: int) -> tuple[Phoneme, ...]:
    """Start voiceless stops at their closure, which espeak-ng attributes to the preceding phoneme."""
    phonemes: list[Phoneme] = []
    for event in events:
        start = event.start
        if event.symbol.startswith(_STOPS) and phonemes:
            earliest = max(start - MAX_CLOSURE, phonemes[-1].start + 0.01)
            first, last = int(earliest * sample_rate), int((start + 0.005) * sample_rate)
            loud = np.flatnonzero(np.abs(samples[first:last]) > 1e-3)
            quiet = first + (loud[loud < (start - 0.01 - earliest) * sample_rate].max(initial=-1) + 1)
            start = min(start, quiet / sample_rate)
        phonemes.append(Phoneme(event.symbol, start))
    return tuple(phonemes)
