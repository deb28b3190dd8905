"""Music of sampled instruments: random chords, melodies and drums, rendered by FluidSynth from a General MIDI font.

Needed to train the acoustic model, not to use it: `apt install fluidsynth fluid-soundfont-gm` (the sound font is under
the MIT licence) and the pip package mido.
"""

from __future__ import annotations

import shutil
import subprocess
import wave
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avface.arrays import F32
from avface.errors import AvfaceError
from avface.files.temporary import temporary_folder
from avface.speech.spectrum import SAMPLE_RATE

if TYPE_CHECKING:
    import mido

SOUND_FONTS = (Path("/usr/share/sounds/sf2/FluidR3_GM.sf2"), Path("/usr/share/soundfonts/FluidR3_GM.sf2"))
"""Paths of the sound font in Linux distributions."""
VOICES = (52, 53, 54, 85, 91)
"""General MIDI programs that sound like voices and are left out."""
_TICKS, _DRUMS = 480, 9
_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), (0, 3, 5, 7, 10))


def instrument_music(rng: np.random.Generator, seconds: float) -> F32:
    """A piece of music, (N,) at 16 kHz in [-0.3, 0.3]: one to four instruments of a random band.

    Raises:
        AvfaceError: if FluidSynth or its sound font is missing.
    """
    font = next((path for path in SOUND_FONTS if path.exists()), None)
    if shutil.which("fluidsynth") is None or font is None:
        raise AvfaceError(
            "fluidsynth or its sound font: not found (Debian: apt install fluidsynth fluid-soundfont-gm)"
        )
    with temporary_folder() as folder:
        score, sound = Path(folder) / "score.mid", Path(folder) / "sound.wav"
        _write_score(rng, seconds, score)
        subprocess.run(
            ["fluidsynth", "-niq", "-g", "0.5", "-r", str(SAMPLE_RATE), "-F", str(sound), str(font), str(score)],
            capture_output=True, check=True, timeout=120,
        )  # fmt: skip
        with wave.open(str(sound)) as file:
            stereo = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, 2)
    played = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    mono = stereo[: len(played)].mean(1)
    played[: len(mono)] = mono
    return np.asarray(0.3 * played / max(np.abs(played).max(), 1e-9), np.float32)


def _write_score(rng: np.random.Generator, seconds: float, path: Path) -> None:
    """A random score as a MIDI file.

    Raises:
        AvfaceError: if mido isn't installed.
    """
    try:
        import mido
    except ImportError:
        raise AvfaceError("training needs mido; install it with: pip install 'avface[train]'") from None

    file = mido.MidiFile(ticks_per_beat=_TICKS)
    beat = float(rng.uniform(0.3, 0.9))  # seconds
    tempo = mido.MetaMessage("set_tempo", tempo=int(beat * 1e6))
    scale, root = _SCALES[rng.integers(len(_SCALES))], int(rng.integers(36, 48))
    beats = seconds / beat
    chords = rng.integers(0, len(scale), 4)
    programs = [program for program in range(120) if program not in VOICES]
    for channel in range(int(rng.integers(1, 5))):
        track = mido.MidiTrack(
            [tempo, mido.Message("program_change", channel=channel, program=int(rng.choice(programs)))]
        )
        kind, octave = rng.choice(["melody", "chords", "bass", "arpeggio"]), int(rng.integers(1, 4))
        notes: list[tuple[float, float, int]] = []
        step = float(rng.choice([0.25, 0.5, 1.0, 2.0]))
        degree = int(rng.integers(len(scale)))
        for index, at in enumerate(np.arange(0, beats, step)):
            chord = int(chords[int(at / 4) % 4])
            if kind == "chords":
                degrees = [chord, chord + 2, chord + 4]
            elif kind == "bass":
                degrees, octave = [chord], 0
            elif kind == "arpeggio":
                degrees = [chord + 2 * (index % 3)]
            else:
                degree += int(rng.integers(-2, 3))
                degrees = [degree]
            if rng.random() < 0.15:
                continue
            for one in degrees:
                pitch = root + 12 * (octave + one // len(scale)) + scale[one % len(scale)]
                notes.append((float(at), step * float(rng.uniform(0.3, 1.5)), int(np.clip(pitch, 24, 100))))
        _play(track, notes, channel, rng)
        file.tracks.append(track)
    if rng.random() < 0.4:
        track = mido.MidiTrack([tempo])
        hits = [
            (float(at), 0.2, int(rng.choice([35, 38, 42, 46, 49, 51, 54, 75])))
            for at in np.arange(0, beats, 0.5)
            if rng.random() < 0.8
        ]
        _play(track, hits, _DRUMS, rng)
        file.tracks.append(track)
    file.save(path)


def _play(
    track: mido.MidiTrack, notes: list[tuple[float, float, int]], channel: int, rng: np.random.Generator
) -> None:
    """Add notes (start and length in beats, pitch) to a track."""
    import mido

    loudness = int(rng.integers(50, 110))
    events = [(start, "note_on", pitch) for start, _, pitch in notes]
    events += [(start + length, "note_off", pitch) for start, length, pitch in notes]
    now = 0.0
    for at, kind, pitch in sorted(events):
        velocity = int(np.clip(loudness + rng.integers(-15, 15), 1, 127)) if kind == "note_on" else 0
        track.append(
            mido.Message(
                kind, channel=channel, note=pitch, velocity=velocity, time=max(0, round((at - now) * _TICKS))
            )
        )
        now = max(now, at)
