"""Batches for training on landmarks: windows of tracked takes and of simulated landmarks, augmented and occluded.

A batch is a function of seed, step and process alone: a resumed run gets the batches of an uninterrupted one, whatever
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
from avface.training.coarse.recipes import Augmentation, OcclusionAugmentation, Recipe, Simulation
from avface.training.coarse.tracked_takes import Performances, TrackedTakes

MARGIN = 1.6
"""Side of a crop over the size of the face, as in `avface.data`."""
FRAME_RATE = 25.0
"""Frames per second of prepared datasets and simulated landmarks."""
ERROR_TIME = 0.35
"""Correlation time in seconds of the error of the tracked points of an occluded region."""
LOWER, MIDDLE, UPPER = ("lips", "jaw"), ("nose", "cheeks"), ("eyes", "brows")


class Batch:
    """The input of the networks for B windows, and the ground truth.

    Shapes: shape (B, S), expression (B, T, E), rotation (B, T, 3, 3), translation (B, T, 3), points (B, T, 478, 2)
            true landmarks in crop units; face (B, T, N, N) bool, pixels of visible skin, with images only.
    The truth is None for footage without any. Not a dataclass: Fabric would take it apart.
    """

    TENSORS = ("shape", "expression", "rotation", "translation", "points", "face")
    """Names of the tensors beside the frames."""

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
    """Windows before tracking is simulated and occluded. All (B, T, ...), but shape (B, S)."""

    shape: Tensor
    expression: Tensor
    occluded_expression: Tensor
    """(B, T, E) expression that the tracked points show where the face is occluded."""
    joints: Tensor
    rotation: Tensor
    translation: Tensor
    focal: Tensor
    centre: Tensor
    tracked: Tensor | None
    """Pixels; None for simulated landmarks."""
    confidence: Tensor
    visible: Tensor
    """(B, T, 478) bool: points that aren't occluded."""
    box: Tensor | None
    """None for simulated landmarks."""
    speech: Tensor


class LandmarkBatches(Dataset[Batch]):
    """Batches of a recipe by the number of the step.

    `performances` and `takes` must have the expression units of `head`.
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
        drawn = torch.rand(self.recipe.batch, generator=random) < self.recipe.simulation.simulated_share
        simulated = int(drawn.sum())
        if self.performances is None:
            simulated = 0
        elif self.takes is None:
            simulated = self.recipe.batch
        parts = []
        if simulated:
            parts.append(self._observed(self._augmented(self._simulated(simulated, random), random), random))
        if simulated < self.recipe.batch:
            rest = self.recipe.batch - simulated
            parts.append(self._observed(self._augmented(self._tracked(rest, random), random), random))
        return joined(parts)

    def _sample_windows(
        self, first: Tensor, count: Tensor, windows: int, random: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Numbers of takes (B,) drawn by their length, the rows (B, T) of a window in each, and an earlier row (B,)."""
        starts = (count - self.window + 1).clamp_min(1)
        number = torch.multinomial(starts.float(), windows, replacement=True, generator=random)
        offset = (torch.rand(windows, generator=random) * starts[number]).long()
        rows = first[number, None] + offset[:, None] + torch.arange(self.window)
        earlier = (torch.rand(windows, generator=random) * 40).long()
        return number, rows, first[number] + (offset - earlier).clamp_min(0)

    def _speech(
        self, speech: Tensor, first: Tensor, count: Tensor, rows: Tensor, random: torch.Generator
    ) -> Tensor:
        """Speech features (B, T, 16, D) of rows, with offset, noise and gaps."""
        choice = self.recipe.augmentation
        offset = torch.randint(
            -choice.speech_shift, choice.speech_shift + 1, (len(rows), 1), generator=random
        )
        shifted = (rows + offset).clamp_min(first[:, None])
        shifted = torch.minimum(shifted, (first + count - 1)[:, None])
        return augmented_speech(speech[shifted].float(), choice, random)

    def _occluded(self, expression: Tensor, earlier: Tensor, random: torch.Generator) -> Tensor:
        """(B, T, E) expression of tracked points under occlusion: neutral, an `earlier` one (B, E), or the true one."""
        kind = torch.rand(len(expression), 1, 1, generator=random)
        return torch.where(kind < 0.4, 0.0, torch.where(kind < 0.7, earlier[:, None], expression))

    def _simulated(self, count: int, random: torch.Generator) -> _Windows:
        """Windows of random people before random cameras."""
        assert self.performances is not None
        made = self.performances
        number, rows, earlier = self._sample_windows(made.first, made.count, count, random)
        sigma = 0.5 + 0.6 * torch.rand(count, 1, generator=random)
        shape = (sigma * torch.randn(count, len(self.points.shape), generator=random)).clamp(-3, 3)
        rotation, translation, focal, centre = self._random_cameras(made.turn[rows], made.shift[rows], random)
        expression = made.expression[rows]
        return _Windows(
            shape=shape,
            expression=expression,
            occluded_expression=self._occluded(expression, made.expression[earlier], random),
            joints=made.joints[rows],
            rotation=rotation,
            translation=translation,
            focal=focal,
            centre=centre,
            tracked=None,
            confidence=1 - 0.01 * torch.rand(count, self.window, generator=random),
            visible=torch.ones(count, self.window, len(self.points.rest), dtype=torch.bool),
            box=None,
            speech=self._speech(made.speech, made.first[number], made.count[number], rows, random),
        )

    def _random_cameras(
        self, turn: Tensor, shift: Tensor, random: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rotation, translation, focal length and principal point (B, T, ...): from a phone at arm's length to a
        portrait lens, as in `avface.synthetic.rendering.scene`, with the face further off the axis of wide lenses."""
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
        number, rows, earlier = self._sample_windows(takes.first, takes.count, count, random)
        expression = takes.expression[rows]
        return _Windows(
            shape=takes.shape[number],
            expression=expression,
            occluded_expression=self._occluded(expression, takes.expression[earlier], random),
            joints=takes.joints[rows],
            rotation=takes.rotation[rows],
            translation=takes.translation[rows],
            focal=takes.focal[number, None].expand(-1, self.window),
            centre=takes.centre[number, None].expand(-1, self.window, -1),
            tracked=takes.tracked[rows],
            confidence=takes.confidence[rows],
            visible=takes.visible[rows],
            box=takes.box[rows],
            speech=self._speech(takes.speech, takes.first[number], takes.count[number], rows, random),
        )

    def _augmented(self, windows: _Windows, random: torch.Generator) -> _Windows:
        """Some windows mirrored, and all rotated about the camera's axis."""
        choice, count = self.recipe.augmentation, len(windows.shape)
        mirrored = torch.rand(count, generator=random) < choice.mirror
        angle = choice.roll * torch.randn(count, 1, generator=random)
        turn = euler_to_rotmat("Z", angle)[:, None]
        flip = torch.where(mirrored[:, None], torch.tensor([-1.0, 1.0, 1.0]), torch.ones(3))
        flat = turn[..., :2, :2].transpose(-1, -2)
        one = mirrored[:, None, None]

        def swapped(values: Tensor, partner: Tensor) -> Tensor:
            return torch.where(one, values[..., partner], values)

        def transformed(pixels: Tensor, centre: Tensor) -> Tensor:
            return ((pixels - centre) * flip[:, None, None, :2]) @ flat + centre

        joints = windows.joints[..., self._other_joints, :] * torch.tensor([1.0, -1.0, -1.0])
        tracked, box = windows.tracked, windows.box
        if tracked is not None and box is not None:
            middle = windows.centre[..., None, :]
            points = torch.where(one[..., None], tracked[..., self._other_points, :], tracked)
            tracked = transformed(points, middle)
            box = torch.cat([transformed(box[..., None, :2], middle)[..., 0, :], box[..., 2:]], -1)
        return replace(
            windows,
            shape=torch.where(mirrored[:, None], windows.shape @ self._mirrored_shape.T, windows.shape),
            expression=swapped(windows.expression, self._other_units),
            occluded_expression=swapped(windows.occluded_expression, self._other_units),
            joints=torch.where(one[..., None], joints, windows.joints),
            rotation=turn @ (windows.rotation * (flip[:, :, None] * flip[:, None, :])[:, None]),
            translation=((windows.translation * flip[:, None])[..., None, :] @ turn.transpose(-1, -2))[
                ..., 0, :
            ],
            tracked=tracked,
            visible=swapped(windows.visible, self._other_points),
            box=box,
        )

    def _observed(self, windows: _Windows, random: torch.Generator) -> Batch:
        """The windows as tracker and microphone observe them, with the ground truth."""
        choice, occlusion = self.recipe.augmentation, self.recipe.occlusion
        count = len(windows.shape)
        exact = self.points(windows.shape, windows.expression, windows.joints)

        def pixels(points: Tensor) -> Tensor:
            return project(points, windows.rotation, windows.translation, windows.focal, windows.centre)

        true = pixels(exact)
        move, person = self.points.displacements, windows.shape[..., None, :]
        change = move(windows.occluded_expression, person) - move(windows.expression, person)
        occluded = pixels(exact + change)
        if windows.tracked is None:
            tracked = pixels(
                exact + _tracker_errors(self.points, self.recipe.simulation, count, self.window, random)
            )
            box = _simulated_boxes(tracked)
        else:
            assert windows.box is not None
            tracked, box = windows.tracked, windows.box
        occluded = occluded + (tracked - true)
        shift = choice.crop_shift * torch.randn(count, 1, 2, generator=random) * box[..., 2:] / 2
        scale = (choice.crop_scale * torch.randn(count, 1, 1, generator=random)).exp()
        crop = FaceCrop(
            torch.cat([box[..., :2] + shift, box[..., 2:] * scale], -1), windows.focal, windows.centre
        )
        tracked = crop.normalise(tracked)
        tracked = tracked + choice.jitter * torch.randn(tracked.shape, generator=random)
        known = torch.rand(count, 1, 1, generator=random) < occlusion.mask_known
        visibility = (windows.visible | ~known).float()
        tracked, visibility, confidence = occlude(
            tracked,
            crop.normalise(occluded),
            visibility,
            windows.confidence,
            occlusion,
            self.points.rest[:, 0],
            random,
        )
        lost = _runs(count, self.window, occlusion.lost, 2, 2 * self.window, random)
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


def augmented_speech(speech: Tensor, choice: Augmentation, random: torch.Generator) -> Tensor:
    """Speech features (B, T, 16, D) with noise; in some windows, those of a run of frames are zero."""
    values = speech + choice.speech_noise * torch.randn(speech.shape, generator=random)
    count, frames = speech.shape[:2]
    gaps = _runs(count, frames, choice.speech_gaps, 2, 8, random)
    return torch.where(gaps[..., None, None], 0.0, values)


def occlude(
    tracked: Tensor,
    occluded: Tensor,
    visibility: Tensor,
    confidence: Tensor,
    augmentation: OcclusionAugmentation,
    sideways: Tensor,
    random: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Occlude a region of the face for a run of frames; returns points, visibility and confidence.

    tracked (B, T, L, 2) in crop units, and occluded (B, T, L, 2) what replaces them, see `with_occlusion_errors`;
    visibility (B, T, L), confidence (B, T); sideways (L,) x of a point on the head, above 0 on the left.
    """
    count, frames, _ = visibility.shape
    run = _runs(
        count,
        frames,
        augmentation.occluded,
        round(augmentation.shortest * FRAME_RATE),
        round(augmentation.longest * FRAME_RATE),
        random,
    )
    region = _occluded_points(count, augmentation.lower_face, sideways, random)
    covered = run[..., None] & region[:, None]
    tracked = with_occlusion_errors(tracked, occluded, covered, random)
    known = torch.rand(count, 1, 1, generator=random) < augmentation.mask_known
    low = 0.3 * torch.rand(count, 1, 1, generator=random)
    visibility = torch.where(covered & known, torch.minimum(visibility, low), visibility)
    alarm = _runs(count, frames, augmentation.false_alarm, 3, 2 * frames, random)
    other = _occluded_points(count, augmentation.lower_face, sideways, random)
    visibility = torch.where(alarm[..., None] & other[:, None], torch.minimum(visibility, low), visibility)
    doubt = torch.rand(count, 1, generator=random) < 0.5
    worse = confidence * (0.4 + 0.6 * torch.rand(count, 1, generator=random))
    return tracked, visibility, torch.where(run & doubt, worse, confidence)


def with_occlusion_errors(
    tracked: Tensor, occluded: Tensor, covered: Tensor, random: torch.Generator
) -> Tensor:
    """Points (B, T, L, 2): `tracked`, but those `covered` (B, T, L) with the errors of a tracker under occlusion.

    These are the `occluded` points with a smooth random motion of the whole region, small or large, or with independent
    noise, drawn for each window.
    """
    count, frames, _ = covered.shape
    kind = torch.rand(count, 1, 1, 1, generator=random)
    loose = torch.where(kind < 0.55, 0.04, torch.where(kind < 0.85, 0.15, 0.06))
    shift = loose * smooth_noise((count, 2), frames, ERROR_TIME * FRAME_RATE, random)[:, :, None]
    scale = 1.5 * loose * smooth_noise((count, 2), frames, ERROR_TIME * FRAME_RATE, random)[:, :, None]
    inside = covered.any(1)[:, None, :, None].float()
    middle = (occluded * inside).sum(2, keepdim=True) / inside.sum(2, keepdim=True).clamp_min(1)
    wrong = middle + (occluded - middle) * (1 + scale) + shift
    noise = torch.randn(tracked.shape, generator=random)
    wrong = wrong + torch.where(kind < 0.85, 0.004, 0.07) * noise
    return torch.where(covered[..., None], wrong, tracked)


def _occluded_points(count: int, lower_face: float, sideways: Tensor, random: torch.Generator) -> Tensor:
    """(B, L) bool: mouth and jaw, sometimes with nose and cheeks; else one side, the eyes, one region, or the face."""
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
    """(B, T) bool: in a share of the rows a run of True with a length from shortest to longest, which overlaps the row
    by at least one frame."""
    chosen = torch.rand(count, 1, generator=random) < share
    length = shortest + (torch.rand(count, 1, generator=random) * (longest - shortest + 1)).long()
    start = ((torch.rand(count, 1, generator=random) * (frames + length - 1)).long()) - length + 1
    frame = torch.arange(frames)
    return chosen & (frame >= start) & (frame < start + length)


def smooth_noise(size: tuple[int, ...], frames: int, correlation: float, random: torch.Generator) -> Tensor:
    """Ornstein-Uhlenbeck process (size[0], T, *size[1:]) of variance 1, with an autocorrelation of 1 / e after
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
    points: FacePoints, simulation: Simulation, count: int, frames: int, random: torch.Generator
) -> Tensor:
    """Errors (B, T, L, 3) in metres in the head's frame: a constant part for the window and a drift."""
    basis = points.error.flatten(1)
    bias = simulation.bias * torch.randn(count, 1, len(basis), generator=random)
    drift = simulation.drift * smooth_noise(
        (count, len(basis)), frames, simulation.drift_time * FRAME_RATE, random
    )
    return ((bias + drift) @ basis).unflatten(-1, (-1, 3))


def _simulated_boxes(tracked: Tensor) -> Tensor:
    """Crops (B, T, 3) around points (B, T, 478, 2): one size per window, smooth centre."""
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
    """One seed of several numbers."""
    import numpy as np

    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def joined(parts: list[Batch]) -> Batch:
    """One batch of the windows of several."""

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
