"""Photos that have a caption already: beside them, and in outputs."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from showtell import runtime
from showtell.archive.beside import Sidecars
from showtell.archive.kept import open_kept
from showtell.errors import DataError, OptionError, OutputError
from showtell.types import Caption, Record


def record(path: object, *texts: str) -> Record:
    return Record(str(path), "ok", tuple(Caption(text, -1.0, ()) for text in texts))


def test_sidecars_have_the_photos_name_and_the_words_around(tmp_path: Path) -> None:
    sidecars = Sidecars(".txt", "sks, ", ", photo")
    sidecars.write(record(tmp_path / "dog.jpg", "a dog", "dogs"))
    assert (tmp_path / "dog.txt").read_text() == "sks, a dog, photo\nsks, dogs, photo\n"
    sidecars.write(Record(str(tmp_path / "lost.jpg"), "error", error_code="not-found", error_message="lost"))
    assert not (tmp_path / "lost.txt").exists()


@pytest.mark.parametrize(("existing", "text"), [("skip", "mine\n"), ("replace", "a dog\n"), ("add", "mine\na dog\n")])
def test_text_that_is_there_is_kept_replaced_or_added_to(tmp_path: Path, existing, text: str) -> None:
    (tmp_path / "dog.txt").write_text("mine\n")
    sidecars = Sidecars(".txt", existing=existing)
    for _ in range(2):
        sidecars.write(record(tmp_path / "dog.jpg", "a dog"))
    assert (tmp_path / "dog.txt").read_text() == text


def test_a_blank_sidecar_is_no_caption(tmp_path: Path) -> None:
    (tmp_path / "dog.txt").write_text("\n")
    assert not Sidecars(".txt").has(str(tmp_path / "dog.jpg"))


@pytest.mark.parametrize("suffix", ["txt", ".", "./x", ".jpg", ".PNG"])
def test_a_sidecar_never_takes_a_photos_name(suffix: str) -> None:
    with pytest.raises(OptionError, match="sidecar="):
        Sidecars(suffix)


def test_a_second_run_over_sidecars_loads_no_model(album: Path, here, monkeypatch: pytest.MonkeyPatch) -> None:
    (album / "broken.jpg").unlink()
    (album / "3.txt").write_text("mine\n")
    status, out, errors = here("caption", album, "--sidecar", ".txt", "--existing", "skip", "--prefix", "sks ")
    assert (status, out) == (0, "")
    assert "4 captioned, 0 failed, 1 had a caption" in errors
    assert (album / "3.txt").read_text() == "mine\n"
    written = {path: path.stat().st_mtime_ns for path in album.rglob("*.txt")}
    assert len(written) == 5
    assert (album / "below" / "4.txt").read_text().startswith("sks ")
    monkeypatch.setattr(runtime, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    status, out, errors = here("caption", album, "--sidecar", ".txt", "--existing", "skip")
    assert (status, out) == (0, "")
    assert "0 captioned, 0 failed, 5 had a caption" in errors
    assert {path: path.stat().st_mtime_ns for path in album.rglob("*.txt")} == written


def test_photos_in_an_output_are_left_out_and_failures_are_tried_again(album: Path, tmp_path: Path, here) -> None:
    output = tmp_path / "out.jsonl"
    assert here("caption", album, "--output", output)[0] == 1
    before = output.read_bytes()
    with output.open("ab") as file:
        file.write(b'{"path": "cut sho')
    status, _, errors = here("caption", album, "--output", output, "--existing", "skip")
    assert status == 1
    assert "0 captioned, 1 failed, 5 had a caption" in errors
    assert sorted(output.read_bytes().splitlines()) == sorted(before.splitlines())
    assert here("caption", album, "--output", output)[0] == 2  # not without being told
    for existing, count in (("replace", 6), ("add", 12)):
        assert here("caption", album, "--output", output, "--existing", existing)[0] == 1
        records = [json.loads(line) for line in output.read_text().splitlines()]
        assert len(records) == count
        assert len({entry["path"] for entry in records}) == 6


@pytest.mark.parametrize("suffix", [".jsonl", ".sqlite"])
@pytest.mark.parametrize(
    ("existing", "texts"), [("skip", ["new", "other"]), ("replace", ["new", "other"]), ("add", ["new", "old", "other"])]
)
def test_older_records_go_when_newer_ones_replace_them(tmp_path: Path, suffix: str, existing, texts: list[str]) -> None:
    from showtell.archive.sinks import open_sink

    path = tmp_path / f"out{suffix}"
    with closing(open_sink(path, overwrite=False)) as sink:
        sink.write(record("a.jpg", "old"))
        sink.write(record("b.jpg", "other"))
    sink, recorded = open_kept(path, existing)
    assert recorded.has("a.jpg")
    assert not recorded.has("c.jpg")
    sink.write(record("a.jpg", "new"))
    sink.close()
    if suffix == ".jsonl":
        found = [json.loads(line)["caption"] for line in path.read_text().splitlines()]
    else:
        import sqlite3

        with closing(sqlite3.connect(path)) as connection:
            found = [caption for (caption,) in connection.execute("select caption from photos")]
            assert connection.execute("select count(*) from captions").fetchone() == (len(texts),)
    assert sorted(found) == texts


def test_outputs_that_cannot_be_added_to_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(OutputError, match=r"a.csv: --existing adds to .jsonl and .sqlite only"):
        open_kept(tmp_path / "a.csv", "skip")
    (tmp_path / "a.jsonl").write_text('{"no": "record"}\n')
    with pytest.raises(DataError, match="line 1: no record"):
        open_kept(tmp_path / "a.jsonl", "skip")
    (tmp_path / "a.sqlite").write_text("nothing of the kind")
    with pytest.raises(DataError, match="not a database"):
        open_kept(tmp_path / "a.sqlite", "skip")


def test_existing_needs_a_place_and_excludes_overwrite(album: Path, here, tmp_path: Path) -> None:
    assert "--output file, or beside or in photos" in here("caption", album, "--existing", "skip")[2]
    given = ["caption", album, "--output", tmp_path / "a.jsonl", "--existing", "skip", "--overwrite"]
    assert "leave one" in here(*given)[2]


def test_photos_in_an_archive_get_no_sidecars(here) -> None:
    assert "photos in a.tar have no place beside them; use --output" in here("caption", "a.tar", "--sidecar", ".txt")[2]
