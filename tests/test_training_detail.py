"""Training of the detail stage, on very few and small frames."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from training_runs import DETAIL_FRAMES, detail_frames, detail_recipe

from avface.errors import AvfaceError
from avface.evaluation.studies.detail import detail_figures, frame_maps, render_detail
from avface.geometry.camera import Camera
from avface.head import load_head
from avface.head.skin.atlas import detail_atlas
from avface.networks.detail.losses import (
    DetailWeights,
    IdMrfLoss,
    Vgg19,
    detail_texture,
    from_tangent_space,
)
from avface.networks.detail.network import load_detail
from avface.synthetic.rendering.scene import SceneConfig, sample_scene
from avface.training.detail.frames import (
    DetailFramesConfig,
    person_frames,
    prepare_detail_frames,
)
from avface.training.detail.train import (
    DetailBatches,
    DetailObjective,
    DetailTask,
    DetailTraining,
    held_out,
    train,
)
from avface.training.loop.config import RunConfig
from avface.training.loop.trainer import checkpoint_path

FRAMES = DETAIL_FRAMES
RECIPE = detail_recipe()
RUN = RunConfig(report_every=1, quiet=True)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Folder of a person's frames."""
    folder = tmp_path_factory.mktemp("cache")
    calls = []
    prepare_detail_frames(folder, FRAMES, on_person=lambda *done: calls.append(done))
    assert calls == [(0, 1), (1, 1)]
    return folder


@pytest.fixture(scope="module")
def atlas():
    return detail_atlas(load_head("open"), 64)


def test_frames_of_the_truth_have_its_folds(cache, atlas):
    frames = prepare_detail_frames(cache, FRAMES)
    assert len(frames) == 2 and frames.image.shape == (2, 3, 64, 64) and frames.speech.shape == (2, 16, 29)
    head = load_head("open")
    scene = sample_scene(3, 0, SceneConfig(size=96, seconds=2.0, texture=64), head)
    expression = torch.as_tensor(scene.performance.expression[int(frames.frame[1])])
    face = head(torch.as_tensor(scene.shape)[None], expression[None])[0].numpy()
    folds = scene.skin.wrinkles.static + scene.skin.wrinkles.displacement(face)
    wanted = 1e6 * atlas.from_uv_square(torch.as_tensor(folds))
    inside = atlas.mask > 0
    assert float((frames.displacement[1].float() - wanted)[inside].abs().max()) <= 1
    assert bool(frames.occluded.any()) and not bool((frames.occluded & (frames.visibility == 0)).any())
    assert float(frames.visibility[:, inside].float().mean() / 255) > 0.3


def test_strong_expressions_fold_the_skin():
    plain = dataclasses.replace(FRAMES, occluded=0.0, frames=4)
    still, folded = (
        [person_frames(number, dataclasses.replace(plain, folded=share)) for number in range(2)]
        for share in (0.0, 1.0)
    )
    for one, other in zip(still, folded, strict=True):
        assert torch.equal(one.frame, other.frame)
    one, other = (
        sum(float(frames.displacement.float().abs().mean()) for frames in group) for group in (still, folded)
    )
    assert other > 1.1 * one


def test_coarse_errors_shift_the_face_but_keep_its_folds(cache, atlas):
    exact = prepare_detail_frames(cache, FRAMES)
    rough = person_frames(0, dataclasses.replace(FRAMES, exact=0.0, shape_error=0.3))
    assert torch.equal(exact.frame, rough.frame)
    both = (exact.visibility[0] > 128) & (rough.visibility[0] > 128) & (atlas.mask > 0.5)
    one, other = (frames.displacement[0].float()[both] for frames in (exact, rough))
    assert not torch.equal(one, other)
    assert float(torch.corrcoef(torch.stack([one, other]))[0, 1]) > 0.2
    assert not torch.equal(exact.normals, rough.normals)


def test_cache_is_kept_and_checked(cache, tmp_path):
    kept = cache / "person_000000.safetensors"
    before = kept.stat().st_mtime_ns
    one, again = (prepare_detail_frames(cache, FRAMES) for _ in range(2))
    assert kept.stat().st_mtime_ns == before
    assert all(torch.equal(value, getattr(again, name)) for name, value in vars(one).items())
    with pytest.raises(AvfaceError, match="other settings"):
        prepare_detail_frames(cache, dataclasses.replace(FRAMES, seed=1))
    (tmp_path / kept.name).write_bytes(b"nothing")
    with pytest.raises(AvfaceError, match="not readable"):
        prepare_detail_frames(tmp_path, FRAMES)


def test_batches_follow_from_the_step_and_agree(atlas):
    frames = detail_frames()
    batches = DetailBatches(RECIPE, frames, atlas.mask)
    one, again, other = batches[3], batches[3], batches[4]
    assert one.corner == again.corner and torch.equal(one.maps, again.maps)
    assert not torch.equal(one.maps, other.maps)
    assert one.maps.shape == (2, 7, 32, 32) and one.displacement.shape == (2, 32, 32)
    assert bool(torch.isfinite(one.maps).all())
    for step in range(6):
        batch = batches[step]
        # what isn't seen truly has no colour in the input or isn't trusted
        assert bool((batch.seen[batch.maps[:, 6] == 0] == 0).all())
        assert 1.5e-4 < float(batch.displacement.abs().max()) < 2e-4


def test_mirrored_crops_are_of_the_mirrored_face(atlas):
    frames = detail_frames(1)
    ramp = torch.arange(64, dtype=torch.int16).expand(1, 64, 64).contiguous()
    frames = dataclasses.replace(frames, displacement=ramp)
    batches = DetailBatches(RECIPE, frames, atlas.mask)
    slopes = set()
    for step in range(12):
        batch = batches[step]
        for crop in 1e6 * batch.displacement:
            slope = float((crop[9, 10] - crop[9, 9]).round())
            first = batch.corner[1] if slope > 0 else 63 - batch.corner[1]
            assert float(crop[9, 9].round()) == first + 9 * slope
            slopes.add(slope)
    assert slopes == {1.0, -1.0}


def _part(batch):
    size = batch.displacement.shape[-1]
    return slice(batch.corner[0], batch.corner[0] + size), slice(batch.corner[1], batch.corner[1] + size)


def test_losses_vanish_for_the_truth(atlas):
    batches = DetailBatches(RECIPE, detail_frames(), atlas.mask)
    objective = DetailObjective(RECIPE, atlas, "cpu")
    batch = batches[0]
    right = objective(batch.displacement.clone() * (atlas.mask[_part(batch)] > 0), batch)
    assert all(float(value) < 1e-3 for name, value in right.items())
    found = torch.zeros_like(batch.displacement, requires_grad=True)
    losses = objective(found, batch)
    torch.stack(list(losses.values())).sum().backward()
    step = found - 1e-5 * found.grad.sign()
    better = objective(step.detach(), batch)
    assert float(better["displacement"]) < float(losses["displacement"].detach())


def test_self_supervised_losses_take_part_when_they_have_weight(atlas):
    recipe = dataclasses.replace(RECIPE, crop=64, losses=DetailWeights())
    batches = DetailBatches(recipe, detail_frames(), atlas.mask)
    objective = DetailObjective(recipe, atlas, "cpu")
    found = torch.zeros(2, 64, 64, requires_grad=True)
    losses = objective(found, batches[0])
    assert {"photometric", "image_gradient", "symmetry"} <= set(losses)
    torch.stack(list(losses.values())).sum().backward()
    assert bool(torch.isfinite(found.grad).all())


def test_the_mrf_loss_of_vgg_replaces_the_loss_of_image_gradients(atlas, tmp_path):
    torch.manual_seed(0)
    torch.save(Vgg19().state_dict(), tmp_path / "vgg19.pth")
    recipe = dataclasses.replace(RECIPE, losses=DetailWeights(mrf=1.0))
    batch = DetailBatches(recipe, detail_frames(), atlas.mask)[0]
    displacement = torch.zeros(2, 32, 32)

    def losses(vgg=None, **changes):
        changed = dataclasses.replace(recipe, losses=dataclasses.replace(recipe.losses, **changes))
        return DetailObjective(changed, atlas, "cpu", vgg)(displacement, batch)

    plain, with_vgg = losses(), losses(tmp_path / "vgg19.pth")
    assert set(plain) - set(with_vgg) == {"image_gradient"} and set(with_vgg) - set(plain) == {"mrf"}
    assert float(losses(tmp_path / "vgg19.pth", mrf=3.0)["mrf"]) == pytest.approx(3 * float(with_vgg["mrf"]))

    seen = (batch.seen * atlas.mask[_part(batch)])[:, None]
    texture = on_coarse_texture(batch, atlas, displacement)
    expected = IdMrfLoss(Vgg19.load(tmp_path / "vgg19.pth"))(texture * seen, batch.image * seen)
    assert float(with_vgg["mrf"]) == pytest.approx(float(expected), rel=1e-5) and float(expected) > 0


def on_coarse_texture(batch, atlas, displacement):
    """The shaded texture of a displacement, as `DetailObjective` compares it with the image."""
    detailed = from_tangent_space(batch.coarse, atlas.tangent_normals(displacement, batch.corner))
    return detail_texture(batch.coarse, detailed, batch.image, batch.seen * atlas.mask[_part(batch)])


def test_an_interrupted_run_resumes_to_the_same_losses_and_weights(cache, tmp_path, monkeypatch):
    whole = train(DetailTraining(tmp_path / "whole.safetensors", cache, RECIPE, run=RUN))
    assert load_detail(tmp_path / "whole.safetensors").config == RECIPE.network
    assert bool(whole.network.last.weight.any())
    training = DetailTraining(
        tmp_path / "detail.safetensors", cache, RECIPE, run=dataclasses.replace(RUN, checkpoint_every=2)
    )

    def interrupted(self, module, batch, step, losses=DetailTask.losses):
        if step == 3:
            raise KeyboardInterrupt
        return losses(self, module, batch, step)

    with monkeypatch.context() as patched:
        patched.setattr(DetailTask, "losses", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(training)
    resumed, again = train(training), train(training)  # the second has no steps left

    assert resumed.progress.losses == whole.progress.losses and len(whole.progress.losses) == 4
    for result in (resumed, again):
        others = result.network.state_dict()
        assert all(torch.equal(value, others[name]) for name, value in whole.network.state_dict().items())


def test_a_checkpoint_of_another_recipe_or_a_damaged_one_is_refused(cache, tmp_path):
    recipe = dataclasses.replace(RECIPE, steps=1)
    training = DetailTraining(tmp_path / "detail.safetensors", cache, recipe, run=RUN)
    train(training)
    with pytest.raises(AvfaceError, match="another recipe"):
        train(dataclasses.replace(training, recipe=dataclasses.replace(recipe, seed=5)))
    checkpoint_path(training.out).write_bytes(b"nothing")
    with pytest.raises(AvfaceError, match="damaged checkpoint"):
        train(training)
    json.dumps(dataclasses.asdict(RECIPE))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": 48}, "crop=48 must be a multiple of 32, at most 64"),
        ({"crop": 96}, "crop=96 must be a multiple of 32, at most 64"),
        ({"crop": 0}, "crop=0 must be a multiple of 32, at most 64"),
        ({"steps": 0}, "steps=0 must be positive"),
        ({"batch": 0}, "batch=0 must be positive"),
        ({"learning_rate": 0.0}, r"learning_rate=0\.0 must be positive"),
        ({"gradient_norm": 0.0}, r"gradient_norm=0\.0 must be positive"),
        ({"averaging": 1.0}, r"averaging=1\.0 must be from 0 to below 1"),
        ({"warm_up": -1}, "warm_up=-1 must not be negative"),
        ({"flat_sampling": -0.1}, r"flat_sampling=-0\.1 must not be negative"),
        ({"audio_dropout": 1.2}, r"audio_dropout=1\.2 must be a share from 0 to 1"),
        ({"mask_known": -1.0}, r"mask_known=-1\.0 must be a share"),
        ({"false_occlusions": 2.0}, r"false_occlusions=2\.0 must be a share"),
        ({"distractors": 2.0}, r"distractors=2\.0 must be a share"),
        ({"frames": DetailFramesConfig()}, r"frames\.resolution=256 must be the network's resolution, 64"),
    ],
)
def test_recipes_that_cannot_work_are_refused(changes, message):
    with pytest.raises(AvfaceError, match=message):
        dataclasses.replace(RECIPE, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"picture": 10}, "picture=10 must be at least 64 pixels"),
        ({"people": 0}, "people=0 must be positive"),
        ({"frames": 0}, "frames=0 must be positive"),
        ({"resolution": 0}, "resolution=0 must be positive"),
        ({"texture": 0}, "texture=0 must be positive"),
        ({"min_scale": 1.5}, r"min_scale=1\.5 must be a share"),
        ({"folded": -0.1}, r"folded=-0\.1 must be a share"),
        ({"occluded": 2.0}, r"occluded=2\.0 must be a share"),
        ({"exact": 2.0}, r"exact=2\.0 must be a share"),
        ({"shape_error": -1.0}, r"shape_error=-1\.0 must not be negative"),
    ],
)
def test_frames_that_cannot_be_made_are_refused(changes, message):
    with pytest.raises(AvfaceError, match=message):
        DetailFramesConfig(**changes)


class Knowing(torch.nn.Module):
    """Stands for a network that outputs given displacements."""

    def __init__(self, mask, answers):
        super().__init__()
        self.config, self.mask, self.answers = RECIPE.network, mask, answers

    def forward(self, maps, speech):
        return self.answers[None]


def test_figures_know_the_truth(atlas):
    frames = detail_frames()
    frames = frames.select(held_out(frames))
    assert set(frames.person.tolist()) == {8}
    frames = frames.select(torch.tensor([0]))
    occluded = torch.zeros(1, 64, 64, dtype=torch.bool)
    occluded[:, 30:44, 20:40] = True
    frames = dataclasses.replace(frames, occluded=occluded)
    _, _, true, _ = frame_maps(frames, 0)
    figures = detail_figures(Knowing(atlas.mask, true), frames)
    column = dict(zip(figures.COLUMNS, figures.rows["detailed"], strict=True))
    coarse = dict(zip(figures.COLUMNS, figures.rows["coarse"], strict=True))
    assert column["normals"] < 0.05 < coarse["normals"] and column["correlation"] > 0.999
    assert column["false relief"] > 0.05 and coarse["false relief"] == 0
    assert np.isnan(coarse["correlation"])
    assert "1 frames of 1 people, 1 with an occluder" in figures.table()
    with pytest.raises(AvfaceError, match="no frames"):
        detail_figures(Knowing(atlas.mask, true), frames.select(torch.tensor([], dtype=torch.long)))


def test_clay_shows_folds(atlas):
    points = load_head("open").template * torch.tensor([1.0, -1.0, -1.0]) + torch.tensor([0, 0, 0.5])
    camera = Camera.centred(200.0, 96, 96)
    rows = torch.arange(64)[:, None].expand(64, 64) / 64
    plain = render_detail(atlas, points, camera, torch.zeros(64, 64))
    folded = render_detail(atlas, points, camera, 1e-3 * torch.sin(60 * rows) * atlas.mask)
    assert plain.shape == (96, 96, 3) and plain[0, 0].max() == 0 and plain[48, 48].max() > 60
    assert np.abs(plain.astype(int) - folded).max() > 15
