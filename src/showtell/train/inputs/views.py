"""Augmented views of a photo: what training sees besides the photo itself. Nothing outside training does this.

View 0 is the photo as it is. The others are mirrored, cropped (Szegedy et al. 2015: a random share of the area, stretched a
little) and changed in brightness, contrast and saturation, each by draws that depend on seed, photo and view alone, so that a
cache of them can be continued and two runs see the same.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from PIL import Image, ImageEnhance

from showtell.image import Array, ImageSettings, Preprocessing, read_photo, read_rgb, to_pixels

DEFAULT_IMAGES = ImageSettings()
STRETCH = 4 / 3  # of a crop's sides against each other, at most; Szegedy et al. allow aspect ratios from 3/4 to 4/3
_SIDES = re.compile(r"\b(left|right)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How views differ from their photos. Calling it with a photo gives the view of that number."""

    seed: int
    flip: float  # probability of a mirrored view
    crop_min: float  # share of the photo's area that a crop has at least
    crop_max: float  # and at most; 1 and 1 is no crop
    colour: float  # brightness, contrast and saturation are multiplied by 1 - colour to 1 + colour
    sided: frozenset[str] = frozenset()  # photos that are never mirrored: their captions tell left from right

    @classmethod
    def of(cls, captions: Mapping[str, Iterable[str]], *, seed: int, **options: Any) -> Self:
        """The augmentation of photos with these captions, as written."""
        sided = frozenset(name for name, texts in captions.items() if any(_SIDES.search(text) for text in texts))
        return cls(seed, **options, sided=sided)

    def __call__(self, photo: Image.Image, name: str, view: int) -> Image.Image:
        """The view of an RGB photo, RGB too; its size is the crop's."""
        if view == 0:
            return photo
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
        rng = np.random.default_rng([self.seed, view, int.from_bytes(digest[:8], "big")])
        # All draws are made whatever the options, so that a change of one leaves the others' draws as they were.
        mirrored, area, stretch, across, down = rng.random(5)
        factors = 1 + self.colour * rng.uniform(-1, 1, 3)
        width, height = photo.size
        share = self.crop_min + (self.crop_max - self.crop_min) * area
        if share < 1:
            ratio = STRETCH ** (2 * stretch - 1)
            wide = max(1, round(width * min(1.0, math.sqrt(share * ratio))))
            high = max(1, round(height * min(1.0, math.sqrt(share / ratio))))
            x, y = round(across * (width - wide)), round(down * (height - high))
            photo = photo.crop((x, y, x + wide, y + high))
        if mirrored < self.flip and name not in self.sided:
            photo = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.colour > 0:
            for change, factor in zip(
                (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors, strict=True
            ):
                photo = change(photo).enhance(float(factor))
        return photo

    def describe(self, view: int) -> dict[str, Any]:
        """What tells this view's features from others, for the manifest of their cache; `sided` is each photo's own."""
        return {
            "number": view,
            "seed": self.seed,
            "flip": self.flip,
            "crop": [self.crop_min, self.crop_max],
            "colour": self.colour,
        }


def read_view(
    data: bytes,
    name: str,
    preprocessing: Preprocessing,
    augmentation: Augmentation | None,
    number: int,
    images: ImageSettings = DEFAULT_IMAGES,
) -> Array:
    """A view of a photo at the model's size: uint8 (size, size, 3). Raises ImageError where the photo cannot be read."""
    if augmentation is None or number == 0:
        return read_photo(data, preprocessing, name, images).pixels
    return to_pixels(augmentation(read_rgb(data, name, images), name, number), preprocessing)
