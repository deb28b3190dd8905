"""`Capture`: the result of a reconstruction, and the capture file: file keys are its fields and those of layers."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from avface import __version__
from avface.arrays import F32, F64, Bool, Int, Ints
from avface.capture.detail_layer import DetailLayer
from avface.capture.exporters import find_exporter
from avface.capture.layer import Layer
from avface.capture.layers import LAYERS, shown_layers
from avface.capture.lip_layer import LipLayer
from avface.errors import AvfaceError
from avface.files import replacing
from avface.frame_times import nominal_frame_rate
from avface.open_head import FIRST_OPEN_DIGEST, OPEN_DIGEST, OPEN_NAME

if TYPE_CHECKING:
    from avface.geometry.camera import Camera
    from avface.head.model import HeadModel
    from avface.head.morphs import MorphMotion, MorphTargets
    from avface.head.skin.subdivision import DetailedSurface

CAPTURE_VERSION = 2

Frames = int | slice | Sequence[int] | Ints | None
Space = Literal["image", "camera", "head"]
LayerT = TypeVar("LayerT", bound=Layer)


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
    """Names of the E units; ARKit's for the open head."""
    rotation: F32
    """(T, 3) axis-angle in radians, head to camera; continuous in time, so its length can pass pi."""
    translation: F32
    """(T, 3) metres, the head's origin in the camera."""
    joints: F32
    """(T, J, 3) axis-angle in radians of the joints (neck, eyes)."""
    joint_names: tuple[str, ...]
    """Names of the J joints."""
    focal_length: float
    """Pixels; the same for x and y."""
    principal_point: tuple[float, float]
    """Pixels (x, y)."""
    image_size: tuple[int, int]
    """Pixels (width, height) of the upright video."""
    times: F64
    """(T,) seconds; 0 is the first frame. Not evenly spaced where the video isn't."""
    confidence: F32
    """(T,) 0 to 1: confidence of the tracked face. 0 marks frames without an observation, filled in by the solver."""
    visibility: F32 = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """(T, R) 0 to 1: visible share of each region of the face, which was fitted to the picture rather than filled in.
    Empty if visibility wasn't estimated."""
    visibility_regions: tuple[str, ...] = ()
    """Names of the R regions: lips, jaw, brows, eyes, nose, cheeks."""
    landmark_bias: F32 = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    """(L, 3) metres in the head's axes: offset of the tracker's L landmarks on this person from the head model's
    embedding. Empty for a capture that wasn't tracked."""
    segment_starts: Int = field(default_factory=lambda: np.zeros(1, np.int64))
    """(N,) first frames of the segments between shot cuts; the first is 0."""
    segment_same_person: Bool = field(default_factory=lambda: np.ones(1, bool))
    """(N,) whether a segment shows the captured person; elsewhere confidence is 0."""
    source: str = ""
    """Path of the video, as it was given."""
    provenance: dict[str, str] = field(default_factory=dict)
    """Method or version that each part came from."""
    layers: tuple[Layer, ...] = ()
    """Results of the stages after the coarse one, in their order and at most one of each type; see `with_layer`."""
    head_digest: str = ""
    """`HeadModel.digest` of the head that the weights belong to; empty if it isn't known. By default this avface's open
    head for the name "open"."""

    def __post_init__(self) -> None:
        if not self.head_digest and self.head == OPEN_NAME:
            object.__setattr__(self, "head_digest", OPEN_DIGEST)
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
        for name, size in expected.items():
            if getattr(self, name).shape != size:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {size}")
        bias = self.landmark_bias
        if bias.dtype.kind != "f" or not np.isfinite(bias).all():
            raise ValueError("landmark_bias must be finite numbers")
        for layer in self.layers:
            layer.check_frames(frames)
        order = [LAYERS.index(type(layer)) for layer in self.layers]
        if order != sorted(set(order)):
            raise ValueError(
                f"layers {[layer.stage for layer in self.layers]} must be one of each type, in the order of the stages"
            )

    def __len__(self) -> int:
        """Number of video frames T."""
        return len(self.times)

    @functools.cached_property
    def head_model(self) -> HeadModel:
        """The head model, loaded on first use.

        Raises:
            AvfaceError: if it can't be read, or has changed since the capture was made.
        """
        from avface.head import load_head

        head = load_head(self.head)
        if self.head_digest and head.digest() != self.head_digest:
            raise AvfaceError(_of_another_head(self.source or self.head, self.head, self.provenance))
        return head

    @property
    def camera(self) -> Camera:
        """The camera of the clip."""
        from avface.geometry.camera import Camera

        return Camera(self.focal_length, self.principal_point, *self.image_size)

    @property
    def faces(self) -> Int:
        """Triangles (F, 3) of the mesh."""
        return self.head_model.faces.cpu().numpy()

    @property
    def frame_rate(self) -> float:
        """Nominal frames per second, of the most frequent interval between frames; 0 for a single frame."""
        return nominal_frame_rate(self.times)

    @property
    def audio_track(self) -> int | None:
        """Number of the video's sound track that was used, from 0; None if there was none, or it isn't known."""
        number = self.provenance.get("audio_track", "")
        return int(number) if number.isdecimal() else None

    @property
    def rotate(self) -> int:
        """Degrees clockwise (0, 90, 180, 270) by which the video's pictures were turned further than its file says."""
        degrees = self.provenance.get("rotate", "0")
        return int(degrees) if degrees in ("90", "180", "270") else 0

    @property
    def audio_lag(self) -> float:
        """Delay of the video's sound against the picture in seconds, as it was estimated and corrected; negative if the
        sound is early, 0 if there was none or no evidence."""
        lag = self.provenance.get("audio_lag", "")
        return float(lag) if re.fullmatch(r"-?\d\.\d{1,3}", lag) else 0.0

    def vertices(
        self,
        frames: Frames = None,
        space: Literal["camera", "head"] = "camera",
        stage: str | None = None,
    ) -> F32:
        """Vertices (T, V, 3) in metres of the chosen frames (all by default), in the camera's or the head's frame.

        stage: the last stage that is applied, by default all: "coarse" for shape and expression alone, "lips" with the
        lip refinement if there is one. Detail is finer than this mesh and doesn't change it; see `detailed_vertices`.

        Raises:
            AvfaceError: if a layer belongs to another head.
            ValueError: if the space or the stage is unknown.
        """
        if space not in ("camera", "head"):
            raise ValueError(f"space={space!r}; vertices are given in 'camera' or 'head'")
        rows = self._rows(frames)
        vertices = self._head_vertices(rows, stage)
        return self._to_camera(vertices, rows) if space == "camera" else vertices

    @property
    def lips(self) -> LipLayer | None:
        """The lip refinement; None if its stage hasn't run, or nobody speaks."""
        return self.layer(LipLayer)

    @property
    def detail(self) -> DetailLayer | None:
        """The skin's displacement; None if its stage hasn't run."""
        return self.layer(DetailLayer)

    def layer(self, kind: type[LayerT]) -> LayerT | None:
        """The layer of one type, or None."""
        return next((layer for layer in self.layers if isinstance(layer, kind)), None)

    def with_layer(self, layer: Layer, provenance: str = "") -> Capture:
        """The capture with a layer added, or in place of the one of its type; `provenance` names its method."""
        kinds = {type(each): each for each in (*self.layers, layer)}
        methods = {**self.provenance, layer.stage: provenance} if provenance else self.provenance
        return replace(
            self, layers=tuple(kinds[kind] for kind in LAYERS if kind in kinds), provenance=methods
        )

    def up_to(self, stage: str | None) -> Capture:
        """The capture without the layers of later stages; itself for None.

        Raises:
            ValueError: if the stage is unknown.
        """
        kinds = shown_layers(stage)
        kept = tuple(layer for layer in self.layers if type(layer) in kinds)
        return self if kept == self.layers else replace(self, layers=kept)

    def displacement(self, frames: Frames = None) -> F32:
        """Displacement (T, R, R) in metres of the skin along the mesh's normals in the chosen frames (all by default).

        R x R texels of `avface.head.skin.atlas.DetailAtlas`; (T, 0, 0) without detail.
        """
        rows = self._rows(frames)
        return (
            np.zeros((len(rows), 0, 0), np.float32) if self.detail is None else self.detail.displacement(rows)
        )

    @functools.cached_property
    def detailed_surface(self) -> DetailedSurface:
        """The mesh, subdivided for the skin's displacement.

        Raises:
            AvfaceError: if the capture has no detail, or its head no region "face".
        """
        from avface.head.skin.subdivision import DetailedSurface

        if self.detail is None:
            raise AvfaceError(
                f"{self.source or self.head}: the capture has no detail; reconstruct with --stages coarse,detail"
            )
        return DetailedSurface(self.head_model, len(self.detail.static))

    def detailed_vertices(self, frames: Frames = None, space: Literal["camera", "head"] = "camera") -> F32:
        """Vertices (T, N, 3) in metres of `detailed_surface` in the chosen frames, with all layers.

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
        stage: str | None = None,
    ) -> F32:
        """Landmarks of the chosen frames: (T, L, 2) pixels of the video, or (T, L, 3) metres in camera or head.

        They are points of the surface plus `landmark_bias`; those in the image are the projections of those in the
        camera. stage: as for `vertices`.

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
        block = 256  # bounds the memory for meshes of long clips
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

    @property
    def in_shot(self) -> Bool:
        """(T,) whether the frame is of a shot that shows the captured person, seen or covered."""
        shots = np.searchsorted(self.segment_starts, np.arange(len(self)), side="right") - 1
        return np.asarray(self.segment_same_person[shots])

    def morphs(self) -> tuple[MorphTargets, MorphMotion]:
        """The head as morph targets and their motion, for scene files; see `avface.head.morphs`.

        The layers' targets come last: lips_0, lips_1 and so on for the lip refinement.

        Raises:
            AvfaceError: if a layer belongs to another head.
        """
        from avface.head.morphs import morph_motion, morph_targets

        head = self.head_model
        targets = morph_targets(head, self.shape)
        motion = morph_motion(head, targets, self.shape, self.expression, self.joints)
        for layer in self._checked_layers():
            added = layer.morphs(head.num_vertices)
            if added is not None:
                offsets = np.concatenate([targets.offsets, added.offsets])
                targets = replace(targets, names=targets.names + added.names, offsets=offsets)
                motion = replace(motion, weights=np.concatenate([motion.weights, added.weights], 1))
        return targets, motion

    def export(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write the capture in the format of the path's suffix (.glb, .usdc, .csv, .ply, .obj, .mp4, .html, ...).

        Options are those of the exporter. Returns the path written.

        Raises:
            AvfaceError: if no exporter is registered for the suffix, or the file can't be written.
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
            if item.name == "layers":
                continue
            value = getattr(self, item.name)
            arrays[item.name] = np.array(json.dumps(value)) if isinstance(value, dict) else np.asarray(value)
        for layer in self.layers:
            arrays |= layer.arrays()
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Capture:
        """Read a capture file.

        Raises:
            AvfaceError: if the file is missing, damaged, not a capture, of another version, or of the open head of
                another version of avface.
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
            capture = cls(
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
                visibility=data["visibility"],
                visibility_regions=tuple(map(str, data["visibility_regions"])),
                landmark_bias=data["landmark_bias"],
                segment_starts=data["segment_starts"],
                segment_same_person=data["segment_same_person"],
                source=str(data["source"]),
                provenance=dict(json.loads(str(data["provenance"]))),
                layers=tuple(layer for kind in LAYERS if (layer := kind.read(data)) is not None),
                head_digest=str(data["head_digest"] if "head_digest" in data else _first_digest(data)),
            )
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise AvfaceError(f"{path}: incomplete capture ({error}); make it again") from None
        if capture.head == OPEN_NAME and capture.head_digest != OPEN_DIGEST:
            raise AvfaceError(_of_another_head(path, OPEN_NAME, capture.provenance))
        return capture

    def select(self, frames: Frames) -> Capture:
        """The capture of some frames only, with their times; all of it is one segment."""
        rows = self._rows(frames)
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in self._per_frame},
            layers=tuple(layer.select(rows) for layer in self.layers),
            segment_starts=np.zeros(1, np.int64),
            segment_same_person=np.ones(1, bool),
        )

    @property
    def _per_frame(self) -> tuple[str, ...]:
        """Names of the fields with one row per frame."""
        always = ("expression", "rotation", "translation", "joints", "times", "confidence")
        return (*always, "visibility") if self.visibility_regions else always

    def _rows(self, frames: Frames) -> Int:
        every = np.arange(len(self))
        return every if frames is None else np.atleast_1d(every[frames])

    def _head_vertices(self, rows: Int, stage: str | None) -> F32:
        import torch

        shown = self.up_to(stage)
        head = self.head_model
        shape, expression, joints = (
            torch.as_tensor(values) for values in (self.shape[None], self.expression[rows], self.joints[rows])
        )
        with torch.inference_mode():
            offsets = None
            for layer in shown._checked_layers():
                part = layer.vertex_offsets(rows, head.num_vertices)
                if part is not None:
                    added = torch.as_tensor(part, dtype=head.template.dtype)
                    offsets = added if offsets is None else offsets + added
            vertices = head(shape, expression, joints, offsets)
        return np.asarray(vertices.numpy())

    def _checked_layers(self) -> tuple[Layer, ...]:
        for layer in self.layers:
            layer.check_head(self.head_model, self.source or self.head)
        return self.layers

    def _to_camera(self, points: F32, rows: Int) -> F32:
        import torch

        from avface.geometry.camera import transform
        from avface.geometry.rotations import rotvec_to_rotmat

        rotation = rotvec_to_rotmat(torch.as_tensor(self.rotation[rows]))
        return transform(torch.as_tensor(points), rotation, torch.as_tensor(self.translation[rows])).numpy()


def _first_digest(data: dict[str, Any]) -> str:
    """`Capture.head_digest` of a file that doesn't store it, as versions of avface with the first open head wrote."""
    return FIRST_OPEN_DIGEST if str(data["head"]) == OPEN_NAME else ""


def _of_another_head(where: str | Path, head: str, provenance: dict[str, str]) -> str:
    """Why a capture can't be used with the head that now has its head's name."""
    version = provenance.get("avface", "")
    maker = f"avface {version}" if version not in ("", __version__) else "the avface that made it"
    if head == OPEN_NAME:
        return (
            f"{where}: made with another version of the open head than avface {__version__} has; reconstruct the video "
            f"again, or use {maker}"
        )
    return (
        f"{where}: the head {head} has changed since the capture was made; reconstruct the video again, or restore "
        "that head"
    )
