"""Expression units of the open head, and their correctives."""
