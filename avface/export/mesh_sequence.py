"""Meshes, one file a frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from avface import __version__
from avface.files import filling

if TYPE_CHECKING:
    from avface.capture import Capture, Frames

FloatArray = npt.NDArray[np.float32]
Space = Literal["camera", "head"]

BLOCK = 64
"""Frames computed at a time."""


def export_ply(
    capture: Capture,
    path: str | Path,
    *,
    frames: Frames = None,
    space: Space = "camera",
    normals: bool = True,
) -> Path:
    """Write binary PLY meshes: "dir/face.ply" becomes dir/face_000000.ply and so on; returns the folder.

    frames: the frames to write, all by default; a file's number is the video's frame.
    space: "camera" (x right, y down, z forward) or "head" (y up, z out of the face), in metres.
    normals: whether vertices carry unit normals.

    All files appear when the last one is done; older files of the same names are replaced, others stay.

    Raises:
        AvfaceError: if the folder is missing or can't be written.
    """
    from avface.geometry.mesh import vertex_normals

    path = Path(path)
    columns = ("x", "y", "z", "nx", "ny", "nz") if normals else ("x", "y", "z")
    triangles = np.zeros(len(capture.faces), [("count", "u1"), ("vertices", "<i4", 3)])
    triangles["count"], triangles["vertices"] = 3, capture.faces
    header = "\n".join(
        [
            "ply",
            "format binary_little_endian 1.0",
            f"comment avface {__version__}, {space} space, metres",
            f"element vertex {capture.head_model.num_vertices}",
            *(f"property float {column}" for column in columns),
            f"element face {len(triangles)}",
            "property list uchar int vertex_indices",
            "end_header\n",
        ]
    ).encode()
    import torch

    with filling(path) as folder:
        for number, vertices in _frames(capture, frames, space):
            if normals:
                directions = vertex_normals(torch.as_tensor(vertices), capture.head_model.faces).numpy()
                vertices = np.concatenate([vertices, directions], 1)
            with (folder / f"{path.stem}_{number:06d}{path.suffix}").open("wb") as file:
                file.write(header)
                file.write(vertices.astype("<f4").tobytes())
                file.write(triangles.tobytes())
    return path.parent


def export_obj(capture: Capture, path: str | Path, *, frames: Frames = None, space: Space = "camera") -> Path:
    """Write OBJ meshes with UVs: "dir/face.obj" becomes dir/face_000000.obj and so on; returns the folder.

    frames, space, replacing and errors as for `export_ply`. Vertices keep the numbers they have in
    `Capture.vertices`, and six decimals: micrometres.
    """
    path = Path(path)
    head = capture.head_model
    points = "v %.6f %.6f %.6f\n" * head.num_vertices
    corners = capture.faces + 1
    if len(head.uv):
        uv = "".join(f"vt {u:.6f} {v:.6f}\n" for u, v in head.uv.tolist())
        both = np.stack([corners, head.uv_faces + 1], 2).reshape(-1, 6).tolist()
        topology = uv + "".join("f {}/{} {}/{} {}/{}\n".format(*row) for row in both)
    else:
        topology = "".join("f {} {} {}\n".format(*row) for row in corners.tolist())
    with filling(path) as folder:
        for number, vertices in _frames(capture, frames, space):
            with (folder / f"{path.stem}_{number:06d}{path.suffix}").open("w", encoding="ascii") as file:
                file.write(f"# avface {__version__}, {space} space, metres\n")
                file.write(points % tuple(vertices.ravel().tolist()))
                file.write(topology)
    return path.parent


def _frames(capture: Capture, frames: Frames, space: Space) -> Iterator[tuple[int, FloatArray]]:
    """Numbers of the chosen frames with their vertices (V, 3), computed in blocks."""
    every = np.arange(len(capture))
    numbers = every if frames is None else np.atleast_1d(every[frames])
    for start in range(0, len(numbers), BLOCK):
        block = numbers[start : start + BLOCK]
        yield from zip(block.tolist(), capture.vertices(block, space), strict=True)
