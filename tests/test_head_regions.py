"""Boundaries of the open head's regions at its landmarks, and their connectedness."""

import copy

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from avface.errors import AvfaceError
from avface.head import load_head
from avface.head.regions import NOSE_RING, _distance_from_inside, regions_from_landmarks
from avface.head.schemes import (
    FACE_OVAL,
    LEFT_EYE,
    LIPS,
    LIPS_INNER_LOWER,
    LIPS_INNER_UPPER,
    LIPS_OUTER,
    RIGHT_EYE,
)

EYES = np.concatenate([LEFT_EYE, RIGHT_EYE])


@pytest.fixture(scope="module")
def head():
    return load_head("open")


def landmarks(head):
    embedding = head.embedding("mediapipe478")
    return np.einsum("lkc,lk->lc", head.template.numpy()[embedding.triangles], embedding.barycentric)


def nearest(head, marks):
    embedding = head.embedding("mediapipe478")
    return embedding.triangles[marks, embedding.barycentric[marks].argmax(1)]


def skin_faces(head):
    return head.faces.numpy()[head.face_parts == head.part_names.index("skin")]


def skin(head):
    mask = np.zeros(head.num_vertices, bool)
    mask[skin_faces(head)] = True
    return mask


def pieces(head, mask):
    """Sizes of the connected pieces of a region, largest first."""
    edges = skin_faces(head)[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    edges = edges[mask[edges].all(1)]
    graph = coo_matrix((np.ones(len(edges)), edges.T), (head.num_vertices,) * 2)
    _, label = connected_components(graph, directed=False)
    return sorted(np.unique(label[mask], return_counts=True)[1], reverse=True)


@pytest.mark.parametrize(("name", "marks"), [("lips", LIPS), ("eyelids", EYES), ("nose", NOSE_RING[1:-1])])
def test_landmarks_lie_in_their_region(head, name, marks):
    marks = np.asarray(marks)
    if name == "nose":  # its upper corners touch the lids
        marks = np.setdiff1d(marks, [193, 417])

    outside = marks[~head.regions[name][nearest(head, marks)]]

    assert len(outside) == 0, f"{outside} lie outside"


def test_a_lid_reaches_as_far_below_the_eye_as_a_lower_lid_does(head):
    points, template = landmarks(head), head.template.numpy()

    for ring in (LEFT_EYE, RIGHT_EYE):
        lowest = points[ring[points[ring, 1].argmin()]]
        below = template[:, 1] < lowest[1] - 0.001
        near = np.linalg.norm(template - lowest, axis=1)
        assert head.regions["eyelids"][skin(head) & below & (near < 0.005)].all()
        assert not head.regions["eyelids"][below & (near > 0.02) & (template[:, 1] < lowest[1] - 0.01)].any()


def test_lips_end_at_the_outer_ring_and_have_an_inner_side(head):
    points, lips = landmarks(head), head.template.numpy()[head.regions["lips"]]

    assert _distance_from_inside(lips[:, :2], points[LIPS_OUTER, :2]).max() < 0.002
    seam = points[np.concatenate([LIPS_INNER_UPPER, LIPS_INNER_LOWER])]
    assert lips[:, 2].min() < seam[:, 2].min() - 0.004, "behind where they meet"
    assert lips[:, 2].max() > seam[:, 2].max()


@pytest.mark.parametrize(
    ("name", "count"), [("lips", 1), ("eyelids", 2), ("nose", 1), ("ears", 2), ("neck", 1)]
)
def test_a_region_is_in_one_piece_a_side(head, name, count):
    assert len(pieces(head, head.regions[name])) == count


@pytest.mark.parametrize("name", ["lips", "nose", "neck"])
def test_a_region_has_no_hole(head, name):
    whole = pieces(head, skin(head))

    around = pieces(head, skin(head) & ~head.regions[name])

    assert len(around) == len(whole), f"{name} encloses {around[1:]} vertices"


def test_the_nape_is_neck_and_not_scalp(head):
    template, regions = head.template.numpy(), head.regions
    nape = skin(head) & (template[:, 2] < 0) & (template[:, 1] < -0.06)

    assert nape.sum() > 30
    assert regions["neck"][nape].all() and not regions["scalp"][nape].any()
    lobe = template[regions["ears"]][template[regions["ears"], 1].argmin()]
    behind = regions["scalp"] & (template[:, 2] < lobe[2])
    assert behind.sum() > 100 and template[behind, 1].min() > lobe[1] - 0.001


def test_the_throat_is_neck_and_the_chin_is_face(head):
    template, points = head.template.numpy(), landmarks(head)
    chin = points[152]
    throat = skin(head) & (template[:, 1] < chin[1] - 0.003) & (template[:, 2] < chin[2] - 0.02)

    assert head.regions["neck"][throat].all() and throat.sum() > 50
    front = skin(head) & (template[:, 1] > chin[1] - 0.002) & (template[:, 2] > chin[2])
    assert not head.regions["neck"][front].any() and front.sum() > 50


def test_the_cheeks_down_to_the_outline_are_face(head):
    points, template = landmarks(head), head.template.numpy()
    inner = np.setdiff1d(np.arange(468), FACE_OVAL)
    jaw = points[FACE_OVAL, 1].min()
    clear = inner[points[inner, 2] > points[FACE_OVAL, 2].max() - 0.03]

    assert template[head.regions["neck"], 1].max() < -0.03
    assert jaw < points[clear, 1].min()
    assert head.regions["face"][nearest(head, clear)].mean() > 0.99


def test_all_outer_skin_belongs_to_exactly_one_region(head):
    regions = head.regions
    places = sum(regions[name].astype(int) for name in ("face", "ears", "scalp", "neck"))
    details = sum(regions[name].astype(int) for name in ("lips", "eyelids", "nose"))

    assert places.max() == 1 and details.max() == 1
    bare = skin(head) & (places == 0)
    eyes = head.joint_positions(head.template.new_zeros(1, head.num_shape))[0, 1:].numpy()
    depth = np.linalg.norm(head.template.numpy()[bare][:, None] - eyes, axis=2).min(1)
    assert (depth < 0.027).all(), "only the eyes' sockets are nowhere"


def test_the_shipped_regions_are_those_of_the_landmarks_and_a_fixed_point(head):
    again = regions_from_landmarks(head)

    assert list(again) == list(head.regions)
    for name, mask in head.regions.items():
        np.testing.assert_array_equal(again[name], mask, err_msg=name)


def test_a_damaged_region_is_repaired(head):
    damaged = copy.copy(head)
    damaged.regions = {**head.regions}
    for name in ("lips", "nose"):
        damaged.regions[name] = np.zeros_like(head.regions[name])
    nape = head.template.numpy()[:, 2] < 0
    damaged.regions["scalp"] = head.regions["scalp"] | head.regions["neck"] & nape
    damaged.regions["neck"] = head.regions["neck"] & ~nape

    repaired = regions_from_landmarks(damaged)

    for name in ("lips", "nose", "scalp", "neck"):
        np.testing.assert_array_equal(repaired[name], head.regions[name], err_msg=name)


def test_a_head_without_landmarks_is_refused(head):
    bare = copy.copy(head)
    bare.embeddings = {}

    with pytest.raises(AvfaceError, match="no landmark scheme"):
        regions_from_landmarks(bare)


def test_distance_from_a_polygon_is_zero_within_and_to_its_edge_outside():
    square = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]])
    points = np.array([[1.0, 1.0], [3.0, 1.0], [5.0, 6.0], [1.0, -0.5]])

    np.testing.assert_allclose(_distance_from_inside(points, square), [0, 1, 5, 0.5])
