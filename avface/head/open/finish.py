"""The last step of the open head's builder: from the draft to the head model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from avface.arrays import F64, Int
from avface.errors import AvfaceError
from avface.geometry.mesh import triangulate
from avface.head.anatomy.surface import boundary_edges
from avface.head.model import HeadModel
from avface.head.open.draft import JOINT_NAMES, Draft
from avface.head.open.uv_layout import layout_uv
from avface.open_head import OPEN_NAME

JOINT_PARENTS = (-1, 0, 0)

GAZE_RANGE = (np.radians(25), np.radians(30), np.radians(30), np.radians(30))
"""Turn of the eyeball at weight 1 of eyeLookUp, Down, In and Out, in radians.

Apple's documentation names directions, not angles. People's eyes can turn by 45 to 55 degrees (up least: 30 to 40), but
beyond 20 to 25 the head turns along, so that weights near 1 are rare with this range, as in captures by ARKit; rigs for
ARKit's names turn the eye by 25 to 35 degrees. MakeHuman's units turn it by 9.8, 11.4, 15.4 and 15.0 only, so that a
glance of 15 degrees already had the weight 1 and was clipped beyond, and drove other rigs' eyes twice as far as the
person's. The lids' way under these units is made for the same angles.
"""

STILL = 5e-6
"""Offsets below this many metres are 0, and a corrective without any above `IDLE` is left out."""
IDLE = 5e-5


def finish(draft: Draft) -> HeadModel:
    """The head model of a draft, without landmark embeddings (see `avface.head.embedding`).

    The origin becomes that of `Draft` again, if eyes or ears have moved. Triangles are those of the quads, which the
    model keeps. Parts are in the order of their first quads. The neck turns about the middle of the skin that is half
    the skull's and half the trunk's, an eye about the middle of its eyeball. Correctives of the same units are one.
    Regions are the draft's; `avface.head.regions` corrects them once the landmarks are known.

    Raises:
        AvfaceError: if the draft has no eyeballs, or UV polygons that don't belong to the quads.
    """
    draft = about_origin(draft)
    uv, uv_quads = layout_uv(draft)
    faces, uv_faces = triangulate(draft.quads), triangulate(uv_quads)
    if len(faces) != len(uv_faces):
        raise AvfaceError(
            "the draft's UV quads repeat their last point where its quads don't, or the reverse"
        )
    names = tuple(dict.fromkeys(draft.parts.tolist()))
    sides = np.where(draft.quads[:, 2] == draft.quads[:, 3], 1, 2)
    pairs, pair_offsets = _joined_pairs(draft)
    terms, weights, person = _person(draft, pairs)
    return HeadModel(
        OPEN_NAME,
        template=draft.template,
        shape_basis=draft.shape,
        expression_basis=_quiet(draft.expression),
        expression_names=draft.expression_names,
        joint_names=JOINT_NAMES,
        joint_parents=JOINT_PARENTS,
        joint_regressor=_joint_regressor(draft),
        skin_weights=draft.skin_weights,
        faces=faces,
        uv=uv,
        uv_faces=uv_faces,
        part_names=names,
        face_parts=np.repeat([names.index(part) for part in draft.parts.tolist()], sides),
        regions=draft.regions,
        embeddings={},
        gaze_range=np.array(GAZE_RANGE),
        size_component=0,
        pairs=pairs,
        pair_basis=_quiet(pair_offsets),
        person_terms=terms,
        person_weights=weights,
        person_basis=_quiet(person),
        quads=draft.quads,
    )


def about_origin(draft: Draft) -> Draft:
    """The draft with its origin between the eyes' centres in height and half-way between the ears in depth, about which
    component 0 scales it."""
    sigma = draft.size_sigma
    depth = draft.template[draft.regions["ears"], 2].mean()
    origin = np.array([0.0, draft.eye_centres[0, :, 1].mean(), depth])
    shape, centres = draft.shape.copy(), draft.eye_centres.copy()
    shape[0] -= sigma * origin
    centres[0] -= origin
    centres[1] -= sigma * origin
    return replace(draft, template=draft.template - origin, shape=shape, eye_centres=centres)


def _quiet(offsets: F64) -> F64:
    """Offsets (K, V, 3) without those that nobody sees, so that files are small."""
    return np.where(np.linalg.norm(offsets, axis=2, keepdims=True) < STILL, 0.0, offsets)


def _joined_pairs(draft: Draft) -> tuple[tuple[tuple[int, int], ...], F64]:
    """Units of the correctives, each pair once in the order in which it comes first, and their offsets (P, V, 3).

    A pair that moves nothing stays if terms of the person belong to it.
    """
    sums: dict[tuple[int, int], F64] = {}
    for names, offsets in zip(draft.pairs, draft.pair_offsets, strict=True):
        pair = _pair(draft, names, sums)
        sums[pair] = sums.get(pair, 0.0) + offsets
    terms = () if draft.person is None else draft.person.terms
    named = {_pair(draft, term, sums) for term in terms if len(term) == 2}
    kept = [pair for pair in sums if pair in named or np.linalg.norm(sums[pair], axis=1).max() >= IDLE]
    shape = draft.template.shape
    return tuple(kept), np.stack([sums[pair] for pair in kept]) if kept else np.zeros((0, *shape))


def _pair(draft: Draft, names: tuple[str, ...], known: Collection[tuple[int, int]]) -> tuple[int, int]:
    """Numbers of two units, in the order of a known pair of them if there is one."""
    first, second = (draft.unit(name) for name in names)
    return (second, first) if (second, first) in known else (first, second)


def _person(draft: Draft, pairs: tuple[tuple[int, int], ...]) -> tuple[Int, F64, F64]:
    """Terms of the person: the unit or E plus the pair of each (R,), weights (R, S) and offsets (R, V, 3)."""
    person = draft.person
    if person is None:
        return np.zeros(0, np.int64), np.zeros((0, len(draft.shape))), np.zeros((0, *draft.template.shape))
    numbers = [
        draft.unit(term[0])
        if len(term) == 1
        else len(draft.expression) + pairs.index(_pair(draft, term, pairs))
        for term in person.terms
    ]
    return np.array(numbers), person.weights, person.offsets


def _joint_regressor(draft: Draft) -> F64:
    """(J, V) weights of the vertices whose mean is a joint's centre, for any shape."""
    rows = np.zeros((len(JOINT_NAMES), len(draft.template)))
    skull = draft.skin_weights[:, 1 + JOINT_NAMES.index("neck")]
    rows[0] = skull * (1 - skull)
    rows[0] /= rows[0].sum()
    for number, side in enumerate(("left", "right"), 1):
        rows[number] = _centre_weights(draft, side)
    return rows


def _centre_weights(draft: Draft, side: str) -> F64:
    """(V,) weights of the eyeball's vertices, of least norm, that give its centre and sum to 1.

    The eyeball moves rigidly and scales with any shape, so they give the centre of every person's.

    Raises:
        AvfaceError: if there is no eyeball of this side.
    """
    rows = draft.rows(*(f"{side}_{part}" for part in ("eye", "iris", "pupil")))
    if not len(rows):
        raise AvfaceError(f"the draft has no {side} eyeball")
    centre = draft.eye_centres[0, ("left", "right").index(side)]
    scaled = (draft.template[rows] - centre) / np.abs(draft.template[rows] - centre).max()
    weights = np.zeros(len(draft.template))
    weights[rows] = np.linalg.pinv(np.vstack([scaled.T, np.ones(len(rows))])) @ np.array([0, 0, 0, 1.0])
    return weights


def lower_end(faces: Int, template: F64) -> Int:
    """Vertices of the mesh boundary at the bottom of the neck: faces (F, 3), template (V, 3)."""
    boundary = np.unique(boundary_edges(faces))
    low = template[:, 1].min() + 0.25 * np.ptp(template[:, 1])
    return boundary[template[boundary, 1] < low]
