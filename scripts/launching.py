"""How a script of this folder is started from the command line."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence

import fire

from meddenoise_monai.errors import UsageError, nearest
from meddenoise_monai.runtime import report_errors


def launch(main: Callable[..., None]) -> None:
    """Run `main` with the arguments of the command line; what a user did wrong ends in two lines."""
    report_errors()
    check_names(main, sys.argv[1:])
    fire.Fire(main)


def check_names(main: Callable[..., None], words: Sequence[str]) -> None:
    """Refuse an option that `main` does not have: python-fire calls it first and complains afterwards.

    Raises
    ------
    UsageError
        With the nearest known name.
    """
    parameters = inspect.signature(main).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return  # it checks the others itself
    for word in words:
        if word == "--":  # what follows is python-fire's
            return
        name = word[2:].partition("=")[0].replace("-", "_")
        if word.startswith("--") and not {name, name.removeprefix("no")} & {*parameters, "help"}:
            raise UsageError(f"there is no option --{name}", nearest(name, parameters))
