"""Reconstruction of videos as cameras and editors make them: oblong pixels, unusable sound, changing sizes."""

from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from captures import moving_capture
from videos import Track, beep, gradients, write_video

from avface.capture import Capture
from avface.cli import main
from avface.errors import AvfaceWarning
from avface.evaluation.demo import demo_errors
from avface.media import Clip
from avface.pipeline import _warn_of_gaps, reconstruct
from avface.synthetic.demo_clip import DEMO_CLIP, DEMO_TRUTH


def squeezed(image: np.ndarray, width: int) -> np.ndarray:
    picture = av.VideoFrame.from_ndarray(image, format="rgb24")
    return picture.reformat(width=width, interpolation="AREA").to_ndarray()


@pytest.mark.slow
def test_oblong_pixels_give_the_same_head(tmp_path):
    """Taken for square, they gave an error of 6.7 mm."""
    frames = list(Clip.open(DEMO_CLIP).frames())
    pictures = (squeezed(frame.image, 336) for frame in frames)
    times = [frame.time for frame in frames]
    path = write_video(tmp_path / "anamorphic.mp4", pictures, times, pixel_aspect=Fraction(4, 3))

    capture = reconstruct(path, audio=False)

    assert capture.image_size == (448, 448)
    truth = Capture.load(DEMO_TRUTH)
    square = demo_errors(reconstruct(DEMO_CLIP, audio=False), truth)[0]
    assert demo_errors(capture, truth)[0] == pytest.approx(square, abs=0.1)


def test_a_size_that_changes_is_one_warning(tmp_path):
    frames = list(islice(Clip.open(DEMO_CLIP).frames(), 16))
    path = tmp_path / "clip.h264"
    for chosen, width in ((frames[:8], 448), (frames[8:], 400)):
        pictures = [frame.image[:, :width] for frame in chosen]
        part = write_video(tmp_path / "part.h264", pictures, [frame.time for frame in chosen])
        with path.open("ab") as file:
            file.write(part.read_bytes())

    with pytest.warns(AvfaceWarning) as caught:
        capture = reconstruct(path)

    messages = [str(each.message) for each in caught if each.category is AvfaceWarning]
    assert len(messages) == 1
    assert "the size of the pictures changes from 448 x 448 to 400 x 448 pixels" in messages[0]
    assert len(capture) == 16


def test_sound_that_cannot_be_decoded_does_not_end_the_run(tmp_path):
    frames = list(islice(Clip.open(DEMO_CLIP).frames(), 8))
    path = write_video(
        tmp_path / "clip.mkv",
        [frame.image for frame in frames],
        [frame.time for frame in frames],
        tracks=[Track(beep(0.4, 0.1))],
    )
    assert reconstruct(path).audio_track == 0
    path.write_bytes(path.read_bytes().replace(b"A_AAC", b"A_XYZ"))

    with pytest.warns(AvfaceWarning, match=r"clip\.mkv: its sound can't be decoded") as caught:
        capture = reconstruct(path)

    assert len([each for each in caught if each.category is AvfaceWarning]) == 1
    assert len(capture) == 8 and capture.audio_track is None


@pytest.mark.parametrize(
    ("people", "person", "advice"),
    [
        (1, 0, "Nobody else was found"),
        (2, 0, "The other person is face 1"),
        (2, 1, "The other person is face 0"),
        (3, 1, "The video shows 3 people, face 0 to face 2; this is face 1"),
    ],
)
def test_the_warning_of_shots_without_the_person_names_who_else_can_be_followed(people, person, advice):
    """It said "Follow someone else with face=1", whoever there was and who was followed, on the command line too."""
    capture = replace(
        moving_capture(),
        segment_starts=np.array([0, 5, 9]),
        segment_same_person=np.array([True, False, False]),
    )
    clip, found = SimpleNamespace(damage=None), SimpleNamespace(people=people, person=person)
    with pytest.warns(AvfaceWarning) as caught:
        _warn_of_gaps(clip, capture, found, Path("talk.mp4"))
    assert [str(each.message) for each in caught] == [
        "talk.mp4: 2 of 3 stretches between cuts don't show the chosen person; their frames have confidence 0. "
        + advice
    ]


def test_a_video_of_one_person_with_a_cut_says_that_nobody_else_was_found(tmp_path, capsys):
    frames = list(islice(Clip.open(DEMO_CLIP).frames(), 18))
    elsewhere = gradients(9, 448, 448)
    pictures = [frame.image for frame in frames[:9]] + list(elsewhere)
    path = write_video(tmp_path / "talk.mp4", pictures, [frame.time for frame in frames])
    assert main(["reconstruct", str(path), "-o", str(tmp_path / "out")]) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warned) == 1
    assert warned[0].endswith("their frames have confidence 0. Nobody else was found")
