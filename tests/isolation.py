"""An environment that has nothing but some packages and what they require: a folder of links to the installed ones."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement


def closure(names: Iterable[str]) -> set[str]:
    """The installed distributions of these names, and all that they require, without extras."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [name.lower().replace("_", "-") for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = importlib.metadata.distribution(name)
        for line in found[name].requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name.lower().replace("_", "-"))
    return set(found)


def link_packages(names: Iterable[str], folder: Path) -> Path:
    """Link the files of `closure(names)` into `folder`, which then can be a PYTHONPATH."""
    folder.mkdir()
    for name in closure(names):
        distribution = importlib.metadata.distribution(name)
        for file in distribution.files or ():
            top = file.parts[0]
            source = Path(str(distribution.locate_file(top)))
            if top not in ("..", "__pycache__") and not top.endswith(".pth") and not (folder / top).is_symlink():
                (folder / top).symlink_to(source)
    return folder


def isolated(folder: Path) -> tuple[list[str], dict[str, str]]:
    """How to start a Python that sees its standard library and `folder` alone, and the variables to start it with."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MLFLOW_", "COV"))}
    return [sys.executable, "-S"], {**kept, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
