"""FLAME's own files as a `HeadModel`.

Source: Li, Bolkart, Black, Li, Romero, "Learning a model of facial shape and expression from 4D scans" (2017); the
fields of the file and the order of the computation are those of its public readers (smplx, DECA).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avface.arrays import F64, Floats, Int
from avface.errors import AvfaceError
from avface.head.flame.pickle_reader import is_archive, read_npz, read_pickle
from avface.head.model import HeadModel, UnitRange

SHAPE_COMPONENTS, EXPRESSION_COMPONENTS = 300, 100
"""Columns of a file's shapedirs: those of shape first."""
JOINTS = ("neck", "jaw", "left_eye", "right_eye")
"""FLAME's joints after its root, whose rotation is the head pose here."""
PARENTS = (-1, 0, 1, 1, 1)
"""Parents of root, neck, jaw and eyes in the file."""
JAW_UNITS = ("jawPitch", "jawYaw", "jawRoll")
"""The jaw's rotation as expression units: axis-angle in radians about x (opens), y (to the subject's left), z."""

EXPRESSION_LIMIT = 3.0
"""Largest expression weight in standard deviations."""
JAW_LIMITS = ((-0.05, 0.6), (-0.15, 0.15), (-0.1, 0.1))
"""Radians: slightly below 0 for pressed lips, up to some 30 degrees of opening."""
JAW_SIGMAS = (0.15, 0.03, 0.02)
"""Standard deviations in radians in talking."""

IRIS_ANGLE, PUPIL_ANGLE = 0.51, 0.2
"""Half angles in radians at the eyeball's centre: an iris of 5.9 mm and a pupil of 2.4 mm on a ball of 12 mm."""


@dataclass(frozen=True)
class FlameImportConfig:
    """Numbers of components that are kept of a FLAME file. The defaults are those of DECA and of the paper."""

    shape_components: int = 100
    """Shape components, the most important ones first (300 in the file)."""
    expression_components: int = 50
    """Expression components, the most important ones first (100 in the file)."""

    def __post_init__(self) -> None:
        for name, value, most in (
            ("shape", self.shape_components, SHAPE_COMPONENTS),
            ("expression", self.expression_components, EXPRESSION_COMPONENTS),
        ):
            if not 1 <= value <= most:
                raise AvfaceError(f"{value} {name} components: FLAME has 1 to {most}")


@dataclass(frozen=True)
class FlameFile:
    """The arrays of a FLAME file.

    Shapes: template (V, 3), faces (F, 3), shape_basis (300, V, 3), expression_basis (100, V, 3), corrective_basis
            (36, V, 3), joint_regressor (5, V), skin_weights (V, 5). Metres, y up, z out of the face.
    """

    template: F64
    faces: Int
    shape_basis: F64
    expression_basis: F64
    corrective_basis: F64
    joint_regressor: F64
    skin_weights: F64


def read_flame(path: Path) -> FlameFile:
    """Read FLAME 2020, 2023 or 2023 Open from its .pkl (without executing it) or from an .npz of the same fields.

    Raises:
        AvfaceError: if the file is missing, damaged, holds code, or isn't FLAME; the message names the wrong field.
    """
    fields: dict[str, Any] = dict(read_npz(path)) if is_archive(path) else read_pickle(path)
    template = _numbers(path, fields, "v_template", (None, 3))
    count = len(template)
    components = SHAPE_COMPONENTS + EXPRESSION_COMPONENTS
    directions = _numbers(path, fields, "shapedirs", (count, 3, components))
    correctives = _numbers(path, fields, "posedirs", (count, 3, 9 * len(JOINTS)))
    regressor = _numbers(path, fields, "J_regressor", (len(PARENTS), count))
    weights = _numbers(path, fields, "weights", (count, len(PARENTS)))
    faces = _numbers(path, fields, "f", (None, 3))
    tree = _numbers(path, fields, "kintree_table", (2, len(PARENTS)))[0]
    parents = tuple(-1 if parent in (-1, 2**32 - 1) else int(parent) for parent in tree)
    if parents != PARENTS:
        raise AvfaceError(f"{path}: the parents of its joints are {parents}, FLAME's {PARENTS}")
    if len(faces) == 0 or faces.min() < 0 or faces.max() >= count or (faces != np.round(faces)).any():
        raise AvfaceError(f"{path}: its triangles (f) name vertices that aren't there; download it again")
    if weights.min() < -1e-6 or np.abs(weights.sum(1) - 1).max() > 1e-3:
        raise AvfaceError(f"{path}: its weights don't add up to 1 at every vertex; download it again")
    return FlameFile(
        template,
        faces.astype(np.int64),
        directions[..., :SHAPE_COMPONENTS].transpose(2, 0, 1),
        directions[..., SHAPE_COMPONENTS:].transpose(2, 0, 1),
        correctives.transpose(2, 0, 1),
        regressor,
        weights,
    )


def flame_head(
    flame: FlameFile,
    name: str,
    config: FlameImportConfig | None = None,
    uv: tuple[Floats, Int] | None = None,
) -> HeadModel:
    """The head of a FLAME file, without landmarks and regions.

    Its expression units are the first expression components in standard deviations, "expression_001" on, and the jaw's
    rotation. Eyeballs get an iris and a pupil as parts. uv: points (N, 2) and triangles (F, 3) of them, as of
    `read_uv`.

    Vertices are FLAME's for zero root rotation: with the root turned by R about its joint p they are R (x - p) + p.
    """
    config = config or FlameImportConfig()
    components = config.expression_components
    expression = flame.expression_basis[:components]
    jaw = JOINTS.index("jaw")
    low, high = np.array(JAW_LIMITS).T
    limits = np.full(components, EXPRESSION_LIMIT)
    part_names, face_parts = _parts(flame)
    points, corners = uv or (np.zeros((0, 2)), np.zeros((0, 3), np.int64))
    return HeadModel(
        name,
        template=flame.template,
        shape_basis=flame.shape_basis[: config.shape_components],
        expression_basis=np.concatenate([expression, np.zeros((3, *flame.template.shape))]),
        expression_names=(*(f"expression_{k + 1:03d}" for k in range(components)), *JAW_UNITS),
        joint_names=JOINTS,
        joint_parents=tuple(parent - 1 for parent in PARENTS[1:]),
        joint_regressor=flame.joint_regressor[1:],
        skin_weights=flame.skin_weights,
        faces=flame.faces,
        uv=points,
        uv_faces=corners,
        part_names=part_names,
        face_parts=face_parts,
        regions={"whole": np.ones(len(flame.template), bool)},
        embeddings={},
        gaze_range=np.zeros(4),
        unit_range=UnitRange(
            np.concatenate([-limits, low]),
            np.concatenate([limits, high]),
            np.concatenate([np.ones(components), JAW_SIGMAS]),
        ),
        joint_units={components + axis: (jaw, axis) for axis in range(3)},
        corrective_basis=flame.corrective_basis,
        joints_follow_expression=True,
    )


def read_uv(path: Path, flame: FlameFile) -> tuple[F64, Int]:
    """Texture coordinates (N, 2) with v up, and triangles (F, 3) of them, from FLAME's head_template.obj.

    Only its UVs are used; its vertices are at a body's height.

    Raises:
        AvfaceError: if the file is missing, damaged, or its triangles aren't the model's.
    """
    points: list[tuple[float, float]] = []
    corner_of: dict[tuple[int, int, int], dict[int, int]] = {}
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                words = line.split()
                if words[:1] == ["vt"]:
                    points.append((float(words[1]), float(words[2])))
                elif words[:1] == ["f"]:
                    pairs = [word.split("/") for word in words[1:]]
                    corners = {int(pair[0]) - 1: int(pair[1]) - 1 for pair in pairs}
                    a, b, c = sorted(corners)
                    corner_of[a, b, c] = corners
    except FileNotFoundError:
        raise AvfaceError(f"{path}: no such file") from None
    except OSError as error:
        raise AvfaceError(f"{path}: can't be read ({error.strerror}); choose a file") from None
    except (ValueError, IndexError):
        raise AvfaceError(f"{path}: not an .obj of triangles with texture coordinates; use FLAME's") from None
    try:
        uv_faces = [[corner_of[tuple(sorted(face))][v] for v in face] for face in flame.faces.tolist()]
    except KeyError:
        raise AvfaceError(
            f"{path}: its triangles aren't those of the model; use FLAME's head_template.obj"
        ) from None
    numbers, values = np.array(uv_faces, np.int64), np.array(points, np.float64)
    if numbers.min() < 0 or numbers.max() >= len(values) or not np.isfinite(values).all():
        raise AvfaceError(f"{path}: its triangles name texture coordinates that aren't there") from None
    return values, numbers


def _numbers(path: Path, fields: dict[str, Any], name: str, shape: tuple[int | None, ...]) -> F64:
    """A field as an array of finite numbers of the given shape; None is any size but 0."""
    if name not in fields:
        raise AvfaceError(
            f"{path}: has no {name}, so it isn't FLAME's model; use generic_model.pkl or flame2023.pkl"
        )
    value = fields[name]
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        raise AvfaceError(f"{path}: its {name} is no array of numbers; use FLAME's own file")
    fits = value.ndim == len(shape) and all(
        size > 0 and size == (size if wanted is None else wanted)
        for size, wanted in zip(value.shape, shape, strict=True)
    )
    if not fits:
        wanted = " x ".join("any" if size is None else str(size) for size in shape)
        found = " x ".join(map(str, value.shape)) or "one number"
        raise AvfaceError(f"{path}: its {name} is {found}, but FLAME's is {wanted}; use the whole model")
    numbers = value.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise AvfaceError(f"{path}: its {name} has values that aren't finite; download it again")
    return numbers


def _parts(flame: FlameFile) -> tuple[tuple[str, ...], Int]:
    """Parts of the surface and the part (F,) of every triangle: the skin, and of each eye the ball, iris and pupil."""
    names = ["skin"]
    parts = np.zeros(len(flame.faces), np.int64)
    centres = flame.template[flame.faces].mean(1)
    joints = flame.joint_regressor @ flame.template
    for side in ("left", "right"):
        column = 1 + JOINTS.index(f"{side}_eye")
        ball = (flame.skin_weights[flame.faces, column] > 0.5).all(1)
        arm = centres - joints[column]
        angle = np.arctan2(np.linalg.norm(arm[:, :2], axis=1), arm[:, 2])
        for kind, within in (("eye", np.inf), ("iris", IRIS_ANGLE), ("pupil", PUPIL_ANGLE)):
            parts[ball & (angle < within)] = len(names)
            names.append(f"{side}_{kind}")
    return tuple(names), parts
