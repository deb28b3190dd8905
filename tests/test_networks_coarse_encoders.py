"""Video and audio encoders and the two branches: shapes, dependencies, missing sound and picture."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks_frames import landmark_networks, small_networks, some_frames
from torch import nn
from torch.testing import assert_close

from avface.errors import AvfaceError
from avface.networks.audio import AudioConfig, AudioNet
from avface.networks.coarse.codes import FLAME_CODE
from avface.networks.coarse.encoders import CoarseConfig, CoarseEncoder, ExpressionConfig, drop_modalities
from avface.networks.coarse.model import NetworkConfig
from avface.networks.coarse.temporal import TemporalConfig, TemporalEncoder
from avface.networks.coarse.video import (
    CONTOURS,
    LandmarksConfig,
    LandmarksEncoder,
    ResNetConfig,
    make_video_encoder,
)
from avface.networks.resnet import ResNet50


@pytest.fixture(autouse=True)
def seeded():
    """Makes draws of torch reproducible."""
    torch.manual_seed(0)


def torchvision_names():
    """The names in torchvision's resnet50 without its classifier, from the paper's table."""

    def norm(name):
        return [
            f"{name}.{part}"
            for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        ]

    names = ["conv1.weight", *norm("bn1")]
    for layer, count in enumerate((3, 4, 6, 3), 1):
        for block in range(count):
            where = f"layer{layer}.{block}"
            for part in (1, 2, 3):
                names += [f"{where}.conv{part}.weight", *norm(f"{where}.bn{part}")]
            if block == 0:
                names += [f"{where}.downsample.0.weight", *norm(f"{where}.downsample.1")]
    return names


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return ResNet50().eval()


def test_resnet_has_torchvisions_names_sizes_and_order(resnet):
    state = resnet.state_dict()
    assert list(state) == torchvision_names()
    assert len(state) == 318
    assert not any(name.startswith("fc") for name in state)
    shapes = {
        "conv1.weight": (64, 3, 7, 7),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer2.0.conv2.weight": (128, 128, 3, 3),
        "layer3.5.conv3.weight": (1024, 256, 1, 1),
        "layer4.2.bn3.running_var": (2048,),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert (
        sum(p.numel() for p in resnet.parameters()) == 25_557_032 - 2_049_000
    )  # known size less the classifier


def test_resnet_halves_five_times_with_the_stride_on_the_3x3(resnet):
    assert resnet.layer2[0].conv1.stride == (1, 1)
    assert resnet.layer2[0].conv2.stride == (2, 2)
    seen = []
    handle = resnet.layer4.register_forward_hook(lambda module, inputs, out: seen.append(out.shape))
    assert resnet(torch.rand(1, 3, 64, 64)).shape == (1, 2048)
    handle.remove()
    assert seen == [(1, 2048, 2, 2)]


def test_a_block_adds_its_short_cut(resnet):
    block = resnet.layer1[1]
    old = block.bn3.weight.detach().clone()
    with torch.no_grad():
        block.bn3.weight.zero_()
        maps = torch.rand(1, 256, 4, 4)
        assert_close(block(maps), maps)
        block.bn3.weight.copy_(old)


def test_resnet_encoder_takes_bytes_or_numbers_and_leaves_imagenets_mean_in(resnet):
    encoder = make_video_encoder(ResNetConfig(hidden=(32,)), 12).eval()
    encoder.backbone = resnet
    images = torch.randint(0, 256, (1, 2, 3, 32, 32), dtype=torch.uint8)
    frames = some_frames(1, 2, images=images)
    with torch.no_grad():
        embedded = encoder(frames)
        assert embedded.shape == (1, 2, 12)
        assert_close(encoder(replace(frames, images=images / 255)), embedded)
        handed = []
        handle = resnet.register_forward_pre_hook(lambda module, inputs: handed.append(inputs[0]))
        encoder(frames)
        handle.remove()
    assert_close(handed[0], (images / 255)[0])


def test_imagenets_mean_becomes_zero(resnet):
    encoder = make_video_encoder(ResNetConfig(imagenet_normalised=True), 4).eval()
    encoder.backbone = resnet
    grey = torch.tensor([0.485, 0.456, 0.406]).view(1, 1, 3, 1, 1).expand(1, 1, 3, 32, 32)
    handed = []
    handle = resnet.register_forward_pre_hook(lambda module, inputs: handed.append(inputs[0]))
    with torch.no_grad():
        encoder(some_frames(1, 1, images=grey))
    handle.remove()
    assert handed[0].abs().max() < 1e-6


def test_missing_inputs_are_named():
    frames = some_frames(1, 2)
    with pytest.raises(ValueError, match="images"):
        make_video_encoder(ResNetConfig(), 4)(frames)
    for name in ("landmarks", "confidence", "visibility", "depth"):
        encoder = make_video_encoder(LandmarksConfig(visibility=True, depth=True), 4)
        with pytest.raises(ValueError, match=name):
            encoder(replace(frames, **{name: None}))


@pytest.mark.parametrize("points", ["all", "contours"])
@pytest.mark.parametrize("visibility", [False, True])
@pytest.mark.parametrize("depth", [False, True])
def test_landmarks_encoder_depends_on_its_points_and_no_others(points, visibility, depth):
    encoder = LandmarksEncoder(LandmarksConfig("landmarks", points, visibility, depth, (8,)), 5)
    nn.init.normal_(encoder.layers[0].weight)
    frames = some_frames(1, 3)
    before = encoder(frames)
    assert before.shape == (1, 3, 5)

    def changed(name, index):
        values = getattr(frames, name).clone()
        values[:, 1, index] += 0.5
        return (encoder(replace(frames, **{name: values})) - before).abs().amax((0, 2)).detach()

    inside, outside = 0, 100  # the upper lip's middle, and a point of the cheek
    assert 100 not in CONTOURS
    for name, used in (("landmarks", True), ("visibility", visibility), ("depth", depth)):
        difference = changed(name, inside)
        assert difference[0] == difference[2] == 0, "each frame by itself"
        assert (difference[1] > 0) == used
        assert (changed(name, outside)[1] > 0) == (used and points == "all")


def test_landmarks_encoder_depends_on_confidence_and_crop():
    encoder = LandmarksEncoder(LandmarksConfig(hidden=(8,)), 5)
    frames = some_frames(1, 3)
    before = encoder(frames)
    surer = replace(frames, confidence=frames.confidence + 0.3)
    moved = replace(frames, crop=replace(frames.crop, box=frames.crop.box + 50))
    for other in (surer, moved):
        assert (encoder(other) - before).abs().amax() > 1e-4


def test_standardised_numbers_have_mean_0_and_deviation_1():
    encoder = LandmarksEncoder(LandmarksConfig(hidden=(8,)), 5)
    frames = some_frames(4, 16)
    frames.landmarks[:, :, 7] = 0.25  # a point that never moves
    frames.seen[0, :8] = False
    frames.landmarks[0, :8] = torch.nan
    encoder.standardise(frames)
    handed = []
    encoder.layers.register_forward_pre_hook(lambda module, inputs: handed.append(inputs[0]))
    encoder(frames)
    features = handed[0][frames.seen]
    assert features.mean(0).abs().max() < 1e-5
    deviation = features.std(0, correction=0)
    assert_close(deviation[deviation > 0], torch.ones(int((deviation > 0).sum())), atol=1e-3, rtol=0)
    assert int((deviation == 0).sum()) == 2
    assert (handed[0][0, :8] == 0).all(), "frames without a face give zeros, not nan"


def test_invisible_points_have_the_mean_of_the_training_data():
    encoder = LandmarksEncoder(LandmarksConfig(visibility=True, hidden=(8,)), 5)
    frames = some_frames(2, 16)
    encoder.standardise(frames)
    hidden = frames.visibility.clone()
    hidden[..., :100] = 0
    frames = replace(frames, visibility=hidden)
    elsewhere = frames.landmarks.clone()
    elsewhere[..., :100, :] += 0.2
    assert_close(encoder(frames), encoder(replace(frames, landmarks=elsewhere)))


def test_points_far_out_of_range_are_clamped():
    encoder = LandmarksEncoder(LandmarksConfig(hidden=(8,)), 5)
    frames = some_frames(1, 4)
    assert encoder(replace(frames, landmarks=1e6 * frames.landmarks)).abs().max() < 1e3


@pytest.mark.parametrize("width", [29, 80, 768])
def test_audio_net_takes_every_kind_of_features(width):
    net = AudioNet(AudioConfig(width=width), 64)
    assert net(torch.rand(2, 5, 16, width)).shape == (2, 5, 64)


def test_audio_net_is_ad_nerfs():
    net = AudioNet(AudioConfig(), 64)
    layers = [m for m in net.modules() if isinstance(m, nn.Conv1d)]
    assert [(c.in_channels, c.out_channels) for c in layers] == [(29, 32), (32, 32), (32, 64), (64, 64)]
    assert {(c.kernel_size, c.stride, c.padding) for c in layers} == {((3,), (2,), (1,))}
    assert sum(p.numel() for p in net.parameters()) == 2816 + 3104 + 6208 + 12352 + 2 * 4160
    with pytest.raises(ValueError, match="16"):
        net(torch.rand(1, 1, 15, 29))


def test_every_row_of_the_sound_counts_and_order_matters():
    net = AudioNet(AudioConfig(), 64)
    rows = torch.rand(1, 1, 16, 29, requires_grad=True)
    net(rows).square().sum().backward()
    assert (rows.grad.abs().amax((0, 1, 3)) > 0).all()
    assert not torch.allclose(net(rows), net(rows.flip(2)))


@pytest.fixture(scope="module")
def temporal():
    torch.manual_seed(0)
    encoder = TemporalEncoder(TemporalConfig(8, 24, 2, 4, 32, (32,)), 10, 6).eval()
    nn.init.normal_(encoder.projection[-1].weight)
    nn.init.normal_(encoder.positions)
    return encoder


def test_clips_of_a_batch_are_independent(temporal):
    windows = torch.randn(3, 8, 10)
    before = temporal(windows)
    changed = windows.clone()
    changed[1] += 1
    after = temporal(changed)
    assert_close(after[[0, 2]], before[[0, 2]])
    assert (after[1] - before[1]).abs().min(1).values.max() > 1e-4
    assert_close(temporal(windows[[2, 0, 1]]), before[[2, 0, 1]])


def test_every_frame_of_a_window_depends_on_every_other(temporal):
    window = torch.randn(1, 8, 10, requires_grad=True)
    for frame in (0, 7):  # both the past and the future
        (gradient,) = torch.autograd.grad(temporal(window)[0, frame].square().sum(), window)
        assert (gradient.abs().amax(2) > 1e-7).all()


def test_positions_matter(temporal):
    window = torch.randn(1, 8, 10)
    assert not torch.allclose(temporal(window.flip(1)).flip(1), temporal(window), atol=1e-3)
    same = torch.randn(1, 1, 10).expand(1, 8, 10)
    assert (temporal(same).std(1) > 1e-3).any(), "equal frames differ by their place only"


def test_longer_windows_are_refused(temporal):
    assert temporal(torch.randn(1, 3, 10)).shape == (1, 3, 6)
    with pytest.raises(ValueError, match="9 frames"):
        temporal(torch.randn(1, 9, 10))


def test_the_papers_transformer_has_its_sizes():
    encoder = TemporalEncoder(TemporalConfig(), 183, 183)
    layers = encoder.transformer.layers
    assert len(layers) == 3
    assert (encoder.entry.in_features, encoder.entry.out_features) == (183, 192)
    for layer in layers:
        assert layer.self_attn.num_heads == 4
        assert layer.linear1.out_features == 256
        assert layer.dropout.p == layer.dropout1.p == layer.dropout2.p == layer.self_attn.dropout == 0
        assert not layer.norm_first
    linear = [m for m in encoder.projection if isinstance(m, nn.Linear)]
    assert [m.out_features for m in linear] == [256, 256, 183]
    assert [type(m) for m in encoder.projection] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert isinstance(TemporalEncoder(TemporalConfig(width=128), 128, 53).entry, nn.Identity)


def test_a_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(AvfaceError, match="width=183 must be a multiple of heads=4"):
        TemporalConfig(width=183)


def test_defaults_are_the_papers():
    config = NetworkConfig()
    assert config.coarse.embedding == config.code.coarse_width == 183
    assert config.expression.feature == 64
    assert config.window == 16
    assert (config.expression.audio_dropout, config.expression.video_dropout) == (0.4, 0.5)
    assert isinstance(config.coarse.video, ResNetConfig)
    assert config.expression.temporal.width == 128


def test_branches_of_different_windows_are_refused():
    with pytest.raises(AvfaceError, match="window=8 of one branch and 16"):
        replace(landmark_networks(), coarse=CoarseConfig(temporal=TemporalConfig(window=8)))


def test_codes_have_the_shapes_of_both_heads():
    coarse, expression = small_networks()(some_frames())
    assert coarse.shape.shape == (2, 16, 100)
    assert coarse.rotation.shape == (2, 16, 3, 3)
    assert coarse.camera.shape == (2, 16, 3)
    assert coarse.light.shape == (2, 16, 9, 3)
    assert expression.expression.shape == (2, 16, 52)
    assert expression.log_variance.shape == (2, 16, 6)
    coarse, expression = small_networks(code=FLAME_CODE)(some_frames())
    assert coarse.vector().shape == (2, 16, 183)
    assert expression.vector().shape == (2, 16, 53)


def test_mixed_precision_still_gives_exact_rotations():
    with torch.autocast("cpu", torch.bfloat16):
        coarse, expression = small_networks()(some_frames())
    assert {v.dtype for v in [*vars(coarse).values(), *vars(expression).values()]} == {torch.float32}
    assert_close(
        coarse.rotation @ coarse.rotation.transpose(-1, -2),
        torch.eye(3).expand(2, 16, 3, 3),
        atol=1e-5,
        rtol=0,
    )


def test_a_head_that_moves_with_its_crop_keeps_its_code():
    """The input of the ResNet is the crop alone, so that size and rotation in it don't depend on its position."""
    torch.manual_seed(0)
    config = CoarseConfig(ResNetConfig(), 8, TemporalConfig(4, 8, 1, 2, 8, (8,)))
    encoder = CoarseEncoder(config, landmark_networks().code).eval()
    frames = some_frames(1, 2, images=torch.rand(1, 2, 3, 32, 32))
    moved = replace(
        frames, crop=replace(frames.crop, box=frames.crop.box + torch.tensor([200.0, -100.0, 0.0]))
    )
    with torch.no_grad():
        here, there = encoder(frames), encoder(moved)
    assert_close(here.camera, there.camera)
    assert_close(
        frames.crop.axis_rotation.transpose(-1, -2) @ here.rotation,
        moved.crop.axis_rotation.transpose(-1, -2) @ there.rotation,
        atol=1e-5,
        rtol=0,
    )
    assert not torch.allclose(here.rotation, there.rotation, atol=1e-3)


def nothing(frames, name):
    return replace(frames, **{name: torch.zeros_like(getattr(frames, name))})


def test_without_sound_the_features_do_not_matter_and_nor_does_whether_there_are_any():
    branch = small_networks().expression
    frames = nothing(some_frames(), "heard")
    code = branch(frames).vector()
    assert_close(branch(replace(frames, speech=torch.full_like(frames.speech, torch.nan))).vector(), code)
    assert_close(branch(replace(frames, speech=None)).vector(), code)
    assert not torch.allclose(branch(some_frames()).vector(), code)


def test_without_picture_the_landmarks_do_not_matter_and_nor_does_whether_there_are_any():
    branch = small_networks().expression
    frames = nothing(some_frames(), "seen")
    code = branch(frames).vector()
    assert_close(
        branch(replace(frames, landmarks=torch.full_like(frames.landmarks, torch.nan))).vector(), code
    )
    assert_close(branch(replace(frames, landmarks=None, confidence=None)).vector(), code)
    assert not torch.allclose(branch(some_frames()).vector(), code)


def test_without_anything_codes_are_finite():
    frames = nothing(nothing(some_frames(), "seen"), "heard")
    frames = replace(frames, landmarks=torch.full_like(frames.landmarks, torch.nan))
    coarse, expression = small_networks()(frames)
    for values in [*vars(coarse).values(), *vars(expression).values()]:
        assert torch.isfinite(values).all()


def test_features_of_missing_inputs_are_initially_zero():
    torch.manual_seed(0)
    from avface.networks.coarse.encoders import ExpressionBranch

    branch = ExpressionBranch(replace(ExpressionConfig(), video=LandmarksConfig()), FLAME_CODE)
    features = branch.embed(nothing(some_frames(), "heard"))
    assert (features[..., :64] == 0).all()
    assert (features[..., 64:] != 0).any()
    features = branch.embed(nothing(some_frames(), "seen"))
    assert (features[..., 64:] == 0).all()
    assert (features[..., :64] != 0).any()


def test_missing_frames_leave_gradients_finite():
    networks = small_networks()
    frames = some_frames()
    frames.seen[:, 4:9] = False
    frames.landmarks[:, 4:9] = torch.nan
    frames.heard[0] = False
    frames.speech[0] = torch.nan
    coarse, expression = networks(frames)
    total = sum(v.sum() for v in [*vars(coarse).values(), *vars(expression).values()])
    total.backward()
    gradients = {name: p.grad for name, p in networks.named_parameters()}
    assert all(g is not None and torch.isfinite(g).all() for g in gradients.values())
    assert gradients["coarse.unseen"].abs().sum() > 0, "what stands for a hidden face is learned"
    assert gradients["expression.unheard"].abs().sum() > 0


def kinds(frames):
    names = {
        (True, True): "both",
        (True, False): "picture",
        (False, True): "sound",
        (False, False): "nothing",
    }
    pairs = zip(frames.seen.any(1).tolist(), frames.heard.any(1).tolist(), strict=True)
    return Counter(names[pair] for pair in pairs)


def test_modality_dropout_has_the_papers_shares_and_leaves_no_window_empty():
    windows = 20_000
    frames = replace(
        some_frames(1, 2), seen=torch.ones(windows, 2).bool(), heard=torch.ones(windows, 2).bool()
    )
    found = kinds(drop_modalities(frames, ExpressionConfig(), torch.Generator().manual_seed(0)))
    shares = {kind: count / windows for kind, count in found.items()}
    assert shares == pytest.approx({"picture": 0.4, "sound": 0.5, "both": 0.1}, abs=0.012)  # 3 sigma


def test_modality_dropout_takes_whole_windows_by_seed_and_nothing_else():
    frames = some_frames(64, 4)
    frames.seen[:, 2] = False
    one, same = (
        drop_modalities(frames, ExpressionConfig(), torch.Generator().manual_seed(5)) for _ in range(2)
    )
    other = drop_modalities(frames, ExpressionConfig(), torch.Generator().manual_seed(6))
    assert (one.seen == same.seen).all()
    assert (one.heard == same.heard).all()
    assert (one.seen != other.seen).any()
    assert set(map(tuple, one.seen.tolist())) == {(True, True, False, True), (False,) * 4}
    assert one.landmarks is frames.landmarks


def test_modality_dropout_never_takes_the_only_one():
    frames = some_frames(200, 4)
    frames.heard[:100] = False
    frames.seen[100:] = False
    dropped = drop_modalities(frames, ExpressionConfig(), torch.Generator().manual_seed(0))
    assert (dropped.seen == frames.seen).all()
    assert (dropped.heard == frames.heard).all()


@pytest.mark.parametrize("shares", [(0.6, 0.5), (-0.1, 0.5)])
def test_impossible_dropout_is_refused(shares):
    with pytest.raises(AvfaceError, match="add up to 1"):
        ExpressionConfig(audio_dropout=shares[0], video_dropout=shares[1])


def test_a_tiny_batch_can_be_overfitted():
    """Losses of all outputs on a tiny batch fall tenfold."""
    networks = small_networks().train()
    frames = some_frames(2, 8)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        goal_c, goal_e = small_networks(seed=9)(some_frames(2, 8, seed=4))
        goal = torch.rand(goal_e.expression.shape, generator=generator)
    optimiser = torch.optim.Adam(networks.parameters(), 5e-3)

    def losses():
        coarse, expression = networks(frames)
        return {
            "shape": (coarse.shape - goal_c.shape).square().mean(),
            "rotation": (coarse.rotation - goal_c.rotation).square().mean(),
            "camera": (coarse.camera - goal_c.camera).square().mean(),
            "light": (coarse.light - goal_c.light).square().mean(),
            "expression": (expression.expression - goal).square().mean(),
        }

    first = {name: value.item() for name, value in losses().items()}
    for _ in range(120):
        optimiser.zero_grad()
        sum(losses().values()).backward()
        optimiser.step()
    for name, value in losses().items():
        assert value.item() < first[name] / 10, f"{name} went from {first[name]:.4f} to {value.item():.4f}"


def test_contours_are_points_of_lips_lids_brows_irises_nose_and_outline():
    assert len(CONTOURS) == len(np.unique(CONTOURS)) == 154
    assert CONTOURS.max() < 478
