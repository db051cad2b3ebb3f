"""The command as people run it, for tests of any of its parts."""

import os
import subprocess
import sys
from pathlib import Path
from typing import IO


def run(
    *arguments: str | Path,
    stdin: bytes | None = None,
    cwd: Path | None = None,
    stdout: int | IO[bytes] = subprocess.PIPE,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "showtell", *map(str, arguments)]
    return subprocess.run(
        command,
        input=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        cwd=cwd,
        timeout=300,
        check=False,
        env=os.environ | (environment or {}),
    )
