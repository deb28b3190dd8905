"""Motion of a synthetic face and head, and synthetic speech, over time."""
