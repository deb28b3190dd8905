"""Everything that is filmed in one synthetic clip: a person, what they do, light, camera and background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from avface.arrays import F32
from avface.capture import Capture
from avface.geometry.axes import flip_axes, flip_rotation
from avface.geometry.camera import Camera
from avface.geometry.rotations import euler_to_rotmat, facing_rotvec
from avface.head import HeadModel, load_head
from avface.head.appearance import softened
from avface.synthetic.performance.performance import Performance, perform
from avface.synthetic.person.skin import Skin, sample_skin
from avface.synthetic.person.traits import SkinTraits
from avface.synthetic.rendering.backdrop import sample_backdrop
from avface.synthetic.rendering.light import Light, sample_light
from avface.synthetic.rendering.sensor import Sensor, sample_sensor

Kind = Literal["speech", "silence", "sounds"]

HEAD_HEIGHT = 0.24
"""Metres from chin to crown of an average head."""
FILM_WIDTH = 36.0
"""Millimetres across a 35 mm picture, in which photographers give focal lengths."""
NEAREST = 0.32
"""Metres: nobody films a face from nearer."""

PERSON, SKIN, LIGHT, CAMERA, BACKDROP, SENSOR, PERFORMANCE = range(7)
"""Ingredients. Each has a stream of random numbers of its own, so that a change to one leaves the others as they
are."""


@dataclass(frozen=True)
class SceneConfig:
    """What scenes are drawn from."""

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
    """Share of the clips in which nobody speaks."""
    sounds: float = 0.05
    """Share of the clips with noises and music instead of speech."""
    shape_sigma: tuple[float, float] = (0.5, 1.0)
    """Standard deviation of a person's shape weights, drawn between these; 1 is the head model's own population, in
    which every face is a caricature of something."""


@dataclass(frozen=True)
class Scene:
    """One clip's ingredients.

    shape (S,); rest (3,) metres is where the head's origin is in the camera when it is still, rest_turn (3,) its pitch,
    yaw and roll then; backdrop (H, W, 3) linear RGB, clothes (3,) linear RGB; hair (V,) metres by which hair stands out
    from the scalp.
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
        """Rotation (T, 3, 3) and translation (T, 3) of the head in the camera: it turns about the top of the neck."""
        turn = torch.as_tensor(self.performance.turn + self.rest_turn)
        rotation = flip_rotation(euler_to_rotmat("YXZ", turn[:, [1, 0, 2]]))
        pivot = head.joint_positions(torch.as_tensor(self.shape))[head.joint_names.index("neck")]
        centre = torch.as_tensor(self.rest + self.performance.shift) + flip_axes(pivot)
        return rotation, centre - rotation @ pivot

    def capture(self, head: HeadModel, name: str) -> Capture:
        """The truth about head and camera, in the form of a reconstruction's result."""
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
    """The scene number `index` of a series; always the same for the same arguments."""
    head = head or load_head(config.head)

    def stream(ingredient: int) -> np.random.Generator:
        return np.random.default_rng([seed, index, ingredient])

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
    """From a phone at arm's length to a portrait lens; the face fills a third to three quarters of the picture."""
    focal = np.exp(rng.uniform(np.log(24), np.log(105))) / FILM_WIDTH * size
    share = rng.uniform(0.38, 0.75)
    distance = max(focal * HEAD_HEIGHT / (share * size), NEAREST)
    off = rng.normal(0, 0.05, 2).clip(-0.12, 0.12) * size / focal * distance
    rest = np.array([off[0], off[1] - 0.01, distance], np.float32)
    turn = rng.normal(0, [0.08, 0.18, 0.03]).clip([-0.2, -0.5, -0.1], [0.2, 0.5, 0.1])
    return Camera.centred(float(focal), size, size), rest, turn.astype(np.float32)


def sample_clothes(rng: np.random.Generator) -> F32:
    """Linear RGB (3,) of clothes, from nearly black to light."""
    bright = np.exp(rng.uniform(np.log(0.01), np.log(0.6)))
    return (bright * (0.5 + rng.dirichlet([1.5] * 3) * 1.5)).astype(np.float32)


def sample_hair(rng: np.random.Generator, head: HeadModel, traits: SkinTraits) -> F32:
    """Metres (V,) by which hair stands out from the scalp: from none, as on bald people, to a mop, thicker on top,
    uneven."""
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
