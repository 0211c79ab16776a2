"""Before, after, removed: pictures of results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from meddenoise_monai.images import ImageData, IntensityScale, read_image
from meddenoise_monai.previews import display_window, draw_preview, write_preview


def image_of(array: np.ndarray, inverted: bool = False) -> ImageData:  # type: ignore[type-arg]
    return ImageData(array, IntensityScale.of(array, inverted), Path("a.tif"))


def panels(picture: Image.Image) -> list[np.ndarray]:  # type: ignore[type-arg]
    width = (picture.width - 8) // 3
    pixels = np.asarray(picture)[16:]
    return [pixels[:, start : start + width] for start in (0, width + 4, 2 * (width + 4))]


def test_panels_show_the_window_and_what_was_removed() -> None:
    before = np.tile(np.linspace(0, 1000, 200), (200, 1))
    after = before.copy()
    after[:100] += 10
    after[100:] -= 10
    shown, result, removed = panels(draw_preview(image_of(before), after))
    assert shown.shape == (200, 200)
    assert (shown[:, 0] == 0).all()
    assert (shown[:, -1] == 255).all()
    assert np.abs(np.diff(shown[0].astype(int))).max() <= 2
    assert (result[:100].astype(int) - shown[:100]).max() in (2, 3)  # 10 of 990 are 2.6 of 255
    # Removed is before - after: -10 above, +10 below, a quarter of the way from grey.
    assert np.unique(removed[:100]).tolist() == [96]
    assert np.unique(removed[100:]).tolist() == [159]


def test_monochrome1_is_shown_the_right_way_round() -> None:
    array = np.tile(np.arange(200.0), (200, 1))
    plain, mirrored = (panels(draw_preview(image_of(array, inverted), array))[0] for inverted in (False, True))
    np.testing.assert_allclose(plain.astype(int), 255 - mirrored.astype(int), atol=1)


def test_the_middle_slice_of_a_volume_and_sizes() -> None:
    volume = np.random.default_rng(0).random((5, 20, 30))
    volume[2, :, 15:] += 9
    picture = draw_preview(image_of(volume), volume)
    assert picture.size == (3 * 180 + 8, 120 + 16)  # magnified six times
    shown = panels(picture)[0]
    assert shown[:, 90:].mean() > 200 > 60 > shown[:, :90].mean()
    large = np.random.default_rng(0).random((1500, 3000))
    assert draw_preview(image_of(large), large).size == (3 * 1024 + 8, 512 + 16)


@pytest.mark.parametrize("values", [(40, 400), ([40, 50], [400, 350])])
def test_a_dicom_file_has_its_own_window(tmp_path: Path, values: tuple[object, object]) -> None:
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    dataset.WindowCenter, dataset.WindowWidth = values
    dataset.save_as(tmp_path / "a.dcm")
    assert display_window(read_image(tmp_path / "a.dcm")) == (-160.0, 239.0)
    dataset.WindowWidth = None
    dataset.save_as(tmp_path / "a.dcm")
    image = read_image(tmp_path / "a.dcm")
    low, high = display_window(image)
    assert image.array.min() <= low < high <= image.array.max()


def test_a_preview_is_written_as_png(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((64, 64))
    path = write_preview(tmp_path / "deep" / "a.png", image_of(array), array)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.mode == "L"
    assert list(path.parent.iterdir()) == [path]
