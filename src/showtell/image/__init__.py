"""Reads photos from any file, for training, evaluation and captioning alike.

`read_photo` returns a photo as model input, `read_rgb` the whole picture. Both make the same checks in the same order: size of
the file, signature, number of pixels in the header, and only then decoding. A refused photo raises ImageError with one of its
codes. docs/images.md has a table of all formats and modes.
"""

from showtell.image.folders import SUFFIXES, count_skipped, describe_skipped, is_hidden, kind_of, kind_of_file, walk
from showtell.image.formats import HEAD, identify, looks_readable
from showtell.image.preprocessing import Preprocessing, to_pixels
from showtell.image.reading import ImageSettings, Photo, read_photo, read_rgb
from showtell.image.source import NamedPhoto, PhotoSource, is_source, name_of

__all__ = [
    "HEAD",
    "SUFFIXES",
    "ImageSettings",
    "NamedPhoto",
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
