"""Keeps the C heap small, where the C library is glibc.

Uploads and pictures are large and short-lived. By default glibc gives each thread its own heap and keeps freed large blocks
instead of returning them to the system. One heap and fixed thresholds limit the process to the memory that it uses. Smaller
blocks, such as the arrays of a search, stay in the heap: with thresholds of 128 kB, to fetch and return them took a sixth of
the rate under load.
"""

import contextlib
import ctypes

# Parameters of mallopt by their names in <malloc.h>, and the value of the thresholds in bytes.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE = 8 * 2**20


def limit_heap() -> None:
    """Limits the heap for later allocations, so call it before the model is loaded. Without glibc it does nothing."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no glibc
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, _LARGE), (_M_TRIM_THRESHOLD, _LARGE)):
            mallopt(parameter, value)
