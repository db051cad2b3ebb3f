"""Every layout, read from a small sample in its true format; and errors that name the place."""

import contextlib
import io
import json
import shutil
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from layout_samples import (
    CAPTIONS,
    CAT,
    DOG,
    MEN,
    PHOTOS,
    SAMPLES,
    SPLITS,
    WITHOUT_SPLITS,
    captions_of,
    captions_txt,
    coco,
    flickr30k,
    jpeg,
    karpathy,
    lines,
    parquet,
    photos,
    put,
    table,
    tar,
    token,
    webdataset,
)
from showtell.data import LAYOUTS, Columns, read, recognise
from showtell.errors import DataError, MissingExtraError, OptionError, ShowtellError


@pytest.mark.parametrize("sample", SAMPLES)
def test_each_layout_is_recognised_and_read(tmp_path, sample):
    layout, files = SAMPLES[sample]
    put(tmp_path, files())
    assert [found.name for found in recognise(tmp_path)] == [layout]
    dataset = read(tmp_path, split_seed=None)
    found = {s.image.rsplit("/", 1)[-1]: s for s in dataset.samples}
    if sample == "webdataset":
        assert [s.image for s in dataset.samples] == [f"00000.tar/00000000{k}.jpg" for k in range(3)]
        assert [s.captions for s in dataset.samples] == [CAPTIONS[name][:1] for name in PHOTOS]
        assert "1 samples of the tars have no photo: 00000.tar/000000003" in dataset.describe_left_out()
    else:
        assert {name: sample.captions for name, sample in found.items()} == CAPTIONS
    splits = [None] * 3 if sample in WITHOUT_SPLITS else [SPLITS[name] for name in PHOTOS]
    assert Counter(s.split for s in dataset.samples) == Counter(splits)
    if sample not in WITHOUT_SPLITS:
        assert {name: s.split for name, s in found.items()} == SPLITS
    assert sorted(dataset.photos.read(s.image) for s in dataset.samples) == sorted(jpeg(name) for name in PHOTOS)
    assert dataset.missing == ()


@pytest.mark.parametrize(
    ("sample", "file"),
    [
        ("captions.txt", "captions.txt"),
        ("flickr30k results.csv", "results.csv"),
        ("flickr30k token file", "results_20130124.token"),
        ("flickr8k", "Flickr8k_text/Flickr8k.token.txt"),
        ("karpathy flickr", "dataset_flickr8k.json"),
        ("coco", "annotations/captions_val2017.json"),
        ("csv", "all.csv"),
        ("jsonl", "data.jsonl"),
        ("webdataset", "00000.tar"),
    ],
)
def test_a_caption_file_may_be_named_instead_of_its_folder(tmp_path, sample, file):
    put(tmp_path, SAMPLES[sample][1]())
    if sample == "flickr8k":
        for path in (tmp_path / "Flicker8k_Dataset").iterdir():
            path.rename(tmp_path / "Flickr8k_text" / path.name)
    put(tmp_path, {"other.csv": "image,caption\nnowhere.jpg,x\n"})
    assert len(read(tmp_path / file).samples) == (1 if sample == "coco" else 3)


def test_columns_may_be_named_and_several(tmp_path):
    rows = f"where;a;b,what,first,second,part\n{DOG},x,A dog runs .,A brown dog .,val\n".replace(";a;b", "")
    put(tmp_path, {"odd.csv": rows, **photos()})
    with pytest.raises(DataError, match="no data set is recognised"):
        read(tmp_path)
    with pytest.raises(DataError, match="no column of paths is recognised; the columns are where, what, first, second, part"):
        read(tmp_path / "odd.csv")
    columns = Columns(image="where", caption="first,second", split="part")
    [sample] = read(tmp_path, columns=columns).samples
    assert (sample.captions, sample.split) == (("A dog runs .", "A brown dog ."), "dev")
    with pytest.raises(DataError, match="there is no column 'third'"):
        read(tmp_path / "odd.csv", columns=Columns("where", "third"))
    put(tmp_path, {"odd.csv": f"file,caption_1,caption_2\n{DOG},A dog runs .,A brown dog .\n"})
    assert read(tmp_path).samples[0].captions == ("A dog runs .", "A brown dog .")


def test_tables_named_after_splits_are_read_together(tmp_path):
    files = {f"{stem}.csv": f"image,caption\n{name},A thing .\n" for stem, name in (("train", DOG), ("my_val2", MEN))}
    put(tmp_path, {"train.csv": files["train.csv"], "val.csv": files["my_val2.csv"], **photos("photos/")})
    assert {s.image: s.split for s in read(tmp_path).samples} == {DOG: "train", MEN: "dev"}
    (tmp_path / "val.csv").rename(tmp_path / "second.csv")
    with pytest.raises(DataError, match=r"2 tables are here \(second\.csv, train\.csv\).*path of one"):
        read(tmp_path)


def test_sidecars_without_photo_and_photos_without_sidecar_are_counted(tmp_path):
    put(tmp_path, {f"{DOG[:-4]}.caption": "A dog .", f"{DOG[:-4]}.txt": "dog, brown", "lost.txt": "Lost .", **photos()})
    dataset = read(tmp_path)
    assert [(s.image, s.captions) for s in dataset.samples] == [(DOG, ("A dog .",))]
    assert dataset.describe_left_out().splitlines()[:3] == [
        "1 text files have no photo: lost.txt",
        f"1 text files are ignored for another one of the same photo: {DOG[:-4]}.txt",
        f"2 listed photos have no caption: {MEN}, {CAT}",
    ]


BROKEN = {
    "cut short": ("t.csv", f"image,caption\n{DOG},A dog .\n{MEN}\n", r"t\.csv, line 3, column caption: the row is cut short"),
    "too long": (
        "captions.txt",
        f"image,caption\n{DOG},A dog, brown .\n",
        r"captions\.txt, line 2, column 3: 3 cells under 2.*quotation",
    ),
    "quotes": ("t.csv", f'image,caption\n{DOG},"A "dog" .\n', r"t\.csv, line 2: not CSV"),
    "split": ("t.csv", f"image,caption,split\n{DOG},A dog .,tain\n", r"t\.csv, line 2, column split: 'tain' is no split"),
    "no path": ("t.csv", "image,caption\n,A dog .\n", r"line 2, column image: the photo's path is missing"),
    "bytes": ("t.csv", b"image,caption\nx.jpg,caf\xe9\n", r"t\.csv, line 2, column 10: byte 23 is not UTF-8"),
    "json line": ("t.jsonl", '{"image": "a", "caption": "b"}\n{"image": }\n', r"t\.jsonl, line 2, column 11: broken JSON"),
    "json list": ("t.jsonl", '{"image": "a", "caption": "b"}\n[]\n', r"t\.jsonl, line 2: '\[\]' is no JSON object"),
    "json caption": ("t.jsonl", '{"image": "a", "caption": 3}\n', r"line 1, column caption: the caption 3 is of type int"),
    "json no caption": ("t.jsonl", '{"image": "a", "caption": "b"}\n{"image": "c"}\n', r"line 2, column caption: .* missing"),
    "bars": ("results.csv", "image_name| comment_number| comment\na.jpg| x| b\n", r"results\.csv, line 2, column 7"),
    "coco": ("captions_val.json", '{"images": [],\n "annotations": [}', r"captions_val\.json, line 2, column 18: broken JSON"),
    "karpathy": ("dataset_x.json", karpathy() | {"images": [{"filename": 3, "sentences": []}]}, r"image 1: the filename 3"),
    "token": ("x.token", "a.jpg#0 no tab\n", r"x\.token, line 1: 'a\.jpg#0 no tab' is not of the form"),
    "parquet": ("t.parquet", "no parquet", r"t\.parquet: not a readable Parquet file"),
    "webdataset": ("0.tar", tar({"1.jpg": b"x", "1.txt": b"\xff", "2.jpg": b""}), r"sample 1: byte 0 of 1\.txt is not UTF-8"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_name_the_place(tmp_path, case):
    name, content, words = BROKEN[case]
    put(tmp_path, {name: content, **photos()})
    with pytest.raises(DataError, match=words):
        read(tmp_path)


def test_what_is_not_recognised_or_ambiguous_is_said(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        read(tmp_path / "nowhere")
    put(tmp_path, photos())
    with pytest.raises(
        DataError, match=r"no data set is recognised\. Looked for: Flickr8k\.token\.txt \(flickr8k\); .*webdataset"
    ):
        read(tmp_path)
    assert recognise(tmp_path) == []
    put(tmp_path, {"captions.txt": f"image,caption\n{DOG},A dog .\n", "t.csv": f"image,caption\n{DOG},A hound .\n"})
    with pytest.raises(DataError, match=r"looks like captions-txt .* and table .*--layout"):
        read(tmp_path)
    assert read(tmp_path, "table").samples[0].captions == ("A hound .",)
    with pytest.raises(OptionError, match="layout 'tabel' is not known; known are flickr8k, captions-txt"):
        read(tmp_path, "tabel")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_that_is_not_there_is_an_error(tmp_path, layout):
    put(tmp_path, photos())
    with pytest.raises(DataError):
        read(tmp_path, layout)


def test_parquet_with_text_that_is_no_utf8_is_an_error_of_ours(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    captions = pa.array([b"A dog .", b"A \x80 dog ."]).view(pa.string())
    parquet.write_table(pa.table({"image": [DOG, DOG], "caption": captions}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet, after row \d+: broken Parquet"):
        read(tmp_path / "t.parquet")


def test_parquet_without_its_extra_says_what_to_install(tmp_path, monkeypatch):
    put(tmp_path, {"t.parquet": b"PAR1", **photos()})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for path in (tmp_path, tmp_path / "t.parquet"):
        with pytest.raises(MissingExtraError, match=r"pip install .*\[parquet\]'"):
            read(path)


FRAGMENTS = (
    *("image", "caption", "image,caption\n", "split", "train", "images", "annotations", "sentences", "filename", "id", DOG),
    *('"', ",", "\t", "\n", "\r\n", "|", "#0\t", "{", "}", "[", "]", ":", "\\ud800", "\0", "\ufeff", "null", "1", "é", " "),
)
NAMES = (
    "t.csv",
    "t.tsv",
    "t.jsonl",
    "captions.txt",
    "results.csv",
    "x.token",
    "c.json",
    "metadata.jsonl",
    "0.tar",
    "t.parquet",
)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=strategies.data())
def test_no_file_brings_anything_but_our_errors(tmp_path, name, data):
    sample = {
        "t.csv": table(",").encode(),
        "t.tsv": table("\t").encode(),
        "t.jsonl": lines({"image": DOG, "captions": ["A dog ."], "split": "dev"}).encode(),
        "captions.txt": captions_txt()["captions.txt"].encode(),
        "results.csv": flickr30k()["results.csv"].encode(),
        "x.token": token()["results_20130124.token"].encode(),
        "c.json": json.dumps(
            data.draw(strategies.sampled_from([karpathy(), coco()["annotations/captions_val2017.json"]]))
        ).encode(),
        "metadata.jsonl": lines({"file_name": DOG, "text": "A dog ."}).encode(),
        "0.tar": webdataset()["00000.tar"],
        "t.parquet": parquet()["captions.parquet"],
    }[name]
    for _ in range(data.draw(strategies.integers(1, 3))):
        place = data.draw(strategies.integers(0, len(sample)))
        length = data.draw(strategies.integers(0, 40))
        inserted = data.draw(
            strategies.one_of(strategies.binary(max_size=20), strategies.sampled_from(FRAGMENTS).map(str.encode))
        )
        sample = sample[:place] + inserted + sample[place + length :]
    put(tmp_path, {name: sample, DOG: jpeg(DOG)})
    for path in (tmp_path, tmp_path / name):
        with contextlib.suppress(ShowtellError):
            dataset = read(path)
            json.dumps([s.captions for s in dataset.samples], ensure_ascii=False).encode()


def test_names_in_tars_may_be_odd_or_given_twice(tmp_path):
    def sample(key, image):
        about = {"image": image, "captions": ["A thing ."]}
        return {f"{key}.jpg": jpeg(DOG), f"{key}.json": json.dumps(about).encode()}

    names = ["./a.jpg", "a.jpg", "x//../b.jpg", "/c.jpg", "d\\e.jpg", 7]
    members = {k: v for number, name in enumerate(names) for k, v in sample(f"{number}", name).items()}
    put(tmp_path, {"0.tar": tar(members)})
    dataset = read(tmp_path)
    assert [s.image for s in dataset.samples] == ["./a.jpg", "0.tar/1.jpg", "x//../b.jpg", "/c.jpg", "d\\e.jpg", "0.tar/5.jpg"]
    assert all(dataset.photos.read(s.image) == jpeg(DOG) for s in dataset.samples)


def test_tsv_cells_are_not_quoted(tmp_path):
    rows = f'image\tcaption\n{DOG}\t"Sit" says a man .\n{MEN}\t"Two\n{CAT}\tA "cat"\n'
    put(tmp_path, {"t.tsv": rows, **photos()})
    assert captions_of(tmp_path) == {DOG: ('"Sit" says a man .',), MEN: ('"Two',), CAT: ('A "cat"',)}


@pytest.mark.parametrize("sample", ["flickr8k", "captions.txt", "flickr30k results.csv", "tsv", "jsonl", "sidecars"])
def test_lines_may_end_with_carriage_returns_alone(tmp_path, sample):
    files = SAMPLES[sample][1]()
    put(tmp_path, {n: c.replace("\r\n", "\n").replace("\n", "\r") if isinstance(c, str) else c for n, c in files.items()})
    assert {name.rsplit("/", 1)[-1]: texts for name, texts in captions_of(tmp_path).items()} == CAPTIONS


def test_the_first_row_of_json_lines_does_not_name_all_columns(tmp_path):
    rows = [{"image": DOG, "captions": ["A dog ."]}, {"image": MEN, "captions": ["Men ."], "split": "test"}]
    put(tmp_path, {"data.jsonl": lines(*rows), **photos()})
    assert {s.image: s.split for s in read(tmp_path).samples} == {DOG: None, MEN: "test"}
    failed = {"path": CAT, "status": "error", "error": {"code": "truncated", "message": "cut"}}
    put(tmp_path, {"data.jsonl": lines(failed, {"path": DOG, "status": "ok", "caption": "A dog ."})})
    assert captions_of(tmp_path) == {DOG: ("A dog .",)}
    assert f"1 rows tell of photos that could not be captioned: {CAT}" in read(tmp_path).describe_left_out()


def members(**parts):
    return {name: jpeg(DOG) if name.endswith(("jpg", "png")) else content.encode() for name, content in parts.items()}


def test_keys_of_a_tar_may_hold_dots_and_each_photo_keeps_its_caption(tmp_path):
    names = {"22.05.png": "", "22.05.txt": "Five .", "22.07.png": "", "22.07.txt": "Seven ."}
    put(tmp_path, {"0.tar": tar(members(**names))})
    assert captions_of(tmp_path) == {"0.tar/22.05.png": ("Five .",), "0.tar/22.07.png": ("Seven .",)}


def test_maps_beside_a_photo_in_a_tar_are_left_out_and_counted(tmp_path):
    files = members(
        **{"1.depth.png": "", "1.txt": "A dog .", "1.jpg": "", "2.image.jpg": "", "2.text.txt": "Men .", "2.json": "{}"}
    )
    files |= members(**{"3.left.jpg": "", "3.right.jpg": "", "3.txt": "Two sides ."})
    put(tmp_path, {"0.tar": tar(files)})
    assert captions_of(tmp_path) == {"0.tar/1.jpg": ("A dog .",), "0.tar/2.image.jpg": ("Men .",)}
    assert read(tmp_path).describe_left_out().splitlines()[:2] == [
        "1 photos of the tars are second photos of a sample: 0.tar/1.depth.png",
        "2 photos of the tars share one caption: 0.tar/3.left.jpg, 0.tar/3.right.jpg",
    ]


def test_twins_of_macos_and_links_in_tars(tmp_path):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in {
            "./._1.jpg": b"\0\5\x16",
            "./._1.txt": b"\0\xff",
            "./1.jpg": jpeg(DOG),
            "./1.txt": b"A dog .",
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, kind, target in (("2.jpg", tarfile.LNKTYPE, "./1.jpg"), ("x/3.jpg", tarfile.SYMTYPE, "../1.jpg")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            archive.addfile(link)
        for name in ("2.txt", "x/3.txt"):
            member = tarfile.TarInfo(name)
            member.size = 5
            archive.addfile(member, io.BytesIO(b"Same ."))
    put(tmp_path, {"0.tar": data.getvalue()})
    dataset = read(tmp_path, split_seed=None)
    assert {s.image: s.captions[0] for s in dataset.samples} == {
        "0.tar/1.jpg": "A dog .",
        "0.tar/2.jpg": "Same",
        "0.tar/x/3.jpg": "Same",
    }
    assert all(dataset.photos.read(s.image) == jpeg(DOG) for s in dataset.samples)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=strategies.permutations(
        sorted({"a.1.jpg", "a.1.txt", "a.2.jpg", "a.2.json", "b.jpg", "b.seg.png", "b.caption", "c.jpg"})
    )
)
def test_the_order_of_a_tars_members_does_not_matter(tmp_path, order):
    files = members(**{"a.1.jpg": "", "a.1.txt": "One", "a.2.jpg": "", "a.2.json": '{"caption": "Two"}'})
    files |= members(**{"b.jpg": "", "b.seg.png": "", "b.caption": "Three", "c.jpg": ""})
    put(tmp_path, {"0.tar": tar({name: files[name] for name in order})})
    assert captions_of(tmp_path) == {"0.tar/a.1.jpg": ("One",), "0.tar/a.2.jpg": ("Two",), "0.tar/b.jpg": ("Three",)}


@pytest.mark.parametrize("name", ["00000.tar.gz", "photos.zip", "00000.tgz"])
def test_a_compressed_archive_is_named_with_what_to_do(tmp_path, name):
    put(tmp_path, {name: b"\x1f\x8b"})
    with pytest.raises(DataError, match=rf"{name}: is compressed, and photos are read in place; unpack it"):
        read(tmp_path)


@pytest.mark.parametrize("suffix", [".jpg.txt", ".jpg.caption"])
def test_sidecars_may_be_named_after_the_whole_photo(tmp_path, suffix):
    put(
        tmp_path,
        {"a.b.jpg": jpeg(DOG), f"a.b{suffix}": "A dog .\n", "c.jpg": jpeg(MEN), "c.txt": "Men .", f"c{suffix}": "Two men ."},
    )
    assert captions_of(tmp_path) == {"a.b.jpg": ("A dog .",), "c.jpg": ("Two men .",)}
    assert "are ignored for another one of the same photo: c.txt" in read(tmp_path).describe_left_out()


def test_json_of_blip_and_of_kohya_are_tables(tmp_path):
    blip = [{"image": f"val2014/{DOG}", "caption": ["A dog .", "Dog ."], "image_id": "coco_1"}]
    put(tmp_path / "blip", {"coco_karpathy_val.json": blip, f"val2014/{DOG}": jpeg(DOG)})
    assert captions_of(tmp_path / "blip") == {f"val2014/{DOG}": ("A dog .", "Dog .")}
    assert read(tmp_path / "blip").samples[0].split == "dev"
    kohya = {DOG[:-4]: {"caption": "A dog .", "tags": "dog"}, MEN: {"caption": "Men ."}}
    put(tmp_path / "kohya", {"meta_cap.json": kohya, **photos()})
    assert captions_of(tmp_path / "kohya") == {DOG[:-4]: ("A dog .",), MEN: ("Men .",)}


def test_photos_inside_parquet_are_read(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    cells = [
        {"bytes": jpeg(DOG), "path": "dog.jpg"},
        {"bytes": jpeg(MEN), "path": None},
        {"bytes": jpeg(CAT), "path": "dog.jpg"},
    ]
    for split, chosen in (("train", cells), ("validation", cells[:1])):
        table = pa.table({"image": chosen, "caption_0": ["One ."] * len(chosen), "caption_1": ["Two ."] * len(chosen)})
        (tmp_path / "hub" / "data").mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, tmp_path / "hub" / "data" / f"{split}-00000-of-00001.parquet", row_group_size=2)
    dataset = read(tmp_path / "hub")
    assert [dataset.photos.read(s.image) for s in dataset.samples] == [jpeg(name) for name in (DOG, MEN, CAT, DOG)]
    assert [s.split for s in dataset.samples] == ["train"] * 3 + ["dev"]
    assert {s.captions for s in dataset.samples} == {("One .", "Two .")}
    from showtell.data.convert import convert

    for destination in ("out.jsonl", "tars"):
        assert convert(dataset, tmp_path / destination) == []
        again = read(tmp_path / destination)
        assert Counter(again.photos.read(s.image) for s in again.samples) == Counter(map(jpeg, (DOG, MEN, CAT, DOG)))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
@pytest.mark.parametrize("sample", ["csv", "tsv", "captions.txt", "flickr8k"])
def test_text_files_may_begin_with_a_byte_order_mark(tmp_path, sample, encoding):
    mark = "\ufeff" if encoding[-2:] in ("le", "be") else ""
    files = SAMPLES[sample][1]()
    put(tmp_path, {n: (mark + c).encode(encoding) if isinstance(c, str) else c for n, c in files.items()})
    assert {name.rsplit("/", 1)[-1]: texts for name, texts in captions_of(tmp_path).items()} == CAPTIONS


def test_flickr8k_has_its_splits_in_lists(shapes: Path, tmp_path: Path) -> None:
    dataset = read(shapes)
    assert [len(dataset.split(split)) for split in ("train", "dev")] == [48, 12]
    with pytest.raises(DataError, match="no photos of the split 'test', but of dev, train"):
        dataset.split("test")
    copy = Path(shutil.copytree(shapes, tmp_path / "data"))
    lists = copy / "Flickr_8k.devImages.txt"
    lists.write_text("red-cross-1.jpg\n")
    where = r"devImages\.txt, line 1: red-cross-1\.jpg is already listed in train, at .*trainImages\.txt, line 10;"
    with pytest.raises(DataError, match=where):
        read(copy)
    lists.write_text("red-fence-2.jpg\nunheard-of.jpg\n")
    assert "unheard-of.jpg" in (read(copy).describe_left_out() or "")
    lists.unlink()
    with pytest.raises(DataError, match=r"Flickr_8k\.devImages\.txt"):
        read(copy)
