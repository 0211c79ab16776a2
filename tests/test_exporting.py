"""What an export holds, what it leaves out, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest

import meddenoise_monai
from meddenoise_monai import exporting
from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.exporting import BUNDLE_NAME, export_bundle
from meddenoise_monai.whole_files import TEMPORARY
from tests.commands.conftest import failure, run

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small copy of this repository, which is what gets exported."""
    root = tmp_path / "repository"
    shutil.copytree(ROOT / "bundle", root / "bundle", ignore=shutil.ignore_patterns("*.pt", "eval"))
    for name in ("model.pt", "model_correlated.pt"):
        (root / "bundle" / "models" / name).write_bytes(b"weights")
    (root / "meddenoise_monai" / "noise").mkdir(parents=True)
    for name in ("__init__.py", "noise/__init__.py"):
        (root / "meddenoise_monai" / name).write_text("# code\n")
    shutil.copyfile(ROOT / "CHANGELOG.md", root / "CHANGELOG.md")
    monkeypatch.setattr(exporting, "_roots", lambda: (root, root / "bundle"))
    return root


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_export_is_the_bundle_and_the_code_unchanged(tmp_path: Path) -> None:
    summary = export_bundle(tmp_path / "zoo")
    assert (summary.folder, summary.version) == (tmp_path / "zoo" / BUNDLE_NAME, meddenoise_monai.__version__)
    exported = contents(summary.folder)
    assert tuple(sorted(exported)) == summary.files
    assert sum(map(len, exported.values())) == summary.bytes
    files = [path for path in (ROOT / "meddenoise_monai").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    code = {path.relative_to(ROOT).as_posix() for path in files}
    assert len(code) > 80
    assert {name for name in exported if name.startswith("meddenoise_monai/")} == code
    for name, content in exported.items():
        if name != "docs/README.md":  # its links into the repository lead nowhere from here
            assert content == (ROOT / name if name in code else ROOT / "bundle" / name).read_bytes(), name
    released = re.findall(r"^!bundle/(models/.+)$", (ROOT / ".gitignore").read_text(), re.M)
    assert {name for name in exported if name.startswith("models/")} == set(released)
    assert "models/model.pt" in released
    assert {name.split("/")[0] for name in exported} == {"LICENSE", "configs", "docs", "meddenoise_monai", "models"}


def test_links_that_leave_the_bundle_become_words(repository: Path, tmp_path: Path) -> None:
    card = repository / "bundle" / "docs" / "README.md"
    card.write_text("# Card\n\nBetter ([by 1 dB](../../docs/evidence.md#fidelity)); [failures](failures.png).\n")
    export = export_bundle(tmp_path / "zoo").folder
    assert (export / "docs" / "README.md").read_text() == (
        "# Card\n\nBetter (by 1 dB (`docs/evidence.md` of the repository)); [failures](failures.png).\n"
    )
    assert "evidence.md#fidelity" in card.read_text()


def test_archive_holds_the_folder_and_depends_on_the_sources_alone(repository: Path, tmp_path: Path) -> None:
    first = export_bundle(tmp_path / "zoo")
    for path in repository.rglob("*"):
        path.touch()
    second = export_bundle(tmp_path / "again")
    assert first.archive.name == f"{BUNDLE_NAME}_v{first.version}.zip"
    assert first.archive.read_bytes() == second.archive.read_bytes()
    assert hashlib.sha256(first.archive.read_bytes()).hexdigest() == first.sha256
    with zipfile.ZipFile(first.archive) as archive:
        names = archive.namelist()
        assert names == sorted(names)
        packed = {name.removeprefix(f"{BUNDLE_NAME}/"): archive.read(name) for name in names}
    assert packed == contents(first.folder)
    (repository / "meddenoise_monai" / "page.css").write_text("/* data of the package */")
    assert export_bundle(tmp_path / "third").sha256 != first.sha256


def test_an_export_exports_itself(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = export_bundle(tmp_path / "zoo")
    (first.folder / "README.md").write_text("what push_to_hf_hub leaves there")
    monkeypatch.setattr(exporting, "_roots", lambda: (first.folder, first.folder))
    assert export_bundle(tmp_path / "again").sha256 == first.sha256


def test_outputs_and_caches_are_left_out(repository: Path, tmp_path: Path) -> None:
    before = export_bundle(tmp_path / "zoo").sha256
    for name in ("bundle/models/model_best.pt", "bundle/models/checkpoint_last.pt", "bundle/models/model.onnx",
                 "bundle/eval/results.json", "bundle/docs/.hidden", "bundle/configs/notes.txt",
                 "meddenoise_monai/__pycache__/noise.pyc", "meddenoise_monai/.cache/noise.py",
                 "meddenoise_monai/model.pt", "meddenoise_monai/PATIENT_Smith.dcm", "bundle/docs/private.txt",
                 ):  # fmt: skip
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_bytes(b"left there")
    assert export_bundle(tmp_path / "again").sha256 == before


def test_nothing_is_overwritten_unless_asked(repository: Path, tmp_path: Path) -> None:
    first = export_bundle(tmp_path)
    with pytest.raises(InputError, match="exists already"):
        export_bundle(tmp_path)
    (first.folder / "meddenoise_monai" / "__pycache__").mkdir()
    (first.folder / "meddenoise_monai" / "__pycache__" / "gone.pyc").write_bytes(b"cache")
    (repository / "meddenoise_monai" / "noise" / "__init__.py").unlink()  # a module that the new version lacks
    second = export_bundle(tmp_path, overwrite=True)
    assert tuple(sorted(contents(second.folder))) == second.files
    assert set(first.files) - set(second.files) == {"meddenoise_monai/noise/__init__.py"}
    shutil.rmtree(first.folder)
    with pytest.raises(InputError, match=r"\.zip exists already"):
        export_bundle(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["models/model_best.pt", "eval/results.json", "notes.txt", "configs/my_site.json", "docs/notes.txt",
     "meddenoise_monai/patients/000.dcm", "models/model.pt", "configs/train.json"],
)  # fmt: skip
def test_overwriting_keeps_what_no_export_wrote(repository: Path, tmp_path: Path, name: str) -> None:
    folder = export_bundle(tmp_path).folder
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("results of a week")
    with pytest.raises(InputError, match="was not exported, or changed since, and would be lost"):
        export_bundle(tmp_path, overwrite=True)
    assert (folder / name).read_text() == "results of a week"


def test_a_folder_in_the_archives_place_is_refused_before_anything_is_replaced(
    repository: Path, tmp_path: Path
) -> None:
    first = export_bundle(tmp_path)
    first.archive.unlink()
    first.archive.mkdir()
    before = contents(tmp_path)
    with pytest.raises(InputError, match="is a folder"):
        export_bundle(tmp_path, overwrite=True)
    assert contents(tmp_path) == before


def test_a_folder_that_is_no_bundle_is_not_replaced(repository: Path, tmp_path: Path) -> None:
    (tmp_path / BUNDLE_NAME / "docs").mkdir(parents=True)
    (tmp_path / BUNDLE_NAME / "docs" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="is no bundle"):
        export_bundle(tmp_path, overwrite=True)
    assert (tmp_path / BUNDLE_NAME / "docs" / "thesis.txt").read_text() == "mine"


def test_a_failed_export_leaves_what_was_there(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    output = tmp_path / "zoo"
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "_zip", no_space)
        with pytest.raises(InputError, match=f"cannot write {output}: No space"):
            export_bundle(output)
    assert list(output.iterdir()) == []
    export_bundle(output)
    before = contents(output)
    monkeypatch.setattr(exporting, "_zip", no_space)
    with pytest.raises(InputError, match="No space"):
        export_bundle(output, overwrite=True)
    assert contents(output) == before


@pytest.mark.parametrize("problem", [PermissionError(13, "Permission denied"), KeyboardInterrupt()])
@pytest.mark.parametrize("refused", [BUNDLE_NAME, f"{BUNDLE_NAME}_v{meddenoise_monai.__version__}.zip"])
def test_an_export_that_cannot_take_its_place_gives_it_back(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: BaseException, refused: str
) -> None:
    output = tmp_path / "zoo"
    export_bundle(output)
    before = contents(output)
    rename = Path.rename

    def refuse_the_new(path: Path, target: Path) -> Path:
        if path.parent.name.startswith(TEMPORARY) and path.name == refused:
            raise problem
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse_the_new)
    with pytest.raises((InputError, KeyboardInterrupt)):
        export_bundle(output, overwrite=True)
    assert contents(output) == before
    assert [path for path in output.iterdir() if path.name.startswith(TEMPORARY)] == []


def edit_metadata(repository: Path, **changes: object) -> None:
    path = repository / "bundle" / "configs" / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "9.0.0"}, "version 9.0.0 has no line in the changelog"),
        ({"changelog": {meddenoise_monai.__version__: " "}}, "has no line in the changelog"),
        ({"changelog": {meddenoise_monai.__version__: "first", "9.10.0": "b", "9.9.0": "a"}}, "is at 9.10.0"),
        ({"changelog": {meddenoise_monai.__version__: "first", "next": "b"}}, "'next' is no version"),
        ({"version": "9.0.0", "changelog": {"9.0.0": "a"}}, "__version__ says"),
        ({"changelog": None}, "cannot read version and changelog"),
    ],
)
def test_versions_have_to_agree(repository: Path, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    edit_metadata(repository, **changes)
    with pytest.raises(InputError, match=re.escape(message)):
        export_bundle(tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_the_changelog_of_the_repository_drives_the_version(repository: Path, tmp_path: Path) -> None:
    history = repository / "CHANGELOG.md"
    history.write_text(history.read_text().replace("\n## ", "\n## 9.0.0\n\n### Added\n- more\n\n## ", 1))
    with pytest.raises(InputError, match=r"CHANGELOG\.md says 9\.0\.0"):
        export_bundle(tmp_path / "zoo")


def test_large_files_are_refused(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "MAX_FILE_BYTES", 100_000)
    (repository / "bundle" / "models" / "model.pt").write_bytes(bytes(100_000))
    (repository / "bundle" / "docs" / "failures.png").write_bytes(bytes(100_000))
    export_bundle(tmp_path / "zoo")
    (repository / "bundle" / "models" / "model.pt").write_bytes(bytes(100_001))
    with pytest.raises(InputError, match=r"models/model\.pt has 0\.1 MB"):
        export_bundle(tmp_path / "other")
    assert list((tmp_path / "other").iterdir()) == []


@pytest.mark.parametrize("name", ["LICENSE", "docs/data_license.txt", "models/model.pt", "configs/logging.conf"])
def test_missing_files_are_named(repository: Path, tmp_path: Path, name: str) -> None:
    (repository / "bundle" / name).unlink()
    with pytest.raises(InputError, match=f"lacks {re.escape(name)}"):
        export_bundle(tmp_path / "zoo")


@pytest.mark.parametrize("place", ["bundle", "bundle/docs", "meddenoise_monai/zoo"])
def test_output_lies_outside_of_the_sources(repository: Path, place: str) -> None:
    with pytest.raises(UsageError, match="lies inside of what is exported"):
        export_bundle(repository / place)


def test_a_wheel_has_nothing_to_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "__file__", str(tmp_path / "site-packages" / "meddenoise_monai" / "exporting.py"))
    with pytest.raises(InputError, match="the package alone") as caught:
        export_bundle(tmp_path / "zoo")
    assert "clone" in caught.value.hint


def test_the_verb_prints_what_it_wrote(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "export", "zoo")
    assert (code, err) == (0, "")
    folder, archive = out.splitlines()
    assert re.fullmatch(rf"zoo/{BUNDLE_NAME}: version \d+\.\d+\.\d+, \d+ files, \d+\.\d MB", folder)
    digest = hashlib.sha256(next((tmp_path / "zoo").glob("*.zip")).read_bytes()).hexdigest()
    assert archive == f"zoo/{BUNDLE_NAME}_v{meddenoise_monai.__version__}.zip: sha256 {digest}"
    assert failure(capsys, 1, "export", "zoo")[1].endswith("--overwrite")
    assert failure(capsys, 2, "export", "repository/bundle")[0].startswith("repository/bundle lies inside")
    assert run(capsys, "export", "zoo", "--overwrite") == (0, out, "")
