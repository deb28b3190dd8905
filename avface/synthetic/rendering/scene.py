"""Scenes of synthetic clips: a person, a performance, light, camera and background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avface.arrays import F32
from avface.capture import Capture
from avface.errors import AvfaceError
from avface.geometry.axes import flip_axes, flip_rotation
from avface.geometry.camera import Camera
from avface.geometry.rotations import euler_to_rotmat, facing_rotvec
from avface.head import HeadModel, load_head
from avface.head.appearance import softened
from avface.synthetic.performance.performance import Kind, Performance, perform
from avface.synthetic.person.skin import Skin, sample_skin
from avface.synthetic.person.traits import SkinTraits
from avface.synthetic.rendering.backdrop import sample_backdrop
from avface.synthetic.rendering.light import Light, sample_light
from avface.synthetic.rendering.sensor import Sensor, sample_sensor

HEAD_HEIGHT = 0.24
"""Metres from chin to crown of an average head."""
FILM_WIDTH = 36.0
"""Width of a 35 mm picture in millimetres, the reference of equivalent focal lengths."""
MIN_DISTANCE = 0.32
"""Minimum distance of the camera from a face in metres."""

PERSON, SKIN, LIGHT, CAMERA, BACKDROP, SENSOR, PERFORMANCE = range(7)
"""Components of a scene. Each has a random stream of its own, so that a change of one doesn't affect the others."""


@dataclass(frozen=True)
class SceneConfig:
    """Distribution of random scenes."""

    head: str = "open"
    """Head model, a name or a path."""
    size: int = 256
    """Width and height of the pictures in pixels."""
    seconds: float = 4.0
    """Length of a clip."""
    frame_rate: float = 25.0
    """Frames a second."""
    texture: int = 512
    """Texels across the skin's maps."""
    silence: float = 0.1
    """Share of the clips without speech and with silence or background noise."""
    sounds: float = 0.05
    """Share of the clips with noises and music instead of speech."""
    shape_sigma: tuple[float, float] = (0.5, 1.0)
    """Range of the standard deviation of a person's shape weights; 1 is the head model's own prior, whose samples
    look exaggerated."""

    def __post_init__(self) -> None:
        for name in ("size", "texture"):
            if getattr(self, name) < 16:
                raise AvfaceError(f"{name}={getattr(self, name)} must be at least 16 pixels")
        for name in ("seconds", "frame_rate"):
            if not 0 < getattr(self, name) < np.inf:
                raise AvfaceError(f"{name}={getattr(self, name)} must be above 0 and finite")
        if not (self.silence >= 0 and self.sounds >= 0 and self.silence + self.sounds <= 1):
            raise AvfaceError(
                f"silence={self.silence} and sounds={self.sounds} must be shares that are together at most 1"
            )
        low, high = self.shape_sigma
        if not 0 <= low <= high:
            raise AvfaceError(f"shape_sigma={self.shape_sigma} must be two numbers in order, not negative")


@dataclass(frozen=True)
class Scene:
    """The components of one clip.

    shape (S,); rest (3,) metres is the head's rest position in the camera, rest_turn (3,) its pitch, yaw and roll at
    rest; backdrop (H, W, 3) linear RGB, clothes (3,) linear RGB; hair (V,) thickness of the hair in metres.
    """

    shape: F32
    skin: Skin
    performance: Performance
    light: Light
    camera: Camera
    rest: F32
    rest_turn: F32
    backdrop: F32
    sensor: Sensor
    clothes: F32
    hair: F32
    noise_seed: int

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.performance.expression)

    def motion(self, head: HeadModel) -> tuple[Tensor, Tensor]:
        """Rotation (T, 3, 3) and translation (T, 3) of the head in the camera; it rotates about the neck joint."""
        turn = torch.as_tensor(self.performance.turn + self.rest_turn)
        rotation = flip_rotation(euler_to_rotmat("YXZ", turn[:, [1, 0, 2]]))
        pivot = head.joint_positions(torch.as_tensor(self.shape))[head.joint_names.index("neck")]
        centre = torch.as_tensor(self.rest + self.performance.shift) + flip_axes(pivot)
        return rotation, centre - rotation @ pivot

    def capture(self, head: HeadModel, name: str) -> Capture:
        """Ground truth of head and camera as a capture."""
        rotation, translation = self.motion(head)
        frames = len(self)
        return Capture(
            head=name,
            shape=self.shape,
            expression=self.performance.expression,
            expression_names=head.expression_names,
            rotation=facing_rotvec(rotation).numpy(),
            translation=translation.numpy().astype(np.float32),
            joints=self.performance.joints,
            joint_names=head.joint_names,
            focal_length=self.camera.focal_length,
            principal_point=self.camera.principal_point,
            image_size=(self.camera.width, self.camera.height),
            times=np.arange(frames) / self.performance.frame_rate,
            confidence=np.ones(frames, np.float32),
            provenance={"truth": "avface.synthetic"},
        )


def sample_scene(seed: int, index: int, config: SceneConfig, head: HeadModel | None = None) -> Scene:
    """Scene number `index` of a series; deterministic."""
    head = head or load_head(config.head)

    def stream(component: int) -> np.random.Generator:
        return np.random.default_rng([seed, index, component])

    person = stream(PERSON)
    sigma = person.uniform(*config.shape_sigma)
    shape = (sigma * person.normal(size=head.num_shape)).clip(-3, 3).astype(np.float32)
    clothes = sample_clothes(person)
    skin = sample_skin(stream(SKIN), head, shape, config.texture)
    hair = sample_hair(person, head, skin.traits)
    camera, rest, rest_turn = sample_camera(stream(CAMERA), config.size)
    rng = stream(PERFORMANCE)
    kinds: tuple[Kind, ...] = ("speech", "silence", "sounds")
    kind = kinds[rng.choice(3, p=[1 - config.silence - config.sounds, config.silence, config.sounds])]
    return Scene(
        shape=shape,
        skin=skin,
        performance=perform(rng, head, config.seconds, config.frame_rate, kind),
        light=sample_light(stream(LIGHT)),
        camera=camera,
        rest=rest,
        rest_turn=rest_turn,
        backdrop=sample_backdrop(stream(BACKDROP), config.size, config.size),
        sensor=sample_sensor(stream(SENSOR)),
        clothes=clothes,
        hair=hair,
        noise_seed=int(stream(SENSOR).integers(2**31)),
    )


def sample_camera(rng: np.random.Generator, size: int) -> tuple[Camera, F32, F32]:
    """A random camera with the head's rest position (3,) in metres and rest rotation (3,) as pitch, yaw and roll.

    From a phone at arm's length to a portrait lens; the face fills a third to three quarters of the picture.
    """
    focal = np.exp(rng.uniform(np.log(24), np.log(105))) / FILM_WIDTH * size
    share = rng.uniform(0.38, 0.75)
    distance = max(focal * HEAD_HEIGHT / (share * size), MIN_DISTANCE)
    off = rng.normal(0, 0.05, 2).clip(-0.12, 0.12) * size / focal * distance
    rest = np.array([off[0], off[1] - 0.01, distance], np.float32)
    turn = rng.normal(0, [0.08, 0.18, 0.03]).clip([-0.2, -0.5, -0.1], [0.2, 0.5, 0.1])
    return Camera.centred(float(focal), size, size), rest, turn.astype(np.float32)


def sample_clothes(rng: np.random.Generator) -> F32:
    """Random linear RGB (3,) of clothes, from nearly black to light."""
    bright = np.exp(rng.uniform(np.log(0.01), np.log(0.6)))
    return (bright * (0.5 + rng.dirichlet([1.5] * 3) * 1.5)).astype(np.float32)


def sample_hair(rng: np.random.Generator, head: HeadModel, traits: SkinTraits) -> F32:
    """Random thickness (V,) of the hair in metres: from none to 35 mm, thicker on top, uneven."""
    scalp = softened(head.regions["scalp"], head.faces.cpu().numpy(), rounds=4)
    thickness = rng.choice([0.0, 1.0], p=[0.25, 0.75]) * rng.uniform(0.004, 0.035)
    position = head.template.cpu().numpy()
    waves = sum(
        rng.uniform(0.3, 1) * np.sin(position @ rng.normal(0, 60, 3) + rng.uniform(0, 6.3)) for _ in range(5)
    )
    top = (position[:, 1] - position[:, 1].min()) / np.ptp(position[:, 1])
    uneven = np.clip(1 + 0.12 * waves, 0.4, 1.6) * (0.5 + 0.7 * top)
    hair = (thickness * np.clip(2 * scalp - 1, 0, 1) ** 0.7 * uneven).astype(np.float32)
    return hair * np.float32(traits.hair_density > 0)
