"""Medical image denoising with convolutional denoising autoencoders, as a MONAI bundle and a Python package.

The public names are imported when first used, so that ``import meddenoise_monai`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .inference import Denoiser, load_denoiser
    from .networks import ConvDenoisingAutoencoder, ResidualDenoisingAutoencoder

__version__ = "0.1.0"

_PUBLIC = {
    "ConvDenoisingAutoencoder": "networks",
    "Denoiser": "inference",
    "ResidualDenoisingAutoencoder": "networks",
    "load_denoiser": "inference",
}

_MODULES = frozenset({"datasets", "inference", "noise", "runtime", "training"})

__all__ = ["ConvDenoisingAutoencoder", "Denoiser", "ResidualDenoisingAutoencoder", "__version__", "load_denoiser"]


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    if name in _MODULES:  # "$from meddenoise_monai import datasets" in a bundle's configuration looks attributes up
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
