"""What may be in the repository."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LARGE = 2e6  # bytes
WEIGHTS = {
    "src/showtell/models/lite2-lstm-general/confidence.npz",
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


def test_one_version_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert next(heading for heading in headings if heading != "Unreleased").split()[0] == version
