"""Losses of the fine stage: zero at the truth, with gradients towards it."""

import pytest
import torch

from avface.errors import AvfaceError
from avface.geometry.shading import sh_basis
from avface.networks.detail.losses import (
    IdMrfLoss,
    Vgg19,
    detail_texture,
    displacement_loss,
    fit_albedo,
    fit_light,
    image_gradient_loss,
    normals_loss,
    photometric_loss,
    regulariser,
    shaded,
    slope_loss,
    symmetry_loss,
    valley_occlusion,
)

SIZE = 32


@pytest.fixture(autouse=True)
def seeded():
    """Makes draws of torch reproducible."""
    torch.manual_seed(0)


def bumpy(height, size=SIZE):
    """Unit normals (1, 3, S, S) of waves on a dome."""
    x = torch.linspace(-0.7, 0.7, size)
    slope = height * torch.cos(25 * x)
    columns, rows = (x + slope)[None].expand(size, -1), (-x)[:, None].expand(-1, size)
    return torch.nn.functional.normalize(torch.stack([columns, rows, torch.ones(size, size)]), dim=0)[None]


def light():
    generator = torch.Generator().manual_seed(3)
    result = 0.15 * torch.randn(1, 9, 3, generator=generator)
    result[:, 0] += 2.0
    result[:, 1] += 0.8
    return result


ONES = torch.ones(1, SIZE, SIZE)


def test_normals_loss_ignores_low_frequencies():
    flat, waves = bumpy(torch.tensor(0.0)), bumpy(torch.tensor(0.3))
    assert float(normals_loss(waves, waves, ONES)) == 0
    tilted = torch.nn.functional.normalize(flat + torch.tensor([0.2, 0.1, 0.0])[:, None, None], dim=1)
    assert float(normals_loss(tilted, flat, ONES)) < 0.02 * float(slope_loss(tilted, flat, ONES))
    assert float(normals_loss(waves, flat, ONES)) > 10 * float(normals_loss(tilted, flat, ONES))


def test_normals_loss_leaves_out_texels_without_weight_and_their_neighbours():
    one, other = bumpy(torch.tensor(0.3)), bumpy(torch.tensor(0.3)).clone()
    other[..., 10, 10] = -1.0
    weight = ONES.clone()
    weight[:, 10, 10] = 0
    assert float(normals_loss(one, other, ONES)) > 0
    assert float(normals_loss(one, other, weight)) == 0
    assert float(normals_loss(one, other, torch.zeros_like(ONES))) == 0


@pytest.mark.parametrize("loss", [normals_loss, slope_loss])
def test_gradients_of_normals_lead_to_the_truth(loss):
    height = torch.tensor(0.1, requires_grad=True)
    loss(bumpy(height), bumpy(torch.tensor(0.3)), ONES).backward()
    assert height.grad < 0


def test_displacement_is_in_millimetres():
    true = torch.zeros(2, SIZE, SIZE)
    found = torch.full_like(true, 2e-3, requires_grad=True)
    value = displacement_loss(found, true, torch.ones_like(true))
    value.backward()
    assert value.item() == pytest.approx(1.9, abs=0.01) and (found.grad > 0).all()
    assert regulariser(-found, torch.ones_like(true)).item() == pytest.approx(2.0)
    weight = torch.zeros_like(true)
    weight[0] = 1
    assert displacement_loss(found * weight, true + 2e-3 * weight, weight).item() == pytest.approx(
        0, abs=1e-6
    )


def test_symmetry_loss_changes_the_invisible_side_alone():
    displacement = torch.zeros(1, SIZE, SIZE)
    displacement[..., : SIZE // 2] = 1e-3
    displacement.requires_grad_()
    visibility = torch.zeros(1, SIZE, SIZE)
    visibility[..., : SIZE // 2] = 1
    value = symmetry_loss(displacement, displacement.flip(-1), visibility, ONES)
    value.backward()
    assert value.item() > 0.5
    unseen = displacement.grad[..., SIZE // 2 + 3 :]
    assert (unseen < 0).all() and float(displacement.grad[..., : SIZE // 2 - 3].abs().max()) == 0
    assert float(symmetry_loss(displacement, displacement.flip(-1), ONES, ONES).detach()) == 0
    same = torch.ones(1, SIZE, SIZE)
    assert float(symmetry_loss(same, same.flip(-1), 0 * visibility, ONES)) == 0


def test_light_and_albedo_are_found():
    normals, lit = bumpy(torch.tensor(0.3)), light()
    albedo = torch.tensor([0.6, 0.4, 0.3])[None, :, None, None].expand(1, 3, SIZE, SIZE)
    image = shaded(normals, albedo, lit)
    found = fit_light(normals, albedo, image, ONES, ridge=1e-7)
    assert torch.allclose(shaded(normals, albedo, found), image, atol=1e-3)
    shading = (sh_basis(normals.movedim(1, -1)) @ lit[0]).movedim(-1, 1)
    assert torch.allclose(fit_albedo(shading, image, ONES), albedo, atol=1e-3)


def test_light_is_fitted_to_texels_with_weight_alone():
    normals, lit = bumpy(torch.tensor(0.3)), light()
    albedo = torch.full((1, 3, SIZE, SIZE), 0.5)
    image = shaded(normals, albedo, lit)
    spoilt = image.clone()
    spoilt[..., :5] = 0
    weight = ONES.clone()
    weight[..., :5] = 0
    one, other = (fit_light(normals, albedo, part, weight) for part in (image, spoilt))
    assert torch.allclose(one, other, atol=1e-5)


def test_photometric_loss_is_least_at_the_true_detail():
    flat = bumpy(torch.tensor(0.0))
    image = shaded(bumpy(torch.tensor(0.2)), torch.full((1, 3, SIZE, SIZE), 0.5), light())
    errors = {}
    for height in (-0.2, 0.0, 0.1, 0.2):
        detailed = bumpy(torch.tensor(height))
        texture = detail_texture(flat, detailed, image, ONES)
        errors[height] = (
            float(photometric_loss(texture, image, ONES)),
            float(image_gradient_loss(texture, image, ONES)),
        )
    for k in (0, 1):
        assert errors[0.2][k] < errors[0.1][k] < errors[0.0][k] < errors[-0.2][k]
    assert float(photometric_loss(image, image, ONES)) == float(image_gradient_loss(image, image, ONES)) == 0


def test_gradient_of_the_picture_deepens_folds():
    flat = bumpy(torch.tensor(0.0))
    image = shaded(bumpy(torch.tensor(0.2)), torch.full((1, 3, SIZE, SIZE), 0.5), light())
    for loss in (photometric_loss, image_gradient_loss):
        height = torch.tensor(0.05, requires_grad=True)
        loss(detail_texture(flat, bumpy(height), image, ONES), image, ONES).backward()
        assert height.grad < 0


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save({**Vgg19().state_dict(), "classifier.6.bias": torch.zeros(3)}, path)
    return path


def test_mrf_is_least_for_the_picture_itself(vgg_file):
    vgg = Vgg19.load(vgg_file)
    assert not any(parameter.requires_grad for parameter in vgg.parameters())
    loss = IdMrfLoss(vgg)
    image = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    other = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)).requires_grad_()
    third, fourth = vgg(image)
    assert third.shape == (1, 256, 8, 8) and fourth.shape == (1, 512, 4, 4)
    same, value = loss(image, image), loss(other, image)
    assert float(same.detach()) < 0.1 * float(value.detach())
    value.backward()
    assert bool(torch.isfinite(other.grad).all()) and float(other.grad.abs().max()) > 0
    assert bool(torch.isfinite(loss(torch.zeros_like(image), image)))


def test_bad_vgg_files(tmp_path, vgg_file):
    with pytest.raises(AvfaceError, match="no such file"):
        Vgg19.load(tmp_path / "none.pth")
    with pytest.raises(AvfaceError, match="no such file"):
        Vgg19.load(tmp_path / "none.safetensors")
    path = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(3)}, path)
    with pytest.raises(AvfaceError, match="VGG-19"):
        Vgg19.load(path)


def test_valleys_are_occluded_and_ridges_are_not():
    heights, side = torch.zeros(64, 64), 0.15
    heights[30:33] = -2e-4
    heights[:, 10:13] = 3e-4

    light = valley_occlusion(heights, side)

    assert 0.8 < float(light[31, 40]) < 0.95 and float(light[31, 40]) < float(light[29, 40])
    assert float(light[50, 40]) == 1 and float(light[50, 11]) == 1
    assert float(valley_occlusion(100 * heights, side).min()) == pytest.approx(0.6)
    torch.testing.assert_close(valley_occlusion(0 * heights, side), torch.ones(64, 64))
