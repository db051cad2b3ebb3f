"""One file over HTTP: in a part file beside its target, resumed where it broke off, renamed when it is whole.

A part goes on only if the server says that the file is still the same (RFC 9110: `Range` with `If-Range` and a strong
validator); a server that ignores this sends all of it, and the part begins anew.
"""

import http.client
import json
import random
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from showtell.errors import FetchError, OutputError
from showtell.files import sync, write_json

_BLOCK = 1 << 18  # bytes read at a time
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # answers that another try may change
_LONGEST_WAIT = 60.0  # seconds, whatever the server asks for


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadSettings:
    """How patient a download is.

    `timeout` (seconds) is for each connection and each silence, not for the whole. After `retries` tries in a row that brought
    nothing it gives up; the first wait is `wait` seconds and each further one twice as long. A file of more than `max_bytes`
    is refused.
    """

    timeout: float = 30.0
    retries: int = 5
    wait: float = 1.0
    max_bytes: int = 4 << 30


class _Interrupted(Exception):  # noqa: N818  # not an error yet: there may be another try
    """This try ended early; another may bring more."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def download(
    url: str,
    target: Path,
    settings: DownloadSettings | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> None:
    """Fetches `url` into `target`; `progress(done, total)` counts bytes, total None where the server does not say.

    Raises FetchError where the server refuses, goes on failing or cannot be reached; what has come by then stays in the part
    file for the next call.
    """
    settings = settings or DownloadSettings()
    if urlsplit(url).scheme not in ("http", "https"):
        raise FetchError(f"{url}: only http and https addresses are fetched")
    part = target.with_name(target.name + ".part")
    failures = 0
    while True:
        before = _size(part)
        try:
            _try(url, part, settings, progress)
            break
        except _Interrupted as error:
            failures = failures + 1 if _size(part) <= before else 0
            if failures > settings.retries:
                kept = f" {_size(part):,} bytes are kept in {part} and the next try goes on from there." if _size(part) else ""
                raise FetchError(
                    f"{url}: {error}, {failures} times in a row. Is there a network, and a proxy set where one is needed "
                    f"(HTTPS_PROXY)?{kept}"
                ) from None
            wait = max(error.wait, settings.wait * 2 ** max(0, failures - 1) * random.uniform(0.5, 1.0))
            time.sleep(min(wait, _LONGEST_WAIT))
    sync(part)
    part.replace(target)
    _about(part).unlink(missing_ok=True)


def _try(url: str, part: Path, settings: DownloadSettings, progress: Callable[[int, int | None], None] | None) -> None:
    """One request. Raises _Interrupted where less came than was promised, FetchError where trying again is of no use."""
    start, validator = _resumable(part, url)
    headers = {"User-Agent": "showtell", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    try:
        with _opener().open(urllib.request.Request(url, headers=headers), timeout=settings.timeout) as answer:
            start, total = _agreed(answer, start, part)
            if total is not None and total > settings.max_bytes:
                raise FetchError(f"{url}: has {total:,} bytes; at most {settings.max_bytes:,} are fetched")
            _remember(part, url, answer.headers)
            _receive(answer, part, start, total, settings.max_bytes, url, progress)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:
                if error.headers.get("Content-Range", "") == f"bytes */{start}":
                    return  # nothing is behind what is there: it is whole
                _forget(part)
                raise _Interrupted("the file on the server has changed") from None
            if error.code in _PASSING:
                after = error.headers.get("Retry-After", "")
                raise _Interrupted(f"the server answers {error.code}", float(after) if after.isdecimal() else 0.0) from None
            raise FetchError(f"{url}: the server answers {error.code} ({error.reason}); check the address") from None
    except urllib.error.URLError as error:
        reason = "no answer in time" if isinstance(error.reason, TimeoutError) else str(error.reason)
        raise _Interrupted(f"cannot be reached ({reason})") from None
    except (FetchError, OutputError):
        raise
    except TimeoutError:
        raise _Interrupted(f"nothing came for {settings.timeout:g} seconds") from None
    except (http.client.HTTPException, OSError) as error:
        raise _Interrupted(f"the connection broke off ({error or type(error).__name__})") from None


def _receive(
    answer: Any,
    part: Path,
    start: int,
    total: int | None,
    max_bytes: int,
    url: str,
    progress: Callable[[int, int | None], None] | None,
) -> None:
    try:
        file = open(part, "ab" if start else "wb")  # noqa: SIM115  # the block below holds it
    except OSError as error:
        raise OutputError(f"{part}: cannot be written ({error.strerror})") from None
    with file:
        done = start
        while True:
            block = answer.read1(_BLOCK)  # read() would lose what came before a connection breaks
            if not block:
                break
            try:
                file.write(block)
            except OSError as error:
                raise OutputError(f"{part}: cannot be written ({error.strerror})") from None
            done += len(block)
            if done > max_bytes:
                _forget(part)
                raise FetchError(f"{url}: sends more than the {max_bytes:,} bytes that are fetched")
            if progress:
                progress(done, total)
    if total is not None and done < total:
        raise _Interrupted(f"the connection broke off after {done:,} of {total:,} bytes")


def _agreed(answer: Any, start: int, part: Path) -> tuple[int, int | None]:
    """Where the bytes that come belong, and how long the file is."""
    if answer.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != start:
            _forget(part)
            raise _Interrupted(f"the server was asked for the bytes from {start:,} on and sends others")
        return start, None if match[2] == "*" else int(match[2])
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _opener() -> urllib.request.OpenerDirector:
    """HTTP and HTTPS alone, so that no redirect leads to a local file."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


# --- what is known of a part file --------------------------------------------------------------------------------------------


def _about(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _resumable(part: Path, url: str) -> tuple[int, str]:
    """How much of the part can stay, and the validator to ask with; nothing where either is not known to be this file's."""
    try:
        about = json.loads(_about(part).read_text(encoding="utf-8"))
        if about["url"] == url and about["validator"]:
            return _size(part), str(about["validator"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return 0, ""


def _remember(part: Path, url: str, headers: Any) -> None:
    tag = headers.get("ETag", "")
    validator = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        write_json(_about(part), {"url": url, "validator": validator})
    except OSError as error:
        raise OutputError(f"{part.parent}: cannot be written ({error.strerror})") from None


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _about(part).unlink(missing_ok=True)
