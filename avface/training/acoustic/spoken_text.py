"""Text for speech synthesis: words of several languages, and pseudo-words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

WORDS: dict[str, tuple[str, ...]] = {
    language: tuple(words.split())
    for language, words in json.loads(Path(__file__).with_name("words.json").read_text("utf-8")).items()
}
"""Common words by language; all kinds of English share "en"."""
PSEUDO_LANGUAGES = ("nl", "sv", "pl", "cs", "tr", "fi", "hu", "id", "sw", "ro", "el", "da")
"""Languages for pseudo-words, with a regular spelling."""
_ONSETS = (
    *"bdfghjklmnprstvwz",
    "",
    "",
    "sh",
    "ch",
    "th",
    "br",
    "pl",
    "st",
    "tr",
    "kl",
    "fr",
    "sp",
    "gr",
    "mb",
    "qu",
)
_NUCLEI = (*"aeiou", *"aeiou", "ai", "au", "ou", "oi", "ea", "y")
_CODAS = ("", "", "", "", *"nmlrstkpbf", "ng", "sh", "nt")


def sentences(rng: np.random.Generator, language: str, count: int) -> str:
    """`count` sentences in a language: words in random order, some of them pseudo-words."""
    words = WORDS.get("en" if language.startswith("en") else language, ())
    latin = not words or words[0].isascii()
    pseudo_share = 1.0 if not words else 0.25 if latin else 0.0
    spoken = []
    for _ in range(count):
        length = int(rng.integers(2, 12))
        chosen = [
            pseudo_word(rng) if rng.random() < pseudo_share else str(rng.choice(words)) for _ in range(length)
        ]
        if length > 6 and rng.random() < 0.5:
            chosen[length // 2] += ","
        spoken.append(" ".join(chosen) + str(rng.choice([".", ".", ".", "!", "?"])))
    return " ".join(spoken)


def pseudo_word(rng: np.random.Generator) -> str:
    """One to four random syllables in Latin letters."""
    parts = []
    for _ in range(int(rng.integers(1, 5))):
        parts += [str(rng.choice(_ONSETS)), str(rng.choice(_NUCLEI)), str(rng.choice(_CODAS))]
    return "".join(parts)
