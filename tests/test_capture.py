"""The capture: its geometry, layers, file and exporters."""

import json
import zipfile
from dataclasses import fields, replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from captures import moving_capture
from detail_captures import detail_capture
from lip_captures import lip_capture
from paired_heads import changed, quad_capture, quad_head

from avface import Capture, __version__
from avface.capture import CAPTURE_VERSION, find_exporter
from avface.errors import AvfaceError
from avface.geometry.mesh import vertex_normals
from avface.head import load_head
from avface.head.asset import save_head_asset
from avface.open_head import FIRST_OPEN_DIGEST, OPEN_DIGEST


@pytest.fixture(scope="module")
def capture():
    return replace(
        moving_capture(8),
        times=np.array([0.0, 0.03, 0.07, 0.1, 0.17, 0.2, 0.24, 0.3]),
        segment_starts=np.array([0, 5]),
        segment_same_person=np.array([True, False]),
        landmark_bias=(1e-3 * np.linspace(-1, 1, 478 * 3)).reshape(478, 3).astype(np.float32),
        source="a film with spaces.mp4",
        provenance={"shape": "fit to landmarks", "landmarks": 'of a "detector"'},
    )


# Geometry


def test_frames_of_shots_without_the_person_are_not_in_shot():
    shots = {"segment_starts": np.array([0, 2, 5]), "segment_same_person": np.array([True, False, True])}
    assert replace(moving_capture(6), **shots).in_shot.tolist() == [True, True, False, False, False, True]
    assert moving_capture(3).in_shot.tolist() == [True] * 3


def test_vertices_in_the_camera_are_those_of_the_head_transformed_by_the_pose(capture):
    head, camera = capture.vertices(space="head"), capture.vertices()

    rotation = roma.rotvec_to_rotmat(torch.as_tensor(capture.rotation)).numpy()
    expected = np.einsum("tij,tvj->tvi", rotation, head) + capture.translation[:, None]
    assert camera.shape == (8, capture.head_model.num_vertices, 3) and camera.dtype == np.float32
    np.testing.assert_allclose(camera, expected, atol=1e-6)
    assert camera[..., 2].min() > 0.3


def test_a_face_towards_the_camera_is_upright_in_the_picture(capture):
    facing = replace(
        capture,
        rotation=np.tile(np.array([np.pi, 0, 0], np.float32), (8, 1)),
        translation=np.tile(np.array([0, 0, 0.6], np.float32), (8, 1)),
    )
    points = facing.landmarks(0)[0]

    assert points[10, 1] < points[4, 1] < points[152, 1], "forehead over nose over chin"
    assert points[263, 0] > points[33, 0], "the subject's left eye is on the right of the picture"
    assert facing.landmarks(0, space="camera")[0, 4, 2] < 0.6, "the nose is nearer than the head's origin"


def test_vertices_in_the_head_are_those_of_the_model(capture):
    vertices = capture.head_model(
        torch.as_tensor(capture.shape)[None],
        torch.as_tensor(capture.expression),
        torch.as_tensor(capture.joints),
    )

    np.testing.assert_allclose(capture.vertices(space="head"), vertices.numpy(), atol=1e-7)
    assert capture.faces.shape == (len(capture.head_model.faces), 3)


@pytest.mark.parametrize(("scheme", "count"), [("mediapipe478", 478), ("ibug68", 68)])
def test_landmarks_in_the_image_are_the_projections_of_those_in_the_camera(capture, scheme, count):
    image, camera = (capture.landmarks(scheme=scheme, space=space) for space in ("image", "camera"))

    assert image.shape == (8, count, 2) and camera.shape == (8, count, 3)
    x, y, z = np.moveaxis(camera, -1, 0)
    cx, cy = capture.principal_point
    projected = np.stack([capture.focal_length * x / z + cx, capture.focal_length * y / z + cy], -1)
    np.testing.assert_allclose(image, projected, atol=1e-3)


def test_landmarks_without_bias_lie_on_the_surface(capture):
    capture = replace(capture, landmark_bias=np.zeros((0, 3), np.float32))
    embedding = capture.head_model.embedding("ibug68")
    for space in ("head", "camera"):
        corners = capture.vertices(space=space)[:, embedding.triangles]
        expected = np.einsum("tlkc,lk->tlc", corners, embedding.barycentric)
        np.testing.assert_allclose(capture.landmarks(scheme="ibug68", space=space), expected, atol=1e-6)


def test_the_landmark_bias_moves_both_schemes_alike_and_no_vertex(capture):
    plain = replace(capture, landmark_bias=np.zeros((0, 3), np.float32))
    moved = {
        scheme: (
            capture.landmarks(scheme=scheme, space="head") - plain.landmarks(scheme=scheme, space="head")
        )[0]
        for scheme in ("mediapipe478", "ibug68")
    }

    assert 0.0005 < np.linalg.norm(moved["mediapipe478"], axis=1).max() < 0.02
    same = {33: 36, 263: 45, 61: 48, 291: 54, 4: 30, 152: 8}
    np.testing.assert_allclose(
        moved["mediapipe478"][list(same)], moved["ibug68"][list(same.values())], atol=2e-4
    )
    np.testing.assert_array_equal(capture.vertices(), plain.vertices())


@pytest.mark.parametrize("frames", [None, 3, -1, slice(2, 6), [0, 7, 3], np.array([1, 1]), slice(0, 0)])
def test_any_choice_of_frames_gives_their_rows(capture, frames):
    rows = np.atleast_1d(np.arange(8)[frames] if frames is not None else np.arange(8))

    np.testing.assert_allclose(capture.vertices(frames), capture.vertices()[rows], atol=1e-6)
    np.testing.assert_allclose(capture.landmarks(frames), capture.landmarks()[rows], atol=1e-3)
    np.testing.assert_array_equal(capture.select(frames).expression, capture.expression[rows])


def test_landmarks_do_not_depend_on_blocks():
    long = moving_capture(300)

    np.testing.assert_allclose(
        long.landmarks()[[0, 255, 256, 299]], long.landmarks([0, 255, 256, 299]), atol=1e-3
    )


def test_unknown_schemes_and_spaces_are_refused(capture):
    with pytest.raises(AvfaceError, match=r"no landmark scheme 'dlib5'.*ibug68, mediapipe478"):
        capture.landmarks(scheme="dlib5")
    with pytest.raises(ValueError, match=r"space='world'.*'image', 'camera' or 'head'"):
        capture.landmarks(space="world")
    with pytest.raises(ValueError, match=r"space='image'.*'camera' or 'head'"):
        capture.vertices(space="image")
    with pytest.raises(IndexError):
        capture.vertices(8)


def test_selected_frames_make_a_capture(capture):
    part = capture.select(slice(2, 5))

    assert len(part) == 3
    np.testing.assert_array_equal(part.times, capture.times[2:5])
    np.testing.assert_array_equal(part.shape, capture.shape)
    np.testing.assert_allclose(part.vertices(), capture.vertices(slice(2, 5)), atol=1e-6)
    assert part.source == capture.source and len(capture) == 8


def test_the_frame_rate_is_that_of_most_intervals(capture):
    """A pause is no slower rate: the mean would be 23.3."""
    assert capture.frame_rate == pytest.approx(100 / 3)
    assert moving_capture(12, frame_rate=25).frame_rate == pytest.approx(25)
    assert moving_capture(1).frame_rate == 0


def test_the_sound_track_is_known_only_if_sound_was_used(capture):
    assert capture.audio_track is None
    assert replace(capture, provenance={"audio_track": "2"}).audio_track == 2
    assert capture.audio_lag == 0
    for written, lag in (("-0.060", -0.06), ("0.123", 0.123), ("nan", 0.0), ("1e9", 0.0), ("", 0.0)):
        assert replace(capture, provenance={"audio_lag": written}).audio_lag == lag


def test_arrays_of_inconsistent_shapes_are_refused(capture):
    for name, value in {
        "rotation": np.zeros((7, 3)),
        "expression": np.zeros((8, 51)),
        "joints": np.zeros((8, 2, 3)),
        "confidence": np.zeros((8, 1)),
        "segment_same_person": np.ones(3, bool),
        "landmark_bias": np.zeros((68, 3)),
    }.items():
        with pytest.raises(ValueError, match=f"{name} has shape"):
            replace(capture, **{name: value})
    with pytest.raises(ValueError, match="landmark_bias must be finite"):
        replace(capture, landmark_bias=np.full((478, 3), np.nan))


# Lips


def test_lip_offsets_are_added_before_joints_rotate():
    capture = lip_capture()
    offsets = np.tensordot(capture.lips.weights, capture.lips.basis, 1)

    moved, coarse = (capture.vertices(space="head", stage=stage) for stage in ("lips", "coarse"))
    np.testing.assert_allclose((moved - coarse)[:, capture.lips.vertices], offsets, atol=1e-6)
    others = np.setdiff1d(np.arange(moved.shape[1]), capture.lips.vertices)
    np.testing.assert_array_equal(moved[:, others], coarse[:, others])
    np.testing.assert_array_equal(moved[0], coarse[0], err_msg="weights of 0")
    np.testing.assert_array_equal(capture.vertices(space="head"), moved, err_msg="the default is everything")


def test_lip_offsets_rotate_with_the_neck():
    capture = lip_capture()
    joints = np.zeros_like(capture.joints)
    joints[:, capture.joint_names.index("neck")] = (0.2, -0.3, 0.1)
    capture = replace(capture, joints=joints)
    targets, motion = capture.morphs()

    # A unit of the expression in place of the offsets is the same.
    head = load_head("open")
    tied = {*head.pair_units.flatten().tolist(), *head.person_terms.tolist()}
    unit = next(k for k in range(52) if k not in tied and not capture.expression[:, k].any())
    expected = []
    for row in motion.weights[:, -3:]:
        head.expression_basis[unit] = torch.as_tensor(np.tensordot(row, targets.offsets[-3:], 1))
        weights = capture.expression[len(expected)].copy()
        weights[unit] = 1
        arrays = (capture.shape, weights, joints[len(expected)])
        expected.append(head(*(torch.as_tensor(values)[None] for values in arrays))[0].numpy())

    np.testing.assert_allclose(capture.vertices(space="head"), np.array(expected), atol=1e-6)
    assert targets.names[:52] == capture.expression_names
    assert targets.names[52 + len(head.pairs) :] == ("lips_0", "lips_1", "lips_2")


def test_landmarks_move_with_the_lip_offsets():
    capture = replace(lip_capture(), landmark_bias=np.zeros((0, 3), np.float32))
    embedding = capture.head_model.embedding("mediapipe478")
    for stage in ("coarse", "lips"):
        corners = capture.vertices(stage=stage)[:, embedding.triangles]
        expected = np.einsum("tlkc,lk->tlc", corners, embedding.barycentric)
        np.testing.assert_allclose(capture.landmarks(space="camera", stage=stage), expected, atol=1e-6)
    np.testing.assert_array_equal(capture.landmarks(), capture.landmarks(stage="lips"))
    assert np.abs(capture.landmarks() - capture.landmarks(stage="coarse")).max() > 0.5


def test_without_a_lip_layer_all_stages_are_equal(capture):
    np.testing.assert_array_equal(capture.vertices(stage="lips"), capture.vertices(stage="coarse"))
    with pytest.raises(ValueError, match=r"stage='fine' must be one of 'coarse', 'lips', 'detail'"):
        capture.vertices(stage="fine")


def test_lips_of_another_head_are_refused_on_use():
    capture = lip_capture()
    vertices = capture.lips.vertices + capture.head_model.num_vertices
    other = capture.with_layer(replace(capture.lips, vertices=vertices))

    with pytest.raises(
        AvfaceError, match=r"the capture's lips have vertex \d+, but its head has only"
    ) as caught:
        other.vertices(0)
    assert "\n" not in str(caught.value)
    with pytest.raises(AvfaceError, match="name the head file"):
        other.morphs()
    assert other.vertices(0, stage="coarse").shape[0] == 1


def test_lips_are_restored_from_the_file_and_selected_by_frames(tmp_path):
    capture = lip_capture()

    again = Capture.load(capture.save(tmp_path / "take.npz"))

    np.testing.assert_array_equal(again.vertices(), capture.vertices())
    part = capture.select([2, 5])
    assert part.lips.weights.shape == (2, 3)
    np.testing.assert_allclose(part.vertices(), capture.vertices([2, 5]), atol=1e-6)


def test_invalid_lips_in_a_file_are_refused(tmp_path):
    capture = lip_capture()
    lips = capture.lips
    nan = np.full_like(lips.basis, np.nan)
    for changes, message in (
        ({"lip_weights": lips.weights[:5]}, "lip_weights has shape"),
        ({"lip_weights": lips.weights[:, :2]}, "lip_weights has shape"),
        ({"lip_basis": lips.basis[:, 1:]}, "lip_basis has shape"),
        ({"lip_basis": np.zeros(3)}, "lip_basis has shape"),
        ({"lip_basis": nan}, "lip_basis must be finite numbers"),
        (
            {"lip_weights": np.full_like(lips.weights, np.inf)},
            "lip_weights must be finite numbers",
        ),
        ({"lip_vertices": lips.vertices[::-1]}, "lip_vertices must be whole numbers"),
        ({"lip_vertices": lips.vertices.astype(float)}, "lip_vertices must be whole numbers"),
        ({"lip_vertices": lips.vertices - 100_000}, "lip_vertices must be whole numbers"),
        ({"lip_vertices": np.array(3)}, "lip_basis has shape"),
        ({"lip_weights": np.full(lips.weights.shape, "a")}, "lip_weights must be finite numbers"),
        ({"lip_weights": None}, "lip_weights"),
    ):
        refused(rewritten(capture, tmp_path / "odd.npz", **changes), f"incomplete capture.*{message}")


def test_the_file_has_keys_of_existing_layers_only(capture, tmp_path):
    def layer_keys(made):
        with np.load(made.save(tmp_path / "take.npz")) as archive:
            return {key for key in archive.files if key.startswith(("lip_", "detail_"))}

    assert layer_keys(capture) == set() and Capture.load(tmp_path / "take.npz").layers == ()
    assert layer_keys(lip_capture()) == {"lip_vertices", "lip_basis", "lip_weights"}
    assert Capture.load(tmp_path / "take.npz").detail is None
    assert layer_keys(detail_capture()) == {"detail_static", "detail_basis", "detail_weights"}
    assert Capture.load(tmp_path / "take.npz").lips is None


def test_empty_arrays_of_a_layer_are_read_as_no_layer(capture, tmp_path):
    """As files of the first version 2 have them."""
    empty = {
        "lip_vertices": np.zeros(0, np.int64),
        "lip_basis": np.zeros((0, 0, 3), np.float32),
        "lip_weights": np.zeros((0, 0), np.float32),
    }

    assert Capture.load(rewritten(capture, tmp_path / "old.npz", **empty)).layers == ()


def test_layers_are_in_the_order_of_the_stages_one_of_each_type():
    lips, detail = lip_capture().lips, detail_capture().detail
    both = moving_capture().with_layer(detail).with_layer(lips, "where it came from")

    assert both.layers == (lips, detail) and both.provenance["lips"] == "where it came from"
    assert both.up_to("lips").layers == (lips,) and both.up_to("coarse").layers == ()
    assert both.up_to(None) is both
    other = lip_capture(components=2).lips
    assert both.with_layer(other).layers == (other, detail)
    for layers in ((detail, lips), (lips, lips)):
        with pytest.raises(ValueError, match="must be one of each type, in the order of the stages"):
            replace(both, layers=layers)


# The file


def test_a_capture_is_restored_from_its_file_exactly(capture, tmp_path):
    path = capture.save(tmp_path / "take.npz")

    again = Capture.load(path)

    assert path == tmp_path / "take.npz"
    for item in fields(Capture):
        value, read = getattr(capture, item.name), getattr(again, item.name)
        assert type(read) is type(value), item.name
        if isinstance(value, np.ndarray):
            assert read.dtype == value.dtype, item.name
        np.testing.assert_array_equal(read, value, err_msg=item.name)
    np.testing.assert_array_equal(again.vertices(), capture.vertices())


def test_every_key_of_the_file_is_documented(capture, tmp_path):
    page = Path(__file__).parents[1] / "docs" / "capture-file.md"
    with np.load(capture.save(tmp_path / "take.npz"), allow_pickle=False) as archive:
        for key in archive.files:
            assert f"`{key}`" in page.read_text(), f"{key} is missing in docs/capture-file.md"


def test_the_file_needs_nothing_but_numpy_to_read(capture, tmp_path):
    with np.load(capture.save(tmp_path / "take.npz"), allow_pickle=False) as archive:
        assert int(archive["capture_version"]) == CAPTURE_VERSION
        assert json.loads(str(archive["provenance"])) == capture.provenance
        assert archive["expression"].shape == (8, 52)


def test_saving_replaces_an_older_file_and_leaves_nothing_else(capture, tmp_path):
    path = tmp_path / "take.npz"
    path.write_text("old")

    capture.save(str(path))

    assert len(Capture.load(path)) == 8
    assert [file.name for file in tmp_path.iterdir()] == ["take.npz"]


def test_a_folder_that_is_missing_or_read_only_is_refused(capture, tmp_path):
    for path in (tmp_path / "none" / "take.npz", Path("/proc/take.npz")):
        with pytest.raises(AvfaceError, match="can't be written") as caught:
            capture.save(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_save_leaves_only_the_old_file(capture, tmp_path, monkeypatch, error):
    path = capture.save(tmp_path / "take.npz")
    before = path.read_bytes()

    def half(file, **arrays):
        file.write(b"half of it")
        raise error

    monkeypatch.setattr(np, "savez_compressed", half)
    expected = AvfaceError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match=r"take\.npz" if expected is AvfaceError else None):
        capture.save(path)

    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["take.npz"]


def refused(path, message=None):
    with pytest.raises(AvfaceError, match=message) as caught:
        Capture.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def rewritten(capture, path, **changes):
    capture.save(path)
    with np.load(path, allow_pickle=False) as archive:
        arrays = {**{key: archive[key] for key in archive.files}, **changes}
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def test_files_that_are_no_captures_are_refused(tmp_path):
    refused(tmp_path / "none.npz", "no such capture")
    for name, content in {"empty.npz": b"", "text.npz": b"hello", "zip.npz": b"PK\x03\x04..."}.items():
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, "damaged or not a capture")
    np.save(tmp_path / "bare.npy", np.zeros(3))
    refused(tmp_path / "bare.npy", "not a capture")
    np.savez(tmp_path / "other.npz", points=np.zeros((5, 3)))
    refused(tmp_path / "other.npz", "an .npz, but not a capture")
    (tmp_path / "folder.npz").mkdir()
    refused(tmp_path / "folder.npz", "not a capture")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_capture_is_refused(capture, tmp_path, share):
    data = capture.save(tmp_path / "take.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: int(share * len(data))])

    refused(tmp_path / "cut.npz", "damaged or not a capture")


def test_a_damaged_capture_is_refused(capture, tmp_path):
    path = capture.save(tmp_path / "take.npz")
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("expression.npy")
    data = bytearray(path.read_bytes())
    start = entry.header_offset + 80
    data[start : start + 60] = bytes(60)
    path.write_bytes(data)

    refused(path, "damaged or not a capture")


def test_a_newer_version_is_refused_by_its_number(capture, tmp_path):
    newer = np.array(CAPTURE_VERSION + 1)
    refused(
        rewritten(capture, tmp_path / "new.npz", capture_version=newer),
        f"capture version {CAPTURE_VERSION + 1}; this avface reads {CAPTURE_VERSION}",
    )


def test_a_capture_belongs_to_the_open_head_of_its_avface(capture, tmp_path):
    assert capture.head_digest == OPEN_DIGEST == capture.head_model.digest()
    with np.load(capture.save(tmp_path / "take.npz")) as archive:
        assert str(archive["head_digest"]) == OPEN_DIGEST


@pytest.mark.parametrize("version", ["0.0.9", ""])
def test_a_capture_of_another_open_head_is_refused_with_what_to_do(capture, tmp_path, version):
    made = replace(capture, provenance={"avface": version} if version else {}, head_digest="0" * 16)
    maker = "avface 0.0.9" if version else "the avface that made it"

    refused(
        made.save(tmp_path / "take.npz"),
        f"another version of the open head than avface {__version__} has; reconstruct .* again, or use {maker}$",
    )


def test_a_capture_that_names_no_content_is_of_the_first_open_head(capture, tmp_path, monkeypatch):
    old = rewritten(capture, tmp_path / "old.npz", head_digest=None)
    assert FIRST_OPEN_DIGEST == "c1e10921580ce926"

    monkeypatch.setattr("avface.capture.capture.OPEN_DIGEST", FIRST_OPEN_DIGEST)
    assert Capture.load(old).head_digest == FIRST_OPEN_DIGEST
    monkeypatch.setattr("avface.capture.capture.OPEN_DIGEST", "1" * 16)
    refused(old, "another version of the open head")


def test_a_head_file_that_changed_is_refused_when_its_vertices_are_asked_for(tmp_path):
    capture = quad_capture(tmp_path, 2)
    head = quad_head()
    made = replace(capture, head_digest=load_head(capture.head).digest())
    again = Capture.load(made.save(tmp_path / "take.npz"))
    assert again.vertices().shape == (2, head.num_vertices, 3)

    save_head_asset(changed(head, pair_basis=2 * head.pair_basis.numpy()), Path(capture.head))

    later = Capture.load(tmp_path / "take.npz")
    with pytest.raises(
        AvfaceError, match=r"quads\.npz has changed since .*; reconstruct the video again, or restore"
    ):
        later.vertices()
    assert Capture.load(capture.save(tmp_path / "unnamed.npz")).vertices().shape == (2, head.num_vertices, 3)


@pytest.mark.parametrize("version", [np.array("one"), np.array([1, 2]), np.array([]), np.array(1.5)])
def test_an_invalid_version_is_refused(capture, tmp_path, version):
    refused(rewritten(capture, tmp_path / "odd.npz", capture_version=version), "an .npz, but not a capture")


@pytest.mark.parametrize("key", ["head", "shape", "rotation", "times", "image_size", "provenance"])
def test_a_capture_with_a_part_missing_is_refused_by_its_name(capture, tmp_path, key):
    refused(rewritten(capture, tmp_path / "part.npz", **{key: None}), f"incomplete capture.*{key}")


@pytest.mark.parametrize(
    "changes",
    [
        {"rotation": np.zeros((3, 3))},
        {"provenance": np.array("not json")},
        {"provenance": np.array("[1, 2]")},
        {"focal_length": np.array("long")},
        {"image_size": np.array(3)},
        {"principal_point": np.zeros(1)},
        {"joint_names": np.array(3)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_capture_with_an_invalid_part_is_refused(capture, tmp_path, changes):
    refused(rewritten(capture, tmp_path / "odd.npz", **changes), "incomplete capture")


def test_a_pickle_in_a_capture_is_refused_and_not_executed(capture, tmp_path):
    trap = tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            return (open, (str(trap), "w"))

    for key in ("capture_version", "shape", "provenance", "anything"):
        refused(rewritten(capture, tmp_path / "trap.npz", **{key: np.array([Trap()], dtype=object)}))
        assert not trap.exists(), "code from the file ran"


# Exporters


def test_an_unknown_suffix_lists_the_known_ones(capture, tmp_path):
    for name in ("head.fbx", "head"):
        with pytest.raises(AvfaceError, match=r"can't export to .*use .*\.csv, \.glb, .*\.usdc") as caught:
            capture.export(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_exporters_are_found_by_suffix_in_either_case():
    from avface.export.gltf import export_glb

    assert find_exporter(Path("a.glb")) is find_exporter(Path("A.GLB")) is export_glb


def test_every_registered_exporter_can_be_imported():
    entries = metadata.entry_points(group="avface.exporters")
    assert {"glb", "usdc", "usda", "csv", "ply", "obj", "mp4", "html"} <= {entry.name for entry in entries}
    for entry in entries:
        assert callable(entry.load()), entry.name


def test_another_packages_exporter_is_called_with_its_options(capture, tmp_path, monkeypatch):
    calls = []

    class Entry:
        name = "abc"

        def load(self):
            return lambda capture, path, **options: (calls.append((capture, path, options)), path)[1]

    monkeypatch.setattr(
        metadata, "entry_points", lambda group: [Entry()] if group == "avface.exporters" else []
    )

    written = capture.export(str(tmp_path / "x.abc"), scale=2)

    assert written == tmp_path / "x.abc"
    assert calls == [(capture, tmp_path / "x.abc", {"scale": 2})]


def test_displacement_is_restored_from_the_file_and_selected_by_frames(tmp_path):
    made = detail_capture(5)
    found = made.displacement()
    assert found.shape == (5, 64, 64) and moving_capture(5).detail is None
    np.testing.assert_array_equal(found[0], made.detail.static.astype(np.float32))
    expected = made.detail.static + np.tensordot(made.detail.weights, made.detail.basis.astype(np.float32), 1)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    back = Capture.load(made.save(tmp_path / "detail.npz"))
    assert np.array_equal(back.displacement([1, 3]), found[[1, 3]]) and back.detail.basis.dtype == np.float16
    assert np.array_equal(made.select([1, 3]).displacement(), found[[1, 3]])
    assert moving_capture(5).displacement([0]).shape == (1, 0, 0)
    assert np.array_equal(made.vertices([2]), moving_capture(5).vertices([2]))


def test_detailed_vertices_are_displaced_along_the_normals():
    made = detail_capture(5)
    count = made.head_model.num_vertices
    fine = made.detailed_vertices([0, 4])
    assert fine.shape == (2, len(made.detailed_surface), 3)
    coarse = made.vertices([0, 4])
    offsets = fine[:, :count] - coarse
    lengths = np.linalg.norm(offsets, axis=2)
    assert 3e-4 < lengths.max() < 2.1e-3
    normals = vertex_normals(torch.as_tensor(coarse), torch.as_tensor(made.faces)).numpy()
    along = np.abs((offsets * normals).sum(2))
    assert (along > 0.99 * lengths - 1e-6).mean() > 0.98
    with pytest.raises(AvfaceError, match="no detail"):
        moving_capture(5).detailed_vertices()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"static": np.zeros((64, 32), np.float16)},
            r"detail_static has shape \(64, 32\), expected \(64, 64\)",
        ),
        ({"basis": np.zeros((1, 32, 32), np.float16)}, "detail_basis has shape"),
        ({"weights": np.zeros((4, 1), np.float32)}, r"detail_weights has shape \(4, 1\), expected \(5, 1\)"),
        ({"weights": np.zeros((5, 2), np.float32)}, "detail_weights has shape"),
        ({"weights": np.full((5, 1), np.nan, np.float32)}, "detail_weights must be finite numbers"),
        ({"static": np.zeros((0, 0), np.float16)}, "detail_basis has shape"),
        ({"static": np.zeros((64, 64), int)}, "detail_static must be finite numbers"),
    ],
)
def test_invalid_detail_is_refused(changes, message):
    capture = detail_capture(5)

    with pytest.raises(ValueError, match=message):
        capture.with_layer(replace(capture.detail, **changes))
