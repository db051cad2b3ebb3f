"""Whole-process time of captioning photos by the command: `python benchmarks/one_photo.py [PHOTO ...] [--runs 10]`."""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

PHOTO = Path(__file__).parents[1] / "examples" / "photos" / "photographer.jpg"


def main() -> None:
    """Runs the command again and again and prints the spread of its wall-clock time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="*", default=[str(PHOTO)])
    parser.add_argument("--runs", type=int, default=10)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "showtell", "caption", *arguments.photos]
    subprocess.run(command, check=True, capture_output=True)  # once, so that files are in memory
    seconds = []
    for _ in range(arguments.runs):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    print(f"{len(arguments.photos)} photo(s), {arguments.runs} runs: ", end="")
    print(f"min {min(seconds):.2f} s, median {statistics.median(seconds):.2f} s, max {max(seconds):.2f} s")


if __name__ == "__main__":
    main()
