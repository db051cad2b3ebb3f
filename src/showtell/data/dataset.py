"""A data set in memory: its samples, the store of their photos, and the entries that were left out."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

from showtell.data.entries import Entry
from showtell.data.photos import PhotoStore
from showtell.errors import DataError
from showtell.image import describe_skipped
from showtell.types import Sample, Split

SPLITS: tuple[Split, ...] = get_args(Split)
RANDOM_SPLITS: Mapping[Split, float] = {"train": 0.8, "dev": 0.1, "test": 0.1}
SMALL, MIN_DEV = 200, 5  # photos


@dataclass(frozen=True)
class Listing:
    """The entries of a layout's files, not yet matched with the photos.

    `skipped` has the names of entries that the layout leaves out, by reason.
    """

    name: str
    root: Path
    entries: Sequence[Entry]
    photos: PhotoStore
    skipped: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """The samples whose photos exist, and the entries that were left out.

    `missing` names the listed photos that do not exist; `left_out` has the names of other dropped entries, by reason;
    `random_split` is the seed where `with_random_split` drew the splits.
    """

    name: str
    samples: tuple[Sample, ...]
    photos: PhotoStore
    missing: tuple[str, ...] = ()
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    random_split: int | None = None

    def split(self, name: Split) -> tuple[Sample, ...]:
        """The samples of one split. Raises DataError where it has none."""
        samples = tuple(sample for sample in self.samples if sample.split == name)
        if not samples:
            have = sorted({sample.split for sample in self.samples if sample.split})
            raise DataError(f"{self.name}: there are no photos of the split {name!r}, but of {', '.join(have) or 'none'}")
        return samples

    def describe_left_out(self) -> str | None:
        """A line for each reason why entries were left out, or None where there is no reason."""
        parts = []
        if self.missing:
            listed = len(self.missing) + len(self.samples)
            names = [f"{name}{self.photos.near(name)}" if place < 3 else name for place, name in enumerate(self.missing)]
            parts.append(f"{len(self.missing)} of {listed} listed photos are missing: {some(names)}")
        others = {kind: n for kind, n in self.photos.skipped.items() if kind.startswith(("camera raw", "video", "unknown"))}
        if others:
            parts.append(f"files that are no photos: {describe_skipped(Counter(others))}")
        parts += [f"{len(names)} {reason}: {some(names)}" for reason, names in self.left_out.items() if names]
        if self.random_split is not None:
            counts = Counter(sample.split for sample in self.samples)
            shares = ", ".join(f"{counts[split]} {split}" for split in SPLITS)
            parts.append(f"the data has no splits: drawn by photo with seed {self.random_split}: {shares}")
        elif unsplit := [sample.image for sample in self.samples if sample.split is None]:
            parts.append(f"{len(unsplit)} photos are in no split: {some(unsplit)}")
        return "\n".join(parts) or None


def some(names: Sequence[str], count: int = 3) -> str:
    """The first of many names."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def assemble(listing: Listing) -> Dataset:
    """Makes the data set of a listing: one sample for each photo, with all its captions.

    Dropped entries are counted: photos that do not exist, photos without a caption, and empty captions. Raises DataError where
    a photo is in two splits, where more than half of the photos are missing, and where none has a caption.
    """
    order: dict[str, Entry] = {}
    captions: dict[str, list[str]] = {}
    missing: dict[str, str] = {}
    empty: list[str] = []
    renamed = listing.photos.rename(entry.name for entry in listing.entries)
    for entry in listing.entries:
        path = listing.photos.find(entry.name)
        if path is None:
            missing[entry.name] = entry.place
            continue
        first = order.setdefault(path, entry)
        if first.split is None and entry.split is not None:
            first = order[path] = first._replace(split=entry.split)
        if entry.split is not None and entry.split != first.split:
            raise DataError(
                f"{entry.place}: {entry.name} is already listed in {first.split}, at {first.place}; a photo has one split"
            )
        texts = [text.strip() for text in entry.captions]
        empty += [entry.name for text in texts if not text]
        captions.setdefault(path, []).extend(text for text in texts if text)
    samples = tuple(Sample(entry.name, tuple(captions[path]), entry.split) for path, entry in order.items() if captions[path])
    if len(missing) > len(order):
        names = [f"{name}{listing.photos.near(name)}" for name in list(missing)[:3]]
        skipped = describe_skipped(listing.photos.skipped)
        raise DataError(
            f"{listing.root}: {len(missing)} of {len(order) + len(missing)} listed photos are missing: {some(names)} "
            f"(the first is named in {next(iter(missing.values()))}). Put them into this folder or below it, as files or in "
            "uncompressed .tar files, or name the caption file of the photos that exist"
            + (f". Files that are no photos: {skipped}" if skipped else "")
        )
    if not samples:
        raise DataError(f"{listing.root}: no photo has a caption ({listing.name})")
    left_out = dict(listing.skipped)
    left_out["photos have another name in the caption files"] = [f"{name} is {path}" for name, path in renamed.items()]
    left_out["captions are empty, of"] = empty
    left_out["listed photos have no caption"] = [entry.name for path, entry in order.items() if not captions[path]]
    return Dataset(listing.name, samples, listing.photos, tuple(missing), left_out)


def joined(datasets: Sequence[Dataset], styles: Sequence[str] = ()) -> Dataset:
    """Joins data sets into one. With `styles`, one for each, every sample gets the style of its set.

    Raises DataError where two data sets have a photo of the same path.
    """
    photos, samples = PhotoStore(), {}
    for number, dataset in enumerate(datasets):
        for sample in dataset.samples:
            if sample.image in samples:
                raise DataError(f"{sample.image} is a photo of two of the data sets; rename one")
            samples[sample.image] = replace(sample, style=styles[number]) if styles else sample
            if place := dataset.photos.place(sample.image):
                photos.add(sample.image, place)
    left_out = {f"of {each.name} {reason}": names for each in datasets for reason, names in each.left_out.items()}
    missing = tuple(name for dataset in datasets for name in dataset.missing)
    return Dataset(" + ".join(each.name for each in datasets), tuple(samples.values()), photos, missing, left_out)


def with_random_split(dataset: Dataset, seed: int) -> Dataset:
    """Splits the data set 80 / 10 / 10 by a hash of seed and photo name.

    So a photo stays in its split when others are added or removed. Photos of equal bytes are in one split whatever their names.
    In a data set below SMALL photos, dev gets at least a tenth, and MIN_DEV where that is at most a quarter: photos move there
    from train.
    """
    names = _identities(dataset.photos, [sample.image for sample in dataset.samples])
    count = Counter(names)
    places = {name: _place(name, seed) for name in sorted(count)}
    train, dev = RANDOM_SPLITS["train"], RANDOM_SPLITS["train"] + RANDOM_SPLITS["dev"]  # where they end
    if len(names) < SMALL:
        lacking = min(max(MIN_DEV, math.ceil(len(names) / 10)), len(names) // 4)
        for name in sorted((name for name in places if places[name] < dev), key=places.__getitem__, reverse=True):
            if lacking <= 0:
                break
            train = min(train, places[name])
            lacking -= count[name]
    splits: dict[str, Split] = {
        name: "train" if place < train else "dev" if place < dev else "test" for name, place in places.items()
    }
    samples = tuple(replace(sample, split=splits[name]) for sample, name in zip(dataset.samples, names, strict=True))
    return replace(dataset, samples=samples, random_split=seed)


def _place(name: str, seed: int) -> float:
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).digest()[:8]) / 2**64


def _identities(photos: PhotoStore, names: Iterable[str]) -> list[str]:
    """A name for each photo, the same for photos of equal bytes; only photos of equal size are read."""
    names = list(names)
    sizes = [photos.size(name) for name in names]
    count = Counter(sizes)
    digests = [photos.digest(name).hex() if count[size] > 1 else name for name, size in zip(names, sizes, strict=True)]
    first: dict[str, str] = {}
    for digest, name in sorted(zip(digests, names, strict=True)):
        first.setdefault(digest, name)
    return [first[digest] for digest in digests]
