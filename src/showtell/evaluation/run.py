"""A model over a data set's split: one caption for each photo, to be scored against its references."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from showtell.captioners import AnyCaptioner
from showtell.data import Dataset, PhotoStore
from showtell.errors import DataError
from showtell.types import Split


@dataclass(frozen=True)
class Run:
    """Candidates and references by photo name, and the reasons why photos were left out."""

    candidates: dict[str, str]
    references: dict[str, tuple[str, ...]]
    failed: dict[str, str]


class _Photo(io.BytesIO):
    """A photo of a data set as an open file that has its name. It is read, or cannot be read, when its turn comes."""

    def __init__(self, photos: PhotoStore, name: str) -> None:
        super().__init__()
        self.name = name
        self._photos: PhotoStore | None = photos

    def read(self, size: int | None = -1, /) -> bytes:
        if self._photos is not None:
            photos, self._photos = self._photos, None
            super().__init__(photos.read(self.name))
        return super().read(size)


def caption_split(
    captioner: AnyCaptioner,
    dataset: Dataset,
    split: Split,
    options: Any,
    *,
    batch_size: int = 8,
    progress: Callable[[str, int, int], None] | None = None,
) -> Run:
    """Captions all photos of the split. Raises DataError where none could be read."""
    samples = dataset.split(split)
    photos = (_Photo(dataset.photos, sample.image) for sample in samples)
    candidates: dict[str, str] = {}
    failed: dict[str, str] = {}
    for number, (sample, record) in enumerate(
        zip(samples, captioner.records(photos, options, batch_size=batch_size), strict=True), start=1
    ):
        if record.caption is None:
            failed[sample.image] = record.error_message or ""
        else:
            candidates[sample.image] = record.caption
        if progress:
            progress("captioning", number, len(samples))
    if not candidates:
        name, reason = next(iter(failed.items()))
        raise DataError(f"none of the {len(samples)} {split} photos could be read; {name}: {reason}")
    return Run(candidates, {s.image: s.captions for s in samples if s.image in candidates}, failed)
