"""The pipeline over mock stages: order, bounds, failures and ends; and the processors that it may use."""

import gc
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from showtell.runtime.cpu import available_cpus
from showtell.runtime.pipeline import Sizes, stream

SIZES = [Sizes(batch=4, searched=2, threads=2, workers=3), Sizes(batch=1, searched=1, threads=1, workers=1), Sizes(8, 4, 3, 2)]


def read(number: int) -> int:
    time.sleep(random.random() / 1000)  # so that threads overtake each other
    return number


def encode(batch):
    time.sleep(random.random() / 1000)
    return [number * 10 for number in batch]


def search(batches):
    return [number + 1 for batch in batches for number in batch]


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("showtell")}


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert not threads()


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 37, 100])
def test_equals_doing_one_after_another(sizes: Sizes, count: int) -> None:
    expected = [number * 10 + 1 for number in range(count)]
    assert list(stream(range(count), read, encode, search, sizes)) == expected  # of known length
    assert list(stream(iter(range(count)), read, encode, search, sizes)) == expected


@pytest.mark.parametrize("sizes", SIZES)
def test_what_is_in_flight_is_bounded(sizes: Sizes) -> None:
    taken = given = most = 0

    def source() -> Iterator[int]:
        nonlocal taken, most
        for number in range(300):
            taken += 1
            most = max(most, taken - given)
            yield number

    for _ in stream(source(), read, encode, search, sizes):
        given += 1
        if given % 50 == 0:
            time.sleep(0.02)  # a slow reader of results
    assert given == taken == 300
    assert most <= sizes.batch * sizes.in_flight


def test_a_search_gets_several_batches_and_a_few_photos_are_shared_out() -> None:
    batches, searches = [], []

    def note_encode(batch):
        batches.append(len(batch))
        return encode(batch)

    def note_search(found):
        searches.append(len(found))
        return search(found)

    sizes = Sizes(batch=4, searched=3, threads=2, workers=2)
    list(stream(iter(range(48)), read, note_encode, note_search, sizes))
    assert sum(batches) == 48
    assert max(searches) == 3
    assert searches.count(3) >= 3
    batches.clear()
    list(stream(range(6), read, note_encode, note_search, sizes))
    assert sorted(batches) == [3, 3]


@pytest.mark.parametrize("failing", ["source", "read", "encode", "search"])
def test_an_exception_of_any_stage_comes_out_and_ends_all(failing: str) -> None:
    def checked(stage, function):
        def run(argument):
            if stage == failing and "40" in str(argument):
                raise ArithmeticError(stage)
            return function(argument)

        return run

    def source() -> Iterator[int]:
        for number in range(1000):
            if failing == "source" and number == 40:
                raise ArithmeticError("source")
            yield number

    sizes = Sizes(batch=2, searched=2, threads=2, workers=2)
    results = stream(source(), checked("read", read), checked("encode", encode), checked("search", search), sizes)
    found = []
    with pytest.raises(ArithmeticError, match=failing):
        found.extend(results)
    assert found == [number * 10 + 1 for number in range(len(found))]


def test_closing_early_begins_nothing_new() -> None:
    begun = 0

    def note(number: int) -> int:
        nonlocal begun
        begun += 1
        return read(number)

    results = stream(iter(range(10_000)), note, encode, search, SIZES[0])
    assert next(results) == 1
    assert threads()
    results.close()
    assert not threads()
    after = begun
    time.sleep(0.02)
    assert begun == after <= SIZES[0].batch * SIZES[0].in_flight

    results = stream(iter(range(10_000)), note, encode, search, SIZES[0])
    next(results)
    del results  # forgotten and not closed
    gc.collect()
    assert not threads()


def test_what_a_slow_source_gives_comes_out_before_it_is_asked_again() -> None:
    taken = 0

    def source() -> Iterator[int]:
        nonlocal taken
        for number in range(4):
            time.sleep(0.3)
            taken += 1
            yield number

    for sizes in SIZES:
        taken = 0
        for given, result in enumerate(stream(source(), read, encode, search, sizes), start=1):
            assert taken == given
            assert result == 10 * (given - 1) + 1
        assert taken == 4


def test_photos_that_came_before_a_pause_come_out_at_its_end() -> None:
    """A fast part of the source fills batches; what waits for more does so no longer than the source does."""
    taken = 0

    def source() -> Iterator[int]:
        nonlocal taken
        for number in range(30):
            if number == 9:
                time.sleep(0.4)
            taken += 1
            yield number

    results = stream(source(), read, encode, search, SIZES[0])
    assert [next(results) for _ in range(10)] == [10 * number + 1 for number in range(10)]
    assert taken == 10
    assert len(list(results)) == 20


def test_closing_tells_the_stages_to_stop() -> None:
    stopped = threading.Event()
    begun = threading.Event()

    def long_search(batches):
        if 80 in batches[0]:
            begun.set()
            assert stopped.wait(60)
        return search(batches)

    results = stream(iter(range(10_000)), read, encode, long_search, SIZES[1], stopped)
    assert next(results) == 1
    for _ in range(7):
        next(results)
    assert begun.wait(60)
    results.close()
    assert stopped.is_set()


def test_an_interrupt_in_the_callers_thread_ends_it() -> None:
    def source() -> Iterator[int]:
        yield from range(50)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(stream(source(), read, encode, search, SIZES[0]))


def test_nothing_runs_before_the_first_result_is_asked_for() -> None:
    stream(iter(range(10)), read, encode, search, SIZES[0])
    assert not threads()


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 64),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 64),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),  # one thread could not use it up
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "9900000 100000\n"}, 64),
        # the limit of a group around ours
        (
            {
                "proc/self/cgroup": "0::/slice/unit\n",
                "sys/fs/cgroup/slice/cpu.max": "300000 100000\n",
                "sys/fs/cgroup/slice/unit/cpu.max": "max 100000\n",
            },
            3,
        ),
        # version 1, whose path is the host's and not to be seen from inside
        (
            {
                "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/docker/abc\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            64,
        ),
    ],
)
def test_a_containers_quota_is_honoured(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert available_cpus(write(tmp_path, files)) == expected


def test_affinity_is_honoured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 7}, raising=False)
    quota = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "800000 100000\n"}
    assert available_cpus(write(tmp_path, quota)) == 2
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert available_cpus(tmp_path / "elsewhere") == 1
