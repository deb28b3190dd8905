"""The detail network, its maps and the median displacement."""

import math

import numpy as np
import pytest
import torch

from avface.errors import AvfaceError
from avface.geometry.camera import Camera
from avface.geometry.mesh import vertex_normals
from avface.head import load_head
from avface.head.skin.atlas import DetailAtlas, DetailMaps
from avface.networks.detail.network import (
    DetailConfig,
    DetailNetwork,
    load_detail,
    predict_detail,
    save_detail,
)
from avface.networks.detail.refinement import MedianDetail

SIZE = 128
SMALL = DetailConfig(resolution=64, encoder=(8, 8, 8, 8, 8), decoder=(8, 8, 8, 8, 4), image=4, out=4)
CAMERA = Camera.centred(300.0, 160, 160)


@pytest.fixture(autouse=True)
def seeded():
    """Makes draws of torch reproducible."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def head():
    return load_head("open")


@pytest.fixture(scope="module")
def atlas(head):
    return DetailAtlas(head, SIZE)


def facing(head, yaw=0.0):
    """Vertices (V, 3) of the average head before the camera, turned by `yaw` radians."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    turn = torch.tensor([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    return head.template @ turn.T * torch.tensor([1.0, -1.0, -1.0]) + torch.tensor([0, 0, 0.5])


def picture(fill=200):
    return np.full((160, 160, 3), fill, np.uint8)


def test_the_window_contains_the_face_alone(head, atlas):
    names = {name: torch.as_tensor(head.regions[name]).float()[:, None] for name in head.regions}
    inside = atlas.mask > 0.5
    assert (atlas.atlas.bake(names["face"])[..., 0][inside] > 0.5).all()
    for name in ("neck", "scalp", "ears"):
        assert not (atlas.atlas.bake(names[name])[..., 0][inside] > 0.5).any()
    assert 0.55 < float(atlas.mask.mean()) < 0.9
    assert float(atlas.mask[[0, -1]].max()) < 0.05


def test_mirror_pairs_texels(head, atlas):
    place = atlas.atlas.bake(head.template).movedim(-1, 0)
    mirrored = atlas.flipped(place) * torch.tensor([-1.0, 1.0, 1.0])[:, None, None]
    off = (mirrored - place).norm(dim=0)[atlas.mask > 0.9]
    assert float(off.quantile(0.99)) < 0.001 and float(off.median()) < 1e-4


def test_a_frontal_face_is_visible_with_the_colours_of_the_picture(head, atlas):
    image = picture()
    image[:, :80] = (10, 60, 110)
    maps = atlas.maps(image, facing(head), CAMERA)
    middle = slice(SIZE // 4, SIZE // 2)
    outside = maps.normals[2] > 0.5  # not inside the lids
    assert float(maps.visibility[middle][outside[middle]].mean()) > 0.95
    seen = maps.visibility > 0
    assert (maps.image[:, ~seen] == 0).all()
    row = SIZE // 5
    # the subject's left is right in the picture, and in the window
    assert torch.allclose(maps.image[:, row, SIZE // 3], torch.tensor([10.0, 60, 110]) / 255, atol=1e-3)
    assert torch.allclose(maps.image[:, row, 2 * SIZE // 3], torch.tensor(200 / 255), atol=1e-3)
    forehead = maps.normals[:, row, SIZE // 2]
    assert forehead[2] > 0.8 and abs(forehead[0]) < 0.1


def test_skin_that_is_turned_away_occluded_or_outside_is_invisible(head, atlas):
    turned = atlas.maps(picture(), facing(head, 1.0), CAMERA).visibility
    sides = turned[:, : SIZE // 2].mean(), turned[:, SIZE // 2 :].mean()
    assert min(sides) < 0.45 * max(sides)
    hidden = np.zeros((160, 160), bool)
    hidden[:, 80:] = True
    covered = atlas.maps(picture(), facing(head), CAMERA, hidden)
    assert float(covered.visibility[:, 9 * SIZE // 16 :].max()) == 0
    assert float(covered.image[:, :, 9 * SIZE // 16 :].max()) == 0
    assert float(covered.visibility[:, SIZE // 4 : SIZE // 2 - 4].mean()) > 0.6
    away = facing(head) + torch.tensor([0.5, 0.0, 0.0])
    assert float(atlas.maps(picture(), away, CAMERA).visibility.max()) == 0


def test_the_nose_occludes_the_cheek_behind_it(head, atlas):
    points = facing(head, 0.75)
    maps = atlas.maps(picture(), points, CAMERA)
    towards = -(
        maps.normals
        * torch.nn.functional.normalize(
            (atlas.atlas.bake(points) * torch.tensor([1.0, -1.0, -1.0])).movedim(-1, 0), dim=0
        )
    ).sum(0)
    faces_camera = (towards > 0.45) & (atlas.mask > 0.5)
    assert 0 < int((maps.visibility[faces_camera] == 0).sum()) < 0.2 * int(faces_camera.sum())


def test_large_pictures_give_the_same_maps(head, atlas):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (20, 20, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    large = small.repeat(4, 0).repeat(4, 1)
    camera = Camera.centred(1200.0, 640, 640)
    one = atlas.maps(small, facing(head), CAMERA)
    other = atlas.maps(large, facing(head), camera)
    both = (one.visibility > 0.5) & (other.visibility > 0.5)
    assert float((one.image - other.image).abs()[:, both].mean()) < 0.06
    assert float((one.visibility - other.visibility).abs().mean()) < 0.01


def test_skin_of_occluded_landmarks_is_occluded(head, atlas):
    maps = atlas.maps(picture(), facing(head), CAMERA)
    lips = torch.zeros(478, dtype=torch.bool)
    lips[[0, 17, 61, 291, 37, 267, 84, 314]] = True
    hidden = lips[atlas.nearest_landmark]
    less = maps.without(hidden)
    assert not bool(less.visibility[hidden].any()) and not bool(less.image[:, hidden].any())
    assert torch.equal(less.visibility[~hidden], maps.visibility[~hidden])
    mouth = atlas.atlas.bake(torch.as_tensor(head.regions["lips"]).float()[:, None])[..., 0] > 0.5
    assert float(mouth[hidden & (atlas.mask > 0.5)].float().mean()) > 0.4


def test_exposure_does_not_matter(head, atlas):
    image = np.random.default_rng(0).integers(20, 120, (160, 160, 3)).astype(np.uint8)
    maps, brighter = (atlas.maps(frame, facing(head), CAMERA).stacked() for frame in (image, 2 * image))
    assert maps.shape == (7, SIZE, SIZE)
    assert torch.allclose(maps[:2], brighter[:2], atol=1e-3) and torch.equal(maps[3:], brighter[3:])
    assert float((maps[2] - brighter[2]).abs().mean()) < 0.2


def test_no_displacement_leaves_the_coarse_surface(head, atlas):
    points, nothing = facing(head, 0.3), torch.zeros(SIZE, SIZE)
    coarse = torch.nn.functional.normalize(atlas.atlas.bake(vertex_normals(points, head.faces)), dim=-1)
    assert torch.allclose(atlas.displace(points, nothing), atlas.atlas.bake(points), atol=1e-6)
    assert torch.allclose(atlas.normals(points, nothing), coarse, atol=1e-6)
    assert torch.allclose(
        atlas.tangent_normals(nothing), torch.tensor([0.0, 0, 1])[:, None, None].expand(3, SIZE, SIZE)
    )


def test_normals_are_those_of_the_displaced_surface(head, atlas):
    points = head.template
    steps = torch.arange(SIZE) / SIZE
    displacement = 3e-4 * torch.sin(40 * steps)[:, None] * torch.cos(30 * steps)
    moved = atlas.displace(points, displacement)
    assert torch.allclose(
        (moved - atlas.atlas.bake(points)).norm(dim=-1)[atlas.mask > 0],
        displacement.abs()[atlas.mask > 0],
        atol=1e-6,
    )
    normals = atlas.normals(points, displacement)
    along_v, along_u = torch.gradient(moved, dim=(0, 1))
    by_differences = torch.nn.functional.normalize(torch.linalg.cross(-along_v, along_u, dim=-1), dim=-1)
    by_differences = by_differences * torch.sign((by_differences * normals).sum(-1, keepdim=True))
    angle = torch.rad2deg(torch.acos((normals * by_differences).sum(-1).clamp(-1, 1)))
    inner = atlas.mask > 0.99
    assert float(angle[inner].median()) < 2.5
    plain = torch.nn.functional.normalize(atlas.atlas.bake(vertex_normals(points, head.faces)), dim=-1)
    tilt = (normals * plain).sum(-1)
    tangent = atlas.tangent_normals(displacement)[2]
    assert float((tilt - tangent)[inner].abs().quantile(0.99)) < 2e-3


def test_displacement_has_gradients(head, atlas):
    displacement = torch.zeros(SIZE, SIZE, requires_grad=True)
    rough = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    (atlas.tangent_normals(displacement) * rough).sum().backward()
    assert bool(torch.isfinite(displacement.grad).all())
    assert float(displacement.grad.abs()[atlas.mask > 0.5].mean()) > 0


def test_window_and_uv_square(atlas):
    steps = torch.arange(512) / 512
    texture = torch.sin(9 * steps)[:, None] + torch.cos(7 * steps)
    window = atlas.from_uv_square(texture)
    again = atlas.to_uv_square(window, 512)
    top, left = (int(512 * (value + 0.02)) for value in (atlas.corner[1], atlas.corner[0]))
    size = int(512 * (atlas.side - 0.04))
    inside = slice(top, top + size), slice(left, left + size)
    assert torch.allclose(again[inside], texture[inside], atol=5e-3)
    assert float(again[0].abs().max()) == 0


def small_network(head, **changes):
    torch.manual_seed(0)
    network = DetailNetwork.of(head, DetailConfig(**{**vars(SMALL), **changes})).eval()
    return network


def inputs(size=64, count=1):
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(count, 7, size, size, generator=generator),
        torch.randn(count, 16, 29, generator=generator),
    )


def awake(network):
    with torch.no_grad():
        network.last.weight.normal_(0, 1)
        for parameter in network.layer4.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def test_a_new_network_predicts_no_displacement(head):
    network = small_network(head)
    found = network(*inputs())
    assert found.shape == (1, 64, 64) and not bool(found.any())
    network(*inputs()).sum().backward()
    assert float(network.last.weight.grad.abs().max()) > 0


def test_displacement_stays_within_bound_and_mask(head):
    network = awake(small_network(head))
    with torch.no_grad():
        network.last.weight.mul_(1e4)
        found = network(*inputs())
    assert float(found.abs().max()) <= 0.003 + 1e-9
    assert float(found[0][network.mask == 0].abs().max()) == 0
    assert float(found.abs().max()) > 0.001


def test_sound_has_an_effect_if_the_config_has_audio(head):
    maps, speech = inputs()
    with torch.no_grad():
        for audio in (True, False):
            network = awake(small_network(head, audio=audio))
            same = torch.equal(network(maps, speech), network(maps, -speech))
            assert same is not audio
            assert torch.equal(network(maps, torch.zeros_like(speech)), network(maps))


def test_sound_has_no_effect_on_a_new_network(head):
    network = small_network(head)
    maps, speech = inputs()
    with torch.no_grad():
        network.last.weight.normal_(0, 1)
        assert torch.equal(network(maps, speech), network(maps))


def test_crops_give_the_same_as_whole_maps(head):
    torch.manual_seed(0)
    network = awake(small_network(head, resolution=256))
    maps, speech = inputs(256)
    with torch.no_grad():
        whole = network(maps, speech)
        part = network(maps[..., 64:192, 32:160].contiguous(), speech, (64, 32))
    inner = slice(60, 68)
    # beyond the crop's edge nothing is known, so only its middle is nearly the same
    wanted = whole[0, 64:192, 32:160][inner, inner]
    assert float((part[0, inner, inner] - wanted).abs().mean()) < 0.35 * float(wanted.abs().mean())


def test_prediction_of_one_and_of_several_frames(head):
    network = awake(small_network(head))
    maps, speech = inputs(count=2)
    batch = DetailMaps(maps[:, :3], maps[:, 3:6], maps[:, 6].abs())
    several = predict_detail(network, batch, speech)
    single = predict_detail(network, DetailMaps(*(value[1] for value in vars(batch).values())), speech[1])
    assert single.shape == (64, 64) and torch.allclose(several[1], single, atol=1e-6)


def test_weights_come_back_in_half_precision(head, tmp_path):
    network = awake(small_network(head))
    save_detail(network, tmp_path / "detail.safetensors", {"note": "test"})
    again = load_detail(tmp_path / "detail.safetensors")
    assert again.config == network.config
    with torch.no_grad():
        one, other = network(*inputs()), again(*inputs())
    assert float((one - other).abs().mean()) < 0.02 * float(one.abs().mean())


def test_default_weights_are_small(head, tmp_path):
    save_detail(DetailNetwork(DetailConfig()), tmp_path / "detail.safetensors")
    assert (tmp_path / "detail.safetensors").stat().st_size < 15e6


def test_bad_files_and_configs(head, tmp_path):
    with pytest.raises(AvfaceError, match="no such file"):
        load_detail(tmp_path / "none.safetensors")
    path = tmp_path / "bad.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(AvfaceError, match="not a readable"):
        load_detail(path)
    network = small_network(head)
    with torch.no_grad():
        network.bottom.weight[0] = torch.nan
    save_detail(network, path)
    with pytest.raises(AvfaceError, match="finite"):
        load_detail(path)
    with pytest.raises(AvfaceError, match="multiple of 32"):
        DetailConfig(resolution=100)
    with pytest.raises(AvfaceError, match="encoder"):
        DetailConfig(encoder=(1, 2, 3, 4, 0))


def test_median_detail_ignores_invisible_texels(atlas):
    medians = MedianDetail(atlas)
    with pytest.raises(AvfaceError, match="no frame was added"):
        medians.median()
    true = 1e-4 * torch.sin(torch.arange(SIZE) / 5)[:, None].expand(SIZE, SIZE)
    generator = torch.Generator().manual_seed(0)
    for number in range(100):
        visibility = torch.ones(SIZE, SIZE)
        found = true + 1e-5 * torch.randn(SIZE, SIZE, generator=generator)
        if number < 70:  # a hand is before the left half most of the time
            visibility[:, : SIZE // 2] = 0
            found[:, : SIZE // 2] = 2e-3
        medians.add(found, visibility)
    median = medians.median()
    inside = atlas.mask > 0
    assert float((median - true).abs()[inside].max()) < 3e-5
    hidden = torch.zeros(SIZE, SIZE)
    assert torch.equal(medians.completed(true + 1, hidden, median), median)
    assert torch.allclose(medians.completed(true, 1 - hidden, median), true, atol=1e-9)


def test_median_detail_of_an_invisible_side_is_mirrored(atlas):
    medians = MedianDetail(atlas)
    visibility = torch.zeros(SIZE, SIZE)
    visibility[:, : SIZE // 2] = 1
    medians.add(torch.full((SIZE, SIZE), 3e-4) * visibility, visibility)
    median = medians.median()[atlas.mask > 0]
    assert torch.allclose(median, torch.full_like(median, 3e-4), atol=2e-6)
    with pytest.raises(ValueError, match="must be"):
        medians.add(torch.zeros(3, 3), torch.zeros(3, 3))
