"""A picture of attention maps: the photo once for each word of its caption, under that word's map (Xu et al. 2015, figure 3).

The service's page draws the same colours in the browser (`serve/page/heatmap.js`).
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from showtell.arrays import Array
from showtell.errors import OutputError
from showtell.files import replacing
from showtell.image import PhotoSource, name_of, read_rgb, to_pixels
from showtell.runtime.captioner import Captioner
from showtell.text import as_sentence, pieces
from showtell.types import Caption, ConfidenceOptions, DecodeOptions

BLUR = 0.55  # grid cells; the standard deviation of the Gaussian that smooths a map
# Weight as a part of the largest, then red, green, blue and opacity: small weights dark, large weights clear.
RAMP = np.array(
    [
        [0.00, 16, 10, 40, 0.82],
        [0.35, 70, 24, 90, 0.62],
        [0.70, 240, 130, 60, 0.20],
        [1.00, 255, 230, 140, 0.04],
    ]
)
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".pdf": "PDF"}

TILE = 360  # pixels of a tile's longer side
MARGIN, GAP, LABEL, TITLE, LINE = 40, 20, 54, 36, 46  # pixels: around all, between tiles, below one; letters, lines
SHAPE = 1.6  # wanted width by height of a caption's tiles together
INK, SOFT, PAPER = (31, 26, 46), (92, 85, 108), (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Explained:
    """A caption and the attention map of each of its tokens: float32 (tokens, side, side), each map summing to 1."""

    caption: Caption
    maps: Array


def explain(captioner: Captioner, photo: PhotoSource, options: DecodeOptions | None = None) -> Image.Image:
    """The photo's captions, best first, each with one tile a word; as many captions as `options` asks for.

    Raises ImageError where the photo cannot be read, OptionError where the model has no attention.
    """
    name = name_of(photo)
    picture = read_rgb(photo, name, captioner.images)
    pixels = to_pixels(picture, captioner.bundle.preprocessing)
    left, top, right, bottom = map(round, captioner.bundle.preprocessing.seen(picture.size))
    picture = picture.crop((left, top, right, bottom))  # the part of the photo that the maps cover
    features = captioner.features(pixels[None])
    options = options or captioner.bundle.search
    [described] = captioner.describe(features, options, ConfidenceOptions(fallback=False))
    captions = described.captions
    maps = captioner.attention(np.repeat(features, len(captions), axis=0), captions, options.style)
    explained = [Explained(caption, part) for caption, part in zip(captions, maps, strict=True)]
    return sheet(picture, explained, captioner.bundle.name)


def save(picture: Image.Image, path: Path) -> None:
    """Writes the picture in the format that the suffix names. Raises OutputError."""
    format_ = picture_format(path)
    with replacing(path) as temporary:
        picture.save(temporary, format_, **({"optimize": True} if format_ == "PNG" else {"quality": 92}))


def picture_format(path: Path) -> str:
    """Pillow's name of the format that a file's suffix names. Raises OutputError for another."""
    format_ = FORMATS.get(path.suffix.lower())
    if format_ is None:
        raise OutputError(f"{path}: the suffix says the format and must be one of {', '.join(FORMATS)}")
    return format_


def sheet(photo: Image.Image, explained: list[Explained], model: str) -> Image.Image:
    """Each caption as a heading, the photo, and the photo once more for each word with its map over it."""
    photo = _fitted(photo)
    words = ImageFont.load_default(24)
    widest = max((words.getlength(label) for part in explained for label in _labels(part.caption)), default=0)
    cell = max(photo.width, math.ceil(widest))
    columns = _columns(cell, photo.height, max(len(part.maps) for part in explained) + 1)
    width = max(2 * MARGIN + columns * cell + (columns - 1) * GAP, 2 * MARGIN + 3 * TILE)
    blocks = [_block(photo, part, model, width, cell, columns) for part in explained]
    page = Image.new("RGB", (width, sum(block.height for block in blocks)), PAPER)
    top = 0
    for block in blocks:
        page.paste(block, (0, top))
        top += block.height
    return page


def heat(photo: Image.Image, weights: Array) -> Image.Image:
    """The RGB photo under the colours of one map, (side, side), scaled to its largest weight.

    The model sees the photo squashed to a square, so the grid covers it evenly whatever its shape.
    """
    smooth = _kernel(photo.height, len(weights)) @ weights @ _kernel(photo.width, len(weights)).T  # (height, width)
    smooth = smooth / smooth.max()
    red, green, blue, opacity = (np.interp(smooth, RAMP[:, 0], RAMP[:, part])[..., None] for part in range(1, 5))
    colours = np.concatenate([red, green, blue], -1)
    blended = (1 - opacity) * np.asarray(photo, np.float64) + opacity * colours
    return Image.fromarray(blended.round().astype(np.uint8))


def _kernel(size: int, cells: int) -> Array:
    """Weights (size, cells) of the grid cells at each of `size` pixels along one side: Gaussians that sum to 1."""
    centres = (np.arange(size) + 0.5) / size * cells - 0.5
    parts = np.exp(-(((np.arange(cells) - centres[:, None]) / BLUR) ** 2) / 2)
    kernel: Array = parts / parts.sum(1, keepdims=True)
    return kernel


def _fitted(photo: Image.Image) -> Image.Image:
    scale = TILE / max(photo.size)
    width, height = (max(1, round(scale * side)) for side in photo.size)
    return photo.resize((width, height), Image.Resampling.LANCZOS)


def _columns(width: int, height: int, tiles: int) -> int:
    """The number of columns that gives about the shape SHAPE with few empty places."""

    def cost(columns: int) -> float:
        rows = math.ceil(tiles / columns)
        shape = columns * (width + GAP) / (rows * (height + LABEL))
        return abs(math.log(shape / SHAPE)) + (rows * columns - tiles) / tiles

    return min(range(1, tiles + 1), key=cost)


def _block(photo: Image.Image, explained: Explained, model: str, width: int, cell: int, columns: int) -> Image.Image:
    labels = _labels(explained.caption)
    tiles = [(photo, "")] + [(heat(photo, part), label) for label, part in zip(labels, explained.maps, strict=True)]
    title, small, words = (ImageFont.load_default(size) for size in (TITLE, 20, 24))
    heading = _wrapped(as_sentence(explained.caption.text, cut=explained.caption.cut), title, width - 2 * MARGIN)
    first = MARGIN + len(heading) * LINE + 52  # pixels above the first row of tiles
    block = Image.new("RGB", (width, first + math.ceil(len(tiles) / columns) * (photo.height + LABEL) + MARGIN // 2), PAPER)
    pen = ImageDraw.Draw(block)
    for number, line in enumerate(heading):
        pen.text((MARGIN, MARGIN - 8 + number * LINE), line, INK, title)
    about = f"{math.exp(explained.caption.score):.0%} likelihood a word (geometric mean), {model}"
    pen.text((MARGIN, MARGIN + len(heading) * LINE), about, SOFT, small)
    for number, (tile, word) in enumerate(tiles):
        middle = MARGIN + number % columns * (cell + GAP) + cell // 2
        top = first + number // columns * (photo.height + LABEL)
        block.paste(tile, (middle - photo.width // 2, top))
        pen.text((middle, top + photo.height + 6), word, INK, words, anchor="ma")
    return block


def _labels(caption: Caption) -> list[str]:
    return [piece.strip() for piece in pieces(caption.tokens)]


def _wrapped(text: str, font: Any, width: int) -> list[str]:
    """The lines of a text that is broken between words where it would be wider."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
