import itertools

import numpy as np
import pytest
import torch

from avface.geometry.rasteriser import rasterise

NOTHING = -1


def brute_force(pixels, depth, faces, height, width):
    """Every triangle tried at every pixel, in double precision: triangle, barycentric, depth."""
    pixels, depth = pixels.double().numpy(), depth.double().numpy()
    y, x = np.mgrid[:height, :width].astype(float)
    triangle = np.full((height, width), NOTHING)
    barycentric, nearest = np.zeros((height, width, 3)), np.full((height, width), np.inf)
    for number, face in enumerate(faces.tolist()):
        (ax, ay), (bx, by), (cx, cy) = pixels[face]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0 or (depth[face] <= 0).any():
            continue
        weights = np.stack(
            [
                (bx - x) * (cy - y) - (by - y) * (cx - x),
                (cx - x) * (ay - y) - (cy - y) * (ax - x),
                (ax - x) * (by - y) - (ay - y) * (bx - x),
            ],
            -1,
        )
        weights = weights / area / depth[face]
        with np.errstate(divide="ignore", invalid="ignore"):
            z = 1 / weights.sum(-1)
        wins = (weights >= 0).all(-1) & (z < nearest)
        triangle[wins], nearest[wins] = number, z[wins]
        barycentric[wins] = weights[wins] * z[wins, None]
    return triangle, barycentric, nearest


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


@pytest.mark.parametrize("seed", range(6))
def test_every_pixel_shows_what_trying_every_triangle_gives(seed):
    pixels, depth, faces = soup(seed)

    seen = rasterise(pixels, depth, faces, 36, 44)
    triangle, barycentric, nearest = brute_force(pixels, depth, faces, 36, 44)

    assert (triangle >= 0).mean() > 0.3, "the scene is too empty to tell anything"
    np.testing.assert_array_equal(seen.triangle, triangle)
    np.testing.assert_allclose(seen.barycentric, barycentric, atol=1e-5)
    np.testing.assert_allclose(seen.depth, nearest, rtol=1e-5)


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
def test_no_pixel_falls_between_triangles_that_share_an_edge(seed, dtype, scale):
    # scale 1 and 2 put the rim's vertices exactly on the middles of pixels, and others on their rows
    points, faces = grid_mesh(12, 9, seed)
    points = points.to(dtype) * scale
    height, width = int(9 * scale) + 1, int(12 * scale) + 1

    seen = rasterise(points, torch.ones(len(points), dtype=dtype), faces, height, width)

    assert (seen.triangle >= 0).all()


def test_a_fan_around_a_pixel_middle_leaves_no_hole_in_it():
    angle = torch.arange(11) * (2 * torch.pi / 11) + 0.1
    rim = torch.stack([angle.cos(), angle.sin()], -1) * 3.3 + 4.0
    points = torch.cat([torch.tensor([[4.0, 4.0]]), rim]).double()
    spokes = torch.arange(11)
    faces = torch.stack([torch.zeros(11, dtype=torch.long), 1 + spokes, 1 + (spokes + 1) % 11], 1)

    seen = rasterise(points, torch.ones(12, dtype=torch.float64), faces, 9, 9).triangle

    assert (seen[2:7, 2:7] >= 0).all()


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


def test_nothing_to_draw_gives_an_empty_picture():
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


def test_gradients_to_vertices_depth_and_attributes_are_the_numerical_ones():
    pixels, depth, faces = soup(6, count=12, size=8)
    pixels, depth = pixels.double().requires_grad_(), depth.double().requires_grad_()
    attributes = torch.rand(len(depth), 2, dtype=torch.float64, requires_grad=True)
    drawn = rasterise(pixels, depth, faces, 8, 8).triangle
    assert (drawn >= 0).sum() > 10

    def picture(pixels, depth, attributes):
        seen = rasterise(pixels, depth, faces, 8, 8)
        assert torch.equal(seen.triangle, drawn), "the step is so large that pixels change hands"
        return seen.interpolate(attributes, faces), seen.depth[drawn >= 0], seen.barycentric

    assert torch.autograd.gradcheck(picture, (pixels, depth, attributes), eps=1e-7, atol=1e-5)
