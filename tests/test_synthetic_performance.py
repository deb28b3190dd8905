"""Performances: contents, determinism and plausibility."""
# ruff: noqa: RUF001 - IPA

from itertools import pairwise

import numpy as np
import pytest
import torch

from avface.head import load_head
from avface.speech.spectrum import SAMPLE_RATE
from avface.synthetic.performance.coarticulation import GESTURES
from avface.synthetic.performance.espeak import speak
from avface.synthetic.performance.eyes import blink_curve, gaze_angles, gaze_units
from avface.synthetic.performance.facial_expression import EMOTIONS, emotion_curves, idle_curves
from avface.synthetic.performance.head_motion import head_motion
from avface.synthetic.performance.nonspeech import KINDS, sample_nonspeech
from avface.synthetic.performance.performance import Performance, _combined, perform
from avface.synthetic.performance.random_curves import minimum_jerk, pulse, smooth_noise
from avface.synthetic.performance.sentences import LANGUAGES, TIMBRES, sample_sentence, sample_voice

pytest.importorskip("espeakng_loader")


@pytest.fixture(scope="module")
def head():
    return load_head()


@pytest.fixture(scope="module")
def performances(head):
    return [perform(np.random.default_rng([7, seed]), head, 4.0) for seed in range(24)]


@pytest.mark.parametrize("kind", ["speech", "silence", "sounds"])
@pytest.mark.parametrize(("seconds", "frame_rate"), [(2.0, 25.0), (1.37, 30.0), (0.04, 25.0)])
def test_sizes_types_and_bounds(head, kind, seconds, frame_rate):
    made = perform(np.random.default_rng(0), head, seconds, frame_rate, kind)

    frames = round(seconds * frame_rate)
    assert made.expression.shape == (frames, head.num_expression)
    assert made.joints.shape == (frames, head.num_joints, 3)
    assert made.turn.shape == made.shift.shape == (frames, 3)
    assert made.sound.shape == (round(frames / frame_rate * SAMPLE_RATE),)
    for array in (made.expression, made.joints, made.turn, made.shift, made.sound):
        assert array.dtype == np.float32 and np.isfinite(array).all()
    assert made.expression.min() >= 0 and made.expression.max() <= 1
    assert np.abs(made.sound).max() <= 1
    assert made.kind == kind and made.emotion in EMOTIONS
    assert bool(made.voice) == bool(made.language) == (kind == "speech")


def test_the_same_seed_gives_the_same_performance_and_another_one_another(head):
    first, again, other = (perform(np.random.default_rng([1, s]), head, 2.0) for s in (5, 5, 6))
    for name in ("expression", "joints", "turn", "shift", "sound"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert first.phonemes == again.phonemes
    assert not np.array_equal(first.expression, other.expression)


def test_phonemes_are_in_order_and_within_the_clip(performances):
    for made in performances:
        starts = np.array([phoneme.start for phoneme in made.phonemes])
        assert (np.diff(starts) > 0).all()
        assert (starts[1:] > 0).all() and (starts < len(made) / made.frame_rate).all()
        pauses = [not phoneme.symbol for phoneme in made.phonemes]
        assert not any(a and b for a, b in pairwise(pauses))


def test_sound_is_where_the_vowels_are_and_not_in_the_pauses(performances):
    loud, quiet = [], []
    for made in performances:
        ends = [p.start for p in made.phonemes[1:]] + [len(made) / made.frame_rate]
        for phoneme, end in zip(made.phonemes, ends, strict=True):
            piece = made.sound[max(0, int(phoneme.start * SAMPLE_RATE)) : int(end * SAMPLE_RATE)]
            if phoneme.symbol[:1] in ("a", "ɑ", "o", "e") and len(piece) > 500:
                loud.append(piece.std() / made.sound.std())
            elif not phoneme.symbol and end - phoneme.start > 0.25:
                quiet.append(piece[len(piece) // 3 :].std() / made.sound.std())
    assert np.median(loud) > 1 > 0.1 > np.median(quiet)


def test_languages_voices_and_emotions_vary(head):
    made = [perform(np.random.default_rng([3, seed]), head, 0.4) for seed in range(40)]
    assert len({m.language for m in made}) >= 8
    assert len({m.voice for m in made}) >= 30
    assert len({m.emotion for m in made}) == len(EMOTIONS)


def test_mouths_move_with_speech_and_hardly_without(head):
    jaw = head.expression_names.index("jawOpen")

    def movement(kind):
        made = [perform(np.random.default_rng([2, seed]), head, 3.0, kind=kind) for seed in range(12)]
        return np.mean([np.abs(np.diff(m.expression[:, jaw])).mean() for m in made])

    assert movement("speech") > 8 * movement("silence")
    assert movement("speech") > 8 * movement("sounds")


def test_a_silent_face_blinks_and_moves(head):
    made = perform(np.random.default_rng(4), head, 6.0, kind="silence")
    lids = made.expression[:, head.expression_names.index("eyeBlinkLeft")]
    assert lids.max() > 0.8 and made.turn.std(0).min() > np.radians(0.1)
    assert (made.expression.std(0) > 1e-3).sum() > 10


def test_bilabials_close_in_the_finished_performance(head):
    names = head.expression_names
    seal = np.zeros((3, len(GESTURES)))
    seal[:, GESTURES.index("seal")] = 1
    nonverbal = np.ones((3, len(names)))
    spoken = np.zeros((3, len(names)))
    spoken[:, [names.index("jawOpen"), names.index("mouthClose")]] = 0.2

    combined = _combined(spoken, nonverbal, seal, names)
    for opening in ("mouthUpperUpLeft", "mouthLowerDownLeft", "mouthFunnel", "mouthShrugUpper", "tongueOut"):
        assert combined[:, names.index(opening)].max() == 0, opening
    np.testing.assert_allclose(combined[:, names.index("jawOpen")], combined[:, names.index("mouthClose")])


def test_opposite_units_exclude_each_other(head, performances):
    opposites = [("jawLeft", "jawRight"), ("mouthLeft", "mouthRight")]
    for side in ("Left", "Right"):
        opposites += [(f"mouthSmile{side}", f"mouthFrown{side}"), (f"browDown{side}", f"browOuterUp{side}")]
    column = head.expression_names.index
    for made in performances:
        for one, other in opposites:
            both = np.minimum(made.expression[:, column(one)], made.expression[:, column(other)])
            assert both.max() < 1e-6, (one, other)
        assert (
            made.expression[:, column("mouthClose")] <= made.expression[:, column("jawOpen")] + 1e-6
        ).all()


def test_eyeballs_and_eyelook_units_agree(head, performances):
    left, right = (head.joint_names.index(f"{side}_eye") for side in ("left", "right"))
    column = head.expression_names.index
    up, down, _, outward = head.gaze_range
    for made in performances:
        np.testing.assert_array_equal(made.joints[:, left], made.joints[:, right])
        pitch, yaw = made.joints[:, left, 0], made.joints[:, left, 1]
        vertical = (
            made.expression[:, column("eyeLookDownLeft")] * down
            - made.expression[:, column("eyeLookUpLeft")] * up
        )
        np.testing.assert_allclose(vertical, pitch, atol=1e-5)
        np.testing.assert_allclose(
            made.expression[:, column("eyeLookOutLeft")] * outward, np.maximum(yaw, 0), atol=1e-5
        )


def test_the_vestibulo_ocular_reflex_compensates_head_rotation():
    times = np.arange(0, 20, 0.02)
    turn = np.zeros((len(times), 3))
    turn[:, 1] = 0.12 * np.sin(2 * np.pi * 0.4 * times)
    eye, _ = gaze_angles(np.random.default_rng(1), times, turn, np.full(4, 0.4))

    slow = np.abs(np.diff(eye[:, 1])) < 0.01  # between saccades
    slope = np.polyfit(np.diff(turn[:, 1])[slow], np.diff(eye[:, 1])[slow], 1)[0]
    assert -1.15 < slope < -0.75


def test_gaze_stays_in_its_range_and_fixates_most_of_the_time():
    times = np.arange(0, 30, 0.02)
    limits = np.array([0.17, 0.2, 0.27, 0.26])
    eye, _ = gaze_angles(np.random.default_rng(2), times, np.zeros((len(times), 3)), limits)
    units = gaze_units(eye, limits)

    assert (eye[:, 0] >= -0.17).all() and (eye[:, 0] <= 0.2).all() and (np.abs(eye[:, 1]) <= 0.26).all()
    assert all(weight.min() >= 0 and weight.max() <= 1 for weight in units.values())
    speed = np.degrees(np.linalg.norm(np.diff(eye, axis=0), axis=1)) / 0.02
    assert (speed < 25).mean() > 0.8 and speed.max() > 60


def test_blink_rate_and_duration_are_human():
    times = np.arange(0, 60, 0.01)
    rates, lengths, deepest = [], [], []
    for seed in range(40):
        shut = blink_curve(np.random.default_rng(seed), times)
        inside = np.concatenate([[False], shut > 0.02, [False]])
        edges = np.flatnonzero(np.diff(inside.astype(int)))
        starts, ends = edges[::2], edges[1::2]
        rates.append(len(starts))
        lengths += list(0.01 * (ends - starts))
        deepest += [shut[a:b].max() for a, b in zip(starts, ends, strict=True)]
    assert 10 < np.mean(rates) < 35 and np.std(rates) > 3
    assert 0.15 < np.median(lengths) < 0.4
    assert 0.75 < np.mean(np.array(deepest) > 0.9) < 0.97  # the others are partial


def test_a_closed_eye_is_not_wide(head, performances):
    column = head.expression_names.index
    for made in performances:
        blink, wide = made.expression[:, column("eyeBlinkLeft")], made.expression[:, column("eyeWideLeft")]
        assert (wide[blink > 0.9] < 0.15).all()


def test_head_motion_is_band_limited():
    times = np.arange(0, 20, 0.01)
    pivot = np.array([0.0, -0.12, 0.0])
    for seed in range(5):
        rng = np.random.default_rng(seed)
        turn, _ = head_motion(rng, times, np.array([[2.0, 1.0], [5.0, 1.5]]), pivot)
        power = np.abs(np.fft.rfft((turn - turn.mean(0)) * np.hanning(len(times))[:, None], axis=0)) ** 2
        frequency = np.fft.rfftfreq(len(times), 0.01)
        assert power[frequency > 5].sum() < 1e-3 * power.sum()
        assert np.abs(np.degrees(turn[:, 1])).max() < 90


def test_the_neck_stays_in_place_when_the_head_rotates():
    """All translation that isn't the rotation's about the neck is independent of the pivot."""
    from avface.geometry.axes import flip_axes
    from avface.geometry.rotations import euler_to_rotmat

    times = np.arange(0, 10, 0.02)
    pivot = np.array([0.0, -0.12, 0.02])
    turn, shift = head_motion(np.random.default_rng(3), times, np.zeros((0, 2)), pivot)
    _, without = head_motion(np.random.default_rng(3), times, np.zeros((0, 2)), np.zeros(3))

    rotation = euler_to_rotmat("YXZ", torch.as_tensor(turn)[:, [1, 0, 2]]).numpy()
    about_neck = pivot - rotation @ pivot
    expected = flip_axes(about_neck - about_neck.mean(0))
    share = (shift - without).ravel() @ expected.ravel() / (expected**2).sum()
    assert 0.5 <= share <= 1
    np.testing.assert_allclose(shift - without, share * expected, atol=1e-12)


def test_nods_go_down_at_stresses():
    times = np.arange(0, 60, 0.02)
    stresses = np.stack([np.arange(2, 58, 2.0), np.full(28, 2.0)], 1)

    def drop(pitch):
        at, before = (np.interp(stresses[:, 0] + delta, times, pitch) for delta in (0.02, -0.35))
        return (at - before).mean()

    nods, still = [], []
    for seed in range(12):
        for drops, given in ((nods, stresses), (still, np.zeros((0, 2)))):
            turn, _ = head_motion(np.random.default_rng(seed), times, given, np.zeros(3))
            drops.append(drop(turn[:, 0]))
    assert np.mean(nods) > np.radians(0.3)
    assert abs(np.mean(still)) < np.radians(0.1)


def test_emotions_have_their_units(head):
    times = np.arange(0, 4, 0.04)
    names = head.expression_names
    happy = emotion_curves(np.random.default_rng(0), times, names, "happy", 1.0).mean(0)
    sad = emotion_curves(np.random.default_rng(0), times, names, "sad", 1.0).mean(0)
    weak = emotion_curves(np.random.default_rng(0), times, names, "happy", 0.3).mean(0)
    smile, frown = names.index("mouthSmileLeft"), names.index("mouthFrownLeft")
    assert happy[smile] > 0.2 and happy[frown] == 0 and sad[frown] > 0.15 and sad[smile] == 0
    assert weak[smile] == pytest.approx(0.3 * happy[smile], rel=0.05)
    assert emotion_curves(np.random.default_rng(0), times, names, "neutral", 0.0).max() == 0
    assert idle_curves(np.random.default_rng(0), times, names, 0.0).max() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_other_sounds_are_audible_and_differ(kind):
    first, second = (sample_nonspeech(np.random.default_rng(s), 1.5, SAMPLE_RATE, kind) for s in (0, 1))
    assert first.shape == (24_000,)
    assert 0.05 < np.abs(first).max() <= 0.9 and np.abs(first - second).max() > 0.05


@pytest.mark.parametrize("language", list(LANGUAGES))
def test_every_language_has_complete_sentences_that_can_be_synthesised(language):
    rng = np.random.default_rng(0)
    said = {sample_sentence(rng, language) for _ in range(60)}
    assert len(said) > 40
    assert all(sentence[-1] in ".?!" and "{" not in sentence for sentence in said)
    speech = speak(min(said, key=len), sample_voice(rng, language))
    assert len([p for p in speech.phonemes if p.symbol]) >= 5


def test_timbres_exist():
    from avface.synthetic.performance.espeak import voice_variants

    assert set(TIMBRES) <= set(voice_variants())


def test_a_capture_of_a_performance_is_the_performance(head):
    made = perform(np.random.default_rng(9), head, 1.0)
    shape = np.random.default_rng(9).normal(size=head.num_shape)
    capture = made.capture(head, shape)

    assert len(capture) == 25
    np.testing.assert_array_equal(capture.expression, made.expression)
    mesh = head(
        torch.as_tensor(shape, dtype=torch.float32)[None],
        torch.as_tensor(made.expression[:1]),
        torch.as_tensor(made.joints[:1]),
    )
    np.testing.assert_allclose(capture.vertices([0], "head"), mesh.numpy(), atol=1e-6)


def test_a_turn_to_the_left_moves_the_nose_to_the_right_of_the_picture(head):
    """The subject's left is on the right in the camera; positive pitch looks down."""

    def nose(turn):
        made = Performance(
            25.0,
            np.zeros((1, head.num_expression), np.float32),
            np.zeros((1, head.num_joints, 3), np.float32),
            np.array([turn], np.float32),
            np.zeros((1, 3), np.float32),
            np.zeros(640, np.float32),
            (),
            "silence",
            "",
            "",
            "neutral",
        )
        return made.capture(head, np.zeros(head.num_shape)).landmarks()[0, 1]

    assert nose([0, 0.3, 0])[0] > nose([0, 0, 0])[0] + 10
    assert nose([0.3, 0, 0])[1] > nose([0, 0, 0])[1] + 10


@pytest.mark.parametrize("bad", [{"seconds": 0.0}, {"seconds": 0.01}, {"kind": "song"}])
def test_impossible_performances_are_refused(head, bad):
    with pytest.raises(ValueError, match=r"less than one frame|'speech', 'silence' or 'sounds'"):
        perform(np.random.default_rng(0), head, **{"seconds": 1.0, **bad})


def test_smooth_noise_has_unit_size_and_no_high_frequencies():
    times = np.arange(0, 400, 0.02)
    curve = smooth_noise(np.random.default_rng(0), times, 1.0)
    power = np.abs(np.fft.rfft(curve)) ** 2
    frequency = np.fft.rfftfreq(len(times), 0.02)
    assert 0.85 < curve.std() < 1.15 and abs(curve.mean()) < 0.2
    assert power[frequency > 2].sum() < 1e-3 * power.sum()


def test_movements_begin_and_end_at_rest():
    times = np.arange(-1, 3, 0.001)
    course = pulse(times, 0.0, 0.5, 0.2, 0.8)
    assert course[0] == course[-1] == 0 and course.max() == pytest.approx(1)
    assert np.abs(np.diff(course, 2)).max() < 1e-4
    assert minimum_jerk(np.array([-1.0, 0.0, 0.5, 1.0, 2.0])) == pytest.approx([0, 0, 0.5, 1, 1])
