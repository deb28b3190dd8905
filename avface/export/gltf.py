"""Animated binary glTF 2.0, with morph targets named after the expression units."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from avface import __version__
from avface.arrays import F32, U8, Floats, Ints
from avface.capture.resampling import at_constant_rate
from avface.export.base_colour import base_colour_png
from avface.export.materials import SKIN, Material, part_material, png
from avface.export.morphs import scene_morphs
from avface.export.normal_map import static_normal_map
from avface.export.normals import vertex_tangents
from avface.export.pose import FAR, NEAR, head_motion, matrices, quaternions, rotating_joints, scene_metadata
from avface.files import replacing
from avface.files.names import readable

if TYPE_CHECKING:
    import pygltflib
    import torch

    from avface.capture import Capture
    from avface.head.model import HeadModel


FLOAT, UNSIGNED_SHORT, UNSIGNED_INT = 5126, 5123, 5125  # component types
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963  # targets of buffer views
LINEAR, LINEAR_MIPMAP_LINEAR = 9729, 9987  # texture filters
COLUMNS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


def export_glb(
    capture: Capture, path: str | Path, *, title: str | None = None, fps: float | None = None
) -> Path:
    """Write the capture as one animated .glb; returns its path.

    The scene is in metres, y up, with the video's camera at the origin. The node "head" has the head's motion, its
    mesh one morph target per expression unit (names in `mesh.extras.targetNames`), and each eyeball is a node of
    its own that rotates about its centre. Other joints that rotate become a glTF skin. Units that rotate a joint
    are exported as rotations of the joint. Morph targets of the correctives of units follow those of the units, then
    those of pose correctives and of the capture's layers (lips_0_plus, lips_0_minus, ...); weights are from 0 to 1
    (`scene_morphs`). With detail, the skin has a normal map of its static displacement. Keyframes are at the capture's
    true times, or `fps` a second (`avface.capture.resampling`). The principal point of a glTF camera is the middle of
    its picture; another one is written in the scene's extras only, with the frame size, focal length, frame rate and
    source.

    title: name of the scene; by default that of the source.

    Raises:
        AvfaceError: if `fps` isn't a number from 1 to 1000, or the file can't be written.
    """
    import pygltflib

    path = Path(path)
    if fps is not None:
        capture = at_constant_rate(capture, fps)
    metadata = scene_metadata(capture)
    gltf = pygltflib.GLTF2(
        asset=pygltflib.Asset(version="2.0", generator=f"avface {__version__}", extras={"avface": metadata}),
        scene=0,
    )
    scene = pygltflib.Scene(
        name=readable(title or Path(capture.source).stem) or "capture", extras={"avface": metadata}
    )
    gltf.scenes.append(scene)
    document = _Document(gltf)
    colours = base_colour_png(capture.head_model)
    if colours is not None:
        document.base_colour = document.add_texture("base_colour", colours)
    if capture.detail is not None:
        normals = static_normal_map(capture.head_model, capture.detail)
        document.normal_maps[SKIN] = document.add_texture("skin_normal", png(normals))
    scene.nodes.extend(_add_head(document, capture))
    scene.nodes.append(_add_camera(document, capture))
    document.finish()
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.writelines(gltf.save_to_bytes())
    return path


class _Document:
    """A glTF under construction: its JSON and the parts of its binary buffer."""

    def __init__(self, gltf: pygltflib.GLTF2):
        self.gltf = gltf
        self.parts: list[bytes] = []
        self.size = 0
        self.materials: dict[Material, int] = {}
        self.base_colour: int | None = None
        self.normal_maps: dict[Material, int] = {}

    def add_texture(self, name: str, packed: U8) -> int:
        """Append a texture, the bytes (N,) of a .png file; returns its index."""
        import pygltflib

        view = self.add_view(packed)
        self.gltf.images.append(pygltflib.Image(name=name, bufferView=view, mimeType="image/png"))
        if not self.gltf.samplers:
            self.gltf.samplers.append(pygltflib.Sampler(magFilter=LINEAR, minFilter=LINEAR_MIPMAP_LINEAR))
        self.gltf.textures.append(pygltflib.Texture(name=name, source=len(self.gltf.images) - 1, sampler=0))
        return len(self.gltf.textures) - 1

    def add_view(self, data: npt.NDArray[Any], target: int | None = None) -> int:
        """Append data to the buffer; returns the index of its view."""
        import pygltflib

        raw = np.ascontiguousarray(data).tobytes()
        view = pygltflib.BufferView(buffer=0, byteOffset=self.size, byteLength=len(raw), target=target)
        self.gltf.bufferViews.append(view)
        raw += bytes(-len(raw) % 4)  # views are aligned to 4 bytes
        self.parts.append(raw)
        self.size += len(raw)
        return len(self.gltf.bufferViews) - 1

    def add_accessor(self, data: npt.NDArray[Any], target: int | None = None, *, bounds: bool = False) -> int:
        """Append an array (N,) or (N, columns); returns the index of its accessor."""
        if data.dtype.kind == "f":
            data = data.astype(np.float32)
        return self.describe(self.add_view(data, target), data, bounds=bounds)

    def describe(
        self,
        view: int,
        data: npt.NDArray[Any],
        *,
        bounds: bool = False,
        sparse: pygltflib.Sparse | None = None,
    ) -> int:
        """Append an accessor for a view that (with `sparse`) stores `data`; returns its index."""
        import pygltflib

        flat = data.reshape(len(data), -1)
        accessor = pygltflib.Accessor(
            bufferView=view,
            componentType={"f": FLOAT, "u": UNSIGNED_SHORT if data.itemsize == 2 else UNSIGNED_INT}[
                data.dtype.kind
            ],
            count=len(data),
            type=COLUMNS[flat.shape[1]],
            sparse=sparse,
        )
        if bounds:
            accessor.min, accessor.max = flat.min(0).tolist(), flat.max(0).tolist()
        self.gltf.accessors.append(accessor)
        return len(self.gltf.accessors) - 1

    def add_node(self, **properties: Any) -> int:
        """Append a node; returns its index."""
        import pygltflib

        self.gltf.nodes.append(pygltflib.Node(**properties))
        return len(self.gltf.nodes) - 1

    def material(self, material: Material) -> int:
        """The index of a material, appended on first use."""
        import pygltflib

        if material not in self.materials:
            self.materials[material] = len(self.gltf.materials)
            self.gltf.materials.append(
                pygltflib.Material(
                    name=material.name,
                    pbrMetallicRoughness=pygltflib.PbrMetallicRoughness(
                        baseColorFactor=[
                            *(material.colour if self.base_colour is None else (1.0, 1.0, 1.0)),
                            1.0,
                        ],
                        baseColorTexture=None
                        if self.base_colour is None
                        else pygltflib.TextureInfo(index=self.base_colour),
                        metallicFactor=0.0,
                        roughnessFactor=material.roughness,
                    ),
                    normalTexture=None
                    if (texture := self.normal_maps.get(material)) is None
                    else pygltflib.NormalMaterialTexture(index=texture),
                    alphaCutoff=None,
                    doubleSided=True,  # the head is open at the neck
                )
            )
        return self.materials[material]

    def finish(self) -> None:
        """Join the parts into the buffer."""
        import pygltflib

        self.gltf.buffers.append(pygltflib.Buffer(byteLength=self.size))
        self.gltf.set_binary_blob(b"".join(self.parts))


def _add_camera(document: _Document, capture: Capture) -> int:
    import pygltflib

    width, height = capture.image_size
    document.gltf.cameras.append(
        pygltflib.Camera(
            name="camera",
            type="perspective",
            perspective=pygltflib.Perspective(
                yfov=2 * math.atan(height / 2 / capture.focal_length),
                aspectRatio=width / height,
                znear=NEAR,
                zfar=FAR,
            ),
        )
    )
    return document.add_node(name="camera", camera=0)


def _add_head(document: _Document, capture: Capture) -> list[int]:
    """Append the head's nodes, meshes, skin and animation; returns the root nodes."""
    import torch

    head = capture.head_model
    shape = torch.as_tensor(capture.shape)
    names, offsets, motion = scene_morphs(capture)
    surface = _Surface(head, head.neutral(shape), offsets)
    pivots = head.joint_positions(shape).numpy()
    eyes = {j: faces for j in range(head.num_joints) if len(faces := _eyeball(head, j, offsets))}
    rotating = rotating_joints(motion.rotations)
    with_node = sorted({*rotating, *eyes})
    animation = _Animation(document, capture)

    rotations, translations = head_motion(capture)
    top = document.add_node(name="head", children=[])
    animation.rotate(top, rotations)
    animation.translate(top, translations)

    def ancestor(joint: int) -> int | None:
        """The nearest ancestor of a joint that has a node; None for the root node."""
        joint = head.joint_parents[joint]
        while joint >= 0 and joint not in with_node:
            joint = head.joint_parents[joint]
        return joint if joint >= 0 else None

    nodes: dict[int | None, int] = {None: top}
    for j in with_node:  # parents come before children
        parent = ancestor(j)
        position = pivots[j] - (0 if parent is None else pivots[parent])
        nodes[j] = document.add_node(name=head.joint_names[j], translation=position.tolist(), children=[])
        document.gltf.nodes[nodes[parent]].children.append(nodes[j])
        animation.rotate(nodes[j], matrices(motion.rotations[:, j]))
        if head.joints_follow_expression:
            animation.translate(nodes[j], motion.places[:, j] - (0 if parent is None else pivots[parent]))

    for j, faces in eyes.items():
        mesh = _add_mesh(document, surface, f"{head.joint_names[j]}ball", faces, origin=pivots[j])
        document.gltf.nodes[nodes[j]].children.append(
            document.add_node(name=f"{head.joint_names[j]}ball", mesh=mesh)
        )

    faces = np.setdiff1d(np.arange(len(surface.faces)), np.concatenate([[], *eyes.values()]).astype(int))
    weights = head.skin_weights.numpy()
    skinned = any(np.any(weights[surface.faces[faces], j + 1]) for j in rotating)
    skin = None
    if skinned:
        # A joint without a node never rotates, so its weights belong to its ancestor.
        joint_weights = {None: weights[:, 0].copy()} | {j: weights[:, j + 1].copy() for j in with_node}
        for j in set(range(head.num_joints)) - set(with_node):
            joint_weights[ancestor(j)] += weights[:, j + 1]
        skin = _add_skin(
            document, nodes, {None: np.zeros(3), **dict(zip(with_node, pivots[with_node], strict=True))}
        )
        surface.joint_weights = np.stack(list(joint_weights.values()), 1)
    mesh = _add_mesh(document, surface, "face", faces, targets=list(names))
    face = document.add_node(name="face", mesh=mesh, skin=skin)
    animation.morph(face, mesh, motion.weights)
    animation.finish()
    if skinned:
        return [top, face]  # glTF ignores the transform of a skinned mesh's node, so it is a root
    document.gltf.nodes[top].children.append(face)
    return [top]


def _eyeball(head: HeadModel, joint: int, offsets: Floats) -> Ints:
    """Faces that are rigidly attached to an eye's joint and that no morph target moves; none for other joints."""
    if not head.joint_names[joint].endswith("_eye"):
        return np.zeros(0, int)
    rigid = head.skin_weights[:, joint + 1].numpy() == 1
    rigid &= ~offsets.any(axis=(0, 2))
    return np.flatnonzero(rigid[head.faces.numpy()].all(1))


class _Surface:
    """A person's head at rest, and the offsets of its vertices and normals by morph targets."""

    def __init__(self, head: HeadModel, rest: torch.Tensor, offsets: F32):
        from avface.export.normals import morphed_normals

        self.head = head
        self.faces = head.faces.numpy()
        self.vertices = rest.numpy()
        self.offsets = offsets  # (M, V, 3)
        self.normals, self.normal_offsets = morphed_normals(head, rest, offsets)
        self.joint_weights: Floats | None = None  # (V, joints of the skin)


def _add_mesh(
    document: _Document,
    surface: _Surface,
    name: str,
    faces: Ints,
    *,
    origin: Floats | float = 0.0,
    targets: list[str] | None = None,
) -> int:
    """Append a mesh of some faces, one primitive per material; returns its index."""
    import pygltflib

    head = surface.head
    materials = [part_material(part) for part in head.part_names]
    mesh = pygltflib.Mesh(name=name, primitives=[])
    for material in dict.fromkeys(materials):
        parts = [p for p, other in enumerate(materials) if other == material]
        chosen = faces[np.isin(head.face_parts[faces], parts)]
        if not len(chosen):
            continue
        vertex, uv, corners = _split(surface.faces[chosen], head.uv_faces[chosen] if len(head.uv) else None)
        attributes = pygltflib.Attributes(
            POSITION=document.add_accessor(surface.vertices[vertex] - origin, ARRAY_BUFFER, bounds=True),
            NORMAL=document.add_accessor(surface.normals[vertex], ARRAY_BUFFER),
        )
        if uv is not None:  # glTF counts v from the top
            attributes.TEXCOORD_0 = document.add_accessor(head.uv[uv] * [1, -1] + [0, 1], ARRAY_BUFFER)
            if material in document.normal_maps:
                tangents = vertex_tangents(
                    surface.vertices[vertex], surface.normals[vertex], head.uv[uv], corners
                )
                attributes.TANGENT = document.add_accessor(tangents, ARRAY_BUFFER)
        if surface.joint_weights is not None and targets is not None:
            _add_influences(document, attributes, surface.joint_weights[vertex])
        indices = corners.astype(np.uint16 if len(vertex) < 65535 else np.uint32).ravel()
        mesh.primitives.append(
            pygltflib.Primitive(
                attributes=attributes,
                indices=document.add_accessor(indices, ELEMENT_ARRAY_BUFFER),
                material=document.material(material),
                targets=_add_targets(document, surface, vertex) if targets else None,
            )
        )
    if targets:
        mesh.extras = {"targetNames": targets}
    document.gltf.meshes.append(mesh)
    return len(document.gltf.meshes) - 1


def _split(faces: Ints, uv_faces: Ints | None) -> tuple[Ints, Ints | None, Ints]:
    """Vertices split along UV seams: their vertex (N,) and UV (N,) indices, and faces (F, 3) of them."""
    if uv_faces is None:
        vertex, corners = np.unique(faces, return_inverse=True)
        return vertex, None, corners.reshape(-1, 3)
    pairs, corners = np.unique(np.stack([faces.ravel(), uv_faces.ravel()], 1), axis=0, return_inverse=True)
    return pairs[:, 0], pairs[:, 1], corners.reshape(-1, 3)


def _add_targets(document: _Document, surface: _Surface, vertex: Ints) -> list[dict[str, int]]:
    """Append the morph targets as sparse accessors of the vertices that move."""
    import pygltflib

    index_type = np.uint16 if len(vertex) <= 65535 else np.uint32
    changes = [
        (unit, name, offsets[unit][vertex].astype(np.float32))
        for unit in range(len(surface.offsets))
        for name, offsets in (("POSITION", surface.offsets), ("NORMAL", surface.normal_offsets))
    ]
    moved = [np.flatnonzero(change.any(1)) for _, _, change in changes]
    zeros = np.zeros((len(vertex), 3), np.float32)
    base = document.add_view(zeros, ARRAY_BUFFER)
    document.gltf.bufferViews[base].byteStride = 12  # required where accessors share a view
    unchanged = document.describe(base, zeros, bounds=True)
    targets: list[dict[str, int]] = [{} for _ in surface.offsets]
    if not sum(map(len, moved)):
        return [{"POSITION": unchanged, "NORMAL": unchanged} for _ in targets]
    indices = document.add_view(np.concatenate(moved).astype(index_type))
    values = document.add_view(
        np.concatenate([change[rows] for (*_, change), rows in zip(changes, moved, strict=True)])
    )
    done = 0
    for (unit, name, change), rows in zip(changes, moved, strict=True):
        targets[unit][name] = unchanged
        if len(rows):
            sparse = pygltflib.Sparse(
                count=len(rows),
                indices=pygltflib.AccessorSparseIndices(
                    bufferView=indices,
                    byteOffset=done * np.dtype(index_type).itemsize,
                    componentType=UNSIGNED_SHORT if index_type is np.uint16 else UNSIGNED_INT,
                ),
                values=pygltflib.AccessorSparseValues(bufferView=values, byteOffset=done * 12),
            )
            targets[unit][name] = document.describe(base, change, bounds=name == "POSITION", sparse=sparse)
            done += len(rows)
    return targets


def _add_influences(document: _Document, attributes: pygltflib.Attributes, weights: Floats) -> None:
    """Append the joints and weights of each vertex, in sets of four."""
    order = np.argsort(-weights, axis=1, kind="stable")
    most = int((weights > 0).sum(1).max())
    for start in range(0, most, 4):
        joints = np.zeros((len(weights), 4), np.uint16)
        values = np.zeros((len(weights), 4), np.float32)
        chosen = order[:, start : start + 4]
        values[:, : chosen.shape[1]] = np.take_along_axis(weights, chosen, 1)
        joints[:, : chosen.shape[1]] = chosen
        joints[values == 0] = 0
        setattr(attributes, f"JOINTS_{start // 4}", document.add_accessor(joints, ARRAY_BUFFER))
        setattr(attributes, f"WEIGHTS_{start // 4}", document.add_accessor(values, ARRAY_BUFFER))


def _add_skin(document: _Document, nodes: dict[int | None, int], pivots: dict[int | None, Floats]) -> int:
    import pygltflib

    inverse = np.tile(np.eye(4), (len(pivots), 1, 1))
    inverse[:, 3, :3] = [-pivot for pivot in pivots.values()]  # glTF stores columns first
    document.gltf.skins.append(
        pygltflib.Skin(
            name="head",
            joints=[nodes[joint] for joint in pivots],
            inverseBindMatrices=document.add_accessor(inverse.reshape(-1, 16)),
            skeleton=nodes[None],
        )
    )
    return len(document.gltf.skins) - 1


class _Animation:
    """Keyframes at the capture's times; the first is also a node's static value, for viewers without animation."""

    def __init__(self, document: _Document, capture: Capture):
        import pygltflib

        self.document = document
        self.capture = capture
        self.animation = pygltflib.Animation(name="capture", samplers=[], channels=[])
        self.input = document.add_accessor(capture.times, bounds=True) if len(capture) else None

    def translate(self, node: int, translations: Floats) -> None:
        """Animate a node's translation (T, 3)."""
        if len(translations):
            self.document.gltf.nodes[node].translation = translations[0].tolist()
            self._add(node, "translation", translations)

    def rotate(self, node: int, rotations: Floats) -> None:
        """Animate a node's rotation (T, 3, 3)."""
        if len(rotations):
            keys = quaternions(rotations)
            self.document.gltf.nodes[node].rotation = keys[0].tolist()
            self._add(node, "rotation", keys)

    def morph(self, node: int, mesh: int, weights: Floats) -> None:
        """Animate the morph weights (T, M) of a node's mesh."""
        if weights.size:
            self.document.gltf.meshes[mesh].weights = weights[0].tolist()
            self._add(node, "weights", weights.ravel())

    def finish(self) -> None:
        """Add the animation to the document if it has channels."""
        if self.animation.channels:
            self.document.gltf.animations.append(self.animation)

    def _add(self, node: int, path: str, values: Floats) -> None:
        import pygltflib

        sampler = pygltflib.AnimationSampler(
            input=self.input, output=self.document.add_accessor(values), interpolation="LINEAR"
        )
        self.animation.samplers.append(sampler)
        self.animation.channels.append(
            pygltflib.AnimationChannel(
                sampler=len(self.animation.samplers) - 1,
                target=pygltflib.AnimationChannelTarget(node=node, path=path),
            )
        )
