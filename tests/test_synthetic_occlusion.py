"""Occlusion plans, motion, compositing, and occluded videos."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from videos import Track, write_video

from avface.errors import AvfaceError
from avface.media import Clip
from avface.synthetic.occlusion.appearance import estimate_light, face_skin
from avface.synthetic.occlusion.compositing import OCCLUDED, _OcclusionRun, occlude
from avface.synthetic.occlusion.face_pose import face_poses
from avface.synthetic.occlusion.motion import OccluderMotion, random_walk
from avface.synthetic.occlusion.occluders.average_face import average_face
from avface.synthetic.occlusion.occluders.drawing import Light
from avface.synthetic.occlusion.occluders.sampling import sample_occluder
from avface.synthetic.occlusion.plan import (
    OcclusionConfig,
    OcclusionEvent,
    plan_occlusions,
    whole_face_event,
)
from avface.synthetic.occlusion.video import occlude_video

SIZE = 160
DEMO = Path(__file__).parents[1] / "avface" / "synthetic" / "assets" / "demo.mp4"


def still_face(count, sway=0.0):
    """Landmarks (count, 478, 2) of the average face, swaying by pixels, and noisy skin-coloured frames."""
    points = average_face().landmarks
    x = 80 + sway * np.sin(np.arange(count) / 8)[:, None] + 600 * points[:, 0]
    landmarks = np.stack([x, np.broadcast_to(80 - 600 * points[:, 1], x.shape)], 2)
    rng = np.random.default_rng(0)
    image = np.clip(rng.normal([190, 150, 130], 12, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
    return [image] * count, landmarks


def run(count=16, seed=0, sway=0.0, **settings):
    frames, landmarks = still_face(count, sway)
    rng = np.random.default_rng(seed)
    return frames, list(occlude(frames, landmarks, rng, OcclusionConfig(**settings)))


def test_only_masked_pixels_change_when_there_is_no_shadow():
    for seed in range(5):
        frames, out = run(2, seed, shadow=0.0, hold_share=1.0)
        for before, after in zip(frames, out, strict=True):
            changed = (before != after.image).any(2)
            assert not changed[after.mask == 0].any()
            solid = after.mask > 250
            assert solid.any() and changed[solid].mean() > 0.97


def test_shadow_only_darkens_the_face():
    frames, out = run(4, 1, shadow=0.5, hold_share=1.0, kinds=("hand",))

    for before, after in zip(frames, out, strict=True):
        free = after.mask == 0
        assert (after.image[free] <= before[free]).all()
        assert (after.image[free] < before[free]).any()
        assert np.array_equal(after.image[:8], before[:8]) or after.mask[:8].any(), "not beside the face"


def test_frames_are_unchanged_until_an_occluder_enters():
    entered = 0
    for seed in range(20):
        frames, out = run(16, seed, hold_share=0.0, kinds=("paper",))
        if out[0].kind:
            continue
        first = next(t for t, frame in enumerate(out) if frame.kind)
        entered += 1
        for before, after in zip(frames[:first], out[:first], strict=True):
            assert after.image is before and not after.mask.any()
            assert after.face_visibility == 1 and not after.landmark_occluded.any()
        break
    assert entered


def test_the_same_seed_gives_the_same_pictures():
    first, again, other = (run(3, seed, hold_share=1.0)[1] for seed in (3, 3, 4))

    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.mask, b.mask)
    assert any(not np.array_equal(a.image, b.image) for a, b in zip(first, other, strict=True))


def test_the_mouth_is_hidden_in_at_least_half_of_the_clips():
    frames, landmarks = still_face(4)
    covered = []
    for seed in range(24):
        stream = occlude(frames, landmarks, np.random.default_rng(seed), OcclusionConfig(hold_share=1.0))
        covered.append(next(stream).mouth_visibility < 0.5)

    assert np.mean(covered) >= 0.5


def test_occluders_move_smoothly_and_do_move():
    for seed in range(2):
        _, out = run(60, seed, sway=6, occluded_share=1.0, kinds=("hand",), shortest=29, longest=60)
        for a, b in itertools.pairwise(out):
            if a.kind and b.kind:
                assert np.linalg.norm(b.shift - a.shift) < 0.12, "under 3 m/s even when it comes"
                assert np.rad2deg(np.linalg.norm(b.rotation - a.rotation)) < 6
        moves = np.array([frame.shift for frame in out if frame.kind])
        assert np.ptp(moves, axis=0).max() > 0.003


def test_steps_of_the_walk_dont_depend_on_the_frame_rate():
    slow = random_walk(np.random.default_rng(0), 4000, 0.02, 3, 25.0)
    fast = random_walk(np.random.default_rng(0), 8000, 0.02, 3, 50.0)

    assert slow.std() == pytest.approx(fast.std(), rel=0.25)
    assert np.abs(np.diff(slow, axis=0)).std() < 0.02, "smoothed"
    assert slow.std() < 0.15, "mean-reverting"


def test_visible_shares_agree_with_mask_and_landmarks():
    _, landmarks = still_face(6)
    _, out = run(6, 2, hold_share=1.0, kinds=("hand",))

    for points, frame in zip(landmarks, out, strict=True):
        place = np.round(points).astype(int)
        expected = frame.mask[place[:, 1], place[:, 0]] >= OCCLUDED
        np.testing.assert_array_equal(frame.landmark_occluded, expected)
        assert 0 < frame.face_visibility < 1
        assert frame.landmark_occluded.mean() == pytest.approx(1 - frame.face_visibility, abs=0.25)


def test_a_free_occluder_stays_near_the_face():
    face = np.array([0.07, 0.08]) * 1.2

    _, landmarks = still_face(90)
    poses = face_poses(landmarks)
    for seed in range(3):
        config = OcclusionConfig(kinds=("hand",), mouth_share=0.0, drift=0.05)
        event = OcclusionEvent(0, 90, False, False)
        one = _OcclusionRun(
            np.random.default_rng(seed), config, event, None, Light((0, 0, 1), 0.5), 1.0, poses, (160, 160)
        )
        for t in range(0, 90, 10):
            shift = one.draw(t, poses, (160, 160))[2]
            assert (np.abs((one.occluder.target + shift)[:2]) <= face + 1e-9).all()


def test_frames_without_a_face_get_no_shares():
    frames, landmarks = still_face(6)
    landmarks = landmarks.copy()
    landmarks[3] = np.nan

    out = list(occlude(frames, landmarks, np.random.default_rng(0), OcclusionConfig(hold_share=1.0)))

    assert np.isnan(out[3].face_visibility) and np.isnan(out[3].mouth_visibility)
    assert not out[3].landmark_occluded.any()
    assert np.isfinite(out[2].face_visibility) and out[3].mask.any(), (
        "the hand stays although the tracker lost the face"
    )


def test_frames_are_taken_one_at_a_time():
    taken = []
    frames, landmarks = still_face(5)

    def source():
        for k, frame in enumerate(frames):
            taken.append(k)
            yield frame

    stream = occlude(source(), landmarks, np.random.default_rng(0), OcclusionConfig(kinds=("phone",)))
    next(stream)

    assert taken == [0]


def test_plans_fill_runs_without_overlap():
    config = OcclusionConfig()
    shares = []
    for seed in range(60):
        events = plan_occlusions(np.random.default_rng(seed), 1500, config)
        for a, b in itertools.pairwise(events):
            assert a.stop < b.start and a.leaves and b.enters
        for event in events:
            assert 0 <= event.start < event.stop <= 1500
            assert event.stop - event.start <= config.longest
            assert event.enters == (event.start > 0) and event.leaves == (event.stop < 1500)
        shares.append(sum(event.stop - event.start for event in events) / 1500)
    assert abs(np.mean(shares) - config.occluded_share) < 0.07


def test_half_of_the_short_clips_are_occluded_throughout():
    plans = [plan_occlusions(np.random.default_rng(s), 16, OcclusionConfig())[0] for s in range(300)]

    throughout = np.mean([plan.start == 0 and plan.stop == 16 for plan in plans])
    assert 0.4 < throughout < 0.6
    assert all(plan.enters != plan.leaves for plan in plans if plan.start > 0 or plan.stop < 16)


def test_skin_colours_are_those_of_the_skin():
    frames, landmarks = still_face(1)
    image = frames[0].copy()
    image[:, :10] = 0

    colours = face_skin(image, landmarks[0])

    np.testing.assert_allclose(np.median(colours, 0) * 255, [190, 150, 130], atol=4)
    assert face_skin(image, landmarks[0] + 1000) is None


def test_light_from_the_left_is_estimated():
    frames, landmarks = still_face(1)
    fall = np.linspace(1.25, 0.6, SIZE)[None, :, None]
    image = np.clip(frames[0] * fall, 0, 255).astype(np.uint8)

    light, bright = estimate_light(image, landmarks[0], np.zeros(3))
    dim = estimate_light((image * 0.5).astype(np.uint8), landmarks[0], np.zeros(3))[1]

    assert light.direction[0] < -0.15, "towards the light: the viewer's left"
    assert dim < 0.5 * bright


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mouth_share": 1.5}, "mouth_share=1.5 must be from 0 to 1"),
        ({"hold_share": -0.1}, "hold_share=-0.1 must be from 0 to 1"),
        ({"occluded_share": 2}, "occluded_share=2 must be from 0 to 1"),
        ({"shadow": float("nan")}, "shadow=nan must be from 0 to 1"),
        ({"rotation_step": -1}, "rotation_step=-1 must not be negative"),
        ({"translation_step": -1}, "translation_step=-1 must not be negative"),
        ({"drift": -1}, "drift=-1 must not be negative"),
        ({"shortest": 0}, "shortest=0 must be from 1 to longest=90"),
        ({"shortest": 50, "longest": 40}, "shortest=50 must be from 1 to longest=40"),
        ({"frame_rate": 0}, "frame_rate=0 must be above 0"),
        ({"reach": 0}, "reach=0 must be above 0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        OcclusionConfig(**settings)


@pytest.mark.parametrize(("enters", "leaves"), [(True, True), (True, False), (False, True), (False, False)])
def test_ramps_start_and_end_outside_the_picture(enters, leaves):
    _, landmarks = still_face(80)
    poses = face_poses(landmarks)
    rng = np.random.default_rng(4)
    occluder = sample_occluder(rng, ("hand",))
    event = OcclusionEvent(10, 70, enters, leaves)
    motion = OccluderMotion.sample(rng, OcclusionConfig(reach=10.0), event, occluder, poses, (SIZE, SIZE))

    def offset(index):
        """Distance along the entry direction from the random walk alone, in metres."""
        return (motion.at(index, np.eye(3))[1] - motion.shifts[index - 10]) @ occluder.entry_direction

    offsets = np.array([offset(index) for index in range(10, 70)])
    hold = slice(motion.ramp_frames, 60 - motion.ramp_frames)
    np.testing.assert_allclose(offsets[hold], 0, atol=1e-12)
    assert len(offsets[hold]) > 10
    border = 0.5 * SIZE / poses.scale[10]  # from the middle of the picture
    for first, ramp in (
        (enters, offsets[: motion.ramp_frames]),
        (leaves, offsets[::-1][: motion.ramp_frames]),
    ):
        assert (ramp[0] > border) == first
        assert np.all(np.diff(ramp) <= 0)
        assert first or not ramp.any()


def test_unknown_kinds_are_refused_before_any_work(tmp_path):
    with pytest.raises(AvfaceError, match="'beard': unknown kind"):
        OcclusionConfig(kinds=("hand", "beard"))
    with pytest.raises(AvfaceError, match="'beard': unknown kind"):
        occlude_video(tmp_path / "missing.mp4", tmp_path / "out", kinds=("beard",))
    assert not (tmp_path / "out").exists()


def test_wrong_frames_are_refused():
    frames, landmarks = still_face(4)
    with pytest.raises(ValueError, match="more frames"):
        list(occlude(frames * 2, landmarks, np.random.default_rng(0)))
    with pytest.raises(ValueError, match="uint8"):
        list(occlude([frames[0].astype(float)] * 4, landmarks, np.random.default_rng(0)))
    with pytest.raises(AvfaceError, match="no face"):
        occlude(frames, np.full((4, 478, 2), np.nan), np.random.default_rng(0))


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    """A second of the demo clip, with a tone."""
    path = tmp_path_factory.mktemp("talk") / "talk.mp4"
    images = [frame.image for frame in itertools.islice(Clip.open(DEMO).frames(), 20)]
    tone = 0.3 * np.sin(np.arange(48_000) * 2 * np.pi * 440 / 48_000)[None]
    return write_video(path, images, np.arange(20) / 25, tracks=[Track(tone.astype(np.float32))])


@pytest.fixture(scope="module")
def occluded(talk, tmp_path_factory):
    folder = tmp_path_factory.mktemp("occluded") / "new" / "folder"
    return occlude_video(talk, folder, seed=1, kinds=("hand",), config=OcclusionConfig(hold_share=1.0))


def test_a_video_is_written_with_mask_clean_reference_and_truth(talk, occluded):
    source = Clip.open(talk)
    videos = [list(Clip.open(p).frames()) for p in (occluded.occluded, occluded.clean, occluded.mask)]

    assert [len(frames) for frames in videos] == [20, 20, 20] and occluded.frames == 20
    for frames in zip(source.frames(), *videos, strict=True):
        before, covered, clean, mask = (frame.image.astype(int) for frame in frames)
        assert len({frame.time for frame in frames}) == 1
        assert np.abs(clean - before).mean() < 4
        solid, free = mask[..., 0] > 250, mask[..., 0] < 2
        change = np.abs(covered - clean)
        assert solid.any() and change[solid].mean() > 5 * change[free].mean()
    assert occluded.face_visibility < 0.95
    assert Clip.open(occluded.occluded).info.has_audio and Clip.open(occluded.clean).info.has_audio
    assert sorted(path.name for path in occluded.truth.parent.iterdir()) == [
        "clean.mp4", "mask.mp4", "occluded.mp4", "truth.npz",
    ]  # fmt: skip


def test_the_truth_agrees_with_the_mask(occluded):
    with np.load(occluded.truth, allow_pickle=False) as archive:
        truth = {key: archive[key] for key in archive.files}

    assert truth["landmarks"].shape == (20, 478, 2) and truth["landmarks"].dtype == np.float32
    assert truth["times"].shape == (20,) and str(truth["source"]) == "talk.mp4"
    assert set(truth["kind"].tolist()) <= {"hand", ""}
    behind = np.unpackbits(truth["landmark_occluded"], axis=1)[:, :478].astype(bool)
    for t, frame in enumerate(Clip.open(occluded.mask).frames()):
        place = np.round(truth["landmarks"][t]).astype(int)
        masked = frame.image[place[:, 1].clip(0, frame.image.shape[0] - 1), place[:, 0], 0] >= OCCLUDED
        assert (masked == behind[t]).mean() > 0.99
    assert np.isfinite(truth["shift"][truth["kind"] == "hand"]).all()
    assert truth["mouth_visibility"].mean() == pytest.approx(occluded.mouth_visibility, abs=1e-5)


def test_a_video_without_a_face_is_named(tmp_path):
    path = write_video(tmp_path / "wall.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 5, np.arange(5) / 25)

    with pytest.raises(AvfaceError, match=r"wall\.mp4"):
        occlude_video(path, tmp_path / "out")


def test_what_isnt_a_video_is_named(tmp_path):
    text = tmp_path / "notes.mp4"
    text.write_text("not a video")

    with pytest.raises(AvfaceError, match=r"notes\.mp4"):
        occlude_video(text, tmp_path / "out")
    with pytest.raises(AvfaceError, match=r"none\.mp4"):
        occlude_video(tmp_path / "none.mp4", tmp_path / "out")


def test_an_unwritable_folder_is_named(talk, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")

    with pytest.raises(AvfaceError, match="file"):
        occlude_video(talk, blocked)
    with pytest.raises(AvfaceError, match="file"):
        occlude_video(talk, blocked / "below")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_named(talk, tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)

    with pytest.raises(AvfaceError, match="closed: can't be written"):
        occlude_video(talk, folder)


def test_the_source_is_never_overwritten(tmp_path, talk):
    source = tmp_path / "clean.mp4"
    source.write_bytes(talk.read_bytes())

    with pytest.raises(AvfaceError, match="would be overwritten"):
        occlude_video(source, tmp_path)


@pytest.mark.parametrize("kind", ["hand", "microphone", "paper"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_whole_face_is_covered_between_the_ramps(kind, seed):
    frames, landmarks = still_face(24, sway=8.0)
    event = whole_face_event(2, 8)
    config = OcclusionConfig(kinds=(kind,), whole_face=True)
    out = list(occlude(frames, landmarks, np.random.default_rng(seed), config, (event,)))
    covered = np.array([frame.landmark_occluded.mean() for frame in out])
    assert (covered[event.start + event.ramp : event.stop - event.ramp] >= 0.95).all()
    assert not covered[: event.start].any() and not covered[event.stop :].any()
    assert covered[event.start] < 0.5 and covered[event.stop - 1] < 0.5
    assert {frame.kind for frame in out} == {"", kind}


def test_plans_cover_the_whole_face_for_6_to_30_frames_with_ramps():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        frames = int(rng.integers(30, 400))
        events = plan_occlusions(rng, frames, OcclusionConfig(whole_face=True))
        assert events and events[0].start > 0 and events[-1].stop < frames
        for one in events:
            assert one.enters and one.leaves and 6 <= one.stop - one.start - 2 * one.ramp <= 30
        assert all(one.stop + 2 <= other.start for one, other in itertools.pairwise(events))
    short = plan_occlusions(np.random.default_rng(0), 12, OcclusionConfig(whole_face=True))
    assert short == (OcclusionEvent(0, 12, False, False),)


def test_what_is_worn_cannot_cover_the_whole_face():
    with pytest.raises(AvfaceError, match="scarf: can't cover the whole face"):
        OcclusionConfig(kinds=("scarf",), whole_face=True)
    with pytest.raises(ValueError, match="shortest_cover=40"):
        OcclusionConfig(shortest_cover=40)
