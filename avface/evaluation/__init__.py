"""Accuracy of reconstructions: standard metrics, protocols over clips, occluded faces, weights and shapes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avface.evaluation.ablation import AblationReport, evaluate_ablation
    from avface.evaluation.clips import ClipResult, ClipsReport, evaluate_clips
    from avface.evaluation.expression import ExpressionReport, evaluate_expression
    from avface.evaluation.occlusion import OcclusionReport, evaluate_occlusion
    from avface.evaluation.shape import ShapeReport, evaluate_shape

__all__ = [
    "AblationReport",
    "ClipResult",
    "ClipsReport",
    "ExpressionReport",
    "OcclusionReport",
    "ShapeReport",
    "evaluate_ablation",
    "evaluate_clips",
    "evaluate_expression",
    "evaluate_occlusion",
    "evaluate_shape",
]

_MODULES = {
    "AblationReport": "ablation",
    "ClipResult": "clips",
    "ClipsReport": "clips",
    "ExpressionReport": "expression",
    "OcclusionReport": "occlusion",
    "ShapeReport": "shape",
    "evaluate_ablation": "ablation",
    "evaluate_clips": "clips",
    "evaluate_expression": "expression",
    "evaluate_occlusion": "occlusion",
    "evaluate_shape": "shape",
}


def __getattr__(name: str) -> Any:
    """Import public names on first use: running MediaPipe alone must not import torch."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"avface.evaluation.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
