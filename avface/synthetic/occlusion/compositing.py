"""Occluders drawn over the face in a sequence of frames, with the occlusion mask.

Source: AVFace (CVPR 2023), sec. 3.4, with the compositing of Voo, Jiang and Loy 2022.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from avface.arrays import F64, U8, Bool
from avface.head.schemes import FACE_OVAL, LIPS_OUTER
from avface.synthetic.occlusion.appearance import estimate_light, face_skin
from avface.synthetic.occlusion.face_pose import FacePoses, face_poses
from avface.synthetic.occlusion.motion import OccluderMotion
from avface.synthetic.occlusion.occluders.average_face import average_face
from avface.synthetic.occlusion.occluders.drawing import Layer, Light, View
from avface.synthetic.occlusion.occluders.sampling import WORN_KINDS, sample_occluder
from avface.synthetic.occlusion.plan import OcclusionConfig, OcclusionEvent, plan_occlusions

OCCLUDED = 128
"""A pixel of a mask at or above this value counts as occluded."""


_COVERING_DRAWS = 12
"""Occluders that are drawn at most until one covers the whole face."""
_COVERING_STEP, _COVERING_STEPS = 1.12, 18
"""Ratio and number of the sizes of an occluder, from its own on, that are tried until it covers the whole face."""
_COVER_CHECKS = 5
"""Number of frames of an event in which the cover of the whole face is checked."""
_CHECKED_FACE, _FACE_SIZE = 64.0, 0.16
"""Pixels across the face in pictures for these checks, and metres across the average face."""
_MAX_DRAWN_SCALE = 1600.0
"""Maximum resolution of drawing in pixels per metre: a face of 260 pixels. For larger faces the layer is upsampled."""


class Landmarks(Protocol):
    """Landmarks (T, 478, 2) in pixels: an array, a list of arrays, or a `FaceTrack`'s, read from disk row by row."""

    def __len__(self) -> int: ...

    def __getitem__(self, frame: int, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...


@dataclass(frozen=True, eq=False)
class OccludedFrame:
    """A frame with an occluder; frames without one have their original image.

    Shapes: image (H, W, 3) uint8 RGB, mask (H, W) uint8 (255 occluded; edges in between), landmark_occluded
            (478,), rotation and shift (3,). Outside of the mask only the occluder's shadow changes the face.
    """

    image: U8
    mask: U8
    face_visibility: float
    """Share of the face's oval that is visible, 1 without an occluder; nan without a face."""
    mouth_visibility: float
    """Share of the lips and of the area between them; nan without a face."""
    landmark_occluded: Bool
    """Whether each landmark lies behind the occluder."""
    kind: str
    """Kind of occluder; empty for none."""
    rotation: F64
    """The occluder's own rotation from its initial pose, axis-angle in radians; nan for none."""
    shift: F64
    """The occluder's own translation in metres, x to the viewer's right, y up, z to the viewer; nan for none."""


def occlude(
    frames: Iterable[U8],
    landmarks: Landmarks,
    rng: np.random.Generator,
    config: OcclusionConfig | None = None,
    events: Sequence[OcclusionEvent] | None = None,
) -> Iterator[OccludedFrame]:
    """Draw occluders over the face in a sequence of frames, one frame at a time.

    Args:
        frames: (H, W, 3) uint8 RGB, all of one size; real or rendered.
        landmarks: (T, 478, 2) pixels of the clean frames, nan where there is no face; anything with a length whose
            rows are arrays.
        rng: Source of all random numbers.
        config: Kinds, frequency, duration and motion of occluders.
        events: The plan, in order and without overlap; random by default.

    Memory grows by 80 bytes a frame.

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
    """Which landmarks would be occluded, without any pictures: (ceil(T / every), 478) for every n-th of the T frames.

    Occluders and their motion are those of `occlude` with the same arguments; nearly the same for pictures of another
    size. image_size is the width and height in pixels.

    Raises:
        AvfaceError: if there is no face in any frame.
    """
    poses = face_poses(landmarks)
    on_head, free = poses.smoothed(0.8), poses.smoothed(4.0 * config.frame_rate / 25)
    covered = np.zeros((-(-len(poses) // every), 478), bool)
    blank = np.zeros((image_size[1], image_size[0], 3), np.uint8)
    skin = np.full((6000, 3), 0.5)  # any: the number of random draws doesn't depend on the colours
    for event in events:
        light = Light((0.0, 0.5, 0.866), 0.5)
        run = _OcclusionRun(rng, config, event, skin, light, 1.0, free, image_size)
        for index in range(-(-event.start // every) * every, event.stop, every):
            layer, _, _ = run.draw(index, on_head if run.occluder.worn else free, image_size)
            if layer is not None:
                _, mask = run.compose(blank, layer, None, 1.0)
                covered[index // every] = _occluded_points(mask, np.asarray(landmarks[index], np.float64))
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
    run: _OcclusionRun | None = None
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
            run = _OcclusionRun(
                rng, config, event, skin, light, brightness, free, (image.shape[1], image.shape[0])
            )
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
            _visible_share(mask, points[FACE_OVAL]) if seen else np.nan,
            _visible_share(mask, points[LIPS_OUTER]) if seen else np.nan,
            _occluded_points(mask, points),
            run.occluder.kind if run is not None and visible else "",
            rotation,
            shift,
        )


class _OcclusionRun:
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
        self.event, self._light, self._shadow = event, light, config.shadow
        over_mouth = bool(rng.random() < config.mouth_share)
        kinds = config.kinds
        if config.whole_face:
            kinds = tuple(kind for kind in kinds if kind not in WORN_KINDS)
        self._camera_distance = 1.0
        self._edge_blur = 0.7
        for _ in range(_COVERING_DRAWS if config.whole_face else 1):
            occluder = sample_occluder(rng, kinds, over_mouth=over_mouth)
            self.occluder = occluder.colour_matched(skin, brightness, rng)
            if config.whole_face and self._cover_face(rng, config, poses, size):
                break
        self._camera_distance = float(rng.uniform(0.45, 1.1))
        self._edge_blur = float(rng.uniform(0.45, 0.9))
        self._grain_rng = np.random.default_rng(int(rng.integers(2**31)))
        self._grain = rng.uniform(0.3, 2.2) * self._grain_rng.standard_normal((256, 256), np.float32)
        if not config.whole_face:
            self._motion = OccluderMotion.sample(rng, config, event, self.occluder, poses, size)

    def _cover_face(
        self, rng: np.random.Generator, config: OcclusionConfig, poses: FacePoses, size: tuple[int, int]
    ) -> bool:
        """Enlarge the occluder over the middle of the face until it covers all of it between its ramps; whether it does
        so at all: there may be gaps between fingers."""
        event = self.event
        face = average_face().landmarks
        middle = np.append(0.5 * (face.min(0) + face.max(0))[:2], 0.0)
        seed = int(rng.integers(2**31))
        ramp = event.ramp or 0
        first = min(event.start + ramp, event.stop - 1)
        last = max(event.stop - 1 - ramp, first)
        frames = np.unique(np.linspace(first, last, _COVER_CHECKS).astype(int)).tolist()
        shrink = min(1.0, _CHECKED_FACE / (_FACE_SIZE * float(poses.scale[first])))
        small = FacePoses(shrink * (poses.centre + 0.5) - 0.5, shrink * poses.scale, poses.turn, poses.seen)
        small_size = max(round(shrink * size[0]), 16), max(round(shrink * size[1]), 16)

        def covers(step: int) -> bool:
            self.occluder = replace(self.occluder, target=middle, size=_COVERING_STEP**step)
            motion_rng = np.random.default_rng(seed)
            self._motion = OccluderMotion.sample(motion_rng, config, event, self.occluder, poses, size)
            return all(self._covers(index, face, small, small_size) for index in frames)

        return covers(bisect_left(range(_COVERING_STEPS - 1), True, key=covers))

    def _covers(self, index: int, face: F64, poses: FacePoses, size: tuple[int, int]) -> bool:
        """Whether the average face's landmarks (478, 3), somewhat enlarged, lie behind the occluder in a frame, as far
        as they are within the picture."""
        turned = face @ Rotation.from_rotvec(poses.turn[index]).as_matrix().T
        middle = turned.mean(0)
        turned = middle + 1.15 * (turned - middle)
        points = poses.centre[index] + poses.scale[index] * turned[:, :2] * [1, -1]
        inside = ((points > -0.5) & (points < np.array(size) - 0.5)).all(1)
        layer, _, _ = self.draw(index, poses, size)
        if layer is None:
            return not inside.any()
        place = np.round(points[inside]).astype(int) - [layer.left, layer.top]
        drawn = ((place >= 0) & (place < layer.alpha.shape[::-1])).all(1)
        return bool(drawn.all() and (255 * layer.alpha[place[:, 1], place[:, 0]] >= OCCLUDED).all())

    def draw(self, index: int, poses: FacePoses, size: tuple[int, int]) -> tuple[Layer | None, F64, F64]:
        """The layer of frame `index`, with the occluder's own rotation (3,) as axis-angle and shift (3,)."""
        head_rotation = Rotation.from_rotvec(poses.turn[index]).as_matrix()
        rotation, shift, flexion = self._motion.at(index, head_rotation)
        scale = float(poses.scale[index])
        centre = (float(poses.centre[index, 0]), float(poses.centre[index, 1]))
        resolution = float(np.clip(_MAX_DRAWN_SCALE / scale, 0.4, 2))
        layer = self.occluder.draw(
            View(centre, scale, self._camera_distance),
            self._light,
            size,
            rotation=Rotation.from_rotvec(rotation).as_matrix(),
            shift=shift,
            head_rotation=head_rotation,
            flexion=flexion,
            edge=self._edge_blur / min(resolution, 1.0),
            resolution=resolution,
        )
        return layer, rotation, shift

    def compose(self, image: U8, layer: Layer, points: F64 | None, scale: float) -> tuple[U8, U8]:
        """The frame with the layer over it, and the mask (H, W) of the layer."""
        height, width = image.shape[:2]
        top, left = max(layer.top, 0), max(layer.left, 0)
        bottom = min(layer.top + layer.alpha.shape[0], height)
        right = min(layer.left + layer.alpha.shape[1], width)
        mask = np.zeros((height, width), np.uint8)
        if bottom <= top or right <= left:
            return image, mask
        inside = np.s_[top - layer.top : bottom - layer.top, left - layer.left : right - layer.left]
        alpha = np.where(layer.alpha < 0.02, 0, layer.alpha)[inside]
        blur = 0.5 * self._edge_blur + 0.1
        colour: Any = cv2.GaussianBlur(np.ascontiguousarray(layer.colour[inside]), (0, 0), blur)
        mask[top:bottom, left:right] = np.round(255 * alpha)
        out = image.copy()
        if points is not None and self._shadow > 0:
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
        window[:] = cv2.convertScaleAbs(np.maximum(colour, 0, out=colour))  # rounds and saturates at 255
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
        factor = cv2.resize(1 - self._shadow * cover * skin, (high[0] - low[0], high[1] - low[1]))
        out[window] = cv2.convertScaleAbs(out[window] * factor[..., None])


def _visible_share(mask: U8, ring: F64) -> float:
    """Share of a polygon (N, 2) that the mask leaves visible; what lies outside of the image doesn't count."""
    low = np.maximum(np.floor(ring.min(0)).astype(int), 0)
    high = np.minimum(np.ceil(ring.max(0)).astype(int) + 1, mask.shape[::-1])
    if (high <= low).any():
        return float("nan")
    area = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    cv2.fillPoly(area, [np.round(ring - low).astype(np.int32)], (1,))
    within = area > 0
    visible = mask[low[1] : high[1], low[0] : high[0]] < OCCLUDED
    return float(visible[within].mean()) if within.any() else float("nan")


def _occluded_points(mask: U8, points: F64) -> Bool:
    """Which points (N, 2) lie on occluded pixels; those outside of the image or nan don't."""
    place = np.round(np.nan_to_num(points, nan=-1)).astype(int)
    inside = (place >= 0).all(1) & (place < mask.shape[::-1]).all(1)
    out = np.zeros(len(points), bool)
    out[inside] = mask[place[inside, 1], place[inside, 0]] >= OCCLUDED
    return out
