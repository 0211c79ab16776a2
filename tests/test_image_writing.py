from __future__ import annotations

import gzip
import hashlib
import os
import resource
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from PIL import Image, PngImagePlugin

from meddenoise_monai.errors import InputError
from meddenoise_monai.image_writing import WRITABLE_SUFFIXES, write_image
from meddenoise_monai.images import read_image

NIBABEL = Path(nibabel.__file__).parent / "tests" / "data"
GREY = (np.arange(600).reshape(20, 30) % 256).astype(np.uint8)
DEEP = (np.arange(600).reshape(20, 30) * 109).astype(np.uint16)
VOLUME = np.stack([DEEP, DEEP[::-1], DEEP[:, ::-1]])


def spread(values: np.ndarray[Any, Any]) -> bool:
    return bool(values.min() != values.max())


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """The system refuses to let a file grow, as a full disk does: with an OSError in the midst of writing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", WRITABLE_SUFFIXES)
def test_no_half_image_on_a_full_disk(tmp_path: Path, suffix: str) -> None:
    texture = np.random.default_rng(0).integers(0, 255, (300, 300), np.uint8)
    with pytest.raises(InputError) as caught, files_limited_to(8192):
        write_image(tmp_path / f"a{suffix}", texture)
    assert caught.value.message.startswith("cannot write")
    assert str(caught.value).count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, deadline=None)  # the first image of each type that itk writes loads its templates
@given(data=st.data())
def test_write_and_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    suffix, kinds, axes = data.draw(
        st.sampled_from(
            [
                (".tif", "u1 u2 i2 i4 f4 f8", (2, 3)),
                (".nii", "u1 u2 i2 i4 i8 f4 f8", (2, 3)),
                (".nii.gz", "u1 i2 f4", (2, 3)),
                (".png", "u1 u2", (2,)),
                (".pgm", "u1 u2", (2,)),
                (".bmp", "u1", (2,)),
                (".mha", "u1 u2 i2 u4 i4 f4 f8", (2, 3)),
                (".mhd", "u1 i2 f4", (2, 3)),
                (".nrrd", "u1 i2 i4 f4 f8", (2, 3)),
                (".npy", "u1 i1 u2 i2 i4 i8 f2 f4 f8", (2, 3)),
                (".npz", "u2 i4 f4", (2, 3)),
            ]
        )
    )
    dtype = np.dtype(data.draw(st.sampled_from(kinds.split())))
    shape = st.lists(st.integers(2, 5), min_size=min(axes), max_size=max(axes)).map(tuple)
    elements: Any = {"elements": st.floats(-1e3, 1e3, width=32)} if dtype.kind == "f" else {}
    array = data.draw(st_numpy.arrays(dtype, shape, **elements).filter(spread))
    path = tmp_path_factory.mktemp("written") / f"a{suffix}"
    assert write_image(path, array) == path
    read = read_image(path).array
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("name", ["example4d.nii.gz", "example_nifti2.nii.gz", "functional.nii", "anatomical.nii"])
def test_nifti_keeps_its_place_in_space(tmp_path: Path, name: str) -> None:
    source = NIBABEL / name
    before = hashlib.sha256(source.read_bytes()).digest()
    values = read_image(source).array.astype(np.float32) + 0.25
    written: Any = nibabel.load(write_image(tmp_path / name, values, like=source))  # type: ignore[attr-defined]
    original: Any = nibabel.load(source)  # type: ignore[attr-defined]
    assert written.shape == original.shape
    assert written.get_data_dtype().newbyteorder("=") == np.float32
    np.testing.assert_array_equal(written.affine, original.affine)
    np.testing.assert_allclose(written.get_fdata(), original.get_fdata() + 0.25, rtol=1e-6)
    for key in ("pixdim", "qform_code", "sform_code", "xyzt_units", "descrip"):
        np.testing.assert_array_equal(written.header[key], original.header[key], err_msg=key)
    assert hashlib.sha256(source.read_bytes()).digest() == before


def test_compressed_nifti_is_compressed(tmp_path: Path) -> None:
    with gzip.open(write_image(tmp_path / "a.nii.gz", VOLUME)) as stream:
        assert len(stream.read()) == 352 + VOLUME.nbytes


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("a.bmp", DEEP),
        ("a.png", GREY / 2),
        ("a.png", VOLUME.astype(np.uint8)),
        ("a.jpg", GREY),
        ("a.dcm", GREY),
        ("a.nii", GREY.astype(np.float16)),
    ],
)
def test_formats_that_cannot_hold_it(tmp_path: Path, name: str, array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(InputError, match=r"cannot|BMP"):
        write_image(tmp_path / name, array)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.bmp", "a.pgm", "a.png"])
@pytest.mark.parametrize("side", [20, 60, 300])
def test_the_last_bytes_that_a_full_disk_refuses_are_missed(tmp_path: Path, name: str, side: int) -> None:
    # Pillow's raw encoders take a short write for a whole one.
    noise = np.random.default_rng(0).integers(0, 256, (side, side)).astype(np.uint8)
    size = write_image(tmp_path / name, noise).stat().st_size
    (tmp_path / name).unlink()
    with files_limited_to(size - 5), pytest.raises(InputError, match="cannot write"):
        write_image(tmp_path / name, noise)
    assert not list(tmp_path.iterdir())
    write_image(tmp_path / name, noise)
    np.testing.assert_array_equal(read_image(tmp_path / name).array, noise)


# --- What else a file holds -------------------------------------------------------------------------------------------


def test_tiff_keeps_its_tags(tmp_path: Path) -> None:
    source = tmp_path / "a.tif"
    extra = [(315, 2, 0, "A. Rtist", True), (33432, 2, 0, "(c) nobody", True), (700, 1, 5, b"<xmp>", True)]
    tifffile.imwrite(
        source, DEEP, byteorder=">", resolution=(300.5, 150), resolutionunit="CENTIMETER", description="film, 0.05 mm",
        software="scanner 1.2", datetime="2026:01:02 03:04:05", extratags=extra, metadata=None,
    )  # fmt: skip
    written = write_image(tmp_path / "b.tif", DEEP // 2, like=source)
    with tifffile.TiffFile(source) as before, tifffile.TiffFile(written) as after:
        old, new = before.pages.first.tags, after.pages.first.tags
        names = {tag.name for tag in old} - {"StripOffsets", "StripByteCounts", "RowsPerStrip"}
        assert {"XResolution", "ResolutionUnit", "Artist", "Copyright", "XMP", "DateTime", "Software"} <= names
        for name in names:
            assert new[name].value == old[name].value, name
        assert {tag.name for tag in new} == {tag.name for tag in old}
        assert after.byteorder == ">"
        assert after.pages.first.compression == tifffile.COMPRESSION.NONE
    np.testing.assert_array_equal(read_image(written).array, DEEP // 2)


@pytest.mark.parametrize("kind", ["imagej", "ome", "shaped"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_stacks_of_microscopes_keep_their_description(tmp_path: Path, kind: str, compression: str | None) -> None:
    source = tmp_path / ("a.ome.tif" if kind == "ome" else "a.tif")
    metadata = {
        "axes": "ZYX",
        **({"spacing": 2.5, "unit": "um", "Labels": ["p", "q", "r"]} if kind == "imagej" else {}),
    }
    tifffile.imwrite(
        source, VOLUME, imagej=kind == "imagej", ome=kind == "ome", metadata=metadata, compression=compression,
        bigtiff=kind == "ome", photometric="minisblack",
    )  # fmt: skip
    written = write_image(source.with_name("b" + source.name[1:]), VOLUME // 3, like=source)
    with tifffile.TiffFile(source) as before, tifffile.TiffFile(written) as after:
        assert after.pages.first.description == before.pages.first.description
        assert (after.is_imagej, after.is_ome, after.is_bigtiff) == (before.is_imagej, before.is_ome, before.is_bigtiff)
        assert after.imagej_metadata == before.imagej_metadata
        assert after.pages.first.compression == before.pages.first.compression
        np.testing.assert_array_equal(after.asarray(), VOLUME // 3)
    np.testing.assert_array_equal(read_image(written).array, VOLUME // 3)


@pytest.mark.parametrize("mode", ["L", "I;16", "RGB"])
def test_png_keeps_its_text_and_resolution(tmp_path: Path, mode: str) -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Description", "a film")
    chunks.add_itxt("Titel", "Kiefer, schräg", "de", "Title")
    array = {"L": GREY, "I;16": DEEP, "RGB": np.stack([GREY] * 3, -1)}[mode]
    profile = b"\0" * 16 + b"GRAYXYZ " + b"\0" * 104
    Image.fromarray(array).save(tmp_path / "a.png", pnginfo=chunks, dpi=(300, 150), icc_profile=profile)
    values = read_image(tmp_path / "a.png").array // 2
    with Image.open(write_image(tmp_path / "b.png", values, like=tmp_path / "a.png")) as image:
        image.load()
        assert image.text == {"Description": "a film", "Titel": "Kiefer, schräg"}  # type: ignore[attr-defined]
        assert image.text["Titel"].lang == "de"  # type: ignore[attr-defined]
        with Image.open(tmp_path / "a.png") as source:
            assert image.info["dpi"] == source.info["dpi"]
        assert image.info["dpi"] == pytest.approx((300, 150), rel=1e-4)
        assert image.info.get("icc_profile") == (profile if mode != "RGB" else None)


def test_pgm_keeps_its_white(tmp_path: Path) -> None:
    deep = np.minimum(DEEP, 4095)
    (tmp_path / "a.pgm").write_bytes(b"P5\n# 12 bits\n30 20\n4095\n" + deep.astype(">u2").tobytes())
    written = write_image(tmp_path / "b.pgm", deep + 1, like=tmp_path / "a.pgm")
    assert written.read_bytes()[:14] == b"P5\n30 20\n4095\n"[:14]
    np.testing.assert_array_equal(read_image(written).array, np.minimum(deep + 1, 4095))


def test_bmp_keeps_its_resolution(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.bmp", dpi=(200, 100))
    with Image.open(write_image(tmp_path / "b.bmp", GREY, like=tmp_path / "a.bmp")) as image:
        assert image.info["dpi"] == pytest.approx((200, 100), abs=0.1)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd"])
def test_metaimage_and_nrrd_keep_their_place_in_space(tmp_path: Path, suffix: str, packed: bool) -> None:
    image = itk.image_from_array(VOLUME.astype(np.int16))
    image.SetSpacing([0.5, 0.75, 2.0])
    image.SetOrigin([-10.0, 20.0, 5.5])
    image.SetDirection(itk.matrix_from_array(np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]])))
    source = tmp_path / f"a{suffix}"
    itk.imwrite(image, os.fspath(source), compression=packed)
    values = (VOLUME // 2).astype(np.int16)
    written = write_image(tmp_path / "out" / f"b{suffix}", values, like=source)
    after = itk.imread(os.fspath(written))
    np.testing.assert_array_equal(itk.array_from_image(after), values)
    assert itk.array_from_image(after).dtype == np.int16
    assert list(after.GetSpacing()) == [0.5, 0.75, 2.0]
    assert list(after.GetOrigin()) == [-10.0, 20.0, 5.5]
    np.testing.assert_array_equal(itk.array_from_matrix(after.GetDirection()), [[0, 1, 0], [1, 0, 0], [0, 0, -1]])
    assert [path.name for path in written.parent.iterdir()] == [written.name]
    header = written.read_bytes()[:1000]
    assert (b"CompressedData = True" in header or b"encoding: gzip" in header) == packed


def test_nifti_keeps_stored_type_scaling_and_extensions(tmp_path: Path) -> None:
    stored = VOLUME.astype(np.int16).T
    image: Any = nibabel.Nifti1Image(stored, np.diag([1.0, 2, 3, 1]))  # type: ignore[no-untyped-call]
    image.header.set_slope_inter(0.25, -100)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"of a phantom"))
    nibabel.save(image, tmp_path / "a.nii.gz")  # type: ignore[attr-defined]
    values = (stored.T // 2).astype(np.int16)
    written: Any = nibabel.load(write_image(tmp_path / "b.nii.gz", values, tmp_path / "a.nii.gz", stored=True))  # type: ignore[attr-defined]
    assert written.get_data_dtype() == np.int16
    assert (written.dataobj.slope, written.dataobj.inter) == (0.25, -100)
    np.testing.assert_array_equal(written.dataobj.get_unscaled(), values.T)
    assert [extension.get_content().rstrip(b"\0") for extension in written.header.extensions] == [b"of a phantom"]


def test_npz_keeps_its_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", scan=DEEP)
    with np.load(write_image(tmp_path / "b.npz", DEEP // 2, like=tmp_path / "a.npz")) as archive:
        assert archive.files == ["scan"]
        np.testing.assert_array_equal(archive["scan"], DEEP // 2)


@pytest.mark.parametrize("options", [{}, {"planarconfig": "separate"}, {"ome": True}])
def test_a_grey_picture_in_colour_has_no_description_of_its_axes(tmp_path: Path, options: dict[str, Any]) -> None:
    colour = np.stack([GREY] * 3, 0 if options.get("planarconfig") == "separate" else -1)
    tifffile.imwrite(tmp_path / "a.tif", colour, photometric="rgb", resolution=(30, 30), **options)
    written = write_image(tmp_path / "b.tif", read_image(tmp_path / "a.tif").array, like=tmp_path / "a.tif")
    np.testing.assert_array_equal(tifffile.imread(written), GREY)
    np.testing.assert_array_equal(read_image(written).array, GREY)
    with tifffile.TiffFile(written) as tiff:
        assert tiff.pages.first.resolution == (30, 30)


def test_the_orientation_of_a_tiff_is_kept(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, extratags=[(274, 3, 1, 6, True)], metadata=None)
    with tifffile.TiffFile(write_image(tmp_path / "b.tif", GREY, like=tmp_path / "a.tif")) as tiff:
        assert tiff.pages.first.tags[274].value == 6


@pytest.mark.parametrize("name", ["file", "allow_pickle", "args", "kwds"])
def test_npz_may_have_any_name(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, archive.open(f"{name}.npy", "w") as stream:
        np.lib.format.write_array(stream, DEEP)
    with np.load(write_image(tmp_path / "b.npz", DEEP // 2, like=tmp_path / "a.npz")) as archive:
        assert archive.files == [name]
        np.testing.assert_array_equal(archive[name], DEEP // 2)


@pytest.mark.parametrize("suffix", [".MHA", ".MHD", ".NRRD", ".NII.GZ", ".TIF"])
def test_suffixes_in_capitals(tmp_path: Path, suffix: str) -> None:
    path = write_image(tmp_path / f"a{suffix}", VOLUME)
    np.testing.assert_array_equal(read_image(path).array, VOLUME)
    again = write_image(tmp_path / f"b{suffix}", VOLUME // 2, like=path)
    np.testing.assert_array_equal(read_image(again).array, VOLUME // 2)


def test_metadata_that_cannot_be_kept_are_named_and_do_not_stop_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, description="x", metadata=None)
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:20])  # was readable a moment ago
    written = write_image(tmp_path / "b.tif", GREY, like=tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(written).array, GREY)
    assert f"of {tmp_path / 'a.tif'}" in caplog.text
