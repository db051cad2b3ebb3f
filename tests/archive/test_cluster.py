"""The engine `ray`: the records of the local engine, whatever happens to its processes."""

import os
import signal
import socket
import tarfile
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

import showtell
from commands import run as command
from showtell.archive import cluster
from showtell.archive.members import RemotePhoto
from showtell.archive.sinks import to_line
from showtell.errors import MissingExtraError
from showtell.image import ImageSettings
from showtell.types import Record

LOADED = {"model": None, "threads": 1, "device": "cpu", "images": ImageSettings()}


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def comparable(records: list[Record]) -> list[str]:
    return [to_line(record) for record in records]


@pytest.fixture
def many(tmp_path: Path) -> list[str]:
    """Paths of 320 photos, of which 16 are different, and of two that cannot be read."""
    for number in range(16):
        Image.new("RGB", (40, 30), (16 * number, 99, 255 - 16 * number)).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    return [
        *(str(tmp_path / f"{number % 16}.png") for number in range(320)),
        str(tmp_path / "broken.jpg"),
        str(tmp_path / "gone.jpg"),
    ]


def test_ray_writes_what_the_local_engine_writes(album: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar.gz", "w:gz") as tar:
        tar.add(album / "0.jpg", "0.jpg")
        tar.add(album / "broken.jpg", "broken.jpg")
    inputs = ["album", "shard.tar.gz", "no-such.jpg"]  # relative, so that workers must be where the command is
    local, ray = tmp_path / "local.jsonl", tmp_path / "ray.jsonl"
    assert command("caption", *inputs, "--output", local, cwd=tmp_path).returncode == 1
    done = command("caption", *inputs, "--engine", "ray", "--run", "run", "--output", ray, cwd=tmp_path)
    assert done.returncode == 1, done.stderr.decode()
    assert "6 captioned, 3 failed" in done.stderr.decode()
    assert lines(ray) == lines(local)


def test_photos_survive_the_processes_that_caption_them(many: list[str]) -> None:
    captioner = showtell.load(threads=1)
    options = captioner.options(beam_size=1)
    local = comparable(list(captioner.records(many, options)))
    with cluster.start(LOADED, None, 2) as ray:
        assert ray.model == cluster.model_of(captioner)
        assert ray.options(beam_size=1) == options

        def processes() -> list[int]:
            import ray as api

            return [api.get(actor.__ray_call__.remote(lambda self: os.getpid())) for actor in ray._actors]

        before = processes()
        records = ray.records(iter(many), options)
        found = [next(records)]
        for process in before:  # both work on photos now
            os.kill(process, signal.SIGKILL)
        found += records
        assert comparable(found) == local
        assert not set(before) & set(processes())  # others took their place

        deadly = RemotePhoto("memory://deadly.jpg")
        object.__setattr__(deadly, "read", partial(os._exit, 1))
        first, record = ray.records([many[0], deadly], options)
        assert comparable([first]) == local[:1]
        assert (record.path, record.status, record.error_code) == ("memory://deadly.jpg", "error", "unreadable")
        assert "the process that captioned it died" in str(record.error_message)
        with pytest.raises(showtell.OptionError, match="beam_size"):
            ray.options(beam_size=0)


def test_options_of_ray_are_refused_without_it(album: Path, here, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--actors is for --engine ray" in here("caption", album, "--actors", "2")[2]
    assert "--address is for --engine ray" in here("caption", album, "--address", "10.0.0.1:6379")[2]
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingExtraError, match="ray"), cluster.start(LOADED, None, None):
        pass


def test_a_cluster_that_does_not_answer_is_named(album: Path, here) -> None:
    with socket.socket() as taken:  # a port at which nobody listens
        taken.bind(("127.0.0.1", 0))
        for address in (f"127.0.0.1:{taken.getsockname()[1]}", f"ray://127.0.0.1:{taken.getsockname()[1]}"):
            status, _, said = here("caption", album, "--engine", "ray", "--address", address)
            assert status == 2
            assert f"{address}: no cluster answers" in said
            assert "ray start --head" in said
