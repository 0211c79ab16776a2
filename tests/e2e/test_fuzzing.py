"""The cases of `fuzz_cases.py`, each kind in a process of its own: a reader in C that aborts must not end the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

CASES = Path(__file__).with_name("fuzz_cases.py")


@pytest.mark.parametrize("kind", ["bytes_of_dicom_files", "bytes_of_pictures", "bytes_of_volumes",
                                  "attributes_of_dicom_files"])  # fmt: skip
def test_odd_files(kind: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "--no-cov",
             "--basetemp", str(tmp_path / "cases"), f"{CASES}::test_{kind}"]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=900, check=False,
                           cwd=CASES.parents[2])  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]
    assert "1 passed" in ended.stdout
