"""Correctives of pairs of units, and quads, in the head model and its files."""

import numpy as np
import pytest
import torch
from paired_heads import PAIR_NAMES, PAIRS, changed, paired, paired_capture, plain_head, quad_head

from avface.errors import AvfaceError
from avface.geometry.mesh import triangulate
from avface.head import load_head
from avface.head.asset import OPEN_HEAD, save_head_asset
from avface.head.blend import pair_slopes, pair_weights
from avface.head.morphs import morph_motion, morph_targets


@pytest.fixture(scope="module")
def plain():
    return plain_head()


@pytest.fixture(scope="module")
def head(plain):
    return paired(plain)


def expression_of(head, **weights):
    expression = torch.zeros(1, head.num_expression)
    for name, weight in weights.items():
        expression[0, head.expression_names.index(name)] = weight
    return expression


def corrected(plain, head, **weights):
    """What the correctives add (V, 3) to an expression."""
    shape = torch.zeros(1, head.num_shape)
    return (head(shape, expression_of(head, **weights)) - plain(shape, expression_of(head, **weights)))[0]


@pytest.mark.parametrize(
    ("weights", "factors"),
    [
        ({}, (0, 0, 0)),
        ({"eyeBlinkLeft": 0.5}, (0.25, 0, 0)),
        ({"eyeBlinkLeft": 0.2}, (0.16, 0, 0)),
        ({"eyeBlinkLeft": 1.0}, (0, 0, 0)),
        ({"mouthSmileLeft": 0.5, "jawOpen": 0.4}, (0, 0.2, 0)),
        ({"mouthSmileLeft": 1.0}, (0, 0, 0)),
        ({"eyeBlinkRight": 1.0, "eyeSquintRight": 1.0, "eyeBlinkLeft": 0.5}, (0.25, 0, 1)),
        ({"mouthSmileLeft": 3.0, "jawOpen": 2.0, "eyeBlinkLeft": 1.5}, (0, 1, 0)),
        ({"mouthSmileLeft": 0.5, "jawOpen": -1.0, "eyeBlinkLeft": -0.5}, (0, 0, 0)),
    ],
)
def test_a_corrective_has_the_product_of_its_units_and_an_in_between_is_0_at_both_ends(
    plain, head, weights, factors
):
    expected = torch.einsum("p,pvc->vc", torch.tensor(factors).float(), head.pair_basis)

    torch.testing.assert_close(corrected(plain, head, **weights), expected, rtol=0, atol=1e-7)


def test_correctives_turn_with_the_joints(plain, head):
    joints = torch.zeros(1, head.num_joints, 3)
    joints[0, 0, 1] = 0.4
    shape, expression = torch.zeros(1, head.num_shape), expression_of(head, eyeBlinkLeft=0.5)

    turned = head(shape, expression, joints) - plain(shape, expression, joints)

    before = corrected(plain, head, eyeBlinkLeft=0.5)
    torch.testing.assert_close(turned[0].norm(dim=1), before.norm(dim=1), rtol=0, atol=1e-6)
    assert (turned[0] - before).norm(dim=1).max() > 1e-4


@pytest.mark.parametrize("people", [1, 4])
def test_offsets_of_an_expression_are_the_blend_basis_by_its_weights(head, people):
    random = torch.Generator().manual_seed(0)
    expression = torch.rand(4, head.num_expression, generator=random)
    shape = torch.randn(people, head.num_shape, generator=random)

    offsets = torch.einsum("te,evc->tvc", head.blend_terms.weights(expression, shape), head.blend_basis)

    torch.testing.assert_close(head(shape, expression) - head.neutral(shape), offsets, rtol=0, atol=1e-6)


def test_a_term_of_the_person_is_a_unit_or_corrective_that_depends_linearly_on_the_shape(plain, head):
    shape = torch.randn(1, head.num_shape, generator=torch.Generator().manual_seed(4))
    share = head.person_weights @ shape[0]

    def person(scale, **weights):
        expression = expression_of(head, **weights)
        own = head(scale * shape, expression) - plain(scale * shape, expression)
        return (own - corrected(plain, head, **weights)[None])[0]

    open_jaw = share[2] * head.person_basis[2]
    torch.testing.assert_close(person(1, jawOpen=1.0), open_jaw, rtol=0, atol=1e-6)
    torch.testing.assert_close(person(-2, jawOpen=0.5), -open_jaw, rtol=0, atol=1e-6)
    half = share[0] / 2 * head.person_basis[0] + share[1] / 4 * head.person_basis[1]
    torch.testing.assert_close(person(1, eyeBlinkLeft=0.5), half, rtol=0, atol=1e-6)
    assert open_jaw.norm(dim=1).max() > 1e-3 < half.norm(dim=1).max()


def test_a_persons_units_have_the_terms_of_the_person(head):
    random = torch.Generator().manual_seed(5)
    shape, expression = torch.randn(head.num_shape, generator=random), torch.rand(3, 52, generator=random)

    weights = torch.cat([expression, pair_weights(expression, head.pair_units)], 1)
    offsets = torch.einsum("te,evc->tvc", weights, head.personal_basis(shape))

    moved = head(shape[None], expression) - head.neutral(shape)
    torch.testing.assert_close(moved, offsets, rtol=0, atol=1e-6)


def test_gradients_agree_with_finite_differences():
    exact = quad_head().double()
    random = torch.Generator().manual_seed(1)
    shape = torch.randn(2, 3, dtype=torch.float64, generator=random).requires_grad_()
    expression = torch.rand(2, 3, dtype=torch.float64, generator=random).requires_grad_()

    assert torch.autograd.gradcheck(exact, (shape, expression))


def test_slopes_are_the_derivatives_of_the_weights(head):
    expression = (
        2 * torch.rand(3, head.num_expression, generator=torch.Generator().manual_seed(2)).double() - 0.5
    )

    pairs = head.pair_units
    derivative = torch.autograd.functional.jacobian(lambda rows: pair_weights(rows, pairs).sum(0), expression)

    slopes = torch.zeros_like(derivative)
    for unit, along in zip(pairs.T, pair_slopes(expression, pairs), strict=True):
        slopes[torch.arange(len(pairs)), :, unit] += along.T
    torch.testing.assert_close(slopes, derivative)


def test_a_unit_that_rests_can_start(head):
    expression = torch.zeros(1, head.num_expression, requires_grad=True)

    pair_weights(expression, head.pair_units)[0, 0].backward()

    assert expression.grad[0, head.expression_names.index("eyeBlinkLeft")] == 1


# Consistency of arguments


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs": ((0, 52),), "pair_basis": np.zeros((1, 8, 3))}, "unit 52 doesn't exist or turns a joint"),
        ({"pairs": ((-1, 0),), "pair_basis": np.zeros((1, 8, 3))}, "unit -1 doesn't exist or turns a joint"),
        ({"pairs": ((0, 1),)}, "pair_basis has 0 rows, must have 1"),
        ({"pair_basis": np.zeros((2, 8, 3))}, "pair_basis has 2 rows, must have 0"),
        ({"person_terms": np.array([0])}, "person_weights has the shape .0, 100. and person_terms 1 rows"),
        (
            {
                "person_terms": np.array([0]),
                "person_weights": np.zeros((1, 7)),
                "person_basis": np.zeros((1, 8, 3)),
            },
            r"person_weights has the shape \(1, 7\) .* must have \(1, 100\) and 1",
        ),
        (
            {
                "person_terms": np.array([52]),
                "person_weights": np.zeros((1, 100)),
                "person_basis": np.zeros((1, 8, 3)),
            },
            "person_terms: a unit or pair doesn't exist",
        ),
        ({"quads": np.array([[0, 1, 2, 3]])}, "quads: their triangles must be the faces"),
    ],
)
def test_correctives_and_quads_that_cannot_be_are_refused(plain, changes, message):
    with pytest.raises(ValueError, match=message):
        changed(plain, **changes)


def test_a_corrective_of_a_unit_that_turns_a_joint_is_refused(plain):
    basis = plain.expression_basis.numpy().copy()
    basis[0] = 0
    changes = {"expression_basis": basis, "joint_units": {0: (0, 0)}, "pair_basis": np.zeros((1, 8, 3))}

    with pytest.raises(ValueError, match="unit 0 doesn't exist or turns a joint"):
        changed(plain, **changes, pairs=((0, 1),))


# Quads


def test_quads_of_uvs_and_parts_belong_to_the_triangles():
    head = quad_head()

    assert len(head.quads) == len(head.uv_quads) == len(head.quad_parts) == 19
    np.testing.assert_array_equal(triangulate(head.quads), head.faces)
    np.testing.assert_array_equal(triangulate(head.uv_quads), head.uv_faces)
    triangles = head.quads[:, 2] == head.quads[:, 3]
    assert triangles.sum() == 2 and (head.uv_quads[triangles, 2] == head.uv_quads[triangles, 3]).all()
    np.testing.assert_array_equal(np.repeat(head.quad_parts, np.where(triangles, 1, 2)), head.face_parts)


def test_a_head_of_triangles_has_no_quads(plain):
    assert plain.quads.shape == plain.uv_quads.shape == (0, 4) and plain.quad_parts.shape == (0,)


def test_triangles_of_a_quad_share_its_first_diagonal():
    np.testing.assert_array_equal(
        triangulate(np.array([[5, 6, 7, 8], [1, 2, 3, 3]])), [[5, 6, 7], [5, 7, 8], [1, 2, 3]]
    )


# Files and content


def test_correctives_and_quads_come_back_from_the_file(tmp_path):
    head = quad_head()
    save_head_asset(head, tmp_path / "head.npz")

    again = load_head(tmp_path / "head.npz")

    assert again.pairs == head.pairs
    torch.testing.assert_close(again.pair_basis, head.pair_basis, rtol=0, atol=1e-6)
    torch.testing.assert_close(again.person_basis, head.person_basis, rtol=0, atol=1e-6)
    torch.testing.assert_close(again.person_weights, head.person_weights, rtol=0, atol=0)
    torch.testing.assert_close(again.person_terms, head.person_terms)
    np.testing.assert_array_equal(again.quads, head.quads)
    np.testing.assert_array_equal(again.uv_quads, head.uv_quads)
    save_head_asset(again, tmp_path / "again.npz")
    assert load_head(tmp_path / "again.npz").digest() == again.digest()


def test_local_correctives_add_little_to_the_file(plain, head, tmp_path):
    for name, saved in (("plain", plain), ("paired", head)):
        save_head_asset(saved, tmp_path / f"{name}.npz")

    sizes = [(tmp_path / f"{name}.npz").stat().st_size for name in ("plain", "paired")]
    moved = int(head.pair_basis.any(2).sum() + head.person_basis.any(2).sum())
    assert sizes[1] - sizes[0] < 7 * moved + 10_000  # three numbers of 16 bits a vertex that moves


def test_the_digest_covers_correctives_and_quads():
    head = quad_head()
    other = changed(head, pair_basis=2 * head.pair_basis.numpy())
    swapped = changed(head, pairs=(head.pairs[1], head.pairs[0]))
    no_person = changed(head, person_terms=None, person_weights=None, person_basis=None)
    none = changed(no_person, pairs=(), pair_basis=None)
    triangles = changed(head, quads=None)
    people = changed(head, person_weights=-head.person_weights.numpy())

    assert len({each.digest() for each in (head, other, swapped, no_person, none, triangles, people)}) == 7
    assert changed(head).digest() == head.digest()


@pytest.mark.parametrize("version", [1, 2])
def test_files_of_earlier_versions_are_read(plain, tmp_path, version):
    save_head_asset(plain, tmp_path / "new.npz")
    with np.load(tmp_path / "new.npz") as archive:
        arrays = dict(archive)
    for key in list(arrays):
        if key == "quads" or key.startswith(("pair", "person_")):
            del arrays[key]
    if version == 1:
        for key in list(arrays):
            if key.startswith(("unit_", "joint_units", "corrective_", "joints_follow", "contour_")):
                del arrays[key]
    np.savez(tmp_path / "old.npz", **{**arrays, "asset_version": np.array(version)})

    again = load_head(tmp_path / "old.npz")

    assert (again.name, again.digest()) == (plain.name, plain.digest())


def test_a_file_of_a_later_version_says_what_to_do(tmp_path):
    with np.load(OPEN_HEAD) as archive:
        np.savez(tmp_path / "new.npz", **{**archive, "asset_version": np.array(4)})

    with pytest.raises(
        AvfaceError, match=r"new\.npz: not a head file of version 1 to 3; make it .* or update avface"
    ):
        load_head(tmp_path / "new.npz")


# Morph targets


def test_correctives_are_morph_targets_after_the_units(head):
    targets = morph_targets(head, np.zeros(head.num_shape, np.float32))

    assert targets.names == (*head.expression_names, *PAIR_NAMES)
    assert targets.pairs == len(PAIRS) and len(targets.correctives) == 0
    np.testing.assert_array_equal(targets.offsets[52:], head.pair_basis.numpy())


def test_vertices_from_the_morph_targets_are_those_of_the_capture(tmp_path):
    capture = paired_capture(tmp_path)
    head = capture.head_model
    still = np.zeros_like(capture.joints)

    targets = morph_targets(head, capture.shape)
    motion = morph_motion(head, targets, capture.shape, capture.expression, still)

    rest = head.neutral(torch.as_tensor(capture.shape)).numpy()
    moved = rest + np.tensordot(motion.weights, targets.offsets, 1)
    own = head(*(torch.as_tensor(each) for each in (capture.shape[None], capture.expression, still)))
    assert np.abs(moved - own.numpy()).max() < 1e-6
    assert motion.weights.shape == (len(capture), 52 + len(PAIRS)) and motion.weights[:, 52:].min() > 0


def test_landmarks_of_a_capture_move_with_the_correctives(tmp_path):
    capture = paired_capture(tmp_path)
    embedding = capture.head_model.embedding("mediapipe478")

    np.testing.assert_allclose(
        capture.landmarks(space="head"), embedding.on(capture.vertices(space="head")), atol=1e-6
    )
