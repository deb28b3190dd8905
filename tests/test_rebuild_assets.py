"""The script that makes everything again from the open head runs its steps in order, once, and resumes."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from avface.cli import _parse

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "rebuild_assets.py"


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The script with steps that copy JSON files, in place of its own; its package is a folder of the test's."""
    spec = importlib.util.spec_from_file_location("rebuild_assets", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "rebuild_assets", module)
    spec.loader.exec_module(module)
    own = module.STEPS
    package = tmp_path / "repository" / "avface"
    (package / "assets").mkdir(parents=True)
    monkeypatch.setattr(module, "PACKAGE", package)
    source = tmp_path / "source.json"
    source.write_text('{"a": 1}')
    steps = (
        module.Step("first", ("json.tool", str(source), "one.json"), makes=("one.json",)),
        module.Step(
            "second",
            ("json.tool", "../first/one.json", "two.json"),
            needs=("first",),
            makes=("two.json",),
            installs=(("two.json", "assets/two.json"),),
        ),
        module.Step("other", ("json.tool", str(source), "other.json"), makes=("other.json",)),
    )
    monkeypatch.setattr(module, "STEPS", steps)
    module.own_steps = own
    return module


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def ran(printed):
    """Names of the steps that a run has started, in order."""
    return [line.split(":")[0] for line in printed.splitlines() if ": python -m" in line]


def test_every_step_makes_its_files_and_a_second_run_makes_none(script, work, capsys):
    script.rebuild(work, {"first", "second", "other"}, 2)
    started = ran(capsys.readouterr().out)
    assert sorted(started) == ["first", "other", "second"]
    assert started.index("first") < started.index("second")
    assert json.loads((script.PACKAGE / "assets" / "two.json").read_text()) == {"a": 1}

    script.rebuild(work, {"first", "second", "other"}, 2)
    assert ran(capsys.readouterr().out) == []


def test_a_step_runs_again_in_an_empty_folder_when_what_it_reads_has_changed(script, work, tmp_path, capsys):
    script.rebuild(work, {"first", "second", "other"}, 1)
    (work / "second" / "stale").touch()
    (work / "first" / "one.json").write_text('{"a": 2}')
    capsys.readouterr()
    script.rebuild(work, {"second", "other"}, 1)
    assert ran(capsys.readouterr().out) == ["second"]
    assert json.loads((script.PACKAGE / "assets" / "two.json").read_text()) == {"a": 2}
    assert not (work / "second" / "stale").exists()


def test_an_interrupted_step_keeps_its_folder(script, work):
    step = script.STEPS[0]
    script.Records(work).begin(step, work)
    (work / "first" / "checkpoint").touch()
    assert not script.Records(work).is_current(step, work)
    script.Records(work).begin(step, work)
    assert (work / "first" / "checkpoint").exists()


def test_after_a_failure_nothing_that_needs_it_runs_and_nothing_is_installed(script, work, tmp_path, capsys):
    (tmp_path / "source.json").write_text("not JSON")
    with pytest.raises(SystemExit) as stopped:
        script.rebuild(work, {"first", "second"}, 2)
    assert stopped.value.code == 1
    printed = capsys.readouterr().out
    assert ran(printed) == ["first"] and "first: failed" in printed
    assert "second: not run, without first" in printed
    assert list((script.PACKAGE / "assets").iterdir()) == []


def test_after_a_failure_what_does_not_need_it_still_runs(script, work, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        script, "STEPS", (replace(script.STEPS[0], command=("no_such_module",)), *script.STEPS[1:])
    )
    with pytest.raises(SystemExit):
        script.rebuild(work, {"first", "second", "other"}, 1)
    assert ran(capsys.readouterr().out) == ["first", "other"]
    assert (work / "other" / "other.json").exists()


def test_the_steps_are_commands_of_the_product_in_an_order_that_works(script):
    before = set()
    for step in script.own_steps:
        assert set(step.needs) <= before, step.name
        before.add(step.name)
        if step.command[0] == "avface":
            assert _parse(list(step.command[1:])) is not None
        else:
            assert importlib.util.find_spec(step.command[0]) is not None


def test_a_new_heads_digest_is_written_into_its_module(script, monkeypatch):
    module, head = script.PACKAGE / "open_head.py", script.PACKAGE / "head"
    head.mkdir()
    module.write_text('OPEN_DIGEST = "old"\n\nFIRST_OPEN_DIGEST = "first"\n')
    (script.PACKAGE / "__init__.py").touch()
    (head / "__init__.py").write_text(
        "from types import SimpleNamespace\n\n\n"
        'def load_head():\n    return SimpleNamespace(digest=lambda: "0123456789abcdef")\n'
    )
    script.name_digest()
    assert module.read_text() == 'OPEN_DIGEST = "0123456789abcdef"\n\nFIRST_OPEN_DIGEST = "first"\n'
