"""`avface head import`: from the command line to a head that is found by its name."""

import json
import os
import pickle

import numpy as np
import pytest
from flame_files import random_fields, write_pickle

from avface.cli import main
from avface.head import load_head
from avface.head.model import LandmarkEmbedding


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AVFACE_HEADS", str(tmp_path / "heads"))

    class Mesh:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setattr("avface.tracking.facemesh.FaceMesh", Mesh)
    return tmp_path


@pytest.fixture
def model(folder, monkeypatch):
    """A FLAME file, and landmark embeddings without renderings."""
    from avface.head.flame import importer as flame_import

    def embeddings(head, detect, config, on_portrait):
        on_portrait()
        rows = head.faces.numpy()[: 478 % len(head.faces)]
        triangles = np.resize(rows, (478, 3))
        some = LandmarkEmbedding(triangles, np.full((478, 3), 1 / 3), np.ones(478), np.zeros((1, 478, 3)))
        few = LandmarkEmbedding(triangles[:68], some.barycentric[:68], np.ones(68), np.zeros((1, 68, 3)))
        return {"mediapipe478": some, "ibug68": few}

    monkeypatch.setattr(flame_import, "build_embeddings", embeddings)
    monkeypatch.setattr(flame_import, "regions_from_landmarks", lambda head: head.regions)
    return write_pickle(folder / "generic_model.pkl", random_fields())


def refusal(capsys, *words):
    assert main([*map(str, words)]) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1, output.err
    return output.err


def test_a_head_is_imported_and_found_by_its_name(model, folder, capsys):
    assert main(["head", "import", str(model), "--name", "flame2020", "--shape-components", "20"]) == 0
    assert "--head flame2020" in capsys.readouterr().out

    head = load_head("flame2020")
    assert head.num_shape == 20 and head.num_expression == 53
    assert [file.name for file in (folder / "heads").iterdir()] == ["flame2020.npz"]
    assert main(["head", "info", "flame2020", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["expression_units"][-3:] == ["jawPitch", "jawYaw", "jawRoll"]


def test_a_head_can_be_written_to_any_path(model, folder, capsys):
    assert main(["head", "import", str(model), "-o", "mine.npz", "--expression-components", "9"]) == 0
    assert "--head mine.npz" in capsys.readouterr().out
    assert load_head(folder / "mine.npz").num_expression == 12
    assert not (folder / "heads").exists()


def test_published_landmarks_and_template_are_used(model, folder):
    rows, weights = np.arange(105) % 20, np.tile([0.2, 0.3, 0.5], (105, 1))
    np.savez(folder / "e.npz", lmk_face_idx=rows, lmk_b_coords=weights, landmark_indices=np.arange(105) + 7)

    assert main(["head", "import", str(model), "-o", "a.npz", "--embedding", "e.npz"]) == 0

    embedding = load_head(folder / "a.npz").embedding("mediapipe478")
    np.testing.assert_allclose(embedding.barycentric[7:112], weights)
    np.testing.assert_allclose(embedding.barycentric[112:], 1 / 3)


def test_a_pickle_with_code_is_refused_and_nothing_runs(folder, capsys):
    class Trap:
        def __reduce__(self):
            return os.system, ("touch ran",)

    (folder / "model.pkl").write_bytes(pickle.dumps({"v_template": Trap()}))

    output = refusal(capsys, "head", "import", "model.pkl", "--name", "flame2020")

    assert "model.pkl" in output and f"{os.system.__module__}.system" in output
    assert {file.name for file in folder.iterdir()} == {"model.pkl"}


def test_wrong_names_and_numbers_are_refused_before_the_work(model, capsys):
    assert "can't be a head's name" in refusal(capsys, "head", "import", model, "--name", "a/b")
    assert "can't be a head's name" in refusal(capsys, "head", "import", model, "--name", "open")
    assert "301 shape" in refusal(capsys, "head", "import", model, "--shape-components", "301")
    assert "ends in .npz" in refusal(capsys, "head", "import", model, "-o", "head.glb")
    assert "no such file" in refusal(capsys, "head", "import", "none.pkl")
    assert "unknown head" in refusal(capsys, "reconstruct", "talk.mp4", "--head", "flame2020")
