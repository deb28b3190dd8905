"""The lips network: its architecture and gate, its file, equation 1, and its training."""

import json

import numpy as np
import pytest
import torch

from avface.errors import AvfaceError
from avface.geometry.camera import Camera
from avface.head.asset import load_head
from avface.head.lips import lip_region
from avface.networks.lips.network import (
    GATE_FADE,
    GATE_HOLD,
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
from avface.synthetic.performance.lip_effects import LipEffects, LipStyle, lip_style_vector

SMALL = LipsConfig(points=24, embedding=16, feature=8, hidden=16, layers=2, mapping=16)


@pytest.fixture(autouse=True)
def seeded():
    """Makes draws of torch reproducible."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def head():
    return load_head()


@pytest.fixture
def small(head):
    """A small network with offsets other than 0."""
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


def test_initial_offsets_are_zero_and_offsets_fade_to_the_regions_edge(head, small):
    speech = torch.randn(3, 5, 16, 29)
    region = lip_region(head)

    assert not LipsNetwork.of(head, SMALL)(speech, torch.ones(3, 5)).offsets.any()
    motion = small(speech, torch.ones(3, 5))
    assert torch.equal(motion.effects, small.predict_effects(speech, torch.ones(3, 5)))
    assert motion.offsets.shape == (3, 5, len(region), 3) and motion.effects.shape == (3, 5, 4)
    assert motion.closure.shape == (3, 5)
    assert motion.offsets[..., region.falloff < 0.05, :].abs().max() < 0.06 * small.config.scale
    assert 0 <= small.saturated(motion.offsets) < 1


def test_a_sine_layer_is_a_modulated_siren_layer(small):
    layer = small.body[1]
    x, f, p = torch.randn(4, 7, 16), torch.randn(4, 16), torch.randn(4, 16)

    expected = torch.sin(f[:, None] * (x @ layer.linear.weight.T + layer.linear.bias) + p[:, None])

    torch.testing.assert_close(layer(x, f, p), expected)
    torch.testing.assert_close(layer(x[:1], f, p)[2], torch.sin(f[2] * layer.linear(x[0]) + p[2]))


def test_silence_and_missing_sound_give_no_offsets(small):
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
        assert (gate[near < GATE_HOLD - 2 / rate] > 0.99).all()
        assert (gate[near > GATE_HOLD + 2 * GATE_FADE + 2 / rate] == 0).all()
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


def test_the_laplacian_ignores_constants_and_responds_to_edges():
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


def test_rendered_normals_face_the_camera(head):
    normals, mask = closeup(head, head.template[lip_region(head).vertices][None])

    assert 0.2 < mask.float().mean() < 0.9
    torch.testing.assert_close(normals.norm(dim=1)[mask], torch.ones(int(mask.sum())))
    assert (normals[:, 2][mask] > 0).all() and not normals.movedim(1, -1)[~mask].any()
    rows = torch.arange(64).view(1, 64, 1).expand_as(mask)
    upper = (normals[:, 1] * mask)[rows < 16].sum()
    assert torch.isfinite(upper)


def test_equation_one_is_zero_at_the_truth_and_its_gradient_leads_to_it(head):
    shapes = LipEffects.of(head)
    base = head.template[shapes.region.vertices][None]
    wanted = shapes.effects(torch.tensor([[0.0, 0, 1, 0]]), lip_style_vector(LipStyle())[None])
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


def test_pretrained_weights_are_of_the_open_head_and_small(head):
    network = pretrained_lips("cpu")

    check_lips(network, head)
    assert pretrained_lips.path.stat().st_size < 3_000_000
    speech = torch.zeros(2, 16, 29)
    assert not network(speech, torch.zeros(2)).offsets.any()
