"""Tiny seeded runs of all trainings follow their stored loss curves: data, losses, schedule and steps are unchanged."""

import json
from pathlib import Path

import pytest
from training_runs import (
    acoustic_corpus,
    acoustic_recipe,
    coarse_performances,
    coarse_recipe,
    detail_frames,
    detail_recipe,
    hearing_examples,
    hearing_recipe,
    landmark_recipe,
    landmark_views,
    lip_performances,
    lips_recipe,
    tracked_takes,
)

from avface.networks.detail.losses import DetailWeights
from avface.training.acoustic import train as acoustic
from avface.training.coarse import recipes
from avface.training.coarse import train as coarse
from avface.training.detail import train as detail
from avface.training.hearing import train as hearing
from avface.training.landmarks import train as landmarks
from avface.training.lips import train as lips
from avface.training.loop.config import RunConfig

CURVES = Path(__file__).parent / "data" / "loss_curves.json"
RUN = RunConfig(report_every=1, quiet=True)

TOLERANCE = 1e-3
"""Relative. Without oneDNN and with two threads, which sum in another order, losses differ by 4e-6 at most; small
changes of weights, rates or seeds change them by 1e-2 and more."""
HALF_PRECISION = 1e-2
"""Relative, for networks that compute in bfloat16 (epsilon 8e-3): the same differences are 8e-4 at most, and CPUs round
bfloat16 in different ways."""


def coarse_run(folder, patch):
    patch.setattr(coarse, "_performances", lambda *_: coarse_performances())
    patch.setattr(coarse, "read_tracked_takes", lambda *_, **__: tracked_takes())
    simulation = recipes.Simulation(simulated_share=0.5)
    recipe = coarse_recipe(steps=8, warm_up=3, simulation=simulation)
    run = coarse.CoarseRunConfig(report_every=1, workers=0, validate_every=0, quiet=True)
    return coarse.train(coarse.CoarseTraining(folder, recipe, folder / "coarse.safetensors", run=run))


def lips_run(folder, patch):
    patch.setattr(lips, "prepare_lip_performances", lambda *_, **__: lip_performances())
    return lips.train(lips.LipsTraining(folder / "lips.safetensors", lips_recipe(steps=8), RUN))


def detail_run(folder, patch, **changes):
    patch.setattr(detail, "read_frames", lambda *_: detail_frames())
    recipe = detail_recipe(**{"steps": 6, "warm_up": 2, **changes})
    return detail.train(detail.DetailTraining(folder / "detail.safetensors", folder, recipe, run=RUN))


def detail_self_supervised_run(folder, patch):
    return detail_run(folder, patch, steps=3, crop=64, losses=DetailWeights())


def landmarks_run(folder, patch):
    patch.setattr(landmarks, "prepare_views", lambda *_: [])
    patch.setattr(landmarks.LandmarkViews, "load", lambda paths: landmark_views(24))
    return landmarks.train(
        landmarks.LandmarkTraining(folder / "landmarks.safetensors", landmark_recipe(), RUN)
    )


def acoustic_run(folder, patch, **changes):
    work = folder / "work"
    work.mkdir()
    acoustic_corpus(1, 2).save(work / "corpus.npz")
    acoustic_corpus(2, 0).save(work / "untimed.npz")
    return acoustic.train(
        acoustic.AcousticTraining(folder / "acoustic.safetensors", work, acoustic_recipe(**changes), RUN)
    )


def acoustic_further_run(folder, patch):
    return acoustic_run(folder, patch, untimed_hours=0.001, further_steps=3)


def hearing_run(folder, patch):
    patch.setattr(hearing, "_examples", lambda *_: hearing_examples())
    return hearing.train(
        hearing.HearingTraining(folder / "hearing.safetensors", folder / "work", hearing_recipe(), RUN)
    )


RUNS = {
    "coarse": (coarse_run, TOLERANCE),
    "lips": (lips_run, TOLERANCE),
    "detail": (detail_run, TOLERANCE),
    "detail, self-supervised": (detail_self_supervised_run, TOLERANCE),
    "landmarks": (landmarks_run, HALF_PRECISION),
    "acoustic": (acoustic_run, HALF_PRECISION),
    "acoustic, all voices": (acoustic_further_run, HALF_PRECISION),
    "hearing": (hearing_run, TOLERANCE),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_tiny_run_follows_its_stored_loss_curve(name, tmp_path, monkeypatch):
    run, tolerance = RUNS[name]

    found = run(tmp_path, monkeypatch).progress.losses

    stored = json.loads(CURVES.read_text())[name]
    assert found == pytest.approx(stored, rel=tolerance), (
        f"the losses of the {name} training have changed. Unless this is intended, look for the change in its batches, "
        "losses, random streams, learning rate or weight averaging. If it is intended, store the new curves with "
        "`PYTHONPATH=tests python tests/test_training_loss_curves.py` and say why in the commit"
    )


def test_every_training_has_a_stored_curve():
    assert json.loads(CURVES.read_text()).keys() == RUNS.keys()


def store():
    """Write the curves of the current code."""
    import tempfile

    curves = {}
    for name, (run, _) in RUNS.items():
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            curves[name] = [float(f"{loss:.6g}") for loss in run(Path(folder), patch).progress.losses]
    CURVES.parent.mkdir(exist_ok=True)
    CURVES.write_text(json.dumps(curves, indent=1) + "\n")


if __name__ == "__main__":
    store()
