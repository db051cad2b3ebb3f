"""The leaderboard: several captioners on the same photos, measured apart and shown beside each other."""

import json
import shutil
from pathlib import Path

from click.testing import CliRunner

from showtell.bundle import Bundle
from showtell.cli.main import cli


def test_models_are_compared_on_the_same_photos(float_bundle: Path, shapes: Path, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(float_bundle, tmp_path / "twin"))
    files = ["--json", str(tmp_path / "board.json"), "--report", str(tmp_path / "board")]
    command = ["evaluate", "--data", str(shapes), "--model", str(float_bundle), "--model", str(twin)]
    done = CliRunner().invoke(cli, [*command, "--model", "lite2-lstm-general", *files])
    assert done.exit_code == 0, done.output
    [first, second, third] = json.loads((tmp_path / "board.json").read_text())["sets"][shapes.name]
    assert first["scores"] == second["scores"]
    assert first["scores"]["CIDEr"] > third["scores"]["CIDEr"]  # it knows the shapes by heart
    assert "p" not in first
    assert second["p"]["CIDEr"] == 1
    assert third["p"]["CIDEr"] < 0.05
    assert third["size_mb"] == round(sum(f.stat().st_size for f in Bundle.find(None).folder.iterdir()) / 1e6, 1)
    assert all(each["photos_per_second"] > 0 and each["peak_memory_mb"] > 50 for each in (first, second, third))
    table = done.stdout.splitlines()
    assert table[0] == f"{shapes.name} dev: 12 images"
    assert [line.split()[0] for line in table if str(tmp_path) in line or "lite2" in line][-1] == "lite2-lstm-general"
    page = (tmp_path / "board" / "index.html").read_text()
    assert page.count("<article ") == 12
    assert all(caption in page for caption in third["captions"].values())
    assert len(list((tmp_path / "board" / "photos").iterdir())) == 12


def test_several_models_go_with_data_alone(float_bundle: Path, shapes: Path) -> None:
    models = ["--model", str(float_bundle), "--model", "lite2-lstm-general"]
    for more in (["--candidates", "a.json", "--references", "b.json"], ["--data", str(shapes), "--keep-scores"]):
        done = CliRunner().invoke(cli, ["evaluate", *more, *models])
        assert done.exit_code == 2
        assert "several --model go with --data" in done.output
