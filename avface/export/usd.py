"""Animated USD: UsdSkel blend shapes and joints, and the camera."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from avface import __version__
from avface.arrays import F32, U8, Floats, Ints
from avface.capture.resampling import at_constant_rate
from avface.errors import AvfaceError
from avface.export.base_colour import base_colour_map
from avface.export.materials import SKIN, Material, part_material, png
from avface.export.morphs import scene_morphs
from avface.export.normal_map import static_normal_map
from avface.export.pose import FAR, NEAR, head_motion, matrices, quaternions, scene_metadata
from avface.files import replacing
from avface.files.names import on_disk, readable
from avface.files.temporary import temporary_folder

if TYPE_CHECKING:
    from avface.capture import Capture
    from avface.head.model import HeadModel
    from avface.head.morphs import MorphMotion

APERTURE_WIDTH = 0.36
"""Horizontal aperture of the exported camera, 36 mm in tenths of the scene's unit (metres), as USD requires."""

DEFAULT_RATE = 24.0
"""Frames per second for captures of fewer than two frames."""

CAMERA = "/World/Camera"

ROOT = "head"
"""Name of the root joint, which has the head's pose."""


def export_usd(capture: Capture, path: str | Path, *, fps: float | None = None) -> Path:
    """Write the capture as an animated .usdc (binary) or .usda (text); returns its path.

    The scene is in metres, y up, with the video's camera at the origin; its principal point is an aperture offset. The
    head is a UsdSkel mesh of the head's quads, or triangles if it has none: a blend shape per expression unit and
    corrective of units, a pair of them per pose corrective and component of the lip refinement, all with weights from 0
    to 1 (`scene_morphs`), a skeleton of the head and its joints, and one animation; a geometry subset and a material
    for each part. It isn't a subdivision surface, which would not pass through the fitted vertices.

    Time codes are the capture's true times in frames at its frame rate, or whole numbers at `fps` frames per second
    (`avface.capture.resampling`).

    Textures are files beside it, since USD can't contain them: `<name>_colour.png`, and with detail
    `<name>_normal.png`, the normal map of its static displacement.

    Raises:
        AvfaceError: if `fps` isn't a number from 1 to 1000, or the file can't be written.
    """
    from pxr import Sdf, Tf, Usd, UsdGeom

    path = Path(path)
    if fps is not None:
        capture = at_constant_rate(capture, fps)
    layer = Sdf.Layer.CreateAnonymous(path.suffix)
    stage = Usd.Stage.Open(layer)
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    rate = fps or round(capture.frame_rate, 9) or DEFAULT_RATE
    codes = [float(code) for code in np.round(capture.times * rate, 4)]  # whole numbers at a constant rate
    stage.SetTimeCodesPerSecond(rate)
    stage.SetFramesPerSecond(rate)
    stage.SetStartTimeCode(codes[0] if codes else 0.0)
    stage.SetEndTimeCode(codes[-1] if codes else 0.0)
    layer.comment = f"avface {__version__}"
    layer.customLayerData = {
        "avface": _usd_values(scene_metadata(capture)),
        "cameraSettings": {"boundCamera": CAMERA},  # Omniverse's active camera
    }
    world = UsdGeom.Xform.Define(stage, "/World")
    stage.SetDefaultPrim(world.GetPrim())
    _define_camera(stage, capture)
    textures = _textures(capture)
    files = texture_files(capture, path)
    # stored in the scene as UTF-8
    _define_head(stage, capture, codes, {kind: readable(file.name) for kind, file in files.items()})
    with replacing(path) as temporary:
        try:
            written = _export(layer, temporary)
        except Tf.ErrorException:
            written = False
        if not written:
            raise AvfaceError(f"{path}: can't be written; is the disk full? Choose another folder")
        for kind, image in textures.items():
            with replacing(files[kind]) as texture:
                texture.write_bytes(png(image).tobytes())
    return path


def texture_files(capture: Capture, path: Path) -> dict[str, Path]:
    """The .png files that `export_usd` writes beside a scene, by kind: the base colour "colour" of heads with texture
    coordinates, and the "normal" map of captures with detail."""
    kinds = {"colour": len(capture.head_model.uv) > 0, "normal": capture.detail is not None}
    names = {kind: f"{readable(path.stem)}_{kind}.png" for kind, present in kinds.items() if present}
    return {kind: path.with_name(on_disk(name)) for kind, name in names.items()}


def _export(layer: Any, path: Path) -> bool:
    """Write a layer; USD itself takes no paths but those in UTF-8."""
    if readable(str(path)) == str(path):
        return bool(layer.Export(str(path)))
    with temporary_folder() as folder:
        written = bool(layer.Export(str(folder / f"layer{path.suffix}")))
        if written:
            shutil.copyfile(folder / f"layer{path.suffix}", path)
    return written


def _textures(capture: Capture) -> dict[str, U8]:
    """Images (S, S, 3) of `texture_files`, by kind."""
    head = capture.head_model
    colours = base_colour_map(head)
    textures = {} if colours is None else {"colour": colours}
    if capture.detail is not None:
        textures["normal"] = static_normal_map(head, capture.detail)
    return textures


def _usd_values(metadata: dict[str, object]) -> dict[str, object]:
    """Metadata in types that USD stores: lists become arrays."""
    from pxr import Vt

    return {
        key: Vt.DoubleArray([float(item) for item in value]) if isinstance(value, list) else value
        for key, value in metadata.items()
    }


def _define_camera(stage: Any, capture: Capture) -> None:
    from pxr import Gf, UsdGeom, UsdRender

    width, height = capture.image_size
    pixel = APERTURE_WIDTH / width
    x, y = capture.principal_point
    camera = UsdGeom.Camera.Define(stage, CAMERA)
    camera.CreateProjectionAttr(UsdGeom.Tokens.perspective)
    camera.CreateFocalLengthAttr(capture.focal_length * pixel)
    camera.CreateHorizontalApertureAttr(width * pixel)
    camera.CreateVerticalApertureAttr(height * pixel)
    # The offset shifts the aperture right and up; the middle of the picture is at ((w - 1) / 2, (h - 1) / 2).
    camera.CreateHorizontalApertureOffsetAttr(((width - 1) / 2 - x) * pixel)
    camera.CreateVerticalApertureOffsetAttr((y - (height - 1) / 2) * pixel)
    camera.CreateClippingRangeAttr(Gf.Vec2f(NEAR, FAR))
    # The camera that renders, and its resolution: what USD has for an active camera.
    UsdGeom.Scope.Define(stage, "/Render")
    settings = UsdRender.Settings.Define(stage, "/Render/Settings")
    settings.CreateCameraRel().SetTargets([camera.GetPath()])
    settings.CreateResolutionAttr(Gf.Vec2i(width, height))
    stage.SetMetadata("renderSettingsPrimPath", "/Render/Settings")


def _define_head(stage: Any, capture: Capture, codes: list[float], textures: dict[str, str]) -> None:
    """Define mesh, materials, skeleton and animation; textures: names of the texture files by kind."""
    import torch
    from pxr import Gf, Sdf, Tf, UsdGeom, UsdSkel, Vt

    from avface.export.normals import morphed_normals

    head = capture.head_model
    shape = torch.as_tensor(capture.shape)
    rest = head.neutral(shape)
    vertices = rest.numpy()
    morphs, offsets, motion = scene_morphs(capture)
    normals, normal_offsets = morphed_normals(head, rest, offsets)
    pivots = head.joint_positions(shape).numpy()

    root = UsdSkel.Root.Define(stage, "/World/Head")
    mesh = UsdGeom.Mesh.Define(stage, "/World/Head/Face")
    mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    mesh.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(vertices))
    mesh.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(normals))
    mesh.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    sides, corners, uv_corners, parts = _polygons(head)
    mesh.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(sides))
    mesh.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(corners))
    mesh.CreateExtentAttr(Vt.Vec3fArray.FromNumpy(np.stack([vertices.min(0), vertices.max(0)])))
    mesh.CreateDoubleSidedAttr(True)  # the head is open at the neck
    if len(head.uv):
        uv = UsdGeom.PrimvarsAPI(mesh).CreatePrimvar(
            "st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.faceVarying
        )
        uv.Set(Vt.Vec2fArray.FromNumpy(head.uv))
        uv.SetIndices(Vt.IntArray.FromNumpy(uv_corners))
    _bind_materials(stage, mesh, head, parts, textures)

    tokens = _joint_tokens(head)
    skeleton = UsdSkel.Skeleton.Define(stage, "/World/Head/Skeleton")
    skeleton.CreateJointsAttr(tokens)
    positions = np.concatenate([np.zeros((1, 3)), pivots])
    parents = np.concatenate([np.zeros((1, 3)), positions[1 + np.array(head.joint_parents, int)]])
    for create, translations in (
        (skeleton.CreateBindTransformsAttr, positions),
        (skeleton.CreateRestTransformsAttr, positions - parents),
    ):
        create([Gf.Matrix4d().SetTranslate(Gf.Vec3d(*translation)) for translation in translations.tolist()])
    animation = UsdSkel.Animation.Define(stage, "/World/Head/Skeleton/Motion")
    UsdSkel.BindingAPI.Apply(skeleton.GetPrim()).CreateAnimationSourceRel().SetTargets([animation.GetPath()])

    binding = UsdSkel.BindingAPI.Apply(mesh.GetPrim())
    binding.CreateSkeletonRel().SetTargets([skeleton.GetPath()])
    binding.CreateGeomBindTransformAttr(Gf.Matrix4d(1))
    influences, weights = _influences(head.skin_weights.numpy())
    per_vertex = influences.shape[1]
    binding.CreateJointIndicesPrimvar(False, per_vertex).Set(Vt.IntArray.FromNumpy(influences.ravel()))
    binding.CreateJointWeightsPrimvar(False, per_vertex).Set(Vt.FloatArray.FromNumpy(weights.ravel()))

    names = [Tf.MakeValidIdentifier(name) for name in morphs]
    targets = []
    for name, offset, change in zip(names, offsets, normal_offsets, strict=True):
        unit = UsdSkel.BlendShape.Define(stage, mesh.GetPath().AppendChild(name))
        moved = np.flatnonzero(offset.any(1) | change.any(1))
        unit.CreateOffsetsAttr(Vt.Vec3fArray.FromNumpy(offset[moved]))
        unit.CreateNormalOffsetsAttr(Vt.Vec3fArray.FromNumpy(change[moved]))
        unit.CreatePointIndicesAttr(Vt.IntArray.FromNumpy(moved.astype(np.int32)))
        targets.append(unit.GetPath())
    binding.CreateBlendShapesAttr(names)
    binding.CreateBlendShapeTargetsRel().SetTargets(targets)

    strongest = np.abs(motion.weights).max(0, initial=1)  # at least 1, since users may raise the weights
    radius = np.linalg.norm(vertices, axis=1).max() + np.tensordot(strongest, np.abs(offsets), 1).max()
    _animate(
        capture, codes, animation, root, tokens, names, positions - parents, pivots, motion, float(radius)
    )


def _joint_tokens(head: HeadModel) -> list[str]:
    """Paths of the joints in the skeleton, the root first."""
    from pxr import Tf

    tokens = [ROOT]
    for name, parent in zip(head.joint_names, head.joint_parents, strict=True):
        tokens.append(f"{tokens[1 + parent]}/{Tf.MakeValidIdentifier(name)}")
    return tokens


def _influences(weights: Floats) -> tuple[npt.NDArray[np.int32], F32]:
    """Joints (V, K) of each vertex and their weights (V, K); K is the largest number of joints of a vertex."""
    most = int((weights > 0).sum(1).max())
    order = np.argsort(-weights, axis=1, kind="stable")[:, :most]
    return order.astype(np.int32), np.take_along_axis(weights, order, 1).astype(np.float32)


def _polygons(head: HeadModel) -> tuple[npt.NDArray[np.int32], ...]:
    """Sides (Q,), corners and UV corners (sum of sides,), and parts (Q,) of the head's quads, or of its triangles if it
    has none."""
    if not len(head.quads):
        faces = head.faces.numpy()
        whole = np.full(faces.shape, True)
        polygons, uv_polygons, parts = faces, head.uv_faces, head.face_parts
    else:
        polygons, uv_polygons, parts = head.quads, head.uv_quads, head.quad_parts
        whole = np.full(polygons.shape, True)
        whole[:, 3] = polygons[:, 2] != polygons[:, 3]
    uv_corners = uv_polygons[whole[: len(uv_polygons)]]
    return tuple(each.astype(np.int32) for each in (whole.sum(1), polygons[whole], uv_corners, parts))


def _bind_materials(stage: Any, mesh: Any, head: HeadModel, parts: Ints, textures: dict[str, str]) -> None:
    """Define a geometry subset for each part, bound to the part's material; parts (Q,) of the polygons."""
    from pxr import Tf, UsdGeom, UsdShade, Vt

    UsdGeom.Scope.Define(stage, "/World/Materials")
    for number, part in enumerate(head.part_names):
        faces = np.flatnonzero(parts == number).astype(np.int32)
        if not len(faces):
            continue
        subset = UsdGeom.Subset.CreateGeomSubset(
            mesh,
            Tf.MakeValidIdentifier(f"part_{part}"),
            UsdGeom.Tokens.face,
            Vt.IntArray.FromNumpy(faces),
            UsdShade.Tokens.materialBind,
        )
        material = _define_material(stage, part_material(part), textures)
        UsdShade.MaterialBindingAPI.Apply(subset.GetPrim()).Bind(material)
    UsdGeom.Subset.SetFamilyType(mesh, UsdShade.Tokens.materialBind, UsdGeom.Tokens.partition)


def _define_material(stage: Any, source: Material, textures: dict[str, str]) -> Any:
    """The material of a part, defined on first use."""
    from pxr import Gf, Sdf, UsdShade

    path = f"/World/Materials/{source.name}"
    if stage.GetPrimAtPath(path):
        return UsdShade.Material(stage.GetPrimAtPath(path))
    material = UsdShade.Material.Define(stage, path)
    shader = UsdShade.Shader.Define(stage, material.GetPath().AppendChild("Surface"))
    shader.CreateIdAttr("UsdPreviewSurface")
    colour = shader.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f)
    if "colour" in textures:
        colour.ConnectToSource(_define_texture(stage, material, "BaseColour", textures["colour"], "sRGB"))
    else:
        colour.Set(Gf.Vec3f(*source.colour))
    if source == SKIN and "normal" in textures:
        normal = _define_texture(stage, material, "Normal", textures["normal"], "raw")
        shader.CreateInput("normal", Sdf.ValueTypeNames.Normal3f).ConnectToSource(normal)
    shader.CreateInput("roughness", Sdf.ValueTypeNames.Float).Set(source.roughness)
    shader.CreateInput("metallic", Sdf.ValueTypeNames.Float).Set(0.0)
    material.CreateSurfaceOutput().ConnectToSource(shader.CreateOutput("surface", Sdf.ValueTypeNames.Token))
    return material


def _define_texture(stage: Any, material: Any, name: str, file: str, space: str) -> Any:
    """A texture at the mesh's UVs in a material; returns its colour output."""
    from pxr import Gf, Sdf, UsdShade

    reader = UsdShade.Shader.Define(stage, material.GetPath().AppendChild("TextureCoordinates"))
    reader.CreateIdAttr("UsdPrimvarReader_float2")
    reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set("st")
    texture = UsdShade.Shader.Define(stage, material.GetPath().AppendChild(name))
    texture.CreateIdAttr("UsdUVTexture")
    texture.CreateInput("file", Sdf.ValueTypeNames.Asset).Set(f"./{file}")
    texture.CreateInput("sourceColorSpace", Sdf.ValueTypeNames.Token).Set(space)
    texture.CreateInput("st", Sdf.ValueTypeNames.Float2).ConnectToSource(
        reader.CreateOutput("result", Sdf.ValueTypeNames.Float2)
    )
    for side in ("wrapS", "wrapT"):
        texture.CreateInput(side, Sdf.ValueTypeNames.Token).Set("clamp")
    if space == "raw":  # a normal map stores -1 to 1 as 0 to 1
        texture.CreateInput("scale", Sdf.ValueTypeNames.Float4).Set(Gf.Vec4f(2, 2, 2, 1))
        texture.CreateInput("bias", Sdf.ValueTypeNames.Float4).Set(Gf.Vec4f(-1, -1, -1, 0))
    return texture.CreateOutput("rgb", Sdf.ValueTypeNames.Float3)


def _animate(
    capture: Capture,
    codes: list[float],
    animation: Any,
    root: Any,
    tokens: list[str],
    names: list[str],
    rest: Floats,
    pivots: Floats,
    motion: MorphMotion,
    radius: float,
) -> None:
    """Write keyframes of joints, weights and the head's extent.

    rest (J + 1, 3): positions of the joints relative to their parents; pivots (J, 3): positions in the head.
    """
    from pxr import UsdGeom, Vt

    head_rotations, head_translations = head_motion(capture)
    local = [matrices(motion.rotations[:, j]) for j in range(len(capture.joint_names))]
    rotations = np.stack([quaternions(each) for each in (head_rotations, *local)], 1).astype(np.float32)
    animation.CreateJointsAttr(tokens)
    animation.CreateBlendShapesAttr(names)
    animation.CreateScalesAttr(Vt.Vec3hArray(len(tokens), (1, 1, 1)))
    translations = animation.CreateTranslationsAttr(Vt.Vec3fArray.FromNumpy(rest.astype(np.float32)))
    joint_rotations = animation.CreateRotationsAttr(
        Vt.QuatfArray.FromNumpy(np.tile(np.array([0, 0, 0, 1], np.float32), (len(tokens), 1)))
    )
    weights = animation.CreateBlendShapeWeightsAttr(Vt.FloatArray(len(names)))
    extent = UsdGeom.Boundable(root).CreateExtentAttr()
    if not codes:
        extent.Set(Vt.Vec3fArray([(-radius, -radius, -radius), (radius, radius, radius)]))
    for row, code in enumerate(codes):
        now = rest.astype(np.float32)
        now[0] = head_translations[row]
        if capture.head_model.joints_follow_expression:
            now[1:] += motion.places[row] - pivots
        translations.Set(Vt.Vec3fArray.FromNumpy(now), code)
        joint_rotations.Set(Vt.QuatfArray.FromNumpy(rotations[row]), code)
        weights.Set(Vt.FloatArray.FromNumpy(motion.weights[row].astype(np.float32)), code)
        extent.Set(Vt.Vec3fArray.FromNumpy(np.stack([now[0] - radius, now[0] + radius])), code)
