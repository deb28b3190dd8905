"""The verbs synthesize, synthesize occlude and data prepare."""

import json

import numpy as np
import pytest
from PIL import Image

from avface.cli import main
from avface.synthetic.demo_clip import DEMO_CLIP
from avface.synthetic.truth import ClipTruth

TINY = ("--size", "96", "--seconds", "0.6", "--workers", "1")


@pytest.mark.slow
def test_synthesize_writes_clips_a_contact_sheet_and_json(tmp_path, capsys):
    pytest.importorskip("espeakng_loader")
    out = tmp_path / "out"

    assert main(["synthesize", str(out), "--clips", "1", "--preview", "--json", *TINY]) == 0

    facts = json.loads(capsys.readouterr().out)
    assert facts["clips"] == 1 and facts["frames"] == 15
    assert len(ClipTruth.load(out / "clip_000000" / "truth.npz")) == 15
    sheet = np.asarray(Image.open(out / "preview.png"))
    assert sheet.shape == (160, 6 * 160, 3) and sheet.std() > 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["synthesize", "{folder}", "--clips", "0"], "0 clips: make at least one"),
        (["synthesize", "{folder}", "--size", "7"], "size=7 must be at least 16 pixels"),
        (["synthesize", "{folder}", "--occluded", "2"], "occluded 2: must be a share from 0 to 1"),
        (["synthesize", "{folder}", "--device", "no"], "device no: can't be used"),
        (["synthesize", "{file}/x"], "is a file, but the results need a folder"),
        (["synthesize", "occlude", "{folder}/none.mp4"], "none.mp4: no such file"),
        (["synthesize", "occlude", "{file}"], "not a video"),
        (["synthesize", "occlude", str(DEMO_CLIP), "-o", "{folder}", "--kinds", "ghost"], "ghost"),
        (["data", "prepare", "{folder}/none", "{folder}/out"], "none: no such folder"),
        (["data", "prepare", "{folder}", "{folder}/out"], "no videos"),
    ],
)
def test_bad_input_is_reported_in_one_line_with_exit_code_2(tmp_path, capsys, words, message):
    file = tmp_path / "file"
    file.write_text("text")
    folder = tmp_path / "folder"
    folder.mkdir()

    code = main([word.format(folder=folder, file=file) for word in words])

    output = capsys.readouterr().err
    assert code == 2 and message in output and len(output.splitlines()) == 1, output
    assert sorted(path.name for path in folder.iterdir()) in ([], ["none"]), "something was left behind"


@pytest.mark.slow
def test_occlude_hides_a_part_of_the_demo_clip_and_reports_shares(tmp_path, capsys):
    out = tmp_path / "hidden"

    assert main(["synthesize", "occlude", str(DEMO_CLIP), "-o", str(out), "--seed", "3", "--json"]) == 0

    facts = json.loads(capsys.readouterr().out)
    assert 0.1 < facts["face_visibility"] < 0.98
    assert sorted(path.name for path in out.iterdir()) == [
        "clean.mp4",
        "mask.mp4",
        "occluded.mp4",
        "truth.npz",
    ]


@pytest.mark.slow
def test_prepare_makes_shards_of_a_folder_with_one_video_and_one_broken_file(tmp_path, capsys):
    (tmp_path / "videos" / "someone").mkdir(parents=True)
    (tmp_path / "videos" / "someone" / "talk.mp4").write_bytes(DEMO_CLIP.read_bytes())
    (tmp_path / "videos" / "someone" / "broken.mp4").write_text("no video")
    words = ["data", "prepare", str(tmp_path / "videos"), str(tmp_path / "out"), "--workers", "1", "--json"]

    assert main([*words, "--validation", "0", "--test", "0"]) == 0

    facts = json.loads(capsys.readouterr().out)
    assert facts["frames"]["train"] == 159 and facts["items"] == 2
    assert ["broken" in skipped["id"] for skipped in facts["skipped"]] == [True]
