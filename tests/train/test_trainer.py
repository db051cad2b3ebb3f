"""Runs that people can rely on: killed, resumed, spread over processes, out of disk, diverging; and what they leave to read."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from fakes import RecordingReporter
from showtell.bundle import Bundle
from showtell.cli.console import Console
from showtell.cli.main import cli
from showtell.data import read as read_dataset
from showtell.errors import CacheError, CheckpointError, DataError, OptionError, OutputError, RecipeError, TrainingError
from showtell.export import export
from showtell.nn.model import CaptionModel
from showtell.text import tokenize
from showtell.train import build
from showtell.train.averaging import MovingAverage, average
from showtell.train.build import build_inputs, dev_set, seeds
from showtell.train.inputs.batches import Batch, Batches
from showtell.train.inputs.inputs import Inputs, Reading
from showtell.train.objectives.cross_entropy import CrossEntropy, Loss
from showtell.train.objectives.distillation import Distillation
from showtell.train.recipe import Recipe, describe_keys, describe_recipes, keys
from showtell.train.run import checkpoint
from showtell.train.run.display import Pace, duration
from showtell.train.run.folder import claimed
from showtell.train.run.log import RunLog, read
from showtell.train.train import train
from showtell.train.validation import validate
from showtell.types import Sample
from showtell.vocabulary import BEGIN, END

RUNS = ("one", "parts", "two")
VARIABLE = ("seconds", "photos_per_second")  # what differs between two runs that are the same


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One feature cache for all runs here over the same photos."""
    return tmp_path_factory.mktemp("features")


def sets(cache: Path, *more: str, photos: int = 24) -> list[str]:
    """Overrides of the debug recipe: two epochs of three batches."""
    return [f"encoder.cache={cache / str(photos)}", f"training.max_photos={photos}", "training.epochs=2", *more]


def figures(run: Path) -> list[dict[str, object]]:
    """The lines of a run's metrics.jsonl without the times."""
    return [{key: value for key, value in line.items() if key not in VARIABLE} for line in read(run / "metrics.jsonl")]


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read(run / "metrics.jsonl") if "scores" not in line]


def weights(run: Path) -> dict[str, Tensor]:
    newest = checkpoint.newest(run, print)
    assert newest is not None
    return checkpoint.load_tensors(newest.path / "model.safetensors")


# --- killed and resumed

KILLED = """
import os, signal, sys
from pathlib import Path
from showtell.train.train import train
from showtell.train.recipe import Recipe
data, output, resume, moment, *sets = sys.argv[1:]

class Killer:
    def message(self, text):
        if text.startswith(moment): os.kill(os.getpid(), signal.SIGKILL)
    def progress(self, what, done, total, note=""):
        if f"{what} step {done}" == moment: os.kill(os.getpid(), signal.SIGKILL)

train(Recipe.load("debug", sets), Path(data), Path(output), resume=bool(resume), report=Killer())
"""


def killed(shapes: Path, output: Path, overrides: Sequence[str], moment: str, *, resume: bool) -> None:
    """A run in a process of its own that dies of SIGKILL at `moment`."""
    arguments = [str(shapes), str(output), "yes" if resume else "", moment, *overrides]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, timeout=600, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def test_a_killed_run_goes_on_as_if_nothing_had_happened(shapes: Path, cache: Path, tmp_path: Path) -> None:
    # Everything that has a state: dropout, an average of the weights, accumulation, sums over several steps.
    recipe = ["decoder.dropout=0.3", "training.ema_decay=0.9", "training.accumulate=2", "training.log_every=2"]
    overrides = sets(cache, *recipe, "training.photos_per_batch=4", "training.checkpoint_minutes=1e-9")
    train(Recipe.load("debug", overrides), shapes, tmp_path / "whole", resume=False, report=RecordingReporter())

    run = tmp_path / "cut"
    killed(shapes, run, overrides, "epoch 1 step 5", resume=False)
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["step-0000002", "step-0000004"]
    with open(run / "metrics.jsonl", "a") as file:  # lines that no checkpoint knows of, the last one half written
        file.write('{"step": 5, "epoch": 1, "loss": 9.0}\n{"step": 6, "ep')
    killed(shapes, run, overrides, "epoch 1:", resume=True)
    assert checkpoint.newest(run, print).path.name == "epoch-001"
    log = RecordingReporter()
    train(Recipe.load("debug", overrides), shapes, run, resume=True, report=log)
    assert any("epoch-001: epoch 2, step 0" in message for message in log.messages)

    assert [line["step"] for line in figures(run)] == [2, 4, 6, 6, 8, 10, 12, 12]
    assert figures(run) == figures(tmp_path / "whole")
    ours, theirs = weights(run), weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    before = (run / "metrics.jsonl").read_bytes()
    again = train(
        Recipe.load("debug", overrides), shapes, run, resume=True, report=RecordingReporter()
    )  # nothing is left to do
    assert again.path == checkpoint.best(run).path
    assert (run / "metrics.jsonl").read_bytes() == before


def test_the_same_seed_gives_the_same_run_and_another_does_not(shapes: Path, cache: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        # The encoder's random weights follow from the seed too, hence the caches.
        recipe = Recipe.load("debug", sets(cache / f"seed-{seed}", f"seed={seed}", "decoder.dropout=0.3"))
        train(recipe, shapes, tmp_path / name, resume=False, report=RecordingReporter())
    assert figures(tmp_path / "a") == figures(tmp_path / "b")
    assert losses(tmp_path / "a") != losses(tmp_path / "c")


def test_a_run_that_goes_on_draws_anew(learnt: Path) -> None:
    fresh, going_on = Recipe.load("debug"), Recipe.load("debug", [f"init={learnt}"])
    one = checkpoint.find(learnt).load_model()
    two = checkpoint.find(learnt).load_model()
    with torch.no_grad():
        two.decoder.vocabulary_bias[0] += 1e-3
    assert seeds(fresh, one) == (1,)  # a new model's draws are those of its seed
    assert len({seeds(recipe, model) for recipe in (fresh, going_on) for model in (one, two)}) == 3
    assert seeds(going_on, one) == seeds(going_on, checkpoint.find(learnt).load_model())  # or it could not be resumed


def test_order_views_and_dropout_follow_from_those_draws(
    learnt: Path, shapes: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropout: list[int] = []
    orders: list[tuple[str, ...]] = []
    plain = torch.manual_seed

    class Watched(Batches):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            orders.append(tuple(name for batch in self.epoch(1) for part in batch.parts for name in part.names))

    def seeded(number: int) -> torch.Generator:
        dropout.append(number)
        return plain(number)

    monkeypatch.setattr(build, "Batches", Watched)
    monkeypatch.setattr(torch, "manual_seed", seeded)
    for name, start in (("new", []), ("on", [f"init={learnt}"]), ("again", [f"init={learnt}"])):
        recipe = Recipe.load("debug", sets(cache, "training.epochs=1", *start))
        train(recipe, shapes, tmp_path / name, resume=False, report=RecordingReporter())
    new, on, again = (dropout[n * len(dropout) // 3 : (n + 1) * len(dropout) // 3] for n in range(3))
    assert on == again
    assert new[0] == on[0] == 1  # before the first step, for the weights of what is new
    assert len(on) > 1
    assert not set(new[1:]) & set(on[1:])
    assert orders[1] == orders[2] != orders[0]


def test_damaged_checkpoints_are_set_aside(shapes: Path, cache: Path, tmp_path: Path) -> None:
    class Keeping(RecordingReporter):
        def message(self, text: str) -> None:
            if text.startswith("epoch 2:"):  # the third epoch removes the first one's, unless it is the best
                shutil.copytree(tmp_path / "whole" / "checkpoints" / "epoch-001", tmp_path / "epoch-001")

    recipe = Recipe.load("debug", sets(cache, "training.epochs=3"))
    train(recipe, shapes, tmp_path / "whole", resume=False, report=Keeping())
    run = Path(shutil.copytree(tmp_path / "whole", tmp_path / "run"))
    places = run / "checkpoints"
    shutil.copytree(tmp_path / "epoch-001", places / "epoch-001", dirs_exist_ok=True)
    (places / ".step-0000009.partial").mkdir()
    cut = places / "epoch-003" / "training.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1])
    config = places / "epoch-002" / "config.json"
    config.write_bytes(config.read_bytes()[:100])
    log = RecordingReporter()
    train(recipe, shapes, run, resume=True, report=log)
    told = [message for message in log.messages if message.startswith("not used")]
    assert len(told) == 2
    assert "epoch-002/config.json" in told[0]
    assert "epoch-003/training.safetensors: cut short" in told[1]
    assert any("epoch-001: epoch 2, step 0" in message for message in log.messages)
    assert figures(run) == figures(tmp_path / "whole")
    assert {path.name for path in places.glob("[!.]*")} == {
        path.name for path in (tmp_path / "whole" / "checkpoints").iterdir()
    }
    assert not list(places.glob("*.partial"))


def test_a_full_disk_leaves_the_checkpoints_before_it(shapes: Path, cache: Path, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Filling(RecordingReporter):
        def progress(self, what: str, done: int, total: int, note: str = "") -> None:
            if what == "epoch 2":  # no file can grow beyond this, whatever disk the test has
                resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))

    recipe = Recipe.load("debug", sets(cache))
    try:
        with pytest.raises(OutputError, match=r"epoch-002: cannot be written .*--resume"):
            train(recipe, shapes, tmp_path / "run", resume=False, report=Filling())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["epoch-001"]
    train(recipe, shapes, tmp_path / "run", resume=True, report=RecordingReporter())
    assert [line["step"] for line in figures(tmp_path / "run")] == [1, 2, 3, 3, 4, 5, 6, 6]


def test_an_unusable_folder_is_refused_before_the_work(
    shapes: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe.load("debug", sets(cache))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        train(recipe, shapes, tmp_path / "file" / "run", resume=False, report=RecordingReporter())
    with claimed(tmp_path / "busy", recipe, resume=False), pytest.raises(OutputError, match="another process"):
        train(recipe, shapes, tmp_path / "busy", resume=True, report=RecordingReporter())
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    log = RecordingReporter()
    with pytest.raises(OutputError, match="1 MB are free"):
        train(recipe, shapes, tmp_path / "small", resume=False, report=log)
    assert not any(note.startswith(("features", "epoch")) for note in log.notes)


def test_a_feature_cache_that_will_not_fit_is_refused(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    places = usage._replace(free=20_000_000), usage._replace(free=1_000)  # for the run's folder, then for the cache
    found = iter(places)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: next(found))
    with pytest.raises(CacheError, match="0 MB are free and the features will take 1 MB"):
        train(
            Recipe.load("debug", sets(tmp_path / "cache")), shapes, tmp_path / "run", resume=False, report=RecordingReporter()
        )


def test_a_run_goes_on_by_the_same_recipe_only(shapes: Path, cache: Path, tmp_path: Path) -> None:
    with claimed(tmp_path, Recipe.load("debug"), resume=False):
        (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(RecipeError, match=r"training\.learning_rate was 0\.005 and is now 0\.1"):
        train(Recipe.load("debug", ["training.learning_rate=0.1"]), shapes, tmp_path, resume=True, report=RecordingReporter())
    with claimed(tmp_path, Recipe.load("debug", ["encoder.cache=elsewhere", "training.patience=3"]), resume=True):
        assert json.loads((tmp_path / "recipe.json").read_text())["encoder"]["cache"] == "elsewhere"


def test_captions_that_changed_are_not_gone_on_with(shapes: Path, cache: Path, tmp_path: Path) -> None:
    data, run = Path(shutil.copytree(shapes, tmp_path / "data")), tmp_path / "run"
    recipe = Recipe.load("debug", sets(cache))
    train(recipe, data, run, resume=False, report=RecordingReporter())
    file = data / "Flickr8k.token.txt"
    whole, before = file.read_text(), {path: path.read_bytes() for path in run.rglob("model.safetensors")}
    for old, new, told in (
        ("there is a red square", "there is a red zebra square", ": 14 words then, 15 now"),
        ("fence", "zebra", ": 14 words then, 14 now"),  # as many words, in another order
        ("there is a", "there a is", r"\."),  # the same words
    ):
        file.write_text(whole.replace(old, new))
        with pytest.raises(DataError, match=f"began with{told}.*init={run}"):
            train(recipe, data, run, resume=True, report=RecordingReporter())
        assert before == {path: path.read_bytes() for path in run.rglob("model.safetensors")}
    file.write_text(whole)
    names = (data / "Flickr_8k.devImages.txt").read_text()
    (data / "Flickr_8k.devImages.txt").write_text(names.splitlines()[0])  # a photo is gone from dev
    with pytest.raises(DataError, match="not those that the run began with"):
        train(recipe, data, run, resume=True, report=RecordingReporter())
    (data / "Flickr_8k.devImages.txt").write_text(names)
    log = RecordingReporter()
    train(recipe, data, run, resume=True, report=log)
    assert not any("photos have changed" in message for message in log.messages)
    shutil.copy(data / "images" / "blue-cross-0.jpg", data / "images" / "red-fence-0.jpg")
    train(recipe, data, run, resume=True, report=log)
    assert "photos have changed since the run began: it resumes with them as they are now" in log.messages
    assert (run / "data.json").read_text().count(str(data)) == 1


def test_a_finished_run_is_made_longer(shapes: Path, cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(Recipe.load("debug", sets(cache)), shapes, run, resume=False, report=RecordingReporter())
    before, log = figures(run), RecordingReporter()
    best = train(Recipe.load("debug", sets(cache, "training.epochs=4")), shapes, run, resume=True, report=log)
    assert figures(run)[: len(before)] == before
    assert [line["epoch"] for line in figures(run) if "scores" in line] == [1, 2, 3, 4]
    assert read(run / "metrics.jsonl")[len(before)]["learning_rate"] > 1e-3  # in the middle of the longer cycle, not at its end
    assert "4 epochs instead of 2" in "".join(log.messages)
    assert best.path == checkpoint.best(run).path
    with pytest.raises(RecipeError, match=r"training\.epochs was 4 and is now 3"):
        train(Recipe.load("debug", sets(cache, "training.epochs=3")), shapes, run, resume=True, report=RecordingReporter())
    other = Recipe.load("debug", sets(cache, "training.epochs=5", "training.warmup=0.3"))
    with pytest.raises(RecipeError, match=r"training\.warmup was 0\.15"):
        train(other, shapes, run, resume=True, report=RecordingReporter())


def test_a_run_knows_its_recipe_and_its_data(
    shapes: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = Path(shutil.copytree(shapes, tmp_path / "data")), tmp_path / "run"
    lines = [line.split("\t") for line in (data / "Flickr8k.token.txt").read_text().splitlines()]
    rows = [f"images/{name.partition('#')[0]};{text}".replace(";", ",") for name, text in lines]
    for file in data.glob("Flickr*"):
        file.unlink()
    (data / "table.csv").write_text("\n".join(["bild,satz", *rows]))
    given = ["--image-column", "bild", "--caption-column", "satz", "--split-seed", "5"]
    overrides = [word for each in sets(cache) for word in ("--set", each)]

    def command(*words: object) -> Any:
        return CliRunner().invoke(cli, ["train", *map(str, words)])

    monkeypatch.chdir(tmp_path)
    done = command("debug", "--data", "data", "--output", run, *given, *overrides)
    assert done.exit_code == 0, done.output
    assert "drawn by photo with seed 5" in done.stderr
    monkeypatch.chdir(data)  # the data's path was relative
    done = command("--resume", "--output", run, "--set", "training.epochs=3")
    assert done.exit_code == 0, done.output
    assert "drawn by photo with seed 5" in done.stderr
    assert [line["epoch"] for line in figures(run) if "scores" in line] == [1, 2, 3]
    assert command("--resume", "--output", tmp_path / "none").exception.args[0].endswith("to begin one")
    (run / "data.json").unlink()  # as in runs of earlier versions
    error = command("--resume", "--output", run).exception
    assert isinstance(error, OutputError)
    assert "--data DIR" in str(error)
    assert command("--output", run).exit_code == 2


def test_the_start_model_is_the_best_where_no_epoch_is_better(learnt: Path, shapes: Path, cache: Path, tmp_path: Path) -> None:
    log, run = RecordingReporter(), tmp_path / "run"
    worse = [f"init={learnt}", "training.learning_rate=0.3", "training.warmup=0", "training.divergence=0", "training.epochs=5"]
    recipe = Recipe.load("debug", sets(cache, *worse, "training.patience=2"))
    best = train(recipe, shapes, run, resume=False, report=log)
    epochs = [line for line in figures(run) if "scores" in line]
    assert [line["epoch"] for line in epochs] == [0, 1, 2]  # and patience counts from the start model
    assert "loss" not in epochs[0]
    assert epochs[0]["scores"]["CIDEr"] > 300 > epochs[1]["scores"]["CIDEr"]
    assert best.path.name == "epoch-000"
    assert best.scores == epochs[0]["scores"]
    start, found = (checkpoint.find(path).load_model().networks().state_dict() for path in (learnt, run))
    assert all(torch.equal(found[name], value) for name, value in start.items())
    assert any("no epoch is better on dev than the start model" in message for message in log.messages)
    assert any(message.startswith("start model:  dev loss ") for message in log.messages)
    assert (run / "curves.png").exists()


def test_a_run_killed_in_its_first_epoch_goes_on_from_the_start_model(
    learnt: Path, shapes: Path, cache: Path, tmp_path: Path
) -> None:
    overrides = sets(cache, f"init={learnt}", "training.ema_decay=0.9", "training.learning_rate=1e-4")
    train(Recipe.load("debug", overrides), shapes, tmp_path / "whole", resume=False, report=RecordingReporter())
    killed(shapes, tmp_path / "cut", overrides, "epoch 1 step 2", resume=False)
    assert [path.name for path in (tmp_path / "cut" / "checkpoints").iterdir()] == ["epoch-000"]
    log = RecordingReporter()
    train(Recipe.load("debug", overrides), shapes, tmp_path / "cut", resume=True, report=log)
    assert any("epoch-000: epoch 1, step 0" in message for message in log.messages)
    assert figures(tmp_path / "cut") == figures(tmp_path / "whole")
    ours, theirs = weights(tmp_path / "cut"), weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


# --- losses that are no good


def test_a_loss_that_is_no_number_stops_the_run(
    shapes: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(CrossEntropy):
        steps = 0

        def __call__(self, model: CaptionModel, features: Tensor, batch: Batch) -> Loss:
            loss = super().__call__(model, features, batch)
            Broken.steps += 1
            return loss if Broken.steps <= 3 else Loss(loss.total * float("nan"), loss.count)

    monkeypatch.setattr(build, "build_objective", lambda *_: Broken(0.0))
    run = tmp_path / "run"
    recipe = Recipe.load("debug", sets(cache, "training.checkpoint_minutes=1e-9"))
    with pytest.raises(TrainingError, match=r"epoch 2, step 4: the loss is nan.*learning_rate"):
        train(recipe, shapes, run, resume=False, report=RecordingReporter())
    assert checkpoint.newest(run, print).epoch == 1
    assert all(value.isfinite().all() for value in weights(run).values())
    assert all(loss == loss for loss in losses(run))


def test_a_loss_that_runs_away_stops_the_run(shapes: Path, cache: Path, tmp_path: Path) -> None:
    recipe = Recipe.load("debug", sets(cache, "training.learning_rate=100", "training.warmup=0"))
    with pytest.raises(TrainingError, match=r"the loss has risen from \d+\.\d+ to \d+\.\d+"):
        train(recipe, shapes, tmp_path / "run", resume=False, report=RecordingReporter())


# --- ways to compute the same


def test_two_processes_and_accumulation_give_the_same_losses(shapes: Path, cache: Path, tmp_path: Path) -> None:
    # 25 photos: the last batch has one, and a process without photos waits for the other.
    overrides = sets(cache, photos=25)
    train(Recipe.load("debug", overrides), shapes, tmp_path / "one", resume=False, report=RecordingReporter())
    parts = Recipe.load("debug", [*overrides, "training.accumulate=3"])
    train(parts, shapes, tmp_path / "parts", resume=False, report=RecordingReporter())
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "showtell"]
    arguments = ["train", "debug", "--data", shapes, "--output", tmp_path / "two"]
    command = [*torchrun, *map(str, arguments), *(word for each in overrides for word in ("--set", each))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, timeout=600, check=False, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr.decode().count("epoch 2: loss") == 1  # the first process alone speaks
    one = losses(tmp_path / "one")
    assert len(one) == 8
    norms = {run: [line["gradient_norm"] for line in figures(tmp_path / run) if "scores" not in line] for run in RUNS}
    for other in ("parts", "two"):
        assert losses(tmp_path / other) == pytest.approx(one, abs=1e-4)
        assert norms[other] == pytest.approx(norms["one"], rel=1e-3)  # AdamW would hide gradients of another size
        assert [line["scores"] for line in figures(tmp_path / other) if "scores" in line] == [
            line["scores"] for line in figures(tmp_path / "one") if "scores" in line
        ]
    # An error in one process ends both: this folder holds a run.
    done = subprocess.run(command, capture_output=True, timeout=600, check=False, env=environment)
    assert done.returncode != 0
    assert b"--resume" in done.stderr


def test_half_precision_is_close_and_keeps_the_weights_whole(shapes: Path, cache: Path, tmp_path: Path) -> None:
    for precision in ("float32", "bfloat16"):
        recipe = Recipe.load("debug", sets(cache, f"training.precision={precision}", "training.device=cpu"))
        train(recipe, shapes, tmp_path / precision, resume=False, report=RecordingReporter())
    exact, rounded = losses(tmp_path / "float32"), losses(tmp_path / "bfloat16")
    assert exact != rounded
    assert rounded == pytest.approx(exact, rel=0.05)
    assert all(value.dtype in (torch.float32, torch.int64) for value in weights(tmp_path / "bfloat16").values())


def test_losses_add_up_in_full_precision() -> None:
    scores, targets = torch.randn(5000, 20), torch.randint(20, (5000,))
    model: Any = SimpleNamespace(decoder=lambda *_: scores)
    batch = Batch(("photo",), Reading(np.zeros(1), 4), torch.zeros(1, 1, 1), torch.ones(1, 1), targets, torch.rand(5000))
    objectives = (CrossEntropy(0.1), Distillation([model.decoder], 0.5, 0.1))
    for objective in objectives:
        exact = objective(model, torch.zeros(1), batch).total.item()
        with torch.autocast("cpu", torch.bfloat16):
            assert objective(model, torch.zeros(1), batch).total.item() == pytest.approx(exact, rel=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_gpu_that_is_not_there_is_named(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"training\.device is cuda"):
        train(Recipe.load("debug", ["training.device=cuda"]), shapes, tmp_path, resume=False, report=RecordingReporter())


# --- averages and early stopping


def test_the_average_is_what_is_measured_and_saved(shapes: Path, cache: Path, tmp_path: Path) -> None:
    overrides = sets(cache, "training.epochs=3", "training.learning_rate=2e-2")
    recipe = Recipe.load("debug", [*overrides, "training.ema_decay=0.9"])
    train(recipe, shapes, tmp_path / "average", resume=False, report=RecordingReporter())
    train(Recipe.load("debug", overrides), shapes, tmp_path / "raw", resume=False, report=RecordingReporter())
    assert losses(tmp_path / "average") == losses(tmp_path / "raw")  # training itself is not touched
    last = checkpoint.newest(tmp_path / "average", print)
    name = "decoder.embedding.weight"
    averaged, raw = weights(tmp_path / "average")[name], weights(tmp_path / "raw")[name]
    assert not torch.allclose(averaged, raw)
    kept = checkpoint.load_tensors(last.path / "training.safetensors")
    assert any(torch.equal(value, raw) for key, value in kept.items() if key.startswith("raw."))
    model, dataset = last.load_model(), read_dataset(shapes)
    dev = dataset.split("dev")
    inputs = build_inputs(
        recipe.model_copy(update={"encoder": recipe.encoder.model_copy(update={"cache": str(tmp_path / "dev")})}),
        model,
        dataset,
        [sample.image for sample in dev],
        RecordingReporter(),
    )
    found = validate(model, dev_set(recipe, dev, inputs), RecordingReporter())
    assert found.scores == last.scores
    assert found.loss == read(tmp_path / "average" / "metrics.jsonl")[-1]["dev_loss"]
    assert found.loss == pytest.approx(by_steps(model, inputs, dev), abs=1e-3)
    assert last.scores != checkpoint.newest(tmp_path / "raw", print).scores


@torch.inference_mode()
def by_steps(model: CaptionModel, inputs: Inputs, samples: Sequence[Sample]) -> float:
    """Cross-entropy per word of the samples' captions, one caption and one word after the other."""
    total, words = 0.0, 0
    for sample in samples:
        features = torch.from_numpy(inputs.read([sample.image]).array).float()
        for caption in sample.captions:
            prepared, state = model.decoder.prepare(features)
            last = BEGIN
            for word in [*model.vocabulary.encode(tokenize(caption)), END]:
                log_probs, state, _ = model.decoder.step(torch.tensor([[last]]), prepared, state)
                total -= float(log_probs[0, 0, word])
                words += 1
                last = word
    return total / words


def test_moving_average_by_hand() -> None:
    parameter = torch.tensor([1.0])
    average = MovingAverage([parameter], decay=0.5)
    parameter.fill_(2.0)
    average.update(0)  # keeps 1/10
    assert average.values[0].item() == pytest.approx(0.1 * 1 + 0.9 * 2)
    parameter.fill_(4.0)
    average.update(1000)  # keeps 0.5
    assert average.values[0].item() == pytest.approx(0.5 * 1.9 + 0.5 * 4)
    with average.in_place():
        assert parameter.item() == pytest.approx(2.95)
    assert parameter.item() == 4.0


def test_the_mean_of_checkpoints(shapes: Path, cache: Path, learnt: Path, tmp_path: Path) -> None:
    train(
        Recipe.load("debug", sets(cache, "training.epochs=3")),
        shapes,
        tmp_path / "run",
        resume=False,
        report=RecordingReporter(),
    )
    first, last = sorted((tmp_path / "run" / "checkpoints").iterdir())[-2:]
    asked = ["average", first, last, last, "--output", tmp_path / "mean"]
    done = CliRunner().invoke(cli, [str(part) for part in asked])
    assert done.exit_code == 0, done.stderr
    made = checkpoint.find(tmp_path / "mean")
    assert made.config.mean_of == [f"run/{path.name}" for path in (first, last, last)]
    assert made.scores == {}  # it has none of its own yet
    found = checkpoint.load_tensors(made.path / "model.safetensors")
    one, two = (checkpoint.load_tensors(path / "model.safetensors") for path in (first, last))
    for name, value in found.items():
        assert torch.allclose(value.double(), (one[name].double() + 2 * two[name].double()) / 3, atol=1e-6), name
    assert not torch.equal(one["decoder.embedding.weight"], two["decoder.embedding.weight"])
    export(made, tmp_path / "bundle")
    assert Bundle.read(tmp_path / "bundle").config.json["mean_of"] == made.config.mean_of
    train(
        Recipe.load("debug", sets(cache, "training.epochs=1", f"init={made.path}")),
        shapes,
        tmp_path / "on",
        resume=False,
        report=RecordingReporter(),
    )

    with pytest.raises(OutputError, match="already exists"):
        average([made, made], made.path)
    with pytest.raises(CheckpointError, match="has other words"):
        average([made, checkpoint.find(learnt)], tmp_path / "mixed")
    other = Path(shutil.copytree(made.path, tmp_path / "variant")) / "config.json"
    other.write_text(other.read_text().replace('"v1.5"', '"v1"'))
    with pytest.raises(CheckpointError, match="has other networks"):
        average([made, checkpoint.find(other.parent)], tmp_path / "mixed")
    wide = Recipe.load("debug", sets(cache, "training.epochs=1", "decoder.hidden=24"))
    train(wide, shapes, tmp_path / "wide", resume=False, report=RecordingReporter())
    with pytest.raises(CheckpointError, match="has other networks"):
        average([made, checkpoint.find(tmp_path / "wide")], tmp_path / "mixed")


def test_a_run_without_gain_stops_early(shapes: Path, cache: Path, tmp_path: Path) -> None:
    stuck = ["training.epochs=6", "training.patience=2", "training.learning_rate=1e-12"]
    log = RecordingReporter()
    best = train(Recipe.load("debug", sets(cache, *stuck)), shapes, tmp_path / "run", resume=False, report=log)
    assert [line["epoch"] for line in figures(tmp_path / "run") if "scores" in line] == [1, 2, 3]
    assert best.epoch == 1
    assert any("no better CIDEr than epoch 1's in 2 epochs" in message for message in log.messages)


def small(shapes: Path, folder: Path, dev: int, caption: str | None = None) -> Path:
    """The shapes with so many dev photos, all with the same caption if one is given."""
    shutil.copytree(shapes, folder)
    names = (folder / "Flickr_8k.devImages.txt").read_text().splitlines()[:dev]
    (folder / "Flickr_8k.devImages.txt").write_text("\n".join(names))
    if caption:
        lines = (folder / "Flickr8k.token.txt").read_text().splitlines()
        cells = [line.split("\t") for line in lines]
        alike = [f"{name}\t{caption if name.partition('#')[0] in names else text}" for name, text in cells]
        (folder / "Flickr8k.token.txt").write_text("\n".join(alike))
    return folder


@pytest.mark.parametrize(("dev", "caption"), [(1, None), (4, "there is a red square on grey")])
def test_where_cider_is_always_0_the_dev_loss_tells_the_best_epoch(
    dev: int, caption: str | None, shapes: Path, cache: Path, tmp_path: Path
) -> None:
    data, log = small(shapes, tmp_path / "data", dev, caption), RecordingReporter()
    more = ["training.epochs=5", "training.patience=1", "training.learning_rate=2e-3", "encoder.cache=" + str(cache / "small")]
    best = train(Recipe.load("debug", sets(cache, *more)), data, tmp_path / "run", resume=False, report=log)
    epochs = [line for line in read(tmp_path / "run" / "metrics.jsonl") if "scores" in line]
    assert {line["scores"]["CIDEr"] for line in epochs} == {0.0}
    found = [line["dev_loss"] for line in epochs]
    assert found == sorted(found, reverse=True)  # so patience never ran out
    assert len(found) == best.epoch == 5
    assert checkpoint.newest(tmp_path / "run", print).config.progress["best_loss"] == min(found)
    which = "there is one image" if dev == 1 else "the references of all 4 images are equal"
    assert [message for message in log.messages if which in message and "lowest dev loss" in message]


def test_a_dev_split_too_small_for_cider_is_named(shapes: Path, cache: Path, tmp_path: Path) -> None:
    log = RecordingReporter()
    train(Recipe.load("debug", sets(cache, "training.epochs=1")), shapes, tmp_path / "run", resume=False, report=log)
    assert [message for message in log.messages if message.startswith("dev: CIDEr of 12 images says little")]


def test_captions_that_are_cut_are_counted(shapes: Path, cache: Path, tmp_path: Path) -> None:
    for limit, told in (
        ("5", ["48 of 96 train captions are longer than 5 words and cut; training.max_words takes more"]),
        ("7", []),
    ):
        log = RecordingReporter()
        recipe = Recipe.load(
            "debug",
            [f"encoder.cache={cache / 'all'}", "training.epochs=1", f"training.max_words={limit}", "training.max_photos=0"],
        )
        train(recipe, shapes, tmp_path / limit, resume=False, report=log)
        assert [message for message in log.messages if "train captions are longer" in message] == told


# --- what can be seen


def test_a_run_can_be_followed_and_read(shapes: Path, cache: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, log = tmp_path / "run", RecordingReporter()
    best = train(Recipe.load("debug", sets(cache)), shapes, run, resume=False, report=log)
    notes = [note for note in log.notes if note.startswith("epoch 2 3/3")]
    assert len(notes) == 1
    assert all(part in notes[0] for part in ("loss ", f"CIDEr {best.scores['CIDEr']:.0f}"[:7], "photos/s", " left"))
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(losses(run))
    assert [event.step for event in events.Scalars("dev/CIDEr")] == [3, 6]
    last = read(run / "metrics.jsonl")[-1]
    assert len(last["examples"]) == 3
    for photo, caption in last["examples"].items():
        assert f"  {photo}: {caption}" in log.messages
    assert log.messages[-7].startswith("trained in")
    assert f"  showtell export {run} --output {run / 'bundle'} --quantize int8 --calibration {shapes}" in log.messages


def test_a_step_can_be_read_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0, RecordingReporter()) as log:
        log.steps(1, 1, {"loss": 4.5})
        assert read(tmp_path / "metrics.jsonl") == [{"step": 1, "epoch": 1, "loss": 4.5}]


def test_the_display_is_for_terminals(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with Console() as console:
        console.progress("epoch 1", 1, 10, "loss 3.210  12 photos/s")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with Console() as console:
        console.progress("epoch 1", 1, 10, "loss 3.210  12 photos/s")
    shown = capsys.readouterr().err
    assert "1/10" in shown
    assert "loss 3.210  12 photos/s" in shown


def test_where_there_is_no_terminal_a_line_comes_after_each_silence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("showtell.cli.console.time.monotonic", lambda: now)
    with Console(every=30) as console:
        for second, step in ((29, 1), (30, 2), (31, 3), (59, 4), (60, 5), (89, 6)):
            now = second
            console.progress("epoch 1", step, 10, "loss 3.210")
        console.message("epoch 1: loss 3.0")
        now = 118
        console.progress("dev", 1, 50)
        now = 119
        console.progress("dev", 2, 50)
    assert capsys.readouterr().err.splitlines() == [
        "epoch 1 2/10  loss 3.210",
        "epoch 1 5/10  loss 3.210",
        "epoch 1: loss 3.0",
        "dev 2/50",
    ]


def test_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((0.0, 10.0, 12.0, 14.0))
    monkeypatch.setattr("showtell.train.run.display.time.monotonic", lambda: next(clock))
    pace = Pace(steps=20, epoch_steps=10)
    pace.start()
    pace.step(8)
    pace.step(8)
    assert pace.photos_per_second == 4
    pace.validated(5)
    assert pace.seconds_left == 18 * 2 + 2 * 5
    assert [duration(seconds) for seconds in (45, 700, 11_100)] == ["45 s", "12 min", "3 h 05 min"]


# --- recipes


def test_every_key_of_every_recipe_is_described() -> None:
    assert all(key.description for key in keys())
    assert "flickr8k  " in describe_recipes()
    text = describe_keys(Recipe.load("debug", ["training.precision=bfloat16"]))
    assert "training.epochs = 3\n    passes over the train photos (default 14; at least 1)" in text
    assert 'training.precision = "bfloat16"' in text
    assert 'default "float32"; float32 | bfloat16' in text
    for override, meant in (("epochs=3", "training.epochs"), ("decoder.hiden=3", "decoder.hidden")):
        with pytest.raises(RecipeError, match=f"did you mean '{meant}'"):
            Recipe.load("debug", [override])


def test_checkpoints_that_were_altered_are_not_loaded(learnt: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(checkpoint.best(learnt).path, tmp_path / "epoch-001"))
    (copy / "vocab.json").write_text((copy / "vocab.json").read_text().replace("red", "rad"))
    with pytest.raises(CheckpointError, match=r"vocab\.json: cut short or altered"):
        checkpoint.find(copy).load_model()


def test_the_command_lists_recipes_and_keys() -> None:
    listed = CliRunner().invoke(cli, ["train", "--list"])
    assert "debug " in listed.stdout
    assert "trains in seconds" in listed.stdout
    one = CliRunner().invoke(cli, ["train", "--list", "debug", "--set", "training.epochs=7"])
    assert "training.epochs = 7" in one.stdout
    incomplete = CliRunner().invoke(cli, ["train", "debug"])
    assert incomplete.exit_code == 2
    assert "--list" in incomplete.stderr
