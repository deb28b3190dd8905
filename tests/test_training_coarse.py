"""Training of the coarse networks: what batches hold, that losses fall, and that a run goes on as if never stopped."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from corpora import DISC, DiscTracker, disc, loudness, write_talk
from networks_frames import small_config

from avface.data import PrepareConfig, prepare
from avface.errors import AvfaceError
from avface.head.model import HeadModel, load_head
from avface.networks.coarse.codes import CodeConfig, perspective_camera, perspective_translation
from avface.networks.coarse.model import CoarseNetworks, load_networks
from avface.networks.coarse.video import LandmarksConfig
from avface.networks.frames import FaceCrop, Frames
from avface.training.coarse import recipes
from avface.training.coarse.batches import Batch, LandmarkBatches, make_up
from avface.training.coarse.face_points import FacePoints, mirrored_shape, mirrored_units, project
from avface.training.coarse.image_batches import ImageBatches
from avface.training.coarse.objective import SupervisedObjective, Total
from avface.training.coarse.self_supervised import AlbedoSpace, SelfSupervisedObjective
from avface.training.coarse.tracked_takes import Performances, TrackedTakes, read_tracked_takes
from avface.training.coarse.train import (
    OcclusionTraining,
    Session,
    Training,
    read_arguments,
    recipe_of,
    train,
)
from avface.training.coarse.validation import validate

UNCHANGED = recipes.Augmentation(0, 0, 0, 0, 0, 0, 0, 0)
NOTHING_HIDDEN = recipes.Hiding(hidden=0, false_alarm=0, lost=0)
EXACT = recipes.Sketching(bias=0, drift=0)
QUIET = Session(workers=0, validate_every=0, report_every=1)


@pytest.fixture(scope="module")
def head():
    return load_head()


@pytest.fixture(scope="module")
def performances(head):
    """Two talks of 80 frames in which the speech features say how far the jaw is open."""
    rng = np.random.default_rng(0)
    frames = 160
    expression = np.zeros((frames, head.num_expression), np.float32)
    opening = 0.25 + 0.25 * np.sin(np.arange(frames) * 0.7)
    expression[:, head.expression_names.index("jawOpen")] = opening
    joints = np.zeros((frames, head.num_joints, 3), np.float32)
    joints[:, 1:, 1] = rng.normal(0, 0.1, (frames, 1))
    speech = np.zeros((frames, 16, 29), np.float16)
    speech[..., 3] = (4 * opening - 1)[:, None]
    return Performances(
        first=torch.tensor([0, 80]),
        count=torch.tensor([80, 80]),
        expression=torch.from_numpy(expression),
        joints=torch.from_numpy(joints),
        turn=torch.from_numpy(rng.normal(0, 0.05, (frames, 3)).astype(np.float32)),
        shift=torch.zeros(frames, 3),
        speech=torch.from_numpy(speech),
        frame_rate=25.0,
    )


def tracked(head, count=40, takes=2):
    """Takes in which a head opens its mouth, followed without error."""
    generator = torch.Generator().manual_seed(2)
    frames = count * takes
    expression = torch.zeros(frames, head.num_expression)
    opening = 0.25 + 0.25 * torch.sin(torch.arange(frames) * 0.7)
    expression[:, head.expression_names.index("jawOpen")] = opening
    shape = 0.5 * torch.randn(takes, head.num_shape, generator=generator)
    rotation = torch.diag(torch.tensor([1.0, -1.0, -1.0])).expand(frames, 3, 3)
    translation = torch.tensor([0.02, -0.01, 0.8]).expand(frames, 3)
    joints = torch.zeros(frames, head.num_joints, 3)
    points = FacePoints.of(head)(shape, expression.unflatten(0, (takes, count)), None).flatten(0, 1)
    centre = torch.tensor([127.5, 127.5])
    pixels = project(points, rotation, translation, torch.full((frames,), 300.0), centre.expand(frames, 2))
    speech = torch.zeros(frames, 16, 29, dtype=torch.float16)
    speech[..., 3] = (4 * opening - 1)[:, None]
    box = torch.cat([pixels.mean(1), torch.full((frames, 1), 110.0)], -1)
    return TrackedTakes(
        first=torch.arange(takes) * count,
        count=torch.full((takes,), count),
        tracked=pixels,
        confidence=torch.ones(frames),
        hidden=torch.zeros(frames, 478, dtype=torch.bool),
        box=box,
        speech=speech,
        expression=expression,
        joints=joints,
        rotation=rotation,
        translation=translation,
        shape=shape,
        focal=torch.full((takes,), 300.0),
        centre=centre.expand(takes, 2),
        frame_rate=25.0,
        names=("one", "other"),
    )


def small_recipe(**changes):
    network = small_config(video=LandmarksConfig(points="contours", visibility=True, hidden=(24,)))
    values = {"steps": 6, "batch": 4, "warm_up": 2, "averaging": 0.5}
    sketching = recipes.Sketching(sketched=1.0, hours=0.002, stretch=3.6)
    return recipes.Recipe(
        "small", network, recipes.Supervision(), sketching=sketching, **{**values, **changes}
    )


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
    offset = points.rest[partner] * flip - points.rest  # the points don't lie quite evenly
    error = (face[0, partner] * flip - offset - image[0]).norm(dim=-1)
    assert float(error.mean()) < 0.5e-3 < float((face - image).norm(dim=-1).mean())


def test_unhidden_sketches_of_an_exact_tracker_are_the_truth(head, performances):
    recipe = replace(
        small_recipe(augmentation=UNCHANGED, hiding=NOTHING_HIDDEN),
        sketching=replace(EXACT, sketched=1.0),
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


def test_mirrored_and_turned_takes_still_show_what_the_truth_says(head):
    takes = tracked(head)
    turned = replace(UNCHANGED, mirror=0.5, roll=0.3, crop_shift=0.1, crop_scale=0.1)
    recipe = replace(
        small_recipe(augmentation=turned, hiding=NOTHING_HIDDEN, batch=16),
        sketching=recipes.Sketching(sketched=0.0),
    )

    batch = LandmarkBatches(recipe, head, takes, None, steps=1)[0]

    error = (batch.frames.landmarks - batch.points)[:, :, :468].norm(dim=-1)
    assert float(error.mean(-1).max()) < 0.02  # the points of both sides don't lie quite evenly
    units = batch.expression[..., head.expression_names.index("jawOpen")]
    heard = (batch.frames.speech[..., 8, 3] + 1) / 4
    torch.testing.assert_close(units, heard, atol=2e-3, rtol=0)


def test_batches_depend_on_seed_and_step_alone(head, performances):
    batches = LandmarkBatches(small_recipe(), head, None, performances, steps=9)
    again = LandmarkBatches(small_recipe(), head, None, performances, steps=9)

    later = batches[5]

    assert torch.equal(later.frames.landmarks, again[5].frames.landmarks)
    assert not torch.equal(later.frames.landmarks, batches[6].frames.landmarks)
    other = LandmarkBatches(small_recipe(seed=1), head, None, performances, steps=9)[5]
    assert not torch.equal(later.frames.landmarks, other.frames.landmarks)


def test_hiding_changes_the_points_it_covers_and_no_others(head, performances):
    random = torch.Generator().manual_seed(0)
    exact = torch.rand(6, 16, 478, 2, generator=random)
    covered = torch.zeros(6, 16, 478, dtype=torch.bool)
    covered[:, 4:9, 100:200] = True

    made_up = make_up(exact, exact, covered, random)

    changed = (made_up != exact).any(-1)
    assert torch.equal(changed, covered)
    recipe = small_recipe(hiding=recipes.Hiding(hidden=1.0, told=1.0, lower_face=1.0, lost=0), batch=16)
    frames = LandmarkBatches(recipe, head, None, performances, steps=1)[0].frames
    assert bool((frames.visibility.amin((1, 2)) < 0.5).all())


def test_training_learns_what_a_few_windows_show_and_the_mouth_from_sound_alone(head, performances):
    recipe = small_recipe(augmentation=UNCHANGED, hiding=NOTHING_HIDDEN, batch=8)
    torch.manual_seed(0)
    networks = CoarseNetworks(recipe.network)
    objective = SupervisedObjective(networks, head, recipe.losses)
    batches = [LandmarkBatches(recipe, head, None, performances, steps=2)[n] for n in range(2)]
    for branch in (networks.coarse, networks.expression):
        branch.video.standardise(batches[0].frames)
    optimiser = torch.optim.Adam(networks.parameters(), 3e-3)
    first = Total.of(objective(batches[0], 0))

    for step in range(120):
        optimiser.zero_grad()
        Total.of(objective(batches[step % 2], step)).loss.backward()
        torch.nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        optimiser.step()

    last = Total.of(objective(batches[0], 0))
    assert last.loss < 0.5 * first.loss
    frames = replace(batches[0].frames, seen=torch.zeros_like(batches[0].frames.seen))
    jaw = head.expression_names.index("jawOpen")
    said = networks.expression(frames).expression[..., jaw].detach().flatten()
    assert float(torch.corrcoef(torch.stack([said, batches[0].expression[..., jaw].flatten()]))[0, 1]) > 0.5


def test_networks_that_see_one_frame_at_a_time_can_be_trained(head, performances):
    recipe = small_recipe(batch=4)
    network = recipe.network
    coarse, expression = (
        replace(branch, temporal=replace(branch.temporal, window=1))
        for branch in (network.coarse, network.expression)
    )
    recipe = replace(recipe, network=replace(network, coarse=coarse, expression=expression))
    objective = SupervisedObjective(CoarseNetworks(recipe.network), head, recipe.losses)
    total = Total.of(objective(LandmarkBatches(recipe, head, None, performances, steps=1)[0], 0))
    assert bool(torch.isfinite(total.loss))


def test_validation_knows_a_perfect_face_and_a_still_one(head):
    takes = tracked(head)
    networks = CoarseNetworks(small_recipe().network)

    errors = validate(networks, head, takes)

    assert {"nme", "vertices", "lips", "shape", "opening/sound_only", "lips/hidden_quiet"} <= errors.keys()
    jaw = head.expression_basis[head.expression_names.index("jawOpen")]
    lips = torch.from_numpy(head.regions["lips"])
    still = 1000 * float(takes.expression.sum(1).mean() * jaw[lips].norm(dim=-1).mean())
    assert errors["lips"] == pytest.approx(still, rel=0.1)  # untrained networks say that the face is at rest


@pytest.fixture(scope="module")
def sketched(tmp_path_factory):
    """A run of six steps on sketches, never stopped."""
    folder = tmp_path_factory.mktemp("sketched")
    training = Training(folder / "none", small_recipe(), folder / "new" / "coarse.safetensors", session=QUIET)
    return training, train(training)


def test_a_run_that_was_stopped_goes_on_to_the_same_losses(sketched, tmp_path, monkeypatch):
    training, whole = sketched
    (tmp_path / "performances.safetensors").write_bytes(
        training.out.with_name("performances.safetensors").read_bytes()
    )
    stopped = replace(
        training, out=tmp_path / "coarse.safetensors", session=replace(QUIET, checkpoint_every=3)
    )
    from avface.training.coarse import train as coarse

    def interrupted(self, batch, share, step=coarse._Run._step):
        if self.progress.step == 3:
            raise KeyboardInterrupt
        return step(self, batch, share)

    with monkeypatch.context() as patched:
        patched.setattr(coarse._Run, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(stopped)

    resumed = train(stopped)

    assert len(resumed.progress.losses) == 6
    assert resumed.progress.losses == whole.progress.losses
    one, other = load_networks(training.out).state_dict(), load_networks(stopped.out).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_weights_know_their_recipe_and_occlusion_goes_on_from_them(sketched, tmp_path):
    training, _ = sketched

    assert recipe_of(training.out) == training.recipe
    more = OcclusionTraining(
        training.shards, training.out, tmp_path / "more.safetensors", steps=2, session=QUIET
    ).training()
    assert more.recipe.name == "small+occlusion"
    assert more.recipe.hiding.hidden > training.recipe.hiding.hidden
    train(more)
    assert recipe_of(more.out) == more.recipe
    moved = [
        (a - b).abs().max().item()
        for a, b in zip(
            load_networks(more.out).parameters(), load_networks(training.out).parameters(), strict=True
        )
    ]
    assert 0 < max(moved) < 0.1  # it began there


def test_a_checkpoint_of_another_recipe_or_a_damaged_one_is_refused(sketched, tmp_path):
    training, _ = sketched
    other = replace(training, recipe=replace(training.recipe, learning_rate=0.5))
    with pytest.raises(AvfaceError, match=r"another recipe.*learning_rate is 0\.001, not 0\.5"):
        train(other)
    whole = training.checkpoint.read_bytes()
    here = replace(training, out=tmp_path / "coarse.safetensors")
    for contents in (whole[:-100], b"\x00" * 200, training.out.read_bytes()):
        here.checkpoint.write_bytes(contents)
        with pytest.raises(AvfaceError, match=r"checkpoint"):
            train(here)
    assert here.checkpoint.read_bytes() == training.out.read_bytes()  # nothing was written over it


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


@pytest.mark.parametrize("make", [recipes.default, recipes.default_image, recipes.paper])
def test_each_recipe_is_a_command_whose_options_change_it(make, tmp_path):
    training = read_arguments([make().name, str(tmp_path), "--steps", "7", "--time-limit", "2"])

    assert training.recipe == replace(make(), steps=7)
    assert training.shards == tmp_path
    assert training.session.time_limit == 2


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(AvfaceError, match="steps=0"):
        small_recipe(steps=0)
    with pytest.raises(AvfaceError, match="averaging=1"):
        small_recipe(averaging=1)
    with pytest.raises(AvfaceError, match="time_limit"):
        Session(time_limit=0)
    with pytest.raises(AvfaceError, match="mirror=2"):
        small_recipe(augmentation=recipes.Augmentation(mirror=2))


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


def filmed(head, size=24):
    """A batch of two windows of a talking head, with pictures in which its skin is brighter than what is behind it."""
    takes = tracked(head, count=8)
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


def test_the_papers_losses_overfit_a_few_windows_without_any_truth(head):
    batch = filmed(head)
    flame = flame_shaped(head)
    torch.manual_seed(0)
    networks = CoarseNetworks(small_config(code=FLAME_SHAPED, head="flame-shaped"))
    weights = recipes.SelfSupervision(photometric=0.0)
    objective = SelfSupervisedObjective(networks, flame, weights)
    for branch in (networks.coarse, networks.expression):
        branch.video.standardise(batch.frames)
    optimiser = torch.optim.Adam(networks.parameters(), 3e-3)
    first = Total.of(objective(batch, 0)).loss.item()

    last = first
    for step in range(200):
        optimiser.zero_grad()
        total = Total.of(objective(batch, step))
        total.loss.backward()
        torch.nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        optimiser.step()
        last = total.loss.item()
        if last < 0.1 * first:
            break

    assert last < 0.1 * first


def test_the_photometric_loss_sees_pictures_and_moves_the_light(head):
    batch = filmed(head)
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


def test_batches_of_pictures_go_on_where_a_run_was_stopped(shards, head):
    recipe = replace(
        recipes.default_image(), network=small_config(), batch=2, augmentation=recipes.Augmentation()
    )
    batches = ImageBatches(recipe, head, shards, workers=0)

    first = [batch for batch, _ in zip(batches(0), range(4), strict=False)]
    later = next(batches(3))

    assert torch.equal(later.frames.images, first[3].frames.images)
    assert torch.equal(later.frames.landmarks, first[3].frames.landmarks)
    assert not torch.equal(first[0].frames.images, first[3].frames.images)


def test_moved_and_mirrored_pictures_fit_their_points(shards, head):
    changes = replace(UNCHANGED, mirror=0.5, crop_shift=0.15, crop_scale=0.15)
    recipe = replace(recipes.default_image(), network=small_config(), batch=6, augmentation=changes)

    batch = next(ImageBatches(recipe, head, shards, workers=0)(0))

    bright = (batch.frames.images[:, :, 1] > 150).float()
    place = (torch.arange(32) + 0.5) * (2 / 32) - 1
    total = bright.sum((2, 3))
    middle = torch.stack([(bright.sum(2) * place).sum(2) / total, (bright.sum(3) * place).sum(2) / total], -1)
    torch.testing.assert_close(batch.frames.landmarks.mean(2), middle, atol=0.06, rtol=0)
    assert batch.face.shape == (6, 16, 32, 32)
