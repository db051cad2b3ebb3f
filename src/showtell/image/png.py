"""A PNG without what its pixels do not depend on (ISO/IEC 15948, clause 5).

A profile, a text or a thumbnail that is damaged or large is no reason to refuse a picture, and Pillow would.
"""

import struct
import zlib

_START = 8  # bytes of the signature
_MOST_TEXT = 2**20  # bytes, inflated
# The texts in which programs keep EXIF and XMP, under Pillow's names; both may say which way is up.
_TURNED = (b"Raw profile type exif", b"XML:com.adobe.xmp")


def essential(data: bytes) -> tuple[bytes, dict[str, str]]:
    """The PNG with its critical chunks, its transparency and its EXIF; and such texts as may say which way is up.

    Of other chunks only the length is looked at. Transparency and EXIF are left out too where their checksum is wrong. Where
    the file is cut, its rest stays as it is. Raises SyntaxError where something else than a chunk stands before the pixels.
    """
    view = memoryview(data)
    parts, texts, at, pixels = [view[:_START]], dict[str, str](), _START, False
    colour = data[25] if len(data) > 25 else 0
    least = {b"eXIf": 0, b"tRNS": {0: 2, 2: 6}.get(colour, 0)}  # bytes
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if not kind.isalpha():
            if pixels:
                break
            raise SyntaxError(f"chunk {kind!r}")
        pixels = pixels or kind == b"IDAT"
        critical = not kind[0] & 0x20
        if critical or end > len(data) or (length >= least.get(kind, end) and _is_whole(view[at:end])):
            parts.append(view[at:end])
        elif (
            kind in (b"tEXt", b"zTXt", b"iTXt")
            and view[at + 8 : end - 4].tobytes().startswith(_TURNED)
            and _is_whole(view[at:end])
        ):
            keyword, _, text = data[at + 8 : end - 4].partition(b"\0")
            if keyword in _TURNED:
                texts.setdefault(keyword.decode(), _plain(kind, text).decode("utf-8", "replace"))
        at = end
        if kind == b"IEND":
            break
    return b"".join(parts), texts


def _is_whole(chunk: memoryview) -> bool:
    """Whether the checksum at the chunk's end is right."""
    return bool(zlib.crc32(chunk[4:-4]) == struct.unpack(">I", chunk[-4:])[0])


def _plain(kind: bytes, text: bytes) -> bytes:
    """What stands behind a text's keyword, inflated; nothing where that is damaged or too much."""
    packed = kind == b"zTXt"
    if kind == b"iTXt":  # flag, method, language, translated keyword, text
        packed, text = text[:1] != b"\0", b"".join(text[2:].split(b"\0", 2)[2:])
    elif packed:
        text = text[1:]  # the method
    if not packed:
        return text[:_MOST_TEXT]
    inflater = zlib.decompressobj()
    try:
        found = inflater.decompress(text, _MOST_TEXT)
    except zlib.error:
        return b""
    return b"" if inflater.unconsumed_tail else found
