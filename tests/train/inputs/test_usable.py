"""Photos that cannot be read: all are named before the work begins, and left out where that is asked for."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from fakes import RecordingReporter
from showtell.cli.main import cli
from showtell.data import read as read_dataset
from showtell.errors import DataError
from showtell.image import ImageSettings
from showtell.train.inputs import usable
from showtell.train.recipe import Recipe
from showtell.train.run import checkpoint
from showtell.train.run.processes import Processes
from showtell.train.train import train


@pytest.fixture
def damaged(shapes: Path, tmp_path: Path) -> Path:
    """The shapes with three broken train photos and one of dev: no photo, empty, and two that are cut short."""
    data = Path(shutil.copytree(shapes, tmp_path / "damaged"))
    photos = data / "images"
    (photos / "red-fence-0.jpg").write_bytes(b"not a photo")
    (photos / "red-fence-1.jpg").write_bytes(b"")
    for name in ("red-cross-4.jpg", "red-cross-2.jpg"):
        (photos / name).write_bytes((photos / name).read_bytes()[:-300])
    return data


def recipe(tmp_path: Path, *more: str) -> Recipe:
    return Recipe.load("debug", [f"encoder.cache={tmp_path / 'cache'}", "training.epochs=1", "training.max_photos=0", *more])


def test_all_broken_photos_are_named_before_anything_is_computed(damaged: Path, tmp_path: Path) -> None:
    for more in ((), ("encoder.cached=false",)):
        log = RecordingReporter()
        with pytest.raises(DataError, match=r"4 of 60 photos cannot be read\..*data\.skip_broken=true.*--lenient"):
            train(recipe(tmp_path, *more), damaged, tmp_path / "run", resume=False, report=log)
        named = [message for message in log.messages if message.startswith("showtell: ")]
        assert sorted(message.partition("[")[2] for message in named) == ["empty]", "not-an-image]", "truncated]", "truncated]"]
        for name in ("red-fence-0.jpg", "red-fence-1.jpg", "red-cross-4.jpg", "red-cross-2.jpg"):
            assert sum(name in message for message in named) == 1
        assert not any(message.startswith("features in") for message in log.messages)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("cached", ["true", "false"])
def test_broken_photos_are_left_out_and_counted(cached: str, damaged: Path, tmp_path: Path) -> None:
    log = RecordingReporter()
    skipping = recipe(tmp_path, "data.skip_broken=true", f"encoder.cached={cached}")
    train(skipping, damaged, tmp_path / "run", resume=False, report=log)
    assert "4 of 60 photos cannot be read and are left out" in log.messages
    assert any(message.startswith("45 train and 11 dev photos") for message in log.messages)
    # The others are trained on as in a data set that never listed them.
    lines = (damaged / "Flickr8k.token.txt").read_text().splitlines()
    broken = ("red-fence-0", "red-fence-1", "red-cross-4", "red-cross-2")
    (damaged / "Flickr8k.token.txt").write_text("\n".join(line for line in lines if not line.startswith(broken)))
    for split in ("train", "dev"):
        file = damaged / f"Flickr_8k.{split}Images.txt"
        file.write_text("\n".join(name for name in file.read_text().splitlines() if not name.startswith(broken)))
    train(recipe(tmp_path, f"encoder.cached={cached}"), damaged, tmp_path / "without", resume=False, report=RecordingReporter())
    ours, theirs = (checkpoint.best(tmp_path / run).config.files for run in ("run", "without"))
    assert ours == theirs


def test_lenient_training_takes_what_decodes(damaged: Path, tmp_path: Path) -> None:
    sets = ["--set", f"encoder.cache={tmp_path / 'cache'}", "--set", "training.epochs=1", "--set", "training.max_photos=0"]
    command = ["train", "debug", "--data", str(damaged), "--output", str(tmp_path / "run"), "--lenient", *sets]
    done = CliRunner().invoke(cli, [*command, "--set", "data.skip_broken=true"])
    assert done.exit_code == 0, done.output
    assert "2 of 60 photos cannot be read and are left out" in done.stderr
    assert "46 train and 12 dev photos" in done.stderr
    with pytest.raises(DataError, match="4 of 60"):  # what was taken leniently is not taken for whole afterwards
        train(recipe(tmp_path), damaged, tmp_path / "strict", resume=False, report=RecordingReporter())


def test_a_photo_that_was_read_once_is_not_decoded_again(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    plain: Callable[..., Any] = usable.read_photo

    def counted(data: bytes, preprocessing: Any, name: str, *more: Any) -> Any:
        decoded.append(name)
        return plain(data, preprocessing, name, *more)

    monkeypatch.setattr(usable, "read_photo", counted)
    processes = Processes(None)  # type: ignore[arg-type]

    def look(folder: Path) -> int:
        decoded.clear()
        usable.usable(
            read_dataset(folder),
            ("train", "dev"),
            images=ImageSettings(),
            skip_broken=False,
            cache=tmp_path / "cache",
            processes=processes,
            report=RecordingReporter(),
        )
        return len(decoded)

    data = Path(shutil.copytree(shapes, tmp_path / "data"))
    assert look(data) == 60
    assert look(data) == 0
    changed = data / "images" / "red-fence-0.jpg"
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "JPEG")
    changed.write_bytes(buffer.getvalue())
    assert look(data) == 1
    assert decoded == ["red-fence-0.jpg"]


def test_old_photos_that_cannot_be_read_are_left_out_too(damaged: Path, shapes: Path, learnt: Path, tmp_path: Path) -> None:
    fine = Path(shutil.copytree(shapes, tmp_path / "fine"))
    (fine / "Flickr_8k.trainImages.txt").write_text("blue-cross-0.jpg\nblue-cross-1.jpg\n")
    log = RecordingReporter()
    more = ["data.skip_broken=true", f"init={learnt}", f"finetune.old_data={damaged}"]
    train(recipe(tmp_path, *more), fine, tmp_path / "run", resume=False, report=log)
    assert "1 of 12 photos cannot be read and are left out" in log.messages  # its train photos are not wanted


def test_a_missing_split_says_what_to_do(shapes: Path, tmp_path: Path) -> None:
    for split, purpose in (
        ("dev", "to choose the best epoch by, and there are some of test, train"),
        ("train", "to learn from"),
    ):
        data = Path(shutil.copytree(shapes, tmp_path / split))
        file = data / f"Flickr_8k.{split}Images.txt"
        (data / "Flickr_8k.testImages.txt").write_text(file.read_text())
        file.write_text("")
        with pytest.raises(DataError, match=f"needs photos of the split '{split}' {purpose}.*Mark some as such"):
            train(recipe(tmp_path), data, tmp_path / "run", resume=False, report=RecordingReporter())
