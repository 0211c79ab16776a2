"""More real images that ship inside installed packages, made grey, for the training of the released weights.

Colour images are no images of this project (`read_image` refuses them), but their luminance has the edges and textures
of the world, and there are few grey ones. With them come the ultrasound examples of pydicom, a head MR and a terrain
of matplotlib, and scanner tests of nibabel. None is a copy or a neighbour of a validation or test sample
(`meddenoise_monai.datasets.sample_datalist`).
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddenoise_monai.errors import InputError
from meddenoise_monai.images import read_image

Image = NDArray[np.float32]


def picture(path: Path) -> NDArray[Any]:
    """Luminance (ITU-R BT.709) of a picture of 8 bits, transparency laid on black."""
    import PIL.Image

    with PIL.Image.open(path) as opened:
        colours = np.asarray(opened.convert("RGB"), np.float32)
    return luminance(colours)


def luminance(colours: NDArray[Any]) -> NDArray[Any]:
    from skimage.color import rgb2gray

    grey: NDArray[Any] = rgb2gray(np.asarray(colours, np.float32) / 255)
    return grey


def colour_dicom(path: Path) -> NDArray[Any]:
    """Luminance of the first frame of a colour DICOM object of 8 bits, or of 16 where a palette says so."""
    import pydicom
    from pydicom.pixels import apply_color_lut, pixel_array

    dataset = pydicom.dcmread(path)
    pixels = pixel_array(dataset, index=0)  # YBR becomes RGB here
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
    return luminance(pixels / (np.iinfo(pixels.dtype).max / 255))


def head_mr(path: Path) -> NDArray[Any]:
    """256 x 256 numbers of 16 bits without a header."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), ">u2").reshape(256, 256)


def terrain(path: Path) -> NDArray[Any]:
    """Heights above the sea."""
    with np.load(path) as content:
        heights: NDArray[Any] = content["elevation"]
    return heights


def grey(path: Path) -> NDArray[Any]:
    return read_image(path).array


PICTURES = (
    *("astronaut.png", "chelsea.png", "clock_motion.png", "coffee.png", "hubble_deep_field.jpg", "ihc.png"),
    *("motorcycle_left.png", "page.png", "phantom.png", "retina.jpg", "rocket.jpg", "text.png"),
)
SOURCES: tuple[tuple[str, str, Callable[[Path], NDArray[Any]]], ...] = (
    *(("skimage", f"data/{name}", picture) for name in PICTURES),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", picture),
    ("matplotlib", "mpl-data/sample_data/s1045.ima.gz", head_mr),
    ("matplotlib", "mpl-data/sample_data/jacksboro_fault_dem.npz", terrain),
    ("sklearn", "datasets/images/china.jpg", picture),
    ("sklearn", "datasets/images/flower.jpg", picture),
    ("pydicom", "data/test_files/examples_palette.dcm", colour_dicom),
    ("pydicom", "data/test_files/examples_jpeg2k.dcm", colour_dicom),
    ("nibabel", "nicom/tests/data/slicethickness_empty_string.dcm", grey),
)


def package_images() -> list[tuple[str, Image]]:
    """Names and images, (H, W) on [0, 1] by their own extremes.

    Raises
    ------
    InputError
        If a package or a file is missing.
    """
    found = []
    for package, inside, read in SOURCES:
        spec = find_spec(package)
        path = Path(spec.origin).parent / inside if spec is not None and spec.origin is not None else Path(inside)
        if not path.is_file():
            raise InputError(f"{package} does not hold {inside}", "install by the README's line, with constraints.txt")
        values = read(path).astype(np.float64)
        unit = (values - values.min()) / (values.max() - values.min())
        found.append((f"{package}-{path.name.partition('.')[0]}", unit.astype(np.float32)))
    return found
