"""Captions a split of a data set with a model, for evaluation."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from showtell.captioners import AnyCaptioner
from showtell.data import Dataset
from showtell.errors import DataError
from showtell.image import NamedPhoto
from showtell.progress import Progress, silent
from showtell.types import Split


@dataclass(frozen=True)
class Run:
    """Candidates and references by photo name, and the errors of photos that could not be read."""

    candidates: dict[str, str]
    references: dict[str, tuple[str, ...]]
    failed: dict[str, str]


def caption_split(
    captioner: AnyCaptioner,
    dataset: Dataset,
    split: Split,
    options: Any,
    *,
    batch_size: int = 8,
    progress: Progress = silent,
) -> Run:
    """Captions all photos of a split. Raises DataError where none can be read."""
    samples = dataset.split(split)
    photos = (NamedPhoto(sample.image, partial(dataset.photos.read, sample.image)) for sample in samples)
    candidates: dict[str, str] = {}
    failed: dict[str, str] = {}
    for number, (sample, record) in enumerate(
        zip(samples, captioner.records(photos, options, batch_size=batch_size), strict=True), start=1
    ):
        if record.caption is None:
            failed[sample.image] = record.error_message or ""
        else:
            candidates[sample.image] = record.caption
        progress("captioning", number, len(samples))
    if not candidates:
        name, reason = next(iter(failed.items()))
        raise DataError(f"none of the {len(samples)} {split} photos could be read; {name}: {reason}")
    return Run(candidates, {s.image: s.captions for s in samples if s.image in candidates}, failed)
