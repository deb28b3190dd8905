"""Light, background and sensor of synthetic pictures."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from avface.geometry.shading import sh_basis
from avface.synthetic.rendering.backdrop import sample_backdrop
from avface.synthetic.rendering.light import sample_light
from avface.synthetic.rendering.sensor import Sensor, linear_light, sample_sensor, srgb

SEEDS = range(25)
PLAIN = Sensor(
    exposure=1.0,
    white_balance=(1.0, 1.0, 1.0),
    contrast=0.0,
    blur=0.05,
    shot_noise=0.0,
    read_noise=0.0,
    vignette=0.0,
    quality=20,
)


def rng(seed):
    return np.random.default_rng(seed)


def noise():
    return torch.Generator().manual_seed(0)


def test_a_white_surface_that_faces_the_camera_reflects_about_one():
    for seed in SEEDS:
        light = sample_light(rng(seed))
        front = torch.tensor([[0.0, 0.2, 0.98]])
        ambient = (sh_basis(front).numpy() @ light.harmonics).mean()
        lamps = (light.colours.mean(1) * light.directions[:, 2].clip(0)).sum()
        assert 0.3 < ambient + lamps < 1.2, seed


def test_ambient_light_is_almost_nowhere_negative():
    sphere = torch.nn.functional.normalize(torch.randn(500, 3, generator=noise()), dim=1)
    for seed in SEEDS:
        light = sh_basis(sphere).numpy() @ sample_light(rng(seed)).harmonics
        assert light.min() > -0.15 * light.max(), seed


def test_lamps_are_unit_directions_with_positive_colours_and_differ_in_number():
    lights = [sample_light(rng(seed)) for seed in SEEDS]
    for light in lights:
        np.testing.assert_allclose(np.linalg.norm(light.directions, axis=1), 1, atol=1e-5)
        assert (light.colours >= 0).all()
    assert len({len(light.directions) for light in lights}) >= 3


def test_backdrops_are_finite_differ_and_repeat_by_seed():
    pictures = [sample_backdrop(rng(seed), 48, 64) for seed in SEEDS]
    for picture in pictures:
        assert picture.shape == (48, 64, 3) and picture.dtype == np.float32
        assert (picture >= 0).all() and (picture <= 1.5).all()
    np.testing.assert_array_equal(pictures[3], sample_backdrop(rng(3), 48, 64))
    means = np.array([picture.mean() for picture in pictures])
    assert means.std() > 0.03, "all walls alike"


def test_srgb_and_linear_are_inverse_and_meet_known_values():
    value = torch.linspace(0, 1, 101)
    torch.testing.assert_close(srgb(torch.from_numpy(linear_light(value))), value, rtol=0, atol=1e-6)
    assert float(srgb(torch.tensor(0.2140))) == pytest.approx(0.5, abs=1e-3)  # middle grey


def test_a_plain_sensor_gives_the_srgb_values_of_the_light():
    light = torch.rand(2, 8, 8, 3, generator=noise())
    assert (PLAIN.develop(light, noise()).int() - (srgb(light) * 255).round().int()).abs().max() <= 1


def test_blur_spreads_a_point_and_keeps_its_light():
    light = torch.zeros(1, 41, 41, 3)
    light[0, 20, 20] = 1.0

    blurred = replace(PLAIN, blur=2.0, exposure=20.0).develop(light, noise())
    value = torch.from_numpy(linear_light(blurred / 255)) / 20
    rows = torch.arange(41.0) - 20
    total = value[0, ..., 0].sum()
    assert float(total) == pytest.approx(1, abs=0.03)
    assert float((value[0, ..., 0].sum(1) * rows**2).sum() / total) ** 0.5 == pytest.approx(2.0, abs=0.15)


def test_noise_has_the_given_variance_and_repeats_by_seed():

    noisy = replace(PLAIN, shot_noise=0.002, read_noise=0.01)
    grey = torch.full((1, 200, 200, 3), 0.5)
    first = noisy.develop(grey, noise())
    light = linear_light(first / 255)
    assert float(light.std()) == pytest.approx((0.002 * 0.5 + 0.01**2) ** 0.5, rel=0.1)
    assert torch.equal(first, noisy.develop(grey, noise()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"exposure": -1.0}, "exposure=-1.0 must not be negative"),
        ({"blur": float("nan")}, "blur=nan must not be negative"),
        ({"shot_noise": -1e-3}, "shot_noise=-0.001 must not be negative"),
        ({"read_noise": -1.0}, "read_noise=-1.0 must not be negative"),
        ({"contrast": -0.5}, "contrast=-0.5 must not be negative"),
        ({"vignette": 1.5}, "vignette=1.5 must be from 0 to 1"),
        ({"quality": 60}, "quality=60 must be from 0 to 51"),
    ],
)
def test_impossible_sensors_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(PLAIN, **settings)


def test_vignetting_darkens_the_corners_by_its_share():
    light = torch.full((1, 33, 33, 3), 0.5)
    value = torch.from_numpy(linear_light(replace(PLAIN, vignette=0.3).develop(light, noise()) / 255))
    assert float(value[0, 16, 16, 0]) == pytest.approx(0.5, abs=0.01)
    assert float(value[0, 0, 0, 0]) == pytest.approx(0.5 * 0.7, abs=0.01)
    assert float(value[0, 16, 0, 0]) == pytest.approx(0.5 * 0.85, abs=0.01)


def test_frames_have_the_same_noise_one_by_one_as_together():
    sensor = sample_sensor(rng(4))
    light = torch.rand(3, 16, 16, 3, generator=noise())
    together, alone = noise(), noise()
    one_by_one = [sensor.develop(light[k : k + 1], alone) for k in range(3)]
    assert torch.equal(sensor.develop(light, together), torch.cat(one_by_one))
