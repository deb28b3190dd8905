# ruff: noqa: RUF001 - IPA
import pytest

from avface.speech.phones import PHONES, SILENCE, SYMBOLS, phone_indices


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("p", "p"),
        ("b", "p"),
        ("iː", "i"),
        ("ˈa", "a"),
        ("aɪ", "a e"),
        ("oʊ", "o u"),
        ("tʃ", "ch"),
        ("dʒ", "ch"),
        ("tɕ", "ch"),
        ("ts", "s"),
        ("əl", "er l"),
        ("mʲ", "m"),
        ("ä", "a"),
        ("õ", "o"),
        ("ç", "kh"),
        ("ɚ", "er"),
        ("", "silence"),
        ("?", "silence"),
    ],
)
def test_phonemes_of_any_language_have_a_class(symbol, expected):
    assert [SYMBOLS[index] for index in phone_indices(symbol)] == expected.split()


def test_no_phone_is_in_two_classes():
    phones = [phone for members in PHONES.values() for phone in members.split()]
    assert len(phones) == len(set(phones))


def test_silence_comes_first():
    assert SYMBOLS[SILENCE] == "silence"


def test_every_phone_of_espeak_has_a_class():
    pytest.importorskip("espeakng_loader")
    from avface.synthetic.performance.espeak import speak

    texts = {
        "en-us": "The quick brown fox judged my vow; measure this thing, while you hear a choir.",
        "de": "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich, ich auch.",
        "fr": "Portez ce vieux whisky au juge blond qui fume un bon vin, monsieur, la montagne.",
        "es": "El veloz murciélago hindú comía feliz cardillo y kiwi; la cigüeña tocaba el saxofón, llueve, perro.",
        "ru": "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    }
    unknown = {
        (language, phoneme.symbol)
        for language, text in texts.items()
        for phoneme in speak(text, language).phonemes
        if phoneme.symbol and phone_indices(phoneme.symbol) == (SILENCE,) and phoneme.symbol != "ʲ"
    }
    assert not unknown
