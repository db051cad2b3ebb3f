"""Photos on other machines: fsspec's memory file system, a web server and a server that answers like S3."""

import csv
import io
import json
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from showtell.archive.sources import Selection, is_one_photo, photos, reopen
from showtell.errors import ImageError, MissingExtraError
from showtell.image import name_of, read_rgb


def names(*arguments: str, stdin: bytes = b"", selection: Selection | None = None) -> list[str]:
    return [name_of(source) for source in photos(arguments, io.BytesIO(stdin), selection)]


def tar_of(files: dict[str, bytes], mode: str = "w") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def parquet_of(column: str, cells: list[object]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    data = io.BytesIO()
    parquet.write_table(pyarrow.table({column: cells}), data)
    return data.getvalue()


@pytest.fixture
def memory(jpeg: bytes) -> Iterator[str]:
    """A folder in memory, as on S3."""
    system = fsspec.filesystem("memory")
    for name, data in {
        "2.jpg": jpeg,
        "1.jpg": jpeg,
        "below/3": jpeg,
        "below/.4.jpg": jpeg,
        "notes.txt": b"words",
        "empty.jpg": b"",
    }.items():
        system.pipe(f"memory://album/{name}", data)
    yield "memory://album"
    system.store.clear()
    system.pseudo_dirs[:] = [""]


class Web(BaseHTTPRequestHandler):
    """Serves `files` by their path without the query; `asked` lists the requests."""

    files: dict[str, bytes]
    asked: list[tuple[str, str]]

    def do_GET(self) -> None:
        self.asked.append((self.command, self.path))
        data = self.files.get(self.path.partition("?")[0])
        if self.path == "/forbidden.jpg":
            self.send_error(403)
        elif data is None:
            self.send_error(404)
        else:
            first, last = 0, len(data) - 1
            if span := self.headers.get("Range"):
                first, last = (int(end) for end in span.removeprefix("bytes=").split("-"))
                last = min(last, len(data) - 1)
            self.send_response(206 if span else 200)
            self.send_header("Content-Length", str(last + 1 - first))
            self.send_header("Accept-Ranges", "bytes")
            if span:
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data[first : last + 1])

    do_HEAD = do_GET  # noqa: N815  # the name that http.server calls

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def web(jpeg: bytes) -> Iterator[str]:
    """The address of a web server with photos, archives and tables."""
    shard = {"1.jpg": jpeg, "1.txt": b"words", "2.jpg": b"no photo"}
    table = b"url,note\n/dog.jpg,a\nMISSING/gone.jpg,b\nnear.jpg,c\n"
    Web.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Web) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        table = f"url,note\n{address}/dog.jpg?w=9,a\n{address}/gone.jpg,b\nnear.jpg,c\n".encode()
        Web.files = {
            "/dog.jpg": jpeg,
            "/page": b"<html>not a photo</html>",
            "/a.tar": tar_of(shard),
            "/a.tar.gz": tar_of(shard, "w:gz"),
            "/cut.tar": tar_of(shard)[:700],
            "/a.zip": zip_of(shard),
            "/t/a.csv": table,
            "/t/near.jpg": jpeg,
            "/t/a.jsonl": b'{"image": "near.jpg"}\n',
            "/t/a.parquet": parquet_of("image", ["near.jpg"]),
            "/bytes.parquet": parquet_of("image", [jpeg]),
        }
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield address
        server.shutdown()
        thread.join()


def test_a_folder_at_a_url_gives_its_photos_as_one_on_disk_does(memory: str) -> None:
    selection = Selection()
    found = list(photos([memory], io.BytesIO(), selection))
    assert [name_of(source) for source in found] == [
        f"memory:///album/{name}" for name in ("1.jpg", "2.jpg", "empty.jpg", "below/3")
    ]
    assert read_rgb(found[3]).size == (64, 64)
    assert selection.skipped == {"hidden files": 1, "text (.txt)": 1}
    with pytest.raises(ImageError, match="empty.jpg: the file is empty"):
        read_rgb(found[2])
    assert names(memory, selection=Selection(include=("*.jpg",), exclude=("2*",))) == [
        "memory:///album/1.jpg",
        "memory:///album/empty.jpg",
    ]
    assert read_rgb(reopen("memory:///album/1.jpg")).size == (64, 64)


def test_a_url_that_leads_nowhere_is_one_error(memory: str) -> None:
    for url, code in ((f"{memory}/gone.jpg", "not-found"), (f"{memory}/gone", "not-found"), ("nosuch://x/y.jpg", "unreadable")):
        [source] = photos([url], io.BytesIO())
        with pytest.raises(ImageError, match=url) as raised:
            read_rgb(source)
        assert raised.value.code == code


def test_a_photo_of_the_web_is_read_in_one_request(web: str) -> None:
    url = f"{web}/dog.jpg?width=600"
    [source] = photos([url], io.BytesIO())
    assert name_of(source) == url
    assert read_rgb(source).size == (64, 64)
    assert Web.asked == [("GET", "/dog.jpg?width=600")]


@pytest.mark.parametrize(
    ("name", "code"), [("gone.jpg", "not-found"), ("forbidden.jpg", "unreadable"), ("page", "not-an-image")]
)
def test_what_the_web_does_not_give_is_an_error_of_its_own(web: str, name: str, code: str) -> None:
    [source] = photos([f"{web}/{name}"], io.BytesIO())
    with pytest.raises(ImageError, match=name) as raised:
        read_rgb(source)
    assert raised.value.code == code


def test_a_server_that_is_away_is_an_error_of_its_own() -> None:
    [source] = photos(["http://127.0.0.1:9/dog.jpg"], io.BytesIO())  # a port that nothing listens at
    with pytest.raises(ImageError, match=r"127.0.0.1:9/dog.jpg: Cannot connect"):
        read_rgb(source)


def test_no_more_than_the_limit_is_read_of_the_web(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("showtell.archive.members._MOST_BYTES", 100)
    [source] = photos([f"{web}/dog.jpg"], io.BytesIO())
    assert len(source.read()) == 100


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
def test_an_archive_at_a_url_gives_its_photos(web: str, name: str) -> None:
    selection = Selection()
    found = list(photos([f"{web}/{name}"], io.BytesIO(), selection))
    assert [name_of(source) for source in found] == [f"{web}/{name}/1.jpg", f"{web}/{name}/2.jpg"]
    assert read_rgb(found[0]).size == (64, 64)
    with pytest.raises(ImageError, match="not an image"):
        read_rgb(found[1])
    assert selection.skipped == {"text (.txt)": 1}


def test_a_damaged_archive_at_a_url_is_one_error(web: str) -> None:
    for name in ("cut.tar", "gone.tar", "gone.zip"):
        *_, last = photos([f"{web}/{name}"], io.BytesIO())
        with pytest.raises(ImageError, match=name):
            read_rgb(last)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_table_at_a_url_names_photos_beside_it_and_elsewhere(web: str, name: str) -> None:
    expected = [f"{web}/dog.jpg?w=9", f"{web}/gone.jpg"] if name == "a.csv" else []
    found = list(photos([f"{web}/t/{name}"], io.BytesIO(), Selection(image_column="url" if expected else None)))
    assert [name_of(source) for source in found] == [*expected, f"{web}/t/near.jpg"]
    assert read_rgb(found[-1]).size == (64, 64)


def test_photos_within_a_parquet_file_at_a_url(web: str) -> None:
    [source] = photos([f"{web}/bytes.parquet"], io.BytesIO())
    assert read_rgb(source).size == (64, 64)


def test_a_list_may_name_urls(web: str, photo: Path) -> None:
    listed = f"{photo}\n{web}/dog.jpg\n".encode()
    found = list(photos(["-"], io.BytesIO(listed)))
    assert [name_of(source) for source in found] == [str(photo), f"{web}/dog.jpg"]
    assert read_rgb(found[1]).size == (64, 64)


def test_one_url_prints_its_caption_alone(web: str, here) -> None:
    status, out, _ = here("caption", f"{web}/dog.jpg")
    assert status == 0
    assert "\t" not in out
    assert is_one_photo([f"{web}/page?x=1"])
    assert not is_one_photo([f"{web}/a.tar?x=1"])
    assert not is_one_photo(["s3://bucket/album"])


def test_urls_and_files_go_into_one_run_that_resumes(web: str, album: Path, tmp_path: Path, here) -> None:
    table, run, output, gallery = (tmp_path / name for name in ("t.csv", "run", "out.jsonl", "out.html"))
    paths = [f"{web}/dog.jpg", str(album / "0.jpg"), f"{web}/gone.jpg", f"{web}/a.tar/2.jpg"]
    with open(table, "w") as file:
        csv.writer(file).writerows([["path"], *([path] for path in paths)])
    status, _, errors = here("caption", table, "--run", run, "--output", output, "--output", gallery, "--sidecar", ".txt")
    assert status == 1
    assert "2 captioned, 2 failed" in errors
    assert f"{web}/dog.jpg: nothing is written beside a photo on another machine" in errors
    assert (album / "0.txt").exists()
    assert [json.loads(line)["path"] for line in output.read_text().splitlines()] == paths
    assert (tmp_path / "out_files" / "0000" / "000.jpg").exists()
    Web.files["/gone.jpg"] = Web.files["/dog.jpg"]
    status, _, errors = here("caption", "--run", run, "--resume", "--retry-failed")
    assert "3 captioned, 1 failed" in errors


def test_nothing_is_written_beside_photos_at_urls(here) -> None:
    status, _, errors = here("caption", "s3://bucket/album", "--sidecar", ".txt")
    assert status == 2
    assert "photos at s3://bucket/album have no place beside them" in errors


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(MissingExtraError, match=r"remote"):
        names("s3://bucket/album")
    [source] = photos(["s3://bucket/dog.jpg"], io.BytesIO())
    with pytest.raises(MissingExtraError, match=r"remote"):
        read_rgb(source)


@pytest.fixture(scope="module")
def s3() -> Iterator[None]:
    """A server that answers like S3, and credentials for it in the environment."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    given = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        yield
    server.stop()


def test_photos_in_a_bucket_give_the_records_of_those_on_disk(s3: None, album: Path, tmp_path: Path, here) -> None:
    system = fsspec.filesystem("s3")
    system.mkdir("bucket")
    system.pipe("bucket/album/", b"")  # as consoles make folders
    for path in album.rglob("*.jpg"):
        system.pipe(f"bucket/album/{path.relative_to(album)}", path.read_bytes())
    system.pipe("bucket/album/empty.jpg", b"")
    system.pipe("bucket/album.tar", tar_of({path.name: path.read_bytes() for path in sorted(album.glob("?.jpg"))}))
    (album / "empty.jpg").write_bytes(b"")

    def records(argument: str) -> list[dict[str, object]]:
        output = tmp_path / "out.jsonl"
        here("caption", argument, "--output", output, "--overwrite")
        found = [json.loads(line) for line in output.read_text().splitlines()]
        for record in found:
            error = record.get("error", {})
            for value, key in ((record, "path"), *([(error, "message")] if error else [])):
                value[key] = str(value[key]).replace(f"{argument}/", "")
        return found

    on_disk = records(str(album))
    assert [record["status"] for record in on_disk].count("error") == 2
    assert records("s3://bucket/album") == on_disk
    in_tar = records("s3://bucket/album.tar")
    assert in_tar == [record for record in on_disk if os.fspath(record["path"])[0].isdigit()]
    [absent] = records("s3://bucket/absent.jpg")
    assert absent["error"]["code"] == "not-found"
    [forbidden] = records("s3://other-bucket/folder")
    assert forbidden["status"] == "error"
