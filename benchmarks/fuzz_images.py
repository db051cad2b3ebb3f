"""Feeds mutated photos to the reader: nothing but ImageError may come out, little memory be kept, no file take long.

    pip install atheris
    PYTHONPATH=tests python benchmarks/fuzz_images.py [--files 100000] [--keep FOLDER]

atheris (libFuzzer) chooses the mutations by what they cover of Pillow's Python and of showtell.image. The seeds are the small
ones of the torture files. Half of the mutated PNGs get their checksums put right, since Pillow would look no further.
"""

import argparse
import collections
import os
import random
import struct
import sys
import tempfile
import time
import zlib
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["PIL", "showtell.image"]):
    from PIL import Image

    from showtell.errors import ImageError
    from showtell.image import ImageSettings, Preprocessing, read_photo

from torture import cases

LARGEST = 20_000  # bytes
WARM = 2_000  # files after which memory is first measured: tables are filled and codecs loaded by then
PNG = b"\x89PNG\r\n\x1a\n"
RULES = (ImageSettings(), ImageSettings(lenient=True))
PREPROCESSING = Preprocessing()


class Tally:
    """Reads the files and counts what came of each."""

    def __init__(self, files: int, keep: Path) -> None:
        self.files, self.keep = files, keep
        self.counts: collections.Counter[str] = collections.Counter()
        self.kinds: collections.Counter[str] = collections.Counter()
        self.done = self.failures = 0
        self.slowest = (0.0, 0.0, "")  # seconds of processor time, of wall-clock time, file
        self.memory = self.peak = 0

    def __call__(self, data: bytes) -> None:
        if self.done >= self.files:
            return
        started, worked = time.perf_counter(), time.process_time()
        failure = ""
        try:
            photo = read_photo(data, PREPROCESSING, "the name", RULES[self.done % 2])
            assert photo.pixels.shape == (224, 224, 3)
            outcome = "ok"
        except ImageError as error:
            outcome = error.code
        except Exception as error:
            outcome = failure = type(error).__name__
            self.failures += 1
        seconds = (time.process_time() - worked, time.perf_counter() - started)
        self.counts[outcome] += 1
        self.kinds[data[:4].hex() if outcome != "not-an-image" else "none"] += 1
        self.done += 1
        if failure or seconds[0] > max(0.5, self.slowest[0]):
            name = self.keep / f"{outcome}-{seconds[0]:.2f}s-{self.done}"
            name.write_bytes(data)
        if seconds > self.slowest[:2]:
            self.slowest = (*seconds, outcome)
        if self.done % 100 == 0 or self.done == WARM:
            self.peak = max(self.peak, resident())
        if self.done == WARM:
            self.memory = resident()
        if self.done % 10_000 == 0 or self.done == self.files:
            self.report()

    def report(self) -> None:
        """Prints the counts so far."""
        print(f"{self.done:,} files: " + ", ".join(f"{name} {count:,}" for name, count in self.counts.most_common()))
        print(f"  other than our errors: {self.failures}; kept in {self.keep}")
        print(
            f"  memory: {self.memory / 1e6:.0f} MB after {WARM:,} files, {resident() / 1e6:.0f} now, {self.peak / 1e6:.0f} seen"
        )
        print("  slowest: {:.2f} s of processor time, {:.2f} s on the clock ({})".format(*self.slowest))
        print("  by first bytes: " + ", ".join(f"{kind} {count:,}" for kind, count in self.kinds.most_common(16)), flush=True)


def resident() -> int:
    """Bytes of memory that the process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """libFuzzer's mutation of a file, with a PNG's checksums put right half of the time."""
    changed = atheris.Mutate(data, max_size)
    chance = random.Random(seed)
    if chance.random() < 0.5 and changed.startswith(PNG):
        return with_checksums(changed)
    return changed


def with_checksums(data: bytes) -> bytes:
    """The PNG with the checksum of each chunk recomputed, as far as its lengths make sense."""
    parts, at = [PNG], len(PNG)
    while at + 12 <= len(data):
        [length] = struct.unpack_from(">I", data, at)
        if at + 12 + length > len(data):
            break
        chunk = data[at + 4 : at + 8 + length]
        parts += [data[at : at + 4], chunk, struct.pack(">I", zlib.crc32(chunk))]
        at += 12 + length
    return b"".join([*parts, data[at:]])


def main() -> None:
    """Runs the given number of files and exits with 1 if anything but an ImageError came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--keep", type=Path, help="where failures and slow files go  [default: a new folder]")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    keep = arguments.keep or Path(tempfile.mkdtemp(prefix="fuzz-images-"))
    keep.mkdir(parents=True, exist_ok=True)
    seeds = Path(tempfile.mkdtemp(prefix="fuzz-seeds-"))
    chosen = [case.data for case in cases() if 0 < len(case.data) <= LARGEST]
    for number, data in enumerate(chosen):
        (seeds / f"{number:03}").write_bytes(data)
    print(f"{len(chosen)} seeds; Pillow {Image.__version__}, Python {sys.version.split()[0]}", flush=True)
    limits = [
        "-rss_limit_mb=0",
        "-malloc_limit_mb=0",
        "-timeout=86400",
        f"-max_len={LARGEST}",
        "-len_control=0",
        "-verbosity=0",
    ]
    atheris.Setup(
        ["fuzz", f"-runs={arguments.files + len(chosen)}", f"-seed={arguments.seed}", *limits, str(seeds)],
        Tally(arguments.files, keep),
        custom_mutator=mutate,
    )
    atheris.Fuzz()  # which ends the process itself


if __name__ == "__main__":
    main()
