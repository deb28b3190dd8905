"""How good networks on landmarks are while they are trained: whole takes of people they haven't seen."""

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
from avface.training.coarse.batches import LOWER, make_up
from avface.training.coarse.face_points import FacePoints, project
from avface.training.coarse.tracked_takes import TrackedTakes

HIDDEN = (0.2, 0.8)
"""Share of a take's frames at which the lower face is hidden, from and to."""
STILL = 0.5e-3
"""Metres, standard deviation of the mouth's opening: where it moves less there is nothing to follow."""


@dataclass(frozen=True, eq=False)
class _Way:
    """One way of showing a take."""

    hidden: bool
    heard: bool
    told: bool = True
    seen: bool = True


WAYS = {
    "clean": _Way(False, True),
    "hidden_sound": _Way(True, True),
    "hidden_quiet": _Way(True, False),
    "untold_sound": _Way(True, True, told=False),
    "sound_only": _Way(True, True, seen=False),
}
"""The face as it is; mouth and jaw hidden, with sound and without, and without being told so; nothing but sound."""


@torch.no_grad()
def validate(
    networks: CoarseNetworks, head: HeadModel, takes: TrackedTakes, most: int = 24
) -> dict[str, float]:
    """Errors over at most so many takes, by name.

    `nme` per cent of sqrt(w h) of the true landmarks' box; `vertices` and `lips` mm of the expression, the true shape
    given; `shape` mm of the neutral face, `lips/<way>` mm and `opening/<way>` the correlation of the mouth's opening
    with the truth, both over the frames in which the lower face is hidden. See `WAYS`.
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
    frames, true = shown(points, takes, number)
    coarse, face = predict(networks, frames)
    count = true.shape[0]
    span = slice(round(HIDDEN[0] * count), round(HIDDEN[1] * count))
    shape = takes.shape[number]
    expression = takes.expression[rows]
    codes = {name: face.expression[row].float().cpu() for row, name in enumerate(WAYS)}
    results: dict[str, float] = {}

    predicted = coarse.shape[0].float().cpu().mean(0)
    head_points = (
        points.rest
        + (predicted @ points.shape.flatten(1)).unflatten(-1, (-1, 3))
        + points.moved_by(codes["clean"])
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
    wrong = codes["clean"] - expression
    results["vertices"] = _millimetres(head.expression_basis[:, face_mask], wrong)
    results["lips"] = _millimetres(head.expression_basis[:, lips_mask], wrong)
    opening = mouth_opening(points, shape, expression)[span]
    for name, code in codes.items():
        results[f"lips/{name}"] = _millimetres(head.expression_basis[:, lips_mask], (code - expression)[span])
        if float(opening.std()) > STILL:
            results[f"opening/{name}"] = correlation(mouth_opening(points, shape, code)[span], opening)
    return results


def shown(points: FacePoints, takes: TrackedTakes, number: int) -> tuple[Frames, Tensor]:
    """A take (B, T) in all `WAYS`, and its true landmarks (T, 478, 2) in crop units."""
    rows = slice(int(takes.first[number]), int(takes.first[number] + takes.count[number]))
    count = rows.stop - rows.start
    shape, expression = takes.shape[number], takes.expression[rows]
    box = takes.box[rows]
    crop = FaceCrop.of(box, float(takes.focal[number]), takes.centre[number].expand(count, 2))
    start, end = (round(share * count) for share in HIDDEN)

    def seen(face: Tensor) -> Tensor:
        pixels = project(
            points(shape, face, takes.joints[rows]),
            takes.rotation[rows],
            takes.translation[rows],
            crop.focal_length,
            crop.principal_point,
        )
        return crop.normalise(pixels)

    true = seen(expression)
    tracked = crop.normalise(takes.tracked[rows])
    frozen = seen(expression[max(start - 1, 0)].expand_as(expression)) + (tracked - true)
    lower = torch.isin(LANDMARK_REGIONS, torch.tensor([REGIONS.index(name) for name in LOWER]))
    covered = torch.zeros(1, count, len(lower), dtype=torch.bool)
    covered[:, start:end] = lower
    random = torch.Generator().manual_seed(number)
    made_up = make_up(tracked[None], frozen[None], covered, random)[0]
    known = takes.confidence[rows] > 0
    ways = list(WAYS.values())
    visible = (~takes.hidden[rows]).float()

    def each(values: list[Tensor]) -> Tensor:
        return torch.stack(values)

    many = len(ways)
    return (
        Frames(
            crop=FaceCrop(*(value.expand(many, *value.shape) for value in vars(crop).values())),
            seen=each([known & way.seen for way in ways]),
            heard=each([torch.full_like(known, way.heard) for way in ways]),
            landmarks=each([made_up if way.hidden else tracked for way in ways]),
            confidence=takes.confidence[rows].expand(many, -1),
            visibility=each([torch.where(covered[0] & way.told & way.hidden, 0.1, visible) for way in ways]),
            speech=takes.speech[rows].float().expand(many, -1, -1, -1),
        ),
        true,
    )


def mouth_opening(points: FacePoints, shape: Tensor, expression: Tensor) -> Tensor:
    """Metres (T,) between the lips' inner edges, of shape (S,) and expression (T, E)."""
    face = points(shape, expression)
    gaps = face[:, torch.from_numpy(LIPS_INNER_UPPER)] - face[:, torch.from_numpy(LIPS_INNER_LOWER)]
    return gaps.norm(dim=-1).mean(-1)


def correlation(one: Tensor, other: Tensor) -> float:
    """Pearson's, 0 where one of them doesn't change."""
    one, other = one - one.mean(), other - other.mean()
    length = one.norm() * other.norm()
    return float((one * other).sum() / length) if float(length) > 1e-12 else 0.0


def _millimetres(basis: Tensor, difference: Tensor) -> float:
    """Mean distance that coefficients (T, K) too many make of vertices (K, V, 3)."""
    moved = (difference @ basis.flatten(1)).unflatten(-1, (-1, 3))
    return 1000 * float(moved.norm(dim=-1).mean())


def draw_windows(predicted: Tensor, true: Tensor, size: int = 224) -> Tensor:
    """Pictures (W, 3, size, size) from 0 to 1 of landmarks (W, L, 2) in crop units: true ones green, predicted red."""
    pictures = torch.zeros(len(true), 3, size, size)
    for channel, points in ((1, true), (0, predicted)):
        place = ((points + 1) / 2 * size - 0.5).round().long().clamp(0, size - 1)
        window = torch.arange(len(points))[:, None].expand(place.shape[:2])
        pictures[window, channel, place[..., 1], place[..., 0]] = 1
    return pictures
