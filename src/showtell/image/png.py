"""Removes the chunks of a PNG that its pixels do not need (ISO/IEC 15948, clause 5).

Pillow refuses a picture with a damaged or large profile, text or thumbnail, although its pixels are good.
"""

import struct
import zlib

_START = 8  # bytes of the signature
_MAX_TEXT = 2**20  # bytes, inflated
# The texts with EXIF and XMP, by Pillow's keywords; both may have the orientation.
_ORIENTATION = (b"Raw profile type exif", b"XML:com.adobe.xmp")


def essential(data: bytes) -> tuple[bytes, dict[str, str]]:
    """The PNG with its critical chunks, transparency and EXIF alone; and the texts that may have the orientation.

    Of other chunks only the length is read. Transparency and EXIF with a wrong checksum are left out too. The rest of a cut
    file stays as it is. Raises SyntaxError where other bytes than a chunk precede the pixels.
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
            and view[at + 8 : end - 4].tobytes().startswith(_ORIENTATION)
            and _is_whole(view[at:end])
        ):
            keyword, _, text = data[at + 8 : end - 4].partition(b"\0")
            if keyword in _ORIENTATION:
                texts.setdefault(keyword.decode(), _plain(kind, text).decode("utf-8", "replace"))
        at = end
        if kind == b"IEND":
            break
    return b"".join(parts), texts


def _is_whole(chunk: memoryview) -> bool:
    """Whether a chunk's checksum is right."""
    return bool(zlib.crc32(chunk[4:-4]) == struct.unpack(">I", chunk[-4:])[0])


def _plain(kind: bytes, text: bytes) -> bytes:
    """The inflated text after a text chunk's keyword; empty where it is damaged or too long."""
    packed = kind == b"zTXt"
    if kind == b"iTXt":  # flag, method, language, translated keyword, text
        packed, text = text[:1] != b"\0", b"".join(text[2:].split(b"\0", 2)[2:])
    elif packed:
        text = text[1:]  # the method
    if not packed:
        return text[:_MAX_TEXT]
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(text, _MAX_TEXT)
    except zlib.error:
        return b""
    return b"" if inflater.unconsumed_tail else inflated
