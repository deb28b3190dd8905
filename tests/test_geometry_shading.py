import math

import numpy as np
import pytest
import torch

from avface.geometry.shading import (
    SH_NORMS,
    directional_light,
    displacement_normals,
    displacement_slope,
    perturb_normals,
    sample_image,
    sample_texture,
    sh_basis,
    sh_shading,
    uv_gradients,
)


def sphere(count, seed=0):
    points = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(points, dim=-1)


def test_the_basis_is_decas_in_its_order():
    x, y, z = 0.48, -0.6, 0.64

    basis = sh_basis(torch.tensor([x, y, z], dtype=torch.float64))

    polynomials = [1, x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1]
    factors = [0.28209, 1.02333, 1.02333, 1.02333, 0.85809, 0.85809, 0.85809, 0.42904, 0.24771]
    np.testing.assert_allclose(basis, np.multiply(factors, polynomials), rtol=2e-5, atol=1e-6)


def test_the_harmonics_are_orthonormal_on_the_sphere():
    heights, weights = np.polynomial.legendre.leggauss(8)
    angle = np.arange(16) * (2 * np.pi / 16)
    radius = np.sqrt(1 - heights**2)[:, None]
    points = np.stack(
        [radius * np.cos(angle), radius * np.sin(angle), np.broadcast_to(heights[:, None], (8, 16))], -1
    )

    kept = torch.tensor([1.0, *3 * (2 * math.pi / 3,), *5 * (math.pi / 4,)])
    harmonics = (sh_basis(torch.as_tensor(points)) / kept).numpy()
    products = np.einsum("ijk,ijl,i->kl", harmonics, harmonics, weights) * (2 * np.pi / 16)

    np.testing.assert_allclose(products, np.eye(9), atol=1e-6)
    assert len(SH_NORMS) == 9


def test_ambient_light_is_the_same_on_all_sides_and_colours_stay_apart():
    light = torch.zeros(9, 3, dtype=torch.float64)
    light[0] = torch.tensor([1.0, 0.5, 0.0]) / 0.28209479

    shading = sh_shading(sphere(50), light)

    torch.testing.assert_close(
        shading, torch.tensor([1.0, 0.5, 0.0]).double().expand(50, 3), atol=1e-6, rtol=0
    )


def test_each_picture_of_a_batch_has_its_own_light():
    normals, light = sphere(24).view(2, 3, 4, 3), torch.rand(2, 9, 3, dtype=torch.float64)

    shading = sh_shading(normals, light)

    assert shading.shape == (2, 3, 4, 3)
    torch.testing.assert_close(shading[1, 2, 3], sh_shading(normals[1, 2, 3], light[1]))
    torch.testing.assert_close(sh_shading(normals, light[0])[0], shading[0])


def test_directional_light_is_the_second_order_approximation_of_the_clamped_cosine():
    direction = torch.tensor([0.36, 0.48, 0.8], dtype=torch.float64)
    normals, colour = sphere(2000), torch.tensor([1.0, 0.6, 0.3], dtype=torch.float64)

    shading = sh_shading(normals, directional_light(direction, colour))

    lambert = (normals @ direction).clamp_min(0)[:, None] * colour
    assert float((shading - lambert).abs().max()) < 0.1
    assert float((shading - lambert).pow(2).mean().sqrt()) < 0.05
    towards = sh_shading(direction, directional_light(direction, colour))
    torch.testing.assert_close(towards, 1.0625 * colour)  # 1/4 + 1/2 + 5/16, by the theory


def test_texels_have_their_middles_half_a_texel_inside_and_v_is_up():
    texture = torch.arange(12.0).view(3, 4, 1)  # 3 rows, 4 columns
    rows, columns = torch.meshgrid(torch.arange(3), torch.arange(4), indexing="ij")
    uv = torch.stack([(columns + 0.5) / 4, 1 - (rows + 0.5) / 3], -1)

    torch.testing.assert_close(sample_texture(texture, uv), texture)
    corners = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.5, 2.0], [-1.0, 0.5]])
    expected = torch.tensor([0.0, 3.0, 8.0, 11.0, 1.5, 4.0])  # the rim goes on outside
    torch.testing.assert_close(sample_texture(texture, corners)[:, 0], expected)


def test_sampling_agrees_with_the_cameras_pixel_centres():
    image = torch.rand(5, 7, 2)
    found = sample_image(image, torch.tensor([[0.0, 0.0], [6.0, 4.0], [2.5, 1.0], [3.0, 1.25]]))

    expected = [
        image[0, 0],
        image[4, 6],
        (image[1, 2] + image[1, 3]) / 2,
        0.75 * image[1, 3] + 0.25 * image[2, 3],
    ]
    torch.testing.assert_close(found, torch.stack(expected))


def test_a_batch_of_textures_goes_with_a_batch_of_places():
    textures, uv = torch.rand(2, 6, 6, 3), torch.rand(2, 4, 5, 2)

    found = sample_texture(textures, uv)

    assert found.shape == (2, 4, 5, 3)
    torch.testing.assert_close(found[1], sample_texture(textures[1], uv[1]))
    torch.testing.assert_close(sample_texture(textures[0], uv)[0], found[0])
    with pytest.raises(ValueError, match="must begin with"):
        sample_texture(textures, uv[0])


def test_sampling_is_differentiable_in_texture_and_place():
    texture = torch.rand(5, 6, 2, dtype=torch.float64, requires_grad=True)
    uv = (0.1 + 0.8 * torch.rand(7, 2, dtype=torch.float64)).requires_grad_()

    assert torch.autograd.gradcheck(sample_texture, (texture, uv))


def curved(uv):
    """A piece of a cylinder of radius 0.1 m about the y axis, its uv skewed and stretched: points, unit normals."""
    angle, height = 1.2 * uv[..., 0] + 0.3 * uv[..., 1], 0.2 * uv[..., 1] - 0.03 * uv[..., 0]
    normals = torch.stack([angle.sin(), torch.zeros_like(angle), angle.cos()], -1)
    return 0.1 * normals + torch.stack(
        [torch.zeros_like(height), height, torch.zeros_like(height)], -1
    ), normals


def bumps(uv):
    """A displacement in metres."""
    return 4e-4 * (40 * uv[..., 0]).sin() * (35 * uv[..., 1] + 1).cos()


def surface_gradients(uv):
    """d point / du and d point / dv of `curved` by automatic differentiation."""
    rows = torch.func.vmap(torch.func.jacrev(lambda place: curved(place)[0]))(uv)
    return rows[..., 0], rows[..., 1]


def test_displacement_normals_are_those_of_the_displaced_surface():
    uv = 0.1 + 0.8 * torch.rand(500, 2, dtype=torch.float64)
    _, normals = curved(uv)
    by_u, by_v = surface_gradients(uv)
    texels = (torch.arange(256, dtype=torch.float64) + 0.5) / 256
    v, u = torch.meshgrid(1 - texels, texels, indexing="ij")

    found = displacement_normals(normals, bumps(torch.stack([u, v], -1)), uv, by_u, by_v)

    def displaced(place):
        point, normal = curved(place)
        return point + bumps(place)[..., None] * normal

    rows = torch.func.vmap(torch.func.jacrev(displaced))(uv)
    truth = torch.nn.functional.normalize(torch.linalg.cross(rows[..., 0], rows[..., 1]), dim=-1)
    wrong = torch.rad2deg((found * truth).sum(-1).clamp(-1, 1).arccos())
    turned = torch.rad2deg((normals * truth).sum(-1).clamp(-1, 1).arccos())
    assert turned.max() > 2.5 and wrong.max() < 0.02 * turned.max()


def test_mirrored_uv_gives_the_same_relief():
    uv = 0.1 + 0.8 * torch.rand(50, 2, dtype=torch.float64)
    _, normals = curved(uv)
    by_u, by_v = surface_gradients(uv)
    relief = bumps(torch.rand(64, 64, 2, dtype=torch.float64))
    mirrored = torch.stack([1 - uv[:, 0], uv[:, 1]], -1)

    one = displacement_normals(normals, relief, uv, by_u, by_v)
    other = displacement_normals(normals, relief.flip(1), mirrored, -by_u, by_v)

    torch.testing.assert_close(one, other)


def test_zero_displacement_or_degenerate_uv_keeps_the_normals():
    normals, uv, by = sphere(20), torch.rand(20, 2).double(), sphere(20, 1)

    flat = displacement_normals(normals, torch.full((8, 8), 0.01).double(), uv, by, sphere(20, 2))
    off = displacement_normals(
        normals, torch.rand(8, 8).double(), uv, torch.zeros_like(by), torch.zeros_like(by)
    )

    torch.testing.assert_close(flat, normals)
    torch.testing.assert_close(off, normals)


def test_displacement_normals_are_differentiable():
    uv = 0.15 + 0.7 * torch.rand(6, 2, dtype=torch.float64)
    normals = curved(uv)[1].requires_grad_()
    by_u, by_v = (value.requires_grad_() for value in surface_gradients(uv))
    relief = (1e-3 * torch.rand(8, 8, dtype=torch.float64)).requires_grad_()

    assert torch.autograd.gradcheck(
        displacement_normals, (normals, relief, uv, by_u, by_v), eps=1e-7, atol=1e-4
    )


def test_the_slope_of_a_ramp():
    texels = (torch.arange(10) + 0.5) / 10
    v, u = torch.meshgrid(1 - texels, texels, indexing="ij")

    slope = displacement_slope(torch.stack([0.3 * u - 0.2 * v, 0.1 * v]))

    torch.testing.assert_close(
        slope, torch.tensor([[0.3, -0.2], [0.0, 0.1]])[:, None, None].expand(2, 10, 10, 2)
    )


def test_uv_gradients_carry_uv_differences_to_edges():
    generator = torch.Generator().manual_seed(0)
    points, uv = torch.rand(2, 9, 3, generator=generator), torch.rand(12, 2, generator=generator)
    faces, uv_faces = torch.tensor([[0, 1, 2], [3, 4, 5]]), torch.tensor([[3, 7, 2], [1, 1, 4]])

    by_u, by_v = uv_gradients(points, faces, uv, uv_faces)

    for corner in (1, 2):
        step = uv[uv_faces[0, corner]] - uv[uv_faces[0, 0]]
        edge = points[:, faces[0, corner]] - points[:, faces[0, 0]]
        torch.testing.assert_close(step[0] * by_u[:, 0] + step[1] * by_v[:, 0], edge, atol=1e-5, rtol=1e-4)
    assert by_u[:, 1].eq(0).all() and by_v[:, 1].eq(0).all()


@pytest.mark.parametrize("mirrored", [1.0, -1.0])
def test_normal_maps_turn_normals_along_u_and_v(mirrored):
    normal = torch.tensor([0.0, 0.0, 1.0])
    by_u, by_v = torch.tensor([0.2, 0.0, 0.0]) * mirrored, torch.tensor([0.05, 0.3, 0.0])
    mapped = torch.tensor([[0.0, 0.0, 1.0], [0.6, 0.0, 0.8], [0.0, -0.6, 0.8]])

    found = perturb_normals(normal.expand(3, 3), mapped, by_u.expand(3, 3), by_v.expand(3, 3))

    expected = torch.tensor([[0.0, 0.0, 1.0], [0.6 * mirrored, 0.0, 0.8], [0.0, -0.6, 0.8]])
    torch.testing.assert_close(found, expected)
    away = torch.zeros(3, 3)
    torch.testing.assert_close(perturb_normals(normal.expand(3, 3), mapped, away, away), normal.expand(3, 3))
