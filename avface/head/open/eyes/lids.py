"""How the open head's lids move: blink, wide, squint and gaze, and what corrects their combinations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from avface.arrays import F64, Int
from avface.errors import AvfaceError
from avface.geometry.interpolation import smoothstep
from avface.head.open.draft import Draft, PersonTerms
from avface.head.open.eyes.lid_fit import LidField, LidFitConfig, angles_of, direction_of, on_the_ball
from avface.head.open.eyes.region import INNER_RINGS, LidRings, lid_rings

SIDES = ("Left", "Right")

INNER_SHARE = (0.35, 0.65)
"""How far the rings of the inner surface follow the margin."""

Places = Callable[[F64, F64], F64]
"""Places (H, 3) of the lids' margin and inner surface under a unit, given those at rest and the eyeball's centre."""


@dataclass(frozen=True)
class LidsConfig:
    """Parameters of the lids' movements; lengths in metres on the mean head, along the eyeball at the opening's
    middle, positive where the lid closes."""

    meeting: float = 0.16
    """Where the lids meet: share of the opening that the lower lid goes."""
    corner_meeting: float = 0.42
    """The same at the inner corner, whose height it is: the line where the lids meet runs level into it."""
    blink_arc: float = 0.575
    """Share of a blink's arc over the straight way between open and shut lids: from lids that look down it is
    shorter."""
    blink_arc_middle: float = 0.265
    """What is added to it in the lids' middle, which goes over the cornea."""
    look_down_arc: float = 0.54
    """The same share for looking down: a blink on top doesn't cancel it."""
    closed_lift: float = 0.000055
    """How much farther the closed lids are from the sclera than at rest: they lie on the cornea."""
    look_up_lift: tuple[float, float] = (0.00021, 0.00005)
    """The same of the upper and lower lid at eyeLookUp."""
    look_down_lift: tuple[float, float] = (0.00001, 0.00002)
    """The same at eyeLookDown."""
    look_aside_lift: float = -0.00008
    """The same of both lids at eyeLookIn and eyeLookOut."""
    shut_down_lift: float = -0.00006
    """How much farther than straight on the closed lids are from the sclera at eyeLookDown: nearer, since a blink from
    there lifts the upper lid, whose way is short, by the arc of a long one."""
    shut_down_overlap: float = 0.00004
    """How far the closed lids' edges overlap at eyeLookDown: a gaze aside on top parts them."""
    joint_up: float = 0.05
    """Share that is corrected of what eyeLookUp with another unit leads off the eyeball. Not all of it: a blink on top
    of both, which cancels each, doesn't cancel the correction."""
    joint_down: float = 0.8
    """The same of eyeLookDown."""
    groove: float = 0.00005
    """Distance of the closed lids' outer edges from the line where they meet."""
    wide: tuple[float, float] = (-0.0030, 0.0003)
    """Upper and lower lid at eyeWide."""
    squint: tuple[float, float] = (0.0003, 0.0021)
    """Upper and lower lid at eyeSquint."""
    squint_inwards: float = 0.0007
    """How far the lower lid goes towards the nose at eyeSquint."""
    squint_bulge: float = 0.0007
    """Height of the bulge below the lower lid at eyeSquint."""
    look_up: tuple[float, float] = (-0.0030, 0.0014)
    """Upper and lower lid at eyeLookUp."""
    look_down: tuple[float, float] = (0.0054, -0.0035)
    """Upper and lower lid at eyeLookDown."""
    clearance: float = 0.0009
    """How much farther than the margin's outer edge the skin stays from the eyeball, metres: it slides around it
    instead of taking the straight way."""
    meet_up: float = 0.0026
    """How much higher the lids meet at eyeLookUp: the closed lids follow the gaze too."""
    meet_down: float = -0.0025
    """The same at eyeLookDown."""
    look_aside: float = 0.00227
    """How far both lids go along with the gaze at eyeLookIn and eyeLookOut."""
    fold_ring: int = 5
    """Ring of skin outside the margin at which the upper lid folds."""
    fold_share: float = 0.7
    """Share of the skin that lids which go down draw out of that fold, rather than from above it: the fold hardly moves
    in a blink."""
    tear_height: float = 0.00035
    """Height of the tears' strip on the eyeball above the lower lid."""
    people: int = 10
    """Ways in which blinks differ between people."""

    def __post_init__(self) -> None:
        if not 0 <= self.meeting < 0.5:
            raise AvfaceError(f"meeting={self.meeting} must be 0 or more and below 0.5")
        for name in ("fold_share", "corner_meeting", "joint_up", "joint_down"):
            if not 0 <= getattr(self, name) <= 1:
                raise AvfaceError(f"{name}={getattr(self, name)} must be from 0 to 1")
        for name in ("people", "fold_ring"):
            if not getattr(self, name) > 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be above 0")


def step(draft: Draft, config: LidsConfig | None = None, fit: LidFitConfig | None = None) -> Draft:
    """The draft with lids that slide on the eyeballs: units eyeBlink, eyeWide, eyeSquint and eyeLook, of both sides,
    are made anew; what other units move the lids is kept, but not off the eyeball. A strip of tears lies along the
    lower lids.

    Correctives: lids slide on an arc during a blink or a look down (each with itself); eyeBlink with every unit that
    moves the lids, so that they are shut at 1 whatever the others are; units that would lead off the eyeball together
    (`Lids.joint_units`). Blinks, and looks up and down, are the person's (`Draft.person`).

    Raises:
        AvfaceError: if the draft's eyes aren't those of `avface.head.open.eyes.step`.
    """
    config, fit = config or LidsConfig(), fit or LidFitConfig()
    eyes = lid_rings(draft)
    for side, rings in enumerate(eyes):
        draft = _with_lids(draft, side, rings, config, fit)
    for side, rings in enumerate(eyes):
        draft = _with_tear_line(draft, side, rings, config, fit)
    return draft


def _with_lids(draft: Draft, side: int, rings: LidRings, config: LidsConfig, fit: LidFitConfig) -> Draft:
    name = SIDES[side]
    field = LidField(draft, rings, fit.soft_rings)
    below_fold = LidField(draft, rings, config.fold_ring)
    handles, rows = field.handles, field.rows()
    rest, centre = draft.template[handles], draft.eye_centres[0, side]
    lids = Lids(rings, config, fit)
    expression = draft.expression.copy()

    def moved(places: F64, from_fold: float = 0.0) -> F64:
        """Offsets (H + N, 3) of the lids and the skin around from places of the handles; `from_fold` is the share of
        skin that comes from the fold."""
        offsets = (1 - from_fold) * field.solve(places - rest)
        if from_fold:
            offsets[: len(below_fold.rows())] += from_fold * below_fold.solve(places - rest)
        before = draft.template[rows] - centre
        after = before + offsets
        far = np.linalg.norm(after, axis=1, keepdims=True)
        least = fit.radius + fit.gap + fit.thickness + config.clearance
        lifted = _not_below(far, least) - _not_below(np.linalg.norm(before, axis=1, keepdims=True), least)
        lifted[: len(handles)] = 0
        return np.asarray(offsets + lifted * after / far)

    own: dict[str, F64] = {}
    for unit, places in lids.units().items():
        share = config.fold_share if unit in ("eyeBlink", "eyeLookDown") else 0.0
        own[f"{unit}{name}"] = moved(places(rest, centre), share)
    for unit, values in own.items():
        expression[draft.unit(unit)] = 0
        expression[draft.unit(unit), rows] = values
    squint = draft.unit(f"eyeSquint{name}")
    bulge_rows, bulge = lids.bulge(draft.template, centre)
    expression[squint, bulge_rows] += bulge

    blink = f"eyeBlink{name}"
    pairs: list[tuple[str, str]] = [(blink, blink)]
    half = moved(lids.closed(rest, centre, 0.5), config.fold_share)
    bow = 4.0 * half - 2.0 * own[blink]
    middle = config.blink_arc_middle * lids.middle(rest, centre)[:, None]
    offsets: list[F64] = [config.blink_arc * bow + field.solve(middle * bow[: len(handles)])]
    outwards = (rest - centre) / np.linalg.norm(rest - centre, axis=1, keepdims=True)
    for index, unit in enumerate(draft.expression_names):
        if unit in own or unit.startswith(("eyeBlink", "eyeWide", "eyeSquint", "eyeLook")):
            continue
        at_lids = expression[index, handles]
        size = np.linalg.norm(at_lids, axis=1).max()
        if size == 0:
            continue
        away = (at_lids * outwards).sum(1, keepdims=True) * outwards * lids.weight[:, None]
        if size < 0.0002:  # nothing that one could see
            away = at_lids
        expression[index, rows] -= field.solve(away)
        if size >= 0.0002:
            pairs.append((blink, unit))
            offsets.append(-field.solve(expression[index, handles] + _together(draft, blink, unit)[handles]))
    for unit, values in own.items():
        if unit != blink:
            pairs.append((blink, unit))
            rise = lids.rises().get(unit.removesuffix(name), 0.0)
            ends = lids.shut_higher(rest, centre, rise)
            if unit == f"eyeLookDown{name}":
                ends = lids.pressed(ends, rest, centre, config.shut_down_lift, config.shut_down_overlap)
            offsets.append(moved(ends, config.fold_share) - own[blink] - values)
    down = f"eyeLookDown{name}"
    pairs.append((down, down))
    lowered = lids.shifted(_half(config.look_down), lift=_half(config.look_down_lift))
    half = moved(lowered(rest, centre), config.fold_share)
    offsets.append(config.look_down_arc * (4 * half - 2 * own[down]))
    for first, second, share in lids.joint_units():
        pairs.append((f"{first}{name}", f"{second}{name}"))
        at_lids = own[f"{first}{name}"][: len(handles)] + own[f"{second}{name}"][: len(handles)]
        offsets.append(share * field.solve(lids.onto_ball(rest, rest + at_lids, centre)))

    pair_offsets = np.zeros((len(pairs), *draft.template.shape))
    pair_offsets[:, rows] = np.stack(offsets)
    result = replace(draft, expression=expression).with_pairs(tuple(pairs), pair_offsets)
    return _with_people(result, side, field, lids, config)


def _half(lengths: tuple[float, float]) -> tuple[float, float]:
    return lengths[0] / 2, lengths[1] / 2


def _not_below(distance: F64, least: float) -> F64:
    """How much to add to distances so that they are smoothly kept above the least one."""
    below = least - distance
    result: F64 = (below + np.sqrt(below**2 + 0.0006**2)) / 2
    return result


def _together(draft: Draft, first: str, second: str) -> F64:
    """(V, 3) what correctives of two units that the draft has already move."""
    result = np.zeros_like(draft.template)
    for pair, offsets in zip(draft.pairs, draft.pair_offsets, strict=True):
        if set(pair) == {first, second}:
            result += offsets
    return result


def _with_people(draft: Draft, side: int, field: LidField, lids: Lids, config: LidsConfig) -> Draft:
    """The draft with blinks that are the person's: derivatives of the closed and half-closed lids by the shape, of
    which the main `config.people` directions are kept."""
    handles, rows = field.handles, field.rows()
    blink = f"eyeBlink{SIDES[side]}"
    units = lids.units()
    gazes = tuple(lids.rises())
    arc = config.blink_arc + config.blink_arc_middle * lids.middle(
        draft.template[handles], draft.eye_centres[0, side]
    )
    changes, closing = [], []
    for component, move in zip(draft.shape[:, handles], draft.eye_centres[1:, side], strict=True):
        ends = []
        for sign in (1, -1):
            rest = draft.template[handles] + sign * component
            centre = draft.eye_centres[0, side] + sign * move
            shut, half = lids.closed(rest, centre, 1) - rest, lids.closed(rest, centre, 0.5) - rest
            looking = [units[unit](rest, centre) - rest for unit in gazes]
            both = [
                lids.shut_higher(rest, centre, lids.rises()[unit]) - rest - shut - alone
                for unit, alone in zip(gazes, looking, strict=True)
            ]
            ends.append(np.stack([shut, arc[:, None] * (4 * half - 2 * shut), *looking, *both]))
        change = (ends[0] - ends[1]) / 2
        changes.append(change)
        closing.append(lids.apart(change[0]))
    flat = np.array(changes).reshape(len(changes), -1)
    # The lids' meeting counts more than where they do: one sees a gap of a tenth of a millimetre.
    weighted = np.concatenate([flat, 5 * np.array(closing).reshape(len(changes), -1)], 1)
    weights = np.linalg.svd(weighted, full_matrices=False)[0]
    kept = min(config.people, weights.shape[1])
    functionals = weights[:, :kept].T
    terms = [(blink,), (blink, blink)]
    terms += [(f"{unit}{SIDES[side]}",) for unit in gazes]
    terms += [(blink, f"{unit}{SIDES[side]}") for unit in gazes]
    scaled = (functionals @ flat).reshape(kept, len(terms), len(handles), 3)
    fields = [[field.solve(scaled[mode, k]) for mode in range(kept)] for k in range(len(terms))]
    offsets = np.zeros((len(terms) * kept, *draft.template.shape))
    offsets[:, rows] = np.array(fields).reshape(len(terms) * kept, len(rows), 3)
    people = PersonTerms(
        tuple(term for term in terms for _ in range(kept)),
        np.concatenate([functionals] * len(terms)),
        offsets,
    )
    return replace(draft, person=people if draft.person is None else draft.person.joined(people))


def _with_tear_line(draft: Draft, side: int, rings: LidRings, config: LidsConfig, fit: LidFitConfig) -> Draft:
    """The draft with a strip of tears between the lower lid's inner edge and the eyeball, which follows the lid: part
    "left_tear_line" or "right_tear_line"."""
    count = rings.columns
    rows = rings.margin[0][count // 2 : count][on_the_ball(count, fit)[count // 2 :] > 0.5]
    inner, middle = rings.margin[0], rings.margin[1]
    outside = middle[np.isin(inner, rows)]
    number, centre = len(rows), draft.eye_centres[0, side]
    edge = 0.75 * draft.template[rows] + 0.25 * draft.template[outside]
    offset = draft.template[rows] - centre
    above = _rotated(
        offset, np.broadcast_to([1.0, 0, 0], offset.shape), np.full(number, -config.tear_height / fit.radius)
    )
    above *= (fit.radius + 0.1 * fit.gap) / np.linalg.norm(above, axis=1, keepdims=True)
    template = np.concatenate([edge, centre + above])
    source = np.concatenate([rows, rows])
    shape = draft.shape[:, source].copy()
    shape[0] = draft.size_sigma * template
    k = np.arange(number - 1)
    quads = np.stack([k, k + 1, k + 1 + number, k + number], 1)
    if rings.sign < 0:
        quads = quads[:, ::-1]
    along = np.arange(number) / (number - 1)
    uv = np.concatenate([np.stack([along, np.full(number, height)], 1) for height in (0.0, 0.1)])
    before = len(draft.template)
    result = draft.with_parts(
        template,
        quads,
        np.full(len(quads), f"{SIDES[side].lower()}_tear_line"),
        uv,
        quads,
        shape=shape,
        expression=draft.expression[:, source],
        skin_weights=draft.skin_weights[source],
    )
    result.pair_offsets[:, before:] = draft.pair_offsets[:, source]
    if result.person is not None and draft.person is not None:
        result.person.offsets[:, before:] = draft.person.offsets[:, source]
    return result


class Lids:
    """Where the margin and the inner surface of one eye's lids go on the eyeball.

    Places are (H, 3): ring by ring, as `LidField.handles`.
    """

    def __init__(self, rings: LidRings, config: LidsConfig, fit: LidFitConfig) -> None:
        self._rings, self._config, self._fit = rings, config, fit
        count = rings.columns
        column = np.arange(count)
        self._upper = (column > 0) & (column < count // 2)
        self._lower = column > count // 2
        self._facing: Int = (count - column) % count
        self._on_ball = on_the_ball(count, fit)
        self._at_corner: F64 = smoothstep(0.45, 1, 2 * np.minimum(column, count - column) / count)
        self.weight: F64 = np.concatenate([np.ones(INNER_RINGS * count), *[self._on_ball] * 3])
        """(H,) 1 where the lids lie on the eyeball."""
        self._follow = np.repeat([*INNER_SHARE, 1, 1, 1], count)

    def units(self) -> dict[str, Places]:
        """Places of the lids under each unit at weight 1, by its name without the side."""
        config = self._config
        inwards = -self._rings.sign
        aside, lift = config.look_aside, (config.look_aside_lift, config.look_aside_lift)
        return {
            "eyeBlink": lambda rest, centre: self.closed(rest, centre, 1),
            "eyeWide": self.shifted(config.wide),
            "eyeSquint": self.shifted(config.squint, (0, inwards * config.squint_inwards)),
            "eyeLookUp": self.shifted(config.look_up, lift=config.look_up_lift),
            "eyeLookDown": self.shifted(config.look_down, lift=config.look_down_lift),
            "eyeLookIn": self.shifted((0.0003, 0.0), (inwards * aside, inwards * aside), lift),
            "eyeLookOut": self.shifted((-0.0004, 0.0), (-inwards * aside, -inwards * aside), lift),
        }

    def closed(self, rest: F64, centre: F64, share: float) -> F64:
        """Lids closed by a share of their way: each point of the margin goes along its arc to the line where the lids
        meet, the inner surface follows."""
        count, config = self._rings.columns, self._config
        offset = rest - centre
        radius = np.linalg.norm(offset, axis=1)
        direction = offset / radius[:, None]
        inner = slice(INNER_RINGS * count, (INNER_RINGS + 1) * count)
        goal, opening = self._meeting(direction[inner])
        axis, angle = _turn(direction[inner], goal)
        lift = config.closed_lift * np.clip(2 * opening / opening.max(), 0, 1) * self._on_ball
        lifted = min(1.0, 2 * share) * lift  # half-way the edge crosses the cornea
        level = (radius[inner] + radius[inner][self._facing]) / 2
        result = np.empty_like(rest)
        for k in range(INNER_RINGS):
            ring = slice(k * count, (k + 1) * count)
            turned = _rotated(direction[ring], axis, share * INNER_SHARE[k] * angle)
            result[ring] = radius[ring, None] * turned
        line = self._line(direction)
        for k, depth in enumerate((0.0, 0.5, 1.0)):  # the margins touch in a face along the eyeball's radii
            ring = slice((INNER_RINGS + k) * count, (INNER_RINGS + k + 1) * count)
            meeting = self._meeting(direction[ring])[0]
            # Around the caruncle each edge meets by itself: the line is steep there.
            goal = meeting + self._on_ball[:, None] * (_at_height(meeting, line) - meeting)
            goal /= np.linalg.norm(goal, axis=1, keepdims=True)
            end = (radius[ring] + radius[ring][self._facing]) / 2
            up = self._by_lid(1.0, -1.0) * config.groove * depth
            goal = _raised(goal, up * np.clip(4 * opening / opening.max(), 0, 1) / level)
            axis, angle = _turn(direction[ring], goal)
            turned = _rotated(direction[ring], axis, share * angle)
            result[ring] = (radius[ring] + share * (end - radius[ring]) + lifted)[:, None] * turned
        return centre + result

    def _line(self, direction: F64) -> tuple[F64, F64]:
        """Azimuths, rising, and heights above the horizontal, in radians, of the line where the lids meet: that of the
        inner edges, and beyond their corners those of the other edges of the margin."""
        count = self._rings.columns
        half = count // 2
        inner = slice(INNER_RINGS * count, (INNER_RINGS + 1) * count)
        azimuth, height = angles_of(self._meeting(direction[inner])[0][: half + 1])
        for k in (1, 2):
            corners = (INNER_RINGS + k) * count + np.array([0, half])
            beyond, level = angles_of(direction[corners])
            outside = (beyond < azimuth.min()) | (beyond > azimuth.max())
            azimuth = np.concatenate([azimuth, beyond[outside]])
            height = np.concatenate([height, level[outside]])
        order = np.argsort(azimuth)
        return azimuth[order], height[order]

    def shifted(
        self,
        closing: tuple[float, float],
        aside: tuple[float, float] = (0.0, 0.0),
        lift: tuple[float, float] = (0.0, 0.0),
    ) -> Places:
        """Upper and lower lid by lengths along the eyeball at the opening's middle: towards each other, aside along
        +x, and off the sclera, where the cornea comes; corners stay."""

        def places(rest: F64, centre: F64) -> F64:
            count = self._rings.columns
            offset = rest - centre
            direction = offset / np.linalg.norm(offset, axis=1, keepdims=True)
            inner = slice(INNER_RINGS * count, (INNER_RINGS + 1) * count)
            goal, opening = self._meeting(direction[inner])
            axis, _ = _turn(direction[inner], goal)
            profile = opening / opening.max()
            level = self._fit.radius + self._fit.gap
            angle = profile * self._by_lid(*closing) / level
            yaw = profile * self._by_lid(*aside) / level
            rings = INNER_RINGS + 3
            turned = _rotated(offset, np.tile(axis, (rings, 1)), np.tile(angle, rings) * self._follow)
            vertical = np.broadcast_to([0, 1.0, 0], turned.shape)
            turned = _rotated(turned, vertical, np.tile(yaw, rings) * self._follow)
            raised = np.tile(profile * self._by_lid(*lift), rings) * self.weight * (self._follow == 1)
            return centre + turned * (1 + raised / level)[:, None]

        return places

    def joint_units(self) -> tuple[tuple[str, str, float], ...]:
        """Pairs of units, without the side, whose sum leads off the eyeball, and the share of that which is
        corrected."""
        shares = {"eyeLookUp": self._config.joint_up, "eyeLookDown": self._config.joint_down}
        wide = tuple(("eyeWide", unit, 0.9) for unit in shares)
        aside = ("eyeLookIn", "eyeLookOut")
        return (*wide, *((unit, other, share) for unit, share in shares.items() for other in aside))

    def onto_ball(self, rest: F64, places: F64, centre: F64) -> F64:
        """Offsets (H, 3) that lead places back to as far from the eyeball's centre as at rest."""
        offset = places - centre
        radius = np.linalg.norm(offset, axis=1)
        away = radius - np.linalg.norm(rest - centre, axis=1)
        return -(self.weight * away / radius)[:, None] * offset

    def middle(self, rest: F64, centre: F64) -> F64:
        """(H,) 1 in the lids' middle, falling towards the corners."""
        return np.tile(self._opening(rest, centre) ** 4, INNER_RINGS + 3)

    def _by_lid(self, upper: float, lower: float) -> F64:
        """(K,) one value for columns of the upper lid, another for those of the lower one, 0 at the corners."""
        return np.where(self._upper, upper, np.where(self._lower, lower, 0.0))

    def _opening(self, rest: F64, centre: F64) -> F64:
        """(K,) angle between facing columns of the margin's inner edge, as a share of the widest."""
        count = self._rings.columns
        offset = (rest - centre)[INNER_RINGS * count : (INNER_RINGS + 1) * count]
        _, opening = self._meeting(offset / np.linalg.norm(offset, axis=1, keepdims=True))
        return np.asarray(opening / opening.max())

    def rises(self) -> dict[str, float]:
        """How much higher the lids meet under a unit of the gaze at weight 1, in metres at the opening's middle."""
        return {"eyeLookUp": self._config.meet_up, "eyeLookDown": self._config.meet_down}

    def shut_higher(self, rest: F64, centre: F64, rise: float) -> F64:
        """Closed lids that meet higher or lower by a length along the eyeball at the opening's middle."""
        shut = self.closed(rest, centre, 1)
        if rise == 0:
            return shut
        profile = self._opening(rest, centre) ** 2  # level into the corners
        angle = rise / self._fit.radius * profile * (1 - self._at_corner)
        # The inner surface of the lid that would get over the line of the meeting stays.
        behind = np.where(self._upper, np.maximum(angle, 0), np.minimum(angle, 0))
        angle = np.concatenate([*[behind] * INNER_RINGS, *[angle] * 3])
        radius = np.linalg.norm(shut - centre, axis=1, keepdims=True)
        return centre + radius * _raised((shut - centre) / radius, angle)

    def pressed(self, shut: F64, rest: F64, centre: F64, lift: float, overlap: float) -> F64:
        """Closed lids (H, 3) whose margins are farther from the eyeball by a lift, and overlap by a length, at the
        opening's middle."""
        profile = self._opening(rest, centre)
        towards = overlap / 2 * profile * self._by_lid(-1.0, 1.0)
        margin = self.weight * (self._follow == 1)
        radius = np.linalg.norm(shut - centre, axis=1)
        angle = np.tile(towards, INNER_RINGS + 3) * margin / radius
        reach = radius + lift * np.tile(profile, INNER_RINGS + 3) * margin
        return centre + reach[:, None] * _raised((shut - centre) / radius[:, None], angle)

    def apart(self, offsets: F64) -> F64:
        """Differences (2, K, 3) between facing columns of offsets (H, 3): of the margin's inner edge and middle."""
        count = self._rings.columns
        rings = offsets[INNER_RINGS * count : (INNER_RINGS + 2) * count].reshape(2, count, 3)
        return rings - rings[:, self._facing]

    def bulge(self, template: F64, centre: F64) -> tuple[Int, F64]:
        """Skin below the lower lid and its offsets (N, 3) outwards and up at eyeSquint."""
        rows: list[Int] = []
        amounts: list[F64] = []
        for k, ring in enumerate(self._rings.skin):
            count = len(ring)
            column = np.arange(count) / count
            across = np.where(column > 0.5, np.sin(np.pi * (2 * column - 1)), 0)
            rows.append(ring)
            amounts.append(across**2 * np.exp(-(((k - 3.2) / 1.8) ** 2)))
        vertices, amount = np.concatenate(rows), np.concatenate(amounts)
        outwards = (template[vertices] - centre) / np.linalg.norm(
            template[vertices] - centre, axis=1, keepdims=True
        )
        direction = outwards + np.array([0, 0.7, 0])
        return vertices, self._config.squint_bulge * amount[:, None] * direction

    def _meeting(self, edge: F64) -> tuple[F64, F64]:
        """(K, 3) direction in which each column of the inner edge (directions (K, 3)) meets the one it faces, and
        (K,) the angle between both."""
        facing = edge[self._facing]
        axis, angle = _turn(edge, facing)
        low = self._config.meeting + (self._config.corner_meeting - self._config.meeting) * self._at_corner
        share = np.where(self._upper, 1 - low, low)
        return _rotated(edge, axis, share * angle), angle


def _at_height(direction: F64, line: tuple[F64, F64]) -> F64:
    """Directions (K, 3) at their azimuth, at the height of a line of azimuths and heights."""
    azimuth, _ = angles_of(direction)
    return direction_of(azimuth, np.interp(azimuth, *line))


def _raised(direction: F64, angle: F64) -> F64:
    """Directions (K, 3) higher by angles (K,)."""
    azimuth, height = angles_of(direction)
    return direction_of(azimuth, height + angle)


def _turn(start: F64, end: F64) -> tuple[F64, F64]:
    """Axis (K, 3) and angle (K,) of the shortest rotation between directions (K, 3)."""
    cross = np.cross(start, end)
    sine = np.linalg.norm(cross, axis=1)
    axis = np.where(sine[:, None] > 1e-9, cross / np.maximum(sine, 1e-12)[:, None], [1.0, 0, 0])
    return axis, np.arctan2(sine, (start * end).sum(1))


def _rotated(vectors: F64, axis: F64, angle: F64) -> F64:
    """Vectors (K, 3) turned about axes (K, 3) by angles (K,): Rodrigues."""
    cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
    along = (axis * vectors).sum(1, keepdims=True)
    result: F64 = vectors * cosine + np.cross(axis, vectors) * sine + axis * along * (1 - cosine)
    return result
