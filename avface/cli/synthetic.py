"""The verb that makes talking heads with exact truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from avface.cli.arguments import SPOKEN, Flag, Messages, Outcome
from avface.cli.files import check_device, check_folder
from avface.cli.terminal import Bars, listing, sizes

SHEET_CLIPS = 12
"""Clips on the contact sheet, at most."""


@dataclass(frozen=True)
class Synthesize:
    """Make clips of people who don't exist, talking, with everything known about them.

    Writes OUT/clip_000000/clip.mp4 and truth.npz and so on. The same options give the same clips; an interrupted run
    goes on where it stopped, and a larger --clips adds to what is there. To hide parts of faces in a video of your own
    see `avface synthesize occlude VIDEO`. Needs `pip install avface[build]`.
    """

    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """Folder for the clips; made if need be."""
    clips: int = 16
    """How many."""
    seed: int = 0
    """Another seed gives other people, words and scenes."""
    seconds: float = 4.0
    """Length of a clip."""
    size: int = 256
    """Width and height in pixels."""
    frame_rate: float = 25.0
    """Frames a second."""
    occluded: float = 0.0
    """Share of the clips in which something hides a part of the face."""
    preview: Flag = False
    """Also write preview.png, a contact sheet of the first clips."""
    workers: int | None = None
    """Processes; by default one a core."""
    device: Annotated[str, arg(metavar="DEVICE")] = "cpu"
    """Where pictures are rendered: cpu, cuda, cuda:1, ..."""
    messages: Messages = SPOKEN

    def run(self, bars: Bars) -> Outcome:
        """Make what is missing, then say how it went."""
        import time

        from avface.synthetic.clips import VIDEO, SceneConfig, SynthesisConfig, synthesize

        check_folder(self.out)
        check_device(self.device)
        scene = SceneConfig(size=self.size, seconds=self.seconds, frame_rate=self.frame_rate)
        config = SynthesisConfig(seed=self.seed, scene=scene, occluded=self.occluded)
        start, already = time.perf_counter(), 0

        def on_clip(done: int) -> None:
            nonlocal already
            already = already or done
            bars("making clips", done, self.clips)

        made = synthesize(
            self.out, self.clips, config, workers=self.workers, device=self.device, on_clip=on_clip
        )
        seconds = time.perf_counter() - start
        frames, tracked = sum(clip.frames for clip in made), sum(clip.tracked for clip in made)
        written = []
        if self.preview:
            from PIL import Image

            from avface.files import replacing
            from avface.synthetic.contact_sheet import contact_sheet

            with replacing(self.out / "preview.png") as temporary:
                Image.fromarray(contact_sheet([clip.folder / VIDEO for clip in made[:SHEET_CLIPS]])).save(
                    temporary
                )
            written.append(self.out / "preview.png")
        text = (
            f"{len(made)} clips, {frames} frames in {self.out}; {seconds:.1f} s; "
            f"the tracker found the face in {tracked / frames:.1%} of the frames"
        )
        facts = {
            "clips": len(made),
            "frames": frames,
            "tracked_frames": tracked,
            "seconds": round(seconds, 3),
            "written": sizes(written),
        }
        return Outcome("\n".join([text, *([listing(written)] if written else [])]), facts)


@dataclass(frozen=True)
class Occlude:
    """Hide parts of the most prominent face in a video behind hands, cups, phones and more; keep the truth about it.

    Writes occluded.mp4, clean.mp4 (the same video without them, compressed alike), mask.mp4 and truth.npz.
    """

    video: Annotated[Positional[Path], arg(metavar="VIDEO")]
    """The video, of any kind that FFmpeg reads."""
    output: Annotated[Path | None, arg(aliases=("-o",), metavar="DIR", help_behavior_hint="")] = None
    """Folder for the results, made if need be; by default the video's name with "-occluded", in the current folder."""
    seed: int = 0
    """Another seed gives other occluders and motions."""
    kinds: Annotated[tuple[str, ...], arg(metavar="KIND", help_behavior_hint="")] = ()
    """Which occluders: hand, microphone, ...; all if none is named."""
    messages: Messages = SPOKEN

    def run(self, bars: Bars) -> Outcome:
        """Track the face, then draw over it."""
        from avface.media import Clip
        from avface.synthetic.occlusion.occluders.sampling import OCCLUDER_KINDS
        from avface.synthetic.occlusion.video import occlude_video

        folder = self.output or Path(f"{self.video.stem}-occluded")
        check_folder(folder)
        total = Clip.open(self.video).info.frame_count
        made = occlude_video(
            self.video,
            folder,
            self.seed,
            self.kinds or OCCLUDER_KINDS,
            on_frame=lambda stage, done: bars(stage, done, total),
        )
        written = [made.occluded, made.clean, made.mask, made.truth]
        text = (
            f"{made.frames} frames; {made.face_hidden:.0%} of the face and {made.mouth_hidden:.0%} of the mouth "
            f"hidden on average\n{listing(written)}"
        )
        facts = {
            "video": str(self.video),
            "frames": made.frames,
            "face_hidden": made.face_hidden,
            "mouth_hidden": made.mouth_hidden,
            "written": sizes(written),
        }
        return Outcome(text, facts)
