"""Colour transfer by sliced optimal transport."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from avface.arrays import F32, F64, Floats


@dataclass(frozen=True)
class TransferConfig:
    """Options of the transfer. The defaults are those of Voo, Jiang and Loy (2022) except for `smoothing_value`."""

    steps: int = 15
    """Steps of sliced optimal transport."""
    directions: int = 5
    """Random directions averaged in each step."""
    smoothing_space: float = 5.0
    """Standard deviation in pixels of the bilateral filter that smooths the change."""
    smoothing_value: float = 0.12
    """Its standard deviation in values, from 0 to 1. (The released code swaps the two.)"""

    def __post_init__(self) -> None:
        for name in ("steps", "directions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("smoothing_space", "smoothing_value"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")


def sliced_transport(
    source: Floats,
    target: Floats,
    rng: np.random.Generator,
    config: TransferConfig | None = None,
) -> F64:
    """Transport the points source (N, D) so that they are distributed like target (M, D); returns (N, D).

    In each step, along each of a few random directions, every point moves by the difference between the target's
    projection of equal rank and its own; the displacements are averaged. Equal distributions don't change.

    Raises:
        ValueError: if there are no points, their dimensions differ or they aren't finite.

    Source: Pitie et al. 2005, Bonneel et al. 2015; the steps as in Voo, Jiang and Loy 2022.
    """
    config = config or TransferConfig()
    moved = np.array(source, np.float64)
    goal = np.asarray(target, np.float64)
    if (
        moved.ndim != 2
        or goal.ndim != 2
        or moved.shape[1] != goal.shape[1]
        or not len(moved)
        or not len(goal)
    ):
        raise ValueError(f"source {moved.shape} and target {goal.shape} must be (N, D) and (M, D), not empty")
    if not (np.isfinite(moved).all() and np.isfinite(goal).all()):
        raise ValueError("source and target must be finite")
    ranks = (np.arange(len(moved)) + 0.5) / len(moved)
    goal_ranks = (np.arange(len(goal)) + 0.5) / len(goal)
    dimensions = moved.shape[1]
    for _ in range(config.steps):
        # random orthogonal frames converge in fewer steps than independent directions
        frames = [np.linalg.qr(rng.normal(size=(dimensions, dimensions)))[0].T]
        while sum(len(frame) for frame in frames) < config.directions:
            frames.append(np.linalg.qr(rng.normal(size=(dimensions, dimensions)))[0].T)
        directions = np.concatenate(frames)[: config.directions]
        change = np.zeros_like(moved)
        for direction in directions:
            here = moved @ direction
            there = np.interp(ranks, goal_ranks, np.sort(goal @ direction))
            order = np.argsort(here, kind="stable")
            step = np.empty(len(here))
            step[order] = there - here[order]
            change += step[:, None] * direction
        # in D dimensions, D orthogonal directions make up one full displacement
        moved += change * min(dimensions / len(directions), 1.0)
    return moved


def without_highlights(colours: Floats) -> F64:
    """Colours (M, 3) with each channel clipped to its mean + 1 standard deviation (Voo et al. 2022)."""
    values = np.asarray(colours, np.float64)
    return np.minimum(values, values.mean(0) + values.std(0))


def transfer_colours(
    image: Floats,
    target: Floats,
    rng: np.random.Generator,
    config: TransferConfig | None = None,
) -> F32:
    """A picture (H, W, 3) with the colours of target (M, 3), values in [0, 1].

    Only the change is smoothed, by OpenCV's bilateral filter per channel, so that detail is kept. The target is a list
    of colours, without the black surroundings of the original method, and needs no correction for them.

    Raises:
        ValueError: as `sliced_transport` does.
    """
    config = config or TransferConfig()
    original = np.asarray(image, np.float32)
    flat = original.reshape(-1, 3)
    moved = sliced_transport(flat, without_highlights(target), rng, config)
    change = (moved - flat).reshape(original.shape).astype(np.float32)
    for k in range(3):
        change[..., k] = cv2.bilateralFilter(
            np.ascontiguousarray(change[..., k]), -1, config.smoothing_value, config.smoothing_space
        )
    return np.clip(original + change, 0, 1)
