"""The demo: reconstruct the bundled clip of a synthetic person and compare the result with its ground truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avface.capture import Capture
from avface.evaluation.metrics import CurveFigures, vertex_error_mm

FACE_REGIONS = ("face", "lips", "eyelids", "nose")
BLOCK = 32
"""Frames whose meshes are compared in one batch."""


@dataclass(frozen=True)
class DemoResult:
    """Files and errors of the demo; errors are means over frames and vertices of the face region."""

    capture: Capture
    """The reconstruction."""
    written: tuple[Path, ...]
    """The capture, the animated head, the ARKit curves and the page."""
    page: Path
    """The page for the browser."""
    error_mm: float
    """Millimetres after similarity alignment of each frame: scale is ambiguous with one camera."""
    rigid_error_mm: float
    """Millimetres after rigid alignment of each frame."""
    average_error_mm: float
    """`error_mm` of the mean head in neutral expression, as a baseline."""
    curves: CurveFigures
    """Of the expression curves."""


def run_demo(output: Path, progress: Callable[[str, int, int | None], None] = lambda *_: None) -> DemoResult:
    """Reconstruct the bundled clip into a folder and measure the errors against its ground truth.

    Raises:
        AvfaceError: if the folder can't be written.
    """
    from avface.pipeline import reconstruct
    from avface.synthetic.demo_clip import DEMO_CLIP, DEMO_TRUTH

    capture = reconstruct(DEMO_CLIP, progress=progress)
    truth = Capture.load(DEMO_TRUTH)
    output.mkdir(parents=True, exist_ok=True)
    written = [capture.save(output / "capture.npz")]
    written += [capture.export(output / name) for name in ("head.glb", f"{DEMO_CLIP.stem}_1_avface.csv")]
    page = capture.export(output / "page.html", video=DEMO_CLIP)
    error, rigid, average = demo_errors(capture, truth)
    curves = CurveFigures()
    curves.add(truth.expression_names, capture.expression, truth.expression)
    return DemoResult(capture, (*written, page), page, error, rigid, average, curves)


def demo_errors(capture: Capture, truth: Capture) -> tuple[float, float, float]:
    """Errors of a capture of the demo clip as in `DemoResult`: after similarity alignment, rigid, of the mean head."""
    regions = truth.head_model.regions
    face = np.logical_or.reduce([regions[name] for name in FACE_REGIONS])
    average = truth.head_model.template.numpy()
    errors = []
    for start in range(0, len(truth), BLOCK):
        frames = np.arange(start, min(start + BLOCK, len(truth)))
        true, found = truth.vertices(frames, "head"), capture.vertices(frames, "head")
        rest = np.broadcast_to(average, true.shape)
        errors.append(
            [
                vertex_error_mm(found, true, face, "similarity").sum(),
                vertex_error_mm(found, true, face, "rigid").sum(),
                vertex_error_mm(rest, true, face, "similarity").sum(),
            ]
        )
    total = np.sum(errors, axis=0) / (len(truth) * face.sum())
    return float(total[0]), float(total[1]), float(total[2])
