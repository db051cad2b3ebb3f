"""One run over an archive: its inputs, its outputs, and the counts at the end."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Protocol

from showtell.archive.sources import Source
from showtell.image import name_of
from showtell.types import Record


class Settled(Protocol):
    """What knows which photos have a caption."""

    def has(self, photo: str) -> bool:
        """Whether a photo has one."""


@dataclass(slots=True)
class Tally:
    """Counts of a run. Each input is counted once: captioned, withheld, failed or already done."""

    captioned: int = 0
    doubtful: int = 0  # of those, captions of low confidence
    withheld: int = 0  # photos that got no caption, as its confidence was too low
    already: int = 0
    unwritten: int = 0  # captions that could not be written beside or into their photos
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        """Photos that could not be read."""
        return self.errors.total()

    @property
    def records(self) -> int:
        """Photos that were captioned, withheld or failed."""
        return self.captioned + self.withheld + self.failed

    def add(self, record: Record) -> None:
        """Counts a record."""
        if record.error_code is None:
            given = record.status == "ok"
            self.captioned += given
            self.doubtful += given and record.doubtful
            self.withheld += not given
        else:
            self.errors[record.error_code] += 1


def without_caption(sources: Iterable[Source], places: Sequence[Settled], tally: Tally) -> Iterator[Source]:
    """The photos that lack a caption in one of the places; the others are counted."""
    for source in sources:
        if places and all(place.has(name_of(source)) for place in places):
            tally.already += 1
        else:
            yield source


def begun(sources: Iterator[Source], few: int) -> Iterable[Source] | None:
    """The photos again, once the first of them is known; a list where there are at most `few`, None where there are none.

    A list lets the captioner share few photos out to all its threads. With `few` 1 nothing waits for a second photo.
    """
    first = list(islice(sources, few))
    if len(first) < few or not first:
        return first or None
    return chain(first, sources)
