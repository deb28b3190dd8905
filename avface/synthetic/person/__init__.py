"""Appearance of synthetic people: skin, wrinkles, body."""
