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
    assert read_candidates(write(name, CANDIDATES[name])) == {"dog.jpg": "a dog", "men.jpg": ""}


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
        ({"dog.png": "a"}, r"dog\.png.*call their images dog\.jpg"),
        ({7: "a", 9: "b"}, "numbers need references in COCO's format"),
        ({"7": "a"}, "ids are numbers, not strings"),
        ({"a/dog.jpg": "a", "b/dog.jpg": "b"}, r"two candidates are for dog\.jpg"),
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
        ("c.jsonl", '{"path": "a", "caption": "b"}\n{"path": \n', r"c\.jsonl, line 2, column 10: broken JSON"),
        ("c.json", "[" * 100_000, "nested too deeply"),
        ("c.json", {"annotations": []}, "not a list"),
        ("c.json", [], "no candidate captions"),
        ("c.json", [{"image_id": 1, "caption": "a"}, {"image_id": 1, "caption": "b"}], "entry 2: 1 has a caption already"),
        ("c.json", [{"image_id": 1, "caption": "a"}, {"image_id": "2", "caption": "b"}], "entry 2: the image id '2' is no int"),
        ("c.json", [{"image_id": 1.5, "caption": "a"}], "entry 1: the image id 1.5"),
        ("c.json", [{"image_id": True, "caption": "a"}], "entry 1: the image id True"),
        ("c.json", [{"image_id": 1, "caption": None}], "entry 1: the caption None is of type NoneType"),
        ("c.json", [{"image_id": 1, "caption": ["a"]}], "of type list"),
        ("c.json", [{"image_id": 1}], "entry 1: `caption` is missing; the keys are image_id"),
        ("c.json", [["a"]], "no JSON object"),
        ("c.jsonl", '{"path": "a.jpg"}\n', "line 1: `caption` is missing"),
        (
            "c.jsonl",
            lines({"path": "x/a.jpg", "caption": "a"}, {"path": "y/a.jpg", "caption": "b"}),
            "line 2: a.jpg has a caption",
        ),
        ("c.csv", "file,text\na.jpg,b\n", "line 1: the columns are file, text"),
        ("c.csv", "path,caption\na.jpg\n", "line 2: the row is cut short"),
        ("c.csv", "path,caption\na.jpg,b\na.jpg,c\n", "line 3: a.jpg has a caption already"),
        ("c.csv", "", "the columns are none"),
        ("c.xml", "<a/>", r"suffix '\.xml'; name the file \.json"),
    ],
)
def test_broken_candidates_name_the_place(write, name, content, words):
    with pytest.raises(DataError, match=words):
        read_candidates(write(name, content))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("r.json", '{"images": [}', r"line 1, column 13"),
        ("r.json", [], "no list `images`"),
        ("r.json", COCO | {"annotations": COCO["annotations"][:1]}, "image 1: dog.jpg has no reference captions"),
        ("r.json", COCO | {"annotations": [{"image_id": 5, "caption": "a"}]}, "annotation 1: the image id 5 is not in"),
        (
            "r.json",
            COCO | {"annotations": [{"image_id": "7", "caption": "a"}]},
            "annotation 1: the image id '7' is of type str",
        ),
        ("r.json", COCO | {"annotations": [{"image_id": 7, "caption": 3}]}, "annotation 1: the caption 3 is of type int"),
        ("r.json", COCO | {"annotations": None}, "`annotations` is no list"),
        ("r.json", COCO | {"images": COCO["images"][:1] * 2}, "image 2: the id 7 is taken"),
        ("r.json", {"images": [{"filename": "a.jpg", "sentences": []}]}, "a.jpg has no reference captions"),
        ("r.jsonl", lines({"image": "a.jpg", "captions": []}), "line 1: a.jpg has no reference captions"),
        ("r.jsonl", lines({"image": "a.jpg", "captions": "a"}), "line 1: `captions` is 'a'; it must be a list"),
        ("r.jsonl", lines({"image": "a.jpg", "captions": [1]}), "line 1: the caption 1 is of type int"),
        (
            "r.jsonl",
            lines({"image": "x/a.jpg", "captions": ["a"]}, {"image": "y/a.jpg", "captions": ["b"]}),
            "line 2: a second",
        ),
        ("r.txt", "a.jpg#0\tcaption\na.jpg caption\n", "line 2: 'a.jpg caption' is not of the form"),
        ("r.txt", "", "no reference captions"),
    ],
)
def test_broken_references_name_the_place(write, name, content, words):
    with pytest.raises(DataError, match=words):
        read_references(write(name, content))


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.json: No such file"):
        read_candidates(tmp_path / "absent.json")
    (tmp_path / "latin.txt").write_bytes("a.jpg#0\tcaf\u00e9".encode("latin-1"))
    with pytest.raises(DataError, match="byte 11 is not UTF-8"):
        read_references(tmp_path / "latin.txt")
