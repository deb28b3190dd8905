"""The built-in open head: how its file is computed."""
