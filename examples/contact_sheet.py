"""Draws photos with their captions below them: the picture in the README.

python examples/contact_sheet.py docs/captions.jpg examples/photos/*.jpg
"""

import sys
import textwrap

from PIL import Image, ImageDraw, ImageFont

import showtell
from showtell.image import read_rgb

WIDTH, HEIGHT, TEXT, GAP, COLUMNS = 320, 214, 64, 12, 3  # pixels


def main(output: str, *photos: str) -> None:
    """Captions the photos and writes the sheet."""
    captions = showtell.load()(list(photos))
    rows = -(-len(photos) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (WIDTH + GAP) + GAP, rows * (HEIGHT + TEXT + GAP) + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=16)
    for number, (photo, caption) in enumerate(zip(photos, captions, strict=True)):
        left = GAP + number % COLUMNS * (WIDTH + GAP)
        top = GAP + number // COLUMNS * (HEIGHT + TEXT + GAP)
        image = read_rgb(photo)
        image.thumbnail((WIDTH, HEIGHT))
        sheet.paste(image, (left + (WIDTH - image.width) // 2, top + (HEIGHT - image.height) // 2))
        pen.multiline_text((left, top + HEIGHT + 8), textwrap.fill(caption.text, 38), fill="black", font=font)
    sheet.save(output, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
