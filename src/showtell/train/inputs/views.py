"""Augmentation: random views of the train photos. Nothing outside training uses it.

View 0 is the unchanged photo. The others are flipped, cropped (Szegedy et al. 2015: a random share of the area, with a random
aspect ratio) and changed in brightness, contrast and saturation. All draws follow from seed, photo and view. So a cache of
views can be extended, and two runs see the same views.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from PIL import Image, ImageEnhance

from showtell.arrays import Array
from showtell.image import ImageSettings, Preprocessing, read_photo, read_rgb, to_pixels

DEFAULT_IMAGES = ImageSettings()
STRETCH = 4 / 3  # largest change of the aspect ratio; Szegedy et al. use 3/4 to 4/3
_SIDES = re.compile(r"\b(left|right)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Ranges of the random changes. Calling it with a photo and a number gives that view of the photo."""

    seed: int
    flip: float  # probability of a mirrored view
    crop_min: float  # least share of the photo's area in a crop
    crop_max: float  # largest share; 1 and 1 is no crop
    colour: float  # brightness, contrast and saturation are multiplied by 1 - colour to 1 + colour
    sided: frozenset[str] = frozenset()  # photos that are never flipped: their captions say left or right

    @classmethod
    def of(cls, captions: Mapping[str, Iterable[str]], *, seed: int, **options: Any) -> Self:
        """The augmentation of photos with these captions, untokenised."""
        sided = frozenset(name for name, texts in captions.items() if any(_SIDES.search(text) for text in texts))
        return cls(seed, **options, sided=sided)

    def __call__(self, photo: Image.Image, name: str, view: int) -> Image.Image:
        """The view of an RGB photo, in RGB and the size of the crop."""
        if view == 0:
            return photo
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
        rng = np.random.default_rng([self.seed, view, int.from_bytes(digest[:8], "big")])
        # All draws are made whatever the options, so that changing one option leaves the other draws unchanged.
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
        """The parameters of this view, for the manifest of its feature cache; `sided` belongs to photos, not to the view."""
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
