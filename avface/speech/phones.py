"""The 29 phone classes of the acoustic model.

They are independent of language and distinguish place and manner of articulation, which lips and jaw show, but not
voicing, which they don't. `SYMBOLS` is the order of the model's outputs.
"""

from __future__ import annotations

import unicodedata

PHONES: dict[str, str] = {
    "silence": "",
    "p": "p b ɓ",
    "m": "m",
    "f": "f v ɱ ʋ ɸ β",
    "th": "θ ð",
    "t": "t d ʈ ɖ ɗ",
    "n": "n ɳ",
    "l": "l ɭ ɫ ʎ ɬ ɮ",
    "r": "r ɾ ɽ",
    "rh": "ɹ ɻ",
    "s": "s z ts dz",
    "sh": "ʃ ʒ ɕ ʑ ʂ ʐ",
    "ch": "tʃ dʒ tɕ dʑ ʈʂ ɖʐ tʂ dʐ",
    "k": "k ɡ g q ɢ c ɟ ɠ",
    "ng": "ŋ ɲ ɴ",
    "kh": "x ɣ χ ʁ ħ ʕ ç ʝ ʀ",
    "h": "h ɦ ʔ",
    "j": "j ʲ",
    "w": "w ɥ ʍ",
    "i": "i",
    "e": "ɪ e ᵻ",
    "eh": "ɛ",
    "a": "a æ",
    "ah": "ɑ ɐ ʌ",
    "oh": "ɔ ɒ",
    "o": "o ɤ",
    "u": "u ʊ",
    "y": "y ø œ ʏ ɵ",
    "er": "ə ɜ ɚ ɝ ɘ ɨ ɯ ʉ",
}
"""Phones in IPA of each class. Affricates are one phone, diphthongs two."""
SYMBOLS: tuple[str, ...] = tuple(PHONES)
"""The 29 symbols in the order of the model's outputs; 0 is silence."""
SILENCE = 0
"""Index of silence, which includes pauses, noise and music."""
_INDEX = {phone: index for index, phones in enumerate(PHONES.values()) for phone in phones.split()}


def phone_indices(symbol: str) -> tuple[int, ...]:
    """Indices into `SYMBOLS` of a phoneme in IPA, in order of time: "aɪ" is an "a", then an "e".

    Marks of length, tone, stress and the like are ignored. Pauses and unknown symbols are silence.
    """
    bare = (sign if sign in _INDEX else unicodedata.normalize("NFD", sign)[0] for sign in symbol)
    letters = "".join(sign for sign in bare if sign in _INDEX)
    indices: list[int] = []
    at = 0
    while at < len(letters):
        size = 2 if letters[at : at + 2] in _INDEX else 1
        index = _INDEX[letters[at : at + size]]
        if index != SYMBOLS.index("j") or letters[at] != "ʲ":  # palatalisation belongs to the phone before
            indices.append(index)
        at += size
    return tuple(indices) or (SILENCE,)
