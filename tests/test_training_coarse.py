"""Training of the coarse networks: batches, losses, validation, and resumed runs."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from corpora import DISC, DiscTracker, disc, loudness, write_talk
from networks_frames import small_config
from training_runs import coarse_performances, coarse_recipe, tracked_takes

from avface.data import PrepareConfig, prepare
from avface.errors import AvfaceError
from avface.head.asset import load_head
from avface.head.model import HeadModel
from avface.networks.coarse.codes import CoarseCode, CodeConfig, perspective_camera, perspective_translation
from avface.networks.coarse.model import CoarseNetworks, load_networks
from avface.networks.frames import FaceCrop, Frames
from avface.training.coarse import recipes, validation
from avface.training.coarse.batches import Batch, LandmarkBatches, with_occlusion_errors
from avface.training.coarse.face_points import FacePoints, mirrored_shape, mirrored_units, project
from avface.training.coarse.image_batches import ImageBatches
from avface.training.coarse.objective import SupervisedObjective
from avface.training.coarse.self_supervised import AlbedoSpace, SelfSupervisedObjective
from avface.training.coarse.tracked_takes import read_tracked_takes
from avface.training.coarse.train import (
    CoarseRunConfig,
    CoarseTask,
    CoarseTraining,
    OcclusionTraining,
    recipe_of,
    train,
)
from avface.training.coarse.validation import CONDITIONS, validate
from avface.training.loop.trainer import checkpoint_path, total_loss

UNCHANGED = recipes.Augmentation(0, 0, 0, 0, 0, 0, 0, 0)
NO_OCCLUSION = recipes.OcclusionAugmentation(occluded=0, false_alarm=0, lost=0)
EXACT = recipes.Simulation(bias=0, drift=0)
RUN = CoarseRunConfig(workers=0, validate_every=0, report_every=1, quiet=True)


@pytest.fixture(scope="module")
def head():
    return load_head()


@pytest.fixture(scope="module")
def performances():
    return coarse_performances()


def test_landmarks_of_many_heads_are_those_of_the_head_model(head):
    generator = torch.Generator().manual_seed(1)
    shape = torch.randn(2, head.num_shape, generator=generator)
    expression = 0.5 * torch.rand(2, 3, head.num_expression, generator=generator)
    joints = 0.2 * torch.randn(2, 3, head.num_joints, 3, generator=generator)

    points = FacePoints.of(head)(shape, expression, joints)

    vertices = head(shape.repeat_interleave(3, 0), expression.flatten(0, 1), joints.flatten(0, 1))
    embedding = head.embedding("mediapipe478")
    shares = torch.from_numpy(embedding.barycentric).float()
    wanted = torch.einsum("blkc,lk->blc", vertices[:, embedding.triangles], shares).unflatten(0, (2, 3))
    torch.testing.assert_close(points, wanted, atol=1e-5, rtol=0)


def test_the_mirror_image_of_a_face_has_swapped_units_and_a_mirrored_shape(head):
    points = FacePoints.of(head)
    generator = torch.Generator().manual_seed(3)
    shape = torch.randn(head.num_shape, generator=generator)
    smirk = torch.zeros(1, head.num_expression)
    smirk[0, head.expression_names.index("mouthSmileLeft")] = 0.8
    flip = torch.tensor([-1.0, 1.0, 1.0])
    partner = points.mirrored_points()

    face = points(shape, smirk)
    image = points(mirrored_shape(head) @ shape, smirk[:, mirrored_units(head.expression_names)])

    assert torch.equal(partner[partner], torch.arange(478))
    offset = points.rest[partner] * flip - points.rest  # the points aren't quite symmetric
    error = (face[0, partner] * flip - offset - image[0]).norm(dim=-1)
    assert float(error.mean()) < 0.5e-3 < float((face - image).norm(dim=-1).mean())


def test_unoccluded_simulated_landmarks_without_errors_are_the_truth(head, performances):
    recipe = replace(
        coarse_recipe(augmentation=UNCHANGED, occlusion=NO_OCCLUSION),
        simulation=replace(EXACT, simulated_share=1.0),
    )

    batch = LandmarkBatches(recipe, head, None, performances, steps=2)[1]

    frames = batch.frames
    torch.testing.assert_close(frames.landmarks, batch.points, atol=1e-4, rtol=0)
    assert float(frames.visibility.min()) == 1
    assert bool(frames.seen.all())
    camera = perspective_camera(batch.translation, frames.crop)
    torch.testing.assert_close(perspective_translation(camera, frames.crop), batch.translation)
    place = frames.crop.normalise(
        project(
            FacePoints.of(head)(batch.shape, batch.expression),
            batch.rotation,
            batch.translation,
            frames.crop.focal_length,
            frames.crop.principal_point,
        )
    )
    torch.testing.assert_close(place[:, :, :468], batch.points[:, :, :468], atol=1e-4, rtol=0)


def test_mirrored_and_rotated_takes_agree_with_their_truth(head):
    takes = tracked_takes()
    rotated = replace(UNCHANGED, mirror=0.5, roll=0.3, crop_shift=0.1, crop_scale=0.1)
    recipe = replace(
        coarse_recipe(augmentation=rotated, occlusion=NO_OCCLUSION, batch=16),
        simulation=recipes.Simulation(simulated_share=0.0),
    )

    batch = LandmarkBatches(recipe, head, takes, None, steps=1)[0]

    error = (batch.frames.landmarks - batch.points)[:, :, :468].norm(dim=-1)
    assert float(error.mean(-1).max()) < 0.02  # the points aren't quite symmetric
    units = batch.expression[..., head.expression_names.index("jawOpen")]
    spoken = (batch.frames.speech[..., 8, 3] + 1) / 4
    torch.testing.assert_close(units, spoken, atol=2e-3, rtol=0)


def test_batches_depend_on_seed_and_step_alone(head, performances):
    batches = LandmarkBatches(coarse_recipe(), head, None, performances, steps=9)
    again = LandmarkBatches(coarse_recipe(), head, None, performances, steps=9)

    later = batches[5]

    assert torch.equal(later.frames.landmarks, again[5].frames.landmarks)
    assert not torch.equal(later.frames.landmarks, batches[6].frames.landmarks)
    other = LandmarkBatches(coarse_recipe(seed=1), head, None, performances, steps=9)[5]
    assert not torch.equal(later.frames.landmarks, other.frames.landmarks)


def test_occlusion_changes_the_points_it_covers_and_no_others(head, performances):
    random = torch.Generator().manual_seed(0)
    exact = torch.rand(6, 16, 478, 2, generator=random)
    covered = torch.zeros(6, 16, 478, dtype=torch.bool)
    covered[:, 4:9, 100:200] = True

    wrong = with_occlusion_errors(exact, exact, covered, random)

    changed = (wrong != exact).any(-1)
    assert torch.equal(changed, covered)
    occlusion = recipes.OcclusionAugmentation(occluded=1.0, mask_known=1.0, lower_face=1.0, lost=0)
    recipe = coarse_recipe(occlusion=occlusion, batch=16)
    frames = LandmarkBatches(recipe, head, None, performances, steps=1)[0].frames
    assert bool((frames.visibility.amin((1, 2)) < 0.5).all())


@pytest.mark.slow
def test_training_overfits_a_few_windows_and_predicts_the_mouth_from_sound_alone(head, performances):
    recipe = coarse_recipe(augmentation=UNCHANGED, occlusion=NO_OCCLUSION, batch=8)
    torch.manual_seed(0)
    networks = CoarseNetworks(recipe.network)
    objective = SupervisedObjective(networks, head, recipe.losses)
    batches = [LandmarkBatches(recipe, head, None, performances, steps=2)[n] for n in range(2)]
    for branch in (networks.coarse, networks.expression):
        branch.video.standardise(batches[0].frames)
    optimiser = torch.optim.Adam(networks.parameters(), 3e-3)
    first = total_loss(objective(batches[0], 0))

    for step in range(120):
        optimiser.zero_grad()
        total_loss(objective(batches[step % 2], step)).backward()
        torch.nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        optimiser.step()

    last = total_loss(objective(batches[0], 0))
    assert last < 0.5 * first
    frames = replace(batches[0].frames, seen=torch.zeros_like(batches[0].frames.seen))
    jaw = head.expression_names.index("jawOpen")
    predicted = networks.expression(frames).expression[..., jaw].detach().flatten()
    assert (
        float(torch.corrcoef(torch.stack([predicted, batches[0].expression[..., jaw].flatten()]))[0, 1]) > 0.5
    )


def single_frame_recipe(**changes):
    recipe = coarse_recipe(**changes)
    network = recipe.network
    coarse, expression = (
        replace(branch, temporal=replace(branch.temporal, window=1))
        for branch in (network.coarse, network.expression)
    )
    return replace(recipe, network=replace(network, coarse=coarse, expression=expression))


def test_networks_of_single_frames_are_trained_without_velocity(head, performances):
    recipe = single_frame_recipe(batch=16, augmentation=UNCHANGED, occlusion=NO_OCCLUSION)
    torch.manual_seed(0)
    networks = CoarseNetworks(recipe.network)
    objective = SupervisedObjective(networks, head, recipe.losses)
    batch = LandmarkBatches(recipe, head, None, performances, steps=1)[0]
    assert batch.expression.shape[1] == 1
    for branch in (networks.coarse, networks.expression):
        branch.video.standardise(batch.frames)
    optimiser = torch.optim.Adam(networks.parameters(), 3e-3)
    before = {name: value.clone() for name, value in networks.named_parameters()}
    history = []

    for _ in range(30):
        optimiser.zero_grad()
        losses = objective(batch, 0)
        assert "velocity" not in losses
        total_loss(losses).backward()
        optimiser.step()
        history.append({name: float(value.detach()) for name, value in losses.items()})

    for name in ("vertices", "units", "points", "rotation"):  # two of each branch
        assert history[-1][name] < 0.7 * history[0][name], name
    for part in ("coarse.temporal", "expression.temporal", "coarse.video", "expression.video"):
        moved = [
            not torch.equal(value, before[name])
            for name, value in networks.named_parameters()
            if name.startswith(part)
        ]
        assert any(moved), part


def true_codes(takes, number, frames):
    """What perfect networks predict for a take in all conditions."""
    many, count = frames.seen.shape
    rows = slice(int(takes.first[number]), int(takes.first[number]) + count)

    def repeated(values):
        return values.expand(many, *values.shape)

    coarse = CoarseCode(
        shape=repeated(takes.shape[number].expand(count, -1)),
        albedo=torch.zeros(many, count, 0),
        light=torch.zeros(many, count, 9, 3),
        rotation=repeated(takes.rotation[rows]),
        camera=perspective_camera(repeated(takes.translation[rows]), frames.crop),
        log_variance=torch.zeros(many, count, 3),
    )
    return coarse, SimpleNamespace(expression=repeated(takes.expression[rows]))


def test_validation_of_a_perfect_face(head, monkeypatch):
    takes = tracked_takes()
    numbers = iter(range(len(takes)))
    monkeypatch.setattr(
        validation, "predict", lambda networks, frames: true_codes(takes, next(numbers), frames)
    )

    errors = validate(CoarseNetworks(coarse_recipe().network), head, takes)

    assert errors["nme"] < 1e-3
    for name in ("vertices", "lips", "shape", *(f"lips/{name}" for name in CONDITIONS)):
        assert errors[name] == pytest.approx(0, abs=1e-5), name
    for name in CONDITIONS:
        assert errors[f"opening/{name}"] == pytest.approx(1, abs=1e-5), name


def test_validation_of_a_still_face(head):
    takes = tracked_takes()
    torch.manual_seed(0)
    networks = CoarseNetworks(coarse_recipe().network)

    errors = validate(networks, head, takes)

    jaw = head.expression_basis[head.expression_names.index("jawOpen")]
    lips = torch.from_numpy(head.regions["lips"])
    still = 1000 * float(takes.expression.sum(1).mean() * jaw[lips].norm(dim=-1).mean())
    assert errors["lips"] == pytest.approx(still, rel=0.1)  # untrained networks predict the neutral face
    assert errors["nme"] > 5 and errors["shape"] > 1
    assert abs(errors["opening/clean"]) < 0.99


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run of six steps on simulated landmarks."""
    folder = tmp_path_factory.mktemp("finished")
    training = CoarseTraining(
        folder / "none", coarse_recipe(), folder / "new" / "coarse.safetensors", run=RUN
    )
    return training, train(training)


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_losses(finished, tmp_path, monkeypatch):
    training, whole = finished
    (tmp_path / "performances.safetensors").write_bytes(
        training.out.with_name("performances.safetensors").read_bytes()
    )
    stopped = replace(training, out=tmp_path / "coarse.safetensors", run=replace(RUN, checkpoint_every=3))

    def interrupted(self, module, batch, step, losses=CoarseTask.losses):
        if step == 3:
            raise KeyboardInterrupt
        return losses(self, module, batch, step)

    with monkeypatch.context() as patched:
        patched.setattr(CoarseTask, "losses", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(stopped)

    resumed = train(stopped)

    assert len(resumed.progress.losses) == 6
    assert resumed.progress.losses == whole.progress.losses
    one, other = load_networks(training.out).state_dict(), load_networks(stopped.out).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_weights_hold_their_recipe_and_occlusion_training_starts_from_them(finished, tmp_path):
    training, _ = finished

    assert recipe_of(training.out) == training.recipe
    more = OcclusionTraining(
        training.shards, training.out, tmp_path / "more.safetensors", steps=2, run=RUN
    ).training()
    assert more.recipe.name == "small+occlusion"
    assert more.recipe.occlusion.occluded > training.recipe.occlusion.occluded
    train(more)
    assert recipe_of(more.out) == more.recipe
    moved = [
        (a - b).abs().max().item()
        for a, b in zip(
            load_networks(more.out).parameters(), load_networks(training.out).parameters(), strict=True
        )
    ]
    assert 0 < max(moved) < 0.1  # it started there


def test_weights_may_go_on_with_other_speech_features_of_the_same_size(finished, tmp_path):
    training, _ = finished
    options = OcclusionTraining(
        training.shards, training.out, tmp_path / "own.safetensors", steps=1, speech="own", run=RUN
    )
    more = options.training()
    assert more.recipe.network.expression.audio.speech == "own"
    train(more)
    started, before = load_networks(more.out), load_networks(training.out)
    assert started.config.expression.audio.speech == "own" != before.config.expression.audio.speech
    changes = zip(started.parameters(), before.parameters(), strict=True)
    assert max((one - other).abs().max().item() for one, other in changes) < 0.1
    with pytest.raises(AvfaceError, match="speech=mel: has 80 values a row, the networks take 29"):
        replace(options, speech="mel").training()


def test_a_checkpoint_of_another_recipe_or_a_damaged_one_is_refused(finished, tmp_path):
    training, _ = finished
    other = replace(training, recipe=replace(training.recipe, learning_rate=0.5))
    with pytest.raises(AvfaceError, match=r"another recipe.*learning_rate is 0\.001, not 0\.5"):
        train(other)
    whole = checkpoint_path(training.out).read_bytes()
    here = replace(training, out=tmp_path / "coarse.safetensors")
    for contents in (whole[:-100], b"\x00" * 200, training.out.read_bytes()):
        checkpoint_path(here.out).write_bytes(contents)
        with pytest.raises(AvfaceError, match=r"checkpoint"):
            train(here)
    assert checkpoint_path(here.out).read_bytes() == training.out.read_bytes()  # nothing was written over it


def test_weights_without_a_recipe_are_refused(tmp_path):
    path = tmp_path / "no.safetensors"
    with pytest.raises(AvfaceError, match="no such file"):
        recipe_of(path)
    path.write_bytes(b"nothing")
    with pytest.raises(AvfaceError, match="not a readable weights file"):
        recipe_of(path)


@pytest.mark.parametrize("make", [recipes.default, recipes.default_image, recipes.paper])
def test_recipes_survive_json(make):
    for recipe in (make(), recipes.occlusion(make())):
        assert recipes.read_recipe(json.dumps(recipe.plain())) == recipe


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: coarse_recipe(steps=0), "steps=0 must be positive"),
        (lambda: coarse_recipe(batch=0), "batch=0 must be positive"),
        (lambda: coarse_recipe(learning_rate=0.0), r"learning_rate=0\.0 must be positive"),
        (lambda: coarse_recipe(gradient_norm=-1.0), r"gradient_norm=-1\.0 must be positive"),
        (lambda: coarse_recipe(averaging=1), "averaging=1 must be from 0 to below 1"),
        (lambda: coarse_recipe(warm_up=-1), "warm_up=-1 must not be negative"),
        (lambda: coarse_recipe(seed=-1), "seed=-1 must not be negative"),
        (lambda: coarse_recipe(weight_decay=-0.1), r"weight_decay=-0\.1 must not be negative"),
        (lambda: recipes.Augmentation(mirror=2), "mirror=2 must be a share from 0 to 1"),
        (lambda: recipes.Augmentation(speech_gaps=-0.1), r"speech_gaps=-0\.1 must be a share"),
        (lambda: recipes.Augmentation(jitter=-1), "jitter=-1 must not be negative"),
        (lambda: recipes.Augmentation(speech_shift=-1), "speech_shift=-1 must not be negative"),
        (lambda: recipes.OcclusionAugmentation(occluded=1.5), r"occluded=1\.5 must be a share"),
        (lambda: recipes.OcclusionAugmentation(mask_known=-1), "mask_known=-1 must be a share"),
        (
            lambda: recipes.OcclusionAugmentation(shortest=2.0, longest=1.0),
            r"longest=1\.0 must be at least shortest=2\.0",
        ),
        (lambda: recipes.Simulation(simulated_share=1.1), r"simulated_share=1\.1 must be a share"),
        (lambda: recipes.Simulation(hours=0), "hours=0 must be positive"),
        (lambda: recipes.Simulation(seconds=0), "seconds=0 must be positive"),
        (lambda: recipes.Simulation(drift_time=-1), "drift_time=-1 must not be negative"),
        (lambda: recipes.Supervision(points=-1.0), r"points=-1\.0 must not be negative"),
        (lambda: recipes.SelfSupervision(render_size=0), "render_size=0 must be positive"),
        (lambda: CoarseRunConfig(devices=0), "devices=0 must be at least 1"),
        (lambda: CoarseRunConfig(nodes=0), "nodes=0 must be at least 1"),
        (lambda: CoarseRunConfig(workers=-1), "workers=-1 must not be negative"),
        (lambda: CoarseRunConfig(validate_every=-1), "validate_every=-1 must not be negative"),
        (lambda: CoarseRunConfig(validation_takes=0), "validation_takes=0 must be at least 1"),
        (lambda: CoarseRunConfig(time_limit=0), "time_limit=0 must be above 0 minutes"),
    ],
)
def test_settings_that_cannot_work_are_refused(make, message):
    with pytest.raises(AvfaceError, match=message):
        make()


def flame_shaped(head, shape=20, expression=10):
    """A head of FLAME's kind: real-valued expressions, and a jaw that is a joint of three units."""
    rng = np.random.default_rng(5)
    jaw = head.expression_basis[head.expression_names.index("jawOpen")].norm(dim=-1).numpy()
    follows = (jaw / jaw.max()).clip(0, 1)
    basis = np.concatenate(
        [
            head.expression_basis[rng.choice(head.num_expression, expression, False)].numpy() / 2,
            np.zeros((3, head.num_vertices, 3)),
        ]
    )
    regressor = np.zeros((2, head.num_vertices))
    regressor[0, int(head.template[:, 1].argmin())] = 1
    ears = np.flatnonzero(head.regions["ears"])
    regressor[1, ears] = 1 / len(ears)
    return HeadModel(
        "flame-shaped",
        template=head.template.numpy(),
        shape_basis=head.shape_basis[:shape].numpy(),
        expression_basis=basis,
        expression_names=(*(f"exp{n}" for n in range(expression)), "jaw0", "jaw1", "jaw2"),
        joint_names=("neck", "jaw"),
        joint_parents=(-1, 0),
        joint_regressor=regressor,
        skin_weights=np.stack([1 - follows, 0 * follows, follows], 1),
        faces=head.faces.numpy(),
        uv=head.uv,
        uv_faces=head.uv_faces,
        part_names=head.part_names,
        face_parts=head.face_parts,
        regions=head.regions,
        embeddings=head.embeddings,
        gaze_range=np.zeros(4),
        joint_units={expression + axis: (1, axis) for axis in range(3)},
    )


FLAME_SHAPED = CodeConfig(
    shape=20, albedo=4, expression=10, bounded=False, jaw=True, camera="weak_perspective"
)


def image_batch(size=24):
    """A batch of two windows of a talking head, with images in which its skin is brighter than the background."""
    takes = tracked_takes(count=8)
    rows = torch.arange(16).unflatten(0, (2, 8))
    crop = FaceCrop.of(takes.box[rows], takes.focal, takes.centre)
    landmarks = crop.normalise(takes.tracked[rows])
    place = (torch.arange(size) + 0.5) * (2 / size) - 1
    middle = landmarks.mean(2)
    inside = ((place - middle[..., :1]).abs() < 0.5)[..., None, :] & ((place - middle[..., 1:]).abs() < 0.6)[
        ..., :, None
    ]
    images = (60 + 100 * inside[..., None, :, :]).expand(2, 8, 3, size, size).to(torch.uint8)
    seen = torch.ones(2, 8, dtype=torch.bool)
    frames = Frames(
        crop,
        seen,
        seen,
        landmarks,
        takes.confidence[rows],
        images=images,
        speech=takes.speech[rows].float(),
    )
    return Batch(frames, face=inside)


@pytest.mark.slow
def test_the_papers_losses_overfit_a_few_windows_without_any_truth(head):
    batch = image_batch()
    flame = flame_shaped(head)
    torch.manual_seed(0)
    networks = CoarseNetworks(small_config(code=FLAME_SHAPED, head="flame-shaped"))
    weights = recipes.SelfSupervision(photometric=0.0)
    objective = SelfSupervisedObjective(networks, flame, weights)
    for branch in (networks.coarse, networks.expression):
        branch.video.standardise(batch.frames)
    optimiser = torch.optim.Adam(networks.parameters(), 3e-3)
    first = total_loss(objective(batch, 0)).item()

    last = first
    for step in range(200):
        optimiser.zero_grad()
        total = total_loss(objective(batch, step))
        total.backward()
        torch.nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        optimiser.step()
        last = total.item()
        if last < 0.1 * first:
            break

    assert last < 0.1 * first


def test_the_photometric_loss_uses_images_and_has_gradients_of_the_light(head):
    batch = image_batch()
    networks = CoarseNetworks(small_config(code=FLAME_SHAPED, head="flame-shaped"))
    weights = recipes.SelfSupervision(render_size=24)
    objective = SelfSupervisedObjective(networks, flame_shaped(head), weights)

    losses = objective(batch, 0)
    losses["photometric"].backward()

    assert losses["photometric"].item() > 0
    light = networks.coarse.temporal.projection[-1].bias.grad[-30:-3]  # 27 of light, 3 of variance
    assert float(light.abs().max()) > 0


def test_a_head_that_does_not_fit_the_recipe_is_refused(head):
    networks = CoarseNetworks(small_config(code=FLAME_SHAPED, head="flame-shaped"))
    with pytest.raises(AvfaceError, match="open: this head has 100 shape and 52 expression"):
        SelfSupervisedObjective(networks, head, recipes.SelfSupervision())


def test_albedo_spaces_of_both_kinds_are_read_and_others_refused(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "texture.npz"
    mean, basis = rng.uniform(0, 1, 8 * 8 * 3), rng.normal(0, 0.01, (8 * 8 * 3, 6))
    np.savez(path, MU=mean, PC=basis)
    bfm = AlbedoSpace.load(path, 4)
    np.savez(path, mean=255 * mean.reshape(8, 8, 3), tex_dir=255 * basis.reshape(8, 8, 3, 6))
    own = AlbedoSpace.load(path, 4)

    weights = torch.randn(2, 4)
    torch.testing.assert_close(bfm(weights), own(weights))
    assert bfm(weights).shape == (2, 256, 256, 3)
    np.testing.assert_allclose(bfm.mean[0, 0], mean[:3][::-1], rtol=1e-5)
    np.savez(path, nothing=mean)
    with pytest.raises(AvfaceError, match="not a readable texture space"):
        AlbedoSpace.load(path, 4)


def with_truth(folder, head, name, frames=20):
    """A synthetic clip, with a disc for its face."""
    write_talk(folder / name / "clip.mp4", [disc((60 + frame / 2, 55)) for frame in range(frames)])
    rng = np.random.default_rng(frames)
    marks = (
        rng.uniform(-20, 20, (1, 478, 2))
        + np.stack([60 + np.arange(frames) / 2, 55 + 0 * np.arange(frames)], 1)[:, None]
    )
    np.savez(
        folder / name / "truth.npz",
        expression=rng.uniform(0, 1, (frames, head.num_expression)).astype(np.float32),
        joints=np.zeros((frames, head.num_joints, 3), np.float32),
        rotation=np.tile(np.float32([np.pi, 0, 0]), (frames, 1)),
        translation=np.tile(np.float32([0, 0, 0.7]), (frames, 1)),
        landmarks=marks.astype(np.float32),
        shape=rng.normal(size=head.num_shape).astype(np.float32),
        focal_length=np.float64(200),
        principal_point=np.array([79.5, 59.5]),
    )


@pytest.fixture(scope="module")
def shards(head, tmp_path_factory):
    """Six synthetic people in several shards, none held out."""
    folder = tmp_path_factory.mktemp("discs")
    for person in range(6):
        with_truth(folder / "clips", head, f"clip_{person:06d}", 20 + 2 * person)
    config = PrepareConfig(size=32, validation=0, test=0, shard_megabytes=0.1)
    prepare(folder / "clips", folder / "shards", config, workers=1, track=DiscTracker(), speech=loudness)
    return folder / "shards"


def test_takes_in_memory_are_the_tracked_ones_with_their_truth(shards, head):
    takes = read_tracked_takes(shards, "train")

    assert sorted(takes.count.tolist()) == [20, 22, 24, 26, 28, 30]
    number = int(takes.count.argmin())
    rows = slice(int(takes.first[number]), int(takes.first[number]) + 20)
    frame = torch.arange(20)
    found = takes.tracked[rows].mean(1)
    wanted = (
        torch.stack([60 + frame / 2, torch.full((20,), 55.0)], 1)
        + torch.from_numpy(24 * DISC.mean(0)).float()
    )
    torch.testing.assert_close(found, wanted, atol=0.6, rtol=0)
    torch.testing.assert_close(takes.rotation[0], torch.diag(torch.tensor([1.0, -1, -1])), atol=1e-6, rtol=0)
    assert float(takes.focal[number]) == 200
    assert takes.box.shape == (150, 3)
    with pytest.raises(AvfaceError, match="validation split is empty"):
        read_tracked_takes(shards, "validation")


def test_shards_without_truth_are_refused(tmp_path):
    write_talk(tmp_path / "videos" / "one" / "talk.mp4", [disc((60, 55))] * 20)
    config = PrepareConfig(size=32, validation=0, test=0)
    prepare(tmp_path / "videos", tmp_path / "shards", config, workers=1, track=DiscTracker(), speech=loudness)

    with pytest.raises(AvfaceError, match=r"no truth about .*avface synthesize"):
        read_tracked_takes(tmp_path / "shards", "train")


def test_batches_of_images_resume_at_any_step(shards, head):
    recipe = replace(
        recipes.default_image(), network=small_config(), batch=2, augmentation=recipes.Augmentation()
    )
    batches = ImageBatches(recipe, head, shards, workers=0)

    first = [batch for batch, _ in zip(batches(0), range(4), strict=False)]
    later = next(batches(3))

    assert torch.equal(later.frames.images, first[3].frames.images)
    assert torch.equal(later.frames.landmarks, first[3].frames.landmarks)
    assert not torch.equal(first[0].frames.images, first[3].frames.images)


def test_shifted_and_mirrored_images_agree_with_their_points(shards, head):
    changes = replace(UNCHANGED, mirror=0.5, crop_shift=0.15, crop_scale=0.15)
    recipe = replace(recipes.default_image(), network=small_config(), batch=6, augmentation=changes)

    batch = next(ImageBatches(recipe, head, shards, workers=0)(0))

    bright = (batch.frames.images[:, :, 1] > 150).float()
    place = (torch.arange(32) + 0.5) * (2 / 32) - 1
    total = bright.sum((2, 3))
    middle = torch.stack([(bright.sum(2) * place).sum(2) / total, (bright.sum(3) * place).sum(2) / total], -1)
    torch.testing.assert_close(batch.frames.landmarks.mean(2), middle, atol=0.06, rtol=0)
    assert batch.face.shape == (6, 16, 32, 32)
