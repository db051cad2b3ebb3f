"""Training, evaluation and calibration take any layout, and the layout makes no difference."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from showtell.cli.main import cli
from showtell.data import convert, read


def run(*arguments):
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments], standalone_mode=False)
    assert done.exception is None, done.output
    return done


@pytest.fixture(scope="session")
def layouts(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("layouts")
    paths = {"flickr8k": shapes, "jsonl": folder / "shapes.jsonl", "coco": folder / "shapes.json", "tars": folder / "tars"}
    for name in ("jsonl", "coco", "tars"):
        convert.convert(read(shapes), paths[name])
    return paths


def test_scores_are_those_of_the_official_layout(layouts, float_bundle, tmp_path):
    scores = {}
    for name, path in layouts.items():
        run("evaluate", "--data", path, "--split", "dev", "--model", float_bundle, "--json", tmp_path / "scores.json")
        scores[name] = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert all(found == scores["flickr8k"] for found in scores.values())


def test_calibration_uses_the_train_photos_of_any_layout(layouts, learnt):
    from showtell.export import calibration_inputs
    from showtell.train.run import checkpoint

    found = checkpoint.find(learnt)
    first, *others = (calibration_inputs(found, path, 4) for path in layouts.values())
    assert len(first) == 4
    for other in others:
        assert all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert len(calibration_inputs(found, layouts["flickr8k"] / "images", 4)) == 4  # a mere folder of photos


def test_training_from_a_table_without_splits(shapes, tmp_path):
    rows = [f'{s.image},"{text}"\n' for s in read(shapes).samples for text in s.captions]
    (tmp_path / "captions.txt").write_text("image,caption\nabsent.jpg,A ghost\n" + "".join(rows))
    (tmp_path / "photos").symlink_to(shapes / "images")
    sets = ["--set", "training.epochs=1", "--set", f"encoder.cache={tmp_path / 'cache'}"]
    done = run("train", "debug", "--data", tmp_path, "--output", tmp_path / "run", *sets)
    assert done.return_value == 0
    assert "1 of 61 listed photos are missing: absent.jpg" in done.stderr
    assert "the data has no splits: drawn by photo with seed 0: " in done.stderr
    assert "epoch 1: loss" in done.stderr
