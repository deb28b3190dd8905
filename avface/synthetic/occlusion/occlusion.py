"""Faces partly hidden over a run of frames: hands and other things that come, move and go.

Source: AVFace (CVPR 2023), sec. 3.4, with the composition of Voo, Jiang and Loy 2022. The paper leaves open how hands
move; here it is a random walk that is drawn back to its beginning (an Ornstein-Uhlenbeck process), smoothed over a few
frames.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from avface.arrays import F64, U8, Bool
from avface.errors import AvfaceError
from avface.files import replacing
from avface.head.schemes import (
    FACE_OVAL,
    LEFT_BROW_LOWER,
    LEFT_BROW_UPPER,
    LEFT_EYE,
    LIPS_OUTER,
    RIGHT_BROW_LOWER,
    RIGHT_BROW_UPPER,
    RIGHT_EYE,
)
from avface.media import Clip, EncodingConfig, VideoWriter
from avface.synthetic.occlusion.drawing import Layer, Light, View, srgb
from avface.synthetic.occlusion.face_pose import FacePoses, average_face, face_poses
from avface.synthetic.occlusion.occluders import (
    OCCLUDER_KINDS,
    Occluder,
    check_kinds,
    sample_occluder,
)
from avface.synthetic.performance.random_curves import minimum_jerk
from avface.synthetic.rendering.sensor import linear_light


class Landmarks(Protocol):
    """Landmarks (T, 478, 2) in pixels: an array, a list of arrays, or a `FaceTrack`'s, read from disk row by row."""

    def __len__(self) -> int: ...

    def __getitem__(self, frame: int, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...


TRUTH_VERSION = 1
HIDDEN = 128
"""A pixel of a mask at or over this value counts as hidden."""

_FACE_HALF = np.array([0.07, 0.08])
"""Half the width and height of the average face's box, in metres."""
_SWIFTEST = 0.1
"""Metres a frame, at 25 frames a second, that things move at most when they come and go, if there is time enough."""
_DRAWN_SCALE = 1600.0
"""Pixels per metre at which things are drawn: a face of 260 pixels. Larger ones are enlarged, as if out of focus."""
_AVERAGE_SKIN = 0.33
"""Linear luminance of skin in full light, roughly, over all people; tells how bright a picture is."""


@dataclass(frozen=True)
class OcclusionConfig:
    """How faces are hidden. Steps are those of one frame at 25 frames a second."""

    kinds: tuple[str, ...] = OCCLUDER_KINDS
    """What comes before the face."""
    mouth_share: float = 0.7
    """Share of occluders that are placed before the mouth, among those that can be."""
    stay_share: float = 0.5
    """Share of short runs that are occluded from first to last; in the others something enters or leaves."""
    covered_share: float = 0.6
    """Share of the frames of longer runs that are occluded."""
    shortest: int = 16
    """Fewest frames for which something stays; runs up to twice as long have just one occluder."""
    longest: int = 90
    """Most frames for which something stays."""
    turn_step: float = 3.0
    """Standard deviation in degrees of the random turn in one frame, before smoothing."""
    move_step: float = 0.02
    """Standard deviation of the random move in one frame, in face sizes, before smoothing."""
    drift: float = 0.02
    """Greatest steady move in one frame, in face sizes."""
    reach: float = 1.2
    """Size of the box within which occluders stay, in face boxes, except when they come and go."""
    shadow: float = 0.35
    """Share of the light that an occluder takes from the face beside it; 0 for none."""
    frame_rate: float = 25.0
    """Frames a second of the run."""

    def __post_init__(self) -> None:
        check_kinds(self.kinds)
        for name in ("mouth_share", "stay_share", "covered_share", "shadow"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value} must be between 0 and 1")
        for name in ("turn_step", "move_step", "drift"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        if not 1 <= self.shortest <= self.longest:
            raise ValueError(f"shortest={self.shortest} must be from 1 to longest={self.longest}")
        if self.reach <= 0 or self.frame_rate <= 0:
            raise ValueError("reach and frame_rate must be positive")


@dataclass(frozen=True)
class OcclusionEvent:
    """One occluder's stay before the face."""

    start: int
    """First frame."""
    stop: int
    """One past the last frame."""
    enters: bool
    """Whether it comes from outside the picture; otherwise it is there at once."""
    leaves: bool
    """Whether it goes out of the picture at the end."""


@dataclass(frozen=True, eq=False)
class OccludedFrame:
    """A frame with something before the face. Frames without anything are handed on as they came.

    Shapes: image (H, W, 3) uint8 RGB, mask (H, W) uint8 (255 hidden; edges in between), landmark_hidden (478,),
            rotation and shift (3,). Outside of the mask only the occluder's shadow changes the face.
    """

    image: U8
    mask: U8
    face_hidden: float
    """Share of the face's oval that is hidden; nan without a face."""
    mouth_hidden: float
    """Share of the lips and what is between them; nan without a face."""
    landmark_hidden: Bool
    """Whether each landmark lies behind the occluder."""
    kind: str
    """What hides the face; empty for nothing."""
    rotation: F64
    """The occluder's own turn from where it was placed, axis-angle in radians; nan for none."""
    shift: F64
    """The occluder's own move in metres, x to the viewer's right, y up, z to the viewer; nan for none."""


def plan_occlusions(
    rng: np.random.Generator, frames: int, config: OcclusionConfig
) -> tuple[OcclusionEvent, ...]:
    """When things are before the face in a run of `frames` frames."""
    if frames <= 2 * config.shortest:
        if frames < 4 or rng.random() < config.stay_share:
            return (OcclusionEvent(0, frames, False, False),)
        if rng.random() < 0.5:
            return (OcclusionEvent(int(rng.integers(1, max(2, frames // 2))), frames, True, False),)
        return (OcclusionEvent(0, int(rng.integers(frames // 2 + 1, frames)), False, True),)
    events: list[OcclusionEvent] = []
    average = 0.5 * (config.shortest + config.longest)
    pause = average * (1 - config.covered_share) / max(config.covered_share, 1e-3)
    start = 0 if rng.random() < 0.3 else round(rng.exponential(pause))
    while start < frames - config.shortest:
        stop = min(start + int(rng.integers(config.shortest, config.longest + 1)), frames)
        events.append(OcclusionEvent(start, stop, start > 0, stop < frames))
        start = stop + 1 + round(rng.exponential(pause))
    if not events and config.covered_share > 0:
        start = int(rng.integers(0, frames - config.shortest + 1))
        stop = min(start + int(rng.integers(config.shortest, config.longest + 1)), frames)
        events.append(OcclusionEvent(start, stop, start > 0, stop < frames))
    return tuple(events)


def random_walk(
    rng: np.random.Generator, frames: int, step: float, dimensions: int, frame_rate: float = 25.0
) -> F64:
    """A smooth walk (frames, dimensions) about 0: Ornstein-Uhlenbeck, averaged over a fifth of a second.

    Before that its steps at 25 frames a second are N(0, step). It forgets where it was within about a second.
    """
    ratio = 25.0 / frame_rate
    noise = rng.normal(0, step * np.sqrt(ratio), (frames + 1, dimensions))
    back = 0.96**ratio
    walk = np.empty_like(noise)
    walk[0] = noise[0]
    for t in range(1, len(noise)):
        walk[t] = back * walk[t - 1] + noise[t]
    return np.asarray(gaussian_filter1d(walk, 2.5 / ratio, axis=0, mode="nearest")[:frames])


def occlusion_rng(seed: int) -> np.random.Generator:
    """The random numbers that `occlude_video` draws from."""
    return np.random.default_rng([seed, 0x0CC1])


def occlude(
    frames: Iterable[U8],
    landmarks: Landmarks,
    rng: np.random.Generator,
    config: OcclusionConfig | None = None,
    events: Sequence[OcclusionEvent] | None = None,
) -> Iterator[OccludedFrame]:
    """Put things before the face of a run of frames, one frame at a time.

    Args:
        frames: (H, W, 3) uint8 RGB, all of one size; real or rendered.
        landmarks: (T, 478, 2) pixels of the clean frames, nan where there is no face; anything with a length whose
            rows are arrays.
        rng: All that is drawn at random. Frames and memory don't depend on it otherwise.
        config: What comes, how often and how it moves.
        events: When things are before the face, in order and apart from each other; drawn by default.

    Memory doesn't grow with the frames, but for 80 bytes a frame.

    Raises:
        AvfaceError: if there is no face in any frame.
        ValueError: if shapes are wrong or there are more frames than landmarks.
    """
    config = config or OcclusionConfig()
    poses = face_poses(landmarks)
    events = plan_occlusions(rng, len(poses), config) if events is None else tuple(events)
    on_head, free = poses.smoothed(0.8), poses.smoothed(4.0 * config.frame_rate / 25)
    return _occluded(frames, landmarks, rng, config, events, on_head, free)


def covered_landmarks(
    landmarks: Landmarks,
    image_size: tuple[int, int],
    rng: np.random.Generator,
    config: OcclusionConfig,
    events: Sequence[OcclusionEvent],
    every: int = 1,
) -> Bool:
    """Which landmarks things would hide, without any pictures: (ceil(T / every), 478) for every n-th of the T frames.

    What comes and how it moves are those of `occlude` with the same arguments; nearly the same where pictures have
    another size. image_size is the width and height in pixels.

    Raises:
        AvfaceError: if there is no face in any frame.
    """
    poses = face_poses(landmarks)
    on_head, free = poses.smoothed(0.8), poses.smoothed(4.0 * config.frame_rate / 25)
    covered = np.zeros((-(-len(poses) // every), 478), bool)
    blank = np.zeros((image_size[1], image_size[0], 3), np.uint8)
    skin = np.full((6000, 3), 0.5)  # any: hands draw as many random numbers whatever their colour
    for event in events:
        light = Light((0.0, 0.5, 0.866), 0.5)
        run = _Run(rng, config, event, skin, light, 1.0, free, image_size)
        for index in range(-(-event.start // every) * every, event.stop, every):
            layer, _, _ = run.draw(index, on_head if run.occluder.worn else free, image_size)
            if layer is not None:
                _, mask = run.compose(blank, layer, None, 1.0)
                covered[index // every] = _hidden_points(mask, np.asarray(landmarks[index], np.float64))
    return covered


def _occluded(
    frames: Iterable[U8],
    landmarks: Landmarks,
    rng: np.random.Generator,
    config: OcclusionConfig,
    events: tuple[OcclusionEvent, ...],
    on_head: FacePoses,
    free: FacePoses,
) -> Iterator[OccludedFrame]:
    waiting = list(events)
    run: _Run | None = None
    skin: F64 | None = None
    for index, image in enumerate(frames):
        if index >= len(on_head):
            raise ValueError(f"there are landmarks for {len(on_head)} frames, but there are more frames")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"a frame is {image.dtype} {image.shape}, but must be uint8 (H, W, 3)")
        points = np.asarray(landmarks[index], np.float64)
        seen = bool(on_head.seen[index])
        if waiting and index >= waiting[0].start:
            event = waiting.pop(0)
            light, brightness = Light((0.0, 0.5, 0.866), 0.5), 1.0
            if seen:
                skin = face_skin(image, points)
                light, brightness = estimate_light(image, points, on_head.turn[index])
            run = _Run(rng, config, event, skin, light, brightness, free, (image.shape[1], image.shape[0]))
        if run is not None and index >= run.event.stop:
            run = None
        layer = rotation = shift = None
        if run is not None:
            poses = on_head if run.occluder.worn else free
            layer, rotation, shift = run.draw(index, poses, (image.shape[1], image.shape[0]))
        mask = np.zeros(image.shape[:2], np.uint8)
        if layer is not None and run is not None:
            image, mask = run.compose(image, layer, points if seen else None, on_head.scale[index])
        visible = bool(mask.any())
        if not visible or rotation is None or shift is None:
            rotation = shift = np.full(3, np.nan)
        yield OccludedFrame(
            image,
            mask,
            _share_hidden(mask, points[FACE_OVAL]) if seen else np.nan,
            _share_hidden(mask, points[LIPS_OUTER]) if seen else np.nan,
            _hidden_points(mask, points),
            run.occluder.kind if run is not None and visible else "",
            rotation,
            shift,
        )


class _Run:
    """One occluder over the frames of its event."""

    def __init__(
        self,
        rng: np.random.Generator,
        config: OcclusionConfig,
        event: OcclusionEvent,
        skin: F64 | None,
        light: Light,
        brightness: float,
        poses: FacePoses,
        size: tuple[int, int],
    ) -> None:
        self.event, self._light, self._config = event, light, config
        over_mouth = bool(rng.random() < config.mouth_share)
        self.occluder: Occluder = sample_occluder(rng, config.kinds, over_mouth=over_mouth).dressed(
            skin, brightness, rng
        )
        self._distance = float(rng.uniform(0.45, 1.1))
        self._softness = float(rng.uniform(0.45, 0.9))
        self._grain_rng = np.random.default_rng(int(rng.integers(2**31)))
        self._grain = rng.uniform(0.3, 2.2) * self._grain_rng.standard_normal((256, 256), np.float32)
        count = event.stop - event.start
        worn = self.occluder.worn
        calm = 0.12 if worn else 1.0
        rate = config.frame_rate
        face = 2 * float(_FACE_HALF.mean())
        self._turns = random_walk(rng, count, calm * np.deg2rad(config.turn_step), 3, rate)
        self._bends = 0.5 * random_walk(rng, count, np.deg2rad(config.turn_step), 5, rate)
        moves = random_walk(rng, count, calm * config.move_step * face, 3, rate) * [1, 1, 0.3]
        speed = rng.uniform(0, config.drift) * face * calm * 25 / rate
        angle = rng.uniform(0, 2 * np.pi)
        moves[:, :2] += np.outer(np.arange(count) - count / 2, [np.cos(angle), np.sin(angle)]) * speed
        limit = rng.uniform(0.012, 0.03) if self.occluder.over_mouth else 0.06
        self._moves = limit * np.tanh(moves / limit)
        # frames that it takes from outside the picture
        way = self.occluder.way_in[:2] * [1, -1]
        out = max(size) / poses.scale[event.start]
        for k in (0, 1):
            if abs(way[k]) > 1e-3:
                edge = size[k] if way[k] > 0 else 0
                out = min(out, abs((edge - poses.centre[event.start, k]) / way[k]) / poses.scale[event.start])
        self._out = float(np.clip(out, 0.1, 0.6)) + 0.2
        needed = (
            1.875 * self._out / _SWIFTEST * rate / 25
        )  # a movement of minimum jerk peaks at 1.875 times its mean
        self._arrival = int(np.clip(np.ceil(needed), 4, max(4, count // 3)))

    def draw(self, index: int, poses: FacePoses, size: tuple[int, int]) -> tuple[Layer | None, F64, F64]:
        """The layer of frame `index`, with the occluder's turn and move."""
        step = index - self.event.start
        head_turn = Rotation.from_rotvec(poses.turn[index]).as_matrix()
        turn, shift = self._turns[step], self._moves[step].copy()
        if not self.occluder.worn:
            place = head_turn @ self.occluder.target + shift
            limit = self._config.reach * _FACE_HALF
            shift[:2] += np.clip(place[:2], -limit, limit) - place[:2]
        away = 0.0
        if self.event.enters:
            away += 1 - float(minimum_jerk(np.array((step + 1) / self._arrival)))
        if self.event.leaves:
            left = self.event.stop - 1 - index
            away += 1 - float(minimum_jerk(np.array((left + 1) / self._arrival)))
        shift = shift + min(away, 1.0) * self._out * self.occluder.way_in
        scale = float(poses.scale[index])
        centre = (float(poses.centre[index, 0]), float(poses.centre[index, 1]))
        resolution = float(np.clip(_DRAWN_SCALE / scale, 0.4, 2))
        layer = self.occluder.draw(
            View(centre, scale, self._distance),
            self._light,
            size,
            rotation=Rotation.from_rotvec(turn).as_matrix(),
            shift=shift,
            head_turn=head_turn,
            bend=self._bends[step],
            edge=self._softness / min(resolution, 1.0),
            resolution=resolution,
        )
        return layer, turn, shift

    def compose(self, image: U8, layer: Layer, points: F64 | None, scale: float) -> tuple[U8, U8]:
        """The frame with the layer over it, and its mask (H, W)."""
        height, width = image.shape[:2]
        top, left = max(layer.top, 0), max(layer.left, 0)
        bottom = min(layer.top + layer.alpha.shape[0], height)
        right = min(layer.left + layer.alpha.shape[1], width)
        mask = np.zeros((height, width), np.uint8)
        if bottom <= top or right <= left:
            return image, mask
        inside = np.s_[top - layer.top : bottom - layer.top, left - layer.left : right - layer.left]
        alpha = np.where(layer.alpha < 0.02, 0, layer.alpha)[inside]
        blur = 0.5 * self._softness + 0.1
        colour: Any = cv2.GaussianBlur(np.ascontiguousarray(layer.colour[inside]), (0, 0), blur)
        mask[top:bottom, left:right] = np.round(255 * alpha)
        out = image.copy()
        if points is not None and self._config.shadow > 0:
            self._cast_shadow(out, mask, points, scale)
        shift = self._grain_rng.integers(0, len(self._grain), 2)
        grain = np.roll(self._grain, shift, (0, 1))
        rows, columns = np.arange(bottom - top) % len(grain), np.arange(right - left) % len(grain)
        colour *= 255
        colour += grain[np.ix_(rows, columns)][..., None]
        window = out[top:bottom, left:right]
        colour -= window
        colour *= alpha[..., None]
        colour += window
        window[:] = cv2.convertScaleAbs(np.maximum(colour, 0, out=colour))  # rounds and stops at 255
        return out, mask

    def _cast_shadow(self, out: U8, mask: U8, points: F64, scale: float) -> None:
        """Darken the face beside the occluder, on the side away from the light."""
        height, width = mask.shape
        size = 0.16 * scale
        low = np.floor(np.clip(points.min(0) - 2, 0, None)).astype(int)
        high = np.ceil(np.minimum(points.max(0) + 3, [width, height])).astype(int)
        if (high <= low).any():
            return
        window = np.s_[low[1] : high[1], low[0] : high[0]]
        gap = 0.3 * self.occluder.gap if not self.occluder.worn else 0.002
        direction = self._light.direction
        move = np.array([-direction[0], direction[1]]) * gap * scale / max(direction[2], 0.4)
        shrink = max(0.012 * size, 1.0)  # shadows are soft: a smaller picture is enough
        span = tuple(np.maximum(np.ceil((high - low) / shrink), 1).astype(int))
        matrix = np.array([[shrink, 0, low[0] - move[0]], [0, shrink, low[1] - move[1]]], np.float32)
        cover = cv2.warpAffine(mask, matrix, span, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        face = np.zeros(span[::-1], np.uint8)
        cv2.fillPoly(face, [np.round((points[FACE_OVAL] - low) / shrink).astype(np.int32)], (255,))
        cover = cv2.GaussianBlur(cover.astype(np.float32) / 255, (0, 0), max(0.035 * size / shrink, 0.8))
        skin = cv2.GaussianBlur(face.astype(np.float32) / 255, (0, 0), max(0.02 * size / shrink, 0.8))
        factor = cv2.resize(1 - self._config.shadow * cover * skin, (high[0] - low[0], high[1] - low[1]))
        out[window] = cv2.convertScaleAbs(out[window] * factor[..., None])


def face_skin(image: U8, points: F64, most: int = 6000) -> F64 | None:
    """Colours (M, 3) sRGB in [0, 1] of a face's skin with its shading evened out; at most `most` of them.

    None if there are too few to tell: a face that is far away or out of the picture.

    From the forehead to the upper lip, without eyes and brows, and without what is far from the rest: hair, glasses,
    highlights. points: landmarks (478, 2) in pixels.
    """
    mask = np.zeros(image.shape[:2], np.uint8)

    def paint(ring: F64, value: int) -> None:
        cv2.fillPoly(mask, [np.round(ring).astype(np.int32)], (value,))

    paint(0.9 * points[FACE_OVAL] + 0.1 * points[FACE_OVAL].mean(0), 1)
    for ring in (LEFT_EYE, RIGHT_EYE, LIPS_OUTER):
        middle = points[ring].mean(0)
        paint(middle + 1.5 * (points[ring] - middle), 0)
    for upper, lower in ((LEFT_BROW_UPPER, LEFT_BROW_LOWER), (RIGHT_BROW_UPPER, RIGHT_BROW_LOWER)):
        ring = points[np.concatenate([upper, lower[::-1]])]
        paint(ring.mean(0) + 1.6 * (ring - ring.mean(0)), 0)
    up = points[10] - points[152]
    rows, columns = np.nonzero(mask)
    above = (
        np.stack([columns, rows], 1) - points[164]
    ) @ up > 0  # no beard, no mouth: from under the nose up
    rows, columns = rows[above], columns[above]
    if len(rows) < 60:
        return None
    chosen = np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)
    rows, columns = rows[chosen], columns[chosen]
    colours = linear_light(image[rows, columns] / np.float32(255)).astype(np.float64)
    luminance = colours @ [0.2126, 0.7152, 0.0722]
    kept = (luminance >= np.quantile(luminance, 0.15)) & (luminance <= np.quantile(luminance, 0.97))
    rows, columns, colours, luminance = rows[kept], columns[kept], colours[kept], luminance[kept]
    x, y = (columns - columns.mean()) / max(np.ptp(columns), 1), (rows - rows.mean()) / max(np.ptp(rows), 1)
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 1)
    shading = np.clip(terms @ np.linalg.lstsq(terms, luminance, rcond=None)[0], 0.02, None)
    colours = colours * np.clip(np.median(shading) / shading, 0.5, 2)[:, None]
    off = np.abs(colours - np.median(colours, 0))
    spread = 1.4826 * np.median(off, 0) + 0.01
    colours = colours[(off < 2 * spread).all(1)]
    return srgb(colours.astype(np.float32)).astype(np.float64)


def estimate_light(image: U8, points: F64, turn: F64) -> tuple[Light, float]:
    """The light on a face, and how bright the picture is, as a factor of linear light for things of known colour.

    The luminance of the landmarks on the skin is fitted as a constant plus a slope along the surface's normal, which is
    taken from the average face. points (478, 2) in pixels, turn: the head's axis-angle.
    """
    height, width = image.shape[:2]
    normals = _landmark_normals() @ Rotation.from_rotvec(turn).as_matrix().T
    rings = (LEFT_EYE, RIGHT_EYE, LIPS_OUTER, LEFT_BROW_UPPER, RIGHT_BROW_UPPER)
    skin = np.setdiff1d(np.arange(468), np.concatenate(rings))
    where = np.round(points[skin]).astype(int)
    good = (where >= 0).all(1) & (where < [width, height]).all(1) & (normals[skin, 2] > 0.3)
    if good.sum() < 30:
        return Light((0.0, 0.5, 0.866), 0.5), 1.0
    where, facing = where[good], normals[skin][good]
    soft = linear_light(image[where[:, 1], where[:, 0]] / np.float32(255)) @ [0.2126, 0.7152, 0.0722]
    terms = np.concatenate([np.ones((len(facing), 1)), facing[:, :2]], 1)
    weights = np.ones(len(soft))
    for _ in range(4):  # brows, beard and highlights count less
        fit = np.linalg.lstsq(terms * weights[:, None], soft * weights, rcond=None)[0]
        off = np.abs(terms @ fit - soft)
        weights = 1 / np.sqrt(1 + (off / (np.median(off) + 1e-3)) ** 2)
    level = max(float(np.median(soft)), 1e-3)
    slope = np.clip(fit[1:] / level, -1.2, 1.2)
    direction = np.array([slope[0], slope[1] + 0.15, 0.9])
    direction /= np.linalg.norm(direction)
    diffuse = float(np.clip(0.4 + 0.6 * np.linalg.norm(slope), 0.4, 0.9))
    bright = float(np.quantile(linear_light(image[::4, ::4] / np.float32(255)).max(-1), 0.97))
    brightness = float(np.clip(0.6 * level / _AVERAGE_SKIN + 0.4 * bright, 0.12, 1.2))
    return Light((float(direction[0]), float(direction[1]), float(direction[2])), diffuse), brightness


def _landmark_normals() -> F64:
    """Normals (478, 3) of the average face at its landmarks: away from a vertical axis and a little rounded upwards."""
    points = average_face().landmarks - [0, 0, -0.085]
    normals = points * [1, 0.7, 1]
    return np.asarray(normals / np.linalg.norm(normals, axis=1, keepdims=True))


def _share_hidden(mask: U8, ring: F64) -> float:
    """Share of a polygon (N, 2) that the mask hides; what lies outside of the picture doesn't count."""
    low = np.maximum(np.floor(ring.min(0)).astype(int), 0)
    high = np.minimum(np.ceil(ring.max(0)).astype(int) + 1, mask.shape[::-1])
    if (high <= low).any():
        return float("nan")
    area = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    cv2.fillPoly(area, [np.round(ring - low).astype(np.int32)], (1,))
    within = area > 0
    hidden = mask[low[1] : high[1], low[0] : high[0]] >= HIDDEN
    return float(hidden[within].mean()) if within.any() else float("nan")


def _hidden_points(mask: U8, points: F64) -> Bool:
    """Which points (N, 2) lie on hidden pixels; those outside of the picture or nan don't."""
    place = np.round(np.nan_to_num(points, nan=-1)).astype(int)
    inside = (place >= 0).all(1) & (place < mask.shape[::-1]).all(1)
    out = np.zeros(len(points), bool)
    out[inside] = mask[place[inside, 1], place[inside, 0]] >= HIDDEN
    return out


@dataclass(frozen=True)
class OcclusionFiles:
    """What `occlude_video` wrote. All three videos have the same size, times and sound."""

    occluded: Path
    """The video with things before the face."""
    clean: Path
    """The same without them, compressed alike."""
    mask: Path
    """Lossless H.264 in shades of grey: white is hidden; at or over `HIDDEN` counts as hidden. No sound."""
    truth: Path
    """Numbers; see `occlude_video`."""
    frames: int
    """Number of frames."""
    face_hidden: float
    """Mean share of the face that is hidden, over the frames with a face."""
    mouth_hidden: float
    """Mean share of the mouth."""


def occlude_video(
    video: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    seed: int = 0,
    kinds: Sequence[str] = OCCLUDER_KINDS,
    *,
    config: OcclusionConfig | None = None,
    events: Sequence[OcclusionEvent] | None = None,
    on_frame: Callable[[str, int], None] = lambda stage, done: None,
) -> OcclusionFiles:
    """Hide part of the most prominent face of a video, real or synthetic, and write what is true of it.

    Args:
        video: the file to start from; it isn't changed.
        out_dir: folder for occluded.mp4, clean.mp4, mask.mp4 and truth.npz; made if missing, files in it are replaced.
        seed: the same seed gives the same pictures.
        kinds: what may come before the face; see `OCCLUDER_KINDS`.
        config: how it moves and how often it comes; its kinds and frame rate are replaced.
        events: when things are before the face, in order and apart from each other; drawn by default.
        on_frame: called with "tracking" or "occluding" and the number of frames done.

    truth.npz holds, for T frames: `version`, `seed`, `source` (the video's name), `times (T,)` in seconds,
    `landmarks (T, 478, 2)` of the tracker on the clean video in pixels (nan without a face), `confidence (T,)`,
    `kind (T,)` ("" for nothing), `face_hidden (T,)` and `mouth_hidden (T,)` (shares, nan without a face),
    `landmark_hidden (T, 60)` uint8 (`np.unpackbits(..., axis=1)[:, :478]`), `rotation (T, 3)` and `shift (T, 3)` of the
    occluder (see `OccludedFrame`).

    Raises:
        AvfaceError: if a kind is unknown, the video can't be read or has no face, or the folder can't be written.
    """
    check_kinds(kinds)
    source, folder = Path(video), Path(out_dir)
    clip = Clip.open(source)
    if folder.is_dir() and source.resolve().parent == folder.resolve() and source.name in _VIDEO_NAMES:
        raise AvfaceError(f"{source}: would be overwritten; choose another folder than {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AvfaceError(
            f"{folder}: can't be made ({error.strerror}); choose another folder to write to"
        ) from None
    if not os.access(folder, os.W_OK):
        raise AvfaceError(f"{folder}: can't be written to; choose another folder")
    from avface.tracking import track

    try:
        found = track(clip.frames(), on_frame=lambda done: on_frame("tracking", done))
    except AvfaceError as error:
        raise AvfaceError(f"{source}: {error}") from None
    config = replace(config or OcclusionConfig(), kinds=tuple(kinds), frame_rate=clip.info.frame_rate)
    rng = occlusion_rng(seed)
    rows: list[tuple[Any, ...]] = []
    packed: list[U8] = []
    occluded, clean, mask = (folder / name for name in _VIDEO_NAMES)
    times: list[float] = []

    def images() -> Iterator[U8]:
        for frame in clip.frames():
            times.append(frame.time)
            latest.append(frame.image)
            yield frame.image

    latest: list[U8] = []
    with (
        VideoWriter(occluded, sound_from=source) as occluded_writer,
        VideoWriter(clean, sound_from=source) as clean_writer,
        VideoWriter(mask, encoding=EncodingConfig(crf=0, preset="ultrafast")) as mask_writer,
    ):
        for done, frame in enumerate(occlude(images(), found.landmarks, rng, config, events), start=1):
            time = times[-1]
            clean_writer.write(latest.pop(), time)
            occluded_writer.write(frame.image, time)
            mask_writer.write(np.repeat(frame.mask[..., None], 3, 2), time)
            rows.append((frame.kind, frame.face_hidden, frame.mouth_hidden, frame.rotation, frame.shift))
            packed.append(np.packbits(frame.landmark_hidden))
            on_frame("occluding", done)
    kind, face_hidden, mouth_hidden, rotation, shift = (list(column) for column in zip(*rows, strict=True))
    truth = folder / "truth.npz"
    _write_truth(
        truth,
        {
            "version": np.array(TRUTH_VERSION),
            "seed": np.array(seed),
            "source": np.array(source.name),
            "times": np.array(times),
            "confidence": np.asarray(found.confidence[: len(rows)]),
            "kind": np.array(kind),
            "face_hidden": np.array(face_hidden, np.float32),
            "mouth_hidden": np.array(mouth_hidden, np.float32),
            "landmark_hidden": np.array(packed),
            "rotation": np.array(rotation, np.float32),
            "shift": np.array(shift, np.float32),
        },
        found.landmarks,
        len(rows),
    )
    seen = np.isfinite(np.array(face_hidden))
    return OcclusionFiles(
        occluded,
        clean,
        mask,
        truth,
        len(rows),
        float(np.mean(np.array(face_hidden)[seen])) if seen.any() else float("nan"),
        float(np.mean(np.array(mouth_hidden)[seen])) if seen.any() else float("nan"),
    )


_VIDEO_NAMES = ("occluded.mp4", "clean.mp4", "mask.mp4")


def _write_truth(
    path: Path, arrays: dict[str, npt.NDArray[Any]], landmarks: Any, frames: int, block: int = 512
) -> None:
    """Write an .npz; landmarks (frames, 478, 2) are copied block by block and never are in memory as a whole."""

    def entry(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
        return archive.open(f"{name}.npy", "w", force_zip64=True)

    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in arrays.items():
            with entry(archive, name) as file:
                np.lib.format.write_array(file, values, allow_pickle=False)
        with entry(archive, "landmarks") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (frames, 478, 2)}
            np.lib.format.write_array_header_2_0(file, header)
            for start in range(0, frames, block):
                rows = np.asarray(landmarks[start : min(start + block, frames)], "<f4")
                file.write(np.ascontiguousarray(rows).tobytes())
