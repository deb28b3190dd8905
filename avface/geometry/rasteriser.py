"""A rasteriser in plain PyTorch: scan lines, and a packed z-buffer that finds the front triangles."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Fragments:
    """What each pixel of a picture sees.

    Shapes: triangle (H, W) face number or -1, barycentric (H, W, 3) perspective-correct (0 where nothing is
            seen), depth (H, W) in metres (inf where nothing is seen).
    """

    triangle: Tensor
    barycentric: Tensor
    depth: Tensor

    def interpolate(self, attributes: Tensor, faces: Tensor) -> Tensor:
        """Vertex attributes (V, C) at every pixel (H, W, C); 0 where nothing is seen. faces (F, 3)."""
        chosen = self.triangle.flatten()
        seen = (chosen >= 0).nonzero()[:, 0]
        corners = attributes[faces].flatten(1).t().index_select(1, chosen[seen]).unflatten(0, (3, -1))
        weights = self.barycentric.flatten(0, 1).index_select(0, seen).t()
        mixed = (corners * weights[:, None]).sum(0)
        out = attributes.new_zeros((len(chosen), attributes.shape[-1])).index_copy(0, seen, mixed.t())
        return out.unflatten(0, self.triangle.shape)


def rasterise(pixels: Tensor, depth: Tensor, faces: Tensor, height: int, width: int) -> Fragments:
    """Rasterise triangles as seen by a pinhole camera.

    Args:
        pixels: (V, 2) vertex positions; pixel (0, 0) is the middle of the top-left pixel.
        depth: (V,) distances along the camera's z axis; triangles with a vertex at or behind 0 are dropped.
        faces: (F, 3) vertex numbers; both sides are drawn.
        height: rows of the picture.
        width: columns of the picture.

    A pixel belongs to the nearest triangle that covers its middle; of equally near ones to the lower number.
    The choice of triangle isn't differentiable; barycentrics and depth are, in `pixels` and `depth`.
    """
    corners = torch.cat([pixels, depth[:, None]], 1)[faces]  # (F, 3, 3): x, y, depth
    with torch.no_grad():
        owner, start, length, near, growth = _spans(corners.double(), height, width)
        spans = torch.repeat_interleave(torch.arange(len(owner), device=owner.device), length)
        step = torch.arange(len(spans), device=owner.device)
        step -= (length.cumsum(0) - length).index_select(0, spans)
        inverse = near.index_select(0, spans).addcmul_(growth.index_select(0, spans), step)
        # Positive IEEE floats order like their bits: depth above, triangle number below, smallest wins.
        packed = (inverse.reciprocal_().float().view(torch.int32).long() << 32).add_(
            owner.index_select(0, spans)
        )
        buffer = torch.full((height * width,), torch.iinfo(torch.int64).max, device=owner.device)
        buffer.scatter_reduce_(0, step.add_(start.index_select(0, spans)), packed, "amin")
        triangle = torch.where(buffer != torch.iinfo(torch.int64).max, buffer & 0xFFFFFFFF, -1)
    return _shade(corners, triangle, height, width)


def _spans(corners: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The pixels that triangles cover, row by row; corners (F, 3, 3) are x, y and depth in double precision.

    Returns, for each of N spans of pixels in one row: the triangle, the first pixel (y * width + x), the
    number of pixels, 1 / depth at the first one and its growth a pixel, each (N,).

    Two triangles that share an edge find bit for bit the same crossing of it with a row, as every edge is
    walked from its upper end, and a vertex is hit exactly by all its edges. Both sides count as covered, so
    nothing shows between them.
    """
    low, high = corners.amin(1), corners.amax(1)
    flat = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) == 0
    top = low[:, 1].ceil().clamp_min(0).long()
    rows = high[:, 1].floor().clamp_max(height - 1).long() - top + 1
    drawn = ((rows > 0) & ~flat & (high[:, 0] >= 0) & (low[:, 0] <= width - 1) & (low[:, 2] > 0)).nonzero()[
        :, 0
    ]
    rows, top, corners = rows[drawn], top[drawn], corners[drawn]
    corners = corners.gather(1, corners[..., 1].argsort(1)[..., None].expand(-1, -1, 3))  # from top to bottom
    corners[..., 2].reciprocal_()

    owner = torch.repeat_interleave(torch.arange(len(drawn), device=drawn.device), rows)
    row = torch.arange(len(owner), device=drawn.device) - (rows.cumsum(0) - rows - top).index_select(0, owner)
    y = row.double()
    # one contiguous (N,) per coordinate, which is several times faster than gathering points
    upper, middle, lower = corners.permute(1, 2, 0).flatten(0, 1).index_select(1, owner).unflatten(0, (3, 3))
    above = y <= middle[1]
    long_x, long_near = _crossing(upper, lower, y)
    short_x, short_near = _crossing(torch.where(above, upper, middle), torch.where(above, middle, lower), y)
    first = torch.minimum(long_x, short_x).ceil_().clamp_min_(0)
    length = torch.maximum(long_x, short_x).floor_().clamp_max_(width - 1).sub_(first).long() + 1
    growth = (short_near - long_near) / (short_x - long_x)
    growth = torch.where(short_x == long_x, 0.0, growth)
    near = torch.addcmul(long_near, growth, first - long_x)
    start = first.long().add_(row, alpha=width)
    kept = (length > 0).nonzero()[:, 0]
    owner = drawn.index_select(0, owner)
    found = [value.index_select(0, kept) for value in (owner, start, length, near, growth)]
    return found[0], found[1], found[2], found[3], found[4]


def _crossing(start: Tensor, end: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """x and 1 / depth, each (N,), where edges from start (3, N) down to end (3, N) cross the rows y (N,)."""
    over, along = y - start[1], end[1] - start[1]
    at_end = over >= along
    x, near = (torch.addcdiv(start[k], over * (end[k] - start[k]), along) for k in (0, 2))
    return torch.where(at_end, end[0], x), torch.where(at_end, end[2], near)


def _shade(corners: Tensor, triangle: Tensor, height: int, width: int) -> Fragments:
    """Perspective-correct barycentrics and depth of the pixels' triangles (H * W,), with gradients."""
    seen = (triangle >= 0).nonzero()[:, 0]
    chosen = corners.flatten(1).t().index_select(1, triangle[seen])  # (9, N)
    x, y, depth = chosen.unflatten(0, (3, 3)).unbind(1)  # each (3, N): a, b, c
    x = x - (seen % width).to(x.dtype)
    y = y - torch.div(seen, width, rounding_mode="floor").to(y.dtype)
    areas = x.roll(-1, 0) * y.roll(-2, 0) - y.roll(-1, 0) * x.roll(-2, 0)
    weights = areas / depth
    total = weights.sum(0)
    barycentric = corners.new_zeros((height * width, 3)).index_copy(0, seen, (weights / total).t())
    nowhere = torch.full((height * width,), torch.inf, dtype=corners.dtype, device=corners.device)
    z = nowhere.index_copy(0, seen, areas.sum(0) / total)
    return Fragments(triangle.view(height, width), barycentric.view(height, width, 3), z.view(height, width))


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
