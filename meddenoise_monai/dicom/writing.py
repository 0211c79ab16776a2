"""A denoised image as a *derived* DICOM object, as PS3.3 of the standard wants it.

What changes against the source, attribute by attribute, stands in `docs/dicom_conformance.md`. Everything is a function
of the source, the weights and the parameters: the same input gives the same bytes, so an archive sees no duplicates.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, UnsuitableError, UsageError
from ..whole_files import replace_whole
from .reading import DicomImage, silence

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

__all__ = [
    "TRANSFER_SYNTAXES",
    "Derivation",
    "check_derivable",
    "check_transfer_syntax",
    "derive",
    "is_derived_here",
    "write_dicom",
]

TRANSFER_SYNTAXES = ("keep", "explicit", "rle", "j2k")
_SOFTWARE = "meddenoise_monai"
_IMPLEMENTATION = ("1.2.826.0.1.3680043.8.498.40291747380519", "MEDDENOISE")  # below pydicom's root, as all our UIDs

# Facts of the old pixels, of the old file, or of the old object's making.
_DROPPED = (
    *("SmallestImagePixelValue", "LargestImagePixelValue", "SmallestPixelValueInSeries", "LargestPixelValueInSeries"),
    *("IconImageSequence", "HistogramSequence", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *("DigitalSignaturesSequence", "MACParametersSequence", "EncryptedAttributesSequence", "DataSetTrailingPadding"),
    *("InstanceCreationDate", "InstanceCreationTime", "InstanceCreatorUID", "StorageMediaFileSetUID"),
    *("SourceImageSequence", "DerivationCodeSequence", "DerivationDescription"),
)
_EQUIPMENT = (
    *("Manufacturer", "InstitutionName", "StationName", "ManufacturerModelName", "DeviceSerialNumber"),
    "SoftwareVersions",
)
_LOSSY_METHODS = {
    **dict.fromkeys(("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"), "ISO_10918_1"),
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
    **dict.fromkeys(("1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203"), "ISO_15444_1"),
}


@dataclass(frozen=True)
class Derivation:
    """How an image was made: what its description, its UIDs and its equipment say.

    Parameters
    ----------
    version
        Of this software.
    weights
        A digest of the network's weights, hexadecimal.
    settings
        What was asked for, in words, such as ``noise auto, strength 1``: all that the result depends on, besides the
        source and the weights.
    variant
        What of it is not the default, in words, for Series Description: by that a viewer tells series apart.
    """

    version: str
    weights: str
    settings: str
    variant: str = ""

    def description(self) -> str:
        """For Derivation Description (ST, 1024 characters)."""
        return f"Denoised by {_SOFTWARE} {self.version} (weights {self.weights[:16]}): {self.settings}"[:1024]

    def uid(self, kind: str, source: str) -> str:
        """A UID that depends on this derivation and on what it is derived from."""
        from pydicom.uid import generate_uid

        return str(generate_uid(entropy_srcs=["\n".join((_SOFTWARE, kind, source, self.weights, self.settings))]))


def check_transfer_syntax(name: str) -> None:
    """Refuse what is none of `TRANSFER_SYNTAXES`.

    Raises
    ------
    UsageError
        With the known ones in its hint.
    """
    if name not in TRANSFER_SYNTAXES:
        raise UsageError(f"unknown transfer syntax: {name!r}", f"known: {', '.join(TRANSFER_SYNTAXES)}")


def check_derivable(dataset: Dataset) -> None:
    """Refuse what can be read but not written back whole.

    Raises
    ------
    UnsuitableError
        Big-endian files, more than 16 bits, overlays among the pixels' bits, objects without the UIDs to refer to.
    """
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is not None and syntax.is_little_endian is False:
        raise UnsuitableError(
            "the DICOM file is big-endian, which the standard has retired", "convert it, with dcmconv +te"
        )
    if dataset.BitsAllocated not in (8, 16):
        raise UnsuitableError(f"the DICOM image has {dataset.BitsAllocated} bits a pixel, not 8 or 16", "leave it out")
    for group in range(0x6000, 0x6020, 2):
        if (group, 0x0102) in dataset and (dataset[group, 0x0102].value or 0) > 0:
            raise UnsuitableError(
                "the DICOM image has an overlay among its pixels' bits", "convert it to overlay data first"
            )
    missing = [name for name in ("SOPClassUID", "SOPInstanceUID") if not dataset.get(name)]
    if missing:
        raise UnsuitableError(
            f"the DICOM object lacks {' and '.join(missing)}", "no result can refer to it; leave it out"
        )


def is_derived_here(dataset: Dataset) -> bool:
    """Whether the object is a result of this software: denoised twice, it would lose detail, and an archive that sends
    on whatever it receives would never come to an end."""
    return [dataset.get(name) for name in ("Manufacturer", "ManufacturerModelName")] == [_SOFTWARE, _SOFTWARE]


def denoised_pixels(image: DicomImage, change: NDArray[Any]) -> NDArray[Any]:
    """Stored values plus `change`, which is in the units of the header: rounded, within BitsStored, padding kept.

    A pixel that comes to lie on the padding value moves to the nearest value that is none, or viewers would take it for
    background.
    """
    stored, dataset = image.stored, image.dataset
    slopes = image.slopes[:, None, None] if stored.ndim == 3 else image.slopes[0]
    result = np.rint(stored + change / slopes)
    signed, bits = bool(dataset.PixelRepresentation), int(dataset.BitsStored)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    # Some sources break their own BitsStored; they come back as they are.
    result = np.clip(result, min(low, stored.min()), max(high, stored.max()))
    if image.padding_range is not None:
        first, last = image.padding_range
        padding = image.padding
        astray = (result >= first) & (result <= last) & ~padding
        # Outwards, to the side that it came from, if there is room.
        upwards = (stored[astray] > last) & (last < high) | (first <= low)
        result[astray] = np.where(upwards, last + 1, first - 1)
        result[padding] = stored[padding]
    return result.astype(stored.dtype)


def derive(
    image: DicomImage,
    change: NDArray[Any],
    derivation: Derivation,
    transfer_syntax: str = "keep",
    keep_private: bool = False,
) -> FileDataset:
    """The derived object; the source is left as it is.

    Parameters
    ----------
    image
        As `read_dicom` gave it.
    change
        What denoising adds, of the shape of ``image.stored``, in the units of the header (HU for CT).
    derivation
        How it was made.
    transfer_syntax
        ``keep``: that of the source, or explicit VR little endian where that is lossy or cannot be written;
        ``explicit``; or the lossless ``rle`` and ``j2k`` (JPEG 2000).
    keep_private
        Private attributes may hold facts of the old pixels and are dropped by default.

    Raises
    ------
    UsageError
        If `transfer_syntax` is none of the above.
    InputError
        If the object cannot be written back (`check_derivable`).
    """
    check_transfer_syntax(transfer_syntax)
    source = image.dataset
    check_derivable(source)
    pixels = denoised_pixels(image, change)
    result = copy.deepcopy(source)
    if not keep_private:
        result.remove_private_tags()
    for keyword in _DROPPED:
        if keyword in result:
            delattr(result, keyword)
    _mark_lossy(result)
    # The pixels count, too: another processor may round them otherwise, and one UID never names two images.
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    result.SOPInstanceUID = derivation.uid("instance", f"{source.SOPInstanceUID}\n{digest}\n{keep_private}")
    series = source.get("SeriesInstanceUID") or source.get("StudyInstanceUID") or ""
    result.SeriesInstanceUID = derivation.uid("series", series)
    if isinstance(source.get("SeriesNumber"), int):
        result.SeriesNumber = source.SeriesNumber + 1000 if source.SeriesNumber < 2**31 - 1000 else source.SeriesNumber
    added = " ".join(("denoised", *([f"({derivation.variant})"] if derivation.variant else [])))
    result.SeriesDescription = f"{source.get('SeriesDescription') or ''} {added}".strip()[-64:]
    _mark_derived(result, source, derivation)
    _change_equipment(result, derivation)
    _set_pixels(result, pixels, transfer_syntax)
    return result


def write_dicom(path: str | os.PathLike[str], dataset: FileDataset) -> Path:
    """Write a derived object, whole or not at all.

    Raises
    ------
    InputError
        If pydicom cannot encode an attribute, or the file system refuses.
    """
    path = Path(path)
    with replace_whole(path) as temporary:
        try:
            with silence():
                dataset.save_as(temporary, enforce_file_format=True)
        except (ValueError, TypeError, AttributeError, KeyError, NotImplementedError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"cannot encode {path.name}: {reason}", "is the source whole?") from error
    return path


def _code(value: str, meaning: str) -> Dataset:
    from pydicom.dataset import Dataset

    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code


def _reference(source: Dataset) -> Dataset:
    """An item of Source Image Sequence."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    item.SpatialLocationsPreserved = "YES"
    item.PurposeOfReferenceCodeSequence = [_code("121322", "Source image for image processing operation")]
    return item


def _is_enhanced(dataset: Dataset) -> bool:
    """Whether what concerns a frame stands in functional groups; some files have lost theirs."""
    groups = "SharedFunctionalGroupsSequence" in dataset or "PerFrameFunctionalGroupsSequence" in dataset
    return groups or dataset.SOPClassUID.name.startswith("Enhanced ")


def _evidence(source: Dataset) -> Dataset:
    """An item of Source Image Evidence Sequence: the way from the study to the source."""
    from pydicom.dataset import Dataset

    study, series, instance = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    series.SeriesInstanceUID, series.ReferencedSOPSequence = source.get("SeriesInstanceUID", ""), [instance]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = source.get("StudyInstanceUID", ""), [series]
    return study


def _groups(dataset: Dataset) -> Iterator[Dataset]:
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        yield from dataset.get(keyword) or ()


def _mark_derived(result: Dataset, source: Dataset, derivation: Derivation) -> None:
    kinds = _values(source.get("ImageType"))
    if not _is_enhanced(source):
        result.ImageType = ["DERIVED", "SECONDARY", *kinds[2:]]
        holders: Sequence[Dataset] = [result]
    else:
        # In enhanced objects the second value stays PRIMARY, each frame has a type, and the derivation a group.
        from pydicom.dataset import Dataset

        result.ImageType = ["DERIVED", *(kinds[1:] or ["PRIMARY"])]
        for group in _groups(result):
            for element in group:
                if element.VR == "SQ" and element.value and "FrameType" in element.value[0]:
                    element.value[0].FrameType = ["DERIVED", *_values(element.value[0].FrameType)[1:]]
        result.SourceImageEvidenceSequence = [_evidence(source)]
        frames = list(result.get("PerFrameFunctionalGroupsSequence") or ())
        if not frames and not result.get("SharedFunctionalGroupsSequence"):
            result.SharedFunctionalGroupsSequence = [Dataset()]
        shared = list(result.get("SharedFunctionalGroupsSequence") or ())
        in_frames = any("DerivationImageSequence" in group for group in frames) or not shared
        holders = [Dataset() for _ in (frames if in_frames else shared)]
        for group, holder in zip(frames if in_frames else shared, holders, strict=True):
            group.DerivationImageSequence = [holder]
    for holder in holders:
        holder.DerivationDescription = derivation.description()
        holder.DerivationCodeSequence = [_code("113087", "Smoothing")]
        holder.SourceImageSequence = [_reference(source)]


def _values(value: Any) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _change_equipment(result: Dataset, derivation: Derivation) -> None:
    """This software made the object; the scanner contributed."""
    from pydicom.dataset import Dataset

    scanner = Dataset()
    for keyword in _EQUIPMENT:
        if result.get(keyword):
            setattr(scanner, keyword, result[keyword].value)
    scanner.Manufacturer = scanner.get("Manufacturer") or "unknown"
    scanner.PurposeOfReferenceCodeSequence = [_code("109101", "Acquisition Equipment")]
    result.ContributingEquipmentSequence = [*(result.get("ContributingEquipmentSequence") or ()), scanner]
    result.Manufacturer = result.ManufacturerModelName = _SOFTWARE
    result.SoftwareVersions = derivation.version
    for keyword in ("DeviceSerialNumber", "StationName"):
        if keyword in result:
            delattr(result, keyword)
    if _is_enhanced(result):
        result.DeviceSerialNumber = derivation.weights[:16]  # Enhanced General Equipment demands one


def _mark_lossy(result: FileDataset) -> None:
    """A lossy source stays one, whatever it is stored as now."""
    method = _LOSSY_METHODS.get(str(result.file_meta.TransferSyntaxUID))
    if method is None or result.get("LossyImageCompression") == "01":
        return
    raw = result.Rows * result.Columns * int(result.get("NumberOfFrames", 1) or 1) * result.BitsAllocated / 8
    result.LossyImageCompression = "01"
    result.LossyImageCompressionRatio = f"{raw / max(1, len(result.PixelData)):.3f}"
    result.LossyImageCompressionMethod = method


def _set_pixels(result: FileDataset, pixels: NDArray[Any], transfer_syntax: str) -> None:
    from pydicom import uid

    old = result.file_meta.TransferSyntaxUID
    kept = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian)
    compressed: str | None = {"rle": uid.RLELossless, "j2k": uid.JPEG2000Lossless}.get(transfer_syntax)
    if transfer_syntax == "keep" and old in (uid.RLELossless, uid.JPEG2000Lossless):
        compressed = old
    result.file_meta.TransferSyntaxUID = old if transfer_syntax == "keep" and old in kept else kept[1]
    result.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes() + b"\0" * (pixels.nbytes % 2)
    implicit = result.file_meta.TransferSyntaxUID == kept[0]
    result["PixelData"].VR = "OW" if result.BitsAllocated > 8 or implicit else "OB"
    result["PixelData"].is_undefined_length = False
    result.file_meta.MediaStorageSOPClassUID = result.SOPClassUID
    result.file_meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID
    result.file_meta.ImplementationClassUID = uid.UID(_IMPLEMENTATION[0])
    result.file_meta.ImplementationVersionName = _IMPLEMENTATION[1]
    for keyword in ("SourceApplicationEntityTitle", "PrivateInformationCreatorUID", "PrivateInformation"):
        if keyword in result.file_meta:
            delattr(result.file_meta, keyword)
    result.preamble = b"\0" * 128
    if compressed is not None:
        plugin = "pydicom" if compressed == uid.RLELossless else "pylibjpeg"
        uncompressed = result["PixelData"], result.file_meta.TransferSyntaxUID
        try:
            result.compress(compressed, encoding_plugin=plugin, generate_instance_uid=False)
        except RuntimeError as error:  # JPEG 2000 needs 32 pixels a side
            if transfer_syntax != "keep":
                raise InputError(f"the image cannot be compressed as {transfer_syntax}", "take explicit") from error
            result["PixelData"], result.file_meta.TransferSyntaxUID = uncompressed
