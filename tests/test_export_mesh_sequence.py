from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from captures import moving_capture
from detail_captures import detail_capture
from export_heads import jawed_capture
from scipy.spatial import cKDTree

from avface.capture import Capture
from avface.capture.resampling import at_times
from avface.errors import AvfaceError
from avface.geometry.mesh import vertex_normals


@pytest.fixture(scope="module")
def capture() -> Capture:
    return moving_capture(5)


def read_obj(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, texture coordinates, and polygons (Q, 4) of both, where triangles repeat the last corner."""
    lines = [line.split() for line in path.read_text().splitlines()]
    points, uv = (np.array([line[1:] for line in lines if line[:1] == [kind]], float) for kind in ("v", "vt"))
    polygons = [[corner.split("/") for corner in line[1:]] for line in lines if line[:1] == ["f"]]
    quads = np.array([polygon + polygon[-1:] * (4 - len(polygon)) for polygon in polygons], int) - 1
    return points, uv, quads[..., 0], quads[..., 1]


@pytest.mark.parametrize("space", ["camera", "head"])
def test_ply_files_hold_the_vertices_faces_and_normals_of_their_frames(capture, tmp_path, space):
    assert capture.export(tmp_path / "face.ply", space=space) == tmp_path
    assert sorted(item.name for item in tmp_path.iterdir()) == [f"face_{n:06d}.ply" for n in range(5)]
    for number in (0, 3):
        mesh = trimesh.load_mesh(tmp_path / f"face_{number:06d}.ply", process=False)
        vertices = capture.vertices(number, space)[0]
        np.testing.assert_array_equal(mesh.faces, capture.faces)
        np.testing.assert_allclose(mesh.vertices, vertices, atol=1e-8)
        stored = mesh.metadata["_ply_raw"]["vertex"]["data"]
        normals = np.stack([stored[axis] for axis in ("nx", "ny", "nz")], 1)
        truth = vertex_normals(torch.as_tensor(vertices), torch.as_tensor(capture.faces)).numpy()
        np.testing.assert_allclose(normals, truth, atol=1e-5)


def test_ply_files_without_normals_are_smaller_and_still_read(capture, tmp_path):
    capture.export(tmp_path / "with.ply", frames=0)
    capture.export(tmp_path / "without.ply", frames=0, normals=False)
    sizes = [(tmp_path / f"{name}_000000.ply").stat().st_size for name in ("with", "without")]
    assert (
        12 * capture.head_model.num_vertices < sizes[0] - sizes[1] < 12 * capture.head_model.num_vertices + 99
    )
    mesh = trimesh.load_mesh(tmp_path / "without_000000.ply", process=False)
    np.testing.assert_allclose(mesh.vertices, capture.vertices(0)[0], atol=1e-8)


@pytest.mark.parametrize("space", ["camera", "head"])
def test_obj_files_hold_the_vertices_faces_and_uvs_of_their_frames(capture, tmp_path, space):
    assert capture.export(tmp_path / "face.obj", space=space, frames=[1, 4]) == tmp_path
    assert sorted(item.name for item in tmp_path.iterdir()) == ["face_000001.obj", "face_000004.obj"]
    for number in (1, 4):
        vertices, uv, quads, uv_quads = read_obj(tmp_path / f"face_{number:06d}.obj")
        head = capture.head_model
        assert np.abs(vertices - capture.vertices(number, space)[0]).max() < 1e-6
        assert np.abs(uv - head.uv).max() < 1e-6
        np.testing.assert_array_equal(quads, head.quads)
        np.testing.assert_array_equal(uv_quads, head.uv_quads)
        mesh = trimesh.load_mesh(tmp_path / f"face_{number:06d}.obj")
        assert len(mesh.faces) == len(capture.faces)
        assert np.abs(mesh.bounds - [vertices.min(0), vertices.max(0)]).max() < 1e-6


def test_files_are_numbered_by_the_frame_of_the_video(capture, tmp_path):
    capture.export(tmp_path / "face.ply", frames=slice(3, None))
    assert sorted(item.name for item in tmp_path.iterdir()) == ["face_000003.ply", "face_000004.ply"]
    mesh = trimesh.load_mesh(tmp_path / "face_000004.ply", process=False)
    np.testing.assert_allclose(mesh.vertices, capture.vertices(4)[0], atol=1e-8)


def test_files_do_not_depend_on_blocks(capture, tmp_path, monkeypatch):
    capture.export(tmp_path / "whole.obj")
    monkeypatch.setattr("avface.export.mesh_sequence.BLOCK", 2)
    capture.export(tmp_path / "block.obj")
    for number in range(5):
        whole, block = (trimesh.load_mesh(tmp_path / f"{n}_{number:06d}.obj") for n in ("whole", "block"))
        np.testing.assert_allclose(whole.vertices, block.vertices, atol=2e-6)


@pytest.mark.parametrize("suffix", ["ply", "obj"])
def test_a_head_without_uvs_is_exported(tmp_path, suffix):
    capture = jawed_capture(tmp_path)
    capture.export(tmp_path / f"face.{suffix}")
    mesh = trimesh.load_mesh(tmp_path / f"face_000002.{suffix}", process=False, maintain_order=True)
    assert np.abs(mesh.vertices - capture.vertices(2)[0]).max() < 1e-6
    np.testing.assert_array_equal(mesh.faces, capture.faces)


@pytest.mark.parametrize("suffix", ["ply", "obj"])
def test_a_failed_export_leaves_older_files_unchanged(capture, tmp_path, monkeypatch, suffix):
    older = tmp_path / f"face_000000.{suffix}"
    older.write_bytes(b"older")
    monkeypatch.setattr("avface.export.mesh_sequence.BLOCK", 2)
    compute = Capture.vertices

    def full_disk(self: Capture, frames: np.ndarray, space: str, stage: None) -> np.ndarray:
        if 2 in frames:
            raise OSError(28, "No space left on device")
        return compute(self, frames, space, stage)

    monkeypatch.setattr(Capture, "vertices", full_disk)
    with pytest.raises(AvfaceError, match=r"can't be written \(No space left on device\)"):
        capture.export(tmp_path / f"face.{suffix}")
    assert [item.name for item in tmp_path.iterdir()] == [older.name]
    assert older.read_bytes() == b"older"


@pytest.mark.parametrize("suffix", ["ply", "obj"])
def test_no_frames_give_no_files(capture, tmp_path, suffix):
    assert capture.select(slice(0, 0)).export(tmp_path / f"face.{suffix}") == tmp_path
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["ply", "obj"])
def test_a_missing_folder_is_refused_in_one_line(capture, tmp_path, suffix):
    with pytest.raises(AvfaceError, match=r"doesn't exist") as caught:
        capture.export(tmp_path / "nowhere" / f"face.{suffix}")
    assert "\n" not in str(caught.value)


def test_an_unknown_space_is_refused(capture, tmp_path):
    with pytest.raises(ValueError, match="space='world'"):
        capture.export(tmp_path / "face.ply", space="world")
    assert not list(tmp_path.iterdir())


def test_meshes_of_stage_detail_are_subdivided_and_displaced(tmp_path):
    capture = detail_capture(3)
    capture.export(tmp_path / "face.ply", stage="detail", frames=1, space="head")
    capture.export(tmp_path / "face.obj", stage="detail", frames=1, space="head")
    expected = capture.detailed_vertices(1, "head")[0]
    faces = capture.detailed_surface.faces
    ply = trimesh.load_mesh(tmp_path / "face_000001.ply", process=False)
    np.testing.assert_array_equal(ply.faces, faces)
    np.testing.assert_allclose(ply.vertices, expected, atol=1e-8)
    obj = trimesh.load_mesh(tmp_path / "face_000001.obj")
    assert np.abs(obj.vertices[obj.faces] - expected[faces]).max() < 1e-6
    with pytest.raises(AvfaceError, match="no detail"):
        moving_capture(2).export(tmp_path / "none.ply", stage="detail")
    assert not list(tmp_path.glob("none*"))


@pytest.mark.parametrize("suffix", ["ply", "obj"])
def test_meshes_can_have_a_constant_rate(tmp_path, suffix):
    capture = replace(moving_capture(4), times=np.array([0.0, 0.02, 0.1, 0.3]))
    capture.export(tmp_path / f"face.{suffix}", fps=20)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"face_{k:06d}.{suffix}" for k in range(7)]
    truth = at_times(capture, np.arange(7) / 20).vertices(4)[0]
    read = trimesh.load(
        tmp_path / f"face_000004.{suffix}", process=False
    ).vertices  # .obj: split along UV seams
    assert cKDTree(truth).query(read)[0].max() < 1e-5 and cKDTree(read).query(truth)[0].max() < 1e-5
