"""Reading candidate and reference files, joining them, and the errors that name the place."""

import json

import pytest

from showtell.errors import DataError
from showtell.evaluation import References, join, read_candidates, read_references

COCO = {
    "images": [{"id": 7, "file_name": "train/dog.jpg"}, {"id": 9, "file_name": "men.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 9, "caption": "Two men."},
        {"id": 2, "image_id": 7, "caption": "A dog."},
        {"id": 3, "image_id": 7, "caption": "The dog."},
    ],
}
KARPATHY = {
    "images": [
        {"filename": "dog.jpg", "cocoid": 7, "split": "val", "sentences": [{"raw": "A dog."}, {"raw": "The dog."}]},
        {"filename": "men.jpg", "cocoid": 9, "split": "test", "sentences": [{"raw": "Two men."}]},
    ]
}
EXPECTED = {"dog.jpg": ("A dog.", "The dog."), "men.jpg": ("Two men.",)}


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def lines(*values):
    return "".join(json.dumps(value) + "\n" for value in values)


REFERENCES = {
    "coco.json": COCO,
    "karpathy.json": KARPATHY,
    "tokens.txt": "dog.jpg#0\tA dog.\ndog.jpg#1\tThe dog.\n\nmen.jpg#0\tTwo men.\r\n",
    "data.jsonl": lines(
        {"image": "photos/dog.jpg", "captions": ["A dog.", "The dog."], "split": "dev"},
        {"image": "men.jpg", "captions": ["Two men."], "split": None},
    ),
}
CANDIDATES = {
    "results.json": [{"image_id": "dog.jpg", "caption": "a dog"}, {"image_id": "men.jpg", "caption": ""}],
    "records.jsonl": lines(
        {"path": "somewhere/dog.jpg", "status": "ok", "caption": "a dog", "score": -1.0},
        {"path": "C:\\photos\\men.jpg", "status": "ok", "caption": ""},
        {"path": "broken.jpg", "status": "error", "error": {"code": "truncated", "message": "..."}},
    ),
    "table.csv": "\ufeffpath,caption\r\nx/dog.jpg,a dog\r\nmen.jpg,\r\n",
}


@pytest.mark.parametrize("name", REFERENCES)
def test_reference_formats(write, name):
    assert read_references(write(name, REFERENCES[name])).captions == EXPECTED


@pytest.mark.parametrize("name", CANDIDATES)
def test_candidate_formats(write, name):
    found = read_candidates(write(name, CANDIDATES[name]))
    assert {path.rsplit("/", 1)[-1]: caption for path, caption in found.items()} == {"dog.jpg": "a dog", "men.jpg": ""}
    assert join(found, References(EXPECTED)).candidates == {"dog.jpg": "a dog", "men.jpg": ""}


def test_splits_go_by_our_names(write):
    assert list(read_references(write("k.json", KARPATHY), "dev").captions) == ["dog.jpg"]
    with pytest.raises(DataError, match="split 'train'"):
        read_references(write("k.json", KARPATHY), "train")


@pytest.mark.parametrize("name", ["coco.json", "karpathy.json"])
@pytest.mark.parametrize(
    ("candidates", "content"),
    [
        ("results.json", [{"image_id": 9, "caption": "men"}, {"image_id": 7, "caption": "a dog"}]),
        ("table.csv", "image_id,caption\n9,men\n7,a dog\n"),
    ],
)
def test_coco_ids_join_through_the_list_of_images(write, name, candidates, content):
    references = read_references(write(name, REFERENCES[name]))
    pairs = join(read_candidates(write(candidates, content)), references)
    assert pairs.candidates == {"dog.jpg": "a dog", "men.jpg": "men"}
    assert list(pairs.candidates) == list(pairs.references)


@pytest.mark.parametrize(
    ("candidates", "words"),
    [
        ({"dog.jpg": "a"}, r"1 of 2 images with references have no candidate \(men\.jpg\).*--partial"),
        ({"dog.jpg": "a", "men.jpg": "b", "x.jpg": "c"}, r"1 of 3 candidates are for images without references \(x\.jpg\)"),
        ({"cat.png": "a"}, r"cat\.png.*have images such as dog\.jpg"),
        ({"7": "a", "9": "b"}, "numbers need references with ids, such as COCO's"),
        (
            {"a/dog.jpg": "a", "b/dog.jpg": "b"},
            r"2 of 2 candidates are for images without references \(a/dog\.jpg, b/dog\.jpg\)",
        ),
    ],
)
def test_images_on_one_side_are_an_error(candidates, words):
    with pytest.raises(DataError, match=words):
        join(candidates, References(EXPECTED))


def test_partial_scores_what_both_sides_have():
    pairs = join({"dog.jpg": "a", "x.jpg": "b"}, References(EXPECTED), partial=True)
    assert pairs.candidates == {"dog.jpg": "a"}
    assert (pairs.without_candidate, pairs.without_reference) == (1, 1)
    with pytest.raises(DataError, match="no candidate"):
        join({"x.jpg": "b"}, References(EXPECTED), partial=True)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("c.json", '[{"image_id": 1,\n "caption" "a"}]', r"c\.json, line 2, column 12: broken JSON"),
        ("c.json", "[" * 100_000, "nested too deeply"),
        ("c.json", {"annotations": []}, "no captions are recognised; COCO's"),
        ("c.json", [], "the columns are none"),
        (
            "c.json",
            [{"image_id": 1, "caption": "a"}, {"image_id": "1", "caption": "a"}],
            "entry 2: 1 has more than one caption",
        ),
        ("c.json", [{"image_id": 1, "caption": ["a", "b"]}], "entry 1: 1 has more than one caption"),
        ("c.json", [{"image_id": 1, "caption": []}], "entry 1: 1 has no caption"),
        ("c.json", [{"image_id": 1.5, "caption": "a"}], "entry 1: the image id 1.5"),
        ("c.json", [{"image_id": True, "caption": "a"}], "entry 1: the image id True"),
        ("c.json", [{"image_id": 1}], "no column of captions is recognised; the columns are image_id"),
        ("c.json", [["a"]], "no JSON object"),
        ("c.json", '[{"image_id": 1, "caption": "a", "caption": "b"}]', r"an object has the key 'caption' twice"),
        ("c.csv", "who,what\na.jpg,b\n", "line 1: no column of paths is recognised; the columns are who, what"),
        ("c.csv", "path,caption\na.jpg,b\na.jpg,c\n", "line 3: a.jpg has more than one caption"),
        ("c.csv", "path,caption,caption\na.jpg,b,c\n", "line 2: a.jpg has more than one caption"),
        ("c.csv", "path,path,caption\na.jpg,b.jpg,c\n", "several columns are called 'path'"),
        ("c.csv", "", "the columns are none"),
        ("c.xml", "<a/>", "no captions are recognised in this file"),
    ],
)
def test_broken_candidates_name_the_place(write, name, content, words):
    with pytest.raises(DataError, match=words):
        read_candidates(write(name, content))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("r.json", COCO | {"annotations": [{"image_id": 5, "caption": "a"}]}, "annotation 1: the image id 5 is not in"),
        (
            "r.json",
            COCO | {"annotations": [{"image_id": 7.5, "caption": "a"}]},
            "annotation 1: the image id 7.5 is of type float",
        ),
        ("r.json", COCO | {"annotations": [{"image_id": 7, "caption": 3}]}, "annotation 1: the caption 3 is of type int"),
        ("r.json", COCO | {"annotations": None}, "`annotations` is no list"),
        ("r.json", COCO | {"images": COCO["images"][:1] * 2}, "image 2: an earlier image has the id 7"),
        (
            "r.json",
            COCO | {"images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "a.jpg"}]},
            "image 2: a second image has the name a.jpg",
        ),
        ("r.jsonl", lines({"image": "a.jpg", "captions": [1]}), "line 1, column captions: the caption 1 is of type int"),
        ("r.csv", "image,captions\na.jpg,['two dogs' 'one dog']\n", "looks like a list of captions and is none"),
    ],
)
def test_broken_references_name_the_place(write, name, content, words):
    with pytest.raises(DataError, match=words):
        read_references(write(name, content))


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.json: no such file"):
        read_candidates(tmp_path / "absent.json")
    (tmp_path / "latin.token").write_bytes("a.jpg#0\tcaf\u00e9".encode("latin-1"))
    with pytest.raises(DataError, match="byte 11 is not UTF-8"):
        read_references(tmp_path / "latin.token")


SEVERAL = {
    "capitals.csv": "Image,Caption\ndog.jpg,A dog.\ndog.jpg,The dog.\nmen.jpg,Two men.\n",
    "spaces.csv": "image, caption\ndog.jpg, A dog.\ndog.jpg, The dog.\nmen.jpg, Two men.\n",
    "semicolons.csv": "image;caption\ndog.jpg;A dog.\ndog.jpg;The dog.\nmen.jpg;Two men.\n",
    "same.csv": "image,caption,caption\ndog.jpg,A dog.,The dog.\n",
    "pandas.csv": "image,caption,caption.1\ndog.jpg,A dog.,The dog.\n",
    "numbered.csv": "image,caption_1,caption_2\ndog.jpg,A dog.,The dog.\n",
    "json in a cell.csv": 'image,caption\ndog.jpg,"[""A dog."", ""The dog.""]"\n',
    "python in a cell.tsv": "image\tcaption\ndog.jpg\t['A dog.', 'The dog.']\n",
    "captions.txt": "image,caption\ndog.jpg,A dog.\ndog.jpg,The dog.\n",
    "tokens.txt": "photos/dog.jpg#0\tA dog.\nphotos/dog.jpg#1\tThe dog.\n",
    "results.token": "dog.jpg#0\tA dog.\ndog.jpg#1\tThe dog.\n",
    "one row each.jsonl": lines({"image": "dog.jpg", "caption": "A dog."}, {"image": "dog.jpg", "caption": "The dog."}),
    "late.jsonl": lines({"image": "men.jpg", "note": 1}, {"image": "dog.jpg", "captions": ["A dog.", "The dog."]}).replace(
        '"note": 1', '"captions": ["Two men."]'
    ),
    "blip.json": [{"image": "val2014/dog.jpg", "image_id": "coco_7", "caption": ["A dog.", "The dog."]}],
    "kohya.json": {"/photos/dog.jpg": {"caption": "['A dog.', 'The dog.']", "tags": "dog, brown"}},
    "bars.csv": "image|caption\ndog.jpg|A dog.\ndog.jpg|The dog.\n",
    "flickr30k.csv": "image_name| comment_number| comment\ndog.jpg| 0| A dog.\ndog.jpg| 1| The dog.\n",
}


@pytest.mark.parametrize("name", SEVERAL)
def test_references_may_be_any_table(write, name):
    assert read_references(write(name, SEVERAL[name])).captions["dog.jpg"] == ("A dog.", "The dog.")


WRITTEN = {
    "out.txt": 'x/dog.jpg\ta dog, brown\nx/men.jpg\ttwo "men\n',
    "out.tsv": 'x/dog.jpg\ta dog, brown\nx/men.jpg\ttwo "men\n',
    "no suffix.tsv": 'x/dog\ta dog, brown\nx/men\ttwo "men\n',
    "out.jsonl": lines(
        {"path": "x/cut.jpg", "status": "error", "error": {"code": "truncated", "message": "..."}},
        {"path": "x/dog.jpg", "status": "ok", "caption": "a dog, brown", "captions": [{"text": "a dog, brown", "score": -1}]},
        {"path": "x/men.jpg", "status": "ok", "caption": 'two "men', "captions": [{"text": 'two "men', "score": -1}]},
    ),
    "page.csv": "\ufeffpath,status,caption,score,error_code,error_message\r\nx/cut.jpg,error,,,truncated,cut\r\n"
    'x/dog.jpg,ok,"a dog, brown",-1,,\r\nx/men.jpg,ok,"two ""men",-1,,\r\n',
    "ids.json": [{"image_id": "7", "caption": "a dog, brown"}, {"image_id": 9, "caption": 'two "men'}],
    "rows.jsonl": lines({"image": "dog.jpg", "caption": "a dog, brown"}, {"image": "men.jpg", "caption": 'two "men'}),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_candidates_may_be_what_caption_and_others_write(write, name):
    references = read_references(write("coco.json", COCO))
    assert join(read_candidates(write(name, WRITTEN[name])), references).candidates == {
        "dog.jpg": "a dog, brown",
        "men.jpg": 'two "men',
    }


def test_parquet_is_read_on_both_sides(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table({"image": ["dog.jpg"], "captions": [["A dog.", "The dog."]]}), tmp_path / "r.parquet")
    parquet.write_table(pa.table({"file_name": ["dog.jpg"], "caption": ["a dog"]}), tmp_path / "c.parquet")
    pairs = join(read_candidates(tmp_path / "c.parquet"), read_references(tmp_path / "r.parquet"))
    assert (pairs.candidates, pairs.references) == ({"dog.jpg": "a dog"}, {"dog.jpg": ("A dog.", "The dog.")})


def test_ids_may_be_strings_in_the_references_too(write):
    coco = {"images": [{"id": "n1", "file_name": "dog.jpg"}], "annotations": [{"image_id": "n1", "caption": "A dog."}]}
    pairs = join(read_candidates(write("c.csv", "image_id,caption\nn1,a dog\n")), read_references(write("r.json", coco)))
    assert pairs.candidates == {"dog.jpg": "a dog"}


def test_file_names_that_repeat_are_told_apart_by_their_folders(write):
    references = read_references(
        write("r.csv", "image,caption\na/1.jpg,A dog.\nb/1.jpg,Two men.\nb/2.jpg,A cat.\n"),
    )
    assert list(references.captions) == ["a/1.jpg", "b/1.jpg", "2.jpg"]
    whole = {"/photos/b/1.jpg": "men", "/photos/a/1.jpg": "dog", "/photos/b/2.jpg": "cat"}
    assert join(whole, references).candidates == {"a/1.jpg": "dog", "b/1.jpg": "men", "2.jpg": "cat"}
    assert join({"a/1.jpg": "dog", "c/1.jpg": "men"}, references, partial=True).candidates == {"a/1.jpg": "dog"}
    with pytest.raises(DataError, match=r"1 of 1 candidates are for images without references \(1\.jpg\)"):
        join({"1.jpg": "dog"}, references, partial=True)
    fewer = read_references(write("s.csv", "image,caption\na/1.jpg,A dog.\n"))
    assert join({"/photos/b/1.jpg": "men", "/photos/a/1.jpg": "dog"}, fewer, partial=True).candidates == {"1.jpg": "dog"}


def test_names_may_lack_the_suffix_or_be_coded_otherwise(write):
    references = read_references(write("r.csv", "image,caption\nCAFE\u0301 1.JPG,A dog.\nmen.jpeg,Two men.\n"))
    assert list(join({"caf\u00e9%201.jpg": "dog", "men": "men"}, references).candidates.values()) == ["dog", "men"]


def test_partial_leaves_out_reference_images_without_a_caption(write):
    rows = lines({"image": "dog.jpg", "captions": ["A dog."]}, {"image": "men.jpg", "captions": []})
    references = read_references(write("r.jsonl", rows))
    with pytest.raises(DataError, match=r"1 of 2 images of the references have no caption \(men\.jpg\).*--partial"):
        join({"dog.jpg": "a", "men.jpg": "b"}, references)
    pairs = join({"dog.jpg": "a", "men.jpg": "b"}, references, partial=True)
    assert pairs.candidates == {"dog.jpg": "a"}
    assert (pairs.without_candidate, pairs.without_reference) == (0, 1)


def test_the_split_lists_beside_a_token_file_are_read(write):
    token = write("Flickr8k.token.txt", "dog.jpg#0\tA dog.\ncat#1.jpg#0\tA cat.\nmen.jpg#0\tTwo men.\nodd.jpg#0\tOdd.\n")
    with pytest.raises(DataError, match=r"no reference captions of the split 'dev'; leave out --split"):
        read_references(token, "dev")
    for split, name in (("train", "dog.jpg"), ("dev", "cat#1.jpg"), ("test", "men.jpg")):
        write(f"Flickr_8k.{split}Images.txt", f"{name}\n")
    assert read_references(token, "dev").captions == {"cat#1.jpg": ("A cat.",)}
    assert list(read_references(token).captions) == ["dog.jpg", "cat#1.jpg", "men.jpg", "odd.jpg"]
