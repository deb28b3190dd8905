"""Clips of any length in overlapping windows."""

from dataclasses import replace

import pytest
import torch
from networks_frames import small_networks, some_frames
from scipy.spatial.transform import Rotation
from torch.testing import assert_close

from avface.networks.coarse.windows import embed, join, predict, read_expression, read_windows


@pytest.fixture(autouse=True)
def seeded():
    """Makes draws of torch reproducible."""
    torch.manual_seed(0)


def one_window_after_the_other(networks, frames):
    """The naive equivalent of `predict`: frames are encoded in each window; averaged with scipy."""
    count = frames.count
    window = min(networks.config.window, count)
    answers = [[] for _ in range(count)]
    for start in range(count - window + 1):
        coarse, expression = networks(frames.part(start, start + window))
        for place in range(window):
            codes = {
                **{f"c.{k}": v for k, v in vars(coarse).items()},
                **{f"e.{k}": v for k, v in vars(expression).items()},
            }
            answers[start + place].append({name: values[0, place] for name, values in codes.items()})
    merged = {
        name: torch.stack([torch.stack([a[name] for a in frame]).mean(0) for frame in answers])
        for name in answers[0][0]
        if name != "c.rotation"
    }
    rotations = [
        Rotation.from_matrix(torch.stack([a["c.rotation"] for a in f]).numpy()).mean() for f in answers
    ]
    merged["c.rotation"] = torch.stack([torch.from_numpy(rotation.as_matrix()) for rotation in rotations])
    return merged, [len(frame) for frame in answers]


@pytest.mark.parametrize("count", [1, 7, 8, 9, 30])
@torch.no_grad()
def test_averaged_windows_equal_a_naive_average(count):
    networks = small_networks(window=8)
    frames = some_frames(1, count)
    frames.seen[:, 3:6] = False
    frames.heard[:, 20:] = False
    coarse, expression = predict(networks, frames)
    wanted, windows = one_window_after_the_other(networks, frames)
    if count == 30:
        assert windows[:3] == [1, 2, 3]
        assert set(windows[7:23]) == {8}
    for prefix, code in (("c.", coarse), ("e.", expression)):
        for name, values in vars(code).items():
            assert values.shape[:2] == (1, count)
            assert_close(values[0].double(), wanted[prefix + name].double(), atol=2e-5, rtol=1e-4, msg=name)


def test_averaged_rotations_are_rotations():
    coarse, _ = predict(small_networks(window=8), some_frames(2, 20))
    assert_close(
        coarse.rotation @ coarse.rotation.transpose(-1, -2),
        torch.eye(3).expand(2, 20, 3, 3),
        atol=1e-5,
        rtol=0,
    )
    assert (torch.linalg.det(coarse.rotation) > 0.999).all()


@pytest.mark.parametrize("block", [1, 5, 1000])
def test_the_block_size_does_not_matter(block):
    networks, frames = small_networks(window=8), some_frames(2, 21)
    for one, other in zip(predict(networks, frames), predict(networks, frames, block=block), strict=True):
        for name, values in vars(one).items():
            assert_close(vars(other)[name], values, atol=1e-5, rtol=1e-5)


def test_clips_of_a_batch_are_independent():
    networks, frames = small_networks(window=8), some_frames(2, 20)
    changed = some_frames(2, 20)
    changed.landmarks[1] += 0.3
    before, after = predict(networks, frames)[1].vector(), predict(networks, changed)[1].vector()
    assert_close(after[0], before[0])
    assert not torch.allclose(after[1], before[1])


def test_frames_depend_on_one_window_either_side_alone():
    networks, frames = small_networks(window=8), some_frames(1, 40)
    changed = some_frames(1, 40)
    changed.landmarks[:, 20] += 0.3
    change = (predict(networks, changed)[1].vector() - predict(networks, frames)[1].vector()).abs().amax(2)[0]
    assert (change[13:28] > 0).any()
    assert (change[:13] == 0).all()
    assert (change[28:] == 0).all()


def test_each_frame_is_encoded_once_and_in_blocks():
    networks, frames = small_networks(window=8), some_frames(1, 50)
    sizes = {}
    for branch in ("coarse", "expression"):
        encoder = getattr(networks, branch).video
        sizes[branch] = []
        encoder.register_forward_pre_hook(
            lambda module, inputs, branch=branch: sizes[branch].append(inputs[0].count)
        )
    predict(networks, frames, block=12)
    assert sizes == {"coarse": [12, 12, 12, 12, 2], "expression": [12, 12, 12, 12, 2]}


def test_windows_are_processed_in_blocks():
    networks, frames = small_networks(window=8), some_frames(2, 50)
    sizes = []
    networks.expression.temporal.register_forward_pre_hook(
        lambda module, inputs: sizes.append(len(inputs[0]))
    )
    predict(networks, frames, block=10)
    assert max(sizes) == 10
    assert sum(sizes) == 2 * 43


def test_a_clip_in_parts_gives_the_same():
    networks, frames = small_networks(window=8), some_frames(1, 30)
    pieces = (embed(networks, frames.part(start, start + 11)) for start in range(0, 30, 11))
    joined = read_windows(networks, join(pieces))
    for one, other in zip(predict(networks, frames), joined, strict=True):
        for name, values in vars(one).items():
            assert_close(vars(other)[name], values)


def test_expressions_can_be_read_from_some_of_the_windows():
    networks, frames = small_networks(window=8), some_frames(1, 30)
    embeddings = embed(networks, frames)
    count: list[int] = []
    networks.expression.temporal.register_forward_pre_hook(
        lambda module, inputs: count.append(len(inputs[0]))
    )
    some = read_expression(networks, embeddings, step=7)
    assert sum(count) == 5, "windows begin at 0, 7, 14, 21 and 22"
    first = networks.expression.read(embeddings.expression[:, :8]).expression[:, :7]
    assert_close(some.expression[:, :7], first)
    every = read_expression(networks, embeddings)
    assert_close(every.expression, predict(networks, frames)[1].expression)


def test_features_without_sound_are_those_of_silent_frames():
    branch, frames = small_networks().expression, some_frames(2, 9)
    torch.nn.init.normal_(branch.unheard)
    silent = replace(frames, heard=torch.zeros_like(frames.heard))
    assert_close(branch.without_audio(branch.embed(frames)), branch.embed(silent))


def test_networks_in_training_are_refused():
    with pytest.raises(ValueError, match="eval"):
        predict(small_networks().train(), some_frames(1, 4))


def test_predictions_hold_no_gradients():
    coarse, expression = predict(small_networks(), some_frames(1, 4))
    assert not any(values.requires_grad for values in [*vars(coarse).values(), *vars(expression).values()])
