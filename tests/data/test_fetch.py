"""Fetching from a local server that behaves, breaks off, stalls, lies and serves garbage; unpacking what would do harm."""

import io
import re
import stat
import threading
import time
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from conftest import write_flickr8k
from showtell.cli.main import cli
from showtell.data import read
from showtell.data.fetch.download import DownloadSettings, download
from showtell.data.fetch.flickr8k import fetch_flickr8k
from showtell.data.fetch.unpack import UnpackLimits, unpack
from showtell.errors import FetchError, OutputError

FAST = DownloadSettings(timeout=0.3, retries=2, wait=0.01)
BODY = bytes(range(256)) * 4096  # 1 MiB


class Server(ThreadingHTTPServer):
    """`files` by path; `manner(handler, body)` may answer instead, once for each entry of `manners`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.manners, self.asked, self.tag = {}, [], [], '"one"'

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        pass


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        body = self.server.files.get(self.path)
        if self.server.manners:
            self.server.manners.pop(0)(self, body)
        elif body is None:
            self.send_error(404)
        else:
            self.serve(body)

    def serve(self, body, length=None, ranges=True, upto=None, tag=True):
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if ranges and asked and self.headers.get("If-Range") == self.server.tag:
            start = int(asked[1])
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if tag:
            self.send_header("ETag", self.server.tag)
        if length != "none":
            self.send_header("Content-Length", str(len(body) - start if length is None else length))
        self.end_headers()
        self.wfile.write(body[start:upto])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    server.files["/file"] = BODY
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def breaks_off(at):
    return lambda handler, body: handler.serve(body, upto=at)


def stalls(at):
    def manner(handler, body):
        handler.serve(body, upto=at)
        time.sleep(0.6)

    return manner


def says(code, **headers):
    def manner(handler, body):
        handler.send_response(code)
        for name, value in {"Content-Length": "0", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    return manner


def silent(handler, body):
    time.sleep(0.6)


def test_a_file_comes_whole_and_is_counted(server, tmp_path):
    seen = []
    download(f"{server.url}/file", tmp_path / "file", FAST, lambda *step: seen.append(step))
    assert (tmp_path / "file").read_bytes() == BODY
    assert seen[-1] == ("file, MB", 1, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("trouble", [breaks_off(300_000), stalls(300_000)])
def test_what_broke_off_or_stalled_goes_on(server, tmp_path, trouble):
    server.manners = [trouble, trouble and breaks_off(700_000)]
    download(f"{server.url}/file", tmp_path / "file", FAST)
    assert (tmp_path / "file").read_bytes() == BODY
    assert server.asked == [
        ("/file", None, None),
        ("/file", "bytes=300000-", '"one"'),
        ("/file", "bytes=700000-", '"one"'),
    ]


def test_a_later_call_goes_on(server, tmp_path):
    server.manners = [breaks_off(400_000), *[says(503)] * 3]
    with pytest.raises(FetchError, match=r"answers 503, 3 times in a row.*400,000 bytes are kept in .*file\.part"):
        download(f"{server.url}/file", tmp_path / "file", FAST)
    assert not (tmp_path / "file").exists()
    server.asked.clear()
    download(f"{server.url}/file", tmp_path / "file", FAST)
    assert server.asked == [("/file", "bytes=400000-", '"one"')]
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_part_that_is_whole_is_taken(server, tmp_path):
    server.manners = [lambda handler, body: handler.serve(body, length="none")]
    server.files["/file"] = BODY[:1000]
    download(f"{server.url}/file", tmp_path / "file", FAST)
    (tmp_path / "file").rename(tmp_path / "file.part")
    (tmp_path / "file.part.json").write_text(f'{{"url": "{server.url}/file", "validator": "\\"one\\""}}')
    download(f"{server.url}/file", tmp_path / "file", FAST)
    assert (tmp_path / "file").read_bytes() == BODY[:1000]


def test_a_file_that_changed_meanwhile_begins_anew(server, tmp_path):
    server.manners = [breaks_off(300_000), *[says(503)] * 3]
    with pytest.raises(FetchError):
        download(f"{server.url}/file", tmp_path / "file", FAST)
    server.files["/file"], server.tag = BODY[::-1], '"two"'
    download(f"{server.url}/file", tmp_path / "file", FAST)
    assert (tmp_path / "file").read_bytes() == BODY[::-1]


@pytest.mark.parametrize("options", [{"ranges": False}, {"tag": False}])
def test_a_server_without_ranges_or_tags_sends_all_again(server, tmp_path, options):
    server.manners = [
        lambda handler, body: handler.serve(body, upto=300_000, **options),
        lambda handler, body: handler.serve(body, **options),
    ]
    download(f"{server.url}/file", tmp_path / "file", FAST)
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_part_of_another_address_is_not_taken(server, tmp_path):
    (tmp_path / "file.part").write_bytes(b"something else")
    (tmp_path / "file.part.json").write_text('{"url": "http://elsewhere/file", "validator": "\\"one\\""}')
    download(f"{server.url}/file", tmp_path / "file", FAST)
    assert (tmp_path / "file").read_bytes() == BODY


def wrong_range(handler, body):
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes 0-{len(body) - 1}/{len(body)}")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def test_bytes_from_another_place_are_not_appended(server, tmp_path):
    server.manners = [breaks_off(300_000), wrong_range]
    download(f"{server.url}/file", tmp_path / "file", FAST)
    assert (tmp_path / "file").read_bytes() == BODY


@pytest.mark.parametrize(
    ("manners", "words"),
    [
        ([says(404)], r"answers 404 .*check the address"),
        ([says(403)], "answers 403"),
        ([says(500)] * 3, "answers 500, 3 times in a row"),
        ([silent] * 3, "nothing came for 0.3 seconds"),
        ([lambda handler, body: handler.wfile.write(b"garbage\r\n\r\n")] * 3, "broke off"),
        ([lambda handler, body: handler.serve(body, length=5 << 30)], r"has 5,368,709,120 bytes; at most"),
        ([says(302, Location="file:///etc/passwd")], "answers 302"),
        ([says(302, Location="ftp://127.0.0.1/file")] * 3, "cannot be reached .it redirects to FTP."),
    ],
)
def test_failures_say_why_and_leave_no_file(server, tmp_path, manners, words):
    server.manners = manners
    with pytest.raises(FetchError, match=words):
        download(f"{server.url}/file", tmp_path / "file", FAST)
    assert not (tmp_path / "file").exists()


def test_lies_about_the_length(server, tmp_path):
    """More promised than sent: tried again, then an error. Less promised than sent: the rest is not read."""
    server.manners = [lambda handler, body: handler.serve(body[:1000], length=2000, tag=False)] * 4
    with pytest.raises(FetchError, match="broke off after 1,000 of 2,000 bytes"):
        download(f"{server.url}/file", tmp_path / "file", FAST)
    server.manners = [lambda handler, body: handler.serve(body, length=1000)]
    download(f"{server.url}/file", tmp_path / "file", FAST)
    assert (tmp_path / "file").read_bytes() == BODY[:1000]


def test_an_endless_answer_is_cut(server, tmp_path):
    server.manners = [lambda handler, body: handler.serve(body, length="none")]
    with pytest.raises(FetchError, match="sends more than the 100,000 bytes"):
        download(f"{server.url}/file", tmp_path / "file", DownloadSettings(timeout=0.3, retries=0, max_bytes=100_000))
    assert list(tmp_path.iterdir()) == []


def test_no_network(server, tmp_path):
    closed = Server()
    closed.server_close()
    with pytest.raises(FetchError, match=r"cannot be reached \(.*refused.*\), 3 times in a row\. Is there a network"):
        download(f"{closed.url}/file", tmp_path / "file", FAST)
    with pytest.raises(FetchError, match="only http and https"):
        download("file:///etc/passwd", tmp_path / "file", FAST)


def test_a_passing_refusal_is_tried_again(server, tmp_path):
    server.manners = [says(429, Retry_After="0"), says(503)]
    download(f"{server.url}/file", tmp_path / "file", FAST)
    assert len(server.asked) == 3


# --- unpacking ---------------------------------------------------------------------------------------------------------------


def archive(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for member, content in members:
            opened.writestr(member, content)
    return path


def link(name):
    member = zipfile.ZipInfo(name)
    member.create_system = 3
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def test_unpacking_keeps_folders_and_leaves_litter(tmp_path):
    path = archive(tmp_path / "a.zip", [("d/a.txt", "a"), ("b.txt", "b"), ("__MACOSX/d/._a.txt", "x"), ("d/.DS_Store", "x")])
    unpack(path, tmp_path / "out")
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*")) == [
        "b.txt",
        "d",
        "d/a.txt",
    ]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("good.txt", "a"), ("../evil.txt", "b")], r"'\.\./evil\.txt' would be written outside"),
        ([("good.txt", "a"), ("d/../../evil.txt", "b")], "outside"),
        ([("good.txt", "a"), ("/tmp/evil.txt", "b")], "outside"),
        ([("good.txt", "a"), ("C:\\evil.txt", "b")], "outside"),
        ([("good.txt", "a"), ("..\\evil.txt", "b")], "outside"),
        ([("good.txt", "a"), (link("evil"), "/etc/passwd")], "'evil' is a link"),
        ([("a.txt", "a"), ("b.txt", "b" * 2000)], "2 files and 2,001 bytes; at most"),
        ([(f"{n}.txt", "") for n in range(11)], "11 files"),
    ],
)
def test_harmful_archives_are_refused_before_anything_is_written(tmp_path, members, words):
    path = archive(tmp_path / "a.zip", members)
    with pytest.raises(FetchError, match=words):
        unpack(path, tmp_path / "deep" / "out", UnpackLimits(files=10, bytes=2000))
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_damaged_archives_are_named(tmp_path):
    path = archive(tmp_path / "a.zip", [("a.txt", bytes(range(256)) * 100)])
    data = bytearray(path.read_bytes())
    for name, content in {
        "cut.zip": data[: len(data) // 2],
        "flipped.zip": data[:60] + bytes([data[60] ^ 255]) + data[61:],
        "page.zip": b"<html>Not Found</html>",
        "empty.zip": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FetchError, match=f"{name}: not a whole zip file"):
            unpack(tmp_path / name, tmp_path / f"out {name}")


def test_a_size_that_the_header_understates_is_not_exceeded(tmp_path):
    path = archive(tmp_path / "bomb.zip", [("a.txt", b"\0" * 1_000_000)])
    data = path.read_bytes().replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    path.write_bytes(data)
    with pytest.raises(FetchError, match="not a whole zip file"):
        unpack(path, tmp_path / "out", UnpackLimits(bytes=100))
    assert all(p.stat().st_size <= 10 for p in (tmp_path / "out").iterdir())


# --- Flickr8k ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def mirror(server, tmp_path):
    """The server with both zip files, folded as the real ones are."""
    source = write_flickr8k(tmp_path / "source")
    text, photos = io.BytesIO(), io.BytesIO()
    archive(text, [(path.name, path.read_bytes()) for path in source.glob("*.txt")] + [("__MACOSX/._readme.txt", b"x")])
    archive(photos, [(f"Flicker8k_Dataset/{p.name}", p.read_bytes()) for p in (source / "images").iterdir()])
    server.files = {"/Flickr8k_text.zip": text.getvalue(), "/Flickr8k_Dataset.zip": photos.getvalue()}
    return server


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_flickr8k_arrives_whole_and_once(mirror, tmp_path):
    seen = set()
    fetched = fetch_flickr8k(
        tmp_path / "data", url=mirror.url, settings=FAST, progress=lambda what, done, total: seen.add((what, done == total))
    )
    assert not fetched.already
    assert len(read(tmp_path / "data").samples) == 60
    assert names(tmp_path / "data") == ["Flickr8k"]
    assert {("Flickr8k_Dataset.zip, MB", True), ("unpacking Flickr8k_Dataset.zip", True)} <= seen
    mirror.asked.clear()
    assert fetch_flickr8k(tmp_path / "data", url=mirror.url, settings=FAST).already
    assert mirror.asked == []


def test_files_that_were_fetched_in_another_way_are_used_and_kept(mirror, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for path, body in mirror.files.items():
        (folder / path[1:]).write_bytes(body)
    fetch_flickr8k(folder, url="http://127.0.0.1:9/nowhere", settings=FAST)
    assert names(folder) == ["Flickr8k", "Flickr8k_Dataset.zip", "Flickr8k_text.zip"]


@contextmanager
def fails(folder, words):
    with pytest.raises(FetchError, match=words):
        yield
    assert not (folder / "Flickr8k").exists()
    assert not any(path.suffix == ".zip" or path.name.startswith(".") for path in folder.iterdir())


def test_what_is_not_flickr8k_is_refused_and_fetched_anew(mirror, tmp_path):
    folder = tmp_path / "data"
    good = dict(mirror.files)
    mirror.files["/Flickr8k_Dataset.zip"] = b"<html>Please log in</html>"
    with fails(folder, "the zip files are not Flickr8k: .*not a whole zip file.*deleted; run this again"):
        fetch_flickr8k(folder, url=mirror.url, settings=FAST)
    mirror.files["/Flickr8k_Dataset.zip"] = good["/Flickr8k_Dataset.zip"][:-5000]
    with fails(folder, "not a whole zip"):
        fetch_flickr8k(folder, url=mirror.url, settings=FAST)
    few = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good["/Flickr8k_Dataset.zip"])) as opened:
        archive(few, [(name, opened.read(name)) for name in opened.namelist()[:50]])
    mirror.files["/Flickr8k_Dataset.zip"] = few.getvalue()
    with fails(folder, "10 of 60 listed photos are missing"):
        fetch_flickr8k(folder, url=mirror.url, settings=FAST)
    other = io.BytesIO()
    archive(other, [("readme.txt", "hello")])
    mirror.files = {**good, "/Flickr8k_text.zip": other.getvalue()}
    with fails(folder, r"Flickr8k\.token\.txt is not in this folder"):
        fetch_flickr8k(folder, url=mirror.url, settings=FAST)
    mirror.files = good
    assert len(fetch_flickr8k(folder, url=mirror.url, settings=FAST).dataset.samples) == 60


def test_a_folder_of_that_name_is_not_touched(mirror, tmp_path):
    (tmp_path / "data" / "Flickr8k").mkdir(parents=True)
    (tmp_path / "data" / "Flickr8k" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="move it away"):
        fetch_flickr8k(tmp_path / "data", url=mirror.url, settings=FAST)
    assert mirror.asked == []
    assert names(tmp_path / "data" / "Flickr8k") == ["mine.txt"]


def test_the_command(mirror, tmp_path):
    arguments = ["data", "fetch", "flickr8k", str(tmp_path / "data"), "--timeout", "0.3", "--retries", "0"]
    run = CliRunner().invoke(cli, [*arguments, "--url", f"{mirror.url}/nowhere"], standalone_mode=False)
    assert isinstance(run.exception, FetchError)
    assert "put Flickr8k_text.zip and Flickr8k_Dataset.zip into" in str(run.exception)
    run = CliRunner().invoke(cli, arguments, env={"SHOWTELL_FLICKR8K_URL": mirror.url}, standalone_mode=False)
    assert run.return_value == 0, run.output
    assert "Flickr8k is complete, 60 photos" in run.stderr
