"""Landmarks of a partly hidden face, flow_tracked through the picture from frames in which it is clear.

What comes before a face moves all of the tracker's landmarks, those that are seen too. How the skin that is seen moves
is in the picture: small patches of it are flow_tracked from frame to frame (Lucas & Kanade 1981; pyramids: Bouguet 2001),
forwards from the last clear frame and backwards from the next one. Patches that don't move with the others as one
solid body, or no longer look as in the clear frame, are left out, so that an occluder's edge isn't flow_tracked in place of
the face; so is bare skin, since a hand looks like it. What was covered for a while is sought where the other points
take it, as it looks in the clear frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from avface.arrays import F32, U8, Bool
from avface.tracking.face_track import BLOCK, FaceTrack, RecordFile, StoredArray
from avface.tracking.shots import HasImage
from avface.tracking.visibility import VISIBLE

HIDDEN_SHARE = 0.08
"""Share of the face that is hidden up to which a frame is clear."""
OCCLUDED_SHARE = 0.2
"""Share that must be hidden in some frame of a stretch: less is found in clean clips now and then."""
SHORTEST = 3
"""Frames of the shortest stretch that is flow_tracked through."""
REACH = 75
"""Most frames from a clear one: errors add up, and the pictures on the way back are in memory."""
CONFIDENCE = 0.5
"""Least confidence of a frame with flow_tracked landmarks."""
_LEAD = 3
"""Frames before and after a stretch from which on they are flow_tracked, if they are clear: what comes before a face does
so before it is noticed."""
_CLEAR = 0.7
"""Visibility above which a landmark is flow_tracked from a clear frame."""
_SIDE = 220
"""Pixels that a face is high in the pictures in which it is flow_tracked, at most."""
_AROUND = 1.5
"""Sizes of the face that are kept on each side of its middle."""
_LEAST_POINTS = 20
"""Points that must move together; with fewer nothing is flow_tracked any further."""
_MAJORITY = 0.6
"""Share of the points that must: else nobody knows which of them are the face."""
_AGREEMENT = 1.5
"""Pixels by which they may differ from one solid body."""
_BENT, _BENT_AT_MOST = 0.15, 1.0
"""By how much more, in shares of how far they moved, and the pixels that this is at most: faces aren't quite solid, and
their depth is guessed."""
_TOLERANCES = (12.0, 6.0, 3.0, 1.5)
"""Pixels, one fit after the other, from which on a point that differs counts little."""
_STIFF = np.diag(np.array([0.01, 0.01, 1e-6, 1e-6, *(6 * [0.3])], np.float32))
"""How much a body is kept from turning in the picture, and more from being sheared and turning out of it: a few points
close together don't say, many all over the face do."""
_ASTRAY = 0.06
"""Distance in heights of the face, from which on the tracker's landmarks are no longer those of the face."""
_RETURN = 0.7
"""Pixels by which a point flow_tracked there and back may miss where it was."""
_LIKENESS = 0.6
"""Correlation of a point's surroundings with those in the clear frame, below which it is something else."""
_SAME = 0.8
"""The same for points that were lost and are found again."""
_TEXTURE = 4e-5
"""Least eigenvalue of the gradients' covariance around a point that is flow_tracked, in OpenCV's measure: bare skin can't
be told from a hand before it."""
_PATCH = 13
"""Pixels of such surroundings on each side."""
_WINDOW, _LEVELS, _STOP = (17, 17), 3, (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 20, 0.03)

_RECORD = np.dtype([("landmarks", "<f4", (478, 2)), ("flow_tracked", "?", (478,)), ("frame", "<i4")])


@dataclass(frozen=True)
class Stretch:
    """Frames start to end - 1 of one shot, of which so much is hidden that they are flow_tracked through."""

    start: int
    end: int
    before: int | None
    """A clear frame before them to begin from, if there is one."""
    after: int | None
    """The same after them."""

    @property
    def first(self) -> int:
        """First frame that is looked at."""
        return self.start if self.before is None else self.before

    @property
    def last(self) -> int:
        """Last frame that is looked at."""
        return self.end - 1 if self.after is None else self.after


def hidden_stretches(track: FaceTrack) -> tuple[Stretch, ...]:
    """The stretches of a track that can be flow_tracked through, in order; none if nobody looked for what is hidden."""
    if track.visibility is None:
        return ()
    share = np.concatenate(
        [
            1 - np.asarray(track.visibility[start : start + BLOCK], np.float32).mean(1)
            for start in range(0, len(track), BLOCK)
        ]
    )
    covered = (share > HIDDEN_SHARE) | ~track.seen
    found = []
    for shot in track.segments:
        if not shot.same_person:
            continue
        edges = np.flatnonzero(np.diff(covered[shot.start : shot.end].astype(np.int8), prepend=0, append=0))
        edges = edges.reshape(-1, 2) + shot.start
        clear_from = [shot.start, *edges[:, 1]]
        clear_to = [*edges[:, 0], shot.end]
        for number, (start, end) in enumerate(edges.tolist()):
            before = max(start - _LEAD, clear_from[number]) if start > shot.start else None
            after = min(end - 1 + _LEAD, clear_to[number + 1] - 1) if end < shot.end else None
            # nobody can say what hides a face that the tracker has lost
            occluded = share[start:end].max() > OCCLUDED_SHARE or not track.seen[start:end].all()
            if occluded and end - start >= SHORTEST and not (before is None and after is None):
                found.append(Stretch(start, end, before, after))
    return tuple(found)


def refine_by_flow(frames: Iterable[HasImage], track: FaceTrack) -> FaceTrack:
    """The track with `flow_landmarks`, `flow_tracked` and `flow_confidence`, from its occluded stretches by optical flow.

    frames: those of the track again, from the first on; they are read up to the end of the last stretch. Where nothing
    is occluded nothing is read, and the track comes back as it is. In memory are the pictures of `REACH` frames, cut
    out around the face.
    """
    stretches = hidden_stretches(track)
    if not stretches:
        return track
    changed = RecordFile(_RECORD)
    pending = deque(stretches)
    walks: deque[_Walk] = deque()  # clear frames may end one stretch and begin the next
    for index, frame in enumerate(frames):
        while pending and pending[0].first == index:
            walks.append(_Walk(track, pending.popleft()))
        for walk in walks:
            walk.add(index, frame.image)
        while walks and walks[0].stretch.last == index:
            for record in walks.popleft().results():
                changed.append(record)
        if not (pending or walks):
            break
    return _merged(track, changed)


class _Walk:
    """One stretch, flow_tracked forwards as its frames come and backwards at its end."""

    def __init__(self, track: FaceTrack, stretch: Stretch) -> None:
        self._track, self.stretch = track, stretch
        ends = [end for end in (stretch.before, stretch.after) if end is not None]
        points = np.concatenate([np.asarray(track.landmarks[end], np.float32) for end in ends])
        low, high = points.min(0), points.max(0)
        size = float(max(np.ptp(np.asarray(track.landmarks[end])[:, 1]) for end in ends))
        margin = _AROUND * size - 0.5 * size
        self._scale = min(1.0, _SIDE / max(size, 1.0))
        self._side = self._scale * size
        self._low = np.floor(low - margin).astype(int).clip(0)
        self._high = np.ceil(high + margin).astype(int)
        self._pictures: deque[tuple[int, U8]] = deque(maxlen=REACH + 1)
        self._forward: _Points | None = None
        self._found: dict[int, list[tuple[float, _Points]]] = {}

    def add(self, index: int, image: U8) -> None:
        """The stretch's next frame, the clear ones before and after it included."""
        (left, top), (right, bottom) = self._low, self._high
        grey = cv2.cvtColor(np.ascontiguousarray(image[top:bottom, left:right]), cv2.COLOR_RGB2GRAY)
        if self._scale < 1:
            grey = cv2.resize(grey, None, fx=self._scale, fy=self._scale, interpolation=cv2.INTER_AREA)
        previous = self._pictures[-1][1] if self._pictures else None
        self._pictures.append((index, np.asarray(grey)))
        begin = self.stretch.before
        if index == begin:
            self._forward = self._clear(index, grey)
        elif (
            begin is not None
            and index < self.stretch.end
            and self._forward is not None
            and previous is not None
        ):
            self._forward = (
                self._step(self._forward, previous, index, grey) if index <= begin + REACH else None
            )
            self._keep(index, index - begin, self._forward)

    def results(self) -> Iterator[npt.NDArray[np.void]]:
        """Records of the frames that could be flow_tracked, in order."""
        begin = self.stretch.after
        if begin is not None:
            held = list(self._pictures)
            points = self._clear(begin, held[-1][1])
            for (_, later), (index, earlier) in zip(held[:0:-1], held[-2::-1], strict=True):
                if index < self.stretch.start:
                    break
                points = self._step(points, later, index, earlier)
                self._keep(index, begin - index, points)
        for index in sorted(self._found):
            total, weights = np.zeros((478, 2)), np.zeros((478, 1))
            guess, guessed = np.zeros((478, 2)), 0.0
            for weight, points in self._found[index]:
                seen = weight * points.seen[:, None]
                total, weights = total + seen * points.place, weights + seen
                guess, guessed = guess + weight * points.place, guessed + weight
            flow_tracked = weights[:, 0] > 0
            place = np.where(flow_tracked[:, None], total / np.maximum(weights, 1e-9), guess / guessed)
            record = np.zeros(1, _RECORD)
            record["landmarks"] = place / self._scale + self._low
            record["flow_tracked"], record["frame"] = flow_tracked, index
            yield record

    def _clear(self, index: int, picture: U8) -> _Points:
        place = ((np.asarray(self._track.landmarks[index]) - self._low) * self._scale).astype(np.float32)
        depth = (np.asarray(self._track.depth[index]) * self._scale).astype(np.float32)
        seen = (self._visibility(index) > _CLEAR) & _textured(picture, place)
        origin = _Origin(picture, place, seen, _surroundings(picture, place), _ways(place, depth))
        return _Points(place, seen, origin)

    def _visibility(self, index: int) -> F32:
        assert self._track.visibility is not None
        return np.asarray(self._track.visibility[index], np.float32)

    def _keep(self, index: int, steps: int, points: _Points | None) -> None:
        """Of both ways the nearer clear frame counts more."""
        if points is not None and points.seen.any() and self.stretch.start <= index < self.stretch.end:
            self._found.setdefault(index, []).append((1 / steps, points))

    def _step(self, points: _Points, picture: U8, index: int, other: U8) -> _Points:
        """The points in the picture of frame `index`; none of them is seen if too few can be flow_tracked."""
        there, sure = _sought(picture, other, points.place, points.seen)
        sure &= points.origin.likeness(other, there) > _LIKENESS
        shown = self._shown(index, there, sure)
        carried = points.origin.together(points.place, there, sure & shown)
        if carried is None:
            return self._found_again(replace(points, seen=np.zeros(len(there), bool)), index, other, None)
        return self._found_again(_Points(*carried, points.origin), index, other, shown)

    def _found_again(self, points: _Points, index: int, picture: U8, shown: Bool | None) -> _Points:
        """With the points that were lost on the way and are now where the others take them, as they look in the clear
        frame; shown (478,) are those that can be seen, None if nobody knows for want of others."""
        origin = points.origin
        lost = origin.seen if shown is None else origin.seen & shown & ~points.seen
        there, sure = _sought(origin.picture, picture, origin.place, lost, points.place)
        sure &= origin.likeness(picture, there) > _SAME
        if shown is None:
            carried = origin.together(origin.place, there, sure & self._shown(index, there, sure))
            return points if carried is None else replace(points, place=carried[0], seen=carried[1])
        place = np.where(sure[:, None], there, points.place)
        carried = origin.together(origin.place, place, sure | points.seen)
        if carried is None:
            return points
        seen = points.seen | (sure & carried[1])
        return replace(points, place=np.where(seen[:, None], place, carried[0]), seen=seen)

    def _shown(self, index: int, there: F32, sure: Bool) -> Bool:
        """Which points (478,) can be seen as far as anybody knows."""
        tracked = (np.asarray(self._track.landmarks[index], np.float32) - self._low) * self._scale
        astray = float(np.median(np.linalg.norm(tracked - there, axis=1)[sure])) if sure.any() else 0.0
        if astray < _ASTRAY * self._side:  # else what is hidden was sought where the face isn't
            return np.asarray(self._visibility(index) > VISIBLE)
        return np.ones(len(there), bool)


@dataclass(frozen=True, eq=False)
class _Origin:
    """The clear frame that points come from."""

    picture: U8
    """(H, W) grey."""
    place: F32
    """(478, 2) where they are in it, pixels."""
    seen: Bool
    """(478,) which are clear."""
    surroundings: F32
    """(478, P) what is around each, with mean 0 and length 1."""
    ways: F32
    """(478, 2, 10) how each moves if all do as one body does (`_ways`)."""

    def likeness(self, picture: U8, place: F32) -> F32:
        """Correlations (478,) of what is around points of a picture with what was around them here."""
        return np.asarray((self.surroundings * _surroundings(picture, place)).sum(1))

    def together(self, place: F32, there: F32, sure: Bool) -> tuple[F32, Bool] | None:
        """Where points (478, 2) are and which are seen, if enough of the sure ones move together; others go along.

        They move together if they do as one solid body before an affine camera, so that a turning head is one, too. It
        is fitted with weights that take less and less disagreement (Black & Rangarajan 1996, Geman-McClure).
        """
        if sure.sum() < _LEAST_POINTS:
            return None
        moved, ways = there[sure] - place[sure], self.ways[sure]
        agreement = _AGREEMENT + min(_BENT * float(np.median(np.linalg.norm(moved, axis=1))), _BENT_AT_MOST)
        motion, astray = _common_motion(ways, moved, np.ones(len(moved), np.float32))
        for tolerance in _TOLERANCES:
            motion, astray = _common_motion(ways, moved, 1 / (1 + (astray / tolerance) ** 2) ** 2)
        agreeing = astray < agreement
        if agreeing.sum() < max(_LEAST_POINTS, _MAJORITY * len(moved)):
            return None
        seen = sure.copy()
        seen[sure] = agreeing
        return np.where(seen[:, None], there, place + self.ways @ motion).astype(np.float32), seen


@dataclass(frozen=True, eq=False)
class _Points:
    """Points in a picture; those that aren't seen go along with the others."""

    place: F32
    """(478, 2) pixels of the cut-out picture."""
    seen: Bool
    """(478,)."""
    origin: _Origin


def _ways(place: F32, depth: F32) -> F32:
    """(478, 2, 10): how points of depth (478,) move in the picture if they are turned in it and brought nearer, moved,
    and sheared and turned out of it."""
    points = np.concatenate([place, depth[:, None]], 1)
    x, y, z = ((points - points.mean(0)) / np.sqrt(np.ptp(place, axis=0).prod())).T
    no, one = np.zeros_like(x), np.ones_like(x)
    across = [x, -y, one, no, x, y, z, no, no, no]
    down = [y, x, no, one, no, no, no, x, y, z]
    return np.stack([np.stack(across, 1), np.stack(down, 1)], 1).astype(np.float32)


def _common_motion(ways: F32, moved: F32, weights: F32) -> tuple[F32, F32]:
    """How points of ways (N, 2, 10) that moved (N, 2) move together, (10,), and by how far each doesn't (N,)."""
    held = ways * weights[:, None, None]
    system = np.einsum("nci,ncj->ij", held, ways) + _STIFF
    motion = np.linalg.solve(system, np.einsum("nci,nc->i", held, moved))
    return motion, np.linalg.norm(ways @ motion - moved, axis=1)


def _textured(picture: U8, place: F32) -> Bool:
    """Which points (478, 2) can be told from their neighbours (Shi & Tomasi 1994)."""
    corners = cv2.cornerMinEigenVal(picture, 9, ksize=3)
    at = cv2.remap(
        corners, place[:, None, 0], place[:, None, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(at[:, 0] > _TEXTURE)


def _surroundings(picture: U8, place: F32) -> F32:
    """Grey values around points (478, 2), (478, P), with mean 0 and length 1."""
    across = np.arange(_PATCH, dtype=np.float32) - _PATCH // 2
    x = (place[:, None, None, 0] + across[None, None, :]).repeat(_PATCH, 1).reshape(-1, _PATCH)
    y = (place[:, None, None, 1] + across[None, :, None]).repeat(_PATCH, 2).reshape(-1, _PATCH)
    grey = cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    around = grey.reshape(len(place), -1).astype(np.float32)
    around -= around.mean(1, keepdims=True)
    return np.asarray(around / np.maximum(np.linalg.norm(around, axis=1, keepdims=True), 1e-3), np.float32)


def _sought(
    picture: U8,
    other: U8,
    place: F32,
    wanted: Bool,
    guess: F32 | None = None,
) -> tuple[F32, Bool]:
    """Where points (478, 2) of a picture are in another one, near a guess, and which of those wanted (478,) were
    found there and, from there, here again."""
    there, sure = (place if guess is None else guess).copy(), wanted.copy()
    if wanted.any():
        start = place[wanted]
        there[wanted], found = _flow(picture, other, start, None if guess is None else guess[wanted])
        back, returned = _flow(other, picture, there[wanted], None if guess is None else start)
        sure[wanted] = found & returned & (np.linalg.norm(back - start, axis=1) < _RETURN)
    return there, sure


def _flow(picture: U8, other: U8, place: F32, guess: F32 | None = None) -> tuple[F32, Bool]:
    """Where points (N, 2) of a picture are in another one, near a guess (N, 2), and whether they were found."""
    guessed = (place if guess is None else guess)[:, None].astype(np.float32)
    there, found, _ = cv2.calcOpticalFlowPyrLK(
        picture,
        other,
        place[:, None],
        guessed,
        winSize=_WINDOW,
        maxLevel=_LEVELS,
        criteria=_STOP,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    return there[:, 0], found[:, 0] > 0


def _merged(track: FaceTrack, changed: RecordFile) -> FaceTrack:
    """The track with the refined frames, in a new temporary file."""
    result = RecordFile(_RECORD)
    confidence = track.confidence.copy()
    waiting = (record for block in changed.blocks() for record in block)
    following = next(waiting, None)
    for start in range(0, len(track), BLOCK):
        block = np.zeros(min(BLOCK, len(track) - start), _RECORD)
        block["landmarks"] = track.landmarks[start : start + BLOCK]
        while following is not None and following["frame"] < start + BLOCK:
            frame = int(following["frame"])
            block[frame - start] = following
            confidence[frame] = max(confidence[frame], CONFIDENCE)
            following = next(waiting, None)
        result.append(block)
    return replace(
        track,
        flow_landmarks=StoredArray(result, "landmarks"),
        flow_tracked=StoredArray(result, "flow_tracked"),
        flow_confidence=confidence,
    )
