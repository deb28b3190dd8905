"""`Capture`: the result of a clip, and its file."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from avface.arrays import F32, F64, Bool, Floats, Int, Ints
from avface.errors import AvfaceError
from avface.files import replacing

if TYPE_CHECKING:
    from avface.geometry.camera import Camera
    from avface.head.model import HeadModel
    from avface.head.morphs import MorphMotion, MorphTargets
    from avface.head.skin.subdivision import DetailedSurface

CAPTURE_VERSION = 2
EXPORTERS = "avface.exporters"
"""Entry point group in which exporters register, by suffix; other packages can add theirs."""

Frames = int | slice | Sequence[int] | Ints | None
Space = Literal["image", "camera", "head"]
Stage = Literal["coarse", "lips", "detail"]


@dataclass(frozen=True)
class Capture:
    """One person's head over a clip: one shape, and a pose and an expression for every frame of the video.

    T video frames, S shape components, E expression units, J joints, N segments between shot cuts.
    Axes:  camera x right, y down, z forward; head x to the subject's left, y up, z out of the face. A head point x is
           at R(rotation) x + translation in the camera; a face that looks straight into it has rotation (pi, 0, 0).
    """

    head: str
    """Name of the head model, or the path of its file."""
    shape: F32
    """(S,) shape weights in standard deviations."""
    expression: F32
    """(T, E) weights of the expression units: 0 to 1 for the open head, else within the head's `unit_range`."""
    expression_names: tuple[str, ...]
    """The E units, ARKit's names for the open head."""
    rotation: F32
    """(T, 3) axis-angle in radians, head to camera; continuous in time, so its length can pass pi."""
    translation: F32
    """(T, 3) metres, the head's origin in the camera."""
    joints: F32
    """(T, J, 3) axis-angle in radians of the head's joints (neck, eyes)."""
    joint_names: tuple[str, ...]
    """The J joints."""
    focal_length: float
    """Pixels; the same for x and y."""
    principal_point: tuple[float, float]
    """Pixels (x, y)."""
    image_size: tuple[int, int]
    """Pixels (width, height) of the upright video."""
    times: F64
    """(T,) seconds; 0 is the first frame. Not evenly spaced where the video isn't."""
    confidence: F32
    """(T,) 0 to 1: how well the face was seen. 0 marks frames without an observation, filled in by the solver."""
    visibility: F32 = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """(T, R) 0 to 1: how much of each region of the face could be seen, and so was fitted to the picture rather than
    filled in. Empty where nobody looked for what is hidden."""
    visibility_regions: tuple[str, ...] = ()
    """The R regions: lips, jaw, brows, eyes, nose, cheeks."""
    landmark_bias: F32 = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    """(L, 3) metres in the head's axes from where MediaPipe's L landmarks are on average to where the tracker puts them
    on this person. Empty for a capture that wasn't tracked."""
    lip_vertices: Int = field(default_factory=lambda: np.zeros(0, np.int64))
    """(P,) ascending numbers of the vertices that the lip refinement moves; empty where there is none."""
    lip_basis: F32 = field(default_factory=lambda: np.zeros((0, 0, 3), np.float32))
    """(L, P, 3) ways in which the lips of this clip move beyond the expression units: metres in the head's axes, on the
    shaped head before any joint turns."""
    lip_weights: F32 = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """(T, L) weights of `lip_basis`, 0 where nobody speaks; (0, 0) without lip refinement."""
    detail_static: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float16))
    """(R, R) metres along the normals of the skin by which its folds are off the head's mesh as a rule: texels of the
    face's window of the uv square (`avface.head.skin.atlas`). Empty where there is no detail."""
    detail_basis: Floats = field(default_factory=lambda: np.zeros((0, 0, 0), np.float16))
    """(D, R, R) ways in which they change, metres."""
    detail_weights: F32 = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """(T, D) weights of `detail_basis`; (0, 0) without detail."""
    segment_starts: Int = field(default_factory=lambda: np.zeros(1, np.int64))
    """(N,) first frames of the stretches between shot cuts; the first is 0."""
    segment_same_person: Bool = field(default_factory=lambda: np.ones(1, bool))
    """(N,) whether a stretch shows the captured person; elsewhere confidence is 0."""
    source: str = ""
    """The video, as it was named to avface."""
    provenance: dict[str, str] = field(default_factory=dict)
    """Which part of avface, in which version, each piece came from."""

    def __post_init__(self) -> None:
        frames = len(self.times)
        expected = {
            "expression": (frames, len(self.expression_names)),
            "rotation": (frames, 3),
            "translation": (frames, 3),
            "joints": (frames, len(self.joint_names), 3),
            "confidence": (frames,),
            "segment_same_person": (len(self.segment_starts),),
        }
        if self.visibility_regions:
            expected["visibility"] = (frames, len(self.visibility_regions))
        expected["landmark_bias"] = (478 if self.landmark_bias.size else 0, 3)
        ways = self.lip_basis.shape[:1]
        expected["lip_basis"] = (*ways, *self.lip_vertices.shape, 3)
        expected["lip_weights"] = (frames, *ways) if self.lip_vertices.size else (0, 0)
        side, changes = len(self.detail_static), self.detail_basis.shape[:1]
        expected["detail_static"] = (side, side)
        expected["detail_basis"] = (*changes, side, side)
        expected["detail_weights"] = (frames, *changes) if side else (0, 0)
        for name, size in expected.items():
            if getattr(self, name).shape != size:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {size}")
        numbers = self.lip_vertices
        if numbers.dtype.kind not in "iu" or (np.diff(numbers, prepend=-1) <= 0).any():
            raise ValueError("lip_vertices must be whole numbers, ascending from 0 or more")
        lips, detail = ("lip_basis", "lip_weights"), ("detail_static", "detail_basis", "detail_weights")
        for name in ("landmark_bias", *lips, *detail):
            values = getattr(self, name)
            if values.dtype.kind != "f" or not np.isfinite(values).all():
                raise ValueError(f"{name} must be finite numbers")

    def __len__(self) -> int:
        """Number of video frames T."""
        return len(self.times)

    @functools.cached_property
    def head_model(self) -> HeadModel:
        """The head model, read when first needed."""
        from avface.head import load_head

        return load_head(self.head)

    @property
    def camera(self) -> Camera:
        """The camera that saw the clip."""
        from avface.geometry.camera import Camera

        return Camera(self.focal_length, self.principal_point, *self.image_size)

    @property
    def faces(self) -> Int:
        """Triangles (F, 3) of the mesh."""
        return self.head_model.faces.cpu().numpy()

    @property
    def frame_rate(self) -> float:
        """Frames a second on average; 0 for a single frame."""
        span = float(self.times[-1] - self.times[0]) if len(self) > 1 else 0.0
        return (len(self) - 1) / span if span > 0 else 0.0

    def vertices(
        self,
        frames: Frames = None,
        space: Literal["camera", "head"] = "camera",
        stage: Stage | None = None,
    ) -> F32:
        """Vertices (T, V, 3) in metres of the chosen frames (all by default), in the camera's or the head's frame.

        stage: "coarse" for shape and expression alone, "lips" with the lip refinement, where there is one; by default
        with everything there is. Detail is finer than this mesh, which it leaves as it is; see `detailed_vertices`.

        Raises:
            AvfaceError: if the lips are of another head.
            ValueError: if the space or the stage is unknown.
        """
        if space not in ("camera", "head"):
            raise ValueError(f"space={space!r}; vertices are given in 'camera' or 'head'")
        rows = self._rows(frames)
        vertices = self._head_vertices(rows, stage)
        return self._to_camera(vertices, rows) if space == "camera" else vertices

    @property
    def has_detail(self) -> bool:
        """Whether the fine stage has been here."""
        return bool(self.detail_static.size)

    def displacement(self, frames: Frames = None) -> F32:
        """Displacement (T, R, R) in metres of the skin along the mesh's normals, in the chosen frames, all by default.

        Texels are those of `avface.head.skin.atlas.DetailAtlas`. (T, 0, 0) without detail.
        """
        rows = self._rows(frames)
        found = np.repeat(self.detail_static[None].astype(np.float32), len(rows), 0)
        if len(self.detail_basis):
            found += np.tensordot(self.detail_weights[rows], self.detail_basis.astype(np.float32), 1)
        return found

    @functools.cached_property
    def detailed_surface(self) -> DetailedSurface:
        """The mesh, fine enough for the folds of the skin.

        Raises:
            AvfaceError: if the capture has no detail, or its head no face that it could be about.
        """
        from avface.head.skin.subdivision import DetailedSurface

        if not self.has_detail:
            raise AvfaceError(
                f"{self.source or self.head}: the capture has no detail; reconstruct with --stages coarse,detail"
            )
        return DetailedSurface(self.head_model, len(self.detail_static))

    def detailed_vertices(self, frames: Frames = None, space: Literal["camera", "head"] = "camera") -> F32:
        """Vertices (T, N, 3) in metres of `detailed_surface` in the chosen frames, with all that there is.

        Raises:
            AvfaceError: if the capture has no detail.
            ValueError: if the space is unknown.
        """
        import torch

        surface = self.detailed_surface
        points = torch.as_tensor(self.vertices(frames, space))
        with torch.inference_mode():
            return surface.vertices(points, torch.as_tensor(self.displacement(frames))).numpy()

    def landmarks(
        self,
        frames: Frames = None,
        scheme: Literal["mediapipe478", "ibug68"] = "mediapipe478",
        space: Space = "image",
        stage: Stage | None = None,
    ) -> F32:
        """Landmarks of the chosen frames: (T, L, 2) pixels of the video, or (T, L, 3) metres in camera or head.

        They are points of the surface, moved by `landmark_bias` to where the tracker puts them on this person; those in
        the image are the projections of those in the camera. stage: as for `vertices`.

        Raises:
            AvfaceError: if the head has no such scheme.
            ValueError: if the space or the stage is unknown.
        """
        if space not in ("image", "camera", "head"):
            raise ValueError(f"space={space!r}; landmarks are given in 'image', 'camera' or 'head'")
        import torch

        rows = self._rows(frames)
        from avface.head.schemes import ibug68_from_mediapipe

        embedding = self.head_model.embedding(scheme)
        points = np.empty((len(rows), len(embedding.triangles), 3), np.float32)
        block = 256  # so that the mesh of a long clip never stands in memory as a whole
        for start in range(0, len(rows), block):
            part = self._head_vertices(rows[start : start + block], stage)[:, embedding.triangles]
            points[start : start + block] = np.einsum("tlkc,lk->tlc", part, embedding.barycentric)
        if len(self.landmark_bias):
            points += (
                self.landmark_bias if scheme == "mediapipe478" else ibug68_from_mediapipe(self.landmark_bias)
            )
        if space == "head":
            return points
        points = self._to_camera(points, rows)
        if space == "camera":
            return points
        return self.camera.project(torch.as_tensor(points)).numpy()

    def morphs(self) -> tuple[MorphTargets, MorphMotion]:
        """The head as scene files know it: morph targets and their motion; see `avface.head.morphs`.

        The last ones are the lip refinement's, named lips_0, lips_1 and so on, where there is one.

        Raises:
            AvfaceError: if the lips are of another head.
        """
        from avface.head.morphs import morph_motion, morph_targets

        head = self.head_model
        targets = morph_targets(head)
        motion = morph_motion(head, targets, self.shape, self.expression, self.joints)
        if not len(self.lip_vertices):
            return targets, motion
        self._check_lips()
        lips = np.zeros((len(self.lip_basis), head.num_vertices, 3), np.float32)
        lips[:, self.lip_vertices] = self.lip_basis
        names = tuple(f"lips_{number}" for number in range(len(lips)))
        return (
            replace(targets, names=targets.names + names, offsets=np.concatenate([targets.offsets, lips])),
            replace(motion, weights=np.concatenate([motion.weights, self.lip_weights], 1)),
        )

    def export(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write the capture in the format of the path's suffix (.glb, .usdc, .csv, .ply, .obj, .mp4, .html, ...).

        Options are the exporter's own. Returns the path written.

        Raises:
            AvfaceError: if no exporter knows the suffix or the file can't be written.
        """
        path = Path(path)
        return find_exporter(path)(self, path, **options)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the capture as one .npz without pickles (keys in docs/capture-file.md); returns its path.

        Raises:
            AvfaceError: if it can't be written.
        """
        path = Path(path)
        arrays: dict[str, Any] = {"capture_version": np.array(CAPTURE_VERSION)}
        for item in fields(self):
            value = getattr(self, item.name)
            arrays[item.name] = np.array(json.dumps(value)) if isinstance(value, dict) else np.asarray(value)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Capture:
        """Read a capture file.

        Raises:
            AvfaceError: if the file is missing, damaged, not a capture or of a newer version.
        """
        path = Path(path)
        try:
            with np.load(path, allow_pickle=False) as archive:
                data = {key: archive[key] for key in archive.files}
        except FileNotFoundError:
            raise AvfaceError(f"{path}: no such capture; make one with 'avface reconstruct'") from None
        except Exception as error:  # zipfile, zlib and numpy raise a family of errors on damaged files
            raise AvfaceError(f"{path}: damaged or not a capture ({error}); make it again") from None
        version = data.pop("capture_version", None)
        if version is None or version.shape or version.dtype.kind not in "iu":
            raise AvfaceError(f"{path}: an .npz, but not a capture; make one with 'avface reconstruct'")
        if int(version) != CAPTURE_VERSION:
            raise AvfaceError(f"{path}: capture version {int(version)}; this avface reads {CAPTURE_VERSION}")
        try:
            return cls(
                head=str(data["head"]),
                shape=data["shape"],
                expression=data["expression"],
                expression_names=tuple(map(str, data["expression_names"])),
                rotation=data["rotation"],
                translation=data["translation"],
                joints=data["joints"],
                joint_names=tuple(map(str, data["joint_names"])),
                focal_length=float(data["focal_length"]),
                principal_point=(float(data["principal_point"][0]), float(data["principal_point"][1])),
                image_size=(int(data["image_size"][0]), int(data["image_size"][1])),
                times=data["times"],
                confidence=data["confidence"],
                **_optional(data),
                landmark_bias=data["landmark_bias"],
                segment_starts=data["segment_starts"],
                segment_same_person=data["segment_same_person"],
                source=str(data["source"]),
                provenance=dict(json.loads(str(data["provenance"]))),
            )
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise AvfaceError(f"{path}: incomplete capture ({error}); make it again") from None

    def select(self, frames: Frames) -> Capture:
        """The capture of some frames only; times start where they started."""
        rows = self._rows(frames)
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in self._by_frame},
            segment_starts=np.zeros(1, np.int64),
            segment_same_person=np.ones(1, bool),
        )

    @property
    def _by_frame(self) -> tuple[str, ...]:
        """The arrays with one row a frame."""
        always = ("expression", "rotation", "translation", "joints", "times", "confidence")
        seen = ("visibility",) if self.visibility_regions else ()
        lips = ("lip_weights",) if len(self.lip_vertices) else ()
        detail = ("detail_weights",) if self.has_detail else ()
        return (*always, *seen, *lips, *detail)

    def _rows(self, frames: Frames) -> Int:
        every = np.arange(len(self))
        return every if frames is None else np.atleast_1d(every[frames])

    def _head_vertices(self, rows: Int, stage: Stage | None) -> F32:
        import torch

        if stage not in (None, *get_args(Stage)):
            raise ValueError(f"stage={stage!r} must be one of {', '.join(map(repr, get_args(Stage)))}")
        head = self.head_model
        shape, expression, joints = (
            torch.as_tensor(values) for values in (self.shape[None], self.expression[rows], self.joints[rows])
        )
        with torch.inference_mode():
            offsets = None
            if stage != "coarse" and len(self.lip_vertices):
                self._check_lips()
                offsets = torch.zeros(len(rows), head.num_vertices, 3)
                moved = np.tensordot(self.lip_weights[rows], self.lip_basis, 1)
                offsets[:, torch.as_tensor(self.lip_vertices)] = torch.as_tensor(moved, dtype=offsets.dtype)
            vertices = head(shape, expression, joints, offsets)
        return np.asarray(vertices.numpy())

    def _check_lips(self) -> None:
        if self.lip_vertices[-1] >= self.head_model.num_vertices:
            raise AvfaceError(
                f"{self.source or self.head}: the capture's lips have vertex {self.lip_vertices[-1]}, its head "
                f"{self.head} only {self.head_model.num_vertices}; name the head file that the capture was made with"
            )

    def _to_camera(self, points: F32, rows: Int) -> F32:
        import torch

        from avface.geometry.camera import transform
        from avface.geometry.rotations import rotvec_to_rotmat

        rotation = rotvec_to_rotmat(torch.as_tensor(self.rotation[rows]))
        return transform(torch.as_tensor(points), rotation, torch.as_tensor(self.translation[rows])).numpy()


def _optional(data: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """What captures of earlier versions of avface don't have."""
    found: dict[str, Any] = {}
    if "visibility" in data:
        regions = tuple(map(str, data["visibility_regions"]))
        found |= {"visibility": data["visibility"], "visibility_regions": regions}
    if "lip_vertices" in data:
        found |= {name: data[name] for name in ("lip_vertices", "lip_basis", "lip_weights")}
    if "detail_static" in data:
        found |= {name: data[name] for name in ("detail_static", "detail_basis", "detail_weights")}
    return found


def find_exporter(path: Path) -> Callable[..., Path]:
    """The exporter registered for a path's suffix: `(capture, path, **options) -> path`.

    Raises:
        AvfaceError: if none is; the message lists what there is.
    """
    known = {entry.name: entry for entry in metadata.entry_points(group=EXPORTERS)}
    entry = known.get(path.suffix.lower().lstrip("."))
    if entry is None:
        suffixes = ", ".join(f".{name}" for name in sorted(known))
        raise AvfaceError(
            f"{path}: can't export to {path.suffix or 'a name without suffix'!r}; use {suffixes}"
        )
    exporter: Callable[..., Path] = entry.load()
    return exporter
