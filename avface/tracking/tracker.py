"""Follow the faces of a clip in one streaming pass and hand out one person's track.

Faces are followed frame by frame with MediaPipe's landmark network, each in the region its last landmarks
give. The detector runs where it is needed: on the first frame, after a cut, for a second after somebody was
lost, and otherwise every 0.4 seconds to see whether somebody has come in. On one face all this together
costs about as much as MediaPipe's own loop, which runs the detector on every frame in which it sees fewer
faces than its maximum (28 % more time on one face with a maximum of two).

What is followed without a gap is a tracklet. Within a shot faces are given to tracklets by place, size and
looks (`association`); which tracklets are one person is decided at the end, from averages over all their
frames (`identity`), so a person who turns away or comes back after a cut is not decided on by a single
frame.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from avface.arrays import F32, F64, U8, Int
from avface.errors import AvfaceError
from avface.tracking.aligned_crops import SIDE, AlignedCrops, face_view, next_view, spread_out, view_matrix
from avface.tracking.association import (
    Candidate,
    Expected,
    associate,
    without_duplicates,
)
from avface.tracking.face_texture import FaceTexture
from avface.tracking.face_track import BLOCK, POINT_RECORD, FaceTrack, RecordFile, Segment, StoredArray
from avface.tracking.facemesh import Face, FaceMesh, Region
from avface.tracking.reidentification import STABLE_LANDMARKS, Description, describe, merge, similarity
from avface.tracking.shots import Change, with_changes
from avface.tracking.visibility import FaceVisibility

SCOUT_SECONDS = 0.4
"""Time between two looks for people who have come in: a second person starts at most this much late."""
THOROUGH_SECONDS = 2.0
"""Time between two thorough looks, for very small and very large faces; SCOUT_SECONDS while nobody is
seen."""
SEARCH_SECONDS = 1.0
"""After somebody is lost the detector runs on every frame for this long."""
KEEP_SECONDS = 0.5
"""A lost person's tracklet can be taken up again for this long; later a new one begins."""
DESCRIBE_EVERY = 3
"""Frames between two descriptions of a person who is alone in the picture."""
DESCRIPTION_MEMORY = 60
"""A tracklet's description counts for at most this many frames while it follows: it keeps up with slow
changes."""
STRANGER = 0.03
"""A face less similar than this to its tracklet's average is not averaged in; at a cut it is somebody
else."""
SAME_PERSON = 0.5
"""Tracklets at least this similar, and never seen at once, are one person."""
SAME_PERSON_NEARBY = 0.02
"""The same for a face that comes back in the same shot, soon, and close to where it was lost."""
_JUMP_CERTAIN, _JUMP_POSSIBLE = 0.03, 0.1
"""Least jump of the landmarks, in face sizes, that confirms a certain or a possible cut."""
_JUMP_ABOVE_RECENT = 4.0
"""And least jump over the usual one."""

_SIGHTING = np.dtype(
    [
        ("frame", "<i4"),
        ("tracklet", "<i4"),
        ("crop", "<f4", (4,)),
        ("confidence", "<f4"),
        ("points", POINT_RECORD),
    ]
)
_TEXTURE = np.dtype([("texture", "u1", FaceTexture.SHAPE)])
"""What a sighting's face looks like; written beside the sightings, if at all."""
_VIEW = np.dtype(
    [("frame", "<i4"), ("tracklet", "<i4"), ("picture", "u1", (SIDE, SIDE)), ("landmarks", "<f4", (478, 2))]
)
"""A view of a face; of some sightings only."""
_VIEWS_AT_ONCE = 64
"""Read from disk together: 3 MB."""


class Frame(Protocol):
    """What tracking needs of a video frame (`avface.media.Frame`)."""

    @property
    def time(self) -> float:
        """Seconds."""

    @property
    def image(self) -> U8:
        """(H, W, 3) uint8 RGB; not written to while tracking runs, which holds on to three frames."""


@dataclass
class _Tracklet:
    """One face followed without a gap of more than KEEP_SECONDS."""

    number: int
    segment: int
    start: int
    face: Face
    """The last sighting."""
    first_centre: tuple[float, float]
    first_size: float
    description: Description
    region: Region | None = None
    """Where to look in the next frame; None while lost."""
    before: Face | None = None
    """The sighting one frame before the last, if there was one."""
    end: int = -1
    last_time: float = 0.0
    velocity: F32 = field(default_factory=lambda: np.zeros(2, np.float32))
    usual_jump: float = 0.01
    frames: int = 0
    next_view: int = 1
    """Sightings after which the next view is kept."""
    prominence: float = 0.0

    def jump(self, face: Face) -> float:
        """Mean motion of the stable points since the last sighting, in face sizes."""
        steps = face.landmarks[STABLE_LANDMARKS] - self.face.landmarks[STABLE_LANDMARKS]
        return _motion(steps) / self.face.size

    def learn(self, description: Description) -> None:
        """Average in another frame's looks, unless they are a stranger's: something is before the face."""
        if self.description.count < 5 or similarity(self.description, description) >= STRANGER:
            self.description = merge(self.description, description, DESCRIPTION_MEMORY)


def _motion(steps: F32) -> float:
    """Mean length of steps (N, 2 or more) in the picture."""
    return float(np.sqrt(steps[:, 0] ** 2 + steps[:, 1] ** 2).mean())


def frame_confidence(
    face: Face, image_size: tuple[int, int], before: Face | None = None, before_that: Face | None = None
) -> float:
    """How far one frame's landmarks can be trusted, in (0, 1].

    A product of four factors, each 1 in a good frame:

    * presence: the network's score as a logit, 1 from 0.999 upwards (it was above that in every frame of
      six clips and on partly covered faces, and 0.64 to 0.99 on faces fully covered by a flat patch);
    * size: face size over 30 pixels, below which the points' error grows from 0.5 % to 1 % at 15 and 3 % at
      7;
    * inside: the part of the 478 points within the picture;
    * motion: 1 / (1 + (a / 0.15)^2) for the mean acceleration a of the stable points, in face sizes a frame
      squared. Speech and nods stay below 0.08 even in coarse clips; losing the face and finding it
      elsewhere does not.

    It says nothing of a hand before part of a face, which the landmark network does not notice.
    `before` and `before_that` are the same face one and two frames earlier, where it was seen then.
    """
    presence = min(max(face.presence, 1e-6), 1 - 1e-6)
    value = min(math.log(presence / (1 - presence)) / 6.9, 1.0) * min(face.size / 30, 1.0)
    x0, y0, x1, y1 = face.box
    if min(x0, y0) < -0.5 or x1 > image_size[0] - 0.5 or y1 > image_size[1] - 0.5:
        xy = face.landmarks[:, :2]
        value *= float(((xy > -0.5) & (xy < np.array(image_size, np.float32) - 0.5)).all(axis=1).mean())
    if before is not None and before_that is not None:
        now, last, first = (one.landmarks[STABLE_LANDMARKS] for one in (face, before, before_that))
        value /= 1 + (_motion(now - 2 * last + first) / face.size / 0.15) ** 2
    return min(max(value, 0.01), 1.0)


class _Tracker:
    """State of the streaming pass."""

    def __init__(self, mesh: FaceMesh, max_faces: int, occlusions: bool, views: bool) -> None:
        self.mesh = mesh
        self.max_faces = max_faces
        self.live: list[_Tracklet] = []
        self.all: list[_Tracklet] = []
        self.cuts = [0]
        self.times = array("d")
        self.sightings = RecordFile(_SIGHTING)
        self.sampler = FaceTexture() if occlusions else None
        self.textures = RecordFile(_TEXTURE) if occlusions else None
        self.views = RecordFile(_VIEW) if views else None
        self.image_size: tuple[int, int] | None = None
        self._record = np.zeros(1, _SIGHTING)
        self._last_scout = self._last_thorough = -math.inf
        self._search_until = -math.inf

    def step(self, frame: Frame, change: Change) -> None:
        """Take in the next frame."""
        index, time, image = len(self.times), float(frame.time), frame.image
        size = (image.shape[1], image.shape[0])
        self.times.append(time)
        if self.image_size is None:
            self.image_size = size
        elif size != self.image_size:
            raise AvfaceError(
                f"frame {index} is {size[0]} x {size[1]} pixels, those before it {self.image_size[0]} x "
                f"{self.image_size[1]}: convert the video to one size"
            )

        faces = [
            (face, tracklet)
            for tracklet in self.live
            if tracklet.region is not None
            and (face := self.mesh.landmarks(image, tracklet.region)) is not None
        ]
        if change and self._is_cut(change, image, faces):
            self.cuts.append(index)
            self.live, faces = [], []
            self._last_scout = self._last_thorough = -math.inf
        elif (
            change is Change.PARTIAL
        ):  # landmarks jump, too, when something comes before the face: look for it again
            faces = [
                (face, tracklet) for face, tracklet in faces if not _jumps(face, tracklet, _JUMP_POSSIBLE)
            ]
        kept = without_duplicates([face for face, _ in faces])
        faces = [faces[number] for number in kept]
        lost = any(all(tracklet is not owner for _, owner in faces) for tracklet in self.live)
        found = [face for face, _ in faces]
        if lost:
            self._search_until = time + SEARCH_SECONDS
        alone = len(faces) == 1 and len(self.live) == 1
        if not faces or time < self._search_until or time - self._last_scout >= SCOUT_SECONDS:
            pause = THOROUGH_SECONDS if faces else SCOUT_SECONDS
            thorough = time - self._last_thorough >= pause
            self._last_scout = time
            if thorough:
                self._last_thorough = time
            found += self._detect(image, found, thorough)
        if alone and len(found) == 1 and self._carries_on(image, faces[0][0], self.live[0], index):
            self._see(self.live[0], image, found[0], index, time)
        elif found:
            self._assign(image, found, index, time)
        self._forget(time)

    @staticmethod
    def _is_cut(change: Change, image: U8, faces: list[tuple[Face, _Tracklet]]) -> bool:
        """Ask the faces whether they carried on smoothly through a change of the picture."""
        if not faces:
            return change is Change.CERTAIN
        least = _JUMP_CERTAIN if change is Change.CERTAIN else _JUMP_POSSIBLE
        jumping = all(_jumps(face, tracklet, least) for face, tracklet in faces)
        alike = (
            similarity(tracklet.description, describe(image, face.landmarks)) for face, tracklet in faces
        )
        if change is Change.PARTIAL:
            return jumping and min(alike) > SAME_PERSON
        return jumping or (change is Change.CERTAIN and max(alike) < STRANGER)

    def _detect(self, image: U8, known: list[Face], thorough: bool) -> list[Face]:
        """Faces that are not among the known ones."""
        new: list[Face] = []
        regions = self.mesh.detect(image, thorough=thorough)
        for region in sorted(regions, key=lambda one: -one.side):
            if len(known) + len(new) >= self.max_faces:
                break
            if any(self._covers(face, region) for face in known):
                continue
            face = self.mesh.landmarks(image, region)
            if face is None:
                continue
            together = [*known, *new, face]
            if len(without_duplicates(together)) == len(together):
                new.append(face)
        return new

    @staticmethod
    def _covers(face: Face, region: Region) -> bool:
        """Whether a detection is of a face that is followed already."""
        apart = math.hypot(face.centre[0] - region.x, face.centre[1] - region.y)
        return apart < 0.25 * face.size and 0.6 < region.side / (1.5 * face.size) < 1.6

    def _carries_on(self, image: U8, face: Face, tracklet: _Tracklet, index: int) -> bool:
        """The short way for somebody alone: no doubt that this is still the same face?"""
        if _jumps(face, tracklet, _JUMP_POSSIBLE):
            return False
        if index % DESCRIBE_EVERY == 0:
            tracklet.learn(describe(image, face.landmarks))
        return True

    def _assign(self, image: U8, found: list[Face], index: int, time: float) -> None:
        """Give each face to a tracklet by place, size and looks, or start a new one."""
        descriptions = [describe(image, face.landmarks) for face in found]
        candidates = [
            Candidate(face.centre, face.size, description)
            for face, description in zip(found, descriptions, strict=True)
        ]
        expected = []
        for tracklet in self.live:
            missing = index - tracklet.end - 1
            x, y = tracklet.face.centre + tracklet.velocity * (missing + 1)
            expected.append(Expected((float(x), float(y)), tracklet.face.size, tracklet.description, missing))
        owners = associate(expected, candidates)
        followed = list(self.live)
        for face, description, owner in zip(found, descriptions, owners, strict=True):
            if owner is None:
                self._begin(image, face, description, index, time)
            else:
                followed[owner].learn(description)
                self._see(followed[owner], image, face, index, time)

    def _begin(self, image: U8, face: Face, description: Description, index: int, time: float) -> None:
        tracklet = _Tracklet(
            number=len(self.all),
            segment=len(self.cuts) - 1,
            start=index,
            face=face,
            first_centre=face.centre,
            first_size=face.size,
            description=description,
        )
        self.all.append(tracklet)
        self.live.append(tracklet)
        self._see(tracklet, image, face, index, time)

    def _see(self, tracklet: _Tracklet, image: U8, face: Face, index: int, time: float) -> None:
        """Record a sighting."""
        assert self.image_size is not None
        before = tracklet.face if tracklet.frames and tracklet.end == index - 1 else None
        confidence = frame_confidence(face, self.image_size, before, tracklet.before if before else None)
        if before is not None:
            moved = np.subtract(face.centre, before.centre).astype(np.float32)
            tracklet.velocity = np.asarray(0.5 * tracklet.velocity + 0.5 * moved, dtype=np.float32)
            tracklet.usual_jump += 0.1 * (tracklet.jump(face) - tracklet.usual_jump)
        tracklet.before, tracklet.face = before, face
        tracklet.region = face.next_region
        tracklet.end, tracklet.last_time = index, time
        tracklet.frames += 1
        tracklet.prominence += _prominence(face, self.image_size)
        record = self._record
        record["frame"], record["tracklet"] = index, tracklet.number
        points = record["points"]
        points["landmarks"], points["depth"] = face.landmarks[:, :2], face.landmarks[:, 2]
        record["crop"], record["confidence"] = face.box, confidence
        self.sightings.append(record)
        if self.sampler is not None and self.textures is not None:
            texture = np.zeros((), _TEXTURE)
            texture["texture"] = self.sampler.sample(image, face.landmarks)
            self.textures.append(texture)
        if self.views is not None and tracklet.frames >= tracklet.next_view:
            tracklet.next_view = next_view(tracklet.frames)
            view = np.zeros((), _VIEW)
            view["frame"], view["tracklet"] = index, tracklet.number
            view["picture"] = face_view(image, view_matrix(face.landmarks))
            view["landmarks"] = face.landmarks[:, :2]
            self.views.append(view)

    def close(self) -> None:
        """Give back the temporary files."""
        for file in (self.sightings, self.textures, self.views):
            if file is not None:
                file.close()

    def _forget(self, time: float) -> None:
        """Stop looking where a face was lost; let go of those gone for good."""
        index = len(self.times) - 1
        for tracklet in self.live:
            if tracklet.end < index:
                tracklet.region = None
        self.live = [one for one in self.live if time - one.last_time <= KEEP_SECONDS]


def _jumps(face: Face, tracklet: _Tracklet, least: float) -> bool:
    """Whether a face moves by more than so many of its sizes, and by much more than it usually does."""
    return tracklet.jump(face) > max(least, _JUMP_ABOVE_RECENT * tracklet.usual_jump)


def _prominence(face: Face, image_size: tuple[int, int]) -> float:
    """What one frame adds to a person's prominence: area in the picture, halved in its corners."""
    width, height = image_size
    x, y = face.centre
    off = math.hypot((x + 0.5) / width - 0.5, (y + 0.5) / height - 0.5) / math.hypot(0.5, 0.5)
    return face.size**2 / (width * height) * (1 - 0.5 * min(off, 1.0))


def _people(tracklets: list[_Tracklet], times: F64) -> list[list[_Tracklet]]:
    """Tracklets grouped into people, the most prominent first.

    Greedy, in the order of time within a shot and of length across shots: a tracklet joins the most similar
    person not seen at the same time, if similar enough.
    """
    groups: list[list[_Tracklet]] = []
    for tracklet in tracklets:  # In order of time: first what a shot itself says.
        nearby = [
            (alike, group)
            for group in groups
            if _comes_back(group[-1], tracklet, times)
            and not _at_once(group, [tracklet])
            and (alike := similarity(_looks(group), tracklet.description)) >= SAME_PERSON_NEARBY
        ]
        if nearby:
            max(nearby, key=lambda pair: pair[0])[1].append(tracklet)
        else:
            groups.append([tracklet])

    people: list[list[_Tracklet]] = []
    looks: list[Description] = []
    for group in sorted(groups, key=lambda one: -sum(tracklet.frames for tracklet in one)):
        own = _looks(group)
        similarities = [
            0.0 if _at_once(person, group) else similarity(known, own)
            for person, known in zip(people, looks, strict=True)
        ]
        best = int(np.argmax(similarities)) if similarities else -1
        if best >= 0 and similarities[best] >= SAME_PERSON:
            people[best] += group
            looks[best] = merge(looks[best], own)
        else:
            people.append(list(group))
            looks.append(own)
    return sorted(people, key=lambda person: -sum(tracklet.prominence for tracklet in person))


def _looks(group: list[_Tracklet]) -> Description:
    total = group[0].description
    for tracklet in group[1:]:
        total = merge(total, tracklet.description)
    return total


def _at_once(one: list[_Tracklet], other: list[_Tracklet]) -> bool:
    return any(a.start <= b.end and b.start <= a.end for a in one for b in other)


def _comes_back(old: _Tracklet, new: _Tracklet, times: F64) -> bool:
    """Whether a face appears soon after another was lost, in the same shot and close by."""
    if old.segment != new.segment or new.start <= old.end or times[new.start] - times[old.end] > 2.0:
        return False
    size, centre = old.face.size, old.face.centre
    apart = math.hypot(new.first_centre[0] - centre[0], new.first_centre[1] - centre[1])
    return apart < 1.5 * size and 1 / 1.6 < new.first_size / size < 1.6


class Tracks:
    """Everybody seen in a clip. Keeps its temporary file until closed; tracks taken from it outlive it."""

    def __init__(
        self,
        people: list[list[_Tracklet]],
        sightings: RecordFile,
        times: F64,
        cuts: list[int],
        image_size: tuple[int, int],
        textures: RecordFile | None = None,
        views: RecordFile | None = None,
    ) -> None:
        self._people, self._sightings, self._textures, self._views = people, sightings, textures, views
        self._times, self._cuts, self.image_size = times, cuts, image_size

    def __len__(self) -> int:
        """Number of people."""
        return len(self._people)

    def frames_seen(self, face: int) -> int:
        """Number of frames in which the N-th most prominent person is seen."""
        return sum(tracklet.frames for tracklet in self._people[face])

    def person_at(self, point: tuple[float, float]) -> int:
        """Who is under a point (x, y in pixels) in the first frame that has somebody under it; failing
        that, who is nearest to it in the first frame that has anybody."""
        person_of = {one.number: number for number, person in enumerate(self._people) for one in person}
        x, y = point
        for part in self._sightings.blocks():
            box = part["crop"]
            under = (box[:, 0] <= x) & (x <= box[:, 2]) & (box[:, 1] <= y) & (y <= box[:, 3])
            if under.any():
                frame = part["frame"][under][0]
                under &= part["frame"] == frame
                return self._nearest(box[under], part["tracklet"][under], person_of, point)
        first = next(self._sightings.blocks())
        first = first[first["frame"] == first["frame"][0]]
        return self._nearest(first["crop"], first["tracklet"], person_of, point)

    @staticmethod
    def _nearest(
        box: F32, tracklet: npt.NDArray[np.int32], person_of: dict[int, int], point: tuple[float, float]
    ) -> int:
        gap = np.hypot((box[:, 0] + box[:, 2]) / 2 - point[0], (box[:, 1] + box[:, 3]) / 2 - point[1])
        return person_of[int(tracklet[int(np.argmin(gap))])]

    def select(self, face: int | tuple[float, float] | None = None) -> FaceTrack:
        """One person's track.

        face: N for the N-th most prominent person, from 0 (None is 0); or a point (x, y) in pixels, see
        `person_at`.
        Raises AvfaceError where there is no such person.
        """
        if not self._people:
            raise AvfaceError(
                f"no face found in any of {len(self._times)} frames: faces must be upright, lit, and at "
                "least about a twentieth of the picture's longer side"
            )
        if isinstance(face, tuple):
            face = self.person_at(face)
        number = 0 if face is None else face
        if not 0 <= number < len(self._people):
            raise AvfaceError(
                f"face {number} was asked for, but the video shows {len(self._people)} "
                f"(numbered from 0, the most prominent first)"
            )
        person = self._people[number]
        crop = np.full((len(self._times), 4), np.nan, np.float32)
        confidence = np.zeros(len(self._times), np.float32)
        points = RecordFile(POINT_RECORD)
        tracklets = np.array([tracklet.number for tracklet in person])
        for part in self._sightings.blocks():
            part = part[np.isin(part["tracklet"], tracklets)]
            crop[part["frame"]], confidence[part["frame"]] = part["crop"], part["confidence"]
            for run in np.split(part, np.flatnonzero(np.diff(part["frame"]) != 1) + 1):
                if len(run):
                    _append_unseen(points, int(run["frame"][0]) - len(points))
                    points.append(run["points"])
        _append_unseen(points, len(self._times) - len(points))
        return FaceTrack(
            landmarks=StoredArray(points, "landmarks"),
            depth=StoredArray(points, "depth"),
            confidence=confidence,
            crop=crop,
            times=self._times,
            segments=self._segments(person),
            image_size=self.image_size,
            visibility=None if self._textures is None else self._visibility(tracklets, self._textures),
            views=None if self._views is None else self._spread_views(tracklets, self._views),
        )

    @staticmethod
    def _spread_views(tracklets: Int, views: RecordFile) -> AlignedCrops:
        """Some views of a person, given by tracklets, spread over the clip."""
        owners = [part[["frame", "tracklet"]].copy() for part in views.blocks(_VIEWS_AT_ONCE)]
        index = np.concatenate(owners)
        own = np.flatnonzero(np.isin(index["tracklet"], tracklets))
        own = own[np.argsort(index["frame"][own], kind="stable")]
        chosen = own[spread_out(index["frame"][own])]
        records = np.concatenate([views.read(n, n + 1) for n in chosen.tolist()])
        return AlignedCrops(records["frame"].astype(np.int64), records["picture"], records["landmarks"])

    def _visibility(self, tracklets: Int, textures: RecordFile) -> StoredArray:
        """The probability that each landmark (T, 478) of a person, given by tracklets, is seen."""
        visibility = FaceVisibility()

        def unseen_until(frame: int) -> None:
            while len(visibility) < frame:
                visibility.add(new_shot=len(visibility) in cuts)

        cuts = set(self._cuts)
        for part, look in zip(self._sightings.blocks(), textures.blocks(), strict=True):
            for place in np.flatnonzero(np.isin(part["tracklet"], tracklets)):
                frame = int(part["frame"][place])
                unseen_until(frame)
                visibility.add(look["texture"][place], new_shot=frame in cuts)
        unseen_until(len(self._times))
        return visibility.estimate()

    def _segments(self, person: list[_Tracklet]) -> tuple[Segment, ...]:
        reference = max(person, key=lambda tracklet: tracklet.frames)
        ends = [*self._cuts[1:], len(self._times)]
        result = []
        for number, (start, end) in enumerate(zip(self._cuts, ends, strict=True)):
            here = [one for group in self._people for one in group if one.segment == number]
            own = [one for one in here if any(one is mine for mine in person)]
            alike = [
                1.0 if one is reference else similarity(reference.description, one.description)
                for one in (own or here)
            ]
            result.append(Segment(start, end, bool(own), max(alike, default=float("nan"))))
        return tuple(result)

    def close(self) -> None:
        """Give back the temporary files."""
        for file in (self._sightings, self._textures, self._views):
            if file is not None:
                file.close()

    def __enter__(self) -> Tracks:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _append_unseen(points: RecordFile, frames: int) -> None:
    """Write nan for frames in which the person is not seen."""
    unseen = np.zeros(1, POINT_RECORD)
    unseen["landmarks"] = unseen["depth"] = np.nan
    for begin in range(0, frames, BLOCK):
        points.append(np.repeat(unseen, min(BLOCK, frames - begin)))


def track_everyone(
    frames: Iterable[Frame],
    *,
    max_faces: int = 4,
    on_frame: Callable[[int], None] | None = None,
    occlusions: bool = False,
    views: bool = False,
) -> Tracks:
    """Follow all faces of a clip in one pass over its frames.

    Args:
        frames: Video frames in order, all of one size. Memory stays the same however many there are.
        max_faces: How many faces are followed at once.
        on_frame: Called with the number of frames done so far.
        occlusions: Whether to look for what hides parts of the faces.
        views: Whether to keep some views of each face (`avface.tracking.aligned_crops`).

    Raises:
        ValueError: if max_faces is below 1.
        AvfaceError: if there are no frames, no room for the temporary file, or MediaPipe lacks its models.
    """
    if max_faces < 1:
        raise ValueError(f"max_faces={max_faces} must be at least 1")
    with FaceMesh() as mesh:
        tracker = _Tracker(mesh, max_faces, occlusions, views)
        try:
            for count, (frame, change) in enumerate(with_changes(frames), start=1):
                tracker.step(frame, change)
                if on_frame is not None:
                    on_frame(count)
        except BaseException:
            tracker.close()
            raise
    if tracker.image_size is None:
        tracker.close()
        raise AvfaceError("the video has no frames to track a face in")
    times = np.array(tracker.times, np.float64)
    people = _people(tracker.all, times)
    return Tracks(
        people, tracker.sightings, times, tracker.cuts, tracker.image_size, tracker.textures, tracker.views
    )


def track(
    frames: Iterable[Frame],
    *,
    face: int | tuple[float, float] | None = None,
    max_faces: int = 4,
    on_frame: Callable[[int], None] | None = None,
    occlusions: bool = False,
    views: bool = False,
) -> FaceTrack:
    """Follow one person through a clip in one pass over its frames.

    Args:
        frames: Video frames in order, all of one size. Memory stays the same however many there are.
        face: Who: None or 0 for the most prominent person (area times time on screen, weighted towards the centre),
            N for the next ones, or a point (x, y) in pixels for whoever is first seen there (see `Tracks.person_at`).
        max_faces: How many faces are followed at once.
        on_frame: Called with the number of frames done so far.
        occlusions: Whether to look for what hides parts of the face (`FaceTrack.visibility`): about 1 ms a frame.
        views: Whether to keep some views of the face (`FaceTrack.views`).

    Raises:
        AvfaceError: as `track_everyone` does, and where no such person is seen.
    """
    with track_everyone(
        frames, max_faces=max_faces, on_frame=on_frame, occlusions=occlusions, views=views
    ) as everyone:
        return everyone.select(face)
