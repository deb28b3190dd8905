from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pygltflib
import pytest
import torch
import trimesh
from captures import moving_capture
from detail_captures import detail_capture
from export_heads import jawed_capture, still_capture, turned_neck_capture
from lip_captures import lip_capture
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from avface.capture import Capture
from avface.capture.resampling import at_times
from avface.errors import AvfaceError
from avface.export.base_colour import base_colour_map, base_colour_png
from avface.geometry.mesh import vertex_normals
from avface.head import load_head
from avface.head.appearance import PART_COLOURS, vertex_colours
from avface.head.morphs import morph_targets
from avface.head.skin.atlas import detail_atlas

TO_SCENE = np.diag([1.0, -1.0, -1.0])
TYPES = {5123: np.uint16, 5125: np.uint32, 5126: np.float32}
SIZES = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
CLOSE = 1e-5  # metres; the promise is 1e-4

Array = npt.NDArray[np.floating]


class Player:
    """Plays a .glb according to the glTF 2.0 specification, sharing no code with the exporter."""

    def __init__(self, path: Path):
        self.gltf = pygltflib.GLTF2.load(str(path))
        self.blob = self.gltf.binary_blob()

    def read(self, number: int) -> Array:
        accessor = self.gltf.accessors[number]
        width = SIZES[accessor.type]
        view = self.gltf.bufferViews[accessor.bufferView]
        dtype = TYPES[accessor.componentType]
        start = view.byteOffset + (accessor.byteOffset or 0)
        values = np.frombuffer(self.blob, dtype, accessor.count * width, start).reshape(-1, width).copy()
        if accessor.sparse:
            places, changed = accessor.sparse.indices, accessor.sparse.values
            start = self.gltf.bufferViews[places.bufferView].byteOffset + places.byteOffset
            rows = np.frombuffer(self.blob, TYPES[places.componentType], accessor.sparse.count, start)
            assert (np.diff(rows.astype(int)) > 0).all()
            start = self.gltf.bufferViews[changed.bufferView].byteOffset + changed.byteOffset
            values[rows] = np.frombuffer(self.blob, dtype, len(rows) * width, start).reshape(-1, width)
        if accessor.min:
            np.testing.assert_array_equal(values.min(0), np.array(accessor.min, dtype))
            np.testing.assert_array_equal(values.max(0), np.array(accessor.max, dtype))
        return values

    def triangles(self, key: int | None) -> Array:
        """Corners (F, 3, 3) of every triangle in the scene at the animation's key, or as the file rests."""
        pose: dict[tuple[int, str], Array] = {}
        if key is not None:
            animation = self.gltf.animations[0]
            for channel in animation.channels:
                sampler = animation.samplers[channel.sampler]
                keys = self.read(sampler.output)
                keys = keys.reshape(len(self.read(sampler.input)), -1)
                pose[channel.target.node, channel.target.path] = keys[key]
        places: dict[int, Array] = {}

        def visit(number: int, above: Array) -> None:
            node = self.gltf.nodes[number]
            local = np.eye(4)
            turn = pose.get((number, "rotation"), node.rotation or [0, 0, 0, 1])
            local[:3, :3] = Rotation.from_quat(turn).as_matrix()
            local[:3, 3] = pose.get((number, "translation"), node.translation or [0, 0, 0])
            places[number] = above @ local
            for child in node.children or []:
                visit(child, places[number])

        for root in self.gltf.scenes[self.gltf.scene].nodes:
            visit(root, np.eye(4))
        corners = []
        for number, place in places.items():
            node = self.gltf.nodes[number]
            if node.mesh is None:
                continue
            mesh = self.gltf.meshes[node.mesh]
            names = (mesh.extras or {}).get("targetNames", [])
            weights = pose.get((number, "weights"), mesh.weights or [0.0] * len(names))
            for primitive in mesh.primitives:
                points = self.read(primitive.attributes.POSITION).astype(float)
                for weight, target in zip(weights, primitive.targets or [], strict=True):
                    points += weight * self.read(target["POSITION"])
                points = np.concatenate([points, np.ones((len(points), 1))], 1)
                if node.skin is None:
                    points = points @ place.T
                else:
                    points = self.skin(self.gltf.skins[node.skin], primitive.attributes, points, places)
                corners.append(points[self.read(primitive.indices)[:, 0].reshape(-1, 3), :3])
        return np.concatenate(corners)

    def skin(
        self, skin: pygltflib.Skin, attributes: object, points: Array, places: dict[int, Array]
    ) -> Array:
        inverse = self.read(skin.inverseBindMatrices).reshape(-1, 4, 4).transpose(0, 2, 1)
        moves = np.stack([places[joint] for joint in skin.joints]) @ inverse
        total, moved, number = np.zeros(len(points)), np.zeros_like(points), 0
        while getattr(attributes, f"JOINTS_{number}", None) is not None:
            joints = self.read(getattr(attributes, f"JOINTS_{number}"))
            weights = self.read(getattr(attributes, f"WEIGHTS_{number}"))
            moved += np.einsum("vk,vkij,vj->vi", weights, moves[joints], points)
            total += weights.sum(1)
            number += 1
        np.testing.assert_allclose(total, 1, atol=1e-5)
        return moved


def scene_triangles(capture: Capture, frame: int) -> Array:
    return (capture.vertices(frame)[0].astype(float) @ TO_SCENE)[capture.faces]


def largest_error(capture: Capture, path: Path) -> float:
    """Over all frames; triangles are matched in the first and keep their partners."""
    player = Player(path)
    truth = scene_triangles(capture, 0).reshape(-1, 9)
    _, partner = cKDTree(truth).query(player.triangles(0).reshape(-1, 9))
    assert sorted(partner) == list(range(len(truth))), "every triangle is there once"
    return max(
        float(np.abs(player.triangles(frame) - scene_triangles(capture, frame)[partner]).max())
        for frame in range(len(capture))
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Capture, Path]:
    capture = moving_capture(6)
    return capture, capture.export(tmp_path_factory.mktemp("glb") / "head.glb")


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> tuple[Capture, Path]:
    capture = still_capture()
    return capture, capture.export(tmp_path_factory.mktemp("glb") / "still.glb", title="Take 3")


def test_playing_the_file_gives_the_vertices_of_the_capture(exported):
    capture, path = exported
    assert largest_error(capture, path) < CLOSE


def test_a_turned_neck_becomes_a_skin_that_moves_vertices_exactly(tmp_path):
    capture = turned_neck_capture()
    path = capture.export(tmp_path / "head.glb")
    assert len(Player(path).gltf.skins) == 1
    assert largest_error(capture, path) < CLOSE


def test_a_head_without_eyes_or_uvs_is_exported_exactly(tmp_path):
    capture = jawed_capture(tmp_path)
    assert largest_error(capture, capture.export(tmp_path / "head.glb")) < CLOSE


def unit_targets(capture: Capture) -> list[str]:
    """Names of the morph targets of a capture's units and of its head's correctives of them."""
    return list(morph_targets(capture.head_model, capture.shape).names)


LIPS = [f"lips_{number}_{end}" for number in range(3) for end in ("plus", "minus")]


def weights_of(path: Path) -> Array:
    """Animated weights (T, M) of the face's morph targets."""
    player = Player(path)
    animation = player.gltf.animations[0]
    (channel,) = (channel for channel in animation.channels if channel.target.path == "weights")
    sampler = animation.samplers[channel.sampler]
    return player.read(sampler.output).reshape(len(player.read(sampler.input)), -1)


@pytest.mark.parametrize("strength", [1, 3])
def test_weights_of_refined_lips_stay_within_0_and_1_where_importers_clamp_them(tmp_path, strength):
    capture = lip_capture(6)
    lips = replace(capture.lips, weights=strength * capture.lips.weights)
    capture = capture.with_layer(lips)
    path = capture.export(tmp_path / "head.glb")

    weights = weights_of(path)
    assert weights.min() == 0 and weights.max() <= 1
    lips_weights = weights[:, len(unit_targets(capture)) :]
    assert lips_weights.shape[1] == len(LIPS)
    assert (lips_weights[:, ::2] * lips_weights[:, 1::2] == 0).all(), "one of a pair at a time"
    assert largest_error(capture, path) < CLOSE


@pytest.mark.parametrize("turned", [False, True])
def test_lips_are_morph_targets_after_the_units(tmp_path, turned):
    joints = turned_neck_capture(6).joints if turned else moving_capture(6).joints
    capture = replace(lip_capture(6), joints=joints)
    path = capture.export(tmp_path / "head.glb")

    (face,) = (mesh for mesh in Player(path).gltf.meshes if mesh.name == "face")
    assert face.extras["targetNames"] == [*unit_targets(capture), *LIPS]
    assert largest_error(capture, path) < CLOSE


def test_detail_is_a_normal_map_of_the_skin(tmp_path):
    capture = detail_capture(4)
    path = capture.export(tmp_path / "head.glb")

    player = Player(path)
    normals = image_of(player, "skin_normal") / 127.5 - 1
    assert np.abs(np.linalg.norm(normals, axis=2) - 1).max() < 0.02
    low, high = np.percentile(normals[..., 1], [1, 99])
    assert low < -0.2 and high > 0.2, "horizontal waves tilt the normals up and down"
    window = detail_atlas(capture.head_model, 64)
    inside = window.to_uv_square(window.mask[None].float(), len(normals))[0].numpy() > 0
    assert 0.1 < inside.mean() < 0.9
    assert np.abs(normals[~inside] - [0, 0, 1]).max() < 0.01, "outside the face the map is flat"
    mapped = [material.name for material in player.gltf.materials if material.normalTexture is not None]
    assert mapped == ["skin"]
    assert largest_error(capture, path) < CLOSE
    plain = Player(moving_capture(4).export(tmp_path / "plain.glb"))
    assert all(m.normalTexture is None for m in plain.gltf.materials)


def image_of(player: Player, name: str) -> Array:
    """An embedded image (H, W, 3), RGB 0 to 255."""
    (image,) = (image for image in player.gltf.images if image.name == name)
    assert image.mimeType == "image/png"
    view = player.gltf.bufferViews[image.bufferView]
    packed = np.frombuffer(player.blob, np.uint8, view.byteLength, view.byteOffset)
    return cv2.imdecode(packed, cv2.IMREAD_COLOR)[..., ::-1].astype(float)


def test_brows_lips_and_irises_have_the_colours_of_the_page(exported):
    capture, path = exported
    player = Player(path)
    picture = image_of(player, "base_colour")
    head = capture.head_model
    colours, neutral = 255 * vertex_colours(head), head.neutral(torch.as_tensor(capture.shape)).numpy()
    differences = []
    for mesh in (mesh for mesh in player.gltf.meshes if mesh.name == "face"):
        for primitive in mesh.primitives:
            material = player.gltf.materials[primitive.material]
            assert material.pbrMetallicRoughness.baseColorFactor == [1, 1, 1, 1]
            texture = player.gltf.textures[material.pbrMetallicRoughness.baseColorTexture.index]
            assert player.gltf.images[texture.source].name == texture.name == "base_colour"
            _, vertex = cKDTree(neutral).query(player.read(primitive.attributes.POSITION))
            places = player.read(primitive.attributes.TEXCOORD_0) * len(picture)
            rows, columns = np.clip(places[:, ::-1].astype(int), 0, len(picture) - 1).T
            differences.append(np.abs(picture[rows, columns] - colours[vertex]).max(1))
    assert np.percentile(np.concatenate(differences), 97) < 12, "sRGB of 255"
    skin = colours[head.vertex_parts() == head.part_names.index("skin")]
    assert np.ptp(skin, axis=0).min() > 80, "brows and lips differ from the skin"
    is_iris = np.char.endswith(head.part_names, "iris")[head.face_parts]
    irises = head.uv[head.uv_faces[is_iris]].mean(1)
    columns, rows = (irises * [1, -1] + [0, 1]).T * len(picture)
    eye = picture[rows.astype(int), columns.astype(int)]
    assert np.abs(eye - 255 * np.array(PART_COLOURS["iris"])).max(1).min() < 8, "the iris is in the texture"


def test_the_texture_of_a_head_is_made_once_for_all_captures_of_it():
    """It takes a third of a second, and each capture loads its head anew."""
    one, same, other = load_head(), load_head(), load_head()
    other.regions = {**other.regions, "lips": other.regions["lips"][:0]}
    first = base_colour_map(one)
    assert base_colour_map(same) is first
    assert base_colour_png(same) is base_colour_png(one)
    assert not np.array_equal(base_colour_map(other), first)


def test_everything_that_programs_list_has_a_name(tmp_path):
    capture = detail_capture(2)
    gltf = Player(replace(capture, joints=turned_neck_capture(2).joints).export(tmp_path / "head.glb")).gltf
    for kind in ("nodes", "meshes", "materials", "textures", "images", "cameras", "skins", "animations"):
        names = [item.name for item in getattr(gltf, kind)]
        assert names and all(names) and len(set(names)) == len(names), kind


def test_a_normal_map_comes_with_tangents_along_u(tmp_path):
    player = Player(detail_capture(2).export(tmp_path / "head.glb"))
    (face,) = (mesh for mesh in player.gltf.meshes if mesh.name == "face")
    names = [player.gltf.materials[primitive.material].name for primitive in face.primitives]
    assert [names[k] for k, p in enumerate(face.primitives) if p.attributes.TANGENT is not None] == ["skin"]
    skin = face.primitives[names.index("skin")]
    tangents, normals = player.read(skin.attributes.TANGENT), player.read(skin.attributes.NORMAL)
    np.testing.assert_allclose(np.linalg.norm(tangents[:, :3], axis=1), 1, atol=1e-5)
    assert np.abs((tangents[:, :3] * normals).sum(1)).max() < 1e-5
    assert set(np.unique(tangents[:, 3])) <= {-1.0, 1.0}
    points, uv = player.read(skin.attributes.POSITION), player.read(skin.attributes.TEXCOORD_0)
    corners = player.read(skin.indices)[:, 0].reshape(-1, 3)
    a, b, c = points[corners].transpose(1, 0, 2)
    edges = np.stack([b - a, c - a], 1)
    steps = np.stack([uv[corners[:, 1]] - uv[corners[:, 0]], uv[corners[:, 2]] - uv[corners[:, 0]]], 1)
    solid = np.abs(np.linalg.det(steps)) > 1e-9
    along = np.linalg.solve(steps[solid], edges[solid])  # (F, 2, 3): growth along u, and v downwards
    along /= np.linalg.norm(along, axis=2, keepdims=True)
    corner = corners[solid, 0]
    up = tangents[corner, 3:] * np.cross(normals[corner], tangents[corner, :3])
    assert np.percentile((tangents[corner, :3] * along[:, 0]).sum(1), 5) > 0.8
    across = along[:, 1] - (along[:, 1] * along[:, 0]).sum(1, keepdims=True) * along[:, 0]
    across /= np.linalg.norm(
        across, axis=1, keepdims=True
    )  # tangent space is rectangular, the texture is not
    assert np.percentile((up * -across).sum(1), 5) > 0.8


@pytest.mark.parametrize("suffix", ["glb", "usda", "csv", "ply", "obj", "html"])
def test_no_file_shows_folders_of_the_users_machine(tmp_path, suffix):
    capture = replace(moving_capture(2), source="/home/someone/private/talk.mp4")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the page's video is missing
        path = capture.export(tmp_path / f"head.{suffix}")
    files = [path] if path.is_file() else list(path.iterdir())
    for file in files:
        data = file.read_bytes()
        assert b"someone" not in data and str(tmp_path).encode() not in data, file.name


def test_the_head_of_a_file_is_named_without_its_folder(tmp_path):
    capture = jawed_capture(tmp_path)
    data = capture.export(tmp_path / "head.glb").read_bytes()
    assert b"jawed.npz" in data and str(tmp_path).encode() not in data
    assert not Player(tmp_path / "head.glb").gltf.images, "no texture without texture coordinates"


def test_static_values_are_those_of_the_first_frame(exported):
    _, path = exported
    player = Player(path)
    np.testing.assert_allclose(player.triangles(None), player.triangles(0), atol=1e-6)


def test_keyframes_are_at_the_true_times_of_the_frames(tmp_path):
    times = np.array([0.0, 0.033, 0.08, 0.1, 0.3, 0.31])
    player = Player(replace(moving_capture(6), times=times).export(tmp_path / "head.glb"))
    samplers = player.gltf.animations[0].samplers
    assert len(samplers) > 3, "translation and rotation of the head, eyes, weights"
    for sampler in samplers:
        assert sampler.interpolation == "LINEAR"
        np.testing.assert_allclose(player.read(sampler.input)[:, 0], times, atol=1e-6)


def test_consecutive_quaternions_are_in_one_hemisphere_over_two_full_turns(tmp_path):
    capture = moving_capture(40)
    rotation = np.stack([np.zeros(40), np.linspace(0, 4 * np.pi, 40), np.zeros(40)], 1)
    capture = replace(capture, rotation=rotation.astype(np.float32))
    player = Player(capture.export(tmp_path / "head.glb"))
    animation = player.gltf.animations[0]
    turning = [channel for channel in animation.channels if channel.target.path == "rotation"]
    assert len(turning) >= 3, "the head and the eyes"
    for channel in turning:
        keys = player.read(animation.samplers[channel.sampler].output)
        np.testing.assert_allclose(np.linalg.norm(keys, axis=1), 1, atol=1e-6)
        assert (keys[1:] * keys[:-1]).sum(1).min() > 0


def test_morph_targets_carry_the_names_of_the_expression_units(exported):
    capture, path = exported
    gltf = Player(path).gltf
    (face,) = (mesh for mesh in gltf.meshes if mesh.name == "face")
    names = face.extras["targetNames"]
    assert names[:52] == list(capture.expression_names) and names == unit_targets(capture)
    assert len(set(names)) == len(names) == 52 + len(capture.head_model.pairs)
    assert all(len(primitive.targets) == len(names) for primitive in face.primitives)


def test_each_eyeball_is_a_child_of_the_head_that_rotates_about_its_centre(exported):
    capture, path = exported
    gltf = Player(path).gltf
    (head,) = (node for node in gltf.nodes if node.name == "head")
    pivots = capture.head_model.joint_positions(torch.as_tensor(capture.shape)).numpy()
    for eye in ("left_eye", "right_eye"):
        number = next(n for n, node in enumerate(gltf.nodes) if node.name == eye)
        assert number in head.children
        expected = pivots[capture.joint_names.index(eye)]
        np.testing.assert_allclose(gltf.nodes[number].translation, expected, atol=1e-6)
        targets = {(c.target.node, c.target.path) for c in gltf.animations[0].channels}
        assert (number, "rotation") in targets
        ball = gltf.meshes[gltf.nodes[gltf.nodes[number].children[0]].mesh]
        names = {gltf.materials[primitive.material].name for primitive in ball.primitives}
        assert names == {"sclera", "iris", "pupil"}


def test_normals_are_unit_and_point_outwards(exported):
    player = Player(exported[1])
    assert len(player.gltf.meshes) >= 3 and all(mesh.primitives for mesh in player.gltf.meshes)
    for mesh in player.gltf.meshes:
        for primitive in mesh.primitives:
            points = player.read(primitive.attributes.POSITION)
            normals = player.read(primitive.attributes.NORMAL)
            np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
            a, b, c = points[player.read(primitive.indices)[:, 0].reshape(-1, 3)].transpose(1, 0, 2)
            at_corner = normals[player.read(primitive.indices)[:, 0].reshape(-1, 3)].mean(1)
            agree = (np.cross(b - a, c - a) * at_corner).sum(1) > 0
            assert agree.mean() > 0.97, mesh.name  # creases of the lids and lips are sharper than a vertex


def test_morphed_normals_follow_the_morphed_surface(still):
    capture, path = still
    opened = capture.expression.copy()
    unit = capture.expression_names.index("jawOpen")
    opened[0, unit] = 1
    player = Player(path)
    skin = next(mesh for mesh in player.gltf.meshes if mesh.name == "face").primitives[0]
    points = player.read(skin.attributes.POSITION) + player.read(skin.targets[unit]["POSITION"])
    normals = player.read(skin.attributes.NORMAL) + player.read(skin.targets[unit]["NORMAL"])
    vertices = replace(capture, expression=opened).vertices(space="head")[0]
    truth = vertex_normals(torch.as_tensor(vertices), torch.as_tensor(capture.faces)).numpy()
    distance, nearest = cKDTree(vertices).query(points)
    assert distance.max() < CLOSE
    assert np.percentile(np.abs(normals - truth[nearest]).max(1), 99) < 0.01


def test_texture_coordinates_have_v_downwards(exported):
    capture, path = exported
    player = Player(path)
    read = [
        player.read(primitive.attributes.TEXCOORD_0)
        for mesh in player.gltf.meshes
        for primitive in mesh.primitives
    ]
    flipped = np.stack([capture.head_model.uv[:, 0], 1 - capture.head_model.uv[:, 1]], 1)
    assert cKDTree(flipped).query(np.concatenate(read))[0].max() < 1e-6
    assert cKDTree(np.concatenate(read)).query(flipped)[0].max() < 1e-6


def test_the_camera_puts_vertices_on_the_pixels_of_the_capture(exported):
    capture, path = exported
    size = capture.image_size
    player = Player(path)
    gltf = player.gltf
    (node,) = (node for node in gltf.nodes if node.camera is not None)
    assert node.translation is None and node.rotation is None
    lens = gltf.cameras[node.camera].perspective
    width, height = size
    points = player.triangles(1).reshape(-1, 3)
    assert (points[:, 2] < -lens.znear).all() and (points[:, 2] > -lens.zfar).all()
    scale = 1 / np.tan(lens.yfov / 2)  # projection matrix of the specification, section 3.10
    x = scale / lens.aspectRatio * points[:, 0] / -points[:, 2]
    y = scale * points[:, 1] / -points[:, 2]
    pixels = np.stack([(x + 1) / 2 * width - 0.5, (1 - y) / 2 * height - 0.5], 1)
    truth = capture.camera.project(torch.as_tensor(points @ TO_SCENE)).numpy()
    assert np.abs(pixels - truth).max() < 1e-2


def test_extras_hold_the_metadata_of_the_clip(exported):
    capture, path = exported
    gltf = Player(path).gltf
    facts = gltf.scenes[0].extras["avface"]
    assert facts == gltf.asset.extras["avface"]
    assert facts["image_size"] == [320, 240]
    assert facts["focal_length"] == capture.focal_length
    assert facts["principal_point"] == list(capture.principal_point)
    assert facts["frame_rate"] == pytest.approx(25)
    assert facts["source"] == capture.source


def test_the_title_names_the_scene(still):
    assert Player(still[1]).gltf.scenes[0].name == "Take 3"


def test_trimesh_reads_the_head_at_its_position(still):
    capture, path = still
    merged = trimesh.load_scene(path).to_mesh()
    truth = capture.vertices()[0] @ TO_SCENE
    assert len(merged.faces) == len(capture.faces)
    assert cKDTree(truth).query(merged.vertices)[0].max() < CLOSE
    assert cKDTree(merged.vertices).query(truth)[0].max() < CLOSE


def test_one_frame_and_none_at_all_are_exported(tmp_path):
    one = moving_capture(3).select(1)
    assert largest_error(one, one.export(tmp_path / "one.glb")) < CLOSE
    none = Player(moving_capture(3).select(slice(0, 0)).export(tmp_path / "none.glb"))
    assert not none.gltf.animations
    assert len(none.triangles(None)) == len(one.faces)


def test_the_file_of_ten_seconds_is_small_and_grows_by_its_keyframes_only(exported, tmp_path):
    capture, short = exported
    long = moving_capture(250).export(tmp_path / "head.glb").stat().st_size
    assert long < 3.7e6
    grown = (long - short.stat().st_size) / (250 - len(capture))
    weights = len(unit_targets(capture))
    assert grown < 4 * (weights + 1 + 3 + 3 * 4) + 10  # weights, time, place, three rotations


def test_a_missing_folder_is_refused_in_one_line(still, tmp_path):
    with pytest.raises(AvfaceError, match=r"doesn't exist") as caught:
        still[0].export(tmp_path / "nowhere" / "head.glb")
    assert "\n" not in str(caught.value)


def test_a_folder_of_that_name_is_refused_and_unchanged(still, tmp_path):
    (tmp_path / "head.glb").mkdir()
    with pytest.raises(AvfaceError, match=r"can't be written"):
        still[0].export(tmp_path / "head.glb")
    assert [item.name for item in tmp_path.iterdir()] == ["head.glb"]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no such permissions")
@pytest.mark.parametrize("suffix", ["glb", "usdc", "csv", "ply", "obj"])
def test_a_read_only_folder_is_refused_in_one_line(tmp_path, suffix):
    capture = still_capture()
    capture.export(tmp_path / f"head.{suffix}")  # imports what the export needs, while it may be read
    folder = Path(tempfile.mkdtemp())  # not in tmp_path, whose parents the user nobody may not enter
    folder.chmod(0o555)
    root = os.geteuid() == 0
    try:
        if root:  # root may write everywhere, so test as nobody
            os.seteuid(65534)
        with pytest.raises(AvfaceError, match=r"can't be written \(Permission denied\)") as caught:
            capture.export(folder / f"head.{suffix}")
    finally:
        if root:
            os.seteuid(0)
        shutil.rmtree(folder)
    assert "\n" not in str(caught.value)


def test_a_failed_export_leaves_the_older_file_unchanged(still, tmp_path, monkeypatch):
    path = tmp_path / "head.glb"
    path.write_bytes(b"older")
    monkeypatch.setattr(pygltflib.GLTF2, "save_to_bytes", lambda self: [b"half", 1 / 0])
    with pytest.raises(ZeroDivisionError):
        still[0].export(path)
    assert path.read_bytes() == b"older"
    assert [item.name for item in tmp_path.iterdir()] == ["head.glb"]


def test_keys_can_have_a_constant_rate(tmp_path):
    times = np.array([0.0, 0.033, 0.08, 0.1, 0.3, 0.31])
    capture = replace(lip_capture(6), times=times)
    player = Player(capture.export(tmp_path / "head.glb", fps=30))
    whole = np.arange(11) / 30
    for sampler in player.gltf.animations[0].samplers:
        np.testing.assert_allclose(player.read(sampler.input)[:, 0], whole, atol=1e-6)
    assert largest_error(at_times(capture, whole), tmp_path / "head.glb") < CLOSE
