"""Lip refinement: per-vertex offsets of the lips from sound and picture."""
