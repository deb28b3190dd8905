"""`avface reconstruct`, `view` and their refusals: a rendered head as video, and every kind of bad file."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from captures import moving_capture
from real_clips import real_clip
from videos import Track, beep, constant_rate, corrupt, gradients, noises, truncate, write_sound, write_video

import avface.capture
import avface.export.gltf
import avface.export.overlay
import avface.pipeline
import avface.tracking
from avface.capture import Capture
from avface.cli import main
from avface.cli.results import Job, completed_capture
from avface.errors import AvfaceError
from avface.export.overlay import export_overlay
from avface.files import replacing
from avface.head.asset import find_head
from avface.media import EncodingConfig, VideoWriter
from avface.stages import DEFAULT_STAGES

FRAMES = 10
RESULTS = ["capture.npz", "head.glb", "talk_1_avface.csv"]
CLIP = "0Fi83BHQsMA_00002.mp4"


@pytest.fixture(scope="module")
def talking(tmp_path_factory):
    """A video of the open head, moving and talking before a grey background; the tracker finds its face."""
    folder = tmp_path_factory.mktemp("talking")
    made = moving_capture(FRAMES)
    with VideoWriter(folder / "wall.mp4", encoding=EncodingConfig(crf=5)) as writer:
        for time in made.times:
            writer.write(np.full((240, 320, 3), 150, np.uint8), float(time))
    return export_overlay(made, folder / "talk.mp4", video=folder / "wall.mp4", layout="blended")


@pytest.fixture(scope="module")
def reconstructed(talking):
    return avface.pipeline.reconstruct(talking)


@pytest.fixture
def reconstruct_at_once(monkeypatch, reconstructed):
    """`reconstruct` returns a stored capture at once: for tests of what follows it."""
    monkeypatch.setattr(avface.pipeline, "reconstruct", lambda path, **options: reconstructed)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder of commands; bad input must not change it."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def files(place):
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


def refusal(capsys, *words, code=2):
    """The line on stderr of a command that fails; it must print nothing else."""
    assert main([*map(str, words)]) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("avface: error: ")
    assert output.err.count("\n") == 1 and output.err.endswith("\n"), output.err
    return output.err


def make_no_face(path):
    return write_video(path, gradients(3), constant_rate(3))


def make_empty(path):
    path.touch()
    return path


def make_letter(path):
    path.write_text("Hello, this is a letter.\n" * 200)
    return path


def make_song(path):
    return write_sound(path, Track(beep(1.0, 0.2)))


def make_undecodable(path):
    whole = write_video(
        path.with_name("whole.mp4"),
        noises(10),
        constant_rate(10),
        container_options={"movflags": "+faststart"},
    )
    start = whole.read_bytes().index(b"mdat") / whole.stat().st_size
    return corrupt(whole, path, start + 0.001, 1.0)


@pytest.mark.parametrize("verb", [["reconstruct"], ["view", "--no-open"]])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, "no such file"),
        (make_empty, "is empty"),
        (make_letter, "not a video"),
        (make_song, "no video stream"),
        (make_undecodable, "no frame of this video could be decoded"),
        (make_no_face, "no face found"),
    ],
    ids=["missing", "empty", "no video", "sound only", "nothing decodable", "no face"],
)
def test_a_bad_video_gets_one_line_with_its_name_and_leaves_nothing(
    tmp_path, folder, monkeypatch, capsys, verb, make, message
):
    video = make(tmp_path / "bad.mp4")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = files(tmp_path)

    output = refusal(capsys, *verb, video)

    assert message in output
    assert str(video) in output
    assert files(tmp_path) == before


def test_reconstruct_writes_a_folder_named_after_the_video_and_nothing_to_stderr(folder, talking, capfd):
    assert main(["reconstruct", str(talking)]) == 0

    output = capfd.readouterr()  # would hold the log of MediaPipe's C++ too
    assert files(folder) == ["talk-avface", *(f"talk-avface/{name}" for name in RESULTS)]
    capture = Capture.load(folder / "talk-avface" / "capture.npz")
    assert len(capture) == FRAMES
    assert f"{FRAMES} frames, face found in all {FRAMES}" in output.out
    assert all(str(Path("talk-avface", name)) in output.out for name in RESULTS)
    assert output.err == ""


def test_the_options_add_their_files(folder, talking, reconstruct_at_once, capsys):
    options = ["--overlay", "--page", "--usd", "--json"]
    assert main(["reconstruct", str(talking), "-o", "deep/er", *options]) == 0

    facts = json.loads(capsys.readouterr().out)
    names = sorted([*RESULTS, "overlay.mp4", "page.html", "head.usdc", "head_colour.png"])
    assert files(folder / "deep" / "er") == names
    assert sorted(Path(each["path"]).name for each in facts["written"]) == names
    assert all(each["bytes"] == Path(each["path"]).stat().st_size for each in facts["written"])
    assert (facts["frames"], facts["frames_with_face"], facts["warnings"]) == (FRAMES, FRAMES, [])


def test_options_are_passed_to_reconstruct(talking, reconstructed, monkeypatch):
    calls = []
    monkeypatch.setattr(
        avface.pipeline, "reconstruct", lambda path, **given: calls.append(given) or reconstructed
    )

    assert main(["reconstruct", str(talking), "--face", "1", "--focal-length", "400.5", "--quiet"]) == 0
    assert main(["reconstruct", str(talking), "--face", "160,120.5", "--quiet"]) == 0
    assert main(["reconstruct", str(talking), "--stages", "coarse,lips,detail", "--quiet"]) == 0

    assert [given["stages"] for given in calls] == [
        DEFAULT_STAGES,
        DEFAULT_STAGES,
        (*DEFAULT_STAGES, "detail"),
    ]
    assert calls[0]["face"] == 1 and calls[0]["focal_length"] == 400.5
    assert calls[1]["face"] == (160, 120.5) and calls[1]["focal_length"] is None


def test_a_person_who_is_not_there_is_refused_with_the_videos_name(folder, talking, capsys):
    output = refusal(capsys, "reconstruct", talking, "--face", 3)
    assert "face 3" in output and str(talking) in output
    assert files(folder) == []


@pytest.mark.parametrize("stages", ["lips", "coarse,hair", ""])
def test_an_unknown_stage_is_refused_before_the_work(folder, talking, monkeypatch, capsys, stages):
    monkeypatch.setattr(avface.tracking, "track", lambda *_, **__: pytest.fail("too late"))

    output = refusal(capsys, "reconstruct", talking, "--stages", stages)

    assert f"stages {stages}" in output and "use coarse or coarse,lips" in output
    assert files(folder) == []


def test_an_unknown_head_is_refused_before_the_work(folder, talking, monkeypatch, capsys):
    monkeypatch.setattr(avface.pipeline, "reconstruct", lambda *_, **__: pytest.fail("too late"))
    assert "nobody: unknown head" in refusal(capsys, "reconstruct", talking, "--head", "nobody")
    damaged = folder / "head.npz"
    damaged.write_bytes(b"PK\x03\x04 not a head")
    assert str(damaged) in refusal(capsys, "reconstruct", talking, "--head", damaged)
    assert files(folder) == ["head.npz"]


def test_an_unknown_device_is_refused_before_the_work(folder, talking, monkeypatch, capsys):
    monkeypatch.setattr(avface.pipeline, "reconstruct", lambda *_, **__: pytest.fail("too late"))
    assert "device abacus" in refusal(capsys, "reconstruct", talking, "--device", "abacus")
    assert files(folder) == []


def test_a_file_where_the_folder_should_be(folder, talking, capsys):
    (folder / "taken").write_text("mine")
    assert "taken: is a file" in refusal(capsys, "reconstruct", talking, "-o", "taken")
    assert "taken: is a file" in refusal(capsys, "reconstruct", talking, "-o", "taken/below")
    assert (folder / "taken").read_text() == "mine"


def test_a_folder_where_a_file_should_be(folder, talking, capsys):
    (folder / "out" / "head.glb").mkdir(parents=True)
    assert "head.glb: is a folder" in refusal(capsys, "reconstruct", talking, "-o", "out")
    assert files(folder) == ["out", "out/head.glb"]


@pytest.mark.parametrize("below", ["", "new"])
def test_a_folder_without_write_permission(monkeypatch, talking, capsys, below):
    place = Path(tempfile.mkdtemp())  # not in tmp_path, whose parents the user nobody may not enter
    place.chmod(0o555)
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    monkeypatch.setattr(avface.pipeline, "reconstruct", lambda *_, **__: pytest.fail("too late"))
    try:
        if root:  # root may write everywhere, so test as nobody
            os.seteuid(65534)
        output = refusal(capsys, "reconstruct", talking, "-o", place / below)
        assert f"{place / below}: can't be written (Permission denied)" in output
        assert files(place) == []
    finally:
        if root:
            os.seteuid(0)
        shutil.rmtree(place)


@pytest.mark.parametrize(
    "stop", [KeyboardInterrupt, RuntimeError("a defect"), OSError(28, "No space left on device")]
)
@pytest.mark.parametrize("earlier", [False, True])
def test_stopped_while_writing_complete_files_stay_and_no_part_of_others(
    folder, talking, reconstruct_at_once, monkeypatch, capsys, stop, earlier
):
    if earlier:
        (folder / "out").mkdir()
        for name in ("capture.npz", "head.glb"):
            (folder / "out" / name).write_text("earlier")

    def give_up(capture, path, **_):
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise stop

    monkeypatch.setattr(avface.export.gltf, "export_glb", give_up)
    words = ["reconstruct", str(talking), "-o", "out"]
    if stop is KeyboardInterrupt:
        assert "interrupted" in refusal(capsys, *words, code=130)
    elif isinstance(stop, RuntimeError):  # a bug: its traceback is wanted
        with pytest.raises(RuntimeError, match="a defect"):
            main(words)
    else:
        assert "No space left" in refusal(capsys, *words)

    assert files(folder) == ["out", "out/capture.npz", *(["out/head.glb"] if earlier else [])]
    assert len(Capture.load(folder / "out" / "capture.npz")) == FRAMES
    if earlier:
        assert (folder / "out" / "head.glb").read_text() == "earlier"


def test_stopped_before_the_first_file_no_folder_is_left(
    folder, talking, reconstruct_at_once, monkeypatch, capsys
):
    def give_up(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Capture, "save", give_up)
    assert "No space left" in refusal(capsys, "reconstruct", talking, "-o", "out/deeper")
    assert files(folder) == []


def test_core_files_are_complete_before_others_begin(
    folder, talking, reconstructed, reconstruct_at_once, monkeypatch, capsys
):
    there = []

    def slow(capture, path, **options):
        there.append(files(folder / "out"))
        time.sleep(0.5)
        path.write_text("an overlay")
        return path

    monkeypatch.setattr(avface.export.overlay, "export_overlay", slow)
    assert main(["reconstruct", str(talking), "-o", "out", "--overlay", "--page", "--json"]) == 0
    assert set(there[0]) >= set(RESULTS)
    facts = json.loads(capsys.readouterr().out)
    assert facts["writing_seconds"]["overlay.mp4"] >= 0.5
    assert set(facts["writing_seconds"]) == {"overlay.mp4", "page.html"}
    assert facts["frames_per_second"] == pytest.approx(FRAMES / facts["seconds"], rel=0.01)
    start = time.perf_counter()
    assert main(["reconstruct", str(talking), "-o", "out", "--overlay"]) == 0
    took = time.perf_counter() - start
    text = capsys.readouterr().out
    seconds, overlay = (float(each) for each in re.findall(r"([\d.]+) s,", text))
    assert overlay >= 0.5 and seconds <= took - 0.5 + 0.1, "the overlay counts as reconstruction"


needs_signals = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@needs_signals
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_request_to_end_has_the_exit_code_of_shells_and_leaves_its_handler_as_it_was(
    folder, talking, monkeypatch, capsys, number, code
):
    before = signal.getsignal(number)
    monkeypatch.setattr(avface.pipeline, "reconstruct", lambda path, **options: signal.raise_signal(number))
    assert main(["reconstruct", str(talking), "--quiet"]) == code
    assert capsys.readouterr() == ("", "avface: error: terminated\n")
    assert signal.getsignal(number) == before and files(folder) == []


@pytest.mark.slow
@needs_signals
def test_terminated_while_writing_core_files_are_complete_and_nothing_hidden_is_left(
    folder, talking, reconstructed
):
    reconstructed.save(folder.parent / "stored.npz")
    script = f"""
import sys, time
import avface.pipeline
from avface.capture import Capture
from avface.cli import main
from avface.media import VideoWriter
avface.pipeline.reconstruct = lambda path, **_: Capture.load({str(folder.parent / "stored.npz")!r})
write = VideoWriter.write
VideoWriter.write = lambda *given: (time.sleep(0.5), write(*given))
sys.exit(main(["reconstruct", {str(talking)!r}, "-o", "out", "--overlay"]))
"""
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not any(path.name.startswith(".overlay") for path in folder.glob("out/.*")):
        assert process.poll() is None and time.monotonic() < deadline, "the overlay doesn't begin"
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (143, "avface: error: terminated\n")
    assert files(folder) == ["out", *(f"out/{name}" for name in RESULTS)]


@pytest.fixture
def videos(folder, talking):
    """A folder with two good videos, a bad one, a hidden one and a text."""
    place = folder / "shots"
    place.mkdir()
    for name in ("b.mp4", "c.MOV", ".d.mp4"):
        shutil.copy(talking, place / name)
    make_letter(place / "a.mp4")
    (place / "notes.txt").write_text("mine")
    return place


@pytest.fixture
def counted(monkeypatch, reconstructed):
    """Videos that are reconstructed: good ones at once, others are read and refused."""
    calls, reconstruct = [], avface.pipeline.reconstruct

    def fake(path, **options):
        calls.append(path)
        if Path(path).stat().st_size < 10_000:
            reconstruct(path, **options)
        return replace(reconstructed, source=str(path))

    monkeypatch.setattr(avface.pipeline, "reconstruct", fake)
    return calls


def results(name, *more):
    return [name, *sorted(f"{name}/{file}" for file in (*core(name), *more))]


def core(name):
    return [f"{name.removesuffix('-avface')}_1_avface.csv", "capture.npz", "head.glb"]


def test_of_several_videos_each_gets_a_line_and_a_folder_and_a_bad_one_does_not_stop_the_rest(
    folder, videos, talking, counted, capsys
):
    assert main(["reconstruct", "shots", str(talking), "shots/b.mp4", "-o", "all"]) == 2
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == ["shots/b.mp4", "shots/c.MOV", str(talking)]
    assert all(f"{FRAMES} frames, face found in all" in line for line in lines[:-1])
    assert lines[-1] == "3 of 4 videos reconstructed; 1 failed: shots/a.mp4"
    assert output.err.startswith("avface: error: shots/a.mp4: not a video") and output.err.count("\n") == 1
    expected = [*results("b-avface"), *results("c-avface"), *results("talk-avface")]
    assert files(folder / "all") == sorted(expected)
    assert counted.count(Path("shots/b.mp4")) == 1


@pytest.mark.slow
def test_several_videos_as_json_and_their_exit_code(folder, videos, counted, capsys):
    assert main(["reconstruct", "shots", "--json"]) == 2
    output = capsys.readouterr()
    facts = json.loads(output.out)
    assert output.err == ""
    assert (facts["reconstructed"], facts["failed"], facts["skipped"]) == (2, 1, 0)
    assert "not a video" in facts["videos"][0]["error"]
    assert facts["videos"][1]["frames"] == FRAMES
    assert main(["reconstruct", "shots/b.mp4", "shots/c.MOV", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_resume_skips_what_is_complete_and_writes_what_is_missing(folder, videos, counted, capsys):
    good = ["shots/b.mp4", "shots/c.MOV"]
    assert main(["reconstruct", *good, "--quiet"]) == 0
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*-avface/*")}
    counted.clear()
    assert main(["reconstruct", *good, "--resume"]) == 0
    assert "2 complete before" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*-avface/*")} == before
    (folder / "b-avface" / "head.glb").unlink()
    assert main(["reconstruct", *good, "--resume", "--page"]) == 0
    assert counted == [], "a complete capture was computed again"
    assert files(folder / "b-avface") == sorted([*core("b-avface"), "page.html"])
    assert {path: path.stat().st_mtime_ns for path in before if path.name == "capture.npz"} == {
        path: when for path, when in before.items() if path.name == "capture.npz"
    }
    assert main(["reconstruct", *good, "--quiet"]) == 0
    assert len(counted) == 2, "without --resume everything is computed again"


@pytest.mark.slow
def test_resume_computes_again_what_is_of_another_video_head_stage_or_track_or_damaged(
    folder, videos, counted, talking, reconstructed
):
    words = ["reconstruct", "shots/b.mp4", "--resume", "--quiet"]
    capture = folder / "b-avface" / "capture.npz"
    assert main(words) == 0
    for spoil in (
        lambda: capture.write_bytes(b"PK half a file"),
        lambda: replace(reconstructed, source=str(talking)).save(capture),
        lambda: os.utime("shots/b.mp4", (time.time() + 100, time.time() + 100)),
    ):
        counted.clear()
        spoil()
        assert main(words) == 0
        assert counted == [Path("shots/b.mp4")]
    os.utime("shots/b.mp4", (1, 1))
    counted.clear()
    assert main(words) == 0 and counted == []
    assert main([*words, "--stages", "coarse,detail"]) == 0 and len(counted) == 1
    counted.clear()
    assert main([*words, "--audio-track", "1"]) == 0 and len(counted) == 1


def test_resume_takes_no_capture_of_another_head(folder, talking, reconstructed):
    """Any two heads but the open one were taken for the same."""
    for name in ("one.npz", "two.npz"):
        shutil.copy(find_head("open"), folder / name)
    job = Job(talking, folder)
    replace(reconstructed, head="one.npz", source=str(talking)).save(folder / "capture.npz")
    found = {
        head: completed_capture(job, head, ("coarse",)) is not None
        for head in ("one.npz", str(folder / "one.npz"), "two.npz", "gone.npz", "open")
    }
    assert found == {
        "one.npz": True, str(folder / "one.npz"): True, "two.npz": False, "gone.npz": False, "open": False
    }  # fmt: skip


def test_resume_writes_an_overlay_again_that_is_older_than_the_capture(folder, videos, counted):
    words = ["reconstruct", "shots/b.mp4", "--page", "--resume", "--quiet"]
    assert main(words) == 0
    page = folder / "b-avface" / "page.html"
    os.utime(page, (1, 1))
    page.write_text("of an earlier capture")
    os.utime(page, (1, 1))
    counted.clear()
    assert main(words) == 0
    assert counted == [] and "<html" in page.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name at least one video"),
        (["empty"], "empty: has no videos"),
        (["shots/b.mp4", "other/b.mp4"], "other/b.mp4: has the name of shots/b.mp4"),
        (["shots/b.mp4", "b-avface/overlay.mp4", "--overlay"], "is the captured video"),
        (["shots", "-o", "shots/notes.txt"], "is a file"),
    ],
)
def test_several_videos_that_cannot_work_are_refused_before_the_work(
    folder, videos, counted, capsys, words, message
):
    for place, name in (("other", "b.mp4"), ("b-avface", "overlay.mp4")):
        (folder / place).mkdir()
        shutil.copy(videos / "b.mp4", folder / place / name)
    (folder / "empty").mkdir()
    before = files(folder)
    assert message in refusal(capsys, "reconstruct", *words)
    assert counted == [] and files(folder) == before


def test_errors_while_writing_name_the_file_and_not_the_temporary_one(
    folder, talking, reconstruct_at_once, monkeypatch, capsys
):
    def refuse(capture, path, **_):
        raise AvfaceError(f"{path}: can't be written")

    monkeypatch.setattr(avface.export.gltf, "export_glb", refuse)
    output = refusal(capsys, "reconstruct", talking, "-o", "out")
    assert output == f"avface: error: {Path('out', 'head.glb')}: can't be written\n"


def test_results_of_an_earlier_run_are_replaced_and_other_files_stay(folder, talking, reconstruct_at_once):
    out = folder / "out"
    out.mkdir()
    (out / "head.glb").write_text("old")
    (out / "notes.txt").write_text("mine")
    assert main(["reconstruct", str(talking), "-o", "out", "--quiet"]) == 0
    assert (out / "head.glb").read_bytes()[:4] == b"glTF"
    assert files(out) == sorted([*RESULTS, "notes.txt"])


def test_of_a_truncated_video_the_rest_is_used_with_a_warning(tmp_path, folder, talking, capsys):
    import av

    whole = tmp_path / "whole.mp4"
    with (
        av.open(str(talking)) as source,
        av.open(str(whole), "w", container_options={"movflags": "+faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    broken = truncate(whole, tmp_path / "broken.mp4", 0.7)

    assert main(["reconstruct", str(broken)]) == 0

    output = capsys.readouterr()
    kept = len(Capture.load(folder / "broken-avface" / "capture.npz"))
    assert 0 < kept < FRAMES
    assert output.err.startswith(f"avface: warning: {broken}: ") and output.err.count("\n") == 1
    assert f"{kept} of {FRAMES} frames" in output.err
    assert main(["reconstruct", str(broken), "--json"]) == 0
    output = capsys.readouterr()
    assert output.err == "" and str(broken) in json.loads(output.out)["warnings"][0]


def test_the_video_is_never_overwritten(folder, talking, reconstructed, capsys):
    video = folder / "overlay.mp4"
    shutil.copy(talking, video)
    output = refusal(capsys, "reconstruct", "overlay.mp4", "-o", ".", "--overlay")
    assert "overlay.mp4: is the captured video" in output
    replace(reconstructed, source="overlay.mp4").save("capture.npz")
    assert "is the captured video" in refusal(
        capsys, "export", "capture.npz", "a.csv", folder / "overlay.mp4"
    )
    assert video.read_bytes() == talking.read_bytes()
    assert files(folder) == ["capture.npz", "overlay.mp4"]


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no such terminals")
def test_progress_bars_count_frames_on_a_terminal_and_are_erased(talking, reconstructed, monkeypatch, capsys):
    def reconstruct(path, *, progress, **_):
        for done in range(FRAMES):
            progress("track", done + 1, FRAMES)
        return reconstructed

    monkeypatch.setattr(avface.pipeline, "reconstruct", reconstruct)
    ours, theirs = os.openpty()
    with open(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        assert main(["reconstruct", str(talking)]) == 0
    shown = b""
    with open(ours, "rb", buffering=0) as screen, suppress(OSError):  # how a closed terminal ends
        while part := screen.read(1 << 16):
            shown += part
    assert b"writing head.glb" in shown
    assert shown.rstrip().endswith(b"\x1b[2K"), "the last bar isn't erased"
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_paths_that_the_terminal_cannot_encode_are_escaped(
    talking, reconstruct_at_once, monkeypatch, encoding
):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding=encoding))
    assert main(["reconstruct", str(talking), "-o", "größe"]) == 0
    sys.stdout.flush()
    assert ("größe" if encoding == "utf-8" else "gr\\xf6\\xdfe") in shown.getvalue().decode()


def test_quiet_prints_nothing(talking, reconstruct_at_once, capfd):
    assert main(["reconstruct", str(talking), "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")


def test_errors_as_json(capsys):
    assert main(["reconstruct", "none.mp4", "--json"]) == 2
    output = capsys.readouterr()
    assert output.err == ""
    assert "none.mp4: no such file" in json.loads(output.out)["error"]


def test_control_characters_in_a_path_are_escaped(folder, capsys):
    output = refusal(capsys, "reconstruct", "a\nb\x1b[31m.mp4")
    assert "a\\nb\\x1b[31m.mp4: no such file" in output


def test_view_writes_and_opens_a_page(folder, talking, reconstruct_at_once, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    assert main(["view", str(talking), "-o", "seen.html"]) == 0
    assert opened == [(folder / "seen.html").as_uri()]
    assert "seen.html is open in the browser" in capsys.readouterr().out
    monkeypatch.setattr("webbrowser.open", lambda address: False)
    assert main(["view", str(talking), "-o", "seen.html"]) == 0
    assert "open seen.html in a browser" in capsys.readouterr().out


def test_view_refuses_a_page_or_a_video_that_cannot_work_before_the_work(
    folder, talking, monkeypatch, capsys
):
    monkeypatch.setattr(avface.pipeline, "reconstruct", lambda *_, **__: pytest.fail("too late"))
    monkeypatch.setattr(avface.capture.Capture, "load", lambda path: pytest.fail("too late"))
    assert "none.mp4: no such file" in refusal(capsys, "view", talking, "--video", "none.mp4")
    for source in (talking, "capture.npz"):
        assert "ends in .html" in refusal(capsys, "view", source, "-o", "page.txt")
        assert "none doesn't exist" in refusal(capsys, "view", source, "-o", "none/page.html")
    assert files(folder) == []


def test_view_without_opening_prints_the_pages_path_only(
    tmp_path, talking, reconstructed, monkeypatch, capsys
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("webbrowser.open", lambda address: pytest.fail("opened a browser"))
    reconstructed.save("capture.npz")
    assert main(["view", "capture.npz", "--no-open", "--quiet"]) == 0
    page = Path(capsys.readouterr().out.removesuffix("\n"))
    assert page.name == "talk.html" and tmp_path in page.parents
    assert 'class="video"' in page.read_text()


def test_view_leaves_no_temporary_folder_when_the_page_fails(tmp_path, reconstructed, monkeypatch, capsys):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    reconstructed.save("capture.npz")
    assert "none.mp4: no such file" in refusal(
        capsys, "view", "capture.npz", "--video", "none.mp4", "--no-open"
    )
    assert files(scratch) == []


@pytest.mark.slow
def test_the_whole_command_on_a_real_clip_prints_only_its_result(folder):
    clip = real_clip(CLIP)
    done = subprocess.run(
        [sys.executable, "-m", "avface", "reconstruct", str(clip), "-o", "out"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("41 frames, face found in all 41")
    assert files(folder / "out") == sorted([f"{clip.stem}_1_avface.csv", "capture.npz", "head.glb"])
