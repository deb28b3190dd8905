"""Parameters of the open head's builder."""

from __future__ import annotations

from dataclasses import dataclass

from avface.errors import AvfaceError

OVERSAMPLING = 60
"""Columns of the randomised SVD beyond the components that are kept."""


@dataclass(frozen=True)
class OpenHeadConfig:
    """Parameters of the open head's shape space; each further step of the builder has parameters of its own."""

    shape_components: int = 100
    """Number of shape components: size, then the first principal components of the sampled faces, scaled to one
    size."""
    samples: int = 8000
    """Faces sampled for the principal components."""
    seed: int = 0
    """Seed of the random sampling."""
    local_sigma: float = 0.3
    """Standard deviation of every local change of the head; 1 is the extreme that MakeHuman's artists modelled."""
    asymmetry: float = 0.35
    """Share of a paired change's variance that is not common to left and right."""

    def __post_init__(self) -> None:
        if self.shape_components < 2:
            raise AvfaceError(f"shape_components={self.shape_components} must be 2 or more")
        least = self.shape_components - 1 + OVERSAMPLING
        if self.samples < least:
            raise AvfaceError(
                f"samples={self.samples} must be {least} or more for {self.shape_components} shape components"
            )
        for name in ("seed", "local_sigma"):
            if not getattr(self, name) >= 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be 0 or more")
        if not 0 <= self.asymmetry <= 1:
            raise AvfaceError(f"asymmetry={self.asymmetry} must be between 0 and 1")
