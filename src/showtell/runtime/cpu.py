"""The number of processors for this process: its CPU affinity, and the CPU quota of its container.

Linux's control groups limit a container's processor time, not the processors that it sees: `docker run --cpus 2` on a machine
of 64 still shows 64. As many threads would be stopped most of the time, all at once.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path


def available_cpus(root: Path = Path("/")) -> int:
    """Processors to use, at least 1; `root` is where /proc and /sys are."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([affinity, *(math.ceil(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """Processors' worth of time that each control group around this process allows; nothing where there is no limit."""
    for line in _lines(root / "proc/self/cgroup"):
        # Version 2 has one line, `0::/path`; version 1 one for each controller, such as `4:cpu,cpuacct:/path`.
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / controllers
        # A limit holds for all groups below. Inside a container the path may be the host's; its own group is the mount then.
        group = mount / path.lstrip("/")
        for folder in [group, *group.parents]:
            if controllers:
                numbers = [*_lines(folder / "cpu.cfs_quota_us"), *_lines(folder / "cpu.cfs_period_us")]
            else:
                numbers = " ".join(_lines(folder / "cpu.max")).split()
            if len(numbers) == 2 and numbers[0] not in ("max", "-1") and int(numbers[1]) > 0:
                yield int(numbers[0]) / int(numbers[1])
            if folder == mount:
                break


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, ValueError):
        return []
