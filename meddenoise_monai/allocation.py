"""How the C library hands memory out, which on a CPU decides half of a network's speed."""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["keep_freed_memory"]

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_KEPT = 2**30


def keep_freed_memory() -> bool:
    """Let the process keep up to 1 GiB of freed memory instead of giving it back after every layer.

    Each layer of a network asks for tens of megabytes and frees them at once. glibc gets such pieces from the system
    and gives them back, and the system clears each page anew: the released network took 1.5 to 1.9 times as long on
    images of 1024 and 2048 pixels a side (one thread, ``scripts/benchmark_speed.py`` with and without
    ``MALLOC_ARENA_MAX=8``). The setting is the process's: it is left alone where the user has chosen (``MALLOC_…``
    variables or another allocator by ``LD_PRELOAD``), and exists for glibc on Linux only.

    Returns
    -------
    bool
        Whether it is done.
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ) or os.environ.get("LD_PRELOAD")
    if chosen or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT))
