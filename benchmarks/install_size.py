"""What an install without torch takes on disk: builds the wheel, installs it into a fresh environment and measures that.

python benchmarks/install_size.py
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def megabytes(folder: Path) -> float:
    """Size of all files below `folder`, in 10^6 bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) / 1e6


def main() -> None:
    """Prints the size of site-packages without pip, package by package, and the total."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "env"
        venv.create(folder, with_pip=True)
        python = folder / "bin" / "python"
        [site] = subprocess.run(
            [python, "-c", "import site; print(site.getsitepackages()[0])"], check=True, capture_output=True, text=True
        ).stdout.splitlines()
        before = {path.name for path in Path(site).iterdir()}
        subprocess.run([python, "-m", "pip", "install", "--quiet", ROOT], check=True, stdout=sys.stderr)
        sizes = {path.name: megabytes(path) for path in Path(site).iterdir() if path.name not in before and path.is_dir()}
        for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:8]:
            print(f"{size:8.1f} MB  {name}")
        print(f"{sum(sizes.values()):8.1f} MB  in all")


if __name__ == "__main__":
    main()
