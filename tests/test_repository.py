"""What may be in the repository."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LARGE = 2e6  # bytes
WEIGHTS = {
    "src/showtell/models/lite2-lstm-general/encoder.onnx",
    "src/showtell/models/lite2-lstm-general/step.onnx",
}


def test_no_large_file_but_the_models() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone: only git knows which files are in the repository")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    files = [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    assert len(files) > 100
    assert {name for name in files if (ROOT / name).stat().st_size > LARGE} == WEIGHTS
