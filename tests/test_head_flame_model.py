"""FLAME as a `HeadModel`: its vertices against a reimplementation of FLAME's forward pass in NumPy."""

import numpy as np
import pytest
import torch
from flame_files import open_head_fields, random_fields, write_pickle
from scipy.spatial.transform import Rotation

from avface.errors import AvfaceError
from avface.head import load_head
from avface.head.asset import save_head_asset
from avface.head.contour import BINS, YawContour, yaw_bins
from avface.head.embedding import EmbeddingConfig
from avface.head.flame.importer import import_flame
from avface.head.flame.model import JAW_UNITS, JOINTS, FlameImportConfig, flame_head, read_flame
from avface.head.folder import heads_folder

VERTICES = 600
"""FLAME has 5023; the computation is the same for all."""
CLOSE = 1e-5
"""Metres."""


@pytest.fixture(scope="module")
def fields():
    return random_fields(VERTICES, seed=4)


@pytest.fixture(scope="module")
def flame(fields, tmp_path_factory):
    return read_flame(write_pickle(tmp_path_factory.mktemp("flame") / "generic_model.pkl", fields))


@pytest.fixture(scope="module")
def head(flame):
    return flame_head(flame, "flame2020")


def poses(batch=4, seed=0):
    """betas (B, 100), psi (B, 50), and rotations (B, 3) of root, neck, jaw and eyes."""
    rng = np.random.default_rng(seed)
    turns = rng.normal(0, 0.4, (batch, 5, 3))
    turns[0] = 0
    return rng.normal(0, 1, (batch, 100)), rng.normal(0, 1, (batch, 50)), turns


def flame_vertices(fields, betas, psi, turns):
    """FLAME's forward pass as in its paper, one frame at a time: (B, V, 3)."""
    results = []
    for beta, weights, turn in zip(betas, psi, turns, strict=True):
        coefficients = np.zeros(400)
        coefficients[: len(beta)], coefficients[300 : 300 + len(weights)] = beta, weights
        shaped = fields["v_template"] + fields["shapedirs"] @ coefficients
        centres = fields["J_regressor"] @ shaped
        rotations = Rotation.from_rotvec(turn).as_matrix()
        posed = shaped + fields["posedirs"] @ (rotations[1:] - np.eye(3)).ravel()
        parents = [-1, 0, 1, 1, 1]
        world = []
        for j, parent in enumerate(parents):
            local = np.eye(4)
            local[:3, :3] = rotations[j]
            local[:3, 3] = centres[j] - (centres[parent] if parent >= 0 else 0)
            world.append(world[parent] @ local if parent >= 0 else local)
        moved = 0
        for j in range(5):
            relative = world[j].copy()
            relative[:3, 3] -= relative[:3, :3] @ centres[j]
            moved = moved + fields["weights"][:, j, None] * (posed @ relative[:3, :3].T + relative[:3, 3])
        results.append(moved)
    return np.stack(results)


def avface_vertices(head, fields, betas, psi, turns, jaw_as_units=True):
    """The same by a head: the jaw as expression units, the root about its own joint."""
    expression = np.zeros((len(psi), head.num_expression))
    expression[:, : psi.shape[1]] = psi
    joints = turns[:, 1:].copy()
    if jaw_as_units:
        units = [head.expression_names.index(name) for name in JAW_UNITS]
        expression[:, units] = joints[:, JOINTS.index("jaw")]
        joints[:, JOINTS.index("jaw")] = 0
    kind = head.template.dtype
    given = (torch.as_tensor(values, dtype=kind) for values in (betas, expression, joints))
    vertices = head(*given).double().numpy()
    coefficients = np.zeros((len(betas), 400))
    coefficients[:, :100], coefficients[:, 300 : 300 + psi.shape[1]] = betas, psi
    rest = fields["v_template"] + np.einsum("vcs,bs->bvc", fields["shapedirs"], coefficients)
    pivot = (fields["J_regressor"] @ rest.transpose(1, 0, 2).reshape(VERTICES, -1)).reshape(5, -1, 3)[0][
        :, None
    ]
    root = Rotation.from_rotvec(turns[:, 0]).as_matrix()
    return (vertices - pivot) @ root.transpose(0, 2, 1) + pivot


@pytest.mark.parametrize("jaw_as_units", [True, False])
def test_vertices_are_those_of_flames_own_computation(head, fields, jaw_as_units):
    betas, psi, turns = poses()

    expected = flame_vertices(fields, betas, psi, turns)

    found = avface_vertices(head, fields, betas, psi, turns, jaw_as_units)
    assert np.abs(found - expected).max() < CLOSE
    assert np.abs(expected[1:] - expected[:1]).max() > 0.05, "everything is at work"


def test_vertices_are_those_of_smplx(head, fields):
    smplx = pytest.importorskip("smplx.lbs")
    betas, psi, turns = poses(seed=1)
    kinds = {"dtype": torch.float32}
    rotations = torch.as_tensor(
        Rotation.from_rotvec(turns.reshape(-1, 3)).as_matrix().reshape(-1, 5, 3, 3), **kinds
    )
    directions = np.concatenate([fields["shapedirs"][..., :100], fields["shapedirs"][..., 300:350]], -1)

    expected, _ = smplx.lbs(
        torch.as_tensor(np.concatenate([betas, psi], 1), **kinds),
        rotations,
        torch.as_tensor(fields["v_template"], **kinds)[None],
        torch.as_tensor(directions, **kinds),
        torch.as_tensor(fields["posedirs"].reshape(-1, 36).T, **kinds),
        torch.as_tensor(fields["J_regressor"].toarray(), **kinds),
        torch.tensor([-1, 0, 1, 1, 1]),
        torch.as_tensor(fields["weights"], **kinds),
        pose2rot=False,
    )

    found = avface_vertices(head, fields, betas, psi, turns)
    assert np.abs(found - expected.numpy()).max() < CLOSE


def test_a_saved_head_keeps_its_vertices_units_and_joints(head, fields, tmp_path):
    contour = YawContour(np.arange(BINS * 51).reshape(BINS, 17, 3), np.full((BINS, 17, 3), 1 / 3))
    head.contour = contour
    save_head_asset(head, tmp_path / "flame.npz")
    head.contour = None
    again = load_head(tmp_path / "flame.npz")

    betas, psi, turns = poses(seed=2)
    expected = flame_vertices(fields, betas, psi, turns)
    assert np.abs(avface_vertices(again, fields, betas, psi, turns) - expected).max() < CLOSE
    assert again.joint_units == head.joint_units and again.joints_follow_expression
    for part in ("low", "high", "sigma"):
        np.testing.assert_array_equal(getattr(again.unit_range, part), getattr(head.unit_range, part))
    np.testing.assert_array_equal(again.contour.triangles, contour.triangles)
    np.testing.assert_allclose(again.contour.barycentric, contour.barycentric)


def test_only_the_first_components_are_kept(flame):
    small = flame_head(flame, "small", FlameImportConfig(shape_components=7, expression_components=3))

    assert small.num_shape == 7
    assert small.expression_names == ("expression_001", "expression_002", "expression_003", *JAW_UNITS)
    np.testing.assert_allclose(small.shape_basis, flame.shape_basis[:7], atol=1e-7)
    np.testing.assert_allclose(small.expression_basis[:3], flame.expression_basis[:3], atol=1e-7)


def test_derivatives_go_through_units_joints_and_correctives(tmp_path):
    small = read_flame(write_pickle(tmp_path / "small.pkl", random_fields(40)))
    exact = flame_head(small, "exact", FlameImportConfig(3, 2)).double()
    rng = np.random.default_rng(3)
    given = [
        torch.as_tensor(rng.normal(0, 0.3, size), dtype=torch.float64).requires_grad_()
        for size in ((2, 3), (2, 5), (2, 4, 3))
    ]

    assert torch.autograd.gradcheck(lambda *x: exact(*x)[:, ::10], given)


# The contour


def test_yaw_counts_turns_to_the_subjects_left_as_positive():
    facing = np.diag([1.0, -1.0, -1.0])
    for degrees, number in (
        (0, 0),
        (25, 25),
        (-25, 64),
        (39, 39),
        (70, 39),
        (-39, 78),
        (-80, 78),
        (0.4, 0),
        (-1, 40),
    ):
        turn = facing @ Rotation.from_euler("ZYX", [5, degrees, 8], degrees=True).as_matrix()
        assert yaw_bins(torch.as_tensor(turn)[None]).item() == number, degrees
    left = facing @ Rotation.from_euler("Y", 30, degrees=True).apply([0, 0, 1])
    assert left[0] > 0, "a nose that turns to the subject's left goes to the right of the picture"


def test_a_turned_heads_contour_lies_on_the_line_that_the_camera_sees():
    """On a ball the seen edge is known: a contour made for it must follow it, which pins down the sign of the yaw."""
    radius, heights = 0.1, np.linspace(-0.05, 0.05, 17)
    half = np.sqrt(radius**2 - heights**2)
    vertices, triangles = [], np.zeros((BINS, 17, 3), int)
    side = np.where(np.arange(17) < 8, -1, 1)  # iBUG's contour begins at the right ear: -x
    for number in range(BINS):
        yaw = np.deg2rad(number if number < 40 else 39 - number)
        edge = side * np.pi / 2 - yaw  # in the head's own axes, as an angle from +z towards +x
        points = np.stack([half * np.sin(edge), heights, half * np.cos(edge)], 1)
        triangles[number] = (len(vertices) + np.arange(17))[:, None]
        vertices.extend(points)
    contour = YawContour(triangles, np.full((BINS, 17, 3), 1 / 3))

    for degrees in (-35, -10, 0, 20, 39):
        turn = np.diag([1.0, -1.0, -1.0]) @ Rotation.from_euler("Y", degrees, degrees=True).as_matrix()
        seen = contour.points(torch.as_tensor(np.array(vertices))[None], torch.as_tensor(turn)[None])[
            0
        ].numpy()
        in_camera = seen @ turn.T
        np.testing.assert_allclose(in_camera[:, 0], side * half, atol=1e-9)
        np.testing.assert_allclose(in_camera[:, 2], 0, atol=1e-9)


# The whole import


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The open head, as a FLAME file, with landmarks by a detector that sees through the pictures."""
    folder = tmp_path_factory.mktemp("import")
    fields, original = open_head_fields()
    path = write_pickle(folder / "generic_model.pkl", fields)
    return import_like(original, path, folder)


def import_like(original, path, folder):
    from avface.head import embedding

    truth = original.embedding("mediapipe478")
    seen, noise = [], np.random.default_rng(0)
    shade = embedding._shade

    def shaded(head, points, camera, colours, rng):
        corners = camera.project(points).double().numpy()[truth.triangles]
        seen.append(np.einsum("lkc,lk->lc", corners, truth.barycentric) + noise.normal(0, 0.3, (478, 2)))
        return np.zeros((8, 8, 3), np.uint8)

    embedding._shade = shaded
    try:
        return import_flame(
            path,
            "open-as-flame",
            lambda picture: seen[-1],
            FlameImportConfig(99, 52),
            portraits=EmbeddingConfig(portraits=6),
        )
    finally:
        embedding._shade = shade


def test_landmarks_are_found_where_the_detector_sees_them(imported):
    truth = load_head("open")
    place = {
        head.name: np.einsum("lkc,lk->lc", head.template.numpy()[e.triangles], e.barycentric)
        for head in (truth, imported)
        for e in [head.embedding("mediapipe478")]
    }

    gap = np.linalg.norm(place["open"][:468] - place["open-as-flame"][:468], axis=1)
    assert np.median(gap) < 0.001 and gap.max() < 0.01


def test_regions_lie_where_they_should(imported):
    truth = load_head("open").regions
    for name in ("face", "lips", "nose"):
        both = (truth[name] & imported.regions[name]).sum()
        assert both > 0.7 * truth[name].sum(), name
    assert not (imported.regions["lips"] & imported.regions["nose"]).any()
    assert imported.regions["ears"].any() and imported.regions["neck"].any()


def test_eyeballs_have_irises_that_look_ahead(imported):
    parts = imported.vertex_parts()
    template = imported.template.numpy()

    for side, sign in (("left", 1), ("right", -1)):
        iris, ball = (
            template[parts == imported.part_names.index(f"{side}_{kind}")] for kind in ("iris", "eye")
        )
        assert len(iris) > 3 and sign * iris[:, 0].mean() > 0.02
        assert iris[:, 2].min() > ball[:, 2].max() - 0.004
        assert np.ptp(iris[:, 0]) < 0.8 * np.ptp(ball[:, 0])


def test_too_few_faces_are_refused(tmp_path):
    path = write_pickle(tmp_path / "model.pkl", random_fields())

    with pytest.raises(AvfaceError, match=r"model\.pkl: the detector found 0 faces"):
        import_flame(path, "x", lambda picture: None, portraits=EmbeddingConfig(portraits=2, size=32))


# The folder of heads


def test_imported_heads_are_found_by_name(head, tmp_path, monkeypatch):
    monkeypatch.setenv("AVFACE_HEADS", str(tmp_path))
    save_head_asset(head, tmp_path / "flame2020.npz")

    assert load_head("flame2020").name == "flame2020"
    with pytest.raises(AvfaceError, match=r"flame2023: unknown head.*flame2020"):
        load_head("flame2023")
    monkeypatch.delenv("AVFACE_HEADS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert heads_folder().name == "heads"


def test_a_head_whose_parts_do_not_fit_is_refused(head, flame):
    small = flame_head(flame, "small", FlameImportConfig(2, 2))
    arguments = {
        "template": flame.template,
        "shape_basis": small.shape_basis.numpy(),
        "expression_basis": small.expression_basis.numpy(),
        "expression_names": small.expression_names,
        "joint_names": small.joint_names,
        "joint_parents": small.joint_parents,
        "joint_regressor": small.joint_regressor.numpy(),
        "skin_weights": flame.skin_weights,
        "faces": flame.faces,
        "uv": small.uv,
        "uv_faces": small.uv_faces,
        "part_names": small.part_names,
        "face_parts": small.face_parts,
        "regions": small.regions,
        "embeddings": {},
        "gaze_range": np.zeros(4),
    }
    from avface.head.model import HeadModel, UnitRange

    for wrong, word in (
        ({"joint_units": {0: (1, 0)}}, "has a basis of its own"),
        ({"joint_units": {2: (9, 0)}}, "doesn't exist"),
        ({"corrective_basis": np.zeros((9, VERTICES, 3))}, "corrective_basis"),
        ({"unit_range": UnitRange.from_zero_to_one(3)}, "unit_range must have 5 entries"),
    ):
        with pytest.raises(ValueError, match=word):
            HeadModel("wrong", **arguments, **wrong)
