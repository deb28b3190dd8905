"""The maximum a posteriori fit of a head to tracked landmarks."""

from avface.solve.config import SolverConfig
from avface.solve.motion import MotionPriorConfig
from avface.solve.observations import LandmarkCorrections, Observations
from avface.solve.prediction import Prediction
from avface.solve.priors import ExpressionPriorConfig
from avface.solve.solver import Fit, Solver

__all__ = [
    "ExpressionPriorConfig",
    "Fit",
    "LandmarkCorrections",
    "MotionPriorConfig",
    "Observations",
    "Prediction",
    "Solver",
    "SolverConfig",
]
