"""Track the faces of a clip in one streaming pass.

Faces are tracked frame by frame with MediaPipe's landmark network, each in the region that its last landmarks give. The
detector runs where it is needed: on the first frame, after a cut, for a second after a face was lost, and otherwise
every 0.4 seconds for new faces. On one face all this costs about as much time as MediaPipe's own loop, which runs the
detector on every frame with fewer faces than its maximum (28 % more time on one face with a maximum of two).

A face without a gap is a tracklet. Within a shot faces are assigned to tracklets by position, size and appearance
(`association`); which tracklets are one person is decided at the end, from means over all their frames (`people`), so
that no single frame decides on a person who turns away or reappears after a cut. All sightings lie in temporary files
(`sightings`), from which one person's track is read (`tracks`).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np

from avface.arrays import F32, U8
from avface.errors import AvfaceError
from avface.tracking.association import Candidate, Expected, associate, without_duplicates
from avface.tracking.face_track import FaceTrack
from avface.tracking.facemesh import Face, FaceMesh, Region
from avface.tracking.people import SAME_PERSON, group_people
from avface.tracking.reidentification import AppearanceDescriptor, describe, similarity
from avface.tracking.shots import Change, scene_motion, with_changes
from avface.tracking.sightings import Sightings
from avface.tracking.tracklet import MAX_GAP_SECONDS, OUTLIER_SIMILARITY, Tracklet
from avface.tracking.tracks import Tracks

DETECTION_SECONDS = 0.4
"""Time between two detections of new faces: a second person starts at most this much late."""
THOROUGH_DETECTION_SECONDS = 2.0
"""Time between two thorough detections, for very small and very large faces; DETECTION_SECONDS without any face."""
REDETECTION_SECONDS = 1.0
"""Time for which the detector runs on every frame after a face is lost."""
DESCRIPTOR_INTERVAL = 3
"""Frames between two updates of the appearance descriptor of a person who is alone in the image."""
_JUMP_CERTAIN, _JUMP_POSSIBLE = 0.03, 0.1
"""Least jump of the landmarks, in face sizes, that confirms a certain or a possible cut."""
FACES_AT_ONCE = 4
"""Faces that are followed at once unless more are asked for."""
FACES_FOR_A_POINT = 24
"""The same where the person is given by a point: anybody may be under it."""
_RECENT_TIMES = 13
"""Frames whose times give the usual interval."""


class Frame(Protocol):
    """The part of a video frame (`avface.media.Frame`) that tracking uses."""

    @property
    def time(self) -> float:
        """Seconds."""

    @property
    def image(self) -> U8:
        """(H, W, 3) uint8 RGB; not to be written to while tracking runs, which keeps four frames."""


class _Tracker:
    """State of the streaming pass."""

    def __init__(self, mesh: FaceMesh, max_faces: int, sightings: Sightings) -> None:
        self.mesh = mesh
        self.max_faces = max_faces
        self.live: list[Tracklet] = []
        self.all: list[Tracklet] = []
        self.cuts = [0]
        self.times = array("d")
        self.sightings = sightings
        self.image_size: tuple[int, int] | None = None
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
        elif change is Change.PARTIAL:
            # landmarks also jump when something comes before the face: detect it again
            faces = [
                (face, tracklet)
                for face, tracklet in faces
                if not tracklet.jumps(face, _JUMP_POSSIBLE, camera)
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
        self, change: Change, image: U8, faces: list[tuple[Face, Tracklet]]
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
            tracklet.jumps(face, _JUMP_POSSIBLE * lasting, camera)
            and tracklet.jump_from_course(face) > _JUMP_POSSIBLE * lasting
            and similarity(tracklet.descriptor, describe(image, face.landmarks)) > SAME_PERSON
            for face, tracklet in faces
        )
        return left_out, camera

    @staticmethod
    def _is_discontinuous(change: Change, image: U8, faces: list[tuple[Face, Tracklet]]) -> bool:
        """Whether a change of the image may be a cut, by how smoothly the faces move through it."""
        if not faces:
            return change is Change.CERTAIN
        least = _JUMP_CERTAIN if change is Change.CERTAIN else _JUMP_POSSIBLE
        jumping = all(tracklet.jumps(face, least) for face, tracklet in faces)
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

    def _continues(self, image: U8, face: Face, tracklet: Tracklet, index: int) -> bool:
        """Whether a single face is certainly the same as before and needs no assignment; updates its descriptor."""
        if tracklet.jumps(face, _JUMP_POSSIBLE):
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
        tracklet = Tracklet(
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

    def _see(self, tracklet: Tracklet, image: U8, face: Face, index: int, time: float) -> None:
        """Record a sighting."""
        assert self.image_size is not None
        confidence = tracklet.see(face, index, time, self.image_size)
        self.sightings.add(tracklet, confidence, image)

    def _forget(self, time: float) -> None:
        """Forget the regions of lost faces, and tracklets whose gap is too long."""
        index = len(self.times) - 1
        for tracklet in self.live:
            if tracklet.end < index:
                tracklet.region = None
        self.live = [one for one in self.live if time - one.last_time <= MAX_GAP_SECONDS]


def track_everyone(
    frames: Iterable[Frame],
    *,
    max_faces: int = FACES_AT_ONCE,
    on_frame: Callable[[int], None] | None = None,
    occlusions: bool = False,
    pictures: bool = False,
) -> Tracks:
    """Track all faces of a clip in one pass over its frames.

    Args:
        frames: Video frames in order, all of one size. Memory stays the same however many there are.
        max_faces: Largest number of faces that are tracked at once.
        on_frame: Called with the number of frames done so far.
        occlusions: Whether to estimate the visibility of the landmarks.
        pictures: Whether to keep a picture of each face in every frame, and some aligned crops.

    Raises:
        ValueError: if max_faces is below 1.
        AvfaceError: if there are no frames, no room for the temporary file, or MediaPipe lacks its models.
    """
    if max_faces < 1:
        raise ValueError(f"max_faces={max_faces} must be at least 1")
    with FaceMesh() as mesh:
        sightings = Sightings(occlusions=occlusions, pictures=pictures)
        tracker = _Tracker(mesh, max_faces, sightings)
        try:
            for count, (frame, change) in enumerate(with_changes(frames), start=1):
                tracker.step(frame, change)
                if on_frame is not None:
                    on_frame(count)
            if tracker.image_size is None:
                raise AvfaceError("the video has no frames to track a face in")
        except BaseException:
            sightings.close()
            raise
    times = np.array(tracker.times, np.float64)
    return Tracks(group_people(tracker.all, times), sightings, times, tracker.cuts, tracker.image_size)


def track(
    frames: Iterable[Frame],
    *,
    face: int | tuple[float, float] | None = None,
    max_faces: int | None = None,
    on_frame: Callable[[int], None] | None = None,
    occlusions: bool = False,
    pictures: bool = False,
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
        pictures: Whether to keep pictures of the face, `FaceTrack.pictures` and `FaceTrack.aligned_crops`: about 1 ms
            a frame.

    Raises:
        AvfaceError: as `track_everyone` does, and where no such person is seen.
    """
    if max_faces is None:
        asked = FACES_FOR_A_POINT if isinstance(face, tuple) else (face or 0) + 1
        max_faces = max(FACES_AT_ONCE, asked)
    with track_everyone(
        frames, max_faces=max_faces, on_frame=on_frame, occlusions=occlusions, pictures=pictures
    ) as everyone:
        return everyone.select(face)
