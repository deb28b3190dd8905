"""Losses on landmarks in the picture: their positions, and the distances of pairs.

Units are the caller's; weights in the papers are for crop units, from -1 to 1 across the picture.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from avface.head.schemes import (
    LEFT_EYE_LOWER,
    LEFT_EYE_UPPER,
    LIP_CORNERS_INNER,
    LIP_CORNERS_OUTER,
    LIPS_INNER_LOWER,
    LIPS_INNER_UPPER,
    NUM_IBUG,
    RIGHT_EYE_LOWER,
    RIGHT_EYE_UPPER,
)

IBUG_EYES = torch.tensor([(37, 41), (38, 40), (43, 47), (44, 46)])
"""Pairs of an upper and a lower lid, iBUG's numbers from 0 (DECA)."""
IBUG_MOUTH = torch.tensor([(61, 67), (62, 66), (63, 65)])
"""Pairs of the upper and the lower lip's inner edge."""
IBUG_LIP_CORNERS = torch.tensor([(48, 54), (60, 64)])
"""The corners of the mouth, outer and inner: right and left."""


def _pairs(*rows: tuple[np.ndarray, np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate([np.stack(pair, 1) for pair in rows]))


MEDIAPIPE_EYES = _pairs((RIGHT_EYE_UPPER, RIGHT_EYE_LOWER), (LEFT_EYE_UPPER, LEFT_EYE_LOWER))
"""(14, 2) an upper lid's point and the one below it. EMOCA sorts both lists by index first, which pairs 157 with 7."""
MEDIAPIPE_MOUTH = _pairs((LIPS_INNER_UPPER, LIPS_INNER_LOWER))
"""(9, 2) a point of the upper lip's inner edge and the one below it."""
MEDIAPIPE_LIP_CORNERS = torch.from_numpy(np.stack([LIP_CORNERS_OUTER, LIP_CORNERS_INNER]))
"""(2, 2) the corners of the mouth, outer and inner: right and left."""


def _ibug_weights() -> Tensor:
    weights = torch.ones(NUM_IBUG)
    weights[[5, 6, 10, 11]] = 2
    weights[27:36] = 1.5
    weights[[30, 31, 35]] = 3
    weights[48:68] = 1.5
    weights[[48, 54]] = 3
    return weights


IBUG_WEIGHTS = _ibug_weights()
"""(68,) DECA's weights: larger for nose and mouth, largest for tip and wings of the nose and corners of the mouth."""


def landmark_loss(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean distance per coordinate: sum_i w_i (|dx_i| + |dy_i|) / (2 sum_i w_i), i over everything.

    predicted and target (..., L, 2); weights (..., L) or (L,): those of a scheme times the visibility. Points with
    weight 0 may be nan.
    Source: DECA (Feng et al. 2021), `lossfunc.weighted_landmark_loss`; its weight there is 1.
    """
    weights = weights.to(predicted).expand(predicted.shape[:-1])
    distance = torch.where(weights[..., None] > 0, predicted - target, 0.0).abs().sum(-1)
    return (weights * distance).sum() / (2 * weights.sum()).clamp_min(1e-8)


def gap_loss(predicted: Tensor, target: Tensor, pairs: Tensor) -> Tensor:
    """Mean of |d' - d| over pairs of landmarks, d the distance between the two in the target and d' in the prediction.

    predicted and target (..., L, 2), pairs (P, 2). With pairs of lids this is DECA's eye closure (weight 1; EMOCA 0.5),
    with inner lips the mouth closure (0.5), with the corners of the mouth EMOCA's lip corner loss (0.5), which compares
    the width of the mouth. It is invariant to translation.
    Source: DECA, `lossfunc.eyed_loss` and `lipd_loss`; EMOCA (Danecek et al. 2022), `DecaLosses`.
    """
    return (_gaps(predicted, pairs) - _gaps(target, pairs)).abs().mean()


def _gaps(points: Tensor, pairs: Tensor) -> Tensor:
    one, other = pairs.to(points.device).unbind(1)
    gaps: Tensor = torch.linalg.vector_norm(
        points.index_select(-2, one) - points.index_select(-2, other), dim=-1
    )
    return gaps
