"""Contact sheet of clips: one row per clip, frames spread over its length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from avface.arrays import U8
from avface.media import Clip


def contact_sheet(videos: Sequence[Path], columns: int = 6, tile: int = 160) -> U8:
    """Frames (rows * tile, columns * tile, 3) of videos, one row each, downsampled to squares of `tile` pixels."""
    rows = []
    for video in videos:
        clip = Clip.open(video)
        count = clip.info.frame_count or 1
        wanted = np.linspace(0, count - 1, columns).round().astype(int).tolist()
        row: list[U8] = []
        for frame in clip.frames():
            row += [_square(frame.image, tile)] * wanted.count(frame.index)
            if frame.index >= wanted[-1]:
                break
        row += [np.zeros((tile, tile, 3), np.uint8)] * (columns - len(row))
        rows.append(np.concatenate(row, 1))
    return np.concatenate(rows)


def _square(image: U8, tile: int) -> U8:
    """The picture letterboxed in a black square."""
    picture = Image.fromarray(image)
    picture.thumbnail((tile, tile), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (tile, tile))
    square.paste(picture, ((tile - picture.width) // 2, (tile - picture.height) // 2))
    return np.asarray(square)
