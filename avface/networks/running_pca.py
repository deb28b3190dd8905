"""Incremental principal components of rows that arrive in blocks."""

from __future__ import annotations

import numpy as np

from avface.arrays import F64

OVERSAMPLING = 3
"""Components that are carried along, per component of the result."""
MIN_SINGULAR_VALUE = 1e-6
"""Singular value, relative to the largest, below which a component is rounding error."""


class RunningPca:
    """The first principal components of rows (T, D), uncentred, and the rows' weights of them.

    It holds `OVERSAMPLING` times `components` numbers a row, and as many rows of D. Rows of zeros get weights of
    exactly 0. Blocks are truncated to the components carried along, so weights are exact for rows of lower rank only.
    Source: incremental singular value decomposition (Brand 2002), without a mean.
    """

    def __init__(self, width: int, components: int) -> None:
        self._kept = components
        self._components: F64 = np.zeros((0, width))
        self._singular_values: F64 = np.zeros(0)
        self._weights: list[F64] = []
        self._rotations: list[F64] = []

    def add(self, rows: F64) -> None:
        """Add the next rows (B, D)."""
        held = np.concatenate([self._singular_values[:, None] * self._components, rows])
        # few rows, many columns: the eigenvectors of the Gram matrix take a tenth of the time of an SVD
        eigenvalues, eigenvectors = np.linalg.eigh(held @ held.T)
        singular_values = np.sqrt(eigenvalues[::-1].clip(0))
        significant = singular_values > MIN_SINGULAR_VALUE * singular_values.max(initial=0)
        count = min(OVERSAMPLING * self._kept, int(significant.sum()))
        singular_values = singular_values[:count]
        components = (eigenvectors[:, ::-1][:, :count] / singular_values).T @ held
        self._rotations.append(self._components @ components.T)
        self._weights.append(rows @ components.T)
        self._components, self._singular_values = components, singular_values

    def finish(self) -> tuple[F64, F64]:
        """Components (K, D) and weights (T, K), largest singular value first; K is less than asked for at lower rank.

        Components are scaled so that their largest weight is 1.
        """
        count = min(self._kept, len(self._components))
        rotation = np.eye(len(self._components))[:, :count]
        found = []
        for weights, following in zip(self._weights[::-1], self._rotations[::-1], strict=True):
            found.append(weights @ rotation)
            rotation = following @ rotation
        weights = np.concatenate([np.zeros((0, count)), *found[::-1]])
        if not len(weights):
            return self._components[:count], weights
        largest = weights[np.abs(weights).argmax(0), np.arange(count)]
        return largest[:, None] * self._components[:count], weights / largest
