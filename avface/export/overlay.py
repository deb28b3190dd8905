"""Overlay video: the frames of a video beside the same frames with the head rendered over them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import cv2
import numpy as np
import torch
from torch import Tensor

from avface.arrays import F32, U8, Bool, Int
from avface.capture import Capture
from avface.errors import AvfaceError
from avface.geometry import painter
from avface.geometry.mesh import vertex_normals
from avface.head.appearance import vertex_colours
from avface.media import Clip, EncodingConfig, VideoWriter
from avface.media.yuv_image import YUVImage
from avface.threads import one_thread

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
AROUND = 8192
"""Texels by which places outside a texture are moved to be above 0."""
ENCODING = EncodingConfig(preset="ultrafast", whole_pictures=True, x264_params="cabac=1:qp=22")
"""x264's preset ultrafast with arithmetic coding, without which files are a seventh larger, and a constant quantiser in
place of a rate control that looks ahead. Against crf=20:cabac=1:mbtree=1, measured on 1080p: three quarters of the CPU
time, a signal-to-noise ratio higher by 0.4 to 0.7 dB, files up to 16 % larger without the head. With a quantiser of 23
traces of a head that vanishes (17 of 255) stay up to the next key frame."""


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

    Frames of shots without the person, and those after the capture's last, are written unchanged.

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
    clip = Clip.open(source, rotate=capture.rotate)
    size = (clip.info.width, clip.info.height)
    if size != tuple(capture.image_size):
        raise AvfaceError(
            f"{source}: is {size[0]} x {size[1]} pixels, but the capture was made from "
            f"{capture.image_size[0]} x {capture.image_size[1]}; give the captured video with video="
        )
    renderer, in_shot = _Renderer(capture.up_to(stage)), capture.in_shot
    track = clip.info.existing_track(capture.audio_track)
    with (
        one_thread(),  # for arrays of this size several threads are slower
        VideoWriter(path, sound_from=source, audio_track=track, encoding=ENCODING) as writer,
    ):
        for picture in clip.pictures():
            patch, corner = np.zeros((0, 0, 3), np.uint8), (0, 0)
            if picture.index < len(capture) and in_shot[picture.index]:
                patch, corner = renderer.blend(picture.image, picture.index)
            writer.write_patched(picture.image, patch, corner, picture.time, beside=layout == "both")
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
        self._corners = self._faces.numpy()
        self._colours = torch.as_tensor(vertex_colours(capture.head_model))
        self._light = torch.nn.functional.normalize(torch.tensor(LIGHT), dim=0)
        self._block_start = 0
        self._block: F32 | None = None

    def blend(self, image: U8 | YUVImage, index: int) -> tuple[U8, tuple[int, int]]:
        """The part of a frame (H, W, 3) that shows the head of frame `index`, with the head over it (h, w, 3), and its
        first row and column. Empty where the head is out of the picture."""
        with torch.inference_mode():
            vertices = torch.as_tensor(self._vertices(index))
            pixels, depth = self._capture.camera.project(vertices).numpy(), vertices[:, 2].numpy()
            (top, bottom), (left, right) = _box(pixels[depth > 0], image.shape[:2])
            frame = image[top:bottom, left:right]
            if not frame.size:
                return image[:0, :0], (0, 0)
            facing = np.flatnonzero(_is_front_facing(pixels, self._corners))
            faces = self._corners[facing]
            layers = [painter.Layer(self._shaded(vertices, index).numpy()[faces] + 0.5, painter.RGB)]
            if self._atlas is not None:
                shading = self._detail_shading(vertices, index)
                texels = _texels(self._atlas.uv.numpy(), shading.shape)
                layers.append(painter.Layer(texels[self._atlas.uv_faces.numpy()[facing]], painter.UV))
            colour, *places = painter.paint(
                pixels - np.array([left, top], np.float32), depth, faces, layers, bottom - top, right - left
            )
            head = painter.unpacked_rgb(colour)
            if places:
                column, row = (place - AROUND for place in painter.unpacked_uv(places[0]))
                ratio = cv2.remap(shading, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                head = np.rint(head * ratio[..., None]).clip(0, 255).astype(np.uint8)
            patch = frame.copy()
            blended = cv2.addWeighted(patch, 1 - OPACITY, head, OPACITY, 0)
            cv2.copyTo(blended, (colour != 0).view(np.uint8), patch)
            return patch, (top, left)

    def _shaded(self, vertices: Tensor, index: int) -> Tensor:
        """Shaded colours (V, 3), 0 to 255, of vertices (V, 3) in the camera's axes."""
        light = AMBIENT + DIFFUSE * (vertex_normals(vertices, self._faces) @ self._light).clamp_min(0)
        colours = self._colours
        if self._capture.confidence[index] == 0:
            colours = 0.4 * colours + 0.6 * torch.tensor(UNSEEN_TINT)
        return 255 * (colours * light[:, None]).clamp(0, 1)

    def _detail_shading(self, vertices: Tensor, index: int) -> F32:
        """Ratio (R, R) of shading with and without displacement at the texels of the face's window."""
        assert self._atlas is not None
        height = torch.as_tensor(self._capture.displacement(index)[0])
        displaced, smooth = (
            AMBIENT + DIFFUSE * (self._atlas.normals(vertices, part) @ self._light).clamp_min(0)
            for part in (height, torch.zeros_like(height))
        )
        inside = self._atlas.mask > 0
        ratio: F32 = torch.where(inside, displaced / smooth, 1.0).numpy()
        return ratio

    def _vertices(self, index: int) -> F32:
        if self._block is None or not self._block_start <= index < self._block_start + len(self._block):
            self._block_start = index
            self._block = self._capture.vertices(slice(index, index + BLOCK))
        return self._block[index - self._block_start]


def _box(pixels: F32, size: tuple[int, ...]) -> list[tuple[int, int]]:
    """First and last row, then column, of vertices (V, 2) in a picture of (rows, columns); ends are exclusive."""
    if not len(pixels):
        return [(0, 0), (0, 0)]
    return [
        (int(np.clip(np.floor(values.min()), 0, limit)), int(np.clip(np.ceil(values.max()) + 1, 0, limit)))
        for values, limit in zip(pixels.T[::-1], size, strict=True)
    ]


def _is_front_facing(pixels: F32, faces: Int) -> Bool:
    """(F,) whether triangles of vertices (V, 2) show their outer side: those that appear anticlockwise."""
    (ax, bx, cx), (ay, by, cy) = (values[faces.T] for values in pixels.T)
    facing: Bool = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax) < 0
    return facing


def _texels(uv: F32, size: tuple[int, ...]) -> F32:
    """Columns and rows (N, 2) in a texture of (rows, columns) of uv (N, 2), each plus `AROUND`; v is up."""
    rows, columns = size
    column, row = uv[:, 0] * columns - 0.5, (1 - uv[:, 1]) * rows - 0.5
    return np.stack([column, row], 1) + np.float32(AROUND)
