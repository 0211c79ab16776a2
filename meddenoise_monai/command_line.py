"""From the words that were typed to a job that runs, and from what goes wrong to a message and an exit code.

A verb is a function: its positional parameters are its arguments, its keyword-only ones its flags, and its docstring is
its help text. python-fire binds the words to them; what fire would let pass is checked before (`_normalised`), and the
job starts only when every word is understood. A script of one job is a verb without a name. Results
go to stdout; progress, warnings and errors to stderr.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import logging
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO, TypeAlias

import fire
from fire.core import FireExit

from .errors import MeddenoiseError, UsageError, nearest

__all__ = ["Verb", "execute", "execute_alone", "say"]

Verb: TypeAlias = Callable[..., None]

_INTERRUPTED = 130  # 128 + SIGINT, as shells say it


# --- What is printed --------------------------------------------------------------------------------------------------


def say(text: str, stream: TextIO | None = None) -> None:
    """Print on stdout (or `stream`); a reader that has gone, as in ``| head``, or an old encoding is no error."""
    stream = stream or sys.stdout
    if stream is None:  # closed by the shell
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except BrokenPipeError:
        # The interpreter flushes once more at its end, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _WarningHandler(logging.Handler):
    """Log records as lines on stderr, without tearing a progress bar apart."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        with tqdm.external_write_mode(file=sys.stderr):
            say(f"{record.levelname.lower()}: {' '.join(record.getMessage().split())}", sys.stderr)


@contextlib.contextmanager
def _warnings_on_stderr() -> Iterator[None]:
    logger = logging.getLogger(__package__)
    handler = _WarningHandler(logging.WARNING)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


# --- Help -------------------------------------------------------------------------------------------------------------


def _help(verb: Verb) -> str:
    return inspect.cleandoc(verb.__doc__ or "")


def _help_of_all(verbs: Mapping[str, Verb], about: str) -> str:
    width = max(map(len, verbs))
    first_lines = [f"  {name.ljust(width)}  {_help(verb).splitlines()[0]}" for name, verb in verbs.items()]
    return "\n".join(
        [
            about,
            "",
            "usage: meddenoise VERB ARGUMENTS [flags]",
            "",
            "verbs:",
            *first_lines,
            "",
            "flags of every verb:",
            "  -h, --help   the help text of the verb",
            "  --debug      the whole traceback of an error",
            "  --version    the version",
            "",
            "exit codes: 0 done, 1 failed, 2 wrong usage, 3 some files failed and the rest are written,",
            "130 interrupted",
        ]
    )


def _usage(verb: Verb) -> str:
    return next(line for line in _help(verb).splitlines() if line.startswith("usage: "))


def _typed(verb: Verb) -> str:
    """What is typed before the arguments and flags."""
    return re.split(r" [A-Z{[]", _usage(verb).removeprefix("usage: "))[0]


# --- How values are read ----------------------------------------------------------------------------------------------
# Fire's own parsing takes words for Python literals: a folder 001 would become 1, and [a] a list.


def _text(name: str, word: str) -> str:
    if not word:
        raise UsageError(f"{name} is empty", "is a variable of the shell unset?")
    return word


def _number(name: str, word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{name} must be a number, got {word!r}", f"for example {name} 0.5")
    return value


def _integer(name: str, word: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", word):
        raise UsageError(f"{name} must be an integer, got {word!r}", f"for example {name} 0")
    return int(word)


def _switch(name: str, word: str) -> bool:
    if word.lower() not in ("true", "false"):
        raise UsageError(f"{name} takes no value, got {word!r}", f"write {name}, or --no-{name[2:]}")
    return word.lower() == "true"


def _texts(name: str, word: str) -> list[str]:
    return [_text(name, part.strip()) for part in word.split(",")]


def _numbers(name: str, word: str) -> list[float]:
    return [_number(name, part.strip()) for part in word.split(",")]


_READERS: dict[str, Callable[[str, str], Any]] = {
    "str": _text, "float": _number, "int": _integer, "bool": _switch, "Sequence[str]": _texts,
    "Sequence[float]": _numbers,
}  # fmt: skip


def _value_readers(verb: Verb) -> dict[str, Callable[[str], Any]]:
    """How the word for each parameter of a verb is read, by its type."""
    readers: dict[str, Callable[[str], Any]] = {}
    for name, parameter in inspect.signature(verb).parameters.items():
        shown = f"--{name}" if parameter.kind is parameter.KEYWORD_ONLY else name.upper()
        readers[name] = functools.partial(_READERS[str(parameter.annotation).removesuffix(" | None")], shown)
    return readers


# --- From words to a job ----------------------------------------------------------------------------------------------


def _is_flag(word: str) -> bool:
    return re.match(r"--|-[a-zA-Z]", word) is not None  # as fire sees it: -5 and - are values


def _normalised(verb: Verb, words: Sequence[str]) -> list[str]:
    """The words in the one spelling that fire binds as meant: ``--flag=value``, also for switches.

    Fire by itself would take ``--overwrite IN OUT`` for ``--overwrite=IN``, a ``--sigma`` without a value for True,
    and would run the job before it complains about a word that it does not know.

    Raises
    ------
    UsageError
        For a flag that is unknown or lacks its value, and for more arguments than there are.
    """
    parameters = inspect.signature(verb).parameters
    switches = {name for name, parameter in parameters.items() if parameter.annotation == "bool"}
    result, rest, arguments = [], list(words), 0
    seen: set[str] = set()
    while rest:
        word = rest.pop(0)
        if not _is_flag(word):
            arguments += 1
            if arguments > sum(p.kind is not p.KEYWORD_ONLY for p in parameters.values()):
                raise UsageError(f"unexpected argument {word!r}", _usage(verb))
            result.append(word)
            continue
        typed, equals, value = word.partition("=")
        name = typed.lstrip("-").replace("-", "_")
        negated = re.sub("^no_?", "", name)
        if name in seen:
            raise UsageError(f"{typed} is given twice", "leave one of them out")
        seen.add(name)
        if name not in parameters and negated in switches and not equals:
            result.append(f"--{negated}=False")
        elif name not in parameters or not word.startswith("--"):
            flags = {n for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY} | {"help", "debug"}
            hint = nearest(name, flags).replace("did you mean '", "did you mean '--")
            raise UsageError(f"{verb.__name__} has no flag {typed}", hint)
        elif equals:
            result.append(f"--{name}={value}")
        elif name in switches:
            explicit = rest and rest[0].lower() in ("true", "false")
            result.append(f"--{name}={rest.pop(0) if explicit else True}")
        elif rest and not _is_flag(rest[0]):
            result.append(f"--{name}={rest.pop(0)}")
        else:
            raise UsageError(f"--{name} needs a value", f"see {_typed(verb)} --help")
    return result


def _parsed(verb: Verb, words: Sequence[str]) -> Callable[[], None]:
    """The job that the words ask for; nothing of it has run.

    Raises
    ------
    UsageError
        If the words do not fit the verb.
    """
    name = verb.__name__
    jobs: list[Callable[[], None]] = []

    @functools.wraps(verb)
    def later(*args: Any, **kwargs: Any) -> None:
        jobs.append(functools.partial(verb, *args, **kwargs))

    fire.decorators.SetParseFns(**_value_readers(verb))(later)
    try:
        # Fire prints screens of usage on an error.
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            fire.Fire({name: later}, command=[name, *_normalised(verb, words)], name="meddenoise")
    except FireExit as exit_:
        message = exit_.trace.elements[-1].ErrorAsStr()
        required = re.match("The function received no value for the required argument: (.*)", message)
        if required:
            message = f"{name} needs {required[1].upper()}"
        raise UsageError(message, _usage(verb)) from None
    return jobs[-1]


def _run(verbs: Mapping[str, Verb], about: str, words: list[str]) -> None:
    name = words[0] if words and not _is_flag(words[0]) else None
    if name is not None and name not in verbs:
        raise UsageError(f"unknown verb {name!r}", nearest(name, verbs))
    if {"-h", "--help"} & set(words):
        say(_help_of_all(verbs, about) if name is None else _help(verbs[name]))
    elif "--version" in words:
        verbs["version"]()
    elif name is None:
        problem = f"a verb comes first, got {words[0]}" if words else "no verb given"
        raise UsageError(problem, f"known: {', '.join(verbs)}; see meddenoise --help")
    else:
        _parsed(verbs[name], words[1:])()


def _run_alone(verb: Verb, words: list[str]) -> None:
    if {"-h", "--help"} & set(words):
        say(_help(verb))
    else:
        _parsed(verb, words)()


def execute(verbs: Mapping[str, Verb], about: str, argv: Sequence[str]) -> int:
    """Run the verb that the words name; an error is two lines on stderr, with ``--debug`` after its traceback.

    Parameters
    ----------
    verbs
        The verbs by name, ``version`` among them.
    about
        The first line of the help text.
    argv
        The words after the program's name.

    Returns
    -------
    int
        The exit code: 0 done, 1 failed, 2 wrong usage, 3 some files failed and the rest are written, 130 interrupted.
    """
    return _guarded(functools.partial(_run, verbs, about), argv)


def execute_alone(verb: Verb, argv: Sequence[str]) -> int:
    """Run the only job of a script, as `execute` runs that of a verb.

    Parameters
    ----------
    verb
        The job.
    argv
        The words after the script's name.

    Returns
    -------
    int
        The exit code, as of `execute`.
    """
    return _guarded(functools.partial(_run_alone, verb), argv)


def _guarded(run: Callable[[list[str]], None], argv: Sequence[str]) -> int:
    """Let `run` do what the words say; from what it raises to what is printed, and to an exit code."""
    debug = "--debug" in argv
    if sys.stderr is None:  # closed by the shell; progress bars and warnings write to it all the same
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    try:
        with _warnings_on_stderr():
            if "--" in argv:
                raise UsageError("'--' is not used here", "write ./-name for a path that begins with a dash")
            run([word for word in argv if word != "--debug"])
    except KeyboardInterrupt:
        say("interrupted", sys.stderr)
        return _INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, OSError) and error.strerror:
            where = "" if error.filename is None else f": {error.filename}"
            error = MeddenoiseError(f"{error.strerror}{where}"[:500], "check the path, its length and its permissions")
        if not isinstance(error, MeddenoiseError):
            hint = "this should not happen: run it again with --debug, and report what it shows"
            error = MeddenoiseError(f"{type(error).__name__}: {error}", hint)
        for kind, text in (("error", error.message), ("hint", error.hint)):
            say(f"{kind}: {' '.join(text.split())}", sys.stderr)
        return error.exit_code
    return 0
