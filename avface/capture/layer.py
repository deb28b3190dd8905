"""The base class of layers: results of a stage after the coarse one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from avface.arrays import F32, Int

if TYPE_CHECKING:
    from typing_extensions import Self

    from avface.head.model import HeadModel


@dataclass(frozen=True, eq=False)
class LayerMorphs:
    """Morph targets of a layer: names (L,), offsets (L, V, 3) metres of the shaped head's vertices, weights (T, L)."""

    names: tuple[str, ...]
    offsets: F32
    weights: F32


@dataclass(frozen=True, eq=False)
class Layer:
    """Arrays of one stage for the T frames of a capture.

    A subclass is a frozen dataclass of arrays. It names its stage and file keys, checks its arrays, and overrides
    `vertex_offsets` and `morphs` if it moves vertices of the head.
    """

    stage: ClassVar[str]
    """Name of the stage, as in `reconstruct(stages=...)` and `Capture.vertices(stage=...)`."""
    key_prefix: ClassVar[str]
    """Array `basis` is stored in a capture file under the key `<key_prefix>_basis`."""
    per_frame: ClassVar[tuple[str, ...]] = ("weights",)
    """Names of the arrays whose first axis is the frames."""
    subdivides: ClassVar[bool] = False
    """Whether the layer displaces a subdivided mesh (`Capture.detailed_vertices`), rather than the head's vertices."""

    @classmethod
    def keys(cls) -> dict[str, str]:
        """File key of each array, by the array's name."""
        return {item.name: f"{cls.key_prefix}_{item.name}" for item in fields(cls)}

    @classmethod
    def read(cls, data: Mapping[str, npt.NDArray[Any]]) -> Self | None:
        """The layer stored in the arrays of a capture file; None if its arrays are missing or empty.

        Raises:
            KeyError, ValueError: if some of its arrays are missing or invalid.
        """
        keys = cls.keys()
        found = [data[key] for key in keys.values() if key in data]
        if not any(array.size for array in found):
            return None
        return cls(**{name: data[key] for name, key in keys.items()})

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by file key."""
        return {key: getattr(self, name) for name, key in self.keys().items()}

    def check_frames(self, frames: int) -> None:
        """Check the number of frames.

        Raises:
            ValueError: if an array has another number.
        """
        for name in self.per_frame:
            values = getattr(self, name)
            if len(values) != frames:
                raise ValueError(
                    f"{self.keys()[name]} has shape {values.shape}, expected {(frames, *values.shape[1:])}"
                )

    def check_head(self, head: HeadModel, named: str) -> None:
        """Check that the layer belongs to this head; the message starts with `named`.

        Raises:
            AvfaceError: if it doesn't.
        """

    def select(self, rows: Int) -> Self:
        """The layer of some frames only."""
        return replace(self, **{name: getattr(self, name)[rows] for name in self.per_frame})

    def vertex_offsets(self, rows: Int, num_vertices: int) -> F32 | None:
        """Offsets (B, V, 3) in metres of the shaped head's vertices in some frames, before joints rotate; or None."""
        return None

    def morphs(self, num_vertices: int) -> LayerMorphs | None:
        """The same as morph targets for scene files; None if none."""
        return None

    def _check_shape(self, name: str, expected: tuple[int, ...]) -> None:
        """Raise ValueError if an array has another shape."""
        shape = getattr(getattr(self, name), "shape", None)
        if shape != expected:
            raise ValueError(f"{self.keys()[name]} has shape {shape}, expected {expected}")

    def _check_finite(self, *names: str) -> None:
        """Raise ValueError if arrays aren't finite floats."""
        for name in names:
            values = getattr(self, name)
            if values.dtype.kind != "f" or not np.isfinite(values).all():
                raise ValueError(f"{self.keys()[name]} must be finite numbers")
