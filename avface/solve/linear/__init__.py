"""Linear algebra of the fits: structured matrices and bounded Newton steps."""
