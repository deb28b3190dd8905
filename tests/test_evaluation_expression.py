"""The expression protocol: its people, its truth, and what it refuses."""

import json

import numpy as np
import pytest

from avface.errors import AvfaceError
from avface.evaluation.expression import (
    ExpressionConfig,
    ExpressionReport,
    evaluate_expression,
    film_expression,
)
from avface.evaluation.metrics import CurveFigures
from avface.head import load_head
from avface.media import Clip
from avface.synthetic.out_of_model import TRAINING_SEEDS, with_personal_units, with_resting_face


@pytest.mark.parametrize("seed", TRAINING_SEEDS)
def test_people_of_the_training_are_refused(seed):
    with pytest.raises(AvfaceError, match="networks were trained on these people"):
        ExpressionConfig(seed=seed)


def test_too_few_people_are_refused():
    with pytest.raises(AvfaceError, match="must be 4 or more"):
        evaluate_expression(people=3)


@pytest.mark.parametrize(("field", "value"), [("seconds", 0), ("size", 4), ("seed", -1)])
def test_a_config_that_cannot_work_is_refused(field, value):
    with pytest.raises(AvfaceError):
        ExpressionConfig(**{field: value})


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("x")
    with pytest.raises(AvfaceError, match="can't be created"):
        evaluate_expression(people=4, work=blocked)


def test_a_report_lists_ways_groups_and_units():
    figures = CurveFigures()
    true = np.zeros((20, 2))
    true[:, 0] = np.linspace(0, 1, 20)
    figures.add(("jawOpen", "tongueOut"), 0.5 * true, true)
    report = ExpressionReport({"all of it": figures, "plain fit": figures}, {"speech": figures})
    text = report.table()
    assert "speech: curves of 1 units in use: median r 1.00, gain 0.50" in text
    assert text.splitlines()[-1].split() == ["jawOpen", "1", "1.00", "0.50", "1.00", "0.50"]
    assert json.loads(report.to_json())["groups"]["speech"]["median_gain"] == pytest.approx(0.5)


def test_a_face_at_rest_and_personal_units_change_the_head_alone():
    shared, head = load_head("open"), load_head("open")
    weights = np.zeros(head.num_expression)
    weights[head.expression_names.index("mouthSmileLeft")] = 0.5
    smiling = with_resting_face(load_head("open"), weights)
    moved = (smiling.template - shared.template).norm(dim=-1)
    assert 0.001 < float(moved.max()) < 0.02
    personal = with_personal_units(head, np.random.default_rng(0)).expression_basis
    change = (personal - shared.expression_basis).flatten(1).norm(dim=1)
    size = shared.expression_basis.flatten(1).norm(dim=1)
    names = shared.expression_names
    ratio = dict(zip(names, (change / size.clamp_min(1e-9)).tolist(), strict=True))
    assert all(ratio[name] == 0 for name in names if name.startswith("eyeLook"))
    assert 0.02 < np.median([ratio[name] for name in names if not name.startswith("eyeLook")]) < 0.5


@pytest.mark.slow
def test_curves_of_synthetic_people_are_measured(tmp_path):
    report = evaluate_expression(
        people=4, work=tmp_path, workers=2, config=ExpressionConfig(seed=11, seconds=2.4, size=256)
    )
    first, plain = report.ways["all of it"], report.ways["plain fit"]
    assert first.correlation > plain.correlation + 0.1
    assert first.false_activity < plain.false_activity
    assert set(report.groups) >= {"speech", "exercises"}
    videos = sorted(tmp_path.glob("*/person_*.mp4"))
    assert len(videos) == 4 and [Clip.open(video).info.has_audio for video in videos] == [False, True] * 2
    before = [video.stat().st_mtime_ns for video in videos]
    truth = videos[0].with_suffix(".npz")
    truth.write_bytes(b"nothing")
    with pytest.raises(AvfaceError, match="not a readable truth"):
        evaluate_expression(
            people=4, work=tmp_path, workers=1, config=ExpressionConfig(seed=11, seconds=2.4, size=256)
        )
    assert [video.stat().st_mtime_ns for video in videos] == before, "clips are kept"


@pytest.mark.slow
def test_a_clip_of_a_person_is_the_same_every_time(tmp_path):
    config = ExpressionConfig(seed=5, seconds=0.6, size=64)
    for name in ("one.mp4", "two.mp4"):
        film_expression(1, tmp_path / name, config)
    one, two = (np.load(tmp_path / f"{name}.npz")["expression"] for name in ("one", "two"))
    np.testing.assert_array_equal(one, two)
