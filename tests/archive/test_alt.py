"""Images without alternative text: found where people write them, and nothing else is touched."""

import base64
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image as Picture

from showtell.archive.alt import Document, Site
from showtell.errors import DataError, OutputError


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    (folder / "pictures").mkdir(parents=True)
    for name in ("dog.jpg", "my cat (1).jpg"):
        Picture.new("RGB", (32, 32), "red").save(folder / "pictures" / name)
    return folder


def filled(site: Path, name: str, text: str, caption: str = 'A "dog" & a cat.') -> str:
    """The file's text with one caption put in wherever it is missing."""
    (site / name).write_bytes(text.encode())
    documents = list(Site(site).documents())
    if not documents:
        return text
    [document] = documents
    return document.with_captions({image.name: caption for image in document.images})


@pytest.mark.parametrize(
    "text",
    [
        '<img src="pictures/dog.jpg" alt="A dog.">',
        '<img src="pictures/dog.jpg" alt="">',
        "<img src=pictures/dog.jpg alt>",
        "<img ALT='' src=pictures/dog.jpg>",
        '<img src="pictures/dog.jpg" aria-hidden="true"><img src="pictures/dog.jpg" role="presentation">',
        '<img src="pictures/dog.jpg" aria-label="dog">',
        '<!-- <img src="pictures/dog.jpg"> -->',
        "<script>let a = '<img src=\"pictures/dog.jpg\">';</script>",
        "<pre>&lt;img src=pictures/dog.jpg&gt;</pre>",
        "<img>",
    ],
)
def test_text_that_is_there_and_what_is_no_image_stay(site: Path, text: str) -> None:
    assert filled(site, "a.html", text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('<p>é\r\n<img src="pictures/dog.jpg"/>\r\n', '<p>é\r\n<img{} src="pictures/dog.jpg"/>\r\n'),
        ("<IMG\n  SRC='/pictures/dog.jpg?v=2#x'>", "<IMG{}\n  SRC='/pictures/dog.jpg?v=2#x'>"),
        ("<img src=pictures/my%20cat%20(1).jpg>", "<img{} src=pictures/my%20cat%20(1).jpg>"),
        (
            "<img src=pictures/dog.jpg><img src=pictures/dog.jpg alt=x>",
            "<img{} src=pictures/dog.jpg><img src=pictures/dog.jpg alt=x>",
        ),
    ],
)
def test_html_gets_an_alt_attribute(site: Path, text: str, expected: str) -> None:
    assert filled(site, "a.html", text) == expected.format(' alt="A &quot;dog&quot; &amp; a cat."')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("![](pictures/dog.jpg)", "![{}](pictures/dog.jpg)"),
        ('a ![ ](pictures/dog.jpg "title") b', 'a ![{}](pictures/dog.jpg "title") b'),
        ("![](<pictures/my cat (1).jpg>)", "![{}](<pictures/my cat (1).jpg>)"),
        ("- item\n\n    ![](pictures/dog.jpg)", "- item\n\n    ![{}](pictures/dog.jpg)"),
        ("text\n    ![](pictures/dog.jpg)", "text\n    ![{}](pictures/dog.jpg)"),
        ("[![](pictures/dog.jpg)](x.html)", "[![{}](pictures/dog.jpg)](x.html)"),
        ("![][Dog]\n\n[dog]: pictures/dog.jpg\n", "![{}][Dog]\n\n[dog]: pictures/dog.jpg\n"),
    ],
)
def test_markdown_gets_its_description(site: Path, text: str, expected: str) -> None:
    assert filled(site, "a.md", text, "A *dog* [1].") == expected.format(r"A \*dog\* \[1\].")


@pytest.mark.parametrize(
    "text",
    [
        "![a dog](pictures/dog.jpg)",
        "`![](pictures/dog.jpg)` and ``a ` ![](pictures/dog.jpg)``",
        "```\n![](pictures/dog.jpg)\n```\n",
        "~~~ html\n<img src=pictures/dog.jpg>\n~~~~\n",
        "```\n![](pictures/dog.jpg)",
        "\\![](pictures/dog.jpg)",
        "Text:\n\n    ![](pictures/dog.jpg)\n\n    <img src=pictures/dog.jpg>\n",
        "<!-- ![](pictures/dog.jpg) -->",
        "![][absent]",
        '<img src="pictures/dog.jpg" alt="">',
    ],
)
def test_code_and_described_images_in_markdown_stay(site: Path, text: str) -> None:
    assert filled(site, "a.md", text) == text


def test_html_within_markdown_gets_an_attribute(site: Path) -> None:
    assert filled(site, "a.md", "`x` <img src=pictures/dog.jpg>", "A.") == '`x` <img alt="A." src=pictures/dog.jpg>'


def notebook(site: Path, source: object, **cell: object) -> dict[str, object]:
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": source, **cell},
        {"cell_type": "code", "source": ["![](dog.jpg)"]},
    ]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


@pytest.mark.parametrize("indent", [1, 2, None])
def test_only_the_lines_of_a_notebook_change(site: Path, indent: int | None) -> None:
    data = base64.b64encode((site / "pictures" / "dog.jpg").read_bytes()).decode()
    before = notebook(
        site, ["é\n", "![](pictures/dog.jpg)\n", "![](attachment:a.png)"], attachments={"a.png": {"image/png": data}}
    )
    text = json.dumps(before, indent=indent, ensure_ascii=False) + "\n"
    after = filled(site, "a.ipynb", text, "A dog.")
    assert json.loads(after)["cells"][0]["source"] == ["é\n", "![A dog.](pictures/dog.jpg)\n", "![A dog.](attachment:a.png)"]
    assert after.replace("![A dog.]", "![]") == text


def test_a_notebook_that_would_be_laid_out_anew_is_left_and_counted(site: Path) -> None:
    (site / "a.ipynb").write_text(json.dumps(notebook(site, "![](pictures/dog.jpg)")).replace(",", " , "))
    found = Site(site)
    assert list(found.documents()) == []
    assert sum(count for reason, count in found.skipped.items() if "Jupyter" in reason) == 1


def test_images_elsewhere_are_counted(site: Path) -> None:
    text = "<img src=https://example.org/a.jpg><img src=data:image/gif;base64,R0><img src=absent.jpg><img src='http://[x'>"
    (site / "a.html").write_text(text)
    found = Site(site)
    assert list(found.documents()) == []
    assert found.skipped == {
        "images on other servers or within the page": 2,
        "images that are not there": 1,
        "images with broken addresses": 1,
    }


def test_a_file_that_changed_meanwhile_is_not_overwritten(site: Path) -> None:
    (site / "a.md").write_text("![](pictures/dog.jpg)")
    [document] = Site(site).documents()
    assert isinstance(document, Document)
    (site / "a.md").write_text("new words ![](pictures/dog.jpg)")
    with pytest.raises(OutputError, match="changed while"):
        document.write("old words")
    assert (site / "a.md").read_text().startswith("new words")


def test_the_command_shows_a_diff_and_writes_only_when_told(site: Path, here) -> None:
    shutil.copy(Path(__file__).parents[2] / "examples" / "photos" / "cat.jpg", site / "cat.jpg")
    (site / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    page = '<h1>é</h1>\n<img src="cat.jpg">\n<img src="cat.jpg" alt="">\n<img src="broken.jpg">\n'
    (site / "index.html").write_text(page)
    (site / "b.md").write_text("![](cat.jpg)")
    status, out, errors = here("alt", site)
    assert status == 1
    assert "broken.jpg" in errors
    assert "propose 2 alt texts in 2 files" in errors
    assert '-<img src="cat.jpg">\n+<img alt="' in out
    assert (site / "index.html").read_text() == page
    status, _, errors = here("alt", site, "--write")
    assert status == 1
    changed = (site / "index.html").read_text().splitlines()
    assert changed[1].startswith('<img alt="A cat')
    assert [changed[0], *changed[2:]] == [page.splitlines()[0], *page.splitlines()[2:]]
    assert (site / "b.md").read_text().startswith("![A cat")
    (site / "broken.jpg").unlink()
    status, out, errors = here("alt", site)
    assert (status, out) == (0, "")
    assert "left out: 1 images that are not there" in errors


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        list(Site(tmp_path / "absent").documents())
