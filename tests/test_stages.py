"""Stages: registering one, what they need, and the requests that are refused before a video is read."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from captures import moving_capture
from solve_clips import QUICK, SIZE, head_without_tracker_errors, truth
from videos import Track, constant_rate, noises, write_video

import avface
import avface.tracking
from avface.arrays import F32
from avface.capture import LAYERS, Capture, Layer, LayerMorphs
from avface.errors import AvfaceError
from avface.stages import STAGES, Request, StageInputs, find_stages
from avface.tracking import FaceTrack, Segment

FRAMES = 8


# A stage for these tests: the code that a new stage needs. ------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class NoseLayer(Layer):
    """Growth of the nose's tip: weights (T, 1) metres along z."""

    stage: ClassVar[str] = "nose"
    key_prefix: ClassVar[str] = "nose"
    weights: F32

    def __post_init__(self) -> None:
        self._check_shape("weights", (len(self.weights), 1))
        self._check_finite("weights")

    def vertex_offsets(self, rows, num_vertices):
        """The offsets of one vertex."""
        offsets = np.zeros((len(rows), num_vertices, 3), np.float32)
        offsets[:, 0, 2] = self.weights[rows, 0]
        return offsets

    def morphs(self, num_vertices):
        """One target of a metre."""
        offsets = np.zeros((1, num_vertices, 3), np.float32)
        offsets[0, 0, 2] = 1
        return LayerMorphs(("nose",), offsets, self.weights)


@dataclass(frozen=True)
class NoseStage:
    """Lengthens the nose; needs sound."""

    name: ClassVar[str] = "nose"
    needs: ClassVar[tuple[str, ...]] = ("coarse",)
    needs_audio: ClassVar[bool] = True

    @classmethod
    def load(cls, head, request):
        """Nothing to load."""
        return cls()

    def run(self, capture: Capture, inputs: StageInputs) -> Capture:
        """A millimetre a frame."""
        count = inputs.counter(self.name)
        weights = 0.001 * np.arange(len(capture), dtype=np.float32)[:, None]
        loudness = max(float(np.abs(block).max()) for block in inputs.audio())
        count(len(capture))
        return capture.with_layer(NoseLayer(weights), f"loudness {loudness:.2f}")


@pytest.fixture
def nose(monkeypatch):
    """The stage, registered."""
    monkeypatch.setattr("avface.stages.STAGES", [*STAGES, NoseStage])
    monkeypatch.setattr("avface.capture.layers.LAYERS", [*LAYERS, NoseLayer])
    monkeypatch.setattr("avface.capture.capture.LAYERS", [*LAYERS, NoseLayer])


@pytest.fixture
def reconstruct(tmp_path, monkeypatch):
    """Reconstruct a video of noise whose tracker knows a moving head; with or without sound."""
    clip = truth(head_without_tracker_errors(), FRAMES, turn=0.2, frame_rate=25.0)
    landmarks = clip.landmarks.astype(np.float32)
    crop = np.concatenate([landmarks.min(1), landmarks.max(1)], 1)
    depth, ones = np.zeros((FRAMES, 478), np.float32), np.ones(FRAMES, np.float32)
    shots = (Segment(0, FRAMES, True, 1.0),)
    track = FaceTrack(landmarks, depth, ones, crop, clip.times, shots, SIZE)
    monkeypatch.setattr(avface.tracking, "track", lambda frames, **_: track)
    sound = 0.3 * np.random.default_rng(0).normal(size=(1, 48_000)).clip(-1, 1).astype(np.float32)

    def run(audio=True, **options):
        tracks = [Track(sound)] if audio else []
        video = write_video(tmp_path / "clip.mp4", noises(3), constant_rate(3), tracks=tracks)
        return avface.reconstruct(video, focal_length=900.0, solver=replace(QUICK, iterations=1), **options)

    return run


def test_a_new_stage_runs_and_its_layer_goes_everywhere(nose, reconstruct, tmp_path):
    calls = []
    capture = reconstruct(stages=("coarse", "nose"), progress=lambda *call: calls.append(call))

    growth = capture.vertices(space="head") - capture.vertices(space="head", stage="coarse")
    np.testing.assert_allclose(growth[:, 0, 2], 0.001 * np.arange(FRAMES), atol=1e-6)
    assert not growth[:, 1:].any()
    assert calls[-2:] == [("nose", 0, FRAMES), ("nose", FRAMES, FRAMES)]
    assert capture.provenance["nose"].startswith("loudness 0.")

    again = Capture.load(capture.save(tmp_path / "take.npz"))
    np.testing.assert_array_equal(again.vertices(), capture.vertices())
    np.testing.assert_array_equal(again.select([3]).vertices(), capture.vertices([3]))
    targets, motion = again.morphs()
    assert targets.names[-1] == "nose"
    np.testing.assert_array_equal(motion.weights[:, -1:], again.layer(NoseLayer).weights)


def test_a_stage_that_needs_sound_is_skipped_without(nose, reconstruct):
    assert reconstruct(audio=False, stages=("coarse", "nose")).layers == ()


def test_a_file_with_a_layer_that_is_not_registered_loads_without_it(nose, tmp_path, monkeypatch):
    capture = moving_capture(3).with_layer(NoseLayer(np.zeros((3, 1), np.float32)))
    path = capture.save(tmp_path / "take.npz")
    monkeypatch.undo()

    assert Capture.load(path).layers == ()


def test_stages_run_in_their_own_order_whatever_the_order_of_the_names():
    assert [stage.name for stage in find_stages(["detail", "coarse", "lips"])] == ["coarse", "lips", "detail"]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (("coarse", "fine"), "stages coarse,fine: no such stage as 'fine'; use coarse or coarse,lips,detail"),
        (("lips",), "stages lips: 'coarse' is required; use coarse or coarse,lips,detail"),
        ((), "stages : 'coarse' is required"),
        ("coarse", r"stages 'coarse': give a sequence of names"),
    ],
)
def test_stages_that_cannot_run_are_refused(stages, message):
    with pytest.raises(AvfaceError, match=message):
        find_stages(stages)


def test_a_stage_that_needs_another_is_refused_without_it(nose, monkeypatch):
    monkeypatch.setattr(NoseStage, "needs", ("coarse", "lips"))

    with pytest.raises(AvfaceError, match="stages coarse,nose: 'lips' is required"):
        find_stages(["coarse", "nose"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"focal_length": 0.0}, r"focal length 0\.0: must be a finite number above 0 pixels"),
        ({"focal_length": -1.0}, r"focal length -1\.0: must be a finite number above 0 pixels"),
        ({"focal_length": float("nan")}, "focal length nan: must be a finite number above 0 pixels"),
        ({"focal_length": float("inf")}, "focal length inf: must be a finite number above 0 pixels"),
        ({"face": -1}, "face -1: people are numbered from 0"),
        ({"face": (1.0, float("nan"))}, r"face \(1\.0, nan\): a point must be two finite numbers"),
        ({"face": (1.0, 2.0, 3.0)}, r"face \(1\.0, 2\.0, 3\.0\): a point must be two finite numbers"),
        ({"rotate": 45}, "rotate 45: must be 0, 90, 180 or 270 degrees clockwise"),
        ({"audio_track": -1}, "audio track -1: must be a whole number; sound tracks are numbered from 0"),
        ({"audio_track": "1"}, "audio track '1': must be a whole number"),
        ({"audio_track": 0.5}, r"audio track 0\.5: must be a whole number"),
        ({"focal_length": "35"}, "focal length '35': must be a finite number above 0 pixels"),
        ({"focal_length": True}, "focal length True: must be a finite number above 0 pixels"),
        ({"face": (float("nan"), 1)}, r"face \(nan, 1\): a point must be two finite numbers"),
        ({"face": ("1", 2)}, r"face \('1', 2\): a point must be two finite numbers"),
        (
            {"face": [1.0, 2.0]},
            r"face \[1\.0, 2\.0\]: must be the number of a person, or a point as a tuple \(x, y\)",
        ),
        ({"face": "left"}, "face 'left': must be the number of a person, or a point"),
        ({"face": 1.5}, r"face 1\.5: must be the number of a person, or a point"),
        ({"face": True}, "face True: must be the number of a person, or a point"),
        ({"device": "abacus"}, r"device abacus: can't be used \(.*\); try cpu"),
        ({"device": "meta"}, r"device meta: can't be used \(.*\); try cpu"),
        ({"device": 0}, "device 0: must be the name of a device"),
        ({"head": "a\0b"}, r"'a\\x00b': no file can have this name"),
        ({"networks": "a\0b"}, r"'a\\x00b': no file can have this name"),
        ({"networks": 3}, "3: must be a path"),
        ({"progress": None}, "progress None: must be a function"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments, message):
    with pytest.raises(AvfaceError, match=message) as caught:
        Request(Path("clip.mp4"), **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"focal_length": 1e-6},
            r"clip\.mp4: focal length 1e-06: must be from 64 to 64000 pixels for .* 640 x 480",
        ),
        ({"focal_length": 1e12}, r"clip\.mp4: focal length 1e\+12: must be from 64 to 64000 pixels"),
        ({"face": (640.0, 100.0)}, r"clip\.mp4: face 640,100: is outside the pictures of 640 x 480 pixels"),
        ({"face": (100, -5)}, r"clip\.mp4: face 100,-5: is outside"),
    ],
)
def test_arguments_that_cannot_work_for_the_size_of_the_pictures_are_refused(arguments, message):
    with pytest.raises(AvfaceError, match=message):
        Request(Path("clip.mp4"), **arguments).check_size(640, 480)


@pytest.mark.parametrize(
    "arguments", [{"focal_length": 64}, {"focal_length": np.float32(64_000)}, {"face": (0, 479)}]
)
def test_cameras_and_points_at_the_limits_are_accepted(arguments):
    Request(Path("clip.mp4"), **arguments).check_size(640, 480)


@pytest.mark.parametrize("stages", ["coarse", None, 3, {"coarse"}])
def test_stages_that_are_no_sequence_are_refused(stages):
    with pytest.raises(AvfaceError, match="give a sequence of names, such as"):
        find_stages(stages)


@pytest.mark.parametrize("face", [None, 0, 3, np.int64(1), (0, 0), (-20.0, 1e6)])
def test_any_person_or_point_can_be_requested(face):
    assert Request(Path("clip.mp4"), face=face).face == face
