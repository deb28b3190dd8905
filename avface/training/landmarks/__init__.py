"""Training of the landmark correction network."""
