"""The command line: one dataclass per verb, whose docstrings are its help text.

Verbs import numerical libraries only when they run, so that help and usage errors are printed without delay.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Union

import tyro
from tyro.conf import subcommand

from avface import __version__
from avface.cli.captures import Demo, Export, Info, Reconstruct, View
from avface.cli.datasets import Data
from avface.cli.evaluation import Evaluate
from avface.cli.heads import Head
from avface.cli.synthetic import Occlude, Synthesize
from avface.cli.terminal import Bars, collected_warnings, printable
from avface.cli.train import Train, TrainingCommand, training_parser
from avface.errors import AvfaceError

DESCRIPTION = """From a video of a talking person to an animated 3D head.

avface VERB --help explains a verb, avface --version prints the version."""


USAGE_ERROR, INTERRUPTED = 2, 130
"""Exit codes: of every `AvfaceError` and of wrong arguments; of Ctrl-C, 128 + SIGINT as in shells."""


Command = (
    Demo | Reconstruct | Export | View | Info | Evaluate | Synthesize | Occlude | Data | Head | Train | TrainingCommand
)


VERBS: Any = Union[  # noqa: UP007 - tyro distinguishes the verbs by their annotations, which | can't hold here
    Annotated[Demo, subcommand("demo")],
    Annotated[Reconstruct, subcommand("reconstruct")],
    Annotated[Export, subcommand("export")],
    Annotated[View, subcommand("view")],
    Annotated[Info, subcommand("info")],
    Annotated[Evaluate, subcommand("evaluate")],
    Annotated[Synthesize, subcommand("synthesize")],
    Annotated[Occlude, subcommand("synthesize-occlude")],
    Annotated[Data, subcommand("data")],
    Annotated[Head, subcommand("head")],
    Annotated[Train, subcommand("train")],
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line, by default the process's own; returns the exit code.

    0: success. 2: an `AvfaceError` or wrong arguments, reported in one line. 130: Ctrl-C. Other exceptions propagate.
    """
    # Importing the libraries allocates a million long-lived objects; collecting over them repeatedly, and once more at
    # exit, would take most of a second.
    gc.set_threshold(20_000, 20, 20)
    atexit.register(gc.freeze)
    words = sys.argv[1:] if argv is None else list(argv)
    if words == ["--version"]:
        print(f"avface {__version__}")
        return 0
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for file names that the terminal can't encode
    as_json = "--json" in words
    try:
        command = _parse(words)
        if command is None:
            return 0
        silent = command.messages.quiet or command.messages.json
        with collected_warnings(printed=not silent) as warnings, Bars(enabled=not silent) as bars:
            outcome = command.run(bars)
        if command.messages.json:
            print(json.dumps({**outcome.facts, "warnings": warnings}))
        elif outcome.is_result or not command.messages.quiet:
            print("\n".join(map(printable, outcome.text.splitlines())))
        return 0
    except AvfaceError as error:
        return _fail(str(error), USAGE_ERROR, as_json)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED, as_json)


def _parse(words: Sequence[str]) -> Command | None:
    """The command of the words; None if help was requested and printed.

    Raises:
        AvfaceError: if the words are no valid command; tyro's explanation in one line.
    """
    known = [verb.__metadata__[0].name for verb in VERBS.__args__]
    if words[:2] == [
        "synthesize",
        "occlude",
    ]:  # a verb of its own for tyro, since `synthesize` takes a folder at this place
        words = ["synthesize-occlude", *words[2:]]
    if words and not words[0].startswith("-") and words[0] not in known:
        raise AvfaceError(f"{words[0]}: no such verb; use {', '.join(known)}")
    kind, prog, description = VERBS, "avface", DESCRIPTION
    config = [tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff]
    arguments = words
    training = training_parser(words)
    if training is None:
        config.append(tyro.conf.OmitArgPrefixes)
    else:
        (kind, description), prog, arguments = training, f"avface train {words[1]}", words[2:]
    explanation = io.StringIO()
    try:
        with contextlib.redirect_stderr(explanation):
            command: Command = tyro.cli(
                kind, prog=prog, description=description, args=arguments, config=tuple(config)
            )
        return command
    except SystemExit as stopped:
        if stopped.code in (0, None):
            return None
    if training is None:
        prog += f" {words[0]}" if words and words[0] in known else ""
    raise AvfaceError(f"{_first_sentence(explanation.getvalue())}; see {prog} --help")


def _first_sentence(box: str) -> str:
    """The first sentence in tyro's box of several lines; deeper indented lines explain single options."""
    parts: list[str] = []
    for line in box.splitlines()[1:]:  # the first holds a title
        content = line[2:].rstrip("│ ")  # left border, text, right border; blanks where there is no UTF-8
        if set(content.strip()) <= set("─-╰╯"):
            if parts:
                break
        elif not content.startswith(" " * 8):
            parts.append(content.strip())
    sentence = " ".join(parts).removeprefix("Error parsing ").rstrip(".") or "wrong arguments"
    return sentence[0].lower() + sentence[1:]


def _fail(message: str, code: int, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": message}))
    else:
        print(f"avface: error: {printable(message)}", file=sys.stderr)
    return code
