"""The head model of all stages: linear blend shapes and joints, independent of the file format it comes from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from avface.arrays import F64, Bool, Floats, Int, Ints
from avface.errors import AvfaceError
from avface.geometry.mesh import triangulate
from avface.geometry.rotations import rotvec_to_rotmat
from avface.head.blend import BlendTerms
from avface.head.contour import YawContour


@dataclass(frozen=True)
class LandmarkEmbedding:
    """Places of the points of a landmark scheme on the surface of a head.

    Shapes: triangles (L, 3) vertex numbers, barycentric (L, 3), spread (L,), error_basis (K, L, 3).
    Units:  spread in metres: the median distance over people and poses between this point and the detector's; the
            larger, the less reliable is the point. error_basis: metres in the head's frame, the principal components
            of the detector's errors, each scaled to one standard deviation. Errors are correlated over the frames of a
            person and over neighbouring points.
    """

    triangles: Int
    barycentric: F64
    spread: F64
    error_basis: F64

    def on(self, vertices: Floats) -> F64:
        """Values at the landmarks (..., L, C) from values at the vertices (..., V, C), by barycentric interpolation."""
        corners = np.asarray(vertices, np.float64)[..., self.triangles, :]
        return np.asarray(np.einsum("...lkc,lk->...lc", corners, self.barycentric), np.float64)


@dataclass(frozen=True)
class UnitRange:
    """Range of the expression units, each (E,): least and largest weight, and the standard deviation around 0."""

    low: F64
    high: F64
    sigma: F64

    def __post_init__(self) -> None:
        if not len(self.low) == len(self.high) == len(self.sigma):
            raise ValueError("unit_range: low, high and sigma must have equal lengths")
        if not (self.low <= self.high).all():
            raise ValueError("unit_range: low must not exceed high in any expression unit")
        if not (self.sigma > 0).all():
            raise ValueError("unit_range: sigma must be above 0 in every expression unit")

    @classmethod
    def from_zero_to_one(cls, units: int) -> UnitRange:
        """The range 0 to 1 of blend shapes such as ARKit's."""
        return cls(np.zeros(units), np.ones(units), np.ones(units))

    @property
    def reach(self) -> F64:
        """(E,) the largest absolute weight."""
        return np.maximum(-self.low, self.high)


class HeadModel(nn.Module):
    """Linear blend shapes and linear blend skinning: (shape, expression, joints) -> vertices.

    Shapes: template (V, 3), shape_basis (S, V, 3), expression_basis (E, V, 3), pair_basis (P, V, 3),
            person_basis (R, V, 3), person_weights (R, S), corrective_basis (9 J or 0, V, 3), joint_regressor (J, V),
            skin_weights (V, J + 1) whose first column is the root that carries the whole head, faces (F, 3).
    Units:  metres; shape weights in standard deviations of the population; joint rotations as axis-angle in radians.
    Axes:   head frame of glTF: +x to the subject's left, +y up, +z out of the face.
    Source: FLAME (Li et al. 2017, sec. 3): vertices = LBS(template + shape_basis . shape + expression_basis .
            expression + corrective_basis . (R(joints) - I), joints). Products of units as weights of further offsets:
            Lewis et al., Practice and Theory of Blendshape Facial Models, 2014, sec. 3.6.

    Where two units together, or one of them half-way, need more than the sum of their offsets, a row of pair_basis
    corrects it. Where a unit or such a corrective differs between people, rows of person_basis add to it. Their weights
    are those of `avface.head.blend.BlendTerms`.

    An expression unit either moves vertices by its basis, or turns a joint about an axis by its weight in radians
    (`joint_units`; its basis is 0), so that a jaw joint is a part of the expression.
    """

    template: Tensor
    shape_basis: Tensor
    expression_basis: Tensor
    pair_basis: Tensor
    person_basis: Tensor
    person_weights: Tensor
    corrective_basis: Tensor
    joint_regressor: Tensor
    skin_weights: Tensor
    faces: Tensor
    pair_units: Tensor
    person_terms: Tensor

    def __init__(
        self,
        name: str,
        *,
        template: Floats,
        shape_basis: Floats,
        expression_basis: Floats,
        expression_names: tuple[str, ...],
        joint_names: tuple[str, ...],
        joint_parents: tuple[int, ...],
        joint_regressor: Floats,
        skin_weights: Floats,
        faces: Ints,
        uv: Floats,
        uv_faces: Ints,
        part_names: tuple[str, ...],
        face_parts: Ints,
        regions: dict[str, Bool],
        embeddings: dict[str, LandmarkEmbedding],
        gaze_range: Floats,
        size_component: int | None = None,
        unit_range: UnitRange | None = None,
        joint_units: dict[int, tuple[int, int]] | None = None,
        corrective_basis: Floats | None = None,
        joints_follow_expression: bool = False,
        contour: YawContour | None = None,
        pairs: tuple[tuple[int, int], ...] = (),
        pair_basis: Floats | None = None,
        person_terms: Ints | None = None,
        person_weights: Floats | None = None,
        person_basis: Floats | None = None,
        quads: Ints | None = None,
    ) -> None:
        """Take the arrays of one head; see the class for shapes.

        joint_parents (J,) numbers each joint's parent, -1 for the root. uv (N, 2) in [0, 1] with v up and uv_faces
        (F, 3) index it. face_parts (F,) indexes part_names ("skin", "left_eye", ...). regions maps a name to a (V,)
        mask. gaze_range (4,) is the eyeball's rotation in radians at weight 1 of eyeLookUp, Down, In and Out.
        size_component numbers the shape component that scales the whole head, if there is one. unit_range is 0 to 1
        by default. joint_units maps expression units to (joint, axis). corrective_basis moves vertices by the entries
        of each joint's rotation matrix less the identity, row by row. joints_follow_expression: whether
        joint_regressor applies to the face with its expression instead of the neutral one. contour: the places of the
        17 points of iBUG's jaw contour at each yaw, if known. pairs numbers the two units of each row of pair_basis,
        twice the same one for an offset half-way to it. person_terms (R,) numbers the unit, or E plus the pair, that
        each row of person_weights and person_basis belongs to. quads (Q, 4) are the polygons whose triangles
        (`avface.geometry.mesh.triangulate`) are faces, in their order; a triangle repeats its last vertex.

        Raises:
            ValueError: if sizes of arrays, joints and axes of units, pairs, terms of people or quads are
                inconsistent.
        """
        super().__init__()
        self.name = name
        self.expression_names = expression_names
        self.joint_names = joint_names
        self.joint_parents = joint_parents
        self.part_names = part_names
        self.embeddings = embeddings
        self.uv = np.asarray(uv, np.float32)
        self.uv_faces = np.asarray(uv_faces, np.int64)
        self.face_parts = np.asarray(face_parts, np.int64)
        self.regions = regions
        self.gaze_range = np.asarray(gaze_range, np.float64)
        self.size_component = size_component
        units = len(expression_names)
        self.unit_range = unit_range or UnitRange.from_zero_to_one(units)
        self.joint_units = dict(joint_units or {})
        self.joints_follow_expression = joints_follow_expression
        self.contour = contour
        if corrective_basis is None:
            corrective_basis = np.zeros((0, *np.shape(template)))
        _check_joints(self, np.asarray(expression_basis), np.asarray(corrective_basis))
        self.pairs = tuple((int(first), int(second)) for first, second in pairs)
        none = np.zeros((0, *np.shape(template)))
        pair_basis = none if pair_basis is None else pair_basis
        person_basis = none if person_basis is None else person_basis
        terms = np.zeros(0, np.int64) if person_terms is None else np.asarray(person_terms, np.int64)
        if person_weights is None:
            person_weights = np.zeros((0, len(shape_basis)))
        self.quads = np.zeros((0, 4), np.int64) if quads is None else np.asarray(quads, np.int64)
        _check_pairs(self, np.asarray(pair_basis))
        _check_person(self, terms, np.shape(person_weights), (len(person_basis), len(shape_basis)))
        _check_quads(self, np.asarray(faces))
        for key, value in (
            ("template", template),
            ("shape_basis", shape_basis),
            ("expression_basis", expression_basis),
            ("pair_basis", pair_basis),
            ("person_basis", person_basis),
            ("person_weights", person_weights),
            ("corrective_basis", corrective_basis),
            ("joint_regressor", joint_regressor),
            ("skin_weights", skin_weights),
        ):
            self.register_buffer(key, torch.as_tensor(np.asarray(value, np.float32)))
        self.register_buffer("faces", torch.as_tensor(np.asarray(faces, np.int64)))
        self.register_buffer("pair_units", torch.tensor(self.pairs, dtype=torch.long).reshape(-1, 2))
        self.register_buffer("person_terms", torch.as_tensor(terms))

    @property
    def num_shape(self) -> int:
        """Number of shape components S."""
        return self.shape_basis.shape[0]

    @property
    def num_expression(self) -> int:
        """Number of expression units E."""
        return self.expression_basis.shape[0]

    @property
    def num_joints(self) -> int:
        """Number of joints J, without the root."""
        return len(self.joint_names)

    @property
    def num_vertices(self) -> int:
        """Number of vertices V."""
        return self.template.shape[0]

    def neutral(self, shape: Tensor) -> Tensor:
        """Vertices of the neutral face: shape (..., S) -> (..., V, 3) metres."""
        return self.template + torch.einsum("...s,svc->...vc", shape, self.shape_basis)

    @property
    def blend_basis(self) -> Tensor:
        """Offsets (E + P + R, V, 3) in metres of the expression units, of their pairs and of terms of the person; with
        the weights of `blend_terms`, the offsets of an expression."""
        if not self.pairs and not len(self.person_terms):
            return self.expression_basis
        return torch.cat([self.expression_basis, self.pair_basis, self.person_basis])

    @property
    def blend_terms(self) -> BlendTerms:
        """What gives the weights of `blend_basis`."""
        return BlendTerms(self.pair_units, self.person_terms, self.person_weights)

    def personal_basis(self, shape: Tensor) -> Tensor:
        """Offsets (E + P, V, 3) in metres of the units and of their pairs on a person of shape (S,)."""
        basis = torch.cat([self.expression_basis, self.pair_basis])
        if not len(self.person_terms):
            return basis
        terms = (self.person_weights @ shape)[:, None, None] * self.person_basis
        return basis.index_add(0, self.person_terms, terms)

    def joint_positions(self, shape: Tensor, expression: Tensor | None = None) -> Tensor:
        """Centres of rotation on the neutral face: shape (..., S), expression (..., E) -> (..., J, 3) metres.

        The expression moves them only in heads with `joints_follow_expression`.
        """
        positions = torch.einsum("jv,...vc->...jc", self.joint_regressor, self.neutral(shape))
        if expression is None or not self.joints_follow_expression:
            return positions
        moved = torch.einsum("jv,evc->ejc", self.joint_regressor, self.blend_basis)
        return positions + torch.einsum("...e,ejc->...jc", self.blend_terms.weights(expression, shape), moved)

    def joint_rotations(self, expression: Tensor | None, joints: Tensor | None) -> Tensor | None:
        """Rotation of each joint, (B, J, 3) axis-angle in radians: the sum of `joints` and the weights of the joint
        units.

        expression (B, E), joints (B, J, 3), either None. None if no joint turns.
        """
        if expression is None or not self.joint_units:
            return joints
        if joints is None:
            joints = expression.new_zeros(len(expression), self.num_joints, 3)
        batch = max(len(joints), len(expression))
        turned = joints.expand(batch, -1, -1).clone()
        for unit, (joint, axis) in self.joint_units.items():
            turned[:, joint, axis] = turned[:, joint, axis] + expression[:, unit]
        return turned

    def joint_transforms(
        self, shape: Tensor, rotations: Tensor, expression: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Rotation (B, J, 3, 3) and translation (B, J, 3) of each joint in the head's frame.

        A point x of the neutral face on joint j moves to rotation_j x + translation_j. shape (B, S); rotations
        (B, J, 3) of `joint_rotations`; expression (B, E), which may move the centres.
        """
        pivots = self.joint_positions(shape, expression)
        local = rotvec_to_rotmat(rotations)
        turned: list[Tensor] = []
        translations: list[Tensor] = []
        for j, parent in enumerate(self.joint_parents):
            offset = pivots[:, j] - torch.einsum("bij,bj->bi", local[:, j], pivots[:, j])
            if parent < 0:
                turned.append(local[:, j])
                translations.append(offset)
            else:
                turned.append(turned[parent] @ local[:, j])
                translations.append(torch.einsum("bij,bj->bi", turned[parent], offset) + translations[parent])
        return torch.stack(turned, 1), torch.stack(translations, 1)

    def corrective_weights(self, rotations: Tensor) -> Tensor:
        """Weights (B, 9 J) of the correctives: R - I of each joint, row by row; rotations (B, J, 3).

        (B, 0) for a head without correctives.
        """
        if not len(self.corrective_basis):
            return rotations.new_zeros(len(rotations), 0)
        identity = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
        return (rotvec_to_rotmat(rotations) - identity).flatten(1)

    def forward(
        self,
        shape: Tensor,
        expression: Tensor | None = None,
        joints: Tensor | None = None,
        offsets: Tensor | None = None,
    ) -> Tensor:
        """Vertices (B, V, 3) in metres in the head's frame.

        shape (B, S) or (1, S); expression (B, E), None for the neutral face; joints (B, J, 3) axis-angle in radians,
        None for none turned; offsets (B, V, 3) in metres of the vertices before any joint turns, None for none.
        Differentiable in all of them.

        Raises:
            ValueError: if a last dimension doesn't match the head.
        """
        for label, value, size in (
            ("shape", shape, self.num_shape),
            ("expression", expression, self.num_expression),
        ):
            if value is not None and (value.ndim != 2 or value.shape[1] != size):
                raise ValueError(
                    f"{label} has shape {tuple(value.shape)}, the {self.name} head needs (B, {size})"
                )
        if joints is not None and (joints.ndim != 3 or joints.shape[1:] != (self.num_joints, 3)):
            raise ValueError(
                f"joints has shape {tuple(joints.shape)}, the {self.name} head needs (B, {self.num_joints}, 3)"
            )
        vertices = self.neutral(shape)
        if expression is not None:
            vertices = vertices + (expression @ self.expression_basis.flatten(1)).unflatten(1, (-1, 3))
            if self.pairs or len(self.person_terms):
                weights = self.blend_terms.weights(expression, shape)[:, self.num_expression :]
                correction = weights @ torch.cat([self.pair_basis, self.person_basis]).flatten(1)
                vertices = vertices + correction.unflatten(1, (-1, 3))
        if offsets is not None:
            vertices = vertices + offsets
        turned = self.joint_rotations(expression, joints)
        if turned is None:
            return vertices
        batch = max(len(vertices), len(turned))
        rotations, translations = self.joint_transforms(
            shape.expand(batch, -1), turned.expand(batch, -1, -1), expression
        )
        if len(self.corrective_basis):
            correction = self.corrective_weights(turned) @ self.corrective_basis.flatten(1)
            vertices = vertices + correction.unflatten(1, (-1, 3))
        weights = self.skin_weights
        skinned = weights[:, :1] * vertices
        for j in range(self.num_joints):
            moved = vertices @ rotations[:, j].transpose(1, 2) + translations[:, j, None]
            skinned = skinned + weights[:, j + 1, None] * moved
        return skinned

    def digest(self) -> str:
        """Content hash of the head: 16 hexadecimal digits that don't depend on its name, file, device or precision.

        It covers what networks and priors rely on: topology, bases, joints, units, regions, texture coordinates and
        the places of the landmarks, but not the detector's statistics (`spread`, `error_basis`). It takes 10 ms.
        """
        facts = (
            self.expression_names,
            self.joint_names,
            self.joint_parents,
            self.joint_units,
            self.part_names,
        )
        result = hashlib.sha256(repr((*facts, self.size_component, self.joints_follow_expression)).encode())
        buffers = (self.template, self.shape_basis, self.expression_basis, self.corrective_basis)
        arrays: list[npt.NDArray] = [
            buffer.detach().float().cpu().numpy()
            for buffer in (*buffers, self.joint_regressor, self.skin_weights)
        ]
        arrays += [self.faces.cpu().numpy(), self.uv, self.uv_faces, self.face_parts, self.gaze_range]
        arrays += [self.unit_range.low, self.unit_range.high, self.unit_range.sigma]
        arrays += [self.regions[name] for name in sorted(self.regions)]
        for scheme in sorted(self.embeddings):
            arrays += [self.embeddings[scheme].triangles, self.embeddings[scheme].barycentric]
        if self.pairs:  # digests of heads without them are those that files of earlier versions name
            result.update(repr(self.pairs).encode())
            arrays.append(self.pair_basis.detach().float().cpu().numpy())
        if len(self.person_terms):
            arrays.append(self.person_terms.cpu().numpy())
            arrays += [
                each.detach().float().cpu().numpy() for each in (self.person_weights, self.person_basis)
            ]
        if len(self.quads):
            arrays.append(self.quads)
        for values in arrays:
            result.update(repr((values.dtype.str, values.shape)).encode())
            result.update(np.ascontiguousarray(values).data)
        return result.hexdigest()[:16]

    @property
    def uv_quads(self) -> Int:
        """Polygons (Q, 4) of UV points, as `quads` of vertices; (0, 4) for a head without quads or UVs."""
        return self._of_quads(self.uv_faces) if len(self.uv) else np.zeros((0, 4), np.int64)

    @property
    def quad_parts(self) -> Int:
        """Part number (Q,) of each polygon of `quads`, an index into `part_names`."""
        return self.face_parts[self._first_triangles()]

    def _of_quads(self, triangles: Ints) -> Int:
        """Polygons (Q, 4) from the triangles (F, 3) of which `triangulate` makes them."""
        first = self._first_triangles()
        whole = self.quads[:, 2] != self.quads[:, 3]
        return np.concatenate([triangles[first], triangles[first + whole, 2:]], 1)

    def _first_triangles(self) -> Int:
        """Number (Q,) of the first triangle of each polygon."""
        count = 1 + (self.quads[:, 2] != self.quads[:, 3])
        return np.asarray(np.cumsum(count) - count, np.int64)

    def vertex_parts(self) -> Int:
        """Part number (V,) of every vertex, an index into `part_names`."""
        parts = np.zeros(self.num_vertices, np.int64)
        parts[self.faces.cpu().numpy().ravel()] = np.repeat(self.face_parts, 3)
        return parts

    def embedding(self, scheme: str) -> LandmarkEmbedding:
        """The embedding of a landmark scheme, `mediapipe478` or `ibug68`.

        Raises:
            AvfaceError: if this head has none of that name.
        """
        try:
            return self.embeddings[scheme]
        except KeyError:
            known = ", ".join(sorted(self.embeddings))
            raise AvfaceError(
                f"{self.name}: no landmark scheme {scheme!r} in this head; it has {known}"
            ) from None


def _check_joints(head: HeadModel, expression_basis: Floats, corrective_basis: Floats) -> None:
    """Refuse joint units without a joint or with an expression basis; see `HeadModel`."""
    count, joints = len(expression_basis), head.num_joints
    if any(
        len(values) != count for values in (head.unit_range.low, head.unit_range.high, head.unit_range.sigma)
    ):
        raise ValueError(f"unit_range must have {count} entries, one for each expression unit")
    if len(corrective_basis) not in (0, 9 * joints):
        raise ValueError(f"corrective_basis has {len(corrective_basis)} rows, must have 0 or {9 * joints}")
    for unit, (joint, axis) in head.joint_units.items():
        if not (0 <= unit < count and 0 <= joint < joints and 0 <= axis < 3):
            raise ValueError(f"joint unit {unit} turns joint {joint} about axis {axis}, which doesn't exist")
        if expression_basis[unit].any():
            raise ValueError(f"joint unit {unit} has a basis of its own")


def _check_pairs(head: HeadModel, pair_basis: Floats) -> None:
    """Refuse correctives of units that don't exist or turn a joint; see `HeadModel`."""
    if len(pair_basis) != len(head.pairs):
        raise ValueError(
            f"pair_basis has {len(pair_basis)} rows, must have {len(head.pairs)}, one for each pair"
        )
    for pair in head.pairs:
        for unit in pair:
            if not 0 <= unit < len(head.expression_names) or unit in head.joint_units:
                raise ValueError(f"pair {pair}: unit {unit} doesn't exist or turns a joint")


def _check_person(head: HeadModel, terms: Int, weights: tuple[int, ...], rows: tuple[int, int]) -> None:
    """Refuse terms of the person of units or pairs that don't exist; rows: of person_basis and of shape_basis."""
    if not len(terms) == rows[0] or weights != rows:
        raise ValueError(
            f"person_weights has the shape {weights} and person_terms {len(terms)} rows, must have {rows} and {rows[0]}"
        )
    if ((terms < 0) | (terms >= len(head.expression_names) + len(head.pairs))).any():
        raise ValueError("person_terms: a unit or pair doesn't exist")


def _check_quads(head: HeadModel, faces: Ints) -> None:
    """Refuse quads that aren't those of the triangles; see `HeadModel`."""
    if len(head.quads) and not np.array_equal(triangulate(head.quads), faces):
        raise ValueError("quads: their triangles must be the faces, in their order")
