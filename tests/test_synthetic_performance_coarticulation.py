"""Lips and jaw follow phonemes: closures close, rounding rounds ahead of time, lips lead the sound."""
# ruff: noqa: RUF001 - IPA

import numpy as np
import pytest

from avface.evaluation.metrics import lag
from avface.head import load_head
from avface.head.schemes import LIP_CORNERS_OUTER, LIPS_INNER_LOWER, LIPS_INNER_UPPER
from avface.synthetic.performance.coarticulation import (
    GESTURES,
    SpeakingStyle,
    gesture_curves,
    ipa_letters,
    mouth_curves,
    sample_style,
)
from avface.synthetic.performance.espeak import Phoneme

STYLE = SpeakingStyle()


@pytest.fixture(scope="module")
def head():
    return load_head()


def phonemes(symbols, length=0.08, start=0.5):
    """Phonemes of equal lengths, and when the last one ends."""
    said = tuple(Phoneme(symbol, start + length * k) for k, symbol in enumerate(symbols.split()))
    return said, start + length * len(said)


def middle(said, end, number, style=STYLE):
    """When the mouth is at the middle of a phoneme."""
    until = said[number + 1].start if number + 1 < len(said) else end
    return (said[number].start + until) / 2 - style.lead


def mouth_at(head, symbols, number, length=0.08, style=STYLE):
    """Weights (E,) in the middle of a phoneme."""
    said, end = phonemes(symbols, length)
    at = middle(said, end, number, style)
    return mouth_curves(said, end, np.array([at]), head.expression_names, style)[0]


def points_of(head, weights):
    """Landmarks (L, 3) of the average head."""
    mesh = head.template.numpy() + np.tensordot(weights, head.expression_basis.numpy(), 1)
    embedding = head.embedding("mediapipe478")
    return np.einsum("lkc,lk->lc", mesh[embedding.triangles], embedding.barycentric)


def lip_gap(head, weights):
    """Metres between the skin of the upper and of the lower lip in the middle of the mouth; below 0 they press."""
    basis = head.expression_basis.numpy()
    rest = head.template.numpy()
    jaw = basis[head.expression_names.index("jawOpen"), :, 1]
    near = head.regions["lips"] & (np.abs(rest[:, 0]) < 0.001)
    mesh = rest + np.tensordot(weights, basis, 1)
    upper, lower = near & (jaw > -0.01), near & (jaw < -0.02)
    return float(mesh[upper, 1].min() - mesh[lower, 1].max())


def width(head, weights):
    points = points_of(head, weights)
    return float(np.linalg.norm(np.subtract(*points[LIP_CORNERS_OUTER])))


@pytest.mark.parametrize("closure", "pbm")
@pytest.mark.parametrize("around", ["a", "u", "i", "ɔ", "ʃ"])
@pytest.mark.parametrize("length", [0.05, 0.08, 0.13])
def test_bilabials_close_the_lips_whatever_is_around_and_however_fast(head, closure, around, length):
    symbols = f"{around} {closure} {around}"

    assert lip_gap(head, mouth_at(head, symbols, 1, length)) < 0.0005
    if around == "a":
        assert lip_gap(head, mouth_at(head, symbols, 2, length)) > 0.003


def test_closures_are_complete_for_every_speaker(head):
    for seed in range(30):
        style = sample_style(np.random.default_rng(seed))
        assert lip_gap(head, mouth_at(head, "a m a", 1, 0.07, style)) < 0.0005, style


def test_a_closure_lasts_so_long_that_a_video_shows_it(head):
    said, end = phonemes("a b a", 0.07)
    times = np.arange(0.3, 0.8, 0.004)
    curves = mouth_curves(said, end, times, head.expression_names)
    shut = np.array([lip_gap(head, weights) for weights in curves]) < 0.0005

    inside = shut & (np.abs(times - middle(said, end, 1)) < 0.1)
    assert 0.04 <= 0.004 * inside.sum() <= 0.12


def test_labiodentals_bring_the_lower_lip_up_and_back_under_the_upper_one(head):
    for symbol in "fv":
        bitten, open_ = mouth_at(head, f"a {symbol} a", 1), mouth_at(head, "a l a", 1)
        rest = points_of(head, np.zeros(head.num_expression))
        lower, upper = LIPS_INNER_LOWER[4], LIPS_INNER_UPPER[4]
        bite = points_of(head, bitten)

        assert lip_gap(head, bitten) < 0.0035 < lip_gap(head, open_)  # the upper teeth are seen between
        assert (bite - rest)[lower, 2] < (bite - rest)[upper, 2] - 0.001


def test_u_rounds_and_i_spreads(head):
    rest = width(head, np.zeros(head.num_expression))

    assert width(head, mouth_at(head, "t u t", 1, 0.12)) < rest - 0.002
    assert width(head, mouth_at(head, "t i t", 1, 0.12)) > rest + 0.001


def test_a_opens_more_than_i_and_strength_opens_more(head):
    def opening(symbols, style=STYLE):
        return lip_gap(head, mouth_at(head, symbols, 1, 0.12, style))

    assert opening("t a t") > 2 * opening("t i t")
    assert opening("t a t", SpeakingStyle(strength=1.4)) > 1.2 * opening("t a t")


def test_rounding_is_prepared_during_consonants_before_the_vowel():
    pucker = GESTURES.index("pucker")
    said, end = phonemes("i s t u")
    at = np.array([middle(said, end, 2)])
    unrounded = tuple(Phoneme(p.symbol.replace("u", "i"), p.start) for p in said)

    ahead = gesture_curves(said, end, at)[0, pucker]
    behind_said, behind_end = phonemes("u t s i")
    behind = gesture_curves(behind_said, behind_end, np.array([middle(behind_said, behind_end, 1)]))[
        0, pucker
    ]
    assert ahead > 0.1 > gesture_curves(unrounded, end, at)[0, pucker]
    assert ahead > behind


def test_lips_lead_the_sound_by_the_speakers_lead(head):
    rng = np.random.default_rng(3)
    symbols = " ".join(f"{rng.choice(list('tkdnlb'))} {rng.choice(list('aiueɑæ'))}" for _ in range(40))
    said, end = phonemes(symbols, 0.085)
    step = 0.01
    times = np.arange(0.5, end - 0.3, step)
    openness = np.array([{"a": 0.46, "ɑ": 0.5, "æ": 0.42, "e": 0.2}.get(p.symbol, 0.1) for p in said])
    heard = openness[np.searchsorted([p.start for p in said], times, side="right") - 1]
    jaw = mouth_curves(said, end, times, ("jawOpen",))[:, 0]

    frames, r = lag(jaw, heard, 25)
    assert r > 0.6
    assert 0.06 <= -frames * step <= 0.12


def test_the_jaw_is_slower_than_the_lips():
    said, end = phonemes("a b a b a b a", 0.1)
    times = np.arange(0.5, 1.1, 0.002)
    curves = gesture_curves(said, end, times)

    def quickness(name):
        column = curves[:, GESTURES.index(name)]
        return np.abs(np.diff(column)).max() / np.ptp(column)

    assert quickness("jaw") < 0.8 * quickness("seal")


def test_units_stay_within_bounds_and_mouthclose_within_jawopen(head):
    rng = np.random.default_rng(0)
    alphabet = [*"pbmfvθðtdnlszʃʒkɡŋhjwɹɾaeiouæɑɔəɛɪʊyøœ", "tʃ", "aɪ", "ɔːɹ", "", "?"]
    names = head.expression_names
    for _ in range(20):
        said = tuple(Phoneme(str(rng.choice(alphabet)), 0.06 * k) for k in range(40))
        curves = mouth_curves(said, 2.4, np.arange(0, 2.4, 0.02), names, sample_style(rng))
        assert np.isfinite(curves).all() and curves.min() >= 0 and curves.max() <= 1
        assert (curves[:, names.index("mouthClose")] <= curves[:, names.index("jawOpen")] + 1e-12).all()


def test_a_long_pause_closes_the_mouth_and_a_breath_opens_it(head):
    said = (Phoneme("a", 0.0), Phoneme("", 0.1), Phoneme("a", 1.4))
    jaw, seal = (
        gesture_curves(said, 1.5, np.array([0.6, 1.2]))[:, GESTURES.index(name)] for name in ("jaw", "seal")
    )
    assert seal[0] > 0.95 and seal[1] < 0.5
    assert jaw[1] > jaw[0] + 0.02


def test_silence_leaves_the_mouth_at_rest():
    curves = gesture_curves((), 0.0, np.arange(0, 2, 0.04), SpeakingStyle(rest_jaw=0.03, rest_seal=1.0))
    np.testing.assert_allclose(curves[:, GESTURES.index("jaw")], 0.03)
    np.testing.assert_allclose(curves[:, GESTURES.index("seal")], 1.0)


def test_phonemes_fall_into_letters_that_share_their_length():
    assert ipa_letters("tʃ") == [("t", 0.5), ("ʃ", 0.5)]
    assert ipa_letters("ɔːɹ") == [("ɔ", 2 / 3), ("ɹ", 1 / 3)]
    assert ipa_letters("ɑ̃") == [("ɑ", 1.0)]
    assert ipa_letters("") == ipa_letters("ʲ") == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strength": -0.1}, "strength=-0.1 must be a finite number, not negative"),
        ({"variation": float("nan")}, "variation=nan must be a finite number"),
        ({"asymmetry": 1.5}, "asymmetry=1.5 must be from -1 to 1"),
        ({"rest_seal": 1.2}, "rest_seal=1.2 must be from 0 to 1"),
        ({"lip_hold": 2.0}, "lip_hold=2.0 must be from 0 to 1"),
    ],
)
def test_impossible_styles_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SpeakingStyle(**settings)


def test_a_diphthong_moves_within_itself():
    said, end = (Phoneme("aɪ", 0.5),), 0.8
    curves = gesture_curves(said, end, np.array([0.575, 0.725]) - STYLE.lead)
    jaw, spread = curves[:, GESTURES.index("jaw")], curves[:, GESTURES.index("spread")]
    assert jaw[0] > jaw[1] + 0.1 and spread[1] > spread[0]
