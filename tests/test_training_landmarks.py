import numpy as np
import pytest

from avface.errors import AvfaceError
from avface.networks.landmark_correction import (
    LANDMARKS,
    LandmarkConfig,
    LandmarkNetwork,
    Layout,
    load_landmark_network,
)
from avface.tracking.aligned_crops import FACE_SIZE, SIDE, aligned_crop, crop_matrix, to_crop
from avface.training.landmarks.train import (
    LandmarkRecipe,
    LandmarkTraining,
    Looks,
    errors,
    mean_points,
    train,
)
from avface.training.landmarks.views import LandmarkViews, LandmarkViewsConfig, spoilt, warped

SMALL = LandmarkConfig(side=24, channels=(6, 8, 8), reduced=4, hidden=16, described=2, components=2)


def made_views(people, each=4, seed=0):
    """Faces that are nothing but dark spots at true landmarks; the tracker errs in two ways, the same for a person."""
    rng = np.random.default_rng(seed)
    rest = mean_points()[:, :2] * [1000, -1000] + [96, 96]
    ways = np.stack([rest - rest.mean(0), (rest - rest.mean(0)) * [1, -1]]) / 100
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    pictures, tracked, true, person = [], [], [], []
    for number in range(people * each):
        image = np.full((SIDE, SIDE), 200.0)
        for place in rest[[33, 263, 1, 61, 291, 152, 10]]:
            image -= 150 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / 40)
        image = np.repeat(image.clip(0, 255).astype(np.uint8)[..., None], 3, 2)
        found = rest + np.tensordot(rng.normal(0, 6, 2), ways, 1)
        matrix = crop_matrix(found)
        pictures.append(aligned_crop(image, matrix))
        tracked.append(to_crop(matrix, found))
        true.append(to_crop(matrix, rest))
        person.append(number // each)
    return LandmarkViews(
        np.stack(pictures), np.stack(tracked), np.stack(true), np.array(person), np.zeros(len(person), bool)
    )


@pytest.fixture(scope="module")
def views():
    return made_views(60)


def test_training_finds_how_far_landmarks_are_off_for_other_people(views, tmp_path):
    recipe = LandmarkRecipe(
        network=SMALL, views=LandmarkViewsConfig(people=50), steps=150, batch=24, moved=0.0, covered=0.0,
        averaging=0.9, warm_up=10, learning_rate=5e-3,
    )  # fmt: skip
    training = LandmarkTraining(tmp_path / "landmarks.safetensors", recipe)
    training.views.mkdir()
    views.save(training.views / "00000-00050.npz")
    network = train(training)
    others = made_views(10, seed=1)
    before, after = errors(network, Looks(network, others, recipe), np.arange(len(others)))
    assert after < 0.6 * before
    again = load_landmark_network(training.out)
    offsets = again.refine(others.pictures, others.tracked)[:, :LANDMARKS]
    left = np.linalg.norm(
        (others.tracked + np.pad(offsets, ((0, 0), (0, 10), (0, 0))) - others.true)[:, :LANDMARKS], axis=2
    )
    assert left.mean() < 0.7 * before * FACE_SIZE / 100


def test_a_mirrored_view_errs_alike(views):
    network = LandmarkNetwork(SMALL, Layout.of(mean_points(), SMALL.side))
    looks = Looks(network, views, LandmarkRecipe(network=SMALL))
    tracked, true = looks._mirrored(views.tracked[0], views.true[0])
    before, after = ((b - a)[:LANDMARKS] for a, b in ((views.tracked[0], views.true[0]), (tracked, true)))
    np.testing.assert_allclose(
        np.linalg.norm(before, axis=1).mean(), np.linalg.norm(after, axis=1).mean(), rtol=1e-4
    )
    # the mirror image of a nearly even face is nearly that face
    np.testing.assert_allclose(tracked[:LANDMARKS], views.tracked[0, :LANDMARKS], atol=0.03 * FACE_SIZE)


def test_a_warp_takes_the_landmarks_along():
    rng = np.random.default_rng(0)
    points = rng.uniform(60, 190, (478, 2))
    x, y = np.meshgrid(np.arange(256), np.arange(256))
    for place in points[:5]:
        spot = 255 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / 18)
        image = np.repeat(spot.astype(np.uint8)[..., None], 3, 2)
        moved, there = warped(image, points, rng)
        value = moved[..., 0].astype(float)
        centre = np.array([(x * value).sum(), (y * value).sum()]) / value.sum()
        assert np.abs(there - points).mean() > 0.5
        np.testing.assert_allclose(centre, there[np.flatnonzero((points == place).all(1))[0]], atol=0.5)


def test_spoilt_pictures_keep_their_size():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)
    for _ in range(20):
        other = spoilt(image, rng)
        assert other.shape == image.shape and other.dtype == np.uint8


def test_damaged_views_and_too_few_are_refused(tmp_path):
    path = tmp_path / "00000-00050.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(AvfaceError, match="00000-00050"):
        LandmarkViews.load([path])
    few = made_views(1, each=2)
    network = LandmarkNetwork(SMALL, Layout.of(mean_points(), SMALL.side))
    many = LandmarkNetwork(LandmarkConfig(**{**vars(SMALL), "components": 5}), network.layout)
    with pytest.raises(AvfaceError, match="too few"):
        Looks(many, few, LandmarkRecipe(network=many.config)).learn_components(np.arange(2))


@pytest.mark.parametrize("wrong", [{"people": 0}, {"warps": -1}])
def test_impossible_choices_are_refused(wrong):
    with pytest.raises(AvfaceError):
        LandmarkViewsConfig(**wrong)
