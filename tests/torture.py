"""Files that have broken photo software: one picture in every format and mode, and everything that is no picture.

`cases()` makes them all; `write(folder)` puts them on disk, with the pipes, links and sockets that only a disk can hold.
"""

import io
import os
import socket
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageDraw

from conftest import draw

WIDTH, HEIGHT = 64, 48
FINE = {"quality": 95, "subsampling": 0}
EXIF_ORIENTATION = 0x0112
# What turns the upright picture into the one that a camera held that way stores.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True)
class Case:
    """A file: what becomes of it is a picture, `expected` within `tolerance` (mean absolute difference), or an error's code."""

    name: str | bytes
    data: bytes
    expected: Image.Image | str
    tolerance: float = 0.6
    lenient: Image.Image | None = None  # the picture of which --lenient shows some rows, where it differs
    rows: tuple[int, int | None] = (0, None)  # which those are


def picture() -> Image.Image:
    """A red square on grey, with a blue corner that tells which way is up and which is left."""
    image = draw("red", "square", offset=-4).crop((0, 0, WIDTH, HEIGHT))
    ImageDraw.Draw(image).rectangle((0, 0, 9, 5), fill=(20, 40, 230))
    return image


def encode(image: Image.Image, format_: str, **options: Any) -> bytes:
    """The image as a file."""
    buffer = io.BytesIO()
    image.copy().save(buffer, format_, **options)  # a copy, since saving leaves settings in an image
    return buffer.getvalue()


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, *extra: tuple[bytes, bytes], interlace: int = 0
) -> bytes:
    """A PNG of filtered rows; `extra` are chunks between header and data."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def with_wrong_checksum(data: bytes, kind: bytes) -> bytes:
    """The PNG with another checksum behind its chunk of that kind."""
    at = data.index(kind) + 4
    at += struct.unpack_from(">I", data, at - 8)[0]
    return data[:at] + bytes(255 - byte for byte in data[at : at + 4]) + data[at + 4 :]


def png_rows(values: np.ndarray) -> bytes:
    """Rows of (H, W, C) uint8 or uint16 values, unfiltered."""
    return b"".join(b"\0" + row.astype(values.dtype.newbyteorder(">")).tobytes() for row in values)


def adam7(values: np.ndarray) -> bytes:
    """The seven passes of an interlaced PNG."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    return b"".join(png_rows(values[top::down, left::right]) for top, left, down, right in passes)


def ycck(cmyk: np.ndarray) -> bytes:
    """A JPEG whose ink values are stored as luma and chroma, as Photoshop writes them."""
    red, green, blue, black = np.moveaxis(cmyk.astype(float), -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = [luma, (blue - luma) / 1.772 + 128, (red - luma) / 1.402 + 128, 255 - black]
    stored = np.stack(planes, -1).round().clip(0, 255).astype(np.uint8)
    data = encode(Image.fromarray(255 - stored, "CMYK"), "JPEG", quality=100, subsampling=0)  # Pillow inverts CMYK on its way
    marker = data.index(b"Adobe")
    return data[: marker + 11] + b"\x02" + data[marker + 12 :]  # the transform: YCCK


def cases() -> list[Case]:
    """All that fit into bytes."""
    image = picture()
    rgb = np.asarray(image)
    grey = image.convert("L")
    grey_rgb = grey.convert("RGB")
    deep, deep_grey = rgb.astype(np.uint16) * 257, np.asarray(grey).astype(np.uint16) * 257
    hole = image.copy()  # the square left half see-through, hence white
    ImageDraw.Draw(hole).rectangle((0, 0, WIDTH // 2 - 1, HEIGHT), fill="white")
    alpha = Image.new("L", image.size, 255)
    ImageDraw.Draw(alpha).rectangle((0, 0, WIDTH // 2 - 1, HEIGHT), fill=0)
    rgba = image.copy()
    rgba.putalpha(alpha)
    la = Image.merge("LA", (grey, alpha))
    hole_grey = hole.convert("L").convert("RGB")
    hole_grey.paste(grey_rgb.crop((WIDTH // 2, 0, WIDTH, HEIGHT)), (WIDTH // 2, 0))
    bilevel = grey.point(lambda value: 255 * (value > 100)).convert("1")
    palette = image.quantize(8, dither=Image.Dither.NONE)
    quantised = palette.convert("RGB")
    background = (128, 128, 128)
    keyed = Image.fromarray(np.where((rgb == 128).all(-1, keepdims=True), 255, rgb).astype(np.uint8))
    other = Image.new("RGB", image.size, "green")
    jpeg, progressive = (encode(image, "JPEG", **FINE, progressive=flag) for flag in (False, True))
    textured = Image.effect_noise((256, 256), 60).convert("RGB")
    noise = {kind: encode(textured, kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM")}
    noise["GIF"] = encode(textured, "GIF", interlace=False)
    upper, lower = (0, 100), (156, 256)  # of 256 rows, of which half are there; BMP's begin with the lowest
    cmyk = np.asarray(image.convert("CMYK"))
    lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")

    def exif(value: int) -> Image.Exif:
        block = Image.Exif()
        block[EXIF_ORIENTATION] = value
        return block

    three_megabytes = zlib.compress(bytes(3 * 2**20))
    turned_xmp = b'<rdf:Description tiff:Orientation="6"/>'
    turned_profile = b"\nexif\n%8d\n" % len(exif(6).tobytes()) + exif(6).tobytes().hex().encode()
    made = [
        Case("jpeg.jpg", jpeg, image, 2),
        Case("progressive.jpeg", progressive, image, 2),
        Case("UPPER.JPG", jpeg, image, 2),
        Case("no suffix", jpeg, image, 2),
        Case("a png in truth.jpg", encode(image, "PNG"), image),
        Case("spaces and \u30ab\u30e1\u30e9 \U0001f415.jpg", jpeg, image, 2),
        Case(b"caf\xe9 not utf-8.jpg", jpeg, image, 2),
        Case("new\nline.jpg", jpeg, image, 2),
        Case("grey.jpg", encode(grey, "JPEG", quality=95), grey_rgb, 2),
        Case("cmyk.jpg", encode(image.convert("CMYK"), "JPEG", quality=95), image, 3),
        Case("ycck.jpg", ycck(cmyk), image, 3),
        Case("rgb, not ycc.jpg", encode(image, "JPEG", **FINE, keep_rgb=True), image, 2),
        Case("small chroma.jpg", encode(image, "JPEG", quality=95, subsampling=2), image, 5),
        Case("garbage behind.jpg", jpeg + b"\0\xff\xd8\xff\xda motion photo" * 99, image, 2),
        Case("broken exif.jpg", encode(image, "JPEG", **FINE, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff?"), image, 2),
        Case("absurd orientation.jpg", encode(image, "JPEG", **FINE, exif=exif(99)), image, 2),
        Case("broken icc.jpg", encode(image, "JPEG", **FINE, icc_profile=b"no profile" * 9), image, 2),
        Case("two views.mpo", encode(image, "MPO", **FINE, save_all=True, append_images=[other.copy()]), image, 2),
        *(
            Case(f"orientation {value}.jpg", encode(image.transpose(how), "JPEG", **FINE, exif=exif(value)), image, 2)
            for value, how in STORED.items()
        ),
        Case("rgb.png", encode(image, "PNG"), image),
        Case("grey.png", encode(grey, "PNG"), grey_rgb),
        Case("bilevel.png", encode(bilevel, "PNG"), bilevel.convert("RGB")),
        Case(
            "grey 2 bit.png",
            png(4, 1, 2, 0, b"\0\x1b"),
            Image.fromarray(np.array([[0, 85, 170, 255]], np.uint8)).convert("RGB"),
        ),
        Case("palette.png", encode(palette, "PNG"), quantised),
        Case("rgba.png", encode(rgba, "PNG"), hole),
        Case("grey and alpha.png", encode(la, "PNG"), hole_grey),
        Case("one transparent colour.png", encode(image, "PNG", transparency=background), keyed),
        Case(
            "transparent palette.png",
            encode(palette, "PNG", transparency=palette.getpixel((WIDTH - 1, HEIGHT - 1))),
            Image.fromarray(np.where((rgb == 128).all(-1, keepdims=True), 255, np.asarray(quantised)).astype(np.uint8)),
        ),
        Case("grey 16 bit.png", png(WIDTH, HEIGHT, 16, 0, png_rows(deep_grey[..., None])), grey_rgb),
        Case(
            "grey 16 bit, one transparent.png",
            png(WIDTH, HEIGHT, 16, 0, png_rows(deep_grey[..., None]), (b"tRNS", struct.pack(">H", 128 * 257))),
            Image.fromarray(np.where(np.asarray(grey_rgb) == 128, 255, np.asarray(grey_rgb)).astype(np.uint8)),
        ),
        Case("rgb 16 bit.png", png(WIDTH, HEIGHT, 16, 2, png_rows(deep)), image),
        Case(
            "rgb 16 bit, one transparent.png",
            png(WIDTH, HEIGHT, 16, 2, png_rows(deep), (b"tRNS", struct.pack(">3H", *(128 * 257,) * 3))),
            keyed,
        ),
        Case("rgba 16 bit.png", png(WIDTH, HEIGHT, 16, 6, png_rows(np.asarray(rgba).astype(np.uint16) * 257)), hole),
        Case(
            "grey and alpha 16 bit.png", png(WIDTH, HEIGHT, 16, 4, png_rows(np.asarray(la).astype(np.uint16) * 257)), hole_grey
        ),
        Case("interlaced.png", png(WIDTH, HEIGHT, 8, 2, adam7(rgb), interlace=1), image),
        Case("animated.png", encode(image, "PNG", save_all=True, append_images=[other]), image),
        Case("broken icc.png", png(WIDTH, HEIGHT, 8, 2, png_rows(rgb), (b"iCCP", b"x\0\0not deflate")), image),
        *(
            Case(f"{name}.png", png(WIDTH, HEIGHT, 8, 2, png_rows(rgb), (kind, body)), image)
            for name, kind, body in (
                ("much text", b"zTXt", b"Comment\0\0" + three_megabytes),
                ("much xmp", b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + three_megabytes),
                ("many exif", b"zTXt", b"Raw profile type exif\0\0" + three_megabytes),
                ("much profile", b"iCCP", b"x\0\0" + three_megabytes),
                ("plain text of megabytes", b"tEXt", b"Comment\0" + b"x" * 2_000_000),
                ("unknown method", b"zTXt", b"Comment\0\7?"),
                ("short gamma", b"gAMA", b"\0"),
                ("short transparency", b"tRNS", b"\0"),
                ("frames out of order", b"fcTL", bytes(range(1, 27))),
            )
        ),
        *(
            Case(f"wrong checksum of {kind.decode()}.png", with_wrong_checksum(data, kind), image)
            for kind, data in (
                (b"tEXt", png(WIDTH, HEIGHT, 8, 2, png_rows(rgb), (b"tEXt", b"Comment\0text"))),
                (b"iCCP", png(WIDTH, HEIGHT, 8, 2, png_rows(rgb), (b"iCCP", b"x\0\0" + three_megabytes))),
                (b"tRNS", encode(image, "PNG", transparency=background)),
                (b"eXIf", encode(image, "PNG", exif=exif(6))),
            )
        ),
        *(
            Case(f"turned by {name}.png", png(HEIGHT, WIDTH, 8, 2, png_rows(np.rot90(rgb)), (kind, body)), image)
            for name, kind, body in (
                ("xmp", b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + turned_xmp),
                ("packed xmp", b"iTXt", b"XML:com.adobe.xmp\0\1\0en\0XMP\0" + zlib.compress(turned_xmp)),
                ("profile", b"tEXt", b"Raw profile type exif\0" + turned_profile),
                ("packed profile", b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(turned_profile)),
            )
        ),
        Case("turned.png", encode(image.transpose(STORED[6]), "PNG", exif=exif(6)), image),
        Case("lossy.webp", encode(image, "WEBP", quality=95), image, 5),
        Case("lossless.webp", encode(image, "WEBP", lossless=True), image),
        Case("rgba.webp", encode(rgba, "WEBP", lossless=True, exact=True), hole),
        Case("animated.webp", encode(image, "WEBP", lossless=True, save_all=True, append_images=[other]), image),
        Case("turned.webp", encode(image.transpose(STORED[8]), "WEBP", lossless=True, exif=exif(8)), image),
        Case("palette.gif", encode(palette, "GIF"), quantised),
        Case("transparent.gif", encode(rgba, "GIF"), hole, 3),
        Case("animated.gif", encode(palette, "GIF", save_all=True, append_images=[other.quantize(8)]), quantised),
        Case("rgb.bmp", encode(image, "BMP"), image),
        Case("rgba.bmp", encode(rgba, "BMP"), image),  # BMP's fourth byte is padding unless the header says more
        Case("palette.bmp", encode(palette, "BMP"), quantised),
        Case("bilevel.bmp", encode(bilevel, "BMP"), bilevel.convert("RGB")),
        *(
            Case(f"{kind}.tiff", encode(image, "TIFF", compression=kind), image)
            for kind in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits")
        ),
        Case("jpeg inside.tif", encode(image, "TIFF", compression="jpeg", quality=95), image, 5),
        Case("fax.tif", encode(bilevel, "TIFF", compression="group4"), bilevel.convert("RGB")),
        Case("rgba.tif", encode(rgba, "TIFF"), hole),
        Case("cmyk.tif", encode(image.convert("CMYK"), "TIFF"), image),
        Case("lab.tif", encode(ImageCms.applyTransform(image, lab), "TIFF"), image, 2),
        Case("ycc.tif", encode(image.convert("YCbCr"), "TIFF"), image, 2),
        Case("palette.tif", encode(palette, "TIFF"), quantised),
        Case("grey 16 bit little.tif", encode(Image.fromarray(deep_grey), "TIFF"), grey_rgb),
        Case("grey 16 bit big.tif", encode(Image.fromarray(deep_grey.astype(">u2")), "TIFF"), grey_rgb),
        Case("grey 32 bit.tif", encode(Image.fromarray(deep_grey.astype(np.int32)), "TIFF"), grey_rgb),
        Case("float.tif", encode(Image.fromarray(np.asarray(grey) / np.float32(255)), "TIFF"), grey_rgb),
        Case("pages.tif", encode(image, "TIFF", save_all=True, append_images=[other]), image),
        Case("turned.tif", encode(image.transpose(STORED[3]), "TIFF", exif=exif(3)), image),
        Case("rgb.ppm", encode(image, "PPM"), image),
        Case("grey.pgm", encode(grey, "PPM"), grey_rgb),
        Case("bilevel.pbm", encode(bilevel, "PPM"), bilevel.convert("RGB")),
        Case("plain.ppm", f"P3\n# text\n{WIDTH} {HEIGHT}\n255\n{' '.join(map(str, rgb.ravel()))}\n".encode(), image),
        Case("rgb 16 bit.ppm", f"P6 {WIDTH} {HEIGHT} 65535\n".encode() + deep.astype(">u2").tobytes(), image),
        Case("grey 16 bit.pgm", f"P5 {WIDTH} {HEIGHT} 65535\n".encode() + deep_grey.astype(">u2").tobytes(), grey_rgb),
        Case("float.pfm", encode(Image.fromarray(np.asarray(grey) / np.float32(255)), "PPM"), grey_rgb),
        Case("nothing.jpg", b"", "empty"),
        Case("text.jpg", b"I am no photo.\n", "not-an-image"),
        Case("page.jpg", b"<!DOCTYPE html><title>404</title>", "not-an-image"),
        Case("zeros.png", bytes(4096), "not-an-image"),
        Case("two bytes.jpg", b"\xff\xd8", "not-an-image"),
        Case("drawing.svg", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported-format"),
        Case("document.pdf", b"%PDF-1.7\n", "unsupported-format"),
        Case("layers.psd", b"8BPS\0\1" + bytes(20), "unsupported-format"),
        Case("icon.ico", encode(image, "ICO"), "unsupported-format"),
        Case("wavelets.jp2", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(20), "unsupported-format"),
        Case("newer.jxl", b"\xff\x0a" + bytes(20), "unsupported-format"),
        Case("film.mp4", b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(20), "unsupported-format"),
        Case("film.mkv", b"\x1aE\xdf\xa3" + bytes(20), "unsupported-format"),
        Case("wide.png", png(200_000, 200_000, 1, 0, b""), "too-many-pixels"),
        Case(
            "wide.gif",
            b"GIF89a\xff\xff\xff\xff\0\0\0," + struct.pack("<4H", 0, 0, 65535, 65535) + b"\0\2\0;",
            "too-many-pixels",
        ),
        Case("no pixels.png", png(0, 0, 8, 2, b""), "unreadable"),
        Case("wrong checksum.png", noise["PNG"].replace(b"IHDR\0\0\1\0", b"IHDR\0\0\1\1", 1), "unreadable"),
        Case("header alone.jpg", noise["JPEG"][:20], "truncated"),
        *(
            Case(f"cut.{kind.lower()}", data[: len(data) // 2], "truncated", 12, textured, lower if kind == "BMP" else upper)
            for kind, data in noise.items()
            if kind != "WEBP"
        ),
        Case("cut.webp", noise["WEBP"][: len(noise["WEBP"]) // 2], "truncated"),  # libwebp gives nothing of it
        Case("cut progressive.jpg", encode(textured, "JPEG", progressive=True)[:-9000], "truncated", 25, textured),
    ]
    return [*made, *_avif(image), *_heic(image)]


def _avif(image: Image.Image) -> list[Case]:
    Image.init()
    if "AVIF" not in Image.SAVE:
        return []
    data = encode(image, "AVIF", quality=95, subsampling="4:4:4")
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    turned = encode(image.transpose(STORED[6]), "AVIF", quality=95, subsampling="4:4:4", exif=exif)
    return [
        Case("new.avif", data, image, 5),
        Case("turned.avif", turned, image, 5),
        Case("cut.avif", data[: len(data) // 2], "truncated"),
    ]


def _heic(image: Image.Image) -> list[Case]:
    try:
        import pillow_heif
    except ImportError:
        return []
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=95, chroma=444)
    return [Case("phone.heic", buffer.getvalue(), image, 5), Case("cut.heic", buffer.getvalue()[:-200], "truncated")]


def write(folder: Path) -> dict[str, Case]:
    """Writes all cases below `folder`, and those that are no files with bytes. Gives the cases by path."""
    made = cases()
    paths = {os.fsdecode(case.name): case for case in made}
    for name, case in paths.items():
        (folder / name).write_bytes(case.data)
    below = folder / "folder.jpg"
    below.mkdir()
    (below / "inside.jpg").write_bytes(made[0].data)
    (below / "back").symlink_to(folder)  # a loop of folders
    (folder / "link.jpg").symlink_to("jpeg.jpg")
    paths |= {"folder.jpg/inside.jpg": made[0], "link.jpg": made[0]}

    (folder / "to itself.jpg").symlink_to("to itself.jpg")
    (folder / "to nothing.jpg").symlink_to("absent")
    os.mkfifo(folder / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(os.path.relpath(folder / "socket.jpg"))  # relative, since the length of its path is limited
    with open(folder / "sparse.jpg", "wb") as file:
        file.write(b"\xff\xd8\xff")
        file.truncate(300 * 10**6)  # which take no room on disk
    refused = {
        "to itself.jpg": "unreadable",
        "to nothing.jpg": "not-found",
        "pipe.jpg": "not-an-image",
        "socket.jpg": "not-an-image",
        "sparse.jpg": "too-large",
    }
    paths |= {name: Case(name, b"", code) for name, code in refused.items()}
    return {str(folder / name): case for name, case in paths.items()}
