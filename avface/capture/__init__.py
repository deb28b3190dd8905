"""`Capture`, the result of a reconstruction; the layers that stages add to it; the lookup of exporters."""

from avface.capture.capture import CAPTURE_VERSION, Capture, Frames, Space
from avface.capture.detail_layer import DetailLayer
from avface.capture.exporters import EXPORTERS, find_exporter
from avface.capture.layer import Layer, LayerMorphs
from avface.capture.layers import COARSE, LAYERS, is_subdivided, stage_names
from avface.capture.lip_layer import LipLayer

__all__ = [
    "CAPTURE_VERSION",
    "COARSE",
    "EXPORTERS",
    "LAYERS",
    "Capture",
    "DetailLayer",
    "Frames",
    "Layer",
    "LayerMorphs",
    "LipLayer",
    "Space",
    "find_exporter",
    "is_subdivided",
    "stage_names",
]
