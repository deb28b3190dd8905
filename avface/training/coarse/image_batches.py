"""Batches for training on images: windows from shards as they come, augmented."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample
from torch.utils.data import DataLoader

from avface.data import Windows
from avface.data.items import Split
from avface.geometry.rotations import rotvec_to_rotmat
from avface.head.model import HeadModel
from avface.networks.frames import FaceCrop, Frames
from avface.training.coarse.batches import Batch, augmented_speech, mixed_seed
from avface.training.coarse.face_points import FacePoints, mirrored_shape, mirrored_units
from avface.training.coarse.recipes import Augmentation, Recipe

TRUTH = ("expression", "rotation", "translation", "landmarks", "shape", "focal_length", "principal_point")
FOCAL = 3.0
"""Focal length in sides of the crop where it is unknown; weak perspective doesn't use it."""


class ImageBatches:
    """Batches of a recipe on images, one after the other.

    A run that resumes with as many workers gets the batches of an uninterrupted one.
    """

    def __init__(
        self,
        recipe: Recipe,
        head: HeadModel,
        shards: Path,
        *,
        workers: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.recipe, self.shards, self.workers = recipe, shards, workers
        self.rank, self.world_size = rank, world_size
        self._mirror = _Mirror(head) if recipe.augmentation.mirror > 0 else None

    def __call__(self, first: int) -> Iterator[Batch]:
        """Batches from a step on.

        Raises:
            AvfaceError: if the folder holds no dataset, or one without the truth that the recipe needs.
        """
        windows = self._windows("train", shuffle=True, endless=True)
        windows.pass_over(
            [
                self.recipe.batch * -(-(first - number) // max(1, self.workers)) if first > number else 0
                for number in range(max(1, self.workers))
            ]
        )
        loader = DataLoader(
            windows,
            batch_size=self.recipe.batch,
            num_workers=self.workers,
            prefetch_factor=2 if self.workers else None,
        )
        for step, held in enumerate(loader, first):
            random = torch.Generator().manual_seed(mixed_seed(self.recipe.seed, step, self.rank))
            yield self._augmented(window_batch(held), random)

    def held_out(self, most: int) -> Iterator[Batch]:
        """At most so many batches of the validation split, without augmentation."""
        windows = self._windows("validation", shuffle=False, endless=False)
        for number, held in enumerate(DataLoader(windows, batch_size=self.recipe.batch)):
            if number == most:
                return
            yield window_batch(held)

    def _windows(self, split: Split, *, shuffle: bool, endless: bool) -> Windows:
        return Windows(
            self.shards,
            split,
            length=self.recipe.network.window,
            shuffle=shuffle,
            endless=endless,
            seed=self.recipe.seed,
            truth=TRUTH if self.recipe.supervised else (),
            rank=self.rank,
            world_size=self.world_size,
        )

    def _augmented(self, batch: Batch, random: torch.Generator) -> Batch:
        """The batch with mirrored windows, shifted crops, and noise and gaps in the sound."""
        choice = self.recipe.augmentation
        if self._mirror is not None:
            batch = self._mirror(batch, torch.rand(len(batch.frames.seen), generator=random) < choice.mirror)
        if choice.crop_shift or choice.crop_scale:
            batch = _crops_moved(batch, choice, random)
        if batch.frames.speech is not None:
            speech = augmented_speech(batch.frames.speech, choice, random)
            batch = Batch(
                replace(batch.frames, speech=speech), *(getattr(batch, name) for name in Batch.TENSORS)
            )
        return batch


def window_batch(held: dict[str, Any]) -> Batch:
    """A batch of windows that torch's loader has collated.

    Missing truth is None. Without a known camera, the focal length is FOCAL crops.
    """
    box = held["crop"]
    size = held["images"].shape[-1]
    focal: Any = FOCAL * box[..., 2]
    centre: Any = box[..., :2]
    truth = {name: held[f"truth.{name}"].float() for name in TRUTH if f"truth.{name}" in held}
    if truth:
        focal, centre = truth["focal_length"], truth["principal_point"]
    crop = FaceCrop.of(box, focal, centre)
    seen = held["confidence"] > 0
    frames = Frames(
        crop,
        seen,
        held["has_sound"][:, None].expand_as(seen).clone(),
        (held["landmarks"] + 0.5) * (2 / size) - 1,
        held["confidence"],
        images=held["images"],
        speech=held.get("speech"),
    )
    if not truth:
        return Batch(frames, face=held["face"])
    return Batch(
        frames,
        truth["shape"],
        truth["expression"],
        rotvec_to_rotmat(truth["rotation"].double()).float(),
        truth["translation"],
        crop.normalise(truth["landmarks"]),
        held["face"],
    )


class _Mirror:
    """Mirrors windows."""

    def __init__(self, head: HeadModel) -> None:
        self._points = FacePoints.of(head).mirrored_points()
        self._units = mirrored_units(head.expression_names)
        self._shape = mirrored_shape(head)

    def __call__(self, batch: Batch, which: Tensor) -> Batch:
        """Mirror the windows `which` (B,)."""
        frames = batch.frames
        flip = torch.tensor([-1.0, 1.0, 1.0])

        def either(values: Tensor | None, mirrored: Any) -> Any:
            if values is None:
                return None
            chosen = which.view(-1, *[1] * (values.ndim - 1))
            return torch.where(chosen, mirrored(values), values)

        def points(values: Tensor) -> Tensor:
            return values[..., self._points, :] * flip[:2]

        centre = frames.crop.principal_point
        box = torch.cat([2 * centre[..., :1] - frames.crop.box[..., :1], frames.crop.box[..., 1:]], -1)
        crop = replace(frames.crop, box=either(frames.crop.box, lambda _: box))
        changed = replace(
            frames,
            crop=crop,
            landmarks=either(frames.landmarks, points),
            images=either(frames.images, lambda values: values.flip(-1)),
        )
        return Batch(
            changed,
            either(batch.shape, lambda values: values @ self._shape.T),
            either(batch.expression, lambda values: values[..., self._units]),
            either(batch.rotation, lambda values: values * (flip[:, None] * flip)),
            either(batch.translation, lambda values: values * flip),
            either(batch.points, points),
            either(batch.face, lambda values: values.flip(-1)),
        )


def _crops_moved(batch: Batch, choice: Augmentation, random: torch.Generator) -> Batch:
    """Crops shifted and scaled at random, one draw per window; black beyond the edge of the old ones."""
    frames = batch.frames
    assert frames.images is not None
    count, length = frames.seen.shape
    shift = choice.crop_shift * torch.randn(count, 1, 2, generator=random)
    scale = (choice.crop_scale * torch.randn(count, 1, 1, generator=random)).exp()
    box = frames.crop.box
    crop = replace(
        frames.crop,
        box=torch.cat([box[..., :2] + shift * box[..., 2:] / 2, box[..., 2:] * scale], -1),
    )
    to_old = torch.cat([scale * torch.eye(2), shift.transpose(1, 2)], -1)  # (B, 2, 3)
    to_old = to_old.repeat_interleave(length, 0)
    images = frames.images.flatten(0, 1).float()
    grid = affine_grid(to_old, list(images.shape), align_corners=False)
    images = grid_sample(images, grid, align_corners=False).round().to(torch.uint8)

    def moved(points: Tensor | None) -> Any:
        return None if points is None else (points - shift[:, :, None]) / scale[..., None]

    face = batch.face
    if face is not None:
        old = face.flatten(0, 1)[:, None].float()
        face = (grid_sample(old, grid, align_corners=False)[:, 0] > 0.5).unflatten(0, (count, length))
    return Batch(
        replace(
            frames,
            crop=crop,
            landmarks=moved(frames.landmarks),
            images=images.unflatten(0, (count, length)),
        ),
        batch.shape,
        batch.expression,
        batch.rotation,
        batch.translation,
        moved(batch.points),
        face,
    )
