"""The service under too much load and with hostile clients: each is answered as docs/service.md says, and forgotten."""

import contextlib
import gc
import io
import json
import logging
import time
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from serving import SOON, GreyModel, Served, answer, photo, post, request, serving, until
from showtell.image import ImageSettings
from showtell.serve.errors import RECORD_STATUS
from torture import png

MB = 2**20


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """A service that takes little."""
    small = ImageSettings(max_bytes=MB, max_pixels=10_000)
    large = ImageSettings(max_bytes=MB, max_pixels=1_000_000)
    limits = {"max_body_bytes": 3 * MB, "max_stream_bytes": 4 * MB, "max_held_bytes": 2 * MB, "max_photos": 3}
    with serving(small=small, large=large, upload_timeout=2, head_timeout=2, **limits) as served:
        yield served


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """However a request ends, its bytes and places are given back, and the next one is answered as usual."""
    yield
    if "served" in request.fixturenames:
        served = request.getfixturevalue("served")
        until(served.idle)
        assert post(f"{served.url}/v1/captions", content=photo(77)).json()["results"][0]["caption"] == "grey 77"


def test_a_compressed_comment_is_not_unpacked(served: Served) -> None:
    assert post(f"{served.url}/v1/captions", content=text_bomb()).json()["results"][0]["caption"] == "grey 0"


def bomb() -> bytes:
    """A zip file of 100 MB of zeros."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file, file.open("photo.png", "w") as member:
        for _ in range(100):
            member.write(bytes(MB))
    return stream.getvalue()


def text_bomb() -> bytes:
    """A PNG with a compressed comment of 100 MB."""
    compressor = zlib.compressobj(9)
    text = b"".join(compressor.compress(bytes(MB)) for _ in range(100)) + compressor.flush()
    return png(8, 8, 8, 0, b"\0\0\0\0\0\0\0\0\0" * 8, (b"zTXt", b"comment\0\0" + text))


def multipart(*parts: bytes) -> bytes:
    return b"".join(b"--X\r\n" + part + b"\r\n" for part in parts) + b"--X--\r\n"


def part(data: bytes, name: str = "image") -> bytes:
    return f'Content-Disposition: form-data; name="{name}"; filename="a.png"\r\n\r\n'.encode() + data


FORM = "multipart/form-data; boundary=X"
HUGE = png(50_000, 50_000, 8, 2, b"\0" * 1000)


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"", "image/png", 400, "bad-request"),
        (b"", FORM, 400, "bad-request"),
        (b"", "application/json", 415, "unsupported-content-type"),
        (b"{}", "application/json", 415, "unsupported-content-type"),
        (b"url=http://localhost/", "application/x-www-form-urlencoded", 415, "unsupported-content-type"),
        (b"http://localhost/a.png", "image/png", 415, "not-an-image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", 415, "unsupported-format"),
        (photo(5)[:60], "image/png", 422, "truncated"),
        (photo(5)[:40] + b"?" + photo(5)[41:], "image/png", 422, "unreadable"),
        (HUGE, "image/png", 413, "too-many-pixels"),
        (png(1001, 1000, 8, 0, b"\0" * 1002 * 1000), "image/png", 413, "too-many-pixels"),
        (bomb(), "image/png", 415, "not-an-image"),
        (bomb(), "application/zip", 415, "unsupported-content-type"),
        (multipart(part(b"")), FORM, 400, "empty"),
        (multipart(part(photo(5), "photo")), FORM, 400, "bad-request"),
        (multipart(part(photo(5)), part(b"x", "beam_size")), FORM, 400, "bad-request"),
        (multipart(b"\r\n" + photo(5)), FORM, 400, "bad-request"),
        (multipart(part(photo(5)))[:-6], FORM, 400, "bad-request"),
        (b"no multipart", FORM, 400, "bad-request"),
        (multipart(b'Content-Disposition: form-data; name="image"\r\n\r\n' + photo(5)), FORM, 400, "bad-request"),
        (multipart(b"A" * 100_000), FORM, 400, "bad-request"),
        (multipart(part(photo(5))), "multipart/form-data", 400, "bad-request"),
        (multipart(part(photo(5))), "multipart/form-data; boundary=" + "X" * 300, 400, "bad-request"),
        (multipart(*4 * [part(photo(5))]), FORM, 413, "too-many-photos"),
        (multipart(part(bytes(MB + 1))), FORM, 413, "too-large"),
        (bytes(MB + 1), "image/png", 413, "body-too-large"),
        (bytes(3 * MB + 1), FORM, 413, "body-too-large"),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else None,
)
def test_bodies_that_are_refused(served: Served, body: bytes, kind: str, status: int, code: str) -> None:
    found = post(f"{served.url}/v1/captions", content=body, headers={"Content-Type": kind})
    assert (found.status_code, found.json()["error"]["code"]) == (status, code)
    assert found.json()["error"]["message"]
    if code not in ("too-many-photos", "body-too-large"):  # of which a stream takes more
        streamed = post(f"{served.url}/v1/captions/stream", content=body, headers={"Content-Type": kind})
        assert json.loads(streamed.text.splitlines()[-1])["error"]["code"] == code
        assert streamed.status_code == (200 if code in RECORD_STATUS else status)  # a photo's error is its record


def test_a_large_photo_is_read_though_not_as_a_small_one(served: Served) -> None:
    answer = post(f"{served.url}/v1/captions", content=photo(9, (1000, 1000)))
    assert answer.json()["results"][0]["width"] == 1000


def test_a_body_of_1_gb_is_refused_before_it_is_sent(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(request(length=2**30, headers="Expect: 100-continue\r\n"))
        connection.shutdown(1)
        status, body = answer(connection)
        assert status == 413
        assert json.loads(body)["error"]["code"] == "body-too-large"


def test_a_body_of_unknown_length_is_refused_as_soon_as_it_is_too_long(served: Served) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1024):
            sent += MB
            yield bytes(MB)

    with contextlib.suppress(httpx.WriteError):  # the connection may be closed on what is still being sent
        assert post(f"{served.url}/v1/captions", content=body()).status_code == 413
    assert sent < 100 * MB  # what the sockets buffer, and no more


def test_slow_uploads_are_cut_off(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(request(body=photo(5)[:10], length=1000))
        status, body = answer(connection)
        assert status == 408
        assert json.loads(body)["error"]["code"] == "upload-too-slow"


def test_a_trickle_is_cut_off_too(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(request(length=1000))
        began = time.monotonic()
        try:
            while time.monotonic() < began + SOON:
                connection.sendall(b"x")
                time.sleep(0.02)
        except OSError:
            pass
        assert time.monotonic() < began + SOON


@pytest.mark.parametrize("head", [b"", b"POST /v1/captions HT", b"POST /v1/captions HTTP/1.1\r\nHost: test\r\nX-Slow: "])
def test_slow_heads_are_cut_off(served: Served, head: bytes) -> None:
    with served.connect() as connection:
        connection.sendall(head)
        assert answer(connection) == (0, b"")


def test_what_is_no_http_is_told_so(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        status, body = answer(connection)
        assert (status, json.loads(body)["error"]["code"]) == (400, "bad-request")


def test_clients_that_leave_are_forgotten(served: Served) -> None:
    for cut in (20, 150, 300):
        with served.connect() as connection:
            connection.sendall(request(body=photo(5) + bytes(1000))[:cut])
    with served.connect() as connection:
        connection.sendall(request("/v1/captions/stream", body=multipart(part(photo(5)), part(photo(6))), kind=FORM)[:-30])


@pytest.mark.parametrize("path", ["/v1/captions", "/v1/captions/stream"])
def test_clients_that_leave_put_no_traceback_into_the_log(path: str) -> None:
    """However far they came: in the middle of the body, while the model works, and where their deadline passed meanwhile."""
    logged: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append(f"{record.name}: {record.getMessage()}")

    listener = Listener(logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("asyncio", "uvicorn.error", "showtell.serve")]
    for logger in loggers:
        logger.addHandler(listener)
    model = GreyModel()
    try:
        with serving(model, batch_size=1, deadline=1) as served:
            whole = request(path, body=multipart(part(photo(2)), part(photo(3))), kind=FORM)
            for sent in (50, len(whole) - 40):
                with served.connect() as connection:
                    connection.sendall(whole[:sent])
            model.going.clear()
            with served.connect() as late, served.connect() as connection:
                late.sendall(whole)
                until(lambda: served.server.service.waiting == 2)
                connection.sendall(whole)
                until(lambda: served.server.service.waiting == 4)
                connection.close()
                until(lambda: served.server.service.waiting == 0)  # the deadline of those that stayed
            model.going.set()
            until(served.idle)
        gc.collect()  # asyncio complains of what nobody asked for when that is thrown away
    finally:
        for logger in loggers:
            logger.removeHandler(listener)
    assert logged == []


def test_many_tiny_requests(served: Served) -> None:
    tiny = photo(3, (1, 1))

    def ask(_: int) -> set[int]:
        with httpx.Client(base_url=served.url, timeout=SOON) as client:
            return {client.post("/v1/captions", content=tiny).status_code for _ in range(40)}

    with ThreadPoolExecutor(4) as pool:
        assert set().union(*pool.map(ask, range(4))) == {200}


def test_a_full_queue_answers_at_once_and_serves_again_afterwards() -> None:
    model = GreyModel()
    with serving(model, places=4, batch_size=2) as served, ThreadPoolExecutor(4) as pool:
        model.going.clear()
        asked = [pool.submit(post, f"{served.url}/v1/captions", content=photo(grey)) for grey in range(4)]
        until(lambda: served.server.service.waiting == 4)
        for path in ("/v1/captions", "/v1/captions/stream"):
            refused = post(served.url + path, content=photo(9))
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "overloaded"
            assert int(refused.headers["retry-after"]) >= 1
        assert httpx.get(f"{served.url}/health/live").status_code == 200  # the loop is free while the model works
        with served.connect() as connection:  # refused before the body is there
            connection.sendall(request(length=5 * MB))
            connection.shutdown(1)
            assert answer(connection)[0] == 503
        assert not any(future.done() for future in asked)
        model.going.set()
        assert [future.result().json()["results"][0]["caption"] for future in asked] == [f"grey {grey}" for grey in range(4)]
        until(served.idle)
        assert post(f"{served.url}/v1/captions", content=photo(9)).status_code == 200


def test_a_request_with_more_photos_than_places_is_refused_whole() -> None:
    with serving(places=2) as served:
        files = [("image", ("a.png", photo(5))) for _ in range(20)]
        refused = post(f"{served.url}/v1/captions", files=files)
        assert refused.status_code == 503
        until(served.idle)
        streamed = post(f"{served.url}/v1/captions/stream", files=files)  # which waits for places
        assert len(streamed.text.splitlines()) == 20
        until(served.idle)


def test_bytes_in_memory_are_bounded_over_all_requests() -> None:
    limits = ImageSettings(max_bytes=MB)
    with serving(small=limits, large=limits, max_held_bytes=MB) as served, served.connect() as slow:
        slow.sendall(request(body=bytes(900_000), length=MB))
        until(lambda: served.server.service.budget.held == 900_000)
        refused = post(f"{served.url}/v1/captions", content=bytes(200_000))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        assert post(f"{served.url}/v1/captions", content=photo(4)).status_code == 200
        slow.close()
        until(served.idle)


def test_deadline_drops_a_photo_before_it_costs_anything() -> None:
    model = GreyModel()
    with serving(model, deadline=2, batch_size=1) as served, ThreadPoolExecutor(2) as pool:
        model.going.clear()
        first = pool.submit(post, f"{served.url}/v1/captions", content=photo(1))
        until(lambda: model.seen == [1])
        second = post(f"{served.url}/v1/captions", content=photo(2))
        for late in (first.result(), second):
            assert (late.status_code, late.json()["error"]["code"]) == (503, "deadline")
            assert int(late.headers["retry-after"]) >= 1
        streamed = post(f"{served.url}/v1/captions/stream", content=photo(3)).json()
        assert (streamed["path"], streamed["status"], streamed["error"]["code"]) == ("photo-1", "error", "deadline")
        model.going.set()
        assert post(f"{served.url}/v1/captions", content=photo(4)).status_code == 200
        assert model.seen == [1, 4]


@pytest.mark.parametrize("path", ["/v1/captions", "/v1/captions/stream"])
def test_what_a_client_no_longer_wants_is_dropped_before_it_costs_anything(path: str) -> None:
    model = GreyModel()
    with serving(model, batch_size=1) as served, ThreadPoolExecutor(1) as pool:
        model.going.clear()
        first = pool.submit(post, f"{served.url}/v1/captions", content=photo(1))
        until(lambda: model.seen == [1])
        with served.connect() as connection:
            connection.sendall(request(path, body=multipart(part(photo(2)), part(photo(3))), kind=FORM))
            until(lambda: served.server.service.waiting == 3)
        until(lambda: served.server.service.waiting == 1)
        model.going.set()
        assert first.result().status_code == 200
        assert post(f"{served.url}/v1/captions", content=photo(4)).status_code == 200
        assert model.seen == [1, 4]
        until(served.idle)


def test_shutdown_finishes_what_was_accepted() -> None:
    model = GreyModel()
    with serving(model) as served, ThreadPoolExecutor(1) as pool:
        model.going.clear()
        accepted = pool.submit(post, f"{served.url}/v1/captions", content=photo(1))
        until(lambda: model.seen == [1])
        served.server.should_exit = True
        until(lambda: not served.server.service.ready)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{served.url}/health/ready")
        model.going.set()
        assert accepted.result().json()["results"][0]["caption"] == "grey 1"
        served.thread.join(SOON)
        assert not served.thread.is_alive()


def test_more_connections_than_allowed_are_closed() -> None:
    with serving(max_connections=3) as served:
        first = [served.connect() for _ in range(3)]
        until(lambda: len(served.server.server_state.connections) == 3)
        with served.connect() as fourth:
            assert answer(fourth) == (0, b"")
        for connection in first:
            connection.close()
        until(lambda: len(served.server.server_state.connections) == 0)
        assert httpx.get(f"{served.url}/health/live").status_code == 200
