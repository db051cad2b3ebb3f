"""All outputs of one run hold the same records, and a cut-off run leaves whole files."""

import csv
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from showtell.archive import database
from showtell.archive.sinks import SUFFIXES, open_sink
from showtell.data import read
from showtell.errors import DataError, OutputError
from showtell.types import Caption, Record

DOG = Record(
    "photos/COCO_val2014_000000000042.jpg", "ok", (Caption("a dog in snow", -0.5, ()), Caption("dogs", -1.0, ())), 6, 4, "m"
)
CAT = Record(os.fsdecode(b"caf\xe9.jpg"), "ok", (Caption('a "cat", asleep', -0.7, ()),), 6, 4, "m")
LOST = Record("lost.jpg", "error", model="m", error_code="not-found", error_message="lost.jpg: no such file")


def write(path: Path, *records: Record) -> Path:
    sink = open_sink(path, overwrite=False)
    for record in records:
        sink.write(record)
    sink.close()
    return path


def test_one_run_writes_all_outputs_with_the_same_records(album: Path, tmp_path: Path, here) -> None:
    outputs = {
        suffix: tmp_path / f"out{suffix}" for suffix in (".jsonl", ".csv", ".parquet", ".json", ".sqlite", ".txt", ".html")
    }
    arguments = [part for output in outputs.values() for part in ("--output", output)]
    status, out, errors = here("caption", album, *arguments)
    assert (status, out) == (1, "")
    assert "5 captioned, 1 failed" in errors
    records = [json.loads(line) for line in outputs[".jsonl"].read_text().splitlines()]
    assert [Path(record["path"]).name for record in records] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "broken.jpg", "4.jpg"]
    expected = {record["path"]: record.get("caption") for record in records}
    good = {path: caption for path, caption in expected.items() if caption}
    with open(outputs[".csv"], newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"]: row["caption"] or None for row in rows} == expected
    assert json.loads(rows[0]["captions"]) == [rows[0]["caption"]]
    from pyarrow import parquet

    table = parquet.read_table(outputs[".parquet"]).to_pylist()
    assert {row["path"]: row["caption"] for row in table} == expected
    assert [row["error_code"] for row in table if row["status"] == "error"] == [records[4]["error"]["code"]]
    coco = json.loads(outputs[".json"].read_text())
    assert [(entry["image_id"], entry["caption"]) for entry in coco] == [
        (int(Path(path).stem), caption) for path, caption in good.items()
    ]
    assert dict(line.split("\t") for line in outputs[".txt"].read_text().splitlines()) == good
    with closing(sqlite3.connect(outputs[".sqlite"])) as connection:
        assert dict(connection.execute("select path, caption from photos")) == expected
    assert len(list((tmp_path / "out_files").rglob("*.jpg"))) == 5
    script = (tmp_path / "out_files" / "records-00000.js").read_text().removeprefix("records.push(...").removesuffix(");\n")
    assert {entry["path"]: (entry["captions"] or [None])[0] for entry in json.loads(script)} == expected


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_output_that_exists_is_kept_unless_told_otherwise(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_text("precious")
    with pytest.raises(OutputError, match=f"{path}: already exists; give another file or --overwrite"):
        open_sink(path, overwrite=False)
    assert path.read_text() == "precious"
    sink = open_sink(path, overwrite=True)
    sink.write(DOG)
    sink.close()
    assert b"precious" not in path.read_bytes()


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"must be one of .*\.parquet"):
        open_sink(tmp_path / "out.doc", overwrite=False)


def test_coco_ids_are_the_numbers_of_names(tmp_path: Path) -> None:
    written = json.loads(write(tmp_path / "a.json", DOG, LOST, CAT).read_text())
    assert written[0] == {"image_id": 42, "caption": "a dog in snow"}
    assert [entry["caption"] for entry in written] == ["a dog in snow", 'a "cat", asleep']
    assert json.loads(write(tmp_path / "b.json").read_text()) == []


def test_names_that_are_not_utf_8_are_in_every_format(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        write(tmp_path / f"out{suffix}", CAT)
    with open(tmp_path / "out.csv", errors="surrogateescape", newline="") as file:
        assert next(csv.DictReader(file))["path"] == CAT.path
    from pyarrow import parquet

    assert parquet.read_table(tmp_path / "out.parquet")["path"].to_pylist() == ["caf\\xe9.jpg"]


def test_search_finds_stems_and_ranks_photos_with_all_words_first(tmp_path: Path) -> None:
    snow = Record("snow.jpg", "ok", (Caption("snow on a hill", -1.0, ()),))
    path = write(tmp_path / "a.sqlite", snow, DOG, CAT, LOST)
    assert [match.path for match in database.search(path, "dog in snow", 9)] == [DOG.path]
    assert [match.path for match in database.search(path, "dogs", 9)] == [DOG.path]
    assert {match.path for match in database.search(path, "cat hill", 9)} == {"caf\\xe9.jpg", "snow.jpg"}
    assert database.search(path, "zebra", 9) == []
    assert len(database.search(path, "a", 1)) == 1
    with pytest.raises(DataError, match="no words"):
        database.search(path, '" - ', 9)
    with pytest.raises(DataError, match="no such file"):
        database.search(tmp_path / "absent.sqlite", "dog", 9)
    (tmp_path / "no.sqlite").write_text("not a database at all")
    with pytest.raises(DataError, match="not a database of captions"):
        database.search(tmp_path / "no.sqlite", "dog", 9)


def test_the_search_command_prints_paths_and_captions(tmp_path: Path, here) -> None:
    path = write(tmp_path / "a.sqlite", DOG, LOST)
    assert here("search", path, "dog", "in", "snow")[:2] == (0, f"{DOG.path}\ta dog in snow\n")
    found = json.loads(here("search", path, "dog in snow", "--format", "jsonl")[1])
    assert (found["path"], found["caption"]) == (DOG.path, "a dog in snow")
    status, _, errors = here("search", tmp_path / "absent.sqlite", "dog")
    assert status == 2
    assert "--output" in errors


def test_a_gallery_shows_no_markup_of_names_and_searches(tmp_path: Path, album: Path) -> None:
    hostile = album / "</script><img src=x onerror=alert(1)>".replace("/", "_")
    (album / "0.jpg").rename(hostile)
    caption = Caption("</script><b>bold</b>", -1.0, ())
    path = write(tmp_path / "a gallery.html", Record(str(hostile), "ok", (caption,)), LOST)
    assert "bold" not in path.read_text()
    script = (tmp_path / "a gallery_files" / "records-00000.js").read_text()
    assert "<" not in script
    assert "a%20gallery_files/records-00000.js" in path.read_text()


def test_kohyas_metadata_has_the_trigger_word_and_is_a_data_set(album: Path, here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(album.parent)
    status, _, errors = here("caption", album.name, "--output", "meta_cap.json", "--prefix", "sks, ", "--output", "all.jsonl")
    assert status == 1, errors
    records = [json.loads(line) for line in Path("all.jsonl").read_text().splitlines()]
    expected = {str(Path(record["path"]).absolute()): f"sks, {record['caption']}" for record in records if "caption" in record}
    found = json.loads(Path("meta_cap.json").read_text())
    assert {name: value["caption"] for name, value in found.items()} == expected
    assert len(expected) == 5
    samples = read(Path("meta_cap.json")).samples
    assert sorted(caption for sample in samples for caption in sample.captions) == sorted(expected.values())


def test_kohyas_metadata_without_a_caption_is_an_empty_object(tmp_path: Path) -> None:
    assert json.loads(write(tmp_path / "meta_cap.json", LOST).read_text()) == {}
