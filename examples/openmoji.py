"""Builds a small captioned data set of drawings, to fine-tune on: OpenMoji's pictures with captions made of their names.

    npm pack openmoji@16.0.0
    pip install resvg-py
    python examples/openmoji.py openmoji-16.0.0.tgz openmoji

Animals, plants, food, places, vehicles and things, rendered 256 pixels wide on white, in Flickr8k's layout. Three captions
each: what it is, its kind and colours, and what it is with colours. The colours are measured in the rendered picture. The
split, 70 / 15 / 15, is drawn with a fixed seed. OpenMoji's drawings and their names are under CC BY-SA 4.0, and so is what this
makes of them.
"""

import argparse
import io
import json
import random
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

SIZE = 256  # pixels
KINDS = {  # OpenMoji's subgroups, as people would call what is in them
    "animal-amphibian": "animal",
    "animal-bird": "bird",
    "animal-bug": "insect",
    "animal-mammal": "animal",
    "animal-marine": "sea animal",
    "animal-reptile": "reptile",
    "arts-crafts": "toy",
    "award-medal": "prize",
    "book-paper": "book or paper",
    "clothing": "piece of clothing",
    "computer": "machine",
    "dishware": "piece of tableware",
    "drink": "drink",
    "event": "party thing",
    "food-asian": "dish",
    "food-fruit": "fruit",
    "food-prepared": "dish",
    "food-sweet": "dessert",
    "food-vegetable": "vegetable",
    "game": "game",
    "household": "household thing",
    "light-video": "lamp or camera",
    "lock": "lock or key",
    "mail": "letter or box",
    "medical": "medical thing",
    "money": "piece of money",
    "musical-instrument": "musical instrument",
    "office": "office thing",
    "phone": "phone",
    "place-building": "building",
    "place-geographic": "landscape",
    "place-other": "place",
    "place-religious": "building",
    "plant-flower": "flower",
    "plant-other": "plant",
    "science": "scientific instrument",
    "sky-weather": "sky",
    "sport": "piece of sports equipment",
    "time": "clock",
    "tool": "tool",
    "transport-air": "aircraft",
    "transport-ground": "vehicle",
    "transport-water": "boat",
    "writing": "pen",
}
COLOURS = {  # of OpenMoji's palette; its black is the outline of every drawing, and white the background
    "blue": ("92d3f5", "61b2e4", "1e50a0"),
    "red": ("ea5a47", "d22f27", "781e32"),
    "green": ("b1cc33", "5c9e31", "186648"),
    "yellow": ("fcea2b", "f1b31c"),
    "grey": ("d0cfce", "9b9b9a", "3f3f3f"),
    "orange": ("f4aa41", "e27022"),
    "pink": ("ffa7c0", "e67a94"),
    "purple": ("b399c8", "8967aa"),
    "brown": ("a57939", "6a462f"),
    "black": ("000000",),
    "white": ("ffffff",),
}
NAMES = [name for name, shades in COLOURS.items() for _ in shades]
PALETTE = np.array([list(bytes.fromhex(shade)) for shades in COLOURS.values() for shade in shades])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("package", type=Path, help="openmoji-VERSION.tgz from npm")
    parser.add_argument("output", type=Path, help="folder of the data set, newly made")
    parser.add_argument("--count", type=int, default=0, help="pictures, drawn at random; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    images = options.output / "images"
    images.mkdir(parents=True)
    with tarfile.open(options.package) as package:
        members = {member.name: member for member in package.getmembers()}

        def read(name: str) -> bytes:
            file = package.extractfile(members[f"package/{name}"])
            assert file is not None, name
            return file.read()

        entries = [entry for entry in json.loads(read("data/openmoji.json")) if entry["subgroups"] in KINDS]
        random.Random(options.seed).shuffle(entries)
        entries = entries[: options.count or None]
        tokens: list[str] = []
        for entry in entries:
            svg = read(f"color/svg/{entry['hexcode']}.svg").decode()
            png = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, background="#ffffff", skip_system_fonts=True)
            picture = Image.open(io.BytesIO(png)).convert("RGB")
            picture.save(images / f"{entry['hexcode']}.png")
            tokens += [f"{entry['hexcode']}.png#{k}\t{caption}" for k, caption in enumerate(captions(entry, picture))]
    (options.output / "Flickr8k.token.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    dev, test = len(entries) * 70 // 100, len(entries) * 85 // 100
    splits = {"train": entries[:dev], "dev": entries[dev:test], "test": entries[test:]}
    for split, part in splits.items():
        names = "".join(f"{entry['hexcode']}.png\n" for entry in part)
        (options.output / f"Flickr_8k.{split}Images.txt").write_text(names, encoding="utf-8")
    (options.output / "LICENCE.txt").write_text(
        f"Pictures and names: OpenMoji, https://openmoji.org, CC BY-SA 4.0 (from {options.package.name}). Rendered on white\n"
        "and captioned by showtell's examples/openmoji.py; under the same licence.\n",
        encoding="utf-8",
    )
    print(", ".join(f"{len(part)} {split}" for split, part in splits.items()), "pictures in", options.output)


def captions(entry: dict[str, str], picture: Image.Image) -> list[str]:
    """Three captions of a picture."""
    name = entry["annotation"].lower().replace("’", "'")
    kind, colour = KINDS[entry["subgroups"]], " and ".join(colours(picture))
    return [
        f"a drawing of {with_article(name)}",
        f"a cartoon {kind} in {colour}",
        f"a {colour} drawing of {with_article(name)} on a white background".replace("a orange", "an orange"),
    ]


def colours(picture: Image.Image) -> list[str]:
    """The one or two colours that cover most of a drawing, and a quarter as much as the first at least."""
    pixels = np.asarray(picture.resize((64, 64), Image.Resampling.NEAREST)).reshape(-1, 3).astype(np.int64)
    nearest = ((pixels[:, None] - PALETTE) ** 2).sum(-1).argmin(1)
    counts = Counter(NAMES[place] for place in nearest)
    first, second, *_ = [*[pair for pair in counts.most_common() if pair[0] not in ("black", "white")], ("", 0), ("", 0)]
    if first[1] < 0.01 * len(pixels):
        return ["black and white"]
    return [name for name, count in (first, second) if name and count > first[1] / 4]


def with_article(name: str) -> str:
    """`a` or `an` before a name, none before a plural."""
    last = name.split(" with ")[0].split(" of ")[0]
    if last.endswith("s") and not last.endswith(("ss", "us")):
        return name
    vowel = name.startswith(("a", "e", "i", "o", "um", "hour")) and not name.startswith(("eu", "one"))
    return f"{'an' if vowel else 'a'} {name}"


if __name__ == "__main__":
    main()
