"""Files and folders that appear whole or not at all."""

import stat

import pytest
import torch
from safetensors.torch import load_file

from avface.errors import AvfaceError
from avface.files import filling, replacing, replacing_folder, write_tensors


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
