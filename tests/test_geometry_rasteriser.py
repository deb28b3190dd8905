import importlib.util
import itertools

import numpy as np
import pytest
import torch

from avface.errors import AvfaceError
from avface.geometry.rasteriser import rasterise

NOTHING = -1


def brute_force(pixels, depth, faces, height, width):
    """Every triangle tried at every pixel, in double precision.

    Returns triangle, barycentric, depth, and where that is unsure: a triangle's edge runs through the pixel's middle,
    or two triangles are equally near, within what doubles tell apart.
    """
    corners = np.concatenate([pixels.double().numpy(), depth.double().numpy()[:, None]], 1)[faces.numpy()]
    y, x = np.mgrid[:height, :width].astype(float)
    x, y = (
        x[None, ..., None] - corners[:, None, None, :, 0],
        y[None, ..., None] - corners[:, None, None, :, 1],
    )
    weights = np.roll(x, -1, -1) * np.roll(y, -2, -1) - np.roll(y, -1, -1) * np.roll(x, -2, -1)
    a, b, c = corners[..., :2].transpose(1, 0, 2)
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    drawn = (area != 0) & (corners[..., 2] > 0).all(1)
    weights = weights / np.where(drawn, area, 1)[:, None, None, None]
    inside = drawn[:, None, None] & (weights >= 0).all(-1)
    over_depth = weights / np.where(drawn[:, None], corners[..., 2], 1)[:, None, None]
    near = np.where(inside, over_depth.sum(-1), 0)
    triangle, nearest = near.argmax(0), near.max(0)
    seen = nearest > 0
    barycentric = np.take_along_axis(over_depth, triangle[None, ..., None], 0)[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        barycentric, z = np.where(seen[..., None], barycentric / nearest[..., None], 0), 1 / nearest
    on_edge = drawn[:, None, None] & (np.abs(weights).min(-1) < 1e-9) & (weights > -1e-9).all(-1)
    rival = seen & (((nearest - near) < 1e-9 * nearest).sum(0) > 1)
    return np.where(seen, triangle, NOTHING), barycentric, z, on_edge.any(0) | rival


def assert_same_picture(seen, expected):
    """Fragments of one picture against `brute_force`, except where that is unsure."""
    triangle, barycentric, nearest, unsure = expected
    assert (triangle >= 0).sum() > 30, "the scene is too empty to tell anything"
    assert unsure.mean() < 0.2
    np.testing.assert_array_equal(seen.triangle.numpy()[~unsure], triangle[~unsure])
    np.testing.assert_allclose(seen.barycentric.numpy()[~unsure], barycentric[~unsure], atol=1e-5)
    np.testing.assert_allclose(seen.depth.numpy()[~unsure], nearest[~unsure], rtol=1e-5)


def soup(seed, count=60, size=40, near=0.5):
    """Unconnected triangles of all sizes, some partly or wholly outside the picture, through each other."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 1, 2, generator=generator) * (size + 20) - 10
    spread = torch.rand(count, 1, 1, generator=generator) ** 2 * 25
    pixels = (centre + spread * torch.randn(count, 3, 2, generator=generator)).flatten(0, 1)
    depth = near + torch.rand(3 * count, generator=generator)
    return pixels, depth, torch.arange(3 * count).view(count, 3)


def grid_mesh(columns, rows, seed=0):
    """A sheet of triangles over [0, columns] x [0, rows], inner vertices shaken; no triangle turned over."""
    y, x = torch.meshgrid(torch.arange(rows + 1.0), torch.arange(columns + 1.0), indexing="ij")
    points = torch.stack([x, y], -1)
    shake = 0.6 * torch.rand(rows - 1, columns - 1, 2, generator=torch.Generator().manual_seed(seed)) - 0.3
    points[1:-1, 1:-1] += shake
    corner = torch.arange(rows)[:, None] * (columns + 1) + torch.arange(columns)
    a, b, c, d = corner, corner + 1, corner + columns + 1, corner + columns + 2
    faces = torch.cat([torch.stack([a, c, b], -1).view(-1, 3), torch.stack([b, c, d], -1).view(-1, 3)])
    return points.view(-1, 2), faces


def slivers(seed, count=200, size=40):
    """Triangles a thousandth of a pixel to a pixel thin, up to the whole picture long."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(count, 3, 2, generator=generator) * (size + 20) - 10
    share = torch.rand(count, 1, generator=generator)
    thickness = 10 ** (-3 * torch.rand(count, 1, generator=generator))
    pixels[:, 2] = share * pixels[:, 0] + (1 - share) * pixels[:, 1]
    pixels[:, 2] += thickness * torch.randn(count, 2, generator=generator)
    depth = 0.2 + 3 * torch.rand(3 * count, generator=generator) ** 3
    return pixels.flatten(0, 1), depth, torch.arange(3 * count).view(count, 3)


def crumbs(seed, count=600, size=40):
    """Triangles smaller than a pixel, most of which show nowhere."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 1, 2, generator=generator) * (size + 4) - 2
    pixels = centre + 0.5 * torch.randn(count, 3, 2, generator=generator)
    return (
        pixels.flatten(0, 1),
        1 + torch.rand(3 * count, generator=generator),
        torch.arange(3 * count).view(-1, 3),
    )


def walls(seed):
    """Triangles up to a hundred times larger than the picture, at grazing angles."""
    generator = torch.Generator().manual_seed(seed)
    through = torch.rand(30, 1, 2, generator=generator) * 40
    away = torch.randn(30, 3, 2, generator=generator)
    pixels = through + (away - away.mean(1, keepdim=True)) * 4000 ** torch.rand(30, 1, 1, generator=generator)
    return (
        pixels.flatten(0, 1),
        10 ** (4 * torch.rand(90, generator=generator) - 2),
        torch.arange(90).view(30, 3),
    )


def tangle(seed, vertices=60, count=80):
    """Triangles that share vertices and edges in all ways."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(vertices, 2, generator=generator) * 50 - 5
    faces = torch.randint(0, vertices, (count, 3), generator=generator)
    return pixels, 0.5 + torch.rand(vertices, generator=generator), faces


def sheet(seed):
    """A closed sheet of small triangles with hills."""
    points, faces = grid_mesh(12, 9, seed)
    depth = 1 + 0.3 * torch.rand(len(points), generator=torch.Generator().manual_seed(seed))
    return 3.7 * points - 2.1, depth, faces


@pytest.mark.parametrize("scene", [soup, slivers, crumbs, walls, tangle, sheet])
@pytest.mark.parametrize("seed", range(6))
def test_every_pixel_shows_what_trying_every_triangle_gives(scene, seed):
    pixels, depth, faces = scene(seed)

    assert_same_picture(rasterise(pixels, depth, faces, 36, 44), brute_force(pixels, depth, faces, 36, 44))


@pytest.mark.parametrize("draw", ["one by one", "at once"])
def test_a_batch_shows_what_its_pictures_show_alone(draw, monkeypatch):
    # a CPU draws the pictures one by one, CUDA all at once: both ways through the same functions
    faces = soup(0)[2]
    pixels = torch.stack([soup(seed)[0] for seed in range(6)]).view(2, 3, -1, 2)
    depth = torch.stack([soup(seed)[1] for seed in range(6)]).view(2, 3, -1)
    attributes = torch.rand(2, 3, depth.shape[-1], 4)
    if draw == "at once":
        monkeypatch.setattr("avface.geometry.rasteriser._one_by_one", lambda device: False)

    batch = rasterise(pixels, depth, faces, 36, 44)
    values, shared = batch.interpolate(attributes, faces), batch.interpolate(attributes[0, 0], faces)

    assert batch.triangle.shape == batch.depth.shape == (2, 3, 36, 44)
    assert batch.barycentric.shape == (2, 3, 36, 44, 3) and values.shape == (2, 3, 36, 44, 4)
    for i in range(2):
        for j in range(3):
            alone = rasterise(pixels[i, j], depth[i, j], faces, 36, 44)
            assert torch.equal(batch.triangle[i, j], alone.triangle)
            torch.testing.assert_close(batch.barycentric[i, j], alone.barycentric, atol=1e-7, rtol=0)
            torch.testing.assert_close(batch.depth[i, j], alone.depth, atol=1e-7, rtol=1e-6)
            torch.testing.assert_close(values[i, j], alone.interpolate(attributes[i, j], faces))
            torch.testing.assert_close(shared[i, j], alone.interpolate(attributes[0, 0], faces))


@pytest.mark.parametrize("lead", [(0,), (2, 0), (1,), (1, 1)])
def test_a_batch_may_be_empty_or_of_one(lead):
    pixels = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]]).expand(*lead, 3, 2)
    faces = torch.tensor([[0, 1, 2]])

    seen = rasterise(pixels, torch.ones(*lead, 3), faces, 4, 5)

    assert seen.triangle.shape == (*lead, 4, 5) and (seen.triangle == 0).all()
    assert seen.interpolate(torch.ones(3, 2), faces).shape == (*lead, 4, 5, 2)


def test_vertices_without_a_place_take_only_their_own_triangles_with_them():
    pixels, depth, faces = soup(3)
    broken = torch.tensor([[torch.nan, 3.0], [torch.inf, 5.0], [4.0, -torch.inf]]).repeat_interleave(3, 0)
    deep = torch.tensor([1.0, 1.0, 1.0, 1.0, torch.nan, 1.0]).repeat(2)[:9]
    count = len(depth)
    more = torch.tensor([[0, 1, count + k] for k in range(9)])

    seen = rasterise(torch.cat([pixels, broken]), torch.cat([depth, deep]), torch.cat([faces, more]), 36, 44)

    assert torch.equal(seen.triangle, rasterise(pixels, depth, faces, 36, 44).triangle)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"pixels \(3, 2\), depth \(1, 3\) and faces \(1, 3\)"):
        rasterise(torch.zeros(3, 2), torch.ones(1, 3), torch.tensor([[0, 1, 2]]), 4, 4)


@pytest.mark.skipif(importlib.util.find_spec("nvdiffrast") is not None, reason="it is installed here")
def test_a_missing_nvdiffrast_is_refused():
    with pytest.raises(AvfaceError, match=r"nvdiffrast: .* isn't installed"):
        rasterise(torch.zeros(3, 2), torch.ones(3), torch.tensor([[0, 1, 2]]), 4, 4, backend="nvdiffrast")


def test_a_triangle_covers_the_pixels_whose_middles_it_contains():
    pixels = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]])

    seen = rasterise(pixels, torch.ones(3), torch.tensor([[0, 1, 2]]), 4, 5).triangle

    expected = [[0, 0, 0, 0, -1], [0, 0, 0, -1, -1], [0, 0, -1, -1, -1], [0, -1, -1, -1, -1]]
    assert seen.tolist() == expected


def test_a_flat_bottom_on_a_row_of_pixels_is_covered_as_a_flat_top_is():
    pixels = torch.tensor([[2.0, 0.0], [0.0, 2.0], [4.0, 2.0], [2.0, 4.0]])

    upper = rasterise(pixels, torch.ones(4), torch.tensor([[0, 1, 2]]), 5, 5).triangle
    lower = rasterise(pixels, torch.ones(4), torch.tensor([[3, 1, 2]]), 5, 5).triangle

    assert upper[2].tolist() == lower[2].tolist() == [0] * 5


def test_both_sides_and_all_orders_of_corners_look_the_same():
    pixels, depth = torch.tensor([[1.2, 0.7], [8.9, 3.1], [2.2, 9.4]]), torch.tensor([0.5, 1.0, 2.0])
    one = rasterise(pixels, depth, torch.tensor([[0, 1, 2]]), 10, 10)

    assert int((one.triangle == 0).sum()) > 20
    for order in itertools.permutations(range(3)):
        other = rasterise(pixels, depth, torch.tensor([order]), 10, 10)
        assert torch.equal(other.triangle, one.triangle)
        torch.testing.assert_close(other.depth, one.depth)
        torch.testing.assert_close(other.barycentric, one.barycentric[..., list(order)])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 2.0, 0.37, 7.3])
def test_triangles_that_share_an_edge_leave_no_gap(seed, dtype, scale):
    # scale 1 and 2 put the rim's vertices exactly on the middles of pixels, and others on their rows
    points, faces = grid_mesh(12, 9, seed)
    points = points.to(dtype) * scale
    height, width = int(9 * scale) + 1, int(12 * scale) + 1

    seen = rasterise(points, torch.ones(len(points), dtype=dtype), faces, height, width)

    assert (seen.triangle >= 0).all()


@pytest.mark.parametrize("spokes", [3, 4, 11])
def test_a_fan_around_a_pixel_middle_leaves_no_hole_in_it(spokes):
    # the hardest place: a vertex exactly on the middle of a pixel, which each triangle only just reaches
    generator = torch.Generator().manual_seed(spokes)
    number = torch.arange(spokes)
    faces = torch.stack([torch.zeros_like(number), 1 + number, 1 + (number + 1) % spokes], 1)
    turn = 2 * torch.pi * torch.rand(400, 1, generator=generator, dtype=torch.float64)
    angle = turn + (number + 0.3 * torch.rand(400, spokes, generator=generator)) * (2 * torch.pi / spokes)
    radius = 2 + 30 * torch.rand(400, spokes, 1, generator=generator, dtype=torch.float64)
    rim = radius * torch.stack([angle.cos(), angle.sin()], -1)
    points = torch.cat([torch.zeros(400, 1, 2), rim], 1) + 4

    seen = rasterise(points, torch.ones(400, spokes + 1, dtype=torch.float64), faces, 9, 9).triangle

    assert (seen[:, 4, 4] >= 0).all()


def test_of_equally_near_triangles_the_lower_number_wins():
    pixels = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    faces = torch.tensor([[2, 1, 0], [0, 1, 2], [1, 2, 0]])

    seen = rasterise(pixels, torch.tensor([1.0, 1.0, 1.0]), faces, 9, 9).triangle

    assert set(seen.unique().tolist()) == {-1, 0}


def test_the_picture_does_not_depend_on_the_order_of_the_triangles():
    pixels, depth, faces = soup(11)
    shuffled = torch.randperm(len(faces), generator=torch.Generator().manual_seed(0))

    one = rasterise(pixels, depth, faces, 40, 40)
    other = rasterise(pixels, depth, faces[shuffled], 40, 40)

    seen = other.triangle >= 0
    assert torch.equal(seen, one.triangle >= 0)
    assert torch.equal(shuffled[other.triangle[seen]], one.triangle[seen])
    assert torch.equal(other.depth, one.depth)


def test_triangles_behind_the_camera_or_without_area_or_outside_are_not_drawn():
    pixels = torch.tensor(
        [[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [4.5, 4.5], [-9.0, 0.0], [-1.0, 5.0], [50.0, 3.0]]
    )
    depth = torch.tensor([1.0, 1.0, 1.0, -1.0, 1.0, 1.0, 1.0])
    faces = torch.tensor([[0, 1, 3], [0, 1, 1], [4, 5, 0]])

    seen = rasterise(pixels, depth, faces, 8, 8)

    assert seen.triangle[1:].eq(-1).all()  # the last one touches only pixel (0, 0)
    assert seen.triangle[0].tolist() == [2] + [-1] * 7
    assert seen.depth[1:].isinf().all() and seen.barycentric[1:].eq(0).all()


def test_no_triangles_give_an_empty_picture():
    seen = rasterise(torch.zeros(3, 2), torch.ones(3), torch.zeros(0, 3, dtype=torch.long), 4, 5)

    assert seen.triangle.shape == (4, 5) and seen.triangle.eq(-1).all()
    assert seen.interpolate(torch.ones(3, 2), torch.zeros(0, 3, dtype=torch.long)).shape == (4, 5, 2)


def test_attributes_are_interpolated_in_space_not_in_the_picture():
    # a slanted line of length 1 from depth 1 to 3, seen as pixels 0 to 8: its middle (depth 2) is at pixel 6
    pixels = torch.tensor([[0.0, -1.0], [0.0, 9.0], [8.0, -1.0], [8.0, 9.0]])
    depth, along = torch.tensor([1.0, 1.0, 3.0, 3.0]), torch.tensor([[0.0], [0.0], [1.0], [1.0]])
    faces = torch.tensor([[0, 1, 2], [1, 3, 2]])

    seen = rasterise(pixels, depth, faces, 8, 9)
    value = seen.interpolate(along, faces)[4, :, 0]

    assert float(value[6]) == pytest.approx(0.5, abs=1e-5)
    assert float(seen.depth[4, 6]) == pytest.approx(2.0, abs=1e-5)


@pytest.mark.parametrize("lead", [(), (2,)])
def test_gradients_to_vertices_depth_and_attributes_are_the_numerical_ones(lead):
    pixels, depth, faces = soup(6, count=7, size=6)
    pixels = (pixels.double() + 0.01 * torch.rand(*lead, 1, 2)).requires_grad_()
    depth = depth.double().expand(*lead, -1).clone().requires_grad_()
    attributes = torch.rand(*depth.shape, 2, dtype=torch.float64, requires_grad=True)
    drawn = rasterise(pixels, depth, faces, 6, 6).triangle
    assert (drawn >= 0).sum() > 10

    def picture(pixels, depth, attributes):
        seen = rasterise(pixels, depth, faces, 6, 6)
        assert torch.equal(seen.triangle, drawn), "the step is so large that pixels change hands"
        return seen.interpolate(attributes, faces), seen.depth[drawn >= 0], seen.barycentric

    inputs = pixels, depth, attributes
    assert torch.autograd.gradcheck(picture, inputs, eps=1e-7, atol=1e-5, fast_mode=bool(lead))


def test_triangles_that_are_not_drawn_leave_gradients_finite():
    pixels = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [4.5, 4.5]], requires_grad=True)
    depth = torch.tensor([1.0, 1.0, 1.0, 0.0], requires_grad=True)
    faces = torch.tensor([[0, 1, 2], [0, 0, 1], [1, 2, 3]])  # without area, and at the camera

    seen = rasterise(pixels, depth, faces, 6, 6)
    (seen.depth[seen.triangle >= 0].sum() + (seen.barycentric**2).sum()).backward()

    assert pixels.grad.isfinite().all() and depth.grad.isfinite().all() and depth.grad[:3].abs().min() > 0
