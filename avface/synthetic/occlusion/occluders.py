"""Things that come before faces: hands, what hands hold, and what heads wear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from avface.arrays import F32, F64, Floats, Int
from avface.errors import AvfaceError
from avface.synthetic.occlusion.colour_transfer import transfer_colours
from avface.synthetic.occlusion.drawing import (
    Layer,
    Light,
    Surface,
    View,
    draw,
    joined,
    srgb,
)
from avface.synthetic.occlusion.face_pose import FaceShape, average_face
from avface.synthetic.occlusion.hand import HAND_POSES, HandModel, HandPose, load_hand, vary
from avface.synthetic.occlusion.shapes import (
    cloth,
    grid,
    noise,
    plain,
    printed_page,
    random_colour,
    slab,
    tube,
    turned,
)
from avface.synthetic.rendering.sensor import linear_light

OccluderKind = Literal[
    "hand", "microphone", "boom_microphone", "cup", "phone", "paper", "scarf", "sunglasses", "hair"
]
OCCLUDER_KINDS: tuple[str, ...] = get_args(OccluderKind)
WORN_KINDS = ("scarf", "sunglasses", "hair")
"""Kinds that move with the head; the others move freely."""
COMMONNESS = {
    "hand": 5.0,
    "microphone": 2.0,
    "boom_microphone": 1.0,
    "cup": 1.5,
    "phone": 1.5,
    "paper": 1.5,
    "scarf": 1.0,
    "sunglasses": 1.0,
    "hair": 1.0,
}
"""How often each kind is drawn, in proportion to the others asked for."""

_ARM_REACH = 0.65
"""Metres from the wrist to where a sleeve ends: out of the picture."""
_TEXTURE_SAMPLES = 80
"""Texels along a side of the hand's texture for colour transfer."""


@dataclass(frozen=True, eq=False)
class _Arm:
    """A hand in a pose, with its sleeve, in the hand's axes until `rotation` and `shift` place it in the occluder's."""

    model: HandModel
    shape: F64
    pose: HandPose
    texture: F32
    sleeve: Surface
    rotation: F64
    shift: F64
    gloss: float

    def surfaces(self) -> list[Surface]:
        """Hand and sleeve, for everything but their vertices."""
        hand = Surface.of(
            np.asarray(self.model.template, np.float64),
            np.asarray(self.model.faces, np.int64),
            self.model.uv,
            self.texture,
            uv_faces=np.asarray(self.model.uv_faces, np.int64),
            gloss=self.gloss,
        )
        return [hand, self.sleeve]

    def vertices(self, bend: F64) -> F64:
        """Vertices of hand and sleeve; bend (5,) is added to the flexion of the fingers, in radians."""
        share = np.array([0.6, 1.0, 0.6])
        pose = replace(self.pose, flexion=self.pose.flexion + bend[:, None] * share).limited()
        hand = self.model.vertices(self.shape, self.model.rotations(pose))
        return np.concatenate([hand, self.sleeve.vertices]) @ self.rotation.T + self.shift


@dataclass(frozen=True, eq=False)
class Occluder:
    """Something that hides part of a face. It has its own origin, which is put to `target` on the face.

    Axes: x to the viewer's right, y up, z towards the viewer; for worn kinds those of the head. Metres.
    """

    kind: str
    worn: bool
    """Whether it turns with the head."""
    over_mouth: bool
    """Whether it was placed to hide the mouth."""
    target: F64
    """(3,) on the average face."""
    gap: float
    """Metres before the face."""
    way_in: F64
    """(3,) unit vector from the target to where it comes from."""
    parts: tuple[Surface, ...]
    arm: _Arm | None = None
    fine: bool = False
    """Whether parts are thinner than a pixel, so that it is drawn at twice the resolution."""

    @cached_property
    def _whole(self) -> Surface:
        """All surfaces as one; an arm's vertices change from frame to frame."""
        return joined([*self.parts, *(self.arm.surfaces() if self.arm is not None else [])])

    def dressed(self, skin: Floats | None, brightness: float, rng: np.random.Generator) -> Occluder:
        """The occluder in the light and skin of a video, once for a run so that colours stay constant.

        skin: (M, 3) sRGB colours in [0, 1] of the face, shading removed; None leaves the hand's own.
        brightness: factor of linear light for all that isn't skin.
        """
        parts = tuple(replace(part, texture=part.texture * np.float32(brightness)) for part in self.parts)
        arm = self.arm
        if arm is not None:
            sleeve = replace(arm.sleeve, texture=arm.sleeve.texture * np.float32(brightness))
            texture = arm.texture if skin is None else _in_skin(arm.texture, skin, rng)
            arm = replace(arm, texture=texture, sleeve=sleeve)
        return replace(self, parts=parts, arm=arm)

    def draw(
        self,
        view: View,
        light: Light,
        size: tuple[int, int],
        *,
        rotation: F64,
        shift: F64,
        head_turn: F64,
        bend: F64 | None = None,
        edge: float = 0.8,
        resolution: float = 1.0,
    ) -> Layer | None:
        """The occluder as a layer for frames of size (width, height); None when it is out of the picture.

        rotation (3, 3) about its origin and shift (3,) in metres are its own movement, head_turn (3, 3) is the head's,
        bend (5,) the fingers' in radians. edge and resolution as in `avface.synthetic.occlusion.drawing.draw`.
        """
        surface = self._whole
        if self.arm is not None:
            arm = self.arm.vertices(np.zeros(5) if bend is None else bend)
            surface = surface.with_vertices(np.concatenate([*(part.vertices for part in self.parts), arm]))
        hidden_by = None
        if not self.worn:  # follows the face's place, but doesn't turn with it
            surface = surface.moved(rotation, head_turn @ self.target + shift + [0, 0, self.gap])
        else:
            surface = surface.moved(rotation, self.target + shift).moved(head_turn)
            face = average_face()
            shrunk = face.vertices * [0.985, 1.0, 1.0] - [
                0,
                0,
                0.004,
            ]  # people's faces differ: what lies on it stays
            hidden_by = (shrunk @ head_turn.T, face.faces)
        return draw(
            surface,
            view,
            light,
            size,
            hidden_by=hidden_by,
            resolution=max(resolution, 2.0) if self.fine else resolution,
            edge=0.4 if self.fine else edge,
        )


def sample_occluder(
    rng: np.random.Generator, kinds: Sequence[str] = OCCLUDER_KINDS, *, over_mouth: bool = True
) -> Occluder:
    """Draw an occluder of one of the kinds, its form, colours and place on the face.

    over_mouth: place it before the mouth, if the kind can hide it (sunglasses and hair can't be counted on).

    Raises:
        AvfaceError: if a kind is unknown, or there is none.
    """
    check_kinds(kinds)
    chosen = [kind for kind in OCCLUDER_KINDS if kind in kinds]
    if over_mouth and set(chosen) - {"sunglasses", "hair"}:
        chosen = [kind for kind in chosen if kind not in ("sunglasses", "hair")]
    weights = np.array([COMMONNESS[kind] for kind in chosen])
    kind = str(rng.choice(chosen, p=weights / weights.sum()))
    return _MAKERS[kind](rng, over_mouth)


def check_kinds(kinds: Sequence[str]) -> None:
    """Refuse an empty list of occluders and unknown kinds.

    Raises:
        AvfaceError: naming the kind and those there are.
    """
    known = ", ".join(OCCLUDER_KINDS)
    if isinstance(kinds, str) or not kinds:
        raise AvfaceError(f"{kinds!r}: give at least one kind of occluder; there are {known}")
    for kind in kinds:
        if kind not in OCCLUDER_KINDS:
            raise AvfaceError(f"{kind!r}: unknown kind of occluder; there are {known}")


def _in_skin(texture: F32, skin: Floats, rng: np.random.Generator) -> F32:
    """The hand's texture, linear, with the colours of skin (M, 3) sRGB by sliced optimal transport.

    Moved at low resolution; the change is then enlarged, so that creases stay sharp.
    """
    import cv2

    small = cv2.resize(texture, (_TEXTURE_SAMPLES, _TEXTURE_SAMPLES), interpolation=cv2.INTER_AREA)
    before = srgb(small)
    change = transfer_colours(before, skin, rng) - before
    change = cv2.resize(change, texture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    # creases and nails darken dark skin less in absolute terms than light skin
    own = srgb(texture)
    detail = own - cv2.GaussianBlur(own, (0, 0), 4)
    level = float(np.mean(skin)) / float(own.mean())
    return linear_light(np.clip(own - detail + change + detail * min(level, 1.0), 0, 1))


def _place(rng: np.random.Generator, over_mouth: bool, spread: float = 0.012) -> F64:
    """A point (3,) on the face, or on the mouth."""
    face = average_face()
    if over_mouth:
        middle = face.mouth + rng.normal(0, [spread, spread, 0])
    else:
        middle = np.array([rng.uniform(-0.055, 0.055), rng.uniform(-0.07, 0.06), 0.0])
    return np.array([middle[0], middle[1], 0.0])


def _gap(rng: np.random.Generator) -> float:
    """Distance before the face, in metres; the nose is 3 cm of it."""
    return float(rng.uniform(0.035, 0.075))


def _sample_arm(
    rng: np.random.Generator, pose: str, *, from_right: bool, tilt: F64, shift: npt.ArrayLike
) -> _Arm:
    """An arm whose hand is turned by tilt (3, 3) and whose point `shift` in the hand's axes comes to the origin.

    from_right: whether it is the hand that suits an arm from the viewer's right.
    """
    model = load_hand()
    mirrored = from_right
    if mirrored:
        model = model.mirrored()
    shape = np.clip(rng.normal(0, 0.8, model.num_shape), -2, 2)
    at = np.asarray(shift, np.float64) * ([-1, 1, 1] if mirrored else [1, 1, 1])
    rotation = np.asarray(tilt, np.float64)
    return _Arm(
        model,
        shape,
        vary(HAND_POSES[pose], rng),
        linear_light(model.texture / np.float32(255)),
        _sleeve(rng, model, shape),
        rotation,
        -rotation @ at,
        float(rng.uniform(0.15, 0.4)),
    )


def _sleeve(rng: np.random.Generator, model: HandModel, shape: F64) -> Surface:
    """A sleeve about the forearm that begins somewhere between wrist and elbow and leads out of the picture."""
    vertices = model.template + np.tensordot(shape, model.shape_basis, 1)
    start = rng.uniform(0.02, 0.17) if rng.random() < 0.75 else 0.20
    low = vertices[:, 1].min()
    elbow = vertices[vertices[:, 1] < low + 0.02].mean(0)
    along = elbow / np.linalg.norm(elbow)
    on_axis = vertices @ along
    beside = np.linalg.norm(vertices - on_axis[:, None] * along, axis=1)
    lengths = np.concatenate([[start - 0.001, start], np.linspace(start + 0.004, _ARM_REACH, 40)])
    slack = rng.uniform(0.003, 0.014)
    reach = np.array([beside[np.abs(on_axis - min(x, 0.19)) < 0.02].max() for x in lengths])
    radii = np.maximum.accumulate(reach) + slack + 0.02 * np.clip((lengths - 0.15) / 0.2, 0, 1)
    radii[0] -= 0.004  # the hem turns in
    radii += 0.0022 * np.sin(lengths * rng.uniform(60, 160) + rng.uniform(0, 6)) * (lengths > start + 0.01)
    mesh, faces, uv = tube(lengths[:, None] * along, radii, 24)
    folds = np.repeat(np.arange(len(lengths)) > 2, 25) * 0.0015
    angle = np.tile(np.linspace(0, 2 * np.pi, 25), len(lengths))
    axis = np.repeat(lengths, 25)[:, None] * along
    out = (mesh - axis) / np.maximum(np.linalg.norm(mesh - axis, axis=1, keepdims=True), 1e-6)
    ripple = np.sin(3 * angle + 90 * np.repeat(lengths, 25))
    mesh = mesh + out * (folds * ripple)[:, None]
    return Surface.of(mesh, faces, uv, cloth(rng, 128), gloss=0.02)


def _upwards(degrees: float, dorsal: bool, yaw: float = 0.0, pitch: float = 0.0) -> F64:
    """Turn (3, 3) of a hand with its back or palm to the viewer, fingers up, then tilted clockwise by degrees."""
    facing = Rotation.from_euler("y", 180 if dorsal else 0, degrees=True)
    tilt = Rotation.from_euler("xyz", [pitch, yaw, -degrees], degrees=True)
    return np.asarray((tilt * facing).as_matrix())


def _make_hand(rng: np.random.Generator, over_mouth: bool) -> Occluder:
    if over_mouth:
        pose = str(
            rng.choice(
                ["covering", "relaxed", "fist", "pointing", "open_palm", "pinch", "chin_rest"],
                p=[0.3, 0.15, 0.15, 0.1, 0.12, 0.08, 0.1],
            )
        )
    else:
        pose = str(rng.choice([name for name in HAND_POSES if name != "grip"]))
    from_right = bool(rng.random() < 0.5)
    side = -1 if from_right else 1
    # an arm comes from below and from the side; fingers point up and across the face
    degrees = side * rng.uniform(5, 80)
    dorsal = pose in ("covering", "relaxed", "pinch", "fist", "chin_rest") or bool(rng.random() < 0.5)
    if pose == "chin_rest":
        degrees *= 0.4
    if not dorsal:
        from_right = not from_right  # palms to the viewer: the other hand suits this side
    middle = {
        "pointing": (0.02, 0.12, 0.01), "fist": (0.01, 0.075, 0.02), "chin_rest": (0.0, 0.09, 0.02),
        "pinch": (0.03, 0.10, 0.03),
    }.get(pose, (0.0, rng.uniform(0.075, 0.13), 0.0))  # fmt: skip
    tilt = _upwards(degrees, dorsal, yaw=rng.normal(0, 14), pitch=rng.normal(-8, 12))
    arm = _sample_arm(rng, pose, from_right=from_right, tilt=tilt, shift=middle)
    target = _place(rng, over_mouth)
    if pose == "chin_rest" and over_mouth:
        target = target - [0, 0.012, 0]
    down = arm.rotation @ [0.0, -1.0, 0.0]
    return Occluder("hand", False, over_mouth, target, _gap(rng), _leaving(down), (), arm)


def _leaving(direction: F64) -> F64:
    """The way in along a direction, kept in the picture's plane."""
    flat = np.array([direction[0], direction[1], 0.0])
    return np.asarray(flat / max(np.linalg.norm(flat), 1e-6))


def _held(
    rng: np.random.Generator, pose: str, *, rod: float, along: float, dorsal: bool = True
) -> tuple[_Arm, float]:
    """An arm that holds a rod along the y axis, thumb upwards; and where its fingers point, 1 for the viewer's right.

    rod: radius of the rod in metres. along: how far below the origin it is held, in metres.
    dorsal: whether the hand is before the rod and shows its back, or behind it and shows its palm.
    """
    side = 1.0 if rng.random() < 0.5 else -1.0
    left_hand = (side < 0) == dorsal
    thumb = np.array([0.0, -1.0 if left_hand else 1.0, 0.0])
    fingers = np.array([side, 0.0, 0.0])
    axes = np.stack([thumb, fingers, np.cross(thumb, fingers)], 1)
    swing = rng.uniform(0, 60) if dorsal else rng.normal(0, 8)
    turn = Rotation.from_euler("z", side * rng.uniform(15, 50), degrees=True)  # the arm comes from below
    turn = turn * Rotation.from_euler("y", -side * swing, degrees=True)
    arm = _sample_arm(
        rng, pose, from_right=left_hand, tilt=turn.as_matrix() @ axes, shift=(0.005, 0.080, rod + 0.020)
    )
    return replace(arm, shift=arm.shift - np.array([0, along, 0])), side


def _make_microphone(rng: np.random.Generator, over_mouth: bool) -> Occluder:
    ball = rng.uniform(0.022, 0.032)
    length = rng.uniform(0.13, 0.18)
    angle = np.linspace(0, 2.4, 12)
    head = np.stack([ball * np.sin(angle), ball * np.cos(angle)], 1)
    mesh, faces, uv = turned(np.concatenate([[[1e-5, ball]], head[1:], [[ball * 0.72, -ball * 0.9]]]), 28)
    size = 96
    y, x = np.mgrid[:size, :size]
    wire = 0.55 + 0.45 * (np.sin(x * np.pi * 0.75) * np.sin(y * np.pi * 0.75))
    metal = random_colour(rng) * 0.5 if rng.random() < 0.4 else np.full(3, rng.choice([0.12, 0.3, 0.55]))
    grille = Surface.of(mesh, faces, uv, linear_light(np.clip(metal * wire[..., None], 0, 1)), gloss=0.5)
    top = -ball * 0.85
    handle = [
        [ball * 0.78, top], [ball * 0.85, top - 0.004], [ball * 0.85, top - 0.012], [ball * 0.68, top - 0.016],
        [ball * 0.48, top - length], [1e-5, top - length - 0.002],
    ]  # fmt: skip
    mesh, faces, uv = turned(handle, 24)
    body = Surface.of(
        mesh,
        faces,
        uv,
        plain(rng, rng.choice([0.07, 0.12, 0.25, 0.6]) * np.ones(3)),
        gloss=rng.uniform(0.3, 0.7),
    )
    arm, side = _held(rng, "grip", rod=0.013, along=ball + rng.uniform(0.045, 0.09))
    tilt = Rotation.from_euler(
        "xz", [rng.uniform(-35, 5), -side * rng.uniform(-10, 40)], degrees=True
    ).as_matrix()
    parts = tuple(part.moved(tilt) for part in (grille, body))
    arm = replace(arm, rotation=tilt @ arm.rotation, shift=tilt @ arm.shift)
    target = _place(rng, over_mouth, 0.008)
    return Occluder(
        "microphone", False, over_mouth, target, _gap(rng), _leaving(tilt @ [0.0, -1.0, 0.0]), parts, arm
    )


def _make_boom(rng: np.random.Generator, over_mouth: bool) -> Occluder:
    radius, length = rng.uniform(0.018, 0.032), rng.uniform(0.05, 0.13)
    if rng.random() < 0.3:
        radius, length = rng.uniform(0.035, 0.05), rng.uniform(0.02, 0.06)  # a large one in a studio
    t = np.linspace(0, np.pi / 2, 7)
    cap = np.stack([radius * np.sin(t), radius * np.cos(t)], 1)
    cap[0, 0] = 1e-5
    half = np.array([0, length / 2])
    bottom = np.stack([cap[::-1, 0], -cap[::-1, 1]], 1)
    mesh, faces, uv = turned(np.concatenate([cap + half, bottom - half]), 28)
    normals = mesh * [1, 0, 1]
    mesh = mesh + normals * rng.normal(0, 0.02, (len(mesh), 1))
    colour = np.full(3, rng.uniform(0.05, 0.25)) if rng.random() < 0.7 else random_colour(rng)
    foam = Surface.of(mesh, faces, uv, plain(rng, colour, 96, 0.05), gloss=0.02)
    pole, faces, uv = tube(
        np.linspace(0, 1, 12)[:, None] * [0, -1.4, 0], np.full(12, rng.uniform(0.005, 0.011)), 10
    )
    stand = Surface.of(pole, faces, uv, plain(rng, np.full(3, rng.choice([0.08, 0.2, 0.5]))), gloss=0.5)
    angle = rng.choice([rng.uniform(-70, 70), 180 + rng.uniform(-60, 60)], p=[0.75, 0.25])
    tilt = Rotation.from_euler("xz", [rng.uniform(-30, 30), angle], degrees=True).as_matrix()
    head_tilt = Rotation.from_euler("z", angle + rng.normal(0, 20), degrees=True).as_matrix()
    parts = (foam.moved(head_tilt), stand.moved(tilt))
    target = _place(rng, over_mouth, 0.008)
    return Occluder(
        "boom_microphone", False, over_mouth, target, _gap(rng), _leaving(tilt @ [0.0, -1.0, 0.0]), parts
    )


def _make_cup(rng: np.random.Generator, over_mouth: bool) -> Occluder:
    paper = bool(rng.random() < 0.4)
    top, low, height = rng.uniform(0.036, 0.045), rng.uniform(0.026, 0.043), rng.uniform(0.08, 0.12)
    if not paper:
        low = min(low, top)
    wall = [[top, 0.0], [top * 1.02, -0.002], [low, -height + 0.004], [low * 0.93, -height], [1e-5, -height]]
    inside = [[1e-5, -height * 0.25], [top * 0.93, -height * 0.2], [top * 0.97, 0.0]]
    profile = inside + wall
    if paper and rng.random() < 0.6:  # a lid
        profile = [
            [1e-5, 0.008],
            [top * 0.85, 0.008],
            [top * 0.9, 0.002],
            [top * 1.07, 0.0],
            [top * 1.07, -0.006],
            *wall,
        ]
    mesh, faces, uv = turned(profile, 36)
    picture = np.ones((128, 128, 3)) * (
        np.array([0.93, 0.92, 0.9]) if rng.random() < 0.4 else random_colour(rng)
    )
    if rng.random() < 0.6:
        band = slice(*sorted(rng.integers(60, 120, 2)))
        picture[band] = random_colour(rng)
    if rng.random() < 0.4:
        picture[noise(rng, 128, 128, 8) > 0.65] = random_colour(rng)
    gloss = 0.1 if paper else rng.uniform(0.4, 0.8)
    parts = [Surface.of(mesh, faces, uv, linear_light(np.clip(picture, 0, 1)), gloss=gloss)]
    arm, side = _held(rng, "grip", rod=0.5 * (top + low) + 0.008, along=height * rng.uniform(0.5, 0.65))
    arm = replace(
        arm, pose=replace(arm.pose, flexion=arm.pose.flexion - np.array([[0.15]] + 4 * [[0.38]])).limited()
    )
    if not paper:
        t = np.linspace(-0.5, np.pi + 0.5, 14)
        loop = np.stack([-side * (low + 0.024 * np.sin(t)), -height / 2 + 0.03 * np.cos(t), np.zeros(14)], 1)
        mesh, faces, uv = tube(loop, 0.005, 10)
        parts.append(Surface.of(mesh, faces, uv, plain(rng, picture[2, 2]), gloss=gloss))
    tilt = Rotation.from_euler("xz", [rng.uniform(-25, 40), rng.normal(0, 10)], degrees=True).as_matrix()
    centre = np.array([0, height * 0.3, 0])
    arm = replace(arm, rotation=tilt @ arm.rotation, shift=tilt @ (arm.shift + centre))
    down = arm.rotation @ [0.0, -1.0, 0.0] + np.array([0, -0.7, 0])
    return Occluder(
        "cup", False, over_mouth, _place(rng, over_mouth), _gap(rng), _leaving(down),
        tuple(part.moved(tilt, tilt @ centre) for part in parts), arm,
    )  # fmt: skip


def _make_phone(rng: np.random.Generator, over_mouth: bool) -> Occluder:
    width, height, thickness = rng.uniform(0.066, 0.078), rng.uniform(0.135, 0.165), rng.uniform(0.007, 0.010)
    mesh, faces, uv = slab(width, height, thickness, 0.010)
    rows, columns = 256, 256
    picture = np.ones((rows, columns, 3)) * np.clip(random_colour(rng) * 0.6, 0, 1)
    lens = picture[:, : columns // 2]
    for k in range(int(rng.integers(1, 4))):  # the camera on its back
        y, x = np.mgrid[:rows, : columns // 2]
        centre = np.array([28 + 30 * k, 26 + 26 * (k % 2)])
        ring = np.hypot((y - centre[0]) * 0.55, x - centre[1]) * 1.1
        lens[ring < 11] = 0.25
        lens[ring < 9] = 0.03
    if rng.random() < 0.5:
        screen = lens
        screen[:] = 0.03
        lit = rng.random() < 0.5
        for k in range(3):
            screen[8:-8, 5:-5, k] = (
                0.02 if not lit else 0.25 + 0.5 * noise(rng, rows - 16, columns // 2 - 10, 5)
            )
    body = Surface.of(mesh, faces, uv, linear_light(np.clip(picture, 0, 1)), gloss=rng.uniform(0.4, 0.8))
    arm, side = _held(rng, "relaxed", rod=0.008, along=rng.uniform(0.0, 0.05), dorsal=False)
    flexion = np.array([[0.05, 0.2, 0.2]] + 4 * [[0.45, 0.55, 0.35]])
    arm = replace(arm, pose=vary(HandPose(flexion, np.array([0.35, 0.1, 0.03, -0.03, -0.08])), rng, 0.5))
    tilt = Rotation.from_euler(
        "yxz", [rng.normal(0, 12), rng.normal(-8, 10), rng.normal(0, 18)], degrees=True
    ).as_matrix()
    if rng.random() < 0.25:
        tilt = Rotation.from_euler("z", 90 * side, degrees=True).as_matrix() @ tilt
    arm = replace(arm, rotation=tilt @ arm.rotation, shift=tilt @ (arm.shift - [0, 0, 0.010]))
    down = arm.rotation @ [0.0, -1.0, 0.0] + np.array([0, -0.7, 0])
    return Occluder(
        "phone",
        False,
        over_mouth,
        _place(rng, over_mouth),
        _gap(rng),
        _leaving(down),
        (body.moved(tilt),),
        arm,
    )


def _make_paper(rng: np.random.Generator, over_mouth: bool) -> Occluder:
    height = rng.uniform(0.12, 0.26)
    width = height * rng.uniform(0.65, 0.8)
    faces, uv = grid(14, 18)
    across, up = (uv[:, 0] - 0.5).astype(np.float64), (uv[:, 1] - 0.5).astype(np.float64)
    axis = rng.uniform(-0.6, 0.6)
    bend = rng.uniform(-2.0, 2.0)
    along = across * np.cos(axis) + up * np.sin(axis)
    angle = bend * along
    safe = np.where(abs(bend) < 0.05, 0.05, bend)
    z = (1 - np.cos(angle)) / safe * width
    shrink = np.where(np.abs(along) > 1e-6, np.sin(angle) / np.where(np.abs(angle) > 1e-6, angle, 1), 1)
    curl = 0.02 * np.clip(np.abs(up) - 0.3, 0, None) / 0.2 * rng.normal()
    mesh = np.stack([across * width * shrink, up * height, z + curl], 1)
    sheet = Surface.of(mesh, faces, uv, printed_page(rng), gloss=0.05, two_sided=True)
    tilt = Rotation.from_euler(
        "yxz", [rng.normal(0, 15), rng.normal(-10, 14), rng.normal(0, 15)], degrees=True
    ).as_matrix()
    target = _place(rng, over_mouth, 0.02)
    arm = None
    if rng.random() < 0.7:
        from_right = bool(rng.random() < 0.5)
        side = -1 if from_right else 1
        arm = _sample_arm(
            rng,
            "pinch",
            from_right=from_right,
            tilt=tilt @ _upwards(side * rng.uniform(10, 50), True),
            shift=(0.045, 0.11, 0.035),
        )
        corner = np.array([-side * width * rng.uniform(0.1, 0.4), -height / 2 + 0.015, 0.01])
        arm = replace(arm, shift=arm.shift + tilt @ corner)
    way = np.array([rng.normal(0, 0.5), -1.0, 0.0])
    return Occluder("paper", False, over_mouth, target, _gap(rng), _leaving(way), (sheet.moved(tilt),), arm)


def _head_radius(face: FaceShape, angles: F64, heights: F64) -> F64:
    """Distance (H, A) of the head's surface from its vertical axis, by angle from the front and by height."""
    axis = np.array([0.0, -0.07])  # x and z, about the middle of the skull
    skin = np.unique(face.faces)
    points = face.vertices[skin]
    flat = points[:, [0, 2]] - axis
    angle, radius = np.arctan2(*np.ascontiguousarray(flat[:, :2].T)), np.linalg.norm(flat, axis=1)
    out = np.zeros((len(heights), len(angles)))
    for i, height in enumerate(heights):
        for j, direction in enumerate(angles):
            apart = np.abs((angle - direction + np.pi) % (2 * np.pi) - np.pi)
            near = (apart < 0.22) & (np.abs(points[:, 1] - height) < 0.014)
            out[i, j] = radius[near].max() if near.any() else 0.0
    return out


def _make_scarf(rng: np.random.Generator, over_mouth: bool) -> Occluder:
    from scipy.ndimage import gaussian_filter

    face = average_face()
    top = (
        face.nose_tip[1] + rng.uniform(-0.004, 0.016)
        if over_mouth
        else face.mouth[1] - rng.uniform(0.005, 0.03)
    )
    heights = np.linspace(top, top - rng.uniform(0.16, 0.24), 26)
    angles = np.linspace(-np.pi, np.pi, 65)
    radius = _head_radius(face, angles, heights)
    for i in range(1, len(radius)):  # cloth hangs: it goes in only a little below what sticks out
        radius[i] = np.maximum(radius[i], radius[i - 1] - 0.002)
    radius = gaussian_filter(radius, (1.2, 1.6), mode=("nearest", "wrap"))
    folds = np.zeros_like(radius)
    for _ in range(5):
        lean, phase, width = rng.normal(0, 0.02), rng.uniform(0, 6.3), rng.uniform(120, 300)
        folds += rng.uniform(0.3, 1) * np.sin(
            width * (heights[:, None] - lean * np.sin(angles + phase)) + phase
        )
    swell = np.clip(np.linspace(0, 3, len(heights)), 0, 1)[:, None]
    radius = radius + 0.009 + 0.0018 * folds * swell
    radius[0] -= 0.005
    radius[:, -1] = radius[:, 0]
    sag = 0.012 * rng.uniform(0.3, 1) * np.cos(angles) ** 2 * -1
    x, z = radius * np.sin(angles), radius * np.cos(angles) - 0.07
    y = np.broadcast_to(heights[:, None], radius.shape) + sag
    faces, uv = grid(len(heights), len(angles))
    uv = uv * [3.0, 1.0] % 1.0001
    mesh = np.stack([x, y, z], -1).reshape(-1, 3)
    scarf = Surface.of(mesh, faces, uv.astype(np.float32), cloth(rng), gloss=0.02)
    return Occluder("scarf", True, over_mouth, np.zeros(3), 0.0, np.array([0.0, -1.0, 0.0]), (scarf,))


def _make_sunglasses(rng: np.random.Generator, over_mouth: bool) -> Occluder:
    face = average_face()
    wide, high = rng.uniform(0.024, 0.031), rng.uniform(0.017, 0.026)
    square = rng.uniform(2.0, 3.6)
    drop = rng.uniform(-0.3, 0.25)  # aviator or cat's eye
    depth = face.nose_tip[2] - rng.uniform(0.006, 0.010)
    rim = rng.uniform(0.0008, 0.0028)
    colour = random_colour(rng) * 0.35 if rng.random() < 0.7 else np.array([0.75, 0.62, 0.35])
    frame = plain(rng, colour, 16)
    tint = np.clip(np.full(3, rng.uniform(0.02, 0.07)) * rng.uniform(0.6, 1.4, 3), 0, 1)
    fade = np.linspace(0, 1, 32)[:, None, None] * rng.uniform(0, 0.10)
    lens_texture = linear_light(np.broadcast_to(tint + fade, (32, 32, 3)))
    opacity = 1.0 if rng.random() < 0.5 else float(rng.uniform(0.75, 0.95))
    parts: list[Surface] = []
    t = np.linspace(0, 2 * np.pi, 41)
    c, s = np.cos(t), np.sin(t)
    oval = np.stack(
        [wide * np.sign(c) * np.abs(c) ** (2 / square), high * np.sign(s) * np.abs(s) ** (2 / square)], 1
    )
    ends = []
    for eye in (face.right_eye, face.left_eye):
        outwards = np.sign(eye[0])
        outline = oval.copy()
        outline[:, 1] -= (
            drop * outline[:, 1].clip(None, 0) * 0.5 * (1 - 0.5 * outwards * outline[:, 0] / wide)
        )
        centre = np.array([outwards * max(abs(eye[0]) + 0.002, wide + 0.009), eye[1] - 0.003])

        def bent(points: F64, middle: F64 = centre) -> F64:
            flat = points + middle
            return np.stack(
                [flat[:, 0], flat[:, 1], depth - 4.5 * flat[:, 0] ** 2 - 1.5 * (flat[:, 1] - middle[1]) ** 2],
                1,
            )

        shares = np.linspace(0, 1, 6)
        mesh = np.concatenate([bent(outline * share) for share in shares])
        faces, _ = grid(len(shares), len(t))
        uv = np.concatenate([outline * share / [2 * wide, 2 * high] + 0.5 for share in shares])
        parts.append(Surface.of(mesh, faces, uv.astype(np.float32), lens_texture, gloss=0.9, opacity=opacity))
        mesh, faces, uv = tube(bent(outline), rim, 8)
        parts.append(Surface.of(mesh, faces, uv, frame, gloss=0.6))
        tip = bent(np.array([[outwards * wide, high * 0.45], [-outwards * wide * 0.98, high * 0.25]]))
        ends.append(tip[1])
        ear = np.array([outwards * 0.080, tip[0, 1] + 0.002, -0.085])
        hinge = np.array([outwards * max(abs(tip[0, 0]) + 0.004, 0.071), tip[0, 1], tip[0, 2] - 0.008])
        temple = np.stack([tip[0], 0.4 * tip[0] + 0.6 * hinge, hinge, 0.5 * (hinge + ear), ear])
        mesh, faces, uv = tube(temple, max(rim, 0.0014), 8)
        parts.append(Surface.of(mesh, faces, uv, frame, gloss=0.5))
    bridge = np.linspace(ends[0], ends[1], 9) + np.sin(np.linspace(0, np.pi, 9))[:, None] * [0, 0.003, 0.002]
    mesh, faces, uv = tube(bridge, max(rim, 0.0014), 8)
    parts.append(Surface.of(mesh, faces, uv, frame, gloss=0.6))
    return Occluder(
        "sunglasses", True, False, np.zeros(3), 0.0, np.array([0.0, 1.0, 0.0]), tuple(parts), fine=True
    )


_HAIR_COLOURS = (
    (0.10, 0.08, 0.07),
    (0.20, 0.13, 0.09),
    (0.33, 0.22, 0.14),
    (0.55, 0.40, 0.25),
    (0.62, 0.60, 0.58),
)


def _make_hair(rng: np.random.Generator, over_mouth: bool) -> Occluder:
    face = average_face()
    colour = np.array(_HAIR_COLOURS[int(rng.integers(len(_HAIR_COLOURS)))]) * rng.uniform(0.8, 1.2)
    strips: list[tuple[Floats, Int, Floats]] = []
    side = rng.choice([-1.0, 1.0])
    faces, uv = grid(18, 2)
    for _ in range(int(rng.integers(2, 7))):  # locks
        root = np.array([rng.uniform(-0.02, 0.045) * side, face.landmarks[10, 1] + 0.03, 0.0])
        tip = np.array(
            [root[0] + rng.normal(0.012 * side, 0.025), rng.uniform(-0.085, 0.0 if over_mouth else 0.02), 0.0]
        )
        sway, phase = rng.normal(0, 0.012), rng.uniform(0, 3)
        lock = rng.uniform(0.003, 0.011)
        for _ in range(int(rng.integers(16, 50))):
            t = np.linspace(0, rng.uniform(0.7, 1.05), 18)
            own = rng.normal(0, 1, 2)
            x = (
                root[0]
                + (tip[0] - root[0]) * t
                + sway * np.sin(2.5 * t + phase)
                + lock * own[0] * (0.5 + 0.5 * t)
            )
            y = root[1] + (tip[1] - root[1]) * t + 0.002 * own[1]
            bulge = (
                face.nose_tip[2]
                - 0.012
                - 6.5 * x**2
                - 3.0 * np.clip(y - 0.03, 0, None) ** 2
                + 0.008 * np.sin(3 * t)
            )
            z = bulge + 0.003 * own[1] + 0.35 * np.clip(0.02 - np.abs(x), 0, None)
            middle = np.stack([x, y, z], 1)
            half = rng.uniform(0.0005, 0.0010) * np.sqrt(np.clip(1.02 - t / t[-1], 0.05, 1))
            mesh = np.stack([middle - half[:, None] * [1, 0, 0], middle + half[:, None] * [1, 0, 0]], 1)
            mesh[:, :, 2] += rng.uniform(-0.3, 0.3) * (mesh[:, :, 0] - x[:, None])
            shade = np.clip(0.5 + 0.25 * rng.normal(), 0.02, 0.98)
            strips.append((mesh.reshape(-1, 3), faces, np.stack([np.full(36, shade), uv[:, 1]], 1)))
    size = 36
    number = np.concatenate([strip[1] + size * k for k, strip in enumerate(strips)])
    tones = np.linspace(0.55, 1.6, 32)[None, :, None] * np.linspace(0.9, 1.1, 32)[:, None, None]
    texture = linear_light(np.clip(colour * tones, 0, 1))
    hair = Surface.of(
        np.concatenate([strip[0] for strip in strips]),
        number.astype(np.int64),
        np.concatenate([strip[2] for strip in strips]),
        texture,
        gloss=0.3,
        opacity=0.9,
        two_sided=True,
    )
    return Occluder("hair", True, False, np.zeros(3), 0.0, np.array([0.0, 1.0, 0.0]), (hair,), fine=True)


_MAKERS = {
    "hand": _make_hand,
    "microphone": _make_microphone,
    "boom_microphone": _make_boom,
    "cup": _make_cup,
    "phone": _make_phone,
    "paper": _make_paper,
    "scarf": _make_scarf,
    "sunglasses": _make_sunglasses,
    "hair": _make_hair,
}
