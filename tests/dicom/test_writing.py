"""Derived DICOM objects: pixels, attributes, and what `dciodvfy` says of them."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from meddenoise_monai.dicom import Derivation, DicomImage, derive, read_dicom, write_dicom
from meddenoise_monai.errors import InputError, UsageError
from tests.debian import need

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

DERIVATION = Derivation("1.2.3", "0123456789abcdef", "noise auto, strength 1.0")
SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"
TABLE = Path(__file__).parents[2] / "docs" / "dicom_conformance.md"


def opened(name: str) -> DicomImage:
    return read_dicom(Path(str(get_testdata_file(name))))


def nothing(image: DicomImage) -> Any:
    return np.zeros(image.stored.shape)


def image_of(
    stored: np.ndarray[Any, Any], bits: int, *, slope: float = 1.0, padding_range: tuple[int, int] | None = None
) -> DicomImage:
    """A small CT slice with these stored values."""
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = stored.dtype.itemsize * 8, bits, bits - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.tobytes()
    dataset.RescaleSlope = slope
    del dataset.PixelPaddingValue
    return DicomImage(dataset, stored, np.array([slope]), np.array([0.0]), padding_range, inverted=False)


# --- Pixels -----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(2, 16), signed=st.booleans(), slope=st.sampled_from([1.0, 0.5, 3.0, 0.0131]), seed=st.integers(0)
)
def test_values_and_back_is_the_identity(bits: int, signed: bool, slope: float, seed: int) -> None:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    kind = ("i" if signed else "u") + ("1" if bits <= 8 else "2")
    stored = np.random.default_rng(seed).integers(low, high, (5, 6), endpoint=True).astype(kind)
    image = image_of(stored, bits, slope=slope)
    result = derive(image, nothing(image), DERIVATION)
    np.testing.assert_array_equal(np.frombuffer(result.PixelData[: stored.nbytes], kind).reshape(5, 6), stored)
    # And whatever is added, the bits hold it.
    wild = derive(image, np.random.default_rng(seed).normal(0, 1e5, (5, 6)), DERIVATION)
    pixels = np.frombuffer(wild.PixelData[: stored.nbytes], kind)
    assert low <= pixels.min() <= pixels.max() <= high


def test_a_change_in_units_is_divided_by_the_slope_and_rounded() -> None:
    image = image_of(np.full((2, 2), 100, np.int16), 16, slope=0.5)
    result = derive(image, np.array([[0.0, 0.2], [0.3, -5.0]]), DERIVATION)
    assert result.pixel_array.tolist() == [[100, 100], [101, 90]]


@pytest.mark.parametrize(
    ("padding", "stored", "wanted", "expected"),
    [
        ((0, 0), [0, 1, 8, 9], [5, 0, 0, 9], [0, 1, 1, 9]),  # below the padding there is nothing
        ((4, 6), [0, 1, 8, 5], [0, 5, 5, 99], [0, 3, 7, 5]),  # back to the side that each came from
        ((0, 2), [0, 3, 8, 9], [7, 1, 7, 9], [0, 3, 7, 9]),
        ((250, 255), [255, 200, 249, 0], [0, 255, 252, 0], [255, 249, 249, 0]),  # above it neither
    ],
)
def test_padding_stays_and_nothing_else_becomes_padding(
    padding: tuple[int, int], stored: list[int], wanted: list[int], expected: list[int]
) -> None:
    image = image_of(np.array([stored], np.uint8), 8, padding_range=padding)
    change = np.array([wanted], float) - image.stored
    assert derive(image, change, DERIVATION).pixel_array[0].tolist() == expected


def test_frames_of_an_enhanced_object_have_their_own_slopes(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    groups = []
    for slope in (1.0, 4.0):
        group, transformation = Dataset(), Dataset()
        transformation.RescaleSlope, transformation.RescaleIntercept, transformation.RescaleType = slope, -10, "HU"
        group.PixelValueTransformationSequence = [transformation]
        kind = Dataset()
        kind.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
        group.CTImageFrameTypeSequence = [kind]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.NumberOfFrames = 2
    dataset.PixelData = dataset.PixelData * 2
    del dataset.PixelPaddingValue
    dataset.save_as(tmp_path / "enhanced.dcm")
    image = read_dicom(tmp_path / "enhanced.dcm")
    assert image.slopes.tolist() == [1, 4]
    np.testing.assert_array_equal(image.values()[1], image.stored[1] * 4.0 - 10)
    result = derive(image, np.full(image.stored.shape, 8.0), DERIVATION)
    added = result.pixel_array.astype(int) - image.stored
    assert (added[0] == 8).all()
    assert (added[1] == 2).all()
    assert list(result.ImageType[:2]) == ["DERIVED", "PRIMARY"]
    for group in result.PerFrameFunctionalGroupsSequence:
        assert group.CTImageFrameTypeSequence[0].FrameType[0] == "DERIVED"
        assert (
            group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID == dataset.SOPInstanceUID
        )
    evidence = result.SourceImageEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.SeriesInstanceUID == dataset.SeriesInstanceUID
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == dataset.SOPInstanceUID
    assert result.DeviceSerialNumber == "0123456789abcdef"
    assert "DerivationDescription" not in result
    assert dataset.PerFrameFunctionalGroupsSequence[0].CTImageFrameTypeSequence[0].FrameType[0] == "ORIGINAL"


@pytest.mark.parametrize(("signed", "value"), [(1, 63536), (0, -2000)])
def test_padding_with_the_wrong_sign_is_padding(tmp_path: Path, signed: int, value: int) -> None:
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    stored = dataset.pixel_array.astype(np.int16 if signed else np.uint16)
    stored[:20] = np.int16(-2000) if signed else np.uint16(63536)
    dataset.PixelRepresentation, dataset.PixelData = signed, stored.tobytes()
    dataset["PixelPaddingValue"] = pydicom.DataElement(0x00280120, "US" if signed else "SS", value)
    dataset.save_as(tmp_path / "a.dcm")
    image = read_dicom(tmp_path / "a.dcm")
    assert image.padding[:20].all()
    assert image.values().min() > -2000
    result = derive(image, nothing(image) + 5, DERIVATION)
    np.testing.assert_array_equal(result.pixel_array[:20], stored[:20])


# --- Attributes -------------------------------------------------------------------------------------------------------


def test_identity_of_the_result() -> None:
    image = opened("CT_small.dcm")
    source = image.dataset
    source.SeriesNumber, source.SeriesDescription = 3, "Thorax"
    result = derive(image, nothing(image), DERIVATION)
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "InstanceNumber", "ImagePositionPatient",
                    "RescaleSlope", "RescaleIntercept", "PixelSpacing", "StudyDate", "AcquisitionDate"):  # fmt: skip
        assert result[keyword].value == source[keyword].value
    again = derive(image, nothing(image), DERIVATION)
    brighter = derive(image, nothing(image) + 1, DERIVATION)
    other = derive(image, nothing(image), Derivation("1.2.3", "0123456789abcdef", "noise auto, strength 0.5"))
    assert result.SOPInstanceUID == again.SOPInstanceUID
    assert len({one.SOPInstanceUID for one in (source, result, brighter, other)}) == 4
    assert result.SeriesInstanceUID == brighter.SeriesInstanceUID
    assert len({source.SeriesInstanceUID, result.SeriesInstanceUID, other.SeriesInstanceUID}) == 3
    assert result.file_meta.MediaStorageSOPInstanceUID == result.SOPInstanceUID
    assert (result.SeriesNumber, result.SeriesDescription) == (1003, "Thorax denoised")
    assert result.ImageType[:2] == ["DERIVED", "SECONDARY"]
    assert list(result.ImageType[2:]) == list(source.ImageType[2:])
    assert result.DerivationDescription == (
        "Denoised by meddenoise_monai 1.2.3 (weights 0123456789abcdef): noise auto, strength 1.0"
    )
    assert result.DerivationCodeSequence[0].CodeValue == "113087"
    reference = result.SourceImageSequence[0]
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert reference.SpatialLocationsPreserved == "YES"
    assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    scanner = result.ContributingEquipmentSequence[-1]
    assert scanner.Manufacturer == source.Manufacturer == "GE MEDICAL SYSTEMS"
    assert scanner.StationName == source.StationName
    assert scanner.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"
    assert (result.Manufacturer, result.SoftwareVersions) == ("meddenoise_monai", "1.2.3")
    assert "StationName" not in result
    assert "DerivationDescription" not in source  # the source is left as it was
    assert source.Manufacturer == "GE MEDICAL SYSTEMS"


def test_slices_of_a_series_stay_together() -> None:
    image, second = opened("CT_small.dcm"), opened("CT_small.dcm")
    second.dataset.SOPInstanceUID = "1.2.3.4"
    first = derive(image, nothing(image), DERIVATION)
    other = derive(second, nothing(second), DERIVATION)
    assert first.SeriesInstanceUID == other.SeriesInstanceUID
    assert first.SOPInstanceUID != other.SOPInstanceUID


def test_facts_of_the_old_pixels_are_dropped_and_private_ones_kept_on_request() -> None:
    image = opened("CT_small.dcm")
    image.dataset.LargestImagePixelValue = 7
    image.dataset["LargestImagePixelValue"].VR = "SS"
    image.dataset.IconImageSequence = [Dataset()]
    image.dataset.InstanceCreationTime = "120000"
    assert any(element.tag.is_private for element in image.dataset)
    result = derive(image, nothing(image), DERIVATION)
    for keyword in ("LargestImagePixelValue", "IconImageSequence", "InstanceCreationTime"):
        assert keyword not in result
    assert not any(element.tag.is_private for element in result)
    kept = derive(image, nothing(image), DERIVATION, keep_private=True)
    assert sum(e.tag.is_private for e in kept) == sum(e.tag.is_private for e in image.dataset)


def test_what_was_compressed_with_loss_says_so() -> None:
    image = opened("JPEGLSNearLossless_16.dcm")
    for keyword in ("LossyImageCompression", "LossyImageCompressionMethod", "LossyImageCompressionRatio"):
        image.dataset.pop(keyword, None)
    result = derive(image, nothing(image), DERIVATION)
    assert result.LossyImageCompression == "01"
    assert result.LossyImageCompressionMethod == "ISO_14495_1"
    assert 1 < float(result.LossyImageCompressionRatio) < 50
    assert result.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian


# --- Transfer syntaxes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "syntax", "expected"),
    [
        ("MR_small.dcm", "keep", uid.ExplicitVRLittleEndian),
        ("MR_small_implicit.dcm", "keep", uid.ImplicitVRLittleEndian),
        ("MR_small_RLE.dcm", "keep", uid.RLELossless),
        ("MR_small_jp2klossless.dcm", "keep", uid.JPEG2000Lossless),
        ("MR_small_jpeg_ls_lossless.dcm", "keep", uid.ExplicitVRLittleEndian),
        ("693_J2KI.dcm", "keep", uid.ExplicitVRLittleEndian),
        ("image_dfl.dcm", "keep", uid.DeflatedExplicitVRLittleEndian),
        ("MR_small_implicit.dcm", "explicit", uid.ExplicitVRLittleEndian),
        ("CT_small.dcm", "rle", uid.RLELossless),
        ("MR_small_RLE.dcm", "j2k", uid.JPEG2000Lossless),
    ],
)
def test_transfer_syntaxes(tmp_path: Path, name: str, syntax: str, expected: str) -> None:
    image = opened(name)
    change = np.random.default_rng(0).normal(0, 3, image.stored.shape)
    written = write_dicom(tmp_path / "a.dcm", derive(image, change, DERIVATION, syntax))
    result = pydicom.dcmread(written)
    assert result.file_meta.TransferSyntaxUID == expected
    plain = derive(image, change, DERIVATION, "explicit").pixel_array
    np.testing.assert_array_equal(result.pixel_array, plain)
    assert not np.array_equal(plain, image.stored)
    again = write_dicom(tmp_path / "b.dcm", derive(image, change, DERIVATION, syntax))
    assert again.read_bytes() == written.read_bytes()


def test_unknown_transfer_syntax() -> None:
    image = opened("CT_small.dcm")
    with pytest.raises(UsageError, match="unknown transfer syntax: 'jpeg'"):
        derive(image, nothing(image), DERIVATION, "jpeg")


def test_jpeg2000_of_a_tiny_image_is_refused() -> None:
    image = image_of(np.arange(16, dtype=np.int16).reshape(4, 4), 16)
    with pytest.raises(InputError, match="cannot be compressed as j2k"):
        derive(image, nothing(image), DERIVATION, "j2k")


# --- What cannot be derived from --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MR_small_bigendian.dcm", "MR_small_expb.dcm"])
def test_big_endian_is_refused(name: str) -> None:
    image = opened(name)
    with pytest.raises(InputError, match="big-endian"):
        derive(image, nothing(image), DERIVATION)


def test_an_object_without_a_uid_and_an_overlay_among_the_bits_are_refused() -> None:
    image = opened("CT_small.dcm")
    image.dataset.add_new((0x6000, 0x0102), "US", 12)
    with pytest.raises(InputError, match="overlay among its pixels' bits"):
        derive(image, nothing(image), DERIVATION)
    image = opened("CT_small.dcm")
    del image.dataset.SOPInstanceUID
    with pytest.raises(InputError, match="lacks SOPInstanceUID"):
        derive(image, nothing(image), DERIVATION)


def test_more_than_16_bits_are_refused() -> None:
    image = image_of(np.arange(16, dtype=np.int32).reshape(4, 4), 32)
    with pytest.raises(InputError, match="32 bits a pixel"):
        derive(image, nothing(image), DERIVATION)


# --- Everything that pydicom ships ------------------------------------------------------------------------------------


def complaints(path: Path, beside: tuple[str, ...] = ()) -> set[str]:
    """The kinds of errors and warnings of dciodvfy, but for those with certain words; numbers and values aside."""
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, errors="replace", timeout=60)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if not any(word in line for word in beside)]
    return {re.sub(r"<[^>]*>|\d+", "#", line) for line in lines if line.startswith(("Error", "Warning"))}


def shipped() -> list[Path]:
    """Pixel files that ship inside pydicom, small pictures of its DICOMDIR tests included."""
    found = []
    for path in sorted(SHIPPED.rglob("*")):
        if path.is_file() and "DICOMDIR" not in path.name and path.suffix in ("", ".dcm"):
            try:
                header = pydicom.dcmread(path, stop_before_pixels=False)
            except Exception:  # not DICOM
                continue
            if "PixelData" in header:
                found.append(path)
    return found


def fate(path: Path, result: Path) -> str:
    """What becomes of a file: its transfer syntax, or why it is refused."""
    try:
        image = read_dicom(path)
        written = derive(image, nothing(image), DERIVATION)
    except InputError as error:
        return f"refused: {error.message}"
    except Exception as error:
        return f"refused: cannot be decoded ({type(error).__name__})"
    write_dicom(result, written)
    back = read_dicom(result)
    np.testing.assert_array_equal(back.stored, image.stored)
    assert back.stored.dtype == image.stored.dtype
    return f"derived, {uid.UID(back.dataset.file_meta.TransferSyntaxUID).name}"


def test_every_shipped_file_is_derived_from_or_refused_as_the_table_says(tmp_path: Path) -> None:
    fates = {path.relative_to(SHIPPED).as_posix(): fate(path, tmp_path / "a.dcm") for path in shipped()}
    small = Counter(what for name, what in fates.items() if name.startswith("dicomdirtests"))
    lines = [f"| `{name}` | {what} |" for name, what in fates.items() if not name.startswith("dicomdirtests")]
    lines += [f"| {count} images of 16 × 16 in `dicomdirtests/` | {what} |" for what, count in small.items()]
    table = "\n".join(lines)
    assert table in TABLE.read_text(encoding="utf-8"), f"docs/dicom_conformance.md should hold\n{table}"
    assert sum(what.startswith("derived") for what in fates.values()) >= 15 + sum(small.values())


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.stem)
def test_dciodvfy_finds_nothing_new(path: Path, tmp_path: Path) -> None:
    need("dciodvfy")
    if fate(path, tmp_path / "a.dcm").startswith("refused"):
        pytest.skip("refused")
    if pydicom.dcmread(path).file_meta.TransferSyntaxUID == uid.DeflatedExplicitVRLittleEndian:
        pytest.skip("dciodvfy cannot read deflated files")
    assert complaints(tmp_path / "a.dcm") <= complaints(path)


@pytest.mark.parametrize("name", ["emri_small.dcm", "emri_small_RLE.dcm", "eCT_Supplemental.dcm", "RG3_UNCR.dcm",
                                  "MR2_UNCR.dcm", "vlut_04.dcm"])  # fmt: skip
def test_dciodvfy_finds_nothing_new_in_enhanced_and_large_objects(name: str, tmp_path: Path) -> None:
    need("dciodvfy")
    store = find_spec("data_store")  # of pydicom-data
    if store is None or store.origin is None:
        pytest.skip("pydicom-data is not installed")
    path = Path(store.origin).parent / "data" / name
    assert fate(path, tmp_path / "a.dcm").startswith("derived")
    # PS3.3 C.8.13.4 allows in derived objects what this validator does not, see docs/dicom_conformance.md.
    allowed = ("Module=<MRPulseSequence>", "Module=<BulkMotionSynchronization>")
    assert complaints(tmp_path / "a.dcm", allowed) <= complaints(path)
