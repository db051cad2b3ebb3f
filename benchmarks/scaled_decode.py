"""What scaled decoding of large JPEGs gains and whether it changes captions.

    python benchmarks/scaled_decode.py FLICKR8K [--photos 100] [--model BUNDLE]

Dev photos of Flickr8k are enlarged to 12 megapixels and saved as JPEGs. Each is then decoded and resized for the model twice,
whole and scaled, in turns; both results are captioned. As a yardstick, so is the whole one with -1, 0 or 1 added to each value
at random: where that changes the caption, the model and not the scaling is at fault.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

import showtell
from showtell.data import read as read_dataset
from showtell.image import read_photo, read_rgb, to_pixels
from showtell.image.source import Array

PIXELS = 12_000_000


def enlarged(data: bytes) -> bytes:
    """The photo as a JPEG of 12 megapixels."""
    image = read_rgb(data)
    factor = (PIXELS / (image.width * image.height)) ** 0.5
    image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def timed(read: Callable[[], Array]) -> tuple[Array, float]:
    """What `read` gives and the seconds of processor time that it took."""
    started = time.process_time()
    pixels = read()
    return pixels, time.process_time() - started


def main() -> None:
    """Prints the times, their ratio, and how many captions are the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--model", help="a bundle's folder  [default: the embedded model]")
    arguments = parser.parse_args()
    dataset = read_dataset(arguments.data)
    captioner = showtell.load(arguments.model)
    samples = dataset.split("dev")
    chosen = [samples[place] for place in np.linspace(0, len(samples) - 1, arguments.photos).astype(int)]
    wants = captioner.bundle.preprocessing
    whole_seconds, scaled_seconds, same, steady = [], [], 0, 0
    random = np.random.default_rng(0)
    for number, sample in enumerate(chosen):
        data = enlarged(dataset.photos.read(sample.image))
        ways = {
            "whole": lambda data=data: to_pixels(read_rgb(data), wants),
            "scaled": lambda data=data: read_photo(data, wants).pixels,
        }
        order = ("whole", "scaled") if number % 2 else ("scaled", "whole")
        results = {way: timed(ways[way]) for way in order}
        whole_seconds.append(results["whole"][1])
        scaled_seconds.append(results["scaled"][1])
        whole = results["whole"][0]
        noisy = (whole + random.integers(-1, 2, whole.shape)).clip(0, 255).astype(np.uint8)
        found = captioner.search(captioner.features(np.stack([whole, results["scaled"][0], noisy])), captioner.bundle.search)
        first, second, third = (captions[0].text for captions in found)
        same += first == second
        steady += first == third
        if first != second:
            print(f"{sample.image}: {first} | {second}", flush=True)
    ratios = [whole / scaled for whole, scaled in zip(whole_seconds, scaled_seconds, strict=True)]
    for name, seconds in (("whole", whole_seconds), ("scaled", scaled_seconds)):
        print(
            f"{name}: median {1000 * statistics.median(seconds):.0f} ms, {1000 * sum(seconds) / len(seconds):.0f} ms on average"
        )
    print(f"{statistics.median(ratios):.1f} times faster (median of {len(ratios)} pairs), {min(ratios):.1f} at least")
    print(f"the same caption on {same} of {len(chosen)} photos; with random changes by at most 1, on {steady}")


if __name__ == "__main__":
    main()
