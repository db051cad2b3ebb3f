"""Captions and records in a notebook: the example notebook in a real kernel, and what the HTML holds."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

import showtell

EXAMPLES = Path(__file__).parents[1] / "examples"
PHOTO = EXAMPLES / "photos" / "giraffes.jpg"


@pytest.mark.slow
def test_the_example_notebook_runs_and_shows_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    notebook = nbformat.read(EXAMPLES / "captioning.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # photos of outputs do not enter the repository
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    assert outputs["caption"][0].data["text/html"].count("<p ") == 3
    shown, broken = (output.data["text/html"] for output in outputs["records"])
    assert shown.count("<img ") == 1 + shown.count("<figure ") > 3
    assert "no such file" in broken
    assert outputs["sample"][0].data["text/html"].count("<p ") == 5
    assert "image/png" in outputs["explain"][0].data


def test_html_is_escaped_and_photos_are_small_and_upright(tmp_path: Path) -> None:
    name = tmp_path / "<b>a & b.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.new("RGB", (1200, 600), "red").save(name, exif=exif)
    captioner = showtell.load(threads=1)
    caption = captioner(name)
    assert re.findall(r"max-width:(\d+)px", caption._repr_html_()) == ["240"]
    [record, missing] = captioner.records([name, tmp_path / "<i>.jpg"])
    assert "<b>a" not in record._repr_html_()
    assert "&lt;i&gt;.jpg" in missing._repr_html_()
    assert repr(caption).count("photo") == 0  # the photo is no part of it
    from showtell.notebook import _photo

    assert _photo(name).size == (120, 240)
    assert captioner(np.zeros((9, 9, 3), np.uint8))._repr_html_().count("<img ") == 1
    with open(PHOTO, "rb") as file:
        assert "<img" not in captioner(file)._repr_html_()  # it has been read


def test_attention_is_a_flag_of_records() -> None:
    captioner = showtell.load(threads=1)
    [plain] = captioner.records([PHOTO], beam_size=2)
    [record] = captioner.records([PHOTO], beam_size=2, attention=True)
    assert plain.attention is None
    assert record.captions == plain.captions
    maps = np.array(record.attention)
    assert maps.shape == (len(record.captions[0].tokens), 8, 8)
    assert np.allclose(maps.sum((1, 2)), 1, atol=1e-3)


def test_the_public_names_are_these_and_tab_completion_shows_them() -> None:
    types = [
        "BundleError",
        "Caption",
        "Captioner",
        "ConfidenceOptions",
        "DecodeOptions",
        "ImageError",
        "ImageSettings",
        "Label",
    ]
    assert showtell.__all__ == [*types, "OptionError", "Record", "ShowtellError", "explain", "load"]
    assert set(showtell.__all__) <= set(dir(showtell))
    assert all(getattr(showtell, name) for name in showtell.__all__)


def executed(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the code cells of an example notebook print, by their ids, after it ran in a real kernel."""
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    return {
        cell.id: "".join(output.get("text", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


@pytest.mark.slow
def test_the_training_notebook_shows_over_fitting(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = executed("training.ipynb", monkeypatch)
    found = re.search(r"train ([\d.]+); dev ([\d.]+), lowest ([\d.]+) after epoch (\d+)", printed["curves"])
    assert found
    train, dev, lowest = (float(number) for number in found.groups()[:3])
    assert train < lowest <= dev
    assert int(found[4]) < 20


@pytest.mark.slow
def test_the_evaluation_notebook_compares_two_captioners(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = executed("evaluation.ipynb", monkeypatch)
    assert len(re.findall(r"(?:sampled|beam of 5) +(?:BLEU-4|CIDEr) +[\d.]+  [\d.]+ to [\d.]+", printed["scores"])) == 4
    assert re.search(r"CIDEr +[+-][\d.]+, p = 0\.\d+", printed["paired"])
    assert printed["photos"].count("CIDEr:") == 2
