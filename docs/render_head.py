"""Render the pictures of the open head in Blender (Cycles); run by an interpreter with `bpy`, 4.2 or later.

python docs/head_faces.py FACES.npz
python docs/render_head.py FACES.npz [FOLDER [SIZE [SAMPLES]]]

writes head_units_cycles.jpg and head_faces_cycles.png. Two threads, 32 samples with denoising: some minutes.
"""

import math
import sys
import tempfile
from pathlib import Path

import bpy
import numpy as np

ROUGHNESS = {
    "eye": 0.12,
    "iris": 0.08,
    "pupil": 0.05,
    "line": 0.1,
    "teeth": 0.25,
    "gums": 0.35,
    "tongue": 0.4,
    "mouth_cavity": 0.5,
}
"""By the last word of a part's name; skin's otherwise."""
DISTANCE = 0.9
"""Metres from the camera to the foremost point, as in head_faces.py."""


def main(path: str, folder: str = ".", size: str = "224", samples: str = "32") -> None:
    """Build the scene, render every face, put the sheets together."""
    with np.load(path) as data:
        stored = {key: data[key] for key in data.files}
    scene = set_up(int(size), int(samples))
    mesh = build_mesh(stored)
    turned = stored["vertices"][..., [0, 2, 1]] * np.array(
        [1, -1, 1], np.float32
    )  # Blender: z up, looks along y
    first = 0
    for sheet in stored["sheets"]:
        name, count, columns = str(sheet).split(":")
        tiles = []
        for number in range(first, first + int(count)):
            mesh.vertices.foreach_set("co", turned[number].ravel())
            mesh.update()
            aim(scene.camera, *map(float, stored["views"][number]), turned[number])
            tiles.append(render(scene))
        first += int(count)
        rows = [np.concatenate(tiles[k : k + int(columns)], 1) for k in range(0, len(tiles), int(columns))]
        save(
            np.concatenate(rows[::-1]), Path(folder) / f"{name}_cycles.jpg"
        )  # Blender's rows begin at the bottom


def set_up(size: int, samples: int) -> "bpy.types.Scene":
    """A scene with camera, three lamps and a grey world."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.samples, scene.cycles.use_denoising = samples, True
    scene.render.threads_mode, scene.render.threads = "FIXED", 2
    scene.render.resolution_x = scene.render.resolution_y = size
    scene.view_settings.view_transform = "Standard"
    scene.world = bpy.data.worlds.new("world")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs[0].default_value = (0.55, 0.57, 0.6, 1)
    scene.world.node_tree.nodes["Background"].inputs[1].default_value = 0.45
    for place, power, width in (
        ((-0.5, -1.0, 0.6), 8, 0.4),
        ((0.8, -0.8, 0.2), 3, 0.6),
        ((0.3, 0.7, 0.6), 3, 0.3),
    ):
        lamp = bpy.data.lights.new("lamp", "AREA")
        lamp.energy, lamp.size = power, width
        thing = bpy.data.objects.new("lamp", lamp)
        thing.location = place
        direction = np.array([0, -0.05, -0.02]) - place
        thing.rotation_euler = look_along(direction)
        scene.collection.objects.link(thing)
    camera = bpy.data.cameras.new("camera")
    scene.camera = bpy.data.objects.new("camera", camera)
    scene.collection.objects.link(scene.camera)
    return scene


def look_along(direction: np.ndarray) -> tuple[float, float, float]:
    """Euler angles that turn -z to a direction, upright."""
    x, y, z = direction / np.linalg.norm(direction)
    return (math.acos(-z), 0.0, math.atan2(-x, y))


def aim(camera: "bpy.types.Object", middle: float, half: float, vertices: np.ndarray) -> None:
    """Put the camera before the face, at the height of the picture's middle."""
    camera.location = (0, float(vertices[:, 1].min()) - DISTANCE, middle)
    camera.rotation_euler = (math.pi / 2, 0, 0)
    camera.data.angle = 2 * math.atan(half / DISTANCE)
    camera.data.clip_start = 0.01


def build_mesh(stored: dict) -> "bpy.types.Mesh":
    """The head's mesh with smooth normals, colours of its corners and a material for each part."""
    mesh = bpy.data.meshes.new("head")
    mesh.from_pydata(stored["vertices"][0].tolist(), [], stored["faces"].tolist())
    names = sorted(set(stored["parts"].tolist()))
    for name in names:
        mesh.materials.append(material(name))
    mesh.polygons.foreach_set("material_index", [names.index(name) for name in stored["parts"].tolist()])
    mesh.polygons.foreach_set("use_smooth", [True] * len(mesh.polygons))
    colours = mesh.color_attributes.new("colour", "FLOAT_COLOR", "CORNER")
    shown = stored["colours"]
    linear = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
    colours.data.foreach_set("color", np.concatenate([linear, np.ones_like(linear[..., :1])], -1).ravel())
    thing = bpy.data.objects.new("head", mesh)
    bpy.context.scene.collection.objects.link(thing)
    return mesh


def material(part: str) -> "bpy.types.Material":
    """Principled shader in the corners' colours; light goes a little way into the skin."""
    result = bpy.data.materials.new(part)
    result.use_nodes = True
    shader = result.node_tree.nodes["Principled BSDF"]
    colour = result.node_tree.nodes.new("ShaderNodeVertexColor")
    colour.layer_name = "colour"
    result.node_tree.links.new(colour.outputs["Color"], shader.inputs["Base Color"])
    shader.inputs["Roughness"].default_value = ROUGHNESS.get(part, ROUGHNESS.get(part.split("_")[-1], 0.55))
    if part == "skin":
        shader.inputs["Subsurface Weight"].default_value = 0.3
        shader.inputs["Subsurface Scale"].default_value = 0.003
    return result


def render(scene: "bpy.types.Scene") -> np.ndarray:
    """The picture (H, W, 4) of the scene, rows from the bottom, sRGB 0 to 1."""
    with tempfile.TemporaryDirectory() as folder:
        scene.render.filepath = str(Path(folder) / "tile.png")
        bpy.ops.render.render(write_still=True)
        image = bpy.data.images.load(scene.render.filepath)
        pixels = np.array(image.pixels[:], np.float32).reshape(image.size[1], image.size[0], 4)
        bpy.data.images.remove(image)
    return pixels


def save(pixels: np.ndarray, path: Path) -> None:
    """Write a JPEG."""
    image = bpy.data.images.new("sheet", pixels.shape[1], pixels.shape[0])
    image.pixels.foreach_set(pixels.ravel())
    image.filepath_raw, image.file_format = str(path), "JPEG"
    image.save(quality=85)


if __name__ == "__main__":
    main(*sys.argv[1:])
