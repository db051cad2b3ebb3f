"""The service as its clients see it, over HTTP; its limits and hostile clients are in test_serve_limits.py."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import showtell
from conftest import draw
from serving import SOON, GreyModel, Served, bundle, photo, post, serving, until
from serving import answer as answer_on
from showtell.errors import OptionError
from showtell.image import ImageSettings
from showtell.serve.errors import CODES
from showtell.serve.security import CONTENT_SECURITY_POLICY, AccessControl
from showtell.serve.settings import ServiceSettings, check_exposure
from torture import encode

TOKEN = "0123456789abcdef-a-secret"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as served:
        yield served


@pytest.fixture(scope="module")
def named() -> Iterator[Served]:
    """A service with names and sites on its lists."""
    with serving(hosts=("captions.example.org", "192.168.1.5"), origins=("https://example.org",)) as served:
        yield served


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=SOON) as client:
        yield client
    until(served.idle)


def form(*photos: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", (f"{number}.png", data)) for number, data in enumerate(photos)]


def test_photos_are_captioned_in_the_order_sent(client: httpx.Client) -> None:
    answer = client.post("/v1/captions", files=form(photo(10), photo(200, (80, 20), "JPEG")))
    assert answer.status_code == 200
    assert answer.json() == {
        "results": [
            {
                "path": f"{number}.png",
                "status": "ok",
                "caption": f"grey {grey}",
                "score": -0.5,
                "captions": [{"text": f"grey {grey}", "score": -0.5}],
                "source": "model",
                "confidence": round(grey / 255, 4),
                "in_domain": 0.5,
                "width": width,
                "height": height,
                "model": bundle().name,
            }
            for number, (grey, width, height) in enumerate([(10, 40, 30), (200, 80, 20)])
        ],
        "model": bundle().name,
    }


@pytest.mark.parametrize("kind", ["image/png", "image/whatever", "application/octet-stream", None])
def test_a_raw_body_is_one_photo(client: httpx.Client, kind: str | None) -> None:
    answer = client.post("/v1/captions", content=photo(30), headers={"Content-Type": kind} if kind else {})
    record = answer.json()["results"][0]
    assert (record["path"], record["caption"]) == ("photo-1", "grey 30")


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ("filename*=UTF-8''%E6%97%A5%E6%9C%AC.jpg", "日本.jpg"),  # what Python's requests sends
        ("filename*=utf-8'de'gr%C3%B6%C3%9Fe.png", "größe.png"),
        ("filename*=iso-8859-1''caf%E9.png", "café.png"),
        ("filename*=\"UTF-8''a%20b.png\"", "a b.png"),
        ("filename*=utf-8''%FF.png", "\ufffd.png"),
        ("filename*=unicode_escape''%5Cud800.png", "\\ud800.png"),
        ("filename*=utf-8''", "photo-1"),
        ("filename=\"a.png\"; filename*=utf-8''b.png", "a.png"),
        ("filename*=utf-8''b.png; filename=a.png", "a.png"),
    ],
)
def test_file_names_in_the_extended_form_are_read(client: httpx.Client, disposition: str, name: str) -> None:
    head = f'--X\r\nContent-Disposition: form-data; name="image"; {disposition}\r\n\r\n'
    body = head.encode() + photo(9) + b"\r\n--X--\r\n"
    answer = client.post("/v1/captions", content=body, headers={"Content-Type": "multipart/form-data; boundary=X"})
    assert answer.status_code == 200
    assert [(record["path"], record["caption"]) for record in answer.json()["results"]] == [(name, "grey 9")]


@pytest.mark.parametrize(
    "path", ["/", "/health/live", "/health/ready", "/v1/model", "/metrics", "/openapi.json", "/static/app.js"]
)
def test_head_is_answered_as_get_without_the_body(client: httpx.Client, served: Served, path: str) -> None:
    got, asked = client.get(path), client.head(path)
    assert (asked.status_code, asked.content) == (got.status_code, b"") == (200, b"")
    assert asked.headers["content-type"] == got.headers["content-type"]
    with served.connect() as connection:  # as it goes over the wire
        connection.sendall(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert answer_on(connection) == (200, b"")


def test_head_where_there_is_no_get_is_an_error(client: httpx.Client) -> None:
    assert client.head("/nowhere").status_code == 404
    assert client.head("/v1/captions").status_code == 405
    assert client.delete("/v1/model").headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/v1/captions/", "/v1/captions/stream/", "/health/live/", "/v1/model/", "/metrics/"])
def test_a_slash_at_the_end_of_a_path_changes_nothing(client: httpx.Client, path: str) -> None:
    forwarded = {"X-Forwarded-Proto": "https"}
    if "captions" in path:
        answer = client.post(path, content=photo(8), headers=forwarded)
        assert "grey 8" in answer.text
    else:
        answer = client.get(path, headers=forwarded)
    assert answer.status_code == 200
    assert f'route="{path[:-1]}",status="200"' in client.get("/metrics").text


def test_a_file_name_is_echoed_whatever_it_is(client: httpx.Client) -> None:
    for name in ("../../etc/passwd", "größe 日本.png", "x" * 200):
        record = client.post("/v1/captions", files={"image": (name, photo(1))}).json()["results"][0]
        assert record["path"] == name
        assert record["status"] == "ok"
    assert client.post("/v1/captions", files={"image": ("y" * 1000, photo(1))}).json()["results"][0]["path"] == "y" * 255


def test_options_reach_the_search(client: httpx.Client, served: Served) -> None:
    query = {"num_captions": 4, "beam_size": 2, "max_length": 7, "length_penalty": 0.5}
    query |= {"no_repeat_ngram": 3, "no_repeat_words": True}
    record = client.post("/v1/captions", params=query, files=form(photo(9))).json()["results"][0]
    assert len(record["captions"]) == 4
    options = served.model.searched[-1][1]
    assert (options.num_captions, options.beam_size, options.max_length) == (4, 4, 7)  # the beam holds all that was asked for
    assert (options.length_penalty, options.no_repeat_ngram, options.no_repeat_words) == (0.5, 3, True)
    client.post("/v1/captions", files=form(photo(9)))
    assert served.model.searched[-1][1] == bundle().search


def test_words_reach_the_search(client: httpx.Client, served: Served) -> None:
    query = "start_with=A+photo+of&include=dog,%20red&avoid=cat&avoid=fire+truck,man&min_length=5"
    assert client.post(f"/v1/captions?{query}", files=form(photo(9))).status_code == 200
    options = served.model.searched[-1][1]
    assert (options.start_with, options.include, options.min_length) == ("A photo of", ("dog", "red"), 5)
    assert options.avoid == ("cat", "fire truck", "man")
    assert client.post("/v1/captions?start_with=&include=&avoid=", files=form(photo(9))).status_code == 200
    assert served.model.searched[-1][1] == bundle().search


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("include=dgo", "include is 'dgo'; this model does not know the word 'dgo'; it knows go, do"),
        ("include=dog&avoid=dog", "include is 'dog', and avoid= has 'dog'"),
        ("include=a,dog,cat", "include: ['a,dog,cat'] is not allowed: Value should have at most 2 items"),
        ("avoid=" + ",".join(f"a{number}" for number in range(101)), "is not allowed: "),
        ("avoid=" + "x" * 101, "is not allowed: "),
        ("start_with=" + "x" * 101, "is not allowed: "),
        ("min_length=41", "min_length: '41' is not allowed: "),
        ("min_length=9&max_length=8", "min_length is 9 and max_length 8; raise max_length"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/captions", "/v1/captions/stream"])
def test_impossible_words_are_refused(client: httpx.Client, served: Served, path: str, query: str, message: str) -> None:
    before = len(served.model.searched)
    answer = client.post(f"{path}?{query}", files=form(photo(9)))
    assert answer.status_code == 422
    assert message in answer.json()["error"]["message"]
    assert len(served.model.searched) == before


def test_a_style_that_the_model_lacks_is_refused(client: httpx.Client, served: Served) -> None:
    before = len(served.model.searched)
    answer = client.post("/v1/captions?style=poem", files=form(photo(9)))
    assert answer.status_code == 422
    assert "it has coco, flickr8k" in answer.json()["error"]["message"]
    assert len(served.model.searched) == before


def test_attention_is_there_where_it_was_asked_for(client: httpx.Client) -> None:
    record = client.post("/v1/captions?attention=true", files=form(photo(9))).json()["results"][0]
    assert record["tokens"] == ["grey", "9"]
    assert np.array(record["attention"]).shape == (2, 7, 7)
    assert "attention" not in client.post("/v1/captions", files=form(photo(9))).json()["results"][0]


def test_a_broken_photo_among_good_ones_has_its_error(client: httpx.Client) -> None:
    answer = client.post("/v1/captions", files=form(b"no photo", photo(5)))
    assert answer.status_code == 200
    broken, good = answer.json()["results"]
    assert (broken["status"], broken["error"]["code"]) == ("error", "not-an-image")
    assert good["caption"] == "grey 5"


def test_broken_photos_alone_are_an_error(client: httpx.Client) -> None:
    answer = client.post("/v1/captions", files=form(b"no photo", photo(5)[:60]))
    assert answer.status_code == 415
    body = answer.json()
    assert body["error"] == body["results"][0]["error"]
    assert [record["error"]["code"] for record in body["results"]] == ["not-an-image", "truncated"]


def test_concurrent_requests_share_batches() -> None:
    model = GreyModel()
    with serving(model, batch_size=8) as served, ThreadPoolExecutor(9) as pool:
        model.going.clear()

        def ask(grey: int) -> str:
            query = {"beam_size": 1 + grey % 2}
            answer = post(f"{served.url}/v1/captions", params=query, content=photo(grey))
            return str(answer.json()["results"][0]["caption"])

        first = pool.submit(ask, 100)
        until(lambda: model.batches == [1])
        others = [pool.submit(ask, grey) for grey in range(8)]
        until(lambda: served.server.service.waiting == 9 and served.server.service.budget.held == 0)  # all are decoded
        model.going.set()
        assert first.result() == "grey 100"
        assert [other.result() for other in others] == [f"grey {grey}" for grey in range(8)]
        assert model.batches == [1, 8]
        # One encoder batch, and those with equal options searched together.
        assert sorted((count, options.beam_size) for count, options in model.searched[1:]) == [(4, 1), (4, 2)]


def test_threads_share_what_waits() -> None:
    """With two threads and a batch size of 8, at most 8 photos run at once, 4 in each; a second request does not wait."""
    model = GreyModel(parallel=2)
    with serving(model, batch_size=8) as served, ThreadPoolExecutor(9) as pool:
        model.going.clear()

        def ask(grey: int) -> str:
            return str(post(f"{served.url}/v1/captions", content=photo(grey)).json()["results"][0]["caption"])

        asked = []
        for grey in range(2):
            asked.append(pool.submit(ask, grey))
            until(lambda count=grey + 1: model.batches == [1] * count)
        asked += [pool.submit(ask, grey) for grey in range(2, 8)]
        until(lambda: served.server.service.waiting == 8 and served.server.service.budget.held == 0)  # all are decoded
        assert model.batches == [1, 1]
        model.going.set()
        assert [one.result() for one in asked] == [f"grey {grey}" for grey in range(8)]
        assert sorted(model.batches) == [1, 1, 2, 4]


def test_stream_has_a_line_for_each_photo_in_order(client: httpx.Client) -> None:
    photos = [photo(grey) for grey in range(40)]
    photos[7] = b"no photo"
    with client.stream("POST", "/v1/captions/stream?attention=1", files=form(*photos)) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/x-ndjson"
        records = [json.loads(line) for line in answer.iter_lines()]
    assert [record["path"] for record in records] == [f"{number}.png" for number in range(40)]
    assert records[7]["error"]["code"] == "not-an-image"
    assert [record.get("caption") for record in records[8:]] == [f"grey {grey}" for grey in range(8, 40)]
    assert len(records[0]["attention"]) == 2


def test_stream_answers_while_photos_are_still_arriving(served: Served) -> None:
    said = threading.Event()

    def body() -> Iterator[bytes]:
        part = b'--X\r\nContent-Disposition: form-data; name="image"; filename="%d.png"\r\n\r\n%b\r\n'
        yield part % (1, photo(11)) + b"--X\r\n"
        assert said.wait(SOON)
        yield (part % (2, photo(12)))[5:] + b"--X--\r\n"

    host, port = served.address
    connection = served.connect()
    head = f"POST /v1/captions/stream HTTP/1.1\r\nHost: {host}:{port}\r\nTransfer-Encoding: chunked\r\n"
    connection.sendall((head + "Content-Type: multipart/form-data; boundary=X\r\n\r\n").encode())
    chunks = body()
    received = b""
    chunk = next(chunks)
    connection.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
    while b"grey 11" not in received:
        received += connection.recv(65536)
    assert b"grey 12" not in received
    said.set()
    chunk = next(chunks)
    connection.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(chunk), chunk))
    while not received.endswith(b"0\r\n\r\n"):
        received += connection.recv(65536)
    assert b"grey 12" in received
    connection.close()


def test_stream_ends_with_an_error_where_its_body_breaks_off(client: httpx.Client) -> None:
    whole = client.build_request("POST", "/v1/captions/stream", files=form(photo(1), photo(2)))
    body = whole.read()
    headers = {"Content-Type": whole.headers["content-type"]}
    answer = client.post("/v1/captions/stream", content=body[:-20], headers=headers)
    assert answer.status_code == 200
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line.get("caption") for line in lines[:-1]] == ["grey 1"]
    assert lines[-1]["error"]["code"] == "bad-request"
    answer = client.post("/v1/captions/stream", content=body[:150], headers=headers)  # before the first photo
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "bad-request"


def test_a_caption_that_reached_the_word_limit_says_so(client: httpx.Client) -> None:
    record = client.post("/v1/captions?max_length=2", files=form(photo(9))).json()["results"][0]
    assert record["captions"] == [{"text": "grey 9", "score": -0.5, "cut": True}]
    record = client.post("/v1/captions?max_length=3", files=form(photo(9))).json()["results"][0]
    assert "cut" not in record["captions"][0]


def test_the_model_card_has_the_scores_that_the_bundle_keeps() -> None:
    for scores in ({"dev": {"coco": {"CIDEr": 60.0}}}, {}):
        config = replace(bundle().config, scores=scores)
        with serving(GreyModel(replace(bundle(), config=config))) as served:
            assert httpx.get(f"{served.url}/v1/model", timeout=SOON).json()["scores"] == scores.get("dev", {})


def test_errors_over_http_name_no_flags_and_no_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    unusual = ImageSettings(max_bytes=2**20, max_pixels=999_998)  # for which no decoder is cached
    with serving(small=unusual, large=unusual) as served, httpx.Client(base_url=served.url, timeout=SOON) as client:
        for data, end in (
            (photo(5, (400, 300))[:60], "get it again"),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC needs a decoder that is not installed"),
        ):
            assert client.post("/v1/captions", content=data).json()["error"]["message"].endswith(end)
            assert client.post("/v1/captions/stream", content=data).json()["error"]["message"].endswith(end)


def test_an_option_that_does_not_exist_names_those_that_do(client: httpx.Client) -> None:
    message = client.post("/v1/captions?beam=3", files=form(photo(5))).json()["error"]["message"]
    options = "num_captions, beam_size, max_length, length_penalty, no_repeat_ngram, no_repeat_words, style"
    options += ", start_with, include, avoid, min_length, labels, fallback, min_confidence, attention"
    assert message == f"beam: there is no such option; there are {options}"
    message = client.post("/v1/captions?beam_size=77&max_length=x", files=form(photo(5))).json()["error"]["message"]
    assert "beam_size: '77' is not allowed: " in message
    assert "max_length: 'x' is not allowed: " in message


def test_doubt_is_asked_for_and_counted(client: httpx.Client) -> None:
    asked = "/v1/captions?min_confidence=0.5&labels=true&attention=true&num_captions=2"
    low, high = client.post(asked, files=form(photo(10), photo(200))).json()["results"]
    assert (low["status"], high["status"]) == ("doubtful", "ok")
    assert not {"caption", "captions", "attention", "source"} & set(low)
    assert low["confidence"] == round(10 / 255, 4)
    assert high["labels"] == [{"name": "fog", "probability": 0.8}]
    assert len(high["attention"]) == 2
    assert 'showtell_photos_total{outcome="doubtful"}' in client.get("/metrics").text
    assert client.post("/v1/captions?min_confidence=2", files=form(photo(10))).status_code == 422


def test_model_card(client: httpx.Client) -> None:
    card = client.get("/v1/model").json()
    assert card["name"] == bundle().name
    words = bundle().vocabulary.words
    assert card["vocabulary"] == sum(not word.startswith("<") for word in words)
    assert card["scores"]["coco"]["CIDEr"] > 80
    assert card["scores"]["flickr8k"]["CIDEr"] > 60
    assert card["search"]["beam_size"] == bundle().search.beam_size
    assert card["limits"]["max_photos"] == ServiceSettings().max_photos
    assert "recipe" not in card


def test_health_and_metrics(client: httpx.Client) -> None:
    assert client.get("/health/live").json() == {"status": "ok"}
    assert client.get("/health/ready").json() == {"status": "ok"}
    client.post("/v1/captions", files=form(photo(5)))
    client.post("/v1/captions", files=form(b"no photo"))
    client.get("/nowhere/else")
    page = client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    lines = dict(line.rsplit(" ", 1) for line in page.text.splitlines() if not line.startswith("#"))
    assert float(lines['showtell_photos_total{outcome="ok"}']) >= 1
    assert float(lines['showtell_photos_total{outcome="not-an-image"}']) >= 1
    assert float(lines['showtell_requests_total{method="POST",route="/v1/captions",status="415"}']) >= 1
    assert float(lines['showtell_requests_total{method="GET",route="unmatched",status="404"}']) >= 1
    assert lines["showtell_held_bytes"] == lines["showtell_waiting_photos"] == "0.0"
    assert "nowhere" not in page.text
    assert "showtell_requests_total" in page.text
    assert "_created" not in page.text


def test_every_answer_has_the_security_headers(client: httpx.Client) -> None:
    for answer in (client.get("/"), client.get("/nowhere"), client.post("/v1/captions"), client.get("/health/live")):
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers
    assert client.get("/").headers["content-type"] == "text/html; charset=utf-8"


def test_errors_of_routing_have_the_same_shape(client: httpx.Client) -> None:
    for method, path, status, code in (
        ("GET", "/nowhere", 404, "no-such-path"),
        ("GET", "/docs", 404, "no-such-path"),
        ("GET", "/static/../server.py", 404, "no-such-path"),
        ("GET", "/static/%2e%2e/server.py", 404, "no-such-path"),
        ("GET", "/v1/captions", 405, "method-not-allowed"),
        ("DELETE", "/v1/model", 405, "method-not-allowed"),
    ):
        answer = client.request(method, path)
        assert answer.status_code == status
        assert answer.json()["error"]["code"] == code
        assert code in CODES
    assert client.get("/v1/captions").headers["allow"] == "POST"


@pytest.mark.parametrize(
    "query", ["num_captions=0", "num_captions=11", "beam_size=x", "attention=maybe", "beam_siz=3", "url=a"]
)
def test_options_that_are_not_allowed_are_named(client: httpx.Client, query: str) -> None:
    answer = client.post(f"/v1/captions?{query}", files=form(photo(5)))
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "invalid-option"
    assert query.split("=")[0] in answer.json()["error"]["message"]


def test_a_failing_model_is_an_internal_error_and_passes() -> None:
    model = GreyModel()
    with serving(model) as served:
        model.fault = ValueError("a secret of the model")
        answer = post(f"{served.url}/v1/captions", content=photo(5))
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "internal"
        assert "secret" not in answer.text
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert 'route="/v1/captions",status="500"} 1.0' in httpx.get(f"{served.url}/metrics", timeout=SOON).text
        model.fault = None
        assert post(f"{served.url}/v1/captions", content=photo(5)).status_code == 200
        until(served.idle)


def test_token() -> None:
    with serving(token=TOKEN) as served, httpx.Client(base_url=served.url, timeout=SOON) as client:
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": TOKEN}):
            for method, path in (
                ("POST", "/v1/captions"),
                ("POST", "/v1/captions/stream"),
                ("GET", "/v1/model"),
                ("GET", "/metrics"),
            ):
                answer = client.request(method, path, headers=given)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"].startswith("Bearer")
                assert answer.json()["error"]["code"] == "unauthorized"
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert client.post("/v1/captions", content=photo(5), headers=right).status_code == 200
        assert client.get("/metrics", headers=right).status_code == 200
        for open_ in ("/", "/health/live", "/health/ready"):
            assert client.get(open_).status_code == 200
        assert "401" in client.get("/openapi.json").json()["paths"]["/v1/captions"]["post"]["responses"]


def test_a_wrong_token_reads_otherwise_than_none() -> None:
    with serving(token=TOKEN) as served:

        def message(**headers: str) -> tuple[str, str]:
            answer = httpx.get(f"{served.url}/v1/model", headers=headers, timeout=SOON)
            assert answer.status_code == 401
            return answer.json()["error"]["message"], answer.headers["www-authenticate"]

        missing = "this service asks for its bearer token, as `Authorization: Bearer TOKEN`", 'Bearer realm="showtell"'
        assert message() == message(Authorization=f"Token {TOKEN}") == missing
        said, challenge = message(Authorization="Bearer wrong-wrong-wrong")
        assert said == "the bearer token is not this service's"
        assert challenge == 'Bearer realm="showtell", error="invalid_token"'


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:8000", 200),
        ("127.1.2.3:80", 200),
        ("localhost:9", 200),
        ("LOCALHOST.", 200),
        ("[::1]:8000", 200),
        ("captions.example.org", 200),
        ("Captions.Example.org:8443", 200),
        ("192.168.1.5:8000", 200),
        ("evil.example", 421),
        ("evil.example:8000", 421),
        ("captions.example.org.evil.example", 421),
        ("localhost.evil.example", 421),
        ("evil.example@localhost", 421),
        ("192.168.1.6", 421),
        ("0.0.0.0", 421),
        ("[2001:db8::1]", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
def test_only_names_on_the_list_are_answered(named: Served, host: str, status: int) -> None:
    for path in ("/v1/model", "/", "/health/live"):
        answer = httpx.get(named.url + path, headers={"Host": host}, timeout=SOON)
        assert answer.status_code == status
    if status == 421:
        assert answer.json()["error"]["code"] == "unknown-host"
        assert repr(host) in answer.json()["error"]["message"]
        refused = post(f"{named.url}/v1/captions", content=photo(5), headers={"Host": host})
        assert refused.status_code == 421
        assert named.model.seen == []


def test_the_address_that_was_connected_to_needs_no_list() -> None:
    def door(host: str) -> int:
        statuses: list[int] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            statuses.append(200)

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        headers = [(b"host", host.encode())]
        scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "server": ("10.0.0.7", 8000)}
        asyncio.run(AccessControl(app, ServiceSettings())(scope, None, send))  # type: ignore[arg-type]  # it reads nothing
        return statuses[0]

    assert door("10.0.0.7:8000") == 200
    assert door("10.0.0.8:8000") == 421


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://localhost:8000", "localhost:8000", 200),
        ("https://localhost", "localhost", 200),  # behind a proxy that ends TLS
        ("https://localhost", "localhost:443", 200),
        ("https://example.org", "localhost:8000", 200),  # on the list
        ("http://example.org", "localhost:8000", 403),
        ("https://example.org:444", "localhost:8000", 403),
        ("https://evil.example", "localhost:8000", 403),
        ("http://localhost:3000", "localhost:8000", 403),
        ("http://127.0.0.1:8000", "localhost:8000", 403),
        ("null", "localhost:8000", 403),
        ("", "localhost:8000", 403),
    ],
)
def test_pages_of_other_sites_may_not_use_the_service(named: Served, origin: str, host: str, status: int) -> None:
    named.model.seen.clear()
    for path in ("/v1/captions", "/v1/captions/stream"):
        answer = post(named.url + path, content=photo(5), headers={"Origin": origin, "Host": host})
        assert answer.status_code == status
    assert named.model.seen == ([5, 5] if status == 200 else [])
    if status == 403:
        assert answer.json()["error"]["code"] == "foreign-origin"
        assert repr(origin) in answer.json()["error"]["message"]
    named.model.seen.clear()


def test_cross_origin_requests_only_from_listed_sites() -> None:
    with serving(origins=("https://example.org",)) as served, httpx.Client(base_url=served.url, timeout=SOON) as client:
        answer = client.post("/v1/captions", content=photo(5), headers={"Origin": "https://example.org"})
        assert answer.headers["access-control-allow-origin"] == "https://example.org"
        answer = client.post("/v1/captions", content=photo(5), headers={"Origin": "https://example.com"})
        assert "access-control-allow-origin" not in answer.headers
        assert answer.status_code == 403
        asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        answer = client.options("/v1/captions", headers={"Origin": "https://example.org", **asks})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://example.org")
        assert client.options("/v1/captions", headers={"Origin": "https://example.com", **asks}).status_code == 403


@pytest.mark.parametrize(
    ("host", "good"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("example.org", False)],
)
def test_other_machines_need_a_token_or_leave(host: str, good: bool) -> None:
    check_exposure(host, TOKEN, anonymous=False)
    check_exposure(host, None, anonymous=True)
    if good:
        check_exposure(host, None, anonymous=False)
    else:
        with pytest.raises(OptionError, match="SHOWTELL_TOKEN"):
            check_exposure(host, None, anonymous=False)


@pytest.mark.parametrize(
    "settings",
    [
        {"places": 0},
        {"deadline": 0},
        {"token": "short"},
        {"token": "ü" * 20},
        {"max_held_bytes": 1},
        *({"origins": (origin,)} for origin in ("*", "https://example.org/", "example.org", "https://*.example.org")),
        *({"hosts": (host,)} for host in ("*", "http://example.org", "example.org:80", "")),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        ServiceSettings(**settings)
    assert TOKEN not in repr(ServiceSettings(token=TOKEN))


def test_without_the_extra_the_command_says_what_to_install() -> None:
    code = """
import sys
sys.modules["fastapi"] = None
sys.argv = ["showtell", "serve"]
from showtell.cli.main import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "[serve]'" in done.stderr


def test_the_command_captions_as_the_captioner_does_and_leaves_nothing_behind(tmp_path: Path) -> None:
    home = tmp_path / "empty"
    home.mkdir()
    environment = {"PATH": "", "HOME": str(home), "TMPDIR": str(home), "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-m", "showtell", "serve", "--port", "0", "--batch-size", "2"]
    with subprocess.Popen(command, cwd=home, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("showtell: http://127.0.0.1:"), line + process.stderr.read()
        url = line.split()[1]
        picture = encode(draw("red", "cross", size=1200), "PNG", compress_level=0)
        assert len(picture) > 3_000_000
        answer = post(f"{url}/v1/captions", params={"attention": True}, files=form(picture))
        process.terminate()
        assert process.wait(SOON) == 0
        assert process.stderr.read() == ""
    record = answer.json()["results"][0]
    caption = showtell.load()(picture)
    assert record["caption"] == caption.text
    assert record["score"] == pytest.approx(caption.score, abs=1e-3)
    assert len(record["attention"]) == len(record["tokens"]) == len(caption.tokens)
    assert "".join(record["pieces"]) == record["caption"]
    assert list(home.iterdir()) == []
