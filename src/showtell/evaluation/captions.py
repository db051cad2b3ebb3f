"""Reads candidate and reference captions from files, and joins them by image.

Both are read by `showtell.data`, in any layout of a data set. Candidates have one caption for each image.

An image's name is its file name with the extension, and its path where file names repeat. Candidates may have COCO's ids
instead, which the references map to images.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from showtell.data import list_entries
from showtell.data.dataset import some as _some
from showtell.data.names import Names, base
from showtell.errors import DataError


@dataclass(frozen=True)
class References:
    """Reference captions by image; an image may have none.

    `paths` maps paths in the file to images, and `names` maps ids to images.
    """

    captions: Mapping[str, tuple[str, ...]]
    names: Mapping[str, str] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pairs:
    """Candidates and references of the same images, and the numbers of images that were left out."""

    candidates: Mapping[str, str]
    references: Mapping[str, tuple[str, ...]]
    without_candidate: int
    without_reference: int


def read_candidates(path: Path) -> dict[str, str]:
    """Reads one caption for each image of a file, by its name or COCO id.

    Records of photos that could not be captioned are left out. Raises DataError, with the place, for a broken file and for an
    image with several captions or none.
    """
    captions: dict[str, str] = {}
    for entry in list_entries(path, photos=False).entries:
        name = _name(entry.name)
        if name in captions or len(entry.captions) > 1:
            raise DataError(f"{entry.place}: {name} has more than one caption; give one candidate for each image")
        if not entry.captions:
            raise DataError(f"{entry.place}: {name} has no caption; give one candidate for each image")
        captions[name] = entry.captions[0].strip()
    if not captions:
        raise DataError(f"{path}: has no candidate captions")
    return captions


def read_references(path: Path, split: str | None = None) -> References:
    """Reads the reference captions of a file, or of one split.

    Raises DataError, with the place, for a broken file, for two images of one name, and where the split has no image.
    """
    captions: dict[str, list[str]] = {}
    keys: dict[str, str | None] = {}
    for entry in list_entries(path, photos=False).entries:
        if split is not None and entry.split != split:
            continue
        name = _name(entry.name)
        if keys.setdefault(name, entry.key) != entry.key:
            raise DataError(f"{entry.place}: a second image has the name {name}; names must differ")
        captions.setdefault(name, []).extend(entry.captions)
    if not captions:
        why = f" of the split {split!r}; leave out --split to take all" if split else ""
        raise DataError(f"{path}: has no reference captions{why}")
    count = Counter(map(base, captions))
    short = {name: base(name) if count[base(name)] == 1 else name for name in captions}
    return References(
        {short[name]: tuple(texts) if any(map(str.strip, texts)) else () for name, texts in captions.items()},
        names={key: short[name] for name, key in keys.items() if key is not None},
        paths={name: image for name, image in short.items() if name != image},
    )


def join(candidates: Mapping[str, str], references: References, *, partial: bool = False) -> Pairs:
    """Joins candidates and references of the same images, in the order of the references.

    Raises DataError, with some names, where an image lacks one of the two; `partial` leaves such images out. Raises it in any
    case where no image has both.
    """
    captions = {_name(str(image)): caption for image, caption in candidates.items()}
    wholes = {image: image for image in references.captions if image not in references.paths.values()} | dict(references.paths)
    images = {name: wholes[name] for name in captions if name in wholes}
    images |= {name: references.names[name] for name in captions if name not in images and name in references.names}
    taken = {whole for whole, image in wholes.items() if image in images.values()}
    matches = Names(wholes).match((name for name in captions if name not in images), taken, folders=False)
    images |= {name: wholes[whole] for name, whole in matches.items()}
    named = {image: captions[name] for name, image in images.items() if references.captions[image]}
    missing = [name for name, texts in references.captions.items() if texts and name not in named]
    unknown = [name for name in captions if name not in images]
    bare = [name for name, texts in references.captions.items() if not texts]
    if not named or (not partial and (unknown or missing or bare)):
        raise DataError(_mismatch(unknown, missing, bare, captions, references))
    return Pairs(
        candidates={name: named[name] for name in references.captions if name in named},
        references={name: texts for name, texts in references.captions.items() if name in named},
        without_candidate=len(missing),
        without_reference=len(captions) - len(named),
    )


def _mismatch(
    unknown: Sequence[str], missing: Sequence[str], bare: Sequence[str], candidates: Mapping[str, str], references: References
) -> str:
    parts = []
    count = len(references.captions)
    if unknown:
        parts.append(f"{len(unknown)} of {len(candidates)} candidates are for images without references ({_some(unknown)})")
    if missing:
        parts.append(f"{len(missing)} of {count} images with references have no candidate ({_some(missing)})")
    if bare:
        parts.append(f"{len(bare)} of {count} images of the references have no caption ({_some(bare)})")
    remedy = "--partial scores the images that have both"
    if len(unknown) == len(candidates):
        remedy = f"the references have images such as {_some(list(references.names) or list(references.captions))}"
        if unknown[0].isdigit() and not references.names:
            remedy += "; numbers need references with ids, such as COCO's with its list of images"
    return f"{' and '.join(parts)}; {remedy}"


def _name(path: str) -> str:
    return path.replace("\\", "/")
