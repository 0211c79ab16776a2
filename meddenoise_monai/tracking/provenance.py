"""Where a result comes from: the versions that made it, and pseudonyms for the cases in it."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import importlib.metadata
import os
import platform

from .. import __version__

__all__ = ["case_id", "environment_versions"]

_DISTRIBUTIONS = ("torch", "monai", "numpy", "pytorch-ignite", "scikit-image", "pydicom", "nibabel", "mlflow")


def environment_versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape a result, by distribution name; absent ones are left out.

    Read from the installed metadata: imports nothing.
    """
    versions = {"python": platform.python_version(), "meddenoise_monai": __version__}
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def case_id(text: str) -> str:
    """Short stable name for a case, to be recorded in place of its file name: 12 hexadecimal digits of SHA-256.

    This is a pseudonym, not an anonymisation: whoever can guess the name can check the guess. With the environment
    variable ``MEDDENOISE_CASE_SALT`` set (and kept secret) the digits are of HMAC-SHA-256 under that key instead.
    """
    salt = os.environ.get("MEDDENOISE_CASE_SALT", "")
    name = text.encode(errors="surrogatepass")  # names of files need be no UTF-8
    if salt:
        return hmac.new(salt.encode(), name, hashlib.sha256).hexdigest()[:12]
    return hashlib.sha256(name).hexdigest()[:12]
