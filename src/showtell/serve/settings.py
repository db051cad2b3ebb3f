"""What the service allows itself and its clients. Each limit is a field, so that memory follows from them."""

import ipaddress
from dataclasses import dataclass, field

from showtell.errors import OptionError
from showtell.image import ImageSettings

MB = 2**20
_SMALL = ImageSettings(max_bytes=16 * MB, max_pixels=1_000_000, max_passed_pixels=20_000_000)
# A picture of 3840 x 2160 pixels is read. What decoding takes is 17 bytes a pixel at most (lossless WebP), 140 MB.
_LARGE = ImageSettings(max_bytes=16 * MB, max_pixels=8_400_000, max_passed_pixels=120_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """Limits of the service. Times are in seconds, sizes in bytes.

    `places` is how many photos may be waiting or worked on at once, over all requests; `max_held_bytes` how much of uploads
    may be in memory at once, encoded. Photos within `small` are decoded in one thread; larger ones, up to `large`, one at a
    time in another, so that at most one large picture is in memory and small ones do not wait for it.
    `upload_timeout` is how long each photo may take to arrive, `deadline` how long its caption may take from then on.
    """

    batch_size: int = 8
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
                f"max_held_bytes is {self.max_held_bytes:,} and a photo may have {self.large.max_bytes:,}: it must fit in"
            )
        if self.token is not None and (len(self.token) < 16 or not self.token.isascii() or not self.token.isprintable()):
            raise OptionError("the token must be at least 16 printable ASCII characters, such as `openssl rand -hex 32` gives")
        if "*" in self.origins:
            raise OptionError("origin '*' would let any site's page use the service; list the sites")


def check_exposure(host: str, token: str | None, *, anonymous: bool) -> None:
    """Refuses to serve other machines without a token, unless told that anyone may. Raises OptionError."""
    if token is None and not anonymous and not _is_loopback(host):
        raise OptionError(
            f"host {host} can be reached from other machines: set SHOWTELL_TOKEN, or say --anonymous if anyone may caption"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
