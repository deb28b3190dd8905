"""Synthetic people: skin, wrinkles, body."""
