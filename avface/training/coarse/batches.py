"""Batches for training on landmarks: windows of tracked takes and sketches, changed and hidden at random.

A batch depends on seed, step and process alone: a run that goes on sees what one that was never stopped sees, whatever
the number of workers.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from avface.geometry.axes import flip_axes, flip_rotation
from avface.geometry.rotations import euler_to_rotmat
from avface.head.model import HeadModel
from avface.head.schemes import ibug68_from_mediapipe
from avface.networks.frames import FaceCrop, Frames
from avface.networks.regions import LANDMARK_REGIONS, REGIONS
from avface.training.coarse.face_points import (
    FacePoints,
    mirrored_shape,
    mirrored_units,
    project,
)
from avface.training.coarse.recipes import Augmentation, Hiding, Recipe, Sketching
from avface.training.coarse.tracked_takes import Performances, TrackedTakes

MARGIN = 1.6
"""Side of a crop over the face's size, as `avface.data` lays it."""
FRAME_RATE = 25.0
"""Frames a second of prepared datasets and sketches."""
WANDERING = 0.35
"""Seconds in which the made-up points of a hidden region go elsewhere."""
LOWER, MIDDLE, UPPER = ("lips", "jaw"), ("nose", "cheeks"), ("eyes", "brows")


class Batch:
    """What networks see of B windows, and the truth about them.

    Shapes: shape (B, S), expression (B, T, E), rotation (B, T, 3, 3), translation (B, T, 3), points (B, T, 478, 2)
            true landmarks in crop units; face (B, T, N, N) bool, pixels of skin that are seen, with pictures only.
    All truth is None for footage without any. It isn't a dataclass, which Fabric would take apart.
    """

    TENSORS = ("shape", "expression", "rotation", "translation", "points", "face")
    """What there is beside the frames."""

    def __init__(
        self,
        frames: Frames,
        shape: Tensor | None = None,
        expression: Tensor | None = None,
        rotation: Tensor | None = None,
        translation: Tensor | None = None,
        points: Tensor | None = None,
        face: Tensor | None = None,
    ) -> None:
        self.frames = frames
        self.shape, self.expression = shape, expression
        self.rotation, self.translation = rotation, translation
        self.points, self.face = points, face

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""
        values = (getattr(self, name) for name in self.TENSORS)
        return Batch(
            self.frames.to(device), *(None if value is None else value.to(device) for value in values)
        )


@dataclass(frozen=True, eq=False)
class _Windows:
    """Windows on their way to a batch, as they were filmed. Everything (B, T, ...) but shape (B, S)."""

    shape: Tensor
    expression: Tensor
    made_up: Tensor
    """(B, T, E) what the tracker would believe of a face that it doesn't see."""
    joints: Tensor
    rotation: Tensor
    translation: Tensor
    focal: Tensor
    centre: Tensor
    tracked: Tensor | None
    """Pixels; None where the tracker has yet to be drawn."""
    confidence: Tensor
    hidden: Tensor
    box: Tensor | None
    """None where the crop is yet to be laid around the tracked points."""
    speech: Tensor


class LandmarkBatches(Dataset[Batch]):
    """Batches of a recipe by the number of the step.

    The expression that `performances` and `takes` are about must be of `head`.
    """

    def __init__(
        self,
        recipe: Recipe,
        head: HeadModel,
        takes: TrackedTakes | None,
        performances: Performances | None,
        *,
        steps: int,
        rank: int = 0,
    ) -> None:
        if takes is None and performances is None:
            raise ValueError("batches need takes or performances")
        self.recipe, self.takes, self.performances, self.steps, self.rank = (
            recipe,
            takes,
            performances,
            steps,
            rank,
        )
        self.window = recipe.network.window
        self.points = FacePoints.of(head)
        self._other_points = self.points.mirrored_points()
        self._other_units = mirrored_units(head.expression_names)
        self._mirrored_shape = mirrored_shape(head)
        self._other_joints = mirrored_units(head.joint_names)
        self._neck = (
            self.points.pivots[head.joint_names.index("neck")]
            if "neck" in head.joint_names
            else torch.zeros(3)
        )

    def __len__(self) -> int:
        """Number of steps."""
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step."""
        random = torch.Generator().manual_seed(mixed_seed(self.recipe.seed, step, self.rank))
        drawn = torch.rand(self.recipe.batch, generator=random) < self.recipe.sketching.sketched
        sketched = int(drawn.sum())
        if self.performances is None:
            sketched = 0
        elif self.takes is None:
            sketched = self.recipe.batch
        parts = []
        if sketched:
            parts.append(self._seen(self._turned(self._sketched(sketched, random), random), random))
        if sketched < self.recipe.batch:
            rest = self.recipe.batch - sketched
            parts.append(self._seen(self._turned(self._tracked(rest, random), random), random))
        return joined(parts)

    def _chosen(
        self, first: Tensor, count: Tensor, windows: int, random: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Numbers of takes (B,) drawn by their length, the rows (B, T) of a window in each, and a row (B,) before."""
        starts = (count - self.window + 1).clamp_min(1)
        number = torch.multinomial(starts.float(), windows, replacement=True, generator=random)
        offset = (torch.rand(windows, generator=random) * starts[number]).long()
        rows = first[number, None] + offset[:, None] + torch.arange(self.window)
        earlier = (torch.rand(windows, generator=random) * 40).long()
        return number, rows, first[number] + (offset - earlier).clamp_min(0)

    def _speech(
        self, speech: Tensor, first: Tensor, count: Tensor, rows: Tensor, random: torch.Generator
    ) -> Tensor:
        """Speech features (B, T, 16, D) of rows, early or late, with noise and gaps."""
        choice = self.recipe.augmentation
        late = torch.randint(-choice.speech_shift, choice.speech_shift + 1, (len(rows), 1), generator=random)
        shifted = (rows + late).clamp_min(first[:, None])
        shifted = torch.minimum(shifted, (first + count - 1)[:, None])
        return silenced(speech[shifted].float(), choice, random)

    def _made_up(self, expression: Tensor, earlier: Tensor, random: torch.Generator) -> Tensor:
        """(B, T, E) a tracker's guess at hidden expressions: rest, what was `earlier` (B, E), or the true one."""
        kind = torch.rand(len(expression), 1, 1, generator=random)
        return torch.where(kind < 0.4, 0.0, torch.where(kind < 0.7, earlier[:, None], expression))

    def _sketched(self, count: int, random: torch.Generator) -> _Windows:
        """Windows of random people before random cameras."""
        assert self.performances is not None
        told = self.performances
        number, rows, earlier = self._chosen(told.first, told.count, count, random)
        sigma = 0.5 + 0.6 * torch.rand(count, 1, generator=random)
        shape = (sigma * torch.randn(count, len(self.points.shape), generator=random)).clamp(-3, 3)
        rotation, translation, focal, centre = self._before_camera(told.turn[rows], told.shift[rows], random)
        expression = told.expression[rows]
        return _Windows(
            shape=shape,
            expression=expression,
            made_up=self._made_up(expression, told.expression[earlier], random),
            joints=told.joints[rows],
            rotation=rotation,
            translation=translation,
            focal=focal,
            centre=centre,
            tracked=None,
            confidence=1 - 0.01 * torch.rand(count, self.window, generator=random),
            hidden=torch.zeros(count, self.window, len(self.points.rest), dtype=torch.bool),
            box=None,
            speech=self._speech(told.speech, told.first[number], told.count[number], rows, random),
        )

    def _before_camera(
        self, turn: Tensor, shift: Tensor, random: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rotation, translation, focal length and principal point (B, T, ...): from a phone at arm's length to a
        portrait lens, as in `avface.synthetic.rendering.scene`, and the face further off the middle of wider pictures."""
        count, frames = turn.shape[:2]

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(count, generator=random)

        def normal(*size: int) -> Tensor:
            return torch.randn(count, *size, generator=random)

        focal = 512 * (uniform(3.1, 4.7).exp() / 36)
        share = uniform(0.3, 0.8)
        distance = (focal * 0.24 / (share * 512)).clamp_min(0.3)
        off = 0.08 * normal(2).clamp(-2.5, 2.5) * (512 / focal * distance)[:, None]
        rest = torch.cat([off, distance[:, None]], -1)
        posed = turn + (normal(3) * torch.tensor([0.1, 0.2, 0.04]))[:, None]
        rotation = flip_rotation(euler_to_rotmat("YXZ", posed[..., [1, 0, 2]]))
        pivot = self._neck
        translation = (rest[:, None] + shift + flip_axes(pivot)) - rotation @ pivot
        focal = focal[:, None].expand(-1, frames)
        return rotation, translation, focal, torch.full((count, frames, 2), 255.5)

    def _tracked(self, count: int, random: torch.Generator) -> _Windows:
        """Windows of takes that were rendered and tracked."""
        assert self.takes is not None
        takes = self.takes
        number, rows, earlier = self._chosen(takes.first, takes.count, count, random)
        expression = takes.expression[rows]
        return _Windows(
            shape=takes.shape[number],
            expression=expression,
            made_up=self._made_up(expression, takes.expression[earlier], random),
            joints=takes.joints[rows],
            rotation=takes.rotation[rows],
            translation=takes.translation[rows],
            focal=takes.focal[number, None].expand(-1, self.window),
            centre=takes.centre[number, None].expand(-1, self.window, -1),
            tracked=takes.tracked[rows],
            confidence=takes.confidence[rows],
            hidden=takes.hidden[rows],
            box=takes.box[rows],
            speech=self._speech(takes.speech, takes.first[number], takes.count[number], rows, random),
        )

    def _turned(self, windows: _Windows, random: torch.Generator) -> _Windows:
        """Some windows mirrored, and all turned about the camera's axis."""
        choice, count = self.recipe.augmentation, len(windows.shape)
        mirrored = torch.rand(count, generator=random) < choice.mirror
        angle = choice.roll * torch.randn(count, 1, generator=random)
        turn = euler_to_rotmat("Z", angle)[:, None]
        flip = torch.where(mirrored[:, None], torch.tensor([-1.0, 1.0, 1.0]), torch.ones(3))
        flat = turn[..., :2, :2].transpose(-1, -2)
        one = mirrored[:, None, None]

        def swapped(values: Tensor, partner: Tensor) -> Tensor:
            return torch.where(one, values[..., partner], values)

        def moved(pixels: Tensor, centre: Tensor) -> Tensor:
            return ((pixels - centre) * flip[:, None, None, :2]) @ flat + centre

        joints = windows.joints[..., self._other_joints, :] * torch.tensor([1.0, -1.0, -1.0])
        tracked, box = windows.tracked, windows.box
        if tracked is not None and box is not None:
            middle = windows.centre[..., None, :]
            points = torch.where(one[..., None], tracked[..., self._other_points, :], tracked)
            tracked = moved(points, middle)
            box = torch.cat([moved(box[..., None, :2], middle)[..., 0, :], box[..., 2:]], -1)
        return replace(
            windows,
            shape=torch.where(mirrored[:, None], windows.shape @ self._mirrored_shape.T, windows.shape),
            expression=swapped(windows.expression, self._other_units),
            made_up=swapped(windows.made_up, self._other_units),
            joints=torch.where(one[..., None], joints, windows.joints),
            rotation=turn @ (windows.rotation * (flip[:, :, None] * flip[:, None, :])[:, None]),
            translation=((windows.translation * flip[:, None])[..., None, :] @ turn.transpose(-1, -2))[
                ..., 0, :
            ],
            tracked=tracked,
            hidden=swapped(windows.hidden, self._other_points),
            box=box,
        )

    def _seen(self, windows: _Windows, random: torch.Generator) -> Batch:
        """What the tracker and the microphone give of the windows, with the truth beside it."""
        choice, hiding, sketching = self.recipe.augmentation, self.recipe.hiding, self.recipe.sketching
        count = len(windows.shape)
        exact = self.points(windows.shape, windows.expression, windows.joints)

        def pixels(points: Tensor) -> Tensor:
            return project(points, windows.rotation, windows.translation, windows.focal, windows.centre)

        true = pixels(exact)
        guessed = pixels(exact + self.points.moved_by(windows.made_up - windows.expression))
        if windows.tracked is None:
            tracked = pixels(exact + _tracker_errors(self.points, sketching, count, self.window, random))
            box = _sketched_boxes(tracked)
        else:
            assert windows.box is not None
            tracked, box = windows.tracked, windows.box
        guessed = guessed + (tracked - true)
        shift = choice.crop_shift * torch.randn(count, 1, 2, generator=random) * box[..., 2:] / 2
        scale = (choice.crop_scale * torch.randn(count, 1, 1, generator=random)).exp()
        crop = FaceCrop(
            torch.cat([box[..., :2] + shift, box[..., 2:] * scale], -1), windows.focal, windows.centre
        )
        tracked = crop.normalise(tracked)
        tracked = tracked + choice.jitter * torch.randn(tracked.shape, generator=random)
        told = torch.rand(count, 1, 1, generator=random) < hiding.told
        visibility = 1 - (windows.hidden & told).float()
        tracked, visibility, confidence = hide(
            tracked,
            crop.normalise(guessed),
            visibility,
            windows.confidence,
            hiding,
            self.points.rest[:, 0],
            random,
        )
        lost = _runs(count, self.window, hiding.lost, 2, 2 * self.window, random)
        seen = (windows.confidence > 0) & ~lost
        frames = Frames(
            crop,
            seen,
            torch.ones_like(seen),
            torch.where(seen[..., None, None], tracked, 0.0),
            torch.where(seen, confidence, 0.0),
            visibility,
            speech=windows.speech,
        )
        return Batch(
            frames,
            windows.shape,
            windows.expression,
            windows.rotation,
            windows.translation,
            crop.normalise(true),
        )


def silenced(speech: Tensor, choice: Augmentation, random: torch.Generator) -> Tensor:
    """Speech features (B, T, 16, D) with noise, and in some windows a blank stretch."""
    values = speech + choice.speech_noise * torch.randn(speech.shape, generator=random)
    count, frames = speech.shape[:2]
    gaps = _runs(count, frames, choice.speech_gaps, 2, 8, random)
    return torch.where(gaps[..., None, None], 0.0, values)


def hide(
    tracked: Tensor,
    guessed: Tensor,
    visibility: Tensor,
    confidence: Tensor,
    hiding: Hiding,
    sideways: Tensor,
    random: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Put made-up points where something hides a region of the face for a run of frames.

    Returns points, visibility and confidence.

    tracked and guessed (B, T, L, 2) in crop units, visibility (B, T, L), confidence (B, T); sideways (L,) where on the
    head a point is, above 0 on the left.
    """
    count, frames, _ = visibility.shape
    run = _runs(
        count,
        frames,
        hiding.hidden,
        round(hiding.shortest * FRAME_RATE),
        round(hiding.longest * FRAME_RATE),
        random,
    )
    region = _hidden_points(count, hiding.lower_face, sideways, random)
    covered = run[..., None] & region[:, None]
    tracked = make_up(tracked, guessed, covered, random)
    told = torch.rand(count, 1, 1, generator=random) < hiding.told
    low = 0.3 * torch.rand(count, 1, 1, generator=random)
    visibility = torch.where(covered & told, torch.minimum(visibility, low), visibility)
    alarm = _runs(count, frames, hiding.false_alarm, 3, 2 * frames, random)
    other = _hidden_points(count, hiding.lower_face, sideways, random)
    visibility = torch.where(alarm[..., None] & other[:, None], torch.minimum(visibility, low), visibility)
    doubt = torch.rand(count, 1, generator=random) < 0.5
    worse = confidence * (0.4 + 0.6 * torch.rand(count, 1, generator=random))
    return tracked, visibility, torch.where(run & doubt, worse, confidence)


def make_up(tracked: Tensor, guessed: Tensor, covered: Tensor, random: torch.Generator) -> Tensor:
    """Points (B, T, L, 2) as tracked, but where covered (B, T, L) what a tracker would make up.

    That is the `guessed` points with an error that wanders and carries the region along, small or large, or noise;
    which of them is drawn for each window.
    """
    count, frames, _ = covered.shape
    kind = torch.rand(count, 1, 1, 1, generator=random)
    loose = torch.where(kind < 0.55, 0.04, torch.where(kind < 0.85, 0.15, 0.06))
    wandering = loose * smooth_noise((count, 2), frames, WANDERING * FRAME_RATE, random)[:, :, None]
    stretching = 1.5 * loose * smooth_noise((count, 2), frames, WANDERING * FRAME_RATE, random)[:, :, None]
    inside = covered.any(1)[:, None, :, None].float()
    middle = (guessed * inside).sum(2, keepdim=True) / inside.sum(2, keepdim=True).clamp_min(1)
    made_up = middle + (guessed - middle) * (1 + stretching) + wandering
    noise = torch.randn(tracked.shape, generator=random)
    made_up = made_up + torch.where(kind < 0.85, 0.004, 0.07) * noise
    return torch.where(covered[..., None], made_up, tracked)


def _hidden_points(count: int, lower_face: float, sideways: Tensor, random: torch.Generator) -> Tensor:
    """(B, L) bool: mouth and jaw, sometimes with what is above; else one half, the eyes, one region, or everything."""
    regions = LANDMARK_REGIONS
    masks = {name: regions == number for number, name in enumerate(REGIONS)}

    def union(names: tuple[str, ...]) -> Tensor:
        return torch.stack([masks[name] for name in names]).any(0)

    lower = [union(LOWER), masks["lips"], union(LOWER + MIDDLE)]
    others = [sideways > 0.01, sideways < -0.01, union(UPPER), union(MIDDLE), masks["brows"]]
    everything = torch.ones_like(masks["lips"])
    choices = torch.stack([*lower, *others, everything])
    weights = torch.tensor(
        [lower_face * share for share in (0.55, 0.2, 0.25)]
        + [(1 - lower_face) * share for share in (0.2, 0.2, 0.15, 0.15, 0.1, 0.2)]
    )
    return choices[torch.multinomial(weights, count, replacement=True, generator=random)]


def _runs(
    count: int, frames: int, share: float, shortest: int, longest: int, random: torch.Generator
) -> Tensor:
    """(B, T) bool: in a share of the rows a run of True whose length is drawn from shortest to longest and which
    touches the row somewhere."""
    chosen = torch.rand(count, 1, generator=random) < share
    length = shortest + (torch.rand(count, 1, generator=random) * (longest - shortest + 1)).long()
    start = ((torch.rand(count, 1, generator=random) * (frames + length - 1)).long()) - length + 1
    frame = torch.arange(frames)
    return chosen & (frame >= start) & (frame < start + length)


def smooth_noise(size: tuple[int, ...], frames: int, correlation: float, random: torch.Generator) -> Tensor:
    """An Ornstein-Uhlenbeck process (size[0], T, *size[1:]) of variance 1 whose autocorrelation falls to 1 / e in
    `correlation` frames."""
    kept = float(torch.tensor(-1 / max(correlation, 1e-3)).exp())
    fresh = (1 - kept**2) ** 0.5
    value = torch.randn(size, generator=random)
    values = [value]
    for _ in range(frames - 1):
        value = kept * value + fresh * torch.randn(size, generator=random)
        values.append(value)
    return torch.stack(values, 1)


def _tracker_errors(
    points: FacePoints, sketching: Sketching, count: int, frames: int, random: torch.Generator
) -> Tensor:
    """Errors (B, T, L, 3) in metres in the head's frame: one that stays for the window and one that drifts."""
    basis = points.error.flatten(1)
    stays = sketching.bias * torch.randn(count, 1, len(basis), generator=random)
    comes = sketching.drift * smooth_noise(
        (count, len(basis)), frames, sketching.drift_time * FRAME_RATE, random
    )
    return ((stays + comes) @ basis).unflatten(-1, (-1, 3))


def _sketched_boxes(tracked: Tensor) -> Tensor:
    """Crops (B, T, 3) around points (B, T, 478, 2), one size a window and a centre that moves smoothly."""
    ibug = torch.from_numpy(ibug68_from_mediapipe(tracked.flatten(0, 1).numpy())).unflatten(
        0, tracked.shape[:2]
    )
    low, high = ibug.amin(2), ibug.amax(2)
    side = MARGIN * (high - low).mean(-1).median(1).values
    frame = torch.arange(tracked.shape[1], dtype=torch.float32)
    kernel = (-0.5 * ((frame[:, None] - frame) / 5) ** 2).exp()  # 0.2 s at 25 frames a second
    kernel = kernel / kernel.sum(1, keepdim=True)
    centre = kernel @ ((low + high) / 2)
    return torch.cat([centre, side[:, None, None].expand(-1, tracked.shape[1], 1)], -1)


def mixed_seed(*numbers: int) -> int:
    """One seed from several numbers."""
    import numpy as np

    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def joined(parts: list[Batch]) -> Batch:
    """Windows of several batches as one."""

    def cat(values: list[Any]) -> Any:
        return None if values[0] is None else torch.cat(values)

    each = [part.frames for part in parts]
    crop = FaceCrop(
        *(
            cat([getattr(frames.crop, name) for frames in each])
            for name in ("box", "focal_length", "principal_point")
        )
    )
    inner = {
        entry.name: cat([getattr(frames, entry.name) for frames in each])
        for entry in fields(Frames)
        if entry.name != "crop"
    }
    return Batch(
        Frames(crop=crop, **inner),
        *(cat([getattr(part, name) for part in parts]) for name in Batch.TENSORS),
    )
