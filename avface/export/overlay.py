"""Overlay video: the frames of a video beside the same frames with the head rendered over them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from avface.arrays import F32, U8
from avface.capture import Capture
from avface.errors import AvfaceError
from avface.geometry.mesh import vertex_normals
from avface.geometry.rasteriser import rasterise
from avface.geometry.shading import sample_texture
from avface.head.appearance import vertex_colours
from avface.media import Clip, VideoWriter

if TYPE_CHECKING:
    from avface.head.skin.atlas import DetailAtlas

Layout = Literal["both", "blended"]

OPACITY = 0.75
"""Opacity of the rendered head."""
LIGHT = (-0.3, -0.5, -0.81)
"""Direction from the head to the light in the camera's axes: above the camera, to its left."""
AMBIENT, DIFFUSE = 0.42, 0.62
"""Intensity of ambient light and of LIGHT; their sum is above 1, so that surfaces that face the light are bright."""
UNSEEN_TINT = (0.42, 0.58, 0.95)
"""sRGB tint of the head in frames with confidence 0."""
BLOCK = 16
"""Frames per block of vertices."""


def export_overlay(
    capture: Capture,
    path: str | os.PathLike[str],
    *,
    video: str | os.PathLike[str] | None = None,
    layout: Layout = "both",
    stage: str | None = None,
    on_frame: Callable[[], None] = lambda: None,
) -> Path:
    """Write an .mp4 of the video with the head rendered over it, with the same times and sound; returns its path.

    Args:
        capture: the head. It is blue in frames with confidence 0.
        path: file to write; it appears only when complete.
        video: the captured video, by default `capture.source`.
        layout: "both" for the frame and the blended one side by side, "blended" for the blended one alone.
        stage: the last stage that is shown, by default all; detail is rendered as shading.
        on_frame: called after each frame.

    Frames after the capture's last are written unchanged.

    Raises:
        AvfaceError: if the video is missing, can't be read or has another size than the capture's, or the
            file can't be written.
        ValueError: if the layout or the stage is unknown.
    """
    if layout not in get_args(Layout):
        raise ValueError(f"layout={layout!r} must be one of {', '.join(get_args(Layout))}")
    path = Path(path)
    source = Path(video if video is not None else capture.source)
    if video is None and not (capture.source and source.is_file()):
        named = (
            f"{capture.source}: the captured video is"
            if capture.source
            else f"{path}: the capture's video is"
        )
        raise AvfaceError(f"{named} missing; give its path with video=")
    clip = Clip.open(source)
    size = (clip.info.width, clip.info.height)
    if size != tuple(capture.image_size):
        raise AvfaceError(
            f"{source}: is {size[0]} x {size[1]} pixels, but the capture was made from "
            f"{capture.image_size[0]} x {capture.image_size[1]}; give the captured video with video="
        )
    renderer = _Renderer(capture.up_to(stage))
    with VideoWriter(path, sound_from=source) as writer:
        for frame in clip.frames():
            drawn = renderer.blend(frame.image, frame.index) if frame.index < len(capture) else frame.image
            image = np.concatenate([frame.image, drawn], 1) if layout == "both" else drawn
            writer.write(image, frame.time)
            on_frame()
    return path


class _Renderer:
    """Renders a capture's head over its frames; fastest in the order of the frames."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._atlas: DetailAtlas | None = None
        if capture.detail is not None:
            self._atlas = capture.detail.atlas(capture.head_model)
        self._faces = capture.head_model.faces.cpu()
        self._colours = torch.as_tensor(vertex_colours(capture.head_model))
        self._light = torch.nn.functional.normalize(torch.tensor(LIGHT), dim=0)
        self._block_start = 0
        self._block: F32 | None = None

    def blend(self, image: U8, index: int) -> U8:
        """A copy of a frame (H, W, 3) with the head of frame `index` over it."""
        with torch.inference_mode():
            vertices = torch.as_tensor(self._vertices(index))
            pixels = self._capture.camera.project(vertices)
            faces = self._faces[_is_front_facing(pixels[self._faces])]
            # bounding box of the head in whole pixels, clipped to the picture
            inside = pixels[vertices[:, 2] > 0]
            out = image.copy()
            if not len(inside):
                return out
            limit = torch.tensor([image.shape[1], image.shape[0]])
            left, top = (int(v) for v in inside.amin(0).floor().clamp_min(0).minimum(limit))
            right, bottom = (int(v) for v in (inside.amax(0).ceil() + 1).clamp_min(0).minimum(limit))
            if right <= left or bottom <= top:
                return out
            fragments = rasterise(
                pixels - torch.tensor([left, top]),
                vertices[:, 2].contiguous(),
                faces,
                bottom - top,
                right - left,
            )
            head = fragments.interpolate(self._shaded(vertices, index), faces)
            if self._atlas is not None:
                uv_faces = self._atlas.uv_faces[_is_front_facing(pixels[self._faces])]
                uv = fragments.interpolate(self._atlas.uv, uv_faces)
                head = (head * sample_texture(self._detail_shading(vertices, index), uv)).clamp_max(255)
            alpha = OPACITY * (fragments.triangle >= 0)[..., None]
            window = torch.from_numpy(out)[top:bottom, left:right]
            window.copy_((window + alpha * (head - window)).round_())
        return out

    def _shaded(self, vertices: Tensor, index: int) -> Tensor:
        """Shaded colours (V, 3), 0 to 255, of vertices (V, 3) in the camera's axes."""
        light = AMBIENT + DIFFUSE * (vertex_normals(vertices, self._faces) @ self._light).clamp_min(0)
        colours = self._colours
        if self._capture.confidence[index] == 0:
            colours = 0.4 * colours + 0.6 * torch.tensor(UNSEEN_TINT)
        return 255 * (colours * light[:, None]).clamp(0, 1)

    def _detail_shading(self, vertices: Tensor, index: int) -> Tensor:
        """Ratio (R, R, 1) of shading with and without displacement at the texels of the face's window."""
        assert self._atlas is not None
        height = torch.as_tensor(self._capture.displacement(index)[0])
        displaced, smooth = (
            AMBIENT + DIFFUSE * (self._atlas.normals(vertices, part) @ self._light).clamp_min(0)
            for part in (height, torch.zeros_like(height))
        )
        inside = self._atlas.mask > 0
        return torch.where(inside, displaced / smooth, 1.0)[..., None]

    def _vertices(self, index: int) -> F32:
        if self._block is None or not self._block_start <= index < self._block_start + len(self._block):
            self._block_start = index
            self._block = self._capture.vertices(slice(index, index + BLOCK))
        return self._block[index - self._block_start]


def _is_front_facing(corners: Tensor) -> Tensor:
    """(F,) whether triangles (F, 3, 2) in pixels show their outer side: those that appear anticlockwise."""
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0] < 0
