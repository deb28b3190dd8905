"""The step of the builder that makes the outside of the head: ears, scalp and neck."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from avface.arrays import F64, Bool, Int
from avface.errors import AvfaceError
from avface.geometry.interpolation import smoothstep
from avface.geometry.mesh import triangulate
from avface.head.open.deformation import cotangent_laplacian
from avface.head.open.draft import Draft
from avface.head.open.outside.ears import EarsConfig, place_ears
from avface.head.open.outside.fairing import fair
from avface.head.open.outside.neck import NeckConfig, last_loop, lower_loop, ring_quads
from avface.head.open.outside.refinement import halve_edges, long_edges
from avface.head.open.outside.strain import StrainConfig, bounded_strain

FACE_REGIONS = ("face", "lips", "eyelids", "nose")


@dataclass(frozen=True)
class OutsideConfig:
    """Numbers of the outside; metres."""

    ears: EarsConfig = field(default_factory=EarsConfig)
    neck: NeckConfig = field(default_factory=NeckConfig)
    strain: StrainConfig = field(default_factory=StrainConfig)
    longest_edge: float = 0.0145
    """Length above which an edge of the scalp is halved."""
    longest_ear_edge: float = 0.0058
    """The same for the ears."""
    ear_reach: float = 0.0018
    """Size of the detail that fairing takes off the ears."""
    scalp_reach: float = 0.012
    """Size of the detail that fairing takes off the scalp."""

    def __post_init__(self) -> None:
        for name in ("longest_edge", "longest_ear_edge", "ear_reach", "scalp_reach"):
            if not getattr(self, name) > 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be above 0")


def outside(draft: Draft, config: OutsideConfig | None = None) -> Draft:
    """The draft with ears of adults' average size, an even scalp, a neck that ends in a flat loop, and people whose
    skin isn't pressed together (see `bounded_strain`).

    Vertices of face, lips, eyelids and nose keep their numbers and, on the mean head, their places. New vertices come
    behind the draft's; units move them as their neighbours, less and less down the neck. The loop lies in one plane for
    any shape. UV points of new quads are the middles of the old ones, those of the neck one point: see `unwrap`.

    Raises:
        AvfaceError: if the draft has correctives, or no neck that ends in one loop.
    """
    if len(draft.pairs) or draft.person is not None:
        raise AvfaceError("the outside comes before correctives")
    config = config or OutsideConfig()
    draft = bounded_strain(draft, config.strain)
    kept = len(draft.template)
    ears = draft.regions["ears"] & ~_face(draft)
    draft = _refined(draft, ears, config.longest_ear_edge)
    old = np.arange(len(draft.template)) < kept
    ears = draft.regions["ears"] & ~_face(draft)
    draft = _faired(draft, ears, np.where(old, config.ear_reach, np.inf))

    face, regions = _face(draft), draft.regions
    loose = (regions["scalp"] | regions["neck"]) & ~face & ~ears
    frames = np.concatenate([draft.template[None], draft.shape])
    skin = draft.quads[draft.parts == "skin"]
    frames = place_ears(frames, skin, ears, loose, face, config.ears)
    draft = replace(draft, template=frames[0], shape=frames[1:])

    kept = len(draft.template)
    draft = _with_neck(_refined(draft, loose, config.longest_edge), config.neck)
    old = np.arange(len(draft.template)) < kept
    loose = np.concatenate([loose, ~old[kept:]])
    loop = lower_loop(draft.quads[draft.parts == "skin"], draft.template)
    loose[loop] = False
    draft = _faired(draft, loose, np.where(old, config.scalp_reach, np.inf))
    return replace(draft, skin_weights=_neck_weights(draft, loop))


def _face(draft: Draft) -> Bool:
    """Vertices (V,) that stay as they are: the face and all that isn't scalp, neck or ears."""
    moving = draft.regions["scalp"] | draft.regions["neck"] | draft.regions["ears"]
    kept: Bool = ~moving | np.any([draft.regions[name] for name in FACE_REGIONS], 0)
    return kept


def _faired(draft: Draft, free: Bool, reach: F64) -> Draft:
    """The draft with free vertices (V,) of mean head and components faired: see `fair`."""
    frames = np.concatenate([draft.template[None], draft.shape])
    flat = np.moveaxis(frames, 1, 0).reshape(len(free), -1)
    flat = fair(flat, draft.template, draft.quads[draft.parts == "skin"], free, reach)
    frames = np.moveaxis(flat.reshape(len(free), len(frames), 3), 0, 1)
    return replace(draft, template=frames[0], shape=frames[1:])


def _refined(draft: Draft, loose: Bool, longest: float) -> Draft:
    """The draft with long edges between loose vertices (V,) halved, the same on both sides."""
    partner = cKDTree(draft.template).query(draft.template * [-1, 1, 1])[1]
    inside = loose[draft.quads].all(1) & (draft.parts == "skin")
    edges = long_edges(draft.template, draft.quads, inside, partner, longest)
    if not len(edges):
        return draft
    turned = draft.template[draft.quads, 0].mean(1) < 0
    refined = halve_edges(len(draft.template), draft.quads, edges, turned)
    corners = {tuple(sorted(pair)) for pair in edges.tolist()}
    cut = np.array(
        [
            (a, b)
            for quad, uv_quad in zip(draft.quads.tolist(), draft.uv_quads.tolist(), strict=True)
            for k in range(4)
            for a, b in [(uv_quad[k], uv_quad[(k + 1) % 4])]
            if tuple(sorted((quad[k], quad[(k + 1) % 4]))) in corners
        ]
    )
    refined_uv = halve_edges(len(draft.uv), draft.uv_quads, cut, turned)
    blend = refined.matrix

    def moved(values: F64) -> F64:
        """(K, V, 3) to the new vertices."""
        return np.stack([blend @ each for each in values])

    return replace(
        draft,
        template=blend @ draft.template,
        shape=moved(draft.shape),
        expression=moved(draft.expression),
        quads=refined.quads,
        parts=draft.parts[refined.source],
        uv=refined_uv.matrix @ draft.uv,
        uv_quads=refined_uv.quads,
        skin_weights=blend @ draft.skin_weights,
        regions={name: blend @ mask.astype(float) > 0.5 for name, mask in draft.regions.items()},
    )


def _with_neck(draft: Draft, config: NeckConfig) -> Draft:
    """The draft with rings of quads from the lower end of the skin down to a flat loop, evenly spread."""
    edge = lower_loop(draft.quads[draft.parts == "skin"], draft.template)
    frames = np.concatenate([draft.template[None], draft.shape])[:, edge]
    last = last_loop(frames, config)
    steps = np.arange(1, config.rings + 1) / config.rings
    rings = frames[:, None] + steps[:, None, None] * (last - frames)[:, None]
    rings = rings.reshape(len(frames), -1, 3)
    fade = (1 - steps) ** 2
    moved = (fade[:, None, None] * draft.expression[:, None, edge]).reshape(len(draft.expression), -1, 3)
    added, before = len(rings[0]), len(draft.template)
    quads = ring_quads(edge, before, config.rings)
    weights = np.zeros((added, draft.skin_weights.shape[1]))
    weights[:, 0] = 1
    grown = draft.with_parts(
        rings[0],
        quads - before,
        np.full(len(quads), "skin"),
        draft.uv[:1],
        np.zeros((len(quads), 4), np.int64),
        shape=rings[1:],
        skin_weights=weights,
        expression=moved,
    )
    regions = dict(grown.regions)
    regions["neck"] = regions["neck"].copy()
    regions["neck"][before:] = True
    return replace(grown, regions=regions)


def _neck_weights(draft: Draft, loop: Int) -> F64:
    """(V, J) weights; the neck joint's (column 1) fade out smoothly from where MakeHuman's head moves rigidly to
    0 on the last loop."""
    rows = draft.rows("skin")
    number = np.full(len(draft.template), -1)
    number[rows] = np.arange(len(rows))
    faces = number[triangulate(draft.quads[draft.parts == "skin"])]
    laplacian, _ = cotangent_laplacian(draft.template[rows] * 1000, faces)
    rigid = draft.skin_weights[rows, 1] > 0.999
    fixed = rigid.copy()
    fixed[number[loop]] = True
    share = rigid.astype(float)
    free, held = np.flatnonzero(~fixed), np.flatnonzero(fixed)
    share[free] = splu(laplacian[free][:, free].tocsc()).solve(-laplacian[free][:, held] @ share[held])
    weights = draft.skin_weights.copy()
    weights[rows, 1] = smoothstep(0.0, 1.0, share)
    weights[rows, 0] = 1 - weights[rows, 1:].sum(1)
    return weights
