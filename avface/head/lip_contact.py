"""Contact of the lips: their gap and penetration, resolution of penetration, and closing."""

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
"""Columns across the mouth at which the gap is measured and closed."""
TWO_LIP_WIDTH = 0.88
"""Half width of the part of the mouth with two lips, as a share of that between the corners; beyond it they merge."""
MIN_VERTICAL_NORMAL = 0.5
"""Least vertical component of the normal of skin that can touch the other lip."""
MAX_SLIP = 0.005
"""Largest horizontal distance of a contact pair in metres; beyond it one lip is in front of the other, as in /f/."""
EDGE_DECAY = 0.011
"""Metres along a lip over which a displacement of its edge decays."""
RESOLVE_RADIUS = 0.002
"""Radius in metres of the displacement that resolves a penetration: small, so that the visible part of pressed lips
stays in place."""
ACROSS_SCALE = 0.4
"""Factor on distances across the mouth within that radius, for an even line between shut lips."""
CLOSABLE_GAP = 0.005
"""Metres: gaps up to this are closed fully, gaps beyond twice this not at all."""

_PASSES = 3  # resolving one pair displaces its neighbours, which the next pass corrects
_SHUTTING = 5  # resolving penetration opens the seam again, less each time


@dataclass(frozen=True, eq=False)
class LipContact:
    """P contact pairs of a head's lips: a vertex, and the other lip's surface over or under it.

    upper and lower (P, N) map the N vertices of the lips' region to the points of the pairs, at most three entries a
    row; separation (P, N) is the displacement of each vertex along +y that separates a pair by 1, half by each lip.
    seam (C, N) maps vertices to the gap of the lips in front view at C columns across the mouth; opening_basis (C, N)
    is the displacement of each vertex along +y that opens the lips at a column by 1, half by each lip.
    """

    upper: Tensor
    lower: Tensor
    separation: Tensor
    seam: Tensor
    opening_basis: Tensor

    @classmethod
    def of(cls, head: HeadModel, region: LipRegion | None = None) -> LipContact:
        """The contact pairs of a head, on its mean face.

        Raises:
            AvfaceError: if `lip_region` can't be computed for it.
        """
        region = region or lip_region(head)
        place = head.template.cpu().double().numpy()[region.vertices]
        normals = vertex_normals(head.template, head.faces).cpu().double().numpy()[region.vertices]
        two = (np.abs(region.across) < TWO_LIP_WIDTH) & (region.outward < 1)
        is_lower = region.lower > 0.5
        lips = [np.flatnonzero(two & ~is_lower), np.flatnonzero(two & is_lower)]
        rows: list[list[F64]] = [[], []]
        for own, other, sign in ((0, 1, -1.0), (1, 0, 1.0)):
            mine = lips[own][normals[lips[own], 1] * sign > MIN_VERTICAL_NORMAL]
            faces = region.faces[np.isin(region.faces, lips[other]).all(1)]
            faces = faces[normals[faces, 1].mean(1) * sign < -MIN_VERTICAL_NORMAL / 2]
            for vertex in mine:
                shares = _surface_at(place[vertex], place, faces)
                if shares is not None:
                    rows[own].append(np.eye(len(place))[vertex])
                    rows[other].append(shares)
        upper, lower = np.array(rows[0]), np.array(rows[1])
        centres = np.linspace(-TWO_LIP_WIDTH, TWO_LIP_WIDTH, COLUMNS)
        contact = np.flatnonzero(((upper + lower) > 0).any(0))
        side = 1 - 2 * region.lower
        reach = np.zeros(len(place))
        for lip in (~is_lower, is_lower):
            edge = contact[lip[contact]]
            near = np.linalg.norm(place[lip][:, None] - place[edge], axis=2).min(1)
            reach[lip] = smoothstep(0, 1, 1 - near / EDGE_DECAY)
        opening_basis = _hats(region.across, centres).T * (side * reach / 2)
        separation = np.zeros((len(upper), len(place)))
        for ends, lip in ((upper, ~is_lower), (lower, is_lower)):
            for pair, shares in enumerate(ends):
                away = (place[lip][:, None] - place[shares > 0]) * [ACROSS_SCALE, 1, 1]
                near = np.linalg.norm(away, axis=2).min(1)
                separation[pair, lip] = smoothstep(0, 1, 1 - near / RESOLVE_RADIUS) * side[lip] / 2
        seam = _seam(head, region, centres)
        return cls(
            *(torch.from_numpy(part).float() for part in (upper, lower, separation, seam, opening_basis))
        )

    def to(self, like: Tensor) -> LipContact:
        """The same on the device and in the type of a tensor."""
        parts = (self.upper, self.lower, self.separation, self.seam, self.opening_basis)
        return LipContact(*(part.to(like) for part in parts))

    def gaps(self, vertices: Tensor) -> Tensor:
        """Signed distance of the points of each pair, (..., P) metres along +y: below 0 they penetrate.

        vertices (..., N, 3) of the lips' region, in the head's frame before any joint turns. Pairs with a horizontal
        distance beyond `MAX_SLIP` get +1 m. Differentiable.
        """
        between = (self.upper - self.lower) @ vertices  # (..., P, 3)
        slipped = between[..., ::2].detach().square().sum(-1) > MAX_SLIP**2
        return torch.where(slipped, 1.0, between[..., 1])

    def penetration(self, vertices: Tensor) -> Tensor:
        """Largest penetration depth of the pairs, (...) metres; 0 without penetration."""
        return relu(-self.gaps(vertices).amin(-1))

    def penetration_loss(self, vertices: Tensor) -> Tensor:
        """Mean penetration depth in metres over all pairs; vertices (..., N, 3)."""
        return relu(-self.gaps(vertices)).mean()

    def opening(self, vertices: Tensor) -> Tensor:
        """Gap of the lips in front view, (...) metres: mean over the middle half of the mouth; 0 if shut.

        Lips that only just touch, as on the neutral face, have a gap in front: 2.3 mm on the mean face.
        """
        return relu(self.front_gaps(vertices)[..., COLUMNS // 4 : COLUMNS - COLUMNS // 4]).mean(-1)

    def front_gaps(self, vertices: Tensor) -> Tensor:
        """Gap of the lips in front view, (..., C) metres along +y at columns across the mouth; below 0 they overlap."""
        return vertices[..., 1] @ self.seam.T

    def resolve_penetration(self, vertices: Tensor) -> Tensor:
        """Vertices (..., N, 3) with penetrations resolved, half by each lip.

        Frames without penetration are returned unchanged, bit for bit.
        """
        penetrating = self.penetration(vertices) > 0
        resolved = vertices[penetrating]
        for _ in range(_PASSES):
            resolved = self._resolve_once(resolved)
        return _replaced(vertices, penetrating, resolved)

    def close_gap(self, vertices: Tensor, share: Tensor) -> Tensor:
        """Vertices (..., N, 3) with the gap in front view reduced by a share (...), 0 to 1.

        Penetrations behind the closed front are resolved. The share decays linearly to 0 where the widest gap goes from
        `CLOSABLE_GAP` to twice that, since a request to close lips so far apart is unreliable; likewise at columns
        where one lip is in front of the other by `MAX_SLIP` to twice that. Frames with a share of 0 are returned
        unchanged.
        """
        gaps = self.front_gaps(vertices)
        share = share * (2 - gaps.amax(-1) / CLOSABLE_GAP).clamp(0, 1)
        chosen = share > 0
        facing = (2 - (vertices[..., 2] @ self.seam.T).abs() / MAX_SLIP).clamp(0, 1)
        kept = (relu(gaps) * (1 - share[..., None] * facing))[chosen]
        moved = vertices[chosen]
        for _ in range(_SHUTTING):
            moved = _raised(moved, -relu(self.front_gaps(moved) - kept) @ self.opening_basis)
            moved = self._resolve_once(moved)
        return _replaced(vertices, chosen, moved)

    def _resolve_once(self, vertices: Tensor) -> Tensor:
        """Vertices (..., N, 3) after one pass that moves the skin of penetrating pairs out of the other lip."""
        lift = relu(-self.gaps(vertices))[..., None] * self.separation
        return _raised(vertices, lift.amax(-2) + lift.amin(-2))


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
    """Barycentric weights (N,) of the surface point vertically over or under a point; None if there is none."""
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
