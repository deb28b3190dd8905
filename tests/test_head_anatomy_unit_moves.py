"""What units mainly do: points, words, millimetres, the mouth's width and protrusion, and what counts as wrong."""

import json

import numpy as np
import pytest
from anatomy_heads import small_head

from avface.cli import main
from avface.errors import AvfaceError
from avface.head import load_head
from avface.head.anatomy.unit_moves import HEADINGS, unit_moves
from avface.head.anatomy.units import EYE_CORNERS, EYE_CORNERS_APART, LANDMARKS, reference_figures
from avface.head.asset import save_head_asset
from avface.head.model import HeadModel, LandmarkEmbedding

FIGURES = reference_figures()


def landmark_head(changes=None, size=1.0):
    """A head whose vertices are iBUG's 68 points, and whose units move them as in the figures but for changes, which
    have metres (3,) by unit and point; size: of head and units."""
    moves = FIGURES.moves.copy()
    for (unit, point), move in (changes or {}).items():
        moves[FIGURES.names.index(unit), list(LANDMARKS).index(point)] = move
    basis = np.zeros((len(moves), 68, 3))
    basis[:, list(LANDMARKS.values())] = moves
    template = np.random.default_rng(0).normal(0, 0.03, (68, 3))
    template[list(EYE_CORNERS)] = [[-EYE_CORNERS_APART / 2, 0, 0], [EYE_CORNERS_APART / 2, 0, 0]]
    faces = np.arange(66).reshape(-1, 3)
    whole = LandmarkEmbedding(
        np.repeat(np.arange(68)[:, None], 3, 1),
        np.tile([1.0, 0, 0], (68, 1)),
        np.ones(68),
        np.zeros((0, 68, 3)),
    )
    return HeadModel(
        "points",
        template=size * template,
        shape_basis=np.zeros((1, 68, 3)),
        expression_basis=size * basis,
        expression_names=FIGURES.names,
        joint_names=(),
        joint_parents=(),
        joint_regressor=np.zeros((0, 68)),
        skin_weights=np.ones((68, 1)),
        faces=faces,
        uv=np.zeros((1, 2)),
        uv_faces=np.zeros_like(faces),
        part_names=("skin",),
        face_parts=np.zeros(len(faces), np.int64),
        regions={"face": np.ones(68, bool)},
        embeddings={"ibug68": whole},
        gaze_range=np.ones(4),
    )


def moves_by_name(head):
    return {move.name: move for move in unit_moves(head)}


def test_units_that_move_as_in_the_figures_are_right_at_any_size():
    for size in (1.0, 1.3):
        moves = unit_moves(landmark_head(size=size))
        assert len(moves) == len(FIGURES.names) and all(move.right for move in moves)
        for move in moves:
            np.testing.assert_allclose(move.move, move.figures, atol=1e-6)


def test_all_units_of_the_open_head_do_what_the_figures_do():
    moves = unit_moves(load_head())
    assert len(moves) == len(FIGURES.names)
    assert [move.name for move in moves if not move.right] == []


def test_main_movements_are_said_in_words():
    moves = moves_by_name(landmark_head())
    assert (moves["jawOpen"].point, moves["jawOpen"].direction) == ("lower_lip_mid", "down, back")
    smile = moves["mouthSmileLeft"]
    assert (smile.point, smile.direction) == ("mouth_corner_left", "up, back")
    assert moves["browDownRight"].direction == "inwards, down"
    assert moves["mouthStretchRight"].direction == "back, outwards"
    assert moves["jawLeft"].direction == "to the left" and moves["jawRight"].direction == "to the right"
    assert moves["mouthLeft"].point == "mouth_corner_right", "which comes with the other corner"
    assert moves["mouthLeft"].direction.startswith("to the left")


def test_width_and_protrusion_are_those_of_corners_and_lips():
    moves = moves_by_name(landmark_head())
    own, theirs = moves["mouthPucker"].width
    assert own == pytest.approx(theirs, abs=1e-6) and own == pytest.approx(-0.0092, abs=1e-4)
    assert moves["mouthPucker"].protrusion[0] > 0.006
    assert moves["jawOpen"].width is None and moves["noseSneerLeft"].protrusion is None


@pytest.mark.parametrize(
    ("unit", "point", "move"),
    [
        (
            "mouthPressLeft",
            "mouth_corner_left",
            [0.006, 0, 0],
        ),  # wider, where the figures hardly change the width
        ("mouthPucker", "mouth_corner_left", [0.02, 0, 0]),  # wider instead of narrower
        ("mouthFunnel", "upper_lip_mid", [0, 0, -0.02]),  # the lips go back
        ("mouthSmileLeft", "mouth_corner_left", [0.007, -0.012, 0]),  # down instead of up
        ("noseSneerLeft", "brow_inner_left", [0, 0.02, 0]),  # the brow most of all, and up
        ("eyeBlinkLeft", "upper_lid_left", [0, 0, 0]),  # not at all
    ],
)
def test_a_unit_that_does_something_else_is_wrong(unit, point, move):
    wrong = [
        name for name, each in moves_by_name(landmark_head({(unit, point): move})).items() if not each.right
    ]
    assert wrong == [unit]


def test_the_verb_prints_a_row_a_unit_and_its_code_says_whether_one_is_wrong(capsys, tmp_path):
    path = tmp_path / "points.npz"
    save_head_asset(landmark_head(), path)
    assert main(["head", "check", str(path), "--units", "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(HEADINGS[0]) and len(lines) == 2 + len(FIGURES.names) + 1
    row = next(line for line in lines if line.startswith("mouthPucker"))
    *mouth, verdict = row.split()[-5:]
    assert verdict == "ok" and [float(each) for each in mouth] == pytest.approx(
        [-9.2, -9.2, 7.2, 7.2], abs=0.11
    )
    assert lines[-1].endswith("0 of 51 units in a wrong direction")

    save_head_asset(landmark_head({("mouthPressLeft", "mouth_corner_left"): [0.006, 0, 0]}), path)
    assert main(["head", "check", str(path), "--units", "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    press = next(each for each in facts["units"] if each["unit"] == "mouthPressLeft")
    assert not press["right"] and press["width_mm"] == pytest.approx([6, -0.1], abs=0.1)
    assert not facts["passed"] and facts["head"].startswith("points")


def test_a_head_without_landmarks_or_units_is_refused(capsys, tmp_path):
    with pytest.raises(AvfaceError, match="ibug68"):
        unit_moves(small_head())
    path = tmp_path / "small.npz"
    save_head_asset(small_head(), path)
    assert main(["head", "check", str(path), "--units"]) == 2
    assert "ibug68" in capsys.readouterr().err
