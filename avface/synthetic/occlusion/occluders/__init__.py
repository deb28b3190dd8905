"""Hands, objects and clothing as textured meshes that can be drawn in front of a face."""
