"""A run directory: finished records survive any end of the process, and a restart continues with the rest.

    manifest.json        inputs, settings, the model's name and hash; written last when a run is begun
    inputs               the list that came on standard input, with null characters between the paths
    shards/000000.jsonl  records, one a line, and a last line with their number and SHA-256
    lock                 held while a process works on the run

A shard is written under another name, flushed to disk (fsync) and renamed; then the folder is flushed. So a shard is there
whole or not at all, and a photo is finished if and only if a shard has its record. Captions beside photos are written after
their shard: of those only the last shard's can be missing, and a restart writes them again. Output files are written from the
shards when all photos are finished.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from showtell.archive.job import Tally
from showtell.archive.sinks import to_line
from showtell.errors import DataError, OptionError, OutputError
from showtell.files import replacing, sync, write_json, writing
from showtell.image import name_of
from showtell.types import Caption, Label, Record

FORMAT = 1
SHARD_RECORDS, SHARD_SECONDS = 1000, 30.0  # a shard is finished when it has one of these
T = TypeVar("T")
Beside = Callable[[Record], None]  # writes a finished record's captions beside its photo


class Run:
    """A run directory that this process works on."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any], beside: Beside, shard_records: int) -> None:
        self.folder = folder
        self.manifest = manifest
        self.tally = Tally()
        self.damaged: list[Path] = []
        self._beside = beside
        self._shard_records = shard_records
        self._shards = folder / "shards"
        self._lock = _lock(folder)
        self._done: dict[bytes, int] = {}
        self._next = 0
        self._records: list[Record] = []
        self._begun = time.monotonic()

    @classmethod
    def create(
        cls, folder: Path, manifest: Mapping[str, Any], beside: Beside, listed: bytes | None, shard_records: int
    ) -> Self:
        """Begins a run in a new or empty folder. Raises OutputError."""
        check_new(folder)
        with writing(folder):
            (folder / "shards").mkdir(parents=True, exist_ok=True)
            if listed is not None:
                (folder / "inputs").write_bytes(listed)
                sync(folder / "inputs")
            sync(folder)
            sync(folder.absolute().parent)
        run = cls(folder, manifest, beside, shard_records)
        write_json(folder / "manifest.json", {"format": FORMAT, **manifest})
        return run

    @classmethod
    def resume(cls, folder: Path, beside: Beside, shard_records: int, *, retry_failed: bool = False) -> Self:
        """Continues a run. Whole shards count; damaged ones are set aside as `.damaged` and their photos captioned again.

        With `retry_failed` records of errors are dropped first, so that their photos are inputs again. Raises DataError where
        there is no run, OutputError where another process works on it.
        """
        run = cls(folder, read_manifest(folder), beside, shard_records)
        for leftover in run._shards.glob(".*"):  # of a process that was killed while it wrote
            leftover.unlink()
        last: list[Record] = []
        for path in run._paths():
            run._next = int(path.stem) + 1
            records = _read_shard(path)
            if records is None:
                run.damaged.append(path)
                path.replace(path.with_suffix(".damaged"))
                continue
            if retry_failed and any(record.error_code for record in records):
                records = [record for record in records if not record.error_code]
                _write_shard(path, records)
            for record in records:
                key = _key(record.path)
                run._done[key] = run._done.get(key, 0) + 1
                run.tally.add(record)
            last = records
        for record in last:
            run._beside(record)
        return run

    def stdin(self) -> Path:
        """The list that the run was begun with on standard input."""
        return self.folder / "inputs"

    def remaining(self, sources: Iterable[T]) -> Iterator[T]:
        """The inputs that have no record yet; an input that stands twice has two."""
        for source in sources:
            key = _key(name_of(source))
            if count := self._done.get(key, 0):
                self._done[key] = count - 1
            else:
                yield source

    def write(self, record: Record) -> None:
        """Takes a record. It is finished with its shard, after 1,000 records or 30 seconds. Raises OutputError."""
        if not self._records:
            self._begun = time.monotonic()
        self._records.append(record)
        if len(self._records) >= self._shard_records or time.monotonic() - self._begun >= SHARD_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Finishes the records until now. Raises OutputError, and then nothing of them is finished."""
        if not self._records:
            return
        records, self._records = self._records, []
        _write_shard(self._shards / f"{self._next:06}.jsonl", records)
        self._next += 1
        for record in records:
            self.tally.add(record)
            self._beside(record)

    def records(self) -> Iterator[Record]:
        """All finished records, in the order of their shards. Raises DataError where a shard was damaged meanwhile."""
        for path in self._paths():
            found = _read_shard(path)
            if found is None:
                raise DataError(f"{path}: damaged since it was written; run again with --resume")
            yield from found

    def close(self) -> None:
        """Writes the last records, and lets other processes work on the run."""
        try:
            self.commit()
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _paths(self) -> list[Path]:
        return sorted(self._shards.glob("*.jsonl"))


def check_new(folder: Path) -> None:
    """Raises OutputError where a run cannot begin in `folder`."""
    with writing(folder):
        if (folder / "manifest.json").exists():
            raise OutputError(f"{folder}: has a run already; continue it with --resume, or give another folder")
        known = {"shards", "inputs", "lock"}  # of a run that ended before it began
        if folder.exists() and (not folder.is_dir() or any(path.name not in known for path in folder.iterdir())):
            raise OutputError(f"{folder}: exists and is no run; give a new or empty folder")


def read_manifest(folder: Path) -> dict[str, Any]:
    """A run's manifest. Raises DataError."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["format"]
    except FileNotFoundError:
        raise DataError(f"{folder}: no run to resume here; begin one without --resume") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: not readable ({error})") from None
    if version != FORMAT:
        raise DataError(f"{path}: a run of format {version!r}; this version of showtell continues format {FORMAT}")
    return dict(manifest)


def check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any], flags: Mapping[str, str]) -> None:
    """Raises OptionError that names the first setting in `now` that differs from the run's; `flags` are their names."""
    for name, value in now.items():
        if before.get(name) != value:
            raise OptionError(
                f"{folder}: the run was begun with {flags.get(name, name)} {_shown(before.get(name))}, and now it is "
                f"{_shown(value)}; leave it as it was, or begin another run"
            )


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, list) else "not given" if value is None else str(value)


def from_json(value: Mapping[str, Any]) -> Record:
    """A record as `Record.to_json` wrote it, without tokens."""
    error = value.get("error") or {}
    return Record(
        value["path"],
        value["status"],
        tuple(
            Caption(
                item["text"],
                item["score"],
                (),
                cut=item.get("cut", False),
                confidence=item.get("confidence"),
                source=value.get("source", "model") if number == 0 else "model",
            )
            for number, item in enumerate(value.get("captions", ()))
        ),
        value.get("width"),
        value.get("height"),
        value.get("model"),
        error.get("code"),
        error.get("message"),
        confidence=value.get("confidence"),
        in_domain=value.get("in_domain"),
        labels=tuple(Label(item["name"], item["probability"]) for item in value["labels"]) if "labels" in value else None,
    )


def _write_shard(path: Path, records: Sequence[Record]) -> None:
    lines = "".join(f"{to_line(record)}\n" for record in records).encode()
    end = json.dumps({"records": len(records), "sha256": hashlib.sha256(lines).hexdigest()})
    with replacing(path) as temporary:
        temporary.write_bytes(lines + end.encode() + b"\n")


def _read_shard(path: Path) -> list[Record] | None:
    """The records of a shard, or None where it is damaged. Raises DataError where it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); resume when it can") from None
    with suppress(ValueError, KeyError, TypeError):
        *lines, last = data.splitlines(keepends=True)
        end = json.loads(last)
        if end["records"] == len(lines) and end["sha256"] == hashlib.sha256(b"".join(lines)).hexdigest():
            return [from_json(json.loads(line)) for line in lines]
    return None


def _key(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=12).digest()


def _lock(folder: Path) -> int | None:
    """Holds the run for this process, where the system has such locks; they end with the process, however it ends."""
    try:
        import fcntl
    except ImportError:
        return None
    with writing(folder):
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise OutputError(f"{folder}: another process works on this run; wait for it, or end it") from None
    return handle
