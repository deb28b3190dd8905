"""Rows of the ablation: what `avface evaluate ablation` takes them for, and their training."""

from dataclasses import replace

import pytest

from avface.errors import AvfaceError
from avface.evaluation.ablation import AblationRow, paper_tables
from avface.training.coarse import ablation_rows, recipes
from avface.training.coarse.ablation_rows import BEFORE, ROWS, TUNED, RowsTraining, row_recipes, train_rows


def rows():
    made = {name: AblationRow.of(name, recipe) for name, recipe in row_recipes(100).items()}
    return made | {TUNED: AblationRow.of(TUNED, recipes.occlusion(row_recipes(100)[BEFORE]))}


def test_the_rows_are_those_of_the_papers_tables():
    made = rows()
    assert tuple(made) == ROWS
    assert {name: row.label for name, row in made.items()} == {
        "video": "e from video",
        "video-temporal": "e from video + temporal",
        "audio": "e from audio",
        "audio-temporal": "e from audio + temporal",
        "av": "e from AV",
        "av-dropout": "e from AV + dropout",
        "av-dropout-temporal": "e from AV + dropout + temporal",
        "no-occlusions": "e from AV + dropout + temporal",
        "rendered-moonshine": "e from AV + dropout + temporal",
        "rendered-own": "e from AV + dropout + temporal",
        "rendered-mel": "e from AV + dropout + temporal",
        "tuned": "e from AV + dropout + temporal",
    }
    compared = [made[name] for name in ablation_rows.DEFAULT_ROWS]
    sizes = {title: len(group) for title, group in paper_tables(compared)}
    assert sizes == {"Table 1": 7, "Table 3, occlusions": 3}
    kinds = [made["rendered-moonshine"], made["rendered-mel"]]
    assert ("Table 2, speech features", kinds) in [(title, group) for title, group in paper_tables(kinds)]


def test_rows_differ_in_one_thing_from_the_default_recipe():
    base = replace(recipes.default(), steps=100)
    made = row_recipes(100)
    assert made[BEFORE] == base
    silent = made["video-temporal"]
    assert replace(silent, network=base.network) == base
    assert (
        replace(silent.network.expression, audio_dropout=0.25, video_dropout=0.25) == base.network.expression
    )
    assert made["av"].network.window == 1


def test_existing_rows_are_left_out_and_unknown_ones_refused(tmp_path, monkeypatch):
    trained = []

    def train(training):
        trained.append((training.recipe.name, training.out.stem, training.recipe.steps))
        training.out.parent.mkdir(parents=True, exist_ok=True)
        training.out.write_bytes(b"weights")

    monkeypatch.setattr(ablation_rows, "train", train)
    (tmp_path / "video.safetensors").write_bytes(b"weights")
    found = train_rows(RowsTraining(tmp_path / "shards", tmp_path, ("video", "av"), steps=7))
    assert trained == [("default", "av", 7)]
    assert [path.name for path in found] == ["video.safetensors", "av.safetensors"]
    assert all(path.exists() for path in found)

    with pytest.raises(AvfaceError, match="rows: smell: no such row"):
        RowsTraining(tmp_path, tmp_path, ("smell",))
    with pytest.raises(AvfaceError, match="no such file; train a recipe first"):
        train_rows(RowsTraining(tmp_path, tmp_path, (TUNED,)))
