"""A differentiable rasteriser in plain PyTorch: scan lines, and a packed z-buffer that finds the front triangles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from avface.errors import AvfaceError

Backend = Literal["torch", "nvdiffrast"]


@dataclass(frozen=True)
class Fragments:
    """What each pixel of one or more pictures sees; `...` are the leading dimensions of what was rasterised.

    Shapes: triangle (..., H, W) face number or -1, barycentric (..., H, W, 3) perspective-correct (0 where nothing
            is seen), depth (..., H, W) in metres (inf where nothing is seen).
    """

    triangle: Tensor
    barycentric: Tensor
    depth: Tensor

    def interpolate(self, attributes: Tensor, faces: Tensor) -> Tensor:
        """Attributes of the faces' (F, 3) corners at every pixel, (..., H, W, C); 0 where nothing is seen.

        attributes (..., V, C), or (V, C) for the same in all pictures. With another numbering of the same faces'
        corners, such as a head's uv_faces, it takes attributes with that numbering. Differentiable in `attributes`
        and in the barycentrics.
        """
        lead, size = self.triangle.shape[:-2], self.triangle.shape[-2:].numel()
        chosen = self.triangle.flatten()
        seen = (chosen >= 0).nonzero()[:, 0]
        # one contiguous (N,) per coordinate, which is several times faster than gathering points
        corners = faces.t().index_select(1, chosen.index_select(0, seen))
        if attributes.ndim > 2:
            count = attributes.shape[-2]
            attributes = attributes.expand(*lead, *attributes.shape[-2:]).flatten(0, -2)
            corners = corners + torch.div(seen, size, rounding_mode="floor").mul_(count)
        weights = self.barycentric.flatten(0, -2).index_select(0, seen).t()
        values = attributes.t().contiguous()
        mixed = sum(values.index_select(1, corners[k]) * weights[k] for k in range(3))
        out = mixed.new_zeros((len(chosen), len(values))).index_copy(0, seen, mixed.t())
        return out.view(*self.triangle.shape, -1)


def rasterise(
    pixels: Tensor, depth: Tensor, faces: Tensor, height: int, width: int, *, backend: Backend = "torch"
) -> Fragments:
    """Rasterise triangles as seen by a pinhole camera, in one picture or, with leading dimensions, in many.

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
        AvfaceError: if nvdiffrast is asked for and isn't installed.
        ValueError: if the shapes don't fit each other.
    """
    lead = pixels.shape[:-2]
    if pixels.shape[-1] != 2 or depth.shape != pixels.shape[:-1] or faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(
            f"pixels {tuple(pixels.shape)}, depth {tuple(depth.shape)} and faces {tuple(faces.shape)} "
            "must be (..., V, 2), (..., V) and (F, 3)"
        )
    points = torch.cat([pixels, depth[..., None]], -1).view(-1, pixels.shape[-2], 3)
    if backend == "nvdiffrast":
        found = _draw_with_nvdiffrast(points, faces, height, width)
    elif len(points) > 1 and points.device.type == "cpu":
        # picture by picture: what a picture needs stays in the processor's cache
        pictures = [_draw(points[i : i + 1], faces, height, width) for i in range(len(points))]
        found = tuple(torch.cat(parts) for parts in zip(*pictures, strict=True))
    else:
        found = _draw(points, faces, height, width)
    triangle, barycentric, z = found
    return Fragments(
        triangle.view(*lead, height, width),
        barycentric.view(*lead, height, width, 3),
        z.view(*lead, height, width),
    )


def _draw(points: Tensor, faces: Tensor, height: int, width: int) -> tuple[Tensor, ...]:
    """Triangle (N,), barycentric (N, 3) and depth (N,) of all N = B * height * width pixels; points (B, V, 3)."""
    first = torch.arange(len(points), device=points.device)[:, None] * points.shape[1]
    vertices = (faces.t()[:, None] + first).flatten()  # (3 * B * F): first corners, second corners, third corners
    by_coordinate = points.permute(2, 0, 1).flatten(1).double()
    corners = by_coordinate.index_select(1, vertices).unflatten(1, (3, -1))  # (x y depth, corner, B * F)
    with torch.no_grad():
        triangle = _nearest(corners.detach(), len(points), len(faces), height, width)
    return triangle, *_shade(corners, triangle, len(faces), height, width, points.dtype)


def _nearest(corners: Tensor, batch: int, num_faces: int, height: int, width: int) -> Tensor:
    """The number of the nearest face, or -1, at all B * height * width pixels; corners (3, 3, B * F)."""
    # Positive floats order like their bits. The lowest bits of 1 / depth make room for the triangle, counted
    # down, so that the largest wins. What is left of the 52 bits of precision is 32 and more, and a tie is one.
    mask = (1 << max(num_faces - 1, 1).bit_length()) - 1
    buffer = torch.zeros(batch * height * width, dtype=torch.int64, device=corners.device)
    if num_faces:
        owner, start, length, near, growth = _spans(corners, num_faces, height, width)
        spans = torch.repeat_interleave(torch.arange(len(owner), device=owner.device), length)
        step = torch.arange(len(spans), device=owner.device)
        step -= (length.cumsum(0) - length).index_select(0, spans)
        near = near.index_select(0, spans).addcmul_(growth.index_select(0, spans), step)
        packed = near.view(torch.int64).bitwise_and_(~mask).bitwise_or_(
            (mask - owner % num_faces).index_select(0, spans)
        )
        buffer.scatter_reduce_(0, step.add_(start.index_select(0, spans)), packed, "amax")
    return torch.where(buffer > 0, mask - (buffer & mask), -1)


def _spans(
    corners: Tensor, num_faces: int, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The pixels that triangles cover, row by row; corners (3, 3, B * F) in double precision.

    Returns, for each of N spans of pixels in one row: the triangle, the first pixel, the number of pixels,
    1 / depth at the first one and its growth a pixel, each (N,).

    Two triangles that share an edge find bit for bit the same crossing of it with a row, as every edge is
    walked from its upper end, and a vertex is hit exactly by all its edges. Both sides count as covered, so
    nothing shows between them.
    """
    low = torch.minimum(torch.minimum(corners[:, 0], corners[:, 1]), corners[:, 2])
    high = torch.maximum(torch.maximum(corners[:, 0], corners[:, 1]), corners[:, 2])
    top, left = low[1].ceil().clamp_(0, height), low[0].ceil().clamp_(0, width)
    rows = high[1].floor().clamp_(-1, height - 1) - top + 1
    right = high[0].floor().clamp_(-1, width - 1)
    area = _area(corners[:, 0], corners[:, 1], corners[:, 2])
    drawn = (rows > 0) & (left <= right) & (low[2] > 0) & (area != 0) & area.isfinite()
    drawn = drawn.nonzero()[:, 0]
    rows, top = rows.index_select(0, drawn).long(), top.index_select(0, drawn).long()
    a, b, c = corners.index_select(2, drawn).unbind(1)
    (a, b) = _from_top(a, b)
    (b, c) = _from_top(b, c)
    (a, b) = _from_top(a, b)
    near = torch.stack([a[2], b[2], c[2]]).reciprocal_()
    area, (to_b, to_c), (near_b, near_c) = _area(a, b, c), (b - a, c - a), near[1:] - near[0]
    growth_x = (near_b * to_c[1] - near_c * to_b[1]) / area
    growth_y = (near_c * to_b[0] - near_b * to_c[0]) / area

    owner = torch.repeat_interleave(torch.arange(len(drawn), device=drawn.device), rows)
    row = torch.arange(len(owner), device=drawn.device) - (rows.cumsum(0) - rows - top).index_select(0, owner)
    y = row.double()
    # one contiguous (N,) per coordinate, which is several times faster than gathering points
    table = torch.stack([*a[:2], *b[:2], *c[:2], near[0], growth_x, growth_y]).index_select(1, owner)
    upper, middle, lower, (near_a, growth_x, growth_y) = table[:2], table[2:4], table[4:6], table[6:]
    above = y <= middle[1]
    one = _crossing(upper, lower, y)
    other = _crossing(torch.where(above, upper, middle), torch.where(above, middle, lower), y)
    first = torch.minimum(one, other).ceil_().clamp_(0, width)
    length = torch.maximum(one, other).floor_().clamp_(-1, width - 1).sub_(first).long() + 1
    near_first = near_a + growth_x * (first - upper[0]) + growth_y * (y - upper[1])
    picture = torch.div(drawn, num_faces, rounding_mode="floor").index_select(0, owner)
    start = first.long() + (row + picture * height) * width
    kept = (length > 0).nonzero()[:, 0]
    owner = drawn.index_select(0, owner)
    found = [value.index_select(0, kept) for value in (owner, start, length, near_first, growth_x)]
    return found[0], found[1], found[2], found[3], found[4]


def _from_top(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Two points (3, N) with the upper one first."""
    ordered = one[1] <= other[1]
    return torch.where(ordered, one, other), torch.where(ordered, other, one)


def _crossing(start: Tensor, end: Tensor, y: Tensor) -> Tensor:
    """x (N,) where edges from start (2, N) down to end (2, N) cross the rows y (N,)."""
    x = torch.addcdiv(start[0], (y - start[1]) * (end[0] - start[0]), end[1] - start[1])
    return torch.where(y >= end[1], end[0], x)


def _area(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Twice the signed area (N,) of triangles in the picture; each corner (2 or 3, N)."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _shade(
    corners: Tensor, triangle: Tensor, num_faces: int, height: int, width: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Perspective-correct barycentrics (N, 3) and depth (N,) at pixels that see `triangle` (N,), with gradients.

    1 / depth, and each barycentric divided by depth, are affine in the picture: three planes a triangle,
    measured from its first corner, at which they are 1 / depth, 0 and 0.
    """
    a, b, c = corners.unbind(1)
    area = _area(a, b, c)
    solid = (area != 0) & (corners[2] > 0).all(0)
    area = torch.where(solid, area, 1.0)  # the others are seen nowhere, and mustn't put nan into gradients
    near = torch.where(solid, corners[2], 1.0).reciprocal()
    to_b, to_c = (b[:2] - a[:2]) / area, (c[:2] - a[:2]) / area
    second, third = near[1] * torch.stack([to_c[1], -to_c[0]]), near[2] * torch.stack([-to_b[1], to_b[0]])
    first = near[0] * torch.stack([to_b[1] - to_c[1], to_c[0] - to_b[0]])
    table = torch.cat([a[:2], first + second + third, second, third, near[:1]])

    seen = (triangle >= 0).nonzero()[:, 0]
    row = torch.div(seen, width, rounding_mode="floor")
    column = seen - row * width
    picture = torch.div(row, height, rounding_mode="floor")
    chosen = table.index_select(1, triangle.index_select(0, seen) + picture * num_faces)  # (9, N)
    x, y = column - chosen[0], row - picture * height - chosen[1]
    z = (chosen[2] * x + chosen[3] * y + chosen[8]).reciprocal()
    of_b, of_c = (chosen[4] * x + chosen[5] * y) * z, (chosen[6] * x + chosen[7] * y) * z
    barycentric = torch.stack([1 - of_b - of_c, of_b, of_c], 1).to(dtype)
    nothing = torch.zeros((len(triangle), 3), dtype=dtype, device=triangle.device)
    nowhere = torch.full((len(triangle),), torch.inf, dtype=dtype, device=triangle.device)
    return nothing.index_copy(0, seen, barycentric), nowhere.index_copy(0, seen, z.to(dtype))


def _draw_with_nvdiffrast(points: Tensor, faces: Tensor, height: int, width: int) -> tuple[Tensor, ...]:
    """The same as `_draw` through nvdiffrast (Laine et al. 2020), in single precision and on CUDA.

    Written from its documentation, and not run: this project's machines don't have it.
    """
    try:
        import nvdiffrast.torch as dr
    except ImportError:
        raise AvfaceError(
            "rasteriser 'nvdiffrast': the package nvdiffrast isn't installed; install it, or use the default 'torch'"
        ) from None
    x, y, z = points.float().unbind(-1)
    raise NotImplementedError
