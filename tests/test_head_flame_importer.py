"""FLAME's files: formats that are read, and files that are refused without executing them."""

import builtins
import os
import pickle
import subprocess
from collections import OrderedDict

import numpy as np
import pytest
import scipy.sparse
import torch
from flame_files import Python2Pickler, chumpy, random_fields, write_npz, write_pickle

from avface.errors import AvfaceError
from avface.head.contour import BINS
from avface.head.flame.landmarks import read_landmarks
from avface.head.flame.model import FlameImportConfig, flame_head, read_flame, read_uv
from avface.head.flame.pickle_reader import read_pickle, read_pickled_npy

ALL_CHUMPY = ("v_template", "shapedirs", "posedirs", "weights", "J")


@pytest.fixture(scope="module")
def fields():
    return random_fields()


def refused(action, *words):
    with pytest.raises(AvfaceError) as caught:
        action()
    said = str(caught.value)
    assert all(word in said for word in words), said
    assert "\n" not in said
    return said


def assert_same(flame, fields):
    np.testing.assert_array_equal(flame.template, fields["v_template"])
    np.testing.assert_array_equal(flame.faces, fields["f"])
    np.testing.assert_array_equal(flame.shape_basis, fields["shapedirs"][..., :300].transpose(2, 0, 1))
    np.testing.assert_array_equal(flame.expression_basis, fields["shapedirs"][..., 300:].transpose(2, 0, 1))
    np.testing.assert_array_equal(flame.corrective_basis, fields["posedirs"].transpose(2, 0, 1))
    np.testing.assert_allclose(flame.joint_regressor, fields["J_regressor"].toarray(), rtol=0, atol=0)
    np.testing.assert_array_equal(flame.skin_weights, fields["weights"])


# Accepted files


@pytest.mark.parametrize("wrapped", [(), ("shapedirs",), ALL_CHUMPY])
def test_a_python_2_pickle_is_read_whatever_is_chumpy_in_it(tmp_path, fields, wrapped):
    assert_same(read_flame(write_pickle(tmp_path / "generic_model.pkl", fields, wrapped)), fields)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_pickles_of_python_3_in_every_protocol_are_read(tmp_path, fields, protocol):
    path = tmp_path / "flame.pkl"
    with chumpy() as wrap:
        given = {key: wrap(value) if key in ALL_CHUMPY else value for key, value in fields.items()}
        path.write_bytes(pickle.dumps(given, protocol))

    assert_same(read_flame(path), fields)


def test_an_npz_of_the_same_fields_is_read_whatever_it_is_called(tmp_path, fields):
    path = write_npz(tmp_path / "flame.npz", fields)

    assert_same(read_flame(path), fields)
    assert_same(read_flame(path.rename(tmp_path / "flame.pkl")), fields)


def test_numbers_of_every_kind_and_order_are_read(tmp_path):
    arrays = {
        kind: np.arange(6).reshape(2, 3).astype(kind)
        for kind in ("<f4", ">f8", "<f2", "i1", "<i8", ">u4", "u2", "?")
    }
    arrays["fortran"] = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    rows = scipy.sparse.csr_matrix(np.eye(3)[[2, 0, 1]])
    given = {**arrays, "rows": rows, "scalar": np.float64(2.5), "empty": scipy.sparse.csc_matrix((2, 3))}
    (tmp_path / "kinds.pkl").write_bytes(pickle.dumps(given, 2))

    read = read_pickle(tmp_path / "kinds.pkl")

    for name, values in arrays.items():
        np.testing.assert_array_equal(read[name], values)
    np.testing.assert_array_equal(read["rows"], rows.toarray())
    np.testing.assert_array_equal(read["empty"], np.zeros((2, 3)))
    assert read["scalar"] == 2.5


def test_landmarks_of_torch_within_a_pickled_npy_are_read(tmp_path):
    whole = torch.arange(24.0).reshape(2, 3, 4)
    given = {
        "array": np.arange(3),
        "tensor": whole[1, :, 1:3].t(),
        "numbers": torch.arange(5) * 2**40,
        "single": torch.tensor(7.0),
    }
    np.save(tmp_path / "embedding.npy", given, allow_pickle=True)

    read = read_pickled_npy(tmp_path / "embedding.npy")

    np.testing.assert_array_equal(read["array"], given["array"])
    for name in ("tensor", "numbers", "single"):
        np.testing.assert_array_equal(read[name], given[name].numpy())


# Refused files


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call


def hostile(trap):
    """Pickled fields that would create a file, with the name that must be reported."""
    write = f"open({str(trap)!r}, 'w')"
    inside = np.empty(1, object)
    inside[0] = Call(os.system, f"touch {trap}")
    yield Call(os.system, f"touch {trap}"), ".system"
    yield Call(eval, write), "eval"
    yield Call(exec, write), "exec"
    yield Call(open, str(trap), "w"), "open"
    yield Call(subprocess.Popen, ["touch", str(trap)]), ".Popen"
    yield Call(builtins.getattr, "x", "upper"), "getattr"
    yield [{"deep": (Call(os.system, f"touch {trap}"),)}], ".system"
    yield inside, ".system"
    yield np.array([1, "text"], object), "array"
    yield OrderedDict(a=Call(os.mkdir, str(trap))), ".mkdir"
    yield Call(__import__, "os"), "__import__"
    yield np.load, "load"
    yield np.zeros(3, [("a", "f8"), ("b", "i4")]), "array"
    yield np.array(["text"]), "array"


@pytest.mark.parametrize("number", range(14))
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_run_code_is_refused_by_name_and_nothing_runs(tmp_path, fields, number, protocol):
    trap = tmp_path / "ran"
    payload, name = list(hostile(trap))[number]
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"v_template": np.zeros((4, 3)), "J": payload}, protocol))
    np.save(tmp_path / "landmarks.npy", np.array({"lmk_face_idx": payload}, object), allow_pickle=True)

    if number == 8:  # an array of plain objects is harmless
        assert read_pickle(path)["J"] == [1, "text"]
    else:
        refused(lambda: read_flame(path), str(path), name)
        refused(lambda: read_landmarks([tmp_path / "landmarks.npy"], fields["f"]), name)
    assert not trap.exists(), "code from the file ran"


def test_calls_by_opcode_are_refused(tmp_path):
    trap = tmp_path / "ran"
    for code in (
        f"cos\nsystem\n(S'touch {trap}'\ntR.",
        f"(S'touch {trap}'\nios\nsystem\n.",
        f"(cos\nsystem\nS'touch {trap}'\no.",
        f"cposix\nsystem\n(S'touch {trap}'\ntR.",
        f"c__builtin__\neval\n(S'open({str(trap)!r}, chr(119))'\ntR.",
        "cnumpy\nndarray.__class__.__base__\n.",
        "Poutside\n.",
    ):
        path = tmp_path / "model.pkl"
        path.write_bytes(code.encode())
        refused(lambda path=path: read_flame(path), str(path), "refused")
    assert not trap.exists()


def test_placeholders_cannot_be_repurposed(tmp_path):
    """BUILD on a class or function instead of an object, and arrays that claim more than they hold."""
    for code in (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I9999999\ntcnumpy\ndtype\n"
        b"(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'short'\ntb.",
        b"cnumpy\nndarray\n(N}S'__setstate__'\ncnumpy\ndtype\nstb.",
        b"cnumpy\ndtype\n(S'f8'\ntR(lp0\ng0\na.",
        b"(lp0\ng0\na.",
        b"cchumpy.ch\nCh\n)\x81}S'x'\nNsb.",
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O8'\ntRS'x'\ntR.",
        b"ccopy_reg\n_reconstructor\n(ccollections\nOrderedDict\nc__builtin__\nobject\nNtR.",
    ):
        (tmp_path / "model.pkl").write_bytes(code)
        refused(lambda: read_flame(tmp_path / "model.pkl"), "model.pkl")


def test_tensors_that_reach_beyond_their_storage_are_refused(tmp_path):
    from torch._utils import _rebuild_tensor_v2

    storage = torch.arange(4.0)._typed_storage()
    for offset, shape, strides in (
        (0, (5,), (1,)),
        (3, (2,), (1,)),
        (0, (2, 2), (9, 1)),
        (0, (2**40,), (0,)),
    ):
        call = Call(_rebuild_tensor_v2, storage, offset, shape, strides, False, OrderedDict())
        np.save(tmp_path / "e.npy", {"lmk_face_idx": call}, allow_pickle=True)
        refused(lambda: read_pickled_npy(tmp_path / "e.npy"), "e.npy", "tensor")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_a_truncated_file_is_reported_as_truncated(tmp_path, fields, share):
    whole = write_pickle(tmp_path / "whole.pkl", fields).read_bytes()
    archive = write_npz(tmp_path / "whole.npz", fields).read_bytes()
    for name, data in (("cut.pkl", whole), ("cut.npz", archive)):
        (tmp_path / name).write_bytes(data[: int(share * len(data))])
        refused(lambda name=name: read_flame(tmp_path / name), name, "truncated")


def test_other_files_are_refused(tmp_path, fields):
    (tmp_path / "text.pkl").write_text("not a pickle at all")
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1, 2]))
    np.save(tmp_path / "numbers.npy", np.zeros(3))
    refused(lambda: read_flame(tmp_path / "none.pkl"), "no such file")
    refused(lambda: read_flame(tmp_path), "can't be read")
    refused(lambda: read_flame(tmp_path / "text.pkl"), "text.pkl")
    refused(lambda: read_flame(tmp_path / "list.pkl"), "dictionary")
    refused(lambda: read_landmarks([tmp_path / "numbers.npy"], fields["f"]), "landmarks")
    np.savez(tmp_path / "pickled.npz", v_template=np.array([{}], object))
    refused(lambda: read_flame(tmp_path / "pickled.npz"), "v_template", "pickled")


@pytest.mark.parametrize(
    ("name", "change", "word"),
    [
        ("shapedirs", lambda a: a[..., :150], "60 x 3 x 150, but FLAME's is 60 x 3 x 400"),
        ("shapedirs", lambda a: a[:-1], "59 x 3 x 400"),
        ("posedirs", lambda a: a[..., :27], "60 x 3 x 27"),
        ("weights", lambda a: a[:, :4], "60 x 4"),
        ("weights", lambda a: 2 * a, "add up"),
        ("v_template", lambda a: a[0], ": its v_template is 3,"),
        ("v_template", lambda a: a[:0], "0 x 3"),
        ("v_template", lambda a: np.where(a > a.mean(), np.nan, a), "finite"),
        ("v_template", lambda a: "text", "no array"),
        ("J_regressor", lambda a: scipy.sparse.csc_matrix(a.toarray()[:4]), "4 x 60"),
        ("kintree_table", lambda a: a[:, [0, 1, 2, 2, 4]] * 0, "parents"),
        ("f", lambda a: a + 50, "triangles"),
        ("f", lambda a: a[:, :2], "x 2"),
        ("weights", None, "has no weights"),
    ],
)
def test_fields_of_wrong_size_or_content_are_named(tmp_path, fields, name, change, word):
    changed = {key: value for key, value in fields.items() if key != name}
    if change is not None:
        changed[name] = change(fields[name])
    path = tmp_path / "model.pkl"
    with path.open("wb") as file:
        Python2Pickler(file, 2).dump(changed)

    refused(lambda: read_flame(path), str(path), name if word != "parents" else "joints", word)


def test_more_components_than_the_file_has_are_refused():
    refused(lambda: FlameImportConfig(shape_components=301), "301 shape components")
    refused(lambda: FlameImportConfig(expression_components=0), "0 expression components")


# Texture coordinates and landmarks


def write_obj(path, faces, seed=0):
    rng = np.random.default_rng(seed)
    uv = rng.uniform(0, 1, (len(faces) * 3, 2)).round(6)
    order = rng.permutation(len(faces))
    lines = [f"vt {u} {v}" for u, v in uv]
    for row in order:
        a, b, c = (f"{vertex + 1}/{3 * row + k + 1}/1" for k, vertex in enumerate(faces[row]))
        lines.append(f"f {b} {c} {a}")
    path.write_text("\n".join(["# template", *lines]))
    return uv


def distinct(faces):
    return faces[np.unique(np.sort(faces, 1), axis=0, return_index=True)[1]]


def test_texture_coordinates_are_assigned_to_their_corners(tmp_path, fields):
    fields = {**fields, "f": distinct(fields["f"])}
    flame = read_flame(write_npz(tmp_path / "flame.npz", fields))
    uv = write_obj(tmp_path / "head_template.obj", flame.faces)

    points, corners = read_uv(tmp_path / "head_template.obj", flame)
    head = flame_head(flame, "flame", uv=(points, corners))

    np.testing.assert_allclose(points[corners], uv.reshape(-1, 3, 2))
    np.testing.assert_array_equal(head.uv_faces, corners)


def test_a_template_of_another_mesh_is_refused(tmp_path, fields):
    flame = read_flame(write_npz(tmp_path / "flame.npz", fields))
    write_obj(tmp_path / "other.obj", flame.faces[:-5])
    (tmp_path / "bad.obj").write_text("f 1 2\nvt a b\n")
    refused(lambda: read_uv(tmp_path / "other.obj", flame), "other.obj", "triangles")
    refused(lambda: read_uv(tmp_path / "bad.obj", flame), "bad.obj")
    refused(lambda: read_uv(tmp_path / "none.obj", flame), "no such file")


def published(count, rng, faces):
    rows = rng.integers(0, len(faces), count)
    return rows, rng.dirichlet(np.ones(3), count)


def test_published_landmark_files_are_recognised_by_content(tmp_path, fields):
    rng, faces = np.random.default_rng(0), fields["f"].astype(np.int64)
    static, full, dynamic = (published(n, rng, faces) for n in (51, (1, 68), (BINS, 17)))
    np.save(
        tmp_path / "landmark_embedding.npy",
        {
            "static_lmk_faces_idx": static[0],
            "static_lmk_bary_coords": static[1],
            "dynamic_lmk_faces_idx": torch.as_tensor(dynamic[0]),
            "dynamic_lmk_bary_coords": torch.as_tensor(dynamic[1], dtype=torch.float32),
            "full_lmk_faces_idx": full[0],
            "full_lmk_bary_coords": full[1],
        },
        allow_pickle=True,
    )
    write_pickle(
        tmp_path / "flame_static_embedding.pkl",
        {"lmk_face_idx": static[0].astype(np.uint32), "lmk_b_coords": static[1]},
        ("lmk_b_coords",),
    )
    np.save(
        tmp_path / "flame_dynamic_embedding.npy",
        {"lmk_face_idx": dynamic[0], "lmk_b_coords": dynamic[1]},
        allow_pickle=True,
    )
    some, numbers = published(105, rng, faces), rng.permutation(468)[:105]
    np.savez(
        tmp_path / "mediapipe_landmark_embedding.npz",
        lmk_face_idx=some[0],
        lmk_b_coords=some[1],
        landmark_indices=numbers,
    )

    deca = read_landmarks([tmp_path / "landmark_embedding.npy"], faces)
    smplx = read_landmarks(
        [tmp_path / "flame_static_embedding.pkl", tmp_path / "flame_dynamic_embedding.npy"], faces
    )
    mediapipe = read_landmarks([tmp_path / "mediapipe_landmark_embedding.npz"], faces)

    np.testing.assert_array_equal(deca.ibug68[0], faces[full[0][0]])
    np.testing.assert_array_equal(deca.ibug68[1], full[1][0])
    for contour in (deca.contour, smplx.contour):
        np.testing.assert_array_equal(contour.triangles, faces[dynamic[0]])
        np.testing.assert_allclose(contour.barycentric, dynamic[1], atol=1e-7)
    np.testing.assert_array_equal(smplx.ibug68[0], faces[np.concatenate([dynamic[0][0], static[0]])])
    assert deca.mediapipe is None and mediapipe.ibug68 is None
    np.testing.assert_array_equal(mediapipe.mediapipe[0], faces[some[0]])
    np.testing.assert_array_equal(mediapipe.mediapipe_numbers, numbers)


def test_landmarks_that_do_not_belong_to_the_head_are_refused(tmp_path, fields):
    faces = fields["f"]
    for changes, word in (
        ({"lmk_face_idx": np.full(105, 10**6)}, "triangles"),
        ({"lmk_b_coords": np.ones((105, 3))}, "barycentric"),
        ({"lmk_b_coords": np.ones((104, 3)) / 3}, "points"),
        ({"landmark_indices": np.full(105, 900)}, "MediaPipe"),
        ({"landmark_indices": None}, "landmark_indices"),
        ({"lmk_face_idx": None}, "lmk_face_idx"),
    ):
        arrays = {
            "lmk_face_idx": np.zeros(105, int),
            "lmk_b_coords": np.ones((105, 3)) / 3,
            "landmark_indices": np.arange(105),
            **changes,
        }
        np.savez(tmp_path / "e.npz", **{key: value for key, value in arrays.items() if value is not None})
        refused(lambda: read_landmarks([tmp_path / "e.npz"], faces), "e.npz", word)
