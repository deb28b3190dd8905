"""Name and content of the built-in head, known without loading it."""

from __future__ import annotations

OPEN_NAME = "open"
"""Name of the built-in head."""

OPEN_DIGEST = "b8c9d2c98928433e"
"""`HeadModel.digest` of the built-in head, for which the shipped networks and priors were made."""

FIRST_OPEN_DIGEST = "c1e10921580ce926"
"""That of the built-in head of the versions of avface that didn't store it in captures."""
