"""Converts Pillow's pixel modes to 8-bit RGB: transparency becomes white, and deep grey is scaled, not clipped."""

from typing import Any

import numpy as np
from PIL import Image

from showtell.arrays import Array
from showtell.image.source import scale_16_bit

_BAND_ROWS = 64


def to_rgb(image: Image.Image) -> Image.Image:
    """The loaded image in mode RGB; the same object where it has that mode."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _from_deep_grey(image)
    if image.mode == "La":
        image = image.convert("LA")  # Pillow converts premultiplied grey to no other mode
    if _is_transparent(image):
        image = _with_8_bit_transparency(image).convert("RGBA")
        page = Image.new("RGB", image.size, "white")
        page.paste(image, mask=image)
        return page
    return image if image.mode == "RGB" else image.convert("RGB")


def _is_transparent(image: Image.Image) -> bool:
    # In other modes the key has no meaning.
    return image.mode in ("LA", "PA", "RGBA", "RGBa") or (image.mode in ("1", "L", "P", "RGB") and image.has_transparency_data)


def _with_8_bit_transparency(image: Image.Image) -> Image.Image:
    """The image with an 8-bit transparent colour: Pillow keeps the high bytes of 16-bit pixels, but all 16 bits of that."""
    colour = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(colour, tuple) and max(colour) > 255:
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in colour)
    return image


def _from_deep_grey(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    grey = Image.fromarray(_scale_grey(values, image.mode))
    transparent: Any = image.info.get("transparency")
    if isinstance(transparent, int):
        mask = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
        return Image.merge("LA", (grey, mask))
    return grey


def _scale_grey(values: Array, mode: str) -> Array:
    """uint8 (H, W) from 16-bit grey (modes I;16...), or from modes I and F, which do not state their range.

    Their range is the smallest of 0..1 (F only), 0..255 and 0..65535 with all values. Where there is none, or values are
    negative or not finite, the lowest finite value becomes black and the highest white.
    """
    if mode.startswith("I;16"):
        return scale_16_bit(values)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, np.uint8)
    low, high = float(values[finite].min()), float(values[finite].max())
    tops = (1, 255, 65535) if mode == "F" else (255, 65535)
    top: float = next((top for top in tops if high <= top), 0)
    if low >= 0 and top and finite.all():
        low = 0.0
    else:
        top = max(high - low, float(np.finfo(np.float32).tiny))
    grey = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _BAND_ROWS):  # a whole picture in float64 would take several times its memory
        band = slice(start, start + _BAND_ROWS)
        scaled = (np.where(finite[band], values[band], low).astype(np.float64) - low) * (255 / top)
        grey[band] = scaled.clip(0, 255).round()
    return grey
