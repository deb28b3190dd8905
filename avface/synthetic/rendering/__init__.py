"""Scenes, light, cameras and the renderer."""
