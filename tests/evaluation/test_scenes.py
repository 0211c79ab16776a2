"""What a user names, the items in it, and the windows of those."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.evaluation.scenes import annotated_windows, evenly_by_data, printable, read_lesions, read_scenes
from meddenoise_monai.evaluation.sources import read_sources


def picture(path: Path, shape: tuple[int, int] = (96, 80), seed: int = 0, low: int = 40) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(low, 256, shape, dtype=np.uint8)
    Image.fromarray(values).save(path)
    return str(path)


def pixels(path: str) -> Any:
    return np.asarray(Image.open(path)).astype(np.float32) / 255


# ------------------------------------------------------------------------------------------------------------- sources


def test_a_folder_sets_a_third_of_the_patients_apart_for_tuning(tmp_path: Path) -> None:
    for patient in range(6):
        for view in range(2):
            picture(tmp_path / f"p{patient}" / f"{view}.png", seed=10 * patient + view)
    found = read_sources(tmp_path)
    test, tuning = ({item["patient"] for item in part} for part in (found.test, found.tuning))
    assert (len(test), len(tuning), found.apart) == (4, 2, True)
    assert not test & tuning
    assert {item["source"] for item in found.test} == {tmp_path.name}
    assert read_sources(tmp_path) == found
    assert read_sources(tmp_path, seed=3) != found


def test_eight_patients_are_enough_to_tune_on(tmp_path: Path) -> None:
    for patient in range(40):
        picture(tmp_path / f"{patient}.png", (32, 32), seed=patient)
    found = read_sources(tmp_path)
    assert (len(found.test), len(found.tuning)) == (32, 8)


def test_one_patient_alone_is_tuned_on_and_said_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = picture(tmp_path / "a.png")
    found = read_sources(path)
    assert [item["image"] for item in found.test] == [item["image"] for item in found.tuning] == [path]
    assert not found.apart
    assert "tuned on the very images" in caplog.text


def test_a_datalist_says_what_is_judged(tmp_path: Path) -> None:
    parts = {
        "training": [{"image": picture(tmp_path / "t.png", seed=1), "patient": "t"}],
        "validation": [{"image": picture(tmp_path / "v.png", seed=2), "patient": "v"}],
        "test": [{"image": picture(tmp_path / f"{n}.png", seed=3 + n), "patient": str(n)} for n in range(2)],
    }
    listed = tmp_path / "some.json"
    listed.write_text(json.dumps(parts))
    found = read_sources(listed)
    assert [Path(item["image"]).name for item in found.test] == ["0.png", "1.png"]
    assert [Path(item["image"]).name for item in found.tuning] == ["v.png"]
    assert {item["source"] for item in found.test} == {"some"}
    parts["validation"] = []
    (tmp_path / "datalist.json").write_text(json.dumps(parts))
    found = read_sources(tmp_path)  # the folder's datalist goes before its files
    assert [Path(item["image"]).name for item in found.tuning] == ["t.png"]
    assert {item["source"] for item in found.test} == {tmp_path.name}


def test_a_source_without_tuning_images_gives_some_of_its_own(tmp_path: Path) -> None:
    parts = {
        "validation": [{"image": picture(tmp_path / "v.png", seed=2), "patient": "v", "source": "one"}],
        "test": [
            {"image": picture(tmp_path / f"{n}.png", seed=3 + n), "patient": str(n), "source": "two"} for n in range(3)
        ],
    }
    listed = tmp_path / "some.json"
    listed.write_text(json.dumps(parts))
    found = read_sources(listed)
    assert (len(found.test), len(found.tuning)) == (2, 1)
    assert {item["source"] for item in found.tuning} == {"two"}


def test_pairs_as_corrupt_writes_them(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        for kind in ("original", "noisy"):
            picture(tmp_path / kind / f"{name}.png", seed=ord(name) + len(kind))
    found = read_sources(tmp_path)
    for item in found.test + found.tuning:
        assert Path(item["label"]).parent.name == "original"
        assert Path(item["image"]).parent.name == "noisy"
        assert item["patient"] == Path(item["label"]).stem


def listed(folder: Path, **facts: Any) -> Path:
    """A datalist of three images, the first with these facts."""
    items = [{"image": picture(folder / f"{n}.png", (40, 40), seed=n), "patient": str(n)} for n in range(3)]
    items[0] |= facts
    (folder / "list.json").write_text(json.dumps({"test": items}))
    return folder / "list.json"


@pytest.mark.parametrize("key", ["source", "scene", "patient"])
@pytest.mark.parametrize("value", [["a"], {"a": 1}, True])
def test_names_are_text_or_numbers(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"'{key}' of .*0.png is neither text nor a number"):
        read_sources(listed(tmp_path, **{key: value}))


def test_a_patient_of_number_0_is_one(tmp_path: Path) -> None:
    found = read_sources(listed(tmp_path, patient=0))
    assert {scene.patient for scene in read_scenes(found.test + found.tuning)[0]} == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("films", "films"),
        ("Röntgen 2", "Röntgen 2"),
        ("a\nb\x1b[31m\x00", "a b?[31m?"),
        ("\udcfc\ud800", "??"),
        ("x" * 81, "x" * 79 + "…"),
        ("x" * 80, "x" * 80),
        (" \n", "images"),
        (7, "7"),
    ],
)
def test_a_source_is_one_line_of_visible_characters(tmp_path: Path, name: Any, shown: str) -> None:
    found = read_sources(listed(tmp_path, source=name))
    assert shown in {item["source"] for item in found.test + found.tuning}
    assert printable(name) == ("" if shown == "images" else shown)


def test_names_that_are_no_unicode_are_read_and_written(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller"))
    for number in range(4):
        image = picture(tmp_path / "plain.png", (40, 40), seed=number)
        os.makedirs(folder, exist_ok=True)
        os.replace(image, os.fsencode(folder) + b"/M\xfcller_%d.png" % number)
    found = read_sources(folder)
    assert {item["source"] for item in found.test} == {"M?ller"}
    for scene in read_scenes(found.test)[0]:
        assert (scene.data + scene.patient + scene.file).encode()
        assert scene.patient.startswith("M\\udcfcller_")
    lone = read_sources(listed(tmp_path, patient="\ud800"))
    assert (len(lone.test), len(lone.tuning)) == (2, 1)


def test_the_name_of_a_single_image_may_be_a_patients(tmp_path: Path) -> None:
    picture(tmp_path / "films" / "Mueller_Hans_0.png")
    (item,) = read_sources(tmp_path / "films" / "Mueller_Hans_0.png").test
    assert item["source"] == "images"
    (item,) = read_sources(tmp_path / "films").test
    assert item["source"] == "films"


def test_a_datalist_that_is_named_from_within_its_folder_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed(tmp_path).rename(tmp_path / "datalist.json")
    monkeypatch.chdir(tmp_path)
    assert {item["source"] for item in read_sources(".").test} == {tmp_path.name}


def test_copies_in_a_folder_are_not_tuned_on_and_judged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(6):
        picture(tmp_path / f"{number}.png", (40, 40), seed=number // 2)
    found = read_sources(tmp_path)
    assert len(found.test) + len(found.tuning) == 3
    assert "3 test image(s) are copies of others" in caplog.text
    for number in range(6):
        picture(tmp_path / f"{number}.png", (40, 40), seed=0)
    assert not read_sources(tmp_path).apart


@pytest.mark.parametrize("kind", ["missing", "empty list", "flat repeats"])
def test_sources_that_are_refused(tmp_path: Path, kind: str) -> None:
    if kind == "missing":
        with pytest.raises(InputError, match="no such file"):
            read_sources(tmp_path / "nowhere")
    elif kind == "empty list":
        image = picture(tmp_path / "a.png")
        (tmp_path / "l.json").write_text(json.dumps({"training": [{"image": image}]}))
        with pytest.raises(InputError, match="no test images"):
            read_sources(tmp_path / "l.json")
    else:
        picture(tmp_path / "a.png")
        with pytest.raises(UsageError, match="no folder of scenes"):
            read_sources(tmp_path, repeats=True)


# -------------------------------------------------------------------------------------------------------------- scenes


def test_a_window_is_cut_from_the_image_and_its_place_depends_on_the_content_alone(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    ((scene,), left_out) = read_scenes([{"image": path, "patient": "p"}], window=48)
    whole = pixels(path)
    places = np.lib.stride_tricks.sliding_window_view(whole, (48, 48))
    assert (places == scene.clean).all(axis=(2, 3)).any()
    assert not left_out
    Path(path).rename(tmp_path / "b.png")
    ((again,), _) = read_scenes([{"image": str(tmp_path / "b.png"), "patient": "q"}], window=48)
    assert (again.clean == scene.clean).all()
    assert again.name == scene.name
    assert "p" not in scene.name


def test_whole_images_and_small_ones(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    for window in (0, 256):
        ((scene,), _) = read_scenes([{"image": path}], window=window)
        assert (scene.clean == pixels(path)).all()
        assert scene.patient == path  # each image is a patient of its own where none is named


def test_windows_of_tissue(tmp_path: Path) -> None:
    values = np.zeros((200, 200), np.uint8)
    values[:, 120:] = np.random.default_rng(0).integers(100, 256, (200, 80))
    path = tmp_path / "half.png"
    Image.fromarray(values).save(path)
    dark = tmp_path / "dark.png"
    Image.fromarray((values // 90).astype(np.uint8)).save(dark)
    items = [{"image": str(path)}, {"image": str(dark)}]
    scenes, left_out = read_scenes(items, window=64, tissue=0.95)
    assert [scene.file for scene in scenes] == [str(path)]
    assert (scenes[0].clean > 0.1).mean() >= 0.95
    assert list(left_out) == [str(dark)]
    assert "95% tissue" in left_out[str(dark)]
    scenes, left_out = read_scenes(items, window=64)
    assert len(scenes) == 2
    assert not left_out
    assert (scenes[0].clean > 0.1).mean() > 0.9  # the best of those that were tried


def test_pairs_share_the_scale_and_the_window(tmp_path: Path) -> None:
    item = {"image": picture(tmp_path / "n.png", seed=1), "label": picture(tmp_path / "c.png", seed=2)}
    ((scene,), _) = read_scenes([item], window=48)
    noisy, clean = (np.lib.stride_tricks.sliding_window_view(pixels(item[key]), (48, 48)) for key in ("image", "label"))
    place = (clean == scene.clean).all(axis=(2, 3))
    assert (noisy == scene.acquired[0]).all(axis=(2, 3))[place].all()


def test_repeats_are_judged_by_those_that_are_not_judged(tmp_path: Path) -> None:
    items = [{"image": picture(tmp_path / f"{n}.png", (40, 40), n), "scene": "s", "patient": "p"} for n in range(5)]
    ((scene,), _) = read_scenes(items, window=0)
    shown = [pixels(item["image"]) for item in items]
    assert len(scene.acquired) == 2
    for image, expected in zip(scene.acquired, shown, strict=False):
        assert (image == expected).all()
    np.testing.assert_allclose(scene.clean, np.mean(shown[2:], axis=0), atol=1e-6)
    with pytest.raises(InputError, match="has one image"):
        read_scenes(items[:1])


def test_what_cannot_be_used_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    small = picture(tmp_path / "small.png", (20, 20))
    odd = {"image": picture(tmp_path / "x.png", (40, 40)), "label": picture(tmp_path / "y.png", (40, 44))}
    items = [{"image": str(broken)}, {"image": small}, odd, {"image": picture(tmp_path / "ok.png")}]
    scenes, left_out = read_scenes(items)
    assert [Path(scene.file).name for scene in scenes] == ["ok.png"]
    assert [Path(file).name for file in left_out] == ["broken.png", "small.png", "x.png"]
    with pytest.raises(InputError, match="none of 2 image"):
        read_scenes(items[:2])


def test_a_count_holds_for_each_source(tmp_path: Path) -> None:
    items = [{"image": picture(tmp_path / f"{n}.png", seed=n), "source": "ab"[n % 2]} for n in range(8)]
    scenes, _ = read_scenes(items, count=2)
    assert [scene.data for scene in scenes] == ["a", "a", "b", "b"]
    assert evenly_by_data(scenes, 5) == scenes


# ----------------------------------------------------------------------------------------------------------- lesions


def test_windows_around_annotated_lesions(tmp_path: Path) -> None:
    path = picture(tmp_path / "film.png", (400, 300))
    lesions = [
        {"class": "CIRC", "x": 150, "y": 200, "radius": 20},
        {"class": "CALC", "x": 5, "y": 8, "radius": 4},  # near the corner: the window stays inside the film
        {"class": "MISC", "x": None, "y": None, "radius": None},
        {"class": "SPIC", "x": 150, "y": 200, "radius": 190},  # no room for its ring
    ]
    broken = {"image": str(tmp_path / "nowhere.png"), "lesions": lesions}
    found = annotated_windows([{"image": path, "lesions": lesions, "patient": "p"}, {"image": path}, broken])
    assert [scene.annotations[0].kind for scene in found] == ["CIRC", "CALC"]
    whole = pixels(path)
    for scene, lesion in zip(found, lesions, strict=False):
        (place,) = scene.annotations
        assert scene.clean[int(place.row), int(place.column)] == whole[lesion["y"], lesion["x"]]
        assert scene.clean.shape == (128, 128)


def test_lesions_that_no_filter_reaches_across_are_left_out(tmp_path: Path) -> None:
    path = picture(tmp_path / "film.png", (500, 500))
    lesions = [{"x": 250, "y": 250, "radius": radius} for radius in (79, 80)]
    found = annotated_windows([{"image": path, "lesions": lesions, "patient": "p"}])
    assert [scene.annotations[0].radius for scene in found] == [79]
    assert len(annotated_windows([{"image": path, "lesions": lesions, "patient": "p"}], most=500)) == 2


LESION = {"x": 8, "y": 9, "radius": 4}


@pytest.mark.parametrize(
    ("lesions", "message"),
    [
        ("abc", "no list"),
        (5, "no list"),
        (0, "no list"),
        (LESION, "no list"),
        (["abc"], "entry 1 .*is no object"),
        ([LESION, 5], "entry 2 .*is no object"),
        ([{"x": 8, "radius": 4}], "has y None"),
        ([LESION | {"x": "abc"}], "has x 'abc'"),
        ([LESION | {"x": [1]}], r"has x \[1\]"),
        ([LESION | {"y": float("nan")}], "has y nan"),
        ([LESION | {"x": float("inf")}], "has x inf"),
        ([LESION | {"y": 10**400}], "has y 1000"),
        ([LESION | {"radius": float("nan")}], "has radius nan"),
        ([LESION | {"radius": 10**400}], "has radius 1000"),
        ([LESION | {"radius": True}], "has radius True"),
        ([LESION | {"radius": -1e300}], "has the radius -1e"),
        ([LESION | {"radius": 0}], "has the radius 0"),
    ],
)
def test_wrong_lesions_are_named_when_the_datalist_is_read(tmp_path: Path, lesions: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"0.png: .*{message}") as caught:
        read_sources(listed(tmp_path, lesions=lesions))
    assert len(caught.value.message) < 300 + len(str(tmp_path))


@pytest.mark.parametrize(
    "lesions",
    [
        None,
        [],
        [{}],
        [{"x": None, "y": None, "radius": None}],
        [LESION | {"radius": None}],
        [{"y": 1, "radius": 2}],
        [LESION | {"radius": 1.7e308}],
        [LESION | {"x": 1e300}],
        [LESION | {"y": -1e300}],
    ],
)
def test_lesions_without_a_place_in_the_image_have_no_window(tmp_path: Path, lesions: Any) -> None:
    found = read_sources(listed(tmp_path, lesions=lesions))
    assert annotated_windows(found.test + found.tuning, least=16) == []


def test_the_kind_of_a_lesion_is_shown_in_one_line() -> None:
    (lesion,) = read_lesions({"image": "a.png", "lesions": [LESION | {"class": "a\nb"}]})
    assert (lesion.row, lesion.column, lesion.radius, lesion.kind) == (9, 8, 4, "a b")


@pytest.mark.parametrize("tissue", [2, -0.1, float("nan"), True, "abc", 10**400])
def test_a_share_of_tissue_is_checked_before_images_are_read(tissue: Any) -> None:
    with pytest.raises(UsageError, match=r"--tissue .* is no share from 0 to 1"):
        read_scenes([{"image": "nowhere.png"}], tissue=tissue)


@pytest.mark.parametrize("window", [1, 31, -5])
def test_a_window_in_which_nothing_can_be_measured(window: int) -> None:
    with pytest.raises(UsageError, match=f"window of {window} ") as caught:
        read_scenes([{"image": "nowhere.png"}], window=window)
    assert "--window 32 or more" in caught.value.hint
