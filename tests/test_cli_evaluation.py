"""The verb `evaluate`: the calls it makes, and its output."""

import json
import types
from pathlib import Path

import pytest

from avface.cli import main


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "function", "expected"),
    [
        (
            "occlusion clips --seeds 2 --parts whole-face --networks w.safetensors --work kept",
            "evaluate_occlusion",
            (
                (Path("clips"),),
                {
                    "seeds": 2,
                    "parts": ("whole-face",),
                    "networks": Path("w.safetensors"),
                    "work": Path("kept"),
                },
            ),
        ),
        (
            "ablation rows --shards a b --clips clips",
            "evaluate_ablation",
            (
                (Path("rows"),),
                {"shards": (Path("a"), Path("b")), "clips": Path("clips"), "seeds": 2, "work": None},
            ),
        ),
        (
            "shape --people 3 --seed 7 --workers 1",
            "evaluate_shape",
            ((), {"people": 3, "networks": None, "work": None, "workers": 1}),
        ),
    ],
)
def test_a_report_is_printed_as_tables_or_as_json(monkeypatch, capsys, words, function, expected):
    calls = []

    def evaluate(*positional, progress, **options):
        progress("a.mp4", "track", 1, None)
        if "config" in options:
            assert options.pop("config").seed == 7
        calls.append((positional, options))
        return types.SimpleNamespace(table=lambda: "the table", to_json=lambda: '{"nme": 1.0}')

    monkeypatch.setattr(f"avface.evaluation.{function}", evaluate, raising=False)
    assert main(["evaluate", *words.split(), "--quiet"]) == 0
    assert capsys.readouterr().out == "the table\n"
    assert main(["evaluate", *words.split(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"nme": 1.0, "warnings": []}
    assert calls == [expected] * 2


@pytest.mark.parametrize("what", ["clips", "occlusion", "ablation", "shape"])
def test_every_evaluation_has_help(capsys, what):
    assert main(["evaluate", what, "--help"]) == 0
    assert f"usage: avface evaluate {what}" in capsys.readouterr().out


def test_a_work_folder_that_is_a_file_is_refused_before_the_work(folder, capsys):
    (folder / "file").write_text("")
    assert main(["evaluate", "occlusion", ".", "--work", "file"]) == 2
    assert "file: is a file" in capsys.readouterr().err
