"""What the frozen part of the encoder makes of each photo, computed once and kept: a memory-mapped float16 array.

    manifest.json   what the features are of: encoder fingerprint, preprocessing, photo names and sizes in row order
    features.f16    little-endian float16: grid features (photos, 49, 2048) where the whole encoder is frozen, outputs of the
                    third stage (photos, 14, 14, 1024) where the last one is trained
    done.u8         one byte a photo, 1 once its row is on disk

An interrupted extraction goes on where it stopped. A cache of another encoder, other preprocessing or other photos is
refused, never mixed.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from showtell.data import PhotoStore
from showtell.errors import CacheError
from showtell.files import write_json
from showtell.image import Array, Preprocessing, read_photo
from showtell.nn.resnet import ResNet

FORMAT = 1
Output = Literal["grid", "third-stage"]


@dataclass(frozen=True)
class FeatureCache:
    """Features of named photos. `array` is (photos, 49, 2048) or (photos, 14, 14, 1024) float16, memory-mapped."""

    names: tuple[str, ...]
    array: Array

    def rows(self, names: Sequence[str]) -> list[int]:
        """Row numbers of the named photos. Raises CacheError for a photo that was not extracted."""
        index = {name: row for row, name in enumerate(self.names)}
        absent = [name for name in names if name not in index]
        if absent:
            raise CacheError(f"{len(absent)} photos are not in the feature cache, {absent[0]} among them")
        return [index[name] for name in names]


def default_cache(encoder: ResNet, names: Sequence[str], output: Output = "grid") -> Path:
    """Where features go unless told otherwise: one folder for each encoder, list of photos and kind of output."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    photos = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return root / "showtell" / "features" / f"{encoder.fingerprint()[:12]}-{photos[:12]}-{output}"


def extract(
    folder: Path,
    encoder: ResNet,
    preprocessing: Preprocessing,
    photos: PhotoStore,
    names: Sequence[str],
    *,
    output: Output = "grid",
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureCache:
    """Features of the named photos, from the cache in `folder` as far as it has them.

    `progress(done, total)` is called after each batch. Raises CacheError where `folder` holds a cache of something else,
    ImageError where a photo cannot be read.
    """
    side, channels = preprocessing.size // 32, encoder.config.channels
    shape = (len(names), side * side, channels) if output == "grid" else (len(names), 2 * side, 2 * side, channels // 2)
    manifest = {
        "format": FORMAT,
        "encoder": encoder.fingerprint(),
        "preprocessing": _plain(asdict(preprocessing)),
        "output": output,
        "shape": list(shape),
        "dtype": "float16",
        "names": list(names),
        "sizes": [photos.size(name) for name in names],
    }
    array, done = _open(folder, manifest, shape)
    todo = np.flatnonzero(done == 0)
    network = encoder.eval()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a form that torch documents and its stubs lack
    device = next(encoder.parameters()).device
    finished = len(names) - len(todo)
    if progress:
        progress(finished, len(names))

    def read(row: int) -> Array:
        photo = read_photo(photos.read(names[row]), preprocessing, names[row])
        return preprocessing.normalize(photo.pixels)

    for rows, pixels in _batches(todo, read, batch_size):
        batch = torch.from_numpy(pixels).to(device, memory_format=torch.channels_last)
        with torch.inference_mode():
            # Channels last on disk, as the last stage's convolutions like them.
            found = network(batch) if output == "grid" else network.first_stages(batch).permute(0, 2, 3, 1)
            features = found.float().cpu().numpy()
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


def _open(folder: Path, manifest: dict[str, Any], shape: tuple[int, ...]) -> tuple[Any, Any]:
    """The feature and done arrays of a cache, newly made or continued."""
    path = folder / "manifest.json"
    mode: Literal["r+", "w+"] = "r+"
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CacheError(f"{path}: broken ({error}); delete the folder to extract the features again") from None
        for key, value in manifest.items():
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
        mode = "w+"
    array = np.memmap(folder / "features.f16", "<f2", mode, shape=shape)
    done = np.memmap(folder / "done.u8", "u1", mode, shape=shape[:1])
    if mode == "w+":
        write_json(path, manifest)  # last, so that a manifest always has its arrays beside it
    return array, done


def _plain(value: Any) -> Any:
    """The value as JSON gives it back, tuples as lists."""
    return json.loads(json.dumps(value))
