"""The limits of the service; together they bound its memory."""

import ipaddress
import re
from dataclasses import dataclass, field

from showtell.errors import OptionError
from showtell.image import ImageSettings

MB = 2**20
_HOST = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[^\s:@/?#\[\]*]+))(?::\d*)?")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@*]+")  # as browsers send it: without a path or a final slash
_SMALL = ImageSettings(max_bytes=16 * MB, max_pixels=1_000_000, max_passed_pixels=20_000_000)
# Up to 3840 x 2160 pixels. Decoding takes at most 17 bytes a pixel (lossless WebP), 140 MB.
_LARGE = ImageSettings(max_bytes=16 * MB, max_pixels=8_400_000, max_passed_pixels=120_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """Limits of the service. Times are in seconds, sizes in bytes.

    `places` limits the photos that wait or are captioned at once, over all requests; `max_held_bytes` limits the encoded bytes
    of uploads in memory. One thread decodes photos within `small`, another one decodes larger photos, up to `large`, one at a
    time. `upload_timeout` limits the time until a photo has arrived, `deadline` the time from then until its caption.
    """

    batch_size: int = 8  # photos in the networks at once, over all threads
    places: int = 64
    max_photos: int = 32  # of one request
    max_stream_photos: int = 1000  # of one streamed request
    max_body_bytes: int = 64 * MB
    max_stream_bytes: int = 1024 * MB
    max_held_bytes: int = 32 * MB
    small: ImageSettings = _SMALL
    large: ImageSettings = _LARGE
    upload_timeout: float = 30.0
    head_timeout: float = 10.0  # for the request line and headers
    deadline: float = 30.0
    max_connections: int = 512
    hosts: tuple[str, ...] = ()  # host names to answer, besides loopback names and the address of the connection
    origins: tuple[str, ...] = ()  # other sites whose pages may call the service (CORS)
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("batch_size", "places", "max_photos", "max_stream_photos", "max_body_bytes", "max_stream_bytes"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("upload_timeout", "head_timeout", "deadline", "max_connections"):
            if getattr(self, name) <= 0:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be more than 0")
        if self.max_held_bytes < self.large.max_bytes:
            raise OptionError(
                f"max_held_bytes is {self.max_held_bytes:,}; it must be at least a photo's limit of {self.large.max_bytes:,}"
            )
        if self.token is not None and (len(self.token) < 16 or not self.token.isascii() or not self.token.isprintable()):
            raise OptionError("the token must be at least 16 printable ASCII characters, such as `openssl rand -hex 32` gives")
        for host in self.hosts:
            if not _is_address(host) and host_name(host) != host.lower():
                raise OptionError(
                    f"host {host!r} is not a name or an address alone, such as captions.example.org or 192.168.1.5"
                )
        for origin in self.origins:
            if not _ORIGIN.fullmatch(origin):
                raise OptionError(f"origin {origin!r} is not scheme and host of one site, such as https://example.org")


def host_name(host: str) -> str | None:
    """The name or address of a Host header, in lower case, without brackets and port; None where the header is malformed."""
    match = _HOST.fullmatch(host)
    return match and (match["address"] or match["name"].removesuffix(".")).lower()


def check_exposure(host: str, token: str | None, *, anonymous: bool) -> None:
    """Raises OptionError where other machines could use the service without a token, unless `anonymous` allows it."""
    if token is None and not anonymous and not is_loopback(host):
        raise OptionError(
            f"host {host} can be reached from other machines: set SHOWTELL_TOKEN, or give --anonymous to let anyone caption"
        )


def is_loopback(host: str) -> bool:
    """Whether a name or an address is of the loopback interface."""
    return ipaddress.ip_address(host).is_loopback if _is_address(host) else host == "localhost"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
