"""The conventions of docs/architecture.md, each against an independent number: by hand, or from OpenCV, the glTF
specification, FFmpeg or MediaPipe."""

from dataclasses import replace
from fractions import Fraction

import av
import cv2
import numpy as np
import pygltflib
import pytest
import torch
import trimesh
from captures import moving_capture
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from videos import Track, beep, beep_onset, constant_rate, gradients, write_video

from avface.geometry.camera import Camera
from avface.geometry.rasteriser import rasterise
from avface.geometry.shading import sample_image
from avface.head import load_head
from avface.head.schemes import IBUG68_FROM_MEDIAPIPE, IBUG_LEFT_EYE, IBUG_RIGHT_EYE
from avface.media import Clip


@pytest.fixture(scope="module")
def head():
    return load_head("open")


@pytest.fixture(scope="module")
def neutral():
    """One frame of a neutral head beside and below the middle of the picture, turned to the side."""
    capture = moving_capture(2)
    capture = replace(capture, expression=0 * capture.expression, joints=0 * capture.joints)
    return replace(capture, translation=capture.translation + np.float32([0.05, 0.03, 0.0]))


# Axes


def test_a_head_seen_by_opencvs_camera_is_at_its_place(neutral):
    """x right, y down, z forward: OpenCV's own projection of R x + t."""
    points = neutral.vertices(1, space="head")[0].astype(np.float64)
    focal, (x, y) = neutral.focal_length, neutral.principal_point
    matrix = np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]])

    wanted = cv2.projectPoints(
        points, neutral.rotation[1].astype(float), neutral.translation[1].astype(float), matrix, None
    )[0][:, 0]

    vertices = torch.as_tensor(neutral.vertices(1, space="camera")[0]).double()
    np.testing.assert_allclose(neutral.camera.project(vertices).numpy(), wanted, atol=1e-3)


def test_a_gltf_scene_shows_each_vertex_where_opencvs_camera_does(neutral, tmp_path):
    """By trimesh's reader and glTF 2.0's perspective (3.10.3): x right, y up, the view along -z."""
    capture = one_frame(neutral, 1)
    path = capture.export(tmp_path / "head.glb")
    points = np.asarray(trimesh.load(path).to_geometry().vertices)
    perspective = pygltflib.GLTF2.load(str(path)).cameras[0].perspective

    assert (points[:, 2] < 0).all(), "in front of glTF's camera"
    scale = 1 / np.tan(perspective.yfov / 2)
    clip_x = scale / perspective.aspectRatio * points[:, 0] / -points[:, 2]
    clip_y = scale * points[:, 1] / -points[:, 2]
    width, height = capture.image_size
    # glTF's picture goes from -1 to 1, from the outer edges of its first pixels to those of its last ones, y up
    found = np.stack([(clip_x + 1) / 2 * width - 0.5, (1 - clip_y) / 2 * height - 0.5], 1)
    wanted = capture.camera.project(torch.as_tensor(capture.vertices(0)[0])).numpy()
    distance, _ = cKDTree(wanted).query(found)
    assert distance.max() < 1e-2
    distance, _ = cKDTree(found).query(wanted)
    assert distance.max() < 1e-2


def one_frame(capture, frame):
    rows = slice(frame, frame + 1)
    return replace(
        capture,
        expression=capture.expression[rows],
        rotation=capture.rotation[rows],
        translation=capture.translation[rows],
        joints=capture.joints[rows],
        times=capture.times[:1],
        confidence=capture.confidence[rows],
    )


def test_a_face_in_front_view_has_a_rotation_of_half_a_turn_about_x(neutral):
    facing = replace(neutral, rotation=np.float32([[np.pi, 0, 0]] * 2))
    in_head, in_camera = (facing.vertices(0, space=space)[0] for space in ("head", "camera"))

    half_turn = Rotation.from_euler("x", 180, degrees=True).as_matrix()
    np.testing.assert_allclose(in_camera, in_head @ half_turn.T + facing.translation[0], atol=1e-6)
    nose = in_head[:, 2].argmax()
    assert in_camera[nose, 2] == in_camera[:, 2].min(), "the nose is nearest to the camera"
    assert in_camera[in_head[:, 1].argmax(), 1] == in_camera[:, 1].min(), (
        "the top of the head is up, at smaller y"
    )


# Pixels


def test_pixel_0_0_is_the_middle_of_the_top_left_pixel():
    picture = np.random.default_rng(0).uniform(size=(5, 7, 3)).astype(np.float32)
    pixels = np.array([[0, 0], [6, 4], [2, 1], [2.5, 1.25]], np.float32)

    found = sample_image(torch.from_numpy(picture), torch.from_numpy(pixels)).numpy()

    np.testing.assert_allclose(found[:3], [picture[0, 0], picture[4, 6], picture[1, 2]], atol=1e-6)
    by_opencv = cv2.remap(picture, pixels[None, :, 0], pixels[None, :, 1], cv2.INTER_LINEAR)[0]
    np.testing.assert_allclose(found, by_opencv, atol=1e-6)


def test_a_square_around_the_origin_covers_the_first_pixel_alone():
    corners = torch.tensor([[-0.4, -0.4], [0.4, -0.4], [0.4, 0.4], [-0.4, 0.4]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])

    covered = rasterise(corners, torch.ones(4), faces, 3, 4).triangle >= 0

    assert covered.nonzero().tolist() == [[0, 0]]


def test_the_middle_of_a_picture_lies_between_pixels_if_its_sides_are_even():
    # the means of 0, 1, 2, 3 and of 0, 1, 2
    assert Camera.centred(10, 4, 3).principal_point == (1.5, 1.0)


# Units


def test_heads_are_in_metres(head):
    """The mean distance between adults' pupils is 63 mm (Dodgson 2004)."""
    joints = head.joint_positions(torch.zeros(1, head.num_shape))[0]
    left, right = (joints[head.joint_names.index(f"{side}_eye")] for side in ("left", "right"))

    assert float((left - right).norm()) == pytest.approx(0.063, abs=0.003)


def test_rotations_are_in_radians(head):
    """The pupil of an eye turned by 0.2 about y goes by 0.2 radians = 11.459 degrees to the subject's left."""
    joints = torch.zeros(1, head.num_joints, 3)
    number = head.joint_names.index("left_eye")
    joints[0, number, 1] = 0.2
    shape = torch.zeros(1, head.num_shape)
    centre = head.joint_positions(shape)[0, number].numpy()
    pupil = np.unique(head.faces.numpy()[head.face_parts == head.part_names.index("left_pupil")])
    before, after = (
        vertices[pupil].mean(0) - centre
        for vertices in (head(shape)[0].numpy(), head(shape, None, joints)[0].numpy())
    )

    azimuth = [np.degrees(np.arctan2(gaze[0], gaze[2])) for gaze in (before, after)]
    assert azimuth[1] - azimuth[0] == pytest.approx(11.459, abs=0.05)


def test_times_of_frames_and_sound_are_in_seconds(tmp_path):
    """Against FFmpeg's ticks; the beep at 0.6 s begins at sample 0.6 * 16000 = 9600."""
    times = constant_rate(25, 25)
    path = write_video(
        tmp_path / "clip.mp4", gradients(25), times, tracks=[Track(beep(1.0, 0.6), codec="aac")]
    )
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        wanted = [frame.pts * Fraction(stream.time_base) for frame in container.decode(stream)]

    clip = Clip.open(path)

    np.testing.assert_allclose([frame.time for frame in clip.frames()], np.array(wanted, float), atol=1e-9)
    assert float(wanted[-1]) == pytest.approx(24 / 25, abs=1e-4)
    loud = np.abs(clip.audio(16_000)) > 0.05
    assert loud.argmax() == pytest.approx(9600, abs=80)
    assert beep_onset(clip.audio()) == pytest.approx(0.6, abs=0.005)


def test_the_focal_length_is_in_pixels():
    """A metre across at a distance of 4 m, seen with 800 pixels, is 200 pixels wide."""
    camera = Camera.centred(800, 640, 480)
    left, right = camera.project(torch.tensor([[-0.5, 0.0, 4.0], [0.5, 0.0, 4.0]]))

    assert (right - left).tolist() == [200.0, 0.0]


# Left and right


def mediapipe_points(connections):
    return sorted({point for pair in connections for point in (pair.start, pair.end)})


def test_left_is_the_subjects_left_as_mediapipe_has_it(head):
    from mediapipe.tasks.python.vision import FaceLandmarksConnections as Connections

    from avface.head.schemes import LEFT_EYE, LEFT_IRIS, RIGHT_EYE, RIGHT_IRIS

    assert sorted(LEFT_EYE) == mediapipe_points(Connections.FACE_LANDMARKS_LEFT_EYE)
    assert sorted(RIGHT_EYE) == mediapipe_points(Connections.FACE_LANDMARKS_RIGHT_EYE)
    assert set(mediapipe_points(Connections.FACE_LANDMARKS_LEFT_IRIS)) <= set(LEFT_IRIS.tolist())
    assert set(mediapipe_points(Connections.FACE_LANDMARKS_RIGHT_IRIS)) <= set(RIGHT_IRIS.tolist())
    # iBUG's eyes: the left one is the second of the two
    assert set(IBUG68_FROM_MEDIAPIPE[IBUG_LEFT_EYE].ravel()) <= set(LEFT_EYE.tolist())
    assert set(IBUG68_FROM_MEDIAPIPE[IBUG_RIGHT_EYE].ravel()) <= set(RIGHT_EYE.tolist())


@pytest.mark.parametrize(("side", "sign"), [("Left", 1), ("Right", -1)])
def test_units_joints_and_parts_of_the_left_are_at_positive_x(head, side, sign):
    template = head.template.numpy()
    for unit in ("eyeBlink", "mouthSmile", "browDown"):
        energy = head.expression_basis[head.expression_names.index(unit + side)].square().sum(1).numpy()
        assert sign * (energy @ template[:, 0]) / energy.sum() > 0.015
    joints = head.joint_positions(torch.zeros(1, head.num_shape))[0]
    assert sign * joints[head.joint_names.index(f"{side.lower()}_eye"), 0] > 0.02
    part = np.unique(head.faces.numpy()[head.face_parts == head.part_names.index(f"{side.lower()}_iris")])
    assert sign * template[part, 0].mean() > 0.02


def test_the_subjects_left_eye_is_on_the_right_of_the_picture(head, neutral):
    facing = replace(neutral, rotation=np.float32([[np.pi, 0, 0]] * 2))

    points = facing.landmarks(0, space="image", scheme="ibug68")[0]

    assert points[IBUG_LEFT_EYE, 0].mean() > points[IBUG_RIGHT_EYE, 0].mean() + 10


def test_positive_yaw_of_the_head_turns_the_nose_to_the_subjects_left(neutral):
    """Rotated by 20 degrees about the head's y axis, the nose points to the right of the picture."""
    turn = Rotation.from_euler("x", 180, degrees=True) * Rotation.from_euler("y", 20, degrees=True)
    turned = replace(neutral, rotation=np.float32([turn.as_rotvec()] * 2))
    in_head, in_camera = (turned.vertices(0, space=space)[0] for space in ("head", "camera"))
    nose = in_head[:, 2].argmax()

    direction = in_camera[nose] - turned.translation[0]

    angle, (_, up, forward) = np.radians(20), in_head[nose]
    wanted = [forward * np.sin(angle), -up, -forward * np.cos(angle)]
    np.testing.assert_allclose(direction, wanted, atol=1e-3)
