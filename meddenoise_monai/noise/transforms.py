"""MONAI dictionary transforms that corrupt images: the same at every access, at random, or not if they are paired."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform, Randomizable, RandomizableTransform, Transform
from torch import Tensor

from ..errors import UsageError
from .models import MEANINGS, POSITIVE, NoiseModel, SeededNoise, image_seed, model_class

__all__ = ["Noised", "RandNoised", "UnlessPairedd"]


def _as_tensor(image: Any) -> Tensor:
    # torch.as_tensor would copy a MetaTensor's metadata and warn of read-only arrays.
    return image if isinstance(image, Tensor) else torch.tensor(image)


class Noised(MapTransform):
    """Corrupt images the same in every epoch, worker, order and batch: for validation and test.

    Parameters
    ----------
    keys
        Keys of images, as in MONAI; arrays come back as tensors.
    noise
        The model; in a config ``{"_target_": "meddenoise_monai.noise.GaussianNoise", "sigma": 0.1}``.
    seed
        Noise is a function of this and the image's content, see `image_seed`.
    allow_missing_keys
        Whether an item may lack a key.

    Raises
    ------
    UsageError
        If `noise` is not a noise model or `seed` is not an integer.
    """

    noise: NoiseModel
    seed: int

    def __init__(
        self, keys: KeysCollection, noise: NoiseModel, seed: int = 0, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not isinstance(noise, NoiseModel) or isinstance(noise, type):
            raise UsageError(f"Noised: noise must be a noise model, got {noise!r}", "give GaussianNoise(0.1), say")
        if not isinstance(seed, Integral) or isinstance(seed, bool):
            raise UsageError(f"Noised: seed must be an integer, got {seed!r}", "give 0, say")
        self.noise = noise
        self.seed = int(seed)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the item with its images corrupted."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = _as_tensor(item[key])
            item[key] = self.noise.apply(image, image_seed(image, self.seed))
        return item


class RandNoised(RandomizableTransform, MapTransform):
    """Corrupt images with noise whose parameters are drawn anew at every call: for training.

    After a call, ``self.noise`` and ``self.noise_seed`` are what was applied (`noise` is None where chance left the
    image alone): ``transform.noise.apply(image, transform.noise_seed)`` gives the same again.

    Parameters
    ----------
    keys
        Keys of images, as in MONAI; all keys of an item get the same noise, and arrays come back as tensors.
    model
        A name of `NOISE_MODELS`.
    prob
        Probability of corrupting, on [0, 1].
    allow_missing_keys
        Whether an item may lack a key.
    **ranges
        Each parameter of the model as a number, or as a pair ``(low, high)`` to draw from: uniformly, but `photons`,
        `rate` and `elongation` uniformly in their logarithm. ``clip`` is true or false.

    Raises
    ------
    UsageError
        If the model, a parameter, a range or `prob` is unknown, missing or out of bounds.
    """

    noise: NoiseModel | None
    noise_seed: int
    _model: type[SeededNoise]
    _fixed: dict[str, Any]
    _ranges: dict[str, tuple[float, float]]

    def __init__(
        self, keys: KeysCollection, model: str, prob: float = 1.0, allow_missing_keys: bool = False, **ranges: Any
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if not isinstance(prob, Real) or not 0 <= prob <= 1:
            raise UsageError(f"RandNoised: prob must be on [0, 1], got {prob!r}", "1 corrupts every image")
        RandomizableTransform.__init__(self, float(prob))
        self._model = model_class(model, ranges)
        self._ranges = {
            name: value for name, value in ranges.items() if isinstance(value, list | tuple) and name != "clip"
        }
        self._fixed = {name: value for name, value in ranges.items() if name not in self._ranges}
        for name, value in self._ranges.items():
            if len(value) != 2:
                raise UsageError(f"RandNoised: {name} must be a number or (low, high), got {value!r}", MEANINGS[name])
        # The checks are bounds, so whatever lies between two valid ends is valid when it is drawn.
        for end in (0, 1):
            self._model(**self._fixed, **{name: value[end] for name, value in self._ranges.items()})
        for name, (low, high) in self._ranges.items():
            if low > high:
                raise UsageError(f"RandNoised: {name} must be (low, high), got {(low, high)}", "swap the two numbers")
        self.noise = None
        self.noise_seed = 0

    def randomize(self, data: Any = None) -> None:
        """Draw whether to corrupt, and then a noise model and its seed; the image plays no part."""
        super().randomize(None)
        self.noise = None
        if not self._do_transform:
            return
        drawn: dict[str, Any] = {}
        for name, (low, high) in self._ranges.items():
            if name in POSITIVE:
                # Rounding in exp and log must not carry the value over an end.
                drawn[name] = min(max(math.exp(self.R.uniform(math.log(low), math.log(high))), low), high)
            else:
                drawn[name] = float(self.R.uniform(low, high))
        self.noise = self._model(**self._fixed, **drawn)
        self.noise_seed = int(self.R.randint(2**32, dtype=np.int64))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the item with its images corrupted, or not, by chance `prob`."""
        item = dict(data)
        self.randomize()
        for key in self.key_iterator(item):
            image = _as_tensor(item[key])
            item[key] = self.noise.apply(image, self.noise_seed) if self.noise else image
        return item


class UnlessPairedd(Randomizable, Transform):
    """Apply `transform` unless the item is flagged: a real noisy/clean pair gets no synthetic noise.

    Parameters
    ----------
    transform
        A dictionary transform, random or not, such as MONAI's RandGaussianNoised.
    flag
        Key of the flag; an item that lacks it is not paired.

    Raises
    ------
    UsageError
        If `transform` cannot be called.
    """

    def __init__(self, transform: Callable[[Any], Any], flag: Hashable = "paired") -> None:
        if not callable(transform):
            raise UsageError(f"UnlessPairedd: transform must be callable, got {transform!r}", "give a transform")
        self.transform = transform
        self.flag = flag

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> UnlessPairedd:
        """Pass the random state on, so that Compose, set_determinism and DataLoader workers reach `transform`."""
        super().set_random_state(seed, state)
        if isinstance(self.transform, Randomizable):
            self.transform.set_random_state(seed, state)
        return self

    def randomize(self, data: Any = None) -> None:
        """Have `transform`, if it is random, draw its parameters."""
        if isinstance(self.transform, Randomizable):
            self.transform.randomize(data)

    def __call__(self, data: Mapping[Hashable, Any]) -> Any:
        """Return the transformed item, or a copy of a flagged one."""
        return dict(data) if data.get(self.flag) else self.transform(data)
