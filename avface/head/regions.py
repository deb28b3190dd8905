"""Regions of the skin, drawn along the landmarks of a head.

What artists move when they change a lip or a lid gives a first idea of where it is, with holes and ragged edges.
The landmarks say where it ends.
"""

from __future__ import annotations

import numpy as np

from avface.arrays import F64, Bool, Int
from avface.head.model import HeadModel
from avface.head.schemes import FACE_OVAL, LEFT_EYE, LIPS, LIPS_OUTER, RIGHT_EYE

NOSE_RING = np.array([168, 193, 245, 114, 126, 129, 98, 97, 2, 326, 327, 358, 355, 343, 465, 417])
"""Outline of the nose in MediaPipe's numbers: from between the eyes down its right side, up its left one."""
JAW = FACE_OVAL[11:26]
"""Lower edge of the jaw in MediaPipe's numbers, from its left angle over the chin to its right one."""

# In widths of an eye, corner to corner (27 mm)
LID_REACH = 0.24
"""How far a lid goes from its edge over the skin."""
RING_MARGIN = 0.05
"""How far outside its ring a vertex may lie and still belong to lips or nose."""
RING_DEPTH = 0.6
"""How far behind the rearmost point of its ring: the inner side of the lips, the nostrils."""


def regions_from_landmarks(head: HeadModel) -> dict[str, Bool]:
    """The regions (V,) of a head with landmarks, in their old order: the head's own ones, corrected.

    lips: the skin within the outer lip ring, with the inner side of the lips as far as the mouth's cavity.
    eyelids: the head's own, and a band of skin around both eyes, lower lids included.
    nose: the skin within its outline.
    neck: what is below the jaw, the ears and the hair, all around; face and scalp end there.
    face holds lips, eyelids and nose; ears stay as they are. What is already corrected stays the same.

    Raises:
        AvfaceError: if the head has no landmarks `mediapipe478`.
        KeyError: if the head has no regions face, lips, eyelids, nose, ears, scalp and neck.
    """
    embedding = head.embedding("mediapipe478")
    template = head.template.cpu().double().numpy()
    landmarks = embedding.on(template)
    nearest = embedding.triangles[np.arange(len(landmarks)), embedding.barycentric.argmax(1)]
    faces = head.faces.cpu().numpy()
    skin = np.zeros(head.num_vertices, bool)
    skin[faces[head.face_parts == head.part_names.index("skin")]] = True
    eye_width = float(np.linalg.norm(landmarks[LEFT_EYE[0]] - landmarks[LEFT_EYE[8]]))

    def within(ring: Int) -> Bool:
        """Skin inside a ring as seen from the front."""
        points = landmarks[ring]
        inside = _distance_from_inside(template[:, :2], points[:, :2]) < RING_MARGIN * eye_width
        return skin & inside & (template[:, 2] > points[:, 2].min() - RING_DEPTH * eye_width)

    def holding(marks: Int) -> Bool:
        """The vertices nearest to landmarks."""
        mask = np.zeros(head.num_vertices, bool)
        mask[nearest[marks]] = True
        return mask

    before = head.regions
    neck = skin & ~before["ears"] & (before["neck"] | _below_jaw(template, landmarks, before["ears"]))
    lips = within(LIPS_OUTER) | holding(LIPS)
    nose = (within(NOSE_RING) | holding(NOSE_RING)) & ~lips
    eyelids = np.zeros(head.num_vertices, bool)
    for ring in (LEFT_EYE, RIGHT_EYE):
        band = skin & (distance_to_line(template, landmarks[ring]) < LID_REACH * eye_width)
        eyelids |= band | holding(ring) | before["eyelids"] & _fold(template, landmarks[ring])
    eyelids &= ~nose | holding(np.concatenate([LEFT_EYE, RIGHT_EYE]))
    nose &= ~eyelids
    face = (before["face"] | lips | eyelids | nose) & ~neck & ~before["ears"]
    return {
        **before,
        "face": face,
        "lips": lips,
        "eyelids": eyelids,
        "nose": nose,
        "scalp": before["scalp"] & ~face & ~neck,
        "neck": neck,
    }


def _below_jaw(template: F64, landmarks: F64, ears: Bool) -> Bool:
    """Vertices (V,) under a line that runs from the chin along the jaw to the ears' lower end, and level from there.

    Seen from the side, as the jaw's two halves are the same line there.
    """
    lobe = template[ears][template[ears, 1].argmin()]
    jaw = landmarks[JAW]
    jaw = jaw[jaw[:, 2].argsort()]
    depth = np.concatenate([[lobe[2]], jaw[:, 2]])
    height = np.concatenate([[lobe[1]], np.minimum.accumulate(jaw[:, 1])])
    return (template[:, 1] < np.interp(template[:, 2], depth, height)) & (template[:, 2] < depth[-1])


def _fold(template: F64, ring: F64) -> Bool:
    """Vertices (V,) over the line between an eye's corners or inside its ring: where an upper lid may be."""
    first, second = ring[0], ring[8]
    share = (template[:, 0] - first[0]) / (second[0] - first[0])
    over = template[:, 1] > first[1] + share * (second[1] - first[1])
    same_side = np.sign(template[:, 0]) == np.sign(ring[:, 0].mean())
    return same_side & (over | (_distance_from_inside(template[:, :2], ring[:, :2]) <= 0))


def distance_to_line(points: F64, ring: F64) -> F64:
    """Distances (N,) of points (N, D) from a closed line of straight pieces (L, D)."""
    start, along = ring, np.roll(ring, -1, 0) - ring
    offset = points[:, None] - start
    share = np.clip((offset * along).sum(2) / np.maximum((along**2).sum(1), 1e-18), 0, 1)
    distance: F64 = np.linalg.norm(offset - share[..., None] * along, axis=2).min(1)
    return distance


def _distance_from_inside(points: F64, ring: F64) -> F64:
    """Distances (N,) of points (N, 2) from a polygon (L, 2); 0 within."""
    x, y = points[:, None].transpose(2, 0, 1)
    (x0, y0), (x1, y1) = ring.T, np.roll(ring, -1, 0).T
    rise = np.where(y1 == y0, 1.0, y1 - y0)
    crossed = ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / rise)
    return np.where(crossed.sum(1) % 2 == 1, 0.0, distance_to_line(points, ring))
