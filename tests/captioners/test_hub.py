"""Bundles on the Hub, against a stand-in server that has the Hub's interface and a folder behind it."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
import yaml

from showtell.bundle import Bundle
from showtell.captioners import hub


class Hub:
    """Repositories in memory: each commit is a dictionary of files under its number as a revision."""

    def __init__(self) -> None:
        self.commits: list[dict[str, bytes]] = []
        self.private: bool | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status: int, content: Any = b"", **headers: str) -> None:
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def do_GET(self) -> None:
                path = unquote(self.path)
                if found := re.match(r"/api/models/me/eye/(revision|tree)/([^/?]+)", path):
                    kind, revision = found.groups()
                    files = outer.files(revision)
                    if files is None:
                        self.answer(404, {"error": "no revision"}, X_Error_Code="RevisionNotFound")
                    elif kind == "revision":
                        siblings = [{"rfilename": name} for name in files]
                        self.answer(200, {"id": "me/eye", "sha": outer.sha(revision), "siblings": siblings})
                    else:
                        entries = [
                            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                            for name, data in files.items()
                        ]
                        self.answer(200, entries)
                elif found := re.match(r"/me/eye/resolve/([^/]+)/(.+)", path):
                    revision, name = found.groups()
                    data = (outer.files(revision) or {})[name.partition("?")[0]]
                    tag = f'"{hashlib.sha1(data).hexdigest()}"'
                    self.answer(200, data, ETag=tag, X_Repo_Commit=outer.sha(revision))
                else:
                    self.answer(404, {"error": "no repository"}, X_Error_Code="RepoNotFound")

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_POST(self) -> None:
                if self.headers.get("Transfer-Encoding") == "chunked":
                    parts = []
                    while size := int(self.rfile.readline(), 16):
                        parts.append(self.rfile.read(size))
                        self.rfile.readline()
                    self.rfile.readline()
                    body = b"".join(parts)
                else:
                    body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers["Authorization"] != "Bearer hf_token":
                    self.answer(401, {"error": "who are you?"})
                elif self.path == "/api/repos/create":
                    asked = json.loads(body)  # in older versions of the library "private"
                    outer.private = asked.get("private") or asked.get("visibility") == "private"
                    self.answer(200, {"url": "http://127.0.0.1/me/eye"})
                elif self.path == "/api/validate-yaml":
                    self.answer(200, {"errors": [], "warnings": []})
                elif "/preupload/" in self.path:
                    files = [
                        {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for file in json.loads(body)["files"]
                    ]
                    self.answer(200, {"files": files})
                elif "/commit/" in self.path:
                    lines = [json.loads(line) for line in body.splitlines()]
                    files = [line["value"] for line in lines if line["key"] == "file"]
                    outer.commits.append({file["path"]: base64.b64decode(file["content"]) for file in files})
                    address = "http://127.0.0.1/me/eye/commit/1"
                    self.answer(200, {"success": True, "commitUrl": address, "commitOid": outer.sha("main")})
                else:
                    self.answer(404, {"error": self.path})

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def files(self, revision: str) -> dict[str, bytes] | None:
        number = len(self.commits) if revision == "main" else int(revision[-1]) if revision[-1].isdigit() else 0
        return self.commits[number - 1] if 0 < number <= len(self.commits) else None

    def sha(self, revision: str) -> str:
        number = len(self.commits) if revision == "main" else int(revision[-1])
        return f"{number:040x}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Hub]:
    running = Hub()
    yield running
    running.close()


def showtell(server: Hub, home: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: the Hub's library reads its environment when it is imported."""
    settings = {"HF_ENDPOINT": server.address, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    command = [sys.executable, "-m", "showtell", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **settings})


def test_a_bundle_is_pushed_fetched_pinned_and_used_offline(
    server: Hub, float_bundle: Path, shapes: Path, tmp_path: Path
) -> None:
    home, photo = tmp_path / "home", next((shapes / "images").iterdir())
    refused = showtell(server, home, "push", float_bundle, "me/eye", HF_TOKEN="hf_wrong")
    assert refused.returncode == 2
    assert "hub:me/eye: " in refused.stderr
    done = showtell(server, home, "push", float_bundle, "me/eye", "--private", HF_TOKEN="hf_token")
    assert done.returncode == 0, done.stderr
    assert server.private is True
    names = {"config.json", "vocab.json", "encoder.onnx", "prepare.onnx", "step.onnx", "README.md"}
    assert set(server.commits[0]) == names
    expected = showtell(server, home, "caption", photo, "--model", float_bundle).stdout

    fetched = showtell(server, home, "caption", photo, "--model", "hub:me/eye")
    assert fetched.returncode == 0, fetched.stderr
    assert fetched.stdout == expected
    scores = tmp_path / "scores.json"
    measured = showtell(server, home, "evaluate", "--data", shapes, "--model", "hub:me/eye", "--json", scores)
    assert measured.returncode == 0, measured.stderr
    assert json.loads(scores.read_text())["scores"]["CIDEr"] > 1
    server.commits.append({**server.commits[0], "step.onnx": server.commits[0]["step.onnx"][:-1]})  # a commit that is broken
    pinned = showtell(server, home, "caption", photo, "--model", f"hub:me/eye@{server.sha('1')}")
    assert pinned.stdout == expected
    broken = showtell(server, home, "caption", photo, "--model", "hub:me/eye")
    assert broken.returncode == 2
    assert "altered or cut short" in broken.stderr
    for model, message in (("me/eye@nine", "no such revision"), ("me/nose", "no such model"), ("a/b/c", "give ORG/NAME")):
        failed = showtell(server, home, "caption", photo, "--model", f"hub:{model}")
        assert failed.returncode == 2
        assert message in failed.stderr
    server.close()
    offline = showtell(server, home, "caption", photo, "--model", f"hub:me/eye@{server.sha('1')}", HF_HUB_OFFLINE="1")
    assert offline.stdout == expected
    serve = [sys.executable, "-m", "showtell", "serve", "--port", "0", "--model", f"hub:me/eye@{server.sha('1')}"]
    settings = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(serve, stderr=subprocess.PIPE, text=True, env={**os.environ, **settings}) as process:
        assert process.stderr is not None
        url = next(line for line in process.stderr if "http://" in line).split()[-1]
        answer = httpx.post(f"{url}/v1/captions", content=photo.read_bytes(), timeout=60)
        process.kill()
    assert answer.json()["results"][0]["caption"] == expected.strip()
    shutil.rmtree(home)
    starting = showtell(server, home, "serve", "--port", "0", "--model", "hub:me/eye", HF_HUB_OFFLINE="1")
    assert starting.returncode == 2  # the service looks for it in the same place
    assert "not in the cache" in starting.stderr
    missing = showtell(server, home, "caption", photo, "--model", "hub:me/eye", HF_HUB_OFFLINE="1")
    assert missing.returncode == 2
    assert "not in the cache" in missing.stderr


def test_the_card_has_the_hubs_front_matter() -> None:
    _, front, text = hub.card(Bundle.find(None)).split("---\n", 2)
    about = yaml.safe_load(front)
    assert about["pipeline_tag"] == "image-to-text"
    assert about["license"] == "mit"
    [entry] = about["model-index"]
    metrics = {(r["dataset"]["name"], m["name"]): m["value"] for r in entry["results"] for m in r["metrics"]}
    assert metrics["coco", "CIDEr"] == Bundle.find(None).config.scores["dev"]["coco"]["CIDEr"]
    assert text.lstrip().startswith("# Model card")
