"""A differentiable rasteriser in plain PyTorch: scan lines, and a packed z-buffer that finds the front triangles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from avface.errors import AvfaceError

Backend = Literal["torch", "nvdiffrast"]


@dataclass(frozen=True)
class Fragments:
    """The visible surface at each pixel of one or more pictures; `...` are the leading dimensions of the input.

    Shapes: triangle (..., H, W) face number or -1, barycentric (..., H, W, 3) perspective-correct (0 where
            empty), depth (..., H, W) in metres (inf where empty). Barycentrics and interpolated attributes are stored
            as planes: `.movedim(-1, 0)` is contiguous.
    """

    triangle: Tensor
    barycentric: Tensor
    depth: Tensor

    def interpolate(self, attributes: Tensor, faces: Tensor) -> Tensor:
        """Attributes of the faces' (F, 3) corners at every pixel, (..., H, W, C); 0 where empty.

        attributes (..., V, C), or (V, C) for the same in all pictures. With other indices of the same faces'
        corners, such as a head's uv_faces, attributes are indexed by these. Differentiable in `attributes`
        and in the barycentrics.
        """
        seen, triangle = self._seen
        corners = torch.stack(_take(faces.t().contiguous(), triangle))
        if attributes.ndim > 2:
            count = attributes.shape[-2]
            attributes = attributes.expand(*self.triangle.shape[:-2], -1, -1).flatten(0, -2)
            size = self.triangle.shape[-2:].numel()
            corners += torch.div(seen, size, rounding_mode="floor").mul_(count)
        weights = _take(self.barycentric.movedim(-1, 0).flatten(1), seen)
        values = attributes.t().contiguous()
        mixed = values.index_select(1, corners[0]) * weights[0]
        for k in (1, 2):
            mixed = mixed + values.index_select(1, corners[k]) * weights[k]
        planes = mixed.new_zeros((len(mixed), self.triangle.numel())).index_copy(1, seen, mixed)
        return planes.view(len(planes), *self.triangle.shape).movedim(0, -1)

    @cached_property
    def _seen(self) -> tuple[Tensor, Tensor]:
        """The non-empty pixels, numbered through all pictures, and their triangles, each (N,)."""
        chosen = self.triangle.flatten()
        seen = (chosen >= 0).nonzero()[:, 0]
        return seen, chosen.index_select(0, seen)


def rasterise(
    pixels: Tensor, depth: Tensor, faces: Tensor, height: int, width: int, *, backend: Backend = "torch"
) -> Fragments:
    """Rasterise triangles of a pinhole camera's view, in one picture or, with leading dimensions, in many.

    Args:
        pixels: (..., V, 2) vertex positions; pixel (0, 0) is the middle of the top-left pixel.
        depth: (..., V) distances along the camera's z axis; triangles with a vertex at or behind 0 are dropped.
        faces: (F, 3) vertex numbers, the same in all pictures; both sides are drawn.
        height: rows of a picture.
        width: columns of a picture.
        backend: "torch" runs everywhere; "nvdiffrast" needs CUDA and that package.

    A pixel belongs to the nearest triangle that covers its middle; of equally near ones to the lower number.
    The choice of triangle isn't differentiable; barycentrics and depth are, in `pixels` and `depth`.
    Coverage, depth order and barycentrics are computed in double precision, whatever the dtype of the input.

    Raises:
        AvfaceError: if backend="nvdiffrast" and it isn't installed.
        ValueError: if shapes are inconsistent.
    """
    lead = pixels.shape[:-2]
    if pixels.shape[-1] != 2 or depth.shape != pixels.shape[:-1] or faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(
            f"pixels {tuple(pixels.shape)}, depth {tuple(depth.shape)} and faces {tuple(faces.shape)} "
            "must be (..., V, 2), (..., V) and (F, 3)"
        )
    points = torch.cat([pixels, depth[..., None]], -1).view(lead.numel(), pixels.shape[-2], 3)
    if backend == "nvdiffrast":
        found = _draw_with_nvdiffrast(points, faces, height, width)
    elif len(points) > 1 and _one_by_one(points.device):
        pictures = [_draw(picture, faces, height, width) for picture in points.split(1)]
        found = tuple(torch.cat(parts, -1) for parts in zip(*pictures, strict=True))
    else:
        found = _draw(points, faces, height, width)
    triangle, barycentric, z = found
    return Fragments(
        triangle.view(*lead, height, width),
        barycentric.view(3, *lead, height, width).movedim(0, -1),
        z.view(*lead, height, width),
    )


def _one_by_one(device: torch.device) -> bool:
    """Whether pictures are drawn one after the other, so that the working set stays in a CPU's cache."""
    return device.type == "cpu"


def _draw(points: Tensor, faces: Tensor, height: int, width: int) -> tuple[Tensor, ...]:
    """Triangle (N,), barycentric (3, N) and depth (N,) of all N = B * height * width pixels; points (B, V, 3)."""
    batch, count = points.shape[:2]
    picture = torch.arange(batch, device=points.device)[:, None]
    # all first corners, all second corners, all third corners
    vertices = (faces.t()[:, None] + picture * count).flatten()
    x, y, depth = points.double().unbind(-1)
    # the pictures are stacked vertically as one tall picture
    coordinates = [x.flatten(), (y + picture * height).flatten(), depth.flatten()]
    corners = torch.stack(_take(coordinates, vertices)).unflatten(1, (3, -1))  # (x y depth, corner, B * F)
    size = batch * height * width
    with torch.no_grad():
        begin = (picture * height).expand(-1, len(faces)).flatten()
        seen, number = _nearest(corners.detach(), begin, size, height, width)
    barycentric, z = _shade(corners, seen, number, width)
    if batch > 1:
        number = number % len(faces)
    return (
        torch.full((size,), -1, device=points.device).index_copy_(0, seen, number),
        points.new_zeros((3, size)).index_copy(1, seen, barycentric.to(points.dtype)),
        points.new_full((size,), torch.inf).index_copy(0, seen, z.to(points.dtype)),
    )


def _nearest(corners: Tensor, begin: Tensor, size: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The non-empty pixels, of `size` in all, and the number of the nearest triangle, each (N,).

    corners (3, 3, F) and the first row of each triangle's picture, begin (F,).
    """
    # Positive floats order like their bits. The lowest bits of 1 / depth hold the triangle's number,
    # descending, so that the maximum wins. A head leaves 38 of the 52 bits of precision, and 64 heads in a batch 32.
    mask = (1 << corners.shape[2].bit_length()) - 1
    triangle, start, length, near, growth = _spans(corners, begin, height, width)
    span = torch.repeat_interleave(length)
    step = torch.arange(len(span), dtype=torch.float64, device=span.device)
    step -= (length.cumsum(0) - length).double().index_select(0, span)
    packed = near.index_select(0, span).addcmul_(growth.index_select(0, span), step).view(torch.int64)
    packed.bitwise_and_(~mask).bitwise_or_((mask - triangle).index_select(0, span))
    buffer = torch.zeros(size, dtype=torch.int64, device=span.device)
    buffer.scatter_reduce_(0, step.long().add_(start.index_select(0, span)), packed, "amax")
    seen = buffer.nonzero()[:, 0]
    return seen, mask - buffer.index_select(0, seen).bitwise_and_(mask)


def _spans(
    corners: Tensor, begin: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The pixels that triangles cover, row by row; corners (3, 3, F) in double precision, begin (F,).

    Returns, for each of N spans of pixels in one row: the triangle, the first pixel, the number of pixels,
    1 / depth at the first one and its increment a pixel, each (N,).

    Two triangles that share an edge compute bit for bit the same crossing of it with a row, as every edge is
    evaluated from its upper end, and all edges meet exactly at a vertex. Both sides count as covered, so
    that there are no gaps.
    """
    low = torch.minimum(torch.minimum(corners[:, 0], corners[:, 1]), corners[:, 2])
    high = torch.maximum(torch.maximum(corners[:, 0], corners[:, 1]), corners[:, 2])
    top = low[1].ceil().clamp_(begin, begin + height)
    bottom = high[1].floor().clamp_(begin - 1, begin + height - 1)
    left, right = low[0].ceil().clamp_(0, width), high[0].floor().clamp_(-1, width - 1)
    area = _area(corners[:, 0], corners[:, 1], corners[:, 2])
    drawn = (top <= bottom) & (left <= right) & (low[2] > 0) & (area != 0) & area.isfinite()
    drawn = drawn.nonzero()[:, 0]
    top, bottom = _take([top, bottom], drawn)
    a, b, c = torch.stack(_take(corners.flatten(0, 1), drawn)).unflatten(0, (3, 3)).unbind(1)
    (a, b) = _from_top(a, b)
    (b, c) = _from_top(b, c)
    (a, b) = _from_top(a, b)
    near = torch.stack([a[2], b[2], c[2]]).reciprocal_()
    area, (to_b, to_c), (near_b, near_c) = _area(a, b, c), (b - a, c - a), near[1:] - near[0]
    growth_x = (near_b * to_c[1] - near_c * to_b[1]) / area
    growth_y = (near_c * to_b[0] - near_b * to_c[0]) / area

    # Halves above and below the middle corner: the long edge a-c is on one side, a-b and then b-c on the other.
    # A row through the middle corner is in the upper half, even if that half has no height.
    middle = b[1].floor().clamp_(top - 1, bottom)
    first_row, last_row = torch.cat([top, middle + 1]), torch.cat([middle, bottom])
    long_start, long_end = torch.cat([a[:2], a[:2]], 1), torch.cat([c[:2], c[:2]], 1)
    start, end = torch.cat([a[:2], b[:2]], 1), torch.cat([b[:2], c[:2]], 1)
    rows = (last_row - first_row).long() + 1
    half = torch.repeat_interleave(rows)
    y = torch.arange(len(half), dtype=torch.float64, device=half.device)
    y -= (rows.cumsum(0) - rows - first_row).index_select(0, half)
    one = _crossings(long_start, long_end, rows, last_row, half, y)
    other = _crossings(start, end, rows, last_row, half, y)
    first = torch.minimum(one, other).ceil_().clamp_(0, width)
    length = torch.maximum(one, other).floor_().clamp_(-1, width - 1).sub_(first).add_(1)

    kept = (length > 0).nonzero()[:, 0]
    half, first, y, length = _take([half, first, y, length], kept)
    triangle, a_x, a_y = _take([torch.cat([drawn, drawn]), *long_start], half)
    near, growth_x, growth_y = _take([value.repeat(2) for value in (near[0], growth_x, growth_y)], half)
    near = near + growth_x * (first - a_x) + growth_y * (y - a_y)
    return triangle, y.mul_(width).add_(first).long(), length.long(), near, growth_x


def _crossings(start: Tensor, end: Tensor, rows: Tensor, last_row: Tensor, edge: Tensor, y: Tensor) -> Tensor:
    """x (N,) where edges from start (2, E) down to end (2, E) cross their `rows` (E,) rows, down to last_row (E,).

    edge (N,) is the edge of each crossing, in order, and y (N,) its row.
    """
    slope = (end[0] - start[0]) / (end[1] - start[1])
    x0, y0, slope = _take([start[0], start[1], slope], edge)
    # a product and then a sum: fused multiply-add rounds differently in vector and scalar lanes
    x = (y - y0).mul_(slope).add_(x0)
    # exact at the end, too, and for horizontal edges, whose slope is infinite
    ends = ((end[1] == last_row) & (rows > 0)).nonzero()[:, 0]
    x[rows.cumsum(0).index_select(0, ends) - 1] = end[0].index_select(0, ends)
    return x


def _take(rows: Tensor | list[Tensor], index: Tensor) -> list[Tensor]:
    """The same entries (N,) of each row: on a CPU several times faster than columns of a table."""
    return [row.index_select(0, index) for row in rows]


def _from_top(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Two points (3, N) with the upper one first."""
    ordered = one[1] <= other[1]
    return torch.where(ordered, one, other), torch.where(ordered, other, one)


def _area(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Twice the signed area (N,) of triangles in the picture; each corner (2 or 3, N)."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _shade(corners: Tensor, seen: Tensor, triangle: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Perspective-correct barycentrics (3, N) and depth (N,) of triangles (N,) at the pixels `seen` (N,).

    1 / depth, and each barycentric divided by depth, are affine in the picture: three planes a triangle,
    measured from its first corner, at which they are 1 / depth, 0 and 0.
    """
    a, b, c = corners.unbind(1)
    area = _area(a, b, c)
    solid = (area != 0) & (corners[2] > 0).all(0)
    area = torch.where(solid, area, 1.0)  # the others are invisible and must not put nan into gradients
    near = torch.where(solid, corners[2], 1.0).reciprocal()
    to_b, to_c = (b[:2] - a[:2]) / area, (c[:2] - a[:2]) / area
    b_x, b_y = near[1] * to_c[1], -near[1] * to_c[0]
    c_x, c_y = -near[2] * to_b[1], near[2] * to_b[0]
    near_x = near[0] * (to_b[1] - to_c[1]) + b_x + c_x
    near_y = near[0] * (to_c[0] - to_b[0]) + b_y + c_y

    column = seen.double()  # whole numbers stay exact, and doubles divide faster than integers
    row = (column / width).floor_()
    column -= row * width
    x0, y0, near_0, near_x, near_y, b_x, b_y, c_x, c_y = _take(
        [a[0], a[1], near[0], near_x, near_y, b_x, b_y, c_x, c_y], triangle
    )
    x, y = column - x0, row - y0
    depth = (near_0 + near_x * x + near_y * y).reciprocal()
    second, third = (b_x * x + b_y * y) * depth, (c_x * x + c_y * y) * depth
    return torch.stack([1 - second - third, second, third]), depth


def _draw_with_nvdiffrast(points: Tensor, faces: Tensor, height: int, width: int) -> tuple[Tensor, ...]:
    """The same as `_draw` through nvdiffrast (Laine et al. 2020), on CUDA and in single precision.

    Written from nvdiffrast's documentation and untested for lack of that package. Triangles that reach behind the
    camera are clipped instead of dropped.
    """
    try:
        import nvdiffrast.torch as dr
    except ImportError:
        raise AvfaceError(
            "nvdiffrast: this rasteriser isn't installed; install the package, or use the default, 'torch'"
        ) from None
    x, y, z = points.float().unbind(-1)
    rows, columns = -(-height // 8) * 8, -(-width // 8) * 8  # its CUDA rasteriser wants multiples of 8
    nearest = z.detach().clamp_min(1e-6).amin()
    clip = [(2 * x + 1) / columns * z - z, (2 * y + 1) / rows * z - z, z - 2 * nearest, z]
    context = dr.RasterizeCudaContext(device=points.device)
    found, _ = dr.rasterize(context, torch.stack(clip, -1), faces.int(), resolution=[rows, columns])
    found = found[:, :height, :width].flatten(0, 2).to(points.dtype)
    triangle = found[:, 3].detach().long() - 1
    picture = torch.arange(len(points), device=points.device).repeat_interleave(height * width)
    seen = triangle >= 0
    barycentric = torch.stack([found[:, 0], found[:, 1], 1 - found[:, 0] - found[:, 1]]) * seen
    depths = points[picture[None], faces.t()[:, triangle.clamp_min(0)], 2]
    return triangle, barycentric, torch.where(seen, (barycentric * depths).sum(0), torch.inf)
