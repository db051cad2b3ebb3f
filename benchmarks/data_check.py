"""Seconds that `showtell data check` takes, on a data set of yours or on one made up here.

python benchmarks/data_check.py                          # 10,000 made-up photos of 500 x 375
python benchmarks/data_check.py --photos 500 --size 4000 3000
python benchmarks/data_check.py --data FLICKR8K
"""

import argparse
import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from showtell.data import list_entries
from showtell.data.check.check import check
from showtell.data.check.report import write_page

WORDS = ("a", "man", "dog", "red", "runs", "sits", "on", "the", "grass", "street", "with", "ball", "and", "two", "children")


def make(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Photos with texture at several scales, a tenth of them near copies of others; five captions each."""

    def photo(number: int) -> None:
        random = np.random.default_rng(number if number % 10 else number - 1)
        image = Image.new("RGB", size)
        for cells in (4, 16, 64):
            pixels = random.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
            image = Image.blend(image, Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC), 0.5)
        image.save(folder / f"{number:06}.jpg", quality=90 if number % 10 else 80)

    with ThreadPoolExecutor() as pool:
        list(pool.map(photo, range(1, count + 1)))
    random = np.random.default_rng(0)
    with open(folder / "data.jsonl", "w", encoding="utf-8") as file:
        for number in range(1, count + 1):
            captions = [" ".join(random.choice(WORDS, 11)) for _ in range(5)]
            split = ("train", "train", "train", "train", "dev", "test")[number % 6]
            file.write(json.dumps({"image": f"{number:06}.jpg", "captions": captions, "split": split}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--size", type=int, nargs=2, default=(500, 375))
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        data = arguments.data or Path(temporary)
        if not arguments.data:
            make(data, arguments.photos, tuple(arguments.size))
        started = time.perf_counter()
        found = check(list_entries(data), workers=arguments.workers)
        checked = time.perf_counter()
        write_page(found, Path(temporary) / "page.html")
        written = time.perf_counter()
    photos = sum(found.splits.values())
    print(f"{photos:,} photos, {found.captions:,} captions: {checked - started:.1f} s on {arguments.workers} threads")
    print(f"page with thumbnails: {written - checked:.1f} s more")
    print(", ".join(f"{kind} {len(items)}" for kind, items in found.findings.items()) or "nothing found")


if __name__ == "__main__":
    main()
