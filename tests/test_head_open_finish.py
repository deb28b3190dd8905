"""From a draft to the head model: joints, quads, correctives, texture coordinates."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from avface.errors import AvfaceError
from avface.geometry.mesh import triangulate
from avface.head.asset import load_head, save_head_asset
from avface.head.open.draft import Draft, PersonTerms
from avface.head.open.eyes.eyeballs import Eyeball, EyesConfig
from avface.head.open.finish import GAZE_RANGE, about_origin, finish, lower_end
from avface.head.open.uv_layout import STRIP, layout_uv

NAMES = ("jawOpen", "eyeBlinkLeft", "mouthSmileLeft")
CENTRES = np.array([[0.03, 0.02, 0.08], [-0.031, 0.022, 0.081]])
SIGMA = 0.05


ROWS, COLUMNS = 9, 12
SKIN = ROWS * COLUMNS + 1


def made_draft():
    """A bust of skin, two eyeballs and four teeth, with three units, four shapes, correctives and terms of the
    person."""
    rng = np.random.default_rng(0)
    v, turn = np.meshgrid(np.linspace(0, 1, ROWS), np.arange(COLUMNS) * np.pi / 6, indexing="ij")
    radius = 0.05 + 0.035 * np.sin(np.pi * v)
    skin = np.stack([radius * np.sin(turn), 0.24 * (v - 0.5), 0.05 + radius * np.cos(turn)], -1).reshape(
        -1, 3
    )
    skin = np.concatenate([skin, [[0, 0.14, 0.05]]])
    corner = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    beside = np.roll(corner, -1, 1)
    quads = np.stack([corner[:-1], beside[:-1], beside[1:], corner[1:]], -1).reshape(-1, 4)
    pole = np.full(COLUMNS, SKIN - 1)
    quads = np.concatenate([quads, np.stack([corner[-1], beside[-1], pole, pole], -1)])
    count, shapes = len(skin), 4
    moves = rng.normal(0, 0.001, (shapes, 2, 3))
    shape = rng.normal(0, 0.002, (shapes, count, 3))
    shape[0] = SIGMA * skin
    moves[0] = SIGMA * CENTRES
    weights = np.zeros((count, 4))
    weights[:, 1] = np.clip(3 * (skin[:, 1] + 0.12) / 0.24, 0, 1)  # the lowest third is the neck
    weights[:, 0] = 1 - weights[:, 1]
    masks = {name: np.zeros(count, bool) for name in ("face", "ears")}
    masks["face"] = (skin[:, 2] > 0.07) & (np.abs(skin[:, 1]) < 0.07)
    masks["ears"][[51, 57]] = True
    draft = Draft(
        template=skin,
        shape=shape,
        expression=rng.normal(0, 0.003, (len(NAMES), count, 3)),
        expression_names=NAMES,
        quads=quads,
        parts=np.full(len(quads), "skin", "U16"),
        uv=skin[:, :2],
        uv_quads=quads,
        skin_weights=weights,
        regions=masks,
        eye_centres=np.concatenate([CENTRES[None], moves]),
    )
    ball = Eyeball(EyesConfig(segments=8))
    for side, name in enumerate(("left", "right")):
        template = ball.points + CENTRES[side]
        own = np.repeat(moves[:, side][:, None], len(template), 1)
        own[0] = SIGMA * template
        joint = np.zeros((len(template), 4))
        joint[:, 2 + side] = 1
        draft = draft.with_parts(
            template,
            ball.quads,
            np.char.add(f"{name}_", ball.parts),
            ball.uv,
            ball.quads,
            shape=own,
            skin_weights=joint,
        )
    for number in range(4):
        tooth = np.array([[0, 0, 0], [1, 0, 0], [1, 2, 0], [0, 2, 0.0]]) * 0.005 + [
            0.01 * number,
            -0.02,
            0.05,
        ]
        draft = draft.with_parts(
            tooth,
            np.array([[0, 1, 2, 2], [0, 2, 3, 3]]),
            np.full(2, "upper_teeth"),
            tooth[:, :2],
            np.array([[0, 1, 2, 2], [0, 2, 3, 3]]),
            shape=np.concatenate([SIGMA * tooth[None], np.zeros((3, 4, 3))]),
            skin_weights=np.tile([1.0, 0, 0, 0], (4, 1)),
        )
    offsets = np.zeros((4, *draft.template.shape))
    offsets[0, 50:60] = 0.002
    offsets[1, 30:35] = [0.001, 0, 0]
    offsets[2, 33:38] = [0, 0.001, 0]
    offsets[3, 5:9] = 1e-5
    pairs = (
        ("eyeBlinkLeft", "eyeBlinkLeft"),
        ("mouthSmileLeft", "jawOpen"),
        ("jawOpen", "mouthSmileLeft"),
        ("eyeBlinkLeft", "jawOpen"),
    )
    person = np.zeros((2, *draft.template.shape))
    person[:, 50:60] = rng.normal(0, 0.001, (2, 10, 3))
    terms = PersonTerms(
        (("eyeBlinkLeft",), ("jawOpen", "mouthSmileLeft")), rng.normal(0, 1, (2, shapes)), person
    )
    return replace(draft.with_pairs(pairs, offsets), person=terms)


@pytest.fixture(scope="module")
def draft():
    return made_draft()


@pytest.fixture(scope="module")
def head(draft):
    return finish(draft)


@pytest.fixture(scope="module")
def moved(draft):
    """How far the origin moves."""
    return np.array([0.0, CENTRES[:, 1].mean(), draft.template[[51, 57], 2].mean()])


def test_vertices_are_those_of_the_draft_about_the_new_origin(draft, head, moved):
    rng = np.random.default_rng(1)
    for _ in range(5):
        shape, expression = rng.normal(0, 1, 4), rng.uniform(0, 1, 3)
        expected = (
            draft.vertices(dict(zip(NAMES, expression, strict=True)), shape) - (1 + SIGMA * shape[0]) * moved
        )

        own = head(torch.tensor(shape[None]).float(), torch.tensor(expression[None]).float())[0].numpy()

        assert np.abs(own - expected).max() < 2e-5


def test_size_scales_the_head_about_its_origin(draft, head):
    larger = head.neutral(torch.tensor([[2.0, 0, 0, 0]]))[0]

    torch.testing.assert_close(larger, (1 + 2 * SIGMA) * head.template, rtol=1e-5, atol=1e-7)
    centres = about_origin(draft).eye_centres
    np.testing.assert_allclose(centres[1], SIGMA * centres[0], atol=1e-9)
    eyes = head.joint_positions(torch.zeros(1, 4))[0, 1:]
    assert float(eyes[:, 1].mean()) == pytest.approx(0, abs=1e-6)
    assert float(head.template[torch.as_tensor(head.regions["ears"]), 2].mean()) == pytest.approx(0, abs=1e-6)


def test_eyes_turn_about_the_centres_of_their_balls_for_any_shape(draft, head, moved):
    shape = np.random.default_rng(2).normal(0, 1, 4)
    expected = (
        draft.eye_centres[0] + np.tensordot(shape, draft.eye_centres[1:], 1) - (1 + SIGMA * shape[0]) * moved
    )

    centres = head.joint_positions(torch.tensor(shape[None]).float())[0, 1:].numpy()

    np.testing.assert_allclose(centres, expected, atol=1e-6)
    assert head.joint_names == ("neck", "left_eye", "right_eye") and head.joint_parents == (-1, 0, 0)


def test_the_neck_turns_about_the_middle_of_its_own_skin(draft, head, moved):
    """That of the skin which turns half with the skull, not of the lower end, which may be anywhere."""
    skull = draft.skin_weights[:, 1]
    half = skull * (1 - skull) / (skull * (1 - skull)).sum()

    neck = head.joint_positions(torch.zeros(1, 4))[0, 0].numpy()

    np.testing.assert_allclose(neck, half @ draft.template - moved, atol=1e-6)
    assert draft.template[:, 1].min() + 0.02 < neck[1] + moved[1] < draft.template[:, 1].min() + 0.08


def test_the_lower_end_is_the_open_edge_of_the_neck(draft):
    rim = lower_end(triangulate(draft.quads[draft.parts == "skin"]), draft.template)
    np.testing.assert_array_equal(rim, np.arange(COLUMNS))


def test_triangles_parts_and_uvs_are_those_of_the_quads(draft, head):
    np.testing.assert_array_equal(head.quads, draft.quads)
    np.testing.assert_array_equal(head.faces.numpy(), triangulate(draft.quads))
    np.testing.assert_array_equal(triangulate(head.uv_quads), head.uv_faces)
    assert [head.part_names[number] for number in head.quad_parts] == draft.parts.tolist()
    assert head.part_names[0] == "skin" and len(set(head.part_names)) == len(head.part_names) == 8


def test_correctives_of_the_same_units_are_one_and_idle_ones_are_left_out(draft, head):
    assert head.pairs == ((1, 1), (2, 0))
    np.testing.assert_allclose(
        head.pair_basis[1].numpy(), draft.pair_offsets[1] + draft.pair_offsets[2], atol=1e-9
    )
    assert head.person_terms.tolist() == [1, 3 + 1]


def test_offsets_that_nobody_sees_are_0(draft):
    expression = draft.expression.copy()
    expression[0, :20] = 2e-6

    quiet = finish(replace(draft, expression=expression)).expression_basis[0]

    assert (quiet[:20] == 0).all() and quiet[20:SKIN].any(1).all()


def test_the_eyes_range_is_that_of_rigs(head):
    np.testing.assert_allclose(head.gaze_range, GAZE_RANGE)
    assert (np.radians(24) < head.gaze_range).all() and (head.gaze_range < np.radians(36)).all()


def test_a_finished_head_is_saved_and_read(head, tmp_path):
    save_head_asset(head, tmp_path / "head.npz")

    assert load_head(tmp_path / "head.npz").pairs == head.pairs


def test_a_draft_without_eyeballs_is_refused(draft):
    parts = np.char.replace(draft.parts, "right_", "other_")

    with pytest.raises(AvfaceError, match="no right eyeball"):
        finish(replace(draft, parts=parts))


def test_uv_quads_that_do_not_belong_to_the_quads_are_refused(draft):
    uv_quads = draft.uv_quads.copy()
    uv_quads[-1, 3] = uv_quads[-1, 0]

    with pytest.raises(AvfaceError, match="UV quads repeat their last point where its quads don't"):
        finish(replace(draft, uv_quads=uv_quads))


# Texture coordinates


def test_the_skin_fills_the_square_upright_above_a_strip(draft):
    uv, quads = layout_uv(draft)
    rows = draft.parts == "skin"
    skin = uv[quads[rows]].reshape(-1, 2)

    assert skin[:, 0].min() == 0 and skin[:, 0].max() == 1
    assert skin[:, 1].min() == pytest.approx(STRIP) and skin[:, 1].max() == 1
    face = draft.regions["face"][draft.quads[rows]].ravel()
    x, y = draft.template[draft.quads[rows].ravel()[face], :2].T
    assert np.corrcoef(skin[face, 0], x)[0, 1] > 0.95 and np.corrcoef(skin[face, 1], y)[0, 1] > 0.95
    assert uv[quads[~rows]][..., 1].max() < STRIP


def test_no_polygon_of_the_skin_is_turned_over(draft):
    uv, quads = layout_uv(draft)
    corners = uv[triangulate(quads[draft.parts == "skin"])]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    areas = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]

    assert (areas > 0).all() or (areas < 0).all()


def test_islands_of_the_other_parts_do_not_overlap(draft):
    uv, quads = layout_uv(draft)
    boxes = []
    for rows in (quads[np.char.startswith(draft.parts, side)] for side in ("left", "right")):
        boxes.append((uv[rows].reshape(-1, 2).min(0), uv[rows].reshape(-1, 2).max(0)))
    for tooth in range(4):
        rows = quads[draft.parts == "upper_teeth"][2 * tooth : 2 * tooth + 2]
        low, high = uv[rows].reshape(-1, 2).min(0), uv[rows].reshape(-1, 2).max(0)
        boxes.append((low, high))
    for k, (low, high) in enumerate(boxes):
        assert (low > 0).all() and (high < 1).all()
        for other_low, other_high in boxes[:k]:
            assert (low > other_high).any() or (high < other_low).any()
