"""From a video to a `Capture`: the one place where the stages meet."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from avface.capture import Capture
from avface.errors import AvfaceError, AvfaceWarning

if TYPE_CHECKING:
    from avface.head.model import HeadModel
    from avface.solve.solver import Fit, SolverConfig
    from avface.tracking import FaceTrack

Progress = Callable[[str, int, "int | None"], None]
"""Told (stage, frames done, frames in all or None) as work goes on; stages are "track" and "solve"."""


def reconstruct(
    path: str | os.PathLike[str],
    *,
    head: str | Path = "open",
    face: int | tuple[float, float] | None = None,
    focal_length: float | None = None,
    device: str = "cpu",
    solver: SolverConfig | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Capture:
    """Reconstruct the head of one person in a video.

    Args:
        path: The video, in any container and codec that FFmpeg reads.
        head: Name or file of a head model.
        face: Whom to follow: None for the most prominent person, N for the N-th next one, or a point (x, y) in pixels
            for whoever is seen there first.
        focal_length: Pixels, if it is known; estimated otherwise.
        device: Torch device of the solver.
        solver: Noise and priors of the fit; the defaults suit talking heads.
        progress: Told about the work as it goes on.

    Returns:
        One row a video frame, nothing dropped; frames without a face are filled in and have confidence 0.

    Raises:
        AvfaceError: if the file can't be read, no face is found, or the head is unknown.

    Warns:
        AvfaceWarning: if parts of the video were lost, or it shows the person only between some of its cuts.
    """
    from avface.media import Clip
    from avface.tracking import track

    if focal_length is not None and not focal_length > 0:
        raise AvfaceError(
            f"focal length {focal_length}: must be above 0 pixels; leave it out to have it estimated"
        )
    _check_head(head)
    clip = Clip.open(Path(path))
    total = clip.info.frame_count
    with _prepared(head) as (prepare, prepared):

        def on_frame(done: int) -> None:
            prepare()  # from here on the tracker computes outside Python, which leaves room for imports
            progress("track", done, total)

        try:
            observed = track(clip.frames(), face=face, on_frame=on_frame)
        except AvfaceError as error:  # the tracker sees frames and knows no file
            raise error if str(path) in str(error) else AvfaceError(f"{path}: {error}") from None
        model = prepared()
    capture = _solve(observed, model, str(head), focal_length, device, solver, progress)
    _warn_of_losses(clip, capture, path)
    return Capture(**{**capture.__dict__, "source": str(path)})


def _check_head(head: str | Path) -> None:
    """Refuse an unknown head before a video is tracked for it."""
    if str(head) != "open":  # which is always there; its room loads slowly, better while the tracker works
        from avface.head.model import find_head

        find_head(head)


@contextmanager
def _prepared(head: str | Path) -> Iterator[tuple[Callable[[], None], Callable[[], HeadModel]]]:
    """Load solver and head model in the background; yields a function that starts it and one that waits for it."""
    result: dict[str, HeadModel | BaseException] = {}

    def load() -> None:
        try:
            import avface.solve  # noqa: F401
            from avface.head import load_head

            result["head"] = load_head(head)
        except BaseException as error:  # handed to the caller's thread
            result["error"] = error

    thread = threading.Thread(target=load, daemon=True)

    def start() -> None:
        if thread.ident is None:
            thread.start()

    def wait() -> HeadModel:
        start()
        thread.join()
        if "error" in result:
            raise result["error"]  # type: ignore[misc]
        return result["head"]  # type: ignore[return-value]

    try:
        yield start, wait
    finally:
        if thread.ident is not None:
            thread.join()


def _solve(
    observed: FaceTrack,
    head: HeadModel,
    head_name: str,
    focal_length: float | None,
    device: str,
    config: SolverConfig | None,
    progress: Progress,
) -> Capture:
    import torch

    import avface
    from avface.geometry.rotations import facing_rotvec
    from avface.solve import Observations, Solver

    frames = len(observed.times)
    segments = np.zeros(frames, np.int64)
    for number, segment in enumerate(observed.segments):
        segments[segment.start : segment.end] = number
    progress("solve", 0, frames)
    solver = Solver(head, observed.image_size, config, focal_length, device)
    done = 0

    def on_frames(more: int) -> None:
        nonlocal done
        done += more
        progress("solve", done, frames)

    fit = solver.fit(
        Observations(observed.landmarks, observed.confidence, observed.times, segments), on_frames
    )
    width, height = observed.image_size
    return Capture(
        head=head_name,
        shape=fit.shape.astype(np.float32),
        expression=fit.expression.astype(np.float32),
        expression_names=head.expression_names,
        rotation=facing_rotvec(torch.as_tensor(fit.rotation)).numpy().astype(np.float32),
        translation=fit.translation.astype(np.float32),
        joints=_joints(head, fit),
        joint_names=head.joint_names,
        focal_length=fit.focal_length,
        principal_point=((width - 1) / 2, (height - 1) / 2),
        image_size=(width, height),
        times=np.array(observed.times, np.float64),
        confidence=np.array(observed.confidence, np.float32),
        landmark_bias=fit.landmark_bias.astype(np.float32),
        segment_starts=np.array([segment.start for segment in observed.segments], np.int64),
        segment_same_person=np.array([segment.same_person for segment in observed.segments], bool),
        provenance={
            "avface": avface.__version__,
            "landmarks": "MediaPipe attention mesh, 478 points",
            "shape, expression, pose": "maximum a posteriori fit to the landmarks",
            "focal length": "given" if focal_length else "estimated",
        },
    )


def _joints(head: HeadModel, fit: Fit) -> npt.NDArray[np.float32]:
    """Joint rotations (T, J, 3): the eyes as they look, everything else at rest."""
    joints = np.zeros((len(fit.gaze), head.num_joints, 3), np.float32)
    eyes = [j for j, name in enumerate(head.joint_names) if name in ("left_eye", "right_eye")]
    joints[:, eyes, :2] = fit.gaze
    return joints


def _warn_of_losses(clip: object, capture: Capture, path: str | os.PathLike[str]) -> None:
    damage = getattr(clip, "damage", None)
    if damage is not None and damage.message:
        warnings.warn(damage.message, AvfaceWarning, stacklevel=3)
    others = int((~capture.segment_same_person).sum())
    if others:
        warnings.warn(
            f"{path}: {others} of {len(capture.segment_same_person)} stretches between cuts don't show the chosen "
            "person; their frames have confidence 0. Follow someone else with face=1",
            AvfaceWarning,
            stacklevel=3,
        )
