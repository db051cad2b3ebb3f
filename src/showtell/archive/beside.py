"""Captions beside photos: a text file of the same name with another suffix, as trainers of image generators read them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from showtell.errors import OptionError, OutputError
from showtell.files import replacing
from showtell.image import SUFFIXES
from showtell.types import Record

Existing = Literal["skip", "replace", "add"]


class Place(Protocol):
    """Where a photo's caption is kept, beside the photo or in it."""

    def has(self, photo: str) -> bool:
        """Whether a caption of the photo is there."""

    def write(self, record: Record) -> None:
        """Writes a record's captions; a record of an error writes nothing.

        Raises DataError where this photo takes no caption, OutputError where the system cannot write.
        """


@dataclass(frozen=True, slots=True)
class Sidecars:
    """`dog.txt` beside `dog.jpg`: one line for each caption, with `before` and `after` around it.

    The present text of a file is kept where `existing` is `skip`, replaced, or kept with the new captions on further
    lines. Writing the same captions twice leaves one copy, so that a resumed run may write its last records again.
    """

    suffix: str
    before: str = ""
    after: str = ""
    existing: Existing = "skip"

    def __post_init__(self) -> None:
        if not self.suffix.startswith(".") or len(self.suffix) < 2 or "/" in self.suffix or os.sep in self.suffix:
            raise OptionError(f"sidecar={self.suffix!r} is no suffix; give one such as .txt")
        if self.suffix.lower() in SUFFIXES:
            raise OptionError(
                f"sidecar={self.suffix!r} is a suffix of photos, which would be overwritten; give one such as .txt"
            )

    def path(self, photo: str) -> Path:
        """The text file of a photo."""
        return Path(photo).with_suffix(self.suffix)

    def has(self, photo: str) -> bool:
        """Whether the text file is there and holds more than blanks."""
        try:
            return bool(self.path(photo).read_bytes().strip())
        except (OSError, ValueError):
            return False

    def write(self, record: Record) -> None:
        """Writes the text file, atomically. Raises OutputError."""
        lines = [f"{self.before}{caption.text}{self.after}" for caption in record.captions]
        if not lines:
            return
        path = self.path(record.path)
        if self.existing != "replace" and self.has(record.path):
            if self.existing == "skip":
                return
            try:
                old = path.read_text(encoding="utf-8", errors="surrogateescape").rstrip("\n").split("\n")
            except OSError as error:
                raise OutputError.of(path, error) from None
            lines = [*old, *(line for line in lines if line not in old)]
        with replacing(path) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
