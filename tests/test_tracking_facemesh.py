import os
import subprocess
import sys

import numpy as np
import pytest

from avface.media import Clip
from avface.synthetic.demo_clip import DEMO_CLIP
from avface.tracking.facemesh import Face, FaceMesh, Region


@pytest.fixture(scope="module")
def mesh():
    with FaceMesh() as mesh:
        yield mesh


@pytest.mark.parametrize("shape", [(64, 64), (90, 160), (161, 91), (1, 1)])
def test_no_face_in_a_blank_image(mesh, shape):
    image = np.zeros((*shape, 3), np.uint8)
    assert mesh.detect(image) == []
    assert mesh.detect(image, thorough=True) == []
    assert mesh.landmarks(image, Region(shape[1] / 2, shape[0] / 2, 40.0, 0.3)) is None


def test_the_callers_image_stays_writable_and_unchanged(mesh):
    image = np.random.default_rng(0).integers(0, 255, (80, 80, 3)).astype(np.uint8)
    before = image.copy()
    mesh.detect(image)
    assert image.flags.writeable
    np.testing.assert_array_equal(image, before)


def test_an_array_that_is_a_view_is_read_like_a_copy(mesh):
    image = next(iter(Clip.open(DEMO_CLIP).frames())).image
    view, copy = image[:, ::-1], np.ascontiguousarray(image[:, ::-1])
    (region,) = mesh.detect(view)
    assert [region] == mesh.detect(copy)
    found, plain = mesh.landmarks(view, region), mesh.landmarks(image, mesh.detect(image)[0])
    np.testing.assert_array_equal(found.landmarks, mesh.landmarks(copy, region).landmarks)
    assert found.centre[0] + plain.centre[0] == pytest.approx(image.shape[1] - 1, abs=2)


def test_the_next_region_rotates_with_the_eyes_and_contains_the_face():
    points = np.random.default_rng(0).uniform(-50, 50, (478, 3)).astype(np.float32)
    angle = 0.4
    points[33, :2], points[263, :2] = (
        (-np.cos(angle) * 20, -np.sin(angle) * 20),
        (np.cos(angle) * 20, np.sin(angle) * 20),
    )
    region = Face(points + np.array([200, 100, 0], np.float32), 1.0).next_region
    assert region.angle == pytest.approx(angle, abs=1e-5)
    assert (region.x, region.y) == pytest.approx((200, 100), abs=1)
    assert region.side == pytest.approx(150, abs=1.5)


def test_mediapipe_starts_silently_and_stderr_still_works(capfd):
    with FaceMesh() as mesh:
        mesh.detect(np.zeros((32, 32, 3), np.uint8))
    os.write(2, b"still here\n")
    print("and here", file=sys.stderr)
    assert capfd.readouterr().err == "still here\nand here\n"


def test_importing_tracking_does_not_load_mediapipe():
    code = "import sys, avface.tracking; print('mediapipe' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
