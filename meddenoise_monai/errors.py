"""Errors that a user can cause, and the exit codes of the command line.

Every one carries a hint: what to do next. The command line prints both as two lines and no traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "InputError",
    "MeddenoiseError",
    "PartialFailure",
    "UnsuitableError",
    "UsageError",
    "fail_in_part",
    "nearest",
]


class MeddenoiseError(Exception):
    """Base of all errors that a user can cause.

    Parameters
    ----------
    message
        What is wrong, naming the thing and the value that was given.
    hint
        What the user can do about it.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}"

    def __reduce__(self) -> tuple[type[MeddenoiseError], tuple[str, str]]:
        # The default would pass only the message, and an error raised in a worker process could not be unpickled.
        return type(self), (self.message, self.hint)


class InputError(MeddenoiseError):
    """The given data cannot be used: unreadable, empty, of the wrong kind (exit code 1)."""


class UnsuitableError(InputError):
    """The given file is whole, but nothing that can be denoised: in colour, a mask, a report."""


class UsageError(MeddenoiseError):
    """The command, option or parameter is wrong (exit code 2)."""

    exit_code = 2


class PartialFailure(MeddenoiseError):  # noqa: N818  # the model zoo would call every one an Error
    """Some files failed and the rest are written (exit code 3)."""

    exit_code = 3


def fail_in_part(
    failed: int, hint: str = "the warnings above name them; --strict stops at the first", unsuitable: int = 0
) -> None:
    """End with the exit code for some files that were left out while the rest are written.

    Parameters
    ----------
    failed, unsuitable
        How many could not be used; how many are whole, but nothing to be denoised.

    Raises
    ------
    PartialFailure
        If either is not 0.
    """
    reasons = [f"{failed} file(s) failed"] if failed else []
    reasons += [f"{unsuitable} file(s) are whole, but nothing to be denoised"] if unsuitable else []
    if reasons:
        hint += "; --lenient takes the latter for success" if unsuitable else ""
        raise PartialFailure(f"{', '.join(reasons)}; the rest are written", hint)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the known name most like `name`, or all of them when none is alike."""
    names = sorted(known)
    matches = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {matches[0]!r}?" if matches else f"known: {', '.join(names)}"
