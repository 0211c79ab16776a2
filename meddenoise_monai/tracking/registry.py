"""Weights in MLflow's model registry: what a version holds, what it says of itself, and when a new one is made.

A version is a pyfunc model that runs wherever its requirements are installed: the weights, the package's source, and
the name of the module that loads them. It holds no pickle. `serving` says what its `predict` does.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import InputError, UsageError
from ..inference import load_denoiser, released_weights, weights_fingerprint
from .addresses import public
from .cleaning import one_line
from .opening import open_run
from .process import mlflow_call
from .runs import MlflowRun

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

__all__ = ["CHAMPION", "EXPERIMENT", "Registration", "register_weights"]

CHAMPION = "champion"
EXPERIMENT = "meddenoise registered models"
_PACKAGE = Path(__file__).resolve().parents[1]
_LOADER = "meddenoise_monai.serving"
_USE = "Research. Not a medical device and not for diagnosis."
_ABOUT = (
    "Removes noise from grey medical images (X-ray, mammography, CT, MR). "
    f"{_USE}\n\n"
    "`predict` takes a table of one column: `image`, (H, W) or (D, H, W) numbers in their own units, or `dicom`, the "
    "bytes of a DICOM file (in JSON: base64). It answers the same column, denoised: float32 of the same shape and "
    "units, or the derived DICOM object.\n\n"
    "Parameters: `sigma` (standard deviation of the noise in the image's own units, where it is known), `strength` (0 "
    "to 1), `noise` (auto, gaussian, poisson, rician, correlated), `dtype` (NumPy type of an `image` that comes as "
    "JSON, such as uint8)."
)


@dataclass(frozen=True)
class Registration:
    """A version in the registry.

    Parameters
    ----------
    name, version, alias
        Of the registered model.
    weights
        `inference.weights_fingerprint` of the network, or of both.
    created
        Whether it is new; else a version of the same weights and the same program was there.
    tracking_uri
        Of the store, without a password.
    """

    name: str
    version: str
    alias: str
    weights: str
    created: bool
    tracking_uri: str

    @property
    def model_uri(self) -> str:
        """What `mlflow.pyfunc.load_model` and ``mlflow models serve -m`` take."""
        return f"models:/{self.name}@{self.alias}"


def register_weights(
    weights: str | os.PathLike[str] | None = None,
    name: str = "meddenoise",
    tracking_uri: str | None = None,
    folder: str | os.PathLike[str] = "eval",
    alias: str = CHAMPION,
) -> Registration:
    """Put weights of the default network into the model registry, once, and point the alias at them.

    Parameters
    ----------
    weights
        A ``model.pt``; by default the released ones. A ``model_correlated.pt`` beside it goes along.
    name
        Of the registered model.
    tracking_uri, folder
        As in `open_run`.
    alias
        Is taken from the version that bears it.

    Raises
    ------
    InputError
        If the weights cannot be used, or the store cannot be reached, or refuses.
    UsageError
        If `name` or `alias` is none that can be written into an address, or the tracking URI is a folder.
    """
    for what, value in (("name", name), ("alias", alias)):
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", value) or value.lower() == "latest":
            raise UsageError(
                f"the {what} {value!r} cannot stand in models:/NAME@ALIAS", "take letters, digits, - and _"
            )
    path = released_weights() if weights is None else Path(weights)
    denoise = load_denoiser(path, "cpu")
    fingerprint = denoise.fingerprint
    facts = {
        "weights": fingerprint,
        "network": weights_fingerprint(denoise.network),  # what runs of trainings and evaluations call "weights"
        "package_version": __version__,
        "code": _code_digest(),
    }
    run = open_run(
        EXPERIMENT,
        f"{name} {__version__}, weights {fingerprint[:8]}",
        tracking_uri,
        folder,
        {"job": "registration", **facts},
        fall_back=False,  # a folder is no registry
    )
    assert isinstance(run, MlflowRun)
    with run:
        uri, run_id = run.tracking_uri, run.run_id
        with mlflow_call():
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException

            client = MlflowClient(tracking_uri=uri)
            try:
                version = _version_of(client, name, facts)
                created = version is None
                if version is None:
                    version = _new_version(client, name, run_id, path, facts)
                client.set_registered_model_alias(name, alias, version)
            except (MlflowException, OSError) as error:
                raise InputError(
                    f"the model registry does not take the weights: {one_line(error)}",
                    "is its server up, and may you write into it?",
                ) from error
    if not created:
        with mlflow_call():
            client.delete_run(run_id)  # it has recorded nothing
    return Registration(name, version, alias, fingerprint, created, public(uri))


def _version_of(client: MlflowClient, name: str, facts: Mapping[str, str]) -> str | None:
    """The newest version of the same weights and the same program."""
    versions = client.search_model_versions(f"name = '{name}'")
    same = [int(one.version) for one in versions if facts.items() <= one.tags.items()]
    return str(max(same)) if same else None


def _new_version(client: MlflowClient, name: str, run_id: str, weights: Path, facts: Mapping[str, str]) -> str:
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model
    from mlflow.pyfunc import save_model

    tags = {**facts, "intended_use": _USE}
    experiment = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(
        experiment, name=f"{name}-{facts['weights'][:8]}", source_run_id=run_id, tags=tags, model_type="denoiser"
    )
    try:
        with tempfile.TemporaryDirectory(prefix="meddenoise-") as scratch:
            files = Path(scratch)
            save_model(
                files / "model",
                loader_module=_LOADER,
                data_path=str(_copy_of_weights(weights, files / "weights")),
                code_paths=[str(_copy_of_package(files / _PACKAGE.name))],
                mlflow_model=Model(model_id=model.model_id, run_id=run_id),
                signature=_signature(),
                input_example=_example(),
                pip_requirements=_requirements(),
            )
            client.log_model_artifacts(model.model_id, str(files / "model"))
    except BaseException:
        client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)
        raise
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    try:
        client.create_registered_model(name, description=_ABOUT)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        name,
        source=model.artifact_location,  # with models:/… MLflow would ask its global store
        run_id=run_id,
        tags=tags,
        description=f"meddenoise_monai {facts['package_version']}, weights {facts['weights']}. {_USE}",
        model_id=model.model_id,
    )
    return str(version.version)


def _copy_of_weights(weights: Path, folder: Path) -> Path:
    """The weights, and their partner, under the names that `serving` looks for."""
    folder.mkdir()
    for suffix in ("", "_correlated"):
        source = weights.with_name(f"{weights.stem}{suffix}{weights.suffix}")
        if source.is_file():
            shutil.copyfile(source, folder / f"model{suffix}.pt")
    return folder


def _copy_of_package(folder: Path) -> Path:
    """The package's source; an installed one holds the released weights, too, which are not wanted twice."""
    return Path(shutil.copytree(_PACKAGE, folder, ignore=shutil.ignore_patterns("*.pt", "__pycache__")))


def _code_digest() -> str:
    """Of the package's source: a version carries it, so another source makes another version."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _signature() -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    # Not `Array(Array(float))`: an image has two axes or three, and keeps its type.
    columns: list[ColSpec | TensorSpec] = [
        ColSpec(Array(AnyType()), "image", required=False),  # type: ignore[no-untyped-call]
        ColSpec(DataType.binary, "dicom", required=False),
    ]
    parameters = [
        ParamSpec("sigma", DataType.double, None),
        ParamSpec("strength", DataType.double, 1.0),
        ParamSpec("noise", DataType.string, "auto"),
        ParamSpec("dtype", DataType.string, ""),
    ]
    return ModelSignature(Schema(columns), Schema(columns), ParamSchema(parameters))


def _example() -> Any:
    """A request of 8 x 8 grey levels: a step, and noise of whole numbers that needs no random generator."""
    image = [[60 + 80 * (x > 3) + (37 * y + 91 * x + 53 * x * y) % 31 for x in range(8)] for y in range(8)]
    return {"image": image}, {"dtype": "uint8"}


def _requirements() -> list[str]:
    """What the package needs at run time, each in the version that is installed here.

    Raises
    ------
    UsageError
        If the package is not installed: then nobody can say what it needs.
    """
    try:
        wanted = importlib.metadata.requires("meddenoise-monai") or []
    except importlib.metadata.PackageNotFoundError:
        raise UsageError("the package is not installed", "python -m pip install -c constraints.txt -e .") from None
    names = [re.split(r"[^A-Za-z0-9_.-]", line)[0] for line in wanted if "extra ==" not in line]
    # Wheels of PyTorch say after a plus what they were built for: no registry knows that.
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in names]
