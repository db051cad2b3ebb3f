"""Keeping the C heap small, where the C library is glibc.

Uploads and pictures are large and short-lived. By itself glibc gives each thread heaps of its own and, once a large block was
freed, keeps such blocks instead of returning them. One heap and a fixed threshold leave the process at what it really uses.
"""

import contextlib
import ctypes

# <malloc.h>'s names of the parameters, and what they are set to.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE = 128 * 1024


def limit_heap() -> None:
    """Takes effect on what is allocated from now on: call it before the model is loaded. Elsewhere it does nothing."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no glibc
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, _LARGE), (_M_TRIM_THRESHOLD, _LARGE)):
            mallopt(parameter, value)
