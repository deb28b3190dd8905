"""The command line itself, and the verbs about captures."""

import io
import json
import subprocess
import sys
import types
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from captures import moving_capture
from videos import Track, beep, constant_rate, gradients, write_video

import avface
from avface.cli import main
from avface.evaluation.demo import DemoResult
from avface.evaluation.metrics import CurveFigures

VERBS = ("demo", "reconstruct", "export", "view", "info", "evaluate", "head")
HEAVY = ("torch", "numpy", "mediapipe", "av", "scipy", "pxr", "k3d", "pygltflib", "matplotlib")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def capture(folder):
    """A saved capture of twelve frames without its video."""
    made = moving_capture()
    confidence = made.confidence.copy()
    confidence[:3] = 0
    made = replace(made, source="gone.mp4", confidence=confidence)
    made.save(folder / "capture.npz")
    return made


def refusal(capsys, *words):
    assert main([*map(str, words)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("avface: error: ")
    assert output.err.count("\n") == 1 and output.err.endswith("\n"), output.err
    return output.err.removeprefix("avface: error: ")


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from avface.cli import main; code = main(sys.argv[1:]);"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in VERBS)
    assert set(done.stderr.split()).isdisjoint(HEAVY)


def test_the_module_runs_and_gives_its_exit_code():
    done = subprocess.run(
        [sys.executable, "-m", "avface", "info", "none.mp4"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "avface: error: none.mp4: no such file\n"


@pytest.mark.parametrize("verb", [*VERBS, "head build-open", "head import", "head info", "head check"])
def test_every_verb_has_help(capsys, verb):
    assert main([*verb.split(), "--help"]) == 0
    output = capsys.readouterr()
    assert output.out.startswith(f"usage: avface {verb}") and output.err == ""


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"avface {avface.__version__}\n"


@pytest.mark.parametrize(
    ("words", "output"),
    [
        ("", "expected one of {demo, reconstruct"),
        ("recostruct a.mp4", "recostruct: no such verb (did you mean reconstruct?); use demo, reconstruct, "),
        ("xyz", "xyz: no such verb; use demo, reconstruct, "),
        ("reconstruct a.mp4 --pages", "--pages (did you mean --page?); see avface reconstruct --help"),
        ("reconstruct a.mp4 --focl 3", "--focl, 3 (did you mean --focal-length?)"),
        ("reconstruct a.mp4 --usb --no-audi", "--usb, --no-audi (did you mean --usd, --no-audio?)"),
        ("reconstruct a.mp4 --qwxz", "--qwxz; see avface reconstruct --help"),
        ("export c.npz a.ply --frame 1:2", "--frame, 1:2 (did you mean --frames?)"),
        ("synthesize occlude a.mp4 --seeds 1", "(did you mean --seed?)"),
        ("head improt", "improt (did you mean import?)"),
        ("evaluate clps", "clps (did you mean clips?)"),
        ("train lps", "lps (did you mean lips?)"),
        ("train lips --outt x", "(did you mean --out"),
        ("view", "CAPTURE|VIDEO; see avface view --help"),
        ("reconstruct", "name at least one video"),
        ("view a.mp4 b.mp4", "unrecognized options: b.mp4"),
        ("reconstruct a.mp4 --focal 3", "unrecognized options: --focal"),
        ("reconstruct a.mp4 --focal-length far", "--focal-length: 'far' is no number of pixels"),
        ("reconstruct a.mp4 --face left", "--face: 'left' is neither a number"),
        ("reconstruct a.mp4 --face 1,", "--face: '1,' is neither a number"),
        (
            "reconstruct a.mp4 --audio-track x",
            "--audio-track: 'x' is no sound track; use a whole number from 0",
        ),
        ("reconstruct a.mp4 --audio-track -1", "--audio-track: '-1' is no sound track"),
        ("export c.npz a.ply --frames 7", "--frames: '7' is no range A:B"),
        ("export c.npz a.ply --frames -1:3", "--frames: '-1:3' is no range A:B"),
        ("synthesize out --seed -1", "--seed: '-1' is no seed"),
        ("synthesize occlude a.mp4 --seed 1.5", "--seed: '1.5' is no seed"),
        ("evaluate shape --seed -1", "--seed: '-1' is no seed"),
        ("head", "expected one of {build-open, import, info, check}"),
        ("evaluate heads .", "heads"),
    ],
)
def test_wrong_usage_is_one_line(capsys, words, output):
    assert output in refusal(capsys, *words.split())


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_wrong_usage_is_one_line_in_every_encoding_of_the_terminal(capsys, monkeypatch, encoding):
    # which decides the borders of tyro's boxes
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    assert refusal(capsys, "view") == "missing from avface view: CAPTURE|VIDEO; see avface view --help\n"


def test_wrong_usage_as_json(capsys):
    assert main(["view", "--json"]) == 2
    output = capsys.readouterr()
    assert "VIDEO" in json.loads(output.out)["error"] and output.err == ""


def test_export_by_suffix_and_to_several_files(folder, capture, capsys):
    assert main(["export", "capture.npz", "a.glb", "b.csv"]) == 0
    output = capsys.readouterr().out
    assert "a.glb" in output and "b.csv" in output
    assert (folder / "a.glb").read_bytes()[:4] == b"glTF"
    rows = (folder / "b.csv").read_text().splitlines()
    assert len(rows) == 1 + np.ceil(60 * capture.times[-1]) + 1, "60 a second"


def test_export_at_chosen_rates_and_timecode(folder, capture, capsys):
    rates = ["--fps", "50", "--frame-rate", "30", "--start-timecode", "10:00:00:15"]
    assert main(["export", "capture.npz", "a.glb", "a.usda", "b.csv", *rates]) == 0
    assert "timeCodesPerSecond = 50" in (folder / "a.usda").read_text()
    rows = (folder / "b.csv").read_text().splitlines()
    assert rows[1].startswith("10:00:00:15.000,")
    assert len(rows) == 1 + np.ceil(30 * capture.times[-1]) + 1


def test_export_lists_the_textures_of_a_scene_and_no_other_pictures(folder, capture, capsys):
    (folder / "head_sketch.png").write_bytes(b"mine, a moment ago")
    assert main(["export", "capture.npz", "head.usda", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["written"]
    assert [file["path"] for file in written] == ["head.usda", "head_colour.png"]


def test_export_of_meshes_at_a_constant_rate_lists_its_files(folder, capture, capsys):
    (folder / "m").mkdir()
    assert main(["export", "capture.npz", "m/face.ply", "--fps", "5", "--frames", "1:", "--json"]) == 0
    names = sorted(path.name for path in (folder / "m").iterdir())
    last = int(np.ceil(5 * capture.times[-1]))
    assert names == [f"face_{number:06d}.ply" for number in range(1, last + 1)]
    written = json.loads(capsys.readouterr().out)["written"]
    assert [Path(file["path"]).name for file in written] == names


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.csv", "--frame-rate", "29.97"], "a.csv: frame rate 29.97 must be a whole number"),
        (["a.csv", "--frame-rate", "many"], "'many' is no number of frames per second"),
        (["a.glb", "--fps", "0"], "a.glb: frame rate 0 must be a number of frames per second from 1 to 1000"),
        (["a.csv", "--start-timecode", "noon"], "start timecode 'noon' must be HH:MM:SS:FF"),
        (["a.csv", "--fps", "30"], ".csv takes no --fps"),
        (["a.glb", "--frame-rate", "30"], ".glb takes no --frame-rate"),
        (["a.glb", "--start-timecode", "01:00:00:00"], ".glb takes no --start-timecode"),
    ],
)
def test_export_refuses_rates_and_timecodes_that_cannot_work(folder, capture, capsys, words, message):
    assert message in refusal(capsys, "export", "capture.npz", *words)
    assert [path.name for path in folder.iterdir()] == ["capture.npz"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--frame-rate", "29.97"], "frame rate 29.97 must be a whole number"),
        (["--fps", "nan"], "frame rate nan must be a number"),
        (["--start-timecode", "00:00:00:60"], "start timecode '00:00:00:60' doesn't exist"),
    ],
)
def test_reconstruct_refuses_rates_and_timecodes_before_it_begins(
    folder, capsys, monkeypatch, words, message
):
    monkeypatch.setattr("avface.pipeline.reconstruct", lambda *_, **__: pytest.fail("began"))
    (folder / "a.mp4").touch()
    assert message in refusal(capsys, "reconstruct", "a.mp4", *words)


def test_export_takes_the_folder_of_a_capture(folder, capture):
    assert main(["export", ".", "a.csv", "--quiet"]) == 0
    assert (folder / "a.csv").exists()


def test_export_of_some_frames(folder, capture, capsys):
    (folder / "m").mkdir()
    assert main(["export", "capture.npz", "m/face.ply", "--frames", "2:4", "--json"]) == 0
    names = [str(Path("m", f"face_{number:06d}.ply")) for number in (2, 3)]
    assert [each["path"] for each in json.loads(capsys.readouterr().out)["written"]] == names
    assert sorted(path.name for path in (folder / "m").iterdir()) == [Path(name).name for name in names]


def test_export_after_a_stage(folder, capture, capsys):
    (folder / "m").mkdir()
    assert (
        main(["export", "capture.npz", "m/face.ply", "--frames", "2:3", "--stage", "coarse", "--quiet"]) == 0
    )
    assert "no detail in it" in refusal(capsys, "export", "capture.npz", "f.ply", "--stage", "detail")
    assert ".glb takes no --stage" in refusal(capsys, "export", "capture.npz", "a.glb", "--stage", "lips")


def test_export_refuses_options_and_paths_that_cannot_work_before_writing(folder, capture, capsys):
    assert ".glb takes no --frames" in refusal(capsys, "export", "capture.npz", "a.glb", "--frames", "0:2")
    assert ".csv takes no --video" in refusal(capsys, "export", "capture.npz", "a.csv", "--video", "v.mp4")
    assert "12 frames" in refusal(capsys, "export", "capture.npz", "a.ply", "--frames", "50:60")
    output = refusal(capsys, "export", "capture.npz", "a.glb", "a.fbx")
    assert "a.fbx" in output and ".glb" in output and ".usdc" in output and ".csv" in output
    assert "a.glb" in refusal(capsys, "export", "capture.npz", "b.csv", "none/a.glb")
    assert "capture.npz: name at least one file" in refusal(capsys, "export", "capture.npz")
    assert [path.name for path in folder.iterdir()] == ["capture.npz"]


def test_an_overlay_needs_the_video_and_a_page_warns_without_it(folder, capture, capsys):
    output = refusal(capsys, "export", "capture.npz", "o.mp4")
    assert "gone.mp4" in output and "--video" in output
    assert main(["export", "capture.npz", "p.html"]) == 0
    output = capsys.readouterr().err
    assert output.startswith("avface: warning: p.html: ") and "gone.mp4" in output and output.count("\n") == 1
    video = write_video(folder / "found.mp4", gradients(12, 320, 240), constant_rate(12))
    assert main(["export", "capture.npz", "p.html", "o.mp4", "--video", str(video)]) == 0
    assert capsys.readouterr().err == ""
    assert 'class="video"' in (folder / "p.html").read_text()


def test_a_video_that_cannot_be_read_is_refused_before_anything_is_written(folder, capture, capsys):
    output = refusal(capsys, "export", "capture.npz", "a.glb", "p.html", "--video", "none.mp4")
    assert output == "none.mp4: no such file\n"
    assert [path.name for path in folder.iterdir()] == ["capture.npz"]


def damaged(folder):
    whole = (folder / "capture.npz").read_bytes()
    (folder / "bad.npz").write_bytes(whole[: len(whole) // 2])


def emptied(folder):
    (folder / "bad.npz").touch()


def pickled(folder):
    np.savez(folder / "bad.npz", capture_version=np.array([{"a": 1}], object))


def other(folder):
    np.savez(folder / "bad.npz", weights=np.zeros(3))


@pytest.mark.parametrize("make", [damaged, emptied, pickled, other, lambda folder: None])
@pytest.mark.parametrize("words", [["info", "bad.npz"], ["view", "bad.npz"], ["export", "bad.npz", "a.glb"]])
def test_a_bad_capture_file(folder, capture, capsys, make, words):
    make(folder)
    before = sorted(folder.iterdir())
    assert refusal(capsys, *words).startswith("bad.npz: ")
    assert sorted(folder.iterdir()) == before


def test_a_capture_of_an_unknown_head(folder, capture, capsys):
    replace(capture, head="nobody").save("other.npz")
    assert "nobody: unknown head" in refusal(capsys, "export", "other.npz", "a.glb")
    assert not (folder / "a.glb").exists()


def test_info_of_a_capture(capture, capsys):
    assert main(["info", "capture.npz", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["frames"], facts["frames_with_face"], facts["head"]) == (12, 9, "open")
    assert facts["duration_s"] == pytest.approx(11 / 25)
    assert facts["focal_length_px"] == pytest.approx(capture.focal_length)
    assert facts["segments"] == [{"first_frame": 0, "frames": 12, "same_person": True}]
    assert {"jawOpen", "eyeBlinkLeft", "browInnerUp"} <= set(list(facts["strongest_expressions"])[:5])
    assert main(["info", "capture.npz"]) == 0
    assert "jawOpen" in capsys.readouterr().out


def test_info_of_a_video(folder, capsys):
    write_video(folder / "clip.mp4", gradients(6), constant_rate(6))
    assert main(["info", "clip.mp4", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["frames"], facts["size_px"], facts["sound_tracks"]) == (6, [64, 48], [])
    assert (facts["pixel_aspect"], facts["hdr"], facts["sound_track_used"]) == (1, "no", "none")
    assert facts["frames_per_s"] == pytest.approx(30, rel=0.01)


def test_info_of_a_video_says_oblong_pixels_and_lists_sound_tracks(folder, capsys):
    silent, spoken = Track(beep(0.2, 0.0, level=0.0)), Track(beep(0.2, 0.0), tags={"language": "eng"})
    tracks, times = [silent, spoken], constant_rate(6)
    write_video(folder / "clip.mkv", gradients(6), times, tracks=tracks, pixel_aspect=Fraction(4, 3))
    assert main(["info", "clip.mkv", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["size_px"], facts["pixel_aspect"]) == ([85, 48], pytest.approx(4 / 3, abs=1e-4))
    assert (facts["sound_track_used"], [track["number"] for track in facts["sound_tracks"]]) == (1, [0, 1])
    expected = {"number": 1, "codec": "aac", "channels": 1, "sample_rate": 48000, "language": "eng"}
    assert facts["sound_tracks"][1] == expected
    assert main(["info", "clip.mkv"]) == 0
    text = capsys.readouterr().out
    assert "pixel aspect" in text and "language: eng" in text


def test_head_info(capsys):
    assert main(["head", "info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["name"], len(facts["expression_units"])) == ("open", 52)
    assert "nobody: unknown head" in refusal(capsys, "head", "info", "nobody")


def test_evaluate_prints_the_table_or_the_figures(monkeypatch, capsys):
    report = types.SimpleNamespace(table=lambda: "clip  NME\na  1.0", to_json=lambda: '{"nme": 1.0}')
    calls = []

    def evaluate_clips(directory, *, progress):
        progress("a.mp4", "track", 1, 2)
        calls.append(directory)
        return report

    monkeypatch.setattr("avface.evaluation.evaluate_clips", evaluate_clips, raising=False)
    assert main(["evaluate", "clips", "videos", "--quiet"]) == 0
    assert capsys.readouterr().out == "clip  NME\na  1.0\n"
    assert main(["evaluate", "clips", "videos", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"nme": 1.0, "warnings": []}
    assert calls == [Path("videos")] * 2


def test_demo_prints_the_error_and_the_path_of_the_page(folder, monkeypatch, capsys):
    curves = CurveFigures()
    curves.add(("jawOpen",), np.linspace(0, 0.5, 9)[:, None], np.linspace(0, 1, 9)[:, None])

    def run_demo(output, progress):
        progress("track", 1, 1)
        output.mkdir()
        page = output / "page.html"
        page.write_text("page")
        return DemoResult(
            [None] * 60,
            (page,),
            page,
            error_mm=1.234,
            rigid_error_mm=2.5,
            average_error_mm=3.5,
            curves=curves,
        )

    monkeypatch.setattr("avface.evaluation.demo.run_demo", run_demo)
    assert main(["demo", "--no-open", "-o", "out"]) == 0
    output = capsys.readouterr().out
    assert "median r 1.00, gain 0.50" in output
    assert "60 frames" in output and "1.23 mm" in output and str(Path("out", "page.html")) in output
    (folder / "taken").touch()
    assert "taken: is a file" in refusal(capsys, "demo", "-o", "taken")


@pytest.mark.parametrize("verb", ["view", "info", "export", "reconstruct"])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("head.glb", "an animated head (glTF)"),
        ("talk_1_avface.csv", "a table of curves"),
        ("page.html", "a page, which a browser shows"),
        ("head.USDC", "an animated head (USD)"),
    ],
)
def test_files_that_avface_writes_but_cannot_read_are_named_for_what_they_are(
    folder, capsys, verb, name, kind
):
    (folder / name).write_bytes(b"anything")
    message = refusal(capsys, verb, name, *(["a.glb"] if verb == "export" else []))
    assert message.startswith(f"{name}: is {kind}")
    assert message.endswith("not a capture or a video; give the capture.npz that it was made from\n")
    assert [path.name for path in folder.iterdir()] == [name]


def test_a_video_without_a_verb_is_told_the_verbs_for_it(folder, capsys):
    (folder / "talk.mp4").touch()
    assert refusal(capsys, "talk.mp4") == (
        "talk.mp4: name a verb before the file, such as avface reconstruct or avface info\n"
    )


def test_results_that_would_go_to_a_dangling_link_are_refused_before_the_work(folder, capsys):
    (folder / "out").symlink_to(folder / "gone")
    (folder / "clip.mp4").touch()
    for path in ("out", "out/more"):
        message = refusal(capsys, "reconstruct", "clip.mp4", "-o", path)
        assert message == (
            f"out: is a link to {folder / 'gone'}, which doesn't exist; make it or choose another folder\n"
        )
    assert not (folder / "gone").exists()
