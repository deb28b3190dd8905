"""Stems, sides and mirror images of expression units."""

import numpy as np

from avface.head import load_head
from avface.head.unit_names import mirrored_units, unit_side, unit_stem


def test_halves_have_a_stem_and_a_side_and_whole_units_have_none():
    assert (unit_stem("browDownLeft"), unit_side("browDownLeft")) == ("browDown", "Left")
    assert (unit_stem("jawOpen"), unit_side("jawOpen")) == ("jawOpen", "")
    assert (unit_stem("mouthLeft"), unit_side("mouthLeft")) == ("mouthLeft", ""), "it moves both halves"


def test_the_mirror_image_swaps_sides_and_is_its_own_inverse():
    names = load_head("open").expression_names
    mirror = mirrored_units(names)
    assert names[mirror[names.index("mouthSmileLeft")]] == "mouthSmileRight"
    assert names[mirror[names.index("jawLeft")]] == "jawRight"
    assert names[mirror[names.index("mouthPucker")]] == "mouthPucker"
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(names)))


def test_the_mirror_image_of_a_unit_moves_the_mirrored_face():
    head = load_head("open")
    names = head.expression_names
    points = head.embedding("mediapipe478").on(head.expression_basis.numpy())
    here, there = (names.index(f"mouthFrown{side}") for side in ("Left", "Right"))
    assert mirrored_units(names)[here] == there
    np.testing.assert_allclose(np.abs(points[here][:, 0]).sum(), np.abs(points[there][:, 0]).sum(), rtol=0.05)
