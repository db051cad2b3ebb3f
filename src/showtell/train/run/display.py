"""What a person sees of a run while it goes, and at its end."""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from showtell.train.run.checkpoint import Checkpoint


class Reporter(Protocol):
    """Who is told how a run goes."""

    def message(self, text: str) -> None:
        """Something worth a line."""

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` steps of `what`."""


class Silent:
    """Tells nobody: for all processes but the first."""

    def message(self, text: str) -> None:
        """See Reporter."""

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """See Reporter."""


class Pace:
    """How fast a run goes: photos per second of training, and the time that is left with its validations."""

    def __init__(self, steps: int, epoch_steps: int) -> None:
        self._left = steps
        self._epoch_steps = epoch_steps
        self._seconds = self._validation = 0.0
        self._photos = self._steps = 0
        self._since = time.monotonic()

    def start(self) -> None:
        """The clock of training goes on, after a pause for validation."""
        self._since = time.monotonic()

    def step(self, photos: int) -> None:
        """One step over so many photos is done."""
        now = time.monotonic()
        self._seconds += now - self._since
        self._since = now
        self._photos += photos
        self._steps += 1
        self._left -= 1

    def validated(self, seconds: float) -> None:
        """A validation took so long."""
        self._validation = seconds

    @property
    def photos_per_second(self) -> float:
        """Photos, each with all its captions, that training reads in a second."""
        return self._photos / max(self._seconds, 1e-9)

    @property
    def seconds_left(self) -> float:
        """Until the last epoch is measured."""
        return self._left * self._seconds / max(self._steps, 1) + self._validation * -(-self._left // self._epoch_steps)


def duration(seconds: float) -> str:
    """Such as 45 s, 12 min or 3 h 05 min."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def summary(best: Checkpoint, output: Path, data: Sequence[Path], seconds: float) -> list[str]:
    """The lines that end a run: what came out, and the commands to try it."""
    scores = "  ".join(f"{name} {value:.1f}" for name, value in best.scores.items())
    bundle, run, *photos = (shlex.quote(str(path)) for path in (output / "bundle", output, *data))
    worse = (
        "no epoch made the start model better on dev: it is the best; a lower training.learning_rate or more photos may help"
    )
    return [
        *([worse] if best.epoch == 0 else []),
        f"trained in {duration(seconds)}; best: {best.path} (epoch {best.epoch})",
        f"dev scores: {scores}",
        f"curves: {output / 'curves.png'}, figures: {output / 'metrics.jsonl'}, more: tensorboard --logdir {run}",
        "to try it:",
        f"  showtell export {run} --output {bundle} --quantize int8 --calibration {photos[0]}",
        f"  showtell caption PHOTO --model {bundle}",
        f"  showtell evaluate {' '.join(f'--data {each}' for each in photos)} --split dev --model {bundle}",
    ]
