"""The demo: reconstruct the bundled clip of a made person and hold the result against the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avface.capture import Capture
from avface.evaluation.metrics import vertex_error_mm

FACE_REGIONS = ("face", "lips", "eyelids", "nose")
BLOCK = 32
"""Frames whose meshes are compared at a time."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo made and measured; errors are means over frames and vertices of the face region."""

    capture: Capture
    """The reconstruction."""
    written: tuple[Path, ...]
    """The capture, the animated head, the ARKit curves and the page."""
    page: Path
    """The page to look at."""
    error_mm: float
    """Millimetres after aligning each frame by rotation, translation and scale: one camera can't tell size."""
    rigid_error_mm: float
    """Millimetres after aligning each frame by rotation and translation alone."""
    average_error_mm: float
    """As `error_mm` for the average head at rest, which a method must beat."""


def run_demo(output: Path, progress: Callable[[str, int, int | None], None] = lambda *_: None) -> DemoResult:
    """Reconstruct the bundled clip into a folder, and measure the result against its ground truth.

    Raises:
        AvfaceError: if the folder can't be written.
    """
    from avface.pipeline import reconstruct
    from avface.synthetic.demo_clip import DEMO_CLIP, DEMO_TRUTH

    capture = reconstruct(DEMO_CLIP, progress=progress)
    truth = Capture.load(DEMO_TRUTH)
    output.mkdir(parents=True, exist_ok=True)
    written = [capture.save(output / "capture.npz")]
    written += [capture.export(output / name) for name in ("head.glb", "arkit.csv")]
    page = capture.export(output / "page.html", video=DEMO_CLIP)
    error, rigid, average = _errors(capture, truth)
    return DemoResult(capture, (*written, page), page, error, rigid, average)


def _errors(capture: Capture, truth: Capture) -> tuple[float, float, float]:
    """Mean errors in millimetres over the face: with scale, rigid, and of the average head with scale."""
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
