"""What a bundle does before its engines start: overrides checked, errors in two lines.

`monai.bundle` accepts any override and ignores the ones that no configuration reads; and it shows an error of the
data as some hundred lines of traceback. The configurations call `begin` first in ``initialize``.
"""

from __future__ import annotations

import ast
import atexit
import importlib
import math
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from . import distributed
from .allocation import keep_freed_memory
from .errors import InputError, MeddenoiseError, UsageError, nearest

__all__ = [
    "as_bool", "begin", "check_numbers", "check_options", "check_sigma", "launched_config", "make_folder",
    "report_errors", "user_error",
]  # fmt: skip

SILENCE = 5.0  # seconds

# The arguments of `python -m monai.bundle run` itself, which are no overrides.
_RUN_ARGUMENTS = frozenset(
    {"run_id", "init_id", "final_id", "meta_file", "config_file", "logging_file", "tracking", "args_file",
     "workflow_name", "workflow_type", "help"}
)  # fmt: skip


def _command_line(argv: Sequence[str]) -> dict[str, str] | None:
    """``--name value`` and ``--name=value`` of a `python -m monai.bundle run …`, or None in any other program."""
    if not argv or Path(argv[0]).parts[-3:-1] != ("monai", "bundle") or "run" not in argv[1:2]:
        return None
    options: dict[str, str] = {}
    words = list(argv[2:])
    while words:
        word = words.pop(0)
        if not word.startswith("--") or len(word) == 2:
            continue
        name, equals, value = word[2:].partition("=")
        if not equals:
            value = words.pop(0) if words and not words[0].startswith("--") else "True"
        options[name.replace("-", "_") if "::" not in name and "#" not in name else name] = value
    return options


def _config_files(value: str) -> list[Path]:
    """The paths in ``a.json``, ``a.json,b.json`` or ``['a.json','b.json']``, as python-fire accepts them."""
    return [Path(part.strip(" '\"")) for part in value.strip("[]() ").split(",") if part.strip(" '\"")]


def launched_config(argv: Sequence[str] | None = None) -> dict[str, Any] | None:
    """The configuration this program was started with: its files merged, the overrides of the command line applied.

    None if this is no `python -m monai.bundle run`.
    """
    options = _command_line(sys.argv if argv is None else argv)
    if options is None or "config_file" not in options:
        return None
    from monai.bundle.config_parser import ConfigParser

    files = [path for path in _config_files(options["config_file"]) if path.is_file()]
    parser = ConfigParser(ConfigParser.load_config_files([str(path) for path in files]))
    for name, value in options.items():
        if name not in _RUN_ARGUMENTS:
            parser[name] = _literal(value)
    config: dict[str, Any] = parser.get()
    return config


def _literal(text: str) -> Any:
    """What python-fire makes of a value: a Python literal, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _paths(node: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    entries: Iterable[tuple[str, Any]] = ()
    if isinstance(node, Mapping):
        entries = ((str(key), value) for key, value in node.items())
    elif isinstance(node, list):
        entries = ((str(index), value) for index, value in enumerate(node))
    for key, value in entries:
        yield prefix + key, value
        yield from _paths(value, f"{prefix}{key}::")


def check_overrides(argv: Sequence[str] | None = None) -> None:
    """Refuse a ``--name value`` that no configuration file knows, or that is no number where they have one.

    Raises
    ------
    UsageError
        With the nearest known name, or an example.
    """
    options = _command_line(sys.argv if argv is None else argv)
    if options is not None and "config_file" in options:
        check_options(_config_files(options["config_file"]), {name: _literal(text) for name, text in options.items()})


def check_options(config_files: Iterable[Path], options: Mapping[str, Any]) -> None:
    """As `check_overrides`, for a program that has read its options itself.

    Raises
    ------
    UsageError
        With the nearest known name, or an example.
    """
    from monai.bundle.config_parser import ConfigParser

    known: dict[str, Any] = {}
    for path in config_files:
        if path.is_file():
            content = ConfigParser.load_config_file(str(path))  # JSON or YAML
            # An overlay's key "a#b" changes a part of another file; both spellings of the separator count.
            known.update((name.replace("#", "::"), value) for name, value in _paths(content))
    for option in options:
        name = option.replace("#", "::")
        # A new key inside an existing dictionary (network_def::norm) is a legitimate override.
        parent = name.rpartition("::")[0]
        if option not in _RUN_ARGUMENTS and name not in known and parent not in known:
            depth = name.count("::")
            alike = {path for path in known if path.count("::") == depth and not path.startswith("_")}
            raise UsageError(f"unknown override --{option}", nearest(name, alike))
        if option not in _RUN_ARGUMENTS:
            _check_type(option, known.get(name), options[option])


def _check_type(option: str, default: object, value: object) -> None:
    """Refuse what is no number where the configuration has one; expressions ("$…", "@…") are seen when evaluated."""
    if isinstance(default, bool) or not isinstance(default, int | float) or str(value).startswith(("$", "@")):
        return
    allowed = int if isinstance(default, int) else int | float
    if isinstance(value, bool) or not isinstance(value, allowed):
        kind = "a whole number" if allowed is int else "a number"
        raise UsageError(f"--{option} must be {kind}, got {value!r}", f"for example --{option} {default}")


def check_numbers(positive: Mapping[str, float], non_negative: Mapping[str, float]) -> None:
    """Refuse hyper-parameters that cannot work, by name.

    Raises
    ------
    UsageError
        For a value that is no number, or not positive (not negative).
    """
    kinds = ((positive, None, "positive", "above 0"), (non_negative, 0, "zero or more", "of 0 or more"))
    for values, least, word, bound in kinds:
        for name, value in values.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not (value >= 0 if least == 0 else value > 0):
                raise UsageError(f"{name} must be {word}, got {value!r}", f"give --{name} a number {bound}")


def check_sigma(sigma: float) -> None:
    """Refuse a noise level in grey levels: sigma is on the [0, 1] scale.

    Raises
    ------
    UsageError
        If it is above 1.
    """
    if not math.isfinite(sigma):
        raise UsageError(f"sigma must be finite, got {sigma}", "for example --sigma 0.1")
    if sigma > 1:
        raise UsageError(
            f"sigma is on the [0, 1] scale of the clean image, got {sigma}",
            f"{sigma} of 255 grey levels is --sigma {sigma / 255:.4f}",
        )


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder and its parents, if need be.

    Raises
    ------
    InputError
        If that cannot be done.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path}: {error.strerror}", "choose another folder") from error


def user_error(error: BaseException | None) -> MeddenoiseError | None:
    """The user's error behind `error`, which MONAI may have wrapped several times; None if there is none.

    A component that does not exist, or does not take the arguments it is given, is a user's error, too.
    """
    for link in _chain(error):
        if isinstance(link, MeddenoiseError):
            return link
        if isinstance(link, ModuleNotFoundError) and (missing := re.fullmatch(_NO_SUCH_COMPONENT, str(link))):
            return UsageError(f"there is no {missing[1]!r}", _known_beside(missing[1]))
        if job := re.fullmatch(r"run ID '(.*)' doesn't exist in the config file\.", str(link)):
            message = f"these configurations have no job {job[1]!r}"
            return UsageError(message, "train.json has training, evaluate.json evaluating, inference.json inference")
        component = re.match(r"Failed to instantiate component '(.*?)'", str(link))
        if component and isinstance(link.__cause__, TypeError | ValueError | IndexError | ZeroDivisionError):
            reason = f"cannot make {component[1]!r}: {link.__cause__}"
            return UsageError(reason, "mend its arguments in the configuration or the override")
    return None


_NO_SUCH_COMPONENT = r"Cannot locate class or function path: '(.*)'\."


def _known_beside(path: str) -> str:
    """A hint that names what the module of a dotted path has instead."""
    module, _, name = path.rpartition(".")
    try:
        return nearest(name, [known for known in dir(importlib.import_module(module)) if known[0] != "_"])
    except (ImportError, ValueError):
        return "mend its _target_ in the configuration or the override"


def _chain(error: BaseException | None) -> Iterable[BaseException]:
    """The error, and all that it was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return
    found = user_error(error) or next(filter(None, map(distributed.lost_process, _chain(error))), None)
    if not distributed.first_to_fail():
        time.sleep(SILENCE)  # torchrun ends all when one has ended: that must not be before another one has spoken
        _end(found.exit_code if found else 1)
    if found is None:
        traceback.print_exception(kind, error, trace)
        *_, cause = _chain(error)
        found = MeddenoiseError(f"{type(cause).__name__}: {cause}", "the traceback above says where it happened")
    message, hint = (" ".join(text.split()) for text in (found.message, found.hint))
    print(f"error: {message}\nhint: {hint}", file=sys.stderr)
    if found.exit_code != 1 or distributed.launched():
        _end(found.exit_code)


def report_errors() -> None:
    """Let errors of a user end this program in two lines and their exit code, as those of a bundle do."""
    sys.excepthook = _report


def _end(code: int) -> None:
    """End the interpreter, after what was registered for the end.

    By itself it would exit with 1 whatever is done here, and might wait for another process's messages.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def begin(join: Callable[[], None] | None = None) -> None:
    """Install the two-line error report and check the overrides; to be called first in ``initialize``.

    Freed memory is kept from here on, see `allocation`.

    Parameters
    ----------
    join
        Meets the other processes of a distributed training.

    Raises
    ------
    UsageError
        If an override is unknown, or torchrun started several processes of a configuration for one.
    """
    if _command_line(sys.argv) is not None:
        report_errors()
        if join is None and distributed.launched() and os.environ["WORLD_SIZE"] != "1":
            raise UsageError(
                f"torchrun started {os.environ['WORLD_SIZE']} processes of a configuration for one",
                "add multi_gpu_train.json or multi_gpu_evaluate.json to --config_file, as the last file",
            )
    if join is not None:
        hook = sys.excepthook
        join()
        sys.excepthook = hook  # torch has put one before it that catches what it prints
    check_overrides()
    keep_freed_memory()


def as_bool(value: object) -> bool:
    """True for True, 1, "true", "yes", "on": what ``--resume true`` gives is a string.

    Raises
    ------
    UsageError
        For any other word than these and their opposites.
    """
    word = str(value).strip().lower()
    if word in ("true", "1", "yes", "on"):
        return True
    if word in ("false", "0", "no", "off", "", "none"):
        return False
    raise UsageError(f"expected true or false, got {value!r}", "write true or false")
