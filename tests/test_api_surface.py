"""What users import, type and read keeps its names: modules, `Capture`, verbs and options, exporters, file keys.

tests/data/api_surface.txt is what it was. After a change that is meant:

    python tests/test_api_surface.py

writes it anew; say the change in CHANGELOG.md.
"""

import ast
import contextlib
import dataclasses
import difflib
import functools
import importlib
import inspect
import io
import os
import re
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from unittest import mock

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
STORED = HERE / "data" / "api_surface.txt"
MODULES = (
    "avface",
    "avface.capture",
    "avface.head",
    "avface.media",
    "avface.tracking",
    "avface.solve",
    "avface.speech",
    "avface.data",
    "avface.evaluation",
)
ONE_COLUMN = "129"
"""Columns of the terminal; a wider one has several boxes of options side by side."""
SPECIAL = ("__len__", "__getitem__", "__iter__", "__call__", "__enter__", "__exit__")


def surface():
    """The public surface as lines of text."""
    lines = []
    for name in MODULES:
        lines += [f"[{name}]", *module_lines(importlib.import_module(name)), ""]
    lines += ["[exporters]", *exporter_lines(), "", "[keys of capture files]", *capture_keys(), ""]
    return [*lines, "[command line]", *command_lines()]


# Modules


def module_lines(module):
    names = getattr(module, "__all__", None) or top_level_names(module)
    for name in sorted(names):
        yield from named_lines(name, getattr(module, name))


def top_level_names(module):
    """Public names that a module without `__all__` defines."""
    names = set()
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def named_lines(name, value):
    if inspect.isclass(value):
        yield f"class {name}({', '.join(base.__name__ for base in value.__bases__ if base is not object)})"
        yield from (f"    {line}" for line in class_lines(value))
    elif callable(value) and hasattr(value, "__code__"):
        yield f"{name}{signature(value)}"
    elif isinstance(value, str | int | float | tuple):
        yield f"{name} = {default(value)}"
    else:
        yield f"{name}: {value if 'typing' in str(value) or ' | ' in str(value) else type(value).__name__}"


def class_lines(cls):
    """Fields with their defaults in order; then properties and methods of avface's own classes, by name."""
    if dataclasses.is_dataclass(cls):
        for item in dataclasses.fields(cls):
            if not item.name.startswith("_"):
                yield f"{item.name}: {item.type}{field_default(item)}"
    elif "__init__" in vars(cls):
        yield f"__init__{signature(cls.__init__)}"
    members = {}
    for base in reversed(cls.__mro__):
        if base.__module__.split(".")[0] == "avface":
            members |= vars(base)
    for name, member in sorted(members.items()):
        if name.startswith("_") and name not in SPECIAL:
            continue
        if isinstance(member, property | functools.cached_property):
            getter = member.fget if isinstance(member, property) else member.func
            yield f"{name} -> {getter.__annotations__.get('return')}"
        elif isinstance(member, staticmethod | classmethod):
            yield f"{type(member).__name__} {name}{signature(member.__func__)}"
        elif inspect.isfunction(member):
            yield f"{name}{signature(member)}"


def signature(function):
    """Of a function, with defaults that are the same on every machine."""
    parts, star = [], False
    found = inspect.signature(function)
    for item in found.parameters.values():
        if item.kind is item.KEYWORD_ONLY and not star:
            parts.append("*")
        star |= item.kind in (item.KEYWORD_ONLY, item.VAR_POSITIONAL)
        stars = {item.VAR_POSITIONAL: "*", item.VAR_KEYWORD: "**"}.get(item.kind, "")
        kind = "" if item.annotation is item.empty else f": {item.annotation}"
        value = "" if item.default is item.empty else f" = {default(item.default)}"
        parts.append(f"{stars}{item.name}{kind}{value}")
    back = "" if found.return_annotation is found.empty else f" -> {found.return_annotation}"
    return f"({', '.join(parts)}){back}"


def field_default(item):
    if item.default is not dataclasses.MISSING:
        return f" = {default(item.default)}"
    return " = ..." if item.default_factory is not dataclasses.MISSING else ""


def default(value):
    if isinstance(value, Path):
        return portable(str(value))
    if value is None or isinstance(value, str | int | float | bool | tuple):
        text = repr(value)
        return text if len(text) < 200 else f"{type(value).__name__} of {len(value)}"
    return "..." if inspect.isfunction(value) else f"{type(value).__name__}(...)"


def portable(text):
    return text.replace(f"{ROOT}{os.sep}", "").replace(os.sep, "/")


# Files


def exporter_lines():
    entries = {entry.name: entry for entry in metadata.entry_points(group="avface.exporters")}
    for suffix, entry in sorted(entries.items()):
        yield f".{suffix} {entry.value}{signature(entry.load())}"


def capture_keys():
    """Keys of the files of captures with all that a capture can have: type and number of axes."""
    from captures import moving_capture
    from detail_captures import detail_capture
    from lip_captures import lip_capture

    seen = dataclasses.replace(
        moving_capture(), visibility=np.ones((12, 1), np.float32), visibility_regions=("lips",)
    )
    captures = {
        "": moving_capture(),
        "visibility: ": seen,
        "lips: ": lip_capture(),
        "detail: ": detail_capture(),
    }
    known = set()
    for part, capture in captures.items():
        with tempfile.TemporaryDirectory() as folder, np.load(capture.save(f"{folder}/c.npz")) as archive:
            new = {key: archive[key] for key in sorted(set(archive) - known)}
        known |= new.keys()
        for key, values in new.items():
            kind = {"U": "text", "i": "integer"}.get(values.dtype.kind, values.dtype.name)
            yield f"{part}{key}: {kind}, axes {values.ndim}"


# Command line


def command_lines(words=()):
    """Verbs and their options with names, placeholders and defaults, as their help shows them."""
    texts = list(help_rows(words))
    yield " ".join(["avface", *words])
    yield from (f"    {row}" for kind, row in texts if kind == "option")
    for kind, row in texts:
        if kind == "verb":
            yield from command_lines((*words, row))


def help_rows(words):
    from avface.cli import main

    printed = io.TextIOWrapper(io.BytesIO(), "utf-8")
    with mock.patch.dict(os.environ, COLUMNS=ONE_COLUMN), contextlib.redirect_stdout(printed):
        assert main([*words, "--help"]) == 0
        printed.flush()
    return box_rows(printed.buffer.getvalue().decode().splitlines())


def box_rows(lines):
    """(kind, text) of the verbs and options in the boxes of a help text whose explanations may have several lines."""
    rows, explained = [], []
    for line in lines:
        if not line.startswith("│ "):
            continue
        first, _, rest = line.removeprefix("│ ").rstrip(" │").partition("  ")
        if verb := re.match(r"│\s+• (\S+)", line):
            rows.append(("verb", verb[1], []))
        elif re.match(r"-|[A-Z\[{]+\b[^a-z]*$", first):
            explained = [rest.strip()]
            rows.append(("option", first, explained))
        elif line.startswith("│  "):
            explained.append(line.strip("│ "))
        else:
            explained = []  # the description of a box
    for kind, name, texts in rows:
        value = re.search(
            r"\((?:default: .*?|required|sets: .*?|optional|repeatable)\)", portable(" ".join(texts))
        )
        if "--help" not in name:
            yield kind, f"{name}{f' {value[0]}' if value else ''}"


# Tests


def difference(stored, found):
    """What changed, and what to do; None if nothing did."""
    changes = [line for line in difflib.unified_diff(stored, found, "before", "now", lineterm="", n=2)]
    if not changes:
        return None
    return "\n".join(
        [
            "the public surface changed:",
            *changes,
            "If that is meant, run `python tests/test_api_surface.py`, which stores the new one in "
            "tests/data/api_surface.txt, and say the change in CHANGELOG.md.",
        ]
    )


def test_the_public_surface_is_the_stored_one():
    found = difference(STORED.read_text(encoding="utf-8").splitlines(), surface())
    assert found is None, found


HELP = """
usage: avface verb [-h]

╭─ options ──────────────────────────────────────────╮
│ -h, --help  show this help message and exit        │
│ VIDEO       The video. (required)                  │
│ --rate FLOAT                                       │
│             Rows per second of the curves, as many │
│             importers count on. (default:          │
│             60.0)                                  │
│ --plain     Without a value.                       │
╰────────────────────────────────────────────────────╯
╭─ run options ──────────────────────────────────────╮
│ Where and how long. (default: no option)           │
│ ────────────────────────────────────────────────── │
│ --device STR  Where. (default: cpu)                │
╰────────────────────────────────────────────────────╯
╭─ subcommands ──────────────────────────────────────╮
│ (required)                                         │
│   • fast    Soon.                                  │
╰────────────────────────────────────────────────────╯
"""


def test_options_of_a_help_text_have_the_values_of_their_own_explanations():
    assert list(box_rows(HELP.splitlines())) == [
        ("option", "VIDEO (required)"),
        ("option", "--rate FLOAT (default: 60.0)"),
        ("option", "--plain"),
        ("option", "--device STR (default: cpu)"),
        ("verb", "fast"),
    ]


def test_the_options_of_all_boxes_are_listed():
    rows = [row for _, row in help_rows(("train", "lips"))]
    assert any(row.startswith("--steps ") for row in rows), "of the recipe"
    assert any(row.startswith("--device ") for row in rows), "of the run"
    assert all("default" in row for row in rows if row.split()[1:]), "a value is shown for each"


def test_a_changed_surface_says_what_changed_and_what_to_do():
    message = difference(["a()", "b()"], ["a()", "b(size: int)"])
    assert "-b()" in message and "+b(size: int)" in message
    assert "python tests/test_api_surface.py" in message and "CHANGELOG.md" in message
    assert difference(["a()"], ["a()"]) is None


def test_the_surface_holds_names_signatures_defaults_and_members():
    @dataclasses.dataclass
    class Example:
        size: "int" = 3
        names: "tuple[str, ...]" = dataclasses.field(default_factory=tuple)

        def grown(self, by: "int", *, twice: "bool" = False) -> "Example":
            pass

        @property
        def area(self) -> "float":
            pass

        def _own(self):
            pass

    Example.__module__ = "avface.example"
    assert list(named_lines("Example", Example)) == [
        "class Example()",
        "    size: int = 3",
        "    names: tuple[str, ...] = ...",
        "    area -> float",
        "    grown(self, by: int, *, twice: bool = False) -> Example",
    ]


def test_the_surface_covers_what_users_meet():
    stored = STORED.read_text(encoding="utf-8")
    for part in ("[avface.capture]\n", "class Capture()\n", "reconstruct(", "\n.glb ", "\ncapture_version: "):
        assert part in stored, part
    for verb in ("reconstruct", "evaluate clips", "head import", "synthesize"):
        assert f"\navface {verb}\n" in stored, verb
    assert (
        re.search(r"\n    -o DIR, --output DIR\n", stored) and "--head NAME|PATH (default: open)\n" in stored
    )


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    STORED.parent.mkdir(exist_ok=True)
    STORED.write_text("\n".join(surface()) + "\n", encoding="utf-8")
    print(f"{STORED.relative_to(ROOT)} written; say what changed in CHANGELOG.md")
