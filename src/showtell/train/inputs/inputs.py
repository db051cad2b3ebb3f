"""Photos as a training step reads them: cached features, or pixels where there is no cache.

Either may have several views of each train photo (see `views`); view 0 is the photo itself and what validation sees.

Shapes: B photos, G grid cells, D feature channels.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from showtell.arrays import Array
from showtell.data import PhotoStore
from showtell.image import ImageSettings, Preprocessing
from showtell.nn.encoder import STAGES, StagedEncoder
from showtell.nn.model import CaptionModel
from showtell.train.inputs.features import FeatureCache
from showtell.train.inputs.views import DEFAULT_IMAGES, Augmentation, read_view


@dataclass(frozen=True)
class Reading:
    """Photos as far as they are encoded: pixels, the outputs of a stage, or grid features."""

    array: Array  # (B, ...): uint8 pixels (B, size, size, 3), float16 stage outputs (B, H, W, C) or grid features (B, G, D)
    after_stage: int  # the last stage of the encoder that is computed: 0 for pixels, STAGES for grid features


class Inputs(Protocol):
    """Photos by name, encoded as far as the encoder is frozen."""

    @property
    def views(self) -> int:
        """Number of views of each train photo."""

    def read(self, names: Sequence[str], views: Array | None = None) -> Reading:
        """The named photos, in the views of these numbers (B,); by default view 0, the unchanged photo."""


class CachedInputs:
    """Cached features: one cache for each view, that of the unchanged photos first."""

    def __init__(self, caches: Sequence[FeatureCache]) -> None:
        self._caches = caches

    @property
    def views(self) -> int:
        """See Inputs."""
        return len(self._caches)

    def read(self, names: Sequence[str], views: Array | None = None) -> Reading:
        """See Inputs. float16."""
        plain = self._caches[0]
        if views is None or not views.any():
            return Reading(plain.array[plain.rows(names)], plain.after_stage)
        features = np.empty((len(names), *plain.array.shape[1:]), plain.array.dtype)
        for view in np.unique(views):
            places = np.flatnonzero(views == view)
            cache = self._caches[int(view)]
            features[places] = cache.array[cache.rows([names[int(place)] for place in places])]
        return Reading(features, plain.after_stage)


class PixelInputs:
    """Pixels: photos are read, augmented and resized at each call."""

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

    def read(self, names: Sequence[str], views: Array | None = None) -> Reading:
        """See Inputs. Pixels. Raises ImageError where a photo cannot be read."""
        numbers = [0] * len(names) if views is None else [int(view) for view in views]
        pixels = np.empty((len(names), self._preprocessing.size, self._preprocessing.size, 3), np.uint8)
        for place, photo in enumerate(self._pool.map(self._read, names, numbers)):
            pixels[place] = photo
        return Reading(pixels, 0)

    def _read(self, name: str, view: int) -> Array:
        return read_view(self._photos.read(name), name, self._preprocessing, self._augmentation, view, self._images)


def grid_features(model: CaptionModel, reading: Reading, dtype: torch.dtype = torch.float32) -> Tensor:
    """Grid features (B, G, D) of photos, on the encoder's device: the stages that `reading` lacks are computed.

    Those that need none are in `dtype`.
    """
    encoder = model.encoder
    x = torch.from_numpy(reading.array).to(next(encoder.parameters()).device)
    if reading.after_stage == STAGES:
        return x.to(dtype)
    if reading.after_stage == 0:
        return encoder(_normalized(x, model.preprocessing))  # type: ignore[no-any-return]
    assert isinstance(encoder, StagedEncoder)  # the only ones that stop after a stage
    x = x.float().permute(0, 3, 1, 2)  # the shape that torch wants; in memory channels stay last, as convolutions like them
    return encoder.last_stages(x, reading.after_stage + 1)


def _normalized(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """What Preprocessing.normalize makes of uint8 RGB (B, size, size, 3), on the pixels' device."""
    scale, mean, std = (
        pixels.new_tensor(each, dtype=torch.float32) for each in (preprocessing.scale, preprocessing.mean, preprocessing.std)
    )
    channels = pixels.flip(-1) if preprocessing.channel_order == "bgr" else pixels
    return (channels * (scale / std) - mean / std).permute(0, 3, 1, 2)
