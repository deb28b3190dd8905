"""Draws the pictures of README.md from the demo clip:  python docs/make_pictures.py"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

import avface
from avface.export.overlay import export_overlay
from avface.geometry.camera import Camera, transform
from avface.geometry.mesh import vertex_normals
from avface.geometry.rasteriser import rasterise
from avface.head.appearance import vertex_colours
from avface.media import Clip
from avface.synthetic.demo_clip import DEMO_CLIP

HERE = Path(__file__).parent / "pictures"
FRAMES = (8, 52, 96, 140)


def head_view(capture: avface.Capture, frame: int, yaw: float, size: int) -> np.ndarray:
    """The head of a frame (size, size, 3), turned by yaw radians before a white wall."""
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


def main() -> None:
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


if __name__ == "__main__":
    main()
