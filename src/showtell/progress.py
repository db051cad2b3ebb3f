"""Progress of work that takes its time: functions report it, and the command line shows it."""

from typing import Protocol


class Progress(Protocol):
    """Called after each step, with the steps of the work `what` that are done, and all its steps."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Reports `done` of `total` steps."""
        ...


def silent(what: str, done: int, total: int) -> None:
    """The `Progress` that shows nothing."""
