"""What a job over many files says of them: each kind of thing once in full, and how often it came again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from .errors import InputError, UnsuitableError

__all__ = ["Skipped", "Warnings"]

_log = logging.getLogger(__name__)

_KINDS = {
    "correlated": "correlated noise", "strong": "strong noise", "small": "small images", "labels": "few values",
    "little": "next to nothing removed", "uncalibrated": "uncertainty of correlated noise",
}  # fmt: skip
_NAMED = 3  # files that cannot be used are named one by one, but not more than that for the same reason


class Warnings:
    """Says the first of each kind in full, and at the end of how many other files the same holds."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def say(self, name: str, warnings: Mapping[str, str]) -> None:
        for kind, text in warnings.items():
            if kind not in self.seen:
                _log.warning("%s: %s", name, text)
            self.seen[kind] = self.seen.get(kind, 0) + 1

    def say_rest(self) -> None:
        for kind, count in self.seen.items():
            if count > 1:
                _log.warning("%s: the same of %d other file(s), which manifest.json names", _KINDS[kind], count - 1)


class Skipped:
    """Names the files that cannot be used, but of many with the same reason only the first."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self.unsuitable = 0
        self._counts: dict[str, int] = {}

    def add(self, path: Path, problem: InputError) -> None:
        message = problem.message
        self.reasons[str(path)] = message
        self.unsuitable += isinstance(problem, UnsuitableError)
        reason = message.removeprefix(f"{path}: ")
        self._counts[reason] = self._counts.get(reason, 0) + 1
        if self._counts[reason] <= _NAMED:
            _log.warning("skipped: %s", message if str(path) in message else f"{path}: {message}")

    def say_rest(self) -> None:
        for reason, count in self._counts.items():
            if count > _NAMED:
                _log.warning(
                    "skipped: %d more file(s), which manifest.json names, for the reason: %s", count - _NAMED, reason
                )
