"""How each expression unit moves the named points: figures of the open head's units of brows, cheeks, nose and mouth.

Every unit takes its movement at the points of `anatomy.units.REFERENCE_POINTS` from the reference figures, scaled, and
at further points from the table here, which says what its muscle does between them: Apple's description of
`ARFaceAnchor.BlendShapeLocation` with mm that people reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Millimetres = tuple[float, float, float]


@dataclass(frozen=True)
class Steering:
    """The handles of a unit; of the left one where there are two, and of jawLeft and mouthLeft."""

    gain: float = 1.0
    """Scale of the reference figures."""
    points: Mapping[str, Millimetres] = field(default_factory=dict)
    """Movement of more points at weight 1, or of the reference's own in place of its figures. A name without a side
    that has two means both, mirrored."""
    area: str = "mouth"
    """What may move: see `units.held_vertices`."""


STEERING: dict[str, Steering] = {
    "browDownLeft": Steering(
        points={
            "glabella": (-0.6, -0.9, 0.7),
            "brow_peak_left": (-1.2, -1.8, 1.0),
            "forehead_side_left": (-0.2, -0.4, 0),
            "under_eye_outer_left": (0, 0, 0),
        },
        area="brows",
    ),
    "browInnerUp": Steering(
        points={
            "glabella": (0, 2.4, -0.2),
            "brow_peak": (0.3, 4.4, -0.8),
            "forehead_low": (0, 4.6, -0.4),
            "forehead_mid": (0, 2.2, -0.6),
            "forehead_side": (0, 1.2, -0.3),
        },
        area="brows",
    ),
    "browOuterUpLeft": Steering(
        gain=0.95,
        points={
            "brow_peak_left": (1.0, 5.0, -1.2),
            "forehead_side_left": (0.5, 2.4, -0.7),
            "temple_left": (0.2, 1.5, -0.5),
            "glabella": (0, 0.3, 0),
        },
        area="brows",
    ),
    "cheekPuff": Steering(
        gain=0.78,
        points={
            "cheek_mid": (6.0, 0.5, 6.0),
            "cheek_low": (8.0, 0.0, 8.0),
            "cheek_apple": (1.5, 0.6, 2.0),
            "nasolabial_mid": (0.5, 0.8, 6.5),
            "nasolabial_low": (1.5, 0.5, 9.5),
            "beside_corner": (0.5, 0.5, 10.0),
            "marionette": (1.0, 0.0, 8.5),
            "upper_lip_outer": (-0.8, 0.8, 7.2),
            "lower_lip_outer": (-1.0, 0.2, 8.4),
            "jaw_side": (3.0, 0, 2.0),
        },
    ),
    "cheekSquintLeft": Steering(
        points={
            "lid_lower_inner_left": (-0.3, 1.4, 0.7),
            "under_eye_left": (-0.2, 3.2, 1.3),
            "under_eye_inner_left": (-0.2, 1.8, 0.7),
            "under_eye_outer_left": (-0.4, 2.2, 1.0),
            "cheek_apple_left": (0.3, 3.6, 1.8),
            "cheek_inner_left": (0.2, 2.2, 1.2),
            "cheekbone_left": (0.2, 1.8, 1.0),
            "cheek_mid_left": (0.2, 1.6, 0.5),
            "nasolabial_mid_left": (0.4, 1.4, 0),
        },
        area="cheek",
    ),
    "jawForward": Steering(
        gain=0.78,
        points={
            "lower_lip_outer": (0, -1.8, 6.8),
            "lower_lip_red": (0, -2.6, 7.4),
            "lower_lip_red_side": (0, -2.6, 6.8),
            "inner_lower_lip": (0, -2.6, 7.0),
            "inner_lower_lip_side": (0, -2.6, 6.4),
            "chin_side": (0, -1.2, 8.2),
            "under_lip": (0, -1.0, 7.8),
            "marionette": (0, -0.8, 5.4),
            "jaw_side": (0, -0.5, 5.0),
            "upper_lip_outer": (0, -0.1, 1.2),
        },
        area="jaw",
    ),
    "jawLeft": Steering(
        gain=0.85,
        points={
            "mouth_corner_left": (5.4, 0.2, 0.1),
            "inner_lower_lip": (6.6, -0.6, 0.5),
            "lower_lip_red": (6.6, -0.5, 0.6),
            "under_lip": (6.6, 0.1, 0.4),
            "chin_side_left": (6.8, 0.3, -0.6),
            "chin_side_right": (6.8, 0.1, 0.8),
            "jaw_side_left": (4.5, 0.3, -0.3),
            "jaw_side_right": (4.5, 0.1, 0.6),
            "marionette_left": (5.4, 0.3, 0),
            "marionette_right": (5.4, 0.1, 0.8),
        },
        area="jaw",
    ),
    "mouthDimpleLeft": Steering(
        points={
            "beside_corner_left": (0.8, 1.6, -4.0),
            "nasolabial_low_left": (0.9, 1.8, -3.0),
            "cheek_low_left": (0.6, 0.6, 0.3),
            "marionette_left": (0.5, 1.0, -1.8),
            "under_lip": (0, 0.5, 0.2),
        },
    ),
    "mouthFrownLeft": Steering(
        points={
            "beside_corner_left": (1.6, -4.2, -1.2),
            "nasolabial_low_left": (1.2, -3.2, -0.7),
            "marionette_left": (1.0, -2.8, 0.1),
            "cheek_low_left": (0.6, -1.4, 0),
            "nasolabial_mid_left": (0.4, -1.5, -0.3),
            "lower_lip_outer_left": (0.9, -2.0, -0.5),
            "upper_lip_outer_left": (0.6, -1.9, -0.9),
        },
    ),
    "mouthFunnel": Steering(
        gain=0.82,
        points={
            "upper_lip_outer": (-2.8, 3.8, 7.0),
            "lower_lip_outer": (-3.0, -4.4, 5.8),
            "inner_upper_lip_side": (-3.0, 4.0, 5.8),
            "inner_lower_lip_side": (-2.8, -5.8, 6.0),
            "nasolabial_low": (-1.2, 0, 2.6),
            "mouth_corner": (-5.8, 0, 6.6),
            "under_lip": (0, -5.0, 2.2),
            "philtrum": (0, 2.4, 3.2),
            "nose_base": (0, 1.1, 0.8),
        },
    ),
    "mouthLeft": Steering(
        gain=0.8,
        points={
            "nasolabial_mid_left": (4.0, 2.2, -1.0),
            "nasolabial_low_left": (4.0, 2.4, -1.0),
            "nasolabial_mid_right": (8.5, 0.2, 4.5),
            "nasolabial_low_right": (9.5, 0.2, 5.5),
            "cheek_low_left": (1.8, 0.8, 1.2),
            "cheek_low_right": (4.0, 0.2, 1.5),
            "under_lip": (6.5, 0.4, -0.8),
            "philtrum": (9.5, 1.0, -1.6),
        },
    ),
    "mouthLowerDownLeft": Steering(
        points={
            "lower_lip_outer_left": (0.9, -3.2, -0.9),
            "inner_lower_lip_side_left": (0.5, -3.6, -0.8),
            "under_lip_side_left": (0.5, -2.9, -0.8),
            "marionette_left": (0.3, -1.4, -0.2),
        },
    ),
    "mouthPressLeft": Steering(
        points={
            "inner_upper_lip_side_left": (0, -0.4, -0.5),
            "inner_lower_lip_side_left": (0, 1.0, 0.5),
            "under_lip_side_left": (0, 2.2, 1.2),
            "chin_up": (0, 1.9, 1.2),
            "beside_corner_left": (0.1, 1.1, 0.9),
        },
    ),
    "mouthPucker": Steering(
        gain=0.85,
        points={
            "upper_lip_outer": (-2.0, 2.4, 7.0),
            "lower_lip_outer": (-2.8, -0.4, 6.6),
            "inner_upper_lip_side": (-2.2, -0.1, 6.2),
            "inner_lower_lip_side": (-2.4, 0.1, 7.2),
            "philtrum": (0, 1.4, 3.2),
            "nose_base": (0, 0.3, 1.0),
            "nasolabial_low": (-2.0, 0.6, 2.8),
            "cheek_low": (-1.0, 0.2, 0.6),
            "cheek_mid": (-0.4, 0, 0),
        },
    ),
    "mouthRollLower": Steering(
        gain=1.0,
        points={
            "lower_lip_mid": (0, 9.0, -3.6),
            "inner_lower_lip": (0, 0.3, -4.4),
            "inner_upper_lip": (0, 0.2, -3.6),
            "inner_lower_lip_side": (-0.2, 0.3, -3.4),
            "inner_upper_lip_side": (-0.2, 0.2, -2.8),
            "lower_lip_red": (0, 5.2, -5.0),
            "lower_lip_red_side": (-0.3, 4.4, -4.2),
            "lower_lip_outer": (-0.4, 4.4, -2.2),
            "lower_lip_fold": (0, 5.2, 0.2),
            "under_lip": (0, 4.0, 1.0),
        },
    ),
    "mouthRollUpper": Steering(
        gain=0.92,
        points={
            "inner_upper_lip": (0, 0.4, -5.6),
            "inner_lower_lip": (0, 0.2, -4.6),
            "inner_upper_lip_side": (0.2, 0.3, -4.4),
            "inner_lower_lip_side": (0.2, 0.2, -3.6),
            "upper_lip_red": (0, -3.4, -6.4),
            "upper_lip_red_side": (0.2, -2.8, -4.8),
            "upper_lip_outer": (0.4, -3.4, -3.8),
            "philtrum": (0, -3.4, -1.6),
        },
    ),
    "mouthShrugLower": Steering(
        gain=0.85,
        points={
            "under_lip": (0, 6.6, 4.4),
            "chin_side": (-0.2, 3.6, 2.2),
            "marionette": (-0.2, 2.6, 2.0),
            "lower_lip_outer": (0.1, 4.2, 3.0),
        },
    ),
    "mouthShrugUpper": Steering(
        points={
            "upper_lip_outer": (0, 3.4, 0.2),
            "inner_upper_lip_side": (0, 3.4, 0.4),
            "philtrum": (0, 4.0, 0.4),
        },
    ),
    "mouthSmileLeft": Steering(
        gain=0.95,
        points={
            "cheek_apple_left": (1.6, 4.2, 2.6),
            "cheek_inner_left": (1.4, 3.0, 0.8),
            "cheekbone_left": (0.8, 1.6, 1.2),
            "cheek_mid_left": (2.2, 4.4, 2.2),
            "cheek_low_left": (2.2, 3.6, 0.6),
            "nasolabial_top_left": (2.8, 3.6, -0.8),
            "nasolabial_mid_left": (4.4, 6.4, -1.6),
            "nasolabial_low_left": (5.6, 8.0, -4.6),
            "beside_corner_left": (5.8, 8.2, -6.2),
            "marionette_left": (3.4, 5.0, -2.8),
            "under_eye_left": (0, 1.2, 0.8),
            "under_lip": (0, 1.3, 0.4),
            "under_lip_side_left": (0.8, 2.2, -0.2),
            "upper_lip_outer_left": (3.4, 4.6, -4.6),
            "lower_lip_outer_left": (4.2, 6.0, -5.2),
        },
    ),
    "mouthStretchLeft": Steering(
        points={
            "beside_corner_left": (5.6, -2.6, -5.0),
            "nasolabial_low_left": (4.8, -1.9, -3.6),
            "nasolabial_mid_left": (2.6, -1.2, -1.4),
            "marionette_left": (4.0, -2.0, -3.2),
            "cheek_low_left": (3.2, -1.4, -0.8),
            "cheek_mid_left": (1.2, -0.6, 0.2),
            "lower_lip_outer_left": (3.6, -1.0, -3.6),
            "upper_lip_outer_left": (2.6, -1.5, -3.2),
            "jaw_side_left": (1.0, -0.6, -0.2),
        },
    ),
    "mouthUpperUpLeft": Steering(
        points={
            "upper_lip_outer_left": (0.9, 5.2, -0.4),
            "inner_upper_lip_side_left": (0.5, 4.6, -0.3),
            "nasolabial_top_left": (1.0, 4.2, 0.4),
            "nasolabial_mid_left": (0.8, 4.2, 0.6),
            "cheek_inner_left": (0.4, 2.0, 1.2),
            "philtrum_side_left": (0.8, 5.0, -0.6),
            "nasolabial_low_left": (0.3, 3.0, 0.3),
        },
    ),
    "noseSneerLeft": Steering(
        points={
            "nose_side_left": (-0.3, 2.2, 0.4),
            "nose_side_low_left": (0.1, 4.2, 0.3),
            "ala_left": (0.6, 5.8, 0.2),
            "ala_back_left": (0.5, 5.8, 0.4),
            "nasolabial_top_left": (0.4, 5.4, 0.8),
            "nasolabial_mid_left": (0, 4.4, 0.6),
            "cheek_inner_left": (0, 3.4, 1.4),
            "under_eye_inner_left": (-0.2, 1.6, 0.6),
            "nose_tip": (0, 1.0, 0.2),
            "bridge": (0, 0, 0.3),
            "glabella": (-0.2, -1.8, 0.3),
            "upper_lip_outer_left": (0, 5.0, -0.2),
            "inner_upper_lip_side_left": (0, 4.6, 0),
        },
        area="sneer",
    ),
}

OPEN_ROLL = Steering(
    gain=0.95,
    points={
        "lower_lip_mid": (0, 8.0, -3.6),
        "inner_lower_lip": (0, 1.6, -8.0),
        "inner_lower_lip_side": (-0.2, 1.2, -6.0),
        "lower_lip_red": (0, 5.8, -7.4),
        "lower_lip_red_side": (-0.3, 5.0, -5.8),
        "lower_lip_outer": (-0.4, 4.4, -2.2),
        "lower_lip_fold": (0, 5.0, -0.4),
        "under_lip": (0, 3.4, 1.0),
    },
)
"""`mouthRollLower` over the edges of the lower teeth, where an open mouth leaves room; before the jaw turns."""
