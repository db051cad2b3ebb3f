"""The training loop: one run of one recipe, step by step and epoch by epoch.

AdamW (Loshchilov and Hutter 2019) under a one-cycle schedule makes an objective small; after each epoch the dev photos are
captioned by the same search as the product's. Everything random in a step follows from the run's seeds, the step and the
process, so that a run which was killed and resumed is the same as one which was not.
"""

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from showtell.errors import DataError, TrainingError
from showtell.nn.model import CaptionModel
from showtell.train.averaging import MovingAverage
from showtell.train.build import Captions, choose_objective, seeds, tune_encoder
from showtell.train.inputs.batches import Batch, Batches, Share, ahead
from showtell.train.inputs.borrowing import Borrowed
from showtell.train.inputs.inputs import PhasedInputs
from showtell.train.objectives.cross_entropy import Loss, Objective
from showtell.train.recipe import Recipe
from showtell.train.run import checkpoint
from showtell.train.run.checkpoint import Checkpoint
from showtell.train.run.display import Pace, Reporter, duration
from showtell.train.run.log import RunLog
from showtell.train.run.processes import Processes
from showtell.train.schedule import Stage, learning_rate, stage_of
from showtell.train.validation import grid_features, validate
from showtell.types import Sample


@dataclass
class Progress:
    """Where a run stands. Saved with every checkpoint."""

    epoch: int = 1  # being trained, counted from 1
    step: int = 0  # steps done in that epoch
    total: float = 0.0  # sum of that epoch's losses so far, over `count` words or whatever the objective counts
    count: float = 0.0
    objective: str = ""  # that the losses are of
    lowest: float | None = None  # mean loss of the best `log_every` steps under that objective
    best_cider: float = -1.0  # of dev, x100
    best_loss: float = 0.0  # of dev, in that epoch; it decides between equals
    best_epoch: int = 0


class Network(nn.Module):
    """A part of a batch to its loss: the computation that DistributedDataParallel wraps."""

    def __init__(self, model: CaptionModel, objective: Objective, dtype: torch.dtype) -> None:
        super().__init__()
        self._model = model
        self.networks = model.networks()
        self._objective = objective
        self._dtype = dtype

    def forward(self, batch: Batch) -> Loss:
        """See Objective."""
        if not batch.names:  # the processes wait for each other's gradients, so that one without photos gives zeros
            return Loss(torch.stack([0 * p.sum() for p in self.parameters() if p.requires_grad]).sum(), 0)
        device = next(self.parameters()).device
        with torch.autocast(device.type, self._dtype, enabled=self._dtype != torch.float32):
            return self._objective(self._model, grid_features(self._model, batch.read, self._dtype), batch.to(device))


class Trainer:
    """One run of one recipe, epoch by epoch and step by step."""

    def __init__(
        self,
        recipe: Recipe,
        model: CaptionModel,
        groups: list[dict[str, Any]],
        captions: Captions,
        borrowed: Mapping[str, Sequence[Borrowed]],
        inputs: PhasedInputs,
        dev: tuple[Sample, ...],
        output: Path,
        about: dict[str, Any],
        processes: Processes,
        report: Reporter,
    ) -> None:
        """`groups` are the optimiser's, with a `peak` learning rate each; `about` goes into every checkpoint's config.

        `captions` are the train photos' own, `borrowed` those of other photos.
        """
        self.recipe, self.options = recipe, recipe.training
        self.model = model
        self.captions, self.inputs, self.dev = captions, inputs, dev
        read = json.dumps([captions, [[sample.image, sample.captions] for sample in dev]])
        self.output, self.about = output, {**about, "captions_sha256": hashlib.sha256(read.encode()).hexdigest()}
        self.processes, self.report = processes, report
        self.seeds = seeds(recipe, model)
        self.batches = Batches(captions, model.vocabulary, inputs, recipe, self.seeds, borrowed)
        self.optimizer = torch.optim.AdamW(groups, fused=True)
        self.parameters: list[nn.Parameter] = [p for group in groups for p in group["params"]]
        self.average = MovingAverage(self.parameters, self.options.ema_decay) if self.options.ema_decay else None
        self.progress = Progress()
        self.objective: Objective | None = None
        # Sums since the last reading: losses, what they were counted over, gradient norms. A reading makes a GPU wait.
        self.window = torch.zeros(3, dtype=torch.float64, device=processes.device)
        self.shown: dict[str, float] = {}
        self.latest: dict[str, float] = {}  # what the objective showed at the last reading, a mean over its steps
        self.saved = time.monotonic()

    @property
    def step(self) -> int:
        """Steps done since the run's beginning."""
        return (self.progress.epoch - 1) * len(self.batches) + self.progress.step

    @property
    def stage(self) -> Stage:
        """The stage of the run that the epoch being trained belongs to."""
        return stage_of(self.recipe, self.progress.epoch)

    def run(self) -> None:
        """Trains from where the run stands to its end. A model that it starts from is measured and saved as epoch 0."""
        self.pace = Pace(self.options.epochs * len(self.batches) - self.step, len(self.batches))
        with RunLog(self.output, self.step, self.report) if self.processes.first else nullcontext() as self.log:
            if self.recipe.init and self.step == 0 and self.progress.best_cider < 0:
                self.progress.epoch = 0
                self._measure(time.monotonic())
            while self.progress.epoch <= self.options.epochs and not self._out_of_patience():
                self._epoch()

    def _out_of_patience(self) -> bool:
        waited = self.progress.epoch - 1 - self.progress.best_epoch
        stop = 0 < self.options.patience <= waited
        if stop:
            self.report.message(f"stopped: no better CIDEr than epoch {self.progress.best_epoch}'s in {waited} epochs")
        return stop

    def _epoch(self) -> None:
        """Trains the rest of an epoch, measures the model and saves it."""
        started = time.monotonic()
        progress, options = self.progress, self.options
        if self.objective is None or (progress.epoch, progress.step) == (self.stage.first, 0):
            self.objective = choose_objective(self.recipe, progress.epoch, self.model, self.captions)
        objective = self.objective
        if progress.objective != type(objective).__name__:
            progress.objective, progress.lowest = type(objective).__name__, None  # losses of two kinds do not compare
        tune_encoder(self.model, self.recipe, progress.epoch)
        network = Network(self.model, objective, getattr(torch, options.precision))
        # Wrapped anew each epoch, as what is trained may change from one to the next.
        parallel = DistributedDataParallel(network, broadcast_buffers=False) if self.processes.count > 1 else None
        self.model.encoder.eval()  # its normalisation keeps ImageNet's statistics
        self.model.decoder.train()
        self.pace.start()
        shares = self.batches.shares(
            progress.epoch,
            progress.step,
            rank=self.processes.rank,
            processes=self.processes.count,
            parts=options.accumulate,
        )
        for share in ahead(shares):
            self._step(parallel or network, share)
            self.pace.step(share.photos)
            last = progress.step == len(self.batches)
            if progress.step % options.log_every == 0 or last:
                self._read()
                # Only here, where no half-summed reading would have to be kept.
                due = 0 < options.checkpoint_minutes * 60 <= time.monotonic() - self.saved
                if due and not last:
                    self._save({"epoch": progress.epoch})
            self.report.progress(f"epoch {progress.epoch}", progress.step, len(self.batches), self._note())
        self._measure(started)

    def _step(self, network: Network | DistributedDataParallel, share: Share) -> None:
        """One step of the optimiser."""
        step = self.step
        seed = np.random.SeedSequence([*self.seeds, step, self.processes.rank]).generate_state(1, np.uint64)[0]
        torch.manual_seed(int(seed))
        stage = self.stage
        done, steps = step - (stage.first - 1) * len(self.batches), stage.epochs * len(self.batches)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(done, steps, group["peak"] * stage.scale, self.options.warmup)
        self.optimizer.zero_grad()
        sums = torch.zeros(2, dtype=torch.float64, device=self.processes.device)
        for number, part in enumerate(share.parts, start=1):
            # Processes add their gradients up once, with those of the last part.
            more = number < len(share.parts)
            with network.no_sync() if more and isinstance(network, DistributedDataParallel) else nullcontext():
                loss: Loss = network(part)
                loss.total.backward()  # type: ignore[no-untyped-call]
            sums[0] += loss.total.detach()
            sums[1] += loss.count
            for name, value in loss.shown.items():
                self.shown[name] = self.shown.get(name, 0.0) + value / len(share.parts)
        self.processes.sum(sums)
        # Gradients so far are of sums, averaged over processes; the step follows the mean over all that was counted.
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        torch._foreach_mul_(gradients, (self.processes.count / sums[1]).float())
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.options.gradient_clip)
        self.optimizer.step()
        self.window += torch.cat([sums, norm.double().view(1)])
        if self.average:
            self.average.update(step)
        self.progress.step += 1

    def _read(self) -> None:
        """Reads the sums since the last reading, checks and logs them."""
        progress = self.progress
        total, count, norms = self.window.tolist()
        self.window.zero_()
        steps = (progress.step - 1) % self.options.log_every + 1
        loss = total / count
        if not math.isfinite(loss + norms):
            self._fail(f"the loss is {loss} and the gradients' norm {norms / steps}")
        descends = self.objective is not None and self.objective.descends
        if descends and progress.lowest is not None and 0 < self.options.divergence < loss - progress.lowest:
            self._fail(f"the loss has risen from {progress.lowest:.3f} to {loss:.3f}")
        progress.lowest = loss if progress.lowest is None else min(loss, progress.lowest)
        progress.total += total
        progress.count += count
        self.latest = {name: value / steps for name, value in self.shown.items()}
        self.shown.clear()
        if self.log:
            figures = {
                "loss": loss,
                "learning_rate": self.optimizer.param_groups[0]["lr"],
                "gradient_norm": norms / steps,
                **self.latest,
                "photos_per_second": round(self.pace.photos_per_second, 1),
            }
            self.log.steps(self.step, progress.epoch, figures)

    def _fail(self, what: str) -> None:
        if self.log:
            self.log.flush()
        raise TrainingError(
            f"epoch {self.progress.epoch}, step {self.step}: {what}; what was saved before is intact in {self.output}. "
            "Start again with a lower training.learning_rate (--set init=CHECKPOINT goes on from a saved one)"
        )

    def _measure(self, started: float) -> None:
        """Captions the dev photos after an epoch, or as epoch 0 before all, then saves."""
        progress = self.progress
        before = time.monotonic()
        inputs = self.inputs.at(max(1, progress.epoch))
        with self._averaged():
            found = validate(self.model, inputs, self.dev, self.recipe, self.report, processes=self.processes)
        self.pace.validated(time.monotonic() - before)
        seconds = time.monotonic() - started
        trained = {"loss": progress.total / progress.count} if progress.epoch else {}
        entry = {
            "epoch": progress.epoch,
            "step": self.step if progress.epoch else 0,
            **trained,
            "seconds": round(seconds, 1),
            "dev_loss": found.loss,
            "scores": dict(found.scores),
            **({"scores_by_style": found.by_style} if len(found.by_style) > 1 else {}),
            "examples": dict(found.examples),
        }
        if self.log:
            self.log.epoch(entry)
        if (found.scores["CIDEr"], -found.loss) > (progress.best_cider, -progress.best_loss):
            progress.best_cider, progress.best_loss, progress.best_epoch = found.scores["CIDEr"], found.loss, progress.epoch
        progress.epoch, progress.step, progress.total, progress.count = progress.epoch + 1, 0, 0.0, 0.0
        kept = ("epoch", *trained, "dev_loss", "seconds", "scores", "scores_by_style")
        self._save({key: entry[key] for key in kept if key in entry})
        shown = "  ".join(
            f"{style} {name} {scores[name]:.1f}".strip()
            for style, scores in found.by_style.items()
            for name in ("BLEU-4", "CIDEr")
        )
        what = f"epoch {entry['epoch']}: loss {trained['loss']:.3f}" if trained else "start model:"
        self.report.message(f"{what}  dev loss {found.loss:.3f}  {shown}  ({duration(seconds)})")
        for photo, caption in found.examples.items():
            self.report.message(f"  {photo}: {caption}")

    def _save(self, entry: dict[str, Any]) -> None:
        if self.log:
            self.log.flush()
            config = {**entry, "step": self.step, "progress": asdict(self.progress), **self.about}
            training = checkpoint.optimizer_tensors(self.optimizer)
            with self._averaged():
                if self.average:  # while the model has the average, that has the raw weights
                    training |= {f"raw.{number}": value for number, value in enumerate(self.average.values)}
                checkpoint.save(self.output, self.model, config, training)
        self.saved = time.monotonic()

    def restore(self, found: Checkpoint) -> None:
        """Goes back to where a checkpoint was written. Raises DataError where the captions are others than then."""
        model, digest = found.load_model(), self.about["captions_sha256"]
        # Checkpoints of earlier versions do not know the captions, yet the words that these gave.
        same_words = model.vocabulary.words == self.model.vocabulary.words
        if not same_words or found.config.get("captions_sha256", digest) != digest:
            words = f": {len(model.vocabulary)} words then, {len(self.model.vocabulary)} now" if not same_words else ""
            raise DataError(
                f"{found.path}: the photos or captions are not those that the run began with{words}. A run goes on with "
                f"its own data: put that back, or begin a new run with --set init={self.output}"
            )
        self.model.networks().load_state_dict(model.networks().state_dict())
        tensors = checkpoint.load_tensors(found.path / "training.safetensors")
        raw = [tensors.pop(f"raw.{number}") for number in range(len(self.parameters)) if f"raw.{number}" in tensors]
        if self.average:
            with torch.no_grad():
                for parameter, average, value in zip(self.parameters, self.average.values, raw, strict=True):
                    average.copy_(parameter)
                    parameter.copy_(value)
        checkpoint.restore_optimizer(self.optimizer, tensors)
        self.progress = Progress(**found.config["progress"])
        photos = self.about.get("photos_sha256")
        if found.config.get("photos_sha256", photos) != photos:
            self.report.message("photos have changed since the run began: it goes on with them as they are now")
        epochs = found.config["recipe"]["training"]["epochs"]
        if epochs != self.options.epochs:
            longer = f"{self.options.epochs} epochs instead of {epochs}"
            self.report.message(f"{longer}: the learning rate goes on as in a run that was as long from its beginning")
        self.report.message(f"going on from {found.path}: epoch {self.progress.epoch}, step {self.progress.step}")

    def _averaged(self) -> Any:
        """Within the block the model has the weights that are measured and saved."""
        return self.average.in_place() if self.average else nullcontext()

    def _note(self) -> str:
        progress = self.progress
        parts = [f"loss {progress.total / progress.count:.3f}"] if progress.count else []
        parts += [f"{name} {value:.2f}" for name, value in self.latest.items()]
        parts += [f"CIDEr {progress.best_cider:.1f}"] if progress.best_cider >= 0 else []
        parts += [f"{self.pace.photos_per_second:.0f} photos/s", f"run: {duration(self.pace.seconds_left)} left"]
        return "  ".join(parts)
