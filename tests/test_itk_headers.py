"""Headers that ITK must not see; each of those that end in a crash did so with ITK 5.4 where it read them."""

from __future__ import annotations

import itertools
from pathlib import Path

import itk
import numpy as np
import pytest

from meddenoise_monai.errors import InputError
from meddenoise_monai.images import read_image

VOLUME = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


@pytest.fixture(params=["a.mha", "a.mhd", "a.nrrd"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / str(request.param)
    itk.imwrite(itk.image_from_array(VOLUME), str(path), compression=path.suffix != ".mhd")
    return path


def test_what_itk_writes_is_read(file: Path) -> None:
    assert np.array_equal(read_image(file).array, VOLUME)


def changed(file: Path, field: bytes, line: bytes) -> None:
    """Another line in place of the one that begins with `field`."""
    content = file.read_bytes()
    start = content.index(field)
    file.write_bytes(content[:start] + line + content[content.index(b"\n", start) :])


PATTERN = r"by a pattern or in a list|is no field|pixels are"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a%s%s%s%n.raw", "LIST", "LIST 2", "LOCAL\xff\x02 1 2", "image%03d.raw 1 3 1", ""], PATTERN),
        (["/etc/passwd", "../a.raw", "b/../../a.raw", "C:\\a.raw", "..\\a.raw"], "outside of its folder"),
    ],
    ids=["pattern", "outside"],
)
def test_pixels_in_files_that_are_not_asked_for(tmp_path: Path, names: list[str], message: str) -> None:
    for name, (suffix, field, mark) in itertools.product(
        names, ((".mha", "ElementDataFile", "ElementDataFile = "), (".nrrd", "encoding", "data file: "))
    ):
        path = tmp_path / f"a{suffix}"
        itk.imwrite(itk.image_from_array(VOLUME), str(path))
        changed(path, field.encode(), f"{mark}{name}".encode("latin1"))
        with pytest.raises(InputError, match=message):
            read_image(path)


@pytest.mark.parametrize(
    ("field", "line", "said"),
    [
        ("NDims", "NDims = 99999999999999999999", "no number of axes from 1 to 4"),
        ("NDims", "NDims = x", "no number of axes"),
        ("NDims", "Comment = none", "no number of axes"),
        ("NDims", "NDims = 3\nNDims = 3", "has NDims twice"),
        ("BinaryData", "Bin\xe1ry = True", "line 3 of its header is no field of a MetaImage"),
        ("BinaryData", "Comment = " + "x" * 5000, "line 3 of its header is no field"),
        ("ElementDataFile", "End = here", "does not say where the pixels are|is no field"),
    ],
)
def test_damaged_metaimages(tmp_path: Path, field: str, line: str, said: str) -> None:
    path = tmp_path / "a.mha"
    itk.imwrite(itk.image_from_array(VOLUME), str(path))
    changed(path, field.encode(), line.encode("latin1"))
    with pytest.raises(InputError, match=said):
        read_image(path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("NRRX0004", "does not begin as a NRRD"),
        ("NRRD0004\nPosition: 1", "line 2 of its header is no field of a NRRD file"),
        ("NRRD0004\ncontent: " + "x" * 1000, "line 2 of its header is no field"),
        ("NRRD0004\ntype: short", "is no field of a NRRD file, or one too many"),
    ],
)
def test_damaged_nrrd(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "a.nrrd"
    itk.imwrite(itk.image_from_array(VOLUME), str(path))
    changed(path, b"NRRD", line.encode())
    with pytest.raises(InputError, match=said):
        read_image(path)


def test_an_empty_file_and_one_of_another_format(tmp_path: Path) -> None:
    for name in ("a.mha", "a.nrrd"):
        for content in (b"", b"\n\n", b"P5 2 2 255\n1234"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(InputError, match=name):
                read_image(tmp_path / name)


def test_elements_of_dicom_in_a_metaimage_stay(tmp_path: Path) -> None:
    path, image = tmp_path / "a.mha", itk.image_from_array(VOLUME)
    image.GetMetaDataDictionary()["0008|0060"] = "MR"
    itk.imwrite(image, str(path))
    assert b"0008|0060 = MR" in path.read_bytes()
    assert np.array_equal(read_image(path).array, VOLUME)


def test_comments_and_values_of_ones_own_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    itk.imwrite(itk.image_from_array(VOLUME), str(path))
    changed(path, b"NRRD", b"NRRD0005\n# " + b"x" * 2000 + b"\ngradient:=" + b"1 " * 500 + b"\nContent: a head")
    assert np.array_equal(read_image(path).array, VOLUME)
