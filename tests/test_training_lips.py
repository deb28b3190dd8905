"""Training of the lips network: it learns from sound, resumes, and its performances are made once."""

from dataclasses import replace

import pytest
import torch
from training_runs import lip_performances, lips_recipe

from avface.errors import AvfaceError
from avface.evaluation.studies.lips import NAMES, lip_figures
from avface.head.asset import load_head
from avface.networks.lips.network import load_lips
from avface.training.lips.performances import LipPerformancesConfig, held_out, prepare_lip_performances
from avface.training.lips.train import LipsLosses, LipsRecipe, LipsTask, LipsTraining, train
from avface.training.loop.config import RunConfig
from avface.training.loop.trainer import checkpoint_path

RUN = RunConfig(report_every=1, quiet=True)


@pytest.fixture
def talks(monkeypatch):
    made = lip_performances()
    monkeypatch.setattr("avface.training.lips.train.prepare_lip_performances", lambda *_, **__: made)
    return made


def test_it_learns_from_sound(tmp_path, talks):
    recipe = lips_recipe(steps=60, pretraining_steps=40, pretraining_batch=64)
    network = train(LipsTraining(tmp_path / "lips.safetensors", recipe, RUN)).network

    figures = lip_figures(network, load_head(), talks)

    errors = {name: float(part.mean.mean()) for name, part in figures.errors.items()}
    assert errors["after"] < 0.85 * errors["before"]
    assert errors["other audio"] > 1.1 * errors["after"]
    assert errors["truth"] == 0 and set(figures.classes) <= set(range(len(NAMES)))
    assert float(figures.errors["after"].penetration.max()) <= 0.05
    assert "bilabial" in figures.table() and "saturated" in figures.table()
    assert torch.equal(load_lips(tmp_path / "lips.safetensors").out.weight, network.out.weight)


@pytest.mark.parametrize("stop", [3, 6])  # while pre-training, and after
def test_an_interrupted_run_resumes_to_the_same_losses_and_weights(tmp_path, talks, monkeypatch, stop):
    whole = train(LipsTraining(tmp_path / "a.safetensors", lips_recipe(steps=8), RUN))
    training = LipsTraining(
        tmp_path / "b.safetensors", lips_recipe(steps=8), replace(RUN, checkpoint_every=3)
    )

    def interrupted(self, module, batch, step, losses=LipsTask.losses):
        if step == stop:
            raise KeyboardInterrupt
        return losses(self, module, batch, step)

    with monkeypatch.context() as patched:
        patched.setattr(LipsTask, "losses", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(training)
    resumed = train(training)

    assert resumed.progress.losses == whole.progress.losses and len(whole.progress.losses) == 12
    others = resumed.network.state_dict()
    assert all(torch.equal(value, others[name]) for name, value in whole.network.state_dict().items())


def test_a_checkpoint_of_another_recipe_or_a_damaged_one_is_refused(tmp_path, talks):
    training = LipsTraining(tmp_path / "lips.safetensors", lips_recipe(steps=1), RUN)
    train(training)
    with pytest.raises(AvfaceError, match="another recipe"):
        train(replace(training, recipe=lips_recipe(steps=9)))
    checkpoint_path(training.out).write_bytes(b"x")
    with pytest.raises(AvfaceError, match="damaged checkpoint"):
        train(training)


def test_performances_are_made_once_and_stored(tmp_path):
    config = LipPerformancesConfig(hours=2 * 1.2 / 3600, seconds=1.2, seed=3, split="test")
    path = tmp_path / "performances.safetensors"
    shares = []

    made = prepare_lip_performances(path, "open", config, on_progress=shares.append)
    again = prepare_lip_performances(path, "open", config, on_progress=shares.append)

    assert shares == [0.5, 1.0] and len(made) == len(again) == 2
    assert made.speech.shape == (60, 16, 29) and made.expression.shape == (60, 52)
    assert torch.equal(made.speech, again.speech) and made.vocabulary == again.vocabulary
    assert [again.phonemes(k) for k in range(2)] == [made.phonemes(k) for k in range(2)]
    assert all(p.start < 1.2 for k in range(2) for p in made.phonemes(k))
    path.write_bytes(b"x")
    with pytest.raises(AvfaceError, match="damaged"):
        prepare_lip_performances(path, "open", config)


def test_held_out_voices():
    assert held_out("it", "it+m3") and held_out("de", "de+f4")
    assert not held_out("de", "de+m3")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LipsRecipe(window=1), "window=1 must be at least 2"),
        (lambda: LipsRecipe(steps=0), "steps=0 must be positive"),
        (lambda: LipsRecipe(batch=0), "batch=0 must be positive"),
        (lambda: LipsRecipe(render_every=0), "render_every=0 must be positive"),
        (lambda: LipsRecipe(pretraining_batch=0), "pretraining_batch=0 must be positive"),
        (lambda: LipsRecipe(pretraining_steps=-1), "pretraining_steps=-1 must not be negative"),
        (lambda: LipsRecipe(audio_dropout=1.5), r"audio_dropout=1\.5 must be a share from 0 to 1"),
        (lambda: LipsRecipe(averaging=1.0), r"averaging=1\.0 must be from 0 to below 1"),
        (lambda: LipsLosses(contact=-1.0), r"contact=-1\.0 must not be negative"),
        (lambda: LipPerformancesConfig(hours=0), "hours=0 must be positive"),
        (lambda: LipPerformancesConfig(seconds=0), "seconds=0 must be positive"),
        (lambda: LipPerformancesConfig(seed=-1), "seed=-1 must not be negative"),
    ],
)
def test_settings_that_cannot_work_are_refused(make, message):
    with pytest.raises(AvfaceError, match=message):
        make()
