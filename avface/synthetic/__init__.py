"""Synthetic talking heads with exact ground truth."""
