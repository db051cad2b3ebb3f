"""Checks a data set for errors in its photos, captions and splits."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from showtell.data.check import duplicates, suspects
from showtell.data.dataset import SPLITS, Listing
from showtell.data.photos import PhotoStore
from showtell.errors import DataError, ImageError
from showtell.image import Preprocessing, read_photo
from showtell.progress import Progress, silent
from showtell.text import tokenize
from showtell.types import Split

MIN_SIDE = 64  # pixels; a smaller photo is enlarged several times for the model
MAX_NEAR = 20  # missing photos for which a similar name is searched, since each search compares all names
MIN_COUNTS = (1, 2, 3, 5, 10)  # thresholds of the vocabulary table
_COMMON_MODES = ("RGB", "L")
_PREPROCESSING = Preprocessing(size=duplicates.SIDE)

# All kinds of findings, in the order of the report.
KINDS = {
    "missing-photo": "listed photos that do not exist",
    "renamed-photo": "photos listed under another name",
    "ambiguous-photo": "names of several photos",
    "empty-photo": "empty files",
    "unreadable-photo": "photos that cannot be read",
    "tiny-photo": f"photos with a side below {MIN_SIDE} pixels",
    "odd-mode": "photos that are neither RGB nor grey",
    "unused-photo": "photos that are not listed",
    "photo-in-two-splits": "photos in two splits, under one name or several",
    "near-photo-in-two-splits": "nearly equal photos in two splits",
    "duplicate-photo": "equal photos",
    "near-duplicate-photo": "nearly equal photos",
    "no-caption": "listed photos without a caption",
    "empty-caption": "captions without a word",
    "damaged-caption": "captions with damaged characters",
    "foreign-caption": "captions that do not look English",
    "long-caption": f"captions of more than {suspects.MAX_WORDS} words",
    "caption-in-two-splits": "equal captions in two splits",
    "skipped": "other entries that were left out",
}


@dataclass(frozen=True)
class Item:
    """One finding: its photos and its description."""

    photos: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Coverage:
    """The share of words that a vocabulary covers: in the training captions, and in those of dev and test, if any.

    The vocabulary has the words that occur at least `min_count` times in the training captions.
    """

    min_count: int
    words: int
    train: float
    others: float | None


@dataclass(frozen=True)
class Check:
    """The result of a check. `splits` counts photos by split, `lengths` captions by their number of words."""

    name: str
    photos: PhotoStore
    splits: dict[str, int]
    captions: int
    findings: dict[str, list[Item]]
    vocabulary: list[Coverage]
    lengths: dict[int, int]

    def wrong(self, ignored: Iterable[str] = ()) -> bool:
        """Whether there is a finding of a kind that is not ignored."""
        return bool(set(self.findings) - set(ignored))

    def to_json(self) -> dict[str, Any]:
        """The object that `showtell data check --json` writes."""
        return {
            "name": self.name,
            "photos": self.splits,
            "captions": self.captions,
            "findings": {kind: list(map(asdict, items)) for kind, items in self.findings.items()},
            "vocabulary": list(map(asdict, self.vocabulary)),
            "caption_lengths": {str(length): count for length, count in self.lengths.items()},
        }


@dataclass
class _Photo:
    """A listed photo: its name, splits and captions in the caption files."""

    name: str
    splits: list[Split] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Decoded:
    """A decoded photo's properties, or the error of one that cannot be decoded."""

    error: ImageError | None = None
    digest: str = ""
    fingerprint: duplicates.Fingerprint | None = None
    mode: str = ""
    size: tuple[int, int] = (0, 0)


def check(listing: Listing, *, workers: int = 1, progress: Progress = silent) -> Check:
    """Checks all photos and captions of a data set; `workers` threads decode photos, which `progress` counts."""
    findings: dict[str, list[Item]] = defaultdict(list)
    photos = _collect(listing, findings)
    decoded: dict[str, _Decoded] = {}
    with ThreadPoolExecutor(workers) as pool:
        try:
            for path, photo in zip(photos, pool.map(lambda path: _decode(listing.photos, path), photos), strict=True):
                decoded[path] = photo
                progress("checking photos", len(decoded), len(photos))
        except BaseException:  # an interrupted check does not wait for the photos in the queue
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    _check_photos(photos, decoded, findings)
    _check_duplicates(photos, decoded, findings)
    for path in sorted(set(listing.photos.names()) - photos.keys()):
        findings["unused-photo"].append(Item((path,), path))
    tokens = _check_captions(photos, findings)
    for reason, names in listing.skipped.items():
        findings["skipped"] += [Item((), f"{name}: {reason}") for name in names]
    splits = Counter(photo.splits[0] if photo.splits else "no split" for photo in photos.values())
    return Check(
        name=listing.name,
        photos=listing.photos,
        splits={split: splits[split] for split in (*SPLITS, "no split") if splits[split]},
        captions=len(tokens),
        findings={kind: findings[kind] for kind in KINDS if findings[kind]},
        vocabulary=_coverage(tokens),
        lengths=dict(sorted(Counter(len(words) for _, words in tokens).items())),
    )


def _collect(listing: Listing, findings: dict[str, list[Item]]) -> dict[str, _Photo]:
    """The listed photos that exist, by path; the others become findings."""
    photos: dict[str, _Photo] = {}
    lost: set[str] = set()
    for name, renamed in listing.photos.rename(entry.name for entry in listing.entries).items():
        findings["renamed-photo"].append(Item((renamed,), f"{name} is {renamed}"))
    for entry in listing.entries:
        if entry.name in lost:
            continue
        try:
            path = listing.photos.find(entry.name)
        except DataError as error:
            findings["ambiguous-photo"].append(Item((), str(error)))
            lost.add(entry.name)
            continue
        if path is None:
            near = listing.photos.near(entry.name) if len(lost) < MAX_NEAR else ""
            findings["missing-photo"].append(Item((), f"{entry.name} ({entry.place}){near}"))
            lost.add(entry.name)
            continue
        photo = photos.setdefault(path, _Photo(entry.name))
        if entry.split and entry.split not in photo.splits:
            photo.splits.append(entry.split)
        photo.captions.extend(text.strip() for text in entry.captions)
    return photos


def _decode(photos: PhotoStore, path: str) -> _Decoded:
    try:
        data = photos.read(path)
        photo = read_photo(data, _PREPROCESSING, path)
    except ImageError as error:
        return _Decoded(error)
    digest = hashlib.sha256(data).hexdigest()
    return _Decoded(None, digest, duplicates.fingerprint(photo.pixels), photo.mode, (photo.width, photo.height))


def _check_photos(photos: dict[str, _Photo], decoded: dict[str, _Decoded], findings: dict[str, list[Item]]) -> None:
    for path, photo in photos.items():
        file = decoded[path]
        if file.error is not None:
            kind = "empty-photo" if file.error.code == "empty" else "unreadable-photo"
            findings[kind].append(Item((), f"{file.error} [{file.error.code}]"))
            continue
        if min(file.size) < MIN_SIDE:
            findings["tiny-photo"].append(Item((path,), f"{photo.name}: {file.size[0]} x {file.size[1]}"))
        if file.mode not in _COMMON_MODES:
            findings["odd-mode"].append(Item((path,), f"{photo.name}: {file.mode}"))


def _check_duplicates(photos: dict[str, _Photo], decoded: dict[str, _Decoded], findings: dict[str, list[Item]]) -> None:
    equal: dict[str, list[str]] = defaultdict(list)
    for path in photos:
        if decoded[path].error is None:
            equal[decoded[path].digest].append(path)

    def add(kind: str, group: Sequence[str]) -> None:
        shown = [f"{photos[path].name} ({' and '.join(photos[path].splits) or 'no split'})" for path in group]
        findings[kind].append(Item(tuple(group), ", ".join(shown)))

    for group in equal.values():
        if len(_splits(photos, group)) > 1:
            add("photo-in-two-splits", group)
        elif len(group) > 1:
            add("duplicate-photo", group)
    for path, photo in photos.items():
        if decoded[path].error is not None and len(photo.splits) > 1:
            add("photo-in-two-splits", [path])
    first = [group[0] for group in equal.values()]
    fingerprints = [fingerprint for path in first if (fingerprint := decoded[path].fingerprint) is not None]
    for places in duplicates.near(fingerprints):
        group = [path for place in places for path in equal[decoded[first[place]].digest]]
        add("near-photo-in-two-splits" if len(_splits(photos, group)) > 1 else "near-duplicate-photo", group)


def _splits(photos: dict[str, _Photo], group: Iterable[str]) -> set[Split]:
    return {split for path in group for split in photos[path].splits}


def _check_captions(photos: dict[str, _Photo], findings: dict[str, list[Item]]) -> list[tuple[Split | None, list[str]]]:
    """Returns the tokens of all captions that have a word, each with its split."""
    tokens: list[tuple[Split | None, list[str]]] = []
    places: dict[str, dict[str, Split]] = defaultdict(dict)
    for path, photo in photos.items():
        if not photo.captions:
            findings["no-caption"].append(Item((path,), photo.name))
        split = photo.splits[0] if photo.splits else None
        for caption in photo.captions:
            words = tokenize(caption)
            if not words:
                findings["empty-caption"].append(Item((path,), f"{photo.name}: {caption!r}"))
                continue
            tokens.append((split, words))
            if split:
                places[" ".join(words)].setdefault(path, split)
            shown = caption if len(caption) <= 200 else caption[:200] + "..."
            if reason := suspects.damage(caption):
                findings["damaged-caption"].append(Item((path,), f"{photo.name}: {shown!r} has {reason}"))
            elif suspects.is_foreign(caption):
                findings["foreign-caption"].append(Item((path,), f"{photo.name}: {shown}"))
            if len(words) > suspects.MAX_WORDS:
                findings["long-caption"].append(Item((path,), f"{photo.name}: {len(words)} words: {shown}"))
    for caption, where in places.items():
        splits = Counter(where.values())
        if len(splits) > 1:
            counts = ", ".join(f"{splits[split]} in {split}" for split in SPLITS if splits[split])
            one_each = {split: path for path, split in where.items()}
            findings["caption-in-two-splits"].append(Item(tuple(one_each.values()), f"{caption} ({counts})"))
    return tokens


def _coverage(tokens: Sequence[tuple[Split | None, list[str]]]) -> list[Coverage]:
    """The coverage of each of MIN_COUNTS; without training captions, the vocabulary is that of all captions."""
    trained = [words for split, words in tokens if split == "train"]
    others = Counter(word for split, words in tokens if split in ("dev", "test") for word in words) if trained else Counter()
    train = Counter(word for words in (trained or [words for _, words in tokens]) for word in words)
    rows = []
    for min_count in MIN_COUNTS:
        kept = {word for word, count in train.items() if count >= min_count}
        rows.append(Coverage(min_count, len(kept), _share(train, kept) or 0.0, _share(others, kept)))
    return rows


def _share(counts: Counter[str], kept: set[str]) -> float | None:
    total = counts.total()
    return round(sum(count for word, count in counts.items() if word in kept) / total, 4) if total else None
