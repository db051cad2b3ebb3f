"""`showtell serve` as it is started and stopped: addresses, sockets, signals and what it writes into its log."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from serving import SOON, photo, post
from showtell.errors import ListenError
from showtell.serve.listening import address, listen, listen_unix

STARTED = "from showtell.cli.main import main; main()"


@contextmanager
def command(*options: str, before: str = "", **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The running command; `before` is Python that runs in its process first."""
    code = f"import sys, os, signal; sys.argv = ['showtell', 'serve', *{list(options)!r}]\n{before}\n{STARTED}"
    given = {name: value for name, value in os.environ.items() if name != "SHOWTELL_TOKEN"} | environment
    given["PYTHONPATH"] = os.pathsep.join(sys.path)
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=given) as process:
        try:
            yield process
        finally:
            process.kill()


def failure(*options: str, **environment: str) -> str:
    """What the command says when it does not start."""
    with command(*options, **environment) as process:
        _, said = process.communicate(timeout=SOON)
        assert process.returncode == 2, said
        assert "Traceback" not in said
        return said


KILL = "os.kill(os.getpid(), signal.SIGTERM)"
MOMENTS = {
    "while its modules are imported": f"""
import showtell.serve.settings as module
class Checked(module.ServiceSettings):
    def __post_init__(self): {KILL}
module.ServiceSettings = Checked""",
    "while the model is loaded": f"""
import showtell.runtime as module
load = module.load
def killed(*given, **more):
    {KILL}
    return load(*given, **more)
module.load = killed""",
    "while the application is made": f"""
import showtell.serve.server as module
create_app = module.create_app
def killed(*given):
    {KILL}
    return create_app(*given)
module.create_app = killed""",
    "while the model is warmed up": f"""
import showtell.serve.service as module
start = module.Service.start
async def killed(self):
    {KILL}
    await start(self)
module.Service.start = killed""",
    "when it has just ended": f"""
import showtell.serve.server as module
run = module.run
def killed(*given):
    module.Server.run = lambda self, sockets: None
    run(*given)
    {KILL}
    import time; time.sleep(1000)
module.run = killed""",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_sigterm_ends_the_service_at_any_moment(moment: str) -> None:
    with command("--port", "0", before=MOMENTS[moment]) as process:
        assert process.wait(SOON) == 0, moment


def test_sigint_ends_after_what_was_accepted_with_status_130() -> None:
    with command("--port", "0") as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(SOON) == 130
        assert process.stderr.read().strip() == "interrupted"


def test_a_port_in_use_is_said_before_the_model_is_loaded() -> None:
    [taken] = listen("127.0.0.1", 0)
    with taken:
        port = taken.getsockname()[1]
        said = failure("--port", str(port), "--model", "/no/such/model")
        assert said.startswith(f"showtell: 127.0.0.1:{port}: another program already listens there; give another --port")


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("no-such-name.invalid", 0, "host 'no-such-name.invalid' is no name or address"),
        ("203.0.113.7", 8000, "203.0.113.7:8000: this machine has no such address; give another --host"),
    ],
)
def test_addresses_that_cannot_be_listened_on_are_named(host: str, port: int, message: str) -> None:
    with pytest.raises(ListenError, match=message):
        listen(host, port)


def test_localhost_is_one_port_whatever_addresses_it_has() -> None:
    sockets = listen("localhost", 0)
    assert {opened.getsockname()[1] for opened in sockets} == {sockets[0].getsockname()[1]}
    assert all(address(opened).startswith(("http://127.0.0.1:", "http://[::1]:")) for opened in sockets)
    for opened in sockets:
        opened.close()


def test_the_body_of_an_answer_does_not_wait_for_its_head() -> None:
    """Nagle's algorithm is off for accepted connections."""
    [listening] = listen("127.0.0.1", 0)
    with listening, socket.create_connection(listening.getsockname()[:2]), listening.accept()[0] as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_unix_socket_is_served_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "showtell.sock"
    for end in (signal.SIGKILL, signal.SIGTERM):  # what the first one leaves behind does not stop the second
        with command("--unix-socket", str(path)) as process:
            assert process.stderr is not None
            assert process.stderr.readline() == f"showtell: unix:{path}\n"
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=SOON) as client:
                answer = client.post("http://localhost/v1/captions", content=photo(5))
                assert answer.json()["results"][0]["status"] == "ok"
                assert client.get("http://evil.example/").status_code == 421
            assert path.stat().st_mode & 0o777 == 0o666
            said = failure("--unix-socket", str(path))
            assert said == f"showtell: {path}: another program already listens there; give another path, or stop that program\n"
            process.send_signal(end)
            process.wait(SOON)
        assert path.is_socket() == (end == signal.SIGKILL)


def test_unix_sockets_that_cannot_be_made_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for path, message in (
        (tmp_path / "file", "already exists and is no socket"),
        (tmp_path / "missing" / "a.sock", "No such file"),
        (tmp_path / ("x" * 200), "too long"),
    ):
        with pytest.raises(ListenError, match=message):
            listen_unix(path)
    assert (tmp_path / "file").read_text() == "precious"
    assert "--unix-socket replaces --host and --port" in failure("--unix-socket", "x", "--port", "1")


def test_the_json_log_has_a_line_for_each_request_and_no_file_names() -> None:
    with command("--port", "0", "--log-format", "json") as process:
        assert process.stderr is not None
        url = json.loads(process.stderr.readline())["message"]
        answer = post(f"{url}/v1/captions", files={"image": ("secret.png", photo(5))}, headers={"X-Request-ID": "abc-1"})
        assert answer.headers["x-request-id"] == "abc-1"
        for path in ("/private/secret.png", "/v1/model?secret=1"):
            made_up = httpx.get(url + path, headers={"X-Request-ID": "no good\tid"}, timeout=SOON).headers["x-request-id"]
            assert made_up.isalnum()
        with socket.create_connection(httpx.URL(url).netloc.decode().split(":"), SOON) as connection:
            connection.sendall(b"no http\r\n\r\n")
            connection.recv(1000)
        process.send_signal(signal.SIGTERM)
        assert process.wait(SOON) == 0
        text = process.stderr.read()
    assert "secret" not in text
    lines = [json.loads(line) for line in text.splitlines()]  # every line is JSON, uvicorn's too
    requests = [line for line in lines if line["message"] == "request"]
    assert [(line["id"], line["method"], line["route"], line["status"]) for line in requests] == [
        ("abc-1", "POST", "/v1/captions", 200),
        (requests[1]["id"], "GET", "unmatched", 404),
        (made_up, "GET", "/v1/model", 200),
    ]
    assert all(line["seconds"] >= 0 and line["time"].endswith("Z") and line["level"] == "info" for line in requests)
    assert [line["level"] for line in lines if line not in requests] == ["warning"]


def test_the_text_log_has_the_same_on_a_line_each() -> None:
    with command("--port", "0", "--log-format", "text") as process:
        assert process.stderr is not None
        url = process.stderr.readline().removeprefix("showtell: ").strip()
        httpx.head(f"{url}/health/live", headers={"X-Request-ID": "probe"}, timeout=SOON)
        line = process.stderr.readline()
    assert line.startswith("showtell: request id=probe method=HEAD route=/health/live status=200 seconds=0.")


def test_more_threads_than_processors_are_said_and_not_used() -> None:
    code = """
import showtell.runtime.captioner as module
module.available_cpus = lambda: 1
"""
    with command("--port", "0", "--threads", "64", before=code) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == (
            "showtell: threads is 64, and 1 processor may be used here: more threads would wait for each other, so 1 work\n"
        )
        assert process.stderr.readline().startswith("showtell: http://")
