"""What a training step is given of its photos: features from a cache, or pixels where there is no cache to be had.

Either may have several views of each train photo (see `views`); view 0 is the photo itself and what validation sees.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from showtell.data import PhotoStore
from showtell.decoding import Array
from showtell.image import ImageSettings, Preprocessing
from showtell.train.inputs.features import FeatureCache
from showtell.train.inputs.views import DEFAULT_IMAGES, Augmentation, read_view


class Inputs(Protocol):
    """Photos by name, as the first part of the network to be computed wants them."""

    @property
    def views(self) -> int:
        """How many views there are of each train photo."""

    def read(self, names: Sequence[str], views: Array | None = None) -> Array:
        """Features or pixels (B, ...) of the named photos, in the views of these numbers (B,), or as they are.

        The shape says what they are: grid features (B, 49, 2048), a stage's outputs (B, H, W, channels) or pixels uint8
        (B, H, W, 3); see validation.grid_features.
        """


class CachedInputs:
    """Features that were computed before: one cache for each view, that of the plain photos first."""

    def __init__(self, caches: Sequence[FeatureCache]) -> None:
        self._caches = caches

    @property
    def views(self) -> int:
        """See Inputs."""
        return len(self._caches)

    def read(self, names: Sequence[str], views: Array | None = None) -> Array:
        """See Inputs. float16."""
        plain = self._caches[0]
        if views is None or not views.any():
            return plain.array[plain.rows(names)]
        found = np.empty((len(names), *plain.array.shape[1:]), plain.array.dtype)
        for view in np.unique(views):
            places = np.flatnonzero(views == view)
            cache = self._caches[int(view)]
            found[places] = cache.array[cache.rows([names[int(place)] for place in places])]
        return found


class PixelInputs:
    """Photos read, augmented and resized when they are asked for."""

    def __init__(
        self,
        photos: PhotoStore,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
        views: int = 1,
        images: ImageSettings = DEFAULT_IMAGES,
    ) -> None:
        self._photos = photos
        self._preprocessing = preprocessing
        self._augmentation = augmentation
        self._images = images
        self._pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        self.views = views

    def read(self, names: Sequence[str], views: Array | None = None) -> Array:
        """See Inputs. uint8 (B, size, size, 3). Raises ImageError where a photo cannot be read."""
        numbers = [0] * len(names) if views is None else [int(view) for view in views]
        pixels = np.empty((len(names), self._preprocessing.size, self._preprocessing.size, 3), np.uint8)
        for place, photo in enumerate(self._pool.map(self._read, names, numbers)):
            pixels[place] = photo
        return pixels

    def _read(self, name: str, view: int) -> Array:
        return read_view(self._photos.read(name), name, self._preprocessing, self._augmentation, view, self._images)


@dataclass(frozen=True)
class PhasedInputs:
    """Inputs that change when the encoder begins to be trained: until then what the whole of it made is good."""

    frozen: Inputs
    tuned: Inputs
    from_epoch: int

    def at(self, epoch: int) -> Inputs:
        """Those of the epoch, counted from 1."""
        return self.tuned if epoch >= self.from_epoch else self.frozen
