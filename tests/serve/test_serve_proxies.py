"""The examples in deploy/, with other paths and ports and without TLS: real proxies before a service on a Unix socket."""

import getpass
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from serving import SOON, photo, serving
from showtell.serve.listening import listen_unix

DEPLOY = Path(__file__).parents[2] / "deploy"
HOST = "captions.example.org"
Command = Callable[[Path, int], list[str]]


def _replaced(name: str, pieces: dict[str, str]) -> str:
    text = (DEPLOY / name).read_text()
    for old, new in pieces.items():
        assert old in text
        text = text.replace(old, new)
    return text


def nginx(folder: Path, port: int) -> list[str]:
    site = _replaced("nginx.conf", {"/run/showtell": str(folder), "listen 443 ssl": f"listen 127.0.0.1:{port}"})
    site = "\n".join(line for line in site.splitlines() if "ssl_" not in line)
    paths = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    file = folder / "nginx.conf"
    user = f"user {getpass.getuser()};"  # pytest's folders are its user's alone
    file.write_text(
        f"{user} daemon off; pid {folder}/pid; error_log stderr;\nevents {{}}\nhttp {{ access_log off; {paths}\n{site} }}"
    )
    return ["nginx", "-c", str(file), "-p", str(folder)]


def caddy(folder: Path, port: int) -> list[str]:
    file = folder / "Caddyfile"
    site = _replaced("Caddyfile", {"/run/showtell": str(folder), f"{HOST} {{": f"http://{HOST}:{port} {{\n\tbind 127.0.0.1"})
    file.write_text("{\n\tadmin off\n}\n" + site)
    return ["caddy", "run", "--config", str(file)]


@pytest.mark.parametrize("proxy", [nginx, caddy], ids=lambda proxy: proxy.__name__)
def test_the_proxy_examples_serve_page_captions_and_streams(proxy: Command, tmp_path: Path) -> None:
    if shutil.which(proxy.__name__) is None:
        pytest.skip(f"{proxy.__name__} is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serving(sockets=listen_unix(tmp_path / "showtell.sock"), hosts=(HOST,)) as served:
        assert served.url == f"unix:{tmp_path / 'showtell.sock'}"
        with subprocess.Popen(
            proxy(tmp_path, port), stderr=subprocess.PIPE, env={"HOME": str(tmp_path), "PATH": "/usr/sbin:/usr/bin"}
        ) as process:
            try:
                host = {"Host": f"{HOST}:{port}"}
                with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SOON, headers=host) as client:
                    end = time.monotonic() + SOON
                    while True:
                        try:
                            assert client.get("/health/ready").json() == {"status": "ok"}
                            break
                        except httpx.ConnectError:
                            assert process.poll() is None
                            assert time.monotonic() < end
                            time.sleep(0.05)
                    assert "<h1>showtell</h1>" in client.get("/").text
                    ours = {"Origin": f"http://{HOST}:{port}"}
                    files = [("image", ("a.png", photo(grey))) for grey in (5, 6)]
                    for path in ("/v1/captions", "/v1/captions/stream"):
                        answer = client.post(path, files=files, headers=ours)
                        assert answer.status_code == 200
                        assert "grey 5" in answer.text
                        assert "grey 6" in answer.text
                        assert client.post(path, files=files, headers={"Origin": "https://evil.example"}).status_code == 403
                    assert len(client.get("/health/live").headers["x-request-id"]) >= 32
            finally:
                process.terminate()
                process.wait(SOON)
