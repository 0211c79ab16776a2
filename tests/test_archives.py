from __future__ import annotations

import gzip
import hashlib
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from meddenoise_monai import archives
from meddenoise_monai.archives import download_archive, unpack
from meddenoise_monai.errors import InputError, UsageError
from tests.sources import mias, pgm, tar, zipped


def take(archive: Path, folder: Path) -> None:
    unpack(archive, folder, lambda parts, head: parts[-1].endswith(".pgm"), progress=False)


def outside(folder: Path) -> list[Path]:
    """All below a folder but what was meant to be unpacked."""
    return [path for path in folder.rglob("*") if "out" not in path.parts]


def test_only_wanted_files_are_unpacked_bit_for_bit(tmp_path: Path) -> None:
    seen = {}

    def wanted(parts: object, head: bytes) -> bool:
        seen["/".join(parts)] = head  # type: ignore[arg-type]
        return head.startswith(b"P5")

    files = {"./a/b/1.pgm": pgm(1), "2.pgm": pgm(2), "notes.txt": b"x"}
    for number, pack in enumerate((tar, zipped)):
        seen.clear()
        source = pack(tmp_path / f"{number}.tar", files)
        unpack(source, tmp_path / f"out{number}", wanted, progress=False)
        assert seen.keys() == {"a/b/1.pgm", "2.pgm", "notes.txt"}
        assert seen["notes.txt"] == b"x"
        found = {p.relative_to(tmp_path / f"out{number}").as_posix(): p.read_bytes()
                 for p in (tmp_path / f"out{number}").rglob("*") if p.is_file()}  # fmt: skip
        assert found == {"a/b/1.pgm": pgm(1), "2.pgm": pgm(2)}


# --- hostile and broken archives --------------------------------------------------------------------------------------


def link(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("name", ["../evil.pgm", "/evil.pgm", "a/../../evil.pgm", "..\\evil.pgm", "C:\\evil.pgm", ".."])
@pytest.mark.parametrize("pack", [tar, zipped])
def test_members_that_lead_outside(tmp_path: Path, name: str, pack: Callable[..., Path]) -> None:
    box = tmp_path / "box"
    box.mkdir()
    source = pack(box / ("a.tar" if pack is tar else "a.zip"), mias([1, 2, 3]) | {name: pgm(4)})
    before = set(outside(tmp_path))
    with pytest.raises(InputError, match="would be written elsewhere"):
        take(source, box / "out")
    assert set(outside(tmp_path)) == before


@pytest.mark.parametrize(
    "member",
    [
        link("mdb004.pgm", tarfile.SYMTYPE, "/etc/passwd"),
        link("mdb004.pgm", tarfile.LNKTYPE, "mdb001.pgm"),
        link("mdb004.pgm", tarfile.FIFOTYPE),
        link("mdb004.pgm", tarfile.CHRTYPE),
        link("folder", tarfile.SYMTYPE, ".."),
    ],
    ids=["symlink", "hard link", "fifo", "device", "symlink to a folder"],
)
def test_links_and_devices_in_a_tar(tmp_path: Path, member: tarfile.TarInfo) -> None:
    source = tar(tmp_path / "a.tar.gz", mias([1, 2, 3]), member)
    with pytest.raises(InputError, match="link or special file"):
        take(source, tmp_path / "out")


def test_links_in_a_zip(tmp_path: Path) -> None:
    source = zipped(tmp_path / "a.zip", mias([1, 2, 3]))
    info = zipfile.ZipInfo("mdb004.pgm")
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match="link or special file"):
        take(source, tmp_path / "out")


def test_encrypted_zip(tmp_path: Path) -> None:
    content = bytearray(zipped(tmp_path / "a.zip", {"mdb001.pgm": pgm(1)}).read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match="is encrypted"):
        take(tmp_path / "a.zip", tmp_path / "out")


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "HARMLESS_BYTES", 2**20)


@pytest.mark.parametrize("pack", [tar, zipped])
@pytest.mark.parametrize("name", ["mdb009.pgm", "junk.bin"])
def test_bombs(tmp_path: Path, small_limits: None, pack: Callable[..., Path], name: str) -> None:
    bomb = {"x.bin": b"", name: bytes(16 * 2**20)}
    source = pack(tmp_path / ("a.tgz" if pack is tar else "a.zip"), bomb)
    if pack is tar:  # the densest that gzip can: level 1 does not reach the limit
        with tarfile.open(tmp_path / "plain.tar", "w") as archive:
            info = tarfile.TarInfo(name)
            info.size = 16 * 2**20
            archive.addfile(info, io.BytesIO(bytes(info.size)))
        source.write_bytes(gzip.compress((tmp_path / "plain.tar").read_bytes(), 9))
    with pytest.raises(InputError, match="unpacks to more than"):
        take(source, tmp_path / "out")


def test_a_zip_that_lies_about_its_sizes(tmp_path: Path, small_limits: None) -> None:
    content = bytearray(zipped(tmp_path / "a.zip", {"mdb009.pgm": bytes(16 * 2**20)}).read_bytes())
    true = (16 * 2**20).to_bytes(4, "little")
    content = content.replace(true, (1000).to_bytes(4, "little"))
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"damaged|unpacks to more"):
        take(tmp_path / "a.zip", tmp_path / "out")


def test_a_tar_header_that_unpacks_without_end(tmp_path: Path, small_limits: None) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 16 * 2**20
    source = tmp_path / "a.tgz"
    source.write_bytes(gzip.compress(header.tobuf() + bytes(16 * 2**20), 9))
    with pytest.raises(InputError, match="unpacks to more than"):
        take(source, tmp_path / "out")


def test_a_sparse_tar_member(tmp_path: Path) -> None:
    """A GNU sparse file announces terabytes of holes in 512 bytes."""
    header = bytearray(link("mdb001.pgm", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"77777777777\0"  # its real size, octal
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header[:512])
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(1024))
    with pytest.raises(InputError, match="link or special file"):
        take(tmp_path / "a.tar", tmp_path / "out")


def test_a_member_twice(tmp_path: Path) -> None:
    source = tar(tmp_path / "a.tar", {"mdb001.pgm": pgm(1), "./mdb001.pgm": pgm(2)})
    with pytest.raises(InputError, match="twice"):
        take(source, tmp_path / "out")


@pytest.mark.parametrize(("name", "keep"), [("a.tgz", 0.5), ("a.tgz", 0.05), ("a.zip", 0.5), ("a.tar", 0.55)])
def test_archives_cut_short(tmp_path: Path, name: str, keep: float) -> None:
    source = (zipped if name == "a.zip" else tar)(tmp_path / name, mias([1, 2, 3, 4]))
    content = source.read_bytes()
    source.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(InputError, match=r"a\.\w+ is damaged or cut short") as error:
        take(source, tmp_path / "out")
    assert "sha256" in error.value.hint


@pytest.mark.parametrize("name", ["a.tar", "a.tgz"])
@pytest.mark.parametrize("harm", ["cut between members", "a header's bit flipped"])
def test_a_tar_that_ends_before_its_end(tmp_path: Path, name: str, harm: str) -> None:
    source = tar(tmp_path / name, {f"mdb00{n}.pgm": pgm(n) for n in (1, 2, 3)})
    content = gzip.decompress(source.read_bytes()) if name == "a.tgz" else source.read_bytes()
    take(source, tmp_path / "whole")
    assert len(list((tmp_path / "whole").iterdir())) == 3
    start = content.index(b"mdb003.pgm")
    damaged = content[:start] if harm.startswith("cut") else content[:start] + b"n" + content[start + 1 :]
    source.write_bytes(gzip.compress(damaged) if name == "a.tgz" else damaged)
    with pytest.raises(InputError, match="damaged or cut short"):
        take(source, tmp_path / "out")


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    for name in ("a.tgz", "a.zip"):
        source = (zipped if name == "a.zip" else tar)(tmp_path / name, {f"mdb00{n}.pgm": pgm(n) for n in (1, 2, 3)})
        content = bytearray(source.read_bytes())
        content[len(content) // 3] ^= 0x10
        source.write_bytes(content)
        with pytest.raises(InputError, match="damaged"):
            take(source, tmp_path / f"out-{name}")


@pytest.mark.parametrize(
    ("name", "content", "match", "hint"),
    [
        ("RawImage.rar", b"Rar!\x1a\x07\x01\x00", "RAR archive", "unar RawImage.rar"),
        ("renamed.zip", b"Rar!\x1a\x07\x01\x00", "RAR archive", "unpack it first"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c", "7z archive", "7z x a.7z"),
        ("page.tar.gz", b"<html>", "neither a folder nor an archive", ".tar.gz"),
        ("empty.tar", b"", "neither a folder nor an archive", "give a folder"),
        ("mdb001.pgm", pgm(1, 16), "neither a folder nor an archive", "give a folder"),
        ("a.gz", b"\x1f\x8b\x08" + bytes(30), "damaged", "fetch it again"),
    ],
)
def test_files_that_are_no_usable_archive(tmp_path: Path, name: str, content: bytes, match: str, hint: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=match) as error:
        take(tmp_path / name, tmp_path / "out")
    assert hint in error.value.hint


# --- download ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "match"),
    [("nothing.tgz", "HTTP Error 404"), ("page.html", "no archive"), ("short.tgz", "broke off: 502 of 100000 bytes")],
)
def test_downloads_that_go_wrong(tmp_path: Path, file_server: tuple[str, Path], path: str, match: str) -> None:
    address, www = file_server
    (www / "page.html").write_text("<html>Log in to the network of this hotel</html>")
    with pytest.raises(InputError, match=match) as error:
        download_archive(tmp_path / "a.tgz", [f"{address}/{path}"])
    assert "by hand" in error.value.hint
    assert not (tmp_path / "a.tgz").exists()


def test_download_limits(tmp_path: Path, file_server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    address, www = file_server
    (www / "a.tgz").write_bytes(b"\x1f\x8b" + bytes(5000))
    monkeypatch.setattr(archives, "MAX_DOWNLOAD_BYTES", 1000)
    with pytest.raises(InputError, match="is larger than"):
        download_archive(tmp_path / "a.tgz", [f"{address}/a.tgz"])


def test_download_takes_the_next_address(tmp_path: Path, file_server: tuple[str, Path]) -> None:
    address, www = file_server
    tar(www / "a.tgz", {"mdb001.pgm": pgm(1)})
    digest = download_archive(tmp_path / "b.tgz", ["http://127.0.0.1:1/a.tgz", f"{address}/a.tgz"], progress=False)
    assert digest == hashlib.sha256((www / "a.tgz").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://example.org/a.tgz", "all-mias.tar.gz", "https://", "http://[::1/a.zip"]
)
def test_only_http_is_downloaded(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="cannot download from"):
        download_archive(tmp_path / "a.tgz", [url])
