from __future__ import annotations

import json
import subprocess
import sys

import pytest

import meddenoise_monai


def modules_after(statement: str) -> set[str]:
    script = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not done.stderr
    return set(json.loads(done.stdout))


def test_import_costs_nothing() -> None:
    loaded = modules_after("import meddenoise_monai; meddenoise_monai.__version__; dir(meddenoise_monai)")
    assert not loaded & {"torch", "monai", "mlflow", "itk", "pydicom", "numpy", "ignite", "skimage", "matplotlib"}
    assert "meddenoise_monai" in loaded


@pytest.mark.e2e
def test_denoising_imports_no_monai() -> None:
    """MONAI imports MLflow, matplotlib and ignite: more than half of the time that a command takes to start."""
    loaded = modules_after(
        "import numpy, meddenoise_monai.denoising, meddenoise_monai.archiving, meddenoise_monai.pairing\n"
        "meddenoise_monai.load_denoiser(device='cpu')(numpy.random.default_rng(0).random((32, 32)))"
    )
    assert "torch" in loaded
    assert not loaded & {"monai", "mlflow", "ignite", "matplotlib"}


def test_all_public_names_resolve() -> None:
    assert dir(meddenoise_monai) == sorted(meddenoise_monai.__all__)
    for name in meddenoise_monai.__all__:
        value = getattr(meddenoise_monai, name)
        assert name == "__version__" or value.__name__ == name
    from meddenoise_monai import networks

    assert meddenoise_monai.ResidualDenoisingAutoencoder is networks.ResidualDenoisingAutoencoder


def test_star_import_gives_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from meddenoise_monai import *", names)
    assert set(meddenoise_monai.__all__) <= names.keys()


def test_modules_that_configurations_import_resolve() -> None:
    # A bundle's "$from meddenoise_monai import datasets" looks attributes up, and imports nothing by itself.
    for name in ("datasets", "inference", "noise", "runtime", "training"):
        assert getattr(meddenoise_monai, name).__name__ == f"meddenoise_monai.{name}"


def test_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'denoise_everything'"):
        _ = meddenoise_monai.denoise_everything
    with pytest.raises(ImportError, match="denoise_everything"):
        from meddenoise_monai import denoise_everything  # noqa: F401


def test_version_is_one() -> None:
    parts = meddenoise_monai.__version__.split(".")
    assert len(parts) == 3
    assert all(part.isdigit() for part in parts)
