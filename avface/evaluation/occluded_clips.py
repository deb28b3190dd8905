"""Videos whose lower face is hidden for a given share of their frames, with what is hidden known: the material of the
occlusion protocol."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from avface.arrays import F64, Bool
from avface.errors import AvfaceError
from avface.files import replacing_folder
from avface.head.schemes import LEFT_EYE, LIPS, RIGHT_EYE
from avface.synthetic.occlusion.compositing import covered_landmarks
from avface.synthetic.occlusion.plan import OcclusionConfig, OcclusionEvent
from avface.synthetic.occlusion.video import occlude_video, occlusion_rng

RECIPE_VERSION = 1
OCCLUDED_LIPS = 0.5
"""A frame counts as occluded when more than this share of the lips' landmarks is covered."""
CLEAR_POINTS = 0.1
"""A frame counts as clear when nothing covers the lips and at most this share of all landmarks is covered."""

_TRIAL_FACE = 48.0
"""Pixels across the face in trials, which only ask what will be hidden."""
_TRIAL_EVERY = 3
"""Frames between two that trials look at."""
_SHORTEST_CLEAR = 0.2
"""Seconds between two stays, at least."""
_SLACK = 1.45
"""Length of a stay over the time that the lips are to be hidden, at first: things come and go."""


_ADJUSTMENTS = 2
"""How often a plan's stays are made shorter or longer, if it leaves the eyes, before another one is drawn."""


@dataclass(frozen=True)
class OccludedClipsConfig:
    """How the lower face is hidden."""

    kinds: tuple[str, ...] = ("hand", "cup", "phone", "paper")
    """What comes before the mouth; each of them moves freely and is large enough."""
    share: float = 0.4
    """Share of the frames in which the lips are hidden."""
    tolerance: float = 0.03
    """How far that share may be off."""
    eyes: float = 0.15
    """Share of the eyes' landmarks that may be covered while the lips are: it is the lower face that is hidden."""
    stretch: float = 1.3
    """Seconds for which the lips stay hidden, on average."""
    trials: int = 24
    """Plans that are tried at most; if none keeps both limits, the one that misses them least is taken."""


@dataclass(frozen=True, eq=False)
class OccludedClip:
    """One video with something before the mouth.

    Shapes: reference (T, 478, 2) pixels of the tracker on the clean video, nan where it saw no face; covered (T, 478)
            landmarks of it that lie behind something; times (T,) seconds.
    """

    source: Path
    """The clean video."""
    seed: int
    video: Path
    """The occluded video, of the same frames and sound."""
    reference: F64
    covered: Bool
    times: F64

    @property
    def name(self) -> str:
        """The clean video's name and the seed."""
        return f"{self.source.stem} #{self.seed}"

    @property
    def known(self) -> Bool:
        """(T,) whether there is a reference."""
        return np.asarray(np.isfinite(self.reference).all((1, 2)))

    @property
    def lips_occluded(self) -> Bool:
        """(T,) whether the lips are occluded: over half of their landmarks are covered."""
        return np.asarray((self.covered[:, LIPS].mean(1) > OCCLUDED_LIPS) & self.known)

    @property
    def clear(self) -> Bool:
        """(T,) whether nothing covers the lips and next to nothing the face, so that its landmarks are believed."""
        free = ~self.covered[:, LIPS].any(1) & (self.covered.mean(1) <= CLEAR_POINTS) & self.known
        return np.asarray(free if free.any() else ~self.lips_occluded & self.known)


def make_occluded_clip(
    source: Path,
    seed: int,
    work: Path,
    config: OccludedClipsConfig | None = None,
    on_frame: Callable[[str, int], None] = lambda stage, done: None,
) -> OccludedClip:
    """Hide the lower face of a video, or take what an earlier run left in the folder `work`.

    Plans are drawn until one hides the lips in the wanted share of the frames and leaves the eyes; the same source,
    seed and config give the same pictures.

    Raises:
        AvfaceError: if the video can't be read or has no face, or the folder can't be written.
    """
    config = config or OccludedClipsConfig()
    try:
        digest = sha256(source.read_bytes()).hexdigest()
    except OSError as error:
        raise AvfaceError(f"{source}: can't be read ({error.strerror})") from None
    recipe = json.dumps(
        {"version": RECIPE_VERSION, "source": digest, "seed": seed, **asdict(config)}, sort_keys=True
    )
    folder = work / f"{source.stem}-{seed}-{sha256(recipe.encode()).hexdigest()[:12]}"
    if not (folder / "truth.npz").is_file():
        _make(source, seed, folder, config, on_frame)
    return _read(source, seed, folder)


def plan_stays(
    rng: np.random.Generator, frames: int, frame_rate: float, config: OccludedClipsConfig, slack: float
) -> tuple[OcclusionEvent, ...]:
    """When something comes before the mouth: stays of different lengths with random pauses between them.

    slack: length of a stay over the time that the lips are to be hidden in it.
    """
    wanted = config.share * frames
    count = max(1, round(wanted / (config.stretch * frame_rate)))
    pause = min(max(round(_SHORTEST_CLEAR * frame_rate), 1), frames // (2 * count + 2))
    weights = rng.uniform(0.6, 1.4, count)
    lengths = np.round(slack * wanted * weights / weights.sum()).astype(int)
    most = frames - (count + 1) * pause
    if lengths.sum() > most:
        lengths = np.floor(lengths * most / lengths.sum()).astype(int)
    left = most - int(lengths.sum())
    cuts = np.sort(rng.integers(0, left + 1, count))
    pauses = pause + np.diff(cuts, prepend=0)
    starts = np.cumsum(pauses) + np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return tuple(
        OcclusionEvent(int(start), int(start + length), True, True)
        for start, length in zip(starts, lengths, strict=True)
        if length > 0
    )


@dataclass(frozen=True)
class _Trial:
    """A plan and what it would hide; `missed` is how far it is outside of the limits."""

    missed: float
    seed: int
    share: float
    eyes: float
    stays: tuple[OcclusionEvent, ...]


def _make(
    source: Path,
    seed: int,
    folder: Path,
    config: OccludedClipsConfig,
    on_frame: Callable[[str, int], None],
) -> None:
    from avface.media import Clip
    from avface.tracking import track

    clip = Clip.open(source)
    found = track(clip.frames(), on_frame=lambda done: on_frame("tracking", done))
    landmarks = np.asarray(found.landmarks, np.float64)
    rate = clip.info.frame_rate
    occlusion = OcclusionConfig(kinds=config.kinds, mouth_share=1.0, frame_rate=rate)

    def tried(own_seed: int, slack: float) -> _Trial:
        planner = np.random.default_rng([own_seed, 0x5741])
        stays = plan_stays(planner, len(landmarks), rate, config, slack)
        share, eyes = _hidden_by(landmarks, found.image_size, occlusion, own_seed, stays)
        missed = max(abs(share - config.share) - config.tolerance, 0) + max(eyes - config.eyes, 0)
        return _Trial(missed, own_seed, share, eyes, stays)

    best: _Trial | None = None
    number, slack, adjusted = 0, _SLACK, 0
    for trial in range(config.trials):
        latest = tried(1000 * seed + number, slack)
        on_frame("planning", trial + 1)
        if best is None or latest.missed < best.missed:
            best = latest
        if best.missed == 0:
            break
        if latest.eyes <= config.eyes and adjusted < _ADJUSTMENTS:  # the same things, for another time
            slack = float(np.clip(slack * config.share / max(latest.share, 0.1), 0.7, 2.2))
            adjusted += 1
        else:
            number, slack, adjusted = number + 1, _SLACK, 0
    assert best is not None
    with replacing_folder(folder) as partial:
        files = occlude_video(
            source, partial, best.seed, config.kinds, config=occlusion, events=best.stays, on_frame=on_frame
        )
        files.clean.unlink()
        files.mask.unlink()


def _hidden_by(
    landmarks: F64,
    image_size: tuple[int, int],
    config: OcclusionConfig,
    seed: int,
    stays: tuple[OcclusionEvent, ...],
) -> tuple[float, float]:
    """Share of the frames whose lips a plan hides, and of the eyes' landmarks that it covers in these (1 without any).

    Tried without pictures, for a face of few pixels, on some of the frames.
    """
    seen = np.isfinite(landmarks).all((1, 2))
    across = np.median(np.ptp(landmarks[seen], axis=1).mean(-1))
    scale = min(1.0, _TRIAL_FACE / max(float(across), 1.0))
    width, height = (max(round(scale * side), 16) for side in image_size)
    points = scale * (landmarks + 0.5) - 0.5
    covered = covered_landmarks(points, (width, height), occlusion_rng(seed), config, stays, _TRIAL_EVERY)
    occluded = covered[:, LIPS].mean(1) > OCCLUDED_LIPS
    eyes = covered[occluded][:, np.concatenate([LEFT_EYE, RIGHT_EYE])]
    return float(occluded.mean()), float(eyes.mean()) if occluded.any() else 1.0


def _read(source: Path, seed: int, folder: Path) -> OccludedClip:
    path = folder / "truth.npz"
    try:
        with np.load(path, allow_pickle=False) as archive:
            covered = np.unpackbits(archive["landmark_hidden"], axis=1)[:, :478].astype(bool)
            return OccludedClip(
                source,
                seed,
                folder / "occluded.mp4",
                archive["landmarks"].astype(np.float64),
                covered,
                archive["times"].astype(np.float64),
            )
    except Exception as error:  # zipfile, zlib and numpy raise a family of errors on damaged files
        raise AvfaceError(f"{path}: damaged ({error}); remove {folder} and run again") from None
