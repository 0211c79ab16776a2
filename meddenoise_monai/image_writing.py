"""Writing arrays as image files: of every format that `images` reads but JPEG and DICOM, whole or not at all.

A file of the same format can stand model. Then its metadata are taken over (resolution, text, place in space), and so
is the way in which it stores its values, as far as the dtype of the array allows it.
"""

from __future__ import annotations

import errno
import gzip
import io
import logging
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .images import ITK_SUFFIXES, NIFTI_SUFFIXES, TIFF_SUFFIXES, grey_maximum, image_suffix, nifti_model, open_itk
from .slices import itk_slice_axis, nifti_slice_axis, volume_of
from .whole_files import replace_whole

__all__ = ["WRITABLE_SUFFIXES", "write_image"]

_log = logging.getLogger(__name__)

# What describes the picture of a TIFF page beside its pixels: document, make, model, page, software, date, artist, host
# computer, XMP, copyright, IPTC, ICC profile; and the metadata of ImageJ with their sizes.
_TIFF_TAGS = (269, 271, 272, 285, 305, 306, 315, 316, 700, 33432, 33723, 34675)
_IMAGEJ_TAGS = (50838, 50839)
# LZW, JPEG and CCITT compression, which Pillow reads for us; it turns the pixels by the orientation (tag 274).
_BY_PILLOW = (2, 3, 4, 5, 6, 7)


def write_image(
    path: str | os.PathLike[str], array: NDArray[Any], like: str | os.PathLike[str] | None = None, stored: bool = False
) -> Path:
    """Write (H, W) or (D, H, W) values, in the format that the path's suffix names, whole or not at all.

    Parameters
    ----------
    path
        One of `WRITABLE_SUFFIXES`; ``.png``, ``.pgm`` and ``.bmp`` for (H, W) integers of 8 bits, the first two also
        of 16.
    array
        Written with its own dtype; finite.
    like
        A file of the same format, whose metadata to take over; for NIfTI also one of another format of nibabel's.
    stored
        The array holds values as the NIfTI file `like` stores them, to which its scaling is still to be applied.

    Raises
    ------
    InputError
        If the format cannot hold the array, or the file cannot be written.
    """
    path, model = Path(path), None if like is None else Path(like)
    suffix = image_suffix(path)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(
            f"the values for {path} are NaN, infinite or too large for {array.dtype}",
            "are the weights whole, the units sane?",
        )
    writer = _WRITERS.get(suffix)
    flat = suffix in _FLAT
    if writer is None or (flat and (array.ndim != 2 or array.dtype not in (np.uint8, np.uint16))):
        raise InputError(f"cannot write {array.dtype} {array.shape} as {suffix}", "write TIFF (.tif)")
    with replace_whole(path) as temporary:
        if stored:
            _write_nifti(temporary, array, model, stored)
        else:
            writer(temporary, array, model)
    return path


# --- Pictures ---------------------------------------------------------------------------------------------------------


def _write_tiff(path: Path, array: NDArray[Any], like: Path | None) -> None:
    import tifffile

    plain: dict[str, Any] = {"photometric": "minisblack", "compression": "zlib"}
    _with_metadata(
        lambda options: tifffile.imwrite(path, array, **(plain | options)),
        lambda source: _tiff_options(source, array.shape),
        like,
    )


def _with_metadata(
    write: Callable[[dict[str, Any]], object], options: Callable[[Path], dict[str, Any]], like: Path | None
) -> None:
    """Write with the metadata of `like`, or without them where they are broken: the pixels matter more."""
    if like is None:
        write({})
        return
    try:
        write(options(like))
    except Exception as error:
        write({})  # a disk that refuses, refuses again
        reason = " ".join(str(error).split())[:200]
        _log.warning("the metadata of %s cannot be kept: %s", like, reason)


def _tiff_options(like: Path, shape: tuple[int, ...]) -> dict[str, Any]:
    """What tifffile is to write beside the pixels, after the first page of a file."""
    import tifffile

    with tifffile.TiffFile(like) as tiff:
        page: Any = tiff.pages.first
        tags = page.tags
        # Without metadata, tifffile would add a description of its own.
        options: dict[str, Any] = {"metadata": None, "byteorder": tiff.byteorder, "bigtiff": tiff.is_bigtiff}
        if page.compression == tifffile.COMPRESSION.NONE:
            options["compression"] = None
        # Descriptions of axes do not fit an image that was in colour: it is grey now.
        same = tiff.series[0].shape == shape
        if "ImageDescription" in tags and (same or not (tiff.is_shaped or tiff.is_ome or tiff.is_imagej)):
            options["description"] = _tag_bytes(tiff, tags["ImageDescription"]).rstrip(b"\0")
        if "XResolution" in tags and "YResolution" in tags:
            options["resolution"] = tags["XResolution"].value, tags["YResolution"].value
            options["resolutionunit"] = tags["ResolutionUnit"].value if "ResolutionUnit" in tags else 2
        codes = [*_TIFF_TAGS, *(_IMAGEJ_TAGS if same else ()), *(() if page.compression in _BY_PILLOW else (274,))]
        kept = [tags[code] for code in sorted(codes) if code in tags]
        options["extratags"] = [(tag.code, int(tag.dtype), tag.count, _tag_bytes(tiff, tag), True) for tag in kept]
        options["software"] = False  # tifffile's own name
    return options


def _tag_bytes(tiff: Any, tag: Any) -> bytes:
    """The value of a tag as it lies in the file."""
    tiff.filehandle.seek(tag.valueoffset)
    data: bytes = tiff.filehandle.read(tag.valuebytecount)
    return data


def _write_png(path: Path, array: NDArray[Any], like: Path | None) -> None:
    _with_metadata(lambda options: _encode(path, array, "PNG", **options), _png_options, like)


def _png_options(like: Path) -> dict[str, Any]:
    """Also of a JPEG."""
    from PIL import Image, PngImagePlugin

    with Image.open(like) as image:
        image.load()  # text may stand behind the pixels
        kept = ["dpi", "exif", *(["icc_profile"] if image.mode in ("L", "I", "I;16") else [])]
        options = {name: image.info[name] for name in kept if name in image.info}
        chunks = PngImagePlugin.PngInfo()
        for key, value in getattr(image, "text", {}).items():
            if isinstance(value, PngImagePlugin.iTXt):
                chunks.add_itxt(key, value, value.lang or "", value.tkey or "")
            else:
                chunks.add_text(key, value)
    return {**options, "pnginfo": chunks}


def _write_bmp(path: Path, array: NDArray[Any], like: Path | None) -> None:
    if array.dtype != np.uint8:
        raise InputError("BMP holds 8 bits a pixel", "write TIFF or PNG")
    _with_metadata(lambda options: _encode(path, array, "BMP", **options), _bmp_options, like)


def _bmp_options(like: Path) -> dict[str, Any]:
    from PIL import Image

    with Image.open(like) as image:
        return {"dpi": image.info["dpi"]} if "dpi" in image.info else {}


def _encode(path: Path, array: NDArray[Any], name: str, **options: Any) -> None:
    from PIL import Image

    encoded = io.BytesIO()  # Pillow takes a short write to a full disk for a whole one
    Image.fromarray(array).save(encoded, name, **options)
    path.write_bytes(encoded.getbuffer())


def _write_pgm(path: Path, array: NDArray[Any], like: Path | None) -> None:
    """A binary grey map. Pillow knows no other white than 255 and 65535."""
    white = np.iinfo(array.dtype).max if like is None else grey_maximum(like)
    height, width = array.shape
    values = np.minimum(array, white).astype(">u2" if white > 255 else np.uint8)
    path.write_bytes(b"P5\n%d %d\n%d\n" % (width, height, white) + values.tobytes())


# --- Volumes ----------------------------------------------------------------------------------------------------------


def _write_nifti(path: Path, array: NDArray[Any], like: Path | None, stored: bool = False) -> None:
    import nibabel

    source: Any = nifti_model(like) if like is not None else None
    shape = source.shape if source is not None else array.shape[::-1]
    data = volume_of(array, shape[::-1], nifti_slice_axis(source) if source is not None else 2).T
    header = source.header.copy() if source is not None and hasattr(source.header, "set_slope_inter") else None
    affine = source.affine if source is not None else np.eye(4)
    kind = nibabel.Nifti2Image if isinstance(source, nibabel.Nifti2Image) else nibabel.Nifti1Image
    try:
        image: Any = kind(data, affine, header, dtype=data.dtype)  # type: ignore[no-untyped-call]
    except nibabel.spatialimages.HeaderDataError:
        raise InputError(f"NIfTI cannot hold {data.dtype}", "write float32") from None
    if stored and (scaling := (source.dataobj.slope, source.dataobj.inter)) != (1, 0):
        image.header.set_slope_inter(*scaling)
    with path.open("wb") as stream:  # nibabel's own save forgets its file open when the disk is full
        if image_suffix(path) == ".nii":
            image.to_stream(stream)
        else:
            with gzip.GzipFile("", "wb", compresslevel=1, fileobj=stream, mtime=0) as packed:
                image.to_stream(packed)


def _write_itk(path: Path, array: NDArray[Any], like: Path | None) -> None:
    import itk

    source = open_itk(like) if like is not None else None
    if source is not None and array.ndim == 3:
        array = volume_of(array, list(source.GetLargestPossibleRegion().GetSize())[::-1], itk_slice_axis(source))
    try:
        image = itk.image_from_array(np.ascontiguousarray(array))
    except (KeyError, itk.TemplateTypeError):
        raise InputError(f"ITK for Python has no images of {array.dtype}", "convert it to float32 first") from None
    packed = like is not None and _is_packed(like)
    if source is not None:
        image.CopyInformation(source)
        image.SetMetaDataDictionary(source.GetMetaDataDictionary())
    # A header apart from its pixels could not appear whole, so MetaImage keeps them in one file, whatever its suffix.
    # ITK knows its formats by small letters only.
    written = path.with_suffix(".nrrd" if image_suffix(path) == ".nrrd" else ".mha")
    try:
        itk.imwrite(image, os.fspath(written), compression=packed)
        if written != path:
            os.replace(written, path)
    except RuntimeError as error:
        reason = " ".join(str(error).strip().split("\n")[-1].split())
        raise OSError(errno.EIO, f"ITK cannot: {reason[:200] or 'no reason given'}") from error
    finally:
        if written != path:
            written.unlink(missing_ok=True)


def _is_packed(path: Path) -> bool:
    with path.open("rb") as stream:
        header = stream.read(2**14)
    return bool(re.search(rb"^(CompressedData\s*=\s*True|encoding:\s*(gz|bz))", header, re.MULTILINE | re.IGNORECASE))


def _write_npy(path: Path, array: NDArray[Any], like: Path | None) -> None:
    with path.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)


def _write_npz(path: Path, array: NDArray[Any], like: Path | None) -> None:
    name = "arr_0"
    if like is not None:
        with np.load(like, allow_pickle=False) as archive:
            (name,) = archive.files
    # Not by np.savez_compressed, which takes some names for its own parameters.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(f"{name}.npy", "w") as stream:
        np.lib.format.write_array(stream, array, allow_pickle=False)


_Writer = Callable[[Path, NDArray[Any], Path | None], None]
_WRITERS: dict[str, _Writer] = {
    ".png": _write_png, ".pgm": _write_pgm, ".bmp": _write_bmp, ".npy": _write_npy, ".npz": _write_npz,
    **dict.fromkeys(TIFF_SUFFIXES, _write_tiff),
    **dict.fromkeys(NIFTI_SUFFIXES, _write_nifti),
    **dict.fromkeys(ITK_SUFFIXES, _write_itk),
}  # fmt: skip
_FLAT = (".png", ".pgm", ".bmp")
WRITABLE_SUFFIXES: tuple[str, ...] = tuple(_WRITERS)
