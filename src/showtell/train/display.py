"""What a person sees of a run while it goes."""

from typing import Protocol


class Reporter(Protocol):
    """Who is told how a run goes."""

    def message(self, text: str) -> None:
        """Something worth a line."""

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` steps of `what`."""
