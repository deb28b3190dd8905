"""Windows read from shards: completeness, distribution among workers, order, damage."""

import json
import tarfile

import numpy as np
import pytest
import torch
from corpora import DiscTracker, loudness, walk, write_talk
from torch.utils.data import DataLoader

from avface.data import PrepareConfig, Windows, prepare
from avface.errors import AvfaceError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Seven clips of 70 to 76 frames, chunks of 64, in several shards."""
    folder = tmp_path_factory.mktemp("windows")
    for person in range(7):
        write_talk(folder / "source" / f"person{person}.mp4", walk(70 + person, 40))
    config = PrepareConfig(size=32, shard_megabytes=0.7, validation=0, test=0)
    prepare(folder / "source", folder / "out", config, workers=1, track=DiscTracker(), speech=loudness)
    assert len(list(folder.glob("out/train/*.tar"))) >= 6
    return folder / "out"


@pytest.fixture
def copy(dataset, tmp_path):
    """A copy to damage."""
    import shutil

    return shutil.copytree(dataset, tmp_path / "copy")


def names(windows):
    """Item and first frame of each window."""
    return [(window["id"], int(window["frame"])) for window in windows]


def test_a_step_of_one_gives_every_window_there_is_once(dataset):
    found = list(Windows(dataset, "train", stride=1))

    expected = [(f"person{n}.mp4", start) for n in range(7) for start in range(70 + n - 15)]
    assert sorted(names(found)) == expected
    for window in found:
        first = window["frame"]
        np.testing.assert_array_equal(window["source_frame"], np.arange(first, first + 16))


def test_windows_across_chunks_hold_the_same_as_those_within(dataset):
    by_place = {(w["id"], w["frame"]): w for w in Windows(dataset, "train", stride=1)}

    across, within = by_place["person3.mp4", 55], by_place["person3.mp4", 48]
    for name in ("images", "face", "landmarks", "depth", "confidence", "crop", "speech"):
        assert torch.equal(across[name][:9], within[name][7:]), name
    assert torch.equal(across["sound"][: 9 * 640], within["sound"][7 * 640 :])


@pytest.mark.parametrize(("length", "stride"), [(16, None), (5, 3), (64, 64), (65, 70), (1, 1), (200, 1)])
def test_windows_have_the_given_length_and_stride(dataset, length, stride):
    found = list(Windows(dataset, "train", length=length, stride=stride))

    expected = [
        (f"person{n}.mp4", s) for n in range(7) for s in range(0, 70 + n - length + 1, stride or length)
    ]
    assert sorted(names(found)) == expected
    for window in found:
        assert len(window["images"]) == len(window["landmarks"]) == length
        assert window["sound"].shape == (length * 640,)


def test_torch_collates_them(dataset):
    batch = next(iter(DataLoader(Windows(dataset, "train"), batch_size=4)))

    assert batch["images"].shape == (4, 16, 3, 32, 32) and batch["images"].dtype == torch.uint8
    assert batch["face"].shape == (4, 16, 32, 32) and batch["face"].dtype == torch.bool
    assert batch["landmarks"].shape == (4, 16, 478, 2) and batch["speech"].shape == (4, 16, 16, 29)
    assert batch["has_sound"].tolist() == [True] * 4 and len(batch["id"]) == 4


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("machines", "workers"), [(1, 2), (2, 0), (2, 2), (3, 1)])
def test_workers_and_machines_share_the_windows_without_overlap(dataset, machines, workers, shuffle):
    shares = []
    for rank in range(machines):
        windows = Windows(dataset, "train", stride=10, shuffle=shuffle, rank=rank, world_size=machines)
        shares.append(names(DataLoader(windows, batch_size=None, num_workers=workers)))

    everything = [name for share in shares for name in share]
    assert all(shares) and len(everything) == len(set(everything))
    assert sorted(everything) == sorted(names(Windows(dataset, "train", stride=10, shuffle=shuffle)))


def test_ranks_come_from_torch_distributed(dataset, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 5)

    windows = Windows(dataset, "train")

    assert (windows.rank, windows.world_size) == (2, 5)


def test_the_order_is_determined_by_seed_and_epoch(dataset):
    def order(seed, epoch):
        windows = Windows(dataset, "train", shuffle=True, seed=seed, buffer=8)
        windows.set_epoch(epoch)
        return names(windows)

    first = order(0, 0)
    assert order(0, 0) == first != sorted(first)
    assert order(0, 1) != first and order(1, 0) != first
    assert {start % 16 for _, start in first} != {0}, "windows begin at other frames"
    starts = {name: start % 16 for name, start in first}
    assert all(starts[name] == start % 16 for name, start in first), "and follow each other without a gap"


def test_persistent_workers_receive_the_next_epoch(dataset):
    windows = Windows(dataset, "train", shuffle=True)
    loader = DataLoader(windows, batch_size=None, num_workers=1, persistent_workers=True)
    first = names(loader)
    windows.set_epoch(1)

    assert names(loader) != first
    windows.set_epoch(0)
    assert names(loader) == first


def test_endless_reading_continues_with_the_next_epoch(dataset):
    def epoch(number):
        windows = Windows(dataset, "train", shuffle=True)
        windows.set_epoch(number)
        return names(windows)

    endless = iter(Windows(dataset, "train", shuffle=True, endless=True))
    expected = epoch(0) + epoch(1)
    assert names(next(endless) for _ in expected) == expected


# Damage


def first_shard(folder):
    return min(folder.glob("train/*.tar"))


def test_a_truncated_shard_is_named(copy):
    shard = first_shard(copy)
    shard.write_bytes(shard.read_bytes()[: 512 * 30])

    with pytest.raises(
        AvfaceError, match=r"train/shard-000000.tar: damaged \(15360 bytes, not \d+\); delete it"
    ):
        list(Windows(copy, "train"))


def test_a_missing_shard_is_named(copy):
    first_shard(copy).unlink()

    with pytest.raises(AvfaceError, match=r"train/shard-000000.tar: cannot be read \(No such file"):
        list(Windows(copy, "train"))


@pytest.mark.parametrize("kind", ["000.jpg", "010.png", "json", "safetensors"])
def test_a_single_changed_byte_is_found(copy, kind):
    shard = first_shard(copy)
    with tarfile.open(shard) as archive:
        member = next(one for one in archive if one.name.split(".", 1)[1] == kind)
        place = member.offset_data + member.size // 2
    data = bytearray(shard.read_bytes())
    data[place] ^= 0x80
    shard.write_bytes(data)

    with pytest.raises(AvfaceError, match=r"train/shard-000000.tar: damaged"):
        list(Windows(copy, "train"))


def test_a_damaged_header_is_found(copy):
    shard = first_shard(copy)
    data = bytearray(shard.read_bytes())
    data[0:100] = bytes(100)
    shard.write_bytes(data)

    with pytest.raises(AvfaceError, match=r"train/shard-000000.tar: damaged"):
        list(Windows(copy, "train"))


def test_damage_is_named_through_workers_too(copy):
    first_shard(copy).write_bytes(b"")

    with pytest.raises(AvfaceError, match=r"train/shard-000000.tar: damaged"):
        list(DataLoader(Windows(copy, "train"), batch_size=2, num_workers=1))


# Refusals


def test_folders_without_a_finished_dataset_are_refused(dataset, tmp_path):
    with pytest.raises(AvfaceError, match=r"holds no index.json"):
        Windows(tmp_path, "train")
    with pytest.raises(AvfaceError, match=r"its test split is empty \(there is train\)"):
        Windows(dataset, "test")


def test_an_index_that_is_no_json_is_named(copy):
    (copy / "index.json").write_text("{")
    with pytest.raises(AvfaceError, match=r"index.json: not readable as JSON"):
        Windows(copy, "train")
    (copy / "index.json").write_text(json.dumps({"version": 1}))
    with pytest.raises(AvfaceError, match=r"index.json: not the index of a dataset"):
        Windows(copy, "train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length=0 must be at least 1"),
        ({"stride": 0}, "stride=0 must be at least 1"),
        ({"buffer": 0}, "buffer=0 must be at least 1"),
        ({"seed": -1}, "seed=-1 must not be negative"),
        ({"rank": 2, "world_size": 2}, "rank=2 must be from 0 to world_size - 1, which is 1"),
        ({"rank": -1}, "rank=-1 must be from 0"),
        ({"split": "all"}, "split='all' must be one of train, validation, test"),
    ],
)
def test_impossible_options_are_refused(dataset, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Windows(dataset, **{"split": "train", **options})


def test_skipped_windows_are_those_at_the_start(dataset):
    windows = Windows(dataset, "train", shuffle=True, seed=3)
    everything = names(windows)
    windows.pass_over([5])

    assert names(windows) == everything[5:]

    loader = DataLoader(Windows(dataset, "train", stride=10), batch_size=None, num_workers=2)
    of_workers = [list(names(loader))[number::2] for number in (0, 1)]
    assert min(map(len, of_workers)) > 3
    loader.dataset.pass_over([2, 3])
    remaining = names(loader)
    assert sorted(remaining) == sorted(of_workers[0][2:] + of_workers[1][3:])
