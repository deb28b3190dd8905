"""Talking heads made by avface itself, with exact ground truth."""
