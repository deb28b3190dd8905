# ruff: noqa: RUF001 - IPA
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from training_runs import acoustic_corpus, acoustic_recipe

from avface.errors import AvfaceError
from avface.evaluation.studies.acoustic import (
    collapsed,
    edit_distance,
    plucked_strings,
    score_voices,
    score_without_speech,
)
from avface.speech.acoustic import BANDS, AcousticConfig, load_acoustic_model, pretrained_acoustic_model
from avface.speech.phones import SILENCE, SYMBOLS, phone_indices
from avface.training.acoustic import corpus as speech_corpus
from avface.training.acoustic import train as acoustic
from avface.training.acoustic.corpus import (
    HELD_OUT_VARIANTS,
    Corpus,
    Utterance,
    build_corpus,
    clean,
    lip_opening,
    mixture,
    music,
    noise,
    phone_segments,
    phones_at,
    training_variants,
)
from avface.training.acoustic.spoken_text import WORDS, sentences
from avface.training.acoustic.train import AcousticRecipe, AcousticTask, AcousticTraining, train
from avface.training.loop.config import RunConfig

pytest.importorskip("espeakng_loader")


@pytest.fixture(scope="module")
def corpus():
    speech_corpus.BACKGROUNDS, before = 3, speech_corpus.BACKGROUNDS
    try:
        return build_corpus(0, 0, 0.01, ("", "m3"))
    finally:
        speech_corpus.BACKGROUNDS = before


def phones(text):
    """(F,) of (symbol, frames) pairs such as "silence:50 a:20"."""
    pairs = [pair.split(":") for pair in text.split()]
    return np.concatenate([np.full(int(count), SYMBOLS.index(symbol)) for symbol, count in pairs])


def test_lips_meet_in_bilabials_and_part_in_open_vowels():
    opening = lip_opening(phones("silence:60 a:15 p:9 a:15 s:12 a:15 silence:60"))
    lead = round(speech_corpus.LEAD / speech_corpus.STEP)
    middle_of = {"a": 67, "p": 79, "s": 105}

    assert opening[middle_of["p"] - lead] < 0.12
    assert opening[middle_of["a"] - lead] > 0.6
    assert 0.15 < opening[middle_of["s"] - lead] < 0.5
    assert opening.min() >= 0 and opening.max() <= 1


def test_lips_are_ahead_of_the_sound():
    opening = lip_opening(phones("silence:100 a:20 silence:100"))

    assert opening.argmax() == pytest.approx(110 - speech_corpus.LEAD / speech_corpus.STEP, abs=2)


def test_weak_consonants_take_what_the_vowels_around_them_leave():
    wide, narrow = (lip_opening(phones(f"silence:60 {v}:15 k:8 {v}:15 silence:60"))[69] for v in ("a", "u"))

    assert wide > narrow + 0.2


def test_lips_close_in_long_silence_and_stay_apart_in_a_breath():
    short = lip_opening(phones("a:40 silence:40 a:40"))
    long = lip_opening(phones("a:40 silence:300 a:40"))

    assert short[40:70].min() > 0.2
    assert long[190] < 0.1


def test_phones_follow_the_phonemes_in_time():
    from avface.synthetic.performance.espeak import Phoneme

    said = (Phoneme("m", 0.1), Phoneme("aɪ", 0.2), Phoneme("", 0.4))
    segments = phone_segments(said, 0.6)
    found = phones_at(segments, np.array([0.0, 0.15, 0.25, 0.35, 0.45, 0.6]))

    assert [SYMBOLS[phone] for phone in found] == ["silence", "m", "a", "e", "silence", "silence"]


def test_an_utterance_is_labelled_where_it_sounds(corpus):
    for one in corpus.utterances:
        loudness = np.logaddexp.reduce(one.spectra.astype(float), axis=1)
        assert len(one.phones) == len(loudness)
        vowels = np.isin(one.phones, [phone_indices(vowel)[0] for vowel in "aeiou"])
        assert loudness[vowels].mean() > loudness[one.phones == SILENCE].mean() + 5


def test_examples_are_the_same_by_seed_and_differ_otherwise(corpus):
    first, again, other = (mixture(np.random.default_rng(seed), corpus, 300) for seed in (1, 1, 2))

    np.testing.assert_array_equal(first.spectra, again.spectra)
    np.testing.assert_array_equal(first.openness, again.openness)
    assert not np.array_equal(first.spectra, other.spectra)
    assert first.spectra.shape == (300, BANDS) and np.isfinite(first.spectra).all()
    assert first.phones.shape == first.openness.shape == (300,)


def test_some_examples_have_nobody_speaking(corpus):
    examples = [mixture(np.random.default_rng(seed), corpus, 200) for seed in range(60)]
    silent = [example for example in examples if not (example.phones != SILENCE).any()]

    assert 2 <= len(silent) <= 20
    assert all(example.openness.max() < 0.1 for example in silent)


def test_a_formant_shift_moves_a_tone_by_that_much():
    from avface.speech.acoustic import log_mel

    def tone(hertz):
        times = torch.arange(16_000) / 16_000
        return log_mel(torch.sin(2 * torch.pi * hertz * times)).numpy()[50:52].astype(float)

    shifted = speech_corpus._shifted(tone(1000.0), np.log(1.2))
    assert abs(int(shifted[0].argmax()) - int(tone(1200.0)[0].argmax())) <= 1
    np.testing.assert_allclose(speech_corpus._shifted(tone(1000.0), 0.0), tone(1000.0), atol=1e-3)


@pytest.mark.parametrize("make", [noise, music, plucked_strings])
def test_backgrounds_are_audible_and_don_t_clip(make):
    for seed in range(4):
        sound = make(np.random.default_rng(seed), 1.0)
        assert sound.shape == (16_000,) and 0.02 < np.abs(sound).max() <= 1


def test_no_voice_is_both_trained_on_and_tested():
    from avface.synthetic.performance.espeak import voice_variants

    assert not set(HELD_OUT_VARIANTS) & set(training_variants())
    assert set(HELD_OUT_VARIANTS) <= set(voice_variants())


@pytest.mark.parametrize("language", ["en-gb-x-rp", "de", "cmn", "ru", "tr"])
def test_sentences_are_in_the_languages_own_words(language):
    text = sentences(np.random.default_rng(0), language, 3)

    assert text[-1] in ".!?"
    words = {word.strip(".,!?") for word in text.split()}
    known = WORDS.get(language[:2] if language.startswith("en") else language)
    assert known is None or words & set(known)


def test_a_corpus_comes_back_as_saved(corpus, tmp_path):
    corpus.save(tmp_path / "corpus.npz")
    again = Corpus.load(tmp_path / "corpus.npz")

    assert len(again.utterances) == len(corpus.utterances)
    for one, other in zip(again.utterances, corpus.utterances, strict=True):
        np.testing.assert_array_equal(one.spectra, other.spectra)
        np.testing.assert_array_equal(one.phones, other.phones)
    np.testing.assert_array_equal(again.musics[1], corpus.musics[1])
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.npz"]


def test_a_damaged_corpus_is_named(tmp_path):
    (tmp_path / "corpus.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(AvfaceError, match=r"corpus\.npz: damaged"):
        Corpus.load(tmp_path / "corpus.npz")


def small(folder, **changes):
    run = RunConfig(checkpoint_every=3, report_every=1, quiet=True)
    return AcousticTraining(folder / "small.safetensors", folder / "work", acoustic_recipe(**changes), run)


@pytest.fixture
def few_backgrounds(monkeypatch):
    monkeypatch.setattr(speech_corpus, "BACKGROUNDS", 2)
    monkeypatch.setattr(speech_corpus, "BACKGROUND_SECONDS", 2.0)


@pytest.mark.parametrize(("changes", "steps"), [({}, 6), ({"untimed_hours": 0.001, "further_steps": 7}, 7)])
def test_an_interrupted_run_resumes_to_the_same_losses_and_weights(tmp_path, monkeypatch, changes, steps):
    """In the first part, and in the second."""
    trainings = []
    for name in ("whole", "parts"):
        trainings.append(small(tmp_path / name, **changes))
        trainings[-1].work.mkdir(parents=True)
        acoustic_corpus(1, 2).save(trainings[-1].work / "corpus.npz")
        acoustic_corpus(2, 0).save(trainings[-1].work / "untimed.npz")
    whole = train(trainings[0])

    def interrupted(self, module, batch, step, losses=AcousticTask.losses):
        if step == 4 and self.optimisation.steps == steps:
            raise KeyboardInterrupt
        return losses(self, module, batch, step)

    with monkeypatch.context() as patched:
        patched.setattr(AcousticTask, "losses", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(trainings[1])
    assert not trainings[1].out.exists(), "weights without logit statistics are not written"
    resumed = train(trainings[1])

    assert resumed.progress.losses == whole.progress.losses and len(whole.progress.losses) == steps
    weights = resumed.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in whole.network.state_dict().items())
    with safe_open(trainings[1].out, "pt") as file:
        assert json.loads(file.metadata()["recipe"])["steps"] == 6


def test_further_steps_start_from_the_first_model_with_more_voices(tmp_path, few_backgrounds, monkeypatch):
    aligned_by = []

    def more_voices(seed, purpose, hours, voices, aligner, on_seconds):
        aligned_by.append({name: weight.clone() for name, weight in aligner.state_dict().items()})
        return Corpus(build_corpus(5, 0, hours, ("",)).utterances, (), ())

    monkeypatch.setattr(acoustic, "build_untimed_corpus", more_voices)
    training = small(
        tmp_path, untimed_hours=0.001, further_steps=1, further_learning_rate=1e-9, averaging=1e-9
    )
    model = train(training).network
    first = load_acoustic_model(tmp_path / "work" / "first.safetensors")

    for name, weight in first.state_dict().items():
        torch.testing.assert_close(aligned_by[0][name], weight)
        if "logit_" not in name:  # these are measured again, with the other voices
            torch.testing.assert_close(model.state_dict()[name], weight, rtol=0, atol=1e-3)
    assert not torch.equal(model.logit_mean, first.logit_mean)
    untimed = Corpus.load(tmp_path / "work" / "untimed.npz")
    assert len(untimed.utterances) and not untimed.noises and not untimed.musics


def test_a_folder_with_another_recipe_is_not_touched(tmp_path, few_backgrounds):
    train(small(tmp_path, steps=1))
    with pytest.raises(AvfaceError, match="another recipe"):
        train(small(tmp_path, steps=2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps=0 must be positive"),
        ({"further_steps": 0}, "further_steps=0 must be positive"),
        ({"hours": 0.0}, r"hours=0\.0 must be positive"),
        ({"recorded_hours": -1.0}, r"recorded_hours=-1\.0 must not be negative"),
        ({"untimed_hours": -1.0}, r"untimed_hours=-1\.0 must not be negative"),
        ({"batch": 0}, "batch=0 must be positive"),
        ({"seconds": 0.0}, r"seconds=0\.0 must be positive"),
        ({"learning_rate": 0.0}, r"learning_rate=0\.0 must be positive"),
        ({"averaging": 1.0}, r"averaging=1\.0 must be from 0 to below 1"),
        ({"openness_weight": -1.0}, r"openness_weight=-1\.0 must not be negative"),
        ({"seed": -1}, "seed=-1 must not be negative"),
    ],
)
def test_recipes_that_cannot_work_are_refused(changes, message):
    with pytest.raises(AvfaceError, match=message):
        AcousticRecipe(**changes)


@pytest.mark.slow
def test_training_learns(tmp_path, few_backgrounds, corpus):
    training = small(
        tmp_path,
        hours=0.02,
        steps=200,
        batch=8,
        averaging=0.9,
        model=AcousticConfig(channels=48, dilations=(1, 2)),
    )
    trained = score_voices(train(training).network, corpus, 4)
    (tmp_path / "again").mkdir()
    untrained = score_voices(train(small(tmp_path / "again", steps=1)).network, corpus, 4)

    assert trained.frame_accuracy > untrained.frame_accuracy + 5
    assert trained.openness_correlation > 0.2


def test_the_shipped_model_knows_voices_it_never_heard():
    corpus = build_corpus_of(HELD_OUT_VARIANTS, 12)
    score = score_voices(pretrained_acoustic_model(), corpus, 20)

    assert score.frame_accuracy > 70
    assert score.phone_error_rate < 45
    assert score.openness_correlation > 0.8


def test_the_shipped_model_hears_no_speech_in_silence_and_noise_and_little_in_music():
    activity = score_without_speech(pretrained_acoustic_model(), 4.0, 3)
    assert activity.pop("bells") < 0.2  # a kind of music that it was never trained on
    assert len(activity) == 4 and max(activity.values()) < 0.03, activity


def build_corpus_of(variants, count):
    said = [
        speech_corpus.Utterance.of(speech_corpus.espeak_speech(np.random.default_rng([7, index]), variants))
        for index in range(count)
    ]
    return Corpus(tuple(said), (), ())


def test_clean_examples_are_as_spoken(corpus):
    example = clean(np.random.default_rng(0), corpus, 200)
    alone = Utterance(example.spectra.astype(np.float16), example.phones.astype(np.int8))

    assert any(
        np.array_equal(one.spectra[at : at + 200], alone.spectra)
        for one in corpus.utterances
        for at in range(len(one.phones) - 199)
    )


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [
        ([], [], 0),
        ([1, 2, 3], [1, 2, 3], 0),
        ([1, 2, 3], [1, 3], 1),
        ([1, 2], [3, 1, 2], 1),
        ([1, 2], [2, 1], 2),
    ],
)
def test_edit_distance(first, second, distance):
    assert edit_distance(first, second) == edit_distance(second, first) == distance


def test_rows_collapse_to_phones_without_silence():
    assert collapsed(np.array([0, 0, 5, 5, 0, 5, 7, 7, 0])) == [5, 5, 7]
    assert collapsed(np.array([3, 3])) == [3]
