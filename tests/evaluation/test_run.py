"""A model over a data set's photos, some of which cannot be read when their turn comes."""

import shutil
from pathlib import Path

import showtell
from showtell.data import read
from showtell.evaluation.run import caption_split


def test_a_photo_that_is_gone_is_named_and_the_others_are_captioned(float_bundle: Path, shapes: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shapes, tmp_path / "shapes"))
    dataset = read(folder)
    names = [sample.image for sample in dataset.split("dev")]
    (folder / "images" / names[1]).unlink()
    captioner = showtell.load(float_bundle)
    run = caption_split(captioner, dataset, "dev", captioner.options())
    assert list(run.failed) == [names[1]]
    assert names[1] in run.failed[names[1]]
    assert list(run.candidates) == list(run.references) == [name for name in names if name != names[1]]
    whole = caption_split(captioner, read(shapes), "dev", captioner.options())
    assert {name: whole.candidates[name] for name in run.candidates} == run.candidates
