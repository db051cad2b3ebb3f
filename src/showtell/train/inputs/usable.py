"""Finds photos that cannot be read before training begins."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from showtell.data import Dataset
from showtell.errors import DataError, ImageError
from showtell.files import replacing
from showtell.image import ImageSettings, Preprocessing, read_photo
from showtell.train.run.display import Reporter
from showtell.train.run.processes import Processes
from showtell.types import Split

_KEY = 32  # bytes of a SHA-256


def usable(
    dataset: Dataset,
    splits: Sequence[Split],
    *,
    images: ImageSettings,
    skip_broken: bool,
    cache: Path | None,
    processes: Processes,
    report: Reporter,
) -> Dataset:
    """The data set without those photos of `splits` that cannot be read, each of which is named.

    Readable photos are remembered in the folder `cache`, if there is one. Raises DataError where photos cannot be read, unless
    `skip_broken`.
    """
    names = [sample.image for sample in dataset.samples if sample.split in splits]
    broken = processes.from_first(_broken(dataset, names, images, cache, report) if processes.first else {})
    if not broken:
        return dataset
    for reason in broken.values():
        report.message(f"showtell: {reason}")
    count = f"{len(broken)} of {len(names)} photos cannot be read"
    if not skip_broken:
        raise DataError(
            f"{dataset.name}: {count}. Fetch them again, or leave them out with --set data.skip_broken=true; "
            "--lenient takes what decodes of photos that are cut short or damaged"
        )
    report.message(f"{count} and are left out")
    return replace(dataset, samples=tuple(sample for sample in dataset.samples if sample.image not in broken))


def _broken(
    dataset: Dataset, names: Sequence[str], images: ImageSettings, cache: Path | None, report: Reporter
) -> dict[str, str]:
    """Reasons by photo name. Photos whose SHA-256 is in the cache's readable.sha256 are not decoded again."""
    file = cache / "readable.sha256" if cache else None
    data = file.read_bytes() if file and file.exists() else b""
    known = {data[start : start + _KEY] for start in range(0, len(data), _KEY)}
    before = len(known)

    def look(name: str) -> bytes | ImageError:
        try:
            digest = dataset.photos.digest(name)
            if digest not in known:
                read_photo(dataset.photos.read(name), Preprocessing(), name, images)
        except ImageError as error:
            return error
        return digest

    broken: dict[str, str] = {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        try:
            for number, (name, found) in enumerate(zip(names, pool.map(look, names), strict=True), start=1):
                if isinstance(found, ImageError):
                    broken[name] = f"{found.message} [{found.code}]"  # the remedy is named once, for all photos
                elif not images.lenient:  # a photo that decodes leniently may not decode strictly
                    known.add(found)
                report.progress("reading photos", number, len(names))
        except BaseException:  # an interrupt does not wait for the other photos
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if file and len(known) > before:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            temporary.write_bytes(b"".join(sorted(known)))
    return broken
