"""Types of the verbs' arguments, and the outcome that a verb returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

T = TypeVar("T")


def _parsed(parse: Callable[[str], T], metavar: str) -> PrimitiveConstructorSpec[T]:
    """An argument of one word; `parse` raises ValueError with a message for the user."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: parse(words[0]),
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(value)],
    )


def _parse_face(text: str) -> int | tuple[float, float]:
    try:
        x, comma, y = text.partition(",")
        return (float(x), float(y)) if comma else int(x)
    except ValueError:
        raise ValueError(f"{text!r} is neither a number (0, 1, ...) nor a point X,Y in pixels") from None


def _parse_frames(text: str) -> slice:
    first, colon, end = text.partition(":")
    if not colon or not all(part.isdecimal() or not part for part in (first, end)):
        raise ValueError(f"{text!r} is no range A:B of frames, such as 0:100, 50: or :20")
    return slice(int(first or 0), int(end) if end else None)


def _parse_stages(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def _parse_stage(text: str) -> str:
    from avface.capture import stage_names

    if text not in stage_names():
        raise ValueError(f"{text!r} is no stage; use {', '.join(stage_names())}")
    return text


def _parse_pixels(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number of pixels") from None


def _parse_track(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{text!r} is no sound track; use a whole number from 0")
    return int(text)


def _parse_rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number of frames per second") from None
    return int(rate) if rate.is_integer() else rate


def _parse_seed(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{text!r} is no seed; use a whole number from 0")
    return int(text)


Flag = Annotated[bool, arg(help_behavior_hint="")]


Video = Annotated[Path | None, arg(metavar="VIDEO", help_behavior_hint="")]


Face = Annotated[int | tuple[float, float] | None, _parsed(_parse_face, "N|X,Y"), arg(help_behavior_hint="")]


Pixels = Annotated[float | None, _parsed(_parse_pixels, "PX"), arg(help_behavior_hint="")]


Rotate = Annotated[Literal[0, 90, 180, 270], arg(help_behavior_hint="")]


Track = Annotated[int | None, _parsed(_parse_track, "N"), arg(help_behavior_hint="")]


FrameRate = Annotated[float | None, _parsed(_parse_rate, "N"), arg(help_behavior_hint="")]


Timecode = Annotated[str | None, arg(metavar="HH:MM:SS:FF", help_behavior_hint="")]


Stages = Annotated[tuple[str, ...], _parsed(_parse_stages, "STAGE,..."), arg(help_behavior_hint="")]


StageName = Annotated[str | None, _parsed(_parse_stage, "STAGE"), arg(help_behavior_hint="")]


Seed = Annotated[int, _parsed(_parse_seed, "INT")]


FrameRange = Annotated[slice | None, _parsed(_parse_frames, "A:B"), arg(help_behavior_hint="")]


@dataclass(frozen=True)
class Messages:
    """Output options of every verb."""

    quiet: Flag = False
    """Print only errors and the result that the verb exists to print."""
    json: Flag = False
    """Print one JSON object on stdout and nothing else, errors included: {"error": ...}."""


PRINT_ALL = Messages()
"""The default: text, warnings and progress bars."""


@dataclass(frozen=True)
class Outcome:
    """What a verb prints when it is done."""

    text: str
    """Human-readable."""
    facts: dict[str, Any]
    """The same as JSON values, for --json."""
    is_result: bool = False
    """Whether the text is the verb's result, which --quiet prints too."""
    code: int = 0
    """Exit code of the process."""
