"""Items of corpora in all layouts, and their splits."""

import pytest

from avface.data import Item, find_items, split_of
from avface.errors import AvfaceError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize("layout", ["auto", "voxceleb2"])
def test_voxceleb2_has_separate_sound_and_an_official_split(tmp_path, layout):
    touch(
        tmp_path,
        "dev/mp4/id00012/abc/00001.mp4",
        "dev/aac/id00012/abc/00001.m4a",
        "dev/mp4/id00012/abc/notes.txt",
        "test/mp4/id00017/x.y_z/00002.mp4",
        "vox2_meta.csv",
    )

    assert find_items(tmp_path, layout) == [
        Item(
            id="dev/id00012/abc/00001",
            identity="id00012",
            layout="voxceleb2",
            video=tmp_path / "dev/mp4/id00012/abc/00001.mp4",
            sound=tmp_path / "dev/aac/id00012/abc/00001.m4a",
            official="dev",
        ),
        Item(
            id="test/id00017/x.y_z/00002",
            identity="id00017",
            layout="voxceleb2",
            video=tmp_path / "test/mp4/id00017/x.y_z/00002.mp4",
            official="test",
        ),
    ]


def test_in_a_folder_of_videos_top_folders_are_people(tmp_path):
    touch(
        tmp_path,
        "anna/day1/talk.mp4",
        "anna/song.MOV",
        "ben.webm",
        ".trash/old.mp4",
        "anna/.part.mp4",
        "readme.md",
    )

    items = find_items(tmp_path)

    assert [(item.id, item.identity) for item in items] == [
        ("anna/day1/talk.mp4", "anna"),
        ("anna/song.MOV", "anna"),
        ("ben.webm", "ben"),
    ]


def test_synthetic_clips_have_their_truth(tmp_path):
    touch(tmp_path, "clip000/clip.mp4", "clip000/truth.npz", "clip001/clip.mp4", "preview.png")

    assert find_items(tmp_path) == [
        Item(
            id="clip000",
            identity="clip000",
            layout="synthetic",
            video=tmp_path / "clip000/clip.mp4",
            truth=tmp_path / "clip000/truth.npz",
        )
    ]


def test_multiface_has_an_item_for_each_expression_and_camera(tmp_path):
    person = "m--20180105--0000--002539136--GHS"
    touch(
        tmp_path / person,
        "images/SEN_a/400002/000102.png",
        "images/SEN_a/400015/000102.png",
        "images/E001_Neutral/400002/000001.png",
        "tracked_mesh/SEN_a/000102.bin",
        "audio/SEN_a.wav",
        "KRT",
    )

    items = find_items(tmp_path)

    assert [item.id for item in items] == [
        f"{person}/{place}" for place in ("E001_Neutral/400002", "SEN_a/400002", "SEN_a/400015")
    ]
    assert {item.identity for item in items} == {"002539136"}
    assert items[0].sound is None and items[0].truth is None
    assert items[1].sound == tmp_path / person / "audio/SEN_a.wav"
    assert items[1].truth == tmp_path / person / "tracked_mesh/SEN_a"
    assert find_items(tmp_path / person) == items, "one person's folder will do"


def test_folders_without_items_are_refused(tmp_path):
    touch(tmp_path, "talk.mp4")
    with pytest.raises(AvfaceError, match="nothing in the layout of voxceleb2"):
        find_items(tmp_path, "voxceleb2")
    with pytest.raises(AvfaceError, match=r"talk.mp4: no such folder"):
        find_items(tmp_path / "talk.mp4")
    with pytest.raises(ValueError, match="layout='lrs3' must be one of auto, voxceleb2"):
        find_items(tmp_path, "lrs3")


def person(number, official=None):
    return Item(f"clip{number}", f"person{number}", "videos", video=None, official=official)


def test_splits_have_the_given_shares():
    splits = [split_of(person(number), 0.1, 0.2) for number in range(5000)]

    for split, share in (("train", 0.7), ("validation", 0.1), ("test", 0.2)):
        assert splits.count(split) / 5000 == pytest.approx(share, abs=0.02)


def test_another_share_moves_nobody_between_the_other_splits():
    for number in range(300):
        small, large = split_of(person(number), 0.1, 0.1), split_of(person(number), 0.1, 0.3)
        assert large == small or (small, large) == ("train", "test")


def test_an_official_test_part_is_the_test_split():
    assert {split_of(person(number, "test"), 0.5, 0.5) for number in range(50)} == {"test"}
    assert {split_of(person(number, "dev"), 0.5, 0.5) for number in range(50)} == {"train", "validation"}
    assert {split_of(person(number, "dev"), 0, 1) for number in range(50)} == {"train"}
