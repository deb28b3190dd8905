"""Validation of networks on landmarks: whole takes of people of the validation split."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from avface.head.model import HeadModel
from avface.head.schemes import LIPS_INNER_LOWER, LIPS_INNER_UPPER
from avface.networks.coarse.codes import perspective_translation
from avface.networks.coarse.model import CoarseNetworks
from avface.networks.coarse.windows import predict
from avface.networks.frames import FaceCrop, Frames
from avface.networks.regions import LANDMARK_REGIONS, REGIONS
from avface.training.coarse.batches import LOWER, with_occlusion_errors
from avface.training.coarse.face_points import FacePoints, project
from avface.training.coarse.tracked_takes import TrackedTakes

OCCLUDED = (0.2, 0.8)
"""Start and end of the occlusion of the lower face, as shares of a take's frames."""
STILL = 0.5e-3
"""Standard deviation of the mouth's opening in metres, below which a correlation is meaningless."""


@dataclass(frozen=True, eq=False)
class _Condition:
    """Input that a take is validated with."""

    occluded: bool
    sound: bool
    mask_known: bool = True
    face: bool = True


CONDITIONS = {
    "clean": _Condition(False, True),
    "occluded_sound": _Condition(True, True),
    "occluded_silent": _Condition(True, False),
    "unmasked_sound": _Condition(True, True, mask_known=False),
    "sound_only": _Condition(True, True, face=False),
}
"""The face as it is; mouth and jaw occluded with sound, without sound, and with sound but without occlusion mask; sound
alone."""


@torch.no_grad()
def validate(
    networks: CoarseNetworks, head: HeadModel, takes: TrackedTakes, most: int = 24
) -> dict[str, float]:
    """Errors over at most so many takes, by name.

    `nme` per cent of sqrt(w h) of the true landmarks' box; `vertices` and `lips` mm of the expression, the true shape
    given; `shape` mm of the neutral face; `lips/<condition>` mm, and `opening/<condition>` the correlation of the
    mouth's opening with the truth, both over the frames in which the lower face is occluded. See `CONDITIONS`.
    """
    was_training = networks.training
    networks.eval()
    points = FacePoints.of(head)
    every: dict[str, list[float]] = {}
    for number in range(min(most, len(takes))):
        for name, value in _errors(networks, head, points, takes, number).items():
            every.setdefault(name, []).append(value)
    networks.train(was_training)
    return {name: sum(values) / len(values) for name, values in every.items()}


def _errors(
    networks: CoarseNetworks, head: HeadModel, points: FacePoints, takes: TrackedTakes, number: int
) -> dict[str, float]:
    rows = slice(int(takes.first[number]), int(takes.first[number] + takes.count[number]))
    frames, true = conditions_of(points, takes, number)
    coarse, face = predict(networks, frames)
    count = true.shape[0]
    span = slice(round(OCCLUDED[0] * count), round(OCCLUDED[1] * count))
    shape = takes.shape[number]
    expression = takes.expression[rows]
    codes = {name: face.expression[row].float().cpu() for row, name in enumerate(CONDITIONS)}
    results: dict[str, float] = {}

    predicted = coarse.shape[0].float().cpu().mean(0)
    head_points = (
        points.rest
        + (predicted @ points.shape.flatten(1)).unflatten(-1, (-1, 3))
        + points.displacements(codes["clean"], predicted)
    )
    crop = frames.part(0, count).crop
    one = FaceCrop(crop.box[0], crop.focal_length[0], crop.principal_point[0])
    place = perspective_translation(coarse.camera[0].float().cpu(), one)
    pixels = project(
        head_points, coarse.rotation[0].float().cpu(), place, one.focal_length, one.principal_point
    )
    inner = slice(0, 468)
    extent = true[:, inner].amax(1) - true[:, inner].amin(1)
    error = (one.normalise(pixels) - true)[:, inner].norm(dim=-1).mean(-1) / extent.prod(-1).sqrt()
    results["nme"] = 100 * float(error.mean())
    face_mask = torch.from_numpy(head.regions["face"])
    lips_mask = torch.from_numpy(head.regions["lips"])
    results["shape"] = _millimetres(head.shape_basis[:, face_mask], (predicted - shape)[None])
    weights = head.blend_terms.weights(expression, shape)
    wrong = head.blend_terms.weights(codes["clean"], shape) - weights
    results["vertices"] = _millimetres(head.blend_basis[:, face_mask], wrong)
    results["lips"] = _millimetres(head.blend_basis[:, lips_mask], wrong)
    opening = mouth_opening(points, shape, expression)[span]
    for name, code in codes.items():
        off = (head.blend_terms.weights(code, shape) - weights)[span]
        results[f"lips/{name}"] = _millimetres(head.blend_basis[:, lips_mask], off)
        if float(opening.std()) > STILL:
            results[f"opening/{name}"] = correlation(mouth_opening(points, shape, code)[span], opening)
    return results


def conditions_of(points: FacePoints, takes: TrackedTakes, number: int) -> tuple[Frames, Tensor]:
    """A take (B, T) in all `CONDITIONS`, and its true landmarks (T, 478, 2) in crop units."""
    rows = slice(int(takes.first[number]), int(takes.first[number] + takes.count[number]))
    count = rows.stop - rows.start
    shape, expression = takes.shape[number], takes.expression[rows]
    box = takes.box[rows]
    crop = FaceCrop.of(box, float(takes.focal[number]), takes.centre[number].expand(count, 2))
    start, end = (round(share * count) for share in OCCLUDED)

    def projected(face: Tensor) -> Tensor:
        pixels = project(
            points(shape, face, takes.joints[rows]),
            takes.rotation[rows],
            takes.translation[rows],
            crop.focal_length,
            crop.principal_point,
        )
        return crop.normalise(pixels)

    true = projected(expression)
    tracked = crop.normalise(takes.tracked[rows])
    frozen = projected(expression[max(start - 1, 0)].expand_as(expression)) + (tracked - true)
    lower = torch.isin(LANDMARK_REGIONS, torch.tensor([REGIONS.index(name) for name in LOWER]))
    covered = torch.zeros(1, count, len(lower), dtype=torch.bool)
    covered[:, start:end] = lower
    random = torch.Generator().manual_seed(number)
    wrong = with_occlusion_errors(tracked[None], frozen[None], covered, random)[0]
    found = takes.confidence[rows] > 0
    conditions = list(CONDITIONS.values())
    visible = takes.visible[rows].float()

    def each(values: list[Tensor]) -> Tensor:
        return torch.stack(values)

    many = len(conditions)
    return (
        Frames(
            crop=FaceCrop(*(value.expand(many, *value.shape) for value in vars(crop).values())),
            seen=each([found & one.face for one in conditions]),
            heard=each([torch.full_like(found, one.sound) for one in conditions]),
            landmarks=each([wrong if one.occluded else tracked for one in conditions]),
            confidence=takes.confidence[rows].expand(many, -1),
            visibility=each(
                [torch.where(covered[0] & one.mask_known & one.occluded, 0.1, visible) for one in conditions]
            ),
            speech=takes.speech[rows].float().expand(many, -1, -1, -1),
        ),
        true,
    )


def mouth_opening(points: FacePoints, shape: Tensor, expression: Tensor) -> Tensor:
    """Distance (T,) in metres between the inner edges of the lips, for shape (S,) and expression (T, E)."""
    face = points(shape, expression)
    gaps = face[:, torch.from_numpy(LIPS_INNER_UPPER)] - face[:, torch.from_numpy(LIPS_INNER_LOWER)]
    return gaps.norm(dim=-1).mean(-1)


def correlation(one: Tensor, other: Tensor) -> float:
    """Pearson correlation; 0 if one of them is constant."""
    one, other = one - one.mean(), other - other.mean()
    length = one.norm() * other.norm()
    return float((one * other).sum() / length) if float(length) > 1e-12 else 0.0


def _millimetres(basis: Tensor, difference: Tensor) -> float:
    """Mean distance in mm of vertices due to errors (T, K) of the weights of a basis (K, V, 3)."""
    moved = (difference @ basis.flatten(1)).unflatten(-1, (-1, 3))
    return 1000 * float(moved.norm(dim=-1).mean())


def draw_windows(predicted: Tensor, true: Tensor, size: int = 224) -> Tensor:
    """Images (W, 3, size, size) from 0 to 1 of landmarks (W, L, 2) in crop units: true ones green, predicted red."""
    pictures = torch.zeros(len(true), 3, size, size)
    for channel, points in ((1, true), (0, predicted)):
        place = ((points + 1) / 2 * size - 0.5).round().long().clamp(0, size - 1)
        window = torch.arange(len(points))[:, None].expand(place.shape[:2])
        pictures[window, channel, place[..., 1], place[..., 0]] = 1
    return pictures
