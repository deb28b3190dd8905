"""Occlusions: occluders that enter, hold and leave in front of the face in a video."""
