"""Pictures in the encoder's pixel format, which needn't be converted between a decoder and an encoder."""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from avface.arrays import U8

MATRICES = {1: Colorspace.ITU709, 2: Colorspace.ITU601, 5: Colorspace.ITU601, 6: Colorspace.ITU601}
"""FFmpeg's matrices of YUV and RGB, by their number in ISO 23091-2; it takes unknown ones (2) for BT.601."""


class YUVImage:
    """An upright picture of even size in 4:2:0, 8 bits, limited range: a decoder's own memory, which isn't changed.

    Its parts can be had as arrays: `image[top:bottom, left:right]` is (H, W, 3) uint8 RGB, as `Clip.frames` gives it.
    """

    def __init__(self, frame: VideoFrame):
        """Use a frame for which `fits` is true."""
        self.frame = frame
        self.matrix = MATRICES[int(frame.colorspace)]
        self.shape = (frame.height, frame.width, 3)

    @staticmethod
    def fits(frame: VideoFrame) -> bool:
        """Whether a frame has the pixel format, a size and a matrix that are taken as they are."""
        return (
            frame.format.name == "yuv420p"
            and frame.color_range != ColorRange.JPEG
            and int(frame.colorspace) in MATRICES
            and frame.width % 2 == frame.height % 2 == 0
            and all(plane.line_size > 0 for plane in frame.planes)  # negative after a vertical flip
        )

    def __getitem__(self, part: tuple[slice, slice]) -> U8:
        """RGB (h, w, 3) of consecutive rows and columns."""
        (top, bottom, _), (left, right, _) = (
            places.indices(size) for places, size in zip(part, self.shape[:2], strict=True)
        )
        if top >= bottom or left >= right:
            return np.zeros((max(bottom - top, 0), max(right - left, 0), 3), np.uint8)
        # from even to even places, where chroma samples begin and end
        first_row, first_column, rows, columns = top & ~1, left & ~1, bottom + 1 & ~1, right + 1 & ~1
        block = VideoFrame(columns - first_column, rows - first_row, "yuv420p")
        for target, source, scale in zip(planes(block), planes(self.frame), (1, 2, 2), strict=True):
            target[:] = source[first_row // scale : rows // scale, first_column // scale : columns // scale]
        block.colorspace, block.color_range = self.frame.colorspace, self.frame.color_range
        rgb = VideoReformatter().reformat(block, format="rgb24").to_ndarray()
        return np.asarray(
            rgb[top - first_row : bottom - first_row, left - first_column : right - first_column], np.uint8
        )


def planes(frame: VideoFrame) -> list[U8]:
    """The planes of a yuv420p frame: (H, W), (H / 2, W / 2) and (H / 2, W / 2), views of its memory."""
    return [
        np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        for plane in frame.planes
    ]
