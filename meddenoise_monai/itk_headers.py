"""Headers of MetaImage and NRRD files, looked at before ITK reads them: of a damaged one its C++ may end the process.

Met with: a header that claims more pixels than the machine has memory; a damaged ``ElementDataFile``, which MetaIO
takes for a pattern of file names and gives, as it stands in the file, to ``snprintf``; a number of axes beyond MetaIO's
arrays; a long line that teem quotes in its complaint. Who says what they hold need not be believed.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

from .errors import InputError

__all__ = ["check_claim", "check_header"]

_LONGEST = 1 << 20  # bytes of a header
# Names of fields may be those of DICOM elements, such as 0008|0060, which ITK writes from its dictionary of metadata.
_META_LINE = re.compile(rb"[ \t]*([!-9;<>-~]+)[ \t]*[=:][ \t]*([^\r\n]{0,4000}?)[ \t]*\r?")
_DATA_FILE = b"ElementDataFile"
_AXES = 4  # that images here can have
# teem.sourceforge.net/nrrd/format.html; teem overruns its own buffer where it complains of a longer line.
_NRRD_LINE = re.compile(rb"([a-z ]+): ([^\r\n]{1,300})", re.IGNORECASE)
_NRRD_FIELDS = frozenset(
    b"content,number,type,block size,blocksize,dimension,space,space dimension,sizes,spacings,thicknesses,axis mins,"
    b"axismins,axis maxs,axismaxs,space directions,centers,centerings,kinds,labels,units,min,max,old min,oldmin,"
    b"old max,oldmax,data file,datafile,endian,encoding,line skip,lineskip,byte skip,byteskip,sample units,"
    b"sampleunits,space units,space origin,measurement frame".split(b",")
)
_HINT = "is the file damaged?"


def check_header(path: Path, is_nrrd: bool) -> None:
    """Refuse a header that is not what the format asks for, or that names other files by a pattern or in a list.

    Parameters
    ----------
    path
        A .mha, .mhd or .nrrd file.
    is_nrrd
        Whether it is the last of these.

    Raises
    ------
    InputError
        It is damaged, or spreads its pixels over several files.
    """
    with path.open("rb") as stream:
        head = stream.read(_LONGEST)
    if is_nrrd:
        _check_nrrd(head)
    else:
        _check_meta(head)


def _check_meta(head: bytes) -> None:
    fields: dict[bytes, bytes] = {}
    for number, line in enumerate(head.split(b"\n"), 1):
        found = _META_LINE.fullmatch(line)
        if not found:
            raise InputError(f"line {number} of its header is no field of a MetaImage", _HINT)
        if found[1] in fields:
            raise InputError(f"its header has {found[1].decode()} twice", _HINT)
        fields[found[1]] = found[2]
        if found[1] == _DATA_FILE:
            break
    else:
        raise InputError("its header does not say where the pixels are (ElementDataFile)", _HINT)
    axes = fields.get(b"NDims", b"")
    if not (axes.isdigit() and 1 <= int(axes) <= _AXES):
        raise InputError(f"its header has no number of axes from 1 to {_AXES} (NDims)", _HINT)
    _check_data_file(fields[_DATA_FILE])


def _check_nrrd(head: bytes) -> None:
    magic, *lines = re.split(rb"\r?\n\r?\n", head, maxsplit=1)[0].splitlines() or [b""]
    if not re.fullmatch(rb"NRRD\d{4}", magic):
        raise InputError("it does not begin as a NRRD file", _HINT)
    seen = set()
    for number, line in enumerate(lines, 2):
        if line.startswith(b"#") or b":=" in line:
            continue
        found = _NRRD_LINE.fullmatch(line)
        field = found[1].lower() if found else b""
        if found is None or field not in _NRRD_FIELDS or field in seen:
            raise InputError(f"line {number} of its header is no field of a NRRD file, or one too many", _HINT)
        seen.add(field)
        if field in (b"data file", b"datafile"):
            _check_data_file(found[2].strip())


def _check_data_file(name: bytes) -> None:
    if not name or b"%" in name or name.startswith(b"LIST") or not name.decode("utf-8", "replace").isprintable():
        raise InputError("its header names its pixels by a pattern or in a list", "save the image as one file")
    if name.startswith((b"/", b"\\")) or name[1:2] == b":" or b".." in re.split(rb"[/\\]", name):
        # Whoever sends an image could have any file of this machine read into the result.
        raise InputError("its header names pixels outside of its folder", "save the image as one file")


def check_claim(reader: Any, path: Path) -> None:
    """Refuse a header that claims more than this machine holds: ITK may end the whole process where memory is short.

    Parameters
    ----------
    reader
        An ITK image reader of the file's format, not used for anything else.
    path
        The file.

    Raises
    ------
    InputError
        It claims more bytes than the machine's memory.
    RuntimeError
        ITK cannot read the header.
    """
    import psutil

    reader.SetFileName(os.fspath(path))
    reader.ReadImageInformation()
    pixels = math.prod(int(reader.GetDimensions(axis)) for axis in range(reader.GetNumberOfDimensions()))
    claimed = pixels * int(reader.GetNumberOfComponents()) * int(reader.GetComponentSize())
    if claimed > psutil.virtual_memory().total:
        raise InputError(f"its header claims {claimed:.3g} bytes of pixels", _HINT)
