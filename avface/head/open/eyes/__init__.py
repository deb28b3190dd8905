"""Eyeballs and lids of the open head."""
