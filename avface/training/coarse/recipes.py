"""Recipes of the coarse stage's training: every choice that decides about the weights, as values.

`default` is that of the shipped weights, `default_image` the same with images instead of tracked points, `paper` that
of AVFace; `occlusion` fine-tunes any of them with more of the face occluded (AVFace 3.4).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, Literal

import tyro

from avface.errors import AvfaceError
from avface.files.weight_file import config_from_plain
from avface.networks.coarse.codes import FLAME_CODE, CodeConfig
from avface.networks.coarse.encoders import CoarseConfig, ExpressionConfig
from avface.networks.coarse.model import NetworkConfig
from avface.networks.coarse.temporal import TemporalConfig
from avface.networks.coarse.video import LandmarksConfig, ResNetConfig
from avface.training.loop.config import check_averaging, check_not_negative, check_positive, check_shares


@dataclass(frozen=True)
class Augmentation:
    """Random changes of the training windows, which make up for few people and one tracker. Lengths are in crop units:
    1 is half the side of a crop."""

    crop_shift: float = 0.06
    """Standard deviation of the crop's centre, drawn once per window: crops of other trackers lie elsewhere."""
    crop_scale: float = 0.1
    """Standard deviation of the log of the crop's side; DECA draws its margin from 1.4 to 1.8."""
    roll: float = 0.12
    """Standard deviation in radians of a rotation of camera and face about the camera's axis."""
    mirror: float = 0.5
    """Share of windows that are mirrored, with left and right units exchanged."""
    jitter: float = 0.004
    """Standard deviation of the noise of each point; the tracker's is larger on small real faces than on rendered
    ones."""
    speech_shift: int = 1
    """Largest offset of the sound in frames: recordings are out of sync by up to 40 ms either way."""
    speech_noise: float = 0.15
    """Standard deviation of noise on the standardised speech features, for rooms and microphones."""
    speech_gaps: float = 0.2
    """Share of windows in which the speech features of some frames are zero."""

    def __post_init__(self) -> None:
        check_not_negative(self, "crop_shift", "crop_scale", "roll", "jitter", "speech_shift", "speech_noise")
        check_shares(self, "mirror", "speech_gaps")


@dataclass(frozen=True)
class OcclusionAugmentation:
    """Occluded regions of the face, where the tracker's points are wrong (AVFace 3.4)."""

    occluded: float = 0.35
    """Share of windows in which a region is occluded."""
    shortest: float = 0.3
    """Shortest occlusion in seconds."""
    longest: float = 3.0
    """Longest occlusion in seconds; longer than a window, so that many windows are occluded throughout."""
    lower_face: float = 0.7
    """Share of the occluded regions that are mouth and jaw, where hands and microphones are."""
    mask_known: float = 0.6
    """Share of occlusions that the input visibility shows: the detection of occluders misses some."""
    false_alarm: float = 0.08
    """Share of windows in which the input visibility shows an occlusion that isn't there."""
    lost: float = 0.08
    """Share of windows with a run of frames without a detected face."""

    def __post_init__(self) -> None:
        check_shares(self, "occluded", "lower_face", "mask_known", "false_alarm", "lost")
        check_not_negative(self, "shortest")
        if self.longest < self.shortest:
            raise AvfaceError(f"longest={self.longest} must be at least shortest={self.shortest}")


@dataclass(frozen=True)
class Simulation:
    """Windows of simulated landmarks, without rendering: performances by random people before random cameras, with the
    errors of the tracker. Rendered clips have some hundred identities, these a new one in each window."""

    simulated_share: float = 0.65
    """Share of the windows that are simulated."""
    hours: float = 2.0
    """Total length of the performances, which are made once."""
    seconds: float = 8.0
    """Length of one performance."""
    bias: float = 1.2
    """Constant part of the tracker's error, in standard deviations of the head's `error_basis`. Measured on rendered
    clips: 2.3 mm per coordinate, where the basis has 1.9."""
    drift: float = 0.85
    """Time-varying part of the tracker's error, in the same unit: 1.6 mm per coordinate on rendered clips."""
    drift_time: float = 0.22
    """Seconds in which its autocorrelation falls to 1 / e: on rendered clips 0.83 after one frame, 0.48 after four,
    0.28 after eight."""

    def __post_init__(self) -> None:
        check_shares(self, "simulated_share")
        check_positive(self, "hours", "seconds")
        check_not_negative(self, "bias", "drift", "drift_time")


@dataclass(frozen=True)
class Supervision:
    """Weights of the losses against the truth of synthetic clips."""

    vertices: float = 300.0
    """Distance of the vertices due to the expression, in metres; lips weigh five times as much as the face."""
    units: float = 8.0
    """Squared error of expression units: its minimum is the mean, as a prior of a least-squares fit needs."""
    velocity: float = 0.01
    """Velocity of the units, per second."""
    shape: float = 100.0
    """Distance of the neutral face's vertices, in metres."""
    coefficients: float = 0.02
    """Squared error of shape weights."""
    rotation: float = 5.0
    """Angle of the rotation error, radians."""
    camera: float = 5.0
    """Absolute error of `CoarseCode.camera`."""
    points: float = 15.0
    """Distance of projected landmarks, crop units."""
    likelihood: float = 0.1
    """Negative log-likelihood of the errors of units, landmarks, rotation, camera and shape under the predicted
    variances. Errors are detached: the predictions don't depend on their variances."""

    def __post_init__(self) -> None:
        check_not_negative(self, *(entry.name for entry in fields(self)))


@dataclass(frozen=True)
class SelfSupervision:
    """Weights of the paper's losses, without ground truth (AVFace 3.1; values of DECA and EMOCA, see the losses)."""

    landmarks: float = 1.0
    """The 68 landmarks."""
    eye_closure: float = 0.5
    """Distances of the eyelids."""
    mouth_closure: float = 0.5
    """Distances of the inner lips."""
    lip_corners: float = 0.5
    """Width of the mouth."""
    photometric: float = 2.0
    """Colour of the rendered skin; 0: no rendering, as in DECA's first stage."""
    render_size: int = 112
    """Width and height of the rendered image in pixels; half the crop's takes a quarter of the time."""
    coefficients: float = 3e-3
    """Half squares of shape and expression weights, see `coefficient_loss`: 1e-4 in DECA, summed over a batch of 32."""
    albedo: float = 3e-3
    """Half squares of albedo weights."""
    light: float = 1.0
    """Distance of the light from white."""

    def __post_init__(self) -> None:
        check_not_negative(self, *(entry.name for entry in fields(self)))
        check_positive(self, "render_size")


Losses = Supervision | SelfSupervision


@dataclass(frozen=True)
class Recipe:
    """How the coarse networks are trained. Saved in every checkpoint and with the weights."""

    name: str
    """Name of the recipe."""
    network: tyro.conf.Suppress[NetworkConfig]
    """The networks."""
    losses: tyro.conf.AvoidSubcommands[Annotated[Losses, tyro.conf.arg(name="")]]
    """Weights of the losses."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Random changes of the windows."""
    occlusion: OcclusionAugmentation = field(default_factory=OcclusionAugmentation)
    """Occluded regions; for recipes on landmarks."""
    simulation: Simulation = field(default_factory=Simulation)
    """Simulated landmarks; for recipes on landmarks."""
    seed: int = 0
    """Seed of initial weights, batches and everything else random."""
    steps: int = 20_000
    """Steps of the optimiser."""
    batch: int = 32
    """Windows per step, in each process."""
    learning_rate: float = 1e-3
    """Highest learning rate."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Whether the rate falls to zero as a cosine over the run. The paper names one rate."""
    warm_up: int = 200
    """Steps until the highest rate."""
    optimiser: Literal["adam", "adamw"] = "adamw"
    """Adam adds weight decay to the gradient, AdamW decays the weights."""
    weight_decay: float = 0.01
    """Weight decay of the optimiser."""
    gradient_norm: float = 1.0
    """Gradients are clipped to this norm."""
    averaging: float = 0.999
    """Decay of the exponential moving average of the weights, which is what is saved."""

    def __post_init__(self) -> None:
        check_positive(self, "steps", "batch", "learning_rate", "gradient_norm")
        check_not_negative(self, "seed", "warm_up", "weight_decay")
        check_averaging(self)

    @property
    def uses_images(self) -> bool:
        """Whether the networks take images."""
        return any(
            isinstance(branch.video, ResNetConfig)
            for branch in (self.network.coarse, self.network.expression)
        )

    @property
    def supervised(self) -> bool:
        """Whether the losses need ground truth."""
        return isinstance(self.losses, Supervision)

    def plain(self) -> dict[str, Any]:
        """As JSON can store it."""
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
            "occlusion": OcclusionAugmentation,
            "simulation": Simulation,
        }
        made = {name: kind(**values.pop(name)) for name, kind in kinds.items()}
        network = config_from_plain(NetworkConfig, values.pop("network"))
        return Recipe(network=network, **made, **values)


def default() -> Recipe:
    """The recipe of the shipped weights: open head, tracked points with visibility, synthetic clips and simulated
    landmarks.

    Sound and picture are dropped in a quarter of the windows each, less than in the paper: many of the rest have an
    occluded mouth with sound, which trains the same.
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
    """Open head and ResNet-50 on crops of synthetic clips."""
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
        simulation=Simulation(simulated_share=0.0),
        batch=4,
        learning_rate=1e-4,
        steps=100_000,
    )


def paper() -> Recipe:
    """That of AVFace (sections 3.1, 3.5, 4.1): FLAME, ResNet-50, Adam at 1e-4 with weight decay 5e-4, windows of 16.

    The paper names neither batch nor steps.
    """
    network = NetworkConfig("flame2020", FLAME_CODE)
    unchanged = Augmentation(0.0, 0.0, 0.0, 0.0, 0.0, 0, 0.0, 0.0)
    return Recipe(
        "paper",
        network,
        SelfSupervision(),
        augmentation=unchanged,
        simulation=Simulation(simulated_share=0.0),
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
    """Fine-tuning of the weights of `base` at a lower rate, with an occluded region in most windows (AVFace 3.4)."""
    return replace(
        base,
        name=f"{base.name}+occlusion",
        occlusion=replace(base.occlusion, occluded=0.75, lower_face=0.75, lost=0.12),
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
