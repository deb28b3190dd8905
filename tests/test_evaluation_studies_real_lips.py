"""Lips of real clips: comparisons, on captures with known truth."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lip_captures import lip_capture

import avface.evaluation.studies.real_lips
from avface.errors import AvfaceError
from avface.evaluation.studies.real_lips import (
    BilabialGaps,
    RealLips,
    bilabial_sounds,
    closure_lead,
    compare_lips,
    main,
    measure_real_lips,
    table,
)
from avface.head.schemes import LIPS_INNER_LOWER, LIPS_INNER_UPPER
from avface.speech import SYMBOLS

MIDDLE = len(LIPS_INNER_UPPER) // 2


def silent(capture):
    return np.zeros(len(capture), np.float32)


@pytest.fixture(scope="module")
def capture():
    return lip_capture()


def test_lips_that_are_tracked_as_refined_are_nearer_after_refinement(capture):
    tracked = capture.landmarks(stage="lips").astype(np.float64)
    tracked[5] = np.nan

    found = compare_lips(capture, tracked, [], silent(capture), "a.mp4")

    assert found.error_refined == pytest.approx(0, abs=1e-6) and found.error_coarse > 0.05
    assert found.opening_refined == pytest.approx(1) and found.opening_coarse < 1
    assert found.closed.count == found.others.count == 0


def test_sounds_are_split_by_what_the_tracker_sees(capture):
    tracked = capture.landmarks(stage="coarse").astype(np.float64)
    height = np.ptp(tracked[..., 1], axis=1)
    upper, lower = LIPS_INNER_UPPER[MIDDLE], LIPS_INNER_LOWER[MIDDLE]
    gap = np.full(len(capture), 4.0)
    gap[2] = 1.0
    tracked[:, lower] = tracked[:, upper]
    tracked[:, lower, 1] += gap / 100 * height
    step = float(np.diff(capture.times).min())
    times = capture.times
    sounds = [
        (times[2] + 0.05, times[2] + 0.05),
        (times[-1] + 0.09, times[-1] + 0.1 + step / 2),
        (times[-1] + 5, times[-1] + 6),
    ]

    found = compare_lips(capture, tracked, sounds, silent(capture), "a.mp4")

    assert (found.closed.count, found.others.count) == (1, 1), "a sound without a frame isn't counted"
    assert found.closed.tracked == pytest.approx(1, abs=0.01)
    assert found.others.tracked == pytest.approx(4, abs=0.01)
    assert found.error_coarse < found.error_refined


def test_penetration_is_measured_on_the_mesh(capture):
    pressed = capture.expression.copy()
    for name in ("mouthClose", "mouthShrugLower"):
        pressed[:, capture.expression_names.index(name)] = 0.4
    pressed[:, capture.expression_names.index("jawOpen")] = 0
    still = replace(capture.lips, weights=0 * capture.lips.weights)
    pressed = replace(capture, expression=pressed).with_layer(still)

    found = compare_lips(pressed, pressed.landmarks().astype(np.float64), [], silent(pressed), "a.mp4")

    assert (
        found.penetration_coarse == pytest.approx(found.penetration_refined)
        and found.penetration_coarse > 0.5
    )


def test_bilabials_are_those_of_high_probability(monkeypatch):
    phones = torch.zeros(42, len(SYMBOLS))
    phones[10:14, SYMBOLS.index("p")] = 0.9
    phones[30, SYMBOLS.index("m")] = 0.9
    phones[40, SYMBOLS.index("s")] = 0.9

    class Ear:
        def hear(self, sound):
            return type("Rows", (), {"phones": phones})

    monkeypatch.setattr(avface.evaluation.studies.real_lips, "pretrained_hearing", Ear)

    sounds = bilabial_sounds(np.zeros(16_000, np.float32))

    np.testing.assert_allclose(sounds, [(0.232, 0.328), (0.712, 0.736)], atol=1e-3)


@pytest.mark.parametrize("early", [-0.08, 0.0, 0.1])
def test_the_lead_of_audible_closures_is_found(early):
    times = np.arange(200) / 25
    closures = [1.0, 2.3, 2.9, 4.6, 6.2]

    def closure(at):
        return np.exp(-(((at[:, None] - closures) / 0.07) ** 2)).max(1)

    gap = 6 * (1 - closure(times))
    gap[60:70] = np.nan

    lag, best, now = closure_lead(times, closure(times + early), gap)

    assert lag == pytest.approx(early, abs=0.021)
    assert best > 0.8 and (now > best - 0.02 if early == 0 else now < best - 0.1)


def test_a_lead_without_audible_closures_is_nan():
    times = np.arange(50) / 25
    assert np.isnan(closure_lead(times, np.zeros(50), np.linspace(0, 5, 50))).all()


def test_table_says_where_there_is_nothing():
    nan = float("nan")
    one = RealLips(
        "a.mp4",
        0.8,
        0.7,
        BilabialGaps(2, 0.1, 0.7, 0.5),
        BilabialGaps(0, nan, nan, nan),
        0.9,
        0.95,
        1.0,
        0.0,
        0.02,
        0.5,
        0.4,
    )
    other = replace(one, name="b.mp4", error_coarse=0.6, closed=BilabialGaps(1, 0.3, 0.5, 0.5))

    lines = table([one, other]).splitlines()

    found = " ".join(lines[-1].split())
    assert found == "mean 0.70 0.70 3 0.20 0.60 0.50 0 - - - 0.90 0.95 1.00 0.00 0.02 0.50 0.40"
    assert "a.mp4" in lines[2] and lines[2].count("-") == 3


def test_user_errors_are_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["real_lips", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"no videos in it; name a folder .* with AVFACE_CLIPS"):
        main()
    with pytest.raises(AvfaceError, match=r"none\.mp4"):
        measure_real_lips(tmp_path / "none.mp4")
