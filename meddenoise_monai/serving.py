"""A denoiser as a model server sees it: arrays and DICOM files in a table, the same table denoised.

MLflow imports this module by its name and calls `_load_pyfunc` (``loader_module``), so that no Python object is ever
unpickled: the weights are plain tensors. `tracking.registry` declares what a request may hold.
"""

from __future__ import annotations

import base64
import binascii
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .denoising import denoise_files
from .errors import InputError, MeddenoiseError, UsageError, nearest
from .inference import Denoiser, load_denoiser

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["ServedDenoiser"]

_FORM = 'give one of them, such as {"inputs": {"image": [[...]]}} or {"inputs": {"dicom": "base64"}}'
_MAGIC = slice(128, 132)  # where a DICOM file says that it is one
_WHITESPACE = b" \t\n\r\v\f"  # which breaks base64 into lines
_OPTIONS = ("sigma", "strength", "noise")


class ServedDenoiser:
    """What `mlflow.pyfunc.load_model` wraps.

    Parameters
    ----------
    denoise
        Does the work, for one request at a time: a server's threads share it, and its memory.
    """

    def __init__(self, denoise: Denoiser) -> None:
        self._denoise = denoise
        self._lock = threading.Lock()

    def predict(self, model_input: DataFrame, params: Mapping[str, Any] | None = None) -> DataFrame:
        """Denoise each row of a table.

        Parameters
        ----------
        model_input
            A row holds either an ``image``, (H, W) or (D, H, W) real numbers in their own units, or in ``dicom`` the
            bytes of a DICOM file, as they are or in base64.
        params
            ``sigma``, ``strength`` and ``noise`` as of a `Denoiser`, and ``dtype``, the name of the NumPy type that an
            ``image`` has: JSON does not carry it, and 8-bit images are scaled in another way than all others. Empty:
            the type that the numbers come in. A DICOM file carries its type, and is refused beside it.

        Returns
        -------
        DataFrame
            The same columns, but those that are empty: an ``image`` is float32, of the same shape and units, a
            ``dicom`` the bytes of the derived object that `denoising.denoise_files` makes.

        Raises
        ------
        Exception
            An MlflowException that a server answers with status 400, for all that a request can be wrong in. It says
            nothing of the values of the request.
        """
        columns: dict[str, list[Any]] = {"image": [], "dicom": []}
        try:
            asked, dtype = _options(params or {})
            if not len(model_input.columns):
                raise UsageError("the request holds neither image nor dicom", _FORM)
            for number, row in enumerate(model_input.to_dict("records")):
                given = {name: row[name] for name in columns if not _is_missing(row.get(name))}
                if len(given) != 1:
                    raise UsageError(
                        f"row {number} of the request holds {' and '.join(given) or 'neither image nor dicom'}", _FORM
                    )
                if "dicom" in given and dtype:
                    raise UsageError(
                        f"dtype is given, but row {number} of the request holds a DICOM file",
                        "leave dtype out: it says what JSON does not of an image, and a DICOM file says it itself",
                    )
                with self._lock:
                    columns["image"].append(
                        self._denoise(_typed(given["image"], dtype), **asked) if "image" in given else None
                    )
                    columns["dicom"].append(self._file(given["dicom"], asked) if "dicom" in given else None)
        except MeddenoiseError as error:
            from .tracking.refusals import Refusal

            raise Refusal(error) from None
        import pandas  # which comes with MLflow

        used = {name: values for name, values in columns.items() if any(value is not None for value in values)}
        return pandas.DataFrame({name: pandas.Series(values, dtype=object) for name, values in used.items()})

    def _file(self, content: object, asked: Mapping[str, Any]) -> bytes:
        """The derived object of a DICOM file; both are files of nobody else's for as long as the work takes."""
        with tempfile.TemporaryDirectory(prefix="meddenoise-") as folder:
            source, target = Path(folder, "request.dcm"), Path(folder, "answer.dcm")
            source.write_bytes(_dicom_bytes(content))
            try:
                denoise_files(source, target, model=self._denoise, **asked)
            except MeddenoiseError as error:
                raise _without_values(error, folder) from None
            return target.read_bytes()


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def _options(params: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """What is asked of the denoiser, and the name of an image's type: empty, if it is not given.

    Raises
    ------
    UsageError
        If there is an unknown parameter, or a word is none.
    """
    asked = {name: value for name, value in params.items() if value is not None}
    if unknown := [name for name in asked if name not in (*_OPTIONS, "dtype")]:
        raise UsageError(f"there is no parameter {unknown[0]!r}", nearest(str(unknown[0]), (*_OPTIONS, "dtype")))
    for name in ("noise", "dtype"):
        if not isinstance(asked.get(name, ""), str):
            raise UsageError(
                f"{name} must be a word, got {type(asked[name]).__name__}", f"see {name} in docs/mlflow.md"
            )
    return asked, asked.pop("dtype", "")


def _typed(image: Any, name: str) -> NDArray[Any]:
    """The array in the type of that name.

    Raises
    ------
    UsageError
        If there is no such type of real numbers.
    InputError
        If it cannot hold the values, or they make no array.
    """
    try:
        values = np.asarray(image)
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            "an image makes no array: its rows differ in length, or hold no numbers",
            "give (H, W) or (D, H, W) of one size",
        ) from None
    if not name:
        return values
    try:
        dtype = np.dtype(name)
    except (TypeError, ValueError, SyntaxError):  # the last of commas alone
        dtype = np.dtype(object)
    if dtype.kind not in "buif":
        raise UsageError(f"dtype {name!r} is no type of real numbers", "take uint8, int16, float32, …")
    if values.dtype.kind not in "buif":
        raise InputError(
            f"an image of type {values.dtype} holds no real numbers", "give (H, W) or (D, H, W) of one size"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        typed = values.astype(dtype)
    if dtype.kind != "f" and not np.array_equal(typed, values):
        raise InputError(f"the image holds values that {name} cannot", "name the type that it has, or leave dtype out")
    return typed


def _dicom_bytes(content: object) -> bytes:
    """The bytes of a DICOM file that comes as it is, or in base64, as JSON needs it.

    Raises
    ------
    InputError
        If it is neither.
    """
    data = content.encode("ascii", "replace") if isinstance(content, str) else content
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InputError(
            f"the column dicom holds {type(content).__name__}", "give the bytes of a file, or their base64"
        )
    data = bytes(data)
    if data[_MAGIC] == b"DICM":
        return data
    try:
        decoded = base64.b64decode(data.translate(None, _WHITESPACE), validate=True)
    except binascii.Error:
        decoded = b""
    if decoded[_MAGIC] != b"DICM":
        raise InputError("the column dicom holds no DICOM file", "give the bytes of a whole file, or their base64")
    return decoded


def _without_values(error: MeddenoiseError, folder: str) -> MeddenoiseError:
    """The error without the name of a temporary file, and without what a library of others says of the header."""
    cause = error.__cause__
    if cause is not None and not isinstance(cause, MeddenoiseError):
        return type(error)(f"the DICOM file cannot be read or written back ({type(cause).__name__})", error.hint)
    message = error.message
    for path in (f"{folder}/request.dcm: ", f"{folder}/request.dcm", f"{folder}/answer.dcm"):
        message = message.replace(path, "" if path.endswith(": ") else "the DICOM file")
    return type(error)(message, error.hint)


def _load_pyfunc(data_path: str) -> ServedDenoiser:
    """The model whose ``model.pt``, and its partner for correlated noise if any, lie in the folder `data_path`."""
    return ServedDenoiser(load_denoiser(Path(data_path, "model.pt")))
