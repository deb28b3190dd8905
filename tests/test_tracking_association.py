import numpy as np
import pytest

from avface.tracking.association import Candidate, Expected, associate, without_duplicates
from avface.tracking.facemesh import Face
from avface.tracking.reidentification import (
    NUM_PATCHES,
    STABLE_LANDMARKS,
    AppearanceDescriptor,
    align,
    describe,
    distances,
    merge,
    similarity,
)


def descriptor(seed, noise=0.0, noise_seed=0):
    rng, shake = np.random.default_rng(seed), np.random.default_rng(noise_seed)
    shape = rng.normal(size=(len(STABLE_LANDMARKS), 3)).astype(np.float32)
    shape -= shape.mean(axis=0)
    shape /= np.sqrt(np.mean(np.sum(shape**2, axis=1)))
    colour = rng.uniform(0.2, 0.8, (NUM_PATCHES, 3)).astype(np.float32)
    shape = shape + noise * shake.normal(size=shape.shape).astype(np.float32)
    return AppearanceDescriptor(shape, colour + noise * shake.normal(size=colour.shape).astype(np.float32))


def rotation(axis, angle):
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return (np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k).astype(np.float32)


def assigned(paths, *, occluded=(), with_descriptors=True):
    """Associate two people along paths (2, T) of their centres; returns the assigned person by person, per frame."""
    people = [descriptor(1), descriptor(2)]
    size = 100.0
    last = [(float(path[0]), 0.0) for path in paths]
    velocity, missing = [0.0, 0.0], [0, 0]
    history = []
    for frame in range(1, paths.shape[1]):
        seen = [n for n in (0, 1) if (n, frame) not in occluded]
        if frame % 2:
            seen = seen[::-1]  # the order of detections must not matter
        candidates = [
            Candidate(
                (float(paths[n, frame]), 0.0),
                size,
                descriptor(n + 1, 0.01, frame) if with_descriptors else None,
            )
            for n in seen
        ]
        expected = [
            Expected(
                (last[n][0] + velocity[n] * (missing[n] + 1), 0.0),
                size,
                people[n] if with_descriptors else None,
                missing[n],
            )
            for n in (0, 1)
        ]
        owners = associate(expected, candidates)
        history.append({n: owner for n, owner in zip(seen, owners, strict=True)})
        missing = [count + 1 for count in missing]
        for candidate, owner in zip(candidates, owners, strict=True):
            if owner is not None:
                velocity[owner] = (candidate.centre[0] - last[owner][0]) / missing[owner]
                last[owner], missing[owner] = candidate.centre, 0
    return history


def swaps(history):
    return sum(owner is not None and owner != n for frame in history for n, owner in frame.items())


def test_two_faces_that_cross_are_not_swapped_when_one_occludes_the_other():
    t = np.linspace(0, 1, 41)
    paths = np.stack([600 * t, 600 * (1 - t)])
    behind = {(1, frame) for frame in range(17, 24)}

    history = assigned(paths, occluded=behind)
    assert swaps(history) == 0
    assert all(owner is not None for frame in history for owner in frame.values())


def test_appearance_separates_two_people_who_meet_and_turn_back():
    # By position and velocity alone they seem to pass each other.
    t = np.linspace(-1, 1, 41)
    near = 300 - 5 - 250 * np.abs(t)
    paths = np.stack([near, 600 - near])

    assert swaps(assigned(paths)) == 0
    assert swaps(assigned(paths, occluded={(1, 19), (1, 20), (1, 21)})) == 0
    assert swaps(assigned(paths, with_descriptors=False)) > 0


def test_another_person_elsewhere_is_not_assigned():
    person = Expected((100.0, 100.0), 80.0, descriptor(1))
    assert associate([person], [Candidate((500.0, 300.0), 80.0, descriptor(2))]) == [None]


def test_a_known_face_elsewhere_in_the_image_is_assigned():
    person = Expected((100.0, 100.0), 80.0, descriptor(1))
    assert associate([person], [Candidate((500.0, 300.0), 80.0, descriptor(1, 0.01))]) == [0]


def test_an_outlier_in_place_is_assigned():
    person = Expected((100.0, 100.0), 80.0, descriptor(1))
    assert associate([person], [Candidate((103.0, 99.0), 81.0, descriptor(2))]) == [0]


def test_nobody_and_nothing_to_assign():
    assert associate([], []) == []
    assert associate([Expected((0.0, 0.0), 10.0)], []) == []
    assert associate([], [Candidate((0.0, 0.0), 10.0)]) == [None]


def test_two_regions_that_lead_to_one_face_count_once():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 100, (478, 3)).astype(np.float32)
    same = Face(points + np.float32(3), 1.0)
    beside = Face(points + np.array([60, 0, 0], np.float32), 1.0)
    assert without_duplicates([Face(points, 1.0), same, beside]) == [0, 2]


def test_similarity_does_not_depend_on_head_pose_or_exposure():
    one = descriptor(1)
    brighter = one.colour + np.array([0.1, 0, 0], np.float32)
    turned = AppearanceDescriptor((one.shape @ rotation([1, 2, 0.5], 0.7)).astype(np.float32), brighter)
    shape, colour = distances(one, turned)
    assert shape < 1e-4
    assert colour < 1e-4
    assert similarity(one, turned) > 0.99
    assert similarity(one, descriptor(2)) < 0.01


def test_alignment_undoes_a_rotation_and_no_reflection():
    shape = descriptor(1).shape
    turned = (shape @ rotation([1, 2, 0.5], 0.7)).astype(np.float32)
    np.testing.assert_allclose(align(turned, shape), shape, atol=1e-5)
    mirrored = shape * np.array([-1, 1, 1], np.float32)
    found = align(mirrored, shape)
    assert np.abs(found - shape).max() > 0.5
    np.testing.assert_allclose(found @ found.T, mirrored @ mirrored.T, atol=1e-4)


def test_similarity_is_symmetric():
    one, other = descriptor(1), descriptor(1, 0.05, 3)
    assert similarity(one, other) == pytest.approx(similarity(other, one), abs=1e-3)


def test_merging_descriptors_reduces_noise():
    truth = descriptor(1)
    mean = descriptor(1, 0.1, 10)
    single = distances(truth, mean)
    for n in range(11, 30):
        mean = merge(mean, descriptor(1, 0.1, n))
    averaged = distances(truth, mean)
    assert mean.count == 20
    assert averaged[0] < 0.4 * single[0]
    assert averaged[1] < 0.4 * single[1]


def test_patches_outside_the_image_are_left_out():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (120, 120, 3)).astype(np.uint8)
    points = rng.uniform(-60, 110, (478, 3)).astype(np.float32)
    found = describe(image, points)
    assert found.shape.shape == (len(STABLE_LANDMARKS), 3)
    assert np.isfinite(found.shape).all()
    outside = describe(image, points + np.array([500, 500, 0], np.float32))
    assert np.isnan(outside.colour).all()
    assert 0 <= similarity(found, outside) <= 1
    np.testing.assert_array_equal(merge(outside, found).colour, found.colour)
