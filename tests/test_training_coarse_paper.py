"""The recipe `paper` on clips that a FLAME-shaped head drew: losses at the truth, and a run that learns them."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from corpora import loudness
from flame_clips import Performance, flame_shaped_head, performance, write_albedo_space, write_clips
from torch import nn
from torch.utils.data import DataLoader

from avface.cli import _parse
from avface.data import PrepareConfig, Windows, prepare
from avface.errors import AvfaceError
from avface.head.asset import save_head_asset
from avface.head.model import HeadModel
from avface.networks.coarse.model import CoarseNetworks
from avface.training.coarse import recipes
from avface.training.coarse.image_batches import window_batch
from avface.training.coarse.self_supervised import AlbedoSpace, SelfSupervisedObjective
from avface.training.coarse.train import train

SIZE = 24
"""Pixels of the crops, and of the pictures that the loss renders."""


@dataclass(frozen=True, eq=False)
class Corpus:
    """Three prepared clips of a window each, and what is true of them."""

    folder: Path
    head: HeadModel
    albedo: AlbedoSpace
    performances: tuple[Performance, ...]

    @property
    def shards(self) -> Path:
        return self.folder / "shards"

    @property
    def albedo_file(self) -> Path:
        return self.folder / "albedo.npz"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper")
    head = flame_shaped_head(folder)
    (folder / "heads").mkdir()
    save_head_asset(head, folder / "heads" / "flame2020.npz")
    albedo = AlbedoSpace.load(write_albedo_space(folder / "albedo.npz"), recipes.paper().network.code.albedo)
    performances = tuple(performance(number) for number in range(3))
    made = Corpus(folder, head, albedo, performances)
    tracker = write_clips(folder / "clips", head, albedo, performances)
    config = PrepareConfig(size=SIZE, validation=0, test=0)
    prepare(folder / "clips", made.shards, config, workers=1, track=tracker, speech=loudness)
    return made


class TrueNetworks(nn.Module):
    """Networks that output given codes."""

    def __init__(self, code, face):
        super().__init__()
        network = recipes.paper().network
        still = replace(network.expression, audio_dropout=0.0, video_dropout=0.0)
        self.config = replace(network, expression=still)
        self.coarse, self.expression = (lambda frames: code), (lambda frames: face)


def losses(corpus, held, right=0.0, up=0.0):
    """The recipe's losses of the codes that drew a window, the head moved by pixels of the crop."""
    batch = window_batch(held)
    true = corpus.performances[int(held["identity"][0].removeprefix("person"))]
    code, face = true.codes(batch.frames.crop)
    moved = torch.tensor([0.0, right, up]) * (2 / SIZE) / code.camera[..., :1]
    code = replace(code, camera=code.camera + moved)
    weights = replace(recipes.paper().losses, render_size=SIZE)
    objective = SelfSupervisedObjective(TrueNetworks(code, face), corpus.head, weights, corpus.albedo)
    return {name: float(value) for name, value in objective(batch, 0).items()}


def test_the_codes_that_drew_the_pictures_have_next_to_no_loss(corpus):
    """Crops, masks, landmarks and renderer agree to a fraction of a pixel."""
    windows = list(DataLoader(Windows(corpus.shards, "train"), batch_size=1))

    for held in windows:
        found = losses(corpus, held)
        for name in ("landmarks", "eye_closure", "mouth_closure", "lip_corners", "light"):
            assert found[name] < 1e-4, name
        assert found["photometric"] < 0.008  # the crops are JPEG
        for right, up in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)):
            beside = losses(corpus, held, right, up)
            assert beside["photometric"] > found["photometric"], "half a pixel off"
    assert len(windows) == 3


@pytest.mark.slow
def test_the_paper_recipe_overfits_a_handful_of_clips(corpus, tmp_path, monkeypatch):
    """ResNet-50, all losses and the dropout of the paper, as a user would train: the loss falls by ten times."""
    monkeypatch.setenv("AVFACE_HEADS", str(corpus.folder / "heads"))
    options = {
        "--albedo-space": corpus.albedo_file,
        "--out": tmp_path / "coarse.safetensors",
        "--render-size": SIZE,
        "--batch": len(corpus.performances),
        "--steps": 120,
        "--learning-rate": 3e-4,
        "--schedule": "cosine",
        "--warm-up": 4,
        "--report-every": 1,
        "--validate-every": 0,
    }
    words = [str(word) for option in options.items() for word in option]

    outcome = train(_parse(["train", "coarse", "paper", str(corpus.shards), *words]).options)

    (tmp_path / "coarse.checkpoint.safetensors").unlink()  # 0.8 GB
    steps = outcome.progress.losses
    assert np.mean(steps[-5:]) < 0.1 * steps[0]


def test_a_head_without_texture_coordinates_is_refused(corpus, tmp_path):
    bare = flame_shaped_head(tmp_path)
    bare.uv, bare.uv_faces = np.zeros((0, 2), np.float32), np.zeros((0, 3), np.int64)
    networks = CoarseNetworks(recipes.paper().network)
    with pytest.raises(AvfaceError, match=r"flame2020: .*--template"):
        SelfSupervisedObjective(networks, bare, recipes.SelfSupervision())
