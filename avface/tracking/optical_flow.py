"""Landmarks of a partly occluded face, tracked by sparse optical flow from frames in which the face is clear.

An occluder displaces all of the detector's landmarks, visible ones included. Optical flow gives the motion of the
visible skin: small patches are tracked from frame to frame (pyramidal Lucas-Kanade: Lucas & Kanade 1981, Bouguet 2001),
forwards from the last clear frame, the keyframe, and backwards from the next one. A point is kept while its
forward-backward error is small (Kalal et al. 2010), its patch correlates with that of the keyframe, and it is an inlier
of the rigid motion of all points, so that the flow does not lock onto an occluder's edge. Points without texture are
left out, since a hand cannot be distinguished from bare skin. Points that were occluded for a while are searched for
again with the keyframe's patch where the rigid motion predicts them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from avface.arrays import F32, U8, Bool, runs
from avface.tracking.face_track import BLOCK, FaceTrack, RecordFile, StoredArray
from avface.tracking.shots import HasImage
from avface.tracking.visibility import VISIBLE

CLEAR_SHARE = 0.08
"""Occluded share of the face up to which a frame is clear."""
OCCLUDED_SHARE = 0.2
"""Occluded share that some frame of an interval must exceed: smaller ones are false alarms of clean clips."""
MIN_FRAMES = 3
"""Frames of the shortest interval that is refined."""
MAX_DISTANCE = 75
"""Most frames from a keyframe: errors accumulate, and the images of the backward pass are in memory."""
CONFIDENCE = 0.5
"""Least confidence of a refined frame."""
_MARGIN_FRAMES = 3
"""Clear frames on either side by which flow starts before and ends after an interval: an occluder comes before the face
earlier than it is detected."""
_CLEAR_VISIBILITY = 0.7
"""Visibility above which a landmark of a keyframe is tracked."""
_MAX_FACE_HEIGHT = 220
"""Height of the face in pixels in the images that flow runs on, at most."""
_CROP_MARGIN = 1.5
"""Half side of the image crop, in heights of the face."""
_MIN_INLIERS = 20
"""Fewest inliers of the rigid motion; with fewer, tracking stops."""
_MIN_INLIER_SHARE = 0.6
"""Least share of inliers among the tracked points: with fewer it is ambiguous whether they are the face."""
_INLIER_DISTANCE = 1.5
"""Pixels off the rigid motion within which a point is an inlier."""
_DEFORMATION, _MAX_DEFORMATION = 0.15, 1.0
"""Added to that distance: as a share of the median motion, and at most, in pixels. Faces are not quite rigid, and their
depth is an estimate."""
_ROBUST_SCALES = (12.0, 6.0, 3.0, 1.5)
"""Pixels: scale of the Geman-McClure weights in each of the successive fits."""
_MOTION_RIDGE = np.diag(np.array([0.01, 0.01, 1e-6, 1e-6, *(6 * [0.3])], np.float32))
"""Ridge penalty of the rigid motion: small for rotation and scale in the image plane, larger for shear and rotation out
of it, which only points all over the face determine."""
_LOST_DISTANCE = 0.06
"""Median distance between the detector's landmarks and the flow's, in heights of the face, from which on the detector
has lost the face."""
_MAX_FORWARD_BACKWARD = 0.7
"""Largest forward-backward error in pixels."""
_MIN_CORRELATION = 0.6
"""Least correlation of a point's patch with that of the keyframe."""
_MIN_SEARCH_CORRELATION = 0.8
"""The same for points that were lost and are searched for again."""
_MIN_EIGENVALUE = 4e-5
"""Least eigenvalue of the gradients' covariance around a point, in OpenCV's units (Shi & Tomasi 1994)."""
_PATCH = 13
"""Side of a patch in pixels."""
_WINDOW, _LEVELS, _STOP = (17, 17), 3, (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 20, 0.03)

_RECORD = np.dtype([("landmarks", "<f4", (478, 2)), ("flow_tracked", "?", (478,)), ("frame", "<i4")])


@dataclass(frozen=True)
class OccludedInterval:
    """Frames start to end - 1 of one shot, occluded enough to be refined."""

    start: int
    end: int
    before: int | None
    """The keyframe before them; None if there is no clear frame."""
    after: int | None
    """The same after them."""

    @property
    def first(self) -> int:
        """First frame that is read."""
        return self.start if self.before is None else self.before

    @property
    def last(self) -> int:
        """Last frame that is read."""
        return self.end - 1 if self.after is None else self.after


def occluded_intervals(track: FaceTrack) -> tuple[OccludedInterval, ...]:
    """The intervals of a track that optical flow can refine, in order; none if its visibility was not estimated."""
    if track.visibility is None:
        return ()
    share = 1 - track.mean_visibility()
    occluded = (share > CLEAR_SHARE) | ~track.seen
    found = []
    for shot in track.segments:
        if not shot.same_person:
            continue
        hidden = [
            (shot.start + start, shot.start + end) for start, end in runs(occluded[shot.start : shot.end])
        ]
        clear_from = [shot.start, *(end for _, end in hidden)]
        clear_to = [*(start for start, _ in hidden), shot.end]
        for number, (start, end) in enumerate(hidden):
            before = max(start - _MARGIN_FRAMES, clear_from[number]) if start > shot.start else None
            after = min(end - 1 + _MARGIN_FRAMES, clear_to[number + 1] - 1) if end < shot.end else None
            # visibility is unknown where the detector has lost the face
            certain = share[start:end].max() > OCCLUDED_SHARE or not track.seen[start:end].all()
            if certain and end - start >= MIN_FRAMES and not (before is None and after is None):
                found.append(OccludedInterval(start, end, before, after))
    return tuple(found)


def refine_by_flow(frames: Iterable[HasImage], track: FaceTrack) -> FaceTrack:
    """The track with `flow_landmarks`, `flow_tracked` and `flow_confidence`: its occluded intervals refined.

    frames: those of the track again, from the first on; they are read up to the end of the last interval. Without
    intervals nothing is read, and the same track is returned. Memory holds the image crops of `MAX_DISTANCE` frames.
    """
    intervals = occluded_intervals(track)
    if not intervals:
        return track
    refined = RecordFile(_RECORD)
    pending = deque(intervals)
    active: deque[_IntervalFlow] = deque()  # clear frames may end one interval and begin the next
    for index, frame in enumerate(frames):
        while pending and pending[0].first == index:
            active.append(_IntervalFlow(track, pending.popleft()))
        for flow in active:
            flow.add(index, frame.image)
        while active and active[0].interval.last == index:
            for record in active.popleft().results():
                refined.append(record)
        if not (pending or active):
            break
    return _merged(track, refined)


class _IntervalFlow:
    """One interval, tracked forwards as its frames arrive and backwards at its end."""

    def __init__(self, track: FaceTrack, interval: OccludedInterval) -> None:
        self._track, self.interval = track, interval
        keyframes = [frame for frame in (interval.before, interval.after) if frame is not None]
        points = np.concatenate([np.asarray(track.landmarks[frame], np.float32) for frame in keyframes])
        low, high = points.min(0), points.max(0)
        height = float(max(np.ptp(np.asarray(track.landmarks[frame])[:, 1]) for frame in keyframes))
        margin = _CROP_MARGIN * height - 0.5 * height
        self._scale = min(1.0, _MAX_FACE_HEIGHT / max(height, 1.0))
        self._face_height = self._scale * height
        self._low = np.floor(low - margin).astype(int).clip(0)
        self._high = np.ceil(high + margin).astype(int)
        self._images: deque[tuple[int, U8]] = deque(maxlen=MAX_DISTANCE + 1)
        self._forward: _Points | None = None
        self._found: dict[int, list[tuple[float, _Points]]] = {}

    def add(self, index: int, image: U8) -> None:
        """The interval's next frame, the keyframes before and after it included."""
        (left, top), (right, bottom) = self._low, self._high
        grey = cv2.cvtColor(np.ascontiguousarray(image[top:bottom, left:right]), cv2.COLOR_RGB2GRAY)
        if self._scale < 1:
            grey = cv2.resize(grey, None, fx=self._scale, fy=self._scale, interpolation=cv2.INTER_AREA)
        previous = self._images[-1][1] if self._images else None
        self._images.append((index, np.asarray(grey)))
        begin = self.interval.before
        if index == begin:
            self._forward = self._keyframe_points(index, grey)
        elif (
            begin is not None
            and index < self.interval.end
            and self._forward is not None
            and previous is not None
        ):
            self._forward = (
                self._step(self._forward, previous, index, grey) if index <= begin + MAX_DISTANCE else None
            )
            self._add_result(index, index - begin, self._forward)

    def results(self) -> Iterator[npt.NDArray[np.void]]:
        """Records of the frames that were tracked, in order: the mean of both passes, the nearer keyframe weighing
        more."""
        begin = self.interval.after
        if begin is not None:
            images = list(self._images)
            points = self._keyframe_points(begin, images[-1][1])
            for (_, later), (index, earlier) in zip(images[:0:-1], images[-2::-1], strict=True):
                if index < self.interval.start:
                    break
                points = self._step(points, later, index, earlier)
                self._add_result(index, begin - index, points)
        for index in sorted(self._found):
            total, weights = np.zeros((478, 2)), np.zeros((478, 1))
            predicted, predicted_weight = np.zeros((478, 2)), 0.0
            for weight, points in self._found[index]:
                tracked = weight * points.tracked[:, None]
                total, weights = total + tracked * points.position, weights + tracked
                predicted, predicted_weight = predicted + weight * points.position, predicted_weight + weight
            flow_tracked = weights[:, 0] > 0
            position = np.where(
                flow_tracked[:, None], total / np.maximum(weights, 1e-9), predicted / predicted_weight
            )
            record = np.zeros(1, _RECORD)
            record["landmarks"] = position / self._scale + self._low
            record["flow_tracked"], record["frame"] = flow_tracked, index
            yield record

    def _keyframe_points(self, index: int, image: U8) -> _Points:
        position = ((np.asarray(self._track.landmarks[index]) - self._low) * self._scale).astype(np.float32)
        depth = (np.asarray(self._track.depth[index]) * self._scale).astype(np.float32)
        tracked = (self._visibility(index) > _CLEAR_VISIBILITY) & _textured(image, position)
        keyframe = _Keyframe(
            image, position, tracked, _patches(image, position), _motion_basis(position, depth)
        )
        return _Points(position, tracked, keyframe)

    def _visibility(self, index: int) -> F32:
        assert self._track.visibility is not None
        return np.asarray(self._track.visibility[index], np.float32)

    def _add_result(self, index: int, distance: int, points: _Points | None) -> None:
        """Keep a frame's points, weighted by 1 / distance from the keyframe."""
        if self._track.covered is not None and self._track.covered[index]:
            return
        if points is not None and points.tracked.any() and self.interval.start <= index < self.interval.end:
            self._found.setdefault(index, []).append((1 / distance, points))

    def _step(self, points: _Points, image: U8, index: int, other: U8) -> _Points:
        """The points in the image `other` of frame `index`; none of them is tracked if there are too few inliers."""
        moved, found = _track_points(image, other, points.position, points.tracked)
        found &= points.keyframe.correlation(other, moved) > _MIN_CORRELATION
        visible = self._visible(index, moved, found)
        inliers = points.keyframe.rigid_inliers(points.position, moved, found & visible)
        if inliers is None:
            lost = replace(points, tracked=np.zeros(len(moved), bool))
            return self._search_lost(lost, index, other, None)
        return self._search_lost(_Points(*inliers, points.keyframe), index, other, visible)

    def _search_lost(self, points: _Points, index: int, image: U8, visible: Bool | None) -> _Points:
        """Search for lost points around their predicted positions, with the keyframe's patches.

        visible: (478,) points that are not occluded; None where the motion is lost and visibility is unknown.
        """
        keyframe = points.keyframe
        lost = keyframe.tracked if visible is None else keyframe.tracked & visible & ~points.tracked
        moved, found = _track_points(keyframe.image, image, keyframe.position, lost, points.position)
        found &= keyframe.correlation(image, moved) > _MIN_SEARCH_CORRELATION
        if visible is None:
            inliers = keyframe.rigid_inliers(
                keyframe.position, moved, found & self._visible(index, moved, found)
            )
            return points if inliers is None else replace(points, position=inliers[0], tracked=inliers[1])
        position = np.where(found[:, None], moved, points.position)
        inliers = keyframe.rigid_inliers(keyframe.position, position, found | points.tracked)
        if inliers is None:
            return points
        tracked = points.tracked | (found & inliers[1])
        return replace(points, position=np.where(tracked[:, None], position, inliers[0]), tracked=tracked)

    def _visible(self, index: int, position: F32, found: Bool) -> Bool:
        """Points (478,) that are not known to be occluded; all where the detector, and with it the visibility, has lost
        the face."""
        detected = (np.asarray(self._track.landmarks[index], np.float32) - self._low) * self._scale
        apart = float(np.median(np.linalg.norm(detected - position, axis=1)[found])) if found.any() else 0.0
        if apart < _LOST_DISTANCE * self._face_height:
            return np.asarray(self._visibility(index) > VISIBLE)
        return np.ones(len(position), bool)


@dataclass(frozen=True, eq=False)
class _Keyframe:
    """The clear frame in which tracking starts."""

    image: U8
    """(H, W) grey."""
    position: F32
    """(478, 2) pixels."""
    tracked: Bool
    """(478,) which points are clear and have texture."""
    patches: F32
    """(478, P) patch around each, with zero mean and unit norm."""
    motion_basis: F32
    """(478, 2, 10) motion of each point by the parameters of a rigid motion (`_motion_basis`)."""

    def correlation(self, image: U8, position: F32) -> F32:
        """Correlations (478,) of the patches around positions in an image with those of the keyframe."""
        return np.asarray((self.patches * _patches(image, position)).sum(1))

    def rigid_inliers(self, position: F32, moved: F32, found: Bool) -> tuple[F32, Bool] | None:
        """New positions (478, 2), outliers moved rigidly, and which are inliers (478,); None with too few inliers.

        The rigid motion under an affine camera is fitted to the found points by iteratively reweighted least squares
        with Geman-McClure weights of decreasing scale (Black & Rangarajan 1996).
        """
        if found.sum() < _MIN_INLIERS:
            return None
        motion, basis = moved[found] - position[found], self.motion_basis[found]
        limit = _INLIER_DISTANCE + min(
            _DEFORMATION * float(np.median(np.linalg.norm(motion, axis=1))), _MAX_DEFORMATION
        )
        parameters, residual = _fit_motion(basis, motion, np.ones(len(motion), np.float32))
        for scale in _ROBUST_SCALES:
            parameters, residual = _fit_motion(basis, motion, 1 / (1 + (residual / scale) ** 2) ** 2)
        inlier = residual < limit
        if inlier.sum() < max(_MIN_INLIERS, _MIN_INLIER_SHARE * len(motion)):
            return None
        tracked = found.copy()
        tracked[found] = inlier
        rigid = position + self.motion_basis @ parameters
        return np.where(tracked[:, None], moved, rigid).astype(np.float32), tracked


@dataclass(frozen=True, eq=False)
class _Points:
    """Points in one image; those that are not tracked are predicted by the rigid motion of the others."""

    position: F32
    """(478, 2) pixels of the image crop."""
    tracked: Bool
    """(478,)."""
    keyframe: _Keyframe


def _motion_basis(position: F32, depth: F32) -> F32:
    """(478, 2, 10): motion of points of depth (478,) by scale and rotation in the image, translation, and the six terms
    of shear and rotation out of it."""
    points = np.concatenate([position, depth[:, None]], 1)
    x, y, z = ((points - points.mean(0)) / np.sqrt(np.ptp(position, axis=0).prod())).T
    no, one = np.zeros_like(x), np.ones_like(x)
    across = [x, -y, one, no, x, y, z, no, no, no]
    down = [y, x, no, one, no, no, no, x, y, z]
    return np.stack([np.stack(across, 1), np.stack(down, 1)], 1).astype(np.float32)


def _fit_motion(basis: F32, motion: F32, weights: F32) -> tuple[F32, F32]:
    """Parameters (10,) of the rigid motion by weighted ridge regression, and residuals (N,) in pixels.

    Shapes: basis (N, 2, 10); motion (N, 2); weights (N,).
    """
    weighted = basis * weights[:, None, None]
    system = np.einsum("nci,ncj->ij", weighted, basis) + _MOTION_RIDGE
    parameters = np.linalg.solve(system, np.einsum("nci,nc->i", weighted, motion))
    return parameters, np.linalg.norm(basis @ parameters - motion, axis=1)


def _textured(image: U8, position: F32) -> Bool:
    """Which points (478, 2) have corner-like texture (Shi & Tomasi 1994)."""
    corners = cv2.cornerMinEigenVal(image, 9, ksize=3)
    at = cv2.remap(
        corners, position[:, None, 0], position[:, None, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(at[:, 0] > _MIN_EIGENVALUE)


def _patches(image: U8, position: F32) -> F32:
    """Patches (478, P) of grey values around points (478, 2), with zero mean and unit norm."""
    offset = np.arange(_PATCH, dtype=np.float32) - _PATCH // 2
    x = (position[:, None, None, 0] + offset[None, None, :]).repeat(_PATCH, 1).reshape(-1, _PATCH)
    y = (position[:, None, None, 1] + offset[None, :, None]).repeat(_PATCH, 2).reshape(-1, _PATCH)
    grey = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    patches = grey.reshape(len(position), -1).astype(np.float32)
    patches -= patches.mean(1, keepdims=True)
    return np.asarray(patches / np.maximum(np.linalg.norm(patches, axis=1, keepdims=True), 1e-3), np.float32)


def _track_points(
    image: U8,
    other: U8,
    position: F32,
    wanted: Bool,
    guess: F32 | None = None,
) -> tuple[F32, Bool]:
    """Positions (478, 2) in another image of the wanted points (478,), and which pass the forward-backward check.

    Points that aren't wanted keep their position, or their guess.
    """
    moved, passed = (position if guess is None else guess).copy(), wanted.copy()
    if wanted.any():
        start = position[wanted]
        moved[wanted], found = _flow(image, other, start, None if guess is None else guess[wanted])
        back, returned = _flow(other, image, moved[wanted], None if guess is None else start)
        error = np.linalg.norm(back - start, axis=1)
        passed[wanted] = found & returned & (error < _MAX_FORWARD_BACKWARD)
    return moved, passed


def _flow(image: U8, other: U8, position: F32, guess: F32 | None = None) -> tuple[F32, Bool]:
    """Lucas-Kanade flow: positions (N, 2) of points in another image, started at a guess (N, 2), and whether found."""
    guessed = (position if guess is None else guess)[:, None].astype(np.float32)
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        image,
        other,
        position[:, None],
        guessed,
        winSize=_WINDOW,
        maxLevel=_LEVELS,
        criteria=_STOP,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    return moved[:, 0], found[:, 0] > 0


def _merged(track: FaceTrack, refined: RecordFile) -> FaceTrack:
    """The track with the refined frames, in a new temporary file."""
    result = RecordFile(_RECORD)
    confidence = track.confidence.copy()
    records = (record for block in refined.blocks() for record in block)
    record = next(records, None)
    for start in range(0, len(track), BLOCK):
        block = np.zeros(min(BLOCK, len(track) - start), _RECORD)
        block["landmarks"] = track.landmarks[start : start + BLOCK]
        while record is not None and record["frame"] < start + BLOCK:
            frame = int(record["frame"])
            block[frame - start] = record
            confidence[frame] = max(confidence[frame], CONFIDENCE)
            record = next(records, None)
        result.append(block)
    return replace(
        track,
        flow_landmarks=StoredArray(result, "landmarks"),
        flow_tracked=StoredArray(result, "flow_tracked"),
        flow_confidence=confidence,
    )
