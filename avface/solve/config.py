"""Settings of the solver."""

from __future__ import annotations

from dataclasses import dataclass, field

from avface.solve.motion import MotionPriorConfig
from avface.solve.priors import ExpressionPriorConfig


@dataclass(frozen=True)
class SolverConfig:
    """Noise and priors of the fit. Lengths in the picture are shares of the face's size, sqrt(w h) of its box."""

    landmark_noise: float = 0.008
    """Standard deviation of a landmark against the model, as a share of the face's size."""
    jitter_factor: float = 2.0
    """How much the tracker's jitter in the clip adds to it, in quadrature: coarse pictures are trusted less."""
    independence: float = 0.3
    """Share of the landmarks that count as independent: neighbouring ones err together."""
    tail: float = 6.0
    """Degrees of freedom of Student's t: the smaller, the less an outlying point pulls."""
    key_frames: int = 24
    """Frames from which shape and focal length are found, where nobody looked at some more closely."""
    key_frame_evidence: float = 1.0
    """As how many independent frames all key frames together count for the shape: the model's own error repeats."""
    shape_limit: float = 3.0
    """Largest shape weight in standard deviations: the prior is a normal distribution cut off there."""
    tracker_errs: bool = True
    """Whether the shape is read with experience of our tracker's errors, for heads that have it. Without, for landmarks
    from elsewhere, it is the likeliest one if errors of points are independent."""
    focal_prior: float = 1.6
    """Most likely focal length as a multiple of the picture's longer side."""
    focal_sigma: float = 0.2
    """Standard deviation of the logarithm of the focal length."""
    prediction_sigma: float = 0.05
    """What is added to a prediction's standard deviations of the expression units, in quadrature, as a share of the
    largest weight a unit can have: who predicts knows how sure he is on material like that which he learnt from."""
    usual_seconds: float = 0.1
    """Where a unit's landmarks are hidden it is as likely as it is in the rest of the clip, one draw in so many
    seconds: an unseen mouth is neither shut nor held, it goes over to how this person's mouth usually is."""
    usual_sigma: float = 0.05
    """Least standard deviation of a unit over a clip, as a share of the largest weight it can have."""
    window: int = 128
    """Frames solved together."""
    overlap: int = 32
    """Frames that neighbouring windows share; half of them are taken from each."""
    windows_at_once: int = 2
    """Windows that one thread solves side by side; more of them keep a GPU busy and take more memory."""
    iterations: int = 12
    """Most Gauss-Newton steps of either problem."""
    tolerance: float = 1e-3
    """A problem is solved when a step lowers its cost by less than this share."""
    expression: ExpressionPriorConfig = field(default_factory=ExpressionPriorConfig)
    """Which expressions are likely."""
    motion: MotionPriorConfig = field(default_factory=MotionPriorConfig)
    """How faces move."""
