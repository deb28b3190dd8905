"""Training of the landmark motion network: it corrects the motion of other people's landmarks, resumes, and refuses."""

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
import torch
from networks_frames import mean_points

from avface.errors import AvfaceError
from avface.head import load_head
from avface.networks.landmark_motion import LARGEST_AMPLITUDE, MotionConfig, load_motion_network
from avface.tracking.aligned_crops import SIDE, crop_matrix, to_crop
from avface.tracking.face_picture import LANDMARKS, PICTURE_SIDE, shown_texels
from avface.training.landmarks.motion import (
    HeldOut,
    MotionRecipe,
    MotionSampler,
    MotionTask,
    MotionTraining,
    train,
)
from avface.training.landmarks.motion_views import MotionViews, MotionViewsConfig
from avface.training.landmarks.train import Mirror
from avface.training.loop.config import RunConfig
from avface.training.loop.devices import SingleDevice

RUN = RunConfig(report_every=1, quiet=True)
SMALL = MotionConfig(
    units=("jawOpen", "mouthSmileLeft", "mouthSmileRight"),
    channels=(4, 6, 8, 8),
    reduced=4,
    hidden=24,
    point_components=2,
    error_components=2,
)
PEOPLE, FRAMES = 72, 8


def recipe(**changes):
    values = {
        "network": SMALL,
        "views": MotionViewsConfig(people=PEOPLE, frames=FRAMES),
        "steps": 10,
        "sets": 4,
        "frames": 6,
        "warm_up": 2,
        "averaging": 0.5,
    }
    return MotionRecipe(**{**values, **changes})


def motion_views(seed=0):
    """Faces with a bright spot that moves with a unit's weight, which moves all landmarks' errors in one direction."""
    rng = np.random.default_rng(seed)
    head = load_head("open")
    column = head.expression_names.index("jawOpen")
    rest = mean_points()[:, :2] * [1000, -1000]
    tracked = to_crop(crop_matrix(rest), rest)
    shown = (255 * shown_texels(rest)[0]).astype(np.uint8)
    parts = {name: [] for name in ("pictures", "shown", "tracked", "true", "expression", "set_")}
    for number in range(PEOPLE):
        texture = cv2.resize(rng.uniform(60, 120, (6, 6)), (PICTURE_SIDE, PICTURE_SIDE))
        for weight in rng.random(FRAMES):
            picture = texture.copy()
            at = int(20 + 24 * weight)
            picture[at : at + 6, 24:40] += 110
            expression = np.zeros(head.num_expression, np.float32)
            expression[column] = weight
            parts["pictures"].append(picture.clip(0, 255).astype(np.uint8))
            parts["shown"].append(shown)
            noise = rng.normal(0, 0.4, (478, 2))
            parts["tracked"].append((tracked + noise).astype(np.float32))
            parts["true"].append(
                (tracked + np.array([0, 6 * weight + rng.normal(0, 0.1)])).astype(np.float32)
            )
            parts["expression"].append(expression)
            parts["set_"].append(number)
    return MotionViews(**{name: np.stack(values) for name, values in parts.items()})


@pytest.fixture(scope="module")
def views():
    return motion_views()


def stored(views, out, **changes):
    """A training whose views exist already."""
    training = MotionTraining(out, recipe(**changes), RUN)
    training.views.mkdir()
    views.save(training.views / "00000-00050.npz")
    nobody = {field.name: getattr(views, field.name)[:0] for field in fields(MotionViews)}
    MotionViews(**nobody).save(training.views / f"00050-{PEOPLE:05d}.npz")
    return training


def test_training_corrects_the_motion_and_reads_the_unit_of_people_held_out(views, tmp_path):
    training = stored(views, tmp_path / "motion.safetensors", steps=150, warm_up=10, occluded=0.0)
    result = train(training)
    assert result.errors["corrected"] < 0.6 * result.errors["tracked"]
    assert result.errors["units_r"] > 0.8
    amplitude = result.network.amplitude
    assert 1 <= amplitude[0] < 1.6 and amplitude.max() <= LARGEST_AMPLITUDE
    assert amplitude[1] == amplitude[2], "both halves of a unit have one"
    sampler = MotionSampler(result.network, motion_views(1), training.recipe)
    other = HeldOut.read(load_motion_network(training.out), sampler).errors()
    assert other["corrected"] < 0.65 * other["tracked"] and other["units_r"] > 0.75


def test_an_interrupted_run_resumes_to_the_same_losses_and_weights(views, tmp_path, monkeypatch):
    whole = train(stored(views, tmp_path / "whole.safetensors"))
    training = stored(views, tmp_path / "motion.safetensors")
    training = replace(training, run=replace(RUN, checkpoint_every=4))

    def interrupted(self, module, batch, step, losses=MotionTask.losses):
        if step == 6:
            raise KeyboardInterrupt
        return losses(self, module, batch, step)

    with monkeypatch.context() as patched:
        patched.setattr(MotionTask, "losses", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(training)
    assert not training.out.exists(), "weights without batch statistics are not written"
    torch.manual_seed(7)
    resumed = train(training)
    assert resumed.progress.losses == whole.progress.losses and len(whole.progress.losses) == 10
    others = resumed.network.state_dict()
    assert all(torch.equal(value, others[name]) for name, value in whole.network.state_dict().items())
    assert resumed.errors == whole.errors


def test_errors_are_against_their_mean_over_the_frames_that_are_compared_with(views, tmp_path):
    task = MotionTask(stored(views, tmp_path / "m.safetensors"), views, device())
    for _ in range(5):
        batch = task.sampler.draw()
        share = batch.context.float()[..., None, None]
        mean = (batch.errors * share).sum(1) / share.sum(1)
        assert mean.abs().max() < 1e-5
        assert (batch.context.sum(1) >= 5).all()


def device():
    return SingleDevice("cpu")


def test_a_batch_has_both_mirror_images_and_its_units_swap_sides(views, tmp_path):
    names = load_head("open").expression_names
    expression = views.expression.copy()
    expression[:, names.index("mouthSmileLeft")] = 0.7
    task = MotionTask(
        stored(views, tmp_path / "m.safetensors"), replace(views, expression=expression), device()
    )
    batches = [task.sampler.draw() for _ in range(6)]
    left, right = (torch.cat([b.weights[:, 0, unit] for b in batches]) for unit in (1, 2))
    assert ((left > 0.5) ^ (right > 0.5)).all() and 0.2 < (left > 0.5).float().mean() < 0.8


def test_damaged_views_are_named(tmp_path):
    path = tmp_path / "00000-00050.npz"
    path.write_bytes(b"nothing")
    with pytest.raises(AvfaceError, match=r"00000-00050.npz: not a readable file of views"):
        MotionViews.load([path])


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"frames": 3}, "5 or more"), ({"steps": 0}, "positive"), ({"occluded": 1.5}, "from 0 to 1")],
)
def test_a_recipe_that_cannot_work_is_refused(changes, message):
    with pytest.raises(AvfaceError, match=message):
        recipe(**changes)


def test_another_device_is_refused():
    with pytest.raises(AvfaceError, match="must be cpu"):
        MotionTraining(run=RunConfig(device="cuda"))


def test_mirrored_landmarks_are_those_of_the_mirrored_face():
    points = np.concatenate([mean_points()[:, :2] * [500, -500] + SIDE / 2]).astype(np.float32)
    points[:, 0] += 7
    mirrored = Mirror()(points)[:LANDMARKS]
    np.testing.assert_allclose(mirrored.mean(0)[0], SIDE - 1 - points[:LANDMARKS].mean(0)[0], atol=0.6)
