"""What the frozen part of the encoder makes of each photo, computed once and kept: a memory-mapped float16 array.

    manifest.json   what the features are of: encoder fingerprint, preprocessing, photo names and sizes in row order
    features.f16    little-endian float16: grid features (photos, 49, 2048) where the whole encoder is frozen, or their mean
                    (photos, 1, 2048) for a decoder that needs no more; outputs of the third stage (photos, 14, 14, 1024) or
                    the second (photos, 28, 28, 512) where the stages after it are trained
    done.u8         one byte a photo, 1 once its row is on disk

An interrupted extraction goes on where it stopped. A cache of another encoder, other preprocessing, other photos or other
views of them is refused, never mixed. Grid features can also be those of a bundle's int8 encoder, which are a little off the
float32 ones: a decoder trained on them has seen what it will get.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from showtell.bundle import Bundle
from showtell.data import PhotoStore
from showtell.errors import CacheError
from showtell.files import write_json
from showtell.image import Array, Preprocessing
from showtell.nn.resnet import ResNet
from showtell.train.views import Augmentation, read_view

FORMAT = 1
Output = Literal["grid", "pooled", "third-stage", "second-stage"]
STAGES: dict[Output, int] = {"third-stage": 3, "second-stage": 2}


@dataclass(frozen=True)
class FeatureCache:
    """Features of named photos. `array` is (photos, ...) float16, memory-mapped; the shapes are above."""

    names: tuple[str, ...]
    array: Array

    def rows(self, names: Sequence[str]) -> list[int]:
        """Row numbers of the named photos. Raises CacheError for a photo that was not extracted."""
        absent = [name for name in names if name not in self._index]
        if absent:
            raise CacheError(f"{len(absent)} photos are not in the feature cache, {absent[0]} among them")
        return [self._index[name] for name in names]

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}


@dataclass(frozen=True)
class View:
    """Which view of each photo the features are of."""

    augmentation: Augmentation
    number: int


def cache_folder(
    root: Path | None,
    encoder: ResNet,
    names: Sequence[str],
    output: Output = "grid",
    view: View | None = None,
    bundle: Bundle | None = None,
) -> Path:
    """One folder for each encoder, list of photos, kind of output and view, below `root` or the user's cache."""
    if root is None:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "showtell" / "features"
    name = f"{_fingerprint(encoder, bundle)[:12]}-{_digest(names)[:12]}-{output}"
    if view is not None:
        described = json.dumps(view.augmentation.describe(view.number), sort_keys=True)
        name += f"-view-{view.number}-{_digest([described])[:8]}"
    return root / name


def extract(
    folder: Path,
    encoder: ResNet,
    preprocessing: Preprocessing,
    photos: PhotoStore,
    names: Sequence[str],
    *,
    output: Output = "grid",
    view: View | None = None,
    bundle: Bundle | None = None,
    grid: Path | None = None,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureCache:
    """Features of the named photos, or of a view of each, from the cache in `folder` as far as it has them.

    With `bundle`, its encoder computes them, of which `encoder` is the form that was trained; "grid" and "pooled" alone.
    Where `grid` is the folder of a finished cache of the same photos' grid features, pooled ones are made from these instead
    of from the photos. `progress(done, total)` is called after each batch. Raises CacheError where `folder` holds a cache of
    something else, ImageError where a photo cannot be read.
    """
    side, channels = preprocessing.size // 32, encoder.config.channels
    if output in STAGES:
        sides = side * 2 ** (len(encoder.config.blocks) - STAGES[output])
        shape: tuple[int, ...] = (len(names), sides, sides, encoder.config.stage_channels(STAGES[output]))
    else:
        shape = (len(names), side * side if output == "grid" else 1, channels)
    manifest = {
        "format": FORMAT,
        "encoder": _fingerprint(encoder, bundle),
        "preprocessing": _plain(asdict(preprocessing)),
        "output": output,
        "shape": list(shape),
        "dtype": "float16",
        "names": list(names),
        "sizes": [photos.size(name) for name in names],
        **({} if view is None else {"view": view.augmentation.describe(view.number)}),
    }
    array, done = _open(folder, manifest, shape)
    if output == "pooled" and grid is not None and not done.all():
        _pool(grid, manifest, array, done)
    todo = np.flatnonzero(done == 0)
    compute = _in_onnxruntime(bundle) if bundle else _in_torch(encoder, output)
    finished = len(names) - len(todo)
    if progress:
        progress(finished, len(names))

    def read(row: int) -> Array:
        number = view.number if view else 0
        augmentation = view.augmentation if view else None
        return preprocessing.normalize(read_view(photos, names[row], preprocessing, augmentation, number))

    for rows, pixels in _batches(todo, read, batch_size):
        features = compute(pixels)
        if output == "pooled":
            features = features.mean(1, keepdims=True)
        if not np.isfinite(features).all() or np.abs(features).max() > np.finfo(np.float16).max:
            raise CacheError(
                f"features of {names[rows[0]]} or its neighbours do not fit float16: are the encoder's weights whole?"
            )
        array[rows] = features
        array.flush()  # the rows must be on disk before they are marked as done
        done[rows] = 1
        done.flush()
        finished += len(rows)
        if progress:
            progress(finished, len(names))
    return FeatureCache(tuple(names), np.memmap(folder / "features.f16", "<f2", "r", shape=shape))


def _in_onnxruntime(bundle: Bundle) -> Callable[[Array], Array]:
    """Model input float32 (B, 3, size, size) to grid features, float32."""
    from showtell.runtime.cpu import available_cpus  # only here: training otherwise does without onnxruntime and its threads
    from showtell.runtime.models import OnnxEncoder

    return OnnxEncoder(bundle.folder, available_cpus(), "cpu")


def _in_torch(encoder: ResNet, output: Output) -> Callable[[Array], Array]:
    """Model input float32 (B, 3, size, size) to grid features or a stage's outputs, float32."""
    network = encoder.eval()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a form that torch documents and its stubs lack
    device = next(encoder.parameters()).device

    def compute(pixels: Array) -> Array:
        batch = torch.from_numpy(pixels).to(device, memory_format=torch.channels_last)
        with torch.inference_mode():
            # A stage's outputs are channels last on disk, as the next stage's convolutions like them.
            found = network.first_stages(batch, STAGES[output]).permute(0, 2, 3, 1) if output in STAGES else network(batch)
            features: Array = found.float().cpu().numpy()
            return features

    return compute


def _fingerprint(encoder: ResNet, bundle: Bundle | None) -> str:
    """What tells the features of one encoder from those of another."""
    return str(bundle.config["files"]["encoder.onnx"]) if bundle else encoder.fingerprint()


def _batches(todo: Array, read: Callable[[int], Array], batch_size: int) -> Iterator[tuple[Array, Array]]:
    """(rows, pixels) batch by batch; while one is worked on, a thread decodes the next."""
    chunks = [todo[start : start + batch_size] for start in range(0, len(todo), batch_size)]
    with ThreadPoolExecutor(1) as pool:

        def load(rows: Array) -> Array:
            return np.stack([read(int(row)) for row in rows])

        ahead = [pool.submit(load, chunk) for chunk in chunks[:1]]
        for number, chunk in enumerate(chunks):
            if number + 1 < len(chunks):
                ahead.append(pool.submit(load, chunks[number + 1]))
            yield chunk, ahead.pop(0).result()


def _pool(folder: Path, manifest: dict[str, Any], array: Any, done: Any) -> None:
    """Fills a cache of pooled features from that of grid features in `folder`, if this is finished and of the same photos."""
    try:
        found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        finished = np.fromfile(folder / "done.u8", "u1").all()
    except (OSError, ValueError):
        return
    apart = ("output", "shape")
    if not finished or any(found.get(key) != value for key, value in manifest.items() if key not in apart):
        return
    grid = np.memmap(folder / "features.f16", "<f2", "r", shape=tuple(found["shape"]))
    for start in range(0, len(array), 256):
        array[start : start + 256] = grid[start : start + 256].mean(1, keepdims=True, dtype=np.float32)
    array.flush()
    done[:] = 1
    done.flush()


def _open(folder: Path, manifest: dict[str, Any], shape: tuple[int, ...]) -> tuple[Any, Any]:
    """The feature and done arrays of a cache, newly made or continued."""
    path = folder / "manifest.json"
    mode: Literal["r+", "w+"] = "r+"
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CacheError(f"{path}: broken ({error}); delete the folder to extract the features again") from None
        for key in {**manifest, **found}:
            value = manifest.get(key)
            if found.get(key) != value:
                what = "" if key in ("names", "sizes") else f" ({found.get(key)!r}, now {value!r})"
                raise CacheError(f"{folder}: a feature cache with another {key}{what}; give another folder or delete this one")
    else:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(f"{folder}: cannot be made ({error.strerror}); choose another feature cache folder") from None
        if {entry.name for entry in folder.iterdir()} - {"features.f16", "done.u8"}:
            raise CacheError(f"{folder}: not empty and not a feature cache; give another folder")
        needed, free = 2 * math.prod(shape), shutil.disk_usage(folder).free
        if free < needed:  # writing past the end of the disk through a memory map would kill the process
            raise CacheError(
                f"{folder}: {free / 1e6:.0f} MB are free and the features will take {needed / 1e6:.0f} MB; "
                "make room or choose another feature cache folder"
            )
        mode = "w+"
    array = np.memmap(folder / "features.f16", "<f2", mode, shape=shape)
    done = np.memmap(folder / "done.u8", "u1", mode, shape=shape[:1])
    if mode == "w+":
        write_json(path, manifest)  # last, so that a manifest always has its arrays beside it
    return array, done


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """The value as JSON gives it back, tuples as lists."""
    return json.loads(json.dumps(value))
