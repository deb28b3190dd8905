from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from captures import moving_capture
from detail_captures import detail_capture
from export_heads import jawed_capture, still_capture, turned_neck_capture
from lip_captures import lip_capture
from pxr import Gf, Sdf, Usd, UsdGeom, UsdRender, UsdShade, UsdSkel

from avface.capture import Capture
from avface.capture.resampling import at_times
from avface.errors import AvfaceError
from avface.geometry.mesh import triangulate, vertex_normals
from avface.head.morphs import morph_targets

TO_SCENE = np.diag([1.0, -1.0, -1.0])
CLOSE = 1e-5  # metres; the promise is 1e-4


def complaints(path: Path) -> list[str]:
    """Findings of Pixar's validation, as `usdchecker` reports them."""
    try:
        from pxr import UsdValidation
    except ImportError:  # usd-core before 25
        from pxr import UsdUtils

        checker = UsdUtils.ComplianceChecker()
        checker.CheckCompliance(str(path))
        return [*checker.GetErrors(), *checker.GetFailedChecks(), *checker.GetWarnings()]
    context = UsdValidation.ValidationContext(UsdValidation.ValidationRegistry().GetOrLoadAllValidators())
    return [
        f"{error.GetName()}: {error.GetMessage()}" for error in context.Validate(Usd.Stage.Open(str(path)))
    ]


STAGES: dict[Path, Any] = {}
"""Opened stages; prims don't keep them alive."""


def face(path: Path) -> Any:
    STAGES[path] = Usd.Stage.Open(str(path))
    return UsdGeom.Mesh(STAGES[path].GetPrimAtPath("/World/Head/Face"))


def baked(path: Path) -> Any:
    """The mesh with Pixar's blend shapes and skinning baked into its points."""
    stage = STAGES[path] = Usd.Stage.Open(Sdf.Layer.OpenAsAnonymous(str(path)))
    root = UsdSkel.Root(stage.GetPrimAtPath("/World/Head"))
    codes = stage.GetStartTimeCode(), stage.GetEndTimeCode()
    assert UsdSkel.BakeSkinning(root, Gf.Interval(*codes))
    return UsdGeom.Mesh(stage.GetPrimAtPath("/World/Head/Face"))


def quads_of(mesh: Any, corners: Any = None) -> Any:
    """A mesh's polygons (Q, 4) of numbers of vertices, or of other values of their corners; triangles repeat the last
    one."""
    sides = np.array(mesh.GetFaceVertexCountsAttr().Get())
    assert set(sides) == {3, 4} and (sides == 4).mean() > 0.9
    ends = np.cumsum(sides)
    places = (ends - sides)[:, None] + np.minimum(np.arange(4), sides[:, None] - 1)
    return np.array(mesh.GetFaceVertexIndicesAttr().Get() if corners is None else corners)[places]


def codes_of(path: Path) -> list[float]:
    stage = Usd.Stage.Open(str(path))
    motion = UsdSkel.Animation(stage.GetPrimAtPath("/World/Head/Skeleton/Motion"))
    return motion.GetTranslationsAttr().GetTimeSamples()


def largest_error(capture: Capture, path: Path) -> float:
    mesh, codes = baked(path), codes_of(path)
    assert len(codes) == len(capture)
    return max(
        float(np.abs(np.array(mesh.GetPointsAttr().Get(code)) - vertices @ TO_SCENE).max())
        for code, vertices in zip(codes, capture.vertices(), strict=True)
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Capture, Path]:
    capture = replace(moving_capture(6), principal_point=(140.25, 131.5))
    return capture, capture.export(tmp_path_factory.mktemp("usd") / "head.usdc")


def test_baking_the_file_gives_the_vertices_of_the_capture(exported):
    capture, path = exported
    mesh = face(path)
    np.testing.assert_array_equal(triangulate(quads_of(mesh)), capture.faces)
    assert largest_error(capture, path) < CLOSE


def test_a_turned_neck_moves_vertices_exactly(tmp_path):
    capture = turned_neck_capture()
    assert largest_error(capture, capture.export(tmp_path / "head.usdc")) < CLOSE


def test_a_head_without_eyes_or_uvs_is_exported_exactly(tmp_path):
    capture = jawed_capture(tmp_path)
    path = capture.export(tmp_path / "head.usdc")
    assert not complaints(path)
    assert largest_error(capture, path) < CLOSE


def test_lips_are_blend_shapes_after_the_units(tmp_path):
    capture = replace(lip_capture(5), joints=turned_neck_capture(5).joints)
    path = capture.export(tmp_path / "head.usdc")

    assert complaints(path) == []
    assert largest_error(capture, path) < CLOSE
    stage = Usd.Stage.Open(str(path))
    binding = UsdSkel.BindingAPI(stage.GetPrimAtPath("/World/Head/Face"))
    units = morph_targets(capture.head_model, capture.shape).names
    assert list(binding.GetBlendShapesAttr().Get())[len(units) :] == [
        f"lips_{number}_{end}" for number in range(3) for end in ("plus", "minus")
    ]
    motion = UsdSkel.Animation(stage.GetPrimAtPath("/World/Head/Skeleton/Motion")).GetBlendShapeWeightsAttr()
    weights = np.array([motion.Get(code) for code in motion.GetTimeSamples()])
    assert weights.min() == 0 and weights.max() <= 1, "importers clamp them"


def test_pixars_validation_has_no_findings(exported):
    assert complaints(exported[1]) == []


def test_validation_would_find_a_broken_file(exported, tmp_path):
    stage = Usd.Stage.Open(str(exported[1]))
    stage.SetDefaultPrim(stage.DefinePrim("/Other", "Mesh"))
    UsdSkel.BindingAPI.Apply(stage.GetPrimAtPath("/Other"))
    stage.Export(str(tmp_path / "broken.usda"))
    assert complaints(tmp_path / "broken.usda")


def test_text_and_binary_files_have_the_same_content(exported, tmp_path):
    capture, path = exported
    text = capture.export(tmp_path / "head.usda")
    assert text.read_bytes().startswith(b"#usda")
    assert path.read_bytes().startswith(b"PXR-USDC")
    contents = [Sdf.Layer.OpenAsAnonymous(str(file)).ExportToString() for file in (path, text)]
    assert contents[0] == contents[1]
    assert largest_error(capture, text) < CLOSE


def test_the_stage_is_in_metres_with_y_up_and_time_in_frames(exported):
    capture, path = exported
    stage = Usd.Stage.Open(str(path))
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1
    assert UsdGeom.GetStageUpAxis(stage) == UsdGeom.Tokens.y
    assert stage.GetTimeCodesPerSecond() == 25
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode()) == (0, 5)
    assert codes_of(path) == [0, 1, 2, 3, 4, 5]
    facts = stage.GetRootLayer().customLayerData["avface"]
    assert facts["source"] == capture.source
    assert list(facts["image_size"]) == [320, 240]
    assert list(facts["principal_point"]) == [140.25, 131.5]


def test_uneven_frames_keep_their_true_times(tmp_path):
    times = np.array([0.0, 0.033, 0.08, 0.1, 0.3, 0.31])
    path = replace(moving_capture(6), times=times).export(tmp_path / "head.usdc")
    rate = Usd.Stage.Open(str(path)).GetTimeCodesPerSecond()
    np.testing.assert_allclose(np.array(codes_of(path)) / rate, times, atol=1e-4)


def test_ntsc_rates_give_whole_time_codes(tmp_path):
    times = np.arange(30) * 1001 / 30000
    path = replace(moving_capture(30), times=times).export(tmp_path / "head.usdc")
    assert codes_of(path) == list(range(30))
    rate = Usd.Stage.Open(str(path)).GetTimeCodesPerSecond()
    assert rate == pytest.approx(30000 / 1001, abs=1e-8)


def test_the_camera_puts_vertices_on_the_pixels_of_the_capture(exported):
    capture, path = exported
    stage = Usd.Stage.Open(str(path))
    frustum = UsdGeom.Camera(stage.GetPrimAtPath("/World/Camera")).GetCamera(0).frustum
    to_clip = np.array(frustum.ComputeViewMatrix() * frustum.ComputeProjectionMatrix())
    points = np.array(baked(path).GetPointsAttr().Get(2))
    clip = np.concatenate([points, np.ones((len(points), 1))], 1) @ to_clip
    width, height = capture.image_size
    x, y, depth = (clip[:, :3] / clip[:, 3:]).T
    pixels = np.stack([(x + 1) / 2 * width - 0.5, (1 - y) / 2 * height - 0.5], 1)
    truth = capture.camera.project(torch.as_tensor(capture.vertices(2)[0])).numpy()
    assert np.abs(pixels - truth).max() < 1e-2
    assert (np.abs(depth) < 1).all(), "between the clipping planes"


def test_blend_shapes_have_the_names_of_the_units_and_store_moved_vertices_only(exported):
    capture, path = exported
    stage = Usd.Stage.Open(str(path))
    binding = UsdSkel.BindingAPI(stage.GetPrimAtPath("/World/Head/Face"))
    names = list(binding.GetBlendShapesAttr().Get())
    assert names[:52] == list(capture.expression_names)
    assert names == list(morph_targets(capture.head_model, capture.shape).names)
    stored = 0
    for target in binding.GetBlendShapeTargetsRel().GetTargets():
        unit = UsdSkel.BlendShape(stage.GetPrimAtPath(target))
        stored += len(unit.GetPointIndicesAttr().Get())
    assert 0 < stored < 0.35 * len(names) * capture.head_model.num_vertices


def test_the_skeleton_has_the_head_as_root_of_its_joints(exported):
    stage = Usd.Stage.Open(str(exported[1]))
    skeleton = UsdSkel.Skeleton(stage.GetPrimAtPath("/World/Head/Skeleton"))
    joints = list(skeleton.GetJointsAttr().Get())
    assert joints == ["head", "head/neck", "head/neck/left_eye", "head/neck/right_eye"]
    bind = dict(zip(joints, skeleton.GetBindTransformsAttr().Get(), strict=True))
    for joint, rest in zip(joints, skeleton.GetRestTransformsAttr().Get(), strict=True):
        parent = bind.get(joint.rpartition("/")[0], Gf.Matrix4d(1))
        assert Gf.IsClose(rest * parent, bind[joint], 1e-9), joint


def test_baked_normals_follow_the_moved_surface(tmp_path):
    capture = still_capture()
    capture.expression[0, capture.expression_names.index("jawOpen")] = 1
    path = capture.export(tmp_path / "head.usdc")
    normals = np.array(baked(path).GetNormalsAttr().Get(0))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    vertices = torch.as_tensor(capture.vertices(0)[0] @ TO_SCENE.astype(np.float32))
    truth = vertex_normals(vertices, torch.as_tensor(capture.faces)).numpy()
    assert np.percentile(np.abs(normals - truth).max(1), 99) < 0.01


def test_every_face_is_in_one_subset_with_a_bound_material(exported):
    capture, path = exported
    mesh = face(path)
    subsets = UsdGeom.Subset.GetGeomSubsets(mesh, UsdGeom.Tokens.face, UsdShade.Tokens.materialBind)
    assert len(subsets) == len(capture.head_model.part_names)
    faces = np.concatenate([np.array(subset.GetIndicesAttr().Get()) for subset in subsets])
    np.testing.assert_array_equal(np.sort(faces), np.arange(len(mesh.GetFaceVertexCountsAttr().Get())))
    for subset in subsets:
        material, _ = UsdShade.MaterialBindingAPI(subset.GetPrim()).ComputeBoundMaterial()
        shader = material.ComputeSurfaceSource()[0]
        assert shader.GetIdAttr().Get() == "UsdPreviewSurface"


def test_texture_coordinates_are_those_of_the_head(exported):
    capture, path = exported
    mesh = face(path)
    st = UsdGeom.PrimvarsAPI(mesh).GetPrimvar("st")
    assert st.GetInterpolation() == UsdGeom.Tokens.faceVarying
    head = capture.head_model
    np.testing.assert_array_equal(quads_of(mesh, st.ComputeFlattened()), head.uv[head.uv_quads])


def test_the_extent_contains_the_head_in_every_frame(exported):
    capture, path = exported
    stage = Usd.Stage.Open(str(path))
    root = UsdGeom.Boundable(stage.GetPrimAtPath("/World/Head"))
    for code, vertices in zip(codes_of(path), capture.vertices(), strict=True):
        low, high = np.array(root.GetExtentAttr().Get(code))
        points = vertices @ TO_SCENE
        assert (points > low).all() and (points < high).all()
        assert (high - low).max() < 3 * np.ptp(points, axis=0).max()


def test_one_frame_and_none_at_all_are_exported(tmp_path):
    one = moving_capture(3).select(1)
    assert largest_error(one, one.export(tmp_path / "one.usdc")) < CLOSE
    path = moving_capture(3).select(slice(0, 0)).export(tmp_path / "none.usdc")
    assert codes_of(path) == [] and not complaints(path)


def test_a_missing_folder_is_refused_in_one_line(exported, tmp_path):
    with pytest.raises(AvfaceError, match=r"doesn't exist") as caught:
        exported[0].export(tmp_path / "nowhere" / "head.usdc")
    assert "\n" not in str(caught.value)


def test_a_failed_write_is_refused_in_one_line_and_leaves_nothing(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(Sdf.Layer, "Export", lambda layer, path: False)
    with pytest.raises(AvfaceError, match=r"can't be written"):
        exported[0].export(tmp_path / "head.usdc")
    assert not list(tmp_path.iterdir())


def test_keys_can_have_a_constant_rate(tmp_path):
    capture = replace(lip_capture(6), times=np.array([0.0, 0.033, 0.08, 0.1, 0.3, 0.31]))
    path = capture.export(tmp_path / "head.usdc", fps=30)
    assert Usd.Stage.Open(str(path)).GetTimeCodesPerSecond() == 30
    assert codes_of(path) == list(range(11))
    assert largest_error(at_times(capture, np.arange(11) / 30), path) < CLOSE


def test_materials_have_the_colours_of_the_page_and_the_skin_its_normal_map(tmp_path):
    path = detail_capture(2).export(tmp_path / "take.usda")

    assert complaints(path) == []
    assert sorted(item.name for item in tmp_path.iterdir()) == [
        "take.usda",
        "take_colour.png",
        "take_normal.png",
    ]
    stage = Usd.Stage.Open(str(path))
    shaders = [UsdShade.Shader(prim) for prim in stage.Traverse() if prim.IsA(UsdShade.Shader)]
    textures = [shader for shader in shaders if shader.GetIdAttr().Get() == "UsdUVTexture"]
    files = {shader.GetPath().name: shader.GetInput("file").Get().path for shader in textures}
    assert files == {"BaseColour": "./take_colour.png", "Normal": "./take_normal.png"}
    surfaces = {
        str(shader.GetPath().GetParentPath().name): shader
        for shader in shaders
        if shader.GetIdAttr().Get() == "UsdPreviewSurface"
    }
    parts = {"skin", "mouth", "teeth", "gums", "tongue", "sclera", "tears", "iris", "pupil"}
    assert set(surfaces) == parts
    assert all(shader.GetInput("diffuseColor").HasConnectedSource() for shader in surfaces.values())
    assert [name for name, shader in surfaces.items() if shader.GetInput("normal")] == ["skin"]
    assert cv2.imread(str(tmp_path / "take_colour.png")).shape == (1024, 1024, 3)


def test_the_scene_names_its_camera_range_and_resolution(exported):
    capture, path = exported
    stage = Usd.Stage.Open(str(path))
    settings = UsdRender.Settings.GetStageRenderSettings(stage)
    assert settings.GetCameraRel().GetTargets() == ["/World/Camera"]
    assert tuple(settings.GetResolutionAttr().Get()) == capture.image_size
    assert stage.GetRootLayer().customLayerData["cameraSettings"]["boundCamera"] == "/World/Camera"
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode()) == (0, 5)
