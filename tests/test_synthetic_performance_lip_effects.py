"""Lip effects that no unit makes: their place, their times, and the deformation of a mouth."""

import numpy as np
import pytest
import torch
from lips_seen import inside_seen

from avface.head.asset import load_head
from avface.networks.lips.network import EFFECTS
from avface.synthetic.performance.espeak import Phoneme
from avface.synthetic.performance.lip_effects import (
    MAX_OFFSET,
    LipEffects,
    LipStyle,
    effect_curves,
    lip_style_vector,
    sample_lip_offsets,
    sample_lip_style,
)
from avface.synthetic.performance.performance import perform

TIMES = np.arange(0, 2, 0.01)


@pytest.fixture(scope="module")
def head():
    return load_head()


@pytest.fixture(scope="module")
def shapes(head):
    return LipEffects.of(head)


def said(letter, before="a", after="a"):
    """A phoneme from 0.8 to 0.95 s between two others, with pauses around."""
    phonemes = [Phoneme("", 0.0), Phoneme(before, 0.6), Phoneme(letter, 0.8), Phoneme(after, 0.95)]
    return effect_curves([*phonemes, Phoneme("", 1.15)], 2.0, TIMES)


def moved(shapes, effect, style=None, strength=1.0):
    """Movement (N, 3) in millimetres of one effect."""
    curves = torch.zeros(1, 4)
    curves[0, EFFECTS.index(effect)] = strength
    return 1000 * shapes.effects(curves, lip_style_vector(style or LipStyle())[None])[0].numpy()


@pytest.mark.parametrize(
    ("letter", "effect"),
    [("p", "press"), ("m", "press"), ("f", "tuck"), ("u", "round"), ("ʃ", "round"), ("i", "spread")],
)
def test_phonemes_have_their_effect_ahead_of_the_sound(letter, effect):
    curves = said(letter)
    peak = TIMES[curves[:, EFFECTS.index(effect)].argmax()]

    assert curves.max(0).argmax() == EFFECTS.index(effect)
    assert curves.max() > 0.5
    assert 0.65 < peak < 0.9


def test_effects_are_zero_without_speech():
    curves = said("p", "i", "u")

    assert (curves[TIMES < 0.1] == 0).all() and (curves[TIMES > 1.6] == 0).all()
    assert not effect_curves([Phoneme("", 0.0)], 2.0, TIMES).any()
    assert not effect_curves([], 2.0, TIMES).any()


def test_effects_are_smooth_in_time():
    curves = said("b", "u", "i")

    assert np.abs(np.diff(curves, axis=0)).max() < 0.3  # per 10 ms
    assert np.abs(np.diff(curves, 2, axis=0)).max() < 0.1


def test_pressed_lips_get_narrow_and_flat(shapes):
    region = shapes.region
    move = moved(shapes, "press")
    middle = np.abs(region.across) < 0.4
    border, edge = np.abs(region.outward - 1) < 0.2, np.abs(region.outward - 0.1) < 0.15
    upper, lower = region.lower == 0, region.lower == 1

    assert move[middle & border & upper, 1].mean() < -0.5  # the red's borders come closer
    assert move[middle & border & lower, 1].mean() > 0.5
    assert move[middle & edge, 2].mean() < -1  # the edge rolls in


def test_lower_lip_tucks_and_the_upper_one_hardly_moves(shapes):
    region, move = shapes.region, moved(shapes, "tuck")
    edge = (np.abs(region.across) < 0.4) & (np.abs(region.outward) < 0.3)

    assert move[edge & (region.lower == 1), 2].mean() < -1.5
    assert np.linalg.norm(move[region.lower == 0], axis=1).max() < 0.6


def test_rounding_thickens_and_spreading_thins(shapes):
    region = shapes.region
    red = (np.abs(region.across) < 0.5) & (region.outward > 0.2) & (region.outward < 0.8)
    border = (np.abs(region.across) < 0.5) & (np.abs(region.outward - 1) < 0.3)
    side = 1 - 2 * region.lower

    for effect, sign in (("round", 1), ("spread", -1)):
        move = moved(shapes, effect) * sign
        assert move[red, 2].mean() > 0.8
        assert (move[border, 1] * side[border]).mean() > 0.4


def test_offsets_are_small_fade_at_the_edge_and_leave_the_rest_alone(shapes):
    strong = LipStyle(strength=(1.6, 1.6, 1.6, 1.6), asymmetry=0.35, lower=0.3)
    for effect in EFFECTS:
        length = np.linalg.norm(moved(shapes, effect, strong), axis=1)
        assert 1 < length.max() <= 1000 * MAX_OFFSET + 1e-3
        assert length[shapes.region.falloff < 0.05].max() < 0.2


def test_speakers_differ(shapes):
    one, other = (sample_lip_style(np.random.default_rng(seed)) for seed in (0, 1))
    assert one != other
    left, right = shapes.region.across > 0.2, shapes.region.across < -0.2
    lopsided = np.linalg.norm(moved(shapes, "round", LipStyle(asymmetry=0.3)), axis=1)

    assert lopsided[left].mean() > 1.2 * lopsided[right].mean()


def test_pressed_lips_touch_and_dont_pass_through_each_other(head, shapes):
    numbers = torch.from_numpy(shapes.region.vertices)
    units = torch.zeros(1, head.num_expression)
    units[0, head.expression_names.index("jawOpen")] = 0.06
    base = head(torch.zeros(1, head.num_shape), units)[:, numbers]
    curves = torch.tensor([[1.0, 0, 0, 0]])
    assert inside_seen(head, shapes.region, base[0], 0.06) > 200

    offsets = shapes.offsets(base, curves, lip_style_vector(LipStyle())[None])

    assert inside_seen(head, shapes.region, (base + offsets)[0], 0.06) == 0
    at_rest = shapes.contact.opening(head.template[numbers])
    assert shapes.contact.opening(base + offsets) < 0.5 * at_rest, "closer than at rest"
    assert shapes.contact.penetration(base + offsets) <= 5e-5
    assert not shapes.offsets(base, torch.zeros(1, 4), lip_style_vector(LipStyle())[None]).any()


def test_offsets_of_a_performance(head):
    performance = perform(np.random.default_rng(3), head, 2.0)
    shape = 0.5 * np.random.default_rng(1).normal(size=head.num_shape)

    offsets = sample_lip_offsets(performance, head, shape, seed=5)

    assert offsets.shape == (50, len(LipEffects.of(head).region), 3)
    assert torch.equal(offsets, sample_lip_offsets(performance, head, shape, seed=5))
    assert not torch.equal(offsets, sample_lip_offsets(performance, head, shape, seed=6))
    assert offsets.abs().max() > 5e-4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strength": (1.0, 1.0, 1.0)}, r"strength=\(1.0, 1.0, 1.0\) must be 4 numbers"),
        ({"strength": (1.0, 1.0, -1.0, 1.0)}, "must be 4 numbers that aren't negative"),
        ({"asymmetry": -1.5}, "asymmetry=-1.5 must be from -1 to 1"),
        ({"lower": 2.0}, "lower=2.0 must be from -1 to 1"),
    ],
)
def test_impossible_lip_styles_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LipStyle(**settings)
