import numpy as np
import pytest

from avface.head.open.deformation import SmoothFields, cotangent_laplacian


@pytest.fixture
def sheet():
    """A flat square of 60 mm, 1.5 mm between vertices: vertices and triangles."""
    n = 41
    line = np.linspace(-0.03, 0.03, n)
    x, y = np.meshgrid(line, line)
    vertices = np.stack([x.ravel(), y.ravel(), np.zeros(n * n)], 1)
    first = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    quads = np.stack([first, first + 1, first + n + 1, first + n], 1)
    return vertices, quads[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3)


def _middle(vertices):
    return int(np.linalg.norm(vertices, axis=1).argmin())


def test_a_field_takes_its_handles_and_is_0_where_held(sheet):
    vertices, triangles = sheet
    held = np.abs(vertices[:, :2]).max(1) > 0.025
    handle = _middle(vertices)
    target = np.array([[0.001, -0.002, 0.003]])

    field = SmoothFields(vertices, triangles, 0.02).solve(np.array([[handle]]), np.ones((1, 1)), target, held)

    assert np.all(field[held] == 0)
    np.testing.assert_allclose(field[handle], target[0], rtol=0.1)
    size = np.linalg.norm(field, axis=1)
    assert size.argmax() == handle
    np.testing.assert_allclose(field, size[:, None] / size[handle] * field[handle], atol=1e-12)


def test_a_field_has_no_peak_at_its_handle(sheet):
    vertices, triangles = sheet
    handle = _middle(vertices)
    held = np.abs(vertices[:, :2]).max(1) > 0.025

    field = SmoothFields(vertices, triangles, 0.02).solve(
        np.array([[handle]]), np.ones((1, 1)), np.array([[0, 0, 0.004]]), held
    )

    distance = np.linalg.norm(vertices - vertices[handle], axis=1)
    beside = field[(distance > 0) & (distance < 0.0016), 2]  # the next vertices, 1.5 mm away
    assert beside.min() > 0.93 * field[handle, 2]


def test_a_longer_reach_spreads_farther(sheet):
    vertices, triangles = sheet
    held = np.abs(vertices[:, :2]).max(1) > 0.029
    handle = _middle(vertices)
    away = int(np.linalg.norm(vertices - [0.012, 0, 0], axis=1).argmin())

    def share(reach):
        field = SmoothFields(vertices, triangles, reach).solve(
            np.array([[handle]]), np.ones((1, 1)), np.array([[0, 0, 0.004]]), held
        )
        return field[away, 2] / field[handle, 2]

    assert share(0.03) > 1.1 * share(0.005)


def test_the_laplacian_of_a_linear_function_is_0_inside(sheet):
    vertices, triangles = sheet
    laplacian, area = cotangent_laplacian(vertices * 1000, triangles)

    inside = np.abs(vertices[:, :2]).max(1) < 0.029
    # the floor under cotangents bends it by a little
    assert np.abs(laplacian @ (2 * vertices[:, 0] + vertices[:, 1]))[inside].max() < 1e-9
    assert area.sum() == pytest.approx(3600)
