"""The check of a head: every measure of its anatomy on the mean face and on random people, against limits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avface.arrays import F64, Int
from avface.head.anatomy import parts
from avface.head.anatomy.eyes import (
    Eye,
    ball_diameter,
    find_eye,
    hidden_by_eyeball,
    iris_diameters,
    lid_line,
    open_columns,
)
from avface.head.anatomy.intersections import LIDS, LIPS, SKIN, TEETH, depths, find_solid
from avface.head.anatomy.mouth import count_teeth, inside_seen, see_through
from avface.head.anatomy.poses import (
    GAZES,
    NEUTRAL,
    PAIRED,
    SINGLE,
    Pose,
    gaze_turn,
    joint_centres,
    pose_vertices,
    possible,
    together,
)
from avface.head.anatomy.surface import bend, inner_edges, neck_and_holes, off_plane
from avface.head.anatomy.units import compare_units, own_figures, reference_figures
from avface.head.model import HeadModel

COMBINATIONS = (
    together("mouthSmile", "jawOpen"),
    together("mouthSmile", "cheekSquint", "eyeSquint"),
    together("mouthSmile", "mouthUpperUp", "mouthLowerDown"),
    together("mouthSmile", "noseSneer"),
    together("mouthUpperUp", "noseSneer"),
    together("mouthPucker", "jawOpen"),
    together("mouthPucker", "mouthLeft"),
    together("mouthFunnel", "jawOpen"),
    together("mouthStretch", "jawOpen"),
    together("mouthClose", "jawOpen"),
    together(("mouthClose", 0.3), ("jawOpen", 0.3)),
    together("mouthPress", "mouthRollUpper", "mouthRollLower"),
    together("mouthRollLower", ("jawOpen", 0.3)),
    together("mouthPress", "mouthDimple"),
    together("mouthFrown", "mouthShrugLower"),
    together("mouthShrugUpper", "mouthShrugLower"),
    together("cheekPuff", "mouthPress"),
    together("jawLeft", ("jawOpen", 0.5)),
    together("jawForward", "mouthLowerDown"),
    together("browDown", "noseSneer"),
    together("browInnerUp", "browDown"),
    together("eyeBlink", "eyeSquint"),
    together("eyeBlink", "cheekSquint", "mouthSmile"),
)
"""Units that occur together, at which the surface must be sound."""
UNITS = tuple(together(name) for name in PAIRED + SINGLE if name != "mouthClose")
"""All units at 1, both sides at once; mouthClose belongs to an open jaw."""
ONE_SIDED = tuple(together(f"{name}Left") for name in PAIRED)
BLINK = tuple(together(("eyeBlink", weight)) for weight in np.round(np.arange(1, 10) / 10, 1))
SHUT = together("eyeBlink")
SHUT_WITH = (
    together("eyeBlink", "eyeSquint"),
    together("eyeBlink", "cheekSquint"),
    *(Pose(f"eyeBlink, gaze {name}", {"eyeBlink": 1.0}, gaze) for name, gaze in GAZES.items() if any(gaze)),
)
ON_BALL = (
    *(
        Pose(f"{f'eyeBlink {weight:g}, ' if weight else ''}gaze {name}", {"eyeBlink": weight}, gaze)
        for weight in (0.0, 0.3, 0.6)
        for name, gaze in GAZES.items()
    ),
    SHUT,
    *SHUT_WITH,
    together("eyeWide"),
    Pose("eyeWide, gaze up", {"eyeWide": 1.0}, GAZES["up"]),
    together("eyeSquint"),
    together(("eyeBlink", 0.5), "eyeSquint"),
)
MOUTH_OPEN = (together("jawOpen"), together("mouthSmile", "mouthUpperUp", "mouthLowerDown"))
MOUTH_SHUT = (NEUTRAL, together("mouthPress"), together("mouthRollUpper", "mouthRollLower"))


@dataclass(frozen=True)
class Limit:
    """A row of the table: its label with the unit, and the range that values must be in."""

    label: str
    low: float = -np.inf
    high: float = np.inf
    digits: int = 2

    def excess(self, value: float) -> float:
        """How far a value is over or under the range; negative within it. nan, where nothing was found, is inf."""
        return np.inf if np.isnan(value) else max(value - self.high, self.low - value)

    @property
    def text(self) -> str:
        """The range, such as "23 to 25"."""
        if self.low == self.high:
            return f"{self.low:g}"
        if np.isinf(self.low):
            return f"<= {self.high:g}"
        return f">= {self.low:g}" if np.isinf(self.high) else f"{self.low:g} to {self.high:g}"


LIMITS = {
    "eyeball": Limit("eyeball, diameter at the mean head's size, mm", 23, 25, 1),
    "iris": Limit("iris, diameter at the mean head's size, mm", 11.2, 12.2, 1),
    "iris_round": Limit("iris, largest to smallest diameter", high=1.03, digits=3),
    "lids_even": Limit("lids, opening off 1 - blink, share", high=0.1),
    "lids_gap": Limit("lids, gap at blink 1, mm", high=0.1),
    "lids_overlap": Limit("lids, overlap at blink 1, mm", high=0.2),
    "lids_gap_with": Limit("lids, gap at blink 1 with gaze or squint, mm", high=0.1),
    "lids_overlap_with": Limit("lids, overlap at blink 1 with gaze or squint, mm", high=0.2),
    "lids_off": Limit("lids, off the eyeball, mm", high=0.5),
    "lids_inside": Limit("lids, inside the eyeball, mm", high=0.05),
    LIPS: Limit("lips and mouth through themselves, depth, mm", high=0.3),
    LIDS: Limit("lids through each other, depth, mm", high=0.3),
    SKIN: Limit("other skin through itself, depth, mm", high=0.3),
    TEETH: Limit("front teeth through lips, depth, mm", high=0.3),
    "creases": Limit("face, sharpest fold that a pose adds, degrees", high=60, digits=0),
    "cosine": Limit("units, least cosine with the figures", low=0.85),
    "median_cosine": Limit("units, median cosine with the figures", low=0.92),
    "amplitude_low": Limit("units, least amplitude to the figures'", low=0.75),
    "amplitude_high": Limit("units, largest amplitude to the figures'", high=1.33),
    "mistaken": Limit("units nearer to another one's figures, number", high=0, digits=0),
    "teeth_bodies": Limit("teeth, number", 28, 32, 0),
    "mouth_shut": Limit("inside of the shut mouth that is seen, mm2", high=1, digits=1),
    "see_through": Limit("holes and inner sides that are seen, mm2", high=1, digits=1),
    "holes": Limit("open edges, but the neck's and behind lids, number", high=0, digits=0),
    "neck_loops": Limit("neck, loops of its edge, number", 1, 1, 0),
    "neck_plane": Limit("neck, edge off a plane, mm", high=2, digits=1),
    "vertices": Limit("vertices, number", 6000, 8000, 0),
    "file": Limit("file, MB", high=8, digits=1),
}
"""By key of --json."""


@dataclass(frozen=True)
class Found:
    """A value of a row: which person it is of, 0 for the mean face, and the pose or place."""

    value: float
    person: int = 0
    case: str = ""


@dataclass(frozen=True)
class Row:
    """A row of the check: the mean face's and everybody's worst value, or why there is none."""

    key: str
    mean: Found | None
    worst: Found | None
    missing: str = ""

    @property
    def limit(self) -> Limit:
        """What the values are held against."""
        return LIMITS[self.key]

    @property
    def passed(self) -> bool | None:
        """Whether the limit is kept; None without a value."""
        return None if self.worst is None else self.limit.excess(self.worst.value) <= 1e-9


@dataclass(frozen=True)
class AnatomyReport:
    """The result of `check_head`."""

    head: str
    people: int
    rows: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        """Whether no limit is broken."""
        return not any(row.passed is False for row in self.rows)

    def table(self) -> str:
        """The rows as text, with the count of broken limits below."""
        lines = [("", "measure", "limit", "mean face", f"worst of {self.people + 1}", "where")]
        for row in self.rows:
            verdict = {True: "ok", False: "BROKEN", None: "-"}[row.passed]
            if row.worst is None or row.mean is None:
                lines.append((verdict, row.limit.label, row.limit.text, "-", "-", row.missing))
                continue
            mean, worst = (f"{each.value:.{row.limit.digits}f}" for each in (row.mean, row.worst))
            where = [f"person {row.worst.person}"] if row.worst.person else []
            lines.append(
                (verdict, row.limit.label, row.limit.text, mean, worst, ", ".join([*where, row.worst.case]))
            )
        widths = [max(len(line[k]) for line in lines) for k in range(5)]
        text = []
        for line in lines:
            numbers = (f"{cell:>{width}}" for cell, width in zip(line[3:5], widths[3:], strict=True))
            words = (f"{cell:<{width}}" for cell, width in zip(line[:3], widths[:3], strict=True))
            text.append("  ".join([*words, *numbers, line[5]]).rstrip())
        broken = sum(row.passed is False for row in self.rows)
        missing = sum(row.passed is None for row in self.rows)
        ending = f"{self.head}: {broken} of {len(self.rows)} limits broken"
        return "\n".join([*text, ending + (f", {missing} not measured" if missing else "")])

    def facts(self) -> dict[str, Any]:
        """The same as JSON values."""

        def values(found: Found | None) -> dict[str, Any] | None:
            if found is None:
                return None
            value = None if np.isnan(found.value) else found.value
            return {"value": value, "person": found.person, "case": found.case}

        return {
            "head": self.head,
            "people": self.people,
            "passed": self.passed,
            "rows": [
                {
                    "key": row.key,
                    "label": row.limit.label,
                    "low": None if np.isinf(row.limit.low) else row.limit.low,
                    "high": None if np.isinf(row.limit.high) else row.limit.high,
                    "passed": row.passed,
                    "mean": values(row.mean),
                    "worst": values(row.worst),
                    **({"missing": row.missing} if row.missing else {}),
                }
                for row in self.rows
            ],
        }


Measured = Iterator[tuple[str, float | str, str]]
"""Keys of `LIMITS`, values or why there is none, and poses or places."""


def check_head(
    head: HeadModel,
    people: int = 20,
    seed: int = 0,
    file: Path | None = None,
    on_person: Callable[[], None] | None = None,
) -> AnatomyReport:
    """Measure a head on its mean face and on people with normally distributed shape weights.

    file: whose size is measured; on_person: called after each. About 4 s a person.

    Raises:
        ValueError: if people is negative.
    """
    if people < 0:
        raise ValueError(f"people={people} must be 0 or more")
    eyes = {side: find_eye(head, side) for side in ("left", "right")}
    shapes = np.random.default_rng(seed).standard_normal((people, head.num_shape))
    shapes = np.concatenate([np.zeros((1, head.num_shape)), shapes])
    found: dict[str, list[Found]] = {key: [] for key in LIMITS}
    missing: dict[str, str] = {}

    def collect(measured: Measured, person: int) -> None:
        for key, value, case in measured:
            if isinstance(value, str):
                missing[key] = value
            else:
                found[key].append(Found(float(value), person, case))

    collect(_of_units(head), 0)
    collect(_of_mesh(head, eyes.values(), file), 0)
    for person, shape in enumerate(shapes):
        collect(_of_eyes(head, eyes, shape), person)
        collect(_of_surface(head, shape, is_mean=person == 0), person)
        if on_person is not None:
            on_person()
    rows = []
    for key, limit in LIMITS.items():
        of_mean = [each for each in found[key] if each.person == 0]
        if not of_mean:
            rows.append(Row(key, None, None, missing.get(key, "no units or regions for it")))
            continue
        mean, worst = (max(each, key=lambda one: limit.excess(one.value)) for each in (of_mean, found[key]))
        rows.append(Row(key, mean, worst))
    return AnatomyReport(head.name, people, tuple(rows))


def _of_units(head: HeadModel) -> Measured:
    """Rows of the units against the figures."""
    keys = ("cosine", "median_cosine", "amplitude_low", "amplitude_high", "mistaken")
    figures = reference_figures()
    if "ibug68" not in head.embeddings or not set(head.expression_names) & set(figures.names):
        reason = "no landmarks ibug68" if "ibug68" not in head.embeddings else "no units with ARKit's names"
        yield from ((key, reason, "") for key in keys)
        return
    matches = compare_units(own_figures(head), figures)
    for match in matches:
        yield "cosine", match.cosine, match.name
        yield "amplitude_low", match.amplitude, match.name
        yield "amplitude_high", match.amplitude, match.name
    absent = sorted(set(figures.names) - {match.name for match in matches})
    case = f"without {', '.join(absent)}" if absent else ""
    yield "median_cosine", float(np.median([match.cosine for match in matches])), case
    mistaken = [f"{match.name} ({match.nearest})" for match in matches if match.nearest != match.name]
    more = f" and {len(mistaken) - 3} more" if len(mistaken) > 3 else ""
    yield "mistaken", len(mistaken), ", ".join(mistaken[:3]) + more


def _of_mesh(head: HeadModel, eyes: Iterable[Eye | str], file: Path | None) -> Measured:
    """Rows that don't depend on the person."""
    template = head.template.cpu().double().numpy()
    neck, holes = neck_and_holes(parts.flesh(head), template)
    for eye in eyes:
        if isinstance(eye, Eye):
            holes = holes[~hidden_by_eyeball(eye, template, holes)]
    yield "holes", len(holes), ", ".join(sorted({_place(template[edge].mean(0)) for edge in holes})[:3])
    yield "neck_loops", len(neck), ""
    if neck:
        yield "neck_plane", 1000 * off_plane(template[np.unique(np.concatenate(neck))]), ""
    else:
        yield "neck_plane", "no open neck", ""
    yield "teeth_bodies", count_teeth(head), ""
    yield "vertices", head.num_vertices, ""
    if file is not None:
        yield "file", file.stat().st_size / 1e6, ""
    else:
        yield "file", "not read from a file", ""


def _of_eyes(head: HeadModel, eyes: dict[str, Eye | str], shape: F64) -> Measured:
    """Rows of eyeballs and lids of one person."""
    keys = [key for key in LIMITS if key.startswith(("eyeball", "iris", "lids_"))]
    poses = possible(head, dict.fromkeys([NEUTRAL, *BLINK, SHUT, *SHUT_WITH, *ON_BALL]))
    vertices = pose_vertices(head, shape, poses)
    neutral = vertices[0]
    centres = joint_centres(head, shape)
    size = relative_size(head, shape)
    for side, eye in eyes.items():
        if isinstance(eye, str):
            yield from ((key, eye, "") for key in keys)
            continue
        yield "eyeball", 1000 * ball_diameter(eye, neutral) / size, side
        if len(eye.iris):
            low, high = iris_diameters(eye, neutral)
            yield "iris", 1000 * (low + high) / 2 / size, side
            yield "iris_round", high / low, side
        columns = open_columns(head, eye, neutral, centres[eye.joint])
        if not len(columns):
            yield "lids_gap", np.nan, f"{side} lids shut on the neutral face"
            continue
        at_rest = None
        for pose, posed in zip(poses, vertices, strict=True):
            turn = gaze_turn(head, pose)
            line = lid_line(eye, neutral, posed, centres[eye.joint], turn, columns)
            case = f"{side}, {pose.label}"
            gap = 1000 * line.gap
            opening = float(np.maximum(gap, 0).mean())
            if pose is NEUTRAL:
                at_rest = opening
            if pose in BLINK and at_rest:
                yield "lids_even", abs(opening / at_rest - (1 - pose.weights["eyeBlink"])), case
            if pose is SHUT or pose in SHUT_WITH:
                ending = "" if pose is SHUT else "_with"
                yield f"lids_gap{ending}", _largest(gap), case
                yield f"lids_overlap{ending}", _largest(-gap), case
            if pose is NEUTRAL or pose in ON_BALL:
                yield "lids_off", 1000 * _largest(line.off.ravel()), case
                yield "lids_inside", 1000 * line.inside, case


def _of_surface(head: HeadModel, shape: F64, is_mean: bool) -> Measured:
    """Rows of intersections and of the mouth of one person."""
    solid = find_solid(head)
    poses = possible(head, [NEUTRAL, *UNITS, *(ONE_SIDED if is_mean else ()), *COMBINATIONS])
    vertices = pose_vertices(head, shape, poses)
    flesh, edges, pairs = parts.flesh(head), *_smooth_edges(head)
    at_rest = bend(vertices[0], flesh, pairs)
    for pose, posed in zip(poses, vertices, strict=True):
        if len(edges):
            folds = bend(posed, flesh, pairs) - at_rest
            sharpest = int(folds.argmax())
            where = _place(posed[edges[sharpest]].mean(0))
            yield "creases", float(np.degrees(folds[sharpest])), f"{pose.label} at {where}"
        for zone, (depth, place) in depths(solid, posed, None if pose is NEUTRAL else vertices[0]).items():
            if zone == TEETH and not len(solid.teeth):
                yield zone, "no teeth", ""
            else:
                yield zone, 1000 * depth, f"{pose.label} at {_place(place)}" if depth else ""
    if not parts.inside(head).any():
        yield "mouth_shut", "no inside of the mouth", ""
    views = None if is_mean else ("from the front", "from the left")
    shut = possible(head, MOUTH_SHUT)
    for pose, posed in zip(shut, pose_vertices(head, shape, shut), strict=True):
        if parts.inside(head).any():
            yield "mouth_shut", *_largest_case(inside_seen(head, posed, views), pose.label)
    wide = [NEUTRAL, *possible(head, MOUTH_OPEN)]
    for pose, posed in zip(wide, pose_vertices(head, shape, wide), strict=True):
        yield "see_through", *_largest_case(see_through(head, posed, views), pose.label)


def _smooth_edges(head: HeadModel) -> tuple[Int, Int]:
    """Edges (N, 2) of the face's skin beside lips and lids, which fold, and the numbers (N, 2) of their faces."""
    edges, pairs = inner_edges(parts.flesh(head))
    if not {"face", "lips", "eyelids"} <= head.regions.keys():
        return edges[:0], pairs[:0]
    folding = head.regions["lips"] | head.regions["eyelids"]
    kept = head.regions["face"][edges].all(1) & ~folding[edges].any(1)
    return edges[kept], pairs[kept]


def relative_size(head: HeadModel, shape: F64) -> float:
    """A person's size to the mean head's, by the head's size component; 1 for heads without one."""
    if head.size_component is None:
        return 1.0
    template = head.template.cpu().double().numpy()
    growth = head.shape_basis[head.size_component].cpu().double().numpy()
    return 1 + float(shape[head.size_component] * (growth * template).sum() / (template**2).sum())


def _largest(values: F64) -> float:
    """The largest value; nan if there is nan in it."""
    return float(values.max())


def _largest_case(areas: Iterable[tuple[str, float]], label: str) -> tuple[float, str]:
    """The largest area in square millimetres, and pose and view."""
    view, area = max(areas, key=lambda each: each[1])
    return 1e6 * area, f"{label}, {view}" if area else ""


def _place(point: F64) -> str:
    """Text of a point in millimetres."""
    return "({:.0f} {:.0f} {:.0f})".format(*(1000 * point))
