"""Head models: the built-in open head and imported ones, all as `HeadModel`."""

from avface.head.asset import load_head
from avface.head.model import HeadModel, LandmarkEmbedding

__all__ = ["HeadModel", "LandmarkEmbedding", "load_head"]
