"""An epoch of the soft-attention decoder over cached features: this package's pieces against a plain loop, in one paired run.

    python benchmarks/training_speed.py FLICKR8K_FOLDER FEATURE_CACHE [--photos 1000] [--repeats 2] [--json FILE]

FEATURE_CACHE is a folder that `showtell train flickr8k` names when it begins (`features in ...-grid`); it is only read.

The plain loop does what a first implementation does: it pads every batch to its longest caption, gives each caption its own
copy of its photo's features, steps one token at a time through all rows, and applies the vocabulary layer and takes the loss
at each step, in float32. Ours sorts a batch's captions so that those which have ended cost nothing, lets a photo's captions
share its features, reads words and scores them for all steps at once, and so takes the gradients of the LSTM's weights; where
the processor multiplies bfloat16 itself, that is a third contender.

All have the same network, weights to start from, photos and captions at each optimiser step, optimiser, clipping and dropout
rates, and before any timing the plain loop's loss and gradients are checked against ours. They take turns batch by batch,
in changing order, so that all of them see the machine at its fast and slow moments; one step of each goes before and is not
timed. Both the time that passed and that of the processor's cores are given: other work on the machine changes the latter less.
Not timed either: tokenizing, and what happens once an epoch (validation, checkpoints).
"""

import argparse
import copy
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from showtell.data import PhotoStore
from showtell.data import read as read_dataset
from showtell.nn.attention_lstm import AttentionLSTM, DecoderConfig, lstm_cell
from showtell.nn.model import CaptionModel
from showtell.nn.resnet import ResNet, ResNetConfig
from showtell.text import tokenize
from showtell.train.inputs.batches import Batches, weighted
from showtell.train.inputs.cache import Rows
from showtell.train.inputs.features import FeatureCache
from showtell.train.inputs.inputs import CachedInputs
from showtell.train.objectives.cross_entropy import CrossEntropy
from showtell.train.recipe import Recipe
from showtell.train.trainer import Network
from showtell.vocabulary import BEGIN, PAD, Vocabulary


def open_cache(folder: Path, photos: PhotoStore, names: list[str]) -> FeatureCache:
    """A cache of grid features as it is on disk, read-only; photos whose rows are not there yet are left out."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if manifest["output"] != "grid" or "view" in manifest:
        raise SystemExit(f"{folder}: holds {manifest['output']} features or a view; give a cache whose name ends in -grid")
    rows = Rows(folder, {key: value for key, value in manifest.items() if key not in ("shape", "dtype")}, manifest["shape"])
    places = rows.places()
    found = {name: row for name in names if (row := places.get(photos.digest(name))) is not None}
    return FeatureCache(tuple(found), rows.array(), list(found.values()))


Order = dict[int, list[tuple[str, ...]]]  # names of the photos of each batch of each epoch


class Ours:
    """The package's batches and the network that its trainer runs."""

    def __init__(self, model: CaptionModel, batches: Batches, recipe: Recipe, dtype: torch.dtype) -> None:
        self.batches = batches
        self.network = Network(model, CrossEntropy(recipe.training.label_smoothing), dtype)
        self.parameters = list(model.decoder.parameters())

    def losses(self, epoch: int) -> Iterator[tuple[Tensor, int]]:
        """Each batch's sum of losses and number of words."""
        for whole in self.batches.epoch(epoch):
            [batch] = whole.parts
            loss = self.network(batch)
            yield loss.total, int(loss.count)


class Plain:
    """One caption a row, padded, a step at a time."""

    def __init__(self, model: CaptionModel, batches: Batches, order: Order, cache: FeatureCache, recipe: Recipe) -> None:
        assert isinstance(model.decoder, AttentionLSTM)
        self.decoder = model.decoder
        self.order, self.cache = order, cache
        self.smoothing = recipe.training.label_smoothing
        self.parameters = list(model.decoder.parameters())
        # A caption's words from its begin to its end token.
        self.captions: dict[str, list[list[int]]] = {}
        for photo, name in enumerate(batches.names):
            rows = zip(batches.captions.targets[photo].tolist(), batches.captions.lengths[photo].tolist(), strict=True)
            self.captions[name] = [[BEGIN, *ids[:length]] for ids, length in rows if length]

    def losses(self, epoch: int) -> Iterator[tuple[Tensor, int]]:
        """Each batch's sum of losses and number of words."""
        for names in self.order[epoch]:
            yield self.loss(names)

    def loss(self, names: tuple[str, ...]) -> tuple[Tensor, int]:
        """The sum of losses of all captions of the photos, and the number of their words."""
        decoder = self.decoder
        grid = torch.from_numpy(self.cache.array[self.cache.rows(names)].astype(np.float32))
        captions = [ids for name in names for ids in self.captions[name]]
        photos = torch.tensor([photo for photo, name in enumerate(names) for _ in self.captions[name]])
        longest = max(map(len, captions))
        tokens = torch.tensor([ids + [PAD] * (longest - len(ids)) for ids in captions])
        prepared, (hidden, cell) = decoder.prepare(grid[photos])  # rows (R, 49, 2048), of one caption each
        losses = []
        for t in range(longest - 1):
            words = decoder.word_gates(decoder.word_dropout(decoder.embedding(tokens[:, t : t + 1])))
            context, _ = decoder.attention(hidden, prepared)
            context = torch.sigmoid(decoder.gate(hidden)) * context
            hidden, cell = lstm_cell(words + decoder.state_gates(torch.cat([hidden, context], -1)), cell)
            scores = F.linear(decoder.dropout(hidden), decoder.embedding.weight, decoder.vocabulary_bias)
            losses.append(
                F.cross_entropy(
                    scores.squeeze(1), tokens[:, t + 1], ignore_index=PAD, label_smoothing=self.smoothing, reduction="sum"
                )
            )
        return torch.stack(losses).sum(), sum(len(ids) - 1 for ids in captions)


class Run:
    """A contender with its optimiser, one step at a time."""

    def __init__(self, contender: Ours | Plain, recipe: Recipe) -> None:
        self.contender = contender
        options = recipe.training
        self.clip = options.gradient_clip
        self.optimizer = torch.optim.AdamW(
            contender.parameters, lr=options.learning_rate, weight_decay=options.weight_decay, fused=True
        )
        self.seconds: list[float] = []
        self.processor = 0.0  # seconds of all cores
        self.total, self.count = 0.0, 0

    def steps(self, epoch: int) -> Iterator[None]:
        """Trains on one batch of the epoch after another."""
        for total, count in self.contender.losses(epoch):
            self.optimizer.zero_grad()
            (total / count).backward()
            torch.nn.utils.clip_grad_norm_(self.contender.parameters, self.clip)
            self.optimizer.step()
            self.total += total.item()
            self.count += count
            yield


def check(ours: Ours, plain: Plain) -> float:
    """Largest difference between the two's gradients on the first batch, relative to the largest gradient; dropout is off."""
    gradients = []
    for contender in (ours, plain):
        for module in (ours.network.networks["decoder"], plain.decoder):
            module.eval()
        total, count = next(contender.losses(1))
        (total / count).backward()
        gradients.append([p.grad.clone() for p in contender.parameters])
        for parameter in contender.parameters:
            parameter.grad = None
    difference = max(float((a - b).abs().max()) for a, b in zip(*gradients, strict=True))
    return difference / max(float(a.abs().max()) for a in gradients[0])


def machine() -> str:
    """Processor, threads and torch, in words."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    return f"{processor}, {torch.get_num_threads()} of {os.cpu_count()} cores used, torch {torch.__version__}"


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; elsewhere it is emulated, which costs more than it saves."""
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    return "amx_bf16" in flags or "avx512_bf16" in flags or "bf16" in flags


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--photos", type=int, default=1000, help="train photos in the epoch; 0 is all")
    parser.add_argument("--repeats", type=int, default=2, help="epochs that are timed")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 is its own choice")
    parser.add_argument(
        "--bfloat16", choices=["auto", "yes", "no"], default="auto", help="a third contender; auto: if fast here"
    )
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)

    recipe = Recipe.load("flickr8k")
    dataset = read_dataset(arguments.data)
    samples = dataset.split("train")
    cache = open_cache(arguments.cache, dataset.photos, [sample.image for sample in samples])
    vocabulary = Vocabulary.from_captions(
        (tokenize(text) for sample in samples for text in sample.captions), recipe.vocabulary.min_count
    )
    ready = set(cache.names)
    chosen = [sample for sample in samples if sample.image in ready][: arguments.photos or None]
    captions = {sample.image: [tokenize(text) for text in sample.captions] for sample in chosen}
    inputs = CachedInputs([cache])
    encoded = weighted(captions, vocabulary, rule=recipe.vocabulary.text, max_words=recipe.training.max_words)
    batches = Batches(list(captions), encoded, inputs, recipe.training.photos_per_batch, (recipe.seed,))

    torch.manual_seed(recipe.seed)
    sizes: dict[str, Any] = recipe.decoder.sizes()
    decoder = AttentionLSTM(DecoderConfig(vocabulary=len(vocabulary), features=cache.array.shape[-1], **sizes))
    nobody = ResNet(ResNetConfig("v1.5", width=1)).requires_grad_(False)  # the features are there already

    def model() -> CaptionModel:
        return CaptionModel(nobody, copy.deepcopy(decoder).train(), vocabulary, None)  # type: ignore[arg-type]

    # All features are read once here, and are then in memory for all contenders if there is room for them.
    order = {
        epoch: [part.names for batch in batches.epoch(epoch) for part in batch.parts] for epoch in range(arguments.repeats + 1)
    }
    error = check(Ours(model(), batches, recipe, torch.float32), Plain(model(), batches, order, cache, recipe))
    if error > 1e-4:
        raise SystemExit(f"the two do not compute the same: gradients differ by {error:.1e} of the largest")
    runs = {
        "plain, float32": Run(Plain(model(), batches, order, cache, recipe), recipe),
        "ours, float32": Run(Ours(model(), batches, recipe, torch.float32), recipe),
    }
    if arguments.bfloat16 == "yes" or (arguments.bfloat16 == "auto" and has_bfloat16()):
        runs["ours, bfloat16"] = Run(Ours(model(), batches, recipe, torch.bfloat16), recipe)
    for run in runs.values():
        next(run.steps(0))  # memory is laid out and libraries choose their kernels
        run.total, run.count = 0.0, 0

    names = list(runs)
    for epoch in range(1, arguments.repeats + 1):
        steps = {name: run.steps(epoch) for name, run in runs.items()}
        for number in range(len(batches)):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                started, worked = time.perf_counter(), time.process_time()
                next(steps[name])
                runs[name].seconds.append(time.perf_counter() - started)
                runs[name].processor += time.process_time() - worked

    plain = runs["plain, float32"].seconds
    print(machine())
    print(f"{len(captions)} photos with all captions, {batches.size} a batch, {arguments.repeats} epochs")
    print(f"gradients of the first two differ by {error:.0e} of the largest")
    columns = f"{'s an epoch':>10} {'photos/s':>9} {'times faster':>13} {'by batch, median (range)':>26}"
    print(f"{'':16} {columns} {'CPU s':>9} {'by CPU time':>12} {'mean loss':>10}")
    figures = {}
    for name, run in runs.items():
        seconds = sum(run.seconds) / arguments.repeats
        rate, loss, faster = len(captions) / seconds, run.total / run.count, sum(plain) / sum(run.seconds)
        ratios = [theirs / ours for theirs, ours in zip(plain, run.seconds, strict=True)]
        middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
        processor, by_processor = run.processor / arguments.repeats, runs["plain, float32"].processor / run.processor
        spread = f"{middle:.2f} ({low:.2f} to {high:.2f})"
        times = f"{seconds:10.2f} {rate:9.1f} {faster:13.2f} {spread:>26} {processor:9.2f} {by_processor:12.2f}"
        print(f"{name:16} {times} {loss:10.3f}")
        figures[name] = {
            "seconds_per_epoch": round(seconds, 3),
            "photos_per_second": round(rate, 2),
            "times_faster": round(faster, 3),
            "times_faster_by_batch": {"median": round(middle, 3), "lowest": round(low, 3), "highest": round(high, 3)},
            "cpu_seconds_per_epoch": round(processor, 3),
            "times_faster_by_cpu_time": round(by_processor, 3),
            "mean_loss": round(loss, 4),
        }
    about = {"machine": machine(), "photos": len(captions), "batches": len(batches), "repeats": arguments.repeats}
    result = json.dumps({**about, "contenders": figures})
    print(result)
    if arguments.json:
        arguments.json.write_text(result + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
