"""Training of the fine stage, on very few and small frames."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from avface.errors import AvfaceError
from avface.evaluation.studies.detail import detail_figures, frame_maps, render_detail
from avface.geometry.camera import Camera
from avface.head import load_head
from avface.head.skin.atlas import detail_atlas
from avface.networks.detail.losses import DetailWeights, Vgg19
from avface.networks.detail.network import DetailConfig, load_detail
from avface.synthetic.rendering.scene import SceneConfig, sample_scene
from avface.training.detail.frames import (
    DetailFrames,
    DetailFramesConfig,
    person_frames,
    prepare_detail_frames,
)
from avface.training.detail.train import (
    DetailBatches,
    DetailObjective,
    DetailRecipe,
    DetailTraining,
    held_out,
    train,
)

FRAMES = DetailFramesConfig(
    people=1,
    frames=2,
    resolution=64,
    picture=96,
    smallest=1.0,
    folded=0.0,
    occluded=1.0,
    exact=1.0,
    texture=64,
    seed=3,
)
RECIPE = DetailRecipe(
    network=DetailConfig(resolution=64, encoder=(8, 8, 8, 8, 8), decoder=(8, 8, 8, 8, 4), image=4, out=4),
    frames=FRAMES,
    steps=4,
    batch=2,
    crop=32,
    bfloat16=False,
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Folder of a person's frames."""
    folder = tmp_path_factory.mktemp("cache")
    told = []
    prepare_detail_frames(folder, FRAMES, on_person=lambda *done: told.append(done))
    assert told == [(0, 1), (1, 1)]
    return folder


@pytest.fixture(scope="module")
def atlas():
    return detail_atlas(load_head("open"), 64)


def made_up(count=4, people=(0, 8)):
    """Frames (N) of nobody: waves of skin and the light on them."""
    rng = torch.Generator().manual_seed(0)
    size = 64
    steps = torch.arange(size) / size
    phase = 6 * torch.rand(count, 1, 1, generator=rng)
    waves = torch.sin(40 * steps[:, None] + phase).expand(count, size, size)
    light = 0.5 + 0.3 * torch.cos(40 * steps[:, None] + phase).expand(count, size, size)
    normals = torch.zeros(count, 3, size, size, dtype=torch.int8)
    normals[:, 2] = 127
    return DetailFrames(
        image=(255 * light)[:, None].expand(-1, 3, -1, -1).byte(),
        normals=normals,
        visibility=torch.full((count, size, size), 255, dtype=torch.uint8),
        hidden=torch.zeros(count, size, size, dtype=torch.bool),
        displacement=(200 * waves).to(torch.int16),
        speech=torch.zeros(count, 16, 29, dtype=torch.float16),
        person=torch.tensor([people[k % len(people)] for k in range(count)], dtype=torch.int32),
        frame=torch.arange(count, dtype=torch.int32),
    )


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
    assert bool(frames.hidden.any()) and not bool((frames.hidden & (frames.visibility == 0)).any())
    assert float(frames.visibility[:, inside].float().mean() / 255) > 0.3


def test_strong_expressions_fold_the_skin():
    plain = dataclasses.replace(FRAMES, occluded=0.0, frames=4)
    still, folded = (
        [person_frames(number, dataclasses.replace(plain, folded=share)) for number in range(4)]
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
    frames = made_up()
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
    frames = made_up(1)
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
    batches = DetailBatches(RECIPE, made_up(), atlas.mask)
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
    batches = DetailBatches(recipe, made_up(), atlas.mask)
    objective = DetailObjective(recipe, atlas, "cpu")
    found = torch.zeros(2, 64, 64, requires_grad=True)
    losses = objective(found, batches[0])
    assert {"photometric", "structure", "symmetry"} <= set(losses)
    torch.stack(list(losses.values())).sum().backward()
    assert bool(torch.isfinite(found.grad).all())


def test_mrf_takes_the_place_of_structure(atlas, tmp_path):
    torch.save(Vgg19().state_dict(), tmp_path / "vgg19.pth")
    recipe = dataclasses.replace(RECIPE, losses=DetailWeights())
    objective = DetailObjective(recipe, atlas, "cpu", tmp_path / "vgg19.pth")
    batch = DetailBatches(recipe, made_up(), atlas.mask)[0]
    losses = objective(torch.zeros(2, 32, 32), batch)
    assert "mrf" in losses and "structure" not in losses and bool(torch.isfinite(losses["mrf"]))


def test_run_stops_and_goes_on(cache, tmp_path):
    training = DetailTraining(tmp_path / "detail.safetensors", cache, RECIPE, checkpoint_every=2)
    with torch.random.fork_rng():
        network = train(training)
    assert load_detail(training.out).config == RECIPE.network
    assert bool(network.last.weight.any())
    with torch.random.fork_rng():
        again = train(training)  # all steps are done
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())
    other = dataclasses.replace(training, recipe=dataclasses.replace(RECIPE, seed=5))
    with torch.random.fork_rng(), pytest.raises(AvfaceError, match="another recipe"):
        train(other)
    training.checkpoint.write_bytes(b"nothing")
    with torch.random.fork_rng(), pytest.raises(AvfaceError, match="damaged checkpoint"):
        train(training)
    json.dumps(dataclasses.asdict(RECIPE))


def test_bad_recipes():
    for changes in ({"crop": 48}, {"crop": 96}, {"steps": 0}, {"frames": DetailFramesConfig()}):
        with pytest.raises(AvfaceError):
            dataclasses.replace(RECIPE, **changes)
    with pytest.raises(AvfaceError):
        DetailFramesConfig(picture=10)


class Knowing(torch.nn.Module):
    """Stands for a network that says what it is told, by the picture's red."""

    def __init__(self, mask, answers):
        super().__init__()
        self.config, self.mask, self.answers = RECIPE.network, mask, answers

    def forward(self, maps, speech):
        return self.answers[None]


def test_figures_know_the_truth(atlas):
    frames = made_up()
    frames = frames.select(held_out(frames))
    assert set(frames.person.tolist()) == {8}
    frames = frames.select(torch.tensor([0]))
    hidden = torch.zeros(1, 64, 64, dtype=torch.bool)
    hidden[:, 30:44, 20:40] = True
    frames = dataclasses.replace(frames, hidden=hidden)
    _, _, true, _ = frame_maps(frames, 0)
    figures = detail_figures(Knowing(atlas.mask, true), frames)
    column = dict(zip(figures.COLUMNS, figures.rows["detailed"], strict=True))
    coarse = dict(zip(figures.COLUMNS, figures.rows["coarse"], strict=True))
    assert column["normals"] < 0.05 < coarse["normals"] and column["correlation"] > 0.999
    assert column["engraved"] > 0.05 and coarse["engraved"] == 0
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
