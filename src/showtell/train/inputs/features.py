"""What the frozen part of the encoder makes of each photo, computed once and kept: a memory-mapped float16 array.

    manifest.json   what the features are of: encoder fingerprint, preprocessing, view
    features.f16    little-endian float16, one row a photo: grid features (49, 2048) where the whole encoder is frozen, or
                    their mean (1, 2048) for a decoder that needs no more; outputs of the third stage (14, 14, 1024) or the
                    second (28, 28, 512) where the stages after it are trained
    rows.sha256     32 bytes a row: the SHA-256 of the photo's bytes; of a view also of what it depends on besides

A photo is known by its bytes alone. So data sets share a cache whatever their photos are called, and of a photo that was
added or changed the features are computed, and of no other. Rows are only ever appended, the features before the SHA-256: an
interrupted extraction goes on where it stopped, and several processes may fill one cache. A cache of another encoder, other
preprocessing or another view is refused. Grid features can also be those of a bundle's int8 encoder, which are a little off the
float32 ones: a decoder trained on them has seen what it will get.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from showtell.bundle import Bundle
from showtell.data import PhotoStore
from showtell.errors import CacheError
from showtell.image import Array, ImageSettings, Preprocessing
from showtell.nn.encoder import STAGES, Encoder
from showtell.train.inputs.cache import Rows
from showtell.train.inputs.views import DEFAULT_IMAGES, Augmentation, read_view

FORMAT = 2
Output = Literal["grid", "pooled", "third-stage", "second-stage"]
OUTPUT_STAGES: dict[Output, int] = {"third-stage": 3, "second-stage": 2}


@dataclass(frozen=True)
class FeatureCache:
    """Features of named photos. `array` is (rows, ...) float16, memory-mapped; the shapes are above.

    `order` gives each photo's row where that is not its place among the names.
    """

    names: tuple[str, ...]
    array: Array
    order: Sequence[int] | None = None

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


def cache_folder(
    root: Path | None, encoder: Encoder, output: Output = "grid", view: View | None = None, bundle: Bundle | None = None
) -> Path:
    """One folder for each encoder, kind of output and view, below `root` or the user's cache."""
    name = f"{_fingerprint(encoder, bundle)[:12]}-{output}"
    if view is not None:
        described = json.dumps(view.augmentation.describe(view.number), sort_keys=True)
        name += f"-view-{view.number}-{hashlib.sha256(described.encode()).hexdigest()[:8]}"
    return cache_root(root) / name


def cache_root(root: Path | None) -> Path:
    """`root`, or the user's cache of features."""
    return root or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "showtell" / "features"


def extract(
    folder: Path,
    encoder: Encoder,
    preprocessing: Preprocessing,
    photos: PhotoStore,
    names: Sequence[str],
    *,
    output: Output = "grid",
    view: View | None = None,
    bundle: Bundle | None = None,
    grid: Path | None = None,
    images: ImageSettings = DEFAULT_IMAGES,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureCache:
    """Features of the named photos, or of a view of each, from the cache in `folder` as far as it has them.

    With `bundle`, its encoder computes them, of which `encoder` is the form that was trained; "grid" and "pooled" alone.
    Where `grid` is the folder of a cache of the same encoder's grid features, pooled ones are made from these as far as it
    has them. `progress(done, total)` is called after each batch. Raises CacheError where `folder` holds a cache of something
    else, ImageError where a photo cannot be read.
    """
    side, channels = preprocessing.size // 32, encoder.config.channels
    if output in OUTPUT_STAGES:
        sides = side * 2 ** (STAGES - OUTPUT_STAGES[output])
        shape: tuple[int, ...] = (sides, sides, encoder.config.stage_channels(OUTPUT_STAGES[output]))
    else:
        shape = (side * side if output == "grid" else 1, channels)
    manifest = {
        "format": FORMAT,
        "encoder": _fingerprint(encoder, bundle),
        "preprocessing": asdict(preprocessing),
        **({} if view is None else {"view": view.augmentation.describe(view.number)}),
    }
    rows = Rows(folder, {**manifest, "output": output}, shape)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        keys = dict(zip(names, pool.map(lambda name: _key(photos.digest(name), name, view), names), strict=True))
    if output == "pooled" and grid is not None and grid.exists():
        _pool(rows, Rows(grid, {**manifest, "output": "grid"}, (side * side, channels)), list(keys.values()))
    known = rows.places()
    alike: dict[bytes, list[str]] = defaultdict(list)
    for name, key in keys.items():
        if key not in known:
            alike[key].append(name)
    rows.check_room(len(alike))
    compute = _in_onnxruntime(bundle) if bundle else _in_torch(encoder, output)
    finished = len(keys) - sum(map(len, alike.values()))
    if progress:
        progress(finished, len(keys))

    def read(same: list[str]) -> Array:
        name = same[0]
        data = photos.read(name)
        # By what is read now, should the file have changed since.
        keys.update(dict.fromkeys(same, _key(hashlib.sha256(data).digest(), name, view)))
        number = view.number if view else 0
        augmentation = view.augmentation if view else None
        return preprocessing.normalize(read_view(data, name, preprocessing, augmentation, number, images))

    for batch, pixels in _batches(list(alike.values()), read, batch_size):
        features = compute(pixels)
        if output == "pooled":
            features = features.mean(1, keepdims=True)
        if not np.isfinite(features).all() or np.abs(features).max() > np.finfo(np.float16).max:
            raise CacheError(
                f"features of {batch[0][0]} or its neighbours do not fit float16: are the encoder's weights whole?"
            )
        rows.append([keys[same[0]] for same in batch], features)
        finished += sum(map(len, batch))
        if progress:
            progress(finished, len(keys))
    known = rows.places()
    return FeatureCache(tuple(names), rows.array(), [known[keys[name]] for name in names])


def _in_onnxruntime(bundle: Bundle) -> Callable[[Array], Array]:
    """Model input float32 (B, 3, size, size) to grid features, float32."""
    from showtell.runtime.cpu import available_cpus  # only here: training otherwise does without onnxruntime and its threads
    from showtell.runtime.sessions import OnnxEncoder

    return OnnxEncoder(bundle.folder, available_cpus(), "cpu")


def _in_torch(encoder: Encoder, output: Output) -> Callable[[Array], Array]:
    """Model input float32 (B, 3, size, size) to grid features or a stage's outputs, float32."""
    network = encoder.eval()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a form that torch documents and its stubs lack
    device = next(encoder.parameters()).device

    def compute(pixels: Array) -> Array:
        batch = torch.from_numpy(pixels).to(device, memory_format=torch.channels_last)
        with torch.inference_mode():
            # A stage's outputs are channels last on disk, as the next stage's convolutions like them.
            if output in OUTPUT_STAGES:
                found = network.first_stages(batch, OUTPUT_STAGES[output]).permute(0, 2, 3, 1)
            else:
                found = network(batch)
            features: Array = found.float().cpu().numpy()
            return features

    return compute


def _fingerprint(encoder: Encoder, bundle: Bundle | None) -> str:
    """What tells the features of one encoder from those of another."""
    return str(bundle.config["files"]["encoder.onnx"]) if bundle else encoder.fingerprint()


def _key(digest: bytes, name: str, view: View | None) -> bytes:
    """What a photo's features are known by, given the SHA-256 of its bytes: a view depends on the photo's name besides."""
    if view is None:
        return digest
    sided = name in view.augmentation.sided
    return hashlib.sha256(digest + f"{sided}/{name}".encode("utf-8", "surrogateescape")).digest()


def _batches(
    todo: Sequence[list[str]], read: Callable[[list[str]], Array], batch_size: int
) -> Iterator[tuple[Sequence[list[str]], Array]]:
    """(equal photos, pixels) batch by batch; while one is worked on, a thread decodes the next."""
    chunks = [todo[start : start + batch_size] for start in range(0, len(todo), batch_size)]
    with ThreadPoolExecutor(1) as pool:

        def load(chunk: Sequence[list[str]]) -> Array:
            return np.stack([read(same) for same in chunk])

        ahead = [pool.submit(load, chunk) for chunk in chunks[:1]]
        for number, chunk in enumerate(chunks):
            if number + 1 < len(chunks):
                ahead.append(pool.submit(load, chunks[number + 1]))
            yield chunk, ahead.pop(0).result()


def _pool(rows: Rows, grid: Rows, keys: Sequence[bytes]) -> None:
    """Adds the pooled features of those keys whose grid features are there."""
    known, found = rows.places(), grid.places()
    todo = [key for key in dict.fromkeys(keys) if key not in known and key in found]
    for start in range(0, len(todo), 256):
        chunk = todo[start : start + 256]
        rows.append(chunk, grid.array()[[found[key] for key in chunk]].mean(1, keepdims=True, dtype=np.float32))
