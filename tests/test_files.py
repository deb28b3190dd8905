"""Files and folders that appear whole or not at all, temporary files, names that aren't UTF-8."""

import ast
import errno
import io
import os
import stat
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from captures import moving_capture
from safetensors.torch import load_file
from videos import constant_rate, gradients, write_video

import avface
from avface.capture import Capture
from avface.cli import main
from avface.errors import AvfaceError
from avface.files import filling, replacing, replacing_folder, write_tensors
from avface.files.names import on_disk, readable
from avface.files.temporary import fall_back_to, lasting_temporary_folder, temporary_file, temporary_folder
from avface.tracking.face_track import BUFFER, RecordFile


class StorageError(AvfaceError):
    """An error of the caller's own."""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_keeps_its_old_content_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "face.csv"
    path.write_text("old")

    with replacing(path) as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".csv"
        assert temporary.name.startswith(".face.csv.")
        temporary.write_text("new")
        assert path.read_text() == "old"

    assert path.read_text() == "new"
    assert names(tmp_path) == ["face.csv"]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (
            OSError(28, "No space left on device"),
            "face.csv: can't be written .No space left.*free some space",
        ),
        (OSError("no reason"), "face.csv: can't be written .no reason"),
        (AvfaceError("the block's own"), "the block's own"),
        (KeyboardInterrupt("stop"), "stop"),
    ],
)
@pytest.mark.parametrize("writer", [replacing, replacing_folder, filling])
def test_a_failed_write_leaves_no_temporary_file_and_the_old_one_unchanged(tmp_path, writer, error, raised):
    path = tmp_path / "face.csv"
    if writer is replacing_folder:
        path.mkdir()
        (path / "old").write_text("old")
    else:
        path.write_text("old")

    with pytest.raises((AvfaceError, KeyboardInterrupt), match=raised), writer(path) as temporary:
        (temporary if writer is replacing else temporary / "face.csv").write_text("half")
        raise error

    assert names(tmp_path) == ["face.csv"]
    assert (path / "old" if path.is_dir() else path).read_text() == "old"


@pytest.mark.parametrize("writer", [replacing, filling])
def test_a_missing_folder_is_named(tmp_path, writer):
    with (
        pytest.raises(AvfaceError, match=r"can't be written, the folder .*none doesn't exist"),
        writer(tmp_path / "none" / "a.bin"),
    ):
        pass


def test_the_caller_chooses_the_error(tmp_path):
    def full(path, error):
        return StorageError(f"{path.name}: {error.strerror}, and so on")

    with (
        pytest.raises(StorageError, match=r"a\.bin: No such file or directory, and so on") as caught,
        replacing(tmp_path / "none" / "a.bin", full),
    ):
        pass
    assert isinstance(caught.value.__cause__, OSError)


def test_a_folder_takes_the_place_of_an_older_one_with_all_that_was_in_it(tmp_path):
    folder = tmp_path / "more" / "clip"
    for name in ("first", "second"):
        with replacing_folder(folder) as temporary:
            (temporary / name).touch()
            assert not (folder / name).exists()

    assert names(folder) == ["second"] and names(folder.parent) == ["clip"]


def test_files_that_fill_a_folder_leave_the_others_alone(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    (tmp_path / "other.txt").write_text("other")

    with filling(tmp_path / "a.txt") as temporary:
        for name in ("a.txt", "b.txt"):
            (temporary / name).write_text("new")

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a.txt": "new",
        "b.txt": "new",
        "other.txt": "other",
    }


def test_tensors_that_share_memory_are_written_and_others_may_read_the_file(tmp_path):
    path, plain = tmp_path / "w.safetensors", tmp_path / "plain"
    whole = torch.arange(6.0).reshape(2, 3)
    plain.touch()

    write_tensors(path, {"whole": whole, "turned": whole.T}, {"kind": "test"})

    loaded = load_file(path)
    assert torch.equal(loaded["whole"], whole) and torch.equal(loaded["turned"], whole.T)
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    assert names(tmp_path) == ["plain", "w.safetensors"]


def test_a_path_that_is_a_folder_is_refused_in_one_line(tmp_path):
    (tmp_path / "w.safetensors").mkdir()
    with pytest.raises(AvfaceError, match=r"w\.safetensors: can't be written") as caught:
        write_tensors(tmp_path / "w.safetensors", {"a": torch.zeros(2)}, {})
    assert "\n" not in str(caught.value) and names(tmp_path) == ["w.safetensors"]


ROOM = 40_000
"""Bytes that fit into a full folder."""


class FullFile(io.FileIO):
    """A file in a folder with `ROOM` bytes."""

    def write(self, data):
        room = ROOM - os.fstat(self.fileno()).st_size
        if room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(memoryview(data)[:room])


@pytest.fixture
def results(tmp_path):
    """The folder to fall back to."""
    folder = tmp_path / "results"
    folder.mkdir()
    fall_back_to(folder)
    yield folder
    fall_back_to(None)


@pytest.fixture
def full(tmp_path, monkeypatch):
    """The system's folder for temporary files has `ROOM` bytes; others have more."""
    folder = tmp_path / "full"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    make = tempfile.TemporaryFile

    def limited(*args, dir, **options):
        file = make(*args, dir=dir, **options)
        return FullFile(os.dup(file.fileno()), "r+") if dir == str(folder) else file

    monkeypatch.setattr(tempfile, "TemporaryFile", limited)
    return folder


@pytest.fixture
def nowhere(monkeypatch):
    """No folder for temporary files can be used."""

    def missing():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", missing)


def records(count, first=0):
    return np.arange(first, first + count, dtype="<i8")


def test_records_move_to_the_results_when_the_temporary_folder_is_full(full, results):
    file = RecordFile(np.dtype("<i8"))
    for first in range(0, 300_000, 1000):  # two buffers and more
        file.append(records(1000, first))
        if first == 1000:
            np.testing.assert_array_equal(file.read(0, 2000), records(2000))
    assert 2 * BUFFER < 300_000 * 8

    np.testing.assert_array_equal(file.read(0, 300_000), records(300_000))
    np.testing.assert_array_equal(file.read(123, 124), [123])
    assert names(full) == names(results) == [], "neither file has a name"


def test_a_full_temporary_folder_is_one_error_where_there_is_no_other(full):
    file = RecordFile(np.dtype("<i8"))
    with pytest.raises(AvfaceError) as caught:
        file.append(records(BUFFER))
    assert str(caught.value) == (
        f"{full}: can't hold temporary files (No space left on device); set TMPDIR to a folder on a disk with some "
        "space, or make some there"
    )
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    file.close()  # has nothing left to write, and to fail at


def test_temporary_files_go_to_the_results_where_there_is_no_other_folder(nowhere, results):
    with temporary_file() as file:
        assert file.write(b"1") == 1
    with temporary_folder() as folder:
        assert folder.parent == results and folder.is_dir()
    assert not folder.exists()
    assert lasting_temporary_folder().parent == results


@pytest.mark.parametrize(
    "make", [temporary_file, lasting_temporary_folder, lambda: RecordFile(np.dtype("u1"))]
)
def test_no_folder_for_temporary_files_is_one_line(nowhere, make):
    with pytest.raises(AvfaceError) as caught:
        make()
    assert str(caught.value) == (
        "no folder for temporary files can be used; set TMPDIR to a folder on a disk with some space"
    )
    with pytest.raises(AvfaceError, match="set TMPDIR"), temporary_folder():
        pass


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("talk.mp4", "talk.mp4"),
        (os.fsdecode("gr\u00fcn.mp4".encode()), "gr\u00fcn.mp4"),
        ("gr\udcc3\udcbcn.mp4", "gr\u00fcn.mp4"),  # as Python holds it where the system's encoding is ASCII
        ("b\udcff.mp4", "b\ufffd.mp4"),
        ("b\ud800.mp4", "b?.mp4"),
    ],
)
def test_names_are_text_that_can_be_encoded(name, text):
    assert readable(name) == text
    assert readable(on_disk(text)) == text


@pytest.mark.skipif(os.name != "posix", reason="names of this system are Unicode")
@pytest.mark.parametrize("suffix", [".glb", ".usdc", ".usda", ".csv", ".ply", ".obj", ".html", ".mp4"])
def test_names_that_are_not_utf_8_are_kept_by_captures_and_written_to_every_format(tmp_path, suffix):
    folder = tmp_path / os.fsdecode(b"d\xff")
    folder.mkdir()
    video = write_video(tmp_path / "clip.mp4", gradients(2, 320, 240), constant_rate(2))
    video = video.rename(folder / os.fsdecode(b"b\xff\xc3\xbc.mp4"))
    capture = Capture.load(replace(moving_capture(2), source=str(video)).save(folder / "capture.npz"))
    assert capture.source == str(video)

    written = capture.export(folder / os.fsdecode(b"o\xff" + suffix.encode()))

    paths = [written] if written.is_file() else list(written.glob(f"*{suffix}"))
    assert paths and all(path.stat().st_size for path in paths)
    if suffix in (".usda", ".html", ".csv"):
        text = paths[0].read_text(encoding="utf-8")
        assert "b\ufffd\u00fc.mp4" in text or suffix == ".csv"
    assert [name for name in names(folder) if name.startswith(".")] == []


def writers_without_an_encoding(source):
    """Lines where text is read or written in the encoding of the system, or as JSON that may hold surrogates."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if name in ("read_text", "write_text"):
            wrong = "encoding" not in keywords and len(node.args) < 1 + (name == "write_text")
        elif name == "open":
            builtin = isinstance(node.func, ast.Name)
            rest = node.args[1:] if builtin else node.args
            mode = keywords.get("mode", rest[0] if rest else None)
            known = getattr(mode, "value", None) in ("r", "w", "a", "x", "r+", "w+")
            path = not builtin and not node.args
            wrong = "encoding" not in keywords and (known or (mode is None and (builtin or path)))
        else:
            wrong = name == "dumps" and "ensure_ascii" in keywords
        if wrong:
            yield node.lineno


def test_every_text_file_has_an_encoding_of_its_own():
    package = Path(avface.__file__).parent
    found = {
        str(path.relative_to(package)): lines
        for path in package.rglob("*.py")
        if (lines := list(writers_without_an_encoding(path.read_text(encoding="utf-8"))))
    }
    assert found == {}
    broken = 'p.write_text("a")\np.read_text()\nopen("a")\np.open("w")\np.open()\njson.dumps(1, ensure_ascii=False)'
    assert sorted(writers_without_an_encoding(broken)) == [1, 2, 3, 4, 5, 6]
    assert not list(writers_without_an_encoding('p.open("wb")\nClip.open(p)\np.read_text("utf-8")'))


@pytest.mark.parametrize("writer", [replacing, replacing_folder, filling])
def test_names_as_long_as_the_system_allows_are_written_and_impossible_ones_refused(tmp_path, writer):
    path = tmp_path / ("n" * 251 + ".csv")
    with writer(path) as temporary:
        (temporary if writer is replacing else temporary / path.name).write_text("text", encoding="utf-8")
        assert temporary.name.startswith(".nnn")
    assert names(tmp_path) == [path.name]
    with (
        pytest.raises(AvfaceError, match=r"a\\x00b.*: no file can have this name"),
        writer(tmp_path / "a\0b"),
    ):
        pass


def test_the_folder_of_one_commands_results_holds_no_temporary_files_of_the_next(tmp_path, monkeypatch):
    moving_capture(frames=2).save(tmp_path / "capture.npz")
    assert main(["export", str(tmp_path / "capture.npz"), str(tmp_path / "head.obj"), "--quiet"]) == 0
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(AvfaceError, match=r"gone.*TMPDIR"):
        temporary_file()


NOWHERE = """
import sys, tempfile
from pathlib import Path

def missing():
    raise FileNotFoundError(2, "No usable temporary directory found")

tempfile.gettempdir = missing
from avface.files.temporary import fall_back_to
from avface.tracking.facemesh import FaceMesh
fall_back_to(Path(sys.argv[1]))
FaceMesh().close()
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder in which not even root can write")
def test_the_tracker_starts_where_neither_temporary_files_nor_settings_can_be_written(tmp_path):
    # Matplotlib, which MediaPipe imports, wants a folder for its settings
    homeless = {
        key: value for key, value in os.environ.items() if key not in ("MPLCONFIGDIR", "XDG_CACHE_HOME")
    }
    homeless |= {"HOME": "/proc", "XDG_CONFIG_HOME": "/proc"}
    command = [sys.executable, "-c", NOWHERE, str(tmp_path)]
    done = subprocess.run(command, env=homeless, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "Error" not in done.stderr
    assert names(tmp_path) == []
