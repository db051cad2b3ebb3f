"""From any file to model input: the one way a photo becomes an array, in training, evaluation and captioning alike.

`read_photo` gives a photo as the model wants it, `read_rgb` the whole picture. Both go through the same gates in the same
order: size of the file, signature, pixels as the header states them, and only then decoding. What is refused raises ImageError
with one of its codes. docs/images.md has a table of all formats and modes.
"""

from showtell.image.folders import SUFFIXES, count_skipped, describe_skipped, is_hidden, kind_of, kind_of_file, walk
from showtell.image.formats import HEAD, identify, looks_readable
from showtell.image.preprocessing import Preprocessing, to_pixels
from showtell.image.reading import ImageSettings, Photo, read_photo, read_rgb
from showtell.image.source import Array, PhotoSource, is_source, name_of

__all__ = [
    "HEAD",
    "SUFFIXES",
    "Array",
    "ImageSettings",
    "Photo",
    "PhotoSource",
    "Preprocessing",
    "count_skipped",
    "describe_skipped",
    "identify",
    "is_hidden",
    "is_source",
    "kind_of",
    "kind_of_file",
    "looks_readable",
    "name_of",
    "read_photo",
    "read_rgb",
    "to_pixels",
    "walk",
]
