"""The training loop: one run of one plan, epoch by epoch and step by step.

AdamW (Loshchilov and Hutter 2019) under a one-cycle schedule minimises an objective; after each epoch the dev photos are
captioned by the same search as the product's. Everything random in a step follows from the run's seeds, the step and the
process, so that a run which was killed and resumed gives the same figures as one which was not.
"""

import math
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from showtell.errors import DataError, TrainingError
from showtell.nn.model import CaptionModel
from showtell.train.averaging import MovingAverage
from showtell.train.inputs.batches import Batch, Batches, ProcessBatch
from showtell.train.inputs.inputs import grid_features
from showtell.train.inputs.prefetch import prefetch
from showtell.train.objectives.cross_entropy import Loss, Objective
from showtell.train.recipe import TrainingRecipe
from showtell.train.run import checkpoint
from showtell.train.run.checkpoint import Checkpoint
from showtell.train.run.display import Pace, Reporter, duration
from showtell.train.run.log import RunLog
from showtell.train.run.processes import Processes
from showtell.train.schedule import learning_rate
from showtell.train.validation import DevSet, validate


@dataclass(frozen=True)
class Plan:
    """All that a run is made of; `train.build` makes it from a recipe."""

    model: CaptionModel
    groups: list[dict[str, Any]]  # the optimiser's, with a `peak` learning rate each
    objective: Objective
    batches: Batches
    dev: DevSet
    options: TrainingRecipe
    measure_start: bool  # the model is a trained one: it is measured and saved as epoch 0
    about: dict[str, Any]  # goes into every checkpoint's config


@dataclass
class Progress:
    """State of a run, saved with every checkpoint."""

    epoch: int = 1  # being trained, counted from 1
    step: int = 0  # steps done in that epoch
    total: float = 0.0  # sum of that epoch's losses so far, over `count` words or whatever the objective counts
    count: float = 0.0
    lowest: float | None = None  # mean loss of the best `log_every` steps
    best_cider: float = -1.0  # of dev, x100
    best_loss: float = 0.0  # of dev, in that epoch; it decides between equals
    best_epoch: int = 0


class Network(nn.Module):
    """Computes the loss of a part of a batch: the module that DistributedDataParallel wraps."""

    def __init__(self, model: CaptionModel, objective: Objective, dtype: torch.dtype) -> None:
        super().__init__()
        self._model = model
        self.networks = model.networks()
        self._objective = objective
        self._dtype = dtype

    def forward(self, batch: Batch) -> Loss:
        """See Objective."""
        if not batch.names:  # the processes exchange gradients, so that one without photos has to give zeros
            return Loss(torch.stack([0 * p.sum() for p in self.parameters() if p.requires_grad]).sum(), 0)
        device = next(self.parameters()).device
        with torch.autocast(device.type, self._dtype, enabled=self._dtype != torch.float32):
            return self._objective(self._model, grid_features(self._model, batch.photos, self._dtype), batch.to(device))


class Trainer:
    """One run of one plan, epoch by epoch and step by step."""

    def __init__(self, plan: Plan, output: Path, processes: Processes, report: Reporter) -> None:
        self.plan, self.model, self.batches, self.options = plan, plan.model, plan.batches, plan.options
        self.output, self.processes, self.report = output, processes, report
        groups = plan.groups
        self.optimizer = torch.optim.AdamW(groups, fused=True)
        self.parameters: list[nn.Parameter] = [p for group in groups for p in group["params"]]
        self.average = MovingAverage(self.parameters, self.options.ema_decay) if self.options.ema_decay else None
        self.progress = Progress()
        # Sums since the last reading: losses, their counts, gradient norms. A reading makes a GPU wait.
        self.window = torch.zeros(3, dtype=torch.float64, device=processes.device)
        self.shown: dict[str, float] = {}
        self.latest: dict[str, float] = {}  # the objective's figures at the last reading, a mean over its steps
        self.saved = time.monotonic()

    @property
    def step(self) -> int:
        """Steps done since the run's beginning."""
        return (self.progress.epoch - 1) * len(self.batches) + self.progress.step

    def run(self) -> None:
        """Trains from the current step to the end of the run."""
        self.pace = Pace(self.options.epochs * len(self.batches) - self.step, len(self.batches))
        with RunLog(self.output, self.step, self.report) if self.processes.first else nullcontext() as self.log:
            if self.plan.measure_start and self.step == 0 and self.progress.best_cider < 0:
                self.progress.epoch = 0
                self._measure(time.monotonic())
            network = Network(self.model, self.plan.objective, getattr(torch, self.options.precision))
            parallel = DistributedDataParallel(network, broadcast_buffers=False) if self.processes.count > 1 else network
            while self.progress.epoch <= self.options.epochs and not self._out_of_patience():
                self._epoch(parallel)

    def _out_of_patience(self) -> bool:
        waited = self.progress.epoch - 1 - self.progress.best_epoch
        stop = 0 < self.options.patience <= waited
        if stop:
            self.report.message(f"stopped: no better CIDEr than epoch {self.progress.best_epoch}'s in {waited} epochs")
        return stop

    def _epoch(self, network: nn.Module) -> None:
        """Trains the rest of an epoch, measures the model and saves it."""
        started = time.monotonic()
        progress, options = self.progress, self.options
        self.model.encoder.eval()  # its normalisation keeps ImageNet's statistics
        self.model.decoder.train()
        self.pace.start()
        batches = self.batches.epoch(
            progress.epoch,
            progress.step,
            rank=self.processes.rank,
            processes=self.processes.count,
            parts=options.accumulate,
        )
        for batch in prefetch(batches):
            self._step(network, batch)
            self.pace.step(batch.photos)
            last = progress.step == len(self.batches)
            if progress.step % options.log_every == 0 or last:
                self._read()
                # Only here, where no half-summed reading would have to be kept.
                due = 0 < options.checkpoint_minutes * 60 <= time.monotonic() - self.saved
                if due and not last:
                    self._save({"epoch": progress.epoch})
            self.report.progress(f"epoch {progress.epoch}", progress.step, len(self.batches), self._note())
        self._measure(started)

    def _step(self, network: nn.Module, batch: ProcessBatch) -> None:
        """One step of the optimiser."""
        step = self.step
        seed = np.random.SeedSequence([*self.batches.seeds, step, self.processes.rank]).generate_state(1, np.uint64)[0]
        torch.manual_seed(int(seed))
        for group in self.optimizer.param_groups:
            steps = self.options.epochs * len(self.batches)
            group["lr"] = learning_rate(step, steps, group["peak"], self.options.warmup)
        self.optimizer.zero_grad()
        sums = torch.zeros(2, dtype=torch.float64, device=self.processes.device)
        for number, part in enumerate(batch.parts, start=1):
            # Processes add their gradients up once, with those of the last part.
            more = number < len(batch.parts)
            with network.no_sync() if more and isinstance(network, DistributedDataParallel) else nullcontext():
                loss: Loss = network(part)
                loss.total.backward()  # type: ignore[no-untyped-call]
            sums[0] += loss.total.detach()
            sums[1] += loss.count
            for name, value in loss.shown.items():
                self.shown[name] = self.shown.get(name, 0.0) + value / len(batch.parts)
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
        if (
            self.plan.objective.descends
            and progress.lowest is not None
            and 0 < self.options.divergence < loss - progress.lowest
        ):
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
            f"epoch {self.progress.epoch}, step {self.step}: {what}; earlier checkpoints are intact in {self.output}. "
            "Start again with a lower training.learning_rate (--set init=CHECKPOINT starts from a saved one)"
        )

    def _measure(self, started: float) -> None:
        """Captions the dev photos after an epoch, or as epoch 0 before all, then saves."""
        progress = self.progress
        before = time.monotonic()
        with self._averaged():
            measured = validate(self.model, self.plan.dev, self.report, processes=self.processes)
        self.pace.validated(time.monotonic() - before)
        seconds = time.monotonic() - started
        trained = {"loss": progress.total / progress.count} if progress.epoch else {}
        entry = {
            "epoch": progress.epoch,
            "step": self.step if progress.epoch else 0,
            **trained,
            "seconds": round(seconds, 1),
            "dev_loss": measured.loss,
            "scores": dict(measured.scores),
            **({"scores_by_style": measured.by_style} if len(measured.by_style) > 1 else {}),
            "examples": dict(measured.examples),
        }
        if self.log:
            self.log.epoch(entry)
        if (measured.scores["CIDEr"], -measured.loss) > (progress.best_cider, -progress.best_loss):
            progress.best_cider, progress.best_loss, progress.best_epoch = (
                measured.scores["CIDEr"],
                measured.loss,
                progress.epoch,
            )
        progress.epoch, progress.step, progress.total, progress.count = progress.epoch + 1, 0, 0.0, 0.0
        kept = ("epoch", *trained, "dev_loss", "seconds", "scores", "scores_by_style")
        self._save({key: entry[key] for key in kept if key in entry})
        shown = "  ".join(
            f"{style} {name} {scores[name]:.1f}".strip()
            for style, scores in measured.by_style.items()
            for name in ("BLEU-4", "CIDEr")
        )
        what = f"epoch {entry['epoch']}: loss {trained['loss']:.3f}" if trained else "start model:"
        self.report.message(f"{what}  dev loss {measured.loss:.3f}  {shown}  ({duration(seconds)})")
        for photo, caption in measured.examples.items():
            self.report.message(f"  {photo}: {caption}")

    def _save(self, entry: dict[str, Any]) -> None:
        if self.log:
            self.log.flush()
            config = {**entry, "step": self.step, "progress": asdict(self.progress), **self.plan.about}
            training = checkpoint.optimizer_tensors(self.optimizer)
            with self._averaged():
                if self.average:  # while the model has the average, that has the raw weights
                    training |= {f"raw.{number}": value for number, value in enumerate(self.average.values)}
                checkpoint.save(self.output, self.model, config, training)
        self.saved = time.monotonic()

    def restore(self, saved: Checkpoint) -> None:
        """Restores the state of the run from its checkpoint. Raises DataError where the captions have changed since."""
        model, digest = saved.load_model(), self.plan.about["captions_sha256"]
        # Checkpoints of earlier versions lack the captions' digest; their vocabulary still tells most changes.
        same_words = model.vocabulary.words == self.model.vocabulary.words
        if not same_words or (saved.config.captions_sha256 or digest) != digest:
            words = f": {len(model.vocabulary)} words then, {len(self.model.vocabulary)} now" if not same_words else ""
            raise DataError(
                f"{saved.path}: the photos or captions are not those that the run began with{words}. A run resumes with "
                f"its own data: put that back, or begin a new run with --set init={self.output}"
            )
        self.model.networks().load_state_dict(model.networks().state_dict())
        tensors = checkpoint.load_tensors(saved.path / "training.safetensors")
        raw = [tensors.pop(f"raw.{number}") for number in range(len(self.parameters)) if f"raw.{number}" in tensors]
        if self.average:
            with torch.no_grad():
                for parameter, average, value in zip(self.parameters, self.average.values, raw, strict=True):
                    average.copy_(parameter)
                    parameter.copy_(value)
        checkpoint.restore_optimizer(self.optimizer, tensors)
        known = {field.name for field in fields(Progress)}  # earlier versions saved more
        self.progress = Progress(**{key: value for key, value in saved.config.progress.items() if key in known})
        photos = self.plan.about.get("photos_sha256")
        if (saved.config.photos_sha256 or photos) != photos:
            self.report.message("photos have changed since the run began: it resumes with them as they are now")
        epochs = saved.config.recipe["training"]["epochs"]
        if epochs != self.options.epochs:
            longer = f"{self.options.epochs} epochs instead of {epochs}"
            self.report.message(f"{longer}: the learning rate is that of a run of this length from its beginning")
        self.report.message(f"resuming from {saved.path}: epoch {self.progress.epoch}, step {self.progress.step}")

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
