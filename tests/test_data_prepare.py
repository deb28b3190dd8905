"""From videos to shards: contents, skipped items, and identical bytes after interruptions."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from corpora import (
    DISC,
    HEIGHT,
    RADIUS,
    WIDTH,
    DiscTracker,
    contents,
    crashing,
    disc,
    loudness,
    nobody,
    walk,
    write_aac,
    write_talk,
)
from videos import beep, beep_onset, truncate

from avface.data import PrepareConfig, Windows, find_items, prepare
from avface.data.shards import read_samples
from avface.errors import AvfaceError

SMALL = PrepareConfig(size=48, shard_megabytes=0.5, validation=0.3, test=0.2)
ALL_TRAIN = PrepareConfig(size=48, shard_megabytes=0.5, validation=0, test=0)


def prepare_discs(source, out, config=SMALL, tracker=None, workers=1, **options):
    return prepare(
        source, out, config, workers=workers, track=tracker or DiscTracker(), speech=loudness, **options
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Ten people with a clip each, one of them faceless and one damaged."""
    folder = tmp_path_factory.mktemp("corpus")
    for person in range(8):
        write_talk(folder / f"person{person}" / "talk.mp4", walk(20, 50 + person))
    write_talk(folder / "person8" / "empty room.mp4", [nobody()] * 20)
    truncate(folder / "person0" / "talk.mp4", folder / "person0" / "broken.mp4", 0.6)
    return folder


@pytest.fixture(scope="module")
def prepared(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "shards"
    prepare_discs(corpus, out)
    return out


def windows_of(out, split="train", **options):
    return list(Windows(out, split, **options))


def one_clip(tmp_path, pictures, frame_rate=25.0, sound=True, tracker=None, config=ALL_TRAIN):
    """Prepare a single clip."""
    write_talk(tmp_path / "source" / "clip.mp4", pictures, frame_rate, sound)
    report = prepare_discs(tmp_path / "source", tmp_path / "out", config, tracker)
    return report, tmp_path / "out"


def test_every_usable_item_is_in_one_shard_and_every_other_is_logged(corpus, tmp_path):
    report = prepare_discs(corpus, tmp_path / "out")

    listed = [
        item["id"]
        for listing in sorted((tmp_path / "out").glob("*/shard-*.json"))
        for item in json.loads(listing.read_text())["items"]
    ]
    skipped = {one.id: one.reason for one in report.skipped}
    assert sorted(listed) == [f"person{n}/talk.mp4" for n in range(8)]
    assert set(skipped) == {"person0/broken.mp4", "person8/empty room.mp4"}
    assert "no face is seen" in skipped["person8/empty room.mp4"]
    assert skipped["person0/broken.mp4"].startswith("person0/broken.mp4: not a video that can be read")
    assert report.items == 10 and sum(report.frames.values()) == 8 * 20
    logged = [json.loads(line) for line in (tmp_path / "out/skipped.jsonl").read_text().splitlines()]
    assert {one["id"]: one["reason"] for one in logged} == skipped
    assert sum(report.shards.values()) > 3, "the test needs several shards"


def test_the_index_holds_each_shard_with_its_hash(prepared):
    from hashlib import sha256

    index = json.loads((prepared / "index.json").read_text())
    entries = [entry for split in index["shards"].values() for entry in split]

    assert {entry["shard"] for entry in entries} == {
        str(path.relative_to(prepared)) for path in prepared.glob("*/*.tar")
    }
    for entry in entries:
        data = (prepared / entry["shard"]).read_bytes()
        assert (sha256(data).hexdigest(), len(data)) == (entry["sha256"], entry["bytes"])
        assert entry["samples"] == sum(1 for _ in read_samples(prepared / entry["shard"]))


def test_splits_are_disjoint_in_identities_and_stable_when_data_are_added(corpus, tmp_path, prepared):
    def people(out):
        return {
            split: {
                item["identity"]
                for listing in (out / split).glob("*.json")
                for item in json.loads(listing.read_text())["items"]
            }
            for split in ("train", "validation", "test")
        }

    for path in corpus.rglob("talk.mp4"):
        copy = tmp_path / "more" / path.relative_to(corpus)
        copy.parent.mkdir(parents=True)
        copy.symlink_to(path)
    for person in range(20, 23):
        write_talk(tmp_path / "more" / f"person{person}" / "talk.mp4", walk(20))
    prepare_discs(tmp_path / "more", tmp_path / "out")

    before, after = people(prepared), people(tmp_path / "out")
    assert all(before.values()), "the test needs somebody in each split"
    for split, everybody in before.items():
        assert everybody <= after[split]
    assert sum(map(len, after.values())) == len(set().union(*after.values()))


@pytest.mark.slow
def test_the_bytes_dont_depend_on_the_number_of_workers(corpus, prepared, tmp_path):
    prepare_discs(corpus, tmp_path / "out", workers=2)

    assert contents(tmp_path / "out") == contents(prepared)


class Killed(BaseException):
    """Nothing catches this."""


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before renaming", "after renaming"])
def test_an_interruption_at_any_file_doesnt_change_the_bytes(tmp_path, monkeypatch, after):
    for person in range(3):
        write_talk(tmp_path / "source" / f"person{person}.mp4", walk(20, 50 + person))
    write_talk(tmp_path / "source" / "short.mp4", walk(5))
    prepare_discs(tmp_path / "source", tmp_path / "whole", ALL_TRAIN)
    expected = contents(tmp_path / "whole")
    replace = Path.replace
    moment = 0
    finished = False
    while not finished:
        out = tmp_path / f"out{moment}"
        calls = iter(range(10_000))

        def interrupted(path, target, moment=moment, calls=calls):
            if next(calls) == moment:
                if after:
                    replace(path, target)
                raise Killed
            return replace(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", interrupted)
            try:
                prepare_discs(tmp_path / "source", out, ALL_TRAIN)
                finished = True
            except Killed:
                pass
        prepare_discs(tmp_path / "source", out, ALL_TRAIN)
        assert contents(out) == expected, f"interrupted at file {moment}"
        moment += 1
    assert moment > 12


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_process_is_resumed_to_the_same_bytes(corpus, prepared, tmp_path, workers):
    program = (
        "import sys; from corpora import *; from test_data_prepare import *\n"
        "if __name__ == '__main__':\n"
        f"    prepare_discs({str(corpus)!r}, {str(tmp_path / 'out')!r}, tracker=DiscTracker(seconds=0.2), "
        f"workers={workers})"
    )
    (tmp_path / "program.py").write_text(program)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    kills = 0
    for goal in (1, 3, 5, 8, 1000):
        process = subprocess.Popen(
            [sys.executable, str(tmp_path / "program.py")], env=environment, cwd=tmp_path
        )
        while process.poll() is None:
            done = len(list((tmp_path / "out").glob(".work/0*.json")))
            # without the files that are being written, which may be gone before they are read
            listings = (tmp_path / "out").glob("[!.]*/[!.]*.json")
            done += sum(listing.read_text().count('"id"') for listing in listings)
            if done >= goal:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.01)
        process.wait()

    assert kills >= 3 and process.returncode == 0
    assert contents(tmp_path / "out") == contents(prepared)


def test_a_finished_dataset_is_unchanged(corpus, prepared):
    before = {path: path.stat().st_mtime_ns for path in prepared.glob("*/shard-*")}

    report = prepare_discs(
        corpus, prepared, tracker=None, on_item=lambda done, total: pytest.fail("worked again")
    )

    assert len(report.skipped) == 2
    assert {path: path.stat().st_mtime_ns for path in prepared.glob("*/shard-*")} == before


def test_a_missing_shard_and_a_truncated_one_are_rebuilt(corpus, tmp_path):
    prepare_discs(corpus, tmp_path / "out")
    expected = contents(tmp_path / "out")
    first, second = sorted((tmp_path / "out" / "train").glob("*.tar"))[:2]
    first.unlink()
    second.write_bytes(second.read_bytes()[:20_000])
    done = []

    prepare_discs(corpus, tmp_path / "out", on_item=lambda number, total: done.append(number))

    assert contents(tmp_path / "out") == expected
    assert len(done) < 8, "only the items of the lost shards need work"


@pytest.mark.slow
def test_a_video_that_crashes_its_process_costs_only_itself(tmp_path):
    for person in range(3):
        write_talk(tmp_path / "source" / f"person{person}.mp4", walk(20, 50 + person))
    write_talk(tmp_path / "source" / "crash.mp4", [crashing()] * 20)

    report = prepare_discs(tmp_path / "source", tmp_path / "out", ALL_TRAIN, workers=2)

    assert [one.id for one in report.skipped] == ["crash.mp4"] and "crashed" in report.skipped[0].reason
    assert report.frames["train"] == 60


# What is in a sample


def test_webdataset_reads_the_shards(prepared):
    import webdataset

    shards = sorted(map(str, prepared.glob("train/*.tar")))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8"))

    index = json.loads((prepared / "index.json").read_text())
    assert len(samples) == sum(entry["samples"] for entry in index["shards"]["train"])
    assert samples[0]["000.jpg"].shape == (48, 48, 3)
    assert samples[0]["json"]["identity"].startswith("person")


def test_the_crop_follows_the_face_and_landmarks_agree_with_the_picture(tmp_path):
    _, out = one_clip(tmp_path, walk(40))

    for window in windows_of(out):
        side = window["crop"][:, 2]
        assert side.unique().numel() == 1
        assert float(side[0]) == pytest.approx(1.6 * 2 * RADIUS, rel=0.08)
        landmarks = window["landmarks"].numpy()
        centre = (landmarks.max(1) + landmarks.min(1)) / 2
        # Half of 48 pixels, from the middle of the top-left one; the first and last frames can't be smoothed around.
        np.testing.assert_allclose(centre, 23.5, atol=1.2)
        green = window["images"][:, 1].numpy()
        for frame in range(16):
            x, y = np.round(landmarks[frame]).astype(int).T
            inner = np.hypot(*DISC.T) < 0.9
            assert (green[frame, y[inner], x[inner]] > 180).mean() > 0.99
            bright = green[frame] > 150
            assert (bright & window["face"][frame].numpy()).sum() / bright.sum() > 0.93
            assert (~bright & window["face"][frame].numpy()).sum() / bright.sum() < 0.05


def test_a_crop_beyond_the_picture_is_black_and_outside_the_face(tmp_path):
    _, out = one_clip(tmp_path, [disc((8, 60))] * 20)

    window = windows_of(out)[0]
    x = (np.arange(48) + 0.5) * float(window["crop"][0, 2]) / 48
    beyond = x - float(window["crop"][0, 2]) / 2 + float(window["crop"][0, 0]) < -3
    assert 5 < beyond.sum() < 30
    assert int(window["images"][0, :, :, beyond].max()) < 20
    assert not window["face"][0][:, beyond].any()
    assert window["face"][0].any()


def test_short_gaps_are_interpolated_with_confidence_0(tmp_path):
    pictures = walk(40)
    pictures[10:14] = [nobody()] * 4
    report, out = one_clip(tmp_path, pictures)

    assert report.frames["train"] == 40
    window = windows_of(out)[0]
    np.testing.assert_array_equal(np.flatnonzero(window["confidence"].numpy() == 0), [10, 11, 12, 13])
    in_picture = window["landmarks"].numpy()
    boxes = window["crop"].numpy()
    in_picture = (in_picture + 0.5) * boxes[0, 2] / 48 + boxes[:, None, :2] - boxes[0, 2] / 2
    np.testing.assert_allclose(np.diff(in_picture[8:16].mean(1)[:, 0]), 0.5, atol=0.2)


def test_takes_end_at_longer_gaps_at_cuts_and_where_the_camera_zooms(tmp_path):
    pictures = walk(30) + [nobody()] * 5 + walk(25)
    report, _ = one_clip(tmp_path / "gap", pictures)
    assert report.frames["train"] == 55
    listing = json.loads((tmp_path / "gap/out/train/shard-000000.json").read_text())
    assert listing["items"][0]["frames"] == [30, 25]

    one_clip(tmp_path / "cut", walk(60), tracker=DiscTracker(cut=42))
    listing = json.loads((tmp_path / "cut/out/train/shard-000000.json").read_text())
    assert listing["items"][0]["frames"] == [42, 18]

    zoom = [disc((80, 60), 20 + frame / 3) for frame in range(60)]
    _, out = one_clip(tmp_path / "zoom", zoom)
    listing = json.loads((out / "train/shard-000000.json").read_text())
    assert len(listing["items"][0]["frames"]) >= 2 and sum(listing["items"][0]["frames"]) == 60
    for window in windows_of(out):
        assert window["landmarks"].min() > 0 and window["landmarks"].max() < 47


@pytest.mark.parametrize(
    ("pictures", "reason"),
    [
        (walk(12), "too short, 12 frames at 25 a second, 16 are needed"),
        ([disc((80, 60), 9)] * 20, "the face is too small, 1. pixels where 32 are needed"),
        (
            (walk(12) + [nobody()] * 8) * 2,
            "the face is seen in 24 of 40 frames, but nowhere in 16 of one shot",
        ),
    ],
)
def test_an_item_without_a_take_is_skipped_with_its_reason(tmp_path, pictures, reason):
    with pytest.raises(AvfaceError, match=reason):
        one_clip(tmp_path, pictures)


def test_other_frame_rates_are_resampled_and_sources_frames_known(tmp_path):
    report, out = one_clip(tmp_path, walk(60), frame_rate=30.0)

    assert report.frames["train"] == 50
    frames = [int(frame) for window in windows_of(out) for frame in window["source_frame"]]
    # At time k / 25 the latest frame is number floor(k / 25 * 30).
    assert frames == [k * 30 // 25 for k in range(48)]


def test_sound_and_features_belong_to_their_frames(tmp_path):
    write_talk(tmp_path / "source" / "clip.mp4", [nobody()] * 20 + walk(40))
    from avface.media import Clip

    sound = Clip.open(tmp_path / "source" / "clip.mp4").audio()
    prepare_discs(tmp_path / "source", tmp_path / "out", ALL_TRAIN)

    for window in windows_of(tmp_path / "out"):
        first = window["frame"] * 640
        assert window["frame"] >= 20 and window["has_sound"]
        np.testing.assert_allclose(window["sound"], sound[first : first + 16 * 640], atol=1e-4)
        expected = np.abs(sound[first : first + 16 * 640]).reshape(16, 640).mean(1)
        np.testing.assert_allclose(window["speech"][:, 3, 7], expected, rtol=1e-3)


def test_voxceleb2_has_its_sound_in_a_separate_file(tmp_path):
    for split, person in (("dev", "id1"), ("test", "id2")):
        write_talk(tmp_path / f"source/{split}/mp4/{person}/abc/00001.mp4", walk(40), sound=False)
        write_aac(tmp_path / f"source/{split}/aac/{person}/abc/00001.m4a", beep(1.6, 0.4, 16_000))
    report = prepare_discs(tmp_path / "source", tmp_path / "out", ALL_TRAIN)

    assert report.frames == {"train": 40, "validation": 0, "test": 40}
    for split in ("train", "test"):
        window = windows_of(tmp_path / "out", split)[0]
        assert window["has_sound"]
        assert beep_onset(window["sound"].numpy()) == pytest.approx(0.4, abs=0.005)


def test_a_video_without_sound_is_silent(tmp_path):
    _, out = one_clip(tmp_path, walk(20), sound=False)

    window = windows_of(out)[0]
    assert not window["has_sound"]
    assert not window["sound"].any() and not window["speech"].any()


def test_ground_truth_is_stored_and_occluded_pixels_are_marked(tmp_path):
    clip = tmp_path / "source" / "clip0"
    write_talk(clip / "clip.mp4", walk(60, 70), frame_rate=30.0)
    hidden = np.zeros((60, HEIGHT, WIDTH), bool)
    hidden[:, 60:] = True
    truth = {
        "times": np.arange(60) / 30,
        "expression": np.arange(60 * 4, dtype=np.float32).reshape(60, 4),
        "shape": np.arange(60, dtype=np.float32),  # as long as the clip, but not of its frames
        "expression_names": np.array(list("abcd")),
        "occlusion": np.packbits(hidden, axis=-1),
    }
    np.savez_compressed(clip / "truth.npz", **truth)
    prepare_discs(tmp_path / "source", tmp_path / "out", ALL_TRAIN)

    window = windows_of(tmp_path / "out", truth=["expression", "shape"])[1]
    frames = [k * 30 // 25 for k in range(16, 32)]
    np.testing.assert_array_equal(window["truth.expression"], truth["expression"][frames])
    np.testing.assert_array_equal(window["truth.shape"], truth["shape"])
    centre, side = window["crop"][0, 1], window["crop"][0, 2]
    edge = (60 - centre + side / 2) * 48 / side - 0.5
    first_hidden = window["occluded"][0][:, 24].numpy().argmax()
    assert abs(first_hidden - float(edge)) < 1
    assert not (window["face"] & window["occluded"]).any()
    sample = next(read_samples(tmp_path / "out/train/shard-000000.tar"))
    assert json.loads(sample["json"])["texts"] == {"expression_names": list("abcd")}
    with pytest.raises(AvfaceError, match=r"clip0 has no ground truth albedo, only expression, shape, times"):
        windows_of(tmp_path / "out", truth=["albedo"])


def test_with_true_landmarks_frames_without_a_detection_are_kept(tmp_path):
    clip = tmp_path / "source" / "clip0"
    pictures = [nobody()] * 6 + walk(60)[6:20] + [nobody()] * 20 + walk(60)[40:]
    write_talk(clip / "clip.mp4", pictures)
    centres = np.stack([60 + np.arange(60) / 2, np.full(60, 55)], 1)
    landmarks = (centres[:, None] + RADIUS * DISC).astype(np.float32)
    np.savez(clip / "truth.npz", times=np.arange(60) / 25, landmarks=landmarks)
    report = prepare_discs(tmp_path / "source", tmp_path / "out", ALL_TRAIN, DiscTracker(cut=30))

    assert report.frames["train"] == 60
    (window,) = windows_of(tmp_path / "out", length=60, truth=["landmarks"])
    seen = window["confidence"].numpy() > 0
    np.testing.assert_array_equal(np.flatnonzero(~seen), [*range(6), *range(20, 40)])
    true = window["truth.landmarks"] - window["crop"][:, None, :2] + window["crop"][:, None, 2:] / 2
    true = (true * 48 / window["crop"][0, 2] - 0.5).numpy()
    np.testing.assert_allclose(true.mean(1), 23.5, atol=2)
    np.testing.assert_allclose(window["landmarks"][seen], true[seen], atol=0.8)
    assert window["landmarks"].isfinite().all() and window["face"].any(2).any(1).all()


def test_ground_truth_of_another_video_is_refused(tmp_path):
    clip = tmp_path / "source" / "clip0"
    write_talk(clip / "clip.mp4", walk(20))
    np.savez(clip / "truth.npz", times=np.arange(30) / 25)

    with pytest.raises(AvfaceError, match=r"clip0/truth.npz: has 30 frames, but the video has 20"):
        prepare_discs(tmp_path / "source", tmp_path / "out", ALL_TRAIN)


def test_pickles_in_ground_truth_are_not_opened(tmp_path):
    clip = tmp_path / "source" / "clip0"
    write_talk(clip / "clip.mp4", walk(20))
    np.savez(clip / "truth.npz", times=np.array([{"a": 1}], dtype=object))

    with pytest.raises(AvfaceError, match=r"truth.npz: not a readable file of arrays"):
        prepare_discs(tmp_path / "source", tmp_path / "out", ALL_TRAIN)


# Refusals


def test_when_no_item_is_usable_the_folder_can_be_used_again(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "text.mp4").write_text("not a video")
    for _ in range(2):
        with pytest.raises(AvfaceError, match=r"none of 1 items could be used.*text.mp4: not a video"):
            prepare_discs(tmp_path / "source", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["skipped.jsonl"]


def test_sources_without_videos_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(AvfaceError, match=r"no videos in it"):
        prepare_discs(tmp_path, tmp_path / "out")
    with pytest.raises(AvfaceError, match=r"missing: no such folder"):
        prepare_discs(tmp_path / "missing", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"validation": 0.7, "test": 0.4},
            "validation=0.7 and test=0.4 must be shares that are together at most 1",
        ),
        (
            {"validation": float("nan")},
            "validation=nan and test=0.05 must be shares that are together at most 1",
        ),
        ({"test": -0.1}, "validation=0.05 and test=-0.1 must be shares that are together at most 1"),
        ({"frame_rate": 0}, "frame_rate=0 must be between 1 and 240 frames a second"),
        ({"size": 0}, "size=0 must be between 16 and 4096 pixels"),
        ({"margin": 0}, "margin=0 must be between 0.5 and 10 face sizes"),
        ({"quality": 101}, "quality=101 must be between 1 and 100"),
        ({"shortest": 0}, "shortest=0 must be at least 1 frame"),
        ({"longest_gap": -1}, "longest_gap=-1 must not be negative"),
        ({"smallest_face": -1}, "smallest_face=-1 must not be negative"),
        ({"shard_megabytes": 0}, "shard_megabytes=0 must be above 0"),
        ({"speech": "whisper"}, "speech='whisper' must be moonshine, own, wav2vec2, mel or None"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(AvfaceError, match=f"^{message}$"):
        PrepareConfig(**options)


def test_no_workers_are_refused(corpus, tmp_path):
    with pytest.raises(AvfaceError, match="workers=0 must be at least 1"):
        prepare_discs(corpus, tmp_path / "out", workers=0)


def test_a_dataset_of_other_options_or_data_is_not_resumed(corpus, prepared, tmp_path):
    with pytest.raises(AvfaceError, match=r"size was 48, now 64"):
        prepare_discs(corpus, prepared, PrepareConfig(size=64, shard_megabytes=0.5, validation=0.3, test=0.2))
    write_talk(tmp_path / "other.mp4", walk(20))
    with pytest.raises(AvfaceError, match=r"the source has changed, it had 10 items and has 1"):
        prepare_discs(tmp_path, prepared)


def test_a_folder_of_other_files_is_refused(corpus, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(AvfaceError, match="isn't empty and holds no dataset"):
        prepare_discs(corpus, tmp_path)
    with pytest.raises(AvfaceError, match=r"thesis.tex.*can't be written"):
        prepare_discs(corpus, tmp_path / "thesis.tex")


def test_a_full_disk_ends_the_run_which_can_be_resumed(corpus, prepared, tmp_path, monkeypatch):
    written = iter(range(1000))

    def full(descriptor):
        if next(written) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(AvfaceError, match=r"No space left on device\); free some space and run"):
            prepare_discs(corpus, tmp_path / "out")
    prepare_discs(corpus, tmp_path / "out")

    assert contents(tmp_path / "out") == contents(prepared)


def test_missing_weights_for_speech_are_reported_before_tracking(corpus, tmp_path):
    def without_weights(sound, times):
        raise AvfaceError("weights: no such file")

    def untouched(frames):
        pytest.fail("a clip was tracked")

    with pytest.raises(AvfaceError, match="weights: no such file"):
        prepare(corpus, tmp_path / "out", SMALL, workers=1, track=untouched, speech=without_weights)


@pytest.mark.slow
def test_the_real_features_of_a_sound(tmp_path):
    write_talk(tmp_path / "source" / "clip.mp4", walk(40))
    prepare(tmp_path / "source", tmp_path / "out", ALL_TRAIN, workers=1, track=DiscTracker())

    for window in windows_of(tmp_path / "out"):
        assert window["speech"].shape == (16, 16, 29) and window["speech"].isfinite().all()


@pytest.mark.slow
def test_the_real_tracker_on_the_demo(tmp_path):
    import avface.synthetic

    demo = Path(avface.synthetic.__file__).parent / "assets" / "demo.mp4"
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "demo.mp4").symlink_to(demo)
    config = PrepareConfig(validation=0, test=0)
    for name, workers in (("one", 1), ("two", 2)):
        prepare(tmp_path / "source", tmp_path / name, config, workers=workers, speech=loudness)

    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    found = windows_of(tmp_path / "one")
    assert len(found) > 3 and find_items(tmp_path / "source")[0].id == "demo.mp4"
    for window in found:
        assert window["images"].shape == (16, 3, 224, 224) and window["speech"].shape == (16, 16, 29)
        assert window["has_sound"] and float(window["confidence"].min()) > 0.5
        eyes = window["landmarks"][:, [33, 263], 1].mean(1)
        lips = window["landmarks"][:, [13, 14], 1].mean(1)
        assert (
            (lips - eyes > 40).all() and (window["landmarks"] > 0).all() and (window["landmarks"] < 224).all()
        )
