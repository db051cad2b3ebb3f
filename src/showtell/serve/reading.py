"""Decodes uploads to pixels, off the event loop.

One thread decodes small pictures, another one large pictures: so at most one large picture is in memory, and none delays the
small ones. Only the header tells the size, so every picture is first opened as a small one, and a large one is refused before
it is decoded.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from showtell.errors import ImageError
from showtell.image import ImageSettings, Photo
from showtell.serve.settings import ServiceSettings
from showtell.serve.upload import Upload


class Reader:
    """Decodes photos by `read` within the service's limits."""

    def __init__(self, read: Callable[[bytes, str, ImageSettings], Photo], settings: ServiceSettings) -> None:
        self._read = read
        self._settings = settings
        self._small = ThreadPoolExecutor(1, "small-photos")
        self._large = ThreadPoolExecutor(1, "large-photos")

    async def read(self, upload: Upload) -> Photo:
        """Decodes an upload for the model, and releases its bytes in any case. Raises ImageError."""
        try:
            if upload.data is None:
                limit = self._settings.large.max_bytes
                raise ImageError("too-large", f"{upload.name}: {upload.size:,} bytes; at most {limit:,} are read")
            try:
                return await self._decode(self._small, upload, self._settings.small)
            except ImageError as error:
                if error.code != "too-many-pixels":
                    raise
            return await self._decode(self._large, upload, self._settings.large)
        finally:
            upload.release()

    async def _decode(self, pool: ThreadPoolExecutor, upload: Upload, limits: ImageSettings) -> Photo:
        assert upload.data is not None
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(pool, self._read, upload.data, upload.name, limits)

    def close(self) -> None:
        """Ends the threads."""
        self._small.shutdown(cancel_futures=True)
        self._large.shutdown(cancel_futures=True)
