"""Natural sentences for speech synthesis: Debian's collections of quotations for the program fortune.

Sentences have far more combinations of phones than lists of words. They are needed to train the acoustic model, not to
use it.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np

from avface.errors import AvfaceError
from avface.training.acoustic.spoken_text import pseudo_word, sentences

FOLDER = Path("/usr/share/games/fortunes")
"""Folder of the collections in Debian."""
COLLECTIONS: dict[str, tuple[str, ...]] = {
    "en": ("people", "wisdom", "work", "literature", "science"),
    "de": ("de/zitate", "de/sprueche", "de/sprichworte", "de/regeln"),
    "es": ("es/famosos.fortunes", "es/humanos.fortunes", "es/ciencia.fortunes"),
    "it": ("italia", "leggi", "formiche"),
    "pt": ("brasil",),
    "ru": ("ru/[!.]*",),
    "eo": ("eo/[!.]*",),
}
"""Files by language, as patterns."""
PACKAGES = (
    "fortunes",
    "fortunes-de",
    "fortunes-es",
    "fortunes-it",
    "fortunes-br",
    "fortunes-ru",
    "fortunes-eo",
)
"""Debian packages of the collections."""
_SENTENCE = re.compile(r"[^\W\d_]+([ ,;:']{1,2}[^\W\d_]+)*[.!?]")
_SHORTEST, _LONGEST = 13, 139
"""Range of the length of a sentence in characters."""
_CYRILLIC = str.maketrans(dict(zip("abdefghijklmnoprstuvwyz", "абдефгхижклмнопрстувуыз", strict=True)))
_CYRILLIC_PAIRS = (("sh", "ш"), ("ch", "ч"), ("th", "т"), ("qu", "кв"))


def text_to_read(rng: np.random.Generator, language: str, count: int) -> str:
    """`count` sentences for a voice of that language, by espeak-ng's code of it.

    Where there is no collection, they are words in any order or, in Ukrainian and Kyrgyz, words that mean nothing.

    Raises:
        AvfaceError: if the collection is not installed.
    """
    base = language.split("-")[0]
    if base in COLLECTIONS:
        written = written_sentences(base)
        return " ".join(written[rng.integers(len(written))] for _ in range(count))
    if base in ("uk", "ky"):
        return " ".join(
            " ".join(_cyrillic(pseudo_word(rng)) for _ in range(int(rng.integers(3, 9)))) + "."
            for _ in range(count)
        )
    return sentences(rng, language, count)


@functools.cache
def written_sentences(language: str) -> tuple[str, ...]:
    """The sentences of a language's collection that consist of words alone, in a fixed order.

    Raises:
        AvfaceError: if the collection is not installed.
    """
    found: list[str] = []
    for pattern in COLLECTIONS[language]:
        for path in sorted(FOLDER.glob(pattern)):
            if path.suffix not in (".dat", ".u8") and path.is_file():
                found += sentences_in(_read(path))
    if not found:
        packages = " ".join(PACKAGES)
        raise AvfaceError(
            f"{FOLDER / COLLECTIONS[language][0]}: not found; install it (Debian: apt install {packages})"
        )
    return tuple(found)


def sentences_in(text: str) -> list[str]:
    """Sentences of a text, sayings in which are parted by lines of "%": those without figures, capitals and quotes."""
    sayings = (re.sub(r"\s+", " ", saying) for saying in text.split("\n%"))
    candidates = (part.strip(" \"-*'") for saying in sayings for part in re.split(r"(?<=[.!?])\s", saying))
    return [
        one
        for one in candidates
        if _SHORTEST <= len(one) <= _LONGEST and _SENTENCE.fullmatch(one) and not re.search("[A-Z]{2}", one)
    ]


def _read(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _cyrillic(word: str) -> str:
    for latin, letter in _CYRILLIC_PAIRS:
        word = word.replace(latin, letter)
    return word.translate(_CYRILLIC)
