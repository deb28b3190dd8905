"""Drawing of meshes of small triangles in NumPy, for pictures to look at; several times as fast as `rasteriser`.

Exact for neither depth nor perspective, which small triangles of one surface don't show: triangles are drawn from the
farthest to the nearest as wholes (painter's algorithm), values in between are linear in the picture, and all are
rounded to fixed-point numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from avface.arrays import F32, F64, U8, Floats, Int

Packed = npt.NDArray[np.int64]
"""Several fixed-point numbers in one integer, which are added and multiplied together."""


@dataclass(frozen=True)
class Field:
    """Place of a number above 0 in a 64-bit integer."""

    shift: int
    """Lowest bit."""
    fraction: int
    """Bits after the binary point. The number is rounded to them, and so are its increments a pixel."""
    limits: tuple[float, float]
    """Corners' values are clipped to these, so that the values in between, with their rounding, stay in the field and
    are never all 0, which means an empty pixel."""


RGB = (Field(48, 8, (1, 254.5)), Field(24, 16, (1, 254.5)), Field(0, 16, (1, 254.5)))
"""Colours from 0 to 255, each with its whole part in a byte of its own."""
UV = (Field(32, 16, (1, 32_000)), Field(0, 16, (1, 32_000)))
"""Places in a texture, in texels."""


@dataclass(frozen=True)
class Layer:
    """Values of a mesh that are drawn together."""

    corners: Floats
    """(F, 3, C) at the faces' corners."""
    fields: Sequence[Field]
    """C places in the packed number."""


def paint(
    pixels: Floats, depth: Floats, faces: Int, layers: Sequence[Layer], height: int, width: int
) -> list[Packed]:
    """Draw triangles: for each layer the packed values (H, W) of a picture, 0 where it is empty.

    Args:
        pixels: (V, 2) vertex positions; pixel (0, 0) is the middle of the top-left pixel.
        depth: (V,) distances along the camera's z axis; triangles with a vertex at or behind 0 are dropped.
        faces: (F, 3) vertex numbers; both sides are drawn.
        layers: values at the faces' corners.
        height: rows of the picture.
        width: columns of the picture.

    A pixel belongs to the triangles that cover its middle, and of these to the one whose corners are nearest in the
    mean.
    """
    vertices = np.ascontiguousarray(faces.T)
    x, y, z = (
        values.astype(np.float64).take(vertices) for values in (pixels[:, 0], pixels[:, 1], depth)
    )  # each (3, F): all first corners, all second corners, all third corners
    area = (x[1] - x[0]) * (y[2] - y[0]) - (y[1] - y[0]) * (x[2] - x[0])
    drawn = (np.abs(area) > 1e-9) & np.isfinite(area) & (_least(z) > 0) & _meets(x, width) & _meets(y, height)
    drawn = np.flatnonzero(drawn)
    drawn = drawn[np.argsort(-(z[0] + z[1] + z[2])[drawn], kind="stable")]
    x, y, area = x.take(drawn, 1), y.take(drawn, 1), area.take(drawn)
    face, row, column, length = _spans(x, y, height, width)

    starts = np.cumsum(length) - length
    count = int(length.sum())
    first = row * width + column
    pixel = np.ones(count, np.int64)
    _steps_to(pixel, starts, first, first + length - 1)
    pictures = []
    for layer in layers:
        planes = _planes(x, y, area, layer.corners[drawn], layer.fields)
        begin, growth, by_row = (plane.take(face) for plane in planes)
        begin += growth * column
        begin += by_row * row
        values = np.repeat(growth, length)
        _steps_to(values, starts, begin, begin + growth * (length - 1))
        picture = np.zeros(height * width, np.int64)
        picture[pixel] = values  # of equal indices the last one counts: the nearest triangle
        pictures.append(picture.reshape(height, width))
    return pictures


def unpacked_rgb(packed: Packed) -> U8:
    """Whole parts (H, W, 3) of the colours in packed numbers (H, W)."""
    octets = packed.astype("<i8", copy=False).view(np.uint8).reshape(*packed.shape, 8)
    return np.stack([octets[..., field.shift // 8 + field.fraction // 8] for field in RGB], -1)


def unpacked_uv(packed: Packed) -> tuple[F32, F32]:
    """The two places (H, W) in packed numbers (H, W)."""
    u, v = ((packed >> field.shift) & 0xFFFF_FFFF for field in UV)
    scale = np.float32(1 << UV[0].fraction)
    return u.astype(np.float32) / scale, v.astype(np.float32) / scale


def _least(corners: F64) -> F64:
    """The least (F,) of corners' (3, F) coordinates; over so short an axis several times as fast as `min`."""
    return np.minimum(np.minimum(corners[0], corners[1]), corners[2])


def _greatest(corners: F64) -> F64:
    return np.maximum(np.maximum(corners[0], corners[1]), corners[2])


def _meets(coordinates: F64, size: int) -> npt.NDArray[np.bool_]:
    """Whether triangles, of corners' (3, F) x or y, have a pixel's middle of 0 to `size` - 1 between them."""
    low, high = np.ceil(_least(coordinates)), np.floor(_greatest(coordinates))
    return np.maximum(low, 0) <= np.minimum(high, size - 1)


def _steps_to(steps: Packed, starts: Int, first: Int, last: Int) -> None:
    """Turn increments (N,) of spans in place into values: those at `starts` become `first`; `last` are the ends'."""
    if len(starts):
        steps[starts[0]] = first[0]
        steps[starts[1:]] = first[1:] - last[:-1]
        np.cumsum(steps, out=steps)


def _spans(x: F64, y: F64, height: int, width: int) -> tuple[Int, Int, Int, Int]:
    """The rows of pixels in triangles of corners (3, F): triangle, row, first column and number of pixels, each (N,).

    Two triangles that share an edge compute the same crossing of it with a row, so that there are no gaps.
    """
    x, y = x.copy(), y.copy()
    for upper, lower in ((0, 1), (1, 2), (0, 1)):  # sorted from the top to the bottom
        wrong = np.flatnonzero(y[upper] > y[lower])
        for values in (x, y):
            values[upper, wrong], values[lower, wrong] = values[lower, wrong], values[upper, wrong]
    top, bottom = np.maximum(np.ceil(y[0]), 0), np.minimum(np.floor(y[2]), height - 1)
    middle = np.minimum(np.maximum(np.floor(y[1]), top - 1), bottom)
    # halves above and below the middle corner: the edges 0-1 and 1-2 on one side, 0-2 on the other
    first, last = _alternating(top, middle + 1), _alternating(middle, bottom)
    rows = np.maximum(last - first + 1, 0).astype(np.int64)
    above, below, whole = (_line(x[i], y[i], x[k], y[k]) for i, k in ((0, 1), (1, 2), (0, 2)))
    half = np.repeat(np.arange(len(rows)), rows)
    triangle = half >> 1  # to take values by an index is faster than to repeat them
    row = np.arange(len(half)) + (first - (np.cumsum(rows) - rows)).take(half)
    one = _alternating(above[0], below[0]).take(half) * row + _alternating(above[1], below[1]).take(half)
    other = whole[0].take(triangle) * row + whole[1].take(triangle)
    column = np.maximum(np.ceil(np.minimum(one, other)), 0)
    length = np.minimum(np.floor(np.maximum(one, other)), width - 1) - column + 1
    kept = np.flatnonzero(length > 0)
    row, column, length = (values.take(kept).astype(np.int64) for values in (row, column, length))
    return triangle.take(kept), row, column, length


def _alternating(upper: F64, lower: F64) -> F64:
    """Values (2 F,) of halves: the upper and the lower one of each triangle (F,)."""
    return np.stack([upper, lower], 1).ravel()


def _line(x0: F64, y0: F64, x1: F64, y1: F64) -> tuple[F64, F64]:
    """Slope and x at row 0 of lines through two points; of horizontal ones, x is that of the second point."""
    flat = y0 == y1
    slope = np.where(flat, 0.0, (x1 - x0) / np.where(flat, 1.0, y1 - y0))
    return slope, x1 - slope * y1


def _planes(
    x: F64, y: F64, area: F64, values: Floats, fields: Sequence[Field]
) -> tuple[Packed, Packed, Packed]:
    """Packed values at (0, 0), and their increments a column and a row, of triangles of corners (3, F), each (F,).

    Sums of multiples are exact modulo 2^64, so that numbers far outside their fields, as here at (0, 0), do no harm.
    """
    to_b, to_c = (x[1] - x[0], y[1] - y[0]), (x[2] - x[0], y[2] - y[0])
    column, row = np.rint(x[0]), np.rint(y[0])
    origin, by_column, by_row = (np.zeros(len(area), np.int64) for _ in range(3))
    for channel, field in enumerate(fields):
        v0, v1, v2 = np.ascontiguousarray(values[..., channel].T, np.float64).clip(*field.limits)
        b, c = (v1 - v0) / area, (v2 - v0) / area
        by_x, by_y = b * to_c[1] - c * to_b[1], c * to_b[0] - b * to_c[0]
        nearby = v0 + by_x * (column - x[0]) + by_y * (row - y[0])
        for total, value in ((origin, nearby), (by_column, by_x), (by_row, by_y)):
            total += np.rint(value * (1 << field.fraction)).astype(np.int64) << field.shift
    origin -= by_column * column.astype(np.int64) + by_row * row.astype(np.int64)
    return origin, by_column, by_row
