"""Synthetic captures of the open head for tests."""

from __future__ import annotations

import numpy as np

from avface.capture import Capture
from avface.head import load_head


def moving_capture(frames: int = 12, frame_rate: float = 25.0, size: tuple[int, int] = (320, 240)) -> Capture:
    """A head that rotates, moves, talks, blinks and changes its gaze; every frame differs."""
    head = load_head("open")
    rng = np.random.default_rng(7)
    phase = np.linspace(0, 2 * np.pi, frames, endpoint=False)
    expression = np.zeros((frames, head.num_expression), np.float32)
    for name, curve in {
        "jawOpen": 0.35 - 0.3 * np.cos(2 * phase),
        "mouthSmileLeft": 0.3 + 0.3 * np.sin(phase),
        "mouthSmileRight": 0.2 + 0.2 * np.sin(phase),
        "eyeBlinkLeft": np.clip(np.sin(phase), 0, 1),
        "browInnerUp": np.full(frames, 0.5),
    }.items():
        expression[:, head.expression_names.index(name)] = curve
    rotation = np.stack([np.full(frames, np.pi), 0.3 * np.sin(phase), 0.2 * np.cos(phase)], 1)
    translation = np.stack([0.02 * np.sin(phase), 0.01 * np.cos(phase), 0.6 + 0.05 * np.sin(phase)], 1)
    joints = np.zeros((frames, head.num_joints, 3), np.float32)
    for eye in ("left_eye", "right_eye"):
        joints[:, head.joint_names.index(eye), 1] = 0.2 * np.sin(phase)
        joints[:, head.joint_names.index(eye), 0] = 0.1 * np.cos(phase)
    width, height = size
    return Capture(
        head="open",
        shape=rng.normal(0, 0.7, head.num_shape).astype(np.float32),
        expression=expression,
        expression_names=head.expression_names,
        rotation=rotation.astype(np.float32),
        translation=translation.astype(np.float32),
        joints=joints,
        joint_names=head.joint_names,
        focal_length=1.2 * max(size),
        principal_point=((width - 1) / 2, (height - 1) / 2),
        image_size=size,
        times=np.arange(frames) / frame_rate,
        confidence=np.ones(frames, np.float32),
        source="made",
    )
