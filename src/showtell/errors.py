"""The errors that showtell raises.

    ShowtellError
    ├── OptionError          ValueError          an option's value, or a combination of options, is not allowed
    ├── ImageError           OSError             a photo cannot be read
    ├── CaptionError         ValueError          a captioner has no caption for a photo
    ├── ServerError          OSError             the server behind a captioner cannot be used
    ├── DataError            ValueError          a data set or caption file is broken
    ├── FetchError           OSError             a download failed
    ├── WeightsError         ValueError          weights do not fit their network
    │   └── MissingWeightsError  FileNotFoundError   pretrained weights do not exist
    ├── CacheError           ValueError          a feature cache is damaged or of another encoder
    ├── CheckpointError      ValueError          a checkpoint is missing, damaged or of another architecture
    ├── TrainingError        ArithmeticError     training diverged
    ├── RecipeError          ValueError          a recipe has an unknown key or a wrong value
    ├── BundleError          ValueError          a model bundle is missing, damaged or of another format
    ├── OutputError          OSError             an output cannot be written
    ├── ListenError          OSError             the service cannot listen at its address
    ├── MissingExtraError    ImportError         an optional package is not installed
    ├── MissingToolError     OSError             a program outside Python is not installed
    └── serve.errors.RequestError                an HTTP request is refused, with its own status

Each class is also the built-in exception that a caller would expect. Each message names the file or value, the allowed values
and the remedy. A command prints the message and ends with exit status 2. An ImageError ends one photo alone, with exit status 1
if other photos succeeded. The service answers errors of a request with the HTTP status given below.
"""

import json
import sys
from typing import Literal, Self


class ShowtellError(Exception):
    """The base class of all errors that showtell raises."""


class ShowtellWarning(UserWarning):
    """Work continues, but probably not as intended; the message says how, and what to do instead. Exit status 0."""


class OptionError(ShowtellError, ValueError):
    """Raised for an option with a value that is not allowed, and for contradicting options. Exit status 2, HTTP status 422."""


ImageCode = Literal[
    "not-found",
    "empty",
    "too-large",
    "not-an-image",
    "unsupported-format",
    "too-many-pixels",
    "truncated",
    "unreadable",
]
RecordCode = Literal[ImageCode, "no-caption"]  # of a photo without a caption


class ImageError(ShowtellError, OSError):
    """Raised for a photo that cannot be read. `code` is one of a few stable names, which docs/images.md explains.

    `remedy` helps the person who runs showtell, but not the clients of a service; `message` is the error without it.
    Exit status 1 if other photos succeeded, else 2. HTTP status by code: 400, 413, 415 or 422 (`serve.errors.RECORD_STATUS`).
    """

    def __init__(self, code: ImageCode, message: str, remedy: str = "") -> None:
        super().__init__(message + remedy)
        self.code = code
        self.message = message
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[Self], tuple[ImageCode, str, str]]:
        return type(self), (self.code, self.message, self.remedy)  # for sending it between processes


class CaptionError(ShowtellError, ValueError):
    """The reason why a captioner has no caption for a photo that was read. Exit status 1 if other photos succeeded, else 2."""


class ServerError(ShowtellError, OSError):
    """Raised where the server behind a captioner cannot be reached or refuses all requests. Exit status 2."""


class DataError(ShowtellError, ValueError):
    """Raised for a data set or a caption file that is incomplete or has a broken line. Exit status 2."""


class FetchError(ShowtellError, OSError):
    """Raised where a download fails, or the downloaded file is not the expected one. Exit status 2."""


class WeightsError(ShowtellError, ValueError):
    """Raised for weights that do not fit their network. Exit status 2."""


class MissingWeightsError(WeightsError, FileNotFoundError):
    """Raised where the file of pretrained weights does not exist. Exit status 2."""


class CacheError(ShowtellError, ValueError):
    """Raised for a feature cache that is damaged or belongs to another encoder. Exit status 2."""


class CheckpointError(ShowtellError, ValueError):
    """Raised for a checkpoint that is missing, damaged or of another architecture. Exit status 2."""


class TrainingError(ShowtellError, ArithmeticError):
    """Raised where training diverges: its loss is not finite, or rises too far. Exit status 2."""


class RecipeError(ShowtellError, ValueError):
    """Raised for a training recipe with an unknown key or a value that is not allowed. Exit status 2."""


class BundleError(ShowtellError, ValueError):
    """Raised for a model bundle that is missing, lacks a file, was altered, or has another format. Exit status 2."""


class OutputError(ShowtellError, OSError):
    """Raised for an output file or folder that cannot be written, or already exists. Exit status 2."""

    @classmethod
    def of(cls, path: object, error: OSError) -> Self:
        """The error for `path` with the system's reason."""
        output_error = cls(f"{path}: cannot be written ({error.strerror or error})")
        output_error.strerror = error.strerror
        return output_error


class ListenError(ShowtellError, OSError):
    """Raised where the service cannot listen at its address or socket. Exit status 2."""


class MissingExtraError(ShowtellError, ImportError):
    """Raised for a feature that needs packages of an extra that is not installed. Exit status 2."""

    def __init__(self, extra: str, feature: str) -> None:
        super().__init__(f"{feature} needs packages that are not installed: {install_command(extra)}")


def install_command(extra: str) -> str:
    """The command that installs an extra as showtell was installed: from an index, from a folder, or from a repository."""
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        origin = json.loads(distribution("showtell").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        origin = {}
    where, folder = str(origin.get("url", "")), origin.get("dir_info")
    what, how = f"showtell[{extra}]", ""
    if folder is not None:
        what, how = f"{url2pathname(urlsplit(where).path)}[{extra}]", "--editable " if folder.get("editable") else ""
    elif "vcs_info" in origin:
        what = f"{what} @ {origin['vcs_info']['vcs']}+{where}"
    return f"{sys.executable or 'python'} -m pip install {how}'{what}'"


class MissingToolError(ShowtellError, OSError):
    """Raised for a feature that needs a program or a file outside Python that is not installed. Exit status 2."""
