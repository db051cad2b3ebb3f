"""Data sets from where their users get them: Flickr8k as two zip files from the releases of jbrownlee/Datasets on GitHub."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from showtell.data.dataset import Dataset
from showtell.data.fetch.download import DownloadSettings, download
from showtell.data.fetch.unpack import unpack
from showtell.data.layouts import read
from showtell.errors import DataError, FetchError, OutputError
from showtell.files import sync

FLICKR8K_URL = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
FLICKR8K_FILES = ("Flickr8k_text.zip", "Flickr8k_Dataset.zip")  # the small one first: what fails, fails soon

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Fetched:
    """The data set that is there now, and whether it was there before."""

    dataset: Dataset
    already: bool


def fetch_flickr8k(
    folder: Path,
    *,
    url: str = FLICKR8K_URL,
    settings: DownloadSettings | None = None,
    progress: Progress | None = None,
) -> Fetched:
    """Flickr8k in `folder`/Flickr8k, fetched from below `url`; zip files that lie in `folder` already are used.

    They are unpacked aside and read as a data set; only when all photos are there is the result moved into place, at once.
    Raises FetchError where a file cannot be had or is not what it should be; what was fetched of it is deleted then, so that
    the next call fetches it again. Raises OutputError where `folder` cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror})") from None
    if (there := _whole(folder)) is not None:
        return Fetched(there, already=True)
    target = folder / "Flickr8k"
    if target.exists():
        raise OutputError(f"{target}: is there and is not a whole Flickr8k; move it away or give another folder")
    archives = [folder / name for name in FLICKR8K_FILES]
    fetched = [archive for archive in archives if not archive.is_file()]
    for archive in fetched:
        _download(f"{url.rstrip('/')}/{archive.name}", archive, settings, progress)
    try:
        with tempfile.TemporaryDirectory(prefix=".unpacking.", dir=folder) as temporary:
            staging = Path(temporary) / target.name
            for archive in archives:
                unpack(archive, staging, progress=_named(progress, f"unpacking {archive.name}"))
            _check(staging)
            staging.replace(target)
            sync(folder)
    except FetchError as error:
        ours = "They were deleted; run this again" if fetched else "Delete them and run this again"
        for archive in fetched:
            archive.unlink()
        raise FetchError(f"what came is not Flickr8k: {error}. {ours}, or give another --url") from None
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error})") from None
    for archive in fetched:
        archive.unlink()
    return Fetched(read(folder, "flickr8k"), already=False)


def _whole(folder: Path) -> Dataset | None:
    """The data set in the folder where it is there with all its photos."""
    try:
        dataset = read(folder, "flickr8k")
    except DataError:
        return None
    return None if _lacks(dataset) else dataset


def _check(folder: Path) -> None:
    try:
        dataset = read(folder, "flickr8k")
    except DataError as error:
        raise FetchError(str(error)) from None
    if _lacks(dataset):
        raise FetchError(dataset.describe_left_out() or "")


def _lacks(dataset: Dataset) -> bool:
    """Whether photos are absent: two of those in no split are absent everywhere."""
    return len(dataset.missing) > 2


def _named(progress: Progress | None, what: str, unit: int = 1) -> Callable[[int, int | None], None]:
    def count(done: int, total: int | None) -> None:
        if progress:
            progress(what, done // unit, (total or done) // unit)

    return count


def _download(url: str, archive: Path, settings: DownloadSettings | None, progress: Progress | None) -> None:
    try:
        download(url, archive, settings, _named(progress, f"{archive.name}, MB", unit=10**6))
    except FetchError as error:
        files = " and ".join(FLICKR8K_FILES)
        raise FetchError(
            f"{error} Files fetched in another way will do too: put {files} into {archive.parent} and run this again"
        ) from None
