"""All sightings of faces in a clip, in temporary files while it is tracked."""

from __future__ import annotations

import numpy as np

from avface.arrays import U8
from avface.tracking.aligned_crops import SIDE, aligned_crop, crop_matrix, next_crop
from avface.tracking.face_picture import PICTURE_SIDE, face_picture
from avface.tracking.face_texture import FaceTexture
from avface.tracking.face_track import POINT_RECORD, RecordFile
from avface.tracking.tracklet import Tracklet

_FACE = np.dtype(
    [
        ("frame", "<i4"),
        ("tracklet", "<i4"),
        ("box", "<f4", (4,)),
        ("confidence", "<f4"),
        ("points", POINT_RECORD),
    ]
)
_CROP = np.dtype(
    [("frame", "<i4"), ("tracklet", "<i4"), ("picture", "u1", (SIDE, SIDE)), ("landmarks", "<f4", (478, 2))]
)
PICTURE_RECORD = np.dtype([("picture", "u1", (PICTURE_SIDE, PICTURE_SIDE))])
"""The picture of one face in one frame (`avface.tracking.face_picture`), as stored in the temporary file."""


class Sightings:
    """Frame, tracklet and landmarks of each sighting; on request, textures, pictures and some aligned crops."""

    faces: RecordFile
    """Fields frame, tracklet, box, confidence and points, in the order of the frames."""
    textures: RecordFile | None
    """The texture of the face of each sighting, in the same order; for its visibility."""
    crops: RecordFile | None
    """Fields frame, tracklet, picture and landmarks; of some sightings only."""
    pictures: RecordFile | None
    """The picture of the face of each sighting, in the same order."""

    def __init__(self, *, occlusions: bool = False, pictures: bool = False) -> None:
        """Make the files; `occlusions`: with textures, `pictures`: with pictures and crops.

        Raises:
            AvfaceError: if there is no room for them.
        """
        self.faces = RecordFile(_FACE)
        self.crops = RecordFile(_CROP) if pictures else None
        self.pictures = RecordFile(PICTURE_RECORD) if pictures else None
        self._sampler = FaceTexture() if occlusions else None
        self.textures = None
        if self._sampler is not None:
            self.textures = RecordFile(np.dtype([("texture", "u1", self._sampler.shape)]))
        self._record = np.zeros(1, _FACE)

    def add(self, tracklet: Tracklet, confidence: float, image: U8) -> None:
        """Store the last sighting of a tracklet; image: that frame, (H, W, 3) uint8 RGB.

        Raises:
            AvfaceError: if there is no room for it.
        """
        face, record = tracklet.face, self._record
        record["frame"], record["tracklet"] = tracklet.end, tracklet.number
        points = record["points"]
        points["landmarks"], points["depth"] = face.landmarks[:, :2], face.landmarks[:, 2]
        record["box"], record["confidence"] = face.box, confidence
        self.faces.append(record)
        if self._sampler is not None and self.textures is not None:
            texture = np.zeros((), self.textures.dtype)
            texture["texture"] = self._sampler.sample(image, face.landmarks)
            self.textures.append(texture)
        if self.pictures is not None:
            picture = np.zeros((), PICTURE_RECORD)
            picture["picture"] = face_picture(image, face.landmarks)
            self.pictures.append(picture)
        if self.crops is not None and tracklet.frames >= tracklet.next_crop:
            tracklet.next_crop = next_crop(tracklet.frames)
            crop = np.zeros((), _CROP)
            crop["frame"], crop["tracklet"] = tracklet.end, tracklet.number
            crop["picture"] = aligned_crop(image, crop_matrix(face.landmarks))
            crop["landmarks"] = face.landmarks[:, :2]
            self.crops.append(crop)

    def close(self) -> None:
        """Close and so delete the files."""
        for file in (self.faces, self.textures, self.crops, self.pictures):
            if file is not None:
                file.close()
