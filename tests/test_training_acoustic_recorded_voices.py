import shutil
import stat
import sys

import numpy as np
import pytest

from avface.errors import AvfaceError
from avface.speech.phones import SILENCE, phone_indices
from avface.training.acoustic.recorded_voices import (
    ALPHABETS,
    HELD_OUT_VOICES,
    VOICES,
    RecordedVoice,
    speak_recorded,
)

FLITE = RecordedVoice("rms", "flite", "en", "radio")
FAKE = """#!{python}
import sys, wave
out = sys.argv[sys.argv.index("-o") + 1]
if "unsayable" in sys.argv[sys.argv.index("-t") + 1]:
    sys.exit(1)
with wave.open(out, "wb") as file:
    file.setparams((1, 2, 16000, 0, "NONE", ""))
    file.writeframes(bytes(2 * 16000))
print("pau:0.200 hh:0.300 ow:0.500 what:0.600 p:0.700 pau:1.000 ")
"""


@pytest.fixture
def fake_flite(tmp_path, monkeypatch):
    """A program of that name that says one second of silence and four phones."""
    program = tmp_path / "flite"
    program.write_text(FAKE.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_every_phone_of_every_alphabet_is_one_of_the_models():
    for alphabet, phones in ALPHABETS.items():
        for name, ipa in phones.items():
            assert SILENCE not in phone_indices(ipa), (alphabet, name)


def test_every_voice_has_an_alphabet_and_none_is_trained_and_tested_on():
    assert {voice.alphabet for voice in VOICES + HELD_OUT_VOICES} == set(ALPHABETS)
    assert not {voice.name for voice in VOICES} & {voice.name for voice in HELD_OUT_VOICES}


def test_phones_start_where_the_one_before_ends(fake_flite):
    (speech,) = speak_recorded(FLITE, ["Hope."])

    assert speech.duration == 1.0
    assert [(phone.symbol, phone.start) for phone in speech.phonemes] == [
        ("", 0.0), ("h", 0.2), ("oʊ", 0.3), ("", 0.5), ("p", 0.6), ("", 0.7),
    ]  # fmt: skip


def test_a_text_that_cannot_be_said_is_left_out(fake_flite):
    assert len(speak_recorded(FLITE, ["Hope.", "unsayable", "Hope."])) == 2


def test_missing_voices_and_programs_are_refused_with_what_to_install(fake_flite):
    with pytest.raises(AvfaceError, match=r"no voice rms.*apt install"):
        speak_recorded(FLITE, ["unsayable"])
    with pytest.raises(AvfaceError, match=r"festival: not found.*apt install"):
        speak_recorded(VOICES[0], ["Hope."])


@pytest.mark.skipif(not shutil.which("flite"), reason="flite isn't installed")
def test_flites_hisses_are_high_and_its_vowels_low():
    (speech,) = speak_recorded(FLITE, ["So see, sassy Susan saw it."])
    centres = {"s": [], "i": []}
    for phone, after in zip(speech.phonemes, speech.phonemes[1:], strict=False):
        if phone.symbol in centres:
            first, last = (round(time * speech.sample_rate) for time in (phone.start, after.start))
            power = np.abs(np.fft.rfft(speech.samples[first:last])) ** 2
            hertz = np.fft.rfftfreq(last - first, 1 / speech.sample_rate)
            centres[phone.symbol].append((power * hertz).sum() / power.sum())

    assert min(centres["s"]) > 2500 > max(centres["i"])


@pytest.mark.skipif(not shutil.which("fluidsynth"), reason="fluidsynth isn't installed")
def test_instruments_play_for_as_long_as_asked_and_not_the_same_twice():
    from avface.training.acoustic.instrument_music import instrument_music

    pytest.importorskip("mido")
    first, again, other = (instrument_music(np.random.default_rng(seed), 2.0) for seed in (0, 0, 1))

    assert first.shape == (32000,) and 0.2 < np.abs(first).max() <= 0.31
    assert np.allclose(first, again, atol=1e-3)
    assert not np.allclose(first, other, atol=1e-2)
