"""`avface train`: options of every training, one line for every refusal, and nothing heavy before it is needed."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from training_runs import lip_performances

from avface.cli import _parse, main
from avface.cli.train import TRAININGS
from avface.training.coarse import recipes
from avface.training.coarse.ablation_rows import DEFAULT_ROWS
from avface.training.detail.train import DetailRecipe
from avface.training.lips.train import LipsRecipe


def refusal(capsys, *words):
    assert main([*map(str, words)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("avface: error: ") and printed.err.count("\n") == 1, printed.err
    return printed.err.removeprefix("avface: error: ")


@pytest.mark.parametrize("name", TRAININGS)
def test_every_training_explains_itself(capsys, name):
    assert main(["train", name, "--help"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"usage: avface train {name} ") and printed.err == ""


def test_the_list_of_trainings_is_complete_and_loads_nothing_heavy():
    code = (
        "import sys; from avface.cli import main; code = main(['train', '--help']);"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"• {name} " in done.stdout for name in TRAININGS), done.stdout
    assert set(done.stderr.split()).isdisjoint({"torch", "numpy", "scipy", "safetensors"})


@pytest.mark.parametrize("make", [recipes.default, recipes.default_image, recipes.paper])
def test_each_coarse_recipe_is_a_command_whose_options_change_it(make, tmp_path):
    words = ["coarse", make().name, str(tmp_path), "--steps", "7", "--time-limit", "2", "--quiet"]
    command = _parse(["train", *words])

    assert command.options.recipe == replace(make(), steps=7)
    assert command.options.shards == tmp_path
    assert command.options.run.time_limit == 2
    assert command.messages.quiet and not command.messages.json


def test_options_of_the_other_trainings(tmp_path):
    def parsed(words):
        return _parse(["train", *words.split()]).options

    assert parsed("lips --steps 5 --losses.contact 0 --performances.hours 1").recipe == replace(
        LipsRecipe(steps=5),
        losses=replace(LipsRecipe().losses, contact=0.0),
        performances=replace(LipsRecipe().performances, hours=1.0),
    )
    assert parsed("detail --no-bfloat16 --frames.people 3").recipe == replace(
        DetailRecipe(bfloat16=False), frames=replace(DetailRecipe().frames, people=3)
    )
    assert parsed("landmarks --views.people 50 --checkpoint-every 9").run.checkpoint_every == 9
    assert parsed("acoustic --hours 2").recipe.hours == 2
    assert parsed("hearing --mixture.clean 0.5").recipe.mixture.clean == 0.5
    assert parsed("visibility clips --count 8").count == 8
    assert parsed("shape-prior --out folder --people 4").config.people == 4
    assert parsed("ablation-rows shards").rows == DEFAULT_ROWS


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train", "expected one of {coarse, lips, "),
        ("train lps", "lps (did you mean lips?); see avface train --help"),
        ("train lips --steps 0", "steps=0 must be positive"),
        ("train lips --steps many", "--steps: "),
        (
            "train coarse paper",
            "missing from avface train coarse paper: SHARDS; see avface train coarse --help",
        ),
        ("train coarse default none", "none: holds no index.json"),
        ("train coarse occlusion none --start nothing", "nothing: no such file"),
        ("train visibility none", "none: no folders with truth.npz; make clips with `avface synthesize`"),
        ("train ablation-rows none --rows smell", "rows: smell: no such row"),
        ("train landmarks --device cuda", "device=cuda must be cpu"),
    ],
)
def test_wrong_usage_is_one_line(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in refusal(capsys, *words.split())


def test_a_missing_package_is_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    assert refusal(capsys, "train", "coarse", "default", "none") == (
        "training needs lightning-fabric; install it with: pip install 'avface[train]'\n"
    )

    def missing(name):
        raise ModuleNotFoundError(f"No module named {name}", name="mido")

    monkeypatch.setattr("avface.cli.train.import_module", missing)
    assert refusal(capsys, "train", "acoustic") == (
        "training needs mido; install it with: pip install 'avface[train,build]'\n"
    )


def test_a_training_reports_its_files(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "avface.training.lips.train.prepare_lip_performances", lambda *_, **__: lip_performances()
    )
    words = ["train", "lips", "--out", str(tmp_path / "l.safetensors"), "--steps", "2", "--batch", "2"]
    words += [
        "--pretraining-steps",
        "1",
        "--render-size",
        "16",
        "--network.points",
        "24",
        "--report-every",
        "1",
    ]

    assert main(words) == 0
    printed = capsys.readouterr()
    assert "l.safetensors" in printed.out and "3 steps in " in printed.out
    assert printed.err.count("step ") == 3

    assert main([*words, "--json"]) == 0
    printed = capsys.readouterr()
    facts = json.loads(printed.out)
    assert facts["steps"] == 3 and len(facts["losses"]) == 3 and printed.err == ""
    assert facts["written"][0]["path"] == str(tmp_path / "l.safetensors")

    monkeypatch.setenv("RANK", "1")
    assert main(words) == 0
    assert capsys.readouterr() == ("", ""), "of several processes only the first prints"


@pytest.mark.slow
def test_torchrun_starts_the_command(tmp_path):
    """As `torchrun -m avface train ...` does in each of its processes."""
    done = subprocess.run(
        [sys.executable, "-m", "avface", "train", "coarse", "default", "none"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2 and "none: holds no index.json" in done.stderr
