"""Heads outside the shape space of the head model, for training and evaluation without its advantage."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from avface.arrays import F64, Bool, Floats
from avface.errors import AvfaceError
from avface.head import HeadModel, load_head
from avface.head.unit_names import unit_side, unit_stem
from avface.synthetic.performance.facial_expression import baseline_curves
from avface.synthetic.rendering.scene import Scene, SceneConfig, sample_scene

IN_MODEL_SIGMA = 0.9
"""Standard deviation of the shape weights of people of the head model's own space."""
UNIT_AMOUNT_SIGMA = 0.15
"""Standard deviation of the logarithm of the amount by which a person's unit moves the face."""
UNIT_MIXING_SIGMA = 0.05
"""Standard deviation of the share of another unit in a person's unit."""
UNITS_ALIKE = 0.15
"""Least cosine of the motions of two units of which one may have a share of the other."""
MIRROR = np.array([-1.0, 1.0, 1.0])
"""Reflection of points to the other side of the face."""
_CLIP_STRIDE = 100_000
"""Difference between the scene numbers of a person's clips."""
_FACE_STREAM = 0x57A
"""Number of the random stream of faces."""
FILMED_SEED, POPULATION_SEED, LANDMARKS_SEED = 101, 900, 102
"""Seeds of `OutOfModelConfig` of the people rendered for the shape prior, of its population, and of the training of the
landmark network."""
MOTION_SEED = 2020
"""Seed of the people of the training of the landmark motion network."""
TRAINING_SEEDS = (FILMED_SEED, POPULATION_SEED, LANDMARKS_SEED, MOTION_SEED)
"""Seeds of people used for training; evaluation must use others."""


@dataclass(frozen=True)
class OutOfModelConfig:
    """Deviation of heads from the head model."""

    seed: int = 0
    """Seed of the people."""
    known_sigma: float = 0.7
    """Standard deviation of the model's own shape weights that a face starts from."""
    proportions: float = 0.05
    """Standard deviation of the logarithm of the scale factors of width, height and depth."""
    taper: float = 0.08
    """Standard deviation of the relative increase of width and depth per decimetre of height."""
    field_mm: float = 3.0
    """Root mean square over the face of a smooth random deformation, in millimetres."""
    field_lengths: tuple[float, float] = (0.018, 0.05)
    """Range of the widths of its Gaussians in metres."""
    asymmetry: float = 0.2
    """Share of the antisymmetric part of the deformation that is kept."""
    seconds: float = 3.0
    """Length of a clip."""
    size: int = 256
    """Width and height of the pictures in pixels."""

    def __post_init__(self) -> None:
        for name in ("seed", "known_sigma", "proportions", "taper", "field_mm"):
            if not getattr(self, name) >= 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must not be negative")
        shortest, longest = self.field_lengths
        if not 0 < shortest <= longest:
            raise AvfaceError(f"field_lengths={self.field_lengths} must be two positive lengths in order")
        if not 0 <= self.asymmetry <= 1:
            raise AvfaceError(f"asymmetry={self.asymmetry} must be from 0 to 1")
        if not 0 < self.seconds < np.inf:
            raise AvfaceError(f"seconds={self.seconds} must be above 0 and finite")
        if self.size < 16:
            raise AvfaceError(f"size={self.size} must be at least 16 pixels")


def out_of_model_head(person: int, config: OutOfModelConfig) -> HeadModel:
    """The head of person number `person`: the open head, deformed. Its template is the person's neutral face.

    A face of the model's own space is scaled, tapered and deformed by a random field; the eyeballs keep their shape.
    """
    head = copy.deepcopy(load_head())
    rng = np.random.default_rng([config.seed, person, _FACE_STREAM])
    shape = (config.known_sigma * rng.normal(size=head.num_shape)).clip(-2.5, 2.5)
    if head.size_component is not None:
        shape[head.size_component] = 0  # size is ambiguous with one camera
    before = head.neutral(torch.as_tensor(shape, dtype=torch.float32)).double().numpy()
    after = _deformed(rng, _stretched(rng, before, config), head.regions["face"], config)
    for side in ("left", "right"):
        parts = [f"{side}_{part}" for part in ("eye", "iris", "pupil")]  # the tears' line goes with the lid
        names = [n for n, name in enumerate(head.part_names) if name in parts]
        ball = np.isin(head.vertex_parts(), names)
        after[ball] = before[ball] + (after[ball] - before[ball]).mean(0)
    head.template = torch.as_tensor(after.astype(np.float32))
    return head


def expressive_head(
    person: int, rng: np.random.Generator, config: OutOfModelConfig, in_model: bool
) -> HeadModel:
    """The head of person number `person` with a face at rest of its own, which is no expression.

    in_model: a head of the model's own space, whose units move it as they do the model's; else one outside of it, with
    units of its own.
    """
    if in_model:
        config = replace(config, known_sigma=IN_MODEL_SIGMA, proportions=0.0, taper=0.0, field_mm=1e-6)
    head = out_of_model_head(person, config)
    resting = baseline_curves(rng, np.arange(2) / 25.0, head.expression_names)[0]
    with_resting_face(head, resting * rng.choice([0, 0.5, 1]))
    return head if in_model else with_personal_units(head, rng)


def with_resting_face(head: HeadModel, weights: Floats) -> HeadModel:
    """A head whose neutral face has constant weights (E,) of the expression units in it, such as raised corners of the
    mouth: a person's face at rest is no expression. The head is changed."""
    moved = torch.as_tensor(np.asarray(weights, np.float32))
    head.template = head.template + torch.einsum("e,evc->vc", moved, head.expression_basis)
    return head


def with_personal_units(head: HeadModel, rng: np.random.Generator) -> HeadModel:
    """A head whose expression units move it as one person's do: somewhat more or less, and with a little of other units
    of the same muscles; the same on both sides. The head is changed."""
    names = head.expression_names
    stems = sorted({unit_stem(name) for name in names if not name.startswith("eyeLook")})
    old = head.expression_basis.flatten(1).clone()
    alike = old @ old.T
    size = alike.diagonal().clamp_min(1e-12).sqrt()
    alike = alike / (size[:, None] * size)
    new = old.clone()
    for stem in stems:
        amount = float(np.exp(rng.normal(0, UNIT_AMOUNT_SIGMA)))
        shares = dict(zip(stems, rng.normal(0, UNIT_MIXING_SIGMA, len(stems)).tolist(), strict=True))
        for row in (n for n, name in enumerate(names) if unit_stem(name) == stem):
            new[row] *= amount
            for other in (n for n, name in enumerate(names) if unit_stem(name) in shares and n != row):
                sides = {unit_side(names[row]), unit_side(names[other])} - {""}
                if (
                    unit_stem(names[other]) != stem
                    and len(sides) < 2
                    and abs(alike[row, other]) > UNITS_ALIKE
                ):
                    new[row] += shares[unit_stem(names[other])] * (size[row] / size[other]) * old[other]
    head.expression_basis = new.view_as(head.expression_basis)
    return head


def out_of_model_scene(person: int, clip: int, config: OutOfModelConfig, head: HeadModel) -> Scene:
    """A person's clip number `clip`: the face, skin and hair are constant; performance, light and camera vary.

    head: from `out_of_model_head`.
    """
    settings = SceneConfig(
        size=config.size, seconds=config.seconds, silence=0.0, sounds=0.0, shape_sigma=(0.0, 0.0)
    )
    first = sample_scene(config.seed, person, settings, head)
    if clip == 0:
        return first
    other = sample_scene(config.seed, person + clip * _CLIP_STRIDE, settings, head)
    return replace(other, shape=first.shape, skin=first.skin, hair=first.hair)


def film(person: int, clip: int, path: Path, config: OutOfModelConfig) -> None:
    """Render a person's clip with its sound; the file is written atomically.

    Raises:
        AvfaceError: if it can't be written, or espeak-ng is not installed.
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
    """Other proportions: scaled along the axes at constant volume, and tapered with height."""
    stretch = rng.normal(0, config.proportions, 3)
    height = (points[:, 1:2] - points[:, 1].mean()) / 0.1
    taper = rng.normal(0, config.taper, 2) * height
    factors = np.exp(stretch - stretch.mean()) * np.ones_like(points)
    factors[:, [0, 2]] *= 1 + taper
    middle = points.mean(0) * [0, 1, 1]
    return middle + factors * (points - middle)


def _deformed(rng: np.random.Generator, points: F64, face: Bool, config: OutOfModelConfig) -> F64:
    """A smooth random field added: Gaussians of different widths centred on the face, mostly symmetric."""
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
