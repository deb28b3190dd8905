"""The subdivided mesh for displacement maps."""

import numpy as np
import pytest
import torch

from avface.geometry.mesh import vertex_normals
from avface.head import load_head
from avface.head.skin.atlas import detail_atlas
from avface.head.skin.subdivision import DetailedSurface


@pytest.fixture(scope="module")
def head():
    return load_head("open")


@pytest.fixture(scope="module")
def surface(head):
    return DetailedSurface(head, 64)


def edges_of(faces):
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return np.unique(np.sort(pairs, 1), axis=0, return_counts=True)


def test_the_subdivided_mesh_is_watertight(head, surface):
    edges, sides = edges_of(head.faces.numpy())
    fine, fine_sides = edges_of(surface.faces)
    assert set(fine_sides.tolist()) == {1, 2}
    ends_of = {number: {number} for number in range(head.num_vertices)}
    for ends in surface._ends:
        ends_of |= {len(ends_of) + k: ends_of[a] | ends_of[b] for k, (a, b) in enumerate(ends.tolist())}
    rim = {frozenset(edge) for edge in edges[sides == 1].tolist()}
    found = [frozenset(ends_of[a] | ends_of[b]) for a, b in fine[fine_sides == 1].tolist()]
    assert set(found) == rim, "open edges are the head's own, or parts of them"
    assert set(surface.faces.ravel().tolist()) == set(range(len(surface)))
    assert surface.uv_faces.shape == surface.faces.shape and surface.uv_faces.max() == len(surface.uv) - 1


def test_zero_displacement_keeps_the_surface(head, surface):
    points = surface.vertices(head.template, torch.zeros(64, 64))
    assert torch.equal(points[: head.num_vertices], head.template)

    def area(vertices, faces):
        corners = vertices[torch.as_tensor(faces)]
        return float(
            torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1).sum()
        )

    assert area(points, surface.faces) == pytest.approx(area(head.template, head.faces), rel=0.02)
    normals = vertex_normals(points, torch.as_tensor(surface.faces))[: head.num_vertices]
    same = (normals * vertex_normals(head.template, head.faces)).sum(1)
    assert float(same.quantile(0.1)) > 0.99


def test_new_vertices_lie_on_a_rounder_surface():
    """Of a ball of few triangles."""
    head = load_head("open")
    surface = DetailedSurface(head, 64)
    ball = torch.nn.functional.normalize(head.template - head.template.mean(0), dim=1)
    radius = surface.vertices(ball, torch.zeros(64, 64))[head.num_vertices :].norm(dim=1)
    ends = surface._ends[0]
    flat = (ball[ends[:, 0]] + ball[ends[:, 1]]).norm(dim=1) / 2
    assert float((1 - radius).abs().median()) < 0.55 * float((1 - flat).abs().median())


def test_displacement_moves_vertices_along_their_normals(head, surface):
    atlas = detail_atlas(head, 64)
    height = 0.001 * atlas.mask
    plain, moved = (surface.vertices(head.template, part) for part in (0 * height, height))
    step = (moved - plain).norm(dim=1)
    normals = vertex_normals(head.template, head.faces)
    cheek = int((head.template - torch.tensor([0.04, -0.04, 0.09])).norm(dim=1).argmin())
    assert float(step[cheek]) == pytest.approx(0.001, rel=0.02)
    assert float(((moved - plain)[cheek] / step[cheek] * normals[cheek]).sum()) > 0.999
    assert float(step.max()) < 0.00101
    hair = torch.as_tensor(head.regions["scalp"]).nonzero()[:, 0]
    assert float(step[hair].max()) < 1e-4


def test_several_frames_at_once(head, surface):
    points = torch.stack([head.template, head.template + 0.1])
    maps = torch.rand(2, 64, 64) * 1e-3
    both = surface.vertices(points, maps)
    for k in range(2):
        torch.testing.assert_close(both[k], surface.vertices(points[k], maps[k]), atol=1e-6, rtol=0)
