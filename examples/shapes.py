"""Draws a small data set to learn from: coloured shapes, each with captions by three made-up writers who differ.

python examples/shapes.py shapes          # 48 train and 24 dev photos of 96 x 96 pixels, and captions.jsonl
showtell train debug --data shapes --output runs/shapes
"""

import argparse
import json
import random
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = {"red": (210, 40, 40), "green": (40, 160, 70), "blue": (50, 80, 210), "yellow": (235, 210, 50)}
SHAPES = ("circle", "square", "triangle")
GROUNDS = {"white": (245, 245, 245), "grey": (150, 150, 150), "black": (20, 20, 20)}
# What the writers say of a thing that all of them see; a model that knows the thing still cannot know their taste.
WRITERS = (
    ("a {colour} {shape}", "one {colour} {shape}"),
    ("there is a {colour} {shape} on {ground}", "i see a {shape} that is {colour}"),
    ("a {size} {shape} in {colour} on a {ground} sheet", "someone drew a {size} {colour} {shape}"),
)


def draw(rng: random.Random) -> tuple[Image.Image, dict[str, str]]:
    """A drawing, and the words for what is in it."""
    colour, shape, ground = rng.choice(list(COLOURS)), rng.choice(SHAPES), rng.choice(list(GROUNDS))
    side = rng.choice((28, 52))
    left, top = (rng.randrange(4, 92 - side) for _ in range(2))
    image = Image.new("RGB", (96, 96), GROUNDS[ground])
    pen, box = ImageDraw.Draw(image), (left, top, left + side, top + side)
    if shape == "circle":
        pen.ellipse(box, COLOURS[colour])
    elif shape == "square":
        pen.rectangle(box, COLOURS[colour])
    else:
        pen.polygon([(left, top + side), (left + side / 2, top), (left + side, top + side)], COLOURS[colour])
    return image, {"colour": colour, "shape": shape, "ground": ground, "size": "small" if side < 40 else "large"}


def write(folder: Path, train: int = 48, dev: int = 24, seed: int = 1) -> None:
    """Writes the data set into a folder: the photos, and captions.jsonl, a table that showtell reads."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(train + dev):
        image, words = draw(rng)
        name = f"{number:03d}.png"
        image.save(folder / name)
        captions = [rng.choice(phrases).format(**words) for phrases in WRITERS]
        rows.append({"image": name, "captions": captions, "split": "train" if number < train else "dev"})
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=48)
    parser.add_argument("--dev", type=int, default=24)
    arguments = parser.parse_args()
    write(arguments.folder, arguments.train, arguments.dev)
