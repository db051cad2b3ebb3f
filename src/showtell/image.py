"""From any file to model input: the one way a photo becomes an array, in training, evaluation and captioning alike.

A photo is opened by content, turned upright by its EXIF orientation, brought to 8-bit RGB (transparency on white) and
resized as the model's `Preprocessing` says.
"""

import functools
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from showtell.errors import ImageError, OptionError

Array = NDArray[Any]
PhotoSource = str | os.PathLike[str] | bytes | Image.Image | Array

# Only these decoders are ever tried, so that a hostile file cannot reach a rarely used one.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "MPO", "AVIF")
# What a folder is searched for.
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".mpo", ".avif")
)

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an RGB photo becomes network input; travels with the weights.

    The input is float32 (3, size, size): channels in `channel_order`, each `(value * scale - mean) / std` with values 0..255.
    `resize` is "squash": both sides to `size`, whatever the aspect ratio.
    """

    size: int = 224
    resize: Literal["squash"] = "squash"
    resample: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    channel_order: Literal["rgb", "bgr"] = "rgb"
    scale: float = 1.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise OptionError(f"preprocessing size is {self.size}; it must be at least 1 pixel")
        for name, value, allowed in (
            ("resize", self.resize, ("squash",)),
            ("resample", self.resample, tuple(_RESAMPLING)),
            ("channel_order", self.channel_order, ("rgb", "bgr")),
        ):
            if value not in allowed:
                raise OptionError(f"preprocessing {name} is {value!r}; allowed are {', '.join(allowed)}")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Preprocessing from a bundle's or a cache's JSON object. Raises OptionError for a key it does not know."""
        unknown = set(values) - set(cls.__slots__)
        if unknown:
            raise OptionError(f"unknown preprocessing key {sorted(unknown)[0]!r}")
        triples = {key: tuple(values[key]) for key in ("mean", "std") if key in values}
        return cls(**{**values, **triples})

    def normalize(self, pixels: Array) -> Array:
        """uint8 RGB (..., size, size, 3) to float32 (..., 3, size, size)."""
        if self.channel_order == "bgr":
            pixels = pixels[..., ::-1]
        std = np.asarray(self.std, np.float32)
        values = pixels * (np.float32(self.scale) / std) - np.asarray(self.mean, np.float32) / std
        return np.ascontiguousarray(np.moveaxis(values, -1, -3))


def name_of(source: PhotoSource) -> str:
    """What to call a photo in messages and records: its path, or what kind of object it is."""
    if isinstance(source, (str, os.PathLike)):
        return os.fsdecode(source)
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or f"<{source.mode} image>")
    return f"<{type(source).__name__}>"


def read_rgb(source: PhotoSource, name: str | None = None) -> Image.Image:
    """An upright 8-bit RGB image from a path, encoded bytes, a PIL image or an array.

    Arrays are (H, W), (H, W, 3) or (H, W, 4), uint8 0..255 or float 0..1. Raises ImageError with a code and the file's name.
    """
    name = name or name_of(source)
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source, name))
    if isinstance(source, Image.Image):
        return _decode(source, name)
    if isinstance(source, bytes):
        data = source
    else:
        path = Path(source)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise ImageError("not-found", f"{name}: no such file") from None
        except IsADirectoryError:
            raise ImageError("not-an-image", f"{name}: is a folder, not a photo") from None
        except OSError as error:
            raise ImageError("unreadable", f"{name}: {error.strerror or error}") from None
    if not data:
        raise ImageError("empty", f"{name}: the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            return _decode(image, name)
    except Image.UnidentifiedImageError:
        raise ImageError("not-an-image", f"{name}: not an image that showtell can read") from None
    except Image.DecompressionBombError:  # Pillow's own limit, 179 million pixels, checked before anything is decoded
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ImageError("too-many-pixels", f"{name}: more than the {limit:,} pixels that are decoded; shrink the photo") from None


def to_pixels(image: Image.Image, preprocessing: Preprocessing) -> Array:
    """An RGB image resized for the model: uint8 (size, size, 3)."""
    size = (preprocessing.size, preprocessing.size)
    if image.size != size:
        image = image.resize(size, _RESAMPLING[preprocessing.resample])
    return np.asarray(image)


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # AVIF only where Pillow was built with it


def _decode(image: Image.Image, name: str) -> Image.Image:
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        code = "truncated" if "truncated" in str(error).lower() else "unreadable"
        raise ImageError(code, f"{name}: {error}") from None
    try:
        image = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, ZeroDivisionError):
        pass  # a malformed EXIF block says nothing about the pixels, which are good
    return _to_rgb(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # PIL clips 16-bit grey at 255 instead of scaling it.
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_array(array: Array, name: str) -> Image.Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise ImageError("not-an-image", f"{name}: array of shape {array.shape}; it must be (H, W), (H, W, 3) or (H, W, 4)")
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ImageError("not-an-image", f"{name}: float array outside 0..1; scale it or pass uint8 0..255")
        array = (array * 255).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise ImageError("not-an-image", f"{name}: array of {array.dtype}; it must be uint8 0..255 or float 0..1")
    return Image.fromarray(array)
