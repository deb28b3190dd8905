"""`reconstruct`: a clip is tracked while the stages load, then the stages run."""

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
from avface.stages import (
    DEFAULT_STAGES,
    Progress,
    Request,
    Stage,
    StageInputs,
    corrects_landmarks,
    find_stages,
    no_progress,
)
from avface.threads import refuse_after_fork

if TYPE_CHECKING:
    from avface.head.model import HeadModel
    from avface.media import Clip
    from avface.solve import SolverConfig
    from avface.tracking import FaceTrack


def reconstruct(
    path: str | os.PathLike[str],
    *,
    head: str | Path = "open",
    face: int | tuple[float, float] | None = None,
    focal_length: float | None = None,
    device: str = "cpu",
    audio: bool = True,
    audio_track: int | None = None,
    rotate: int = 0,
    video: bool = True,
    networks: str | Path | None = None,
    stages: Sequence[str] = DEFAULT_STAGES,
    solver: SolverConfig | None = None,
    progress: Progress = no_progress,
) -> Capture:
    """Reconstruct the head of one person in a video.

    Args:
        path: The video, in any container and codec that FFmpeg reads.
        head: Name or file of a head model.
        face: The person to track: None for the most prominent one, N for the N-th next one, or a point (x, y) in pixels
            for the first one seen there.
        focal_length: Pixels; estimated by default.
        device: Torch device of networks and solver.
        audio: Whether to use the sound, if there is any that can be decoded.
        audio_track: Number of the sound track, from 0; by default the first one, or the loudest where that is silent.
        rotate: Degrees clockwise (0, 90, 180, 270) by which the pictures are turned, in addition to the rotation that
            the file states. Points, sizes and the camera of the capture are those of the turned pictures.
        video: Whether to use the picture of the mouth. If not, lips, jaw and cheeks are predicted from sound alone;
            shape, pose, eyes and brows are still fitted to the picture.
        networks: Weights of the coarse networks (safetensors) in place of the pretrained ones.
        stages: Names of the stages to run: "coarse" fits shape, expression and pose, "lips" refines the lips by sound
            and picture, "detail", which isn't run by default, estimates the skin's displacement. Lips need sound; both
            need a head that their network was trained for (the open one). They are skipped otherwise.
        solver: Noise model and priors of the fit.
        progress: Called with (name, frames done, total frames or None).

    Returns:
        One row per video frame; frames without a face are filled in by the priors and have confidence 0.

    Raises:
        AvfaceError: if the file can't be read, no face is found, an argument can't be used, neither picture nor sound
            may be used, or this process was forked from one that had used avface (start processes by spawn).

    Warns:
        AvfaceWarning: if parts of the video were lost, its size changes, its sound can't be used or another track than
            the first one is used by default, or some of its shots don't show the person.
    """
    from avface.media import Clip
    from avface.tracking import refine_by_flow, track

    request = Request(
        path=Path(path),
        head=head,
        face=face,
        focal_length=focal_length,
        device=device,
        audio=audio,
        audio_track=audio_track,
        rotate=rotate,
        video=video,
        networks=networks,
        stages=stages,
        solver=solver,
        progress=progress,
    )
    kinds = find_stages(stages)
    refuse_after_fork()
    views = _check_head(head)
    clip = Clip.open(request.path, audio_track if audio else None, rotate)
    request.check_size(clip.info.width, clip.info.height)
    total = clip.info.frame_count
    if not (video or (audio and clip.info.has_audio)):
        lacking = "the video has no sound" if audio else "neither picture nor sound may be used"
        raise AvfaceError(f"{path}: {lacking}; leave out video=False (--no-video)")
    if not (audio and clip.info.has_audio):
        kinds = tuple(kind for kind in kinds if not kind.needs_audio)
    with _loading(request, kinds) as (begin, loaded):
        if not video or networks is not None:
            loaded()  # unusable networks are refused before the clip is tracked

        def on_frame(done: int) -> None:
            begin()  # after its first frame MediaPipe computes outside the GIL, which leaves time for imports
            progress("track", done, total)

        try:
            found = track(clip.frames(), face=face, on_frame=on_frame, occlusions=True, pictures=views)
        except AvfaceError as error:  # the tracker doesn't know the path
            raise error if str(path) in str(error) else AvfaceError(f"{path}: {error}") from None
        model, running = loaded()
    inputs = StageInputs(request, clip, refine_by_flow(clip.frames(), found), model)
    capture = _unfitted(inputs)
    for stage in running:
        capture = stage.run(capture, inputs)
    for remark in (*clip.remarks, *([clip.sound_remark] if audio and clip.sound_remark else [])):
        warnings.warn(remark, AvfaceWarning, stacklevel=2)
    _warn_of_gaps(clip, capture, found, request.path)
    return capture


def _check_head(head: str | Path) -> bool:
    """Whether landmarks are corrected for a head.

    Raises:
        AvfaceError: if the head is unknown or has no embedding of the tracker's landmarks.
    """
    from avface.head.asset import find_head, load_head
    from avface.open_head import OPEN_NAME

    if str(head) == OPEN_NAME:  # loaded while the clip is tracked
        return True
    find_head(head)
    model = load_head(head)
    model.embedding("mediapipe478")
    return corrects_landmarks(model)


@contextmanager
def _loading(
    request: Request, kinds: Sequence[type[Stage]]
) -> Iterator[tuple[Callable[[], None], Callable[[], tuple[HeadModel, list[Stage]]]]]:
    """Load head model and stages in a background thread; yields a function that starts it and one that waits for it."""
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
        if errors:
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
    """The capture before the first stage: frames and segments of the track, with the mean head at rest."""
    import avface

    track, head = inputs.track, inputs.head
    frames, (width, height) = len(track.times), track.image_size
    used = {"audio_track": str(inputs.clip.info.audio_track)} if inputs.has_audio else {}
    if inputs.request.rotate:
        used["rotate"] = str(inputs.request.rotate)
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
        provenance={"avface": avface.__version__} | used,
        head_digest=head.digest(),
    )


def _who_else(found: FaceTrack) -> str:
    """What can be chosen instead of a person, in words that hold for Python and the command line."""
    other = 1 if found.person == 0 else 0
    if found.people == 1:
        return "Nobody else was found"
    if found.people == 2:
        return f"The other person is face {other}"
    return f"The video shows {found.people} people, face 0 to face {found.people - 1}; this is face {found.person}"


def _warn_of_gaps(clip: Clip, capture: Capture, found: FaceTrack, path: Path) -> None:
    """Warn of damaged parts of the video and of shots without the person."""
    if clip.damage is not None and clip.damage.message:
        warnings.warn(clip.damage.message, AvfaceWarning, stacklevel=3)
    others = int((~capture.segment_same_person).sum())
    if others:
        warnings.warn(
            f"{path}: {others} of {len(capture.segment_same_person)} stretches between cuts don't show the chosen "
            f"person; their frames have confidence 0. {_who_else(found)}",
            AvfaceWarning,
            stacklevel=3,
        )
