"""Detail refinement of a whole clip."""

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
from avface.networks.detail import refinement as detail_refinement
from avface.networks.detail.losses import shaded, valley_occlusion
from avface.networks.detail.network import DetailConfig, DetailNetwork, pretrained_detail, save_detail
from avface.networks.detail.refinement import (
    MAX_GAIN,
    ClipView,
    DetailRefinement,
    ShadingEvidence,
    pretrained_detail_refinement,
    smooth_weights,
)

FRAMES = 10
CAMERA = Camera.centred(300.0, 96, 96)


class HeightOfRed(torch.nn.Module):
    """A fake network with a known prediction: displacement is the red channel."""

    def __init__(self, network):
        super().__init__()
        self.config, self.mask = network.config, network.mask

    def forward(self, maps, speech=None, corner=None):
        return 1e-3 * maps[:, 2].clamp(-1, 1) * self.mask


@pytest.fixture(scope="module")
def head():
    return load_head("open")


@pytest.fixture(scope="module")
def refinement_of_red(head):
    made = DetailRefinement.of(small_detail(), head)
    return dataclasses.replace(made, network=HeightOfRed(made.network))


@pytest.fixture
def unit_gain(monkeypatch):
    """A gain of 1, of which pictures of one colour are no evidence."""
    monkeypatch.setattr(ShadingEvidence, "gain", lambda self: torch.ones_like(self.atlas.mask))


def view(head, reds, **changes):
    """Still heads whose skin has the red channel `reds` (T,)."""
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


def test_constant_skin_has_no_components(head, refinement_of_red, unit_gain):
    occluded = []
    detail = refinement_of_red.refine(view(head, [160] * FRAMES), occluded.append)
    assert sum(occluded) == FRAMES
    middle = detail.static[refinement_of_red.atlas.mask.numpy() == 1]
    assert float(np.median(middle)) == pytest.approx(1e-3 * 2 * (165 / 105 - 1.4), rel=0.3)
    assert np.abs(detail.weights @ detail.basis.reshape(len(detail.basis), -1)).max(initial=0) < 2e-6


def test_changes_are_kept_and_smooth(head, refinement_of_red, unit_gain):
    reds = [140] * 12 + [160] * 12
    heights = made(refinement_of_red.refine(view(head, reds)))[
        :, refinement_of_red.atlas.mask.numpy() == 1
    ].mean(1)
    assert heights[-1] - heights[0] > 1e-4
    steps = np.diff(heights)
    assert (steps > -1e-7).all() and steps.max() < 0.5 * (heights[-1] - heights[0])


def test_occluded_skin_has_the_median_displacement(head, refinement_of_red, unit_gain):
    """A hand occludes the lower half of the face in the last frames."""
    reds = [150] * 6 + [255] * 2
    below = head.template.numpy()
    embedding = head.embedding("mediapipe478")
    points = np.einsum("lkc,lk->lc", below[embedding.triangles], embedding.barycentric)
    above = (points[:, 1] >= -0.03).astype(np.float32)
    occluded = view(head, reds, visibility=lambda row: above if row >= 6 else np.ones_like(above))
    low = (refinement_of_red.atlas.atlas.bake(head.template)[..., 1] < -0.05).numpy() & (
        refinement_of_red.atlas.mask == 1
    ).numpy()
    completed, naive = (
        np.abs(made(refinement_of_red.refine(v)) - made(refinement_of_red.refine(v))[0])[7][low]
        for v in (occluded, view(head, reds))
    )
    assert completed.mean() < 0.15 * naive.mean()


def test_frames_without_the_person_are_left_out(head, refinement_of_red, unit_gain):
    chosen = np.arange(FRAMES) < 6
    detail = refinement_of_red.refine(view(head, [150] * 6 + [255] * 4, chosen=chosen))
    assert len(detail.weights) == FRAMES and not detail.weights[6:].any()
    assert refinement_of_red.refine(view(head, [150] * 3, chosen=np.zeros(3, bool))) is None


def test_folds_are_kept_where_the_shading_shows_them(head):
    """Lit from the side, with folds that have dark valleys on the subject's left and none on the right."""
    atlas = detail_atlas(head, 128)
    points = head.template * torch.tensor([1.0, -1.0, -1.0]) + torch.tensor([0, 0, 0.5])
    columns = torch.arange(128) / 128
    predicted = 3e-4 * torch.sin(90 * columns)[None] * atlas.mask
    true = predicted * (columns > 0.5)
    coarse, folded = (
        (atlas.normals(points, height) * torch.tensor([1.0, -1.0, -1.0])).movedim(-1, 0)[None]
        for height in (0 * true, true)
    )
    lamp = torch.nn.functional.normalize(torch.tensor([0.6, 0.2, 1.0]), dim=0)
    light = directional_light(lamp, torch.ones(3))[None]
    picture = shaded(folded, torch.full_like(coarse, 0.5), light)[0] * valley_occlusion(true, atlas.side)
    seen = ((atlas.mask > 0.5) & (coarse[0, 2] > 0.4)).float()
    gains = []
    for factor in (1, -1, 0.5, 0.1):
        evidence = ShadingEvidence(atlas)
        evidence.add(DetailMaps(picture * seen, coarse[0], seen), points, factor * predicted)
        gains.append(evidence.gain())
    left, right = seen * (columns > 0.6) > 0, seen * (columns < 0.4) > 0
    assert float(gains[0][left].median()) > 0.6 and float(gains[0][right].median()) < 0.3
    assert float(gains[1][left].median()) < 0.3
    flat, flattest = gains[2][left], gains[3][left]
    assert 1.2 < float(flat.median()) < 2, "a prediction that is too flat"
    assert float(flattest.max()) == MAX_GAIN
    nothing = ShadingEvidence(atlas)
    nothing.add(DetailMaps(0 * picture, coarse[0], 0 * seen), points, predicted)
    assert torch.allclose(nothing.gain(), torch.tensor(1.0))


def test_video_that_ends_early(head, refinement_of_red):
    whole = view(head, [150] * FRAMES)
    short = dataclasses.replace(whole, frames=lambda: iter(list(whole.frames())[:7]))
    assert len(refinement_of_red.refine(short).weights) == FRAMES


def test_sound_has_an_effect(head):
    refinement = DetailRefinement.of(small_detail(), head)
    with torch.no_grad():  # initially 0
        refinement.network.layer4[0].conv1.weight[:, -1] = 1.0
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    silent, loud = (
        refinement.refine(view(head, [150] * 3, sound=sound)) for sound in (None, lambda: iter([noise]))
    )
    assert not np.array_equal(silent.static, loud.static)


def test_smoothing_keeps_shots_and_people_apart():
    times = np.arange(20) / 25
    weights = (np.arange(20) >= 10).astype(float)[:, None]
    shots = (np.arange(20) >= 10).astype(int)
    everyone = np.ones(20, bool)
    assert np.allclose(smooth_weights(weights, times, shots, everyone), weights)
    joined = smooth_weights(weights, times, 0 * shots, everyone)
    assert 0 < joined[9, 0] < 0.5 < joined[10, 0] < 1 and np.allclose(joined[[0, -1], 0], [0, 1])
    someone = np.arange(20) != 9
    weights[9] = 7
    apart = smooth_weights(weights, times, 0 * shots, someone)
    assert apart[9, 0] == 7 and apart.max(where=someone[:, None], initial=0) <= 1


def test_the_pretrained_refinement_is_for_its_head_alone(head, tmp_path, monkeypatch):
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
    assert detail_refinement.COMPONENTS >= 1
