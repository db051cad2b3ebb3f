"""Listing, rate, memory and the cost of a run directory of `showtell caption` on folders of many photos.

    python benchmarks/archive.py PHOTOS [--counts 1000 10000 100000] [--pairs 3] [--options "--beam-size 1"]

Makes folders of links to the photos in PHOTOS. For each count it prints the seconds from the start of the command to its first
record, photos per second of the whole command, and the highest resident memory until 1,000 records and until the end. Then it
captions the smallest folder with plain JSONL and with a run directory, in turns, and prints the quotient of the times.
`--options` are further options of `showtell caption`.
"""

import argparse
import contextlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

EARLY = 1000  # captions after which memory must no longer grow


def links(folder: Path, photos: list[Path], count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:07}{photos[number % len(photos)].suffix}").symlink_to(photos[number % len(photos)])
    return folder


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "showtell", "caption", *map(str, arguments)]


def memory(process: "subprocess.Popen[bytes]") -> Iterator[int]:
    """Resident bytes, twice a second, until the process ends."""
    while process.poll() is None:
        with contextlib.suppress(OSError, IndexError):  # it ended just now
            yield int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        time.sleep(0.5)


def measure(folder: Path, count: int, options: list[str]) -> str:
    began = time.monotonic()
    with subprocess.Popen(
        command(folder, "--format", "text", *options), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        first = time.monotonic() - began
        early = 0
        samples: list[int] = []
        thread = threading.Thread(target=lambda: samples.extend(memory(process)))
        thread.start()
        lines = 1
        for lines, _ in enumerate(process.stdout, start=2):
            if lines == EARLY:
                early = max(samples, default=0)
    thread.join()
    seconds = time.monotonic() - began
    return (
        f"{count:,} photos: first record after {first:.2f} s; {lines:,} captions in {seconds:.1f} s, {count / seconds:.1f}/s; "
        f"memory {early / 2**20:.0f} MB until {EARLY:,} captions, {max(samples) / 2**20:.0f} MB at most"
    )


def seconds(*arguments: str | Path) -> tuple[float, float]:
    """Wall time and processor time of a command; the second tells more where others use the machine too."""
    began, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command(*arguments), stderr=subprocess.DEVNULL, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{arguments}: exit status {done.returncode}")
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - began, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--options", type=str.split, default=[])
    given = parser.parse_args()
    photos = sorted(path.absolute() for path in given.photos.rglob("*.jpg"))
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for count in given.counts:
            print(measure(links(scratch / str(count), photos, count), count, given.options), flush=True)
        folder = scratch / str(min(given.counts))
        quotients = []
        for pair in range(given.pairs):
            arms = {
                "plain": (folder, *given.options, "--output", scratch / f"plain-{pair}.jsonl"),
                "run": (folder, *given.options, "--output", scratch / f"run-{pair}.jsonl", "--run", scratch / f"run-{pair}"),
            }
            order = ("plain", "run") if pair % 2 else ("run", "plain")
            times = {arm: seconds(*arms[arm]) for arm in order}
            quotients.append([run / plain for run, plain in zip(times["run"], times["plain"], strict=True)])
            shown = [f"{arm} {wall:.1f} s ({used:.1f} s of processors)" for arm, (wall, used) in times.items()]
            print(f"pair {pair + 1}: {', '.join(shown)}", flush=True)
        if quotients:
            wall, used = (statistics.median(column) for column in zip(*quotients, strict=True))
            print(f"run / plain, medians: {wall:.3f} by the clock, {used:.3f} by processor time; {os.cpu_count()} processors")


if __name__ == "__main__":
    main()
