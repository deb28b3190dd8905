"""What a synthetic face, head and voice do over time."""
