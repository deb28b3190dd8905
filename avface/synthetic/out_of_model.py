"""People whose faces the head model can't make: for learning and measuring without the advantage of being in its own
space."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from avface.arrays import F64, Bool
from avface.head import HeadModel, load_head
from avface.synthetic.rendering.scene import Scene, SceneConfig, sample_scene

MIRROR = np.array([-1.0, 1.0, 1.0])
"""The other side of the face."""
_CLIP_STRIDE = 100_000
"""Between the scene numbers of a person's clips."""
_FACE = 0x57A
FILMED_SEED, POPULATION_SEED, LANDMARKS_SEED = 101, 900, 102
"""Seeds of `OutOfModelConfig` of the people filmed for the shape prior, of its population, and of the landmark network's
training."""
TRAINING_SEEDS = (FILMED_SEED, POPULATION_SEED, LANDMARKS_SEED)
"""Seeds of people from whom something was learnt; only others may be measured on."""


@dataclass(frozen=True)
class OutOfModelConfig:
    """How people differ from what the head model knows."""

    seed: int = 0
    """Another seed gives other people."""
    known_sigma: float = 0.7
    """Standard deviation of the model's own shape weights that a face starts from."""
    proportions: float = 0.05
    """Standard deviation of the logarithm by which width, height and depth are stretched."""
    taper: float = 0.08
    """Standard deviation of how much wider and deeper a face gets from the chin to the brow."""
    field_mm: float = 3.0
    """Root mean square over the face of a smooth random deformation, in millimetres."""
    field_lengths: tuple[float, float] = (0.018, 0.05)
    """Metres over which it changes, from and to."""
    asymmetry: float = 0.2
    """Share of the deformation that differs between left and right."""
    seconds: float = 3.0
    """Length of a clip."""
    size: int = 256
    """Width and height of the pictures in pixels."""


def out_of_model_head(person: int, config: OutOfModelConfig) -> HeadModel:
    """The head of person number `person`: the open head, deformed. Its template is the person at rest.

    A face of the model's own space is stretched, tapered and warped by a random field; the eyeballs keep their shape.
    """
    head = copy.deepcopy(load_head())
    rng = np.random.default_rng([config.seed, person, _FACE])
    shape = (config.known_sigma * rng.normal(size=head.num_shape)).clip(-2.5, 2.5)
    if head.size_component is not None:
        shape[head.size_component] = 0  # one camera can't tell size
    before = head.neutral(torch.as_tensor(shape, dtype=torch.float32)).double().numpy()
    after = _warped(rng, _stretched(rng, before, config), head.regions["face"], config)
    for side in ("left", "right"):
        names = [n for n, name in enumerate(head.part_names) if name.startswith(f"{side}_")]
        ball = np.isin(head.vertex_parts(), names)
        after[ball] = before[ball] + (after[ball] - before[ball]).mean(0)
    head.template = torch.as_tensor(after.astype(np.float32))
    return head


def out_of_model_scene(person: int, clip: int, config: OutOfModelConfig, head: HeadModel) -> Scene:
    """A person's clip number `clip`: other words, light, camera and place, the same face, skin and hair.

    head: that of `out_of_model_head`.
    """
    of_scene = SceneConfig(
        size=config.size, seconds=config.seconds, silence=0.0, sounds=0.0, shape_sigma=(0.0, 0.0)
    )
    first = sample_scene(config.seed, person, of_scene, head)
    if clip == 0:
        return first
    other = sample_scene(config.seed, person + clip * _CLIP_STRIDE, of_scene, head)
    return replace(other, shape=first.shape, skin=first.skin, hair=first.hair)


def film(person: int, clip: int, path: Path, config: OutOfModelConfig) -> None:
    """Render a person's clip with its sound; the file appears whole.

    Raises:
        AvfaceError: if it can't be written, or there is no espeak-ng to speak with.
    """
    from avface.media import EncodingConfig, VideoWriter
    from avface.speech.spectrum import SAMPLE_RATE
    from avface.synthetic.rendering.renderer import SceneRenderer

    head = out_of_model_head(person, config)
    scene = out_of_model_scene(person, clip, config, head)
    encoding = EncodingConfig(crf=scene.sensor.quality, preset="veryfast")
    sound = (scene.performance.sound, SAMPLE_RATE)
    with VideoWriter(path, sound=sound, encoding=encoding) as writer:
        for picture, time in zip(SceneRenderer(scene, head).frames(), scene.performance.times, strict=True):
            writer.write(picture, float(time))


def _stretched(rng: np.random.Generator, points: F64, config: OutOfModelConfig) -> F64:
    """Other proportions: along the axes, and wider or deeper with height; the volume stays."""
    stretch = rng.normal(0, config.proportions, 3)
    height = (points[:, 1:2] - points[:, 1].mean()) / 0.1
    taper = rng.normal(0, config.taper, 2) * height
    factors = np.exp(stretch - stretch.mean()) * np.ones_like(points)
    factors[:, [0, 2]] *= 1 + taper
    middle = points.mean(0) * [0, 1, 1]
    return middle + factors * (points - middle)


def _warped(rng: np.random.Generator, points: F64, face: Bool, config: OutOfModelConfig) -> F64:
    """A smooth random field added: Gaussians of different widths about places on the face, mostly the same on both
    sides."""
    count = 60
    centres = points[face][rng.integers(0, face.sum(), count)]
    shortest, longest = np.log(config.field_lengths)
    widths = np.exp(rng.uniform(shortest, longest, count))
    moves = rng.normal(size=(count, 3)) * widths[:, None]

    def field(places: F64) -> F64:
        apart = ((places[:, None] - centres) ** 2).sum(-1)
        return np.asarray(np.exp(-apart / (2 * widths**2)) @ moves)

    own, other = field(points), field(points * MIRROR) * MIRROR
    moved = (own + other) / 2 + config.asymmetry * (own - other) / 2
    size = np.sqrt((moved[face] ** 2).sum(1).mean())
    return points + moved * (config.field_mm / 1000 / size)
