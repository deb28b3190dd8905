"""Training of the coarse networks."""
