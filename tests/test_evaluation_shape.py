import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from avface.errors import AvfaceError
from avface.evaluation import shape as protocol
from avface.evaluation.out_of_model import (
    OutOfModelConfig,
    out_of_model_head,
    scan,
    seven_landmarks,
    skin_triangles,
)
from avface.evaluation.scan_to_mesh import NOW_LANDMARKS
from avface.evaluation.shape import ShapeReport, distances_mm, evaluate_shape, fit_to_vertices, pairwise_mm
from avface.head import load_head

POINTS = 500
KNOWN = OutOfModelConfig(proportions=0, taper=0, field_mm=0)
"""People of the head model's own space."""


@pytest.fixture(scope="module")
def model():
    return load_head()


def neutral(head, shape):
    return head.neutral(torch.as_tensor(shape, dtype=torch.float32)).double().numpy()


def test_out_of_model_heads_are_the_same_every_time_and_differ_from_each_other():
    config = OutOfModelConfig()
    first, again, other = (out_of_model_head(number, config).template for number in (0, 0, 1))
    assert torch.equal(first, again)
    assert (first - other).norm(dim=1).mean() > 1e-3
    assert not torch.equal(first, out_of_model_head(0, replace(config, seed=1)).template)


def test_out_of_model_heads_lie_outside_of_the_shape_space_and_their_eyes_stay_round(model):
    head = out_of_model_head(0, OutOfModelConfig())
    found = fit_to_vertices(model, head.template.double().numpy())
    true = scan(head, POINTS)
    best, mean = (np.median(distances_mm(true, model, each)) for each in (found, 0 * found))
    assert 0.1 < best < 0.6 * mean
    ball = head.vertex_parts() == head.part_names.index("left_eye")
    known = out_of_model_head(0, KNOWN).template[ball]
    moved = head.template[ball]
    torch.testing.assert_close(moved - moved.mean(0), known - known.mean(0), atol=1e-6, rtol=0)


def test_a_known_person_is_found_again_by_the_fit(model):
    head = out_of_model_head(3, KNOWN)
    found = fit_to_vertices(model, head.template.double().numpy())
    assert np.median(distances_mm(scan(head, POINTS), model, found)) < 0.05


def test_a_scan_lies_on_the_skin_and_has_the_heads_landmarks(model):
    true = scan(model, POINTS)
    assert true.points.shape == (POINTS, 3) and true.landmarks.shape == (7, 3)
    np.testing.assert_array_equal(true.points, scan(model, POINTS).points)
    assert np.median(distances_mm(true, model, np.zeros(model.num_shape))) < 1e-3
    assert len(skin_triangles(model)) < len(model.faces)


def test_the_seven_landmarks_are_eyes_nose_and_mouth(model):
    right_outer, right_inner, left_inner, left_outer, nose, mouth_right, mouth_left = seven_landmarks(
        model, model.template.numpy()
    )
    assert len(NOW_LANDMARKS) == 7
    assert right_outer[0] < right_inner[0] < 0 < left_inner[0] < left_outer[0]
    assert right_inner[1] > nose[1] > mouth_left[1] and mouth_right[0] < 0 < mouth_left[0]


def test_distances_between_shapes_ignore_size(model):
    shapes = np.zeros((3, model.num_shape))
    shapes[1, model.size_component] = 1.5
    shapes[2, 1] = 2.0
    apart = pairwise_mm(model, list(shapes))
    np.testing.assert_allclose(apart, apart.T)
    assert apart[0, 1] < 0.1 * apart[0, 2]


def made_report(apart):
    distances = tuple(np.full(10, value) for value in (2.0, 4.0))
    clips = tuple((np.full(10, value), np.full(10, value)) for value in (1.0, 2.0))
    return ShapeReport(distances, tuple(each / 4 for each in distances), clips, np.array(apart))


def test_the_report_has_the_ratio_and_the_identification():
    apart = [[0, 1, 5, 6], [1, 0, 7, 0.5], [5, 7, 0, 2], [6, 0.5, 2, 0]]
    report = made_report(apart)
    assert report.ratio == pytest.approx(1.5 / 3)
    assert report.recognised == (2, 4), "clips 1 and 3 have each other as the nearest"
    text = report.table()
    assert "0.500" in text and "2 of 4 clips" in text
    content = json.loads(report.to_json())
    assert content["ratio"] == pytest.approx(0.5) and content["recognised"] == 2
    assert content["own_apart_mm"] == pytest.approx(1.5)
    assert content["nearest_other_apart_mm"] == pytest.approx((5 + 0.5 + 5 + 0.5) / 4)


def test_the_protocol_measures_what_was_reconstructed(model, monkeypatch, tmp_path):
    """The reconstruction finds the shape of one of two people, and the mean head for the other."""
    config = OutOfModelConfig(seed=4)
    known = [fit_to_vertices(model, out_of_model_head(n, config).template.double().numpy()) for n in range(2)]
    asked = []

    def film(person, clip, path, config):
        path.write_text(f"{person}")

    def reconstruct(path, *, progress, **options):
        asked.append((path.name, options))
        person = int(path.read_text())
        shape = known[0] if person == 0 else 0.02 * known[1]
        return type("Capture", (), {"shape": shape})()

    monkeypatch.setattr(protocol, "film", film)
    monkeypatch.setattr(protocol, "SCAN_POINTS", POINTS)
    monkeypatch.setattr("avface.pipeline.reconstruct", reconstruct)
    report = evaluate_shape(people=2, work=tmp_path, workers=1, config=config)
    assert len(asked) == 4 and all(options == {} for _, options in asked)
    assert report.recognised == (4, 4)
    mean, found = ([float(np.median(each)) for each in part] for part in (report.mean_head, report.fitted))
    clips = [np.median(each[0]) for each in report.reconstructed]
    assert clips[0] == pytest.approx(found[0], abs=1e-6)
    assert clips[1] == pytest.approx(mean[1], rel=0.05)
    assert found[0] / mean[0] < report.ratio < 1
    monkeypatch.setattr(protocol, "film", None)
    assert evaluate_shape(people=2, work=tmp_path, workers=1, config=config).ratio == report.ratio, (
        "kept clips"
    )


def test_one_person_is_too_few():
    with pytest.raises(AvfaceError, match="people=1: must be 2 or more"):
        evaluate_shape(people=1)


def test_heads_of_the_shape_priors_training_are_refused():
    with pytest.raises(AvfaceError, match="seed 101"):
        evaluate_shape(people=2, config=OutOfModelConfig(seed=101))
