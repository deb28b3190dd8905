import numpy as np
import pytest
import torch

from avface.geometry.camera import Camera
from avface.geometry.mesh import vertex_normals
from avface.geometry.rasteriser import rasterise
from avface.geometry.shading import sample_texture
from avface.geometry.uv import UVAtlas, facing_cosine


def sheet(columns=6, rows=5):
    """A grid over the unit uv square less a rim: uv (N, 2) with v up, faces (F, 3)."""
    v, u = torch.meshgrid(
        torch.linspace(0.95, 0.05, rows + 1), torch.linspace(0.05, 0.95, columns + 1), indexing="ij"
    )
    corner = torch.arange(rows)[:, None] * (columns + 1) + torch.arange(columns)
    a, b, c, d = corner, corner + 1, corner + columns + 1, corner + columns + 2
    faces = torch.cat([torch.stack([a, c, b], -1).view(-1, 3), torch.stack([b, c, d], -1).view(-1, 3)])
    return torch.stack([u, v], -1).view(-1, 2), faces


def bent(uv):
    """Points (N, 3) in camera axes, metres: an arched sheet 0.2 m wide, a little askew, 0.5 m away."""
    x, y = 0.22 * (uv[:, 0] - 0.5), -0.22 * (uv[:, 1] - 0.5)
    return torch.stack([x, y, 0.5 + 3 * x**2 + 0.2 * x + 0.1 * y], -1)


def screen():
    """The bent sheet, and in front of it a smaller flat one; both have their own half of the uv square."""
    uv, faces = sheet()
    back, front = (
        bent(uv),
        torch.cat([0.08 * (uv - 0.5) * torch.tensor([1, -1]), torch.full((len(uv), 1), 0.4)], 1),
    )
    points = torch.cat([back, front])
    uv = torch.cat([uv * torch.tensor([0.5, 1]), uv * torch.tensor([0.5, 1]) + torch.tensor([0.5, 0])])
    return points, torch.cat([faces, faces + len(back)]), uv


def smooth_texture(resolution):
    texels = (torch.arange(resolution) + 0.5) / resolution
    v, u = torch.meshgrid(1 - texels, texels, indexing="ij")
    waves = torch.stack([(5 * u + 2 * v).sin(), (4 * v).cos(), u * v], -1)
    return 0.5 + 0.4 * waves


def test_texels_are_mapped_to_their_surface_points():
    uv, faces = sheet()
    atlas = UVAtlas.of(faces, uv, faces, 40)

    places = atlas.bake(uv)

    texels = (torch.arange(40) + 0.5) / 40
    v, u = torch.meshgrid(1 - texels, texels, indexing="ij")
    inside = (u > 0.05) & (u < 0.95) & (v > 0.05) & (v < 0.95)
    assert torch.equal(atlas.mask, inside) and atlas.resolution == 40
    torch.testing.assert_close(places[inside], torch.stack([u, v], -1)[inside])
    assert places[~inside].eq(0).all()


def test_uv_corners_and_vertices_may_be_numbered_differently():
    # one vertex, two places in the uv square: a cylinder's seam
    faces, uv_faces = torch.tensor([[0, 1, 2], [2, 1, 0]]), torch.tensor([[0, 1, 2], [3, 4, 5]])
    uv = torch.tensor([[0.0, 0.0], [0.4, 0.0], [0.0, 0.8], [1.0, 0.8], [0.6, 0.8], [1.0, 0.0]])
    colours = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])

    baked = UVAtlas.of(faces, uv, uv_faces, 64).bake(colours)

    assert baked[-1, 0].argmax() == 0 and baked[63, 24].argmax() == 1 and baked[14, 0].argmax() == 2
    assert baked[13, -1].argmax() == 2 and baked[62, -1].argmax() == 0


def test_baking_takes_batches():
    uv, faces = sheet()
    atlas = UVAtlas.of(faces, uv, faces, 24)
    attributes = torch.rand(2, 3, len(uv), 4)

    baked = atlas.bake(attributes)

    assert baked.shape == (2, 3, 24, 24, 4)
    torch.testing.assert_close(baked[1, 2], atlas.bake(attributes[1, 2]))


def test_texels_off_the_mesh_get_the_nearest_colour():
    uv, faces = sheet()
    atlas = UVAtlas.of(faces, uv, faces, 40)
    texture = torch.rand(2, 40, 40, 3)

    full = atlas.extend(texture)

    assert torch.equal(full[:, atlas.mask], texture[:, atlas.mask])
    assert torch.equal(full[:, 0, 20], texture[:, 2, 20]) and torch.equal(full[:, 20, 39], texture[:, 20, 37])


def hidden(points, faces, targets):
    """Which targets (N, 3) a triangle hides from the origin, in double precision: every ray against every triangle."""
    corners = points.double().numpy()[faces.numpy()]
    a, one, other = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    rays = targets.double().numpy()
    across = np.cross(rays[:, None], other[None])
    determinant = (across * one).sum(-1)
    first = -(across * a).sum(-1) / determinant
    lifted = np.cross(-a, one)
    second = (rays[:, None] * lifted).sum(-1) / determinant
    distance = (other * lifted).sum(-1) / determinant
    return ((first >= 0) & (second >= 0) & (first + second <= 1) & (distance > 0) & (distance < 0.99)).any(1)


@pytest.mark.parametrize("focal_length", [130.0, 260.0])
def test_a_painted_texture_comes_back_from_a_picture_where_it_is_visible(focal_length):
    points, faces, uv = screen()
    camera = Camera.centred(focal_length, 100, 90)
    pixels, depth = camera.project(points), points[:, 2]
    atlas = UVAtlas.of(faces, uv, faces, 64)
    texture = smooth_texture(64)
    seen = rasterise(pixels, depth, faces, 90, 100)
    image = sample_texture(texture, seen.interpolate(uv, faces)) * (seen.triangle >= 0)[..., None]

    found, visibility = atlas.unwrap(
        image, pixels, depth, facing_cosine(points, vertex_normals(points, faces))
    )

    visible = visibility > 0
    assert float((found - texture)[visible].abs().max()) < 0.01
    assert found[~visible].eq(0).all()
    places = atlas.bake(points)
    on_mesh = atlas.mask.flatten().nonzero()[:, 0]
    targets = places.flatten(0, 1)[on_mesh]
    covered = torch.as_tensor(hidden(points, faces, targets))
    x, y = camera.project(targets).unbind(-1)
    outside = (x < 0) | (y < 0) | (x > 99) | (y > 89)
    truth = torch.zeros(64 * 64, dtype=torch.bool)
    truth[on_mesh] = ~covered & ~outside
    truth = truth.view(64, 64)
    assert 0.2 < truth[atlas.mask].float().mean() < 0.95
    assert not (visible & ~truth).any()
    # what is lost lies within a pixel of a silhouette
    texels_a_pixel = 64 / 2 / (0.22 * focal_length / 0.5)
    lost = (truth & ~visible).float().mean()
    assert lost < 0.05 + 0.12 * texels_a_pixel


def test_unwrapping_takes_batches_and_is_differentiable_in_the_picture():
    points, faces, uv = screen()
    camera = Camera.centred(60.0, 40, 36)
    shifted = torch.stack([points, points + torch.tensor([0.01, 0.0, 0.05])])
    pixels, depth = camera.project(shifted), shifted[..., 2]
    atlas = UVAtlas.of(faces, uv, faces, 16)
    facing = facing_cosine(shifted, torch.tensor([0.0, 0.0, -1.0]))
    image = torch.rand(2, 36, 40, 3, requires_grad=True)

    texture, visibility = atlas.unwrap(image, pixels, depth, facing)
    texture.sum().backward()

    alone = atlas.unwrap(image[1], pixels[1], depth[1], facing[1])
    torch.testing.assert_close(texture[1], alone[0])
    torch.testing.assert_close(visibility[1], alone[1])
    # every visible texel spreads a weight of 1 for each channel over the picture
    assert float(image.grad.sum()) == pytest.approx(3 * float((visibility > 0).sum()), rel=1e-4)


def test_a_surface_that_faces_away_is_invisible():
    uv, faces = sheet()
    points = bent(uv)
    camera = Camera.centred(130.0, 100, 90)
    atlas = UVAtlas.of(faces, uv, faces, 32)

    away = facing_cosine(points, torch.tensor([0.0, 0.0, 1.0]))
    texture, visibility = atlas.unwrap(torch.ones(90, 100, 1), camera.project(points), points[:, 2], away)

    assert visibility.eq(0).all() and texture.eq(0).all()


def test_visibility_is_the_cosine_of_the_angle_of_view():
    points = torch.tensor([[-0.1, -0.1, 1.0], [0.1, -0.1, 1.0], [-0.1, 0.1, 1.0], [0.1, 0.1, 1.0]])
    points[:, 2] += 0.5 * points[:, 0]
    faces = torch.tensor([[0, 2, 1], [1, 2, 3]])
    uv = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    normal = torch.nn.functional.normalize(torch.tensor([0.5, 0.0, -1.0]), dim=0)
    camera = Camera.centred(300.0, 100, 100)

    _, visibility = UVAtlas.of(faces, uv, faces, 33).unwrap(
        torch.ones(100, 100, 1), camera.project(points), points[:, 2], facing_cosine(points, normal)
    )

    assert float(visibility[16, 16]) == pytest.approx(1 / 1.25**0.5, abs=0.01)


def test_displacing_moves_every_texel_along_its_normal():
    uv, faces = sheet(20, 20)
    points = bent(uv).double().requires_grad_()
    normals = torch.nn.functional.normalize(
        torch.rand(len(uv), 3, dtype=torch.float64), dim=-1
    ).requires_grad_()
    atlas = UVAtlas.of(faces, uv, faces, 12)
    relief = (1e-3 * torch.rand(12, 12, dtype=torch.float64)).requires_grad_()

    moved = atlas.displace(points, normals, relief)

    step = moved - atlas.bake(points)
    along = torch.nn.functional.normalize(atlas.bake(normals), dim=-1)
    torch.testing.assert_close(step, relief[..., None] * along * atlas.mask[..., None])
    assert moved[~atlas.mask].eq(0).all()
    assert torch.autograd.gradcheck(lambda d: atlas.displace(points.detach(), normals.detach(), d), (relief,))


def test_an_atlas_without_texels_is_refused():
    with pytest.raises(ValueError, match=r"^resolution=0 must be 1 texel or more$"):
        UVAtlas.of(torch.tensor([[0, 1, 2]]), torch.eye(3)[:, :2], torch.tensor([[0, 1, 2]]), 0)
