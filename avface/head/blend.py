"""Weights of a head's offsets beyond its expression units: correctives of pairs of units, and terms of the person."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class BlendTerms:
    """How weights of offsets follow from expression (..., E) and shape (..., S).

    First the units themselves; then P pairs with the weight a b of two units a and b, or a (1 - a) of one of them, an
    offset half-way to it; then R terms of the person: the weight of a unit or pair times a linear function of the
    shape. Units count from 0 to 1 in products, whatever their range.
    """

    pairs: Tensor
    """(P, 2) numbers of units."""
    person_terms: Tensor
    """(R,) number of the unit, or E plus that of the pair, that each row belongs to."""
    person_weights: Tensor
    """(R, S) the linear functions."""

    def to(self, device: torch.device | str) -> BlendTerms:
        """The same on another device."""
        return BlendTerms(self.pairs.to(device), self.person_terms.to(device), self.person_weights.to(device))

    def weights(self, expression: Tensor, shape: Tensor) -> Tensor:
        """Weights (..., E + P + R) of expression (..., E) and shape (..., S), whose leading axes are broadcast."""
        if len(self.pairs):
            expression = torch.cat([expression, pair_weights(expression, self.pairs)], -1)
        if len(self.person_terms):
            person = expression[..., self.person_terms] * (shape @ self.person_weights.T.to(shape))
            expression = torch.cat([expression.expand(*person.shape[:-1], -1), person], -1)
        return expression


def pair_weights(expression: Tensor, pairs: Tensor) -> Tensor:
    """Weights (..., P) of pairs (P, 2) of units; see `BlendTerms`."""
    first, second = pairs.T
    limited = expression.clamp(0, 1)
    one, other = limited[..., first], limited[..., second]
    return one * torch.where(first == second, 1 - other, other)


def pair_slopes(expression: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives (..., P) of `pair_weights` by the first and by the second unit of each pair, 0 by the second of two
    equal ones; at 0 and 1 those from inside."""
    first, second = pairs.T
    limited = expression.clamp(0, 1)
    inside = ((expression >= 0) & (expression <= 1)).to(expression)
    one, other, same = limited[..., first], limited[..., second], first == second
    by_first = torch.where(same, 1 - 2 * one, other) * inside[..., first]
    return by_first, torch.where(same, torch.zeros_like(one), one) * inside[..., second]
