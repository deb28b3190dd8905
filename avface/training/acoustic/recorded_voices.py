"""Speech by voices that were built from recordings of people, with phone times: Festival's and Flite's.

espeak-ng synthesises formants; these concatenate pieces of recordings (diphones, units) or use statistics of them, so
their spectra are those of people. Both programs and all voices are packages of Debian:
`apt install festival flite` and those in `PACKAGES`. They are needed to train the acoustic model, not to use it.
"""

from __future__ import annotations

import shutil
import subprocess
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avface.errors import AvfaceError
from avface.files.temporary import temporary_folder
from avface.synthetic.performance.espeak import Phoneme, Speech

PACKAGES = (
    "festvox-kallpc16k", "festvox-kdlpc16k", "festvox-czech-dita", "festvox-czech-krb", "festvox-czech-machac",
    "festvox-czech-ph", "festvox-italp16k", "festvox-itapc16k", "festvox-suopuhe-lj", "festvox-suopuhe-mv", 
    "festvox-hi-nsk", "festvox-te-nsk", "festvox-ru",
)  # fmt: skip
"""Debian packages of Festival's voices."""


@dataclass(frozen=True)
class RecordedVoice:
    """A voice, its language and phone names."""

    name: str
    """Name in the program."""
    program: str
    """"festival" or "flite"."""
    language: str
    """Language of its text (`spoken_text.sentences`)."""
    alphabet: str
    """Names of its phones: a key of `ALPHABETS`."""


VOICES = (
    RecordedVoice("kal_diphone", "festival", "en", "radio"),
    RecordedVoice("awb", "flite", "en", "radio"),
    RecordedVoice("rms", "flite", "en", "radio"),
    RecordedVoice("slt", "flite", "en", "radio"),
    RecordedVoice("czech_dita", "festival", "cs", "czech"),
    RecordedVoice("czech_krb", "festival", "cs", "czech"),
    RecordedVoice("czech_machac", "festival", "cs", "czech"),
    RecordedVoice("czech_ph", "festival", "cs", "czech"),
    RecordedVoice("lp_diphone", "festival", "it", "italian"),
    RecordedVoice("suo_fi_lj_diphone", "festival", "fi", "finnish"),
    RecordedVoice("hy_fi_mv_diphone", "festival", "fi", "finnish"),
    RecordedVoice("hindi_NSK_diphone", "festival", "hi", "indian"),
    RecordedVoice("msu_ru_nsh_clunits", "festival", "ru", "russian"),
)
"""Voices for training."""
HELD_OUT_VOICES = (
    RecordedVoice("ked_diphone", "festival", "en", "radio"),
    RecordedVoice("pc_diphone", "festival", "it", "italian"),
)
"""Voices that are held out for testing: an American man, an Italian woman."""


def _alphabet(names: str) -> dict[str, str]:
    return dict(pair.split(":", 1) for pair in names.split())


_VOWELS = "a:a e:ɛ i:i o:o u:u"
ALPHABETS: dict[str, dict[str, str]] = {
    "radio": _alphabet(
        "aa:ɑ ae:æ ah:ʌ ao:ɔ aw:aʊ ax:ə axr:ɚ ay:aɪ b:b ch:tʃ d:d dh:ð dx:ɾ eh:ɛ el:l em:m en:n er:ɝ ey:eɪ f:f "
        "g:ɡ hh:h "
        "hv:h ih:ɪ iy:i jh:dʒ k:k l:l m:m n:n nx:ŋ ng:ŋ ow:oʊ oy:ɔɪ p:p r:ɹ s:s sh:ʃ t:t th:θ uh:ʊ uw:u v:v "
        "w:w y:j z:z zh:ʒ"
    ),
    "czech": _alphabet(
        f"{_VOWELS} b:b c:ts ch:x d:d dz:dz f:f g:ɡ h:h j:j k:k l:l m:m n:n n*:ŋ p:p r:r s:s t:t v:v z:z "
        "c~:tʃ d~:ɟ dz~:dʒ n~:ɲ r~:r r~*:r s~:ʃ t~:c z~:ʒ"
    ),
    "italian": _alphabet(
        "i:i e:e E:ɛ a:a o:o O:ɔ u:u j:j w:w p:p t:t k:k b:b d:d g:ɡ f:f s:s S:ʃ v:v z:z Z:ʒ ts:ts tS:tʃ dz:dz dZ:dʒ "
        "m:m n:n J:ɲ ng:ŋ nf:ɱ l:l L:ʎ r:r"
    ),
    "finnish": _alphabet(
        "a:ɑ e:e i:i o:o u:u y:y @:æ 7:ø &:ə p:p t:t k:k b:b d:d g:ɡ f:f T:θ D:ð s:s z:z S:ʃ Z:ʒ h:h v:ʋ m:m n:n N:ŋ "
        "l:l L:ʎ r:r j:j w:w"
    ),
    "indian": _alphabet(
        "a:ə aa:a ih:ɪ iy:i uh:ʊ uw:u eh:e ee:e ay:æ oh:o oo:o aw:ɔ f:f k:k g:ɡ ch:tʃ T:ʈ D:ɖ N:ɳ th:t dh:d "
        "n:n p:p b:b "
        "m:m y:j r:r l:l v:ʋ L:ɭ R:ɽ s:s sh:ʃ j:dʒ h:h ksh:kʃ sri:ʃri x:x kh:k gh:ɡ td:ʈ tth:ʈ ddh:ɖ bh:b zh:ɻ @:ə w:w"
    ),
    "russian": _alphabet(
        "ii:i yy:ɨ uu:u ee:e oo:o aa:a a:ʌ e:e i:ɪ y:ɨ u:ʊ ae:ɪ ay:ə ur:ʊ p:p b:b t:t d:d k:k g:ɡ c:ts ch:tɕ "
        "f:f v:v s:s z:z "
        "sh:ʂ sch:ɕ zh:ʐ h:x m:m n:n l:l r:r j:j"
    ),
}  # fmt: skip
"""IPA of each phone name. Marks of stress and length, and doubled letters (palatalised), are ignored."""
_PAUSES = ("pau", "#", "##", "_", "h#", "brth", "SIL", "ssil")

_SCRIPT = """
(define (say text out)
  (set! said (eval (list 'Utterance 'Text text)))
  (utt.synth said)
  (utt.save.segs said (string-append out ".lab"))
  (utt.save.wave said (string-append out ".wav") 'riff))
"""


def speak_recorded(voice: RecordedVoice, texts: list[str], stretch: float = 1.0) -> list[Speech]:
    """Texts spoken by a voice; those that it can't speak are left out.

    stretch: factor on the duration of the phones.

    Raises:
        AvfaceError: if the program or the voice is missing.
    """
    if shutil.which(voice.program) is None:
        raise AvfaceError(f"{voice.program}: not found; install it (Debian: apt install festival flite)")
    with temporary_folder() as folder:
        spoken = (_festival if voice.program == "festival" else _flite)(voice, texts, stretch, Path(folder))
    if not spoken:
        packages = " ".join(PACKAGES)
        raise AvfaceError(
            f"{voice.program}: no voice {voice.name}; install its voices (Debian: apt install {packages})"
        )
    return spoken


def _festival(voice: RecordedVoice, texts: list[str], stretch: float, folder: Path) -> list[Speech]:
    """All texts in one process, which loads the voice once."""
    quoted = [text.replace("\\", "").replace('"', "") for text in texts]
    script = folder / "script.scm"
    orders = [f'(unwind-protect (say "{text}" "{folder}/{index}") nil)' for index, text in enumerate(quoted)]
    script.write_text(
        "\n".join(
            [f"(voice_{voice.name})", f"(Parameter.set 'Duration_Stretch {stretch:.3f})", _SCRIPT, *orders]
        ),
        encoding="utf-8",
    )
    subprocess.run(["festival", "-b", str(script)], capture_output=True, check=False, timeout=600)
    spoken = []
    for index in range(len(texts)):
        labels, sound = folder / f"{index}.lab", folder / f"{index}.wav"
        if not (labels.exists() and sound.exists() and sound.stat().st_size > 1000):
            continue
        rows = [line.split() for line in labels.read_text("latin-1").splitlines()[1:] if line.strip()]
        spoken.append(
            _speech(sound, [(row[2], float(row[0])) for row in rows if len(row) > 2], voice.alphabet)
        )
    return spoken


def _flite(voice: RecordedVoice, texts: list[str], stretch: float, folder: Path) -> list[Speech]:
    spoken = []
    sound = folder / "said.wav"
    for text in texts:
        done = subprocess.run(
            ["flite", "-voice", voice.name, "--setf", f"duration_stretch={stretch:.3f}", "-psdur", "-t", text,
             "-o", str(sound)],
            capture_output=True, check=False, text=True, timeout=60,
        )  # fmt: skip
        ends = [pair.rsplit(":", 1) for pair in done.stdout.split()]
        if done.returncode == 0 and ends and sound.exists():
            spoken.append(_speech(sound, [(name, float(end)) for name, end in ends], voice.alphabet))
    return spoken


def _speech(sound: Path, ends: list[tuple[str, float]], alphabet: str) -> Speech:
    """Read a sound file; `ends` are names and end times of the phones, in seconds."""
    with wave.open(str(sound)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
        rate = file.getframerate()
    starts = [0.0, *(end for _, end in ends[:-1])]
    phonemes = tuple(
        Phoneme(_ipa(name, alphabet), start) for (name, _), start in zip(ends, starts, strict=True)
    )
    return Speech(samples, rate, phonemes)


def _ipa(name: str, alphabet: str) -> str:
    """IPA of a phone; "" (silence) for pauses and unknown names."""
    phones = ALPHABETS[alphabet]
    if name in _PAUSES:
        return ""
    bare = name.rstrip("1:0")
    for spelling in (name, bare, bare[: len(bare) // 2]):  # "pp" is a palatalised "p"
        if spelling in phones:
            return phones[spelling]
    return ""
