"""Head files: reading heads by name or path, and writing them as compressed arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from avface.arrays import F32, Floats
from avface.errors import AvfaceError
from avface.files import replacing
from avface.head.contour import YawContour
from avface.head.folder import heads_folder, imported_heads
from avface.head.model import HeadModel, LandmarkEmbedding, UnitRange
from avface.open_head import OPEN_DIGEST, OPEN_NAME

OPEN_HEAD = Path(__file__).parent / "assets" / "open.npz"
"""The built-in head, made by `avface head build-open`."""

ASSET_VERSION = 3
"""Version of the head files that are written."""

PLAIN_VERSION = 1
"""Version of head files without joint units, correctives and quads."""
JOINTED_VERSION = 2
"""Version of head files with joint units and correctives of joints, but without correctives of units and quads."""


def load_head(head: str | Path = "open") -> HeadModel:
    """Read a head model by name ("open", or that of an imported one) or by the path of its file.

    The name "open" is bound to the content: a file with the built-in head's content gets it, whatever its path and
    name, and any other head that claims it gets another name. So weights that name their head never meet a different
    one.

    Raises:
        AvfaceError: if the name is unknown, or the file is missing, damaged or of another version.
    """
    model = _load_asset(find_head(head))
    digest = model.digest()
    if digest == OPEN_DIGEST:
        model.name = OPEN_NAME
    elif model.name == OPEN_NAME:
        model.name = f"{OPEN_NAME}-{digest[:8]}"
    return model


def find_head(head: str | Path) -> Path:
    """The file of a head given by name ("open", or that of an imported one) or by path, without reading it.

    Raises:
        AvfaceError: if the name is unknown or there is no such file.
    """
    if str(head) == OPEN_NAME:
        return OPEN_HEAD
    path = Path(head)
    if not path.suffix and path.name == str(head):  # a name, not a path
        imported = heads_folder() / f"{head}.npz"
        if imported.is_file():
            return imported
    if not path.exists():
        if path.suffix:
            raise AvfaceError(f"{head}: no such head file; use 'open' or the path of a head file (.npz)")
        raise AvfaceError(
            f"{head}: unknown head; use 'open', the path of a head file (.npz) or a name that "
            f"'avface head import' gave, of which {heads_folder()} holds {', '.join(imported_heads()) or 'none'}"
        )
    return path


def _load_asset(path: Path) -> HeadModel:
    """Read the .npz of `save_head_asset`. Bases are stored as 16-bit integers with a scale per component."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            data = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise AvfaceError(f"{path}: not a readable head file ({error})") from None
    except Exception as error:  # zipfile and zlib raise many kinds of errors on damaged archives
        raise AvfaceError(f"{path}: damaged head file ({error}); reinstall or rebuild it") from None
    version = str(data.get("asset_version"))
    if version not in map(str, (PLAIN_VERSION, JOINTED_VERSION, ASSET_VERSION)):
        raise AvfaceError(
            f"{path}: not a head file of version {PLAIN_VERSION} to {ASSET_VERSION}; make it again with "
            "'avface head build-open' or 'avface head import', or update avface if it made the file"
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
        **(_jointed_arguments(data) if int(data["asset_version"]) >= JOINTED_VERSION else {}),
        **(_pair_arguments(data) if int(data["asset_version"]) >= ASSET_VERSION else {}),
    )


def _jointed_arguments(data: dict[str, npt.NDArray]) -> dict[str, Any]:
    """Arguments of `HeadModel` that files have from JOINTED_VERSION on."""
    return {
        "unit_range": UnitRange(data["unit_low"], data["unit_high"], data["unit_sigma"]),
        "joint_units": {int(unit): (int(joint), int(axis)) for unit, joint, axis in data["joint_units"]},
        "corrective_basis": _dequantise(data["corrective_basis"], data["corrective_scale"]),
        "joints_follow_expression": bool(data["joints_follow_expression"]),
        "contour": (
            YawContour(
                data["contour_triangles"].astype(np.int64), data["contour_barycentric"].astype(np.float64)
            )
            if len(data["contour_triangles"])
            else None
        ),
    }


def _pair_arguments(data: dict[str, npt.NDArray]) -> dict[str, Any]:
    """Arguments of `HeadModel` that files have from ASSET_VERSION on."""
    return {
        "pairs": tuple((int(first), int(second)) for first, second in data["pairs"]),
        "pair_basis": _dequantise(data["pair_basis"], data["pair_scale"]),
        "person_terms": data["person_terms"],
        "person_weights": data["person_weights"],
        "person_basis": _dequantise(data["person_basis"], data["person_scale"]),
        "quads": data["quads"],
    }


def save_head_asset(head: HeadModel, path: Path) -> None:
    """Write a head as one compressed .npz without pickles; bases quantised to 16 bits (steps under 1 micrometre).

    Raises:
        AvfaceError: if it can't be written.
        ValueError: if a value of the head isn't finite.
    """
    shape_basis, shape_scale = _quantise(head.shape_basis.cpu().numpy())
    expression_basis, expression_scale = _quantise(head.expression_basis.cpu().numpy())
    pair_basis, pair_scale = _quantise(head.pair_basis.cpu().numpy())
    person_basis, person_scale = _quantise(head.person_basis.cpu().numpy())
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
        "pairs": np.array(head.pairs, np.int32).reshape(-1, 2),
        "pair_basis": pair_basis,
        "pair_scale": pair_scale,
        "person_terms": head.person_terms.cpu().numpy().astype(np.int32),
        "person_weights": head.person_weights.cpu().numpy(),
        "person_basis": person_basis,
        "person_scale": person_scale,
        "quads": head.quads.astype(np.int32),
        **_jointed_arrays(head),
    }
    for scheme, embedding in head.embeddings.items():
        arrays[f"{scheme}_triangles"] = embedding.triangles.astype(np.int32)
        arrays[f"{scheme}_barycentric"] = embedding.barycentric.astype(np.float32)
        arrays[f"{scheme}_spread"] = embedding.spread.astype(np.float32)
        arrays[f"{scheme}_error_basis"] = embedding.error_basis.astype(np.float16)
    for key, values in arrays.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError(f"{head.name} head: {key} has values that aren't finite; it was not saved")
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _jointed_arrays(head: HeadModel) -> dict[str, npt.NDArray]:
    """The arrays that `_jointed_arguments` reads."""
    corrective_basis, corrective_scale = _quantise(head.corrective_basis.cpu().numpy())
    contour = head.contour
    return {
        "unit_low": head.unit_range.low,
        "unit_high": head.unit_range.high,
        "unit_sigma": head.unit_range.sigma,
        "joint_units": np.array([(u, *turn) for u, turn in head.joint_units.items()], np.int64).reshape(
            -1, 3
        ),
        "corrective_basis": corrective_basis,
        "corrective_scale": corrective_scale,
        "joints_follow_expression": np.array(head.joints_follow_expression),
        "contour_triangles": np.zeros(0, np.int32) if contour is None else contour.triangles.astype(np.int32),
        "contour_barycentric": np.zeros(0, np.float32)
        if contour is None
        else contour.barycentric.astype(np.float32),
    }


def _quantise(basis: Floats) -> tuple[npt.NDArray[np.int16], F32]:
    scale = (np.abs(basis).max(axis=(1, 2), initial=0) / 32767).astype(np.float32)
    scale[scale == 0] = 1
    return np.round(basis / scale[:, None, None]).astype(np.int16), scale


def _dequantise(steps: npt.NDArray[np.int16], scale: F32) -> F32:
    return steps.astype(np.float32) * scale[:, None, None]
