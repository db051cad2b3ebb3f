"""Converters: what goes in comes out again when the result is read, whatever the source; nothing half-written stays."""

import csv
import io
import json
import os
import tarfile

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layout_samples import CAPTIONS, DOG, PHOTOS, SAMPLES, SPLITS, jpeg, put
from showtell.cli.main import cli
from showtell.data import convert, read
from showtell.errors import OptionError, OutputError


def contents(dataset):
    """What a data set says, whatever its photos are called."""
    return {dataset.photos.read(s.image): (s.captions, s.split) for s in dataset.samples}


@pytest.mark.parametrize("destination", ["out/data.jsonl", "out/coco.json", "out/tars", "out/all.tar"])
@pytest.mark.parametrize("sample", ["flickr8k", "coco", "sidecars", "webdataset"])
def test_round_trips(tmp_path, sample, destination):
    put(tmp_path / "source", SAMPLES[sample][1]())
    source = read(tmp_path / "source", split_seed=None)
    assert convert.convert(source, tmp_path / destination) == []
    converted = read(tmp_path / destination, split_seed=None)
    assert contents(converted) == contents(source)
    assert converted.describe_left_out() in (None, "3 photos are in no split: " + ", ".join(s.image for s in converted.samples))
    # and by way of a third format
    assert convert.convert(converted, tmp_path / "third" / "again.jsonl") == []
    assert contents(read(tmp_path / "third" / "again.jsonl", split_seed=None)) == contents(source)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [destination.split("/")[1]]


def test_names_survive_the_tars(tmp_path):
    put(tmp_path / "source", SAMPLES["flickr8k"][1]())
    convert.convert(read(tmp_path / "source"), tmp_path / "tars")
    assert sorted(path.name for path in (tmp_path / "tars").iterdir()) == [f"{s}-00000.tar" for s in ("dev", "test", "train")]
    assert {s.image: s.split for s in read(tmp_path / "tars").samples} == SPLITS
    with tarfile.open(tmp_path / "tars" / "train-00000.tar") as tar:
        assert tar.getnames() == ["000000000.jpg", "000000000.txt", "000000000.json"]
        assert tar.extractfile("000000000.txt").read().decode() == CAPTIONS[DOG][0]
        assert tar.extractfile("000000000.jpg").read() == jpeg(DOG)


def test_shards_hold_a_limited_number(tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "SHARD", 2)
    put(tmp_path / "source", SAMPLES["captions.txt"][1]())
    convert.convert(read(tmp_path / "source", split_seed=None), tmp_path / "tars")
    assert sorted(path.name for path in (tmp_path / "tars").iterdir()) == ["00000.tar", "00001.tar"]
    assert len(read(tmp_path / "tars").samples) == 3


def test_the_formats_are_those_that_others_read(tmp_path):
    put(tmp_path / "source", SAMPLES["flickr8k"][1]())
    dataset = read(tmp_path / "source")
    convert.convert(dataset, tmp_path / "d.jsonl")
    first = json.loads((tmp_path / "d.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first == {"image": f"source/Flicker8k_Dataset/{DOG}", "captions": list(CAPTIONS[DOG]), "split": "train"}
    convert.convert(dataset, tmp_path / "c.json")
    coco = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert [image["id"] for image in coco["images"]] == [1, 2, 3]
    assert [(a["id"], a["image_id"]) for a in coco["annotations"]] == [(1, 1), (2, 1), (3, 2), (4, 3)]


def test_a_path_that_is_not_utf8_survives(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    try:
        put(tmp_path, {name: jpeg(DOG)})
    except OSError:
        pytest.skip("this file system keeps only UTF-8 names")
    (tmp_path / (name[:-4] + ".txt")).write_text("A dog .")
    dataset = read(tmp_path)
    for destination in ("d.jsonl", "c.json", "t.tar"):
        convert.convert(dataset, tmp_path / "out" / destination)
        assert contents(read(tmp_path / "out" / destination)) == contents(dataset)


def test_what_is_there_is_kept(tmp_path):
    put(tmp_path / "source", SAMPLES["flickr8k"][1]())
    dataset = read(tmp_path / "source")
    put(tmp_path, {"d.jsonl": "mine", "tars/mine.txt": "mine"})
    with pytest.raises(OutputError, match=r"d\.jsonl: already exists.*--overwrite"):
        convert.convert(dataset, tmp_path / "d.jsonl")
    with pytest.raises(OutputError, match="new folder"):
        convert.convert(dataset, tmp_path / "tars", overwrite=True)
    assert (tmp_path / "d.jsonl").read_text() == "mine"
    convert.convert(dataset, tmp_path / "d.jsonl", overwrite=True)
    assert len(read(tmp_path / "d.jsonl").samples) == len(PHOTOS)
    with pytest.raises(OptionError, match=r"suffix '\.xml'.*jsonl, coco, webdataset"):
        convert.convert(dataset, tmp_path / "d.xml")


def test_an_interrupted_conversion_leaves_nothing(tmp_path):
    put(tmp_path / "source", SAMPLES["flickr8k"][1]())
    dataset = read(tmp_path / "source")

    def interrupt(what, done, total):
        if done == 2:
            raise KeyboardInterrupt

    for destination in ("tars", "all.tar"):
        with pytest.raises(KeyboardInterrupt):
            convert.convert(dataset, tmp_path / destination, progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_photo_that_vanishes_is_named_and_the_others_go_on(tmp_path):
    put(tmp_path / "source", SAMPLES["flickr8k"][1]())
    dataset = read(tmp_path / "source")
    (tmp_path / "source" / "Flicker8k_Dataset" / DOG).unlink()
    [reason] = convert.convert(dataset, tmp_path / "tars")
    assert DOG in reason
    assert len(read(tmp_path / "tars").samples) == 2


def test_the_command(tmp_path):
    put(tmp_path / "source", SAMPLES["captions.txt"][1]())
    source, destination = str(tmp_path / "source"), str(tmp_path / "d.out")
    run = CliRunner().invoke(cli, ["data", "convert", source, destination, "--format", "jsonl", "--split-seed", "3"])
    assert run.exception is None, run.output
    assert "drawn by photo with seed 3" in run.stderr
    assert "3 photos, 4 captions (jsonl)" in run.stderr
    lines = [json.loads(line) for line in (tmp_path / "d.out").read_text(encoding="utf-8").splitlines()]
    assert {line["split"] for line in lines} <= {"train", "dev", "test"}


# Anything that a caption or a file's name may hold; a lone list of strings in a cell is read as several captions.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(
    lambda text: text.strip() and not (text.strip()[0] == "[" and text.strip()[-1] == "]")
)
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1, max_size=12).map(
    lambda name: f"p{name}.jpg"
)
SETS = st.dictionaries(NAMES, st.lists(TEXTS, min_size=1, max_size=3), min_size=1, max_size=4)
many = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def fresh(folder, samples):
    """A folder with a photo for each of the names, each of bytes of its own."""
    for path in folder.glob("*"):
        path.unlink()
    for name in samples:
        put(folder, {name: b"\xff\xd8\xff" + name.encode()})
    return folder


def stripped(samples, one_line=False):
    return {
        name: tuple(" ".join(text.split()) if one_line else text.strip() for text in texts) for name, texts in samples.items()
    }


def read_back(path):
    return {sample.image.rsplit("/", 1)[-1]: sample.captions for sample in read(path, split_seed=None).samples}


@many
@given(samples=SETS)
def test_what_convert_writes_is_what_is_read(tmp_path, samples):
    folder = fresh(tmp_path, samples)
    rows = [{"image": name, "captions": texts} for name, texts in samples.items()]
    put(folder, {"data.jsonl": "".join(json.dumps(row) + "\n" for row in rows)})
    source = read(folder / "data.jsonl", split_seed=None)
    assert {s.image: s.captions for s in source.samples} == stripped(samples)
    for destination in ("out.jsonl", "out.json", "out.tar"):
        assert convert.convert(source, folder / destination, overwrite=True) == []
        assert contents(read(folder / destination, split_seed=None)) == contents(source)
        (folder / destination).unlink()


@many
@given(samples=SETS, delimiter=st.sampled_from(",;|"), ending=st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_csv_of_pythons_writer_is_read(tmp_path, samples, delimiter, ending):
    text = io.StringIO(newline="")
    rows = csv.writer(text, delimiter=delimiter, lineterminator=ending, quoting=csv.QUOTE_ALL)
    rows.writerows([("image", "caption"), *((name, caption) for name, texts in samples.items() for caption in texts)])
    (fresh(tmp_path, samples) / "t.csv").write_bytes(text.getvalue().encode())
    assert read_back(tmp_path / "t.csv") == stripped(samples)


@many
@given(samples=SETS, headed=st.booleans(), ending=st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_tab_separated_lines_are_read(tmp_path, samples, headed, ending):
    one_line = stripped(samples, one_line=True)
    rows = [("image", "caption")] * headed + [(name, text) for name, texts in one_line.items() for text in texts]
    text = "".join("\t".join(row) + ending for row in rows)
    (fresh(tmp_path, samples) / "t.tsv").write_bytes(text.encode())
    assert read_back(tmp_path / "t.tsv") == one_line


@many
@given(samples=SETS, ending=st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_token_lines_are_read(tmp_path, samples, ending):
    one_line = stripped(samples, one_line=True)
    text = "".join(f"{name}#{k}\t{text}{ending}" for name, texts in one_line.items() for k, text in enumerate(texts))
    (fresh(tmp_path, samples) / "x.token").write_bytes(text.encode())
    assert read_back(tmp_path / "x.token") == one_line
