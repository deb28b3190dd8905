"""Training data of the landmark motion network: sets of frames of one person, with true and tracked landmarks.

Every second person is an out-of-model head (`avface.synthetic.out_of_model`) with units of its own; the others are of
the head model. All have a face at rest of their own. Most of them perform exercises, which show every unit, and one of
six speaks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from avface.arrays import F32, U8, Floats, Int
from avface.head import HeadModel
from avface.synthetic.out_of_model import MOTION_SEED, OutOfModelConfig, expressive_head
from avface.synthetic.performance.exercises import exercise
from avface.synthetic.performance.performance import Performance, perform
from avface.synthetic.rendering.renderer import SceneRenderer
from avface.tracking.face_picture import face_picture, shown_texels
from avface.tracking.facemesh import FaceMesh
from avface.training.landmarks.views import (
    LandmarkViewsConfig,
    StoredViews,
    ViewRenderer,
    degraded,
    is_lost,
    prepare_files,
    track_image,
)
from avface.training.loop.config import check_positive, check_shares

SPEAKING = 6
"""One of so many people speaks."""
SECONDS = (40.0, 12.0)
"""Length of the performances of which the frames are drawn: exercises, and speech."""
TURNED = 0.5
"""Factor on the random turns of a scene's head at rest."""
MIN_ACTIVITY = 0.15
"""Weight of a still frame when frames are drawn; that of others grows with the sum of their units."""
MIN_FRAMES = 8
"""Least number of tracked frames of a set."""
_SET, _FRAME = 3, 4


@dataclass(frozen=True, eq=False)
class MotionViews(StoredViews):
    """N frames of faces, in sets of one person each.

    pictures (N, side, side) uint8 (`avface.tracking.face_picture`), shown (N, side, side) uint8 how well their texels
    are seen, tracked and true landmarks (N, 478, 2) in the pixels of aligned crops, expression (N, E), and the number
    of the set (N,), ascending.
    """

    pictures: U8
    shown: U8
    tracked: F32
    true: F32
    expression: F32
    set_: Int

    def __len__(self) -> int:
        return len(self.set_)

    def rows(self) -> list[Int]:
        """The frames of each set."""
        return np.split(np.arange(len(self)), np.flatnonzero(np.diff(self.set_)) + 1)


@dataclass(frozen=True)
class MotionViewsConfig:
    """How many images are made, and how."""

    people: int = 1630
    """Number of synthetic people."""
    frames: int = 20
    """Frames of each person."""
    size: int = 256
    """Width and height of an image in pixels."""
    supersampling: int = 1
    """Rendered pixels across one of an image."""
    degraded: float = 0.5
    """Share of the images that are degraded."""

    def __post_init__(self) -> None:
        check_positive(self, "people", "frames", "size", "supersampling")
        check_shares(self, "degraded")


def prepare_motion_views(
    folder: Path, config: MotionViewsConfig, on_people: Callable[[int], None] = lambda done: None
) -> list[Path]:
    """Make the files of a config that don't exist yet. `on_people` is called with the number of people that are done.

    Raises:
        AvfaceError: if the folder can't be written, or espeak-ng is missing.
    """
    with FaceMesh() as mesh:
        renderer = ViewRenderer(
            LandmarkViewsConfig(size=config.size, scenes=1),
            lambda image: track_image(mesh, image),
            seed=MOTION_SEED,
            people_a_skin=8,
        )

        def make(people: range) -> MotionViews:
            return _joined([made for n in people if (made := _one_set(n, config, renderer))])

        return prepare_files(folder, config.people, make, on_people)


def _joined(sets: list[MotionViews]) -> MotionViews:
    columns = {field.name: [getattr(one, field.name) for one in sets] for field in fields(MotionViews)}
    return MotionViews(**{name: np.concatenate(values) for name, values in columns.items()})


def _one_set(number: int, config: MotionViewsConfig, renderer: ViewRenderer) -> MotionViews | None:
    """Frames of person `number`; None if the tracker finds too few of them."""
    rng = np.random.default_rng([MOTION_SEED, number, _SET])
    head = expressive_head(number, rng, OutOfModelConfig(seed=MOTION_SEED), in_model=number % 2 == 0)
    performance = _performance(number, rng, head)
    scene = next(iter(renderer.scenes(number, head)))
    scene = replace(scene, performance=performance, rest_turn=(TURNED * scene.rest_turn).astype(np.float32))
    drawn = SceneRenderer(scene, head, config.supersampling)
    chance = np.random.default_rng([MOTION_SEED, number, _FRAME])
    moving = [n for n, name in enumerate(head.expression_names) if not name.startswith("eye")]
    activity = MIN_ACTIVITY + performance.expression[:, moving].sum(1).clip(0, 1.2)
    frames = rng.choice(len(activity), config.frames, replace=False, p=activity / activity.sum())
    found: list[tuple[U8, U8, Floats, Floats, F32]] = []
    for frame, image, true in renderer.pictures(drawn, np.sort(frames)):
        shown_image = degraded(image, chance) if chance.random() < config.degraded else image
        tracked = renderer.track(shown_image)
        if tracked is None or is_lost(tracked, true):
            continue
        texels, at, matrix = shown_texels(tracked)
        placed = (true @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
        found.append(
            (
                face_picture(shown_image, tracked),
                (255 * texels).astype(np.uint8),
                at,
                placed,
                performance.expression[frame],
            )
        )
    if len(found) < MIN_FRAMES:
        return None
    pictures, shown, tracked_, true_, expression = (np.stack(column) for column in zip(*found, strict=True))
    return MotionViews(pictures, shown, tracked_, true_, expression, np.full(len(found), number))


def _performance(number: int, rng: np.random.Generator, head: HeadModel) -> Performance:
    exercises, speech = SECONDS
    if number % SPEAKING == SPEAKING - 1:
        return perform(rng, head, speech, 25.0, "speech", resting=False)
    return exercise(rng, head, exercises)
