"""Recipes of the coarse stage's training: every choice that decides about the weights, as values.

`default` is what the shipped weights are made by, `default_image` the same with pictures instead of tracked points,
`paper` AVFace's own; `occlusion` goes on from any of them with more of the face hidden (AVFace 3.4).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

import tyro

from avface.errors import AvfaceError
from avface.files.weight_file import config_from_plain
from avface.networks.coarse.codes import FLAME_CODE, CodeConfig
from avface.networks.coarse.encoders import CoarseConfig, ExpressionConfig
from avface.networks.coarse.model import NetworkConfig
from avface.networks.coarse.temporal import TemporalConfig
from avface.networks.coarse.video import LandmarksConfig, ResNetConfig


@dataclass(frozen=True)
class Augmentation:
    """How training windows are changed so that few people and one tracker stand for many. Lengths are in crop units:
    half a crop's side is 1."""

    crop_shift: float = 0.06
    """Standard deviation of the crop's centre, one draw a window: crops around real faces lie otherwise."""
    crop_scale: float = 0.1
    """Standard deviation of the log of the crop's side; DECA draws its margin from 1.4 to 1.8."""
    roll: float = 0.12
    """Standard deviation in radians by which camera and face are turned about the camera's axis: heads tilt."""
    mirror: float = 0.5
    """Share of windows that are mirrored, left units become right ones: no side is a person's better one."""
    jitter: float = 0.004
    """Standard deviation of each point's own noise; the tracker's on small pictures of real faces is larger than on
    rendered ones."""
    speech_shift: int = 1
    """Most frames by which sound is early or late: recordings are out of step by up to 40 ms either way."""
    speech_noise: float = 0.15
    """Standard deviation of noise on speech features, which are standardised: rooms and microphones differ."""
    speech_gaps: float = 0.2
    """Share of windows in which a stretch of the speech features is blank: noise hides speech."""


@dataclass(frozen=True)
class Hiding:
    """Regions of the face that something hides, where the tracker makes up what it doesn't see (AVFace 3.4)."""

    hidden: float = 0.35
    """Share of windows in which a region is hidden."""
    shortest: float = 0.3
    """Seconds."""
    longest: float = 3.0
    """Seconds; a window is shorter, so in many the region is hidden throughout."""
    lower_face: float = 0.7
    """Share of the hidden regions that are mouth and jaw: hands and microphones are there."""
    told: float = 0.6
    """Share of hidden regions that the input's visibility tells of: whoever looks for occluders misses some."""
    false_alarm: float = 0.08
    """Share of windows in which a region that is seen is called hidden."""
    lost: float = 0.08
    """Share of windows with a run of frames in which no face is found at all."""


@dataclass(frozen=True)
class Sketching:
    """Windows without any rendering: performances by random people before random cameras, seen by a tracker that errs
    as ours does. Rendered clips give some hundred identities, these a new one each time."""

    sketched: float = 0.65
    """Share of the windows that are sketches."""
    hours: float = 2.0
    """Length of the performances that they are cut from, made once."""
    stretch: float = 8.0
    """Seconds of one performance."""
    bias: float = 1.2
    """The tracker's error that stays for a clip, in standard deviations of the head's `error_basis`. Measured on
    rendered clips: 2.3 mm a coordinate, where the basis has 1.9."""
    drift: float = 0.85
    """The tracker's error that comes and goes, in the same unit: 1.6 mm a coordinate on rendered clips."""
    drift_time: float = 0.22
    """Seconds in which that error falls to 1 / e: its autocorrelation on rendered clips is 0.83 after one frame, 0.48
    after four, 0.28 after eight."""


@dataclass(frozen=True)
class Supervision:
    """Weights of the losses against the truth of synthetic clips."""

    vertices: float = 300.0
    """Distance of vertices moved by the expression, in metres, lips five times the face."""
    units: float = 8.0
    """Squared error of expression units: its best answer is the mean, as a prior of a least squares fit should be."""
    velocity: float = 0.01
    """Units' velocity a second."""
    shape: float = 100.0
    """Distance of the neutral face's vertices, in metres."""
    coefficients: float = 0.02
    """Squared error of shape weights."""
    rotation: float = 5.0
    """Radians."""
    camera: float = 5.0
    """Absolute error of `CoarseCode.camera`."""
    points: float = 15.0
    """Distance of projected landmarks, crop units."""
    likelihood: float = 0.1
    """Negative log-likelihood of the error of units, landmarks, rotation, camera and shape under the predicted
    variances. Errors are detached: the answers don't depend on how sure they are."""


@dataclass(frozen=True)
class SelfSupervision:
    """Weights of the paper's losses, which need no truth (AVFace 3.1; values of DECA and EMOCA, see the losses)."""

    landmarks: float = 1.0
    """The 68 landmarks."""
    eye_closure: float = 0.5
    """Distances of lids."""
    mouth_closure: float = 0.5
    """Distances of inner lips."""
    lip_corners: float = 0.5
    """Widths of the mouth."""
    photometric: float = 2.0
    """Colour of the rendered skin; 0 leaves rendering out, as DECA's first stage does."""
    render_size: int = 112
    """Pixels of the rendered picture; half the crop's costs a quarter."""
    coefficients: float = 3e-3
    """Half squares of shape and expression, see `coefficient_loss`: 1e-4 as DECA sums them over a batch of 32."""
    albedo: float = 3e-3
    """Half squares of albedo weights."""
    light: float = 1.0
    """Distance of the light from white."""


Losses = Supervision | SelfSupervision


@dataclass(frozen=True)
class Recipe:
    """How the coarse networks are trained. Saved in every checkpoint and beside the weights."""

    name: str
    """What people call it."""
    network: tyro.conf.Suppress[NetworkConfig]
    """The networks."""
    losses: tyro.conf.AvoidSubcommands[Annotated[Losses, tyro.conf.arg(name="")]]
    """What is to become small."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Changes of the windows."""
    hiding: Hiding = field(default_factory=Hiding)
    """Hidden regions; for recipes on landmarks."""
    sketching: Sketching = field(default_factory=Sketching)
    """Windows without pictures; for recipes on landmarks."""
    seed: int = 0
    """Seed of first weights, order and everything random."""
    steps: int = 20_000
    """Steps of the optimiser."""
    batch: int = 32
    """Windows a step, in each process."""
    learning_rate: float = 1e-3
    """Highest rate."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Whether the rate falls to zero as a cosine over the run. The paper names one rate."""
    warm_up: int = 200
    """Steps until the highest rate."""
    optimiser: Literal["adam", "adamw"] = "adamw"
    """Adam adds weight decay to the gradient, AdamW takes it off the weights."""
    weight_decay: float = 0.01
    """Of the optimiser."""
    gradient_norm: float = 1.0
    """Longer gradients are cut to this length."""
    averaging: float = 0.999
    """Share of the running average of the weights that a step leaves; the average is what is kept."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "learning_rate", "gradient_norm"):
            if not getattr(self, name) > 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be positive")
        if not 0 <= self.averaging < 1:
            raise AvfaceError(f"averaging={self.averaging} must be from 0 to below 1")
        for name, share in {
            "mirror": self.augmentation.mirror,
            "hidden": self.hiding.hidden,
            "sketched": self.sketching.sketched,
        }.items():
            if not 0 <= share <= 1:
                raise AvfaceError(f"{name}={share} must be a share from 0 to 1")

    @property
    def uses_images(self) -> bool:
        """Whether the networks look at pictures."""
        return any(
            isinstance(branch.video, ResNetConfig)
            for branch in (self.network.coarse, self.network.expression)
        )

    @property
    def supervised(self) -> bool:
        """Whether the losses need truth."""
        return isinstance(self.losses, Supervision)

    def plain(self) -> dict[str, Any]:
        """What JSON can keep."""
        return {**asdict(self), "supervised": self.supervised}

    @staticmethod
    def from_plain(values: dict[str, Any]) -> Recipe:
        """The recipe that `plain` described.

        Raises:
            KeyError, TypeError, ValueError, AvfaceError: if it doesn't fit.
        """
        values = dict(values)
        losses = Supervision if values.pop("supervised") else SelfSupervision
        kinds: dict[str, Callable[..., Any]] = {
            "losses": losses,
            "augmentation": Augmentation,
            "hiding": Hiding,
            "sketching": Sketching,
        }
        made = {name: kind(**values.pop(name)) for name, kind in kinds.items()}
        network = config_from_plain(NetworkConfig, values.pop("network"))
        return Recipe(network=network, **made, **values)


def default() -> Recipe:
    """The shipped weights: open head, tracked points and how well each is seen, synthetic clips and sketches.

    Sound or picture is missing altogether in a quarter of the windows each, less than in the paper, because hidden
    mouths with sound, in many of the rest, teach what is asked of the networks.
    """
    video = LandmarksConfig(visibility=True)
    network = NetworkConfig(
        "open",
        CodeConfig(),
        CoarseConfig(video, 192, TemporalConfig()),
        ExpressionConfig(video, temporal=TemporalConfig(width=128), audio_dropout=0.25, video_dropout=0.25),
    )
    return Recipe("default", network, Supervision())


def default_image() -> Recipe:
    """Open head and ResNet-50 over crops of synthetic clips."""
    network = NetworkConfig(
        "open",
        CodeConfig(),
        CoarseConfig(ResNetConfig(hidden=(1024,)), 192, TemporalConfig()),
        ExpressionConfig(ResNetConfig(), temporal=TemporalConfig(width=128)),
    )
    return Recipe(
        "default-image",
        network,
        Supervision(),
        sketching=Sketching(sketched=0.0),
        batch=4,
        learning_rate=1e-4,
        steps=100_000,
    )


def paper() -> Recipe:
    """AVFace's own (sections 3.1, 3.5, 4.1): FLAME, ResNet-50, Adam at 1e-4 with weight decay 5e-4, windows of 16.

    The paper names neither batch nor steps.
    """
    network = NetworkConfig("flame2020", FLAME_CODE)
    unchanged = Augmentation(0.0, 0.0, 0.0, 0.0, 0.0, 0, 0.0, 0.0)
    return Recipe(
        "paper",
        network,
        SelfSupervision(),
        augmentation=unchanged,
        sketching=Sketching(sketched=0.0),
        batch=4,
        steps=200_000,
        learning_rate=1e-4,
        schedule="constant",
        warm_up=1,
        optimiser="adam",
        weight_decay=5e-4,
        averaging=0.0,
    )


def occlusion(base: Recipe) -> Recipe:
    """Fine-tuning of what `base` has trained: most windows have a hidden region, at a lower rate (AVFace 3.4)."""
    return replace(
        base,
        name=f"{base.name}+occlusion",
        hiding=replace(base.hiding, hidden=0.75, lower_face=0.75, lost=0.12),
        steps=max(1, base.steps // 4),
        learning_rate=base.learning_rate * 0.4,
        warm_up=max(1, base.warm_up // 2),
    )


def read_recipe(text: str) -> Recipe:
    """A recipe from JSON.

    Raises:
        ValueError: if it isn't one.
    """
    try:
        return Recipe.from_plain(json.loads(text))
    except (KeyError, TypeError, ValueError, AvfaceError) as error:
        raise ValueError(f"not a recipe of this version ({error})") from None
