"""Where the lips meet: how far they are apart or inside each other, and how to part or close them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import relu

from avface.arrays import F64, Int
from avface.geometry.interpolation import smoothstep
from avface.geometry.mesh import vertex_normals
from avface.head.lips import LipRegion, landmark_rows, lip_region
from avface.head.model import HeadModel
from avface.head.schemes import LIPS_INNER_LOWER, LIPS_INNER_UPPER

COLUMNS = 15
"""Places across the mouth at which the lips are parted or closed, each as far as it needs."""
WIDTH = 0.88
"""Half width of the mouth that has two lips, of that between its corners; beyond it they are one."""
FACING = 0.5
"""How steeply skin looks up or down, by its normal, to meet the other lip."""
SLIP = 0.005
"""Metres that a pair may be apart horizontally: more, and one lip is in front of the other, as in /f/."""
SPREAD = 0.011
"""Metres along a lip over which a movement of its edge fades."""
GIVE = 0.002
"""Metres around a place where the lips are inside each other over which the skin gives way there. Little, so that what
is seen of lips that press each other stays where it is."""
ALONG = 0.4
"""How much less a distance across the mouth counts for that: shut lips meet in an even line."""
CLOSEST = 0.005
"""Metres: lips apart by up to this are closed, by more than twice this they aren't."""

_PASSES = 3  # what a pair leaves between itself and the next one, the next pass takes
_SHUTTING = 5  # each time skin that gives way opens the seam again, by less and less


@dataclass(frozen=True, eq=False)
class LipContact:
    """P pairs of points that meet when a head's mouth closes: a vertex, and the other lip's surface over or under it.

    upper and lower (P, N) take vertices of the lips' region to the points, three entries a row at most; give (P, N)
    says how far along +y each vertex goes when the lips at a pair give way by 1, half for each lip. seam (C, N) takes
    vertices to the gap between the lips as it is seen from the front, at C columns across the mouth; spread (C, N) says
    how far along +y each vertex goes when the lips as a whole part by 1 at a column, half for each lip.
    """

    upper: Tensor
    lower: Tensor
    give: Tensor
    seam: Tensor
    spread: Tensor

    @classmethod
    def of(cls, head: HeadModel, region: LipRegion | None = None) -> LipContact:
        """Find the pairs of a head, on its average face.

        Raises:
            AvfaceError: if it has no lips as `lip_region` wants them.
        """
        region = region or lip_region(head)
        place = head.template.cpu().double().numpy()[region.vertices]
        normals = vertex_normals(head.template, head.faces).cpu().double().numpy()[region.vertices]
        two = (np.abs(region.across) < WIDTH) & (region.outward < 1)
        is_lower = region.lower > 0.5
        lips = [np.flatnonzero(two & ~is_lower), np.flatnonzero(two & is_lower)]
        rows: list[list[F64]] = [[], []]
        for own, other, sign in ((0, 1, -1.0), (1, 0, 1.0)):
            mine = lips[own][normals[lips[own], 1] * sign > FACING]
            faces = region.faces[np.isin(region.faces, lips[other]).all(1)]
            faces = faces[normals[faces, 1].mean(1) * sign < -FACING / 2]
            for vertex in mine:
                shares = _surface_at(place[vertex], place, faces)
                if shares is not None:
                    rows[own].append(np.eye(len(place))[vertex])
                    rows[other].append(shares)
        upper, lower = np.array(rows[0]), np.array(rows[1])
        centres = np.linspace(-WIDTH, WIDTH, COLUMNS)
        contact = np.flatnonzero(((upper + lower) > 0).any(0))
        side = 1 - 2 * region.lower
        reach = np.zeros(len(place))
        for lip in (~is_lower, is_lower):
            edge = contact[lip[contact]]
            near = np.linalg.norm(place[lip][:, None] - place[edge], axis=2).min(1)
            reach[lip] = smoothstep(0, 1, 1 - near / SPREAD)
        spread = _hats(region.across, centres).T * (side * reach / 2)
        give = np.zeros((len(upper), len(place)))
        for ends, lip in ((upper, ~is_lower), (lower, is_lower)):
            for pair, shares in enumerate(ends):
                away = (place[lip][:, None] - place[shares > 0]) * [ALONG, 1, 1]
                near = np.linalg.norm(away, axis=2).min(1)
                give[pair, lip] = smoothstep(0, 1, 1 - near / GIVE) * side[lip] / 2
        seam = _seam(head, region, centres)
        return cls(*(torch.from_numpy(part).float() for part in (upper, lower, give, seam, spread)))

    def to(self, like: Tensor) -> LipContact:
        """The same on the device and in the type of a tensor."""
        parts = (self.upper, self.lower, self.give, self.seam, self.spread)
        return LipContact(*(part.to(like) for part in parts))

    def gaps(self, vertices: Tensor) -> Tensor:
        """How far the points of each pair are apart, (..., P) metres along +y: below 0 they are inside each other.

        vertices (..., N, 3) of the lips' region, in the head's frame before any joint turns. Pairs that have slipped
        past each other by more than `SLIP` count as far apart (+1 m). Differentiable.
        """
        between = (self.upper - self.lower) @ vertices  # (..., P, 3)
        slipped = between[..., ::2].detach().square().sum(-1) > SLIP**2
        return torch.where(slipped, 1.0, between[..., 1])

    def penetration(self, vertices: Tensor) -> Tensor:
        """How deep the lips are inside each other, (...) metres, at the deepest pair; 0 if nowhere."""
        return relu(-self.gaps(vertices).amin(-1))

    def penetration_loss(self, vertices: Tensor) -> Tensor:
        """Mean depth in metres of all pairs inside each other; vertices (..., N, 3)."""
        return relu(-self.gaps(vertices)).mean()

    def opening(self, vertices: Tensor) -> Tensor:
        """Gap of the lips, (...) metres: mean over the middle half of the mouth, as seen from the front; 0 if shut.

        Lips that only just touch, as at rest, are open in front: the average face's by 2.3 mm.
        """
        return relu(self.seen_gaps(vertices)[..., COLUMNS // 4 : COLUMNS - COLUMNS // 4]).mean(-1)

    def seen_gaps(self, vertices: Tensor) -> Tensor:
        """Gap between the lips as it is seen from the front, (..., C) metres along +y at columns across the mouth."""
        return vertices[..., 1] @ self.seam.T

    def parted(self, vertices: Tensor) -> Tensor:
        """Vertices (..., N, 3) with the lips outside each other: where they are inside, skin of both gives way by half.

        Frames in which they are outside come back as they are, bit for bit.
        """
        inside = self.penetration(vertices) > 0
        moved = vertices[inside]
        for _ in range(_PASSES):
            moved = self._given_way(moved)
        return _replaced(vertices, inside, moved)

    def closed(self, vertices: Tensor, share: Tensor) -> Tensor:
        """Vertices (..., N, 3) with a share (...), 0 to 1, of the seen gap between the lips taken away.

        Lips that are shut in front are pressed against each other behind, where they give way. Where the widest of the
        columns is open by more than `CLOSEST`, less and less is closed, from twice that on nothing: lips so far apart
        say that whoever asks is wrong. So it is where one is in front of the other by more than `SLIP`. Frames with a
        share of 0 come back as they are.
        """
        gaps = self.seen_gaps(vertices)
        share = share * (2 - gaps.amax(-1) / CLOSEST).clamp(0, 1)
        asked = share > 0
        facing = (2 - (vertices[..., 2] @ self.seam.T).abs() / SLIP).clamp(0, 1)
        kept = (relu(gaps) * (1 - share[..., None] * facing))[asked]
        moved = vertices[asked]
        for _ in range(_SHUTTING):
            moved = _raised(moved, -relu(self.seen_gaps(moved) - kept) @ self.spread)
            moved = self._given_way(moved)
        return _replaced(vertices, asked, moved)

    def _given_way(self, vertices: Tensor) -> Tensor:
        """Vertices (..., N, 3) with the skin moved out of the other lip where a pair is inside each other."""
        way = relu(-self.gaps(vertices))[..., None] * self.give
        return _raised(vertices, way.amax(-2) + way.amin(-2))


def _raised(vertices: Tensor, up: Tensor) -> Tensor:
    """Vertices (..., N, 3) moved along +y by (..., N) metres."""
    moved = torch.stack([vertices[..., 0], vertices[..., 1] + up, vertices[..., 2]], -1)
    return torch.where((up != 0)[..., None], moved, vertices)


def _replaced(vertices: Tensor, chosen: Tensor, moved: Tensor) -> Tensor:
    """Vertices (..., N, 3) with those of chosen (...) frames replaced by (B, N, 3)."""
    if not len(moved):
        return vertices
    result = vertices.clone()
    result[chosen] = moved
    return result


def _seam(head: HeadModel, region: LipRegion, centres: F64) -> F64:
    """See `LipContact`; (C, N) from the landmarks of the lips' inner edges, between them linear in `across`."""
    edges = [landmark_rows(head, region, edge) for edge in (LIPS_INNER_UPPER, LIPS_INNER_LOWER)]
    between = edges[0] - edges[1]
    across = (edges[0] + edges[1]) / 2 @ region.across
    share = np.stack([np.interp(centres, across, unit) for unit in np.eye(len(across))], 1)
    return share @ between


def _surface_at(point: F64, place: F64, faces: Int) -> F64 | None:
    """Shares (N,) of the vertices in the surface's point right over or under another one; None if there is none."""
    a, b, c = (place[faces[:, k]][:, [0, 2]] for k in range(3))
    offset, to_b, to_c = point[[0, 2]] - a, b - a, c - a
    area = to_b[:, 0] * to_c[:, 1] - to_b[:, 1] * to_c[:, 0]
    area = np.where(np.abs(area) < 1e-12, np.inf, area)
    second = (offset[:, 0] * to_c[:, 1] - offset[:, 1] * to_c[:, 0]) / area
    third = (to_b[:, 0] * offset[:, 1] - to_b[:, 1] * offset[:, 0]) / area
    shares = np.stack([1 - second - third, second, third], 1)
    over = np.flatnonzero((shares >= -1e-9).all(1) & np.isfinite(area))
    if not len(over):
        return None
    height = (shares[over] * place[faces[over], 1]).sum(1)
    nearest = over[np.abs(height - point[1]).argmin()]
    result = np.zeros(len(place))
    result[faces[nearest]] = shares[nearest]
    return result


def _hats(x: F64, centres: F64) -> F64:
    """Hat functions (N, C) that sum to 1 between the outermost centres, and fade to 0 beyond."""
    step = centres[1] - centres[0]
    return np.asarray(np.clip(1 - np.abs(x[:, None] - centres) / step, 0, 1))
