"""Optical flow recovers the known motion of the visible skin of a partly occluded face."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest

from avface.networks.fusion.landmark_weights import LandmarkWeights
from avface.tracking import FaceTrack, Segment, refine_by_flow
from avface.tracking import optical_flow as module
from avface.tracking.optical_flow import OCCLUDED_SHARE, occluded_intervals

FRAMES, SIZE = 30, 320
OCCLUDED = slice(8, 20)
"""Frames in which a box occludes the lower half."""


@dataclass(frozen=True)
class Picture:
    image: np.ndarray


class Scene:
    """A textured face that turns, drifts and grows, and a detector's track of it."""

    def __init__(self, seed=0, turning=0.0, bare=0):
        """turning: pixels by which the nose swings more than chin and brow; bare: skin left of it has no texture."""
        rng = np.random.default_rng(seed)
        noise = cv2.GaussianBlur(rng.uniform(0, 255, (SIZE, SIZE, 3)), (0, 0), 2.5)
        self.skin = np.clip((noise - noise.mean()) * 6 + 128, 0, 255).astype(np.uint8)
        shades = cv2.GaussianBlur(self.skin, (0, 0), 7)[:, :bare].astype(np.float32)
        self.skin[:, :bare] = 128 + 0.5 * (shades - 128)
        y, x = np.divmod(np.arange(478), 22)
        self.places = np.stack([100 + 120 * x / 21, 90 + 140 * y / 21], 1)
        self.low = self.places[:, 1] > 160
        bulge = 1 - ((np.arange(SIZE) - 160) / 70.0) ** 2
        self.depth = -60 * (1 - ((self.places[:, 1] - 160) / 70.0) ** 2)
        self.true, self.images = [], []
        for t in range(FRAMES):
            motion = cv2.getRotationMatrix2D((160, 160), 0.6 * t, 1 + 0.003 * t)
            motion[:, 2] += [0.9 * t, 3 * np.sin(t / 5)]
            swing = turning * np.sin(0.3 * t)
            x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
            source = (x - swing * bulge[:, None]).astype(np.float32)
            skin = cv2.remap(
                self.skin, source, y.astype(np.float32), cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT
            )
            image = cv2.warpAffine(skin, motion, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT)
            swung = self.places - np.stack([swing * self.depth / 60, 0 * self.depth], 1)
            points = swung @ motion[:, :2].T + motion[:, 2]
            if OCCLUDED.start <= t < OCCLUDED.stop:
                top = round(points[self.low, 1].min()) - 6
                image[top:] = (40, 90, 160)
                image[top + 8 :: 16] = (200, 90, 40)
            self.images.append(image)
            self.true.append(points)
        self.true = np.array(self.true)

    def frames(self):
        return map(Picture, self.images)

    def track(self, **changes):
        visibility = np.ones((FRAMES, 478), np.float32)
        visibility[OCCLUDED, self.low] = 0.05
        tracked = self.true.astype(np.float32)
        tracked[OCCLUDED] += [9.0, -7.0]  # an occluder displaces all landmarks
        track = FaceTrack(
            landmarks=tracked,
            depth=np.tile(self.depth.astype(np.float32), (FRAMES, 1)),
            confidence=np.full(FRAMES, 0.9, np.float32),
            box=np.concatenate([tracked.min(1), tracked.max(1)], 1),
            times=np.arange(FRAMES) / 25,
            segments=(Segment(0, FRAMES, True, 1.0),),
            image_size=(SIZE, SIZE),
            visibility=visibility,
        )
        return replace(track, **changes)


@pytest.fixture(scope="module")
def scene():
    return Scene()


def distances(scene, track):
    return np.linalg.norm(np.asarray(track.best_landmarks) - scene.true, axis=2)


def test_visible_points_are_tracked_and_occluded_ones_move_rigidly(scene):
    track = scene.track()
    found = refine_by_flow(scene.frames(), track)

    flow_tracked = np.asarray(found.flow_tracked)
    assert not flow_tracked[: OCCLUDED.start].any() and not flow_tracked[OCCLUDED.stop :].any()
    assert not flow_tracked[OCCLUDED][:, scene.low].any()
    assert flow_tracked[OCCLUDED][:, ~scene.low].mean() > 0.4
    off = distances(scene, found)
    assert off[OCCLUDED][flow_tracked[OCCLUDED]].max() < 1.0
    assert off[OCCLUDED][:, scene.low].max() < 4.0, "by the rigid motion of the others"
    unchanged = np.r_[0 : OCCLUDED.start, OCCLUDED.stop : FRAMES]
    np.testing.assert_array_equal(np.asarray(found.best_landmarks)[unchanged], track.landmarks[unchanged])


def test_a_turning_head_is_tracked():
    """Nearer points move more than farther ones, as no similarity of the image does."""
    scene = Scene(turning=40.0)
    found = refine_by_flow(scene.frames(), scene.track())

    flow_tracked = np.asarray(found.flow_tracked)[OCCLUDED][:, ~scene.low]
    assert (flow_tracked.sum(1) > 30).all()
    assert np.median(distances(scene, found)[OCCLUDED][:, ~scene.low][flow_tracked]) < 1.0


def test_skin_without_texture_is_not_tracked(monkeypatch):
    """A hand before it could not be distinguished."""
    scene = Scene(bare=150)
    bare = scene.places[:, 0] < 130
    found = refine_by_flow(scene.frames(), scene.track())
    monkeypatch.setattr(module, "_MIN_EIGENVALUE", 0.0)
    unchecked = refine_by_flow(scene.frames(), scene.track())

    flow_tracked = np.asarray(found.flow_tracked)[OCCLUDED]
    assert np.asarray(unchecked.flow_tracked)[OCCLUDED][:, bare].any() and not flow_tracked[:, bare].any()
    assert flow_tracked[:, ~scene.low & (scene.places[:, 0] > 160)].mean() > 0.3


@pytest.mark.parametrize("known", [slice(0, OCCLUDED.stop), slice(OCCLUDED.start, FRAMES)])
def test_one_keyframe_is_enough_and_flow_stops_at_cuts(scene, known):
    cut = OCCLUDED.stop if known.start == 0 else OCCLUDED.start
    shots = (Segment(0, cut, known.start == 0, 1.0), Segment(cut, FRAMES, known.start > 0, 1.0))
    found = refine_by_flow(scene.frames(), scene.track(segments=shots))

    flow_tracked = np.asarray(found.flow_tracked)
    assert flow_tracked[OCCLUDED].any(1).all()
    assert distances(scene, found)[OCCLUDED][flow_tracked[OCCLUDED]].max() < 1.5


def test_frames_that_the_detector_lost_are_refined(scene):
    track = scene.track()
    track.landmarks[12:15] = np.nan
    track.confidence[12:15] = 0
    track.box[12:15] = np.nan
    track.visibility[12:15] = 1
    found = refine_by_flow(scene.frames(), track)

    assert (found.best_confidence[12:15] == module.CONFIDENCE).all()
    assert np.isfinite(np.asarray(found.best_landmarks)).all()
    flow_tracked = np.asarray(found.flow_tracked)[12:15]
    assert flow_tracked.any(1).all() and distances(scene, found)[12:15][flow_tracked].max() < 2.0
    assert (track.confidence[12:15] == 0).all(), "the track itself stays as it was"
    assert found.landmarks is track.landmarks and found.confidence is track.confidence, "as detected"
    assert not found.seen[12:15].any() and found.depth is track.depth and found.box is track.box


def test_an_interval_that_the_detector_lost_entirely_is_refined(scene):
    """Its visibility is unknown then."""
    track = scene.track()
    track.landmarks[OCCLUDED], track.box[OCCLUDED] = np.nan, np.nan
    track.confidence[OCCLUDED], track.visibility[OCCLUDED] = 0, 1
    found = refine_by_flow(scene.frames(), track)

    flow_tracked = np.asarray(found.flow_tracked)[OCCLUDED]
    assert flow_tracked.any(1).all() and distances(scene, found)[OCCLUDED][flow_tracked].max() < 2.0


def test_points_that_were_occluded_for_a_while_are_found_again(scene):
    """Without a keyframe after the interval: the face reappears a little further."""
    cover = np.random.default_rng(5).integers(0, 255, (SIZE, SIZE, 3)).astype(np.uint8)
    images = [cover if 10 <= t < 14 else image for t, image in enumerate(scene.images)]
    shots = (Segment(0, OCCLUDED.stop, True, 1.0), Segment(OCCLUDED.stop, FRAMES, False, 1.0))
    track = scene.track(segments=shots)
    track.visibility[10:14] = 0
    found = refine_by_flow(map(Picture, images), track)

    flow_tracked = np.asarray(found.flow_tracked)
    assert not flow_tracked[10:14].any() and flow_tracked[14:20].sum(1).min() > 30
    assert distances(scene, found)[flow_tracked].max() < 1.0


def test_nothing_is_tracked_further_than_the_largest_distance(scene, monkeypatch):
    monkeypatch.setattr(module, "MAX_DISTANCE", 5)
    flow_tracked = np.asarray(refine_by_flow(scene.frames(), scene.track()).flow_tracked).any(1)
    np.testing.assert_array_equal(np.flatnonzero(flow_tracked), [8, 9, 10, 17, 18, 19])


def test_occluded_points_are_not_tracked(scene):
    track = scene.track(landmarks=scene.true.astype(np.float32))
    track.visibility[10:18] = 0
    flow_tracked = np.asarray(refine_by_flow(scene.frames(), track).flow_tracked).any(1)
    np.testing.assert_array_equal(np.flatnonzero(flow_tracked), [8, 9, 18, 19])


def test_visibility_is_ignored_where_the_detector_is_off_the_face(scene):
    """The texture was sampled elsewhere, so that all of it seems occluded."""
    track = scene.track()
    track.landmarks[10:18] += 60
    track.visibility[10:18] = 0
    found = refine_by_flow(scene.frames(), track)
    held = np.asarray(found.flow_tracked)
    assert held[OCCLUDED].any(1).all()
    assert distances(scene, found)[held].max() < 2


def test_an_occluder_of_the_entire_face_is_not_tracked(scene):
    """Its patches do not correlate with the face's, even where the detector, off the face, reports no occlusion."""
    track = scene.track()
    track.landmarks[10:18] += 60
    noise = np.random.default_rng(5).uniform(0, 255, (SIZE, SIZE, 3))
    cover = cv2.GaussianBlur(noise, (0, 0), 2.5).astype(np.uint8)
    images = [cover if 10 <= t < 18 else image for t, image in enumerate(scene.images)]
    flow_tracked = np.asarray(refine_by_flow(map(Picture, images), track).flow_tracked).any(1)
    np.testing.assert_array_equal(np.flatnonzero(flow_tracked), [8, 9, 18, 19])


def test_optical_flow_does_not_look_for_a_covered_face(scene):
    covered = np.zeros(FRAMES, bool)
    covered[10:14] = True
    found = refine_by_flow(scene.frames(), scene.track(covered=covered))
    tracked = np.asarray(found.flow_tracked).any(1)
    assert not tracked[10:14].any() and tracked[[8, 9, *range(14, 20)]].all()


def test_without_occlusion_no_frame_is_read(scene):
    def unread():
        raise AssertionError("frames were read")
        yield

    little = np.ones((FRAMES, 478), np.float32)
    little[OCCLUDED, : int(478 * OCCLUDED_SHARE)] = 0
    for track in (scene.track(visibility=None), scene.track(visibility=little)):
        assert occluded_intervals(track) == ()
        assert refine_by_flow(unread(), track) is track
        assert track.best_landmarks is track.landmarks and track.best_confidence is track.confidence


def test_flow_tracked_landmarks_have_full_weight(scene):
    found = refine_by_flow(scene.frames(), scene.track())
    weights = LandmarkWeights(found, without=("lips",))
    clear, held = LandmarkWeights(found, flow=False), np.asarray(found.flow_tracked)
    np.testing.assert_array_equal(clear[:], LandmarkWeights(scene.track())[:])
    assert clear[14].max() < 0.5
    assert (weights[14][held[14]] == 1).any() and (weights[14][~held[14]] == 0).all()
    np.testing.assert_array_equal(weights[10:13][0], weights[10])
    assert weights[2].min() == 0 and weights[2].max() == 1
