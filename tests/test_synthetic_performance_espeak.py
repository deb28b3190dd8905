import subprocess
import sys

import numpy as np
import pytest

from avface.errors import AvfaceError

pytest.importorskip("espeakng_loader")

from avface.synthetic.performance.espeak import languages, speak, voice_variants
from avface.synthetic.performance.sentences import TIMBRES


def pitch(speech):
    """Median pitch in Hz of the loud parts, by autocorrelation."""
    rate, found = speech.sample_rate, []
    for start in range(0, len(speech.samples) - 1024, 512):
        piece = speech.samples[start : start + 1024]
        if piece.std() < 0.05:
            continue
        similar = np.correlate(piece, piece, "full")[1023:]
        shortest = rate // 400
        found.append(rate / (shortest + np.argmax(similar[shortest : rate // 60])))
    return float(np.median(found))


def loudness(speech):
    return float(np.sqrt(np.mean(speech.samples**2)))


def silent(speech, start, end):
    piece = speech.samples[int(start * speech.sample_rate) : int(end * speech.sample_rate)]
    return np.abs(piece).max() < 1e-3


@pytest.mark.parametrize("voice", ["en-us", "en-us+f4", "de+m3", "en-us+klatt2"])
def test_the_same_call_gives_the_same_sound_after_any_other_call(voice):
    first = speak("a happy apple", voice)
    speak("something quite different, and longer", "fr+f4", 210)
    again = speak("a happy apple", voice)

    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.phonemes == again.phonemes


def test_voices_of_synthetic_people_are_the_same_in_every_process():
    """Some of espeak-ng's variants aren't."""
    program = (
        "import hashlib\n"
        "from avface.synthetic.performance.espeak import speak\n"
        "from avface.synthetic.performance.sentences import TIMBRES\n"
        "for name in TIMBRES:\n"
        "    print(name, hashlib.sha256(speak('a happy apple', 'en-us+' + name).samples.tobytes()).hexdigest())\n"
    )
    first, *others = (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    )
    assert len(first.splitlines()) == len(TIMBRES)
    assert [first, first] == others


def test_pitch_volume_and_rate_have_their_effect():
    usual = speak("how are you today", "en-us")

    assert pitch(speak("how are you today", pitch=90)) > 1.2 * pitch(usual)
    assert pitch(speak("how are you today", pitch=10)) < 0.9 * pitch(usual)
    assert loudness(speak("how are you today", volume=50)) == pytest.approx(0.5 * loudness(usual), rel=0.1)
    assert speak("how are you today", words_per_minute=300).duration < 0.7 * usual.duration


def test_a_narrower_pitch_range_gives_a_flatter_melody():
    def spread(pitch_range):
        said = speak("is it you again, my old friend?", pitch_range=pitch_range)
        half = len(said.samples) // 2
        parts = [
            type(said)(part, said.sample_rate, ()) for part in (said.samples[:half], said.samples[half:])
        ]
        return abs(np.log(pitch(parts[0]) / pitch(parts[1])))

    assert spread(0) < spread(100)


def test_phonemes_are_in_order_and_end_with_a_pause():
    said = speak("hello world")
    starts = [phoneme.start for phoneme in said.phonemes]

    assert starts == sorted(starts)
    assert starts[0] >= 0 and starts[-1] <= said.duration + 0.01
    assert [p.symbol for p in said.phonemes if p.symbol] == ["h", "ə", "l", "oʊ", "w", "ɜː", "l", "d"]
    assert said.phonemes[-1].symbol == ""


def test_a_voiceless_stop_begins_with_its_silent_closure():
    said = speak("attack a happy cookie")
    stops = [p for p in said.phonemes if p.symbol in ("p", "t", "k")]

    assert len(stops) == 5
    for stop in stops:
        assert silent(said, stop.start + 0.002, stop.start + 0.02), stop
        assert not silent(said, stop.start - 0.02, stop.start), stop


def test_changes_of_language_are_no_phonemes():
    said = speak("thought, Apfel, weekend", "de")

    assert not [p for p in said.phonemes if "(" in p.symbol]


def test_resampling_keeps_tones_and_times():
    said = speak("hello world")
    narrow = said.resampled(16_000)

    assert narrow.sample_rate == 16_000
    assert narrow.duration == pytest.approx(said.duration, abs=1e-4)
    assert pitch(narrow) == pytest.approx(pitch(said), rel=0.03)
    assert narrow.phonemes == said.phonemes


def test_every_language_listed_can_be_spoken():
    assert {"en-us", "de", "fr", "es", "cmn", "hi"} <= set(languages())
    for language in languages()[::12]:
        assert speak("a", language).duration > 0


def test_variants_sound_different():
    assert {"m3", "f4", "klatt", "max"} <= set(voice_variants())
    said = [speak("hello", f"en-us+{variant}") for variant in ("m3", "f4")]
    assert pitch(said[1]) > 1.2 * pitch(said[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"voice": "nowhere"}, "no voice 'nowhere'"),
        ({"voice": "en-us+nobody"}, "no variant 'nobody'"),
        ({"pitch": 101}, "pitch=101 must be from 0 to 100"),
        ({"pitch_range": -1}, "pitch_range=-1 must be from 0 to 100"),
        ({"volume": 300}, "volume=300"),
        ({"words_per_minute": 20}, "words_per_minute=20 must be from 80 to 450"),
    ],
)
def test_what_cannot_be_spoken_is_refused(options, message):
    with pytest.raises(AvfaceError, match=message):
        speak("hello", **options)
