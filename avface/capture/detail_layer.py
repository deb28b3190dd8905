"""The layer of stage "detail": displacement of the skin over a clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from avface.arrays import F32, Floats, Int
from avface.capture.layer import Layer

if TYPE_CHECKING:
    from avface.head.model import HeadModel
    from avface.head.skin.atlas import DetailAtlas


@dataclass(frozen=True, eq=False)
class DetailLayer(Layer):
    """Displacement of the skin along the mesh's normals: static + weights @ basis, in metres.

    R x R texels of the face's window of the UV square (`avface.head.skin.atlas`), D principal components, T frames.
    """

    stage: ClassVar[str] = "detail"
    key_prefix: ClassVar[str] = "detail"
    subdivides: ClassVar[bool] = True

    static: Floats
    """(R, R) median displacement of the clip, metres."""
    basis: Floats
    """(D, R, R) principal components of its change over time, metres."""
    weights: F32
    """(T, D) weights of the components, smooth in time; 0 in frames without the person."""

    def __post_init__(self) -> None:
        side, components = len(self.static), len(self.basis)
        self._check_shape("static", (side, side))
        self._check_shape("basis", (components, side, side))
        self._check_shape("weights", (len(self.weights), components))
        if not side:
            raise ValueError("detail_static has no texels")
        self._check_finite("static", "basis", "weights")

    def atlas(self, head: HeadModel) -> DetailAtlas:
        """The window of the UV square in which the texels lie."""
        from avface.head.skin.atlas import detail_atlas

        return detail_atlas(head, len(self.static))

    def displacement(self, rows: Int) -> F32:
        """Displacement (B, R, R) in metres in some frames."""
        maps = np.repeat(self.static[None].astype(np.float32), len(rows), 0)
        if len(self.basis):
            maps += np.tensordot(self.weights[rows], self.basis.astype(np.float32), 1)
        return maps
