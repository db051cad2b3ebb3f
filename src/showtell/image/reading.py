"""Reads photos: checks size, signature and number of pixels, decodes, and returns upright 8-bit RGB."""

import contextlib
import io
import math
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageFile

from showtell.arrays import Array
from showtell.errors import ImageError, OptionError
from showtell.image.formats import decoder, is_cut
from showtell.image.jpeg import passes
from showtell.image.modes import to_rgb
from showtell.image.png import essential
from showtell.image.preprocessing import Preprocessing, to_pixels
from showtell.image.source import PhotoSource, from_array, name_of, read_bytes

# A JPEG is decoded scaled if both sides stay at least this many times what the model sees. Captions are as good as with 2, and
# 12 megapixels (4000x3000) are then decoded at 1/8 for a model of 256 pixels.
REDUCING_GAP = 1.4
_ORIENTATION = 0x0112  # EXIF's tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_END_OF_JPEG = b"\xff\xd9"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSettings:
    """Limits on input files.

    `max_bytes` limits the encoded file. `max_pixels` limits width times height in the header, after the scaling of a large
    JPEG; the default takes up to 1 GB for a moment. `max_passed_pixels` limits the pixels of a JPEG before scaling, times its
    scans: the default allows 200 megapixels, or 128 in a progressive JPEG. `lenient` accepts the decoded part of a file that
    is cut short or damaged; the rest of such a picture is black or grey.
    """

    max_bytes: int = 256 * 2**20
    max_pixels: int = 64_000_000
    max_passed_pixels: int = 1_280_000_000
    lenient: bool = False

    def __post_init__(self) -> None:
        for field in ("max_bytes", "max_pixels", "max_passed_pixels"):
            if getattr(self, field) < 1:
                raise OptionError(f"{field} is {getattr(self, field)}; it must be at least 1")


DEFAULTS = ImageSettings()


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo for the model: uint8 (size, size, 3), with its original width and height, upright, and Pillow's mode."""

    pixels: Array
    width: int
    height: int
    mode: str


def read_rgb(source: PhotoSource, name: str | None = None, settings: ImageSettings = DEFAULTS) -> Image.Image:
    """Reads an upright 8-bit RGB image from a path, encoded bytes, a file object, a PIL image or an array.

    Arrays are (H, W), (H, W, 1), (H, W, 3) or (H, W, 4): bool, uint8 0..255, uint16 0..65535 or float 0..1. Their channels are
    grey, RGB or RGBA, while OpenCV has BGR. A file object is read from its current position. `name` is the photo's name in
    errors. Raises ImageError.
    """
    return _read(source, name or name_of(source), settings, None).image


def read_photo(
    source: PhotoSource, preprocessing: Preprocessing, name: str | None = None, settings: ImageSettings = DEFAULTS
) -> Photo:
    """Reads a photo, resized for the model. Large JPEGs are decoded scaled, several times as fast. Raises ImageError."""
    picture = _read(source, name or name_of(source), settings, preprocessing.size / preprocessing.crop)
    return Photo(to_pixels(picture.image, preprocessing, picture.box), *picture.size, picture.mode)


@dataclass(frozen=True, slots=True)
class _Picture:
    """A decoded image, with its original size and mode; if it was scaled, `box` is the part of it that the photo covers.

    The box ends within the last row and column of pixels where the size is no multiple of the scale.
    """

    image: Image.Image
    size: tuple[int, int]
    mode: str
    box: tuple[float, float, float, float] | None = None


def _read(source: PhotoSource, name: str, settings: ImageSettings, enough: float | None) -> _Picture:
    """The upright picture in RGB. If it is decoded scaled, each side keeps `REDUCING_GAP * enough` pixels."""
    if isinstance(source, (np.ndarray, Image.Image)):
        data, format_ = b"", ""
    else:
        data, format_ = read_bytes(source, name, settings.max_bytes)
    try:
        if isinstance(source, np.ndarray):
            image = from_array(source, name)
            _check_pixels(image.size, name, settings)
            return _Picture(to_rgb(image), image.size, image.mode)
        if isinstance(source, Image.Image):
            _check_pixels(source.size, name, settings)
            _load_given(source, name)
            picture = _finish(_Picture(source, source.size, source.mode))
            return replace(picture, image=source.copy()) if picture.image is source else picture
        return _decode(data, format_, name, settings, enough)
    except ImageError:
        raise
    except (MemoryError, Image.DecompressionBombError) as error:
        raise ImageError("too-many-pixels", f"{name}: too many pixels to decode ({error or 'memory ran out'})") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on hostile files: struct.error, KeyError, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        if "truncated" in reason.lower() or "eof" in reason.lower() or (data and is_cut(data, format_)):
            remedy = "" if settings.lenient else ", or accept its decoded part (lenient=True)"
            raise ImageError("truncated", f"{name}: the file is cut short ({reason}); get it again", remedy) from None
        raise ImageError("unreadable", f"{name}: broken {format_ or 'image'} ({reason})") from None


def _decode(data: bytes, format_: str, name: str, settings: ImageSettings, enough: float | None) -> _Picture:
    opened = _open(data, format_, name, settings, enough)
    with opened.image as image:
        try:
            _load(image)
            return _finish(opened)
        except Exception as error:  # see _read
            if not settings.lenient:
                raise
            damage = error
        # Pillow accepts damaged files only by a global flag, which would affect other threads. It is not needed: libjpeg
        # completes a JPEG with an end marker, and the other decoders leave the decoded part in the image.
        if format_ == "JPEG":
            opened = _open(data + _END_OF_JPEG, format_, name, settings, enough)
        elif isinstance(image, ImageFile.ImageFile):
            image.tile = []
        with opened.image as image:
            _load(image)
            picture = _finish(opened)
    if all(low == high for low, high in picture.image.getextrema()):  # type: ignore[misc]  # three pairs, as the mode is RGB
        raise damage  # no part was decoded
    return picture


def _open(data: bytes, format_: str, name: str, settings: ImageSettings, enough: float | None) -> _Picture:
    """Reads the header and checks the size; a JPEG that is large enough will be decoded scaled."""
    texts: dict[str, str] = {}
    if format_ == "PNG":
        data, texts = essential(data)
    with _silence():
        image = decoder(format_, name, settings.max_pixels)(io.BytesIO(data))
    image.info.update(texts)
    size = image.size
    box = None
    if format_ == "JPEG":
        if (passed := size[0] * size[1] * passes(data)) > settings.max_passed_pixels:
            message = f"{name}: {size[0]} x {size[1]} pixels in many passes; {passed:,} pixels exceed the limit of"
            raise ImageError("too-many-pixels", f"{message} {settings.max_passed_pixels:,}; save it as a baseline JPEG")
        least = math.ceil(REDUCING_GAP * (enough or 0))
        if least and min(size) >= 2 * least and (scaled := image.draft(None, (least, least))):
            box = scaled[1]
    _check_pixels(image.size, name, settings)
    return _Picture(image, size, image.mode, box)


def _load_given(image: Image.Image, name: str) -> None:
    try:
        image.load()
    except (AssertionError, AttributeError, ValueError) as error:
        if "closed" not in str(error) and getattr(image, "fp", image) is not None:
            raise
        raise ImageError("unreadable", f"{name}: the image is closed; caption it before it is, or pass its path") from None


def _load(image: Image.Image) -> None:
    with _silence() if image.format == "TIFF" else contextlib.nullcontext():  # only TIFF's decoder gives warnings
        image.load()


def _finish(loaded: _Picture) -> _Picture:
    """The loaded picture in RGB, turned by its EXIF orientation."""
    orientation = 1
    # The pixels may be good although the EXIF block is malformed, which raises nearly any exception.
    with _silence(), contextlib.suppress(Exception):
        orientation = loaded.image.getexif().get(_ORIENTATION, 1)
    image = to_rgb(loaded.image)
    if not isinstance(orientation, int) or orientation not in _UPRIGHT:
        return replace(loaded, image=image)
    image, size, box = image.transpose(_UPRIGHT[orientation]), loaded.size, loaded.box
    if box:
        width, height = box[2:] if orientation < 5 else (box[3], box[2])
        left = image.width - width if orientation in (2, 3, 6, 7) else 0
        top = image.height - height if orientation in (3, 4, 7, 8) else 0
        box = (left, top, left + width, top + height)
    return replace(loaded, image=image, size=size if orientation < 5 else size[::-1], box=box)


def _check_pixels(size: tuple[int, int], name: str, settings: ImageSettings) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError("empty", f"{name}: {width} x {height} pixels")
    if width * height > settings.max_pixels:
        raise ImageError(
            "too-many-pixels",
            f"{name}: {width} x {height} pixels; at most {settings.max_pixels:,} are decoded; shrink it",
        )


_WARNINGS = threading.Lock()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Suppresses Pillow's warnings, which errors replace.

    All threads share the list of warning filters, hence the lock. It is held while headers are read, not while pixels are
    decoded.
    """
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
