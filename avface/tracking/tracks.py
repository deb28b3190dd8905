"""Everybody who was tracked in a clip, and the selection of one person's track."""

from __future__ import annotations

import numpy as np

from avface.arrays import F64, Int
from avface.errors import AvfaceError
from avface.tracking.aligned_crops import AlignedCrops, evenly_spread
from avface.tracking.covered import set_aside_covered
from avface.tracking.face_track import BLOCK, POINT_RECORD, FaceTrack, RecordFile, Segment, StoredArray
from avface.tracking.reidentification import similarity
from avface.tracking.sightings import PICTURE_RECORD, Sightings
from avface.tracking.tracklet import Tracklet
from avface.tracking.visibility import FaceVisibility

_REACH = 0.2
"""Distance from the box of a face's landmarks, in face sizes, at which a point still belongs to the face."""
_LISTED = 12
"""People whom an error lists."""
_CROPS_AT_ONCE = 64
"""Crops read from disk together: 3 MB."""


class Tracks:
    """Everybody seen in a clip. Keeps its temporary files until closed; tracks selected from it outlive it."""

    def __init__(
        self,
        people: list[list[Tracklet]],
        sightings: Sightings,
        times: F64,
        cuts: list[int],
        image_size: tuple[int, int],
    ) -> None:
        """Use `track_everyone`. people: their tracklets, times (T,) seconds, cuts: first frames of the shots."""
        self._people, self._sightings = people, sightings
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
        for part in self._sightings.faces.blocks():
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
        for part in self._sightings.faces.blocks():
            part = part[np.isin(part["tracklet"], tracklets)]
            box[part["frame"]], confidence[part["frame"]] = part["box"], part["confidence"]
            for run in np.split(part, np.flatnonzero(np.diff(part["frame"]) != 1) + 1):
                if len(run):
                    _append_unseen(points, int(run["frame"][0]) - len(points))
                    points.append(run["points"])
        _append_unseen(points, len(self._times) - len(points))
        textures, crops, pictures = (
            self._sightings.textures,
            self._sightings.crops,
            self._sightings.pictures,
        )
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
            visibility=None if textures is None else self._visibility(tracklets, textures),
            aligned_crops=None if crops is None else self._aligned_crops(tracklets, crops),
            pictures=None if pictures is None else self._pictures(tracklets, pictures),
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

    def _pictures(self, tracklets: Int, pictures: RecordFile) -> StoredArray:
        """The pictures (T, side, side) of a person, given by tracklets; 0 in frames without the person."""
        own = RecordFile(PICTURE_RECORD)
        for part, picture in zip(self._sightings.faces.blocks(), pictures.blocks(), strict=True):
            for place in np.flatnonzero(np.isin(part["tracklet"], tracklets)):
                _append_blank(own, int(part["frame"][place]) - len(own))
                own.append(picture[place])
        _append_blank(own, len(self._times) - len(own))
        return StoredArray(own, "picture")

    def _visibility(self, tracklets: Int, textures: RecordFile) -> StoredArray:
        """The probability that each landmark (T, 478) of a person, given by tracklets, is seen."""
        visibility = FaceVisibility()

        def add_unseen_until(frame: int) -> None:
            while len(visibility) < frame:
                visibility.add(new_shot=len(visibility) in cuts)

        cuts = set(self._cuts)
        for part, texture in zip(self._sightings.faces.blocks(), textures.blocks(), strict=True):
            for place in np.flatnonzero(np.isin(part["tracklet"], tracklets)):
                frame = int(part["frame"][place])
                add_unseen_until(frame)
                visibility.add(texture["texture"][place], new_shot=frame in cuts)
        add_unseen_until(len(self._times))
        return visibility.estimate()

    def _segments(self, person: list[Tracklet]) -> tuple[Segment, ...]:
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
        self._sightings.close()

    def __enter__(self) -> Tracks:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _append_blank(pictures: RecordFile, frames: int) -> None:
    """Write black pictures for frames in which the person is not seen."""
    blank = np.zeros(1, pictures.dtype)
    for begin in range(0, frames, BLOCK):
        pictures.append(np.repeat(blank, min(BLOCK, frames - begin)))


def _append_unseen(points: RecordFile, frames: int) -> None:
    """Write nan for frames in which the person is not seen."""
    unseen = np.zeros(1, POINT_RECORD)
    unseen["landmarks"] = unseen["depth"] = np.nan
    for begin in range(0, frames, BLOCK):
        points.append(np.repeat(unseen, min(BLOCK, frames - begin)))
