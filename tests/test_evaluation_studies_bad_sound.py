import numpy as np
import pytest
from videos import constant_rate, gradients, write_video

from avface.errors import AvfaceError
from avface.evaluation.occlusion import OccludedFigures
from avface.evaluation.studies.bad_sound import SOUNDS, WITHOUT, BadSoundEvaluation, table, write_with_sound
from avface.media import Clip

RATE = 16_000
TIMES = np.arange(3 * RATE) / RATE


@pytest.fixture
def voices():
    """Two sounds of three seconds."""
    one = 0.3 * np.sin(2 * np.pi * 220 * TIMES) * np.sin(2 * np.pi * 2 * TIMES) ** 2
    other = 0.05 * np.sin(2 * np.pi * 6000 * TIMES)
    return one.astype(np.float32), other.astype(np.float32)


@pytest.mark.parametrize("name", SOUNDS)
def test_bad_sounds_have_the_length_of_the_clip_and_full_scale_at_most(voices, name):
    made = SOUNDS[name](*voices)
    assert made.dtype == np.float32 and np.abs(made).max() <= 1
    assert len(made) == (RATE if name == "one second" else len(voices[0]))


def power(sound, low, high):
    spectrum = np.abs(np.fft.rfft(sound)) ** 2
    at = np.fft.rfftfreq(len(sound), 1 / RATE)
    return spectrum[(at >= low) & (at < high)].sum()


def test_bad_sounds_are_what_their_names_say(voices):
    one, other = voices
    made = {name: change(one, other) for name, change in SOUNDS.items()}
    np.testing.assert_array_equal(made["as recorded"], one)
    assert not made["silence"].any()
    assert (np.abs(made["clipped"]) == 1).mean() > 0.2
    assert power(SOUNDS["8 kHz"](other, one), 5000, 8000) < 1e-3 * power(other, 5000, 8000)
    mixed = made["two voices"] - one
    assert 10 * np.log10((one**2).mean() / (mixed**2).mean()) == pytest.approx(5, abs=0.1)
    assert np.abs(made["music"] - one).max() > 0.02


def test_a_video_gets_another_sound_and_keeps_its_pictures(tmp_path, voices):
    source = tmp_path / "a.mp4"
    write_video(source, gradients(75), constant_rate(75, 25.0))
    write_with_sound(source, voices[0], tmp_path / "b.mkv")
    before, after = Clip.open(source), Clip.open(tmp_path / "b.mkv")

    pictures = zip(before.frames(), after.frames(), strict=True)
    assert all(np.array_equal(one.image, other.image) for one, other in pictures)
    sound = after.audio()
    count = min(len(sound), len(voices[0]))
    assert count > 2 * RATE
    np.testing.assert_allclose(sound[:count], voices[0][:count], atol=1e-3)


def test_the_table_compares_with_no_sound():
    def case(shift):
        figures = {name: OccludedFigures(2.0, 3.0 + shift, 0.4, 0.3) for name in ("8 kHz", WITHOUT)}
        return figures | {"8 kHz": OccludedFigures(1.5, 2.5 + shift, 0.5, 0.4)}

    lines = table([case(0.0), case(1.0)]).splitlines()
    assert "-0.50 ± 0.00" in lines[2] and "3.00" in lines[2]
    assert "+0.00 ± 0.00" in lines[3] and "3.50" in lines[3]


def test_a_number_of_seeds_that_cannot_work_is_refused():
    with pytest.raises(AvfaceError, match="seeds=0"):
        BadSoundEvaluation(seeds=0)
