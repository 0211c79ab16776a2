"""What a model server does with a request: the library's own results, and refusals that repeat nothing of it."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from pydicom.data import get_testdata_file

from meddenoise_monai.denoising import denoise_files
from meddenoise_monai.inference import Denoiser, load_denoiser
from meddenoise_monai.serving import ServedDenoiser, _load_pyfunc
from tests.small_networks import trained

CT = Path(str(get_testdata_file("CT_small.dcm")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as a version in the registry keeps them."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save(trained().state_dict(), folder / "model.pt")
    torch.save(trained(1).state_dict(), folder / "model_correlated.pt")
    return folder


@pytest.fixture(scope="module")
def served(folder: Path) -> ServedDenoiser:
    return _load_pyfunc(str(folder))


@pytest.fixture(scope="module")
def denoise(folder: Path) -> Denoiser:
    return load_denoiser(folder / "model.pt")


def table(**columns: Any) -> pd.DataFrame:
    """One row."""
    return pd.DataFrame({name: pd.Series([value], dtype=object) for name, value in columns.items()})


@pytest.mark.parametrize(
    ("shape", "dtype"), [((40, 50), "uint8"), ((40, 50), "int16"), ((3, 32, 40), "float64"), ((1, 9, 7), "float32")]
)
def test_an_array_comes_back_as_the_library_denoises_it(
    served: ServedDenoiser, denoise: Denoiser, shape: tuple[int, ...], dtype: str
) -> None:
    image = np.random.default_rng(0).integers(3, 250, shape).astype(dtype)
    (answer,) = served.predict(table(image=image))["image"]
    assert (answer.shape, answer.dtype) == (shape, np.float32)
    np.testing.assert_array_equal(answer, denoise(image))
    assert not np.array_equal(answer, image)
    options = {"sigma": 2.0, "strength": 0.5, "noise": "gaussian"}
    (weaker,) = served.predict(table(image=image), options | {"dtype": ""})["image"]
    np.testing.assert_array_equal(weaker, denoise(image, **options))
    assert not np.array_equal(weaker, answer)


def test_numbers_of_json_are_given_their_type_back(served: ServedDenoiser, denoise: Denoiser) -> None:
    image = np.random.default_rng(0).integers(3, 250, (40, 50)).astype(np.uint8)
    plain = served.predict(table(image=image.tolist()))["image"][0]
    typed = served.predict(table(image=image.tolist()), {"dtype": "uint8", "sigma": None})["image"][0]
    np.testing.assert_array_equal(typed, denoise(image))
    np.testing.assert_array_equal(plain, denoise(image.astype(np.int64)))
    assert not np.array_equal(plain, typed)  # 8 bits have a scale of their own


def test_a_dicom_file_becomes_what_the_command_makes_of_it(
    served: ServedDenoiser, folder: Path, tmp_path: Path
) -> None:
    content = CT.read_bytes()
    denoise_files(CT, tmp_path / "out.dcm", model=folder / "model.pt")
    expected = (tmp_path / "out.dcm").read_bytes()
    lines = base64.encodebytes(content)
    plain = base64.b64encode(content)
    windows = b"\t" + lines.replace(b"\n", b" \r\n")
    for form in (content, bytearray(content), plain, plain.decode(), lines, lines.decode(), windows.decode()):
        assert served.predict(table(dicom=form))["dicom"][0] == expected
    denoise_files(CT, tmp_path / "half.dcm", model=folder / "model.pt", strength=0.5, noise="correlated")
    weaker = served.predict(table(dicom=content), {"strength": 0.5, "noise": "correlated"})["dicom"][0]
    assert weaker == (tmp_path / "half.dcm").read_bytes()
    made, source = pydicom.dcmread(io.BytesIO(expected)), pydicom.dcmread(CT)
    assert made.SOPInstanceUID != source.SOPInstanceUID
    assert made.ImageType[0] == "DERIVED"


def test_rows_of_both_kinds_are_answered_in_their_order(served: ServedDenoiser, denoise: Denoiser) -> None:
    image = np.random.default_rng(0).normal(size=(20, 30))
    rows = pd.DataFrame(
        {
            "image": pd.Series([image, None, 2 * image], dtype=object),
            "dicom": pd.Series([float("nan"), CT.read_bytes(), None], dtype=object),
        }
    )
    answer = served.predict(rows)
    np.testing.assert_array_equal(answer["image"][2], denoise(2 * image))
    assert answer["image"][1] is None
    assert answer["dicom"][1][128:132] == b"DICM"
    assert answer["dicom"][0] is None


def broken(**changes: Any) -> bytes:
    """A DICOM file of a patient with a name, changed."""
    dataset = pydicom.dcmread(CT)
    dataset.PatientName = "Doe^Jane"
    for name, value in changes.items():
        setattr(dataset, name, value)
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("request_", "params", "said"),
    [
        ({}, {}, "neither image nor dicom"),
        ({"image": None}, {}, "row 0 of the request holds neither image nor dicom"),
        ({"image": np.zeros((4, 4)), "dicom": b""}, {}, "holds image and dicom"),
        ({"image": np.ones(4)}, {}, r"cannot denoise an array of shape \(4,\)"),
        ({"image": [["a", "b"]]}, {}, "real numbers"),
        ({"image": [["a", "b"]]}, {"dtype": "uint8"}, "holds no real numbers"),
        ({"image": np.full((4, 4), np.nan)}, {}, "NaN"),
        ({"image": [[1, 300]]}, {"dtype": "uint8"}, "values that uint8 cannot"),
        ({"image": [[1, 30]]}, {"dtype": "object"}, "no type of real numbers"),
        ({"image": [[1, 30]]}, {"dtype": "float31"}, "no type of real numbers"),
        ({"image": [[1, 30]]}, {"dtype": ",,,"}, "no type of real numbers"),
        ({"image": [[1, 30]]}, {"dtype": "u1, u1"}, "no type of real numbers"),
        ({"image": [[1, 30]]}, {"dtype": 5}, "dtype must be a word, got int"),
        ({"image": [[1, 2], [3]]}, {}, "its rows differ in length"),
        ({"image": [[1, 2], [3]]}, {"dtype": "uint8"}, "its rows differ in length"),
        ({"image": [[1, 30]]}, {"foo": 1}, "there is no parameter 'foo'\nhint: known: dtype, noise, sigma, strength"),
        ({"image": [[1, 30]]}, {"strenght": 1}, "there is no parameter 'strenght'\nhint: did you mean 'strength'"),
        ({"image": [[1, 30]]}, {"noise": 5}, "noise must be a word, got int"),
        ({"dicom": CT.read_bytes()}, {"noise": 5}, "noise must be a word, got int"),
        ({"dicom": CT.read_bytes()}, {"foo": 1}, "there is no parameter 'foo'"),
        ({"dicom": CT.read_bytes()}, {"dtype": "uint8"}, "dtype is given, but row 0 of the request holds a DICOM"),
        ({"image": [[1, 30]]}, {"strength": 2.0}, r"strength must be a number in \[0, 1\]"),
        ({"image": [[1, 30]]}, {"noise": "loud"}, "unknown noise"),
        ({"dicom": b"Doe^Jane"}, {}, "no DICOM file"),
        ({"dicom": "Doe^Jäne"}, {}, "no DICOM file"),
        ({"dicom": 5}, {}, "the column dicom holds int"),
        ({"dicom": CT.read_bytes()}, {"noise": "loud"}, "unknown noise"),
        ({"dicom": broken()[:3000]}, {}, "holds no image"),
        ({"dicom": broken(PixelData=b"Doe^Jane")}, {}, r"cannot be read or written back \(ValueError\)"),
        ({"dicom": broken(PhotometricInterpretation="RGB", SamplesPerPixel=3)}, {}, "in colour"),
        ({"dicom": broken(Manufacturer="meddenoise_monai", ManufacturerModelName="meddenoise_monai")}, {}, "it was"),
    ],
)
def test_a_wrong_request_is_refused_without_repeating_it(
    served: ServedDenoiser, request_: dict[str, Any], params: dict[str, Any], said: str
) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=said) as caught:
        served.predict(table(**request_), params)
    refused = caught.value
    refused.message = f"Failed to predict data '{request_}'. \nError: {refused.message}"  # as MLflow's server does
    answer = refused.serialize_as_json()
    assert refused.get_http_status_code() == 400
    assert "hint: " in answer
    for secret in ("Doe", "Jane", "request.dcm", "meddenoise-"):
        assert secret not in answer
