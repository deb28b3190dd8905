"""Draw the pictures of README.md and docs.

python docs/make_pictures.py [demo contact_sheet wrinkles detail occluders head]
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from head_faces import COLUMNS, DISTANCE, SHEETS, VIEWS, Face, face_colours, face_vertices
from PIL import Image

import avface
from avface.export.overlay import export_overlay
from avface.geometry.camera import Camera, transform
from avface.geometry.mesh import vertex_normals
from avface.geometry.rasteriser import rasterise
from avface.head import load_head
from avface.head.appearance import vertex_colours
from avface.head.model import HeadModel
from avface.media import Clip
from avface.synthetic.demo_clip import DEMO_CLIP

HEAD = load_head()
HERE = Path(__file__).parent / "pictures"
FRAMES = (8, 52, 96, 140)
HELD_OUT = (8, 28, 108)
"""Held-out people of the detail network (`avface.training.detail.train.held_out`)."""


def head_view(capture: avface.Capture, frame: int, yaw: float, size: int) -> np.ndarray:
    """Rendering (size, size, 3) of the head of a frame, rotated by yaw radians, before white."""
    head = capture.head_model
    turn = torch.tensor([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]).float()
    points = torch.as_tensor(capture.vertices([frame], "head")[0])
    points = transform(
        points, torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ turn, torch.tensor([0.0, -0.01, 0.9])
    )
    camera = Camera.centred(2.6 * size, size, size)
    fragments = rasterise(camera.project(points), points[:, 2], head.faces, size, size)
    normals = fragments.interpolate(vertex_normals(points, head.faces), head.faces)
    light = 0.35 + 0.7 * (normals @ torch.tensor([-0.35, -0.45, -0.82])).clamp_min(0)
    picture = fragments.interpolate(torch.as_tensor(vertex_colours(head)), head.faces) * light[..., None]
    picture[fragments.triangle < 0] = 1
    return (picture.clamp(0, 1) * 255).byte().numpy()


def demo() -> None:
    """Write demo.jpg: rows of frame, head over the frame, head from the front and from the side."""
    HERE.mkdir(exist_ok=True)
    capture = avface.reconstruct(DEMO_CLIP)
    overlay = export_overlay(capture, HERE / "overlay.mp4", video=DEMO_CLIP)
    both = {frame.index: frame.image for frame in Clip.open(overlay).frames() if frame.index in FRAMES}
    overlay.unlink()
    height = capture.image_size[1]
    rows = [
        np.concatenate([both[f], head_view(capture, f, 0.0, height), head_view(capture, f, 0.7, height)], 1)
        for f in FRAMES
    ]
    picture = Image.fromarray(np.concatenate(rows))
    picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS).save(
        HERE / "demo.jpg", quality=88
    )


def contact_sheet() -> None:
    """Write contact_sheet.jpg: four moments of nine synthetic clips in three columns."""
    from avface.synthetic.rendering.scene import SceneConfig, sample_scene

    config = SceneConfig(size=192, seconds=3.0)
    clips = []
    for index in range(9):
        scene = sample_scene(20, index, config, HEAD)
        pictures = develop(scene, [5, 25, 45, 65])
        clips.append(np.concatenate(pictures, 1))
    save(
        np.concatenate([np.concatenate(clips[k : k + 3], 1) for k in range(0, 9, 3)]),
        "contact_sheet.jpg",
        0.6,
    )


def wrinkles() -> None:
    """Write wrinkles.jpg: four people with neutral face, smile, raised brows, and frown with narrowed eyes."""
    from avface.synthetic.rendering.scene import SceneConfig, sample_scene

    moves = [
        {},
        {"mouthSmile": 0.9, "cheekSquint": 0.7, "eyeSquint": 0.4},
        {"browInnerUp": 1.0, "browOuterUp": 0.9},
        {"browDown": 1.0, "eyeSquint": 0.9, "noseSneer": 0.5},
    ]
    expression = np.zeros((len(moves), HEAD.num_expression), np.float32)
    for row, move in zip(expression, moves, strict=True):
        for number, name in enumerate(HEAD.expression_names):
            row[number] = move.get(name.removesuffix("Left").removesuffix("Right"), 0.0)
    rows = []
    for index in (3, 6, 9, 13):
        scene = sample_scene(7, index, SceneConfig(size=320, seconds=1.0, texture=1024), HEAD)
        still = np.zeros((len(moves), 3), np.float32)
        performance = replace(
            scene.performance,
            expression=expression,
            joints=np.zeros((len(moves), HEAD.num_joints, 3), np.float32),
            turn=still,
            shift=still,
        )
        camera = Camera.centred(900.0, 320, 320)
        near = np.array([0.0, 0.0, 0.72], np.float32)
        scene = replace(scene, performance=performance, camera=camera, rest=near, rest_turn=still[0])
        rows.append(np.concatenate(develop(scene, range(len(moves))), 1))
    save(np.concatenate(rows), "wrinkles.jpg", 0.8)


def detail() -> None:
    """Write detail.jpg: three held-out synthetic people (raised brow, frown, smile): image, coarse surface, predicted
    and true folds."""
    from avface.evaluation.studies.detail import render_detail
    from avface.head.skin.atlas import DetailMaps
    from avface.networks.detail.network import predict_detail
    from avface.networks.detail.refinement import pretrained_detail_refinement
    from avface.synthetic.rendering.scene import SceneConfig, sample_scene
    from avface.training.detail.frames import DetailFramesConfig, render_frames, seen_places, true_folds

    refinement = pretrained_detail_refinement(HEAD, "cpu")
    assert refinement is not None
    atlas, config = refinement.atlas, DetailFramesConfig()
    faces = (
        (HELD_OUT[0], {"browOuterUpLeft": 1.0, "browInnerUp": 0.6}),
        (
            HELD_OUT[1],
            {"browDownLeft": 0.9, "browDownRight": 1.0, "noseSneerLeft": 0.6, "noseSneerRight": 0.5},
        ),
        (
            HELD_OUT[2],
            {f"{unit}{side}": 0.9 for unit in ("mouthSmile", "cheekSquint") for side in ("Left", "Right")},
        ),
    )
    rows = []
    for person, units in faces:
        settings = SceneConfig(size=config.picture, seconds=2.0, texture=config.texture)
        scene = sample_scene(config.seed, person, settings, HEAD)
        expression = 0.3 * scene.performance.expression
        for name, weight in units.items():
            expression[:, HEAD.expression_names.index(name)] = weight
        scene = replace(scene, performance=replace(scene.performance, expression=expression))
        frame, camera = np.array([len(scene) // 2]), scene.camera
        points = torch.as_tensor(scene.capture(HEAD, "open").vertices(frame)[0]).float()
        folds = true_folds(scene, HEAD, int(frame[0]))
        places = seen_places(HEAD, points, camera)
        picture = render_frames(scene, HEAD, frame, [folds], [places], np.random.default_rng(person))[0]
        maps = atlas.maps(picture, points, camera)
        found = predict_detail(refinement.network, DetailMaps.stack([maps]), None)[0]
        true = atlas.from_uv_square(folds) * (atlas.mask > 0)
        renderings = [render_detail(atlas, points, camera, heights) for heights in (0 * found, found, true)]
        shown = camera.project(points).numpy()
        left, top = np.maximum(shown.min(0).astype(int), 0)
        right, bottom = shown.max(0).astype(int)
        cut = [
            Image.fromarray(each[top:bottom, left:right]).resize((260, 340))
            for each in [picture, *renderings]
        ]
        rows.append(np.concatenate([np.asarray(each) for each in cut], 1))
    save(np.concatenate(rows), "detail.jpg", 1.0)


def occluders() -> None:
    """Write occluders.jpg: occluders before synthetic faces."""
    from avface.synthetic.occlusion.compositing import occlude
    from avface.synthetic.occlusion.plan import OcclusionConfig
    from avface.synthetic.rendering.scene import SceneConfig, sample_scene

    pictures = []
    for index in range(10):
        scene = sample_scene(31, index, SceneConfig(size=256, seconds=2.0), HEAD)
        landmarks = scene.capture(HEAD, "open").landmarks(range(0, 20))
        frames = develop(scene, range(20))
        rng = np.random.default_rng(index)
        occluded = list(occlude(frames, landmarks, rng, OcclusionConfig(hold_share=1.0)))
        pictures.append(occluded[12].image)
    save(np.concatenate([np.concatenate(pictures[k : k + 5], 1) for k in (0, 5)]), "occluders.jpg", 0.75)


def head(model: HeadModel = HEAD, folder: Path = HERE) -> None:
    """Write head_units.jpg and head_faces.jpg: the faces of head_faces.py. render_head.py draws them in Blender."""
    for name, faces in SHEETS.items():
        tiles = [portrait(model, face, 224) for face in faces]
        rows = [np.concatenate(tiles[k : k + COLUMNS[name]], 1) for k in range(0, len(tiles), COLUMNS[name])]
        Image.fromarray(np.concatenate(rows)).save(folder / f"{name}.jpg", quality=85)


def portrait(model: HeadModel, face: Face, size: int) -> np.ndarray:
    """Rendering (size, size, 3) of a face before grey, three times as fine at first."""
    fine = 3 * size
    points = torch.as_tensor(face_vertices(model, face))
    middle, half = VIEWS[face.view]
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=points.dtype))
    seen = points @ flip + torch.tensor([0.0, middle, DISTANCE + float(points[:, 2].max())])
    camera = Camera.centred(DISTANCE * fine / (2 * half), fine, fine)
    fragments = rasterise(camera.project(seen), seen[:, 2], model.faces, fine, fine)
    normals = torch.zeros_like(seen)
    for part in np.unique(model.face_parts):  # of each part alone, so that edges between them stay sharp
        own = model.faces[torch.as_tensor(model.face_parts == part)]
        normals = torch.where(normals.any(1, keepdim=True), normals, vertex_normals(seen, own))
    normals = torch.nn.functional.normalize(fragments.interpolate(normals, model.faces), dim=-1)
    key, fill = (
        torch.tensor(direction, dtype=points.dtype) for direction in ((-0.5, -0.55, -0.67), (0.8, -0.1, -0.6))
    )
    light = 0.3 + 0.62 * (normals @ key).clamp_min(0) + 0.18 * (normals @ fill).clamp_min(0)
    corners = torch.as_tensor(face_colours(model))
    shown = corners[fragments.triangle.clamp_min(0)]
    picture = (shown * fragments.barycentric[..., None]).sum(-2) * light[..., None]
    half_way = torch.nn.functional.normalize(key + torch.tensor([0.0, 0.0, -1.0], dtype=points.dtype), dim=0)
    glossy = np.array([name.split("_")[-1] in ("eye", "iris", "pupil", "teeth") for name in model.part_names])
    shine = torch.as_tensor(np.where(glossy[model.face_parts], 0.5, 0.06))[fragments.triangle.clamp_min(0)]
    picture = picture + (shine * (normals @ half_way).clamp_min(0) ** 60)[..., None]
    picture[fragments.triangle < 0] = 0.75
    image = Image.fromarray((picture.clamp(0, 1) * 255).byte().numpy())
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))


def develop(scene: object, frames: object) -> list[np.ndarray]:
    """Images of some frames of a scene, with the noise of the sensor."""
    from avface.synthetic.rendering.renderer import SceneRenderer

    renderer = SceneRenderer(scene, HEAD)
    noise = torch.Generator().manual_seed(0)
    return [scene.sensor.develop(renderer.light(range(k, k + 1)), noise)[0].numpy() for k in frames]


def save(picture: np.ndarray, name: str, scale: float) -> None:
    """Write a JPEG at a scale."""
    image = Image.fromarray(picture)
    size = (round(image.width * scale), round(image.height * scale))
    image.resize(size, Image.Resampling.LANCZOS).save(HERE / name, quality=85)


if __name__ == "__main__":
    draw = {one.__name__: one for one in (demo, contact_sheet, wrinkles, detail, occluders, head)}
    for picture in sys.argv[1:] or draw:
        draw[picture]()
