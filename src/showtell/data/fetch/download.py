"""Downloads one file over HTTP: into a part file beside its target, resumed where it broke off, renamed when it is complete.

A part is resumed only if the server confirms that the file is unchanged (RFC 9110: `Range` with `If-Range` and a strong
validator). A server without ranges sends the whole file, and the part starts again.
"""

import http.client
import json
import random
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from showtell.errors import FetchError, OutputError
from showtell.files import sync, write_json, writing
from showtell.progress import Progress, silent

_BLOCK = 1 << 18  # bytes read at a time
_RETRIED = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses that may change at the next attempt
_LONGEST_WAIT = 60.0  # seconds, whatever the server asks for


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadSettings:
    """Limits of a download.

    `timeout` (seconds) is for connecting and for each wait for data, not for the whole download. After `retries` attempts in
    a row without a byte the download fails. The first wait between attempts is `wait` seconds, and each further one doubles.
    A file of more than `max_bytes` is refused.
    """

    timeout: float = 30.0
    retries: int = 5
    wait: float = 1.0
    max_bytes: int = 4 << 30


class _Interrupted(Exception):  # noqa: N818  # not an error yet: the download retries
    """An attempt ended early; another one may succeed."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _Part:
    """A part file, and beside it a JSON file with the URL and the validator that it belongs to."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self.about = target.with_name(f"{target.name}.part.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def resumable(self, url: str) -> tuple[int, str]:
        """The part's size and validator; 0 and empty where it is not known to be of this URL."""
        try:
            about = json.loads(self.about.read_text(encoding="utf-8"))
            if about["url"] == url and about["validator"]:
                return self.size, str(about["validator"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return 0, ""

    def remember(self, url: str, headers: Mapping[str, str]) -> None:
        """Notes the server's size and validators of the file."""
        tag = headers.get("ETag", "")
        validator = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")
        with writing(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.about, {"url": url, "validator": validator})

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)
        self.about.unlink(missing_ok=True)


class _NoFtp(urllib.request.FTPHandler):
    """Refuses redirects to FTP; urllib itself refuses those to files."""

    def ftp_open(self, req: urllib.request.Request) -> NoReturn:
        raise urllib.error.URLError("it redirects to FTP")


def download(url: str, target: Path, settings: DownloadSettings | None = None, progress: Progress = silent) -> None:
    """Downloads `url` to `target`; `progress` counts megabytes.

    Raises FetchError where the server refuses, fails repeatedly or cannot be reached. The part file stays for the next call.
    """
    settings = settings or DownloadSettings()
    if urlsplit(url).scheme not in ("http", "https"):
        raise FetchError(f"{url}: only http and https addresses can be fetched")
    part = _Part(target)
    failures = 0
    while True:
        before = part.size
        try:
            _attempt(url, part, settings, progress)
            break
        except _Interrupted as error:
            failures = failures + 1 if part.size <= before else 0
            if failures > settings.retries:
                kept = f" {part.size:,} bytes are kept in {part.path}, and the next attempt resumes there." if part.size else ""
                raise FetchError(
                    f"{url}: {error}, {failures} times in a row. Is there a network, and a proxy set where one is needed "
                    f"(HTTPS_PROXY)?{kept}"
                ) from None
            wait = max(error.wait, settings.wait * 2 ** max(0, failures - 1) * random.uniform(0.5, 1.0))
            time.sleep(min(wait, _LONGEST_WAIT))
    sync(part.path)
    part.path.replace(target)
    part.about.unlink(missing_ok=True)


def _attempt(url: str, part: _Part, settings: DownloadSettings, progress: Progress) -> None:
    """Makes one request. Raises _Interrupted where bytes are missing, FetchError where another attempt cannot help."""
    start, validator = part.resumable(url)
    headers = {"User-Agent": "showtell", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.build_opener(_NoFtp).open(request, timeout=settings.timeout) as response:
            start, total = _range(response, start, part)
            if total is not None and total > settings.max_bytes:
                raise FetchError(f"{url}: has {total:,} bytes; at most {settings.max_bytes:,} are fetched")
            part.remember(url, response.headers)
            _receive(response, part, start, total, url, settings.max_bytes, progress)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:
                if error.headers.get("Content-Range", "") == f"bytes */{start}":
                    return  # no bytes are left: the part is complete
                part.delete()
                raise _Interrupted("the file on the server has changed") from None
            if error.code in _RETRIED:
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


def _receive(response: Any, part: _Part, start: int, total: int | None, url: str, max_bytes: int, progress: Progress) -> None:
    with writing(part.path):
        file = open(part.path, "ab" if start else "wb")  # noqa: SIM115  # the block below closes it
    with file:
        done = start
        while block := response.read1(_BLOCK):  # read() would lose the bytes before a broken connection
            with writing(part.path):
                file.write(block)
            done += len(block)
            if done > max_bytes:
                part.delete()
                raise FetchError(f"{url}: sends more than the {max_bytes:,} bytes that are fetched")
            progress(f"{part.path.stem}, MB", done // 10**6, (total or done) // 10**6)
    if total is not None and done < total:
        raise _Interrupted(f"the connection broke off after {done:,} of {total:,} bytes")


def _range(response: Any, start: int, part: _Part) -> tuple[int, int | None]:
    """The position of the response's first byte, and the file's length where it is known."""
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != start:
            part.delete()
            raise _Interrupted(f"the server was asked for the bytes from {start:,} on and sends others")
        return start, None if match[2] == "*" else int(match[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None
