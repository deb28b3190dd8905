"""Training of the speech readout on synthetic speech."""
