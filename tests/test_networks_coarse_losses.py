"""Losses: zero at their minimum, and a gradient step in the right direction."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from avface.geometry.rotations import rotvec_to_rotmat
from avface.head.schemes import LEFT_EYE_LOWER, LEFT_EYE_UPPER, RIGHT_EYE_LOWER, RIGHT_EYE_UPPER
from avface.networks.coarse.losses.coefficients import coefficient_loss, swap_within_windows, white_light_loss
from avface.networks.coarse.losses.landmarks import (
    IBUG_EYES,
    IBUG_LIP_CORNERS,
    IBUG_MOUTH,
    IBUG_WEIGHTS,
    MEDIAPIPE_EYES,
    MEDIAPIPE_LIP_CORNERS,
    MEDIAPIPE_MOUTH,
    gap_loss,
    landmark_loss,
)
from avface.networks.coarse.losses.likelihood import (
    landmark_likelihood_loss,
    negative_log_likelihood,
    unit_likelihood_loss,
)
from avface.networks.coarse.losses.photometric import (
    Rendering,
    Surface,
    identity_loss,
    overlay,
    photometric_loss,
    render,
)
from avface.networks.coarse.losses.supervised import (
    expression_loss,
    rotation_angle,
    rotation_loss,
    smoothness_loss,
    velocity_loss,
    vertex_loss,
    vertex_weights,
)
from avface.networks.regions import LANDMARK_REGIONS, REGIONS, unit_regions


@pytest.fixture(autouse=True)
def seeded():
    """Makes draws of torch reproducible."""
    torch.manual_seed(0)


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def after_a_step(loss, values, size=1e-3):
    """Values after a small gradient step, which must lower the loss."""
    values = values.detach().clone().requires_grad_()
    before = loss(values)
    (gradient,) = torch.autograd.grad(before, values)
    assert torch.isfinite(gradient).all()
    moved = values.detach() - size * gradient / gradient.norm()
    assert loss(moved) < before
    return moved


def test_landmark_weights_are_decas():
    assert IBUG_WEIGHTS[[0, 5, 10, 20, 27, 30, 31, 35, 36, 48, 50, 54, 60, 67]].tolist() == [
        *(1, 2, 2, 1, 1.5, 3, 3, 3, 1, 3, 1.5, 3, 1.5, 1.5)
    ]
    assert IBUG_WEIGHTS.sum() == 68 + 4 + 9 * 0.5 + 3 * 1.5 + 20 * 0.5 + 2 * 1.5


def test_landmark_loss_is_the_mean_error_a_coordinate():
    points = random(3, 68, 2)
    assert landmark_loss(points, points, IBUG_WEIGHTS) == 0
    assert landmark_loss(points + 0.1, points, IBUG_WEIGHTS).item() == pytest.approx(0.1)
    nose = torch.zeros(68).double()
    nose[30] = 1
    moved = points + nose[:, None] * torch.tensor([0.2, 0.0])
    share = 3 / IBUG_WEIGHTS.sum().item()
    assert landmark_loss(moved, points, IBUG_WEIGHTS).item() == pytest.approx(share * 0.2 / 2)


def test_landmarks_are_pulled_to_their_targets():
    predicted, target = random(2, 68, 2), random(2, 68, 2, seed=1)
    moved = after_a_step(lambda x: landmark_loss(x, target, IBUG_WEIGHTS), predicted)
    towards = torch.sign(target - predicted)
    assert (torch.sign(moved - predicted) == towards).all()
    far = (moved - predicted).abs().mean((0, 2))
    assert far[30] == pytest.approx(3 * far[0].item()), "weights are pulls"


def test_landmarks_without_weight_may_be_unknown():
    predicted = random(2, 68, 2).requires_grad_()
    target = random(2, 68, 2, seed=1)
    target[0, :10] = torch.nan
    seen = torch.ones(2, 68)
    seen[0, :10] = 0
    loss = landmark_loss(predicted, target, IBUG_WEIGHTS * seen)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(predicted.grad).all()
    assert (predicted.grad[0, :10] == 0).all()
    assert landmark_loss(predicted, target, torch.zeros(68)) == 0


@pytest.mark.parametrize(
    ("pairs", "count"),
    [
        (IBUG_EYES, 68),
        (IBUG_MOUTH, 68),
        (IBUG_LIP_CORNERS, 68),
        (MEDIAPIPE_EYES, 478),
        (MEDIAPIPE_MOUTH, 478),
        (MEDIAPIPE_LIP_CORNERS, 478),
    ],
)
def test_gap_losses_depend_on_distances_and_not_on_position(pairs, count):
    target = random(2, count, 2)
    assert gap_loss(target, target, pairs) == 0
    assert gap_loss(target + 0.3, target, pairs) < 1e-12
    assert gap_loss(1.5 * target, target, pairs) > 0.01

    def gaps(points):
        return (points[:, pairs[:, 0]] - points[:, pairs[:, 1]]).norm(dim=-1)

    narrow = 0.8 * target  # all gaps too small
    moved = after_a_step(lambda x: gap_loss(x, target, pairs), narrow)
    assert (gaps(moved) > gaps(narrow)).all()
    others = torch.ones(count, dtype=torch.bool)
    others[pairs.flatten()] = False
    assert_close(moved[:, others], narrow[:, others])


def test_closed_lids_have_finite_gradients():
    shut = torch.zeros(1, 68, 2, dtype=torch.float64, requires_grad=True)
    gap_loss(shut, random(1, 68, 2), IBUG_EYES).backward()
    assert torch.isfinite(shut.grad).all()


@pytest.fixture(scope="module")
def head():
    from avface.head.asset import load_head

    return load_head()


@pytest.fixture(scope="module")
def open_landmarks(head):
    embedding = head.embedding("mediapipe478")
    return np.einsum("lkc,lk->lc", head.template.numpy()[embedding.triangles], embedding.barycentric)


def test_mediapipes_pairs_lie_above_each_other(open_landmarks):
    """Sorted by index, as in EMOCA, 157 would be paired with 7 on the other side of the eye."""
    for pairs in (MEDIAPIPE_EYES, MEDIAPIPE_MOUTH):
        upper, lower = (open_landmarks[pairs[:, side]] for side in (0, 1))
        assert np.abs(upper[:, 0] - lower[:, 0]).max() < 0.004
        assert (upper[:, 1] >= lower[:, 1] - 1e-3).all()
    assert (157, 154) in {tuple(pair) for pair in MEDIAPIPE_EYES.tolist()}
    assert (157, 7) not in {tuple(pair) for pair in MEDIAPIPE_EYES.tolist()}
    for upper, lower in ((RIGHT_EYE_UPPER, RIGHT_EYE_LOWER), (LEFT_EYE_UPPER, LEFT_EYE_LOWER)):
        wrong = open_landmarks[np.sort(upper), 0] - open_landmarks[np.sort(lower), 0]
        assert np.abs(wrong).max() > 0.008, "the test would see the mistake"


def test_lip_corners_are_left_and_right(open_landmarks):
    right, left = (open_landmarks[MEDIAPIPE_LIP_CORNERS[:, side]] for side in (0, 1))
    assert (right[:, 0] < -0.015).all()
    assert (left[:, 0] > 0.015).all()


SIZE = 48


@pytest.fixture(scope="module")
def scene(head):
    """The open head in front of a camera, with the inputs of the renderer."""
    surface = Surface(
        head.faces,
        torch.from_numpy(head.uv),
        torch.from_numpy(head.uv_faces),
        torch.from_numpy(head.regions["face"]).float(),
    )
    facing = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    points = (head.template @ facing + torch.tensor([0.0, 0.0, 0.8]))[None]
    light = torch.zeros(1, 9, 3)
    light[:, 0] = 2.5
    light[:, 1] = 0.5  # from the right of the picture
    albedo = torch.full((1, 8, 8, 3), 0.6)
    return surface, points, albedo, light


def drawn(scene, points=None, albedo=None, light=None):
    surface, still, grey, lamp = scene
    points = still if points is None else points
    pixels = 0.8 * 160 * points[..., :2] / points[..., 2:] + (SIZE - 1) / 2
    return render(
        surface,
        points,
        pixels,
        points[..., 2],
        grey if albedo is None else albedo,
        lamp if light is None else light,
        SIZE,
        SIZE,
    )


def test_the_rendering_is_albedo_times_light_on_the_side_the_light_comes_from(scene):
    picture = drawn(scene)
    face = picture.mask > 0.99
    columns = torch.arange(SIZE).expand(1, SIZE, SIZE)
    left, right = (picture.image[face & side].mean() for side in (columns < 20, columns > 28))
    assert right > left + 0.03
    assert picture.image[face].mean().item() == pytest.approx(0.6 * 2.5 * 0.28209, abs=0.05)
    assert (picture.image[picture.image.sum(-1) == 0] == 0).all()
    assert 0.1 < face.float().mean() < 0.5
    assert (picture.mask[:, 0] == 0).all(), "no skin of the face at the crown"


def test_light_from_above_brightens_upward_normals(scene):
    light = torch.zeros(1, 9, 3)
    light[:, 0], light[:, 2] = 2.5, 1.0
    picture = drawn(scene, light=light)
    rows = torch.arange(SIZE)[None, :, None].expand(1, SIZE, SIZE)
    face = picture.mask > 0.99
    middle = rows[face].float().median()
    assert picture.image[face & (rows < middle)].mean() > picture.image[face & (rows > middle)].mean() + 0.02


def test_photometric_loss_is_zero_for_the_head_itself_and_outside_the_mask(scene):
    picture = drawn(scene)
    everything = torch.ones(1, SIZE, SIZE, dtype=torch.bool)
    assert photometric_loss(picture, picture.image, everything) == 0
    noise = torch.rand(1, SIZE, SIZE, 3)
    assert photometric_loss(picture, noise, ~everything) == 0
    behind = torch.where(picture.mask[..., None] > 0, picture.image, noise)
    assert photometric_loss(picture, behind, everything) == 0
    brighter = photometric_loss(picture, picture.image + 0.1, everything)
    assert brighter.item() == pytest.approx(0.1 * picture.mask.mean().item(), rel=1e-4)


def test_skin_that_is_too_dark_gets_brighter_and_dim_light_stronger(scene):
    target, everything = drawn(scene).image, torch.ones(1, SIZE, SIZE)
    dark = 0.8 * scene[2]
    moved = after_a_step(
        lambda albedo: photometric_loss(drawn(scene, albedo=albedo), target, everything), dark
    )
    assert (moved >= dark).all()
    assert (moved > dark).any()
    dim = 0.8 * scene[3]
    moved = after_a_step(lambda light: photometric_loss(drawn(scene, light=light), target, everything), dim)
    assert (moved[:, 0] > dim[:, 0]).all()


def test_the_photometric_gradient_rotates_the_head_back(scene):
    """By shading and the texture of the skin alone."""
    generator = torch.Generator().manual_seed(3)
    blotches = torch.nn.functional.interpolate(
        torch.rand(1, 3, 10, 10, generator=generator), size=(64, 64), mode="bicubic"
    ).movedim(1, -1)
    centre = scene[1].mean(1, keepdim=True)

    def turned(angle):
        rotation = rotvec_to_rotmat(torch.stack([0 * angle, angle, 0 * angle]))
        return (scene[1] - centre) @ rotation.T + centre

    target = drawn(scene, albedo=blotches).image
    everything = torch.ones(1, SIZE, SIZE)
    for angle in (0.03, -0.03):
        value = torch.tensor(angle, requires_grad=True)
        photometric_loss(drawn(scene, points=turned(value), albedo=blotches), target, everything).backward()
        assert value.grad * angle > 0


def test_the_overlay_is_the_rendered_skin_on_the_picture(scene):
    picture, photo = drawn(scene), torch.rand(1, SIZE, SIZE, 3)
    mixed = overlay(picture, photo)
    assert_close(mixed[picture.mask == 0], photo[picture.mask == 0])
    assert_close(mixed[picture.mask == 1], picture.image[picture.mask == 1].clamp(0, 1))


def test_identity_loss_compares_embeddings():
    torch.manual_seed(0)
    recognise = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5)).double()
    face, other = random(2, 8, 8, 3), random(2, 8, 8, 3, seed=1)
    assert identity_loss(recognise, face, face).abs() < 1e-12
    assert identity_loss(recognise, other, face) > 0.01
    moved = after_a_step(lambda rendered: identity_loss(recognise, rendered, face), other)

    def alike(picture):
        one, two = (recognise(x.movedim(-1, 1)) for x in (picture, face))
        return torch.cosine_similarity(one, two, dim=1).mean()

    assert alike(moved) > alike(other)
    photo = face.clone().requires_grad_()
    assert identity_loss(recognise, other.requires_grad_(), photo).requires_grad
    identity_loss(recognise, other, photo).backward()
    assert photo.grad is None
    assert other.grad is not None


def test_shapes_are_permuted_within_their_window():
    shapes = torch.arange(3 * 16.0).view(3, 16, 1).expand(3, 16, 4)
    swapped = swap_within_windows(shapes, torch.Generator().manual_seed(0))
    assert (swapped != shapes).any(1).all(), "each window is mixed"
    assert_close(swapped.sort(1).values, shapes)
    again = swap_within_windows(shapes, torch.Generator().manual_seed(0))
    assert (again == swapped).all()
    orders = {tuple((window - window.min()).tolist()) for window in swapped[..., 0]}
    assert len(orders) == 3, "each by itself"


def test_permuted_shapes_cost_nothing_if_equal_and_attract_each_other_otherwise():
    target = random(1, 1, 5).expand(2, 16, 5)

    def loss(shapes):
        swapped = swap_within_windows(shapes, torch.Generator().manual_seed(0))
        return (swapped - target).square().mean()

    assert loss(target) == 0
    uneven = random(2, 16, 5, seed=2)
    moved = after_a_step(loss, uneven, 0.5)
    assert moved.std(1).mean() < uneven.std(1).mean()


def test_coefficients_are_pulled_to_the_average():
    assert coefficient_loss(torch.zeros(2, 16, 100)) == 0
    assert coefficient_loss(torch.ones(2, 16, 100)) == 50, "sum over coefficients, mean over frames"
    values = random(2, 16, 100) - 0.5
    moved = after_a_step(coefficient_loss, values)
    assert (moved.abs() < values.abs()).all()


def test_light_is_pulled_to_white():
    grey = random(2, 16, 9, 1).expand(2, 16, 9, 3)
    assert white_light_loss(grey) < 1e-20
    light = random(2, 16, 9, 3)
    moved = after_a_step(white_light_loss, light)
    assert moved.std(-1).mean() < light.std(-1).mean()
    assert_close(moved.mean(-1), light.mean(-1))


def test_lips_have_the_largest_vertex_weights(head):
    weights = vertex_weights(head)
    assert weights.mean().item() == pytest.approx(1, abs=1e-5)
    face = torch.from_numpy(head.regions["face"] & ~head.regions["lips"])
    lips, scalp = (torch.from_numpy(head.regions[name]) for name in ("lips", "scalp"))
    assert weights[lips].min().item() == pytest.approx(5 * weights[face].max().item())
    assert weights[scalp].max().item() == pytest.approx(0.1 * weights[face].min().item())


def test_vertex_loss_is_the_weighted_mean_distance():
    true, weights = random(2, 3, 10, 3), random(10)
    weights = weights / weights.mean()
    assert vertex_loss(true, true, weights) == 0
    shifted = true + torch.tensor([0.003, 0.0, 0.004])
    assert vertex_loss(shifted, true, weights).item() == pytest.approx(0.005)
    other = random(2, 3, 10, 3, seed=1)
    moved = after_a_step(lambda x: vertex_loss(x, true, weights), other)
    assert ((moved - true).norm(dim=-1) < (other - true).norm(dim=-1)).all()
    exact = true.clone().requires_grad_()
    vertex_loss(exact, true, weights).backward()
    assert torch.isfinite(exact.grad).all()


def test_units_are_pulled_to_the_truth_by_their_weights():
    predicted, true = random(2, 16, 52), random(2, 16, 52, seed=1)
    weights = torch.ones(52)
    weights[24] = 4
    assert expression_loss(true, true) == 0
    assert expression_loss(true + 0.1, true).item() == pytest.approx(0.1)
    moved = after_a_step(lambda x: expression_loss(x, true, weights), predicted)
    assert ((moved - true).abs() < (predicted - true).abs()).all()
    steps = (moved - predicted).abs().mean((0, 1))
    assert steps[24].item() == pytest.approx(4 * steps[0].item())


@pytest.mark.parametrize("angle", [0.0, 1e-6, 0.5, 3.0, math.pi])
def test_rotation_angle_is_that_of_the_relative_rotation(angle):
    axis = torch.nn.functional.normalize(torch.tensor([[1.0, -2.0, 0.5]]).double(), dim=-1)
    start = rotvec_to_rotmat(random(1, 3))
    turned = start @ rotvec_to_rotmat(angle * axis)
    assert rotation_angle(start, turned).item() == pytest.approx(angle, abs=1e-9)
    assert rotation_loss(turned, start).item() == pytest.approx(angle, abs=1e-9)


def test_rotation_gradients_follow_the_geodesic():
    true = rotvec_to_rotmat(torch.tensor([[0.1, -0.2, 0.3]]).double())
    axis = torch.tensor([[0.0, 0.4, 0.0]]).double()
    moved = after_a_step(lambda turn: rotation_loss(true @ rotvec_to_rotmat(turn), true), axis, 0.05)
    assert_close(moved, axis - torch.tensor([[0.0, 0.05, 0.0]]).double())
    still = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    rotation_loss(true @ rotvec_to_rotmat(still), true).backward()
    assert torch.isfinite(still.grad).all()


def test_velocity_loss_ignores_constant_errors():
    true = random(2, 16, 5)
    assert velocity_loss(true, true, 25) == 0
    assert velocity_loss(true + 3, true, 25) < 1e-12
    drifting = true + 0.01 * torch.arange(16).view(1, -1, 1)
    assert velocity_loss(drifting, true, 25).item() == pytest.approx(0.25), "0.01 a frame are 0.25 a second"
    frozen = true.mean(1, keepdim=True).expand_as(true)
    moved = after_a_step(lambda x: velocity_loss(x, true, 25), frozen)
    assert (moved.diff(dim=1) * true.diff(dim=1)).sum() > 0, "it begins to move along"


def test_smoothness_loss_is_zero_for_steady_motion():
    steady = torch.arange(16).double().view(1, 16, 1) / 16 * random(1, 1, 5)
    assert smoothness_loss(steady, 25) < 1e-18
    curve = 0.5 * 2.0 * (torch.arange(16).double() / 25).square().view(1, 16, 1)
    assert smoothness_loss(curve, 25).item() == pytest.approx(4.0), "an acceleration of 2, squared"
    jagged = random(1, 16, 5)
    moved = after_a_step(lambda x: smoothness_loss(x, 25), jagged)
    assert moved.diff(n=2, dim=1).square().sum() < jagged.diff(n=2, dim=1).square().sum()


@pytest.mark.parametrize(("distribution", "factor"), [("gaussian", 1.0), ("laplace", 2.0)])
def test_the_likeliest_variance_is_the_errors_own(distribution, factor):
    error = torch.tensor([0.3], dtype=torch.float64)
    log_variance = (factor * error.square()).log().requires_grad_()
    negative_log_likelihood(error, log_variance, distribution).backward()
    assert log_variance.grad.abs().item() < 1e-12
    for wrong, way in ((log_variance - 1, 1), (log_variance + 1, -1)):
        moved = after_a_step(
            lambda v: negative_log_likelihood(error, v, distribution).sum(), wrong.detach(), 0.1
        )
        assert (moved - wrong) * way > 0


@pytest.mark.parametrize("distribution", ["gaussian", "laplace"])
def test_likelihoods_are_those_of_torchs_distributions(distribution):
    error, log_variance = random(20) - 0.5, 3 * random(20, seed=1) - 2
    deviation = (log_variance / 2).exp()
    if distribution == "gaussian":
        known = -torch.distributions.Normal(torch.zeros(20), deviation).log_prob(error)
    else:
        known = -torch.distributions.Laplace(torch.zeros(20), deviation / math.sqrt(2)).log_prob(error)
    difference = negative_log_likelihood(error, log_variance, distribution) - known
    assert difference.std() < 1e-6, "the same up to a constant"


def test_gradients_grow_with_precision_and_errors_raise_the_variance():
    shares = unit_regions(("jawOpen", "eyeBlinkLeft")).double()
    log_variance = torch.full((1, 1, 6), -2.0, dtype=torch.float64)
    log_variance[..., REGIONS.index("jaw")] = -4
    error = torch.tensor([[[0.3, 0.3]]], dtype=torch.float64)
    moved = after_a_step(lambda e: unit_likelihood_loss(e, log_variance, shares), error)
    steps = (error - moved)[0, 0]
    assert steps[0].item() == pytest.approx(math.exp(2) * steps[1].item())
    error = torch.tensor([[[0.5, 0.01]]], dtype=torch.float64)
    moved = after_a_step(lambda v: unit_likelihood_loss(error, v, shares), log_variance)
    change = (moved - log_variance)[0, 0]
    assert change[REGIONS.index("jaw")] > 0, "wrong: less sure"
    assert change[REGIONS.index("eyes")] < 0, "right: surer"
    assert change[[0, 2, 4, 5]].abs().max() == 0, "nothing known about the others"


def test_errors_of_landmarks_raise_the_variance_of_their_region():
    error = 0.002 * (random(1, 20, 478, 2) - 0.5)
    error[:, :, REGIONS.index("lips") == LANDMARK_REGIONS] *= 100
    log_variance = torch.zeros(1, 1, 6, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([log_variance], 0.5)
    for _ in range(80):
        optimiser.zero_grad()
        landmark_likelihood_loss(error, log_variance.expand(1, 20, 6), LANDMARK_REGIONS).backward()
        optimiser.step()
    deviation = (log_variance.detach() / 2).exp()[0, 0]
    mean_error = 0.002 / 4
    assert deviation[0].item() == pytest.approx(100 * mean_error * math.sqrt(2), rel=0.1)
    for region in range(1, 6):
        assert deviation[region].item() == pytest.approx(mean_error * math.sqrt(2), rel=0.1)


def test_unknown_landmarks_do_not_count():
    error = random(1, 4, 478, 2)
    log_variance = torch.zeros(1, 4, 6, dtype=torch.float64, requires_grad=True)
    known = torch.ones(1, 4, 478, dtype=torch.bool)
    known[:, 2] = False
    whole = landmark_likelihood_loss(error[:, [0, 1, 3]], log_variance[:, [0, 1, 3]], LANDMARK_REGIONS)
    error[:, 2] = torch.nan
    loss = landmark_likelihood_loss(error, log_variance, LANDMARK_REGIONS, known)
    assert_close(loss, whole)
    loss.backward()
    assert torch.isfinite(log_variance.grad).all()
    assert (log_variance.grad[:, 2] == 0).all()
    assert landmark_likelihood_loss(error, log_variance, LANDMARK_REGIONS, ~known & False) == 0


def test_a_rendering_without_mask_costs_nothing():
    picture = Rendering(torch.rand(1, 4, 4, 3), torch.zeros(1, 4, 4))
    assert photometric_loss(picture, torch.rand(1, 4, 4, 3), torch.ones(1, 4, 4)) == 0
