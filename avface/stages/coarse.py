"""Stage "coarse": shape, expression and pose, by a fit to the landmarks with the networks' prediction as its prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from avface.arrays import F32, F64
from avface.capture import COARSE, Capture
from avface.errors import AvfaceError
from avface.stages.stage import Request, StageInputs
from avface.threads import one_thread

if TYPE_CHECKING:
    from avface.head.model import HeadModel
    from avface.networks.coarse.inference import ClipPrediction
    from avface.networks.coarse.model import CoarseNetworks
    from avface.networks.fusion.landmark_weights import LandmarkWeights
    from avface.networks.landmark_motion import LandmarkMotion
    from avface.solve import Fit, LandmarkCorrections, Prediction


@dataclass(frozen=True, eq=False)
class CoarseStage:
    """Coarse networks and solver. For a head without networks the fit has the solver's own priors only."""

    name: ClassVar[str] = COARSE
    needs: ClassVar[tuple[str, ...]] = ()
    needs_audio: ClassVar[bool] = False

    networks: CoarseNetworks | None

    @classmethod
    def load(cls, head: HeadModel, request: Request) -> CoarseStage:
        """Load solver, networks and speech encoder.

        Raises:
            AvfaceError: if the networks can't be used, or there are none and the request excludes the picture.
        """
        networks = _load_networks(head, request)
        if networks is None and not request.video:
            raise AvfaceError(
                f"{request.path}: there are no networks to predict the mouth from sound; leave out video=False "
                "(--no-video)"
            )
        if corrects_landmarks(head):
            from avface.networks.landmark_correction import pretrained_landmark_network
            from avface.networks.landmark_motion import pretrained_motion_network

            pretrained_landmark_network()
            pretrained_motion_network()
        if networks is not None:
            from avface.speech.readout import pretrained_hearing

            if request.audio:
                pretrained_hearing(request.device)
        return cls(networks)

    def run(self, capture: Capture, inputs: StageInputs) -> Capture:
        """The capture with all its fields but layers.

        If the mouth is occluded in some frames, a second fit has a prior that is adapted to the mouth's motion in the
        others.
        """
        expected = None
        if self.networks is not None:
            expected = self._predict(self.networks, inputs)
            if not inputs.request.video:
                expected = _by_ear(expected, inputs)
        motion = _read_motion(inputs)
        corrections = _correct_landmarks(inputs, motion)
        fitted = _fit(capture, inputs, expected, corrections, motion)
        if self.networks is not None and expected is not None and inputs.request.video:
            adapted = self._adapt(self.networks, inputs, expected, fitted)
            if adapted is not None:
                fitted = _fit(capture, inputs, adapted, corrections, motion)
        return fitted

    def _predict(
        self, networks: CoarseNetworks, inputs: StageInputs, visibility_limit: F32 | None = None
    ) -> ClipPrediction:
        """The networks' prediction for the clip; `visibility_limit` (478,) makes landmarks less visible."""
        from avface.networks.coarse.inference import predict_clip

        audio = inputs.audio() if inputs.has_audio else None
        with one_thread():
            return predict_clip(
                networks,
                inputs.head.expression_names,
                inputs.track,
                audio,
                inputs.focal_length,
                use_video=inputs.request.video,
                visibility_limit=visibility_limit,
            )

    def _adapt(
        self, networks: CoarseNetworks, inputs: StageInputs, expected: ClipPrediction, fitted: Capture
    ) -> ClipPrediction | None:
        """The prediction adapted to the clip; None if the mouth is never occluded."""
        from avface.networks.fusion.clip_adaptation import adapt_to_clip, lip_visibility, occluded_visibility

        track, head = inputs.track, inputs.head
        lips = lip_visibility(track)
        occluded = occluded_visibility(track, lips)
        if occluded is None:
            return None
        answers = self._predict(networks, inputs, occluded)
        return adapt_to_clip(
            expected,
            answers,
            fitted.expression,
            lips,
            track.times,
            head.expression_names,
            _landmark_motion(head),
        )


def corrects_landmarks(head: HeadModel) -> bool:
    """Whether landmarks are corrected for this head: whether it has a shape prior that was fitted with them."""
    from avface.solve.shape_prior import load_shape_prior

    return load_shape_prior(head, corrected=True) is not None


def _by_ear(expected: ClipPrediction, inputs: StageInputs) -> ClipPrediction:
    """The prediction with the heard opening of the mouth."""
    from avface.networks.fusion.heard_opening import follow_heard_opening

    return follow_heard_opening(expected, inputs.head.expression_names, _landmark_motion(inputs.head))


def _landmark_motion(head: HeadModel) -> F64:
    """Displacement (E, 478, 3) of the landmarks per expression unit."""
    return head.embedding("mediapipe478").on(head.expression_basis.cpu().numpy())


def _load_networks(head: HeadModel, request: Request) -> CoarseNetworks | None:
    """The networks for a head: those of a file, or the pretrained ones if they were trained for this head.

    Raises:
        AvfaceError: if the file is missing, damaged or for another head.
    """
    from avface.networks.coarse.model import load_networks, pretrained_coarse_networks

    path = request.networks
    given = None if path is None else load_networks(path).requires_grad_(False).to(request.device)
    networks = pretrained_coarse_networks(request.device) if given is None else given
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


def _read_motion(inputs: StageInputs) -> LandmarkMotion | None:
    """The landmarks with their motion corrected and the units that the picture shows; None without pictures, or if
    these aren't to be looked at."""
    from avface.networks.landmark_motion import pretrained_motion_network, read_motion

    track, solver = inputs.track, inputs.request.solver
    if track.pictures is None or not (solver is None or solver.read_pictures):
        return None
    with one_thread():
        return read_motion(
            pretrained_motion_network(), track, inputs.head.expression_names, _weights_as_tracked(inputs)
        )


def _weights_as_tracked(inputs: StageInputs) -> LandmarkWeights:
    """Weights of the detector's landmarks."""
    from avface.networks.fusion.landmark_weights import LandmarkWeights

    return LandmarkWeights(inputs.track, None, without=_ignored_regions(inputs), flow=False)


def _correct_landmarks(inputs: StageInputs, motion: LandmarkMotion | None) -> LandmarkCorrections | None:
    """Corrections of some frames' landmarks by the correction network, for the fit of the shape, against those whose
    motion is corrected; None without crops."""
    from avface.networks.landmark_correction import pretrained_landmark_network
    from avface.solve import LandmarkCorrections

    track = inputs.track
    views = track.aligned_crops
    if views is None:
        return None
    weights = _weights_as_tracked(inputs)
    visible = np.stack([weights[frame] for frame in views.frames.tolist()])
    with one_thread():
        offsets = pretrained_landmark_network().predict_offsets(views.pictures, views.landmarks, visible)
    if motion is not None:
        offsets = offsets - np.stack([motion.landmarks.offsets(frame) for frame in views.frames.tolist()])
    return LandmarkCorrections(views.frames, offsets, visible)


def _ignored_regions(inputs: StageInputs) -> tuple[str, ...]:
    """Regions whose landmarks have zero weight."""
    from avface.networks.regions import AUDIO_DRIVEN_REGIONS

    return () if inputs.request.video else AUDIO_DRIVEN_REGIONS


def _fit(
    capture: Capture,
    inputs: StageInputs,
    expected: ClipPrediction | None,
    corrections: LandmarkCorrections | None,
    motion: LandmarkMotion | None,
) -> Capture:
    """The capture with the maximum a posteriori fit to the track's landmarks."""
    import torch

    from avface.geometry.rotations import facing_rotvec
    from avface.networks.fusion.landmark_weights import LandmarkWeights
    from avface.networks.regions import REGIONS
    from avface.solve import Observations, Prediction, Solver

    request, track, head = inputs.request, inputs.track, inputs.head
    on_frames: Callable[[int], None] = inputs.counter("solve")
    solver = Solver(head, track.image_size, request.solver, request.focal_length, request.device)
    weights = None
    if track.visibility is not None or expected is not None:
        sigma = None if expected is None else expected.landmark_sigma
        weights = LandmarkWeights(track, sigma, without=_ignored_regions(inputs))
    fit = solver.fit(
        Observations(
            track.best_landmarks if motion is None else motion.landmarks,
            track.best_confidence,
            track.times,
            inputs.shots(),
            weights,
            corrections,
            None if motion is None else Prediction(motion.weights, motion.sigma),
        ),
        on_frames,
        None if expected is None else _prior(expected, head),
    )
    source = "landmarks" if expected is None else f"landmarks and {expected.source}"
    return replace(
        capture,
        shape=fit.shape.astype(np.float32),
        expression=fit.expression.astype(np.float32),
        rotation=facing_rotvec(torch.as_tensor(fit.rotation)).numpy().astype(np.float32),
        translation=fit.translation.astype(np.float32),
        joints=_joints(head, fit),
        focal_length=fit.focal_length,
        visibility=np.zeros((0, 0), np.float32) if weights is None else weights.by_region(),
        visibility_regions=() if weights is None else REGIONS,
        landmark_bias=fit.landmark_bias.astype(np.float32),
        provenance={
            **capture.provenance,
            "landmarks": "MediaPipe attention mesh, 478 points",
            "shape, expression, pose": f"maximum a posteriori fit to the {source}",
            "focal length": "given" if request.focal_length else "estimated",
            **({"audio_lag": f"{inputs.audio_lag:.3f}"} if expected is not None and inputs.has_audio else {}),
        },
    )


def _prior(expected: ClipPrediction, head: HeadModel) -> Prediction:
    """The prediction as the fit's prior, but for blinks: landmarks say when lids are shut, of which the networks, whose
    landmarks have the errors of rendered faces, predict little more than half."""
    from avface.solve import Prediction

    sigma = expected.expression_sigma.copy()
    sigma[:, [name.startswith("eyeBlink") for name in head.expression_names]] = np.inf
    return Prediction(
        expression=expected.expression,
        expression_sigma=sigma,
        rotation=expected.rotation,
        # The errors of the frames of a window are fully correlated, so they count as one; those of expressions are not.
        rotation_sigma=expected.rotation_sigma * np.sqrt(expected.window),
        shape=expected.shape,
        shape_sigma=expected.shape_sigma,
    )


def _joints(head: HeadModel, fit: Fit) -> F32:
    """Joint rotations (T, J, 3): gaze of the eyes, identity for other joints."""
    joints = np.zeros((len(fit.gaze), head.num_joints, 3), np.float32)
    eyes = [j for j, name in enumerate(head.joint_names) if name in ("left_eye", "right_eye")]
    joints[:, eyes, :2] = fit.gaze
    return joints
