"""The lips network: its architecture and gate, its file, equation 1, and that it learns to listen."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from avface.errors import AvfaceError
from avface.evaluation.studies.lips import NAMES, lip_figures
from avface.geometry.camera import Camera
from avface.head.lips import lip_region
from avface.head.model import load_head
from avface.networks.lips.network import (
    GATE_FADE,
    GATE_REACH,
    LipsConfig,
    LipsNetwork,
    check_lips,
    load_lips,
    predict_lips,
    pretrained_lips,
    save_lips,
    speech_gate,
)
from avface.networks.lips.normal_loss import laplacian, lip_normals_loss, render_normals
from avface.synthetic.performance.lip_shapes import LipHabit, LipShapes, habit_numbers
from avface.training.lips.performances import (
    LipPerformances,
    LipPerformancesConfig,
    held_out,
    prepare_lip_performances,
)
from avface.training.lips.train import LipsRecipe, LipsTraining, train

SMALL = LipsConfig(points=24, embedding=16, feature=8, hidden=16, layers=2, mapping=16)


@pytest.fixture(scope="module")
def head():
    return load_head()


@pytest.fixture
def small(head):
    """A small network whose answers aren't 0."""
    torch.manual_seed(0)
    network = LipsNetwork.of(head, SMALL)
    torch.nn.init.normal_(network.out.weight, std=0.3)
    return network.eval()


def test_first_weights_are_those_of_nha(head):
    torch.manual_seed(0)
    network = LipsNetwork.of(head)

    assert not network.out.weight.any() and not network.out.bias.any()
    first, *others = network.body
    assert 0.9 / 35 < first.linear.weight.abs().max() <= 1 / 35
    for layer in others:
        assert 0.99 < layer.linear.weight.abs().max() / ((6 / 128) ** 0.5 / 25) <= 1
    assert network.feature.std().item() == pytest.approx(0.02, rel=0.1)
    last = network.mapping[-1].weight
    assert last.shape == (2 * 6 * 128, 256)
    assert last.std().item() == pytest.approx(0.25 * (2 / (1.04 * 256)) ** 0.5, rel=0.05)
    assert network.place.abs().max() <= 1


def test_it_begins_as_no_change_and_fades_to_the_regions_edge(head, small):
    speech = torch.randn(3, 5, 16, 29)
    region = lip_region(head)

    assert not LipsNetwork.of(head, SMALL)(speech, torch.ones(3, 5)).offsets.any()
    motion = small(speech, torch.ones(3, 5))
    assert torch.equal(motion.effects, small.hear(speech, torch.ones(3, 5)))
    assert motion.offsets.shape == (3, 5, len(region), 3) and motion.effects.shape == (3, 5, 4)
    assert motion.closure.shape == (3, 5)
    assert motion.offsets[..., region.falloff < 0.05, :].abs().max() < 0.06 * small.config.scale
    assert 0 <= small.saturated(motion.offsets) < 1


def test_a_sine_layer_is_the_formula(small):
    layer = small.body[1]
    x, f, p = torch.randn(4, 7, 16), torch.randn(4, 16), torch.randn(4, 16)

    expected = torch.sin(f[:, None] * (x @ layer.linear.weight.T + layer.linear.bias) + p[:, None])

    torch.testing.assert_close(layer(x, f, p), expected)
    torch.testing.assert_close(layer(x[:1], f, p)[2], torch.sin(f[2] * layer.linear(x[0]) + p[2]))


def test_silence_and_missing_sound_move_nothing(small):
    times = np.arange(50) / 25
    speech = np.random.default_rng(0).normal(size=(50, 16, 29)).astype(np.float32)

    silent = predict_lips(small, speech, speech_gate(np.full(50, 0.05), times))
    missing = predict_lips(small, 0 * speech, speech_gate(np.zeros(50), times))
    loud = predict_lips(small, speech, speech_gate(np.ones(50), times))

    for motion in (silent, missing):
        assert not motion.offsets.any() and not motion.effects.any() and not motion.closure.any()
    assert loud.offsets.abs().amax((1, 2)).min() > 0
    torch.testing.assert_close(loud.offsets, small(torch.from_numpy(speech), torch.ones(50)).offsets)


def test_the_gate_is_open_in_and_around_speech_zero_elsewhere_and_smooth():
    for rate in (24.0, 25.0, 60.0):
        times = np.arange(0, 4, 1 / rate)
        gate = speech_gate(((times > 2) & (times < 2.4)).astype(float), times)

        near = np.maximum(2 - times, times - 2.4)
        assert (gate[near < GATE_REACH - 2 / rate] > 0.99).all()
        assert (gate[near > GATE_REACH + 2 * GATE_FADE + 2 / rate] == 0).all()
        assert np.abs(np.diff(gate)).max() < 20 / rate
    assert len(speech_gate(np.zeros(0), np.zeros(0))) == 0


def test_uneven_frame_times_give_the_same_gate():
    times = np.sort(np.random.default_rng(0).uniform(0, 4, 90))
    heard = np.clip(3 - np.abs(times - 2) * 4, 0, 1)
    even = np.arange(0, 4, 0.02)

    gate = speech_gate(heard, times)

    expected = np.interp(times, even, speech_gate(np.clip(3 - np.abs(even - 2) * 4, 0, 1), even))
    assert np.abs(gate - expected).max() < 0.12


def test_a_file_gives_the_same_network_back(tmp_path, head, small):
    save_lips(small, tmp_path / "lips.safetensors", {"note": "x"})

    read = load_lips(tmp_path / "lips.safetensors")

    speech = torch.randn(4, 16, 29)
    assert read.config == small.config
    assert torch.equal(read(speech, torch.ones(4)).offsets, small(speech, torch.ones(4)).offsets)
    check_lips(read, head)


def test_bad_files_are_refused_in_one_line(tmp_path, head, small):
    path = tmp_path / "lips.safetensors"
    with pytest.raises(AvfaceError, match="no such file"):
        load_lips(path)
    path.write_bytes(b"no weights")
    with pytest.raises(AvfaceError, match="not a readable weights file"):
        load_lips(path)
    from avface.files import write_tensors

    write_tensors(path, small.state_dict(), {"format": "other"})
    with pytest.raises(AvfaceError, match="not weights of this version"):
        load_lips(path)
    config = json.dumps({"head": "open"})
    write_tensors(path, small.state_dict(), {"format": "avface lips network 1", "config": config})
    with pytest.raises(AvfaceError, match="its config can't be read"):
        load_lips(path)
    with torch.no_grad():
        small.out.bias[0] = torch.nan
    save_lips(small, path)
    with pytest.raises(AvfaceError, match="aren't finite"):
        load_lips(path)
    small.numbers += 1
    with pytest.raises(AvfaceError, match="not of open"):
        check_lips(small, head)


def test_the_laplacian_ignores_constants_and_sees_edges():
    flat = torch.full((1, 3, 8, 8), 0.7)
    dot = torch.zeros(1, 1, 5, 5)
    dot[0, 0, 2, 2] = 1

    assert laplacian(flat).abs().max() < 1e-6
    torch.testing.assert_close(laplacian(dot)[0, 0], torch.tensor([[1.0, 1, 1], [1, -8, 1], [1, 1, 1]]) / 8)


def closeup(head, vertices):
    """Normals (1, 3, 64, 64) of lips (1, N, 3) before the mouth, and their mask."""
    region = lip_region(head)
    camera = Camera.centred(400.0, 64, 64)
    centre = head.template[region.vertices].mean(0)
    points = (vertices - centre) * torch.tensor([1.0, -1.0, -1.0]) + torch.tensor([0, 0, 0.5])
    return render_normals(points, camera.project(points), torch.from_numpy(region.faces), 64, 64)


def test_rendered_normals_look_at_the_camera(head):
    normals, mask = closeup(head, head.template[lip_region(head).vertices][None])

    assert 0.2 < mask.float().mean() < 0.9
    torch.testing.assert_close(normals.norm(dim=1)[mask], torch.ones(int(mask.sum())))
    assert (normals[:, 2][mask] > 0).all() and not normals.movedim(1, -1)[~mask].any()
    rows = torch.arange(64).view(1, 64, 1).expand_as(mask)
    upper = (normals[:, 1] * mask)[rows < 16].sum()
    assert torch.isfinite(upper)


def test_equation_one_is_zero_at_the_truth_and_leads_to_it(head):
    shapes = LipShapes.of(head)
    base = head.template[shapes.region.vertices][None]
    wanted = shapes.effects(torch.tensor([[0.0, 0, 1, 0]]), habit_numbers(LipHabit())[None])
    reference, there = closeup(head, base + wanted)
    amount = torch.tensor(0.6, requires_grad=True)

    def loss(share):
        predicted, seen = closeup(head, base + share * wanted)
        return lip_normals_loss(predicted, reference, seen & there)

    at_begin = loss(amount)
    at_begin.backward()
    assert loss(torch.tensor(1.0)) < 1e-7 < at_begin
    assert amount.grad < 0  # more of the true offset is better
    assert loss(torch.tensor(0.8)) < at_begin < loss(torch.tensor(0.2))


def test_pixels_at_the_masks_edge_and_outside_dont_count():
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(1, 3, 12, 12, generator=generator, requires_grad=True)
    other = torch.randn(1, 3, 12, 12, generator=generator)
    mask = torch.zeros(1, 12, 12, dtype=torch.bool)
    mask[:, 4:7, 4:7] = True  # erosion leaves its middle

    lip_normals_loss(one, other, mask).backward()

    assert one.grad[..., 4:7, 4:7].all()
    one.grad[..., 4:7, 4:7] = 0
    assert not one.grad.any()
    assert lip_normals_loss(one, other, torch.zeros(1, 12, 12, dtype=torch.bool)) == 0


def spoken(head, clips=6, frames=30):
    """Talks in which the sound says plainly whether lips are rounded (u) or pressed (p)."""
    rng = np.random.default_rng(0)
    vocabulary = ("", "p", "u")
    symbol, start, speech = [], [], np.zeros((clips, frames, 16, 29), np.float16)
    times = np.arange(frames)[:, None] / 25 + 0.02 * (np.arange(16) - 8)
    for clip in range(clips):
        order = rng.permutation([1, 2, 1, 2])
        begins = np.array([0.1, 0.4, 0.7, 1.0])
        symbol += [0, *order]
        start += [0.0, *begins]
        said = np.array([0, *order])[np.searchsorted(begins, times, side="right")]
        speech[clip] = np.eye(29)[said] * 3
    return LipPerformances(
        first=torch.arange(clips) * frames,
        count=torch.full((clips,), frames),
        expression=torch.zeros(clips * frames, head.num_expression, dtype=torch.float16),
        speech=torch.from_numpy(speech).flatten(0, 1),
        activity=torch.ones(clips * frames),
        phoneme_first=torch.arange(clips) * 5,
        phoneme_count=torch.full((clips,), 5),
        symbol=torch.tensor(symbol),
        start=torch.tensor(start),
        kind=torch.zeros(clips, dtype=torch.int64),
        vocabulary=vocabulary,
        frame_rate=25.0,
    )


def small_recipe(**changes):
    values = {
        "steps": 60,
        "batch": 6,
        "learning_rate": 2e-3,
        "warm_up": 5,
        "averaging": 0.8,
        "rendered": 1,
        "listening": 4,
        "heard": 16,
    }
    return LipsRecipe(
        network=SMALL, performances=LipPerformancesConfig(hours=0.001), picture=32, **{**values, **changes}
    )


@pytest.fixture
def talks(head, monkeypatch):
    made = spoken(head)
    monkeypatch.setattr("avface.training.lips.train.prepare_lip_performances", lambda *_, **__: made)
    return made


def test_it_learns_to_listen(tmp_path, head, talks):
    recipe = small_recipe(steps=60, listening=40, heard=64)
    network = train(LipsTraining(tmp_path / "lips.safetensors", recipe, report_every=50))

    figures = lip_figures(network, head, talks)

    errors = {name: float(part.mean.mean()) for name, part in figures.errors.items()}
    assert errors["after"] < 0.85 * errors["before"]
    assert errors["other sound"] > 1.1 * errors["after"]
    assert errors["truth"] == 0 and set(figures.classes) <= set(range(len(NAMES)))
    assert float(figures.errors["after"].penetration.max()) <= 0.05
    assert "bilabial" in figures.table() and "saturated" in figures.table()
    assert torch.equal(load_lips(tmp_path / "lips.safetensors").out.weight, network.out.weight)


def test_a_stopped_run_goes_on_as_if_it_had_not(tmp_path, talks):
    whole = train(LipsTraining(tmp_path / "a.safetensors", small_recipe(steps=8)))
    training = LipsTraining(tmp_path / "b.safetensors", small_recipe(steps=8), checkpoint_every=6)

    class Stop(Exception):
        pass

    from avface.training.lips import train as lips

    keep = lips._keep

    def kept_once(*arguments):
        keep(*arguments)
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lips, "_keep", kept_once)
        with pytest.raises(Stop):
            train(training)
    resumed = train(training)

    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other)
    with pytest.raises(AvfaceError, match="another recipe"):
        train(replace(training, recipe=small_recipe(steps=9)))
    training.checkpoint.write_bytes(b"x")
    with pytest.raises(AvfaceError, match="damaged checkpoint"):
        train(training)


def test_performances_are_made_once_and_kept(tmp_path):
    config = LipPerformancesConfig(hours=2 * 1.2 / 3600, stretch=1.2, seed=3, split="test")
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


def test_impossible_settings_are_refused():
    with pytest.raises(AvfaceError, match="window=1"):
        LipsRecipe(window=1)
    with pytest.raises(AvfaceError, match="hours=0"):
        LipPerformancesConfig(hours=0)
    with pytest.raises(AvfaceError, match="scale=0"):
        LipsConfig(scale=0)


def test_shipped_weights_are_of_the_open_head_and_small(head):
    network = pretrained_lips("cpu")

    check_lips(network, head)
    assert pretrained_lips.path.stat().st_size < 3_000_000
    speech = torch.zeros(2, 16, 29)
    assert not network(speech, torch.zeros(2)).offsets.any()
