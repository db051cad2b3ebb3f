"""The folder of a feature cache: float16 rows with a key each. Rows are appended and never changed."""

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from showtell.arrays import Array
from showtell.errors import CacheError
from showtell.files import write_json
from showtell.train.run.folder import locked

KEY = 32  # bytes of a key, a SHA-256
_OWN = {"manifest.json", "features.f16", "rows.sha256", ".lock"}


class Rows:
    """The rows of the cache in `folder`, each of shape `shape`; `manifest` describes the features.

    Raises CacheError where the folder holds another cache or other files, or cannot be written.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any], shape: Sequence[int]) -> None:
        self.folder = folder
        self._shape = tuple(shape)
        self._bytes = 2 * math.prod(shape)
        self._values, self._keys = folder / "features.f16", folder / "rows.sha256"
        _claim(folder, {**json.loads(json.dumps(manifest)), "shape": list(shape), "dtype": "float16"})

    def __len__(self) -> int:
        """Number of whole rows on disk."""
        sizes = [path.stat().st_size if path.exists() else 0 for path in (self._values, self._keys)]
        return min(sizes[0] // self._bytes, sizes[1] // KEY)

    def places(self) -> dict[bytes, int]:
        """The row of each key."""
        count = len(self)
        keys = self._keys.read_bytes()[: count * KEY] if count else b""
        return {keys[row * KEY : (row + 1) * KEY]: row for row in range(count)}

    def array(self) -> Array:
        """All rows: float16 (rows, *shape), memory-mapped."""
        return np.memmap(self._values, "<f2", "r", shape=(len(self), *self._shape))

    def append(self, keys: Sequence[bytes], values: Array) -> None:
        """Appends the rows `values` (B, *shape) under their keys, except those that another process has appended."""
        try:
            with locked(self.folder / ".lock"):
                known, count = self.places(), len(self)
                new = [place for place, key in enumerate(keys) if key not in known]
                # Overwrites a partial row that a kill or a full disk left. The keys come last.
                for path, start, data in (
                    (self._values, count * self._bytes, values[new].astype("<f2").tobytes()),
                    (self._keys, count * KEY, b"".join(keys[place] for place in new)),
                ):
                    with open(path, "r+b" if path.exists() else "w+b") as file:
                        file.truncate(start)
                        file.seek(start)
                        file.write(data)
                        file.flush()
                        os.fsync(file.fileno())
        except OSError as error:
            raise CacheError(
                f"{self.folder}: cannot be written ({error.strerror}); make room or choose another feature cache folder"
            ) from None

    def check_room(self, rows: int) -> None:
        """Raises CacheError where the disk has no room for `rows` more rows."""
        needed, free = rows * self._bytes, shutil.disk_usage(self.folder).free
        if free < needed:
            raise CacheError(
                f"{self.folder}: {free / 1e6:.0f} MB are free and the features will take {needed / 1e6:.0f} MB; "
                "make room or choose another feature cache folder"
            )


def _claim(folder: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest of a new cache, or compares it with that of an existing one."""
    path = folder / "manifest.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            if {entry.name for entry in folder.iterdir()} - _OWN:
                raise CacheError(f"{folder}: not empty and not a feature cache; give another folder")
            write_json(path, manifest)
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CacheError(f"{folder}: cannot be written ({error.strerror}); choose another feature cache folder") from None
    except ValueError as error:
        raise CacheError(f"{path}: broken ({error}); delete the folder to extract the features again") from None
    for key in {**manifest, **found}:
        if found.get(key) != manifest.get(key):
            raise CacheError(
                f"{folder}: a feature cache with another {key} ({found.get(key)!r}, now {manifest.get(key)!r}); "
                "give another folder or delete this one"
            )
