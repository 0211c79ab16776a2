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
from .image_writing import WRITABLE_SUFFIXES, write_image
from .images import NIFTI_SUFFIXES, TIFF_SUFFIXES, ImageData, image_suffix, is_dicom, nifti_model
from .slices import nifti_slice_axis, slices_first

__all__ = ["float_name", "output_path", "write_result"]

# What becomes of the formats that are not written: JPEG would add artefacts of its own, and of PAR/REC nibabel can
# carry the place in space over.
_BECOMES = {".jpg": ".png", ".jpeg": ".png", ".par": ".nii.gz"}


def output_path(source: str | os.PathLike[str], root: str | os.PathLike[str] | None, folder: Path) -> Path:
    """Where the result of `source` goes below `folder`: the tree below `root` is mirrored.

    A file keeps its format. JPEG, which would add its own artefacts, becomes PNG, PAR/REC becomes NIfTI, and what else
    is not written becomes TIFF, named with the whole old name so that ``a.pnm`` and ``a.pgm`` stay apart.
    """
    source = Path(source)
    inside = source.relative_to(root) if root is not None and source.is_relative_to(root) else Path(source.name)
    suffix = image_suffix(source)
    if suffix in WRITABLE_SUFFIXES or is_dicom(source):
        return folder / inside
    return folder / inside.with_name(inside.name + _BECOMES.get(suffix, ".tif"))


def float_name(name: Path) -> Path:
    """What a file of float32 values that go with an image of that name is called: NIfTI stays NIfTI, everything else
    becomes TIFF, named with the whole old name."""
    return name if image_suffix(name) in NIFTI_SUFFIXES else name.with_name(name.name + ".tif")


def write_result(
    path: str | os.PathLike[str],
    values: NDArray[Any],
    source: ImageData,
    derivation: Derivation | None = None,
    transfer_syntax: str = "keep",
    keep_private: bool = False,
) -> Path:
    """Write what became of `source`, in its units and in the type that its file stores; DICOM as a derived object.

    Parameters
    ----------
    path
        From `output_path`.
    values
        Of the shape of ``source.array``; rounded and clipped where the stored type asks for it.
    source
        The image as it was read; a result of the same format takes over its metadata.
    derivation, transfer_syntax, keep_private
        For DICOM, as in `dicom.derive`.

    Raises
    ------
    InputError
        If the values are not finite, the file cannot be written, or the DICOM object is none that can be derived from.
    UsageError
        If the transfer syntax is unknown.
    """
    if not all(np.isfinite(line).all() for line in values):
        raise InputError("the result holds NaN or infinite values", "are the weights whole?")
    try:
        if source.dicom is None:
            return _write_image(path, values, source)
        change = values.astype(np.float64) - source.array
        made = derivation or Derivation(__version__, "", "settings unknown")
        return write_dicom(path, derive(source.dicom, change, made, transfer_syntax, keep_private))
    except MeddenoiseError:
        raise
    except Exception as error:  # a header that is broken in ways of its own; the other files go on
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"cannot make a result of {source.path}: {reason}", "is its header whole?") from error


def _write_image(path: str | os.PathLike[str], values: NDArray[Any], source: ImageData) -> Path:
    """All but DICOM."""
    old, new = image_suffix(source.path), image_suffix(path)
    if old in NIFTI_SUFFIXES:
        model = nifti_model(source.path)
        slope, intercept = model.dataobj.slope, model.dataobj.inter
        if values is source.array:  # not denoised: the stored values themselves, which no rescaling gives back exactly
            stored = slices_first(np.asanyarray(model.dataobj.get_unscaled()).T, nifti_slice_axis(model))
        else:
            stored = values if (slope, intercept) == (1, 0) else (values.astype(np.float64) - intercept) / slope
        return write_image(path, _as_type(stored, model.get_data_dtype().newbyteorder("=")), source.path, stored=True)
    if old == ".par":
        return write_image(path, _as_type(values, np.dtype(np.float32)), source.path)
    akin = old == new or {old, new} <= set(TIFF_SUFFIXES) or (old in (".jpg", ".jpeg") and new == ".png")
    return write_image(path, _as_type(values, source.array.dtype), source.path if akin else None)


def _as_type(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values in a type, rounded and clipped where it is one of integers."""
    if values.dtype == dtype:
        return values
    if dtype.kind == "f":
        with np.errstate(over="ignore"):  # what is too large is refused when it is written
            return values.astype(dtype)
    low, high = float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    # The largest integer of 64 bits is rounded up to a float that no cast back takes.
    high = high if high <= np.iinfo(dtype).max else float(np.nextafter(high, 0))
    return np.clip(np.rint(values.astype(np.float64)), low, high).astype(dtype)
