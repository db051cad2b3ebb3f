"""The OpenAPI description against the service: schemathesis sends what it allows and what it forbids, and reads the answers."""

import os
import subprocess
import sys
from pathlib import Path

import httpx

from serving import serving

TOKEN = "0123456789abcdef-a-secret"


def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    with serving(token=TOKEN) as served:
        described = httpx.get(f"{served.url}/openapi.json").json()
        assert set(described["paths"]) == {
            "/v1/captions",
            "/v1/captions/stream",
            "/v1/model",
            "/health/live",
            "/health/ready",
            "/metrics",
        }
        command = [Path(sys.executable).parent / "schemathesis", "run", f"{served.url}/openapi.json", "--no-color"]
        command += ["--max-examples", "10", "--phases", "examples,coverage,fuzzing", "--generation-deterministic"]
        command += ["--header", f"Authorization: Bearer {TOKEN}"]
        environment = {
            **os.environ,
            "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
        }
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=900, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Tested: 6" in done.stdout
