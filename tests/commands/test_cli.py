"""Each verb of the command line, typed as a user types it."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from meddenoise_monai import cli
from meddenoise_monai.datasets import read_datalist
from meddenoise_monai.metrics import score
from meddenoise_monai.noise import NOISE_MODELS
from tests.commands.conftest import digests, failure, picture, pixels, run

# --- denoise ----------------------------------------------------------------------------------------------------------


def test_denoise_mirrors_the_tree_and_leaves_the_input(
    source: Path, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = digests(source)
    assert run(capsys, "denoise", "in", "out", "--model", model) == (0, "3 image(s) denoised into out\n", "")
    assert digests(tmp_path / "out").keys() == before.keys()
    assert digests(source) == before
    assert all(not np.array_equal(pixels(source / name), pixels(tmp_path / "out" / name)) for name in before)


def test_denoise_one_file_with_all_flags(
    source: Path, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", model, "--device=cpu", "--strength", "0", "--sigma", "5", "--strict"]
    assert run(capsys, "denoise", "in/one.png", "clean.png", *flags)[0] == 0
    np.testing.assert_array_equal(pixels(tmp_path / "clean.png"), pixels(source / "one.png"))


def test_denoise_overwrites_only_when_asked(source: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "denoise", "in", "out", "--model", model)[0] == 0
    other = ["denoise", "in", "out", "--model", model, "--strength", "0.5"]
    error, hint = failure(capsys, 1, *other)
    assert "exist already" in error
    assert "--overwrite" in hint
    # A switch must not swallow the path behind it.
    assert run(capsys, "denoise", "--overwrite", *other[1:])[0] == 0
    failure(capsys, 1, *other[:-1], "0.6", "--no-overwrite")


def test_denoise_can_be_lenient_with_what_is_no_grey_image(
    source: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save(source / "colour.png")
    assert run(capsys, "denoise", "in", "out", "--model", model)[0] == 3
    assert run(capsys, "denoise", "in", "out", "--model", model, "--lenient")[0] == 0
    (source / "broken.png").write_bytes(b"no image")
    assert run(capsys, "denoise", "in", "out", "--model", model, "--lenient")[0] == 3


def test_denoise_writes_maps_of_its_uncertainty(
    source: Path, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("denoise", "in", "out", "--uncertainty", "maps")
    assert run(capsys, *words) == (0, "3 image(s) denoised into out\n", "")  # the released weights are calibrated
    assert digests(tmp_path / "maps").keys() == {f"{name}.tif" for name in digests(source)}
    for name in digests(source):
        half_width = pixels(tmp_path / "maps" / f"{name}.tif")
        assert half_width.dtype == np.float32
        assert 1 < half_width.mean() < 40  # grey levels, the noise having 20
    assert run(capsys, *words)[1] == "0 image(s) denoised into out, 3 were done already\n"
    error, hint = failure(capsys, 1, "denoise", "in", "other", "--uncertainty", "maps2", "--model", model)
    assert "no calibration of their uncertainty" in error
    assert "calibrate_uncertainty.py" in hint
    assert "lies inside the input" in failure(capsys, 2, "denoise", "in", "other", "--uncertainty", "in/maps")[0]


def test_denoise_goes_on_and_tells_programs_so(source: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "broken.png").write_bytes(b"no image")
    assert run(capsys, "denoise", "in", "out", "--model", model)[0] == 3
    (source / "broken.png").unlink()
    (source / "one.png").rename(source / "other.png")
    again = "2 were done already\n"
    assert run(capsys, "denoise", "in", "out", "--model", model)[1] == f"1 image(s) denoised into out, {again}"
    code, out, _ = run(capsys, "denoise", "in", "out", "--model", model, "--json")
    assert (code, json.loads(out)) == (0, {"written": 0, "skipped": {}, "unchanged": 3, "unsuitable": 0})


def test_denoise_with_broken_files_exits_with_3_and_names_them(
    source: Path, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "broken.png").write_bytes(b"no image")
    code, out, err = run(capsys, "denoise", "in", "out", "--model", model)
    assert code == 3
    assert out == "3 image(s) denoised into out\n"
    warning, error, hint = err.splitlines()
    assert warning.startswith("warning: ")
    assert "broken.png" in warning
    assert error == "error: 1 file(s) failed; the rest are written"
    assert hint.startswith("hint: ")
    assert len(digests(tmp_path / "out")) == 3
    error, _ = failure(capsys, 1, "denoise", "in", "strict", "--model", model, "--strict")
    assert "broken.png" in error


@pytest.mark.parametrize("output", ["in", "in/out", "./in/../in/a"])
def test_denoise_into_its_input_is_refused(source: Path, output: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = digests(source)
    error, _ = failure(capsys, 2, "denoise", "in", output, "--overwrite")
    assert "lies inside the input" in error
    assert digests(source) == before


def test_denoise_without_weights_or_input(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such weights file: none.pt" in failure(capsys, 1, "denoise", "in", "out", "--model", "none.pt")[0]
    assert "no such file or folder: nowhere" in failure(capsys, 1, "denoise", "nowhere", "out")[0]


@pytest.mark.parametrize("name", ["001", "1e5", "[a]", "{'a': 1}", "None", "True", "a,b", "0x10", "-5"])
def test_paths_that_look_like_literals_stay_paths(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / name / "film.png")
    assert run(capsys, "denoise", name, f"{name}.out", "--model", model)[0] == 0
    assert (tmp_path / f"{name}.out" / "film.png").is_file()
    assert run(capsys, "denoise", f"{name}.out", "7", f"--model={model}")[0] == 0
    assert (tmp_path / "7" / "film.png").is_file()


# --- corrupt ----------------------------------------------------------------------------------------------------------


def test_corrupt_writes_reproducible_pairs(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = digests(source)
    code, out, err = run(capsys, "corrupt", "in", "out", "--noise", "gaussian", "--sigma", "25", "--seed", "0")
    assert (code, out, err) == (0, "3 pair(s) of images written to out\n", "")
    assert digests(source) == before
    names = {f"{kind}/{name}.tif" for kind in ("original", "noisy") for name in before}
    assert digests(tmp_path / "out").keys() == names
    noise = np.concatenate(
        [tifffile.imread(tmp_path / "out" / "noisy" / f"{name}.tif") - pixels(source / name) for name in before]
    )
    assert noise.std() == pytest.approx(25, rel=0.05)
    assert run(capsys, "corrupt", "in", "again", "--sigma=25")[0] == 0
    assert run(capsys, "corrupt", "in", "other", "--sigma=25", "--seed=-1")[0] == 0
    assert digests(tmp_path / "again") == digests(tmp_path / "out")
    assert digests(tmp_path / "other") != digests(tmp_path / "out")


def test_corrupt_as_the_ancestor_did(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--noise", "variance_gaussian", "--factor", ".1", "--normalise", "--clip")
    assert run(capsys, "corrupt", "in", "out", *flags)[0] == 0
    for name in digests(source):
        clean, noisy = (tifffile.imread(tmp_path / "out" / kind / f"{name}.tif") for kind in ("original", "noisy"))
        assert (clean.min(), clean.max()) == (0, 1)
        assert noisy.min() >= 0
        assert noisy.max() <= 1
        assert 0.5 < np.var(noisy - clean) / (0.1 * np.var(clean)) < 1.1


def test_corrupt_takes_negative_numbers_and_negated_switches(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--noise", "paper_gaussian", "--p", "1", "--mean", "-0.5", "--std", "0", "--no-clip", "--normalise")
    assert run(capsys, "corrupt", "in/one.png", "out", *flags)[0] == 0
    clean, noisy = (tifffile.imread(tmp_path / "out" / kind / "one.png.tif") for kind in ("original", "noisy"))
    np.testing.assert_allclose(noisy, clean - 0.5, atol=1e-6)


def test_corrupt_offers_every_parameter_of_every_noise(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = inspect.signature(cli.corrupt).parameters
    text = inspect.getdoc(cli.corrupt) or ""
    assert len(NOISE_MODELS) >= 9
    for noise, noise_model in NOISE_MODELS.items():
        lines = iter(text.splitlines())
        line = next(line for line in lines if line.split()[:1] == [noise])
        line += "".join(itertools.takewhile(lambda more: more.startswith(" " * 20), lines))
        for field in dataclasses.fields(noise_model):
            assert field.name in flags
            assert field.name == "clip" or f"--{field.name}" in line
        given = [f"--{field.name}=0.5" for field in dataclasses.fields(noise_model) if field.name != "clip"]
        assert run(capsys, "corrupt", "in", f"out_{noise}", f"--noise={noise}", *given)[0] == 0


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        ("", "the noise 'gaussian' needs a --sigma of zero or more", "own units"),
        ("--sigma -3", "the noise 'gaussian' needs a --sigma of zero or more, not -3", "own units"),
        ("--noise speckle", "the noise 'speckle' needs a --sigma of zero or more", "proportion"),
        ("--noise gausian --sigma 5", "unknown noise model 'gausian'", "did you mean 'gaussian'?"),
        ("--noise poisson", "noise model 'poisson' needs photons", "count"),
        ("--noise poisson --photons 5 --sigma 1", "noise model 'poisson' has no parameter 'sigma'", "photons"),
        ("--sgima 25", "corrupt has no flag --sgima", "did you mean '--sigma'?"),
        ("--sigma 25 --overwrit", "corrupt has no flag --overwrit", "did you mean '--overwrite'?"),
        ("--sigma 25 --xyzzy=1", "corrupt has no flag --xyzzy", "known: "),
        ("--sigma 25 -q", "corrupt has no flag -q", "known: "),
        ("--sigma", "--sigma needs a value", "meddenoise corrupt --help"),
        ("--sigma --seed 3", "--sigma needs a value", "meddenoise corrupt --help"),
        ("--sigma many", "--sigma must be a number, got 'many'", "--sigma 0.5"),
        ("--sigma nan", "--sigma must be a number, got 'nan'", "--sigma 0.5"),
        ("--sigma 25 --seed 1.5", "--seed must be an integer, got '1.5'", "--seed 0"),
        ("--sigma 25 --clip=maybe", "--clip takes no value, got 'maybe'", "--no-clip"),
        ("--no-sigma", "corrupt has no flag --no-sigma", "did you mean"),
        ("--sigma 25 -- --help-me", "'--' is not used here", "./-name"),
        ("third", "unexpected argument 'third'", "usage: meddenoise corrupt INPUT OUTPUT"),
    ],
)
def test_corrupt_usage_errors_write_nothing(
    source: Path, tmp_path: Path, words: str, error: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    got_error, got_hint = failure(capsys, 2, "corrupt", "in", "out", *words.split())
    assert got_error == error
    assert hint in got_hint
    assert not (tmp_path / "out").exists()


def test_corrupt_with_broken_files(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "broken.png").write_bytes(b"no image")
    code, out, err = run(capsys, "corrupt", "in", "out", "--sigma", "5")
    assert (code, out) == (3, "3 pair(s) of images written to out\n")
    assert [line.split(":")[0] for line in err.splitlines()] == ["warning", "error", "hint"]
    assert "broken.png" in err.splitlines()[0]
    assert "broken.png" in failure(capsys, 1, "corrupt", "in", "strict", "--sigma", "5", "--strict")[0]
    assert failure(capsys, 1, "corrupt", "in", "out", "--sigma", "5")[1].endswith("--overwrite")
    assert "no such file or folder" in failure(capsys, 1, "corrupt", "missing", "out2", "--sigma", "5")[0]


# --- score ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pairs(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert run(capsys, "corrupt", "in", "pairs", "--sigma", "25")[0] == 0
    return tmp_path / "pairs"


def test_score_prints_one_json_object(source: Path, pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "score", "--json", "in", "pairs/noisy")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert result["data_range"] is None
    rows = {row["name"]: row for row in result["images"]}
    assert set(rows) == {"one", "a/two", "a/001/three"}
    expected = score(pixels(source / "one.png"), pixels(pairs / "noisy" / "one.png.tif"), data_range=255)
    assert {name: rows["one"][name] for name in expected} == pytest.approx(expected)
    mean = np.mean([row["psnr"] for row in rows.values()])
    assert result["mean"]["psnr"] == pytest.approx(mean)
    wider = json.loads(run(capsys, "score", "in", "pairs/noisy", "--data_range", "510", "--json=true")[1])
    assert wider["data_range"] == 510
    assert wider["mean"]["psnr"] - mean == pytest.approx(20 * np.log10(2))


@pytest.mark.parametrize("flag", ["--no-json", "--nojson", "--json=False", "--no_json"])
def test_score_prints_an_aligned_table(
    source: Path, pairs: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    means = json.loads(run(capsys, "score", "in", "pairs/noisy", "--json")[1])["mean"]
    code, out, _ = run(capsys, "score", "in", "pairs/noisy", flag)
    assert code == 0
    header, *rows, last = out.splitlines()
    assert header.split() == ["name", "ssim", "ssim_matlab", "psnr", "rmse"]
    assert [row.split()[0] for row in rows] == ["a/001/three", "a/two", "one"]
    assert last.startswith("mean of 3  ")
    assert last.split()[3:] == [f"{means['ssim']:.4f}", f"{means['ssim_matlab']:.4f}", f"{means['psnr']:.2f}",
                                f"{means['rmse']:.5g}"]  # fmt: skip
    columns = [[match.end() for match in re.finditer(r"\S+", line)][-4:] for line in (header, *rows, last)]
    assert all(ends == columns[0] for ends in columns)


def test_score_of_two_files_and_of_what_cannot_be_scored(
    source: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "score", "in/one.png", "in/one.png", "--json")
    assert (code, json.loads(out)["mean"]) == (0, {"ssim": 1.0, "ssim_matlab": 1.0, "psnr": 100.0, "rmse": 0.0})
    failure(capsys, 2, "score", "in/one.png", "pairs/noisy")
    failure(capsys, 1, "score", "in", "pairs")
    failure(capsys, 2, "score", "in", "pairs/noisy", "--data_range", "-1")
    assert failure(capsys, 2, "score", "in")[0] == "score needs TEST"


# --- prepare ----------------------------------------------------------------------------------------------------------


def test_prepare_writes_a_datalist_by_patient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(12):
        picture(tmp_path / "in" / f"{seed // 2:03}_{seed % 2}.png", seed)
    words = ("prepare", "folder", tmp_path / "in", tmp_path / "out", "--patient_pattern", r"^(\d+)_")
    code, out, err = run(capsys, *words, "--seed", "3")
    assert (code, err) == (0, "")
    assert "12 images of 6 patients" in out
    datalist = read_datalist(tmp_path / "out" / "datalist.json")
    assert sum(map(len, datalist.values())) == 12
    before = (tmp_path / "out" / "datalist.json").read_bytes()
    failure(capsys, 1, *words)
    assert run(capsys, *words, "--seed=3", "--overwrite")[0] == 0
    assert (tmp_path / "out" / "datalist.json").read_bytes() == before
    (tmp_path / "in" / "009_0.png").write_bytes(b"no image")
    code, _, err = run(capsys, *words, "--overwrite")
    assert code == 3
    assert [line.split(":")[0] for line in err.splitlines()] == ["warning", "error", "hint"]
    assert "009_0.png" in err
    assert "009_0.png" in failure(capsys, 1, *words, "--overwrite", "--strict")[0]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("mini_miaz in out", "did you mean 'mini_mias'?"),
        ("folder in out --download", "mini_mias"),
        ("folder in out --sha256 12345", "64 hexadecimal digits"),
        ("dx in out --patient_pattern 1", "leave it out"),
        ("folder in", "usage: meddenoise prepare {mini_mias,dx,folder} SOURCE OUTPUT"),
    ],
)
def test_prepare_usage_errors(source: Path, words: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in failure(capsys, 2, "prepare", *words.split())[1]
