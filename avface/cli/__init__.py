"""The command line: one dataclass per verb, whose docstrings are its help text.

Verbs import numerical libraries only when they run, so that help and usage errors are printed without delay.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import difflib
import gc
import io
import json
import os
import re
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
from avface.cli.streams import BROKEN_PIPE, ReaderEnded, complain, open_standard_streams, written_out
from avface.cli.synthetic import Occlude, Synthesize
from avface.cli.terminal import Bars, collected_warnings, printable
from avface.cli.termination import Terminated, termination_raises
from avface.cli.train import Train, TrainingCommand, training_parser
from avface.errors import AvfaceError

DESCRIPTION = """From a video of a talking person to an animated 3D head.

avface VERB --help explains a verb, avface --version prints the version."""


USAGE_ERROR, INTERRUPTED = 2, 130
"""Exit codes: of every `AvfaceError` and of wrong arguments; of Ctrl-C, 128 + SIGINT as in shells."""

LIKE = 0.65
"""Likeness in [0, 1] from which a mistyped word is taken for another one."""


Command = (
    Demo
    | Reconstruct
    | Export
    | View
    | Info
    | Evaluate
    | Synthesize
    | Occlude
    | Data
    | Head
    | Train
    | TrainingCommand
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

    0: success. 2: an `AvfaceError` or wrong arguments, reported in one line; of several videos, if any failed.
    130: Ctrl-C. 143, 129: SIGTERM, SIGHUP. 141: the reader of standard output has ended. Other exceptions propagate.
    """
    # Importing the libraries allocates a million long-lived objects; collecting over them repeatedly, and once more at
    # exit, would take most of a second.
    gc.set_threshold(20_000, 20, 20)
    atexit.register(gc.freeze)
    open_standard_streams()
    words = sys.argv[1:] if argv is None else list(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for file names that the terminal can't encode
    as_json = "--json" in words
    try:
        with written_out():
            if words == ["--version"]:
                print(f"avface {__version__}")
                return 0
            command = _parse(words)
        if command is None:
            return 0
        silent = command.messages.quiet or command.messages.json
        with (
            termination_raises(),
            collected_warnings(printed=not silent) as warnings,
            Bars(enabled=not silent) as bars,
        ):
            # In its own context: what a command sets for its thread, such as a folder for temporary files, ends with it
            outcome = contextvars.copy_context().run(command.run, bars)
        with written_out():
            if command.messages.json:
                print(json.dumps({**outcome.facts, "warnings": warnings}))
            elif outcome.is_result or not command.messages.quiet:
                print("\n".join(map(printable, outcome.text.splitlines())))
        return outcome.code
    except AvfaceError as error:
        return _fail(str(error), USAGE_ERROR, as_json)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED, as_json)
    except Terminated as stopped:
        return _fail("terminated", 128 + stopped.number, as_json)
    except (ReaderEnded, BrokenPipeError):
        return BROKEN_PIPE


def _parse(words: Sequence[str]) -> Command | None:
    """The command of the words; None if help was requested and printed.

    Raises:
        AvfaceError: if the words are no valid command; tyro's explanation in one line.
    """
    known = [verb.__metadata__[0].name for verb in VERBS.__args__]
    named = [verb for verb in known if verb != "synthesize-occlude"]  # by users: `synthesize occlude`
    if words[:2] == [
        "synthesize",
        "occlude",
    ]:  # a verb of its own for tyro, since `synthesize` takes a folder at this place
        words = ["synthesize-occlude", *words[2:]]
    if words and not words[0].startswith("-") and words[0] not in known:
        if os.path.isfile(words[0]):
            raise AvfaceError(
                f"{words[0]}: name a verb before the file, such as avface reconstruct or avface info"
            )
        raise AvfaceError(f"{words[0]}: no such verb{meant(words[:1], named)}; use {', '.join(named)}")
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
        prog = prog.replace("synthesize-occlude", "synthesize occlude")
    box = explanation.getvalue()
    sentence = _first_sentence(box)
    if found := re.fullmatch(r"unrecognized or misplaced options: (.*)", sentence):
        words_only = re.sub(r" \(applied to [^)]*\)", ",", found[1]).rstrip(",")
        sentence = f"unrecognized options: {words_only}"
    unknown = sentence.removeprefix("unrecognized options: ").split(", ")
    if unknown[0] != sentence:
        choices = _options(kind, arguments, tuple(config))
        if offered := re.search(r"Available subcommands: ([\w, -]+)", box):
            choices += offered[1].strip().split(", ")
        sentence += meant(unknown, choices)
    raise AvfaceError(f"{sentence}; see {prog} --help")


def _options(kind: Any, words: Sequence[str], config: tuple[Any, ...]) -> list[str]:
    """Names of the options, from the help of the verb that the words begin with."""
    verb: list[str] = []
    for word in words[:2]:
        if word.startswith("-"):
            break
        verb.append(word)
    for length in range(len(verb), -1, -1):  # words after the verb may be files
        text = io.StringIO()
        with (
            contextlib.suppress(SystemExit),
            contextlib.redirect_stdout(text),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            tyro.cli(kind, args=[*verb[:length], "--help"], config=config)
        if options := re.findall(r"--[a-z][a-z-]*", text.getvalue()):
            return options
    return []


def meant(words: Sequence[str], choices: Sequence[str]) -> str:
    """A question about mistyped words, such as " (did you mean --page?)"; empty where nothing is close."""

    def likeness(word: str, choice: str) -> float:
        whole, begun = (
            difflib.SequenceMatcher(None, word, part).ratio() for part in (choice, choice[: len(word) + 1])
        )
        return max(whole, 0.95 * begun)  # long options are often given in part

    ordered = sorted(set(choices))
    best = [(word, max(ordered, key=lambda choice: likeness(word, choice))) for word in words if ordered]
    close = [choice for word, choice in best if likeness(word, choice) >= LIKE]
    return f" (did you mean {', '.join(close)}?)" if close else ""


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
        with contextlib.suppress(AvfaceError, ReaderEnded), written_out():
            print(json.dumps({"error": message}))
    else:
        complain(f"avface: error: {printable(message)}")
    return code
