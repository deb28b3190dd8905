"""The user-facing exception and warning."""

from __future__ import annotations


class AvfaceError(Exception):
    """An error that the user can correct: a bad file, an unknown name, a folder without permission.

    The message is one line with the file or value, the fault and the remedy. The command line prints it without a
    traceback and exits with code 2; any other exception is a defect of avface.
    """


class AvfaceWarning(UserWarning):
    """A warning about a result that is delivered all the same, such as that of a damaged video."""
