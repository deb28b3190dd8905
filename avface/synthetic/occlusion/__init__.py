"""Occluders: hands and other objects in front of a face."""
