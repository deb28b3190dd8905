"""The layer of stage "lips": offsets of the lips over a clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from avface.arrays import F32, Int
from avface.capture.layer import Layer, LayerMorphs
from avface.errors import AvfaceError

if TYPE_CHECKING:
    from avface.head.model import HeadModel


@dataclass(frozen=True, eq=False)
class LipLayer(Layer):
    """Offsets of the lips beyond the expression units: weights @ basis, in metres, before joints rotate.

    P vertices of the lips, L principal components, T frames.
    """

    stage: ClassVar[str] = "lips"
    key_prefix: ClassVar[str] = "lip"

    vertices: Int
    """(P,) ascending indices of the vertices."""
    basis: F32
    """(L, P, 3) principal components of the offsets, metres in the head's axes on the shaped head."""
    weights: F32
    """(T, L) weights of the components, exactly 0 where nobody speaks."""

    def __post_init__(self) -> None:
        components = len(self.basis)
        self._check_shape("basis", (components, *self.vertices.shape, 3))
        self._check_shape("weights", (len(self.weights), components))
        indices = self.vertices
        if (
            indices.ndim != 1
            or indices.dtype.kind not in "iu"
            or (np.diff(indices, prepend=-1) <= 0).any()
            or not indices.size
        ):
            raise ValueError("lip_vertices must be whole numbers, ascending from 0 or more")
        self._check_finite("basis", "weights")

    def check_head(self, head: HeadModel, named: str) -> None:
        """Check that the head has the vertices.

        Raises:
            AvfaceError: if it doesn't.
        """
        if self.vertices[-1] >= head.num_vertices:
            raise AvfaceError(
                f"{named}: the capture's lips have vertex {self.vertices[-1]}, but its head has only "
                f"{head.num_vertices} vertices; name the head file that the capture was made with"
            )

    def vertex_offsets(self, rows: Int, num_vertices: int) -> F32:
        """Offsets (B, V, 3) in metres of the shaped head's vertices in some frames, before joints rotate."""
        offsets = np.zeros((len(rows), num_vertices, 3), np.float32)
        offsets[:, self.vertices] = np.tensordot(self.weights[rows], self.basis, 1)
        return offsets

    def morphs(self, num_vertices: int) -> LayerMorphs:
        """Morph targets lips_0, lips_1 and so on, one per component."""
        offsets = np.zeros((len(self.basis), num_vertices, 3), np.float32)
        offsets[:, self.vertices] = self.basis
        return LayerMorphs(tuple(f"lips_{number}" for number in range(len(offsets))), offsets, self.weights)
