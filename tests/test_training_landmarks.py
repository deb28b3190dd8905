"""Training of the landmark network: it corrects the landmarks of other people, resumes, and degrades its images."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_runs import SMALL_LANDMARKS, landmark_recipe, landmark_views

from avface.errors import AvfaceError
from avface.networks.landmark_correction import (
    LANDMARKS,
    LandmarkConfig,
    LandmarkNetwork,
    Layout,
    load_landmark_network,
)
from avface.tracking.aligned_crops import FACE_SIZE
from avface.training.landmarks.train import (
    LandmarkRecipe,
    LandmarkSampler,
    LandmarkTask,
    LandmarkTraining,
    Mirror,
    errors,
    mean_points,
    train,
)
from avface.training.landmarks.views import LandmarkViews, LandmarkViewsConfig, degraded, warped
from avface.training.loop.config import RunConfig

RUN = RunConfig(report_every=1, quiet=True)


@pytest.fixture(scope="module")
def views():
    return landmark_views(60)


def stored(views, out, **changes):
    """A training whose views exist already."""
    training = LandmarkTraining(out, landmark_recipe(**changes), RUN)
    training.views.mkdir()
    views.save(training.views / "00000-00050.npz")
    return training


def test_training_corrects_landmarks_of_other_people(views, tmp_path):
    changes = {"steps": 150, "warm_up": 10, "perturbed": 0.0, "occluded": 0.0}
    training = stored(views, tmp_path / "landmarks.safetensors", **changes)
    result = train(training)
    others = landmark_views(10, seed=1)
    sampler = LandmarkSampler(result.network, others, training.recipe)
    before, after = errors(result.network, sampler, np.arange(len(others)))
    assert after < 0.6 * before
    assert result.errors["corrected"] < 0.6 * result.errors["tracked"], "of the people that were held out"
    again = load_landmark_network(training.out)
    offsets = again.predict_offsets(others.pictures, others.tracked)[:, :LANDMARKS]
    left = np.linalg.norm(
        (others.tracked + np.pad(offsets, ((0, 0), (0, 10), (0, 0))) - others.true)[:, :LANDMARKS], axis=2
    )
    assert left.mean() < 0.7 * before * FACE_SIZE / 100


def test_an_interrupted_run_resumes_to_the_same_losses_and_weights(views, tmp_path, monkeypatch):
    """Rows, augmentation and dropout are drawn from streams that go on from step to step."""
    whole = train(stored(views, tmp_path / "whole.safetensors"))
    training = stored(views, tmp_path / "landmarks.safetensors")
    training = replace(training, run=replace(RUN, checkpoint_every=4))

    def interrupted(self, module, batch, step, losses=LandmarkTask.losses):
        if step == 6:
            raise KeyboardInterrupt
        return losses(self, module, batch, step)

    with monkeypatch.context() as patched:
        patched.setattr(LandmarkTask, "losses", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(training)
    assert not training.out.exists(), "weights without batch statistics are not written"
    torch.manual_seed(7)
    resumed = train(training)

    assert resumed.progress.losses == whole.progress.losses and len(whole.progress.losses) == 10
    others = resumed.network.state_dict()
    assert all(torch.equal(value, others[name]) for name, value in whole.network.state_dict().items())
    assert resumed.errors == whole.errors


def test_a_mirrored_view_has_the_same_errors(views):
    mirror = Mirror()
    tracked, true = mirror(views.tracked[0]), mirror(views.true[0])
    before, after = ((b - a)[:LANDMARKS] for a, b in ((views.tracked[0], views.true[0]), (tracked, true)))
    np.testing.assert_allclose(
        np.linalg.norm(before, axis=1).mean(), np.linalg.norm(after, axis=1).mean(), rtol=1e-4
    )
    # the mirror image of a nearly symmetric face is nearly that face
    np.testing.assert_allclose(tracked[:LANDMARKS], views.tracked[0, :LANDMARKS], atol=0.03 * FACE_SIZE)


def test_a_warp_moves_the_landmarks_with_the_image():
    rng = np.random.default_rng(0)
    points = rng.uniform(60, 190, (478, 2))
    x, y = np.meshgrid(np.arange(256), np.arange(256))
    for place in points[:5]:
        spot = 255 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / 18)
        image = np.repeat(spot.astype(np.uint8)[..., None], 3, 2)
        image, found = warped(image, points, rng)
        value = image[..., 0].astype(float)
        centre = np.array([(x * value).sum(), (y * value).sum()]) / value.sum()
        assert np.abs(found - points).mean() > 0.5
        np.testing.assert_allclose(centre, found[np.flatnonzero((points == place).all(1))[0]], atol=0.5)


def gradient_energy(image):
    return float(np.abs(np.diff(image.astype(float), axis=1)).mean())


def test_degraded_images_vary_in_light_contrast_and_sharpness():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    image = np.stack([128 + 60 * np.sin(x / 6), 128 + 60 * np.cos(y / 7), 128 + 50 * np.sin((x + y) / 9)], -1)
    image = image.astype(np.uint8)
    kept = image.copy()

    degraded_ones = [degraded(image, rng) for _ in range(60)]

    assert np.array_equal(image, kept), "the input is left as it is"
    for other in degraded_ones:
        assert other.shape == image.shape and other.dtype == np.uint8
        correlation = np.corrcoef(other.ravel(), image.ravel())[0, 1]
        assert correlation > 0.85
    differences = np.array([np.abs(other.astype(float) - image).mean() for other in degraded_ones])
    assert (differences > 0.5).all(), "all are of another white balance"
    assert differences.max() > 15 and len({other.tobytes() for other in degraded_ones}) == 60
    levels = np.array([other.mean() for other in degraded_ones])
    assert levels.std() > 3, "brightness varies"
    contrasts = np.array([other[..., 0].std() for other in degraded_ones]) / image[..., 0].std()
    assert contrasts.min() < 0.9 and contrasts.max() > 1.1, "contrast varies"
    energies = np.array([gradient_energy(other) for other in degraded_ones]) / gradient_energy(image)
    assert energies.min() < 0.8 and energies.max() > 1.5, "some are smoother, some noisier"


def test_damaged_views_and_too_few_are_refused(tmp_path):
    path = tmp_path / "00000-00050.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(AvfaceError, match="00000-00050"):
        LandmarkViews.load([path])
    few = landmark_views(1, each=2)
    network = LandmarkNetwork(SMALL_LANDMARKS, Layout.of(mean_points(), SMALL_LANDMARKS.side))
    many = LandmarkNetwork(LandmarkConfig(**{**vars(SMALL_LANDMARKS), "error_components": 5}), network.layout)
    with pytest.raises(AvfaceError, match="too few"):
        LandmarkSampler(many, few, LandmarkRecipe(network=many.config)).learn_components(np.arange(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LandmarkViewsConfig(people=0), "people=0 must be positive"),
        (lambda: LandmarkViewsConfig(scenes=0), "scenes=0 must be positive"),
        (lambda: LandmarkViewsConfig(frames=0), "frames=0 must be positive"),
        (lambda: LandmarkViewsConfig(size=0), "size=0 must be positive"),
        (lambda: LandmarkViewsConfig(warps=-1), "warps=-1 must not be negative"),
        (lambda: LandmarkRecipe(steps=0), "steps=0 must be positive"),
        (lambda: LandmarkRecipe(batch=0), "batch=0 must be positive"),
        (lambda: LandmarkRecipe(learning_rate=-1.0), r"learning_rate=-1\.0 must be positive"),
        (lambda: LandmarkRecipe(gradient_norm=0.0), r"gradient_norm=0\.0 must be positive"),
        (lambda: LandmarkRecipe(perturbed=1.5), r"perturbed=1\.5 must be a share from 0 to 1"),
        (lambda: LandmarkRecipe(occluded=-0.5), r"occluded=-0\.5 must be a share"),
        (lambda: LandmarkRecipe(perturbation=-1.0), r"perturbation=-1\.0 must not be negative"),
        (lambda: LandmarkRecipe(averaging=1.0), r"averaging=1\.0 must be from 0 to below 1"),
        (
            lambda: LandmarkTraining(run=RunConfig(device="cuda")),
            "device=cuda must be cpu: the landmark network is trained on the CPU",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(make, message):
    with pytest.raises(AvfaceError, match=message):
        make()


def test_training_goes_on_from_given_weights(views, tmp_path):
    changes = {"steps": 150, "warm_up": 10, "perturbed": 0.0, "occluded": 0.0}
    first = train(stored(views, tmp_path / "landmarks.safetensors", **changes))
    short = {**changes, "steps": 2, "learning_rate": 1e-6}
    anew = train(stored(views, tmp_path / "anew.safetensors", **short)).errors["corrected"]

    going_on = replace(
        stored(views, tmp_path / "more.safetensors", **short), start=tmp_path / "landmarks.safetensors"
    )
    errors = train(going_on).errors
    assert errors["corrected"] == pytest.approx(first.errors["corrected"], rel=0.1)
    assert errors["corrected"] < 0.8 * anew


def test_initial_weights_of_another_network_are_refused(views, tmp_path):
    train(stored(views, tmp_path / "landmarks.safetensors", steps=2))
    other = stored(views, tmp_path / "more.safetensors")
    network = replace(SMALL_LANDMARKS, hidden=SMALL_LANDMARKS.hidden + 8)
    other = replace(
        other, recipe=replace(other.recipe, network=network), start=tmp_path / "landmarks.safetensors"
    )
    with pytest.raises(AvfaceError, match=r"landmarks\.safetensors: its network is"):
        train(other)
