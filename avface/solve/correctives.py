"""Landmarks that a head's correctives move, so that their derivative by the units changes with expression and shape."""

from __future__ import annotations

import torch
from torch import Tensor

from avface.head.blend import BlendTerms, pair_slopes, pair_weights

CACHED_FRAMES = 4
"""Frames whose derivatives by the units are computed at once, so that they stay in the processor's cache."""


class LandmarkCorrectives:
    """The C landmarks of a model that correctives move, of L, with E units, P pairs and R terms of the person.

    Attributes: landmarks (C,) and others (L - C,) numbers of those that are moved and of those that aren't; personal
    (D,) those that terms of the person move.
    """

    def __init__(self, expression: Tensor, correctives: Tensor, terms: BlendTerms) -> None:
        """expression (E, L, 3) and correctives (P + R, L, 3) metres at weight 1."""
        moved = correctives.square().sum((0, 2)) > 0
        self.landmarks, self.others = moved.nonzero()[:, 0], (~moved).nonzero()[:, 0]
        self.units = len(expression)
        self.pairs, self._terms = terms.pairs, terms.person_terms
        self._person_weights = terms.person_weights.to(expression)
        self._basis = torch.cat([expression, correctives[: len(terms.pairs)]])[:, self.landmarks].permute(
            2, 0, 1
        )
        person = correctives[len(terms.pairs) :]
        self._person = person[:, self.landmarks].permute(2, 0, 1)  # (3, R, C)
        self.personal = person.square().sum((0, 2)).nonzero()[:, 0]
        self._personal = person[:, self.personal].flatten(1).T.contiguous()  # (3 D, R)

    def basis(self, shape: Tensor) -> Tensor:
        """How units and pairs move the landmarks of a person: shape (S,) -> (3, E + P, C) metres."""
        own = shape[: self._person_weights.shape[1]]
        return self._basis.index_add(1, self._terms, (self._person_weights @ own)[:, None] * self._person)

    def weights(self, expression: Tensor) -> Tensor:
        """Weights (..., E + P) of `basis`."""
        return torch.cat([expression, pair_weights(expression, self.pairs)], -1)

    def by_units(self, expression: Tensor, basis: Tensor) -> Tensor:
        """Derivative (T, 3, E, C) of the landmarks by the units (T, E); basis as `basis` gives it."""
        result = basis[:, : self.units].repeat(len(expression), 1, 1, 1)
        for unit, slopes in zip(self.pairs.T, pair_slopes(expression, self.pairs), strict=True):
            result.index_add_(2, unit, slopes[:, None, :, None] * basis[:, self.units :])
        return result

    def pull(self, forces: Tensor, expression: Tensor, basis: Tensor) -> Tensor:
        """Gradient (T, E) by the units of forces (T, C, 3), the gradient by the landmarks."""
        by_weight = torch.einsum("tcj,jkc->tk", forces, basis)
        gradient = by_weight[:, : self.units].clone()
        for unit, slopes in zip(self.pairs.T, pair_slopes(expression, self.pairs), strict=True):
            gradient.index_add_(1, unit, slopes * by_weight[:, self.units :])
        return gradient

    def blocks(
        self, by_landmark: Tensor, pose: Tensor, expression: Tensor, basis: Tensor
    ) -> tuple[Tensor, Tensor]:
        """J^T J (T, E, E) and K^T J (T, 6, E) of the Jacobian J by the units, in the precision of by_landmark.

        by_landmark (T, C, 2, 3) of the pixels by the landmarks; pose (T, C, 2, 6), K.
        """
        expression, basis = expression.to(by_landmark), basis.to(by_landmark)
        units = by_landmark.new_empty(len(expression), self.units, self.units)
        coupling = by_landmark.new_empty(len(expression), 6, self.units)
        for part in range(0, len(expression), CACHED_FRAMES):
            chosen = slice(part, part + CACHED_FRAMES)
            moved = self.by_units(expression[chosen], basis)
            at = by_landmark[chosen].permute(2, 3, 0, 1)[:, :, :, None]  # (2, 3, T, 1, C)
            x, y, z = moved.unbind(1)
            rows = torch.cat(
                [across * x + down * y + deep * z for across, down, deep in at], -1
            )  # (T, E, 2 C)
            units[chosen] = rows @ rows.mT
            coupling[chosen] = pose[chosen].permute(0, 3, 2, 1).flatten(2) @ rows.mT
        return units, coupling

    def by_shape(self, expression: Tensor) -> Tensor:
        """Derivative (T, D, 3, S) of the personal landmarks by the head's shape, but for what the shape itself does."""
        weights = self.weights(expression)[:, self._terms, None] * self._person_weights  # (T, R, S)
        return (self._personal @ weights).unflatten(1, (-1, 3))
