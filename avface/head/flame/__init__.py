"""FLAME: its own files as a head model."""
