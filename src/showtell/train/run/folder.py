"""A run's folder: locked by one process, and checked for permissions and room before training begins.

recipe.json         the recipe
data.json           folders of the data sets, and the options to read them with
words.json          words that the start model lacks, with their counts; with `init` only
borrowed.jsonl      captions that train photos borrow; with `text.files` only
metrics.jsonl       figures of steps and epochs
curves.png          the same, as a plot
tensorboard/        the same, for TensorBoard
checkpoints/        see train.run.checkpoint
"""

import errno
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from showtell.data import Columns
from showtell.errors import OutputError, RecipeError
from showtell.files import write_json
from showtell.train.recipe import Recipe

try:
    import fcntl
except ImportError:  # Windows, where two processes are not kept out of one folder
    fcntl = None  # type: ignore[assignment]


@contextmanager
def claimed(output: Path, recipe: Recipe, resume: bool) -> Iterator[None]:
    """Within the block this process holds the folder's lock; the folder is writable and its recipe.json is `recipe`.

    The system releases the lock when the process ends. Raises OutputError where the folder cannot be written, another process
    trains in it, or it holds a run and `resume` is not set. Raises RecipeError where that run has another recipe; `recipe` may
    have more epochs.
    """
    with ExitStack() as stack:
        try:
            (output / "checkpoints").mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(output / ".lock", wait=False))
        except BlockingIOError:
            raise OutputError(f"{output}: another process is training here; wait for it or give another folder") from None
        except OSError as error:
            raise OutputError(f"{output}: cannot be written ({error.strerror}); give another folder") from None
        _check(output, recipe, resume)
        yield


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Within the block this process holds the lock file; while another holds it, waits or raises BlockingIOError."""
    with open(path, "a") as lock:
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):  # a file system without locks
                raise
        yield


def remember(output: Path, data: Sequence[Path], columns: Columns | None, **reading: Any) -> None:
    """Writes data.json, so that `--resume` needs no other option."""
    places = [str(path.absolute()) for path in data]
    write_json(output / "data.json", {"data": places, "columns": asdict(columns or Columns()), **reading})


def recall(output: Path) -> dict[str, Any]:
    """The content of data.json. Raises OutputError where the folder holds no run, or a run without that file."""
    file = output / "data.json"
    if not (output / "recipe.json").is_file():
        raise OutputError(f"{output}: holds no run to resume; give its folder, or RECIPE and --data DIR to begin one")
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{file}: cannot be read ({error}); name the run's data with --data DIR") from None
    return found


def check_room(output: Path, checkpoint_bytes: int) -> None:
    """Raises OutputError where the disk has no room for the checkpoints of a run, and one more while it is written."""
    present = sum(1 for path in (output / "checkpoints").glob("[!.]*") if path.is_dir())
    needed = max(1, 4 - present) * checkpoint_bytes
    free = shutil.disk_usage(output).free
    if free < needed:
        raise OutputError(
            f"{output}: {free / 1e6:.0f} MB are free and the checkpoints will take {needed / 1e6:.0f} MB; "
            "make room or give a folder on another disk"
        )


def _check(output: Path, recipe: Recipe, resume: bool) -> None:
    file = output / "recipe.json"
    values = recipe.model_dump()
    if file.exists() and (output / "metrics.jsonl").exists():  # a run that failed before its first step left nothing to lose
        if not resume:
            raise OutputError(f"{output}: holds a training run; continue it with --resume or give another folder")
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OutputError(f"{file}: cannot be read ({error}); give another folder") from None
        epochs = _value(found, "training.epochs")
        longer = isinstance(epochs, int) and recipe.training.epochs > epochs
        if changed := [key for key in recipe.differences(found) if key != "training.epochs" or not longer]:
            key = changed[0]
            raise RecipeError(
                f"{output}: was trained by another recipe: {key} was {_value(found, key)!r} and is now {_value(values, key)!r}"
            )
    try:
        write_json(file, values)
        (output / "checkpoints" / ".probe").mkdir(exist_ok=True)
        (output / "checkpoints" / ".probe").rmdir()
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror}); give another folder") from None


def _value(values: object, key: str) -> object:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values
