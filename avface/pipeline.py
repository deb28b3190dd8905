"""From a video to a `Capture`: the one place where the stages meet."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from avface.arrays import F32
from avface.capture import Capture, Stage
from avface.errors import AvfaceError, AvfaceWarning
from avface.threads import one_thread

if TYPE_CHECKING:
    from avface.head.model import HeadModel
    from avface.media import Clip
    from avface.networks.coarse.inference import ClipPrediction
    from avface.networks.coarse.model import CoarseNetworks
    from avface.networks.detail.refinement import DetailRefinement
    from avface.networks.lips.refinement import LipRefinement
    from avface.solve import Fit, LandmarkCorrections, SolverConfig
    from avface.tracking import FaceTrack

Progress = Callable[[str, int, "int | None"], None]
"""Told (stage, frames done, frames in all or None) as work goes on; stages are "track", "solve", "lips", "detail"."""

BY_EAR = ("lips", "jaw", "cheeks")
"""Regions that follow the sound when nobody looks at them."""


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
    stages: Sequence[Stage] = ("coarse",),
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
        device: Torch device of networks and solver.
        audio: Whether to listen; without a sound track it makes no difference.
        video: Whether to look at the mouth. Without, lips, jaw and cheeks follow the sound alone; shape, pose, eyes and
            brows still come from the picture.
        networks: Weights of the coarse networks (safetensors) in place of those that come with avface.
        stages: How far to go: "coarse" is shape, expression and pose, "lips" refines the lips by sound and picture,
            "detail" finds the folds of the skin. Both are young and have to be asked for. Lips need sound, a head that
            their network knows (the open one) and `audio`; detail needs such a head; without, both are left out.
        solver: Noise and priors of the fit; the defaults suit talking heads.
        progress: Told about the work as it goes on.

    Returns:
        One row a video frame, nothing dropped; frames without a face are filled in and have confidence 0.

    Raises:
        AvfaceError: if the file can't be read, no face is found, the head is unknown, there is nothing to go by without
            picture or sound, the networks can't be used, or there is no such stage.

    Warns:
        AvfaceWarning: if parts of the video were lost, or it shows the person only between some of its cuts.
    """
    from avface.media import Clip
    from avface.tracking import refine_by_flow, track

    if focal_length is not None and not focal_length > 0:
        raise AvfaceError(
            f"focal length {focal_length}: must be above 0 pixels; leave it out to have it estimated"
        )
    _check_head(head)
    _check_stages(stages)
    clip = Clip.open(Path(path))
    total = clip.info.frame_count
    listen = audio and clip.info.has_audio
    if not (video or listen):
        said = "there is no sound to go by" if audio else "neither picture nor sound are to be used"
        raise AvfaceError(f"{path}: {said}; leave out video=False (--no-video)")
    wanted = [stage for stage in stages if stage != "lips" or listen]
    with _prepared(head, networks, device, listen, wanted) as (prepare, prepared):
        if not video and prepared()[1] is None:
            raise AvfaceError(
                f"{path}: there are no networks to hear a mouth move; leave out video=False (--no-video)"
            )

        def on_frame(done: int) -> None:
            prepare()  # from here on the tracker computes outside Python, which leaves room for imports
            progress("track", done, total)

        try:
            observed = track(
                clip.frames(), face=face, on_frame=on_frame, occlusions=True, views=str(head) == "open"
            )
        except AvfaceError as error:  # the tracker sees frames and knows no file
            raise error if str(path) in str(error) else AvfaceError(f"{path}: {error}") from None
        model, predictor, refinement, detail = prepared()
    # Only now: loading them takes time that the tracker leaves.
    from avface.networks.fusion.av_sync import clip_sound_lag, in_step
    from avface.solve import SolverConfig

    expected, lag = None, 0.0
    if listen and video and (predictor is not None or refinement is not None):
        lag = clip_sound_lag(observed, clip.audio_blocks(), device)

    def sound() -> Iterator[F32]:
        return in_step(clip.audio_blocks(), lag)

    focal = focal_length or (solver or SolverConfig()).focal_prior * max(observed.image_size)
    if predictor is not None:
        expected = _predict(predictor, model, observed, sound() if listen else None, focal, video)
    # The networks know how a tracker errs before hidden faces; the solver gets what is seen as the picture moves it.
    followed = refine_by_flow(clip.frames(), observed)
    closer = _correct_landmarks(observed, video)
    capture = _solve(
        followed, closer, expected, model, str(head), focal_length, device, video, solver, progress
    )
    if predictor is not None and expected is not None and video:
        heard = sound() if listen else None
        learned = _adapt_to_clip(predictor, model, observed, heard, focal, expected, capture)
        if learned is not None:
            capture = _solve(
                followed, closer, learned, model, str(head), focal_length, device, video, solver, progress
            )
    if refinement is not None:
        capture = _refine_lips(refinement, capture, sound(), followed, progress)
    if detail is not None:
        capture = _find_detail(detail, capture, clip, followed, sound if listen else None, progress)
    _warn_of_losses(clip, capture, path)
    return replace(capture, source=str(path))


def _check_stages(stages: Sequence[Stage]) -> None:
    """Refuse stages that there aren't."""
    known = get_args(Stage)
    unknown = [stage for stage in stages if stage not in known]
    if unknown or known[0] not in stages:
        said = f"no such stage as {unknown[0]!r}" if unknown else "nothing can be refined without 'coarse'"
        raise AvfaceError(f"stages {','.join(map(str, stages))}: {said}; use coarse or {','.join(known)}")


def _check_head(head: str | Path) -> None:
    """Refuse an unknown head before a video is tracked for it."""
    if str(head) != "open":  # which is always there; its room loads slowly, better while the tracker works
        from avface.head.model import find_head

        find_head(head)


def _load_networks(path: str | Path | None, head: HeadModel, device: str) -> CoarseNetworks | None:
    """The networks for a head: those of a file, or those that come with avface if they are about this head.

    Raises:
        AvfaceError: if the file isn't there or damaged, or about another head.
    """
    from avface.networks.coarse.model import load_networks, pretrained_coarse_networks

    given = None if path is None else load_networks(path).requires_grad_(False).to(device)
    networks = pretrained_coarse_networks(device) if given is None else given
    config = networks.config
    sizes = (config.head, config.code.expression_width, config.code.shape)
    if sizes == (head.name, head.num_expression, head.num_shape):
        return networks
    if path is None:
        return None
    raise AvfaceError(
        f"{path}: networks for the head {config.head} with {sizes[1]} expression units and {sizes[2]} shape "
        f"components, while {head.name} has {head.num_expression} and {head.num_shape}; use that head or other "
        "networks"
    )


Prepared = tuple["HeadModel", "CoarseNetworks | None", "LipRefinement | None", "DetailRefinement | None"]


@contextmanager
def _prepared(
    head: str | Path, networks: str | Path | None, device: str, listen: bool, stages: Sequence[Stage]
) -> Iterator[tuple[Callable[[], None], Callable[[], Prepared]]]:
    """Load solver, head model and the networks of the stages in the background; yields a function that starts it and
    one that waits for it."""
    result: dict[str, Prepared | BaseException] = {}

    def load() -> None:
        try:
            import avface.solve
            from avface.head import load_head

            model = load_head(head)
            predictor = _load_networks(networks, model, device)
            if model.name == "open":
                from avface.networks.landmark_correction import pretrained_landmark_network

                pretrained_landmark_network()
            if predictor is not None:
                import avface.networks.coarse.inference  # noqa: F401
                from avface.speech.acoustic import pretrained_acoustic_model

                if listen:
                    pretrained_acoustic_model(device)
            refinement = detail = None
            if "lips" in stages:
                from avface.networks.lips.refinement import pretrained_lip_refinement

                refinement = pretrained_lip_refinement(model, device)
            if "detail" in stages:
                from avface.networks.detail.refinement import pretrained_detail_refinement

                detail = pretrained_detail_refinement(model, device)
            result["loaded"] = model, predictor, refinement, detail
        except BaseException as error:  # handed to the caller's thread
            result["error"] = error

    thread = threading.Thread(target=load, daemon=True)

    def start() -> None:
        if thread.ident is None:
            thread.start()
        if "error" in result:  # no need to go on
            raise result["error"]  # type: ignore[misc]

    def wait() -> Prepared:
        start()
        thread.join()
        start()
        return result["loaded"]  # type: ignore[return-value]

    try:
        yield start, wait
    finally:
        if thread.ident is not None:
            thread.join()


def _predict(
    networks: CoarseNetworks,
    head: HeadModel,
    observed: FaceTrack,
    sound: Iterable[F32] | None,
    focal_length: float,
    video: bool,
    visibility_limit: F32 | None = None,
) -> ClipPrediction:
    """What the networks expect of the clip."""
    from avface.networks.coarse.inference import predict_clip

    with one_thread():
        return predict_clip(
            networks,
            head.expression_names,
            observed,
            sound,
            focal_length,
            see_expression=video,
            visibility_limit=visibility_limit,
        )


def _adapt_to_clip(
    networks: CoarseNetworks,
    head: HeadModel,
    observed: FaceTrack,
    sound: Iterable[F32] | None,
    focal_length: float,
    expected: ClipPrediction,
    capture: Capture,
) -> ClipPrediction | None:
    """What is expected of a mouth that is hidden at times, as the rest of the clip has it; None if it never is."""
    from avface.networks.fusion.clip_adaptation import adapt_to_clip, lip_visibility, occluded_visibility

    lips = lip_visibility(observed)
    occluded = occluded_visibility(observed, lips)
    if occluded is None:
        return None
    answers = _predict(networks, head, observed, sound, focal_length, True, occluded)
    motion = head.embedding("mediapipe478").on(head.expression_basis.cpu().numpy())
    names = head.expression_names
    return adapt_to_clip(expected, answers, capture.expression, lips, observed.times, names, motion)


def _correct_landmarks(observed: FaceTrack, video: bool) -> LandmarkCorrections | None:
    """How far some frames' landmarks are off what the picture shows, for the person's shape."""
    from avface.networks.fusion.landmark_weights import LandmarkWeights
    from avface.networks.landmark_correction import pretrained_landmark_network
    from avface.solve import LandmarkCorrections

    views = observed.views
    if views is None:
        return None
    weights = LandmarkWeights(observed, None, without=() if video else BY_EAR)
    seen = np.stack([weights[frame] for frame in views.frames.tolist()])
    with one_thread():
        offsets = pretrained_landmark_network().refine(views.pictures, views.landmarks, seen)
    return LandmarkCorrections(views.frames, offsets, seen)


def _solve(
    observed: FaceTrack,
    closer: LandmarkCorrections | None,
    expected: ClipPrediction | None,
    head: HeadModel,
    head_name: str,
    focal_length: float | None,
    device: str,
    video: bool,
    config: SolverConfig | None,
    progress: Progress,
) -> Capture:
    import torch

    import avface
    from avface.geometry.rotations import facing_rotvec
    from avface.networks.fusion.landmark_weights import LandmarkWeights
    from avface.networks.regions import REGIONS
    from avface.solve import Observations, Prediction, Solver

    frames = len(observed.times)
    segments = np.zeros(frames, np.int64)
    for number, segment in enumerate(observed.segments):
        segments[segment.start : segment.end] = number
    on_frames = _counted(progress, "solve", frames)
    solver = Solver(head, observed.image_size, config, focal_length, device)
    weights = None
    if observed.visibility is not None or expected is not None:
        doubt = None if expected is None else expected.landmark_sigma
        weights = LandmarkWeights(observed, doubt, without=() if video else BY_EAR)
    prediction = None
    if expected is not None:
        prediction = Prediction(
            expression=expected.expression,
            expression_sigma=expected.expression_sigma,
            rotation=expected.rotation,
            # The frames of a window err together, so that they count as one; expressions move too fast for that.
            rotation_sigma=expected.rotation_sigma * np.sqrt(expected.window),
            shape=expected.shape,
            shape_sigma=expected.shape_sigma,
        )
    fit = solver.fit(
        Observations(observed.landmarks, observed.confidence, observed.times, segments, weights, closer),
        on_frames,
        prediction,
    )
    width, height = observed.image_size
    by_what = "landmarks" if expected is None else f"landmarks and {expected.source}"
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
        visibility=np.zeros((0, 0), np.float32) if weights is None else weights.by_region(),
        visibility_regions=() if weights is None else REGIONS,
        landmark_bias=fit.landmark_bias.astype(np.float32),
        segment_starts=np.array([segment.start for segment in observed.segments], np.int64),
        segment_same_person=np.array([segment.same_person for segment in observed.segments], bool),
        provenance={
            "avface": avface.__version__,
            "landmarks": "MediaPipe attention mesh, 478 points",
            "shape, expression, pose": f"maximum a posteriori fit to the {by_what}",
            "focal length": "given" if focal_length else "estimated",
        },
    )


def _counted(progress: Progress, stage: str, frames: int) -> Callable[[int], None]:
    """What tells `progress` how many frames of a stage are done, when it is told how many more are."""
    done = 0

    def on_frames(more: int) -> None:
        nonlocal done
        done += more
        progress(stage, done, frames)

    progress(stage, 0, frames)
    return on_frames


def _refine_lips(
    refinement: LipRefinement,
    capture: Capture,
    sound: Iterable[F32],
    observed: FaceTrack,
    progress: Progress,
) -> Capture:
    """The capture with the lips as sound and picture say."""
    from avface.networks.lips.visual_evidence import LipView

    on_frames = _counted(progress, "lips", len(capture))
    lengths = np.diff([*capture.segment_starts, len(capture)])
    chosen = np.repeat(capture.segment_same_person, lengths)
    shown = (capture.confidence > 0).astype(np.float32)
    if capture.visibility_regions:
        shown *= capture.visibility[:, capture.visibility_regions.index("lips")]
    view = LipView(observed.landmarks, shown, capture.rotation, capture.translation, capture.camera)
    lips = refinement.refine(capture.shape, capture.expression, capture.times, sound, chosen, view, on_frames)
    if not len(lips.basis):  # nobody speaks
        return capture
    return replace(
        capture,
        lip_vertices=lips.vertices,
        lip_basis=lips.basis,
        lip_weights=lips.weights,
        provenance={
            **capture.provenance,
            "lips": "offsets by a network that hears, as far as the picture agrees; parted and closed where they meet",
        },
    )


def _find_detail(
    refinement: DetailRefinement,
    capture: Capture,
    clip: Clip,
    observed: FaceTrack,
    sound: Callable[[], Iterable[F32]] | None,
    progress: Progress,
) -> Capture:
    """The capture with the folds of the skin, as far as the clip shows them."""
    from avface.networks.detail.refinement import ClipView

    on_frames = _counted(progress, "detail", len(capture))
    lengths = np.diff([*capture.segment_starts, len(capture)])
    visibility = observed.visibility
    found = refinement.refine(
        ClipView(
            frames=lambda: (frame.image for frame in clip.frames()),
            vertices=capture.vertices,
            camera=capture.camera,
            times=capture.times,
            shots=np.repeat(np.arange(len(lengths)), lengths),
            chosen=np.repeat(capture.segment_same_person, lengths) & (capture.confidence > 0),
            sound=sound,
            visibility=None if visibility is None else visibility.__getitem__,
        ),
        on_frames,
    )
    if found is None:
        return capture
    return replace(
        capture,
        detail_static=found.static.astype(np.float16),
        detail_basis=found.basis.astype(np.float16),
        detail_weights=found.weights,
        provenance={
            **capture.provenance,
            "detail": "displacement of the skin by a network that learned it from made people",
        },
    )


def _joints(head: HeadModel, fit: Fit) -> F32:
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
