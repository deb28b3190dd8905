"""Training of the lip network."""
