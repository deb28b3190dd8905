"""The fine stage over a whole clip."""

import dataclasses

import numpy as np
import pytest
import torch
from detail_captures import small_detail

from avface.errors import AvfaceError
from avface.geometry.camera import Camera
from avface.geometry.shading import directional_light
from avface.head import load_head
from avface.head.skin.atlas import DetailMaps, detail_atlas
from avface.networks.detail import refinement as detail_clip
from avface.networks.detail.losses import shaded, valley_light
from avface.networks.detail.network import DetailConfig, DetailNetwork, pretrained_detail, save_detail
from avface.networks.detail.refinement import (
    DEEPEST,
    ClipView,
    DetailRefinement,
    ShadingEvidence,
    pretrained_detail_refinement,
    smoothed,
)

FRAMES = 10
CAMERA = Camera.centred(300.0, 96, 96)


class Reddening(torch.nn.Module):
    """Stands for a network to which red skin is high: its answer is known."""

    def __init__(self, network):
        super().__init__()
        self.config, self.mask = network.config, network.mask

    def forward(self, maps, speech=None, corner=None):
        return 1e-3 * maps[:, 2].clamp(-1, 1) * self.mask


@pytest.fixture(scope="module")
def head():
    return load_head("open")


@pytest.fixture(scope="module")
def knowing(head):
    made = DetailRefinement.of(small_detail(), head)
    return dataclasses.replace(made, network=Reddening(made.network))


@pytest.fixture
def believed(monkeypatch):
    """Pictures of one colour bear no folds out: take them as true all the same."""
    monkeypatch.setattr(ShadingEvidence, "trust", lambda self: torch.ones_like(self.atlas.mask))


def view(head, reds, **changes):
    """Still heads whose skin is as red as `reds` (T,) say."""
    points = head.template.numpy() * [1, -1, -1] + [0, 0, 0.5]
    pictures = [np.full((96, 96, 3), (red, 100, 100), np.uint8) for red in reds]
    base = ClipView(
        frames=lambda: iter(pictures),
        vertices=lambda rows: np.repeat(points[None], len(rows), 0).astype(np.float32),
        camera=CAMERA,
        times=np.arange(len(reds)) / 25,
        shots=np.zeros(len(reds), np.int64),
        chosen=np.ones(len(reds), bool),
    )
    return dataclasses.replace(base, **changes)


def made(detail):
    return detail.static + np.tensordot(detail.weights, detail.basis, 1)


def test_still_skin_has_no_ways(head, knowing, believed):
    told = []
    detail = knowing.refine(view(head, [160] * FRAMES), told.append)
    assert sum(told) == FRAMES
    middle = detail.static[knowing.atlas.mask.numpy() == 1]
    assert float(np.median(middle)) == pytest.approx(1e-3 * 2 * (165 / 105 - 1.4), rel=0.3)
    assert np.abs(detail.weights @ detail.basis.reshape(len(detail.basis), -1)).max(initial=0) < 2e-6


def test_changes_are_followed_and_smooth(head, knowing, believed):
    reds = [140] * 12 + [160] * 12
    heights = made(knowing.refine(view(head, reds)))[:, knowing.atlas.mask.numpy() == 1].mean(1)
    assert heights[-1] - heights[0] > 1e-4
    steps = np.diff(heights)
    assert (steps > -1e-7).all() and steps.max() < 0.5 * (heights[-1] - heights[0])


def test_what_is_hidden_is_as_it_usually_is(head, knowing, believed):
    """A hand comes before the lower half of the face in the last frames."""
    reds = [150] * 6 + [255] * 2
    below = head.template.numpy()
    embedding = head.embedding("mediapipe478")
    points = np.einsum("lkc,lk->lc", below[embedding.triangles], embedding.barycentric)
    above = (points[:, 1] >= -0.03).astype(np.float32)
    told = view(head, reds, visibility=lambda row: above if row >= 6 else np.ones_like(above))
    low = (knowing.atlas.atlas.bake(head.template)[..., 1] < -0.05).numpy() & (
        knowing.atlas.mask == 1
    ).numpy()
    hidden, naive = (
        np.abs(made(knowing.refine(v)) - made(knowing.refine(v))[0])[7][low] for v in (told, view(head, reds))
    )
    assert hidden.mean() < 0.15 * naive.mean()


def test_other_people_are_left_out(head, knowing, believed):
    chosen = np.arange(FRAMES) < 6
    detail = knowing.refine(view(head, [150] * 6 + [255] * 4, chosen=chosen))
    assert len(detail.weights) == FRAMES and not detail.weights[6:].any()
    assert knowing.refine(view(head, [150] * 3, chosen=np.zeros(3, bool))) is None


def test_folds_are_kept_where_the_pictures_bear_them_out(head):
    """Lit from the side, with folds that are dark in their valleys on the subject's left and none on the right."""
    atlas = detail_atlas(head, 128)
    points = head.template * torch.tensor([1.0, -1.0, -1.0]) + torch.tensor([0, 0, 0.5])
    columns = torch.arange(128) / 128
    claimed = 3e-4 * torch.sin(90 * columns)[None] * atlas.mask
    true = claimed * (columns > 0.5)
    coarse, folded = (
        (atlas.normals(points, height) * torch.tensor([1.0, -1.0, -1.0])).movedim(-1, 0)[None]
        for height in (0 * true, true)
    )
    lamp = torch.nn.functional.normalize(torch.tensor([0.6, 0.2, 1.0]), dim=0)
    light = directional_light(lamp, torch.ones(3))[None]
    picture = shaded(folded, torch.full_like(coarse, 0.5), light)[0] * valley_light(true, atlas.side)
    seen = ((atlas.mask > 0.5) & (coarse[0, 2] > 0.4)).float()
    trust = []
    for said in (1, -1, 0.5, 0.1):
        evidence = ShadingEvidence(atlas)
        evidence.show(DetailMaps(picture * seen, coarse[0], seen), points, said * claimed)
        trust.append(evidence.trust())
    left, right = seen * (columns > 0.6) > 0, seen * (columns < 0.4) > 0
    assert float(trust[0][left].median()) > 0.6 and float(trust[0][right].median()) < 0.3
    assert float(trust[1][left].median()) < 0.3
    deeper, deepest = trust[2][left], trust[3][left]
    assert 1.2 < float(deeper.median()) < 2, "said to be flatter than it is"
    assert float(deepest.max()) == DEEPEST
    nothing = ShadingEvidence(atlas)
    nothing.show(DetailMaps(0 * picture, coarse[0], 0 * seen), points, claimed)
    assert torch.allclose(nothing.trust(), torch.tensor(1.0))


def test_video_that_ends_early(head, knowing):
    whole = view(head, [150] * FRAMES)
    short = dataclasses.replace(whole, frames=lambda: iter(list(whole.frames())[:7]))
    assert len(knowing.refine(short).weights) == FRAMES


def test_sound_is_heard(head):
    refinement = DetailRefinement.of(small_detail(), head)
    with torch.no_grad():  # the sound's own weights begin at 0
        refinement.network.layer4[0].conv1.weight[:, -1] = 1.0
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    quiet, loud = (
        refinement.refine(view(head, [150] * 3, sound=sound)) for sound in (None, lambda: iter([noise]))
    )
    assert not np.array_equal(quiet.static, loud.static)


def test_smoothing_keeps_shots_and_people_apart():
    times = np.arange(20) / 25
    weights = (np.arange(20) >= 10).astype(float)[:, None]
    shots = (np.arange(20) >= 10).astype(int)
    everyone = np.ones(20, bool)
    assert np.allclose(smoothed(weights, times, shots, everyone), weights)
    joined = smoothed(weights, times, 0 * shots, everyone)
    assert 0 < joined[9, 0] < 0.5 < joined[10, 0] < 1 and np.allclose(joined[[0, -1], 0], [0, 1])
    someone = np.arange(20) != 9
    weights[9] = 7
    apart = smoothed(weights, times, 0 * shots, someone)
    assert apart[9, 0] == 7 and apart.max(where=someone[:, None], initial=0) <= 1


def test_shipped_weights(head, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained_detail, "path", tmp_path / "detail.safetensors")
    assert pretrained_detail_refinement(head, "cpu") is None
    save_detail(small_detail(), tmp_path / "detail.safetensors")
    assert pretrained_detail_refinement(head, "cpu") is not None
    other = DetailNetwork(DetailConfig(head="other"))
    monkeypatch.setattr(pretrained_detail, "path", tmp_path / "other.safetensors")
    save_detail(other, tmp_path / "other.safetensors")
    assert pretrained_detail_refinement(head, "cpu") is None
    with pytest.raises(AvfaceError, match="head other"):
        DetailRefinement.of(other, head)
    assert detail_clip.COMPONENTS >= 1
