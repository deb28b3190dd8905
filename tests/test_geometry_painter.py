"""Triangles drawn by the painter's algorithm, against the exact rasteriser and by hand."""

import numpy as np
import pytest
import torch

from avface.geometry import painter
from avface.geometry.rasteriser import rasterise

HEIGHT, WIDTH = 60, 80


def drawn(pixels, depth, faces, colours):
    """Colours (H, W, 3) uint8, and where there are any (H, W)."""
    layer = painter.Layer(np.asarray(colours)[faces] + 0.5, painter.RGB)
    (packed,) = painter.paint(pixels, depth, faces, [layer], HEIGHT, WIDTH)
    return painter.unpacked_rgb(packed), packed != 0


@pytest.fixture
def sheet():
    """A wavy sheet of small triangles, partly out of the picture, with a colour at each vertex."""
    rng = np.random.default_rng(3)
    columns, rows = np.meshgrid(np.linspace(-9, 95, 27), np.linspace(-7, 70, 19))
    pixels = np.stack([columns, rows], -1).reshape(-1, 2) + rng.normal(0, 0.7, (27 * 19, 2))
    depth = 1 + 0.05 * np.sin(pixels[:, 0] / 9)
    corner = np.arange(18 * 27).reshape(18, 27)[:, :-1].ravel()
    faces = np.concatenate(
        [
            np.stack(three, 1)
            for three in ((corner, corner + 1, corner + 27), (corner + 1, corner + 28, corner + 27))
        ]
    )
    return pixels, depth, faces, rng.uniform(5, 250, (27 * 19, 3))


def test_a_sheet_has_the_colours_of_the_exact_rasteriser_and_no_gap(sheet):
    pixels, depth, faces, colours = sheet
    image, seen = drawn(pixels, depth, faces, colours)
    exact = rasterise(torch.tensor(pixels), torch.tensor(depth), torch.tensor(faces), HEIGHT, WIDTH)
    expected = exact.interpolate(torch.tensor(colours), torch.tensor(faces)).numpy()
    assert seen.all()
    difference = np.abs(image - expected)
    assert np.median(difference) < 0.5
    assert np.percentile(difference, 99.9) < 2


def test_coverage_is_that_of_the_exact_rasteriser():
    rng = np.random.default_rng(5)
    for _ in range(40):
        pixels = rng.uniform(-20, 100, (3, 2)).round(rng.integers(0, 3))
        _, seen = drawn(pixels, np.ones(3), np.array([[0, 1, 2]]), np.full((3, 3), 100.0))
        exact = rasterise(
            torch.tensor(pixels), torch.ones(3).double(), torch.tensor([[0, 1, 2]]), HEIGHT, WIDTH
        )
        assert (seen != (exact.triangle >= 0).numpy()).sum() <= 1, (
            "a middle on an edge may be rounded either way"
        )


def test_the_nearer_triangle_covers_the_farther_one_whatever_their_order():
    pixels = np.tile(np.array([[10.0, 10], [70, 12], [30, 50]]), (2, 1))
    depth, colours = np.array([2.0, 2, 2, 1, 1, 1]), np.repeat([[200.0, 10, 10], [10, 200, 10]], 3, 0)
    for faces in ([[0, 1, 2], [3, 4, 5]], [[3, 4, 5], [0, 1, 2]]):
        image, seen = drawn(pixels, depth, np.array(faces), colours)
        assert (np.abs(image[seen].astype(int) - [10, 200, 10]) <= 1).all() and seen.sum() > 500


def test_triangles_behind_the_camera_out_of_the_picture_or_without_area_are_not_drawn():
    for pixels, depth in (
        ([[10, 10], [70, 12], [30, 50]], [1, -1, 1]),
        ([[10, 10], [70, 12], [30, 50]], [1, 0, 1]),
        ([[110, 10], [170, 12], [130, 50]], [1, 1, 1]),
        ([[10, -50], [70, -42], [30, -1]], [1, 1, 1]),
        ([[10, 10], [20, 20], [30, 30]], [1, 1, 1]),
        ([[10, 10], [np.nan, 20], [30, 30]], [1, 1, 1]),
        ([[10, 10], [np.inf, 20], [30, 30]], [1, 1, 1]),
    ):
        _, seen = drawn(
            np.array(pixels, float), np.array(depth, float), np.array([[0, 1, 2]]), np.full((3, 3), 9.0)
        )
        assert not seen.any()
    _, seen = drawn(np.zeros((0, 2)), np.zeros(0), np.zeros((0, 3), int), np.zeros((0, 3)))
    assert not seen.any()


def test_places_in_a_texture_are_precise_to_a_hundredth_of_a_texel(sheet):
    pixels, depth, faces, _ = sheet
    places = np.stack([3 * pixels[:, 0] + pixels[:, 1] + 900, 8192 - 2 * pixels[:, 1]], 1)
    (packed,) = painter.paint(pixels, depth, faces, [painter.Layer(places[faces], painter.UV)], HEIGHT, WIDTH)
    u, v = painter.unpacked_uv(packed)
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    assert np.abs(u - (3 * column + row + 900)).max() < 0.01
    assert np.abs(v - (8192 - 2 * row)).max() < 0.01
