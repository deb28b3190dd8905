"""Numbers of the open head's mouth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avface.errors import AvfaceError


@dataclass(frozen=True)
class MouthConfig:
    """Numbers of the mouth; metres and radians."""

    hinge: tuple[float, float] = (-0.035, 0.008)
    """Height and depth of the jaw's axis, before the ears' canals."""
    open_angle: float = np.deg2rad(22.5)
    """Rotation of the jaw about that axis at `jawOpen` 1."""
    open_slide: tuple[float, float] = (-0.0015, 0.008)
    """Displacement of the axis downwards and forwards at `jawOpen` 1: the jaw's heads slide on the skull."""
    corner_share: float = 0.38
    """Share of the jaw's displacement at the corners of the mouth."""
    lower_lip_share: float = 1.0
    """The same in the middle of the lower lip."""
    upper_lip_share: float = 0.05
    """The same in the middle of the upper lip."""
    corner_inwards: float = 0.0026
    """Displacement of the corners towards the middle at `jawOpen` 1."""
    shut_drop: float = 0.003
    """How much lower the lips meet at `jawOpen` 1 and `mouthClose` 1 than at rest."""
    teeth_behind: float = 0.0066
    """Depth of the upper incisors' edges behind the lips' contact, in the middle."""
    teeth_below: float = 0.0030
    """Height of the upper incisors' edges below the lips' contact."""
    wall_gap: float = 0.0016
    """Distance from the teeth to the inner side of lips and cheeks."""
    tongue_out: float = 0.020
    """How far the tip of the tongue stands before the lower lip at `tongueOut` 1."""

    def __post_init__(self) -> None:
        if not 0 < self.upper_lip_share < self.corner_share < self.lower_lip_share <= 1:
            raise AvfaceError(
                "shares of the jaw's displacement must rise from the upper lip over the corners to the lower lip"
            )
