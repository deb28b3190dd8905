"""Photometric check of the detail stage on videos without ground truth: do its folds explain the frames?

python -m avface.evaluation.studies.detail_clips CAPTURE [CAPTURE ...]

CAPTURE is a file that `avface reconstruct --stages coarse,detail` wrote; its video must be where it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from avface.capture import Capture
from avface.errors import AvfaceError
from avface.evaluation.tables import aligned
from avface.geometry.axes import flip_axes
from avface.media import Clip
from avface.networks.detail.losses import detail_texture, photometric_loss, valley_occlusion

FRAMES = 16
"""Number of evaluated frames of a clip, evenly spaced over those with the person."""


@dataclass(frozen=True)
class ClipLight:
    """Means of |image - shading| over the visible skin of a clip's frames, colours from 0 to 1.

    coarse: shading with the mesh's normals; detailed: with the normals of the folds, with light and albedo fitted to
    the mesh's normals; shifted: with the folds shifted by 4 % of the face, a control of equal roughness. The same
    with the ambient occlusion of valleys (`valley_occlusion`): shadowed, shadowed_shifted.
    """

    name: str
    frames: int
    coarse: float
    detailed: float
    shifted: float
    shadowed: float
    shadowed_shifted: float


@torch.no_grad()
def clip_light(capture: Capture, video: Path | None = None) -> ClipLight:
    """Photometric check of a capture with detail; its video is by default the source.

    Raises:
        AvfaceError: if there is no detail, no frame with the person, or the video can't be read.
    """
    if capture.detail is None:
        raise AvfaceError(f"{capture.source}: the capture has no detail; use --stages coarse,detail")
    rows = np.flatnonzero(capture.confidence > 0)
    if not len(rows):
        raise AvfaceError(f"{capture.source}: no frame shows the person")
    atlas = capture.detail.atlas(capture.head_model)
    chosen = set(rows[np.linspace(0, len(rows) - 1, FRAMES).round().astype(int)].tolist())
    shift = round(0.04 * atlas.resolution)
    errors = []
    for number, frame in enumerate(Clip.open(video or Path(capture.source)).frames()):
        if number not in chosen:
            continue
        points = torch.as_tensor(capture.vertices([number])[0])
        height = torch.as_tensor(capture.displacement([number])[0])
        maps = atlas.maps(frame.image, points, capture.camera)
        seen = ((maps.visibility > 0.5) & (atlas.mask > 0.5)).float()[None]
        image, coarse = maps.image[None], maps.normals[None]
        slopes, shadows = [], []
        for part in (0 * height, height, height.roll((shift, shift), (0, 1)) * atlas.mask):
            detailed = flip_axes(atlas.normals(points, part)).movedim(-1, 0)[None]
            texture = detail_texture(coarse, detailed, image, seen)
            slopes.append(float(photometric_loss(texture, image, seen)))
            texture = texture * valley_occlusion(part, atlas.side)
            shadows.append(float(photometric_loss(texture, image, seen)))
        errors.append(slopes + shadows[1:])
    return ClipLight(Path(capture.source).stem, len(errors), *np.mean(errors, 0).tolist())


def light_table(clips: list[ClipLight]) -> str:
    """The errors as text: of the mesh, times 1000, and the relative changes by folds."""
    lines = [
        [
            "photometric error",
            "frames",
            "coarse, 1/1000",
            "normals",
            "shifted",
            "normals and valleys",
            "shifted",
        ]
    ]
    for clip in clips:
        changes = (clip.detailed, clip.shifted, clip.shadowed, clip.shadowed_shifted)
        changed = [f"{100 * (error / clip.coarse - 1):+.2f}%" for error in changes]
        lines.append([clip.name, str(clip.frames), f"{1000 * clip.coarse:.3f}", *changed])
    return aligned(lines)


@dataclass(frozen=True)
class DetailClips:
    """Print the photometric check of captures."""

    captures: tyro.conf.Positional[tuple[Path, ...]]
    """Files that `avface reconstruct` wrote."""


def main() -> None:
    """Print what the command asks for."""
    asked = tyro.cli(DetailClips, description=__doc__)
    try:
        print(light_table([clip_light(Capture.load(path)) for path in asked.captures]))
    except AvfaceError as error:
        raise SystemExit(f"avface: error: {error}") from None


if __name__ == "__main__":
    main()
