"""Archives come from strangers: what they may write, where and how much, is decided here; and how they are fetched."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import logging
import os
import re
import stat
import tarfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from .errors import InputError, UsageError
from .whole_files import replace_whole

__all__ = ["ARCHIVE_SUFFIXES", "archive_format", "download_archive", "unpack"]

_log = logging.getLogger(__name__)

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")

# What an archive may unpack to. Medical images compress by less than 50 to 1; small bombs do no harm.
MAX_UNPACKED_BYTES = 20 * 2**30
MAX_COMPRESSION = 200
HARMLESS_BYTES = 256 * 2**20
MAX_DOWNLOAD_BYTES = 4 * 2**30

_CHUNK = 1 << 20
_DAMAGED = (gzip.BadGzipFile, tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError)
# Other than the zeros at the end.
_BAD_HEADERS = (
    tarfile.InvalidHeaderError,  # type: ignore[attr-defined]
    tarfile.EmptyHeaderError,  # type: ignore[attr-defined]
    tarfile.TruncatedHeaderError,  # type: ignore[attr-defined]
)
_DISTRUST = "do not trust it"
_BY_HAND = "if you trust it, unpack it yourself and give the folder"

_Members = Iterator[tuple[str, IO[bytes]]]


def archive_format(path: Path) -> str:
    """``"gzip"``, ``"tar"`` or ``"zip"``, by content; InputError for anything else."""
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise InputError(f"{path} is no file", "give a folder or an archive")
    try:
        with path.open("rb") as stream:
            head = stream.read(512)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from error
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head[257:262] == b"ustar":
        return "tar"
    for magic, name, program in ((b"Rar!", "RAR", "unar"), (b"7z\xbc\xaf", "7z", "7z x")):
        if head.startswith(magic):
            raise InputError(
                f"{path.name} is a {name} archive, which cannot be opened here",
                f"unpack it first, for example with `{program} {path.name}`, and give the folder",
            )
    raise InputError(
        f"{path.name} is neither a folder nor an archive", f"give a folder or one of {', '.join(ARCHIVE_SUFFIXES)}"
    )


def unpack(archive: Path, folder: Path, wanted: Callable[[Sequence[str], bytes], bool], progress: bool = True) -> None:
    """Write the wanted files of an archive into `folder`; the others are passed over.

    Parameters
    ----------
    archive
        Of one of the formats of `archive_format`.
    folder
        Made when missing.
    wanted
        Asked for each file with the parts of its path and its first bytes.
    progress
        A progress bar on stderr, if it is a terminal.

    Raises
    ------
    InputError
        If the archive is damaged, encrypted, unpacks to too much, or holds a link, a device, a file twice or one that
        would lead outside of `folder`.
    OSError
        If the disk refuses.
    """
    limit = min(MAX_UNPACKED_BYTES, max(HARMLESS_BYTES, MAX_COMPRESSION * archive.stat().st_size))
    refusal = InputError(
        f"{archive.name} unpacks to more than {limit / 2**30:.3g} GiB, which no archive of images of its size does",
        _BY_HAND,
    )
    members = (_zip_members if archive_format(archive) == "zip" else _tar_members)(archive, limit, refusal)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for name, stream in tqdm(members, "unpacking", unit=" files", leave=False, disable=None if progress else True):
            parts = _safe_parts(name, archive)
            chunk = stream.read(_CHUNK)
            if not parts or not wanted(parts, chunk):
                continue
            target = folder.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                while chunk:
                    file.write(chunk)
                    chunk = stream.read(_CHUNK)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{archive.name} holds {Path(error.filename).name!r} twice", _BY_HAND) from None
    except _DAMAGED as error:
        raise InputError(
            f"{archive.name} is damaged or cut short: {error}", "fetch it again, or compare its sha256"
        ) from error


def _safe_parts(name: str, archive: Path) -> list[str]:
    """The parts of a member's path, or a refusal of the whole archive if it could lead outside."""
    parts = name.replace("\\", "/").split("/")
    if not parts[0] or ".." in parts or re.match(r"[A-Za-z]:", parts[0]) or "\0" in name:
        raise InputError(f"{archive.name} holds a file that would be written elsewhere: {name!r}", _DISTRUST)
    return [part for part in parts if part not in ("", ".")]


def _special(name: str, archive: Path) -> InputError:
    return InputError(f"{archive.name} holds a link or special file: {name!r}", _BY_HAND)


class _Metered(io.RawIOBase):
    """A stream that refuses to give more than `limit` bytes: tar headers, too, can unpack without end."""

    def __init__(self, stream: IO[bytes], limit: int, refusal: InputError) -> None:
        self._stream, self._left, self._refusal = stream, limit, refusal

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise self._refusal
        buffer[: len(data)] = data
        return len(data)


def _tar_members(archive: Path, limit: int, refusal: InputError) -> _Members:
    with archive.open("rb") as raw:
        plain: IO[bytes] = raw
        if archive_format(archive) == "gzip":
            plain = gzip.GzipFile(fileobj=raw)  # type: ignore[assignment]
        metered = _Metered(plain, limit, refusal)
        # Mode "r|" reads strictly forward, once: nothing is unpacked twice, and the meter sees every byte.
        with tarfile.open(fileobj=metered, mode="r|", tarinfo=_WholeTarInfo) as tar:
            for member in tar:
                _safe_parts(member.name, archive)
                if member.isdir():
                    continue
                stream = tar.extractfile(member) if member.isreg() and not member.issparse() else None
                if stream is None:
                    raise _special(member.name, archive)
                yield member.name, stream
        while metered.read(_CHUNK):  # tar stops at its own end; gzip's checksum comes after it
            pass


class _WholeTarInfo(tarfile.TarInfo):
    """A member of an archive that ends where it says so: in zeros.

    tarfile by itself takes a damaged header, or the end of the file, for the end of the archive, and whatever comes
    after it would be missing in silence.
    """

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Any:
        try:
            return super().fromtarfile(tarfile)
        except _BAD_HEADERS as error:
            raise EOFError(str(error)) from error


def _zip_members(archive: Path, limit: int, refusal: InputError) -> _Members:
    with zipfile.ZipFile(archive) as content:
        members = content.infolist()
        if sum(member.file_size for member in members) > limit:  # zipfile never reads more than that
            raise refusal
        for member in members:
            _safe_parts(member.orig_filename, archive)
            if member.is_dir():
                continue
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
                raise _special(member.filename, archive)
            if member.flag_bits & 1:
                raise InputError(f"{archive.name} is encrypted", "unpack it yourself and give the folder")
            with content.open(member) as stream:
                yield member.filename, stream


def download_archive(
    target: str | os.PathLike[str],
    urls: Sequence[str],
    *,
    sha256: str | None = None,
    progress: bool = True,
    timeout: float = 60.0,
) -> str:
    """Fetch an archive; `target` appears whole or not at all.

    Without `sha256` the file is only checked for being an archive of the announced length.

    Parameters
    ----------
    target
        The file to write.
    urls
        Addresses of the same file, http or https, tried in this order while one cannot be reached.
    sha256
        What the file must have; 64 hexadecimal digits.
    progress
        A progress bar on stderr, if it is a terminal.
    timeout
        Seconds without an answer.

    Returns
    -------
    str
        The file's SHA-256, hexadecimal.

    Raises
    ------
    UsageError
        If an address is neither http nor https, or names no host.
    InputError
        If no address answers, or what comes is cut short, no archive, too large or of another checksum, or the disk
        refuses.
    """
    target = Path(target)
    for url in urls:
        try:
            parts = urllib.parse.urlsplit(url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:  # brackets of an IPv6 address that do not match
            usable = False
        if not usable:
            raise UsageError(f"cannot download from {url!r}", "give an address like https://host/file.zip")
    by_hand = f"fetch it by hand, for example with a browser, and give the file as SOURCE: {urls[-1]}"
    reason = ""
    for url in urls:
        try:
            request = urllib.request.Request(url, headers={"User-Agent": "meddenoise"})
            response = urllib.request.urlopen(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            reason = str(error)
            error.close()
            continue
        except (OSError, http.client.HTTPException) as error:
            reason = str(error)
            continue
        with response, replace_whole(target) as part:
            digest = _save(response, part, url, progress, by_hand)
            if sha256 is not None and digest != sha256.lower():
                raise InputError(f"{url} has the sha256 {digest}, not {sha256.lower()}", "do not trust this file")
            try:
                archive_format(part)
            except InputError:
                raise InputError(f"{url} answered with something that is no archive", by_hand) from None
        if sha256 is None and url.startswith("http://"):
            _log.warning("%s came unencrypted; compare its sha256 with another source: %s", target.name, digest)
        return digest
    raise InputError(f"cannot download {urls[-1]}: {reason}", by_hand)


def _save(response: Any, part: Path, url: str, progress: bool, by_hand: str) -> str:
    total, digest, size = response.length, hashlib.sha256(), 0
    bar = tqdm(desc="downloading", total=total, unit="B", unit_scale=True, disable=None if progress else True)
    with part.open("wb") as file, bar:
        while True:
            try:
                chunk = response.read(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise InputError(f"the download of {url} broke off: {error}", f"try again, or {by_hand}") from error
            if not chunk:
                break
            size += len(chunk)
            if size > MAX_DOWNLOAD_BYTES:
                raise InputError(f"{url} is larger than {MAX_DOWNLOAD_BYTES / 2**30:.3g} GiB", by_hand)
            digest.update(chunk)
            file.write(chunk)
            bar.update(len(chunk))
    if total is not None and size != total:
        raise InputError(f"the download of {url} broke off: {size} of {total} bytes", f"try again, or {by_hand}")
    return digest.hexdigest()
