"""Every error that showtell raises on purpose.

One tree: catch `ShowtellError` for all of them. Each is also the builtin a caller would expect, and each message names the
file or value at fault, what was allowed and what to do about it.
"""

import json
import sys
from typing import Literal, Self


class ShowtellError(Exception):
    """Base of all errors that showtell raises on purpose."""


class ShowtellWarning(UserWarning):
    """Something goes on, but hardly as it was meant; the message says what is done and what would be better."""


class OptionError(ShowtellError, ValueError):
    """An option has a value that is not allowed, or two options contradict each other."""


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
    """A photo could not be read; `code` is one of a few stable names, which docs/images.md explains.

    `remedy` is what helps whoever runs showtell, and not those who only send it photos; `message` is the error without it.
    """

    def __init__(self, code: ImageCode, message: str, remedy: str = "") -> None:
        super().__init__(message + remedy)
        self.code = code
        self.message = message
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[Self], tuple[ImageCode, str, str]]:
        return type(self), (self.code, self.message, self.remedy)  # so that it can be sent between processes


class CaptionError(ShowtellError, ValueError):
    """A captioner has no caption for a photo that was read."""


class ServerError(ShowtellError, OSError):
    """The server behind a captioner cannot be reached, or refuses all requests."""


class DataError(ShowtellError, ValueError):
    """A data set is missing something or has a broken line."""


class FetchError(ShowtellError, OSError):
    """A download failed, or what came is not what was asked for."""


class WeightsError(ShowtellError, ValueError):
    """Weights do not fit the network that they were meant for."""


class MissingWeightsError(WeightsError, FileNotFoundError):
    """Pretrained weights were asked for and are not there."""


class CacheError(ShowtellError, ValueError):
    """A feature cache belongs to another encoder, or is damaged."""


class CheckpointError(ShowtellError, ValueError):
    """A training checkpoint is missing, incomplete or of another shape."""


class TrainingError(ShowtellError, ArithmeticError):
    """Training cannot go on: its loss is no longer a finite number, or runs away."""


class RecipeError(ShowtellError, ValueError):
    """A training recipe has an unknown key or a value that is not allowed."""


class BundleError(ShowtellError, ValueError):
    """A model bundle is missing a file, was altered, or is of a format this version does not read."""


class OutputError(ShowtellError, OSError):
    """An output file or folder cannot be written, or would overwrite what is there."""

    @classmethod
    def of(cls, path: object, error: OSError) -> Self:
        """That `path` cannot be written, and the system's reason."""
        made = cls(f"{path}: cannot be written ({error.strerror or error})")
        made.strerror = error.strerror
        return made


class ListenError(ShowtellError, OSError):
    """The service cannot listen at the address or the socket that it was given."""


class MissingExtraError(ShowtellError, ImportError):
    """A feature needs packages that the base install leaves out."""

    def __init__(self, extra: str, feature: str) -> None:
        super().__init__(f"{feature} needs packages that are not installed: {install_command(extra)}")


def install_command(extra: str) -> str:
    """The command that adds an extra to this very install: from an index, from a clone, or from where a clone is."""
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
    """A feature needs a program or a file from outside Python that is not on this machine."""
