"""Weight files: avface's own formats, ImageNet's and DECA's."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
import torch
from detail_captures import small_detail
from lip_captures import small_lips
from networks_frames import (
    landmark_networks,
    small_acoustic_model,
    small_config,
    small_landmark_network,
    small_networks,
    small_readout,
    some_frames,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from avface.errors import AvfaceError
from avface.files.weight_file import config_from_plain
from avface.networks.coarse.codes import FLAME_CODE
from avface.networks.coarse.deca import COARSE_ROWS, EXPRESSION_ROWS, load_deca
from avface.networks.coarse.model import (
    FORMAT,
    CoarseNetworks,
    NetworkConfig,
    load_networks,
    pretrained_coarse_networks,
    save_networks,
)
from avface.networks.coarse.video import LandmarksConfig, ResNetConfig
from avface.networks.detail.network import load_detail, pretrained_detail, save_detail
from avface.networks.landmark_correction import (
    load_landmark_network,
    pretrained_landmark_network,
    save_landmark_network,
)
from avface.networks.lips.network import load_lips, pretrained_lips, save_lips
from avface.networks.resnet import ResNet50, load_imagenet
from avface.speech.acoustic import load_acoustic_model, pretrained_acoustic_model, save_acoustic_model
from avface.speech.readout import load_readout, pretrained_readout, save_readout

KINDS = {
    "coarse": (small_networks, save_networks, load_networks),
    "lips": (small_lips, save_lips, load_lips),
    "detail": (small_detail, save_detail, load_detail),
    "landmarks": (small_landmark_network, save_landmark_network, load_landmark_network),
    "acoustic": (small_acoustic_model, save_acoustic_model, load_acoustic_model),
    "readout": (small_readout, save_readout, load_readout),
}
"""Every network with a weight file: what makes a small one, writes and reads it."""


@pytest.fixture(autouse=True)
def seeded():
    """Makes draws of torch reproducible."""
    torch.manual_seed(0)


@dataclass
class Saved:
    """A small network and its file."""

    network: torch.nn.Module
    path: Path
    save: Callable
    load: Callable

    def refused(self):
        """The message with which the file is refused."""
        with pytest.raises(AvfaceError) as caught:
            self.load(self.path)
        message = str(caught.value)
        assert str(self.path) in message and "\n" not in message
        return message

    def rewrite(self, change):
        """Write the file again with other tensors or metadata."""
        with safe_open(self.path, "pt") as file:
            metadata = dict(file.metadata())
        tensors = load_file(self.path)
        change(tensors, metadata)
        save_file(tensors, self.path, metadata)

    def change_config(self, change):
        """Write the file again with another config."""

        def changed(tensors, metadata):
            config = json.loads(metadata["config"])
            change(config)
            metadata["config"] = json.dumps(config)

        self.rewrite(changed)


@pytest.fixture(params=KINDS)
def saved(request, tmp_path):
    make, save, load = KINDS[request.param]
    network, path = make(), tmp_path / "weights.safetensors"
    save(network, path, {"steps": "7"})
    return Saved(network, path, save, load)


@pytest.fixture
def saved_coarse(tmp_path):
    network, path = small_networks(), tmp_path / "weights.safetensors"
    save_networks(network, path)
    return Saved(network, path, save_networks, load_networks)


def first_float(tensors):
    return next(name for name in sorted(tensors) if tensors[name].is_floating_point())


def test_saved_networks_come_back_the_same(saved):
    loaded = saved.load(saved.path)
    assert loaded.config == saved.network.config
    assert not any(module.training for module in loaded.modules())
    stored = load_file(saved.path)
    for name, value in saved.network.state_dict().items():
        read = loaded.state_dict()[name]
        assert read.dtype == value.dtype
        assert torch.equal(read, value.to(stored[name].dtype).to(value.dtype)), name
    assert [entry.name for entry in saved.path.parent.iterdir()] == ["weights.safetensors"]


def test_further_metadata_are_kept_and_cannot_replace_the_own(saved):
    saved.save(saved.network, saved.path, {"steps": "8", "config": "{}"})
    assert saved.load(saved.path).config == saved.network.config
    with safe_open(saved.path, "pt") as file:
        assert file.metadata()["steps"] == "8"


def test_only_some_formats_store_half_precision(tmp_path):
    stored = {}
    for name, (make, save, _) in KINDS.items():
        save(make(), tmp_path / name)
        stored[name] = {
            value.dtype for value in load_file(tmp_path / name).values() if value.is_floating_point()
        }
    half, single = {torch.float16}, {torch.float32}
    assert stored == {
        "coarse": single,
        "lips": single,
        "detail": half,
        "landmarks": half,
        "acoustic": half,
        "readout": half,
    }


def test_metadata_are_read_without_tensors(saved_coarse):
    assert json.loads(FORMAT.metadata(saved_coarse.path)["config"])["head"] == "open"


def test_missing_files_are_named(saved):
    saved.path.unlink()
    assert "no such file" in saved.refused()


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "flipped header", "folder"])
def test_damaged_files_are_refused(saved, damage):
    content = saved.path.read_bytes()
    if damage == "folder":
        saved.path.unlink()
        saved.path.mkdir()
    else:
        saved.path.write_bytes(
            {
                "cut": content[: len(content) // 2],
                "empty": b"",
                "text": b"not weights at all",
                "flipped header": content[:8] + b"#" + content[9:],
            }[damage]
        )
    assert "not a readable weights file" in saved.refused()


@pytest.mark.parametrize("other", KINDS)
def test_files_of_another_network_are_refused(saved, other):
    make, save, load = KINDS[other]
    if load is saved.load:
        saved.rewrite(lambda tensors, metadata: [metadata.pop(key, None) for key in ("format", "symbols")])
    else:
        save(make(), saved.path)
    assert "not weights of this version's" in saved.refused()


def test_configs_are_needed(saved):
    saved.rewrite(lambda tensors, metadata: metadata.pop("config"))
    assert "has no 'config'" in saved.refused()


def test_configs_with_a_setting_too_many_or_too_few_are_refused(saved):
    saved.change_config(lambda config: config.update(extra=1))
    assert "its config can't be read (unknown extra)" in saved.refused()
    saved.change_config(lambda config: config.pop("extra"))
    saved.load(saved.path)
    name = next(iter(asdict(saved.network.config)))
    saved.change_config(lambda config: config.pop(name))
    assert f"its config can't be read (no {name})" in saved.refused()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3"])
def test_configs_that_are_no_settings_are_refused(saved, text):
    saved.rewrite(lambda tensors, metadata: metadata.update(config=text))
    assert "its config can't be read" in saved.refused()


def test_settings_of_another_type_are_refused(saved):
    for value in ("4", None, [], {}, True):
        saved.change_config(lambda config, value=value: config.update(dict.fromkeys(config, value)))
        assert "its config can't be read" in saved.refused()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda config: config["coarse"]["video"].update(kind="transformer"),
            "coarse.video: unknown kind 'transformer'",
        ),
        (
            lambda config: config["coarse"]["temporal"].update(heads=5),
            "width=24 must be a multiple of heads=5",
        ),
        (lambda config: config["coarse"]["temporal"].update(width="24"), "coarse.temporal.width is '24'"),
        (lambda config: config["coarse"]["temporal"].update(width=24.0), "coarse.temporal.width is 24.0"),
        (lambda config: config["coarse"]["temporal"].update(width=True), "coarse.temporal.width is True"),
        (lambda config: config["code"].update(bounded=1), "code.bounded is 1"),
        (lambda config: config["code"].update(camera="fisheye"), "code.camera is 'fisheye'"),
        (lambda config: config["coarse"]["video"].update(hidden=[8, "9"]), "coarse.video.hidden is '9'"),
        (lambda config: config["coarse"]["video"].update(hidden=24), "coarse.video.hidden is 24"),
    ],
)
def test_settings_within_settings_are_named(saved_coarse, change, message):
    saved_coarse.change_config(change)
    assert f"its config can't be read ({message}" in saved_coarse.refused()


def test_tuples_of_another_length_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_detail(small_detail(), path)
    saved = Saved(None, path, save_detail, load_detail)
    saved.change_config(lambda config: config.update(encoder=[8, 8, 8]))
    assert "encoder has 3 values, not 5" in saved.refused()


def test_weights_that_do_not_fit_their_config_are_refused(saved):
    tensors = load_file(saved.path)
    name = next(n for n in saved.network.state_dict() if n.endswith("weight"))

    def changed(change):
        def rewritten(found, metadata):
            found.clear()
            found.update(tensors)
            change(found)

        saved.rewrite(rewritten)
        return saved.refused()

    whole = torch.zeros(tensors[name].shape, dtype=torch.int32)
    for change in (
        lambda found: found.pop(name),
        lambda found: found.update({name: tensors[name][:-1].clone()}),
        lambda found: found.update({name: whole}),
    ):
        assert f"its weights don't fit its config (1 of them, the first is {name})" in changed(change)
    assert "the first is another" in changed(lambda found: found.update(another=torch.zeros(2)))


def test_weights_that_are_not_finite_are_refused(saved):
    for value in (torch.nan, torch.inf):
        saved.rewrite(lambda tensors, metadata, value=value: tensors[first_float(tensors)].fill_(value))
        assert "finite" in saved.refused()


def test_unwritable_places_are_named(saved, tmp_path):
    with pytest.raises(AvfaceError, match="missing"):
        saved.save(saved.network, tmp_path / "missing" / "weights.safetensors")


def test_every_config_survives_its_file():
    for config in (NetworkConfig(), landmark_networks(), small_config(FLAME_CODE, head="flame2020")):
        assert config_from_plain(NetworkConfig, json.loads(json.dumps(asdict(config)))) == config


def test_what_standardises_the_landmarks_is_saved(tmp_path):
    networks = small_networks()
    networks.coarse.video.standardise(some_frames())
    save_networks(networks, tmp_path / "w.safetensors")
    assert_close(load_networks(tmp_path / "w.safetensors").coarse.video.mean, networks.coarse.video.mean)


def test_weights_of_another_recipe_are_refused_with_what_differs(saved_coarse):
    config = saved_coarse.network.config

    def refused(expected):
        with pytest.raises(AvfaceError, match="weights of another network") as caught:
            load_networks(saved_coarse.path, expected)
        return str(caught.value)

    other = replace(
        config, expression=replace(config.expression, audio=replace(config.expression.audio, speech="mel"))
    )
    assert "expression.audio.speech is moonshine, not mel" in refused(other)
    image = replace(config, coarse=replace(config.coarse, video=ResNetConfig()))
    assert "coarse.video.kind is landmarks, not resnet50" in refused(image)
    assert "head is open, not flame2020" in refused(replace(config, head="flame2020"))
    assert load_networks(saved_coarse.path, config).config == config


@pytest.mark.parametrize(
    "pretrained",
    [
        pretrained_coarse_networks,
        pretrained_lips,
        pretrained_detail,
        pretrained_landmark_network,
        pretrained_acoustic_model,
        pretrained_readout,
    ],
    ids=KINDS,
)
def test_pretrained_weights_are_loaded_once(pretrained):
    network = pretrained("cpu")
    assert pretrained() is network
    assert not network.training and not any(value.requires_grad for value in network.parameters())


def test_pretrained_weights_are_read_from_their_path(monkeypatch, tmp_path):
    shipped = pretrained_lips("cpu")
    monkeypatch.setattr(pretrained_lips, "path", tmp_path / "lips.safetensors")
    with pytest.raises(AvfaceError, match="no such file"):
        pretrained_lips("cpu")
    save_lips(small_lips(), pretrained_lips.path)
    assert pretrained_lips("cpu").config != shipped.config


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
    """The content of deca_model.tar with random numbers; batch counters are missing, as in older files."""
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


def test_decas_weights_are_copied_to_their_counterparts(deca_file, backbone):
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
