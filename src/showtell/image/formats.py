"""Image formats: identified by the first bytes of a file, with their decoders, and a test for cut files."""

import functools
import importlib
import struct

from PIL import ImageFile

from showtell.errors import ImageError, install_command
from showtell.image.pillow import isolated

# Bytes that suffice to identify a format, with the list of brands of an ISO media file.
HEAD = 512

# Only the decoder of the signature's format is tried, and not through Pillow's registry, which other code of the process may
# change. `JpegImageFile` reads the first picture of a file with several (MPO).
_DECODERS = {
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "WEBP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "PPM": ("PIL.PpmImagePlugin", "PpmImageFile"),
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "HEIF": ("pillow_heif", "HeifImageFile"),
}
_READABLE = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
)
# Formats that are refused by name.
_REFUSED = (
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "Photoshop (PSD)"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"\0\0\1\0", "icon (ICO)"),
    (b"DDS ", "DirectDraw surface (DDS)"),
    (b"qoif", "QOI"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"FUJIFILMCCD-RAW", "camera raw (RAF)"),
    (b"IIRO", "camera raw (ORF)"),
    (b"IIU\0", "camera raw (RW2)"),
    (b"\x1aE\xdf\xa3", "video (Matroska or WebM)"),
)
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2"))


def identify(head: bytes, name: str) -> str:
    """The format of a file that begins with `head`, a key of `_DECODERS`.

    Raises ImageError: `unsupported-format` for a known format that showtell does not read, `not-an-image` for anything else.
    """
    for signature, format_ in _READABLE:
        if head.startswith(signature):
            return format_
    if head[:1] == b"P" and head[1:2] in b"123456f" and head[2:3].isspace():
        return "PPM"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    refused = next((what for signature, what in _REFUSED if head.startswith(signature)), None)
    if head[4:8] == b"ftyp":
        brands = _brands(head)
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & _HEIF_BRANDS:
            return "HEIF"
        refused = "camera raw (CR3)" if b"crx " in brands else "video (MP4 or MOV)"
    elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        refused = "video (AVI)"
    elif b"<svg" in head.lower():
        refused = "drawing (SVG)"
    if refused:
        raise ImageError("unsupported-format", f"{name}: {refused} is not a format that showtell reads; save it as JPEG")
    raise ImageError("not-an-image", f"{name}: not an image that showtell can read (its first bytes are {head[:8]!r})")


def looks_readable(head: bytes) -> bool:
    """Whether a file that begins with `head` has the signature of a format that showtell reads."""
    try:
        identify(head, "")
    except ImageError:
        return False
    return True


@functools.cache
def _decoder(format_: str, max_pixels: int) -> type[ImageFile.ImageFile] | None:
    module, name = _DECODERS[format_]
    try:
        plugin = importlib.import_module(module)
    except ImportError:
        return None
    return isolated(getattr(plugin, name), max_pixels) if getattr(plugin, "SUPPORTED", True) else None


def decoder(format_: str, name: str, max_pixels: int) -> type[ImageFile.ImageFile]:
    """The decoder class of a format, which refuses more than `max_pixels` before it allocates memory.

    Raises ImageError where it is not installed.
    """
    plugin = _decoder(format_, max_pixels)
    if plugin is None:
        name_ = "HEIC" if format_ == "HEIF" else format_
        remedy = f": {install_command('heif')}" if format_ == "HEIF" else "; upgrade pillow"
        raise ImageError("unsupported-format", f"{name}: {name_} needs a decoder that is not installed", remedy)
    return plugin


def is_cut(data: bytes, format_: str) -> bool:
    """Whether the end of a file that failed to decode is missing, if its format tells."""
    if format_ == "JPEG":
        return not data.rstrip(b"\0").endswith(b"\xff\xd9")
    if format_ == "PNG":
        return b"IEND" not in data
    if format_ == "GIF":
        return not data.endswith(b";")
    try:
        if format_ == "WEBP":
            return bool(struct.unpack_from("<I", data, 4)[0] + 8 > len(data))
        if format_ == "BMP":
            return bool(struct.unpack_from("<I", data, 2)[0] > len(data))
        if format_ == "TIFF":
            order = "<" if data[:1] == b"I" else ">"
            return bool(struct.unpack_from(f"{order}I", data, 4)[0] >= len(data))  # the directory is often at the end
        if format_ in ("AVIF", "HEIF"):
            return _last_box_ends(data) > len(data)
    except struct.error:  # the header is cut short
        return True
    return False


def _brands(head: bytes) -> set[bytes]:
    """The brands of an ISO media file, which tell its format."""
    [size] = struct.unpack_from(">I", head)
    return {head[8:12]} | {head[at : at + 4] for at in range(16, min(size, len(head) - 3), 4)}


def _last_box_ends(data: bytes) -> int:
    at = 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size == 1:
            size = struct.unpack_from(">Q", data, at + 8)[0]
        if size == 0 or kind == b"\0\0\0\0":  # to the end of the file
            break
        at += max(size, 8)
    return at
