"""Frames in which the whole face is covered are unobserved; partly hidden, fast and lost faces stay what they were."""

from dataclasses import replace

import numpy as np
import pytest

from avface.tracking import FaceTrack, Segment
from avface.tracking.aligned_crops import SIDE, AlignedCrops
from avface.tracking.covered import MAX_GAP_SECONDS, set_aside_covered

FRAMES = 60
GAP = slice(20, 32)
"""Frames in which something covers the face."""


def places(seed=0):
    """A moving face, (T, 478, 2) pixels, 120 of them high."""
    rng = np.random.default_rng(seed)
    face = rng.uniform(0, 1, (478, 2)) * [100, 120]
    t = np.arange(FRAMES)[:, None, None]
    return (face + 200 + [1.5, 0.5] * t + 0.2 * rng.normal(size=(FRAMES, 478, 2))).astype(np.float32)


def made_track(landmarks, visible=None, confidence=None, cuts=(), persons=None, fps=25, crops=None):
    """A track whose landmarks have one visibility (T,) in each frame; nan landmarks are of lost frames."""
    visible = np.full(FRAMES, 0.95) if visible is None else np.asarray(visible, float)
    confidence = np.ones(FRAMES) if confidence is None else confidence
    seen = np.isfinite(landmarks).all((1, 2))
    edges = [0, *cuts, FRAMES]
    persons = [True] * (len(edges) - 1) if persons is None else persons
    return FaceTrack(
        landmarks=landmarks,
        depth=np.where(seen[:, None], np.zeros((FRAMES, 478), np.float32), np.nan),
        confidence=np.where(seen, confidence, 0).astype(np.float32),
        box=np.concatenate([landmarks.min(1), landmarks.max(1)], 1),
        times=np.arange(FRAMES) / fps,
        segments=tuple(
            Segment(start, end, person, 1.0 if person else np.nan)
            for start, end, person in zip(edges[:-1], edges[1:], persons, strict=True)
        ),
        image_size=(640, 480),
        visibility=np.repeat(np.where(seen, visible, 1)[:, None], 478, 1).astype(np.float32),
        aligned_crops=crops,
    )


def unobserved(track):
    """Numbers of the frames that are unobserved when covered ones are set aside."""
    return np.flatnonzero(~set_aside_covered(track).seen).tolist()


def test_a_clean_track_stays_as_it_is():
    track = made_track(places())
    assert set_aside_covered(track) is track


def test_a_face_on_the_hand_is_not_believed():
    landmarks = places()
    landmarks[GAP] += [60, -40]
    visible = np.full(FRAMES, 0.95)
    visible[GAP] = 0.1
    frames = np.array([3, 25, 50])
    crops = AlignedCrops(frames, np.zeros((3, SIDE, SIDE), np.uint8), landmarks[frames])
    found = set_aside_covered(made_track(landmarks, visible, crops=crops))
    gap = np.zeros(FRAMES, bool)
    gap[GAP] = True
    np.testing.assert_array_equal(found.covered, gap)
    np.testing.assert_array_equal(~found.seen, gap)
    for values in (found.landmarks, found.depth, found.box):
        np.testing.assert_array_equal(np.isnan(np.asarray(values)).reshape(FRAMES, -1).all(1), gap)
    assert (np.asarray(found.visibility)[gap] == 1).all()
    np.testing.assert_array_equal(np.asarray(found.landmarks)[~gap], landmarks[~gap])
    assert found.aligned_crops.frames.tolist() == [3, 50]
    covered = AlignedCrops(frames[1:2], np.zeros((1, SIDE, SIDE), np.uint8), landmarks[frames[1:2]])
    assert set_aside_covered(made_track(landmarks, visible, crops=covered)).aligned_crops is None


def test_landmarks_that_are_dragged_along_beside_a_gap_are_not_believed():
    """However well visible they are said to be: their velocity would carry the fit across the gap."""
    landmarks = places()
    landmarks[GAP] = np.nan
    landmarks[19] += [8, 0]
    landmarks[32] += [0, 9]
    landmarks[33] += [0, 5]
    found = set_aside_covered(made_track(landmarks))
    assert np.flatnonzero(~found.seen).tolist() == list(range(19, 34))
    assert not found.covered.any()  # optical flow may look for the face there


@pytest.mark.parametrize("evidence", ["hidden", "uncertain"])
def test_partly_hidden_and_uncertain_frames_beside_a_gap_are_not_believed(evidence):
    landmarks, visible, confidence = places(), np.full(FRAMES, 0.95), np.ones(FRAMES)
    landmarks[GAP] = np.nan
    (visible if evidence == "hidden" else confidence)[[18, 19, 33]] = 0.6
    found = set_aside_covered(made_track(landmarks, visible, confidence))
    assert np.flatnonzero(~found.seen).tolist() == list(range(18, 34))


def test_partly_hidden_fast_and_briefly_lost_faces_stay_what_they_were():
    landmarks, visible = places(), np.full(FRAMES, 0.95)
    visible[GAP] = 0.45  # a cup before the mouth
    assert set_aside_covered(made_track(landmarks, visible)).covered is None
    fast = landmarks + np.float32(150) * np.sin(np.arange(FRAMES) / 3).astype(np.float32)[:, None, None]
    track = made_track(fast, visible)
    assert set_aside_covered(track) is track
    landmarks[25] = np.nan
    lost = set_aside_covered(made_track(landmarks, np.full(FRAMES, 0.6)))  # a beard, glasses, a dark frame
    assert np.flatnonzero(~lost.seen).tolist() == [25]


def test_little_that_is_seen_beside_covered_frames_is_covered_too():
    landmarks, visible = places(), np.full(FRAMES, 0.95)
    visible[20:24], visible[24:32] = 0.4, 0.1
    found = set_aside_covered(made_track(landmarks, visible))
    assert np.flatnonzero(found.covered).tolist() == list(range(20, 32))


def test_a_face_that_is_lost_while_it_is_partly_hidden_keeps_its_visible_landmarks():
    """A hand before the mouth, for which the tracker loses the face in between: the eyes are still seen around that."""
    landmarks, visible = places(), np.full(FRAMES, 0.95)
    visible[20:40] = 0.45
    landmarks[29:32] = np.nan
    found = set_aside_covered(made_track(landmarks, visible))
    assert np.flatnonzero(~found.seen).tolist() == [29, 30, 31]


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize(("fps", "longest"), [(24, 6), (48, 12)])  # a quarter of a second
@pytest.mark.parametrize("longer", [0, 1])
def test_what_is_partly_hidden_for_longer_than_a_ramp_beside_a_gap_is_kept(side, fps, longest, longer):
    frames = longest + longer
    landmarks, visible = places(), np.full(FRAMES, 0.95)
    landmarks[GAP] = np.nan
    beside = slice(20 - frames, 20) if side == "before" else slice(32, 32 + frames)
    visible[beside] = 0.6
    ramp = [] if longer else list(range(FRAMES))[beside]
    assert unobserved(made_track(landmarks, visible, fps=fps)) == sorted([*range(20, 32), *ramp])


def test_a_face_that_is_hidden_a_little_less_than_usual_is_not_partly_hidden():
    """Only frames well below the clip's usual visibility are; so a landmark that jumps beside the gap isn't kept."""
    landmarks, visible = places(), np.full(FRAMES, 0.95)
    landmarks[GAP] = np.nan
    visible[5:20] = 0.9
    landmarks[19] += [8, 0]
    assert unobserved(made_track(landmarks, visible)) == list(range(19, 32))


@pytest.mark.parametrize(("hidden", "first"), [(2, 18), (10, 20)], ids=["ramp", "kept"])
def test_the_usual_visibility_is_that_of_the_frames_in_which_the_face_is_not_covered(hidden, first):
    """Here it is covered in most of the clip."""
    visible = np.full(FRAMES, 0.95)
    visible[20:52] = 0.1
    visible[20 - hidden : 20] = 0.6
    assert unobserved(made_track(places(), visible)) == list(range(first, 52))


def test_little_that_is_seen_beside_lost_frames_is_covered_too():
    landmarks, visible = places(), np.full(FRAMES, 0.95)
    visible[20:24] = 0.4
    landmarks[24:32] = np.nan
    found = set_aside_covered(made_track(landmarks, visible))
    assert np.flatnonzero(found.covered).tolist() == list(range(20, 24))
    assert np.flatnonzero(~found.seen).tolist() == list(range(20, 32))


def test_a_partly_hidden_face_far_from_a_gap_is_not_covered():
    visible = np.full(FRAMES, 0.95)
    visible[GAP] = 0.1
    visible[44:50] = 0.45
    assert unobserved(made_track(places(), visible)) == list(range(20, 32))


def test_clear_frames_between_two_gaps_are_kept():
    landmarks = places()
    landmarks[20:24] = landmarks[27:31] = np.nan
    assert unobserved(made_track(landmarks)) == [*range(20, 24), *range(27, 31)]


def test_a_fast_face_that_slows_down_beside_a_gap_is_kept():
    landmarks = places()
    landmarks[..., 0] += (
        2 * (np.arange(FRAMES)[:, None] - 26) ** 2
    )  # 4 pixels a frame squared: 0.04 face sizes
    landmarks[GAP] = np.nan
    assert unobserved(made_track(landmarks)) == list(range(20, 32))


def test_partly_hidden_frames_at_the_beginning_are_no_more_believed_than_others():
    landmarks, visible = places(), np.full(FRAMES, 0.95)
    landmarks[3:12] = np.nan
    visible[:3] = 0.6
    assert unobserved(made_track(landmarks, visible)) == list(range(12))


def test_a_cover_is_no_shot_cut():
    landmarks = places()
    landmarks[GAP] = np.nan
    track = made_track(landmarks, cuts=(20, 32), persons=[True, False, True])
    track = replace(track, segments=(*track.segments[:2], replace(track.segments[2], similarity=0.4)))
    found = set_aside_covered(track)
    assert [(one.start, one.end, one.same_person) for one in found.segments] == [(0, FRAMES, True)]
    assert found.segments[0].similarity == 1
    assert found.landmarks is track.landmarks and found.covered is None


def test_a_cut_between_frames_that_show_the_face_stays():
    visible = np.full(FRAMES, 0.95)
    visible[GAP] = 0.1
    track = made_track(places(), visible, cuts=(45,))
    assert [one.start for one in set_aside_covered(track).segments] == [0, 45]


def test_real_cuts_stay():
    landmarks = places()
    landmarks[GAP] = np.nan
    elsewhere, grown, seen_across = landmarks.copy(), landmarks.copy(), landmarks.copy()
    elsewhere[32:] += [150, 0]
    grown[32:] = grown[32:].mean(1, keepdims=True) + 1.6 * (grown[32:] - grown[32:].mean(1, keepdims=True))
    seen_across[GAP] = places()[GAP]
    tracks = [made_track(points, cuts=(20, 32)) for points in (elsewhere, grown, seen_across)]
    tracks.append(made_track(landmarks, cuts=(20, 32), fps=12 / MAX_GAP_SECONDS))
    for track in tracks:
        assert [one.start for one in set_aside_covered(track).segments] == [0, 20, 32]


def test_frames_beside_a_real_cut_are_kept():
    """Another person is shown for a while: the face isn't lost behind anything."""
    landmarks, visible = places(), np.full(FRAMES, 0.95)
    landmarks[GAP] = np.nan
    landmarks[32:] += [150, 0]
    visible[[18, 19, 32, 33]] = 0.6  # a microphone
    track = made_track(landmarks, visible, cuts=(20, 32), persons=[True, False, True])
    assert np.flatnonzero(~set_aside_covered(track).seen).tolist() == list(range(20, 32))


def test_a_face_that_is_never_seen_well_is_kept():
    track = made_track(places(), np.full(FRAMES, 0.1))
    assert set_aside_covered(track) is track
    visible, confidence = np.full(FRAMES, 0.1), np.ones(FRAMES)
    visible[28:31], confidence[28:31] = 0.6, 0.5
    track = made_track(places(), visible, confidence)
    assert set_aside_covered(track) is track, "nothing would be left"


def test_a_track_without_visibility_stays_as_it_is():
    landmarks = places()
    landmarks[GAP] = np.nan
    track = replace(made_track(landmarks, cuts=(20, 32)), visibility=None)
    assert set_aside_covered(track) is track
