"""The log of a run: metrics.jsonl, TensorBoard's event files and a plot of the curves.

    {"step": 120, "epoch": 1, "loss": 4.31, "learning_rate": 0.0009, "gradient_norm": 0.8, "photos_per_second": 260.1}
    {"epoch": 1, "step": 188, "loss": 4.02, "seconds": 95.1, "dev_loss": 3.71, "scores": {"CIDEr": 31.2, ...},
     "examples": {photo: caption}}

The first kind of line has means over the steps since the line before it, the second over an epoch. Epoch 0 is the start model
and has no loss. Losses are in nats per word (or per unit that the objective counts). `dev_loss` is the plain cross-entropy of
the dev captions, without dropout, label smoothing and loss weights: it is below `loss` until the model over-fits.
"""

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from showtell.files import replacing
from showtell.train.run.display import Reporter

DRAWN_EVERY = 20  # seconds at least between two plots, as a plot takes half a second


class RunLog:
    """The log of one run from step `step` on; lines that an interrupted run wrote after that step are removed."""

    def __init__(self, folder: Path, step: int, report: Reporter) -> None:
        self._folder = folder
        path = folder / "metrics.jsonl"
        self._lines = [line for line in read(path) if line["step"] <= step]
        with replacing(path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in self._lines), encoding="utf-8")
        # Written line by line, so that a run can be watched from its first step on.
        self._file = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 - closed by __exit__
        self._drawn = time.monotonic()
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(folder / "tensorboard", purge_step=step + 1)
        except ImportError:
            report.message("no TensorBoard files: pip install tensorboard")

    def steps(self, step: int, epoch: int, figures: Mapping[str, float]) -> None:
        """Logs figures of the steps up to `step`."""
        self._add({"step": step, "epoch": epoch, **figures})
        if self._board is not None:
            for name, value in figures.items():
                self._board.add_scalar(f"train/{name}", value, step)

    def epoch(self, entry: Mapping[str, Any]) -> None:
        """Logs figures, scores and examples of an epoch; see the top of this file."""
        self._add(entry)
        if self._board is not None:
            self._board.add_scalar("dev/loss", entry["dev_loss"], entry["step"])
            for name, value in entry["scores"].items():
                self._board.add_scalar(f"dev/{name}", value, entry["step"])
            text = "\n\n".join(f"{photo}: {caption}" for photo, caption in entry["examples"].items())
            self._board.add_text("dev/captions", text, entry["step"])
            self._board.flush()
        if time.monotonic() - self._drawn > DRAWN_EVERY:
            self._draw()

    def flush(self) -> None:
        """Syncs the lines so far to disk, before a checkpoint that counts on them."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()
        self._draw()

    def _add(self, line: Mapping[str, Any]) -> None:
        self._lines.append(dict(line))
        self._file.write(json.dumps(line) + "\n")

    def _draw(self) -> None:
        with suppress(ImportError):  # without matplotlib there is no plot
            draw(self._lines, self._folder / "curves.png")
        self._drawn = time.monotonic()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl without a truncated last one; none where the file does not exist."""
    lines = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                lines.append(json.loads(line))
    return lines


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """Plots the loss by step and the dev scores by epoch, as a PNG."""
    from matplotlib.figure import Figure

    steps = [line for line in lines if "scores" not in line]
    epochs = [line for line in lines if "scores" in line]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([line["step"] for line in steps], [line["loss"] for line in steps], linewidth=0.8, label="train")
    trained = [line for line in epochs if "loss" in line]  # not the start model's
    left.plot([line["step"] for line in trained], [line["loss"] for line in trained], "o-", label="mean of the epoch")
    measured = [line for line in epochs if "dev_loss" in line]  # lines of older versions have none
    left.plot([line["step"] for line in measured], [line["dev_loss"] for line in measured], "o-", label="dev, cross-entropy")
    left.set(xlabel="step", ylabel="loss")
    for name in ("CIDEr", "BLEU-4"):
        right.plot([line["epoch"] for line in epochs], [line["scores"][name] for line in epochs], "o-", label=f"dev {name}")
    right.set(xlabel="epoch", ylabel="score x100")
    for axes in (left, right):
        axes.legend()
        axes.grid(alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
