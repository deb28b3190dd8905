"""The head model: one linear, jointed mesh for every stage of avface, whatever file it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from avface.errors import AvfaceError
from avface.geometry.rotations import rotvec_to_rotmat

OPEN_HEAD = Path(__file__).parent / "assets" / "open.npz"
"""The built-in head, made by `avface head build-open`."""

ASSET_VERSION = 1


@dataclass(frozen=True)
class LandmarkEmbedding:
    """Where the points of a landmark scheme lie on the surface of a head.

    Shapes: triangles (L, 3) vertex numbers, barycentric (L, 3), spread (L,), error_basis (K, L, 3).
    Units:  spread in metres: the median distance over people and poses between this point and where the landmark
            detector found it; the larger, the less the point is tied to the surface. error_basis: metres in the head's
            frame, the principal components of the detector's errors, each scaled to one standard deviation. A detector
            errs for all frames of a person alike, and for neighbouring points together.
    """

    triangles: npt.NDArray[np.int64]
    barycentric: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]
    error_basis: npt.NDArray[np.float64]


class HeadModel(nn.Module):
    """Linear blend shapes and linear blend skinning: (shape, expression, joints) -> vertices.

    Shapes: template (V, 3), shape_basis (S, V, 3), expression_basis (E, V, 3), joint_regressor (J, V),
            skin_weights (V, J + 1) whose first column is the root that carries the whole head, faces (F, 3).
    Units:  metres; shape weights in standard deviations of the population; joint rotations as axis-angle in radians.
    Axes:   head frame of glTF: +x to the subject's left, +y up, +z out of the face.
    Source: the form of FLAME (Li et al. 2017, sec. 3) without pose correctives: vertices =
            LBS(template + shape_basis . shape + expression_basis . expression, joints).
    """

    template: Tensor
    shape_basis: Tensor
    expression_basis: Tensor
    joint_regressor: Tensor
    skin_weights: Tensor
    faces: Tensor

    def __init__(
        self,
        name: str,
        *,
        template: npt.NDArray[np.floating],
        shape_basis: npt.NDArray[np.floating],
        expression_basis: npt.NDArray[np.floating],
        expression_names: tuple[str, ...],
        joint_names: tuple[str, ...],
        joint_parents: tuple[int, ...],
        joint_regressor: npt.NDArray[np.floating],
        skin_weights: npt.NDArray[np.floating],
        faces: npt.NDArray[np.integer],
        uv: npt.NDArray[np.floating],
        uv_faces: npt.NDArray[np.integer],
        part_names: tuple[str, ...],
        face_parts: npt.NDArray[np.integer],
        regions: dict[str, npt.NDArray[np.bool_]],
        embeddings: dict[str, LandmarkEmbedding],
        gaze_range: npt.NDArray[np.floating],
        size_component: int | None = None,
    ) -> None:
        """Take the arrays of one head; see the class for shapes.

        joint_parents (J,) numbers each joint's parent, -1 for the root. uv (N, 2) in [0, 1] with v up and uv_faces
        (F, 3) index it. face_parts (F,) indexes part_names ("skin", "left_eye", ...). regions maps a name to a (V,)
        mask. gaze_range (4,) is the eyeball's turn in radians at weight 1 of eyeLookUp, Down, In and Out.
        size_component numbers the shape component that scales the whole head, if there is one.
        """
        super().__init__()
        self.name = name
        self.expression_names = expression_names
        self.joint_names = joint_names
        self.joint_parents = joint_parents
        self.part_names = part_names
        self.embeddings = embeddings
        self.uv = np.asarray(uv, np.float32)
        self.uv_faces = np.asarray(uv_faces, np.int64)
        self.face_parts = np.asarray(face_parts, np.int64)
        self.regions = regions
        self.gaze_range = np.asarray(gaze_range, np.float64)
        self.size_component = size_component
        for key, value in (
            ("template", template),
            ("shape_basis", shape_basis),
            ("expression_basis", expression_basis),
            ("joint_regressor", joint_regressor),
            ("skin_weights", skin_weights),
        ):
            self.register_buffer(key, torch.as_tensor(np.asarray(value, np.float32)))
        self.register_buffer("faces", torch.as_tensor(np.asarray(faces, np.int64)))

    @property
    def num_shape(self) -> int:
        """Number of shape components S."""
        return self.shape_basis.shape[0]

    @property
    def num_expression(self) -> int:
        """Number of expression units E."""
        return self.expression_basis.shape[0]

    @property
    def num_joints(self) -> int:
        """Number of joints J, without the root."""
        return len(self.joint_names)

    @property
    def num_vertices(self) -> int:
        """Number of vertices V."""
        return self.template.shape[0]

    def neutral(self, shape: Tensor) -> Tensor:
        """Vertices of the face at rest: shape (..., S) -> (..., V, 3) metres."""
        return self.template + torch.einsum("...s,svc->...vc", shape, self.shape_basis)

    def joint_positions(self, shape: Tensor) -> Tensor:
        """Centres of rotation at rest: shape (..., S) -> (..., J, 3) metres. Expression doesn't move them."""
        return torch.einsum("jv,...vc->...jc", self.joint_regressor, self.neutral(shape))

    def joint_transforms(self, shape: Tensor, joints: Tensor) -> tuple[Tensor, Tensor]:
        """Rotation (B, J, 3, 3) and translation (B, J, 3) of each joint in the head's frame.

        A point x at rest that follows joint j goes to rotation_j x + translation_j. shape (B, S), joints (B, J, 3).
        """
        pivots = self.joint_positions(shape)
        local = rotvec_to_rotmat(joints)
        rotations: list[Tensor] = []
        translations: list[Tensor] = []
        for j, parent in enumerate(self.joint_parents):
            offset = pivots[:, j] - torch.einsum("bij,bj->bi", local[:, j], pivots[:, j])
            if parent < 0:
                rotations.append(local[:, j])
                translations.append(offset)
            else:
                rotations.append(rotations[parent] @ local[:, j])
                translations.append(
                    torch.einsum("bij,bj->bi", rotations[parent], offset) + translations[parent]
                )
        return torch.stack(rotations, 1), torch.stack(translations, 1)

    def forward(
        self, shape: Tensor, expression: Tensor | None = None, joints: Tensor | None = None
    ) -> Tensor:
        """Vertices (B, V, 3) in metres in the head's frame.

        shape (B, S) or (1, S); expression (B, E), None for a face at rest; joints (B, J, 3) axis-angle in radians,
        None for none turned. Differentiable in all three.

        Raises:
            ValueError: if a last dimension doesn't match the head.
        """
        for label, value, size in (
            ("shape", shape, self.num_shape),
            ("expression", expression, self.num_expression),
        ):
            if value is not None and (value.ndim != 2 or value.shape[1] != size):
                raise ValueError(
                    f"{label} has shape {tuple(value.shape)}, the {self.name} head needs (B, {size})"
                )
        if joints is not None and (joints.ndim != 3 or joints.shape[1:] != (self.num_joints, 3)):
            raise ValueError(
                f"joints has shape {tuple(joints.shape)}, the {self.name} head needs (B, {self.num_joints}, 3)"
            )
        vertices = self.neutral(shape)
        if expression is not None:
            vertices = vertices + (expression @ self.expression_basis.flatten(1)).unflatten(1, (-1, 3))
        if joints is None:
            return vertices
        batch = max(len(vertices), len(joints))
        rotations, translations = self.joint_transforms(shape.expand(batch, -1), joints.expand(batch, -1, -1))
        weights = self.skin_weights
        skinned = weights[:, :1] * vertices
        for j in range(self.num_joints):
            moved = vertices @ rotations[:, j].transpose(1, 2) + translations[:, j, None]
            skinned = skinned + weights[:, j + 1, None] * moved
        return skinned

    def vertex_parts(self) -> npt.NDArray[np.int64]:
        """Part number (V,) of every vertex, an index into `part_names`."""
        parts = np.zeros(self.num_vertices, np.int64)
        parts[self.faces.cpu().numpy().ravel()] = np.repeat(self.face_parts, 3)
        return parts

    def embedding(self, scheme: str) -> LandmarkEmbedding:
        """The embedding of a landmark scheme, `mediapipe478` or `ibug68`.

        Raises:
            AvfaceError: if this head has none of that name.
        """
        try:
            return self.embeddings[scheme]
        except KeyError:
            known = ", ".join(sorted(self.embeddings))
            raise AvfaceError(
                f"{self.name}: no landmark scheme {scheme!r} in this head; it has {known}"
            ) from None


def load_head(head: str | Path = "open") -> HeadModel:
    """Read a head model by name ("open") or by the path of an asset file.

    Raises:
        AvfaceError: if the name is unknown, or the file is missing, damaged or of another version.
    """
    return _load_asset(find_head(head))


def find_head(head: str | Path) -> Path:
    """The asset file of a head given by name ("open") or by path; the file isn't read.

    Raises:
        AvfaceError: if the name is unknown or there is no such file.
    """
    if str(head) == "open":
        return OPEN_HEAD
    path = Path(head)
    if not path.exists():
        problem = "no such head file" if path.suffix else "unknown head"
        raise AvfaceError(f"{head}: {problem}; use 'open' or the path of a head file (.npz)")
    return path


def _load_asset(path: Path) -> HeadModel:
    """Read the .npz that `save_head_asset` writes. Bases are stored as 16-bit steps of a scale per component."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            data = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise AvfaceError(f"{path}: not a readable head file ({error})") from None
    except Exception as error:  # zipfile and zlib raise a family of errors on damaged archives
        raise AvfaceError(f"{path}: damaged head file ({error}); reinstall or rebuild it") from None
    if str(data.get("asset_version")) != str(ASSET_VERSION):
        raise AvfaceError(
            f"{path}: not a head file of version {ASSET_VERSION}; rebuild it with 'avface head build-open'"
        )
    try:
        return _from_arrays(data)
    except (KeyError, IndexError, ValueError) as error:
        raise AvfaceError(f"{path}: incomplete head file ({error}); reinstall or rebuild it") from None


def _from_arrays(data: dict[str, npt.NDArray]) -> HeadModel:
    schemes = [str(name) for name in data["scheme_names"]]
    return HeadModel(
        str(data["name"]),
        template=data["template"],
        shape_basis=_dequantise(data["shape_basis"], data["shape_scale"]),
        expression_basis=_dequantise(data["expression_basis"], data["expression_scale"]),
        expression_names=tuple(str(name) for name in data["expression_names"]),
        joint_names=tuple(str(name) for name in data["joint_names"]),
        joint_parents=tuple(int(parent) for parent in data["joint_parents"]),
        joint_regressor=data["joint_regressor"],
        skin_weights=data["skin_weights"],
        faces=data["faces"],
        uv=data["uv"],
        uv_faces=data["uv_faces"],
        part_names=tuple(str(name) for name in data["part_names"]),
        face_parts=data["face_parts"],
        regions={
            str(name): mask.astype(bool)
            for name, mask in zip(data["region_names"], data["region_masks"], strict=True)
        },
        embeddings={
            scheme: LandmarkEmbedding(
                data[f"{scheme}_triangles"].astype(np.int64),
                data[f"{scheme}_barycentric"].astype(np.float64),
                data[f"{scheme}_spread"].astype(np.float64),
                data[f"{scheme}_error_basis"].astype(np.float64),
            )
            for scheme in schemes
        },
        gaze_range=data["gaze_range"],
        size_component=None if int(data["size_component"]) < 0 else int(data["size_component"]),
    )


def save_head_asset(head: HeadModel, path: Path) -> None:
    """Write a head as one compressed .npz without pickles; bases in 16-bit steps (under 1 micrometre each)."""
    shape_basis, shape_scale = _quantise(head.shape_basis.cpu().numpy())
    expression_basis, expression_scale = _quantise(head.expression_basis.cpu().numpy())
    arrays: dict[str, npt.NDArray] = {
        "asset_version": np.array(ASSET_VERSION),
        "name": np.array(head.name),
        "template": head.template.cpu().numpy(),
        "shape_basis": shape_basis,
        "shape_scale": shape_scale,
        "expression_basis": expression_basis,
        "expression_scale": expression_scale,
        "expression_names": np.array(head.expression_names),
        "joint_names": np.array(head.joint_names),
        "joint_parents": np.array(head.joint_parents),
        "joint_regressor": head.joint_regressor.cpu().numpy(),
        "skin_weights": head.skin_weights.cpu().numpy(),
        "faces": head.faces.cpu().numpy().astype(np.int32),
        "uv": head.uv,
        "uv_faces": head.uv_faces.astype(np.int32),
        "part_names": np.array(head.part_names),
        "face_parts": head.face_parts.astype(np.uint8),
        "region_names": np.array(list(head.regions)),
        "region_masks": np.stack(list(head.regions.values())),
        "scheme_names": np.array(list(head.embeddings), dtype=str),
        "gaze_range": head.gaze_range,
        "size_component": np.array(-1 if head.size_component is None else head.size_component),
    }
    for scheme, embedding in head.embeddings.items():
        arrays[f"{scheme}_triangles"] = embedding.triangles.astype(np.int32)
        arrays[f"{scheme}_barycentric"] = embedding.barycentric.astype(np.float32)
        arrays[f"{scheme}_spread"] = embedding.spread.astype(np.float32)
        arrays[f"{scheme}_error_basis"] = embedding.error_basis.astype(np.float16)
    for key, values in arrays.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError(f"{head.name} head: {key} has values that aren't finite; it was not saved")
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _quantise(basis: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float32]]:
    scale = (np.abs(basis).max(axis=(1, 2)) / 32767).astype(np.float32)
    scale[scale == 0] = 1
    return np.round(basis / scale[:, None, None]).astype(np.int16), scale


def _dequantise(steps: npt.NDArray[np.int16], scale: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return steps.astype(np.float32) * scale[:, None, None]
