"""Every layout, read from a small sample in its true format; splits; what is dropped; and errors that name the place."""

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

from conftest import draw
from showtell.data import LAYOUTS, Columns, read, recognise
from showtell.errors import DataError, MissingExtraError, OptionError, ShowtellError

DOG, MEN, CAT = "1000092795_0a1.jpg", "10002456.jpg", "2258277193_586949ec62.1.jpg"
PHOTOS = {DOG: ("red", "square"), MEN: ("blue", "cross"), CAT: ("green", "fence")}
CAPTIONS = {DOG: ("A dog runs .", 'The "old" dog, brown, runs .'), MEN: ("Two men sit .",), CAT: ("A café cat .",)}
SPLITS = {DOG: "train", MEN: "dev", CAT: "test"}


def jpeg(name):
    data = io.BytesIO()
    draw(*PHOTOS[name]).save(data, "JPEG")
    return data.getvalue()


def put(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def photos(folder=""):
    return {f"{folder}{name}": jpeg(name) for name in PHOTOS}


def lines(*values):
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def flickr8k():
    tokens = "".join(f"{name}#{k}\t{text}\n" for name, texts in CAPTIONS.items() for k, text in enumerate(texts))
    lists = {"train": [DOG], "dev": [MEN], "test": [CAT]}
    return {
        "Flickr8k_text/Flickr8k.token.txt": tokens,
        **{f"Flickr8k_text/Flickr_8k.{split}Images.txt": "\n".join(names) + "\n" for split, names in lists.items()},
        "Flickr8k_text/Flickr8k.lemma.token.txt": tokens,
        "Flickr8k_text/readme.txt": "If you use this corpus ...\n",
        **photos("Flicker8k_Dataset/"),
    }


def captions_txt():
    rows = f'{DOG},A dog runs .\n{DOG},"The ""old"" dog, brown, runs ."\n{MEN},Two men sit .\n{CAT},A café cat .\n'
    return {"captions.txt": "image,caption\n" + rows, **photos("Images/")}


def flickr30k():
    # The last row as in the file itself: a bar is missing.
    rows = f'{DOG}| 0| A dog runs .\n{DOG}| 1| The "old" dog, brown, runs .\n{MEN}| 0| Two men sit .\n{CAT}| 4   A café cat .\n'
    results = "image_name| comment_number| comment\n" + rows
    return {"results.csv": results, "flickr30k_images/results.csv": results, **photos("flickr30k_images/")}


def token():
    files = flickr8k()
    return {"results_20130124.token": files["Flickr8k_text/Flickr8k.token.txt"], **photos("flickr30k-images/")}


def karpathy(filepath=None):
    def image(number, name, split):
        texts = [{"tokens": t.lower().split(), "raw": t, "imgid": number, "sentid": number} for t in CAPTIONS[name]]
        where = {"filepath": filepath, "cocoid": 100 + number} if filepath else {}
        return {"sentids": [number], "imgid": number, "sentences": texts, "split": split, "filename": name, **where}

    return {
        "images": [image(0, DOG, "restval" if filepath else "train"), image(1, MEN, "val"), image(2, CAT, "test")],
        "dataset": "coco" if filepath else "flickr8k",
    }


def coco():
    def file(*names):
        images = [
            {"license": 3, "file_name": name, "coco_url": "http://x/y", "height": 64, "width": 64, "id": 7 + i}
            for i, name in enumerate(names)
        ]
        texts = [(image["id"], text) for image in images for text in CAPTIONS[image["file_name"]]]
        return {
            "info": {"year": 2017},
            "images": images,
            "licenses": [],
            "annotations": [{"image_id": key, "id": i, "caption": text} for i, (key, text) in enumerate(texts)],
        }

    return {
        "annotations/captions_train2017.json": file(DOG),
        "annotations/captions_val2017.json": file(MEN),
        "annotations/captions_test2017.json": file(CAT),
        "annotations/instances_val2017.json": "[far too many outlines",
        **{f"{split}2017/{name}": jpeg(name) for split, name in (("train", DOG), ("val", MEN), ("test", CAT))},
    }


def table(delimiter):
    def row(*cells):
        if delimiter == ",":
            return ",".join('"' + cell.replace('"', '""') + '"' for cell in cells) + "\r\n"
        return delimiter.join(cells) + "\n"

    return row("filename", "caption", "split") + "".join(
        row(f"photos/{name}", text, {"dev": "validation"}.get(SPLITS[name], SPLITS[name]))
        for name, texts in CAPTIONS.items()
        for text in texts
    )


def parquet():
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    data = io.BytesIO()
    rows = [{"image_path": n, "captions": list(CAPTIONS[n]), "split": SPLITS[n]} for n in PHOTOS]
    parquet.write_table(pa.Table.from_pylist(rows), data)
    return {"captions.parquet": data.getvalue(), **photos("p/")}


def sidecar():
    texts = {name.rsplit(".", 1)[0]: "\n".join(texts) + "\n" for name, texts in CAPTIONS.items()}
    files = {f"{ {'dev': 'val'}.get(SPLITS[name], SPLITS[name]) }/{name}": jpeg(name) for name in PHOTOS}
    files |= {f"{path.rsplit('.', 1)[0]}.txt": texts[path.split("/")[1].rsplit(".", 1)[0]] for path in list(files)}
    return files


def imagefolder(suffix):
    files = {}
    for name, split in SPLITS.items():
        folder = {"dev": "validation"}.get(split, split)
        files[f"{folder}/{name}"] = jpeg(name)
        if suffix == "jsonl":
            rows = lines(*({"file_name": name, "text": text} for text in CAPTIONS[name]))
        else:
            rows = "file_name,text\n" + "".join('{},"{}"\n'.format(name, t.replace('"', '""')) for t in CAPTIONS[name])
        files[f"{folder}/metadata.{suffix}"] = rows
    return files


def tar(files):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def webdataset():
    """img2dataset's own: numbers for names, one caption, statistics beside the tars."""
    files = {}
    for number, name in enumerate(PHOTOS):
        key = f"{number:09}"
        about = {"url": f"http://x/{name}", "caption": CAPTIONS[name][0], "key": key, "status": "success", "width": 64}
        files |= {f"{key}.jpg": jpeg(name), f"{key}.txt": CAPTIONS[name][0].encode(), f"{key}.json": json.dumps(about).encode()}
    files["000000003.json"] = b'{"status": "failed_to_download", "caption": "gone", "key": "000000003"}'
    return {"00000.tar": tar(files), "00000_stats.json": {"count": 4, "successes": 3}}


SAMPLES = {
    "flickr8k": ("flickr8k", flickr8k),
    "captions.txt": ("captions-txt", captions_txt),
    "flickr30k results.csv": ("flickr30k", flickr30k),
    "flickr30k token file": ("token", token),
    "karpathy flickr": ("karpathy", lambda: {"dataset_flickr8k.json": karpathy(), **photos("images/")}),
    "karpathy coco": ("karpathy", lambda: {"dataset_coco.json": karpathy("val2014"), **photos("val2014/")}),
    "coco": ("coco", coco),
    "csv": ("table", lambda: {"all.csv": table(","), **photos("photos/")}),
    "tsv": ("table", lambda: {"all.tsv": table("\t").replace('"', '"'), **photos("photos/")}),
    "jsonl": (
        "table",
        lambda: {
            "data.jsonl": lines(*({"image": f"x/{n}", "captions": CAPTIONS[n], "split": SPLITS[n]} for n in PHOTOS)),
            **photos("x/"),
        },
    ),
    "parquet": ("table", parquet),
    "sidecars": ("sidecar", sidecar),
    "imagefolder jsonl": ("imagefolder", lambda: imagefolder("jsonl")),
    "imagefolder csv": ("imagefolder", lambda: imagefolder("csv")),
    "webdataset": ("webdataset", webdataset),
}
WITHOUT_SPLITS = {"captions.txt", "flickr30k results.csv", "flickr30k token file", "webdataset"}


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


def test_paths_lead_anywhere_tars_count_as_folders(tmp_path):
    put(tmp_path / "else where", photos())
    (tmp_path / "else where" / "p.tar").write_bytes(tar({f"in/{MEN}": jpeg(MEN)}))
    (tmp_path / "else where" / MEN).unlink()
    names = [f"../else where/{DOG}", f"../else where/p.tar/in/{MEN}", str(tmp_path / "else where" / CAT)]
    put(tmp_path / "data", {"data.jsonl": lines(*({"image": name, "caption": "A thing ."} for name in names))})
    dataset = read(tmp_path / "data")
    assert [s.image for s in dataset.samples] == names
    assert [dataset.photos.read(name) for name in names] == [jpeg(DOG), jpeg(MEN), jpeg(CAT)]
    assert [dataset.photos.size(name) for name in names] == [len(jpeg(DOG)), len(jpeg(MEN)), len(jpeg(CAT))]


def test_windows_paths_and_hidden_twins(tmp_path):
    put(tmp_path, {"t.csv": f"image,caption\nsome\\{DOG},A dog .\n", f"some/{DOG}": jpeg(DOG), f"some/._{DOG}": b"macOS"})
    assert len(read(tmp_path).samples) == 1


def test_a_name_that_means_two_photos_is_an_error_unless_one_is_in_a_tar(tmp_path):
    put(tmp_path, {"t.csv": f"image,caption\n{DOG},A dog .\n", f"a/{DOG}": jpeg(DOG), "x.tar": tar({f"y/{DOG}": jpeg(MEN)})})
    dataset = read(tmp_path)
    assert dataset.photos.read(DOG) == jpeg(DOG)
    put(tmp_path, {f"b/{DOG}": jpeg(MEN)})
    with pytest.raises(DataError, match=f"{DOG}: is the name of 2 photos, a/{DOG} and b/{DOG}"):
        read(tmp_path)


def test_random_splits_are_stable_and_keep_equal_photos_together(tmp_path):
    names = [f"{number:03}.jpg" for number in range(500)]
    rows = "".join(f"{name},A thing .\n{name},The thing .\n" for name in names)
    put(tmp_path, {"captions.txt": "image,caption\n" + rows, **{name: f"photo {name}".encode() for name in names}})
    for number in range(0, 500, 2):  # every other photo equals its neighbour
        shutil.copy(tmp_path / names[number], tmp_path / names[number + 1])
    dataset = read(tmp_path)
    splits = {s.image: s.split for s in dataset.samples}
    assert len(splits) == 500
    assert all(splits[names[n]] == splits[names[n + 1]] for n in range(0, 500, 2))
    count = Counter(splits.values())
    assert 350 <= count["train"] <= 450
    assert min(count["dev"], count["test"]) >= 20
    assert "drawn by photo with seed 0" in dataset.describe_left_out()
    assert {s.image: s.split for s in read(tmp_path).samples} == splits
    assert {s.image: s.split for s in read(tmp_path, split_seed=1).samples} != splits
    put(tmp_path, {"captions.txt": "image,caption\n" + "".join(sorted(rows.splitlines(True)[:500], reverse=True))})
    fewer = {s.image: s.split for s in read(tmp_path).samples}
    assert fewer == {name: splits[name] for name in fewer}


@pytest.mark.parametrize(("photos", "dev"), [(60, 6), (20, 5), (30, 5), (150, 15), (12, 3), (3, 0)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_small_set_draws_enough_photos_for_dev(tmp_path, photos, dev, seed):
    names = [f"{number}.jpg" for number in range(photos)]
    rows = "".join(f"{name},A thing .\n" for name in names)
    put(tmp_path, {"captions.txt": "image,caption\n" + rows, **{name: name.encode() * 9 for name in names}})
    count = Counter(s.split for s in read(tmp_path, split_seed=seed).samples)
    assert dev <= count["dev"] <= max(dev, 1, photos // 4)
    assert count["train"] >= photos // 2


def test_nothing_is_dropped_without_being_counted(tmp_path):
    rows = f"{DOG},A dog .,train\n{DOG}, ,train\n{MEN},,dev\nabsent.jpg,A ghost .,dev\n{CAT},A cat .,\n"
    put(tmp_path, {"t.csv": "image,caption,split\n" + rows, **photos()})
    dataset = read(tmp_path)
    assert [(s.image, s.captions, s.split) for s in dataset.samples] == [
        (DOG, ("A dog .",), "train"),
        (CAT, ("A cat .",), None),
    ]
    assert dataset.describe_left_out().splitlines() == [
        "1 of 3 listed photos are missing: absent.jpg",
        f"2 captions are empty, of: {DOG}, {MEN}",
        f"1 listed photos have no caption: {MEN}",
        f"1 photos are in no split: {CAT}",
    ]


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
    "too long": ("captions.txt", f"image,caption\n{DOG},A dog, brown .\n", r"captions\.txt, line 2, column 3: 3 cells under 2"),
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


def test_a_photo_in_two_splits_is_an_error(tmp_path):
    put(tmp_path, {"t.csv": f"image,caption,split\n{DOG},A .,train\n./{DOG},B .,test\n", **photos()})
    with pytest.raises(DataError, match=r"t\.csv, line 3: .* is already listed in train, at .*t\.csv, line 2"):
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


def test_links_to_folders_are_followed_and_loops_end(tmp_path):
    put(tmp_path / "elsewhere", photos())
    put(tmp_path / "data", {"t.csv": f"image,caption\n{DOG},A dog .\n"})
    (tmp_path / "data" / "photos").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "again2").symlink_to(tmp_path / "elsewhere")
    dataset = read(tmp_path / "data")
    assert [s.image for s in dataset.samples] == [DOG]
    assert len(dataset.photos) == 3


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


def test_paths_that_wander_mean_the_photo_they_lead_to(tmp_path):
    names = [f"../photos/{DOG}", str(tmp_path / "photos" / MEN), f"x/../../photos/./{CAT}", f"photos/{DOG}"]
    put(tmp_path, {"captions/t.csv": "image,caption\n" + "".join(f"{name},A thing .\n" for name in names), **photos("photos/")})
    dataset = read(tmp_path)
    assert [s.image for s in dataset.samples] == [f"photos/{name}" for name in (DOG, MEN, CAT)]
    assert len(dataset.samples[0].captions) == 2
    assert dataset.missing == ()


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


def test_a_data_set_is_called_as_its_folder(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shapes)
    assert read(shapes).name == read(Path()).name == shapes.name


def captions_of(folder, **options):
    return {s.image: s.captions for s in read(folder, split_seed=None, **options).samples}


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


@pytest.mark.parametrize(
    ("listed", "there"),
    [
        ("caf\u00e9.jpg", "cafe\u0301.jpg"),
        ("x.JPG", "x.jpg"),
        ("a%20b.jpg", "a b.jpg"),
        ("x.jpg", "x.jpeg"),
        ("x", "x.png"),
        ("photos/x.jpg", "Photos/X.JPG"),
        ("x.jpg", "x.jpg?width=600"),
    ],
)
def test_a_photo_that_is_called_nearly_so_is_found_and_said(tmp_path, listed, there):
    put(tmp_path, {"t.csv": f"image,caption\n{listed},A dog .\n", there: jpeg(DOG)})
    dataset = read(tmp_path)
    assert [dataset.photos.read(s.image) for s in dataset.samples] == [jpeg(DOG)]
    assert f"1 photos have another name in the caption files: {listed} is {there}" in dataset.describe_left_out()


def test_a_nearly_equal_name_is_not_taken_from_another_photo_nor_guessed(tmp_path):
    rows = "a.png,Gone .\na.jpg,There .\nb.jpg,Which ?\nabsent.jpg,No .\nmen_at_sea.jpg,Men .\n"
    files = {name: jpeg(DOG) for name in ("a.jpg", "b.png", "b.jpeg", "men_at_see.jpg")}
    put(tmp_path, {"t.csv": "image,caption\n" + rows, **files, "x1.jpg": jpeg(DOG)})
    rows += "x1.jpg,More .\n" + "".join(f"y{n}.jpg,Y .\n" for n in range(9))
    put(tmp_path, {"t.csv": "image,caption\n" + rows, **{f"y{n}.jpg": jpeg(DOG) for n in range(9)}})
    dataset = read(tmp_path)
    assert "a.png" in dataset.missing
    assert captions_of(tmp_path)["a.jpg"] == ("There .",)
    assert "b.jpg (near is b.jpeg or b.png)" in dataset.describe_left_out()
    assert dataset.photos.near("men_at_sea.jpg") == " (near is men_at_see.jpg)"


@pytest.mark.parametrize("name", ["22.jpg.1", "a1b2", "dogs.jpg?width=600", "dog.image"])
@pytest.mark.parametrize("folder", ["", "Images/", "tar"])
def test_photos_without_a_photos_suffix_are_known_by_their_bytes(tmp_path, name, folder):
    files = (
        {"photos.tar": tar({f"in/{name}": jpeg(DOG), "in/notes": b"none"})}
        if folder == "tar"
        else {f"{folder}{name}": jpeg(DOG)}
    )
    put(tmp_path, {"t.csv": f"image,caption\n{name},A dog .\n", **files})
    dataset = read(tmp_path)
    assert [dataset.photos.read(s.image) for s in dataset.samples] == [jpeg(DOG)]
    assert len(dataset.photos) == 1
    assert dataset.missing == ()


def test_folders_of_thumbnails_and_bins_are_skipped(tmp_path):
    put(tmp_path, {"t.csv": f"image,caption\n{DOG},A dog .\n", DOG: jpeg(DOG)})
    for folder in ("@eaDir", "#recycle", ".thumbnails", "$RECYCLE.BIN", "__MACOSX"):
        put(tmp_path / folder, {DOG: jpeg(MEN)})
    assert read(tmp_path).photos.read(DOG) == jpeg(DOG)


def test_where_photos_are_missing_the_files_that_are_none_are_counted(tmp_path):
    put(tmp_path, {"t.csv": "image,caption\na.jpg,A dog .\n", "a.CR2": "II*\0", "b.cr2": "II*\0", "c.mp4": "x", "d.jxl": "x"})
    with pytest.raises(DataError, match=r"no photos: 2 camera raw \(\.cr2\), 1 video \(\.mp4\), 1 unknown \(\.jxl\), 1 text"):
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


def test_files_that_are_no_photos_and_no_text_are_counted(tmp_path):
    put(tmp_path, {"t.csv": f"image,caption\n{DOG},A dog .\n", **photos(), "a.nef": "MM", "b.mov": "x", "c.txt": "x"})
    assert "files that are no photos: 1 camera raw (.nef), 1 video (.mov)" in read(tmp_path).describe_left_out().splitlines()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
@pytest.mark.parametrize("sample", ["csv", "tsv", "captions.txt", "flickr8k"])
def test_text_files_may_begin_with_a_byte_order_mark(tmp_path, sample, encoding):
    mark = "\ufeff" if encoding[-2:] in ("le", "be") else ""
    files = SAMPLES[sample][1]()
    put(tmp_path, {n: (mark + c).encode(encoding) if isinstance(c, str) else c for n, c in files.items()})
    assert {name.rsplit("/", 1)[-1]: texts for name, texts in captions_of(tmp_path).items()} == CAPTIONS
