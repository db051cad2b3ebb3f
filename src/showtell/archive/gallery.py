"""A gallery: a page that a browser opens from disk, with thumbnails, captions and a search field.

`album.html` stands beside a folder `album_files` with the thumbnails and the records, 1,000 to a script, since a page that was
opened from disk may load scripts and pictures but no JSON.
"""

import json
import os
import shutil
import tempfile
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from showtell.archive.sinks import plain
from showtell.archive.sources import reopen
from showtell.errors import ImageError
from showtell.files import replacing, sync, writing
from showtell.io import pages
from showtell.io.remote import is_remote
from showtell.types import Record

_SIZE = 240  # pixels of a thumbnail's longer side
_PART = 1000  # records of one script


class GallerySink:
    """Writes thumbnails as records come, into a folder that is renamed into place when the gallery is complete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = path.with_name(f"{path.stem}_files")
        with writing(path):
            self._aside = Path(tempfile.mkdtemp(prefix=f".{path.stem[:40]}.", dir=path.parent))
        self._entries: list[dict[str, object]] = []
        self._parts = self._count = 0

    def write(self, record: Record) -> None:
        """Adds a photo with its thumbnail, or an error with its message."""
        entry: dict[str, object] = {"path": plain(record.path), "captions": [caption.text for caption in record.captions]}
        if record.confidence is not None:
            entry["confidence"], entry["doubtful"] = round(record.confidence, 2), record.doubtful
        if record.error_code is not None:
            entry["error"] = plain(record.error_message)
        else:
            entry["thumbnail"] = self._thumbnail(record.path)
            if is_remote(record.path):
                entry["link"] = record.path
            elif Path(record.path).is_file():
                entry["link"] = quote(os.fsencode(os.path.relpath(record.path, self._path.parent)))
        self._entries.append(entry)
        self._count += 1
        if len(self._entries) == _PART:
            self._flush()

    def close(self) -> None:
        """Writes the page, and renames the folder of thumbnails into place before it."""
        if self._entries:
            self._flush()
        template = resources.files("showtell.archive").joinpath("gallery.html").read_text(encoding="utf-8")
        scripts = "\n".join(
            f'<script src="{quote(self._folder.name)}/records-{number:05}.js"></script>' for number in range(self._parts)
        )
        files = json.dumps(quote(self._folder.name)).replace("<", "\\u003c")
        with writing(self._path):
            if self._folder.exists():
                shutil.rmtree(self._folder)
            self._aside.chmod(0o755)
            self._aside.replace(self._folder)
            sync(self._folder.parent)
        page = template.replace("<!--scripts-->", scripts).replace('"FILES"', files)
        with replacing(self._path) as temporary:
            temporary.write_text(page, encoding="utf-8")

    def _thumbnail(self, name: str) -> str | None:
        data = pages.thumbnail(_read, name, _SIZE)
        if data is None:  # moved since it was captioned
            return None
        file = f"{self._count // 1000:04}/{self._count % 1000:03}.jpg"
        with writing(self._path):
            (self._aside / file).parent.mkdir(exist_ok=True)
            (self._aside / file).write_bytes(data)
        return file

    def _flush(self) -> None:
        text = json.dumps(self._entries, ensure_ascii=False).replace("<", "\\u003c")
        with writing(self._path):
            (self._aside / f"records-{self._parts:05}.js").write_text(f"records.push(...{text});\n", encoding="utf-8")
        self._entries.clear()
        self._parts += 1


def _read(name: str) -> bytes:
    """The photo's encoded bytes. Raises ImageError."""
    source = reopen(name)
    try:
        return Path(source).read_bytes() if isinstance(source, str) else source.read()
    except OSError as error:
        raise ImageError("unreadable", f"{name}: {error.strerror}") from None
