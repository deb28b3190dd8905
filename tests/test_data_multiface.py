"""Files of Multiface: cameras, meshes and pictures."""

import numpy as np
import pytest
from corpora import DiscTracker, disc, loudness
from videos import Track, write_sound

from avface.data import PrepareConfig, Windows, prepare
from avface.data.multiface import NUM_VERTICES, Pictures, read_cameras, read_head_pose, read_vertices
from avface.errors import AvfaceError

KRT = """400002
7000.5 0 667
0 7001.5 1024
0 0 1
0.1 -0.2 0 0 0.3
1 0 0 100
0 0 -1 200
0 1 0 1000

400015
6000 0 600
0 6000 1000
0 0 1
0 0 0 0 0
1 0 0 0
0 1 0 0
0 0 1 900

"""


@pytest.fixture
def krt(tmp_path):
    path = tmp_path / "KRT"
    path.write_text(KRT)
    return path


def test_cameras_are_read_in_metres(krt):
    cameras = read_cameras(krt)

    assert list(cameras) == ["400002", "400015"]
    camera = cameras["400002"]
    np.testing.assert_array_equal(camera.intrinsics, [[7000.5, 0, 667], [0, 7001.5, 1024], [0, 0, 1]])
    np.testing.assert_array_equal(camera.distortion, [0.1, -0.2, 0, 0, 0.3])
    np.testing.assert_allclose(camera.translation, [0.1, 0.2, 1.0])
    # By hand: R p + t = (0.1 + 0.1, -0.3 + 0.2, 0.2 + 1.0).
    point = np.array([[0.1, 0.2, 0.3]])
    expected = [7000.5 * 0.2 / 1.2 + 667, 7001.5 * -0.1 / 1.2 + 1024]
    np.testing.assert_allclose(camera.project(point), [expected])
    np.testing.assert_allclose(camera.rotation @ camera.centre + camera.translation, 0, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("7000.5 0 667", "7000.5 0"), "line 2 should hold 3 numbers"),
        (("0.1 -0.2 0 0 0.3", "0.1 -0.2 0 0 x"), "line 5 should hold 5 numbers"),
        (("1 0 0 100", "1 0 0 nan"), "line 6 should hold 4 numbers"),
        ((KRT, "\n\n"), "lists no cameras"),
        (("0 0 1 900\n\n", ""), "line 17 should hold 4 numbers"),
    ],
)
def test_a_damaged_list_of_cameras_gives_the_line(krt, change, message):
    krt.write_text(KRT.replace(*change))

    with pytest.raises(AvfaceError, match=rf"KRT: {message}"):
        read_cameras(krt)


def test_meshes_and_poses_are_read_in_metres(tmp_path):
    vertices = np.arange(NUM_VERTICES * 3, dtype="<f4").reshape(-1, 3)
    vertices.tofile(tmp_path / "000102.bin")
    (tmp_path / "000102_transform.txt").write_text("0 -1 0 10\n1 0 0 20\n0 0 1 30\n")

    np.testing.assert_allclose(read_vertices(tmp_path / "000102.bin"), vertices / 1000, rtol=1e-6)
    rotation, translation = read_head_pose(tmp_path / "000102_transform.txt")
    np.testing.assert_array_equal(rotation, [[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(translation, [0.01, 0.02, 0.03])
    (tmp_path / "000102.bin").write_bytes(b"1234")
    with pytest.raises(AvfaceError, match=r"000102.bin: holds 1 numbers, not 7306 x 3"):
        read_vertices(tmp_path / "000102.bin")
    with pytest.raises(AvfaceError, match=r"000103.bin: cannot be read"):
        read_vertices(tmp_path / "000103.bin")


def write_pictures(folder, numbers):
    import cv2

    folder.mkdir(parents=True)
    for number in numbers:
        cv2.imwrite(str(folder / f"{number:06d}.png"), disc((60 + number / 10, 55)))


def test_missing_frames_leave_a_gap_in_time(tmp_path):
    write_pictures(tmp_path / "400002", [102, 103, 105])

    frames = list(Pictures(tmp_path / "400002").frames())

    np.testing.assert_allclose([frame.time for frame in frames], [0, 1 / 30, 3 / 30])
    assert frames[0].image.shape == (120, 160, 3) and frames[0].image[55, 70, 0] == 230
    (tmp_path / "400002" / "000103.png").write_bytes(b"no picture")
    with pytest.raises(AvfaceError, match=r"000103.png: not a picture"):
        list(Pictures(tmp_path / "400002").frames())


def test_a_recording_becomes_windows_with_its_geometry(tmp_path):
    person = tmp_path / "source" / "m--20180105--0000--002539136--GHS"
    numbers = [number for number in range(100, 140) if number != 103]
    write_pictures(person / "images" / "SEN_a" / "400002", numbers)
    (person / "KRT").write_text(KRT)
    meshes = person / "tracked_mesh" / "SEN_a"
    meshes.mkdir(parents=True)
    for number in numbers[:-1]:
        np.full((NUM_VERTICES, 3), number, "<f4").tofile(meshes / f"{number:06d}.bin")
        (meshes / f"{number:06d}_transform.txt").write_text(f"1 0 0 0\n0 1 0 {number}\n0 0 1 0\n")
    (person / "audio").mkdir()
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 24_000)).astype(np.float32)
    write_sound(person / "audio" / "SEN_a.wav", Track(sound, 16_000, codec="pcm_s16le"))
    config = PrepareConfig(frame_rate=30.0, size=48, validation=0, test=0)
    prepare(tmp_path / "source", tmp_path / "out", config, workers=1, track=DiscTracker(), speech=loudness)

    windows = list(Windows(tmp_path / "out", "train", truth=["vertices", "head_translation", "intrinsics"]))

    first = windows[0]
    # Frame 103 is missing: at its time the one before is still shown, which `source_frame` gives away.
    assert first["source_frame"].tolist() == [0, 1, 2, 2, *range(3, 15)]
    shown = np.array(numbers)[first["source_frame"]]
    np.testing.assert_allclose(first["truth.vertices"][:, 5, 1], shown / 1000, rtol=1e-6)
    # The camera's R turns (0, y, 0) to (0, 0, y), and its t is (0.1, 0.2, 1).
    expected = np.stack([np.full(16, 0.1), np.full(16, 0.2), shown / 1000 + 1], 1)
    np.testing.assert_allclose(first["truth.head_translation"], expected)
    assert first["truth.intrinsics"][0, 0] == 7000.5
    np.testing.assert_allclose(first["sound"], sound[0, : len(first["sound"])], atol=1e-4)
    last = list(Windows(tmp_path / "out", "train", stride=1, truth=["vertices"]))[-1]
    assert np.isnan(last["truth.vertices"][-1]).all() and not np.isnan(last["truth.vertices"][-2]).any()
