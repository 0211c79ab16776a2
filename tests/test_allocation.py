"""The C library keeps what a network frees."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import resource
import numpy as np
from meddenoise_monai.allocation import keep_freed_memory
print(keep_freed_memory())
for _ in range(3):
    np.ones(2**25)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(2**25)  # 256 MiB: 65,536 pages of 4 KiB, unless they are huge
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(**environment: str) -> tuple[str, int]:
    shown = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, env=environment)
    done, faults = shown.stdout.split()
    return done, int(faults)


@pytest.mark.e2e
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc is Linux's")
def test_freed_memory_is_used_again() -> None:
    done, faults = run()
    if done == "False":
        pytest.skip("another C library than glibc")
    assert faults < 100
    assert run(MALLOC_ARENA_MAX="4")[0] == "False"  # the user has chosen
    assert run(MALLOC_ARENA_MAX="4")[1] > faults
