"""Empty hands in front of a face."""

from __future__ import annotations

import numpy as np

from avface.synthetic.occlusion.occluders.arm import sample_arm, upright_rotation
from avface.synthetic.occlusion.occluders.hand_model import HAND_POSES
from avface.synthetic.occlusion.occluders.occluder import Occluder, in_image_plane, sample_gap, sample_target


def sample_hand(rng: np.random.Generator, over_mouth: bool) -> Occluder:
    """A random hand in one of `HAND_POSES`, its forearm from below or from a side."""
    if over_mouth:
        pose = str(
            rng.choice(
                ["covering", "relaxed", "fist", "pointing", "open_palm", "pinch", "chin_rest"],
                p=[0.3, 0.15, 0.15, 0.1, 0.12, 0.08, 0.1],
            )
        )
    else:
        pose = str(rng.choice([name for name in HAND_POSES if name != "grip"]))
    from_right = bool(rng.random() < 0.5)
    side = -1 if from_right else 1
    # the forearm comes from below and from the side; fingers point up and across the face
    degrees = side * rng.uniform(5, 80)
    dorsal = pose in ("covering", "relaxed", "pinch", "fist", "chin_rest") or bool(rng.random() < 0.5)
    if pose == "chin_rest":
        degrees *= 0.4
    left_hand = from_right if dorsal else not from_right
    anchor = {
        "pointing": (0.02, 0.12, 0.01), "fist": (0.01, 0.075, 0.02), "chin_rest": (0.0, 0.09, 0.02),
        "pinch": (0.03, 0.10, 0.03),
    }.get(pose, (0.0, rng.uniform(0.075, 0.13), 0.0))  # fmt: skip
    rotation = upright_rotation(degrees, dorsal, yaw=rng.normal(0, 14), pitch=rng.normal(-8, 12))
    arm = sample_arm(rng, pose, left_hand=left_hand, rotation=rotation, anchor=anchor)
    target = sample_target(rng, over_mouth)
    if pose == "chin_rest" and over_mouth:
        target = target - [0, 0.012, 0]
    down = arm.rotation @ [0.0, -1.0, 0.0]
    return Occluder("hand", False, over_mouth, target, sample_gap(rng), in_image_plane(down), (), arm)
