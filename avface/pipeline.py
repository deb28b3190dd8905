"""From a video to a `Capture`: the clip is tracked while the stages load, then the stages run."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avface.capture import Capture
from avface.errors import AvfaceError, AvfaceWarning
from avface.stages import Progress, Request, Stage, StageInputs, corrects_landmarks, find_stages, no_progress

if TYPE_CHECKING:
    from avface.head.model import HeadModel
    from avface.media import Clip
    from avface.solve import SolverConfig


def reconstruct(
    path: str | os.PathLike[str],
    *,
    head: str | Path = "open",
    face: int | tuple[float, float] | None = None,
    focal_length: float | None = None,
    device: str = "cpu",
    audio: bool = True,
    video: bool = True,
    networks: str | Path | None = None,
    stages: Sequence[str] = ("coarse",),
    solver: SolverConfig | None = None,
    progress: Progress = no_progress,
) -> Capture:
    """Reconstruct the head of one person in a video.

    Args:
        path: The video, in any container and codec that FFmpeg reads.
        head: Name or file of a head model.
        face: Whom to follow: None for the most prominent person, N for the N-th next one, or a point (x, y) in pixels
            for whoever is seen there first.
        focal_length: Pixels, if it is known; estimated otherwise.
        device: Torch device of networks and solver.
        audio: Whether to use the sound; without a sound track it makes no difference.
        video: Whether to use the picture of the mouth. Without, lips, jaw and cheeks follow the sound alone; shape,
            pose, eyes and brows still come from the picture.
        networks: Weights of the coarse networks (safetensors) in place of the pretrained ones.
        stages: Which stages run: "coarse" is shape, expression and pose, "lips" refines the lips by sound and picture,
            "detail" estimates the skin's displacement. Lips need sound; both need a head that their network was trained
            for (the open one), and are skipped otherwise.
        solver: Noise and priors of the fit; the defaults suit talking heads.
        progress: Called as the work goes on.

    Returns:
        One row a video frame, nothing dropped; frames without a face are filled in and have confidence 0.

    Raises:
        AvfaceError: if the file can't be read, no face is found, the head is unknown, neither picture nor sound can be
            used, the networks can't be used, or there is no such stage.

    Warns:
        AvfaceWarning: if parts of the video were lost, or it shows the person only between some of its cuts.
    """
    from avface.media import Clip
    from avface.tracking import refine_by_flow, track

    request = Request(
        Path(path), head, face, focal_length, device, audio, video, networks, stages, solver, progress
    )
    kinds = find_stages(stages)
    views = _check_head(head)
    clip = Clip.open(request.path)
    total = clip.info.frame_count
    if not (video or (audio and clip.info.has_audio)):
        lacking = "the video has no sound" if audio else "neither picture nor sound may be used"
        raise AvfaceError(f"{path}: {lacking}; leave out video=False (--no-video)")
    if not (audio and clip.info.has_audio):
        kinds = tuple(kind for kind in kinds if not kind.needs_audio)
    with _loading(request, kinds) as (begin, loaded):
        if not video:
            loaded()  # so that a lack of networks is told before the clip is tracked

        def on_frame(done: int) -> None:
            begin()  # from here on the tracker computes outside Python, which leaves room for imports
            progress("track", done, total)

        try:
            found = track(clip.frames(), face=face, on_frame=on_frame, occlusions=True, views=views)
        except AvfaceError as error:  # the tracker knows frames, but no file
            raise error if str(path) in str(error) else AvfaceError(f"{path}: {error}") from None
        model, running = loaded()
    inputs = StageInputs(request, clip, refine_by_flow(clip.frames(), found), model)
    capture = _unfitted(inputs)
    for stage in running:
        capture = stage.run(capture, inputs)
    _warn_of_losses(clip, capture, request.path)
    return capture


def _check_head(head: str | Path) -> bool:
    """Refuse an unknown head before a video is tracked for it; returns whether corrected landmarks serve it."""
    from avface.head.model import OPEN_NAME, find_head, load_head

    if str(head) == OPEN_NAME:  # better loaded while the tracker works
        return True
    find_head(head)
    return corrects_landmarks(load_head(head))


@contextmanager
def _loading(
    request: Request, kinds: Sequence[type[Stage]]
) -> Iterator[tuple[Callable[[], None], Callable[[], tuple[HeadModel, list[Stage]]]]]:
    """Load the head model and the stages in the background; yields a function that begins it and one that waits."""
    result: dict[str, tuple[HeadModel, list[Stage]]] = {}
    errors: list[BaseException] = []

    def load() -> None:
        try:
            from avface.head import load_head

            model = load_head(request.head)
            stages = [kind.load(model, request) for kind in kinds]
            result["loaded"] = model, [stage for stage in stages if stage is not None]
        except BaseException as error:  # raised in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=load, daemon=True)

    def begin() -> None:
        if thread.ident is None:
            thread.start()
        if errors:  # no need to go on
            raise errors[0]

    def loaded() -> tuple[HeadModel, list[Stage]]:
        begin()
        thread.join()
        begin()
        return result["loaded"]

    try:
        yield begin, loaded
    finally:
        if thread.ident is not None:
            thread.join()


def _unfitted(inputs: StageInputs) -> Capture:
    """The capture before the first stage: the clip and the track's frames, with a mean face at rest."""
    import avface

    track, head = inputs.track, inputs.head
    frames, (width, height) = len(track.times), track.image_size
    return Capture(
        head=str(inputs.request.head),
        shape=np.zeros(head.num_shape, np.float32),
        expression=np.zeros((frames, head.num_expression), np.float32),
        expression_names=head.expression_names,
        rotation=np.zeros((frames, 3), np.float32),
        translation=np.zeros((frames, 3), np.float32),
        joints=np.zeros((frames, head.num_joints, 3), np.float32),
        joint_names=head.joint_names,
        focal_length=inputs.focal_length,
        principal_point=((width - 1) / 2, (height - 1) / 2),
        image_size=(width, height),
        times=np.array(track.times, np.float64),
        confidence=np.array(track.best_confidence, np.float32),
        segment_starts=np.array([segment.start for segment in track.segments], np.int64),
        segment_same_person=np.array([segment.same_person for segment in track.segments], bool),
        source=str(inputs.request.path),
        provenance={"avface": avface.__version__},
    )


def _warn_of_losses(clip: Clip, capture: Capture, path: Path) -> None:
    """Warn of damaged parts of the video, and of shots without the person."""
    if clip.damage is not None and clip.damage.message:
        warnings.warn(clip.damage.message, AvfaceWarning, stacklevel=3)
    others = int((~capture.segment_same_person).sum())
    if others:
        warnings.warn(
            f"{path}: {others} of {len(capture.segment_same_person)} stretches between cuts don't show the chosen "
            "person; their frames have confidence 0. Follow someone else with face=1",
            AvfaceWarning,
            stacklevel=3,
        )
