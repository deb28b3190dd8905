"""Which tracklets are one person."""

import numpy as np
import pytest

from avface.tracking.facemesh import Face
from avface.tracking.people import group_people
from avface.tracking.reidentification import NUM_PATCHES, STABLE_LANDMARKS, AppearanceDescriptor, similarity
from avface.tracking.tracklet import Tracklet

TIMES = np.arange(400) / 25
SHAPE = np.random.default_rng(0).normal(size=(len(STABLE_LANDMARKS), 3)).astype(np.float32)
SHAPE = (SHAPE - SHAPE.mean(0)) / np.sqrt(((SHAPE - SHAPE.mean(0)) ** 2).sum(1).mean())


def descriptor(colour):
    return AppearanceDescriptor(SHAPE, np.tile(np.float32([0, colour, 0]), (NUM_PATCHES, 1)), 10)


ALIKE, DOUBTFUL, OTHER = descriptor(0.0), descriptor(0.12), descriptor(0.3)


def tracklet(number, start, end, segment, look=ALIKE, centre=(200.0, 150.0), size=100.0):
    landmarks = np.zeros((478, 3), np.float32)
    landmarks[:, :2] = np.random.default_rng(1).uniform(-0.5, 0.5, (478, 2)) * size + centre
    landmarks[0, :2], landmarks[1, :2] = np.subtract(centre, size / 2), np.add(centre, size / 2)
    face = Face(landmarks, 1.0)
    made = Tracklet(number, segment, start, face, face.centre, face.size, look)
    made.end, made.frames, made.prominence = end, end - start + 1, float(end - start + 1)
    return made


def people(*tracklets):
    """Numbers of the tracklets of each person."""
    return sorted(sorted(one.number for one in person) for person in group_people(list(tracklets), TIMES))


def test_the_looks_are_what_the_tests_need():
    assert similarity(ALIKE, ALIKE) > 0.9
    assert 0.03 < similarity(ALIKE, DOUBTFUL) < 0.4
    assert similarity(ALIKE, OTHER) < 1e-3


def test_a_face_that_reappears_in_its_place_after_a_cover_of_the_whole_picture_is_the_same_persons():
    before, after = tracklet(0, 0, 30, 0), tracklet(1, 45, 90, 2, DOUBTFUL, (210.0, 155.0), 95.0)
    assert people(before, after) == [[0, 1]]


@pytest.mark.parametrize(
    "after",
    [
        tracklet(1, 45, 90, 2, OTHER),
        tracklet(1, 45, 90, 2, DOUBTFUL, centre=(260.0, 150.0)),
        tracklet(1, 45, 90, 2, DOUBTFUL, size=140.0),
        tracklet(1, 100, 190, 2, DOUBTFUL),
    ],
    ids=["looks different", "elsewhere", "of another size", "too late"],
)
def test_after_a_cut_a_doubtful_face_needs_place_size_and_time(after):
    assert people(tracklet(0, 0, 30, 0), after) == [[0], [1]]


def test_after_a_cut_to_somebody_else_a_doubtful_face_is_nobody_known():
    before, after = tracklet(0, 0, 30, 0), tracklet(3, 45, 90, 2, DOUBTFUL)
    somebody = tracklet(2, 33, 43, 1, OTHER, (60.0, 60.0))
    assert people(before, somebody, after) == [[0], [2], [3]]
    glimpse = tracklet(2, 33, 34, 1, OTHER, (60.0, 60.0))  # a face seen on the hand
    assert people(before, glimpse, after) == [[0, 3], [2]]


def test_within_a_shot_a_face_may_reappear_farther_away():
    after = tracklet(1, 45, 90, 0, DOUBTFUL, (300.0, 150.0), 130.0)
    assert people(tracklet(0, 0, 30, 0), after) == [[0, 1]]


def test_faces_seen_at_once_are_two_people():
    assert people(tracklet(0, 0, 30, 0), tracklet(1, 30, 60, 0)) == [[0], [1]]
