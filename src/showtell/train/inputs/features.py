"""Feature caches: outputs of the encoder's frozen stages for each photo, a memory-mapped float16 array.

    manifest.json   the origin of the features: encoder fingerprint, preprocessing, view
    features.f16    little-endian float16, one row a photo: grid features (G, D) where the whole encoder is frozen, outputs of
                    the third stage (H, W, C) where the fourth is trained; for ResNet-50 (49, 2048) and (14, 14, 1024)
    rows.sha256     32 bytes a row: the SHA-256 of the photo's bytes and, of a view, of its other inputs

A photo is known by its bytes alone. So data sets share a cache whatever their photos are called, and of a photo that was
added or changed the features are computed, and of no other. Rows are only ever appended, the features before the SHA-256: an
interrupted extraction resumes where it stopped, and several processes may fill one cache. A cache of another encoder, other
preprocessing or another view is refused. A bundle's int8 encoder can compute the grid features, so that the decoder is trained
on exactly the features that it gets in the product.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from showtell.arrays import Array
from showtell.bundle import Bundle
from showtell.data import PhotoStore
from showtell.errors import CacheError
from showtell.image import ImageSettings, Preprocessing
from showtell.nn.encoder import STAGES, Encoder
from showtell.progress import Progress, silent
from showtell.train.inputs.cache import Rows
from showtell.train.inputs.prefetch import prefetch
from showtell.train.inputs.views import DEFAULT_IMAGES, Augmentation, read_view

FORMAT = 2
# Names of the last stage's outputs in a cache's folder and manifest.
OUTPUTS = {3: "third-stage", STAGES: "grid"}


@dataclass(frozen=True)
class FeatureCache:
    """Features of named photos. `array` is (rows, ...) float16, memory-mapped; the shapes are above.

    `order` gives each photo's row where that is not its place among the names.
    """

    names: tuple[str, ...]
    array: Array
    order: Sequence[int] | None = None
    after_stage: int = STAGES  # the last stage of the encoder that is computed

    def rows(self, names: Sequence[str]) -> list[int]:
        """Row numbers of the named photos. Raises CacheError for a photo that was not extracted."""
        absent = [name for name in names if name not in self._index]
        if absent:
            raise CacheError(f"{len(absent)} photos are not in the feature cache, {absent[0]} among them")
        return [self._index[name] for name in names]

    @cached_property
    def _index(self) -> dict[str, int]:
        return dict(zip(self.names, self.order or range(len(self.names)), strict=True))


@dataclass(frozen=True)
class View:
    """Which view of each photo the features are of."""

    augmentation: Augmentation
    number: int


@dataclass(frozen=True)
class FeatureSource:
    """An encoder, or a bundle's int8 form of it, that computes features of photos or of one view of each.

    `after_stage` is the last stage that is computed, a key of OUTPUTS; a bundle computes all.
    """

    encoder: Encoder
    preprocessing: Preprocessing
    after_stage: int = STAGES
    view: View | None = None
    bundle: Bundle | None = None
    images: ImageSettings = DEFAULT_IMAGES

    def folder(self, root: Path) -> Path:
        """The cache's folder below `root`: one for each encoder, stage and view."""
        name = f"{self._fingerprint[:12]}-{OUTPUTS[self.after_stage]}"
        if self.view is not None:
            described = json.dumps(self.view.augmentation.describe(self.view.number), sort_keys=True)
            name += f"-view-{self.view.number}-{hashlib.sha256(described.encode()).hexdigest()[:8]}"
        return root / name

    def extract(
        self,
        folder: Path,
        photos: PhotoStore,
        names: Sequence[str],
        *,
        batch_size: int = 16,
        progress: Progress = silent,
        what: str = "features",
    ) -> FeatureCache:
        """Features of the named photos, computed as far as the cache in `folder` lacks them.

        `progress(what, done, total)` is called after each batch. Raises CacheError where `folder` holds a cache of another
        source, ImageError where a photo cannot be read.
        """
        rows = Rows(folder, self._manifest(), self._shape())
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            keys = dict(zip(names, pool.map(lambda name: self._key(photos.digest(name), name), names), strict=True))
        known = rows.places()
        alike: dict[bytes, list[str]] = defaultdict(list)
        for name, key in keys.items():
            if key not in known:
                alike[key].append(name)
        rows.check_room(len(alike))
        compute = _in_onnxruntime(self.bundle) if self.bundle else _in_torch(self.encoder, self.after_stage)
        finished = len(keys) - sum(map(len, alike.values()))
        progress(what, finished, len(keys))
        for batch, pixels in _batches(list(alike.values()), partial(self._read, photos, keys), batch_size):
            features = compute(pixels)
            if not np.isfinite(features).all() or np.abs(features).max() > np.finfo(np.float16).max:
                raise CacheError(
                    f"features of {batch[0][0]} or its neighbours do not fit float16: are the encoder's weights whole?"
                )
            rows.append([keys[same[0]] for same in batch], features)
            finished += sum(map(len, batch))
            progress(what, finished, len(keys))
        known = rows.places()
        return FeatureCache(tuple(names), rows.array(), [known[keys[name]] for name in names], self.after_stage)

    def _read(self, photos: PhotoStore, keys: dict[str, bytes], same: list[str]) -> Array:
        """Model input of photos of equal bytes; their keys become those of the bytes read now, should the file have changed."""
        name = same[0]
        data = photos.read(name)
        keys.update(dict.fromkeys(same, self._key(hashlib.sha256(data).digest(), name)))
        augmentation, number = (self.view.augmentation, self.view.number) if self.view else (None, 0)
        return self.preprocessing.normalize(read_view(data, name, self.preprocessing, augmentation, number, self.images))

    @cached_property
    def _fingerprint(self) -> str:
        return self.bundle.config.files["encoder.onnx"] if self.bundle else self.encoder.fingerprint()

    def _shape(self) -> tuple[int, ...]:
        """Of one photo's features."""
        side, config = self.preprocessing.size // 32, self.encoder.config
        if self.after_stage == STAGES:
            return side * side, config.channels
        sides = side * 2 ** (STAGES - self.after_stage)
        return sides, sides, config.stage_channels(self.after_stage)

    def _manifest(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "encoder": self._fingerprint,
            "preprocessing": asdict(self.preprocessing),
            **({} if self.view is None else {"view": self.view.augmentation.describe(self.view.number)}),
            "output": OUTPUTS[self.after_stage],
        }

    def _key(self, digest: bytes, name: str) -> bytes:
        """A photo's key, from the SHA-256 of its bytes; that of a view also depends on the photo's name."""
        if self.view is None:
            return digest
        sided = name in self.view.augmentation.sided
        return hashlib.sha256(digest + f"{sided}/{name}".encode("utf-8", "surrogateescape")).digest()


def _in_onnxruntime(bundle: Bundle) -> Callable[[Array], Array]:
    """Model input float32 (B, 3, size, size) to grid features, float32."""
    from showtell.runtime.cpu import available_cpus  # only here: training otherwise does without onnxruntime and its threads
    from showtell.runtime.sessions import OnnxEncoder

    return OnnxEncoder(bundle.folder, available_cpus(), "cpu")


def _in_torch(encoder: Encoder, after_stage: int) -> Callable[[Array], Array]:
    """Model input float32 (B, 3, size, size) to grid features or a stage's outputs, float32."""
    network = encoder.eval()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a form that torch documents and its stubs lack
    device = next(encoder.parameters()).device

    def compute(pixels: Array) -> Array:
        batch = torch.from_numpy(pixels).to(device, memory_format=torch.channels_last)
        with torch.inference_mode():
            outputs = network(batch) if after_stage == STAGES else network.first_stages(batch, after_stage)
            if after_stage < STAGES:  # channels last on disk, as the next stage's convolutions like them
                outputs = outputs.permute(0, 2, 3, 1)
            features: Array = outputs.float().cpu().numpy()
            return features

    return compute


def _batches(
    todo: Sequence[list[str]], read: Callable[[list[str]], Array], batch_size: int
) -> Iterator[tuple[Sequence[list[str]], Array]]:
    """(equal photos, pixels) batch by batch; a thread decodes the next batch meanwhile."""
    chunks = [todo[start : start + batch_size] for start in range(0, len(todo), batch_size)]

    def load(chunk: Sequence[list[str]]) -> tuple[Sequence[list[str]], Array]:
        return chunk, np.stack([read(same) for same in chunk])

    return prefetch(map(load, chunks))
