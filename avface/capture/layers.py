"""The registry of layer types, and the stages that a head can be shown after."""

from __future__ import annotations

from avface.capture.detail_layer import DetailLayer
from avface.capture.layer import Layer
from avface.capture.lip_layer import LipLayer

COARSE = "coarse"
"""The stage whose result is the capture's own fields rather than a layer."""
LAYERS: list[type[Layer]] = [LipLayer, DetailLayer]
"""All types of layer that a capture can have, in the order of the stages."""


def stage_names() -> tuple[str, ...]:
    """Names of the stages in order: coarse, and that of each layer."""
    return COARSE, *(layer.stage for layer in LAYERS)


def shown_layers(stage: str | None) -> list[type[Layer]]:
    """The types of layers up to and including a stage; all if it is None.

    Raises:
        ValueError: if the stage is unknown.
    """
    names = stage_names()
    if stage is None:
        return list(LAYERS)
    if stage not in names:
        raise ValueError(f"stage={stage!r} must be one of {', '.join(map(repr, names))}")
    return LAYERS[: names.index(stage)]


def is_subdivided(stage: str | None) -> bool:
    """Whether a stage is shown on the subdivided mesh (`Capture.detailed_vertices`) rather than on the head's own."""
    return any(layer.subdivides for layer in LAYERS if layer.stage == stage)
