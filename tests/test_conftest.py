"""Draws without a generator of their own are the same in every run, whatever ran before."""

import random

import numpy as np
import pytest
import torch


def draws():
    return [random.random(), float(np.random.uniform()), float(torch.rand(()))]


@pytest.fixture
def drawn():
    return draws()


@pytest.fixture
def drawn_elsewhere():
    return draws()


@pytest.mark.parametrize("already_drawn", [0, 3])
def test_global_generators_are_seeded_before_fixtures_and_tests(drawn, drawn_elsewhere, already_drawn):
    now = draws()
    assert now == pytest.approx([0.8444218515250481, 0.5488135039273248, 0.49625658988952637])
    assert drawn == pytest.approx([0.6181818952591396, 0.6325957555799433, 0.9445138573646545])
    assert all(a != b for a, b in zip(drawn, drawn_elsewhere, strict=True)), "fixtures differ"
    for _ in range(already_drawn):
        draws()
