"""Reading image files of every supported format as plain arrays with their intensity scale.

`read_image` answers an `ImageData`: slices first, (H, W) or (D, H, W), in the image's own units (HU for CT), with the
`IntensityScale` that takes these units to [0, 1] and back. `docs/architecture.md` states the scaling rule.
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .dicom import DicomImage, read_dicom
from .errors import InputError, UnsuitableError
from .itk_headers import check_claim, check_header
from .slices import itk_slice_axis, nifti_slice_axis, slices_first

__all__ = [
    "DICOM_SUFFIXES",
    "IMAGE_SUFFIXES",
    "ITK_SUFFIXES",
    "NIFTI_SUFFIXES",
    "PICTURE_SUFFIXES",
    "TIFF_SUFFIXES",
    "TISSUE_THRESHOLD",
    "ImageData",
    "IntensityScale",
    "find_images",
    "grey_maximum",
    "image_suffix",
    "is_dicom",
    "load_itk",
    "nifti_model",
    "open_itk",
    "read_image",
]  # fmt: skip

_PICTURES = (".png", ".pgm", ".pnm", ".bmp", ".jpg", ".jpeg")
TIFF_SUFFIXES: tuple[str, ...] = (".tif", ".tiff")
NIFTI_SUFFIXES: tuple[str, ...] = (".nii", ".nii.gz")
_NIBABEL = (*NIFTI_SUFFIXES, ".par")
ITK_SUFFIXES: tuple[str, ...] = (".mha", ".mhd", ".nrrd")
DICOM_SUFFIXES: tuple[str, ...] = (".dcm", ".dicom", ".ima")
_NUMPY = (".npy", ".npz")
PICTURE_SUFFIXES: tuple[str, ...] = (*_PICTURES, *TIFF_SUFFIXES)
IMAGE_SUFFIXES: tuple[str, ...] = (*DICOM_SUFFIXES, *_NIBABEL, *ITK_SUFFIXES, *PICTURE_SUFFIXES, *_NUMPY)

# On the [0, 1] scale: films, CT and MR show air and background below it, nearly all tissue above.
TISSUE_THRESHOLD = 0.1


@dataclass(frozen=True)
class IntensityScale:
    """The linear map from an image's own units to [0, 1], and its inverse.

    Parameters
    ----------
    low, high
        The values, in the image's own units, that become 0 and 1 (1 and 0 if `inverted`). ``low < high``.
    inverted
        True for DICOM MONOCHROME1, where high values are shown dark: the network sees all images with the same sense.
    """

    low: float
    high: float
    inverted: bool = False

    @property
    def width(self) -> float:
        """Units of the image per unit of the [0, 1] scale, always positive: a noise of `width` has sigma 1."""
        return self.high - self.low

    def to_unit(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Image units to [0, 1]; computed in float64, answered as float32, never clipped."""
        unit = (values.astype(np.float64) - self.low) / self.width
        return (1.0 - unit if self.inverted else unit).astype(np.float32)

    def from_unit(self, unit: NDArray[Any]) -> NDArray[np.float64]:
        """[0, 1] back to image units, in float64.

        Of what `to_unit` answered, rounding gives integers back exactly as long as `width` is below 2**24 (all of 16
        bits are); other numbers come back within ``width * 2**-25``, half a step of float32 below 1.
        """
        unit = unit.astype(np.float64)
        return (1.0 - unit if self.inverted else unit) * self.width + self.low

    def as_numbers(self) -> tuple[float, float, float]:
        """Low, high, and 1 or 0 for inverted: what a batch of tensors can carry."""
        return self.low, self.high, float(self.inverted)

    @classmethod
    def from_numbers(cls, numbers: Sequence[float]) -> IntensityScale:
        """The inverse of `as_numbers`."""
        low, high, inverted = numbers
        return cls(low, high, bool(inverted))

    @classmethod
    def of(cls, values: NDArray[Any], inverted: bool = False) -> IntensityScale:
        """The scale of an image by the project's rule.

        8-bit unsigned integers: 0 to 255, so that sigma = 25/255 means what the literature means by it. All else
        (more bits, signed, float): the smallest and the largest value of the whole image or volume.

        Raises
        ------
        InputError
            If the values are not finite, beyond what float32 holds, or all the same.
        """
        if values.dtype == np.uint8:
            if values.min() == values.max():
                raise _constant(values)
            return cls(0.0, 255.0, inverted)
        low, high = float(values.min()), float(values.max())
        if not max(abs(low), abs(high)) <= float(np.finfo(np.float32).max):  # so that NaN fails
            raise InputError("the image contains NaN, infinite or huge values", "mend or mask these pixels first")
        if low == high:
            raise _constant(values)
        return cls(low, high, inverted)


def _constant(values: NDArray[Any]) -> InputError:
    return InputError(
        f"every pixel of the image has the same value, {values.flat[0]}", "leave this image out: it holds no structure"
    )


@dataclass(frozen=True)
class ImageData:
    """An image as it was read.

    Parameters
    ----------
    array
        (H, W) or (D, H, W), slices first, in the image's own units; DICOM rescale is applied, padding pixels hold that
        one of the other values which is shown darkest.
    scale
        Takes `array` to [0, 1].
    path
        Where it was read from.
    dicom
        What a DICOM file held besides; None for other formats.
    """

    array: NDArray[Any]
    scale: IntensityScale
    path: Path
    dicom: DicomImage | None = None


def image_suffix(path: str | os.PathLike[str]) -> str:
    """The suffix in lower case, ``.nii.gz`` as one; empty if there is none."""
    name = Path(path).name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def is_dicom(path: str | os.PathLike[str]) -> bool:
    """Whether a file is DICOM by its suffix or, where the suffix is none of an image, by its first bytes."""
    path = Path(path)
    suffix = image_suffix(path)
    if suffix in IMAGE_SUFFIXES:
        return suffix in DICOM_SUFFIXES
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return False
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def find_images(folder: str | os.PathLike[str], unlisted: dict[str, str] | None = None) -> list[Path]:
    """All image files below `folder`, sorted by path; files of unknown suffix count if they are DICOM.

    Hidden files and folders are passed over, and so is the DICOMDIR, which is a table of contents.

    Parameters
    ----------
    folder
        Where to search.
    unlisted
        Gets the folders that cannot be listed, with the reason; without it they are errors.

    Raises
    ------
    InputError
        If the folder does not exist or holds no image, or a folder in it cannot be listed.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"no such folder: {root}", "give a folder of images")

    def cannot_list(error: OSError) -> None:
        if unlisted is None:
            raise InputError(f"cannot list {error.filename}: {error.strerror}", "check the permissions")
        unlisted[str(error.filename)] = f"cannot list {error.filename}: {error.strerror}"

    found = []
    for parent, folders, files in os.walk(root, onerror=cannot_list):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(parent, name)
            if name.startswith(".") or name.upper() == "DICOMDIR":
                continue
            if image_suffix(name) in IMAGE_SUFFIXES or is_dicom(path):
                found.append(path)
    if not found and unlisted:
        raise InputError(next(iter(unlisted.values())), "check the permissions")
    if not found:
        raise InputError(f"no images in {root}", f"files like {', '.join(IMAGE_SUFFIXES)} are searched recursively")
    return sorted(found)


def _to_grey(array: NDArray[Any]) -> NDArray[Any]:
    """(…, H, W, channels) to (…, H, W), if the colour channels are equal."""
    colours = array[..., :3] if array.shape[-1] >= 3 else array[..., :1]
    if (colours != colours[..., :1]).any():
        raise UnsuitableError("the image is in colour", "convert it to grey first, or leave it out")
    return np.ascontiguousarray(colours[..., 0])


def _png_has_deep_colour(path: Path) -> bool:
    with path.open("rb") as stream:
        header = stream.read(26)
    return header[1:4] == b"PNG" and header[24:25] == b"\x10" and header[25:] != b"\0"


def grey_maximum(path: Path) -> int:
    """The value that a portable grey map (PGM) calls white; Pillow stretches it to 255 or 65535."""
    with path.open("rb") as stream:
        words = re.sub(rb"#[^\n\r]*", b"", stream.read(4096)).split(None, 4)
    return int(words[3]) if words[0] in (b"P2", b"P5") else 255


def _pillow_pixels(image: Any) -> NDArray[Any]:
    if image.mode in ("1", "P", "PA", "CMYK"):
        return _to_grey(np.asarray(image.convert("RGB")))
    array = np.asarray(image)
    if image.mode == "I" and image.format in ("PNG", "PPM"):
        return array.astype(np.uint16)  # 16-bit files that Pillow widens to 32
    return _to_grey(array) if array.ndim == 3 else array


def _read_picture(path: Path) -> NDArray[Any]:
    """A picture in the file's own values."""
    from PIL import Image, ImageSequence

    if _png_has_deep_colour(path):
        return _read_deep_colour(path)
    with Image.open(path) as image:
        if image.format == "PPM" and image.mode in ("L", "I"):
            stretched = _pillow_pixels(image)
            white, maximum = (255 if stretched.dtype == np.uint8 else 65535), grey_maximum(path)
            return stretched if maximum == white else np.rint(stretched * (maximum / white)).astype(stretched.dtype)
        if image.format != "TIFF":
            return _pillow_pixels(image)
        pages = [_pillow_pixels(page) for page in ImageSequence.Iterator(image)]
    return np.stack(pages) if len(pages) > 1 else pages[0]


def _read_deep_colour(path: Path) -> NDArray[Any]:
    """A PNG with colour or alpha of 16 bits, which Pillow would reduce to 8."""
    import itk

    reader = itk.ImageFileReader[itk.VectorImage[itk.US, 2]].New()
    reader.SetFileName(os.fspath(path))
    reader.Update()
    return _to_grey(itk.array_from_image(reader.GetOutput()))


def _read_tiff(path: Path) -> NDArray[Any]:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        page: Any = series.keyframe
        others = {part.shape for part in tiff.series[1:] if not part.keyframe.is_reduced}  # but for thumbnails
        if others:
            raise InputError(
                f"the pages have different shapes: {series.shape}, then {', '.join(map(str, others))}",
                "save pages of one size a file",
            )
        try:
            array: NDArray[Any] = series.asarray()
        except Exception as error:
            if "imagecodecs" not in str(error):
                raise
            return _by_pillow(path, page)
        samples = series.axes.find("S")
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            return _to_grey((page.colormap.T[array] >> 8).astype(np.uint8))
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and array.dtype.kind in "bu":
            array = np.asarray(~array if array.dtype == bool else array.dtype.type(2**page.bitspersample - 1) - array)
    return array if samples < 0 else _to_grey(np.moveaxis(array, samples, -1))


def _by_pillow(path: Path, page: Any) -> NDArray[Any]:
    """LZW, JPEG and CCITT, which Pillow brings with it, in the file's own type."""
    import tifffile

    array, dtype = _read_picture(path), np.dtype(page.dtype)
    if array.dtype != dtype and page.bitspersample >= 8 and page.photometric != tifffile.PHOTOMETRIC.PALETTE:
        # Pillow has no types but a few: it widens some, and misreads the sign of others.
        own = array.view(dtype) if array.dtype.itemsize == dtype.itemsize else array.astype(dtype)
        if array.dtype.itemsize != dtype.itemsize and not np.array_equal(own, array):
            raise InputError(f"cannot read {dtype} in this compression", "save it uncompressed, or with deflate")
        array = own
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and dtype == np.uint16:  # of 8 bits Pillow turns itself
        array = np.uint16(65535) - array
    return array


def _read_nifti(path: Path) -> NDArray[Any]:
    import nibabel

    loaded = nibabel.load(path)  # type: ignore[attr-defined]
    if image_suffix(path) == ".nii.gz":
        with gzip.open(path) as packed:  # nibabel stops at the last pixel, before the checksum
            while packed.read(2**20):
                pass
    if not isinstance(loaded, nibabel.spatialimages.SpatialImage):
        raise InputError(f"the file is a {type(loaded).__name__}, which is no image of pixels", "leave it out")
    image: Any = loaded
    array: NDArray[Any] = np.asanyarray(image.dataobj)
    _close(image)
    if array.dtype.fields is not None:
        raise UnsuitableError("the NIfTI image is in colour", "convert it to grey first, or leave it out")
    if array.ndim < 2:
        raise InputError(f"the image has {array.ndim} dimension(s)", "2D, 3D and 4D images can be read")
    return slices_first(array.T, nifti_slice_axis(image))  # nibabel has (x, y, z, t)


def nifti_model(path: Path) -> Any:
    """What nibabel knows of a file beside its pixels: header, affine, and the scaling of its `dataobj`."""
    import nibabel

    loaded: Any = nibabel.load(path)  # type: ignore[attr-defined]
    _close(loaded)
    return loaded


def _close(image: Any) -> None:
    """Close the .REC beside a .PAR, which nibabel leaves open."""
    if not isinstance(image.dataobj.file_like, str | os.PathLike):
        image.dataobj.file_like.close()


def load_itk(paths: Iterable[Path]) -> None:
    """Load ITK if it is needed for any of the files: to be called before threads are started.

    While ITK loads a part of itself it changes the working directory, and what another thread then writes to a relative
    path goes astray.
    """
    if any(image_suffix(path) in ITK_SUFFIXES for path in paths):
        import itk

        for name in ("ImageFileReader", "ImageFileWriter", "MetaImageIO", "NrrdImageIO", "PyBuffer", "VectorImage"):
            getattr(itk, name)


def open_itk(path: Path) -> Any:
    """An ITK image of a MetaImage or NRRD file.

    Raises
    ------
    InputError
        If ITK's Python wrapping knows no such images, or the header is damaged (see `itk_headers`).
    """
    import itk

    kind = itk.NrrdImageIO if image_suffix(path) == ".nrrd" else itk.MetaImageIO  # not by the suffix, which may be .MHA
    check_header(path, kind is itk.NrrdImageIO)
    check_claim(kind.New(), path)
    try:
        return itk.imread(os.fspath(path), imageio=kind.New())
    except itk.TemplateTypeError:
        raise InputError(
            "ITK for Python has no images of this type of pixels or number of axes", "convert it to float32, 2D or 3D"
        ) from None


def _read_itk(path: Path) -> NDArray[Any]:
    import itk

    image = open_itk(path)
    array: NDArray[Any] = itk.array_from_image(image)
    components = image.GetNumberOfComponentsPerPixel()
    if components not in (1, 3, 4):
        raise InputError(f"the image has {components} values a pixel, as vectors have", "save one value a pixel")
    array = array if components == 1 else _to_grey(array)
    return slices_first(array, itk_slice_axis(image)) if array.ndim == 3 else array


def _read_numpy(path: Path) -> NDArray[Any]:
    with path.open("rb") as stream:
        loaded = np.load(stream, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        if len(loaded.files) != 1:
            raise InputError(f"the archive holds {len(loaded.files)} arrays", "save one array a file")
        array: NDArray[Any] = loaded[loaded.files[0]]
        return array


def _read_dicom(path: Path) -> ImageData:
    image = read_dicom(path)
    values = image.values()
    return ImageData(values, IntensityScale.of(values, image.inverted), path, image)


def _reader(path: Path) -> Callable[[Path], NDArray[Any]] | None:
    """The reader of a file's format; None for DICOM, which brings its own scale."""
    suffix = image_suffix(path)
    for suffixes, reader in (
        (_PICTURES, _read_picture), (TIFF_SUFFIXES, _read_tiff), (_NIBABEL, _read_nifti), (ITK_SUFFIXES, _read_itk),
        (_NUMPY, _read_numpy),
    ):  # fmt: skip
        if suffix in suffixes:
            return reader
    if is_dicom(path):
        return None
    raise InputError(f"unknown image format: {path.name}", f"readable are {', '.join(IMAGE_SUFFIXES)}")


def read_image(path: str | os.PathLike[str]) -> ImageData:
    """Read one image or volume of any supported format.

    Raises
    ------
    InputError
        If the file is missing, broken, of an unknown format, in colour, not finite or constant. The message names the
        file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no such file: {path}", "check the path, or the datalist that names it")
    try:
        reader = _reader(path)
        if reader is None:
            return _read_dicom(path)
        array = reader(path)
        if array.ndim not in (2, 3) or array.size == 0:
            raise InputError(f"the image has the shape {array.shape}", "2D images and 3D volumes can be read")
        if array.dtype.kind not in "buif":
            raise InputError(f"the pixels have the type {array.dtype}", "real numbers can be read")
        if array.dtype == bool:
            array = array * np.uint8(255)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        return ImageData(array, IntensityScale.of(array), path)
    except InputError as error:
        raise type(error)(f"{path}: {error.message}", error.hint) from None
    except Exception as error:  # the decoders raise whatever their authors thought of
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"cannot read {path}: {reason[:300]}", "is the file whole?") from error
