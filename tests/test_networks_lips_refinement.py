"""Lips of a whole clip: offsets from sound, contact, and their principal components."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lip_captures import small_lips

import avface.networks.coarse.inference
import avface.networks.lips.refinement
from avface.errors import AvfaceError
from avface.geometry.camera import Camera
from avface.head import load_head
from avface.head.schemes import LIPS, LIPS_INNER_LOWER, LIPS_INNER_UPPER
from avface.networks.lips.network import LipMotion, predict_lips, pretrained_lips, save_lips, speech_gate
from avface.networks.lips.refinement import COMPONENTS, LipRefinement, pretrained_lip_refinement
from avface.networks.lips.visual_evidence import LipObservation
from avface.networks.running_pca import RunningPca
from avface.speech import SpeechFeatures, speech_features
from avface.speech.features import framed

FRAMES, RATE = 100, 25.0
TIMES = np.arange(FRAMES) / RATE


@pytest.fixture(scope="module")
def head():
    return load_head("open")


@pytest.fixture(scope="module")
def refinement(head):
    return LipRefinement.of(small_lips(), head)


@pytest.fixture
def activity(monkeypatch):
    """Sets the times of speech; the other features are those of the sound."""

    def speaking(start, end):
        def heard(rows, first_row, sound, times, *others):
            speaks = ((times > start) & (times < end)).astype(np.float32)
            return replace(framed(rows, first_row, sound, times, *others), speech_activity=speaks)

        monkeypatch.setattr(avface.speech.stream, "framed", heard)

    return speaking


def noise(seconds=FRAMES / RATE, seed=0, blocks=7):
    samples = 0.1 * np.random.default_rng(seed).normal(size=int(16_000 * seconds)).astype(np.float32)
    return np.array_split(samples, blocks)


def refined(refinement, sound, expression=None, chosen=None):
    expression = (
        np.zeros((FRAMES, refinement.head.num_expression), np.float32) if expression is None else expression
    )
    chosen = np.ones(FRAMES, bool) if chosen is None else chosen
    shape = np.zeros(refinement.head.num_shape, np.float32)
    return refinement.refine(shape, expression, TIMES, sound, chosen)


def lips_at(refinement, expression, lips=None):
    """The lips' vertices (T, N, 3) on the average head."""
    head, numbers = refinement.head, refinement.network.numbers
    units = torch.as_tensor(expression) @ head.expression_basis[:, numbers].flatten(1)
    place = head.template[numbers] + units.unflatten(1, (-1, 3))
    return place if lips is None else place + torch.as_tensor(np.tensordot(lips.weights, lips.basis, 1))


def pressed(head):
    """Expressions with intersecting lips."""
    expression = np.zeros((FRAMES, head.num_expression), np.float32)
    for name in ("mouthClose", "mouthShrugLower"):
        expression[:, head.expression_names.index(name)] = 0.25
    return expression


def test_noise_silence_and_no_sound_give_no_offsets(refinement, head):
    for sound in (noise(), [np.zeros(64_000, np.float32)], []):
        lips = refined(refinement, sound, pressed(head))
        assert lips.basis.shape == (0, 392, 3) and lips.weights.shape == (FRAMES, 0)


def test_offsets_are_the_networks_where_the_lips_dont_touch(refinement, head, activity):
    activity(1.5, 2.5)
    wide = np.zeros((FRAMES, head.num_expression), np.float32)
    wide[:, head.expression_names.index("jawOpen")] = 0.8

    lips = refined(refinement, noise(), wide)

    heard = speech_features(np.concatenate(noise()), TIMES)
    speaks = ((TIMES > 1.5) & (TIMES < 2.5)).astype(float)
    expected = predict_lips(refinement.network, heard.values, speech_gate(speaks, TIMES)).offsets.numpy()
    assert 0 < len(lips.basis) <= COMPONENTS
    assert np.abs(np.tensordot(lips.weights, lips.basis, 1) - expected).max() < 0.05 * np.abs(expected).max()
    silent = speech_gate(speaks, TIMES) == 0
    assert 20 < silent.sum() < 70 and not lips.weights[silent].any()
    np.testing.assert_allclose(np.abs(lips.weights).max(0), 1, atol=1e-6)


def test_lips_in_speech_dont_intersect(refinement, head, activity):
    activity(1.5, 2.5)
    expression = pressed(head)

    lips = refined(refinement, noise(), expression)

    before = refinement.contact.penetration(lips_at(refinement, expression))
    after = refinement.contact.penetration(lips_at(refinement, expression, lips))
    gate = torch.from_numpy(speech_gate(((TIMES > 1.5) & (TIMES < 2.5)).astype(float), TIMES))
    assert before.min() > 5e-4, "the lips must intersect before"
    assert after[gate == 1].max() < 1e-4
    assert (after <= (1 - gate) * before + 1e-4).all()
    jumps = np.abs(np.diff(np.tensordot(lips.weights, lips.basis, 1), axis=0)).max((1, 2))
    assert jumps[(gate[1:] < 1).numpy()].max() < 0.5 * float(before.max()) + 0.0025, (
        "no jump where speech begins"
    )


def observed_lips(refinement, expression, gap, visibility=1.0):
    """The observation of lips whose inner edges are (T,) metres apart, at the depth of the expressions."""
    turned = np.tile(np.array([np.pi, 0, 0], np.float32), (FRAMES, 1))
    away = np.tile(np.array([0, 0, 0.7], np.float32), (FRAMES, 1))
    camera = Camera.centred(1200.0, 640, 480)
    landmarks = np.zeros((FRAMES, 478, 2), np.float32)
    view = LipObservation(landmarks, np.full(FRAMES, visibility, np.float32), turned, away, camera)
    points = view.to_camera(slice(None), refinement.outline @ lips_at(refinement, expression))
    landmarks[:, LIPS] = camera.project(points).numpy()
    landmarks[:, LIPS_INNER_LOWER] = landmarks[:, LIPS_INNER_UPPER]
    landmarks[:, LIPS_INNER_LOWER, 1] += (gap * 1200 / points[..., 2].mean(1).numpy())[:, None]
    return view


@pytest.fixture
def pressing(monkeypatch):
    """Makes the network predict the effect "press" in some frames of speech, and no offsets."""

    def predicts(frames):
        def motion(network, speech, gate):
            press = torch.zeros(len(gate), 4)
            press[frames, 0] = torch.from_numpy(gate)[frames]
            return LipMotion(torch.zeros(len(gate), 392, 3), press)

        monkeypatch.setattr(avface.networks.lips.refinement, "predict_lips", motion)

    return predicts


def ajar(head):
    """Expressions with lips open by about 2 mm."""
    expression = np.zeros((FRAMES, head.num_expression), np.float32)
    expression[:, head.expression_names.index("jawOpen")] = 0.04
    return expression


def test_closures_are_the_pictures_where_the_lips_are_visible(refinement, head, activity, pressing):
    activity(0.8, 3.2)
    pressing(slice(50, 53))
    expression = ajar(head)
    gap = np.where(np.isin(np.arange(FRAMES), [*range(5), *range(60, 63)]), 0.0003, 0.02)

    def opening(view):
        shape = np.zeros(head.num_shape, np.float32)
        found = refinement.refine(shape, expression, TIMES, noise(), np.ones(FRAMES, bool), view)
        return 1000 * refinement.contact.opening(lips_at(refinement, expression, found)).numpy()

    before = 1000 * float(refinement.contact.opening(lips_at(refinement, expression[:1])))
    without, occluded = opening(None), opening(observed_lips(refinement, expression, gap, 0.2))
    seen = opening(observed_lips(refinement, expression, gap))

    assert before > 1
    np.testing.assert_allclose(without, occluded, atol=1e-3)
    assert without[51] < 0.3 * before and without[61] == pytest.approx(before, abs=0.05)
    assert seen[61] < 0.3 * before, "closed in the picture"
    assert seen[50:53] == pytest.approx(before, abs=0.05), "closed by the sound, but open in the picture"
    assert seen[2] == pytest.approx(before, abs=0.05), "not in speech"
    # closures predicted from sound are smooth
    steps = np.abs(np.diff(without[44:60]))
    assert (steps > 0.05).sum() >= 4 and steps.max() < 0.7 * before


def test_frames_without_the_person_get_no_offsets(refinement, activity):
    activity(0, 4)
    chosen = np.arange(FRAMES) < 60

    lips = refined(refinement, noise(), chosen=chosen)

    assert lips.weights[:60].any(1).all() and not lips.weights[60:].any()


def test_a_clip_in_chunks_is_the_same_as_in_one(refinement, monkeypatch):
    seen = []

    def heard(rows, first_row, sound, times, kind):
        seen.append((len(sound), len(times)))
        # samples as features, exact to the last digit whatever the chunk
        rows = (
            (16_000 * times[:, None, None]).round().astype(int) + 10 * np.arange(16)[:, None] + np.arange(29)
        )
        values = 10 * np.asarray(sound)[rows.clip(0, len(sound) - 1)]
        ones = np.ones(len(times), np.float32)
        return SpeechFeatures(values, "own", True, ones, ones, ones, ones)

    monkeypatch.setattr(avface.speech.stream, "framed", heard)
    whole = refined(refinement, noise())
    monkeypatch.setattr(avface.networks.lips.refinement, "CHUNK_FRAMES", 30)
    pieces = refined(refinement, noise(blocks=50))

    one, other = (np.tensordot(lips.weights, lips.basis, 1) for lips in (whole, pieces))
    np.testing.assert_allclose(one, other, atol=2e-4 * np.abs(one).max())
    assert len(seen) == 5 and seen[0] == (64_000, FRAMES)
    assert max(samples for samples, _ in seen[1:]) < 64_000 and max(count for _, count in seen[1:]) < 60


def test_audio_closures_are_in_speech_alone(refinement, activity):
    activity(1.5, 2.5)

    closures = refinement.audio_closures(TIMES, noise())

    assert closures.shape == (FRAMES,) and closures.min() >= 0 and 0 < closures.max() <= 1
    speaks = ((TIMES > 1.5) & (TIMES < 2.5)).astype(float)
    assert not closures[speech_gate(speaks, TIMES) == 0].any()
    assert not refinement.audio_closures(TIMES, []).any()


def test_the_pretrained_refinement_is_for_its_head_alone(head, monkeypatch, tmp_path):
    monkeypatch.setattr(pretrained_lips, "path", tmp_path / "lips.safetensors")
    assert pretrained_lip_refinement(head, "cpu") is None
    network = small_lips()
    save_lips(network, tmp_path / "lips.safetensors")

    assert pretrained_lip_refinement(head, "cpu").network.config == network.config
    head.name = "other"
    assert pretrained_lip_refinement(head, "cpu") is None
    head.name = "open"
    network.numbers += 1
    with pytest.raises(AvfaceError, match="not of open"):
        LipRefinement.of(network, head)


def test_running_components_are_those_of_all_rows_together():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 5)) * [5, 3, 1, 0.5, 0.1] @ rng.normal(size=(5, 40))
    rows[50:60] = 0
    running = RunningPca(40, 4)
    for block in np.split(rows, [30, 31, 64, 130]):
        running.add(block)

    basis, weights = running.finish()

    _, _, axes = np.linalg.svd(rows, full_matrices=False)
    np.testing.assert_allclose(weights @ basis, rows @ axes[:4].T @ axes[:4], atol=1e-9)
    assert basis.shape == (4, 40) and not weights[50:60].any()
    np.testing.assert_allclose(weights.max(0), 1)
    assert np.abs(weights).max() < 1 + 1e-9


def test_rows_of_lower_rank_and_of_zeros():
    running = RunningPca(6, 4)
    running.add(np.zeros((3, 6)))
    basis, weights = running.finish()
    assert basis.shape == (0, 6) and weights.shape == (3, 0)
    running.add(np.outer([0, -2.0, 1], np.arange(6)))
    basis, weights = running.finish()
    np.testing.assert_allclose(weights[:, 0], [0, 0, 0, 0, 1, -0.5], atol=1e-12)
    np.testing.assert_allclose(basis, [-2.0 * np.arange(6)], atol=1e-12)
    basis, weights = RunningPca(6, 4).finish()
    assert basis.shape == (0, 6) and weights.shape == (0, 0)
