"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from meddenoise_monai.errors import InputError
from meddenoise_monai.images import image_suffix
from meddenoise_monai.whole_files import read_json, replace_whole


def test_replace_whole_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.nii.gz"
    for content in ("first", "second"):
        with replace_whole(path) as temporary:
            assert temporary.parent == path.parent
            assert image_suffix(temporary) == ".nii.gz"
            temporary.write_text(content)
        assert path.read_text() == content
    assert list(path.parent.iterdir()) == [path]
    usual = tmp_path / "usual"
    usual.touch()
    assert path.stat().st_mode == usual.stat().st_mode


@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt()])
def test_replace_whole_leaves_nothing_after_an_error(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)), replace_whole(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_replace_whole_when_the_last_step_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(InputError, match=r"a\.txt: No space left on device"), replace_whole(tmp_path / "a.txt") as new:
        new.write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_replace_whole_where_no_folder_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write .*file/a\.txt"), replace_whole(tmp_path / "file" / "a.txt"):
        pass


def test_read_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, "ü"]}', encoding="utf-8")
    assert read_json(path) == {"a": [1, "ü"]}
    for content in (b"", b"{", b"\xff", b"[" * 200_000):
        path.write_bytes(content)
        with pytest.raises(ValueError):  # whatever its words are
            read_json(path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "b.json")
