"""Messages and progress of a training run."""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from showtell.train.run.checkpoint import Checkpoint


class Reporter(Protocol):
    """Receives the messages and the progress of a run."""

    def message(self, text: str) -> None:
        """Shows one line."""

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """Shows that `done` of `total` steps of `what` are done."""


class Silent:
    """A reporter that shows nothing, for all processes but the first."""

    def message(self, text: str) -> None:
        """See Reporter."""

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """See Reporter."""


class Pace:
    """Speed of a run in photos per second of training, and the time left with all validations."""

    def __init__(self, steps: int, epoch_steps: int) -> None:
        self._left = steps
        self._epoch_steps = epoch_steps
        self._seconds = self._validation = 0.0
        self._photos = self._steps = 0
        self._since = time.monotonic()

    def start(self) -> None:
        """Starts the clock of training, after a validation."""
        self._since = time.monotonic()

    def step(self, photos: int) -> None:
        """Counts one step over `photos` photos."""
        now = time.monotonic()
        self._seconds += now - self._since
        self._since = now
        self._photos += photos
        self._steps += 1
        self._left -= 1

    def validated(self, seconds: float) -> None:
        """Notes the duration of a validation."""
        self._validation = seconds

    @property
    def photos_per_second(self) -> float:
        """Photos, each with all its captions, per second of training."""
        return self._photos / max(self._seconds, 1e-9)

    @property
    def seconds_left(self) -> float:
        """Seconds until the last epoch is measured."""
        return self._left * self._seconds / max(self._steps, 1) + self._validation * -(-self._left // self._epoch_steps)


def duration(seconds: float) -> str:
    """A duration in words: 45 s, 12 min or 3 h 05 min."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def summary(best: Checkpoint, output: Path, data: Sequence[Path], seconds: float) -> list[str]:
    """The last lines of a run: results, and commands to try the model."""
    scores = "  ".join(f"{name} {value:.1f}" for name, value in best.scores.items())
    bundle, run, *photos = (shlex.quote(str(path)) for path in (output / "bundle", output, *data))
    worse = "no epoch is better on dev than the start model, which is kept; try a lower training.learning_rate or more photos"
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
