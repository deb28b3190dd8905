"""Units of brows, cheeks, nose and mouth of the open head; skipped where anny isn't installed."""

import importlib.util

import numpy as np
import pytest

from avface.head.anatomy.units import REFERENCE_POINTS, UnitFigures, compare_units, reference_figures
from avface.head.open.mouth.contact import MouthContact
from avface.head.open.mouth.rings import mouth_rings
from avface.head.open.units.corrections import STEERING
from avface.head.open.units.named_points import (
    find_points,
    head_scale,
    mirrored_vertices,
    point_positions,
)

needs_anny = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("anny") is None, reason="anny is not installed"),
]


def test_every_handle_is_a_named_point_and_every_unit_a_reference_unit():
    places, reference = point_positions(), reference_figures()
    for name, steering in STEERING.items():
        assert name in reference.names
        for point in steering.points:
            assert point in places or f"{point}_left" in places, f"{name}: {point}"
    assert set(REFERENCE_POINTS) <= set(places)


@pytest.fixture(scope="module")
def steered():
    from avface.head.open.builder import base_draft
    from avface.head.open.config import OpenHeadConfig
    from avface.head.open.mouth.step import mouth
    from avface.head.open.units.step import units

    return units(mouth(base_draft(OpenHeadConfig(samples=400))))


@pytest.fixture(scope="module")
def draft(steered):
    from avface.head.open.mouth.following import mouth_follows
    from avface.head.open.pairs import lips_apart, unit_pairs

    return lips_apart(mouth_follows(unit_pairs(steered)))


class TestOpenHead:
    pytestmark = needs_anny

    def test_units_point_where_the_reference_does_and_to_no_other_unit(self, draft):
        points = find_points(draft)
        moves = [points.at(draft.expression[draft.unit(name)], REFERENCE_POINTS) for name in STEERING]
        scale = head_scale(draft.template, points)
        own = compare_units(UnitFigures(tuple(STEERING), np.stack(moves) / scale), reference_figures())
        for each in own:
            assert each.cosine > 0.85, each
            assert 0.74 < each.amplitude < 1.33, each
            assert each.nearest == each.name, each
        assert np.median([each.cosine for each in own]) > 0.92

    def test_left_and_right_mirror_each_other(self, steered):
        mirror = mirrored_vertices(steered)
        rows = steered.rows("skin")
        for name in STEERING:
            field = steered.expression[steered.unit(name), rows]
            twin = name.replace("Left", "Right") if name.endswith("Left") else name
            mirrored = steered.expression[steered.unit(twin), mirror[rows]] * [-1, 1, 1]
            assert np.abs(field - mirrored).max() < 1e-9, name

    def test_ears_and_the_back_of_the_head_stay(self, draft):
        still = draft.regions["ears"] | (draft.template[:, 2] < -0.01) & ~draft.regions["neck"]
        still &= np.isin(np.arange(len(still)), draft.rows("skin"))
        for name in STEERING:
            assert not draft.expression[draft.unit(name), still].any(), name
        upper = draft.rows("skin")[draft.template[draft.rows("skin"), 1] > 0]
        assert not draft.expression[draft.unit("mouthSmileLeft"), upper].any()

    def test_lips_do_not_go_through_each_other(self, draft):
        contact = MouthContact(draft, mouth_rings(draft))
        combinations = [
            *((name,) for name in STEERING),
            ("mouthRollLower", "mouthRollUpper"),
            ("mouthRollLower", "mouthPressLeft"),
            ("mouthRollUpper", "mouthPressLeft"),
            ("noseSneerLeft", "mouthSmileLeft"),
            ("mouthUpperUpLeft", "mouthSmileLeft"),
            ("mouthPucker", "jawOpen"),
            ("mouthFunnel", "jawOpen"),
            ("mouthStretchLeft", "jawOpen"),
            ("mouthSmileLeft", "jawOpen"),
            ("mouthRollLower", "jawOpen"),
            ("cheekPuff", "mouthPressLeft"),
        ]
        deepest = {}
        for units in combinations:
            weights = {}
            for unit in units:
                weights[unit] = 1.0
                if unit.endswith("Left") and unit not in ("jawLeft", "mouthLeft"):
                    weights[unit.replace("Left", "Right")] = 1.0
            ways = contact.through_flesh(draft.vertices(weights)).ways
            deepest[units] = float(np.linalg.norm(ways, axis=1).max(initial=0))
        # Both lips rolled in meet behind the contact, out of sight.
        assert deepest.pop(("mouthRollLower", "mouthRollUpper")) < 0.0006
        assert not {units: depth for units, depth in deepest.items() if depth > 0.0003}

    def test_lips_that_are_pressed_together_only_touch_by_the_rule_of_the_anatomy_check(self, draft):
        contact = MouthContact(draft, mouth_rings(draft))
        press = {"mouthPressLeft": 1.0, "mouthPressRight": 1.0}
        dimples = {"mouthDimpleLeft": 1.0, "mouthDimpleRight": 1.0}
        for weights in ({**press, **dimples}, {"jawLeft": 1.0}):
            assert not len(contact.ways(draft.vertices(weights), 0.0003).ways), weights
