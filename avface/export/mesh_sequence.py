"""Mesh sequences, one file per frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from avface import __version__
from avface.arrays import F32, Floats, Ints
from avface.capture import is_subdivided
from avface.capture.resampling import at_constant_rate
from avface.files import filling

if TYPE_CHECKING:
    from avface.capture import Capture, Frames

Space = Literal["camera", "head"]

BLOCK = 64
"""Frames per block of vertices."""
DETAILED_BLOCK = 8
"""The same for subdivided meshes."""


def export_ply(
    capture: Capture,
    path: str | Path,
    *,
    frames: Frames = None,
    space: Space = "camera",
    normals: bool = True,
    stage: str | None = None,
    fps: float | None = None,
) -> Path:
    """Write binary PLY meshes: "dir/face.ply" becomes dir/face_000000.ply and so on; returns the folder.

    frames: the frames to write, all by default; a file's number is the video's frame, or with `fps` the frame at that
    constant rate (`avface.capture.resampling`).
    space: "camera" (x right, y down, z forward) or "head" (y up, z out of the face), in metres.
    normals: whether to write unit vertex normals.
    stage: "detail" for the subdivided mesh with the skin's displacement; "coarse" or "lips" for the head's own mesh
    after that stage; by default that mesh with all layers.

    Faces are triangles, of heads with quads, too: common readers (trimesh) take no files with polygons of several
    kinds. OBJ files have the quads. The files appear when all are complete; files of the same names are replaced,
    others stay.

    Raises:
        AvfaceError: if the folder is missing or can't be written, there is no detail, or `fps` isn't a number from 1 to
            1000.
    """
    from avface.geometry.mesh import triangulate, vertex_normals

    path = Path(path)
    if fps is not None:
        capture = at_constant_rate(capture, fps)
    polygons, _, _, count = _topology(capture, stage)
    columns = ("x", "y", "z", "nx", "ny", "nz") if normals else ("x", "y", "z")
    faces = triangulate(polygons)
    triangles = np.zeros(len(faces), [("count", "u1"), ("vertices", "<i4", 3)])
    triangles["count"], triangles["vertices"] = 3, faces
    header = "\n".join(
        [
            "ply",
            "format binary_little_endian 1.0",
            f"comment avface {__version__}, {space} space, metres",
            f"element vertex {count}",
            *(f"property float {column}" for column in columns),
            f"element face {len(triangles)}",
            "property list uchar int vertex_indices",
            "end_header\n",
        ]
    ).encode()
    import torch

    with filling(path) as folder:
        corners = torch.as_tensor(faces)
        for number, vertices in _frames(capture, frames, space, stage):
            if normals:
                directions = vertex_normals(torch.as_tensor(vertices), corners).numpy()
                vertices = np.concatenate([vertices, directions], 1)
            with (folder / f"{path.stem}_{number:06d}{path.suffix}").open("wb") as file:
                file.write(header)
                file.write(vertices.astype("<f4").tobytes())
                file.write(triangles.tobytes())
    return path.parent


def export_obj(
    capture: Capture,
    path: str | Path,
    *,
    frames: Frames = None,
    space: Space = "camera",
    stage: str | None = None,
    fps: float | None = None,
) -> Path:
    """Write OBJ meshes with UVs: "dir/face.obj" becomes dir/face_000000.obj and so on; returns the folder.

    The head's own mesh has quads if the head has them; the subdivided one has triangles.

    frames, space, stage, fps, replaced files and errors as for `export_ply`. Vertices have the order of
    `Capture.vertices`, which are the first ones of a subdivided mesh, and six decimals (micrometres).
    """
    path = Path(path)
    if fps is not None:
        capture = at_constant_rate(capture, fps)
    polygons, uv, uv_polygons, count = _topology(capture, stage)
    points = "v %.6f %.6f %.6f\n" * count
    corners = [f"{vertex}" for vertex in (polygons + 1).ravel().tolist()]
    if len(uv):
        points_of_uv = (uv_polygons + 1).ravel().tolist()
        corners = [f"{vertex}/{place}" for vertex, place in zip(corners, points_of_uv, strict=True)]
    places = "".join(f"vt {u:.6f} {v:.6f}\n" for u, v in uv.tolist())
    topology = places + "".join(
        f"f {' '.join(corners[4 * number : 4 * number + sides])}\n"
        for number, sides in enumerate(_sides(polygons).tolist())
    )
    with filling(path) as folder:
        for number, vertices in _frames(capture, frames, space, stage):
            with (folder / f"{path.stem}_{number:06d}{path.suffix}").open("w", encoding="ascii") as file:
                file.write(f"# avface {__version__}, {space} space, metres\n")
                file.write(points % tuple(vertices.ravel().tolist()))
                file.write(topology)
    return path.parent


def _topology(capture: Capture, stage: str | None) -> tuple[Ints, Floats, Ints, int]:
    """Polygons (Q, 4), UV coordinates (M, 2), polygons' indices into them (Q, 4), and the number of vertices.

    Triangles repeat their last vertex.
    """
    if is_subdivided(stage):
        surface = capture.detailed_surface
        return _quads(surface.faces), surface.uv, _quads(surface.uv_faces), len(surface)
    head = capture.head_model
    if len(head.quads):
        return head.quads, head.uv, head.uv_quads, head.num_vertices
    return _quads(capture.faces), head.uv, _quads(head.uv_faces), head.num_vertices


def _quads(triangles: Ints) -> Ints:
    """Triangles (F, 3) as quads (F, 4) that repeat the last vertex."""
    return triangles[:, [0, 1, 2, 2]]


def _sides(polygons: Ints) -> Ints:
    """Number (Q,) of sides of polygons (Q, 4): 3 where the last vertex repeats."""
    return np.where(polygons[:, 2] == polygons[:, 3], 3, 4)


def _frames(capture: Capture, frames: Frames, space: Space, stage: str | None) -> Iterator[tuple[int, F32]]:
    """Indices of the chosen frames with their vertices (V, 3), computed in blocks."""
    every = np.arange(len(capture))
    numbers = every if frames is None else np.atleast_1d(every[frames])
    subdivided = is_subdivided(stage)
    size = DETAILED_BLOCK if subdivided else BLOCK
    for start in range(0, len(numbers), size):
        block = numbers[start : start + size]
        vertices = (
            capture.detailed_vertices(block, space) if subdivided else capture.vertices(block, space, stage)
        )
        yield from zip(block.tolist(), vertices, strict=True)
