"""The command as people run it: a process of its own, its two streams and its exit status."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from commands import run
from showtell import runtime
from showtell.bundle import Bundle
from showtell.cli.main import cli
from showtell.errors import MissingExtraError
from showtell.train.run import checkpoint


@pytest.fixture
def folder(shapes: Path, tmp_path: Path) -> Path:
    """Photos in a folder with a space in its name, one in a folder below, a broken one, and a file that is no photo."""
    root = tmp_path / "my photos"
    (root / "below").mkdir(parents=True)
    for name in ("red-square-0.jpg", "blue-cross-0.jpg"):
        shutil.copy(shapes / "images" / name, root / name)
    shutil.copy(shapes / "images" / "green-cross-0.jpg", root / "below" / "UPPER.JPG")
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff but no more")
    (root / "notes.txt").write_text("not a photo")
    return root


def test_one_photo_prints_its_caption_alone(float_bundle: Path, folder: Path) -> None:
    done = run("caption", folder / "red-square-0.jpg", "--model", float_bundle)
    assert done.returncode == 0
    assert done.stderr == b""
    [line] = done.stdout.decode().splitlines()
    assert " red " in line
    assert "\t" not in line
    done = run("caption", folder / "red-square-0.jpg", "--model", float_bundle, "--sentence")
    assert done.stdout.decode().rstrip("\n") == line[0].upper() + line[1:] + "."


def test_folder_prints_path_and_caption_and_names_the_broken_one(float_bundle: Path, folder: Path) -> None:
    done = run("caption", folder, "--model", float_bundle)
    assert done.returncode == 1
    lines = dict(line.split("\t") for line in done.stdout.decode().splitlines())
    assert list(lines) == [str(folder / name) for name in ("blue-cross-0.jpg", "red-square-0.jpg", "below/UPPER.JPG")]
    assert " blue " in lines[str(folder / "blue-cross-0.jpg")]
    errors = done.stderr.decode()
    assert "broken.jpg" in errors
    assert "notes.txt" not in errors
    assert "3 captioned, 1 failed" in errors


def test_jsonl_records(float_bundle: Path, folder: Path) -> None:
    done = run("caption", folder, "--model", float_bundle, "--format", "jsonl", "--num-captions", "2")
    records = [json.loads(line) for line in done.stdout.decode().splitlines()]
    by_name = {Path(record["path"]).name: record for record in records}
    good, bad = by_name["red-square-0.jpg"], by_name["broken.jpg"]
    assert set(good) == {"path", "status", "caption", "score", "captions", "source", "width", "height", "model"}
    assert good["status"] == "ok"
    assert good["captions"][0] == {"text": good["caption"], "score": good["score"]}
    assert len(good["captions"]) == 2
    assert (good["width"], good["height"]) == (64, 64)
    assert bad["status"] == "error"
    assert bad["error"]["code"] in ("not-an-image", "unreadable", "truncated")
    assert "broken.jpg" in bad["error"]["message"]


def test_output_files_say_their_format_and_are_kept(float_bundle: Path, folder: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / "out.jsonl", tmp_path / "out.txt"]
    arguments = ["caption", folder / "red-square-0.jpg", "--model", float_bundle]
    for output in outputs:
        arguments += ["--output", output]
    done = run(*arguments)
    assert done.returncode == 0
    assert done.stdout == b""
    assert " red " in json.loads(outputs[0].read_text())["caption"]
    assert outputs[1].read_text().startswith(str(folder / "red-square-0.jpg") + "\t")
    outputs[0].write_text("precious")
    again = run(*arguments)
    assert again.returncode == 2
    assert b"out.jsonl" in again.stderr
    assert b"--overwrite" in again.stderr
    assert outputs[0].read_text() == "precious"
    assert run(*arguments, "--overwrite").returncode == 0
    assert run("caption", folder, "--model", float_bundle, "--output", tmp_path / "out.doc").returncode == 2


def test_paths_from_standard_input_and_odd_names(float_bundle: Path, folder: Path) -> None:
    odd = os.fsencode(folder) + b"/caf\xe9 \xf0\x9f\x90\x95.jpg"  # not UTF-8
    shutil.copy(folder / "red-square-0.jpg", odd)
    done = run("caption", "-", "--model", float_bundle, stdin=odd + b"\n" + os.fsencode(folder / "blue-cross-0.jpg") + b"\n")
    assert done.returncode == 0
    first, _ = done.stdout.splitlines()
    assert first.startswith(odd + b"\t")
    done = run("caption", "-", "--model", float_bundle, "--format", "jsonl", stdin=odd)
    assert os.fsencode(json.loads(done.stdout)["path"]) == odd


def test_usage_errors_and_nothing_done_exit_with_2(float_bundle: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    for arguments, named in (
        (["caption"], "PATH"),
        (["caption", tmp_path / "nothing"], "no photos in"),
        (["caption", folder / "absent.jpg", "--model", float_bundle], "absent.jpg"),
        (["caption", folder, "--model", tmp_path / "nothing"], "config.json"),
        (["caption", folder, "--model", float_bundle, "--beam-size", "0"], "--beam-size is 0"),
        (["caption", folder, "--model", float_bundle, "--temperature", "0.5"], "sample"),
        (["train", "flickr9k", "--data", folder, "--output", tmp_path / "run"], "flickr9k"),
        (["evaluate", "--data", tmp_path / "nothing", "--model", float_bundle], "Flickr8k.token.txt"),
        (["export", tmp_path / "nothing", "--output", tmp_path / "new"], "no checkpoint"),
    ):
        done = run(*arguments)
        assert done.returncode == 2, arguments
        assert named in done.stderr.decode()
        assert b"Traceback" not in done.stderr
        assert done.stdout == b""


def test_train_export_evaluate_and_caption(shapes: Path, tmp_path: Path) -> None:
    sets = ["--set", f"encoder.cache={tmp_path / 'cache'}", "--set", "training.epochs=2"]
    done = run("train", "debug", "--data", shapes, "--output", tmp_path / "run", *sets)
    assert done.returncode == 0, done.stderr.decode()
    assert "epoch 2: loss" in done.stderr.decode()
    again = run("train", "debug", "--data", shapes, "--output", tmp_path / "run", *sets)
    assert again.returncode == 2
    assert b"--resume" in again.stderr
    bundle = tmp_path / "bundle"
    done = run("export", tmp_path / "run", "--output", bundle, "--quantize", "int8", "--calibration", shapes)
    assert done.returncode == 0, done.stderr.decode()
    assert f"showtell calibrate --model {bundle} --data DATA" in done.stderr.decode()
    done = run("evaluate", "--data", shapes, "--split", "dev", "--model", bundle, "--json", tmp_path / "scores.json")
    assert done.returncode == 0, done.stderr.decode()
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["count"] == 12
    assert "CIDEr" in done.stdout.decode()
    best = checkpoint.best(tmp_path / "run").scores["CIDEr"]
    assert scores["scores"]["CIDEr"] == pytest.approx(best, abs=40)  # quantised, and barely trained
    assert "dev" not in Bundle.read(bundle).config.scores
    done = run("evaluate", "--data", shapes, "--model", bundle, "--keep-scores")
    assert done.returncode == 0, done.stderr.decode()
    kept = Bundle.read(bundle).config.scores["dev"][shapes.name]
    assert kept["CIDEr"] == pytest.approx(scores["scores"]["CIDEr"], abs=0.01)
    refused = run("evaluate", "--data", shapes, "--model", bundle, "--keep-scores", "--beam-size", "2")
    assert refused.returncode == 2
    assert b"--keep-scores is for --data and the model's own search settings" in refused.stderr
    assert run("caption", shapes / "images" / "red-square-2.jpg", "--model", bundle).returncode == 0


def test_evaluate_takes_columns_and_splits_as_training_does(float_bundle: Path, shapes: Path, tmp_path: Path) -> None:
    photos = sorted((shapes / "images").glob("*.jpg"))
    rows = [f"{photo},a {photo.name.partition('-')[0]} thing,{number}" for number, photo in enumerate(photos)]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["bild,satz,number", *rows]))
    given = ["evaluate", "--data", table, "--split", "test", "--model", float_bundle, "--json", tmp_path / "scores.json"]
    done = run(*given)
    assert done.returncode == 2
    assert b"--image-column" in done.stderr
    found = []
    for seed in ("0", "1"):
        done = run(*given, "--image-column", "bild", "--caption-column", "satz", "--split-seed", seed)
        assert done.returncode == 0, done.stderr.decode()
        assert f"drawn by photo with seed {seed}" in done.stderr.decode()
        found.append(sorted(json.loads((tmp_path / "scores.json").read_text())["images"]))
    from showtell.data import Columns, read

    for seed, images in enumerate(found):
        dataset = read(table, columns=Columns("bild", "satz"), split_seed=seed)
        assert images == sorted(sample.image for sample in dataset.split("test"))
    assert found[0] != found[1]


def test_captioning_never_imports_torch(float_bundle: Path, shapes: Path) -> None:
    code = f"""
import sys
sys.argv = ["showtell", "caption", {str(shapes / "images" / "red-square-2.jpg")!r}, "--model", {str(float_bundle)!r}]
from showtell.cli.main import main
try:
    main()
except SystemExit as status:
    assert status.code == 0
heavy = {{"torch", "onnx", "pydantic", "safetensors", "fastapi", "ray", "pandas", "scipy"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_missing_extra_says_what_to_install(shapes: Path, tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["torch"] = None
sys.argv = ["showtell", "train", "debug", "--data", {str(shapes)!r}, "--output", {str(tmp_path / "run")!r}]
from showtell.cli.main import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=False)
    assert done.returncode == 2
    assert b" -m pip install " in done.stderr
    assert b"[train]'" in done.stderr
    assert issubclass(MissingExtraError, ImportError)


def test_help_is_quick_to_read() -> None:
    done = run("--help")
    assert done.returncode == 0
    for command in ("caption", "train", "evaluate", "average", "export"):
        assert command in done.stdout.decode()
    assert b"showtell" in run("--version").stdout


def test_evaluate_names_a_broken_photo_and_goes_on(float_bundle: Path, tmp_path: Path) -> None:
    photos = tmp_path / "dev"
    photos.mkdir()
    Image.new("RGB", (64, 64), "red").save(photos / "whole.jpg")
    (photos / "cut.jpg").write_bytes((photos / "whole.jpg").read_bytes()[:-200])
    lines = [json.dumps({"file_name": name, "captions": ["a red square"]}) for name in ("whole.jpg", "cut.jpg")]
    (photos / "metadata.jsonl").write_text("\n".join(lines))
    done = run("evaluate", "--data", tmp_path, "--split", "dev", "--model", float_bundle, "--json", tmp_path / "scores.json")
    assert done.returncode == 1, done.stderr.decode()
    assert "cut.jpg: the file is cut short" in done.stderr.decode()
    assert json.loads((tmp_path / "scores.json").read_text())["count"] == 1


def test_evaluate_measures_each_of_several_sets_as_if_alone(float_bundle: Path, shapes: Path, tmp_path: Path) -> None:
    few = tmp_path / "few" / "dev"
    few.mkdir(parents=True)
    lines = []
    for name in ("red-square-2.jpg", "blue-cross-2.jpg", "green-fence-2.jpg"):
        shutil.copy(shapes / "images" / name, few / name)
        lines.append(json.dumps({"file_name": name, "captions": [f"a {name.split('-')[0]} thing", "a man"]}))
    (few / "metadata.jsonl").write_text("\n".join(lines))
    options = ["--split", "dev", "--model", float_bundle, "--json", tmp_path / "scores.json"]
    alone = {}
    for path in (shapes, few.parent):
        assert run("evaluate", "--data", path, *options).returncode == 0
        alone[path.name] = json.loads((tmp_path / "scores.json").read_text())

    page = tmp_path / "report"
    done = run("evaluate", "--data", shapes, "--data", few.parent, *options, "--report", page)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads((tmp_path / "scores.json").read_text()) == {"sets": alone}
    for name, found in alone.items():
        [row] = [line.split() for line in done.stdout.decode().splitlines() if line.split()[:1] == [name]]
        assert row[1:] == [f"{score:.1f}" for score in found["scores"].values()]
        low, high = found["intervals"]["CIDEr"]
        assert f"{low:.1f}-{high:.1f}" in done.stdout.decode()
        assert any(line.startswith(f"{found['name']}: ") for line in done.stdout.decode().splitlines())
        assert found["name"] in (page / name / "index.html").read_text()
    assert len(list((page / "few" / "photos").glob("*.jpg"))) == 3
    assert (page / "index.html").exists() is False


def test_evaluate_reads_all_sets_before_it_loads_one_model(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, loaded = runtime.load, []
    monkeypatch.setattr(runtime, "load", lambda model, **options: loaded.append(model) or load(model, **options))
    copies = [shutil.copytree(shapes, tmp_path / name / "shapes") for name in ("here", "there")]
    no_dev = shutil.copytree(shapes, tmp_path / "no-dev")
    (no_dev / "Flickr_8k.devImages.txt").write_text("")

    def evaluate(*paths: Path) -> Any:
        arguments = ["evaluate", "--json", str(tmp_path / "scores.json")]
        for path in paths:
            arguments += ["--data", str(path)]
        return CliRunner().invoke(cli, arguments, standalone_mode=False)

    assert "'dev'" in str(evaluate(shapes, no_dev).exception)
    assert "two of the data sets are called" in str(evaluate(shapes, shapes).exception)
    assert loaded == []
    assert evaluate(*copies).return_value == 0
    assert list(json.loads((tmp_path / "scores.json").read_text())["sets"]) == ["here-shapes", "there-shapes"]
    assert loaded == [None]


def test_evaluate_files_report_and_comparison(float_bundle: Path, shapes: Path, tmp_path: Path) -> None:
    photos = sorted((shapes / "images").glob("*-2.jpg"))
    good, poor = tmp_path / "good.jsonl", tmp_path / "poor.jsonl"
    assert run("caption", *photos, "--model", float_bundle, "--output", good).returncode == 0
    poor.write_text("".join(json.dumps({"path": photo.name, "caption": "a dog"}) + "\n" for photo in photos))
    references = ["--references", shapes / "Flickr8k.token.txt", "--partial"]

    page = tmp_path / "report"
    done = run(
        "evaluate", "--candidates", good, *references, "--report", page, "--photos", shapes, "--json", tmp_path / "s.json"
    )
    assert done.returncode == 0, done.stderr.decode()
    assert "CIDEr" in done.stdout.decode()
    scores = json.loads((tmp_path / "s.json").read_text())
    assert scores["count"] == 12
    assert scores["scores"]["CIDEr"] > 100
    assert "blue-square-2.jpg" in (page / "index.html").read_text()
    assert len(list((page / "photos").glob("*.jpg"))) == 12

    done = run("evaluate", "--compare", poor, good, *references, "--json", tmp_path / "c.json")
    assert done.returncode == 0, done.stderr.decode()
    difference = json.loads((tmp_path / "c.json").read_text())["differences"]["CIDEr"]
    assert difference["second"] > difference["first"]
    assert difference["p_value"] < 0.05

    whole = run("evaluate", "--candidates", good, "--references", shapes / "Flickr8k.token.txt")
    assert whole.returncode == 2
    assert "--partial" in whole.stderr.decode()
    for arguments in (
        ["--candidates", good],
        ["--data", shapes, "--candidates", good],
        ["--data", shapes, "--references", good],
        ["--candidates", good, *references, "--metrics", "bleurt"],
        ["--compare", good, poor, *references, "--report", page],
    ):
        assert run("evaluate", *arguments).returncode == 2
