"""The command `meddenoise`: its verbs, with their help texts, and what they print.

A verb's signature declares its arguments and flags (see `command_line`); the job itself is done elsewhere.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from . import __version__
from .command_line import Verb, execute, say
from .errors import InputError, UsageError, fail_in_part

__all__ = ["main"]


def denoise(
    input: str,
    output: str,
    *,
    model: str | None = None,
    device: str | None = None,
    sigma: float | None = None,
    strength: float = 1.0,
    noise: str = "auto",
    gain: float | None = None,
    transfer_syntax: str = "keep",
    keep_private: bool = False,
    preview: str | None = None,
    uncertainty: str | None = None,
    overwrite: bool = False,
    strict: bool = False,
    force: bool = False,
    lenient: bool = False,
    json: bool = False,
) -> None:
    """Remove noise from an image file, or from all images of a folder.

    usage: meddenoise denoise INPUT OUTPUT [flags]

    Reads DICOM, NIfTI, PNG, PGM, BMP, TIFF, JPEG, MetaImage, NRRD and NumPy files, in 2D and 3D. Each comes back in its
    own format and place, with its type of pixels and its metadata; but JPEG becomes PNG, and PAR/REC becomes NIfTI.
    DICOM results are derived objects: a new series of the same study, with new UIDs that the same input, weights and
    settings give again. Files that cannot be used are named and skipped.

    For a folder, OUTPUT/manifest.json says what became of each file: status, SHA-256 of input and result, seconds,
    warnings, the estimated standard deviation of its noise, and that of what was removed. The same command, run again,
    does what is missing; killed at any moment, it leaves no half file. Hidden files are left out.

    A warning names images outside of what was validated: noise beyond 75/255 of the range of values, correlated noise,
    less than 32 pixels. Masks, maps of labels and DICOM results of this program are refused.

    arguments:
      INPUT         a file or folder; never changed
      OUTPUT        a folder outside INPUT, which gets the same tree; for one file also the result's own name

    flags:
      --model FILE      weights, such as bundle/models/model_best.pt of your training; by default the released ones
      --device NAME     cpu, cuda, cuda:1, ...; by default CUDA where there is one
      --sigma NUMBER    standard deviation of the noise, in the image's own units (grey levels, HU), where it is known:
                        no more than that is taken away; by default the network decides
      --strength NUMBER share of the found noise to remove, from 0 (nothing) to 1 (all, the default)
      --noise KIND      auto, gaussian, poisson, rician or correlated, see below; auto by default
      --gain NUMBER     with --noise poisson, where it is known: the image's units per count; --sigma is then the
                        deviation of the read-out noise (0 by default)
      --transfer_syntax NAME
                        of DICOM results: keep (the default: as the source if that is uncompressed, RLE or lossless
                        JPEG 2000; else explicit), explicit (uncompressed), rle, or j2k (lossless JPEG 2000)
      --keep_private    keep private DICOM attributes, which may hold facts of the old pixels
      --preview DIR     write a picture of each image there: before, after, and what was removed
      --uncertainty DIR write a map for each image there, in three times the time: how far each pixel of the result may
                        lie from the clean image, in the image's own units. 9 of 10 pixels of images like those it was
                        calibrated on, with white noise, lie no further. float32, NIfTI for NIfTI, else TIFF. With a
                        --strength below 1, or a --sigma below what was found, by so much more as was left in
      --overwrite       make all results anew, also those of other weights or settings
      --strict          fail at the first file that cannot be used
      --force           denoise masks, maps of labels (few different values) and DICOM results of this
                        program, too
      --lenient         exit with 0, not 3, where all that was skipped is whole, but nothing to be denoised: in
                        colour, masks, reports, plans, results of this program
      --json            print one JSON object: {"written", "skipped": {file: reason}, "unchanged", "unsuitable": how
                        many of the skipped are whole}; nothing where the job fails

    noise:
      gaussian          of one strength all over the image, or of slowly changing strength
      poisson           photon counting, with or without Gaussian read-out noise: stronger where the image is brighter;
                        gain and read-out noise are estimated from each image
      rician            of magnitude MR images, whose background does not average to 0; estimated, or --sigma of either
                        channel
      correlated        smoothed, up-sampled or reconstructed: neighbouring pixels have similar noise
      auto              correlated where the image shows that it is, with a warning that names the correlation; else
                        gaussian. Each file is judged by itself: name the noise to treat the slices of a series alike

    examples:
      meddenoise denoise scans/ denoised/
      meddenoise denoise head.nii.gz head_clean.nii.gz --sigma 12 --strength 0.8
    """
    from .denoising import denoise_files

    summary = denoise_files(
        input, output, model=model, device=device, sigma=sigma, strength=strength, noise=noise, gain=gain,
        overwrite=overwrite, strict=strict, transfer_syntax=transfer_syntax, keep_private=keep_private,
        preview=preview, uncertainty=uncertainty, force=force,
    )  # fmt: skip
    if json:
        say(_as_json(dataclasses.asdict(summary)))
    else:
        before = f", {summary.unchanged} were done already" if summary.unchanged else ""
        say(f"{summary.written} image(s) denoised into {output}{before}")
    failed = len(summary.skipped) - summary.unsuitable
    fail_in_part(failed, unsuitable=0 if lenient else summary.unsuitable)


def archive(
    source: str,
    target: str,
    *,
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
    model: str | None = None,
    device: str | None = None,
    sigma: float | None = None,
    strength: float = 1.0,
    noise: str = "auto",
    gain: float | None = None,
    transfer_syntax: str = "keep",
    keep_private: bool = False,
    overwrite: bool = False,
    force: bool = False,
    lenient: bool = False,
    json: bool = False,
) -> None:
    """Remove noise from all images of an archive, by one process or by many, on one machine or on many.

    usage: meddenoise archive SOURCE TARGET [flags]

    Does with each file what `meddenoise denoise` does, to the same bytes, in the same tree; hidden files are left out.
    Every result appears whole or not at all. The same command, run again after whatever happened, does what is missing
    and what failed.

    TARGET/manifest.parquet says what became of each file: a folder of Parquet files with the columns source, target,
    status (done, failed, unsuitable, or ignored for what is no image), reason, job, source_version, source_sha256,
    target_sha256, target_size, seconds, warnings, estimated_sigma, removed_sigma and at. Names of files may name
    patients: keep it where the images are.

    arguments:
      SOURCE        a folder, or a URL of fsspec's, such as s3://bucket/prefix; never changed
      TARGET        a folder, or such a URL, outside SOURCE

    flags:
      --engine NAME     local (the default: this process, one file after the other) or ray (actors of Ray Data, the
                        extra archive)
      --workers COUNT   of ray: processes that denoise; by default one for each GPU, or core, of this machine
      --address HOST    of ray: a cluster that runs already, such as auto or HOST:6379; by default one is started on
                        this machine, for this job only
      --model FILE      weights, at the same path on each machine; by default the released ones
      --device NAME     cpu, cuda, ...; by default CUDA where there is one
      --sigma, --strength, --noise, --gain, --transfer_syntax, --keep_private, --force
                        as of meddenoise denoise
      --overwrite       replace what is there and is not of this very job: of other weights or settings, or of others
      --lenient         exit with 0, not 3, where all that was left out is whole, but nothing to be denoised
      --json            print one JSON object: {"written", "unchanged", "failed", "unsuitable", "ignored"}; nothing
                        where the job fails

    examples:
      meddenoise archive studies/ denoised/ --engine ray --workers 8
      meddenoise archive s3://hospital/ct s3://research/ct --engine ray --address auto --device cuda --workers 4
    """
    from .archiving import archive_files
    from .denoising import FileJob
    from .records import RECORDS

    job = FileJob(noise, sigma, gain, strength, transfer_syntax, keep_private, force)
    summary = archive_files(
        source, target, job, engine=engine, workers=workers, model=model, device=device, overwrite=overwrite,
        address=address,
    )  # fmt: skip
    if json:
        say(_as_json(dataclasses.asdict(summary)))
    else:
        before = f", {summary.unchanged} were done already" if summary.unchanged else ""
        ignored = f"; {summary.ignored} file(s) that are no images were left out" if summary.ignored else ""
        say(f"{summary.written} image(s) denoised into {target}{before}{ignored}")
    hint = f"status and reason in {target.rstrip('/')}/{RECORDS} say which and why"
    fail_in_part(summary.failed, hint, 0 if lenient else summary.unsuitable)


def corrupt(
    input: str,
    output: str,
    *,
    noise: str = "gaussian",
    sigma: float | None = None,
    seed: int = 0,
    factor: float | None = None,
    fwhm: float | None = None,
    elongation: float | None = None,
    ramp: float | None = None,
    mean: float | None = None,
    p: float | None = None,
    photons: float | None = None,
    rate: float | None = None,
    std: float | None = None,
    clip: bool = False,
    normalise: bool = False,
    overwrite: bool = False,
    strict: bool = False,
) -> None:
    """Write noisy copies of images, and the originals in the same format beside them.

    usage: meddenoise corrupt INPUT OUTPUT --noise NAME [noise parameters] [flags]

    Each image goes to OUTPUT/original and, with noise, to OUTPUT/noisy, in the same tree: NIfTI as NIfTI, everything
    else as TIFF, in float32. The noise depends on the seed and the image alone. Files that cannot be used are named and
    skipped.

    arguments:
      INPUT         a file or folder; never changed
      OUTPUT        a folder outside INPUT

    noise, with its parameters:
      gaussian           --sigma                  x + N(0, sigma^2); the default
      variance_gaussian  [--factor 0.1]           Gaussian of variance factor * var(image)
      paper_gaussian     --p --mean --std         x + p N(mean, std^2), as in arXiv:1608.04667
      paper_poisson      --p --rate               x + p Poisson(rate), as in arXiv:1608.04667
      poisson            --photons                photon counting; photons is the count where the image is brightest
      poisson_gaussian   --photons --sigma        photon counting, then Gaussian
      rician             --sigma                  of magnitude MR images
      speckle            --sigma                  x (1 + N(0, sigma^2))
      correlated         --sigma --fwhm           Gaussian, smoothed to a full width at half maximum in pixels;
                         [--elongation 1]         its vertical over its horizontal width;
                         [--ramp 0]               spectrum grows with the frequency to this power, 1 as of CT

      --sigma is in the image's own units (grey levels, HU); on the [0, 1] scale with --normalise; for speckle always a
      proportion. All other parameters are on the [0, 1] scale of the image.

    flags:
      --seed INTEGER    of the noise; 0 by default
      --clip            clip noisy values to the image's range
      --normalise       write values on [0, 1] after min-max normalisation, instead of the image's own units
      --overwrite       replace the files of an earlier run
      --strict          fail at the first file that cannot be used

    examples:
      meddenoise corrupt films/ pairs/ --noise gaussian --sigma 25 --seed 0
      meddenoise corrupt films/ pairs/ --noise variance_gaussian --normalise --clip
    """
    from .folders import corrupt as corrupt_files
    from .noise import NOISE_MODELS

    needs_sigma = noise in NOISE_MODELS and "sigma" in inspect.signature(NOISE_MODELS[noise]).parameters
    if needs_sigma and (sigma is None or sigma < 0):  # the noise models' own hint would speak of the [0, 1] scale
        got = "" if sigma is None else f", not {sigma:g}"
        unit = "as a proportion of the signal" if noise == "speckle" else "in the image's own units, such as --sigma 25"
        raise UsageError(f"the noise {noise!r} needs a --sigma of zero or more{got}", f"give it {unit}")
    if not os.path.exists(input):
        raise InputError(f"no such file or folder: {input}", "check the path")
    given = {"sigma": sigma, "factor": factor, "fwhm": fwhm, "mean": mean, "p": p, "photons": photons, "rate": rate,
             "std": std, "elongation": elongation, "ramp": ramp}  # fmt: skip
    parameters: dict[str, float | bool] = {name: value for name, value in given.items() if value is not None}
    summary = corrupt_files(
        input, output, noise=noise, seed=seed, normalise=normalise, overwrite=overwrite, strict=strict, clip=clip,
        **parameters,
    )  # fmt: skip
    for reason in summary.skipped.values():
        logging.getLogger(__package__).warning("skipped: %s", reason)
    say(f"{summary.written} pair(s) of images written to {output}")
    fail_in_part(len(summary.skipped))


def score(reference: str, test: str, *, data_range: float | None = None, json: bool = False) -> None:
    """Measure how like images are to their references: SSIM, PSNR and RMSE, for each image and on average.

    usage: meddenoise score REFERENCE TEST [flags]

    Prints a table with a row for each image and one for the mean. SSIM is Wang's (scikit-image's and MONAI's Gaussian
    window, inside the image); ssim_matlab is MATLAB's, which replicates the borders. PSNR is in dB, at most 100; RMSE
    in the images' units. Volumes are scored slice by slice and averaged.

    arguments:
      REFERENCE     the clean image, or a folder of them
      TEST          the image to score, or a folder of the same names (suffixes may differ)

    flags:
      --data_range NUMBER   width of the value range in the images' units; by default 255 for 8-bit references, else
                            each reference's own maximum minus minimum
      --json                print one JSON object: {"data_range", "images": [{"name", "ssim", ...}], "mean": {...}}

    examples:
      meddenoise score pairs/original denoised/
      meddenoise score clean.png noisy.png --json
    """
    from .folders import score_folders

    rows, means = score_folders(reference, test, data_range=data_range)
    say(_as_json({"data_range": data_range, "images": rows, "mean": means}) if json else _score_table(rows, means))


def compare(
    data: str,
    *,
    output: str,
    methods: Sequence[str] | None = None,
    noise: Sequence[str] = ("gaussian",),
    levels: Sequence[float] = (15, 25, 50),
    realisations: int = 5,
    images: int = 64,
    window: int = 256,
    tissue: float | None = None,
    repeats: bool = False,
    model: str | None = None,
    seed: int = 0,
    workers: int | None = None,
    protocol: str | None = None,
    tracking_uri: str | None = None,
    run_name: str | None = None,
    log_pictures: bool = False,
    json: bool = False,
) -> None:
    """Compare denoisers on a data set, and write a report that can be printed.

    usage: meddenoise compare DATA --output DIR [flags]

    Classical baselines are tuned for each noise level on other patients and are told the true level; the network is
    blind. Measured are: PSNR, SSIM, MS-SSIM and RMSE with 95 % intervals over patients and paired tests; bias and
    variance; the spectrum of the noise that is left; sharpness of edges by contrast; how well an observer finds
    inserted lesions; the contrast of annotated lesions; structure that is invented. Everything goes to OUTPUT and to
    MLflow.

    Interrupted, the same command goes on where it was.

    arguments:
      DATA          one of: a folder of clean images, or one image; a datalist (its "test" part is judged, baselines are
                    tuned on "validation"; items may name their "source"); a folder with original/ and noisy/, as
                    `meddenoise corrupt` makes it; with --repeats, a folder of folders. The name of the folder, the
                    datalist or the "source" is in everything that is written and sent to MLflow: let it name nobody

    flags:
      --output DIR          gets report.html, table.md, results.json, per_image.csv, timings.json, figures/ and, for
                            your eyes only, case_files.csv, which says which file each case is
      --methods NAMES       such as nlm,bm3d,dae; NAME=FILE adds the weights of another network of our kind; by default
                            all that are installed
      --noise NAMES         gaussian (the default), poisson, poisson_gaussian, rician, speckle, correlated
      --levels NUMBERS      standard deviation of the noise at mid-grey, of 255; by default 15,25,50
      --realisations COUNT  draws of the noise for bias, variance and spectra; 5 by default, 1 for none
      --images COUNT        at most so many of each source, evenly spread; 64 by default, 0 for all
      --window PIXELS       side of the window that is judged of each image; 256 by default, 0 for the whole image
      --tissue SHARE        least share of tissue (pixels above 0.1 of the range) in a window, such as 0.95; images
                            without one are left out; by default the window with the most is taken
      --repeats             each folder in DATA holds repeated images of one scene: half of them are judged, the mean of
                            the rest is the truth
      --model FILE          weights of dae; by default the released ones
      --seed INTEGER        of the noise; 0 by default
      --workers COUNT       processes of one thread each; by default one for each core
      --protocol FILE       protocol.json of an earlier comparison, from MLflow or inside its results.json: takes all
                            settings from it and refuses other data or weights
      --tracking_uri URI    of MLflow; by default OUTPUT/mlflow.db
      --run_name NAME       in MLflow
      --log_pictures        the report in MLflow shows windows of the images, too; OUTPUT/report.html always does
      --json                print results.json

    examples:
      meddenoise compare scans/ --output comparison/
      meddenoise compare mias/datalist.json --output comparison/ --noise gaussian,poisson --levels 10,25 --tissue 0.95
    """
    from .comparing import compare as compare_methods

    found = compare_methods(
        data, output, methods=methods, noise=noise, levels=levels, realisations=realisations, images=images,
        window=window, tissue=tissue, repeats=repeats, model=model, seed=seed, workers=workers, protocol=protocol,
        tracking_uri=tracking_uri, run_name=run_name, log_pictures=log_pictures,
    )  # fmt: skip
    if json:
        say(_as_json(found.results))
    else:
        from . import report

        say(report.in_short(found.results))
        say(f"the report: {found.folder / 'report.html'}\nall tables: {found.folder / 'table.md'}")
        say(f"in MLflow:  {found.look}")
    fail_in_part(len(found.left_out), "the warnings above name them; nothing was compared on them")


def prepare(
    kind: str,
    source: str,
    output: str,
    *,
    seed: int = 0,
    download: bool = False,
    overwrite: bool = False,
    strict: bool = False,
    sha256: str | None = None,
    patient_pattern: str | None = None,
    url: str | None = None,
) -> None:
    r"""Check a data set and write a datalist for training, split by patient.

    usage: meddenoise prepare {mini_mias,dx,folder} SOURCE OUTPUT [flags]

    Writes OUTPUT/datalist.json, which `--datalist` of the training takes. The images of a folder stay where they are;
    those of an archive are unpacked to OUTPUT/images. Images that cannot be used are named and left out.

    arguments:
      KIND          mini_mias (322 mammograms), dx (400 cephalograms), or folder (images of any kind)
      SOURCE        a folder, or a .tar.gz, .tgz, .tar or .zip archive; never changed
      OUTPUT        the folder to make, outside SOURCE

    flags:
      --seed INTEGER            of the split; 0 by default
      --download                fetch the archive of mini_mias to SOURCE first
      --url URL                 where to download from instead
      --sha256 HEX              what the archive must have, 64 hexadecimal digits
      --patient_pattern REGEX   for a folder: the group of this pattern in a file's name is the patient
      --overwrite               replace what an earlier run made in OUTPUT
      --strict                  fail at the first image that cannot be used

    examples:
      meddenoise prepare mini_mias all-mias.tar.gz mias/ --download
      meddenoise prepare folder scans/ scans_list/ --patient_pattern '^(\d+)_'
    """
    from .prepare import prepare as prepare_data

    summary = prepare_data(
        kind, source, output, seed=seed, download=download, overwrite=overwrite, strict=strict, sha256=sha256,
        patient_pattern=patient_pattern, url=url,
    )  # fmt: skip
    say(str(summary))
    fail_in_part(len(summary.skipped))


def export(output: str, *, onnx: bool = False, overwrite: bool = False) -> None:
    """Write the self-contained bundle for MONAI's model zoo and for Hugging Face: a folder and a zip file.

    usage: meddenoise export OUTPUT [flags]

    OUTPUT/medical_image_denoising_dae holds configurations, released weights, documents, licence and this package's
    code. It trains, evaluates and denoises where this package is not installed; its docs/README.md says how. The zip
    file holds the same; the same sources give the same bytes. What trainings wrote is left out. An export fails where
    metadata.json, its changelog, CHANGELOG.md and the package name different versions, or a file is larger than 25 MB.

    arguments:
      OUTPUT        a folder, made when missing

    flags:
      --onnx            add models/model.onnx: batches of images of any size from 16 pixels on; needs the packages of
                        the extra "onnx"
      --overwrite       replace an earlier export; but no file that was put there, or changed, since

    examples:
      meddenoise export zoo/
      meddenoise export zoo/ --onnx --overwrite
    """
    from .exporting import export_bundle

    say(str(export_bundle(output, onnx=onnx, overwrite=overwrite)))


def version() -> None:
    """Print the version.

    usage: meddenoise version
    """
    say(f"meddenoise {__version__}")


def _as_json(content: object) -> str:
    return json.dumps(content, indent=2, allow_nan=False)


def _score_table(rows: Sequence[Mapping[str, Any]], means: Mapping[str, float]) -> str:
    formats = {"ssim": "{:.4f}", "ssim_matlab": "{:.4f}", "psnr": "{:.2f}", "rmse": "{:.5g}"}
    table = [["name", *means]]
    for row in (*rows, {"name": f"mean of {len(rows)}", **means}):
        table.append([str(row["name"]), *(formats.get(name, "{:.5g}").format(row[name]) for name in means)])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for name, *cells in table:
        aligned = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        lines.append("  ".join((name.ljust(widths[0]), *aligned)))
    return "\n".join(lines)


_VERBS: dict[str, Verb] = {
    verb.__name__: verb for verb in (denoise, archive, corrupt, score, compare, prepare, export, version)
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        The words after the program's name; by default those of this process.

    Returns
    -------
    int
        The exit code: 0 done, 1 failed, 2 wrong usage, 3 some files failed and the rest are written, 130 interrupted.
    """
    about = "Remove noise from medical images with convolutional denoising autoencoders."
    return execute(_VERBS, about, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
