"""Reading every supported format. The scale and finding files: test_images_scale.py; writing: test_image_writing.py."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image
from pydicom.data import get_testdata_file

from meddenoise_monai.errors import InputError
from meddenoise_monai.image_writing import write_image
from meddenoise_monai.images import (
    IMAGE_SUFFIXES,
    IntensityScale,
    image_suffix,
    is_dicom,
    read_image,
)

NIBABEL = Path(nibabel.__file__).parent / "tests" / "data"
GREY = (np.arange(600).reshape(20, 30) % 256).astype(np.uint8)
DEEP = (np.arange(600).reshape(20, 30) * 109).astype(np.uint16)  # up to 65291, all bits used


def png16(path: Path, array: np.ndarray[Any, Any], colour_type: int) -> None:
    """A PNG of 16 bits a sample by the format's definition; Pillow can write no colour of 16 bits."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, colour_type, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def stacked(*channels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.stack(channels, axis=-1)


def nifti(path: Path, array: np.ndarray[Any, Any], slope: float | None = None, offset: float = 0.0) -> None:
    """Save an array (x, y, …); with a slope, the file says that values are ``slope * stored + offset``."""
    image = nibabel.Nifti1Image(array, np.diag([0.5, 0.75, 2.0, 1.0]))
    if slope is not None:
        image.header.set_slope_inter(slope, offset)
    nibabel.save(image, path)
    if slope is not None:  # nibabel divides by the slope when it writes; say it afterwards instead
        raw = bytearray(path.read_bytes())
        raw[112:120] = struct.pack("<ff", slope, offset)
        path.write_bytes(raw)
        stored = nibabel.load(path).dataobj.get_unscaled()  # type: ignore[attr-defined]
        assert stored.dtype == array.dtype


def dicom(path: Path, array: np.ndarray[Any, Any], **changes: Any) -> None:
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    for name in ("RescaleSlope", "RescaleIntercept", "PixelPaddingValue"):
        delattr(dataset, name)
    dataset.set_pixel_data(array, changes.pop("photometric", "MONOCHROME2"), changes.pop("bits", 16))
    for name, value in changes.items():
        setattr(dataset, name, value)
        if "Padding" in name:
            dataset[name].VR = "SS"
    dataset.save_as(path)


# --- Pictures ---------------------------------------------------------------------------------------------------------


def save(name: str, array: np.ndarray[Any, Any], mode: str = "", **options: Any) -> tuple[str, Callable[[Path], None]]:
    def write(path: Path) -> None:
        image = Image.fromarray(array)
        (image.convert(mode) if mode else image).save(path, **options)

    return name, write


def tiff(name: str, array: np.ndarray[Any, Any], **options: Any) -> tuple[str, Callable[[Path], None]]:
    return name, lambda path: tifffile.imwrite(path, array, **options)


STEPS = GREY // 64 * np.uint8(51)  # greys that are in the palette that Pillow chooses
ONES = np.where(GREY > 99, np.uint8(255), np.uint8(0))
VOLUME = np.stack([DEEP, DEEP[::-1], DEEP[:, ::-1], DEEP // 2, DEEP // 3])
FLOATS = (DEEP / 7 - 1000).astype(np.float32)
PICTURES: list[tuple[tuple[str, Callable[[Path], None]], np.ndarray[Any, Any]]] = [
    (save("8 bits.png", GREY), GREY),
    (save("16 bits.png", DEEP), DEEP),
    (save("palette.png", stacked(STEPS, STEPS, STEPS), "P"), STEPS),
    (save("1 bit.png", ONES, "1"), ONES),
    (save("rgb.png", stacked(GREY, GREY, GREY)), GREY),
    (save("rgba.png", stacked(GREY, GREY, GREY, 255 - GREY)), GREY),
    (save("la.png", stacked(GREY, 255 - GREY)), GREY),
    (("rgb16.png", lambda path: png16(path, stacked(DEEP, DEEP, DEEP), 2)), DEEP),
    (("rgba16.png", lambda path: png16(path, stacked(DEEP, DEEP, DEEP, DEEP // 2), 6)), DEEP),
    (("la16.png", lambda path: png16(path, stacked(DEEP, DEEP // 2), 4)), DEEP),
    (save("8 bits.pgm", GREY), GREY),
    (("16 bits.pgm", lambda path: path.write_bytes(b"P5 30 20 65535\n" + DEEP.astype(">u2").tobytes())), DEEP),
    (("text.pgm", lambda path: path.write_text("P2 3 2 255\n1 2 3\n4 5 6\n")), np.array([[1, 2, 3], [4, 5, 6]])),
    (save("grey.pnm", GREY), GREY),
    (save("grey.bmp", GREY), GREY),
    (save("rgb.bmp", stacked(GREY, GREY, GREY)), GREY),
    (tiff("8 bits.tif", GREY), GREY),
    (tiff("16 bits.TIFF", DEEP), DEEP),
    (tiff("float.tif", FLOATS), FLOATS),
    (tiff("big endian.tif", VOLUME.astype(np.int16), byteorder=">"), VOLUME.astype(np.int16)),
    (tiff("pages.tif", VOLUME), VOLUME),
    (tiff("deflate.tif", VOLUME, compression="zlib"), VOLUME),
    (tiff("rgb.tif", stacked(GREY, GREY, GREY), photometric="rgb"), GREY),
    (tiff("planar.tif", np.stack([GREY] * 3), photometric="rgb", planarconfig="separate"), GREY),
    (tiff("white is zero.tif", 255 - GREY, photometric="miniswhite"), GREY),
    (save("palette.tif", stacked(STEPS, STEPS, STEPS), "P"), STEPS),
    (save("lzw.tif", DEEP, compression="tiff_lzw"), DEEP),
    (save("fax.tif", ONES, "1", compression="group4"), ONES),
]


@pytest.mark.parametrize(("picture", "expected"), PICTURES, ids=[case[0][0] for case in PICTURES])
def test_pictures(tmp_path: Path, picture: tuple[str, Callable[[Path], None]], expected: np.ndarray[Any, Any]) -> None:
    path = tmp_path / picture[0]
    picture[1](path)
    before = path.read_bytes()
    image = read_image(path)
    np.testing.assert_array_equal(image.array, expected)
    if picture[0] != "text.pgm":
        assert image.array.dtype == expected.dtype
    assert image.path == path
    if image.array.dtype == np.uint8:
        assert image.scale == IntensityScale(0.0, 255.0)
    else:
        assert image.scale == IntensityScale(float(expected.min()), float(expected.max()))
    assert path.read_bytes() == before


@pytest.mark.parametrize(("mode", "name"), [("L", "grey.jpg"), ("RGB", "rgb.jpeg"), ("CMYK", "cmyk.jpg")])
def test_jpeg(tmp_path: Path, mode: str, name: str) -> None:
    ramp = np.tile(np.arange(0, 240, 5, dtype=np.uint8), (48, 1))
    Image.fromarray(ramp).convert(mode).save(tmp_path / name, quality=95)
    array = read_image(tmp_path / name).array
    assert array.dtype == np.uint8
    assert np.abs(array.astype(int) - ramp).max() <= 4


def test_pages_of_a_compressed_tiff(tmp_path: Path) -> None:
    first, second = Image.fromarray(GREY), Image.fromarray(GREY[::-1])
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second], compression="tiff_lzw")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").array, np.stack([GREY, GREY[::-1]]))


def test_pages_of_two_sizes_are_refused_and_thumbnails_passed_over(tmp_path: Path) -> None:
    for name, kind in (("pages.tif", 0), ("thumbnail.tif", 1)):
        with tifffile.TiffWriter(tmp_path / name) as writer:
            writer.write(GREY)
            writer.write(GREY[::2, ::2], subfiletype=kind)
    np.testing.assert_array_equal(read_image(tmp_path / "thumbnail.tif").array, GREY)
    with pytest.raises(InputError, match="the pages have different shapes"):
        read_image(tmp_path / "pages.tif")


@pytest.mark.parametrize("maximum", [3, 100, 254, 255, 256, 1023, 4095, 65534, 65535])
def test_pgm_keeps_its_own_values_whatever_it_calls_white(tmp_path: Path, maximum: int) -> None:
    stored = (np.arange(96 * 64) % (maximum + 1)).reshape(64, 96)
    dtype = "u1" if maximum < 256 else ">u2"
    header = f"P5\n# by a scanner, 12 34\n96 64\n{maximum}\n".encode()
    (tmp_path / "a.pgm").write_bytes(header + stored.astype(dtype).tobytes())
    plain = f"P2 96 64\n{maximum}\n" + " ".join(map(str, stored.flat)) + "\n"
    (tmp_path / "b.pgm").write_text(plain)
    for name in ("a.pgm", "b.pgm"):
        array = read_image(tmp_path / name).array
        assert array.dtype == (np.uint8 if maximum < 256 else np.uint16)
        np.testing.assert_array_equal(array, stored)  # Pillow would stretch them


@pytest.mark.parametrize("shape", [(1, 9, 7), (9, 1, 7), (9, 7, 1), (9, 7)])
def test_a_nifti_of_one_slice_is_that_slice_whichever_way_it_lies(tmp_path: Path, shape: tuple[int, ...]) -> None:
    import nibabel

    values = np.arange(63, dtype=np.float32).reshape(shape)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")
    image = read_image(tmp_path / "a.nii")
    assert [size for size in image.array.shape if size > 1] == [7, 9]
    assert image.array.shape in ((7, 9), (1, 7, 9))
    write_image(tmp_path / "b.nii", image.array + 1, like=tmp_path / "a.nii")
    again = nibabel.load(tmp_path / "b.nii")
    assert again.shape == shape
    np.testing.assert_array_equal(np.asarray(again.dataobj), values + 1)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        save("a.png", stacked(GREY, GREY, 255 - GREY)),
        save("middle.png", stacked(GREY, 255 - GREY, GREY)),
        save("a.bmp", stacked(GREY, GREY // 2, GREY)),
        save("a.jpg", stacked(GREY, GREY // 2, GREY)),
        ("deep.png", lambda path: png16(path, stacked(DEEP, DEEP, DEEP ^ 1), 2)),  # equal in the 8 high bits
        tiff("a.tif", stacked(GREY, GREY, 255 - GREY), photometric="rgb"),
        tiff("p.tif", np.stack([GREY, GREY, 255 - GREY]), photometric="rgb", planarconfig="separate"),
    ],
)
def test_real_colour_is_refused(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    write(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: the image is in colour"):
        read_image(tmp_path / name)


# --- Volumes and arrays -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3), (5, 4, 1), (5, 4, 3, 2)])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.float64])
def test_nifti(tmp_path: Path, suffix: str, shape: tuple[int, ...], dtype: Any) -> None:
    stored = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    nifti(tmp_path / f"a{suffix}", stored)
    array = read_image(tmp_path / f"a{suffix}").array
    assert array.dtype == dtype
    assert array.shape == {2: (4, 5), 3: (shape[-1], 4, 5), 4: (6, 4, 5)}[len(shape)]
    slices = stored.T.reshape(-1, 4, 5)
    np.testing.assert_array_equal(array.reshape(-1, 4, 5), slices)
    assert slices[0, 1, 2] == stored[(2, 1, *[0] * (len(shape) - 2))]  # y = 1 is the row, x = 2 the column


def test_nifti_rescale_is_applied(tmp_path: Path) -> None:
    stored = np.arange(60).reshape(5, 4, 3).astype(np.int16)
    nifti(tmp_path / "a.nii", stored, slope=0.25, offset=-10.0)
    image = read_image(tmp_path / "a.nii")
    np.testing.assert_allclose(image.array, stored.T * 0.25 - 10)
    assert image.scale == IntensityScale(-10.0, 59 * 0.25 - 10)


def test_nifti_in_colour_is_refused(tmp_path: Path) -> None:
    rgb = np.zeros((4, 4, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(rgb, np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(InputError, match=r"a\.nii: the NIfTI image is in colour"):
        read_image(tmp_path / "a.nii")


def test_par_rec() -> None:
    path = NIBABEL / "phantom_EPI_asc_CLEAR_2_1.PAR"
    image: Any = nibabel.load(path)  # type: ignore[attr-defined]
    expected = image.get_fdata()  # (x, y, z, t)
    image.dataobj.file_like.close()
    array = read_image(path).array
    assert array.shape == (27, 64, 64)
    np.testing.assert_allclose(array.reshape(expected.T.shape), expected.T)


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64])
def test_itk_formats(tmp_path: Path, suffix: str, dtype: Any) -> None:
    import itk

    for name, expected in (("2d", DEEP // 300), ("3d", VOLUME // 300)):
        path = tmp_path / f"{name}{suffix}"
        itk.imwrite(itk.image_from_array(expected.astype(dtype)), str(path))
        array = read_image(path).array
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, expected)


def test_vectors_are_refused(tmp_path: Path) -> None:
    import itk

    itk.imwrite(itk.image_from_array(np.stack([FLOATS, 2 * FLOATS], -1), is_vector=True), str(tmp_path / "a.mha"))
    with pytest.raises(InputError, match="2 values a pixel"):
        read_image(tmp_path / "a.mha")


@pytest.mark.parametrize("array", [GREY, VOLUME, FLOATS, DEEP.astype(">u2"), np.asfortranarray(FLOATS)])
def test_numpy_formats(tmp_path: Path, array: np.ndarray[Any, Any]) -> None:
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", array)
    for name in ("a.npy", "a.npz"):
        read = read_image(tmp_path / name).array
        np.testing.assert_array_equal(read, array)
        assert read.dtype.isnative


def test_numpy_masks_are_black_and_white(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", GREY > 99)
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy").array, ONES)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.arange(9), "shape"),
        (np.zeros((2, 2, 2, 2)), "shape"),
        (np.zeros((0, 4)), "shape"),
        (np.eye(3) * 1j, "complex128"),
        (np.array([["a", "b"]]), "<U1"),
        (np.array([[1.0, np.nan]]), "NaN, infinite"),
        (np.array([[1.0, -np.inf]]), "NaN, infinite"),
        (np.array([[-1e308, 1e308]]), "huge"),
        (np.array([[0.0, 1e39]]), "huge"),
        (np.full((4, 4), 7.5), "same value, 7.5"),
        (np.full((4, 4), 7, np.uint8), "same value, 7"),
        (np.array([[None, 1]]), "cannot read"),
    ],
)
def test_unusable_arrays(tmp_path: Path, array: np.ndarray[Any, Any], message: str) -> None:
    np.save(tmp_path / "case.npy", array)
    with pytest.raises(InputError, match=message) as caught:
        read_image(tmp_path / "case.npy")
    assert "case.npy" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_archive_of_two_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", GREY, DEEP)
    with pytest.raises(InputError, match=r"a\.npz: the archive holds 2 arrays"):
        read_image(tmp_path / "a.npz")


# --- DICOM ------------------------------------------------------------------------------------------------------------


def test_dicom_rescale_is_applied() -> None:
    path = get_testdata_file("CT_small.dcm")
    dataset = pydicom.dcmread(path)
    image = read_image(path)
    np.testing.assert_array_equal(image.array, dataset.pixel_array * dataset.RescaleSlope + dataset.RescaleIntercept)
    assert image.array.dtype == np.int16  # Hounsfield units are integers
    assert image.scale == IntensityScale(float(image.array.min()), float(image.array.max()))


@pytest.mark.parametrize("name", ["MR_small.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm", "image_dfl.dcm"])
def test_dicom_encodings(name: str) -> None:
    path = get_testdata_file(name)
    image = read_image(path)
    np.testing.assert_array_equal(image.array, pydicom.dcmread(path).pixel_array)


def test_dicom_fractional_slope_and_frames(tmp_path: Path) -> None:
    dicom(tmp_path / "a.dcm", VOLUME, RescaleSlope=0.5, RescaleIntercept=-3, NumberOfFrames=5)
    np.testing.assert_array_equal(read_image(tmp_path / "a.dcm").array, VOLUME * 0.5 - 3)


def test_monochrome1_is_inverted_for_the_network(tmp_path: Path) -> None:
    dicom(tmp_path / "a.dcm", DEEP, photometric="MONOCHROME1")
    image = read_image(tmp_path / "a.dcm")
    np.testing.assert_array_equal(image.array, DEEP)
    unit = image.scale.to_unit(image.array)
    assert unit.flat[np.argmin(DEEP)] == 1
    assert unit.flat[np.argmax(DEEP)] == 0
    np.testing.assert_array_equal(np.rint(image.scale.from_unit(unit)), DEEP)


@pytest.mark.parametrize(("photometric", "darkest"), [("MONOCHROME2", 100), ("MONOCHROME1", 699)])
@pytest.mark.parametrize("limit", [None, -1990])
def test_padding_becomes_the_darkest_value(tmp_path: Path, photometric: str, darkest: int, limit: int | None) -> None:
    stored = (np.arange(600).reshape(20, 30) + 100).astype(np.int16)
    stored[:, :4] = -2000
    stored[:, 4] = -2000 if limit is None else -1995
    stored[0, 5:8] = 100
    stored[1, 5:8] = 699
    changes = {} if limit is None else {"PixelPaddingRangeLimit": limit}
    dicom(tmp_path / "a.dcm", stored, photometric=photometric, PixelPaddingValue=-2000, **changes)
    image = read_image(tmp_path / "a.dcm")
    assert (image.array[:, :5] == darkest).all()
    np.testing.assert_array_equal(image.array[:, 5:], stored[:, 5:])
    assert image.scale == IntensityScale(100.0, 699.0, photometric == "MONOCHROME1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("liver_1frame.dcm", "a segmentation"),
        ("rtdose.dcm", "a dose distribution"),
        ("examples_rgb_color.dcm", r"in colour \(RGB\)"),
        ("examples_palette.dcm", r"in colour \(PALETTE COLOR\)"),
        ("rtplan.dcm", "holds no image"),
        ("MR_truncated.dcm", "cannot read"),
        ("no_meta.dcm", "no DICOM header"),
    ],
)
def test_dicom_refused(name: str, message: str) -> None:
    path = get_testdata_file(name)
    with pytest.raises(InputError, match=message) as caught:
        read_image(path)
    assert name in caught.value.message


def test_dicom_without_suffix(tmp_path: Path) -> None:
    path = tmp_path / "1.2.840.1"
    path.write_bytes(Path(get_testdata_file("CT_small.dcm")).read_bytes())
    assert is_dicom(path)
    np.testing.assert_array_equal(read_image(path).array, read_image(get_testdata_file("CT_small.dcm")).array)


# --- Broken files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"not an image at all " * 20])
def test_empty_and_foreign_content(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert f"broken{suffix}" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "name", ["a.png", "rgb16.png", "a.pgm", "a.bmp", "a.jpg", "a.tif", "z.tif", "a.nii", "a.nii.gz", "a.mha", "a.npy"]
)
def test_truncated_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    suffix = image_suffix(name)
    texture = np.random.default_rng(0).integers(0, 65535, (40, 50), np.uint16)
    if name == "rgb16.png":
        png16(path, stacked(texture, texture, texture), 2)
    elif suffix == ".tif":
        tifffile.imwrite(path, texture, compression="zlib" if name == "z.tif" else None)
    elif suffix.startswith(".nii"):
        nifti(path, texture.astype(np.int16))
    elif suffix == ".mha":
        import itk

        itk.imwrite(itk.image_from_array(texture), str(path))
    elif suffix == ".npy":
        np.save(path, texture)
    else:
        Image.fromarray((texture >> 8).astype(np.uint8)).save(path)
    read_image(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(InputError, match=name):
        read_image(path)


def test_a_nifti_whose_checksum_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    nifti(path, DEEP.astype(np.int16))
    content = bytearray(path.read_bytes())
    content[-8] ^= 255
    path.write_bytes(content)
    with pytest.raises(InputError, match="CRC check failed"):
        read_image(path)


def test_missing_file_folder_and_unknown_format(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(InputError, match=f"no such file: {path}"):
            read_image(path)
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(InputError, match=r"unknown image format: notes\.txt"):
        read_image(tmp_path / "notes.txt")


def test_nifti_that_is_no_image_is_refused(tmp_path: Path) -> None:
    source = Path(nibabel.__file__).parent / "tests" / "data" / "row_major.dconn.nii"
    with pytest.raises(InputError, match="which is no image of pixels"):
        read_image(source)


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "uint32", "float32"])
def test_lzw_keeps_its_type(tmp_path: Path, dtype: str) -> None:
    low, high = (-1, 1) if dtype == "float32" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    array = np.random.default_rng(0).uniform(low, high, (12, 13)).astype(dtype)
    write_lzw(tmp_path / "a.tif", array)
    read = read_image(tmp_path / "a.tif").array
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, array)


def write_lzw(path: Path, array: np.ndarray[Any, Any]) -> None:
    """An LZW-compressed TIFF without a compressor: codes of 9 bits, with a clear code before the table would grow."""
    data, bits = array.astype(array.dtype.newbyteorder("<")).tobytes(), ""
    for start in range(0, len(data), 200):
        bits += f"{256:09b}" + "".join(f"{byte:09b}" for byte in data[start : start + 200])
    bits += f"{257:09b}"
    bits += "0" * (-len(bits) % 8)
    packed = int(bits, 2).to_bytes(len(bits) // 8, "big")
    kind = {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
    height, width = array.shape
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8 * array.dtype.itemsize), (259, 3, 5), (262, 3, 1),
            (273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, len(packed)), (339, 3, kind)]  # fmt: skip
    offset = 8 + len(packed) + len(packed) % 2
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", c, t, 1, v) for c, t, v in tags)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, offset) + packed.ljust(offset - 8, b"\0") + directory + b"\0" * 4)


def test_a_volume_whose_header_claims_more_than_the_machine_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "claims.mha"
    header = (
        "ObjectType = Image\nNDims = 3\nDimSize = 999999 99999 99\nElementType = MET_FLOAT\nElementDataFile = LOCAL\n"
    )
    path.write_bytes(header.encode() + bytes(64))
    with pytest.raises(InputError, match=r"claims 3\.96e\+13 bytes"):
        read_image(path)
