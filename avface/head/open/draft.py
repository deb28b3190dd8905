"""The open head while it is computed: what its builder's steps take and return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from avface.arrays import F64, Bool, Int
from avface.geometry.mesh import triangulate

JOINT_NAMES = ("neck", "left_eye", "right_eye")


@dataclass(frozen=True, eq=False)
class PersonTerms:
    """Offsets of units and correctives that depend on the person's shape: lids close exactly only where their way is
    the person's.

    Row k's weight is that of its term, a unit or a corrective, times `weights[k]` @ the shape weights.
    """

    terms: tuple[tuple[str, ...], ...]
    """(R,) a unit's name, or the two of a corrective in `Draft.pairs`."""
    weights: F64
    """(R, S)"""
    offsets: F64
    """(R, V, 3) metres."""

    def with_vertices(self, added: int) -> PersonTerms:
        """The same for a head with more vertices behind its own, which no term moves."""
        none = np.zeros((len(self.offsets), added, 3))
        return PersonTerms(self.terms, self.weights, np.concatenate([self.offsets, none], 1))

    def joined(self, other: PersonTerms | None) -> PersonTerms:
        """These rows and, behind them, others."""
        if other is None:
            return self
        return PersonTerms(
            self.terms + other.terms,
            np.concatenate([self.weights, other.weights]),
            np.concatenate([self.offsets, other.offsets]),
        )


@dataclass(frozen=True, eq=False)
class Draft:
    """A head of V vertices with S shape components and E expression units.

    Units: metres; float64. Axes: the head's, +x to the subject's left, +y up, +z out of the face; the origin is between
    the eyes' centres in height, and half-way between the ears in depth.
    """

    template: F64
    """(V, 3) the mean head."""
    shape: F64
    """(S, V, 3) offsets at one standard deviation; component 0 scales the whole head about the origin."""
    expression: F64
    """(E, V, 3) offsets at weight 1."""
    expression_names: tuple[str, ...]
    """ARKit's names."""
    quads: Int
    """(Q, 4) vertices, counter-clockwise seen from outside; a triangle repeats its last one."""
    parts: npt.NDArray[np.str_]
    """(Q,) name of the part that each quad belongs to."""
    uv: F64
    """(M, 2) points of the islands, before they are laid out."""
    uv_quads: Int
    """(Q, 4) rows of `uv`; a triangle repeats its last one."""
    skin_weights: F64
    """(V, 1 + len(JOINT_NAMES)) root first; rows sum to 1."""
    regions: dict[str, Bool]
    """(V,) masks of skin: face, lips, eyelids, nose, ears, scalp, neck."""
    eye_centres: F64
    """(1 + S, 2, 3) centre of the left and right eyeball: of the mean head, then the offset by each component."""
    pairs: tuple[tuple[str, str], ...] = ()
    """Units of each corrective; its weight is the product of theirs, e (1 - e) where both are the same unit."""
    pair_offsets: F64 = field(default_factory=lambda: np.zeros((0, 0, 3)))
    """(len(pairs), V, 3) offsets of the correctives at weight 1."""
    person: PersonTerms | None = None
    """What units and correctives differ in between people; None for nothing."""

    @property
    def triangles(self) -> Int:
        """(F, 3) two for each quad, one where its last vertex repeats."""
        return triangulate(self.quads)

    @property
    def size_sigma(self) -> float:
        """Standard deviation of the head's size: component 0 is so many times the mean head."""
        return float((self.shape[0] * self.template).sum() / (self.template**2).sum())

    def rows(self, *parts: str) -> Int:
        """Vertices of parts."""
        return np.unique(self.quads[np.isin(self.parts, parts)])

    def unit(self, name: str) -> int:
        """Number of an expression unit."""
        return self.expression_names.index(name)

    def vertices(self, weights: Mapping[str, float] | None = None, shape: F64 | None = None) -> F64:
        """(V, 3) of a face with expression weights by name and shape weights (S,), correctives included, no joint
        turned."""
        weights = weights or {}
        result = self.template.copy()
        if shape is not None:
            result += np.tensordot(shape, self.shape, 1)
        for name, weight in weights.items():
            result += weight * self.expression[self.unit(name)]

        def of_pair(first: str, second: str) -> float:
            one, other = weights.get(first, 0.0), weights.get(second, 0.0)
            return one * (1 - one) if first == second else one * other

        for pair, offsets in zip(self.pairs, self.pair_offsets, strict=True):
            result += of_pair(*pair) * offsets
        if shape is not None and self.person is not None:
            shares = self.person.weights @ shape
            for term, share, offsets in zip(self.person.terms, shares, self.person.offsets, strict=True):
                weight = weights.get(term[0], 0.0) if len(term) == 1 else of_pair(*term)
                result += weight * share * offsets
        return result

    def with_parts(
        self,
        template: F64,
        quads: Int,
        parts: npt.NDArray[np.str_],
        uv: F64,
        uv_quads: Int,
        *,
        shape: F64,
        skin_weights: F64,
        expression: F64 | None = None,
    ) -> Draft:
        """The draft with more geometry behind its own: as the fields of the same names, numbered from 0.

        expression: 0 by default. The new vertices are in no region and no corrective moves them.
        """
        added, before = len(template), len(self.template)
        if expression is None:
            expression = np.zeros((len(self.expression), added, 3))
        none = np.zeros((len(self.pair_offsets), added, 3))
        return replace(
            self,
            template=np.concatenate([self.template, template]),
            shape=np.concatenate([self.shape, shape], 1),
            expression=np.concatenate([self.expression, expression], 1),
            quads=np.concatenate([self.quads, quads + before]),
            parts=np.concatenate([self.parts, parts]),
            uv=np.concatenate([self.uv, uv]),
            uv_quads=np.concatenate([self.uv_quads, uv_quads + len(self.uv)]),
            skin_weights=np.concatenate([self.skin_weights, skin_weights]),
            regions={
                name: np.concatenate([mask, np.zeros(added, bool)]) for name, mask in self.regions.items()
            },
            pair_offsets=np.concatenate([self.pair_offsets, none], 1)
            if len(self.pairs)
            else self.pair_offsets,
            person=None if self.person is None else self.person.with_vertices(added),
        )

    def with_pairs(self, pairs: tuple[tuple[str, str], ...], offsets: F64) -> Draft:
        """The draft with more correctives: offsets (len(pairs), V, 3)."""
        before = self.pair_offsets if len(self.pairs) else np.zeros((0, *self.template.shape))
        return replace(self, pairs=self.pairs + pairs, pair_offsets=np.concatenate([before, offsets]))
