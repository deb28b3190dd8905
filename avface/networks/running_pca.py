"""Principal components of rows that come in blocks and are never in memory together."""

from __future__ import annotations

import numpy as np

from avface.arrays import F64

SPARE = 3
"""How many times as many components are carried along as are kept in the end."""

WEAKEST = 1e-6
"""Strength of a component over the strongest one's, below which it is nothing but rounding."""


class RunningPca:
    """The strongest components of rows (T, D) about 0, and each row's weights of them.

    Keeps `SPARE` times `components` numbers a row, and as many rows of D. Rows of zeros get weights of exactly 0. What
    the spare components can't hold of a block is lost, so that weights are exact for rows that vary in few ways.
    Source: incremental singular value decomposition (Brand 2002), without a mean.
    """

    def __init__(self, width: int, components: int) -> None:
        self._kept = components
        self._axes: F64 = np.zeros((0, width))
        self._strength: F64 = np.zeros(0)
        self._weights: list[F64] = []
        self._turns: list[F64] = []

    def add(self, rows: F64) -> None:
        """Take the next rows (B, D)."""
        held = np.concatenate([self._strength[:, None] * self._axes, rows])
        # few rows, many columns: the products of rows with each other take a tenth of the time of a decomposition
        squares, mixed = np.linalg.eigh(held @ held.T)
        strength = np.sqrt(squares[::-1].clip(0))
        count = min(SPARE * self._kept, int((strength > WEAKEST * strength.max(initial=0)).sum()))
        strength = strength[:count]
        axes = (mixed[:, ::-1][:, :count] / strength).T @ held
        self._turns.append(self._axes @ axes.T)
        self._weights.append(rows @ axes.T)
        self._axes, self._strength = axes, strength

    def finish(self) -> tuple[F64, F64]:
        """Components (K, D) and weights (T, K), the strongest first; K is less than asked for where rows vary in less.

        Each component is so long that its largest weight is 1.
        """
        count = min(self._kept, len(self._axes))
        turn = np.eye(len(self._axes))[:, :count]
        found = []
        for weights, onwards in zip(self._weights[::-1], self._turns[::-1], strict=True):
            found.append(weights @ turn)
            turn = onwards @ turn
        weights = np.concatenate([np.zeros((0, count)), *found[::-1]])
        if not len(weights):
            return self._axes[:count], weights
        largest = weights[np.abs(weights).argmax(0), np.arange(count)]
        return largest[:, None] * self._axes[:count], weights / largest
