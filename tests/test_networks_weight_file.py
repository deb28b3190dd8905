"""Weights in files: our own, ImageNet's and DECA's."""

import json
import os
from dataclasses import asdict, replace

import pytest
import torch
from networks_frames import small_config, small_networks, some_frames
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from avface.errors import AvfaceError
from avface.files.weight_file import config_from_plain
from avface.networks.coarse.codes import FLAME_CODE
from avface.networks.coarse.deca import COARSE_ROWS, EXPRESSION_ROWS, load_deca
from avface.networks.coarse.model import (
    CoarseNetworks,
    NetworkConfig,
    landmark_networks,
    load_networks,
    save_networks,
)
from avface.networks.coarse.video import LandmarksConfig, ResNetConfig
from avface.networks.resnet import ResNet50, load_imagenet


@pytest.fixture
def saved(tmp_path):
    networks = small_networks()
    path = tmp_path / "weights.safetensors"
    save_networks(networks, path, {"steps": "7"})
    return networks, path


def refused(path, expected=None):
    with pytest.raises(AvfaceError) as caught:
        load_networks(path, expected)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_saved_networks_come_back_the_same(saved):
    networks, path = saved
    loaded = load_networks(path, networks.config)
    assert loaded.config == networks.config
    assert not loaded.training
    for one, other in zip(networks(some_frames()), loaded(some_frames()), strict=True):
        assert_close(one.vector(), other.vector(), rtol=0, atol=0)
    with safe_open(path, "pt") as file:
        assert file.metadata()["steps"] == "7"
    assert [entry.name for entry in path.parent.iterdir()] == ["weights.safetensors"]


def test_every_config_survives_its_file(tmp_path):
    for config in (NetworkConfig(), landmark_networks(), small_config(FLAME_CODE, head="flame2020")):
        assert config_from_plain(NetworkConfig, json.loads(json.dumps(asdict(config)))) == config


def test_what_standardises_the_landmarks_is_saved(tmp_path):
    networks = small_networks()
    networks.coarse.video.standardise(some_frames())
    save_networks(networks, tmp_path / "w.safetensors")
    assert_close(load_networks(tmp_path / "w.safetensors").coarse.video.mean, networks.coarse.video.mean)


def test_weights_of_another_recipe_are_refused_with_what_differs(saved):
    networks, path = saved
    config = networks.config
    other = replace(
        config, expression=replace(config.expression, audio=replace(config.expression.audio, speech="mel"))
    )
    assert "expression.audio.speech is deepspeech, not mel" in refused(path, other)
    image = replace(config, coarse=replace(config.coarse, video=ResNetConfig()))
    assert "coarse.video.kind is landmarks, not resnet50" in refused(path, image)
    assert "head is open, not flame2020" in refused(path, replace(config, head="flame2020"))


def test_a_missing_file_is_named(tmp_path):
    assert "no such file" in refused(tmp_path / "none.safetensors")


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "flipped header"])
def test_damaged_files_are_refused(saved, damage):
    _, path = saved
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut": content[: len(content) // 2],
            "empty": b"",
            "text": b"not weights at all",
            "flipped header": content[:8] + b"#" + content[9:],
        }[damage]
    )
    assert "not a readable weights file" in refused(path)


def rewrite(path, change=lambda weights, metadata: None):
    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
    weights = load_file(path)
    change(weights, metadata)
    save_file(weights, path, metadata)


def test_files_of_something_else_are_refused(saved):
    rewrite(saved[1], lambda weights, metadata: metadata.pop("format"))
    assert "not weights of this version's coarse networks" in refused(saved[1])


def broken(metadata, change):
    config = json.loads(metadata["config"])
    change(config)
    metadata["config"] = json.dumps(config)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.pop("code"),
        lambda config: config.update(extra=1),
        lambda config: config["coarse"]["video"].update(kind="transformer"),
        lambda config: config["coarse"]["temporal"].update(heads=5),
    ],
)
def test_configs_that_cannot_be_are_refused(saved, change):
    rewrite(saved[1], lambda weights, metadata: broken(metadata, change))
    assert "its config can't be read" in refused(saved[1])


def test_weights_that_do_not_fit_their_config_are_refused(saved):
    rewrite(saved[1], lambda weights, metadata: weights.pop("coarse.unseen"))
    assert "coarse.unseen" in refused(saved[1])


def test_weights_of_another_size_are_refused(saved):
    rewrite(saved[1], lambda weights, metadata: weights.update({"coarse.unseen": torch.zeros(3)}))
    assert "coarse.unseen" in refused(saved[1])


def test_weights_that_are_not_numbers_are_refused(saved):
    rewrite(saved[1], lambda weights, metadata: weights["coarse.unseen"].fill_(torch.nan))
    assert "finite" in refused(saved[1])


def test_an_unwritable_place_is_named(tmp_path):
    with pytest.raises(AvfaceError, match="missing"):
        save_networks(small_networks(), tmp_path / "missing" / "weights.safetensors")


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    state = ResNet50().state_dict()
    return {
        name: torch.randn_like(value) if value.is_floating_point() else value for name, value in state.items()
    }


def test_imagenets_weights_load_without_their_classifier(tmp_path, backbone):
    weights = {**backbone, "fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    torch.save(weights, tmp_path / "resnet50.pth")
    save_file(weights, tmp_path / "resnet50.safetensors")
    for name in ("resnet50.pth", "resnet50.safetensors"):
        network = ResNet50()
        load_imagenet(tmp_path / name, network)
        assert_close(network.state_dict(), backbone)


def test_weights_of_another_network_are_refused(tmp_path, backbone):
    torch.save({n: v for n, v in backbone.items() if not n.startswith("layer3.5")}, tmp_path / "other.pth")
    with pytest.raises(
        AvfaceError, match=r"other.pth: not the weights of a ResNet-50 .*layer3.5.conv1.weight"
    ):
        load_imagenet(tmp_path / "other.pth", ResNet50())


def deca_content(backbone):
    """What deca_model.tar holds, with random numbers; the counters of batches are missing, as in older files."""
    generator = torch.Generator().manual_seed(1)

    def encoder(code):
        kept = {f"encoder.{n}": v for n, v in backbone.items() if not n.endswith("num_batches_tracked")}
        layers = {
            "layers.0.weight": torch.randn(1024, 2048, generator=generator),
            "layers.0.bias": torch.randn(1024, generator=generator),
            "layers.2.weight": torch.randn(code, 1024, generator=generator),
            "layers.2.bias": torch.randn(code, generator=generator),
        }
        return {**kept, **layers}

    return {
        "E_flame": encoder(236),
        "E_detail": {"layers.2.bias": torch.zeros(128)},
        "D_detail": {"l1.0.weight": torch.zeros(4, 4)},
        "opt": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 1e-4}]},
        "global_step": 1000,
        "batch_size": 8,
    }


@pytest.fixture(scope="module")
def deca_file(tmp_path_factory, backbone):
    path = tmp_path_factory.mktemp("deca") / "deca_model.tar"
    torch.save(deca_content(backbone), path)
    return path


def test_decas_weights_go_where_they_belong(deca_file, backbone):
    networks = CoarseNetworks(NetworkConfig())
    fresh = networks.expression.video.head[0].weight.detach().clone()
    report = load_deca(deca_file, networks)
    content = deca_content(backbone)["E_flame"]
    for branch in (networks.coarse, networks.expression):
        assert_close(branch.video.backbone.state_dict(), backbone)
    head = networks.coarse.video.head
    assert_close(head[0].weight, content["layers.0.weight"])
    for ours, deca in ((0, 0), (149, 149), (150, 200), (152, 202), (153, 206), (182, 235)):
        assert_close(head[2].weight[ours], content["layers.2.weight"][deca])
        assert_close(head[2].bias[ours], content["layers.2.bias"][deca])
    assert_close(networks.expression.video.head[0].weight, fresh)

    assert report.used["E_flame.encoder.conv1.weight"] == (
        "coarse.video.backbone.conv1.weight",
        "expression.video.backbone.conv1.weight",
    )
    assert "183 of 236" in report.used["E_flame.layers.2.weight"][0]
    assert set(report.unused) == {
        *("E_detail.layers.2.bias", "D_detail.l1.0.weight", "opt", "global_step", "batch_size"),
    }
    assert "expression.video.head.0.weight" in report.untouched
    assert "coarse.temporal.positions" in report.untouched
    assert "coarse.video.head.2.weight" not in report.untouched
    assert not any("backbone" in name and "num_batches" not in name for name in report.untouched)
    assert f"{len(report.used)} of DECA's entries used" in str(report)


def test_decas_code_is_split_without_loss():
    assert len(COARSE_ROWS) == 183
    assert len(EXPRESSION_ROWS) == 53
    assert sorted(COARSE_ROWS + EXPRESSION_ROWS) == list(range(236))


def test_decas_layers_are_left_out_where_sizes_differ(deca_file):
    config = replace(NetworkConfig(), coarse=replace(NetworkConfig().coarse, embedding=64))
    networks = CoarseNetworks(config)
    report = load_deca(deca_file, networks)
    assert "E_flame.layers.0.weight" in report.unused
    assert "coarse.video.head.0.weight" in report.untouched


def test_decas_weights_need_a_resnet(deca_file):
    config = small_config(video=LandmarksConfig())
    with pytest.raises(AvfaceError, match="resnet50"):
        load_deca(deca_file, CoarseNetworks(config))


class Hostile:
    """Runs a command when unpickled."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return os.system, (f"touch {self.witness}",)


@pytest.fixture(scope="module")
def networks():
    return CoarseNetworks(NetworkConfig())


@pytest.mark.parametrize("legacy", [False, True])
def test_a_hostile_deca_file_is_refused_and_nothing_runs(tmp_path, networks, legacy):
    witness = tmp_path / "ran"
    path = tmp_path / "deca_model.tar"
    content = {"E_flame": {}, "opt": Hostile(witness)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(AvfaceError, match="could run foreign code") as caught:
        load_deca(path, networks)
    assert "\n" not in str(caught.value)
    assert not witness.exists()


def test_files_that_are_not_decas_are_refused(tmp_path, networks, backbone):
    path = tmp_path / "deca_model.tar"
    with pytest.raises(AvfaceError, match="no such file"):
        load_deca(path, networks)
    for content, problem in (
        ({"generator": {}}, "no network E_flame"),
        ({"E_flame": 3}, "no network E_flame"),
        ([1, 2], "holds a list"),
        ({"E_flame": {"layers.0.weight": torch.zeros(2, 2)}}, r"layers.0.weight is of shape \(2, 2\)"),
        ({"E_flame": {}}, "layers.0.weight is missing"),
    ):
        torch.save(content, path)
        with pytest.raises(AvfaceError, match=problem):
            load_deca(path, networks)
    for damage in (b"", b"\x80\x02junk", b"PK\x03\x04 not a zip"):
        path.write_bytes(damage)
        with pytest.raises(AvfaceError, match=r"deca_model.tar: "):
            load_deca(path, networks)


def test_a_cut_off_deca_file_is_refused(tmp_path, networks, deca_file):
    path = tmp_path / "deca_model.tar"
    content = deca_file.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(AvfaceError, match="fetch"):
        load_deca(path, networks)
