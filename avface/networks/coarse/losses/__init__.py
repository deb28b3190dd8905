"""Losses of the coarse stage. Each is 0 for a perfect prediction unless its docstring states otherwise."""
