"""What bad sound does to a hidden mouth: telephone, clipping, music, a second voice, a second of sound, silence.

AVFACE_CLIPS=path/to/clips python -m avface.evaluation.studies.bad_sound --work FOLDER

The clips of `avface evaluate occlusion` with an occluded lower face are reconstructed with their own sound, with the
same sound made worse, and without sound. Bad sound should at worst be as if there were none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import tyro
from scipy.signal import resample_poly

from avface.arrays import F32
from avface.errors import AvfaceError
from avface.evaluation.clips import real_videos
from avface.evaluation.occluded_clips import OccludedClip, make_occluded_clip
from avface.evaluation.occlusion import OccludedFigures, occluded_figures
from avface.evaluation.tables import aligned
from avface.files.temporary import temporary_folder
from avface.media import Clip
from avface.speech.spectrum import SAMPLE_RATE
from avface.training.acoustic.corpus import music

WITHOUT = "no sound"
"""Name of the reconstruction that doesn't use the sound."""
_RATIO = 10 ** (-5 / 20)  # music and the second voice, 5 dB below the voice


def telephone(sound: F32, other: F32) -> F32:
    """Sampled at 8 kHz."""
    return np.asarray(resample_poly(resample_poly(sound, 1, 2), 2, 1)[: len(sound)], np.float32)


def clipped(sound: F32, other: F32) -> F32:
    """Far above full scale."""
    loud = 8 * sound / max(float(np.quantile(np.abs(sound), 0.99)), 1e-6)
    return np.asarray(loud.clip(-1, 1), np.float32)


def with_music(sound: F32, other: F32) -> F32:
    """Music, 5 dB below the voice."""
    return _mixed(sound, music(np.random.default_rng(0), len(sound) / SAMPLE_RATE + 0.1))


def two_voices(sound: F32, other: F32) -> F32:
    """Another clip's voice, 5 dB below."""
    return _mixed(sound, other)


def one_second(sound: F32, other: F32) -> F32:
    """The first second alone."""
    return sound[:SAMPLE_RATE]


def silence(sound: F32, other: F32) -> F32:
    """Digital silence."""
    return np.zeros_like(sound)


SOUNDS: dict[str, Callable[[F32, F32], F32]] = {
    "as recorded": lambda sound, other: sound,
    "8 kHz": telephone,
    "clipped": clipped,
    "music": with_music,
    "two voices": two_voices,
    "one second": one_second,
    "silence": silence,
}
"""Sounds (N,) at 16 kHz by name, made from the clip's own and another clip's voice."""


def _mixed(sound: F32, other: F32) -> F32:
    piece = np.resize(other, len(sound))
    level = float(np.sqrt((sound**2).mean()) / max(np.sqrt((piece**2).mean()), 1e-6))
    return np.asarray((sound + _RATIO * level * piece).clip(-1, 1), np.float32)


def write_with_sound(video: Path, sound: F32, path: Path) -> None:
    """Copy the pictures of a video to a .mkv file with another sound (N,) at 16 kHz."""
    with av.open(str(video)) as source, av.open(str(path), "w") as target:
        pictures = source.streams.video[0]
        copied = target.add_stream_from_template(pictures)
        track = target.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        for packet in source.demux(pictures):
            if packet.dts is not None:
                packet.stream = copied
                target.mux(packet)
        samples = np.round(sound.clip(-1, 1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
        target.mux(track.encode(frame))
        target.mux(track.encode(None))


def measure_sounds(clip: OccludedClip, other: F32, folder: Path) -> dict[str, OccludedFigures]:
    """Figures of the occluded frames by the name of the sound; other: another clip's voice (N,)."""
    from avface.pipeline import reconstruct

    own = Clip.open(clip.source).audio()
    if own is None:
        raise AvfaceError(f"{clip.source}: has no audio")
    figures = {}
    for name, change in SOUNDS.items():
        video = folder / "sound.mkv"
        write_with_sound(clip.video, change(own, other), video)
        points = reconstruct(video).landmarks()
        figures[name] = occluded_figures(points, clip.reference, clip.lips_occluded)
    points = reconstruct(clip.video, audio=False).landmarks()
    figures[WITHOUT] = occluded_figures(points, clip.reference, clip.lips_occluded)
    return figures


def table(cases: list[dict[str, OccludedFigures]]) -> str:
    """Means over the cases, and their difference from no sound with its standard error."""
    rows = [[f"{len(cases)} cases", "NME478", "lips", "lips, change", "r"]]
    base = np.array([case[WITHOUT].lips for case in cases])
    for name in cases[0]:
        lips = np.array([case[name].lips for case in cases])
        change = lips - base
        error = float(change.std() / max(len(cases) - 1, 1) ** 0.5)
        rows.append(
            [
                name,
                f"{np.mean([case[name].nme478 for case in cases]):.2f}",
                f"{lips.mean():.2f}",
                f"{change.mean():+.2f} ± {error:.2f}",
                f"{np.mean([case[name].opening for case in cases]):.2f}",
            ]
        )
    return aligned(rows)


@dataclass(frozen=True)
class BadSoundEvaluation:
    """Print figures of hidden mouths with bad sound on real clips."""

    clips: tyro.conf.Positional[Path | None] = None
    """Folder of videos; by default that of the environment's AVFACE_CLIPS."""
    seeds: int = 1
    """Occluded versions of each video."""
    work: Path | None = None
    """Folder that keeps the occluded videos for the next run; by default a temporary one."""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise AvfaceError(f"seeds={self.seeds}: must be 1 or more occluded versions of each video")


def main() -> None:
    """Print the figures that the command asks for."""
    try:
        asked = tyro.cli(BadSoundEvaluation, description=__doc__)
        videos = real_videos(asked.clips)
        voices = [Clip.open(video).audio() for video in videos]
        with temporary_folder() as folder:
            work = asked.work or Path(folder)
            cases = []
            for number, video in enumerate(videos):
                other = voices[number - 1]
                if other is None:
                    raise AvfaceError(f"{videos[number - 1]}: has no audio")
                for seed in range(asked.seeds):
                    clip = make_occluded_clip(video, seed, work)
                    cases.append(measure_sounds(clip, other, Path(folder)))
        print(table(cases))
    except AvfaceError as error:
        raise SystemExit(f"avface: error: {error}") from None


if __name__ == "__main__":
    main()
