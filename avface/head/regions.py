"""Regions of the skin, bounded by the landmarks of a head.

The support of artists' blend shapes of a lip or lid is a rough region with holes and ragged edges; the landmarks define
its boundary.
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
"""Width of a lid from its edge over the skin."""
RING_MARGIN = 0.05
"""Largest distance of a vertex of lips or nose outside its ring."""
RING_DEPTH = 0.6
"""Largest depth of a vertex behind the rearmost point of its ring: the inner side of the lips, the nostrils."""


def regions_from_landmarks(head: HeadModel) -> dict[str, Bool]:
    """The regions (V,) of a head with landmarks, in the order of the head's own ones, which they correct.

    lips: the skin within the outer lip ring, with the inner side of the lips as far as the mouth's cavity.
    eyelids: the head's own, and a band of skin around both eyes, lower lids included.
    nose: the skin within its outline.
    neck: all skin below jaw, ears and hair; face and scalp end there.
    face includes lips, eyelids and nose; ears are unchanged. Idempotent.

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
        """Skin inside a ring in front view."""
        points = landmarks[ring]
        inside = _distance_from_inside(template[:, :2], points[:, :2]) < RING_MARGIN * eye_width
        return skin & inside & (template[:, 2] > points[:, 2].min() - RING_DEPTH * eye_width)

    def holding(marks: Int) -> Bool:
        """The vertices nearest to landmarks."""
        mask = np.zeros(head.num_vertices, bool)
        mask[nearest[marks]] = True
        return mask

    own = head.regions
    neck = skin & ~own["ears"] & (own["neck"] | _below_jaw(template, landmarks, own["ears"]))
    lips = within(LIPS_OUTER) | holding(LIPS)
    nose = (within(NOSE_RING) | holding(NOSE_RING)) & ~lips
    eyelids = np.zeros(head.num_vertices, bool)
    for ring in (LEFT_EYE, RIGHT_EYE):
        band = skin & (distance_to_line(template, landmarks[ring]) < LID_REACH * eye_width)
        eyelids |= band | holding(ring) | own["eyelids"] & _fold(template, landmarks[ring])
    eyelids &= ~nose | holding(np.concatenate([LEFT_EYE, RIGHT_EYE]))
    nose &= ~eyelids
    face = (own["face"] | lips | eyelids | nose) & ~neck & ~own["ears"]
    return {
        **own,
        "face": face,
        "lips": lips,
        "eyelids": eyelids,
        "nose": nose,
        "scalp": own["scalp"] & ~face & ~neck,
        "neck": neck,
    }


def _below_jaw(template: F64, landmarks: F64, ears: Bool) -> Bool:
    """Vertices (V,) under the line from the chin along the jaw to the ears' lower end, which continues horizontally.

    In side view, where both halves of the jaw coincide.
    """
    lobe = template[ears][template[ears, 1].argmin()]
    jaw = landmarks[JAW]
    jaw = jaw[jaw[:, 2].argsort()]
    depth = np.concatenate([[lobe[2]], jaw[:, 2]])
    height = np.concatenate([[lobe[1]], np.minimum.accumulate(jaw[:, 1])])
    return (template[:, 1] < np.interp(template[:, 2], depth, height)) & (template[:, 2] < depth[-1])


def _fold(template: F64, ring: F64) -> Bool:
    """Vertices (V,) over the line between an eye's corners or inside its ring: candidates of the upper lid."""
    first, second = ring[0], ring[8]
    share = (template[:, 0] - first[0]) / (second[0] - first[0])
    over = template[:, 1] > first[1] + share * (second[1] - first[1])
    same_side = np.sign(template[:, 0]) == np.sign(ring[:, 0].mean())
    return same_side & (over | (_distance_from_inside(template[:, :2], ring[:, :2]) <= 0))


def distance_to_line(points: F64, ring: F64) -> F64:
    """Distances (N,) of points (N, D) from a closed polyline (L, D)."""
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
