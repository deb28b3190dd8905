"""Exported .csv curves by the arithmetic of programs that import recordings of the Live Link Face app.

The importers of Unreal, Maya and Faceit count 60 frames in a second, each in its own way: from the whole frames of the
timecode, with their thousandths, or from the number of rows.
"""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
from captures import moving_capture

COUNTED = 60
"""Frames that the importers count in a second."""
UNEVEN = np.concatenate([[0], np.random.default_rng(2).uniform(0.01, 0.09, 99).cumsum()])
"""Frame times of a video with a variable frame rate."""


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def by_timecode(rows, thousandths):
    """Seconds from the first row."""
    seconds = []
    for row in rows:
        hours, minutes, whole, frames = row["Timecode"].split(":")
        frame = float(frames) if thousandths else int(frames.split(".")[0])
        seconds.append((int(hours) * 60 + int(minutes)) * 60 + int(whole) + frame / COUNTED)
    return np.array(seconds) - seconds[0]


IMPORTERS = {
    "whole frames of the timecode": lambda rows: by_timecode(rows, False),
    "thousandths of the timecode": lambda rows: by_timecode(rows, True),
    "number of rows": lambda rows: np.arange(len(rows)) / COUNTED,
}


@pytest.mark.parametrize("importer", IMPORTERS.values(), ids=IMPORTERS)
@pytest.mark.parametrize("rate", [25, 30000 / 1001, 60, None], ids=["25", "29.97", "60", "uneven"])
def test_curves_play_at_the_time_of_the_video(tmp_path, rate, importer):
    times = UNEVEN if rate is None else np.arange(100) / rate
    capture = replace(moving_capture(100), times=times)
    rising = capture.expression.copy()
    rising[:, capture.expression_names.index("jawOpen")] = times / times[-1]  # its value is the time
    capture = replace(capture, expression=rising)

    rows = rows_of(capture.export(tmp_path / "take.csv"))

    played, true = importer(rows), times[-1] * np.array([float(row["JawOpen"]) for row in rows])
    assert np.abs(np.minimum(played, times[-1]) - true).max() < 0.010, (
        "seconds; after the clip its last value holds"
    )
    assert abs(played[-1] - times[-1]) < 1 / COUNTED, "the whole clip is there"
