import numpy as np
import pytest

from avface.capture import Capture
from avface.cli import main
from avface.media import Clip
from avface.synthetic.demo_clip import DEMO_CLIP, DEMO_TRUTH, DemoConfig


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "out"
    assert main(["demo", "-o", str(folder), "--no-open", "--quiet"]) == 0
    return folder


def test_the_demo_clip_is_small_and_has_sound():
    assert DEMO_CLIP.stat().st_size < 1_000_000
    sound = Clip.open(DEMO_CLIP).audio()
    assert np.abs(sound).max() > 0.1


@pytest.mark.slow
def test_the_demo_finds_the_true_face_within_two_millimetres_and_better_than_an_average_one(demo):
    from avface.evaluation.demo import demo_errors

    error, rigid, average = demo_errors(Capture.load(demo / "capture.npz"), Capture.load(DEMO_TRUTH))
    assert error < 2.0
    assert error < 0.9 * average
    assert error < rigid  # size is the part that one camera doesn't show


@pytest.mark.slow
def test_the_demo_writes_all_its_files(demo):
    names = {path.name for path in demo.iterdir()}
    assert names == {"capture.npz", "head.glb", "demo_1_avface.csv", "page.html"}


@pytest.mark.slow
def test_the_demo_speaks_with_the_mouth_of_the_truth(demo):
    found, truth = Capture.load(demo / "capture.npz"), Capture.load(DEMO_TRUTH)
    jaw = truth.expression_names.index("jawOpen")
    heights = [
        np.linalg.norm(np.diff(c.landmarks(None, "ibug68", "head")[:, [62, 66]], axis=1)[:, 0], axis=1)
        for c in (found, truth)
    ]
    assert np.corrcoef(*heights)[0, 1] > 0.85
    assert np.corrcoef(found.expression[:, jaw], truth.expression[:, jaw])[0, 1] > 0.6


def test_demo_errors_are_zero_for_the_truth_itself():
    from avface.evaluation.demo import demo_errors

    truth = Capture.load(DEMO_TRUTH)
    error, rigid, average = demo_errors(truth, truth)
    assert error < 1e-3 and rigid < 1e-3 < average


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frame_rate": 0.0}, "frame_rate=0.0 must be above 0"),
        ({"focal_length": -1.0}, "focal_length=-1.0 must be above 0"),
        ({"distance": float("nan")}, "distance=nan must be above 0"),
        ({"size": (448, 447)}, r"size=\(448, 447\) must be two even numbers"),
        ({"size": (8, 8)}, "of at least 16 pixels"),
        ({"shape_sigma": -0.1}, "shape_sigma=-0.1 must not be negative"),
        ({"supersampling": 0}, "supersampling=0 must be at least 1"),
    ],
)
def test_impossible_demo_clips_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DemoConfig(**settings)
