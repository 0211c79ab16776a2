"""Small data sets to prepare, as files, folders and archives."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

INFO = """\
INFORMATION:
1st column: MIAS database reference number.
mdb001 G CIRC B 535 425 197
mdb002 G CIRC B 522 280 69
mdb003 D NORM\x20
mdb004 D NORM
mdb005 F CIRC B 477 133 30
mdb005 F CIRC B 500 168 26
mdb006 D CALC M *NOTE 3*\x20
mdb007 F CIRC B
=======================
"""


def picture(number: int, height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """An image that differs with `number`, compresses well and is not constant."""
    return (np.arange(height)[:, None] // 8 + np.arange(width) // 8 + 37 * number + number // 7).astype(np.uint8)


def pgm(number: int, side: int = 1024) -> bytes:
    return b"P5\n%d %d\n255\n" % (side, side) + picture(number, side, side).tobytes()


def bmp(number: int, height: int = 24, width: int = 19, grey: bool = True) -> bytes:
    channels = np.stack([picture(number, height, width)] * 3, axis=-1)
    if not grey:
        channels[0, 0, 1] ^= 255
    buffer = io.BytesIO()
    Image.fromarray(channels).save(buffer, "BMP")
    return buffer.getvalue()


def png(number: int, size: int = 16) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(number, size, size)).save(buffer, "PNG")
    return buffer.getvalue()


def mias(numbers: range | list[int] = range(1, 9)) -> dict[str, bytes]:
    return {"Info.txt": INFO.encode(), "README": b"hello"} | {f"mdb{n:03d}.pgm": pgm(n) for n in numbers}


def dx(grey: bool = True) -> dict[str, bytes]:
    places = {"TrainingData": (1, 2, 3, 150), "Test1Data": (151, 300), "Test2Data": (301, 400)}
    return {f"RawImage/{folder}/{n:03d}.bmp": bmp(n, grey=grey) for folder, numbers in places.items() for n in numbers}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def tar(path: Path, files: dict[str, bytes], *special: tarfile.TarInfo) -> Path:
    mode: Any = "w" if path.suffix == ".tar" else "w:gz"
    with tarfile.open(path, mode, **({} if mode == "w" else {"compresslevel": 1})) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in special:
            archive.addfile(info)
    return path


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
