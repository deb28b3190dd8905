"""The parts of benchmarks/ on which their figures rest."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from videos import Track, beep, constant_rate, gradients, write_video

from avface.errors import AvfaceError
from avface.media import Clip


def benchmark(name):
    spec = importlib.util.spec_from_file_location(
        f"benchmark_{name}", Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
    )
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_looped_clip_repeats_pictures_and_sound_without_a_gap(tmp_path):
    sound = Track(beep(1.3, 0.2), 48_000)  # longer than the pictures
    source = write_video(
        tmp_path / "one.mp4", gradients(25), constant_rate(25, 25), tracks=[sound], options={"bf": "2"}
    )
    looped = tmp_path / "three.mp4"
    assert benchmark("video_files").loop_clip(source, looped, 3.2) == 75
    clip = Clip.open(looped)
    frames = list(clip.frames())
    assert len(frames) == clip.info.frame_count == 75
    np.testing.assert_allclose(np.diff([frame.time for frame in frames]), 0.04, atol=1e-3)
    first = np.array([frame.image.mean() for frame in Clip.open(source).frames()])
    np.testing.assert_allclose([frame.image.mean() for frame in frames], np.tile(first, 3), atol=0.01)
    loud = np.abs(clip.audio()) > 0.25
    starts = np.flatnonzero(loud & ~np.roll(loud, 4000)) / 16_000
    assert [starts[(starts > k) & (starts < k + 1)].min() - k for k in range(3)] == pytest.approx(
        [0.2] * 3, abs=0.05
    )


def test_a_clip_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("AVFACE_CLIPS", str(tmp_path))
    with pytest.raises(AvfaceError, match=f"{tmp_path}.*AVFACE_CLIPS"):
        benchmark("video_files").find_clip(None)


@pytest.mark.skipif(sys.platform == "win32", reason="no account of ended processes")
def test_the_peak_of_a_process_is_its_own_and_a_failure_is_not_hidden():
    processes = benchmark("processes")
    floor = processes._run([sys.executable, "-c", "pass"]).peak_mb  # this process, if it is larger
    size = round(floor + 200) * 10**6
    peak = processes._run([sys.executable, "-c", f"b'x' * {size}"]).peak_mb
    assert 0 < peak - size / 1e6 < 100
    with pytest.raises(processes.subprocess.CalledProcessError):
        processes._run([sys.executable, "-c", "raise SystemExit(2)"])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("speed", {"repeats": 0}, "repeats=0"),
        ("stages", {"repeats": 0}, "repeats=0"),
        ("speech", {"seconds": (10.0, 0.0)}, r"seconds=\(10.0, 0.0\)"),
        ("rasteriser", {"batches": (0,)}, r"batches=\(0,\)"),
        ("memory", {"seconds": (-1.0,)}, r"seconds=\(-1.0,\)"),
        ("generator", {"clips": 0}, "clips=0"),
    ],
)
def test_options_that_cannot_work_are_refused(monkeypatch, name, options, message):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    with pytest.raises(AvfaceError, match=f"{message}: must be above 0"):
        getattr(benchmark(name), name.capitalize())(**options)
