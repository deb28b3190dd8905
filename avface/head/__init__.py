"""Head models: the built-in open head and imported ones, all as `HeadModel`."""

from avface.head.model import HeadModel, LandmarkEmbedding, load_head

__all__ = ["HeadModel", "LandmarkEmbedding", "load_head"]
