"""Phantoms against what they claim: areas against geometry and supersampling, blurs against numerical integrals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, special

from meddenoise_monai.errors import UsageError
from meddenoise_monai.phantoms import Disc, disc, disc_grid, gaussian_mtf, slanted_edge


def supersampled(shape: tuple[int, int], inside: Any, times: int = 64) -> NDArray[np.float64]:
    """Each pixel as the mean of times x times points."""
    at = (np.arange(times) + 0.5) / times - 0.5
    rows = (np.arange(shape[0])[:, None] + at).ravel()[:, None]
    columns = (np.arange(shape[1])[:, None] + at).ravel()[None, :]
    points = inside(rows, columns).astype(np.float64)
    means: NDArray[np.float64] = points.reshape(shape[0], times, shape[1], times).mean(axis=(1, 3))
    return means


def blurred_disc(distance: float, radius: float, blur: float) -> float:
    """The convolution of a disc with a 2-D Gaussian, integrated numerically over the disc's rings."""

    def ring(r: float) -> float:
        weight = math.exp(-((r - distance) ** 2) / (2 * blur**2)) * special.i0e(r * distance / blur**2)
        return float(r / blur**2 * weight)

    break_at = [min(max(distance, 0.0), radius)]
    value, _ = integrate.quad(ring, 0, radius, points=break_at, epsabs=1e-12, limit=200)
    return float(value)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 18), st.floats(9.5, 21), st.floats(9.5, 21))
def test_a_disc_without_blur_covers_its_area(diameter: float, row: float, column: float) -> None:
    image, truth = disc((31, 31), diameter, 1.0, 0.0, (row, column))
    assert image.sum() == pytest.approx(math.pi * diameter**2 / 4, rel=1e-9, abs=1e-12)
    assert ((image >= 0) & (image <= 1)).all()
    assert image[truth.inside((31, 31))] == pytest.approx(1, abs=1e-12)
    assert image[truth.distance((31, 31)) >= 1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("diameter", "centre"), [(7.3, (8.2, 9.7)), (0.8, (4.0, 4.5)), (12.0, (-1.0, 14.3))])
def test_each_pixel_of_a_disc_is_the_area_covered(diameter: float, centre: tuple[float, float]) -> None:
    image, truth = disc((16, 18), diameter, 0.4, 0.5, centre)
    expected = supersampled((16, 18), lambda r, c: np.hypot(r - centre[0], c - centre[1]) < diameter / 2)
    assert expected.any()
    assert image == pytest.approx(0.5 + 0.4 * expected, abs=1e-3)
    assert truth == Disc(*centre, diameter, 0.4)


@pytest.mark.parametrize(("radius", "blur"), [(10.0, 0.4), (10.0, 3.0), (2.0, 1.5), (1.0, 2.0)])
def test_a_blurred_disc_is_the_convolution_with_a_gaussian(radius: float, blur: float) -> None:
    image, truth = disc((41, 41), 2 * radius, 0.3, 0.2, (20.0, 20.0), blur)
    for row, column in [(20, 20), (20, 20 + round(radius)), (23, 24), (20, 28), (30, 33)]:
        distance = math.hypot(row - 20, column - 20)
        assert image[row, column] == pytest.approx(0.2 + 0.3 * blurred_disc(distance, radius, blur), abs=1e-10)
    assert image[20, 20] == pytest.approx(0.2 + 0.3 * (1 - math.exp(-(radius**2) / (2 * blur**2))), abs=1e-12)
    assert truth.contrast == 0.3


def test_a_blur_moves_no_brightness_away() -> None:
    sharp, _ = disc((64, 64), 20, 0.5, 0.25, (31.3, 30.8))
    blurred, _ = disc((64, 64), 20, 0.5, 0.25, (31.3, 30.8), blur=1.5)
    assert blurred.sum() == pytest.approx(sharp.sum(), abs=1e-6)
    assert blurred.max() <= sharp.max()
    assert np.abs(np.gradient(blurred)).max() < 0.6 * np.abs(np.gradient(sharp)).max()


@pytest.mark.parametrize("blur", [0.0, 1.2])
def test_a_disc_moves_with_its_centre(blur: float) -> None:
    here, _ = disc((32, 32), 9, 0.4, centre=(12.3, 14.1), blur=blur)
    there, _ = disc((32, 32), 9, 0.4, centre=(15.3, 12.1), blur=blur)
    assert there[3:, :-2] == pytest.approx(here[:-3, 2:], abs=1e-12)


@pytest.mark.parametrize("angle", [0.0, 5.0, 33.0, 45.0, 90.0, 175.0, -120.0])
def test_each_pixel_of_an_edge_is_the_area_behind_it(angle: float) -> None:
    image, truth = slanted_edge((12, 15), -0.3, angle, 0.8)
    across, down = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    expected = supersampled((12, 15), lambda r, c: (c - 7.0) * across + (r - 5.5) * down > 0)
    assert image == pytest.approx(0.8 - 0.3 * expected, abs=5e-3)
    assert image.mean() == pytest.approx(0.65, abs=1e-6)
    assert (truth.distance((12, 15)) > 0).any()


def test_a_blurred_edge_is_the_error_function() -> None:
    image, truth = slanted_edge((20, 30), 0.2, 10.0, 0.4, blur=1.7)
    expected = 0.4 + 0.1 * (1 + special.erf(truth.distance((20, 30)) / (1.7 * math.sqrt(2))))
    assert image == pytest.approx(expected, abs=1e-12)


def test_a_grid_shows_the_discs_it_lists() -> None:
    contrasts, diameters = [0.2, -0.05, 0.01], [12.0, 5.0]
    image, discs = disc_grid(contrasts, diameters, background=0.4)
    assert image.shape == (72, 48)
    assert image.dtype == np.float64
    assert [(one.contrast, one.diameter) for one in discs] == [(c, d) for c in contrasts for d in diameters]
    assert [(one.row, one.column) for one in discs[:3]] == [(11.5, 11.5), (11.5, 35.5), (35.5, 11.5)]
    elsewhere = np.ones(image.shape, bool)
    for one in discs:
        inside, around = one.inside(image.shape), one.around(image.shape)
        assert inside.any()
        assert around.any()
        assert image[inside] == pytest.approx(0.4 + one.contrast, abs=1e-12)
        assert image[around] == pytest.approx(0.4, abs=1e-12)
        elsewhere &= one.distance(image.shape) >= 1
    assert image[elsewhere] == pytest.approx(0.4, abs=1e-12)
    total = sum(one.contrast * math.pi * one.diameter**2 / 4 for one in discs)
    assert (image - 0.4).sum() == pytest.approx(total, abs=1e-9)


def test_blurred_discs_of_a_grid_add_up() -> None:
    image, discs = disc_grid([0.5], [6, 6], background=0.5, spacing=7, blur=2.0)
    alone = [disc(image.shape, 6, 0.5, 0.5, (one.row, one.column), 2.0)[0] - 0.5 for one in discs]
    assert image == pytest.approx(0.5 + alone[0] + alone[1], abs=1e-12)
    assert image.max() <= 1


def test_masks_keep_clear_of_the_rim() -> None:
    one = Disc(20.0, 20.0, 10.0, 0.1)
    inside, around = one.inside((41, 41), margin=2), one.around((41, 41), margin=3, width=4)
    rows, columns = np.nonzero(inside)
    assert np.hypot(rows - 20, columns - 20).max() == 3
    assert inside.sum() == 29  # points of the lattice within 3 of the origin
    rows, columns = np.nonzero(around)
    distances = np.hypot(rows - 20, columns - 20)
    assert (distances.min(), distances.max()) == (8, 12)


def test_gaussian_mtf_is_the_transform_of_a_gaussian() -> None:
    for sigma, frequency in [(0.7, 0.3), (1.5, 0.1), (2.0, 0.0)]:

        def line_spread(x: float, sigma: float = sigma) -> float:
            return math.exp(-(x**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))

        if frequency:
            value, _ = integrate.quad(line_spread, -15, 15, weight="cos", wvar=2 * math.pi * frequency)
        else:
            value, _ = integrate.quad(line_spread, -15, 15)
        assert gaussian_mtf(frequency, sigma) == pytest.approx(value, abs=1e-9)
    assert gaussian_mtf([0.0, 0.1], 0.0).tolist() == [1, 1]


@pytest.mark.parametrize(
    "call",
    [
        lambda: disc((0, 5), 3, 0.1),
        lambda: disc((8, 8), 0, 0.1),
        lambda: disc((8, 8), math.nan, 0.1),
        lambda: disc((8, 8), 3, 0.6),
        lambda: disc((8, 8), 3, 0.1, -0.1),
        lambda: disc((8, 8), 3, 0.1, math.nan),
        lambda: disc((8, 8), 3, 0.1, blur=-1),
        lambda: disc_grid([], [3]),
        lambda: disc_grid([0.1], []),
        lambda: disc_grid([0.1], [5], spacing=5),
        lambda: disc_grid([0.1, 0.7], [5]),
        lambda: slanted_edge((8, 8), 0.6),
        lambda: slanted_edge((8, 8), 0.1, math.inf),
        lambda: slanted_edge((8, 8), 0.1, blur=math.nan),
    ],
)
def test_what_is_no_phantom_is_refused(call: Any) -> None:
    with pytest.raises(UsageError):
        call()
    assert disc((8, 8), 3, 0.3, 0.7)[0].max() == pytest.approx(1)
