"""The verbs `synthesize` and `synthesize occlude`: synthetic clips and occluders with exact ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from avface.cli.arguments import PRINT_ALL, Flag, Messages, Outcome, Seed
from avface.cli.files import check_folder
from avface.cli.terminal import Bars, listing, sizes

SHEET_CLIPS = 12
"""Clips on the contact sheet, at most."""


@dataclass(frozen=True)
class Synthesize:
    """Render clips of synthetic talking people with exact ground truth.

    Writes OUT/clip_000000/clip.mp4 and truth.npz and so on. The same options give the same clips; an interrupted run
    resumes where it stopped, and a larger --clips adds clips. To occlude parts of the face in a video of your own
    see `avface synthesize occlude VIDEO`. Needs `pip install avface[build]`.
    """

    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """Folder for the clips; created if missing."""
    clips: int = 16
    """Number of clips."""
    seed: Seed = 0
    """Seed of people, words and scenes."""
    seconds: float = 4.0
    """Duration of a clip."""
    size: int = 256
    """Width and height in pixels."""
    frame_rate: float = 25.0
    """Frames per second."""
    occluded: float = 0.0
    """Share of the clips in which objects occlude a part of the face."""
    preview: Flag = False
    """Also write preview.png, a contact sheet of the first clips."""
    workers: int | None = None
    """Processes; by default one per core."""
    device: Annotated[str, arg(metavar="DEVICE")] = "cpu"
    """Torch device that renders: cpu, cuda, cuda:1, ..."""
    messages: Messages = PRINT_ALL

    def run(self, bars: Bars) -> Outcome:
        """Render the missing clips, then report."""
        import time

        from avface.stages import check_device
        from avface.synthetic.clips import VIDEO, SceneConfig, SynthesisConfig, synthesize

        check_folder(self.out)
        check_device(self.device)
        scene = SceneConfig(size=self.size, seconds=self.seconds, frame_rate=self.frame_rate)
        config = SynthesisConfig(seed=self.seed, scene=scene, occluded=self.occluded)
        start = time.perf_counter()
        clips = synthesize(
            self.out,
            self.clips,
            config,
            workers=self.workers,
            device=self.device,
            on_clip=lambda done: bars("rendering clips", done, self.clips),
        )
        seconds = time.perf_counter() - start
        frames, tracked = sum(clip.frames for clip in clips), sum(clip.tracked for clip in clips)
        written = []
        if self.preview:
            from PIL import Image

            from avface.files import replacing
            from avface.synthetic.contact_sheet import contact_sheet

            with replacing(self.out / "preview.png") as temporary:
                Image.fromarray(contact_sheet([clip.folder / VIDEO for clip in clips[:SHEET_CLIPS]])).save(
                    temporary
                )
            written.append(self.out / "preview.png")
        text = (
            f"{len(clips)} clips, {frames} frames in {self.out}; {seconds:.1f} s; "
            f"the tracker found the face in {tracked / frames:.1%} of the frames"
        )
        facts = {
            "clips": len(clips),
            "frames": frames,
            "tracked_frames": tracked,
            "seconds": round(seconds, 3),
            "written": sizes(written),
        }
        return Outcome("\n".join([text, *([listing(written)] if written else [])]), facts)


@dataclass(frozen=True)
class Occlude:
    """Occlude parts of the most prominent face in a video by hands, cups, phones and more, with ground truth.

    Writes occluded.mp4, clean.mp4 (the same video without occluders, same encoding), mask.mp4 and truth.npz.
    """

    video: Annotated[Positional[Path], arg(metavar="VIDEO")]
    """The video, of any kind that FFmpeg reads."""
    output: Annotated[Path | None, arg(aliases=("-o",), metavar="DIR", help_behavior_hint="")] = None
    """Folder for the results, created if missing; by default the video's name with "-occluded", in the
    current folder."""
    seed: Seed = 0
    """Seed of occluders and their motion."""
    kinds: Annotated[tuple[str, ...], arg(metavar="KIND", help_behavior_hint="")] = ()
    """Kinds of occluder: hand, microphone, ...; all by default."""
    whole_face: bool = False
    """Cover the whole face for 6 to 30 frames at a time, by objects close to the lens that come and go."""
    messages: Messages = PRINT_ALL

    def run(self, bars: Bars) -> Outcome:
        """Track the face, then render the occluders."""
        from avface.media import Clip
        from avface.synthetic.occlusion.occluders.sampling import OCCLUDER_KINDS
        from avface.synthetic.occlusion.plan import OcclusionConfig
        from avface.synthetic.occlusion.video import occlude_video

        folder = self.output or Path(f"{self.video.stem}-occluded")
        check_folder(folder)
        total = Clip.open(self.video).info.frame_count
        files = occlude_video(
            self.video,
            folder,
            self.seed,
            self.kinds or OCCLUDER_KINDS,
            config=OcclusionConfig(whole_face=self.whole_face),
            on_frame=lambda stage, done: bars(stage, done, total),
        )
        written = [files.occluded, files.clean, files.mask, files.truth]
        text = (
            f"{files.frames} frames; {1 - files.face_visibility:.0%} of the face and "
            f"{1 - files.mouth_visibility:.0%} of the mouth occluded on average\n{listing(written)}"
        )
        facts = {
            "video": str(self.video),
            "frames": files.frames,
            "face_visibility": files.face_visibility,
            "mouth_visibility": files.mouth_visibility,
            "written": sizes(written),
        }
        return Outcome(text, facts)
