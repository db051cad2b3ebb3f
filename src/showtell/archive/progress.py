"""How far a run is: photos done of those listed so far, rate, errors, time left."""

import io
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from showtell.archive.job import Tally
from showtell.archive.sources import Selection, photos
from showtell.errors import ShowtellError

_COUNT_AFTER = 2.0  # seconds; short runs need no total, and counting takes from captioning


class Report(Protocol):
    """What shows progress."""

    def progress(self, what: str, done: int, total: int | None, note: str = "") -> None:
        """Shows `done` of `total` steps."""


class Progress:
    """Reports after each photo. A thread of its own counts the inputs, unless they come from standard input."""

    def __init__(self, report: Report, tally: Tally, paths: Sequence[str], selection: Selection, *, countable: bool) -> None:
        self._report, self._tally, self._paths = report, tally, paths
        self._selection = Selection(selection.include, selection.exclude, selection.image_column)  # with counts of its own
        self._countable = countable
        self._began = time.monotonic()
        self._total: int | None = None

    @property
    def seconds(self) -> float:
        """Time since the first photo was begun."""
        return time.monotonic() - self._began

    @property
    def rate(self) -> float:
        """Photos a second, those that failed included."""
        return self._tally.records / max(self.seconds, 1e-9)

    def update(self, before: int = 0) -> None:
        """Reports; `before` photos were finished before this process began."""
        if self._countable and self.seconds > _COUNT_AFTER:
            self._countable = False
            threading.Thread(target=self._count, name="showtell-count", daemon=True).start()
        done = before + self._tally.already + self._tally.records
        note = f"{self.rate:.1f}/s"
        if self._tally.failed:
            note += f", {self._tally.failed:,} failed"
        if self._total is not None and self._tally.records:
            note += f", {_duration((self._total - done) / self.rate)} left"
        self._report.progress("captioning", done, self._total, note)

    def _count(self) -> None:
        count = 0
        try:
            for count, _ in enumerate(photos(self._paths, io.BytesIO(), self._selection), start=1):
                if count % 100 == 0:
                    time.sleep(0.001)  # leaves the interpreter to captioning
        except ShowtellError:  # captioning meets it too, and says so
            return
        self._total = count


def _duration(seconds: float) -> str:
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
