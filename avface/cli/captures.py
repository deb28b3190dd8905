"""Verbs about captures: demo, reconstruct, export, view, info."""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from avface.cli.arguments import (
    PRINT_ALL,
    Face,
    Flag,
    FrameRange,
    FrameRate,
    Messages,
    Outcome,
    Pixels,
    Rotate,
    StageName,
    Stages,
    Timecode,
    Track,
    Video,
)
from avface.cli.files import check_file, check_folder, refuse_overwriting, refuse_results
from avface.cli.results import (
    BatchReport,
    Job,
    completed_capture,
    completed_files,
    find_jobs,
    results_folder,
)
from avface.cli.terminal import Bars, listing, share, sizes, table
from avface.errors import AvfaceError, AvfaceWarning
from avface.files.temporary import lasting_temporary_folder

if TYPE_CHECKING:
    from avface.capture import Capture


CORE_FILES = 3
"""Files that `reconstruct` always writes, first: capture, animated head, curves."""

STRONGEST = 8
"""Expression units that `info` lists."""


@dataclass(frozen=True)
class Demo:
    """Reconstruct a short synthetic clip with known ground truth and report the error.

    The clip comes with avface. Writes what `reconstruct` writes, and a page that shows it.
    """

    output: Annotated[Path, arg(aliases=("-o",), metavar="DIR")] = Path("avface-demo")
    """Folder for the results; created if missing."""
    no_open: Flag = False
    """Print the path of the page instead of opening it in a browser."""
    messages: Messages = PRINT_ALL

    def run(self, bars: Bars) -> Outcome:
        """Run the demo and open its page."""
        from avface.evaluation.demo import run_demo

        check_folder(self.output)
        result = run_demo(self.output, bars)
        opened = not self.no_open and _open_in_browser(result.page)
        text = (
            f"{len(result.capture)} frames; mean error of the face {result.error_mm:.2f} mm after alignment with scale "
            f"({result.rigid_error_mm:.2f} mm rigid; mean head at rest: {result.average_error_mm:.2f} mm)\n"
            f"{result.curves.summary()}\n"
            f"{listing(result.written)}\n{_page_line(result.page, opened)}"
        )
        facts = {
            "error_mm": result.error_mm,
            "rigid_error_mm": result.rigid_error_mm,
            "average_error_mm": result.average_error_mm,
            "curves": result.curves.facts(),
            "frames": len(result.capture),
            "page": str(result.page),
            "written": sizes(result.written),
        }
        return Outcome(text, facts)


@dataclass(frozen=True)
class Reconstruct:
    """Reconstruct the head of one person in a video, or in each of several.

    Writes capture.npz (everything, for the other verbs), head.glb (the animated head) and VIDEO_1_avface.csv (the
    ARKit curves; expression.csv for heads with other units, such as FLAME). Each file appears
    when it is complete, in place of that of an earlier run. A video that can't be used doesn't stop the others.
    """

    videos: Annotated[Positional[tuple[Path, ...]], arg(metavar="VIDEO [VIDEO ...]", help_behavior_hint="")]
    """The video, of any kind that FFmpeg reads; or several, and folders of videos."""
    output: Annotated[Path | None, arg(aliases=("-o",), metavar="DIR", help_behavior_hint="")] = None
    """Folder for the results, created if missing; by default the video's name with "-avface",
    in the current folder. With several videos DIR holds such a folder for each."""
    resume: Flag = False
    """Skip videos whose results an earlier run with the same options has completed, and files that it has."""
    overlay: Flag = False
    """Also write overlay.mp4: the video beside the same video with the head drawn over it."""
    page: Flag = False
    """Also write page.html, which plays video and head side by side in a browser."""
    usd: Flag = False
    """Also write head.usdc, the animated head as USD."""
    head: Annotated[str, arg(metavar="NAME|PATH")] = "open"
    """Head model: a name or a file."""
    face: Face = None
    """The person to track: 1 for the second most prominent one and so on, or a point in pixels for the first one
    seen there."""
    focal_length: Pixels = None
    """Focal length of the camera; estimated by default."""
    device: Annotated[str, arg(metavar="DEVICE")] = "cpu"
    """Torch device of networks and solver: cpu, cuda, cuda:1, ..."""
    no_audio: Flag = False
    """Ignore the sound: the face from the picture alone."""
    audio_track: Track = None
    """Number of the sound track, from 0 (`avface info VIDEO` lists them); by default the first one, or the loudest
    where that is silent."""
    rotate: Rotate = 0
    """Turn the pictures clockwise by these degrees, in addition to the rotation that the file states."""
    no_video: Flag = False
    """Ignore the picture of the mouth: lips, jaw and cheeks from the sound alone."""
    networks: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Weights of the coarse networks, such as those of your own training; by default those that come with avface."""
    stages: Stages = ("coarse", "lips")
    """Stages to run: coarse (shape, expression, pose), lips (lip refinement from sound and picture) and, if it is
    named, detail (displacement of the skin): coarse,lips,detail. Both need the head open; lips is skipped without
    sound."""
    fps: FrameRate = None
    """Constant frame rate of head.glb and head.usdc; by default they have the video's frames at their times."""
    frame_rate: FrameRate = None
    """Rows per second of the curves; by default 60, which their importers count on."""
    start_timecode: Timecode = None
    """Timecode of the curves' first row; by default 00:00:00:00."""
    messages: Messages = PRINT_ALL

    def run(self, bars: Bars) -> Outcome:
        """Check everything, reconstruct, and write each file as soon as it can be."""
        from avface.stages import check_device

        jobs, several = find_jobs(self.videos, self.output)
        sampling = self._sampling()
        names = {job: self._names(job) for job in jobs}
        for job in jobs:
            _check_sampling(job.folder / names[job][2], sampling)
            check_folder(job.folder, names[job])
            for path in (job.folder / name for name in names[job]):
                if path.is_file():
                    for other in jobs:
                        refuse_overwriting(other.video, path)
        check_device(self.device)
        if not several:
            return self._finish(jobs[0], names[jobs[0]], bars)
        report = BatchReport(silent=self.messages.quiet or self.messages.json, json=self.messages.json)
        for job in jobs:
            try:
                outcome = self._finish(job, names[job], bars)
            except AvfaceError as error:
                report.failed(job.video, str(error), bars)
            else:
                report.done(job.video, outcome, bars)
        return report.outcome(code=2)

    def _finish(self, job: Job, names: Sequence[str], bars: Bars) -> Outcome:
        """Reconstruct one video, and write the files of these names that aren't complete yet; core files first."""
        start = time.perf_counter()
        capture = (
            completed_capture(job, self.head, self.stages, self.audio_track, self.rotate)
            if self.resume
            else None
        )
        kept = [] if capture is None else completed_files(job.folder, names)
        facts: dict[str, Any] = {"video": str(job.video)}
        if capture is None:
            capture = _reconstruct(
                job.video,
                bars,
                head=self.head,
                face=self.face,
                focal_length=self.focal_length,
                device=self.device,
                audio=not self.no_audio,
                audio_track=self.audio_track,
                rotate=self.rotate,
                video=not self.no_video,
                networks=self.networks,
                stages=self.stages,
            )
        options = {**self._sampling(), "video": job.video}
        seconds = 0.0
        writing: dict[str, float] = {}
        written = [job.folder / name for name in kept]
        with results_folder(job.folder):
            for name in names:
                if name in kept:
                    continue
                path = job.folder / name
                begin = time.perf_counter()
                written += _write(capture, path, bars, **_accepted(path, options))
                if name not in names[:CORE_FILES]:
                    writing[name] = time.perf_counter() - begin
                else:
                    seconds = time.perf_counter() - start
        seen = int((capture.confidence > 0).sum())
        facts |= {"frames": len(capture), "frames_with_face": seen}
        text = f"{len(capture)} frames, face found in {share(seen, len(capture))}"
        if "capture.npz" not in kept:
            rate = len(capture) / seconds
            text += f"; {seconds:.1f} s, {rate:.1f} frames/s"
            facts |= {"seconds": round(seconds, 3), "frames_per_second": round(rate, 3)}
        else:
            text += "; complete, skipped" if len(kept) == len(names) else "; reconstructed before"
        for name, took in writing.items():
            rate = len(capture) / took
            text += f"; {name}: {took:.1f} s, {rate:.1f} frames/s"
        facts |= {
            "skipped": len(kept) == len(names),
            "writing_seconds": {name: round(took, 3) for name, took in writing.items()},
            "written": sizes(written),
        }
        return Outcome(f"{text}\n{listing(written)}", facts)

    def _names(self, job: Job) -> list[str]:
        """Names of a video's results in the order of writing: `CORE_FILES`, then others, the slowest last."""
        chosen = {"head.usdc": self.usd, "page.html": self.page, "overlay.mp4": self.overlay}
        core = ["capture.npz", "head.glb", _curves_file(self.head, job.video)]
        return core + [name for name, wanted in chosen.items() if wanted]

    def _sampling(self) -> dict[str, float | str]:
        return _sampling(self.fps, self.frame_rate, self.start_timecode)


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
    """The captured video, if it has moved (.mp4, .html)."""
    frames: FrameRange = None
    """Frames A to B - 1 (.ply, .obj)."""
    stage: StageName = None
    """The last stage that is applied (.ply, .obj, .mp4); by default all, except that meshes are subdivided for detail
    only if it is named here."""
    fps: FrameRate = None
    """Constant frame rate (.glb, .usdc, .usda, .ply, .obj); by default the video's frames at their times."""
    frame_rate: FrameRate = None
    """Rows per second (.csv); by default 60, which importers count on."""
    start_timecode: Timecode = None
    """Timecode of the first row (.csv); by default 00:00:00:00."""
    messages: Messages = PRINT_ALL

    def run(self, bars: Bars) -> Outcome:
        """Check all paths and options, then write."""
        capture_file = _capture_file(self.capture)
        if not self.out:
            raise AvfaceError(f"{self.capture}: name at least one file to write, such as head.glb")
        given = {
            name: value
            for name, value in {"video": self.video, "frames": self.frames, "stage": self.stage}.items()
            if value is not None
        } | _sampling(self.fps, self.frame_rate, self.start_timecode)
        accepted = {path: _options_of(path) for path in self.out}
        for path in self.out:
            check_file(path)
        for name in given:
            if not any(name in options for options in accepted.values()):
                option = name.replace("_", "-")
                raise AvfaceError(f"{self.out[0]}: {_suffixes(self.out)} takes no --{option}; leave it out")
        _check_sampling(self.out[0], given)
        capture = _load(capture_file)
        _check_stage(capture, capture_file, self.stage)
        count = _frame_count(capture, self.fps)
        if self.frames is not None and not range(*self.frames.indices(count)):
            raise AvfaceError(f"{capture_file}: none of its {count} frames are in that range; see --frames")
        for path in self.out:
            refuse_overwriting(self.video or Path(capture.source), path)
            if "video" in accepted[path]:
                _check_video(capture, path, self.video)
        written: list[Path] = []
        for path in self.out:
            written += _write(capture, path, bars, **_accepted(path, given))
        return Outcome(listing(written), {"written": sizes(written)})


@dataclass(frozen=True)
class View:
    """Show a capture in the browser: the video beside a head that can be turned.

    A video is reconstructed first.
    """

    source: Annotated[Positional[Path], arg(metavar="CAPTURE|VIDEO")]
    """A capture.npz, the folder that `reconstruct` wrote, or a video."""
    output: Annotated[Path | None, arg(aliases=("-o",), metavar="PAGE", help_behavior_hint="")] = None
    """The .html file to write; a temporary one by default."""
    video: Video = None
    """The captured video, if it has moved."""
    no_open: Flag = False
    """Print the path of the page instead of opening it in a browser."""
    rotate: Rotate = 0
    """Turn the pictures of a video clockwise by these degrees, in addition to the rotation that the file states."""
    messages: Messages = PRINT_ALL

    def run(self, bars: Bars) -> Outcome:
        """Write the page and open it."""
        if self.rotate and _is_capture(self.source):
            raise AvfaceError(
                f"{self.source}: is a capture, of pictures that are already turned; --rotate is for videos"
            )
        if self.output is not None:
            if self.output.suffix.lower() != ".html":
                raise AvfaceError(f"{self.output}: the page needs a name that ends in .html")
            check_file(self.output)
        if self.video is not None:
            _check_readable(self.video)
        existing = _is_capture(self.source)
        capture = (
            _load(_capture_file(self.source))
            if existing
            else _reconstruct(self.source, bars, rotate=self.rotate)
        )
        name = f"{Path(capture.source or self.source).stem}.html"
        page = self.output or lasting_temporary_folder() / name
        try:
            _check_video(capture, page, self.video)
            _write(capture, page, bars, **({} if self.video is None else {"video": self.video}))
        except BaseException:
            if self.output is None:  # a page that is complete stays, for the browser reads it later
                shutil.rmtree(page.parent, ignore_errors=True)
            raise
        opened = not self.no_open and _open_in_browser(page)
        text = str(page) if self.no_open else _page_line(page, opened)
        return Outcome(text, {"page": str(page), "opened": opened}, is_result=True)


@dataclass(frozen=True)
class Info:
    """Describe a capture or a video."""

    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """A capture.npz, the folder that `reconstruct` wrote, or a video."""
    messages: Messages = PRINT_ALL

    def run(self, bars: Bars) -> Outcome:
        """Read and describe."""
        facts = (
            _capture_facts(_load(_capture_file(self.file)))
            if _is_capture(self.file)
            else _video_facts(self.file)
        )
        return Outcome(table(facts), {"file": str(self.file), **facts}, is_result=True)


def _reconstruct(source: Path, bars: Bars, **options: Any) -> Capture:
    """`avface.reconstruct`, with the video's name in every error."""
    from avface.pipeline import reconstruct

    refuse_results(source)
    bars("track", 0, None)
    try:
        return reconstruct(source, progress=bars, **options)
    except AvfaceError as error:
        if str(source) in str(error):
            raise
        raise AvfaceError(f"{source}: {error}") from None


def _write(capture: Capture, path: Path, bars: Bars, **options: Any) -> list[Path]:
    """Write a capture in the format of the suffix; returns the files written."""
    stage = f"writing {path.name}"
    if path.suffix == ".npz":
        bars(stage, 0, None)
        return [capture.save(path)]
    if "on_frame" in _options_of(path):
        options["on_frame"] = bars.each(stage, len(capture))
    else:
        bars(stage, 0, None)
    result = capture.export(path, **options)
    if path.suffix in (".usdc", ".usda"):
        from avface.export.usd import texture_files

        return [result, *(file for file in texture_files(capture, result).values() if file.is_file())]
    if not result.is_dir():
        return [result]
    numbers = range(_frame_count(capture, options.get("fps")))[options.get("frames") or slice(None)]
    return [result / f"{path.stem}_{number:06d}{path.suffix}" for number in numbers]


def _frame_count(capture: Capture, fps: float | None) -> int:
    """Number of frames of a capture, at a constant rate if one is given."""
    from avface.capture.resampling import constant_rate_times

    return len(capture) if fps is None else len(constant_rate_times(capture.times, fps))


def _options_of(path: Path) -> set[str]:
    """Names of the options of the exporter for a path."""
    import inspect

    from avface.capture import find_exporter

    return set(inspect.signature(find_exporter(path)).parameters)


def _accepted(path: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that the exporter for a path takes; none for a capture file."""
    if path.suffix == ".npz":
        return {}
    names = _options_of(path)
    return {name: value for name, value in options.items() if name in names}


def _sampling(
    fps: float | None, frame_rate: float | None, start_timecode: str | None
) -> dict[str, float | str]:
    """Options of exporters about rates, without those that weren't given."""
    named = {"fps": fps, "frame_rate": frame_rate, "start_timecode": start_timecode}
    return {name: value for name, value in named.items() if value is not None}


def _check_sampling(path: Path, options: dict[str, Any]) -> None:
    """Refuse rates and timecodes that can't be written; messages name `path`."""
    from avface.capture.resampling import check_rate
    from avface.export.arkit import FRAME_RATE, START_TIMECODE, check_timing

    if "fps" in options:
        check_rate(options["fps"], f"{path}: frame rate {options['fps']}")
    check_timing(path, options.get("frame_rate", FRAME_RATE), options.get("start_timecode", START_TIMECODE))


def _curves_file(head: str, video: Path) -> str:
    """Name of the file of curves of a video for a head.

    Raises:
        AvfaceError: if the head is unknown or has no embedding of the tracker's landmarks.
    """
    from avface.export.arkit import is_arkit, take_name

    if head == "open":
        return take_name(video)
    from avface.head import load_head

    model = load_head(head)
    model.embedding("mediapipe478")
    return take_name(video) if is_arkit(model.expression_names) else "expression.csv"


def _check_video(capture: Capture, path: Path, video: Path | None) -> None:
    """Check that the captured video can be read. A page without one only has a warning, an overlay is refused."""
    if video is not None:
        _check_readable(video)
        return
    if capture.source and Path(capture.source).is_file():
        return
    missing = f"{path}: the captured video {capture.source or '(without a name)'} doesn't exist"
    if path.suffix.lower() != ".html":
        raise AvfaceError(f"{missing}; give its path with --video")
    warnings.warn(
        f"{missing}, the page shows the head alone; give its path with --video", AvfaceWarning, stacklevel=2
    )


def _check_readable(video: Path) -> None:
    """Refuse a file that isn't a readable video."""
    from avface.media import Clip

    Clip.open(video)


def _check_stage(capture: Capture, path: Path, stage: str | None) -> None:
    """Refuse a stage with a subdivided mesh that the capture doesn't contain."""
    from avface.capture import is_subdivided

    if is_subdivided(stage) and stage not in [layer.stage for layer in capture.layers]:
        raise AvfaceError(f"{path}: no {stage} in it; reconstruct with --stages coarse,{stage}")


def _is_capture(path: Path) -> bool:
    refuse_results(path)
    return path.suffix.lower() == ".npz" or path.is_dir()


def _capture_file(path: Path) -> Path:
    refuse_results(path)
    return path / "capture.npz" if path.is_dir() else path


def _load(path: Path) -> Capture:
    from avface.capture import Capture

    return Capture.load(path)


def _open_in_browser(page: Path) -> bool:
    import webbrowser

    return webbrowser.open(page.resolve().as_uri())


def _page_line(page: Path, opened: bool) -> str:
    return f"{page} is open in the browser" if opened else f"open {page} in a browser"


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
        "sound_late_s": capture.audio_lag,
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
        "pixel_aspect": round(info.pixel_aspect, 4),
        "codec": info.codec,
        "hdr": f"{info.hdr}, tone-mapped" if info.hdr else "no",
        "sound_track_used": "none" if info.audio_track is None else info.audio_track,
        "sound_tracks": [
            {name: value for name, value in asdict(track).items() if value is not None}
            for track in info.audio_tracks
        ],
    }


def _suffixes(paths: Sequence[Path]) -> str:
    return " and ".join(sorted({path.suffix for path in paths}))
