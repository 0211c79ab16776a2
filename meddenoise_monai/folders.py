"""Jobs over whole folders: write noisy copies of images, and score one folder against another."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from .errors import InputError, UsageError
from .image_writing import write_image
from .images import NIFTI_SUFFIXES, IntensityScale, find_images, image_suffix, read_image
from .pairing import matched
from .results import float_name

__all__ = ["CorruptSummary", "corrupt", "score_folders"]


@dataclasses.dataclass(frozen=True)
class CorruptSummary:
    """What `corrupt` did: files written as pairs, and the ones that could not be used, with the reason."""

    written: int
    skipped: dict[str, str]


def _inputs(source: Path) -> tuple[Path, list[Path]]:
    """The folder that relative names count from, and the images."""
    return (source, find_images(source)) if source.is_dir() else (source.parent, [source])


def corrupt(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    noise: str = "gaussian",
    seed: int = 0,
    normalise: bool = False,
    overwrite: bool = False,
    strict: bool = False,
    **parameters: float | bool,
) -> CorruptSummary:
    """Write each image to ``output/original`` and a noisy copy to ``output/noisy``, in the same tree.

    Values are float32, unclipped unless ``clip=True``, so integers of up to 24 bits lose nothing: NIfTI stays NIfTI,
    everything else becomes TIFF. The noise is a function of the seed and the image, whatever else the folder holds.

    Parameters
    ----------
    source
        A file or folder; never changed.
    output
        A folder outside `source`.
    noise
        A name of `meddenoise_monai.noise.NOISE_MODELS`.
    seed
        Of the noise.
    normalise
        Write values on the [0, 1] scale instead of the image's own units. As the Torch7 ancestor did, the image is
        min-max normalised first.
    overwrite
        Replace files of an earlier run.
    strict
        Fail at the first unreadable file instead of skipping it.
    parameters
        Of the noise model. ``sigma`` is in the image's own units (of the [0, 1] scale if `normalise`), but for speckle
        noise, where it is a proportion of the signal; all others are on the [0, 1] scale of the image.

    Raises
    ------
    UsageError
        For an unknown noise or parameter, or where the output would lie inside the source or replace it.
    InputError
        If nothing can be read, or the output exists.
    """
    from .noise import make_noise

    source, output = Path(source), Path(output)
    make_noise(noise, **parameters)  # a wrong parameter must fail before the first file is read
    root, paths = _inputs(source)
    if output.resolve().is_relative_to(source.resolve()) and source.is_dir():
        raise UsageError(f"the output {output} lies inside the source {source}", "choose a folder outside of it")
    if any(source.resolve().is_relative_to((output / kind).resolve()) for kind in ("original", "noisy")):
        raise UsageError(f"the source {source} lies where the output {output} goes", "choose another output")
    if not overwrite and output.is_dir() and any(output.iterdir()):
        raise InputError(f"the output {output} is not empty", "choose another folder, or add --overwrite")

    inputs = {os.path.realpath(path) for path in paths}
    names = {path: float_name(path.relative_to(root)) for path in paths}
    for kind, name in itertools.product(("original", "noisy"), names.values()):
        if os.path.realpath(output / kind / name) in inputs:
            raise UsageError(f"{output / kind / name} is one of the inputs, by a link", "choose another output")
    skipped: dict[str, str] = {}
    written = 0
    for path, name in tqdm(names.items(), "corrupt", disable=None):
        try:
            pair = _noisy_pair(path, noise, parameters, seed, normalise)
        except InputError as error:
            if strict or len(paths) == 1:
                raise
            skipped[str(path.relative_to(root))] = error.message
            continue
        for kind, values in pair.items():
            write_image(output / kind / name, values, like=path if image_suffix(path) in NIFTI_SUFFIXES else None)
        written += 1
    if not written:
        raise InputError(f"none of {len(paths)} file(s) could be used", next(iter(skipped.values())))
    return CorruptSummary(written, skipped)


def _noisy_pair(
    path: Path, noise: str, parameters: Mapping[str, float | bool], seed: int, normalise: bool
) -> dict[str, NDArray[np.float32]]:
    """The image and a noisy copy, as float32; one that does not fit is refused before the other is written."""
    import torch

    from .noise import image_seed, make_noise

    image = read_image(path)
    scale = image.scale
    if normalise:
        scale = IntensityScale(float(image.array.min()), float(image.array.max()), scale.inverted)
    scaled = dict(parameters)
    if "sigma" in scaled and not normalise and noise != "speckle":
        scaled["sigma"] = float(scaled["sigma"]) / scale.width
    clean = torch.from_numpy(scale.to_unit(image.array))
    noisy = make_noise(noise, **scaled).apply(clean, image_seed(clean, seed)).numpy()
    pair: dict[str, NDArray[Any]] = {"original": image.array, "noisy": scale.from_unit(noisy)}
    if normalise:
        pair = {"original": clean.numpy(), "noisy": noisy}
    with np.errstate(over="ignore"):
        singles = {kind: values.astype(np.float32) for kind, values in pair.items()}
    if not all(np.isfinite(values).all() for values in singles.values()):
        raise InputError(
            f"the values of {path} are infinite or too large for float32, with the noise or without",
            "take weaker noise, or larger units",
        )
    return singles


def score_folders(
    reference: str | os.PathLike[str], test: str | os.PathLike[str], data_range: float | None = None
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """SSIM (both definitions), PSNR and RMSE between two files, or between the like-named files of two folders.

    Parameters
    ----------
    reference, test
        Files or folders of images in the same units.
    data_range
        Width of the value range, in these units; by default 255 for 8-bit references, else the reference's own
        maximum minus minimum.

    Returns
    -------
    tuple
        One row an image (``name, ssim, ssim_matlab, psnr, rmse``; RMSE in the images' units), and the means.

    Raises
    ------
    UsageError
        If one is a file and the other a folder.
    InputError
        If the folders hold different names, an image cannot be read or is smaller than SSIM's window of 11x11
        pixels, or two of one name differ in shape.
    """
    from .metrics import score

    rows: list[dict[str, Any]] = []
    for name, first, second in tqdm(matched(Path(reference), Path(test)), "score", disable=None):
        clean, other = read_image(first), read_image(second)
        width = data_range if data_range is not None else clean.scale.width
        try:
            rows.append({"name": name, **score(clean.array, other.array, data_range=width)})
        except InputError as error:
            raise InputError(f"{first} and {second}: {error.message}", error.hint) from None
    return rows, {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if key != "name"}
