"""Captioners behind a server: a loopback one that answers, limits, stalls, breaks off, refuses and lies."""

import base64
import io
import json
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from PIL import Image

from serving import SOON, serving
from showtell.captioners.openai_chat import OpenAICaptioner
from showtell.cli.main import cli
from showtell.errors import OptionError, ServerError


def answer(*texts: str | None) -> dict[str, Any]:
    """An answer of OpenAI's chat API."""
    choices = [
        {"index": number, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        for number, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": usage}


class Server:
    """Hands each request to `respond`, which gives (status, headers, body), or None to close the connection."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.respond: Callable[[dict[str, Any]], tuple[int, dict[str, str], Any] | None] = lambda _: (200, {}, answer("A dog."))
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(body)
                outer.keys.append(self.headers["Authorization"])
                given = outer.respond(body)
                if given is None:
                    self.close_connection = True
                    self.connection.close()
                    return
                status, headers, content = given
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}/v1#eye"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = []
    for number in range(6):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", (3000, 1500) if number == 0 else (64, 48), (number * 40, 0, 0)).save(paths[-1])
    return paths


def sent(request: dict[str, Any]) -> Image.Image:
    """The photo of a request."""
    [message] = request["messages"]
    url = message["content"][0]["image_url"]["url"]
    return Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))))


def test_photos_are_asked_for_at_once_and_come_out_in_order(server: Server, photos: list[Path]) -> None:
    both = threading.Barrier(2, timeout=20)

    def respond(request: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        both.wait()  # passes only if two requests are under way
        red = sent(request).getpixel((0, 0))[0]
        return 200, {}, answer(f"  Number {round(red / 40)}.\n")

    server.respond = respond
    captioner = OpenAICaptioner(server.address, requests=2)
    records = list(captioner.records([*photos, "none.jpg"]))
    assert [record.caption for record in records[:-1]] == [f"Number {number}." for number in range(6)]
    assert records[-1].error_code == "not-found"
    assert (records[0].width, records[0].height) == (3000, 1500)
    assert max(max(sent(request).size) for request in server.requests) == 1024  # photos are sent no larger
    assert captioner.usage == {"prompt_tokens": 600, "completion_tokens": 42}
    assert {request["model"] for request in server.requests} == {"eye"}


def test_options_prompt_and_key_reach_the_server(server: Server, photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server.respond = lambda request: (200, {}, answer(*["A dog."] * request["n"]))
    captioner = OpenAICaptioner(server.address, prompt="What is this?")
    options = captioner.options(sample=True, temperature=0.7, top_p=0.9, seed=3, num_captions=2, max_length=12)
    [record] = captioner.records(photos[1:2], options)
    assert len(record.captions) == 2
    [request] = server.requests
    assert {key: request[key] for key in ("n", "temperature", "top_p", "seed", "max_tokens")} == {
        "n": 2,
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 3,
        "max_tokens": 24,
    }
    assert request["messages"][0]["content"][1]["text"] == "What is this?"
    assert server.keys == ["Bearer secret"]
    with pytest.raises(OptionError, match="beam_size is no option of openai:"):
        captioner.options(beam_size=5)


def test_limits_faults_and_broken_connections_are_tried_again(server: Server, photos: list[Path]) -> None:
    turns = iter([(429, {"Retry-After": "0.2"}, {}), (503, {"Retry-After": "0.1"}, b"<html>busy"), None])
    begun = time.monotonic()

    def respond(_: dict[str, Any]) -> tuple[int, dict[str, str], Any] | None:
        return next(turns, (200, {}, answer("A dog.")))

    server.respond = respond
    [record] = OpenAICaptioner(server.address).records(photos[1:2])
    assert record.caption == "A dog."
    assert len(server.requests) == 4
    assert time.monotonic() - begun >= 0.3  # it waited as long as it was told


def test_a_photo_that_is_refused_or_has_no_answer_is_its_record_alone(server: Server, photos: list[Path]) -> None:
    def respond(request: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        number = round(sent(request).getpixel((0, 0))[0] / 40)
        if number == 1:
            return 400, {}, {"error": {"message": "content filter"}}
        return 200, {}, answer(None if number == 2 else "" if number == 3 else "A dog.")

    server.respond = respond
    records = list(OpenAICaptioner(server.address).records(photos))
    assert [record.error_code for record in records] == [None, *["no-caption"] * 3, None, None]
    assert "content filter" in str(records[1].error_message)
    assert "has no text" in str(records[2].error_message)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((401, {}, {"error": {"message": "wrong key"}}), r"status 401: .*wrong key.*OPENAI_API_KEY"),
        ((404, {}, {"error": {"message": "no model eye"}}), "status 404: .*no model eye"),
        ((200, {"Content-Type": "text/html"}, b"<html>a page</html>"), "not one of OpenAI's chat API"),
        ((200, {}, b"{broken"), "not one of OpenAI's chat API"),
        ((200, {}, {"choices": [{"message": None}]}), "not one of OpenAI's chat API"),
    ],
)
def test_a_server_that_cannot_be_used_ends_the_run(
    given: tuple[int, dict[str, str], Any], message: str, server: Server, photos: list[Path]
) -> None:
    server.respond = lambda _: given
    with pytest.raises(ServerError, match=message):
        list(OpenAICaptioner(server.address, retries=0).records(photos))


def test_a_server_that_stalls_or_is_not_there_is_named(server: Server, photos: list[Path]) -> None:
    released = threading.Event()

    def stall(_: dict[str, Any]) -> None:
        released.wait(20)

    server.respond = stall
    with pytest.raises(ServerError, match="does not answer .*is it running"):
        list(OpenAICaptioner(server.address, retries=1, timeout=0.2).records(photos[1:2]))
    released.set()
    assert len(server.requests) == 2
    with pytest.raises(ServerError, match="is it running"):
        list(OpenAICaptioner("http://127.0.0.1:9/v1#eye", retries=0).records(photos[1:2]))
    for address in ("llava", "http://localhost/v1", "#m"):
        with pytest.raises(OptionError, match="give BASE_URL#MODEL"):
            OpenAICaptioner(address)


def test_the_command_asks_a_server_and_counts_tokens(server: Server, photos: list[Path]) -> None:
    done = CliRunner().invoke(cli, ["caption", *map(str, photos[:3]), "--model", f"openai:{server.address}", "--requests", "2"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [f"{photo}\tA dog." for photo in photos[:3]]
    assert done.stderr.count("300 prompt tokens, 21 completion tokens") == 1


def test_a_servers_captions_are_evaluated(server: Server, shapes: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores.json"
    command = ["evaluate", "--data", str(shapes), "--model", f"openai:{server.address}", "--json", str(scores)]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    assert set(json.loads(scores.read_text())["captions"].values()) == {"A dog."}
    assert len(server.requests) == 12


def test_the_service_asks_a_server_and_hides_what_is_wrong_with_it(server: Server, photos: list[Path]) -> None:
    def respond(request: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        red = round(sent(request).getpixel((0, 0))[0] / 40)
        if red == 2:
            return 400, {}, {"error": {"message": "content filter"}}
        return (401, {}, {"error": {"message": "wrong key"}}) if red == 3 else (200, {}, answer("A dog.", "A cat."))

    server.respond = respond
    with (
        serving(OpenAICaptioner(server.address, retries=0)) as served,
        httpx.Client(base_url=served.url, timeout=SOON) as client,
    ):
        assert not server.requests  # no photo is sent before a client sends one
        record = client.post("/v1/captions?num_captions=2", content=photos[0].read_bytes()).json()["results"][0]
        assert [caption["text"] for caption in record["captions"]] == ["A dog.", "A cat."]
        assert (record["width"], record["height"]) == (3000, 1500)
        assert server.requests[0]["n"] == 2
        refused = client.post("/v1/captions", content=photos[2].read_bytes())
        assert (refused.status_code, refused.json()["error"]["code"]) == (502, "no-caption")
        failed = client.post("/v1/captions", content=photos[3].read_bytes())
        assert (failed.status_code, failed.json()["error"]["code"]) == (502, "upstream")
        assert "127.0.0.1" not in failed.text
        lines = client.post(
            "/v1/captions/stream", files=[("image", (path.name, path.read_bytes())) for path in photos[1:4]]
        ).text.splitlines()
        assert len(lines) == 3
        wide = client.post("/v1/captions?beam_size=3", content=photos[0].read_bytes())
        assert wide.status_code == 422
        assert "beam_size is no option of openai:eye;" in wide.json()["error"]["message"]
        assert record["model"] == client.get("/v1/model").json()["name"] == "openai:eye"  # without the server's address
        assert "upstream" in client.get("/metrics").text


def test_a_captioner_behind_a_server_is_pickled(server: Server, photos: list[Path]) -> None:
    again = pickle.loads(pickle.dumps(OpenAICaptioner(server.address, prompt="What is this?", requests=2)))
    [record] = again.records(photos[1:2])
    assert record.caption == "A dog."
    assert server.requests[0]["messages"][0]["content"][1]["text"] == "What is this?"
