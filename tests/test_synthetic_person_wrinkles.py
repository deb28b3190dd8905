"""Wrinkles: perpendicular to the compression, only where there is one, of a size in metres."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from avface.head import HeadModel, load_head
from avface.synthetic.person.feature_masks import face_map
from avface.synthetic.person.texture import TextureAtlas, build_atlas
from avface.synthetic.person.wrinkle_sites import wrinkle_sites
from avface.synthetic.person.wrinkles import THRESHOLD, StrainEstimator, Wrinkles, WrinkleSite

SIDE = 0.06
WAVELENGTH = 0.006


def patch(cells: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A flat square of skin of 60 mm: vertices (V, 3), faces (F, 3) and uv (V, 2)."""
    v, u = np.meshgrid(*[np.linspace(0, 1, cells + 1)] * 2, indexing="ij")
    uv = np.stack([u.ravel(), v.ravel()], 1)
    vertices = np.concatenate([SIDE * uv, np.zeros((len(uv), 1))], 1)
    at = np.arange((cells + 1) ** 2).reshape(cells + 1, cells + 1)
    a, b, c, d = (x.ravel() for x in (at[:-1, :-1], at[:-1, 1:], at[1:, 1:], at[1:, :-1]))
    return vertices, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]), uv


def patch_wrinkles(
    resolution: int = 128, axis: int = 0, seed: int = 0, full: float = 0.8
) -> tuple[Wrinkles, np.ndarray, TextureAtlas]:
    """Wrinkles of the patch, which its own expression presses to `full` of its length."""
    vertices, faces, uv = patch()
    atlas = build_atlas(faces, uv, faces, len(vertices), resolution)
    site = WrinkleSite("patch", np.ones(len(vertices)), squeezed(vertices, axis, full), WAVELENGTH, 4e-4)
    return Wrinkles(np.random.default_rng(seed), vertices, faces, atlas, [site]), vertices, atlas


def squeezed(vertices: np.ndarray, axis: int, factor: float) -> np.ndarray:
    scale = np.ones(3)
    scale[axis] = factor
    return vertices * scale


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_head()


def test_a_known_stretch_has_its_green_strain():
    vertices, faces, _ = patch(4)
    estimator = StrainEstimator(vertices, faces)

    tensors = estimator.tensors(squeezed(vertices, 0, 1.1))

    expected = np.zeros((3, 3))
    expected[0, 0] = (1.1**2 - 1) / 2
    np.testing.assert_allclose(tensors, np.broadcast_to(expected, tensors.shape), atol=1e-12)


def test_strain_is_invariant_to_rotation_and_translation():
    vertices, faces, _ = patch(4)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]

    tensors = StrainEstimator(vertices, faces).tensors(vertices @ turn.T + [0.1, 0.2, 0.3])

    np.testing.assert_allclose(tensors, 0, atol=1e-12)


def test_compression_along_a_direction_is_that_of_the_tensor():
    rng = np.random.default_rng(1)
    vertices, faces, _ = patch(5)
    vertices[:, 2] = 0.01 * np.sin(vertices[:, 0] / 0.02)
    moved = vertices + rng.normal(0, 3e-4, vertices.shape)
    estimator = StrainEstimator(vertices, faces)
    chosen = np.arange(3, 30)
    directions = rng.normal(size=(len(chosen), 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)

    matrix, offset = estimator.along(chosen, directions)

    expected = -np.einsum("ni,nij,nj->n", directions, estimator.tensors(moved)[chosen], directions)
    np.testing.assert_allclose(matrix @ estimator.metric(moved) + offset, expected, atol=1e-12)
    np.testing.assert_allclose(matrix @ estimator.metric(vertices) + offset, 0, atol=1e-12)


@pytest.mark.parametrize("axis", [0, 1])
def test_ridges_run_across_the_compression(axis):
    wrinkles, vertices, _ = patch_wrinkles(axis=axis)

    heights = wrinkles.displacement(squeezed(vertices, axis, 0.85))

    slope = [np.abs(np.diff(heights, axis=1 - k)).mean() for k in range(2)]  # along x, along y
    assert slope[axis] > 4 * slope[1 - axis]
    assert 1.5e-4 < np.ptp(heights) < 8e-4


def test_distance_between_ridges_is_the_wavelength_at_any_resolution():
    for resolution in (96, 192):
        wrinkles, vertices, _ = patch_wrinkles(resolution)
        heights = wrinkles.displacement(squeezed(vertices, 0, 0.85))
        spectrum = (np.abs(np.fft.rfft(heights - heights.mean(1, keepdims=True), axis=1)) ** 2).sum(0)
        ridges = spectrum.argmax()  # in the 60 mm of the patch
        assert abs(SIDE / ridges / WAVELENGTH - 1) < 0.2


def test_the_same_wrinkles_at_twice_the_resolution():
    coarse, vertices, _ = patch_wrinkles(96)
    fine, _, _ = patch_wrinkles(192)
    expressed = squeezed(vertices, 0, 0.85)

    small = fine.displacement(expressed).reshape(96, 2, 96, 2).mean((1, 3))

    assert np.corrcoef(small.ravel(), coarse.displacement(expressed).ravel())[0, 1] > 0.97


@pytest.mark.parametrize(
    "factors", [(1.0, 1.0), (1.15, 1.0), (1.0, 0.8), (1 - THRESHOLD / 1.2, 1.0)], ids=str
)
def test_no_wrinkles_without_compression_across_them(factors):
    wrinkles, vertices, _ = patch_wrinkles(axis=0)
    expressed = squeezed(squeezed(vertices, 0, factors[0]), 1, factors[1])

    assert not wrinkles.displacement(expressed).any()


def test_wrinkles_deepen_with_compression_and_stay_bounded():
    wrinkles, vertices, _ = patch_wrinkles()
    depths = [wrinkles.displacement(squeezed(vertices, 0, f)).std() for f in (0.95, 0.9, 0.8, 0.6, 0.3)]

    assert all(a < b for a, b in pairwise(depths))
    assert np.abs(wrinkles.displacement(squeezed(vertices, 0, 0.3))).max() < 1e-3


def test_skin_that_its_own_expression_presses_little_wrinkles_as_much_in_it():
    much, vertices, _ = patch_wrinkles(full=0.8)
    little, _, _ = patch_wrinkles(full=0.95)

    wrinkled = much.displacement(squeezed(vertices, 0, 0.8)).std()
    assert little.displacement(squeezed(vertices, 0, 0.95)).std() == pytest.approx(wrinkled, rel=0.1)
    assert much.displacement(squeezed(vertices, 0, 0.95)).std() < 0.3 * wrinkled


def test_a_patch_squeezed_on_one_half_wrinkles_there_only():
    wrinkles, vertices, _ = patch_wrinkles()
    expressed = vertices.copy()
    expressed[:, 0] = np.where(
        vertices[:, 0] > SIDE / 2, SIDE / 2 + 0.8 * (vertices[:, 0] - SIDE / 2), vertices[:, 0]
    )

    heights = np.abs(wrinkles.displacement(expressed))

    assert not heights[:, : 128 // 2 - 3 * 128 // 12].any()  # three cells away from the border
    assert heights[:, 128 // 2 + 2 * 128 // 12 :].mean() > 2e-5


def expressed(head: HeadModel, shape: torch.Tensor, **actions: float) -> np.ndarray:
    weights = torch.zeros(1, head.num_expression)
    for action, weight in actions.items():
        for name in (action, f"{action}Left", f"{action}Right"):
            if name in head.expression_names:
                weights[0, head.expression_names.index(name)] = weight
    return head(shape[None], weights)[0].double().numpy()


@pytest.fixture(scope="module", params=[0, 1])
def person(head, request):
    """Neutral face, wrinkles without those at rest, and a function from expression to energy near landmarks."""
    rng = np.random.default_rng([3, request.param])
    shape = torch.tensor(rng.normal(0, 0.7, head.num_shape), dtype=torch.float32)
    face = face_map(head, 256)
    neutral = expressed(head, shape)
    sites = wrinkle_sites(rng, head, neutral, 55.0, 1.0)
    wrinkles = Wrinkles(rng, neutral, head.faces.numpy()[head.face_parts == 0], face.atlas, sites)

    def energy(marks: list[int], **actions: float) -> float:
        heights = wrinkles.displacement(expressed(head, shape, **actions)).ravel()[face.texels]
        near = face.near(np.array(marks), 0.008) > 0.5
        return float(np.sqrt((heights[near] ** 2).mean()))

    return energy


FOREHEAD, CHIN, EYE_CORNERS, CHEEKS, GLABELLA = [151, 108, 337], [199, 175], [265, 35], [426, 206], [9, 8]


def test_raised_brows_wrinkle_the_forehead_and_not_the_chin(person):
    raised = {"browInnerUp": 1.0, "browOuterUp": 1.0}
    assert person(FOREHEAD, **raised) > 2.5e-5
    assert person(CHIN, **raised) == 0
    assert person(CHEEKS, **raised) == 0


def test_a_smile_wrinkles_cheeks_and_eye_corners_and_not_the_forehead(person):
    smile = {"mouthSmile": 1.0, "cheekSquint": 0.7}
    assert person(EYE_CORNERS, **smile) > 3e-5
    assert person(CHEEKS, **smile) > 5e-5
    assert person(FOREHEAD, **smile) < 1e-6


def test_lowered_brows_wrinkle_between_them(person):
    assert person(GLABELLA, browDown=1.0) > 4e-5
    assert person(CHIN, browDown=1.0) == 0


def test_one_sided_squint_wrinkles_one_side(person):
    assert person([265], cheekSquintLeft=1.0) > 3e-5
    assert person([35], cheekSquintLeft=1.0) < 1e-6


def test_an_open_jaw_wrinkles_nothing_above_the_nose(person):
    assert person(FOREHEAD + EYE_CORNERS + GLABELLA, jawOpen=1.0) < 1e-6


def test_the_face_at_rest_has_none(person):
    assert person(FOREHEAD + CHIN + EYE_CORNERS + CHEEKS + GLABELLA) == 0


def test_single_lines_cross_the_forehead_where_a_brow_is_raised(head):
    neutral = head.template.double().numpy()
    face = face_map(head, 256)
    rest = torch.zeros(head.num_shape)
    counts, sides = [], []
    for seed in range(12):
        rng = np.random.default_rng([5, seed])
        sites = [one for one in wrinkle_sites(rng, head, neutral, 35.0, 1.0) if "crease" in one.name]
        counts.append(len(sites))
        wrinkles = Wrinkles(rng, neutral, head.faces.numpy()[head.face_parts == 0], face.atlas, sites)
        raised = expressed(head, rest, browInnerUp=0.3, browOuterUpLeft=1.0)
        heights = wrinkles.displacement(raised).ravel()[face.texels]
        sides.append(
            [
                np.abs(heights[face.near(np.array(marks), 0.012) > 0.5]).max()
                for marks in ([299, 333], [69, 104])
            ]
        )
        assert not wrinkles.displacement(expressed(head, rest, jawOpen=1.0)).any()
    assert min(counts) == 0 and max(counts) >= 3, "people differ"
    left, right = np.mean(sides, 0)
    assert left > 3e-5 and left > 4 * right
