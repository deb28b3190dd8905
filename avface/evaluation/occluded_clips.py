"""Videos whose lower face is occluded in a given share of the frames, with known occlusion masks: the test data of the
occlusion protocol."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avface.arrays import F64, Bool
from avface.errors import AvfaceError
from avface.files import replacing_folder
from avface.head.schemes import LEFT_EYE, LIPS, RIGHT_EYE
from avface.synthetic.occlusion.compositing import covered_landmarks
from avface.synthetic.occlusion.plan import OcclusionConfig, OcclusionEvent, whole_face_event
from avface.synthetic.occlusion.video import TRUTH_VERSION, occlude_video, occlusion_rng

if TYPE_CHECKING:
    from avface.tracking import FaceTrack

RECIPE_VERSION = 1
WHOLE_FACE_VERSION = 1
OCCLUDED_LIPS = 0.5
"""A frame counts as occluded when more than this share of the lips' landmarks is covered."""
CLEAR_POINTS = 0.1
"""A frame counts as clear when no lip landmark and at most this share of all landmarks is covered."""

_TRIAL_FACE = 48.0
"""Width of the face in pixels in trials, which only estimate what a plan covers."""
_TRIAL_EVERY = 3
"""Step in frames between those that trials evaluate."""
_SHORTEST_CLEAR = 0.2
"""Minimum gap in seconds between two events."""
_SLACK = 1.45
"""Initial ratio of an event's duration to the time for which it occludes the lips: objects enter and leave."""

_ADJUSTMENTS = 2
"""Number of times a plan's durations are rescaled, if it keeps the limit of the eyes, before another one is drawn."""


@dataclass(frozen=True)
class OccludedClipsConfig:
    """How the lower face is occluded.

    Raises:
        AvfaceError: if a value can't work.
    """

    kinds: tuple[str, ...] = ("hand", "cup", "phone", "paper")
    """Kinds of occluders: those that move freely and are large enough."""
    share: float = 0.4
    """Share of the frames in which the lips are occluded."""
    tolerance: float = 0.03
    """Tolerance of that share."""
    eyes: float = 0.15
    """Maximum share of the eyes' landmarks that is covered while the lips are occluded."""
    stretch: float = 1.3
    """Mean duration in seconds of an occlusion of the lips."""
    trials: int = 24
    """Maximum number of trials; if no plan keeps both limits, the one with the smallest violation is taken."""

    def __post_init__(self) -> None:
        if not self.kinds:
            raise AvfaceError("kinds=(): name at least one kind of occluder")
        if not 0 < self.share <= 1:
            raise AvfaceError(f"share={self.share}: must be above 0 and at most 1")
        for name in ("tolerance", "eyes"):
            if not 0 <= getattr(self, name) <= 1:
                raise AvfaceError(f"{name}={getattr(self, name)}: must be from 0 to 1")
        if not self.stretch > 0:
            raise AvfaceError(f"stretch={self.stretch}: must be above 0 seconds")
        if self.trials < 1:
            raise AvfaceError(f"trials={self.trials}: must be 1 or more")


@dataclass(frozen=True, eq=False)
class OccludedClip:
    """One video with an occluded mouth.

    Shapes: reference (T, 478, 2) pixels of the tracker on the clean video, nan without a face; covered (T, 478) its
            landmarks behind an occluder; times (T,) seconds.
    """

    source: Path
    """The clean video."""
    seed: int
    video: Path
    """The occluded video, with the same frames and audio."""
    reference: F64
    covered: Bool
    times: F64

    @property
    def name(self) -> str:
        """The clean video's name and the seed."""
        return f"{self.source.stem} #{self.seed}"

    @property
    def known(self) -> Bool:
        """(T,) frames with a reference."""
        return np.asarray(np.isfinite(self.reference).all((1, 2)))

    @property
    def lips_occluded(self) -> Bool:
        """(T,) frames whose lips are occluded: more than half of their landmarks are covered."""
        return np.asarray((self.covered[:, LIPS].mean(1) > OCCLUDED_LIPS) & self.known)

    @property
    def clear(self) -> Bool:
        """(T,) frames without occlusion of the lips and nearly none of the face, whose landmarks are reliable."""
        free = ~self.covered[:, LIPS].any(1) & (self.covered.mean(1) <= CLEAR_POINTS) & self.known
        return np.asarray(free if free.any() else ~self.lips_occluded & self.known)


def make_occluded_clip(
    source: Path,
    seed: int,
    work: Path,
    config: OccludedClipsConfig | None = None,
    on_frame: Callable[[str, int], None] = lambda stage, done: None,
) -> OccludedClip:
    """Occlude the lower face of a video, or read the result of an earlier run from the folder `work`.

    Plans are drawn until one occludes the lips in the wanted share of the frames and spares the eyes. The result
    depends only on source, seed and config.

    Raises:
        AvfaceError: if the video can't be read or has no face, or the folder can't be written.
    """
    config = config or OccludedClipsConfig()
    recipe = {"version": RECIPE_VERSION, "seed": seed, **asdict(config)}
    folder = _clip_folder(work, source, str(seed), recipe)
    if not (folder / "truth.npz").is_file():
        _make(source, seed, folder, config, on_frame)
    return _read(source, seed, folder)


def make_whole_face_clip(
    source: Path,
    kind: str,
    covered: int,
    seed: int,
    work: Path,
    face_track: Callable[[], FaceTrack],
    on_frame: Callable[[str, int], None] = lambda stage, done: None,
) -> OccludedClip:
    """Cover the whole face of a video once, for `covered` frames without the ramps, or read the result of an earlier
    run from the folder `work`.

    The occlusion lies in the middle half of the clip as far as it is long enough. `face_track` returns the face in the
    clean video; it is called if the clip has to be made.

    Raises:
        AvfaceError: if the video can't be read or has no face, is too short, or the folder can't be written.
    """
    recipe = {"version": WHOLE_FACE_VERSION, "seed": seed, "kind": kind, "covered": covered}
    folder = _clip_folder(work, source, f"whole-{kind}-{covered}-{seed}", recipe)
    if not (folder / "truth.npz").is_file():
        from avface.media import Clip

        found, rate = face_track(), Clip.open(source).info.frame_rate
        longest = whole_face_event(0, covered, rate).stop
        room = len(found) - longest
        if room < 2:
            raise AvfaceError(
                f"{source}: has {len(found)} frames; a cover of {covered} needs {longest + 2}: choose a longer video"
            )
        start = int(np.random.default_rng([seed, covered]).integers(max(room // 4, 1), max(3 * room // 4, 2)))
        with replacing_folder(folder) as partial:
            files = occlude_video(
                source,
                partial,
                seed,
                (kind,),
                config=OcclusionConfig(kinds=(kind,), whole_face=True),
                events=(whole_face_event(start, covered, rate),),
                face_track=found,
                on_frame=on_frame,
            )
            files.clean.unlink()
            files.mask.unlink()
    return _read(source, seed, folder)


def _clip_folder(work: Path, source: Path, label: str, recipe: Mapping[str, object]) -> Path:
    """The folder of a clip in `work`: its name depends on the recipe and the content of the clean video.

    Raises:
        AvfaceError: if the video can't be read.
    """
    try:
        digest = sha256(source.read_bytes()).hexdigest()
    except OSError as error:
        raise AvfaceError(f"{source}: can't be read ({error.strerror})") from None
    described = json.dumps({**recipe, "source": digest}, sort_keys=True)
    return work / f"{source.stem}-{label}-{sha256(described.encode()).hexdigest()[:12]}"


def plan_events(
    rng: np.random.Generator, frames: int, frame_rate: float, config: OccludedClipsConfig, slack: float
) -> tuple[OcclusionEvent, ...]:
    """When occluders cover the mouth: events of different durations with random gaps between them.

    slack: ratio of an event's duration to the time for which it is to occlude the lips.
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
    """A plan and its estimated effect; `violation` is how far it exceeds the limits."""

    violation: float
    seed: int
    share: float
    eyes: float
    events: tuple[OcclusionEvent, ...]


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

    def run_trial(own_seed: int, slack: float) -> _Trial:
        planner = np.random.default_rng([own_seed, 0x5741])
        events = plan_events(planner, len(landmarks), rate, config, slack)
        share, eyes = _occluded_by(landmarks, found.image_size, occlusion, own_seed, events)
        violation = max(abs(share - config.share) - config.tolerance, 0) + max(eyes - config.eyes, 0)
        return _Trial(violation, own_seed, share, eyes, events)

    best: _Trial | None = None
    number, slack, adjusted = 0, _SLACK, 0
    for trial in range(config.trials):
        latest = run_trial(1000 * seed + number, slack)
        on_frame("planning", trial + 1)
        if best is None or latest.violation < best.violation:
            best = latest
        if best.violation == 0:
            break
        if latest.eyes <= config.eyes and adjusted < _ADJUSTMENTS:  # the same occluders with other durations
            slack = float(np.clip(slack * config.share / max(latest.share, 0.1), 0.7, 2.2))
            adjusted += 1
        else:
            number, slack, adjusted = number + 1, _SLACK, 0
    assert best is not None
    with replacing_folder(folder) as partial:
        files = occlude_video(
            source, partial, best.seed, config.kinds, config=occlusion, events=best.events, on_frame=on_frame
        )
        files.clean.unlink()
        files.mask.unlink()


def _occluded_by(
    landmarks: F64,
    image_size: tuple[int, int],
    config: OcclusionConfig,
    seed: int,
    events: tuple[OcclusionEvent, ...],
) -> tuple[float, float]:
    """Share of the frames whose lips a plan occludes, and of the eyes' landmarks that it covers in them (1 if none).

    Estimated without images, for a small face, on every third frame.
    """
    seen = np.isfinite(landmarks).all((1, 2))
    across = np.median(np.ptp(landmarks[seen], axis=1).mean(-1))
    scale = min(1.0, _TRIAL_FACE / max(float(across), 1.0))
    width, height = (max(round(scale * side), 16) for side in image_size)
    points = scale * (landmarks + 0.5) - 0.5
    covered = covered_landmarks(points, (width, height), occlusion_rng(seed), config, events, _TRIAL_EVERY)
    occluded = covered[:, LIPS].mean(1) > OCCLUDED_LIPS
    eyes = covered[occluded][:, np.concatenate([LEFT_EYE, RIGHT_EYE])]
    return float(occluded.mean()), float(eyes.mean()) if occluded.any() else 1.0


def _read(source: Path, seed: int, folder: Path) -> OccludedClip:
    path = folder / "truth.npz"
    try:
        with np.load(path, allow_pickle=False) as archive:
            if (version := int(archive["version"])) != TRUTH_VERSION:
                raise AvfaceError(
                    f"{path}: version {version}, not {TRUTH_VERSION}; remove {folder} and run again"
                )
            covered = np.unpackbits(archive["landmark_occluded"], axis=1)[:, :478].astype(bool)
            return OccludedClip(
                source,
                seed,
                folder / "occluded.mp4",
                archive["landmarks"].astype(np.float64),
                covered,
                archive["times"].astype(np.float64),
            )
    except AvfaceError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise a family of errors on damaged files
        raise AvfaceError(f"{path}: damaged ({error}); remove {folder} and run again") from None
