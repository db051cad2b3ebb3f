"""Kills `showtell caption --run` at random points and compares the records with those of a run that was left alone.

    python benchmarks/kill_test.py [--kills 200] [--photos 200] [--shard-size 5] [--seed 0]

Photos are made by the script: small and all different, one of 20 broken. A run that ends before its kill is begun again.
Exit status 1 where a finished record was lost, a record stands twice, or the final records differ.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from PIL import Image


def make_photos(folder: Path, count: int) -> None:
    """Small photos of two colours; every twentieth is broken."""
    folder.mkdir()
    chance = random.Random(1)
    for number in range(count):
        path = folder / f"{number:05}.jpg"
        if number % 20 == 19:
            path.write_bytes(b"\xff\xd8\xff broken")
            continue
        image = Image.new("RGB", (48, 48), tuple(chance.randrange(256) for _ in range(3)))
        image.paste(tuple(chance.randrange(256) for _ in range(3)), (8, 8, 30, 40))
        image.save(path)


def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "showtell", "caption", *map(str, arguments)], stderr=subprocess.DEVNULL)


def finished(run: Path) -> Counter[str]:
    """The paths of all finished records."""
    found: Counter[str] = Counter()
    for shard in sorted(run.glob("shards/*.jsonl")):
        found.update(json.loads(line)["path"] for line in shard.read_text().splitlines()[:-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--shard-size", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(test(Path(scratch), given))


def test(scratch: Path, given: argparse.Namespace) -> int:
    photos, run, output = scratch / "photos", scratch / "run", scratch / "out.jsonl"
    make_photos(photos, given.photos)
    start(photos, "--output", scratch / "alone.jsonl").wait()
    alone = (scratch / "alone.jsonl").read_text()
    chance = random.Random(given.seed)
    counts: Counter[str] = Counter()
    before: Counter[str] = Counter()
    lost = twice = different = 0
    began = time.monotonic()
    while counts["kills"] < given.kills:
        new = not (run / "manifest.json").exists()
        arguments = [photos, "--output", output] if new else ["--resume"]
        process = start("--run", run, "--shard-size", str(given.shard_size), *arguments)
        try:
            process.wait(timeout=chance.uniform(0, 3.5))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        now = finished(run)
        counts["kills"] += process.returncode == -signal.SIGKILL
        counts["kills of runs with finished shards"] += process.returncode == -signal.SIGKILL and bool(before)
        counts["kills that left a file half written aside"] += any(run.glob("shards/.*"))
        lost += sum((before - now).values())
        twice += sum(count - 1 for count in now.values() if count > 1)
        before = now
        if process.returncode == 1:  # all photos are finished, some of them with errors
            counts["runs that came to their end"] += 1
            different += output.read_text() != alone
            shutil.rmtree(run)
            output.unlink()
            before = Counter()
    if run.exists():
        start("--run", run, *(["--resume"] if (run / "manifest.json").exists() else [photos, "--output", output])).wait()
        different += output.read_text() != alone
    for what, count in counts.items():
        print(f"{what}: {count}")
    print(f"finished records lost: {lost}; records that stand twice: {twice}; runs with other records: {different}")
    print(f"{time.monotonic() - began:.0f} s")
    return int(bool(lost or twice or different))


if __name__ == "__main__":
    main()
