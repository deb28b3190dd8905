"""Builder of the built-in open head."""
