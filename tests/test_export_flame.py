"""Heads with a jaw joint, pose correctives and joints that follow the expression in every format."""

import numpy as np
import pytest
from flame_files import open_head_fields, random_fields
from test_export_gltf import largest_error as error_of_glb
from test_export_gltf import weights_of as weights_of_glb
from test_export_usd import complaints
from test_export_usd import largest_error as error_of_usd

from avface.capture import Capture
from avface.head.asset import save_head_asset
from avface.head.flame.model import JAW_UNITS, FlameFile, FlameImportConfig, flame_head

CLOSE = 1e-5
FRAMES = 4


def capture_of(fields, folder, components):
    directions = fields["shapedirs"].transpose(2, 0, 1)
    faces = fields["f"].astype(np.int64)
    flame = FlameFile(
        fields["v_template"],
        faces[np.unique(np.sort(faces, 1), axis=0, return_index=True)[1]],
        directions[:300],
        directions[300:],
        fields["posedirs"].transpose(2, 0, 1),
        fields["J_regressor"].toarray(),
        fields["weights"],
    )
    head = flame_head(flame, "flame", FlameImportConfig(4, components))
    save_head_asset(head, folder / "flame.npz")
    rng = np.random.default_rng(5)
    expression = rng.normal(0, 1, (FRAMES, head.num_expression))
    expression[:, -3:] = rng.uniform(0, 0.4, (FRAMES, 3))
    joints = np.zeros((FRAMES, 4, 3))
    joints[:, 2:, :2] = rng.normal(0, 0.2, (FRAMES, 2, 2))
    joints[:, 0] = rng.normal(0, 0.2, (FRAMES, 3))
    return Capture(
        head=str(folder / "flame.npz"),
        shape=rng.normal(0, 1, 4).astype(np.float32),
        expression=expression.astype(np.float32),
        expression_names=head.expression_names,
        rotation=rng.normal((np.pi, 0, 0), 0.2, (FRAMES, 3)).astype(np.float32),
        translation=rng.normal((0, 0, 0.7), 0.05, (FRAMES, 3)).astype(np.float32),
        joints=joints.astype(np.float32),
        joint_names=head.joint_names,
        focal_length=500.0,
        principal_point=(159.5, 119.5),
        image_size=(320, 240),
        times=np.arange(FRAMES) / 25,
        confidence=np.ones(FRAMES, np.float32),
        source="made",
    )


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """A head of random numbers in FLAME's structure, whose parameters move all vertices."""
    return capture_of(random_fields(80, seed=6), tmp_path_factory.mktemp("head"), 5)


@pytest.fixture(scope="module")
def faced(tmp_path_factory):
    """A head with eyeballs that expressions don't move, though their joints do."""
    return capture_of(open_head_fields()[0], tmp_path_factory.mktemp("head"), 10)


def test_the_jaw_moves_vertices(capture):
    from dataclasses import replace

    still = capture.expression.copy()
    still[:, -3:] = 0
    moved = capture.vertices(space="head") - replace(capture, expression=still).vertices(space="head")
    assert np.abs(moved).max() > 0.005


def test_a_capture_is_restored_from_its_file(capture, tmp_path):
    again = Capture.load(capture.save(tmp_path / "capture.npz"))

    np.testing.assert_array_equal(again.vertices(), capture.vertices())
    assert again.expression_names[-3:] == JAW_UNITS


@pytest.mark.parametrize("kind", ["capture", "faced"])
def test_playing_the_glb_gives_the_vertices_of_the_capture(kind, request, tmp_path):
    made = request.getfixturevalue(kind)
    assert error_of_glb(made, made.export(tmp_path / "head.glb")) < CLOSE


def test_morph_targets_are_the_linear_units_and_the_correctives(capture, tmp_path):
    import pygltflib

    gltf = pygltflib.GLTF2.load(str(capture.export(tmp_path / "head.glb")))
    names = next(mesh.extras["targetNames"] for mesh in gltf.meshes if mesh.extras)

    pairs = [f"expression_00{k}_{end}" for k in range(1, 6) for end in ("plus", "minus")]
    assert names[:10] == pairs
    assert len(names) == 2 * (5 + 36) and {"jaw_corrective_00_plus", "jaw_corrective_00_minus"} <= set(names)
    assert not set(JAW_UNITS) & set(names)


@pytest.mark.parametrize("kind", ["capture", "faced"])
def test_baking_the_usd_gives_the_vertices_of_the_capture(kind, request, tmp_path):
    made = request.getfixturevalue(kind)
    path = made.export(tmp_path / "head.usdc")

    assert error_of_usd(made, path) < CLOSE
    assert complaints(path) == []


def test_meshes_and_curves_are_written(capture, tmp_path):
    folder = capture.export(tmp_path / "face.obj")
    points = [
        line.split()[1:] for line in (folder / "face_000002.obj").read_text().splitlines() if line[:2] == "v "
    ]
    np.testing.assert_allclose(np.array(points, float), capture.vertices(2)[0], atol=1e-6)

    header = capture.export(tmp_path / "face.csv").read_text().splitlines()[0].split(",")
    assert header[2:10] == list(capture.expression_names)


def test_the_page_shows_the_vertices_of_the_capture(faced, capture, tmp_path):
    from chromium import Page, find_chromium
    from test_viewer_page import opened, positions_of

    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on this machine; install one or set AVFACE_CHROMIUM")
    path = capture.export(tmp_path / "page.html")
    with Page(program) as browser:
        opened(browser, path)
        for frame in range(FRAMES):
            error = np.linalg.norm(positions_of(browser, frame) - capture.vertices(frame)[0], axis=1).max()
            assert error < 1e-4, frame
        assert browser.errors == []


def test_the_overlay_renders_the_head(faced, tmp_path):
    from avface.export.overlay import _Renderer

    black = np.zeros((240, 320, 3), np.uint8)
    drawn, _ = _Renderer(faced).blend(black, 1)
    assert 0.02 < (drawn.sum(-1) > 60).sum() / black[..., 0].size < 0.9


@pytest.mark.parametrize("head", ["capture", "faced"])
def test_no_importer_clamps_the_weights_of_units_or_correctives(head, request, tmp_path):
    capture = request.getfixturevalue(head)
    assert capture.expression.min() < -0.5 and capture.expression.max() > 1.5, "standard deviations"
    weights = weights_of_glb(capture.export(tmp_path / "head.glb"))
    assert weights.min() == 0 and weights.max() <= 1
