from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from meddenoise_monai.datasets import datalist_of
from meddenoise_monai.errors import InputError
from meddenoise_monai.identity import (
    content_digest,
    count_known,
    data_fingerprint,
    image_digests,
    known_images,
    without_copies,
)
from tests.samples import write_patients


def written(path: Path, content: str) -> str:
    path.write_text(content)
    return str(path)


def items(folder: Path, **contents: str) -> list[dict[str, Any]]:
    return [{"image": written(folder / f"{name}.png", text)} for name, text in contents.items()]


# --- Digests ----------------------------------------------------------------------------------------------------------


def test_digest_is_that_of_the_content(tmp_path: Path) -> None:
    path = written(tmp_path / "a", "abc")
    assert content_digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2
    os.utime(path, ns=(1, 1))
    Path(path).write_text("xyz")  # of the same size; the time of change tells
    assert content_digest(path) != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_fingerprint_tells_contents_alone(tmp_path: Path) -> None:
    first = [
        {"image": written(tmp_path / f"{n}.png", f"{n}"), "label": written(tmp_path / f"{n}l.png", f"{n} clean")}
        for n in (1, 2)
    ]
    moved = [
        {key: shutil.copy(path, tmp_path / f"copy{Path(path).name}") for key, path in item.items()} for item in first
    ]
    assert data_fingerprint(first) == data_fingerprint(moved[::-1])
    assert len(data_fingerprint(first)) == 16
    swapped = [{"image": item["label"], "label": item["image"]} for item in first]
    crossed = [{**first[0], "label": first[1]["label"]}, {**first[1], "label": first[0]["label"]}]
    others = [swapped, crossed, first[:1], [*first, first[0]], [{"image": item["image"]} for item in first], []]
    assert len({data_fingerprint(items) for items in [first, *others]}) == 7


# --- Copies -----------------------------------------------------------------------------------------------------------


def test_copies_are_left_out_of_validation_and_test(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    datalist = {
        "training": items(tmp_path, a="one", b="two", c="one"),
        "validation": items(tmp_path, d="six", e="two"),
        "test": items(tmp_path, f="ten", g="six", h="ten", i="another"),
    }
    with caplog.at_level(logging.WARNING):
        kept = without_copies(datalist)
    names = {part: "".join(Path(item["image"]).stem for item in entries) for part, entries in kept.items()}
    assert names == {"training": "abc", "validation": "d", "test": "fi"}
    assert [record.getMessage() for record in caplog.records] == [
        f"1 validation image(s) are copies of others, first {tmp_path}/e.png, the same file as {tmp_path}/b.png: "
        "left out",
        f"2 test image(s) are copies of others, first {tmp_path}/g.png, the same file as {tmp_path}/d.png: left out",
    ]


def test_datalist_without_copies_stays_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    missing = [{"image": str(tmp_path / name)} for name in ("gone", "lost")]  # reading them will tell
    datalist = {"training": items(tmp_path, a="one", b="two"), "test": [*items(tmp_path, c="six"), *missing]}
    assert without_copies(datalist) == datalist
    assert caplog.records == []


def test_nothing_but_copies_is_an_error(tmp_path: Path) -> None:
    datalist = {"training": items(tmp_path, a="one"), "test": items(tmp_path, b="one")}
    with pytest.raises(InputError, match="1 test image") as caught:
        without_copies(datalist)
    assert caught.value.hint == "give test images of their own"


def test_folder_with_copies_has_them_out_of_the_test(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_patients(tmp_path / "in", count=40, size=16)
    before = datalist_of(str(folder))
    for path in list(folder.iterdir()):
        shutil.copy(path, folder / f"again_{path.name}")
    after = {part: image_digests(entries) for part, entries in datalist_of(str(folder)).items()}
    judged = after["validation"] + after["test"]
    assert len(set(judged)) == len(judged)
    assert not set(after["training"]).intersection(judged)
    assert sum(map(len, before.values())) == 40
    assert "are copies of others" in caplog.text


# --- What weights were trained on -------------------------------------------------------------------------------------


def test_known_images_are_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen, new = items(tmp_path, a="one", b="two"), items(tmp_path, c="three")
    weights = tmp_path / "model_best.pt"
    weights.with_suffix(".json").write_text(json.dumps({"training_images": image_digests(seen)}))
    assert count_known(weights, new) == 0
    assert caplog.records == []
    assert count_known(weights, [*new, seen[0]]) == 1
    assert "1 of 2 test images are among those that" in caplog.text
    assert known_images(weights) == set(image_digests(seen))


@pytest.mark.parametrize("note", [None, "", "[]", "{}", '{"training_images": 3}'])
def test_weights_without_a_note_are_known_nothing_of(tmp_path: Path, note: str | None) -> None:
    if note is not None:
        (tmp_path / "model.json").write_text(note)
    assert known_images(tmp_path / "model.pt") == frozenset()
    assert count_known(tmp_path / "model.pt", items(tmp_path, a="one")) == 0
