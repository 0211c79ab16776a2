"""Ring correlation, the hallucination index and lesion detection against theory, on images of known content."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage, signal

from meddenoise_monai.errors import InputError, UsageError
from meddenoise_monai.hallucination import (
    half_bit,
    hallucinations,
    ring_correlation,
)
from meddenoise_monai.synthetic import dead_leaves, power_law

Image = NDArray[np.float64]

SCENES: dict[str, Callable[[np.random.Generator], Image]] = {
    "leaves": lambda rng: dead_leaves(192, rng).astype(np.float64),
    "texture": lambda rng: power_law(192, 2, rng).astype(np.float64),
    "mammogram": lambda rng: power_law(192, 3, rng).astype(np.float64),
}


@pytest.fixture(params=list(SCENES))
def scene(request: pytest.FixtureRequest) -> Image:
    return SCENES[request.param](np.random.default_rng(0))


def white(shape: tuple[int, ...], seed: int, sigma: float = 1.0) -> Image:
    return np.random.default_rng(seed).normal(0, sigma, shape)


@pytest.mark.parametrize("window", ["hann", "tukey", "boxcar"])
@pytest.mark.parametrize("shape", [(64, 64), (63, 96)])
def test_identical_images_correlate_to_one(window: str, shape: tuple[int, int]) -> None:
    image = white(shape, 0)
    for other in (image, 3 * image + 7):
        rings = ring_correlation(image, other, window)
        assert rings.correlation == pytest.approx(1, abs=1e-12)
        assert rings.cutoff() == rings.cutoff("1/7") == 0.5
    assert ring_correlation(image, -image, window).correlation == pytest.approx(-1, abs=1e-12)
    assert rings.frequency == pytest.approx(np.arange(1, min(shape) // 2 + 1) / min(shape))


def test_ring_correlation_is_its_formula() -> None:
    a, b = white((24, 24), 1), white((24, 24), 2)
    taper = np.outer(signal.windows.hann(24, sym=False), signal.windows.hann(24, sym=False))
    spectra = [np.fft.fft2((each - (each * taper).sum() / taper.sum()) * taper) for each in (a, b)]
    rings = ring_correlation(a, b)
    for number, found in enumerate(rings.correlation, 1):
        f, g = (
            np.array([s[i, j] for i in range(24) for j in range(24) if ring_of(i, j, 24) == number]) for s in spectra
        )
        assert found == pytest.approx((f * g.conj()).sum().real / np.sqrt((abs(f) ** 2).sum() * (abs(g) ** 2).sum()))


def ring_of(i: int, j: int, size: int) -> int:
    return round(np.hypot(min(i, size - i), min(j, size - j)))


@pytest.mark.parametrize("snr", [0.25, 1.0, 4.0])
def test_two_noisy_copies_correlate_as_their_snr_says(snr: float) -> None:
    scene = white((256, 256), 3, np.sqrt(snr))
    for window in ("hann", "boxcar"):
        rings = ring_correlation(scene + white(scene.shape, 4), scene + white(scene.shape, 5), window)
        mean = np.average(rings.correlation, weights=rings.count)
        assert mean == pytest.approx(snr / (snr + 1), abs=0.012)
        # Each ring for itself: 3.5 standard deviations, of at most 1 / sqrt(count).
        assert (np.abs(rings.correlation - snr / (snr + 1))[8:] < 3.5 / np.sqrt(rings.count[8:])).all()


@pytest.mark.parametrize("window", ["hann", "tukey", "boxcar"])
def test_count_tells_the_spread_of_chance(window: str) -> None:
    rng = np.random.default_rng(6)
    found = [ring_correlation(*rng.normal(size=(2, 32, 32)), window) for _ in range(150)]
    spread = np.std([each.correlation for each in found], axis=0) * np.sqrt(found[0].count)
    # The standard error of a standard deviation of 150 is 5.8 %; the few coefficients of the first ring spread less.
    assert spread == pytest.approx(1, abs=0.2)
    assert spread.mean() == pytest.approx(1, abs=0.04)


def test_half_bit_curve_has_its_published_constants() -> None:
    n = np.array([1, 5, 40, 1000, 1e12])
    published = (0.2071 + 1.9102 / np.sqrt(n)) / (1.2071 + 0.9102 / np.sqrt(n))
    assert half_bit(n) == pytest.approx(published, abs=1e-4)
    assert half_bit(1) == pytest.approx(1)


def test_cutoff_is_where_the_images_part() -> None:
    a, b, common = (white((128, 128), seed) for seed in (7, 8, 9))
    low = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128)[None]) < 0.25

    def mixed(own: Image) -> Image:
        return np.fft.ifft2(np.where(low, np.fft.fft2(common), np.fft.fft2(own))).real

    for threshold in ("half-bit", "1/7"):
        assert ring_correlation(mixed(a), mixed(b), "boxcar").cutoff(threshold) == pytest.approx(0.25, abs=2 / 128)


def test_the_reference_scaled_or_blurred_is_no_hallucination(scene: Image) -> None:
    for gain, offset in ((1, 0), (0.3, 0), (1.5, 0.2), (0.8, -3)):
        found = hallucinations(gain * scene + offset, scene, 0.01)
        assert found.index.max() < 1e-12
        assert found.structured.mean() > 0.9
        assert (found.cutoff[found.structured] == 0.5).all()
    for sigma in (0.7, 1.5, 3.0):
        found = hallucinations(ndimage.gaussian_filter(scene, sigma), scene, 0.01)
        assert found.index.mean() < 0.01
        assert found.rate(0.2) == 0
        assert found.structured.mean() > 0.9


def test_independent_or_inverted_structure_is_hallucination(scene: Image) -> None:
    inverted = hallucinations(-scene, scene, 0.01)
    assert inverted.index[inverted.structured] == pytest.approx(1)
    assert inverted.rate() == inverted.structured.mean() > 0.9
    others = [white(scene.shape, 10), *(make(np.random.default_rng(11)) for make in SCENES.values())]
    # The steeper the spectrum, the fewer coefficients hold the energy, and the more agrees by chance.
    for other, least in zip(others, (0.94, 0.83, 0.86, 0.75), strict=True):
        found = hallucinations(other * scene.std() / other.std(), scene, 0.01)
        assert found.index[found.structured].mean() > least
        assert found.rate() > 0.9 * found.structured.mean()
        assert np.median(found.cutoff) == 1 / 32


def test_white_structure_has_the_share_that_theory_says() -> None:
    # O = R + H, all white: H explains h / (1 + h) of the energy of O.
    reference = white((256, 256), 12)
    for h in (0.25, 1.0):
        found = hallucinations(reference + white(reference.shape, 13, np.sqrt(h)), reference, 0.1, patch=64)
        # Chance makes H resemble R a little, and never adds.
        assert 0.86 < found.index.mean() / (h / (1 + h)) < 1
        assert 0.86 < np.mean(found.amplitude**2) / h < 1
    # All independent: only what agrees by chance is missing.
    assert hallucinations(white(reference.shape, 14), reference, 0.1).index.mean() > 0.9


def parts(output: Image, reference: Image) -> tuple[float, float]:
    """The index and its residual alone, for one patch, from the definition in numbers."""
    size = len(output)
    taper = np.outer(signal.windows.hann(size, sym=False), signal.windows.hann(size, sym=False))
    o, r = (np.fft.fft2((each - np.average(each, weights=taper)) * taper) for each in (output, reference))
    rings = np.array([[ring_of(i, j, size) for j in range(size)] for i in range(size)])
    hallucinated = residuals = total = 0.0
    for ring in range(1, rings.max() + 1):
        inside = rings == ring
        oo, rr = (float((np.abs(each[inside]) ** 2).sum()) for each in (o, r))
        shared = float((o[inside] * r[inside].conj()).sum().real)
        residual = oo - max(shared, 0) ** 2 / rr
        hallucinated += max(min(residual, oo - shared), 0)
        residuals += residual
        total += oo
    return hallucinated / total, residuals / total


def test_index_is_its_definition_and_forgives_texture_lost_beside_an_edge_that_is_kept() -> None:
    edges = 0.25 * dead_leaves(96, np.random.default_rng(15), 12).astype(np.float64)
    texture = 0.5 * power_law(96, 2, np.random.default_rng(16)).astype(np.float64)
    found = hallucinations(edges, edges + texture, 0.01)
    corners = [(row, column) for row in found.rows for column in found.columns]
    literal = [
        parts(*(image[row : row + 32, column : column + 32] for image in (edges, edges + texture)))
        for row, column in corners
    ]
    index, residual = (
        np.array(each).reshape(found.index.shape)[found.structured] for each in zip(*literal, strict=True)
    )
    assert found.index[found.structured] == pytest.approx(index, abs=1e-9)
    # One gain a ring takes the kept edge for new; the index mostly does not.
    assert (residual > 0.5).mean() > 0.6
    assert (index > 0.5).mean() < 0.15
    assert index.mean() < 0.4 * residual.mean()
    # The other way round the texture is invented.
    assert hallucinations(edges + texture, edges, 0.01).rate() > 0.7


def test_an_invented_blob_is_found_where_it_is(scene: Image) -> None:
    y, x = np.mgrid[:192, :192]
    blob = 0.5 * np.exp(-((y - 96) ** 2 + (x - 64) ** 2) / (2 * 2.5**2))
    found = hallucinations(scene + blob, scene, 0.01)
    row, column = np.unravel_index(found.amplitude.argmax(), found.amplitude.shape)
    assert (found.rows[row], found.columns[column]) == (80, 48)
    reached = (np.abs(found.rows[:, None] + 16 - 96) < 32) & (np.abs(found.columns[None] + 16 - 64) < 32)
    assert found.index[~reached].max() < 1e-9
    window = np.outer(signal.windows.hann(32, sym=False), signal.windows.hann(32, sym=False))
    part = blob[80:112, 48:80]
    part = part - np.average(part, weights=window)
    rms = np.sqrt((window**2 * part**2).sum() / (window**2).sum())
    assert 0.5 * rms < found.amplitude.max() < 1.1 * rms


def test_noise_that_is_known_is_not_hallucinated(scene: Image) -> None:
    noisy = scene + white(scene.shape, 17, 0.05)
    blind, told = hallucinations(noisy, scene, 0.02), hallucinations(noisy, scene, 0.02, noise=0.05)
    assert told.index.mean() < 0.35 * blind.index.mean()
    assert told.rate() < 0.02
    # Nothing but noise has no structure, but for one patch in hundreds; a blob in it has.
    noise = white((320, 320), 18, 0.05)
    flat = np.zeros_like(noise)
    assert hallucinations(noise, flat, 0, noise=0.05).structured.mean() < 0.01
    assert hallucinations(noise, flat, 0).rate() == 1
    assert np.mean(hallucinations(noise, flat, 0).amplitude ** 2) == pytest.approx(0.05**2, rel=0.03)
    line = np.exp(-((np.arange(noise.shape[0]) - 160) ** 2) / 18)
    blob = noise + line[:, None] * line
    assert hallucinations(blob, flat, 0, noise=0.05).index.max() > 0.9


def test_what_is_below_the_floor_is_not_hallucinated() -> None:
    faint = white((96, 96), 19, 0.01)
    assert hallucinations(faint, np.zeros((96, 96)), 0.013).rate() == 0
    assert hallucinations(faint, np.zeros((96, 96)), 0.007).rate() == 1
    nothing = hallucinations(np.ones((96, 96)), white((96, 96), 20), 0)
    assert nothing.rate() == 0
    assert not nothing.structured.any()


def test_patches_reach_every_border() -> None:
    image = white((70, 101), 21)
    found = hallucinations(image, image, 0.1, patch=32, step=20)
    assert list(found.rows) == [0, 20, 38]
    assert list(found.columns) == [0, 20, 40, 60, 69]
    assert found.index.shape == found.amplitude.shape == found.cutoff.shape == found.structured.shape == (3, 5)
    alone = hallucinations(image[38:, 69:], image[38:, 69:] + 1, 0.1)
    assert alone.index.shape == (1, 1)
    assert (hallucinations(image, image, 0.1).rows == [0, 16, 32, 38]).all()


def test_what_cannot_be_measured_is_refused() -> None:
    image = white((32, 32), 29)
    for wrong in (image[:31], image[None], np.full((32, 32), np.inf)):
        with pytest.raises(InputError):
            ring_correlation(image, wrong)
        with pytest.raises(InputError):
            hallucinations(image, wrong, 0.1)
    with pytest.raises(InputError, match="at least 8"):
        ring_correlation(image[:7], image[:7])
    with pytest.raises(InputError, match="at least 33"):
        hallucinations(image, image, 0.1, patch=33)
    with pytest.raises(UsageError, match="'hamm'"):
        ring_correlation(image, image, "hamm")
    with pytest.raises(UsageError, match="'half'"):
        ring_correlation(image, image).cutoff("half")
    for parameters in ({"floor": -1}, {"floor": 0, "noise": -1}, {"floor": 0, "patch": 7}, {"floor": 0, "step": 0}):
        with pytest.raises(UsageError):
            hallucinations(image, image, **parameters)
    with pytest.raises(UsageError, match="'2/7'"):
        hallucinations(image, image, 0, threshold="2/7")
