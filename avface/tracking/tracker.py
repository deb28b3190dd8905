"""Track the faces of a clip in one streaming pass and select one person's track.

Faces are tracked frame by frame with MediaPipe's landmark network, each in the region that its last landmarks give. The
detector runs where it is needed: on the first frame, after a cut, for a second after a face was lost, and otherwise
every 0.4 seconds for new faces. On one face all this costs about as much time as MediaPipe's own loop, which runs the
detector on every frame with fewer faces than its maximum (28 % more time on one face with a maximum of two).

A face without a gap is a tracklet. Within a shot faces are assigned to tracklets by position, size and appearance
(`association`); which tracklets are one person is decided at the end, from means over all their frames
(`reidentification`), so that no single frame decides on a person who turns away or reappears after a cut.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from avface.arrays import F32, F64, U8, Int
from avface.errors import AvfaceError
from avface.tracking.aligned_crops import (
    SIDE,
    AlignedCrops,
    aligned_crop,
    crop_matrix,
    evenly_spread,
    next_crop,
)
from avface.tracking.association import (
    Candidate,
    Expected,
    associate,
    without_duplicates,
)
from avface.tracking.covered import set_aside_covered
from avface.tracking.face_texture import FaceTexture
from avface.tracking.face_track import BLOCK, POINT_RECORD, FaceTrack, RecordFile, Segment, StoredArray
from avface.tracking.facemesh import Face, FaceMesh, Region
from avface.tracking.reidentification import (
    STABLE_LANDMARKS,
    AppearanceDescriptor,
    describe,
    merge,
    similarity,
)
from avface.tracking.shots import Change, scene_motion, with_changes
from avface.tracking.visibility import FaceVisibility

DETECTION_SECONDS = 0.4
"""Time between two detections of new faces: a second person starts at most this much late."""
THOROUGH_DETECTION_SECONDS = 2.0
"""Time between two thorough detections, for very small and very large faces; DETECTION_SECONDS without any face."""
REDETECTION_SECONDS = 1.0
"""Time for which the detector runs on every frame after a face is lost."""
MAX_GAP_SECONDS = 0.5
"""Longest gap in a tracklet; after it a new one begins."""
DESCRIPTOR_INTERVAL = 3
"""Frames between two updates of the appearance descriptor of a person who is alone in the image."""
DESCRIPTOR_MEMORY = 60
"""Largest weight of a tracklet's descriptor in updates, in frames, so that it adapts to slow changes."""
OUTLIER_SIMILARITY = 0.03
"""Similarity to its tracklet's descriptor below which a face is an outlier: it does not update the descriptor, and at a
cut it is another person's."""
SAME_PERSON = 0.5
"""Least similarity of tracklets of one person, which are never seen at once."""
SAME_PERSON_NEARBY = 0.02
"""The same for a face that reappears in the same shot, soon, and close to where it was lost."""
_JUMP_CERTAIN, _JUMP_POSSIBLE = 0.03, 0.1
"""Least jump of the landmarks, in face sizes, that confirms a certain or a possible cut."""
_JUMP_ABOVE_RECENT = 4.0
"""And least multiple of the recent jumps."""
_REACH = 0.2
"""Distance from the box of a face's landmarks, in face sizes, at which a point still belongs to the face."""
_LISTED = 12
"""People whom an error lists."""
FACES_AT_ONCE = 4
"""Faces that are followed at once unless more are asked for."""
FACES_FOR_A_POINT = 24
"""The same where the person is given by a point: anybody may be under it."""
_RECENT_TIMES = 13
"""Frames whose times give the usual interval."""

_SIGHTING = np.dtype(
    [
        ("frame", "<i4"),
        ("tracklet", "<i4"),
        ("box", "<f4", (4,)),
        ("confidence", "<f4"),
        ("points", POINT_RECORD),
    ]
)
_TEXTURE = np.dtype([("texture", "u1", FaceTexture.SHAPE)])
"""The texture of a sighting's face; in a file of their own, one for each sighting."""
_CROP = np.dtype(
    [("frame", "<i4"), ("tracklet", "<i4"), ("picture", "u1", (SIDE, SIDE)), ("landmarks", "<f4", (478, 2))]
)
"""The aligned crop of a face; of some sightings only."""
_CROPS_AT_ONCE = 64
"""Crops read from disk together: 3 MB."""


class Frame(Protocol):
    """The part of a video frame (`avface.media.Frame`) that tracking uses."""

    @property
    def time(self) -> float:
        """Seconds."""

    @property
    def image(self) -> U8:
        """(H, W, 3) uint8 RGB; not to be written to while tracking runs, which keeps four frames."""


@dataclass
class _Tracklet:
    """One face without a gap of more than MAX_GAP_SECONDS."""

    number: int
    segment: int
    start: int
    face: Face
    """The last sighting."""
    first_centre: tuple[float, float]
    first_size: float
    descriptor: AppearanceDescriptor
    region: Region | None = None
    """Its region in the next frame; None while lost."""
    before: Face | None = None
    """The sighting one frame before the last, if there was one."""
    end: int = -1
    last_time: float = 0.0
    velocity: F32 = field(default_factory=lambda: np.zeros(2, np.float32))
    recent_jump: float = 0.01
    """Exponential moving average of `jump`."""
    frames: int = 0
    next_crop: int = 1
    """Number of sightings at which the next crop is stored."""
    prominence: float = 0.0

    def jump(self, face: Face, camera: F32 | None = None) -> float:
        """Mean motion of the stable points since the last sighting, in face sizes.

        camera: (2, 3) motion of the scene in the image meanwhile, which is taken out (`shots.scene_motion`).
        """
        last = self.face.landmarks[STABLE_LANDMARKS]
        if camera is not None:
            last = np.asarray(last[:, :2] @ camera[:, :2].T + camera[:, 2], np.float32)
        return _motion(face.landmarks[STABLE_LANDMARKS, : last.shape[1]] - last) / self.face.size

    def jump_from_course(self, face: Face) -> float:
        """The same from where the stable points would be at the velocity that they had before, if it is known."""
        if self.before is None:
            return math.inf
        now, last, first = (one.landmarks[STABLE_LANDMARKS] for one in (face, self.face, self.before))
        return _motion(now - 2 * last + first) / self.face.size

    def update(self, descriptor: AppearanceDescriptor) -> None:
        """Update the mean descriptor by that of another frame, unless it is an outlier, as of an occluded face."""
        if self.descriptor.count < 5 or similarity(self.descriptor, descriptor) >= OUTLIER_SIMILARITY:
            self.descriptor = merge(self.descriptor, descriptor, DESCRIPTOR_MEMORY)


def _motion(steps: F32) -> float:
    """Mean length of steps (N, 2 or more) in the image."""
    return float(np.sqrt(steps[:, 0] ** 2 + steps[:, 1] ** 2).mean())


def frame_confidence(
    face: Face, image_size: tuple[int, int], before: Face | None = None, before_that: Face | None = None
) -> float:
    """Confidence in one frame's landmarks, in (0, 1].

    A product of four factors, each 1 in a good frame:

    * presence: the network's score as a logit, 1 from 0.999 upwards (it was above that in every frame of six clips and
      on partly occluded faces, and 0.64 to 0.99 on faces fully occluded by a flat patch);
    * size: face size over 30 pixels, below which the points' error grows from 0.5 % to 1 % at 15 and 3 % at 7;
    * inside: the share of the 478 points within the image;
    * motion: 1 / (1 + (a / 0.15)^2) for the mean acceleration a of the stable points, in face sizes a frame squared. It
      is below 0.08 for speech and nods even in coarse clips, but not where the face is lost and found elsewhere.

    Partial occlusion does not lower it, since the landmark network does not notice it.
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

    def __init__(self, mesh: FaceMesh, max_faces: int, occlusions: bool, aligned_crops: bool) -> None:
        self.mesh = mesh
        self.max_faces = max_faces
        self.live: list[_Tracklet] = []
        self.all: list[_Tracklet] = []
        self.cuts = [0]
        self.times = array("d")
        self.sightings = RecordFile(_SIGHTING)
        self.sampler = FaceTexture() if occlusions else None
        self.textures = RecordFile(_TEXTURE) if occlusions else None
        self.crops = RecordFile(_CROP) if aligned_crops else None
        self.image_size: tuple[int, int] | None = None
        self._record = np.zeros(1, _SIGHTING)
        self._last_image: U8 | None = None
        self._last_detection = self._last_thorough = -math.inf
        self._redetect_until = -math.inf

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
        cut, camera = self._judge(change, image, faces) if change else (False, None)
        self._last_image = image
        if cut:
            self.cuts.append(index)
            self.live, faces = [], []
            self._last_detection = self._last_thorough = -math.inf
        elif (
            change is Change.PARTIAL
        ):  # landmarks also jump when something comes before the face: detect it again
            faces = [
                (face, tracklet)
                for face, tracklet in faces
                if not _jumps(face, tracklet, _JUMP_POSSIBLE, camera)
            ]
        kept = without_duplicates([face for face, _ in faces])
        faces = [faces[number] for number in kept]
        lost = any(all(tracklet is not owner for _, owner in faces) for tracklet in self.live)
        found = [face for face, _ in faces]
        if lost:
            self._redetect_until = time + REDETECTION_SECONDS
        alone = len(faces) == 1 and len(self.live) == 1
        if not faces or time < self._redetect_until or time - self._last_detection >= DETECTION_SECONDS:
            interval = THOROUGH_DETECTION_SECONDS if faces else DETECTION_SECONDS
            thorough = time - self._last_thorough >= interval
            self._last_detection = time
            if thorough:
                self._last_thorough = time
            found += self._detect(image, found, thorough)
        if alone and len(found) == 1 and self._continues(image, faces[0][0], self.live[0], index):
            self._see(self.live[0], image, found[0], index, time)
        elif found:
            self._assign(image, found, index, time)
        self._forget(time)

    def _judge(
        self, change: Change, image: U8, faces: list[tuple[Face, _Tracklet]]
    ) -> tuple[bool, F32 | None]:
        """Whether a change of the image is a cut, and the motion of the camera where it is none for that reason.

        A cut needs two things: faces that do not move on smoothly, and another scene. In the same scene, moved by the
        camera at most, only a person who jumps against it is a cut: a part of the recording was left out.
        """
        if self._last_image is None or not self._is_discontinuous(change, image, faces):
            return False, None
        camera = scene_motion(self._last_image, image)
        if camera is None:
            return True, None
        lasting = self._missing_intervals()
        left_out = bool(faces) and all(
            _jumps(face, tracklet, _JUMP_POSSIBLE * lasting, camera)
            and tracklet.jump_from_course(face) > _JUMP_POSSIBLE * lasting
            and similarity(tracklet.descriptor, describe(image, face.landmarks)) > SAME_PERSON
            for face, tracklet in faces
        )
        return left_out, camera

    @staticmethod
    def _is_discontinuous(change: Change, image: U8, faces: list[tuple[Face, _Tracklet]]) -> bool:
        """Whether a change of the image may be a cut, by how smoothly the faces move through it."""
        if not faces:
            return change is Change.CERTAIN
        least = _JUMP_CERTAIN if change is Change.CERTAIN else _JUMP_POSSIBLE
        jumping = all(_jumps(face, tracklet, least) for face, tracklet in faces)
        alike = (similarity(tracklet.descriptor, describe(image, face.landmarks)) for face, tracklet in faces)
        if change is Change.PARTIAL:
            return jumping and min(alike) > SAME_PERSON
        return jumping or (change is Change.CERTAIN and max(alike) < OUTLIER_SIMILARITY)

    def _missing_intervals(self) -> float:
        """The time since the last frame over the usual one, at least 1: larger where frames were dropped."""
        steps = np.diff(np.array(self.times[-_RECENT_TIMES:], np.float64))
        return max(1.0, float(steps[-1] / max(np.median(steps), 1e-6))) if len(steps) else 1.0

    def _detect(self, image: U8, known: list[Face], thorough: bool) -> list[Face]:
        """Detected faces that are not among the known ones."""
        new: list[Face] = []
        regions = self.mesh.detect(image, thorough=thorough, turned=thorough and not known)
        for region in sorted(regions, key=lambda one: -one.side):
            if len(known) + len(new) >= self.max_faces:
                break
            if any(self._covers(face, region) for face in known):
                continue
            face = self.mesh.landmarks(image, region)
            if face is None:
                continue
            turned = self.mesh.right_way_up(image, face)
            if turned is not None:
                face = self.mesh.landmarks(image, turned) or face
            together = [*known, *new, face]
            if len(without_duplicates(together)) == len(together):
                new.append(face)
        return new

    @staticmethod
    def _covers(face: Face, region: Region) -> bool:
        """Whether a detection is of a face that is already tracked."""
        apart = math.hypot(face.centre[0] - region.x, face.centre[1] - region.y)
        return apart < 0.25 * face.size and 0.6 < region.side / (1.5 * face.size) < 1.6

    def _continues(self, image: U8, face: Face, tracklet: _Tracklet, index: int) -> bool:
        """Whether a single face is certainly the same as before and needs no assignment; updates its descriptor."""
        if _jumps(face, tracklet, _JUMP_POSSIBLE):
            return False
        if index % DESCRIPTOR_INTERVAL == 0:
            tracklet.update(describe(image, face.landmarks))
        return True

    def _assign(self, image: U8, found: list[Face], index: int, time: float) -> None:
        """Assign each face to a tracklet by position, size and appearance, or start a new one."""
        descriptors = [describe(image, face.landmarks) for face in found]
        candidates = [
            Candidate(face.centre, face.size, descriptor)
            for face, descriptor in zip(found, descriptors, strict=True)
        ]
        expected = []
        for tracklet in self.live:
            missing = index - tracklet.end - 1
            x, y = tracklet.face.centre + tracklet.velocity * (missing + 1)
            expected.append(Expected((float(x), float(y)), tracklet.face.size, tracklet.descriptor, missing))
        owners = associate(expected, candidates)
        tracklets = list(self.live)
        for face, descriptor, owner in zip(found, descriptors, owners, strict=True):
            if owner is None:
                self._begin(image, face, descriptor, index, time)
            else:
                tracklets[owner].update(descriptor)
                self._see(tracklets[owner], image, face, index, time)

    def _begin(
        self, image: U8, face: Face, descriptor: AppearanceDescriptor, index: int, time: float
    ) -> None:
        tracklet = _Tracklet(
            number=len(self.all),
            segment=len(self.cuts) - 1,
            start=index,
            face=face,
            first_centre=face.centre,
            first_size=face.size,
            descriptor=descriptor,
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
            tracklet.recent_jump += 0.1 * (tracklet.jump(face) - tracklet.recent_jump)
        tracklet.before, tracklet.face = before, face
        tracklet.region = face.next_region
        tracklet.end, tracklet.last_time = index, time
        tracklet.frames += 1
        tracklet.prominence += _prominence(face, self.image_size)
        record = self._record
        record["frame"], record["tracklet"] = index, tracklet.number
        points = record["points"]
        points["landmarks"], points["depth"] = face.landmarks[:, :2], face.landmarks[:, 2]
        record["box"], record["confidence"] = face.box, confidence
        self.sightings.append(record)
        if self.sampler is not None and self.textures is not None:
            texture = np.zeros((), _TEXTURE)
            texture["texture"] = self.sampler.sample(image, face.landmarks)
            self.textures.append(texture)
        if self.crops is not None and tracklet.frames >= tracklet.next_crop:
            tracklet.next_crop = next_crop(tracklet.frames)
            crop = np.zeros((), _CROP)
            crop["frame"], crop["tracklet"] = index, tracklet.number
            crop["picture"] = aligned_crop(image, crop_matrix(face.landmarks))
            crop["landmarks"] = face.landmarks[:, :2]
            self.crops.append(crop)

    def close(self) -> None:
        """Close the temporary files."""
        for file in (self.sightings, self.textures, self.crops):
            if file is not None:
                file.close()

    def _forget(self, time: float) -> None:
        """Forget the regions of lost faces, and tracklets whose gap is too long."""
        index = len(self.times) - 1
        for tracklet in self.live:
            if tracklet.end < index:
                tracklet.region = None
        self.live = [one for one in self.live if time - one.last_time <= MAX_GAP_SECONDS]


def _jumps(face: Face, tracklet: _Tracklet, least: float, camera: F32 | None = None) -> bool:
    """Whether a face moves by more than `least` of its sizes, and by much more than recently; see `_Tracklet.jump`."""
    return tracklet.jump(face, camera) > max(least, _JUMP_ABOVE_RECENT * tracklet.recent_jump)


def _prominence(face: Face, image_size: tuple[int, int]) -> float:
    """One frame's share in a person's prominence: area in the image, halved in its corners."""
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
    for tracklet in tracklets:  # in order of time: first within a shot
        nearby = [
            (alike, group)
            for group in groups
            if _reappears(group[-1], tracklet, times)
            and not _at_once(group, [tracklet])
            and (alike := similarity(_mean_descriptor(group), tracklet.descriptor)) >= SAME_PERSON_NEARBY
        ]
        if nearby:
            max(nearby, key=lambda pair: pair[0])[1].append(tracklet)
        else:
            groups.append([tracklet])

    people: list[list[_Tracklet]] = []
    descriptors: list[AppearanceDescriptor] = []
    for group in sorted(groups, key=lambda one: -sum(tracklet.frames for tracklet in one)):
        own = _mean_descriptor(group)
        similarities = [
            0.0 if _at_once(person, group) else similarity(known, own)
            for person, known in zip(people, descriptors, strict=True)
        ]
        best = int(np.argmax(similarities)) if similarities else -1
        if best >= 0 and similarities[best] >= SAME_PERSON:
            people[best] += group
            descriptors[best] = merge(descriptors[best], own)
        else:
            people.append(list(group))
            descriptors.append(own)
    return sorted(people, key=lambda person: -sum(tracklet.prominence for tracklet in person))


def _mean_descriptor(group: list[_Tracklet]) -> AppearanceDescriptor:
    total = group[0].descriptor
    for tracklet in group[1:]:
        total = merge(total, tracklet.descriptor)
    return total


def _at_once(one: list[_Tracklet], other: list[_Tracklet]) -> bool:
    return any(a.start <= b.end and b.start <= a.end for a in one for b in other)


def _reappears(old: _Tracklet, new: _Tracklet, times: F64) -> bool:
    """Whether a face appears soon after another was lost, in the same shot and close by."""
    if old.segment != new.segment or new.start <= old.end or times[new.start] - times[old.end] > 2.0:
        return False
    size, centre = old.face.size, old.face.centre
    apart = math.hypot(new.first_centre[0] - centre[0], new.first_centre[1] - centre[1])
    return apart < 1.5 * size and 1 / 1.6 < new.first_size / size < 1.6


class Tracks:
    """Everybody seen in a clip. Keeps its temporary files until closed; tracks selected from it outlive it."""

    def __init__(
        self,
        people: list[list[_Tracklet]],
        sightings: RecordFile,
        times: F64,
        cuts: list[int],
        image_size: tuple[int, int],
        textures: RecordFile | None = None,
        crops: RecordFile | None = None,
    ) -> None:
        self._people, self._sightings, self._textures, self._crops = people, sightings, textures, crops
        self._times, self._cuts, self.image_size = times, cuts, image_size

    def __len__(self) -> int:
        """Number of people."""
        return len(self._people)

    def frames_seen(self, face: int) -> int:
        """Number of frames in which the N-th most prominent person is seen."""
        return sum(tracklet.frames for tracklet in self._people[face])

    def person_at(self, point: tuple[float, float]) -> int:
        """Who is under a point (x, y in pixels) in the first frame that has somebody under it.

        Hair and ears count: the box of the landmarks is extended by _REACH of its size.
        Raises AvfaceError, with the list of who is there, where nobody ever is.
        """
        person_of = {one.number: number for number, person in enumerate(self._people) for one in person}
        x, y = point
        for part in self._sightings.blocks():
            x0, y0, x1, y1 = part["box"].T
            reach = _REACH * np.sqrt((x1 - x0) * (y1 - y0))
            under = (x0 - reach <= x) & (x <= x1 + reach) & (y0 - reach <= y) & (y <= y1 + reach)
            if under.any():
                under &= part["frame"] == part["frame"][under][0]
                gap = np.hypot((x0 + x1)[under] / 2 - x, (y0 + y1)[under] / 2 - y)
                return person_of[int(part["tracklet"][under][int(np.argmin(gap))])]
        raise AvfaceError(
            f"face {x:g},{y:g}: no face is followed at this point of any frame; {self._listing()}. Choose one of these "
            "numbers, or a point on a face"
        )

    def _listing(self) -> str:
        """Numbers of all people, with where and when they are first seen."""
        firsts = [min(person, key=lambda tracklet: tracklet.start) for person in self._people[:_LISTED]]
        listed = [
            f"face {number} at {first.first_centre[0]:.0f},{first.first_centre[1]:.0f} in frame {first.start}"
            for number, first in enumerate(firsts)
        ]
        more = len(self._people) - len(listed)
        return "there are " + ", ".join(listed) + (f" and {more} more" if more > 0 else "")

    def select(self, face: int | tuple[float, float] | None = None) -> FaceTrack:
        """One person's track.

        face: N for the N-th most prominent person, from 0 (None is 0); or a point (x, y) in pixels, see
        `person_at`.
        Raises AvfaceError where there is no such person.
        """
        if not self._people:
            raise AvfaceError(
                f"no face found in any of {len(self._times)} frames: faces must be upright, lit, and at "
                "least about a twentieth of the image's longer side"
            )
        if isinstance(face, tuple):
            face = self.person_at(face)
        number = 0 if face is None else face
        if not 0 <= number < len(self._people):
            raise AvfaceError(
                f"face {number} was asked for, but the video shows {len(self._people)} "
                f"(numbered from 0, the most prominent first); {self._listing()}"
            )
        person = self._people[number]
        box = np.full((len(self._times), 4), np.nan, np.float32)
        confidence = np.zeros(len(self._times), np.float32)
        points = RecordFile(POINT_RECORD)
        tracklets = np.array([tracklet.number for tracklet in person])
        for part in self._sightings.blocks():
            part = part[np.isin(part["tracklet"], tracklets)]
            box[part["frame"]], confidence[part["frame"]] = part["box"], part["confidence"]
            for run in np.split(part, np.flatnonzero(np.diff(part["frame"]) != 1) + 1):
                if len(run):
                    _append_unseen(points, int(run["frame"][0]) - len(points))
                    points.append(run["points"])
        _append_unseen(points, len(self._times) - len(points))
        found = FaceTrack(
            landmarks=StoredArray(points, "landmarks"),
            depth=StoredArray(points, "depth"),
            confidence=confidence,
            box=box,
            times=self._times,
            segments=self._segments(person),
            person=number,
            people=len(self._people),
            image_size=self.image_size,
            visibility=None if self._textures is None else self._visibility(tracklets, self._textures),
            aligned_crops=None if self._crops is None else self._aligned_crops(tracklets, self._crops),
        )
        return set_aside_covered(found)

    @staticmethod
    def _aligned_crops(tracklets: Int, crops: RecordFile) -> AlignedCrops:
        """Some crops of a person, given by tracklets, spread over the clip."""
        owners = [part[["frame", "tracklet"]].copy() for part in crops.blocks(_CROPS_AT_ONCE)]
        index = np.concatenate(owners)
        own = np.flatnonzero(np.isin(index["tracklet"], tracklets))
        own = own[np.argsort(index["frame"][own], kind="stable")]
        chosen = own[evenly_spread(index["frame"][own])]
        records = np.concatenate([crops.read(n, n + 1) for n in chosen.tolist()])
        return AlignedCrops(records["frame"].astype(np.int64), records["picture"], records["landmarks"])

    def _visibility(self, tracklets: Int, textures: RecordFile) -> StoredArray:
        """The probability that each landmark (T, 478) of a person, given by tracklets, is seen."""
        visibility = FaceVisibility()

        def add_unseen_until(frame: int) -> None:
            while len(visibility) < frame:
                visibility.add(new_shot=len(visibility) in cuts)

        cuts = set(self._cuts)
        for part, texture in zip(self._sightings.blocks(), textures.blocks(), strict=True):
            for place in np.flatnonzero(np.isin(part["tracklet"], tracklets)):
                frame = int(part["frame"][place])
                add_unseen_until(frame)
                visibility.add(texture["texture"][place], new_shot=frame in cuts)
        add_unseen_until(len(self._times))
        return visibility.estimate()

    def _segments(self, person: list[_Tracklet]) -> tuple[Segment, ...]:
        reference = max(person, key=lambda tracklet: tracklet.frames)
        ends = [*self._cuts[1:], len(self._times)]
        result = []
        for number, (start, end) in enumerate(zip(self._cuts, ends, strict=True)):
            here = [one for group in self._people for one in group if one.segment == number]
            own = [one for one in here if any(one is mine for mine in person)]
            alike = [
                1.0 if one is reference else similarity(reference.descriptor, one.descriptor)
                for one in (own or here)
            ]
            result.append(Segment(start, end, bool(own), max(alike, default=float("nan"))))
        return tuple(result)

    def close(self) -> None:
        """Close the temporary files."""
        for file in (self._sightings, self._textures, self._crops):
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
    max_faces: int = FACES_AT_ONCE,
    on_frame: Callable[[int], None] | None = None,
    occlusions: bool = False,
    aligned_crops: bool = False,
) -> Tracks:
    """Track all faces of a clip in one pass over its frames.

    Args:
        frames: Video frames in order, all of one size. Memory stays the same however many there are.
        max_faces: Largest number of faces that are tracked at once.
        on_frame: Called with the number of frames done so far.
        occlusions: Whether to estimate the visibility of the landmarks.
        aligned_crops: Whether to keep some aligned crops of each face (`avface.tracking.aligned_crops`).

    Raises:
        ValueError: if max_faces is below 1.
        AvfaceError: if there are no frames, no room for the temporary file, or MediaPipe lacks its models.
    """
    if max_faces < 1:
        raise ValueError(f"max_faces={max_faces} must be at least 1")
    with FaceMesh() as mesh:
        tracker = _Tracker(mesh, max_faces, occlusions, aligned_crops)
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
        people, tracker.sightings, times, tracker.cuts, tracker.image_size, tracker.textures, tracker.crops
    )


def track(
    frames: Iterable[Frame],
    *,
    face: int | tuple[float, float] | None = None,
    max_faces: int | None = None,
    on_frame: Callable[[int], None] | None = None,
    occlusions: bool = False,
    aligned_crops: bool = False,
) -> FaceTrack:
    """Track one person through a clip in one pass over its frames.

    Args:
        frames: Video frames in order, all of one size. Memory stays the same however many there are.
        face: Who: None or 0 for the most prominent person (area times time on screen, weighted towards the centre),
            N for the next ones, or a point (x, y) in pixels for whoever is first seen there (see `Tracks.person_at`).
        max_faces: Largest number of faces that are tracked at once; by default 4 for the most prominent person, enough
            for all N before another, and 24 for a point.
        on_frame: Called with the number of frames done so far.
        occlusions: Whether to estimate `FaceTrack.visibility`: about 1 ms a frame.
        aligned_crops: Whether to keep some crops of the face (`FaceTrack.aligned_crops`).

    Raises:
        AvfaceError: as `track_everyone` does, and where no such person is seen.
    """
    if max_faces is None:
        asked = FACES_FOR_A_POINT if isinstance(face, tuple) else (face or 0) + 1
        max_faces = max(FACES_AT_ONCE, asked)
    with track_everyone(
        frames, max_faces=max_faces, on_frame=on_frame, occlusions=occlusions, aligned_crops=aligned_crops
    ) as everyone:
        return everyone.select(face)
