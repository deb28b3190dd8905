"""How expression moves a model's landmarks: by units, and by correctives whose part changes with the expression."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from avface.head.blend import BlendTerms, pair_slopes, pair_weights

FRAMES_AT_ONCE = 16
"""Frames whose derivatives by the units are computed at once, so that they stay in the processor's cache."""
POSE = 6
"""Unknowns of the pose, on which every landmark depends."""
GROUP_COST = 100_000
"""What a group costs whatever its size, in products of two unknowns' derivatives by a landmark."""


@dataclass(frozen=True)
class LandmarkGroup:
    """n landmarks that about the same u units move, themselves or by q pairs: their numbers (n,), (u,) and (q,).

    first and second (u, q) are 1 where a unit is a pair's first or second one, else 0.
    """

    landmarks: Tensor
    units: Tensor
    pairs: Tensor
    first: Tensor
    second: Tensor


class ExpressionMotion:
    """The motion of L landmarks by E units, P pairs and R terms of the person.

    Attributes: groups, which divide the landmarks; personal (D,) the numbers of those that terms of the person move.
    """

    def __init__(self, expression: Tensor, correctives: Tensor, terms: BlendTerms) -> None:
        """expression (E, L, 3) and correctives (P + R, L, 3) metres at weight 1."""
        self.units, self.pairs, self._terms = len(expression), terms.pairs, terms.person_terms
        self._person_weights = terms.person_weights.to(expression)
        self._basis = torch.cat([expression, correctives[: len(terms.pairs)]])
        person = correctives[len(terms.pairs) :]
        moves = (self._basis != 0).any(2)  # (E + P, L)
        own = (person != 0).any(2)
        self.personal = own.any(0).nonzero()[:, 0]
        self._person = person[:, self.personal]  # (R, D, 3)
        self._personal_basis = self._basis[:, self.personal]
        moves = moves.int().index_add(0, self._terms, own.int()) > 0
        self.groups = _groups(moves, self.units, self.pairs)

    def basis(self, shape: Tensor) -> Tensor:
        """How units and pairs move the landmarks of a person: shape (S,) -> (E + P, L, 3) metres."""
        if not len(self.personal):
            return self._basis
        weights = self._person_weights @ shape[: self._person_weights.shape[1]]
        basis = self._basis.clone()
        basis[:, self.personal] = self._personal_basis.index_add(
            0, self._terms, weights[:, None, None] * self._person
        )
        return basis

    def weights(self, expression: Tensor) -> Tensor:
        """Weights (..., E + P) of `basis`."""
        return torch.cat([expression, pair_weights(expression, self.pairs)], -1)

    def offsets(self, expression: Tensor, shape: Tensor) -> Tensor:
        """Offsets (..., L, 3) of the landmarks from the neutral face for expression (..., E)."""
        return (self.weights(expression) @ self.basis(shape).flatten(1)).unflatten(-1, (-1, 3))

    def pull(self, forces: Tensor, expression: Tensor, basis: Tensor) -> Tensor:
        """Gradient (T, E) by the units of forces (T, L, 3), the gradient by the landmarks."""
        by_weight = forces.flatten(1) @ basis.flatten(1).T
        gradient = by_weight[:, : self.units].clone()
        for unit, slopes in zip(self.pairs.T, pair_slopes(expression, self.pairs), strict=True):
            gradient.index_add_(1, unit, slopes * by_weight[:, self.units :])
        return gradient

    def add_products(self, hessian: Tensor, by_local: Tensor, expression: Tensor, basis: Tensor) -> None:
        """Add J^T J (T, 6 + E, 6 + E) of the Jacobian J by pose and units to the first unknowns of hessian (T, D, D).

        by_local (T, 6 + 3, 2, L) of the pixels by the pose and by the landmarks, in the Hessian's precision.
        """
        width = hessian.shape[-1]
        entries = hessian.view(len(hessian), -1)
        basis = basis.to(by_local)
        slopes = torch.stack(pair_slopes(expression.to(by_local), self.pairs))  # (2, T, P)
        for group in self.groups:
            here = by_local[..., group.landmarks]
            size = POSE + len(group.units)
            products = here.new_empty(len(here), size, size)
            own, weights = self._of_group(basis, group), self._pair_weights(slopes, group)
            for part in range(0, len(here), FRAMES_AT_ONCE):
                chosen = slice(part, part + FRAMES_AT_ONCE)
                rows = here.new_empty(len(here[chosen]), size, 2, len(group.landmarks))
                rows[:, :POSE] = here[chosen, :POSE]
                moved = self._by_units(own, weights[chosen])
                _through(here[chosen, POSE:], moved, rows[:, POSE:])
                rows = rows.flatten(2)
                products[chosen] = rows @ rows.mT
            unknowns = torch.cat([torch.arange(POSE).to(group.units), POSE + group.units])
            places = (width * unknowns[:, None] + unknowns).flatten()
            entries.scatter_add_(1, places.expand(len(here), -1), products.flatten(1))

    def jacobian(self, by_landmark: Tensor, expression: Tensor, basis: Tensor, out: Tensor) -> None:
        """Write the derivatives (T, E, 2, L) of the pixels by the units to out, which is 0 before.

        by_landmark (T, L, 2, 3) of the pixels by the landmarks.
        """
        by_landmark = by_landmark.permute(0, 3, 2, 1)
        slopes = torch.stack(pair_slopes(expression, self.pairs))
        for group in self.groups:
            here = by_landmark[..., group.landmarks]
            moved = self._by_units(self._of_group(basis, group), self._pair_weights(slopes, group))
            rows = here.new_empty(len(here), len(group.units), 2, len(group.landmarks))
            _through(here, moved, rows)
            out[:, group.units[:, None], :, group.landmarks] = rows.permute(1, 3, 0, 2)

    def pull_shape(self, forces: Tensor, expression: Tensor) -> Tensor:
        """Gradient (S,) by the head's shape of forces (T, L, 3) on what terms of the person move."""
        by_term = forces[:, self.personal].flatten(1) @ self._person.flatten(1).T
        return (by_term * self.weights(expression)[:, self._terms]).sum(0) @ self._person_weights

    def by_shape(self, expression: Tensor) -> Tensor:
        """Derivative (T, D, 3, S) of the personal landmarks by the head's shape, but for what the shape itself does."""
        person_weights = self._person_weights.to(expression)
        weights = self.weights(expression)[:, self._terms, None] * person_weights  # (T, R, S)
        return (self._person.to(expression).flatten(1).T @ weights).unflatten(1, (-1, 3))

    def _of_group(self, basis: Tensor, group: LandmarkGroup) -> Tensor:
        """The basis (u + q, 3, n) of a group's units and pairs."""
        rows = torch.cat([group.units, self.units + group.pairs])
        return basis[rows[:, None], group.landmarks].mT.contiguous()

    def _pair_weights(self, slopes: Tensor, group: LandmarkGroup) -> Tensor:
        """Weights (T, u, q) of a group's pairs in the derivatives by its units; slopes (2, T, P) of `pair_slopes`."""
        by_first, by_second = slopes[:, :, None, group.pairs]
        return by_first * group.first.to(slopes) + by_second * group.second.to(slopes)

    def _by_units(self, basis: Tensor, pair_weights: Tensor) -> Tensor:
        """Derivative (T, u, 3, n) of a group's landmarks by its units, (1, u, 3, n) if it has no pairs."""
        frames, count, pairs = pair_weights.shape
        if not pairs:
            return basis[None]
        fixed, changing = (part.flatten(1).expand(frames, -1, -1) for part in basis.split([count, pairs]))
        return torch.baddbmm(fixed, pair_weights, changing).unflatten(2, (3, -1))


def _through(by_landmark: Tensor, moved: Tensor, out: Tensor) -> None:
    """Derivatives (T, u, 2, n) of pixels by units from those (T, 3, 2, n) by landmarks and (T, u, 3, n) of these."""
    torch.mul(by_landmark[:, None, 0], moved[:, :, 0, None], out=out)
    for axis in (1, 2):
        out.addcmul_(by_landmark[:, None, axis], moved[:, :, axis, None])


def _groups(moves: Tensor, units: int, pairs: Tensor) -> list[LandmarkGroup]:
    """Groups of landmarks for which the products of all derivatives by pose and units take least time.

    moves (E + P, L): whether a unit or pair moves a landmark. Groups of landmarks moved by the same units are merged in
    pairs as long as that saves something.
    """
    by_pair = moves[units:].int()
    count = moves[:units].int()
    for unit in pairs.T:
        count = count.index_add(0, unit, by_pair)
    masks, group = torch.unique((count > 0).T, dim=0, return_inverse=True)
    masks, sizes = masks.double(), group.bincount().double()
    while len(masks) > 1:
        each = masks.sum(1)
        union = each[:, None] + each - masks @ masks.T
        cost = sizes * (POSE + each) ** 2
        saved = cost[:, None] + cost + GROUP_COST - (sizes[:, None] + sizes) * (POSE + union) ** 2
        one, other = divmod(int(saved.fill_diagonal_(-torch.inf).argmax()), len(masks))
        if saved[one, other] <= 0:
            break
        one, other = min(one, other), max(one, other)
        masks[one] = masks[one].maximum(masks[other])
        sizes[one] += sizes[other]
        group = torch.where(group == other, one, group)
        group = group - (group > other).to(group)
        kept = torch.arange(len(masks), device=masks.device) != other
        masks, sizes = masks[kept], sizes[kept]
    result = []
    for number, mask in enumerate(masks):
        landmarks, own = (group == number).nonzero()[:, 0], mask.nonzero()[:, 0]
        chosen = moves[units:, landmarks].any(1).nonzero()[:, 0]
        first, second = (own[:, None] == unit for unit in pairs[chosen].T)
        result.append(LandmarkGroup(landmarks, own, chosen, first, second))
    return result
