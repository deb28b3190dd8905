"""Results of `reconstruct`: videos and their folders, files one by one, and what an earlier run has completed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avface.cli.arguments import Outcome
from avface.cli.streams import complain, written_out
from avface.cli.terminal import Bars, printable
from avface.errors import AvfaceError

if TYPE_CHECKING:
    from avface.capture import Capture


@dataclass(frozen=True)
class Job:
    """A video and the folder of its results."""

    video: Path
    """The video."""
    folder: Path
    """The folder, which need not exist."""


def find_jobs(paths: Sequence[Path], output: Path | None) -> tuple[list[Job], bool]:
    """The jobs of videos and folders of videos, and whether there are several: then `output` holds a folder for each.

    The videos of a folder are those directly in it with the suffix of a video, by name. Results of a single video go
    to `output`, all others to the video's name with "-avface", in `output` or the current folder. A video named twice
    is one job.

    Raises:
        AvfaceError: if there is no path, a folder without videos, or two videos whose results would go to one folder.
    """
    if not paths:
        raise AvfaceError("name at least one video, or a folder of videos")
    several = len(paths) > 1 or os.path.isdir(paths[0])  # not Path.is_dir, which raises where it may not look
    jobs: dict[str, Job] = {}
    for video in _videos(paths):
        name = f"{video.stem}-avface"
        folder = output / name if several and output else output or Path(name)
        jobs.setdefault(os.path.realpath(video), Job(video, folder))
    by_folder: dict[Path, Path] = {}
    for job in jobs.values():
        other = by_folder.setdefault(job.folder, job.video)
        if other != job.video:
            raise AvfaceError(
                f"{job.video}: has the name of {other}, so that {job.folder} would hold the results of both; "
                "reconstruct them one by one, each with its own -o"
            )
    return list(jobs.values()), several


def _videos(paths: Sequence[Path]) -> Iterator[Path]:
    from avface.media import VIDEO_SUFFIXES

    for path in paths:
        if not os.path.isdir(path):
            yield path
            continue
        try:
            found = sorted(
                each
                for each in path.iterdir()
                if each.suffix.lower() in VIDEO_SUFFIXES and not each.name.startswith(".") and each.is_file()
            )
        except OSError as error:
            raise AvfaceError(f"{path}: can't be read ({error.strerror}); choose another folder") from None
        if not found:
            raise AvfaceError(f"{path}: has no videos; name one, or a folder that holds some directly")
        yield from found


@contextlib.contextmanager
def results_folder(folder: Path) -> Iterator[None]:
    """Create a folder for the block to write files to; those that are complete stay, whatever happens to the rest.

    After an exception, folders created here that are empty don't remain.

    Raises:
        AvfaceError: if the folder or a file can't be written.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException as error:
        for place in missing:
            with contextlib.suppress(OSError):
                place.rmdir()
        if isinstance(error, OSError):
            raise AvfaceError(f"{folder}: can't be written ({error.strerror or error})") from None
        raise


def completed_capture(
    job: Job, head: str, stages: Sequence[str], audio_track: int | None = None, rotate: int = 0
) -> Capture | None:
    """The capture that an earlier run has written, if it has this video, head, sound, rotation and stages; else None.

    A video that has changed since has no complete capture.
    """
    from avface.capture import Capture
    from avface.stages import find_stages

    path = job.folder / "capture.npz"
    try:
        if path.stat().st_mtime_ns < job.video.stat().st_mtime_ns:
            return None
        capture = Capture.load(path)
        source = Path(capture.source)
        same = source.samefile(job.video) if source.exists() else source.name == job.video.name
    except (AvfaceError, OSError):
        return None
    done = {layer.stage for layer in capture.layers}
    wanted = {kind.name: kind.needs_audio for kind in find_stages(stages) if kind.name != "coarse"}
    missing = [name for name, needs_audio in wanted.items() if name not in done and not needs_audio]
    same = same and audio_track in (None, capture.audio_track) and rotate == capture.rotate
    if not same or missing or not done <= set(wanted) or not _same_head(capture.head, head):
        return None
    return capture


def _same_head(one: str, other: str) -> bool:
    """Whether two heads, by name or path, are the same file."""
    from avface.head.asset import find_head

    try:
        return one == other or find_head(one).samefile(find_head(other))
    except (AvfaceError, OSError):
        return False


def completed_files(folder: Path, names: Sequence[str]) -> list[str]:
    """Those of the names that a folder has since its capture.npz was written."""

    def age(name: str) -> int:
        try:
            return (folder / name).stat().st_mtime_ns
        except OSError:
            return -1

    begin = age("capture.npz")
    return [name for name in names if begin >= 0 and age(name) >= begin]


@dataclass
class BatchReport:
    """One line for each of several videos when it is done, and their outcome as a whole."""

    silent: bool
    """Whether only errors are printed; none with JSON, which has them in its object."""
    json: bool
    """Whether the outcome is printed as JSON."""
    facts: list[dict[str, Any]] = field(default_factory=list)
    """Of each video; with the key "error" where it failed."""

    def done(self, video: Path, outcome: Outcome, bars: Bars) -> None:
        """Add a video that is complete."""
        self.facts.append(outcome.facts)
        bars.restart()
        if not self.silent:
            with written_out():
                print(printable(f"{video}: {outcome.text.splitlines()[0]}"))

    def failed(self, video: Path, message: str, bars: Bars) -> None:
        """Add a video that can't be used."""
        self.facts.append({"video": str(video), "error": message})
        bars.restart()
        if not self.json:
            complain(f"avface: error: {printable(message)}")

    def outcome(self, code: int) -> Outcome:
        """What the verb prints at the end; its exit code is `code` where a video failed."""
        failed = [each["video"] for each in self.facts if "error" in each]
        skipped = sum(bool(each.get("skipped")) for each in self.facts)
        done = len(self.facts) - len(failed) - skipped
        parts = [f"{done} of {len(self.facts)} videos reconstructed"]
        if skipped:
            parts.append(f"{skipped} complete before")
        if failed:
            parts.append(f"{len(failed)} failed: {', '.join(failed)}")
        facts = {"videos": self.facts, "reconstructed": done, "skipped": skipped, "failed": len(failed)}
        return Outcome("; ".join(parts), facts, code=code if failed else 0)
