"""A data set in memory: samples that name their photos, and a store that reads a photo's bytes by name."""

import os
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from showtell.errors import DataError, ImageError
from showtell.image import SUFFIXES
from showtell.types import Sample, Split


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a photo's bytes lie: `size` bytes from `offset` of `file`."""

    file: Path
    offset: int
    size: int


class PhotoStore:
    """Photos by file name, from folders (searched recursively) and uncompressed tar files.

    Tar members are indexed once and then read in place, so nothing is unpacked and any number of processes may read.
    """

    def __init__(self, folders: Iterable[Path] = (), tars: Iterable[Path] = ()) -> None:
        self._places: dict[str, _Place] = {}
        for folder in folders:
            for root, _, names in os.walk(folder):
                for name in names:
                    if Path(name).suffix.lower() in SUFFIXES:
                        path = Path(root, name)
                        self._places.setdefault(name, _Place(path, 0, path.stat().st_size))
        for tar in tars:
            self._index(tar)

    def _index(self, path: Path) -> None:
        try:
            with tarfile.open(path, "r:") as tar:  # "r:" is uncompressed only: a compressed one cannot be read in place
                for member in tar:
                    name = Path(member.name).name
                    if member.isfile() and Path(name).suffix.lower() in SUFFIXES:
                        self._places.setdefault(name, _Place(path, member.offset_data, member.size))
        except (tarfile.TarError, OSError) as error:
            raise DataError(f"{path}: not a whole uncompressed tar file ({error}); unpack or fetch it again") from None

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __len__(self) -> int:
        return len(self._places)

    def names(self) -> list[str]:
        """File names of all photos, sorted."""
        return sorted(self._places)

    def size(self, name: str) -> int:
        """Length of the photo's file in bytes."""
        return self._places[name].size

    def read(self, name: str) -> bytes:
        """The photo's encoded bytes. Raises ImageError where it is absent or cut short."""
        place = self._places.get(name)
        if place is None:
            raise ImageError("not-found", f"{name}: no such photo in the data set")
        try:
            with open(place.file, "rb") as file:
                file.seek(place.offset)
                data = file.read(place.size)
        except OSError as error:
            raise ImageError("unreadable", f"{place.file}: {error.strerror or error}") from None
        if len(data) != place.size:
            raise ImageError("truncated", f"{place.file}: photo {name} is cut short")
        return data


@dataclass(frozen=True)
class Dataset:
    """Samples whose photos are present, and what was left out.

    `missing` names the photos that a split lists and the disk lacks.
    """

    name: str
    samples: tuple[Sample, ...]
    photos: PhotoStore
    missing: tuple[str, ...] = ()

    def split(self, name: Split) -> tuple[Sample, ...]:
        """The samples of one split. Raises DataError where it has none."""
        samples = tuple(sample for sample in self.samples if sample.split == name)
        if not samples:
            have = sorted({sample.split for sample in self.samples if sample.split})
            raise DataError(f"{self.name}: no photos of the split {name!r} are here; there are some of {', '.join(have) or 'none'}")
        return samples

    def describe_missing(self) -> str | None:
        """One line on the photos that are listed and absent, or None where all are there."""
        if not self.missing:
            return None
        named = ", ".join(self.missing[:3]) + (", ..." if len(self.missing) > 3 else "")
        return f"{len(self.missing)} of {len(self.missing) + len(self.samples)} listed photos are missing: {named}"
