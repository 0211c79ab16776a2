"""Names and values as MLflow takes them."""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

__all__ = ["clean_name", "clean_params", "clean_path", "clean_tags", "one_line", "plain"]

_NAME_LENGTH = 250  # MLflow's limits
_PARAM_LENGTH = 6000
_TAG_LENGTH = 8000


def clean_params(params: Mapping[str, object]) -> dict[str, str]:
    """Hyper-parameters, nested ones flattened with dots, as strings."""
    return {clean_name(name): _cut(str(value), _PARAM_LENGTH) for name, value in _flatten(params)}


def clean_tags(tags: Mapping[str, object]) -> dict[str, str]:
    """Tags as strings."""
    return {clean_name(name): _cut(str(value), _TAG_LENGTH) for name, value in tags.items()}


def clean_name(name: str) -> str:
    """`name` with what MLflow allows in a name: ASCII letters, digits, ``_-./`` and space; no leading dot or slash."""
    allowed = re.sub(r"[^A-Za-z0-9_\-./ ]", "_", name)
    return posixpath.normpath(allowed).lstrip("./ ")[:_NAME_LENGTH].rstrip("/. ") or "_"


def clean_path(path: str) -> str:
    """The normal form of an artifact's path; ValueError if it leads out of the run."""
    normal = posixpath.normpath(path)
    if normal in ("", ".") or normal.startswith(("/", "..")) or "\\" in normal:
        raise ValueError(f"the path of an artifact must be relative, with forward slashes and no '..', got {path!r}")
    return normal


def plain(value: object) -> object:
    """A cell of a table as JSON knows it; NaN and infinities become null, as in pandas."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def one_line(error: BaseException) -> str:
    """What an error says, shortened, without the user name and password that an address in it may carry."""
    text = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return _cut(re.sub(r"://[^/@\s]*@", "://", text), 300)


def _flatten(values: Mapping[Any, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
