"""Performances: expression, head motion, gaze and sound of one person over a clip, with exact phoneme times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from avface.arrays import F32, F64, Floats
from avface.speech.spectrum import SAMPLE_RATE
from avface.synthetic.performance.coarticulation import (
    GESTURES,
    VOWELS,
    gesture_curves,
    gestures_to_units,
    ipa_letters,
    sample_style,
)
from avface.synthetic.performance.espeak import Phoneme, speak
from avface.synthetic.performance.eyes import blink_curve, gaze_angles, gaze_units
from avface.synthetic.performance.facial_expression import (
    EMOTIONS,
    baseline_curves,
    brow_curves,
    emotion_curves,
    idle_curves,
    style_under_emotion,
)
from avface.synthetic.performance.head_motion import head_motion
from avface.synthetic.performance.nonspeech import KINDS, room_noise, sample_nonspeech
from avface.synthetic.performance.sentences import LANGUAGES, sample_sentence, sample_voice

if TYPE_CHECKING:
    from avface.capture import Capture
    from avface.head.model import HeadModel

Kind = Literal["speech", "silence", "sounds"]


@dataclass(frozen=True)
class Performance:
    """One person's motion and sound over T frames, independent of identity, camera and light.

    Shapes: expression (T, E), joints (T, J, 3), turn (T, 3), shift (T, 3), sound (N,) at
            `SAMPLE_RATE`.
    Axes:   turn is pitch, yaw and roll from facing the camera, rotation Ry(yaw) Rx(pitch) Rz(roll) in the head's axes;
            shift is in the camera's axes.
    """

    frame_rate: float
    """Frames a second; frame t is at t / frame_rate seconds."""
    expression: F32
    """Weights of the head's expression units, 0 to 1, in the order of `head.expression_names`."""
    joints: F32
    """Axis-angle in radians of the head's joints: gaze of the eyes, the neck at rest."""
    turn: F32
    """Radians."""
    shift: F32
    """Metres from the head's rest position."""
    sound: F32
    """16 kHz mono in [-1, 1], from the time of frame 0 and as long as the frames."""
    phonemes: tuple[Phoneme, ...]
    """Phonemes in order; starts in seconds from frame 0, negative for the first one if it begins before the clip."""
    kind: str
    """"speech", "silence" or "sounds"."""
    language: str
    """Name in `sentences.LANGUAGES`; empty without speech."""
    voice: str
    """Voice of `speak`; empty without speech."""
    emotion: str
    """Name in `EMOTIONS`."""

    def __len__(self) -> int:
        """Number of frames T."""
        return len(self.expression)

    @property
    def times(self) -> F64:
        """Seconds (T,) of the frames."""
        return np.arange(len(self)) / self.frame_rate

    def capture(
        self,
        head: HeadModel,
        shape: Floats,
        *,
        image_size: tuple[int, int] = (512, 512),
        focal_length: float = 1000.0,
        place: tuple[float, float, float] = (0.0, 0.0, 0.75),
    ) -> Capture:
        """The performance by a head of shape (S,) in front of a camera, as an exact capture.

        image_size and focal_length in pixels; place is the head's rest position in metres in the camera's axes.
        """
        import torch

        from avface.capture import Capture
        from avface.geometry.axes import flip_rotation
        from avface.geometry.rotations import euler_to_rotmat, facing_rotvec

        turned = euler_to_rotmat("YXZ", torch.as_tensor(self.turn, dtype=torch.float64)[:, [1, 0, 2]])
        width, height = image_size
        return Capture(
            head=head.name,
            shape=np.asarray(shape, np.float32),
            expression=self.expression,
            expression_names=head.expression_names,
            rotation=facing_rotvec(flip_rotation(turned)).numpy().astype(np.float32),
            translation=(self.shift + np.array(place)).astype(np.float32),
            joints=self.joints,
            joint_names=head.joint_names,
            focal_length=focal_length,
            principal_point=((width - 1) / 2, (height - 1) / 2),
            image_size=image_size,
            times=self.times,
            confidence=np.ones(len(self), np.float32),
            provenance={
                "truth": "avface.synthetic.performance.performance",
                "voice": self.voice,
                "emotion": self.emotion,
            },
        )


@dataclass(frozen=True)
class _SoundTrack:
    """Sound (N,) at 16 kHz, and the phonemes within and around it with their ends, in seconds from its start."""

    sound: F64
    phonemes: tuple[Phoneme, ...] = ()
    ends: tuple[float, ...] = ()
    language: str = ""
    voice: str = ""

    @property
    def audible_phonemes(self) -> tuple[Phoneme, ...]:
        """The phonemes within the sound, in full or in part."""
        length = len(self.sound) / SAMPLE_RATE
        pairs = zip(self.phonemes, self.ends, strict=True)
        return tuple(phoneme for phoneme, end in pairs if end > 0 and phoneme.start < length)


def perform(
    rng: np.random.Generator,
    head: HeadModel,
    seconds: float,
    frame_rate: float = 25.0,
    kind: Kind = "speech",
    resting: bool = True,
) -> Performance:
    """Generate a random performance.

    Args:
        rng: Source of all random numbers: the same state gives the same performance.
        head: Head whose expression units and joints are animated; units that aren't ARKit's stay 0.
        seconds: Length, rounded to whole frames.
        frame_rate: Frames a second.
        kind: "speech"; "silence": no speech, no sound or background noise; "sounds": no speech, but hums, laughter,
            music or noise, unrelated to the motion.
        resting: Whether the face at rest has constant weights of its own (`baseline_curves`).

    Raises:
        AvfaceError: if espeak-ng is not installed.
        ValueError: if the length is under one frame or the kind is unknown.
    """
    if kind not in ("speech", "silence", "sounds"):
        raise ValueError(f"kind={kind!r} must be 'speech', 'silence' or 'sounds'")
    frames = round(seconds * frame_rate)
    if frames < 1:
        raise ValueError(f"{seconds} s at {frame_rate} frames a second is less than one frame")
    seconds = frames / frame_rate
    times = np.arange(frames) / frame_rate
    names = head.expression_names
    emotion, strength = _sample_emotion(rng)
    style = style_under_emotion(sample_style(rng), emotion, strength)
    track = _speech(rng, seconds) if kind == "speech" else _SoundTrack(_background(rng, seconds, kind))

    prominence = _prominence(track)
    variation = rng.lognormal(0, style.variation, len(track.phonemes))
    end = track.ends[-1] if track.ends else 0.0
    gestures = gesture_curves(track.phonemes, end, times, style, np.exp(0.22 * prominence) * variation)
    stresses = _stresses(track.phonemes, prominence)
    turn, shift = head_motion(rng, times, stresses, neck_position(head))
    gaze, saccades = gaze_angles(rng, times, turn, head.gaze_range)
    nonverbal = emotion_curves(rng, times, names, emotion, strength)
    if resting:
        nonverbal += baseline_curves(rng, times, names)
    nonverbal += idle_curves(rng, times, names, 0.08 if kind == "speech" else 0.3)
    nonverbal += brow_curves(rng, times, names, stresses)
    expression = _combined(gestures_to_units(gestures, names, style), nonverbal, gestures, names)
    set_gaze(expression, names, gaze_units(gaze, head.gaze_range))
    add_blinks(rng, expression, names, blink_curve(rng, times, saccades))

    return Performance(
        frame_rate=frame_rate,
        expression=expression.astype(np.float32),
        joints=eye_joints(head, gaze),
        turn=turn.astype(np.float32),
        shift=shift.astype(np.float32),
        sound=track.sound.astype(np.float32),
        phonemes=track.audible_phonemes,
        kind=kind,
        language=track.language,
        voice=track.voice,
        emotion=emotion,
    )


def _sample_emotion(rng: np.random.Generator) -> tuple[str, float]:
    """A random emotion and its strength; a third of the clips are neutral, a quarter happy."""
    share = np.array([{"neutral": 0.33, "happy": 0.25}.get(name, 0.084) for name in EMOTIONS])
    emotion = str(rng.choice(list(EMOTIONS), p=share / share.sum()))
    return emotion, float(rng.uniform(0.2, 1.0)) if emotion != "neutral" else 0.0


def _speech(rng: np.random.Generator, seconds: float) -> _SoundTrack:
    """Sentences of one voice with pauses between them, cut to a length in seconds.

    Half of them start in the middle of a sentence, like clips cut out of longer videos.
    """
    language = str(rng.choice(list(LANGUAGES)))
    voice = sample_voice(rng, language)
    settings = {
        "words_per_minute": int(np.clip(rng.normal(160, 25), 105, 230)),
        "pitch": int(rng.uniform(25, 75)),
        "pitch_range": int(rng.uniform(25, 90)),
    }
    skipped = float(rng.uniform(0, 2.5)) if rng.random() < 0.5 else 0.0
    here = 0.0 if skipped else float(rng.uniform(0.1, 0.7))
    pieces: list[Floats] = [np.zeros(round(here * SAMPLE_RATE))]
    phonemes = [Phoneme("", 0.0)]
    while here < seconds + skipped:
        sentence = speak(sample_sentence(rng, language), voice, **settings).resampled(SAMPLE_RATE)
        phonemes += [Phoneme(phoneme.symbol, phoneme.start + here) for phoneme in sentence.phonemes]
        pause = float(np.clip(rng.lognormal(np.log(0.3), 0.6), 0.08, 1.2))
        pieces += [sentence.samples, np.zeros(round(pause * SAMPLE_RATE))]
        phonemes.append(Phoneme("", here + sentence.duration))
        here += sentence.duration + pause
    first = round(skipped * SAMPLE_RATE)
    sound = np.concatenate(pieces)[first : first + round(seconds * SAMPLE_RATE)]
    sound = 10 ** rng.uniform(-1.0, 0.0) * sound / max(1.0, float(np.abs(sound).max()))
    merged = [Phoneme(phoneme.symbol, phoneme.start - skipped) for phoneme in _merged_pauses(phonemes)]
    ends = [phoneme.start for phoneme in merged[1:]] + [here - skipped]
    return _SoundTrack(sound, tuple(merged), tuple(ends), language, voice)


def _merged_pauses(phonemes: Sequence[Phoneme]) -> list[Phoneme]:
    """Phonemes with consecutive pauses merged and those without duration dropped."""
    merged: list[Phoneme] = []
    for phoneme in phonemes:
        if merged and phoneme.start <= merged[-1].start:
            merged.pop()
        if not (merged and not phoneme.symbol and not merged[-1].symbol):
            merged.append(phoneme)
    return merged


def _background(rng: np.random.Generator, seconds: float, kind: Kind) -> F64:
    """Sound (N,) other than speech: digital silence or room noise for "silence", a random sound for "sounds"."""
    if kind == "sounds":
        return sample_nonspeech(rng, seconds, SAMPLE_RATE, str(rng.choice(KINDS)))
    if rng.random() < 0.4:
        return np.zeros(round(seconds * SAMPLE_RATE))
    return np.clip(room_noise(rng, seconds, SAMPLE_RATE), -1, 1)


def _prominence(track: _SoundTrack) -> F64:
    """Prosodic prominence (P,): mean z-score of a vowel's loudness and duration; 0 for other phonemes."""
    result = np.zeros(len(track.phonemes))
    rows, features = [], []
    for row, (phoneme, end) in enumerate(zip(track.phonemes, track.ends, strict=True)):
        parts = ipa_letters(phoneme.symbol)
        samples = track.sound[max(0, round(phoneme.start * SAMPLE_RATE)) : max(0, round(end * SAMPLE_RATE))]
        if parts and parts[0][0] in VOWELS and len(samples):
            rows.append(row)
            features.append(
                [np.log(np.sqrt((samples**2).mean()) + 1e-4), np.log(max(end - phoneme.start, 0.02))]
            )
    if len(rows) > 2:
        values = np.array(features)
        spread = np.maximum(values.std(0), 1e-3)
        result[rows] = np.clip(((values - values.mean(0)) / spread).mean(1), -2, 2)
    return result


def _stresses(phonemes: Sequence[Phoneme], prominence: F64) -> F64:
    """Time and strength (N, 2) of the stressed syllables."""
    return np.array(
        [(p.start, z) for p, z in zip(phonemes, prominence, strict=True) if z > 0.6], np.float64
    ).reshape(-1, 2)


def eye_joints(head: HeadModel, gaze: F64) -> F32:
    """Axis-angle (T, J, 3) of a head's joints with both eyes in a direction (T, 2), pitch and yaw in radians."""
    joints = np.zeros((len(gaze), head.num_joints, 3), np.float32)
    eyes = [j for j, name in enumerate(head.joint_names) if name in ("left_eye", "right_eye")]
    joints[:, eyes, :2] = gaze[:, None]
    return joints


def neck_position(head: HeadModel) -> F64:
    """Position (3,) of the average head's neck joint in its own frame."""
    import torch

    if "neck" not in head.joint_names:
        return np.zeros(3)
    with torch.inference_mode():
        positions = head.joint_positions(torch.zeros(head.num_shape, device=head.template.device))
    return np.asarray(positions[head.joint_names.index("neck")].double().cpu().numpy())


def _combined(spoken: F64, nonverbal: F64, gestures: F64, names: Sequence[str]) -> F64:
    """Speech and nonverbal weights together (T, E); the latter don't undo the closures and rounding of speech."""
    g = dict(zip(GESTURES, gestures.T, strict=True))
    apart = 1 - np.clip(1.2 * np.maximum(g["seal"], g["bite"]), 0, 1)
    narrow = 1 - 0.7 * np.clip(g["pucker"] + g["funnel"], 0, 1)
    opening = ("jawOpen", "mouthUpperUp", "mouthLowerDown", "mouthFunnel", "mouthShrugUpper", "tongueOut")
    spreading = ("mouthSmile", "mouthStretch", "mouthDimple", "mouthPucker")
    closing = ("mouthPress", "mouthRoll", "mouthShrugLower", "cheekPuff")
    speaking = np.clip(3 * (g["jaw"] - 0.04) * (1 - g["seal"]), 0, 1)
    combined = spoken.copy()
    for column, name in enumerate(names):
        share = nonverbal[:, column]
        if name.startswith(opening):
            share = share * apart
        elif name.startswith(spreading):
            share = share * narrow
        elif name.startswith(closing):
            share = share * (1 - 0.8 * speaking)
        combined[:, column] += share
    return without_opposites(np.clip(combined, 0, 1), names)


def without_opposites(weights: F64, names: Sequence[str]) -> F64:
    """Weights of which opposite units cancel: of two opposite movements the difference remains."""
    column = {name: weights[:, number] for number, name in enumerate(names)}
    zero = np.zeros(len(weights))

    def oppose(one: str, other: str) -> None:
        a, b = column.get(one, zero), column.get(other, zero)
        both = np.minimum(a, b)
        a -= both
        b -= both

    oppose("jawLeft", "jawRight")
    oppose("mouthLeft", "mouthRight")
    for side in ("Left", "Right"):
        oppose(f"mouthSmile{side}", f"mouthFrown{side}")
        oppose(f"browDown{side}", f"browOuterUp{side}")
        oppose(f"eyeWide{side}", f"eyeSquint{side}")
        oppose(f"mouthUpperUp{side}", "mouthRollUpper")
        smile, stretch = column.get(f"mouthSmile{side}", zero), column.get(f"mouthStretch{side}", zero)
        np.minimum(stretch, 1 - smile, out=stretch)
    if "mouthClose" in names and "jawOpen" in names:
        np.minimum(column["mouthClose"], column["jawOpen"], out=column["mouthClose"])
    return weights


def set_gaze(expression: F64, names: Sequence[str], units: dict[str, F64]) -> None:
    """Set the eyeLook units."""
    for name, weight in units.items():
        if name in names:
            expression[:, names.index(name)] = weight


def add_blinks(rng: np.random.Generator, expression: F64, names: Sequence[str], shut: F64) -> None:
    """Close the lids by (T,): eyeWide and eyeSquint are suppressed, and units that lower a lid reduce the blink."""

    def weight(name: str) -> F64:
        return expression[:, names.index(name)] if name in names else np.zeros(len(expression))

    for side in ("Left", "Right"):
        if f"eyeBlink{side}" not in names:
            continue
        for unit in ("eyeWide", "eyeSquint"):
            weight(f"{unit}{side}")[:] *= 1 - shut
        lowered = 0.25 * weight(f"eyeLookDown{side}") + 0.08 * weight(f"cheekSquint{side}")
        weight(f"eyeBlink{side}")[:] = shut * (1 - lowered) * rng.uniform(0.95, 1.0)
