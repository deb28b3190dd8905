"""The clip of `avface demo`: a synthetic person speaking a sentence, with its ground truth.

    python -m avface.synthetic.demo_clip

rebuilds `assets/demo.mp4` and `assets/demo_truth.npz` (a `Capture`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avface.arrays import F32, F64, U8, Bool
from avface.capture import Capture
from avface.geometry.axes import flip_axes, flip_rotation
from avface.geometry.mesh import vertex_normals
from avface.geometry.rasteriser import rasterise
from avface.geometry.rotations import euler_to_rotmat, facing_rotvec
from avface.head import HeadModel, load_head
from avface.head.appearance import vertex_colours
from avface.synthetic.person.body import torso_mesh

ASSETS = Path(__file__).parent / "assets"
DEMO_CLIP = ASSETS / "demo.mp4"
DEMO_TRUTH = ASSETS / "demo_truth.npz"


@dataclass(frozen=True)
class DemoConfig:
    """Options of the demo clip."""

    text: str = "Hello! I am not a real person. My face was made to test how well a video becomes a head."
    """The sentence."""
    frame_rate: float = 25.0
    """Frames a second."""
    size: tuple[int, int] = (448, 448)
    """Width and height in pixels."""
    focal_length: float = 1.7
    """As a multiple of the picture's width."""
    distance: float = 0.68
    """Metres from the camera to the head."""
    shape_sigma: float = 0.55
    """Standard deviation of the shape weights."""
    seed: int = 11
    """Seed of the person, the head's motion, blinks and gaze."""
    supersampling: int = 2
    """Rendered pixels across one of the video's."""

    def __post_init__(self) -> None:
        for name in ("frame_rate", "focal_length", "distance"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")
        if min(self.size) < 16 or any(side % 2 for side in self.size):
            raise ValueError(f"size={self.size} must be two even numbers of at least 16 pixels")
        if not self.shape_sigma >= 0:
            raise ValueError(f"shape_sigma={self.shape_sigma} must not be negative")
        if self.supersampling < 1:
            raise ValueError(f"supersampling={self.supersampling} must be at least 1")


def build_demo(config: DemoConfig | None = None, clip: Path = DEMO_CLIP, truth: Path = DEMO_TRUTH) -> Capture:
    """Write the demo clip and its truth; returns the truth. Needs espeakng-loader."""
    from avface.media import EncodingConfig, VideoWriter
    from avface.synthetic.performance.espeak import speak

    config = config or DemoConfig()
    head = load_head("open")
    speech = speak(config.text)
    lead_in = 0.4
    frames = int((speech.duration + lead_in + 0.3) * config.frame_rate)
    times = np.arange(frames) / config.frame_rate
    capture = _perform(head, config, times, lead_in, speech.phonemes)
    sound = np.concatenate([np.zeros(int(lead_in * speech.sample_rate), np.float32), speech.samples])
    with VideoWriter(
        clip, sound=(sound, speech.sample_rate), encoding=EncodingConfig(crf=23, preset="slow")
    ) as writer:
        for image, time in zip(render(capture, config.supersampling), times, strict=True):
            writer.write(image, float(time))
    capture.save(truth)
    return capture


def _perform(
    head: HeadModel,
    config: DemoConfig,
    times: F64,
    lead_in: float,
    phonemes: tuple,
) -> Capture:
    """The ground truth: identity, expression, head pose and gaze in every frame."""
    from avface.synthetic.performance.espeak import Phoneme
    from avface.synthetic.performance.visemes import viseme_curves

    rng = np.random.default_rng(config.seed)
    delayed = tuple(Phoneme(phoneme.symbol, phoneme.start + lead_in) for phoneme in phonemes)
    expression = viseme_curves(delayed, times, head.expression_names)

    def unit(name: str) -> int:
        return head.expression_names.index(name)

    for start in _blinks(rng, times[-1]):
        shut = np.exp(-0.5 * ((times - start) / 0.055) ** 2)
        for side in ("Left", "Right"):
            expression[:, unit(f"eyeBlink{side}")] = np.maximum(expression[:, unit(f"eyeBlink{side}")], shut)
    raised = 0.45 * np.clip(_random_curve(rng, times, 0.35), 0, 1)
    for name in ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"):
        expression[:, unit(name)] += raised
    smile = 0.15 + 0.2 * np.clip(_random_curve(rng, times, 0.25), 0, 1)
    for side in ("Left", "Right"):
        expression[:, unit(f"mouthSmile{side}")] += smile
        expression[:, unit(f"cheekSquint{side}")] += 0.5 * smile
    expression = np.clip(expression, 0, 1)

    gaze = np.stack([0.05 * _random_curve(rng, times, 0.3), 0.12 * _random_curve(rng, times, 0.3)], 1)
    up, down, inward, outward = head.gaze_range
    for side, to_left in (("Left", 1), ("Right", -1)):
        pitch, yaw = gaze[:, 0], to_left * gaze[:, 1]
        expression[:, unit(f"eyeLookUp{side}")] = np.clip(-pitch / up, 0, 1)
        expression[:, unit(f"eyeLookDown{side}")] = np.clip(pitch / down, 0, 1)
        expression[:, unit(f"eyeLookOut{side}")] = np.clip(yaw / outward, 0, 1)
        expression[:, unit(f"eyeLookIn{side}")] = np.clip(-yaw / inward, 0, 1)
    joints = np.zeros((len(times), head.num_joints, 3))
    for eye in ("left_eye", "right_eye"):
        joints[:, head.joint_names.index(eye), :2] = gaze

    turn = np.stack(
        [
            0.10 * _random_curve(rng, times, 0.4),
            0.30 * _random_curve(rng, times, 0.3),
            0.06 * _random_curve(rng, times, 0.3),
        ],
        1,
    )
    rotation = _camera_rotation(turn)
    shift = np.stack(
        [
            0.012 * _random_curve(rng, times, 0.25),
            0.008 * _random_curve(rng, times, 0.4),
            0.015 * _random_curve(rng, times, 0.2),
        ],
        1,
    )
    width, height = config.size
    return Capture(
        head="open",
        shape=rng.normal(0, config.shape_sigma, head.num_shape).astype(np.float32),
        expression=expression.astype(np.float32),
        expression_names=head.expression_names,
        rotation=rotation.astype(np.float32),
        translation=(shift + np.array([0, -0.005, config.distance])).astype(np.float32),
        joints=joints.astype(np.float32),
        joint_names=head.joint_names,
        focal_length=config.focal_length * width,
        principal_point=((width - 1) / 2, (height - 1) / 2),
        image_size=config.size,
        times=times,
        confidence=np.ones(len(times), np.float32),
        source="demo.mp4",
        provenance={"truth": "avface.synthetic.demo_clip", "text": config.text},
    )


def _blinks(rng: np.random.Generator, duration: float) -> Iterator[float]:
    """Times of blinks in seconds, a few seconds apart."""
    at = rng.uniform(0.8, 1.6)
    while at < duration - 0.2:
        yield at
        at += rng.uniform(1.6, 3.2)


def _random_curve(rng: np.random.Generator, times: F64, rate: float) -> F64:
    """A random sum of sines (T,) with an amplitude of about 1 and frequencies of `rate` / 2 to 2 `rate` Hz."""
    phases, shares = rng.uniform(0, 2 * np.pi, 4), rng.uniform(0.5, 1, 4)
    waves = [np.sin(2 * np.pi * rate * (k + 1) / 2 * times + p) for k, p in enumerate(phases)]
    return np.tensordot(shares / (1 + np.arange(4)), waves, 1) / 1.3


def _camera_rotation(turn: F64) -> F64:
    """Axis-angle (T, 3) in the camera of a head with pitch, yaw and roll (T, 3) in radians from facing it."""
    yaw_pitch_roll = torch.as_tensor(turn)[:, [1, 0, 2]]
    return facing_rotvec(flip_rotation(euler_to_rotmat("YXZ", yaw_pitch_roll))).numpy()


def render(capture: Capture, supersampling: int = 2) -> Iterator[U8]:
    """Pictures (H, W, 3) of a capture: skin, short hair and a jumper under two lights, with a smooth background."""
    head = capture.head_model
    colours = torch.as_tensor(vertex_colours(head))
    scalp = torch.as_tensor(_hair(head))[:, None]
    colours = (1 - scalp) * colours + scalp * torch.tensor([0.16, 0.11, 0.08])
    rim, torso_faces, torso = torso_mesh(head, torch.as_tensor(capture.shape))
    faces = torch.cat([head.faces, torso_faces])
    jumper = torch.tensor([0.17, 0.24, 0.34]).expand(len(torso), 3)
    colours = torch.cat([colours, jumper])
    width, height = (supersampling * n for n in capture.image_size)
    rest = torch.as_tensor(capture.translation).mean(0)
    background = _background(height, width)
    for frame in range(len(capture)):
        points = torch.as_tensor(capture.vertices([frame])[0])
        body = flip_axes(torso) + rest
        body[: len(rim)] = points[rim]
        body[len(rim) : 2 * len(rim)] = 0.6 * points[rim] + 0.4 * body[len(rim) : 2 * len(rim)]
        scene = torch.cat([points, body])
        pixels = supersampling * (capture.camera.project(scene) + 0.5) - 0.5
        fragments = rasterise(pixels, scene[:, 2], faces, height, width)
        normals = fragments.interpolate(vertex_normals(scene, faces), faces)
        picture = fragments.interpolate(colours, faces) * _light(normals)[..., None]
        picture = torch.where((fragments.triangle < 0)[..., None], background, picture)
        small = picture.unflatten(0, (-1, supersampling)).unflatten(2, (-1, supersampling)).mean((1, 3))
        yield (small.clamp(0, 1) * 255).round().byte().numpy()


def _light(normals: Tensor) -> Tensor:
    """A key light from the upper left, a fill from the right and the sky; normals in the camera's axes."""
    key = torch.nn.functional.normalize(torch.tensor([-0.5, -0.6, -0.8]), dim=0)
    fill = torch.nn.functional.normalize(torch.tensor([0.8, 0.0, -0.6]), dim=0)
    return 0.38 + 0.55 * (normals @ key).clamp_min(0) + 0.18 * (normals @ fill).clamp_min(0)


def _hair(head: HeadModel) -> F32:
    """Mask (V,) of short hair, 0 to 1: the skin above a line around the head."""
    x, y, z = head.template.numpy().T
    top = float(y.max())
    around = np.degrees(np.arctan2(np.abs(x), z + 0.01))
    line = np.interp(
        around, [0, 35, 60, 80, 100, 130, 180], np.array([0.62, 0.64, 0.45, 0.1, -0.1, -0.6, -0.65]) * top
    )
    skin = np.array([name == "skin" for name in head.part_names])[head.vertex_parts()]
    return (np.clip((y - line) / 0.008 + 0.5, 0, 1) * skin * ~_ear_shells(head)).astype(np.float32)


def _ear_shells(head: HeadModel) -> Bool:
    """The ears (V,) without the surrounding skin of their region."""
    x, _, _ = head.template.numpy().T
    ears = head.regions["ears"]
    return ears & (np.abs(x) > np.quantile(np.abs(x[ears]), 0.25))


def _background(height: int, width: int) -> Tensor:
    """A wall (H, W, 3) with soft light."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    glow = torch.exp(-((x - 0.3) ** 2 + (y - 0.35) ** 2) / 0.25)[..., None]
    return torch.tensor([0.44, 0.47, 0.48]) + glow * torch.tensor([0.20, 0.18, 0.15])


if __name__ == "__main__":
    build_demo()
