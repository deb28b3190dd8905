"""The check of a head's anatomy: units, mouth, table, verb; and which limits the shipped head keeps."""

import json
from dataclasses import replace

import numpy as np
import pytest
from anatomy_heads import box, small_head
from flame_clips import flame_shaped_head

from avface.cli import main
from avface.head import load_head
from avface.head.anatomy.check import LIMITS, AnatomyReport, Found, Limit, Row, check_head, relative_size
from avface.head.anatomy.mouth import count_teeth, inside_seen, see_through
from avface.head.anatomy.units import UnitFigures, compare_units, own_figures, reference_figures
from avface.head.asset import OPEN_HEAD, save_head_asset
from avface.head.model import HeadModel

BROKEN = {"lips and mouth", "amplitude_low"}
"""Limits that the shipped head breaks (docs/model_cards/head.md says by how much)."""


# Units


def test_the_figures_are_of_all_units_that_move_the_face():
    figures = reference_figures()
    assert figures.moves.shape == (51, 24, 3) and "tongueOut" not in figures.names
    assert 0.02 < np.linalg.norm(figures.moves, axis=2).max() < 0.05


def test_units_are_held_against_their_own_figures():
    figures = reference_figures()
    matches = compare_units(figures, figures)
    assert all(match.nearest == match.name for match in matches)
    np.testing.assert_allclose([(match.cosine, match.amplitude) for match in matches], 1)


def test_a_weak_unit_and_one_that_is_another_are_found():
    figures = reference_figures()
    row, other = figures.names.index("mouthPressLeft"), figures.names.index("mouthSmileLeft")
    moves = figures.moves.copy()
    moves[other] *= 0.5
    moves[row] = figures.moves[other]
    found = {match.name: match for match in compare_units(UnitFigures(figures.names, moves), figures)}
    assert found["mouthSmileLeft"].amplitude == pytest.approx(0.5)
    assert found["mouthSmileLeft"].cosine == pytest.approx(1)
    assert found["mouthPressLeft"].nearest == "mouthSmileLeft" and found["mouthPressLeft"].cosine < 0.8
    still = compare_units(UnitFigures(figures.names[:1], 0 * moves[:1]), figures)[0]
    assert still.cosine == 0 and still.amplitude == 0


def test_figures_of_the_open_head_are_at_the_size_of_the_others():
    """jawOpen of both heads is nearly the same, so that another scale or order of points would show."""
    own = own_figures(load_head())
    match = next(each for each in compare_units(own, reference_figures()) if each.name == "jawOpen")
    assert match.cosine > 0.97 and 0.75 < match.amplitude < 1.33


# Mouth


def parts_head(*parts):
    """A head without units of parts (name, points, faces)."""
    template = np.concatenate([points for _, points, _ in parts])
    first = np.cumsum([0, *(len(points) for _, points, _ in parts)])
    faces = np.concatenate([own + start for (_, _, own), start in zip(parts, first, strict=False)])
    names = tuple(dict.fromkeys(name for name, _, _ in parts))
    return HeadModel(
        "parts",
        template=template,
        shape_basis=np.zeros((1, *template.shape)),
        expression_basis=np.zeros((0, *template.shape)),
        expression_names=(),
        joint_names=(),
        joint_parents=(),
        joint_regressor=np.zeros((0, len(template))),
        skin_weights=np.ones((len(template), 1)),
        faces=faces,
        uv=np.zeros((1, 2)),
        uv_faces=np.zeros_like(faces),
        part_names=names,
        face_parts=np.concatenate([np.full(len(own), names.index(name)) for name, _, own in parts]),
        regions={},
        embeddings={},
        gaze_range=np.ones(4),
    )


def tooth(x):
    return ("upper_teeth", *box((x, 0, 0.01), (x + 0.005, 0.01, 0.02)))


SKULL = box((-0.05, -0.05, -0.05), (0.05, 0.05, 0.05))


def test_teeth_are_counted_without_gums_and_whatever_part_they_are_in():
    gums = ("upper_gums", *box((0, 0, 0), (1, 1, 1)))
    lower = ("lower_teeth", *box((0, -1, 0), (1, -0.5, 1)))
    assert count_teeth(parts_head(tooth(0.0), tooth(0.006), lower, gums)) == 3
    assert count_teeth(parts_head(gums)) == 0


def test_what_is_seen_of_the_mouth_is_what_stands_before_the_skin():
    skull = ("skin", *SKULL)
    hidden = parts_head(skull, tooth(0.0))
    assert dict(inside_seen(hidden, hidden.template.double().numpy(), ["from the front"])) == {
        "from the front": 0
    }
    shown = parts_head(skull, ("upper_teeth", *box((0, 0, 0.04), (0.01, 0.005, 0.06))))
    area = dict(inside_seen(shown, shown.template.double().numpy(), ["from the front"]))["from the front"]
    assert area == pytest.approx(0.01 * 0.005, rel=0.3)


def test_inner_sides_and_background_are_seen_through_a_hole():
    points, faces = SKULL
    middle = points[faces].mean(1)
    views, neck = ["from the front"], ("neck", *open_below())

    def seen(kept):
        head = parts_head(("skin", points, faces[kept]), neck)
        return dict(see_through(head, head.template.double().numpy(), views))["from the front"]

    assert seen(np.ones(len(faces), bool)) == 0
    whole = parts_head(("skin", points, faces), neck)
    posed = whole.template.double().numpy()
    assert dict(see_through(whole, posed, ["from below"]))["from below"] == 0, "one may look into the neck"
    assert seen(middle[:, 2] < 0.04) == pytest.approx(0.1 * 0.1, rel=0.1)
    assert seen(middle[:, 2] > -0.04) == 0, "the back can't be seen"
    posts = [("skin", *box((x, -0.05, -0.05), (x + 0.01, 0.05, 0.05))) for x in (-0.05, 0.04)]
    bars = [("skin", *box((-0.05, y, -0.05), (0.05, y + 0.01, 0.05))) for y in (-0.05, 0.04)]
    window = parts_head(*posts, *bars, neck)
    area = dict(see_through(window, window.template.double().numpy(), views))["from the front"]
    assert area == pytest.approx(0.08 * 0.08, rel=0.1)


def open_below():
    """A box under the skull without its lower side: a neck."""
    points, faces = box((-0.01, -0.2, -0.01), (0.01, -0.1, 0.01))
    return points, faces[points[faces][:, :, 1].max(1) > -0.15]


# The whole check


PEOPLE = 2


@pytest.fixture(scope="module")
def checked():
    """The report on a head whose lids stop short of each other, and how often progress was told."""
    done = []
    report = check_head(
        small_head(blink_to=0.9, lid_gap=0.0002), people=PEOPLE, seed=3, on_person=lambda: done.append(1)
    )
    return report, len(done)


@pytest.fixture
def report(checked):
    return checked[0]


def values(report):
    return {row.key: row.worst and row.worst.value for row in report.rows}


def test_a_head_of_known_eyes_keeps_their_limits(report):
    assert [row.key for row in report.rows] == list(LIMITS)
    kept = {row.key for row in report.rows if row.passed}
    assert {"eyeball", "iris", "iris_round", "lids_overlap", "lids"} <= kept
    broken = {row.key for row in report.rows if row.passed is False}
    assert {"lids_gap", "lids_inside", "teeth_bodies", "vertices"} <= broken and not report.passed
    assert values(report)["lids_inside"] == pytest.approx(0.4, abs=0.1)
    assert 0.09 < values(report)["lids_even"] < 0.2


def test_what_a_head_does_not_have_is_said(report):
    missing = {row.key: row.missing for row in report.rows if row.worst is None}
    assert missing["cosine"] == "no landmarks ibug68" and missing["teeth"] == "no teeth"
    assert missing["mouth_shut"] == "no inside of the mouth" and missing["file"] == "not read from a file"
    assert "not measured" in report.table() and "no landmarks ibug68" in report.table()


def test_the_worst_value_is_kept_with_its_person_and_pose(report):
    rows = {row.key: row for row in report.rows}
    assert rows["lids_gap"].mean.value == pytest.approx(0.84, abs=0.1)
    assert rows["lids_gap"].worst.value > rows["lids_gap"].mean.value, (
        "of a larger person, whom the unit moves no more"
    )
    assert 1 <= rows["lids_gap"].worst.person <= PEOPLE and "eyeBlink" in rows["lids_gap"].worst.case


def test_sizes_are_those_of_the_mean_head(report):
    assert relative_size(small_head(), np.array([2.0])) == pytest.approx(1.1)
    assert values(report)["eyeball"] == pytest.approx(24, abs=0.02)


def test_progress_is_told_after_each_person(checked):
    assert checked[1] == 1 + PEOPLE


def test_a_negative_number_of_people_is_refused():
    with pytest.raises(ValueError, match="people=-1"):
        check_head(small_head(), people=-1)


def test_limits_have_two_sides_and_nothing_found_breaks_them():
    between, most = Limit("", 23, 25), Limit("", high=0.3)
    assert (between.text, most.text, Limit("", low=0.85).text, Limit("", 1, 1).text) == (
        "23 to 25",
        "<= 0.3",
        ">= 0.85",
        "1",
    )
    assert between.excess(22) == 1 and between.excess(26) == 1 and between.excess(24) < 0
    assert most.excess(float("nan")) == np.inf
    row = Row("lids_off", Found(0.1), Found(0.5))
    assert (
        row.passed and not replace(row, worst=Found(0.51)).passed and replace(row, worst=None).passed is None
    )


def test_the_table_and_the_facts_say_the_same():
    rows = (
        Row("lids_off", Found(0.123), Found(0.6, 4, "left, gaze up")),
        Row("teeth", None, None, "no teeth"),
        Row("vertices", Found(7000), Found(7000)),
    )
    report = AnatomyReport("mine", 20, rows)
    lines = report.table().splitlines()
    assert lines[0].split() == ["measure", "limit", "mean", "face", "worst", "of", "21", "where"]
    assert lines[1].startswith("BROKEN") and lines[1].endswith("0.12         0.60  person 4, left, gaze up")
    assert lines[2].startswith("-") and lines[2].endswith("no teeth") and lines[3].startswith("ok")
    assert lines[-1] == "mine: 1 of 3 limits broken, 1 not measured"
    facts = json.loads(json.dumps(report.facts()))
    assert facts["passed"] is False and facts["people"] == 20
    assert facts["rows"][0]["worst"] == {"value": 0.6, "person": 4, "case": "left, gaze up"}
    assert facts["rows"][0]["low"] is None and facts["rows"][0]["high"] == 0.5
    assert facts["rows"][1]["passed"] is None and facts["rows"][1]["missing"] == "no teeth"


def test_the_verb_prints_the_table_and_its_code_says_whether_limits_are_broken(capsys, tmp_path):
    path = tmp_path / "small.npz"
    save_head_asset(small_head(), path)
    assert main(["head", "check", str(path), "--people", "0", "--quiet"]) == 1
    assert "BROKEN" in capsys.readouterr().out
    assert main(["head", "check", str(path), "--people", "0", "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert not facts["passed"] and facts["people"] == 0
    assert next(row for row in facts["rows"] if row["key"] == "file")["passed"]
    assert main(["head", "check", str(path), "--people", "-1"]) == 2
    assert "must be 0 or more" in capsys.readouterr().err


def test_a_flame_head_is_measured_as_far_as_it_goes(tmp_path):
    head = flame_shaped_head(tmp_path)
    report = check_head(head, people=1)
    missing = {row.key for row in report.rows if row.worst is None}
    assert {"cosine", "mistaken", "lids_overlap", "teeth"} <= missing
    assert values(report)["vertices"] == head.num_vertices


@pytest.mark.slow
def test_the_shipped_head_breaks_only_known_limits():
    report = check_head(load_head(), people=20, file=OPEN_HEAD)
    assert {row.key for row in report.rows if row.passed is False} == BROKEN, report.table()
    assert all(row.worst is not None for row in report.rows)
