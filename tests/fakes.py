"""Fakes that several tests share."""


class RecordingReporter:
    """A `Reporter` that records messages, and progress as names of work and whole notes.

    With `stop_at` it raises KeyboardInterrupt at the first progress of that work, as a user's interrupt would.
    """

    def __init__(self, stop_at: str | None = None) -> None:
        self.messages: list[str] = []
        self.steps: list[str] = []
        self.notes: list[str] = []
        self._stop_at = stop_at

    def message(self, text: str) -> None:
        self.messages.append(text)

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        self.steps.append(what)
        self.notes.append(f"{what} {done}/{total} {note}")
        if what == self._stop_at:
            raise KeyboardInterrupt
