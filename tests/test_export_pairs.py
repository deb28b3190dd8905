"""Heads with correctives of units and with quads, in scene files, meshes and the page."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import trimesh
from chromium import Page, find_chromium
from paired_heads import PAIR_NAMES, paired_capture, quad_capture, quad_head
from pxr import Usd, UsdGeom, UsdSkel
from test_export_gltf import CLOSE, Player
from test_export_gltf import largest_error as error_of_glb
from test_export_usd import complaints, face
from test_export_usd import largest_error as error_of_usd
from test_viewer_page import opened, positions_of

from avface.viewer.page import export_page


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """The open head with correctives."""
    return paired_capture(tmp_path_factory.mktemp("head"))


@pytest.fixture(scope="module")
def quads(tmp_path_factory):
    """A small head of quads with correctives, whose neck turns."""
    return quad_capture(tmp_path_factory.mktemp("head"))


@pytest.mark.parametrize("kind", ["capture", "quads"])
def test_playing_the_glb_gives_the_vertices_of_the_capture(kind, request, tmp_path):
    made = request.getfixturevalue(kind)

    assert error_of_glb(made, made.export(tmp_path / "head.glb")) < CLOSE


@pytest.mark.parametrize("kind", ["capture", "quads"])
def test_baking_the_usd_gives_the_vertices_of_the_capture(kind, request, tmp_path):
    made = request.getfixturevalue(kind)
    path = made.export(tmp_path / "head.usdc")

    assert error_of_usd(made, path) < CLOSE
    assert complaints(path) == []


def test_correctives_are_morph_targets_of_their_own_behind_the_units(capture, tmp_path):
    names = [*capture.expression_names, *PAIR_NAMES]
    gltf = Player(capture.export(tmp_path / "head.glb")).gltf
    assert next(mesh.extras["targetNames"] for mesh in gltf.meshes if mesh.extras) == names

    stage = Usd.Stage.Open(str(capture.export(tmp_path / "head.usdc")))
    assert (
        list(UsdSkel.BindingAPI(stage.GetPrimAtPath("/World/Head/Face")).GetBlendShapesAttr().Get()) == names
    )
    motion = UsdSkel.Animation(stage.GetPrimAtPath("/World/Head/Skeleton/Motion")).GetBlendShapeWeightsAttr()
    weights = np.array([motion.Get(code) for code in motion.GetTimeSamples()])
    left = weights[:, names.index("eyeBlinkLeft")]
    np.testing.assert_allclose(weights[:, 52], left * (1 - left), atol=1e-6)


def test_curves_have_no_correctives(capture, tmp_path):
    header = capture.export(tmp_path / "face.csv").read_text().splitlines()[0]

    assert not set(PAIR_NAMES) & set(header.split(",")) and "inbetween" not in header


def test_usd_has_quads_with_their_uvs_and_materials(quads, tmp_path):
    head = quad_head()
    path = quads.export(tmp_path / "head.usdc")
    mesh = face(path)
    triangle = head.quads[:, 2] == head.quads[:, 3]

    sides = np.array(mesh.GetFaceVertexCountsAttr().Get())
    np.testing.assert_array_equal(sides, np.where(triangle, 3, 4))
    corners = np.split(np.array(mesh.GetFaceVertexIndicesAttr().Get()), np.cumsum(sides)[:-1])
    uv = UsdGeom.PrimvarsAPI(mesh).GetPrimvar("st")
    places = np.split(np.array(uv.GetIndices()), np.cumsum(sides)[:-1])
    for number, count in enumerate(sides):
        np.testing.assert_array_equal(corners[number], head.quads[number, :count])
        np.testing.assert_array_equal(places[number], head.uv_quads[number, :count])
    np.testing.assert_allclose(np.array(uv.Get()), head.uv, atol=1e-6)
    subsets = UsdGeom.Subset.GetAllGeomSubsets(mesh)
    for subset in subsets:
        part = head.part_names.index(subset.GetPrim().GetName().removeprefix("part_"))
        np.testing.assert_array_equal(
            np.array(subset.GetIndicesAttr().Get()), np.flatnonzero(head.quad_parts == part)
        )
    assert len(subsets) == 2
    assert mesh.GetSubdivisionSchemeAttr().Get() == UsdGeom.Tokens.none


def test_obj_has_quads_with_their_uvs(quads, tmp_path):
    head = quad_head()
    quads.export(tmp_path / "face.obj", frames=[2])

    lines = (tmp_path / "face_000002.obj").read_text().splitlines()
    polygons = [line.split()[1:] for line in lines if line.startswith("f ")]
    assert len(polygons) == len(head.quads)
    for polygon, quad, uv_quad in zip(polygons, head.quads, head.uv_quads, strict=True):
        pairs = [tuple(map(int, corner.split("/"))) for corner in polygon]
        count = 3 if quad[2] == quad[3] else 4
        assert pairs == list(zip((quad[:count] + 1).tolist(), (uv_quad[:count] + 1).tolist(), strict=True))
    mesh = trimesh.load_mesh(tmp_path / "face_000002.obj")
    assert len(mesh.faces) == len(head.faces)


def test_ply_has_the_triangles_of_the_quads(quads, tmp_path):
    quads.export(tmp_path / "face.ply", frames=[2])

    mesh = trimesh.load_mesh(tmp_path / "face_000002.ply", process=False)
    np.testing.assert_array_equal(mesh.faces, quads.faces)
    np.testing.assert_allclose(mesh.vertices, quads.vertices(2)[0], atol=1e-8)


# Page


@pytest.fixture(scope="module")
def page(capture, tmp_path_factory):
    return export_page(capture, tmp_path_factory.mktemp("page") / "paired.html")


def test_the_page_shows_the_vertices_of_the_capture(capture, page):
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on this machine; install one or set AVFACE_CHROMIUM")
    with Page(program) as browser:
        opened(browser, page)
        for frame in range(len(capture)):
            error = np.linalg.norm(positions_of(browser, frame) - capture.vertices([frame])[0], axis=1).max()
            assert error < 1e-4, f"frame {frame} is {1e3 * error:.3f} mm off"
        assert browser.errors == []


def test_the_page_has_no_curves_of_correctives(page):
    text = page.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="capture">(.*?)</script>', text, re.S)

    curves = json.loads(found[1])["curves"]
    assert {unit for curve in curves for unit in curve["units"]} == set(range(52))
    assert not {curve["name"] for curve in curves} & set(PAIR_NAMES) and "inbetween" not in text
