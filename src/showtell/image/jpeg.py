"""The cost of decoding a JPEG, estimated from its markers (ITU-T T.81, annex B)."""

import re
import struct

# A marker: not a stuffed byte (FF 00), not a restart (D0 to D7), not fill (FF FF).
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_START, _END, _SCAN, _TEMPORARY = 0xD8, 0xD9, 0xDA, 0x01
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
# A decoder keeps all coefficients of a progressive picture in memory, so it counts as at least the usual ten scans.
_PROGRESSIVE_PASSES = 10


def passes(data: bytes) -> int:
    """The number of passes over the whole picture: one for a baseline JPEG, one for each scan of others.

    A few kilobytes can hold thousands of scans of a large picture, and each scan takes time.
    """
    scans = components = at = 0
    progressive = False
    while marker := _MARKER.search(data, at):
        kind, at = data[marker.end() - 1], marker.end()
        if kind in (_START, _TEMPORARY):
            continue
        if kind == _END or at + 2 > len(data):
            break
        if kind in _FRAMES:
            components = data[at + 7] if at + 7 < len(data) else 0
            progressive = kind in _PROGRESSIVE
        elif kind == _SCAN:
            scans += 1
            if not progressive and at + 2 < len(data) and data[at + 2] == components:
                return 1  # all components are in one scan, after which decoding ends
        at += struct.unpack_from(">H", data, at)[0]
    return max(scans, _PROGRESSIVE_PASSES if progressive else 1)
