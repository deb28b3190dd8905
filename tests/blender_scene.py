"""Run by an interpreter with `bpy`: imports a scene file as a user does and writes what Blender shows.

    python tests/blender_scene.py FILE OUT.npz FPS BASE WIDTH HEIGHT

FPS, BASE (the scene's frame rate is FPS / BASE), WIDTH and HEIGHT are what docs/formats.md tells the user to set before
importing. OUT.npz has, for each whole frame from the first key to the last, the vertices of all meshes in world space
as Blender evaluates them (T, V, 3) and the camera's projection of the world onto clip space (T, 4, 4); the times of
all keys in frames; and facts about the scene as JSON.
"""

import json
import sys

import bpy
import numpy as np


def curves(action: "bpy.types.Action") -> list:
    """All curves of an action, in every version of Blender's layout."""
    if hasattr(action, "fcurves"):
        return list(action.fcurves)
    return [
        curve
        for layer in action.layers
        for strip in layer.strips
        for bag in strip.channelbags
        for curve in bag.fcurves
    ]


def main(path: str, out: str, fps: str, base: str, width: str, height: str) -> None:
    """Import, evaluate every frame, write."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.fps, scene.render.fps_base = int(fps), float(base)
    scene.render.resolution_x, scene.render.resolution_y = int(width), int(height)
    if path.endswith(".glb"):
        bpy.ops.import_scene.gltf(filepath=path)
    else:
        bpy.ops.wm.usd_import(filepath=path)
    cameras = [item for item in bpy.data.objects if item.type == "CAMERA"]
    meshes = sorted((item for item in bpy.data.objects if item.type == "MESH"), key=lambda item: item.name)
    # Blender's glTF importer adds a mesh for the shape of bones, which isn't in any collection of the scene.
    meshes = [item for item in meshes if item.name in scene.objects]
    every = [curve for action in bpy.data.actions for curve in curves(action)]
    keys = sorted({key.co[0] for curve in every for key in curve.keyframe_points})
    last = round(keys[-1]) if keys else scene.frame_start
    first = round(keys[0]) if keys else scene.frame_start
    vertices, projections = [], []
    for frame in range(first, last + 1):
        scene.frame_set(frame)
        graph = bpy.context.evaluated_depsgraph_get()
        points = []
        for item in meshes:
            shown = item.evaluated_get(graph)
            mesh = shown.to_mesh()
            local = np.empty(3 * len(mesh.vertices), np.float32)
            mesh.vertices.foreach_get("co", local)
            world = np.array(shown.matrix_world)
            points.append(local.reshape(-1, 3) @ world[:3, :3].T + world[:3, 3])
            shown.to_mesh_clear()
        vertices.append(np.concatenate(points))
        camera = cameras[0].evaluated_get(graph)
        lens = camera.calc_matrix_camera(graph, x=int(width), y=int(height))
        projections.append(np.array(lens) @ np.array(camera.matrix_world.inverted()))
    shapes = [item.data.shape_keys for item in meshes if item.data.shape_keys]
    blocks = [block for keys_of in shapes for block in keys_of.key_blocks[1:]]
    facts = {
        "version": bpy.app.version_string,
        "active_camera": scene.camera.name if scene.camera else None,
        "frame_start": scene.frame_start,
        "frame_end": scene.frame_end,
        "fps": scene.render.fps,
        "fps_base": scene.render.fps_base,
        "shape_keys": [block.name for block in blocks],
        "shape_key_ranges": [[block.slider_min, block.slider_max] for block in blocks],
        "materials": sorted(item.name for item in bpy.data.materials),
        "images": sorted(item.name for item in bpy.data.images if item.size[0]),
        "textured": sorted(
            f"{item.name}: {link.to_socket.name}"
            for item in bpy.data.materials
            if item.use_nodes
            for link in item.node_tree.links
            if link.to_node.type == "BSDF_PRINCIPLED"
        ),
    }
    np.savez(
        out,
        first=first,
        vertices=np.asarray(vertices, np.float32),
        projections=np.asarray(projections),
        keys=np.asarray(keys),
        facts=json.dumps(facts),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
