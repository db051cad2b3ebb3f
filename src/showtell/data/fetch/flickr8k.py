"""Downloads Flickr8k: two zip files from the releases of jbrownlee/Datasets on GitHub."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from showtell.data.dataset import Dataset
from showtell.data.fetch.download import DownloadSettings, download
from showtell.data.fetch.unpack import unpack
from showtell.data.layouts import read
from showtell.errors import DataError, FetchError, OutputError
from showtell.files import new_folder, writing
from showtell.progress import Progress, silent

FLICKR8K_URL = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
FLICKR8K_FILES = ("Flickr8k_text.zip", "Flickr8k_Dataset.zip")  # the small one first: a wrong URL fails early


@dataclass(frozen=True)
class Fetched:
    """A fetched data set; `already` says that it was complete before the call."""

    dataset: Dataset
    already: bool


def fetch_flickr8k(
    folder: Path, *, url: str = FLICKR8K_URL, settings: DownloadSettings | None = None, progress: Progress = silent
) -> Fetched:
    """Flickr8k in `folder`/Flickr8k, downloaded from below `url`. Zip files that already exist in `folder` are used.

    The zip files are unpacked aside, read as a data set, and moved into place when all photos exist. Raises FetchError where a
    file cannot be downloaded or is not Flickr8k's; a wrong download is deleted, so that the next call downloads it again.
    Raises OutputError where `folder` cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(DataError):
        return Fetched(_read_complete(folder), already=True)
    target = folder / "Flickr8k"
    if target.exists():
        raise OutputError(f"{target}: already exists and is not a complete Flickr8k; move it away or give another folder")
    archives = [folder / name for name in FLICKR8K_FILES]
    downloaded = [archive for archive in archives if not archive.is_file()]
    for archive in downloaded:
        _download(f"{url.rstrip('/')}/{archive.name}", archive, settings, progress)
    try:
        with new_folder(target) as staging:
            for archive in archives:
                unpack(archive, staging, progress=progress)
            _read_complete(staging)
    except (DataError, FetchError) as error:
        remedy = "They were deleted; run this again" if downloaded else "Delete them and run this again"
        for archive in downloaded:
            archive.unlink()
        raise FetchError(f"the zip files are not Flickr8k: {error}. {remedy}, or give another --url") from None
    for archive in downloaded:
        archive.unlink()
    return Fetched(read(folder, "flickr8k"), already=False)


def _read_complete(folder: Path) -> Dataset:
    """Reads Flickr8k in the folder. Raises DataError where photos are missing."""
    dataset = read(folder, "flickr8k")
    if len(dataset.missing) > 2:  # two photos that no split lists are missing everywhere
        raise DataError(dataset.describe_left_out() or "")
    return dataset


def _download(url: str, archive: Path, settings: DownloadSettings | None, progress: Progress) -> None:
    try:
        download(url, archive, settings, progress)
    except FetchError as error:
        files = " and ".join(FLICKR8K_FILES)
        raise FetchError(
            f"{error} Files from another source will do too: put {files} into {archive.parent} and run this again"
        ) from None
