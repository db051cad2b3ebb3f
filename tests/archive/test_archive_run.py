"""Runs that are killed, interrupted and continued: nothing finished is lost, nothing is written twice."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from commands import run as command
from showtell.archive import run as runs
from showtell.archive.beside import Sidecars
from showtell.archive.sinks import to_line
from showtell.errors import DataError, OutputError
from showtell.types import Caption, Label, Record

KILLS = 20


def ok(name: str) -> Record:
    return Record(name, "ok", (Caption(f"a {name}", -0.123456, ()), Caption("n", -1.0, (), cut=True)), 3, 2, "m")


def lost(name: str) -> Record:
    return Record(name, "error", model="m", error_code="not-found", error_message=f"{name}: no such file")


def names(run: runs.Run) -> list[str]:
    return [record.path for record in run.records()]


def create(folder: Path, size: int = 2, beside=lambda _: None) -> runs.Run:
    return runs.Run.create(folder, {"settings": {}}, beside, None, size)


def resume(folder: Path, size: int = 2, beside=lambda _: None, **options) -> runs.Run:
    return runs.Run.resume(folder, beside, size, **options)


def test_finished_shards_are_there_after_a_restart_and_the_rest_remains(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    for name in ("a", "b", "c"):
        run.write(ok(name))
    os.close(run._lock)  # as if killed: c was in memory
    again = resume(tmp_path / "run")
    assert names(again) == ["a", "b"]
    assert list(again.remaining(["a", "b", "c", "a", "d"])) == ["c", "a", "d"]  # the second a is an input of its own
    again.write(ok("c"))
    again.close()
    assert names(again) == ["a", "b", "c"]
    assert (again.tally.captioned, again.tally.failed) == (3, 0)


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    records = [ok("dog.jpg"), lost("é.jpg"), ok(os.fsdecode(b"caf\xe9.jpg"))]
    run = create(tmp_path / "run")
    for record in records:
        run.write(record)
    run.close()
    assert [to_line(record) for record in run.records()] == [to_line(record) for record in records]


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "not a shard"])
def test_a_damaged_shard_is_set_aside_and_its_photos_are_captioned_again(tmp_path: Path, damage: str) -> None:
    run = create(tmp_path / "run")
    for name in "abcdef":
        run.write(ok(name))
    run.close()
    shard = tmp_path / "run" / "shards" / "000001.jsonl"
    data = shard.read_bytes()
    changed = {"cut": data[:-40], "changed": data.replace(b"a c", b"a x"), "empty": b"", "not a shard": b"{}\n[]\n"}
    shard.write_bytes(changed[damage])
    again = resume(tmp_path / "run")
    assert again.damaged == [shard]
    assert shard.with_suffix(".damaged").read_bytes() == changed[damage]
    assert list(again.remaining("abcdef")) == ["c", "d"]
    for name in "cd":
        again.write(ok(name))
    again.close()
    assert sorted(names(again)) == list("abcdef")


def test_retry_failed_takes_failures_alone(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    for record in (ok("a"), lost("b"), lost("c"), ok("d")):
        run.write(record)
    run.close()
    again = resume(tmp_path / "run", retry_failed=True)
    assert list(again.remaining("abcd")) == ["b", "c"]
    again.write(ok("b"))
    again.write(lost("c"))
    again.close()
    assert Counter(names(again)) == Counter("abcd")
    assert (again.tally.captioned, again.tally.failed) == (3, 1)


def test_two_processes_never_work_on_one_run(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    with pytest.raises(OutputError, match="another process works on this run"):
        resume(tmp_path / "run")
    run.close()
    resume(tmp_path / "run").close()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(OutputError, match="is no run"):
        create(tmp_path)
    with pytest.raises(DataError, match="no run to resume here"):
        resume(tmp_path)
    create(tmp_path / "run").close()
    with pytest.raises(OutputError, match="--resume"):
        create(tmp_path / "run")
    manifest = tmp_path / "run" / "manifest.json"
    manifest.write_text('{"format": 9}')
    with pytest.raises(DataError, match="format 9"):
        resume(tmp_path / "run")


def test_a_full_disk_keeps_finished_shards_and_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = create(tmp_path / "run")
    for name in "abc":
        run.write(ok(name))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match=r"000001.jsonl: cannot be written \(No space left on device\)"):
            run.write(ok("d"))
    run.close()
    assert sorted(path.name for path in (tmp_path / "run" / "shards").iterdir()) == ["000000.jsonl"]
    again = resume(tmp_path / "run")
    assert list(again.remaining("abcd")) == ["c", "d"]
    again.close()


def test_captions_beside_photos_of_the_last_shard_are_written_again(tmp_path: Path) -> None:
    beside = Sidecars(".txt", existing="add").write
    run = create(tmp_path / "run", beside=beside)
    for name in ("a.jpg", "b.jpg"):
        run.write(ok(str(tmp_path / name)))
    os.close(run._lock)
    before = (tmp_path / "a.txt").read_text()
    (tmp_path / "b.txt").unlink()  # as if killed between the two
    resume(tmp_path / "run", beside=beside).close()
    assert (tmp_path / "a.txt").read_text() == before
    assert (tmp_path / "b.txt").exists()


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_a_run_writes_its_outputs_at_the_end_as_a_run_without_does(album: Path, tmp_path: Path, here) -> None:
    plain, kept, folder = tmp_path / "plain.jsonl", tmp_path / "kept.jsonl", tmp_path / "run"
    assert here("caption", album, "--output", plain)[0] == 1
    status, out, errors = here("caption", album, "--output", kept, "--run", folder, "--shard-size", "2")
    assert (status, out) == (1, "")
    assert "5 captioned, 1 failed" in errors
    assert lines(kept) == lines(plain)
    assert here("caption", album, "--run", folder)[0] == 2
    status, _, errors = here("caption", "--run", folder, "--resume")
    assert status == 1
    assert lines(kept) == lines(plain)
    (album / "broken.jpg").unlink()
    shutil.copy(album / "0.jpg", album / "broken.jpg")
    status, _, errors = here("caption", "--run", folder, "--resume", "--retry-failed", "--output", tmp_path / "other.csv")
    assert status == 0
    assert "6 captioned, 0 failed" in errors
    assert len(lines(tmp_path / "other.csv")) == 7


def test_changed_settings_are_refused_with_the_difference(album: Path, tmp_path: Path, here, float_bundle: Path) -> None:
    folder = tmp_path / "run"
    assert here("caption", album, "--run", folder, "--beam-size", "2")[0] == 1
    for arguments, message in (
        (["--beam-size", "4"], "begun with --beam-size 2, and now it is 4"),
        (["--sentence"], "begun with --sentence False, and now it is True"),
        ([album / "0.jpg"], f"begun with the inputs {album}, and now it is {album / '0.jpg'}"),
        (["--model", float_bundle], f"begun with --model not given, and now it is {float_bundle}"),
    ):
        status, _, errors = here("caption", *arguments, "--run", folder, "--resume")
        assert status == 2
        assert message in errors
    assert here("caption", album, "--beam-size", "2", "--run", folder, "--resume")[0] == 1


def test_another_model_of_the_same_name_is_refused(album: Path, tmp_path: Path, here, float_bundle: Path) -> None:
    bundle = shutil.copytree(float_bundle, tmp_path / "bundle")
    assert here("caption", album, "--run", tmp_path / "run", "--model", bundle)[0] == 1
    config = json.loads((bundle / "config.json").read_text())
    (bundle / "vocab.json").write_text((bundle / "vocab.json").read_text() + "\n")
    import hashlib

    config["files"]["vocab.json"] = hashlib.sha256((bundle / "vocab.json").read_bytes()).hexdigest()
    (bundle / "config.json").write_text(json.dumps(config))
    status, _, errors = here("caption", "--run", tmp_path / "run", "--resume")
    assert status == 2
    assert "begun with the model" in errors


def test_a_list_on_standard_input_is_kept_with_the_run(album: Path, tmp_path: Path) -> None:
    paths = [str(album / f"{number}.jpg") for number in range(4)]
    given = ["caption", "-", "--run", tmp_path / "run", "--output", tmp_path / "out.jsonl"]
    done = command(*given, stdin="\n".join(paths).encode())
    assert done.returncode == 0, done.stderr.decode()
    for shard in (tmp_path / "run" / "shards").iterdir():
        shard.unlink()
    assert command("caption", "--run", tmp_path / "run", "--resume").returncode == 0
    assert [json.loads(line)["path"] for line in lines(tmp_path / "out.jsonl")] == paths
    photo = command("caption", "-", "--run", tmp_path / "other", stdin=(album / "0.jpg").read_bytes())
    assert photo.returncode == 2
    assert b"--run keeps its inputs by path" in photo.stderr


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A hundred and twenty small photos and two broken ones."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(120):
        Image.new("RGB", (16, 16), (2 * number, 255 - 2 * number, 99)).save(folder / f"{number:03}.png")
    for name in ("007.jpg", "031.jpg"):
        (folder / name).write_bytes(b"\xff\xd8\xff broken")
    return folder


def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "showtell", "caption", *map(str, arguments)], stderr=subprocess.PIPE)


def wait_for_a_shard(folder: Path, process: subprocess.Popen[bytes]) -> None:
    while not list((folder / "shards").glob("*.jsonl")):
        assert process.poll() is None
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_finishes_the_photos_in_hand_and_says_how_to_resume(many: Path, tmp_path: Path, number: int) -> None:
    folder, output = tmp_path / "run", tmp_path / "out.jsonl"
    table = tmp_path / "many.csv"  # each photo five times, so that the run is not over before the signal
    table.write_text("path\n" + "".join(f"{path}\n" for path in sorted(many.iterdir()) * 5))
    process = start(table, "--run", folder, "--output", output, "--shard-size", "5")
    wait_for_a_shard(folder, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors.decode()
    assert f"resume with: showtell caption --run {folder} --resume" in errors.decode()
    assert not output.exists()
    done = command("caption", "--run", folder, "--resume")
    assert done.returncode == 1, done.stderr.decode()
    assert [json.loads(line)["path"] for line in lines(output)] == lines(table)[1:]


def test_kills_at_random_points_lose_nothing_finished_and_write_nothing_twice(many: Path, tmp_path: Path) -> None:
    plain, output, folder = tmp_path / "plain.jsonl", tmp_path / "out.jsonl", tmp_path / "run"
    assert command("caption", many, "--output", plain).returncode == 1
    chance = random.Random(0)
    kills = continued = 0
    finished: set[str] = set()
    while kills < KILLS:
        begin = [many, "--output", output, "--shard-size", "3", "--sidecar", ".txt"]
        process = start("--run", folder, *(["--resume"] if (folder / "manifest.json").exists() else begin))
        if kills % 2:  # while photos are captioned; else at any time, the start included
            count = len(list(folder.glob("shards/*.jsonl")))
            while process.poll() is None and len(list(folder.glob("shards/*.jsonl"))) == count:
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.05))
        else:
            time.sleep(chance.uniform(0, 1.5))
        process.kill()
        process.communicate()
        kills += 1
        shards = [json.loads(line) for path in folder.glob("shards/*.jsonl") for line in lines(path)]
        paths = [record["path"] for record in shards if "path" in record]
        assert len(paths) == len(set(paths))
        assert finished <= set(paths)
        finished = set(paths)
        continued += process.returncode == -signal.SIGKILL and bool(finished)  # the next start continues after these
        if process.returncode == 1:  # it was through before the kill: once more from the start
            shutil.rmtree(folder)
            output.unlink()
            for sidecar in many.glob("*.txt"):
                sidecar.unlink()
            finished = set()
    assert continued >= KILLS // 4
    arguments = ["--resume"] if (folder / "manifest.json").exists() else [many, "--output", output, "--sidecar", ".txt"]
    assert command("caption", "--run", folder, *arguments).returncode == 1
    assert lines(output) == lines(plain)
    captions = {record["path"]: record.get("caption") for record in map(json.loads, lines(plain))}
    assert {path.stem: path.read_text() for path in many.glob("*.txt")} == {
        Path(path).stem: f"{caption}\n" for path, caption in captions.items() if caption
    }


def test_doubt_survives_a_run_and_is_counted(tmp_path: Path) -> None:
    """A record comes back from its shard as it was; photos without a caption for its confidence count apart."""
    sure = Caption("a cat", -0.2, (), confidence=0.9)
    label = Caption("a photo of a cat", -0.01, (), confidence=0.99, source="labels")
    labels = (Label("cat", 0.99), Label("sofa", 0.25))
    records = [
        Record("0", "ok", (sure,), 3, 2, "m", confidence=0.9, in_domain=0.8, labels=labels),
        Record("1", "ok", (label, sure), 3, 2, "m", confidence=0.99, in_domain=0.6),
        Record("2", "ok", (Caption("a bus", -2.0, (), confidence=0.1),), 3, 2, "m", confidence=0.1, in_domain=0.4),
        Record("3", "doubtful", (), 3, 2, "m", confidence=0.05, in_domain=0.1),
    ]
    run = runs.Run.create(tmp_path / "run", {}, lambda _: None, None, 100)
    for record in records:
        run.write(record)
    run.close()
    again = runs.Run.resume(tmp_path / "run", lambda _: None, 100)
    assert list(again.records()) == records
    again.close()
    tally = again.tally
    assert (tally.captioned, tally.doubtful, tally.withheld, tally.failed, tally.records) == (3, 1, 1, 0, 4)
    assert list(again.remaining(["0", "3", "4"])) == ["4"]
