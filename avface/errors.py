"""The one exception that users are meant to read."""

from __future__ import annotations


class AvfaceError(Exception):
    """Something the user can put right: a bad file, an unknown name, a folder without permission.

    The message is one line that names the file or value, says what is wrong and what to do. The command line
    prints it without a traceback and exits with code 2; every other exception is a defect of avface.
    """


class AvfaceWarning(UserWarning):
    """Something the user should know about a result that was made all the same, such as a damaged video."""
