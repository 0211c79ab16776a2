"""Programs of others that results are held to: installed by the first test that needs them, where that is allowed."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

PACKAGES = {
    "dciodvfy": "dicom3tools",
    "dcentvfy": "dicom3tools",
    "storescp": "dcmtk",
    "storescu": "dcmtk",
    "dcm2niix": "dcm2niix",
    "Orthanc": "orthanc orthanc-dicomweb",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
}
ALLOWED = "MEDDENOISE_APT"  # continuous integration sets it to 1; nobody's own machine is changed unasked


def need(*programs: str) -> None:
    """Skip the test unless these programs are there or can be installed."""
    missing = _missing(programs)
    if missing and os.environ.get(ALLOWED) == "1" and shutil.which("apt-get") and os.geteuid() == 0:
        with (Path(tempfile.gettempdir()) / "meddenoise-apt.lock").open("w") as lock:  # one of all test processes
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _missing(programs):
                _install()
        missing = _missing(programs)
    if missing:
        wanted = " ".join(sorted({PACKAGES[program] for program in missing}))
        pytest.skip(f"{', '.join(missing)} not installed (apt-get install {wanted}; {ALLOWED}=1 lets the tests do it)")


def _missing(programs: tuple[str, ...]) -> list[str]:
    return [program for program in programs if shutil.which(program) is None]


def _install() -> None:
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    packages = sorted({name for names in PACKAGES.values() for name in names.split()})
    for words in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        subprocess.run(["apt-get", "-qq", *words], env=quiet, capture_output=True, timeout=300, check=False)
