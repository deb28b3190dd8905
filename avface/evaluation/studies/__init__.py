"""Measurements of single stages and of the synthetic data."""
