"""Which images to train, validate and test on: folders, datalists, patient-level splits, the embedded samples."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from .errors import InputError, UsageError
from .identity import without_copies
from .images import IMAGE_SUFFIXES, find_images, image_suffix, is_dicom, load_itk
from .whole_files import read_json

__all__ = [
    "IMAGE_SUFFIXES",
    "SPLITS",
    "ImageDataset",
    "datalist_of",
    "evenly",
    "folder_datalist",
    "list_images",
    "patient_of",
    "read_datalist",
    "sample_datalist",
    "split_patients",
    "warn_of_guesses",
    "weights_of",
]

SPLITS = ("training", "validation", "test")
Item = dict[str, Any]
Any_ = TypeVar("Any_")
Datalist = dict[str, list[Item]]

_log = logging.getLogger(__name__)


def split_patients(
    patients: Iterable[str], seed: int = 0, fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
) -> dict[str, str]:
    """Assign each patient to ``"training"``, ``"validation"`` or ``"test"``.

    The place of a patient depends on the seed and on her own name alone (a hash), so adding images later moves nobody.
    Only where a split would stay empty does the patient whose hash lies nearest to it move there.

    Raises
    ------
    InputError
        If there are fewer than three patients.
    """
    names = sorted(set(patients))
    if len(names) < len(SPLITS):
        raise InputError(
            f"{len(names)} patient(s) cannot be split into training, validation and test",
            "give images of at least 3 patients, or a datalist that says which image serves for what",
        )
    # File systems allow names that are no UTF-8, and JSON lone surrogates: they pass, and other names keep their hash.
    digests = {name: hashlib.sha256(f"{seed}:{name}".encode(errors="surrogatepass")).digest() for name in names}
    place = {name: int.from_bytes(digest[:8], "big") / 2**64 for name, digest in digests.items()}
    ends = {"training": fractions[0], "validation": fractions[0] + fractions[1], "test": 1.0}
    split = {name: next(part for part in SPLITS if place[name] < ends[part]) for name in names}
    middle = {"training": ends["training"] / 2, "validation": ends["validation"] - fractions[1] / 2,
              "test": 1 - fractions[2] / 2}  # fmt: skip
    for part in SPLITS:
        if part not in split.values():
            movable = [n for n in names if sum(split[n] == other for other in split.values()) > 1]
            split[min(movable, key=lambda n: (abs(place[n] - middle[part]), n))] = part
    return split


# Folders that say what a file is for, not whom it shows.
# fmt: off
_NO_PATIENT = frozenset({
    "train", "training", "trainingdata", "val", "valid", "validation", "dev", "test", "testing", "test1data",
    "test2data", "image", "images", "img", "imgs", "data", "raw", "rawimage", "dicom", "noisy", "clean", "original",
})
# fmt: on


def patient_of(path: Path, root: Path) -> str:
    """Whom the image `path` below the folder `root` shows.

    For DICOM a hash of the header's PatientID, or of its StudyInstanceUID where that is empty. Else the first folder
    below `root` that is not named for its purpose (``train``, ``test``, ``images`` …); else the file's own name.
    """
    if is_dicom(path) and (hashed := _dicom_patient(path)):
        return hashed
    stem = path.name[: len(path.name) - len(image_suffix(path))]
    return next((part for part in path.relative_to(root).parts[:-1] if part.lower() not in _NO_PATIENT), stem)


def _dicom_patient(path: Path) -> str | None:
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom comments on every slightly irregular file
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID", "StudyInstanceUID"])
            identifier = str(header.get("PatientID") or "").strip() or str(header.get("StudyInstanceUID") or "").strip()
    except Exception:  # no DICOM after all: reading the image will say so, and name it
        return None
    return hashlib.sha256(identifier.encode(errors="surrogatepass")).hexdigest()[:12] if identifier else None


def list_images(folder: str | os.PathLike[str]) -> list[Item]:
    """Every image below a folder as ``{"image": path, "patient": id}`` (see `patient_of`)."""
    root = Path(folder)
    return [{"image": str(path), "patient": patient_of(path, root)} for path in find_images(root)]


def folder_datalist(folder: str | os.PathLike[str], seed: int = 0) -> Datalist:
    """A datalist of all images below `folder`, split by patient (see `list_images`, `split_patients`).

    Where every image is its own patient, that may be a guess: a warning says so.
    """
    items = list_images(folder)
    patients = {item["patient"] for item in items}
    _log.info("%s: %d images of %d patients", folder, len(items), len(patients))
    warn_of_guesses(folder, items)
    split = split_patients((item["patient"] for item in items), seed)
    return {part: [item for item in items if split[item["patient"]] == part] for part in SPLITS}


def warn_of_guesses(folder: str | os.PathLike[str], items: Sequence[Item]) -> None:
    """Where every image of a folder is its own patient, that may be a guess: a warning says so."""
    if len({item["patient"] for item in items}) == len(items) > 1:
        _log.warning(
            "%s: every image is taken for another patient; if some show the same one, put each patient's images into "
            "a folder of their own, or make a datalist (`meddenoise prepare folder … --patient_pattern …`)",
            os.fsencode(folder).decode(errors="backslashreplace"),  # which need be no UTF-8
        )


def read_datalist(path: str | os.PathLike[str]) -> Datalist:
    """Read a MONAI datalist; relative paths count from its own folder.

    Items are ``{"image": path, "label": path?, "patient": id?, "weight": number?}``; one with a `label` is a real
    noisy/clean pair and comes back with ``"paired": True``; the weight says how often it is drawn (see `weights_of`).

    Raises
    ------
    InputError
        If it is no JSON, lists no images, names missing files, or has one patient or image in two splits.
    """
    path = Path(path)
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise InputError(f"no such datalist: {path}", "make one with `meddenoise prepare`") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the datalist {path}: {error}", "it must be a JSON file") from None
    if not isinstance(content, dict) or not any(content.get(part) for part in SPLITS):
        raise InputError(
            f"the datalist {path} lists no images", 'it must look like {"training": [{"image": "a.png"}], "test": []}'
        )
    datalist: Datalist = {}
    missing: list[str] = []
    owner: dict[tuple[str, str], str] = {}
    for part in SPLITS:
        datalist[part] = []
        entries = content.get(part) or []
        if not isinstance(entries, list):
            raise InputError(f"{path}: {part!r} is not a list", 'write "training": [{"image": "a.png"}]')
        for entry in entries:
            if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
                raise InputError(f"{path}: an item of {part!r} names no image: {entry!r}", 'write {"image": "a.png"}')
            item = {key: value for key, value in entry.items() if value is not None}
            for key in ("image", "label"):
                if key in item:
                    item[key] = str(path.parent / str(item[key]))
                    if not Path(item[key]).is_file():
                        missing.append(item[key])
            item["paired"] = "label" in item
            for kind in ("patient", "image"):
                if kind in item and owner.setdefault((kind, str(item[kind])), part) != part:
                    raise InputError(
                        f"{path}: {kind} {item[kind]!r} is in {owner[kind, str(item[kind])]!r} and in {part!r}",
                        "split by patient: images of one person on both sides make every score too good",
                    )
            datalist[part].append(item)
    if missing:
        raise InputError(f"{path} names {len(missing)} missing file(s), first {missing[0]}", "mend the paths in it")
    return datalist


def datalist_of(dataset_dir: str | None = None, datalist: str | None = None, seed: int = 0) -> Datalist:
    """The datalist that a configuration asks for: a file, else a folder, else the embedded samples.

    A folder that holds a ``datalist.json`` (as `meddenoise prepare` makes it) is read by it. Validation and test images
    that are copies of others are left out (see `identity.without_copies`).

    Raises
    ------
    UsageError
        If both are given.
    InputError
        If there is nothing to train on.
    """
    if datalist and dataset_dir:
        raise UsageError("dataset_dir and datalist are both given", "give one of them")
    if datalist:
        return without_copies(read_datalist(datalist))
    if dataset_dir:
        prepared = Path(dataset_dir, "datalist.json")
        found = read_datalist(prepared) if prepared.is_file() else folder_datalist(dataset_dir, seed)
        return without_copies(found)
    return sample_datalist()


# Real images that ship inside our dependencies, read where they are installed. The test images show other persons
# and other scanners than the training images; all are medical. `patient` keeps views of one scene together.
_SAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "training": (
        ("pydicom", "data/test_files/examples_overlay.dcm"),
        ("pydicom", "data/test_files/693_J2KI.dcm"),
        ("pydicom", "data/test_files/JPEG2000.dcm"),
        ("nibabel", "tests/data/example4d.nii.gz"),
        ("skimage", "data/camera.png"),
        ("skimage", "data/cell.png"),
        ("skimage", "data/coins.png"),
        ("skimage", "data/moon.png"),
        ("skimage", "data/brick.png"),
        ("skimage", "data/gravel.png"),
        ("skimage", "data/grass.png"),
        ("pywt", "data/aero.npz"),
        ("pywt", "data/ascent.npz"),
    ),
    "validation": (
        ("pydicom", "data/test_files/CT_small.dcm"),
        ("skimage", "data/microaneurysms.png"),
        ("nibabel", "tests/data/phantom_EPI_asc_CLEAR_2_1.PAR"),
    ),
    "test": (
        ("pydicom", "data/test_files/J2K_pixelrep_mismatch.dcm"),
        ("pydicom", "data/test_files/MR_small.dcm"),
        ("nibabel", "tests/data/anatomical.nii"),
    ),
}


def sample_datalist() -> Datalist:
    """The embedded default: images that ship inside pydicom, nibabel, scikit-image and PyWavelets.

    Images that an installation lacks (a distribution may strip them) are left out.

    Raises
    ------
    InputError
        If none is there.
    """
    datalist: Datalist = {part: [] for part in SPLITS}
    for part, names in _SAMPLES.items():
        for package, inside in names:
            spec = importlib.util.find_spec(package)
            if spec is None or spec.origin is None:
                continue
            path = Path(spec.origin).parent / inside
            if path.is_file():
                datalist[part].append({"image": str(path), "patient": f"{package}/{path.name}"})
    for part in SPLITS:
        if not datalist[part]:
            raise InputError(f"no embedded sample images for {part}", "reinstall pydicom, nibabel and scikit-image")
    return datalist


class ImageDataset(Sequence[Any]):
    """Images that are read and scaled once, kept in memory, and passed through random transforms at each access.

    It differs from MONAI's CacheDataset in two ways: an image that cannot be used is named, counted and left out
    instead of ending the run, and what does not fit into the memory budget is read again when it is needed.

    Parameters
    ----------
    data
        Items of a datalist.
    load
        A transform (or Compose) with no random part: reads and scales an item.
    transform
        Random transforms for each access, or None. May return a list of patches.
    strict
        Raise at the first image that cannot be used.
    max_cache_gib
        Memory budget for the loaded images, GiB.
    num_threads
        Files read at the same time.
    name
        What messages call this set.

    Raises
    ------
    InputError
        If no image can be used, or, if `strict`, one cannot.
    """

    def __init__(
        self,
        data: Sequence[Item],
        load: Callable[[Item], Item],
        transform: Callable[[Item], Any] | None = None,
        strict: bool = False,
        max_cache_gib: float = 8.0,
        num_threads: int = 4,
        name: str = "images",
    ) -> None:
        from tqdm import tqdm

        self.transform = transform
        self._load = load
        self.data: list[Item] = []
        self._cache: list[Item | None] = []
        self.skipped = 0
        room = max_cache_gib * 2**30
        load_itk(Path(value) for item in data for value in item.values() if isinstance(value, str))
        pool = ThreadPoolExecutor(max(1, num_threads))
        try:
            results = pool.map(self._try, data)
            for item, loaded in zip(data, tqdm(results, name, len(data), leave=False, disable=None), strict=True):
                if isinstance(loaded, InputError):
                    if strict:
                        raise loaded
                    self.skipped += 1
                    _log.warning("skipped: %s", loaded.message)
                    continue
                needs = sum(v.nbytes for v in loaded.values() if hasattr(v, "nbytes"))
                fits = needs <= room
                room -= needs if fits else 0
                self.data.append(item)
                self._cache.append(loaded if fits else None)
        finally:
            pool.shutdown(cancel_futures=True)  # after an error, nobody waits for the rest of the files
        if self.skipped:
            _log.warning("%s: %d of %d files skipped", name, self.skipped, len(data))
        if not data:
            raise InputError(f"{name}: none are given", "a datalist needs training, validation and test images")
        if not self.data:
            hint = "see the warnings above; `meddenoise prepare folder` leaves such files out before it splits"
            raise InputError(f"{name}: none of {len(data)} file(s) can be used", hint)

    def _try(self, item: Item) -> Item | InputError:
        try:
            return self._load(dict(item))
        except Exception as error:
            # MONAI wraps what a transform raises; anything that is no fault of the data must not be hidden.
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, InputError):
                cause = cause.__cause__
            if cause is None:
                raise
            return cause

    def __len__(self) -> int:
        return len(self.data)

    def summary(self) -> str:
        """How many images there are, and how many files were skipped."""
        return f"{len(self)} images" + (f" ({self.skipped} files skipped)" if self.skipped else "")

    def __getitem__(self, index: Any) -> Any:
        item = self._cache[index]
        item = dict(item) if item is not None else self._load(dict(self.data[index]))
        return item if self.transform is None else self.transform(item)


def evenly(items: Sequence[Any_], count: int) -> list[Any_]:
    """At most `count` of the items, evenly spread over the list, so that no source at its end is left out."""
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def weights_of(items: Iterable[Mapping[str, Any]]) -> list[float]:
    """How often each item is drawn in training, relative to the others: its ``"weight"``, or 1.

    Raises
    ------
    InputError
        If a weight is no positive number.
    """
    weights = []
    for item in items:
        weight = item.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            raise InputError(f"{item.get('image')}: the weight {weight!r} is no positive number", "mend the datalist")
        weights.append(float(weight))
    return weights


def input_items(folder: str) -> list[Item]:
    """The images below `folder` as items for inference.

    Raises
    ------
    UsageError
        If no folder is given.
    InputError
        If it does not exist, or holds no image.
    """
    if not folder:
        raise UsageError("no input folder", "give --dataset_dir FOLDER")
    return [{"image": str(path)} for path in find_images(folder)]


def collate_one(items: Sequence[Item]) -> Item:
    """A batch of one item: its tensors get a batch axis, everything else stays in a list."""
    (item,) = items
    return {key: value[None] if hasattr(value, "ndim") else [value] for key, value in item.items()}
