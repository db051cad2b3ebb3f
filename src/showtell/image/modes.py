"""Any of Pillow's pixel modes to 8-bit RGB: transparency on white, deep grey scaled to its range, never clipped."""

from typing import Any

import numpy as np
from PIL import Image

from showtell.image.source import Array, scale_16_bit

_BAND_ROWS = 64


def to_rgb(image: Image.Image) -> Image.Image:
    """The loaded image in mode RGB, or itself where it is that already."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _from_deep_grey(image)
    if image.mode == "La":
        image = image.convert("LA")  # Pillow goes from premultiplied grey to nothing else
    if _is_transparent(image):
        image = _with_8_bit_transparency(image).convert("RGBA")
        page = Image.new("RGB", image.size, "white")
        page.paste(image, mask=image)
        return page
    return image if image.mode == "RGB" else image.convert("RGB")


def _is_transparent(image: Image.Image) -> bool:
    # Other modes may carry the key too, and it means nothing there.
    return image.mode in ("LA", "PA", "RGBA", "RGBa") or (image.mode in ("1", "L", "P", "RGB") and image.has_transparency_data)


def _with_8_bit_transparency(image: Image.Image) -> Image.Image:
    """Of 16-bit colour Pillow keeps the high bytes, and the one transparent colour in 16 bits."""
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
    """uint8 (H, W) from 16-bit grey (modes I;16...), or from modes I and F, which do not say what range they use.

    For those it is the smallest of 0..1 (F only), 0..255 and 0..65535 that holds all values; where none does, or values are
    below 0 or not finite, the lowest finite value becomes black and the highest white.
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
    for start in range(0, len(values), _BAND_ROWS):  # in float64 a whole picture would be several times as large as it is
        band = slice(start, start + _BAND_ROWS)
        scaled = (np.where(finite[band], values[band], low).astype(np.float64) - low) * (255 / top)
        grey[band] = scaled.clip(0, 255).round()
    return grey
