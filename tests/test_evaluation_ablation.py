import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from captures import moving_capture

from avface.errors import AvfaceError
from avface.evaluation import ablation as protocol
from avface.evaluation.ablation import (
    REAL,
    SYNTHETIC,
    AblationReport,
    AblationRow,
    NetworkFigures,
    evaluate_ablation,
    network_figures,
    paper_tables,
    read_row,
)
from avface.evaluation.network_clips import NetworkClip, read_clip
from avface.head.measures import box_size
from avface.networks.audio import AudioConfig
from avface.networks.coarse.codes import CodeConfig
from avface.networks.coarse.encoders import CoarseConfig, ExpressionConfig
from avface.networks.coarse.model import CoarseNetworks, NetworkConfig, save_networks
from avface.networks.coarse.temporal import TemporalConfig
from avface.networks.coarse.video import LandmarksConfig, ResNetConfig
from avface.networks.frames import face_boxes
from avface.training.coarse.recipes import Recipe, Supervision

FRAMES = 10


def recipe(name="default", *, audio=0.25, video=0.25, window=16, hidden=0.35, speech="moonshine", width=29):
    tiny = TemporalConfig(window=window, width=8, layers=1, heads=1, feed_forward=8, projection=(8,))
    eyes = LandmarksConfig(visibility=True, hidden=(8,))
    network = NetworkConfig(
        "open",
        CodeConfig(),
        CoarseConfig(eyes, 8, tiny),
        ExpressionConfig(eyes, AudioConfig(speech, width), 4, tiny, audio, video),
    )
    made = Recipe(name, network, Supervision())
    return replace(made, occlusion=replace(made.occlusion, occluded=hidden))


def save(path, made, seed=0):
    torch.manual_seed(seed)
    save_networks(CoarseNetworks(made.network), path, {"recipe": json.dumps(made.plain())})


@pytest.fixture(scope="module")
def capture():
    return moving_capture(FRAMES)


def made_clip(capture, hidden=(), truth=True):
    points = capture.landmarks().astype(np.float64)
    return NetworkClip(
        "made",
        points,
        np.ones(FRAMES),
        np.ones((FRAMES, 478)),
        face_boxes(points, np.ones(FRAMES, bool), 25.0),
        capture.focal_length,
        capture.principal_point,
        capture.times,
        points,
        np.isin(np.arange(FRAMES), hidden),
        capture if truth else None,
        speech={"moonshine": np.random.default_rng(0).normal(size=(FRAMES, 16, 29)).astype(np.float32)},
    )


@pytest.mark.parametrize(
    ("options", "label", "speech", "occlusion"),
    [
        ({"audio": 1, "video": 0, "window": 1}, "e from video", "-", "some"),
        ({"audio": 0, "video": 1}, "e from audio + temporal", "moonshine", "some"),
        ({"audio": 0, "video": 0, "window": 1, "hidden": 0}, "e from AV", "moonshine", "none"),
        ({"audio": 0.4, "video": 0.5, "window": 1}, "e from AV + dropout", "moonshine", "some"),
        ({"speech": "mel", "width": 80}, "e from AV + dropout + temporal", "mel", "some"),
        ({"name": "default+occlusion"}, "e from AV + dropout + temporal", "moonshine", "tuned"),
    ],
)
def test_a_recipe_says_which_row_it_is(options, label, speech, occlusion):
    row = AblationRow.of("file", recipe(**options))
    assert (row.label, row.speech, row.occlusion) == (label, speech, occlusion)


def rows():
    made = {
        "video": {"audio": 1, "video": 0},
        "audio": {"audio": 0, "video": 1},
        "both": {},
        "both-mel": {"speech": "mel", "width": 80},
        "both-tuned": {"name": "default+occlusion"},
    }
    return [AblationRow.of(name, recipe(**options)) for name, options in made.items()]


def test_tables_hold_rows_that_differ_in_their_subject_alone():
    tables = [(title.split(",")[0], [row.name for row in group]) for title, group in paper_tables(rows())]
    assert tables == [
        ("Table 1", ["video", "audio", "both"]),
        ("Table 1", ["video", "both-mel"]),
        ("Table 2", ["both", "both-mel"]),
        ("Table 3", ["both", "both-tuned"]),
    ]


def test_the_truth_has_no_error(capture):
    figures = network_figures([made_clip(capture)], [capture])
    assert max(figures.nme, figures.lips, figures.vertices_mm) < 1e-4
    assert figures.auc10 == pytest.approx(1) and figures.jitter > 0
    assert np.isnan(figures.occluded)


def test_known_errors_are_found_and_hidden_frames_counted_apart(capture):
    clip = made_clip(capture, truth=False)
    off = 0.02 * box_size(clip.reference)[:, None, None] * [0.6, 0.8]
    hidden = made_clip(capture, hidden=range(5, 9))
    hidden.reference = hidden.reference.copy()
    hidden.reference[5:9] += 2 * off[5:9]
    figures = network_figures([clip, hidden], [capture, capture])
    assert figures.nme < 1e-4 and np.isnan(figures.vertices_mm)
    assert 4 < figures.occluded < 7, "per cent of the box of the 68 points, which is smaller"
    assert figures.occluded_lips == pytest.approx(figures.occluded, rel=1e-3)


def test_wider_shapes_and_other_expressions_have_errors_in_mm(capture):
    other = replace(capture, expression=0 * capture.expression)
    assert 0.2 < network_figures([made_clip(capture)], [other]).vertices_mm < 10
    with pytest.raises(ValueError, match="5 frames predicted, 10 in the clip"):
        network_figures([made_clip(capture)], [capture.select(slice(5))])


def test_networks_get_only_the_inputs_of_their_row(capture, tmp_path):
    save(tmp_path / "a.safetensors", recipe())
    row, networks = read_row(tmp_path / "a.safetensors")
    assert row.name == "a"
    clip = made_clip(capture)
    with torch.no_grad():  # a projection that starts near 0 hides what comes in
        networks.expression.temporal.projection[-1].weight.normal_(generator=torch.Generator().manual_seed(0))
    full, deaf, blind = (
        read_clip(networks, clip, **inputs).expression
        for inputs in ({}, {"use_audio": False}, {"use_video": False})
    )
    assert len(full) == FRAMES and not np.allclose(full, deaf) and not np.allclose(full, blind)
    clip.speech["moonshine"] = clip.speech["moonshine"] + 1
    clip.tracked = clip.tracked + 1
    assert np.allclose(
        read_clip(networks, clip, use_audio=False).rotation, read_clip(networks, clip).rotation
    )
    assert not np.allclose(read_clip(networks, clip, use_video=False).expression, blind)


def test_another_kind_of_speech_features_is_asked_for(capture, tmp_path):
    save(tmp_path / "a.safetensors", recipe(speech="mel", width=80))
    _, networks = read_row(tmp_path / "a.safetensors")
    with pytest.raises(AvfaceError, match="--speech mel"):
        read_clip(networks, made_clip(capture))


def test_networks_over_pictures_and_files_without_a_recipe_are_refused(tmp_path):
    made = recipe()
    save_networks(CoarseNetworks(made.network), tmp_path / "bare.safetensors")
    with pytest.raises(AvfaceError, match="recipe inside"):
        read_row(tmp_path / "bare.safetensors")
    network = replace(made.network, coarse=replace(made.network.coarse, video=ResNetConfig()))
    with pytest.raises(AvfaceError, match="images or depth as input"):
        protocol.check_measurable(tmp_path / "p.safetensors", replace(made, network=network))


def test_a_folder_of_weights_becomes_tables(capture, tmp_path, monkeypatch):
    save(tmp_path / "video.safetensors", recipe(audio=1, video=0))
    save(tmp_path / "both.safetensors", recipe())
    save(tmp_path / "both.checkpoint.safetensors", recipe())
    save(tmp_path / "mel.safetensors", recipe(speech="mel", width=80))
    (tmp_path / "broken.safetensors").write_bytes(b"broken")
    clips = [made_clip(capture), made_clip(capture, hidden=range(4))]
    monkeypatch.setattr(protocol, "synthetic_clips", lambda shards: (clips, "moonshine"))
    report = evaluate_ablation(tmp_path, shards=[tmp_path])
    assert list(report.figures) == [SYNTHETIC]
    assert list(report.figures[SYNTHETIC]) == ["video", "both"]
    assert report.failed.keys() == {"broken.safetensors", f"mel, {SYNTHETIC}"}
    assert all(0 < each.nme < 100 and each.vertices_mm > 0 for each in report.figures[SYNTHETIC].values())
    text = report.table()
    assert f"{SYNTHETIC}: Table 1" in text and "e from AV + dropout + temporal" in text and "left out" in text
    content = json.loads(report.to_json())
    assert content["figures"][SYNTHETIC]["both"]["nme"] == report.figures[SYNTHETIC]["both"].nme


def test_json_has_null_where_a_figure_is_missing():
    nothing = NetworkFigures(1.0, 0.9, 1.0, float("nan"), float("nan"), float("nan"), 0.1)
    report = AblationReport(tuple(rows()[:1]), {REAL: {"video": nothing}})
    assert json.loads(report.to_json())["figures"][REAL]["video"]["occluded"] is None
    assert "  -  " in report.table()


def test_missing_folders_and_nothing_to_measure_on_are_told(tmp_path):
    with pytest.raises(AvfaceError, match="--shards"):
        evaluate_ablation(tmp_path)
    with pytest.raises(AvfaceError, match="seeds=-1: must be 0 or more"):
        evaluate_ablation(tmp_path, shards=[tmp_path], seeds=-1)
    with pytest.raises(AvfaceError, match="no such folder"):
        evaluate_ablation(tmp_path / "none", shards=[tmp_path])
    with pytest.raises(AvfaceError, match="no weights"):
        evaluate_ablation(tmp_path, shards=[tmp_path])
