"""Where the result of an image file goes, and in which format and type."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import __version__
from .dicom import Derivation, derive, write_dicom
from .errors import InputError, MeddenoiseError
from .images import PICTURE_SUFFIXES, ImageData, image_suffix, is_dicom, write_image

__all__ = ["output_path", "write_result"]


def output_path(source: str | os.PathLike[str], root: str | os.PathLike[str] | None, folder: Path) -> Path:
    """Where the result of `source` goes below `folder`: the tree below `root` is mirrored.

    DICOM, NIfTI and 8/16-bit pictures keep their format; JPEG, which would add its own artefacts, becomes PNG;
    everything else becomes a float TIFF, named with the whole old name so that ``a.npy`` and ``a.mha`` stay apart.
    """
    source = Path(source)
    inside = source.relative_to(root) if root is not None and source.is_relative_to(root) else Path(source.name)
    suffix = image_suffix(source)
    if suffix in (".nii", ".nii.gz", ".png", ".pgm", ".bmp", ".tif", ".tiff") or is_dicom(source):
        return folder / inside
    if suffix in (".jpg", ".jpeg"):
        return folder / inside.with_name(inside.name + ".png")
    return folder / inside.with_name(inside.name + ".tif")


def write_result(
    path: str | os.PathLike[str],
    values: NDArray[Any],
    source: ImageData,
    derivation: Derivation | None = None,
    transfer_syntax: str = "keep",
    keep_private: bool = False,
) -> Path:
    """Write what became of `source`, in its units: DICOM as a derived object, integer pictures in their own dtype, all
    else as float32.

    Parameters
    ----------
    path
        From `output_path`.
    values
        Of the shape of ``source.array``; rounded and clipped where the dtype asks for it.
    source
        The image as it was read; a NIfTI result takes over its affine and header.
    derivation, transfer_syntax, keep_private
        For DICOM, as in `dicom.derive`.

    Raises
    ------
    InputError
        If the values are not finite, the file cannot be written, or the DICOM object is none that can be derived from.
    UsageError
        If the transfer syntax is unknown.
    """
    if source.dicom is not None:
        if not np.isfinite(values).all():
            raise InputError("the result holds NaN or infinite values", "are the weights whole?")
        change = values.astype(np.float64) - source.array
        made = derivation or Derivation(__version__, "", "settings unknown")
        try:
            derived = derive(source.dicom, change, made, transfer_syntax, keep_private)
        except MeddenoiseError:
            raise
        except Exception as error:  # a header that is broken in ways of its own; the other files go on
            raise InputError(f"cannot derive from {source.path}: {error}", "is the header whole?") from error
        return write_dicom(path, derived)
    dtype = source.array.dtype
    if image_suffix(source.path) in PICTURE_SUFFIXES and dtype.kind in "iu":
        if not np.isfinite(values).all():
            raise InputError("the result holds NaN or infinite values", "are the weights whole?")
        low, high = float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
        # The largest integer of 64 bits is rounded up to a float that no cast back takes.
        high = high if high <= np.iinfo(dtype).max else float(np.nextafter(high, 0))
        values = np.clip(np.rint(values.astype(np.float64)), low, high).astype(dtype)
    else:
        with np.errstate(over="ignore"):  # what is too large is refused when it is written
            values = values.astype(np.float32)
    return write_image(path, values, like=source.path if image_suffix(path) in (".nii", ".nii.gz") else None)
