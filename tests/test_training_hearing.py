import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_runs import hearing_examples, hearing_recipe

from avface.errors import AvfaceError
from avface.evaluation.studies import hearing as study
from avface.speech.moonshine import FIRST_ROW, HOP, ROW_SECONDS, pretrained_moonshine
from avface.speech.phones import SILENCE, SYMBOLS
from avface.speech.readout import LAYERS, HearingRows, load_readout, pretrained_hearing
from avface.training.acoustic.corpus import SpokenSound
from avface.training.hearing import train as hearing
from avface.training.hearing.examples import (
    Examples,
    MixtureConfig,
    SoundCorpus,
    encoded_examples,
    mixture,
)
from avface.training.hearing.train import HearingRecipe, HearingTraining
from avface.training.loop.config import RunConfig

RATE = 16_000
QUIET = RunConfig(quiet=True)


@pytest.fixture(scope="module")
def corpus():
    """Tones as utterances: phone number n is a tone of its own pitch for 0.2 s; noise and hum."""
    rng = np.random.default_rng(0)
    spoken = []
    for _ in range(3):
        phones = np.repeat(rng.integers(1, len(SYMBOLS), 50), 20).astype(np.int8)
        pitch = 100 + 40.0 * np.repeat(phones, 160)
        sound = 0.3 * np.sin(2 * np.pi * np.cumsum(pitch) / RATE)
        spoken.append(SpokenSound(sound.astype(np.float32), phones, True))
    noises = (rng.normal(0, 0.1, 3 * RATE).astype(np.float32),)
    hum = (0.1 * np.sin(2 * np.pi * 60 * np.arange(3 * RATE) / RATE)).astype(np.float32)
    return SoundCorpus(tuple(spoken), noises, (hum,))


def test_mixtures_are_the_same_by_seed_and_differ_otherwise(corpus):
    config = MixtureConfig(seconds=3.0)
    first, again, other = (mixture(np.random.default_rng(seed), corpus, config) for seed in (1, 1, 2))

    np.testing.assert_array_equal(first.sound, again.sound)
    assert not np.array_equal(first.sound, other.sound)
    assert first.sound.shape == (3 * RATE,) and first.sound.dtype == np.float32
    assert first.phones.shape == first.opening.shape == first.loudness.shape == (300,)


def test_mixtures_are_of_all_kinds_and_never_clip_beyond_full_scale(corpus):
    config = MixtureConfig(seconds=2.0)
    made = [mixture(np.random.default_rng(seed), corpus, config) for seed in range(80)]
    silent = [one for one in made if not one.spoken]

    assert 6 <= len(silent) <= 28
    for one in silent:
        assert (one.phones == SILENCE).all() and not one.loudness.any() and one.opening.max() < 0.1
    for one in made:
        assert np.isfinite(one.sound).all() and np.abs(one.sound).max() <= 1
        for curve in (one.opening, one.loudness):
            assert curve.min() >= 0 and curve.max() <= 1
    assert max(one.loudness.max() for one in made) == 1


def test_a_clean_mixture_is_a_piece_of_an_utterance_with_its_phones(corpus):
    config = MixtureConfig(seconds=2.0, without_voice=0.0, clean=1.0)
    for seed in range(6):
        one = mixture(np.random.default_rng(seed), corpus, config)
        said = np.flatnonzero(one.phones != SILENCE)
        assert len(said)
        for frame in said[5:-5:40]:  # the tone's pitch says which phone it is
            around = one.phones[frame - 4 : frame + 5]
            if (around != one.phones[frame]).any():
                continue
            piece = one.sound[160 * (frame - 4) : 160 * (frame + 4)]
            pitch = np.abs(np.fft.rfft(piece * np.hanning(len(piece)), 4 * RATE))[200:].argmax() / 4 + 50
            assert pitch == pytest.approx(100 + 40 * one.phones[frame], abs=12)


def test_examples_have_a_row_for_each_of_the_encoder_with_what_is_said_there(corpus):
    made = [mixture(np.random.default_rng(seed), corpus, MixtureConfig(seconds=1.5)) for seed in range(3)]
    examples = encoded_examples(pretrained_moonshine(), iter(made), 3)

    rows = -(-len(made[0].sound) // HOP)
    assert examples.states.shape == (3, rows, len(LAYERS), 288) and examples.states.dtype == torch.float16
    for number, one in enumerate(made):
        at = np.minimum(np.round((FIRST_ROW + ROW_SECONDS * np.arange(rows)) / 0.01).astype(int), 149)
        np.testing.assert_array_equal(examples.phones[number], one.phones[at])
        np.testing.assert_allclose(examples.opening[number], one.opening[at], atol=0.1)
        assert bool(examples.spoken[number]) == one.spoken
        assert not examples.closed[number][examples.opening[number] > 0.07].any()


def test_examples_come_back_as_saved(tmp_path):
    examples = hearing_examples()
    examples.save(tmp_path / "examples.safetensors")
    again = Examples.load(tmp_path / "examples.safetensors")

    torch.testing.assert_close(again.states, examples.states)
    assert torch.equal(again.spoken, examples.spoken)
    (tmp_path / "examples.safetensors").write_bytes(b"nonsense")
    with pytest.raises(AvfaceError, match=r"examples\.safetensors: damaged; delete it"):
        Examples.load(tmp_path / "examples.safetensors")


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A readout trained on 24 examples whose states hold what was said, and its file."""
    monkeypatch.setattr(hearing, "_examples", lambda *_: hearing_examples(24))
    recipe = hearing_recipe(steps=300, batch=8, state_dropout=0.1, averaging=0.9, learning_rate=5e-3)
    training = HearingTraining(tmp_path / "h.safetensors", tmp_path / "work", recipe, QUIET)
    return hearing.train(training).network, training


def test_a_readout_learns_phones_and_lips(trained):
    network, training = trained
    examples = hearing_examples(24)
    rows = [network.rows(states.float()) for states in examples.states]

    found = torch.stack([one.phones.argmax(1) for one in rows])
    assert (found == examples.phones).float().mean() > 0.9
    opened = torch.stack([one.opening for one in rows])[examples.spoken]
    assert np.corrcoef(opened.flatten(), examples.opening[examples.spoken].flatten())[0, 1] > 0.9
    silent = torch.stack([one.activity for one in rows])[~examples.spoken]
    assert silent.mean() < 0.1
    features = torch.cat([one.features for one in rows])
    assert features.mean().abs() < 0.1 and 0.5 < features.std() < 1.5
    again = load_readout(training.out)
    torch.testing.assert_close(
        again.rows(examples.states[0].float()).opening, rows[0].opening, atol=0.01, rtol=0
    )
    assert json.loads((training.work / "recipe.json").read_text())["steps"] == 300


def test_openings_are_learnt_from_voices_alone():
    """What a sound without a voice says about lips has no effect on the losses of the lips."""
    examples = hearing_examples()
    other = replace(
        examples, opening=torch.where(examples.spoken[:, None], examples.opening, torch.tensor(0.9))
    )
    found = []
    for each in (examples, other):
        training = HearingTraining(recipe=hearing_recipe(), run=QUIET)
        task = hearing.HearingTask(training, each, None)
        found.append(task.losses(task.network, torch.arange(8), 0)["opening"])
    torch.testing.assert_close(*found)


def test_a_folder_of_another_recipe_is_refused(trained):
    _, training = trained
    with pytest.raises(AvfaceError, match="holds a run with another recipe"):
        hearing.train(replace(training, recipe=hearing_recipe()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"examples": 0}, "examples=0 must be positive"),
        ({"state_dropout": 1.5}, "state_dropout=1.5"),
        ({"opening_weight": -1.0}, "opening_weight"),
    ],
)
def test_recipes_that_cannot_work_are_refused(changes, message):
    with pytest.raises(AvfaceError, match=message):
        HearingRecipe(**changes)


@pytest.mark.parametrize("changes", [{"seconds": 0.0}, {"clean": 1.1}, {"without_voice": -0.1}])
def test_mixtures_that_cannot_work_are_refused(changes):
    with pytest.raises(AvfaceError, match=next(iter(changes))):
        MixtureConfig(**changes)


def test_nothing_is_heard_in_silence_noise_and_music():
    activity = study.score_without_speech(pretrained_hearing(), 5.0, 2)
    assert len(activity) == 6 and max(activity.values()) < 0.1, activity


def heard(opening):
    """Rows with an opening, whose lips close where it is small."""
    opening = torch.from_numpy(opening)
    nothing = torch.zeros(len(opening), len(SYMBOLS))
    return HearingRows(nothing, nothing, opening, opening, (opening < 0.1).double(), opening)


def test_a_heard_mouth_is_scored_at_its_lag():
    from scipy.ndimage import gaussian_filter1d

    rng = np.random.default_rng(1)
    grid = np.arange(-1, 13, 0.005)
    opening = gaussian_filter1d(rng.normal(size=len(grid)), 14)
    opening = (opening - opening.min()) / np.ptp(opening)
    rows = np.interp(FIRST_ROW + ROW_SECONDS * np.arange(500), grid, opening)
    times = np.arange(300) / 25
    tracked = 0.1 * np.interp(times + 0.12, grid, opening) ** 2
    tracked[30:40] = np.nan

    score = study.heard_mouth("clip", heard(rows), times, tracked)
    assert score.frames == 290
    assert score.lag == pytest.approx(0.12, abs=0.02)
    assert score.at_lag > 0.9 * score.best > score.at_zero
    assert score.closures_at_lag > 0.95 > score.closures


def test_area_under_the_curve_is_the_share_of_pairs_in_order():
    scores, positive = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    assert study.area_under_curve(scores, positive) == pytest.approx(0.75)
    assert np.isnan(study.area_under_curve(scores, np.ones(4, bool)))
