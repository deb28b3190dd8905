"""How good is a reconstruction? Metrics of the field, and their values on a folder of videos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avface.evaluation.clips import ClipResult, ClipsReport, evaluate_clips

__all__ = ["ClipResult", "ClipsReport", "evaluate_clips"]


def __getattr__(name: str) -> Any:
    """Load the public names when first used: measuring MediaPipe alone must not load torch."""
    if name in __all__:
        from avface.evaluation import clips

        return getattr(clips, name)
    raise AttributeError(f"module 'avface.evaluation' has no attribute {name!r}")
