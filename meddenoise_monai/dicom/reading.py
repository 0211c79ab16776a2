"""A DICOM file as an image: what can be read, in which units, and why the rest cannot."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, UnsuitableError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

__all__ = ["DicomImage", "read_dicom", "refusal", "silence"]

_NO_IMAGE = {
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.66.5": "a surface segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "a label map",
    "1.2.840.10008.5.1.4.1.1.481.2": "a dose distribution",
    "1.2.840.10008.5.1.4.1.1.30": "a parametric map",
    "1.2.840.10008.5.1.4.1.1.104.1": "an encapsulated PDF",
}
_NO_IMAGE_MODALITIES = {"SEG": "a segmentation", "RTDOSE": "a dose distribution"}


@dataclass(frozen=True)
class DicomImage:
    """Pixels of a DICOM object, as they are stored and in the units that its header gives them.

    Parameters
    ----------
    dataset
        All of it, with the pixel data as they were.
    stored
        (H, W), or (frames, H, W) where there are several: integers, as decoded.
    slopes, intercepts
        Of the rescale, one for each frame: value = stored * slope + intercept. 1 and 0 where there is none, or where a
        lookup table stands in its place.
    padding_range
        First and last of the stored values that stand where there is no image; None if there are none such.
    inverted
        Whether the largest values are shown darkest (MONOCHROME1).
    """

    dataset: FileDataset
    stored: NDArray[Any]
    slopes: NDArray[np.float64]
    intercepts: NDArray[np.float64]
    padding_range: tuple[int, int] | None
    inverted: bool

    def values(self) -> NDArray[Any]:
        """Pixels in the units of the header (HU for CT), of the shape of `stored`.

        Integers of 16 or 32 bits where the rescale leaves integers, else float64. Padding holds that one of the other
        values which is shown darkest, so that no edge surrounds the image.
        """
        values = self.stored
        if (self.slopes != 1).any() or (self.intercepts != 0).any():
            each = (slice(None), None, None) if values.ndim == 3 else (0,)
            values = values * self.slopes[each] + self.intercepts[each]
            if np.array_equal(values, np.rint(values)) and np.abs(values).max() < 2**31:
                values = values.astype(np.int16 if np.abs(values).max() < 2**15 else np.int32)
        padding = self.padding
        if padding.any() and not padding.all():
            inside = values[~padding]
            values = np.where(padding, inside.max() if self.inverted else inside.min(), values)
        return values

    @property
    def padding(self) -> NDArray[np.bool_]:
        """Where there is no image, of the shape of `stored`."""
        if self.padding_range is None:
            return np.zeros(self.stored.shape, bool)
        first, last = self.padding_range
        padded: NDArray[np.bool_] = (self.stored >= first) & (self.stored <= last)
        return padded


def refusal(dataset: Dataset) -> str:
    """Why the object is no grey image that can be denoised; empty if it is one. Its pixels are not looked at."""
    what = _NO_IMAGE.get(str(dataset.get("SOPClassUID", ""))) or _NO_IMAGE_MODALITIES.get(str(dataset.get("Modality")))
    if what:
        return f"the DICOM object is {what}"
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        return "the DICOM object holds pixels of floating point, as parametric maps do"
    if "PixelData" not in dataset or not photometric:
        return "the DICOM object holds no image"
    if not photometric.startswith("MONOCHROME") or int(dataset.get("SamplesPerPixel", 1) or 1) != 1:
        return f"the DICOM image is in colour ({photometric})"
    return "the DICOM image is a mask of one bit a pixel" if dataset.get("BitsAllocated") == 1 else ""


def read_dicom(path: str | os.PathLike[str]) -> DicomImage:
    """Read and decode one DICOM file.

    Raises
    ------
    UnsuitableError
        If the object is no grey image: in colour, a segmentation, a dose, a document.
    InputError
        If the file is none of DICOM, or its pixels cannot be decoded.
    Exception
        Whatever pydicom raises on a file that is broken.
    """
    import pydicom

    with silence():
        try:
            dataset = pydicom.dcmread(Path(path))
        except pydicom.errors.InvalidDicomError:
            raise InputError("the file has no DICOM header", "is it whole, and DICOM?") from None
        if reason := refusal(dataset):
            raise UnsuitableError(reason, "leave it out: grey images can be denoised")
        stored = _decoded(dataset)
        frames = len(stored) if stored.ndim == 3 else 1
        slopes, intercepts = np.array(list(_rescales(dataset, frames)), np.float64).T
    return DicomImage(
        dataset, stored, slopes, intercepts, _padding_range(dataset), dataset.PhotometricInterpretation == "MONOCHROME1"
    )


def _decoded(dataset: FileDataset) -> NDArray[Any]:
    """The stored values.

    Raises
    ------
    InputError
        If no decoder takes them: pydicom lists what each of them said.
    """
    try:
        stored: NDArray[Any] = dataset.pixel_array
    except RuntimeError as error:  # NotImplementedError, too
        if not dataset.file_meta.TransferSyntaxUID.is_compressed:
            raise
        name = dataset.file_meta.TransferSyntaxUID.name.split(" (")[0]
        raise InputError(
            f"no decoder takes its pixels, stored as {name}", "is the file whole? else decompress it first"
        ) from error
    return stored


@contextmanager
def silence() -> Iterator[None]:
    """pydicom comments on every slightly irregular file, with its values, and logs a traceback of failing decoders.

    In several threads at once the first silences it, and the last one lets it speak again.
    """
    global _silent
    with _lock:
        _silent += 1
        if _silent == 1:
            logger = logging.getLogger("pydicom")
            _undo.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL + 1)
            _undo.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
    try:
        yield
    finally:
        with _lock:
            _silent -= 1
            if _silent == 0:
                _undo.close()


_lock, _undo, _silent = threading.Lock(), ExitStack(), 0


def _rescales(dataset: Dataset, frames: int) -> Iterator[tuple[float, float]]:
    """Slope and intercept of each frame: of the object, or of its functional groups (enhanced CT, MR and PET)."""
    shared = _transformation(_first(dataset, "SharedFunctionalGroupsSequence"))
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    for frame in range(frames):
        own = _transformation(groups[frame]) if frame < len(groups) else None
        source = own or shared or dataset
        slope = float(source.get("RescaleSlope", 1) or 1)
        yield slope, float(source.get("RescaleIntercept", 0) or 0)


def _transformation(group: Dataset | None) -> Dataset | None:
    return _first(group, "PixelValueTransformationSequence") if group is not None else None


def _first(dataset: Dataset, keyword: str) -> Dataset | None:
    sequence = dataset.get(keyword)
    return sequence[0] if sequence else None


def _padding_range(dataset: Dataset) -> tuple[int, int] | None:
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    first, last = sorted(_as_stored(dataset, int(number)) for number in (value, value if limit is None else limit))
    return first, last


def _as_stored(dataset: Dataset, value: int) -> int:
    """The padding value with the sign of the pixels: some files give it as US beside signed pixels, or the reverse."""
    if dataset.get("PixelRepresentation") == 1:
        return value - 2**16 if value >= 2**15 else value
    return value + 2**16 if value < 0 else value
