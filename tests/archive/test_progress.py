"""What a run says of itself while it goes on, and at its end."""

import time
from pathlib import Path

import pytest

from showtell.archive import progress
from showtell.archive.job import Tally
from showtell.archive.progress import Progress
from showtell.archive.sources import Selection
from showtell.cli.console import Console
from showtell.types import Caption, Record

OK = Record("a.jpg", "ok", (Caption("a dog", -1.0, ()),))
LOST = Record("b.jpg", "error", error_code="not-found", error_message="b.jpg: no such file")


class Recording:
    def __init__(self) -> None:
        self.lines: list[tuple[int, int | None, str]] = []

    def progress(self, what: str, done: int, total: int | None, note: str = "") -> None:
        self.lines.append((done, total, note))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_rate_errors_and_time_left_once_the_inputs_are_counted(album: Path, clock: list[float]) -> None:
    report, tally = Recording(), Tally()
    shown = Progress(report, tally, [str(album)], Selection(), countable=True)
    tally.add(OK)
    tally.add(LOST)
    clock[0] = 1.0
    shown.update()
    assert report.lines[-1] == (2, None, "2.0/s, 1 failed")
    clock[0] = 4.0
    shown.update()
    while shown._total is None:
        time.sleep(0.001)
    shown.update(before=1)
    assert report.lines[-1] == (3, 6, "0.5/s, 1 failed, 6 s left")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (600, "10 min"), (3600 * 5 + 120, "5 h 2 min")])
def test_durations_in_words(seconds: float, text: str) -> None:
    assert progress._duration(seconds) == text


def test_a_line_of_progress_without_a_total(capsys: pytest.CaptureFixture[str]) -> None:
    with Console(every=0) as console:
        console.progress("captioning", 7, None, "2.0/s")
        console.progress("captioning", 8, 9, "2.0/s")
    assert capsys.readouterr().err == "captioning 7  2.0/s\ncaptioning 8/9  2.0/s\n"


def test_the_end_counts_errors_by_code(album: Path, tmp_path: Path, here) -> None:
    status, _, errors = here("caption", album, album / "absent.jpg", "--output", tmp_path / "a.jsonl")
    assert status == 1
    assert "5 captioned, 2 failed in " in errors
    counts = [line.split() for line in errors.splitlines() if line.startswith("  ")]
    assert sorted(count for count in counts if count[1] != "doubtful") == [
        ["1", "not-found"],
        ["1", "truncated"],
    ]
