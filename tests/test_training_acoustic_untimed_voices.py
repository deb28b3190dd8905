import stat
import sys

import numpy as np
import pytest

from avface.errors import AvfaceError
from avface.speech.acoustic import AcousticConfig, AcousticModel
from avface.speech.phones import SYMBOLS
from avface.training.acoustic import printed_text
from avface.training.acoustic.corpus import build_untimed_corpus, untimed_speech
from avface.training.acoustic.printed_text import COLLECTIONS, sentences_in, text_to_read, written_sentences
from avface.training.acoustic.recorded_voices import HELD_OUT_VOICES
from avface.training.acoustic.untimed_voices import UNTIMED_VOICES, UntimedVoice, speak_untimed

PICO = UntimedVoice("en-US", "pico2wave", "en-us")
FAKE = """#!{python}
import sys, wave
if "unsayable" in sys.argv[-1]:
    sys.exit(1)
with wave.open(sys.argv[sys.argv.index("-w") + 1], "wb") as file:
    file.setparams((1, 2, 8000, 0, "NONE", ""))
    file.writeframes(bytes(2 * 8000 * 2))
"""


@pytest.fixture
def fake_pico(tmp_path, monkeypatch):
    """A program of that name that says two seconds of silence at 8 kHz."""
    program = tmp_path / "pico2wave"
    program.write_text(FAKE.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def sayings(tmp_path, monkeypatch):
    """A folder of collections with two English sentences that can be read."""
    monkeypatch.setattr(printed_text, "FOLDER", tmp_path)
    (tmp_path / "wisdom").write_text(
        "What you see is\nwhat you get.  No. 42 isn't read!\n%\nTHE END IS NEAR.\n%\nHe said: come home, my friend!\n"
    )
    (tmp_path / "wisdom.dat").write_bytes(b"\xff\x00")
    written_sentences.cache_clear()
    yield tmp_path
    written_sentences.cache_clear()


def test_sound_comes_at_16_khz_with_the_phones_of_the_text(fake_pico):
    speech = speak_untimed(PICO, "Mama.", 100, 100)

    assert speech.samples.shape == (32000,)
    assert [SYMBOLS[phone] for phone in speech.phones if phone] == ["m", "ah", "m", "ah"]


def test_a_text_that_cannot_be_said_is_nothing(fake_pico):
    assert speak_untimed(PICO, "unsayable", 100, 100) is None


def test_a_missing_program_is_named_with_its_package(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(AvfaceError, match=r"pico2wave: not found; install it .*libttspico-utils"):
        speak_untimed(PICO, "Hello.", 100, 100)


def test_voices_read_what_can_be_had_and_none_is_trained_and_tested_on():
    rng = np.random.default_rng(0)
    assert len({voice.name for voice in UNTIMED_VOICES}) == len(UNTIMED_VOICES)
    assert not {voice.name for voice in UNTIMED_VOICES} & {voice.name for voice in HELD_OUT_VOICES}
    for language in {voice.language for voice in UNTIMED_VOICES}:
        if language.split("-")[0] not in COLLECTIONS:
            assert len(text_to_read(rng, language, 2)) > 10


def test_only_whole_sentences_of_words_are_read(sayings):
    assert written_sentences("en") == ("What you see is what you get.", "He said: come home, my friend!")
    assert text_to_read(np.random.default_rng(0), "en-us", 3).count("e") >= 3
    assert sentences_in("Short.\n%\nNo end to this one") == []


def test_made_up_ukrainian_is_in_its_own_letters():
    text = text_to_read(np.random.default_rng(0), "uk", 20)

    assert not any("a" <= letter <= "z" for letter in text.lower())


def test_a_missing_collection_is_named_with_its_package(tmp_path, monkeypatch):
    monkeypatch.setattr(printed_text, "FOLDER", tmp_path)
    written_sentences.cache_clear()
    with pytest.raises(AvfaceError, match=r"zitate: not found; install it .*fortunes-de"):
        written_sentences("de")


def test_speech_that_does_not_fit_its_text_is_left_out(fake_pico, sayings):
    """Two seconds of silence are not what the text says."""
    aligner = AcousticModel(AcousticConfig(8, (1,))).eval().requires_grad_(False)
    aligner.phones.bias[0] = 100.0  # silence in all rows

    assert untimed_speech(np.random.default_rng(0), PICO, aligner) is None
    with pytest.raises(AvfaceError, match="pico2wave: no speech that can be aligned"):
        build_untimed_corpus(0, 0, 0.01, (PICO,), aligner)
