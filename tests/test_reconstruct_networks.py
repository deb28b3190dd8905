"""From a track and sound to a capture through the networks: their inputs, and the use of their outputs.

The tracker is replaced by a track of a known head; the videos are noise with or without sound.
"""

from dataclasses import replace

import numpy as np
import pytest
from detail_captures import small_detail
from lip_captures import small_lips
from networks_frames import small_networks
from solve_clips import QUICK, SIZE, head_without_tracker_errors, truth
from videos import Track, constant_rate, noises, write_video

import avface
import avface.networks.coarse.inference
import avface.speech.stream
import avface.stages.coarse
import avface.tracking
from avface.capture import Capture
from avface.errors import AvfaceError
from avface.networks.coarse.codes import CodeConfig
from avface.networks.coarse.model import pretrained_coarse_networks, save_networks
from avface.networks.detail.network import pretrained_detail, save_detail
from avface.networks.lips.network import pretrained_lips, save_lips
from avface.networks.regions import LANDMARK_REGIONS, REGIONS
from avface.tracking import FaceTrack, Segment

FRAMES, HIDDEN = 66, slice(8, 58)
"""The occluded frames: 2 s of the clip's 2.6 s."""
LOWER = np.isin(LANDMARK_REGIONS.numpy(), [REGIONS.index(name) for name in ("lips", "jaw", "cheeks")])


@pytest.fixture(scope="module")
def clip():
    jaw = 0.3 - 0.2 * np.cos(np.arange(FRAMES) * 0.7)
    return truth(
        head_without_tracker_errors(), FRAMES, expression={"jawOpen": jaw}, turn=0.2, frame_rate=25.0
    )


@pytest.fixture(scope="module")
def track(clip):
    landmarks = clip.landmarks.astype(np.float32)
    crop = np.concatenate([landmarks.min(1), landmarks.max(1)], 1)
    shots = (Segment(0, FRAMES, True, 1.0),)
    depth = np.zeros((FRAMES, 478), np.float32)
    return FaceTrack(landmarks, depth, np.ones(FRAMES, np.float32), crop, clip.times, shots, SIZE)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_networks(small_networks(), path)
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A video with sound and one without."""
    folder = tmp_path_factory.mktemp("videos")
    samples = 0.3 * np.random.default_rng(0).normal(size=(1, 48_000 * 4)).clip(-1, 1).astype(np.float32)
    arguments = (noises(3), constant_rate(3))
    return {
        True: write_video(folder / "loud.mp4", *arguments, tracks=[Track(samples)]),
        False: write_video(folder / "silent.mp4", *arguments),
    }


@pytest.fixture(autouse=True)
def no_lips(monkeypatch, tmp_path):
    """Without weights of the lip network, unless a test provides its own."""
    monkeypatch.setattr(pretrained_lips, "path", tmp_path / "no lips.safetensors")


@pytest.fixture
def own_lips(no_lips):
    """A small random network in place of the pretrained one."""
    save_lips(small_lips(), pretrained_lips.path)


@pytest.fixture
def own_detail(monkeypatch, tmp_path):
    """A small random network in place of the pretrained one."""
    monkeypatch.setattr(pretrained_detail, "path", tmp_path / "detail.safetensors")
    save_detail(small_detail(), pretrained_detail.path)


@pytest.fixture
def reconstruct(monkeypatch, track, videos, weights):
    def run(found=track, sound=True, networks=weights, **options):
        monkeypatch.setattr(avface.tracking, "track", lambda frames, **_: found)
        options = {"focal_length": 900.0, "solver": QUICK, **options}
        return avface.reconstruct(videos[sound], networks=networks, **options)

    return run


@pytest.fixture
def predictions(monkeypatch):
    """The calls of `predict_clip`; `changes` replaces fields of its result."""
    calls = []
    real = avface.networks.coarse.inference.predict_clip

    def spy(networks, names, track, sound, focal_length, **options):
        sound = None if sound is None else list(sound)
        prediction = real(networks, names, track, sound, focal_length, **options)
        calls.append({"sound": sound, "focal_length": focal_length, **options})
        return replace(prediction, **spy.changes)

    spy.changes, spy.calls = {}, calls
    monkeypatch.setattr(avface.networks.coarse.inference, "predict_clip", spy)
    return spy


def jaw(capture):
    return capture.expression[:, capture.expression_names.index("jawOpen")]


def true_prediction(clip, sigma, **rows):
    """Fields of a prediction of the true expression."""
    expression = clip.parameters.expression.numpy().astype(np.float32)
    nothing = np.full((FRAMES, 6), 0.01, np.float32)
    return {
        "expression": expression,
        "expression_sigma": np.full_like(expression, sigma),
        "rotation_sigma": np.full(FRAMES, np.inf, np.float32),
        "shape": np.zeros(100, np.float32),
        "shape_sigma": np.full(100, np.inf, np.float32),
        "landmark_sigma": nothing,
    }


def check_plausible(capture):
    for name in ("shape", "expression", "rotation", "translation", "joints", "visibility"):
        assert np.isfinite(getattr(capture, name)).all(), name
    assert np.abs(np.diff(capture.rotation, axis=0)).max() < 0.2, "no jump"
    assert np.abs(np.diff(capture.translation, axis=0)).max() < 0.03
    assert capture.translation[:, 2].min() > 0.2 and capture.translation[:, 2].max() < 1.5


def test_an_occluded_mouth_follows_the_prediction_for_two_seconds(
    clip, track, reconstruct, predictions, tmp_path
):
    landmarks, visibility = track.landmarks.copy(), np.ones((FRAMES, 478), np.float32)
    landmarks[HIDDEN, LOWER] += 25
    visibility[HIDDEN, LOWER] = 0
    predictions.changes = true_prediction(clip, 0.04)

    capture = reconstruct(replace(track, landmarks=landmarks, visibility=visibility))

    true = clip.parameters.expression.numpy()[:, capture.expression_names.index("jawOpen")]
    assert np.corrcoef(jaw(capture)[HIDDEN], true[HIDDEN])[0, 1] > 0.9
    assert np.abs(jaw(capture) - true)[HIDDEN].mean() < 0.1
    check_plausible(capture)
    assert capture.visibility_regions == REGIONS
    lips, eyes = capture.visibility[:, REGIONS.index("lips")], capture.visibility[:, REGIONS.index("eyes")]
    assert lips[HIDDEN].max() == 0 and lips[: HIDDEN.start].min() > 0.99 and eyes.min() > 0.99
    assert "networks with video and audio as input" in capture.provenance["shape, expression, pose"]
    loaded = Capture.load(capture.save(tmp_path / "take.npz"))
    np.testing.assert_array_equal(loaded.visibility, capture.visibility)
    assert loaded.visibility_regions == REGIONS
    assert loaded.select(slice(10, 20)).visibility.shape == (10, 6)


def test_two_seconds_without_a_face_are_filled_in(clip, track, reconstruct, predictions):
    landmarks, confidence = track.landmarks.copy(), track.confidence.copy()
    landmarks[HIDDEN] = np.nan
    confidence[HIDDEN] = 0
    predictions.changes = true_prediction(clip, 0.04)

    capture = reconstruct(replace(track, landmarks=landmarks, confidence=confidence))

    check_plausible(capture)
    true = clip.parameters.expression.numpy()[:, capture.expression_names.index("jawOpen")]
    assert np.corrcoef(jaw(capture)[HIDDEN], true[HIDDEN])[0, 1] > 0.9
    assert capture.visibility[HIDDEN].max() == 0


@pytest.mark.parametrize("gap", [slice(0, 33), slice(33, FRAMES)])
def test_frames_with_sound_alone_are_plausible(track, reconstruct, gap):
    landmarks, confidence = track.landmarks.copy(), track.confidence.copy()
    landmarks[gap] = np.nan
    confidence[gap] = 0

    check_plausible(reconstruct(replace(track, landmarks=landmarks, confidence=confidence)))


def test_networks_have_the_detectors_landmarks_and_the_fit_those_of_optical_flow(
    clip, track, reconstruct, monkeypatch
):
    """In frames that the detector lost and optical flow tracked."""
    landmarks, confidence = track.landmarks.copy(), track.confidence.copy()
    landmarks[HIDDEN], confidence[HIDDEN] = np.nan, 0
    detected = replace(
        track, landmarks=landmarks, confidence=confidence, visibility=np.ones((FRAMES, 478), np.float32)
    )
    flow_tracked = np.zeros((FRAMES, 478), bool)
    flow_tracked[HIDDEN] = True
    refined = replace(
        detected,
        flow_landmarks=track.landmarks,
        flow_tracked=flow_tracked,
        flow_confidence=np.where(confidence > 0, confidence, 0.5).astype(np.float32),
    )
    monkeypatch.setattr(avface.tracking, "refine_by_flow", lambda frames, found: refined)
    expressions = []
    real = avface.networks.coarse.inference.predict_clip

    def spy(networks, names, found, sound, *rest, **options):
        sound = list(sound)
        expressions.extend(
            real(networks, names, one, sound, *rest, **options).expression for one in (found, detected)
        )
        return real(networks, names, found, sound, *rest, **options)

    monkeypatch.setattr(avface.networks.coarse.inference, "predict_clip", spy)
    capture = reconstruct(detected)

    np.testing.assert_array_equal(*expressions)
    np.testing.assert_array_equal(capture.confidence, refined.flow_confidence)
    assert np.linalg.norm(capture.landmarks() - clip.landmarks, axis=2)[HIDDEN].mean() < 1
    assert capture.visibility[HIDDEN].min() > 0.9


def test_without_the_picture_the_mouth_follows_the_prediction(clip, track, reconstruct, predictions):
    predictions.changes = true_prediction(clip, 0.05)
    predictions.changes["expression"] = predictions.changes["expression"].copy()
    predictions.changes["expression"][:, jaw_unit(clip)] = 0.8

    capture = reconstruct(video=False)

    assert predictions.calls[0]["use_video"] is False
    assert jaw(capture).min() > 0.65
    assert capture.visibility[:, REGIONS.index("lips")].max() == 0


def jaw_unit(clip):
    return head_without_tracker_errors().expression_names.index("jawOpen")


def test_the_networks_get_sound_only_where_it_may_be_used(reconstruct, predictions):
    rough = replace(QUICK, iterations=1)
    reconstruct(solver=rough)
    reconstruct(audio=False, solver=rough)
    reconstruct(sound=False, solver=rough)

    assert [call["sound"] is not None for call in predictions.calls] == [True, False, False]
    assert all(call["use_video"] and call["focal_length"] == 900.0 for call in predictions.calls)


@pytest.fixture
def always_speech(monkeypatch):
    """Speech activity 1 everywhere; the sound of the video is noise, which isn't detected as speech."""
    import avface.networks.coarse.inference

    real = avface.speech.stream.framed

    def fully_active(*arguments):
        features = real(*arguments)
        return replace(features, speech_activity=np.ones_like(features.speech_activity))

    monkeypatch.setattr(avface.speech.stream, "framed", fully_active)


def test_lips_are_refined_by_sound_and_nothing_else_changes(reconstruct, own_lips, always_speech, tmp_path):
    rough, reports = replace(QUICK, iterations=1), []
    capture = reconstruct(solver=rough, progress=lambda *words: reports.append(words))
    coarse = reconstruct(solver=rough, stages=("coarse",))

    assert capture.lips.vertices.shape == (392,) and 0 < len(capture.lips.basis) <= 8
    assert np.abs(capture.lips.weights).max(1).min() > 0
    assert ("lips", 0, FRAMES) in reports and reports[-1] == ("lips", FRAMES, FRAMES)
    assert "offsets predicted from sound" in capture.provenance["lips"] and "lips" not in coarse.provenance
    assert coarse.lips is None
    np.testing.assert_array_equal(coarse.expression, capture.expression)
    np.testing.assert_array_equal(coarse.vertices(5), capture.vertices(5, stage="coarse"))
    assert np.abs(capture.vertices(5) - coarse.vertices(5)).max() > 1e-4
    loaded = Capture.load(capture.save(tmp_path / "take.npz"))
    np.testing.assert_array_equal(loaded.vertices(5), capture.vertices(5))


def test_without_sound_or_speech_lips_are_not_refined(reconstruct, own_lips):
    rough = replace(QUICK, iterations=1)
    for options in ({"sound": False}, {"audio": False}, {}):  # the sound is noise
        capture = reconstruct(solver=rough, stages=("coarse", "lips"), **options)
        assert capture.lips is None


def test_unknown_or_incomplete_stages_are_refused(reconstruct):
    for stages in (("lips",), ("coarse", "hair"), ()):
        with pytest.raises(AvfaceError, match="use coarse or coarse,lips"):
            reconstruct(stages=stages)


def test_without_networks_for_the_head_the_fit_is_to_landmarks_alone(
    track, reconstruct, monkeypatch, tmp_path
):
    path = tmp_path / "flame.safetensors"
    save_networks(small_networks(code=CodeConfig(expression=50), head="flame2020"), path)
    monkeypatch.setattr(pretrained_coarse_networks, "path", path)

    capture = reconstruct(networks=None, solver=replace(QUICK, iterations=1))

    assert capture.visibility_regions == () and capture.visibility.size == 0
    assert capture.provenance["shape, expression, pose"] == "maximum a posteriori fit to the landmarks"
    with pytest.raises(AvfaceError, match="networks for the head flame2020 with 50 expression units"):
        reconstruct(networks=path)


def test_without_networks_and_picture_the_request_is_refused_before_tracking(videos, monkeypatch):
    monkeypatch.setattr(avface.stages.coarse, "_load_networks", lambda head, request: None)
    monkeypatch.setattr(avface.tracking, "track", lambda *_, **__: pytest.fail("the video was tracked"))

    with pytest.raises(
        AvfaceError, match=r"loud\.mp4: there are no networks to predict the mouth from sound"
    ):
        avface.reconstruct(videos[True], video=False)


@pytest.mark.parametrize(
    ("sound", "options", "message"),
    [
        (False, {"video": False}, r"silent\.mp4: the video has no sound"),
        (True, {"video": False, "audio": False}, "neither picture nor sound"),
        (True, {"networks": "none.safetensors"}, r"none\.safetensors: no such file"),
    ],
)
def test_requests_without_usable_input_are_refused(reconstruct, sound, options, message):
    with pytest.raises(AvfaceError, match=message):
        reconstruct(sound=sound, **options)


def test_detail_is_estimated_if_its_stage_is_named(track, reconstruct, own_detail):
    reports = []
    capture = reconstruct(stages=("coarse", "detail"), progress=lambda *said: reports.append(said))
    assert capture.detail.weights.shape[0] == FRAMES
    assert "trained on synthetic people" in capture.provenance["detail"]
    assert [done for stage, done, _ in reports if stage == "detail"][-1] == FRAMES
    assert reconstruct().detail is None


def test_without_weights_detail_is_skipped(reconstruct, own_detail):
    pretrained_detail.path.unlink()
    assert reconstruct(stages=("coarse", "detail")).detail is None
