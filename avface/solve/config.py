"""Settings of the solver."""

from __future__ import annotations

from dataclasses import dataclass, field

from avface.errors import AvfaceError
from avface.solve.motion import MotionPriorConfig
from avface.solve.priors import ExpressionPriorConfig


@dataclass(frozen=True)
class SolverConfig:
    """Noise and priors of the fit. Lengths in the picture are shares of the face's size, sqrt(w h) of its box."""

    landmark_noise: float = 0.008
    """Standard deviation of a landmark against the model, as a share of the face's size."""
    jitter_factor: float = 2.0
    """Factor of the clip's measured tracker jitter, which is added to the noise in quadrature: landmarks of low-quality
    video get less weight."""
    independence: float = 0.3
    """Share of the landmarks that count as independent: errors of neighbouring ones are correlated."""
    tail: float = 6.0
    """Degrees of freedom of Student's t: the smaller, the less weight outliers have."""
    key_frames: int = 24
    """Frames from which shape and focal length are estimated, where no frames have landmark corrections."""
    effective_key_frames: float = 1.0
    """Effective number of independent frames of all key frames together: the model's own error repeats in each."""
    shape_limit: float = 3.0
    """Largest shape weight in standard deviations: the prior is a truncated normal distribution."""
    tracker_error_prior: bool = True
    """Whether the measured statistics of the tracker's errors are used for the shape, on heads that have a
    `ShapePrior`. Without, as for landmarks from another source, errors of landmarks count as independent."""
    focal_prior: float = 1.6
    """Median of the focal length's log-normal prior as a multiple of the picture's longer side."""
    focal_sigma: float = 0.2
    """Standard deviation of the logarithm of the focal length."""
    prediction_sigma: float = 0.05
    """Standard deviation added to those of predicted expression weights in quadrature, as a share of a unit's largest
    weight: predicted variances hold for data like the training data only."""
    read_pictures: bool = True
    """Whether a network looks at the pictures of the face, on heads that it was trained for: it corrects the motion of
    the landmarks, and reads expression weights off. Without, the landmarks are used as tracked."""
    unit_trust: float = 4.0
    """Factor on the precision of expression weights read off the picture: above 1, because the landmarks' errors depend
    on the expression, which their noise model leaves out."""
    unit_sigma: float = 0.04
    """Standard deviation added to theirs in quadrature, as a share of a unit's largest weight."""
    clip_prior_seconds: float = 0.1
    """Seconds per independent sample of the clip's own prior of a unit's weight. It acts where the unit's landmarks are
    occluded: a hidden mouth goes over to its mean in the clip instead of being held or closed."""
    clip_prior_sigma: float = 0.05
    """Least standard deviation of a unit in the clip's own prior, as a share of the largest weight it can have."""
    window: int = 128
    """Frames solved together."""
    overlap: int = 32
    """Frames that neighbouring windows share; half of them are taken from each."""
    windows_at_once: int = 2
    """Windows that one thread solves side by side; more of them keep a GPU busy and take more memory."""
    iterations: int = 12
    """Most Gauss-Newton steps of either problem."""
    tolerance: float = 1e-3
    """Relative decrease of the cost by a step below which a problem counts as solved."""
    expression: ExpressionPriorConfig = field(default_factory=ExpressionPriorConfig)
    """Prior of the expression."""
    motion: MotionPriorConfig = field(default_factory=MotionPriorConfig)
    """Prior of the motion."""

    def __post_init__(self) -> None:
        for name in (
            *("landmark_noise", "tail", "effective_key_frames", "focal_prior", "focal_sigma"),
            *("unit_trust", "clip_prior_seconds", "clip_prior_sigma"),
        ):
            if not getattr(self, name) > 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be above 0")
        for name in ("jitter_factor", "shape_limit", "prediction_sigma", "unit_sigma", "tolerance"):
            if not getattr(self, name) >= 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be 0 or more")
        if not 0 < self.independence <= 1:
            raise AvfaceError(f"independence={self.independence} must be above 0, at most 1")
        for name in ("key_frames", "window", "windows_at_once", "iterations"):
            if getattr(self, name) < 1:
                raise AvfaceError(f"{name}={getattr(self, name)} must be 1 or more")
        if not 0 <= self.overlap < self.window:
            raise AvfaceError(f"overlap={self.overlap} must be 0 or more, below window={self.window}")
