"""The shipped head file, and refusals of other files."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from avface.errors import AvfaceError
from avface.geometry.rasteriser import rasterise
from avface.head import load_head
from avface.head.asset import OPEN_HEAD, save_head_asset
from avface.head.model import LandmarkEmbedding
from avface.open_head import OPEN_DIGEST, OPEN_NAME


@pytest.fixture(scope="module")
def head():
    return load_head("open")


@pytest.fixture(scope="module")
def arrays():
    with np.load(OPEN_HEAD, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def written(path, arrays, **changes):
    changed = {**arrays, **changes}
    np.savez(path, **{key: value for key, value in changed.items() if value is not None})
    return path


# Mesh


def test_the_asset_is_small_enough_to_ship():
    assert OPEN_HEAD.stat().st_size <= 8e6


def test_sizes_are_consistent(head):
    vertices = head.num_vertices

    assert head.num_shape == 100 and head.num_expression == 52
    assert head.joint_names == ("neck", "left_eye", "right_eye") and head.joint_parents == (-1, 0, 0)
    assert head.joint_regressor.shape == (3, vertices)
    assert head.faces.min() == 0 and head.faces.max() == vertices - 1
    assert len(np.unique(head.faces)) == vertices, "every vertex is in a triangle"
    assert head.uv_faces.shape == head.faces.shape and head.uv_faces.max() == len(head.uv) - 1
    for values in (head.template, head.shape_basis, head.expression_basis):
        assert torch.isfinite(values).all()


def test_skinning_and_joint_weights_are_averages(head):
    torch.testing.assert_close(head.skin_weights.sum(1), torch.ones(head.num_vertices))
    assert head.skin_weights.min() >= 0
    torch.testing.assert_close(head.joint_regressor.sum(1), torch.ones(head.num_joints))


def test_every_triangle_belongs_to_a_part_and_parts_share_no_vertex_but_skin_and_mouth(head):
    assert head.face_parts.shape == (len(head.faces),)
    assert set(head.face_parts) == set(range(len(head.part_names)))
    faces = head.faces.numpy()
    vertices = [set(faces[head.face_parts == k].ravel()) for k in range(len(head.part_names))]
    joined = {"skin mouth_cavity", "mouth_cavity tongue"}
    for a, first in enumerate(head.part_names):
        for b in range(a + 1, len(head.part_names)):
            second = head.part_names[b]
            same_eye = first.split("_")[0] == second.split("_")[0] and first.split("_")[0] in (
                "left",
                "right",
            )
            if not same_eye and f"{first} {second}" not in joined:
                assert not vertices[a] & vertices[b], f"{first} and {second}"


def test_triangles_have_area_and_face_outwards(head):
    corners = head.template[head.faces].double()
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = normal.norm(dim=1) / 2
    assert area.min() > 1e-10

    edges = np.sort(head.faces.numpy()[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    assert np.unique(edges, axis=0, return_counts=True)[1].max() == 2, "no edge has three triangles"
    directed = head.faces.numpy()[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    assert np.unique(directed, axis=0, return_counts=True)[1].max() == 1, "neighbours are wound alike"
    nose = torch.as_tensor(head.regions["nose"])[head.faces].all(1)
    assert (normal[nose].sum(0) / normal[nose].norm(dim=1).sum())[2] > 0.3
    for part in ("left_eye", "right_iris", "skin"):
        rows = torch.as_tensor(head.face_parts == head.part_names.index(part))
        middle = corners[rows].mean((0, 1))
        outwards = ((corners[rows].mean(1) - middle) * normal[rows]).sum()
        assert outwards > 0, part


# Shape space


def test_components_have_decreasing_effect_on_the_face(head):
    face = torch.as_tensor(head.regions["face"])
    size = head.shape_basis[:, face].square().sum(-1).mean(1).sqrt()

    assert 0.003 < size[0] < 0.012, "the first is the size of the head: millimetres"
    assert size[-1] < 0.05 * size[0]
    smooth = size.unfold(0, 20, 20).mean(1)  # neighbours may change places
    assert (smooth.diff() < 0).all()


def test_components_are_linearly_independent_on_the_face(head):
    face = torch.as_tensor(head.regions["face"])
    basis = torch.nn.functional.normalize(head.shape_basis[:, face].flatten(1).double(), dim=1)

    products = (basis @ basis.T).fill_diagonal_(0).abs()
    assert products.mean() < 0.1
    assert torch.linalg.matrix_rank(basis) == head.num_shape


# Regions


def test_regions_lie_where_they_should(head):
    regions, template = head.regions, head.template.numpy()
    middle = {name: template[mask].mean(0) for name, mask in regions.items()}

    assert set(regions) == {"face", "lips", "eyelids", "nose", "ears", "scalp", "neck"}
    for name, mask in regions.items():
        assert mask.shape == (head.num_vertices,) and mask.dtype == bool and mask.sum() >= 30, name
    for inner in ("lips", "eyelids", "nose"):
        assert not (regions[inner] & ~regions["face"]).any(), f"{inner} is a part of the face"
    apart = ("face", "ears", "scalp", "neck")
    for k, first in enumerate(apart):
        for second in apart[k + 1 :]:
            assert not (regions[first] & regions[second]).any(), f"{first} and {second}"
    assert not (regions["lips"] & regions["nose"]).any()
    assert template[regions["scalp"], 1].max() == template[:, 1].max()
    heights = [middle[name][1] for name in ("eyelids", "nose", "lips", "neck")]
    assert heights == sorted(heights, reverse=True)
    assert abs(middle["eyelids"][1]) < 0.01
    assert middle["nose"][2] > middle["eyelids"][2] > middle["ears"][2] > middle["scalp"][2]


def test_regions_are_skin_only(head):
    skin = head.vertex_parts() == head.part_names.index("skin")
    border = np.zeros(head.num_vertices, bool)
    border[head.faces.numpy()[head.face_parts == 0].ravel()] = True

    for name, mask in head.regions.items():
        assert not (mask & ~skin & ~border).any(), name


def test_ears_are_as_large_as_ears(head):
    template = head.template.numpy()

    for side in (1, -1):
        ear = template[head.regions["ears"] & (side * template[:, 0] > 0)]
        width, height, depth = np.ptp(ear, axis=0)
        assert 0.045 < height < 0.085 and 0.02 < depth < 0.055 and width < 0.04


# UV


def test_uv_points_fill_the_unit_square(head):
    assert head.uv.min() >= 0 and head.uv.max() <= 1
    skin = head.uv[np.unique(head.uv_faces[head.face_parts == 0])]
    assert np.ptp(skin, axis=0).min() > 0.8


def signed_areas(triangles):
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    u, v = b - a, c - a
    return 0.5 * (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])


def test_uv_triangles_of_the_skin_are_whole_and_do_not_overlap(head):
    skin = head.face_parts == head.part_names.index("skin")
    triangles = head.uv[head.uv_faces[skin]].astype(np.float64)
    areas = signed_areas(triangles)

    assert (np.abs(areas) > 1e-9).mean() > 0.995
    assert max((areas > 0).mean(), (areas < 0).mean()) > 0.99, "one winding: nothing is folded over"
    size = 1024
    seen = rasterise(
        torch.as_tensor(head.uv, dtype=torch.float32) * (size - 1),
        torch.ones(len(head.uv)),
        torch.as_tensor(head.uv_faces[skin]),
        size,
        size,
    )
    covered = float((seen.triangle >= 0).sum()) / size**2
    assert np.abs(areas).sum() == pytest.approx(covered, rel=0.03)
    assert covered > 0.4


def test_the_face_stands_upright_in_the_texture(head):
    owner = np.zeros(len(head.uv), int)
    owner[head.uv_faces] = head.faces.numpy()
    face = head.regions["face"][owner] & (
        head.uv[:, 1] > 0.15
    )  # the strip below holds eye sockets and the like

    x, y = head.template.numpy()[owner[face], :2].T
    assert np.corrcoef(head.uv[face, 0], x)[0, 1] > 0.9
    assert np.corrcoef(head.uv[face, 1], y)[0, 1] > 0.9


# Files


def test_a_saved_head_comes_back_within_16_bit_steps(head, tmp_path):
    path = tmp_path / "copy.npz"
    save_head_asset(head, path)

    copy = load_head(path)

    assert copy.name == head.name and copy.expression_names == head.expression_names
    assert copy.joint_names == head.joint_names and copy.joint_parents == head.joint_parents
    torch.testing.assert_close(copy.template, head.template, rtol=0, atol=0)
    torch.testing.assert_close(copy.expression_basis, head.expression_basis, rtol=0, atol=1e-6)
    torch.testing.assert_close(copy.shape_basis, head.shape_basis, rtol=0, atol=1e-6)
    for name in ("uv", "uv_faces", "face_parts", "gaze_range"):
        np.testing.assert_array_equal(getattr(copy, name), getattr(head, name))
    for name, mask in head.regions.items():
        np.testing.assert_array_equal(copy.regions[name], mask)
    for scheme, embedding in head.embeddings.items():
        again = copy.embedding(scheme)
        np.testing.assert_array_equal(again.triangles, embedding.triangles)
        np.testing.assert_allclose(again.barycentric, embedding.barycentric, atol=1e-6)
        np.testing.assert_allclose(again.spread, embedding.spread, rtol=1e-6)
    assert [file.name for file in tmp_path.iterdir()] == ["copy.npz"]


def test_rounding_of_a_coarse_basis_stays_under_a_micrometre(head, tmp_path):
    import copy

    rough = copy.deepcopy(head)
    rough.expression_basis += 0.009 * torch.randn(
        rough.expression_basis.shape, generator=torch.Generator().manual_seed(0)
    )
    rough.expression_basis[3] = 0  # a unit that moves nothing has no scale
    with np.errstate(all="raise"):
        save_head_asset(rough, tmp_path / "rough.npz")

    again = load_head(tmp_path / "rough.npz").expression_basis

    assert 0 < (again - rough.expression_basis).abs().max() < 1e-6
    assert (again[3] == 0).all()


def test_an_unknown_landmark_scheme_is_refused_with_the_known_ones(head):
    assert isinstance(head.embedding("ibug68"), LandmarkEmbedding)
    with pytest.raises(AvfaceError, match=r"open: no landmark scheme 'dlib5'.*ibug68, mediapipe478"):
        head.embedding("dlib5")


def refused(path, message=None):
    with pytest.raises(AvfaceError, match=message) as caught:
        load_head(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_name_or_missing_file_is_refused(tmp_path):
    refused("flaem", "unknown head; use 'open'")
    refused(tmp_path / "none.npz", "no such head file")


def test_files_of_other_kinds_are_refused(tmp_path):
    for name, content in {
        "empty.npz": b"",
        "text.npz": b"not a head at all",
        "zip.npz": b"PK\x03\x04 and then nothing",
    }.items():
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name)
    np.save(tmp_path / "bare.npy", np.zeros(3))
    refused(tmp_path / "bare.npy")
    refused(written(tmp_path / "other.npz", {"points": np.zeros((5, 3))}), "version")
    (tmp_path / "folder.npz").mkdir()
    refused(tmp_path / "folder.npz")


@pytest.mark.parametrize("share", [0.2, 0.6, 0.999])
def test_a_truncated_head_is_refused(tmp_path, share):
    data = OPEN_HEAD.read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: int(share * len(data))])

    refused(tmp_path / "cut.npz")


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_damaged_head_is_refused(tmp_path, place):
    data = bytearray(OPEN_HEAD.read_bytes())
    start = int(place * len(data))
    data[start : start + 200] = bytes(200)
    (tmp_path / "damaged.npz").write_bytes(data)

    refused(tmp_path / "damaged.npz")


@pytest.mark.parametrize("version", [np.array(99), np.array("new"), np.array([1, 2]), np.array(None)])
def test_another_version_is_refused(tmp_path, arrays, version):
    refused(written(tmp_path / "new.npz", arrays, asset_version=version))


@pytest.mark.parametrize(
    "key", ["template", "faces", "scheme_names", "mediapipe478_triangles", "region_masks"]
)
def test_a_head_with_a_part_missing_is_refused_by_its_name(tmp_path, arrays, key):
    refused(written(tmp_path / "part.npz", arrays, **{key: None}), key)


def test_a_head_that_carries_code_is_refused_and_the_code_never_runs(tmp_path, arrays):
    trap = tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            return (open, (str(trap), "w"))

    for key in ("template", "asset_version", "name", "anything"):
        path = written(tmp_path / f"{key}.npz", arrays, **{key: np.array([Trap()], dtype=object)})
        refused(path)
        assert not trap.exists(), "code from the file ran"


def test_a_failed_save_leaves_nothing_behind(head, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)

    with pytest.raises((OSError, AvfaceError)):
        save_head_asset(head, tmp_path / "head.npz")
    assert not list(tmp_path.iterdir())


# Name and content


def test_the_digest_of_the_built_in_head_is_the_one_that_weights_and_priors_name(head):
    assert (head.name, head.digest()) == (OPEN_NAME, OPEN_DIGEST)
    assert load_head("open").double().digest() == OPEN_DIGEST


def test_a_copy_of_the_built_in_head_is_the_open_head_whatever_name_it_gives(arrays, tmp_path):
    copied = load_head(written(tmp_path / "copy.npz", arrays, name=np.array("mine")))

    assert (copied.name, copied.digest()) == (OPEN_NAME, OPEN_DIGEST)


@pytest.mark.parametrize(
    "key",
    ["template", "shape_basis", "expression_scale", "faces", "uv", "mediapipe478_triangles", "region_masks"],
)
def test_a_head_of_other_content_is_not_the_open_head_even_if_it_says_so(arrays, tmp_path, key):
    values = arrays[key].copy()
    values[5:9] = values[9:13] if key != "region_masks" else ~values[5:9]

    changes = {key: values, **({"quads": arrays["quads"][:0]} if key == "faces" else {})}
    other = load_head(written(tmp_path / "other.npz", arrays, **changes))

    assert other.digest() != OPEN_DIGEST
    assert other.name == f"open-{other.digest()[:8]}"


def test_a_digest_survives_saving_and_ignores_the_detectors_statistics(head, tmp_path):
    changed = load_head("open")
    for scheme, embedding in changed.embeddings.items():
        changed.embeddings[scheme] = replace(embedding, error_basis=embedding.error_basis[:0])
    save_head_asset(changed, tmp_path / "saved.npz")

    assert changed.digest() == load_head(tmp_path / "saved.npz").digest() == OPEN_DIGEST
