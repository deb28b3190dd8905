"""Verbs about captures: demo, reconstruct, export, view, info."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from avface.cli.arguments import (
    PRINT_ALL,
    Face,
    Flag,
    FrameRange,
    Messages,
    Outcome,
    Pixels,
    StageName,
    Stages,
    Video,
)
from avface.cli.files import atomic_results, check_file, check_folder, refuse_overwriting
from avface.cli.terminal import Bars, listing, share, sizes, table
from avface.errors import AvfaceError, AvfaceWarning

if TYPE_CHECKING:
    from avface.capture import Capture


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
            f"{listing(result.written)}\n{_page_line(result.page, opened)}"
        )
        facts = {
            "error_mm": result.error_mm,
            "rigid_error_mm": result.rigid_error_mm,
            "average_error_mm": result.average_error_mm,
            "frames": len(result.capture),
            "page": str(result.page),
            "written": sizes(result.written),
        }
        return Outcome(text, facts)


@dataclass(frozen=True)
class Reconstruct:
    """Reconstruct the head of one person in a video.

    Writes capture.npz (everything, for the other verbs), head.glb (the animated head) and arkit.csv (the
    ARKit curves; expression.csv for heads with other units, such as FLAME). Files of an earlier run are
    replaced when all new ones are complete.
    """

    video: Annotated[Positional[Path], arg(metavar="VIDEO")]
    """The video, of any kind that FFmpeg reads."""
    output: Annotated[Path | None, arg(aliases=("-o",), metavar="DIR", help_behavior_hint="")] = None
    """Folder for the results, created if missing; by default the video's name with "-avface",
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
    """The person to track: 1 for the second most prominent one and so on, or a point in pixels for the first one
    seen there."""
    focal_length: Pixels = None
    """Focal length of the camera; estimated by default."""
    device: Annotated[str, arg(metavar="DEVICE")] = "cpu"
    """Torch device of networks and solver: cpu, cuda, cuda:1, ..."""
    no_audio: Flag = False
    """Ignore the sound: the face from the picture alone."""
    no_video: Flag = False
    """Ignore the picture of the mouth: lips, jaw and cheeks from the sound alone."""
    networks: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Weights of the coarse networks, such as those of your own training; by default those that come with avface."""
    stages: Stages = ("coarse",)
    """Stages to run: coarse (shape, expression, pose), and if named lips (lip refinement from sound and picture) and
    detail (displacement of the skin): coarse,lips,detail. Both need the head open; lips is skipped without sound."""
    messages: Messages = PRINT_ALL

    def run(self, bars: Bars) -> Outcome:
        """Reconstruct, then write all files or none."""
        import time

        from avface.stages import check_device

        folder = self.output or Path(f"{self.video.stem}-avface")
        names = ["capture.npz", "head.glb", _curves_file(self.head)]
        chosen = {"overlay.mp4": self.overlay, "page.html": self.page, "head.usdc": self.usd}
        names += [name for name, wanted in chosen.items() if wanted]
        check_folder(folder, names)
        for name in names:
            refuse_overwriting(self.video, folder / name)
        check_device(self.device)
        start = time.perf_counter()
        capture = _reconstruct(
            self.video,
            bars,
            head=self.head,
            face=self.face,
            focal_length=self.focal_length,
            device=self.device,
            audio=not self.no_audio,
            video=not self.no_video,
            networks=self.networks,
            stages=self.stages,
        )
        with atomic_results(folder) as temporary:
            for name in names:
                _write(capture, temporary / name, bars)
        seconds = time.perf_counter() - start
        written = [folder / name for name in names]
        seen = int((capture.confidence > 0).sum())
        rate = len(capture) / seconds
        text = (
            f"{len(capture)} frames, face found in {share(seen, len(capture))}; "
            f"{seconds:.1f} s, {rate:.1f} frames/s\n{listing(written)}"
        )
        facts = {
            "video": str(self.video),
            "frames": len(capture),
            "frames_with_face": seen,
            "seconds": round(seconds, 3),
            "frames_per_second": round(rate, 3),
            "written": sizes(written),
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
    """The captured video, if it has moved (.mp4, .html)."""
    frames: FrameRange = None
    """Frames A to B - 1 (.ply, .obj)."""
    stage: StageName = None
    """The last stage that is applied (.ply, .obj, .mp4); by default all, except that meshes are subdivided for detail
    only if it is named here."""
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
        }
        accepted = {path: _options_of(path) for path in self.out}
        for path in self.out:
            check_file(path)
        for name in given:
            if not any(name in options for options in accepted.values()):
                raise AvfaceError(f"{self.out[0]}: {_suffixes(self.out)} takes no --{name}; leave it out")
        capture = _load(capture_file)
        _check_stage(capture, capture_file, self.stage)
        if self.frames is not None and not range(*self.frames.indices(len(capture))):
            raise AvfaceError(
                f"{capture_file}: none of its {len(capture)} frames are in that range; see --frames"
            )
        for path in self.out:
            refuse_overwriting(self.video or Path(capture.source), path)
            if "video" in accepted[path]:
                _check_video(capture, path, self.video)
        written: list[Path] = []
        for path in self.out:
            options = {name: value for name, value in given.items() if name in accepted[path]}
            written += _write(capture, path, bars, **options)
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
    messages: Messages = PRINT_ALL

    def run(self, bars: Bars) -> Outcome:
        """Write the page and open it."""
        if self.output is not None:
            if self.output.suffix.lower() != ".html":
                raise AvfaceError(f"{self.output}: the page needs a name that ends in .html")
            check_file(self.output)
        if self.video is not None:
            _check_readable(self.video)
        existing = _is_capture(self.source)
        capture = _load(_capture_file(self.source)) if existing else _reconstruct(self.source, bars)
        name = f"{Path(capture.source or self.source).stem}.html"
        page = self.output or Path(tempfile.mkdtemp(prefix="avface-")) / name
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
    if not result.is_dir():
        return [result]
    numbers = range(len(capture))[options.get("frames") or slice(None)]
    return [result / f"{path.stem}_{number:06d}{path.suffix}" for number in numbers]


def _options_of(path: Path) -> set[str]:
    """Names of the options of the exporter for a path."""
    import inspect

    from avface.capture import find_exporter

    return set(inspect.signature(find_exporter(path)).parameters)


def _curves_file(head: str) -> str:
    """Name of the file of curves for a head.

    Raises:
        AvfaceError: if the head is unknown or has no embedding of the tracker's landmarks.
    """
    if head == "open":
        return "arkit.csv"
    from avface.export.arkit import is_arkit
    from avface.head import load_head

    model = load_head(head)
    model.embedding("mediapipe478")
    return "arkit.csv" if is_arkit(model.expression_names) else "expression.csv"


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
    return path.suffix.lower() == ".npz" or path.is_dir()


def _capture_file(path: Path) -> Path:
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


def _suffixes(paths: Sequence[Path]) -> str:
    return " and ".join(sorted({path.suffix for path in paths}))
