"""Captions in the metadata of photos: XMP `dc:description` and IPTC `Iptc4xmpCore:AltTextAccessibility`.

Pixels are never decoded: of a JPEG, PNG or WebP file only the XMP packet changes, and all other segments are copied as they
are (XMP specification part 3, "Storage in files"; IPTC Photo Metadata Standard 2021.1). For other formats, or on request,
the packet goes into a sidecar: `dog.jpg.xmp` beside `dog.jpg`, as darktable, digiKam and Immich read it.
"""

import contextlib
import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from showtell.archive.beside import Existing
from showtell.errors import DataError, OutputError
from showtell.files import replacing
from showtell.types import Record

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_NAMESPACES = {
    "x": "adobe:ns:meta/",
    "rdf": _RDF,
    "dc": "http://purl.org/dc/elements/1.1/",
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "darktable": "http://darktable.sf.net/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
    "digiKam": "http://www.digikam.org/ns/1.0/",
    "crs": "http://ns.adobe.com/camera-raw-settings/1.0/",
}
DESCRIPTION = f"{{{_NAMESPACES['dc']}}}description"
ALT_TEXT = f"{{{_NAMESPACES['Iptc4xmpCore']}}}AltTextAccessibility"
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
_BEGIN = "<?xpacket begin='\ufeff' id='W5M0MpCehiHzreSzNTczkc9d'?>\n"
_END = "\n<?xpacket end='w'?>"
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_JPEG_EXTENDED = b"http://ns.adobe.com/xmp/extension/\0"
_PNG_XMP = b"XML:com.adobe.xmp\0"
_MOST_XMP = 65_533 - len(_JPEG_XMP)  # bytes of a JPEG's packet: a segment's length is 16 bits and counts itself


@dataclass(frozen=True, slots=True)
class Metadata:
    """The best caption as description and alt text, in the photo (`embed`) or in an `.xmp` file beside it (`xmp`).

    Text that is there is kept where `existing` is `skip`. `add` keeps it too, and puts the caption on a further line.
    """

    where: Literal["embed", "xmp"]
    existing: Existing = "skip"

    def has(self, photo: str) -> bool:
        """Whether the photo has a description or an alt text already."""
        try:
            return any(texts(self._packet(Path(photo))))
        except (DataError, OSError, ValueError):
            return False

    def write(self, record: Record) -> None:
        """Writes the best caption. Raises DataError for a format without a place for XMP and for damaged files, OutputError."""
        if record.caption is None:
            return
        path = Path(record.path)
        try:
            packet = described(self._packet(path), record.caption, self.existing)
            if packet is None:
                return
            if self.where == "xmp":
                with replacing(sidecar(path)) as temporary:
                    temporary.write_bytes(packet)
            else:
                _embed(path, packet)
        except DataError as error:
            remedy = "; --metadata xmp writes beside it" if self.where == "embed" else ""
            about = "" if str(error).startswith(str(path)) else f"{path}: "
            raise DataError(f"{about}{error}{remedy}") from None
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None

    def _packet(self, path: Path) -> bytes | None:
        if self.where == "xmp":
            beside = sidecar(path)
            return beside.read_bytes() if beside.exists() else None
        return read(path)


def sidecar(photo: Path) -> Path:
    """The XMP file of a photo; its name keeps the photo's suffix, so that dog.jpg and dog.png have one each."""
    return photo.with_name(photo.name + ".xmp")


def texts(packet: bytes | None) -> tuple[str, str]:
    """The description and the alt text of an XMP packet; empty where there is none. Raises DataError for a broken packet."""
    descriptions = _root(packet)[1]
    return _text(_holding(descriptions, DESCRIPTION), DESCRIPTION), _text(_holding(descriptions, ALT_TEXT), ALT_TEXT)


def described(packet: bytes | None, caption: str, existing: Existing) -> bytes | None:
    """The packet with the caption as description and alt text, or None where nothing changes. Raises DataError."""
    root, descriptions = _root(packet)
    changed = False
    for tag in (DESCRIPTION, ALT_TEXT):
        description = _holding(descriptions, tag)
        old = _text(description, tag)
        if old == caption or (old and (existing == "skip" or (existing == "add" and caption in old.split("\n")))):
            continue
        _set(description, tag, f"{old}\n{caption}" if old and existing == "add" else caption)
        changed = True
    if not changed:
        return None
    return (_BEGIN + ElementTree.tostring(root, "unicode") + _END).encode()


def read(path: Path) -> bytes | None:
    """The XMP packet in a JPEG, PNG or WebP file, or None where it has none. Raises DataError, OSError."""
    data = path.read_bytes()
    return _container(path, data).packet(data)


def _embed(path: Path, packet: bytes) -> None:
    status = path.stat()
    data = path.read_bytes()
    with replacing(path) as temporary:
        temporary.write_bytes(_container(path, data).with_packet(data, packet))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # when it was taken, to those who sort by it


@dataclass(frozen=True, slots=True)
class _Container:
    """How a format keeps an XMP packet."""

    packet: Callable[[bytes], bytes | None]
    with_packet: Callable[[bytes, bytes], bytes]


def _container(path: Path, data: bytes) -> _Container:
    if data.startswith(b"\xff\xd8\xff"):
        found = _Container(_jpeg_packet, _jpeg_with)
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        found = _Container(_png_packet, _png_with)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        found = _Container(_webp_packet, _webp_with)
    else:
        raise DataError(f"{path}: no place for a caption is known in this format; JPEG, PNG and WebP have one")

    def named(read_or_write: Callable[..., bytes | None]) -> Callable[..., bytes | None]:
        def call(*arguments: bytes) -> bytes | None:
            try:
                return read_or_write(*arguments)
            except (struct.error, IndexError, ValueError, zlib.error) as error:
                raise DataError(f"{path}: the file's segments are broken ({error})") from None

        return call

    return _Container(named(found.packet), named(found.with_packet))  # type: ignore[arg-type]


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, begin and end of the segments before the pixels; then the rest, from the start of scan, as marker 0xDA."""
    at = 2
    while True:
        if data[at] != 0xFF:
            raise ValueError(f"no marker at byte {at}")
        while data[at + 1] == 0xFF:  # fill bytes
            at += 1
        marker = data[at + 1]
        if marker == 0xDA:
            yield marker, at, len(data)
            return
        [size] = struct.unpack_from(">H", data, at + 2)
        if size < 2 or at + 2 + size > len(data):
            raise ValueError(f"a segment at byte {at} goes beyond the file")
        yield marker, at, at + 2 + size
        at += 2 + size


def _jpeg_packet(data: bytes) -> bytes | None:
    for marker, begin, end in _jpeg_segments(data):
        if marker == 0xE1 and data.startswith(_JPEG_XMP, begin + 4):
            return data[begin + 4 + len(_JPEG_XMP) : end]
    return None


def _jpeg_with(data: bytes, packet: bytes) -> bytes:
    if len(packet) > _MOST_XMP:
        raise ValueError(f"the XMP packet would have {len(packet):,} bytes; a JPEG segment holds {_MOST_XMP:,}")
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(_JPEG_XMP) + len(packet)) + _JPEG_XMP + packet
    old, after = None, 2  # behind JFIF and EXIF, which readers expect first
    for marker, begin, end in _jpeg_segments(data):
        if marker == 0xE1 and data.startswith(_JPEG_XMP, begin + 4):
            old = begin, end
            break
        if after == begin and (marker == 0xE0 or (marker == 0xE1 and data.startswith(b"Exif\0", begin + 4))):
            after = end
    begin, end = old or (after, after)
    return data[:begin] + segment + data[end:]


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    at = 8
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if at + 12 + size > len(data):
            raise ValueError(f"a chunk at byte {at} goes beyond the file")
        yield kind, at, at + 12 + size
        if kind == b"IEND":
            return
        at += 12 + size
    raise ValueError("it has no end")


def _png_xmp(data: bytes) -> tuple[int, int] | None:
    return next(
        ((begin, end) for kind, begin, end in _png_chunks(data) if kind == b"iTXt" and data.startswith(_PNG_XMP, begin + 8)),
        None,
    )


def _png_packet(data: bytes) -> bytes | None:
    if (place := _png_xmp(data)) is None:
        return None
    body = data[place[0] + 8 + len(_PNG_XMP) : place[1] - 4]
    compressed = body[0]
    text = body[2:].split(b"\0", 2)[2]  # behind language and translated keyword
    if not compressed:
        return text
    unpacked = zlib.decompressobj()
    return unpacked.decompress(text, 2**24)


def _png_with(data: bytes, packet: bytes) -> bytes:
    body = b"iTXt" + _PNG_XMP + bytes(4) + packet
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    place = _png_xmp(data)
    if place is None:
        _, _, end = next(_png_chunks(data))  # IHDR stays first
        place = end, end
    return data[: place[0]] + chunk + data[place[1] :]


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    at, last = 12, 8 + struct.unpack_from("<I", data, 4)[0]
    if last > len(data):
        raise ValueError("it is cut short")
    while at + 8 <= last:
        kind, size = struct.unpack_from("<4sI", data, at)
        end = at + 8 + size + size % 2
        if end > len(data) + 1:
            raise ValueError(f"a chunk at byte {at} goes beyond the file")
        yield kind, at, min(end, len(data))
        at = end


def _webp_packet(data: bytes) -> bytes | None:
    for kind, begin, _ in _webp_chunks(data):
        if kind == b"XMP ":
            [size] = struct.unpack_from("<I", data, begin + 4)
            return data[begin + 8 : begin + 8 + size]
    return None


def _webp_with(data: bytes, packet: bytes) -> bytes:
    chunks = [(kind, data[begin:end]) for kind, begin, end in _webp_chunks(data) if kind != b"XMP "]
    if not chunks:
        raise ValueError("it has no chunks")
    xmp = b"XMP " + struct.pack("<I", len(packet)) + packet + bytes(len(packet) % 2)
    if chunks[0][0] == b"VP8X":
        head = bytearray(chunks[0][1])
        head[8] |= 0x04  # the flag that XMP follows
        chunks[0] = b"VP8X", bytes(head)
    else:
        width, height, alpha = _webp_size(*chunks[0])
        size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
        chunks.insert(0, (b"VP8X", b"VP8X" + struct.pack("<II", 10, 0x04 | (0x10 if alpha else 0)) + size))
    body = b"WEBP" + b"".join(chunk + bytes(len(chunk) % 2) for _, chunk in chunks) + xmp
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _webp_size(kind: bytes, chunk: bytes) -> tuple[int, int, bool]:
    """Width, height and whether there is alpha, from the header of the pixels (RFC 6386 and 9649)."""
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", chunk, 8 + 6)
        return width & 0x3FFF, height & 0x3FFF, False
    if kind == b"VP8L":
        [bits] = struct.unpack_from("<I", chunk, 8 + 1)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    raise ValueError(f"it begins with the chunk {kind!r}")


def _root(packet: bytes | None) -> tuple[ElementTree.Element, Sequence[ElementTree.Element]]:
    """The tree of a packet, an empty one where there is none, and its elements rdf:Description, one at least."""
    for prefix, uri in _NAMESPACES.items():
        ElementTree.register_namespace(prefix, uri)
    if packet is None or not packet.strip(b"\0 \r\n\t"):
        root = ElementTree.Element(f"{{{_NAMESPACES['x']}}}xmpmeta")
        ElementTree.SubElement(root, f"{{{_RDF}}}RDF")
    else:
        root = _parse(packet)
    rdf = root if root.tag == f"{{{_RDF}}}RDF" else root.find(f"{{{_RDF}}}RDF")
    if rdf is None:
        raise DataError("its XMP has no rdf:RDF")
    found = rdf.findall(f"{{{_RDF}}}Description")
    return root, found or [ElementTree.SubElement(rdf, f"{{{_RDF}}}Description", {f"{{{_RDF}}}about": ""})]


def _holding(descriptions: Sequence[ElementTree.Element], tag: str) -> ElementTree.Element:
    """The rdf:Description that has the property, or the first: programs write one for all or one for each namespace."""
    return next((one for one in descriptions if one.find(tag) is not None or tag in one.attrib), descriptions[0])


def _parse(packet: bytes) -> ElementTree.Element:
    if b"<!DOCTYPE" in packet or b"<!ENTITY" in packet:
        raise DataError("its XMP has a document type, which XMP does not have")
    try:
        for _, (prefix, uri) in ElementTree.iterparse(io.BytesIO(packet.strip(b"\0 \r\n\t")), ["start-ns"]):
            with contextlib.suppress(ValueError):  # reserved, as ns0
                ElementTree.register_namespace(prefix, uri)  # so that the prefixes stay as they are
        return ElementTree.fromstring(packet.strip(b"\0 \r\n\t"))
    except ElementTree.ParseError as error:
        raise DataError(f"its XMP is broken ({error})") from None


def _text(description: ElementTree.Element, tag: str) -> str:
    """The text of a property: a language alternative (its default, or the first), a plain element or an attribute."""
    element = description.find(tag)
    if element is None:
        return description.get(tag, "").strip()
    items = element.findall(f"{{{_RDF}}}Alt/{{{_RDF}}}li")
    if not items:
        return (element.text or "").strip()
    item = next((item for item in items if item.get(_LANGUAGE) == "x-default"), items[0])
    return (item.text or "").strip()


def _set(description: ElementTree.Element, tag: str, text: str) -> None:
    """Sets the default of a language alternative; texts in other languages stay."""
    description.attrib.pop(tag, None)
    element = description.find(tag)
    if element is None:
        element = ElementTree.SubElement(description, tag)
    alternative = element.find(f"{{{_RDF}}}Alt")
    if alternative is None:
        element.text = None
        alternative = ElementTree.SubElement(element, f"{{{_RDF}}}Alt")
    items = alternative.findall(f"{{{_RDF}}}li")
    item = next((item for item in items if item.get(_LANGUAGE) == "x-default"), None)
    if item is None:
        item = ElementTree.Element(f"{{{_RDF}}}li", {_LANGUAGE: "x-default"})
        alternative.insert(0, item)
    item.text = text
