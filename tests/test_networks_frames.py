"""Crops around faces, decoding of codes, face regions."""

import numpy as np
import pytest
import torch
from networks_frames import some_frames
from scipy.spatial.transform import Rotation
from torch.testing import assert_close

from avface.errors import AvfaceError
from avface.geometry.camera import Camera, transform
from avface.geometry.rotations import rotvec_to_rotmat
from avface.head.schemes import FACE_OVAL, IRISES, LEFT_EYE, LIPS, RIGHT_BROW_UPPER, RIGHT_EYE
from avface.networks.clamping import clamp_inwards
from avface.networks.coarse.codes import (
    FLAME_CODE,
    OPEN_CODE,
    CodeConfig,
    coarse_sizes,
    decode_coarse,
    decode_expression,
    expression_sizes,
    perspective_camera,
    perspective_translation,
    project_weakly,
    rotation_from_6d,
)
from avface.networks.frames import FaceCrop, face_boxes
from avface.networks.regions import (
    IBUG_REGIONS,
    LANDMARK_REGIONS,
    REGIONS,
    unit_log_variance,
    unit_regions,
)


@pytest.fixture(autouse=True)
def seeded():
    """Makes draws of torch reproducible."""
    torch.manual_seed(0)


@pytest.fixture
def crop():
    box = torch.tensor([[[640.0, 360.0, 300.0], [100.0, 500.0, 240.0]]], dtype=torch.float64)
    return FaceCrop.of(box, 1500.0, (639.5, 359.5))


def test_crop_units_run_from_minus_one_to_one_across_the_square(crop):
    corners = torch.tensor([[490.0, 210.0], [640.0, 360.0], [790.0, 510.0]]).double()
    expected = torch.tensor([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]]).double()
    assert_close(crop.normalise(corners.expand(1, 2, -1, -1))[0, 0], expected)


def test_crop_units_and_pixels_are_inverse(crop):
    points = torch.rand(1, 2, 5, 2, dtype=torch.float64)
    assert_close(crop.to_pixels(crop.normalise(points)), points)


def test_crop_units_of_a_training_window(crop):
    """Windows give points in pixels of the crop, whose pixel (0, 0) has its middle half a pixel from the edge."""
    size, pixels = 224, torch.tensor([500.0, 333.0]).double()
    box = crop.box[0, 0]
    in_crop = (pixels - box[:2] + box[2] / 2) * size / box[2] - 0.5
    assert_close((in_crop + 0.5) * 2 / size - 1, crop.normalise(pixels.expand(1, 2, 1, -1))[0, 0, 0])


def test_one_camera_a_clip_is_broadcast_over_its_frames():
    crop = FaceCrop.of(torch.rand(2, 3, 3), torch.tensor([1000.0, 2000.0]), torch.rand(2, 2))
    assert crop.focal_length.tolist() == [[1000.0] * 3, [2000.0] * 3]
    assert crop.principal_point.shape == (2, 3, 2)


def test_axis_rotation_is_the_smallest_to_the_crops_centre(crop):
    tangents = crop.geometry[..., :2]
    way = torch.cat([tangents, torch.ones(1, 2, 1)], -1)
    axis = torch.nn.functional.normalize(way, dim=-1)
    assert_close(
        crop.axis_rotation @ crop.axis_rotation.transpose(-1, -2), torch.eye(3).double().expand(1, 2, 3, 3)
    )
    assert_close(crop.axis_rotation[..., 2], axis)
    turn = Rotation.from_matrix(crop.axis_rotation[0, 1].numpy()).as_rotvec()
    assert abs(turn[2]) < 1e-12
    assert np.linalg.norm(turn) == pytest.approx(np.arccos(axis[0, 1, 2].item()))


def test_the_camera_code_is_the_position_of_the_head_in_the_picture(crop):
    translation = torch.tensor([[[0.03, -0.02, 0.7], [-0.25, 0.1, 0.9]]], dtype=torch.float64)
    code = perspective_camera(translation, crop)
    assert_close(perspective_translation(code, crop), translation)
    pixels = Camera(1500.0, (639.5, 359.5), 1280, 720).project(translation)
    assert_close(crop.to_pixels(code[..., None, :2])[..., 0, :], pixels)
    nearer = perspective_translation(code - torch.tensor([0, 0, 0.1]), crop)
    assert (nearer[..., 2] < translation[..., 2]).all()


def test_raw_zeros_are_an_average_frontal_head_in_the_middle(crop):
    code = decode_coarse(torch.zeros(1, 2, sum(coarse_sizes(OPEN_CODE))).double(), OPEN_CODE, crop)
    assert code.shape.abs().sum() == 0
    eyes = torch.tensor([0.0, 0.0, 1.0]).double()  # out of the face
    place = perspective_translation(code.camera, crop)
    facing = torch.nn.functional.normalize(-place, dim=-1)
    seen = (code.rotation @ eyes)[0]
    # the origin is on the way through the square's middle, and so is the camera
    assert_close(seen, facing[0], atol=1e-9, rtol=0)
    shading = 0.28209479 * code.light[..., 0, :]
    assert_close(shading, torch.ones(1, 2, 3).double(), atol=1e-6, rtol=0)


def test_flame_code_has_the_papers_183_and_53_numbers(crop):
    assert (FLAME_CODE.coarse_width, FLAME_CODE.expression_width) == (183, 53)
    raw = torch.randn(1, 2, sum(coarse_sizes(FLAME_CODE)), dtype=torch.float64)
    code = decode_coarse(raw, FLAME_CODE, crop)
    vector = code.vector()
    assert vector.shape == (1, 2, 183)
    assert_close(vector[..., :100], code.shape)
    assert_close(vector[..., 100:150], code.albedo)
    assert_close(vector[..., 153:156], code.camera)
    assert_close(vector[..., 156:].unflatten(-1, (9, 3)), code.light)
    upright = rotvec_to_rotmat(vector[..., 150:153])
    assert_close(torch.diag(torch.tensor([1.0, -1, -1])).double() @ upright, code.rotation)
    expression = decode_expression(torch.randn(1, 2, sum(expression_sizes(FLAME_CODE))), FLAME_CODE)
    assert expression.vector().shape == (1, 2, 53)
    assert expression.expression.min() < 0, "FLAME's expression isn't bounded"


def test_weak_perspective_is_decas():
    points = torch.tensor([[0.02, 0.03, 0.1]]).double()
    camera = torch.tensor([8.0, 0.01, -0.02]).double()
    upright = rotvec_to_rotmat(torch.tensor([0.1, 0.3, -0.2]).double())
    turned = points @ upright.T
    expected = camera[0] * (turned[:, :2] + camera[1:]) * torch.tensor([1.0, -1.0])  # y is up until the end
    facing = torch.diag(torch.tensor([1.0, -1.0, -1.0])).double()
    assert_close(project_weakly(points, facing @ upright, camera), expected)


def test_perspective_converges_to_weak_perspective_with_distance():
    """The same code of place and size in both cameras shows a head in the same part of the crop."""
    head = torch.tensor([[0.05, 0.02, 0.0], [-0.04, -0.06, 0.02]]).double()
    crop = FaceCrop.of(torch.tensor([[[500.0, 300.0, 200.0]]]).double(), 1e5, (500.0, 300.0))
    raw = torch.zeros(1, 1, sum(coarse_sizes(OPEN_CODE))).double()
    code = decode_coarse(raw, OPEN_CODE, crop)
    camera = transform(head, code.rotation, perspective_translation(code.camera, crop))
    pixels = Camera(1e5, (500.0, 300.0), 1000, 600).project(camera)
    weak = project_weakly(head, code.rotation, torch.tensor([1 / 0.12, 0, 0]).double())
    assert_close(crop.normalise(pixels), weak, atol=2e-3, rtol=0)


def test_rotations_of_six_numbers_are_rotations():
    rotation = rotation_from_6d(torch.randn(50, 6, dtype=torch.float64))
    assert_close(rotation @ rotation.transpose(-1, -2), torch.eye(3).double().expand(50, 3, 3))
    assert_close(torch.linalg.det(rotation), torch.ones(50).double())
    columns = Rotation.from_rotvec([0.2, -0.5, 1.0]).as_matrix()
    assert_close(rotation_from_6d(torch.from_numpy(columns[:, :2].T.ravel())), torch.from_numpy(columns))


def test_open_expression_stays_in_bounds_and_variances_in_range():
    raw = 50 * torch.randn(3, 4, sum(expression_sizes(OPEN_CODE)))
    code = decode_expression(raw, OPEN_CODE)
    assert code.expression.shape == (3, 4, 52)
    assert code.expression.min() == 0
    assert code.expression.max() == 1
    assert code.jaw.shape == (3, 4, 0)
    for values in (code.log_variance, code.landmark_log_variance):
        assert values.shape == (3, 4, 6)
        assert values.min() == -12
        assert values.max() == 4


def test_the_gradient_of_clamped_units_points_inwards_only():
    values = torch.tensor([-0.5, -0.5, 0.5, 1.5, 1.5], requires_grad=True)
    clamp_inwards(values, 0, 1).backward(torch.tensor([-1.0, 1.0, 2.0, 1.0, -1.0]))
    assert values.grad.tolist() == [-1, 0, 2, 1, 0]


def test_gradient_descent_reaches_and_leaves_a_bound():
    raw = torch.tensor([0.3], requires_grad=True)
    optimiser = torch.optim.SGD([raw], 0.1)
    for target, steps in ((0.0, 60), (0.7, 60)):
        for _ in range(steps):
            optimiser.zero_grad()
            (clamp_inwards(raw, 0, 1) - target).square().sum().backward()
            optimiser.step()
        assert clamp_inwards(raw, 0, 1).item() == pytest.approx(target, abs=1e-4)


def test_crops_are_those_of_the_training_data():
    from avface.data.crops import make_take
    from avface.tracking import FaceTrack

    rng = np.random.default_rng(0)
    face = rng.normal(0, 40, (478, 2))
    points = (300 + face + np.cumsum(rng.normal(0, 3, (40, 1, 2)), 0)).astype(np.float32)
    seen = np.ones(40, bool)
    seen[[5, 6, 7, 20]] = False
    lost = np.where(seen[:, None, None], points, np.nan).astype(np.float32)
    track = FaceTrack(
        lost,
        lost[..., 0],
        seen.astype(np.float32),
        np.zeros((40, 4), np.float32),
        np.arange(40) / 25,
        (),
        (640, 480),
    )
    take = make_take(track, seen, lost, seen, 0, 40, 224, 1.6, 25.0)
    np.testing.assert_allclose(face_boxes(lost, seen, 25.0), take.crop.boxes, atol=1e-3)


def test_boxes_are_interpolated_where_the_face_is_lost():
    rng = np.random.default_rng(0)
    face = rng.normal(0, 40, (478, 2))
    points = 300 + face + np.array([2.0, 0.0]) * np.arange(100)[:, None, None]
    seen = np.ones(100, bool)
    seen[20:80] = False
    boxes = face_boxes(np.where(seen[:, None, None], points, np.nan), seen, 25.0)
    whole = face_boxes(points, np.ones(100, bool), 25.0)
    np.testing.assert_allclose(boxes, whole, atol=1e-2)
    with pytest.raises(ValueError, match="no frame with a face"):
        face_boxes(points, np.zeros(100, bool), 25.0)


def test_parts_of_frames_keep_everything_together():
    frames = some_frames(2, 10)
    part = frames.part(3, 7)
    assert part.count == 4
    assert_close(part.landmarks, frames.landmarks[:, 3:7])
    assert_close(part.crop.box, frames.crop.box[:, 3:7])
    assert part.images is None


def test_every_landmark_has_a_region_the_same_on_both_sides(open_landmarks):
    assert set(LANDMARK_REGIONS.tolist()) == set(range(6))
    mirrored = np.linalg.norm(open_landmarks[:, None] - open_landmarks * [-1, 1, 1], axis=2).argmin(1)
    assert (LANDMARK_REGIONS[mirrored] == LANDMARK_REGIONS).all()


@pytest.fixture(scope="module")
def open_landmarks():
    from avface.head.asset import load_head

    head = load_head()
    embedding = head.embedding("mediapipe478")
    corners = head.template.numpy()[embedding.triangles]
    return np.einsum("lkc,lk->lc", corners, embedding.barycentric)


@pytest.mark.parametrize(
    ("region", "landmarks"),
    [
        ("lips", LIPS),
        ("eyes", np.concatenate([LEFT_EYE, RIGHT_EYE, IRISES])),
        ("brows", RIGHT_BROW_UPPER),
        ("jaw", FACE_OVAL[14:23]),
        ("nose", np.array([1, 4, 5, 98, 327])),
        ("cheeks", np.array([50, 280, 205, 425])),
    ],
)
def test_regions_contain_the_landmarks_of_their_name(region, landmarks):
    assert (LANDMARK_REGIONS[torch.from_numpy(landmarks)] == REGIONS.index(region)).all()


def test_ibug_regions_follow_the_scheme():
    names = np.array(REGIONS)[IBUG_REGIONS.numpy()]
    assert set(names[48:]) == {"lips"}
    assert set(names[36:48]) == {"eyes"}
    assert set(names[17:27]) == {"brows"}
    assert set(names[4:13]) == {"jaw"}


def test_arkit_units_belong_to_one_region_and_flames_to_all():
    shares = unit_regions(
        ("jawOpen", "mouthClose", "tongueOut", "eyeBlinkLeft", "cheekPuff", "noseSneerLeft")
    )
    names = [REGIONS[k] for k in shares.argmax(1)]
    assert names == ["jaw", "lips", "lips", "eyes", "cheeks", "nose"]
    assert shares.sum(1).tolist() == [1.0] * 6
    assert unit_regions(("expression_0",)).tolist()[0] == pytest.approx([1 / 6] * 6)


def test_all_units_of_the_open_head_have_their_region():
    from avface.head.asset import load_head

    assert (unit_regions(load_head().expression_names).max(1).values == 1).all()


def test_a_units_variance_is_its_regions_or_their_mean():
    regions = torch.tensor([[0.0, -1.0, -2.0, -3.0, -4.0, -5.0]], requires_grad=True)
    found = unit_log_variance(regions, unit_regions(("browInnerUp", "expression_0")))
    assert found[0, 0].item() == -2
    assert found[0, 1].item() == pytest.approx(regions.exp().mean().log().item())
    found.sum().backward()
    assert torch.isfinite(regions.grad).all()


def test_codes_without_shape_are_refused():
    with pytest.raises(AvfaceError, match="shape=0"):
        CodeConfig(shape=0)
