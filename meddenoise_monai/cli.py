"""The command line `meddenoise`: parses what was typed, runs the job, reports results, errors and exit codes.

Results go to stdout; progress, warnings and errors to stderr. Every verb is a function whose signature declares its
arguments and whose docstring is its help text; python-fire binds the words to them. What fire would let pass is checked
before (`_normalised`), and the job starts only when every word is understood.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import json
import logging
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO

import fire
from fire.core import FireExit

from . import __version__
from .errors import InputError, MeddenoiseError, PartialFailure, UsageError, nearest

__all__ = ["main"]

_INTERRUPTED = 130  # 128 + SIGINT, as shells say it

Verb = Callable[..., None]
_VERBS: dict[str, Verb] = {}


# --- How values are read ----------------------------------------------------------------------------------------------
# Fire's own parsing takes words for Python literals: a folder 001 would become 1, and [a] a list.


def _text(name: str, word: str) -> str:
    if not word:
        raise UsageError(f"{name} is empty", "is a variable of the shell unset?")
    return word


def _number(name: str, word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{name} must be a number, got {word!r}", f"for example {name} 1.5")
    return value


def _integer(name: str, word: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", word):
        raise UsageError(f"{name} must be an integer, got {word!r}", f"for example {name} 0")
    return int(word)


def _switch(name: str, word: str) -> bool:
    if word.lower() not in ("true", "false"):
        raise UsageError(f"{name} takes no value, got {word!r}", f"write {name}, or --no-{name[2:]}")
    return word.lower() == "true"


_READERS: dict[str, Callable[[str, str], Any]] = {
    "str": _text, "str | None": _text, "float": _number, "float | None": _number, "int": _integer, "bool": _switch,
}  # fmt: skip


def _verb(function: Verb) -> Verb:
    """Register a verb: positional parameters are its arguments, keyword-only ones its flags."""
    readers: dict[str, Callable[[str], Any]] = {}
    for parameter in inspect.signature(function).parameters.values():
        is_flag = parameter.kind is parameter.KEYWORD_ONLY
        shown = f"--{parameter.name}" if is_flag else parameter.name.upper()
        readers[parameter.name] = functools.partial(_READERS[str(parameter.annotation)], shown)
    fire.decorators.SetParseFns(**readers)(function)
    _VERBS[function.__name__] = function
    return function


# --- The verbs --------------------------------------------------------------------------------------------------------


@_verb
def denoise(
    input: str,
    output: str,
    *,
    model: str | None = None,
    device: str | None = None,
    sigma: float | None = None,
    strength: float = 1.0,
    overwrite: bool = False,
    strict: bool = False,
) -> None:
    """Remove noise from an image file, or from all images of a folder.

    usage: meddenoise denoise INPUT OUTPUT [flags]

    Reads DICOM, NIfTI, PNG, PGM, BMP, TIFF, JPEG, MetaImage, NRRD and NumPy files, in 2D and 3D. PNG, PGM, BMP, TIFF
    and NIfTI come back in their own format and place; JPEG becomes PNG, and everything else a float32 TIFF beside the
    old name (a.dcm.tif). DICOM results, too, are float32 TIFF in the rescaled units (HU for CT): derived DICOM objects
    come in a later version. Files that cannot be used are named and skipped.

    arguments:
      INPUT         a file or folder; never changed
      OUTPUT        a folder outside INPUT, which gets the same tree; for one file also the result's own name

    flags:
      --model FILE      weights, a model.pt; by default the released ones
      --device NAME     cpu, cuda, cuda:1, ...; by default CUDA where there is one
      --sigma NUMBER    standard deviation of the noise, in the image's own units (grey levels, HU), where it is known:
                        no more than that is taken away; by default the network decides
      --strength NUMBER share of the found noise to remove, from 0 (nothing) to 1 (all, the default)
      --overwrite       replace results that exist already
      --strict          fail at the first file that cannot be used

    examples:
      meddenoise denoise scans/ denoised/
      meddenoise denoise head.nii.gz head_clean.nii.gz --sigma 12 --strength 0.8
    """
    from .denoising import denoise_files

    summary = denoise_files(
        input, output, model=model, device=device, sigma=sigma, strength=strength, overwrite=overwrite, strict=strict
    )
    _say(f"{summary.written} image(s) denoised into {output}")
    _fail_in_part(len(summary.skipped))


@_verb
def corrupt(
    input: str,
    output: str,
    *,
    noise: str = "gaussian",
    sigma: float | None = None,
    seed: int = 0,
    factor: float | None = None,
    fwhm: float | None = None,
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
      correlated         --sigma --fwhm           Gaussian, smoothed to a full width at half maximum in pixels

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
             "std": std}  # fmt: skip
    parameters: dict[str, float | bool] = {name: value for name, value in given.items() if value is not None}
    summary = corrupt_files(
        input, output, noise=noise, seed=seed, normalise=normalise, overwrite=overwrite, strict=strict, clip=clip,
        **parameters,
    )  # fmt: skip
    for reason in summary.skipped.values():
        logging.getLogger(__package__).warning("skipped: %s", reason)
    _say(f"{summary.written} pair(s) of images written to {output}")
    _fail_in_part(len(summary.skipped))


@_verb
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
    _say(_as_json({"data_range": data_range, "images": rows, "mean": means}) if json else _score_table(rows, means))


@_verb
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
    _say(str(summary))
    _fail_in_part(len(summary.skipped))


@_verb
def version() -> None:
    """Print the version.

    usage: meddenoise version
    """
    _say(f"meddenoise {__version__}")


# --- What is printed --------------------------------------------------------------------------------------------------


def _say(text: str, stream: TextIO | None = None) -> None:
    """Print on stdout (or `stream`); a reader that has gone, as in ``| head``, or an old encoding is no error."""
    stream = stream or sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except BrokenPipeError:
        # The interpreter flushes once more at its end, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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


def _fail_in_part(skipped: int) -> None:
    if skipped:
        raise PartialFailure(
            f"{skipped} file(s) failed; the rest are written", "the warnings above name them; --strict stops at one"
        )


class _WarningHandler(logging.Handler):
    """Log records as lines on stderr, without tearing a progress bar apart."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        with tqdm.external_write_mode(file=sys.stderr):
            _say(f"{record.levelname.lower()}: {' '.join(record.getMessage().split())}", sys.stderr)


@contextlib.contextmanager
def _warnings_on_stderr() -> Iterator[None]:
    logger = logging.getLogger(__package__)
    handler = _WarningHandler(logging.WARNING)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def _help(verb: str | None) -> str:
    if verb is not None:
        return inspect.cleandoc(_VERBS[verb].__doc__ or "")
    width = max(map(len, _VERBS))
    first_lines = [f"  {name.ljust(width)}  {_help(name).splitlines()[0]}" for name in _VERBS]
    return "\n".join(
        [
            "Remove noise from medical images with convolutional denoising autoencoders.",
            "",
            "usage: meddenoise VERB ARGUMENTS [flags]",
            "",
            "verbs:",
            *first_lines,
            "",
            "flags of every verb:",
            "  -h, --help   the help text of the verb",
            "  --debug      the whole traceback of an error",
            "  --version    the version",
            "",
            "exit codes: 0 done, 1 failed, 2 wrong usage, 3 some files failed and the rest are written",
        ]
    )


# --- From words to a job ----------------------------------------------------------------------------------------------


def _is_flag(word: str) -> bool:
    return re.match(r"--|-[a-zA-Z]", word) is not None  # as fire sees it: -5 and - are values


def _normalised(verb: str, words: Sequence[str]) -> list[str]:
    """The words in the one spelling that fire binds as meant: ``--flag=value``, also for switches.

    Fire by itself would take ``--overwrite IN OUT`` for ``--overwrite=IN``, a ``--sigma`` without a value for True,
    and would run the job before it complains about a word that it does not know.

    Raises
    ------
    UsageError
        For a flag that is unknown or lacks its value, and for more arguments than there are.
    """
    parameters = inspect.signature(_VERBS[verb]).parameters
    switches = {name for name, parameter in parameters.items() if parameter.annotation == "bool"}
    result, rest, arguments = [], list(words), 0
    while rest:
        word = rest.pop(0)
        if not _is_flag(word):
            arguments += 1
            if arguments > sum(p.kind is not p.KEYWORD_ONLY for p in parameters.values()):
                raise UsageError(f"unexpected argument {word!r}", _usage(verb))
            result.append(word)
            continue
        typed, equals, value = word.partition("=")
        name = typed.lstrip("-").replace("-", "_")
        negated = re.sub("^no_?", "", name)
        if name not in parameters and negated in switches and not equals:
            result.append(f"--{negated}=False")
        elif name not in parameters or not word.startswith("--"):
            flags = {n for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY} | {"help", "debug"}
            raise UsageError(f"{verb} has no flag {typed}", nearest(name, flags))
        elif equals:
            result.append(f"--{name}={value}")
        elif name in switches:
            explicit = rest and rest[0].lower() in ("true", "false")
            result.append(f"--{name}={rest.pop(0) if explicit else True}")
        elif rest and not _is_flag(rest[0]):
            result.append(f"--{name}={rest.pop(0)}")
        else:
            raise UsageError(f"--{name} needs a value", f"see meddenoise {verb} --help")
    return result


def _usage(verb: str) -> str:
    return next(line for line in _help(verb).splitlines() if line.startswith("usage: "))


def _parsed(verb: str, words: Sequence[str]) -> Callable[[], None]:
    """The job that the words ask for; nothing of it has run.

    Raises
    ------
    UsageError
        If the words do not fit the verb.
    """
    jobs: list[Callable[[], None]] = []

    @functools.wraps(_VERBS[verb])
    def later(*args: Any, **kwargs: Any) -> None:
        jobs.append(functools.partial(_VERBS[verb], *args, **kwargs))

    try:
        # Fire prints screens of usage on an error.
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            fire.Fire({verb: later}, command=[verb, *_normalised(verb, words)], name="meddenoise")
    except FireExit as exit_:
        message = exit_.trace.elements[-1].ErrorAsStr()
        required = re.match("The function received no value for the required argument: (.*)", message)
        if required:
            message = f"{verb} needs {required[1].upper()}"
        raise UsageError(message, _usage(verb)) from None
    return jobs[-1]


def _run(words: list[str]) -> None:
    if "--" in words:
        raise UsageError("'--' is not used here", "write ./-name for a path that begins with a dash")
    verb = words[0] if words and not _is_flag(words[0]) else None
    if verb is not None and verb not in _VERBS:
        raise UsageError(f"unknown verb {verb!r}", nearest(verb, _VERBS))
    if {"-h", "--help"} & set(words):
        _say(_help(verb))
    elif words == ["--version"]:
        version()
    elif verb is None:
        problem = f"a verb comes first, got {words[0]}" if words else "no verb given"
        raise UsageError(problem, f"known: {', '.join(_VERBS)}; see meddenoise --help")
    else:
        _parsed(verb, words[1:])()


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
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        with _warnings_on_stderr():
            _run([word for word in words if word != "--debug"])
    except KeyboardInterrupt:
        _say("interrupted", sys.stderr)
        return _INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        if not isinstance(error, MeddenoiseError):
            hint = "this should not happen: run it again with --debug, and report what it shows"
            error = MeddenoiseError(f"{type(error).__name__}: {error}", hint)
        for kind, text in (("error", error.message), ("hint", error.hint)):
            _say(f"{kind}: {' '.join(text.split())}", sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
