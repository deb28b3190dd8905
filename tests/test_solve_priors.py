"""Priors of expression and motion: derivatives, and costs of typical cases."""

import numpy as np
import pytest
import roma
import torch
from export_heads import jawed_capture

from avface.head import load_head
from avface.solve import ExpressionPriorConfig, MotionPriorConfig
from avface.solve.landmark_model import Parameters
from avface.solve.motion import MotionPrior
from avface.solve.priors import CONTAINED, MIRRORED, OPPOSED, RARE, ExpressionPrior

LOCAL = 6 + 52 + 4


@pytest.fixture(scope="module")
def head():
    return load_head("open")


@pytest.fixture(scope="module")
def expression_prior(head):
    return ExpressionPrior(head, LOCAL, ExpressionPriorConfig())


def unknowns(head, gaze=(0.0, 0.0, 0.0, 0.0), **weights):
    x = torch.zeros(LOCAL, dtype=torch.float64)
    for name, weight in weights.items():
        x[6 + head.expression_names.index(name)] = weight
    x[-4:] = torch.tensor(gaze, dtype=torch.float64)
    return x


# Expression


def test_every_unit_named_in_the_tables_exists(head):
    named = {unit for pair in (*OPPOSED, *CONTAINED) for unit in pair} | set(RARE)
    named |= {f"{stem}{side}" for stem in MIRRORED for side in ("Left", "Right")}

    assert named <= set(head.expression_names)


def test_expression_gradient_and_hessian_agree_with_automatic_ones(head, expression_prior):
    rng = np.random.default_rng(0)
    x = torch.as_tensor(rng.uniform(0, 1, (3, LOCAL)))
    x[0, 6 + head.expression_names.index("mouthClose")] = (
        0.9  # the containment is at work in one, not in another
    )
    x[0, 6 + head.expression_names.index("jawOpen")] = 0.2
    x[1, 6 + head.expression_names.index("mouthClose")] = 0.1
    x[1, 6 + head.expression_names.index("jawOpen")] = 0.7

    hessian, gradient = expression_prior.normal_equations(x)

    for row in range(3):
        torch.testing.assert_close(
            gradient[row], torch.autograd.functional.jacobian(expression_prior.cost, x[row])
        )
        torch.testing.assert_close(
            hessian[row], torch.autograd.functional.hessian(expression_prior.cost, x[row])
        )


def test_expression_precision_is_positive_semidefinite_and_0_for_the_pose(expression_prior):
    values = torch.linalg.eigvalsh(expression_prior.precision)

    torch.testing.assert_close(expression_prior.precision, expression_prior.precision.mT)
    assert values.min() > -1e-9 * values.max()
    assert (expression_prior.precision[:6] == 0).all() and (expression_prior.linear[:6] == 0).all()
    assert (torch.linalg.eigvalsh(expression_prior.precision[6:, 6:]) > 0).all()


def test_likely_expressions_cost_less_than_unlikely_ones(head, expression_prior):
    def cost(**weights):
        return float(expression_prior.cost(unknowns(head, **weights)))

    assert cost() == 0
    both, one = cost(eyeBlinkLeft=0.8, eyeBlinkRight=0.8), cost(eyeBlinkLeft=0.8)
    assert both < one + cost(eyeBlinkRight=0.8) - 0.5, "lids close together"
    assert cost(mouthPucker=0.6, mouthStretchLeft=0.6) > cost(mouthPucker=0.6) + cost(mouthStretchLeft=0.6)
    assert cost(jawOpen=0.6, mouthClose=0.5) < cost(jawOpen=0.6) + cost(mouthClose=0.5) - 2
    assert cost(jawOpen=0.5) < cost(cheekPuff=0.5) < cost(tongueOut=0.5)


def test_gaze_is_parallel_and_agrees_with_the_eyelook_units(head, expression_prior):
    up, _, _, out = head.gaze_range

    def cost(gaze, **weights):
        return float(expression_prior.cost(unknowns(head, gaze, **weights)))

    assert cost((0.0, 0.2, 0.0, 0.2)) < cost((0.0, 0.2, 0.0, -0.2))
    looking_left = {"eyeLookOutLeft": 0.5, "eyeLookInRight": 0.5}
    assert cost((0.0, out / 2, 0.0, out / 2), **looking_left) < cost(
        (0.0, -out / 2, 0.0, -out / 2), **looking_left
    )
    looking_up = {"eyeLookUpLeft": 0.5, "eyeLookUpRight": 0.5}
    assert cost((-up / 2, 0.0, -up / 2, 0.0), **looking_up) < cost((up / 2, 0.0, up / 2, 0.0), **looking_up)


def test_a_head_with_other_units_gets_plain_unit_variance(tmp_path):
    head = jawed_capture(tmp_path).head_model
    prior = ExpressionPrior(head, 10, ExpressionPriorConfig())

    assert (prior.linear == 0).all() and prior.contained == []
    expected = torch.diag(torch.tensor([0.0] * 6 + [1.0] * 4, dtype=torch.float64))
    torch.testing.assert_close(prior.precision, expected)


# Motion

NARROW = 6 + 52 + 4


@pytest.fixture(scope="module")
def motion_prior(head):
    return MotionPrior(head, NARROW, MotionPriorConfig())


def motion(frames, batch=1, seed=0, size=1.0):
    """Random motion (B, N, ...) in steps like those between video frames."""
    rng = np.random.default_rng(seed)
    turns = roma.rotvec_to_rotmat(torch.as_tensor(size * rng.normal(0, 0.002, (batch, frames, 3))))
    facing = roma.rotvec_to_rotmat(torch.tensor([3.0, 0.3, -0.2], dtype=torch.float64))
    rotation = torch.stack(
        [
            torch.stack(
                [torch.linalg.multi_dot([*t[: k + 1], facing]) if k else t[0] @ facing for k in range(frames)]
            )
            for t in turns
        ]
    )
    return Parameters(
        rotation,
        torch.as_tensor(0.6 + size * rng.normal(0, 0.001, (batch, frames, 3)).cumsum(1)),
        torch.as_tensor(0.5 + size * rng.normal(0, 0.02, (batch, frames, 52)).cumsum(1)),
        torch.as_tensor(size * rng.normal(0, 0.05, (batch, frames, 2, 2)).cumsum(1)),
        torch.zeros(3, dtype=torch.float64),
        torch.tensor(0.0, dtype=torch.float64),
    )


def moved(parameters, step):
    """A step (B, N, D) without the limits on weights."""
    local = parameters.retract(step)
    local.expression = parameters.expression + step[..., 6:58]
    return local


def weights_for(prior, times, segments=None, drifts=None):
    times = torch.as_tensor(np.atleast_2d(times), dtype=torch.float64)
    segments = torch.zeros(times.shape, dtype=torch.int64) if segments is None else segments
    return prior.weights(times, segments, drifts)


TIMES = np.array([0, 0.03, 0.07, 0.1, 0.17, 0.2])


def drifts_of_a_gap():
    """Two windows of six frames, the last three steps of the second beside unseen frames."""
    drifts = torch.full((2, 5), torch.nan, dtype=torch.float64)
    drifts[1, 2:] = 3.0
    return drifts


@pytest.mark.parametrize("drifts", [None, drifts_of_a_gap()], ids=["seen", "gap"])
def test_motion_gradient_agrees_with_the_slope_of_its_cost(motion_prior, drifts):
    times = np.stack([TIMES, TIMES * 1.3])
    parameters, weights = motion(6, batch=2), weights_for(motion_prior, times, drifts=drifts)

    normal = motion_prior.normal_equations(parameters, weights)

    generator = torch.Generator().manual_seed(1)
    for _ in range(6):
        direction = torch.randn(2, 6, NARROW, generator=generator, dtype=torch.float64)
        direction[..., :6] *= 0.01
        ahead, behind = (
            motion_prior.normal_equations(moved(parameters, sign * 1e-6 * direction), weights).cost
            for sign in (1, -1)
        )
        slope = (normal.gradient * direction).sum((1, 2))
        torch.testing.assert_close((ahead - behind) / 2e-6, slope, rtol=0.01, atol=1.0)


@pytest.mark.parametrize("drifts", [None, drifts_of_a_gap()], ids=["seen", "gap"])
def test_motion_hessian_is_that_of_its_cost_without_heavy_tails(head, drifts):
    """Exact except for rotations, where Gauss-Newton omits terms that vanish with small steps."""
    motion_prior = MotionPrior(head, NARROW, MotionPriorConfig(tail=1e12))
    times = np.stack([TIMES, TIMES * 1.3])
    parameters, weights = motion(6, batch=2), weights_for(motion_prior, times, drifts=drifts)
    normal = motion_prior.normal_equations(parameters, weights)

    def product(x):
        y = normal.diagonal * x
        for step, band in ((1, normal.first), (2, normal.second)):
            y[:, step:] += band * x[:, :-step]
            y[:, :-step] += band * x[:, step:]
        return y

    generator = torch.Generator().manual_seed(2)
    for _ in range(4):
        direction = torch.randn(2, 6, NARROW, generator=generator, dtype=torch.float64)
        direction[..., :3] = 0
        after = motion_prior.normal_equations(moved(parameters, 1e-3 * direction), weights)
        torch.testing.assert_close(
            (after.gradient - normal.gradient)[..., 3:] / 1e-3,
            product(direction)[..., 3:],
            rtol=1e-6,
            atol=1e-2,
        )
        predicted = normal.cost + 1e-3 * (normal.gradient * direction).sum((1, 2))
        predicted += 0.5e-6 * (direction * product(direction)).sum((1, 2))
        torch.testing.assert_close(after.cost, predicted, rtol=1e-9, atol=1e-9)


def test_beside_unseen_frames_the_pose_has_the_gaps_ratio_of_second_to_first_differences(head):
    times = np.arange(8) / 30
    drifts = torch.full((1, 7), torch.nan, dtype=torch.float64)
    drifts[0, 2:4] = 3.0  # from frame 2 to 4: frame 3 is unseen
    weights = {}
    for name, second in (
        ("second", 1.0),
        ("first", 1e-6),
    ):  # with first differences that count for nothing, and alone
        config = MotionPriorConfig(drift=30.0, tail=1e12)
        prior = MotionPrior(head, NARROW, config)
        prior.second *= second
        prior.first *= 1.0 if name == "first" else 1e-6
        for given in (drifts, None):
            equations = prior.normal_equations(motion(8), weights_for(prior, times, drifts=given))
            weights[name, given is None] = (equations.second if name == "second" else equations.first)[0]
    # the coupling of a frame with the next but one is by second differences alone; those around 2 to 4 touch the gap
    gap, seen = weights["second", False], weights["second", True]
    torch.testing.assert_close(gap[1:4, :6], 0.1 * seen[1:4, :6])
    torch.testing.assert_close(gap[[0, 4, 5]], seen[[0, 4, 5]])
    torch.testing.assert_close(gap[:, 6:], seen[:, 6:])
    gap, seen = weights["first", False], weights["first", True]
    torch.testing.assert_close(gap[2:4, :6], 10 * seen[2:4, :6], rtol=0.02, atol=0)
    torch.testing.assert_close(gap[:, 6:], seen[:, 6:])


def test_rest_costs_nothing_and_uniform_motion_almost_nothing(head):
    only_second = MotionPrior(head, NARROW, MotionPriorConfig(drift=1e6))
    steady, still = motion(20, size=0.0), motion(20, size=0.0)
    time = torch.arange(20, dtype=torch.float64)
    steady.translation = still.translation + 0.002 * time[None, :, None]
    steady.expression = still.expression + 0.02 * time[None, :, None]
    turns = roma.rotvec_to_rotmat(time[:, None] * torch.tensor([0.01, 0.02, -0.01], dtype=torch.float64))
    steady.rotation = turns[None] @ still.rotation
    weights = weights_for(only_second, np.arange(20) / 30)

    assert only_second.normal_equations(still, weights).cost < 1e-12
    assert only_second.normal_equations(steady, weights).cost < 1e-3
    jitter = motion(20)
    assert only_second.normal_equations(jitter, weights).cost > 100


def test_uniform_motion_costs_little_at_uneven_times_too(head):
    only_second = MotionPrior(head, NARROW, MotionPriorConfig(drift=1e6))
    times = np.array([0, 0.02, 0.09, 0.1, 0.15, 0.25])
    steady = motion(6, size=0.0)
    steady.expression = 0.1 + torch.as_tensor(times)[None, :, None].expand(1, 6, 52).clone()

    assert only_second.normal_equations(steady, weights_for(only_second, times)).cost < 1e-6
    uneven = weights_for(only_second, np.arange(6) / 20)
    assert only_second.normal_equations(steady, uneven).cost > 1


def test_the_same_motion_sampled_twice_as_often_costs_about_the_same(motion_prior):
    costs = []
    for rate in (30, 60):
        times = np.arange(0, 2, 1 / rate)
        swinging = motion(len(times), size=0.0)
        swinging.expression = 0.5 + 0.3 * torch.sin(torch.as_tensor(2 * np.pi * times))[None, :, None].expand(
            1, -1, 52
        )
        costs.append(float(motion_prior.normal_equations(swinging, weights_for(motion_prior, times)).cost))

    assert costs[1] == pytest.approx(costs[0], rel=0.1)


def test_a_shot_cut_costs_nothing_and_couples_nothing(motion_prior):
    cut = motion(8, size=0.0)
    cut.translation = cut.translation.clone()
    cut.translation[:, 5:] += 0.3
    cut.expression[:, 5:] += 0.4
    segments = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1]])
    times = np.arange(8) / 30

    normal = motion_prior.normal_equations(cut, weights_for(motion_prior, times, segments))

    assert normal.cost < 1e-12 and normal.gradient.abs().max() < 1e-9
    assert (normal.first[:, 4] == 0).all() and (normal.second[:, 3:5] == 0).all()
    assert (normal.first[:, 3] != 0).all()
    assert motion_prior.normal_equations(cut, weights_for(motion_prior, times)).cost > 1000


def test_lids_may_be_faster_than_mouths(head, motion_prior):
    def blink(name):
        quick = motion(9, size=0.0)
        quick.expression = torch.zeros_like(quick.expression)
        quick.expression[:, 4, head.expression_names.index(name)] = 1
        return float(motion_prior.normal_equations(quick, weights_for(motion_prior, np.arange(9) / 30)).cost)

    assert blink("eyeBlinkLeft") < 0.3 * blink("jawOpen")


@pytest.mark.parametrize("frames", [1, 2])
def test_one_or_two_frames_have_no_second_difference(motion_prior, frames):
    normal = motion_prior.normal_equations(motion(frames), weights_for(motion_prior, np.arange(frames) / 30))

    assert normal.diagonal.shape == (1, frames, NARROW) and torch.isfinite(normal.cost).all()
